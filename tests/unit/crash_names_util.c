/* SPDX-License-Identifier: MIT
 *
 * crash_names: calls that make, link, rename and remove, on the store and on the model of crash_util.h.
 */
#include "tests/unit/crash_int.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static struct model_node *new_node(struct work *w, uint64_t dir, uint64_t ino, uint32_t mode, bool whiteout)
{
	const struct model_node *d = node_get(w, dir);
	struct model_node *n;
	struct keys_attr a = { .ino = ino, .mode = mode, .nlink = S_ISDIR(mode) ? 2 : 1, .uid = work_cred.uid, .gid = work_cred.gid };

	if (d->a.mode & S_ISGID) {
		a.gid = d->a.gid;
		if (S_ISDIR(mode))
			a.mode |= S_ISGID;
	}
	if (S_ISREG(mode) || S_ISLNK(mode))
		a.flags = KEYS_ATTR_INLINE;
	a.atime = a.mtime = a.ctime = a.btime = model_now(w);
	if (ino <= w->highest_ino)
		work_disagree(w, "an inode number was given out twice");
	w->highest_ino = ino;
	n = node_add(w, &a);
	if (!S_ISLNK(mode) && !whiteout)
		model_inherit(w, d, n, work_cred.umask);
	return n;
}

int work_make(struct work *w, uint64_t dir, const char *name, uint32_t mode, uint64_t rdev)
{
	struct model_node *n;
	struct keys_attr a = { 0 };
	uint64_t ino;
	int r;

	work_say(w, "make %o %s in %llu", mode, name, (unsigned long long)dir);
	w->expected = name_find(node_get(w, dir), name) ? -EEXIST : 0;
	ino = work_next_ino(w);
	r = keys_make(w->k, dir, name, strlen(name), mode, rdev, &work_cred, &a);
	if (!work_was_committed(w, r))
		return r;
	if (r == 0 && a.ino != ino)
		work_disagree(w, "not the next inode number");
	n = new_node(w, dir, ino, mode, false);
	if (S_ISBLK(mode) || S_ISCHR(mode))
		n->a.aux = rdev;
	if (S_ISDIR(mode))
		n->a.aux = dir;
	mode = n->a.mode;
	n = node_edit(w, dir);
	name_set(w, n, name, ino, mode);
	if (S_ISDIR(mode))
		n->a.nlink++;
	model_touch(w, n, true);
	work_step_state(w);
	return r;
}

int work_op_make(struct work *w)
{
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFIFO, S_IFSOCK, S_IFBLK,
					  S_IFCHR };
	uint32_t mode = types[work_random(w, ARRAY_LEN(types))] | (uint32_t)work_random(w, 01000);
	uint64_t dir = work_pick_dir(w), rdev = makedev(work_random(w, 200), work_random(w, 200));
	char name[24];

	if (work_chance(w, 10))
		mode |= S_ISGID;
	work_new_name(w, name);
	return work_make(w, dir, name, mode, rdev);
}

int work_symlink(struct work *w, uint64_t dir, const char *name, const uint8_t *target, size_t len)
{
	struct keys_attr a = { 0 };
	struct model_node *n;
	uint64_t ino;
	int r;

	work_say(w, "symlink of %zu bytes, %s in %llu", len, name, (unsigned long long)dir);
	w->expected = name_find(node_get(w, dir), name) ? -EEXIST : 0;
	ino = work_next_ino(w);
	r = keys_symlink(w->k, dir, name, strlen(name), (char *)target, len, &work_cred, &a);
	if (!work_was_committed(w, r))
		return r;
	if (r == 0 && a.ino != ino)
		work_disagree(w, "not the next inode number");
	n = new_node(w, dir, ino, S_IFLNK | 0777, false);
	n->a.size = len;
	node_write(w, n, 0, target, len);
	n = node_edit(w, dir);
	name_set(w, n, name, ino, S_IFLNK);
	model_touch(w, n, true);
	work_step_state(w);
	return r;
}

