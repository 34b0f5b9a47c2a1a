/* SPDX-License-Identifier: MIT
 *
 * fuzz_replica: every message of chapter 2 of core/PROTOCOL.md, to both engines. An input is a program: which end gets a frame, of
 * which type; its bytes are those of a right message with some of them changed, or just bytes. Between the frames the
 * engines are told what happens around them. Whatever comes, the peer is dropped at worst: what engines ask for is checked
 * to make sense, positions never run backwards, and memory is not touched where it should not be (sanitizers).
 */
#include "core/replica/primary.h"
#include "core/replica/replica.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *p, *end;
};

static uint8_t u8(struct input *in)
{
	return in->p < in->end ? *in->p++ : 0;
}

/* A small number, or one near the end of the range. */
static uint64_t value(struct input *in)
{
	uint8_t b = u8(in);

	return b < 200 ? b % 40 : b < 230 ? (uint64_t)b << 20 : (uint64_t)0 - (b - 230);
}

/* What the engines of this run were asked. */
static struct {
	struct primary *p;
	struct replica *r;
	link_t pl, rl;                  /* the links in force; 0: none */
	bool full;
	uint64_t promise, lead, hand;
	bool aside;
	seq_t applied, last;
	struct {
		uint64_t client, request, token;
	} runs[64];
	unsigned run_count;
	unsigned waiting;               /* calls of the mount without an answer */
} f;

static int send_any(unsigned type, const void *bytes, uint32_t len)
{
	uint32_t i, sum = 0;

	check(type >= MSG_HELLO && len <= WIRE_PAYLOAD_MAX);
	for (i = 0; i < len; i++)
		sum += ((const uint8_t *)bytes)[i];
	check(sum < UINT32_MAX);
	return f.full ? -EAGAIN : 0;
}

static int p_send(void *ctx, link_t link, unsigned type, const void *bytes, uint32_t len)
{
	(void)ctx;
	check(link != 0 && link == f.pl);
	return send_any(type, bytes, len);
}

static int p_change(void *ctx, link_t link, const struct msg_change *head)
{
	(void)ctx;
	check(link == f.pl && head->seq >= 1 && head->seq <= f.last);
	return f.full ? -EAGAIN : head->seq < 4 ? -ENOENT : 0;
}

static void p_close(void *ctx, link_t link, const char *reason)
{
	(void)ctx;
	check(link == f.pl && reason);
	f.pl = 0;
}

static void get_history(void *ctx, struct history *ret)
{
	*ret = (struct history){ .count = 2, .last = ctx ? f.applied : f.last };
	ret->at[0] = (struct history_entry){ 1, 1, 1, { 1 } };
	ret->at[1] = (struct history_entry){ 2, 5, 2, { 1 } };
}

static int p_run(void *ctx, const struct primary_run *run)
{
	(void)ctx;
	check(run->client != 0 && run->request >= run->low && run->request - run->low < MSG_WINDOW);
	if (f.run_count == ARRAY_LEN(f.runs))
		return -EAGAIN;
	f.runs[f.run_count].client = run->client;
	f.runs[f.run_count].request = run->request;
	f.runs[f.run_count++].token = run->token;
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
	(void)h;
	check(link == f.pl);
	return f.full ? -EBUSY : 0;
}

static int any_diff_frame(void *ctx, link_t link, unsigned type, const uint8_t *bytes, uint32_t len)
{
	(void)ctx;
	(void)link;
	check(msg_is_diff(type));
	return len > 0 && bytes[0] == 9 ? -EAGAIN : 0;
}

static void diff_stop(void *ctx, link_t link)
{
	(void)ctx;
	(void)link;
}

#define LIMIT_TAG 0x01010101u           /* bytes that an input may well have */

static void p_here(void *ctx, const struct primary_run *who, const uint8_t *locks, uint32_t len)
{
	(void)ctx;
	check(who->client != 0 && who->low != 0 && (locks || len == 0 || len <= MSG_LOCKS_MAX));
	/* Whoever may change only a part says so with its number. */
	check(!who->tree || who->client >> 32 == LIMIT_TAG);
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
	return 0;
}

static void p_held(void *ctx, uint64_t ino, bool held)
{
	(void)ctx;
	(void)held;
	check(ino != 0);
}

static void number(void *ctx, uint64_t n)
{
	(void)ctx;
	(void)n;
}

static void p_park(void *ctx, bool park)
{
	(void)ctx;
	(void)park;
}

static void p_hand(void *ctx, uint64_t next, seq_t seq)
{
	(void)ctx;
	(void)seq;
	f.hand = next;
}

static void p_handed(void *ctx, const uint8_t store[16], const char *name)
{
	(void)ctx;
	(void)store;
	check(strlen(name) <= MSG_NAME_MAX);
}

