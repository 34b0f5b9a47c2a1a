/* SPDX-License-Identifier: MIT
 *
 * net_link: one link: its states, frames in, frames out, and its end. Net thread only.
 *
 * epoll is edge-triggered: `readable` and `writable` are set by an edge and cleared only when the socket said EAGAIN, so
 * a link that stopped for another reason (its share of the turn is used up, it is paused) goes on from there.
 */
#include "core/replica/net_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define ONE_KEY "one side uses a key and the other does not: give --key-file to both"
#define IN_MIN 4096u            /* the least that is allocated for the beginning of a frame */

static void link_tick(struct net *net, struct timer *t);

/* Frames may be taken from it and given to it. */
static bool link_live(const struct link *c)
{
	enum net_state s = link_state(c);

	return (s == NET_HELLO || s == NET_OPEN) && !atomic_load_explicit(&c->closing, memory_order_relaxed);
}

static bool link_paused(const struct link *c)
{
	return atomic_load_explicit(&c->paused, memory_order_relaxed);
}

/* Made and freed ---------------------------------------------------------------------------------------------------- */

struct link *link_new(struct net *net)
{
	struct link *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->src = (struct source){ SOURCE_LINK, -1 };
	c->net = net;
	c->timer.fire = link_tick;
	c->began_ns = net->now_ns;
	c->deadline_ns = net->now_ns + net->o.handshake_ms * MS;
	if (timer_reserve(net) < 0) {
		free(c);
		return NULL;
	}
	if (slot_take(net, c) < 0) {
		timer_unreserve(net, &c->timer);
		free(c);
		return NULL;
	}
	c->prev = net->links_last;
	*(c->prev ? &c->prev->next : &net->links) = c;
	net->links_last = c;
	timer_set(net, &c->timer, c->deadline_ns);
	return c;
}

static void free_list(struct out_list *l)
{
	struct out *o;

	while ((o = l->head) != NULL) {
		l->head = o->next;
		net_buf_put(o->buf);
		free(o);
	}
	l->tail = NULL;
}

void link_free(struct link *c)
{
	free_list(&c->out);
	free_list(&c->q);
	free(c->close_text);
	free(c->in);
	free(c);
}

/* Its socket goes; its memory when no list of the turn has it any more. */
void link_dead(struct link *c)
{
	struct net *net = c->net;

	if (c->dead)
		return;
	c->dead = true;
	tls_end(c);
	if (c->src.fd >= 0)
		(void)close(c->src.fd);
	c->src.fd = -1;
	timer_unreserve(net, &c->timer);
	net->incoming -= c->incoming;
	net->unfinished -= c->unfinished;
	*(c->prev ? &c->prev->next : &net->links) = c->next;
	*(c->next ? &c->next->prev : &net->links_last) = c->prev;
	c->dead_next = net->dead;
	net->dead = c;
}

/* The socket -------------------------------------------------------------------------------------------------------- */

