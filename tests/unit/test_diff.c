/* SPDX-License-Identifier: MIT
 *
 * diff: whatever B was, after a diff A and B hold the same items, byte for byte, and B is clean for check, also after it was
 * opened again. No more is sent than differs; what changed is told. And peers that send anything.
 *
 *   SEED=n    the first case
 *   CASES=n   how many of each kind
 *   ONLY=name one test
 *   BYTES=n   keys in the store of the test that counts bytes (100000)
 *   MIB=n     size of the first sync that is measured (16)
 */
#include "tests/unit/pair_util.h"
#include "tests/unit/random_util.h"

#include "core/keys/edit.h"
#include "core/keys/keys_int.h"
#include "core/store/store_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const struct keys_cred cred = { 0, 0, 022 };

static void test_diff__all_become_equal(void **state)
{
	uint64_t i;

	(void)state;
	for (i = 0; i < pair_cases * PAIR_ORIGINS; i++) {
		struct keys *a, *b;
		char text[512];
		uint64_t d;

		pair_case("equal", i, 1);
		pair_make((enum pair_origin)(i % PAIR_ORIGINS), 0, &a, &b);
		carry_all(a, b, i % PAIR_ORIGINS == PAIR_NEW && random_below(2));
		/* What B shows is what the model says of A. */
		if (work_compare(&pair_work, b, work_now(&pair_work), text, sizeof text) < 0)
			fail_msg("%s", text);
		d = pair_digest(b);
		assert_int_equal(keys_close(b), 0);
		b = pair_open(path_b, 0);
		assert_int_equal(pair_digest(b), d);
		/* And it goes on from there: changes, another diff. */
		pair_scribble(b, 20);
		pair_grow(30);
		carry_all(a, b, false);
		pair_drop(a, b);
	}
}

static void test_diff__change_meanwhile_is_noticed(void **state)
{
	struct keys_attr attr;
	struct keys *a, *b;

	(void)state;
	pair_case("meanwhile", 0, 6);
	pair_make(PAIR_OTHER, 0, &a, &b);
	carry_begin(a, b, false, 5);
	carry_ready(carry_run());
	assert_int_equal(keys_make(b, 1, "new", 3, S_IFREG | 0644, 0, &cred, &attr), 0);
	assert_int_equal(diff_target_apply(ln.t), -ESTALE);
	carry_end();
	pair_clean(b, "changed meanwhile");
	pair_drop(a, b);
}

/* Peers that send anything ------------------------------------------------------------------------------------------- */

static void test_diff__damaged_messages_do_no_harm(void **state)
{
	unsigned refused = 0, passed = 0;
	uint64_t i;

	(void)state;
	for (i = 0; i < pair_cases * 20; i++) {
		static struct keys *a, *b;
		uint64_t old;
		int r;

		if (i % 20 == 0) {
			if (a)
				pair_drop(a, b);
			pair_case("hostile", i, 9);
			pair_make((enum pair_origin)(i / 20 % PAIR_ORIGINS), 0, &a, &b);
		}
		old = pair_digest(b);
		carry_begin(a, b, false, 5);
		ln.hostile = true;
		r = carry_run();
		if (r < 0) {
			refused++;
			carry_end();
			assert_int_equal(store_failed(b->store), 0);
			assert_int_equal(pair_digest(b), old);
			pair_clean(b, "refused");
		} else {
			passed++;
			r = diff_target_apply(ln.t);
			assert_true(r == 0 || r == -ENOSPC);
			carry_end();
			pair_lenient = true;
			/* Strange, but whole: it can be walked, closed, opened, and repaired by an honest diff. */
			assert_int_equal(store_failed(b->store), 0);
			(void)pair_digest(b);
			assert_int_equal(keys_close(b), 0);
			b = pair_open(path_b, 0);
			carry_any(a, b, false);
			pair_scribble(b, 10);
		}
		if (i + 1 == pair_cases * 20) {
			pair_drop(a, b);
			a = b = NULL;
		}
	}
	print_message("# %u refused, %u passed\n", refused, passed);
}

