/* SPDX-License-Identifier: MIT
 *
 * crashdisk: a disk whose every write and flush is kept in order, and a load whose every state is known; for disk.sh.
 *
 *   crashdisk record IMAGE LOG DIR           mounts on DIR a file "disk" that is IMAGE, and keeps in LOG what is written to it
 *   crashdisk moment LOG PROGRESS            prints "SYNCED COUNT BEGUN": the load's operation that the last returned fsync
 *                                            covers, then the entries in LOG, then the operation begun last
 *   crashdisk build IMAGE LOG POS DONE COUNT           IMAGE, which holds DONE entries of LOG, up to its byte POS, takes all
 *                                            others before the last flush among the first COUNT; prints the new POS and DONE
 *   ... SEED HOW OUT                         OUT, a copy of IMAGE, gets of the entries behind that flush: all, none, or some
 *   crashdisk load DIR PROGRESS SEED         works in DIR until PROGRESS.stop exists
 *   crashdisk check DIR SEED SYNCED BEGUN    DIR is the state behind exactly one operation between these
 *
 * A power cut takes what the disk had not flushed, in any choice: so an image is a prefix of the log up to a flush and any
 * of the writes behind it, in part if they are longer than a sector.
 */
#include "core/base.h"

#include <fuse.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR      512u
#define HEAD_BYTES  4096
#define PAGE        4096u
#define FILES       40u
#define DIRS        3u
#define SIZE_TOP    (200u * 1024u)
#define WRITE_TOP   (60u * 1024u)

