/* SPDX-License-Identifier: MIT
 *
 * netload: a program on one machine of a cluster whose links break and whose daemons die. It writes down what became of
 * each of its operations, outside the mount, so that what was acknowledged can be looked for on every machine afterwards.
 *
 *     netload write DIR TAG LOG SEED    works in DIR/TAG/ and on DIR/log until LOG.stop exists; exit 1: an error that
 *                                       nobody may get, or something else was read than was written. Where the mount is away
 *                                       for a moment DIR must be a file below it: then that is ENOTDIR, whereas ENOENT
 *                                       says that something was lost
 *     netload check DIR TAG LOG         exit 0 if DIR is what LOG promises
 *
 * LOG has one line for each operation, "KIND KEY NUMBER OUTCOME":
 *     KIND     A append a line to DIR/log; P put a key (a new file renamed over the old one); U unlink it; X set its extended
 *              attribute; M its mode
 *     OUTCOME  a acknowledged; n not done for certain; u nobody knows. A key with a u is left alone from then on: it is in
 *              the state before or in the one behind. So is the new file of a put with a u: its rename may be done still, and
 *              under a mount that has just come back and does not have it yet the name leads to what is the key elsewhere.
 * The keys belong to one TAG, so what was read must be what was written last (a mount reads its own writes). DIR/log belongs to
 * all: the lines of a TAG are there in the order of their acknowledgement, each once.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum {
	KEYS = 24,              /* in use at a time */
	KEYS_MAX = 4096,        /* ever: those with an unknown outcome are replaced */
	NUMBERS_MAX = 10000000,
	VALUE_MAX = 9000,
};

struct key {
	bool present;
	unsigned version;       /* number of the put: contents follow from it */
	unsigned xattr, mode;   /* numbers of the last X and M; 0: none */
};

struct op {
	char kind;
	unsigned key, number;
};

static struct key keys[KEYS_MAX];
static uint64_t random_state;
static const char *dir, *tag;
static bool is_strict;          /* the mount is there: no error is excused */
static unsigned next_tmp;       /* number of the file that the next put writes */
static char log_path[4096];

static unsigned below(unsigned n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)((random_state >> 20) % n);
}

static const char *path_of(unsigned key)
{
	static char path[4096];

	(void)snprintf(path, sizeof path, "%s/%s/k%u", dir, tag, key);
	return path;
}

static unsigned mode_of(unsigned number)
{
	return 0600u | (number & 077u);
}

/* Contents of a put: most are small, a few have several blocks. */
static size_t value(unsigned number, char *buf)
{
	size_t len = number % 16 == 0 ? VALUE_MAX - number % 4096 : 8 + number % 90;
	uint32_t x = number * 2654435761u + (uint32_t)strlen(tag);

	for (size_t i = 0; i < len; i++) {
		x = x * 1664525u + 1013904223u;
		buf[i] = (char)(x >> 24);
	}
	return len;
}

static void apply(struct key *k, const struct op *op)
{
	switch (op->kind) {
	case 'P': *k = (struct key){ .present = true, .version = op->number }; break;
	case 'U': *k = (struct key){ 0 }; break;
	case 'X': k->xattr = op->number; break;
	case 'M': k->mode = op->number; break;
	default: break;
	}
}

/* ---------------------------------------------------------------------------------------------------------- write */

static int put(const char *path, int flags, const char *data, size_t len)
{
	int fd = open(path, flags | O_WRONLY | O_CLOEXEC, 0600), r = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = write(fd, data, len);
	if (n != (ssize_t)len)
		r = n < 0 ? -errno : -EIO;
	if (close(fd) < 0 && r == 0)
		r = -errno;
	return r;
}

