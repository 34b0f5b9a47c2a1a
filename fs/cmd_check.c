/* SPDX-License-Identifier: MIT
 *
 * cmd_check: `msyncfs check STORE`: verify all of a store, mounted or not; `msyncfs check --salvage
 * STORE NEWSTORE`: take out of a damaged one what is whole. Findings go to standard error, the
 * verdict to standard output; the exit status is that of fsck(8).
 */
#include "fs/cmd.h"

#include "core/base.h"
#include "core/check/check.h"
#include "core/salvage/salvage.h"
#include "core/store/map.h"
#include "fs/log.h"
#include "fs/progress.h"
#include "fs/say.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

/* fsck(8) */
#define EXIT_ALL_SAVED   1      /* salvage: there was damage, but nothing is lost */
#define EXIT_DAMAGED     4
#define EXIT_UNCHECKED   8
#define EXIT_CHECK_USAGE 16
#define EXIT_INTERRUPTED 32

#define SNAPSHOT_TRIES 50       /* the daemon's checkpoints may overtake us */
#define FINDINGS_MAX   10000    /* lines; the rest is counted only */

struct check_cmd {
	const char *store, *new_store;
	bool help, verbose, progress, salvage;
	bool terminal;
	bool said;              /* that a checkpoint is looked at */
	uint64_t findings;
	int64_t shown_ms;       /* when progress was last shown */
	int percent;
	struct progress copying;        /* salvage: the second half; .what is NULL before */
	struct stream_watch watch;
};

static const struct {
	char letter;            /* 0: none */
	const char *name;       /* NULL: none */
	const char *help;
} options[] = {
	{ 'v', "verbose", "say what was looked at" },
	{ 0, "progress", "show progress, even if standard error is no terminal" },
	{ 0, "salvage", "make NEWSTORE of all that is whole in STORE" },
	{ 'n', NULL, "accepted for fsck(8), as are -a, -f, -p and -y;" },
	{ 'a', NULL, NULL },
	{ 'f', NULL, NULL },
	{ 'p', NULL, NULL },
	{ 'y', NULL, NULL },
	{ 'h', "help", "show this" },
};
#define OPTION_COUNT (sizeof options / sizeof options[0])

static void print_help(void)
{
	printf("usage: msyncfs check [options] STORE\n"
	       "       msyncfs check --salvage [options] STORE NEWSTORE\n\n"
	       "Verify all of STORE, mounted or not, and change nothing. With --salvage: take out of a\n"
	       "damaged STORE all that is whole, put it into NEWSTORE, and say what could not be saved.\n\n");
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		const char *name = options[i].name;
		char left[32];

		if (options[i].help == NULL)
			continue;
		snprintf(left, sizeof left, "%c%c%s%s%s", options[i].letter != 0 ? '-' : ' ',
			 options[i].letter != 0 ? options[i].letter : ' ',
			 name == NULL ? "" : options[i].letter != 0 ? ", " : "  ",
			 name != NULL ? "--" : "", name != NULL ? name : "");
		printf("  %-29s %s\n", left, options[i].help);
		if (options[i].letter == 'n')
			printf("  %-29s %s\n", "", "the check always looks at everything");
	}
	printf("\nExit status: 0 clean, 4 damaged, 8 could not be checked, 16 wrong use,\n"
	       "32 interrupted. With --salvage: 0 no damage, 1 damage but all is saved, 4 something\n"
	       "is lost, 8 no NEWSTORE could be made.\n");
}

static int usage(const char *what, const char *why)
{
	log_error("%s: %s: see msyncfs check --help", what, why);
	return EXIT_CHECK_USAGE;
}

static void set_option(struct check_cmd *cmd, const char *name, char letter)
{
	if (letter == 'v')
		cmd->verbose = true;
	else if (letter == 'h')
		cmd->help = true;
	else if (name != NULL && strcmp(name, "progress") == 0)
		cmd->progress = true;
	else if (name != NULL && strcmp(name, "salvage") == 0)
		cmd->salvage = true;
}

static int parse_option(struct check_cmd *cmd, const char *arg)
{
	size_t i;

	if (arg[1] == '-') {
		for (i = 0; i < OPTION_COUNT; i++)
			if (options[i].name != NULL && strcmp(arg + 2, options[i].name) == 0)
				break;
		if (i == OPTION_COUNT)
			return usage(arg, "unknown option");
		set_option(cmd, options[i].name, options[i].letter);
		return 0;
	}
	for (const char *p = arg + 1; *p != '\0'; p++) {
		for (i = 0; i < OPTION_COUNT; i++)
			if (options[i].letter == *p)
				break;
		if (i == OPTION_COUNT)
			return usage(arg, "unknown option");
		set_option(cmd, options[i].name, options[i].letter);
	}
	return 0;
}

