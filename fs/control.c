/* SPDX-License-Identifier: MIT
 *
 * control: see control.h.
 */
#include "fs/control.h"

#include "fs/fs.h"
#include "fs/ops.h"
#include "fs/remote.h"
#include "fs/status.h"
#include "fs/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	CONTROL_DIR = 0,
	CONTROL_CHECKPOINT,
	CONTROL_DEMOTE,
	CONTROL_PROMOTE,
	CONTROL_SYNC,
	CONTROL_VERSION,
	CONTROL_WATCH,          /* a directory */
	CONTROL_STATUS,         /* in listings; the texts themselves begin at CONTROL_TEXT: even ones, */
	CONTROL_LOCKS,          /* odd ones */
	CONTROL_TEXT = 16,
};

struct control_text {
	uint64_t ino;           /* 0: unused */
	size_t len;
	char *text;
};

/* Changes from a number on, see watch.h. */
struct watch_text {
	uint64_t ino;           /* 0: unused */
	uint64_t from;
	size_t len;
	char text[WATCH_TEXT];
};

struct control {
	uint64_t next_watch;    /* number of the next text of changes */
	struct watch_text watches[CONTROL_WATCHES];
	uint64_t next;          /* number of the next text */
	time_t started;
	uid_t uid;
	gid_t gid;
	struct control_text texts[CONTROL_TEXTS];
};

static const char version_text[] = "msyncfs " MSYNCFS_VERSION "\n";

static const struct {
	const char *name;
	unsigned number;
	mode_t mode;
} control_files[] = {
	{ ".", CONTROL_DIR, S_IFDIR | 0555 },
	{ "..", CONTROL_DIR, S_IFDIR | 0555 },
	{ "checkpoint", CONTROL_CHECKPOINT, S_IFREG | 0200 },
	{ "demote", CONTROL_DEMOTE, S_IFREG | 0200 },
	{ "locks", CONTROL_LOCKS, S_IFREG | 0444 },
	{ "promote", CONTROL_PROMOTE, S_IFREG | 0200 },
	{ "status", CONTROL_STATUS, S_IFREG | 0444 },
	{ "sync", CONTROL_SYNC, S_IFREG | 0200 },
	{ "version", CONTROL_VERSION, S_IFREG | 0444 },
	{ "watch", CONTROL_WATCH, S_IFDIR | 0500 },
};

#define CONTROL_FILES (sizeof control_files / sizeof control_files[0])

int control_init(struct fs *fs)
{
	fs->control = calloc(1, sizeof *fs->control);
	if (fs->control == NULL)
		return -ENOMEM;
	fs->control->started = time(NULL);
	fs->control->uid = getuid();
	fs->control->gid = getgid();
	return 0;
}

void control_release(struct fs *fs)
{
	for (unsigned i = 0; fs->control != NULL && i < CONTROL_TEXTS; i++)
		free(fs->control->texts[i].text);
	free(fs->control);
	fs->control = NULL;
}

bool control_is_name(uint64_t dir, const char *name, size_t len)
{
	return dir == KEYS_ROOT_INO && len == sizeof CONTROL_NAME - 1 && memcmp(name, CONTROL_NAME, len) == 0;
}

bool control_entry(unsigned n, const char **ret_name, struct stat *ret_stat)
{
	if (n >= CONTROL_FILES)
		return false;
	*ret_name = control_files[n].name;
	*ret_stat = (struct stat){ .st_ino = CONTROL_FIRST + control_files[n].number,
				   .st_mode = control_files[n].mode };
	return true;
}

/* All locks; without memory, or links to other machines, none. */
static size_t locks_text(struct fs *fs, char **ret)
{
	size_t len = remote_locks(fs->remote, NULL, 0);

	*ret = len > 0 ? malloc(len + 1) : NULL;
	return *ret != NULL ? remote_locks(fs->remote, *ret, len + 1) : 0;
}

static size_t status_text(struct fs *fs, char **ret)
{
	*ret = malloc(STATUS_MAX);
	return *ret != NULL ? status_to_text(fs, *ret, STATUS_MAX) : 0;
}

