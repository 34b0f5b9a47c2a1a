/* SPDX-License-Identifier: MIT
 *
 * item: what the tree's items mean (FORMAT.md section 6), encoded and decoded. Every decoder checks lengths and ranges.
 */
#ifndef MSYNCFS_ITEM_H
#define MSYNCFS_ITEM_H

#include "core/base.h"
#include "core/keys/cluster.h"
#include "core/keys/keys.h"
#include "core/store/format.h"
#include "core/store/page.h"

enum item_kind { ITEM_INODE = 1, ITEM_XATTR = 2, ITEM_DIRENT = 3, ITEM_EXTENT = 4 };

enum mutation_kind {
	MUT_PUT = 1, MUT_DEL = 2, MUT_DELNAME = 3, MUT_ATTR = 4, MUT_DATA = 5, MUT_MAP = 6, MUT_PUNCH = 7, MUT_REAP = 8,
	MUT_CLIENT = 9,
};

enum change_type {
	CHANGE_CREATE = 2, CHANGE_MKDIR, CHANGE_SYMLINK, CHANGE_MKNOD, CHANGE_LINK, CHANGE_UNLINK, CHANGE_RMDIR,
	CHANGE_RENAME, CHANGE_EXCHANGE, CHANGE_SETATTR, CHANGE_WRITE, CHANGE_TRUNCATE, CHANGE_FALLOCATE, CHANGE_PUNCH,
	CHANGE_SETXATTR, CHANGE_REMOVEXATTR, CHANGE_ATIME, CHANGE_REAP, CHANGE_COPY, CHANGE_EPOCH, CHANGE_MARK,
	CHANGE_FORGET,
};

#define INO_MAX         ((uint64_t)1 << 48)
#define INODE_SIZE      96u
#define INLINE_MAX      1024u
#define DIRENT_HEADER   9u
#define XATTR_HEADER    8u
#define XATTR_CHUNK     1024u           /* bytes of name and value in one item */
#define XATTR_CHUNKS    ((XATTR_HEADER + 255u + KEYS_XATTR_MAX) / XATTR_CHUNK + 1)
#define EXTENT_HEADER   24u
#define EXTENT_UNWRITTEN 1u
#define EXTENT_PRIVATE  2u
#define MAP_UNWRITTEN   1u
#define HISTORY_SIZE    40u
#define ORPHAN_MARK     1u
#define CLIENT_SLOT     24u
#define CLIENT_SIZE     (KEYS_CALL_SLOTS * CLIENT_SLOT)
enum { CLIENT_REQUEST = 0, CLIENT_SEQ = 8, CLIENT_NUMBER = 16 };
_Static_assert(INODE_SIZE + INLINE_MAX <= ITEM_MAX, "inline contents fit an item");
_Static_assert(EXTENT_HEADER + 4 * EXT_COUNT_MAX <= ITEM_MAX, "an extent fits an item");
_Static_assert(XATTR_HEADER + XATTR_CHUNK <= ITEM_MAX, "an xattr chunk fits an item");
_Static_assert(XATTR_CHUNKS <= 256, "a chunk number has 8 bits");
_Static_assert(CLIENT_SIZE == 768 && CLIENT_SIZE <= ITEM_MAX, "FORMAT.md says so, and it fits an item");

static inline struct key item_key(uint64_t ino, unsigned kind, uint64_t lo)
{
	return (struct key){ ino << 8 | kind, lo };
}

/* The fixed part of an inode item. */
void inode_encode(uint8_t *p, const struct keys_attr *a);
int inode_decode(const uint8_t *p, uint32_t len, uint64_t ino, struct keys_attr *ret);

struct extent {
	uint64_t fblock;                /* first block in the file */
	block_t block;
	gen_t gen;
	uint32_t count;
	uint32_t flags;
	uint8_t csums[4 * EXT_COUNT_MAX];
};
static inline uint32_t extent_item_len(uint32_t count, uint32_t flags)
{
	return EXTENT_HEADER + (flags & EXTENT_UNWRITTEN ? 0 : 4 * count);
}
void extent_encode(uint8_t *p, const struct extent *e);
/* csums are copied unless it is unwritten. */
int extent_decode(const uint8_t *p, uint32_t len, struct key k, struct extent *ret);

struct dirent {
	struct key key;
	uint64_t ino;
	uint32_t type;                  /* mode & S_IFMT */
	const char *name;
	uint32_t len;
};
int dirent_decode(const uint8_t *p, uint32_t len, struct key k, struct dirent *ret);
void dirent_encode(uint8_t *p, uint64_t ino, uint32_t mode, const char *name, size_t len);

/* Items of the store itself. */
void history_encode(uint8_t *p, const struct keys_epoch *e);
int history_decode(const uint8_t *p, uint32_t len, uint64_t epoch, struct keys_epoch *ret);
int orphan_decode(const uint8_t *p, uint32_t len, uint64_t ino, bool *ret_marked);

/* A name: 1 to 255 bytes, no '/', no NUL, not "." or "..". 0, -EINVAL, -ENAMETOOLONG. */
int name_check(const char *name, size_t len);

#endif
