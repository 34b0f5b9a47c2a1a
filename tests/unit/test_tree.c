/* SPDX-License-Identifier: MIT
 *
 * test_tree: the tree against a sorted array: put, del, get, patch, cursors; old roots stay readable; pages are neither
 * lost nor used twice.
 */
#include "tests/unit/random_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/store/tree.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define STORE_ID 0x1122334455667788ull
#define BLOCKS   40000u
#define KEYS     6000u

struct world {
	struct map map;
	struct space sp;
	struct tree t;
	int fd;
	/* The model: keys are numbers below KEYS, a value is `len` bytes made from `seed`; -1 = none. */
	int16_t len[KEYS];
	uint8_t seed[KEYS];
	unsigned count;
	uint64_t taken;                 /* blocks that are nobody's */
};

/* Ascending; both halves of the key matter. Smaller keys are the store's own. */
static struct key key_of(uint32_t n)
{
	return (struct key){ 0x1001 + ((uint64_t)(n >> 6) << 8), (uint64_t)(n & 63) << 40 };
}

static uint32_t number_of(struct key k)
{
	return (uint32_t)((k.hi - 0x1001) >> 8) << 6 | (uint32_t)(k.lo >> 40);
}

static bool is_ours(struct key k)
{
	return k.hi >= 0x1001;
}

static int slot_gen(void *ctx, uint64_t group, gen_t *ret_gen)
{
	struct world *w = ctx;
	const uint8_t *v;
	uint32_t len;
	int r;

	if (w->t.root.block == 0)
		return -ENOENT;
	r = tree_get(&w->t, (struct key){ KIND_SPACE, group }, &v, &len);
	if (r == 0)
		*ret_gen = get_le64(v);
	return r;
}

static struct world *world_new(uint64_t blocks)
{
	struct world *w = calloc(1, sizeof *w);

	assert_non_null(w);
	memset(w->len, 0xff, sizeof w->len);
	w->fd = memfd_create("tree", MFD_CLOEXEC);
	assert_true(w->fd >= 0);
	assert_int_equal(map_open(&w->map, w->fd, false, 1ull << 30, &sys_linux), 0);
	/* Every store has the copies of its superblocks. */
	assert_int_equal(map_grow(&w->map, SUPER_COPY + SUPERS + blocks), 0);
	w->sp.slot_gen = slot_gen;
	w->sp.ctx = w;
	assert_int_equal(space_init(&w->sp, &w->map, 1, 0, 0), 0);
	assert_int_equal(tree_init(&w->t, &w->map, &w->sp, STORE_ID), 0);
	assert_int_equal(tree_create(&w->t), 0);
	return w;
}

static void world_free(struct world *w)
{
	tree_release(&w->t);
	space_release(&w->sp);
	map_close(&w->map);
	(void)close(w->fd);
	free(w);
}

/* As a checkpoint does: cut, seal, write. */
static void freeze(struct world *w, struct tree_root *ret_root)
{
	uint64_t group;
	uint8_t gen[8];

	put_le64(gen, w->sp.gen);
	while (space_next_unlisted(&w->sp, &group) == 0)
		assert_int_equal(tree_put(&w->t, (struct key){ KIND_SPACE, group }, gen, sizeof gen), 0);
	*ret_root = w->t.root;
	assert_int_equal(space_freeze(&w->sp, w->sp.gen + 1), 0);
	space_seal(&w->sp);
}

static void durable(struct world *w)
{
	assert_int_equal(space_durable(&w->sp, false), 0);
	w->t.sealed = w->sp.gen - 1;
}

static void checkpoint(struct world *w)
{
	struct tree_root root;

	freeze(w, &root);
	durable(w);
}

static void put(struct world *w, uint32_t n, uint32_t len)
{
	uint8_t v[ITEM_MAX], seed = (uint8_t)rnd(256);

	memset(v, seed, len);
	assert_int_equal(tree_put(&w->t, key_of(n), v, len), 0);
	w->count += w->len[n] < 0;
	w->len[n] = (int16_t)len;
	w->seed[n] = seed;
}

