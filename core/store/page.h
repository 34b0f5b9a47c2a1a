/* SPDX-License-Identifier: MIT
 *
 * page: one tree page as bytes: search, insert, remove, split. Knows nothing of other pages but their entries' form.
 * Writers must own the page (generation C). Readers must have validated it once (page_validate()).
 */
#ifndef MSYNCFS_PAGE_H
#define MSYNCFS_PAGE_H

#include "core/base.h"
#include "core/store/format.h"

struct key {
	uint64_t hi, lo;
};

static inline int key_cmp(struct key a, struct key b)
{
	if (a.hi != b.hi)
		return a.hi < b.hi ? -1 : 1;
	return a.lo < b.lo ? -1 : a.lo > b.lo;
}

static inline unsigned page_level(const uint8_t *p)
{
	return get_le16(p + PAGE_LEVEL);
}

static inline unsigned page_count(const uint8_t *p)
{
	return get_le16(p + PAGE_COUNT);
}

static inline gen_t page_gen(const uint8_t *p)
{
	return get_le64(p + PAGE_GEN);
}

static inline const uint8_t *page_entry(const uint8_t *p, unsigned i)
{
	return p + PAGE_ENTRIES + i * (page_level(p) == 0 ? LEAF_ENTRY : INNER_ENTRY);
}

static inline struct key page_key(const uint8_t *p, unsigned i)
{
	const uint8_t *e = page_entry(p, i);

	return (struct key){ get_le64(e), get_le64(e + 8) };
}

static inline const uint8_t *leaf_value(const uint8_t *p, unsigned i, uint32_t *ret_len)
{
	const uint8_t *e = page_entry(p, i);

	*ret_len = get_le16(e + 18);
	return p + get_le16(e + 16);
}

static inline void inner_child(const uint8_t *p, unsigned i, block_t *ret_block, gen_t *ret_gen)
{
	const uint8_t *e = page_entry(p, i);

	*ret_block = get_le64(e + 16);
	*ret_gen = get_le64(e + 24);
}

void page_init(uint8_t *p, block_t block, gen_t gen, uint64_t store_id, unsigned level);
/* Copy all but the checksum (which another thread may be writing in src), under a new number and generation. */
void page_copy(uint8_t *dst, const uint8_t *src, block_t block, gen_t gen);
/* XXH3 of bytes 16..4095; the seed brings in the block's number and bytes 0..7 (magic, level, count). */
static inline uint64_t page_csum(const uint8_t *p, block_t block)
{
	return hash64(p + 16, BLOCK_SIZE - 16, block ^ get_le64(p));
}
/* Everything inside the page is in bounds and in order. 0 or -EUCLEAN; says nothing of the checksum. */
int page_validate(const uint8_t *p, block_t block, gen_t gen, unsigned level, uint64_t store_id);

/* First entry with a key >= k (count if there is none); *ret_found if equal. */
unsigned page_lower(const uint8_t *p, struct key k, bool *ret_found);
/* The same, fast where the keys of the page are spread evenly from low to high, as hashes of names and numbers of inodes are: one miss of
 * the CPU's caches, not one for each step. Whatever low and high are, the answer is the same. */
unsigned page_near(const uint8_t *p, struct key k, struct key low, struct key high, bool *ret_found);
/* The child of an inner page that k belongs to. */
unsigned inner_find(const uint8_t *p, struct key k);
unsigned inner_near(const uint8_t *p, struct key k, struct key low, struct key high);

/* Bytes that a new item of `len` could use, after compaction. */
unsigned leaf_room(const uint8_t *p);
unsigned leaf_used(const uint8_t *p);
/* Insert before entry i; there must be room (leaf_room() >= LEAF_ENTRY + len). Returns where the value goes. */
uint8_t *leaf_insert(uint8_t *p, unsigned i, struct key k, uint32_t len);
void leaf_remove(uint8_t *p, unsigned i);
/* Move the entries [from, count) to the empty leaf `to`. */
void leaf_move_tail(uint8_t *p, unsigned from, uint8_t *to);
/* Append all of `from` (a right neighbour) to p; they must fit. */
void leaf_append(uint8_t *p, const uint8_t *from);

void inner_set_child(uint8_t *p, unsigned i, block_t block, gen_t gen);
void inner_insert(uint8_t *p, unsigned i, struct key k, block_t block, gen_t gen);
void inner_remove(uint8_t *p, unsigned i);
void inner_move_tail(uint8_t *p, unsigned from, uint8_t *to);
/* Append all of `from`; its first entry gets the key k. */
void inner_append(uint8_t *p, const uint8_t *from, struct key k);

/* How findings name the place of a page. */
#define PAGE_AT          "tree page %llu (byte %llu)"
#define PAGE_AT_ARGS(b)  (unsigned long long)(b), (unsigned long long)(b) * BLOCK_SIZE

#endif
