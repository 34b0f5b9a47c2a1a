/* SPDX-License-Identifier: MIT
 *
 * outfile: see outfile.h.
 */
#include "core/base.h"
#include "core/stream/outfile.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define RENAME_NOT_OVER (1u << 0)       /* RENAME_NOREPLACE of linux/fs.h */

/* The folder of path, for openat() and messages. */
static int folder_of(const char *path, char *ret, size_t size)
{
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) + 1 : 0;

	if (n + 2 > size)
		return err_set(ENAMETOOLONG, "%s: the name is too long", path);
	memcpy(ret, path, n);
	memcpy(ret + n, ".", 2);
	return 0;
}

static int open_failed(const char *path, int error)
{
	struct stat st;

	if (error == ENOENT || error == ENOTDIR)
		return err_set(error, "%s: the folder does not exist", path);
	if (error == EACCES || error == EPERM)
		return err_set(error, "%s: no permission to make a file in that folder", path);
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return err_set(EISDIR, "%s: is a directory; give the name of a file", path);
	return err_set(error, "%s: cannot be made: %s", path, strerror(error));
}

static int temp_name(struct outfile *f)
{
	int n = snprintf(f->temp, sizeof f->temp, "%s.XXXXXX", f->path);

	if (n < 0 || (size_t)n >= sizeof f->temp)
		return err_set(ENAMETOOLONG, "%s: the name is too long", f->path);
	return 0;
}

int outfile_open(struct outfile *f, const char *path)
{
	char folder[PATH_MAX];
	int r = folder_of(path, folder, sizeof folder);

	*f = (struct outfile){ .fd = -1, .path = path };
	if (r < 0)
		return r;
	f->fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (f->fd >= 0) {
		(void)snprintf(f->proc, sizeof f->proc, "/proc/self/fd/%d", f->fd);
		if (access(f->proc, R_OK | W_OK) == 0)
			return 0;
		(void)close(f->fd);     /* no /proc: it could never get a name */
		f->fd = -1;
	} else if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) {
		return open_failed(path, errno);
	}
	r = temp_name(f);
	if (r < 0)
		return r;
	f->fd = mkostemp(f->temp, O_CLOEXEC);
	if (f->fd < 0)
		return open_failed(path, errno);
	f->has_temp = true;
	return 0;
}

const char *outfile_place(const struct outfile *f)
{
	return f->has_temp ? f->temp : f->proc;
}

/* An unnamed file cannot take the place of another in one step: it gets a name beside it first. */
static int name_beside(struct outfile *f)
{
	int r = temp_name(f), fd;

	if (r < 0)
		return r;
	/* mkostemp finds the name; a moment without it does no harm, since linkat() does not replace. */
	fd = mkostemp(f->temp, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	(void)close(fd);
	if (unlink(f->temp) < 0 || linkat(AT_FDCWD, f->proc, AT_FDCWD, f->temp, AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	f->has_temp = true;
	return 0;
}

static int give_name(struct outfile *f, bool replace)
{
	struct stat st;
	int r;

	if (!f->has_temp) {
		if (linkat(AT_FDCWD, f->proc, AT_FDCWD, f->path, AT_SYMLINK_FOLLOW) == 0)
			return 0;
		if (errno != EEXIST || !replace)
			return -errno;
		r = name_beside(f);
		if (r < 0)
			return r;
	}
	r = renameat2(AT_FDCWD, f->temp, AT_FDCWD, f->path, replace ? 0 : RENAME_NOT_OVER);
	if (r < 0 && (errno == EINVAL || errno == ENOSYS)) {
		if (!replace && lstat(f->path, &st) == 0)
			return -EEXIST;
		r = rename(f->temp, f->path);
	}
	if (r < 0)
		return -errno;
	f->has_temp = false;
	return 0;
}

int outfile_publish(struct outfile *f, bool replace)
{
	char folder[PATH_MAX];
	int fd, r;

	/* The contents first: a name that survives a power cut must not lead to an empty file. */
	if (fsync(f->fd) < 0)
		return err_set(errno, "%s: cannot be synced: %s", f->path, strerror(errno));
	r = give_name(f, replace);
	if (r == -EEXIST)
		return err_set(EEXIST, "%s: exists already", f->path);
	if (r < 0)
		return err_set(-r, "%s: cannot get its name: %s", f->path, strerror(-r));
	r = folder_of(f->path, folder, sizeof folder);
	if (r < 0)
		return r;
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* A folder that may be written but not read cannot be synced by us. */
	if (fd < 0)
		return errno == EACCES ? 0 : err_set(errno, "%s: cannot be synced: %s", folder, strerror(errno));
	if (fsync(fd) < 0 && errno != EINVAL)
		r = err_set(errno, "%s: cannot be synced: %s", folder, strerror(errno));
	(void)close(fd);
	return r;
}

void outfile_close(struct outfile *f)
{
	if (f->has_temp)
		(void)unlink(f->temp);
	f->has_temp = false;
	if (f->fd >= 0)
		(void)close(f->fd);
	f->fd = -1;
}
