/* SPDX-License-Identifier: MIT
 *
 * net: the net thread: its loop, its timers, and what other threads hand it. See net.h for who may call what, and
 * net_int.h for what the lock guards.
 *
 * A turn: wait; take what epoll says; take the news of other threads; give each link that has something to do its share;
 * then timers, last, so that a process that was stopped for a while reads what has come before it calls a peer dead.
 */
#include "core/replica/net_int.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include <netdb.h>

#define EVENTS_MAX  64
#define SLEEP_MAX   (60000 * MS)
#define SLOT_BITS   20u
#define SLOTS_MAX   (1u << SLOT_BITS)

/* The lock and the wake-up ----------------------------------------------------------------------------------------- */

void net_lock(struct net *net)
{
	(void)pthread_mutex_lock(&net->lock);
}

void net_unlock(struct net *net)
{
	(void)pthread_mutex_unlock(&net->lock);
}

/* The thread sets `asleep` under the lock after it has seen that there is no news, so news either is seen or wakes it. */
void net_unlock_wake(struct net *net)
{
	bool asleep = net->asleep;
	uint64_t one = 1;

	atomic_store_explicit(&net->news, true, memory_order_relaxed);
	net->asleep = false;            /* one wake-up is enough */
	net_unlock(net);
	if (asleep && write(net->wake.fd, &one, sizeof one) < 0)
		dcheck(errno == EAGAIN);        /* it is full of wake-ups */
}

uint64_t net_now_ns(const struct net *net)
{
	return net->o.ops.now_ns(net->o.ops.ctx);
}

static uint64_t real_now_ns(void *ctx)
{
	(void)ctx;
	return clock_mono_ns();
}

uint64_t net_random(struct net *net)
{
	net->rng ^= net->rng << 13;
	net->rng ^= net->rng >> 7;
	net->rng ^= net->rng << 17;
	return net->rng;
}

void net_note(struct net *net, const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (net->owner.note)
		net->owner.note(net->owner.ctx, text);
}

/* Timers of the net thread: a binary heap --------------------------------------------------------------------------- */

int timer_reserve(struct net *net)
{
	if (net->timers_made + 2 > net->heap_size) {
		size_t size = 2 * net->heap_size;
		struct timer **heap = realloc(net->heap, size * sizeof(struct timer *));

		if (!heap)
			return -ENOMEM;
		net->heap = heap;
		net->heap_size = size;
	}
	net->timers_made++;
	return 0;
}

static void heap_put(struct net *net, struct timer *t, size_t at)
{
	net->heap[at] = t;
	t->at = at;
}

static void heap_up(struct net *net, struct timer *t)
{
	size_t at = t->at;

	for (; at > 1 && net->heap[at / 2]->at_ns > t->at_ns; at /= 2)
		heap_put(net, net->heap[at / 2], at);
	heap_put(net, t, at);
}

static void heap_down(struct net *net, struct timer *t)
{
	size_t at = t->at, child;

	while ((child = 2 * at) <= net->heap_count) {
		if (child < net->heap_count && net->heap[child + 1]->at_ns < net->heap[child]->at_ns)
			child++;
		if (net->heap[child]->at_ns >= t->at_ns)
			break;
		heap_put(net, net->heap[child], at);
		at = child;
	}
	heap_put(net, t, at);
}

void timer_set(struct net *net, struct timer *t, uint64_t at_ns)
{
	t->at_ns = at_ns;
	if (t->at == 0) {
		check(net->heap_count < net->timers_made);
		heap_put(net, t, ++net->heap_count);
	}
	heap_up(net, t);
	heap_down(net, t);
}

static void timer_clear(struct net *net, struct timer *t)
{
	size_t at = t->at;
	struct timer *last;

	if (at == 0)
		return;
	last = net->heap[net->heap_count--];
	t->at = 0;
	if (last == t)
		return;
	heap_put(net, last, at);
	heap_up(net, last);
	heap_down(net, last);
}

void timer_unreserve(struct net *net, struct timer *t)
{
	timer_clear(net, t);
	net->timers_made--;
}

static void run_timers(struct net *net)
{
	while (net->heap_count > 0 && net->heap[1]->at_ns <= net->now_ns) {
		struct timer *t = net->heap[1];

		timer_clear(net, t);
		t->fire(net, t);
	}
}

