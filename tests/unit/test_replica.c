/* SPDX-License-Identifier: MIT
 *
 * test_replica: the messages of chapter 2 of core/PROTOCOL.md as bytes, histories compared, sets of inodes, and the two engines
 * face to face where a step must be just so: versions, the window of calls, limits, refusals, how stale reads may be, little
 * memory. What happens over time is the simulator's (tests/sim).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/replica/primary.h"
#include "core/replica/replica.h"

#include <stdio.h>
#include <stdlib.h>

/* Every allocation of the engines goes through these (the linker is told so): the one with number fail_at fails. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);

static bool counting;
static unsigned allocations, fail_at;

static bool fails(void)
{
	return counting && ++allocations == fail_at;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
	return fails() ? NULL : __real_realloc(p, size);
}

/* Messages --------------------------------------------------------------------------------------------------------- */

union message {
	struct msg_hello hello;
	struct msg_welcome welcome;
	struct msg_change change;
	struct msg_position position;
	struct msg_ack ack;
	struct msg_call call;
	struct msg_result result;
	struct msg_cancel cancel;
	struct msg_holds holds;
	struct msg_client client;
	struct msg_promote promote;
	struct msg_fenced fenced;
};

static const uint8_t ids[24] = { 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3 };

static struct msg_hello a_hello(void)
{
	struct msg_hello h = {
		.version = 1, .version_min = 1, .flags = 5, .features = 3, .required = 1, .client = 77, .session = 3, .low = 9,
		.epoch = 0x200001, .promised = 0x300000, .durable = 40, .committed = 30, .name = (const uint8_t *)"two:6796",
		.name_len = 8, .holds = ids, .hold_count = 3, .locks = ids, .locks_len = 5,
	};

	memset(h.cluster, 1, 16);
	memset(h.store, 2, 16);
	h.history.last = 50;
	h.history.count = 2;
	h.history.at[0] = (struct history_entry){ 1, 1, 11, { 1 } };
	h.history.at[1] = (struct history_entry){ 0x200001, 45, 12, { 2 } };
	return h;
}

static const uint8_t path[32] = { 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 9 };

static struct msg_welcome a_welcome(void)
{
	struct msg_welcome m = { .version = 1, .decision = WELCOME_STREAM, .features = 3, .hash_seed = 5, .epoch = 0x300000,
				 .promised = 0x300000, .seq = 50, .last = 60, .durable = 55, .lease_ms = 10000, .keep_ms = 1000,
				 .text = (const uint8_t *)"hi", .text_len = 2, .name = (const uint8_t *)"x", .name_len = 1,
				 .path = path, .path_count = 2 };

	memset(m.cluster, 1, 16);
	memset(m.store, 3, 16);
	return m;
}

static size_t put(unsigned type, uint8_t *to, size_t size)
{
	struct wire_writer w = wire_writer(to, size);
	struct msg_hello h = a_hello();
	struct msg_welcome v = a_welcome();

	switch (type) {
	case MSG_HELLO:
		msg_put_hello(&w, &h);
		break;
	case MSG_WELCOME:
		msg_put_welcome(&w, &v);
		break;
	case MSG_CHANGE:
		msg_put_change(&w, &(struct msg_change){ 9, 8, 7, 6, 5, ids, 24 });
		break;
	case MSG_POSITION:
		msg_put_position(&w, &(struct msg_position){ 9, 8, 7, 6, 5, 4 });
		break;
	case MSG_ACK:
		msg_put_ack(&w, &(struct msg_ack){ 9, 8, 7, 6, 5, 4 });
		break;
	case MSG_CALL:
		msg_put_call(&w, &(struct msg_call){ 9, 8, 7, 6, 5, ids, 24, 3 });
		break;
	case MSG_RESULT:
		msg_put_result(&w, &(struct msg_result){ 9, 8, 7, 6, -17, RESULT_SYNC, 5, 4, 3 });
		break;
	case MSG_CANCEL:
		msg_put_cancel(&w, &(struct msg_cancel){ 9, 8, 7, 6 });
		break;
	case MSG_HOLD:
	case MSG_RELEASE:
		msg_put_holds(&w, &(struct msg_holds){ 9, ids, 3 });
		break;
	case MSG_CLIENT:
		msg_put_client(&w, &(struct msg_client){ 9, 8, 7, 6, CLIENT_LOCKS, ids, 24 });
		break;
	case MSG_PROMOTE:
		msg_put_promote(&w, &(struct msg_promote){ 9, 10, 8 });
		break;
	default:
		msg_put_fenced(&w, &(struct msg_fenced){ 9, ids, 2 });
	}
	assert_false(w.full);
	return wire_used(&w);
}

static int get(unsigned type, const uint8_t *p, size_t len, union message *m)
{
	switch (type) {
	case MSG_HELLO:
		return msg_get_hello(p, len, &m->hello);
	case MSG_WELCOME:
		return msg_get_welcome(p, len, &m->welcome);
	case MSG_CHANGE:
		return msg_get_change(p, len, &m->change);
	case MSG_POSITION:
		return msg_get_position(p, len, &m->position);
	case MSG_ACK:
		return msg_get_ack(p, len, &m->ack);
	case MSG_CALL:
		return msg_get_call(p, len, &m->call);
	case MSG_RESULT:
		return msg_get_result(p, len, &m->result);
	case MSG_CANCEL:
		return msg_get_cancel(p, len, &m->cancel);
	case MSG_HOLD:
	case MSG_RELEASE:
		return msg_get_holds(p, len, &m->holds);
	case MSG_CLIENT:
		return msg_get_client(p, len, &m->client);
	case MSG_PROMOTE:
		return msg_get_promote(p, len, &m->promote);
	default:
		return msg_get_fenced(p, len, &m->fenced);
	}
}

/* What was put is what is got; a byte less, or one more, is refused (CHANGE and CALL end with what is left). */
static void test_message__exact_end(void **state)
{
	union message m;
	uint8_t buf[1024], *exact;
	unsigned type;
	size_t len, cut;

	(void)state;
	for (type = MSG_HELLO; type <= MSG_FENCED; type++) {
		bool rest = type == MSG_CHANGE || type == MSG_CALL;

		len = put(type, buf, sizeof buf);
		assert_int_equal(get(type, buf, len, &m), 0);
		for (cut = 0; cut < len; cut++) {
			exact = malloc(cut + 1);
			assert_non_null(exact);
			memcpy(exact, buf, cut);
			if (!rest || cut < (type == MSG_CALL ? 48u : 40u))
				assert_int_equal(get(type, exact, cut, &m), -EPROTO);
			free(exact);
		}
		buf[len] = 0;
		assert_int_equal(get(type, buf, len + 1, &m), rest ? 0 : -EPROTO);
	}
}

static void test_message__fields(void **state)
{
	const struct msg_hello h = a_hello();
	const struct msg_welcome w = a_welcome();
	union message m;
	uint8_t buf[1024];

	(void)state;
	assert_int_equal(get(MSG_HELLO, buf, put(MSG_HELLO, buf, sizeof buf), &m), 0);
	assert_int_equal(m.hello.flags, 5);
	assert_int_equal(m.hello.session, 3);
	assert_int_equal(m.hello.low, 9);
	assert_int_equal(m.hello.promised, 0x300000);
	assert_int_equal(m.hello.durable, 40);
	assert_int_equal(m.hello.committed, 30);
	assert_memory_equal(m.hello.store, h.store, 16);
	assert_int_equal(m.hello.history.count, 2);
	assert_memory_equal(&m.hello.history.at[1], &h.history.at[1], sizeof h.history.at[1]);
	assert_memory_equal(m.hello.name, "two:6796", 8);
	assert_int_equal(m.hello.hold_count, 3);
	assert_memory_equal(m.hello.holds, ids, 24);
	assert_int_equal(m.hello.locks_len, 5);
	assert_int_equal(get(MSG_WELCOME, buf, put(MSG_WELCOME, buf, sizeof buf), &m), 0);
	assert_memory_equal(m.welcome.cluster, w.cluster, 16);
	assert_int_equal(m.welcome.hash_seed, 5);
	assert_int_equal(m.welcome.last, 60);
	assert_int_equal(m.welcome.lease_ms, 10000);
	assert_int_equal(m.welcome.path_count, 2);
	assert_memory_equal(m.welcome.path, path, sizeof path);
	assert_int_equal(get(MSG_RESULT, buf, put(MSG_RESULT, buf, sizeof buf), &m), 0);
	assert_int_equal(m.result.error, -17);
	assert_int_equal(m.result.flags, RESULT_SYNC);
	assert_int_equal(m.result.tag, 3);
	assert_int_equal(get(MSG_CHANGE, buf, put(MSG_CHANGE, buf, sizeof buf), &m), 0);
	assert_int_equal(m.change.seq, 7);
	assert_int_equal(m.change.len, 24);
	assert_int_equal(get(MSG_ACK, buf, put(MSG_ACK, buf, sizeof buf), &m), 0);
	assert_int_equal(m.ack.tree_applied, 6);
}

