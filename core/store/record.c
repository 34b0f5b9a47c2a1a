/* SPDX-License-Identifier: MIT
 *
 * record: see record.h.
 */
#include "core/store/record.h"

#include <stdlib.h>


int record_init(struct record *rec)
{
	memset(rec, 0, sizeof *rec);
	rec->buf = malloc(REC_MAX);
	return rec->buf ? 0 : -ENOMEM;
}

void record_release(struct record *rec)
{
	free(rec->buf);
	rec->buf = NULL;
}

void record_begin(struct record *rec, unsigned type, unsigned flags, uint64_t time_ns)
{
	memset(rec->buf, 0, REC_HEADER);
	put_le32(rec->buf + REC_MAGIC_OFF, REC_MAGIC);
	put_le64(rec->buf + REC_TIME, time_ns);
	put_le16(rec->buf + REC_TYPE, (uint16_t)type);
	put_le16(rec->buf + REC_FLAGS, (uint16_t)flags);
	rec->len = REC_HEADER;
	rec->overflow = false;
}

/* Append len bytes (a multiple of 8). What does not fit overwrites the beginning: the caller sees rec->overflow. */
static uint8_t *extend(struct record *rec, uint32_t len)
{
	uint8_t *p;

	if (len > REC_MAX - rec->len) {
		rec->overflow = true;
		rec->len = REC_HEADER;
		len = (uint32_t)min_u64(len, REC_MAX - REC_HEADER);
	}
	p = rec->buf + rec->len;
	rec->len += len;
	return p;
}

unsigned record_extent(struct record *rec, block_t block, uint32_t count, uint32_t flags, uint8_t **ret_csums)
{
	unsigned n = get_le16(rec->buf + REC_EXTENTS);
	uint32_t csums = flags & EXT_DATA ? (uint32_t)align_up(count * 4u, 8) : 0;
	uint8_t *p;

	check(get_le16(rec->buf + REC_MUTATIONS) == 0);         /* extents come first */
	p = extend(rec, EXT_HEADER + csums);
	if (n >= REC_EXTENTS_MAX)
		rec->overflow = true;
	put_le64(p + EXT_BLOCK, block);
	put_le32(p + EXT_COUNT, count);
	put_le32(p + EXT_FLAGS, flags);
	if (csums)
		put_le32(p + EXT_HEADER + csums - 4, 0);
	if (ret_csums)
		*ret_csums = p + EXT_HEADER;
	put_le16(rec->buf + REC_EXTENTS, (uint16_t)(n + 1));
	return n;
}

uint8_t *record_mutation(struct record *rec, unsigned kind, uint32_t len)
{
	uint32_t padded = (uint32_t)align_up(len, 8);
	uint8_t *p = extend(rec, MUT_HEADER + padded);

	put_le32(p, kind);
	put_le32(p + MUT_LEN, len);
	if (padded > len)
		memset(p + MUT_HEADER + len, 0, padded - len);
	put_le16(rec->buf + REC_MUTATIONS, (uint16_t)(get_le16(rec->buf + REC_MUTATIONS) + 1));
	return p + MUT_HEADER;
}

int record_open(struct record_reader *r, const uint8_t *rec, uint32_t len)
{
	unsigned i;

	r->rec = rec;
	r->len = len;
	r->at = REC_HEADER;
	if (len < REC_HEADER)
		return err_corrupt("record of %u bytes", len);
	r->left = get_le16(rec + REC_MUTATIONS);
	r->extent_count = get_le16(rec + REC_EXTENTS);
	if (r->extent_count > REC_EXTENTS_MAX)
		return err_corrupt("record names %u extents", r->extent_count);
	for (i = 0; i < r->extent_count; i++) {
		struct record_extent *e = &r->extents[i];
		const uint8_t *p = rec + r->at;
		uint32_t csums;

		if (len - r->at < EXT_HEADER)
			return err_corrupt("record ends inside extent %u", i);
		e->block = get_le64(p + EXT_BLOCK);
		e->count = get_le32(p + EXT_COUNT);
		e->flags = get_le32(p + EXT_FLAGS);
		e->csums = p + EXT_HEADER;
		if (e->flags & ~(EXT_FRESH | EXT_DATA) || e->count == 0 ||
		    e->count > (e->flags & EXT_DATA ? EXT_COUNT_MAX : GROUP_BLOCKS))
			return err_corrupt("record's extent %u: %u blocks, flags %u", i, e->count, e->flags);
		csums = e->flags & EXT_DATA ? (uint32_t)align_up(e->count * 4u, 8) : 0;
		if (len - r->at - EXT_HEADER < csums)
			return err_corrupt("record ends inside extent %u", i);
		r->at += EXT_HEADER + csums;
	}
	return 0;
}

int record_next(struct record_reader *r, struct mutation *ret)
{
	const uint8_t *p = r->rec + r->at;
	uint32_t padded;

	if (r->left == 0)
		return r->at == r->len ? 0 : err_corrupt("record has %u bytes behind its end", r->len - r->at);
	if (r->len - r->at < MUT_HEADER)
		return err_corrupt("record ends inside a mutation");
	ret->kind = p[MUT_KIND];
	ret->len = get_le32(p + MUT_LEN);
	ret->data = p + MUT_HEADER;
	if (ret->len > r->len - r->at - MUT_HEADER)
		return err_corrupt("record's mutation has %u bytes", ret->len);
	padded = (uint32_t)align_up(ret->len, 8);
	if (padded > r->len - r->at - MUT_HEADER)
		return err_corrupt("record's mutation has %u bytes", ret->len);
	r->at += MUT_HEADER + padded;
	r->left--;
	return 1;
}
