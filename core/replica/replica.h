/* SPDX-License-Identifier: MIT
 *
 * replica: the side of a link that is fed: its state, changes in, calls out and when they are answered, acknowledgements,
 * holds, how stale the state is, promotion. A replica that feeds others hands their calls to this engine too.
 *
 * Pure steps: no socket, clock, thread or disk. All of it belongs to one thread (the request thread), `now` is milliseconds
 * of a clock that does not stop in suspend; one that jumps costs patience, never data. Effects go through struct
 * replica_ops, whose functions must not call back into the engine except where it says so. Steps only note what is due;
 * replica_pump() sends.
 *
 *   DOWN      no link                  HELLO    sent, no welcome yet
 *   ASIDE     what diverged is being put aside            DIFF     a diff is under way
 *   STREAM    changes come             LEADING  a promotion is being made durable      LEADS    this is the primary
 *
 * Invariants:
 * (R1) Nothing of an epoch below `promised` is obeyed; a higher one is promised, durably, before anything of it is.
 * (R2) Changes are applied one after the other, the next one being last + 1.
 * (R3) A call is answered when the change that it made, or saw, is applied here, and its result came on this very link.
 * (R4) Calls without an answer are sent again on each new link, in order, with their numbers.
 * (R5) A hold is sent before the acknowledgement of the change that made the orphan.
 * (R6) After own changes were lost (put aside), the next fsync of each object that they were made to gives EIO.
 * (R7) A call uses up its patience (wait_ms) only while no changes stream.
 * (R8) A call that was sent once is not sent again later than REPLICA_RESEND_MS after it was made: what it may have done is
 *      not remembered for ever (fs/clients.h).
 */
#ifndef MSYNCFS_REPLICA_H
#define MSYNCFS_REPLICA_H

#include "core/replica/idset.h"
#include "core/replica/message.h"
#include "core/replica/primary.h"

#define REPLICA_CALLS_MAX 8192u                 /* of this mount and of those that it feeds */
#define REPLICA_BYTES_MAX (64u << 20)           /* of these calls */
#define REPLICA_NEWS_MAX  512u                  /* holds and releases not yet sent; more: a new hello */
#define REPLICA_OBJECTS   1024u
#define REPLICA_RESEND_MS (25u * 3600 * 1000)   /* no call is sent again that was made so long ago; the longest wait_ms is a day */

enum replica_state { REPLICA_DOWN, REPLICA_HELLO, REPLICA_ASIDE, REPLICA_DIFF, REPLICA_STREAM, REPLICA_LEADING, REPLICA_LEADS };
enum replica_policy { REPLICA_WAIT, REPLICA_READONLY, REPLICA_ERROR };

#define REPLICA_CALL_SYNC  1u           /* an fsync: its answer waits for disks */
#define REPLICA_CALL_WRITE 2u           /* a change to `object`, which an fsync of it would make durable */

struct replica_answer {
	int32_t error;
	uint32_t flags;                 /* RESULT_SYNC */
	seq_t seq;
	uint64_t number;
};

struct replica_ops {
	/* A frame in two parts. -EAGAIN: full, replica_writable() will come; else negative: the link is gone. */
	int (*send)(void *ctx, link_t link, unsigned type, const void *head, uint32_t head_len, const void *body,
		    uint32_t body_len);
	/* What was sent goes out, then the link is closed; the engine has left it already. */
	void (*close)(void *ctx, link_t link, const char *reason);
	/* Our history and last position. */
	void (*history)(void *ctx, struct history *ret);
	/* Apply the next change. May call replica_hold(). -EAGAIN: no space now; the frame comes again. Else negative: the link is
	 * closed; -EPROTO: it does not fit this store, and the next hello asks for a diff. */
	int (*apply)(void *ctx, const struct msg_change *c);
	/* Make durable: no message below epoch is obeyed. Then replica_promised(). */
	void (*promise)(void *ctx, uint64_t epoch);
	/* Cluster, hash seed, epoch... before the first change. A relay stops first (primary_pause()): -EAGAIN until it
	 * has; and begins again when changes stream. -EAGAIN: the frame comes again; else negative: refused. */
	int (*welcome)(void *ctx, const struct msg_welcome *w);
	/* Put the state aside: behind `common` it has what nobody else has. Then replica_aside_done(). */
	void (*aside)(void *ctx, uint64_t epoch, seq_t last, seq_t common);
	/* A diff, opaque; it ends with replica_diff_done(). frame: 0, -EAGAIN or another error. */
	int (*diff_start)(void *ctx, link_t link, const struct msg_welcome *w);
	int (*diff_frame)(void *ctx, link_t link, unsigned type, const uint8_t *bytes, uint32_t len);
	void (*diff_stop)(void *ctx, link_t link);
	/* The locks that this mount holds, to be restated: at most max bytes; returns how many. May call replica_cancel(). */
	uint32_t (*locks)(void *ctx, uint8_t *buf, uint32_t max);
	/* A call of this mount has its answer. */
	void (*answer)(void *ctx, uint64_t cookie, const struct replica_answer *a);
	/* A call that was handed over by replica_forward() has its answer. */
	void (*forwarded)(void *ctx, uint64_t client, uint64_t session, uint64_t request, uint64_t token,
			  const struct replica_answer *a);
	/* LEADS: run what was left over from before, with its number; then replica_local_result(), also within this call. */
	void (*run)(void *ctx, uint64_t client, uint64_t request, uint64_t low, const uint8_t *bytes, uint32_t len);
	/* Become the primary of `epoch`: durable promise and role, then the EPOCH change. Then replica_led(). */
	void (*lead)(void *ctx, uint64_t epoch);
	/* Refused: the primary is said to be `name`. */
	void (*elsewhere)(void *ctx, const char *name);
	/* The position of the primary came. May be NULL. */
	void (*news)(void *ctx);
	void (*note)(void *ctx, const char *text);
	/* What became of a lock, of this client or of one behind it. May be NULL: then nothing is said of locks. May call replica_cancel(). */
	void (*lock)(void *ctx, const struct msg_lock *m);
};

