/* SPDX-License-Identifier: MIT
 *
 * replica: the link, the stream, acknowledgements and holds, promotion. See replica.h for the invariants.
 */
#include "core/replica/replica_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t since(uint64_t now, uint64_t then)
{
	return now > then ? now - then : 0;
}

struct replica *replica_new(const struct replica_options *o, const struct replica_ops *ops, void *ctx, uint64_t epoch,
			    seq_t last, seq_t durable, uint64_t promised)
{
	struct replica *r = calloc(1, sizeof *r);

	if (!r)
		return NULL;
	r->o = *o;
	(void)snprintf(r->name, sizeof r->name, "%s", o->name ? o->name : "");
	r->o.name = r->name;
	if (r->o.version == 0)
		r->o.version = MSG_VERSION;
	r->ops = ops;
	r->ctx = ctx;
	r->epoch = epoch;
	r->applied = last;
	r->durable = durable;
	r->committed = o->committed;
	r->fresh_at = o->fresh_at;
	r->promised = max_u64(promised, epoch);
	r->tree_applied = r->tree_durable = UINT64_MAX;
	r->tree_count = 1;
	r->keep_ms = 1000;
	rcall_init(r);
	return r;
}

void replica_free(struct replica *r)
{
	if (!r)
		return;
	rcall_release(r);
	idset_release(&r->own_holds);
	idset_release(&r->fed_holds);
	free(r);
}

void replica_note(struct replica *r, const char *format, ...)
{
	char text[MSG_TEXT_MAX + 1];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	r->ops->note(r->ctx, text);
}

void replica_set_flags(struct replica *r, uint32_t flags)
{
	r->o.flags = flags;
}

/* The link --------------------------------------------------------------------------------------------------------- */

static void left(struct replica *r)
{
	if (r->state == REPLICA_DIFF)
		r->ops->diff_stop(r->ctx, r->link);
	r->link = 0;
	if (r->state != REPLICA_LEADING && r->state != REPLICA_LEADS)
		r->state = REPLICA_DOWN;
	rcall_unsend(r);
	r->news_count = 0;
	r->blocked = false;
	r->mark_seq = 0;
	r->again = false;
}

/* End the link from our side. */
static void cut(struct replica *r, const char *reason)
{
	link_t link = r->link;

	if (link == 0)
		return;
	left(r);
	r->ops->close(r->ctx, link, reason);
}

void replica_closed(struct replica *r, link_t link, uint64_t now)
{
	replica_advance(r, now);
	if (link != 0 && link == r->link)
		left(r);
}

void replica_writable(struct replica *r, link_t link)
{
	if (link == r->link)
		r->blocked = false;
}

static int send_small(struct replica *r, unsigned type, const struct wire_writer *w)
{
	int e;

	check(!w->full);
	e = r->ops->send(r->ctx, r->link, type, w->start, (uint32_t)wire_used(w), NULL, 0);
	if (e < 0)
		r->blocked = true;
	return e;
}

static void send_fenced(struct replica *r, const char *text)
{
	const struct msg_fenced m = { r->promised, (const uint8_t *)text, (uint32_t)strlen(text) };
	uint8_t buf[256];
	struct wire_writer w = wire_writer(buf, sizeof buf);

	msg_put_fenced(&w, &m);
	(void)send_small(r, MSG_FENCED, &w);
}

static bool holds(const struct replica *r, uint64_t ino)
{
	return idset_has(&r->own_holds, ino) || idset_has(&r->fed_holds, ino);
}

/* All inodes that are held, as many as a message takes. */
static uint32_t list_holds(struct replica *r, uint8_t *to)
{
	const struct idset *sets[] = { &r->own_holds, &r->fed_holds };
	uint32_t n = 0;
	unsigned i;

	r->told_more = r->holds_more || r->hold_all;
	for (i = 0; i < ARRAY_LEN(sets); i++) {
		uint32_t pos = 0;
		uint64_t ino;

		while ((ino = idset_next(sets[i], &pos)) != 0) {
			if (i > 0 && idset_has(&r->own_holds, ino))
				continue;
			if (n == MSG_HOLDS_MAX) {
				r->told_more = true;
				return n;
			}
			put_le64(to + 8 * (size_t)n++, ino);
		}
	}
	return n;
}

