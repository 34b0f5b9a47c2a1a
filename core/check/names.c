/* SPDX-License-Identifier: MIT
 *
 * check/names: directory entries against inodes, link counts, orphans, and that every directory hangs below the root.
 */
#include "core/check/check_int.h"

#define HASH_FIRST 3u           /* as names.c of core/keys */

static uint64_t expected_hash(struct check *c, const struct dirent *d)
{
	uint64_t h = hash64(d->name, d->len, store_hash_seed(c->s)) & ((1ull << 54) - 1);

	return h < HASH_FIRST ? h + HASH_FIRST : h;
}

/* Is the name also at an earlier probe of its hash? */
static void check_duplicate(struct check *c, const struct dirent *d)
{
	struct tree_cursor at;
	int r;

	if ((d->key.lo & 0xff) == 0)
		return;
	r = tree_seek(c->t, (struct key){ d->key.hi, d->key.lo & ~0xffull }, &at);
	for (; r == 0 && key_cmp(cursor_key(&at), d->key) < 0; r = cursor_next(&at)) {
		struct dirent other;
		uint32_t len;
		const uint8_t *v = cursor_value(&at, &len);

		if (dirent_decode(v, len, cursor_key(&at), &other) == 0 && other.len == d->len &&
		    memcmp(other.name, d->name, d->len) == 0) {
			check_problem(c, "directory %s: the name \"%.*s\" is there twice",
				      check_place(c, d->key.hi >> 8), (int)d->len, d->name);
			return;
		}
	}
}

/* The entry names a directory: its `..` must lead back, and it may have one name only. */
static void check_subdirectory(struct check *c, uint64_t dir, const struct dirent *d, const struct check_inode *rec)
{
	if (d->ino == KEYS_ROOT_INO)
		check_problem(c, "directory %s: entry \"%.*s\" names the root directory", check_place(c, dir),
			      (int)d->len, d->name);
	else if (rec->parent != dir)
		check_problem(c, "directory %s: entry \"%.*s\" names directory %llu, whose \"..\" is inode %llu",
			      check_place(c, dir), (int)d->len, d->name, (unsigned long long)d->ino,
			      (unsigned long long)rec->parent);
	else if (rec->names == 2)
		check_problem(c, "directory %s has more than one name", check_place(c, d->ino));
}

static int check_entry(struct check *c, struct key k, const uint8_t *v, uint32_t len)
{
	uint64_t dir = k.hi >> 8;
	struct check_inode *rec;
	struct dirent d;

	if (dir == 0 || (k.hi & 0xff) != ITEM_DIRENT)
		return 0;
	c->rep->names++;
	if (dirent_decode(v, len, k, &d) < 0) {
		check_problem_last(c);
		return 0;
	}
	if (k.lo >> 8 != expected_hash(c, &d))
		check_problem(c, "directory %s: entry \"%.*s\" is not where its hash belongs", check_place(c, dir),
			      (int)d.len, d.name);
	check_duplicate(c, &d);
	rec = check_find(c, d.ino);
	if (!rec) {
		if (!check_is_lost(c, item_key(d.ino, ITEM_INODE, 0)))
			check_problem(c, "directory %s: entry \"%.*s\" names inode %llu, which does not exist",
				      check_place(c, dir), (int)d.len, d.name, (unsigned long long)d.ino);
		return 0;
	}
	rec->names++;
	if (rec_type(rec) == 0)
		return 0;               /* damaged: said already */
	if (rec_type(rec) == S_IFDIR)
		check_subdirectory(c, dir, &d, rec);
	else if (rec->parent == 0)
		rec->parent = dir;
	if (d.type != rec_type(rec))
		check_problem(c, "directory %s: entry \"%.*s\" says type 0%o, inode %llu has type 0%o",
			      check_place(c, dir), (int)d.len, d.name, d.type, (unsigned long long)d.ino,
			      rec_type(rec));
	return 0;
}

