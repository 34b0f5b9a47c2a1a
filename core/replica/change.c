/* SPDX-License-Identifier: MIT
 *
 * change: see change.h. Encoding, decoding, events; applying is in change_apply.c.
 */
#include "core/replica/change.h"

#include "core/keys/item.h"

#define SEQ_MAX ((uint64_t)1 << 62)

/* Encoding -------------------------------------------------------------------------------------------------------- */

struct writer {
	uint8_t *buf;
	uint32_t size, len;
	uint32_t mutations;
};

/* Room for a mutation's payload; NULL: there is none. */
static uint8_t *put_mutation(struct writer *w, unsigned kind, uint64_t len)
{
	uint64_t padded = align_up(len, 8);
	uint8_t *p = w->buf + w->len;

	if (padded > w->size || MUT_HEADER + padded > w->size - w->len)
		return NULL;
	put_le32(p + MUT_KIND, kind);
	put_le32(p + MUT_LEN, (uint32_t)len);
	if (padded > len)
		memset(p + MUT_HEADER + len, 0, padded - len);
	w->len += (uint32_t)(MUT_HEADER + padded);
	w->mutations++;
	return p + MUT_HEADER;
}

static int put_map(struct writer *w, const struct record_reader *r, const struct mutation *m,
		   int (*read)(void *ctx, block_t block, uint64_t count, uint8_t *to), void *ctx)
{
	const struct record_extent *e;
	uint64_t ino, fblock;
	bool unwritten;
	uint32_t i;
	uint8_t *p;
	int err;

	if (m->len != 24 || get_le32(m->data + 16) >= r->extent_count)
		return err_corrupt("record has a mutation of kind %u with %u bytes", m->kind, m->len);
	e = &r->extents[get_le32(m->data + 16)];
	ino = get_le64(m->data);
	fblock = get_le64(m->data + 8);
	unwritten = get_le32(m->data + 20) & MAP_UNWRITTEN;
	if (unwritten == !!(e->flags & EXT_DATA))
		return err_corrupt("record maps an extent that is not what it says");
	p = put_mutation(w, MUT_MAP, 24 + (unwritten ? 0 : (uint64_t)e->count << BLOCK_SHIFT));
	if (!p)
		return -E2BIG;
	put_le64(p, ino);
	put_le64(p + 8, fblock);
	put_le32(p + 16, e->count);
	put_le32(p + 20, unwritten ? MAP_UNWRITTEN : 0);
	if (unwritten)
		return 0;
	p += 24;
	err = read(ctx, e->block, e->count, p);
	if (err < 0)
		return err;
	/* After reading: before it, they could still have been given to another file in between. */
	for (i = 0; i < e->count; i++)
		if (block_csum(p + ((size_t)i << BLOCK_SHIFT), ino, fblock + i) != get_le32(e->csums + 4 * i))
			return -ESTALE;
	return 0;
}

static int put_one(struct writer *w, const struct record_reader *r, const struct mutation *m,
		   int (*read)(void *ctx, block_t block, uint64_t count, uint8_t *to), void *ctx)
{
	uint8_t *p;

	switch (m->kind) {
	case MUT_PUT: case MUT_DEL: case MUT_DELNAME: case MUT_ATTR: case MUT_DATA: case MUT_PUNCH: case MUT_CLIENT:
		break;
	case MUT_MAP:
		return put_map(w, r, m, read, ctx);
	default:
		if (m->kind < MUT_IGNORABLE)
			return err_corrupt("record has a mutation of kind %u", m->kind);
	}
	p = put_mutation(w, m->kind, m->len);
	if (!p)
		return -E2BIG;
	memcpy(p, m->data, m->len);
	return 0;
}

int change_encode(const uint8_t *rec, uint32_t len, int (*read)(void *ctx, block_t block, uint64_t count, uint8_t *to),
		  void *ctx, uint8_t *buf, uint32_t size, uint32_t *ret_len)
{
	struct writer w = { .buf = buf, .size = (uint32_t)min_u64(size, CHANGE_MAX), .len = CHANGE_HEADER };
	struct record_reader r;
	struct mutation m;
	int err = record_open(&r, rec, len);

	if (err < 0)
		return err;
	if (get_le16(rec + REC_FLAGS) & REC_FLAG_INTERNAL)
		return -EINVAL;
	if (w.size < CHANGE_HEADER)
		return -E2BIG;
	while ((err = record_next(&r, &m)) > 0) {
		err = put_one(&w, &r, &m, read, ctx);
		if (err < 0)
			break;
	}
	if (err < 0)
		return err;
	put_le64(buf + CHANGE_SEQ, get_le64(rec + REC_SEQ));
	put_le64(buf + CHANGE_EPOCH_OFF, get_le64(rec + REC_EPOCH));
	put_le64(buf + CHANGE_TIME, get_le64(rec + REC_TIME));
	put_le64(buf + CHANGE_COMMITTED, get_le64(rec + REC_COMMITTED));
	put_le64(buf + CHANGE_CLIENT, get_le64(rec + REC_CLIENT));
	put_le64(buf + CHANGE_REQUEST, get_le64(rec + REC_REQUEST));
	put_le16(buf + CHANGE_TYPE, get_le16(rec + REC_TYPE));
	put_le16(buf + CHANGE_FLAGS, 0);
	put_le32(buf + CHANGE_MUTATIONS, w.mutations);
	put_le64(buf + CHANGE_CHECK, hash64(buf + 8, w.len - 8, 0));
	*ret_len = w.len;
	return 0;
}

