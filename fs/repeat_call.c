/* SPDX-License-Identifier: MIT
 *
 * repeat_call: the thread that repeats changes as system calls through our own mount; see repeat.h.
 *
 * What it opens is opened by name only as O_PATH | O_NOFOLLOW, and used after it was found to be the inode that is meant: the
 * kernel may have another file, a symbolic link or a device under the name by then, and answers from its cache without
 * asking us. Nothing outside the mount can be reached so.
 *
 * Tried with Linux 6.18. Assumed of others: open_tree() (5.2), file handles of FUSE that are a number and a generation
 * (FILEID_INO64_GEN of fs/fuse/inode.c, as long as there is FUSE), events as in include/linux/fsnotify.h.
 */
#include "fs/repeat_int.h"

#include "core/base.h"
#include "fs/control.h"
#include "fs/device.h"
#include "fs/log.h"
#include "fs/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

/* That a file was closed is in no change. Nothing written for so long: it was, most likely. A new one that is empty may
 * still be about to be written. */
#define QUIET_MS      100
#define EMPTY_MS      500
#define IDLE_MS       250       /* look after the mount table at least so often */
#define TABLE_STEPS   64u       /* and after so many calls */
#define GONE_LOOKS    3u        /* in a row that must not find the mount there */
#define TRIES         3u        /* of a name that somebody looks up again and again */
#define FUSE_HANDLE   0x81      /* FILEID_INO64_GEN */

/* ---- The way to the mount ---- */

static void close_dirs(struct repeat *r)
{
	for (unsigned i = 0; i < 2; i++) {
		if (r->dirs[i].fd >= 0)
			close(r->dirs[i].fd);
		r->dirs[i].fd = -1;
		r->dirs[i].ino = 0;
	}
}

static void leave(struct repeat *r)
{
	atomic_store(&r->state, REPEAT_OFF);
	close_dirs(r);
	/* Perhaps the last that held the mount: its end is answered by the request thread. */
	if (r->root >= 0)
		close(r->root);
	if (r->tree >= 0)
		close(r->tree);
	if (r->table >= 0)
		close(r->table);
	r->root = r->tree = r->table = -1;
}

/* Is the mount in the table of this name space? A table that cannot be read to its end (no memory, no descriptor) does not say
 * that it is gone: -errno. Before Linux 5.8 a line can be missing while others come and go. */
static int is_mounted(const struct repeat *r)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	unsigned major, minor;
	char *line = NULL;
	bool found = false;
	size_t size = 0;
	int error = 0;

	if (f == NULL)
		return -errno;
	errno = 0;
	while (!found && getline(&line, &size, f) > 0)
		found = sscanf(line, "%*u %*u %u:%u ", &major, &minor) == 2 && makedev(major, minor) == r->dev;
	if (!found && !feof(f))
		error = errno != 0 ? -errno : -EIO;
	free(line);
	fclose(f);
	return found ? 1 : error;
}

/* The kernel says once, by POLLPRI, that the table has changed. */
static bool still_mounted(struct repeat *r)
{
	struct pollfd p = { .fd = r->table, .events = POLLPRI };

	if (poll(&p, 1, 0) > 0)
		r->table_moved = true;
	if (!r->table_moved)
		return true;
	for (unsigned i = 0; i < GONE_LOOKS; i++) {
		int found = is_mounted(r);

		/* It is looked at again, as long as that cannot be known. */
		r->table_moved = found < 0;
		if (found != 0)
			return true;
	}
	log_debug("%s: no longer in the mount table: inotify tells nothing more of changes made elsewhere", r->fs->mountpoint);
	return false;
}

