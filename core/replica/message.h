/* SPDX-License-Identifier: MIT
 *
 * message: what a primary and its replicas say to each other, as structs and as bytes (core/PROTOCOL.md, chapter 2), and
 * the comparison of two histories, from which follows what a replica that connects must do. Pure: no memory, clock,
 * socket; any thread may call it. A decoder takes exactly one message with an exact end; what it gives back points into
 * the bytes that it was given. -EPROTO with a text (err_last()) is the answer to bytes that cannot be.
 */
#ifndef MSYNCFS_MESSAGE_H
#define MSYNCFS_MESSAGE_H

#include "core/base.h"
#include "core/replica/wire.h"

/* Types of frames. Those from MSG_DIFF on belong to the diff, which alone knows what is in them. */
enum msg_type {
	MSG_HELLO    = 0x100,   /* replica: who I am, what I have */
	MSG_WELCOME  = 0x101,   /* primary: what follows */
	MSG_CHANGE   = 0x102,   /* primary: the next change */
	MSG_POSITION = 0x103,   /* primary: where it is; the sign of life */
	MSG_ACK      = 0x104,   /* replica: where it is; the sign of life */
	MSG_CALL     = 0x105,   /* replica: run this */
	MSG_RESULT   = 0x106,   /* primary: what came of a call */
	MSG_CANCEL   = 0x107,   /* replica: nobody waits for this call any more */
	MSG_HOLD     = 0x108,   /* replica: its kernel knows these inodes without a name */
	MSG_RELEASE  = 0x109,   /* replica: and does not any more */
	MSG_CLIENT   = 0x10a,   /* replica that feeds others: a client behind it came or went */
	MSG_PROMOTE  = 0x10b,   /* primary: you are the primary now */
	MSG_FENCED   = 0x10c,   /* either: a higher epoch was promised here */
	MSG_LOCK     = 0x10d,   /* primary: what became of a lock that was asked for */
	MSG_DIFF     = 0x140,
	MSG_DIFF_END = 0x17f,
};

static inline bool msg_is_diff(unsigned type)
{
	return type >= MSG_DIFF && type <= MSG_DIFF_END;
}

/* What an unknown frame costs is said by the flag WIRE_MUST: all but these carry it. */
static inline uint16_t msg_flags(unsigned type)
{
	return (uint16_t)(type == MSG_CANCEL ? 0 : WIRE_MUST);
}

/* Versions of this chapter, and features. A newer HELLO or WELCOME may be longer: what is behind is left alone. */
#define MSG_VERSION_MIN 1u
#define MSG_VERSION     1u
#define MSG_FEATURE_PROBE 1ull          /* the way to the primary, and the primary, know probes of locks */
#define MSG_FEATURE_PATH  2ull          /* a WELCOME says whom the sender follows */
#define MSG_FEATURES      (MSG_FEATURE_PROBE | MSG_FEATURE_PATH)
/* What a replica that feeds others can offer: what it knows itself, and what it can pass on. */
#define MSG_FEATURES_OWN  MSG_FEATURE_PATH

#define MSG_HISTORY_MAX   64u
#define MSG_NAME_MAX      255u
#define MSG_TEXT_MAX      400u
#define MSG_PATH_MAX      32u           /* stores; a longer way to the primary is told in part */
#define MSG_LOCKS_MAX     (256u << 10)
#define MSG_HOLDS_MAX     4096u         /* inodes in one message; a longer list takes several */
#define MSG_WINDOW        32u           /* calls of a client without an answer */
#define MSG_OVERHEAD      64u           /* room for what a CHANGE or a CALL adds to its bytes */
#define MSG_BYTES_MAX     (WIRE_PAYLOAD_MAX - MSG_OVERHEAD)

/* (epoch, seq) by the line that it is in. epoch = term << 20 | run. */
#define EPOCH_RUN_BITS 20u

static inline uint64_t epoch_next_term(uint64_t epoch)
{
	return ((epoch >> EPOCH_RUN_BITS) + 1) << EPOCH_RUN_BITS;
}

/* An epoch began with the change `first`; two that are called the same differ in `nonce`. */
struct history_entry {
	uint64_t epoch;
	seq_t first;
	uint64_t nonce;
	uint8_t store[16];
};

/* Ordered by epoch; the newest MSG_HISTORY_MAX of them. `last` is the seq of the last change of the line. */
struct history {
	unsigned count;
	seq_t last;
	struct history_entry at[MSG_HISTORY_MAX];
};

