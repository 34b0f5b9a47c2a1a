/* SPDX-License-Identifier: MIT
 *
 * cmd_watch: `msyncfs watch MOUNTPOINT [PATH]`: the changes of a mount, one a line. It reads texts of fs/watch.h, one after the
 * other, and waits longer and longer while there is nothing new. That changes are missing is never passed over.
 */
#include "fs/ask.h"
#include "fs/cmd.h"
#include "fs/log.h"
#include "fs/say.h"
#include "fs/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define EXIT_MISSING 3          /* changes are not there any more */
#define IDLE_MIN_NS  10000000l
#define IDLE_MAX_NS  500000000l
#define STALE_TRIES  10u
#define FIELDS       6u
#define FROM_NOW_ON  (UINT64_MAX / 2)        /* in place of a number: the next change that comes */

struct watch {
	const char *mountpoint;
	char *below;                    /* path from the mount point, escaped as in the texts; "": all */
	dev_t dev;                      /* the mount, which is not held: it can be unmounted */
	uint64_t next, restarts;
	bool begun, json, once;
	bool found;                     /* the mount point is there */
	unsigned stale;
	char text[WATCH_TEXT + 1];
};

static const struct ask_reason reasons[] = {
	{ ESHUTDOWN, "it was unmounted: mount it, then go on with --since" },
	{ EOPNOTSUPP, "it keeps no changes: mount it with --listen or --from" },
	{ 0, NULL },
};

/* The mount is not the one that it was. fd: of its control file, if that could be opened. */
static bool was_replaced(struct watch *w, int fd)
{
	struct stat st;

	if ((fd >= 0 ? fstat(fd, &st) : stat(w->mountpoint, &st)) < 0)
		return false;
	if (w->dev != 0 && st.st_dev != w->dev)
		return true;
	if (fd >= 0)
		w->dev = st.st_dev;
	return false;
}

/* Into w->text. 0 or a negative errno. */
static int fetch(struct watch *w)
{
	char name[32];
	int fd, r;

	(void)snprintf(name, sizeof name, "watch/%" PRIu64, w->next);
	fd = ask_open(w->mountpoint, name, O_RDONLY, &w->found);
	if (was_replaced(w, fd)) {
		if (fd >= 0)
			close(fd);
		return -ESHUTDOWN;
	}
	if (fd < 0)
		return fd;
	r = ask_read(fd, w->text, sizeof w->text);
	return r < 0 ? r : 0;
}

/* ---- Printing ---- */

