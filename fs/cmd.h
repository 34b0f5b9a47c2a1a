/* SPDX-License-Identifier: MIT
 *
 * cmd: the verbs of the command line. Each gets its own name as argv[0], answers --help itself, prints its errors as one line
 * and returns the exit status: 0, EXIT_FAILED, EXIT_USAGE, or what its man page says. And how they read their arguments.
 */
#ifndef MSYNCFS_CMD_H
#define MSYNCFS_CMD_H

#include <stdbool.h>

#define EXIT_FAILED 1
#define EXIT_USAGE  2

int cmd_mount(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_dump(int argc, char **argv);
int cmd_load(int argc, char **argv);
int cmd_demote(int argc, char **argv);
int cmd_keygen(int argc, char **argv);
int cmd_watch(int argc, char **argv);
int cmd_sync(int argc, char **argv);
int cmd_promote(int argc, char **argv);

/* The arguments of a verb, one after the other. Behind -- all are words, and so is a lone - always. */
struct cmd_args {
	int argc;
	char **argv;
	int at;                 /* the one before the next; 0: none yet */
	bool words;
};

enum cmd_arg { CMD_END, CMD_HELP, CMD_OPTION, CMD_WORD };

/* What the next one is. *ret_arg: the argument itself, also for CMD_HELP. */
enum cmd_arg cmd_next(struct cmd_args *a, const char **ret_arg);
/* VALUE, if arg is NAME=VALUE for this NAME (as "--size"); else NULL. */
const char *cmd_value(const char *arg, const char *name);
/* Digits only, and no more than max. */
bool cmd_number(const char *text, unsigned long long max, unsigned long long *ret);
/* The last of a verb's options: -q or --quiet; any other is unknown. 0, or the exit status, when it was said. */
int cmd_quiet(const char *verb, const char *arg, bool *quiet);
/* A word that names a file; NULL for a lone -, and if there is none: standard input or output. */
const char *cmd_file(const char *word);
/* What a verb takes. */
#define CMD_WORDS 2u
struct cmd_syntax {
	const char *verb, *first;       /* its name; what its first word is, which must be there: "MOUNTPOINT" */
	const char *help;               /* what --help prints */
	unsigned words;                 /* at most so many */
	/* 0, or the exit status, when it was said what is wrong. It may take the argument behind. NULL: there are no options. */
	int (*option)(void *ctx, struct cmd_args *args, const char *arg);
};
#define CMD_GO_ON (-1)
/* All of its arguments. CMD_GO_ON: words[] are there, or NULL. Else the exit status: help was printed, or what is wrong. */
int cmd_parse(const struct cmd_syntax *s, int argc, char **argv, void *ctx, const char *words[CMD_WORDS]);
/* "what: why", with where to read more. */
void cmd_say_usage(const char *verb, const char *what, const char *why);
/* The same. The value is spelled out so that compilers and analyzers know it, too. */
static inline int cmd_usage(const char *verb, const char *what, const char *why)
{
	cmd_say_usage(verb, what, why);
	return EXIT_USAGE;
}

#endif
