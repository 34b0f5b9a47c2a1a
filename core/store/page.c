/* SPDX-License-Identifier: MIT
 *
 * page: see page.h and FORMAT.md section 5.
 */
#include "core/store/page.h"

#include "core/store/map.h"

#define NEAR 12u                /* entries on each side of where a key should be: two standard deviations for a page of random keys */

/* What was found right a moment ago. If it is not, somebody writes to the file beside us (cut it and made it long again):
 * the page is as good as gone, and is not touched any more. In the hands of anybody but a store: our mistake. */
static void still(const uint8_t *p, bool right)
{
	if (right)
		return;
	map_fault(p, NULL);
	check(right);
}

static void set_count(uint8_t *p, unsigned n)
{
	put_le16(p + PAGE_COUNT, (uint16_t)n);
}

static unsigned low(const uint8_t *p)
{
	return get_le16(p + PAGE_LOW);
}

static unsigned dead(const uint8_t *p)
{
	return get_le16(p + PAGE_DEAD);
}

static uint8_t *entry(uint8_t *p, unsigned i)
{
	return p + PAGE_ENTRIES + i * (page_level(p) == 0 ? LEAF_ENTRY : INNER_ENTRY);
}

void page_init(uint8_t *p, block_t block, gen_t gen, uint64_t store_id, unsigned level)
{
	memset(p, 0, PAGE_ENTRIES);
	put_le32(p + PAGE_MAGIC_OFF, PAGE_MAGIC);
	put_le16(p + PAGE_LEVEL, (uint16_t)level);
	put_le64(p + PAGE_BLOCK, block);
	put_le64(p + PAGE_GEN, gen);
	put_le64(p + PAGE_STORE, store_id);
	put_le16(p + PAGE_LOW, BLOCK_SIZE);
}

void page_copy(uint8_t *dst, const uint8_t *src, block_t block, gen_t gen)
{
	memcpy(dst, src, PAGE_CSUM);
	memcpy(dst + PAGE_BLOCK, src + PAGE_BLOCK, BLOCK_SIZE - PAGE_BLOCK);
	put_le64(dst + PAGE_CSUM, 0);
	put_le64(dst + PAGE_BLOCK, block);
	put_le64(dst + PAGE_GEN, gen);
}

static int leaf_validate(const uint8_t *p, block_t block)
{
	unsigned n = page_count(p), i, bytes = 0;

	if (n > (BLOCK_SIZE - PAGE_ENTRIES) / LEAF_ENTRY || low(p) > BLOCK_SIZE ||
	    PAGE_ENTRIES + n * LEAF_ENTRY > low(p))
		return err_corrupt(PAGE_AT ": %u items do not fit", PAGE_AT_ARGS(block), n);
	for (i = 0; i < n; i++) {
		const uint8_t *e = page_entry(p, i);
		unsigned off = get_le16(e + 16), len = get_le16(e + 18);

		/* Where an empty value stands means nothing. */
		if (off + len > BLOCK_SIZE || (len > 0 && off < low(p)) || len > ITEM_MAX)
			return err_corrupt(PAGE_AT ": item %u lies outside", PAGE_AT_ARGS(block), i);
		bytes += len;
		if (i > 0 && key_cmp(page_key(p, i - 1), page_key(p, i)) >= 0)
			return err_corrupt(PAGE_AT ": item %u out of order", PAGE_AT_ARGS(block), i);
	}
	if (bytes + dead(p) != BLOCK_SIZE - low(p))
		return err_corrupt(PAGE_AT ": bytes do not add up", PAGE_AT_ARGS(block));
	return 0;
}

static int inner_validate(const uint8_t *p, block_t block)
{
	unsigned n = page_count(p), i;

	if (n == 0 || n > INNER_MAX)
		return err_corrupt(PAGE_AT ": %u children", PAGE_AT_ARGS(block), n);
	/* A page is copied when a child is: none is younger. */
	for (i = 0; i < n; i++)
		if (get_le64(page_entry(p, i) + 24) > page_gen(p))
			return err_corrupt(PAGE_AT ": child %u is younger", PAGE_AT_ARGS(block), i);
	for (i = 1; i < n; i++)
		if (key_cmp(page_key(p, i - 1), page_key(p, i)) >= 0)
			return err_corrupt(PAGE_AT ": child %u out of order", PAGE_AT_ARGS(block), i);
	return 0;
}

