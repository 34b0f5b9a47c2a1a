/* SPDX-License-Identifier: MIT
 *
 * cmd_sync: `msyncfs sync [--wait-replicas=N] MOUNTPOINT`: returns when all that was changed before is on disk here, and on N
 * other machines. The daemon does the waiting: a write to its control file `sync`.
 */
#include "fs/cmd.h"
#include "fs/control.h"
#include "fs/log.h"
#include "fs/say.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXIT_TIMEOUT   3
#define TIMEOUT_S      30
#define REPLICAS_MAX   1000000ul
#define SECONDS_MAX    86400ul

static int usage(const char *what, const char *why)
{
	log_error("%s: %s: see msyncfs sync --help", what, why);
	return EXIT_USAGE;
}

static int help(void)
{
	printf("usage: msyncfs sync [options] MOUNTPOINT\n\n"
	       "Return when all that was changed at MOUNTPOINT before is on disk.\n\n"
	       "  --wait-replicas=N             and on the disks of N other machines\n"
	       "  --timeout=SECONDS             the longest to wait for those (default 30)\n"
	       "  -h, --help                    show this\n\n"
	       "Exit status 3: the time was over before enough others had it.\n");
	return 0;
}

static void explain(const char *mountpoint, bool found, int error)
{
	switch (error) {
	case EINVAL:
		log_error("%s: no other machine follows it: mount it with --listen or --from", mountpoint);
		break;
	case EACCES:
		log_error("%s: only who mounted it may: ask them, or root", mountpoint);
		break;
	case EROFS:
		log_error("%s: the primary cannot be reached: try again when its status says link_state=stream", mountpoint);
		break;
	case ECANCELED:
		log_error("%s: it is the primary no more: see its status", mountpoint);
		break;
	default:
		say_mount(mountpoint, found, error);
	}
}

/* 0 or an errno. */
static int ask(const char *mountpoint, const char *text, bool *ret_found)
{
	int dir = open(mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC), fd, error;

	*ret_found = dir >= 0;
	if (dir < 0)
		return errno;
	fd = openat(dir, CONTROL_NAME "/sync", O_WRONLY | O_CLOEXEC);
	error = fd < 0 ? errno : 0;
	close(dir);
	if (fd < 0)
		return error;
	error = write(fd, text, strlen(text)) < 0 ? errno : 0;
	close(fd);
	return error;
}

static bool parse(const char *text, unsigned long max, unsigned long *ret)
{
	char *end;

	errno = 0;
	*ret = strtoul(text, &end, 10);
	return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && *ret <= max;
}

int cmd_sync(int argc, char **argv)
{
	unsigned long replicas = 0, seconds = TIMEOUT_S;
	const char *mountpoint = NULL;
	bool words = false, found;
	char text[48];
	int error;

	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];

		if (!words && (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0))
			return help();
		if (!words && strcmp(arg, "--") == 0) {
			words = true;
		} else if (!words && strncmp(arg, "--wait-replicas=", 16) == 0) {
			if (!parse(arg + 16, REPLICAS_MAX, &replicas))
				return usage(arg, "not a number of machines");
		} else if (!words && strncmp(arg, "--timeout=", 10) == 0) {
			if (!parse(arg + 10, SECONDS_MAX, &seconds))
				return usage(arg, "not a number of seconds from 0 to 86400");
		} else if (!words && arg[0] == '-') {
			return usage(arg, "unknown option");
		} else if (mountpoint == NULL) {
			mountpoint = arg;
		} else {
			return usage("sync", "too many arguments");
		}
	}
	if (mountpoint == NULL)
		return usage("sync", "MOUNTPOINT is missing");
	snprintf(text, sizeof text, "%lu %lu\n", replicas, seconds * 1000);
	error = ask(mountpoint, text, &found);
	if (error == ETIMEDOUT) {
		log_error("%s: not on the disks of %lu other machine%s after %lu s: see its status for who is behind", mountpoint, replicas,
			  replicas == 1 ? "" : "s", seconds);
		return EXIT_TIMEOUT;
	}
	if (error != 0) {
		explain(mountpoint, found, error);
		return EXIT_FAILED;
	}
	return 0;
}
