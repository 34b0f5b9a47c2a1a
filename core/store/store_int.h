/* SPDX-License-Identifier: MIT
 *
 * store_int: the inside of struct store, for the files of core/store that share it.
 *
 * Locks: sync_lock (store_sync() callers), ext_lock, journal.lock, wake_lock, map.turn_lock. All are leaves, never held over a
 * system call that may block on the disk. The request thread takes only ext_lock, journal.lock and wake_lock.
 * Fields: [R] request thread only; [A] atomic; [W] under wake_lock; [E] under ext_lock; [S] owned by whoever has set `syncing`;
 * [K] owned by the checkpointer while ckpt_state is CKPT_WRITING, by the request thread otherwise; [C] constant.
 */
#ifndef MSYNCFS_STORE_INT_H
#define MSYNCFS_STORE_INT_H

#include "core/store/journal.h"
#include "core/store/record.h"
#include "core/store/space.h"
#include "core/store/store.h"
#include "core/store/super.h"
#include "core/store/tree.h"

#include <pthread.h>

#define GEN_STEP       (1ull << 20)     /* generations reserved by a superblock */
#define STORE_MIN      (8ull << 20)     /* smallest store, bytes */
#define FIRST_BLOCKS   8192u            /* 32 MiB: a new store's size */
#define GROW_MAX       262144u          /* 1 GiB: longest step of growth */
#define GROW_MIN       256u             /* 1 MiB: shortest, when the disk refuses more */
#define SPARES         (JOURNAL_KEPT + 2u)      /* journal segments kept ready */
#define GROW_EAGER     262144u          /* 1 GiB: up to here the file grows before anything waits */
#define CUT_PAGES      32768u           /* tree pages of C at which a checkpoint is cut */
#define CUT_PAGES_LARGE 16384u          /* the same in a file of more than GROW_EAGER */
#define AHEAD_PAGES    131072u          /* and at which changes wait for the one before */
#define JOURNAL_DUE    (32u << 20)      /* bytes of journal at which a checkpoint is cut */
#define JOURNAL_AHEAD  (3u * JOURNAL_DUE)       /* and at which changes wait for the one before */
#define EXT_RANGES     64u
#define DIRT_MAX_NS    (30ull * 1000000000u)    /* a checkpoint at least this long after the first change */

enum ckpt_state { CKPT_IDLE, CKPT_WRITING, CKPT_DONE };

struct store_range {
	block_t block;
	uint64_t count;
};

/* From the request thread to the provisioner. */
struct range_ring {
	struct store_range at[8];
	_Atomic unsigned head, tail;
};

struct store {
	struct sys_ops sys;             /* [C] */
	struct store_client client;     /* [C] */
	void (*progress)(void *ctx);    /* [C] */
	void *progress_ctx;             /* [C] */
	void (*committed)(void *ctx, const uint8_t *rec, uint32_t len);         /* [C] */
	void *committed_ctx;            /* [C] */
	bool read_only;                 /* [C] */
	bool threads;                   /* [C] */
	bool memory;                    /* [C] a memfd */
	bool live;                      /* [C] after opening */
	bool closing;                   /* [R] the next checkpoint is the last */
	unsigned sync_interval_s;       /* [C] */
	int fd;                         /* [C] */
	char *made_path;                /* [C] the file that this opening made a store of, NULL: it was one */
	bool made_name;                 /* [C] there was not even an empty file */
	uint64_t store_id;              /* [C] */

	struct map map;
	struct space space;             /* [R]; its frozen part [K] */
	struct tree tree;               /* [R] */
	struct journal journal;
	struct record record;           /* [R] */
	struct store_counts counts;     /* [R] */
	struct super super;             /* [R] what the superblock in force says */
	struct super next;              /* [K] what the one being written says */
	struct super own;               /* [R] the identity as it is to be; only its fields are used */
	uint64_t own_version;           /* [R] counts changes of it */
	uint64_t next_version;          /* [R] the one in `next` */
	_Atomic uint64_t durable_version;       /* [A] */
	bool flip_only;                 /* [R] set at the cut, [K] while writing: `next` is D with another identity */
	bool was_clean;                 /* [C] */