static void fill_hello(struct replica *r, struct msg_hello *h)
{
	*h = (struct msg_hello){
		.version = r->o.version, .version_min = MSG_VERSION_MIN,
		.flags = r->o.flags | (r->again ? HELLO_AGAIN : 0) | (r->told_more ? HELLO_HOLDS_MORE : 0) |
			 (r->unfit ? HELLO_INCOMPLETE : 0),
		.features = r->o.features, .required = r->o.required,
		.client = r->o.client, .session = r->session, .low = rcall_low(r),
		.epoch = r->epoch, .promised = r->promised, .durable = r->durable,
		.name = (const uint8_t *)r->name, .name_len = (uint32_t)strlen(r->name),
	};
	memcpy(h->cluster, r->o.cluster, 16);
	memcpy(h->store, r->o.store, 16);
	r->ops->history(r->ctx, &h->history);
	h->committed = min_u64(r->committed, h->history.last);
}

/* A hello's longest parts are the locks and the holds. Without memory for it the link is of no use. */
static int send_hello(struct replica *r)
{
	size_t size = 1024 + MSG_HISTORY_MAX * 40 + MSG_NAME_MAX + 8 * MSG_HOLDS_MAX + MSG_LOCKS_MAX;
	uint8_t *buf = malloc(size), *ids = malloc(8 * MSG_HOLDS_MAX), *locks = malloc(MSG_LOCKS_MAX);
	struct wire_writer w = wire_writer(buf, size);
	struct msg_hello h;
	int e = -ENOMEM;

	if (buf && ids && locks) {
		uint32_t count = list_holds(r, ids);

		fill_hello(r, &h);
		h.holds = ids;
		h.hold_count = count;
		h.locks = locks;
		h.locks_len = r->ops->locks(r->ctx, locks, MSG_LOCKS_MAX);
		msg_put_hello(&w, &h);
		e = send_small(r, MSG_HELLO, &w);
	}
	free(buf);
	free(ids);
	free(locks);
	if (e < 0)
		return e;
	r->state = REPLICA_HELLO;
	r->news_count = 0;
	return 0;
}

int replica_opened(struct replica *r, link_t link, uint64_t now)
{
	int e;

	replica_advance(r, now);
	if (r->state == REPLICA_LEADING || r->state == REPLICA_LEADS)
		return err_set(EBUSY, "this is the primary");
	if (r->link != 0)
		cut(r, "another link");
	r->link = link;
	r->session++;
	rcall_unsend(r);
	r->again = false;
	e = send_hello(r);
	if (e < 0) {
		left(r);
		return err_set(-e, "no hello could be sent");
	}
	return 0;
}

/* The same link again, from where we are now. */
static void hello_again(struct replica *r)
{
	r->again = true;
	if (send_hello(r) < 0)
		cut(r, "no hello could be sent");
}

void replica_restate(struct replica *r, uint64_t now)
{
	replica_advance(r, now);
	if (r->state == REPLICA_STREAM)
		hello_again(r);
}

/* Epochs ----------------------------------------------------------------------------------------------------------- */

/* (R1) 0: obey it. */
static int right_epoch(struct replica *r, uint64_t epoch)
{
	if (epoch < r->promised) {
		send_fenced(r, "a higher epoch was promised here");
		return err_set(ESTALE, "its epoch %llx is over, %llx was promised here", (unsigned long long)epoch,
			       (unsigned long long)r->promised);
	}
	if (epoch > r->promised) {
		/* Nothing of it is obeyed before the promise is on disk; the frame comes again. */
		if (r->promising < epoch) {
			r->promising = epoch;
			r->ops->promise(r->ctx, epoch);
		}
		return -EAGAIN;
	}
	return 0;
}

void replica_promised(struct replica *r, uint64_t epoch)
{
	r->promised = max_u64(r->promised, epoch);
}

/* As right_epoch(), of a message behind the welcome. */
static int right_stream(struct replica *r, uint64_t epoch)
{
	int e;

	if (r->state == REPLICA_HELLO && !r->again)
		return err_set(EPROTO, "a message before the welcome");
	e = right_epoch(r, epoch);
	if (e < 0)
		return e;
	/* A link has one epoch, that of its welcome. */
	if (epoch != r->link_epoch)
		return err_set(EPROTO, "a message of epoch %llx on a link of epoch %llx", (unsigned long long)epoch,
			       (unsigned long long)r->link_epoch);
	return 0;
}

