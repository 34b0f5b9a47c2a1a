/* SPDX-License-Identifier: MIT
 *
 * restore: put things into a new store as they were elsewhere: with their numbers, link counts and times. For load, which
 * has checked what it puts; nothing here looks whether it fits together. Inodes come in ascending order of their numbers.
 *
 * Threading and errors as in keys.h. Each call is one record.
 */
#ifndef MSYNCFS_RESTORE_H
#define MSYNCFS_RESTORE_H

#include "core/keys/keys.h"

/* The inode with its contents if it is INLINE (else len is 0). The root directory, which a new store has, is replaced;
 * any other number must be larger than all before: -EEXIST. blocks are counted when the contents come. */
int keys_restore_inode(struct keys *k, const struct keys_attr *a, const void *contents, uint32_t len);
/* Its attributes again, after what changed them. */
int keys_restore_attr(struct keys *k, const struct keys_attr *a);
/* name is NUL-terminated. The inode is left as it is: what its flags must say now is added to *flags, for a later
 * keys_restore_attr(). -EINVAL: an ACL that cannot be. */
int keys_restore_xattr(struct keys *k, uint64_t ino, const char *name, const void *value, uint32_t size,
		       uint32_t *flags);
/* The directory is left as it is. -EEXIST. */
int keys_restore_entry(struct keys *k, uint64_t dir, const char *name, size_t len, uint64_t ino, uint32_t type);
/* The target of a symbolic link that is not INLINE. */
int keys_restore_target(struct keys *k, uint64_t ino, const void *target, uint32_t len);
/* The number that the next new inode gets, if that is more than it would be. */
void keys_restore_next_ino(struct keys *k, uint64_t next_ino);

#endif
