/* SPDX-License-Identifier: MIT
 *
 * diff_crash: what B shows until a diff is applied is its old state: at every message, after a kill, after a power cut in
 * the midst of applying it, after an abort anywhere, without space. A direct diff goes on where it was interrupted. And
 * with threads nothing is durable before the rebase is.
 *
 *   SEED=n    the first case
 *   CASES=n   how many of each kind
 *   ONLY=name one test
 */
#include "tests/unit/pair_util.h"
#include "tests/unit/random_util.h"

#include "core/keys/keys_int.h"
#include "core/keys/logical.h"
#include "core/store/store_int.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define B_MAX      (24ull << 20)        /* B's file in cases that are cut */
#define CUT_MAX    (96u << 20)          /* larger than any of them */

static const struct keys_cred cred = { 0, 0, 022 };

/* While it is staged, B is what it was ------------------------------------------------------------------------------- */

static struct {
	uint64_t old, new;              /* digests */
	uint64_t seq_old, seq_new;
	unsigned tried, was_new;
} two;

/* A file as a kill or a power cut left it. */
static void assert_old_or_new(const char *path, bool old_only, const char *what)
{
	struct keys *k = pair_open(path, 0);
	uint64_t d = pair_digest(k), seq_now = store_seq(k->store);
	bool is_new = d == two.new && seq_now == two.seq_new;

	if (!(d == two.old && seq_now == two.seq_old) && !is_new)
		fail_msg("%s: neither old nor new, change %llu", what, (unsigned long long)seq_now);
	if (old_only && two.old != two.new && is_new)
		fail_msg("%s: new too early", what);
	two.was_new += is_new;
	two.tried++;
	pair_clean(k, what);
	assert_int_equal(keys_close(k), 0);
}

static int look_and_kill(void)
{
	if (pair_digest(ln.b) != two.old)
		fail_msg("B changed before it was told to");
	pair_clean(ln.b, "meanwhile");
	if (random_below(3) == 0) {
		scratch_copy(path_b, path_c);
		assert_old_or_new(path_c, true, "killed in the middle");
	}
	/* Checkpoints of the old state with blocks staged. */
	if (random_below(3) == 0) {
		store_edited(ln.b->store, 0);
		assert_int_equal(store_checkpoint(ln.b->store), 0);
	}
	return 0;
}

static void note_two(struct keys *a, struct keys *b)
{
	memset(&two, 0, sizeof two);
	two.old = pair_digest(b);
	two.new = pair_digest(a);
	two.seq_old = store_seq(b->store);
	two.seq_new = store_seq(a->store);
}

static void test_diff_crash__old_state_until_applied(void **state)
{
	uint64_t i;

	(void)state;
	for (i = 0; i < pair_cases; i++) {
		struct keys *a, *b;

		pair_case("old", i, 2);
		pair_make(i % 2 ? PAIR_OLDER : PAIR_OTHER, B_MAX, &a, &b);
		assert_int_equal(store_checkpoint(a->store), 0);
		note_two(a, b);
		carry_begin(a, b, false, 3);
		ln.at_message = look_and_kill;
		carry_ready(carry_run());
		carry_ready(diff_target_apply(ln.t));
		assert_int_equal(pair_digest(b), two.new);
		scratch_copy(path_b, path_c);
		assert_old_or_new(path_c, false, "killed after it");
		assert_int_equal(two.was_new, 1);
		carry_end();
		pair_drop(a, b);
	}
}

/* Power cuts while it is applied. The disk of B: what was synced, and any part of what was not. */
static struct {
	bool on;
	uint8_t *disk;
	uint64_t size;
	int fd;
	unsigned images;
} cut;

static void cut_write(const uint8_t *now, unsigned how)
{
	int fd = open(path_c, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint64_t p;

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, cut.disk, cut.size, 0), (ssize_t)cut.size);
	for (p = 0; p < cut.size; p += 512) {
		bool take = how == 0 ? false : how == 1 ? true : how == 2 ? random_below(2) : random_below(20) == 0;

		if (take && memcmp(now + p, cut.disk + p, 512) != 0)
			assert_int_equal(pwrite(fd, now + p, 512, (off_t)p), 512);
	}
	(void)close(fd);
}

