/* SPDX-License-Identifier: MIT
 *
 * check: verifies all of an opened store: superblocks, every tree page and item, every name, link and reference, every
 * block of contents, and that the blocks in use are exactly those that the bitmaps say. It changes nothing on disk and
 * prints nothing.
 *
 * What is checked is the view that the opened keys have: with read_only the last change that the journal holds (it was
 * replayed in memory), with read_only and snapshot the pinned checkpoint, without either the present state.
 *
 * Threading: the request thread of the store, which makes no other call meanwhile.
 * Memory: 4 bits for each block of the store, 24 bytes for each inode.
 */
#ifndef MSYNCFS_CHECK_H
#define MSYNCFS_CHECK_H

#include <stdbool.h>
#include <stdint.h>

struct keys;

struct check_options {
	bool snapshot;          /* the store was opened with this option */
	/* A finding, one line without its end: what, and where. Names in it are as they are on disk. NULL: only counted. */
	void (*problem)(void *ctx, const char *text);
	/* Blocks read so far and about how many there are; a result that is not 0 ends the check. May be NULL. */
	int (*progress)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
};

struct check_report {
	uint64_t problems;
	uint64_t seq;                   /* the last change that was looked at */
	uint64_t inodes, names;
	uint64_t tree_pages, content_blocks;
	uint64_t used_blocks;           /* as found, not as counted by the store */
	bool incomplete;                /* parts of the tree cannot be read: missing links and leaks were not looked for */
};

/* 0: all was looked at, *ret_report says what was found. -EAGAIN: the snapshot's bitmaps were overtaken by the daemon:
 * close, open and try again. -ENOMEM. -ECANCELED: progress() said so. *ret_report is filled in any case. */
int check_run(struct keys *k, const struct check_options *options, struct check_report *ret_report);

#endif
