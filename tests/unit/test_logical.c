/* SPDX-License-Identifier: MIT
 *
 * test_logical: windows and items say what a store holds and nothing of places: two stores that came to the same contents by
 * other ways show the same; a walk meets each item once, in order, can stop and go on anywhere, and keeps its bound.
 */
#include "tests/unit/ok_util.h"

#include "core/base.h"
#include "core/keys/keys.h"
#include "core/keys/logical.h"
#include "core/keys/restore.h"
#include "core/store/store.h"
#include "core/store/sys.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define ITEMS_MAX 20000
#define BLOCKS    600u          /* two windows and a part of a third */

static const struct keys_cred cred = { 1000, 100, 022 };
static struct sys_ops sys;

/* Times are no contents. */
static uint64_t still(void *ctx)
{
	(void)ctx;
	return 1700000000ull * 1000000000u;
}

#define N(s)  (s), strlen(s)

static struct keys *open_memory(void)
{
	const struct store_options o = { .path = ":memory:", .create = true, .max_bytes = 64u << 20, .sys = &sys };
	struct keys *k;

	sys = sys_linux;
	sys.now_real_ns = still;
	ok(keys_open(&o, &k));
	return k;
}

static uint64_t make(struct keys *k, const char *name)
{
	struct keys_attr a;

	ok(keys_make(k, KEYS_ROOT_INO, N(name), S_IFREG | 0666, 0, &cred, &a));
	return a.ino;
}

static void write_at(struct keys *k, uint64_t ino, uint64_t off, const void *data, size_t len)
{
	size_t n, at;

	for (at = 0; at < len; at += n) {
		int r = keys_write(k, ino, off + at, (const char *)data + at, len - at, 0, &n);

		if (r == -EAGAIN) {
			ok(store_checkpoint(keys_store(k)));
			n = 0;
			continue;
		}
		ok(r);
	}
}

/* Block i of the file: no two are alike. */
static void fill(uint8_t *block, unsigned i)
{
	unsigned n;

	for (n = 0; n < BLOCK_SIZE; n += 4)
		put_le32(block + n, i * 2654435761u + n);
}

static uint8_t contents[BLOCKS * BLOCK_SIZE];

/* The contents, in order, as few extents. */
static void write_plainly(struct keys *k, uint64_t ino)
{
	unsigned i;

	for (i = 0; i < BLOCKS; i++)
		fill(contents + (size_t)i * BLOCK_SIZE, i);
	write_at(k, ino, 0, contents, sizeof contents);
}

/* The same from the end to the beginning, a block at a time, each after something else, with another file in between: as many
 * extents as there can be. */
static void write_roughly(struct keys *k, uint64_t ino, uint64_t other)
{
	static const uint8_t rubbish[BLOCK_SIZE] = { 1, 2, 3 };
	unsigned i;

	for (i = BLOCKS; i-- > 0; ) {
		write_at(k, ino, (uint64_t)i * BLOCK_SIZE, rubbish, BLOCK_SIZE);
		write_at(k, other, (uint64_t)i * BLOCK_SIZE, rubbish, BLOCK_SIZE);
		fill(contents, i);
		write_at(k, ino, (uint64_t)i * BLOCK_SIZE, contents, BLOCK_SIZE);
	}
}

static struct window window_at(struct keys *k, uint64_t ino, uint64_t fblock, uint64_t *ret_next)
{
	struct window w;

	ok(window_get(k, ino, fblock, &w, ret_next));
	return w;
}

static unsigned count_kind(const struct window *w, enum window_kind kind)
{
	unsigned i, n = 0;

	for (i = 0; i < WINDOW_BLOCKS; i++)
		n += w->kind[i] == kind;
	return n;
}

/* Windows ---------------------------------------------------------------------------------------------------------- */

