/* SPDX-License-Identifier: MIT
 *
 * test_ahead: a checkpoint that the disk does not get done: changes wait before the journal since the last one, and with it the
 * next opening, grow without bound (P3); when it is done they go on.
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
#include <time.h>
#include <unistd.h>

#define STORE_BYTES (400ull << 20)

static char path[SCRATCH_PATH];
static const struct keys_cred cred = { 0 };
static _Atomic bool shut;               /* no msync returns */

static void nap(void)
{
	const struct timespec t = { 0, 1000000 };

	(void)nanosleep(&t, NULL);
}

static int a_sync(void *ctx, void *addr, size_t len)
{
	(void)ctx;
	(void)addr;
	(void)len;
	while (atomic_load(&shut))
		nap();
	return 0;
}

static uint64_t make(struct keys *k, const char *name)
{
	struct keys_attr a;

	assert_int_equal(keys_make(k, KEYS_ROOT_INO, name, strlen(name), S_IFREG | 0644, 0, &cred, &a), 0);
	return a.ino;
}

/* A write that rides in its record. */
static int write_small(struct keys *k, uint64_t ino, unsigned i)
{
	uint8_t data[BLOCK_SIZE];
	size_t n;

	memset(data, (int)i, sizeof data);
	assert_int_equal(store_poll(keys_store(k)), 0);
	return keys_write(k, ino, (uint64_t)(i % 16) * BLOCK_SIZE, data, sizeof data, 0, &n);
}

static void test_ahead__journal_is_bounded(void **state)
{
	struct sys_ops sys = sys_linux;
	const struct store_options o = { .path = path, .create = true, .threads = true, .sys = &sys };
	struct store_status st;
	uint64_t ino, large;
	struct keys *k;
	unsigned i;
	int r;

	(void)state;
	sys.sync = a_sync;
	assert_int_equal(keys_open(&o, &k), 0);
	ino = make(k, "f");
	/* Room enough that nothing but the journal's length can hold it up. */
	large = make(k, "large");
	while ((r = keys_fallocate(k, large, 0, 0, STORE_BYTES, 0)) == -EAGAIN) {
		nap();
		assert_int_equal(store_poll(keys_store(k)), 0);
	}
	assert_int_equal(r, 0);
	do {
		struct keys_setattr set = { .mask = KEYS_SET_SIZE };
		struct keys_attr a;

		r = keys_setattr(k, large, &set, &a);
		nap();
		assert_int_equal(store_poll(keys_store(k)), 0);
	} while (r == -EAGAIN);
	assert_int_equal(r, 0);
	while (store_checkpoint(keys_store(k)) == -EAGAIN || store_is_writing(keys_store(k))) {
		nap();
		assert_int_equal(store_poll(keys_store(k)), 0);
	}
	assert_int_equal(store_poll(keys_store(k)), 0);
	atomic_store(&shut, true);
	for (i = 0; (r = write_small(k, ino, i)) == 0; i++)
		;
	assert_int_equal(r, -EAGAIN);
	store_status(keys_store(k), &st);
	assert_true(st.journal_pos - st.checkpoint_pos > JOURNAL_AHEAD);
	assert_true(st.journal_pos - st.checkpoint_pos < JOURNAL_DUE + JOURNAL_AHEAD + (4u << 20));
	atomic_store(&shut, false);
	while ((r = write_small(k, ino, i)) == -EAGAIN)
		nap();
	assert_int_equal(r, 0);
	assert_int_equal(keys_close(k), 0);
}

static int setup(void **state)
{
	(void)state;
	if (scratch_make_on_disk("ahead") < 0)
		return -1;
	scratch_path(path, "store");
	return 0;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_ahead__journal_is_bounded),
};

int main(void)
{
	return cmocka_run_group_tests_name("ahead", tests, setup, scratch_teardown);
}
