/* SPDX-License-Identifier: MIT
 *
 * crash: a model of a file system in plain memory, a generator of random changes that makes each on a store and on the
 * model, and a comparison of all that a store shows with every state the model ever had. The model shares no code with
 * core/keys but the checksum function. Nodes of the model never change once a state has them (copies are made), so that
 * all states stay, and the model can go back to any of them.
 *
 * What is compared: names, types, every attribute, contents, where data and holes are (SEEK_DATA, SEEK_HOLE, st_blocks),
 * link targets, extended attributes, ACLs and what they do to modes, hard links, orphans, the number of inodes.
 */
#ifndef MSYNCFS_CRASH_UTIL_H
#define MSYNCFS_CRASH_UTIL_H

#include "core/base.h"
#include "core/keys/keys.h"
#include "core/store/store.h"

struct model_node;

struct model_state {
	seq_t seq;
	uint64_t hash;
	bool vague;             /* between the parts of a call that the model cannot follow: only readable, not compared */
	uint64_t op;            /* the call that led here */
	unsigned count;
	const struct model_node **nodes;        /* by inode number */
};

/* What a workload likes to do. WORK_JOURNAL fills segment after segment, WORK_GROW a disk that always has a little more
 * room, WORK_TAIL a large file that is mostly given back; WORK_PROGRAMS and WORK_REPLICA are for tests/crash, whose programs make
 * the calls, or whose store gets changes from elsewhere. */
enum work_profile {
	WORK_MIXED, WORK_SMALL, WORK_BIG, WORK_SPACE, WORK_NAMES, WORK_FULL, WORK_JOURNAL, WORK_GROW, WORK_TAIL, WORK_PROGRAMS,
	WORK_REPLICA,
	WORK_PROFILES
};

/* A long write, kept so that it can be made again if it is lost. */
#define WORK_LOST 16u
struct work_lost {
	seq_t seq;
	uint64_t ino, off;
	size_t len;
	const uint8_t *data;
};

struct work {
	struct keys *k;
	uint64_t rng;
	uint64_t real_ns, mono_ns;      /* the clocks that the store sees */
	enum work_profile profile;
	unsigned max_nodes;
	uint64_t ops;                   /* calls made */
	char text[256];                 /* the last of them */
	int expected;                   /* what it should return, as far as the model knows */
	struct model_state *states;     /* all, oldest first; the last is now */
	unsigned state_count, state_room;
	unsigned line;                  /* the state that the last rebase led to: numbers go up from there */
	/* the present, before it becomes a state */
	const struct model_node **nodes;
	unsigned count, room;
	uint64_t version;               /* counts states, also lost ones */
	uint64_t highest_ino;           /* ever given out, also in futures that were lost */
	void *chunks;                   /* memory of the model */
	size_t chunk_left;
	uint64_t reaping;               /* the orphan that the last call was about */
	unsigned refused;               /* calls that met -ENOSPC or -EAGAIN */
	struct work_lost big[WORK_LOST];
	unsigned big_next;
};

/* True while the model itself asks for memory: those who make malloc() fail must not mean it. Volatile: the compiler believes
 * that malloc() does not look. */
extern volatile bool work_own_memory;

uint64_t work_random(struct work *w, uint64_t n);

void work_init(struct work *w, uint64_t seed);
void work_release(struct work *w);
/* k is a new store: what it holds is the first state. */
void work_attach(struct work *w, struct keys *k);
/* One random call. Its result; the model has followed. Aborts the test if store and model disagree on the result, unless
 * the store has failed or the call met -ENOSPC, -EAGAIN, -ENOMEM. */
int work_step(struct work *w);
/* One certain call, as work_step() makes: names must exist where the call needs one, and so must inodes. */
void work_begin(struct work *w);
int work_make(struct work *w, uint64_t dir, const char *name, uint32_t mode, uint64_t rdev);
int work_symlink(struct work *w, uint64_t dir, const char *name, const uint8_t *target, size_t len);
int work_link(struct work *w, uint64_t ino, uint64_t dir, const char *name);
int work_unlink(struct work *w, uint64_t dir, const char *name);       /* or rmdir */
int work_rename(struct work *w, uint64_t od, const char *oname, uint64_t nd, const char *name, unsigned flags);
int work_truncate(struct work *w, uint64_t ino, uint64_t to);
int work_write(struct work *w, uint64_t ino, uint64_t off, const uint8_t *data, size_t len, unsigned kill);
int work_reap(struct work *w, uint64_t ino);
/* The primary begins this epoch. */
int work_epoch(struct work *w, uint64_t epoch);
/* The last calls of this client are not kept any more. */
int work_forget(struct work *w, uint64_t client);
/* An opening has begun one: its change shows in nothing. */
void work_follow_epoch(struct work *w);
/* The store becomes another one's state, under another number, as a replica's does: may it now? Then edits without records;
 * the model has the new state from there on. Then the rest of it (store_rebase()). */
bool work_rebase_ready(struct work *w);
void work_edit(struct work *w, seq_t seq);
int work_rebase(struct work *w);
/* A store that is a replica: a random change that its primary sends to it; a certain one, of whole blocks, as many as
 * work_can_receive() allows. */
int work_receive_some(struct work *w);
int work_receive(struct work *w, uint64_t ino, uint64_t off, const uint8_t *data, size_t len);
bool work_can_receive(uint64_t off, size_t len);
/* After work_rewind(): the first long write that was lost is made again, as a program does that was not told of success, or a
 * primary that hears how far its replica is. */
int work_retry(struct work *w);
/* Random bytes; now and then all alike. */
void work_bytes(struct work *w, uint8_t *p, size_t len);
/* The inode of a name, or 0 (also if it is not of that type; 0 = any); the size of an inode; an inode without names, or 0. */
uint64_t work_lookup(const struct work *w, uint64_t dir, const char *name, uint32_t type);
uint64_t work_size(const struct work *w, uint64_t ino);
uint64_t work_orphan(const struct work *w);
/* Write files until the store is full; crumbs: two, whose blocks alternate. */
void work_fill(struct work *w, bool crumbs);
/* The second of these gives back some: free blocks that stand alone. */
int work_free_crumbs(struct work *w);
/* A file that takes most of the store grows by a step, or goes. */
int work_bulk(struct work *w, bool drop);
/* One of the files that stand behind it. */
int work_behind(struct work *w);
int work_fallocate(struct work *w, uint64_t ino, int mode, uint64_t off, uint64_t len);
/* A call with a long record that takes no room in the store but the first time: four of them fill a segment. */
int work_flood(struct work *w);
/* Read everything that k shows and look for the state of k's seq, not older than states[from]: its number, or -1 with what
 * is wrong in text. */
int work_compare(const struct work *w, struct keys *k, unsigned from, char *text, size_t size);
/* The same for one whose last changes show in nothing: what the seq would be without them. */
int work_compare_at(const struct work *w, struct keys *k, seq_t seq, unsigned from, char *text, size_t size);
/* Go back: states[i] is the present now, held by k, and what came later is forgotten. */
void work_rewind(struct work *w, unsigned i, struct keys *k);
/* The first state with this seq; of those that have begun at the last rebase, if there was one. */
unsigned work_state_of(const struct work *w, seq_t seq);
static inline unsigned work_now(const struct work *w)
{
	return w->state_count - 1;
}

#endif