static void test_logical__windows_say_nothing_of_places(void **state)
{
	struct keys *a = open_memory(), *b = open_memory();
	uint64_t in_a = make(a, "f"), in_b = make(b, "f"), fblock;

	(void)state;
	assert_int_equal(in_a, in_b);
	write_plainly(a, in_a);
	write_roughly(b, in_b, make(b, "other"));
	for (fblock = 0; fblock < BLOCKS; fblock += WINDOW_BLOCKS) {
		uint64_t next_a, next_b, deep_a, deep_b;
		struct window wa = window_at(a, in_a, fblock, &next_a), wb = window_at(b, in_b, fblock, &next_b);
		unsigned data = (unsigned)min_u64(WINDOW_BLOCKS, BLOCKS - fblock), moved = 0, i;

		assert_int_equal(count_kind(&wa, WINDOW_DATA), data);
		assert_int_equal(count_kind(&wb, WINDOW_DATA), data);
		assert_int_equal(next_a, next_b);
		assert_int_equal(next_a, fblock + WINDOW_BLOCKS < BLOCKS ? fblock + WINDOW_BLOCKS : UINT64_MAX);
		assert_int_equal(window_digest(&wa, 7), window_digest(&wb, 7));
		assert_int_not_equal(window_digest(&wa, 7), window_digest(&wa, 8));
		ok(window_deep_digest(a, &wa, 7, &deep_a));
		ok(window_deep_digest(b, &wb, 7, &deep_b));
		assert_int_equal(deep_a, deep_b);
		/* The two really lie otherwise. */
		for (i = 1; i < data; i++)
			moved += wb.block[i] != wb.block[i - 1] + 1;
		assert_true(moved > data / 2);
		for (i = 0; i < data; i++) {
			const uint8_t *p;
			int r = 0;

			fill(contents, (unsigned)fblock + i);
			p = window_bytes(b, &wb, i, &r);
			assert_non_null(p);
			assert_memory_equal(p, contents, BLOCK_SIZE);
		}
	}
	ok(keys_close(a));
	ok(keys_close(b));
}

static void test_logical__one_other_byte_is_seen(void **state)
{
	struct keys *k = open_memory();
	uint64_t ino = make(k, "f"), next, deep, before_deep, before;
	struct window w;

	(void)state;
	write_plainly(k, ino);
	w = window_at(k, ino, WINDOW_BLOCKS, &next);
	before = window_digest(&w, 0);
	ok(window_deep_digest(k, &w, 0, &before_deep));
	write_at(k, ino, (WINDOW_BLOCKS + 100) * BLOCK_SIZE + 17, "x", 1);
	w = window_at(k, ino, WINDOW_BLOCKS, &next);
	ok(window_deep_digest(k, &w, 0, &deep));
	assert_int_not_equal(window_digest(&w, 0), before);
	assert_int_not_equal(deep, before_deep);
	/* A block that is no block of the store. */
	w.block[0] = UINT64_MAX / 2;
	assert_int_equal(window_deep_digest(k, &w, 0, &deep), -EUCLEAN);
	ok(keys_close(k));
}

