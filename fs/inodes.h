/* SPDX-License-Identifier: MIT
 *
 * inodes: which inodes the kernel knows, and how often it looked each up. An inode that lost its
 * last name may be reaped only when the kernel has forgotten it. 24 to 48 bytes an inode; a table
 * that grows moves a few slots with each call, so no request waits for a big one. Request thread
 * only.
 */
#ifndef MSYNCFS_INODES_H
#define MSYNCFS_INODES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct inodes_slot {
	uint64_t ino;           /* 0: free; UINT64_MAX: was moved or removed (old table only) */
	uint64_t refs;          /* lookup count; the top bit says that it is an orphan */
};

struct inodes_table {
	struct inodes_slot *slots;
	size_t size;            /* a power of two, or 0 */
	size_t used;
};

struct inodes {
	struct inodes_table now, old;   /* old.slots != NULL while its slots are being moved */
	size_t next;                    /* first slot of `old` that was not moved yet */
};

int inodes_init(struct inodes *t);
void inodes_release(struct inodes *t);

/* The kernel is about to be told of ino once more. -ENOMEM: it must not be told. */
int inodes_ref(struct inodes *t, uint64_t ino);
/* The kernel gave back `count` lookups. True if it now knows nothing of an orphan: reap it. */
bool inodes_forget(struct inodes *t, uint64_t ino, uint64_t count);
/* ino lost its last name. True if the kernel knows it: inodes_forget() will say when to reap; else
 * reap it now. */
bool inodes_mark_orphan(struct inodes *t, uint64_t ino);
/* Tell of all that inodes_mark_orphan() was true for, and that are not forgotten. tell() must not change the table. */
void inodes_each_orphan(const struct inodes *t, void (*tell)(void *ctx, uint64_t ino), void *ctx);
bool inodes_known(struct inodes *t, uint64_t ino);
size_t inodes_count(const struct inodes *t);
/* All that are known, at most max; returns how many. */
size_t inodes_list(const struct inodes *t, uint64_t *ret, size_t max);

#endif