int work_op_symlink(struct work *w)
{
	size_t len = 1 + (size_t)work_random(w, work_chance(w, 20) ? KEYS_SYMLINK_MAX : 60);
	uint8_t target[KEYS_SYMLINK_MAX];
	uint64_t dir = work_pick_dir(w);
	char name[24];

	work_bytes(w, target, len);
	work_new_name(w, name);
	return work_symlink(w, dir, name, target, len);
}

int work_link(struct work *w, uint64_t ino, uint64_t dir, const char *name)
{
	const struct model_node *f = node_get(w, ino);
	struct keys_attr a;
	struct model_node *n;
	int r;

	work_say(w, "link %llu as %s in %llu", (unsigned long long)ino, name, (unsigned long long)dir);
	w->expected = S_ISDIR(f->a.mode) ? -EPERM : f->a.nlink == 0 ? -ENOENT : name_find(node_get(w, dir), name) ? -EEXIST : 0;
	r = keys_link(w->k, ino, dir, name, strlen(name), &a);
	if (!work_was_committed(w, r))
		return r;
	n = node_edit(w, ino);
	n->a.nlink++;
	model_touch(w, n, false);
	a = n->a;
	n = node_edit(w, dir);
	name_set(w, n, name, ino, a.mode);
	model_touch(w, n, true);
	work_step_state(w);
	return r;
}

int work_op_link(struct work *w)
{
	uint64_t ino = work_pick(w, S_IFREG, work_chance(w, 30)), dir = work_pick_dir(w);
	char name[24];

	if (!node_get(w, ino))
		return 0;
	work_new_name(w, name);
	return work_link(w, ino, dir, name);
}

static void lose_name(struct work *w, uint64_t ino)
{
	struct model_node *n = node_edit(w, ino);

	n->a.nlink = S_ISDIR(n->a.mode) ? 0 : n->a.nlink - 1;
	model_touch(w, n, false);
}

int work_unlink(struct work *w, uint64_t dir, const char *name)
{
	const struct model_name e = *name_find(node_get(w, dir), name);
	struct model_node *n;
	uint64_t ino = 0;
	uint32_t nlink;
	int r;

	if (S_ISDIR(e.type)) {
		work_say(w, "rmdir %s in %llu", e.name, (unsigned long long)dir);
		w->expected = node_get(w, e.ino)->a.size > 0 ? -ENOTEMPTY : 0;
		r = keys_rmdir(w->k, dir, e.name, strlen(e.name), &ino);
	} else {
		work_say(w, "unlink %s in %llu", e.name, (unsigned long long)dir);
		w->expected = 0;
		r = keys_unlink(w->k, dir, e.name, strlen(e.name), &ino, &nlink);
	}
	if (!work_was_committed(w, r))
		return r;
	lose_name(w, e.ino);
	n = node_edit(w, dir);
	name_remove(n, e.name);
	if (S_ISDIR(e.type))
		n->a.nlink--;
	model_touch(w, n, true);
	work_step_state(w);
	return r;
}

int work_op_unlink(struct work *w)
{
	struct model_name e;
	uint64_t dir;

	return work_pick_name(w, &dir, &e) ? work_unlink(w, dir, e.name) : 0;
}

static bool is_below(const struct work *w, uint64_t dir, uint64_t top)
{
	for (;; dir = node_get(w, dir)->a.aux) {
		if (dir == top)
			return true;
		if (dir == KEYS_ROOT_INO)
			return false;
	}
}

static int rename_error(const struct work *w, uint64_t od, const struct model_name *e, uint64_t nd,
			const struct model_name *over, unsigned flags)
{
	if (flags & RENAME_EXCHANGE && !over)
		return -ENOENT;
	if (flags & RENAME_NOREPLACE && over)
		return -EEXIST;
	if (od != nd && S_ISDIR(e->type) && is_below(w, nd, e->ino))
		return -EINVAL;
	if (flags & RENAME_EXCHANGE)
		return od != nd && S_ISDIR(over->type) && is_below(w, od, over->ino) ? -EINVAL : 0;
	if (!over)
		return 0;
	if (S_ISDIR(e->type) && !S_ISDIR(over->type))
		return -ENOTDIR;
	if (!S_ISDIR(e->type) && S_ISDIR(over->type))
		return -EISDIR;
	return S_ISDIR(over->type) && over->ino != e->ino && node_get(w, over->ino)->a.size > 0 ? -ENOTEMPTY : 0;
}