static int parse(struct check_cmd *cmd, int argc, char **argv)
{
	bool only_words = false;

	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];
		int r = 0;

		if (!only_words && strcmp(arg, "--") == 0)
			only_words = true;
		else if (!only_words && arg[0] == '-' && arg[1] != '\0')
			r = parse_option(cmd, arg);
		else if (cmd->store == NULL)
			cmd->store = arg;
		else if (cmd->new_store == NULL)
			cmd->new_store = arg;
		else
			r = usage(arg, "too many arguments");
		if (r != 0 || cmd->help)
			return r;
	}
	if (cmd->store == NULL || cmd->store[0] == '\0')
		return usage("check", "STORE is missing");
	if (!cmd->salvage && cmd->new_store != NULL)
		return usage(cmd->new_store, "too many arguments");
	if (cmd->salvage && (cmd->new_store == NULL || cmd->new_store[0] == '\0'))
		return usage("salvage", "NEWSTORE is missing");
	if (cmd->salvage && strcmp(cmd->new_store, ":memory:") == 0)
		return usage(cmd->new_store, "a store in memory would be gone at once: give a file");
	return 0;
}

/* Signals: nothing is ever changed, so there is nothing to tidy up. */

static void interrupted(int sig)
{
	(void)sig;
	_exit(EXIT_INTERRUPTED);
}

static void unreadable(int sig)
{
	static const char text[] = "msyncfs: check: a part of the store cannot be read: the disk failed, "
				   "or the file was cut short meanwhile\n";

	(void)sig;
	if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
		_exit(EXIT_UNCHECKED);
	_exit(EXIT_UNCHECKED);
}

static void catch_signals(void)
{
	struct sigaction act = { .sa_handler = interrupted };

	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGHUP, &act, NULL);
	act.sa_handler = unreadable;
	sigaction(SIGBUS, &act, NULL);
}

/* Output */

static void clear_progress(struct check_cmd *cmd)
{
	if (cmd->percent >= 0 && cmd->terminal)
		fprintf(stderr, "\r\033[K");
	cmd->percent = -1;
}

static void finding(struct check_cmd *cmd, const char *indent, const char *text)
{
	clear_progress(cmd);
	if (++cmd->findings <= FINDINGS_MAX)
		log_error("check: %s%s", indent, text);
	else if (cmd->findings == FINDINGS_MAX + 1)
		log_error("check: there is more, which is only counted");
}

static void problem(void *ctx, const char *text)
{
	finding(ctx, "", text);
}

static void follows(void *ctx, const char *text)
{
	finding(ctx, "  ", text);
}

static int progress(void *ctx, uint64_t done, uint64_t total)
{
	struct check_cmd *cmd = ctx;
	int percent = total > 0 ? (int)(done * 100 / total) : 100;
	const int64_t now_ms = clock_mono_ms();

	if (percent == cmd->percent || now_ms - cmd->shown_ms < (cmd->terminal ? 200 : 1000))
		return 0;
	cmd->percent = percent;
	cmd->shown_ms = now_ms;
	fprintf(stderr, cmd->terminal ? "\rmsyncfs: check: %d%%\033[K" : "msyncfs: check: %d%%\n", percent);
	return 0;
}

static int open_failed(const struct check_cmd *cmd, int error)
{
	say_error(SAY_STORE, cmd->store, NULL, error);
	/* -ENODATA: it was a store, and all of it is gone. */
	return error == -EUCLEAN || error == -ENODATA ? EXIT_DAMAGED : EXIT_UNCHECKED;
}

static int verdict(const struct check_cmd *cmd, const struct check_report *rep)
{
	if (rep->incomplete)
		log_error("check: some of the tree or of the journal cannot be read: leaked blocks were not looked for");
	if (cmd->verbose)
		printf("%s: %" PRIu64 " names, %" PRIu64 " tree pages, %" PRIu64 " blocks of contents\n", cmd->store,
		       rep->names, rep->tree_pages, rep->content_blocks);
	if (rep->problems > 0 && rep->follows > 0)
		printf("%s: %" PRIu64 " problem%s; %" PRIu64 " finding%s from that\n", cmd->store, rep->problems,
		       rep->problems == 1 ? "" : "s", rep->follows, rep->follows == 1 ? " follows" : "s follow");
	else if (rep->problems > 0)
		printf("%s: %" PRIu64 " problem%s\n", cmd->store, rep->problems, rep->problems == 1 ? "" : "s");
	else
		printf("%s: clean, %" PRIu64 " inodes, %" PRIu64 " blocks used, seq %" PRIu64 "\n", cmd->store,
		       rep->inodes, rep->used_blocks, rep->seq);
	if (fflush(stdout) != 0) {
		say_stdout(errno);
		return EXIT_UNCHECKED;
	}
	return rep->problems > 0 ? EXIT_DAMAGED : 0;
}

static void opened(void *ctx, bool snapshot, uint64_t seq)
{
	struct check_cmd *cmd = ctx;

	if (!snapshot || cmd->said)
		return;
	cmd->said = true;
	printf("%s: checking checkpoint of change %" PRIu64 " while it is mounted\n", cmd->store, seq);
	fflush(stdout);
}

