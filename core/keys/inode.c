/* SPDX-License-Identifier: MIT
 *
 * inode: attributes: read, set, kept in step with ACLs; access times.
 */
#include "core/keys/keys_int.h"

int inode_get(struct keys *k, uint64_t ino, struct keys_attr *ret)
{
	const uint8_t *v;
	uint32_t len;
	int r;

	if (ino == 0 || ino >= INO_MAX)
		return -ENOENT;
	r = tree_get(k->tree, item_key(ino, ITEM_INODE, 0), &v, &len);
	return r < 0 ? r : inode_decode(v, len, ino, ret);
}

int inode_get_to_change(struct keys *k, uint64_t ino, struct keys_attr *ret)
{
	bool marked = false;
	int r = inode_get(k, ino, ret);

	if (r < 0 || ret->nlink > 0)
		return r;
	r = keys_orphan_marked(k, ino, &marked);
	return r == -ENOENT ? 0 : r < 0 ? r : marked ? -ESTALE : 0;
}

void attr_kill_priv(struct keys_attr *a, unsigned mask)
{
	a->mode &= ~(uint32_t)S_ISUID;
	if (a->mode & S_IXGRP || mask & KEYS_KILL_SGID)
		a->mode &= ~(uint32_t)S_ISGID;
}

struct keys_time keys_now(const struct keys *k)
{
	uint64_t ns = store_now_ns(k->store);

	return (struct keys_time){ (int64_t)(ns / 1000000000u), (uint32_t)(ns % 1000000000u) };
}

void attr_touch(const struct keys *k, struct keys_attr *a, bool mtime)
{
	a->ctime = keys_now(k);
	if (mtime)
		a->mtime = a->ctime;
}

int keys_getattr(struct keys *k, uint64_t ino, struct keys_attr *ret_attr)
{
	return inode_get(k, ino, ret_attr);
}

/* The access ACL says what the group bits mean: a chmod changes it too. */
static int chmod_acl(struct keys *k, const struct keys_attr *a)
{
	uint8_t acl[ACL_SIZE_MAX];
	struct xattr_place place;
	size_t len;
	int r = xattr_read(k, a->ino, ACL_ACCESS_NAME, acl, sizeof acl, &len);

	if (r == -ENODATA)
		return 0;
	if (r == 0)
		r = acl_check(acl, len);
	if (r == 0)
		r = xattr_find(k, a->ino, ACL_ACCESS_NAME, &place);
	if (r < 0)
		return r == -EINVAL ? err_corrupt("inode %llu: ACL is damaged", (unsigned long long)a->ino) : r;
	acl_chmod(acl, len, a->mode);
	xattr_change_set(k, a->ino, &place, ACL_ACCESS_NAME, acl, (uint32_t)len);
	return 0;
}

static void set_times(struct keys *k, const struct keys_setattr *set, struct keys_attr *a)
{
	struct keys_time now = keys_now(k);

	if (set->mask & KEYS_SET_ATIME)
		a->atime = set->atime;
	if (set->mask & KEYS_SET_MTIME)
		a->mtime = set->mtime;
	if (set->mask & KEYS_SET_ATIME_NOW)
		a->atime = now;
	if (set->mask & KEYS_SET_MTIME_NOW)
		a->mtime = now;
	a->ctime = set->mask & KEYS_SET_CTIME ? set->ctime : now;
}

static int set_size(struct keys *k, const struct keys_setattr *set, struct keys_attr *a)
{
	if (S_ISDIR(a->mode))
		return -EISDIR;
	if (!S_ISREG(a->mode))
		return -EINVAL;
	if (set->size > KEYS_SIZE_MAX)
		return -EFBIG;
	/* Also for an unchanged size: blocks behind the end (fallocate with KEEP_SIZE) go, as on other file systems. */
	if (set->size <= a->size) {
		int r = contents_check(k, a, set->size, KEYS_SIZE_MAX);

		if (r < 0)
			return r;
		change_punch(k, a->ino, set->size, KEYS_SIZE_MAX);
	}
	a->size = set->size;
	a->mtime = keys_now(k);
	return 0;
}

/* What chown and truncation by others do to setuid and setgid bits (chown(2)). */
static int drop_privileges(struct keys *k, const struct keys_setattr *set, struct keys_attr *a)
{
	if (!(set->mask & KEYS_KILL_PRIV) || S_ISDIR(a->mode))
		return 0;
	attr_kill_priv(a, set->mask);
	return a->flags & KEYS_ATTR_XATTR ? xattr_change_drop(k, a->ino, CAPS_NAME) : 0;
}

int keys_setattr(struct keys *k, uint64_t ino, const struct keys_setattr *set, struct keys_attr *ret_attr)
{
	struct keys_attr a;
	int r = inode_get_to_change(k, ino, &a);

	if (r < 0)
		return r;
	/* Whatever is set, the store grows no larger by it: also a full one obeys chmod. */
	r = change_reserve(k, 8, 2, true);
	if (r < 0)
		return r;
	change_begin(k, set->mask & KEYS_SET_SIZE ? CHANGE_TRUNCATE : CHANGE_SETATTR);
	if (set->mask & KEYS_SET_SIZE) {
		r = set_size(k, set, &a);
		if (r < 0)
			return r;
	}
	r = drop_privileges(k, set, &a);
	if (r < 0)
		return r;
	if (set->mask & KEYS_SET_UID)
		a.uid = set->uid;
	if (set->mask & KEYS_SET_GID)
		a.gid = set->gid;
	if (set->mask & KEYS_SET_MODE) {
		a.mode = (a.mode & S_IFMT) | (set->mode & 07777);
		r = a.flags & KEYS_ATTR_ACL ? chmod_acl(k, &a) : 0;
		if (r < 0)
			return r;
	}
	set_times(k, set, &a);
	change_attr(k, &a);
	r = change_commit(k);
	return r < 0 ? r : inode_get(k, ino, ret_attr);
}

static bool is_before(struct keys_time a, struct keys_time b)
{
	return a.sec < b.sec || (a.sec == b.sec && a.nsec <= b.nsec);
}

int keys_touch_atime(struct keys *k, uint64_t ino, enum keys_atime policy)
{
	struct keys_time now = keys_now(k);
	struct keys_attr a;
	int r;

	if (policy == KEYS_NOATIME || store_read_only(k->store) || store_is_replica(k->store))
		return 0;
	r = inode_get_to_change(k, ino, &a);
	if (r < 0)
		return r;
	/* relatime as in the kernel's fs/inode.c: older than a change, or than a day. */
	if (policy == KEYS_RELATIME && !is_before(a.atime, a.mtime) && !is_before(a.atime, a.ctime) &&
	    now.sec - a.atime.sec < 24 * 60 * 60)
		return 0;
	if (a.atime.sec == now.sec && a.atime.nsec == now.nsec)
		return 0;
	r = change_reserve(k, 1, 0, false);
	if (r < 0)
		return r;
	a.atime = now;
	change_begin(k, CHANGE_ATIME);
	change_attr(k, &a);
	return change_commit(k);
}
