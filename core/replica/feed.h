/* SPDX-License-Identifier: MIT
 *
 * feed: the last changes, as the records that were committed, in a ring of anonymous memory: what replicas that are in step
 * and watchers are served from. One thread adds (the request thread), any number of others read; nobody waits for anybody.
 * A reader that is slower than the ring is told so (-ESTALE) and never gets a record that is partly another one.
 *
 * Invariant (F1): `first` is raised before a byte of an older record is overwritten. So who copies a record and finds
 * afterwards that its number is still not below `first` has copied it whole.
 * Nothing is durable here: what is lost with the process is in the journal, and told by a diff.
 */
#ifndef MSYNCFS_FEED_H
#define MSYNCFS_FEED_H

#include "core/base.h"

#include <stdatomic.h>

#define FEED_SIZE     (64u << 20)       /* when nothing else is asked for */
#define FEED_SIZE_MIN (1u << 20)
#define FEED_SIZE_MAX (64ull << 30)

struct feed {
	_Atomic uint64_t *words;        /* the ring */
	_Atomic uint64_t *at;           /* where a record begins, by its seq; the one behind the last: where it ends */
	size_t mapped;
	uint64_t size;                  /* bytes, a power of two */
	uint64_t slots;                 /* of `at`, a power of two */
	uint64_t keep_ns;               /* records older than the newest by more are dropped; 0: never for their age */
	uint64_t head;                  /* the producer's: bytes ever added */
	_Atomic uint64_t first, next;   /* records [first, next) are there */
	_Atomic uint64_t restarts;      /* odd: one is under way */
};

/* size is rounded up to a power of two; memory is taken as the ring fills. next: the first change that will come
 * (store_seq() + 1). -ENOMEM, -EINVAL. */
int feed_init(struct feed *f, uint64_t size, uint64_t keep_ns, seq_t next);
/* No reader is left. */
void feed_release(struct feed *f);
/* Producer: the next change. One that does not follow the last begins the feed anew. */
void feed_add(struct feed *f, const uint8_t *rec, uint32_t len);
/* Producer: forget all; changes from `next` on will come. Every reader gets -ESTALE (after a rebase: the numbers may come
 * again as other changes). */
void feed_restart(struct feed *f, seq_t next);
/* [any] The records that are there: *ret_first is the oldest; false: none. */
bool feed_range(const struct feed *f, seq_t *ret_first, seq_t *ret_last);
/* [any] Bytes of all changes that are there. */
uint64_t feed_bytes(const struct feed *f);

/* A reader belongs to one thread. */
struct feed_reader {
	const struct feed *feed;
	seq_t next;                     /* what it reads next */
	uint64_t restarts;
};

/* [any] Begin with the change `seq`. -ESTALE: it is no longer there. That may also be one that is still to come, but not
 * any behind that: -EINVAL. */
int feed_reader_init(struct feed_reader *r, const struct feed *f, seq_t seq);
/* [any] 1: the next record is in buf (REC_MAX bytes), *ret_len; the reader has moved on. 0: there is none yet. -ESTALE: it
 * was overwritten; the reader is of no use any more. */
int feed_read(struct feed_reader *r, uint8_t *buf, uint32_t *ret_len);
/* [any] How many bytes of records the reader is behind (0 if it was overtaken). */
uint64_t feed_behind(const struct feed_reader *r);

#endif