	_Atomic int failed;             /* [A] first error that made it fail, negative */
	_Atomic seq_t durable_seq;      /* [A] */
	_Atomic jpos_t durable_pos;     /* [A] journal synced up to here */
	_Atomic jpos_t ckpt_pos;        /* [A] nothing before is needed */
	_Atomic seq_t ckpt_seq;         /* [A] */
	_Atomic int ckpt_state;         /* [A] enum ckpt_state */
	bool ckpt_pinned;               /* [K] a reader holds the checkpoint that was in force */
	bool changed;                   /* [R] since the last cut */
	uint64_t commits;               /* [R] since it was opened */
	uint64_t changed_ns;            /* [R] when the first of these was, monotonic */
	jpos_t cut_pos;                 /* [R] where the last cut was */
	unsigned gone_segments;         /* [R] old segments that F counts as free */
	uint64_t max_blocks;            /* [C] most the file may grow to, 0 = the disk */
	enum { TAIL_KEEP, TAIL_CUT, TAIL_GIVE } tail;   /* [R] giving back the end: no; waits for its checkpoint; being truncated */
	uint64_t tail_total;            /* [R] blocks that are to stay */
	uint64_t compact_limit;         /* [R] 0 = nothing to move */
	bool compact_done;              /* [R] it came to its end since the last checkpoint completed */
	block_t compacted_end;          /* [R] the end after the last compaction: more was not possible */
	unsigned tail_free_seen;        /* [R] checkpoints in a row that found the end free */
	_Atomic uint64_t shrink_wanted; /* [A] blocks to cut the file to, 0 = none */
	uint64_t no_spare_total, no_spare_flip; /* [R] when no segment could be found */
	uint64_t spared_total;          /* size of the file when spare segments were last looked for; 0: never */
	uint64_t named_blocks;          /* [R] extents named since the last cut */

	pthread_mutex_t sync_lock;
	pthread_cond_t sync_over;
	bool syncing;                   /* under sync_lock: somebody is at a sync */
	pthread_mutex_t ext_lock;
	struct store_range ext[EXT_RANGES];     /* [E] written, not synced */
	unsigned ext_count;                     /* [E] */
	unsigned rebases;                       /* [E] how often durable_seq began anew */
	_Atomic bool rebasing;                  /* [A] set and cleared under ext_lock: a rebase's checkpoint is being written */
	_Atomic uint64_t ext_blocks;            /* [A] */

	_Atomic uint64_t oldest_ns;             /* [A] wall clock of the oldest change not on disk, 0 = none */
	_Atomic uint64_t last_sync_ns, last_sync_took_ns, syncs;                /* [A] */
	_Atomic unsigned segment_syncs;         /* [A] that ended in the journal's segment synced_serial */
	uint64_t synced_serial;                 /* [S] */
	_Atomic uint64_t last_ckpt_ns, last_ckpt_took_ns, ckpts;                /* [A] */
	_Atomic uint64_t grows, disk_blocks;    /* [A] disk_blocks: of the file and free on its disk, as last seen */
	_Atomic uint64_t grown_ns;              /* [A] monotonic: the last growth */
	uint64_t recovered;             /* [C] */
	uint64_t salvage_groups;        /* [C] groups of the file, if it is opened for salvage */

	pthread_mutex_t wake_lock;
	pthread_cond_t sync_wake, ckpt_wake, prov_wake;
	bool sync_wanted, ckpt_wanted, prov_wanted, stop;       /* [W] */
	_Atomic bool prov_asleep;       /* [A] */
	_Atomic uint64_t grow_wanted;   /* [A] blocks, 0 = none */
	_Atomic bool grow_refused;      /* [A] the disk (or the limit) gave nothing when last asked */
	_Atomic uint64_t grow_refused_ns;       /* [A] monotonic */
	struct range_ring fresh;        /* runs to be faulted in */
	struct range_ring filled;       /* to be written back */
	struct store_range filling;     /* [R] filled, and not posted yet */
	jpos_t populated_pos;           /* provisioner's; so are these */
	block_t written_seg[JOURNAL_SEGS];      /* journal segments whose blocks were all written once; a ring */
	unsigned written_segs;
	unsigned threads_started;
	pthread_t thread[3];
};

