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
	bool incomplete;                /* also a replica whose first sync is not complete; else -EINPROGRESS */
	bool follow;                    /* a primary is a replica from this opening on (keys_open(); DESIGN.md, O10a) */
	bool threads;
	uint64_t max_bytes;             /* most the file may grow to; 0 = as stored, or the disk */
	bool refuse_larger;             /* -EINVAL if the file is larger than max_bytes already, and they are new to it */
	unsigned sync_interval_s;       /* background sync; 0 = only when asked */
	unsigned wait_s;                /* how long to wait for a daemon that is closing it */
	/* While it waits, every few ms: process pid (0: not known) of this machine has the store, and no mount of it is seen
	 * here. It may be closing it, or serve a mount that was taken away while files were open. 0: wait on; -EBUSY, with
	 * err_set(): wait no more. NULL: wait. */
	int (*waiting)(void *ctx, unsigned pid, unsigned waited_ms);
	void *waiting_ctx;
	const char *holder_mount;       /* for messages: where it is mounted */
	const struct sys_ops *sys;      /* NULL = the system's */
	/* Called from a helper when durable_seq moved, the store failed or space was freed. Must not block or call in. */
	void (*progress)(void *ctx);
	void *progress_ctx;
	/* Request thread: called for each change that was committed and applied, not for internal records, nor while
	 * recovering. rec is the whole record as it stands in the journal, valid during the call. Must not block, change the
	 * store or fail. NULL: nobody follows. (keys_open() may commit one before it returns: the epoch's first change.) */
	void (*committed)(void *ctx, const uint8_t *rec, uint32_t len);
	void *committed_ctx;
};

/* Errors that an opener sees, beside errno: see err_last() for the text.
 * -EBUSY in use, -EMEDIUMTYPE not a store, -ENODATA empty, but was a store, -EPROTONOSUPPORT newer format, -EUCLEAN damaged,
 * -EISDIR, -EROFS, -EINPROGRESS incomplete replica... */

/* [any] Sequence number of the last committed change / of the last one known to be on disk. */
uint64_t store_seq(const struct store *s);
uint64_t store_durable_seq(const struct store *s);
/* [any] 0, or the negative errno that made the store fail for good. */
int store_failed(const struct store *s);
/* [any] Is the file still as long as it should be? 0, or the error that made the store fail, now or before. One fstat. */
int store_check_file(struct store *s);
/* [any] The byte of its file at which the store was found cut short by somebody else, or unreadable; false: it was not. */
bool store_lost(const struct store *s, uint64_t *ret_byte);
/* Request thread: map_guard() has left a call into the store half-way. It has failed, whoever waits is told; what can still
 * be verified can still be read. */
void store_left_halfway(struct store *s);
/* [any] Ask the syncer to make everything up to now durable; returns at once (progress follows). */
void store_sync_request(struct store *s);
/* [any that may wait, so no request thread that others wait for] Make everything committed before the call durable: this thread makes the
 * msync itself, unless one is under way; those who come meanwhile share the next. -EAGAIN: nothing can become durable
 * before a rebase is (store_rebasing()). */
int store_sync(struct store *s);
/* Request thread. 0: this change is on disk. -EAGAIN: it is asked for, `progress` tells; without threads it is on disk on return. */
int store_settle(struct store *s, uint64_t seq);
/* Request thread: cut a checkpoint now (-EAGAIN: one is being written, -ENOSPC); with threads it is written in the background: done when
 * store_checkpoint_seq() >= the store_seq() at the call. Without threads it is complete on return. */
int store_checkpoint(struct store *s);
uint64_t store_checkpoint_seq(const struct store *s);   /* [any] */
/* Request thread: cheap housekeeping (finish a checkpoint, release space, cut one when due); call it between requests. */
int store_poll(struct store *s);
/* Request thread: true if store_poll() has something to do soon even without requests. */
bool store_is_dirty(const struct store *s);
/* [any] Goes up when an msync begins and when it ends: odd, and the same for long: the disk hangs. */
uint64_t store_disk_turns(const struct store *s);
/* [any] A checkpoint is being written: what waits for space goes on when it is done. */
bool store_is_writing(const struct store *s);