static int cut_sync(void *ctx, void *addr, size_t len)
{
	const struct map *m = &ln.b->store->map;
	uint64_t off = (uint64_t)((uint8_t *)addr - m->base);
	unsigned how;

	(void)ctx;
	if (!cut.disk)
		return 0;
	for (how = 0; cut.on && how < 4; how++) {
		cut.size = map_blocks(m) << BLOCK_SHIFT;
		cut_write(m->base, how);
		cut.on = false;
		assert_old_or_new(path_c, false, "power cut");
		cut.on = true;
		cut.images++;
	}
	memcpy(cut.disk + off, m->base + off, len);
	return 0;
}

static void test_diff_crash__power_cut_while_applying(void **state)
{
	uint64_t i;

	(void)state;
	for (i = 0; i < pair_cases; i++) {
		struct keys *a, *b;
		unsigned was_new;

		pair_case("cut", i, 3);
		pair_make(i % 2 ? PAIR_OLDER : PAIR_OTHER, B_MAX, &a, &b);
		/* Changes that only the journal has. */
		pair_scribble(b, 10);
		assert_int_equal(store_sync(b->store), 0);
		pair_fill(a, 1 << 20, false);
		assert_int_equal(store_checkpoint(a->store), 0);
		note_two(a, b);
		/* All that is in the file is on disk; what comes from now on is not. */
		cut.disk = calloc(1, CUT_MAX);
		assert_non_null(cut.disk);
		memcpy(cut.disk, b->store->map.base, map_blocks(&b->store->map) << BLOCK_SHIFT);
		carry_begin(a, b, false, 20);
		b->store->sys.sync = cut_sync;
		carry_ready(carry_run());
		cut.on = true;
		carry_ready(diff_target_apply(ln.t));
		cut.on = false;
		assert_true(cut.images > 0);
		was_new = two.was_new;
		cut.size = map_blocks(&b->store->map) << BLOCK_SHIFT;
		cut_write(b->store->map.base, 0);
		assert_old_or_new(path_c, false, "after it");
		assert_int_equal(two.was_new, was_new + 1);
		free(cut.disk);
		cut.disk = NULL;
		carry_end();
		pair_drop(a, b);
	}
}

/* Aborts ------------------------------------------------------------------------------------------------------------ */

static void test_diff_crash__abort_leaves_the_old_state(void **state)
{
	uint64_t i;

	(void)state;
	for (i = 0; i < pair_cases * 2; i++) {
		struct keys *a, *b;
		uint64_t old, seq_old, used;
		int r;

		pair_case("abort", i, 4);
		pair_make(i % 2 ? PAIR_OLDER : PAIR_OTHER, 0, &a, &b);
		old = pair_digest(b);
		seq_old = store_seq(b->store);
		used = store_space(b->store)->used;
		carry_begin(a, b, false, 1 + (unsigned)random_below(4));
		ln.stops = true;
		ln.stop_at = random_below(40);
		r = carry_run();
		assert_true(r == -ECANCELED || r == 0);
		carry_end();
		assert_int_equal(pair_digest(b), old);
		assert_int_equal(store_seq(b->store), seq_old);
		assert_int_equal(store_space(b->store)->used, used);
		pair_clean(b, "aborted");
		pair_scribble(b, 20);
		pair_clean(b, "aborted, and went on");
		/* A later one succeeds. */
		carry_all(a, b, false);
		pair_drop(a, b);
	}
}

static void test_diff_crash__direct_goes_on_after_an_interruption(void **state)
{
	uint64_t i;

	(void)state;
	for (i = 0; i < pair_cases; i++) {
		struct diff_progress first, second;
		struct keys *a, *b;
		int r;

		pair_case("direct", i, 5);
		pair_make(i % 2 ? PAIR_NEW : PAIR_OTHER, 0, &a, &b);
		carry_begin(a, b, true, 2);
		ln.stops = true;
		ln.stop_at = 6 + random_below(30);
		r = carry_run();
		assert_true(r == -ECANCELED || r == 0);
		diff_target_progress(ln.t, &first);
		carry_end();
		if (random_below(2)) {
			(void)store_checkpoint(b->store);
			scratch_copy(path_b, path_c);
			assert_int_equal(keys_close(b), 0);
			scratch_copy(path_c, path_b);
			b = pair_open(path_b, 0);
		}
		if (random_below(2))
			pair_grow(10);
		carry_begin(a, b, true, 5);
		carry_ready(carry_run());
		carry_ready(diff_target_apply(ln.t));
		diff_target_progress(ln.t, &second);
		pair_same(ln.snapshot, b);
		carry_end();
		pair_clean(b, "direct, in two parts");
		pair_drop(a, b);
	}
}

