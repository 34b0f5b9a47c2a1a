/* SPDX-License-Identifier: MIT
 *
 * cmd_role: `msyncfs promote MOUNTPOINT`: make a remote mount the primary, by hand, when the old one is gone.
 * `msyncfs demote MOUNTPOINT [NAME]`: hand a primary over to one of its remote mounts, without losing a change.
 * Both are begun by the mount's daemon, through its control files, and this waits until the role is the other.
 */
#include "fs/ask.h"
#include "fs/cmd.h"
#include "fs/log.h"

#include "core/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define WAIT_S       30
#define POLL_NS      50000000

/* What a verb does: its words, the control file that is written to, and the role that comes of it. */
struct role_verb {
	struct cmd_syntax syntax;       /* its name is that of the file */
	const char *role;
};

static const struct ask_reason reasons[] = {
	{ EINVAL, "no other machine follows or leads it in that way: see its status" },
	{ EBUSY, "not now, its state is being made that of the primary: try again when its status says that it is" },
	{ EPERM, "its key is limited: only a machine with a key without limits becomes the primary" },
	{ 0, NULL },
};

/* Does the mount have the role? 1, 0 or a negative errno. */
static int has_role(const char *mountpoint, const char *role)
{
	char buf[16384], line[64];
	bool found;
	int fd = ask_open(mountpoint, "status", O_RDONLY, &found), r;

	if (fd < 0)
		return fd;
	r = ask_read(fd, buf, sizeof buf);
	if (r < 0)
		return r;
	snprintf(line, sizeof line, "\nrole=%s\n", role);
	return strstr(buf, line) != NULL;
}

/* Write to the control file, then wait for the role. */
static int change(const struct role_verb *v, const char *mountpoint, const char *text)
{
	const struct timespec pause = { .tv_nsec = POLL_NS };
	int64_t end;
	bool found;
	int r = ask_write(mountpoint, v->syntax.verb, text, &found);

	if (r < 0) {
		ask_explain(mountpoint, found, r, reasons);
		return EXIT_FAILED;
	}
	end = clock_mono_ms() + WAIT_S * 1000;
	while ((r = has_role(mountpoint, v->role)) == 0 && clock_mono_ms() < end)
		nanosleep(&pause, NULL);
	if (r == 1)
		return 0;
	log_error("%s: it did not become the %s: see the log of its daemon", mountpoint, v->role);
	return EXIT_FAILED;
}

static int run(const struct role_verb *v, int argc, char **argv)
{
	const char *words[CMD_WORDS];
	int r = cmd_parse(&v->syntax, argc, argv, NULL, words);

	return r == CMD_GO_ON ? change(v, words[0], words[1] != NULL ? words[1] : "\n") : r;
}

int cmd_promote(int argc, char **argv)
{
	static const struct role_verb promote = {
		{ "promote", "MOUNTPOINT",
		  "usage: msyncfs promote MOUNTPOINT\n\n"
		  "Make the remote mount at MOUNTPOINT the primary of its cluster, when the old one is\n"
		  "gone. Changes that only the old one had are lost here; when it comes back with --from,\n"
		  "it puts them aside in a file. The mount should have been given --listen, for others.\n\n"
		  "  -h, --help                    show this\n", 1, NULL }, "primary",
	};

	return run(&promote, argc, argv);
}

int cmd_demote(int argc, char **argv)
{
	static const struct role_verb demote = {
		{ "demote", "MOUNTPOINT",
		  "usage: msyncfs demote MOUNTPOINT [NAME]\n\n"
		  "Hand the primary at MOUNTPOINT over to one of its remote mounts, and follow it from then\n"
		  "on. NAME is a peer's name as in its status; without it the one that has most is taken.\n"
		  "Changes wait meanwhile; none is lost.\n\n"
		  "  -h, --help                    show this\n", 2, NULL }, "replica",
	};

	return run(&demote, argc, argv);
}