static void move_dir(struct work *w, const struct model_name *e, uint64_t from, uint64_t to)
{
	if (!S_ISDIR(e->type) || from == to)
		return;
	node_edit(w, e->ino)->a.aux = to;
	node_edit(w, from)->a.nlink--;
	node_edit(w, to)->a.nlink++;
}

static void model_rename(struct work *w, uint64_t od, const struct model_name *e, uint64_t nd, const char *name,
			 const struct model_name *over, unsigned flags, uint64_t whiteout)
{
	if (flags & RENAME_EXCHANGE) {
		name_set(w, node_edit(w, od), e->name, over->ino, over->type);
		name_set(w, node_edit(w, nd), name, e->ino, e->type);
		move_dir(w, over, nd, od);
		model_touch(w, node_edit(w, over->ino), false);
	} else {
		if (flags & RENAME_WHITEOUT) {
			(void)new_node(w, od, whiteout, S_IFCHR, true);
			name_set(w, node_edit(w, od), e->name, whiteout, S_IFCHR);
		} else {
			name_remove(node_edit(w, od), e->name);
		}
		if (over && S_ISDIR(over->type))
			node_edit(w, nd)->a.nlink--;
		name_set(w, node_edit(w, nd), name, e->ino, e->type);
		if (over)
			lose_name(w, over->ino);
	}
	move_dir(w, e, od, nd);
	model_touch(w, node_edit(w, e->ino), false);
	model_touch(w, node_edit(w, od), true);
	model_touch(w, node_edit(w, nd), true);
}

int work_rename(struct work *w, uint64_t od, const char *oname, uint64_t nd, const char *name, unsigned flags)
{
	const struct model_name e = *name_find(node_get(w, od), oname);
	uint64_t orphan = 0, whiteout = 0;
	struct model_name over;
	const struct model_name *o;
	struct keys_attr a;
	int r;

	o = name_find(node_get(w, nd), name);
	if (o && o->ino == e.ino && S_ISDIR(e.type))
		return 0;               /* the kernel answers that */
	work_say(w, "rename %s in %llu to %s in %llu, flags %u", e.name, (unsigned long long)od, name, (unsigned long long)nd, flags);
	if (o) {
		over = *o;
		o = &over;
	}
	w->expected = rename_error(w, od, &e, nd, o, flags);
	whiteout = work_next_ino(w);
	r = keys_rename(w->k, od, e.name, strlen(e.name), nd, name, strlen(name), flags, &work_cred, &orphan);
	if (w->expected == 0 && o && o->ino == e.ino) {
		if (work_settle(w, r) != 0)
			work_disagree(w, "a rename of a file to itself made a record");
		return r;
	}
	if (!work_was_committed(w, r))
		return r;
	if (r == 0 && flags & RENAME_WHITEOUT)
		check(keys_lookup(w->k, od, e.name, strlen(e.name), &a) == 0 && a.ino == whiteout);
	model_rename(w, od, &e, nd, name, o, flags, whiteout);
	work_step_state(w);
	return r;
}

int work_op_rename(struct work *w)
{
	static const unsigned all[] = { 0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE, RENAME_WHITEOUT };
	unsigned flags = all[work_random(w, ARRAY_LEN(all))];
	struct model_name e, over;
	uint64_t od, nd;
	char name[24];

	if (!work_pick_name(w, &od, &e))
		return 0;
	if (work_chance(w, 60) && work_pick_name(w, &nd, &over)) {
		memcpy(name, over.name, sizeof name);
	} else {
		nd = work_pick_dir(w);
		work_new_name(w, name);
	}
	return work_rename(w, od, e.name, nd, name, flags);
}