static int dir_by_handle(const struct repeat *r, uint64_t ino)
{
	union {
		struct file_handle h;
		char room[sizeof(struct file_handle) + 12];
	} u = { .h = { .handle_bytes = 12, .handle_type = FUSE_HANDLE } };
	uint32_t words[3] = { (uint32_t)(ino >> 32), (uint32_t)ino, 0 };

	memcpy(u.h.f_handle, words, sizeof words);
	return open_by_handle_at(r->root, &u.h, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Why not: 0, or an errno. */
static int arrive(struct repeat *r)
{
	char name[sizeof CONTROL_NAME + NONCE_BYTES + 2];
	struct stat st;
	int fd;

	r->table = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	if (r->table < 0)
		return errno;
	r->tree = open_tree(AT_FDCWD, r->fs->mountpoint, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (r->tree < 0)
		return errno;
	/* open_by_handle_at() takes no O_PATH descriptor. */
	r->root = openat(r->tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->root < 0 || fstat(r->root, &st) < 0)
		return errno;
	r->dev = st.st_dev;
	/* Is it ours, and as whom does it know us? */
	snprintf(name, sizeof name, CONTROL_NAME "/%s", r->nonce);
	(void)fstatat(r->root, name, &st, 0);
	if (atomic_load(&r->pid) == 0)
		return ENODEV;
	if (faccessat(r->root, ".", W_OK, AT_EACCESS) < 0)
		return errno;
	fd = dir_by_handle(r, KEYS_ROOT_INO);
	if (fd < 0)
		return errno;
	close(fd);
	return is_mounted(r) != 0 ? 0 : ENOENT;
}

/* A descriptor of a directory that the kernel holds, ours until close_dirs() or two others were asked for. */
static int dir_of(struct repeat *r, uint64_t ino)
{
	unsigned i = r->dirs[0].ino == ino ? 0 : 1;
	struct { uint64_t ino; int fd; } last;

	if (ino == KEYS_ROOT_INO)
		return r->root;
	if (r->dirs[i].ino != ino) {
		if (r->dirs[1].fd >= 0)
			close(r->dirs[1].fd);
		r->dirs[1].fd = dir_by_handle(r, ino);
		r->dirs[1].ino = r->dirs[1].fd >= 0 ? ino : 0;
	}
	/* The other place is the next to go. */
	if (i == 1) {
		memcpy(&last, &r->dirs[1], sizeof last);
		r->dirs[1] = r->dirs[0];
		memcpy(&r->dirs[0], &last, sizeof last);
	}
	return r->dirs[0].fd;
}

/* ---- Telling the kernel to ask again ---- */

static void forget_name(const struct repeat *r, uint64_t dir, const char *name, uint32_t len)
{
	struct fuse_notify_inval_entry_out out = { .parent = dir, .namelen = len };
	struct fuse_out_header header = { .error = FUSE_NOTIFY_INVAL_ENTRY, .len = (uint32_t)(sizeof header + sizeof out + len + 1) };
	struct iovec iov[3] = { { &header, sizeof header }, { &out, sizeof out }, { (void *)(uintptr_t)name, len + 1 } };

	(void)device_notify(r->fs->fd, iov, 3);
}

static void forget_attr(const struct repeat *r, uint64_t ino)
{
	struct fuse_notify_inval_inode_out out = { .ino = ino, .off = -1 };
	struct fuse_out_header header = { .error = FUSE_NOTIFY_INVAL_INODE, .len = sizeof header + sizeof out };
	struct iovec iov[2] = { { &header, sizeof header }, { &out, sizeof out } };

	(void)device_notify(r->fs->fd, iov, 2);
}

/* ---- The calls ---- */

static int make(int dir, const struct step *s)
{
	switch (s->type) {
	case S_IFDIR:
		return mkdirat(dir, s->name, 0700);
	case S_IFLNK:
		return symlinkat(".", dir, s->name);
	default:
		return mknodat(dir, s->name, s->type | 0600, 0);
	}
}

static int create(struct repeat *r, const struct step *s)
{
	int dir = dir_of(r, s->dir), result = -1;

	for (unsigned i = 0; dir >= 0 && i < TRIES; i++) {
		forget_name(r, s->dir, s->name, s->name_len);
		result = make(dir, s);
		if (result == 0 || errno != EEXIST)
			break;
	}
	return result;
}

static int delete(struct repeat *r, const struct step *s)
{
	int dir = dir_of(r, s->dir);

	if (dir < 0)
		return -1;
	forget_name(r, s->dir, s->name, s->name_len);
	return unlinkat(dir, s->name, s->type == S_IFDIR ? AT_REMOVEDIR : 0);
}

static int rename_step(struct repeat *r, const struct step *s)
{
	int from = dir_of(r, s->dir), to = dir_of(r, s->to_dir), result = -1;

	for (unsigned i = 0; from >= 0 && to >= 0 && i < TRIES; i++) {
		forget_name(r, s->dir, s->name, s->name_len);
		forget_name(r, s->to_dir, s->to_name, s->to_len);
		result = renameat2(from, s->name, to, s->to_name, RENAME_NOREPLACE);
		if (result == 0 || errno != EEXIST)
			break;
	}
	return result;
}

/* An O_PATH descriptor of what is meant, and a path to it that leads nowhere else. */
static int find(struct repeat *r, const struct step *s, char path[64], struct stat *st)
{
	int dir = s->dir != 0 ? dir_of(r, s->dir) : -1, fd;

	if (s->dir == 0)
		fd = s->ino == KEYS_ROOT_INO ? dup(r->root) : dir_by_handle(r, s->ino);
	else
		fd = dir < 0 ? -1 : openat(dir, s->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (fstat(fd, st) < 0 || st->st_dev != r->dev || (st->st_mode & S_IFMT) != s->type ||
	    (st->st_ino != s->ino && st->st_ino != s->fake)) {
		close(fd);
		errno = ESTALE;
		return -1;
	}
	snprintf(path, 64, "/proc/self/fd/%d", fd);
	return fd;
}

static int on_file(struct repeat *r, const struct step *s)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_NOW } };
	char path[64];
	struct stat st;
	int fd, result, opened;

	if (s->kind != STEP_CLOSE)
		forget_attr(r, s->ino);
	fd = find(r, s, path, &st);
	if (fd < 0)
		return -1;
	switch (s->kind) {
	case STEP_ATTRIB:
		result = utimensat(fd, "", times, AT_EMPTY_PATH);
		break;
	case STEP_MODIFY:
		result = s->type == S_IFREG ? truncate(path, st.st_size) : 0;
		break;
	default:
		opened = s->type == S_IFREG ? open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) : -1;
		result = opened < 0 ? -1 : close(opened);
	}
	close(fd);
	return result;
}

