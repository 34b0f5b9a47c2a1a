/* SPDX-License-Identifier: MIT
 *
 * mnt: see mnt.h. The table is /proc/self/mountinfo: fields parted by blanks, of which the fifth is
 * the mount point, and behind a field "-" the type and the source; odd characters are written as
 * octal escapes.
 */
#include "fs/mnt.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

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
	char *save = NULL, *field, *type, *source;
	int n = 0;

	for (field = strtok_r(line, " \n", &save); field != NULL;
	     field = strtok_r(NULL, " \n", &save)) {
		if (++n == 5) {
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
