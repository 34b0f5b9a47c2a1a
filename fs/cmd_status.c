/* SPDX-License-Identifier: MIT
 *
 * cmd_status: `msyncfs status MOUNTPOINT`: the lines of MOUNTPOINT/.msyncfs/status.
 */
#include "fs/ask.h"
#include "fs/cmd.h"
#include "fs/control.h"
#include "fs/say.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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

static int help(void)
{
	printf("usage: msyncfs status MOUNTPOINT\n\n"
	       "Print what the mount says of itself, as name=value lines for a shell.\n"
	       "They are those of MOUNTPOINT/" CONTROL_NAME "/status.\n\n"
	       "  -h, --help                    show this\n");
	return 0;
}

int cmd_status(int argc, char **argv)
{
	struct cmd_args args = { argc, argv, 0, false };
	const char *mountpoint = NULL, *arg;
	enum cmd_arg kind;
	bool found;
	int fd, r;

	while ((kind = cmd_next(&args, &arg)) != CMD_END) {
		if (kind == CMD_HELP)
			return help();
		if (kind == CMD_OPTION)
			return cmd_usage("status", arg, "unknown option");
		if (mountpoint != NULL)
			return cmd_usage("status", "status", "too many arguments");
		mountpoint = arg;
	}
	if (mountpoint == NULL)
		return cmd_usage("status", "status", "MOUNTPOINT is missing");
	fd = ask_open(mountpoint, "status", O_RDONLY, &found);
	if (fd < 0) {
		say_mount(mountpoint, found, -fd);
		return EXIT_FAILED;
	}
	r = copy_out(fd, mountpoint);
	close(fd);
	return r;
}
