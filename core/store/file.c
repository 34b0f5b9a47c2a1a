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

static int open_failed(const char *path, int error)
{
	const char *what = strerror(error);

	if (error == ENOENT)
		return err_set(error, "%s: there is no such store", path);
	if (error == EACCES || error == EPERM)
		return err_set(error, "%s: no permission to open the store", path);
	if (error == EROFS)
		return err_set(error, "%s: the disk is read-only; mount with -o ro", path);
	return err_set(error, "%s: cannot open the store: %s", path, what);
}

/* Is a daemon still serving the mount point that the superblock names? */
static bool is_mounted(const char *mountpoint)
{
	char line[4096], point[1024], type[64];
	bool found = false;
	FILE *f;

	if (mountpoint[0] == '\0')
		return false;
	f = fopen("/proc/self/mountinfo", "re");
	if (!f)
		return true;
	while (!found && fgets(line, sizeof line, f)) {
		const char *dash = strstr(line, " - ");

		if (sscanf(line, "%*d %*d %*s %*s %1023s", point) == 1 && dash &&
		    sscanf(dash + 3, "%63s", type) == 1)
			found = strcmp(point, mountpoint) == 0 && strncmp(type, "fuse", 4) == 0;
	}
	(void)fclose(f);
	return found;
}

static int in_use(const char *path, int fd)
{
	struct super sb;
	int r = super_read(fd, &sb);

	if (r < 0 && r != -EROFS)
		return err_set(EBUSY, "%s: in use by another process", path);
	if (sb.holder_mount[0] != '\0')
		return err_set(EBUSY, "%s: in use, mounted on %s by process %u; unmount it first", path,
			       sb.holder_mount, sb.holder_pid);
	return err_set(EBUSY, "%s: in use by process %u", path, sb.holder_pid);
}

/* A daemon whose mount is gone is closing the store: wait for it. One that serves a mount will not go: say so. */
static int lock_file(const struct store_options *o, int fd)
{
	const struct timespec nap = { 0, NAP_NS };
	uint64_t tries = (uint64_t)o->wait_s * (1000000000 / NAP_NS);
	int how = o->read_only ? LOCK_SH : LOCK_EX;

	for (;;) {
		struct super sb;

		if (flock(fd, how | LOCK_NB) == 0)
			return 0;
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return err_set(errno, "%s: cannot lock the store: %s", o->path, strerror(errno));
		if (tries-- == 0 || super_read(fd, &sb) < 0 || is_mounted(sb.holder_mount))
			return in_use(o->path, fd);
		(void)nanosleep(&nap, NULL);
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

static int create_file(const struct store_options *o, int *ret_fd, bool *ret_unnamed)
{
	int fd = open_unnamed(o->path);

	*ret_unnamed = fd >= 0;
	if (fd == -EOPNOTSUPP || fd == -EISDIR || fd == -EINVAL) {
		fd = open(o->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0)
			fd = -errno;
	}
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

static int check_kind(const struct store_options *o, int fd, bool *ret_new)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return open_failed(o->path, errno);
	if (S_ISDIR(st.st_mode))
		return err_set(EISDIR, "%s: is a directory; name a file for the store", o->path);
	if (!S_ISREG(st.st_mode))
		return err_set(EMEDIUMTYPE, "%s: is not a regular file", o->path);
	*ret_new = st.st_size == 0;
	return *ret_new ? check_empty(o, fd) : 0;
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

int file_open(const struct store_options *o, int *ret_fd, bool *ret_new, bool *ret_memory, bool *ret_unnamed,
	      bool *ret_made)
{
	int flags = (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	int fd, r;

	*ret_memory = strcmp(o->path, ":memory:") == 0;
	*ret_unnamed = *ret_made = false;
	*ret_new = true;
	if (*ret_memory) {
		fd = memfd_create("msyncfs", MFD_CLOEXEC);
		*ret_fd = fd;
		return fd < 0 ? err_set(errno, "cannot make a memory file: %s", strerror(errno)) : 0;
	}
	fd = open(o->path, flags);
	if (fd < 0 && errno == EISDIR)
		return err_set(EISDIR, "%s: is a directory; name a file for the store", o->path);
	if (fd < 0 && errno == ENOENT && o->create && !o->read_only) {
		r = create_file(o, ret_fd, ret_unnamed);
		*ret_made = r == 0;
		if (r < 0)
			return r;
		write_in_place(*ret_fd);
		return lock_file(o, *ret_fd);
	}
	if (fd < 0)
		return open_failed(o->path, errno);
	r = check_kind(o, fd, ret_new);
	if (r == 0 && !o->snapshot) {
		r = lock_file(o, fd);
		/* Whoever had it may have made a store of an empty file. */
		if (r == 0)
			r = check_kind(o, fd, ret_new);
	}
	if (r == 0 && *ret_new)
		write_in_place(fd);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

void file_discard(const struct store_options *o, int fd, bool made)
{
	struct stat ours, there;

	/* Empty it is as good as new. */
	(void)ftruncate(fd, 0);
	if (made && fstat(fd, &ours) == 0 && stat(o->path, &there) == 0 && ours.st_dev == there.st_dev &&
	    ours.st_ino == there.st_ino)
		(void)unlink(o->path);
}

int file_publish(const struct store_options *o, int fd, bool unnamed)
{
	const char *slash = strrchr(o->path, '/');
	char proc[64], dir[4096];
	int dirfd, r = 0;

	if (!unnamed)
		return 0;
	(void)snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, proc, AT_FDCWD, o->path, AT_SYMLINK_FOLLOW) < 0)
		return err_set(errno, "%s: cannot name the new store: %s", o->path, strerror(errno));
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
	return (uint64_t)st.f_bavail * st.f_frsize / BLOCK_SIZE;
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
