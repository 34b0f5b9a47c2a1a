/* SPDX-License-Identifier: MIT
 *
 * keys_int: what the files of core/keys share. Request thread only.
 */
#ifndef MSYNCFS_KEYS_INT_H
#define MSYNCFS_KEYS_INT_H

#include "core/keys/item.h"
#include "core/keys/keys.h"
#include "core/store/record.h"
#include "core/store/salvage.h"
#include "core/store/store.h"
#include "core/store/tree.h"

#include <sys/stat.h>

struct keys {
	struct store *store;
	struct tree *tree;
	struct store_salvage *salvage;          /* or NULL */
	uint64_t compact_hi, compact_lo;        /* how far keys_compact() has come */
	bool follow;                            /* of store_options */
	bool numbers_checked;                   /* no inode has a number that is still to be given out */
	int refused;                            /* the change being built is one that apply would refuse */
	uint64_t client, request;               /* whose call is being executed; 0 = our own */
	uint64_t number;                        /* what the change being built results in, for whoever called */
};

/* inode.c */
int inode_get(struct keys *k, uint64_t ino, struct keys_attr *ret);
/* For a change: -ESTALE if it is an orphan that may be reaped anywhere by now. */
int inode_get_to_change(struct keys *k, uint64_t ino, struct keys_attr *ret);
/* Setuid and setgid as KEYS_KILL_PRIV, and KEYS_KILL_SGID if it is in mask. */
void attr_kill_priv(struct keys_attr *a, unsigned mask);
struct keys_time keys_now(const struct keys *k);
/* Set ctime, and mtime if asked, to now. */
void attr_touch(const struct keys *k, struct keys_attr *a, bool mtime);

/* where.c */
/* The inode has got a name: the entry with this key. */
void where_named(struct keys_attr *a, struct key entry);
/* It has lost its last one, in this directory. */
void where_orphaned(struct keys_attr *a, uint64_t dir);

/* change.c: building and committing a record */
void change_begin(struct keys *k, enum change_type type);
void change_put(struct keys *k, struct key key, const void *value, uint32_t len);
uint8_t *change_put_place(struct keys *k, struct key key, uint32_t len);
void change_del(struct keys *k, struct key key);
void change_attr(struct keys *k, const struct keys_attr *a);
void change_new_inode(struct keys *k, const struct keys_attr *a);
void change_data(struct keys *k, uint64_t ino, uint64_t off, const void *data, uint32_t len);
void change_punch(struct keys *k, uint64_t ino, uint64_t from, uint64_t to);
/* The record that completes an operation. */
int change_commit(struct keys *k);
/* One of those before it. */
int change_commit_part(struct keys *k);
/* Room for a change of `items` items and `blocks` blocks of contents. -EROFS: a replica makes none of its own. */
int change_reserve(struct keys *k, unsigned items, uint64_t blocks, bool frees);
/* Room for a change of `items` items whose contents go into blocks that the file has. */
int change_reserve_paid(struct keys *k, unsigned items);
/* The same for what each store does for itself: reaping, moving, applying what the primary sent. */
int change_reserve_own(struct keys *k, unsigned items, uint64_t blocks, bool frees);

/* apply.c */
int keys_apply(void *ctx, struct record_reader *reader, const uint8_t *rec);
int keys_whole(void *ctx, const struct record_reader *reader);
/* For salvage: mutations that cannot be applied are told and left out. */
int keys_apply_rest(void *ctx, struct record_reader *reader, const uint8_t *rec);

/* Bytes of a CLIENT mutation. */
#define CLIENT_MUTATION 24u

/* contents.c, finding and reading */
/* The first extent that ends behind fblock. 0, or -ENOENT. */
int contents_find(struct keys *k, uint64_t ino, uint64_t fblock, struct extent *ret);
/* The contents of an inode that has INLINE, until the tree changes. */
int contents_inline(struct keys *k, uint64_t ino, const uint8_t **ret, uint32_t *ret_len);
/* One block of the file as it reads now, into out. */
int contents_read_block(struct keys *k, const struct keys_attr *a, uint64_t fblock, uint8_t *out);
/* The whole of a short file (a symlink). */
int contents_read_small(struct keys *k, uint64_t ino, void *buf, size_t size, size_t *ret_len);