static void del(struct world *w, uint32_t n)
{
	assert_int_equal(tree_del(&w->t, key_of(n)), w->len[n] < 0 ? -ENOENT : 0);
	w->count -= w->len[n] >= 0;
	w->len[n] = -1;
}

static void same_value(const struct world *w, uint32_t n, const uint8_t *v, uint32_t len)
{
	uint32_t i;

	assert_int_equal(len, w->len[n]);
	for (i = 0; i < len; i++)
		if (v[i] != w->seed[n])
			fail_msg("key %u: byte %u of %u", n, i, len);
}

/* All items of `t` in order, forwards and backwards. */
static void compare_all(const struct world *w, struct tree *t)
{
	struct tree_cursor c;
	const uint8_t *v;
	uint32_t n, len;
	int r = tree_seek(t, key_of(0), &c);

	for (n = 0; n < KEYS; n++) {
		if (w->len[n] < 0)
			continue;
		assert_int_equal(r, 0);
		assert_int_equal(number_of(cursor_key(&c)), n);
		v = cursor_value(&c, &len);
		same_value(w, n, v, len);
		r = cursor_next(&c);
	}
	assert_int_equal(r, -ENOENT);
	r = tree_seek_le(t, (struct key){ ~0ull, ~0ull }, &c);
	for (n = KEYS; n-- > 0; ) {
		if (w->len[n] < 0)
			continue;
		assert_int_equal(r, 0);
		assert_int_equal(number_of(cursor_key(&c)), n);
		r = cursor_prev(&c);
	}
	assert_true(r == -ENOENT || !is_ours(cursor_key(&c)));
}

struct shape {
	uint64_t pages, leaves, bytes;
	uint8_t *seen;
};

static void walk(const struct tree *t, struct shape *sh, block_t block, gen_t gen, unsigned level)
{
	const uint8_t *p;
	unsigned i;

	assert_int_equal(tree_page(t, block, gen, level, &p), 0);
	assert_int_equal(page_validate(p, block, gen, level, STORE_ID), 0);
	assert_false(sh->seen[block]);          /* (T1) one parent */
	sh->seen[block] = 1;
	sh->pages++;
	if (level == 0) {
		sh->leaves++;
		sh->bytes += leaf_used(p);
		return;
	}
	assert_true(page_count(p) > 0);         /* (T2) */
	for (i = 0; i < page_count(p); i++) {
		block_t child;
		gen_t child_gen;

		inner_child(p, i, &child, &child_gen);
		assert_true(child_gen <= gen);
		walk(t, sh, child, child_gen, level - 1);
	}
}

static struct shape shape_of(const struct tree *t)
{
	struct shape sh = { .seen = calloc(1, BLOCKS) };

	assert_non_null(sh.seen);
	walk(t, &sh, t->root.block, t->root.gen, t->root.level);
	free(sh.seen);
	return sh;
}

/* What is in use is reachable, in the pool or a slot: no page is lost. */
static void check_no_leak(const struct world *w)
{
	uint64_t fixed = 2 * SUPERS + SLOTS * w->sp.group_count;

	assert_int_equal(w->sp.used, shape_of(&w->t).pages + w->sp.pool_count + fixed + w->taken);
}

static uint32_t random_len(uint32_t max)
{
	return rnd(8) == 0 ? 0 : rnd(16) == 0 ? ITEM_MAX - rnd(3) : rnd(max + 1);
}