static int perform(const struct op *op)
{
	static char data[VALUE_MAX + 1], number[32], tmp[4096];
	const char *path = path_of(op->key);
	int r = 0;

	switch (op->kind) {
	case 'A':
		(void)snprintf(data, sizeof data, "%s %u\n", tag, op->number);
		return put(log_path, O_CREAT | O_APPEND, data, strlen(data));
	case 'P':
		(void)snprintf(tmp, sizeof tmp, "%s/%s/tmp.%u", dir, tag, next_tmp);
		r = put(tmp, O_CREAT | O_TRUNC, data, value(op->number, data));
		if (r == 0 && rename(tmp, path) < 0)
			r = -errno;
		return r;
	case 'U':
		return unlink(path) < 0 ? -errno : 0;
	case 'X':
		(void)snprintf(number, sizeof number, "%u", op->number);
		return setxattr(path, "user.number", number, strlen(number), 0) < 0 ? -errno : 0;
	default:
		return chmod(path, mode_of(op->number)) < 0 ? -errno : 0;
	}
}

static bool mount_is_there(void)
{
	char path[4096];

	(void)snprintf(path, sizeof path, "%s/%s", dir, tag);
	return access(path, F_OK) == 0;
}

/* What an error says: 'n' it was not done, 'u' it may have been, 0: nobody may get this one. */
static char outcome(int error)
{
	switch (-error) {
	case 0:
		return 'a';
	case EROFS:             /* never sent */
	case ENOTDIR:           /* the mount is away for a moment */
		return 'n';
	case EIO: case ENOTCONN: case ECONNABORTED: case ECONNREFUSED: case ESTALE: case ETIMEDOUT:
		return 'u';
	default:
		return 0;
	}
}

/* Contents of a file; -errno. */
static ssize_t slurp(const char *path, char *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t all = 0;
	ssize_t n = 0;

	if (fd < 0)
		return -errno;
	while (all < len && (n = read(fd, buf + all, len - all)) > 0)
		all += (size_t)n;
	if (n < 0)
		n = -errno;
	(void)close(fd);
	return n < 0 ? n : (ssize_t)all;
}

/* Is the key as k says? Errors of a mount that is away are excused while one works. */
static int key_is(unsigned key, const struct key *k)
{
	static char got[VALUE_MAX + 1], want[VALUE_MAX + 1];
	char number[32] = "", text[32] = "";
	const char *path = path_of(key);
	struct stat st;
	ssize_t n = slurp(path, got, sizeof got);

	if (n == -ENOENT)
		return !k->present;
	if (n < 0)
		return !is_strict;
	if (!k->present || (size_t)n != value(k->version, want) || memcmp(got, want, (size_t)n) != 0)
		return 0;
	if (k->mode > 0 && stat(path, &st) == 0 && (st.st_mode & 07777) != mode_of(k->mode))
		return 0;
	if (k->xattr == 0)
		return 1;
	n = getxattr(path, "user.number", text, sizeof text - 1);
	(void)snprintf(number, sizeof number, "%u", k->xattr);
	return (n < 0 && errno != ENODATA && !is_strict) || strcmp(number, text) == 0;
}

static void choose(const unsigned *slots, unsigned number, struct op *op)
{
	unsigned what = below(100);

	*op = (struct op){ .kind = 'A', .number = number };
	if (what < 40)
		return;
	op->key = slots[below(KEYS)];
	op->kind = 'P';
	if (keys[op->key].present && what >= 70)
		op->kind = what < 80 ? 'U' : what < 90 ? 'X' : 'M';
}

static int work(const char *log, uint64_t seed)
{
	unsigned slots[KEYS], next = KEYS;
	char stop[4096], line[64];
	int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600), r, len;
	struct op op;
	char what;

	random_state = (seed + 1) * 0x9e3779b97f4a7c15ull;
	(void)snprintf(stop, sizeof stop, "%s.stop", log);
	if (fd < 0)
		return 2;
	for (unsigned i = 0; i < KEYS; i++)
		slots[i] = i;
	for (unsigned number = 1; number < NUMBERS_MAX && next < KEYS_MAX && access(stop, F_OK) < 0; number++) {
		choose(slots, number, &op);
		r = perform(&op);
		what = outcome(r);
		if (what == 0) {
			(void)fprintf(stderr, "netload: %s: %c key %u number %u: %s\n", tag, op.kind, op.key, number,
				      strerror(-r));
			return 1;
		}
		len = snprintf(line, sizeof line, "%c %u %u %c %d\n", op.kind, op.key, number, what, -r);
		if (write(fd, line, (size_t)len) != len)
			return 2;
		if (what == 'a')
			apply(&keys[op.key], &op);
		if (what == 'u' && op.kind == 'P')
			next_tmp++;
		for (unsigned i = 0; what == 'u' && op.kind != 'A' && i < KEYS; i++)
			if (slots[i] == op.key)
				slots[i] = next++;
		if (what == 'a' && op.kind != 'A' && below(4) == 0 && !key_is(op.key, &keys[op.key])) {
			(void)fprintf(stderr, "netload: %s: key %u is not what number %u made it\n", tag, op.key, number);
			return 1;
		}
		/* A dead mount answers from its cache that it is there. */
		do {
			(void)usleep(what == 'a' ? 0 : 20000);
		} while (what != 'a' && !mount_is_there() && access(stop, F_OK) < 0);
	}
	return 0;
}

