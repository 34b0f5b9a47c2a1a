/* SPDX-License-Identifier: MIT
 *
 * salvage: open what is left of a damaged store, in memory only: the mapping is private, nothing of the file changes. What
 * the tree lost with a page is looked for in the whole file; from the leaves that are whole a new tree is built; the
 * journal is replayed as far as its records are whole, also behind a gap if it is proven that they were on disk. What
 * comes out is a tree that can be read, not one that makes sense: core/salvage mends that.
 *
 * Given to keys_open() or store_open() in store_options, together with read_only; with snapshot too, of the checkpoint that
 * is in force while somebody else has it open (-EAGAIN: it was overtaken). The store that is opened may be read
 * and changed in memory by its one thread; it is never synced and has no checkpoint.
 */
#ifndef MSYNCFS_STORE_SALVAGE_H
#define MSYNCFS_STORE_SALVAGE_H

#include "core/store/page.h"
#include "core/store/record.h"

struct store;

/* A page of the tree that cannot be read: items with keys in [low, high) stood in it, or below it. */
struct salvage_span {
	struct key low, high;
	block_t block;                  /* 0: there is no such page, but nothing says that the root is the root */
	unsigned level;
	bool found;                     /* all of them were found without it: nothing is lost */
};

enum salvage_finding {
	SALVAGE_NOTE,                   /* nothing is wrong by itself */
	SALVAGE_DAMAGE,                 /* a place that is damaged; what was there, if anything, is told by FOLLOWS */
	SALVAGE_LOSS,                   /* a place that is damaged, and something is gone by it */
	SALVAGE_FOLLOWS,                /* what is gone, or not as it was, by damage that is told by itself */
};

struct store_salvage {
	/* A finding, one line. */
	void (*say)(void *ctx, enum salvage_finding kind, const char *text);
	/* The mapping that is about to be read, for those who want to survive a disk that cannot read it. May be NULL. */
	void (*mapped)(void *ctx, void *base, uint64_t bytes);
	/* As in check.h. May be NULL. */
	int (*progress)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
	bool supers_told;               /* the caller tells of superblocks itself, as long as one is left */
	/* Filled in while opening. What stood in the spans is not told: whoever knows names does that. */
	struct salvage_span *spans;     /* ascending, after one of everything if no_super; freed by salvage_release() */
	size_t span_count, span_room;
	bool no_super;                  /* the counters are not known, nor the seed of the names' hash */
	uint64_t used_blocks;           /* by the superblock, or all there are */
	bool gap;                       /* changes of the journal are lost, or pages may be outdated: contradictions are no wonder */
	uint64_t file_blocks;           /* what lies behind them is gone, or memory */
	uint64_t damage;                /* findings */
};

void salvage_release(struct store_salvage *v);
void salvage_say(struct store_salvage *v, enum salvage_finding kind, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The first of the spans from *at on in which something with a key in [low, high) was lost; *at is behind it then. NULL:
 * nothing was. Begin with *at = 0. */
const struct salvage_span *salvage_lost(const struct salvage_span *spans, size_t count, struct key low, struct key high,
					size_t *at);
bool salvage_overlaps(const struct store_salvage *v, struct key low, struct key high);
/* Of which inodes the span may have had items; *ret_last is 0 if only of the store itself. next_ino: no number from there on
 * was given out. */
void salvage_inodes(const struct salvage_span *s, uint64_t next_ino, uint64_t *ret_first, uint64_t *ret_last);
/* Room for a change of the opened tree. -ENOMEM. */
int salvage_room(struct store *s);

#endif
