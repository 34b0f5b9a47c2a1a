/* SPDX-License-Identifier: MIT
 *
 * space: which blocks are free, and who may have them. Implements (G2) and (G3) of DESIGN.md: a block is allocatable only
 * if free in the bitmaps of the durable (D), frozen (F) and current (C) generation, and not held back.
 *
 * The bitmaps live in the mapping, three slots a group; memory holds a few words a group. All calls: request thread,
 * but for space_seal() and space_sync_frozen(), which the checkpointer runs on what nobody changes any more.
 */
#ifndef MSYNCFS_SPACE_H
#define MSYNCFS_SPACE_H

#include "core/base.h"
#include "core/store/format.h"
#include "core/store/map.h"

#define RUN_BLOCKS 512u         /* 2 MiB: what is faulted in at once */

/* A range of free blocks that one kind of allocation takes from, one after the other. */
struct space_run {
	block_t next, end;
};

/* What a generation changed, for the checkpointer. */
struct space_changes {
	block_t *pages;         /* tree pages made in it (some may be free again) */
	size_t page_count, page_room;
	uint64_t *groups;       /* groups with a slot of it; once frozen: group << 2 | slot */
	size_t group_count, group_room;
	uint64_t *chunks;       /* bitmap of chunks with changed blocks */
	size_t chunk_words;
	uint64_t blocks;        /* allocated in it: what is dirty, about */
};
#define CHUNK_BLOCKS 64u        /* 256 KiB */

/* BULK: contents that come in many blocks at once and are written past the mapping (map_write()); nobody faults them in. */
enum space_kind { SPACE_META, SPACE_DATA, SPACE_BULK, SPACE_KINDS };
#define SPACE_BULK_MIN 16u      /* blocks asked for at once: 64 KiB */

struct space_group {
	uint8_t slot[3];        /* of D, F, C; NO_SLOT = none (D: virgin; F, C: not dirty in it) */
	bool known;             /* slot[0] was looked up */
	bool listed;            /* its item was put for C */
	uint16_t longest;       /* no allocatable range is longer; only a checkpoint that completes makes longer ones */
	uint64_t *hold[4];      /* bits held back until F, until C is durable; by pins; staged */
};

struct space {
	struct map *map;
	gen_t gen;              /* C */
	uint64_t store_id;
	struct space_group *groups;
	uint64_t group_count, group_room;
	uint64_t total;         /* blocks that exist */
	uint64_t used;          /* set in C */
	uint64_t pending[2];    /* free in C, but not allocatable until F / until C is durable */
	uint64_t pinned;        /* free, but held for a reader beside us */
	uint64_t staged;        /* free in all bitmaps, but given out to be filled (space_stage()) */
	uint64_t held_groups;   /* hold bitmaps in memory, but for those of staged blocks */
	struct space_run run[SPACE_KINDS][2];           /* in use, next */
	bool run_posted[SPACE_KINDS];                   /* the next run was given to the provisioner */
	uint64_t scan;          /* where the search for runs goes on */
	uint64_t run_min;       /* shorter ones only if there is nothing better */
	struct space_changes changes[2];        /* of F, of C */
	block_t *pool;          /* tree pages of C that were freed in C */
	size_t pool_count, pool_room;
	/* The generation of the slot in force for a group: from the tree. -ENOENT = virgin. */
	int (*slot_gen)(void *ctx, uint64_t group, gen_t *ret_gen);
	void *ctx;
};

/* Start with everything the map has; used is the superblock's count (bitmap slots included). */
int space_init(struct space *sp, struct map *map, gen_t gen, uint64_t used, uint64_t sb_total);
void space_release(struct space *sp);
/* Take the blocks that the map has grown by into account. -ENOMEM: later. */
int space_grown(struct space *sp);

/* Blocks that could be given out now; blocks that will be once checkpoints complete. */
uint64_t space_allocatable(const struct space *sp);
uint64_t space_pending(const struct space *sp);

