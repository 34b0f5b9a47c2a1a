/* SPDX-License-Identifier: MIT
 *
 * crash_attr: calls that change attributes, extended ones and ACLs, on the store and on the model of crash_util.h.
 */
#include "tests/unit/crash_int.h"

#include <sys/stat.h>
#include <sys/xattr.h>

int work_op_setattr(struct work *w)
{
	uint64_t ino = work_pick(w, S_IFREG, work_chance(w, 70));
	const struct model_node *f = node_get(w, ino);
	struct keys_setattr set = { .mask = (unsigned)work_random(w, 0) & (KEYS_SET_MODE | KEYS_SET_UID | KEYS_SET_GID |
			KEYS_SET_ATIME | KEYS_SET_MTIME | KEYS_SET_ATIME_NOW | KEYS_SET_MTIME_NOW | KEYS_KILL_PRIV | KEYS_KILL_SGID) };
	struct model_node *n;
	struct keys_attr a;
	int r;

	if (!f)
		return 0;
	set.mode = (uint32_t)work_random(w, 010000);
	set.uid = (uint32_t)work_random(w, 70000);
	set.gid = (uint32_t)work_random(w, 0);
	set.atime = (struct keys_time){ (int64_t)work_random(w, 1ull << 40) - (1 << 30), (uint32_t)work_random(w, 1000000000) };
	set.mtime = (struct keys_time){ (int64_t)work_random(w, 1ull << 33), (uint32_t)work_random(w, 1000000000) };
	work_say(w, "setattr of %llu, mask %x", (unsigned long long)ino, set.mask);
	w->expected = 0;
	r = keys_setattr(w->k, ino, &set, &a);
	if (!work_was_committed(w, r))
		return r;
	n = node_edit(w, ino);
	if (set.mask & KEYS_KILL_PRIV && !S_ISDIR(n->a.mode))
		model_kill_privileges(n, set.mask & KEYS_KILL_SGID);
	if (set.mask & KEYS_SET_UID)
		n->a.uid = set.uid;
	if (set.mask & KEYS_SET_GID)
		n->a.gid = set.gid;
	if (set.mask & KEYS_SET_MODE)
		model_chmod(w, n, set.mode);
	if (set.mask & (KEYS_SET_ATIME | KEYS_SET_ATIME_NOW))
		n->a.atime = set.mask & KEYS_SET_ATIME_NOW ? model_now(w) : set.atime;
	if (set.mask & (KEYS_SET_MTIME | KEYS_SET_MTIME_NOW))
		n->a.mtime = set.mask & KEYS_SET_MTIME_NOW ? model_now(w) : set.mtime;
	model_touch(w, n, false);
	work_step_state(w);
	return r;
}

static int work_setxattr(struct work *w, uint64_t ino, const char *name, const uint8_t *value, size_t size, int flags)
{
	const struct model_xattr *there = xattr_get(node_get(w, ino), name);
	struct model_node *n;
	int r;

	work_say(w, "setxattr %s of %llu, %zu bytes, flags %d", name, (unsigned long long)ino, size, flags);
	w->expected = flags == XATTR_CREATE && there ? -EEXIST : flags == XATTR_REPLACE && !there ? -ENODATA : 0;
	r = keys_setxattr(w->k, ino, name, value, size, flags, false);
	if (!work_was_committed(w, r))
		return r;
	n = node_edit(w, ino);
	xattr_set(w, n, name, value, size);
	model_touch(w, n, false);
	work_step_state(w);
	return r;
}

int work_op_setxattr(struct work *w)
{
	static const char *const names[] = { "user.u", "user.v", "user.w", "user.x", "user.y", "trusted.z", model_capability };
	uint64_t ino = work_pick(w, S_IFREG, true);
	static uint8_t value[KEYS_XATTR_MAX];
	/* The longest fill the journal fast: four records are a segment. */
	unsigned big = w->profile == WORK_JOURNAL ? 50 : w->profile == WORK_GROW ? 30 : 5;
	size_t size = work_chance(w, big) ? KEYS_XATTR_MAX - (size_t)work_random(w, work_chance(w, 50) ? 20000 : KEYS_XATTR_MAX) :
		      (size_t)work_random(w, work_chance(w, 20) ? 5000 : 50);
	int flags = work_chance(w, 20) ? XATTR_CREATE : work_chance(w, 20) ? XATTR_REPLACE : 0;

	work_bytes(w, value, size);
	return work_setxattr(w, ino, names[work_random(w, ARRAY_LEN(names))], value, size, flags);
}

