/* SPDX-License-Identifier: MIT
 *
 * lock_op: what is asked of a lock table (locks.h), and as bytes: calls (CALL.md), and the statement with which a client says
 * what it holds. Pure. Bytes that cannot be are refused; there is one encoding of each.
 */
#ifndef MSYNCFS_LOCK_OP_H
#define MSYNCFS_LOCK_OP_H

#include "core/base.h"
#include "core/replica/wire.h"

#define LOCKS_CLIENT_MAX  4096u         /* held by one client: as many as it can restate */
#define LOCKS_NAME_MAX    255u
#define LOCKS_RECORD_SIZE 58u
#define LOCKS_STATE_MAX   (16u + LOCKS_NAME_MAX + LOCKS_CLIENT_MAX * LOCKS_RECORD_SIZE)
#define LOCKS_END         UINT64_MAX    /* last byte of a lock to the end of the file */

enum lock_kind { LOCKS_POSIX = 1, LOCKS_FLOCK = 2 };
enum lock_type { LOCKS_OFF = 0, LOCKS_SHARED = 1, LOCKS_EXCLUSIVE = 2 };

struct lock_op {
	uint64_t ticket;                /* not 0 */
	uint64_t ino, owner;
	uint64_t handle;                /* open file through which it is set; stays on its machine; 0: not said */
	uint64_t start, end;            /* first and last byte; of flocks 0 and LOCKS_END */
	uint32_t pid;                   /* only shown */
	uint8_t kind, type;             /* enum lock_kind, lock_type */
	bool wait;
};

/* Can it be at all? */
bool lock_op_fits(const struct lock_op *op);

/* As calls (CALL.md): op numbers in CALL_LOCK_FIRST to CALL_LOCK_LAST. */
enum lock_call { LOCK_CALL_SET = 32, LOCK_CALL_GET = 33, LOCK_CALL_CANCEL = 34, LOCK_CALL_PROBES = 35, LOCK_CALL_PROBED = 36 };
#define LOCK_CALL_SIZE 56u
/* Of CANCEL only the ticket counts; so it does of PROBES and PROBED, where it is the round, or the number of the probe.
 * Returns the length; buf has LOCK_CALL_SIZE bytes. */
size_t lock_call_encode(enum lock_call what, const struct lock_op *op, uint8_t *buf);
/* Are these bytes a call of a lock? */
bool lock_call_is(const uint8_t *bytes, size_t len);
int lock_call_decode(const uint8_t *bytes, size_t len, enum lock_call *ret_what, struct lock_op *ret);

/* A statement: a number of its own, the client's name, and so many locks (at most LOCKS_CLIENT_MAX). */
struct lock_statement {
	uint64_t round;
	const uint8_t *name;            /* of the bytes that were decoded */
	uint32_t name_len, count;
	struct wire_reader records;
};
/* Into LOCKS_STATE_MAX bytes: first this, */
void lock_statement_begin(struct wire_writer *w, uint64_t round, const char *name, uint32_t count);
/* then each lock, with its fencing number. */
void lock_statement_put(struct wire_writer *w, const struct lock_op *op, uint64_t epoch, uint64_t counter);
/* All of it is looked at; no bytes are a statement of nothing. -EPROTO. */
int lock_statement_decode(const uint8_t *bytes, size_t len, struct lock_statement *s);
/* The next of `count`. */
bool lock_statement_next(struct lock_statement *s, struct lock_op *op, uint64_t *epoch, uint64_t *counter);

#endif
