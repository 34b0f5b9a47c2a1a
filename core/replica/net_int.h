/* SPDX-License-Identifier: MIT
 *
 * net_int: what the net*.c files share. (L): guarded by net->lock. (A): written by the net thread, read by any with
 * relaxed atomics. Everything else belongs to the net thread.
 *
 * A link's states and who makes the transition:
 *     RESOLVING -> CONNECTING     dial: the name is known
 *     CONNECTING -> TLS           link_connected(), if there are keys; else -> HELLO
 *     TLS -> HELLO                handshake() in net_link.c
 *     HELLO -> OPEN               take_hello() there: opened()
 *     any -> GONE                 link_end(): closed(), the id is forgotten; what is left is the socket's lingering
 */
#ifndef MSYNCFS_NET_INT_H
#define MSYNCFS_NET_INT_H

#include "core/replica/net.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include <openssl/ssl.h>

#define SCRATCH_BYTES (64u << 10)       /* one read, one write */
#define TLS_RECORD    16384u            /* TLS sends no more at once, so no more is gathered for it */
#define TLS_KEPT      64u               /* the announcement of a new key is a record of 27 bytes */
#define TURN_BYTES    (256u << 10)      /* one link's share before the others get theirs */
#define HEARD_BYTES   4096u             /* of an unfinished frame count as a sign of life; fewer do not */
#define DEAD_MS_MAX   60000u            /* whatever the peer's hello says of its pings */
#define FRAME_COST    64u               /* of a queued frame beside its bytes */
#define HANDSHAKES_MAX 256u

struct net_buf {
	atomic_uint refs;
	uint32_t len;                   /* header included */
	uint8_t bytes[];
};

/* A timer of the net thread. at: its place in the heap, 0: not set. */
struct timer {
	uint64_t at_ns;
	size_t at;
	void (*fire)(struct net *net, struct timer *t);
};

/* What an epoll event belongs to. */
enum source_kind { SOURCE_WAKE, SOURCE_LISTENER, SOURCE_LINK };
struct source {
	enum source_kind kind;
	int fd;
};

/* A queued frame. */
struct out {
	struct out *next;
	struct net_buf *buf;
	bool owners;                    /* counts in q_bytes */
};

struct out_list {
	struct out *head, *tail;
};

struct link {
	struct source src;
	struct net *net;
	net_id id;
	struct dialer *dialer;          /* NULL: it came in, or the dialer is gone */
	net_id dialer_id;
	struct link *next, *prev;       /* net->links, oldest first */
	struct link *ready_next;
	bool ready;                     /* in net->ready */
	struct link *dead_next;
	bool dead;                      /* closed and out of net->links; freed when nothing lists it any more */
	bool known;                     /* a callback has named it, or will: closed() is owed */
	bool incoming, unfinished;      /* counted in net->incoming, net->unfinished */
	struct sockaddr_storage from;   /* incoming: its address */
	char address[272];
	struct timer timer;
	uint64_t deadline_ns;           /* of the handshake, or of lingering */
	uint64_t began_ns, opened_ns, ping_ns;  /* ping_ns: when the next is due */
	uint64_t dead_ns;               /* how long a silence is a death */
	/* Socket and TLS. readable: a read may give something. writable: a write may take something. */
	bool readable, writable;
	bool eof, broken;               /* broken: epoll told of an error */
	bool ending;                    /* epoll told that the peer sends no more than what is there */
	int io_error;                   /* of the socket, met inside TLS */
	size_t budget;                  /* left in this turn */
	SSL *ssl;
	bool tls_seen;                  /* the peer's first bytes were those of TLS */
	bool tls_broken;                /* no close_notify on it */
	bool tls_pending;               /* a write is to be repeated */
	bool tls_keeps;                 /* what the socket does not take now goes to tls_kept */
	uint8_t tls_kept[TLS_KEPT];     /* written as OpenSSL knows it, and not yet in the kernel's hands */
	size_t tls_kept_len;
	uint32_t tls_writes;            /* since the keys were renewed */
	const struct net_key *key;
	char unknown_id[KEY_ID_MAX + 1];
	/* Input that is not handed over yet: the beginning of a frame, or what came before a pause. */
	uint8_t *in;
	size_t in_len, in_size, in_unheard;
	bool was_paused;
	/* Output in the net thread's hands; the first out_at bytes of its head are sent. */
	struct out_list out;
	size_t out_at, out_bytes, out_sent;     /* out_sent: owner's bytes to be subtracted from q_bytes */
	bool ping_queued, pong_queued, pong_due, shut;
	uint64_t pong_token;
	struct wire_agreed agreed;
	uint16_t end_code;              /* of the peer's error frame */
	/* Shared with who sends. */
	struct link *news_next;         /* (L) */
	bool has_news;                  /* (L) */
	struct out_list q;              /* (L) */
	uint64_t q_bytes;               /* (L) in q and in out, FRAME_COST each included */
	bool want_writable, open;       /* (L) */
	bool close_wanted;              /* (L), also read through closing */
	uint16_t close_code;            /* (L) */
	char *close_text;               /* (L) */
	atomic_bool paused, closing;
	/* (A) */
	atomic_int state;
	_Atomic uint64_t bytes_in, bytes_out, frames_in, frames_out, skipped, heard_ns, rtt_ns;
};

struct listener {
	struct source src;
	struct listener *next;
	struct timer timer;             /* accepts again after that */
	char path[256];                 /* of a Unix socket, and what it is */
	uint64_t dev, ino;
};

#define DIAL_ADDRESSES 8u
struct dial_list {
	unsigned count;
	struct sockaddr_storage addr[DIAL_ADDRESSES];
	socklen_t len[DIAL_ADDRESSES];
};