int page_validate(const uint8_t *p, block_t block, gen_t gen, unsigned level, uint64_t store_id)
{
	if (get_le32(p + PAGE_MAGIC_OFF) != PAGE_MAGIC || get_le64(p + PAGE_STORE) != store_id)
		return err_corrupt("block %llu (byte %llu) is no tree page of this store", PAGE_AT_ARGS(block));
	if (get_le64(p + PAGE_BLOCK) != block || page_gen(p) != gen || page_level(p) != level)
		return err_corrupt(PAGE_AT " is not the one that its parent names (generation %llu, level %u; "
				   "found block %llu, generation %llu, level %u)", PAGE_AT_ARGS(block),
				   (unsigned long long)gen, level, (unsigned long long)get_le64(p + PAGE_BLOCK),
				   (unsigned long long)page_gen(p), page_level(p));
	return level == 0 ? leaf_validate(p, block) : inner_validate(p, block);
}

/* 1 if the entry's key is below k. */
static unsigned entry_below(const uint8_t *e, struct key k)
{
	uint64_t hi = get_le64(e), lo = get_le64(e + 8);

	return (unsigned)(hi < k.hi) | ((unsigned)(hi == k.hi) & (unsigned)(lo < k.lo));
}

/* The first entry with a key >= k, which is one of the n from entry `from` on or the one behind them. Binary search without a branch on
 * the outcome of a comparison: which half it is cannot be predicted. */
static unsigned search(const uint8_t *p, struct key k, unsigned from, unsigned n, bool *ret_found)
{
	unsigned size = page_level(p) == 0 ? LEAF_ENTRY : INNER_ENTRY;
	const uint8_t *first = p + PAGE_ENTRIES, *at = first + from * size;

	while (n > 1) {
		unsigned half = n / 2;

		at += entry_below(at + (half - 1) * size, k) * half * size;
		n -= half;
	}
	if (n > 0)
		at += entry_below(at, k) * size;
	n = (unsigned)(at - first) / size;
	*ret_found = n < page_count(p) && get_le64(at) == k.hi && get_le64(at + 8) == k.lo;
	return n;
}

unsigned page_lower(const uint8_t *p, struct key k, bool *ret_found)
{
	return search(p, k, 0, page_count(p), ret_found);
}

/* Where k would stand among n keys that are spread evenly from low to high. */
static unsigned even_place(unsigned n, struct key k, struct key low, struct key high)
{
	bool same = low.hi == high.hi;
	uint64_t at = same ? k.lo - low.lo : k.hi - low.hi, span = same ? high.lo - low.lo : high.hi - low.hi;
	unsigned bits;

	if (at >= span)
		return n;
	bits = 64 - (unsigned)__builtin_clzll(span);
	bits = bits > 32 ? bits - 32 : 0;
	return (unsigned)((at >> bits) * n / (span >> bits));
}

unsigned page_near(const uint8_t *p, struct key k, struct key low, struct key high, bool *ret_found)
{
	unsigned size = page_level(p) == 0 ? LEAF_ENTRY : INNER_ENTRY, n = page_count(p), place, from, to, i;
	const uint8_t *first = p + PAGE_ENTRIES;

	if (n <= 2 * NEAR)
		return search(p, k, 0, n, ret_found);
	place = even_place(n, k, low, high);
	from = place > NEAR ? place - NEAR : 0;
	to = (unsigned)min_u64(place + NEAR, n);
	for (i = from * size & ~63u; i < to * size; i += 64)
		__builtin_prefetch(first + i);
	/* A guess only: where it is wrong, the half that is left is searched. */
	if (from > 0 && !entry_below(first + (from - 1) * size, k))
		return search(p, k, 0, from, ret_found);
	if (to < n && entry_below(first + (to - 1) * size, k))
		return search(p, k, to, n - to, ret_found);
	return search(p, k, from, to - from, ret_found);
}

/* The child that k belongs to, if entry i is the first that is not below it. */
static unsigned child_of(unsigned i, bool found)
{
	return found || i == 0 ? i : i - 1;
}

unsigned inner_find(const uint8_t *p, struct key k)
{
	bool found;
	unsigned i = page_lower(p, k, &found);

	return child_of(i, found);
}

unsigned inner_near(const uint8_t *p, struct key k, struct key low, struct key high)
{
	bool found;
	unsigned i = page_near(p, k, low, high, &found);

	return child_of(i, found);
}

unsigned leaf_room(const uint8_t *p)
{
	return low(p) + dead(p) - PAGE_ENTRIES - page_count(p) * LEAF_ENTRY;
}

unsigned leaf_used(const uint8_t *p)
{
	return BLOCK_SIZE - PAGE_ENTRIES - leaf_room(p);
}

/* Move the values together at the end of the page. */
static void leaf_compact(uint8_t *p)
{
	uint8_t copy[BLOCK_SIZE];
	unsigned n = page_count(p), i, at = BLOCK_SIZE;

	memcpy(copy, p, BLOCK_SIZE);
	for (i = 0; i < n; i++) {
		uint8_t *e = entry(p, i);
		unsigned off = get_le16(e + 16), len = get_le16(e + 18);

		if (len == 0)
			continue;
		at -= len;
		memcpy(p + at, copy + off, len);
		put_le16(e + 16, (uint16_t)at);
	}
	put_le16(p + PAGE_LOW, (uint16_t)at);
	put_le16(p + PAGE_DEAD, 0);
}