/* Numbers that contradict each other. */
static void test_message__impossible(void **state)
{
	uint8_t buf[1024];
	struct wire_writer w;
	union message m;
	struct msg_hello h;
	unsigned i;

	(void)state;
	for (i = 0; i < 11; i++) {
		h = a_hello();
		if (i == 0)
			h.client = 0;
		if (i == 1)
			h.low = 0;
		if (i == 2)
			h.durable = 51;
		if (i == 3)
			h.committed = 51;
		if (i == 4)
			h.epoch = h.promised + 1;
		if (i == 5)
			h.version_min = 2;
		if (i == 6)
			h.version = h.version_min = 0;
		if (i == 7)
			h.history.at[1].first = 1;
		if (i == 8)
			h.history.at[1].epoch = 1;
		if (i == 9)
			h.history.at[1].first = 51;
		if (i == 10)
			h.history.at[0].epoch = 0;
		w = wire_writer(buf, sizeof buf);
		msg_put_hello(&w, &h);
		assert_int_equal(get(MSG_HELLO, buf, wire_used(&w), &m), -EPROTO);
	}
	w = wire_writer(buf, sizeof buf);
	msg_put_ack(&w, &(struct msg_ack){ 1, 5, 6, 5, 5, 1 });
	assert_int_equal(get(MSG_ACK, buf, wire_used(&w), &m), -EPROTO);
	w = wire_writer(buf, sizeof buf);
	msg_put_call(&w, &(struct msg_call){ 1, 1, 1, 33, 1, NULL, 0, 1 });
	assert_int_equal(get(MSG_CALL, buf, wire_used(&w), &m), -EPROTO);
	w = wire_writer(buf, sizeof buf);
	msg_put_result(&w, &(struct msg_result){ 1, 1, 1, 1, -4096, 0, 1, 1, 1 });
	assert_int_equal(get(MSG_RESULT, buf, wire_used(&w), &m), -EPROTO);
}

/* Histories -------------------------------------------------------------------------------------------------------- */

static struct history line(unsigned count, const uint64_t (*at)[3], seq_t last)
{
	struct history h = { .count = count, .last = last };
	unsigned i;

	for (i = 0; i < count; i++)
		h.at[i] = (struct history_entry){ at[i][0], at[i][1], at[i][2], { 1 } };
	return h;
}

static void compare(const struct history *ours, const struct history *theirs, enum history_verdict v, seq_t common)
{
	seq_t got;

	assert_int_equal(history_compare(ours, theirs, &got), v);
	assert_int_equal(got, common);
}

static void test_history__compare(void **state)
{
	static const uint64_t one[][3] = { { 1, 1, 100 } }, two[][3] = { { 1, 1, 100 }, { 2, 11, 200 } };
	static const uint64_t other[][3] = { { 1, 1, 100 }, { 2, 11, 201 } }, later[][3] = { { 1, 1, 100 }, { 3, 9, 300 } };
	static const uint64_t strange[][3] = { { 1, 1, 999 } }, three[][3] = { { 1, 1, 100 }, { 2, 11, 200 }, { 4, 16, 4 } };
	const struct history none = { 0 }, a10 = line(1, one, 10), a15 = line(1, one, 15), b20 = line(2, two, 20);
	const struct history o20 = line(2, other, 20), l12 = line(2, later, 12), s5 = line(1, strange, 5), t30 = line(3, three, 30);

	(void)state;
	compare(&a10, &none, HISTORY_EMPTY, 0);
	compare(&a15, &a10, HISTORY_STREAM, 10);
	compare(&a10, &a15, HISTORY_DIVERGED, 10);      /* it has what we lost */
	compare(&b20, &a10, HISTORY_STREAM, 10);        /* missed the beginning of epoch 2 */
	compare(&b20, &a15, HISTORY_DIVERGED, 10);      /* its tail of epoch 1 is not ours */
	compare(&a15, &b20, HISTORY_DIVERGED, 10);
	compare(&b20, &o20, HISTORY_DIVERGED, 10);      /* epoch 2 twice */
	compare(&b20, &l12, HISTORY_DIVERGED, 8);       /* they went on from 8 */
	compare(&l12, &a10, HISTORY_DIVERGED, 8);
	compare(&t30, &b20, HISTORY_DIVERGED, 15);
	compare(&t30, &a10, HISTORY_STREAM, 10);
	compare(&b20, &s5, HISTORY_UNKNOWN, 0);
	compare(&none, &a10, HISTORY_UNKNOWN, 0);
}

/* Sets ------------------------------------------------------------------------------------------------------------- */

static void test_idset__model(void **state)
{
	static uint8_t model[4096];
	struct idset s = { 0 };
	uint64_t x = 88172645463325252u, id;
	uint32_t pos = 0, count = 0, n, i;

	(void)state;
	for (i = 0; i < 200000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		id = 1 + x % (i < 100000 ? 4095 : 50);
		if (x >> 40 & 1) {
			assert_int_equal(idset_add(&s, id), model[id] ? 0 : 1);
			model[id] = 1;
		} else {
			assert_int_equal(idset_remove(&s, id), model[id] != 0);
			model[id] = 0;
		}
	}
	for (i = 1; i < 4096; i++) {
		assert_int_equal(idset_has(&s, i), model[i] != 0);
		count += model[i];
	}
	assert_int_equal(s.count, count);
	for (n = 0; (id = idset_next(&s, &pos)) != 0; n++)
		assert_true(model[id]);
	assert_int_equal(n, count);
	idset_release(&s);
}

/* Engines face to face --------------------------------------------------------------------------------------------- */

#define BOX 512u

struct sent {
	unsigned type;
	uint32_t len;
	uint8_t bytes[1024];
};

/* Both ends of one link, and what was asked of them. */
static struct {
	struct primary *p;
	struct replica *r;
	struct sent to_p[BOX], to_r[BOX];
	unsigned np, nr;
	struct history ours, theirs;
	bool closed_p, closed_r, full_feed, unfit;
	uint64_t promised, fenced, led;
	unsigned runs, answers, asides, diffs;
	struct primary_run run[BOX];
	int error;
	uint64_t cookie;
	char note[512];
	uint64_t waited;
	int waited_error;
	uint64_t hand_next, lock_of;
	uint64_t held[4];
	unsigned held_count, released, expired;
	struct primary_run here;        /* the last client that came, */
	uint32_t here_locks;            /* with so many bytes of locks */
	unsigned heres;
} t;

static int post(struct sent *box, unsigned *n, unsigned type, const void *a, uint32_t an, const void *b, uint32_t bn)
{
	if (*n == BOX || an + bn > sizeof box->bytes)
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
	return post(t.to_r, &t.nr, type, bytes, len, NULL, 0);
}

static int p_change(void *ctx, link_t link, const struct msg_change *head)
{
	struct msg_change m = *head;
	uint8_t buf[64];
	struct wire_writer w = wire_writer(buf, sizeof buf);

	(void)ctx;
	(void)link;
	if (t.full_feed)
		return -ENOENT;
	m.change_epoch = t.ours.at[t.ours.count - 1].epoch;
	msg_put_change(&w, &m);
	return post(t.to_r, &t.nr, MSG_CHANGE, buf, (uint32_t)wire_used(&w), "change", 6);
}

static void p_close(void *ctx, link_t link, const char *reason)
{
	(void)ctx;
	(void)link;
	(void)snprintf(t.note, sizeof t.note, "%s", reason);
	t.closed_p = true;
}

static void p_history(void *ctx, struct history *ret)
{
	(void)ctx;
	*ret = t.ours;
}

static int p_run(void *ctx, const struct primary_run *run)
{
	(void)ctx;
	if (t.runs == BOX)
		return -EAGAIN;
	t.run[t.runs++] = *run;
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
	t.diffs++;
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
	t.here = *who;
	t.here_locks = len;
	t.heres++;
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
	t.expired++;
	return 0;
}

static void p_held(void *ctx, uint64_t ino, bool held)
{
	(void)ctx;
	if (!held)
		t.released++;
	else if (t.held_count < ARRAY_LEN(t.held))
		t.held[t.held_count++] = ino;
}

static void p_fenced(void *ctx, uint64_t promised)
{
	(void)ctx;
	t.fenced = promised;
}