struct replica_options {
	uint8_t cluster[16], store[16];
	uint64_t client;                /* random, of this run */
	uint64_t features, required;
	uint16_t version;
	enum replica_policy policy;
	uint32_t wait_ms;               /* 10000 */
	uint32_t max_stale_ms;          /* 0: no limit */
	uint64_t fresh_at;              /* `now` when the state was last known to be the primary's; 0: it never was in this run */
	uint32_t flags;                 /* HELLO_READ_ONLY, HELLO_FEEDS, HELLO_REPLACE */
	const char *name;               /* where it can be reached; copied; may be "" */
	seq_t committed;                /* as the store has it */
};

struct replica;

/* epoch, last, durable, promised: as the store has them. NULL: no memory. */
struct replica *replica_new(const struct replica_options *o, const struct replica_ops *ops, void *ctx, uint64_t epoch,
			    seq_t last, seq_t durable, uint64_t promised);
/* Calls without an answer get EIO. */
void replica_free(struct replica *r);

/* Links ------------------------------------------------------------------------------------------------------------ */

/* A link opened: the hello goes out. Not in LEADING and LEADS: -EBUSY. */
int replica_opened(struct replica *r, link_t link, uint64_t now);
/* As primary_frame(). Frames of a link that was left are ignored. */
int replica_frame(struct replica *r, link_t link, unsigned type, const uint8_t *bytes, uint32_t len, uint64_t now);
void replica_writable(struct replica *r, link_t link);
void replica_closed(struct replica *r, link_t link, uint64_t now);
void replica_tick(struct replica *r, uint64_t now);
/* Send what is due. true: there is more. */
bool replica_pump(struct replica *r, uint64_t now);

/* Effects that were done ------------------------------------------------------------------------------------------- */

void replica_promised(struct replica *r, uint64_t epoch);
void replica_durable(struct replica *r, seq_t durable);
/* 0, or negative: the link is closed and it is tried again. */
void replica_aside_done(struct replica *r, int result, uint64_t now);
/* The store is at (epoch, seq) of the primary's line, durably. May be called from ops->diff_frame. */
void replica_diff_done(struct replica *r, uint64_t epoch, seq_t seq, uint64_t now);
void replica_diff_failed(struct replica *r, const char *reason, uint64_t now);
/* As a relay: what those who are fed have, see primary_tree(). */
void replica_tree(struct replica *r, seq_t applied, seq_t durable, uint32_t count);

/* Calls ------------------------------------------------------------------------------------------------------------ */

struct replica_call {
	uint64_t cookie;                /* comes back in ops->answer */
	uint64_t object;                /* inode, 0: all of them */
	uint32_t flags;
	const uint8_t *bytes;           /* copied */
	uint32_t len;
};
/* 0: ops->answer will come, later. Negative: this is the answer (EROFS or EIO by the policy, EIO by R6, ENOMEM). -EAGAIN: too
 * many; again when some were answered. */
