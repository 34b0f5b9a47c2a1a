/* SPDX-License-Identifier: MIT
 *
 * file: the store as a file among others: found, made, locked against a second daemon, pinned by readers beside the
 * daemon. Locks: flock(LOCK_EX) on the whole file by the daemon that has it open; OFD read locks on single bytes far
 * behind any contents (PIN_BASE + generation) by readers. A file that is a store has an extended attribute with its uuid.
 */
#include "core/store/store_int.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define PIN_BASE ((off_t)1 << 62)
#define PIN_MASK (((uint64_t)1 << 31) - 1)
#define NAP_NS   20000000       /* between looks at a lock that is about to be given up */
#define MARK     "user.msyncfs.uuid"
#define UNMADE_LOOKS 50u        /* at one on a file that is not a store, or not yet */
#define OPEN_TRIES   100        /* when others make, take away and replace the file at the same time */
/* In /proc/PID/stat: PF_EXITING, and the bit of a SIGKILL that waits. */
#define STAT_EXITING 0x4ul
#define STAT_SIGKILL 0x100ul

_Static_assert(NAP_NS % 1000000 == 0, "waits are counted in whole ms");

static int open_failed(const char *path, int error)
{
	const char *what = strerror(error);

	if (error == ENOENT)
		return err_set(error, "%s: there is no such store", path);
	if (error == EACCES || error == EPERM)
		return err_set(error, "%s: no permission to open the store", path);
	if (error == EROFS)
		return err_set(error, "%s: the disk is read-only; mount a store that is there with -o ro, or give another place", path);
	return err_set(error, "%s: cannot open the store: %s", path, what);
}

/* A path as the mount table writes it. */
static void escape(const char *path, char *to, size_t size)
{
	size_t n = 0;

	for (; *path != '\0' && n + 5 < size; path++) {
		if (strchr(" \t\n\\", *path) != NULL)
			n += (size_t)snprintf(to + n, size - n, "\\%03o", (unsigned)(unsigned char)*path);
		else
			to[n++] = *path;
	}
	to[n] = '\0';
}

/* Does the mount table have a mount of FUSE at the mount point? */
static bool is_mounted(const char *mountpoint)
{
	char *line = NULL, *point, *save, *dash, escaped[4 * 1024 + 1];
	bool found = false;
	size_t size = 0;
	int i;
	FILE *f;

	if (mountpoint[0] == '\0')
		return false;
	f = fopen("/proc/self/mountinfo", "re");
	if (!f)
		return true;
	escape(mountpoint, escaped, sizeof escaped);
	while (!found && getline(&line, &size, f) >= 0) {
		dash = strstr(line, " - ");
		point = strtok_r(line, " ", &save);
		for (i = 0; i < 4 && point; i++)
			point = strtok_r(NULL, " ", &save);
		found = point && dash && strcmp(point, escaped) == 0 && strncmp(dash + 3, "fuse", 4) == 0;
	}
	free(line);
	(void)fclose(f);
	return found;
}

/* Is the process that opened the store last on this machine? */
static bool is_here(const struct super *sb)
{
	char host[sizeof sb->holder_host] = "";

	return gethostname(host, sizeof host - 1) == 0 && strcmp(host, sb->holder_host) == 0;
}

/* The process that opened the store last is on this machine, and gone or on its way: killed, it keeps its locks until the
 * kernel has taken its memory apart, and its dead mount stays in the table. */
static bool is_ending(const struct super *sb)
{
	char path[64], text[1024], *fields;
	unsigned long flags = 0, signals = 0;
	char state = 0;
	size_t n;
	FILE *f;

	if (!is_here(sb))
		return false;
	(void)snprintf(path, sizeof path, "/proc/%u/stat", sb->holder_pid);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT;
	n = fread(text, 1, sizeof text - 1, f);
	(void)fclose(f);
	text[n] = '\0';
	/* Behind the name, which may hold anything: state, 5 numbers, flags, 21 numbers, signals that wait for it. */
	fields = strrchr(text, ')');
	if (!fields || sscanf(fields + 1, " %c %*d %*d %*d %*d %*d %lu %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %*u %*u "
			      "%*d %*u %*u %*u %*u %*u %*u %lu", &state, &flags, &signals) != 3)
		return n == 0;
	return state == 'Z' || state == 'X' || (flags & STAT_EXITING) != 0 || (signals & STAT_SIGKILL) != 0;
}

