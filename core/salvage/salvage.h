/* SPDX-License-Identifier: MIT
 *
 * salvage: out of a damaged store, all that is provably whole, into a new one. The damaged one is opened read-only and
 * never changed. What could not be saved is told, each by its path, or by number and place if no path is known:
 * - a file with damaged or missing contents does not stand at its name in the new store, where a program would take it
 *   for whole, but in lost+found as #NUMBER: what is whole of it, the rest a hole;
 * - a file or directory whose names are lost goes to lost+found too, whole;
 * - a directory whose attributes are lost stays where its name is, for its owner alone (mode 0700);
 * - a file whose inode is lost, but not its contents, goes to lost+found (mode 0600);
 * - a file whose access ACL is lost stays in its place, without any permission for its group.
 *
 * Threading: the caller's thread only. Memory: 120 bytes for each inode, 3 bits for each block, 56 bytes for each leaf of
 * the tree if a page of it is lost. Every checksum is verified twice: when it is looked at and when it is copied.
 */
#ifndef MSYNCFS_SALVAGE_H
#define MSYNCFS_SALVAGE_H

#include "core/stream/stream.h"

struct salvage_options {
	/* A finding, one line. lost: something that the store held is not, or not as it was, in the new one. */
	void (*say)(void *ctx, bool lost, const char *text);
	/* Blocks looked at so far and about how many there are; a result that is not 0 ends the work. May be NULL. */
	int (*progress)(void *ctx, uint64_t done, uint64_t total);
	/* The mapping of the damaged store, before it is read. May be NULL. */
	void (*mapped)(void *ctx, void *base, uint64_t bytes);
	void *ctx;
	const struct stream_watch *watch;       /* of the copying; called once before the new store is begun */
};

struct salvage_report {
	uint64_t damage;                /* findings, */
	uint64_t lost;                  /* and those with a loss */
	uint64_t aside;                 /* files and directories in lost+found */
	char folder[32];                /* what it is called, "" if there is none */
	struct stream_counts saved;
};

/* 0: the new store is there, and *ret_report says what is not in it. -EEXIST: it was there before. -EMEDIUMTYPE: no store.
 * -EBUSY, -EPROTONOSUPPORT, -ENOMEM, -ENOSPC, -ECANCELED...: no new store is made. */
int salvage_store(const char *path, const struct stream_target *target, const struct salvage_options *options,
		  struct salvage_report *ret_report);

#endif
