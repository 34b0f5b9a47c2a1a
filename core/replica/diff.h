/* SPDX-License-Identifier: MIT
 *
 * diff: a replica becomes equal to a checkpoint of the primary, and only what differs is carried over (replica/DESIGN.md
 * section 5). Two pure state machines: no socket, clock, thread or random number of their own. Messages leave through
 * `send` and come in through diff_source_message() and diff_target_message(), in order and complete; the bytes are told
 * in diff_wire.h. The target asks for everything, so it decides how much is under way, and the source only answers.
 *
 * Threading: a source belongs to one thread, with the snapshot that it reads, and may wait for the disk; its steps run in
 * map_guard(), as whatever touches a mapping. A snapshot is opened by store_path() of the store. A target belongs
 * to the request thread of its store; each step is short (about 100 us, when what it reads is in memory), so that requests
 * go on in between.
 * What comes from the peer is not trusted: -EPROTO, with a text, for what cannot be. A hostile source can make strange items,
 * which readers validate, and nothing else; a hostile target can read what the key lets it read.
 */
#ifndef MSYNCFS_DIFF_H
#define MSYNCFS_DIFF_H

#include "core/keys/keys.h"

#define DIFF_MESSAGE_MAX (1u << 20)     /* longest payload of a message */

/* Types of messages; the owner of the connection maps them into its own. */
enum diff_type {
	/* source to target */
	DIFF_BEGIN = 1, DIFF_RANGES = 2, DIFF_ANSWERS = 3,
	/* target to source */
	DIFF_MORE = 4, DIFF_ASK = 5, DIFF_END = 6,
};

/* Takes the bytes over (copies them). 0; -EAGAIN: not now, nothing was taken: step again when there is room; other errors
 * end the diff. */
typedef int (*diff_send_fn)(void *ctx, enum diff_type type, const void *bytes, size_t len);

/* What a step or a message leads to, when it is not an error. */
enum diff_state {
	DIFF_BUSY,      /* there is more to do: step again */
	DIFF_IDLE,      /* waits for a message */
	DIFF_FULL,      /* `send` said -EAGAIN */
	DIFF_SPACE,     /* target: waits for space, or for a checkpoint: step again after the store's `progress` */
	DIFF_READY,     /* target: all is here, diff_target_apply() is next. source: the target has ended it */
};

struct diff_progress {
	uint64_t total_bytes;           /* of the source's store, about */
	uint64_t done_bytes;            /* of what is known to be equal or is here already */
	uint64_t received_bytes;        /* messages */
	uint64_t sent_bytes;
	uint64_t items, items_differ;   /* compared, about; of those: put or taken away */
	uint64_t staged_blocks;         /* contents that came */
	uint64_t damaged_blocks;        /* of those: damaged at the source already, and known as damaged here, too */
	uint64_t ranges, ranges_differ;
	uint64_t seq, epoch;            /* of the state that is carried over; 0 before BEGIN came */
};

/* Source ----------------------------------------------------------------------------------------------------------- */
struct diff_source;
/* k was opened read-only as a snapshot, and stays open until diff_source_free(). seed: random, new for each diff; with it
 * nobody who writes to the store can know what will have equal digests. */
int diff_source_new(struct keys *k, uint64_t seed, diff_send_fn send, void *ctx, struct diff_source **ret);
void diff_source_free(struct diff_source *s);
/* A message of the target. 0, or -EPROTO. */
int diff_source_message(struct diff_source *s, unsigned type, const void *bytes, size_t len);
/* At most one message is made and sent. enum diff_state, or an error. */
int diff_source_step(struct diff_source *s);

/* Target ----------------------------------------------------------------------------------------------------------- */
/* What becomes different by applying: for caches elsewhere. Called within diff_target_step() (direct) and
 * diff_target_apply(); must not call into the store. The same inode may be told more than once. */
struct diff_change {
	uint64_t ino;                   /* its attributes, contents or extended attributes; of a name: the directory */
	const char *name;               /* NULL: no name changed */
	uint32_t len;
};

struct diff_target_options {
	diff_send_fn send;
	void (*changed)(void *ctx, const struct diff_change *change);   /* may be NULL */
	/* Before the checkpoint is cut, in the same step: whatever else the superblock has to say with it (no longer
	 * incomplete). May be NULL. An error makes the store fail. */
	int (*commit)(void *ctx, uint64_t seq, uint64_t epoch);
	void *ctx;
	/* false, *staged*: the store is read as it is meanwhile, and changes in the one step diff_target_apply().
	 * true, *direct*: nobody uses the store; what comes is applied at once, so that the same comparison goes on where it
	 * was after an interruption. The caller has durably marked the store as incomplete before. */
	bool direct;
	/* Where what is staged is kept: a folder, or NULL for memory. The file never has a name. */
	const char *folder;
};
struct diff_target;
/* From here on to diff_target_free() nothing else changes the store: no record is committed, nothing is reaped. */
int diff_target_new(struct keys *k, const struct diff_target_options *options, struct diff_target **ret);
/* Everything that was staged and not applied is given up; the store has its old state, and all its blocks. */
void diff_target_free(struct diff_target *t);
/* A message of the source: copied. 0; -EPROTO; -ENOMEM. The target never has more under way than 16 MiB. */
int diff_target_message(struct diff_target *t, unsigned type, const void *bytes, size_t len);
/* A little work. enum diff_state, or an error: -ENOSPC, -EPROTO, -EUCLEAN (own damage), -EIO (own staging file)...: then
 * diff_target_free() leaves the old state (direct: an incomplete one). */
int diff_target_step(struct diff_target *t);
/* After DIFF_READY: all in one step, about 2 us for each item that differs, then store_rebase(). 0: the store has the
 * source's state, its seq, epoch and hash seed; it is durable, and may be changed again, when store_rebasing() is false.
 * -EAGAIN: nothing was done, try again after the store's `progress`. -ENOSPC: nothing was done. -ESTALE: the store was
 * changed meanwhile by something else, nothing was done. Other errors: the store has failed, on disk is the old state. */
int diff_target_apply(struct diff_target *t);
void diff_target_progress(const struct diff_target *t, struct diff_progress *ret);

#endif
