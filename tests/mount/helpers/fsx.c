/* SPDX-License-Identifier: MIT
 *
 * fsx: random operations on one file, compared all along with a copy of it in memory. Everything follows from the
 * seed, so a failure is replayed by the same command line; it prints the last operations before it.
 *
 *   fsx [-s SEED] [-n OPS] [-l MAX_SIZE] [-r] [-D] FILE
 *      -r  no operation that a simple file system may lack (fallocate, copy_file_range, O_DIRECT)
 *      -D  also O_DIRECT reads and writes
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_LINES 40
#define LOG_WIDTH 96

static uint64_t random_state;
static long long max_size = 256 * 1024;
static const char *path;
static int fd = -1, direct_fd = -1;
static unsigned char *model, *scratch;  /* max_size each; the model is zero behind `size` */
static long long size;
static long op_number;
static char log_lines[LOG_LINES][LOG_WIDTH];
static uint64_t seed;

static uint64_t next_random(void)
{
	uint64_t x = random_state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	random_state = x;
	return x * 2685821657736338717ull >> 11;
}

static long long below(long long n)
{
	return n > 0 ? (long long)(next_random() % (uint64_t)n) : 0;
}

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	va_list ap;

	for (long i = op_number > LOG_LINES ? op_number - LOG_LINES : 0; i <= op_number; i++)
		fprintf(stderr, "%s\n", log_lines[i % LOG_LINES]);
	fprintf(stderr, "fsx: seed %llu, operation %ld: ", (unsigned long long)seed, op_number);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	exit(1);
}

static void note(const char *what, long long off, long long len)
{
	snprintf(log_lines[op_number % LOG_LINES], LOG_WIDTH, "%6ld %-10s off %lld len %lld size %lld", op_number,
		 what, off, len, size);
}

/* An offset and a length: often small, often at page or block edges, within max_size. */
static void pick(long long *off, long long *len, long long limit)
{
	*off = below(4) ? below(limit) : below(limit / 4096 + 1) * 4096;
	switch (below(4)) {
	case 0: *len = 1 + below(16); break;
	case 1: *len = 1 + below(8192); break;
	case 2: *len = 1 + below(max_size / 4); break;
	default: *len = (1 + below(8)) * 4096; break;
	}
	if (*off >= max_size)
		*off = max_size - 1;
	if (*len > max_size - *off)
		*len = max_size - *off;
}

static void compare(const char *how, const unsigned char *got, long long off, long long len)
{
	if (memcmp(got, model + off, (size_t)len) == 0)
		return;
	for (long long i = 0; i < len; i++)
		if (got[i] != model[off + i])
			die("%s at %lld: got 0x%02x, want 0x%02x (%lld bytes from %lld, size %lld)", how, off + i, got[i],
			    model[off + i], len, off, size);
}

static void check_size(void)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		die("fstat: %s", strerror(errno));
	if (st.st_size != size)
		die("size is %lld, want %lld", (long long)st.st_size, size);
}

/* A write of bytes that name the operation and their place. */
static void fill(long long off, long long len)
{
	for (long long i = 0; i < len; i++)
		scratch[i] = (unsigned char)((off + i) * 3 + op_number * 101 + (off + i) / 256);
}

static void wrote(long long off, long long len)
{
	memcpy(model + off, scratch, (size_t)len);
	if (off + len > size)
		size = off + len;
}

static void op_write(void)
{
	long long off, len;

	pick(&off, &len, max_size);
	fill(off, len);
	note("write", off, len);
	for (long long n = 0; n < len;) {
		ssize_t r = pwrite(fd, scratch + n, (size_t)(len - n), off + n);

		if (r <= 0)
			die("write: %s", r ? strerror(errno) : "0");
		n += r;
	}
	wrote(off, len);
}

static void op_append(void)
{
	long long len = 1 + below(6000);

	if (size + len > max_size)
		return;
	fill(size, len);
	note("append", size, len);
	if (lseek(fd, 0, SEEK_END) != size || write(fd, scratch, (size_t)len) != len)
		die("append: %s", strerror(errno));
	wrote(size, len);
}

static void op_read(void)
{
	long long off, len, want;
	ssize_t r;

	pick(&off, &len, size + 4096);
	note("read", off, len);
	want = off >= size ? 0 : len < size - off ? len : size - off;
	r = pread(fd, scratch, (size_t)len, off);
	if (r < 0)
		die("read: %s", strerror(errno));
	if (r != want)
		die("read gave %zd bytes, want %lld", r, want);
	compare("read", scratch, off, r);
}

