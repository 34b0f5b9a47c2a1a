/* SPDX-License-Identifier: MIT
 *
 * primary: the side of a link that feeds: who is connected, what each has, what to send next, calls that came and their
 * results, holds, when an fsync is done, and the planned handing over to another. The same engine serves a relay: then
 * its calls are passed on instead of run.
 *
 * Pure steps: no socket, clock, thread or disk. All of it belongs to one thread (the net thread), `now` is milliseconds of a
 * clock that does not stop in suspend; one that jumps costs patience, never data. Effects go through struct primary_ops,
 * whose functions must not call back into the engine. Steps only note what is due; primary_pump() sends. Memory is
 * bounded by the constants below. What is durable is said by the caller: primary_durable(), primary_handed().
 *
 *   OFF        refuses everyone (told who is the primary, if known)
 *   LEADS      the primary of epoch `epoch`
 *   RELAYS     a replica that feeds others; paused: its own link is down, so it feeds nobody until it is up again
 *   PARKED     LEADS, but new calls are left unanswered: it waits until the target of a switch-over has everything
 *   HANDING    the target has everything: the caller makes durable that this store is primary no more
 *
 * Invariants:
 * (P1) Nothing is obeyed of who is in a lower epoch, and a higher one ends ours at once.
 * (P2) A replica is fed behind a position that both histories have, one change after the other.
 * (P3) A call is run once for each connection that brought it, in order; whether it was run before says the client's item
 *      in the store, at the moment when it is run. An answer goes only to the run that the client waits for (token).
 * (P4) An answer that needs disks is given when `synced` has reached its seq; synced counts only what was acknowledged
 *      in this epoch on a connection that streams.
 * (P5) An orphan is marked only if everyone who is connected has acknowledged what made it one (who is gone for less than a
 *      lease: as durable), and does not hold it.
 * (P6) No peer waits for another one: what cannot be sent to one stays where it is.
 * (P7) What comes with a limited key says nothing about the cluster: it ends no epoch, counts for no fsync, takes nothing
 *      over, and is nobody but itself: not a store or client that another key was seen with. One that is limited to a
 *      directory feeds nobody and is fed by the primary only, and its client's number says whose it is (key_client()),
 *      so that it can use up no number of another client's calls.
 * (P8) Who stands still (its calls are not run) feeds nobody and lets nobody in, and forgets nobody meanwhile: a lease begins
 *      when it goes on. So a call that gets no answer is on a link that ends (R7).
 */
#ifndef MSYNCFS_PRIMARY_H
#define MSYNCFS_PRIMARY_H

#include "core/replica/idset.h"
#include "core/replica/message.h"

typedef uint64_t link_t;        /* a connection; never used twice; 0: none */

#define PRIMARY_PEERS_MAX   128u        /* connected, or gone for less than a lease */
#define PRIMARY_CLIENTS_MAX 4096u
#define PRIMARY_LOCKS_MAX   8192u       /* answers about locks that one peer does not read */
#define PRIMARY_WAITS_MAX   64u
#define PRIMARY_BATCH       64u         /* changes to one peer in one pump */
#define PRIMARY_SYNC_ALL    UINT32_MAX

enum primary_state { PRIMARY_OFF, PRIMARY_LEADS, PRIMARY_RELAYS, PRIMARY_PARKED, PRIMARY_HANDING };
enum peer_state { PEER_NEW, PEER_STREAMS, PEER_DIFFS, PEER_REFUSED, PEER_CLOSED, PEER_GONE };

struct primary_peer;

/* A call for the request thread. bytes are valid during the call of ops->run only. */
struct primary_run {
	uint64_t token;                 /* of this run; comes back in primary_result() */
	link_t link;
	uint64_t client, session, request, low;
	const uint8_t *bytes;
	uint32_t len;
	const char *tree;               /* of the key by which it came: nothing outside may be changed. NULL: no such limit */
};

struct primary_result {
	int32_t error;
	bool sync;                      /* answer it when disks have it: those that sync_replicas says, or, if `counted`, */
	seq_t seq;
	uint64_t number;
	bool counted;                   /* ours and those of `replicas` others; -ETIMEDOUT after wait_ms */
	uint32_t replicas, wait_ms;     /* replicas: as sync_replicas below, never fewer than that */
};