/* store.c */
void store_fail(struct store *s, int error);
void store_progress(struct store *s);
/* [R] What was cut is written: by the checkpointer, or here. */
int store_write_cut(struct store *s);
/* [R] The journal gets a segment: whatever stood there is no tree page any more. */
int store_add_segment(struct store *s, block_t first);

/* identity.c */
/* [R] Is there a change of it that is not on disk? */
bool identity_waits(const struct store *s);
/* [R] Cut a superblock for it, unless one is being written (which may have it already). */
int identity_write(struct store *s);

/* checkpoint.c */
/* [R] Cut: everything so far is F. -ENOSPC, -EUCLEAN; nothing happens if one is under way. */
int checkpoint_cut(struct store *s, bool clean);
/* [checkpointer] Write F and flip. */
int checkpoint_write(struct store *s);
/* [R] If F is on disk, make it D and release what waited. */
int checkpoint_finish(struct store *s);
/* The superblock in force was found in block `force`: make it whole in its other place too (opening only). */
int checkpoint_repair(struct store *s, block_t force);
/* Write sb to the slot that is not in force and msync it (opening only). */
int checkpoint_flip(struct store *s, struct super *sb);
/* [R] Cut a superblock that differs from D by its identity only (or by what was set in s->super), if none is being written. checkpoint_write() and
 * checkpoint_finish() follow as usual. */
void checkpoint_cut_identity(struct store *s);
/* Spare segments that a checkpoint does not give back. */
unsigned checkpoint_keep_segments(const struct store *s);
/* [R] Before the last checkpoint: whoever opens the store next needs few. */
int checkpoint_drop_spares(struct store *s);

/* recovery.c */
int recovery_format(struct store *s, const struct store_options *o);
int recovery_load(struct store *s, const struct store_options *o);
/* Space, tree and journal over the mapping, as s->super says; pages are made in generation gen. */
int recovery_start_parts(struct store *s, gen_t gen);
/* Do the extents that a record names hold what it says? */
int recovery_extents_whole(struct store *s, const struct record_reader *reader, uint64_t *named);

/* salvage.c */
int salvage_open(struct store *s, const struct store_options *o);

/* file.c: the store file as the file system has it */
int file_open(const struct store_options *o, int *ret_fd, bool *ret_new, bool *ret_memory, bool *ret_unnamed,
	      bool *ret_made);
/* A new file gets its name, now that it is a store. */
int file_publish(const struct store_options *o, int fd, bool unnamed);
/* A new file does not become a store, or is none any more: it is empty and unmarked again. If we made it, and it has its
 * name already, it goes. */
void file_discard(const char *path, int fd, bool made);
/* Note beside the contents that this file is a store, so that one which is cut to nothing is not taken for a new file. After
 * the store is on disk: a crash leaves a marked file only with a store in it. Best effort. */
void file_mark(int fd, const struct super *sb);
/* Pin the checkpoint in force for a reader beside the daemon; *ret_sb is its superblock. */
int file_pin(const struct store_options *o, int fd, struct super *ret_sb);
/* Does a reader hold a pin? */
bool file_is_pinned(int fd);
uint64_t file_disk_free_blocks(int fd);
/* What a memfd may still get without anything being pushed out but caches; 0: not known. */
uint64_t file_memory_free_blocks(void);
/* How large the file could become on its disk, as it is now. A helper, or at opening. */
void store_measure_disk(struct store *s);

/* provision.c */
int store_provision(struct store *s);
/* [R] Give the provisioner something to do; false: it has too much. */
bool provision_post(struct store *s, struct range_ring *ring, struct store_range range);
bool provision_has_room(const struct range_ring *ring);
bool provision_is_posted(const struct store *s);

/* tail.c */
/* [R] After a checkpoint has completed: is there an end to give back? */
int tail_look(struct store *s);
/* [R] Blocks the map has grown by are taken into account, unless the end is being given back. */
int tail_grown(struct store *s);

/* worker.c */
int workers_start(struct store *s);
void workers_stop(struct store *s);
void store_wake_provisioner(struct store *s);

#endif