static void test_logical__holes_and_unwritten_blocks(void **state)
{
	struct keys *k = open_memory();
	uint64_t ino = make(k, "f"), next, at;
	struct window w;

	(void)state;
	/* Window 0: nothing. 1: data in its last block, going on in 2. 5: unwritten but for one block. */
	write_at(k, ino, (2 * WINDOW_BLOCKS - 1) * BLOCK_SIZE, contents, 2 * BLOCK_SIZE);
	ok(keys_fallocate(k, ino, 0, (5 * WINDOW_BLOCKS + 10) * BLOCK_SIZE, 20 * BLOCK_SIZE, 0));
	write_at(k, ino, (5 * WINDOW_BLOCKS + 15) * BLOCK_SIZE, contents, BLOCK_SIZE);
	w = window_at(k, ino, 0, &next);
	assert_int_equal(count_kind(&w, WINDOW_HOLE), WINDOW_BLOCKS);
	assert_int_equal(window_run(&w, 0), WINDOW_BLOCKS);
	assert_int_equal(window_run(&w, WINDOW_BLOCKS - 1), 1);
	assert_int_equal(next, WINDOW_BLOCKS);
	w = window_at(k, ino, WINDOW_BLOCKS, &next);
	assert_int_equal(count_kind(&w, WINDOW_DATA), 1);
	assert_int_equal(w.kind[WINDOW_BLOCKS - 1], WINDOW_DATA);
	assert_int_equal(next, 2 * WINDOW_BLOCKS);
	w = window_at(k, ino, 2 * WINDOW_BLOCKS, &next);
	assert_int_equal(w.kind[0], WINDOW_DATA);
	assert_int_equal(window_run(&w, 1), WINDOW_BLOCKS - 1);
	assert_int_equal(next, 5 * WINDOW_BLOCKS);
	w = window_at(k, ino, 5 * WINDOW_BLOCKS, &next);
	assert_int_equal(window_run(&w, 0), 10);
	assert_int_equal(w.kind[10], WINDOW_UNWRITTEN);
	assert_int_equal(window_run(&w, 10), 5);
	assert_int_equal(w.kind[15], WINDOW_DATA);
	assert_int_equal(window_run(&w, 16), 14);
	assert_int_equal(next, UINT64_MAX);
	/* From within: where the window begins. */
	ok(window_find(k, ino, 0, &at));
	assert_int_equal(at, WINDOW_BLOCKS);
	ok(window_find(k, ino, 3 * WINDOW_BLOCKS + 1, &at));
	assert_int_equal(at, 5 * WINDOW_BLOCKS);
	ok(window_find(k, ino, 5 * WINDOW_BLOCKS + 29, &at));
	assert_int_equal(at, 5 * WINDOW_BLOCKS);
	assert_int_equal(window_find(k, ino, 5 * WINDOW_BLOCKS + 30, &at), -ENOENT);
	/* Zeros that were written are no hole, nor unwritten. */
	w = window_at(k, ino, 0, &next);
	at = window_digest(&w, 0);
	ok(keys_fallocate(k, ino, 0, 0, BLOCK_SIZE, 0));
	w = window_at(k, ino, 0, &next);
	assert_int_not_equal(window_digest(&w, 0), at);
	ok(keys_close(k));
}

/* Items ------------------------------------------------------------------------------------------------------------ */

struct seen {
	struct key key;
	uint64_t digest;
};

/* A tree of several levels with all kinds of items. */
static struct keys *make_some(void)
{
	struct keys *k = open_memory();
	char name[32], value[3000];
	uint64_t ino;
	unsigned i;

	memset(value, 'v', sizeof value);
	for (i = 0; i < 500; i++) {
		(void)snprintf(name, sizeof name, "file.%u", i);
		ino = make(k, name);
		write_at(k, ino, 0, value, i % 7 == 0 ? 3000 : i % 900);
		if (i % 10 == 0)
			ok(keys_setxattr(k, ino, "user.x", value, sizeof value, 0, false));
		/* Windows with holes between them. */
		if (i % 50 == 0)
			write_at(k, ino, (uint64_t)i * 40 * BLOCK_SIZE, contents, 300 * BLOCK_SIZE);
	}
	return k;
}

static unsigned walk_all(struct keys *k, struct key from, struct key end, struct seen *seen)
{
	struct logical_walk w;
	struct logical_item item;
	unsigned n = 0;
	int r;

	logical_begin(&w, k, from);
	while ((r = logical_next(&w, end, &item)) > 0) {
		assert_true(n < ITEMS_MAX);
		assert_true(item.window != NULL ? logical_is_window(item.key) && item.value == NULL : item.value != NULL);
		if (seen)
			seen[n] = (struct seen){ item.key, logical_digest(&item, 3) };
		n++;
	}
	ok(r);
	return n;
}

