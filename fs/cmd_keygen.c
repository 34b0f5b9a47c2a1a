/* SPDX-License-Identifier: MIT
 *
 * cmd_keygen: `msyncfs keygen FILE`: make a key for remote mounts, in a file that only its owner may
 * read. An existing file is never written over.
 */
#include "fs/cmd.h"
#include "fs/log.h"
#include "fs/say.h"

#include "core/replica/key.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct keygen_args {
	const char *id, *tree, *file;   /* id, tree: NULL if not given */
	bool read_only;
};

static int parse_option(void *ctx, struct cmd_args *args, const char *arg)
{
	struct keygen_args *a = ctx;
	const char *value;

	(void)args;
	if (strcmp(arg, "--read-only") == 0)
		a->read_only = true;
	else if ((value = cmd_value(arg, "--id")) != NULL)
		a->id = value;
	else if ((value = cmd_value(arg, "--tree")) != NULL)
		a->tree = value;
	else if (strcmp(arg, "--id") == 0 || strcmp(arg, "--tree") == 0)
		return cmd_usage("keygen", arg, "its value is missing, as in --id=NAME");
	else
		return cmd_usage("keygen", arg, "unknown option");
	return 0;
}

static int failed(const struct keygen_args *a, int error)
{
	bool out = strcmp(a->file, "-") == 0;

	say_error(out ? SAY_FILE : SAY_NEW, out ? "standard output" : a->file, NULL, error);
	return EXIT_FAILED;
}

/* What the options say as a key, without its secret yet. */
static int fill(const struct keygen_args *a, struct net_key *k)
{
	int r;

	if (a->id != NULL && (a->id[0] == '\0' || strlen(a->id) > KEY_ID_MAX))
		return cmd_usage("keygen", "--id", "a name of 1 to 64 letters, digits and . _ @ - is wanted");
	if (a->id != NULL)
		memcpy(k->id, a->id, strlen(a->id) + 1);
	k->read_only = a->read_only;
	if (a->tree != NULL && (k->tree = strdup(a->tree)) == NULL) {
		log_error("out of memory: free some");
		return EXIT_FAILED;
	}
	r = key_generate(k);
	if (r < 0)
		return failed(a, r);
	return key_validate(k) < 0 ? cmd_usage("keygen", "keygen", err_last()) : 0;
}

static const struct cmd_syntax syntax = {
	"keygen", "FILE",
	"usage: msyncfs keygen [options] FILE\n\n"
	"Make a new key for remote mounts and write it to FILE, which must not exist\n"
	"(- is standard output). Copy FILE to the other machine by a way that you trust,\n"
	"and give it to --key-file there and here.\n\n"
	"      --id=NAME                 what the key is called (default: a random name)\n"
	"      --read-only               who mounts with this key changes nothing\n"
	"      --tree=PATH               who mounts with this key may change only what is below\n"
	"                                this directory; it sees everything\n"
	"  -h, --help                    show this\n",
	1, parse_option,
};

int cmd_keygen(int argc, char **argv)
{
	struct keygen_args a = { 0 };
	struct net_key k = { 0 };
	const char *words[CMD_WORDS];
	int r = cmd_parse(&syntax, argc, argv, &a, words);

	if (r != CMD_GO_ON)
		return r;
	a.file = words[0];
	r = fill(&a, &k);
	if (r == 0) {
		int error = strcmp(a.file, "-") == 0 ? key_write(STDOUT_FILENO, &k) : key_create(a.file, &k);

		r = error < 0 ? failed(&a, error) : 0;
	}
	key_release(&k);
	return r;
}
