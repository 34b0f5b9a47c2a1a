/* SPDX-License-Identifier: MIT
 *
 * change: what a record did, without places: what travels to other stores, and how a replica makes a record of its own of it
 * (DESIGN.md section 2). Encoding and decoding are pure and may be called from any
 * thread; change_apply() belongs to the request thread. A change that came from elsewhere is trusted in nothing.
 *
 * Bytes, little-endian:
 *    0 u64 check        XXH3-64 of bytes 8..len-1, seed 0
 *    8 u64 seq, 16 u64 epoch, 24 u64 time_ns, 32 u64 committed, 40 u64 client, 48 u64 request     as in the record
 *   56 u16 type, 58 u16 flags (0), 60 u32 mutations
 *   64 the mutations, each u8 kind, u8[3] 0, u32 len, then len bytes, padded with zeros to 8: as in the record (core/FORMAT.md
 *      section 4) but for
 *      MAP   u64 ino, u64 file block, u32 count, u32 flags (bit 0 unwritten), then count x 4096 bytes unless unwritten
 *      REAP  is never part of a change
 */
#ifndef MSYNCFS_CHANGE_H
#define MSYNCFS_CHANGE_H

#include "core/base.h"
#include "core/store/record.h"

struct keys;

#define CHANGE_MAX    (1280u * 1024u - 72u)     /* a frame less what is around it */
#define CHANGE_HEADER 64u
enum {
	CHANGE_CHECK = 0, CHANGE_SEQ = 8, CHANGE_EPOCH_OFF = 16, CHANGE_TIME = 24, CHANGE_COMMITTED = 32, CHANGE_CLIENT = 40,
	CHANGE_REQUEST = 48, CHANGE_TYPE = 56, CHANGE_FLAGS = 58, CHANGE_MUTATIONS = 60,
};

struct change_info {
	seq_t seq;
	uint64_t epoch, time_ns, committed, client, request;
	unsigned type;
	uint32_t mutations;
};
/* What the header says; nothing else is looked at. -EPROTO: it cannot be. */
int change_info(const uint8_t *bytes, uint32_t len, struct change_info *ret);

/* Encode a committed record. read() gets the bytes of blocks that it names, as they are now; they are compared with the
 * record's checksums afterwards. -ESTALE: they are no longer what they were, whoever needs this change is too late for it.
 * -EINVAL: an internal record; -E2BIG: buf (CHANGE_MAX is always enough) is too small; -EUCLEAN: no whole record. */
int change_encode(const uint8_t *rec, uint32_t len, int (*read)(void *ctx, block_t block, uint64_t count, uint8_t *to),
		  void *ctx, uint8_t *buf, uint32_t size, uint32_t *ret_len);

/* Decoding: every bound is checked before anything is used. */
struct change_reader {
	const uint8_t *bytes;
	uint32_t len, at;
	uint32_t left;                  /* mutations to come */
	struct change_info info;
};
/* The header and the check of all bytes. -EPROTO. */
int change_open(struct change_reader *r, const uint8_t *bytes, uint32_t len);
/* 1: *ret is the next mutation; 0: no more, and the end is where it must be; -EPROTO. */
int change_next(struct change_reader *r, struct mutation *ret);
/* A MAP mutation of a change. -EPROTO. */
struct change_map {
	uint64_t ino, fblock;
	uint32_t count;
	const uint8_t *data;            /* NULL: unwritten */
};
int change_map_decode(const struct mutation *m, struct change_map *ret);

/* Request thread of a replica: make a record of it, commit and apply it. 0: the store is at this change, in memory and in its
 * journal, as after keys_ calls.
 * -EAGAIN: space is being made, call again after `progress`; what files show did not change. -ENOSPC: there is none; as well.
 * -EPROTO: this is no change, or not the next one of this store (err_last()): nothing was changed.
 * -EUCLEAN: the store is damaged where the change leads. -EROFS: read-only, failed, or no replica. */
int change_apply(struct keys *k, const uint8_t *bytes, uint32_t len);

/* Events: what a change did, for those who follow: invalidation, `watch`. ------------------------------------------------ */

enum change_event_kind {
	EVENT_NAME,             /* dir, name, ino, type: the name leads to this inode now */
	EVENT_NO_NAME,          /* dir, name (len 0: not known): it is gone */
	EVENT_NEW,              /* ino: an inode was made */
	EVENT_ATTR,             /* ino */
	EVENT_DATA,             /* ino, from, to (bytes): contents may have changed */
	EVENT_XATTR,            /* ino */
	EVENT_ORPHAN,           /* ino, marked: it has no name; marked: and nobody has it open */
	EVENT_EPOCH,            /* epoch */
	EVENT_CALL,             /* client, request, number */
	EVENT_FORGET,           /* client */
};
struct change_event {
	enum change_event_kind kind;
	uint64_t ino, dir;
	uint32_t type;                  /* mode bits S_IFMT */
	const char *name;               /* in the change, not terminated */
	uint32_t len;
	uint64_t from, to;
	bool marked;
	uint64_t epoch;
	uint64_t client, request, number;
};
struct change_events {
	bool is_record;
	struct record_reader rec;
	struct change_reader change;
};
/* Of a record as the store's `committed` and the feed have it, or of a change. -EUCLEAN, -EPROTO. */
int change_events_of_record(struct change_events *e, const uint8_t *rec, uint32_t len);
int change_events_of_change(struct change_events *e, const uint8_t *bytes, uint32_t len);
/* 1: *ret is the next one; 0: no more; -EUCLEAN, -EPROTO. */
int change_event(struct change_events *e, struct change_event *ret);

#endif
