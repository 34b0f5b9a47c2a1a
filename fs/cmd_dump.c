/* SPDX-License-Identifier: MIT
 *
 * cmd_dump: `msyncfs dump STORE [FILE]`: all of a store as a stream. A store that a daemon has open
 * is read as of its last checkpoint, which the daemon is asked to make just before.
 */
#include "fs/cmd.h"
#include "fs/control.h"
#include "fs/holder.h"
#include "fs/log.h"
#include "fs/lost.h"
#include "fs/mnt.h"
#include "fs/progress.h"
#include "fs/say.h"

#include "core/base.h"
#include "core/store/map.h"
#include "core/store/store.h"
#include "core/store/super.h"
#include "core/stream/outfile.h"
#include "core/stream/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WAIT_S 10               /* for a daemon that is closing the store */
#define SERVED_WAIT_MS 1000     /* for one that serves it, although its mount is gone */
#define ASK_MS 30000            /* for a checkpoint that is being written already */
#define NAP_MS 10

struct dump_args {
	const char *store, *file;       /* file: NULL = standard output */
	bool quiet;
};

static int parse_option(void *ctx, struct cmd_args *args, const char *arg)
{
	struct dump_args *a = ctx;

	(void)args;
	return cmd_quiet("dump", arg, &a->quiet);
}

static const struct cmd_syntax syntax = {
	"dump", "STORE",
	"usage: msyncfs dump [options] STORE [FILE]\n\n"
	"Write all that is in STORE as a stream to FILE, or to standard output.\n"
	"STORE may be mounted: the stream is then that of one moment.\n\n"
	"  -q, --quiet                   show no progress\n"
	"  -h, --help                    show this\n",
	2, parse_option,
};

static int parse(struct dump_args *a, int argc, char **argv)
{
	const char *words[CMD_WORDS];
	int r = cmd_parse(&syntax, argc, argv, a, words);

	if (r != CMD_GO_ON)
		return r;
	a->store = words[0];
	a->file = cmd_file(words[1]);
	if (a->file != NULL && *a->file == '\0')
		return cmd_usage("dump", "dump", "FILE is empty");
	return CMD_GO_ON;
}

/* ---- The store ---- */