static void op_truncate(void)
{
	long long to = below(3) ? below(max_size) : below(2) ? size / 2 : 0;

	note("truncate", to, 0);
	if (ftruncate(fd, to) < 0)
		die("ftruncate: %s", strerror(errno));
	if (to < size)
		memset(model + to, 0, (size_t)(size - to));
	size = to;
}

static void op_map_write(void)
{
	long long off, len, base;
	unsigned char *map;

	if (size < 2)
		return;
	pick(&off, &len, size);
	if (off >= size)
		off = size - 1;
	if (len > size - off)
		len = size - off;
	base = off / 4096 * 4096;
	fill(off, len);
	note("mapwrite", off, len);
	map = mmap(NULL, (size_t)(off + len - base), PROT_READ | PROT_WRITE, MAP_SHARED, fd, base);
	if (map == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	compare("mapped read", map + (off - base), off, len);
	memcpy(map + (off - base), scratch, (size_t)len);
	/* Without msync the bytes are in the page cache only, which read(2) sees all the same. */
	if (below(2) && msync(map, (size_t)(off + len - base), MS_SYNC) < 0)
		die("msync: %s", strerror(errno));
	if (munmap(map, (size_t)(off + len - base)) < 0)
		die("munmap: %s", strerror(errno));
	wrote(off, len);
}

static void op_map_read(void)
{
	unsigned char *map;

	if (size == 0)
		return;
	note("mapread", 0, size);
	map = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	compare("mapped read", map, 0, size);
	munmap(map, (size_t)size);
}

/* false: this file system does not have it */
static bool try_fallocate(const char *what, int mode, long long off, long long len)
{
	note(what, off, len);
	if (fallocate(fd, mode, off, len) == 0)
		return true;
	if (errno != EOPNOTSUPP)
		die("%s: %s", what, strerror(errno));
	return false;
}

static void zeroed(long long off, long long len)
{
	if (off < size)
		memset(model + off, 0, (size_t)(len < size - off ? len : size - off));
}

static void op_punch(void)
{
	long long off, len;

	pick(&off, &len, size + 1);
	if (try_fallocate("punch", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len))
		zeroed(off, len);
}

static void op_zero_range(void)
{
	long long off, len;
	bool keep = below(2);

	pick(&off, &len, max_size);
	if (!try_fallocate(keep ? "zerokeep" : "zero", FALLOC_FL_ZERO_RANGE | (keep ? FALLOC_FL_KEEP_SIZE : 0), off, len))
		return;
	zeroed(off, len);
	if (!keep && off + len > size)
		size = off + len;
}

static void op_fallocate(void)
{
	long long off, len;
	bool keep = below(2);

	pick(&off, &len, max_size);
	if (try_fallocate(keep ? "keep" : "allocate", keep ? FALLOC_FL_KEEP_SIZE : 0, off, len) && !keep && off + len > size)
		size = off + len;
}

static void op_copy(void)
{
	long long from, to, len;

	pick(&from, &len, size);
	if (from + len > size)
		len = size - from;
	to = below(max_size);
	if (len > max_size - to)
		len = max_size - to;
	if (len <= 0 || (to < from + len && from < to + len))
		return;     /* overlapping ranges of one file are EINVAL */
	note("copy", from, len);
	for (long long n = 0; n < len;) {
		off_t in = from + n, out = to + n;
		ssize_t r = copy_file_range(fd, &in, fd, &out, (size_t)(len - n), 0);

		if (r < 0 && (errno == EOPNOTSUPP || errno == EXDEV || errno == ENOSYS))
			return;
		if (r <= 0)
			die("copy_file_range to %lld after %lld: %s", to, n, r ? strerror(errno) : "end");
		n += r;
	}
	memcpy(scratch, model + from, (size_t)len);
	wrote(to, len);
}

static void op_sync(void)
{
	note("sync", 0, 0);
	if ((below(2) ? fsync(fd) : fdatasync(fd)) < 0)
		die("fsync: %s", strerror(errno));
}

static void op_reopen(void)
{
	note("reopen", 0, 0);
	if (close(fd) < 0)
		die("close: %s", strerror(errno));
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die("open: %s", strerror(errno));
	if (below(2))
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

static void op_direct(void)
{
	long long off = below(max_size / 4096) * 4096, len = (1 + below(8)) * 4096;
	ssize_t r;

	if (direct_fd < 0)
		return;
	if (len > max_size - off)
		len = max_size - off;
	if (below(2)) {
		fill(off, len);
		note("dwrite", off, len);
		if (pwrite(direct_fd, scratch, (size_t)len, off) != len)
			die("direct write: %s", strerror(errno));
		wrote(off, len);
		return;
	}
	note("dread", off, len);
	r = pread(direct_fd, scratch, (size_t)len, off);
	if (r < 0)
		die("direct read: %s", strerror(errno));
	if (r != (off >= size ? 0 : len < size - off ? len : size - off))
		die("direct read gave %zd bytes", r);
	compare("direct read", scratch, off, r);
}

/* Holes hold zeros and data ranges are in order; what is a hole is the file system's choice. */
static void op_seek(void)
{
	off_t at = 0;

	note("seek", 0, 0);
	while (at < size) {
		off_t data = lseek(fd, at, SEEK_DATA), end = data < 0 ? size : data;

		if (data < 0 && errno != ENXIO)
			die("SEEK_DATA: %s", strerror(errno));
		if (end < at || end > size)
			die("SEEK_DATA from %lld gave %lld", (long long)at, (long long)data);
		for (off_t i = at; i < end; i++)
			if (model[i] != 0)
				die("data at %lld, SEEK_DATA says hole from %lld to %lld", (long long)i, (long long)at, (long long)end);
		if (data < 0)
			break;
		at = lseek(fd, data, SEEK_HOLE);
		if (at <= data || at > size)
			die("SEEK_HOLE from %lld gave %lld", (long long)data, (long long)at);
	}
}

static const struct {
	void (*run)(void);
	int weight;
	bool simple;
} ops[] = {
	{ op_write, 30, true }, { op_read, 25, true }, { op_append, 6, true }, { op_truncate, 6, true },
	{ op_map_write, 10, true }, { op_map_read, 3, true }, { op_sync, 2, true }, { op_reopen, 2, true },
	{ op_punch, 6, false }, { op_zero_range, 4, false }, { op_fallocate, 4, false }, { op_copy, 6, false },
	{ op_direct, 8, false }, { op_seek, 3, false },
};

static void step(bool simple)
{
	const size_t count = sizeof ops / sizeof ops[0];
	long long total = 0, at;

	for (size_t i = 0; i < count; i++)
		total += simple && !ops[i].simple ? 0 : ops[i].weight;
	at = below(total);
	for (size_t i = 0; i < count; i++) {
		if (simple && !ops[i].simple)
			continue;
		at -= ops[i].weight;
		if (at < 0) {
			ops[i].run();
			return;
		}
	}
}

static long long number(const char *s)
{
	char *end;
	long long n = strtoll(s, &end, 10);

	if (*s == '\0' || *end != '\0' || n < 0) {
		fprintf(stderr, "fsx: not a number: %s\n", s);
		exit(2);
	}
	return n;
}

int main(int argc, char **argv)
{
	long count = 5000;
	bool simple = false, direct = false;
	int c;

	seed = 1;
	while ((c = getopt(argc, argv, "s:n:l:rD")) != -1)
		switch (c) {
		case 's': seed = (uint64_t)number(optarg); break;
		case 'n': count = (long)number(optarg); break;
		case 'l': max_size = number(optarg) / 4096 * 4096; break;
		case 'r': simple = true; break;
		case 'D': direct = true; break;
		default: return 2;
		}
	if (optind + 1 != argc || max_size < 65536) {
		fprintf(stderr, "usage: fsx [-s SEED] [-n OPS] [-l MAX_SIZE >= 65536] [-r] [-D] FILE\n");
		return 2;
	}
	path = argv[optind];
	random_state = seed * 0x9e3779b97f4a7c15ull + 1;
	model = calloc(1, (size_t)max_size);
	if (!model || posix_memalign((void **)&scratch, 4096, (size_t)max_size))
		return 2;
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		die("open: %s", strerror(errno));
	if (direct)
		direct_fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	printf("fsx: seed %llu, %ld operations\n", (unsigned long long)seed, count);
	fflush(stdout);
	for (op_number = 0; op_number < count; op_number++) {
		step(simple);
		check_size();
		if (op_number % 128 == 0) {
			op_reopen();
			op_map_read();
		}
	}
	op_reopen();
	op_map_read();
	return 0;
}