/* What the store is to others. It is kept in the superblock. */
enum store_role { STORE_ALONE, STORE_PRIMARY, STORE_REPLICA };
struct store_identity {
	enum store_role role;
	uint8_t cluster[16];            /* zeros: it never was part of one */
	uint64_t promised_epoch;        /* nobody with a lower epoch is obeyed */
	bool incomplete;                /* a replica that is no state of its primary yet */
};
/* Request thread. As last set, also if that is not on disk yet. */
void store_identity(const struct store *s, struct store_identity *ret);
/* Request thread: set it, at once for all that asks here. It goes to disk with a superblock of its own (two pages are
 * synced, no checkpoint), off this thread: it is there when store_identity_durable() >= *ret_ticket, which `progress` tells
 * (and store_poll() moves on if a checkpoint was being written just then); without threads on return. A crash leaves the
 * old one or the new one, whole. -EINVAL: it cannot be (a promise taken back, incomplete but no replica), -EROFS. */
int store_set_identity(struct store *s, const struct store_identity *id, uint64_t *ret_ticket);
uint64_t store_identity_durable(const struct store *s);         /* [any] */
/* Where the program may wait (when it starts, in a tool; the request thread is meant, but it serves nobody now): as
 * store_set_identity(), durable on return. */
int store_put_identity(struct store *s, const struct store_identity *id);
bool store_is_replica(const struct store *s);
void store_uuid(const struct store *s, uint8_t ret_uuid[16]);
/* Was it closed in order the last time, so that no change was lost that somebody may have seen? True of a new one. */
bool store_was_clean(const struct store *s);
/* Request thread. The epoch that records are given from now on. It is durable with the first of them. */
uint64_t store_epoch(const struct store *s);
void store_set_epoch(struct store *s, uint64_t epoch);
/* [any] Read blocks of contents that a record names, past the mapping. They may have been given to others meanwhile, so the
 * caller compares checksums afterwards. -ESTALE: they are no longer there. */
int store_read_blocks(const struct store *s, uint64_t block, uint64_t count, void *buf);

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
	enum store_role role;
	bool incomplete;
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
/* The same where what it was opened for came to nothing: a store that this opening made, and that has no file yet, is taken
 * away again. What was an empty file is one again. */
int store_abandon(struct store *s);

/* 0: a change that needs at most `blocks` blocks (contents and tree) can be made. -EAGAIN: space is being made, see
 * `progress`. -ENOSPC. -EROFS: read-only or failed. frees: the change gives space back and may use the reserve. */
int store_reserve(struct store *s, uint64_t blocks, bool frees);
/* The same for a change that fills blocks which its file has already (fallocate): half of the reserve may be used for what
 * the tree needs for that. */
int store_reserve_paid(struct store *s, uint64_t blocks);
struct record *store_record(struct store *s);   /* the one record being built */
/* Append the record built in store_record() and apply it. An error is final for the store, but for -EAGAIN and
 * -E2BIG (too long), which leave everything as it was. */
int store_commit(struct store *s);

struct tree *store_tree(struct store *s);
uint64_t store_now_ns(const struct store *s);
uint64_t store_hash_seed(const struct store *s);
/* Another store's seed for one that has no names yet (see keys_adopt_seed()). May wait, as store_put_identity(); durable on
 * return, so that no name is ever in the journal before the seed that finds it. */
int store_put_hash_seed(struct store *s, uint64_t seed);
int store_random(const struct store *s, void *buf, size_t len);
/* Counters that the superblock keeps; apply maintains them. */
struct store_counts {
	uint64_t inodes, next_ino;
};
struct store_counts *store_counts(struct store *s);

/* Contents. Blocks for a change being built: at least one, at most `want`, contiguous. */
int store_alloc(struct store *s, uint64_t want, uint64_t *ret_block, uint64_t *ret_count);
/* The same for what store_fill() will fill: from 64 KiB on they are of those that nobody faults in ahead. */
int store_alloc_bulk(struct store *s, uint64_t want, uint64_t *ret_block, uint64_t *ret_count);
int store_free(struct store *s, uint64_t block, uint64_t count, uint64_t gen);
/* Blocks that a record names were written: an fsync has to sync them. */
void store_unsynced(struct store *s, uint64_t block, uint64_t count);
/* Blocks allocated before this generation will be changed in place (unwritten ones). -EUCLEAN: they must not be. */
int store_touch(struct store *s, uint64_t block, uint64_t count);
/* Bytes of contents were stored there. In a damaged store something may name the block as a tree page too, which was
 * verified before: so this comes before the tree is looked at again. */
