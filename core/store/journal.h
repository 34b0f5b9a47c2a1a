/* SPDX-License-Identifier: MIT
 *
 * journal: records one after the other in segments of the mapping. Owns the segments and the tail.
 *
 * Threads: the request thread appends and changes the list of segments; the syncer asks journal_sync(). They share the
 * published position (atomics) and, under `lock`, the list. The lock is never held over a system call.
 * Invariant (J1): behind the tail there is always room for a NEXT record in its segment.
 * Invariant (J2): a page that a sync has begun to write is not appended to (the tail moves to the next page), so an
 * append neither waits for writeback nor takes a write-protect fault.
 */
#ifndef MSYNCFS_JOURNAL_H
#define MSYNCFS_JOURNAL_H

#include "core/base.h"
#include "core/store/format.h"
#include "core/store/map.h"

/* A run owns up to SEGS_MAX; recovery finds those that the superblock lists and those of the chain that it does not. */
#define JOURNAL_SEGS (2 * SEGS_MAX)

/* Spares that appends leave alone: where recovery begins anew. */
#define JOURNAL_KEPT 1u

struct journal {
	struct map *map;
	uint64_t store_id;
	uint64_t nonce_seed;            /* makes the nonces of this opening */
	unsigned shift;
	pthread_mutex_t lock;           /* guards segs, count, used, first_serial against the syncer */
	block_t segs[JOURNAL_SEGS];     /* in chain order: used ones, then spares */
	unsigned count, used;
	uint64_t first_serial;          /* of segs[0] */
	uint64_t nonce;                 /* of the tail's segment */
	uint64_t chain;                 /* check of the last record */
	jpos_t tail;                    /* request thread's */
	seq_t seq;
	uint64_t epoch;
	seq_t proven;                   /* journal_check_damage() found that this one was on disk */
	_Atomic jpos_t pub_tail;        /* published after each append, tail before seq */
	_Atomic seq_t pub_seq;
	_Atomic jpos_t sync_mark;       /* the syncer writes, or has written, up to here */
	uint64_t end;                   /* no segment is behind this block; 0: behind the mapping's end */
	uint64_t searched;              /* bytes hashed by the last journal_check_damage() */
	uint64_t skipped;               /* bytes hashed by journal_skip() in the tail's segment */
};

/* Where records begin: what a superblock knows. */
struct journal_start {
	jpos_t pos;
	uint64_t nonce, chain;
	seq_t seq;
	uint64_t epoch;
};

int journal_init(struct journal *j, struct map *map, unsigned shift, uint64_t store_id, uint64_t nonce_seed);
void journal_release(struct journal *j);
/* Take over the segments of a superblock: segs[0] has `start`, the others are spares. */
int journal_load(struct journal *j, const block_t *segs, unsigned count, const struct journal_start *start);
/* Add a spare segment. -ENOSPC if there are SEGS_MAX. */
int journal_add_segment(struct journal *j, block_t first);
static inline unsigned journal_spares(const struct journal *j)
{
	return j->count - j->used;
}
static inline uint64_t journal_seg_blocks(const struct journal *j)
{
	return (uint64_t)1 << (j->shift - BLOCK_SHIFT);
}
/* Does one of the segments have a block of [block, block + count)? */
bool journal_owns(const struct journal *j, block_t block, uint64_t count);
/* Go to the start of a spare segment with a fresh nonce (after recovery; nothing leads there but the next superblock). */
int journal_new_start(struct journal *j);
/* The same, and what follows is numbered from seq + 1 on, in this epoch: the state is another one's. -EAGAIN: no spare. */
int journal_rebase(struct journal *j, seq_t seq, uint64_t epoch);

/* Append a record (header fields seq, chain, epoch, durable, check are filled in). internal: the seq does not advance.
 * -EAGAIN: a new segment is needed and there is no spare. *ret_rec is where it stands in the mapping. */
int journal_append(struct journal *j, uint8_t *rec, uint32_t len, seq_t durable, const uint8_t **ret_rec);
/* The position that a checkpoint cut now begins at. */
void journal_position(const struct journal *j, struct journal_start *ret);
/* [any helper] msync [from, to). */
int journal_sync(struct journal *j, jpos_t from, jpos_t to);
/* [any helper] Block ranges of [from, to): calls fn for each. */
int journal_ranges(struct journal *j, jpos_t from, jpos_t to,
		   int (*fn)(void *ctx, block_t first, uint64_t count), void *ctx);
/* [any helper] The segment that follows the tail's; false if there is none yet. Not before it is used, it may be given back. */
bool journal_coming(struct journal *j, block_t *ret_first);
/* Spares at or behind `limit` are given to fn; if records are being written behind it, they go on in another spare. */
int journal_go_low(struct journal *j, block_t limit, seq_t durable, int (*fn)(void *ctx, block_t first, uint64_t blocks),
		   void *ctx);
/* Used segments before the tail's. */
unsigned journal_old(const struct journal *j);
/* Nothing before pos is needed any more: of its segments the first `gone` are forgotten (their blocks are free already),
 * the others become spares; those beyond `keep` spares are given to fn. */
int journal_trim(struct journal *j, jpos_t pos, unsigned gone, unsigned keep,
		 int (*fn)(void *ctx, block_t first, uint64_t blocks), void *ctx);

/* Recovery: the records from `start` on, one after the other; the journal's tail, chain, seq and nonce move along. */
struct journal_next {
	const uint8_t *rec;
	uint32_t len;
	jpos_t pos;
};
/* 1: *ret is the next valid record (by its own bytes; the caller checks the extents, then calls journal_accept());
 * 0: there is none. NEXT records are followed: claim(ctx, block) is asked when one leads to a segment that is not ours. */
int journal_peek(struct journal *j, struct journal_next *ret);
int journal_accept(struct journal *j, const struct journal_next *n, int (*claim)(void *ctx, block_t first, uint64_t blocks),
		   void *ctx);
/* After the last accepted record: -EUCLEAN if a later record proves that the one after it was on disk and is damaged. The
 * chain is followed over whole NEXT records, also to segments that are not listed. Takes time by the journal's size,
 * whatever it contains. */
int journal_check_damage(struct journal *j);

/* Salvage: go over what is damaged behind the last accepted record, to the next one that is whole by itself; it is what
 * journal_peek() finds then. past: not to the one at the tail, which is whole and of no use. 1; 0: there is none. */
int journal_skip(struct journal *j, bool past);
/* Where the tail stands in the file. */
uint64_t journal_byte(const struct journal *j);

#endif