/* Welcome ---------------------------------------------------------------------------------------------------------- */

static int refused(struct replica *r, const struct msg_welcome *w)
{
	char text[MSG_TEXT_MAX + 1], name[MSG_NAME_MAX + 1];

	wire_text(text, sizeof text, w->text, w->text_len);
	wire_text(name, sizeof name, w->name, w->name_len);
	if (w->code == REFUSED_NOT_PRIMARY && name[0])
		r->ops->elsewhere(r->ctx, name);
	return err_set(ECONNREFUSED, "refused: %s", text);
}

static void to_diff(struct replica *r)
{
	if (r->ops->diff_start(r->ctx, r->link, &r->welcome) < 0) {
		cut(r, "no diff can be made now");
		return;
	}
	r->state = REPLICA_DIFF;
}

static void to_aside(struct replica *r)
{
	/* (R6) What was written here behind it is not in the cluster's line. */
	rcall_lost(r, r->welcome.seq);
	if (r->aside_done && r->aside_epoch == r->epoch && r->aside_last == r->applied) {
		to_diff(r);
		return;
	}
	replica_note(r, "diverged: %llu changes behind %llu are not in the primary's line, they are put aside",
		     (unsigned long long)(r->applied - r->welcome.seq), (unsigned long long)r->welcome.seq);
	r->state = REPLICA_ASIDE;
	if (r->aside_epoch == r->epoch && r->aside_last == r->applied)
		return;         /* it is under way since an earlier link */
	r->aside_epoch = r->epoch;
	r->aside_last = r->applied;
	r->aside_done = false;
	r->ops->aside(r->ctx, r->epoch, r->applied, r->welcome.seq);
}

void replica_aside_done(struct replica *r, int result, uint64_t now)
{
	replica_advance(r, now);
	if (result < 0) {
		r->aside_epoch = r->aside_last = 0;
		if (r->state == REPLICA_ASIDE)
			cut(r, "what diverged could not be put aside");
		return;
	}
	r->aside_done = true;
	if (r->state == REPLICA_ASIDE)
		to_diff(r);
}

static bool is_in_path(const struct replica *r, const uint8_t store[16])
{
	uint32_t i;

	for (i = 0; i < r->path_count; i++)
		if (memcmp(r->path[i], store, 16) == 0)
			return true;
	return false;
}

/* Whom we ask follows others, as far as it knows. In a circle that goes on for ever: up to ourselves, or to whom we had. */
static void take_path(struct replica *r, const struct msg_welcome *w)
{
	uint32_t i;

	memcpy(r->path[0], w->store, 16);
	r->path_count = 1;
	for (i = 0; i < w->path_count && r->path_count < MSG_PATH_MAX; i++) {
		const uint8_t *store = w->path + 16 * (size_t)i;

		if (memcmp(store, r->o.store, 16) == 0 || is_in_path(r, store))
			return;
		memcpy(r->path[r->path_count++], store, 16);
	}
}