int work_flood(struct work *w)
{
	static uint8_t value[KEYS_XATTR_MAX];
	size_t size = 55000 + (size_t)work_random(w, sizeof value - 55000);

	work_begin(w);
	work_bytes(w, value, size);
	return work_setxattr(w, KEYS_ROOT_INO, "user.flood", value, size, 0);
}

int work_op_removexattr(struct work *w)
{
	uint64_t ino = 0;
	const struct model_node *f;
	struct model_node *n;
	char name[28] = "user.none";
	unsigned tries;
	int r;

	for (tries = 0; tries < 8 && (ino == 0 || node_get(w, ino)->xattr_count == 0); tries++)
		ino = work_pick(w, S_IFREG, true);
	f = node_get(w, ino);
	if (f->xattr_count > 0)
		memcpy(name, f->xattr[work_random(w, f->xattr_count)].name, sizeof name);
	work_say(w, "removexattr %s of %llu", name, (unsigned long long)ino);
	w->expected = f->xattr_count == 0 ? -ENODATA : 0;
	r = keys_removexattr(w->k, ino, name);
	if (!work_was_committed(w, r))
		return r;
	n = node_edit(w, ino);
	xattr_drop(n, name);
	model_touch(w, n, false);
	work_step_state(w);
	return r;
}

static size_t put_class(uint8_t *acl, size_t at, unsigned class, unsigned perm, uint32_t id)
{
	put_le16(acl + at, (uint16_t)class);
	put_le16(acl + at + 2, (uint16_t)perm);
	put_le32(acl + at + 4, id);
	return at + 8;
}

/* Some valid ACL; now and then none. */
static size_t some_acl(struct work *w, uint8_t *acl)
{
	unsigned users = (unsigned)work_random(w, 3), groups = (unsigned)work_random(w, 3), i;
	size_t at = 4;

	put_le32(acl, 2);
	if (work_chance(w, 15))
		return at;
	at = put_class(acl, at, CLASS_USER, (unsigned)work_random(w, 8), ~0u);
	for (i = 0; i < users; i++)
		at = put_class(acl, at, 2, (unsigned)work_random(w, 8), 1000 + i);
	at = put_class(acl, at, CLASS_GROUP, (unsigned)work_random(w, 8), ~0u);
	for (i = 0; i < groups; i++)
		at = put_class(acl, at, 8, (unsigned)work_random(w, 8), 2000 + i);
	if (users + groups > 0 || work_chance(w, 20))
		at = put_class(acl, at, CLASS_MASK, (unsigned)work_random(w, 8), ~0u);
	return put_class(acl, at, CLASS_OTHER, (unsigned)work_random(w, 8), ~0u);
}

int work_op_acl(struct work *w)
{
	uint64_t ino = work_pick(w, work_chance(w, 40) ? S_IFDIR : S_IFREG, work_chance(w, 20));
	const struct model_node *f = node_get(w, ino);
	bool access = work_chance(w, 50), none;
	const char *name = access ? model_acl_access : model_acl_default;
	uint8_t acl[ACL_ROOM];
	size_t size = some_acl(w, acl);
	struct model_node *n;
	int r;

	if (!f)
		return 0;
	none = size == 4;
	work_say(w, "set %s of %llu, %zu bytes", name, (unsigned long long)ino, size);
	w->expected = S_ISLNK(f->a.mode) ? -EOPNOTSUPP : !access && !S_ISDIR(f->a.mode) && !none ? -EACCES : 0;
	r = keys_setxattr(w->k, ino, name, acl, size, 0, false);
	if (!work_was_committed(w, r))
		return r;
	n = node_edit(w, ino);
	if (access && !none)
		n->a.mode = (n->a.mode & ~0777u) | acl_to_mode(acl, size);
	if (none || (access && acl_is_plain(size)))
		xattr_drop(n, name);
	else
		xattr_set(w, n, name, acl, size);
	model_touch(w, n, false);
	work_step_state(w);
	return r;
}

int work_op_atime(struct work *w)
{
	uint64_t ino = work_pick(w, S_IFREG, true);
	int r;

	work_say(w, "touch atime of %llu", (unsigned long long)ino);
	w->expected = 0;
	r = keys_touch_atime(w->k, ino, KEYS_STRICTATIME);
	if (work_settle(w, r) == 0)
		return r;
	node_edit(w, ino)->a.atime = model_now(w);
	work_step_state(w);
	return r;
}
