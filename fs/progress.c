/* SPDX-License-Identifier: MIT
 *
 * progress: see progress.h.
 */
#include "fs/progress.h"

#include "core/base.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define DRAW_MS 200

static volatile sig_atomic_t progress_stop;

static void on_signal(int sig)
{
	progress_stop = sig;
}

static void draw(struct progress *p, const struct stream_counts *c, const char *end)
{
	char percent[16] = "";

	if (p->inodes > 0 && c->inodes <= p->inodes)
		snprintf(percent, sizeof percent, " %3llu%%",
			 (unsigned long long)(c->inodes * 100 / p->inodes));
	fprintf(stderr, "\r%s:%s %llu files, %llu MiB of contents, stream %llu MiB\033[K%s",
		p->what, percent, (unsigned long long)c->inodes,
		(unsigned long long)(c->data_bytes >> 20),
		(unsigned long long)(c->stream_bytes >> 20), end);
	fflush(stderr);
	p->drawn = true;
}

static int step(void *ctx, const struct stream_counts *counts)
{
	struct progress *p = ctx;
	int64_t now;

	if (progress_stop != 0)
		return -EINTR;
	if (!p->shown)
		return 0;
	now = clock_mono_ms();
	if (now - p->last_ms < DRAW_MS)
		return 0;
	p->last_ms = now;
	draw(p, counts, "");
	return 0;
}

void progress_start(struct progress *p, struct stream_watch *ret_watch, const char *what,
		    bool quiet, uint64_t inodes)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	/* No SA_RESTART: a read that waits is to come back. */
	struct sigaction act = { .sa_handler = on_signal }, was;

	*p = (struct progress){ .what = what, .shown = !quiet && isatty(STDERR_FILENO),
				.inodes = inodes, .last_ms = clock_mono_ms() };
	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
		if (sigaction(signals[i], NULL, &was) == 0 && was.sa_handler != SIG_IGN)
			sigaction(signals[i], &act, NULL);
	*ret_watch = (struct stream_watch){ step, p };
}

void progress_end(struct progress *p, const struct stream_counts *counts)
{
	if (!p->shown)
		return;
	if (counts != NULL) {
		p->inodes = 0;
		draw(p, counts, "\n");
	} else if (p->drawn) {
		fprintf(stderr, "\r\033[K");
	}
}