/* Where the store's superblock says that it is mounted, if it is mounted there. NULL, or why not. */
static const char *find_mount(const char *store, char *mountpoint, size_t size)
{
	struct stat a, b;
	struct mnt_info info;
	struct super sb = { 0 };
	int fd = open(store, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int r = -EUCLEAN;

	if (fd >= 0)
		r = super_read(fd, &sb);
	if (fd >= 0)
		close(fd);
	if ((r < 0 && r != -EROFS) || sb.holder_mount[0] == '\0')
		return "it is not mounted";
	snprintf(mountpoint, size, "%s", sb.holder_mount);
	if (mnt_find(mountpoint, &info) < 0 || !mnt_is_ours(&info))
		return "its mount is not seen from here";
	if (stat(store, &a) != 0 || stat(info.source, &b) != 0 || a.st_dev != b.st_dev ||
	    a.st_ino != b.st_ino)
		return "something else is mounted there";
	return NULL;
}

/* Ask the daemon for a checkpoint; it answers when that is on disk. NULL, or why not. */
static const char *ask_checkpoint(const char *store)
{
	const struct timespec nap = { .tv_nsec = NAP_MS * 1000000 };
	char mountpoint[SB_MOUNT_LEN], path[SB_MOUNT_LEN + 32];
	const char *why = find_mount(store, mountpoint, sizeof mountpoint);
	int fd, error = 0;

	if (why != NULL)
		return why;
	snprintf(path, sizeof path, "%s/" CONTROL_NAME "/checkpoint", mountpoint);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == EACCES ? "the mount is not ours" : strerror(errno);
	for (int ms = 0; ms < ASK_MS; ms += NAP_MS) {
		error = write(fd, "1\n", 2) < 0 ? errno : 0;
		if (error != EAGAIN && error != EINTR)
			break;
		nanosleep(&nap, NULL);
	}
	close(fd);
	return error != 0 ? strerror(error) : NULL;
}

static int open_failed(const char *store, int r)
{
	say_error(SAY_STORE, store, "cannot be opened", r);
	return EXIT_FAILED;
}

/* Beside a daemon that goes on serving it the last checkpoint is read; only for one that closes it is it worth waiting. */
static int wait_for_holder(void *ctx, unsigned pid, unsigned waited_ms)
{
	unsigned minor;

	(void)ctx;
	return waited_ms >= SERVED_WAIT_MS && pid != 0 && holder_serves(pid, &minor) ? err_set(EBUSY, "in use by process %u", pid) : 0;
}

static int open_store(const char *store, struct keys **ret_keys)
{
	struct store_options so = { .path = store, .read_only = true, .wait_s = WAIT_S, .waiting = wait_for_holder };
	const char *why;
	int r;

	if (strcmp(store, ":memory:") == 0)
		return cmd_usage("dump", store, "a store in memory can be dumped by nobody but its mount");
	r = keys_open(&so, ret_keys);
	if (r != -EBUSY)
		return r < 0 ? open_failed(store, r) : 0;
	why = ask_checkpoint(store);
	so.snapshot = true;
	r = keys_open(&so, ret_keys);
	if (r < 0)
		return open_failed(store, r);
	if (why != NULL)
		log_warn("%s: in use, and cannot be asked for a checkpoint (%s): "
			 "this is the last one, change %llu",
			 store, why, (unsigned long long)store_seq(keys_store(*ret_keys)));
	return 0;
}

/* ---- The stream ---- */

/* A file that is there may be an older stream: it goes once the new one is complete. Nothing else is
 * overwritten; what is no file at all, as a pipe or a device, is written to. *ret_fd is -1 if a new
 * file is to be made. */
static int look_at_file(const char *file, int *ret_fd)
{
	char head[STREAM_MAGIC_LEN];
	struct stat st;
	ssize_t n;
	int fd, error;

	*ret_fd = -1;
	if (stat(file, &st) != 0)
		return 0;
	if (S_ISDIR(st.st_mode)) {
		log_error("%s: is a directory: give the name of a file", file);
		return EXIT_FAILED;
	}
	if (!S_ISREG(st.st_mode)) {
		*ret_fd = open(file, O_WRONLY | O_CLOEXEC | O_NOCTTY);
		if (*ret_fd >= 0 && !isatty(*ret_fd))
			return 0;
		if (*ret_fd < 0)
			say_errno(SAY_FILE, file, NULL, errno);
		else
			log_error("%s: is a terminal: give a file", file);
		return EXIT_FAILED;
	}
	fd = open(file, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, head, sizeof head);
	error = errno;
	if (fd >= 0)
		close(fd);
	if (n == 0 || (n == (ssize_t)sizeof head && memcmp(head, STREAM_MAGIC, sizeof head) == 0))
		return 0;
	if (n < 0)
		say_errno(SAY_FILE, file, NULL, error);
	else
		log_error("%s: is there already and is no stream of msyncfs dump: give another name", file);
	return EXIT_FAILED;
}

struct dumping {
	struct keys *k;
	int fd;
	struct stream_watch watch;
	struct stream_counts counts;
};

static int do_dump(void *arg)
{
	struct dumping *d = arg;

	return stream_dump(d->k, d->fd, &d->watch, &d->counts);
}

static int dump_to(struct keys *k, const struct dump_args *a, int fd, const char *name)
{
	struct dumping d = { .k = k, .fd = fd };
	struct progress progress;
	struct store_status st;
	const char *text;
	uint64_t byte;
	int r;

	store_status(keys_store(k), &st);
	progress_start(&progress, &d.watch, "dump", a->quiet, st.inodes);
	/* The file may be cut short meanwhile, or the disk fail to read it. */
	r = map_guard(do_dump, &d);
	progress_end(&progress, r == 0 ? &d.counts : NULL);
	if (r == 0)
		return 0;
	text = *err_last() != '\0' ? err_last() : strerror(-r);
	if (r == -EIO && store_lost(keys_store(k), &byte))
		log_error("%s: byte %llu: %s: look after its disk, or after who cut it", a->store, (unsigned long long)byte, text);
	else if (r == -EUCLEAN)
		log_error("%s: damaged: %s: run msyncfs check on it", a->store, text);
	else if (r == -EINTR)
		log_error("%s: interrupted: begin anew", name);
	else
		say_text(a->file != NULL ? SAY_NEW : SAY_FILE, name, NULL, text, r);
	return EXIT_FAILED;
}

static int dump_file(struct keys *k, const struct dump_args *a)
{
	char *target = realpath(a->file, NULL);         /* of a symbolic link, what it leads to */
	struct outfile out;
	int r = outfile_open(&out, target != NULL ? target : a->file);

	if (r < 0)
		say_error(SAY_NEW, out.path, NULL, r);
	r = r < 0 ? EXIT_FAILED : dump_to(k, a, out.fd, a->file);
	if (r == 0) {
		int error = outfile_publish(&out, true);

		if (error < 0) {
			say_error(SAY_NEW, out.path, NULL, error);
			r = EXIT_FAILED;
		}
	}
	outfile_close(&out);
	free(target);
	return r;
}

static int dump_fd(struct keys *k, const struct dump_args *a, int fd)
{
	const char *name = a->file != NULL ? a->file : "standard output";
	int r = dump_to(k, a, fd, name);

	/* Some file systems tell only now that there was no room. */
	if (close(fd) != 0 && r == 0) {
		say_errno(SAY_FILE, name, NULL, errno);
		r = EXIT_FAILED;
	}
	return r;
}

int cmd_dump(int argc, char **argv)
{
	struct dump_args a = { 0 };
	struct keys *k;
	int fd = STDOUT_FILENO, r = parse(&a, argc, argv);

	if (r != CMD_GO_ON)
		return r;
	if (a.file == NULL && isatty(STDOUT_FILENO))
		return cmd_usage("dump", "standard output", "is a terminal: give FILE, or redirect it");
	r = a.file != NULL ? look_at_file(a.file, &fd) : 0;
	signal(SIGPIPE, SIG_IGN);
	lost_catch();
	if (r == 0)
		r = open_store(a.store, &k);
	if (r != 0)
		return r;
	r = fd < 0 ? dump_file(k, &a) : dump_fd(k, &a, fd);
	keys_close(k);
	return r;
}
