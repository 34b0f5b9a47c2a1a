/* SPDX-License-Identifier: MIT
 *
 * check/names: directory entries against inodes, link counts, orphans, and that every directory hangs below the root.
 */
#include "core/check/check_int.h"

#include <stdio.h>
#include <stdlib.h>

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

/* The inode is not there. */
static int check_missing(struct check *c, uint64_t dir, const struct dirent *d)
{
	int r;

	if (!check_lost_key(c, item_key(d->ino, ITEM_INODE, 0))) {
		check_problem(c, "directory %s: entry \"%.*s\" names inode %llu, which does not exist",
			      check_place(c, dir), (int)d->len, d->name, (unsigned long long)d->ino);
		return 0;
	}
	r = array_grow((void **)&c->ghosts, &c->ghost_room, c->ghost_count + 1, sizeof *c->ghosts);
	if (r == 0)
		c->ghosts[c->ghost_count++] = (struct check_ghost){ d->ino, dir, d->key.lo };
	return r;
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
		check_damage(c, "directory %s: an entry cannot be read: %s", check_place(c, dir), err_last());
		return 0;
	}
	if (k.lo >> 8 != expected_hash(c, &d) && !(c->v && c->v->no_super))
		check_problem(c, "directory %s: entry \"%.*s\" is not where its hash belongs", check_place(c, dir),
			      (int)d.len, d.name);
	check_duplicate(c, &d);
	rec = check_find(c, d.ino);
	if (!rec)
		return check_missing(c, dir, &d);
	rec->names++;
	if (rec->parent == 0)
		rec->parent = dir;
	if (rec->parent == dir && rec->name == 0)
		rec->name = k.lo;
	if (rec_type(rec) == 0)
		return 0;               /* damaged: told with its contents */
	if (rec_type(rec) == S_IFDIR)
		check_subdirectory(c, dir, &d, rec);
	if (d.type != rec_type(rec))
		check_problem(c, "directory %s: entry \"%.*s\" says type 0%o, inode %llu has type 0%o",
			      check_place(c, dir), (int)d.len, d.name, d.type, (unsigned long long)d.ino,
			      rec_type(rec));
	return 0;
}

/* Links and orphans ------------------------------------------------------------------------------------------------ */

/* With a page lost, a name that is missing may have been in it. Of a directory it is known where it must have been. */
static const struct salvage_span *lost_name(const struct check *c, const struct check_inode *rec)
{
	return rec_type(rec) == S_IFDIR ? check_lost_kind(c, rec->parent, ITEM_DIRENT) :
	       c->lost_count > 0 ? &c->lost[0] : NULL;
}

/* Names that are missing. */
static void tell_nameless(struct check *c, const struct check_inode *rec)
{
	const struct salvage_span *lost = lost_name(c, rec);
	char where[PLACE_SIZE + 64];
	uint64_t ino = rec_ino(rec);

	if (rec_type(rec) == S_IFDIR) {
		(void)snprintf(where, sizeof where, "%s", check_place(c, rec->parent));
		check_follows(c, "directory %s: its name is lost, which was in directory %s, %s", check_place(c, ino), where,
			      check_with(c, lost));
	} else if (rec->nlink == 1) {
		check_follows(c, "inode %s: its name is lost", check_place(c, ino));
	} else {
		check_follows(c, "inode %s: %u of its %u names are lost", check_place(c, ino), rec->nlink - rec->names,
			      rec->nlink);
	}
}

static void check_links(struct check *c, const struct check_inode *rec)
{
	uint64_t ino = rec_ino(rec);
	bool is_dir = rec_type(rec) == S_IFDIR;

	if (rec_type(rec) == 0)
		return;
	if (rec_orphan(rec) && rec->nlink != 0)
		check_problem(c, "inode %s is listed as an orphan, but has link count %u", check_place(c, ino), rec->nlink);
	if (!rec_orphan(rec) && rec->nlink == 0 && !check_lost_key(c, (struct key){ KIND_ORPHAN, ino }))
		check_problem(c, "inode %s has link count 0, but is not listed as an orphan", check_place(c, ino));
	if (is_dir && rec->nlink != 0) {
		if (ino != KEYS_ROOT_INO && rec->names == 0 && lost_name(c, rec))
			tell_nameless(c, rec);
		else if (ino != KEYS_ROOT_INO && rec->names == 0)
			check_problem(c, "directory %s has no name", check_place(c, ino));
		return;
	}
	if (rec->names < rec->nlink && lost_name(c, rec))
		tell_nameless(c, rec);
	else if (rec->nlink != rec->names)
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
			    (!rec && !check_lost_key(c, item_key(parent, ITEM_INODE, 0))))
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

