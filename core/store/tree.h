/* SPDX-License-Identifier: MIT
 *
 * tree: one ordered map from key to a value of up to ITEM_MAX bytes, a copy-on-write B+tree in the mapping. A page of the
 * current generation is changed in place, an older one is copied first (G1). Pages are verified when they are first met.
 *
 * Request thread only. Pointers to values are valid until the next change. Nothing here is durable by itself: the store
 * writes a root with its checkpoint. Errors: -ENOSPC (no page; the tree is as it was, or only reshaped), -EUCLEAN.
 * Structure after Rodeh, "B-trees, Shadowing, and Clones" (ACM TOS 2008).
 */
#ifndef MSYNCFS_TREE_H
#define MSYNCFS_TREE_H

#include "core/store/page.h"
#include "core/store/space.h"

struct tree_root {
	block_t block;
	gen_t gen;
	uint32_t level;
};

/* A leaf met before: keys from `low` up to, but not including, `high` belong to it. */
struct tree_finger {
	const uint8_t *leaf;            /* NULL = none */
	struct key low, high;
};
#define TREE_FINGERS 8u

struct tree {
	struct map *map;
	struct space *space;            /* NULL in a tree that is only read */
	uint64_t store_id;
	struct tree_root root;
	gen_t sealed;                   /* pages up to this generation carry checksums */
	uint64_t tag_seed;              /* random, so that no store can be made to fit the cache's tags */
	uint64_t *verified;             /* direct-mapped cache: tags of pages that were checked */
	struct tree_finger finger[TREE_FINGERS];        /* by a hash of the key's hi */
	/* Blocks that something else writes to (the journal): never a page, whatever stands there. NULL: none. */
	bool (*taken)(const void *ctx, block_t block);
	const void *taken_ctx;
};

struct tree_cursor {
	struct tree *tree;
	unsigned levels;                /* entries of path used; 0 = at the end; 1 = the leaf only, came by a finger */
	struct {
		const uint8_t *page;
		unsigned i;
	} path[TREE_LEVELS];            /* [0] is the leaf */
};

int tree_init(struct tree *t, struct map *map, struct space *space, uint64_t store_id);
void tree_release(struct tree *t);
/* An empty tree: one leaf. */
int tree_create(struct tree *t);

/* -ENOENT. */
int tree_get(struct tree *t, struct key k, const uint8_t **ret_value, uint32_t *ret_len);
/* Insert or replace. */
int tree_put(struct tree *t, struct key k, const void *value, uint32_t len);
/* As tree_put, but the caller fills in the value: *ret_value is uninitialised for a new item and keeps the old bytes if
 * the length is the same. */
int tree_put_place(struct tree *t, struct key k, uint32_t len, uint8_t **ret_value);
/* -ENOENT. */
int tree_del(struct tree *t, struct key k);
/* The value, writable. -ENOENT. */
int tree_patch(struct tree *t, struct key k, uint8_t **ret_value, uint32_t *ret_len);

/* Cursors go strictly up (down), so a walk ends also in a tree whose pages are named more than once: -EUCLEAN.
 * First item with a key >= k. 0, or -ENOENT if there is none (the cursor is then at the end). */
int tree_seek(struct tree *t, struct key k, struct tree_cursor *c);
/* Last item with a key <= k. 0 or -ENOENT. */
int tree_seek_le(struct tree *t, struct key k, struct tree_cursor *c);
int cursor_next(struct tree_cursor *c);
int cursor_prev(struct tree_cursor *c);

static inline struct key cursor_key(const struct tree_cursor *c)
{
	return page_key(c->path[0].page, c->path[0].i);
}

static inline const uint8_t *cursor_value(const struct tree_cursor *c, uint32_t *ret_len)
{
	return leaf_value(c->path[0].page, c->path[0].i, ret_len);
}

/* Fetch a page as the parent names it, verified. For walkers (check, relocation). */
int tree_page(const struct tree *t, block_t block, gen_t gen, unsigned level, const uint8_t **ret_page);
/* These blocks are given to something else: whatever was verified there is to be verified again. */
void tree_forget(struct tree *t, block_t block, uint64_t count);
/* All blocks may be. */
void tree_forget_all(struct tree *t);
/* Move the pages on the path to k to new places if they lie at or behind `limit`. */
int tree_relocate(struct tree *t, struct key k, block_t limit, bool *ret_moved);

#endif