/* Contents that changed on the way are no contents; those that are damaged at the source are, and known as damaged. */
static void test_diff__damage_on_the_way_is_refused(void **state)
{
	static uint8_t data[3 * BLOCK_SIZE];
	struct diff_progress progress;
	struct keys_attr attr;
	struct iovec iov[4];
	struct window w;
	struct keys *a, *b;
	uint64_t next;
	uint8_t *p;
	size_t n;
	int r, count;

	(void)state;
	pair_case("on the way", 0, 20);
	a = pair_open(path_a, 0);
	b = pair_open(path_b, 0);
	assert_int_equal(keys_make(a, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
	memset(data, 7, sizeof data);
	assert_int_equal(keys_write(a, attr.ino, 0, data, sizeof data, 0, &n), 0);
	carry_begin(a, b, false, 5);
	ln.garble = true;
	assert_int_equal(carry_run(), -EPROTO);
	carry_end();
	assert_int_equal(window_get(a, attr.ino, 0, &w, &next), 0);
	p = store_blocks(a->store, w.block[1], 1, &r);
	p[100] ^= 1;
	carry_begin(a, b, false, 5);
	carry_ready(carry_run());
	diff_target_progress(ln.t, &progress);
	assert_int_equal(progress.damaged_blocks, 1);
	carry_ready(diff_target_apply(ln.t));
	carry_end();
	assert_int_equal(keys_read(b, attr.ino, 0, BLOCK_SIZE, iov, 4, &count, &n), 0);
	assert_int_equal(keys_read(b, attr.ino, BLOCK_SIZE, BLOCK_SIZE, iov, 4, &count, &n), -EUCLEAN);
	assert_int_equal(keys_read(b, attr.ino, 2 * BLOCK_SIZE, BLOCK_SIZE, iov, 4, &count, &n), 0);
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* Contents that differ although checksums and layout are equal: only the bytes tell. */
static void test_diff__equal_checksums_prove_nothing(void **state)
{
	static uint8_t data[64 * BLOCK_SIZE];
	struct keys_attr attr;
	struct window w;
	struct keys *a, *b;
	uint64_t next;
	uint8_t *p;
	size_t n;
	int r;

	(void)state;
	pair_case("checksums", 0, 10);
	a = pair_open(path_a, 0);
	assert_int_equal(keys_make(a, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
	memset(data, 7, sizeof data);
	assert_int_equal(keys_write(a, attr.ino, 0, data, sizeof data, 0, &n), 0);
	pair_copy(&a, &b);
	assert_int_equal(window_get(b, attr.ino, 0, &w, &next), 0);
	p = store_blocks(b->store, w.block[20], 1, &r);
	p[100] ^= 1;
	/* The inode is the same: nobody looks at the bytes. */
	carry_begin(a, b, false, 5);
	carry_ready(carry_run());
	carry_end();
	assert_int_equal(p[100], 7 ^ 1);
	/* It was written: the bytes are compared, and this block is fetched. */
	assert_int_equal(keys_write(a, attr.ino, 0, data, 1, 0, &n), 0);
	carry_all(a, b, false);
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* What reaping took from an orphan was not counted down; here the orphan is a file again. */
static void test_diff__half_reaped_orphan_comes_back(void **state)
{
	struct keys_attr attr, after;
	struct keys *a, *b;
	uint32_t nlink;
	uint64_t ino;
	unsigned i;
	size_t n;

	(void)state;
	pair_case("orphan", 0, 18);
	a = pair_open(path_a, 0);
	assert_int_equal(keys_make(a, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
	for (i = 0; i < 600; i++)
		assert_int_equal(keys_write(a, attr.ino, (uint64_t)i * 2 * BLOCK_SIZE, "x", 1, 0, &n), 0);
	pair_copy(&a, &b);
	assert_int_equal(keys_unlink(b, 1, "f", 1, &ino, &nlink), 0);
	assert_int_equal(keys_reap(b, ino), 1);
	carry_all(a, b, false);
	assert_int_equal(keys_getattr(b, ino, &after), 0);
	assert_int_equal(after.blocks, 600);
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* Where name and value fill their items to the last byte, one more follows, which is empty. */
static void test_diff__empty_part_of_an_attribute_comes(void **state)
{
	uint8_t value[XATTR_CHUNK] = { 1 };
	struct keys_attr attr;
	struct keys *a, *b;

	(void)state;
	pair_case("attribute", 0, 21);
	a = pair_open(path_a, 0);
	b = pair_open(path_b, 0);
	assert_int_equal(keys_make(a, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
	assert_int_equal(keys_setxattr(a, attr.ino, "user.a", value, XATTR_CHUNK - strlen("user.a"), 0, false), 0);
	carry_all(a, b, false);
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* Contents before their inode. */
static void test_diff__edits_come_in_any_order(void **state)
{
	static struct logical_walk w;
	struct logical_item item;
	uint8_t value[LOGICAL_MAX];
	struct window window;
	struct keys_attr attr;
	uint64_t block, got;
	struct keys *k;
	size_t n;
	int r;

	(void)state;
	k = pair_open(path_a, 0);
	assert_int_equal(keys_make(k, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
	assert_int_equal(keys_write(k, attr.ino, 0, path_a, 1, 0, &n), 0);
	assert_int_equal(keys_write(k, attr.ino, 20000, path_a, 1, 0, &n), 0);
	logical_begin(&w, k, (struct key){ 0, 0 });
	assert_int_equal(logical_get(&w, item_key(attr.ino, ITEM_INODE, 0), &item), 0);
	memcpy(value, item.value, item.len);
	n = item.len;
	assert_int_equal(store_rebase_ready(k->store, 100), 0);
	assert_int_equal(edit_del(k, item.key), 0);
	assert_int_equal(edit_del(k, item.key), -ENOENT);
	memset(&window, 0, sizeof window);
	assert_int_equal(edit_window(k, attr.ino, 0, &window), 0);
	assert_int_equal(store_stage(k->store, 1, &block, &got), 0);
	memset(store_blocks(k->store, block, 1, &r), 0, BLOCK_SIZE);
	window.kind[2] = WINDOW_DATA;
	window.block[2] = block;
	window.csum[2] = block_csum(store_blocks(k->store, block, 1, &r), attr.ino, 2);
	window.kind[5] = window.kind[6] = WINDOW_UNWRITTEN;
	assert_int_equal(edit_window(k, attr.ino, 0, &window), 0);
	assert_int_equal(edit_put(k, item_key(attr.ino, ITEM_INODE, 0), value, (uint32_t)n), 0);
	assert_int_equal(keys_getattr(k, attr.ino, &attr), 0);
	assert_int_equal(attr.blocks, 3);
	/* And what cannot be. */
	assert_int_equal(edit_put(k, item_key(1, ITEM_INODE, 0), value, (uint32_t)n), -EUCLEAN);        /* a root that is a file */
	assert_int_equal(edit_del(k, item_key(1, ITEM_INODE, 0)), -EUCLEAN);
	assert_int_equal(edit_put(k, (struct key){ KIND_SPACE, 0 }, value, 8), -EUCLEAN);
	assert_int_equal(edit_del(k, (struct key){ KIND_SPACE, 0 }), -EUCLEAN);
	assert_int_equal(edit_put(k, item_key(attr.ino, ITEM_EXTENT, 0), value, 28), -EUCLEAN);
	assert_int_equal(edit_put(k, item_key(INO_MAX, ITEM_INODE, 0), value, (uint32_t)n), -EUCLEAN);
	assert_int_equal(edit_put(k, item_key(attr.ino, ITEM_XATTR, 0), value, LOGICAL_MAX), -EUCLEAN);
	assert_int_equal(edit_window(k, 0, 0, &window), -EUCLEAN);
	assert_int_equal(edit_window(k, attr.ino, 1, &window), -EUCLEAN);
	assert_int_equal(edit_window(k, attr.ino, WINDOW_LAST + WINDOW_BLOCKS, &window), -EUCLEAN);
	window.block[2] = 7;
	assert_int_equal(edit_window(k, attr.ino, 0, &window), -EUCLEAN);       /* not staged */
	pair_clean(k, "edited");
	assert_int_equal(keys_close(k), 0);
}

/* Bytes ------------------------------------------------------------------------------------------------------------- */

static void test_diff__few_changes_cost_few_bytes(void **state)
{
	const uint64_t keys = env_number("BYTES", 100000);
	uint64_t i, all = 0;
	uint64_t *inos = calloc(keys, sizeof *inos);
	struct diff_progress p;
	static struct logical_walk w;
	struct logical_item item;
	struct timespec t0, t1, t2;
	struct keys_attr attr;
	uint8_t data[100];
	char name[32];
	struct keys *a, *b;
	size_t wrote;

	(void)state;
	pair_case("bytes", 0, 13);
	assert_non_null(inos);
	a = pair_open(path_a, 0);
	for (i = 0; i < keys; i++) {
		(void)snprintf(name, sizeof name, "key number %llu", (unsigned long long)i);
		assert_int_equal(keys_make(a, 1, name, strlen(name), S_IFREG | 0644, 0, &cred, &attr), 0);
		memset(data, (int)i, sizeof data);
		assert_int_equal(keys_write(a, attr.ino, 0, data, sizeof data, 0, &wrote), 0);
		inos[i] = attr.ino;
		if (i % 1000 == 0)
			(void)store_poll(a->store);
	}
	pair_copy(&a, &b);
	for (i = 0; i < keys / 100; i++) {
		memset(data, (int)random_below(256), sizeof data);
		assert_int_equal(keys_write(a, inos[random_below(keys)], 0, data, sizeof data, 0, &wrote), 0);
	}
	free(inos);
	carry_begin(a, b, false, 20);
	(void)clock_gettime(CLOCK_MONOTONIC, &t0);
	carry_ready(carry_run());
	(void)clock_gettime(CLOCK_MONOTONIC, &t1);
	carry_ready(diff_target_apply(ln.t));
	(void)clock_gettime(CLOCK_MONOTONIC, &t2);
	diff_target_progress(ln.t, &p);
	logical_begin(&w, ln.snapshot, (struct key){ 0, 0 });
	while (logical_next(&w, LOGICAL_END, &item) > 0)
		all += 16 + item.len;
	print_message("# %llu keys: %llu bytes of items, %llu received (%.2f %%), %llu sent; %llu of %llu ranges, %llu edits; "
		      "%.0f ms compared, %.1f ms applied\n",
		      (unsigned long long)keys, (unsigned long long)all, (unsigned long long)p.received_bytes,
		      100.0 * (double)p.received_bytes / (double)all, (unsigned long long)p.sent_bytes,
		      (unsigned long long)p.ranges_differ, (unsigned long long)p.ranges, (unsigned long long)p.items_differ,
		      (double)(t1.tv_sec - t0.tv_sec) * 1e3 + (double)(t1.tv_nsec - t0.tv_nsec) / 1e6,
		      (double)(t2.tv_sec - t1.tv_sec) * 1e3 + (double)(t2.tv_nsec - t1.tv_nsec) / 1e6);
	assert_true(p.received_bytes + p.sent_bytes < all * 3 / 100);
	pair_same(ln.snapshot, b);
	carry_end();
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* The first sync of MIB=n, with threads and the disk; by hand. */
static void test_diff__first_sync_is_as_fast_as_the_disk(void **state)
{
	const uint64_t mib = env_number("MIB", 16);
	uint64_t i;
	const struct store_options o = { .path = path_a, .create = true, .threads = true };
	struct store_options to = o;
	static uint8_t data[1 << 20];
	struct timespec t[3];
	struct keys_attr attr;
	struct keys *a, *b;
	size_t wrote;
	int r;

	(void)state;
	pair_case("first sync", 0, 17);
	to.path = path_b;
	assert_int_equal(keys_open(&o, &a), 0);
	assert_int_equal(keys_make(a, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
	for (i = 0; i < mib; i++) {
		memset(data, (int)i, sizeof data);
		do {
			(void)store_poll(a->store);
			r = keys_write(a, attr.ino, i << 20, data, sizeof data, 0, &wrote);
		} while (r == -EAGAIN);
		assert_int_equal(r, 0);
	}
	assert_int_equal(keys_close(a), 0);
	a = pair_open(path_a, 0);
	assert_int_equal(keys_open(&to, &b), 0);
	carry_begin(a, b, true, 20);
	(void)clock_gettime(CLOCK_MONOTONIC, &t[0]);
	carry_ready(carry_run());
	(void)clock_gettime(CLOCK_MONOTONIC, &t[1]);
	do {
		(void)store_poll(b->store);
		r = diff_target_apply(ln.t);
	} while (r == -EAGAIN);
	carry_ready(r);
	pair_wait_rebase(b);
	(void)clock_gettime(CLOCK_MONOTONIC, &t[2]);
	print_message("# %llu MiB: here after %.2f s, on disk after %.2f s\n", (unsigned long long)mib,
		      (double)(t[1].tv_sec - t[0].tv_sec) + (double)(t[1].tv_nsec - t[0].tv_nsec) / 1e9,
		      (double)(t[2].tv_sec - t[0].tv_sec) + (double)(t[2].tv_nsec - t[0].tv_nsec) / 1e9);
	pair_same(ln.snapshot, b);
	carry_end();
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* A megabyte-size file in which a few blocks changed: only these come. */
static void test_diff__only_changed_blocks_come(void **state)
{
	static uint8_t data[1 << 20];
	struct diff_progress p;
	struct keys_attr attr;
	struct keys *a, *b;
	unsigned i;
	size_t n;

	(void)state;
	pair_case("blocks", 0, 14);
	a = pair_open(path_a, 0);
	assert_int_equal(keys_make(a, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
	for (i = 0; i < 32; i++) {
		memset(data, (int)i, sizeof data);
		assert_int_equal(keys_write(a, attr.ino, (uint64_t)i << 20, data, sizeof data, 0, &n), 0);
	}
	pair_copy(&a, &b);
	for (i = 0; i < 5; i++)
		assert_int_equal(keys_write(a, attr.ino, (uint64_t)i * 5000000 + 5, "changed", 7, 0, &n), 0);
	carry_begin(a, b, false, 5);
	carry_ready(carry_run());
	diff_target_progress(ln.t, &p);
	assert_int_equal(p.staged_blocks, 5);
	assert_true(p.received_bytes < 5 * (BLOCK_SIZE + 4000) + 1000);
	carry_ready(diff_target_apply(ln.t));
	pair_same(ln.snapshot, b);
	carry_end();
	pair_clean(b, "five blocks");
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* Two stores in memory; the primary goes on while its checkpoint is read, and gives nothing of it out again. */
static struct keys *busy;

static int go_on(void)
{
	pair_scribble(busy, 3);
	(void)store_checkpoint(busy->store);
	return 0;
}

static void test_diff__primary_goes_on_meanwhile(void **state)
{
	uint64_t i, d;

	(void)state;
	for (i = 0; i < pair_cases; i++) {
		struct keys *a = pair_open(":memory:", 0), *b = pair_open(":memory:", 0);

		pair_case("busy", i, 16);
		pair_fill(a, 2 << 20, false);
		pair_scribble(a, 200);
		pair_scribble(b, 50);
		busy = a;
		carry_begin(a, b, false, 2);
		d = pair_digest(a);
		ln.at_message = go_on;
		carry_ready(carry_run());
		carry_ready(diff_target_apply(ln.t));
		pair_same(ln.snapshot, b);
		assert_int_equal(pair_digest(b), d);
		carry_end();
		pair_clean(b, "from a busy primary");
		assert_int_equal(keys_close(a), 0);
		assert_int_equal(keys_close(b), 0);
	}
}

/* What changed is told, by name and by inode. */
static struct diff_change told[64];
static char told_names[64][64];
static unsigned told_count;

static void tell(void *ctx, const struct diff_change *c)
{
	(void)ctx;
	assert_true(told_count < ARRAY_LEN(told));
	told[told_count] = *c;
	(void)snprintf(told_names[told_count], sizeof told_names[0], "%.*s", c->name ? (int)c->len : 0, c->name ? c->name : "");
	told_count++;
}

static bool was_told(uint64_t ino, const char *name)
{
	unsigned i;

	for (i = 0; i < told_count; i++)
		if (told[i].ino == ino && !told[i].name == !name && (!name || strcmp(told_names[i], name) == 0))
			return true;
	return false;
}

static void test_diff__changes_are_told(void **state)
{
	const struct diff_target_options to = { .send = carry_to_source, .changed = tell };
	struct keys_attr keep, change, gone, made;
	struct keys *a, *b;
	uint32_t nlink;
	uint64_t ino;
	size_t n;

	(void)state;
	pair_case("told", 0, 15);
	a = pair_open(path_a, 0);
	assert_int_equal(keys_make(a, 1, "keep", 4, S_IFREG | 0644, 0, &cred, &keep), 0);
	assert_int_equal(keys_make(a, 1, "change", 6, S_IFREG | 0644, 0, &cred, &change), 0);
	assert_int_equal(keys_make(a, 1, "gone", 4, S_IFREG | 0644, 0, &cred, &gone), 0);
	pair_copy(&a, &b);
	assert_int_equal(keys_write(a, change.ino, 0, "x", 1, 0, &n), 0);
	assert_int_equal(keys_unlink(a, 1, "gone", 4, &ino, &nlink), 0);
	assert_int_equal(keys_make(a, 1, "made", 4, S_IFREG | 0644, 0, &cred, &made), 0);
	carry_begin(a, b, false, 5);
	diff_target_free(ln.t);
	assert_int_equal(diff_target_new(b, &to, &ln.t), 0);
	told_count = 0;
	carry_ready(carry_run());
	assert_int_equal(told_count, 0);
	carry_ready(diff_target_apply(ln.t));
	assert_true(was_told(1, NULL) && was_told(1, "gone") && was_told(1, "made") && was_told(change.ino, NULL) &&
		    was_told(gone.ino, NULL) && was_told(made.ino, NULL));
	assert_false(was_told(keep.ino, NULL) || was_told(1, "keep") || was_told(1, "change"));
	carry_end();
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, pair_setup, pair_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_diff__all_become_equal),
		T(test_diff__change_meanwhile_is_noticed),
		T(test_diff__damaged_messages_do_no_harm),
		T(test_diff__damage_on_the_way_is_refused),
		T(test_diff__equal_checksums_prove_nothing),
		T(test_diff__half_reaped_orphan_comes_back),
		T(test_diff__empty_part_of_an_attribute_comes),
		T(test_diff__edits_come_in_any_order),
		T(test_diff__few_changes_cost_few_bytes),
		T(test_diff__first_sync_is_as_fast_as_the_disk),
		T(test_diff__only_changed_blocks_come),
		T(test_diff__primary_goes_on_meanwhile),
		T(test_diff__changes_are_told),
	};

	pair_begin();
	return cmocka_run_group_tests_name("diff", tests, NULL, NULL);
}
