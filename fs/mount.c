/* SPDX-License-Identifier: MIT
 *
 * mount: the verb that mounts, and the daemon's life. The order: read the options, look at the
 * mount point, go to the background, open and recover the store, mount, answer the kernel, tell the
 * parent. Whatever fails before the last step is said on the caller's terminal, in one line, and
 * becomes the exit status.
 */
#include "core/base.h"
#include "fs/cmd.h"
#include "fs/control.h"
#include "fs/daemon.h"
#include "fs/fs.h"
#include "fs/guard.h"
#include "fs/holder.h"
#include "fs/log.h"
#include "fs/lost.h"
#include "fs/mnt.h"
#include "fs/ops.h"
#include "fs/options.h"
#include "fs/remote.h"
#include "fs/remount.h"
#include "fs/say.h"
#include "fs/session.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/major.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define FUSE_MINOR    229       /* of the device */
#define STALE_MAX     16        /* dead mounts on top of each other that are taken away */
#define DRAIN_MS      5000      /* for fsyncs that wait when we are told to stop */
#define STORE_WAIT_S  30        /* for a daemon that is closing the store */
#define WORD_MS       1000      /* so long nothing is said about that */
#define SERVED_WAIT_MS 10000    /* for one that does not close it, since programs use its mount */

static int mount_lock = -1;     /* on the mount point: from before we look at it until we are mounted */

/* ---- What libfuse says ---- */

/* Until the mount works, libfuse explains a failure here only: it is kept to become part of our line. */
static bool fuse_log_keep;
static char fuse_log_text[512];

__attribute__((format(printf, 2, 0)))
static void fuse_log_cb(enum fuse_log_level level, const char *format, va_list ap)
{
	char text[512];
	char *at = text;

	vsnprintf(text, sizeof text, format, ap);
	text[strcspn(text, "\n")] = '\0';
	if (strncmp(at, "fuse: ", 6) == 0)
		at += 6;
	if (level >= FUSE_LOG_DEBUG)
		log_debug("%s", at);
	else if (fuse_log_keep)
		snprintf(fuse_log_text, sizeof fuse_log_text, "%s", at);
	else
		log_error("libfuse: %s", at);
}

/* ---- Paths ---- */

/* The absolute path without symbolic links. The last component need not exist, nor be reachable (a
 * dead mount). To be freed; NULL and errno. */
static char *absolute_path(const char *path)
{
	char *whole = realpath(path, NULL), *copy, *slash, *dir, *name = NULL;

	if (whole != NULL)
		return whole;
	copy = strdup(path);
	if (copy == NULL)
		return NULL;
	while ((slash = strrchr(copy, '/')) != NULL && slash > copy && slash[1] == '\0')
		*slash = '\0';
	if (slash != NULL)
		*slash = '\0';
	dir = realpath(slash == NULL ? "." : slash == copy ? "/" : copy, NULL);
	if (dir != NULL && asprintf(&name, "%s/%s", strcmp(dir, "/") == 0 ? "" : dir,
				    slash != NULL ? slash + 1 : copy) < 0)
		name = NULL;
	free(dir);
	free(copy);
	return name;
}

static int fail(const char *where, const char *what, const char *hint)
{
	log_error("%s: %s: %s", where, what, hint);
	return EXIT_FAILED;
}

/* Two that looked at the same time would both find nothing and mount, one on top of the other; or one would take the mount of
 * the other away, having found a dead one there before. */
static int lock_mountpoint(const char *path)
{
	int r = mnt_lock(path, WORD_MS / 1000, &mount_lock);

	if (r == -EBUSY) {
		log_warn("%s: waiting for another msyncfs that is mounting there", path);
		r = mnt_lock(path, STORE_WAIT_S, &mount_lock);
	}
	if (r == -EBUSY)
		return fail(path, "another msyncfs is mounting there", "see what it waits for, or try again");
	if (r < 0)
		say_errno(SAY_FILE, path, "the mount point cannot be locked", r);
	return r < 0 ? EXIT_FAILED : 0;
}

static void unlock_mountpoint(void)
{
	if (mount_lock >= 0)
		close(mount_lock);
	mount_lock = -1;
}

