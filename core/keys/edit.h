/* SPDX-License-Identifier: MIT
 *
 * edit: the tree changed item by item without records, for a replica that takes over another store's state
 * (core/replica/diff.h, store_rebase()). What is put comes from a peer and is checked as what a record says is; counters
 * (inodes, the next number, each inode's blocks) follow by themselves.
 *
 * Threading: request thread. Durability: none, until a checkpoint; see store_edited() for what must not happen before.
 * Errors: -EUCLEAN for what cannot be. An error of anything but a check leaves a tree that no checkpoint may be cut from:
 * the caller tells store_broken(). Room is to be reserved before (edit_blocks()).
 */
#ifndef MSYNCFS_EDIT_H
#define MSYNCFS_EDIT_H

#include "core/keys/logical.h"

/* May this item be put? The key is that of an item which is no window. 0 or -EUCLEAN. */
int edit_check(struct key key, const uint8_t *value, uint32_t len);
int edit_put(struct keys *k, struct key key, const uint8_t *value, uint32_t len);
/* May the item be taken away? The root directory may not. */
int edit_check_del(struct key key);
/* -ENOENT. Extents are taken away as windows of holes. */
int edit_del(struct keys *k, struct key key);
/* Make a window what w says. WINDOW_DATA: w->block[] are blocks of store_stage(), which become the file's. */
int edit_window(struct keys *k, uint64_t ino, uint64_t fblock, const struct window *w);
/* The next inode gets this number, or the one behind the highest that was put since the store was opened. */
int edit_check_next_ino(uint64_t next_ino);
void edit_next_ino(struct keys *k, uint64_t next_ino);

/* What edits need, summed up as they become known. */
struct edit_size {
	uint64_t puts;                          /* items put or taken away */
	uint64_t bytes;                         /* of those put */
	uint64_t unwritten;                     /* blocks */
};
void edit_size_put(struct edit_size *size, uint32_t len);
void edit_size_window(struct edit_size *size, const struct window *w);
/* Blocks that all of them need at most; leaves: the tree has about as many (0: it is not known). */
uint64_t edit_blocks(const struct keys *k, const struct edit_size *size, uint64_t leaves);

#endif
