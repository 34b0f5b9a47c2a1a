/* SPDX-License-Identifier: MIT
 *
 * limit: see limit.h.
 */
#include "core/replica/limit.h"

#include <errno.h>
#include <sys/stat.h>

/* The directory that the path means now. -EROFS: none, so nothing is inside. */
static int find_root(struct keys *k, const char *tree, uint64_t *ret)
{
	uint64_t dir = KEYS_ROOT_INO;
	struct keys_attr a;

	while (*tree) {
		const char *name = tree + 1;
		size_t len = strcspn(name, "/");
		int r = keys_lookup(k, dir, name, len, &a);

		if (r < 0)
			return r == -ENOENT || r == -ENOTDIR ? -EROFS : r;
		dir = a.ino;
		tree = name + len;
	}
	if (dir != KEYS_ROOT_INO && !S_ISDIR(a.mode))
		return -EROFS;
	*ret = dir;
	return 0;
}

/* Is the directory the root of the limit, or below it? 0; -EROFS: no. Also of one that was removed: it is where it was. */
static int dir_inside(struct keys *k, uint64_t root, uint64_t dir)
{
	struct keys_attr a;
	unsigned depth;

	for (depth = 0; depth < LIMIT_DEPTH; depth++) {
		int r;

		if (dir == root)
			return 0;
		if (dir == KEYS_ROOT_INO)
			return -EROFS;
		r = keys_getattr(k, dir, &a);
		if (r < 0)
			return r == -ENOENT ? -EROFS : r;
		if (!S_ISDIR(a.mode))
			return -EROFS;
		dir = a.aux;
	}
	return -EROFS;
}

/* The same for a directory that a call names. */
static int named_dir(struct keys *k, uint64_t root, uint64_t dir)
{
	struct keys_attr a;
	int r = keys_getattr(k, dir, &a);

	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	return dir_inside(k, root, dir);
}

/* And for any inode. whole: it changes itself, under all of its names. */
static int named_inode(struct keys *k, uint64_t root, uint64_t ino, bool whole)
{
	struct keys_attr a;
	uint64_t dir;
	int r = keys_getattr(k, ino, &a);

	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	if (S_ISDIR(a.mode))
		return dir_inside(k, root, ino);
	r = keys_where(k, &a, &dir);
	if (r < 0)
		return r == -ENODATA ? -EPERM : r;
	r = dir_inside(k, root, dir);
	return r == 0 && whole && a.nlink > 1 ? -EPERM : r;
}

/* Of two places: both outside, or one. */
static int both(int one, int other)
{
	if ((one == 0 && other == -EROFS) || (one == -EROFS && other == 0))
		return -EXDEV;
	return one == 0 || one == -EROFS ? other : one;
}

int limit_call(struct keys *k, const char *tree, const struct call *c)
{
	uint64_t root;
	int r;

	/* They change nothing. */
	if (c->op == CALL_FSYNC || c->op == CALL_SYNC)
		return 0;
	r = find_root(k, tree, &root);
	if (r < 0)
		return r;
	switch (c->op) {
	case CALL_MAKE: case CALL_SYMLINK: case CALL_UNLINK: case CALL_RMDIR:
		return named_dir(k, root, c->dir);
	case CALL_RENAME:
		return both(named_dir(k, root, c->dir), named_dir(k, root, c->to_dir));
	case CALL_LINK:
		/* What has a name inside may get another one there; but nothing outside gets a name inside, by which it could be
		 * changed when its other names are gone. */
		return both(named_inode(k, root, c->ino, false), named_dir(k, root, c->dir));
	case CALL_SETATTR: case CALL_WRITE: case CALL_APPEND: case CALL_FALLOCATE: case CALL_COPY_RANGE: case CALL_SETXATTR:
	case CALL_REMOVEXATTR:
		/* The source of a copy is only read. */
		return named_inode(k, root, c->ino, true);
	default:
		/* An operation that nobody has thought about here. */
		return -EROFS;
	}
}

int limit_lock(struct keys *k, const char *tree, uint64_t ino)
{
	uint64_t root;
	int r = find_root(k, tree, &root);

	return r < 0 ? r : named_inode(k, root, ino, false);
}
