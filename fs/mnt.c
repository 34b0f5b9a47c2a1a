/* SPDX-License-Identifier: MIT
 *
 * mnt: see mnt.h. The table is /proc/self/mountinfo: fields parted by blanks, of which the third is the device, the fifth
 * the mount point, and behind a field "-" the type and the source; odd characters are written as
 * octal escapes.
 */
#include "core/base.h"
#include "fs/mnt.h"

#include <errno.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOCK_NAP_NS 5000000u

extern char **environ;

static void unescape(char *s)
{
	char *to = s;

	while (*s != '\0') {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/* Fill *info if the line is of a mount at path. */
static bool parse_line(char *line, const char *path, struct mnt_info *info)
{
	char *save = NULL, *field, *type, *source, *device = NULL;
	int n = 0;

	for (field = strtok_r(line, " \n", &save); field != NULL;
	     field = strtok_r(NULL, " \n", &save)) {
		if (++n == 3)
			device = field;
		if (n == 5) {
			unescape(field);
			if (strcmp(field, path) != 0)
				return false;
		}
		if (n > 5 && strcmp(field, "-") == 0)
			break;
	}
	if (field == NULL)
		return false;
	type = strtok_r(NULL, " \n", &save);
	source = strtok_r(NULL, " \n", &save);
	if (type == NULL || source == NULL)
		return false;
	unescape(source);
	snprintf(info->device, sizeof info->device, "%s", device);
	snprintf(info->type, sizeof info->type, "%s", type);
	snprintf(info->source, sizeof info->source, "%s", source);
	return true;
}

int mnt_find(const char *path, struct mnt_info *ret_info)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;
	int r = -ENOENT;

	if (f == NULL)
		return -errno;
	/* The last one lies on top. */
	while (getline(&line, &size, f) >= 0)
		if (parse_line(line, path, ret_info))
			r = 0;
	free(line);
	fclose(f);
	return r;
}

bool mnt_is_ours(const struct mnt_info *info)
{
	return strcmp(info->type, "fuse.msyncfs") == 0;
}

int mnt_detach(const char *path)
{
	char *argv[] = { "fusermount3", "-u", "-z", "-q", "--", (char *)path, NULL };
	int r, status;
	pid_t pid;

	if (umount2(path, MNT_DETACH) == 0)
		return 0;
	if (errno != EPERM)
		return -errno;
	/* Not root: the set-user-ID helper of libfuse may do it for us. */
	r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (r != 0)
		return -r;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

/* The lock is the name of a socket in the abstract name space that nobody talks through. A lock on the mount point itself
 * cannot be had while a dead mount lies on it, one on the directory above would make neighbours wait for each other, and a
 * file would be left behind. The name is a hash of the path: two paths of one hash wait for each other, that is all. */
int mnt_lock(const char *path, unsigned wait_s, int *ret_fd)
{
	const struct timespec nap = { .tv_nsec = LOCK_NAP_NS };
	unsigned tries = wait_s * (1000000000u / LOCK_NAP_NS);
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), len;

	if (fd < 0)
		return -errno;
	len = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "msyncfs mounts %016" PRIx64,
		       hash64(path, strlen(path), 0));
	while (bind(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len)) < 0) {
		int error = errno;

		if (error == EADDRINUSE && tries-- > 0) {
			nanosleep(&nap, NULL);
			continue;
		}
		close(fd);
		return error == EADDRINUSE ? -EBUSY : -error;
	}
	*ret_fd = fd;
	return 0;
}
