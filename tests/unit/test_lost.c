/* SPDX-License-Identifier: MIT
 *
 * lost: the store's file is cut short by somebody else while it is worked on, at random moments and places: a page that
 * the mapping had raises SIGBUS in whichever thread touches it. The call that met it ends with -EIO, the store has failed,
 * changes get EROFS, reads give what can be verified or an error, nothing crashes, and closing says so.
 *
 *   SEED=n         another series of moments      FAULT_LONG=1    a longer one
 */
#include "tests/unit/random_util.h"
#include "tests/unit/scratch_util.h"

#include "core/base.h"
#include "core/keys/keys.h"
#include "core/store/map.h"
#include "core/store/store.h"
#include "core/stream/stream.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <cmocka.h>

#define FILES      24u
#define FILE_BYTES 60000u
#define STEPS_AFTER 5000u

/* What a guarded call had allocated when it was left is leaked, as map.h says. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

static char path[SCRATCH_PATH];
static uint64_t seed;
static atomic_bool is_cut;
static const struct keys_cred cred = { 0, 0, 022 };

static void on_fault(int sig, siginfo_t *info, void *context)
{
	struct sigaction deadly = { .sa_handler = SIG_DFL };
	const ucontext_t *was = context;

	map_fault(info->si_addr, &was->uc_sigmask);
	sigaction(sig, &deadly, NULL);
}

/* In each test: cmocka takes the signal for itself before. */
static void catch_faults(void)
{
	struct sigaction act = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	sigaction(SIGBUS, &act, NULL);
}

static void nap(uint64_t us)
{
	(void)nanosleep(&(struct timespec){ .tv_nsec = (long)us * 1000 }, NULL);
}

/* Work: until it is cut short --------------------------------------------------------------------------------------- */

struct job {
	struct keys *k;
	uint64_t ino[FILES];
	unsigned steps;
	int last;                       /* what the last call returned */
};

static void fill(uint8_t *data, uint64_t ino, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		data[i] = (uint8_t)(ino * 31 + i * 7 + i / 4096);
}

/* Reads are whole and right, or an error. */
static int read_file(struct job *j, unsigned i)
{
	static uint8_t want[FILE_BYTES];
	struct iovec iov[64];
	size_t bytes, at = 0;
	int count, c, r = keys_read(j->k, j->ino[i], 0, FILE_BYTES, iov, 64, &count, &bytes);

	if (r < 0)
		return r;
	fill(want, j->ino[i], sizeof want);
	for (c = 0; c < count && at < bytes; at += iov[c++].iov_len)
		if (memcmp(iov[c].iov_base, want + at, iov[c].iov_len) != 0)
			return -EBADMSG;
	return 0;
}

static int step(struct job *j)
{
	static uint8_t data[FILE_BYTES];
	unsigned i = (unsigned)random_below(FILES);
	struct keys_attr a;
	char name[16];
	uint64_t gone;
	uint32_t nlink;
	size_t n;

	(void)snprintf(name, sizeof name, "f%u", i);
	switch (random_below(5)) {
	case 0:
		if (j->ino[i] == 0)
			return 0;
		j->last = keys_unlink(j->k, KEYS_ROOT_INO, name, strlen(name), &gone, &nlink);
		if (j->last == 0)
			j->ino[i] = 0;
		while (j->last == 0 && (j->last = keys_reap(j->k, gone)) == 1)
			j->last = 0;
		return j->last;
	case 1:
		return j->ino[i] ? read_file(j, i) : 0;
	case 2:
		store_sync_request(keys_store(j->k));
		return random_below(3) ? 0 : store_checkpoint(keys_store(j->k));
	case 3:
		return store_poll(keys_store(j->k));
	default:
		if (j->ino[i])
			return 0;
		j->last = keys_make(j->k, KEYS_ROOT_INO, name, strlen(name), S_IFREG | 0644, 0, &cred, &a);
		if (j->last < 0)
			return j->last;
		fill(data, a.ino, sizeof data);
		j->last = keys_write(j->k, a.ino, 0, data, sizeof data, false, &n);
		if (j->last == 0 && n == sizeof data)
			j->ino[i] = a.ino;
		return j->last;
	}
}

static int work(void *arg)
{
	struct job *j = arg;
	int r = 0;

	/* If nothing that it needs is gone, it goes on. */
	while (!store_failed(keys_store(j->k)) && j->steps < STEPS_AFTER) {
		j->steps += atomic_load(&is_cut);
		r = step(j);
		if (r == -EBADMSG)
			return r;
	}
	return 0;
}