/* Ids and the table of links ---------------------------------------------------------------------------------------- */

/* An id is a serial number, never used again, above the place in the table. Dialers and timers have numbers only. */
net_id net_new_id(struct net *net)
{
	net_id id;

	net_lock(net);
	id = ++net->serial << SLOT_BITS;
	net_unlock(net);
	return id;
}

/* Under the lock. */
static int slots_grow(struct net *net)
{
	uint32_t count = net->slot_count ? 2 * net->slot_count : 64;
	struct link **slots;

	if (count > SLOTS_MAX)
		return -EMFILE;
	slots = realloc(net->slots, count * sizeof(struct link *));
	if (!slots)
		return -ENOMEM;
	memset(slots + net->slot_count, 0, (count - net->slot_count) * sizeof(struct link *));
	net->slots = slots;
	net->slot_next = net->slot_count;
	net->slot_count = count;
	return 0;
}

int slot_take(struct net *net, struct link *c)
{
	uint32_t i, tries;
	int r = 0;

	net_lock(net);
	for (tries = 0; tries < net->slot_count && net->slots[net->slot_next]; tries++)
		net->slot_next = (net->slot_next + 1) % net->slot_count;
	if (tries == net->slot_count)
		r = slots_grow(net);
	if (r == 0) {
		i = net->slot_next;
		c->id = ++net->serial << SLOT_BITS | i;
		net->slots[i] = c;
		net->slot_next = (i + 1) % net->slot_count;
	}
	net_unlock(net);
	return r;
}

/* From here on nobody can send on it, close it or look at it. */
void slot_drop(struct net *net, struct link *c)
{
	net_lock(net);
	check(net->slots[c->id & (SLOTS_MAX - 1)] == c);
	net->slots[c->id & (SLOTS_MAX - 1)] = NULL;
	c->open = false;
	net_unlock(net);
}

/* Under the lock. */
static struct link *find_link(struct net *net, net_id id)
{
	uint32_t i = (uint32_t)(id & (SLOTS_MAX - 1));
	struct link *c = i < net->slot_count ? net->slots[i] : NULL;

	return c && c->id == id ? c : NULL;
}

/* Under the lock: the net thread is to look at this link. */
static void tell_news(struct net *net, struct link *c)
{
	if (c->has_news)
		return;
	c->has_news = true;
	c->news_next = net->news_links;
	net->news_links = c;
}

/* Sending ----------------------------------------------------------------------------------------------------------- */

struct net_buf *net_buf_new(uint16_t type, uint16_t flags, uint32_t len)
{
	const struct wire_frame f = { len, type, flags };
	struct net_buf *b;

	check(len <= WIRE_PAYLOAD_MAX && type != 0 && !(flags & ~WIRE_FLAGS));
	b = malloc(sizeof *b + WIRE_HEADER + len);
	if (!b)
		return NULL;
	atomic_init(&b->refs, 1);
	b->len = WIRE_HEADER + len;
	wire_frame_put(b->bytes, &f);
	return b;
}

uint8_t *net_buf_payload(struct net_buf *b)
{
	return b->bytes + WIRE_HEADER;
}

void net_buf_trim(struct net_buf *b, uint32_t len)
{
	check(len <= b->len - WIRE_HEADER);
	b->len = WIRE_HEADER + len;
	put_le32(b->bytes, len);
}

struct net_buf *net_buf_get(struct net_buf *b)
{
	(void)atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
	return b;
}

void net_buf_put(struct net_buf *b)
{
	if (b && atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1)
		free(b);
}

/* Takes over the caller's reference, whatever happens. */
static int queue_frame(struct net *net, net_id id, struct net_buf *b)
{
	struct out *o = malloc(sizeof *o);
	uint64_t cost = b->len + FRAME_COST;
	struct link *c;
	int r = 0;

	if (!o) {
		net_buf_put(b);
		return -ENOMEM;
	}
	*o = (struct out){ NULL, b, true };
	net_lock(net);
	c = find_link(net, id);
	if (!c || !c->open || c->close_wanted) {
		r = -ENOTCONN;
	} else if (c->q_bytes > 0 && c->q_bytes + cost > net->o.out_max) {
		c->want_writable = true;
		r = -EAGAIN;
	}
	if (r < 0) {
		net_unlock(net);
		net_buf_put(b);
		free(o);
		return r;
	}
	if (c->q.tail)
		c->q.tail->next = o;
	else
		c->q.head = o;
	c->q.tail = o;
	c->q_bytes += cost;
	tell_news(net, c);
	net_unlock_wake(net);
	return 0;
}

