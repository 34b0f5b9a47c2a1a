/* SPDX-License-Identifier: MIT
 *
 * fault: every call that the store makes of the system, and every piece of memory it asks for, refused in turn: the n-th
 * call, once or from then on, for n = 1, 2, ... until a run needs fewer. The run makes a store, works on it at random
 * (growth, syncs, checkpoints), closes it; another recovers one that was killed. After each fault: an error that means it,
 * no crash, nothing leaked; a failed msync stays failed; and the next opening finds a prefix with all that was durable.
 *
 *   SEED=n   another workload
 */
#include "tests/unit/crash_util.h"

#include "core/check/check.h"
#include "core/store/store_int.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OWN_MALLOC 0            /* the sanitizer has one of its own */
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC 0
#endif
#ifndef OWN_MALLOC
#define OWN_MALLOC 1
#endif

#define STORE_MAX (24u << 20)
#define SMALL     (8u << 20)
#define CALLS     90u

enum fault { FAULT_NONE, FAULT_ALLOCATE, FAULT_MAP, FAULT_SYNC, FAULT_RANDOM, FAULT_MEMORY };

static struct {
	enum fault what;
	int error;
	unsigned left;                  /* the call that fails, 1 = the next */
	bool forever;
	unsigned fired;
} fault;

static struct work work;
static char dir[64], path[96];
static uint64_t seed, disk_limit;
static unsigned runs;

static int strike(enum fault what)
{
	if (fault.what != what || fault.left == 0 || --fault.left > 0)
		return 0;
	fault.left = fault.forever;
	fault.fired++;
	return fault.error;
}

/* Memory ------------------------------------------------------------------------------------------------------------ */

#if OWN_MALLOC
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);

static bool no_memory(void)
{
	if (fault.what != FAULT_MEMORY || work_own_memory || strike(FAULT_MEMORY) == 0)
		return false;
	errno = ENOMEM;
	return true;
}

void *malloc(size_t size)
{
	return no_memory() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	return no_memory() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	return no_memory() ? NULL : __libc_realloc(p, size);
}
#endif

/* The system -------------------------------------------------------------------------------------------------------- */

static int f_allocate(void *ctx, int fd, uint64_t off, uint64_t len)
{
	int r = strike(FAULT_ALLOCATE);

	(void)ctx;
	if (r == 0 && off + len > disk_limit)
		r = -ENOSPC;
	return r < 0 ? r : sys_linux.allocate(NULL, fd, off, len);
}

static int f_truncate(void *ctx, int fd, uint64_t size)
{
	(void)ctx;
	return sys_linux.truncate(NULL, fd, size);
}

static int f_map(void *ctx, void *addr, size_t len, int fd, uint64_t off, int private_copy)
{
	int r = strike(FAULT_MAP);

	(void)ctx;
	return r < 0 ? r : sys_linux.map(NULL, addr, len, fd, off, private_copy);
}

static int f_unmap(void *ctx, void *addr, size_t len)
{
	(void)ctx;
	return sys_linux.unmap(NULL, addr, len);
}

static int f_sync(void *ctx, void *addr, size_t len)
{
	(void)ctx;
	(void)addr;
	(void)len;
	return strike(FAULT_SYNC);
}

static int f_populate(void *ctx, void *addr, size_t len)
{
	(void)ctx;
	(void)addr;
	(void)len;
	return -EINVAL;         /* advice: never a reason to fail */
}

static uint64_t f_real(void *ctx)
{
	(void)ctx;
	return work.real_ns;
}

static uint64_t f_mono(void *ctx)
{
	(void)ctx;
	return work.mono_ns;
}

static int f_random(void *ctx, void *buf, size_t len)
{
	int r = strike(FAULT_RANDOM);

	(void)ctx;
	if (r == 0)
		memset(buf, 0x5a, len);
	return r;
}

static const struct sys_ops faulty = {
	f_allocate, f_truncate, f_map, f_unmap, f_sync, f_populate, f_real, f_mono, f_random, NULL,
};

static int open_store(bool create, struct keys **ret)
{
	const struct store_options o = { .path = path, .create = create, .max_bytes = create ? STORE_MAX : 0, .sys = &faulty };

	return keys_open(&o, ret);
}