/* ---------------------------------------------------------------------------------------------------------- check */

static unsigned wrong;

static void __attribute__((format(printf, 1, 2))) report(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (wrong++ < 10) {
		(void)vprintf(fmt, ap);
		(void)putchar('\n');
	}
	va_end(ap);
}

/* The lines of this tag in DIR/log: fate[number] says what may be there. */
static void check_lines(const char *fate, unsigned last)
{
	char line[256];
	unsigned char *seen = calloc(last + 1u, 1);
	unsigned number, newest = 0;
	FILE *f = fopen(log_path, "r");

	if (!seen)
		exit(2);
	while (f && fgets(line, sizeof line, f)) {
		size_t len = strlen(tag);

		if (strncmp(line, tag, len) != 0 || line[len] != ' ')
			continue;
		number = (unsigned)strtoul(line + len + 1, NULL, 10);
		if (number > last || (fate[number] != 'a' && fate[number] != 'u'))
			report("%s: a line %u that was not written", tag, number);
		else if (seen[number]++)
			report("%s: line %u is there twice", tag, number);
		else if (number < newest && fate[number] == 'a')
			report("%s: line %u comes behind %u", tag, number, newest);
		else if (fate[number] == 'a')
			newest = number;
	}
	for (number = 1; number <= last; number++)
		if (fate[number] == 'a' && !seen[number])
			report("%s: line %u was acknowledged and is not there", tag, number);
	if (f)
		(void)fclose(f);
	free(seen);
}

static int check(const char *log)
{
	static struct op pending[KEYS_MAX];
	char *fate = calloc(NUMBERS_MAX + 1, 1), what, line[128];
	unsigned last = 0, acknowledged = 0, unknown = 0;
	FILE *f = fopen(log, "r");
	struct op op;

	if (!f || !fate) {
		perror(log);
		return 2;
	}
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%c %u %u %c", &op.kind, &op.key, &op.number, &what) != 4 || op.key >= KEYS_MAX ||
		    op.number > NUMBERS_MAX)
			continue;
		last = op.number;
		acknowledged += what == 'a';
		unknown += what == 'u';
		if (op.kind == 'A')
			fate[op.number] = what;
		else if (what == 'a')
			apply(&keys[op.key], &op);
		else if (what == 'u')
			pending[op.key] = op;
	}
	(void)fclose(f);
	is_strict = true;
	check_lines(fate, last);
	for (unsigned i = 0; i < KEYS_MAX; i++) {
		struct key after = keys[i];

		apply(&after, &pending[i]);
		if (!key_is(i, &keys[i]) && !(pending[i].kind && key_is(i, &after)))
			report("%s: key %u is not version %u", tag, i, keys[i].version);
	}
	(void)printf("%s: %u acknowledged, %u unknown, %u wrong\n", tag, acknowledged, unknown, wrong);
	free(fate);
	return wrong != 0;
}

int main(int argc, char **argv)
{
	if (argc >= 5) {
		dir = argv[2];
		tag = argv[3];
		(void)snprintf(log_path, sizeof log_path, "%s/log", dir);
		if (argc == 6 && strcmp(argv[1], "write") == 0)
			return work(argv[4], strtoull(argv[5], NULL, 10));
		if (argc == 5 && strcmp(argv[1], "check") == 0)
			return check(argv[4]);
	}
	(void)fprintf(stderr, "usage: netload write DIR TAG LOG SEED | check DIR TAG LOG\n");
	return 2;
}
