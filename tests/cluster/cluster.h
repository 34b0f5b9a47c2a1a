/* SPDX-License-Identifier: MIT
 *
 * cluster: several mounts in one thread, from one seed. The mounts' own code is the real one, from where a request of the kernel
 * comes in (fs/lockd.c, fs/remote*.c, fs/follower.c, fs/feeder*.c, fs/pending.c) to where frames go out, with the engines and the table of
 * locks below it. Around it are stand-ins: a store that is a list of numbers, links, a clock, notifiers (stand_in.c); programs that
 * count under locks, and a scheduler that picks which thread of which mount does its next step (cluster.c).
 */
#ifndef MSYNCFS_TESTS_CLUSTER_H
#define MSYNCFS_TESTS_CLUSTER_H

#include "core/base.h"

#include "fs/remote_int.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#define NODES     3u
#define PROGS     3u
#define LIST_MAX  4096u
#define LINKS_MAX 8u
#define FRAMES_MAX 512u
#define FRAMES_FULL 3u          /* under way in one direction: the sender has to wait */
#define POSTS_MAX 4096u
#define TIMERS_MAX 4u
#define TOLD_MAX  1024u
#define INO_COUNT 1u            /* the file with the number; locked by ranges */
#define INO_OTHER 2u            /* locked by flock */
#define INO_QUICK 3u            /* and so many more, by who does not want to wait */
#define QUICK     4u
#define KERNEL_MAX 256u
#define MAKERS    2u
#define FILE_FIRST 1000u        /* number of the first inode that is made */
#define FILES_MAX 512u

enum change_does { DOES_NUMBER, DOES_EPOCH, DOES_MAKE, DOES_REMOVE, DOES_MARK };

/* A change: a new number, the beginning of an epoch, a file that is made, removed, or given up everywhere. */
struct change {
	uint64_t epoch, client, request, number;
	enum change_does does;
	uint64_t ino;           /* of the file */
};

/* A file as one store has it. */
struct file {
	bool there, removed, marked, reaped;
};

struct net_buf {
	uint16_t type;
	unsigned refs;
	uint32_t len;
	uint8_t bytes[];
};

struct ring {
	struct net_buf *at[FRAMES_MAX];
	unsigned first, count;
};

/* side 0 began it, side 1 was called. */
struct simlink {
	net_id id;              /* 0: free */
	struct node *node[2];
	net_id dialer;
	struct ring to[2];      /* frames towards that side */
	bool opened[2];         /* that side was told */
	bool left[2];           /* that side closed it, or was told of its end */
	bool gone[2];           /* closed() was called there */
	bool cut;               /* nothing more goes in */
	bool paused[2];
	bool full[2];           /* that side heard -EAGAIN */
};

struct post {
	void (*fn)(void *ctx);
	void *ctx;
	struct net_work *work;          /* NULL: none of the poster's */
};

struct timer {
	uint64_t due_ms, every_ms;
	void (*fn)(void *ctx);
	void *ctx;
};

enum prog_state { PROG_IDLE, PROG_ASKS, PROG_HOLDS, PROG_WRITES, PROG_WROTE, PROG_FREES, PROG_DONE };

struct prog {
	struct node *node;
	unsigned id;
	enum prog_state state;
	struct lock_op op;
	uint64_t unique, since_ms;
	uint64_t next;          /* the number to be written */
	unsigned left;          /* rounds */
	unsigned files;         /* that it has closed */
	bool interrupted, sent;
	bool excused;           /* somebody else may have had the lock since it was asked for */
	unsigned releasing;     /* files that it has closed, and the mount does not know */
};

enum maker_state { MAKER_IDLE, MAKER_ASKS, MAKER_OPEN, MAKER_DONE };

/* A program that makes files, which others remove at once, and has each open for a while. */
struct maker {
	struct node *node;
	enum maker_state state;
	uint64_t ino;           /* MAKER_OPEN */
	unsigned left;
};

/* What the kernel has for the mount, and nobody waits for. */
struct pending_request {
	struct prog *prog;      /* whose file is closed for good; NULL: a barrier */
	struct lock_op op;
	uint64_t number;
};

struct node {
	unsigned id;
	struct fs fs;
	struct options options;
	char listen[8], from[8];
	struct fuse_in_header head;
	struct remote *l;
	uint64_t hung_until;            /* by now_ms: till then its request thread, and its programs, stand still */

	/* The store. */
	uint64_t seq, durable;
	struct store_identity identity;
	uint64_t ticket, identity_durable;
	bool sync_wanted;
	uint64_t client, request;       /* of the call that is run */
	struct file files[FILES_MAX];

	/* What the kernel here has cached of the number; and what it is still to be told. */
	bool is_cached;
	uint64_t cached;
	uint64_t told[TOLD_MAX];        /* stamps */
	unsigned told_count;

	/* The net thread. */
	struct net_owner owner;
	net_id dialer;
	struct node *target;
	uint64_t dial_ms;
	struct post posts[POSTS_MAX];
	unsigned post_first, post_count;
	bool poked;
	struct timer timers[TIMERS_MAX];

	struct prog progs[PROGS];
	struct maker makers[MAKERS];
	struct pending_request kernel[KERNEL_MAX];
	unsigned kernel_first, kernel_count;
};

struct cluster {
	uint64_t seed, rng, now_ms, last_id, stamp, last_unique;
	struct node nodes[NODES];
	struct simlink links[LINKS_MAX];
	struct change list[LIST_MAX];
	uint64_t count, files;
	bool makes;             /* there are files besides */
	bool calm;              /* no more troubles */
	bool whole;             /* no link is broken, and the primary stays; all stream by the time that somebody locks */
	bool closed;            /* a mount has closed a link itself (no hello fits into it) */
	bool trace;
	unsigned cuts, switches, hangs, grants, refusals;
	unsigned undone;        /* files that were removed before their maker had its answer */
	jmp_buf fail;
	char why[512];
};

extern struct cluster *C;

void failed(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint32_t rnd(uint32_t n);
static inline bool chance(uint32_t percent)
{
	return rnd(100) < percent;
}

/* stand_in.c */
/* One thing that a thread outside the request thread does; false: it had nothing to do. */
bool node_net_step(struct node *n);
bool node_store_step(struct node *n);
bool node_notify_step(struct node *n);
uint64_t node_number(const struct node *n);
void node_commit(struct node *n, uint64_t number);
/* A primary: a file is made, its number is returned; one is removed, if it is there. */
uint64_t node_make(struct node *n);
int node_remove(struct node *n, uint64_t ino);
struct file *node_file(struct node *n, uint64_t ino);
void node_kernel_add(struct node *n, const struct pending_request *r);
void links_cut_one(void);
void links_release(void);

/* cluster.c */
void prog_wrote(struct prog *p, int error);
void maker_made(struct maker *m, int error, uint64_t ino);
/* Has a program this file open, on whichever machine? */
bool file_is_open(uint64_t ino);

#endif
