/* SPDX-License-Identifier: MIT
 *
 * ends: see ends_util.h.
 */
#include "tests/unit/ends_util.h"

#include "tests/unit/ok_util.h"

#include <stdio.h>

struct ends ends;

struct history ends_history(unsigned count, const uint64_t (*at)[3], seq_t last)
{
	struct history h = { .count = count, .last = last };
	unsigned i;

	for (i = 0; i < count; i++)
		h.at[i] = (struct history_entry){ at[i][0], at[i][1], at[i][2], { 1 } };
	return h;
}

static int post(struct ends_sent *box, unsigned *n, unsigned type, const void *a, uint32_t an, const void *b, uint32_t bn)
{
	if (*n == ENDS_BOX || an + bn > sizeof box->bytes)
		return -EAGAIN;
	box[*n].type = type;
	box[*n].len = an + bn;
	if (an > 0)
		memcpy(box[*n].bytes, a, an);
	if (bn > 0)
		memcpy(box[*n].bytes + an, b, bn);
	(*n)++;
	return 0;
}

static int p_send(void *ctx, link_t link, unsigned type, const void *bytes, uint32_t len)
{
	(void)ctx;
	(void)link;
	return post(ends.to_r, &ends.nr, type, bytes, len, NULL, 0);
}

static int p_change(void *ctx, link_t link, const struct msg_change *head)
{
	struct msg_change m = *head;
	uint8_t buf[64];
	struct wire_writer w = wire_writer(buf, sizeof buf);

	(void)ctx;
	(void)link;
	if (ends.full_feed)
		return -ENOENT;
	m.change_epoch = ends.ours.at[ends.ours.count - 1].epoch;
	msg_put_change(&w, &m);
	return post(ends.to_r, &ends.nr, MSG_CHANGE, buf, (uint32_t)wire_used(&w), "change", 6);
}

static void p_close(void *ctx, link_t link, const char *reason)
{
	(void)ctx;
	(void)link;
	(void)snprintf(ends.note, sizeof ends.note, "%s", reason);
	ends.closed_p = true;
}

static void p_history(void *ctx, struct history *ret)
{
	(void)ctx;
	*ret = ends.ours;
}

static int p_run(void *ctx, const struct primary_run *run)
{
	(void)ctx;
	if (ends.runs == ENDS_BOX)
		return -EAGAIN;
	ends.run[ends.runs++] = *run;
	return 0;
}

static void p_cancel(void *ctx, uint64_t token, uint64_t client, uint64_t request)
{
	(void)ctx;
	(void)token;
	(void)client;
	(void)request;
}

static int p_diff_start(void *ctx, link_t link, const struct msg_hello *h)
{
	(void)ctx;
	(void)link;
	(void)h;
	ends.diffs++;
	return 0;
}

static int diff_frame(void *ctx, link_t link, unsigned type, const uint8_t *bytes, uint32_t len)
{
	(void)ctx;
	(void)link;
	(void)type;
	(void)bytes;
	(void)len;
	return 0;
}

static void diff_stop(void *ctx, link_t link)
{
	(void)ctx;
	(void)link;
}

static void p_here(void *ctx, const struct primary_run *who, const uint8_t *locks, uint32_t len)
{
	(void)ctx;
	(void)locks;
	ends.here = *who;
	ends.here_locks = len;
	ends.heres++;
}

static void p_left(void *ctx, uint64_t client, uint64_t session)
{
	(void)ctx;
	(void)client;
	(void)session;
}

static int p_expired(void *ctx, uint64_t client)
{
	(void)ctx;
	(void)client;
	ends.expired++;
	return 0;
}

static void p_held(void *ctx, uint64_t ino, bool held)
{
	(void)ctx;
	if (!held)
		ends.released++;
	else if (ends.held_count < ARRAY_LEN(ends.held))
		ends.held[ends.held_count++] = ino;
}

static void p_fenced(void *ctx, uint64_t promised)
{
	(void)ctx;
	ends.fenced = promised;
}

static void p_park(void *ctx, bool park)
{
	(void)ctx;
	(void)park;
}

