/* SPDX-License-Identifier: MIT
 *
 * diff_wire: the bytes of a diff's messages, for diff_source.c and diff_target.c. Integers are little-endian; *var* is a
 * number in groups of 7 bits, the low ones first, bit 7 set in all but the last. A *key* is coded as the distance from the key
 * before it: var of the difference of hi, then, if that is 0, var of the difference of lo, else var lo itself.
 *
 * BEGIN    u32 version (1), u32 0, u64 seq, epoch, hash seed, digest seed, next inode, inodes, bytes in use
 * RANGES   u8 flags (1: these are the last), u16 n, then n times: key where it ends, u64 digest, u8 items.
 *          A range begins where the one before ended, the first at (0, 0); the last one has no key and ends with all keys.
 * MORE     u8: so many messages of RANGES more
 * ASK      any number of: u8 what, then
 *            KEYS  key (from (0, 0)), key (from the first)   the items of a range: it has no more than 16
 *            ITEM  key (from (0, 0))                         its value
 *            DEEP  var inode, var window                     digests of the bytes of its windows, from this one on
 *            DESC  var inode, var window                     what its blocks are
 *            DATA  var inode, var window, u8 all, unless all: 32 bytes: a bit for each block whose bytes are wanted
 * ANSWERS  in the order of what was asked: u8 what, then
 *            KEYS  u8 n, n times: key (from the range's begin), u64 digest
 *            ITEM  u16 length (0xffff: there is none), value
 *            DEEP  u8 n, n times: var window (from the one before), u64 digest, u64 digest of the bytes; u8 1: there are more
 *            DESC  layout; for each block of data: u32 checksum, u64 digest of the bytes
 *            DATA  layout; then, until all blocks came: u8 BLOCKS, u8 n, u64 bits, n times u32 checksum, n times 4096 bytes;
 *                  bit i: the checksum of block i does not fit its bytes, it is damaged at the source
 * END      nothing: the target needs no more
 * A window is a number of 256 file blocks. A layout is a list of u16: kind << 12 | blocks - 1, until there are 256.
 */
#ifndef MSYNCFS_DIFF_WIRE_H
#define MSYNCFS_DIFF_WIRE_H

#include "core/keys/logical.h"
#include "core/replica/diff.h"
#include "core/replica/wire.h"

#define DIFF_VERSION     1u
#define DIFF_BEGIN_LEN   64u
#define DIFF_RANGE_ITEMS 16u
#define DIFF_RANGES_LAST 1u
#define DIFF_DEEP_MAX    16u
#define DIFF_NO_ITEM     0xffffu
#define DIFF_BLOCKS_MAX  64u            /* in one BLOCKS */
#define DIFF_ASKED_MAX   (1u << 20)     /* bytes of questions that a source keeps */

enum diff_what { DIFF_KEYS = 1, DIFF_ITEM, DIFF_DEEP, DIFF_DESC, DIFF_DATA, DIFF_BLOCKS };

/* A message that waits to be worked on. */
struct diff_message {
	struct diff_message *next;
	size_t len;
	uint8_t bytes[];
};
struct diff_queue {
	struct diff_message *first, *last;
	size_t bytes;                   /* of memory */
	unsigned count;
};
int diff_queue_add(struct diff_queue *q, const void *bytes, size_t len);
void diff_queue_drop(struct diff_queue *q);     /* the first */
void diff_queue_clear(struct diff_queue *q);

/* What the cursors of wire.h do not know: bad if it cannot be. */
struct key diff_get_key(struct wire_reader *r, struct key before);
/* Inode and window as a key that may be; else bad. */
struct key diff_get_window(struct wire_reader *r);
void diff_get_layout(struct wire_reader *r, uint8_t kind[WINDOW_BLOCKS]);

/* The caller knows that there is room: each of these writes at most 20 bytes, a layout 512. */
uint8_t *diff_put_u8(uint8_t *p, uint8_t v);
uint8_t *diff_put_u16(uint8_t *p, uint16_t v);
uint8_t *diff_put_u32(uint8_t *p, uint32_t v);
uint8_t *diff_put_u64(uint8_t *p, uint64_t v);
uint8_t *diff_put_var(uint8_t *p, uint64_t v);
uint8_t *diff_put_key(uint8_t *p, struct key k, struct key before);
uint8_t *diff_put_window(uint8_t *p, struct key k);
uint8_t *diff_put_layout(uint8_t *p, const uint8_t kind[WINDOW_BLOCKS]);

static inline bool diff_bit(const uint8_t *bits, unsigned i)
{
	return bits[i / 8] >> (i % 8) & 1;
}

/* The digest of a range: item after item. */
static inline uint64_t diff_chain(uint64_t before, struct key k, uint64_t digest)
{
	uint8_t b[24];

	put_le64(b, k.hi);
	put_le64(b + 8, k.lo);
	put_le64(b + 16, digest);
	return hash64(b, sizeof b, before);
}

#endif
