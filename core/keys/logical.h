/* SPDX-License-Identifier: MIT
 *
 * logical: all that a store holds, as items that say nothing of places: what two stores with the same state have in common.
 * In the order of their keys: the items of the tree but SPACE, inodes with `blocks` 0 (it follows from the extents), and
 * instead of extents *windows* of 256 file blocks, so that it does not matter how extents are split. A window's key is
 * that of an EXTENT item at its first block; a window of holes only does not exist.
 *
 * Threading: the request thread, or whoever has opened a snapshot. Nothing here changes the store. -EUCLEAN: damage.
 */
#ifndef MSYNCFS_LOGICAL_H
#define MSYNCFS_LOGICAL_H

#include "core/keys/item.h"

#define WINDOW_BLOCKS EXT_COUNT_MAX
#define WINDOW_LAST   ((KEYS_SIZE_MAX >> BLOCK_SHIFT) - (WINDOW_BLOCKS - 1))  /* where the last one begins */
#define LOGICAL_MAX   ITEM_MAX                  /* longest value of an item that is no window */
#define LOGICAL_END   ((struct key){ UINT64_MAX, UINT64_MAX })

/* What a block of a file is. WINDOW_KEEP: in an edit, whatever it is now. */
enum window_kind { WINDOW_HOLE, WINDOW_UNWRITTEN, WINDOW_DATA, WINDOW_KEEP };

struct window {
	uint8_t kind[WINDOW_BLOCKS];
	uint32_t csum[WINDOW_BLOCKS];           /* of WINDOW_DATA */
	block_t block[WINDOW_BLOCKS];           /* where it stands (WINDOW_DATA) */
};

/* The window of inode ino at fblock (a multiple of WINDOW_BLOCKS). *ret_next is where the next one begins that is not all
 * holes, UINT64_MAX: nowhere. */
int window_get(struct keys *k, uint64_t ino, uint64_t fblock, struct window *ret, uint64_t *ret_next);
/* The first one at or behind fblock that is not all holes; -ENOENT. */
int window_find(struct keys *k, uint64_t ino, uint64_t fblock, uint64_t *ret_fblock);
/* Blocks from i on that are of one kind. */
unsigned window_run(const struct window *w, unsigned i);
/* The bytes of block i, which is WINDOW_DATA, as they are: nothing is verified. NULL: *ret_error says why. */
const uint8_t *window_bytes(struct keys *k, const struct window *w, unsigned i, int *ret_error);
/* 64 bits that stand for what kinds and checksums say / for kinds and the bytes themselves. */
uint64_t window_digest(const struct window *w, uint64_t seed);
int window_deep_digest(struct keys *k, const struct window *w, uint64_t seed, uint64_t *ret);

struct logical_item {
	struct key key;
	const uint8_t *value;                   /* valid until the next call; NULL: it is a window */
	uint32_t len;
	const struct window *window;
};

/* May an item have this key? Those that may not (SPACE, unknown kinds) are neither met nor put. */
bool logical_key_valid(struct key k);
static inline bool logical_is_window(struct key k)
{
	return k.hi >> 8 != 0 && (k.hi & 0xff) == ITEM_EXTENT;
}
/* Where what lies behind the item k begins. */
struct key logical_after(struct key k);
/* May a range of items begin or end here? */
static inline bool logical_is_bound(struct key k)
{
	return !logical_is_window(k) || k.lo % WINDOW_BLOCKS == 0;
}
uint64_t logical_digest(const struct logical_item *item, uint64_t seed);
/* A walk over them; the store may change between two steps. */
struct logical_walk {
	struct keys *k;
	struct key at;                          /* the next item is here or behind */
	uint64_t ino, fblock;                   /* the next is this window, unless ino is 0 */
	block_t leaf;
	uint64_t leaves;                        /* met so far, about: to know the size of the tree */
	struct window window;
	uint8_t inode[INODE_SIZE + INLINE_MAX];
};
/* One item, w->k's; w goes on behind it. -ENOENT. */
int logical_get(struct logical_walk *w, struct key k, struct logical_item *ret);
void logical_begin(struct logical_walk *w, struct keys *k, struct key from);
/* The next item with a key less than `end`, any key if that is LOGICAL_END. 1; 0: none; -EUCLEAN. */
int logical_next(struct logical_walk *w, struct key end, struct logical_item *ret);

#endif
