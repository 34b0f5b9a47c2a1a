/* SPDX-License-Identifier: MIT
 *
 * where: in which directory an inode is. A directory says it itself (`..`). Of others the inode has a hint: the directory of the
 * newest of their names, and the upper bits of that entry's key, with which it is found among the directory's without its name.
 * A hint is looked at before it is believed: a version that does not keep hints may have changed the names since, and bytes from
 * disk are never trusted. Only what has no name any more has nothing to be looked at; a bit says that the hint was made just
 * when the last one went.
 *
 * Request thread only. What makes, names, renames and unlinks (names.c) keeps hints in the record of the change itself, in fields
 * that it writes anyway, so they cost nothing and all replicas have the same.
 */
#include "core/keys/keys_int.h"

#define HASH_SHIFT  47u                 /* an entry's key has 62 bits: 15 of them are in the hint */
#define LOOKS_MAX   1024u               /* entries with the same 15 bits, of a directory with tens of millions */
#define STEP_ITEMS  64u                 /* of keys_where_settle() */
#define WHERE_ORPHAN 1u                 /* it has lost its last name there */

static bool has_hint(uint32_t mode)
{
	return !S_ISDIR(mode) && !S_ISCHR(mode) && !S_ISBLK(mode);
}

void where_named(struct keys_attr *a, struct key entry)
{
	if (has_hint(a->mode))
		a->where = (entry.hi >> 8) << 16 | (entry.lo >> HASH_SHIFT) << 1;
}

void where_orphaned(struct keys_attr *a, uint64_t dir)
{
	if (has_hint(a->mode))
		a->where = dir << 16 | WHERE_ORPHAN;
}

/* Is there an entry for it where its hint says? */
static int look(struct keys *k, const struct keys_attr *a, uint64_t dir)
{
	uint64_t hash = (a->where & 0xffff) >> 1;
	struct tree_cursor c;
	unsigned n;
	int r = tree_seek(k->tree, item_key(dir, ITEM_DIRENT, hash << HASH_SHIFT), &c);

	for (n = 0; r == 0 && n < LOOKS_MAX; n++, r = cursor_next(&c)) {
		struct key key = cursor_key(&c);
		struct dirent d;
		uint32_t len;
		const uint8_t *v;

		if (key.hi != item_key(dir, ITEM_DIRENT, 0).hi || key.lo >> HASH_SHIFT != hash)
			return -ENODATA;
		v = cursor_value(&c, &len);
		r = dirent_decode(v, len, key, &d);
		if (r != 0)
			return r;
		if (d.ino == a->ino)
			return 0;
	}
	return r == 0 || r == -ENOENT ? -ENODATA : r;
}

int keys_where(struct keys *k, const struct keys_attr *a, uint64_t *ret_dir)
{
	uint64_t dir = a->where >> 16;
	bool orphan = a->where & WHERE_ORPHAN;
	int r;

	if (S_ISDIR(a->mode)) {
		*ret_dir = a->aux;
		return 0;
	}
	if (!has_hint(a->mode) || dir == 0 || orphan != (a->nlink == 0))
		return -ENODATA;
	r = orphan ? 0 : look(k, a, dir);
	if (r == 0)
		*ret_dir = dir;
	return r;
}

/* A name of it is the entry of this key. 1: that is news to its hint; 0: nothing to do. */
static int is_news(struct keys *k, const struct dirent *d, struct keys_attr *ret)
{
	uint64_t dir;
	int r = inode_get(k, d->ino, ret);

	if (r < 0)
		return r == -ENOENT ? 0 : r;    /* check tells of it */
	if (!has_hint(ret->mode))
		return 0;
	r = keys_where(k, ret, &dir);
	return r == -ENODATA ? 1 : r;
}

/* The hint becomes this name. */
static int settle(struct keys *k, const struct dirent *d, struct keys_attr *a)
{
	struct key entry = d->key;
	/* Room first, since that may change the tree, and *d points into it. */
	int r = change_reserve(k, 2, 0, false);

	if (r < 0)
		return r;
	where_named(a, entry);
	change_begin(k, CHANGE_SETATTR);
	change_attr(k, a);
	return change_commit(k);
}

/* The next item. 1: go on; 0: it was the last one. */
static int settle_next(struct keys *k, struct keys_where_walk *at)
{
	struct tree_cursor c;
	struct keys_attr a = { 0 };
	struct dirent d;
	struct key key;
	uint64_t ino;
	uint32_t len;
	const uint8_t *v;
	int r = tree_seek(k->tree, (struct key){ at->hi, at->lo }, &c);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	key = cursor_key(&c);
	ino = key.hi >> 8;
	if (ino == 0 || (key.hi & 0xff) != ITEM_DIRENT) {
		/* On to the entries of this inode, or of the next one. */
		ino += ino == 0 || (key.hi & 0xff) > ITEM_DIRENT;
		*at = (struct keys_where_walk){ item_key(ino, ITEM_DIRENT, 0).hi, 0 };
		return ino < INO_MAX;
	}
	v = cursor_value(&c, &len);
	r = dirent_decode(v, len, key, &d);
	if (r == 0)
		r = is_news(k, &d, &a);
	if (r > 0)
		r = settle(k, &d, &a);
	if (r < 0)
		return r;
	*at = (struct keys_where_walk){ key.hi, key.lo + 1 };   /* of 62 bits */
	return 1;
}

int keys_where_settle(struct keys *k, struct keys_where_walk *at)
{
	unsigned n;
	int r = 1;

	for (n = 0; n < STEP_ITEMS && r == 1; n++)
		r = settle_next(k, at);
	return r;
}