static int on_welcome(struct replica *r, const uint8_t *bytes, uint32_t len)
{
	struct msg_welcome w;
	int e = msg_get_welcome(bytes, len, &w);

	if (e < 0)
		return e;
	take_path(r, &w);
	r->refused = w.decision == WELCOME_REFUSED ? w.code : REFUSED_NONE;
	if (w.decision == WELCOME_REFUSED)
		return refused(r, &w);
	if (r->state != REPLICA_HELLO && (r->state != REPLICA_STREAM || w.decision != WELCOME_DIFF))
		return err_set(EPROTO, "a welcome that nobody asked for");
	if (w.version < MSG_VERSION_MIN || (r->o.required & ~w.features) != 0)
		return err_set(EPROTONOSUPPORT, "it speaks version %u, features %llx", w.version,
			       (unsigned long long)w.features);
	if (!is_zero(r->o.cluster, 16) && memcmp(r->o.cluster, w.cluster, 16) != 0)
		return err_set(EPROTO, "it is of another cluster");
	e = right_epoch(r, w.epoch);
	if (e < 0)
		return e;
	if (w.seq > r->applied || (w.decision == WELCOME_STREAM && w.seq != r->applied) ||
	    (w.decision == WELCOME_ASIDE && w.seq == r->applied))
		return err_set(EPROTO, "a welcome at %llu, this store is at %llu", (unsigned long long)w.seq,
			       (unsigned long long)r->applied);
	if (w.decision == WELCOME_ASIDE && r->committed > w.seq)
		return err_set(EPROTO, "told to forget what is known to be committed: %llu, common are %llu",
			       (unsigned long long)r->committed, (unsigned long long)w.seq);
	e = r->ops->welcome(r->ctx, &w);
	if (e < 0)
		return e;
	memcpy(r->o.cluster, w.cluster, 16);
	r->welcome = w;
	r->welcome.text = r->welcome.name = r->welcome.path = NULL;
	r->welcome.text_len = r->welcome.name_len = r->welcome.path_count = 0;
	r->features = w.features & r->o.features;
	r->link_epoch = w.epoch;
	r->primary_last = w.last;
	r->primary_durable = w.durable;
	r->keep_ms = w.keep_ms > 0 ? w.keep_ms : 1000;
	r->again = false;
	if (w.decision == WELCOME_DIFF) {
		to_diff(r);
	} else if (w.decision == WELCOME_ASIDE) {
		to_aside(r);
	} else {
		r->state = REPLICA_STREAM;
		r->ack_due = true;
		rcall_settle(r);        /* after a diff */
	}
	return 0;
}

void replica_diff_done(struct replica *r, uint64_t epoch, seq_t seq, uint64_t now)
{
	replica_advance(r, now);
	r->epoch = epoch;
	r->applied = r->durable = seq;
	r->aside_epoch = r->aside_last = 0;
	r->o.flags &= ~(HELLO_INCOMPLETE | HELLO_REPLACE);
	r->unfit = false;
	if (r->state != REPLICA_DIFF)
		return;
	hello_again(r);
}

void replica_diff_failed(struct replica *r, const char *reason, uint64_t now)
{
	replica_advance(r, now);
	if (r->state == REPLICA_DIFF)
		cut(r, reason);
}

/* The stream ------------------------------------------------------------------------------------------------------- */

static void fresh(struct replica *r)
{
	if (r->mark_seq != 0 && r->applied >= r->mark_seq) {
		r->fresh_at = max_u64(r->fresh_at, r->mark_at);
		r->mark_seq = 0;
	}
}

static int on_change(struct replica *r, const uint8_t *bytes, uint32_t len)
{
	struct msg_change m;
	int e = msg_get_change(bytes, len, &m);

	if (e == 0)
		e = right_stream(r, m.epoch);
	if (e < 0)
		return e;
	/* What was under way when we said hello again: it comes again behind the welcome. */
	if (r->state == REPLICA_HELLO)
		return 0;
	/* (R2) */
	if (r->state != REPLICA_STREAM || m.seq != r->applied + 1 || m.change_epoch < r->epoch)
		return err_set(EPROTO, "change %llu of epoch %llx, this store is at %llu of epoch %llx",
			       (unsigned long long)m.seq, (unsigned long long)m.change_epoch,
			       (unsigned long long)r->applied, (unsigned long long)r->epoch);
	e = r->ops->apply(r->ctx, &m);
	/* The same change would come again and again. */
	r->unfit = e == -EPROTO;
	if (e < 0)
		return e;
	r->applied = m.seq;
	r->epoch = m.change_epoch;
	r->primary_last = max_u64(r->primary_last, m.seq);
	r->primary_durable = max_u64(r->primary_durable, m.durable);
	r->committed = max_u64(r->committed, min_u64(m.committed, m.seq));
	r->ack_due = true;
	fresh(r);
	rcall_settle(r);
	return 0;
}

static int on_position(struct replica *r, const uint8_t *bytes, uint32_t len)
{
	struct msg_position m;
	uint64_t at;
	int e = msg_get_position(bytes, len, &m);

	if (e == 0)
		e = right_stream(r, m.epoch);
	if (e < 0 || r->state != REPLICA_STREAM)
		return e;
	r->primary_last = m.last;
	r->primary_durable = m.durable;
	r->primary_bytes = m.last_bytes;
	r->committed = max_u64(r->committed, min_u64(m.committed, r->applied));
	at = r->now > m.stale_ms ? r->now - m.stale_ms : 0;
	if (r->applied >= m.last) {
		r->fresh_at = max_u64(r->fresh_at, at);
	} else if (r->mark_seq == 0) {
		r->mark_seq = m.last;
		r->mark_at = at;
	}
	if (r->ops->news)
		r->ops->news(r->ctx);
	return 0;
}

