/* SPDX-License-Identifier: MIT
 *
 * sim: a cluster in one thread, from one seed. The engines are the real ones (core/replica); around them are a model of
 * a store (the list of its changes and how much of it is on disk), links that lose, delay and half-close, kernels that
 * know inodes, programs that make changes, an operator, and a scheduler that picks what happens next. Every step has random
 * numbers of its own, made of (seed, step), so steps can be left out and the others stay the same (SHRINK=1).
 *
 *   model.c    changes, what they make, what a crash leaves
 *   link.c     frames between nodes
 *   node.c     a node: the two engines and what they ask for
 *   world.c    programs, kernels, the operator, the scheduler, the verdict
 *   sim.c      many seeds side by side; a failure is named, and made short on request
 */
#ifndef MSYNCFS_TESTS_SIM_H
#define MSYNCFS_TESTS_SIM_H

#include "core/replica/primary.h"
#include "core/replica/replica.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#define NODES_MAX 5u
#define KEYS      12u
#define PROGS     3u
#define LIST_MAX  480u
#define OPS_MAX   1000u
#define UID_MAX   2000u
#define LINKS_MAX 24u
#define QUEUE_MAX 10u                   /* frames in one direction before a sender hears -EAGAIN */
#define TODO_MAX  256u
#define CLIENTS   64u                   /* in a store's state */
#define FEED_KEEP 24u
#define LEASE_MS  120u
#define MSG_UNKNOWN 0x1f0u              /* of a version to come; without WIRE_MUST */
#define PIECE     6u                    /* changes in a frame of a diff */

/* A change. What it is made behind says which line it is in. */
enum change_type { CHANGE_EPOCH = 1, CHANGE_CREATE, CHANGE_DELETE, CHANGE_PUT, CHANGE_MARK };

struct change {
	uint64_t seq, epoch;
	uint64_t uid, parent;           /* of this change, of the one before it in the line */
	uint64_t type, key, op;         /* key: or the inode that is marked */
	uint64_t ino;                   /* CREATE: made; DELETE: orphaned */
	uint64_t client, request;
	uint64_t nonce, store;          /* EPOCH */
};

struct slot {
	uint64_t request, seq, number;
};

/* What a list of changes makes. */
struct state {
	uint64_t ino[KEYS], value[KEYS];
	struct {
		uint64_t id;
		struct slot slots[MSG_WINDOW];
	} clients[CLIENTS];
	unsigned client_count;
	struct {
		uint64_t ino, seq;
		bool marked;
	} orphans[LIST_MAX];
	unsigned orphan_count;
	uint8_t has[OPS_MAX];           /* op is in the list */
	struct history history;
};

struct store {
	unsigned n, durable;
	uint64_t promised;              /* on disk, as role */
	bool primary, clean;
	struct change list[LIST_MAX];
	struct state s;
};

/* A program's request. */
enum chaos {
	CHAOS_BREAK, CHAOS_KILL, CHAOS_POWER, CHAOS_STOP, CHAOS_FULL, CHAOS_CLOCK, CHAOS_PROMOTE, CHAOS_SWITCH, CHAOS_POINT,
	CHAOS_HANG, CHAOS_DEMOTE, CHAOS_COUNT
};

enum op_state { OP_NONE, OP_OPEN, OP_OK, OP_ERROR, OP_UNKNOWN };

struct op {
	enum op_state state;
	unsigned node, prog, boot;
	enum change_type type;          /* 0: fsync */
	unsigned key;
	uint64_t began, answered;       /* steps */
	uint64_t since;                 /* by the node's clock */
	int error;
	seq_t seq;
	bool durable;                   /* an fsync said so */
	bool forgiven;                  /* an fsync said EIO */
	bool reported;                  /* put aside somewhere */
};

struct prog {
	uint64_t op;                    /* 0: idle */
	bool parked;                    /* to be tried again (switch-over, window full) */
	seq_t wait;                     /* local fsync */
	uint64_t wait_since;
};

struct frame {
	unsigned type;
	uint32_t len;
	uint8_t *bytes;
};

struct queue {
	struct frame at[QUEUE_MAX + 2];
	unsigned count;
	bool full;                      /* the sender heard -EAGAIN */
};

/* End 0 has dialled (a replica), end 1 was dialled (feeds). */
struct simlink {
	link_t id;                      /* 0: free */
	unsigned node[2], boot[2];
	bool up[2];                     /* the end has it open */
	bool opened[2];                 /* and the engine was told */
	bool cut;                       /* nothing passes any more */
	struct queue q[2];              /* q[i]: to end i */
	/* The diff that end 1 makes. */
	bool diff;
	unsigned diff_n, diff_at;
};

enum todo_kind { TODO_RUN, TODO_CLIENT, TODO_LEFT, TODO_HELD, TODO_CANCEL };

struct todo {
	enum todo_kind kind;
	struct primary_run run;
	uint8_t bytes[64];
	bool flag;
	uint64_t ino;
};

