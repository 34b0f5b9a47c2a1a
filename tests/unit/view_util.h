/* SPDX-License-Identifier: MIT
 *
 * view: all that a store shows, taken once through keys.h and kept in plain memory: every inode with its attributes, the
 * hash of every block that is no hole, its extended attributes; every name. Two views can be compared inode by inode,
 * since dump, load and salvage keep the numbers.
 */
#ifndef MSYNCFS_VIEW_UTIL_H
#define MSYNCFS_VIEW_UTIL_H

#include "core/keys/keys.h"

struct view_block {
	uint64_t fblock, hash;
};

struct view_xattr {
	char name[256];
	uint64_t hash;
	size_t len;
};

struct view_node {
	struct keys_attr a;
	struct view_block *blocks;
	size_t block_count;
	struct view_xattr *xattrs;
	size_t xattr_count;
};

struct view_name {
	uint64_t dir, ino;
	uint32_t type;
	char name[256];
};

struct view {
	struct view_node *nodes;        /* by number */
	size_t count;
	struct view_name *names;        /* by directory, then name */
	size_t name_count;
};

/* 0, or the first error; with `damaged`, -EUCLEAN anywhere leaves a gap instead: what could not be read is not there. */
int view_take(struct view *v, struct keys *k, bool damaged);
void view_release(struct view *v);
const struct view_node *view_node(const struct view *v, uint64_t ino);
bool view_has_name(const struct view *v, const struct view_name *n);
/* NULL, or what differs. Directories: not the number of entries and links, which follow from the names. */
const char *view_differ(const struct view_node *a, const struct view_node *b);
/* Every block that b has is as a has it; what b lacks is a hole. */
bool view_is_part(const struct view_node *b, const struct view_node *a);

#endif
