/* SPDX-License-Identifier: MIT
 *
 * fill: things put into a store through keys.h, the same each time: what tests damage, check, salvage and compare.
 * Everything waits for space where the store says that it comes (EAGAIN), and ends the test if it fails.
 */
#ifndef MSYNCFS_FILL_UTIL_H
#define MSYNCFS_FILL_UTIL_H

#include "core/base.h"
#include "core/keys/keys.h"
#include "core/store/sys.h"

/* If set: told of the changes made by each call here, by their numbers and what they were about (0: nothing). */
extern void (*fill_told)(seq_t first, seq_t last, uint64_t a, uint64_t b);

/* The new inode's number. */
uint64_t fill_make(struct keys *k, uint64_t where, const char *name, uint32_t mode);
/* Bytes that differ from block to block, and from file to file. */
void fill_bytes(struct keys *k, uint64_t file, uint64_t off, size_t len);
void fill_xattr(struct keys *k, uint64_t file, const char *name, size_t size);
/* An ACL of five entries, one of them for user 1000. */
void fill_acl(struct keys *k, uint64_t file, const char *name);
void fill_link(struct keys *k, uint64_t file, uint64_t where, const char *name);
/* A symbolic link whose target is so long. */
uint64_t fill_symlink(struct keys *k, uint64_t where, const char *name, size_t len);
void fill_rename(struct keys *k, uint64_t from, const char *name, uint64_t to, const char *new_name);
/* And all that it had, if it was the last name. */
void fill_unlink(struct keys *k, uint64_t where, const char *name);
/* Files numbered from..from + count - 1: long names, so that leaves are many; short and longer contents, holes, some with an
 * attribute. */
void fill_files(struct keys *k, uint64_t where, unsigned from, unsigned count);

/* System calls with clocks and random numbers that are the same each time, so that a case can be replayed. They begin anew
 * with this call. */
struct sys_ops fill_sys(uint64_t seed);

#endif