/* One look: get, or a seek from anywhere. */
static void look(struct world *w)
{
	uint32_t n = rnd(KEYS), m, len;
	struct tree_cursor c;
	const uint8_t *v;
	struct key k = key_of(n);
	int r = tree_get(&w->t, k, &v, &len);

	assert_int_equal(r, w->len[n] < 0 ? -ENOENT : 0);
	if (r == 0)
		same_value(w, n, v, len);
	if (rnd(2))
		k.lo++;                         /* between two keys */
	for (m = k.lo == key_of(n).lo ? n : n + 1; m < KEYS && w->len[m] < 0; m++)
		;
	r = tree_seek(&w->t, k, &c);
	assert_int_equal(r, m < KEYS ? 0 : -ENOENT);
	if (r == 0)
		assert_int_equal(number_of(cursor_key(&c)), m);
	else
		assert_int_equal(cursor_next(&c), -ENOENT);
	for (m = n + 1; m > 0 && w->len[m - 1] < 0; m--)
		;
	r = tree_seek_le(&w->t, k, &c);
	if (m > 0) {
		assert_int_equal(r, 0);
		assert_int_equal(number_of(cursor_key(&c)), m - 1);
	} else {
		assert_true(r == -ENOENT || !is_ours(cursor_key(&c)));
	}
}

static void patch(struct world *w)
{
	uint32_t n = rnd(KEYS), len;
	uint8_t *v;
	int r = tree_patch(&w->t, key_of(n), &v, &len);

	assert_int_equal(r, w->len[n] < 0 ? -ENOENT : 0);
	if (r < 0)
		return;
	same_value(w, n, v, len);
	w->seed[n] = (uint8_t)rnd(256);
	memset(v, w->seed[n], len);
}

static void random_tree(uint32_t max_len, unsigned steps)
{
	struct world *w = world_new(BLOCKS);
	unsigned step, growing = 1;

	for (step = 0; step < steps; step++) {
		if (step % 7000 == 0)
			growing = !growing || step == 0;
		if (rnd(10) < (growing ? 6 : 2))
			put(w, rnd(KEYS), random_len(max_len));
		else if (rnd(3))
			del(w, rnd(KEYS));
		else if (rnd(2))
			patch(w);
		else
			look(w);
		if (step % 2500 == 0) {
			compare_all(w, &w->t);
			check_no_leak(w);
		}
		if (rnd(800) == 0) {
			check_no_leak(w);
			checkpoint(w);
		}
	}
	compare_all(w, &w->t);
	world_free(w);
}

static void test_tree__random_against_array(void **state)
{
	(void)state;
	random_tree(20, 40000);
	random_tree(200, 40000);
	random_tree(ITEM_MAX, 40000);
}

/* Fill, so that there are inner pages above inner pages. */
static void fill_high(struct world *w)
{
	uint32_t n;

	for (n = 0; n < KEYS; n++)
		put(w, n * 7 % KEYS, ITEM_MAX - 100 + rnd(100));
	assert_true(w->t.root.level >= 2);
}

static void test_tree__old_root_stays_readable(void **state)
{
	struct world *w = world_new(BLOCKS), *then = calloc(1, sizeof *then);
	struct tree old;
	unsigned i, round;

	(void)state;
	assert_non_null(then);
	fill_high(w);
	for (round = 0; round < 4; round++) {
		struct tree_root root;

		freeze(w, &root);
		memcpy(then, w, sizeof *then);
		for (i = 0; i < 6000; i++) {
			/* Half of it while the checkpoint is being written. */
			if (i == 3000)
				durable(w);
			if (rnd(2))
				put(w, rnd(KEYS), random_len(ITEM_MAX));
			else
				del(w, rnd(KEYS));
		}
		assert_int_equal(tree_init(&old, &w->map, NULL, STORE_ID), 0);
		old.root = root;
		old.sealed = root.gen;          /* every checksum counts */
		compare_all(then, &old);
		(void)shape_of(&old);
		tree_release(&old);
		compare_all(w, &w->t);
		check_no_leak(w);
	}
	free(then);
	world_free(w);
}

static void test_tree__sequential_pages_are_full(void **state)
{
	static const uint32_t lens[] = { 8, 40, 96, 300 };
	unsigned i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(lens); i++) {
		struct world *w = world_new(BLOCKS);
		struct shape sh;
		uint32_t n;

		for (n = 0; n < KEYS; n++)
			put(w, n, lens[i]);
		sh = shape_of(&w->t);
		assert_true(sh.bytes * 10 >= sh.leaves * (BLOCK_SIZE - PAGE_ENTRIES) * 9);
		world_free(w);
	}
}

