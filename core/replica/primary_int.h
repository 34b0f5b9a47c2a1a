/* SPDX-License-Identifier: MIT
 *
 * primary_int: what the parts of primary share: primary.c (roles, news, sync, sending), primary_peer.c (links, hello,
 * messages, clients). Nobody else includes it.
 */
#ifndef MSYNCFS_PRIMARY_INT_H
#define MSYNCFS_PRIMARY_INT_H

#include "core/replica/primary.h"

#define SAMPLES 64u
#define SAMPLE_MS 5u

enum slot_state { SLOT_FREE, SLOT_RUNS, SLOT_SYNC, SLOT_READY };

struct call_slot {
	enum slot_state state;
	uint64_t request, token;
	uint64_t tag;                   /* that its link gave it */
	uint64_t since;                 /* SYNC: waiting since */
	struct primary_result res;
};

/* A client: a run of a mount. Its calls come by one peer, its own or a relay. */
struct client {
	uint64_t id, session, low;
	uint64_t newest;                /* highest request that came by this peer */
	struct primary_peer *peer;      /* NULL: left */
	uint32_t tag;                   /* of the limited key by which it came last; 0: of one that is not */
	uint64_t left_at;
	struct call_slot calls[MSG_WINDOW];
};

/* An answer about a lock, to be sent. */
struct lock_note {
	struct lock_note *next;
	struct msg_lock m;
};

struct primary_peer {
	struct primary_peer *next;
	link_t link;                    /* 0: GONE */
	enum peer_state state;
	bool read_only, no_calls;       /* its store; its key */
	bool limited;                   /* (P7) */
	const char *tree;               /* of its key, or NULL */
	uint32_t tag;                   /* of its key, if that is limited; else 0 */
	bool feeds, holds_more;
	bool acked;                     /* in our epoch, on this link, since it streams */
	bool in_step;                   /* and had, once since then, all that there was when it came: join_seq */
	seq_t join_seq;
	bool blocked;                   /* send said -EAGAIN */
	bool missed;                    /* a call of it was left unanswered while changes were parked */
	uint8_t store[16];
	char name[MSG_NAME_MAX + 1];
	uint64_t client;
	uint64_t epoch;                 /* in which it was welcomed */
	uint16_t version;
	uint64_t features;
	seq_t sent;                     /* the next one to send is sent + 1 */
	seq_t applied, durable, tree_applied, tree_durable;
	uint32_t tree_count;
	struct idset holds;
	unsigned ready;                 /* results to be sent */
	struct lock_note *locks, **locks_end;   /* NULL: locks is empty */
	unsigned lock_count;
	uint64_t position_at;           /* when POSITION was sent */
	bool position_due;
	uint64_t left_at;               /* GONE */
};

struct sample {
	seq_t seq;
	uint64_t bytes, at;
};

struct wait {
	uint64_t cookie, since;
	seq_t seq;
	uint32_t replicas, wait_ms;
};

struct primary {
	struct primary_options o;
	const struct primary_ops *ops;
	void *ctx;
	enum primary_state state;
	uint64_t epoch, promised;
	seq_t last, durable, committed, synced;
	uint64_t bytes;
	uint32_t stale_ms;
	uint64_t now;
	uint64_t grace_at;              /* leads since */
	char elsewhere[MSG_NAME_MAX + 1];       /* OFF: who is the primary */
	bool paused;                    /* RELAYS: feeds nobody just now */
	bool still;                     /* nor does who stands still */
	bool disk_failed;               /* what is not durable never will be */
	uint64_t features;              /* that are offered: of those of `o` what can be passed on */
	uint8_t path[MSG_PATH_MAX][16]; /* whom this store follows, whom that one follows... */
	uint32_t path_count;            /* 0: nobody */
	struct primary_peer *peers;
	unsigned peer_count;
	struct client **clients;
	unsigned client_count, client_room;
	uint64_t next_token;
	unsigned running;               /* runs without a result */
	unsigned sync_waits;
	struct wait waits[PRIMARY_WAITS_MAX];   /* of our own machine */
	unsigned wait_count;
	struct sample samples[SAMPLES];
	unsigned sample_next;
	/* The switch-over under way, or the last one, until its epoch is heard of. */
	uint8_t target[16];
	char target_name[MSG_NAME_MAX + 1];     /* its link may be gone when it is time to follow it */
	uint64_t target_epoch, target_next, parked_at;
	seq_t target_seq;
	bool handed;
};

static inline uint64_t elapsed(uint64_t now, uint64_t since)
{
	return now > since ? now - since : 0;
}

static inline bool primary_leads(const struct primary *p)
{
	return p->state == PRIMARY_LEADS || p->state == PRIMARY_PARKED;
}

void primary_note(struct primary *p, link_t link, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* A higher epoch: ours is over (P1). */
void primary_fence(struct primary *p, uint64_t promised, const char *who);
void primary_update_synced(struct primary *p);
void primary_check_switch(struct primary *p);

/* End a link from our side; the peer is GONE, or freed if it never was anyone. */
void primary_close_peer(struct primary *p, struct primary_peer *peer, const char *reason);
void primary_close_all(struct primary *p, const char *reason, bool forget);
struct client *primary_find_client(struct primary *p, uint64_t id);
void primary_expire(struct primary *p);
void primary_drop_locks(struct primary_peer *peer);
/* Begin a diff for one that streamed, since the feed does not reach back. */
void primary_fall_back(struct primary *p, struct primary_peer *peer);
int primary_send_promote(struct primary *p, link_t link);
void primary_send_fenced(struct primary *p, link_t link);

#endif
