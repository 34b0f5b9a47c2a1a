/* SPDX-License-Identifier: MIT
 *
 * net: links between machines. It moves frames (wire.h) over TCP and Unix sockets, inside TLS 1.3 with a pre-shared
 * key if there is a key, and knows nothing of what is in them. The net*.c files are the only ones that know a descriptor.
 *
 * Threads. Each struct net has one thread, the net thread. It owns every socket, TLS object, listener and dialer, waits
 * in one epoll, and makes all callbacks. Names of hosts are looked up in threads of their own, since that can block for
 * long. Everything below may be called from any thread, callbacks included, unless it says otherwise; nothing waits for
 * the network, for a callback or for a disk. The only lock is net->lock: a short mutex that is never held over a system
 * call, over TLS or over a callback. A wake-up of the net thread (eventfd) is made only if it sleeps.
 *
 * Callbacks run on the net thread: while one runs, no other link moves. They may call everything here but net_end() and net_stop(),
 * must not block, and get bytes that are theirs only until they return.
 *
 * Life of a link: accepted (who listens) or begun by a dialer; opened, once TLS and the hellos are done; frames; closed,
 * exactly once for each id that a callback has named or will name, also if it never opened. An id is never used twice,
 * so a stale one does no harm: it gives -ENOTCONN. A dialer that lost its link tries again with a new id, after 0.1 s
 * to 5 s; frames that were queued on the old one are gone: what must arrive is the business of the protocol above.
 *
 * What a peer can cost: before opened, at most `handshakes_max` links with a deadline and WIRE_HELLO_MAX bytes each; after
 * it, one frame (memory grows only as its bytes arrive) and 64 KiB of input; output is bounded by `out_max`. Callbacks for
 * links that never open come as fast as somebody connects: an owner that logs them limits its lines.
 */
#ifndef MSYNCFS_NET_H
#define MSYNCFS_NET_H

#include "core/base.h"
#include "core/replica/key.h"
#include "core/replica/wire.h"

struct net;
struct addrinfo;
typedef uint64_t net_id;        /* a link, a dialer or a timer; 0: none */

#define NET_PORT "6796"

/* Addresses -------------------------------------------------------------------------------------------------------- */

/* "[ADDR][:PORT]", ADDR a name, a number, or an IPv6 number in brackets; or the path of a Unix socket, which has a '/'
 * in it. Without ADDR: all addresses of this machine (to listen), which is refused to who connects. */
struct net_address {
	bool local;             /* a Unix socket: host is its path */
	char host[256];         /* "" is all addresses */
	char port[6];
};
int net_address_parse(const char *text, bool to_listen, struct net_address *ret);

/* What the owner is told ------------------------------------------------------------------------------------------- */

/* Valid during opened(); key and its limits as long as the ring. */
struct net_peer {
	net_id dialer;          /* that began it, or 0: it came in */
	const char *address;    /* for messages: "192.0.2.1:40000", "a Unix socket" */
	const struct net_key *key;  /* with which it came in, and whose limits hold; NULL without TLS */
	const char *software;
	uint64_t features;      /* that both know */
	uint16_t version;       /* that is spoken */
};

struct net_end {
	net_id dialer;          /* or 0 */
	bool opened;            /* it had been */
	int error;              /* negative errno */
	uint16_t code;          /* of the peer's error frame; 0: none, or it just went */
	uint32_t retry_ms;      /* a dialer tries again after that */
	const char *address;
	const char *text;       /* one line: why */
};