/* Who asks a mount whose daemon was killed and hangs (guard.h) would hang as well. */
static int end_hung(const char *path, const struct mnt_info *info)
{
	unsigned minor;

	if (!mnt_is_ours(info) || sscanf(info->device, "0:%u", &minor) != 1 || !holder_hangs(info->source, minor))
		return 0;
	if (guard_end(path, minor) < 0)
		return fail(path, "the daemon of the mount there was killed, but hangs", "unmount it as root with umount -f");
	return 0;
}

/* A directory that is not one of our mounts already. Dead mounts of ours, whose daemon was killed,
 * are taken away. The mount point is locked. */
static int check_mountpoint(const char *path)
{
	struct mnt_info info;
	struct statfs fs_figures;
	struct stat st = { 0 };
	bool mounted = false;
	int error = 0;

	for (int n = 0; n < STALE_MAX; n++) {
		mounted = mnt_find(path, &info) == 0;
		if (mounted && end_hung(path, &info) != 0)
			return EXIT_FAILED;
		/* Attributes are cached for ever, even in a dead mount: its daemon is asked for the
		 * figures. */
		error = 0;
		if ((mounted && statfs(path, &fs_figures) < 0) || stat(path, &st) < 0)
			error = errno;
		/* A daemon that is being killed leaves those who wait for it this error, once. */
		if (error == ECONNABORTED && mounted)
			continue;
		if (error != ENOTCONN || !mounted)
			break;
		if (!mnt_is_ours(&info))
			return fail(path, "a mount of another kind is dead there",
				    "unmount it with umount -l");
		if (mnt_detach(path) < 0)
			return fail(path, "the mount of a daemon that died is still there",
				    "unmount it with umount -l");
	}
	if (error == ENOENT)
		return fail(path, "no such directory", "make it with mkdir");
	if (error != 0) {
		say_errno(SAY_FILE, path, "cannot be used as the mount point", error);
		return EXIT_FAILED;
	}
	if (mounted && mnt_is_ours(&info)) {
		log_error("%s: %s is mounted there already: unmount it first", path, info.source);
		return EXIT_FAILED;
	}
	if (!S_ISDIR(st.st_mode))
		return fail(path, "not a directory", "mount on a directory");
	return 0;
}

/* What the kernel or fusermount3 would refuse, before a store is made, or synced, in vain. */
static int check_device(const char *path)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC), error = errno;
	struct stat st;

	if (fd < 0)
		return fail("/dev/fuse", strerror(error),
			    error == EACCES || error == EPERM ? "those who mount must be able to read and write it" :
			    "load the kernel's part (modprobe fuse), or give this container the device");
	close(fd);
	if (geteuid() == 0)
		return 0;
	if (access(path, W_OK) < 0)
		return fail(path, strerror(errno), "mount on a directory that you may write to");
	if (stat(path, &st) == 0 && (st.st_mode & S_ISVTX) != 0 && st.st_uid != getuid())
		return fail(path, "its sticky bit is set, and it is not yours", "mount on a directory of your own");
	return 0;
}

/* A path that cannot be followed. A name that begins nowhere is another matter than one that leads nowhere. */
static int bad_path(const char *path, int error, const char *missing, const char *hint)
{
	char here[PATH_MAX];

	if (error == ENOENT && *path != '/' && getcwd(here, sizeof here) == NULL)
		return fail(path, "the current directory was removed", "change to another one, or give the whole path");
	if (error == ENOENT)
		return fail(path, missing, hint);
	say_errno(SAY_FILE, path, NULL, error);
	return EXIT_FAILED;
}

static int find_paths(struct fs *fs, const struct options *o)
{
	char *mountpoint = absolute_path(o->mountpoint), *store;
	int r;

	if (mountpoint == NULL)
		return bad_path(o->mountpoint, errno, "no such directory", "make it with mkdir");
	fs->mountpoint = mountpoint;
	store = strcmp(o->store, ":memory:") == 0 ? strdup(o->store) : absolute_path(o->store);
	if (store == NULL)
		return bad_path(o->store, errno, "its directory does not exist", "make it with mkdir, or give another path");
	fs->store_path = store;
	/* What is mounted there nobody gets to by "/", and nobody takes away by it: umount("/") is the root file system's. */
	if (strcmp(mountpoint, "/") == 0)
		return fail(mountpoint, "the root directory cannot be mounted on", "mount on a directory below it");
	if (lock_mountpoint(mountpoint) != 0)
		return EXIT_FAILED;
	r = check_mountpoint(mountpoint);
	return r != 0 ? r : check_device(mountpoint);
}

