/* SPDX-License-Identifier: MIT
 *
 * ackload: a load whose every step is written down outside the mount, before it begins and after it returned; and the
 * check that what had returned is there, and that nothing else is.
 *
 *   ackload write DIR LOG SEED   works in DIR until an operation fails (the daemon was killed) or LOG.stop exists
 *   ackload check DIR LOG        exit 0 if the state is the one that LOG promises; an operation that was under way
 *                                may have happened or not, but not by half
 *
 * WORKERS processes each have DIR/<w>/ and LOG.<w>. A line "b OP FILE VERSION SIZE" goes before an operation, "a" after.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	WORKERS = 4,
	FILES = 200,            /* numbered files of a worker */
	BLOCKS = 64,            /* 4096 bytes each, of its one big file */
	BLOCK = 4096,
	SIZE_MAX_FILE = 24000,
	RECORD = 32,            /* bytes of one appended line */
	OPS_MAX = 1000000,
};

struct file {
	bool present;
	bool renamed;           /* its name is r<n>, not f<n> */
	unsigned version;
	unsigned size;
};

struct state {
	struct file file[FILES];
	unsigned block[BLOCKS]; /* version, 0 = never written */
	unsigned appended;      /* records */
};

struct op {
	char kind;              /* C create, U unlink, R rename, O replace by rename, P block write, A append */
	unsigned n, version, size;
};

static uint64_t random_state;

static unsigned below(unsigned n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)((random_state >> 20) % n);
}

/* Contents follow from worker, file, version and place. */
static void pattern(unsigned char *p, unsigned size, unsigned worker, unsigned n, unsigned version)
{
	uint32_t x = worker * 2654435761u ^ n * 40503u ^ version * 2246822519u ^ size;

	for (unsigned i = 0; i < size; i++) {
		x = x * 1664525u + 1013904223u;
		p[i] = (unsigned char)(x >> 24);
	}
}

static void file_path(char *path, size_t len, const char *dir, unsigned worker, unsigned n, bool renamed)
{
	snprintf(path, len, "%s/%u/%c%u", dir, worker, renamed ? 'r' : 'f', n);
}

/* What an operation does to the state, once it is done. */
static void apply(struct state *s, const struct op *op)
{
	struct file *f = &s->file[op->n % FILES];

	switch (op->kind) {
	case 'C': case 'O': f->present = true; f->version = op->version; f->size = op->size; break;
	case 'U': f->present = f->renamed = false; break;
	case 'R': f->renamed = !f->renamed; break;
	case 'P': s->block[op->n % BLOCKS] = op->version; break;
	case 'A': s->appended++; break;
	default: break;
	}
}

/* ---------------------------------------------------------------------------------------------------------- write */
static int put(const char *path, int flags, const unsigned char *data, unsigned size)
{
	int fd = open(path, flags | O_WRONLY | O_CLOEXEC, 0644);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = write(fd, data, size);
	if (close(fd) < 0 || n != (ssize_t)size)
		return -1;
	return 0;
}

static void choose(const struct state *s, unsigned serial, struct op *op)
{
	unsigned what = below(100);
	const struct file *f;

	*op = (struct op){ .n = below(FILES), .version = serial, .size = below(4) ? below(600) : below(SIZE_MAX_FILE) };
	f = &s->file[op->n];
	if (what < 15) {
		op->kind = 'A';
	} else if (what < 35) {
		op->kind = 'P';
		op->n = below(BLOCKS);
	} else if (!f->present) {
		op->kind = 'C';
	} else {
		op->kind = what < 60 ? 'O' : what < 80 ? 'R' : 'U';
	}
}

static int perform(const char *dir, unsigned worker, const struct state *s, const struct op *op)
{
	static unsigned char data[SIZE_MAX_FILE + BLOCK];
	const struct file *f = &s->file[op->n % FILES];
	char path[4096], other[4096];
	int fd, r;

	file_path(path, sizeof path, dir, worker, op->n, f->renamed);
	switch (op->kind) {
	case 'C':
		pattern(data, op->size, worker, op->n, op->version);
		return put(path, O_CREAT | O_EXCL, data, op->size);
	case 'O':
		pattern(data, op->size, worker, op->n, op->version);
		snprintf(other, sizeof other, "%s/%u/tmp", dir, worker);
		return put(other, O_CREAT | O_TRUNC, data, op->size) < 0 ? -1 : rename(other, path);
	case 'R':
		file_path(other, sizeof other, dir, worker, op->n, !f->renamed);
		return rename(path, other);
	case 'U':
		return unlink(path);
	case 'A':
		snprintf(path, sizeof path, "%s/%u/log", dir, worker);
		snprintf((char *)data, sizeof data, "%-*u", RECORD - 1, s->appended);
		data[RECORD - 1] = '\n';
		return put(path, O_CREAT | O_APPEND, data, RECORD);
	default:
		snprintf(path, sizeof path, "%s/%u/big", dir, worker);
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		if (fd < 0)
			return -1;
		pattern(data, BLOCK, worker, op->n, op->version);
		r = pwrite(fd, data, BLOCK, (off_t)op->n * BLOCK) == BLOCK ? 0 : -1;
		return close(fd) < 0 ? -1 : r;
	}
}