struct primary_ops {
	/* A frame. -EAGAIN: full, primary_writable() will come; else negative: the link is gone (primary_closed() comes). */
	int (*send)(void *ctx, link_t link, unsigned type, const void *bytes, uint32_t len);
	/* The change head->seq as a frame MSG_CHANGE; the caller of this fills in what is missing in head (change_epoch and
	 * the bytes). -ENOENT: the feed does not reach back to it. Else as send. */
	int (*send_change)(void *ctx, link_t link, const struct msg_change *head);
	/* What was sent goes out, then the link is closed. primary_closed() follows later. */
	void (*close)(void *ctx, link_t link, const char *reason);
	/* Our history and last position. */
	void (*history)(void *ctx, struct history *ret);
	/* Queue a call. -EAGAIN: its frame is taken back, and comes again later. */
	int (*run)(void *ctx, const struct primary_run *run);
	/* Nobody waits for it any more; it may be run all the same. */
	void (*cancel)(void *ctx, uint64_t token, uint64_t client, uint64_t request);
	/* A diff for a peer, opaque. start: 0 or negative (refused, try later). frame: as primary_frame(). */
	int (*diff_start)(void *ctx, link_t link, const struct msg_hello *hello);
	int (*diff_frame)(void *ctx, link_t link, unsigned type, const uint8_t *bytes, uint32_t len);
	void (*diff_stop)(void *ctx, link_t link);
	/* A client is here (again), with all locks that it has; NULL: it does not say, they stay; those outside of `tree` (or NULL)
	 * it cannot have. Left: its link broke. Expired: a lease ago; negative: not
	 * now, it is said again. */
	void (*client_here)(void *ctx, const struct primary_run *who, const uint8_t *locks, uint32_t len);
	void (*client_left)(void *ctx, uint64_t client, uint64_t session);
	int (*client_expired)(void *ctx, uint64_t client);
	/* The first peer holds this inode; the last one does not any more (relays pass it on). */
	void (*held)(void *ctx, uint64_t ino, bool held);
	/* A higher epoch was heard of. If we were the primary, we are not any more (P1). Make the promise durable. */
	void (*fenced)(void *ctx, uint64_t promised);
	/* Park local changes, or let them go on. */
	void (*park)(void *ctx, bool park);
	/* Make durable: this store is a replica, promised = next. Then primary_handed(). But only if its last change is `seq`: one that
	 * was made while the parking was on its way to who makes changes would be lost. If there is one: primary_went_on(). */
	void (*hand_over)(void *ctx, uint64_t next, seq_t seq);
	/* It was told, and is where to connect now. */
	void (*handed)(void *ctx, const uint8_t store[16], const char *name);
	/* An fsync up to here is done. */
	void (*synced)(void *ctx, seq_t seq);
	/* One line for the log. link 0: about no peer. */
	void (*note)(void *ctx, link_t link, const char *text);
	/* The end of primary_wait(): 0, -ETIMEDOUT, or -ECANCELED: not the primary any more. */
	void (*waited)(void *ctx, uint64_t cookie, int error);
};

struct primary_options {
	uint8_t cluster[16], store[16];
	uint64_t hash_seed;
	uint64_t features, required;    /* of messages */
	uint16_t version;               /* MSG_VERSION; tests pretend others */
	uint32_t lease_ms;              /* 10000 */
	uint32_t keep_ms;               /* 1000: POSITION at least this often */
	uint32_t sync_replicas;         /* 0: fsync needs this disk; N: N that are fed from here too; PRIMARY_SYNC_ALL: all
	                                   that are in step, and those behind them */
	uint32_t sync_wait_ms;          /* 10000: longest that a fsync waits for replicas; then EIO */
	uint32_t switch_wait_ms;        /* 10000: longest that a switch-over parks changes */
};

struct primary;

/* NULL: no memory. OFF at first. */
struct primary *primary_new(const struct primary_options *o, const struct primary_ops *ops, void *ctx);
void primary_free(struct primary *p);

/* Roles ------------------------------------------------------------------------------------------------------------ */

/* Begin as the primary of epoch: role, promise and the EPOCH change are durable or committed. All peers of another role
 * are closed. For a lease nothing is marked. */
void primary_lead(struct primary *p, uint64_t epoch, uint64_t promised, seq_t last, seq_t durable, uint64_t now);
/* Begin to feed others as a replica, in the epoch of its own link, or go on after primary_pause(). What is on the primary's disk
 * is to be said again (primary_durable()). */
void primary_relay(struct primary *p, uint64_t epoch, uint64_t promised, seq_t last, uint64_t now);
/* A relay: its own link is over, or its state makes a jump. Those who are fed have to come again, and are let in when it
 * relays again; what they hold counts for a lease, as of anybody who is gone. */
void primary_pause(struct primary *p, const char *reason);
/* The stores that this one follows, or tries to: its own primary, whom that one follows, and so on, 16 bytes each. None of them is
 * let in: relays in a circle would feed nobody. Those that ask are told. */
void primary_set_path(struct primary *p, const uint8_t *stores, uint32_t count);
/* Of its own features what it can pass on from now on. */
void primary_set_features(struct primary *p, uint64_t features);
/* This machine stands still: calls are not run, or nothing becomes durable (fs/still.c says when). Its links end with this reason,
 * and nobody is let in until it goes on (NULL): so to everybody it is as if the links had broken. What those who are gone hold
 * and have locked counts for a lease from then on, since they could not come back before. */
void primary_stand_still(struct primary *p, const char *reason, uint64_t now);
/* Feed nobody: peers are closed. name: who is the primary, for those who ask; may be "". */
void primary_off(struct primary *p, const char *reason, const char *name);
/* OFF: whom this store follows, for those who ask; may be "". */
void primary_elsewhere(struct primary *p, const char *name);
/* The cluster was taken from the primary. */
void primary_set_cluster(struct primary *p, const uint8_t cluster[16], uint64_t hash_seed);
/* A higher epoch was promised here. */
void primary_promised(struct primary *p, uint64_t promised);

