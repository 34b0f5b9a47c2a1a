/* SPDX-License-Identifier: MIT
 *
 * loop: the daemon with a primary inside: every change goes through the pending table as the bytes of a call, is decoded and
 * run on the same store as if it had come from another machine, and is answered between two requests, as on a remote mount. The
 * line breaks at every LOOP_CUT-th call (default 7), before the answer: the table sends all again, and the primary answers from memory
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

#define GIVE_UP_S 30            /* as PARK_LIMIT_S of session.c */

struct known {
	uint64_t request;
	struct call_result res;
	bool durable;
};

static struct {
	struct fs *fs;
	struct pending table;
	uint64_t next;
	unsigned every, count;
	struct known slot[PENDING_WINDOW];
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
static bool execute(const struct waiting *w, struct known *k)
{
	struct call c;

	if (k->request == w->request)
		return true;
	if (call_decode(w->bytes, w->len, &c) != 0) {
		fprintf(stderr, "loop: %s\n", err_last());
		abort();
	}
	call_run(loop.fs->keys, &c, &k->res);
	if (k->res.error == -EAGAIN) {
		if (time(NULL) - w->since < GIVE_UP_S)
			return false;
		k->res.error = -ENOSPC;
	}
	if (k->res.orphan != 0)
		ops_orphaned(loop.fs, k->res.orphan);
	k->request = w->request;
	k->durable = c.op == CALL_FSYNC || (c.flags & CALL_DURABLE) != 0;
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
static void answer(uint64_t request, const struct known *k)
{
	struct fs *fs = loop.fs;
	struct call_result res = { .error = k->res.error, .number = k->res.number };
	struct defer *hold;

	fs->hold = NULL;
	if (res.error == 0 && k->durable && ops_hold_durable(fs) != 0)
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
	while (loop.fs != NULL && loop.first != NULL) {
		uint64_t request = loop.first->request;
		struct known *k = &loop.slot[request % PENDING_WINDOW];
		bool again = k->request == request;

		if (!execute(loop.first, k))
			break;
		if (!again && loop.every != 0 && ++loop.count % loop.every == 0) {
			cut();
			continue;
		}
		drop_first();
		answer(request, k);
	}
	return __real_store_poll(s);
}

static void stale(void *ctx, uint64_t ino, uint64_t off)
{
	(void)ctx;
	/* Nothing changes this store but its own kernel. */
	fprintf(stderr, "loop: inode %llu changed elsewhere at %llu\n", (unsigned long long)ino, (unsigned long long)off);
	abort();
}

int __wrap_session_run(struct fs *fs, void (*ready)(struct fs *fs))
{
	static const struct fs_upstream upstream = { NULL, loop_send, loop_resend, NULL };
	static const struct fs_shared shared = { NULL, stale };
	const char *every = getenv("LOOP_CUT");
	int r;

	if (!fs->options->read_only) {
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