static void p_park(void *ctx, bool park)
{
	(void)ctx;
	(void)park;
}

static void p_hand_over(void *ctx, uint64_t next, seq_t seq)
{
	(void)ctx;
	t.hand_next = next;
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
	(void)snprintf(t.note, sizeof t.note, "%s", text);
}

static void p_waited(void *ctx, uint64_t cookie, int error)
{
	(void)ctx;
	t.waited = cookie;
	t.waited_error = error;
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
	return post(t.to_p, &t.np, type, head, head_len, body, body_len);
}

static void r_close(void *ctx, link_t link, const char *reason)
{
	(void)ctx;
	(void)link;
	(void)reason;
	t.closed_r = true;
}

static void r_history(void *ctx, struct history *ret)
{
	(void)ctx;
	*ret = t.theirs;
}

static int r_apply(void *ctx, const struct msg_change *c)
{
	(void)ctx;
	assert_memory_equal(c->bytes, "change", 6);
	if (t.unfit)
		return err_set(EPROTO, "a change that does not fit");
	t.theirs.last = c->seq;
	return 0;
}

static void r_promise(void *ctx, uint64_t epoch)
{
	(void)ctx;
	t.promised = epoch;
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
	t.asides++;
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
	t.answers++;
	t.cookie = cookie;
	t.error = a->error;
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
	t.led = epoch;
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
	t.lock_of = m->client;
}

static const struct replica_ops r_ops = {
	r_send, r_close, r_history, r_apply, r_promise, r_welcome, r_aside, r_diff_start, diff_frame, diff_stop, r_locks, r_answer,
	r_forwarded, r_run, r_lead, r_elsewhere, NULL, r_note, r_lock,
};

static struct primary_options p_options(void)
{
	struct primary_options o = { .hash_seed = 7, .lease_ms = 1000, .keep_ms = 100, .sync_wait_ms = 500 };

	memset(o.cluster, 1, 16);
	memset(o.store, 2, 16);
	return o;
}

static struct replica_options r_options(void)
{
	struct replica_options o = { .client = 5, .wait_ms = 1000 };

	memset(o.cluster, 1, 16);
	memset(o.store, 3, 16);
	return o;
}

/* The primary is at 10 of epoch 1, the replica at `last`. */
static int set_up(const struct primary_options *po, const struct replica_options *ro, seq_t last)
{
	static const uint64_t one[][3] = { { 1, 1, 100 } };

	memset(&t, 0, sizeof t);
	t.ours = line(1, one, 10);
	t.theirs = line(last > 0, one, last);
	t.p = primary_new(po, &p_ops, NULL);
	t.r = replica_new(ro, &r_ops, NULL, last > 0, last, last, last > 0);
	if (!t.p || !t.r)
		return -ENOMEM;
	primary_lead(t.p, 1, 1, 10, 10, 0);
	primary_committed(t.p, 10, 1000, 0);
	return 0;
}

static void tear_down(void)
{
	primary_free(t.p);
	replica_free(t.r);
}

/* Hand over what was sent, until nothing is. The first error of each end ends the link there. */
static void carry(uint64_t now)
{
	unsigned turns, i, n;

	for (turns = 0; turns < 20; turns++) {
		int e = 0;

		(void)primary_pump(t.p, now);
		(void)replica_pump(t.r, now);
		if (t.np == 0 && t.nr == 0)
			return;
		n = t.np;
		for (i = 0; i < n && e == 0 && !t.closed_p; i++)
			e = primary_frame(t.p, 1, t.to_p[i].type, t.to_p[i].bytes, t.to_p[i].len, now);
		memmove(t.to_p, t.to_p + n, (t.np - n) * sizeof t.to_p[0]);
		t.np -= n;
		if (e < 0 && !t.closed_p) {
			t.closed_p = true;
			primary_closed(t.p, 1, now);
		}
		n = t.nr;
		for (i = 0, e = 0; i < n && e == 0 && !t.closed_r; i++) {
			e = replica_frame(t.r, 1, t.to_r[i].type, t.to_r[i].bytes, t.to_r[i].len, now);
			if (e == -EAGAIN && t.promised) {
				replica_promised(t.r, t.promised);
				i--;
				e = 0;
			}
		}
		memmove(t.to_r, t.to_r + n, (t.nr - n) * sizeof t.to_r[0]);
		t.nr -= n;
		if (e < 0 && !t.closed_r) {
			t.closed_r = true;
			replica_closed(t.r, 1, now);
		}
	}
}

static void join(uint64_t now)
{
	assert_int_equal(primary_opened(t.p, 1, 0, now), 0);
	assert_int_equal(replica_opened(t.r, 1, now), 0);
	carry(now);
}

static enum replica_state state_of(void)
{
	struct replica_status s;

	replica_status(t.r, 0, &s);
	return s.state;
}

/* What does not fit would not the next time either: the diff that follows is asked for once. */
static void test_link__change_that_does_not_fit(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	unsigned i;

	(void)state;
	for (i = 0; i < 2; i++) {
		assert_int_equal(set_up(&po, &ro, 4), 0);
		t.unfit = true;
		join(5);
		assert_true(t.closed_r);
		primary_closed(t.p, 1, 5);
		t.closed_p = t.closed_r = false;
		t.np = t.nr = 0;
		join(6);
		assert_int_equal(state_of(), REPLICA_DIFF);
		assert_int_equal(t.diffs, 1);
		/* It may be promoted meanwhile, if that diff does not come: it has a whole state. */
		if (i == 1) {
			replica_closed(t.r, 1, 7);
			assert_int_equal(replica_promote(t.r, 7), 0);
		} else {
			t.theirs.last = 10;
			t.unfit = false;
			replica_diff_done(t.r, 1, 10, 7);
			carry(7);
			assert_int_equal(state_of(), REPLICA_STREAM);
			assert_int_equal(t.diffs, 1);
		}
		tear_down();
	}
}

static void test_link__streams(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	struct primary_peer_status s;

	(void)state;
	assert_int_equal(set_up(&po, &ro, 4), 0);
	join(5);
	assert_int_equal(state_of(), REPLICA_STREAM);
	assert_int_equal(t.theirs.last, 10);
	assert_int_equal(primary_peer_status(t.p, 0, 5, &s), 0);
	assert_int_equal(s.state, PEER_STREAMS);
	assert_int_equal(s.applied, 10);
	assert_int_equal(s.durable, 4);
	assert_int_equal(s.lag_seq, 0);
	tear_down();
}

/* Who speaks version 2, with more in its hello, a feature of its own, and an unknown message that may be skipped. */
static void test_link__newer_and_older(void **state)
{
	struct primary_options po = p_options();
	struct replica_options ro = r_options();
	uint8_t extra[256];
	unsigned side;

	(void)state;
	for (side = 0; side < 2; side++) {
		po.version = side ? 2 : 1;
		ro.version = side ? 1 : 2;
		po.features = side ? 3 : 1;
		ro.features = side ? 1 : 3;
		assert_int_equal(set_up(&po, &ro, 10), 0);
		assert_int_equal(primary_opened(t.p, 1, 0, 0), 0);
		assert_int_equal(replica_opened(t.r, 1, 0), 0);
		memcpy(extra, t.to_p[0].bytes, t.to_p[0].len);
		memcpy(extra + t.to_p[0].len, "more", 4);
		/* What is behind a hello counts only if it is newer than we are. */
		assert_int_equal(primary_frame(t.p, 1, MSG_HELLO, extra, t.to_p[0].len + 4, 0), side ? -EPROTO : 0);
		if (side == 1)
			assert_int_equal(primary_frame(t.p, 1, MSG_HELLO, extra, t.to_p[0].len, 0), 0);
		t.np = 0;
		memcpy(extra, t.to_r[0].bytes, t.to_r[0].len);
		memcpy(extra + t.to_r[0].len, "more", 4);
		if (side == 1)
			assert_int_equal(replica_frame(t.r, 1, MSG_WELCOME, extra, t.to_r[0].len + 4, 0), 0);
		else
			assert_int_equal(replica_frame(t.r, 1, MSG_WELCOME, extra, t.to_r[0].len, 0), 0);
		assert_int_equal(state_of(), REPLICA_STREAM);
		assert_int_equal(primary_frame(t.p, 1, 0x1ff, NULL, 0, 0), -EOPNOTSUPP);
		assert_int_equal(replica_frame(t.r, 1, 0x1ff, NULL, 0, 0), -EOPNOTSUPP);
		tear_down();
	}
	/* A feature that one needs and the other has not. */
	ro.version = 2;
	ro.features = 3;
	ro.required = 2;
	po.version = po.features = 1;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	join(0);
	assert_true(t.closed_p);
	assert_non_null(strstr(t.note, "feature"));
	tear_down();
}