static void p_hand_over(void *ctx, uint64_t next, seq_t seq)
{
	(void)ctx;
	ends.hand_next = next;
	(void)seq;
}

static void p_handed(void *ctx, const uint8_t store[16], const char *name)
{
	(void)ctx;
	(void)store;
	(void)name;
}

static void p_synced(void *ctx, seq_t seq)
{
	(void)ctx;
	(void)seq;
}

static void p_note(void *ctx, link_t link, const char *text)
{
	(void)ctx;
	(void)link;
	(void)snprintf(ends.note, sizeof ends.note, "%s", text);
}

static void p_waited(void *ctx, uint64_t cookie, int error)
{
	(void)ctx;
	ends.waited = cookie;
	ends.waited_error = error;
}

static const struct primary_ops p_ops = {
	p_send, p_change, p_close, p_history, p_run, p_cancel, p_diff_start, diff_frame, diff_stop, p_here, p_left, p_expired,
	p_held, p_fenced, p_park, p_hand_over, p_handed, p_synced, p_note, p_waited,
};

static int r_send(void *ctx, link_t link, unsigned type, const void *head, uint32_t head_len, const void *body,
		  uint32_t body_len)
{
	(void)ctx;
	(void)link;
	return post(ends.to_p, &ends.np, type, head, head_len, body, body_len);
}

static void r_close(void *ctx, link_t link, const char *reason)
{
	(void)ctx;
	(void)link;
	(void)reason;
	ends.closed_r = true;
}

static void r_history(void *ctx, struct history *ret)
{
	(void)ctx;
	*ret = ends.theirs;
}

static int r_apply(void *ctx, const struct msg_change *c)
{
	(void)ctx;
	assert_memory_equal(c->bytes, "change", 6);
	if (ends.unfit)
		return err_set(EPROTO, "a change that does not fit");
	ends.theirs.last = c->seq;
	return 0;
}

static void r_promise(void *ctx, uint64_t epoch)
{
	(void)ctx;
	ends.promised = epoch;
}

static int r_welcome(void *ctx, const struct msg_welcome *w)
{
	(void)ctx;
	assert_int_equal(w->hash_seed, 7);
	return 0;
}

static void r_aside(void *ctx, uint64_t epoch, seq_t last, seq_t common)
{
	(void)ctx;
	(void)epoch;
	(void)last;
	(void)common;
	ends.asides++;
}

static int r_diff_start(void *ctx, link_t link, const struct msg_welcome *w)
{
	(void)ctx;
	(void)link;
	(void)w;
	return 0;
}

static uint32_t r_locks(void *ctx, uint8_t *buf, uint32_t max)
{
	(void)ctx;
	(void)buf;
	(void)max;
	return 0;
}

static void r_answer(void *ctx, uint64_t cookie, const struct replica_answer *a)
{
	(void)ctx;
	ends.answers++;
	ends.cookie = cookie;
	ends.error = a->error;
}

static void r_forwarded(void *ctx, uint64_t client, uint64_t session, uint64_t request, uint64_t token,
			const struct replica_answer *a)
{
	(void)ctx;
	(void)client;
	(void)session;
	(void)request;
	(void)token;
	(void)a;
}

static void r_run(void *ctx, uint64_t client, uint64_t request, uint64_t low, const uint8_t *bytes, uint32_t len)
{
	(void)ctx;
	(void)client;
	(void)request;
	(void)low;
	(void)bytes;
	(void)len;
}

static void r_lead(void *ctx, uint64_t epoch)
{
	(void)ctx;
	ends.led = epoch;
}

static void r_elsewhere(void *ctx, const char *name)
{
	(void)ctx;
	(void)name;
}

static void r_note(void *ctx, const char *text)
{
	(void)ctx;
	(void)text;
}

static void r_lock(void *ctx, const struct msg_lock *m)
{
	(void)ctx;
	ends.lock_of = m->client;
}

static const struct replica_ops r_ops = {
	r_send, r_close, r_history, r_apply, r_promise, r_welcome, r_aside, r_diff_start, diff_frame, diff_stop, r_locks, r_answer,
	r_forwarded, r_run, r_lead, r_elsewhere, NULL, r_note, r_lock,
};

