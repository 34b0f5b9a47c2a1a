/* SPDX-License-Identifier: MIT
 *
 * salvage_int: what salvage.c (superblock, new tree, journal) and salvage_scan.c (pages) share.
 */
#ifndef MSYNCFS_SALVAGE_INT_H
#define MSYNCFS_SALVAGE_INT_H

#include "core/store/salvage.h"
#include "core/store/store_int.h"

struct salvage_leaf {
	struct key first, last;
	block_t block;
	gen_t gen;
	bool searched;                  /* nothing whole names it: it was found by looking at every block */
};

struct salvage_hole {
	struct key low, high;
	block_t block;
	gen_t gen;                      /* nothing below is younger */
	unsigned level;
};

struct salvage {
	struct store *s;
	struct store_salvage *v;
	bool snapshot;                  /* of a checkpoint, while somebody else has the store open */
	uint64_t blocks;
	/* Bitmaps, one bit a block. */
	uint64_t *marked;               /* in use by the free-space bitmaps */
	uint64_t *seen;                 /* known to be something */
	uint8_t *group_known;           /* by group: marked can be relied on */
	uint64_t *group_gen;            /* by group: of the slot in force; 0: not known */
	uint64_t *group_guess;          /* by group: of the slot that was taken instead */
	uint64_t counted;               /* blocks that the superblock has counted */
	uint64_t in_use;                /* blocks, by all slots that were taken */
	block_t spoiled;                /* a slot that may have been the one in force, 0: there is none */
	uint64_t groups;
	struct salvage_leaf *leaves;
	size_t leaf_count, leaf_room;
	struct salvage_hole *holes;     /* ascending */
	size_t hole_count, hole_room;
	uint64_t outdated;              /* leaves found in groups without a bitmap */
	uint64_t unfound;               /* blocks in use that are nothing that is known */
	uint64_t done, total;
};

/* salvage_scan.c */
/* Collect leaves and holes below the root that the superblock names. */
int scan_tree(struct salvage *g);
/* Look at every block for the leaves that the holes lost. */
int scan_holes(struct salvage *g);
/* No superblock is left: the newest page that can be the root and has nearly all below it; or else the newest root below
 * which all is whole; or else the newest page. *ret_id: the store's. -ENOENT. */
int scan_root(struct salvage *g, struct tree_root *ret_root, uint64_t *ret_id);

static inline bool map_bit(const uint64_t *map, uint64_t i)
{
	return map[i / 64] >> (i % 64) & 1;
}

static inline void map_set(uint64_t *map, uint64_t i)
{
	map[i / 64] |= 1ull << (i % 64);
}

#endif
