/* SPDX-License-Identifier: MIT
 *
 * netlog: what several programs on several mounts did to a few keys and saw of them, and whether that was possible.
 *
 *     netlog record DIR MOUNT LOG SEED     work on DIR/key.0 to key.4 until LOG.stop exists; MOUNT: number of the mount, 0 is the
 *                                           primary; LOG has each operation with its times
 *     netlog check LOG...                  exit 0: there is an order of all of it (linear/linear.h says which is asked for)
 *     netlog same LOG DIR...               exit 0: so it is with what all these mounts show in the end
 *
 * A key is a file whose lines are values, each of which is written once in the world. A line of a log is
 *     KEY KIND MOUNT VALUE STATE BEGUN RETURNED OUTCOME
 * with the kinds of enum linear_kind, the state of a read as linear_fold() makes it, times in nanoseconds of CLOCK_MONOTONIC (all
 * mounts are on one machine), and the outcome a (done), e (EEXIST or ENOENT), u (nobody knows).
 *
 * One system call decides each operation, and it is one of which the primary decides: of the first keys, which are names, rename
 * (put: a new file over the old one), open with O_CREAT and O_EXCL, unlink; of the others, which are files that are there from the
 * beginning, write with O_APPEND and truncate. Not both of one key: which file a name means is looked up on the replica, so an append
 * there may go to a file that was just replaced. Files stay below a page, so a read is one request as well.
 */
#include "tests/remote/linear/linear.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	NAMES = 3,
	KEYS = 5,
	FILE_MAX = 3000,        /* longer ones are put anew */
	OPS_MAX = 2000000,
};

static uint64_t random_state;

static unsigned below(unsigned n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)((random_state >> 20) % n);
}

static int64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---------------------------------------------------------------------------------------------------------- record */

/* The state that the bytes of a file are; false: they are no lines of values. */
static bool state_of(const char *buf, size_t len, uint64_t *ret_state)
{
	uint64_t state = LINEAR_EMPTY;
	const char *p = buf, *end = buf + len;

	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		char *stop;
		uint64_t v;

		if (nl == NULL)
			return false;
		v = strtoull(p, &stop, 16);
		if (stop != nl)
			return false;
		state = linear_fold(state, v);
		p = nl + 1;
	}
	*ret_state = state;
	return true;
}

/* Files that several mounts append to at once are opened as for appending: that goes past the kernel's cache, which may show zeros
 * behind the end for a moment (README.md, "Limits"). */
static int read_key(const char *path, int flags, uint64_t *ret_state, size_t *ret_len)
{
	static char buf[8192];
	int fd = open(path, O_CLOEXEC | flags), e;
	ssize_t n;

	*ret_state = LINEAR_ABSENT;
	*ret_len = 0;
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	n = read(fd, buf, sizeof buf);
	e = errno;
	(void)close(fd);
	if (n < 0)
		return -e;
	*ret_len = (size_t)n;
	if (!state_of(buf, (size_t)n, ret_state)) {
		(void)fprintf(stderr, "netlog: %s is no list of values: ", path);
		for (ssize_t i = 0; i < n; i++)         /* a zero is what to look for */
			(void)fputc(buf[i] == '\n' ? ',' : buf[i] == '\0' ? '0' : buf[i] == '0' ? 'o' : buf[i], stderr);
		(void)fputc('\n', stderr);
		return -EBADMSG;
	}
	return 0;
}

static int make_new(const char *tmp, const char *line)
{
	int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	ssize_t len = (ssize_t)strlen(line);

	if (fd < 0)
		return -errno;
	if (write(fd, line, (size_t)len) != len) {
		(void)close(fd);
		return -EIO;
	}
	return close(fd) < 0 ? -errno : 0;
}

static int perform(struct linear_op *op, const char *path, const char *tmp, const char *line)
{
	int fd, r = 0;

	switch (op->kind) {
	case LINEAR_PUT:
		return rename(tmp, path) < 0 ? -errno : 0;
	case LINEAR_APPEND:
		fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		if (write(fd, line, strlen(line)) != (ssize_t)strlen(line))
			r = errno == ENOENT ? -ESTALE : -errno;
		(void)close(fd);
		return r;
	case LINEAR_CREATE:
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		return fd < 0 ? -errno : close(fd);
	case LINEAR_CLEAR:
		return truncate(path, 0) < 0 ? -errno : 0;
	default:
		return unlink(path) < 0 ? -errno : 0;
	}
}