static void p_note(void *ctx, link_t link, const char *text)
{
	(void)ctx;
	(void)link;
	check(strlen(text) <= MSG_TEXT_MAX);
}

static void waited(void *ctx, uint64_t cookie, int error)
{
	(void)ctx;
	(void)cookie;
	(void)error;
}

static const struct primary_ops p_ops = {
	p_send, p_change, p_close, get_history, p_run, p_cancel, p_diff_start, any_diff_frame, diff_stop, p_here, p_left, p_expired,
	p_held, number, p_park, p_hand, p_handed, number, p_note, waited,
};

static int r_send(void *ctx, link_t link, unsigned type, const void *head, uint32_t head_len, const void *body, uint32_t body_len)
{
	(void)ctx;
	check(link != 0 && link == f.rl);
	(void)send_any(type, body, body_len);
	return send_any(type, head, head_len);
}

static void r_close(void *ctx, link_t link, const char *reason)
{
	(void)ctx;
	check(link == f.rl && reason);
	f.rl = 0;
}

static int r_apply(void *ctx, const struct msg_change *c)
{
	(void)ctx;
	check(c->seq == f.applied + 1);
	if (f.full)
		return -EAGAIN;
	f.applied = c->seq;
	return 0;
}

static void r_promise(void *ctx, uint64_t epoch)
{
	(void)ctx;
	f.promise = epoch;
}

static int r_welcome(void *ctx, const struct msg_welcome *w)
{
	(void)ctx;
	check(w->epoch != 0 && w->seq <= f.applied);
	return 0;
}

static void r_aside(void *ctx, uint64_t epoch, seq_t last, seq_t common)
{
	(void)ctx;
	(void)epoch;
	check(common < last);
	f.aside = true;
}

static int r_diff_start(void *ctx, link_t link, const struct msg_welcome *w)
{
	(void)ctx;
	(void)w;
	check(link == f.rl);
	return 0;
}

static uint32_t r_locks(void *ctx, uint8_t *buf, uint32_t max)
{
	(void)ctx;
	memset(buf, 7, max < 9 ? max : 9);
	return max < 9 ? max : 9;
}

static void r_answer(void *ctx, uint64_t cookie, const struct replica_answer *a)
{
	(void)ctx;
	(void)cookie;
	check(f.waiting > 0 && a->error <= 0);
	f.waiting--;
}

static void r_lock(void *ctx, const struct msg_lock *m)
{
	(void)ctx;
	check(m->client == 5 && m->error <= 0 && m->start <= m->end && m->ino != 0);
}

static void r_forwarded(void *ctx, uint64_t client, uint64_t session, uint64_t request, uint64_t token,
			const struct replica_answer *a)
{
	(void)ctx;
	(void)client;
	(void)session;
	(void)request;
	(void)token;
	check(a->error <= 0);
}

static void r_run(void *ctx, uint64_t client, uint64_t request, uint64_t low, const uint8_t *bytes, uint32_t len)
{
	(void)ctx;
	(void)bytes;
	(void)len;
	check(client != 0 && low <= request);
}

static void r_lead(void *ctx, uint64_t epoch)
{
	(void)ctx;
	f.lead = epoch;
}

static void r_text(void *ctx, const char *text)
{
	(void)ctx;
	check(strlen(text) <= MSG_TEXT_MAX);
}

static const struct replica_ops r_ops = {
	r_send, r_close, get_history, r_apply, r_promise, r_welcome, r_aside, r_diff_start, any_diff_frame, diff_stop, r_locks,
	r_answer, r_forwarded, r_run, r_lead, r_text, NULL, r_text, r_lock,
};