static void drop_text(struct control_text *t)
{
	free(t->text);
	*t = (struct control_text){ 0 };
}

/* The text of ino, made now if it was never made or has been dropped. */
static const struct control_text *get_text(struct fs *fs, uint64_t ino)
{
	struct control_text *t = &fs->control->texts[ino / 2 % CONTROL_TEXTS];

	if (t->ino != ino) {
		drop_text(t);
		t->len = (ino - CONTROL_FIRST) % 2 != 0 ? locks_text(fs, &t->text) : status_text(fs, &t->text);
		t->ino = ino;
	}
	return t;
}

int control_getattr(struct fs *fs, uint64_t ino, struct stat *ret_stat)
{
	uint64_t number = ino - CONTROL_FIRST;
	const char *name;
	struct stat st = { 0 };

	/* Each look-up has an inode of its own, but what stat() shows for a name stays: cp compares it before and after it opens. */
	if (number >= CONTROL_WATCH_TEXT) {
		const struct watch_text *w = &fs->control->watches[ino % CONTROL_WATCHES];

		/* Later ones have taken its place. */
		if (w->ino != ino)
			return -ESTALE;
		st.st_ino = CONTROL_FIRST + CONTROL_WATCH_TEXT + w->from % CONTROL_WATCH_TEXT;
		st.st_mode = S_IFREG | 0400;
		st.st_size = (off_t)w->len;
	} else if (number >= CONTROL_TEXT) {
		st.st_ino = CONTROL_FIRST + (number % 2 != 0 ? CONTROL_LOCKS : CONTROL_STATUS);
		st.st_mode = S_IFREG | 0444;
		st.st_size = (off_t)get_text(fs, ino)->len;
	} else {
		bool found = false;

		/* The last, so that the directory is "..", which is as good. */
		for (unsigned n = 0; !found && control_entry(n, &name, &st); n++)
			found = st.st_ino == ino;
		if (!found)
			return -ENOENT;
		if (number == CONTROL_VERSION)
			st.st_size = (off_t)(sizeof version_text - 1);
	}
	st.st_nlink = S_ISDIR(st.st_mode) ? 2 : 1;
	st.st_uid = fs->control->uid;
	st.st_gid = fs->control->gid;
	st.st_blksize = 4096;
	st.st_blocks = (st.st_size + 511) / 512;
	st.st_atime = st.st_mtime = st.st_ctime = fs->control->started;
	*ret_stat = st;
	return 0;
}

/* The name is the number of a change. */
static int lookup_watch(struct fs *fs, const char *name, uint64_t *ret_ino)
{
	struct control *c = fs->control;
	struct watch_text *w;
	uint64_t from = 0, ino;
	size_t len;
	int r;

	for (const char *p = name; *p != '\0'; p++) {
		if (*p < '0' || *p > '9' || p - name >= 19)
			return -ENOENT;
		from = from * 10 + (uint64_t)(*p - '0');
	}
	ino = CONTROL_FIRST + CONTROL_WATCH_TEXT + c->next_watch;
	w = &c->watches[ino % CONTROL_WATCHES];
	r = watch_to_text(fs, remote_feed(fs->remote), from, w->text, sizeof w->text, &len);
	if (r < 0)
		return r;
	c->next_watch++;
	w->ino = *ret_ino = ino;
	w->from = from;
	w->len = len;
	return 0;
}

int control_lookup(struct fs *fs, uint64_t dir, const char *name,
		   struct fuse_entry_param *ret_entry)
{
	uint64_t ino = 0;
	int r = 0;