static int in_use(const char *path, int fd)
{
	struct super sb;
	int r = super_read(fd, &sb);

	if (r < 0 && r != -EROFS)
		return err_set(EBUSY, "%s: in use by another process", path);
	if (is_mounted(sb.holder_mount))
		return err_set(EBUSY, "%s: in use, mounted on %s by process %u; unmount it first", path,
			       sb.holder_mount, sb.holder_pid);
	/* Who only reads writes nowhere who it is: a mount with -o ro, check, dump. */
	if (is_ending(&sb))
		return err_set(EBUSY, "%s: in use by a process that reads it; wait for its end", path);
	if (!is_here(&sb))
		return err_set(EBUSY, "%s: in use by process %u of the machine %.*s; unmount it there", path, sb.holder_pid,
			       (int)sizeof sb.holder_host, sb.holder_host);
	return err_set(EBUSY, "%s: in use by process %u, which has not closed it yet; wait for its end, or kill it", path,
		       sb.holder_pid);
}

/* Whether whoever has the lock will let go of it soon: a daemon whose mount is gone is closing the store, one that was killed
 * has only to be cleared away, one that is opening it writes who it is before it mounts. One that serves a mount stays. What
 * is no store yet may be on its way to be one, or not: *looks says how often it is still waited for. */
static bool may_let_go(int fd, unsigned *looks, unsigned *ret_pid)
{
	struct super sb;
	int r = super_read(fd, &sb);

	*ret_pid = 0;
	if (r < 0 && r != -EROFS)
		return (*looks)-- > 0;
	if (is_here(&sb) && !is_ending(&sb))
		*ret_pid = sb.holder_pid;
	return !is_mounted(sb.holder_mount) || is_ending(&sb);
}

static int lock_file(const struct store_options *o, int fd)
{
	const struct timespec nap = { 0, NAP_NS };
	uint64_t tries = (uint64_t)o->wait_s * (1000000000 / NAP_NS);
	unsigned looks = UNMADE_LOOKS, pid, waited_ms = 0;
	int how = o->read_only ? LOCK_SH : LOCK_EX, r;

	for (;;) {
		if (flock(fd, how | LOCK_NB) == 0)
			return 0;
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return err_set(errno, "%s: cannot lock the store: %s", o->path, strerror(errno));
		if (tries-- == 0 || !may_let_go(fd, &looks, &pid))
			return in_use(o->path, fd);
		r = o->waiting ? o->waiting(o->waiting_ctx, pid, waited_ms) : 0;
		if (r < 0)
			return r;
		(void)nanosleep(&nap, NULL);
		waited_ms += NAP_NS / 1000000;
	}
}

/* A new store has no name until it is one: a kill in between leaves nothing. */
static int open_unnamed(const char *path)
{
	const char *slash = strrchr(path, '/');
	char dir[4096];
	size_t n = slash ? (size_t)(slash - path) + 1 : 0;

	if (n >= sizeof dir)
		return -ENAMETOOLONG;
	memcpy(dir, path, n);
	memcpy(dir + n, ".", 2);
	n = (size_t)open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return (int)n < 0 ? -errno : (int)n;
}

static int leads_nowhere(const char *path)
{
	return err_set(ENOENT, "%s: is a symbolic link to nothing; give what it leads to, or remove it", path);
}

/* -EEXIST: somebody else was faster. */
static int create_file(const struct store_options *o, int *ret_fd, bool *ret_unnamed)
{
	int fd = open_unnamed(o->path);
	struct stat st;

	*ret_unnamed = fd >= 0;
	if (fd == -EOPNOTSUPP || fd == -EISDIR || fd == -EINVAL) {
		fd = open(o->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0)
			fd = -errno;
	}
	if (fd == -EEXIST && lstat(o->path, &st) == 0 && S_ISLNK(st.st_mode))
		return leads_nowhere(o->path);
	if (fd == -EEXIST)
		return fd;
	if (fd < 0)
		return fd == -ENOENT ? err_set(ENOENT, "%s: the folder does not exist", o->path) :
				       open_failed(o->path, -fd);
	*ret_fd = fd;
	return 0;
}