/* A right message, of numbers that the input gives. */
static void make(struct input *in, unsigned type, struct wire_writer *w)
{
	static const uint8_t ids[24] = { 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3 };
	struct msg_hello h = { .version = 1, .version_min = 1, .name = ids, .name_len = 2, .holds = ids, .hold_count = u8(in) % 4,
			       .locks = ids, .locks_len = 3 };
	struct msg_welcome v = { .version = 1, .decision = u8(in) % 5, .code = u8(in) % 9, .text = ids, .text_len = 3, .name = ids,
				 .name_len = 1 };
	uint64_t a = value(in), b = value(in), c = value(in), d = value(in), e = value(in);

	memset(h.cluster, 1, 16);
	memset(v.cluster, 1, 16);
	switch (type) {
	case MSG_HELLO:
		h.store[0] = (uint8_t)(a % 4);
		h.flags = (uint32_t)b;
		h.client = c;
		h.session = d;
		h.low = e;
		h.epoch = h.promised = 2;
		get_history(NULL, &h.history);
		h.history.last = 5 + u8(in) % 20;
		h.durable = u8(in) % 8;
		msg_put_hello(w, &h);
		break;
	case MSG_WELCOME:
		v.epoch = a;
		v.promised = b;
		v.seq = c;
		v.last = d;
		v.durable = e;
		msg_put_welcome(w, &v);
		break;
	case MSG_CHANGE:
		msg_put_change(w, &(struct msg_change){ a, b, u8(in) % 4 ? f.applied + 1 : c, d, e, ids, 24 });
		break;
	case MSG_POSITION:
		msg_put_position(w, &(struct msg_position){ a, b, c, d, e, u8(in) });
		break;
	case MSG_ACK:
		msg_put_ack(w, &(struct msg_ack){ a, b, c, d, e, u8(in) });
		break;
	case MSG_CALL:
		msg_put_call(w, &(struct msg_call){ a, b, c, d, e, ids, u8(in) % 24, u8(in) });
		break;
	case MSG_RESULT:
		msg_put_result(w, &(struct msg_result){ a, b, c, d, -(int32_t)u8(in), u8(in), e, 1, u8(in) % 8 });
		break;
	case MSG_CANCEL:
		msg_put_cancel(w, &(struct msg_cancel){ a, b, c, d });
		break;
	case MSG_HOLD:
	case MSG_RELEASE:
		msg_put_holds(w, &(struct msg_holds){ a, ids, u8(in) % 4 });
		break;
	case MSG_CLIENT:
		msg_put_client(w, &(struct msg_client){ a, b, c, d, (uint32_t)e, ids, u8(in) % 24 });
		break;
	case MSG_PROMOTE:
		msg_put_promote(w, &(struct msg_promote){ a, b, c });
		break;
	case MSG_FENCED:
		msg_put_fenced(w, &(struct msg_fenced){ a, ids, 3 });
		break;
	case MSG_LOCK:
		msg_put_lock(w, &(struct msg_lock){ .epoch = a, .client = b, .round = c, .ticket = d, .error = -(int32_t)u8(in),
						    .flags = d == 0, .kind = 1 + u8(in) % 2, .type = u8(in) % 3, .ino = 1,
						    .end = e, .seq = e });
		break;
	default:
		wire_put_fixed(w, ids, u8(in) % 24);
	}
}

static void give_frame(struct input *in, uint64_t now)
{
	bool to_primary = u8(in) & 1;
	unsigned type = MSG_HELLO + u8(in) % 16, flips, i;
	uint8_t buf[2048], *exact;
	struct wire_writer w = wire_writer(buf, sizeof buf);
	size_t len;
	int r;

	if (type > MSG_LOCK)
		type = type == MSG_LOCK + 1 ? MSG_DIFF + u8(in) % 64 : 0x1ff;
	make(in, type, &w);
	len = wire_used(&w);
	flips = u8(in) % 4;
	for (i = 0; i < flips && len > 0; i++) {
		uint8_t b = u8(in);
		size_t at = (size_t)u8(in) << 8;

		at |= u8(in);
		buf[at % len] = b;
	}
	if (u8(in) % 16 == 0)
		len -= u8(in) % (len + 1);
	/* Of just its size, so that a sanitizer sees reads behind it. */
	exact = malloc(len > 0 ? len : 1);
	if (!exact)
		return;
	memcpy(exact, buf, len);
	if (to_primary && f.pl != 0) {
		r = primary_frame(f.p, f.pl, type, exact, (uint32_t)len, now);
		if (r < 0 && r != -EAGAIN && r != -EOPNOTSUPP && f.pl != 0) {
			link_t l = f.pl;

			check(err_last()[0] != 0);
			f.pl = 0;
			primary_closed(f.p, l, now);
		}
	} else if (!to_primary && f.rl != 0) {
		r = replica_frame(f.r, f.rl, type, exact, (uint32_t)len, now);
		if (r < 0 && r != -EAGAIN && r != -EOPNOTSUPP && f.rl != 0) {
			link_t l = f.rl;

			f.rl = 0;
			replica_closed(f.r, l, now);
		}
	}
	free(exact);
}

static void give_result(struct input *in, uint64_t now)
{
	unsigned i;

	if (f.run_count == 0)
		return;
	i = u8(in) % f.run_count;
	primary_result(f.p, f.runs[i].client, f.runs[i].request, f.runs[i].token,
		       &(struct primary_result){ .error = u8(in) & 1 ? -EEXIST : 0, .sync = u8(in) & 1, .seq = f.last, .number = 1,
						  .counted = u8(in) & 1, .replicas = u8(in), .wait_ms = u8(in) }, now);
	f.runs[i] = f.runs[--f.run_count];
}