struct primary_options ends_primary(void)
{
	struct primary_options o = { .hash_seed = 7, .lease_ms = 1000, .keep_ms = 100, .sync_wait_ms = 500 };

	memset(o.cluster, 1, 16);
	memset(o.store, 2, 16);
	return o;
}

struct replica_options ends_replica(void)
{
	struct replica_options o = { .client = 5, .wait_ms = 1000 };

	memset(o.cluster, 1, 16);
	memset(o.store, 3, 16);
	return o;
}

int ends_set_up(const struct primary_options *po, const struct replica_options *ro, seq_t last)
{
	static const uint64_t one[][3] = { { 1, 1, 100 } };

	memset(&ends, 0, sizeof ends);
	ends.ours = ends_history(1, one, 10);
	ends.theirs = ends_history(last > 0, one, last);
	ends.p = primary_new(po, &p_ops, NULL);
	ends.r = replica_new(ro, &r_ops, NULL, last > 0, last, last, last > 0);
	if (!ends.p || !ends.r)
		return -ENOMEM;
	primary_lead(ends.p, 1, 1, 10, 10, 0);
	primary_committed(ends.p, 10, 1000, 0);
	return 0;
}

void ends_tear_down(void)
{
	primary_free(ends.p);
	replica_free(ends.r);
}

void ends_carry(uint64_t now)
{
	unsigned turns, i, n;

	for (turns = 0; turns < 20; turns++) {
		int e = 0;

		(void)primary_pump(ends.p, now);
		(void)replica_pump(ends.r, now);
		if (ends.np == 0 && ends.nr == 0)
			return;
		n = ends.np;
		for (i = 0; i < n && e == 0 && !ends.closed_p; i++)
			e = primary_frame(ends.p, 1, ends.to_p[i].type, ends.to_p[i].bytes, ends.to_p[i].len, now);
		memmove(ends.to_p, ends.to_p + n, (ends.np - n) * sizeof ends.to_p[0]);
		ends.np -= n;
		if (e < 0 && !ends.closed_p) {
			ends.closed_p = true;
			primary_closed(ends.p, 1, now);
		}
		n = ends.nr;
		for (i = 0, e = 0; i < n && e == 0 && !ends.closed_r; i++) {
			e = replica_frame(ends.r, 1, ends.to_r[i].type, ends.to_r[i].bytes, ends.to_r[i].len, now);
			if (e == -EAGAIN && ends.promised) {
				replica_promised(ends.r, ends.promised);
				i--;
				e = 0;
			}
		}
		memmove(ends.to_r, ends.to_r + n, (ends.nr - n) * sizeof ends.to_r[0]);
		ends.nr -= n;
		if (e < 0 && !ends.closed_r) {
			ends.closed_r = true;
			replica_closed(ends.r, 1, now);
		}
	}
}

void ends_join(uint64_t now)
{
	assert_int_equal(primary_opened(ends.p, 1, 0, now), 0);
	assert_int_equal(replica_opened(ends.r, 1, now), 0);
	ends_carry(now);
}

enum replica_state ends_state(void)
{
	struct replica_status s;

	replica_status(ends.r, 0, &s);
	return s.state;
}

void ends_calls(unsigned count, uint32_t flags, uint64_t now)
{
	unsigned i;

	for (i = 0; i < count; i++) {
		const struct replica_call c = { .cookie = i, .object = 1 + i, .flags = flags, .bytes = (const uint8_t *)"op", .len = 2 };

		assert_int_equal(replica_call(ends.r, &c, now), 0);
	}
}

void ends_result(unsigned i, int error, bool sync, uint64_t now)
{
	const struct primary_result res = { .error = error, .sync = sync, .seq = 10, .number = i };

	primary_result(ends.p, ends.run[i].client, ends.run[i].request, ends.run[i].token, &res, now);
}

bool ends_may_mark(uint64_t ino, seq_t seq, uint64_t now)
{
	return seq <= primary_mark_limit(ends.p, now) && !primary_holds(ends.p, ino);
}
