/* SPDX-License-Identifier: MIT
 *
 * reaper: removes the contents of inodes that have no name and that the kernel does not know, in
 * slices, between requests; and moves contents forward when most of the store is free. At the start it finds what a crash left by itself. Request thread only.
 */
#ifndef MSYNCFS_REAPER_H
#define MSYNCFS_REAPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REAPER_SLOTS 1024u /* a power of two; with more than that the store is searched again */

struct fs;

struct reaper {
	uint64_t ring[REAPER_SLOTS];
	size_t head, count;
	uint64_t scan_from;
	bool scanning;          /* the store may have orphans with a number >= scan_from */
	bool off;               /* read-only, or the store failed */
};

void reaper_start(struct fs *fs);
void reaper_add(struct fs *fs, uint64_t ino);
bool reaper_has_work(const struct fs *fs);
/* One slice. 1: there is more to do; 0: nothing; -EAGAIN: there is, once the store has made
 * progress. */
int reaper_step(struct fs *fs);

#endif
