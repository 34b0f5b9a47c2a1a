/* SPDX-License-Identifier: MIT
 *
 * place: how findings name an inode to people: "17 (/a/b)". Whoever looks at a whole tree knows by which entry each inode
 * was met first; a path is followed upwards over these entries, each fetched by its key: the time is that of its names,
 * however large the directories are, and a loop of directories ends where the text is full.
 *
 * Threading: as the tree. Nothing is changed.
 */
#ifndef MSYNCFS_PLACE_H
#define MSYNCFS_PLACE_H

#include "core/keys/keys_int.h"

#define PLACE_SIZE 720u

struct place_finder {
	struct tree *tree;
	/* The entry that names the inode: its directory, and the second half of its key (0: only the directory is known).
	 * False: none was met. */
	bool (*entry)(void *ctx, uint64_t ino, uint64_t *ret_dir, uint64_t *ret_lo);
	void *ctx;
};

/* "17 (/a/b)"; "17 (.../a/b)" if the path is longer than what fits; "17 (a/b below inode 12)" if nobody knows where 12 is,
 * and just "17" if not even its name is known. Returns text, which has PLACE_SIZE bytes. */
const char *place_text(const struct place_finder *f, uint64_t ino, char *text);

#endif
