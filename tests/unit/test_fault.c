/* SPDX-License-Identifier: MIT
 *
 * fault: every call that the store makes of the system, and every piece of memory it asks for, refused in turn: the n-th
 * call, once or from then on, for n = 1, 2, ... until a run needs fewer. The run makes a store, works on it at random
 * (growth, syncs, checkpoints), closes it; another recovers one that was killed. After each fault: an error that means it,
 * no crash, nothing leaked; a failed msync stays failed; and the next opening finds a prefix with all that was durable.
 *
 * Calls of libc that do not go through the table of system calls (open, flock, pread...) are wrapped by the linker
 * (-Wl,--wrap, see the Makefile).
 *
 *   SEED=n          another workload
 *   FAULT_LONG=1    each error that each call can give, not only the likely ones
 */
#include "tests/unit/crash_util.h"
#include "tests/unit/scratch_util.h"

#include "core/check/check.h"
#include "core/store/store_int.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
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

enum fault {
	FAULT_NONE, FAULT_ALLOCATE, FAULT_MAP, FAULT_SYNC, FAULT_RANDOM, FAULT_MEMORY, FAULT_TRUNCATE, FAULT_UNMAP,
	/* wrapped by the linker */
	FAULT_OPEN, FAULT_FSTAT, FAULT_FLOCK, FAULT_PREAD, FAULT_SHORT_PREAD, FAULT_FCNTL, FAULT_LINK, FAULT_FSYNC,
	FAULT_STATVFS, FAULT_MMAP, FAULT_FALLOCATE, FAULT_FTRUNCATE, FAULT_PWRITE, FAULT_SHORT_PWRITE, FAULT_GETRANDOM,
	FAULT_THREAD,
};

static const char *const fault_names[] = {
	"", "allocate", "map", "sync", "random", "memory", "truncate", "unmap", "open", "fstat", "flock", "pread",
	"short pread", "fcntl", "link", "fsync", "statvfs", "mmap", "fallocate", "ftruncate", "pwrite", "short pwrite",
	"getrandom", "pthread_create",
};

static struct {
	enum fault what;
	int error;
	unsigned left;                  /* the call that fails, 1 = the next */
	bool forever;
	unsigned fired;
} fault;

static struct work work;
static char path[SCRATCH_PATH];
static uint64_t seed, disk_limit;
static unsigned runs, faults;
static bool all_errors;                 /* FAULT_LONG */
static bool no_fallocate, no_tmpfile;   /* a file system that cannot do these */
static bool wild_clocks;

static int strike(enum fault what)
{
	if (fault.what != what || fault.left == 0 || --fault.left > 0)
		return 0;
	fault.left = fault.forever;
	fault.fired++;
	faults++;
	return fault.error;
}