static int on_result(struct replica *r, const uint8_t *bytes, uint32_t len)
{
	struct msg_result m;
	int e = msg_get_result(bytes, len, &m);

	if (e == 0)
		e = right_stream(r, m.epoch);
	return e < 0 ? e : rcall_on_result(r, &m);
}

static int on_lock(struct replica *r, const uint8_t *bytes, uint32_t len)
{
	struct msg_lock m;
	int e = msg_get_lock(bytes, len, &m);

	if (e == 0)
		e = right_stream(r, m.epoch);
	if (e == 0 && r->ops->lock)
		r->ops->lock(r->ctx, &m);
	return e;
}

static void begin_lead(struct replica *r, uint64_t epoch)
{
	cut(r, "this is the primary now");
	r->state = REPLICA_LEADING;
	r->promising = epoch;
	r->ops->lead(r->ctx, epoch);
}

static int on_promote(struct replica *r, const uint8_t *bytes, uint32_t len)
{
	struct msg_promote m;
	int e = msg_get_promote(bytes, len, &m);

	if (e < 0)
		return e;
	/* Only who has all of the line, on disk, and has heard of nothing newer. In HELLO it is the answer to who asks again. */
	if ((r->state != REPLICA_STREAM && r->state != REPLICA_HELLO) || m.seq != r->applied || m.seq > r->durable ||
	    m.epoch != r->epoch || m.next <= max_u64(r->promised, r->promising) || (r->o.flags & HELLO_INCOMPLETE))
		return err_set(ESTALE, "told to be the primary from %llu of epoch %llx on, this store is at %llu of %llx",
			       (unsigned long long)m.seq, (unsigned long long)m.epoch, (unsigned long long)r->applied,
			       (unsigned long long)r->epoch);
	replica_note(r, "the primary hands over: this is epoch %llx", (unsigned long long)m.next);
	begin_lead(r, m.next);
	return 0;
}

static int on_fenced(struct replica *r, const uint8_t *bytes, uint32_t len)
{
	struct msg_fenced m;
	int e = msg_get_fenced(bytes, len, &m);

	if (e < 0)
		return e;
	return err_set(ESTALE, "the peer is not the primary any more, epoch %llx was promised (here: %llx)",
		       (unsigned long long)m.promised, (unsigned long long)r->promised);
}

int replica_frame(struct replica *r, link_t link, unsigned type, const uint8_t *bytes, uint32_t len, uint64_t now)
{
	replica_advance(r, now);
	if (link != r->link || link == 0)
		return 0;
	switch (type) {
	case MSG_WELCOME:
		return on_welcome(r, bytes, len);
	case MSG_CHANGE:
		return on_change(r, bytes, len);
	case MSG_POSITION:
		return on_position(r, bytes, len);
	case MSG_RESULT:
		return on_result(r, bytes, len);
	case MSG_LOCK:
		return on_lock(r, bytes, len);
	case MSG_PROMOTE:
		return on_promote(r, bytes, len);
	case MSG_FENCED:
		return on_fenced(r, bytes, len);
	case MSG_HELLO:
	case MSG_ACK:
	case MSG_CALL:
	case MSG_CANCEL:
	case MSG_HOLD:
	case MSG_RELEASE:
	case MSG_CLIENT:
		return err_set(EPROTO, "a message of type %x, which only a replica sends", type);
	default:
		if (!msg_is_diff(type))
			return err_set(EOPNOTSUPP, "a message of unknown type %x", type);
		/* The primary has begun, but nothing here may change before it has been put aside. */
		if (r->state == REPLICA_ASIDE)
			return -EAGAIN;
		/* Late ones of a diff that was ended are dropped. */
		return r->state == REPLICA_DIFF ? r->ops->diff_frame(r->ctx, link, type, bytes, len) : 0;
	}
}

/* Holds and acknowledgements --------------------------------------------------------------------------------------- */

