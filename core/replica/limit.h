/* SPDX-License-Identifier: MIT
 *
 * limit: what may be changed with a key that is limited to a directory (key.h: limit=tree:/PATH): only what is below that
 * directory. Nothing is said of reading: who follows has a full copy of the store.
 *
 * The primary asks right before it runs a call, in the same step of its request thread. So what counts is where things are at
 * the moment of the change, in the one order of all changes, whatever the tree was like when the call was made or sent.
 * A call names inodes by number, so each is led back to the root: a directory by its parents, anything else by the directory
 * that its name is in (keys_where()). The path is looked up anew each time, symbolic links are not followed: what another
 * directory of that name is later on is what is open later on.
 *
 * Errors are those that a local file system would give if all of it were mounted read-only, and the directory once more in its
 * place, writable: -EROFS outside, -EXDEV for a rename or a link across the border. -EPERM: it cannot be said that all of it is inside
 * (a file of several names; keys_where() knows nothing). -ESTALE: an inode that is gone.
 *
 * Threading: request thread. No memory of its own, O(depth) look-ups, at most LIMIT_DEPTH.
 */
#ifndef MSYNCFS_LIMIT_H
#define MSYNCFS_LIMIT_H

#include "core/replica/call.h"

#define LIMIT_DEPTH 4096u       /* what lies deeper below the root counts as outside */

/* 0: the call may be run. tree: "/a/b", as key.h has it. */
int limit_call(struct keys *k, const char *tree, const struct call *c);
/* The same for what counts on one inode (a lock of it). A file of several names may be locked if the newest one is inside. */
int limit_lock(struct keys *k, const char *tree, uint64_t ino);

#endif
