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

static const struct cmd_syntax syntax = {
	"status", "MOUNTPOINT",
	"usage: msyncfs status MOUNTPOINT\n\n"
	"Print what the mount says of itself, as name=value lines for a shell.\n"
	"They are those of MOUNTPOINT/" CONTROL_NAME "/status.\n\n"
	"  -h, --help                    show this\n",
	1, NULL,
};

int cmd_status(int argc, char **argv)
{
	const char *words[CMD_WORDS];
	bool found;
	int fd, r = cmd_parse(&syntax, argc, argv, NULL, words);

	if (r != CMD_GO_ON)
		return r;
	fd = ask_open(words[0], "status", O_RDONLY, &found);
	if (fd < 0) {
		say_mount(words[0], found, -fd);
		return EXIT_FAILED;
	}
	r = copy_out(fd, words[0]);
	close(fd);
	return r;
}