static int work(const char *dir, const char *log, unsigned worker, uint64_t seed)
{
	struct state *s = calloc(1, sizeof *s);
	char path[4096], stop[4096], line[128];
	struct op op;
	int fd, len;

	random_state = (seed + worker + 1) * 0x9e3779b97f4a7c15ull;
	snprintf(path, sizeof path, "%s.%u", log, worker);
	snprintf(stop, sizeof stop, "%s.stop", log);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
	if (!s || fd < 0)
		return 2;
	for (unsigned serial = 1; serial < OPS_MAX; serial++) {
		if (serial % 64 == 0 && access(stop, F_OK) == 0)
			break;
		choose(s, serial, &op);
		len = snprintf(line, sizeof line, "b %c %u %u %u\n", op.kind, op.n, op.version, op.size);
		if (write(fd, line, (size_t)len) != len)
			return 2;
		if (perform(dir, worker, s, &op) < 0) {
			/* A daemon that was killed is what we wait for; anything else is a finding. */
			if (errno == ENOTCONN || errno == ECONNABORTED || errno == ECONNREFUSED || errno == EIO)
				break;
			fprintf(stderr, "ackload: worker %u, %c %u: %s\n", worker, op.kind, op.n, strerror(errno));
			return 1;
		}
		if (write(fd, "a\n", 2) != 2)
			return 2;
		apply(s, &op);
	}
	return 0;
}

static int write_all(const char *dir, const char *log, uint64_t seed)
{
	char path[4096];
	int status, bad = 0;

	for (unsigned w = 0; w < WORKERS; w++) {
		snprintf(path, sizeof path, "%s/%u", dir, w);
		if (mkdir(path, 0755) < 0) {
			perror(path);
			return 2;
		}
	}
	for (unsigned w = 0; w < WORKERS; w++)
		if (fork() == 0)
			_exit(work(dir, log, w, seed));
	while (wait(&status) > 0)
		bad |= !WIFEXITED(status) || WEXITSTATUS(status) != 0;
	return bad;
}

/* ---------------------------------------------------------------------------------------------------------- check */
static int wrong;

static void __attribute__((format(printf, 1, 2))) report(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (wrong++ < 20) {
		vprintf(fmt, ap);
		putchar('\n');
	}
	va_end(ap);
}

/* The whole file, or -1 if it is absent. */
static long slurp(const char *path, unsigned char *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	long all = 0;
	ssize_t n;

	if (fd < 0) {
		if (errno != ENOENT)
			report("%s: %s", path, strerror(errno));
		return -1;
	}
	while ((size_t)all < len && (n = read(fd, buf + all, len - (size_t)all)) > 0)
		all += n;
	close(fd);
	return all;
}

/* Is file n on disk as f says? `half`: a create under way may have got no further than the name. */
static bool file_is(const char *dir, unsigned worker, unsigned n, const struct file *f, bool half)
{
	static unsigned char got[SIZE_MAX_FILE + 1], want[SIZE_MAX_FILE + 1];
	char path[4096], other[4096];
	long len;

	file_path(path, sizeof path, dir, worker, n, f->renamed);
	file_path(other, sizeof other, dir, worker, n, !f->renamed);
	if (access(other, F_OK) == 0)
		return false;
	len = slurp(path, got, sizeof got);
	if (!f->present)
		return len < 0;
	if (half && len == 0)
		return true;
	if (len != (long)f->size)
		return false;
	pattern(want, f->size, worker, n, f->version);
	return memcmp(got, want, f->size) == 0;
}

static bool block_is(const unsigned char *got, unsigned worker, unsigned n, unsigned version)
{
	static unsigned char want[BLOCK];

	memset(want, 0, BLOCK);
	if (version)
		pattern(want, BLOCK, worker, n, version);
	return memcmp(got, want, BLOCK) == 0;
}

