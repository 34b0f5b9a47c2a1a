/* SPDX-License-Identifier: MIT
 *
 * check_int: what the files of core/check share. A check makes three walks over the tree, each page once in each:
 * 1. tree.c: pages, order of keys, kinds of items; the table of inodes;
 * 2. names.c: directory entries, then links and the shape of the hierarchy (so that later findings can give paths);
 * 3. contents.c: inode after inode, its attributes, xattrs, extents and contents.
 * space.c then compares the blocks met with the bitmaps. Findings that follow from a page that cannot be read are not
 * reported: the keys such a page would have had are remembered as lost.
 */
#ifndef MSYNCFS_CHECK_INT_H
#define MSYNCFS_CHECK_INT_H

#include "core/check/check.h"
#include "core/keys/keys_int.h"
#include "core/store/store_int.h"

#define LOST_MAX 64u

/* Half-open. */
struct check_span {
	struct key low, high;
};

enum inode_state { INODE_UNSEEN, INODE_ON_WAY, INODE_REACHED, INODE_CUT_OFF };

struct check_inode {
	uint64_t id;            /* ino << 8 | orphan << 6 | enum inode_state << 4 | type */
	uint64_t parent;        /* a directory's ".."; else the first directory found to name it, 0 = none yet */
	uint32_t nlink, names;
};
_Static_assert(sizeof(struct check_inode) == 24, "check.h says so");

struct check {
	struct keys *k;
	struct store *s;
	struct tree *t;
	struct space *sp;
	const struct check_options *o;
	struct check_report *rep;
	struct super super;             /* in force, as it is on disk */
	gen_t gen_max;                  /* newest generation of pages on disk */
	/* Bitmaps, one bit a block. */
	uint64_t blocks;
	uint64_t *used;                 /* found to be in use */
	uint64_t *pages;                /* tree pages that the first walk accepted */
	uint64_t *seen;                 /* tree pages met in this walk */
	uint64_t *bits;                 /* what the bitmaps of the store say */
	uint8_t *group_bad;             /* by group: its bitmap cannot be read */
	struct check_inode *inodes;     /* ascending */
	size_t inode_count, inode_room;
	uint64_t *orphans;              /* ascending */
	size_t orphan_count, orphan_room;
	uint64_t epoch_seq;             /* first change of the last epoch that was met */
	struct check_span lost[LOST_MAX];
	unsigned lost_count;
	uint64_t done, total;           /* blocks, for progress */
	uint64_t path_budget;           /* entries that may still be looked at to find paths */
	struct check_current *cur;      /* contents.c's */
	char place[2][640];             /* of check_place() */
	unsigned place_at;
};

/* check.c */
void check_problem(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What err_last() says. */
void check_problem_last(struct check *c);
/* Count blocks as read. -ECANCELED. */
int check_progress(struct check *c, uint64_t blocks);
int check_grow(void **array, size_t *room, size_t count, size_t item);
/* "17 (/a/b)", or without the path if it is not known. Valid until the second next call. */
const char *check_place(struct check *c, uint64_t ino);

static inline bool bit_get(const uint64_t *map, uint64_t i)
{
	return map[i / 64] >> (i % 64) & 1;
}

static inline void bit_set(uint64_t *map, uint64_t i)
{
	map[i / 64] |= 1ull << (i % 64);
}

static inline uint64_t rec_ino(const struct check_inode *r)
{
	return r->id >> 8;
}

static inline uint32_t rec_type(const struct check_inode *r)
{
	return (uint32_t)(r->id & 15) << 12;
}

static inline bool rec_orphan(const struct check_inode *r)
{
	return r->id >> 6 & 1;
}

static inline enum inode_state rec_state(const struct check_inode *r)
{
	return (enum inode_state)(r->id >> 4 & 3);
}

static inline void rec_set_state(struct check_inode *r, enum inode_state state)
{
	r->id = (r->id & ~0x30ull) | (uint64_t)state << 4;
}

/* tree.c */
typedef int (*check_item_fn)(struct check *c, struct key k, const uint8_t *v, uint32_t len);
/* The first walk: fills inodes and orphans. */
int check_tree(struct check *c);
/* A later walk: calls fn for each item that the first one accepted. */
int check_walk(struct check *c, check_item_fn fn);
/* May this item have been in a page that cannot be read? */
bool check_is_lost(const struct check *c, struct key k);
bool check_inode_is_lost(const struct check *c, uint64_t ino);
/* NULL if there is none. */
struct check_inode *check_find(const struct check *c, uint64_t ino);

/* names.c */
int check_names(struct check *c);

/* contents.c */
int check_contents(struct check *c);

/* space.c */
/* Fixed blocks, the journal, and the bitmaps themselves. -EAGAIN as check_run(). */
int check_space_load(struct check *c);
/* These blocks are in use. How many of them were already; the first one in *ret_first. */
uint64_t check_mark(struct check *c, block_t block, uint64_t count, block_t *ret_first);
void check_space_compare(struct check *c);

#endif
