/* SPDX-License-Identifier: MIT
 *
 * fsbench: runs one workload in one directory and prints what an operation costs, as name=value lines. It knows
 * nothing of what is under the directory; run.sh calls it for each peer in turn.
 *
 * Threading: each of -p processes works in a directory of its own, -b more burn CPU meanwhile; all start together
 * once each has prepared its files, and preparation is not timed. Latencies are taken around each operation.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/key.h"

#define SMALL_SIZE   100u
#define PAGE         4096u
#define SEQ_SIZE     65536u
#define GROW_SIZE    (1u << 20)
#define SAMPLES_MAX  (1u << 20)     /* latencies kept per process; a run ends there */
#define PROCS_MAX    64
#define WARM_FILES   256u           /* files that the warm workloads go round */
#define STRIDE       7368787u       /* a prime: (start + i x STRIDE) modulo the number of keys hits each of them once */

struct config {
	const char *dir;
	unsigned procs;
	unsigned busy;
	uint64_t ops;               /* most operations per process */
	double seconds;             /* most time */
	uint64_t size_bytes;        /* of the file of the seq* and rand* workloads */
	uint64_t keys;              /* that the directory holds, for the any* workloads (key.h) */
	bool keep;                  /* leave the big file for the next run */
	uint64_t seed;              /* which key comes first */
};

/* One process at work. */
struct run {
	const struct config *cfg;
	int dirfd;
	int fd;
	uint64_t rng;
	uint64_t ops;               /* most operations of this run */
	uint8_t *buf;               /* GROW_SIZE of it */
};

struct workload {
	const char *name;
	const char *help;
	void (*setup)(struct run *r);
	void (*op)(struct run *r, uint64_t i);
	void (*teardown)(struct run *r);
	uint64_t ops_max;           /* 0 = as configured */
	uint64_t (*ops_of)(const struct config *cfg);
	bool among;                 /* works on the keys in the directory itself */
	size_t op_bytes;            /* for MiB/s; 0 = not of interest */
	bool big;                   /* works on the file that -k keeps */
};

/* What the processes share. */
struct shared {
	pthread_barrier_t start;
	unsigned finished;          /* processes whose timed part is over; atomic */
	struct {
		uint64_t count;
		uint64_t begin_ns, end_ns;
	} proc[PROCS_MAX];
};

