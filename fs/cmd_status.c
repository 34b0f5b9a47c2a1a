/* SPDX-License-Identifier: MIT
 *
 * cmd_status: `msyncfs status MOUNTPOINT`: the lines of MOUNTPOINT/.msyncfs/status.
 */
#include "fs/cmd.h"
#include "fs/control.h"
#include "fs/log.h"
#include "fs/say.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int copy_out(int fd, const char *mountpoint)
{
	char buf[16384];
	ssize_t n;

	while ((n = read(fd, buf, sizeof buf)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			say_errno(SAY_DIR, mountpoint, "status cannot be read", errno);
			return EXIT_FAILED;
		}
		if (fwrite(buf, 1, (size_t)n, stdout) != (size_t)n)
			break;
	}
	return 0;
}

int cmd_status(int argc, char **argv)
{
	int dir, fd, error, r;

	if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		printf("usage: msyncfs status MOUNTPOINT\n\n"
		       "Print what the mount says of itself, as name=value lines for a shell.\n"
		       "They are those of MOUNTPOINT/" CONTROL_NAME "/status.\n\n"
		       "  -h, --help                    show this\n");
		return 0;
	}
	if (argc == 3 && strcmp(argv[1], "--") == 0) {
		argv++;
		argc--;
	} else if (argc > 1 && argv[1][0] == '-') {
		log_error("%s: unknown option: see msyncfs status --help", argv[1]);
		return EXIT_USAGE;
	}
	if (argc != 2) {
		log_error("status: %s: see msyncfs status --help",
			  argc < 2 ? "MOUNTPOINT is missing" : "too many arguments");
		return EXIT_USAGE;
	}
	dir = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
	fd = dir < 0 ? -1 : openat(dir, CONTROL_NAME "/status", O_RDONLY | O_CLOEXEC);
	error = errno;
	if (fd < 0) {
		say_mount(argv[1], dir >= 0, error);
		r = EXIT_FAILED;
	} else {
		r = copy_out(fd, argv[1]);
		close(fd);
	}
	if (dir >= 0)
		close(dir);
	return r;
}