/* What a run leaves behind ------------------------------------------------------------------------------------------ */

struct resources {
	unsigned descriptors;
	uint64_t pages;                 /* of address space */
	bool mapped;                    /* the store, somewhere */
};

static struct resources resources(void)
{
	struct resources r = { 0 };
	char line[512];
	DIR *d = opendir("/proc/self/fd");
	FILE *f;

	check(d);
	while (readdir(d))
		r.descriptors++;
	(void)closedir(d);
	f = fopen("/proc/self/statm", "re");
	check(f && fscanf(f, "%lu", &r.pages) == 1);
	(void)fclose(f);
	f = fopen("/proc/self/maps", "re");
	check(f);
	while (fgets(line, sizeof line, f))
		r.mapped |= strstr(line, dir) != NULL;
	(void)fclose(f);
	return r;
}

static struct resources before;

_Noreturn static void broken(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn static void broken(const char *format, ...)
{
	static const char *const names[] = { "", "allocate", "map", "sync", "random", "memory" };
	enum fault what = fault.what;
	va_list ap;

	fault.what = FAULT_NONE;
	fprintf(stderr, "SEED=%llu, %s: %s %s (run %u), call %llu (%s): ", (unsigned long long)seed, names[what],
		strerror(-fault.error), fault.forever ? "from then on" : "once", runs, (unsigned long long)work.ops, work.text);
	va_start(ap, format);
	(void)vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	(void)unlink(path);
	(void)rmdir(dir);
	abort();
}

static void check_resources(const char *when)
{
	struct resources now = resources();

	if (now.descriptors != before.descriptors)
		broken("%s: %u descriptors, %u before", when, now.descriptors, before.descriptors);
	/* The heap may have grown a little; what a store reserves is far more. */
	if (now.mapped || now.pages > before.pages + (48u << 20) / BLOCK_SIZE)
		broken("%s: something is still mapped", when);
}

/* Runs -------------------------------------------------------------------------------------------------------------- */

static char problem[256];

static void note_problem(void *ctx, const char *text)
{
	(void)ctx;
	if (problem[0] == '\0')
		(void)snprintf(problem, sizeof problem, "%s", text);
}

/* Without faults: it opens, is a state not older than states[from], and whole. */
static void check_store(unsigned from)
{
	const struct check_options o = { .problem = note_problem };
	struct check_report report;
	enum fault what = fault.what;
	char text[1024];
	struct keys *k;
	int r;

	fault.what = FAULT_NONE;
	disk_limit = UINT64_MAX;
	r = open_store(false, &k);
	if (r < 0) {
		fault.what = what;
		broken("opened again: %d: %s", r, err_last());
	}
	r = work_compare(&work, k, from, text, sizeof text);
	if (r < 0)
		broken("opened again: %s", text);
	problem[0] = '\0';
	r = check_run(k, &o, &report);
	if (r < 0 || report.problems > 0)
		broken("check: %d, %llu problems: %s", r, (unsigned long long)report.problems, problem);
	r = keys_close(k);
	if (r < 0)
		broken("closed again: %d", r);
	fault.what = what;
}

/* An error that the fault may lead to. */
static bool fits(int r)
{
	return r == fault.error || (fault.error == -EDQUOT && r == -ENOSPC) || (fault.what == FAULT_ALLOCATE && r == -ENOSPC) ||
	       (fault.what == FAULT_MAP && r == -ENOSPC);
}

/* The store has failed: it says so whatever is asked, and changes nothing more. */
static void check_sticky(struct store *s)
{
	struct keys_setattr set = { .mask = KEYS_SET_UID, .uid = 1 };
	struct keys_attr a;
	seq_t durable = store_durable_seq(s), seq = store_seq(s);
	int failed = store_failed(s);

	if (!fits(failed))
		broken("failed with %d", failed);
	fault.left = 0;                 /* the disk is well again, but nobody trusts it */
	if (store_sync(s) != failed || store_sync(s) != failed)
		broken("a later sync did not fail with %d", failed);
	if (keys_setattr(work.k, KEYS_ROOT_INO, &set, &a) != -EROFS)
		broken("a change of a failed store was not refused");
	if (store_poll(s) != failed || store_checkpoint(s) >= 0)
		broken("a checkpoint of a failed store was not refused");
	if (store_durable_seq(s) != durable || store_seq(s) != seq)
		broken("a failed store became durable");
}

/* One round of work; the result of the last call that can fail for good. */
static int work_on(struct store *s, unsigned i)
{
	int r = 0;

	(void)work_step(&work);
	if (store_failed(s))
		return store_failed(s);
	if (i % 7 == 3)
		r = store_sync(s);
	if (r == 0 && i % 5 == 2)
		r = store_poll(s);
	if (r == 0 && i % 19 == 11)
		r = store_checkpoint(s);
	return r == -ENOSPC || r == -EAGAIN || r == -EBUSY ? 0 : r;
}

static void arm(enum fault what, int error, unsigned n, bool forever)
{
	fault.what = what;
	fault.error = error;
	fault.left = n;
	fault.forever = forever;
	fault.fired = 0;
}

static void disarm(void)
{
	fault.left = 0;
}

/* Nothing is left of a store that could not be made: not its name, and the next try succeeds. */
static void check_not_made(int r)
{
	struct keys *k;

	if (!fits(r))
		broken("creating failed with %d: %s", r, err_last());
	if (access(path, F_OK) == 0)
		broken("creating failed, but left a file");
	disarm();
	r = open_store(true, &k);
	if (r < 0)
		broken("creating again: %d: %s", r, err_last());
	(void)keys_close(k);
	check_resources("made at the second try");
}

/* False if the run made fewer than n calls: there is no more to try. */
static bool run_work(enum fault what, int error, unsigned n, bool forever)
{
	struct store *s;
	struct keys *k;
	unsigned i, from;
	int r, failed;

	runs++;
	(void)unlink(path);
	work_init(&work, seed);
	work.profile = WORK_BIG;
	disk_limit = SMALL;
	before = resources();
	arm(what, error, n, forever);
	r = open_store(true, &k);
	if (r < 0) {
		check_not_made(r);
		work_release(&work);
		return true;
	}
	disk_limit = UINT64_MAX;
	i = fault.left;
	disarm();
	work_attach(&work, k);
	fault.left = i;
	s = keys_store(k);
	for (i = 0, r = 0; i < CALLS && r == 0; i++) {
		r = work_on(s, i);
		/* The provider of memory recovers at some time, or else there is nothing to see. */
		if (fault.what == FAULT_MEMORY && fault.fired > 3)
			disarm();
	}
	failed = store_failed(s);
	if (r < 0 && !fits(r) && r != -EROFS)
		broken("returned %d", r);
	if (failed)
		check_sticky(s);
	from = work_state_of(&work, store_durable_seq(s));
	if (!failed && what == FAULT_ALLOCATE && fault.fired > 0)
		disarm();
	r = keys_close(k);
	if (failed ? r != failed : r < 0 && !fits(r))
		broken("close: %d, failed with %d", r, failed);
	if (!failed && r == 0 && (fault.what == FAULT_SYNC || fault.fired == 0))
		from = work_now(&work);
	disarm();
	check_resources("closed");
	check_store(from);
	check_resources("opened again and closed");
	work_release(&work);
	return fault.fired > 0;
}

static void run_all(enum fault what, int error, bool forever)
{
	unsigned n;

	for (n = 1; run_work(what, error, n, forever); n++)
		;
	/* The last run had no fault. */
	assert_true(n > 2);
}

static void test_fault__allocate(void **state)
{
	(void)state;
	run_all(FAULT_ALLOCATE, -ENOSPC, false);
	run_all(FAULT_ALLOCATE, -ENOSPC, true);
	run_all(FAULT_ALLOCATE, -EDQUOT, true);
	run_all(FAULT_ALLOCATE, -EIO, false);
}

static void test_fault__map(void **state)
{
	(void)state;
	run_all(FAULT_MAP, -ENOMEM, false);
	run_all(FAULT_MAP, -ENOMEM, true);
}

static void test_fault__sync(void **state)
{
	(void)state;
	run_all(FAULT_SYNC, -EIO, false);
	run_all(FAULT_SYNC, -EIO, true);
	run_all(FAULT_SYNC, -ENOSPC, false);
}

static void test_fault__random(void **state)
{
	(void)state;
	run_all(FAULT_RANDOM, -EIO, false);
}

static void test_fault__memory(void **state)
{
	(void)state;
	/* cmocka's skip() is "not ok" in its TAP, which a harness counts as failed. */
	if (!OWN_MALLOC) {
		print_message("# left out: the sanitizer's malloc is not ours to fail\n");
		return;
	}
	run_all(FAULT_MEMORY, -ENOMEM, false);
	run_all(FAULT_MEMORY, -ENOMEM, true);
}

/* Recovery ---------------------------------------------------------------------------------------------------------- */

/* A store whose process was killed: its file as bytes. */
static uint8_t *killed_store(uint64_t *ret_size)
{
	uint8_t *bytes;
	struct stat st;
	struct keys *k;
	unsigned i;
	int fd;

	(void)unlink(path);
	work_init(&work, seed);
	disk_limit = UINT64_MAX;
	check(open_store(true, &k) == 0);
	work_attach(&work, k);
	for (i = 0; i < CALLS; i++) {
		(void)work_step(&work);
		if (i == CALLS / 2)
			check(store_checkpoint(keys_store(k)) == 0);
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	check(fd >= 0 && fstat(fd, &st) == 0);
	bytes = malloc((size_t)st.st_size);
	check(bytes && read(fd, bytes, (size_t)st.st_size) == st.st_size);
	(void)close(fd);
	check(keys_close(k) == 0);
	*ret_size = (uint64_t)st.st_size;
	return bytes;
}

static bool run_recovery(const uint8_t *bytes, uint64_t size, enum fault what, int error, unsigned n, bool forever)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC), r;
	unsigned fired;
	struct keys *k;

	runs++;
	check(fd >= 0 && write(fd, bytes, size) == (ssize_t)size && close(fd) == 0);
	before = resources();
	arm(what, error, n, forever);
	r = open_store(false, &k);
	if (r == 0) {
		fired = fault.fired;
		r = keys_close(k);
		if (r < 0 && !fits(r))
			broken("closed after recovery: %d", r);
		fault.fired = fired + (r < 0);
	} else if (!fits(r)) {
		broken("recovery failed with %d: %s", r, err_last());
	}
	disarm();
	check_resources("recovered");
	check_store(work_now(&work));
	return fault.fired > 0;
}