int net_send_buf(struct net *net, net_id id, struct net_buf *b)
{
	return queue_frame(net, id, net_buf_get(b));
}

int net_send(struct net *net, net_id id, uint16_t type, uint16_t flags, const void *payload, uint32_t len)
{
	struct net_buf *b = net_buf_new(type, flags, len);

	if (!b)
		return -ENOMEM;
	if (len > 0)
		memcpy(net_buf_payload(b), payload, len);
	return queue_frame(net, id, b);
}

/* Closing, pausing, looking ----------------------------------------------------------------------------------------- */

int net_close(struct net *net, net_id id, uint16_t code, const char *text)
{
	char *copy = strdup(text);
	struct link *c;

	net_lock(net);
	c = find_link(net, id);
	if (!c || c->close_wanted) {
		net_unlock(net);
		free(copy);
		return c ? 0 : -ENOTCONN;
	}
	c->close_wanted = true;
	c->close_code = code;
	c->close_text = copy;           /* without memory it goes without its reason */
	atomic_store(&c->closing, true);
	tell_news(net, c);
	net_unlock_wake(net);
	return 0;
}

static int set_paused(struct net *net, net_id id, bool paused)
{
	struct link *c;

	net_lock(net);
	c = find_link(net, id);
	if (!c) {
		net_unlock(net);
		return -ENOTCONN;
	}
	atomic_store(&c->paused, paused);
	tell_news(net, c);
	net_unlock_wake(net);
	return 0;
}

int net_pause(struct net *net, net_id id)
{
	return set_paused(net, id, true);
}

int net_resume(struct net *net, net_id id)
{
	return set_paused(net, id, false);
}

int net_stat(struct net *net, net_id id, struct net_stat *ret)
{
	struct net_stat s = { 0 };
	struct link *c;

	net_lock(net);
	c = find_link(net, id);
	if (!c) {
		net_unlock(net);
		return -ENOTCONN;
	}
	s.state = link_state(c);
	s.paused = atomic_load(&c->paused);
	s.bytes_in = atomic_load_explicit(&c->bytes_in, memory_order_relaxed);
	s.bytes_out = atomic_load_explicit(&c->bytes_out, memory_order_relaxed);
	s.frames_in = atomic_load_explicit(&c->frames_in, memory_order_relaxed);
	s.frames_out = atomic_load_explicit(&c->frames_out, memory_order_relaxed);
	s.skipped = atomic_load_explicit(&c->skipped, memory_order_relaxed);
	s.heard_ns = atomic_load_explicit(&c->heard_ns, memory_order_relaxed);
	s.rtt_ns = atomic_load_explicit(&c->rtt_ns, memory_order_relaxed);
	s.queued_bytes = c->q_bytes;
	net_unlock(net);
	*ret = s;
	return 0;
}

/* Posts and the owner's timers -------------------------------------------------------------------------------------- */

int net_post(struct net *net, void (*fn)(void *ctx), void *ctx)
{
	struct net_work *w = malloc(sizeof *w);
	int r;

	if (!w)
		return -ENOMEM;
	*w = (struct net_work){ .fn = fn, .ctx = ctx, .owned = true };
	r = net_post_work(net, w);
	if (r < 0)
		free(w);
	return r;
}

int net_post_work(struct net *net, struct net_work *w)
{
	net_lock(net);
	if (net->stop || w->queued) {
		int r = net->stop ? -ESHUTDOWN : 0;

		net_unlock(net);
		return r;
	}
	w->queued = true;
	w->next = NULL;
	*net->posts_end = w;
	net->posts_end = &w->next;
	net_unlock_wake(net);
	return 0;
}

/* The first of the posts, which is its owner's from here on. */
static struct net_work *take_post(struct net *net, struct net_work **list)
{
	struct net_work *w = *list;