enum history_verdict {
	HISTORY_STREAM,         /* theirs is where ours was at `common` */
	HISTORY_DIVERGED,       /* they have changes behind `common` that we do not have */
	HISTORY_EMPTY,          /* they have nothing */
	HISTORY_UNKNOWN,        /* nothing in common: as diverged, at 0 */
};
/* Ordered, without doubles, at least one entry unless last is 0: -EPROTO if not. */
int history_check(const struct history *h);
/* The last position that both have. */
enum history_verdict history_compare(const struct history *ours, const struct history *theirs, seq_t *ret_common);

/* Messages --------------------------------------------------------------------------------------------------------- */

#define HELLO_READ_ONLY  1u     /* sends no calls */
#define HELLO_HOLDS_MORE 2u     /* it holds more inodes than it could name: mark nothing while it is here */
#define HELLO_FEEDS      4u     /* others are fed by it */
#define HELLO_REPLACE    8u     /* its store may be replaced although it never was a replica of this cluster */
#define HELLO_AGAIN      16u    /* not the first one on this connection: a diff has ended */
#define HELLO_INCOMPLETE 32u    /* its store is at no position: a first sync was cut off */

struct msg_hello {
	uint16_t version, version_min;
	uint32_t flags;
	uint64_t features, required;
	uint8_t cluster[16];            /* zeros: none yet */
	uint8_t store[16];
	uint64_t client;                /* of this run of the mount */
	uint64_t session;               /* counts the connections of this client */
	uint64_t low;                   /* lowest request number still to come */
	uint64_t epoch;                 /* of its last change */
	uint64_t promised;
	seq_t durable;
	seq_t committed;                /* its store never goes below that */
	struct history history;         /* .last: its last change */
	const uint8_t *name;            /* where it can be reached; not terminated */
	uint32_t name_len;
	const uint8_t *holds;           /* u64 each */
	uint32_t hold_count;
	const uint8_t *locks;           /* known to the lock manager only */
	uint32_t locks_len;
};

enum msg_decision {
	WELCOME_STREAM  = 1,    /* changes follow from `seq` + 1 on */
	WELCOME_DIFF    = 2,    /* a diff follows */
	WELCOME_ASIDE   = 3,    /* what you have behind `seq` nobody else has: put it aside; a diff follows */
	WELCOME_REFUSED = 4,    /* see code */
};

enum msg_refusal {
	REFUSED_NONE        = 0,
	REFUSED_CLUSTER     = 1,        /* another cluster */
	REFUSED_VERSION     = 2,        /* no version or feature in common */
	REFUSED_NOT_PRIMARY = 3,        /* name: who is, if known */
	REFUSED_FENCED      = 4,        /* its promise is newer than what you are */
	REFUSED_NOT_EMPTY   = 5,        /* a store that never was a replica */
	REFUSED_COMMITTED   = 6,        /* it would have to forget what it knows to be committed */
	REFUSED_BUSY        = 7,        /* later */
	REFUSED_SELF        = 8,        /* the same store */
	REFUSED_LIMITED     = 9,        /* not with this key, which is limited */
};

struct msg_welcome {
	uint16_t version;
	uint8_t decision, code;
	uint64_t features;
	uint8_t cluster[16];
	uint8_t store[16];
	uint64_t hash_seed;
	uint64_t epoch;
	uint64_t promised;
	seq_t seq;                      /* last position in common */
	seq_t last, durable;            /* of the primary */
	uint32_t lease_ms;              /* of locks and holds */
	uint32_t keep_ms;               /* ACK at least this often */
	const uint8_t *text;            /* for people; refused: why */
	uint32_t text_len;
	const uint8_t *name;            /* refused: who is the primary, "" if not known */
	uint32_t name_len;
	const uint8_t *path;            /* MSG_FEATURE_PATH: stores, 16 bytes each: whom the sender follows, whom that one follows... */
	uint32_t path_count;
};

struct msg_change {
	uint64_t epoch;                 /* the sender's */
	uint64_t change_epoch;
	seq_t seq;
	seq_t durable, committed;
	const uint8_t *bytes;
	uint32_t len;
};

struct msg_position {
	uint64_t epoch;
	seq_t last, durable, committed;
	uint64_t last_bytes;            /* counter of bytes of all changes up to `last`: lag in bytes is a difference */
	uint32_t stale_ms;              /* what the sender knows was true so long ago; the primary: 0 */
};