/* One tree page. -ENOSPC. */
int space_alloc_meta(struct space *sp, block_t *ret_block);
/* A tree page of generation gen is no longer used. */
int space_free_meta(struct space *sp, block_t block, gen_t gen);
/* Up to `want` contiguous blocks, at least one. -ENOSPC. */
int space_alloc_data(struct space *sp, uint64_t want, block_t *ret_block, uint64_t *ret_count);
/* The same for contents that are written past the mapping: from SPACE_BULK_MIN blocks on, of those that nobody faults in. */
int space_alloc_bulk(struct space *sp, uint64_t want, block_t *ret_block, uint64_t *ret_count);
/* As space_alloc_bulk(), but no bitmap says that they are in use: whatever is written into them, a crash leaves them free. They stay the
 * caller's until space_use_staged() or space_drop_staged(), over any number of checkpoints. */
int space_stage(struct space *sp, uint64_t want, block_t *ret_block, uint64_t *ret_count);
/* Staged blocks become blocks allocated in C; what was written into them is part of it. -EUCLEAN: they are not staged. */
int space_use_staged(struct space *sp, block_t block, uint64_t count);
/* They are as free as before. */
int space_drop_staged(struct space *sp, block_t block, uint64_t count);
/* Exactly `count` contiguous blocks, aligned to nothing; for journal segments. -ENOSPC. */
int space_alloc_exact(struct space *sp, uint64_t count, block_t *ret_block);
/* Blocks of contents (or a segment) are no longer used; they were allocated in generation gen. -EUCLEAN if they were free. */
int space_free_data(struct space *sp, block_t block, uint64_t count, gen_t gen);
/* Blocks that an extent of the tree names are no longer its own. What is not in use, or cannot be (the extent is damaged, or made on
 * purpose; or nobody can read the bitmap) stays as it is: apply comes here with a change that is in the journal, and an error would be in
 * the way of each later opening too. -ENOMEM. */
int space_give_back(struct space *sp, block_t block, uint64_t count, gen_t gen);
/* Recovery: mark blocks as allocated in C that a journal record or the journal itself names. -EUCLEAN if not free. */
int space_claim(struct space *sp, block_t block, uint64_t count);
/* Never give these blocks out, whatever the bitmaps say of them (a store that is only read). */
int space_keep(struct space *sp, block_t block, uint64_t count);
/* Blocks that exist already (unwritten ones) get contents in C. */
void space_mark_changed(struct space *sp, block_t block, uint64_t count);
/* True if [block, block+count) lies inside the store and hits no superblock or slot. */
bool space_valid_range(const struct space *sp, block_t block, uint64_t count);

/* Does C count all of them as in use, so that nobody else will be given one? */
int space_in_use(struct space *sp, block_t block, uint64_t count, bool *ret_all);

/* A run that the provisioner may fault in; false if there is none new. */
bool space_take_run(struct space *sp, struct space_run *ret_run);

/* Cut, step 1: a group that is dirty in C and has no item yet for C; -ENOENT when all have. Put its item, call again. */
int space_next_unlisted(struct space *sp, uint64_t *ret_group);
/* Cut, step 2: C becomes F, next_gen becomes C. No F may exist. */
int space_freeze(struct space *sp, gen_t next_gen);
/* Checkpointer: checksums into the slots and tree pages of F. */
void space_seal(struct space *sp);
/* Checkpointer: msync all that F changed. */
int space_sync_frozen(struct space *sp);
/* F is on disk: it becomes D; what waited for it is free. keep: a reader has pinned a checkpoint, so what D used stays.
 * -ENOMEM with keep: nothing was done, try again. */
int space_durable(struct space *sp, bool keep);
/* Blocks used in the group's C view, for check. */
int space_group_bits(struct space *sp, uint64_t group, const uint8_t **ret_bits);
/* Highest block in use + 1 (C, F, D, holds and staged), for giving back the tail. */
int space_high_water(struct space *sp, block_t *ret_end);
/* Allocate from the beginning of the file again, not from runs behind `limit`. */
void space_go_low(struct space *sp, block_t limit);
/* Forget everything at or behind `total`, after map_shrink(). */
void space_cut(struct space *sp, uint64_t total);

#endif
