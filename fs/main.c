/* SPDX-License-Identifier: MIT
 *
 * main: the table of verbs.
 */
#include "fs/cmd.h"
#include "fs/log.h"
#include "fs/say.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int cmd_help(int argc, char **argv);
static int cmd_version(int argc, char **argv);

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *args;
	const char *what;
} verbs[] = {
	{ "mount", cmd_mount, "[options] STORE MOUNTPOINT", "mount a store" },
	{ "status", cmd_status, "MOUNTPOINT", "what a mount says of itself" },
	{ "check", cmd_check, "[options] STORE", "verify a store, mounted or not" },
	{ "dump", cmd_dump, "[options] STORE [FILE]", "write the whole store as a stream" },
	{ "load", cmd_load, "[options] STORE [FILE]", "make a store from such a stream" },
	{ "promote", cmd_promote, "MOUNTPOINT", "make a remote mount the primary" },
	{ "demote", cmd_demote, "MOUNTPOINT [NAME]", "hand the primary over to a remote mount" },
	{ "watch", cmd_watch, "[options] MOUNTPOINT [PATH]", "print the changes, one a line" },
	{ "sync", cmd_sync, "[options] MOUNTPOINT", "wait until all is on disk, here and elsewhere" },
	{ "keygen", cmd_keygen, "[options] FILE", "make a key for remote mounts" },
	{ "help", cmd_help, "[VERB]", "this, or the help of a verb" },
	{ "version", cmd_version, "", "the version" },
};

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

static int unknown_verb(const char *name)
{
	log_error("%s: unknown verb: see msyncfs help", name);
	return EXIT_USAGE;
}

static void print_help(void)
{
	printf("usage: msyncfs VERB ...\n\nA store file, used as a directory.\n\n");
	for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
		printf("  msyncfs %-8s%-28s %s\n", verbs[i].name, verbs[i].args, verbs[i].what);
	printf("\n  -h, --help                            show this\n"
		"  -V, --version                         show the version\n"
		"\nmsyncfs help VERB shows the options of a verb; msyncfs(1) is the manual.\n");
}

static int too_many(const char *arg)
{
	log_error("%s: too many arguments: see msyncfs help", arg);
	return EXIT_USAGE;
}

static int cmd_version(int argc, char **argv)
{
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
		print_help();
	else if (argc > 1)
		return too_many(argv[1]);
	else
		printf("msyncfs " MSYNCFS_VERSION "\n");
	return 0;
}

static int cmd_help(int argc, char **argv)
{
	const struct verb *verb;
	char *args[] = { NULL, "--help", NULL };

	if (argc > 2)
		return too_many(argv[2]);
	if (argc < 2 || strcmp(argv[1], "help") == 0 || strcmp(argv[1], "version") == 0) {
		print_help();
		return 0;
	}
	verb = find_verb(argv[1]);
	if (verb == NULL)
		return unknown_verb(argv[1]);
	args[0] = argv[1];
	return verb->run(2, args);
}

/* What was to be printed counts as done when it is written. A verb that failed has said why. */
static int finish(int status)
{
	int error = fflush(stdout) != 0 ? errno : ferror(stdout) ? EIO : 0;

	if (error == 0 || status != 0)
		return status;
	say_stdout(error);
	return EXIT_FAILED;
}

/* A descriptor of the standard ones that is closed would be the next file's, and what is printed would go into it. Opened
 * for reading only, writing to it fails as before. */
static void keep_standard_files(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDONLY);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

static int run(int argc, char **argv)
{
	const struct verb *verb;

	if (argc < 2) {
		log_error("a verb is missing: see msyncfs help");
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return cmd_help(1, argv);
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
		return cmd_version(1, argv);
	verb = find_verb(argv[1]);
	if (verb == NULL)
		return unknown_verb(argv[1]);
	return verb->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
	keep_standard_files();
	/* A limit on the size of files (ulimit -f) is an error like a full disk, not a reason to die. */
	(void)signal(SIGXFSZ, SIG_IGN);
	return finish(run(argc, argv));
}