int replica_call(struct replica *r, const struct replica_call *c, uint64_t now);
/* Nobody waits any more (an interrupt): ops->answer comes with -EINTR, in this call. False: it has its answer. */
bool replica_cancel(struct replica *r, uint64_t cookie);
/* The own call with the lowest number from `from` on that was numbered and has no answer yet: its number, or 0: there is none. Until it
 * has, what it has changed here is known to nobody but this mount. */
uint64_t replica_waiting(const struct replica *r, uint64_t from, uint64_t *ret_cookie);
/* A call of one who is fed: sent on with its numbers. -EAGAIN: later; else negative: that link is to be closed. */
int replica_forward(struct replica *r, const struct primary_run *run, uint64_t now);
/* Nobody waits for that one any more. */
void replica_forward_cancel(struct replica *r, uint64_t client, uint64_t request, uint64_t token);
/* The client came (locks: restated), or went: its calls are forgotten. */
void replica_client(struct replica *r, uint64_t client, uint64_t session, uint64_t low, bool gone, const uint8_t *locks,
		    uint32_t len);
void replica_local_result(struct replica *r, uint64_t client, uint64_t request, const struct replica_answer *a);

/* A change to `object` that this mount made otherwise (as a primary). */
void replica_wrote(struct replica *r, uint64_t object, seq_t seq);
/* -EIO, once, if changes to `object` were lost (R6); else 0. */
int replica_sync_check(struct replica *r, uint64_t object);

/* State anew what this mount has (locks, holds): a new hello on the same link. Without a stream nothing: the next one is to come. */
void replica_restate(struct replica *r, uint64_t now);

/* HELLO_INCOMPLETE, HELLO_REPLACE... from the next hello on. */
void replica_set_flags(struct replica *r, uint32_t flags);

/* Orphans ---------------------------------------------------------------------------------------------------------- */

/* The kernel here (fed: one of those that are fed, see primary_ops.held) knows this inode without a name. */
void replica_hold(struct replica *r, uint64_t ino, bool fed);
void replica_release(struct replica *r, uint64_t ino, bool fed);

/* Those behind it may hold what is not known here yet (a relay that was started again): until that is over, everything counts
 * as held. Before the first link; false at any time. */
void replica_hold_all(struct replica *r, bool all);

/* Who led, and follows again, feeds nobody: what was held before it led, and what those behind it had, is of no use. Nothing is held
 * from here on, by the kernel here or by those that are fed, until it is said again. Before the first link. */
void replica_hold_none(struct replica *r);

/* Roles ------------------------------------------------------------------------------------------------------------ */

/* Become the primary, by hand. -EBUSY: in a diff, or its beginning was not reached; *ret_epoch is the epoch to come. */
int replica_promote(struct replica *r, uint64_t now);
/* ops->lead is done: the EPOCH change has seq. What calls were left over are run. */
void replica_led(struct replica *r, uint64_t epoch, seq_t last, uint64_t now);
/* Starts as the primary (opening a store whose role that is). */
void replica_start_leading(struct replica *r, uint64_t epoch, seq_t last);
/* LEADS: a change was committed. */
void replica_committed(struct replica *r, uint64_t epoch, seq_t last);
/* Not the primary any more: follow whoever it is. `promised` is on its way to the disk; replica_promised() when it is there.
 * -EBUSY: LEADING; that has to end first. */
int replica_follow(struct replica *r, uint64_t promised, uint64_t now);

/* Questions -------------------------------------------------------------------------------------------------------- */

/* The store of whoever answered a hello last, also with a refusal, then whom that one follows, and so on, as far as it knew and
 * up to this store itself: 16 bytes each. Returns how many, at most MSG_PATH_MAX; 0: nobody has answered yet. */
uint32_t replica_path(const struct replica *r, uint8_t *ret_stores);

struct replica_status {
	enum replica_state state;
	link_t link;
	uint64_t epoch, promised, link_epoch, client, session;
	seq_t applied, durable, primary_last, primary_durable;
	uint64_t primary_bytes;         /* counter of the bytes of all its changes, at primary_last: lag is a difference */
	uint64_t stale_ms;              /* it is known that the state was the primary's so long ago */
	uint32_t open_calls, holds;
	uint8_t refused;                /* enum msg_refusal: what the last welcome said; REFUSED_NONE: it was one */
	uint64_t features;              /* of the link that streams */
};
void replica_status(const struct replica *r, uint64_t now, struct replica_status *ret);
/* Milliseconds since the state was known to be the primary's. */
uint64_t replica_stale_ms(const struct replica *r, uint64_t now);
/* -ESTALE if reads must fail now (max-stale). */
int replica_may_read(const struct replica *r, uint64_t now);

#endif
