/* SPDX-License-Identifier: MIT
 *
 * cluster: what a store that others follow keeps beside its files: the epochs that it went through, the last calls of each
 * remote mount, and which orphans nobody needs any more. All of it is changed by ordinary changes, so all members have the
 * same.
 *
 * Threading, durability and errors as in keys.h.
 */
#ifndef MSYNCFS_CLUSTER_H
#define MSYNCFS_CLUSTER_H

#include "core/keys/keys.h"

/* A replica commits nothing of its own: on one, every changing call of keys.h and of this file gives -EROFS, but for
 * keys_reap() and keys_compact(), and reading does not change access times. */

/* Epochs ---------------------------------------------------------------------------------------------------------- */

#define KEYS_HISTORY_MAX 64u

struct keys_epoch {
	uint64_t epoch;
	uint64_t first_seq;             /* of its first change, which is of type EPOCH */
	uint64_t nonce;                 /* two that began the same epoch differ in it */
	uint8_t uuid[16];               /* of the store that began it */
	uint64_t next_ino;              /* numbers below it belong to earlier epochs */
};
/* Begin an epoch: one change, which also leaves 2^24 inode numbers out. Only a primary (-EPERM); the epoch must be above
 * the one in force and not below what was promised (-EINVAL). -EAGAIN: the beginning of the one in force is not on disk yet, or space
 * is being made; call again after `progress`.
 * keys_open() does it (epoch in force + 1, or what was promised if that is more) for a primary that was not closed in order,
 * or whose epoch is below its promise, before anybody can see what is left; one that is to follow (store_options.follow)
 * becomes a replica there instead. So a promotion is store_set_identity() with the
 * role and the promise of the new term together, then, when that is on disk, this. A crash in between ends the same. */
int keys_begin_epoch(struct keys *k, uint64_t epoch);
/* The last `max` epochs, ascending. */
int keys_history(struct keys *k, struct keys_epoch *ret, unsigned max, unsigned *ret_count);

/* Calls of remote mounts ------------------------------------------------------------------------------------------ */

#define KEYS_CALL_SLOTS 32u     /* a client has at most so many calls without an answer */

/* The next operation is the call `request` of `client` (both not 0): the record that completes it says so, and what it
 * resulted in can be asked for ever after. Until keys_set_caller(k, 0, 0), which is due when the operation has returned,
 * whatever it returned. An operation is complete with its last record; those that make several (keys_fallocate()) may be
 * cut off between them, and calling them again is right then. One that changed nothing leaves no trace. */
void keys_set_caller(struct keys *k, uint64_t client, uint64_t request);
/* Was it completed? 0: its seq, and the number of the inode that was made or of bytes that were written (0 for others).
 * -ENOENT: it changed nothing so far. -ESTALE: so old that it is not known any more. */
int keys_call_result(struct keys *k, uint64_t client, uint64_t request, uint64_t *ret_seq, uint64_t *ret_number);
/* The client will never come back: one change. -ENOENT. */
int keys_forget_client(struct keys *k, uint64_t client);
/* First client with a number >= from, and the seq of its last completed call. -ENOENT. */
int keys_next_client(struct keys *k, uint64_t from, uint64_t *ret_client, uint64_t *ret_seq);

/* Orphans ---------------------------------------------------------------------------------------------------------- */

/* Nobody has it open, on no machine: one change, after which keys_reap() may remove it anywhere. 0 also if it is marked
 * already; -ENOENT: no orphan. Changes of a marked orphan give -ESTALE. */
int keys_mark_orphan(struct keys *k, uint64_t ino);
/* -ENOENT: no orphan. */
int keys_orphan_marked(struct keys *k, uint64_t ino, bool *ret_marked);

/* Joining ---------------------------------------------------------------------------------------------------------- */

/* Take another store's hash seed, by which names are keyed. Only while there is nothing but the root directory, and that is
 * empty: -ENOTEMPTY. Waits for the disk. */
int keys_adopt_seed(struct keys *k, uint64_t seed);

#endif