_Noreturn static void fail(const char *what)
{
	fprintf(stderr, "crashdisk: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* A page that another process reads while it changes. */
static void *shared_page(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	void *p;

	if (fd < 0 || (lseek(fd, 0, SEEK_END) < HEAD_BYTES && ftruncate(fd, HEAD_BYTES) < 0))
		fail(path);
	p = mmap(NULL, HEAD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		fail(path);
	(void)close(fd);
	return p;
}

/* The disk ---------------------------------------------------------------------------------------------------------- */

struct log_head {
	_Atomic uint64_t count;         /* entries that are whole */
};

struct entry {
	uint64_t off;
	uint32_t len;                   /* bytes that follow */
	uint32_t flush;
};

static struct {
	int image, log;
	uint64_t size, end;
	struct log_head *head;
} disk;

static int append(const struct entry *e, const void *data)
{
	if (pwrite(disk.log, e, sizeof *e, (off_t)disk.end) != (ssize_t)sizeof *e ||
	    pwrite(disk.log, data, e->len, (off_t)(disk.end + sizeof *e)) != (ssize_t)e->len)
		return -EIO;
	disk.end += sizeof *e + e->len;
	atomic_fetch_add(&disk.head->count, 1);
	return 0;
}

static int disk_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	(void)fi;
	memset(st, 0, sizeof *st);
	st->st_nlink = 1;
	st->st_mode = S_IFDIR | 0755;
	if (strcmp(path, "/") == 0)
		return 0;
	st->st_mode = S_IFREG | 0600;
	st->st_size = (off_t)disk.size;
	return strcmp(path, "/disk") == 0 ? 0 : -ENOENT;
}

static int disk_open(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	fi->direct_io = 1;
	return 0;
}

static int disk_read(const char *path, char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	ssize_t n = pread(disk.image, buf, len, off);

	(void)path;
	(void)fi;
	return n < 0 ? -errno : (int)n;
}

static int disk_write(const char *path, const char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	const struct entry e = { .off = (uint64_t)off, .len = (uint32_t)len };
	int r;

	(void)path;
	(void)fi;
	if (pwrite(disk.image, buf, len, off) != (ssize_t)len)
		return -EIO;
	r = append(&e, buf);
	return r < 0 ? r : (int)len;
}

static int disk_fsync(const char *path, int data, struct fuse_file_info *fi)
{
	const struct entry e = { .flush = 1 };

	(void)path;
	(void)data;
	(void)fi;
	return append(&e, "");
}

static int record(char *name, const char *image, const char *log, char *dir)
{
	static const struct fuse_operations ops = {
		.getattr = disk_getattr, .open = disk_open, .read = disk_read, .write = disk_write, .fsync = disk_fsync,
	};
	char *args[] = { name, (char *)"-f", (char *)"-s", dir, NULL };
	off_t size;

	disk.image = open(image, O_RDWR | O_CLOEXEC);
	disk.log = open(log, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (disk.image < 0 || disk.log < 0)
		fail(image);
	size = lseek(disk.image, 0, SEEK_END);
	if (size < 0)
		fail(image);
	disk.size = (uint64_t)size;
	disk.end = HEAD_BYTES;
	disk.head = shared_page(log);
	return fuse_main(4, args, &ops, NULL);
}

/* Images ------------------------------------------------------------------------------------------------------------ */

static uint64_t rng;

static uint64_t below(uint64_t n)
{
	rng += 0x9e3779b97f4a7c15ull;
	return hash64(&rng, sizeof rng, 7) % n;
}

static void put(int fd, const uint8_t *data, uint64_t off, uint64_t len)
{
	if (pwrite(fd, data, len, (off_t)off) != (ssize_t)len)
		fail("write");
}

/* One write behind the last flush. */
static void put_some(int out, const struct entry *e, const uint8_t *data, const char *how)
{
	bool parts = strcmp(how, "some") == 0 && below(4) == 0;
	uint64_t at;

	if (strcmp(how, "none") == 0 || (strcmp(how, "some") == 0 && !parts && below(2)))
		return;
	for (at = 0; at < e->len; at += SECTOR)
		if (!parts || below(2))
			put(out, data + at, e->off + at, min_u64(SECTOR, e->len - at));
}

/* `count` entries from pos on go to `out`, whole or as `how` says; returns the byte behind them. */
static uint64_t for_entries(int log, uint64_t pos, uint64_t count, int out, const char *how)
{
	uint8_t *data = malloc(16u << 20);
	struct entry e;

	check(data);
	for (; count > 0; count--) {
		if (pread(log, &e, sizeof e, (off_t)pos) != (ssize_t)sizeof e || e.len > 16u << 20 ||
		    pread(log, data, e.len, (off_t)(pos + sizeof e)) != (ssize_t)e.len)
			fail("the log");
		if (how)
			put_some(out, &e, data, how);
		else
			put(out, data, e.off, e.len);
		pos += sizeof e + e.len;
	}
	free(data);
	return pos;
}

/* How many of `count` entries from pos on come before (and with) the last flush? */
static uint64_t flushed(int log, uint64_t pos, uint64_t count)
{
	uint64_t i, last = 0;
	struct entry e;

	for (i = 0; i < count; i++) {
		if (pread(log, &e, sizeof e, (off_t)pos) != (ssize_t)sizeof e)
			fail("the log");
		if (e.flush)
			last = i + 1;
		pos += sizeof e + e.len;
	}
	return last;
}

static int build(int argc, char **argv)
{
	int image = open(argv[0], O_RDWR | O_CLOEXEC), log = open(argv[1], O_RDONLY | O_CLOEXEC), out;
	uint64_t pos = strtoull(argv[2], NULL, 10), done = strtoull(argv[3], NULL, 10), count = strtoull(argv[4], NULL, 10), n;

	if (image < 0 || log < 0)
		fail(argv[0]);
	if (argc == 5) {
		n = flushed(log, pos, count - done);
		pos = for_entries(log, pos, n, image, NULL);
		printf("%llu %llu\n", (unsigned long long)pos, (unsigned long long)(done + n));
		return 0;
	}
	out = open(argv[7], O_RDWR | O_CLOEXEC);
	if (out < 0)
		fail(argv[7]);
	rng = strtoull(argv[5], NULL, 10);
	(void)for_entries(log, pos, count - done, out, argv[6]);
	printf("%llu writes behind the last flush\n", (unsigned long long)(count - done));
	return fsync(out) < 0;
}

/* The load ---------------------------------------------------------------------------------------------------------- */

struct progress {
	_Atomic uint64_t synced;        /* operations up to here are covered by an fsync that has returned */
	_Atomic uint64_t begun;
};

struct file {
	bool there;
	uint32_t size;
	uint64_t hash;
	uint8_t *bytes;                 /* SIZE_TOP of them */
};

static struct file files[FILES];
static uint64_t sum;                    /* of all that is there */

enum what { MAKE, WRITE, APPEND, TRUNCATE, RENAME, UNLINK };

struct op {
	enum what what;
	unsigned n, to;
	uint32_t off, len;
	uint64_t seed;
	bool sync;
};

static void name_of(unsigned n, char *path, size_t size)
{
	(void)snprintf(path, size, "d%u/f%u", n % DIRS, n);
}

static uint64_t hash_of(unsigned n, const uint8_t *bytes, uint32_t size)
{
	return hash64(bytes, size, hash64(&n, sizeof n, size));
}

static void changed(unsigned n)
{
	struct file *f = &files[n];

	sum -= f->hash;
	f->hash = f->there ? hash_of(n, f->bytes, f->size) : 0;
	sum += f->hash;
}

static void bytes_of(const struct op *op, uint8_t *p)
{
	uint64_t x = op->seed;
	uint32_t i;

	for (i = 0; i < op->len; i++) {
		if (i % 8 == 0)
			x = x * 6364136223846793005ull + 1442695040888963407ull;
		p[i] = (uint8_t)(x >> (i % 8 * 8));
	}
}

/* The next operation, as the state allows. */
static struct op next_op(void)
{
	struct op op = { .what = (enum what)below(6), .n = (unsigned)below(FILES), .to = (unsigned)below(FILES) };
	struct file *f = &files[op.n];

	op.seed = below(UINT64_MAX);
	op.sync = below(8) == 0;
	op.len = 1 + (uint32_t)below(below(4) ? 3000 : WRITE_TOP);
	op.off = (uint32_t)below(SIZE_TOP - op.len);
	if (!f->there)
		op.what = MAKE;
	else if (op.what == MAKE || (op.what == RENAME && op.to == op.n))
		op.what = WRITE;
	if (op.what == UNLINK && below(3))
		op.what = APPEND;
	if (op.what == APPEND) {
		op.len = 1 + (uint32_t)below(300);
		op.off = f->size;
		if (op.off + op.len > SIZE_TOP)
			op = (struct op){ .what = TRUNCATE, .n = op.n, .sync = op.sync };
	}
	if (op.what == WRITE && below(2))
		op.off = min_u64(op.off, f->size) & ~4095u;
	return op;
}

static void model(const struct op *op)
{
	struct file *f = &files[op->n], *to = &files[op->to], swap;
	uint32_t end = op->off + op->len;

	switch (op->what) {
	case MAKE:
		f->there = true;
		f->size = 0;
		break;
	case WRITE: case APPEND:
		if (op->off > f->size)
			memset(f->bytes + f->size, 0, op->off - f->size);
		bytes_of(op, f->bytes + op->off);
		f->size = (uint32_t)max_u64(f->size, end);
		break;
	case TRUNCATE:
		if (op->off > f->size)
			memset(f->bytes + f->size, 0, op->off - f->size);
		f->size = op->off;
		break;
	case RENAME:
		swap = *to;
		swap.there = false;
		sum -= to->hash + f->hash;
		*to = *f;
		*f = swap;
		to->hash = f->hash = 0;
		changed(op->to);
		break;
	case UNLINK:
		f->there = false;
		break;
	}
	changed(op->n);
}

static bool perform(int dir, const struct op *op)
{
	static uint8_t data[WRITE_TOP];
	char path[32], to[32];
	int fd, r = 0;

	name_of(op->n, path, sizeof path);
	name_of(op->to, to, sizeof to);
	if (op->what == RENAME)
		return renameat(dir, path, dir, to) == 0;
	if (op->what == UNLINK)
		return unlinkat(dir, path, 0) == 0;
	fd = openat(dir, path, O_RDWR | O_CLOEXEC | (op->what == MAKE ? O_CREAT | O_EXCL : 0), 0644);
	if (fd < 0)
		return false;
	bytes_of(op, data);
	if (op->what == TRUNCATE)
		r = ftruncate(fd, op->off);
	else if (op->what != MAKE)
		r = pwrite(fd, data, op->len, op->off) == (ssize_t)op->len ? 0 : -1;
	return close(fd) == 0 && r == 0;
}

static void load_init(uint64_t seed)
{
	unsigned i;

	rng = seed;
	for (i = 0; i < FILES; i++) {
		files[i].bytes = malloc(SIZE_TOP);
		check(files[i].bytes);
	}
}

static int load(const char *path, const char *progress, uint64_t seed)
{
	struct progress *p = shared_page(progress);
	char stop[4096], name[32];
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd;
	uint64_t n;
	unsigned i;

	(void)snprintf(stop, sizeof stop, "%s.stop", progress);
	for (i = 0; i < DIRS; i++) {
		(void)snprintf(name, sizeof name, "d%u", i);
		if (dir < 0 || mkdirat(dir, name, 0755) < 0)
			fail(path);
	}
	if (fsync(dir) < 0)
		fail("fsync");
	load_init(seed);
	for (n = 1; n % 16 != 0 || access(stop, F_OK) < 0; n++) {
		struct op op = next_op();

		atomic_store(&p->begun, n);
		if (!perform(dir, &op))
			fail("an operation");
		model(&op);
		if (!op.sync)
			continue;
		/* Any file will do: all that came before is durable with it. */
		(void)snprintf(name, sizeof name, "d%u", op.n % DIRS);
		fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 || fsync(fd) < 0 || close(fd) < 0)
			fail("fsync");
		atomic_store(&p->synced, n);
	}
	return 0;
}

static uint64_t seen[FILES];            /* the hash of each file that is there now */

/* The sum of what is there now. */
static uint64_t look(const char *path)
{
	static uint8_t data[SIZE_TOP + 1];
	uint64_t all = 0;
	unsigned d;

	for (d = 0; d < DIRS; d++) {
		char name[4096];
		struct dirent *e;
		DIR *dir;

		(void)snprintf(name, sizeof name, "%s/d%u", path, d);
		dir = opendir(name);
		if (!dir)
			fail(name);
		while ((e = readdir(dir))) {
			unsigned n;
			ssize_t len;
			int fd;

			if (sscanf(e->d_name, "f%u", &n) != 1 || n >= FILES)
				continue;
			fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_CLOEXEC);
			len = fd < 0 ? -1 : pread(fd, data, sizeof data, 0);
			if (len < 0)
				fail(e->d_name);
			(void)close(fd);
			seen[n] = hash_of(n, data, (uint32_t)len);
			all += seen[n];
		}
		(void)closedir(dir);
	}
	return all;
}

/* Which files are not as the present operation left them? */
static unsigned differ(char *text, size_t size)
{
	unsigned i, n = 0;
	size_t at = 0;

	for (i = 0; i < FILES; i++) {
		if (seen[i] == files[i].hash)
			continue;
		n++;
		if (at < size)
			at += (size_t)snprintf(text + at, size - at, " f%u%s", i,
					       !seen[i] ? " (missing)" : !files[i].hash ? " (should not be there)" : "");
	}
	return n;
}

/* Linux sends a write that begins within a page it does not have in two requests: up to the page's end, and the rest. A
 * power cut can come between them, as another process can read between them. */
static bool is_first_half(struct op op, uint64_t is)
{
	uint32_t head = PAGE - op.off % PAGE;

	if ((op.what != WRITE && op.what != APPEND) || head == PAGE || head >= op.len)
		return false;
	op.len = head;
	model(&op);
	return sum == is;
}

static int check_dir(const char *path, uint64_t seed, uint64_t synced, uint64_t begun)
{
	uint64_t is = look(path), n, nearest = 0, lost = 0;
	char text[600], best[600] = "";
	unsigned least = FILES + 1;

	load_init(seed);
	for (n = 0; n <= begun; n++) {
		bool half = false;
		unsigned d;

		if (n > 0) {
			struct op op = next_op();

			half = is_first_half(op, is) && n > synced;
			model(&op);
		}
		if ((sum == is && n >= synced) || half) {
			printf("%soperation %llu of %llu to %llu\n", half ? "half of " : "", (unsigned long long)n,
			       (unsigned long long)synced, (unsigned long long)begun);
			return 0;
		}
		if (sum == is)
			lost = n;
		d = n < synced ? FILES : differ(text, sizeof text);
		if (d < least) {
			least = d;
			nearest = n;
			memcpy(best, text, sizeof best);
		}
	}
	printf("the state behind none of the operations %llu to %llu", (unsigned long long)synced, (unsigned long long)begun);
	if (lost > 0)
		printf(", but behind %llu\n", (unsigned long long)lost);
	else
		printf("; next to %llu, but for%s\n", (unsigned long long)nearest, best);
	return 1;
}

static int moment(const char *log, const char *progress)
{
	struct log_head *h = shared_page(log);
	struct progress *p = shared_page(progress);
	uint64_t synced = atomic_load(&p->synced), count = atomic_load(&h->count), begun = atomic_load(&p->begun);

	printf("%llu %llu %llu\n", (unsigned long long)synced, (unsigned long long)count, (unsigned long long)begun);
	return 0;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";

	if (strcmp(verb, "record") == 0 && argc == 5)
		return record(argv[0], argv[2], argv[3], argv[4]);
	if (strcmp(verb, "moment") == 0 && argc == 4)
		return moment(argv[2], argv[3]);
	if (strcmp(verb, "build") == 0 && (argc == 7 || argc == 10))
		return build(argc - 2, argv + 2);
	if (strcmp(verb, "load") == 0 && argc == 5)
		return load(argv[2], argv[3], strtoull(argv[4], NULL, 10));
	if (strcmp(verb, "check") == 0 && argc == 6)
		return check_dir(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
	fprintf(stderr, "crashdisk: see its first comment\n");
	return 2;
}