static void run(struct repeat *r, const struct step *s)
{
	static int (*const calls[])(struct repeat *r, const struct step *s) = {
		[STEP_CREATE] = create, [STEP_DELETE] = delete, [STEP_RENAME] = rename_step,
		[STEP_MODIFY] = on_file, [STEP_CLOSE] = on_file, [STEP_ATTRIB] = on_file,
	};
	int result;

	pthread_mutex_lock(&r->lock);
	r->now = *s;
	r->now.fake = REPEAT_FIRST | ++r->fakes;
	r->busy = true;
	pthread_mutex_unlock(&r->lock);
	/* Ours alone while we are at it: the request thread only reads it. */
	result = calls[s->kind](r, &r->now);
	pthread_mutex_lock(&r->lock);
	r->busy = false;
	r->done += result == 0;
	r->failed += result != 0;
	pthread_mutex_unlock(&r->lock);
}

/* ---- Closing what was written ---- */

static void run_close(struct repeat *r, struct closing *c)
{
	c->ino = 0;
	run(r, &c->step);
}

static void close_now(struct repeat *r, uint64_t ino)
{
	for (unsigned i = 0; i < CLOSES_MAX; i++)
		if (r->closes[i].ino == ino && ino != 0)
			run_close(r, &r->closes[i]);
}