static void reach_disk(uint64_t now)
{
	if (f.promise) {
		replica_promised(f.r, f.promise);
		f.promise = 0;
	} else if (f.aside) {
		f.aside = false;
		replica_aside_done(f.r, 0, now);
	} else if (f.lead) {
		uint64_t epoch = f.lead;

		f.lead = 0;
		replica_led(f.r, epoch, ++f.applied, now);
		(void)replica_follow(f.r, epoch, now);
		replica_promised(f.r, epoch);
	} else if (f.hand) {
		f.hand = 0;
		primary_handed(f.p, now);
		primary_lead(f.p, 2, 2, f.last, f.last, now);
	}
}

/* How it is with the key. */
static void opened(link_t link, unsigned how, uint64_t now)
{
	if (primary_opened(f.p, link, how & PRIMARY_PEER_READ_ONLY, now) < 0)
		return;
	if (how & 6)
		primary_limit(f.p, link, how & 2 ? "/t" : NULL, LIMIT_TAG);
	f.pl = link;
}

static void other(struct input *in, link_t *next, uint64_t now)
{
	static const uint8_t store[16] = { 1 };
	const struct replica_call c = { .cookie = 1, .object = u8(in) % 4, .flags = u8(in) & 3, .bytes = store, .len = u8(in) % 16 };
	const struct primary_run run = { u8(in), 1, 9, u8(in) % 4, 1 + u8(in) % 8, 1, store, 4, NULL };
	unsigned n;

	switch (u8(in) % 15) {
	case 0:
		if (f.pl == 0)
			opened((*next)++, u8(in), now);
		break;
	case 1:
		if (f.rl == 0) {
			f.rl = (*next)++;
			if (replica_opened(f.r, f.rl, now) < 0)
				f.rl = 0;
		}
		break;
	case 2:
		f.full = !f.full;
		if (!f.full) {
			primary_writable(f.p, f.pl);
			replica_writable(f.r, f.rl);
		}
		break;
	case 3:
		give_result(in, now);
		break;
	case 4:
		reach_disk(now);
		break;
	case 5:
		f.last++;
		primary_committed(f.p, f.last, f.last * 10, now);
		primary_durable(f.p, f.last - u8(in) % 2);
		break;
	case 6:
		f.waiting++;
		if (replica_call(f.r, &c, now) < 0)
			f.waiting--;
		break;
	case 7:
		n = 1 + u8(in) % 4;
		replica_hold(f.r, n, u8(in) & 1);
		break;
	case 8:
		n = 1 + u8(in) % 4;
		replica_release(f.r, n, u8(in) & 1);
		break;
	case 9:
		(void)primary_switch(f.p, store, now);
		break;
	case 10:
		n = u8(in) % 4;
		replica_client(f.r, 9, n, 1, u8(in) % 4 == 0, store, 3);
		(void)replica_forward(f.r, &run, now);
		break;
	case 11:
		replica_diff_done(f.r, 2, f.applied, now);
		break;
	case 12:
		(void)replica_promote(f.r, now);
		break;
	case 13:
		primary_lock(f.p, &(struct msg_lock){ .client = u8(in) % 10, .ticket = 1, .kind = 1, .ino = 1 });
		break;
	default:
		primary_tick(f.p, now);
		replica_tick(f.r, now);
		(void)primary_mark_limit(f.p, now);
		(void)primary_holds(f.p, 1);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };
	struct primary_options po = { .cluster = { 1 }, .store = { 8 }, .hash_seed = 7, .lease_ms = 40, .sync_replicas = size % 3,
				      .sync_wait_ms = 50, .switch_wait_ms = 100 };
	struct replica_options ro = { .store = { 2 }, .client = 5, .wait_ms = 100, .flags = HELLO_FEEDS };
	link_t next = 1;
	uint64_t now = 0;

	memset(&f, 0, sizeof f);
	memset(po.cluster, 1, 16);
	memset(ro.cluster, 1, 16);
	f.applied = 8;
	f.last = 10;
	f.p = primary_new(&po, &p_ops, NULL);
	f.r = replica_new(&ro, &r_ops, &f, 2, 8, 6, 2);
	if (f.p && f.r) {
		primary_lead(f.p, 2, 2, 10, 10, 0);
		while (in.p < in.end) {
			now += u8(&in) % 32;
			if (u8(&in) % 4 == 0)
				other(&in, &next, now);
			else
				give_frame(&in, now);
			if (primary_state(f.p) == PRIMARY_OFF)
				primary_lead(f.p, 2, 2, f.last, f.last, now);
			(void)primary_pump(f.p, now);
			(void)replica_pump(f.r, now);
		}
	}
	primary_free(f.p);
	replica_free(f.r);
	check(f.waiting == 0);
	return 0;
}