/* Decoding -------------------------------------------------------------------------------------------------------- */

int change_info(const uint8_t *p, uint32_t len, struct change_info *ret)
{
	struct change_info i;

	if (len < CHANGE_HEADER || len > CHANGE_MAX || len % 8 != 0)
		return err_set(EPROTO, "a change of %u bytes", len);
	i = (struct change_info){
		.seq = get_le64(p + CHANGE_SEQ), .epoch = get_le64(p + CHANGE_EPOCH_OFF), .time_ns = get_le64(p + CHANGE_TIME),
		.committed = get_le64(p + CHANGE_COMMITTED), .client = get_le64(p + CHANGE_CLIENT),
		.request = get_le64(p + CHANGE_REQUEST), .type = get_le16(p + CHANGE_TYPE),
		.mutations = get_le32(p + CHANGE_MUTATIONS),
	};
	if (i.seq == 0 || i.seq >= SEQ_MAX || i.epoch >= SEQ_MAX || get_le16(p + CHANGE_FLAGS) != 0 ||
	    i.type <= REC_TYPE_NEXT || i.type == CHANGE_REAP || i.mutations > UINT16_MAX)
		return err_set(EPROTO, "change %llu of type %u cannot be", (unsigned long long)i.seq, i.type);
	*ret = i;
	return 0;
}

int change_open(struct change_reader *r, const uint8_t *bytes, uint32_t len)
{
	int err = change_info(bytes, len, &r->info);

	if (err < 0)
		return err;
	if (get_le64(bytes + CHANGE_CHECK) != hash64(bytes + 8, len - 8, 0))
		return err_set(EPROTO, "change %llu does not have the check it says", (unsigned long long)r->info.seq);
	r->bytes = bytes;
	r->len = len;
	r->at = CHANGE_HEADER;
	r->left = r->info.mutations;
	return 0;
}

static int bad_end(const struct change_reader *r)
{
	return err_set(EPROTO, "change %llu does not end where it should", (unsigned long long)r->info.seq);
}

int change_next(struct change_reader *r, struct mutation *ret)
{
	const uint8_t *p = r->bytes + r->at;
	uint32_t room = r->len - r->at, n;

	if (r->left == 0)
		return room == 0 ? 0 : bad_end(r);
	if (room < MUT_HEADER)
		return bad_end(r);
	n = get_le32(p + MUT_LEN);
	/* len is a multiple of 8, so what n is padded to fits if n does. */
	if (get_le32(p + MUT_KIND) > UINT8_MAX || n > room - MUT_HEADER)
		return bad_end(r);
	*ret = (struct mutation){ .kind = p[MUT_KIND], .len = n, .data = p + MUT_HEADER };
	r->at += MUT_HEADER + (uint32_t)align_up(n, 8);
	r->left--;
	return 1;
}

int change_map_decode(const struct mutation *m, struct change_map *ret)
{
	uint32_t flags;

	if (m->len < 24)
		return err_set(EPROTO, "a change maps with %u bytes", m->len);
	*ret = (struct change_map){ .ino = get_le64(m->data), .fblock = get_le64(m->data + 8), .count = get_le32(m->data + 16) };
	flags = get_le32(m->data + 20);
	if (flags & ~MAP_UNWRITTEN || ret->count == 0 ||
	    ret->count > (flags & MAP_UNWRITTEN ? GROUP_BLOCKS : EXT_COUNT_MAX) ||
	    m->len - 24 != (flags & MAP_UNWRITTEN ? 0 : ret->count << BLOCK_SHIFT) ||
	    ret->fblock > (KEYS_SIZE_MAX >> BLOCK_SHIFT) - ret->count + 1)
		return err_set(EPROTO, "a change maps %u blocks with %u bytes", ret->count, m->len);
	ret->data = flags & MAP_UNWRITTEN ? NULL : m->data + 24;
	return 0;
}

/* Events ---------------------------------------------------------------------------------------------------------- */

int change_events_of_record(struct change_events *e, const uint8_t *rec, uint32_t len)
{
	e->is_record = true;
	return record_open(&e->rec, rec, len);
}

int change_events_of_change(struct change_events *e, const uint8_t *bytes, uint32_t len)
{
	e->is_record = false;
	return change_open(&e->change, bytes, len);
}

