/* SPDX-License-Identifier: MIT
 *
 * lockd: locks of this mount's programs that count on all machines, and, on a primary, those of all the others
 * (core/replica/locks.h decides). Request thread only, but for the hooks of feeder*.c.
 *
 * A request of the kernel becomes an entry. On a primary the entry asks the table; on a remote mount it is sent as a call, which is
 * answered at once with "taken", and what became of it comes as a message of its own (MSG_LOCK): so a program that waits for a lock
 * neither holds up later calls nor uses up the numbers of calls. The table of a remote mount has what was granted
 * to it; that is what it states in each hello.
 *
 * Invariants:
 * (K1) Each statement has a number, the round. An answer of another round is void: what it granted was not in the
 *      statement, so the primary has forgotten it. Entries without an answer are sent again after each statement. Of an
 *      entry that has its answer no call is left to be sent again.
 * (K2) A program has its lock when this store has all that was changed before the grant, and the kernel was told of it: who
 *      locks sees what the last holder wrote.
 * (K3) An unlock takes effect here at once, and never fails: what is not stated is free.
 * (K4) A probe (locks.h, L5) is answered behind all that programs here had given up before it came: the kernel does not wait for
 *      RELEASE, so what it had said by then is read first (session_barrier()), and the answer stands behind the unlocks.
 */
#ifndef MSYNCFS_LOCKD_H
#define MSYNCFS_LOCKD_H

#include "core/replica/locks.h"
#include "core/replica/message.h"
#include "core/replica/primary.h"
#include "fs/fs.h"

struct lockd;

/* Cookies of calls: those of locks have this bit. */
#define LOCKD_COOKIE (1ull << 63)

int lockd_new(struct remote *l, struct lockd **ret);
/* Programs that wait get EIO. */
void lockd_free(struct lockd *d);

/* For ops_lock.c. The ticket is given here. They answer the request, now or later. */
void lockd_set(struct lockd *d, fuse_req_t req, struct lock_op *op);
void lockd_get(struct lockd *d, fuse_req_t req, struct lock_op *op);
/* An open file is closed for good: with it go what was set through it, and, if there was a flock, that of the owner. */
void lockd_close(struct lockd *d, uint64_t ino, uint64_t handle, bool flock, uint64_t owner);
/* False: no such request waits here. */
bool lockd_interrupt(struct lockd *d, uint64_t unique);
/* For session.c: what the kernel had sent when this barrier was asked for has been dealt with. */
void lockd_barrier(struct lockd *d, uint64_t number);
/* Returns the length of all, of which at most size - 1 bytes are written. */
size_t lockd_to_text(const struct lockd *d, char *buf, size_t size);

/* For remote.c and follower.c. */
/* This is the primary. grace: others may hold locks that are not known here yet. */
void lockd_lead(struct lockd *d, uint64_t epoch, bool grace);
void lockd_follow(struct lockd *d);
/* This was the primary, and may decide nothing any more. */
void lockd_fenced(struct lockd *d);
/* A call of a lock. 0: it is one, and may be run; negative: what its RESULT says. The RESULT has to go out before it is run, and
 * so before what becomes of the lock: who has the latter need not ask again, whatever happens to the link. */
struct lockd_call {
	enum lock_call what;
	struct lock_op op;
};
int lockd_take(const struct lockd *d, const struct primary_run *run, uint32_t len, struct lockd_call *ret);
void lockd_run(struct lockd *d, uint64_t client, const struct lockd_call *c);
void lockd_client_here(struct lockd *d, const struct primary_run *who, const uint8_t *bytes, uint32_t len);
void lockd_client_left(struct lockd *d, uint64_t client);
void lockd_client_expired(struct lockd *d, uint64_t client);
/* replica_ops.locks and .lock; and a call with LOCKD_COOKIE was answered. */
uint32_t lockd_state(struct lockd *d, uint8_t *buf, uint32_t max);
void lockd_message(struct lockd *d, const struct msg_lock *m);
void lockd_result(struct lockd *d, uint64_t cookie, int error);
void lockd_step(struct lockd *d);

#endif