/* (D3) Interrupted anywhere, a direct diff that goes on still compares the bytes. */
static void test_diff_crash__direct_proves_contents_after_an_interruption(void **state)
{
	static uint8_t data[64 * BLOCK_SIZE];
	unsigned at, aborted = 1;

	(void)state;
	memset(data, 7, sizeof data);
	for (at = 1; aborted; at++) {
		struct keys_attr attr;
		struct window w;
		struct keys *a, *b;
		uint64_t next;
		uint8_t *p;
		size_t n;
		int r;

		pair_case("contents", at, 19);
		(void)unlink(path_a);
		a = pair_open(path_a, 0);
		assert_int_equal(keys_make(a, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
		assert_int_equal(keys_write(a, attr.ino, 0, data, sizeof data, 0, &n), 0);
		pair_copy(&a, &b);
		assert_int_equal(window_get(b, attr.ino, 0, &w, &next), 0);
		p = store_blocks(b->store, w.block[20], 1, &r);
		p[100] ^= 1;
		assert_int_equal(keys_write(a, attr.ino, 0, data, 1, 0, &n), 0);
		carry_begin(a, b, true, 5);
		ln.stops = true;
		ln.stop_at = at;
		r = carry_run();
		aborted = r == -ECANCELED;
		carry_end();
		carry_all(a, b, true);
		assert_int_equal(keys_close(a), 0);
		assert_int_equal(keys_close(b), 0);
	}
	assert_true(at > 6);
}

/* No space ---------------------------------------------------------------------------------------------------------- */

static void test_diff_crash__no_space_leaves_the_old_state(void **state)
{
	static uint8_t data[1 << 20];
	uint64_t i;

	(void)state;
	for (i = 0; i < pair_cases; i++) {
		struct keys *a, *b;
		uint64_t old;
		struct keys_attr attr;
		size_t n;
		unsigned f;
		int r;

		pair_case("full", i, 7);
		pair_make(PAIR_OTHER, (8ull << 20) + random_below(8) * (1ull << 20), &a, &b);
		for (f = 0; f < 4; f++) {
			char name[16];
			unsigned at;

			(void)snprintf(name, sizeof name, "big%u", f);
			r = keys_make(a, 1, name, strlen(name), S_IFREG | 0644, 0, &cred, &attr);
			assert_true(r == 0 || r == -EEXIST);
			for (at = 0; r == 0 && at < 4; at++) {
				memset(data, (int)(f * 16 + at), sizeof data);
				assert_int_equal(keys_write(a, attr.ino, (uint64_t)at << 20, data, sizeof data, 0, &n), 0);
			}
		}
		old = pair_digest(b);
		carry_begin(a, b, false, 5);
		r = carry_run();
		if (r == 0)
			r = diff_target_apply(ln.t);
		assert_int_equal(r, -ENOSPC);
		carry_end();
		assert_int_equal(store_failed(b->store), 0);
		assert_int_equal(pair_digest(b), old);
		pair_clean(b, "full");
		pair_scribble(b, 20);
		assert_int_equal(keys_close(a), 0);
		assert_int_equal(keys_close(b), 0);
		work_release(&pair_work);
	}
}

/* With ever more room in B: either it fits, or nothing happened. */
static void test_diff_crash__every_size_fits_or_not(void **state)
{
	uint64_t size, fitted = 0, full = 0, late = 0;

	(void)state;
	for (size = 0; size < 24; size++) {
		struct keys *a, *b;
		uint64_t old;
		int r;

		pair_case("sizes", 0, 8);
		pair_make(PAIR_OTHER, (8ull << 20) + size * (256u << 10), &a, &b);
		pair_fill(a, size % 2 ? 3 << 20 : 7 << 20, size % 2);
		old = pair_digest(b);
		carry_begin(a, b, false, 5);
		r = carry_run();
		if (r == 0) {
			r = diff_target_apply(ln.t);
			late += r == -ENOSPC;
		}
		if (r != 0 && r != -ENOSPC)
			fail_msg("%d: %s", r, err_last());
		assert_int_equal(store_failed(b->store), 0);
		if (r == 0)
			pair_same(ln.snapshot, b);
		else
			assert_int_equal(pair_digest(b), old);
		fitted += r == 0;
		full += r < 0;
		carry_end();
		pair_clean(b, "of some size");
		pair_drop(a, b);
	}
	print_message("# fitted %llu, full %llu, of these %llu only when it was applied\n", (unsigned long long)fitted,
		      (unsigned long long)full, (unsigned long long)late);
}

/* Threads: the checkpoint of the rebase is written in the background ------------------------------------------------- */

static atomic_bool progressed;

static void on_progress(void *ctx)
{
	(void)ctx;
	atomic_store(&progressed, true);
}

static void test_diff_crash__nothing_is_durable_before_the_rebase_is(void **state)
{
	uint64_t i;

	(void)state;
	for (i = 0; i < pair_cases; i++) {
		struct store_options o = { .path = path_b, .create = true, .threads = true, .progress = on_progress };
		struct keys_attr attr;
		struct keys *a, *b;
		bool rebasing;
		uint64_t seq;
		int r;

		pair_case("rebase", i, 11);
		pair_make(PAIR_OTHER, 0, &a, &b);
		pair_scribble(b, 50);
		/* B's own changes may have higher numbers than A's, all of them durable. */
		while (i % 2 == 0 && store_seq(b->store) < store_seq(a->store) + 20)
			pair_scribble(b, 50);
		assert_int_equal(keys_close(b), 0);
		assert_int_equal(keys_open(&o, &b), 0);
		pair_scribble(b, 5);
		store_sync_request(b->store);
		carry_begin(a, b, false, 5);
		carry_ready(carry_run());
		seq = store_seq(ln.snapshot->store);
		do {
			(void)store_poll(b->store);
			store_sync_request(b->store);
			r = diff_target_apply(ln.t);
		} while (r == -EAGAIN);
		carry_ready(r);
		assert_int_equal(store_seq(b->store), seq);
		do {
			uint64_t durable = store_durable_seq(b->store);

			store_sync_request(b->store);
			rebasing = store_rebasing(b->store);
			/* Durable only by its checkpoint, which is told before; the flag goes a moment later. */
			assert_true(durable < seq || store_checkpoint_seq(b->store) >= seq);
			if (rebasing && durable < seq) {
				r = store_reserve(b->store, 1, true);
				assert_true(r == -EAGAIN || !store_rebasing(b->store));
			}
		} while (rebasing);
		pair_wait_rebase(b);
		assert_int_equal(store_durable_seq(b->store), seq);
		pair_same(ln.snapshot, b);
		carry_end();
		do {
			(void)store_poll(b->store);
			r = keys_make(b, 1, "after", 5, S_IFREG | 0644, 0, &cred, &attr);
		} while (r == -EAGAIN);
		assert_int_equal(r, 0);
		assert_int_equal(store_seq(b->store), seq + 1);
		assert_int_equal(store_sync(b->store), 0);
		assert_int_equal(store_durable_seq(b->store), seq + 1);
		/* A kill: the record behind the fresh start is found. */
		scratch_copy(path_b, path_c);
		pair_drop(a, b);
		b = pair_open(path_c, 0);
		assert_int_equal(store_seq(b->store), seq + 1);
		assert_int_equal(keys_lookup(b, 1, "after", 5, &attr), 0);
		pair_clean(b, "a copy after the rebase");
		assert_int_equal(keys_close(b), 0);
	}
}

/* The owner's last word before the checkpoint fails: the store has failed, on disk is the old state. */
static void test_diff_crash__failing_commit_is_final(void **state)
{
	struct keys *a, *b;
	uint64_t old;

	(void)state;
	pair_case("commit", 0, 12);
	pair_make(PAIR_OTHER, 0, &a, &b);
	old = pair_digest(b);
	carry_begin(a, b, false, 5);
	carry_ready(carry_run());
	ln.fail_commit = true;
	assert_int_equal(diff_target_apply(ln.t), -EIO);
	assert_int_equal(store_failed(b->store), -EIO);
	carry_drop();
	(void)keys_close(b);
	b = pair_open(path_b, 0);
	assert_int_equal(pair_digest(b), old);
	pair_clean(b, "after a failure");
	pair_drop(a, b);
}

#define T(name) cmocka_unit_test_setup_teardown(name, pair_setup, pair_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_diff_crash__old_state_until_applied),
		T(test_diff_crash__power_cut_while_applying),
		T(test_diff_crash__abort_leaves_the_old_state),
		T(test_diff_crash__direct_goes_on_after_an_interruption),
		T(test_diff_crash__direct_proves_contents_after_an_interruption),
		T(test_diff_crash__no_space_leaves_the_old_state),
		T(test_diff_crash__every_size_fits_or_not),
		T(test_diff_crash__nothing_is_durable_before_the_rebase_is),
		T(test_diff_crash__failing_commit_is_final),
	};

	pair_begin();
	return cmocka_run_group_tests_name("diff_crash", tests, NULL, NULL);
}