/* ---- The store ---- */

void fs_progress(void *ctx)
{
	struct fs *fs = ctx;

	/* Recovery makes progress, too, when nobody waits for it yet. */
	if (!atomic_load_explicit(&fs->started, memory_order_acquire))
		return;
	defer_run(&fs->durable);
	defer_run(&fs->synced);
	remote_progress(fs->remote);
	session_wake(fs);
}

/* Asked by store_open() while somebody else has the store and no mount of it is seen. Nobody waits long without a word, nor
 * for a program that may never end. */
static int wait_for_holder(void *ctx, unsigned pid, unsigned waited_ms)
{
	struct fs *fs = ctx;
	char users[256];
	unsigned minor = 0;
	bool serves;

	if (waited_ms < (fs->waits ? SERVED_WAIT_MS : WORD_MS))
		return 0;
	serves = pid != 0 && holder_serves(pid, &minor);
	if (!serves) {
		if (!fs->waits && pid != 0)
			log_warn("%s: waiting for process %u, which is closing it", fs->store_path, pid);
		else if (!fs->waits)
			log_warn("%s: waiting for another process that has it open", fs->store_path);
		fs->waits = true;
		return 0;
	}
	holder_users(pid, minor, users, sizeof users);
	if (waited_ms >= SERVED_WAIT_MS)
		return err_set(EBUSY, "%s: in use: process %u goes on serving it, since it is still used%s%s where it was unmounted; "
			       "end %s, or kill %u", fs->store_path, pid, *users != '\0' ? " by " : "", users,
			       *users != '\0' ? "who uses it" : "what has files open there", pid);
	log_warn("%s: waiting for process %u, which goes on serving it, since it is still used%s%s where it was unmounted",
		 fs->store_path, pid, *users != '\0' ? " by " : "", users);
	fs->waits = true;
	return 0;
}

static int open_store(struct fs *fs)
{
	const struct options *o = fs->options;
	/* A remote mount for reading only follows its primary all the same. */
	bool read_only = o->read_only && o->from == NULL;
	struct store_options so = {
		.path = fs->store_path,
		.create = !read_only,
		.read_only = read_only,
		.threads = true,
		.max_bytes = o->size_bytes,
		.refuse_larger = true,
		.sync_interval_s = o->sync_interval_s,
		.wait_s = STORE_WAIT_S,
		.waiting = wait_for_holder,
		.waiting_ctx = fs,
		.holder_mount = fs->mountpoint,
		.progress = fs_progress,
		.progress_ctx = fs,
		.incomplete = o->from != NULL,
		.follow = o->from != NULL,
		.committed = fs->remote != NULL ? remote_committed : NULL,
		.committed_ctx = fs,
	};
	int r = keys_open(&so, &fs->keys);

	if (r < 0) {
		say_error(SAY_MOUNT, fs->store_path, "cannot be opened", r);
		fs->keys = NULL;
		return EXIT_FAILED;
	}
	fs->store = keys_store(fs->keys);
	r = fs->remote != NULL ? remote_start(fs->remote) : remote_check_alone(fs);
	return r < 0 ? EXIT_FAILED : 0;
}

/* ---- The mount ---- */

/* A word for -o whose value may hold commas. False: out of memory. */
static bool add_word(char **words, const char *word)
{
	return fuse_opt_add_opt_escaped(words, word) == 0;
}

/* The words for the kernel, as libfuse takes them. To be freed; NULL: out of memory. */
static char *kernel_words(const struct fs *fs)
{
	const struct options *o = fs->options;
	char *words = NULL, *fsname = NULL, *all = NULL;
	bool ok;

	if (asprintf(&fsname, "fsname=%s", fs->store_path) < 0)
		return NULL;
	ok = add_word(&words, fsname) && add_word(&words, "subtype=msyncfs") &&
	     add_word(&words, "default_permissions") &&
	     add_word(&words, o->nosuid ? "nosuid" : "suid") &&
	     add_word(&words, o->nodev ? "nodev" : "dev") &&
	     add_word(&words, o->noexec ? "noexec" : "exec") &&
	     add_word(&words, o->read_only ? "ro" : "rw") &&
	     /* Else the kernel would hold back what is to be on disk. */
	     (!o->sync || !o->writeback || add_word(&words, "sync")) &&
	     (!o->allow_other || add_word(&words, "allow_other")) &&
	     (o->atime != KEYS_NOATIME || add_word(&words, "noatime"));
	if (ok && asprintf(&all, "%s%s", words, o->kernel != NULL ? o->kernel : "") < 0)
		all = NULL;
	free(words);
	free(fsname);
	return all;
}