static uint32_t nth(unsigned order, uint32_t i)
{
	return order == 0 ? i : order == 1 ? KEYS - 1 - i : i * 1009 % KEYS;
}

static void test_tree__delete_all_leaves_one_leaf(void **state)
{
	struct world *w = world_new(BLOCKS);
	unsigned order;
	uint32_t i;

	(void)state;
	for (order = 0; order < 6; order++) {
		for (i = 0; i < KEYS; i++)
			put(w, nth((order + 1) % 3, i), order < 3 ? ITEM_MAX - rnd(200) : rnd(60));
		assert_true(w->t.root.level >= (order < 3 ? 2 : 1));
		if (order % 2)
			checkpoint(w);
		compare_all(w, &w->t);
		for (i = 0; i < KEYS; i++) {
			del(w, nth(order % 3, i));
			if (i % 1000 == 0)
				compare_all(w, &w->t);
		}
		assert_int_equal(w->count, 0);
		assert_int_equal(w->t.root.level, 0);
		check_no_leak(w);
	}
	world_free(w);
}

/* Deleting most of it gives most of the pages back. */
static void test_tree__sparse_pages_are_joined(void **state)
{
	struct world *w = world_new(BLOCKS);
	uint64_t before;
	uint32_t n;

	(void)state;
	for (n = 0; n < KEYS; n++)
		put(w, n, 100);
	before = shape_of(&w->t).leaves;
	for (n = KEYS; n-- > 0; )
		if (n % 10)
			del(w, n);
	assert_true(shape_of(&w->t).leaves * 3 < before);
	compare_all(w, &w->t);
	check_no_leak(w);
	world_free(w);
}

static void test_tree__split_keeps_order(void **state)
{
	static const uint32_t lens[] = { 0, 1, ITEM_MAX - 1, ITEM_MAX, 1000, 2 };
	struct world *w = world_new(BLOCKS);
	unsigned i;

	(void)state;
	/* Values that shrink and grow in full leaves, in every mixture of sizes. */
	for (i = 0; i < 30000; i++)
		put(w, 100 + rnd(200), lens[rnd(ARRAY_LEN(lens))]);
	compare_all(w, &w->t);
	check_no_leak(w);
	world_free(w);
}

/* So much that only `left` blocks are free. */
static void take_space(struct world *w, uint64_t left)
{
	while (space_allocatable(&w->sp) > left) {
		uint64_t n;
		block_t b;

		assert_int_equal(space_alloc_data(&w->sp, space_allocatable(&w->sp) - left, &b, &n), 0);
		w->taken += n;
	}
}

/* (T3) When there is no page left, the items are what they were. */
static void test_tree__no_space_changes_no_item(void **state)
{
	unsigned round, refused = 0;

	(void)state;
	for (round = 0; round < 30; round++) {
		struct world *w = world_new(0);
		unsigned i;

		take_space(w, 60 + rnd(60));

		for (i = 0; i < 1500; i++) {
			uint32_t n = rnd(KEYS), len = random_len(ITEM_MAX);
			uint8_t v[ITEM_MAX], seed = (uint8_t)rnd(256);
			int r;

			memset(v, seed, len);
			if (rnd(4)) {
				r = tree_put(&w->t, key_of(n), v, len);
				if (r == 0) {
					w->len[n] = (int16_t)len;
					w->seed[n] = seed;
				}
			} else {
				r = tree_del(&w->t, key_of(n));
				if (r == 0)
					w->len[n] = -1;
				assert_true(r != -ENOENT || w->len[n] < 0);
			}
			assert_true(r == 0 || r == -ENOSPC || r == -ENOENT);
			refused += r == -ENOSPC;
			if (r == -ENOSPC && refused % 8 == 0) {
				compare_all(w, &w->t);
				check_no_leak(w);
			}
			/* Keep it full without a room for the checkpoint itself. */
			if (rnd(200) == 0 && space_allocatable(&w->sp) > 8)
				checkpoint(w);
		}
		compare_all(w, &w->t);
		check_no_leak(w);
		world_free(w);
	}
	assert_true(refused > 1000);
}

