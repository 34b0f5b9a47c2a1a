/* SPDX-License-Identifier: MIT
 *
 * store: the order of everything. Owns the mapping, space, tree, journal and checkpoints; commits records; recovers.
 *
 * Threading: "request thread" calls must all come from one thread. Calls marked [any] may come from any thread.
 * With threads = true, store_open() starts the syncer, checkpointer and provisioner; without, the owner calls
 * store_sync(), store_checkpoint() and store_provision() itself (tests, tools).
 */
#ifndef MSYNCFS_STORE_H
#define MSYNCFS_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* See DESIGN.md for the order of things. */
struct record;
struct record_reader;
struct store;
struct store_salvage;
struct sys_ops;
struct tree;

struct store_options {
	const char *path;               /* ":memory:" = a memfd */
	bool create;                    /* make it if absent */
	bool read_only;                 /* private mapping: recovers in memory, writes nothing */
	bool snapshot;                  /* with read_only: of the last checkpoint, pinned, also while another process has it open */
	struct store_salvage *salvage;  /* with read_only: of a damaged store, all that is left (salvage.h) */
	bool threads;
	uint64_t max_bytes;             /* most the file may grow to; 0 = as stored, or the disk */
	unsigned sync_interval_s;       /* background sync; 0 = only when asked */
	unsigned wait_s;                /* how long to wait for a daemon that is closing it */
	const char *holder_mount;       /* for messages: where it is mounted */
	const struct sys_ops *sys;      /* NULL = the system's */
	/* Called from a helper when durable_seq moved, the store failed or space was freed. Must not block or call in. */
	void (*progress)(void *ctx);
	void *progress_ctx;
};

/* Errors that an opener sees, beside errno: see err_last() for the text.
 * -EBUSY in use, -EMEDIUMTYPE not a store, -EPROTONOSUPPORT newer format, -EUCLEAN damaged, -EISDIR, -EROFS... */

/* [any] Sequence number of the last committed change / of the last one known to be on disk. */
uint64_t store_seq(const struct store *s);
uint64_t store_durable_seq(const struct store *s);
/* [any] 0, or the negative errno that made the store fail for good. */
int store_failed(const struct store *s);
/* [any] The byte of its file at which the store was found cut short by somebody else, or unreadable; false: it was not. */
bool store_lost(const struct store *s, uint64_t *ret_byte);
/* Request thread: map_guard() has left a call into the store half-way. It has failed, whoever waits is told; what can still
 * be verified can still be read. */
void store_left_halfway(struct store *s);
/* [any] Ask the syncer to make everything up to now durable; returns at once (progress follows). */
void store_sync_request(struct store *s);
/* [any but the request thread with threads] Make everything committed before the call durable; waits. */
int store_sync(struct store *s);
/* Request thread: cut a checkpoint now (-EAGAIN: one is being written, -ENOSPC); with threads it is written in the background: done when
 * store_checkpoint_seq() >= the store_seq() at the call. Without threads it is complete on return. */
int store_checkpoint(struct store *s);
uint64_t store_checkpoint_seq(const struct store *s);   /* [any] */
/* Request thread: cheap housekeeping (finish a checkpoint, release space, cut one when due); call it between requests. */
int store_poll(struct store *s);
/* Request thread: true if store_poll() has something to do soon even without requests. */
bool store_is_dirty(const struct store *s);
/* [any] A checkpoint is being written: what waits for space goes on when it is done. */
bool store_is_writing(const struct store *s);

/* Request thread. A snapshot of the figures. Times are CLOCK_REALTIME ns; 0 = never. */
struct store_status {
	char uuid[37];
	uint64_t seq, durable_seq, checkpoint_seq, epoch, promised_epoch;
	uint64_t journal_pos, durable_pos, checkpoint_pos;  /* bytes, ever growing */
	uint64_t journal_bytes;                 /* segments held */
	uint64_t dirty_bytes;                   /* what an fsync now would write: journal and contents */
	uint64_t uncheckpointed_bytes;          /* pages of the current generation, rebuilt from the journal after a crash */
	uint64_t oldest_unsynced_ns;            /* time of the oldest change not on disk */
	uint64_t last_sync_ns, last_sync_took_ns, syncs;
	uint64_t last_checkpoint_ns, last_checkpoint_took_ns, checkpoints;
	uint64_t file_bytes, max_bytes, used_blocks, free_blocks, pending_blocks;
	uint64_t inodes, grows, recovered_records;
	int failed;                             /* errno, positive, or 0 */
	bool read_only;
};
void store_status(const struct store *s, struct store_status *ret);