static void test_link__refusals(void **state)
{
	static const uint64_t strange[][3] = { { 1, 1, 5 } };
	const struct primary_options po = p_options();
	struct replica_options ro = r_options();

	(void)state;
	memset(ro.cluster, 9, 16);
	assert_int_equal(set_up(&po, &ro, 10), 0);
	join(0);
	assert_non_null(strstr(t.note, "another cluster"));
	tear_down();

	memset(ro.cluster, 1, 16);
	memset(ro.store, 2, 16);
	assert_int_equal(set_up(&po, &ro, 10), 0);
	join(0);
	assert_non_null(strstr(t.note, "copy of this one"));
	tear_down();

	/* Not empty, and of no cluster: only if told so. */
	memset(ro.store, 3, 16);
	memset(ro.cluster, 0, 16);
	assert_int_equal(set_up(&po, &ro, 10), 0);
	t.theirs = line(1, strange, 10);
	join(0);
	assert_non_null(strstr(t.note, "not empty"));
	tear_down();
	ro.flags = HELLO_REPLACE;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	t.theirs = line(1, strange, 10);
	join(0);
	assert_int_equal(state_of(), REPLICA_ASIDE);
	assert_int_equal(t.asides, 1);
	replica_aside_done(t.r, 0, 0);
	assert_int_equal(state_of(), REPLICA_DIFF);
	tear_down();

	/* It would have to forget what it knows to be committed. */
	memset(ro.cluster, 1, 16);
	ro.flags = 0;
	ro.committed = 12;
	assert_int_equal(set_up(&po, &ro, 15), 0);
	join(0);
	assert_non_null(strstr(t.note, "committed"));
	assert_int_equal(t.asides, 0);
	tear_down();
}

/* (R1) Who has promised a higher epoch does not obey, whatever the other side thinks of it. */
static void test_link__lower_epoch(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	struct msg_fenced m;
	unsigned i;

	(void)state;
	assert_int_equal(set_up(&po, &ro, 4), 0);
	assert_int_equal(primary_opened(t.p, 1, 0, 0), 0);
	assert_int_equal(replica_opened(t.r, 1, 0), 0);
	assert_int_equal(primary_frame(t.p, 1, MSG_HELLO, t.to_p[0].bytes, t.to_p[0].len, 0), 0);
	replica_promised(t.r, 0x100000);
	t.np = 0;
	assert_int_equal(replica_frame(t.r, 1, MSG_WELCOME, t.to_r[0].bytes, t.to_r[0].len, 0), -ESTALE);
	assert_int_equal(t.np, 1);
	assert_int_equal(t.to_p[0].type, MSG_FENCED);
	assert_int_equal(msg_get_fenced(t.to_p[0].bytes, t.to_p[0].len, &m), 0);
	assert_int_equal(m.promised, 0x100000);
	/* And when the promise comes after the welcome: nothing more of the old stream. */
	tear_down();
	assert_int_equal(set_up(&po, &ro, 4), 0);
	join(0);
	t.ours.last = 11;
	primary_committed(t.p, 11, 1100, 0);
	primary_tick(t.p, 200);
	(void)primary_pump(t.p, 200);
	assert_true(t.nr >= 2);
	replica_promised(t.r, 0x100000);
	for (i = 0; i < t.nr; i++)
		assert_int_equal(replica_frame(t.r, 1, t.to_r[i].type, t.to_r[i].bytes, t.to_r[i].len, 200), -ESTALE);
	assert_int_equal(t.theirs.last, 10);
	tear_down();
}

/* A promise that is newer than the primary ends it; it says so to all. */
static void test_link__fenced(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();

	(void)state;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	replica_promised(t.r, 0x100000);
	join(0);
	assert_int_equal(t.fenced, 0x100000);
	assert_int_equal(primary_state(t.p), PRIMARY_OFF);
	assert_int_equal(state_of(), REPLICA_DOWN);
	tear_down();
}

static void do_calls(unsigned count, uint32_t flags, uint64_t now)
{
	unsigned i;

	for (i = 0; i < count; i++) {
		const struct replica_call c = { .cookie = i, .object = 1 + i, .flags = flags, .bytes = (const uint8_t *)"op", .len = 2 };

		assert_int_equal(replica_call(t.r, &c, now), 0);
	}
}

static void result(unsigned i, int error, bool sync, uint64_t now)
{
	const struct primary_result res = { .error = error, .sync = sync, .seq = 10, .number = i };

	primary_result(t.p, t.run[i].client, t.run[i].request, t.run[i].token, &res, now);
}

/* At most 32 calls are out; the next ones go when the lowest is answered. */
static void test_calls__window(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	unsigned i;

	(void)state;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	join(0);
	do_calls(100, 0, 0);
	carry(0);
	assert_int_equal(t.runs, 32);
	for (i = 1; i < 32; i++)
		result(i, 0, false, 0);
	carry(0);
	assert_int_equal(t.answers, 31);
	assert_int_equal(t.runs, 32);
	result(0, -EEXIST, false, 0);
	carry(0);
	assert_int_equal(t.answers, 32);
	assert_int_equal(t.error, -EEXIST);
	assert_int_equal(t.runs, 64);
	assert_int_equal(t.run[63].request, 64);
	assert_false(t.closed_p);
	tear_down();
}

/* Too much, out of order, below the lowest, of others: the peer is dropped or the call is skipped. */
static void test_calls__hostile(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	static const struct {
		struct msg_call c;
		int r;
	} tries[] = {
		{ { 1, 5, 1, 2, 1, NULL, 0, 1 }, 0 },
		{ { 1, 5, 1, 2, 1, NULL, 0, 1 }, -EPROTO },        /* again */
		{ { 1, 5, 1, 1, 1, NULL, 0, 1 }, -EPROTO },        /* backwards */
		{ { 1, 6, 1, 3, 1, NULL, 0, 1 }, 0 },              /* not its client */
		{ { 1, 5, 0, 3, 1, NULL, 0, 1 }, 0 },              /* an old session */
		{ { 0, 5, 1, 3, 1, NULL, 0, 1 }, -ESTALE },        /* an old epoch */
	};
	uint8_t buf[64];
	unsigned i;

	(void)state;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	join(0);
	for (i = 0; i < ARRAY_LEN(tries); i++) {
		struct wire_writer w = wire_writer(buf, sizeof buf);

		msg_put_call(&w, &tries[i].c);
		assert_int_equal(primary_frame(t.p, 1, MSG_CALL, buf, (uint32_t)wire_used(&w), 0), tries[i].r);
	}
	assert_int_equal(t.runs, 1);
	tear_down();
}

/* An fsync waits for as many disks as was asked for; too long is EIO, never success. */
static void test_sync__waits_for_replicas(void **state)
{
	struct primary_options po = p_options();
	const struct replica_options ro = r_options();

	(void)state;
	po.sync_replicas = 1;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	/* Its disk has less than the primary's. */
	t.ours.last = 11;
	primary_committed(t.p, 11, 1100, 0);
	primary_durable(t.p, 11);
	join(0);
	do_calls(1, REPLICA_CALL_SYNC, 0);
	carry(0);
	primary_result(t.p, 5, 1, t.run[0].token, &(struct primary_result){ .sync = true, .seq = 11 }, 0);
	carry(0);
	assert_int_equal(t.answers, 0);
	replica_durable(t.r, 11);
	carry(0);
	assert_int_equal(t.answers, 1);
	assert_int_equal(t.error, 0);
	assert_int_equal(primary_synced(t.p), 11);
	/* And once more, with a replica whose disk hangs. */
	t.ours.last = 12;
	primary_committed(t.p, 12, 1200, 0);
	primary_durable(t.p, 12);
	do_calls(1, REPLICA_CALL_SYNC, 0);
	carry(0);
	primary_result(t.p, 5, 2, t.run[1].token, &(struct primary_result){ .sync = true, .seq = 12 }, 0);
	primary_tick(t.p, 400);
	carry(400);
	assert_int_equal(t.answers, 1);
	primary_tick(t.p, 600);
	carry(600);
	assert_int_equal(t.answers, 2);
	assert_int_equal(t.error, -EIO);
	tear_down();
}

