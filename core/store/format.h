/* SPDX-License-Identifier: MIT
 *
 * format: offsets and constants of FORMAT.md, block level. Nothing but numbers: fields are read and written in place
 * with get_le*()/put_le*() at these offsets, so the layout is the same on every machine.
 */
#ifndef MSYNCFS_FORMAT_H
#define MSYNCFS_FORMAT_H

#include "core/base.h"

#define FORMAT_VERSION 1u

/* Feature bits this build knows. */
#define FEATURE_COMPAT_KNOWN    0ull
#define FEATURE_RO_COMPAT_KNOWN FEATURE_CLUSTER
#define FEATURE_INCOMPAT_KNOWN  FEATURE_INCOMPLETE
#define FEATURE_CLUSTER    1ull         /* ro_compat: it has a role, and records and items of a cluster */
#define FEATURE_INCOMPLETE 1ull         /* incompat: a replica whose first sync is under way: no state of its primary */

/* What a store is to others. */
#define ROLE_ALONE   0u
#define ROLE_PRIMARY 1u
#define ROLE_REPLICA 2u

/* Superblock */
#define SB_MAGIC "\x89msyncfs"
enum {
	SB_MAGIC_OFF = 0, SB_CSUM = 8, SB_VERSION = 16, SB_BLOCK_SHIFT = 20, SB_COMPAT = 24, SB_RO_COMPAT = 32,
	SB_INCOMPAT = 40, SB_UUID = 48, SB_GEN = 64, SB_GEN_LIMIT = 72, SB_FLIP = 80, SB_SEQ = 88, SB_EPOCH = 96,
	SB_PROMISED = 104, SB_TOTAL = 112, SB_MAX = 120, SB_USED = 128, SB_INODES = 136, SB_NEXT_INO = 144,
	SB_ROOT_BLOCK = 152, SB_ROOT_GEN = 160, SB_ROOT_LEVEL = 168, SB_CLEAN = 172, SB_HASH_SEED = 176,
	SB_CREATED = 184, SB_WRITTEN = 192, SB_JPOS = 200, SB_JCHAIN = 208, SB_SEG_SHIFT = 216, SB_SEG_COUNT = 220,
	SB_HOLDER_PID = 224, SB_ROLE = 228, SB_JNONCE = 232, SB_CLUSTER = 240, SB_HOLDER_HOST = 256, SB_HOLDER_MOUNT = 320, SB_SEGS = 2048,
};
/* Each of the two superblocks stands in two places: here, and at the end of the first 8 MiB, which every store has. */
#define SUPERS       2u
#define SUPER_COPY   2046u
#define SUPER_PLACES (2 * SUPERS)
#define SB_HOST_LEN  64u
#define SB_MOUNT_LEN 1024u
#define SEGS_MAX     256u
_Static_assert(SB_HOLDER_MOUNT + SB_MOUNT_LEN <= SB_SEGS, "superblock fields overlap");
_Static_assert(SB_SEGS + SEGS_MAX * 8 == BLOCK_SIZE, "segment list ends the superblock");

/* Groups and bitmap slots */
#define SLOT_MAGIC 0x706d62636e79736dull        /* "msyncbmp" */
enum { SLOT_MAGIC_OFF = 0, SLOT_CSUM = 8, SLOT_GROUP = 16, SLOT_GEN = 24, SLOT_USED = 32, SLOT_BITS = 64 };
#define SLOTS        3u
#define GROUP_WORDS  504u
#define GROUP_BLOCKS (GROUP_WORDS * 64u)
_Static_assert(SLOT_BITS + GROUP_WORDS * 8 == BLOCK_SIZE, "bitmap fills its slot");
_Static_assert(GROUP_BLOCKS == 32256, "FORMAT.md says so");

/* Blocks at the start of a group that are never given out: superblocks and slots. */
static inline unsigned group_fixed(uint64_t group)
{
	return group == 0 ? SUPERS + SLOTS : SLOTS;
}

/* Journal */
#define SEG_MAGIC 0x676573636e79736dull         /* "msyncseg" */
enum { SEG_MAGIC_OFF = 0, SEG_CSUM = 8, SEG_SERIAL = 16, SEG_NONCE = 24, SEG_STORE = 32, SEG_NEXT = 40, SEG_HEADER = 64 };
#define SEG_SHIFT_SMALL 18u
#define SEG_SHIFT_LARGE 20u

#define REC_MAGIC 0x4345524du                   /* "MREC" */
enum {
	REC_MAGIC_OFF = 0, REC_LEN = 4, REC_CHECK = 8, REC_CHAIN = 16, REC_SEQ = 24, REC_EPOCH = 32, REC_DURABLE = 40,
	REC_TIME = 48, REC_TYPE = 56, REC_FLAGS = 58, REC_EXTENTS = 60, REC_MUTATIONS = 62, REC_COMMITTED = 64,
	REC_CONTENT = 72, REC_CLIENT = 80, REC_REQUEST = 88, REC_HEADER = 96,
};
#define REC_MAX 131072u
#define REC_FLAG_INTERNAL 1u
#define REC_TYPE_NEXT     1u
#define REC_NEXT_LEN      (REC_HEADER + MUT_HEADER + 24u)       /* one mutation: block, serial, nonce */

enum { EXT_BLOCK = 0, EXT_COUNT = 8, EXT_FLAGS = 12, EXT_HEADER = 16 };
#define EXT_FRESH 1u
#define EXT_DATA  2u
#define EXT_COUNT_MAX 256u

enum { MUT_KIND = 0, MUT_LEN = 4, MUT_HEADER = 8 };
#define MUT_IGNORABLE 128u      /* kinds from here on are skipped by those who do not know them */

/* Tree */
#define PAGE_MAGIC 0x4750544du                  /* "MTPG" */
enum {
	PAGE_MAGIC_OFF = 0, PAGE_LEVEL = 4, PAGE_COUNT = 6, PAGE_CSUM = 8, PAGE_BLOCK = 16, PAGE_GEN = 24,
	PAGE_STORE = 32, PAGE_LOW = 40, PAGE_DEAD = 42, PAGE_ENTRIES = 48,
};
#define LEAF_ENTRY   20u
#define INNER_ENTRY  32u
#define INNER_MAX    ((BLOCK_SIZE - PAGE_ENTRIES) / INNER_ENTRY)
#define ITEM_MAX     1200u
#define TREE_LEVELS  12u
_Static_assert(PAGE_ENTRIES + 3 * (LEAF_ENTRY + ITEM_MAX) <= BLOCK_SIZE, "three largest items fit a leaf");

/* Items of the store itself (ino 0) */
#define KIND_SPACE  16u
#define KIND_ORPHAN 17u
#define KIND_HISTORY 18u       /* epochs */
#define KIND_CLIENT 19u        /* the last calls of a remote mount */

#endif