static void check_blocks(const char *dir, unsigned worker, const struct state *s, const struct op *pending)
{
	static unsigned char big[BLOCKS * BLOCK + 1];
	char path[4096];

	memset(big, 0, sizeof big);
	snprintf(path, sizeof path, "%s/%u/big", dir, worker);
	slurp(path, big, sizeof big);
	for (unsigned n = 0; n < BLOCKS; n++) {
		if (block_is(big + n * BLOCK, worker, n, s->block[n]))
			continue;
		if (pending && pending->kind == 'P' && pending->n == n && block_is(big + n * BLOCK, worker, n, pending->version))
			continue;
		report("%s: block %u is not version %u", path, n, s->block[n]);
	}
}

static void check_appends(const char *dir, unsigned worker, const struct state *s, const struct op *pending)
{
	const unsigned extra = pending && pending->kind == 'A';
	const size_t room = ((size_t)s->appended + 2) * RECORD;
	unsigned char *got = malloc(room);
	char path[4096], want[RECORD + 1];
	long len;

	if (!got)
		exit(2);
	snprintf(path, sizeof path, "%s/%u/log", dir, worker);
	len = slurp(path, got, room);
	if (len < 0)
		len = 0;
	if (len != (long)s->appended * RECORD && !(extra && len == ((long)s->appended + 1) * RECORD))
		report("%s: %ld bytes, %u records were acknowledged", path, len, s->appended);
	for (long i = 0; i < len / RECORD; i++) {
		snprintf(want, sizeof want, "%-*ld\n", RECORD - 1, i);
		if (memcmp(got + i * RECORD, want, RECORD) != 0) {
			report("%s: record %ld is wrong", path, i);
			break;
		}
	}
	free(got);
}

static void check_names(const char *dir, unsigned worker, const struct op *pending)
{
	char path[4096];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof path, "%s/%u", dir, worker);
	d = opendir(path);
	if (!d) {
		report("%s: %s", path, strerror(errno));
		return;
	}
	while ((e = readdir(d)) != NULL) {
		const char *c = e->d_name;

		if (*c == '.' || strcmp(c, "big") == 0 || strcmp(c, "log") == 0)
			continue;
		if (strcmp(c, "tmp") == 0) {
			if (!pending || pending->kind != 'O')
				report("%s/tmp is left, its rename was acknowledged", path);
		} else if ((*c != 'f' && *c != 'r') || strtoul(c + 1, NULL, 10) >= FILES) {
			report("%s/%s: no such file was made", path, c);
		}
	}
	closedir(d);
}

static long check_worker(const char *dir, const char *log, unsigned worker)
{
	struct state *s = calloc(1, sizeof *s);
	struct op op, *pending = NULL;
	char path[4096], line[128];
	long acknowledged = 0;
	FILE *f;

	snprintf(path, sizeof path, "%s.%u", log, worker);
	f = fopen(path, "r");
	if (!s || !f) {
		perror(path);
		exit(2);
	}
	while (fgets(line, sizeof line, f)) {
		if (line[0] == 'a' && pending) {
			apply(s, pending);
			pending = NULL;
			acknowledged++;
		} else if (sscanf(line, "b %c %u %u %u", &op.kind, &op.n, &op.version, &op.size) == 4) {
			pending = &op;
		}
	}
	fclose(f);
	for (unsigned n = 0; n < FILES; n++) {
		struct state after = *s;

		if (file_is(dir, worker, n, &s->file[n], false))
			continue;
		if (pending && pending->n == n && strchr("CORU", pending->kind)) {
			apply(&after, pending);
			if (file_is(dir, worker, n, &after.file[n], pending->kind == 'C'))
				continue;
		}
		report("%s/%u: file %u (%s) is not version %u with %u bytes", dir, worker, n,
		       s->file[n].present ? s->file[n].renamed ? "renamed" : "present" : "absent", s->file[n].version,
		       s->file[n].size);
	}
	check_blocks(dir, worker, s, pending);
	check_appends(dir, worker, s, pending);
	check_names(dir, worker, pending);
	free(s);
	return acknowledged;
}

int main(int argc, char **argv)
{
	long acknowledged = 0;

	if (argc == 5 && strcmp(argv[1], "write") == 0)
		return write_all(argv[2], argv[3], strtoull(argv[4], NULL, 10));
	if (argc != 4 || strcmp(argv[1], "check") != 0) {
		fprintf(stderr, "usage: ackload write DIR LOG SEED | check DIR LOG\n");
		return 2;
	}
	for (unsigned w = 0; w < WORKERS; w++)
		acknowledged += check_worker(argv[2], argv[3], w);
	printf("%ld acknowledged, %d wrong\n", acknowledged, wrong);
	return wrong != 0;
}