/* Once for a call, and for the primary's own machine: so many others as it says, whatever the rule for fsync is. */
static void test_sync__counted(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	struct primary_result res = { .sync = true, .seq = 11, .counted = true, .replicas = 1, .wait_ms = 300 };

	(void)state;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	t.ours.last = 11;
	primary_committed(t.p, 11, 1100, 0);
	join(0);
	do_calls(2, REPLICA_CALL_SYNC, 0);
	carry(0);
	assert_int_equal(primary_wait(t.p, 77, 11, 1, 1000, 0), 0);
	primary_result(t.p, 5, 1, t.run[0].token, &res, 0);
	res.replicas = 2;
	primary_result(t.p, 5, 2, t.run[1].token, &res, 0);
	replica_durable(t.r, 11);
	carry(0);
	/* The other has it, our own disk has not. */
	assert_int_equal(t.answers, 0);
	assert_int_equal(t.waited, 0);
	primary_durable(t.p, 11);
	carry(0);
	assert_int_equal(t.answers, 1);
	assert_int_equal(t.error, 0);
	assert_int_equal(t.waited, 77);
	assert_int_equal(t.waited_error, 0);
	/* Two others there are not. */
	assert_int_equal(primary_wait(t.p, 78, 11, 2, 1000, 0), 0);
	primary_tick(t.p, 299);
	carry(299);
	assert_int_equal(t.answers, 1);
	primary_tick(t.p, 300);
	carry(300);
	assert_int_equal(t.answers, 2);
	assert_int_equal(t.error, -ETIMEDOUT);
	assert_int_equal(t.waited, 77);
	primary_tick(t.p, 1000);
	assert_int_equal(t.waited, 78);
	assert_int_equal(t.waited_error, -ETIMEDOUT);
	/* Who is no primary any more cannot count. */
	assert_int_equal(primary_wait(t.p, 79, 11, 2, 1000, 1000), 0);
	primary_off(t.p, "over", "");
	primary_tick(t.p, 1001);
	assert_int_equal(t.waited, 79);
	assert_int_equal(t.waited_error, -ECANCELED);
	tear_down();
}

/* The link is ended by the primary: both ends see it. */
static void stand_still(uint64_t now)
{
	primary_stand_still(t.p, "it stands still", now);
	assert_true(t.closed_p);
	replica_closed(t.r, 1, now);
	t.closed_p = t.closed_r = false;
	t.np = t.nr = 0;
}

/* Who stands still sends all away and lets nobody in; what they hold counts for a lease from when it goes on. */
static void test_calls__primary_stands_still(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	struct primary_run late;

	(void)state;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	replica_hold(t.r, 77, false);
	join(0);
	do_calls(1, REPLICA_CALL_WRITE, 0);
	carry(0);
	assert_int_equal(t.runs, 1);
	late = t.run[0];
	stand_still(0);
	/* It was sent: nobody knows. */
	replica_tick(t.r, 999);
	assert_int_equal(t.answers, 0);
	replica_tick(t.r, 1000);
	assert_int_equal(t.answers, 1);
	assert_int_equal(t.error, -EIO);
	/* One that was never sent was not done. */
	do_calls(1, REPLICA_CALL_WRITE, 1000);
	replica_tick(t.r, 2000);
	assert_int_equal(t.answers, 2);
	assert_int_equal(t.error, -EROFS);
	/* Said again, it changes nothing. */
	primary_stand_still(t.p, "it stands still", 3000);
	primary_tick(t.p, 5000);
	assert_int_equal(t.released, 0);
	assert_int_equal(t.expired, 0);
	join(5000);
	assert_non_null(strstr(t.note, "stands still"));
	assert_true(t.closed_p);
	replica_closed(t.r, 1, 5000);
	t.closed_p = t.closed_r = false;
	t.np = t.nr = 0;
	primary_stand_still(t.p, NULL, 5000);
	primary_tick(t.p, 5999);
	assert_int_equal(t.released, 0);
	assert_int_equal(t.expired, 0);
	join(5999);
	assert_int_equal(state_of(), REPLICA_STREAM);
	/* What is run late after all answers nobody, and no call is sent twice. */
	primary_result(t.p, late.client, late.request, late.token, &(struct primary_result){ .seq = 10 }, 5999);
	carry(5999);
	assert_int_equal(t.runs, 1);
	assert_int_equal(t.answers, 2);
	do_calls(1, REPLICA_CALL_WRITE, 5999);
	carry(5999);
	assert_int_equal(t.runs, 2);
	result(1, 0, false, 5999);
	carry(5999);
	assert_int_equal(t.answers, 3);
	assert_int_equal(t.error, 0);
	/* A lease after it goes on, and not before. */
	stand_still(7000);
	primary_tick(t.p, 9000);
	primary_stand_still(t.p, NULL, 9000);
	primary_tick(t.p, 9999);
	assert_int_equal(t.released, 0);
	assert_int_equal(t.expired, 0);
	primary_tick(t.p, 10000);
	assert_int_equal(t.released, 1);
	assert_int_equal(t.expired, 1);
	tear_down();
}

/* What is not on a disk that has failed never will be: who waits for it hears that. */
static void test_sync__the_disk_fails(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	struct primary_result res = { .sync = true, .seq = 11 };

	(void)state;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	t.ours.last = 12;
	primary_committed(t.p, 12, 1200, 0);
	join(0);
	do_calls(3, REPLICA_CALL_SYNC, 0);
	carry(0);
	primary_result(t.p, 5, 1, t.run[0].token, &res, 0);
	res.seq = 12;
	primary_result(t.p, 5, 2, t.run[1].token, &res, 0);
	carry(100000);
	assert_int_equal(t.answers, 0);
	primary_durable(t.p, 11);
	primary_disk_failed(t.p);
	carry(100000);
	assert_int_equal(t.answers, 2);
	assert_int_equal(t.cookie, 1);
	assert_int_equal(t.error, -EIO);
	/* And who asks after that. */
	primary_result(t.p, 5, 3, t.run[2].token, &res, 100000);
	carry(100000);
	assert_int_equal(t.answers, 3);
	assert_int_equal(t.error, -EIO);
	tear_down();
}

static void test_calls__policies(void **state)
{
	const struct primary_options po = p_options();
	struct replica_options ro = r_options();
	const struct replica_call c = { .cookie = 1, .bytes = (const uint8_t *)"op", .len = 2 };

	(void)state;
	ro.policy = REPLICA_READONLY;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	assert_int_equal(replica_call(t.r, &c, 0), -EROFS);
	tear_down();
	ro.policy = REPLICA_ERROR;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	assert_int_equal(replica_call(t.r, &c, 0), -EIO);
	join(0);
	/* With a stream it is taken; if the link is lost then, nobody knows. */
	assert_int_equal(replica_call(t.r, &c, 0), 0);
	carry(0);
	replica_closed(t.r, 1, 1);
	replica_tick(t.r, 2);
	assert_int_equal(t.answers, 1);
	assert_int_equal(t.error, -EIO);
	tear_down();
	/* Never sent: it was not done, which is EROFS; and not before the patience is over. */
	ro.policy = REPLICA_WAIT;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	assert_int_equal(replica_call(t.r, &c, 0), 0);
	replica_tick(t.r, 999);
	assert_int_equal(t.answers, 0);
	replica_tick(t.r, 1000);
	assert_int_equal(t.answers, 1);
	assert_int_equal(t.error, -EROFS);
	/* An interrupt. */
	assert_int_equal(replica_call(t.r, &c, 1000), 0);
	assert_true(replica_cancel(t.r, 1));
	assert_int_equal(t.error, -EINTR);
	assert_false(replica_cancel(t.r, 1));
	tear_down();
}

static void test_calls__read_only_key(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();

	(void)state;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	assert_int_equal(primary_opened(t.p, 1, PRIMARY_PEER_READ_ONLY, 0), 0);
	assert_int_equal(replica_opened(t.r, 1, 0), 0);
	carry(0);
	do_calls(1, REPLICA_CALL_WRITE, 0);
	carry(0);
	assert_int_equal(t.runs, 0);
	assert_int_equal(t.answers, 1);
	assert_int_equal(t.error, -EROFS);
	tear_down();
}

/* Limited keys (P7) -------------------------------------------------------------------------------------------------- */

#define TAG 0x4711u
static const uint64_t limited_client = (uint64_t)TAG << 32 | 5;

static void join_limited(const char *tree, uint64_t now)
{
	assert_int_equal(primary_opened(t.p, 1, tree ? 0 : PRIMARY_PEER_READ_ONLY, now), 0);
	primary_limit(t.p, 1, tree, TAG);
	assert_int_equal(replica_opened(t.r, 1, now), 0);
	carry(now);
}