static void test_tree__relocate_moves_the_path(void **state)
{
	struct world *w = world_new(BLOCKS);
	const block_t limit = 12000;
	struct shape sh;
	uint32_t n;
	block_t b;
	bool moved;

	(void)state;
	/* Fill the front with contents, so that the tree has to stand behind it. */
	while (w->sp.used < limit) {
		uint8_t count[8];
		uint64_t got;

		assert_int_equal(space_alloc_data(&w->sp, 512, &b, &got), 0);
		put_le64(count, got);
		assert_int_equal(tree_put(&w->t, (struct key){ 0x300, b }, count, 8), 0);
	}
	fill_high(w);
	checkpoint(w);
	for (;;) {
		struct tree_cursor c;
		const uint8_t *v;
		struct key k;
		uint32_t len;

		if (tree_seek(&w->t, (struct key){ 0x300, 0 }, &c) < 0 || (k = cursor_key(&c)).hi != 0x300)
			break;
		v = cursor_value(&c, &len);
		assert_int_equal(space_free_data(&w->sp, k.lo, get_le64(v), 1), 0);
		assert_int_equal(tree_del(&w->t, k), 0);
	}
	checkpoint(w);
	checkpoint(w);
	space_go_low(&w->sp, limit);
	for (n = 0; n < KEYS; n++)
		assert_int_equal(tree_relocate(&w->t, key_of(n), limit, &moved), 0);
	assert_int_equal(tree_relocate(&w->t, (struct key){ 0, 0 }, limit, &moved), 0);
	checkpoint(w);
	for (n = 0; n < KEYS; n++) {
		assert_int_equal(tree_relocate(&w->t, key_of(n), limit, &moved), 0);
		assert_false(moved);
	}
	checkpoint(w);
	compare_all(w, &w->t);
	sh = shape_of(&w->t);
	assert_true(sh.pages > 1000);
	assert_int_equal(space_high_water(&w->sp, &b), 0);
	/* Slots of the second group stand where they stand. */
	assert_true(b <= limit + SLOTS || b <= GROUP_BLOCKS + SLOTS);
	check_no_leak(w);
	world_free(w);
}

static void test_tree__damaged_page_is_refused(void **state)
{
	struct world *w = world_new(BLOCKS);
	struct tree t;
	const uint8_t *v;
	uint32_t len;
	unsigned i;

	(void)state;
	fill_high(w);
	checkpoint(w);
	for (i = 0; i < BLOCK_SIZE; i += 61) {
		uint8_t *p = map_block(&w->map, w->t.root.block);

		assert_int_equal(tree_init(&t, &w->map, NULL, STORE_ID), 0);
		t.root = w->t.root;
		t.sealed = w->t.root.gen;
		p[i] ^= (uint8_t)(1u << i % 8);
		assert_int_equal(tree_get(&t, key_of(1), &v, &len), -EUCLEAN);
		p[i] ^= (uint8_t)(1u << i % 8);
		assert_int_equal(tree_get(&t, key_of(1), &v, &len), 0);
		tree_release(&t);
	}
	world_free(w);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_tree__random_against_array),
	cmocka_unit_test(test_tree__old_root_stays_readable),
	cmocka_unit_test(test_tree__sequential_pages_are_full),
	cmocka_unit_test(test_tree__delete_all_leaves_one_leaf),
	cmocka_unit_test(test_tree__sparse_pages_are_joined),
	cmocka_unit_test(test_tree__split_keeps_order),
	cmocka_unit_test(test_tree__no_space_changes_no_item),
	cmocka_unit_test(test_tree__relocate_moves_the_path),
	cmocka_unit_test(test_tree__damaged_page_is_refused),
};

int main(void)
{
	return cmocka_run_group_tests_name("tree", tests, NULL, NULL);
}