/* Links and orphans ------------------------------------------------------------------------------------------------ */

static void check_links(struct check *c, const struct check_inode *rec)
{
	uint64_t ino = rec_ino(rec);
	bool is_dir = rec_type(rec) == S_IFDIR;

	if (rec_type(rec) == 0)
		return;
	if (rec_orphan(rec) && rec->nlink != 0)
		check_problem(c, "inode %s is listed as an orphan, but has link count %u", check_place(c, ino), rec->nlink);
	if (!rec_orphan(rec) && rec->nlink == 0 && !check_is_lost(c, (struct key){ KIND_ORPHAN, ino }))
		check_problem(c, "inode %s has link count 0, but is not listed as an orphan", check_place(c, ino));
	if (is_dir && rec->nlink != 0) {
		if (ino != KEYS_ROOT_INO && rec->names == 0 && !c->rep->incomplete)
			check_problem(c, "directory %s has no name", check_place(c, ino));
		return;
	}
	/* With names lost, too few of them prove nothing. */
	if (rec->nlink != rec->names && !(c->rep->incomplete && rec->names < rec->nlink))
		check_problem(c, "inode %s has link count %u, but %u names", check_place(c, ino), rec->nlink, rec->names);
}

/* Where the way up from a directory ends. The directories on it are marked INODE_ON_WAY. */
static enum inode_state climb(struct check *c, struct check_inode *rec)
{
	for (;;) {
		uint64_t ino = rec_ino(rec), parent = rec->parent;

		if (ino == KEYS_ROOT_INO)
			return INODE_REACHED;
		rec_set_state(rec, INODE_ON_WAY);
		rec = check_find(c, parent);
		if (!rec || rec_type(rec) != S_IFDIR) {
			if ((rec && rec_type(rec) != 0) ||
			    (!rec && !check_is_lost(c, item_key(parent, ITEM_INODE, 0))))
				check_problem(c, "directory %llu: its \"..\" is inode %llu, which is no directory",
					      (unsigned long long)ino, (unsigned long long)parent);
			return INODE_CUT_OFF;
		}
		if (rec_orphan(rec)) {
			check_problem(c, "directory %llu: its \"..\" is inode %llu, which was removed",
				      (unsigned long long)ino, (unsigned long long)parent);
			return INODE_CUT_OFF;
		}
		if (rec_state(rec) == INODE_ON_WAY) {
			check_problem(c, "directory %llu is below itself, not below the root", (unsigned long long)ino);
			return INODE_CUT_OFF;
		}
		if (rec_state(rec) != INODE_UNSEEN)
			return rec_state(rec);
	}
}

static void check_reachable(struct check *c, struct check_inode *rec)
{
	enum inode_state end;

	if (rec_type(rec) != S_IFDIR || rec_orphan(rec) || rec_state(rec) != INODE_UNSEEN)
		return;
	end = climb(c, rec);
	while (rec && rec_state(rec) == INODE_ON_WAY) {
		rec_set_state(rec, end);
		rec = check_find(c, rec->parent);
	}
}

static void check_root(struct check *c)
{
	const struct check_inode *root = check_find(c, KEYS_ROOT_INO);

	if (!root && check_is_lost(c, item_key(KEYS_ROOT_INO, ITEM_INODE, 0)))
		return;
	if (!root || rec_type(root) != S_IFDIR)
		check_problem(c, "the store has no root directory");
	else if (root->parent != KEYS_ROOT_INO)
		check_problem(c, "the \"..\" of the root directory is inode %llu", (unsigned long long)root->parent);
}

int check_names(struct check *c)
{
	size_t i;
	int r = check_walk(c, check_entry);

	if (r < 0)
		return r;
	check_root(c);
	for (i = 0; i < c->inode_count; i++) {
		check_links(c, &c->inodes[i]);
		check_reachable(c, &c->inodes[i]);
	}
	return 0;
}