/* Check once. -EAGAIN: a checkpoint overtook the snapshot. Else the exit status. */
static int check_once(struct check_cmd *cmd)
{
	const struct check_options co = { .problem = problem, .follows = follows, .opened = opened, .ctx = cmd,
					  .progress = cmd->progress || cmd->terminal ? progress : NULL };
	struct check_report rep;
	int r = check_path(cmd->store, &co, &rep);

	clear_progress(cmd);
	if (r == -EAGAIN)
		return r;
	return r < 0 ? open_failed(cmd, r) : verdict(cmd, &rep);
}

/* ---- Salvage ---- */

/* Pages that the disk cannot read are taken as zeros: damaged like others, and said to be so. */
static struct {
	uintptr_t base;
	uint64_t bytes;
	long page;
} source;

static void unreadable_page(int sig, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr & ~((uintptr_t)source.page - 1);
	const ucontext_t *was = context;

	/* One of the new store: the copying is left. */
	if (at - source.base >= source.bytes)
		map_fault(info->si_addr, &was->uc_sigmask);
	if (at - source.base >= source.bytes ||
	    mmap((void *)at, (size_t)source.page, PROT_READ | PROT_WRITE,
		 MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
		unreadable(sig);
}

static void source_mapped(void *ctx, void *base, uint64_t bytes)
{
	struct sigaction act = { .sa_sigaction = unreadable_page, .sa_flags = SA_SIGINFO };

	(void)ctx;
	source.base = (uintptr_t)base;
	source.bytes = bytes;
	source.page = sysconf(_SC_PAGESIZE);
	sigaction(SIGBUS, &act, NULL);
}

static void salvage_finding(void *ctx, bool lost, const char *text)
{
	struct check_cmd *cmd = ctx;

	(void)lost;
	clear_progress(cmd);
	/* What is lost is all said: there is no other record of it. */
	log_error("check: %s", text);
}

static int salvage_failed(const struct check_cmd *cmd, int error)
{
	size_t len = strlen(cmd->store);

	if (error == -EINTR)
		log_error("check: interrupted: %s is not made: begin anew", cmd->new_store);
	else if (error == -EMEDIUMTYPE || error == -EUCLEAN || error == -EBUSY || error == -EPROTONOSUPPORT || error == -ENODATA ||
		 (strncmp(err_last(), cmd->store, len) == 0 && err_last()[len] == ':'))
		say_error(SAY_STORE, cmd->store, "cannot be saved", error);
	else
		say_error(SAY_NEW, cmd->new_store, "not made", error);
	return error == -EINTR ? EXIT_INTERRUPTED : EXIT_UNCHECKED;
}

/* Until the new store is begun, a signal just ends us; from then on the copying ends in order. The first call comes before
 * there is a file that could be left behind. */
static int copy_step(void *ctx, const struct stream_counts *counts)
{
	struct check_cmd *cmd = ctx;

	if (cmd->copying.what == NULL) {
		clear_progress(cmd);
		progress_start(&cmd->copying, &cmd->watch, "check", !(cmd->progress || cmd->terminal), 0);
	}
	return cmd->watch.fn(cmd->watch.ctx, counts);
}

static int salvage(struct check_cmd *cmd)
{
	const struct stream_watch watch = { copy_step, cmd };
	struct salvage_options o = { .say = salvage_finding, .mapped = source_mapped, .ctx = cmd,
				     .progress = cmd->progress || cmd->terminal ? progress : NULL, .watch = &watch };
	const struct stream_target target = { .path = cmd->new_store };
	struct salvage_report rep = { 0 };
	int r = salvage_store(cmd->store, &target, &o, &rep);

	clear_progress(cmd);
	if (cmd->copying.what != NULL)
		progress_end(&cmd->copying, NULL);
	if (r < 0)
		return salvage_failed(cmd, r);
	printf("%s: %" PRIu64 " inodes saved in %s", cmd->store, rep.saved.inodes, cmd->new_store);
	if (rep.aside > 0)
		printf(", %" PRIu64 " of them in its folder %s", rep.aside, rep.folder);
	printf("; %" PRIu64 " finding%s, %" PRIu64 " with a loss\n", rep.damage, rep.damage == 1 ? "" : "s", rep.lost);
	if (fflush(stdout) != 0) {
		say_stdout(errno);
		return EXIT_UNCHECKED;
	}
	return rep.lost > 0 ? EXIT_DAMAGED : rep.damage > 0 ? EXIT_ALL_SAVED : 0;
}

int cmd_check(int argc, char **argv)
{
	struct check_cmd cmd = { .percent = -1 };
	int r = parse(&cmd, argc, argv);

	if (r != 0)
		return r;
	if (cmd.help) {
		print_help();
		return 0;
	}
	if (strcmp(cmd.store, ":memory:") == 0) {
		log_error("check: a store in memory is gone with its daemon: there is nothing to check, give a file");
		return EXIT_UNCHECKED;
	}
	cmd.terminal = isatty(STDERR_FILENO);
	catch_signals();
	if (cmd.salvage)
		return salvage(&cmd);
	for (int tries = 0; tries < SNAPSHOT_TRIES; tries++) {
		r = check_once(&cmd);
		if (r != -EAGAIN)
			return r;
	}
	log_error("check: %s: checkpoints follow each other too fast; try again when it is less busy", cmd.store);
	return EXIT_UNCHECKED;
}