/* The same for a call of libc: true, and errno is set. */
static bool refuse(enum fault what)
{
	int r = strike(what);

	if (r < 0)
		errno = -r;
	return r < 0;
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

/* Calls of libc, wrapped by the linker ------------------------------------------------------------------------------ */

#define WRAP(type, name, args) \
	type __real_##name args; \
	type __wrap_##name args; \
	type __wrap_##name args

WRAP(int, open64, (const char *file, int flags, ...))
{
	mode_t mode = 0;
	va_list ap;

	if (flags & (O_CREAT | O_TMPFILE)) {
		va_start(ap, flags);
		mode = va_arg(ap, mode_t);
		va_end(ap);
	}
	if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return refuse(FAULT_OPEN) ? -1 : __real_open64(file, flags, mode);
}

WRAP(int, fstat64, (int fd, struct stat *st))
{
	return refuse(FAULT_FSTAT) ? -1 : __real_fstat64(fd, st);
}

/* What somebody else does in between. */
static void (*in_flock)(void);

WRAP(int, flock, (int fd, int how))
{
	void (*fn)(void) = in_flock;

	in_flock = NULL;
	if (fn)
		fn();
	return refuse(FAULT_FLOCK) ? -1 : __real_flock(fd, how);
}

WRAP(ssize_t, pread64, (int fd, void *buf, size_t n, off_t off))
{
	if (refuse(FAULT_PREAD))
		return -1;
	return __real_pread64(fd, buf, strike(FAULT_SHORT_PREAD) ? (n + 1) / 2 : n, off);
}

WRAP(int, fcntl64, (int fd, int what, ...))
{
	void *arg;
	va_list ap;

	va_start(ap, what);
	arg = va_arg(ap, void *);
	va_end(ap);
	return refuse(FAULT_FCNTL) ? -1 : __real_fcntl64(fd, what, arg);
}

WRAP(int, linkat, (int fd, const char *from, int tofd, const char *to, int flags))
{
	return refuse(FAULT_LINK) ? -1 : __real_linkat(fd, from, tofd, to, flags);
}

WRAP(int, fsync, (int fd))
{
	return refuse(FAULT_FSYNC) ? -1 : __real_fsync(fd);
}

WRAP(int, fstatvfs64, (int fd, struct statvfs *st))
{
	return refuse(FAULT_STATVFS) ? -1 : __real_fstatvfs64(fd, st);
}

WRAP(void *, mmap64, (void *addr, size_t len, int prot, int flags, int fd, off_t off))
{
	return refuse(FAULT_MMAP) ? MAP_FAILED : __real_mmap64(addr, len, prot, flags, fd, off);
}

WRAP(int, fallocate64, (int fd, int mode, off_t off, off_t len))
{
	if (no_fallocate) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return refuse(FAULT_FALLOCATE) ? -1 : __real_fallocate64(fd, mode, off, len);
}

WRAP(int, ftruncate64, (int fd, off_t size))
{
	return refuse(FAULT_FTRUNCATE) ? -1 : __real_ftruncate64(fd, size);
}

WRAP(ssize_t, pwrite64, (int fd, const void *buf, size_t n, off_t off))
{
	if (refuse(FAULT_PWRITE))
		return -1;
	return __real_pwrite64(fd, buf, strike(FAULT_SHORT_PWRITE) ? (n + 1) / 2 : n, off);
}

WRAP(ssize_t, getrandom, (void *buf, size_t n, unsigned flags))
{
	return refuse(FAULT_GETRANDOM) ? -1 : __real_getrandom(buf, n, flags);
}

WRAP(int, pthread_create, (pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg))
{
	int r = strike(FAULT_THREAD);

	return r < 0 ? -r : __real_pthread_create(t, attr, fn, arg);
}

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
	int r = strike(FAULT_TRUNCATE);

	(void)ctx;
	return r < 0 ? r : sys_linux.truncate(NULL, fd, size);
}

static int f_map(void *ctx, void *addr, size_t len, int fd, uint64_t off, int private_copy)
{
	int r = strike(FAULT_MAP);

	(void)ctx;
	return r < 0 ? r : sys_linux.map(NULL, addr, len, fd, off, private_copy);
}