struct msg_ack {
	uint64_t epoch;
	seq_t applied, durable;
	seq_t tree_applied, tree_durable;       /* the least of those that it feeds, itself included */
	uint32_t tree_count;                    /* how many those are */
};

struct msg_call {
	uint64_t epoch;
	uint64_t client, session, request, low;
	const uint8_t *bytes;
	uint32_t len;
	uint64_t tag;                   /* of this sending, on this link: the result repeats it */
};

#define RESULT_SYNC 1u          /* its answer waited for disks */

struct msg_result {
	uint64_t epoch;
	uint64_t client, session, request;
	int32_t error;                  /* 0 or negative errno */
	uint32_t flags;
	seq_t seq;                      /* after it */
	uint64_t number;
	uint64_t tag;                   /* of the call that it answers */
};

struct msg_cancel {
	uint64_t epoch;
	uint64_t client, session, request;
};

struct msg_holds {                      /* HOLD and RELEASE */
	uint64_t epoch;
	const uint8_t *inos;            /* u64 each */
	uint32_t count;
};

#define CLIENT_GONE  1u
#define CLIENT_LOCKS 2u         /* its locks are stated; else those that it had stay */

struct msg_client {
	uint64_t epoch;
	uint64_t client, session, low;
	uint32_t flags;
	const uint8_t *locks;
	uint32_t locks_len;
};

struct msg_promote {
	uint64_t epoch;                 /* the sender's, which ends */
	uint64_t next;                  /* the one to begin, or a higher one */
	seq_t seq;                      /* with which its line ends */
};

#define LOCK_LOST  1u           /* no answer: what was restated is another's by now */
#define LOCK_PROBE 2u           /* no answer: PROBED is to be called with the ticket when all is unlocked that was given up by now */

struct msg_lock {
	uint64_t epoch;
	uint64_t client;
	uint64_t round;                 /* of the client's last statement of its locks; others are void */
	uint64_t ticket;
	int32_t error;                  /* 0 or negative errno */
	uint32_t flags;
	uint8_t kind, type;
	uint32_t pid;
	uint64_t ino, owner, start, end;
	seq_t seq;                      /* to be believed when this is applied */
	uint64_t fence_epoch, fence;
};

struct msg_fenced {
	uint64_t promised;
	const uint8_t *text;
	uint32_t text_len;
};

void msg_put_hello(struct wire_writer *w, const struct msg_hello *m);
void msg_put_welcome(struct wire_writer *w, const struct msg_welcome *m);
void msg_put_change(struct wire_writer *w, const struct msg_change *m);
void msg_put_position(struct wire_writer *w, const struct msg_position *m);
void msg_put_ack(struct wire_writer *w, const struct msg_ack *m);
void msg_put_call(struct wire_writer *w, const struct msg_call *m);
void msg_put_result(struct wire_writer *w, const struct msg_result *m);
void msg_put_cancel(struct wire_writer *w, const struct msg_cancel *m);
void msg_put_holds(struct wire_writer *w, const struct msg_holds *m);
void msg_put_client(struct wire_writer *w, const struct msg_client *m);
void msg_put_promote(struct wire_writer *w, const struct msg_promote *m);
void msg_put_fenced(struct wire_writer *w, const struct msg_fenced *m);
void msg_put_lock(struct wire_writer *w, const struct msg_lock *m);

int msg_get_hello(const uint8_t *p, size_t len, struct msg_hello *ret);
int msg_get_welcome(const uint8_t *p, size_t len, struct msg_welcome *ret);
int msg_get_change(const uint8_t *p, size_t len, struct msg_change *ret);
int msg_get_position(const uint8_t *p, size_t len, struct msg_position *ret);
int msg_get_ack(const uint8_t *p, size_t len, struct msg_ack *ret);
int msg_get_call(const uint8_t *p, size_t len, struct msg_call *ret);
int msg_get_result(const uint8_t *p, size_t len, struct msg_result *ret);
int msg_get_cancel(const uint8_t *p, size_t len, struct msg_cancel *ret);
int msg_get_holds(const uint8_t *p, size_t len, struct msg_holds *ret);
int msg_get_client(const uint8_t *p, size_t len, struct msg_client *ret);
int msg_get_promote(const uint8_t *p, size_t len, struct msg_promote *ret);
int msg_get_fenced(const uint8_t *p, size_t len, struct msg_fenced *ret);
int msg_get_lock(const uint8_t *p, size_t len, struct msg_lock *ret);

#endif