	if (!w)
		return NULL;
	net_lock(net);
	*list = w->next;
	w->queued = false;
	net_unlock(net);
	return w;
}

/* The flag is taken back before poked() is called, so a poke during the call leads to another one. */
void net_poke(struct net *net)
{
	if (atomic_exchange(&net->poked, true))
		return;
	net_lock(net);
	net_unlock_wake(net);
}

/* Under the lock: to its place. */
static void timer_put(struct net *net, struct owner_timer *t)
{
	struct owner_timer **p;

	for (p = &net->timers; *p && (*p)->at_ns <= t->at_ns; p = &(*p)->next)
		;
	t->next = *p;
	*p = t;
}

static int new_timer(struct net *net, const struct owner_timer *what, net_id *ret)
{
	struct owner_timer *t = malloc(sizeof *t);

	if (!t)
		return -ENOMEM;
	*t = *what;
	t->id = net_new_id(net);
	net_lock(net);
	if (net->stop) {
		net_unlock(net);
		free(t);
		return -ESHUTDOWN;
	}
	timer_put(net, t);
	*ret = t->id;
	net_unlock_wake(net);
	return 0;
}

int net_timer(struct net *net, uint32_t delay_ms, void (*fn)(void *ctx), void *ctx, net_id *ret)
{
	const struct owner_timer t = { .at_ns = net_now_ns(net) + delay_ms * MS, .fn = fn, .ctx = ctx };

	return new_timer(net, &t, ret);
}

int net_every(struct net *net, uint32_t period_ms, void (*fn)(void *ctx), void *ctx, net_id *ret)
{
	const uint64_t every = max_u64(period_ms, 1) * MS;
	const struct owner_timer t = { .at_ns = net_now_ns(net) + every, .every_ns = every, .fn = fn, .ctx = ctx };

	return new_timer(net, &t, ret);
}

int net_timer_cancel(struct net *net, net_id timer)
{
	struct owner_timer *t = NULL, **p;

	net_lock(net);
	for (p = &net->timers; *p && (*p)->id != timer; p = &(*p)->next)
		;
	if (*p) {
		t = *p;
		*p = t->next;
	}
	net_unlock(net);
	free(t);
	return t ? 0 : -ENOENT;
}

static void run_owner_timers(struct net *net)
{
	for (;;) {
		struct owner_timer *t, due;

		net_lock(net);
		t = net->timers;
		if (!t || t->at_ns > net->now_ns) {
			net_unlock(net);
			return;
		}
		net->timers = t->next;
		due = *t;
		/* Back in the list before it is run: so it can be cancelled, and freed, meanwhile. */
		if (t->every_ns != 0) {
			t->at_ns = net->now_ns + t->every_ns;
			timer_put(net, t);
		}
		net_unlock(net);
		if (due.every_ns == 0)
			free(t);
		due.fn(due.ctx);
	}
}

/* The loop ---------------------------------------------------------------------------------------------------------- */

void net_make_ready(struct link *c)
{
	struct net *net = c->net;

	if (c->ready || c->dead)
		return;
	c->ready = true;
	c->ready_next = NULL;
	*net->ready_end = c;
	net->ready_end = &c->ready_next;
}

int net_watch(struct net *net, struct source *src, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = src };

	return epoll_ctl(net->epoll_fd, EPOLL_CTL_ADD, src->fd, &ev) < 0 ? -errno : 0;
}

/* What other threads have handed over. True: it is time to stop. */
static bool take_news(struct net *net)
{
	struct net_work *posts, *w;
	struct link *c;
	bool stop, dialers;

	net_lock(net);
	atomic_store_explicit(&net->news, false, memory_order_relaxed);
	posts = net->posts;
	net->posts = NULL;
	net->posts_end = &net->posts;
	for (c = net->news_links; c; c = c->news_next) {
		c->has_news = false;
		net_make_ready(c);
	}
	net->news_links = NULL;
	stop = net->stop;
	dialers = net->dialers_new || net->dialers_dropped;
	net_unlock(net);
	while ((w = take_post(net, &posts)) != NULL) {
		const struct net_work work = *w;

		if (work.owned)
			free(w);
		work.fn(work.ctx);
	}
	if (dialers && !stop)
		dialers_news(net);
	if (atomic_exchange(&net->poked, false) && net->owner.poked)
		net->owner.poked(net->owner.ctx);
	return stop;
}

