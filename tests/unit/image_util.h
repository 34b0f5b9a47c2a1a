/* SPDX-License-Identifier: MIT
 *
 * image: a closed store as bytes, to damage on purpose. Finds items and bitmaps without the code under test's caches,
 * changes them and, where a checksum covers the change, seals it again: damage that checksums do not show.
 */
#ifndef MSYNCFS_IMAGE_UTIL_H
#define MSYNCFS_IMAGE_UTIL_H

#include "core/keys/item.h"
#include "core/store/super.h"

struct image {
	uint8_t *base;
	uint64_t blocks;
	struct super sb;                /* in force */
	block_t slot;                   /* its block */
};

/* Aborts the test if the file is no store. */
void image_open(struct image *im, const char *path);
void image_close(struct image *im);

static inline uint8_t *image_block(const struct image *im, block_t b)
{
	return im->base + (b << BLOCK_SHIFT);
}

/* The leaf that has, or should have, the key; *ret_i is its place in it. */
uint8_t *image_leaf(const struct image *im, struct key k, unsigned *ret_i, bool *ret_found);
/* The value of an item that must exist; *ret_leaf is to be sealed after a change. */
uint8_t *image_item(const struct image *im, struct key k, uint32_t *ret_len, uint8_t **ret_leaf);
void image_remove(const struct image *im, struct key k);
void image_add(const struct image *im, struct key k, const void *value, uint32_t len);
/* The checksum of a tree page, anew. */
void image_seal(const struct image *im, uint8_t *page);
/* Store im->sb over the superblock in force and its copy. */
void image_write_super(const struct image *im);
/* The block of the group's bitmap in force; 0 if the group has none. */
block_t image_bitmap(const struct image *im, uint64_t group);
/* Mark a block as used or free; the superblock's counter follows. */
void image_mark(struct image *im, block_t block, bool used);

/* Call fn for each tree page, inner pages before what is below. */
void image_pages(const struct image *im, void (*fn)(void *ctx, const struct image *im, uint8_t *page), void *ctx);
/* Call fn for each whole record since the checkpoint, in order; the last one's number. */
seq_t image_records(const struct image *im, void (*fn)(void *ctx, const uint8_t *rec, uint32_t len), void *ctx);

#endif