/* Another link says this hello. 0: it streams; else it is not there. */
static int hello_on(link_t link, const char *tree, uint32_t tag, const struct msg_hello *h)
{
	struct primary_peer_status s;
	struct wire_writer w;
	uint8_t buf[512];
	unsigned i;

	assert_int_equal(primary_opened(t.p, link, 0, 0), 0);
	if (tag)
		primary_limit(t.p, link, tree, tag);
	w = wire_writer(buf, sizeof buf);
	msg_put_hello(&w, h);
	assert_int_equal(primary_frame(t.p, link, MSG_HELLO, buf, (uint32_t)wire_used(&w), 0), 0);
	t.nr = 0;
	for (i = 0; primary_peer_status(t.p, i, 0, &s) == 0; i++)
		if (s.link == link)
			return 0;
	return -1;
}

static struct msg_hello plain_hello(uint8_t store, uint64_t client, uint64_t session)
{
	struct msg_hello h = { .version = 1, .version_min = 1, .client = client, .session = session, .low = 1, .epoch = 1, .promised = 1,
			       .durable = 10, .history = line(1, (const uint64_t[][3]){ { 1, 1, 100 } }, 10), .locks = ids, .locks_len = 5 };

	memset(h.cluster, 1, 16);
	memset(h.store, store, 16);
	return h;
}

/* A call says where it may change something, and so does the client; the status shows it. */
static void test_limit__calls_say_it(void **state)
{
	const struct primary_options po = p_options();
	struct replica_options ro = r_options();
	struct primary_peer_status s;

	(void)state;
	ro.client = limited_client;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	join_limited("/t", 0);
	assert_int_equal(t.heres, 1);
	assert_string_equal(t.here.tree, "/t");
	assert_int_equal(t.here.client, limited_client);
	do_calls(1, REPLICA_CALL_WRITE, 0);
	carry(0);
	assert_int_equal(t.runs, 1);
	assert_string_equal(t.run[0].tree, "/t");
	assert_int_equal(primary_peer_status(t.p, 0, 0, &s), 0);
	assert_true(s.limited);
	assert_string_equal(s.tree, "/t");
	tear_down();
	assert_int_equal(set_up(&po, &ro, 10), 0);
	join(0);
	do_calls(1, REPLICA_CALL_WRITE, 0);
	carry(0);
	assert_null(t.run[0].tree);
	assert_null(t.here.tree);
	tear_down();
}

/* A higher epoch, said by whom nobody has to believe: in its hello, in a message, as its last word. */
static void test_limit__ends_no_epoch(void **state)
{
	const struct primary_options po = p_options();
	struct replica_options ro = r_options();
	uint8_t buf[64];
	struct wire_writer w;
	unsigned i;

	(void)state;
	ro.client = limited_client;
	for (i = 0; i < 2; i++) {
		const char *tree = i ? "/t" : NULL;

		assert_int_equal(set_up(&po, &ro, 10), 0);
		replica_promised(t.r, 0x100000);
		join_limited(tree, 0);
		assert_int_equal(t.fenced, 0);
		assert_int_equal(primary_state(t.p), PRIMARY_LEADS);
		assert_true(t.closed_p);
		tear_down();
		assert_int_equal(set_up(&po, &ro, 10), 0);
		join_limited(tree, 0);
		w = wire_writer(buf, sizeof buf);
		msg_put_ack(&w, &(struct msg_ack){ 0x100000, 10, 10, 10, 10, 1 });
		assert_int_equal(primary_frame(t.p, 1, MSG_ACK, buf, (uint32_t)wire_used(&w), 0), -EPROTO);
		w = wire_writer(buf, sizeof buf);
		msg_put_fenced(&w, &(struct msg_fenced){ 0x100000, NULL, 0 });
		assert_int_equal(primary_frame(t.p, 1, MSG_FENCED, buf, (uint32_t)wire_used(&w), 0), -ESTALE);
		assert_int_equal(t.fenced, 0);
		assert_int_equal(primary_state(t.p), PRIMARY_LEADS);
		tear_down();
	}
}

/* What it says that it has counts for nobody's fsync; nor does anybody wait for it. It takes nothing over. */
static void test_limit__counts_for_nothing(void **state)
{
	struct primary_options po = p_options();
	struct replica_options ro = r_options();
	uint8_t store[16];

	(void)state;
	memset(store, 3, sizeof store);
	ro.client = limited_client;
	po.sync_replicas = 1;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	join_limited("/t", 0);
	replica_durable(t.r, 10);
	carry(0);
	assert_int_equal(primary_synced(t.p), 0);
	assert_int_equal(primary_wait(t.p, 8, 10, 1, 100, 0), 0);
	primary_tick(t.p, 100);
	assert_int_equal(t.waited, 8);
	assert_int_equal(t.waited_error, -ETIMEDOUT);
	assert_int_equal(primary_switch(t.p, store, 0), -ENOENT);
	assert_int_equal(primary_state(t.p), PRIMARY_LEADS);
	tear_down();
	/* Its disk never has anything. */
	po.sync_replicas = PRIMARY_SYNC_ALL;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	join_limited("/t", 0);
	t.ours.last = 11;
	primary_committed(t.p, 11, 1100, 0);
	primary_durable(t.p, 11);
	carry(0);
	assert_int_equal(primary_synced(t.p), 11);
	tear_down();
}

/* Nobody but itself: the store or the client of another key is not taken, and who has a right to them gets them back. */
static void test_limit__is_nobody_else(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	struct msg_hello h;

	(void)state;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	join(0);
	do_calls(1, 0, 0);
	carry(0);
	/* The store of the one that is here; its client, by a read-only key; one whose number is another's. */
	h = plain_hello(3, limited_client, 1);
	assert_int_equal(hello_on(2, "/t", TAG, &h), -1);
	h = plain_hello(4, 5, 9);
	assert_int_equal(hello_on(3, NULL, TAG, &h), -1);
	assert_int_equal(hello_on(4, "/t", TAG, &h), -1);
	h = plain_hello(4, limited_client, 9);
	assert_int_equal(hello_on(5, "/t", TAG + 1, &h), -1);
	/* The other one was not touched: it gets its answer. */
	result(0, 0, false, 0);
	(void)primary_pump(t.p, 0);
	carry(0);
	assert_int_equal(t.answers, 1);
	assert_false(t.closed_p && state_of() != REPLICA_STREAM);
	/* Gone for a moment: still not. */
	t.closed_p = false;
	primary_closed(t.p, 1, 0);
	h = plain_hello(3, limited_client, 1);
	assert_int_equal(hello_on(6, "/t", TAG, &h), -1);
	h = plain_hello(4, limited_client, 1);
	assert_int_equal(hello_on(7, "/t", TAG, &h), 0);
	/* A read-only key says first that it is client 77, of a far session; then 77 comes. */
	h = plain_hello(5, 77, 1000000);
	h.low = 1000000;
	assert_int_equal(hello_on(8, NULL, TAG + 2, &h), 0);
	assert_int_equal(t.here.client, 77);
	h = plain_hello(6, 77, 1);
	assert_int_equal(hello_on(9, NULL, 0, &h), 0);
	assert_int_equal(t.here.session, 1);
	assert_int_equal(t.here.low, 1);
	/* And a store that a limited key had first. */
	h = plain_hello(5, 78, 1);
	assert_int_equal(hello_on(10, NULL, 0, &h), 0);
	tear_down();
}

/* Who may lock nothing states nothing. */
static void test_limit__read_only_states_no_locks(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	const struct msg_hello h = plain_hello(4, 9, 1);
	uint8_t buf[512];
	struct wire_writer w = wire_writer(buf, sizeof buf);

	(void)state;
	msg_put_hello(&w, &h);
	assert_int_equal(set_up(&po, &ro, 10), 0);
	assert_int_equal(primary_opened(t.p, 2, PRIMARY_PEER_READ_ONLY, 0), 0);
	assert_int_equal(primary_frame(t.p, 2, MSG_HELLO, buf, (uint32_t)wire_used(&w), 0), 0);
	assert_int_equal(t.heres, 1);
	assert_int_equal(t.here_locks, 0);
	assert_int_equal(primary_opened(t.p, 3, 0, 0), 0);
	assert_int_equal(primary_frame(t.p, 3, MSG_HELLO, buf, (uint32_t)wire_used(&w), 0), 0);
	assert_int_equal(t.here_locks, 5);
	tear_down();
}

/* It feeds nobody, and no relay takes it: what it may do is decided on the primary only. */
static void test_limit__no_relays(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	struct msg_hello h = plain_hello(4, limited_client, 1);

	(void)state;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	h.flags = HELLO_FEEDS;
	assert_int_equal(hello_on(2, "/t", TAG, &h), -1);
	h.flags = 0;
	assert_int_equal(hello_on(3, "/t", TAG, &h), 0);
	primary_relay(t.p, 1, 1, 10, 0);
	primary_committed(t.p, 10, 1000, 0);
	assert_int_equal(hello_on(4, "/t", TAG, &h), -1);
	assert_non_null(strstr(t.note, "relay"));
	assert_int_equal(hello_on(5, NULL, 0, &h), 0);
	tear_down();
}