/* Everything once more, of a store that has failed. */
static int look(void *arg)
{
	struct job *j = arg;
	struct keys_attr a;
	unsigned i;
	int r;

	while (j->steps < FILES) {
		i = j->steps++;
		r = j->ino[i] ? read_file(j, i) : 0;
		/* ENOENT and the like: what was in memory only may be half changed. */
		if (r == -EBADMSG)
			return r;
	}
	if (j->steps++ > FILES)
		return 0;
	r = keys_make(j->k, KEYS_ROOT_INO, "more", 4, S_IFREG | 0644, 0, &cred, &a);
	return r < 0 ? 0 : -EBADMSG;
}

/* The hostile neighbour --------------------------------------------------------------------------------------------- */

struct cut {
	uint64_t after_us, to;
	bool grow_again;
};

static void *cutter(void *arg)
{
	struct cut *c = arg;
	struct stat st;

	nap(c->after_us);
	check(stat(path, &st) == 0);
	check(truncate(path, (off_t)min_u64(c->to, (uint64_t)st.st_size - BLOCK_SIZE)) == 0);
	if (c->grow_again)
		check(truncate(path, st.st_size) == 0);
	atomic_store(&is_cut, true);
	return NULL;
}

static void check_gone(struct job *j, uint64_t byte)
{
	int r;

	if (!store_lost(keys_store(j->k), &byte))
		return;                 /* found damaged before a page was missing */
	store_left_halfway(keys_store(j->k));
	j->steps = 0;
	/* Each call may meet another page that is gone. */
	while ((r = map_guard(look, j)) == -EIO)
		;
	if (r != 0)
		fail_msg("SEED=%llu: wrong bytes, or a change, after the store was lost", (unsigned long long)seed);
	assert_int_equal(store_failed(keys_store(j->k)), -EIO);
}

static void run(const struct cut *plan, bool first)
{
	const struct store_options o = { .path = path, .create = true, .threads = true, .sync_interval_s = 1 };
	struct cut cut = *plan;
	struct job j = { 0 };
	struct keys *k;
	pthread_t t;
	int r;

	if (first)
		(void)unlink(path);
	assert_int_equal(keys_open(&o, &j.k), 0);
	atomic_store(&is_cut, false);
	assert_int_equal(pthread_create(&t, NULL, cutter, &cut), 0);
	r = map_guard(work, &j);
	(void)pthread_join(t, NULL);
	if (r == -EBADMSG && !cut.grow_again)
		fail_msg("SEED=%llu: wrong bytes were read", (unsigned long long)seed);
	check_gone(&j, 0);
	r = keys_close(j.k);
	if (!cut.grow_again)
		assert_int_equal(r, -EIO);
	/* Whatever is left of it: an error, or a store. */
	r = keys_open(&o, &k);
	if (r == 0)
		(void)keys_close(k);
	else
		assert_true(r == -EUCLEAN || r == -EMEDIUMTYPE || r == -ENODATA);
	(void)unlink(path);
}

static void test_lost__cut_at_any_moment(void **state)
{
	unsigned i, rounds = getenv("FAULT_LONG") ? 400 : 40;

	(void)state;
	catch_faults();
	for (i = 0; i < rounds; i++) {
		struct cut cut = { .after_us = random_below(20000) };

		/* To nothing, somewhere in the middle, or just a page of the end. */
		cut.to = i % 3 == 0 ? 0 : i % 3 == 1 ? random_below(33u << 20) : (32u << 20) - 4096;
		run(&cut, true);
	}
}

/* With holes in place of everything: what is met there is damage. */
static void test_lost__cut_and_made_long_again(void **state)
{
	unsigned i, rounds = getenv("FAULT_LONG") ? 100 : 10;

	(void)state;
	catch_faults();
	for (i = 0; i < rounds; i++) {
		struct cut cut = { .after_us = random_below(20000), .grow_again = true };

		cut.to = i % 2 == 0 ? 0 : random_below(8u << 20);
		run(&cut, true);
	}
}