struct node {
	unsigned id;
	bool alive;
	unsigned boot;
	uint64_t clock_skew;
	struct store st;
	struct primary *p;
	struct replica *r;
	unsigned from;                  /* whom it follows */
	uint64_t client;
	uint16_t version;
	bool full;                      /* no space */
	uint64_t hung_at, hung_until;   /* its request thread and its disk stand still since then, by W->now; 0: they do not */
	bool still;                     /* and its net thread has noticed */
	unsigned feed_from;
	link_t relay_link;              /* while it feeds others as a replica: its own link */
	uint64_t dial_at;
	struct prog progs[PROGS];
	uint8_t knows[UID_MAX];    /* the kernel has inode i */
	struct todo todo[TODO_MAX];
	unsigned todo_count;
	/* Under way to the disk. */
	uint64_t promise, lead, hand, fence;
	bool aside;
	uint64_t aside_epoch;
	seq_t aside_last;
	struct change staged[LIST_MAX];
	unsigned staged_n;
	bool parked;
	uint64_t down_since;
	/* When it was last seen to be fed by which primary, directly. */
	uint64_t live_at;
	unsigned live_with;
	enum replica_state last_state;
};

struct world {
	uint64_t seed, step, steps, now;
	uint64_t rng;
	unsigned nodes;
	struct node node[NODES_MAX];
	struct simlink links[LINKS_MAX];
	link_t next_link;
	struct op ops[OPS_MAX];
	uint64_t next_op, next_uid, next_client;
	uint64_t parent_of[UID_MAX];
	bool lazy;                      /* disks are written rarely: a power cut takes much */
	bool gentle, chain;             /* links live long; each node is fed by the one before it */
	bool crashed;                   /* a process or a machine */
	bool skewed;                    /* a clock has jumped */
	bool promoted;                  /* by hand: what is not on other disks may be put aside */
	unsigned no_leader;             /* the operator has seen none so often */
	bool calm;                      /* the end: nothing breaks any more */
	unsigned kinds;                 /* what may happen */
	uint32_t sync_replicas, wait_ms;
	uint64_t did, done_calls, diffs, asides, promotions, switches, marks, resent, hangs;
	bool trace;
	const uint8_t *skip;            /* steps that are left out */
	jmp_buf failed;
	char why[512];
};

extern struct world *W;

_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define must(x, ...) do { if (!(x)) sim_fail(__VA_ARGS__); } while (0)
uint64_t rnd(uint64_t below);
static inline bool chance(unsigned percent)
{
	return rnd(100) < percent;
}

/* A request thread that stands still for so long is taken for hung by its net thread (fs/still.c). */
#define STILL_MS 300u
static inline bool node_hangs(const struct node *n)
{
	return n->hung_at != 0;
}

/* model.c */
void store_rebuild(struct store *st);
/* The next change, by a primary or from one: checks what must hold of it. */
void store_add(struct node *n, const struct change *c);
struct change store_make(struct node *n, enum change_type type, uint64_t epoch);
void store_cut(struct node *n, unsigned keep);
const struct slot *store_slot(const struct store *st, uint64_t client, uint64_t request);
void change_put(uint8_t *to, const struct change *c);
void change_get(const uint8_t *from, struct change *c);
#define CHANGE_BYTES (12u * 8)

/* link.c */
struct simlink *link_find(link_t id);
bool link_dial(struct node *n, struct node *to);
/* Of one end. */
int link_send(link_t id, unsigned end, unsigned type, const void *head, uint32_t head_len, const void *body, uint32_t body_len);
void link_close(link_t id, unsigned end);
/* One thing happens on it. */
void link_step(struct simlink *l);
void link_break(struct simlink *l);
void link_end_of(struct node *n);
void link_release_all(void);

/* node.c */
uint64_t node_now(const struct node *n);
void node_start(struct node *n);
void node_stop(struct node *n, bool clean);
bool node_leads(const struct node *n);
void node_disk(struct node *n);         /* what is under way to the disk gets there */
void node_sync(struct node *n);
void node_todo(struct node *n);
void node_pump(struct node *n);
void node_tick(struct node *n);
void node_diff(struct simlink *l);
int node_commit(struct node *n, struct change *c);
void node_run_op(struct node *n, const uint8_t *bytes, uint64_t client, uint64_t request, struct primary_result *ret);
void node_demote(struct node *n, uint64_t promised);
void node_look(struct node *n);
void node_watch(struct node *n);

/* world.c */
/* The answer of a program's request. */
void op_answer(struct node *n, unsigned prog, int error, seq_t seq);
void prog_start(struct node *n, unsigned prog);
void prog_retry(struct node *n, unsigned prog);
void progs_end(struct node *n);
/* The primary of the highest epoch, or NULL. */
struct node *world_leader(void);
bool world_run(struct world *w);

#endif
