/* SPDX-License-Identifier: MIT
 *
 * record: one change as bytes: a header, the extents it names, its mutations (FORMAT.md section 4). The builder fills a
 * buffer that journal_append() copies; the reader checks every bound before anything is used. Knows framing, not what a
 * mutation means.
 */
#ifndef MSYNCFS_RECORD_H
#define MSYNCFS_RECORD_H

#include "core/base.h"
#include "core/store/format.h"

#define REC_EXTENTS_MAX 256u

struct record_extent {
	block_t block;
	uint32_t count;
	uint32_t flags;
	const uint8_t *csums;           /* count x u32, if EXT_DATA */
};

/* A record being built. All extents come before the first mutation. */
struct record {
	uint8_t *buf;                   /* REC_MAX bytes */
	uint32_t len;
	bool overflow;                  /* more than REC_MAX was asked for */
};

int record_init(struct record *rec);
void record_release(struct record *rec);
void record_begin(struct record *rec, unsigned type, unsigned flags, uint64_t time_ns);
/* Index of the extent. csums may be filled in through *ret_csums (count x u32). */
unsigned record_extent(struct record *rec, block_t block, uint32_t count, uint32_t flags, uint8_t **ret_csums);
/* Room for a mutation's payload; never NULL (rec->overflow tells). */
uint8_t *record_mutation(struct record *rec, unsigned kind, uint32_t len);

/* Reading. */
struct record_reader {
	const uint8_t *rec;
	uint32_t len, at;
	unsigned left;                  /* mutations to come */
	unsigned extent_count;
	struct record_extent extents[REC_EXTENTS_MAX];
};

struct mutation {
	unsigned kind;
	uint32_t len;
	const uint8_t *data;
};

/* Check the framing of a whole record of `len` bytes and decode its extents. -EUCLEAN. */
int record_open(struct record_reader *r, const uint8_t *rec, uint32_t len);
/* 1: *ret is the next one; 0: no more; -EUCLEAN. */
int record_next(struct record_reader *r, struct mutation *ret);

#endif