/* contents.c, planning */
#define CONTENTS_RESERVE_MAX 16384u     /* blocks that one record of fallocate takes */
/* Blocks that a long write goes to. */
struct target {
	block_t block;
	uint32_t count;
	bool fresh;
};
/* Find blocks for [fblock, fblock+count): those that fallocate put there and nobody has written yet, else fresh ones. In
 * badly fragmented space `max` pieces are not enough: then for the first part only. */
int contents_find_targets(struct keys *k, const struct keys_attr *a, uint64_t fblock, uint64_t count, struct target *t,
			  unsigned max, unsigned *ret_n);
/* They do not become anybody's. */
void contents_give_back(struct keys *k, const struct target *t, unsigned n);
/* Is the file's block unwritten space; *ret_next is the first behind it for which that may be otherwise. */
int contents_unwritten(struct keys *k, const struct keys_attr *a, uint64_t fblock, bool *ret_is, uint64_t *ret_next);
/* Can [from, to) of the file be overwritten or zeroed by DATA or PUNCH? -EUCLEAN. */
int contents_check(struct keys *k, const struct keys_attr *a, uint64_t from, uint64_t to);

/* contents_apply.c */
int contents_apply_data(struct keys *k, uint64_t ino, uint64_t off, const uint8_t *data, uint32_t len);
int contents_apply_map(struct keys *k, uint64_t ino, uint64_t fblock, const struct record_extent *e, uint32_t flags);
int contents_apply_punch(struct keys *k, uint64_t ino, uint64_t from, uint64_t to);
/* Unmap file blocks [from, to); *ret_freed blocks were given back. The inode's count is left as it is. */
int contents_unmap(struct keys *k, uint64_t ino, uint64_t from, uint64_t to, int64_t *ret_freed);
/* Unmap what e covers and map e instead; *ret_freed blocks were given back. */
int contents_replace(struct keys *k, uint64_t ino, const struct extent *e, int64_t *ret_freed);
/* Remove up to *budget extents of the inode from its end on; 1 if there are more. */
int contents_reap(struct keys *k, uint64_t ino, unsigned *budget);

/* names.c */
/* The key for a new entry; -EEXIST if the name is there. */
int dirent_new_key(struct keys *k, uint64_t dir, const char *name, size_t len, struct key *ret);

/* xattr.c */
struct xattr_place {
	uint64_t base;                  /* lo of chunk 0 */
	bool exists;
	uint32_t len;                   /* of the value, if it exists */
	unsigned chunks;                /* items it has now */
};
int xattr_find(struct keys *k, uint64_t ino, const char *name, struct xattr_place *ret);
int xattr_read(struct keys *k, uint64_t ino, const char *name, void *buf, size_t size, size_t *ret_len);
/* The value of the attribute that begins at this place, whatever its name is: for those who do not know the hash seed. */
int xattr_read_at(struct keys *k, uint64_t ino, uint64_t base, void *buf, size_t size, size_t *ret_len);
void xattr_change_set(struct keys *k, uint64_t ino, const struct xattr_place *p, const char *name, const void *value,
		      uint32_t size);
void xattr_change_remove(struct keys *k, uint64_t ino, const struct xattr_place *p);
/* Remove it in the change being built if the inode has it. */
int xattr_change_drop(struct keys *k, uint64_t ino, const char *name);

/* acl.c: POSIX ACLs as the kernel hands them over (linux/posix_acl_xattr.h) */
#define ACL_ACCESS_NAME  "system.posix_acl_access"
#define ACL_DEFAULT_NAME "system.posix_acl_default"
#define CAPS_NAME        "security.capability"
#define ACL_SIZE_MAX     4100u          /* 512 entries */
int acl_check(const uint8_t *acl, size_t size);
/* The permission bits that an access ACL stands for; *ret_plain if it says no more than those. */
uint32_t acl_mode(const uint8_t *acl, size_t size, uint32_t mode, bool *ret_plain);
/* chmod: put the bits into the ACL. */
void acl_chmod(uint8_t *acl, size_t size, uint32_t mode);
/* Creating under a default ACL: acl becomes the access ACL; returns the mode. */
uint32_t acl_create(uint8_t *acl, size_t size, uint32_t mode, bool *ret_plain);

#endif