void file_mark(int fd, const struct super *sb)
{
	char text[UUID_TEXT], now[UUID_TEXT];

	super_uuid_text(sb, text);
	if (fgetxattr(fd, MARK, now, sizeof now) == UUID_TEXT - 1 && memcmp(now, text, UUID_TEXT - 1) == 0)
		return;
	/* A file system without such attributes, or a full one: then an empty file is just that. */
	(void)fsetxattr(fd, MARK, text, UUID_TEXT - 1, 0);
}

/* An empty file is as good as none, for a store to be made in, but for one that was a store: who mounts that waits for
 * what was in it. */
static int check_empty(const struct store_options *o, int fd)
{
	char uuid[UUID_TEXT] = "";

	if (fgetxattr(fd, MARK, uuid, sizeof uuid - 1) > 0) {
		/* Anybody may have put anything there. */
		uuid[strspn(uuid, "0123456789abcdef-")] = '\0';
		return err_set(ENODATA, "%s: is empty, but was a store (uuid %s): somebody cut it to nothing", o->path, uuid);
	}
	if (!(o->create && !o->read_only))
		return err_set(EMEDIUMTYPE, "%s: is empty, not an msyncfs store", o->path);
	return 0;
}

static int check_kind(const struct store_options *o, int fd, const struct stat *st)
{
	if (S_ISDIR(st->st_mode))
		return err_set(EISDIR, "%s: is a directory; name a file for the store", o->path);
	if (!S_ISREG(st->st_mode))
		return err_set(EMEDIUMTYPE, "%s: is not a regular file", o->path);
	return st->st_size == 0 ? check_empty(o, fd) : 0;
}

/* On btrfs a block that was written is written anew elsewhere, which takes space that a full disk does not have: SIGBUS. A
 * file can be excepted as long as it is empty. */