static void test_fault__recovery(void **state)
{
	static const struct { enum fault what; int error; bool forever; } all[] = {
		{ FAULT_ALLOCATE, -ENOSPC, false }, { FAULT_ALLOCATE, -EIO, true }, { FAULT_MAP, -ENOMEM, false },
		{ FAULT_SYNC, -EIO, false }, { FAULT_SYNC, -EIO, true }, { FAULT_RANDOM, -EIO, false },
		{ FAULT_MEMORY, -ENOMEM, false }, { FAULT_MEMORY, -ENOMEM, true },
	};
	uint64_t size;
	uint8_t *bytes = killed_store(&size);
	unsigned i, n;

	(void)state;
	for (i = 0; i < ARRAY_LEN(all); i++) {
		if (all[i].what == FAULT_MEMORY && !OWN_MALLOC)
			continue;
		for (n = 1; run_recovery(bytes, size, all[i].what, all[i].error, n, all[i].forever); n++)
			;
		assert_true(n > 1);
	}
	free(bytes);
	work_release(&work);
}

/* A full disk ------------------------------------------------------------------------------------------------------- */

static void test_fault__full_disk_empties_again(void **state)
{
	struct keys_attr a;
	struct keys *k;
	uint8_t data[65536];
	const struct keys_cred cred = { 0, 0, 022 };
	uint64_t off = 0, ino, gone;
	uint32_t nlink;
	size_t n;
	int r;

	(void)state;
	(void)unlink(path);
	work_init(&work, seed);
	before = resources();
	disk_limit = SMALL;
	arm(FAULT_NONE, 0, 0, false);
	assert_int_equal(open_store(true, &k), 0);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, "f", 1, S_IFREG | 0644, 0, &cred, &a), 0);
	ino = a.ino;
	memset(data, 7, sizeof data);
	while ((r = keys_write(k, ino, off, data, sizeof data, false, &n)) == 0)
		off += n;
	assert_int_equal(r, -ENOSPC);
	assert_true(off > SMALL / 2);
	assert_int_equal(store_failed(keys_store(k)), 0);
	assert_int_equal(store_sync(keys_store(k)), 0);
	/* The disk gets room; a refusal is believed for a second. */
	disk_limit = UINT64_MAX;
	work.mono_ns += 2000000000u;
	assert_int_equal(keys_write(k, ino, off, data, sizeof data, false, &n), 0);
	off += n;
	/* It is full again, and a delete makes room. */
	disk_limit = 0;
	while ((r = keys_write(k, ino, off, data, sizeof data, false, &n)) == 0)
		off += n;
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(keys_unlink(k, KEYS_ROOT_INO, "f", 1, &gone, &nlink), 0);
	while ((r = keys_reap(k, gone)) == 1)
		;
	assert_int_equal(r, 0);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, "g", 1, S_IFREG | 0644, 0, &cred, &a), 0);
	assert_int_equal(keys_write(k, a.ino, 0, data, sizeof data, false, &n), 0);
	assert_int_equal(keys_close(k), 0);
	check_resources("closed");
	work_release(&work);
}

