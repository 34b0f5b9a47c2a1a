/* SPDX-License-Identifier: MIT
 *
 * test_page: one tree page: insert, remove, compaction, split, join; what page_validate() accepts and what it refuses.
 */
#include "tests/unit/random_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/store/page.h"

#include <stdlib.h>

#define STORE 0x1122334455667788ull

static struct key key_of(uint64_t n)
{
	return (struct key){ n >> 8, n & 0xff };
}

static int validate(const uint8_t *p)
{
	return page_validate(p, get_le64(p + PAGE_BLOCK), page_gen(p), page_level(p), STORE);
}

/* A page with every byte set before, as a recycled block has it. */
static void leaf_init(uint8_t *p, block_t block)
{
	memset(p, 0xa5, BLOCK_SIZE);
	page_init(p, block, 7, STORE, 0);
}

static bool leaf_add(uint8_t *p, uint64_t n, uint32_t len)
{
	struct key k = key_of(n);
	bool found;
	unsigned i = page_lower(p, k, &found);

	if (found || leaf_room(p) < LEAF_ENTRY + len)
		return false;
	memset(leaf_insert(p, i, k, len), (int)(n & 0xff), len);
	return true;
}

/* Leaves ----------------------------------------------------------------------------------------------------------- */

struct model_item {
	bool present;
	uint32_t len;
};

static void leaf_compare(const uint8_t *p, const struct model_item *m, unsigned n)
{
	unsigned i, at = 0, used = 0;

	assert_int_equal(validate(p), 0);
	for (i = 0; i < n; i++) {
		uint32_t len, b;
		const uint8_t *v;

		if (!m[i].present)
			continue;
		assert_true(at < page_count(p));
		assert_int_equal(key_cmp(page_key(p, at), key_of(i)), 0);
		v = leaf_value(p, at, &len);
		assert_int_equal(len, m[i].len);
		for (b = 0; b < len; b++)
			assert_int_equal(v[b], i & 0xff);
		used += LEAF_ENTRY + len;
		at++;
	}
	assert_int_equal(at, page_count(p));
	assert_int_equal(leaf_used(p), used);
	assert_int_equal(leaf_room(p), BLOCK_SIZE - PAGE_ENTRIES - used);
}

static void random_leaf(uint32_t max_len, uint32_t keys, unsigned steps)
{
	struct model_item m[600] = { { 0 } };
	static uint8_t p[BLOCK_SIZE];
	unsigned step;

	leaf_init(p, 9);
	for (step = 0; step < steps; step++) {
		uint32_t n = rnd(keys), len = rnd(8) == 0 ? 0 : rnd(max_len + 1);
		bool found;
		unsigned i = page_lower(p, key_of(n), &found);

		assert_int_equal(found, m[n].present);
		if (found) {
			leaf_remove(p, i);
			m[n].present = false;
		} else if (leaf_room(p) >= LEAF_ENTRY + len) {
			assert_true(leaf_add(p, n, len));
			m[n] = (struct model_item){ true, len };
		}
		leaf_compare(p, m, keys);
	}
}

static void test_page__random_inserts_and_removes(void **state)
{
	(void)state;
	random_leaf(16, 600, 3000);
	random_leaf(200, 100, 3000);
	random_leaf(ITEM_MAX, 20, 3000);
}

/* An empty value takes no bytes: those that stood beside it may go. */
static void test_page__empty_value_outlives_its_neighbour(void **state)
{
	static uint8_t p[BLOCK_SIZE];

	(void)state;
	leaf_init(p, 9);
	assert_true(leaf_add(p, 1, 100));
	assert_true(leaf_add(p, 2, 0));
	assert_int_equal(validate(p), 0);
	leaf_remove(p, 0);
	assert_int_equal(page_count(p), 1);
	assert_int_equal(validate(p), 0);
}

/* Searching -------------------------------------------------------------------------------------------------------- */

/* How the keys of a page are spread. */
enum spread { HASHES, NUMBERS, CROWDED, MIXED, SPREADS };

static struct key spread_key(enum spread spread)
{
	switch (spread) {
	case HASHES:
		return (struct key){ 0x103, random_below(UINT64_MAX) };
	case NUMBERS:
		return (struct key){ (uint64_t)rnd(1000) << 8 | 1, 0 };
	case CROWDED:
		return (struct key){ 0x103, UINT64_MAX >> rnd(64) };
	default:
		return (struct key){ rnd(4) << 8, random_below(UINT64_MAX) >> rnd(64) };
	}
}

static struct key any_bound(const uint8_t *p)
{
	switch (rnd(4)) {
	case 0:
		return (struct key){ 0, 0 };
	case 1:
		return (struct key){ UINT64_MAX, UINT64_MAX };
	case 2:
		return page_count(p) > 0 ? page_key(p, rnd(page_count(p))) : (struct key){ 1, 1 };
	default:
		return spread_key(rnd(SPREADS));
	}
}

/* One after the other. */
static unsigned slow_lower(const uint8_t *p, struct key k)
{
	unsigned i = 0;

	while (i < page_count(p) && key_cmp(page_key(p, i), k) < 0)
		i++;
	return i;
}

static void look_for(const uint8_t *p, struct key k, struct key low, struct key high)
{
	unsigned want = slow_lower(p, k);
	bool is_there = want < page_count(p) && key_cmp(page_key(p, want), k) == 0, found;

	assert_int_equal(page_lower(p, k, &found), want);
	assert_int_equal(found, is_there);
	assert_int_equal(page_near(p, k, low, high, &found), want);
	assert_int_equal(found, is_there);
	if (page_level(p) > 0) {
		want = is_there || want == 0 ? want : want - 1;
		assert_int_equal(inner_find(p, k), want);
		assert_int_equal(inner_near(p, k, low, high), want);
	}
}

/* The guess of where a key is may be wrong in every way: the answer is that of a plain search. */
static void test_page__bounds_only_make_it_fast(void **state)
{
	static uint8_t p[BLOCK_SIZE];
	unsigned round, i;

	(void)state;
	for (round = 0; round < 3000; round++) {
		unsigned level = rnd(2), n = rnd(level ? INNER_MAX + 1 : 190);
		enum spread spread = (enum spread)rnd(SPREADS);

		memset(p, 0xa5, BLOCK_SIZE);
		page_init(p, 9, 7, STORE, level);
		for (i = 0; i < n; i++) {
			struct key k = spread_key(spread);
			unsigned at = slow_lower(p, k);

			if (at < page_count(p) && key_cmp(page_key(p, at), k) == 0)
				continue;
			if (level)
				inner_insert(p, at, k, i, 7);
			else
				(void)leaf_insert(p, at, k, 0);
		}
		for (i = 0; i < 40; i++) {
			struct key k = rnd(2) && page_count(p) > 0 ? page_key(p, rnd(page_count(p))) : spread_key(spread);

			k.lo += rnd(3) - 1;
			look_for(p, k, any_bound(p), any_bound(p));
			if (page_count(p) > 0)
				look_for(p, k, page_key(p, 0), page_key(p, page_count(p) - 1));
		}
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_page__bounds_only_make_it_fast),
	cmocka_unit_test(test_page__random_inserts_and_removes),
	cmocka_unit_test(test_page__empty_value_outlives_its_neighbour),
};

int main(void)
{
	return cmocka_run_group_tests_name("page", tests, NULL, NULL);
}
