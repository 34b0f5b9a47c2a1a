/* SPDX-License-Identifier: MIT
 *
 * test_stream: dump and load: what was dumped is there after a load, to the nanosecond and to the hole; the same contents
 * give the same bytes; what fails or is stopped leaves no store. SEED=n replays the random tests.
 */
#include "tests/unit/dump_util.h"
#include "tests/unit/ok_util.h"
#include "tests/unit/random_util.h"

#include "core/keys/item.h"
#include "core/stream/stream_int.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <zstd.h>

/* Round trips -------------------------------------------------------------------------------------------------------- */

static void round_trip(struct keys *ka)
{
	struct dump first = dump_store(ka), second;
	struct keys *kb = dump_load_ok(first, dump_b);

	dump_same(ka, kb);
	second = dump_store(kb);
	assert_int_equal(first.len, second.len);
	assert_memory_equal(first.p, second.p, first.len);
	ok(keys_close(kb));
	assert_int_equal(unlink(dump_b), 0);
	free(first.p);
	free(second.p);
}

static void test_stream__an_empty_store(void **state)
{
	struct keys *k = dump_open(":memory:", true);

	(void)state;
	round_trip(k);
	ok(keys_close(k));
}

static void test_stream__random_trees(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < 6; i++) {
		struct keys *k;

		random_restart(dump_seed + i);
		k = dump_random_store(":memory:", 40 + 60 * i);
		round_trip(k);
		ok(keys_close(k));
	}
	assert_int_equal(dump_files(), 0);
}

/* A loaded store works on: new things get new numbers, what is there can be changed and removed. */
static void test_stream__a_loaded_store_goes_on(void **state)
{
	const struct keys_cred cred = { 0 };
	struct keys *k, *kb;
	struct dump b;
	struct keys_attr a, was;
	uint64_t ino = 0, next;

	(void)state;
	k = dump_random_store(":memory:", 100);
	next = store_counts(keys_store(k))->next_ino;
	b = dump_store(k);
	kb = dump_load_ok(b, dump_b);
	ok(keys_close(kb));
	kb = dump_open(dump_b, true);
	ok(keys_make(kb, KEYS_ROOT_INO, "new", 3, S_IFREG | 0600, 0, &cred, &a));
	assert_int_equal(a.ino, next);
	while ((ino = dump_next(kb, ino)) != 0) {
		ok(keys_getattr(kb, ino, &was));
		if (S_ISREG(was.mode))
			dump_random_contents(kb, ino);
		dump_random_xattrs(kb, ino, S_ISLNK(was.mode));
	}
	ok(keys_close(kb));
	kb = dump_open(dump_b, false);
	free(b.p);
	b = dump_store(kb);
	free(b.p);
	ok(keys_close(kb));
	ok(keys_close(k));
	assert_int_equal(unlink(dump_b), 0);
}

/* The order of names is the stream's own, so how they came into the store does not show. */
static void test_stream__history_does_not_show(void **state)
{
	const struct keys_cred cred = { 0 };
	struct dump b[2];
	unsigned i, j;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct keys *k = dump_open(":memory:", true);
		struct keys_setattr set = { .mask = KEYS_SET_ATIME | KEYS_SET_MTIME | KEYS_SET_CTIME };
		struct keys_attr a, root;
		size_t n;

		ok(keys_make(k, KEYS_ROOT_INO, "f", 1, S_IFREG | 0600, 0, &cred, &a));
		for (j = 0; j < 200; j++) {
			char name[16];
			uint8_t page[BLOCK_SIZE];
			/* Both ways round: in order and against it. */
			unsigned m = i ? 199 - j : j;

			snprintf(name, sizeof name, "name%u", m);
			ok(keys_link(k, a.ino, KEYS_ROOT_INO, name, strlen(name), &root));
			snprintf(name, sizeof name, "user.%u", m);
			ok(keys_setxattr(k, a.ino, name, name, strlen(name), 0, false));
			memset(page, (int)m, sizeof page);
			ok(keys_write(k, a.ino, (uint64_t)m * sizeof page, page, sizeof page, false, &n));
		}
		ok(keys_setattr(k, a.ino, &set, &a));
		ok(keys_setattr(k, KEYS_ROOT_INO, &set, &root));
		b[i] = dump_store(k);
		ok(keys_close(k));
	}
	/* Only the birth times may differ: 2 inodes, at the beginning of the first frame. */
	assert_int_equal(get_le32(b[0].p + STREAM_HEADER + FRAME_LEN), get_le32(b[1].p + STREAM_HEADER + FRAME_LEN));
	for (i = 0; i < 2; i++) {
		static uint8_t raw[2][FRAME_RAW];
		uint32_t len = get_le32(b[i].p + STREAM_HEADER + FRAME_LEN);
		uint8_t *p = raw[i];
		size_t n = ZSTD_decompress(raw[i], FRAME_RAW, b[i].p + STREAM_HEADER + FRAME_HEADER,
					   get_le32(b[i].p + STREAM_HEADER + FRAME_PACKED));

		assert_int_equal(n, len);
		while (p < raw[i] + len) {
			if (get_le32(p + ITEM_KIND) == STREAM_INODE) {
				memset(p + ITEM_HEADER + SI_NSEC + 12, 0, 4);
				memset(p + ITEM_HEADER + SI_SEC + 24, 0, 8);
			}
			p += ITEM_HEADER + get_le32(p + ITEM_LEN);
		}
		if (i == 1)
			assert_memory_equal(raw[0], raw[1], len);
	}
	free(b[0].p);
	free(b[1].p);
}

