/* SPDX-License-Identifier: MIT
 *
 * replica_int: what the parts of replica share: replica.c (link, stream, holds, roles), replica_call.c (calls and their
 * answers). Nobody else includes it.
 */
#ifndef MSYNCFS_REPLICA_INT_H
#define MSYNCFS_REPLICA_INT_H

#include "core/replica/replica.h"

enum rcall_state { RCALL_UNSENT, RCALL_SENT, RCALL_ANSWERED };

struct rcall {
	struct rcall *next;
	bool own;
	bool ever_sent;                 /* on whatever link: nobody knows whether it was run */
	enum rcall_state state;         /* on this link */
	uint64_t client, session, request, low;
	uint64_t tag;                   /* of its last sending */
	uint64_t token;                 /* of one that is fed */
	uint64_t cookie, object;
	uint32_t flags;
	uint64_t down_at, made_at;      /* down_ms, and now, when it came */
	struct replica_answer answer;
	uint32_t len;
	uint8_t bytes[];
};

struct rcall_list {
	struct rcall *first, **tail;
	unsigned count;
};

/* A client behind this relay. */
struct rclient {
	uint64_t id, session, low;
	bool announced;                 /* on this link */
	bool gone;                      /* to be said, then forgotten */
	bool came_back;                 /* before that was said: it is to be said first */
	uint8_t *locks;                 /* to be stated with the next announcement, or NULL */
	uint32_t locks_len;
};

struct hold_news {
	uint64_t ino;
	bool hold;
};

struct replica {
	struct replica_options o;
	char name[MSG_NAME_MAX + 1];
	const struct replica_ops *ops;
	void *ctx;
	enum replica_state state;
	link_t link;
	bool again;                     /* HELLO: on a link that had its welcome */
	bool blocked;                   /* send said -EAGAIN */
	uint64_t now, down_ms;          /* time without a stream, all in all (R7) */
	uint64_t session;
	uint64_t epoch, promised, promising;
	uint64_t link_epoch;            /* of the stream: messages carry it */
	seq_t applied, durable, committed;
	seq_t tree_applied, tree_durable;
	uint32_t tree_count;
	/* What the primary said. */
	seq_t primary_last, primary_durable;
	uint64_t primary_bytes;
	uint32_t keep_ms;
	/* How stale: known to be current at fresh_at; and at mark_at, once mark_seq is applied. */
	uint64_t fresh_at, mark_at;
	seq_t mark_seq;                 /* 0: none */
	/* What is being put aside, or has been: not twice. */
	uint64_t aside_epoch;
	seq_t aside_last;
	bool aside_done;
	bool unfit;                     /* a change of the right line did not fit: the next hello asks for a diff */
	struct msg_welcome welcome;     /* texts left out */
	uint8_t refused;                /* by the last welcome, and why */
	uint64_t features;              /* of the link */
	uint8_t path[MSG_PATH_MAX][16]; /* of the last welcome or refusal: its store, whom that follows... */
	uint32_t path_count;            /* 0: there was none */
	/* Acknowledgements and holds. */
	bool ack_due;
	uint64_t ack_at;
	struct idset own_holds, fed_holds;
	bool holds_more;                /* some could not be noted */
	bool hold_all;                  /* those behind it were not heard yet */
	bool told_more;                 /* the hello could not name them all */
	struct hold_news news[REPLICA_NEWS_MAX];
	unsigned news_count;
	/* Calls: numbered ones in the order of sending; own ones that have no number yet. */
	struct rcall_list calls, queue;
	uint64_t next_request, next_tag;
	size_t bytes;
	unsigned answered;              /* of calls: have a result, wait for their change */
	struct rclient *clients;
	unsigned client_count, client_room;
	/* (R6) by a hash of the object. */
	seq_t wrote[REPLICA_OBJECTS];
	uint8_t lost[REPLICA_OBJECTS];
	bool lost_any;
};

static inline void replica_advance(struct replica *r, uint64_t now)
{
	if (r->state != REPLICA_STREAM && r->state != REPLICA_LEADS)
		r->down_ms += (now > r->now ? now - r->now : 0);
	r->now = now;
}

void replica_note(struct replica *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Calls --- */
void rcall_init(struct replica *r);
void rcall_release(struct replica *r);
/* A new link: all are to be sent again; results that came before are void (R3, R4). */
void rcall_unsend(struct replica *r);
/* 0, or what send said. */
int rcall_send_due(struct replica *r);
/* Answer what has its result and its change. */
void rcall_settle(struct replica *r);
/* Patience is over for some. */
void rcall_expire(struct replica *r);
int rcall_on_result(struct replica *r, const struct msg_result *m);
/* Lowest own request number still without an answer. */
uint64_t rcall_low(const struct replica *r);
/* (R6) Own changes behind common are lost. */
void rcall_lost(struct replica *r, seq_t common);
/* Say who is fed. 0, or what send said. */
int rclient_announce(struct replica *r);

#endif
