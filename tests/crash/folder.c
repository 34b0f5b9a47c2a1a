/* SPDX-License-Identifier: MIT
 *
 * folder: where a new store is made. Its file has no name (O_TMPFILE) until it is a store; then it gets one (linkat), and
 * the folder is synced. These three calls do not go through the store's table of system calls: they are wrapped here (the
 * linker's --wrap), for one path. What is behind it is the live machine's file.
 *
 * A power cut before linkat() leaves nothing; between it and the fsync of the folder nothing, or the file under its name
 * with whatever its own msyncs made durable; behind it the latter. See crash.h.
 */
#include "tests/crash/crash.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define MADE_IMAGES 3u                  /* at each of the points */

enum name live_name;
static bool making_here;
static int folder_fd = -1;

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, mode_t mode);
int __real_linkat(int from, const char *old, int to, const char *new, int flags);
int __wrap_linkat(int from, const char *old, int to, const char *new, int flags);
int __real_fsync(int fd);
int __wrap_fsync(int fd);

void folder_begin(void)
{
	making_here = true;
	live_name = NAME_NONE;
}

void folder_end(void)
{
	making_here = false;
	folder_fd = -1;
}

static bool is_here(const char *path)
{
	const size_t len = strlen(FOLDER_STORE) - strlen("store");

	return making_here && strncmp(path, FOLDER_STORE, len) == 0;
}

static void images(const char *where)
{
	unsigned n;

	protect(&live);
	add_image(HOW_NONE, 0, where);
	add_image(HOW_KILL, 0, where);
	for (n = MADE_IMAGES; n > 0; n--)
		add_image((enum how)below(HOW_COUNT), 0, where);
}

int __wrap_open64(const char *path, int flags, mode_t mode)
{
	if (!is_here(path))
		return __real_open64(path, flags, mode);
	if ((flags & O_TMPFILE) == O_TMPFILE)
		return __real_open64(live.path, O_RDWR | O_CLOEXEC);
	if (flags & O_DIRECTORY)
		return folder_fd = __real_open64("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	errno = ENOENT;
	return -1;
}

int __wrap_linkat(int from, const char *old, int to, const char *new, int flags)
{
	if (!is_here(new))
		return __real_linkat(from, old, to, new, flags);
	if (live_name != NAME_NONE)
		broken("the store is named twice");
	images("before it has a name");
	live_name = NAME_IN_CACHE;
	images("when it has a name");
	return 0;
}

int __wrap_fsync(int fd)
{
	if (!making_here || fd != folder_fd)
		return __real_fsync(fd);
	if (live_name == NAME_IN_CACHE)
		live_name = NAME_ON_DISK;
	images("behind the sync of its folder");
	return 0;
}
