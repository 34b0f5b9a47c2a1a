/* SPDX-License-Identifier: MIT
 *
 * test_segments: what the size of a store decides. Its journal has the segments that the size allows, also when the store was closed
 * since it grew, and when what is free lies in crumbs: with fewer each of them is worth a checkpoint, which changes wait for. And
 * its generations have as many tree pages as pay there. No threads; a file with holes on a disk that msyncs nothing, so that size
 * costs nothing.
 */
#include "tests/unit/scratch_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/keys/keys.h"
#include "core/store/store_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LARGE  300000u          /* blocks; more than GROW_EAGER */
#define MEDIUM 200000u          /* less than that, and enough for a generation */

static char path[SCRATCH_PATH];
static struct sys_ops hollow;
static struct keys *keys;
static struct store *store;
static uint64_t file;
static const struct keys_cred cred = { 0, 0, 022 };

static int hollow_allocate(void *ctx, int fd, uint64_t off, uint64_t len)
{
	uint64_t size;
	int r = sys_linux.size(ctx, fd, &size);

	return r == 0 && size < off + len ? sys_linux.truncate(ctx, fd, off + len) : r;
}

static int hollow_sync(void *ctx, void *addr, size_t len)
{
	(void)ctx;
	(void)addr;
	(void)len;
	return 0;
}

static void open_store(void)
{
	struct store_options o = { .path = path, .create = true, .sys = &hollow };
	struct keys_attr a;

	hollow = sys_linux;
	hollow.allocate = hollow_allocate;
	hollow.sync = hollow_sync;
	assert_int_equal(keys_open(&o, &keys), 0);
	store = keys_store(keys);
	if (keys_lookup(keys, KEYS_ROOT_INO, "f", 1, &a) < 0)
		assert_int_equal(keys_make(keys, KEYS_ROOT_INO, "f", 1, S_IFREG | 0644, 0, &cred, &a), 0);
	file = a.ino;
	assert_int_equal(store_poll(store), 0);
}

static void close_store(void)
{
	assert_int_equal(keys_close(keys), 0);
}

static void become_large(void)
{
	assert_int_equal(store_reserve(store, LARGE, false), 0);
	assert_int_equal(store_poll(store), 0);
	assert_true(store->space.total > GROW_EAGER);
}

/* Changes that take `segments` segments of the journal. */
static void fill_segments(unsigned segments)
{
	static uint8_t data[4000];
	jpos_t end = store->journal.tail + ((jpos_t)segments << store->journal.shift);
	size_t n;

	while (store->journal.tail < end) {
		assert_int_equal(keys_write(keys, file, 0, data, sizeof data, 0, &n), 0);
		assert_int_equal(store_poll(store), 0);
	}
}

static uint64_t checkpoints(void)
{
	struct store_status st;

	store_status(store, &st);
	return st.checkpoints;
}

/* All that is free becomes crumbs: too short for a segment, but for what the allocator has at hand. */
static void make_crumbs(void)
{
	uint64_t seg = journal_seg_blocks(&store->journal), first, count, at, n;

	struct { uint64_t first, count; } *got = calloc(LARGE, sizeof *got);
	unsigned used = 0, i;

	assert_non_null(got);
	while (store_stage(store, LARGE, &first, &count) == 0) {
		assert_true(used < LARGE);
		got[used].first = first;
		got[used++].count = count;
	}
	for (i = 0; i < used; i++) {
		for (at = 0; at < got[i].count; at += seg / 2) {
			/* The last block of each piece stays taken. */
			n = min_u64(seg / 2, got[i].count - at) - 1;
			if (n > 0)
				assert_int_equal(store_drop_staged(store, got[i].first + at, n), 0);
		}
	}
	free(got);
}

static void test_segments__a_store_that_was_closed_takes_them_again(void **state)
{
	unsigned keep;

	(void)state;
	open_store();
	become_large();
	close_store();
	open_store();
	assert_true(store->space.total > GROW_EAGER);
	keep = checkpoint_keep_segments(store);
	assert_true(keep > 4 * SPARES);
	/* One that only lies there, or is read, needs few. */
	assert_true(store->journal.count <= SPARES + 1);
	fill_segments(2);
	assert_true(store->journal.count >= keep);
	close_store();
}

static void test_segments__crumbs_are_worth_one_growth(void **state)
{
	uint64_t before, total, grows;
	unsigned keep;

	(void)state;
	open_store();
	become_large();
	close_store();
	open_store();
	make_crumbs();
	before = checkpoints();
	total = store->space.total;
	grows = atomic_load(&store->grows);
	keep = checkpoint_keep_segments(store);
	fill_segments(16);
	assert_int_equal(checkpoints(), before);
	assert_int_equal(atomic_load(&store->grows), grows + 1);
	assert_true(store->space.total <= total + keep * journal_seg_blocks(&store->journal));
	assert_true(store->journal.count >= keep);
	close_store();
}

/* Tree pages of C when the checkpoint is cut that they are the reason of. That nothing leads to them is nobody's business here. */
static uint64_t fill_generation(void)
{
	uint64_t before = checkpoints(), pages = 0;
	block_t block;
	size_t n;

	assert_int_equal(keys_write(keys, file, 0, "x", 1, 0, &n), 0);
	while (checkpoints() == before) {
		assert_int_equal(store_reserve(store, 1, false), 0);
		assert_int_equal(space_alloc_meta(&store->space, &block), 0);
		pages = store->space.changes[1].page_count;
		assert_int_equal(store_poll(store), 0);
	}
	return pages;
}

static void test_generations__are_as_long_as_pays(void **state)
{
	const uint64_t most = (128u << 20) / BLOCK_SIZE, most_large = (64u << 20) / BLOCK_SIZE;
	unsigned i;

	(void)state;
	(void)snprintf(path, sizeof path, ":memory:");
	open_store();
	assert_int_equal(store_reserve(store, MEDIUM, false), 0);
	for (i = 0; i < 2; i++)
		assert_int_equal(fill_generation(), most + 1);
	assert_true(store->space.total <= GROW_EAGER);
	become_large();
	for (i = 0; i < 2; i++)
		assert_int_equal(fill_generation(), most_large + 1);
	close_store();
}

static int set_up(void **state)
{
	(void)state;
	if (scratch_make_on_disk("segments") < 0)
		return -1;
	scratch_path(path, "s");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_segments__a_store_that_was_closed_takes_them_again, set_up, scratch_teardown),
		cmocka_unit_test_setup_teardown(test_segments__crumbs_are_worth_one_growth, set_up, scratch_teardown),
		cmocka_unit_test(test_generations__are_as_long_as_pays),
	};

	return cmocka_run_group_tests_name("segments", tests, NULL, NULL);
}