static void test_logical__a_walk_meets_each_item_once_in_order(void **state)
{
	static struct seen seen[ITEMS_MAX];
	struct keys *k = make_some();
	unsigned n = walk_all(k, (struct key){ 0, 0 }, LOGICAL_END, seen), i, inodes = 0, names = 0, windows = 0;

	(void)state;
	for (i = 0; i < n; i++) {
		assert_true(logical_key_valid(seen[i].key));
		assert_true(i == 0 || key_cmp(seen[i - 1].key, seen[i].key) < 0);
		if (seen[i].key.hi >> 8 == 0)
			continue;
		inodes += (seen[i].key.hi & 0xff) == ITEM_INODE;
		names += (seen[i].key.hi & 0xff) == ITEM_DIRENT;
		windows += logical_is_window(seen[i].key);
	}
	assert_int_equal(inodes, 501);
	assert_int_equal(names, 500);
	/* Of the files with 3000 bytes or more one window each, and those of the long writes behind it. */
	assert_true(windows > 72 + 9);
	ok(keys_close(k));
}

static void test_logical__a_walk_goes_on_anywhere_and_keeps_its_bound(void **state)
{
	static struct seen seen[ITEMS_MAX];
	struct keys *k = make_some();
	unsigned n = walk_all(k, (struct key){ 0, 0 }, LOGICAL_END, seen), i;
	struct logical_walk w = { .k = k };
	struct logical_item item;

	(void)state;
	for (i = 0; i < n; i++) {
		/* It begins with the item whose key it is given, and behind it with the next. */
		logical_begin(&w, k, seen[i].key);
		assert_int_equal(logical_next(&w, LOGICAL_END, &item), 1);
		assert_int_equal(key_cmp(item.key, seen[i].key), 0);
		assert_int_equal(logical_digest(&item, 3), seen[i].digest);
		logical_begin(&w, k, logical_after(seen[i].key));
		assert_int_equal(logical_next(&w, LOGICAL_END, &item), i + 1 < n);
		if (i + 1 < n)
			assert_int_equal(key_cmp(item.key, seen[i + 1].key), 0);
		/* Nothing at or behind the bound. */
		assert_int_equal(logical_is_bound(seen[i].key), 1);
		logical_begin(&w, k, seen[i > 0 ? i - 1 : 0].key);
		assert_int_equal(logical_next(&w, seen[i].key, &item), i > 0);
		assert_int_equal(logical_next(&w, seen[i].key, &item), 0);
		ok(logical_get(&w, seen[i].key, &item));
		assert_int_equal(logical_digest(&item, 3), seen[i].digest);
	}
	assert_int_equal(walk_all(k, (struct key){ 0, 0 }, seen[n / 2].key, NULL), n / 2);
	assert_int_equal(logical_get(&w, item_key(INO_MAX - 2, ITEM_INODE, 0), &item), -ENOENT);
	ok(keys_close(k));
}

/* What an inode's item says of blocks follows from its extents, and would differ with unlike ones. */
static void test_logical__inodes_say_nothing_of_blocks(void **state)
{
	struct keys *a = open_memory(), *b = open_memory();
	uint64_t in_a = make(a, "f"), in_b = make(b, "f");
	struct logical_walk wa = { .k = a }, wb = { .k = b };
	struct logical_item ia, ib;
	struct keys_attr at_a, at_b;

	(void)state;
	write_plainly(a, in_a);
	ok(keys_fallocate(b, in_b, 0, 0, (uint64_t)(BLOCKS + 50) * BLOCK_SIZE, 0));
	write_plainly(b, in_b);
	ok(keys_setattr(b, in_b, &(struct keys_setattr){ .mask = KEYS_SET_SIZE, .size = (uint64_t)BLOCKS * BLOCK_SIZE }, &at_b));
	ok(keys_fallocate(b, in_b, FALLOC_FL_KEEP_SIZE, (uint64_t)BLOCKS * BLOCK_SIZE, BLOCK_SIZE, 0));
	ok(keys_getattr(a, in_a, &at_a));
	ok(keys_getattr(b, in_b, &at_b));
	assert_int_equal(at_a.size, at_b.size);
	assert_int_not_equal(at_a.blocks, at_b.blocks);
	/* Names are hashed with another seed in each, which shows in the hint at where the file is. */
	at_b.where = at_a.where;
	ok(keys_restore_attr(b, &at_b));
	ok(logical_get(&wa, item_key(in_a, ITEM_INODE, 0), &ia));
	ok(logical_get(&wb, item_key(in_b, ITEM_INODE, 0), &ib));
	assert_int_equal(ia.len, ib.len);
	assert_int_equal(logical_digest(&ia, 0), logical_digest(&ib, 0));
	/* The key is in the digest: two items cannot be exchanged. */
	ib.key.hi ^= 1 << 8;
	assert_int_not_equal(logical_digest(&ia, 0), logical_digest(&ib, 0));
	ok(keys_close(a));
	ok(keys_close(b));
}

