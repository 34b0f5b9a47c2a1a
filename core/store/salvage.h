/* SPDX-License-Identifier: MIT
 *
 * salvage: open what is left of a damaged store, in memory only: the mapping is private, nothing of the file changes. What
 * the tree lost with a page is looked for in the whole file; from the leaves that are whole a new tree is built; the
 * journal is replayed as far as its records are whole, also behind a gap if it is proven that they were on disk. What
 * comes out is a tree that can be read, not one that makes sense: core/salvage mends that.
 *
 * Given to keys_open() or store_open() in store_options, together with read_only. The store that is opened may be read
 * and changed in memory by its one thread; it is never synced and has no checkpoint.
 */
#ifndef MSYNCFS_STORE_SALVAGE_H
#define MSYNCFS_STORE_SALVAGE_H

#include "core/store/page.h"
#include "core/store/record.h"

struct store;

/* Items with keys in [low, high) may have been lost. */
struct salvage_span {
	struct key low, high;
	block_t block;                  /* of the page that cannot be read; 0: there is no such page */
};

struct store_salvage {
	/* A finding, one line. lost: something of what the store held may be gone by it. */
	void (*say)(void *ctx, bool lost, const char *text);
	/* The mapping that is about to be read, for those who want to survive a disk that cannot read it. May be NULL. */
	void (*mapped)(void *ctx, void *base, uint64_t bytes);
	/* As in check.h. May be NULL. */
	int (*progress)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
	/* Filled in while opening. */
	struct salvage_span *spans;     /* ascending; freed by salvage_release() */
	size_t span_count, span_room;
	bool no_super;                  /* the counters are not known, nor the seed of the names' hash */
	uint64_t used_blocks;           /* by the superblock, or all there are */
	uint64_t damage;                /* findings */
};

void salvage_release(struct store_salvage *v);
void salvage_say(struct store_salvage *v, bool lost, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* May the item have been lost? */
bool salvage_is_lost(const struct store_salvage *v, struct key k);
bool salvage_overlaps(const struct store_salvage *v, struct key low, struct key high);
/* Room for a change of the opened tree. -ENOMEM. */
int salvage_room(struct store *s);

#endif
