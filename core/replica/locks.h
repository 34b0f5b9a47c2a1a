/* SPDX-License-Identifier: MIT
 *
 * locks: who holds and who waits for which lock of which inode, on all machines. The primary's table decides; a remote
 * mount has one with its own locks only, from which it restates them (locks_state()).
 *
 * An owner is a client (a run of a mount) and a number that the client's kernel gave. POSIX locks are ranges that are split
 * and merged; a flock is one lock of the whole file for each owner. The two kinds do not see each other, as in Linux.
 * Each grant has a fencing number (epoch, counter), higher than all before it.
 *
 * Invariants:
 * (L1) No two locks of one kind that conflict are held by different owners.
 * (L2) A waiter waits for a lock that is held, or for an earlier waiter that it conflicts with. The latter only if its process
 *      holds nothing: who holds something and stood behind others could make a circle that nobody sees.
 * (L3) A lock is asked for by a ticket, unique for its client. Asked twice, it is granted once.
 * (L4) In the grace period nothing is granted but what is restated; who asks, waits.
 * (L5) Who asks without waiting is refused because of a lock only if that was really held after the question came: the kernel
 *      says a moment late what a close or an exit gave up, and nobody waits for that. So the client that has the lock is asked,
 *      a *probe*, and says behind all its unlocks that it has no more of them. Not if it cannot be asked.
 *
 * Pure: no clock, thread, socket. All of one table belongs to one thread. Nothing here is ever on disk. Bounded by the constants
 * below: what is too much gets ENOLCK. Requests may hold anything; what cannot be gets EINVAL.
 */
#ifndef MSYNCFS_LOCKS_H
#define MSYNCFS_LOCKS_H

#include "core/replica/lock_op.h"

#define LOCKS_MAX        65536u         /* held and waiting, of all clients */
#define LOCKS_WAIT_MAX   1024u          /* waiting, of one client */
/* What became of a request. */
struct lock_answer {
	uint64_t client, round, ticket;
	int error;                      /* 0; -EAGAIN, -EDEADLK, -EINTR, -ENOLCK, -EINVAL */
	bool lost;                      /* no answer: a lock that was restated is another's by now; ticket is 0 */
	uint8_t kind, type;             /* asked for; of a query: what is in the way, LOCKS_OFF: nothing */
	uint32_t pid;
	uint64_t holder;                /* of a query: the client in whose way it is */
	uint64_t ino, owner, start, end;
	uint64_t epoch, counter;        /* fencing number; 0 if nothing was granted */
};

/* Must not call back into the table. */
typedef void lock_answer_fn(void *ctx, const struct lock_answer *a);

/* (L5) Ask the client, which has made its statement `round`; locks_probed() is to follow. The same holds. */
typedef void lock_probe_fn(void *ctx, uint64_t client, uint64_t round, uint64_t number);

struct locks;

/* NULL: no memory. */
struct locks *locks_new(lock_answer_fn *answer, lock_probe_fn *probe, void *ctx);
void locks_free(struct locks *t);

/* Decide from now on. Fencing numbers begin behind (epoch, counter), as do the numbers of probes behind the latter. grace: (L4),
 * until locks_grace_end(). */
void locks_lead(struct locks *t, uint64_t epoch, uint64_t counter, bool grace);
void locks_grace_end(struct locks *t);
/* Decide no more: what others have is forgotten, and all who wait, without an answer. */
void locks_follow(struct locks *t, uint64_t client);

/* Lock or unlock. Answered now or later. */
void locks_request(struct locks *t, uint64_t client, const struct lock_op *op);
/* What would be in the way of it? Answered now. */
void locks_query(struct locks *t, uint64_t client, const struct lock_op *op);
/* Nobody waits any more: answered with -EINTR if it still waits. */
void locks_cancel(struct locks *t, uint64_t client, uint64_t ticket);

/* (L5) Since this statement of its locks the client answers probes, until it leaves. */
void locks_probes(struct locks *t, uint64_t client, uint64_t round);
/* What its programs gave up before it was asked is unlocked by now. */
void locks_probed(struct locks *t, uint64_t client, uint64_t number);
/* The newest probe that somebody may wait for; 0: nobody does. */
uint64_t locks_probing(const struct locks *t);
/* Nobody waits any longer for this probe or an older one. */
void locks_probe_end(struct locks *t, uint64_t number);

/* The client has exactly these locks; what it waited for, it asks for again. bytes are what locks_state() wrote; none: it has
 * none. -EPROTO with a text: it cannot be; then it has what it had. may (or NULL): may it have a lock of this inode? Else it is
 * told that it has lost it. */
int locks_restate(struct locks *t, uint64_t client, const uint8_t *bytes, size_t len, bool (*may)(void *ctx, uint64_t ino),
		  void *ctx);
/* It cannot be reached: it waits no more, and keeps what it holds. */
void locks_leave(struct locks *t, uint64_t client);
/* Its lease is over. */
void locks_expire(struct locks *t, uint64_t client);

/* Of a table that does not decide: this was granted (or unlocked) elsewhere. -ENOLCK: too many. */
int locks_note(struct locks *t, uint64_t client, const struct lock_op *op, uint64_t epoch, uint64_t counter);
/* All that the client holds, as bytes, with its name and the number of this statement, which later answers to it repeat.
 * buf has LOCKS_STATE_MAX bytes. */
size_t locks_state(const struct locks *t, uint64_t client, uint64_t round, const char *name, uint8_t *buf);
/* The name that is shown. */
void locks_name(struct locks *t, uint64_t client, const char *name);

bool locks_holds(const struct locks *t, uint64_t client, uint64_t ino, uint64_t owner, enum lock_kind kind,
		 enum lock_type *ret_type);
/* An owner of POSIX locks that were set through this open file. */
bool locks_of_handle(const struct locks *t, uint64_t client, uint64_t ino, uint64_t handle, uint64_t *ret_owner);
/* One line for each lock and each waiter; returns the length of all, of which at most size - 1 bytes and a NUL were written. */
size_t locks_to_text(const struct locks *t, char *buf, size_t size);
/* Whether all invariants hold that can be seen from outside; for tests. */
bool locks_check(const struct locks *t);
void locks_count(const struct locks *t, unsigned *ret_held, unsigned *ret_waiting);

#endif