static void run_ready(struct net *net)
{
	struct link *c = net->ready, *next;

	net->ready = NULL;
	net->ready_end = &net->ready;
	for (; c; c = next) {
		next = c->ready_next;
		c->ready = false;
		link_step(c);
	}
}

/* Free the dead that neither list has: a list's next turn drops the others. */
static void reap(struct net *net)
{
	struct link **p = &net->dead, *c;

	while ((c = *p) != NULL) {
		bool listed;

		net_lock(net);
		listed = c->has_news || c->ready;
		net_unlock(net);
		if (listed) {
			p = &c->dead_next;
			continue;
		}
		*p = c->dead_next;
		link_free(c);
	}
}

/* Under the lock. */
static int sleep_ms(const struct net *net, uint64_t now)
{
	uint64_t until = now + SLEEP_MAX;

	if (net->heap_count > 0)
		until = min_u64(until, net->heap[1]->at_ns);
	if (net->timers)
		until = min_u64(until, net->timers->at_ns);
	return until > now ? (int)div_up(until - now, MS) : 0;
}

/* If the last sleep was short, the next news is likely near: looking for it costs less than being woken. */
static int spin(struct net *net, struct epoll_event *ev)
{
	uint64_t limit = net->o.spin_us * 1000ull, began = real_now_ns(NULL);
	int n = 0;

	while (n == 0 && !atomic_load_explicit(&net->news, memory_order_relaxed) && real_now_ns(NULL) - began < limit)
		n = epoll_wait(net->epoll_fd, ev, EVENTS_MAX, 0);
	return n;
}

static int wait_events(struct net *net, struct epoll_event *ev)
{
	uint64_t began;
	int n = 0, ms;

	if (net->o.spin_us > 0 && !net->ready && net->slept_ns < net->o.spin_us * 1000ull)
		n = spin(net, ev);
	if (n != 0)
		return n;
	net_lock(net);
	ms = net->ready || net->dead || atomic_load_explicit(&net->news, memory_order_relaxed) ? 0 :
	     sleep_ms(net, net_now_ns(net));
	net->asleep = ms > 0;
	net_unlock(net);
	began = real_now_ns(NULL);
	n = epoll_wait(net->epoll_fd, ev, EVENTS_MAX, ms);
	if (ms > 0) {
		net->slept_ns = real_now_ns(NULL) - began;
		net_lock(net);
		net->asleep = false;
		net_unlock(net);
	}
	return n;
}

static void take_event(struct net *net, const struct epoll_event *ev)
{
	struct source *src = ev->data.ptr;
	uint64_t count;

	switch (src->kind) {
	case SOURCE_WAKE:
		if (read(src->fd, &count, sizeof count) < 0)
			dcheck(errno == EAGAIN);
		dialers_look(net);
		break;
	case SOURCE_LISTENER:
		listener_event(net, (struct listener *)(void *)src);
		break;
	case SOURCE_LINK:
		link_event((struct link *)(void *)src, ev->events);
		break;
	}
}

/* Say goodbye to everybody, once, without waiting for anything. */
static void end_all(struct net *net)
{
	struct link *c, *next;

	listeners_free(net);
	dialers_free(net);
	for (c = net->links; c; c = next) {
		next = c->next;
		link_end(c, -ESHUTDOWN, link_state(c) >= NET_HELLO ? WIRE_E_CLOSED : NO_FRAME, "this side stops");
		link_step(c);
		if (!c->dead)
			link_dead(c);
	}
	net_lock(net);
	net->news_links = NULL;
	net_unlock(net);
	while ((c = net->dead) != NULL) {
		net->dead = c->dead_next;
		link_free(c);
	}
}

static void *net_thread(void *arg)
{
	struct net *net = arg;
	struct epoll_event ev[EVENTS_MAX];
	bool stop = false;

	while (!stop) {
		int n = wait_events(net, ev);

		net->now_ns = net_now_ns(net);
		for (int i = 0; i < n; i++)
			take_event(net, &ev[i]);
		stop = take_news(net);
		run_ready(net);
		run_timers(net);
		run_owner_timers(net);
		reap(net);
	}
	(void)take_news(net);
	end_all(net);
	return NULL;
}

