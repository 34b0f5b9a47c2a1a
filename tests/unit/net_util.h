/* SPDX-License-Identifier: MIT
 *
 * net_util: what the tests of links share: a side, which is a struct net with an owner that writes down all it is told;
 * raw sockets that say whatever a test wants; and a relay between two sides that can stall, cut, record and change bytes.
 * A test waits for what it expects with WAIT(), which has no time limit: the run as a whole has one.
 */
#ifndef MSYNCFS_NET_UTIL_H
#define MSYNCFS_NET_UTIL_H

#include "core/replica/net.h"

#include <pthread.h>
#include <stdatomic.h>

#define SEEN_MAX 4096

/* All that a side was told of one link. */
struct seen {
	net_id id, dialer;
	bool accepted, opened, closed, was_open, paused;
	int error;
	uint16_t code, version;
	uint64_t features;
	bool read_only;
	char key[KEY_ID_MAX + 1], tree[256], text[512], software[WIRE_SOFTWARE_MAX + 1];
	uint32_t retry_ms;
	uint64_t frames, bytes, writable, hash; /* hash: of all payloads, in order */
};

struct side {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct net *net;
	uint16_t port;
	char address[128];              /* where it listens, as who connects writes it */
	struct seen links[SEEN_MAX];
	unsigned count, opened, closed, notes;
	unsigned accepted_now, accepted_most;   /* told of and neither open nor closed */
	uint64_t frames;
	atomic_ullong produced, consumed, pokes;        /* by pokes: poked() consumes what was produced before */
	/* How it behaves. */
	bool echo;
	bool pause_on_open;
	int refuse_accept;
	int answer;                     /* what frame() returns, if not 0 */
	void (*on_frame)(struct side *s, net_id id, const struct wire_frame *f, const uint8_t *payload);
	void *arg;
};

/* Start; o may be NULL. side_listen() and side_dial() check that it works. */
struct side *side_new(const struct net_options *o);
void side_listen(struct side *s, const char *address);
net_id side_dial(struct side *s, const char *address);
/* Stop it, see that every link was closed exactly once, free it. */
void side_free(struct side *s);
/* Under the lock: the n-th link that is open (or was, if closed_too); NULL if there are not as many. */
struct seen *side_open(struct side *s, unsigned n);
/* The id of the first open link, waiting for it. */
net_id side_wait_open(struct side *s);
/* The first link that was closed, waiting for it; a copy. */
struct seen side_wait_closed(struct side *s);
/* Send, waiting for room. */
void side_send(struct side *s, net_id id, uint16_t type, const void *payload, uint32_t len);

#define WAIT(s, expr) do { \
		(void)pthread_mutex_lock(&(s)->lock); \
		while (!(expr)) \
			(void)pthread_cond_wait(&(s)->changed, &(s)->lock); \
		(void)pthread_mutex_unlock(&(s)->lock); \
	} while (0)

/* Options that make everything quick but deadlines, so that a busy machine sees no ghosts: who tests one sets it. */
struct net_options quick(const struct keyring *keys);
/* Another side connects to this one, is opened, and hears its own words. */
void still_serves(struct side *a, const struct net_options *client);
/* Let its net thread go through two turns: what was due has been done. */
void side_turn(struct side *s);

/* A ring with a key for each id; secret_byte fills the secrets. "id" or "id,read-only". */
struct keyring *ring_of(const char *const *ids, unsigned count, uint8_t secret_byte);

/* Raw sockets, blocking. */
int raw_connect(uint16_t port);
void raw_send(int fd, const void *p, size_t len);
/* Until the other side closes; what came, up to size, in buf. Never fails. */
size_t raw_read_end(int fd, uint8_t *buf, size_t size);
/* A frame into buf; its length. */
size_t raw_frame(uint8_t *buf, uint16_t type, uint16_t flags, const void *payload, uint32_t len);
size_t raw_hello(uint8_t *buf);

/* A relay: connect to its port, and it connects to the target's. */
struct relay {
	uint16_t port, target;
	int listen_fd, wake[2];
	pthread_t thread;
	atomic_bool stop, hold, cut;    /* hold: nothing goes on, nothing is closed. cut: close both */
	atomic_uint flip;               /* change a bit of that many of the next pieces */
	atomic_uint links;              /* that it has made so far */
	pthread_mutex_t lock;
	uint8_t *record;                /* what went to the target, of the first connection */
	size_t recorded;
};
struct relay *relay_new(uint16_t target);
void relay_free(struct relay *r);

/* Around each test: it leaves as many descriptors open as there were (a look-up's thread may end a little later). */
int count_descriptors(void **state);
int same_descriptors(void **state);
/* Bytes by chance; freed by the caller. */
uint8_t *noise(size_t len);
uint64_t test_now_ms(void);
/* Bytes of memory that this process has touched, and that it has asked for. */
uint64_t memory_touched(void);
uint64_t memory_asked(void);
/* What sanitizers add to memory cannot be told from what is under test. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_COUNTS false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MEMORY_COUNTS false
#endif
#endif
#ifndef MEMORY_COUNTS
#define MEMORY_COUNTS true
#endif

#endif
