/* SPDX-License-Identifier: MIT
 *
 * net_dial: how links begin: listeners accept them, dialers connect and connect again. Sockets to listen on are made by
 * the thread that calls net_listen(); from then on they belong to the net thread. Names are looked up in a thread for
 * each look-up, which shares nothing with us but a struct lookup, and which nobody waits for.
 */
#include "core/replica/net_int.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ACCEPTS_PER_TURN 16
#define ACCEPT_PAUSE     (100 * MS)     /* when there are no descriptors */
#define LISTEN_ADDRESSES 8

/* A key is the only thing that keeps strangers out; where strangers cannot come, none is needed. */
static int need_key(const char *address, bool to_listen)
{
	return err_set(EACCES, "%s: without a key only loopback addresses and Unix sockets may be %s; use --key-file "
		       "(msyncfs keygen makes one)", address, to_listen ? "listened on" : "connected to");
}

static void ready_socket(int fd, int family)
{
	int one = 1;

	if (family != AF_UNIX)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* net_address_parse() has seen to it that the path fits. */
static void local_sockaddr(const char *path, struct sockaddr_un *ret)
{
	memset(ret, 0, sizeof *ret);
	ret->sun_family = AF_UNIX;
	memcpy(ret->sun_path, path, strnlen(path, sizeof ret->sun_path - 1));
}

/* Handing objects to the net thread --------------------------------------------------------------------------------- */

struct hand_over {
	struct net *net;
	struct listener *listeners;
};

static int hand_over(struct net *net, void (*fn)(void *ctx), const struct hand_over *what)
{
	struct hand_over *h = malloc(sizeof *h);
	int r;

	if (!h)
		return -ENOMEM;
	*h = *what;
	h->net = net;
	r = net_post(net, fn, h);
	if (r < 0)
		free(h);
	return r;
}

/* Listening --------------------------------------------------------------------------------------------------------- */

static void listener_free(struct listener *l)
{
	struct stat st;

	/* Only what is still ours: another daemon may have taken the path over. */
	if (l->path[0] != '\0' && lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		(void)unlink(l->path);
	if (l->src.fd >= 0)
		(void)close(l->src.fd);
	free(l);
}

static void free_listeners(struct listener *l)
{
	while (l) {
		struct listener *next = l->next;

		listener_free(l);
		l = next;
	}
}

void listeners_free(struct net *net)
{
	for (struct listener *l = net->listeners; l; l = l->next)
		timer_unreserve(net, &l->timer);
	free_listeners(net->listeners);
	net->listeners = NULL;
}

static void listen_again(struct net *net, struct timer *t)
{
	struct listener *l = (struct listener *)(void *)((char *)t - offsetof(struct listener, timer));

	if (net_watch(net, &l->src, EPOLLIN) < 0)
		timer_set(net, t, net->now_ns + ACCEPT_PAUSE);
}

static void add_listeners(void *ctx)
{
	struct hand_over *h = ctx;
	struct net *net = h->net;
	struct listener *l, *next;

	for (l = h->listeners; l; l = next) {
		next = l->next;
		l->timer.fire = listen_again;
		if (timer_reserve(net) < 0) {
			net_note(net, "no memory to listen");
			listener_free(l);
			continue;
		}
		l->next = net->listeners;
		net->listeners = l;
		if (net_watch(net, &l->src, EPOLLIN) < 0)
			timer_set(net, &l->timer, net->now_ns + ACCEPT_PAUSE);
	}
	free(h);
}

static struct listener *listener_new(int family)
{
	struct listener *l = calloc(1, sizeof *l);

	if (!l)
		return NULL;
	l->src = (struct source){ SOURCE_LISTENER, socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) };
	if (l->src.fd < 0) {
		free(l);
		return NULL;
	}
	return l;
}

/* A socket that nobody listens on any more is in the way after a crash. */
static void remove_stale(const struct sockaddr_un *un)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct stat st;

	if (fd >= 0 && lstat(un->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    connect(fd, (const struct sockaddr *)un, sizeof *un) < 0 && errno == ECONNREFUSED)
		(void)unlink(un->sun_path);
	if (fd >= 0)
		(void)close(fd);
}

static int listen_local(const char *path, struct listener **ret)
{
	struct listener *l = listener_new(AF_UNIX);
	struct sockaddr_un un;
	struct stat st;
	int r = 0;

	if (!l)
		return err_set(errno, "%s: %s", path, strerror(errno));
	local_sockaddr(path, &un);
	remove_stale(&un);
	/* The mode before the name exists: there is no moment at which others could connect. */
	if (fchmod(l->src.fd, 0600) < 0 || bind(l->src.fd, (struct sockaddr *)&un, sizeof un) < 0)
		r = err_set(errno, "%s: %s", path, errno == EADDRINUSE ? "somebody listens there, or it is no socket" :
			    strerror(errno));
	if (r == 0 && lstat(path, &st) == 0) {
		l->dev = st.st_dev;
		l->ino = st.st_ino;
		(void)snprintf(l->path, sizeof l->path, "%s", path);
	}
	if (r == 0 && listen(l->src.fd, SOMAXCONN) < 0)
		r = err_set(errno, "%s: %s", path, strerror(errno));
	if (r < 0) {
		listener_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

/* Port 0 of the addresses behind the first: the port that the first one got. */
static void use_port(struct sockaddr *sa, uint16_t port)
{
	if (sa->sa_family == AF_INET)
		((struct sockaddr_in *)(void *)sa)->sin_port = htons(port);
	else
		((struct sockaddr_in6 *)(void *)sa)->sin6_port = htons(port);
}

static uint16_t port_of(int fd)
{
	union {
		struct sockaddr any;
		struct sockaddr_in four;
		struct sockaddr_in6 six;
	} a;
	socklen_t len = sizeof a;

	memset(&a, 0, sizeof a);
	(void)getsockname(fd, &a.any, &len);
	return ntohs(a.any.sa_family == AF_INET ? a.four.sin_port : a.six.sin6_port);
}

static int listen_one(const struct addrinfo *ai, uint16_t *port, struct listener **ret)
{
	struct listener *l = listener_new(ai->ai_family);
	int one = 1, r;

	if (!l)
		return -errno;
	if (*port != 0)
		use_port(ai->ai_addr, *port);
	(void)setsockopt(l->src.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (ai->ai_family == AF_INET6)
		(void)setsockopt(l->src.fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	if (bind(l->src.fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(l->src.fd, SOMAXCONN) < 0) {
		r = -errno;
		listener_free(l);
		return r;
	}
	*port = port_of(l->src.fd);
	l->next = *ret;
	*ret = l;
	return 0;
}

/* Every address of the name; those of a family that this machine does not have are left out. */
static int listen_all(struct net *net, const char *text, struct addrinfo *list, struct listener **ret, uint16_t *ret_port)
{
	int r = 0, first = -EADDRNOTAVAIL;

	for (struct addrinfo *ai = list; ai; ai = ai->ai_next)
		if (!net->o.keys && !addr_is_ours(ai->ai_addr))
			return need_key(text, true);
	for (struct addrinfo *ai = list; ai && r == 0; ai = ai->ai_next) {
		r = listen_one(ai, ret_port, ret);
		if (r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL) {
			first = r;
			r = 0;
		}
	}
	if (r == 0 && !*ret)
		r = first;
	if (r < 0)
		(void)err_set(-r, "%s: cannot listen: %s", text, strerror(-r));
	return r;
}

static int listen_net(struct net *net, const char *text, const struct net_address *a, struct listener **ret,
		      uint16_t *ret_port)
{
	const struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_family = AF_UNSPEC,
					.ai_socktype = SOCK_STREAM };
	struct addrinfo *list = NULL;
	int e, r;

	/* Said before it is looked up: no name at all, and no key, needs no look at the machine's addresses. */
	if (!net->o.keys && a->host[0] == '\0')
		return need_key(text, true);
	e = net->o.ops.resolve(a->host[0] ? a->host : NULL, a->port, &hints, &list);
	if (e != 0)
		return err_set(EADDRNOTAVAIL, "%s: cannot listen: %s", text, gai_strerror(e));
	r = listen_all(net, text, list, ret, ret_port);
	freeaddrinfo(list);
	return r;
}

int net_listen(struct net *net, const char *address, uint16_t *ret_port)
{
	struct hand_over h = { 0 };
	struct net_address a;
	uint16_t port = 0;
	int r = net_address_parse(address, true, &a);

	if (r < 0)
		return r;
	r = a.local ? listen_local(a.host, &h.listeners) : listen_net(net, address, &a, &h.listeners, &port);
	if (r == 0)
		r = hand_over(net, add_listeners, &h);
	if (r != 0) {
		free_listeners(h.listeners);
		return r;
	}
	if (ret_port)
		*ret_port = port;
	return 0;
}

static void drop_listeners(void *ctx)
{
	struct hand_over *h = ctx;

	listeners_free(h->net);
	free(h);
}

int net_unlisten(struct net *net)
{
	const struct hand_over h = { 0 };

	return hand_over(net, drop_listeners, &h);
}

/* Accepting --------------------------------------------------------------------------------------------------------- */

/* Too many that are not through their handshake: the oldest goes, of the source that has most of them. So a flood from
 * one address hurts only those who share it. */
static void evict(struct net *net)
{
	struct link *list[HANDSHAKES_MAX], *victim = NULL;
	unsigned count = 0, most = 0;

	for (struct link *c = net->links; c && count < HANDSHAKES_MAX; c = c->next)
		if (c->unfinished)
			list[count++] = c;
	for (unsigned i = 0; i < count; i++) {
		unsigned same = 0;

		for (unsigned j = i; j < count; j++)
			same += addr_same_source((struct sockaddr *)&list[i]->from, (struct sockaddr *)&list[j]->from);
		if (same > most) {
			most = same;
			victim = list[i];
		}
	}
	if (!victim)
		return;
	link_end(victim, -ECONNABORTED, NO_FRAME, "too many unfinished handshakes");
	link_dead(victim);
}

static void take_socket(struct net *net, int fd, const struct sockaddr_storage *from)
{
	struct link *c;

	if (!net->o.keys && !addr_is_ours((const struct sockaddr *)from)) {
		(void)close(fd);
		return;
	}
	if (net->unfinished >= net->o.handshakes_max)
		evict(net);
	c = net->incoming < net->o.links_max ? link_new(net) : NULL;
	if (!c) {
		(void)close(fd);
		return;
	}
	c->src.fd = fd;
	c->incoming = c->unfinished = true;
	net->incoming++;
	net->unfinished++;
	c->from = *from;
	addr_text((const struct sockaddr *)from, c->address, sizeof c->address);
	link_set_state(c, NET_CONNECTING);
	ready_socket(fd, from->ss_family);
	if (net_watch(net, &c->src, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) < 0) {
		link_end(c, -ENOMEM, NO_FRAME, "no memory");
		return;
	}
	if (net->owner.accepted) {
		c->known = true;
		if (net->owner.accepted(net->owner.ctx, c->id, c->address) < 0) {
			link_end(c, -ECONNABORTED, NO_FRAME, "not wanted");
			return;
		}
	}
	link_connected(c);
}

/* No descriptors, no memory: the kernel keeps who waits; look again in a while. */
static void pause_listener(struct net *net, struct listener *l, int error)
{
	net_note(net, "connections cannot be accepted: %s, retrying", strerror(error));
	(void)epoll_ctl(net->epoll_fd, EPOLL_CTL_DEL, l->src.fd, NULL);
	timer_set(net, &l->timer, net->now_ns + ACCEPT_PAUSE);
}

void listener_event(struct net *net, struct listener *l)
{
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		struct sockaddr_storage from = { .ss_family = AF_UNIX };
		socklen_t len = sizeof from;
		int fd = accept4(l->src.fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			take_socket(net, fd, &from);
			continue;
		}
		if (errno == EAGAIN)
			return;
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			pause_listener(net, l, errno);
			return;
		}
		/* Else it is that one connection's trouble. */
	}
}

/* Looking up names -------------------------------------------------------------------------------------------------- */

/* Shared by the net thread and one look-up; who lets go last frees it. */
struct lookup {
	atomic_int refs;
	atomic_bool done;
	int (*resolve)(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret);
	struct net_address to;
	int wake_fd;                    /* the look-up's own */
	int error;                      /* of getaddrinfo */
	struct dial_list list;          /* valid once done */
};

static void lookup_put(struct lookup *l)
{
	if (l && atomic_fetch_sub(&l->refs, 1) == 1)
		free(l);
}

static int resolve(int (*fn)(const char *, const char *, const struct addrinfo *, struct addrinfo **),
		   const struct net_address *to, int flags, struct dial_list *ret)
{
	const struct addrinfo hints = { .ai_flags = flags | AI_NUMERICSERV, .ai_family = AF_UNSPEC,
					.ai_socktype = SOCK_STREAM };
	struct addrinfo *list = NULL;
	int e = fn(to->host, to->port, &hints, &list);

	ret->count = 0;
	if (e != 0)
		return e;
	for (struct addrinfo *ai = list; ai && ret->count < DIAL_ADDRESSES; ai = ai->ai_next) {
		if (ai->ai_addrlen > sizeof ret->addr[0])
			continue;
		memcpy(&ret->addr[ret->count], ai->ai_addr, ai->ai_addrlen);
		ret->len[ret->count++] = ai->ai_addrlen;
	}
	freeaddrinfo(list);
	return 0;
}

static void *lookup_thread(void *arg)
{
	struct lookup *l = arg;
	int fd = l->wake_fd;
	uint64_t one = 1;

	l->error = resolve(l->resolve, &l->to, AI_ADDRCONFIG, &l->list);
	atomic_store(&l->done, true);
	if (write(fd, &one, sizeof one) < 0)
		dcheck(errno == EAGAIN);
	(void)close(fd);
	lookup_put(l);
	return NULL;
}

static int lookup_start(struct dialer *d)
{
	struct net *net = d->net;
	struct lookup *l = calloc(1, sizeof *l);
	pthread_attr_t attr;
	pthread_t thread;
	int r = 0;

	if (!l)
		return -ENOMEM;
	atomic_init(&l->refs, 2);
	l->resolve = net->o.ops.resolve;
	l->to = d->to;
	l->wake_fd = fcntl(net->wake.fd, F_DUPFD_CLOEXEC, 0);
	if (l->wake_fd < 0)
		r = -errno;
	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	/* It inherits our blocked signals. */
	if (r == 0)
		r = -pthread_create(&thread, &attr, lookup_thread, l);
	(void)pthread_attr_destroy(&attr);
	if (r < 0) {
		if (l->wake_fd >= 0)
			(void)close(l->wake_fd);
		free(l);
		return r;
	}
	d->lookup = l;
	return 0;
}

/* Dialing ----------------------------------------------------------------------------------------------------------- */

static void try_addresses(struct link *c, int error);

static void no_address(struct link *c)
{
	link_end(c, -EADDRNOTAVAIL, NO_FRAME, "no address is known for it");
}

/* An attempt: a link, which first needs an address. */
static void attempt(struct net *net, struct timer *t)
{
	struct dialer *d = (struct dialer *)(void *)((char *)t - offsetof(struct dialer, timer));
	struct link *c = link_new(net);
	struct sockaddr_un un;

	if (!c) {
		timer_set(net, t, net->now_ns + net->o.retry_max_ms * MS);
		net_note(net, "%s: no memory to connect, retrying", d->text);
		return;
	}
	c->dialer = d;
	c->dialer_id = d->id;
	c->known = true;
	d->link = c;
	d->tried = 0;
	d->denied = false;
	(void)snprintf(c->address, sizeof c->address, "%s", d->text);
	if (d->to.local) {
		local_sockaddr(d->to.host, &un);
		memcpy(&d->list.addr[0], &un, sizeof un);
		d->list.len[0] = sizeof un;
		d->list.count = 1;
	} else if (!d->lookup && resolve(getaddrinfo, &d->to, AI_NUMERICHOST, &d->list) != 0) {
		int r = lookup_start(d);

		if (r < 0)
			link_end(c, r, NO_FRAME, "its name cannot be looked up: %s", strerror(-r));
		return;
	}
	if (!d->lookup)
		try_addresses(c, -EADDRNOTAVAIL);
}

/* A look-up may be done. */
void dialers_look(struct net *net)
{
	for (struct dialer *d = net->dialers; d; d = d->next) {
		struct lookup *l = d->lookup;
		int error;

		if (!l || !atomic_load(&l->done))
			continue;
		d->lookup = NULL;
		d->list = l->list;
		error = l->error;
		lookup_put(l);
		/* Without a link its attempt has ended meanwhile; the next looks again. */
		if (!d->link)
			continue;
		if (error != 0)
			link_end(d->link, -EADDRNOTAVAIL, NO_FRAME, "its name cannot be looked up: %s", gai_strerror(error));
		else
			try_addresses(d->link, -EADDRNOTAVAIL);
	}
}

/* One address. 0: the socket connects, or is connected. */
static int connect_one(struct link *c, const struct sockaddr *sa, socklen_t len)
{
	struct net *net = c->net;
	int fd, r;

	if (!net->o.keys && !addr_is_ours(sa)) {
		c->dialer->denied = true;
		return -EACCES;
	}
	fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	ready_socket(fd, sa->sa_family);
	if (connect(fd, sa, len) < 0 && errno != EINPROGRESS) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	c->src.fd = fd;
	c->writable = c->readable = false;      /* the edge comes when it is decided */
	if (sa->sa_family == AF_UNIX)
		(void)snprintf(c->address, sizeof c->address, "%s", c->dialer->text);
	else
		addr_text(sa, c->address, sizeof c->address);
	return net_watch(net, &c->src, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

/* Each address once, from where the last attempt stopped; `error` is what became of the one before. */
static void try_addresses(struct link *c, int error)
{
	struct dialer *d = c->dialer;

	link_set_state(c, NET_CONNECTING);
	if (d->list.count == 0) {
		no_address(c);
		return;
	}
	while (d->tried < d->list.count) {
		unsigned i = d->at++ % d->list.count;

		d->tried++;
		if (c->src.fd >= 0)
			(void)close(c->src.fd);
		c->src.fd = -1;
		error = connect_one(c, (struct sockaddr *)&d->list.addr[i], d->list.len[i]);
		if (error == 0)
			return;
	}
	if (error == -EACCES && d->denied) {
		(void)need_key(d->text, false);
		link_end(c, error, NO_FRAME, "%s", err_last());
		return;
	}
	link_end(c, error, NO_FRAME, "%s", strerror(-error));
}

void dial_progress(struct link *c)
{
	socklen_t len = sizeof(int);
	int error = 0;

	if (!c->writable || !c->dialer)
		return;
	if (getsockopt(c->src.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	if (error == 0) {
		c->dialer->at--;        /* this one is good: begin with it the next time */
		link_connected(c);
	} else {
		try_addresses(c, -error);
	}
}

/* Twice as long after each failure, and less by chance, so that many who lost the same peer do not come back at once. A
 * link that was open for longer than the wait before it was a success. */
uint32_t dial_ended(struct link *c, bool opened)
{
	struct net *net = c->net;
	struct dialer *d = c->dialer;
	uint64_t least = net->o.retry_min_ms * MS, wait;

	if (d->delay_ns == 0 || (opened && net->now_ns - c->opened_ns > d->delay_ns))
		d->delay_ns = least;
	wait = d->delay_ns / 2 + net_random(net) % (d->delay_ns / 2 + 1);
	d->delay_ns = min_u64(2 * d->delay_ns, net->o.retry_max_ms * MS);
	d->link = NULL;
	c->dialer = NULL;
	timer_set(net, &d->timer, net->now_ns + wait);
	return (uint32_t)div_up(wait, MS);
}

static void dialer_free(struct dialer *d)
{
	lookup_put(d->lookup);
	free(d);
}

int net_dial(struct net *net, const char *address, net_id *ret)
{
	struct dialer *d = calloc(1, sizeof *d);
	int r;

	if (!d)
		return -ENOMEM;
	d->net = net;
	r = net_address_parse(address, false, &d->to);
	/* A number can be judged at once; a name when it is known. */
	if (r == 0 && !net->o.keys && !d->to.local && resolve(getaddrinfo, &d->to, AI_NUMERICHOST, &d->list) == 0 &&
	    d->list.count > 0 && !addr_is_ours((struct sockaddr *)&d->list.addr[0]))
		r = need_key(address, false);
	if (r == 0) {
		(void)snprintf(d->text, sizeof d->text, "%s", address);
		*ret = d->id = net_new_id(net);
		net_lock(net);
		if (net->stop) {
			r = -ESHUTDOWN;
		} else {
			d->next = net->dialers_new;
			net->dialers_new = d;
		}
		net_unlock_wake(net);
	}
	if (r < 0)
		free(d);
	return r;
}

static void dialer_drop(struct net *net, struct dialer *d)
{
	struct link *c = d->link;

	timer_unreserve(net, &d->timer);
	if (c) {
		c->dialer = NULL;
		link_end(c, -ECANCELED, WIRE_E_CLOSED, "not wanted any more");
	}
	dialer_free(d);
}

/* Under the lock: those that are not wanted any more, out of their list. */
static struct dialer *take_unwanted(struct dialer **list)
{
	struct dialer *d, **p = list, *gone = NULL;

	while ((d = *p) != NULL) {
		if (!d->unwanted) {
			p = &d->next;
			continue;
		}
		*p = d->next;
		d->next = gone;
		gone = d;
	}
	return gone;
}

/* What other threads have begun and given up. Without memory for a timer one waits for the next turn. */
void dialers_news(struct net *net)
{
	struct dialer *d, *gone, *unborn;

	net_lock(net);
	net->dialers_dropped = false;
	gone = take_unwanted(&net->dialers);
	unborn = take_unwanted(&net->dialers_new);
	while ((d = net->dialers_new) != NULL && timer_reserve(net) == 0) {
		net->dialers_new = d->next;
		d->next = net->dialers;
		net->dialers = d;
	}
	net_unlock(net);
	while ((d = unborn) != NULL) {
		unborn = d->next;
		dialer_free(d);
	}
	while ((d = gone) != NULL) {
		gone = d->next;
		dialer_drop(net, d);
	}
	for (d = net->dialers; d; d = d->next)
		if (!d->timer.fire) {
			d->timer.fire = attempt;
			attempt(net, &d->timer);
		}
}

static bool give_up(struct dialer *list, net_id id)
{
	for (; list; list = list->next)
		if (list->id == id) {
			list->unwanted = true;
			return true;
		}
	return false;
}

int net_undial(struct net *net, net_id dialer)
{
	int r = 0;

	net_lock(net);
	if (give_up(net->dialers, dialer) || give_up(net->dialers_new, dialer))
		net->dialers_dropped = true;
	else
		r = -ENOENT;
	net_unlock_wake(net);
	return r;
}

void dialers_free(struct net *net)
{
	struct dialer *d, *list, *unborn;

	/* Another thread may be giving one up. */
	net_lock(net);
	list = net->dialers;
	unborn = net->dialers_new;
	net->dialers = net->dialers_new = NULL;
	net_unlock(net);
	while ((d = list) != NULL) {
		list = d->next;
		if (d->link)
			d->link->dialer = NULL;
		timer_unreserve(net, &d->timer);
		dialer_free(d);
	}
	while ((d = unborn) != NULL) {
		unborn = d->next;
		dialer_free(d);
	}
}