/* Hand over to the replica with this store. -ENOENT: it does not stream here; -EBUSY: one is under way; -EROFS: not the primary. */
int primary_switch(struct primary *p, const uint8_t store[16], uint64_t now);
/* ops->hand_over is durable. */
void primary_handed(struct primary *p, uint64_t now);
/* ops->hand_over has done nothing: changes up to `last` were made before all were parked. The target is to have them first. */
void primary_went_on(struct primary *p, seq_t last, uint64_t now);

/* News ------------------------------------------------------------------------------------------------------------- */

/* The feed has changes up to last; bytes: counter of the bytes of all changes. */
void primary_committed(struct primary *p, seq_t last, uint64_t bytes, uint64_t now);
/* On our disk up to seq. A relay: on the primary's. */
void primary_durable(struct primary *p, seq_t seq);
/* Nothing more will ever become durable here: who waits for that gets EIO. Say what is (primary_durable()) first. */
void primary_disk_failed(struct primary *p);
void primary_set_committed(struct primary *p, seq_t committed);
/* A relay: how stale it is itself. */
void primary_set_stale(struct primary *p, uint32_t stale_ms);
/* A run has ended. Late and unknown ones are ignored. */
void primary_result(struct primary *p, uint64_t client, uint64_t request, uint64_t token, const struct primary_result *res,
		    uint64_t now);
/* What became of a lock: to the client's peer, behind what was sent before; the epoch is filled in. If it is not reached just
 * now, it states its locks and asks again when it is. */
void primary_lock(struct primary *p, const struct msg_lock *m);
/* Say when seq is on our disk and on those of `replicas` others, and where every fsync has to be (ops->waited, perhaps at
 * once). -EBUSY: too many wait. */
int primary_wait(struct primary *p, uint64_t cookie, seq_t seq, uint32_t replicas, uint32_t wait_ms, uint64_t now);
/* The diff of a peer ended badly on our side. */
void primary_diff_failed(struct primary *p, link_t link, const char *reason);

/* Links ------------------------------------------------------------------------------------------------------------ */

#define PRIMARY_PEER_READ_ONLY 1u       /* its key allows no calls */

/* A link opened. -EBUSY, -ENOMEM: close it. */
int primary_opened(struct primary *p, link_t link, unsigned flags, uint64_t now);
/* (P7) Right behind it: its key is limited. tree: to what is below that directory; NULL: otherwise. It lives as long as the engine.
 * tag: of the key (key_tag()). */
void primary_limit(struct primary *p, link_t link, const char *tree, uint32_t tag);
/* 0; -EAGAIN: not now; read nothing more of the link, and give this frame again later; -EOPNOTSUPP: an unknown type;
 * else negative: close the link, err_last() is the reason. */
int primary_frame(struct primary *p, link_t link, unsigned type, const uint8_t *bytes, uint32_t len, uint64_t now);
void primary_writable(struct primary *p, link_t link);
void primary_closed(struct primary *p, link_t link, uint64_t now);
/* Leases, waits, signs of life. At least every keep_ms / 2. */
void primary_tick(struct primary *p, uint64_t now);
/* Send what is due. true: there is more, call it again. */
bool primary_pump(struct primary *p, uint64_t now);

/* Questions -------------------------------------------------------------------------------------------------------- */

/* (P5) Orphans whose last names were taken up to this change may be marked, but for those that somebody holds; 0: none. Our own
 * kernel is the caller's business. When the last one lets go of an inode, ops->held() tells. */
seq_t primary_mark_limit(const struct primary *p, uint64_t now);
bool primary_holds(const struct primary *p, uint64_t ino);
enum primary_state primary_state(const struct primary *p);
uint64_t primary_epoch(const struct primary *p);
/* Highest seq for which an fsync is done. */
seq_t primary_synced(const struct primary *p);
/* The least that those who are fed have, at most the given own positions; how many they are, itself included. A relay hands it
 * to replica_tree() behind the holds that it was told of before (ops->held), in the same order (R5). */
void primary_tree(const struct primary *p, seq_t *applied, seq_t *durable, uint32_t *count);
/* Is nothing under way that was handed to ops->run? */
bool primary_idle(const struct primary *p);

struct primary_peer_status {
	link_t link;
	enum peer_state state;
	uint8_t store[16];
	char name[MSG_NAME_MAX + 1];
	uint64_t client;
	seq_t sent, applied, durable;
	uint64_t lag_seq, lag_bytes, lag_ms;    /* bytes and ms are what samples every few ms say */
	uint32_t tree_count, holds, open_calls;
	bool read_only, blocked;
	bool limited;                   /* its key is */
	const char *tree;               /* to this directory; or NULL */
};
/* The i-th peer. -ENOENT behind the last. */
int primary_peer_status(const struct primary *p, unsigned i, uint64_t now, struct primary_peer_status *ret);

#endif