struct net_owner {
	void *ctx;
	/* A peer has connected; nothing is known of it but its address. Negative: send it away. May be NULL. */
	int (*accepted)(void *ctx, net_id id, const char *address);
	void (*opened)(void *ctx, net_id id, const struct net_peer *peer);
	/* A frame of type WIRE_OWNER or above. Negative: the link is closed, and the peer told err_last() as the reason;
	 * but -EOPNOTSUPP says that the type is unknown: closed if the frame is WIRE_MUST, else skipped and counted. */
	int (*frame)(void *ctx, net_id id, const struct wire_frame *f, const uint8_t *payload);
	/* The queue of a link that refused a frame with -EAGAIN is half empty again. May be NULL. */
	void (*writable)(void *ctx, net_id id);
	void (*closed)(void *ctx, net_id id, const struct net_end *end);
	/* A line for the log that concerns no link (out of descriptors...). May be NULL. */
	void (*note)(void *ctx, const char *text);
	/* net_poke() was called. May be NULL. */
	void (*poked)(void *ctx);
};

/* Tests bring clocks and resolvers of their own. NULL: the real ones. */
struct net_ops {
	void *ctx;
	uint64_t (*now_ns)(void *ctx);          /* monotonic; any thread */
	int (*resolve)(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret);
};

/* Zero means the default, which is named. */
struct net_options {
	const struct keyring *keys;     /* NULL: no TLS, loopback and Unix sockets only. Must live until net_stop() returned */
	const char *software;           /* "msyncfs" */
	uint16_t version_min, version_max;      /* WIRE_VERSION_MIN, WIRE_VERSION */
	uint64_t features, required;
	uint32_t ping_ms;               /* 1000: let oneself be heard at least this often */
	uint32_t dead_ms;               /* 5000: a peer not heard for so long (or three times its own ping_ms) is dead */
	uint32_t handshake_ms;          /* 5000: to connect, TLS and hello, all together */
	uint32_t linger_ms;             /* 1000: for the last bytes of a link that was closed to go out */
	uint32_t retry_min_ms, retry_max_ms;    /* 100, 5000 */
	uint32_t links_max;             /* 4096 that came in */
	uint32_t handshakes_max;        /* 64 of them unfinished; at most 256 */
	uint32_t out_max;               /* 8 MiB queued on a link before -EAGAIN */
	uint32_t spin_us;               /* 0: look around for news that long before sleeping, if the last sleep was as short */
	uint32_t rekey_writes;          /* 4194304: TLS writes on a link before its sending keys are renewed */
	struct net_ops ops;
};

/* Starting and stopping -------------------------------------------------------------------------------------------- */

/* Starts the net thread. */
int net_start(const struct net_options *o, const struct net_owner *owner, struct net **ret);
/* Ends everything: posts are run, closed() is called for every link, the thread is joined. Prompt: it waits for no peer and for
 * no name look-up. Not from a callback. Other threads may be inside a call or make more of them: from here on each is refused
 * (-ESHUTDOWN, -ENOTCONN, -ENOENT). So an owner ends here what its own threads are told by, then those threads, then calls net_stop(). */
void net_end(struct net *net);
/* net_end(), if that is still to be done, and all memory is freed. NULL is fine. No other thread may be inside a call or make another. */
void net_stop(struct net *net);

/* Listen. *ret_port is the port, 0 for a Unix socket; NULL is fine. -EACCES without a key, unless loopback or Unix. A
 * name (not a number) is looked up here: may block, so call it at start-up. A Unix socket is made with mode 0600; one
 * that nobody listens on any more is replaced, and it is removed at the end. */
int net_listen(struct net *net, const char *address, uint16_t *ret_port);
/* Close all listeners; their links stay. Done when the net thread gets to it. */
int net_unlisten(struct net *net);

/* Connect, and again whenever the link is lost, until net_undial(). Every attempt has an id and ends with closed().
 * *ret is set before any callback names it. -EACCES without a key for a number that is not loopback; for a name this
 * turns up in closed(). */
int net_dial(struct net *net, const char *address, net_id *ret);
/* Its link, if any, is closed. Needs no memory; -ENOENT: there is no such dialer. */
int net_undial(struct net *net, net_id dialer);

/* Sending ---------------------------------------------------------------------------------------------------------- */

/* A frame's bytes, shared by all links it is sent on; freed with the last reference. Filled by its maker before it is
 * sent first, never changed after. */