/* libfuse 3.14 may say that it has mounted, and give descriptor 0, when it found no memory for it. */
static bool has_device(struct fuse_session *fuse)
{
	struct stat st;

	return fstat(fuse_session_fd(fuse), &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(MISC_MAJOR, FUSE_MINOR);
}

/* fuse_session_mount(). What fusermount3 says on standard error becomes a part of our line, and else of our log. */
static int mount_session(struct fs *fs)
{
	int pipes[2], err, r;
	size_t len = 0;
	ssize_t n;

	if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK) < 0)
		return fuse_session_mount(fs->fuse, fs->mountpoint);
	err = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	dup2(pipes[1], STDERR_FILENO);
	close(pipes[1]);
	r = fuse_session_mount(fs->fuse, fs->mountpoint);
	if (err >= 0)
		dup2(err, STDERR_FILENO);
	else
		close(STDERR_FILENO);
	if (err >= 0)
		close(err);
	/* What libfuse has said itself comes first. */
	if (*fuse_log_text != '\0')
		len = strlen(fuse_log_text);
	if (len > 0 && len + 2 < sizeof fuse_log_text)
		len = (size_t)(stpcpy(fuse_log_text + len, ", ") - fuse_log_text);
	/* It has ended: what it said is there. Its last words are the reason. */
	while ((n = read(pipes[0], fuse_log_text + len, sizeof fuse_log_text - 1 - len)) > 0)
		len += (size_t)n;
	close(pipes[0]);
	while (len > 0 && strchr("\n, ", fuse_log_text[len - 1]) != NULL)
		len--;
	fuse_log_text[len] = '\0';
	return r;
}

/* A flag that neither libfuse nor fusermount3 knows, so the kernel is told when it is mounted; others it keeps only if they are
 * named once more. */
static int set_nosymfollow(const struct fs *fs)
{
	const struct options *o = fs->options;
	unsigned long flags = MS_REMOUNT | MS_BIND | MS_NOSYMFOLLOW | (o->read_only ? MS_RDONLY : 0) |
			      (o->nosuid ? MS_NOSUID : 0) | (o->nodev ? MS_NODEV : 0) | (o->noexec ? MS_NOEXEC : 0);

	if (mount(NULL, fs->mountpoint, NULL, flags, NULL) == 0)
		return 0;
	return fail(fs->mountpoint, strerror(errno), "mount it without nosymfollow, which Linux has from 5.10");
}

static int mount_fuse(struct fs *fs)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct mnt_info info;
	char *words;
	int r = EXIT_FAILED;

	fuse_log_keep = true;
	words = kernel_words(fs);
	if (words == NULL || fuse_opt_add_arg(&args, "msyncfs") < 0 ||
	    fuse_opt_add_arg(&args, "-o") < 0 || fuse_opt_add_arg(&args, words) < 0 ||
	    (fs->options->debug && fuse_opt_add_arg(&args, "-d") < 0)) {
		log_error("%s: cannot be mounted: out of memory: free some", fs->mountpoint);
		goto out;
	}
	fs->fuse = fuse_session_new(&args, &ops_table, sizeof ops_table, fs);
	if (fs->fuse == NULL || mount_session(fs) != 0 || !has_device(fs->fuse)) {
		/* The options are ours: without a word, nothing but memory is missing. */
		log_error("%s: cannot be mounted: %s: %s", fs->mountpoint,
			  *fuse_log_text != '\0' ? fuse_log_text : fs->fuse == NULL ? "out of memory" : "refused by fusermount3",
			  geteuid() == 0 ? "may this container mount (CAP_SYS_ADMIN)? dmesg may say more" :
			  "is fusermount3 installed (package fuse3), and set-user-ID root? /etc/fuse.conf limits mounts, too");
		goto out;
	}
	if (mnt_find(fs->mountpoint, &info) == 0 && mnt_is_ours(&info))
		memcpy(fs->device, info.device, sizeof fs->device);
	/* In the mount table: who looks now, sees it. */
	unlock_mountpoint();
	r = session_attach(fs);
	if (r < 0)
		r = fail(fs->mountpoint, strerror(-r), "cannot be mounted");
	else if (fs->options->nosymfollow)
		r = set_nosymfollow(fs);