/* Nobody touches what is gone: the next sync finds out all the same. */
static void test_lost__sync_of_a_file_cut_short(void **state)
{
	const struct store_options o = { .path = path, .create = true };
	struct keys_attr a;
	struct keys *k;
	uint64_t byte = 0;
	struct stat st;

	(void)state;
	catch_faults();
	assert_int_equal(keys_open(&o, &k), 0);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, "f", 1, S_IFREG | 0644, 0, &cred, &a), 0);
	assert_int_equal(store_sync(keys_store(k)), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(truncate(path, st.st_size - 4096), 0);
	/* Nothing is dirty; also then a sync says that all is on disk. */
	assert_int_equal(store_sync(keys_store(k)), -EIO);
	assert_true(store_lost(keys_store(k), &byte));
	assert_int_equal(byte, st.st_size - 4096);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, "g", 1, S_IFREG | 0644, 0, &cred, &a), -EROFS);
	assert_int_equal(keys_close(k), -EIO);
	(void)unlink(path);
}

/* A look alone finds out too: no sync, nothing touched. And it is no harm while the file grows and is cut by ourselves. */
static void *look_at_size(void *arg)
{
	struct map *m = arg;

	while (!atomic_load(&is_cut))
		if (map_check_size(m) < 0)
			return m;
	return NULL;
}

static void test_lost__size_is_looked_at_without_a_lock(void **state)
{
	unsigned i, rounds = getenv("FAULT_LONG") ? 20000 : 2000;
	int fd = memfd_create("lost", MFD_CLOEXEC);
	pthread_t t;
	struct map m;
	void *wrong;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(map_open(&m, fd, false, 1u << 30, &sys_linux), 0);
	assert_int_equal(map_grow(&m, 16), 0);
	atomic_store(&is_cut, false);
	assert_int_equal(pthread_create(&t, NULL, look_at_size, &m), 0);
	for (i = 0; i < rounds; i++) {
		assert_int_equal(map_shrink(&m, 8), 0);
		assert_int_equal(map_grow(&m, 8), 0);
	}
	atomic_store(&is_cut, true);
	(void)pthread_join(t, &wrong);
	assert_null(wrong);
	assert_int_equal(map_check_size(&m), 0);
	assert_int_equal(ftruncate(fd, 15 * 4096), 0);
	assert_int_equal(map_check_size(&m), -EIO);
	map_close(&m);
	(void)close(fd);
}

/* We cut it ourselves between the two things that a look compares. */
static struct map *cut_in_look;

static int size_of_cut(void *ctx, int fd, uint64_t *ret_size)
{
	struct map *m = cut_in_look;

	cut_in_look = NULL;
	if (m) {
		check(map_shrink(m, 8) == 0);
		check(sys_linux.size(ctx, fd, ret_size) == 0);
		check(map_grow(m, 8) == 0);
		return 0;
	}
	return sys_linux.size(ctx, fd, ret_size);
}

static void test_lost__own_cut_while_the_size_is_looked_at(void **state)
{
	int fd = memfd_create("lost", MFD_CLOEXEC);
	struct sys_ops sys = sys_linux;
	struct map m;

	(void)state;
	sys.size = size_of_cut;
	assert_true(fd >= 0);
	assert_int_equal(map_open(&m, fd, false, 1u << 30, &sys), 0);
	assert_int_equal(map_grow(&m, 16), 0);
	cut_in_look = &m;
	assert_int_equal(map_check_size(&m), 0);
	assert_int_equal(map_blocks(&m), 16);
	assert_int_equal(map_check_size(&m), 0);
	map_close(&m);
	(void)close(fd);
}

/* The cut comes with an msync, which succeeds all the same. */
static uint64_t cut_in_sync;

static int sync_of_cut(void *ctx, void *addr, size_t len)
{
	if (cut_in_sync > 0)
		check(truncate(path, (off_t)cut_in_sync) == 0);
	cut_in_sync = 0;
	return sys_linux.sync(ctx, addr, len);
}

static void test_lost__cut_while_a_sync_runs(void **state)
{
	struct sys_ops sys = sys_linux;
	const struct store_options o = { .path = path, .create = true, .sys = &sys };
	struct keys_attr a;
	struct keys *k;
	struct stat st;

	(void)state;
	catch_faults();
	sys.sync = sync_of_cut;
	assert_int_equal(keys_open(&o, &k), 0);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, "f", 1, S_IFREG | 0644, 0, &cred, &a), 0);
	assert_int_equal(stat(path, &st), 0);
	cut_in_sync = (uint64_t)st.st_size - 4096;
	assert_int_equal(store_sync(keys_store(k)), -EIO);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, "g", 1, S_IFREG | 0644, 0, &cred, &a), -EROFS);
	assert_int_equal(keys_close(k), -EIO);
	(void)unlink(path);
}