static char outcome(const struct linear_op *op, int r)
{
	if (r == 0)
		return 'a';
	if ((r == -EEXIST && op->kind == LINEAR_CREATE) || (r == -ENOENT && op->kind == LINEAR_REMOVE))
		return 'e';
	if (r == -EROFS || r == -ENOTDIR)       /* never sent; the mount is away: below it is a file in place of DIR */
		return 'n';
	if (r == -EIO || r == -ENOTCONN || r == -ECONNABORTED || r == -ESTALE)
		return 'u';
	return 0;
}

static enum linear_kind choose(unsigned key, size_t len)
{
	unsigned what = below(100);

	if (what < 45)
		return LINEAR_READ;
	if (key < NAMES)
		return what < 70 ? LINEAR_PUT : what < 85 ? LINEAR_CREATE : LINEAR_REMOVE;
	return len > FILE_MAX || what < 50 ? LINEAR_CLEAR : LINEAR_APPEND;
}

static int record(const char *dir, unsigned mount, const char *log, uint64_t seed)
{
	char stop[4096], path[4096], tmp[4096], line[64];
	size_t len[KEYS] = { 0 };
	FILE *f = fopen(log, "w");
	uint64_t serial = 0;

	random_state = (seed + 1) * 0x9e3779b97f4a7c15ull;
	(void)snprintf(stop, sizeof stop, "%s.stop", log);
	(void)snprintf(tmp, sizeof tmp, "%s/tmp.%d", dir, (int)getpid());
	if (f == NULL)
		return 2;
	while (access(stop, F_OK) < 0) {
		unsigned key = below(KEYS);
		struct linear_op op = { .kind = choose(key, len[key]), .mount = mount };
		char what;
		int r;

		/* Twice the same value would let the checker take one for the other. */
		op.value = (uint64_t)getpid() << 32 | ++serial;
		(void)snprintf(path, sizeof path, "%s/key.%u", dir, key);
		(void)snprintf(line, sizeof line, "%" PRIx64 "\n", op.value);
		if (op.kind == LINEAR_PUT && make_new(tmp, line) < 0)
			continue;
		op.begun = now_ns();
		if (op.kind == LINEAR_READ)
			r = read_key(path, key < NAMES ? O_RDONLY : O_RDWR | O_APPEND, &op.state, &len[key]);
		else
			r = perform(&op, path, tmp, line);
		op.returned = now_ns();
		what = outcome(&op, r);
		if (what == 0) {
			(void)fprintf(stderr, "netlog: kind %d of %s: %s\n", (int)op.kind, path, strerror(-r));
			return 1;
		}
		if (op.kind == LINEAR_APPEND && what == 'a')
			len[key] += strlen(line);
		if (op.kind == LINEAR_CLEAR)
			len[key] = 0;
		/* Its rename may be done still: the file is left alone, see netload.c. */
		if (op.kind == LINEAR_PUT && what == 'u')
			(void)snprintf(tmp, sizeof tmp, "%s/tmp.%d.%" PRIu64, dir, (int)getpid(), serial);
		if (what == 'n' || (op.kind == LINEAR_READ && what != 'a'))
			continue;
		(void)fprintf(f, "%u %d %u %" PRIx64 " %" PRIx64 " %" PRId64 " %" PRId64 " %c\n", key, (int)op.kind, mount,
			      op.value, op.state, op.begun, op.returned, what);
	}
	return fclose(f) == 0 ? 0 : 2;
}

/* Reads of all keys at the end, with every mount in step: as reads at the primary. */
static int same(const char *log, char **dirs, int count)
{
	FILE *f = fopen(log, "w");
	char path[4096];
	size_t len;
	int r;

	if (f == NULL)
		return 2;
	for (int i = 0; i < count; i++) {
		for (unsigned key = 0; key < KEYS; key++) {
			struct linear_op op = { .begun = now_ns() };

			(void)snprintf(path, sizeof path, "%s/key.%u", dirs[i], key);
			r = read_key(path, O_RDONLY, &op.state, &len);
			if (r < 0)
				return 1;
			(void)fprintf(f, "%u %d 0 0 %" PRIx64 " %" PRId64 " %" PRId64 " a\n", key, (int)LINEAR_READ, op.state,
				      op.begun, now_ns());
		}
	}
	return fclose(f) == 0 ? 0 : 2;
}

