/* SPDX-License-Identifier: MIT
 *
 * check: verifies all of a store: superblocks, every tree page and item, every name, link and reference, every block of
 * contents, the journal, and that the blocks in use are exactly those that the bitmaps say. It changes nothing on disk and
 * prints nothing.
 *
 * It goes on behind every damage. A damage is a *problem*, told once, with its place: the block, the byte of the store,
 * what it is. What it has cost is told apart, as what *follows*: whose names, attributes and contents were there, each by
 * its path as far as names are left, else by inode number. Nothing that refers to what cannot be read is a problem by itself.
 *
 * What is checked is the view that the opened keys have: with read_only the last change that the journal holds (it was
 * replayed in memory), with read_only and snapshot the pinned checkpoint, without either the present state. With salvage,
 * what was put together of a damaged store; who opened it was told of superblocks, bitmaps, pages and journal by that.
 *
 * Threading: the request thread of the store, which makes no other call meanwhile.
 * Memory: 4 bits for each block of the store, 32 bytes for each inode, 48 for each page of the tree that is damaged, 24 for
 * each name that leads to what one of them had; if the tree must be put together again, that of salvage.h too.
 */
#ifndef MSYNCFS_CHECK_H
#define MSYNCFS_CHECK_H

#include <stdbool.h>
#include <stdint.h>

struct keys;

struct check_options {
	bool snapshot;          /* the store was opened with this option; check_path() sees to it itself */
	/* A finding, one line without its end: what, and where. Names in it are as they are on disk. NULL: only counted. */
	void (*problem)(void *ctx, const char *text);
	/* What follows from one, as a line likewise. May be NULL. */
	void (*follows)(void *ctx, const char *text);
	/* check_path(): the store is open, with seq as its last change, before anything is told. May be NULL. */
	void (*opened)(void *ctx, bool snapshot, uint64_t seq);
	/* Blocks read so far and about how many there are; a result that is not 0 ends the check. May be NULL. */
	int (*progress)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
};

struct check_report {
	uint64_t problems, follows;
	uint64_t seq;                   /* the last change that was looked at */
	uint64_t inodes, names;
	uint64_t tree_pages, content_blocks;
	uint64_t used_blocks;           /* as found, not as counted by the store */
	bool incomplete;                /* parts of the tree or the journal cannot be read: leaked blocks were not looked for */
};

/* 0: all was looked at, *ret_report says what was found. -EAGAIN: the snapshot's bitmaps were overtaken by the daemon:
 * close, open and try again. -ENOMEM. -ECANCELED: progress() said so. *ret_report is filled in any case. */
int check_run(struct keys *k, const struct check_options *options, struct check_report *ret_report);

/* Open the store of that name, check it, close it; while somebody else has it open, its last checkpoint. Also one that
 * cannot be opened because it is damaged: its journal, or what leads to the rest of its tree. Then what is left is put
 * together in memory (core/store/salvage.h) and checked. As check_run(), or what keys_open() says of what is no store. */
int check_path(const char *path, const struct check_options *options, struct check_report *ret_report);

#endif