static void test_lost__store_that_is_looked_at(void **state)
{
	const struct store_options o = { .path = path, .create = true };
	struct keys_attr a;
	struct keys *k;
	uint64_t byte = 0;
	struct stat st;

	(void)state;
	catch_faults();
	assert_int_equal(keys_open(&o, &k), 0);
	assert_int_equal(store_check_file(keys_store(k)), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(truncate(path, st.st_size - 4096), 0);
	assert_int_equal(store_check_file(keys_store(k)), -EIO);
	assert_true(store_lost(keys_store(k), &byte) && byte == (uint64_t)st.st_size - 4096);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, "g", 1, S_IFREG | 0644, 0, &cred, &a), -EROFS);
	assert_int_equal(keys_close(k), -EIO);
	(void)unlink(path);
}

/* An empty file is a place for a new store, unless it was one. */
static void test_lost__cut_to_nothing_is_no_new_store(void **state)
{
	const struct store_options o = { .path = path, .create = true }, ro = { .path = path, .read_only = true };
	struct keys *k;
	struct stat st;
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	(void)state;
	assert_true(fd >= 0);
	if (fsetxattr(fd, "user.msyncfs.test", "1", 1, 0) < 0) {
		print_message("# left out: no extended attributes here\n");
		goto out;
	}
	assert_int_equal(keys_open(&o, &k), 0);
	assert_int_equal(keys_close(k), 0);
	assert_int_equal(keys_open(&o, &k), 0);
	assert_int_equal(keys_close(k), 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(keys_open(&o, &k), -ENODATA);
	assert_non_null(strstr(err_last(), "was a store (uuid "));
	assert_int_equal(keys_open(&ro, &k), -ENODATA);
	assert_true(fstat(fd, &st) == 0 && st.st_size == 0);
	/* Nothing that stands there is shown as it is. */
	assert_int_equal(fsetxattr(fd, "user.msyncfs.uuid", "1f\n\33[2J", 7, 0), 0);
	assert_int_equal(keys_open(&o, &k), -ENODATA);
	assert_non_null(strstr(err_last(), "(uuid 1f)"));
	/* A new file of the same name is a new store. */
	assert_int_equal(unlink(path), 0);
	assert_int_equal(keys_open(&o, &k), 0);
	assert_int_equal(keys_close(k), 0);
	/* One that was copied without the attribute gets it. */
	assert_int_equal(removexattr(path, "user.msyncfs.uuid"), 0);
	assert_int_equal(keys_open(&o, &k), 0);
	assert_int_equal(keys_close(k), 0);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(keys_open(&o, &k), -ENODATA);
out:
	(void)close(fd);
	(void)unlink(path);
}

/* Load and salvage: the new store's file, which has no name yet, is cut while it is filled. */

struct cut_target {
	uint64_t after, to;             /* bytes of contents */
	bool done;
};

/* The only file of ours that has no name. */
static void cut_unnamed(uint64_t to)
{
	struct dirent *e;
	DIR *d = opendir("/proc/self/fd");
	unsigned found = 0;

	check(d);
	while ((e = readdir(d))) {
		char name[64];
		struct stat st;

		(void)snprintf(name, sizeof name, "/proc/self/fd/%.20s", e->d_name);
		if (e->d_name[0] == '.' || stat(name, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink > 0 ||
		    st.st_size < 1 << 20)
			continue;
		check(truncate(name, (off_t)to) == 0);
		found++;
	}
	(void)closedir(d);
	check(found > 0);
}

static int watch_and_cut(void *ctx, const struct stream_counts *counts)
{
	struct cut_target *c = ctx;

	if (!c->done && counts->data_bytes >= c->after) {
		c->done = true;
		cut_unnamed(c->to);
	}
	return 0;
}

static void test_lost__load_into_a_file_that_is_cut(void **state)
{
	const struct store_options o = { .path = path, .create = true };
	static uint8_t data[1 << 20];
	char new_path[128], dump_path[128];
	struct stream_target target = { .path = new_path };
	struct stream_counts counts;
	struct keys_attr a;
	struct keys *k;
	unsigned i;
	size_t n;
	int fd;

	(void)state;
	catch_faults();
	(void)snprintf(new_path, sizeof new_path, "%s/new", scratch_folder());
	(void)snprintf(dump_path, sizeof dump_path, "%s/dump", scratch_folder());
	fd = open(dump_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(keys_open(&o, &k), 0);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, "f", 1, S_IFREG | 0644, 0, &cred, &a), 0);
	for (i = 0; i < 12; i++) {
		for (n = 0; n < sizeof data; n += 8)
			put_le64(data + n, random_below(UINT64_MAX));
		assert_int_equal(keys_write(k, a.ino, (uint64_t)i << 20, data, sizeof data, false, &n), 0);
	}
	assert_int_equal(stream_dump(k, fd, NULL, &counts), 0);
	for (i = 0; i < 12; i++) {
		struct cut_target c = { .after = (uint64_t)(1 + i / 2 * 2) << 20, .to = i % 3 == 0 ? 0 : random_below(8u << 20) };
		const struct stream_watch watch = { watch_and_cut, &c };
		int r;

		assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
		r = i % 2 ? stream_load(&target, fd, &watch, &counts) : stream_copy(k, &target, &watch, &counts);
		assert_true(c.done);
		assert_int_equal(r, -EIO);
		assert_true(*err_last() != '\0');
		assert_int_equal(access(new_path, F_OK), -1);
	}
	assert_int_equal(keys_close(k), 0);
	(void)close(fd);
	(void)unlink(dump_path);
	(void)unlink(path);
}

/* Another's superblock in the place of ours: no checkpoint is written over it. */
static void test_lost__superblock_changed_by_somebody(void **state)
{
	const struct store_options o = { .path = path, .create = true };
	uint8_t zeros[8192] = { 0 }, now[8192];
	struct keys_attr a;
	struct keys *k;
	int fd;

	(void)state;
	catch_faults();
	assert_int_equal(keys_open(&o, &k), 0);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, "f", 1, S_IFREG | 0644, 0, &cred, &a), 0);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0 && pwrite(fd, zeros, sizeof zeros, 0) == (ssize_t)sizeof zeros);
	assert_int_equal(store_checkpoint(keys_store(k)), -EUCLEAN);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, "g", 1, S_IFREG | 0644, 0, &cred, &a), -EROFS);
	assert_int_equal(keys_close(k), -EUCLEAN);
	assert_true(pread(fd, now, sizeof now, 0) == (ssize_t)sizeof now && memcmp(now, zeros, sizeof now) == 0);
	(void)close(fd);
	(void)unlink(path);
}

