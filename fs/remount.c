/* SPDX-License-Identifier: MIT
 *
 * remount: see remount.h. What mount(8) hands over is not only what somebody asked for: it adds the words of fstab and of the
 * mount table. So each word is compared with what holds now, which the daemon says in its status.
 */
#include "fs/remount.h"

#include "fs/ask.h"
#include "fs/cmd.h"
#include "fs/log.h"
#include "fs/mnt.h"
#include "fs/options.h"
#include "fs/say.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define STATUS_SIZE 65536

/* Flags that stay as they are, since nobody can name them here. */
static const struct { unsigned long st, ms; } kept_flags[] = {
	{ ST_NOATIME, MS_NOATIME }, { ST_NODIRATIME, MS_NODIRATIME }, { ST_RELATIME, MS_RELATIME },
	{ ST_SYNCHRONOUS, MS_SYNCHRONOUS }, { ST_MANDLOCK, MS_MANDLOCK },
};

/* The text of the status. To be freed; NULL after an error was printed. */
static char *read_status(const char *path)
{
	char *text = malloc(STATUS_SIZE);
	bool found;
	int r = ask_open(path, "status", O_RDONLY, &found);

	if (r >= 0)
		r = text != NULL ? ask_read(r, text, STATUS_SIZE) : (close(r), -ENOMEM);
	if (r >= 0)
		return text;
	say_mount(path, found, -r);
	free(text);
	return NULL;
}

/* The value of a name of the status, out of its quotes; in place of what stood there. NULL: it has none. */
static char *value_of(char *status, const char *name)
{
	size_t len = strlen(name);
	char *at = status, *to, *value;

	while (strncmp(at, name, len) != 0 || at[len] != '=') {
		at = strchr(at, '\n');
		if (at == NULL)
			return NULL;
		at++;
	}
	value = to = at += len + 1;
	/* 'a'\''b' is how a quote stands between quotes. */
	for (; *at != '\0' && *at != '\n'; at++) {
		if (*at == '\\' && at[1] != '\0')
			*to++ = *++at;
		else if (*at == '\\' || *at != '\'')
			*to++ = *at;
		else
			for (at++; *at != '\0' && *at != '\''; at++)
				*to++ = *at;
	}
	*to = '\0';
	return value;
}

static unsigned long flags_for_kernel(const struct statvfs *st, const struct options *o)
{
	unsigned long flags = MS_REMOUNT | (o->read_only ? MS_RDONLY : 0) | (o->nosuid ? MS_NOSUID : 0) |
			      (o->nodev ? MS_NODEV : 0) | (o->noexec ? MS_NOEXEC : 0) | (o->nosymfollow ? MS_NOSYMFOLLOW : 0);

	for (size_t i = 0; i < sizeof kept_flags / sizeof kept_flags[0]; i++)
		flags |= (st->f_flag & kept_flags[i].st) != 0 ? kept_flags[i].ms : 0;
	return flags;
}

/* The first option of the store that would not be as it is. */
static bool find_change(const struct options *now, const struct options *then, char *word, size_t size)
{
	char has[OPTIONS_WORD_MAX];

	/* Number 0 is ro or rw, of which the kernel can change its part. */
	for (unsigned n = 1; options_word(now, n, has, sizeof has); n++) {
		options_word(then, n, word, size);
		if (strcmp(has, word) != 0)
			return true;
	}
	return false;
}

static int apply(const char *path, const struct statvfs *st, const struct options *now, const struct options *then,
		 const char *state)
{
	char word[OPTIONS_WORD_MAX];

	if (find_change(now, then, word, sizeof word)) {
		log_error("%s: %s: an option of the store cannot be changed by a remount: unmount it, and mount it with that", path,
			  word);
		return EXIT_USAGE;
	}
	if (!then->read_only && (now->read_only || strcmp(state, "ok") != 0)) {
		log_error("%s: rw: its daemon %s: unmount it, and mount it again", path,
			  now->read_only ? "has opened the store for reading only" : "takes no changes any more (see its status)");
		return EXIT_FAILED;
	}
	if (mount(NULL, path, NULL, flags_for_kernel(st, then), NULL) == 0)
		return 0;
	if (errno == EBUSY)
		log_error("%s: cannot be remounted: files are open for writing: close them, and try again", path);
	else if (errno == EPERM)
		log_error("%s: cannot be remounted: %s: only root may", path, strerror(errno));
	else
		say_errno(SAY_DIR, path, "cannot be remounted", errno);
	return EXIT_FAILED;
}

int remount(int argc, char **argv, const char *store, const char *path)
{
	struct options now, then;
	struct mnt_info info;
	struct statvfs st;
	char *status = NULL, *text, *state;
	int r = EXIT_FAILED;

	options_default(&now);
	options_default(&then);
	if (mnt_find(path, &info) < 0 || !mnt_is_ours(&info)) {
		log_error("%s: remount: no msyncfs is mounted there: mount it without remount", path);
		goto out;
	}
	if (strcmp(store, info.source) != 0 && strcmp(store, "none") != 0) {
		log_error("%s: remount: %s is mounted there, not %s: name that, or unmount it", path, info.source, store);
		goto out;
	}
	status = read_status(path);
	if (status == NULL)
		goto out;
	/* The later one first: its end becomes that of the text. */
	text = value_of(status, "options");
	state = value_of(status, "state");
	if (text == NULL || state == NULL) {
		log_error("%s: remount: its daemon is of an older version: unmount it, and mount it again", path);
		goto out;
	}
	if (statvfs(path, &st) < 0) {
		say_errno(SAY_DIR, path, NULL, errno);
		goto out;
	}
	r = options_add_words(&now, text);
	if (r == 0)
		r = options_add_words(&then, text);
	/* As mount(2) has it: what is not named is off. Of what is on mount(8) names all that is to stay, and of what is to be
	 * off nothing. */
	then.read_only = then.nosuid = then.nodev = then.noexec = then.nosymfollow = false;
	if (r == 0)
		r = options_add(&then, argc, argv);
	if (r == 0)
		r = apply(path, &st, &now, &then, state);
out:
	free(status);
	options_release(&now);
	options_release(&then);
	return r;
}
