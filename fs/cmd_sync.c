/* SPDX-License-Identifier: MIT
 *
 * cmd_sync: `msyncfs sync [--wait-replicas=N] MOUNTPOINT`: returns when all that was changed before is on disk here, and on N
 * other machines. The daemon does the waiting: a write to its control file `sync`.
 */
#include "fs/ask.h"
#include "fs/cmd.h"
#include "fs/log.h"

#include <errno.h>
#include <stdio.h>

#define EXIT_TIMEOUT   3
#define TIMEOUT_S      30
#define REPLICAS_MAX   1000000ull
#define SECONDS_MAX    86400ull

struct sync_args {
	const char *mountpoint;
	unsigned long long replicas, seconds;
	bool help;
};

static const struct ask_reason reasons[] = {
	{ EINVAL, "no other machine follows it: mount it with --listen or --from" },
	{ EROFS, "the primary cannot be reached: try again when its status says link_state=stream" },
	{ ECANCELED, "it is the primary no more: see its status" },
	{ 0, NULL },
};

static void help(void)
{
	printf("usage: msyncfs sync [options] MOUNTPOINT\n\n"
	       "Return when all that was changed at MOUNTPOINT before is on disk.\n\n"
	       "  --wait-replicas=N             and on the disks of N other machines\n"
	       "  --timeout=SECONDS             the longest to wait for those (default 30)\n"
	       "  -h, --help                    show this\n\n"
	       "Exit status 3: the time was over before enough others had it.\n");
}

static int parse_option(struct sync_args *a, const char *arg)
{
	const char *value;

	if ((value = cmd_value(arg, "--wait-replicas")) != NULL) {
		if (!cmd_number(value, REPLICAS_MAX, &a->replicas))
			return cmd_usage("sync", arg, "not a number of machines");
	} else if ((value = cmd_value(arg, "--timeout")) != NULL) {
		if (!cmd_number(value, SECONDS_MAX, &a->seconds))
			return cmd_usage("sync", arg, "not a number of seconds from 0 to 86400");
	} else {
		return cmd_usage("sync", arg, "unknown option");
	}
	return 0;
}

static int parse(struct sync_args *a, int argc, char **argv)
{
	struct cmd_args args = { argc, argv, 0, false };
	enum cmd_arg kind;
	const char *arg;
	int r;

	while ((kind = cmd_next(&args, &arg)) != CMD_END) {
		if (kind == CMD_HELP) {
			a->help = true;
			return 0;
		}
		r = kind == CMD_OPTION ? parse_option(a, arg) : 0;
		if (r != 0)
			return r;
		if (kind != CMD_WORD)
			continue;
		if (a->mountpoint != NULL)
			return cmd_usage("sync", "sync", "too many arguments");
		a->mountpoint = arg;
	}
	return a->mountpoint != NULL ? 0 : cmd_usage("sync", "sync", "MOUNTPOINT is missing");
}

int cmd_sync(int argc, char **argv)
{
	struct sync_args a = { .seconds = TIMEOUT_S };
	char text[48];
	bool found;
	int r = parse(&a, argc, argv);

	if (r != 0)
		return r;
	if (a.help) {
		help();
		return 0;
	}
	snprintf(text, sizeof text, "%llu %llu\n", a.replicas, a.seconds * 1000);
	r = ask_write(a.mountpoint, "sync", text, &found);
	if (r == -ETIMEDOUT) {
		log_error("%s: not on the disks of %llu other machine%s after %llu s: see its status for who is behind", a.mountpoint,
			  a.replicas, a.replicas == 1 ? "" : "s", a.seconds);
		return EXIT_TIMEOUT;
	}
	if (r < 0) {
		ask_explain(a.mountpoint, found, r, reasons);
		return EXIT_FAILED;
	}
	return 0;
}