struct net_buf;
/* One reference; len at most WIRE_PAYLOAD_MAX. NULL: no memory. */
struct net_buf *net_buf_new(uint16_t type, uint16_t flags, uint32_t len);
uint8_t *net_buf_payload(struct net_buf *b);
/* Make it shorter, before it is sent. */
void net_buf_trim(struct net_buf *b, uint32_t len);
struct net_buf *net_buf_get(struct net_buf *b);
void net_buf_put(struct net_buf *b);

/* Queue a frame behind those already queued. -ENOTCONN: not open (any more). -EAGAIN: the queue is full, writable() will
 * come; an empty queue takes any frame. On 0 it is queued, no more: it is gone if the link breaks. net_send_buf takes a
 * reference of its own. */
int net_send_buf(struct net *net, net_id id, struct net_buf *b);
int net_send(struct net *net, net_id id, uint16_t type, uint16_t flags, const void *payload, uint32_t len);

/* Close: what is queued still goes out, for at most linger_ms, then an error frame with code and text (WIRE_E_CLOSED: all
 * is well). No frame is delivered after this was called on the net thread; from another, one may be under way. */
int net_close(struct net *net, net_id id, uint16_t code, const char *text);
/* While paused, nothing is read from the link, and the peer's queue fills up. The peer is not taken for dead meanwhile,
 * nor are we by it; its death is noticed after net_resume() only. Counts as net_close() does for frames under way. */
int net_pause(struct net *net, net_id id);
int net_resume(struct net *net, net_id id);

/* Other work on the net thread ------------------------------------------------------------------------------------- */

/* Run fn(ctx) on the net thread, in order; -ESHUTDOWN once it stops, and then fn is never called. */
int net_post(struct net *net, void (*fn)(void *ctx), void *ctx);
/* The same with memory of the caller's, which can be had when it is too late to fail: fn and ctx are filled in, the rest is zero
 * before its first use. It is the caller's again when fn is called. Queued already: it stays where it is. */
struct net_work {
	struct net_work *next;
	void (*fn)(void *ctx);
	void *ctx;
	bool queued, owned;             /* owned: net_post() made it */
};
int net_post_work(struct net *net, struct net_work *w);
/* Have poked() called on the net thread, once for all pokes before it begins: what was stored before the poke is seen by
 * it. Costs no memory; for a producer that says "there is more" very often. Lost only if the net stops. */
void net_poke(struct net *net);
/* Run fn(ctx) on the net thread once, not before delay_ms are over. */
int net_timer(struct net *net, uint32_t delay_ms, void (*fn)(void *ctx), void *ctx, net_id *ret);
/* The same again and again: what has begun needs no memory to go on. */
int net_every(struct net *net, uint32_t period_ms, void (*fn)(void *ctx), void *ctx, net_id *ret);
/* 0: it will not run. -ENOENT: it has run, or (called from another thread) may be running. Timers that are left are
 * dropped by net_stop() without being run. */
int net_timer_cancel(struct net *net, net_id timer);
/* The clock that it uses. */
uint64_t net_now_ns(const struct net *net);

/* Looking ---------------------------------------------------------------------------------------------------------- */

enum net_state {
	NET_RESOLVING,          /* its name is being looked up */
	NET_CONNECTING,
	NET_TLS,
	NET_HELLO,
	NET_OPEN,
	NET_GONE,               /* closed() was called */
};

struct net_stat {
	enum net_state state;
	bool paused;
	uint64_t bytes_in, bytes_out;   /* on the socket */
	uint64_t frames_in, frames_out; /* the transport's own included */
	uint64_t skipped;               /* of unknown types */
	uint64_t queued_bytes;          /* not yet in the kernel's hands */
	uint64_t heard_ns;              /* when, by net_now_ns(); 0: never */
	uint64_t rtt_ns;                /* of the last ping; 0: not known */
};
/* -ENOTCONN once closed. */
int net_stat(struct net *net, net_id id, struct net_stat *ret);

#endif
