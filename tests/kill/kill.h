/* SPDX-License-Identifier: MIT
 *
 * kill: what the parts of the kill machine share. A lane works on one life after the other. A life is one store from its
 * making to its end: rounds of mount, compare, load, and something that ends the daemon. The lanes are processes of their
 * own; what they count and how they fail is in memory that they share with the driver.
 *
 *   load.c    what the workers do, and the state that it must lead to      mount.c   daemons: begun, found, ended, cleaned up
 *   rounds.c  the ways to end one                                          kill.c    lanes, seeds, figures, reports
 */
#ifndef MSYNCFS_TEST_KILL_H
#define MSYNCFS_TEST_KILL_H

#include "tests/kill/points.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* ---- load ---- */

enum {
	WORKERS = 4,
	DIRS = 3,               /* of a worker: its own, and two in it that come and go */
	NAMES = 7,              /* that each of them can have */
	INODES = DIRS * NAMES,
	XATTRS = 2,
	XATTR_MAX = 3000,
	FILE_MAX = 160 * 1024,
	ORPHANS = 3,            /* files that a worker has open, but that have no name */
};

struct inode {
	bool used, is_link;
	unsigned mode, nlink, size;
	uint64_t mtime_s;       /* 0: not known */
	unsigned xlen[XATTRS], xversion[XATTRS];        /* version 0: there is none */
	uint8_t data[FILE_MAX];
};

struct world {
	bool dir[DIRS];
	bool moved[DIRS];       /* it has its other name */
	int name[DIRS][NAMES];  /* an inode, -1: none */
	struct inode inode[INODES];
};

struct op {
	int kind;
	int dir, name, dir2, name2;
	unsigned off, off2, len, version, mode;
};

/* In memory that outlives the worker. `world` is what was acknowledged; while `busy`, `op` may have happened or not. */
struct worker {
	pid_t pid;
	bool made;              /* its directory was acknowledged */
	struct world world;
	struct op op;
	atomic_bool busy, stop, ready;
	atomic_ullong done, refused;
	atomic_int error;       /* that ended it */
	char text[256];         /* what it found wrong, "": nothing */
	uint64_t rng;
};

uint64_t random_next(uint64_t *rng);
unsigned random_below(uint64_t *rng, unsigned n);

void load_init(struct worker *w, uint64_t seed);
/* In a process of its own: works in the directory `path` until told to stop or the mount is gone. */
_Noreturn void load_run(struct worker *w, const char *path, bool pause);
/* In a process of its own, in the root of a mount: a large file that comes and goes, and checkpoints, until `stop`. */
_Noreturn void load_tend(const char *mnt, bool large, const atomic_bool *stop);
/* The same, for a journal that grows fast: writes that ride in their records, over and over. large: first the store grows to a
 * size at which the journal may have all of its 32 MiB. */
_Noreturn void load_stuff(const char *mnt, bool large, const atomic_bool *stop);
/* How many inodes the model has. */
unsigned load_inodes(const struct worker *w);
/* Is the directory what was acknowledged (0), or that and the operation under way (1)? Settles which. -1: neither, see text. */
int load_check(struct worker *w, const char *path, char *text, size_t size);
void load_op_text(const struct op *op, char *text, size_t size);

/* ---- lanes ---- */

enum {
	MOUNTS = 3,             /* mount points of a lane */
	WATCHDOG_S = 150,       /* a round that takes longer hangs */
};

enum kind {
	KIND_TIMED, KIND_REQUEST, KIND_POINT, KIND_OPENING, KIND_OPENING_POINT, KIND_STOPPED, KIND_TERM, KIND_LAZY, KIND_FORCE,
	KIND_CLEAN, KIND_CLOSING, KIND_RACE_STORE, KIND_RACE_MOUNT, KIND_RACE_NEW,
	KIND_RACE_KILL, KIND_RACE_DYING, KIND_PROGRAMS, KIND_JOURNAL,
	KINDS,
};

struct figures {
	atomic_ullong lives, rounds[KINDS], kills[KINDS], at_point[POINTS], ops, refused, in_flight_done, in_flight_not;
	atomic_ullong opens, open_us, open_us_max, replayed_max, journal_max, journal_full, checks, races_lost, commits;
};

struct lane {
	/* The same for all lanes. */
	struct figures *figures;
	const char *program;    /* msyncfs */
	const char *points_so;  /* NULL: no chosen points */
	const char *scripts;    /* where programs.sh is */
	uint64_t seed;
	double end_s;           /* of the time, 0: none */
	int only_kind;          /* -1: any */
	unsigned rounds;        /* of a life */

	unsigned life;
	uint64_t rng;
	char dir[256];          /* of this life */
	char store[300], store2[300];
	char mnt[MOUNTS][300], out[300];
	int at;                 /* the mount point in use */
	const char *options;    /* of this life, NULL: none */
	struct points *points;
	struct worker *workers; /* WORKERS, shared */
	unsigned worker_count;
	bool tended, large;     /* this round has a process that writes checkpoints, and makes the store grow and shrink */
	bool stuffed;           /* or one that fills the journal */
	pid_t tender;           /* either; 0: none */
	bool programs;          /* of others were begun in this life */
	unsigned round;
	enum kind kind;
	pid_t daemon;           /* 0: none */
	char what[128];         /* this round does */
};

extern const char *const kind_names[KINDS];
extern const char *const point_names[POINTS];

double seconds_now(void);
void nap_us(unsigned us);
/* Says what is wrong and how to see it again, leaves everything as it is, ends the lane. */
_Noreturn void lost(struct lane *l, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- mount ---- */

/* One run of `msyncfs mount`. */
struct start {
	bool foreground, ended;
	const char *store, *mnt;
	pid_t pid;
	int status;             /* of waitpid(), once it has ended */
	double begun_s;
	char out[300];          /* the file with what it said */
};

void start_mount(struct lane *l, struct start *s, const char *store, const char *mnt, bool foreground);
/* Wait for the command's end. True: it succeeded. */
bool start_wait(struct lane *l, struct start *s);
/* It failed as it should: not by a signal, and with one line that says why. */
void start_must_say(struct lane *l, const struct start *s);
/* It failed, and should not have: what it said. */
_Noreturn void start_must_succeed(struct lane *l, const struct start *s);
/* Mount l->store on l->mnt[at]; returns when it is usable; sets l->daemon. */
void mount_up(struct lane *l, int at);
bool mount_is(const char *mnt);
unsigned mount_count(const char *mnt);
/* A value of the status of a mount, 0 if it has none. */
unsigned long long mount_status(const char *mnt, const char *name);
/* Wait for the end of the daemon; its wait status. */
int mount_wait_daemon(struct lane *l);
void mount_kill(struct lane *l);
/* Kill and reap all children of this process, whoever they are. */
void mount_end_children(void);
/* Unmount and wait: the daemon ends well. */
void mount_down(struct lane *l);
/* Unmount only. */
void mount_off(struct lane *l);
/* Take what is mounted there away, dead or not. */
void mount_detach(const char *mnt);
/* Nothing but the store and the mount points lies about, and no process but the lane's own. */
void mount_no_leftover(struct lane *l);
/* `msyncfs check` finds nothing. */
void mount_check(struct lane *l, const char *store);
/* Run a command, its output to l->out; the exit status. */
int run(struct lane *l, char *const argv[]);

/* ---- rounds ---- */

void life_run(struct lane *l);

#endif