/* Starting and stopping --------------------------------------------------------------------------------------------- */

static void fill_options(struct net *net, const struct net_options *o)
{
	struct net_options *n = &net->o;

	*n = *o;
#define DEFAULT(field, value) n->field = n->field != 0 ? n->field : (value)
	DEFAULT(version_min, WIRE_VERSION_MIN);
	DEFAULT(version_max, WIRE_VERSION);
	DEFAULT(ping_ms, 1000);
	DEFAULT(dead_ms, 5000);
	DEFAULT(handshake_ms, 5000);
	DEFAULT(linger_ms, 1000);
	DEFAULT(retry_min_ms, 100);
	DEFAULT(retry_max_ms, 5000);
	DEFAULT(links_max, 4096);
	DEFAULT(handshakes_max, 64);
	DEFAULT(out_max, 8u << 20);
	DEFAULT(rekey_writes, 1u << 22);
#undef DEFAULT
	n->handshakes_max = (uint32_t)min_u64(n->handshakes_max, HANDSHAKES_MAX);
	n->retry_max_ms = (uint32_t)max_u64(n->retry_max_ms, n->retry_min_ms);
	if (!n->ops.now_ns)
		n->ops.now_ns = real_now_ns;
	if (!n->ops.resolve)
		n->ops.resolve = getaddrinfo;
	(void)snprintf(net->software, sizeof net->software, "%s", o->software ? o->software : "msyncfs");
	n->software = net->software;
}

static void net_release(struct net *net)
{
	struct owner_timer *t;

	while ((t = net->timers) != NULL) {
		net->timers = t->next;
		free(t);
	}
	tls_release(net);
	if (net->epoll_fd >= 0)
		(void)close(net->epoll_fd);
	if (net->wake.fd >= 0)
		(void)close(net->wake.fd);
	(void)pthread_mutex_destroy(&net->lock);
	free(net->slots);
	free(net->heap);
	free(net);
}

static int open_loop(struct net *net)
{
	net->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	net->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (net->epoll_fd < 0 || net->wake.fd < 0)
		return err_set(errno, "the network loop cannot be made: %s", strerror(errno));
	return net_watch(net, &net->wake, EPOLLIN);
}

int net_start(const struct net_options *o, const struct net_owner *owner, struct net **ret)
{
	struct net *net = calloc(1, sizeof *net);
	sigset_t all, old;
	int r;

	if (!net)
		return -ENOMEM;
	net->owner = *owner;
	net->epoll_fd = net->wake.fd = -1;
	net->posts_end = &net->posts;
	net->ready_end = &net->ready;
	(void)pthread_mutex_init(&net->lock, NULL);
	fill_options(net, o);
	/* For all that may come in, and some that are begun here: so that none of them can be refused a timer. */
	net->heap_size = net->o.links_max + 256;
	net->heap = malloc(net->heap_size * sizeof(struct timer *));
	/* Not from OpenSSL: without keys it is not needed, and it does not survive a lack of memory when it is used first. */
	if (!net->heap)
		r = -ENOMEM;
	else if (getrandom(&net->instance, sizeof net->instance, 0) != sizeof net->instance ||
	    getrandom(&net->rng, sizeof net->rng, 0) != sizeof net->rng)
		r = err_set(EIO, "there are no random numbers to be had");
	else
		r = open_loop(net);
	net->rng |= 1;
	if (r == 0 && net->o.keys)
		r = tls_setup(net);
	if (r == 0) {
		/* Signals are for the thread that the process began with. */
		(void)sigfillset(&all);
		(void)sigdelset(&all, SIGBUS);
		(void)pthread_sigmask(SIG_BLOCK, &all, &old);
		r = -pthread_create(&net->thread, NULL, net_thread, net);
		(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	if (r < 0) {
		net_release(net);
		return r;
	}
	*ret = net;
	return 0;
}

void net_end(struct net *net)
{
	if (!net || net->ended)
		return;
	check(!pthread_equal(pthread_self(), net->thread));
	net_lock(net);
	net->stop = true;
	net_unlock_wake(net);
	(void)pthread_join(net->thread, NULL);
	net->ended = true;
}

void net_stop(struct net *net)
{
	if (!net)
		return;
	net_end(net);
	net_release(net);
}