out:
	fuse_opt_free_args(&args);
	free(words);
	return r;
}

/* The kernel has its answer to INIT: the mount works. */
static void ready(struct fs *fs)
{
	struct store_status st;

	fuse_log_keep = false;
	if (fs->ready_fd >= 0 && daemon_ready(fs->ready_fd) < 0) {
		log_warn("%s: the mount command was interrupted: unmounting", fs->mountpoint);
		raise(SIGTERM);
	}
	fs->ready_fd = -1;
	store_status(fs->store, &st);
	log_info("mounted %s on %s: inodes=%llu seq=%llu recovered=%llu", fs->store_path,
		 fs->mountpoint, (unsigned long long)st.inodes, (unsigned long long)st.seq,
		 (unsigned long long)st.recovered_records);
}

/* ---- Life ---- */

static uint64_t durable_seq(const void *store)
{
	return store_durable_seq(store);
}

static uint64_t checkpoint_seq(const void *store)
{
	return store_checkpoint_seq(store);
}

static uint64_t synced_seq(const void *remote)
{
	return remote_synced(remote);
}

static int open_queues(struct fs *fs)
{
	if (defer_init(&fs->durable, fs->store, durable_seq, fs->store, 0, fs->fd) < 0 ||
	    defer_init(&fs->synced, fs->store, synced_seq, fs->remote, options_sync_wait_ms(fs->options), fs->fd) < 0 ||
	    defer_init(&fs->checkpoint, fs->store, checkpoint_seq, fs->store, 0, fs->fd) < 0)
		return -ENOMEM;
	return 0;
}

/* Only where other machines' changes are told to the kernel can a killed daemon hang. Everything works without a guard: what stood
 * in its way is said once the mount is there, since a mount that fails says one line. */
static void start_guard(struct fs *fs)
{
	if (fs->remote != NULL)
		fs->unguarded = guard_start(fs->mountpoint, &fs->guard);
}

static void watch_guard(struct fs *fs)
{
	if (fs->guard == NULL)
		return;
	fs->unguarded = guard_watch(fs->guard, fs->device);
	if (fs->unguarded == 0)
		return;
	guard_stop(fs->guard);
	fs->guard = NULL;
}

static void say_guard(const struct fs *fs)
{
	if (fs->unguarded < 0)
		log_warn("%s: nobody guards the mount: %s: if the daemon is killed while it tells the kernel of another machine's change, "
			 "programs hang there until umount -f", fs->mountpoint, strerror(-fs->unguarded));
}

static int open_fs(struct fs *fs)
{
	struct keys_attr root;
	int r;

	fs->fd = -1;
	/* While nothing is open that it would keep, and there is one thread. */
	start_guard(fs);
	fs->dirbuf = malloc(FS_DIRBUF_MAX);
	if (fs->dirbuf == NULL || inodes_init(&fs->inodes) < 0 || control_init(fs) < 0) {
		log_error("out of memory: free some");
		return EXIT_FAILED;
	}
	session_block_signals();
	lost_catch();
	r = session_init(fs);
	if (r < 0) {
		say_errno(SAY_MOUNT, fs->mountpoint, "cannot start", r);
		return EXIT_FAILED;
	}
	r = open_store(fs);
	if (r != 0)
		return r;
	r = mount_fuse(fs);
	if (r != 0)
		return r;
	/* Before anybody tells the kernel anything. */
	watch_guard(fs);
	if (open_queues(fs) < 0) {
		log_error("out of memory: free some");
		return EXIT_FAILED;
	}
	if (keys_getattr(fs->keys, KEYS_ROOT_INO, &root) == 0)
		ops_fill_stat(&root, &fs->root);
	if (fs->remote != NULL && remote_attach(fs->remote) < 0) {
		log_error("out of memory: free some");
		return EXIT_FAILED;
	}
	say_guard(fs);
	atomic_store_explicit(&fs->started, true, memory_order_release);
	reaper_start(fs);
	return 0;
}

/* Give fsyncs that wait their answer before the device is closed. */
static void drain(struct fs *fs)
{
	const struct timespec pause = { .tv_nsec = 5000000 };

	for (int ms = 0; ms < DRAIN_MS && !(defer_is_empty(&fs->durable) && defer_is_empty(&fs->synced)); ms += 5)
		nanosleep(&pause, NULL);
}