/* With the helper threads ------------------------------------------------------------------------------------------- */

static void test_fault__failed_sync_of_a_helper(void **state)
{
	unsigned n;

	(void)state;
	for (n = 1; n <= 12; n++) {
		const struct store_options o = { .path = path, .create = true, .max_bytes = STORE_MAX, .sys = &faulty,
						 .threads = true };
		const struct keys_cred cred = { 0, 0, 022 };
		struct keys_attr a;
		struct keys *k;
		struct store *s;
		unsigned i, naps;
		char name[16];
		int r;

		(void)unlink(path);
		work_init(&work, seed);
		disk_limit = UINT64_MAX;
		arm(FAULT_NONE, 0, 0, false);
		before = resources();
		assert_int_equal(keys_open(&o, &k), 0);
		s = keys_store(k);
		arm(FAULT_SYNC, -EIO, n, false);
		for (i = 0; i < 10000 && !store_failed(s); i++) {
			seq_t seq;

			(void)snprintf(name, sizeof name, "%u", i);
			r = keys_make(k, KEYS_ROOT_INO, name, strlen(name), S_IFREG | 0644, 0, &cred, &a);
			if (r == -EROFS)
				break;
			if (r < 0 && r != -EAGAIN)
				broken("make: %d", r);
			seq = store_seq(s);
			store_sync_request(s);
			if (i % 8 == 5)
				(void)store_checkpoint(s);
			(void)store_poll(s);
			for (naps = 0; naps < 10000 && store_durable_seq(s) < seq && !store_failed(s); naps++)
				(void)nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
			if (naps == 10000)
				broken("a sync neither came nor failed");
		}
		assert_int_equal(store_failed(s), -EIO);
		assert_int_equal(keys_make(k, KEYS_ROOT_INO, "x", 1, S_IFREG | 0644, 0, &cred, &a), -EROFS);
		assert_int_equal(keys_close(k), -EIO);
		check_resources("closed");
		disarm();
		assert_int_equal(open_store(false, &k), 0);
		assert_int_equal(keys_close(k), 0);
		work_release(&work);
		runs++;
	}
}

static int make_dir(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "%s/msyncfs-fault.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof path, "%s/store", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	(void)unlink(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fault__allocate),
		cmocka_unit_test(test_fault__map),
		cmocka_unit_test(test_fault__sync),
		cmocka_unit_test(test_fault__random),
		cmocka_unit_test(test_fault__memory),
		cmocka_unit_test(test_fault__recovery),
		cmocka_unit_test(test_fault__full_disk_empties_again),
		cmocka_unit_test(test_fault__failed_sync_of_a_helper),
	};
	const char *s = getenv("SEED"), *v = getenv("VERBOSE");
	int r;

	seed = s && *s ? strtoull(s, NULL, 10) : 1;
	r = cmocka_run_group_tests_name("fault", tests, make_dir, remove_dir);
	if (v && *v)
		fprintf(stderr, "%u runs\n", runs);
	return r;
}