	*ret_entry = (struct fuse_entry_param){ 0 };
	if (dir == KEYS_ROOT_INO || strcmp(name, ".") == 0) {
		/* "." is how a file handle finds its inode again, and then it need not be a
		 * directory. */
		ino = dir == KEYS_ROOT_INO ? CONTROL_FIRST : dir;
	} else if (dir == CONTROL_FIRST + CONTROL_WATCH) {
		r = lookup_watch(fs, name, &ino);
		if (r < 0)
			return r;
	} else if (dir != CONTROL_FIRST) {
		return -ENOTDIR;
	} else if (strcmp(name, "status") == 0 || strcmp(name, "locks") == 0) {
		ino = CONTROL_FIRST + CONTROL_TEXT + 2 * fs->control->next++ + (*name == 'l');
	} else {
		for (unsigned n = 2; n < CONTROL_FILES; n++)
			if (strcmp(name, control_files[n].name) == 0)
				ino = CONTROL_FIRST + control_files[n].number;
	}
	if (ino == 0)
		return -ENOENT;
	r = control_getattr(fs, ino, &ret_entry->attr);
	if (r < 0)
		return r;
	ret_entry->ino = ino;
	/* Only the directory itself is the same for ever. */
	if (ino == CONTROL_FIRST)
		ret_entry->entry_timeout = ret_entry->attr_timeout = FS_FOREVER_S;
	return 0;
}

void control_forget(struct fs *fs, uint64_t ino)
{
	struct control_text *t = &fs->control->texts[ino / 2 % CONTROL_TEXTS];

	if (t->ino == ino)
		drop_text(t);
}

int control_read(struct fs *fs, uint64_t ino, uint64_t off, size_t size, const char **ret_text,
		 size_t *ret_size)
{
	uint64_t number = ino - CONTROL_FIRST;
	const char *text = version_text;
	size_t len = sizeof version_text - 1;

	if (number >= CONTROL_WATCH_TEXT) {
		const struct watch_text *w = &fs->control->watches[ino % CONTROL_WATCHES];

		if (w->ino != ino)
			return -ESTALE;
		text = w->text;
		len = w->len;
	} else if (number >= CONTROL_TEXT) {
		const struct control_text *t = get_text(fs, ino);

		text = t->text != NULL ? t->text : "";
		len = t->len;
	} else if (number == CONTROL_DIR || number == CONTROL_WATCH) {
		return -EISDIR;
	} else if (number != CONTROL_VERSION) {
		return -EACCES;
	}
	if (off > len)
		off = len;
	*ret_text = text + off;
	*ret_size = size < len - off ? size : len - off;
	return 0;
}

bool control_is_sync(uint64_t ino)
{
	return ino == CONTROL_FIRST + CONTROL_SYNC;
}

#define NUMBER_DIGITS 9u

/* A number of at most NUMBER_DIGITS digits at *at. */
static bool take_number(const char *data, size_t size, size_t *at, unsigned *ret)
{
	size_t first = *at;

	*ret = 0;
	for (; *at < size && data[*at] >= '0' && data[*at] <= '9' && *at - first < NUMBER_DIGITS; ++*at)
		*ret = *ret * 10 + (unsigned)(data[*at] - '0');
	return *at > first;
}

bool control_parse_sync(const char *data, size_t size, unsigned *ret_replicas, unsigned *ret_ms)
{
	size_t at = 0;

	if (!take_number(data, size, &at, ret_replicas) || at == size || data[at++] != ' ' || !take_number(data, size, &at, ret_ms))
		return false;
	if (at < size && data[at] == '\n')
		at++;
	return at == size;
}

/* One line, or what is one but for its end; it goes into messages too. */
static bool take_line(const char *data, size_t size, char *line, size_t room)
{
	if (size > 0 && data[size - 1] == '\n')
		size--;
	if (size >= room)
		return false;
	for (size_t i = 0; i < size; i++)
		if ((unsigned char)data[i] < ' ' || data[i] == 127)
			return false;
	memcpy(line, data, size);
	line[size] = '\0';
	return true;
}

int control_write(struct fs *fs, uint64_t ino, const char *data, size_t size)
{
	char name[256];

	switch (ino - CONTROL_FIRST) {
	case CONTROL_CHECKPOINT:
		return ops_hold_checkpoint(fs);
	case CONTROL_PROMOTE:
		return fs->remote != NULL ? remote_promote(fs->remote) : -EINVAL;
	case CONTROL_DEMOTE:
		if (fs->remote == NULL || !take_line(data, size, name, sizeof name))
			return -EINVAL;
		return remote_demote(fs->remote, name);
	default:
		return -EACCES;
	}
}