/* libfuse unmounts by path, unless it finds the connection broken. What we have detached must not
 * be unmounted again, which would hit what lies below: so leave it a descriptor that looks broken,
 * a pipe without a reader. */
static void cut_device(int fd)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return;
	dup3(fds[1], fd, O_CLOEXEC);
	close(fds[0]);
	close(fds[1]);
}

/* Undo open_fs(), as far as it came: a store that was made for a mount that failed is taken away. What the store says of its
 * end is ours. */
static int close_fs(struct fs *fs)
{
	bool started = atomic_load(&fs->started);
	int r = 0;

	if (started) {
		drain(fs);
		defer_stop(&fs->durable);
		defer_stop(&fs->synced);
		defer_stop(&fs->checkpoint);
	}
	remote_stop(fs->remote);
	if (fs->fuse != NULL) {
		if (fs->fd >= 0 && session_detached(fs))
			cut_device(fs->fd);
		if (fs->fd >= 0)
			fuse_session_unmount(fs->fuse);
		fuse_session_destroy(fs->fuse);
	}
	/* The device is closed: from here on a killed daemon can die. */
	guard_stop(fs->guard);
	if (fs->keys != NULL)
		r = started ? keys_close(fs->keys) : keys_abandon(fs->keys);
	/* Only now has the last helper ended that calls fs_progress(). */
	defer_release(&fs->durable);
	defer_release(&fs->synced);
	defer_release(&fs->checkpoint);
	session_release(fs);
	control_release(fs);
	inodes_release(&fs->inodes);
	free(fs->dirbuf);
	return r;
}

static int run(struct fs *fs)
{
	int r, status = open_fs(fs);

	if (status == 0) {
		r = session_run(fs, ready);
		if (r < 0) {
			log_error("%s: the mount broke: %s", fs->mountpoint,
				  fuse_log_keep && *fuse_log_text != '\0' ? fuse_log_text : strerror(-r));
			status = EXIT_FAILED;
		}
	}
	r = close_fs(fs);
	if (r < 0) {
		log_error("%s: not closed well: %s: what was not synced may be lost",
			  fs->store_path, strerror(-r));
		status = EXIT_FAILED;
	} else if (status == 0) {
		log_info("unmounted %s, closed %s", fs->mountpoint, fs->store_path);
	}
	return status;
}

static int change_mount(const struct options *o, int argc, char **argv)
{
	char *path = absolute_path(o->mountpoint), *store;
	int r;

	if (path == NULL)
		return bad_path(o->mountpoint, errno, "no such directory", "give the mount point");
	store = absolute_path(o->store);
	r = remount(argc, argv, store != NULL && *o->store != ':' ? store : o->store, path);
	free(store);
	free(path);
	return r;
}

int cmd_mount(int argc, char **argv)
{
	struct options options;
	struct fs *fs = NULL;
	int r = options_parse(&options, argc, argv);

	if (r != 0)
		goto out;
	if (options.help) {
		options_help();
		goto out;
	}
	if (options.remount) {
		r = change_mount(&options, argc, argv);
		goto out;
	}
	if (!options.foreground)
		daemon_let_go();
	r = EXIT_FAILED;
	fs = calloc(1, sizeof *fs);
	if (fs == NULL) {
		log_error("out of memory: free some");
		goto out;
	}
	fs->options = &options;
	fs->ready_fd = -1;
	fuse_set_log_func(fuse_log_cb);
	r = find_paths(fs, &options);
	if (r != 0)
		goto out;
	/* Here, where the name of the key file means what the caller means. */
	if (remote_new(fs, &fs->remote) < 0) {
		r = EXIT_FAILED;
		goto out;
	}
	log_set_level(options.debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	if (!options.foreground) {
		r = daemon_start(&fs->ready_fd);
		if (r < 0) {
			say_errno(SAY_MOUNT, "mount", "cannot go to the background", r);
			r = EXIT_FAILED;
			goto out;
		}
	}
	if (chdir("/") < 0)
		log_warn("/: %s, ignoring", strerror(errno));
	r = run(fs);
out:
	if (fs != NULL) {
		remote_free(fs->remote);
		free(fs->store_path);
		free(fs->mountpoint);
		free(fs);
	}
	unlock_mountpoint();
	options_release(&options);
	return r;
}
