/* SPDX-License-Identifier: MIT
 *
 * image: see image_util.h.
 */
#include "tests/unit/image_util.h"

#include "core/store/journal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void image_open(struct image *im, const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat st;

	check(fd >= 0 && fstat(fd, &st) == 0);
	im->blocks = (uint64_t)st.st_size >> BLOCK_SHIFT;
	im->base = mmap(NULL, im->blocks << BLOCK_SHIFT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(im->base != MAP_FAILED);
	(void)close(fd);
	check(super_pick_at(im->base, im->blocks, &im->sb, &im->slot) == 0);
}

void image_close(struct image *im)
{
	(void)munmap(im->base, im->blocks << BLOCK_SHIFT);
	im->base = NULL;
}

uint8_t *image_leaf(const struct image *im, struct key k, unsigned *ret_i, bool *ret_found)
{
	block_t block = im->sb.root.block;
	uint8_t *page = image_block(im, block);
	gen_t gen;

	while (page_level(page) > 0) {
		inner_child(page, inner_find(page, k), &block, &gen);
		page = image_block(im, block);
	}
	*ret_i = page_lower(page, k, ret_found);
	return page;
}

uint8_t *image_item(const struct image *im, struct key k, uint32_t *ret_len, uint8_t **ret_leaf)
{
	unsigned i;
	bool found;

	*ret_leaf = image_leaf(im, k, &i, &found);
	check(found);
	return *ret_leaf + (leaf_value(*ret_leaf, i, ret_len) - *ret_leaf);
}

void image_remove(const struct image *im, struct key k)
{
	unsigned i;
	bool found;
	uint8_t *leaf = image_leaf(im, k, &i, &found);

	check(found);
	leaf_remove(leaf, i);
	image_seal(im, leaf);
}

void image_add(const struct image *im, struct key k, const void *value, uint32_t len)
{
	unsigned i;
	bool found;
	uint8_t *leaf = image_leaf(im, k, &i, &found);
	uint8_t *to;

	check(!found);
	to = leaf_insert(leaf, i, k, len);
	if (len > 0)
		memcpy(to, value, len);
	image_seal(im, leaf);
}

void image_seal(const struct image *im, uint8_t *page)
{
	(void)im;
	put_le64(page + PAGE_CSUM, hash64(page + 16, BLOCK_SIZE - 16, get_le64(page + PAGE_BLOCK) ^ get_le64(page)));
}

void image_write_super(const struct image *im)
{
	unsigned i;

	for (i = im->sb.flip & 1; i < SUPER_PLACES; i += SUPERS)
		super_encode(image_block(im, super_place(i)), super_place(i), &im->sb);
}

block_t image_bitmap(const struct image *im, uint64_t group)
{
	block_t first = group * GROUP_BLOCKS + (group == 0 ? 2 : 0), b;
	uint8_t *leaf;
	unsigned i;
	bool found;
	uint32_t len;

	leaf = image_leaf(im, (struct key){ KIND_SPACE, group }, &i, &found);
	if (!found)
		return 0;
	for (b = first; b < first + SLOTS; b++)
		if (get_le64(image_block(im, b) + SLOT_GEN) == get_le64(leaf_value(leaf, i, &len)))
			return b;
	return 0;
}

void image_mark(struct image *im, block_t block, bool used)
{
	block_t slot = image_bitmap(im, block / GROUP_BLOCKS);
	unsigned bit = (unsigned)(block % GROUP_BLOCKS);
	uint8_t *p;

	check(slot != 0);
	p = image_block(im, slot);
	check(!!(p[SLOT_BITS + bit / 8] & 1u << bit % 8) != used);
	p[SLOT_BITS + bit / 8] ^= (uint8_t)(1u << bit % 8);
	put_le32(p + SLOT_USED, used ? get_le32(p + SLOT_USED) + 1 : get_le32(p + SLOT_USED) - 1);
	put_le64(p + SLOT_CSUM, hash64(p + 16, BLOCK_SIZE - 16, slot));
	im->sb.used_blocks = used ? im->sb.used_blocks + 1 : im->sb.used_blocks - 1;
	image_write_super(im);
}

static void pages_below(const struct image *im, block_t block,
			void (*fn)(void *ctx, const struct image *im, uint8_t *page), void *ctx)
{
	uint8_t *page = image_block(im, block);
	unsigned i;

	fn(ctx, im, page);
	for (i = 0; page_level(page) > 0 && i < page_count(page); i++) {
		block_t child;
		gen_t gen;

		inner_child(page, i, &child, &gen);
		pages_below(im, child, fn, ctx);
	}
}

void image_pages(const struct image *im, void (*fn)(void *ctx, const struct image *im, uint8_t *page), void *ctx)
{
	pages_below(im, im->sb.root.block, fn, ctx);
}

static int claim_nothing(void *ctx, block_t first, uint64_t blocks)
{
	(void)ctx;
	(void)first;
	(void)blocks;
	return 0;
}

seq_t image_records(const struct image *im, void (*fn)(void *ctx, const uint8_t *rec, uint32_t len), void *ctx)
{
	struct map map = { .base = im->base };
	struct journal_next next;
	struct journal j;
	seq_t last;

	atomic_init(&map.blocks, im->blocks);
	check(journal_init(&j, &map, im->sb.seg_shift, super_store_id(&im->sb), 0) == 0);
	check(journal_load(&j, im->sb.segs, im->sb.seg_count, &im->sb.journal) == 0);
	while (journal_peek(&j, &next) > 0) {
		fn(ctx, next.rec, next.len);
		check(journal_accept(&j, &next, claim_nothing, NULL) == 0);
	}
	last = j.seq;
	journal_release(&j);
	return last;
}