/* 1: *ret is what the put of an item of the store means; 0: nothing to those who follow. */
static int own_event(struct key key, const uint8_t *v, uint32_t len, struct change_event *ret)
{
	switch (key.hi) {
	case KIND_ORPHAN:
		ret->kind = EVENT_ORPHAN;
		ret->ino = key.lo;
		return orphan_decode(v, len, key.lo, &ret->marked) < 0 ? 0 : 1;
	case KIND_HISTORY:
		ret->kind = EVENT_EPOCH;
		ret->epoch = key.lo;
		return 1;
	default:
		return 0;
	}
}

static int put_event(const struct mutation *m, struct change_event *ret)
{
	struct key key;
	struct dirent d;

	if (m->len < 16)
		return 0;
	key = (struct key){ get_le64(m->data), get_le64(m->data + 8) };
	if (key.hi >> 8 == 0)
		return own_event(key, m->data + 16, m->len - 16, ret);
	ret->ino = key.hi >> 8;
	switch (key.hi & 0xff) {
	case ITEM_INODE:
		ret->kind = EVENT_NEW;
		return 1;
	case ITEM_XATTR:
		ret->kind = EVENT_XATTR;
		return 1;
	case ITEM_DIRENT:
		if (dirent_decode(m->data + 16, m->len - 16, key, &d) < 0)
			return 0;
		*ret = (struct change_event){ .kind = EVENT_NAME, .dir = key.hi >> 8, .ino = d.ino, .type = d.type,
					      .name = d.name, .len = d.len };
		return 1;
	default:
		return 0;
	}
}

static int del_event(const struct mutation *m, struct change_event *ret)
{
	struct key key;

	if (m->len < 16)
		return 0;
	key = (struct key){ get_le64(m->data), get_le64(m->data + 8) };
	ret->ino = key.hi >> 8;
	if (key.hi == KIND_CLIENT) {
		ret->kind = EVENT_FORGET;
		ret->client = key.lo;
		return 1;
	}
	switch (ret->ino ? key.hi & 0xff : 0) {
	case ITEM_XATTR:
		ret->kind = EVENT_XATTR;
		return 1;
	case ITEM_DIRENT:
		*ret = (struct change_event){ .kind = EVENT_NO_NAME, .dir = key.hi >> 8 };
		if (m->kind == MUT_DELNAME && m->len > 16 && m->len <= 16 + KEYS_NAME_MAX) {
			ret->name = (const char *)m->data + 16;
			ret->len = m->len - 16;
		}
		return 1;
	default:
		return 0;
	}
}

static int data_event(const struct change_events *e, const struct mutation *m, struct change_event *ret)
{
	uint32_t count;

	if (m->len < 24 && (m->kind != MUT_DATA || m->len < 16))
		return 0;
	ret->kind = EVENT_DATA;
	ret->ino = get_le64(m->data);
	ret->from = get_le64(m->data + 8);
	switch (m->kind) {
	case MUT_DATA:
		ret->to = ret->from + (m->len - 16);
		break;
	case MUT_PUNCH:
		ret->to = get_le64(m->data + 16);
		break;
	default:
		count = get_le32(m->data + 16);
		if (e->is_record) {
			if (count >= e->rec.extent_count)
				return 0;
			count = e->rec.extents[count].count;
		}
		/* Of what cannot be, nothing is told. */
		if (ret->from > KEYS_SIZE_MAX >> BLOCK_SHIFT)
			return 0;
		ret->to = (ret->from + count) << BLOCK_SHIFT;
		ret->from <<= BLOCK_SHIFT;
	}
	return ret->to > ret->from;
}

static int event_of(const struct change_events *e, const struct mutation *m, struct change_event *ret)
{
	*ret = (struct change_event){ 0 };
	switch (m->kind) {
	case MUT_PUT:
		return put_event(m, ret);
	case MUT_DEL: case MUT_DELNAME:
		return del_event(m, ret);
	case MUT_ATTR:
		if (m->len < 8)
			return 0;
		ret->kind = EVENT_ATTR;
		ret->ino = get_le64(m->data);
		return 1;
	case MUT_DATA: case MUT_MAP: case MUT_PUNCH:
		return data_event(e, m, ret);
	case MUT_CLIENT:
		if (m->len != 24)
			return 0;
		*ret = (struct change_event){ .kind = EVENT_CALL, .client = get_le64(m->data), .request = get_le64(m->data + 8),
					      .number = get_le64(m->data + 16) };
		return 1;
	default:
		return 0;
	}
}

int change_event(struct change_events *e, struct change_event *ret)
{
	struct mutation m;
	int r;

	do {
		r = e->is_record ? record_next(&e->rec, &m) : change_next(&e->change, &m);
	} while (r > 0 && event_of(e, &m, ret) == 0);
	return r;
}
