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
	unsigned long long replicas, seconds;
};

static const struct ask_reason reasons[] = {
	{ EINVAL, "no other machine follows it: mount it with --listen or --from" },
	{ EROFS, "the primary cannot be reached: try again when its status says link_state=stream" },
	{ ECANCELED, "it is the primary no more: see its status" },
	{ 0, NULL },
};

static int parse_option(void *ctx, struct cmd_args *args, const char *arg)
{
	struct sync_args *a = ctx;
	const char *value;

	(void)args;
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

static const struct cmd_syntax syntax = {
	"sync", "MOUNTPOINT",
	"usage: msyncfs sync [options] MOUNTPOINT\n\n"
	"Return when all that was changed at MOUNTPOINT before is on disk.\n\n"
	"  --wait-replicas=N             and on the disks of N other machines\n"
	"  --timeout=SECONDS             the longest to wait for those (default 30)\n"
	"  -h, --help                    show this\n\n"
	"Exit status 3: the time was over before enough others had it.\n",
	1, parse_option,
};

int cmd_sync(int argc, char **argv)
{
	struct sync_args a = { .seconds = TIMEOUT_S };
	const char *words[CMD_WORDS];
	char text[48];
	bool found;
	int r = cmd_parse(&syntax, argc, argv, &a, words);

	if (r != CMD_GO_ON)
		return r;
	snprintf(text, sizeof text, "%llu %llu\n", a.replicas, a.seconds * 1000);
	r = ask_write(words[0], "sync", text, &found);
	if (r == -ETIMEDOUT) {
		log_error("%s: not on the disks of %llu other machine%s after %llu s: see its status for who is behind", words[0],
			  a.replicas, a.replicas == 1 ? "" : "s", a.seconds);
		return EXIT_TIMEOUT;
	}
	if (r < 0) {
		ask_explain(words[0], found, r, reasons);
		return EXIT_FAILED;
	}
	return 0;
}