/* For keys -------------------------------------------------------------------------------------------------------- */
/* What gives records their meaning. */
struct store_client {
	/* Change the tree as the record says; rec is its header. Called by store_commit() and by recovery. */
	int (*apply)(void *ctx, struct record_reader *reader, const uint8_t *rec);
	/* 1: the extents that the record names hold what it says; 0: they do not, so it did not reach the disk whole. */
	int (*whole)(void *ctx, const struct record_reader *reader);
	/* Put the first items into the tree of a new store. */
	int (*format)(void *ctx);
	/* The store is there (its tree can be read), recovery has not begun. */
	void (*attach)(void *ctx, struct store *s);
	void *ctx;
};
int store_open(const struct store_options *options, const struct store_client *client, struct store **ret_store);
/* Last sync and checkpoint (unless read-only or failed), then close. Returns the error that made it fail, if one did. */
int store_close(struct store *s);

/* 0: a change that needs at most `blocks` blocks (contents and tree) can be made. -EAGAIN: space is being made, see
 * `progress`. -ENOSPC. -EROFS: read-only or failed. frees: the change gives space back and may use the reserve. */
int store_reserve(struct store *s, uint64_t blocks, bool frees);
struct record *store_record(struct store *s);   /* the one record being built */
/* Append the record built in store_record() and apply it. An error is final for the store, but for -EAGAIN and
 * -E2BIG (too long), which leave everything as it was. */
int store_commit(struct store *s);

struct tree *store_tree(struct store *s);
uint64_t store_now_ns(const struct store *s);
uint64_t store_hash_seed(const struct store *s);
/* Counters that the superblock keeps; apply maintains them. */
struct store_counts {
	uint64_t inodes, next_ino;
};
struct store_counts *store_counts(struct store *s);

/* Contents. Blocks for a change being built: at least one, at most `want`, contiguous. */
int store_alloc(struct store *s, uint64_t want, uint64_t *ret_block, uint64_t *ret_count);
int store_free(struct store *s, uint64_t block, uint64_t count, uint64_t gen);
/* Blocks that a record names were written: an fsync has to sync them. */
void store_unsynced(struct store *s, uint64_t block, uint64_t count);
/* Blocks allocated before this generation will be changed in place (unwritten ones). -EUCLEAN: they must not be. */
int store_touch(struct store *s, uint64_t block, uint64_t count);
/* Bytes of contents were stored there. In a damaged store something may name the block as a tree page too, which was
 * verified before: so this comes before the tree is looked at again. */
void store_written(struct store *s, uint64_t block, uint64_t count);
uint64_t store_gen(const struct store *s);
/* Address of blocks that an item names; NULL with -EUCLEAN in *ret_error if they cannot be contents. */
void *store_blocks(const struct store *s, uint64_t block, uint64_t count, int *ret_error);
struct space *store_space(struct store *s);
bool store_read_only(const struct store *s);
/* Block behind which nothing should stand, since the file is mostly free; 0: no need to move anything. */
uint64_t store_compact_limit(const struct store *s);
/* A change without a record went wrong half-way: no checkpoint may be cut any more. */
void store_broken(struct store *s, int error);
/* Some places changed without a record; done: as far as is possible. */
void store_compacted(struct store *s, bool done);
/* Blocks that only deletes and checkpoints may use. */
uint64_t store_reserved_blocks(const struct store *s);
/* Blocks the disk would still give, as last seen by a helper. */
uint64_t store_disk_free_blocks(const struct store *s);

#endif