static void tell_hold(struct replica *r, uint64_t ino, bool hold)
{
	/* Down, or before the hello that follows a diff: that hello says it. Not so if one is on its way: it is out already. */
	if (r->state != REPLICA_STREAM && r->state != REPLICA_HELLO)
		return;
	if (r->news_count == REPLICA_NEWS_MAX) {
		/* The link takes nothing: a new hello says all. */
		if (r->state == REPLICA_STREAM)
			hello_again(r);
		else
			cut(r, "too many holds before the welcome");
		return;
	}
	r->news[r->news_count++] = (struct hold_news){ ino, hold };
}

void replica_hold(struct replica *r, uint64_t ino, bool fed)
{
	bool before = holds(r, ino);

	if (idset_add(fed ? &r->fed_holds : &r->own_holds, ino) < 0) {
		/* It cannot be noted: then everything is held, until this mount ends. */
		if (!r->holds_more) {
			r->holds_more = true;
			if (r->state == REPLICA_STREAM)
				hello_again(r);
			else if (r->state == REPLICA_HELLO)
				cut(r, "no memory for a hold");
		}
		return;
	}
	if (!before)
		tell_hold(r, ino, true);
}

void replica_release(struct replica *r, uint64_t ino, bool fed)
{
	if (idset_remove(fed ? &r->fed_holds : &r->own_holds, ino) && !holds(r, ino))
		tell_hold(r, ino, false);
}

void replica_hold_all(struct replica *r, bool all)
{
	r->hold_all = all;
}

void replica_hold_none(struct replica *r)
{
	idset_release(&r->own_holds);
	idset_release(&r->fed_holds);
	r->own_holds = r->fed_holds = (struct idset){ 0 };
	r->hold_all = r->holds_more = false;
	r->news_count = 0;
	r->tree_applied = r->tree_durable = UINT64_MAX;
	r->tree_count = 1;
}

/* In the order in which they came; runs of the same kind in one message. */
static int send_news(struct replica *r)
{
	unsigned done = 0;
	int e = 0;

	while (done < r->news_count) {
		uint8_t ids[8 * 64], buf[sizeof ids + 32];
		struct wire_writer w = wire_writer(buf, sizeof buf);
		struct msg_holds m = { r->link_epoch, ids, 0 };
		bool hold = r->news[done].hold;
		unsigned i = done;

		while (i < r->news_count && r->news[i].hold == hold && m.count < 64)
			put_le64(ids + 8 * (size_t)m.count++, r->news[i++].ino);
		msg_put_holds(&w, &m);
		e = send_small(r, hold ? MSG_HOLD : MSG_RELEASE, &w);
		if (e < 0)
			break;
		done = i;
	}
	r->news_count -= done;
	memmove(r->news, r->news + done, r->news_count * sizeof r->news[0]);
	return e;
}

static int send_ack(struct replica *r)
{
	const struct msg_ack m = { r->link_epoch, r->applied, min_u64(r->durable, r->applied),
				   min_u64(r->applied, r->tree_applied),
				   min_u64(min_u64(r->durable, r->applied), r->tree_durable), r->tree_count };
	uint8_t buf[64];
	struct wire_writer w = wire_writer(buf, sizeof buf);
	int e;

	msg_put_ack(&w, &m);
	e = send_small(r, MSG_ACK, &w);
	if (e == 0) {
		r->ack_due = false;
		r->ack_at = r->now;
	}
	return e;
}

void replica_durable(struct replica *r, seq_t durable)
{
	if (durable > r->durable) {
		r->durable = durable;
		r->ack_due = true;
	}
}

void replica_tree(struct replica *r, seq_t applied, seq_t durable, uint32_t count)
{
	if (r->tree_applied != applied || r->tree_durable != durable || r->tree_count != count)
		r->ack_due = true;
	r->tree_applied = applied;
	r->tree_durable = durable;
	r->tree_count = count;
}

bool replica_pump(struct replica *r, uint64_t now)
{
	int e;

	replica_advance(r, now);
	if (r->state == REPLICA_LEADS) {
		(void)rcall_send_due(r);
		return false;
	}
	if (r->link == 0 || r->blocked || r->state == REPLICA_HELLO || r->state == REPLICA_DOWN)
		return false;
	/* Who is fed before its calls; (R5) holds before the acknowledgement. */
	e = rclient_announce(r);
	if (e == 0)
		e = rcall_send_due(r);
	if (e < 0) {
		/* Without memory it is tried again at the next turn; else writable() or the end of the link will come. */
		r->blocked = e != -ENOMEM;
		return false;
	}
	if (r->state == REPLICA_STREAM && send_news(r) == 0 && r->ack_due)
		(void)send_ack(r);
	return false;
}

