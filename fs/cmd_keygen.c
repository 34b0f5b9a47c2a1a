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
	bool read_only, help;
};

static int usage(const char *what, const char *why)
{
	log_error("%s: %s: see msyncfs keygen --help", what, why);
	return EXIT_USAGE;
}

static void help(void)
{
	printf("usage: msyncfs keygen [options] FILE\n\n"
	       "Make a new key for remote mounts and write it to FILE, which must not exist\n"
	       "(- is standard output). Copy FILE to the other machine by a way that you trust,\n"
	       "and give it to --key-file there and here.\n\n"
	       "      --id=NAME                 what the key is called (default: a random name)\n"
	       "      --read-only               who mounts with this key changes nothing\n"
	       "      --tree=PATH               who mounts with this key may change only what is below\n"
	       "                                this directory; it sees everything\n"
	       "  -h, --help                    show this\n");
}

/* The value of --name=VALUE, or NULL if arg is another option. */
static const char *value_of(const char *arg, const char *name)
{
	size_t len = strlen(name);

	return strncmp(arg, name, len) == 0 && arg[len] == '=' ? arg + len + 1 : NULL;
}

static int parse(struct keygen_args *a, int argc, char **argv)
{
	bool words = false;

	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];

		if (words || arg[0] != '-' || arg[1] == '\0') {
			if (a->file != NULL)
				return usage(arg, "too many arguments");
			a->file = arg;
		} else if (strcmp(arg, "--") == 0) {
			words = true;
		} else if (strcmp(arg, "--read-only") == 0) {
			a->read_only = true;
		} else if (value_of(arg, "--id") != NULL) {
			a->id = value_of(arg, "--id");
		} else if (value_of(arg, "--tree") != NULL) {
			a->tree = value_of(arg, "--tree");
		} else if (strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0) {
			a->help = true;
			return 0;
		} else if (strcmp(arg, "--id") == 0 || strcmp(arg, "--tree") == 0) {
			return usage(arg, "its value is missing, as in --id=NAME");
		} else {
			return usage(arg, "unknown option");
		}
	}
	if (a->file == NULL || a->file[0] == '\0')
		return usage("keygen", "FILE is missing");
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
		return usage("--id", "a name of 1 to 64 letters, digits and . _ @ - is wanted");
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
	return key_validate(k) < 0 ? usage("keygen", err_last()) : 0;
}

int cmd_keygen(int argc, char **argv)
{
	struct keygen_args a = { 0 };
	struct net_key k = { 0 };
	int r = parse(&a, argc, argv);

	if (r != 0)
		return r;
	if (a.help) {
		help();
		return 0;
	}
	r = fill(&a, &k);
	if (r == 0) {
		int error = strcmp(a.file, "-") == 0 ? key_write(STDOUT_FILENO, &k) : key_create(a.file, &k);

		r = error < 0 ? failed(&a, error) : 0;
	}
	key_release(&k);
	return r;
}
