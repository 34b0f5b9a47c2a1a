/* SPDX-License-Identifier: MIT
 *
 * model: a name space in plain memory that does what core/keys/keys.h promises, written from the contract and not from the
 * code: names, links, times, contents, extended attributes (not ACLs). Results are those of the keys_ function of the same
 * name; what cannot be known here (the numbers of new inodes) is handed in.
 */
#ifndef MSYNCFS_MODEL_UTIL_H
#define MSYNCFS_MODEL_UTIL_H

#include "core/base.h"
#include "core/keys/keys.h"

struct model_page {
	uint64_t block;
	uint8_t *bytes;
};

struct model_xattr {
	char *name;
	uint8_t *value;
	size_t size;
};

struct model_node;

struct model_entry {
	char *name;
	size_t len;
	struct model_node *node;
};

struct model_node {
	struct keys_attr a;             /* blocks, flags and inline_len are not modelled */
	bool reaping;                   /* partly reaped: its contents and attributes are nobody's business */
	struct model_page *pages;       /* by block; what has none is zeros */
	size_t page_count;
	struct model_xattr *xattrs;
	size_t xattr_count;
	struct model_entry *entries;
	size_t entry_count;
	char *target;
};

struct model {
	struct model_node **nodes;      /* [0] is the root; orphans too */
	size_t count;
	uint64_t now_ns;
};

struct model_name {
	const char *s;
	size_t len;
};

/* root: as the store has it. */
void model_init(struct model *m, const struct keys_attr *root);
void model_release(struct model *m);
struct model_node *model_node(const struct model *m, uint64_t ino);
const struct model_entry *model_entry(const struct model_node *dir, struct model_name name);

/* target is NULL unless mode says symbolic link. */
int model_make(struct model *m, uint64_t dir, struct model_name name, uint32_t mode, uint64_t rdev,
	       const struct keys_cred *cred, struct model_name target, uint64_t new_ino);
int model_link(struct model *m, uint64_t ino, uint64_t dir, struct model_name name);
int model_unlink(struct model *m, uint64_t dir, struct model_name name);
int model_rmdir(struct model *m, uint64_t dir, struct model_name name);
/* new_ino: of the whiteout. */
int model_rename(struct model *m, uint64_t odir, struct model_name oname, uint64_t ndir, struct model_name nname,
		 unsigned flags, const struct keys_cred *cred, uint64_t new_ino);
int model_setattr(struct model *m, uint64_t ino, const struct keys_setattr *set);
int model_write(struct model *m, uint64_t ino, uint64_t off, const uint8_t *data, size_t len, bool kill_priv);
/* The bytes, zeros behind the end. */
void model_read(const struct model_node *n, uint64_t off, size_t len, uint8_t *buf);
int model_fallocate(struct model *m, uint64_t ino, int mode, uint64_t off, uint64_t len);
void model_zero(struct model_node *n, uint64_t off, uint64_t len);
int model_setxattr(struct model *m, uint64_t ino, const char *name, const void *value, size_t size, int flags);
int model_removexattr(struct model *m, uint64_t ino, const char *name);
int model_touch_atime(struct model *m, uint64_t ino, enum keys_atime policy);
void model_reaped(struct model *m, uint64_t ino);

/* All of the keys against all of the model. 0, or -1 with what differs in `why`. */
int model_compare(const struct model *m, struct keys *k, char *why, size_t size);
/* One inode: attributes, contents, extended attributes, entries. */
int model_compare_node(const struct model *m, struct keys *k, const struct model_node *n, char *why, size_t size);

#endif
