/* SPDX-License-Identifier: MIT
 *
 * cmd: see cmd.h.
 */
#include "fs/cmd.h"

#include "fs/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum cmd_arg cmd_next(struct cmd_args *a, const char **ret_arg)
{
	const char *arg;

	if (!a->words && a->at + 1 < a->argc && strcmp(a->argv[a->at + 1], "--") == 0) {
		a->words = true;
		a->at++;
	}
	if (a->at + 1 >= a->argc)
		return CMD_END;
	*ret_arg = arg = a->argv[++a->at];
	if (a->words || arg[0] != '-' || arg[1] == '\0')
		return CMD_WORD;
	return strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0 ? CMD_HELP : CMD_OPTION;
}

const char *cmd_value(const char *arg, const char *name)
{
	size_t len = strlen(name);

	return strncmp(arg, name, len) == 0 && arg[len] == '=' ? arg + len + 1 : NULL;
}

bool cmd_number(const char *text, unsigned long long max, unsigned long long *ret)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || n > max)
		return false;
	*ret = n;
	return true;
}

int cmd_quiet(const char *verb, const char *arg, bool *quiet)
{
	if (strcmp(arg, "-q") != 0 && strcmp(arg, "--quiet") != 0)
		return cmd_usage(verb, arg, "unknown option");
	*quiet = true;
	return 0;
}

const char *cmd_file(const char *word)
{
	return word != NULL && strcmp(word, "-") != 0 ? word : NULL;
}

int cmd_parse(const struct cmd_syntax *s, int argc, char **argv, void *ctx, const char *words[CMD_WORDS])
{
	struct cmd_args args = { argc, argv, 0, false };
	enum cmd_arg kind;
	const char *arg;
	unsigned n = 0;

	for (unsigned i = 0; i < CMD_WORDS; i++)
		words[i] = NULL;
	while ((kind = cmd_next(&args, &arg)) != CMD_END) {
		int r = 0;

		if (kind == CMD_HELP) {
			(void)fputs(s->help, stdout);
			return 0;
		}
		if (kind == CMD_OPTION)
			r = s->option != NULL ? s->option(ctx, &args, arg) : cmd_usage(s->verb, arg, "unknown option");
		else if (n < s->words)
			words[n++] = arg;
		else
			r = cmd_usage(s->verb, arg, "too many arguments");
		if (r != 0)
			return r;
	}
	if (n == 0 || words[0][0] == '\0') {
		log_error("%s: %s is missing: see msyncfs %s --help", s->verb, s->first, s->verb);
		return EXIT_USAGE;
	}
	return CMD_GO_ON;
}

void cmd_say_usage(const char *verb, const char *what, const char *why)
{
	log_error("%s: %s: see msyncfs %s --help", what, why, verb);
}
