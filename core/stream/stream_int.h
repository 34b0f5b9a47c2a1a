/* SPDX-License-Identifier: MIT
 *
 * stream_int: what the files of core/stream share: the bytes of STREAM.md, frames, the rules of what may follow what, and
 * names in order.
 */
#ifndef MSYNCFS_STREAM_INT_H
#define MSYNCFS_STREAM_INT_H

#include "core/base.h"
#include "core/keys/keys_int.h"
#include "core/store/tree.h"
#include "core/stream/stream.h"

#define STREAM_VERSION 1u
enum { STREAM_HEADER = 32, STREAM_H_VERSION = 8, STREAM_H_FLAGS = 12, STREAM_H_CHECK = 24 };

#define FRAME_RAW   (1u << 20)          /* most bytes of items in a frame */
enum { FRAME_CHECK = 0, FRAME_KIND = 8, FRAME_LEN = 12, FRAME_PACKED = 16, FRAME_HEADER = 24 };
enum frame_kind { FRAME_ITEMS = 1, FRAME_END = 2 };

/* The end marker. */
enum {
	END_FRAMES = 0, END_INODES = 8, END_ENTRIES = 16, END_XATTRS = 24, END_DATA = 32, END_UNWRITTEN = 40,
	END_NEXT_INO = 48, END_TOTAL = 56, END_LEN = 64,
};

enum stream_kind { STREAM_INODE = 1, STREAM_XATTR = 2, STREAM_ENTRY = 3, STREAM_DATA = 4, STREAM_UNWRITTEN = 5 };
enum { ITEM_KIND = 0, ITEM_LEN = 4, ITEM_HEADER = 8 };

enum {
	SI_INO = 0, SI_MODE = 8, SI_NLINK = 12, SI_UID = 16, SI_GID = 20, SI_SIZE = 24, SI_AUX = 32, SI_FLAGS = 40,
	SI_NSEC = 48, SI_SEC = 64, SI_LEN = 96,
};
#define STREAM_INLINE 1u                /* flag: the contents follow, and stand in the inode's item */
enum { SX_NAME_LEN = 0, SX_VALUE_LEN = 4, SX_LEN = 8 };
enum { SE_INO = 0, SE_TYPE = 8, SE_NAME_LEN = 9, SE_LEN = 12 };
enum { SD_OFFSET = 0, SD_LEN = 8 };
enum { SU_OFFSET = 0, SU_BYTES = 8, SU_LEN = 16 };
#define CHUNK_BYTES 131072u             /* contents are cut at multiples of this */
_Static_assert(ITEM_HEADER + SD_LEN + CHUNK_BYTES < FRAME_RAW, "an item fits a frame");
_Static_assert(ITEM_HEADER + SX_LEN + 255 + KEYS_XATTR_MAX < FRAME_RAW, "an item fits a frame");

/* frame.c: items to frames and back ------------------------------------------------------------------------------- */
struct stream_writer;
int writer_new(int fd, const struct stream_watch *watch, struct stream_counts *counts, struct stream_writer **ret);
void writer_free(struct stream_writer *w);
/* Room for an item's payload, to be filled before the next call. NULL: *ret_error says why. */
uint8_t *writer_item(struct stream_writer *w, enum stream_kind kind, uint32_t len, int *ret_error);
/* A writer that hands its items on to `take` instead, about a MiB at a time, and writes no bytes. */
typedef int (*writer_take_fn)(void *ctx, unsigned kind, const uint8_t *data, uint32_t len);
int writer_to(writer_take_fn take, void *ctx, const struct stream_watch *watch, struct stream_counts *counts,
	      struct stream_writer **ret);
/* The end marker with w's counts. */
int writer_end(struct stream_writer *w, uint64_t next_ino);

struct stream_reader;
/* Reads and checks the header of the stream. */
int reader_new(int fd, const struct stream_watch *watch, struct stream_counts *counts, struct stream_reader **ret);
void reader_free(struct stream_reader *r);
/* 1: an item, valid until the next call; 0: the end marker was read, its sum holds and nothing follows. */
int reader_item(struct stream_reader *r, unsigned *ret_kind, const uint8_t **ret_data, uint32_t *ret_len);
/* What the end marker says (END_LEN bytes). */
const uint8_t *reader_end(const struct stream_reader *r);

/* rules.c: what may stand in a stream. Asked before an item is written and after it was read, so that neither a damaged
 * store nor a hostile stream goes further. All return 0 or -EUCLEAN. */
struct rules {
	uint64_t seed, links;           /* see rules.c */
	struct keys_attr a;             /* the inode whose items these are; ino 0: none yet */
	uint32_t inline_len;
	enum stream_kind stage;         /* kind of the item before */
	uint8_t name[256];              /* the name before, of this stage */
	uint32_t name_len;
	uint64_t entries, subdirs;      /* of this directory */
	uint64_t data, at;              /* bytes of contents; where the next may begin */
	uint64_t uphill;                /* directories with a smaller number than their parent */
	struct stream_counts *counts;
};
void rules_init(struct rules *u, uint64_t seed, struct stream_counts *counts);
int rules_inode(struct rules *u, const struct keys_attr *a, uint32_t inline_len);
int rules_xattr(struct rules *u, const uint8_t *name, uint32_t len, uint32_t value_len);
int rules_entry(struct rules *u, const uint8_t *name, uint32_t len, uint64_t ino, uint32_t type);
int rules_data(struct rules *u, uint64_t off, uint64_t len);
int rules_unwritten(struct rules *u, uint64_t off, uint64_t len);
int rules_end(struct rules *u, uint64_t next_ino);

/* dump.c: all that k holds goes to w, which is freed. */
int dump_to(struct keys *k, struct stream_writer *w, struct stream_counts *counts);

/* sorted.c: the names of an inode's entries or attributes in the order of their bytes ------------------------------- */
struct sorted_name {
	uint64_t prefix;                /* first 8 bytes as a number */
	const uint8_t *name, *value;    /* in the mapping; value: of the item */
	uint32_t len, value_len;
	uint64_t lo;                    /* of the item's key */
};
#define SORTED_KEEP (1u << 20)          /* names in memory at once, 64 MiB at most */
/* Calls fn for each name among the items with this `hi`, which are DIRENTs or XATTRs. The tree must not change. */
int sorted_names(struct tree *t, uint64_t hi, size_t keep, int (*fn)(void *ctx, const struct sorted_name *n), void *ctx);

#endif