/* A guard in a guard: the inner one is left, the outer one goes on. */
static int touch(void *arg)
{
	return *(volatile uint8_t *)arg;
}

static int touch_and_go_on(void *arg)
{
	return map_guard(touch, arg) == -EIO ? 7 : 0;
}

static void test_lost__guards_nest(void **state)
{
	int fd = memfd_create("lost", MFD_CLOEXEC);
	uint64_t byte = 0;
	struct map m;

	(void)state;
	catch_faults();
	assert_true(fd >= 0);
	assert_int_equal(map_open(&m, fd, false, 1u << 30, &sys_linux), 0);
	assert_int_equal(map_grow(&m, 16), 0);
	assert_int_equal(ftruncate(fd, 8192), 0);
	assert_int_equal(map_guard(touch_and_go_on, map_block(&m, 5)), 7);
	assert_int_equal(map_failed(&m), -EIO);
	assert_true(map_lost(&m, &byte));
	assert_int_equal(byte, 5 * 4096);
	/* The first stays. */
	assert_int_equal(map_guard(touch, map_block(&m, 3)), -EIO);
	assert_true(map_lost(&m, &byte) && byte == 5 * 4096);
	assert_int_equal(map_sync(&m, 0, 1), -EIO);
	map_close(&m);
	(void)close(fd);
}

static int make_dir(void **state)
{
	(void)state;
	if (scratch_make("lost") < 0)
		return -1;
	scratch_path(path, "store");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lost__guards_nest),
		cmocka_unit_test(test_lost__size_is_looked_at_without_a_lock),
		cmocka_unit_test(test_lost__sync_of_a_file_cut_short),
		cmocka_unit_test(test_lost__own_cut_while_the_size_is_looked_at),
		cmocka_unit_test(test_lost__cut_while_a_sync_runs),
		cmocka_unit_test(test_lost__store_that_is_looked_at),
		cmocka_unit_test(test_lost__cut_to_nothing_is_no_new_store),
		cmocka_unit_test(test_lost__load_into_a_file_that_is_cut),
		cmocka_unit_test(test_lost__superblock_changed_by_somebody),
		cmocka_unit_test(test_lost__cut_at_any_moment),
		cmocka_unit_test(test_lost__cut_and_made_long_again),
	};

	seed = random_seed();
	return cmocka_run_group_tests_name("lost", tests, make_dir, scratch_teardown);
}
