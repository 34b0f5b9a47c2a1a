/* SPDX-License-Identifier: MIT
 *
 * pending: see pending.h. A list in the order of arrival: it is short, since each entry is a thread that waits.
 * Invariants: (N1) entries before `unsent` have numbers, which ascend; (N2) so do the numbers of all that have one, and those stand before
 * all that have none; (N3) if the table is who sends again, the newest number is less than PENDING_WINDOW above the oldest in the list, and all have their bytes.
 */
#include "fs/pending.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void pending_init(struct pending *t, const struct fs_upstream *upstream,
		  void (*answer)(void *ctx, struct pending_call *p, const struct call_result *res), void *ctx)
{
	*t = (struct pending){ .upstream = upstream, .answer = answer, .ctx = ctx };
	t->end = &t->first;
	t->unsent = &t->first;
}

/* Take *at out of the list. */
static struct pending_call *take(struct pending *t, struct pending_call **at)
{
	struct pending_call *p = *at;

	*at = p->next;
	if (t->end == &p->next)
		t->end = at;
	if (t->unsent == &p->next)
		t->unsent = at;
	t->count--;
	return p;
}

static void drop_bytes(struct pending *t, struct pending_call *p)
{
	if (p->bytes == NULL)
		return;
	free(p->bytes);
	p->bytes = NULL;
	t->bytes -= p->len;
}

static void drop(struct pending *t, struct pending_call *p)
{
	drop_bytes(t, p);
	free(p);
}

void pending_release(struct pending *t)
{
	while (t->first != NULL)
		drop(t, take(t, &t->first));
}

static void finish(struct pending *t, struct pending_call **at, const struct call_result *res)
{
	struct pending_call *p = take(t, at);

	t->answer(t->ctx, p, res);
	drop(t, p);
}

/* Without an answer of the primary. */
static void finish_error(struct pending *t, struct pending_call **at, int error)
{
	const struct call_result res = { .error = -error };
	const struct fs_upstream *up = t->upstream;

	if ((*at)->request != 0 && up->cancel != NULL)
		up->cancel(up->ctx, (*at)->request);
	finish(t, at, &res);
}

/* Who sends again? */
static bool resends(const struct pending *t)
{
	return t->upstream->resend != NULL;
}

static bool window_is_open(const struct pending *t)
{
	return !resends(t) || t->first == NULL || t->first->request == 0 || t->newest - t->first->request + 1 < PENDING_WINDOW;
}

void pending_push(struct pending *t)
{
	const struct fs_upstream *up = t->upstream;

	while ((t->linked || !resends(t)) && *t->unsent != NULL) {
		struct pending_call *p = *t->unsent;
		int r;

		if (p->request != 0) {
			r = up->resend(up->ctx, p->request, p->bytes, p->len);
		} else {
			if (!window_is_open(t))
				return;
			r = up->send(up->ctx, p->bytes, p->len, &p->request);
		}
		if (r == -EAGAIN)
			return;
		if (r < 0) {
			finish_error(t, t->unsent, -r);
			continue;
		}
		if (p->request > t->newest)
			t->newest = p->request;
		t->unsent = &p->next;
		if (!resends(t))
			drop_bytes(t, p);
	}
}

/* Names and data stay in the bytes only. */
static void keep_what(struct pending_call *p, const struct call *c)
{
	p->what = *c;
	p->what.name = (struct call_text){ 0 };
	p->what.data = NULL;
	if (c->op == CALL_RENAME)
		p->what.to_name = (struct call_text){ 0 };
}

/* `like` is as it will be in the list, but for its bytes. */
static int add(struct pending *t, const struct pending_call *like, const struct call *c)
{
	size_t len = call_size(c);
	struct pending_call *p;
	uint8_t *bytes;

	if (pending_is_full(t))
		return -ENOBUFS;
	p = malloc(sizeof *p);
	bytes = malloc(len);
	if (p == NULL || bytes == NULL) {
		free(p);
		free(bytes);
		return -ENOMEM;
	}
	*p = *like;
	p->next = NULL;
	p->len = len;
	p->bytes = bytes;
	call_encode(c, bytes);
	*t->end = p;
	t->end = &p->next;
	t->count++;
	t->bytes += len;
	pending_push(t);
	return 0;
}

int pending_add(struct pending *t, struct fuse_req *req, uint64_t unique, const struct call *c, fs_reply_fn *reply,
		unsigned unsure)
{
	struct pending_call p = { .unique = unique, .req = req, .reply = reply, .unsure = unsure };

	keep_what(&p, c);
	return add(t, &p, c);
}

int pending_add_sync(struct pending *t, struct pending_call *made, const struct call_result *first, const struct call *sync)
{
	struct pending_call p = { .unique = made->unique, .req = made->req, .reply = made->reply,
				  .what = made->what, .unsure = made->unsure, .interrupted = made->interrupted, .made = true,
				  .first = *first, .held = made->held };
	int r;

	made->held = 0;
	r = add(t, &p, sync);
	/* Not taken: it is let go with this one. */
	if (r < 0)
		made->held = p.held;
	return r;
}

void pending_link_up(struct pending *t)
{
	t->linked = true;
	if (resends(t))
		t->unsent = &t->first;
	pending_push(t);
}

void pending_link_down(struct pending *t)
{
	struct pending_call **at = &t->first;

	t->linked = false;
	while (*at != NULL)
		if ((*at)->interrupted)
			finish_error(t, at, EINTR);
		else
			at = &(*at)->next;
}

struct pending_call *pending_find(struct pending *t, uint64_t request)
{
	struct pending_call *p = t->first;

	while (p != NULL && p->request != request)
		p = p->next;
	return p;
}

bool pending_complete(struct pending *t, uint64_t request, const struct call_result *res)
{
	struct pending_call **at = &t->first;

	if (request == 0)
		return false;
	while (*at != NULL && (*at)->request != request)
		at = &(*at)->next;
	if (*at == NULL)
		return false;
	finish(t, at, res);
	/* The window may have moved on. */
	pending_push(t);
	return true;
}

void pending_crossed(struct pending *t, uint64_t ino)
{
	for (struct pending_call *p = t->first; p != NULL; p = p->next)
		if (p->what.ino == ino)
			p->unsure |= PENDING_UNSURE_END | PENDING_UNSURE_MODE;
}

bool pending_interrupt(struct pending *t, uint64_t unique)
{
	struct pending_call **at = &t->first;

	while (*at != NULL && (*at)->unique != unique)
		at = &(*at)->next;
	if (*at == NULL)
		return false;
	(*at)->interrupted = true;
	if (!t->linked)
		finish_error(t, at, EINTR);
	return true;
}

bool pending_lowest(const struct pending *t, uint64_t *ret_request)
{
	if (t->first == NULL || t->first->request == 0)
		return false;
	*ret_request = t->first->request;
	return true;
}