static int f_unmap(void *ctx, void *addr, size_t len)
{
	int r = strike(FAULT_UNMAP);

	(void)ctx;
	return r < 0 ? r : sys_linux.unmap(NULL, addr, len);
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

static int f_ahead(void *ctx, void *addr, size_t len)
{
	return f_populate(ctx, addr, len);
}

static uint64_t f_real(void *ctx)
{
	(void)ctx;
	return work.real_ns;    /* the model takes it from there, too */
}

static uint64_t f_mono(void *ctx)
{
	(void)ctx;
	/* Also backwards: no clock of that name does it, but nothing bad may come of it. */
	return wild_clocks ? work.mono_ns ^ (work.ops % 3) << 60 : work.mono_ns;
}

static int f_random(void *ctx, void *buf, size_t len)
{
	int r = strike(FAULT_RANDOM);

	(void)ctx;
	if (r == 0 && fault.what == FAULT_GETRANDOM)
		return sys_linux.random(NULL, buf, len);
	if (r == 0)
		memset(buf, 0x5a, len);
	return r;
}

/* Its fstat() is wrapped. */
static int f_size(void *ctx, int fd, uint64_t *ret_size)
{
	(void)ctx;
	return sys_linux.size(NULL, fd, ret_size);
}

static const struct sys_ops faulty = {
	.allocate = f_allocate, .truncate = f_truncate, .size = f_size, .map = f_map, .unmap = f_unmap, .sync = f_sync,
	.populate = f_populate, .ahead = f_ahead, .now_real_ns = f_real, .now_mono_ns = f_mono, .random = f_random,
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
		r.mapped |= strstr(line, scratch_folder()) != NULL;
	(void)fclose(f);
	return r;
}

static struct resources before;

_Noreturn static void broken(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn static void broken(const char *format, ...)
{
	enum fault what = fault.what;
	va_list ap;

	fault.what = FAULT_NONE;
	fprintf(stderr, "SEED=%llu, %s: %s %s (run %u), call %llu (%s): ", (unsigned long long)seed, fault_names[what],
		strerror(-fault.error), fault.forever ? "from then on" : "once", runs, (unsigned long long)work.ops, work.text);
	va_start(ap, format);
	(void)vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
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
	/* These are simply asked again. */
	if (fault.error == -EINTR && (fault.what == FAULT_FALLOCATE || fault.what == FAULT_FTRUNCATE ||
				      fault.what == FAULT_PWRITE || fault.what == FAULT_FLOCK ||
				      fault.what == FAULT_PREAD || fault.what == FAULT_GETRANDOM))
		return false;
	if (fault.what == FAULT_SHORT_PREAD || fault.what == FAULT_SHORT_PWRITE)
		return false;
	if (fault.what == FAULT_FLOCK && fault.error == -EWOULDBLOCK)
		return r == -EBUSY;
	if ((fault.what == FAULT_FALLOCATE || fault.what == FAULT_PWRITE || fault.what == FAULT_MMAP) && r == -ENOSPC)
		return true;
	if (fault.what == FAULT_MMAP && r == -ENOMEM)
		return true;
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

static void jump_clocks(unsigned i)
{
	static const uint64_t days[] = { 0, 1, 1000000007ull, 86400000000000ull, 1764000000000000000ull, 1ull << 61,
					 INT64_MAX, UINT64_MAX - 5 };

	work.real_ns = days[(i * 7 + seed) % ARRAY_LEN(days)];
	work.mono_ns += (i % 5 == 0) * 3600000000000ull;
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
		if (wild_clocks)
			jump_clocks(i);
		r = work_on(s, i);
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
	/* Without memory nothing is lost, also if the store failed for it: all that was answered is in the journal (P1). */
	if (what == FAULT_MEMORY || (!failed && r == 0 && (fault.what == FAULT_SYNC || fault.fired == 0)))
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
	assert_true(n > (what < FAULT_OPEN ? 2u : 1u));
}

/* Every error in the list; without FAULT_LONG only the first. */
static void run_errors(enum fault what, const int *errors)
{
	unsigned i;

	for (i = 0; errors[i] != 0 && (i == 0 || all_errors); i++) {
		run_all(what, -errors[i], false);
		if (all_errors && errors[i] != EINTR)
			run_all(what, -errors[i], true);
	}
}

static void test_fault__allocate(void **state)
{
	(void)state;
	run_all(FAULT_ALLOCATE, -ENOSPC, false);
	run_all(FAULT_ALLOCATE, -ENOSPC, true);
	run_all(FAULT_ALLOCATE, -EDQUOT, true);
	run_all(FAULT_ALLOCATE, -EIO, false);
	if (all_errors)
		run_errors(FAULT_ALLOCATE, (const int[]){ EFBIG, EDQUOT, EIO, EPERM, ENOMEM, ENODEV, ETXTBSY, EINVAL, 0 });
}

static void test_fault__map(void **state)
{
	(void)state;
	run_all(FAULT_MAP, -ENOMEM, false);
	run_all(FAULT_MAP, -ENOMEM, true);
	if (all_errors)
		run_errors(FAULT_MAP, (const int[]){ EAGAIN, EPERM, EACCES, ENODEV, ENFILE, EOVERFLOW, EINVAL, 0 });
}

static void test_fault__sync(void **state)
{
	(void)state;
	run_all(FAULT_SYNC, -EIO, false);
	run_all(FAULT_SYNC, -EIO, true);
	run_all(FAULT_SYNC, -ENOSPC, false);
	if (all_errors)
		run_errors(FAULT_SYNC, (const int[]){ ENOSPC, EDQUOT, EFBIG, ENOMEM, EBUSY, EINTR, EROFS, EINVAL, 0 });
}

static void test_fault__random(void **state)
{
	(void)state;
	run_all(FAULT_RANDOM, -EIO, false);
	run_errors(FAULT_GETRANDOM, (const int[]){ EINTR, ENOSYS, EAGAIN, 0 });
}

/* The calls that find, make, lock and look at the file. */
static void test_fault__file(void **state)
{
	(void)state;
	run_errors(FAULT_OPEN, (const int[]){ EMFILE, ENFILE, EACCES, EPERM, EROFS, ENOMEM, EIO, ELOOP, ENOSPC, EDQUOT,
					      EOVERFLOW, EINTR, ENXIO, 0 });
	run_errors(FAULT_FSTAT, (const int[]){ EIO, ENOMEM, ESTALE, EOVERFLOW, 0 });
	run_errors(FAULT_FLOCK, (const int[]){ EWOULDBLOCK, EINTR, ENOLCK, EIO, 0 });
	run_errors(FAULT_LINK, (const int[]){ EIO, EACCES, EEXIST, EMLINK, ENOENT, ENOSPC, EDQUOT, ENOMEM, EPERM, EROFS,
					      0 });
	run_errors(FAULT_FSYNC, (const int[]){ EIO, ENOSPC, EDQUOT, EINTR, EROFS, 0 });
	run_errors(FAULT_MMAP, (const int[]){ ENOMEM, EAGAIN, EPERM, ENFILE, ENODEV, 0 });
	run_errors(FAULT_FALLOCATE, (const int[]){ EINTR, ENOSPC, EDQUOT, EFBIG, EIO, EPERM, 0 });
	/* Answers that nothing depends on. */
	run_all(FAULT_STATVFS, -EIO, true);
	run_all(FAULT_FCNTL, -ENOLCK, true);
}

/* On a file system that has neither O_TMPFILE nor fallocate. */
static void test_fault__poor_file_system(void **state)
{
	(void)state;
	no_tmpfile = no_fallocate = true;
	run_errors(FAULT_OPEN, (const int[]){ EACCES, ENOSPC, EIO, 0 });
	run_errors(FAULT_PWRITE, (const int[]){ ENOSPC, EINTR, EDQUOT, EFBIG, EIO, EPERM, 0 });
	run_all(FAULT_SHORT_PWRITE, -1, false);
	run_all(FAULT_SYNC, -EIO, false);
	no_tmpfile = no_fallocate = false;
}

static void test_fault__clocks(void **state)
{
	uint64_t was = seed;
	unsigned i;

	(void)state;
	wild_clocks = true;
	for (i = 0; i < (all_errors ? 200u : 10u); i++, seed++)
		(void)run_work(FAULT_NONE, 0, 0, false);
	wild_clocks = false;
	seed = was;
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
		{ FAULT_OPEN, -EMFILE, false }, { FAULT_OPEN, -EIO, true }, { FAULT_FSTAT, -EIO, false },
		{ FAULT_FSTAT, -ESTALE, true }, { FAULT_FLOCK, -EINTR, false }, { FAULT_FLOCK, -ENOLCK, true },
		{ FAULT_FLOCK, -EWOULDBLOCK, true }, { FAULT_MMAP, -ENOMEM, false }, { FAULT_MMAP, -ENOMEM, true },
		{ FAULT_FALLOCATE, -EINTR, false }, { FAULT_FALLOCATE, -EDQUOT, true }, { FAULT_STATVFS, -EIO, true },
		{ FAULT_GETRANDOM, -EINTR, false }, { FAULT_SYNC, -ENOSPC, true }, { FAULT_ALLOCATE, -EDQUOT, true },
		{ FAULT_ALLOCATE, -EFBIG, false }, { FAULT_ALLOCATE, -EPERM, true }, { FAULT_MAP, -EAGAIN, true },
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

/* An empty file becomes a store while we wait for its lock: ours is that store, not a new one. */
static uint8_t *other_bytes;
static uint64_t other_size;

static void make_other_store(void)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	check(fd >= 0 && write(fd, other_bytes, other_size) == (ssize_t)other_size && close(fd) == 0);
}

static void test_fault__made_by_another_while_we_wait(void **state)
{
	struct keys *k;
	int fd;

	(void)state;
	arm(FAULT_NONE, 0, 0, false);
	other_bytes = killed_store(&other_size);
	(void)unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && close(fd) == 0);
	in_flock = make_other_store;
	assert_int_equal(open_store(true, &k), 0);
	assert_null(in_flock);
	assert_int_equal(keys_close(k), 0);
	check_store(work_now(&work));
	free(other_bytes);
	work_release(&work);
}

/* A full XFS refuses to allocate what is there already. A hole is not there. */
static void test_fault__refused_but_allocated(void **state)
{
	static const uint8_t data[65536] = { 1 };
	char name[] = "/var/tmp/msyncfs-fault.XXXXXX";
	int fd = mkostemp(name, O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0 && unlink(name) == 0);
	assert_int_equal(__real_fallocate64(fd, 0, 0, 1 << 20), 0);
	assert_int_equal(pwrite(fd, data, sizeof data, 300000), sizeof data);
	arm(FAULT_FALLOCATE, -ENOSPC, 1, true);
	if (sys_linux.allocate(NULL, fd, 0, 1 << 20) == 0) {
		assert_int_equal(sys_linux.allocate(NULL, fd, 0, (1 << 20) + 4096), -ENOSPC);
		assert_int_equal(sys_linux.allocate(NULL, fd, 1 << 20, 4096), -ENOSPC);
		assert_int_equal(__real_fallocate64(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 500000 & ~4095, 4096), 0);
		assert_int_equal(sys_linux.allocate(NULL, fd, 0, 1 << 20), -ENOSPC);
		assert_int_equal(sys_linux.allocate(NULL, fd, 0, 400000), 0);
	} else {
		print_message("# left out: nothing tells here what is allocated\n");
	}
	disarm();
	(void)close(fd);
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
	if (scratch_make("fault") < 0)
		return -1;
	scratch_path(path, "store");
	return 0;
}

static void test_fault__threads(void **state)
{
	const struct store_options o = { .path = path, .create = true, .max_bytes = STORE_MAX, .sys = &faulty, .threads = true };
	struct keys *k;
	unsigned n;
	int r;

	(void)state;
	(void)unlink(path);
	work_init(&work, seed);
	disk_limit = UINT64_MAX;
	/* Of a new store and of one that is there. */
	for (n = 1; n <= 8; n++) {
		before = resources();
		arm(FAULT_THREAD, -EAGAIN, (n - 1) % 4 + 1, false);
		r = keys_open(&o, &k);
		assert_int_equal(r, (n - 1) % 4 < 3 ? -EAGAIN : 0);
		assert_true(r < 0 || keys_close(k) == 0);
		disarm();
		check_resources("without threads");
		assert_int_equal(access(path, F_OK), n < 4 ? -1 : 0);
		runs++;
	}
	work_release(&work);
}

/* A reader beside the daemon, or a second daemon. */
static bool run_beside(bool snapshot, enum fault what, int error, unsigned n, bool forever)
{
	const struct store_options o = { .path = path, .read_only = snapshot, .snapshot = snapshot, .sys = &faulty };
	const struct check_options co = { .problem = note_problem, .snapshot = true };
	struct check_report report;
	struct keys *k;
	unsigned fired;
	int r;

	runs++;
	before = resources();
	before.mapped = true;
	arm(what, error, n, forever);
	r = keys_open(&o, &k);
	fired = fault.fired;
	disarm();
	if (!snapshot && (r == 0 || (r != -EBUSY && !fits(r))))
		broken("a second daemon: %d: %s", r, err_last());
	if (snapshot && r < 0 && !fits(r))
		broken("a reader: %d: %s", r, err_last());
	if (r == 0) {
		if (check_run(k, &co, &report) < 0 || report.problems > 0)
			broken("the snapshot: %llu problems: %s", (unsigned long long)report.problems, problem);
		(void)keys_close(k);
	}
	if (resources().descriptors != before.descriptors)
		broken("descriptors leaked");
	return fired > 0;
}

static void test_fault__beside_the_daemon(void **state)
{
	static const struct { enum fault what; int error; bool forever; } all[] = {
		{ FAULT_OPEN, -EMFILE, false }, { FAULT_FSTAT, -EIO, false }, { FAULT_PREAD, -EIO, false },
		{ FAULT_PREAD, -EIO, true }, { FAULT_PREAD, -EINTR, false }, { FAULT_SHORT_PREAD, -1, false },
		{ FAULT_SHORT_PREAD, -1, true }, { FAULT_FLOCK, -EINTR, false }, { FAULT_FCNTL, -ENOLCK, true },
		{ FAULT_MMAP, -ENOMEM, true }, { FAULT_MAP, -ENOMEM, false }, { FAULT_MEMORY, -ENOMEM, false },
		{ FAULT_RANDOM, -EIO, false },
	};
	struct keys *k;
	unsigned i, n;

	(void)state;
	(void)unlink(path);
	work_init(&work, seed);
	disk_limit = UINT64_MAX;
	arm(FAULT_NONE, 0, 0, false);
	assert_int_equal(open_store(true, &k), 0);
	work_attach(&work, k);
	for (i = 0; i < CALLS; i++)
		(void)work_step(&work);
	assert_int_equal(store_checkpoint(keys_store(k)), 0);
	for (i = 0; i < ARRAY_LEN(all); i++) {
		if (all[i].what == FAULT_MEMORY && !OWN_MALLOC)
			continue;
		for (n = 1; run_beside(true, all[i].what, all[i].error, n, all[i].forever); n++)
			;
		for (n = 1; run_beside(false, all[i].what, all[i].error, n, all[i].forever); n++)
			;
	}
	assert_int_equal(keys_close(k), 0);
	check_store(work_now(&work));
	work_release(&work);
}

/* The end of the file cannot be given back. */
static void run_shrink(enum fault what, int error)
{
	const struct store_options o = { .path = path, .create = true, .sys = &faulty };
	const struct keys_cred cred = { 0, 0, 022 };
	static uint8_t data[1 << 20];
	struct check_report report;
	const struct check_options co = { .problem = note_problem };
	struct keys_attr a;
	struct keys *k;
	uint64_t gone, off;
	uint32_t nlink;
	unsigned round;
	size_t n;
	int r = 0, failed;

	runs++;
	(void)unlink(path);
	work_init(&work, seed);
	disk_limit = UINT64_MAX;
	arm(FAULT_NONE, 0, 0, false);
	before = resources();
	assert_int_equal(keys_open(&o, &k), 0);
	for (round = 0; round < 2 && r == 0; round++) {
		unsigned looks;

		assert_int_equal(keys_make(k, KEYS_ROOT_INO, "f", 1, S_IFREG | 0644, 0, &cred, &a), 0);
		for (off = 0; off < 140u << 20; off += n)
			assert_int_equal(keys_write(k, a.ino, off, data, sizeof data, false, &n), 0);
		/* An end that is long free. */
		work.mono_ns += 40ull * 1000000000u;
		arm(what, error, 1, false);
		assert_int_equal(keys_unlink(k, KEYS_ROOT_INO, "f", 1, &gone, &nlink), 0);
		while (keys_reap(k, gone) == 1)
			;
		for (looks = 0; looks < 12 && r == 0; looks++) {
			r = store_checkpoint(keys_store(k));
			while (r == 0 && keys_compact(k) == 1)
				;
		}
		if (error != 0 && fault.fired == 0)
			broken("it did not shrink");
		disarm();
	}
	failed = store_failed(keys_store(k));
	if (what == FAULT_UNMAP ? failed != error : failed != 0)
		broken("failed with %d", failed);
	assert_int_equal(keys_close(k), failed);
	check_resources("closed");
	assert_int_equal(keys_open(&o, &k), 0);
	assert_int_equal(check_run(k, &co, &report), 0);
	assert_int_equal(report.problems, 0);
	assert_int_equal(keys_close(k), 0);
	work_release(&work);
	(void)unlink(path);
}

static void test_fault__shrink(void **state)
{
	static const int errors[] = { EIO, EPERM, ETXTBSY, EROFS, EFBIG };
	unsigned i;

	(void)state;
	for (i = 0; i < (all_errors ? ARRAY_LEN(errors) : 1); i++)
		run_shrink(FAULT_TRUNCATE, -errors[i]);
	run_shrink(FAULT_FTRUNCATE, -EINTR);
	run_shrink(FAULT_UNMAP, -ENOMEM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fault__allocate),
		cmocka_unit_test(test_fault__map),
		cmocka_unit_test(test_fault__sync),
		cmocka_unit_test(test_fault__random),
		cmocka_unit_test(test_fault__memory),
		cmocka_unit_test(test_fault__file),
		cmocka_unit_test(test_fault__poor_file_system),
		cmocka_unit_test(test_fault__clocks),
		cmocka_unit_test(test_fault__recovery),
		cmocka_unit_test(test_fault__made_by_another_while_we_wait),
		cmocka_unit_test(test_fault__refused_but_allocated),
		cmocka_unit_test(test_fault__full_disk_empties_again),
		cmocka_unit_test(test_fault__failed_sync_of_a_helper),
		cmocka_unit_test(test_fault__threads),
		cmocka_unit_test(test_fault__beside_the_daemon),
		cmocka_unit_test(test_fault__shrink),
	};
	const char *s = getenv("SEED"), *v = getenv("VERBOSE"), *l = getenv("FAULT_LONG");
	int r;

	all_errors = l && *l;

	seed = s && *s ? strtoull(s, NULL, 10) : 1;
	r = cmocka_run_group_tests_name("fault", tests, make_dir, scratch_teardown);
	if (all_errors || (v && *v))
		fprintf(stderr, "# fault: %u runs, %u faults, none lost anything that was durable\n", runs, faults);
	return r;
}