static void test_logical__keys(void **state)
{
	const uint64_t last = WINDOW_LAST;

	(void)state;
	assert_false(logical_key_valid((struct key){ 0, 0 }));
	assert_false(logical_key_valid((struct key){ KIND_SPACE, 0 }));
	assert_true(logical_key_valid((struct key){ KIND_ORPHAN, 5 }));
	assert_false(logical_key_valid((struct key){ KIND_SPACE + 16, 0 }));
	assert_true(logical_key_valid(item_key(1, ITEM_INODE, 0)));
	assert_false(logical_key_valid(item_key(1, ITEM_INODE, 1)));
	assert_true(logical_key_valid(item_key(1, ITEM_XATTR, 77)));
	assert_true(logical_key_valid(item_key(1, ITEM_DIRENT, UINT64_MAX)));
	assert_false(logical_key_valid(item_key(1, ITEM_EXTENT + 1, 0)));
	assert_true(logical_key_valid(item_key(1, ITEM_EXTENT, WINDOW_BLOCKS)));
	assert_false(logical_key_valid(item_key(1, ITEM_EXTENT, WINDOW_BLOCKS + 1)));
	assert_true(logical_key_valid(item_key(1, ITEM_EXTENT, last)));
	assert_false(logical_key_valid(item_key(1, ITEM_EXTENT, last + WINDOW_BLOCKS)));
	assert_true(logical_key_valid(item_key(INO_MAX - 2, ITEM_INODE, 0)));
	assert_false(logical_key_valid(item_key(INO_MAX - 1, ITEM_INODE, 0)));
	assert_int_equal(key_cmp(logical_after(item_key(7, ITEM_XATTR, 3)), item_key(7, ITEM_XATTR, 4)), 0);
	assert_int_equal(key_cmp(logical_after(item_key(7, ITEM_DIRENT, UINT64_MAX)), item_key(7, ITEM_DIRENT + 1, 0)), 0);
	assert_int_equal(key_cmp(logical_after(item_key(7, ITEM_EXTENT, 0)), item_key(7, ITEM_EXTENT, WINDOW_BLOCKS)), 0);
	assert_int_equal(key_cmp(logical_after(item_key(7, ITEM_EXTENT, last)), item_key(7, ITEM_EXTENT + 1, 0)), 0);
	assert_true(logical_is_bound(item_key(7, ITEM_EXTENT, WINDOW_BLOCKS)));
	assert_false(logical_is_bound(item_key(7, ITEM_EXTENT, 1)));
	assert_true(logical_is_bound(item_key(7, ITEM_XATTR, 1)));
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_logical__windows_say_nothing_of_places),
	cmocka_unit_test(test_logical__one_other_byte_is_seen),
	cmocka_unit_test(test_logical__holes_and_unwritten_blocks),
	cmocka_unit_test(test_logical__a_walk_meets_each_item_once_in_order),
	cmocka_unit_test(test_logical__a_walk_goes_on_anywhere_and_keeps_its_bound),
	cmocka_unit_test(test_logical__inodes_say_nothing_of_blocks),
	cmocka_unit_test(test_logical__keys),
};

int main(void)
{
	return cmocka_run_group_tests_name("logical", tests, NULL, NULL);
}
