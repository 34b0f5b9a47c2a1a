/* SPDX-License-Identifier: MIT
 *
 * ask: see ask.h.
 */
#include "fs/ask.h"

#include "fs/control.h"
#include "fs/log.h"
#include "fs/say.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int ask_open(const char *mountpoint, const char *file, int flags, bool *ret_found)
{
	int dir = open(mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC), fd, error;
	char name[sizeof CONTROL_NAME + 64];

	*ret_found = dir >= 0;
	if (dir < 0)
		return -errno;
	(void)snprintf(name, sizeof name, CONTROL_NAME "/%s", file);
	fd = openat(dir, name, flags | O_CLOEXEC);
	error = errno;
	close(dir);
	return fd < 0 ? -error : fd;
}

int ask_write(const char *mountpoint, const char *file, const char *text, bool *ret_found)
{
	int fd = ask_open(mountpoint, file, O_WRONLY, ret_found), error;

	if (fd < 0)
		return fd;
	error = write(fd, text, strlen(text)) < 0 ? errno : 0;
	close(fd);
	return -error;
}

int ask_read(int fd, char *buf, size_t size)
{
	size_t len = 0;
	ssize_t n = 1;
	int error = 0;

	while (error == 0 && len + 1 < size && (n = read(fd, buf + len, size - 1 - len)) != 0) {
		if (n < 0 && errno != EINTR)
			error = errno;
		len += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	buf[len] = '\0';
	return error != 0 ? -error : (int)len;
}

void ask_explain(const char *mountpoint, bool found, int error, const struct ask_reason *reasons)
{
	error = abs(error);
	for (; reasons->text != NULL; reasons++) {
		if (reasons->error == error) {
			log_error("%s: %s", mountpoint, reasons->text);
			return;
		}
	}
	if (error == EACCES)
		log_error("%s: only who mounted it may: ask them, or root", mountpoint);
	else
		say_mount(mountpoint, found, error);
}
