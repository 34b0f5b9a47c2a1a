/* SPDX-License-Identifier: MIT
 *
 * cmd_role: `msyncfs promote MOUNTPOINT`: make a remote mount the primary, by hand, when the old one is gone.
 * `msyncfs demote MOUNTPOINT [NAME]`: hand a primary over to one of its remote mounts, without losing a change.
 * Both are begun by the mount's daemon, through its control files, and this waits until the role is the other.
 */
#include "fs/cmd.h"
#include "fs/control.h"
#include "fs/log.h"
#include "fs/say.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WAIT_S       30
#define POLL_NS      50000000

static int usage(const char *verb, const char *what, const char *why)
{
	log_error("%s: %s: see msyncfs %s --help", what, why, verb);
	return EXIT_USAGE;
}

static void explain(const char *mountpoint, bool found, int error)
{
	switch (error) {
	case EINVAL:
		log_error("%s: no other machine follows or leads it in that way: see its status", mountpoint);
		break;
	case EBUSY:
		log_error("%s: not now, its state is being made that of the primary: try again when its status says that it is", mountpoint);
		break;
	case EPERM:
		log_error("%s: its key is limited: only a machine with a key without limits becomes the primary", mountpoint);
		break;
	case EACCES:
		log_error("%s: only who mounted it may: ask them, or root", mountpoint);
		break;
	default:
		say_mount(mountpoint, found, error);
	}
}

/* The role of the mount: 1: it is `role`; 0: another one; -errno. */
static int has_role(int dir, const char *role)
{
	char buf[16384], line[64];
	int fd = openat(dir, CONTROL_NAME "/status", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, sizeof buf - 1);
	close(fd);
	if (n < 0)
		return -EIO;
	buf[n] = '\0';
	snprintf(line, sizeof line, "\nrole=%s\n", role);
	return strstr(buf, line) != NULL;
}

/* Write to a control file, then wait for the role. */
static int change(const char *mountpoint, const char *file, const char *text, const char *role)
{
	const struct timespec pause = { .tv_nsec = POLL_NS };
	int dir = open(mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC), fd, r, error;
	struct timespec now;
	time_t end;

	fd = dir < 0 ? -1 : openat(dir, file, O_WRONLY | O_CLOEXEC);
	error = errno;
	if (fd >= 0) {
		error = write(fd, text, strlen(text)) < 0 ? errno : 0;
		close(fd);
	}
	if (error != 0) {
		explain(mountpoint, dir >= 0, error);
		if (dir >= 0)
			close(dir);
		return EXIT_FAILED;
	}
	clock_gettime(CLOCK_MONOTONIC, &now);
	end = now.tv_sec + WAIT_S;
	while ((r = has_role(dir, role)) == 0) {
		nanosleep(&pause, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec > end)
			break;
	}
	close(dir);
	if (r == 1)
		return 0;
	log_error("%s: it did not become the %s: see the log of its daemon", mountpoint, role);
	return EXIT_FAILED;
}

static bool asks_help(int argc, char **argv)
{
	return argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
}

int cmd_promote(int argc, char **argv)
{
	if (asks_help(argc, argv)) {
		printf("usage: msyncfs promote MOUNTPOINT\n\n"
		       "Make the remote mount at MOUNTPOINT the primary of its cluster, when the old one is\n"
		       "gone. Changes that only the old one had are lost here; when it comes back with --from,\n"
		       "it puts them aside in a file. The mount should have been given --listen, for others.\n\n"
		       "  -h, --help                    show this\n");
		return 0;
	}
	if (argc > 1 && argv[1][0] == '-')
		return usage("promote", argv[1], "unknown option");
	if (argc != 2)
		return usage("promote", "promote", argc < 2 ? "MOUNTPOINT is missing" : "too many arguments");
	return change(argv[1], CONTROL_NAME "/promote", "\n", "primary");
}

int cmd_demote(int argc, char **argv)
{
	if (asks_help(argc, argv)) {
		printf("usage: msyncfs demote MOUNTPOINT [NAME]\n\n"
		       "Hand the primary at MOUNTPOINT over to one of its remote mounts, and follow it from then\n"
		       "on. NAME is a peer's name as in its status; without it the one that has most is taken.\n"
		       "Changes wait meanwhile; none is lost.\n\n"
		       "  -h, --help                    show this\n");
		return 0;
	}
	if (argc > 1 && argv[1][0] == '-')
		return usage("demote", argv[1], "unknown option");
	if (argc < 2 || argc > 3)
		return usage("demote", "demote", argc < 2 ? "MOUNTPOINT is missing" : "too many arguments");
	return change(argv[1], CONTROL_NAME "/demote", argc == 3 ? argv[2] : "\n", "replica");
}