static void close_later(struct repeat *r, const struct step *s)
{
	struct closing *c = NULL;

	for (unsigned i = 0; i < CLOSES_MAX; i++) {
		if (r->closes[i].ino == s->ino) {
			c = &r->closes[i];
			break;
		}
		if (c == NULL || (c->ino != 0 && (r->closes[i].ino == 0 || r->closes[i].due_ms < c->due_ms)))
			c = &r->closes[i];
	}
	if (c->ino != 0 && c->ino != s->ino)
		run_close(r, c);
	c->ino = s->ino;
	c->due_ms = clock_mono_ms() + (s->kind == STEP_CREATE ? EMPTY_MS : QUIET_MS);
	c->step = *s;
	c->step.kind = STEP_CLOSE;
}

/* Close what is due. Returns when the next one is, in ms from now; -1: none. */
static int close_due(struct repeat *r)
{
	int64_t now = clock_mono_ms(), next = -1;

	for (unsigned i = 0; i < CLOSES_MAX; i++) {
		if (r->closes[i].ino == 0)
			continue;
		if (r->closes[i].due_ms <= now)
			run_close(r, &r->closes[i]);
		else if (next < 0 || r->closes[i].due_ms - now < next)
			next = r->closes[i].due_ms - now;
	}
	return (int)next;
}

/* ---- The thread ---- */

static struct step *take(struct repeat *r)
{
	struct step *s;

	pthread_mutex_lock(&r->lock);
	s = r->first;
	if (s != NULL) {
		r->first = s->next;
		if (r->first == NULL)
			r->end = &r->first;
		r->count--;
	}
	pthread_mutex_unlock(&r->lock);
	return s;
}

static void run_step(struct repeat *r, const struct step *s)
{
	/* In the order in which a program does it. */
	if (s->kind == STEP_RENAME || s->kind == STEP_DELETE || s->kind == STEP_ATTRIB)
		close_now(r, s->ino);
	run(r, s);
	if (s->kind == STEP_MODIFY || s->closes)
		close_later(r, s);
}

/* Sleep until there is something to do. */
static void wait_news(struct repeat *r, int ms)
{
	struct pollfd p[2] = { { .fd = r->wake_fd, .events = POLLIN }, { .fd = r->table, .events = POLLPRI } };
	uint64_t n;

	close_dirs(r);
	atomic_store(&r->asleep, true);
	pthread_mutex_lock(&r->lock);
	if (r->first != NULL)
		ms = 0;
	pthread_mutex_unlock(&r->lock);
	if (atomic_load(&r->stop))
		ms = 0;
	if (poll(p, 2, ms < 0 || ms > IDLE_MS ? IDLE_MS : ms) > 0 && p[1].revents != 0)
		r->table_moved = true;
	atomic_store(&r->asleep, false);
	/* Nothing to be read is fine, too. */
	if (read(r->wake_fd, &n, sizeof n) < 0)
		n = 0;
}

static void serve(struct repeat *r)
{
	unsigned steps = 0;

	while (!atomic_load(&r->stop)) {
		struct step *s = take(r);
		int ms;

		if (s == NULL || ++steps % TABLE_STEPS == 0)
			if (!still_mounted(r)) {
				free(s);
				return;
			}
		ms = close_due(r);
		if (s != NULL)
			run_step(r, s);
		else
			wait_news(r, ms);
		free(s);
	}
}

void *repeat_main(void *arg)
{
	struct repeat *r = arg;
	int error;

	session_block_signals();
	error = arrive(r);
	if (error == 0) {
		atomic_store(&r->state, REPEAT_ON);
		serve(r);
	} else if (!atomic_load(&r->stop)) {
		log_info("%s: inotify will not tell of changes made elsewhere: %s", r->fs->mountpoint,
			 error == EPERM ? "only root's mounts can" : strerror(error));
	}
	leave(r);
	atomic_store(&r->ended, true);
	return NULL;
}