/* Length of the UTF-8 sequence at s, 0: it is none. */
static size_t utf8(const unsigned char *s, size_t len)
{
	size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;

	if (n > len)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* Overlong forms and surrogates. */
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

/* A path as a JSON string. Bytes that are no UTF-8 become U+DC80 to U+DCFF, as Python's surrogateescape has them. */
static void print_json_string(char *s)
{
	unsigned char *from = (unsigned char *)s, *to = from;
	size_t len, n;

	for (; *from != '\0'; to++) {
		if (from[0] == '\\' && from[1] != '\0' && from[2] != '\0' && from[3] != '\0') {
			*to = (unsigned char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	len = (size_t)(to - (unsigned char *)s);
	putchar('"');
	for (from = (unsigned char *)s; len > 0; from += n, len -= n) {
		n = utf8(from, len);
		if (n == 0) {
			printf("\\udc%02x", from[0]);
			n = 1;
		} else if (*from == '"' || *from == '\\') {
			printf("\\%c", *from);
		} else if (*from < ' ' || *from == 127) {
			printf("\\u%04x", *from);
		} else {
			fwrite(from, 1, n, stdout);
		}
	}
	putchar('"');
}

static void print_change(const struct watch *w, char *const field[FIELDS])
{
	uint64_t ns = strtoull(field[1], NULL, 10);

	if (!w->json) {
		printf("%s %" PRIu64 ".%09" PRIu64 " %s %s %s%s%s\n", field[0], ns / 1000000000, ns % 1000000000, field[2], field[3],
		       *field[4] != '\0' ? field[4] : ".", *field[5] != '\0' ? " " : "", field[5]);
		return;
	}
	printf("{\"seq\":%s,\"time\":%" PRIu64 ".%09" PRIu64 ",\"type\":\"%s\",\"inode\":%s,\"path\":", field[0], ns / 1000000000,
	       ns % 1000000000, field[2], field[3]);
	print_json_string(field[4]);
	if (*field[5] != '\0') {
		printf(",\"to\":");
		print_json_string(field[5]);
	}
	puts("}");
}

/* ---- Reading ---- */

static bool is_below(const struct watch *w, const char *path)
{
	size_t len = strlen(w->below);

	/* Where it is not known it may be there. */
	return len == 0 || *path == '#' || (strncmp(path, w->below, len) == 0 && (path[len] == '\0' || path[len] == '/'));
}

/* One line. False: it is none of ours. */
static bool take_line(struct watch *w, char *line)
{
	static char empty[1];
	char *field[FIELDS], *end;
	uint64_t seq;

	for (unsigned i = 0; i < FIELDS; i++) {
		field[i] = line != NULL ? line : empty;
		line = line != NULL ? strchr(line, '\t') : NULL;
		if (line != NULL)
			*line++ = '\0';
	}
	seq = strtoull(field[0], &end, 10);
	if (*end != '\0' || seq != w->next || *field[2] == '\0')
		return false;
	if (is_below(w, field[4]) || (*field[5] != '\0' && is_below(w, field[5])))
		print_change(w, field);
	w->next = seq + 1;
	return true;
}

static int missing(const struct watch *w, uint64_t first)
{
	log_error("%s: the changes from %" PRIu64 " to %" PRIu64 " are not there any more: look at the whole tree, then go on with "
		  "--since=%" PRIu64, w->mountpoint, w->next, first - 1, first);
	return EXIT_MISSING;
}

/* A text. -1: go on; else the exit status. *ret_news: there was something. */
static int take_text(struct watch *w, bool *ret_news)
{
	uint64_t restarts, first, last;
	char *line, *end;
	unsigned version;

	*ret_news = false;
	if (sscanf(w->text, "msyncfs-watch %u %" SCNu64 " %" SCNu64 " %" SCNu64 "\n", &version, &restarts, &first, &last) != 4 ||
	    version != WATCH_VERSION) {
		log_error("%s: its daemon is of another version: mount it again", w->mountpoint);
		return EXIT_FAILED;
	}
	if (w->next == FROM_NOW_ON) {
		w->next = last + 1;
		w->restarts = restarts;
		w->begun = true;
		return -1;
	}
	if (w->next < first)
		return missing(w, first);
	if ((w->begun && restarts != w->restarts) || w->next > last + 1) {
		log_error("%s: its state was replaced, and the numbers of changes begin again at %" PRIu64 ": look at the whole tree, "
			  "then go on with --since=%" PRIu64, w->mountpoint, last + 1, last + 1);
		return EXIT_MISSING;
	}
	w->restarts = restarts;
	w->begun = true;
	for (line = strchr(w->text, '\n') + 1; (end = strchr(line, '\n')) != NULL; line = end + 1) {
		*end = '\0';
		if (!take_line(w, line)) {
			log_error("%s: a text of changes that makes no sense: its daemon is of another version, mount it again",
				  w->mountpoint);
			return EXIT_FAILED;
		}
		*ret_news = true;
	}
	if (fflush(stdout) != 0 || ferror(stdout)) {
		say_stdout(errno);
		return EXIT_FAILED;
	}
	return w->once && w->next > last ? 0 : -1;
}

static int run(struct watch *w)
{
	struct timespec idle = { .tv_nsec = IDLE_MIN_NS };

	for (;;) {
		bool news = false;
		int r = fetch(w), status;

		if (r == 0 && *w->text != '\0') {
			w->stale = 0;
			status = take_text(w, &news);
			if (status >= 0)
				return status;
		} else if ((r != 0 && r != -ESTALE) || ++w->stale > STALE_TRIES) {
			/* ESTALE: many watch, and the text was dropped before it was read. */
			ask_explain(w->mountpoint, w->found, r, reasons);
			return EXIT_FAILED;
		}
		if (news) {
			idle.tv_nsec = IDLE_MIN_NS;
			continue;
		}
		if (!w->once)
			nanosleep(&idle, NULL);
		idle.tv_nsec = 2 * idle.tv_nsec < IDLE_MAX_NS ? 2 * idle.tv_nsec : IDLE_MAX_NS;
	}
}

/* ---- The command line ---- */

static int no_memory(void)
{
	log_error("out of memory: free some");
	return EXIT_FAILED;
}

/* PATH as it is seen from the mount point. */
static int set_below(struct watch *w, const char *path)
{
	char *top = realpath(w->mountpoint, NULL), *full = NULL, joined[2 * PATH_MAX], *to;
	size_t len;

	snprintf(joined, sizeof joined, *path == '/' ? "%.0s%s" : "%s/%s", w->mountpoint, path);
	full = realpath(joined, NULL);
	if (top == NULL || full == NULL) {
		if (top == NULL)
			say_mount(w->mountpoint, false, errno);
		else
			say_errno(SAY_FILE, path, NULL, errno);
		free(top);
		return EXIT_FAILED;
	}
	len = strcmp(top, "/") == 0 ? 0 : strlen(top);
	if (strncmp(full, top, len) != 0 || (full[len] != '/' && full[len] != '\0')) {
		log_error("%s: not below %s: give a path in the mount", path, w->mountpoint);
		free(top);
		free(full);
		return EXIT_FAILED;
	}
	to = w->below = calloc(1, 4 * strlen(full) + 1);
	for (const char *from = full + len + (full[len] == '/'); to != NULL && *from != '\0'; from++) {
		unsigned char c = (unsigned char)*from;

		to += sprintf(to, c < 33 || c == '\\' || c == 127 ? "\\%03o" : "%c", c);
	}
	free(top);
	free(full);
	return w->below != NULL ? 0 : no_memory();
}

static int parse_option(void *ctx, struct cmd_args *args, const char *arg)
{
	const char *since = cmd_value(arg, "--since");
	unsigned long long seq;
	struct watch *w = ctx;

	(void)args;
	if (strcmp(arg, "--json") == 0) {
		w->json = true;
	} else if (strcmp(arg, "--once") == 0) {
		w->once = true;
	} else if (since != NULL) {
		if (!cmd_number(since, FROM_NOW_ON - 1, &seq))
			return cmd_usage("watch", arg, "not the number of a change");
		w->next = seq;
	} else {
		return cmd_usage("watch", arg, "unknown option");
	}
	return 0;
}

static const struct cmd_syntax syntax = {
	"watch", "MOUNTPOINT",
	"usage: msyncfs watch [options] MOUNTPOINT [PATH]\n\n"
	"Print each change of the mount, made here or on another machine, as a line: its number, time,\n"
	"kind, inode and path, and for a rename the new path. With PATH, a directory or file below\n"
	"MOUNTPOINT, only what happens there.\n\n"
	"  --since=SEQ                   begin with that change, not with the next one that comes\n"
	"  --once                        end when all that is there was printed\n"
	"  --json                        print JSON objects\n"
	"  -h, --help                    show this\n\n"
	"Exit status 3: changes from there on are no longer kept.\n",
	2, parse_option,
};

int cmd_watch(int argc, char **argv)
{
	struct watch *w = calloc(1, sizeof *w);
	const char *words[CMD_WORDS];
	int status;

	if (w == NULL)
		return no_memory();
	w->next = FROM_NOW_ON;
	status = cmd_parse(&syntax, argc, argv, w, words);
	if (status != CMD_GO_ON) {
		free(w);
		return status;
	}
	w->mountpoint = words[0];
	status = words[1] != NULL ? set_below(w, words[1]) : (w->below = strdup("")) != NULL ? 0 : no_memory();
	if (status == 0)
		status = run(w);
	free(w->below);
	free(w);
	return status;
}
