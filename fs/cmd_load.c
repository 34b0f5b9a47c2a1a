/* SPDX-License-Identifier: MIT
 *
 * cmd_load: `msyncfs load STORE [FILE]`: a new store from the stream that `msyncfs dump` has
 * written.
 */
#include "fs/cmd.h"
#include "fs/options.h"
#include "fs/log.h"
#include "fs/lost.h"
#include "fs/progress.h"
#include "fs/say.h"

#include "core/base.h"
#include "core/stream/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct load_args {
	const char *store, *file;       /* file: NULL = standard input */
	uint64_t size_bytes;
	bool quiet;
};

/* --size=N or --size N: then the argument behind it is used too. */
static int parse_size(struct load_args *a, struct cmd_args *args, const char *arg)
{
	const char *value = cmd_value(arg, "--size");

	if (value == NULL)
		value = args->at + 1 < args->argc ? args->argv[++args->at] : "";
	if (*value == '\0')
		return cmd_usage("load", "size", "needs a value");
	if (!options_parse_bytes(value, &a->size_bytes))
		return cmd_usage("load", value, "size is not a number of bytes, as 512M or 10G");
	return 0;
}

static int parse_option(void *ctx, struct cmd_args *args, const char *arg)
{
	struct load_args *a = ctx;

	if (strcmp(arg, "--size") == 0 || cmd_value(arg, "--size") != NULL)
		return parse_size(a, args, arg);
	return cmd_quiet("load", arg, &a->quiet);
}

static const struct cmd_syntax syntax = {
	"load", "STORE",
	"usage: msyncfs load [options] STORE [FILE]\n\n"
	"Make STORE, which must not be there yet, from the stream of msyncfs dump in FILE,\n"
	"or from standard input. It is there when all of it is.\n\n"
	"      --size=BYTES[K|M|G|T]     most the store may grow to (default: the disk)\n"
	"  -q, --quiet                   show no progress\n"
	"  -h, --help                    show this\n",
	2, parse_option,
};

static int parse(struct load_args *a, int argc, char **argv)
{
	const char *words[CMD_WORDS];
	int r = cmd_parse(&syntax, argc, argv, a, words);

	if (r != CMD_GO_ON)
		return r;
	a->store = words[0];
	a->file = cmd_file(words[1]);
	if (strcmp(a->store, ":memory:") == 0)
		return cmd_usage("load", a->store, "a store in memory would be gone at once: give a file");
	return CMD_GO_ON;
}

static int open_stream(const char *file, int *ret_fd)
{
	struct stat st;
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	if (fd < 0) {
		say_errno(SAY_FILE, file, NULL, errno);
		return EXIT_FAILED;
	}
	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
		log_error("%s: is a directory: give the file that msyncfs dump has written", file);
		close(fd);
		return EXIT_FAILED;
	}
	*ret_fd = fd;
	return 0;
}

static int load(const struct load_args *a, int fd)
{
	struct stream_target target = { .path = a->store, .max_bytes = a->size_bytes };
	struct stream_counts counts;
	struct stream_watch watch;
	struct progress progress;
	int r;

	lost_catch();
	progress_start(&progress, &watch, "load", a->quiet, 0);
	r = stream_load(&target, fd, &watch, &counts);
	progress_end(&progress, r == 0 ? &counts : NULL);
	if (r == 0)
		return 0;
	if (r == -EINTR)
		log_error("%s: not made: interrupted: begin anew", a->store);
	else
		say_error(SAY_NEW, a->store, "not made", r);
	return EXIT_FAILED;
}

int cmd_load(int argc, char **argv)
{
	struct load_args a = { 0 };
	int fd = STDIN_FILENO, r = parse(&a, argc, argv);

	if (r != CMD_GO_ON)
		return r;
	if (a.file == NULL && isatty(STDIN_FILENO))
		return cmd_usage("load", "standard input", "is a terminal: give FILE, or redirect it");
	r = a.file != NULL ? open_stream(a.file, &fd) : 0;
	return r != 0 ? r : load(&a, fd);
}