/* (R6) */
static void test_sync__after_loss(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	const struct replica_call c = { .cookie = 1, .object = 77, .flags = REPLICA_CALL_SYNC, .bytes = (const uint8_t *)"op", .len = 2 };

	(void)state;
	assert_int_equal(set_up(&po, &ro, 15), 0);
	replica_wrote(t.r, 77, 12);
	replica_wrote(t.r, 78, 9);
	join(0);
	assert_int_equal(t.asides, 1);
	assert_int_equal(replica_sync_check(t.r, 78), 0);
	assert_int_equal(replica_call(t.r, &c, 0), -EIO);
	assert_int_equal(replica_call(t.r, &c, 0), 0);
	assert_int_equal(replica_sync_check(t.r, 0), -EIO);
	assert_int_equal(replica_sync_check(t.r, 0), 0);
	tear_down();
}

/* (R8) A machine that slept for long does not do again what it asked for before: what that did may be forgotten. */
static void test_calls__too_old(void **state)
{
	const uint64_t day = 24u * 3600 * 1000;
	const struct primary_options po = p_options();
	struct replica_options ro = r_options();

	(void)state;
	ro.wait_ms = (uint32_t)day;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	join(0);
	do_calls(1, 0, 0);
	carry(0);
	assert_int_equal(t.runs, 1);
	/* A day later it is sent again, */
	primary_closed(t.p, 1, day);
	replica_closed(t.r, 1, day);
	join(day);
	assert_int_equal(t.runs, 2);
	assert_int_equal(t.answers, 0);
	/* two hours after that no more, though the link was up all the while. One that never was is sent. */
	primary_closed(t.p, 1, day + 7200000);
	replica_closed(t.r, 1, day + 7200000);
	do_calls(1, 0, day + 7200000);
	join(day + 7200000);
	assert_int_equal(t.answers, 1);
	assert_int_equal(t.error, -EIO);
	assert_int_equal(t.runs, 3);
	assert_int_equal(t.run[2].request, 2);
	tear_down();
}

static void test_reads__max_stale(void **state)
{
	const struct primary_options po = p_options();
	struct replica_options ro = r_options();

	(void)state;
	ro.max_stale_ms = 300;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	join(1000);
	/* The first position says: this is it. */
	assert_int_equal(replica_stale_ms(t.r, 1000), 0);
	assert_int_equal(replica_may_read(t.r, 1300), 0);
	assert_int_equal(replica_may_read(t.r, 1301), -ESTALE);
	primary_tick(t.p, 1400);
	carry(1400);
	assert_int_equal(replica_may_read(t.r, 1700), 0);
	/* A position that was not reached says nothing yet. */
	t.ours.last = 11;
	primary_committed(t.p, 11, 1100, 1500);
	primary_tick(t.p, 1500);
	carry(1500);
	assert_int_equal(replica_stale_ms(t.r, 1500), 0);
	tear_down();
}

/* With `all`, those count that are in step; who catches up does not hold up the others. */
static void test_sync__all_in_step(void **state)
{
	struct primary_options po = p_options();
	const struct replica_options ro = r_options();

	(void)state;
	po.sync_replicas = PRIMARY_SYNC_ALL;
	assert_int_equal(set_up(&po, &ro, 4), 0);
	assert_int_equal(primary_synced(t.p), 10);
	assert_int_equal(primary_opened(t.p, 1, 0, 0), 0);
	assert_int_equal(replica_opened(t.r, 1, 0), 0);
	assert_int_equal(primary_frame(t.p, 1, t.to_p[0].type, t.to_p[0].bytes, t.to_p[0].len, 0), 0);
	t.np = 0;
	/* It streams, and has 4 of 10. */
	t.ours.last = 11;
	primary_committed(t.p, 11, 1100, 0);
	primary_durable(t.p, 11);
	assert_int_equal(primary_synced(t.p), 11);
	carry(0);
	t.ours.last = 12;
	primary_committed(t.p, 12, 1200, 0);
	primary_durable(t.p, 12);
	assert_int_equal(primary_synced(t.p), 11);
	carry(0);
	assert_int_equal(primary_synced(t.p), 11);
	replica_durable(t.r, 12);
	carry(0);
	assert_int_equal(primary_synced(t.p), 12);
	/* Gone: nobody is waited for. */
	primary_closed(t.p, 1, 0);
	primary_durable(t.p, 13);
	assert_int_equal(primary_synced(t.p), 13);
	tear_down();
}

/* A switch-over waits for fsyncs that wait for disks, but not for disks that are not to be had. */
static void test_switch__lets_syncs_finish(void **state)
{
	struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	uint8_t store[16];
	unsigned replicas;

	(void)state;
	memset(store, 3, sizeof store);
	po.switch_wait_ms = 1000;
	for (replicas = 0; replicas < 3; replicas++) {
		po.sync_replicas = replicas;
		assert_int_equal(set_up(&po, &ro, 10), 0);
		join(0);
		assert_int_equal(primary_switch(t.p, store, 0), 0);
		carry(0);
		assert_int_equal(t.hand_next != 0, replicas < 2);
		primary_tick(t.p, 499);
		assert_int_equal(t.hand_next != 0, replicas < 2);
		primary_tick(t.p, 500);
		assert_int_not_equal(t.hand_next, 0);
		tear_down();
	}
}

/* Relays ----------------------------------------------------------------------------------------------------------- */

static bool any_peer(enum peer_state state)
{
	struct primary_peer_status s;
	unsigned i;

	for (i = 0; primary_peer_status(t.p, i, 0, &s) == 0; i++)
		if (s.state == state)
			return true;
	return false;
}

static void relay(uint64_t epoch, uint64_t now)
{
	primary_relay(t.p, epoch, epoch, 10, now);
	primary_committed(t.p, 10, 1000, now);
}

/* Paused it lets nobody in, and remembers who was there for a lease; in another epoch they are nobody's. */
static void test_relay__pauses(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	seq_t applied = UINT64_MAX, durable = UINT64_MAX;
	uint32_t count;

	(void)state;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	relay(1, 0);
	replica_hold(t.r, 77, false);
	join(0);
	assert_true(any_peer(PEER_STREAMS));
	assert_int_equal(t.held_count, 1);
	assert_int_equal(t.held[0], 77);
	primary_tree(t.p, &applied, &durable, &count);
	assert_int_equal(applied, 10);
	assert_int_equal(count, 2);
	primary_pause(t.p, "over");
	assert_true(t.closed_p);
	assert_true(any_peer(PEER_GONE));
	assert_int_equal(t.released, 0);
	/* It counts with what it had on disk. */
	applied = durable = UINT64_MAX;
	primary_tree(t.p, &applied, &durable, &count);
	assert_int_equal(applied, 10);
	/* It comes again, too early. */
	replica_closed(t.r, 1, 0);
	t.closed_p = t.closed_r = false;
	t.np = t.nr = 0;
	join(0);
	assert_non_null(strstr(t.note, "not in step"));
	assert_true(t.closed_p);
	assert_int_equal(t.released, 0);
	/* And again. */
	t.closed_p = t.closed_r = false;
	t.np = t.nr = 0;
	relay(1, 10);
	assert_int_equal(t.released, 0);
	join(10);
	assert_true(any_peer(PEER_STREAMS));
	assert_false(any_peer(PEER_GONE));
	assert_int_equal(t.held_count, 1);
	/* A lease after it is gone, it holds nothing. */
	primary_pause(t.p, "over");
	primary_tick(t.p, 1009);
	assert_int_equal(t.released, 0);
	primary_tick(t.p, 1010);
	assert_int_equal(t.released, 1);
	tear_down();

	assert_int_equal(set_up(&po, &ro, 10), 0);
	relay(1, 0);
	replica_hold(t.r, 77, false);
	join(0);
	primary_pause(t.p, "over");
	relay(2, 0);
	assert_false(any_peer(PEER_GONE));
	assert_int_equal(t.released, 1);
	tear_down();
}