uint8_t *leaf_insert(uint8_t *p, unsigned i, struct key k, uint32_t len)
{
	unsigned n = page_count(p), at = low(p), need = PAGE_ENTRIES + (n + 1) * LEAF_ENTRY + len;
	uint8_t *e;

	if (at < need) {
		leaf_compact(p);
		at = low(p);
	}
	still(p, at >= need && at <= BLOCK_SIZE && i <= n);
	at -= len;
	e = entry(p, i);
	memmove(e + LEAF_ENTRY, e, (n - i) * LEAF_ENTRY);
	put_le64(e, k.hi);
	put_le64(e + 8, k.lo);
	put_le16(e + 16, (uint16_t)(len > 0 ? at : BLOCK_SIZE));
	put_le16(e + 18, (uint16_t)len);
	put_le16(p + PAGE_LOW, (uint16_t)at);
	set_count(p, n + 1);
	return p + at;
}

void leaf_remove(uint8_t *p, unsigned i)
{
	unsigned n = page_count(p);
	uint8_t *e = entry(p, i);
	unsigned off = get_le16(e + 16), len = get_le16(e + 18);

	still(p, i < n);
	if (len > 0 && off == low(p))
		put_le16(p + PAGE_LOW, (uint16_t)(off + len));
	else
		put_le16(p + PAGE_DEAD, (uint16_t)(dead(p) + len));
	memmove(e, e + LEAF_ENTRY, (n - i - 1) * LEAF_ENTRY);
	set_count(p, n - 1);
	if (n == 1) {
		put_le16(p + PAGE_LOW, BLOCK_SIZE);
		put_le16(p + PAGE_DEAD, 0);
	}
}

static void leaf_copy_range(uint8_t *to, const uint8_t *from, unsigned first, unsigned end)
{
	for (; first < end; first++) {
		uint32_t len;
		const uint8_t *v = leaf_value(from, first, &len);

		memcpy(leaf_insert(to, page_count(to), page_key(from, first), len), v, len);
	}
}

void leaf_move_tail(uint8_t *p, unsigned from, uint8_t *to)
{
	unsigned n = page_count(p), i, gone = 0;

	still(p, from <= n);
	leaf_copy_range(to, p, from, n);
	for (i = from; i < n; i++)
		gone += get_le16(entry(p, i) + 18);
	put_le16(p + PAGE_DEAD, (uint16_t)(dead(p) + gone));
	set_count(p, from);
	leaf_compact(p);
}

void leaf_append(uint8_t *p, const uint8_t *from)
{
	leaf_copy_range(p, from, 0, page_count(from));
}

void inner_set_child(uint8_t *p, unsigned i, block_t block, gen_t gen)
{
	uint8_t *e = entry(p, i);

	put_le64(e + 16, block);
	put_le64(e + 24, gen);
}

void inner_insert(uint8_t *p, unsigned i, struct key k, block_t block, gen_t gen)
{
	unsigned n = page_count(p);
	uint8_t *e = entry(p, i);

	still(p, n < INNER_MAX && i <= n);
	memmove(e + INNER_ENTRY, e, (n - i) * INNER_ENTRY);
	put_le64(e, k.hi);
	put_le64(e + 8, k.lo);
	set_count(p, n + 1);
	inner_set_child(p, i, block, gen);
}

void inner_remove(uint8_t *p, unsigned i)
{
	unsigned n = page_count(p);
	uint8_t *e = entry(p, i);

	still(p, i < n);
	/* The first key stays the lower bound of the page, so that a split of the new first child gives a greater one. */
	if (i == 0 && n > 1)
		memcpy(e + INNER_ENTRY, e, 16);
	memmove(e, e + INNER_ENTRY, (n - i - 1) * INNER_ENTRY);
	set_count(p, n - 1);
}

void inner_move_tail(uint8_t *p, unsigned from, uint8_t *to)
{
	unsigned n = page_count(p);

	still(p, from <= n);
	memcpy(entry(to, 0), entry(p, from), (n - from) * INNER_ENTRY);
	set_count(to, n - from);
	set_count(p, from);
}

void inner_append(uint8_t *p, const uint8_t *from, struct key k)
{
	unsigned n = page_count(p), add = page_count(from);
	uint8_t *e = entry(p, n);

	still(p, n + add <= INNER_MAX);
	memcpy(e, page_entry(from, 0), add * INNER_ENTRY);
	put_le64(e, k.hi);
	put_le64(e + 8, k.lo);
	set_count(p, n + add);
}
