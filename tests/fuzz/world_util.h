/* SPDX-License-Identifier: MIT
 *
 * world: what world_util.c and edit_util.c share.
 */
#ifndef MSYNCFS_WORLD_UTIL_H
#define MSYNCFS_WORLD_UTIL_H

#include "tests/fuzz/fuzz_util.h"

#define WORLDS      3u          /* as a checkpoint left it; with records after it; mostly free, with something far back */
#define WORLD_SMALL (8ull << 20)
#define WORLD_LARGE (80ull << 20)
#define WORLD_MAX   (112ull << 20)      /* what it may grow to */
#define WORLD_PAGES_MAX 256u
#define WORLD_ITEMS_MAX 2048u

struct world_item {
	struct key key;
	block_t leaf;
};

/* What image_learn() knows of one base image. */
struct world_index {
	block_t pages[WORLD_PAGES_MAX];         /* leaves in the order of their keys come first */
	unsigned page_count, leaf_count;
	struct world_item items[WORLD_ITEMS_MAX];
	unsigned item_count;
	struct super sb;
	block_t slot;                           /* of the superblock in force */
};

extern struct world {
	bool ready, honest;
	int base_fd[WORLDS];
	uint64_t size[WORLDS];
	const uint8_t *bytes[WORLDS];
	char path[WORLDS][64];
	unsigned which;                 /* this execution's */
	uint8_t *image;                 /* where it is mapped */
	struct input *in;               /* to be applied when it is mapped */
	unsigned may;
	uint64_t random, clock;
	uint64_t inos[64];
	unsigned ino_count;
	block_t blocks[256];
	unsigned block_count;
	struct world_index index[WORLDS];
} world;

/* edit_util.c */
void image_learn(void);
/* Interpret the input up to opcode OPEN, on the image at `image`. */
void image_edit(uint8_t *image, struct input *in, unsigned may);

#endif