/* ----------------------------------------------------------------------------------------------------------- check */

static struct linear_op *ops[KEYS];
static size_t counts[KEYS];

static int read_log(const char *path)
{
	FILE *f = fopen(path, "r");
	char text[256], what;
	unsigned key;
	int kind;

	if (f == NULL) {
		perror(path);
		return 2;
	}
	while (fgets(text, sizeof text, f)) {
		struct linear_op op = { 0 };

		if (sscanf(text, "%u %d %u %" SCNx64 " %" SCNx64 " %" SCNd64 " %" SCNd64 " %c", &key, &kind, &op.mount, &op.value,
			   &op.state, &op.begun, &op.returned, &what) != 8 ||
		    key >= KEYS || kind < 0 || kind > (int)LINEAR_CLEAR || op.mount >= LINEAR_MOUNTS_MAX || counts[key] == OPS_MAX) {
			(void)fprintf(stderr, "netlog: %s: strange line: %s", path, text);
			(void)fclose(f);
			return 2;
		}
		op.kind = (enum linear_kind)kind;
		op.refused = what == 'e';
		op.is_stale = op.mount != 0;
		if (what == 'u')
			op.returned = LINEAR_NEVER;
		if (counts[key] % 4096 == 0) {          /* one more: see check() */
			ops[key] = realloc(ops[key], (counts[key] + 4097) * sizeof op);
			if (ops[key] == NULL)
				return 2;
		}
		ops[key][counts[key]++] = op;
	}
	(void)fclose(f);
	return 0;
}

static void show(const struct linear_op *op, int64_t zero)
{
	static const char *const names[] = { "read", "put", "append", "create", "remove", "clear" };

	(void)printf("  mount %u %-6s %s value %" PRIx64 " state %" PRIx64 " from %" PRId64 " to ", op->mount, names[op->kind],
		     op->refused ? "refused" : "done   ", op->value, op->state, op->begun - zero);
	if (op->returned == LINEAR_NEVER)
		(void)printf("never\n");
	else
		(void)printf("%" PRId64 " ns\n", op->returned - zero);
}

static int check(char **logs, int count)
{
	size_t all = 0, unknown = 0, done = 0, at = 0;
	int bad = 0;

	for (int i = 0; i < count; i++)
		if (read_log(logs[i]) != 0)
			return 2;
	for (unsigned key = NAMES; key < KEYS; key++)
		if (counts[key] > 0)
			ops[key][counts[key]++] = (struct linear_op){ .kind = LINEAR_CREATE, .begun = INT64_MIN, .returned = INT64_MIN };
	for (unsigned key = 0; key < KEYS; key++) {
		int r = linear_check(ops[key], counts[key], &done, &at);

		all += counts[key];
		for (size_t i = 0; i < counts[key]; i++)
			unknown += ops[key][i].returned == LINEAR_NEVER;
		if (r == 1)
			continue;
		bad = 1;
		if (r < 0) {
			(void)printf("key %u: not decided: %s\n", key, strerror(-r));
			continue;
		}
		(void)printf("key %u: no order of its %zu operations; the longest has %zu and does not get beyond the one marked:\n", key,
			     counts[key], done);
		for (size_t i = at > 12 ? at - 12 : 0; i < at + 12 && i < counts[key]; i++) {
			(void)fputs(i == at ? "->" : "  ", stdout);
			show(&ops[key][i], ops[key][at].begun);
		}
	}
	(void)printf("%zu operations, %zu of unknown outcome\n", all, unknown);
	return bad;
}

int main(int argc, char **argv)
{
	if (argc == 6 && strcmp(argv[1], "record") == 0)
		return record(argv[2], (unsigned)strtoul(argv[3], NULL, 10), argv[4], strtoull(argv[5], NULL, 10));
	if (argc >= 3 && strcmp(argv[1], "check") == 0)
		return check(argv + 2, argc - 2);
	if (argc >= 4 && strcmp(argv[1], "same") == 0)
		return same(argv[2], argv + 3, argc - 3);
	(void)fprintf(stderr, "usage: netlog record DIR MOUNT LOG SEED | check LOG... | same LOG DIR...\n");
	return 2;
}