/* Dumps of a store that nobody closed, and of one that somebody has open. */
static void test_stream__a_store_that_was_killed(void **state)
{
	struct keys *k, *ka, *kb;
	struct dump b;
	pid_t pid;
	int status;

	(void)state;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		k = dump_random_store(dump_a, 120);
		_exit(k ? 0 : 1);       /* no keys_close(): as kill -9 leaves it */
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	ka = dump_open(dump_a, false);
	b = dump_store(ka);
	kb = dump_load_ok(b, dump_b);
	dump_same(ka, kb);
	ok(keys_close(kb));
	ok(keys_close(ka));
	free(b.p);
	assert_int_equal(unlink(dump_a), 0);
	assert_int_equal(unlink(dump_b), 0);
}

static void test_stream__a_snapshot_while_written_to(void **state)
{
	struct store_options o = { .path = dump_a, .read_only = true, .snapshot = true };
	const struct keys_cred cred = { 0 };
	struct dump before, during;
	struct keys *k, *snap;
	struct keys_attr a;
	unsigned i;

	(void)state;
	k = dump_random_store(dump_a, 100);
	ok(store_checkpoint(keys_store(k)));
	before = dump_store(k);
	o.snapshot = false;
	assert_int_equal(keys_open(&o, &snap), -EBUSY);
	o.snapshot = true;
	ok(keys_open(&o, &snap));
	for (i = 0; i < 200; i++) {
		uint64_t ino = 0;
		char name[16];

		snprintf(name, sizeof name, "late%u", i);
		ok(keys_make(k, KEYS_ROOT_INO, name, strlen(name), S_IFREG | 0644, 0, &cred, &a));
		while (i % 50 == 0 && (ino = dump_next(k, ino)) != 0) {
			ok(keys_getattr(k, ino, &a));
			if (S_ISREG(a.mode))
				dump_random_contents(k, ino);
			ok(store_poll(keys_store(k)));
		}
		if (i % 10 == 0)
			ok(store_checkpoint(keys_store(k)));
	}
	during = dump_store(snap);
	assert_int_equal(before.len, during.len);
	assert_memory_equal(before.p, during.p, before.len);
	ok(keys_close(snap));
	ok(keys_close(k));
	free(before.p);
	free(during.p);
	assert_int_equal(unlink(dump_a), 0);
}

/* Failing otherwise ---------------------------------------------------------------------------------------------------- */

static void test_stream__what_is_there_stays(void **state)
{
	struct dump b = dump_random(5);
	int fd = open(dump_b, O_CREAT | O_WRONLY | O_EXCL | O_CLOEXEC, 0600);
	struct stat st;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "mine", 4), 4);
	close(fd);
	assert_int_equal(dump_load(dump_b, b.p, b.len, 0), -EEXIST);
	assert_int_equal(stat(dump_b, &st), 0);
	assert_int_equal(st.st_size, 4);
	assert_int_equal(unlink(dump_b), 0);
	free(b.p);
}