ssize_t link_recv_raw(struct link *c, void *buf, size_t len)
{
	ssize_t n;

	if (c->eof)
		return 0;
	/* TLS is not asked before it is known that the peer speaks it. */
	if (c->budget == 0 || !c->readable || (link_state(c) == NET_TLS && !c->tls_seen))
		return -EAGAIN;
	do {
		n = recv(c->src.fd, buf, min_u64(len, c->budget), 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		c->readable = false;
		return -EAGAIN;
	}
	if (n < 0) {
		c->io_error = errno;
		return -errno;
	}
	c->eof = n == 0;
	c->budget -= (size_t)n;
	tally(&c->bytes_in, (uint64_t)n);
	return n;
}

ssize_t link_send_raw(struct link *c, const void *buf, size_t len)
{
	ssize_t n;

	do {
		n = send(c->src.fd, buf, len, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		c->writable = false;
		return -EAGAIN;
	}
	if (n < 0) {
		c->io_error = errno;
		return -errno;
	}
	tally(&c->bytes_out, (uint64_t)n);
	return n;
}

static ssize_t link_recv(struct link *c, void *buf, size_t len)
{
	ssize_t n = c->ssl ? tls_recv(c, buf, len) : link_recv_raw(c, buf, len);

	if (n < 0 && n != -EAGAIN && !c->ssl)
		(void)err_set((int)-n, "%s", strerror((int)-n));
	return n;
}

static ssize_t link_send(struct link *c, const void *buf, size_t len)
{
	ssize_t n = c->ssl ? tls_send(c, buf, len) : link_send_raw(c, buf, len);

	if (n < 0 && n != -EAGAIN && !c->ssl)
		(void)err_set((int)-n, "%s", strerror((int)-n));
	return n;
}

/* Output ------------------------------------------------------------------------------------------------------------ */

/* A frame of the transport's own, behind what is in our hands already (which is little: refill() takes no more than one
 * write needs), so that it need not wait for all that is queued. */
static int out_control(struct link *c, uint16_t type, const void *payload, size_t len)
{
	struct out *o = malloc(sizeof *o);
	struct net_buf *b = net_buf_new(type, WIRE_MUST, (uint32_t)len);

	if (!o || !b) {
		free(o);
		net_buf_put(b);
		return -ENOMEM;
	}
	memcpy(net_buf_payload(b), payload, len);
	*o = (struct out){ NULL, b, false };
	if (c->out.tail)
		c->out.tail->next = o;
	else
		c->out.head = o;
	c->out.tail = o;
	c->out_bytes += b->len;
	net_make_ready(c);
	return 0;
}

static void put_pong(struct link *c)
{
	uint8_t token[8];

	/* One at a time, so that pings of a peer that reads nothing cost nothing. */
	if (!c->pong_due || c->pong_queued)
		return;
	put_le64(token, c->pong_token);
	if (out_control(c, WIRE_PONG, token, sizeof token) == 0) {
		c->pong_due = false;
		c->pong_queued = true;
	}
}

static void take_head(struct out_list *from, struct out_list *to)
{
	struct out *o = from->head;

	from->head = o->next;
	if (!from->head)
		from->tail = NULL;
	o->next = NULL;
	if (to->tail)
		to->tail->next = o;
	else
		to->head = o;
	to->tail = o;
}

/* Say what was sent, and take as much of the queue into our hands as one write takes. */
static void refill(struct link *c)
{
	struct net *net = c->net;
	bool notify = false;

	net_lock(net);
	c->q_bytes -= c->out_sent;
	c->out_sent = 0;
	while (c->q.head && c->out_bytes < SCRATCH_BYTES) {
		c->out_bytes += c->q.head->buf->len;
		take_head(&c->q, &c->out);
	}
	if (c->want_writable && c->q_bytes <= net->o.out_max / 2) {
		c->want_writable = false;
		notify = true;
	}
	net_unlock(net);
	if (notify && link_live(c) && net->owner.writable)
		net->owner.writable(net->owner.ctx, c->id);
}

/* The same bytes at its beginning each time until they are consumed, as a repeated TLS write needs. */
static size_t gather(const struct link *c, uint8_t *to, size_t room)
{
	size_t at = 0, skip = c->out_at;

	for (const struct out *o = c->out.head; o && at < room; o = o->next) {
		size_t n = min_u64(room - at, o->buf->len - skip);

		memcpy(to + at, o->buf->bytes + skip, n);
		at += n;
		skip = 0;
	}
	return at;
}

static void consume(struct link *c, size_t n)
{
	c->out_bytes -= n;
	while (n > 0) {
		struct out *o = c->out.head;
		size_t left = o->buf->len - c->out_at;

		if (n < left) {
			c->out_at += n;
			return;
		}
		n -= left;
		c->out_at = 0;
		c->out.head = o->next;
		if (!c->out.head)
			c->out.tail = NULL;
		tally(&c->frames_out, 1);
		if (o->owners)
			c->out_sent += o->buf->len + FRAME_COST;
		else if (get_le16(o->buf->bytes + 4) == WIRE_PING)
			c->ping_queued = false;
		else if (get_le16(o->buf->bytes + 4) == WIRE_PONG)
			c->pong_queued = false;
		net_buf_put(o->buf);
		free(o);
	}
}

/* Write what can be written. more: take from the queue, too. */
static int flush(struct link *c, bool more)
{
	size_t budget = TURN_BYTES;

	for (;;) {
		ssize_t n;

		if (more)
			refill(c);
		if (!c->out.head || !c->writable)
			return 0;
		if (budget == 0)
			break;
		n = link_send(c, c->net->out, gather(c, c->net->out, c->ssl ? TLS_RECORD : SCRATCH_BYTES));
		if (n == -EAGAIN)
			return 0;
		if (n < 0)
			return (int)n;
		consume(c, (size_t)n);
		budget -= min_u64(budget, (size_t)n);
	}
	net_make_ready(c);
	return 0;
}

/* The end ----------------------------------------------------------------------------------------------------------- */

/* What is queued: kept to go out, or dropped. The frames in the net thread's hands go out either way: TLS may hold the
 * first of them as a record that is half written. */
static void settle_queue(struct link *c, bool keep)
{
	if (!keep)
		free_list(&c->q);
	while (c->q.head) {
		c->out_bytes += c->q.head->buf->len;
		take_head(&c->q, &c->out);
	}
}

static void tell_closed(struct link *c, int error, const char *text)
{
	struct net *net = c->net;
	struct net_end end = { .dialer = c->dialer_id, .opened = c->opened_ns != 0, .error = error, .code = c->end_code,
			       .address = c->address, .text = text };

	if (c->dialer)
		end.retry_ms = dial_ended(c, end.opened);
	if (c->known)
		net->owner.closed(net->owner.ctx, c->id, &end);
}

static void finish(struct link *c, int error, int code, bool keep, const char *text)
{
	struct net *net = c->net;
	uint8_t payload[WIRE_TEXT_MAX + 8];
	struct wire_writer w = wire_writer(payload, sizeof payload);
	bool framed = link_state(c) == NET_HELLO || link_state(c) == NET_OPEN;

	link_set_state(c, NET_GONE);
	slot_drop(net, c);
	settle_queue(c, keep);
	tell_closed(c, error, text);
	if (c->src.fd < 0 || code == NO_FRAME || (!framed && code != LINGER_ONLY)) {
		link_dead(c);
		return;
	}
	if (code >= 0) {
		wire_error_put(&w, (uint16_t)code, text);
		(void)out_control(c, WIRE_ERROR, payload, wire_used(&w));
	}
	/* The peer must get it before a reset tears down what is under way: so close our half, and wait for its. */
	c->deadline_ns = net->now_ns + net->o.linger_ms * MS;
	timer_set(net, &c->timer, c->deadline_ns);
	net_make_ready(c);
}

void link_end(struct link *c, int error, int code, const char *format, ...)
{
	char text[512];
	va_list ap;

	if (link_state(c) == NET_GONE)
		return;
	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	finish(c, error, code, false, text);
}

/* net_close(). */
static void close_asked(struct link *c)
{
	struct net *net = c->net;
	uint16_t code;
	char *text;

	net_lock(net);
	code = c->close_code;
	text = c->close_text;
	c->close_text = NULL;
	net_unlock(net);
	finish(c, 0, code, true, text ? text : "closed");
	free(text);
}

/* After the end: let the last frames out, close our half, read until the peer closes its own. */
static void linger(struct link *c)
{
	struct net *net = c->net;
	ssize_t n;

	if (flush(c, false) < 0) {
		link_dead(c);
		return;
	}
	if (!c->out.head && !c->shut) {
		if (c->ssl)
			tls_goodbye(c);
		(void)shutdown(c->src.fd, SHUT_WR);
		c->shut = true;
	}
	c->tls_seen = true;
	do {
		n = link_recv_raw(c, net->in, sizeof net->in);
	} while (n > 0);
	if (n == 0 || n != -EAGAIN)
		link_dead(c);
	else if (c->budget == 0)
		net_make_ready(c);
}

/* Input ------------------------------------------------------------------------------------------------------------- */

static void heard(struct link *c)
{
	c->in_unheard = 0;
	atomic_store_explicit(&c->heard_ns, c->net->now_ns, memory_order_relaxed);
}

static void take_hello(struct link *c, const uint8_t *payload, size_t len)
{
	struct net *net = c->net;
	const struct net_options *o = &net->o;
	struct wire_hello mine = { o->version_min, o->version_max, o->ping_ms, o->features, o->required, net->instance, "" };
	struct wire_hello theirs;
	struct net_peer peer;
	uint16_t code = WIRE_E_PROTOCOL;
	int r = wire_hello_get(payload, len, &theirs);

	(void)snprintf(mine.software, sizeof mine.software, "%s", o->software);
	if (r == 0)
		r = wire_agree(&mine, &theirs, &c->agreed, &code);
	if (r < 0) {
		link_end(c, r, code, "%s", err_last());
		return;
	}
	link_set_state(c, NET_OPEN);
	net->unfinished -= c->unfinished;
	c->unfinished = false;
	c->opened_ns = net->now_ns;
	c->ping_ns = net->now_ns + o->ping_ms * MS;
	c->dead_ns = max_u64(o->dead_ms, min_u64(3ull * theirs.ping_ms, DEAD_MS_MAX)) * MS;
	timer_set(net, &c->timer, c->ping_ns);
	net_lock(net);
	c->open = true;
	net_unlock(net);
	c->known = true;
	peer = (struct net_peer){ c->dialer_id, c->address, c->key, theirs.software, c->agreed.features, c->agreed.version };
	net->owner.opened(net->owner.ctx, c->id, &peer);
}

static int errno_of_code(uint16_t code)
{
	switch (code) {
	case WIRE_E_VERSION:
	case WIRE_E_FEATURES: return -EPROTONOSUPPORT;
	case WIRE_E_NEED_KEY:
	case WIRE_E_DENIED:   return -EACCES;
	case WIRE_E_SELF:     return -ELOOP;
	case WIRE_E_BUSY:     return -EBUSY;
	case WIRE_E_PROTOCOL:
	case WIRE_E_UNKNOWN:  return -EPROTO;
	default:              return -ECONNABORTED;
	}
}

static void take_error(struct link *c, const uint8_t *payload, size_t len)
{
	struct wire_error e;
	int r = wire_error_get(payload, len, &e);

	if (r < 0) {
		link_end(c, r, WIRE_E_PROTOCOL, "%s", err_last());
		return;
	}
	c->end_code = e.code;
	link_end(c, errno_of_code(e.code), LINGER_ONLY, "the peer says: %s", e.text);
}

static void unknown_frame(struct link *c, const struct wire_frame *f)
{
	if (f->flags & WIRE_MUST)
		link_end(c, -EPROTO, WIRE_E_UNKNOWN, "a frame of type %u, which must be understood, is not known here: "
			 "upgrade the older one", f->type);
	else
		tally(&c->skipped, 1);
}

static void take_own(struct link *c, const struct wire_frame *f, const uint8_t *payload)
{
	uint64_t token = f->len == 8 ? get_le64(payload) : 0;

	if ((f->type == WIRE_PING || f->type == WIRE_PONG) && f->len != 8) {
		link_end(c, -EPROTO, WIRE_E_PROTOCOL, "a ping of %u bytes", f->len);
	} else if (f->type == WIRE_PING) {
		c->pong_due = true;
		c->pong_token = token;
		put_pong(c);
	} else if (f->type == WIRE_PONG) {
		/* Only a number of ours, for display: one that is not is no harm. */
		if (token <= c->net->now_ns)
			atomic_store_explicit(&c->rtt_ns, c->net->now_ns - token, memory_order_relaxed);
	} else if (f->type == WIRE_ERROR) {
		take_error(c, payload, f->len);
	} else if (f->type == WIRE_HELLO) {
		link_end(c, -EPROTO, WIRE_E_PROTOCOL, "a second hello");
	} else {
		unknown_frame(c, f);
	}
}

static void take_frame(struct link *c, const struct wire_frame *f, const uint8_t *payload)
{
	struct net *net = c->net;
	int r;

	tally(&c->frames_in, 1);
	heard(c);
	if (link_state(c) == NET_HELLO && f->type == WIRE_HELLO) {
		take_hello(c, payload, f->len);
	} else if (link_state(c) == NET_HELLO && f->type != WIRE_ERROR) {
		link_end(c, -EPROTO, WIRE_E_PROTOCOL, "a frame of type %u before the hello", f->type);
	} else if (f->type < WIRE_OWNER) {
		take_own(c, f, payload);
	} else {
		err_clear();
		r = net->owner.frame(net->owner.ctx, c->id, f, payload);
		if (r == -EOPNOTSUPP)
			unknown_frame(c, f);
		else if (r < 0)
			link_end(c, r, r == -EACCES || r == -EPERM ? WIRE_E_DENIED : WIRE_E_PROTOCOL, "%s",
				 *err_last() ? err_last() : strerror(-r));
	}
}

static void bad_frame(struct link *c, const uint8_t *header, int error)
{
	if (link_state(c) == NET_HELLO && wire_is_tls(header, WIRE_HEADER))
		link_end(c, -EACCES, WIRE_E_NEED_KEY, ONE_KEY);
	else
		link_end(c, error, WIRE_E_PROTOCOL, "%s", err_last());
}

/* Hand over the whole frames of p. How many bytes they were: the rest begins a frame, or came before a pause. */
static size_t parse(struct link *c, const uint8_t *p, size_t len)
{
	size_t at = 0;

	while (link_live(c) && !link_paused(c) && len - at >= WIRE_HEADER) {
		uint32_t max = link_state(c) == NET_OPEN ? WIRE_PAYLOAD_MAX : WIRE_HELLO_MAX;
		struct wire_frame f;
		int r = wire_frame_get(p + at, max, &f);

		if (r < 0) {
			bad_frame(c, p + at, r);
			break;
		}
		if (len - at - WIRE_HEADER < f.len)
			break;
		take_frame(c, &f, p + at + WIRE_HEADER);
		at += WIRE_HEADER + f.len;
	}
	return at;
}

static int keep_input(struct link *c, const uint8_t *p, size_t len)
{
	if (len > c->in_size) {
		size_t size = max_u64(len, IN_MIN);
		uint8_t *in = realloc(c->in, size);

		if (!in)
			return -ENOMEM;
		c->in = in;
		c->in_size = size;
	}
	c->in_len = len;
	if (len > 0) {
		memmove(c->in, p, len);
		return 0;
	}
	free(c->in);
	c->in = NULL;
	c->in_size = 0;
	return 0;
}

/* Where the next bytes go: behind a frame's beginning, up to its end and no further; else to the scratch. Memory for a
 * long frame grows by its bytes, not by what its header promises. */
static int input_room(struct link *c, uint8_t **ret, size_t *ret_len)
{
	size_t need = c->in_len < WIRE_HEADER ? WIRE_HEADER : WIRE_HEADER + get_le32(c->in);

	if (c->in_len == 0) {
		*ret = c->net->in;
		*ret_len = SCRATCH_BYTES;
		return 0;
	}
	check(c->in_len < need && need <= WIRE_FRAME_MAX);      /* parse() has seen the header */
	if (c->in_len == c->in_size) {
		size_t size = min_u64(need, 2 * c->in_size);
		uint8_t *in = realloc(c->in, size);

		if (!in)
			return -ENOMEM;
		c->in = in;
		c->in_size = size;
	}
	*ret = c->in + c->in_len;
	*ret_len = min_u64(c->in_size, need) - c->in_len;
	return 0;
}

/* n more bytes are at p: behind what is kept, or in the scratch. */
static int take_input(struct link *c, const uint8_t *p, size_t n)
{
	size_t used;

	if (c->in_len > 0) {
		p = c->in;
		n = c->in_len += n;
	}
	used = parse(c, p, n);
	if (link_state(c) == NET_GONE)
		return 0;
	return used == 0 && p == c->in ? 0 : keep_input(c, p + used, n - used);
}

static void end_of_input(struct link *c, int error)
{
	if (error < 0)
		link_end(c, error, NO_FRAME, "the connection broke: %s", err_last());
	else if (c->in_len > 0)
		link_end(c, -ECONNRESET, NO_FRAME, "the peer closed the connection in the middle of a frame");
	else if (link_state(c) == NET_HELLO)
		link_end(c, -ECONNRESET, NO_FRAME, "the peer closed the connection before its hello");
	else
		link_end(c, -ECONNRESET, NO_FRAME, "the peer closed the connection");
}

static void read_frames(struct link *c)
{
	int r = 0;

	if (link_paused(c)) {
		c->was_paused = true;
		return;
	}
	if (c->was_paused) {            /* what the peer did meanwhile is not known: its silence begins now */
		c->was_paused = false;
		heard(c);
	}
	if (c->in_len > 0)
		r = take_input(c, c->in, 0);
	while (r == 0 && link_live(c) && !link_paused(c) && c->readable) {
		uint8_t *to;
		size_t room;
		ssize_t n;

		r = input_room(c, &to, &room);
		if (r < 0)
			break;
		n = link_recv(c, to, room);
		if (n == -EAGAIN) {
			if (c->budget == 0)
				net_make_ready(c);
			return;
		}
		if (n <= 0) {
			end_of_input(c, (int)n);
			return;
		}
		c->in_unheard += (size_t)n;
		if (c->in_unheard >= HEARD_BYTES)
			heard(c);
		r = take_input(c, to, (size_t)n);
	}
	if (r < 0)
		link_end(c, r, WIRE_E_BUSY, "%s", strerror(-r));
}

/* States ------------------------------------------------------------------------------------------------------------ */

static void begin_hello(struct link *c)
{
	const struct net_options *o = &c->net->o;
	struct wire_hello h = { o->version_min, o->version_max, o->ping_ms, o->features, o->required, c->net->instance, "" };
	uint8_t payload[WIRE_HELLO_MAX];
	struct wire_writer w = wire_writer(payload, sizeof payload);

	(void)snprintf(h.software, sizeof h.software, "%s", o->software);
	wire_hello_put(&w, &h);
	check(!w.full);
	link_set_state(c, NET_HELLO);
	if (out_control(c, WIRE_HELLO, payload, wire_used(&w)) < 0)
		link_end(c, -ENOMEM, NO_FRAME, "no memory");
}

/* Its socket is connected. */
void link_connected(struct link *c)
{
	c->readable = c->writable = true;
	net_make_ready(c);
	if (!c->net->o.keys) {
		begin_hello(c);
		return;
	}
	link_set_state(c, NET_TLS);
	if (tls_begin(c) < 0)
		link_end(c, -ENOMEM, NO_FRAME, "no memory for TLS");
}

/* The peer's first bytes are not those of TLS. */
static void no_tls(struct link *c)
{
	/* Whatever it is gets a plain frame, which a peer without a key understands. */
	tls_end(c);
	link_set_state(c, NET_HELLO);
	link_end(c, -EACCES, WIRE_E_NEED_KEY, ONE_KEY);
}

/* 1: the peer speaks TLS; 0: not known yet. Looks, takes nothing. */
static int see_tls(struct link *c)
{
	uint8_t first[2];
	ssize_t n;

	if (c->tls_seen || !c->readable)
		return c->tls_seen;
	n = recv(c->src.fd, first, sizeof first, MSG_PEEK);
	if (n == 2 && !wire_is_tls(first, sizeof first)) {
		no_tls(c);
		return 0;
	}
	/* The end and errors are met again, and told, by the handshake's own read. */
	if (n < 0)
		c->tls_seen = errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
	else
		c->tls_seen = n != 1 || c->ending;
	if (!c->tls_seen)
		c->readable = false;    /* the next byte is a new edge */
	return c->tls_seen;
}

static void handshake(struct link *c)
{
	int r;

	if (!see_tls(c) && (c->incoming || link_state(c) == NET_GONE))
		return;
	r = tls_handshake(c);
	if (r == 1)
		begin_hello(c);
	else if (r != -EAGAIN)
		link_end(c, r, LINGER_ONLY, "%s", err_last());
	else if (c->budget == 0)
		net_make_ready(c);
}

/* A paused link is told of errors only, since nothing is read from it. */
static void look_for_error(struct link *c)
{
	socklen_t len = sizeof(int);
	int error = 0;

	if (getsockopt(c->src.fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error != 0)
		link_end(c, -error, NO_FRAME, "the connection broke: %s", strerror(error));
	c->broken = false;
}

void link_event(struct link *c, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->readable = true;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		c->writable = true;
	c->broken = c->broken || events & EPOLLERR;
	c->ending = c->ending || events & (EPOLLRDHUP | EPOLLHUP);
	net_make_ready(c);
}

static void move_frames(struct link *c)
{
	int r;

	if (c->broken && link_paused(c))
		look_for_error(c);
	if (link_live(c))
		read_frames(c);
	if (!link_live(c))
		return;
	put_pong(c);
	r = flush(c, true);
	if (r < 0 && link_state(c) != NET_GONE) {
		/* What the peer said before it went, its reason perhaps, may still be there to be read. */
		read_frames(c);
		link_end(c, r, NO_FRAME, "the connection broke: %s", err_last());
	}
}

/* Give the link its share of this turn. */
void link_step(struct link *c)
{
	if (c->dead)
		return;
	c->budget = TURN_BYTES;
	if (link_state(c) == NET_GONE) {
		linger(c);
		return;
	}
	if (atomic_load(&c->closing)) {
		close_asked(c);
		return;
	}
	if (link_state(c) == NET_CONNECTING)
		dial_progress(c);
	if (link_state(c) == NET_TLS)
		handshake(c);
	if (link_live(c))
		move_frames(c);
}

/* Deadlines and signs of life --------------------------------------------------------------------------------------- */

static void too_late(struct link *c)
{
	static const char *const what[] = {
		[NET_RESOLVING] = "the name was not found", [NET_CONNECTING] = "no answer came",
		[NET_TLS] = "the handshake was not done", [NET_HELLO] = "no hello came",
	};

	link_end(c, -ETIMEDOUT, NO_FRAME, "%s within %u ms", what[link_state(c)], c->net->o.handshake_ms);
}

static void keep_alive(struct link *c)
{
	struct net *net = c->net;
	uint64_t last = atomic_load_explicit(&c->heard_ns, memory_order_relaxed), next;
	bool listening = !link_paused(c) && !c->was_paused;
	uint8_t token[8];

	if (listening && net->now_ns - last >= c->dead_ns) {
		link_end(c, -ETIMEDOUT, NO_FRAME, "nothing was heard of the peer for %llu ms",
			 (unsigned long long)((net->now_ns - last) / MS));
		return;
	}
	if (net->now_ns >= c->ping_ns) {
		put_le64(token, net->now_ns);
		if (!c->ping_queued)
			c->ping_queued = out_control(c, WIRE_PING, token, sizeof token) == 0;
		c->ping_ns = net->now_ns + net->o.ping_ms * MS;
	}
	next = listening ? min_u64(c->ping_ns, last + c->dead_ns) : c->ping_ns;
	timer_set(net, &c->timer, next);
}

static void link_tick(struct net *net, struct timer *t)
{
	struct link *c = (struct link *)(void *)((char *)t - offsetof(struct link, timer));

	if (link_state(c) == NET_OPEN)
		keep_alive(c);
	else if (net->now_ns < c->deadline_ns)
		timer_set(net, t, c->deadline_ns);
	else if (link_state(c) == NET_GONE)
		link_dead(c);
	else
		too_late(c);
}
