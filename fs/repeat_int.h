/* SPDX-License-Identifier: MIT
 *
 * repeat_int: the inside of struct repeat, for repeat.c (what is to be repeated), repeat_call.c (the thread) and
 * repeat_answer.c (what it is shown). Fields: [R] request thread; [T] our thread; [L] under lock; [A] atomic; [C] constant.
 */
#ifndef MSYNCFS_REPEAT_INT_H
#define MSYNCFS_REPEAT_INT_H

#include "fs/fs.h"
#include "fs/repeat.h"

#include <pthread.h>

#define NAME_BYTES    255u
#define NAME_SETS     4096u     /* a power of two */
#define NAME_WAYS     4u
#define DIRS_SEEN     1024u     /* a power of two */
#define DIR_LIST_MAX  8192u     /* entries; of a larger directory no names are looked for */
#define SCAN_ENTRIES  1024u     /* listed for one file whose name is not known */
#define TOLD_SLOTS    1024u     /* a power of two; at most as many summaries wait beyond REPEAT_MAX */
#define CLOSES_MAX    64u
#define NONCE_BYTES   32u

enum step_kind { STEP_CREATE, STEP_DELETE, STEP_RENAME, STEP_MODIFY, STEP_CLOSE, STEP_ATTRIB };

/* One call to repeat. */
struct step {
	struct step *next;
	enum step_kind kind;
	uint32_t type;                  /* S_IFMT of ino */
	uint64_t ino, dir, to_dir;      /* ATTRIB, dir 0: of the directory ino itself */
	uint64_t fake;                  /* stands for ino if that is gone */
	bool closes;                    /* CREATE: of a file: somebody has it open for writing, most likely */
	uint16_t name_len, to_len;
	char name[NAME_BYTES + 1], to_name[NAME_BYTES + 1];
};

struct last_name {
	uint64_t ino, dir;              /* ino 0: unused */
	uint32_t used;
	uint16_t len;
	char name[NAME_BYTES];
};

/* A directory that the kernel got to know, whose names we may not have. */
struct seen_dir {
	uint64_t ino;                   /* 0: unused, or listed */
	uint64_t cookie;
};

struct closing {
	uint64_t ino;                   /* 0: unused */
	int64_t due_ms;
	struct step step;
};

enum repeat_state { REPEAT_STARTS, REPEAT_ON, REPEAT_OFF };

struct repeat {
	struct fs *fs;                  /* [C] */
	pthread_t thread;
	bool threaded;                  /* [C] there is one */
	int wake_fd;                    /* [C] eventfd */
	char nonce[NONCE_BYTES + 1];    /* [C] the name by which our thread makes itself known */
	atomic_uint pid;                /* [A] of our thread, as the kernel tells it; 0: not known yet */
	atomic_int state;               /* [A] enum repeat_state */
	atomic_bool stop, ended, asleep;        /* [A] */

	pthread_mutex_t lock;
	struct step *first, **end;      /* [L] */
	size_t count;                   /* [L] */
	struct step now;                /* [L] what our thread is at; kind and names count as long as `busy` */
	bool busy;                      /* [L] */
	uint64_t done, failed;          /* [L] */

	/* repeat.c */
	struct last_name *names;        /* [R] NAME_SETS * NAME_WAYS */
	uint32_t clock;                 /* [R] */
	struct seen_dir dirs_seen[DIRS_SEEN];   /* [R] */
	unsigned next_seen, to_list;    /* [R] */
	uint64_t told[TOLD_SLOTS];      /* [R] inodes that a summary waits of, since the queue was full */
	bool full;                      /* [R] */
	uint64_t dropped, unnamed;      /* [R] */

	/* repeat_call.c */
	int tree, root, table;          /* [T] the clone, and its root; the kernel's mount table; -1: not open */
	bool table_moved;               /* [T] it is to be looked at */
	dev_t dev;                      /* [T] */
	struct { uint64_t ino; int fd; } dirs[2];       /* [T] */
	struct closing closes[CLOSES_MAX];              /* [T] */
	uint64_t fakes;                 /* [T] */
};

/* repeat_call.c */
void *repeat_main(void *r);

#endif