static void write_in_place(int fd)
{
	struct statfs st;
	int flags;

	if (fstatfs(fd, &st) < 0 || (uint32_t)st.f_type != BTRFS_SUPER_MAGIC || ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
		return;
	flags |= FS_NOCOW_FL;
	(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

/* 1: the file of that name is another one by now. */
static int is_replaced(const char *path, const struct stat *ours)
{
	struct stat there;

	if (stat(path, &there) < 0)
		return errno == ENOENT ? 1 : open_failed(path, errno);
	return there.st_dev != ours->st_dev || there.st_ino != ours->st_ino;
}

/* Take the lock of a file that has a name, and only then see what it is: until then it is somebody else's, who may be making
 * it, or be taking it away because that failed. -EAGAIN: it is not the file of this name any more. */
static int lock_and_look(const struct store_options *o, int fd, bool *ret_new)
{
	struct stat st;
	int r = fstat(fd, &st) < 0 ? open_failed(o->path, errno) : check_kind(o, fd, &st);

	if (r < 0 || o->snapshot) {
		*ret_new = false;
		return r;
	}
	r = lock_file(o, fd);
	if (r == 0 && fstat(fd, &st) < 0)
		r = open_failed(o->path, errno);
	if (r == 0)
		r = is_replaced(o->path, &st);
	if (r > 0)
		return -EAGAIN;
	if (r == 0)
		r = check_kind(o, fd, &st);
	*ret_new = st.st_size == 0;
	return r;
}

/* One try: -EAGAIN if others came in between. */
static int open_once(const struct store_options *o, int *ret_fd, bool *ret_new, bool *ret_unnamed, bool *ret_made)
{
	int flags = (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	int fd = open(o->path, flags), r = 0;
	bool made = false;

	*ret_unnamed = false;
	if (fd < 0 && errno == EISDIR)
		return err_set(EISDIR, "%s: is a directory; name a file for the store", o->path);
	if (fd < 0 && errno == ENOENT && o->create && !o->read_only) {
		r = create_file(o, &fd, ret_unnamed);
		if (r < 0)
			return r == -EEXIST ? -EAGAIN : r;
		made = true;
	}
	if (fd < 0)
		return open_failed(o->path, errno);
	/* Without a name nobody else knows of it. */
	r = *ret_unnamed ? lock_file(o, fd) : lock_and_look(o, fd, ret_new);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	if (*ret_new)
		write_in_place(fd);
	*ret_fd = fd;
	/* Made by us, but somebody else had the lock first: then it is theirs. */
	*ret_made = made && *ret_new;
	return 0;
}

int file_open(const struct store_options *o, int *ret_fd, bool *ret_new, bool *ret_memory, bool *ret_unnamed,
	      bool *ret_made)
{
	int fd, tries, r = -EAGAIN;

	*ret_memory = strcmp(o->path, ":memory:") == 0;
	*ret_unnamed = *ret_made = false;
	*ret_new = true;
	if (*ret_memory) {
		fd = memfd_create("msyncfs", MFD_CLOEXEC);
		*ret_fd = fd;
		return fd < 0 ? err_set(errno, "cannot make a memory file: %s", strerror(errno)) : 0;
	}
	for (tries = 0; tries < OPEN_TRIES && r == -EAGAIN; tries++) {
		*ret_new = true;
		r = open_once(o, ret_fd, ret_new, ret_unnamed, ret_made);
	}
	return r == -EAGAIN ? err_set(EBUSY, "%s: others make and replace it all the time", o->path) : r;
}

void file_discard(const char *path, int fd, bool made)
{
	struct stat ours, there;

	/* Empty it is as good as new, unless it is marked as a store that somebody has emptied. */
	(void)fremovexattr(fd, MARK);
	(void)ftruncate(fd, 0);
	if (made && fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_dev == there.st_dev &&
	    ours.st_ino == there.st_ino)
		(void)unlink(path);
}

int file_publish(const struct store_options *o, int fd, bool unnamed)
{
	const char *slash = strrchr(o->path, '/');
	char proc[64], dir[4096];
	struct stat st;
	int dirfd, r = 0;

	if (!unnamed)
		return 0;
	(void)snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, proc, AT_FDCWD, o->path, AT_SYMLINK_FOLLOW) < 0) {
		if (errno != EEXIST)
			return err_set(errno, "%s: cannot name the new store: %s", o->path, strerror(errno));
		if (lstat(o->path, &st) == 0 && S_ISLNK(st.st_mode))
			return leads_nowhere(o->path);
		return err_set(EEXIST, "%s: another process made a store of this name in the meantime", o->path);
	}
	(void)snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - o->path) + 1 : 1, slash ? o->path : ".");
	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0 || fsync(dirfd) < 0)
		r = err_set(errno, "%s: cannot sync the folder: %s", dir, strerror(errno));
	if (dirfd >= 0)
		(void)close(dirfd);
	return r;
}

uint64_t file_disk_free_blocks(int fd)
{
	struct statvfs st;

	if (fstatvfs(fd, &st) < 0 || st.f_frsize == 0)
		return 0;
	/* Not by BLOCK_SIZE: <linux/fs.h> has a number of its own under that name. */
	return (uint64_t)st.f_bavail * st.f_frsize >> BLOCK_SHIFT;
}

/* proc(5): MemAvailable, in KiB. */
uint64_t file_memory_free_blocks(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	while (f && fgets(line, sizeof line, f) && sscanf(line, "MemAvailable: %llu kB", &kib) != 1)
		;
	if (f)
		(void)fclose(f);
	return kib * 1024 >> BLOCK_SHIFT;
}

bool file_is_pinned(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = PIN_BASE,
			      .l_len = (off_t)PIN_MASK + 1 };

	/* If we cannot find out, believe that somebody reads. */
	return fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}

int file_pin(const struct store_options *o, int fd, struct super *ret_sb)
{
	struct super again;
	int tries, r;

	for (tries = 0; tries < 1000; tries++) {
		struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1 };

		r = super_read(fd, ret_sb);
		if (r < 0 && r != -EROFS)
			return r;
		lock.l_start = PIN_BASE + (off_t)(ret_sb->gen & PIN_MASK);
		if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
			return err_set(errno, "%s: cannot pin a checkpoint: %s", o->path, strerror(errno));
		r = super_read(fd, &again);
		if ((r == 0 || r == -EROFS) && again.gen == ret_sb->gen)
			return 0;
		lock.l_type = F_UNLCK;
		(void)fcntl(fd, F_OFD_SETLK, &lock);
	}
	return err_set(EBUSY, "%s: checkpoints follow each other too fast; try again", o->path);
}