static bool is_headless(const struct check *c, uint64_t ino)
{
	size_t a = 0, b = c->headless_count;

	while (a < b) {
		size_t mid = a + (b - a) / 2;

		if (c->headless[mid] < ino)
			a = mid + 1;
		else
			b = mid;
	}
	return a < c->headless_count && c->headless[a] == ino;
}

static void check_root(struct check *c)
{
	const struct check_inode *root = check_find(c, KEYS_ROOT_INO);
	const struct salvage_span *lost = check_lost_key(c, item_key(KEYS_ROOT_INO, ITEM_INODE, 0));

	/* Whatever else there is of it tells of that. */
	if (!root && lost && !is_headless(c, KEYS_ROOT_INO))
		check_follows(c, "inode %s: all of it is lost %s", check_place(c, KEYS_ROOT_INO), check_with(c, lost));
	if (!root && lost)
		return;
	if (!root || rec_type(root) != S_IFDIR)
		check_problem(c, "the store has no root directory");
	else if (root->parent != KEYS_ROOT_INO)
		check_problem(c, "the \"..\" of the root directory is inode %llu", (unsigned long long)root->parent);
}

/* Where they are ----------------------------------------------------------------------------------------------------- */

static int by_ino(const void *pa, const void *pb)
{
	const struct check_ghost *a = pa, *b = pb;

	if (a->ino != b->ino)
		return a->ino < b->ino ? -1 : 1;
	if (a->parent != b->parent)
		return a->parent < b->parent ? -1 : 1;
	return a->name < b->name ? -1 : a->name > b->name;
}

/* The first one of that inode. */
static const struct check_ghost *find_ghost(const struct check *c, uint64_t ino)
{
	size_t a = 0, b = c->ghost_count;

	while (a < b) {
		size_t mid = a + (b - a) / 2;

		if (c->ghosts[mid].ino < ino)
			a = mid + 1;
		else
			b = mid;
	}
	return a < c->ghost_count && c->ghosts[a].ino == ino ? &c->ghosts[a] : NULL;
}

bool check_entry_of(void *ctx, uint64_t ino, uint64_t *ret_dir, uint64_t *ret_lo)
{
	const struct check *c = ctx;
	const struct check_inode *rec = check_find(c, ino);
	const struct check_ghost *ghost = rec ? NULL : c->ghost && c->ghost->ino == ino ? c->ghost : find_ghost(c, ino);

	if (!ghost && (!rec || rec->parent == 0))
		return false;
	*ret_dir = ghost ? ghost->parent : rec->parent;
	*ret_lo = ghost ? ghost->name : rec->name;
	return true;
}

bool check_has_ghost(const struct check *c, uint64_t ino)
{
	return find_ghost(c, ino) != NULL;
}

/* A name whose inode was in a page that cannot be read. */
static void tell_ghost(struct check *c, const struct check_ghost *ghost)
{
	const struct salvage_span *lost = check_lost_key(c, item_key(ghost->ino, ITEM_INODE, 0));

	c->ghost = ghost;
	check_follows(c, "inode %s: %s lost %s", check_place(c, ghost->ino),
		      is_headless(c, ghost->ino) ? "its attributes are" : "all of it is", check_with(c, lost));
	c->ghost = NULL;
}

static void tell_span(struct check *c, const struct salvage_span *s)
{
	const char *page = check_with(c, s) + strlen("with ");
	char from[PLACE_SIZE + 64];
	uint64_t first, last;

	salvage_inodes(s, c->v && c->v->no_super ? UINT64_MAX : store_counts(c->s)->next_ino, &first, &last);
	if (last == 0) {
		check_follows(c, "%s: it had items of the store itself", page);
		return;
	}
	(void)snprintf(from, sizeof from, "%s", check_place(c, first));
	check_follows(c, "%s: it %s items of inodes %llu to %llu, from %s to %s%s", page, s->found ? "led to" : "had",
		      (unsigned long long)first, (unsigned long long)last, from, check_place(c, last),
		      s->found ? ", which were found without it" : "");
}

void check_tell_lost(struct check *c)
{
	size_t i;

	for (i = 0; i < c->lost_count; i++)
		if (c->lost[i].block)
			tell_span(c, &c->lost[i]);
	for (i = 0; i < c->ghost_count; i++)
		tell_ghost(c, &c->ghosts[i]);
}

int check_names(struct check *c)
{
	size_t i;
	int r = check_walk(c, check_entry);

	if (r < 0)
		return r;
	if (c->ghost_count > 0)
		qsort(c->ghosts, c->ghost_count, sizeof *c->ghosts, by_ino);
	check_root(c);
	for (i = 0; i < c->inode_count; i++) {
		check_links(c, &c->inodes[i]);
		check_reachable(c, &c->inodes[i]);
	}
	return 0;
}