struct lookup;
struct dialer {
	struct dialer *next;
	struct net *net;
	net_id id;
	struct net_address to;
	char text[272];
	struct lookup *lookup;          /* under way, or NULL */
	struct dial_list list;
	unsigned at, tried;             /* address to try next; how many of this attempt */
	uint64_t delay_ns;              /* before the next attempt */
	struct timer timer;
	struct link *link;              /* of the current attempt */
	bool denied;                    /* an address was left out for want of a key */
	bool unwanted;                  /* (L) */
};

struct owner_timer {
	struct owner_timer *next;
	net_id id;
	uint64_t at_ns;
	uint64_t every_ns;              /* 0: once */
	void (*fn)(void *ctx);
	void *ctx;
};

struct net {
	struct net_owner owner;
	struct net_options o;           /* with the defaults filled in */
	char software[WIRE_SOFTWARE_MAX + 1];
	uint64_t instance;
	SSL_CTX *tls_server, *tls_client;       /* NULL without keys */
	BIO_METHOD *bio;
	pthread_t thread;
	int epoll_fd;
	struct source wake;

	pthread_mutex_t lock;           /* what is marked (L); never held over a system call, TLS or a callback */
	bool stop, asleep;              /* (L) */
	bool ended;                     /* the thread is joined; of who calls net_end() and net_stop() */
	atomic_bool news;               /* set under the lock: there is something in the lists below */
	atomic_bool poked;              /* poked() is due */
	struct net_work *posts, **posts_end;    /* (L) */
	struct owner_timer *timers;     /* (L), the first due first */
	struct link *news_links;        /* (L) links that somebody did something to */
	struct link **slots;            /* (L) by the low bits of the id */
	uint32_t slot_count, slot_next; /* (L) */
	uint64_t serial;                /* (L) */

	uint64_t now_ns;                /* of this turn */
	uint64_t rng;
	struct link *links, *links_last, *ready, **ready_end, *dead;
	struct listener *listeners;
	struct dialer *dialers;         /* read by any thread under the lock, so changed under it */
	struct dialer *dialers_new;     /* (L) not begun yet */
	bool dialers_dropped;           /* (L) some are not wanted any more */
	unsigned incoming, unfinished;
	struct timer **heap;            /* [1..heap_count] */
	size_t heap_count, heap_size, timers_made;
	uint64_t slept_ns;              /* how long the last sleep was */
	uint8_t in[SCRATCH_BYTES], out[SCRATCH_BYTES];
};

#define MS 1000000ull

static inline void tally(_Atomic uint64_t *n, uint64_t more)
{
	atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + more, memory_order_relaxed);
}

/* net.c: any thread */
void net_lock(struct net *net);
void net_unlock(struct net *net);       /* no wake-up */
void net_unlock_wake(struct net *net);  /* news: wake the thread if it sleeps */
/* net.c: net thread */
void net_make_ready(struct link *c);
void net_note(struct net *net, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t net_random(struct net *net);
/* Room for one more timer is reserved when what it belongs to is made, so setting one cannot fail. */
int timer_reserve(struct net *net);
void timer_unreserve(struct net *net, struct timer *t);
void timer_set(struct net *net, struct timer *t, uint64_t at_ns);
/* An id for a link, in the table that senders look into. */
int slot_take(struct net *net, struct link *c);
void slot_drop(struct net *net, struct link *c);
net_id net_new_id(struct net *net);
int net_watch(struct net *net, struct source *src, uint32_t events);

/* net_link.c: net thread */
struct link *link_new(struct net *net);
void link_free(struct link *c);
void link_event(struct link *c, uint32_t events);
void link_step(struct link *c);
void link_connected(struct link *c);
/* In place of an error frame's code: say nothing, close the socket; or say nothing, but let out what is written. */
#define NO_FRAME    (-1)
#define LINGER_ONLY (-2)
void link_end(struct link *c, int error, int code, const char *format, ...) __attribute__((format(printf, 4, 5)));
void link_dead(struct link *c);
static inline enum net_state link_state(const struct link *c)
{
	return (enum net_state)atomic_load_explicit(&c->state, memory_order_relaxed);
}
static inline void link_set_state(struct link *c, enum net_state s)
{
	atomic_store_explicit(&c->state, (int)s, memory_order_relaxed);
}
/* The socket itself. Bytes, 0 at its end (recv), or negative; -EAGAIN also when the turn's share is used up. */
ssize_t link_recv_raw(struct link *c, void *buf, size_t len);
ssize_t link_send_raw(struct link *c, const void *buf, size_t len);

/* net_mem.c: before the first use of OpenSSL; and whether there is enough for a new link. Any thread */
int tls_memory(void);
bool tls_memory_left(void);

/* net_tls.c: net thread */
int tls_setup(struct net *net);
void tls_release(struct net *net);
int tls_begin(struct link *c);
void tls_end(struct link *c);
/* 1: done; -EAGAIN; or an error with its text. */
int tls_handshake(struct link *c);
ssize_t tls_recv(struct link *c, void *buf, size_t len);
ssize_t tls_send(struct link *c, const void *buf, size_t len);
void tls_goodbye(struct link *c);

/* net_dial.c: net thread */
void listener_event(struct net *net, struct listener *l);
void listeners_free(struct net *net);
void dialers_free(struct net *net);
void dialers_look(struct net *net);
void dialers_news(struct net *net);
/* A socket that was to be connected may be writable. */
void dial_progress(struct link *c);
/* The dialer's attempt is over; returns when the next begins. */
uint32_t dial_ended(struct link *c, bool opened);

/* net_addr.c */
bool addr_is_ours(const struct sockaddr *sa);
bool addr_same_source(const struct sockaddr *a, const struct sockaddr *b);
void addr_text(const struct sockaddr *sa, char *buf, size_t size);

#endif
