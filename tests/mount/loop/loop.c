/* SPDX-License-Identifier: MIT
 *
 * loop: the daemon with a primary inside: every change goes through the pending table as the bytes of a call, is decoded and
 * run on the same store as if it had come from another machine, and is answered between two requests, as on a remote mount. The
 * line breaks at every LOOP_CUT-th call (default 7), before the answer: the table sends all again, and the primary finds in the store
 * what it has done. So the mount tests show whether programs see what they see on a local mount.
 *
 * It is the whole of fs/ with session_run() and store_poll() wrapped by the linker.
 */
#include "core/base.h"
#include "fs/fs.h"
#include "fs/ops.h"
#include "fs/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define GIVE_UP_S 30            /* as PARK_LIMIT_S of session.c */

static struct {
	struct fs *fs;
	struct pending table;
	uint64_t client, next, cut_at;
	unsigned every, count;
	/* Calls that came and were not answered; the first may be waiting for space. */
	struct waiting {
		struct waiting *next;
		uint64_t request;
		time_t since;
		size_t len;
		uint8_t bytes[];
	} *first, **end;
} loop;

static int take(uint64_t request, const void *call, size_t len)
{
	struct waiting *w = malloc(sizeof *w + len);

	if (w == NULL)
		return -EAGAIN;
	*w = (struct waiting){ .request = request, .since = time(NULL), .len = len };
	memcpy(w->bytes, call, len);
	*loop.end = w;
	loop.end = &w->next;
	return 0;
}

static int loop_send(void *ctx, const void *call, size_t len, uint64_t *ret_request)
{
	int r = take(loop.next + 1, call, len);

	(void)ctx;
	if (r == 0)
		*ret_request = ++loop.next;
	return r;
}

static int loop_resend(void *ctx, uint64_t request, const void *call, size_t len)
{
	(void)ctx;
	return take(request, call, len);
}

static void drop_first(void)
{
	struct waiting *w = loop.first;

	loop.first = w->next;
	if (loop.first == NULL)
		loop.end = &loop.first;
	free(w);
}

/* False: it waits for space. */
static bool execute(const struct waiting *w, struct call_result *res, bool *ret_durable)
{
	struct call c;
	uint64_t seq;

	if (call_decode(w->bytes, w->len, &c) != 0) {
		fprintf(stderr, "loop: %s\n", err_last());
		abort();
	}
	call_run_once(loop.fs->keys, loop.client, w->request, &c, res, &seq);
	if (res->error == -EAGAIN) {
		if (time(NULL) - w->since < GIVE_UP_S)
			return false;
		res->error = -ENOSPC;
	}
	if (res->orphan != 0)
		ops_orphaned(loop.fs, res->orphan);
	*ret_durable = (c.flags & CALL_DURABLE) != 0;
	return true;
}

static void cut(void)
{
	pending_link_down(&loop.table);
	while (loop.first != NULL)
		drop_first();
	pending_link_up(&loop.table);
}

/* What a remote mount is told. */
static void answer(uint64_t request, const struct call_result *done, bool durable)
{
	struct fs *fs = loop.fs;
	struct call_result res = { .error = done->error, .number = done->number };
	struct defer *hold;

	fs->hold = NULL;
	if (res.error == 0 && durable && ops_hold_durable(fs) != 0)
		res.error = -EIO;
	hold = fs->hold;
	(void)pending_complete(&loop.table, request, &res);
	if (hold != NULL)
		defer_run(hold);
	fs->hold = NULL;
}

int __real_store_poll(struct store *s);
int __wrap_store_poll(struct store *s);
int __real_session_run(struct fs *fs, void (*ready)(struct fs *fs));
int __wrap_session_run(struct fs *fs, void (*ready)(struct fs *fs));

/* Called after each request, and now and then. */
int __wrap_store_poll(struct store *s)
{
	struct call_result res;
	bool durable;

	while (loop.fs != NULL && loop.first != NULL && execute(loop.first, &res, &durable)) {
		uint64_t request = loop.first->request;

		/* Not twice in a row, or it would never be answered. */
		if (loop.every != 0 && request != loop.cut_at && ++loop.count % loop.every == 0) {
			loop.cut_at = request;
			cut();
			continue;
		}
		drop_first();
		answer(request, &res, durable);
	}
	return __real_store_poll(s);
}

/* Said behind each append. Nothing changes this store but its own kernel, so that has put the bytes where they are. */
static void stale(void *ctx, uint64_t ino, uint64_t off)
{
	(void)ctx;
	(void)ino;
	(void)off;
}

int __wrap_session_run(struct fs *fs, void (*ready)(struct fs *fs))
{
	static const struct fs_upstream upstream = { NULL, loop_send, loop_resend, NULL };
	static const struct fs_shared shared = { NULL, stale };
	const char *every = getenv("LOOP_CUT");
	int r;

	if (!fs->options->read_only) {
		/* Of this mount only. */
		if (getentropy(&loop.client, sizeof loop.client) < 0)
			abort();
		loop.client |= 1;
		loop.fs = fs;
		loop.end = &loop.first;
		loop.every = every != NULL ? (unsigned)atoi(every) : 7;
		pending_init(&loop.table, &upstream, ops_answer, fs);
		fs->pending = &loop.table;
		if (!fs->options->writeback)
			fs->shared = &shared;
		pending_link_up(&loop.table);
	}
	r = __real_session_run(fs, ready);
	if (loop.fs != NULL)
		pending_release(&loop.table);
	loop.fs = NULL;
	return r;
}