/* Who is followed is not fed. */
static void test_relay__circle(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	uint8_t store[16], got[MSG_PATH_MAX * 16];
	unsigned paused;

	(void)state;
	memset(store, 3, sizeof store);
	for (paused = 0; paused < 2; paused++) {
		assert_int_equal(set_up(&po, &ro, 10), 0);
		assert_int_equal(replica_path(t.r, got), 0);
		relay(1, 0);
		if (paused)
			primary_pause(t.p, "over");
		primary_set_path(t.p, store, 1);
		join(0);
		assert_non_null(strstr(t.note, "circle"));
		assert_true(t.closed_p);
		/* The other one knows now whom it asked. */
		assert_int_equal(replica_path(t.r, got), 1);
		assert_int_equal(got[0], 2);
		/* As a primary it may feed anyone. */
		t.closed_p = t.closed_r = false;
		t.np = t.nr = 0;
		primary_lead(t.p, 3, 3, 10, 10, 0);
		join(0);
		assert_false(t.closed_p);
		tear_down();
	}
}

/* Each says whom it follows, and whom that one does; a circle is told however long it is. An older peer is told as before. */
static void test_relay__long_circle(void **state)
{
	struct primary_options po = p_options();
	struct replica_options ro = r_options();
	uint8_t stores[MSG_PATH_MAX * 16 + 16], got[MSG_PATH_MAX * 16];
	unsigned i, features;

	(void)state;
	for (i = 0; i <= MSG_PATH_MAX; i++)
		memset(stores + 16 * (size_t)i, (int)(10 + i), 16);
	for (features = 0; features < 4; features++) {
		po.features = (features & 1) != 0 ? MSG_FEATURES : 0;
		ro.features = (features & 2) != 0 ? MSG_FEATURES : 0;
		/* Who is refused for another reason learns of it. */
		assert_int_equal(set_up(&po, &ro, 10), 0);
		primary_off(t.p, "over", "");
		primary_set_path(t.p, stores, 3);
		join(0);
		assert_non_null(strstr(t.note, "not in step"));
		assert_int_equal(replica_path(t.r, got), features == 3 ? 4 : 1);
		assert_int_equal(got[0], 2);
		assert_true(features < 3 || memcmp(got + 16, stores, 48) == 0);
		/* Up to itself, or where it begins anew. */
		t.closed_p = t.closed_r = false;
		t.np = t.nr = 0;
		memset(stores + 32, 2, 16);
		primary_set_path(t.p, stores, 3);
		join(0);
		assert_int_equal(replica_path(t.r, got), features == 3 ? 3 : 1);
		t.closed_p = t.closed_r = false;
		t.np = t.nr = 0;
		memset(stores + 32, 3, 16);
		primary_set_path(t.p, stores, 3);
		join(0);
		assert_non_null(strstr(t.note, "over 2 others: in a circle"));
		assert_int_equal(replica_path(t.r, got), features == 3 ? 3 : 1);
		memset(stores + 32, 12, 16);
		/* As much as goes into a message. */
		t.closed_p = t.closed_r = false;
		t.np = t.nr = 0;
		primary_set_path(t.p, stores, MSG_PATH_MAX + 1);
		join(0);
		assert_int_equal(replica_path(t.r, got), features == 3 ? MSG_PATH_MAX : 1);
		tear_down();
	}
}

/* A relay offers what it can pass on. */
static void test_relay__features(void **state)
{
	struct primary_options po = p_options();
	struct replica_options ro = r_options();
	struct replica_status s;
	unsigned i;

	(void)state;
	po.features = ro.features = MSG_FEATURES;
	for (i = 0; i < 2; i++) {
		assert_int_equal(set_up(&po, &ro, 10), 0);
		primary_set_features(t.p, MSG_FEATURES_OWN | (i > 0 ? MSG_FEATURE_PROBE | 1ull << 40 : 0));
		relay(1, 0);
		join(0);
		replica_status(t.r, 0, &s);
		assert_int_equal(s.state, REPLICA_STREAM);
		assert_int_equal(s.features, i > 0 ? MSG_FEATURES : MSG_FEATURES_OWN);
		tear_down();
	}
}

static void test_relay__locks_pass(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();
	struct msg_lock m = { .client = 5, .ticket = 1, .kind = 1, .type = 1, .ino = 9 };
	uint8_t buf[128];
	struct wire_writer w;

	(void)state;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	relay(1, 0);
	join(0);
	/* Down, to a client that is fed; */
	primary_lock(t.p, &m);
	carry(0);
	assert_int_equal(t.lock_of, 5);
	/* and from above, for one that is behind this replica. */
	m.client = 99;
	m.epoch = 1;
	w = wire_writer(buf, sizeof buf);
	msg_put_lock(&w, &m);
	assert_int_equal(replica_frame(t.r, 1, MSG_LOCK, buf, (uint32_t)wire_used(&w), 0), 0);
	assert_int_equal(t.lock_of, 99);
	tear_down();
}

/* What those behind it hold is not known yet: so everything is held, until it says otherwise. */
static void test_relay__holds_all_at_first(void **state)
{
	const struct primary_options po = p_options();
	const struct replica_options ro = r_options();

	(void)state;
	assert_int_equal(set_up(&po, &ro, 10), 0);
	replica_hold_all(t.r, true);
	join(0);
	assert_false(primary_may_mark(t.p, 5, 3, 5000));
	replica_tick(t.r, 5000);
	carry(5000);
	assert_false(primary_may_mark(t.p, 5, 3, 5000));
	replica_hold_all(t.r, false);
	replica_tick(t.r, 5001);
	carry(5001);
	assert_int_equal(state_of(), REPLICA_STREAM);
	assert_true(primary_may_mark(t.p, 5, 3, 5001));
	tear_down();
}

/* Everything that was allocated once fails once; nothing breaks, and with memory again it works. */
static void test_memory__little(void **state)
{
	const struct primary_options po = p_options();
	struct replica_options ro = r_options();
	unsigned n, most = 0;

	(void)state;
	ro.flags = HELLO_FEEDS;
	for (n = 1; n == 1 || n <= most + 1; n++) {
		const struct replica_call c = { .cookie = 1, .bytes = (const uint8_t *)"op", .len = 2 };

		allocations = 0;
		fail_at = n;
		counting = true;
		if (set_up(&po, &ro, 4) == 0 && primary_opened(t.p, 1, 0, 0) == 0 && replica_opened(t.r, 1, 0) == 0) {
			carry(0);
			replica_hold(t.r, 5, false);
			replica_hold(t.r, 6, true);
			(void)replica_call(t.r, &c, 0);
			replica_client(t.r, 9, 1, 1, false, (const uint8_t *)"l", 1);
			carry(0);
			/* What could not be noted is held all the same. */
			counting = false;
			carry(0);
			if (state_of() == REPLICA_STREAM && !t.closed_p)
				assert_false(primary_may_mark(t.p, 5, 3, 5000));
		}
		if (allocations > most)
			most = allocations;
		counting = false;
		tear_down();
		memset(&t, 0, sizeof t);
	}
	assert_true(most > 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_message__exact_end),
		cmocka_unit_test(test_message__fields),
		cmocka_unit_test(test_message__impossible),
		cmocka_unit_test(test_history__compare),
		cmocka_unit_test(test_idset__model),
		cmocka_unit_test(test_link__streams),
		cmocka_unit_test(test_link__change_that_does_not_fit),
		cmocka_unit_test(test_link__newer_and_older),
		cmocka_unit_test(test_link__refusals),
		cmocka_unit_test(test_link__lower_epoch),
		cmocka_unit_test(test_link__fenced),
		cmocka_unit_test(test_calls__window),
		cmocka_unit_test(test_calls__hostile),
		cmocka_unit_test(test_calls__primary_stands_still),
	cmocka_unit_test(test_sync__the_disk_fails),
	cmocka_unit_test(test_calls__policies),
		cmocka_unit_test(test_calls__read_only_key),
		cmocka_unit_test(test_limit__calls_say_it),
		cmocka_unit_test(test_limit__ends_no_epoch),
		cmocka_unit_test(test_limit__counts_for_nothing),
		cmocka_unit_test(test_limit__is_nobody_else),
		cmocka_unit_test(test_limit__read_only_states_no_locks),
		cmocka_unit_test(test_limit__no_relays),
		cmocka_unit_test(test_sync__waits_for_replicas),
		cmocka_unit_test(test_sync__counted),
		cmocka_unit_test(test_sync__after_loss),
		cmocka_unit_test(test_calls__too_old),
		cmocka_unit_test(test_reads__max_stale),
		cmocka_unit_test(test_sync__all_in_step),
		cmocka_unit_test(test_switch__lets_syncs_finish),
		cmocka_unit_test(test_relay__pauses),
		cmocka_unit_test(test_relay__circle),
		cmocka_unit_test(test_relay__long_circle),
		cmocka_unit_test(test_relay__features),
		cmocka_unit_test(test_relay__locks_pass),
		cmocka_unit_test(test_relay__holds_all_at_first),
		cmocka_unit_test(test_memory__little),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
