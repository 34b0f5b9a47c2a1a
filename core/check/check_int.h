/* SPDX-License-Identifier: MIT
 *
 * check_int: what the files of core/check share. A check makes three walks over the tree, each page once in each:
 * 1. tree.c: pages, order of keys, kinds of items; the table of inodes;
 * 2. names.c: directory entries, then links and the shape of the hierarchy (so that later findings can give paths);
 * 3. contents.c: inode after inode, its attributes, xattrs, extents and contents.
 * space.c then compares the blocks met with the bitmaps.
 *
 * Pages that cannot be read are remembered by the keys that they would have had. Whatever is missing among these keys
 * follows from that; so does every contradiction once changes of the journal are lost.
 */
#ifndef MSYNCFS_CHECK_INT_H
#define MSYNCFS_CHECK_INT_H

#include "core/check/check.h"
#include "core/keys/place.h"
#include "core/store/salvage.h"
#include "core/store/store_int.h"

enum inode_state { INODE_UNSEEN, INODE_ON_WAY, INODE_REACHED, INODE_CUT_OFF };

struct check_inode {
	uint64_t id;            /* ino << 8 | orphan << 6 | enum inode_state << 4 | type */
	uint64_t parent;        /* a directory's ".."; else the first directory found to name it, 0 = none yet */
	uint64_t name;          /* second half of the key of its entry there, 0 = not met yet */
	uint32_t nlink, names;
};
_Static_assert(sizeof(struct check_inode) == 32, "check.h says so");

/* An entry that leads to an inode which is not there, but may have been in a page that cannot be read. */
struct check_ghost {
	uint64_t ino, parent, name;
};
_Static_assert(sizeof(struct check_ghost) == 24, "check.h says so");

struct check {
	struct keys *k;
	struct store *s;
	struct tree *t;
	struct space *sp;
	const struct check_options *o;
	struct check_report *rep;
	const struct store_salvage *v;  /* the store was opened with it; NULL: as any other */
	bool doubt;                     /* contradictions follow from what is lost of the journal */
	struct super super;             /* in force, as it is on disk */
	gen_t gen_max;                  /* newest generation of pages on disk */
	/* Bitmaps, one bit a block. */
	uint64_t blocks;
	uint64_t *used;                 /* found to be in use */
	uint64_t *pages;                /* tree pages that the first walk accepted */
	uint64_t *seen;                 /* tree pages met in this walk */
	uint64_t twice;                 /* blocks of contents that were met again */
	uint64_t *bits;                 /* what the bitmaps of the store say */
	uint8_t *group_bad;             /* by group: its bitmap cannot be read */
	struct check_inode *inodes;     /* ascending */
	size_t inode_count, inode_room;
	uint64_t *orphans;              /* ascending */
	size_t orphan_count, orphan_room;
	uint64_t epoch_seq;             /* first change of the last epoch that was met */
	uint64_t *headless;             /* ascending: inodes whose attributes are not there, but other items */
	size_t headless_count, headless_room;
	struct check_ghost *ghosts;     /* ascending, once all names were looked at */
	size_t ghost_count, ghost_room;
	const struct check_ghost *ghost;        /* this one gives the path of its inode */
	struct salvage_span *lost;      /* ascending; behind the first walk those of v, too */
	size_t lost_count, lost_room;
	uint64_t done, total;           /* blocks, for progress */
	struct check_current *cur;      /* contents.c's */
	struct place_finder finder;
	char place[2][PLACE_SIZE + 64]; /* of check_place() */
	unsigned place_at;
	char with[96];                  /* of check_with() */
};

/* check.c */
/* Bytes are not what they should be. */
void check_damage(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What err_last() says, likewise. */
void check_damage_last(struct check *c);
/* What is there contradicts itself: a problem, unless it is no wonder. */
void check_problem(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What a problem that is told by itself has cost. */
void check_follows(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Count blocks as read. -ECANCELED. */
int check_progress(struct check *c, uint64_t blocks);
/* As place_text(), and whether it is unlinked or has other names. Valid until the second next call. */
const char *check_place(struct check *c, uint64_t ino);

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
/* The page that cannot be read in which items of this kind of the inode, or any of the inode, may have been; NULL: none. */
const struct salvage_span *check_lost_kind(const struct check *c, uint64_t ino, enum item_kind kind);
const struct salvage_span *check_lost_inode(const struct check *c, uint64_t ino);
/* May this item have been in such a page? */
const struct salvage_span *check_lost_key(const struct check *c, struct key k);
/* "with tree page 17 (byte 69632)". Valid until the next call. */
const char *check_with(struct check *c, const struct salvage_span *s);
/* Are all inner pages readable? Else what stands below them is not seen by check_tree(). -ENOMEM. */
int check_inner(struct check *c, bool *ret_whole);
/* NULL if there is none. */
struct check_inode *check_find(const struct check *c, uint64_t ino);

/* names.c */
int check_names(struct check *c);
/* Between the walks over names and contents: what pages had that cannot be read. */
void check_tell_lost(struct check *c);
/* Was told that the inode is lost, since there is an entry that leads to it. */
bool check_has_ghost(const struct check *c, uint64_t ino);
/* The entry that names an inode, as place.h asks. */
bool check_entry_of(void *ctx, uint64_t ino, uint64_t *ret_dir, uint64_t *ret_lo);

/* contents.c */
int check_contents(struct check *c);

/* space.c */
/* Fixed blocks, the journal, and the bitmaps themselves. -EAGAIN as check_run(). */
int check_space_load(struct check *c);
/* These blocks are in use. How many of them were already; the first one in *ret_first. */
uint64_t check_mark(struct check *c, block_t block, uint64_t count, block_t *ret_first);
void check_space_compare(struct check *c);
/* Those that the journal and the store itself use, without a look at the bitmaps. */
void check_space_fixed(struct check *c);

#endif