static void test_stream__a_store_too_small(void **state)
{
	struct keys *k = dump_open(":memory:", true);
	struct dump b;

	(void)state;
	dump_big_file(k, 20u << 20);
	b = dump_store(k);
	ok(keys_close(k));
	assert_int_equal(dump_load(dump_b, b.p, b.len, DUMP_SMALL), -ENOSPC);
	assert_int_equal(dump_files(), 0);
	k = dump_load_ok(b, dump_b);
	ok(keys_close(k));
	assert_int_equal(unlink(dump_b), 0);
	free(b.p);
}

static int stop_at_once(void *ctx, const struct stream_counts *counts)
{
	(void)ctx;
	(void)counts;
	return -EINTR;
}

static void test_stream__stopped(void **state)
{
	const struct stream_watch watch = { stop_at_once, NULL };
	struct stream_target target = { .path = dump_b };
	struct stream_counts counts;
	struct dump b = dump_random(100);
	int fd = dump_file(b.p, b.len);

	(void)state;
	assert_int_equal(stream_load(&target, fd, &watch, &counts), -EINTR);
	assert_int_equal(dump_files(), 0);
	close(fd);
	free(b.p);
}

static void test_stream__the_disk_of_the_stream_is_full(void **state)
{
	struct stream_counts counts;
	struct keys *k;
	int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	(void)state;
	/* Not skip(): "not ok" in cmocka's TAP. */
	if (fd < 0) {
		print_message("# left out: no /dev/full\n");
		return;
	}
	k = dump_random_store(":memory:", 20);
	assert_int_equal(stream_dump(k, fd, NULL, &counts), -ENOSPC);
	ok(keys_close(k));
	close(fd);
}

/* Names in order, however few fit at once. */
static int see_name(void *ctx, const struct sorted_name *n)
{
	struct sorted_name *last = ctx;
	int order = last->name ? memcmp(last->name, n->name, min_u64(last->len, n->len)) : -1;

	assert_true(order < 0 || (order == 0 && last->len < n->len));
	last->value_len++;              /* counts */
	last->name = n->name;
	last->len = n->len;
	return 0;
}

static void test_stream__names_in_many_passes(void **state)
{
	static const size_t keeps[] = { 1, 2, 7, 64, 499, 500, 501, 100000 };
	const struct keys_cred cred = { 0 };
	struct keys *k = dump_open(":memory:", true);
	struct keys_attr a;
	unsigned i;

	(void)state;
	for (i = 0; i < 500; i++) {
		char name[300];
		unsigned len = 1 + rnd(rnd(4) ? 12 : 250);

		memset(name, 'a', len);
		snprintf(name + len, 8, "%u", i);
		ok(keys_make(k, KEYS_ROOT_INO, name, min_u64(strlen(name), 255), S_IFREG | 0644, 0, &cred, &a));
	}
	for (i = 0; i < ARRAY_LEN(keeps); i++) {
		struct sorted_name last = { 0 };

		ok(sorted_names(store_tree(keys_store(k)), item_key(KEYS_ROOT_INO, ITEM_DIRENT, 0).hi, keeps[i],
				see_name, &last));
		assert_int_equal(last.value_len, 500);
	}
	ok(keys_close(k));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_stream__an_empty_store, dump_fresh),
		cmocka_unit_test_setup(test_stream__random_trees, dump_fresh),
		cmocka_unit_test_setup(test_stream__a_loaded_store_goes_on, dump_fresh),
		cmocka_unit_test_setup(test_stream__history_does_not_show, dump_fresh),
		cmocka_unit_test_setup(test_stream__a_store_that_was_killed, dump_fresh),
		cmocka_unit_test_setup(test_stream__a_snapshot_while_written_to, dump_fresh),
		cmocka_unit_test_setup(test_stream__what_is_there_stays, dump_fresh),
		cmocka_unit_test_setup(test_stream__a_store_too_small, dump_fresh),
		cmocka_unit_test_setup(test_stream__stopped, dump_fresh),
		cmocka_unit_test_setup(test_stream__the_disk_of_the_stream_is_full, dump_fresh),
		cmocka_unit_test_setup(test_stream__names_in_many_passes, dump_fresh),
	};

	if (dump_begin() < 0)
		return 1;
	return dump_end(cmocka_run_group_tests_name("stream", tests, NULL, NULL));
}