static void die(const char *what)
{
	fprintf(stderr, "fsbench: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void must(bool ok, const char *what)
{
	if (!ok)
		die(what);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t next_random(struct run *r)
{
	r->rng ^= r->rng << 13;
	r->rng ^= r->rng >> 7;
	r->rng ^= r->rng << 17;
	return r->rng;
}

static const char *name_of(char *buf, const char *prefix, uint64_t i)
{
	char digits[24], *p = digits + sizeof digits;

	*--p = '\0';
	do {
		*--p = (char)('0' + i % 10);
		i /= 10;
	} while (i);
	return strcat(strcpy(buf, prefix), p);
}

/* Small files ---------------------------------------------------------------------------------------------------- */
static void put_file(struct run *r, const char *name, int flags, bool sync)
{
	int fd = openat(r->dirfd, name, O_WRONLY | O_CLOEXEC | flags, 0644);

	must(fd >= 0, name);
	must(write(fd, r->buf, SMALL_SIZE) == (ssize_t)SMALL_SIZE, "write");
	if (sync)
		must(fsync(fd) == 0, "fsync");
	must(close(fd) == 0, "close");
}

static void read_file(struct run *r, const char *name)
{
	int fd = openat(r->dirfd, name, O_RDONLY | O_CLOEXEC);

	must(fd >= 0, name);
	must(read(fd, r->buf, PAGE) == (ssize_t)SMALL_SIZE, "read");
	must(close(fd) == 0, "close");
}

static void remove_files(struct run *r, const char *prefix, uint64_t count)
{
	char name[40];
	uint64_t i;

	for (i = 0; i < count; i++)
		if (unlinkat(r->dirfd, name_of(name, prefix, i), 0) < 0 && errno != ENOENT)
			die(name);
}

static void make_files(struct run *r, uint64_t count)
{
	char name[40];
	uint64_t i;

	for (i = 0; i < count; i++)
		put_file(r, name_of(name, "f", i), O_CREAT, false);
}

static void setup_warm(struct run *r)
{
	struct stat st;
	char name[40];
	uint64_t i;

	make_files(r, WARM_FILES);
	for (i = 0; i < WARM_FILES; i++) {
		must(fstatat(r->dirfd, name_of(name, "f", i), &st, 0) == 0, "stat");
		read_file(r, name);
	}
}

static void setup_each(struct run *r)
{
	make_files(r, r->ops);
}

static void clean_warm(struct run *r)
{
	remove_files(r, "f", WARM_FILES);
}

static void clean_each(struct run *r)
{
	remove_files(r, "f", r->ops);
}

static void clean_rename(struct run *r)
{
	remove_files(r, "f", WARM_FILES);
	remove_files(r, "g", WARM_FILES);
}

static void clean_replace(struct run *r)
{
	remove_files(r, "f", WARM_FILES);
	(void)unlinkat(r->dirfd, "tmp", 0);
}

static void op_create(struct run *r, uint64_t i)
{
	char name[40];

	put_file(r, name_of(name, "f", i), O_CREAT | O_EXCL, false);
}

static void op_durable(struct run *r, uint64_t i)
{
	char name[40];

	put_file(r, name_of(name, "f", i), O_CREAT | O_EXCL, true);
}

static void op_overwrite(struct run *r, uint64_t i)
{
	char name[40];

	put_file(r, name_of(name, "f", i % WARM_FILES), O_TRUNC, false);
}

static void op_openread(struct run *r, uint64_t i)
{
	char name[40];

	read_file(r, name_of(name, "f", i % WARM_FILES));
}

static void op_stat(struct run *r, uint64_t i)
{
	struct stat st;
	char name[40];

	must(fstatat(r->dirfd, name_of(name, "f", i % WARM_FILES), &st, 0) == 0, "stat");
}

static void op_unlink(struct run *r, uint64_t i)
{
	char name[40];

	must(unlinkat(r->dirfd, name_of(name, "f", i), 0) == 0, "unlink");
}

/* All files from f to g, then all back: the new name does not exist. */
static void op_rename(struct run *r, uint64_t i)
{
	bool back = i / WARM_FILES % 2;
	char from[40], to[40];

	name_of(from, back ? "g" : "f", i % WARM_FILES);
	name_of(to, back ? "f" : "g", i % WARM_FILES);
	must(renameat(r->dirfd, from, r->dirfd, to) == 0, "rename");
}

/* How careful programs write: a temporary file renamed over the old one. */
static void op_replace(struct run *r, uint64_t i)
{
	char name[40];

	put_file(r, "tmp", O_CREAT | O_TRUNC, false);
	must(renameat(r->dirfd, "tmp", r->dirfd, name_of(name, "f", i % WARM_FILES)) == 0, "rename");
}

static void op_mkdir(struct run *r, uint64_t i)
{
	char name[40];

	must(mkdirat(r->dirfd, name_of(name, "d", i % WARM_FILES), 0755) == 0, "mkdir");
	must(unlinkat(r->dirfd, name, AT_REMOVEDIR) == 0, "rmdir");
}

/* One file ------------------------------------------------------------------------------------------------------- */
static void setup_new(struct run *r)
{
	r->fd = openat(r->dirfd, "new", O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
	must(r->fd >= 0, "new");
}

static void clean_new(struct run *r)
{
	must(close(r->fd) == 0, "close");
	must(unlinkat(r->dirfd, "new", 0) == 0, "unlink new");
}

static void op_append(struct run *r, uint64_t i)
{
	(void)i;
	must(write(r->fd, r->buf, SMALL_SIZE) == (ssize_t)SMALL_SIZE, "write");
}

static void op_seqwrite(struct run *r, uint64_t i)
{
	(void)i;
	must(write(r->fd, r->buf, SEQ_SIZE) == (ssize_t)SEQ_SIZE, "write");
}

static void op_grow(struct run *r, uint64_t i)
{
	memcpy(r->buf, &i, sizeof i);
	must(write(r->fd, r->buf, GROW_SIZE) == (ssize_t)GROW_SIZE, "write");
}

/* The big file, as left by the run before if -k; in the page cache of the mount. */
static void setup_big(struct run *r)
{
	uint64_t off = 0, size = r->cfg->size_bytes;
	struct stat st;

	r->fd = openat(r->dirfd, "big", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	must(r->fd >= 0, "big");
	must(fstat(r->fd, &st) == 0, "stat");
	if ((uint64_t)st.st_size == size)
		off = size;
	for (; off < size; off += GROW_SIZE)
		must(pwrite(r->fd, r->buf, GROW_SIZE, (off_t)off) == (ssize_t)GROW_SIZE, "pwrite");
	must(fsync(r->fd) == 0, "fsync");
}

/* ... and not in the page cache of the mount: for FUSE each read is a request, for ext4 it goes to the disk, and
 * tmpfs has nowhere to drop it to. */
static void setup_cold(struct run *r)
{
	setup_big(r);
	must(posix_fadvise(r->fd, 0, 0, POSIX_FADV_DONTNEED) == 0, "fadvise");
}

static void setup_cold_random(struct run *r)
{
	setup_cold(r);
	must(posix_fadvise(r->fd, 0, 0, POSIX_FADV_RANDOM) == 0, "fadvise");
}

static void setup_reread(struct run *r)
{
	uint64_t off;

	setup_big(r);
	for (off = 0; off < r->cfg->size_bytes; off += GROW_SIZE)
		must(pread(r->fd, r->buf, GROW_SIZE, (off_t)off) == (ssize_t)GROW_SIZE, "pread");
}

static void clean_big(struct run *r)
{
	must(close(r->fd) == 0, "close");
	if (!r->cfg->keep)
		must(unlinkat(r->dirfd, "big", 0) == 0, "unlink big");
}

static void op_seqread(struct run *r, uint64_t i)
{
	must(pread(r->fd, r->buf, SEQ_SIZE, (off_t)(i * SEQ_SIZE)) == (ssize_t)SEQ_SIZE, "pread");
}

static off_t random_page(struct run *r)
{
	return (off_t)(next_random(r) % (r->cfg->size_bytes / PAGE) * PAGE);
}

static void op_randread(struct run *r, uint64_t i)
{
	(void)i;
	must(pread(r->fd, r->buf, PAGE, random_page(r)) == (ssize_t)PAGE, "pread");
}

static void op_randwrite(struct run *r, uint64_t i)
{
	(void)i;
	must(pwrite(r->fd, r->buf, PAGE, random_page(r)) == (ssize_t)PAGE, "pwrite");
}

/* Any of many ------------------------------------------------------------------------------------------------------ */
/* Each operation takes a key that no other of this run takes, so with a mount that is fresh the kernel knows none of them. */
static const char *any_key(const struct run *r, uint64_t i, char key[KEY_LEN + 2])
{
	uint64_t start = (uint64_t)(r->cfg->seed % r->cfg->keys);

	key_of((start + i * STRIDE) % r->cfg->keys, key);
	return key;
}

static const char *new_key(const struct run *r, uint64_t i, char key[KEY_LEN + 2])
{
	key_of(r->cfg->keys + i, key);
	return key;
}

static void op_fill(struct run *r, uint64_t i)
{
	char key[KEY_LEN + 2];

	key_of(i, key);
	put_file(r, key, O_CREAT | O_EXCL, false);
}

static void op_any_stat(struct run *r, uint64_t i)
{
	char key[KEY_LEN + 2];
	struct stat st;

	must(fstatat(r->dirfd, any_key(r, i, key), &st, 0) == 0, "stat");
}

static void op_any_read(struct run *r, uint64_t i)
{
	char key[KEY_LEN + 2];

	read_file(r, any_key(r, i, key));
}

static void op_any_write(struct run *r, uint64_t i)
{
	char key[KEY_LEN + 2];

	put_file(r, any_key(r, i, key), O_TRUNC, false);
}

static void op_any_create(struct run *r, uint64_t i)
{
	char key[KEY_LEN + 2];

	put_file(r, new_key(r, i, key), O_CREAT | O_EXCL, false);
}

static void clean_any_create(struct run *r)
{
	char key[KEY_LEN + 2];
	uint64_t i;

	for (i = 0; i < r->ops; i++)
		must(unlinkat(r->dirfd, new_key(r, i, key), 0) == 0, "unlink");
}

static void op_any_unlink(struct run *r, uint64_t i)
{
	char key[KEY_LEN + 2];

	must(unlinkat(r->dirfd, any_key(r, i, key), 0) == 0, "unlink");
}

static void clean_any_unlink(struct run *r)
{
	char key[KEY_LEN + 2];
	uint64_t i;

	for (i = 0; i < r->ops; i++)
		put_file(r, any_key(r, i, key), O_CREAT | O_EXCL, false);
}

static void move_any(struct run *r, uint64_t i, bool back)
{
	char key[KEY_LEN + 2], to[KEY_LEN + 2];

	any_key(r, i, key);
	strcat(strcpy(to, key), "r");
	must((back ? renameat(r->dirfd, to, r->dirfd, key) : renameat(r->dirfd, key, r->dirfd, to)) == 0, "rename");
}

static void op_any_rename(struct run *r, uint64_t i)
{
	move_any(r, i, false);
}

static void clean_any_rename(struct run *r)
{
	uint64_t i;

	for (i = 0; i < r->ops; i++)
		move_any(r, i, true);
}

static uint64_t ops_of_keys(const struct config *cfg)
{
	return cfg->keys;
}

static uint64_t ops_of_big(const struct config *cfg)
{
	return cfg->size_bytes / SEQ_SIZE;
}

static const struct workload workloads[] = {
	{ .name = "create", .help = "create a file, write 100 bytes, close", .op = op_create, .teardown = clean_each },
	{ .name = "overwrite", .help = "open with O_TRUNC, write 100 bytes, close", .setup = setup_warm,
	  .op = op_overwrite, .teardown = clean_warm },
	{ .name = "openread", .help = "open, read, close of a cached file", .setup = setup_warm, .op = op_openread,
	  .teardown = clean_warm },
	{ .name = "stat", .help = "stat of an unchanged file", .setup = setup_warm, .op = op_stat,
	  .teardown = clean_warm },
	{ .name = "unlink", .help = "remove a file", .setup = setup_each, .op = op_unlink, .teardown = clean_each,
	  .ops_max = 5000 },
	{ .name = "rename", .help = "rename to a name that does not exist", .setup = setup_warm, .op = op_rename,
	  .teardown = clean_rename },
	{ .name = "replace", .help = "write 100 bytes to a new file, rename it over an old one", .setup = setup_warm,
	  .op = op_replace, .teardown = clean_replace },
	{ .name = "mkdir", .help = "mkdir and rmdir", .op = op_mkdir },
	{ .name = "append", .help = "append 100 bytes to an open file", .setup = setup_new, .op = op_append,
	  .teardown = clean_new },
	{ .name = "durable", .help = "create a file, write 100 bytes, fsync, close", .op = op_durable,
	  .teardown = clean_each },
	{ .name = "seqwrite", .help = "64 KiB writes to a new file", .setup = setup_new, .op = op_seqwrite,
	  .teardown = clean_new, .ops_of = ops_of_big, .op_bytes = SEQ_SIZE },
	{ .name = "seqread", .help = "64 KiB reads, not cached by the mount", .setup = setup_cold, .op = op_seqread,
	  .teardown = clean_big, .ops_of = ops_of_big, .op_bytes = SEQ_SIZE, .big = true },
	{ .name = "reread", .help = "64 KiB reads, cached by the mount", .setup = setup_reread, .op = op_seqread,
	  .teardown = clean_big, .ops_of = ops_of_big, .op_bytes = SEQ_SIZE, .big = true },
	{ .name = "randread", .help = "4 KiB reads at random, not cached by the mount", .setup = setup_cold_random,
	  .op = op_randread, .teardown = clean_big, .op_bytes = PAGE, .big = true },
	{ .name = "randwrite", .help = "4 KiB overwrites at random", .setup = setup_big, .op = op_randwrite,
	  .teardown = clean_big, .op_bytes = PAGE, .big = true },
	{ .name = "fill", .help = "make the keys that the any* workloads want", .op = op_fill, .ops_of = ops_of_keys, .among = true },
	{ .name = "anystat", .help = "stat of any key", .op = op_any_stat, .ops_of = ops_of_keys, .among = true },
	{ .name = "anyread", .help = "open, read, close of any key", .op = op_any_read, .ops_of = ops_of_keys, .among = true },
	{ .name = "anywrite", .help = "open any key with O_TRUNC, write 100 bytes, close", .op = op_any_write,
	  .ops_of = ops_of_keys, .among = true },
	{ .name = "anycreate", .help = "one key more", .op = op_any_create, .teardown = clean_any_create, .among = true },
	{ .name = "anyunlink", .help = "remove any key", .op = op_any_unlink, .teardown = clean_any_unlink,
	  .ops_of = ops_of_keys, .among = true },
	{ .name = "anyrename", .help = "rename any key to a name that does not exist", .op = op_any_rename,
	  .teardown = clean_any_rename, .ops_of = ops_of_keys, .among = true },
	{ .name = "grow", .help = "1 MiB appends to a new file", .setup = setup_new, .op = op_grow,
	  .teardown = clean_new, .op_bytes = GROW_SIZE },
};

/* Running -------------------------------------------------------------------------------------------------------- */
static void *map_shared(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	must(p != MAP_FAILED, "mmap");
	return p;
}

static uint64_t ops_limit(const struct workload *w, const struct config *cfg)
{
	uint64_t ops = cfg->ops;

	if (w->ops_max && w->ops_max < ops)
		ops = w->ops_max;
	if (w->ops_of && w->ops_of(cfg) < ops)
		ops = w->ops_of(cfg);
	return ops < SAMPLES_MAX ? ops : SAMPLES_MAX;
}

/* Directory of process `id`, made if absent; that with the keys, if it works on those. */
static int open_dir(const struct config *cfg, const struct workload *w, unsigned id)
{
	char path[4096];
	int fd;

	if (w->among) {
		must(snprintf(path, sizeof path, "%s", cfg->dir) < (int)sizeof path, "path");
	} else {
		must(snprintf(path, sizeof path, "%s/p%u", cfg->dir, id) < (int)sizeof path, "path");
		must(mkdir(path, 0755) == 0 || errno == EEXIST, path);
	}
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(fd >= 0, path);
	return fd;
}

static void close_dir(const struct config *cfg, const struct workload *w, struct run *r, unsigned id)
{
	char path[4096];

	(void)close(r->dirfd);
	if (w->among)
		return;
	(void)snprintf(path, sizeof path, "%s/p%u", cfg->dir, id);
	if (!(cfg->keep && w->big) && rmdir(path) < 0 && errno != ENOTEMPTY)
		die(path);
}

static void work(const struct config *cfg, const struct workload *w, struct shared *sh, uint32_t *samples, unsigned id)
{
	struct run r = { .cfg = cfg, .fd = -1, .rng = 88172645463325252u + id, .ops = ops_limit(w, cfg) };
	uint64_t i, t, next, limit;

	r.dirfd = open_dir(cfg, w, id);
	r.buf = malloc(GROW_SIZE);
	must(r.buf, "malloc");
	for (i = 0; i < GROW_SIZE; i++)
		r.buf[i] = (uint8_t)next_random(&r);
	if (w->setup)
		w->setup(&r);
	(void)pthread_barrier_wait(&sh->start);
	t = now_ns();
	sh->proc[id].begin_ns = t;
	limit = t + (uint64_t)(cfg->seconds * 1e9);
	for (i = 0; i < r.ops && t < limit; i++) {
		w->op(&r, i);
		next = now_ns();
		samples[i] = next - t > UINT32_MAX ? UINT32_MAX : (uint32_t)(next - t);
		t = next;
	}
	sh->proc[id].count = i;
	sh->proc[id].end_ns = t;
	(void)__atomic_add_fetch(&sh->finished, 1, __ATOMIC_RELAXED);
	r.ops = w->setup == setup_each ? r.ops : i;
	if (w->teardown)
		w->teardown(&r);
	close_dir(cfg, w, &r, id);
	free(r.buf);
}

/* Keep a CPU busy for as long as the others are timed. */
static void burn(const struct config *cfg, struct shared *sh)
{
	(void)pthread_barrier_wait(&sh->start);
	while (__atomic_load_n(&sh->finished, __ATOMIC_RELAXED) < cfg->procs)
		;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void print_result(const struct config *cfg, const struct workload *w, const struct shared *sh,
			 uint32_t *const *samples)
{
	uint64_t total = 0, begin = UINT64_MAX, end = 0, at = 0;
	double seconds, rate;
	uint32_t *all;
	unsigned i;

	for (i = 0; i < cfg->procs; i++) {
		total += sh->proc[i].count;
		begin = sh->proc[i].begin_ns < begin ? sh->proc[i].begin_ns : begin;
		end = sh->proc[i].end_ns > end ? sh->proc[i].end_ns : end;
	}
	all = malloc((total + 1) * sizeof *all);
	must(all, "malloc");
	for (i = 0; i < cfg->procs; i++) {
		memcpy(all + at, samples[i], sh->proc[i].count * sizeof *all);
		at += sh->proc[i].count;
	}
	qsort(all, total, sizeof *all, by_value);
	seconds = (double)(end - begin) / 1e9;
	rate = seconds > 0 ? (double)total / seconds : 0;
	printf("workload=%s\nprocs=%u\nbusy=%u\nops=%llu\nseconds=%.4f\nops_per_s=%.1f\n", w->name, cfg->procs,
	       cfg->busy, (unsigned long long)total, seconds, rate);
	if (w->op_bytes)
		printf("mib_per_s=%.1f\n", rate * (double)w->op_bytes / 1048576);
	if (total)
		printf("p50_us=%.2f\np99_us=%.2f\nmax_us=%.2f\n", all[total / 2] / 1e3, all[total * 99 / 100] / 1e3,
		       all[total - 1] / 1e3);
	free(all);
}

static pid_t start(void)
{
	pid_t parent = getpid(), pid = fork();

	must(pid >= 0, "fork");
	if (pid == 0) {
		must(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl");
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

/* Wait for all; if one fails the others, who may stand at the barrier, are killed. */
static int wait_all(const pid_t *pids, unsigned count)
{
	int status, bad = 0;
	unsigned i;

	while (wait(&status) > 0) {
		for (i = 0; status != 0 && !bad && i < count; i++)
			(void)kill(pids[i], SIGKILL);
		bad |= status != 0;
	}
	return bad;
}

static int run(const struct config *cfg, const struct workload *w)
{
	uint32_t *samples[PROCS_MAX];
	pid_t pids[2 * PROCS_MAX];
	struct shared *sh = map_shared(sizeof *sh);
	pthread_barrierattr_t attr;
	unsigned i;
	int bad;

	must(pthread_barrierattr_init(&attr) == 0, "barrier");
	must(pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) == 0, "barrier");
	must(pthread_barrier_init(&sh->start, &attr, cfg->procs + cfg->busy) == 0, "barrier");
	for (i = 0; i < cfg->procs; i++)
		samples[i] = map_shared(SAMPLES_MAX * sizeof **samples);
	for (i = 0; i < cfg->procs + cfg->busy; i++) {
		pids[i] = start();
		if (pids[i] == 0) {
			if (i < cfg->procs)
				work(cfg, w, sh, samples[i], i);
			else
				burn(cfg, sh);
			_exit(0);
		}
	}
	bad = wait_all(pids, cfg->procs + cfg->busy);
	if (!bad)
		print_result(cfg, w, sh, samples);
	return bad;
}

static const struct workload *find_workload(const char *name)
{
	size_t i;

	for (i = 0; name && i < sizeof workloads / sizeof *workloads; i++)
		if (!strcmp(workloads[i].name, name))
			return &workloads[i];
	return NULL;
}

static int usage(void)
{
	size_t i;

	fprintf(stderr, "usage: fsbench -d DIR [-p PROCS] [-b BUSY] [-n OPS] [-t SECONDS] [-s MIB] [-k]\n"
		"               [-K KEYS] [-S SEED] WORKLOAD\n"
		"  -b  processes that burn CPU meanwhile   -s  size of the big file   -k  keep it\n"
		"  -K  keys that DIR holds, for the any* workloads (one process)   -S  which of them come first\n");
	for (i = 0; i < sizeof workloads / sizeof *workloads; i++)
		fprintf(stderr, "  %-10s %s\n", workloads[i].name, workloads[i].help);
	return 2;
}

int main(int argc, char **argv)
{
	struct config cfg = { .procs = 1, .ops = SAMPLES_MAX, .seconds = 1, .size_bytes = 256u << 20 };
	const struct workload *w;
	int opt;

	while ((opt = getopt(argc, argv, "d:p:b:n:t:s:kK:S:")) != -1) {
		switch (opt) {
		case 'd': cfg.dir = optarg; break;
		case 'p': cfg.procs = (unsigned)atoi(optarg); break;
		case 'b': cfg.busy = (unsigned)atoi(optarg); break;
		case 'n': cfg.ops = strtoull(optarg, NULL, 10); break;
		case 't': cfg.seconds = atof(optarg); break;
		case 's': cfg.size_bytes = strtoull(optarg, NULL, 10) << 20; break;
		case 'k': cfg.keep = true; break;
		case 'K': cfg.keys = strtoull(optarg, NULL, 10); break;
		case 'S': cfg.seed = strtoull(optarg, NULL, 10); break;
		default: return usage();
		}
	}
	w = find_workload(argv[optind]);
	if (w && w->among && (cfg.procs != 1 || !cfg.keys || cfg.keys % STRIDE == 0))
		return usage();
	if (!w || !cfg.dir || cfg.procs < 1 || cfg.procs > PROCS_MAX || cfg.busy > PROCS_MAX || !cfg.size_bytes)
		return usage();
	return run(&cfg, w);
}