void store_written(struct store *s, uint64_t block, uint64_t count);
uint64_t store_gen(const struct store *s);
/* Put bytes into blocks of store_alloc_bulk() or store_stage(); includes store_written(). From a few blocks on with system calls,
 * which costs a third where the pages are not there (map_write()): for what comes from other machines, not for what a program
 * waits for. -EUCLEAN: they cannot be contents. Other errors: the blocks hold anything. */
int store_fill(struct store *s, uint64_t block, uint64_t count, const void *bytes);
/* Address of blocks that an item names; NULL with -EUCLEAN in *ret_error if they cannot be contents. */
void *store_blocks(const struct store *s, uint64_t block, uint64_t count, int *ret_error);
struct space *store_space(struct store *s);
bool store_read_only(const struct store *s);
/* A path by which this process can open the file once more, as a snapshot, whatever became of its name; also :memory:. */
void store_path(const struct store *s, char *buf, size_t size);
/* Block behind which nothing should stand, since the file is mostly free; 0: no need to move anything. */
uint64_t store_compact_limit(const struct store *s);
/* A change without a record went wrong half-way: no checkpoint may be cut any more. */
void store_broken(struct store *s, int error);
/* Another's state ------------------------------------------------------------------------------------------------- */
/* A replica that was too long away does not get the changes that it missed, but what they led to: the tree is edited
 * without records (keys/edit.h), and with the next checkpoint the store has the other one's state and its number. Crash
 * argument: DESIGN.md section 4, O11.
 *
 * Blocks for contents that come in before anything leads to them: at least one, at most `want`, contiguous. They count as
 * free on disk, so a crash leaks nothing; they stay the caller's over checkpoints. -ENOSPC; ask store_reserve() first. */
int store_stage(struct store *s, uint64_t want, uint64_t *ret_block, uint64_t *ret_count);
/* They become contents of the present generation. */
int store_use_staged(struct store *s, uint64_t block, uint64_t count);
/* They are free again. */
int store_drop_staged(struct store *s, uint64_t block, uint64_t count);
/* The tree was edited without a record, and `blocks` blocks of contents became part of it. Until a checkpoint is durable
 * no record may be committed, since replay would not find what it builds on: edits and store_rebase() are one step of
 * the request thread, or the store is one that nobody uses yet. */
void store_edited(struct store *s, uint64_t blocks);
/* 0: edits that need at most `blocks` blocks, then store_rebase(), will succeed if they follow at once. -EAGAIN: not yet, a
 * checkpoint is being written or space is being made (`progress` tells). -ENOSPC, -EROFS. Nothing is done. */
int store_rebase_ready(struct store *s, uint64_t blocks);
struct store_base {
	uint64_t seq, epoch;            /* of the state that the tree has now */
	uint64_t hash_seed;             /* by which its names are keyed */
};
/* After the edits: the state is that of `base`, the journal begins anew behind it, and a checkpoint is cut. With threads
 * it is written in the background. Until it is on disk (store_rebasing()) all changes get -EAGAIN, and
 * store_durable_seq() is lower than base->seq. Any error is final for the store: on disk is the old state, whole. */
int store_rebase(struct store *s, const struct store_base *base);
/* [any] A rebase is not durable yet: wait for `progress` until this is false or store_failed() says why not. */
bool store_rebasing(const struct store *s);
/* Records committed since the store was opened, internal ones too. */
uint64_t store_commits(const struct store *s);

/* Some places changed without a record; done: as far as is possible. */
void store_compacted(struct store *s, bool done);
/* Blocks that only deletes and checkpoints may use. */
uint64_t store_reserved_blocks(const struct store *s);
/* Blocks the disk would still give, as last seen by a helper. */
uint64_t store_disk_free_blocks(const struct store *s);

#endif