void replica_tick(struct replica *r, uint64_t now)
{
	replica_advance(r, now);
	if (since(now, r->ack_at) >= r->keep_ms || now < r->ack_at)
		r->ack_due = true;
	rcall_expire(r);
	/* They can be named again: the primary need not hold back any longer. */
	if (r->state == REPLICA_STREAM && r->told_more && !r->holds_more && !r->hold_all &&
	    r->own_holds.count + r->fed_holds.count <= MSG_HOLDS_MAX / 2)
		hello_again(r);
}

/* Roles ------------------------------------------------------------------------------------------------------------ */

int replica_promote(struct replica *r, uint64_t now)
{
	uint64_t epoch = epoch_next_term(max_u64(max_u64(r->promised, r->promising), r->epoch));

	replica_advance(r, now);
	if (r->state == REPLICA_LEADING || r->state == REPLICA_LEADS)
		return err_set(EBUSY, "this is the primary");
	if (r->state == REPLICA_DIFF || r->state == REPLICA_ASIDE)
		return err_set(EBUSY, "its state is being made that of the primary");
	if ((r->o.flags & HELLO_INCOMPLETE) || r->applied == 0 || is_zero(r->o.cluster, 16))
		return err_set(EBUSY, "it has never had a whole state of a primary");
	replica_note(r, "promoted by hand: this is epoch %llx", (unsigned long long)epoch);
	begin_lead(r, epoch);
	return 0;
}

void replica_led(struct replica *r, uint64_t epoch, seq_t last, uint64_t now)
{
	replica_advance(r, now);
	check(r->state == REPLICA_LEADING);
	replica_start_leading(r, epoch, last);
}

void replica_start_leading(struct replica *r, uint64_t epoch, seq_t last)
{
	r->state = REPLICA_LEADS;
	replica_committed(r, epoch, last);
	r->promised = max_u64(r->promised, epoch);
	rcall_unsend(r);
}

void replica_committed(struct replica *r, uint64_t epoch, seq_t last)
{
	r->epoch = epoch;
	r->applied = max_u64(r->applied, last);
}

int replica_follow(struct replica *r, uint64_t promised, uint64_t now)
{
	replica_advance(r, now);
	/* Nothing of it is obeyed before it is on disk, but a promotion from now on goes beyond it. */
	r->promising = max_u64(r->promising, promised);
	if (r->state == REPLICA_LEADING)
		return err_set(EBUSY, "a promotion is under way");
	if (r->state == REPLICA_LEADS) {
		r->state = REPLICA_DOWN;
		rcall_unsend(r);
	}
	return 0;
}

/* Questions -------------------------------------------------------------------------------------------------------- */

uint32_t replica_path(const struct replica *r, uint8_t *ret_stores)
{
	memcpy(ret_stores, r->path, (size_t)r->path_count * 16);
	return r->path_count;
}

uint64_t replica_stale_ms(const struct replica *r, uint64_t now)
{
	return r->state == REPLICA_LEADS ? 0 : since(now, r->fresh_at);
}

int replica_may_read(const struct replica *r, uint64_t now)
{
	if (r->o.max_stale_ms == 0 || replica_stale_ms(r, now) <= r->o.max_stale_ms)
		return 0;
	return -ESTALE;
}

void replica_status(const struct replica *r, uint64_t now, struct replica_status *ret)
{
	*ret = (struct replica_status){
		.state = r->state, .link = r->link, .epoch = r->epoch, .promised = r->promised, .link_epoch = r->link_epoch,
		.client = r->o.client, .session = r->session, .applied = r->applied, .durable = r->durable,
		.primary_last = r->primary_last, .primary_durable = r->primary_durable,
		.stale_ms = replica_stale_ms(r, now), .refused = r->refused, .open_calls = r->calls.count + r->queue.count,
		.holds = r->own_holds.count + r->fed_holds.count,
		.primary_bytes = r->primary_bytes,
		.features = r->features,
	};
}
