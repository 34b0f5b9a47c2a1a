/* SPDX-License-Identifier: MIT
 *
 * diff_source: the side that has the state: it walks a snapshot for digests of ranges, and answers questions in order. It
 * remembers nothing of what it said; only its place in the walk and in the question at hand.
 */
#include "core/replica/diff_wire.h"

#include "core/store/store.h"

#include <stdlib.h>

#define RANGES_MAX  1024u               /* in one message */
#define OUT_ENOUGH  (256u << 10)        /* answers are sent when they are this long */
#define OUT_ROOM    (OUT_ENOUGH + DIFF_BLOCKS_MAX * (BLOCK_SIZE + 4u) + 8192u)
#define CREDIT_MAX  64u
_Static_assert(OUT_ROOM <= DIFF_MESSAGE_MAX, "a message holds what is written at once");
_Static_assert(RANGES_MAX * 32 + 16 < OUT_ROOM, "ranges fit");

struct diff_source {
	struct keys *k;
	uint64_t seed;
	diff_send_fn send;
	void *ctx;
	int failed;
	bool begun, ended;
	/* ranges */
	struct logical_walk walk;
	struct key range_from;
	bool walked;                    /* all ranges were told */
	unsigned credit;                /* messages of RANGES that the target wants */
	/* questions */
	struct diff_queue asked;
	size_t at;                      /* how far the first of them is answered */
	struct logical_walk look;
	/* the DATA being answered */
	bool in_data;
	struct key data;
	uint8_t bits[WINDOW_BLOCKS / 8];
	unsigned next;                  /* block */
	struct window window;
	/* the message being made */
	enum diff_type out_type;
	size_t out_len;                 /* 0: none */
	uint8_t out[OUT_ROOM];
	uint64_t seq, epoch;            /* of the snapshot */
	uint64_t total_bytes;           /* of its store, about */
};

int diff_source_new(struct keys *k, uint64_t seed, diff_send_fn send, void *ctx, struct diff_source **ret)
{
	struct diff_source *s = calloc(1, sizeof *s);
	struct store_status st;

	if (!s)
		return -ENOMEM;
	s->k = k;
	s->seed = seed;
	s->send = send;
	s->ctx = ctx;
	logical_begin(&s->walk, k, (struct key){ 0, 0 });
	logical_begin(&s->look, k, (struct key){ 0, 0 });
	store_status(keys_store(k), &st);
	s->seq = st.seq;
	s->epoch = st.epoch;
	s->total_bytes = st.used_blocks * BLOCK_SIZE;
	*ret = s;
	return 0;
}

void diff_source_free(struct diff_source *s)
{
	if (!s)
		return;
	diff_queue_clear(&s->asked);
	free(s);
}

int diff_source_message(struct diff_source *s, unsigned type, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	switch (type) {
	case DIFF_MORE:
		if (len != 1 || p[0] > CREDIT_MAX - s->credit)
			break;
		s->credit += p[0];
		return 0;
	case DIFF_ASK:
		if (len == 0 || len > DIFF_MESSAGE_MAX || s->asked.bytes + len > DIFF_ASKED_MAX)
			break;
		return diff_queue_add(&s->asked, bytes, len);
	case DIFF_END:
		if (len != 0)
			break;
		s->ended = true;
		return 0;
	default:
		break;
	}
	return err_set(EPROTO, "diff: an impossible message of type %u with %zu bytes", type, len);
}

/* Ranges ----------------------------------------------------------------------------------------------------------- */

/* One range. 1: with its key; 0: it is the last. */
static int put_range(struct diff_source *s, uint8_t **p)
{
	struct key end = s->range_from;
	uint64_t digest = s->seed;
	unsigned n = 0;
	int r = 1;

	while (n < DIFF_RANGE_ITEMS) {
		struct logical_item item;

		r = logical_next(&s->walk, LOGICAL_END, &item);
		if (r <= 0)
			break;
		digest = diff_chain(digest, item.key, logical_digest(&item, s->seed));
		end = logical_after(item.key);
		n++;
	}
	if (r < 0)
		return r;
	if (r > 0)
		*p = diff_put_key(*p, end, s->range_from);
	*p = diff_put_u64(*p, digest);
	*p = diff_put_u8(*p, (uint8_t)n);
	s->range_from = end;
	return r;
}

static int make_ranges(struct diff_source *s)
{
	uint8_t *p = s->out + 3;
	unsigned n = 0;
	int r = 1;

	while (n < RANGES_MAX && r > 0) {
		r = put_range(s, &p);
		if (r < 0)
			return r;
		n++;
	}
	s->walked = r == 0;
	s->credit--;
	s->out[0] = s->walked ? DIFF_RANGES_LAST : 0;
	put_le16(s->out + 1, (uint16_t)n);
	s->out_type = DIFF_RANGES;
	s->out_len = (size_t)(p - s->out);
	return 0;
}

static void make_begin(struct diff_source *s)
{
	uint8_t *p = s->out;

	p = diff_put_u32(p, DIFF_VERSION);
	p = diff_put_u32(p, 0);
	p = diff_put_u64(p, s->seq);
	p = diff_put_u64(p, s->epoch);
	p = diff_put_u64(p, store_hash_seed(keys_store(s->k)));
	p = diff_put_u64(p, s->seed);
	p = diff_put_u64(p, store_counts(keys_store(s->k))->next_ino);
	p = diff_put_u64(p, store_counts(keys_store(s->k))->inodes);
	p = diff_put_u64(p, s->total_bytes);
	s->out_type = DIFF_BEGIN;
	s->out_len = (size_t)(p - s->out);
	s->begun = true;
}

/* Answers ---------------------------------------------------------------------------------------------------------- */

static int answer_keys(struct diff_source *s, struct wire_reader *q, uint8_t **p)
{
	struct key from = diff_get_key(q, (struct key){ 0, 0 }), end = diff_get_key(q, from), before = from;
	struct logical_item item;
	uint8_t *count;
	int r;

	if (q->bad || !logical_is_bound(from) || !logical_is_bound(end))
		return -EPROTO;
	*p = diff_put_u8(*p, DIFF_KEYS);
	count = *p;
	*p = diff_put_u8(*p, 0);
	logical_begin(&s->look, s->k, from);
	while ((r = logical_next(&s->look, end, &item)) > 0) {
		/* A range that was told has no more. */
		if (*count == DIFF_RANGE_ITEMS)
			return -EPROTO;
		*p = diff_put_key(*p, item.key, before);
		*p = diff_put_u64(*p, logical_digest(&item, s->seed));
		before = item.key;
		(*count)++;
	}
	return r;
}

static int answer_item(struct diff_source *s, struct wire_reader *q, uint8_t **p)
{
	struct key key = diff_get_key(q, (struct key){ 0, 0 });
	struct logical_item item;
	int r;

	if (q->bad || !logical_key_valid(key) || logical_is_window(key))
		return -EPROTO;
	r = logical_get(&s->look, key, &item);
	if (r < 0 && r != -ENOENT)
		return r;
	*p = diff_put_u8(*p, DIFF_ITEM);
	*p = diff_put_u16(*p, r < 0 ? DIFF_NO_ITEM : (uint16_t)item.len);
	if (r == 0) {
		if (item.len > 0)
			memcpy(*p, item.value, item.len);
		*p += item.len;
	}
	return 0;
}

static int answer_deep(struct diff_source *s, struct wire_reader *q, uint8_t **p)
{
	struct key key = diff_get_window(q);
	uint64_t ino = key.hi >> 8, at = key.lo, before = key.lo, deep = 0;
	unsigned n = 0;
	uint8_t *count;
	int r;

	if (q->bad)
		return -EPROTO;
	*p = diff_put_u8(*p, DIFF_DEEP);
	count = *p;
	*p = diff_put_u8(*p, 0);
	r = window_find(s->k, ino, at, &at);
	if (r == -ENOENT)
		at = UINT64_MAX;
	else if (r < 0)
		return r;
	for (; n < DIFF_DEEP_MAX && at != UINT64_MAX; n++) {
		uint64_t next;

		r = window_get(s->k, ino, at, &s->window, &next);
		if (r == 0)
			r = window_deep_digest(s->k, &s->window, s->seed, &deep);
		if (r < 0)
			return r;
		*p = diff_put_var(*p, (at - before) / WINDOW_BLOCKS);
		*p = diff_put_u64(*p, window_digest(&s->window, s->seed));
		*p = diff_put_u64(*p, deep);
		before = at;
		at = next;
	}
	*count = (uint8_t)n;
	*p = diff_put_u8(*p, at != UINT64_MAX);
	return 0;
}

static int answer_desc(struct diff_source *s, struct wire_reader *q, uint8_t **p)
{
	struct key key = diff_get_window(q);
	uint64_t next;
	unsigned i;
	int r;

	if (q->bad)
		return -EPROTO;
	r = window_get(s->k, key.hi >> 8, key.lo, &s->window, &next);
	if (r < 0)
		return r;
	*p = diff_put_u8(*p, DIFF_DESC);
	*p = diff_put_layout(*p, s->window.kind);
	for (i = 0; i < WINDOW_BLOCKS; i++) {
		const uint8_t *bytes;

		if (s->window.kind[i] != WINDOW_DATA)
			continue;
		bytes = window_bytes(s->k, &s->window, i, &r);
		if (!bytes)
			return r;
		*p = diff_put_u32(*p, s->window.csum[i]);
		*p = diff_put_u64(*p, hash64(bytes, BLOCK_SIZE, s->seed));
	}
	return 0;
}

static int answer_data(struct diff_source *s, struct wire_reader *q, uint8_t **p)
{
	struct key key = diff_get_window(q);
	bool all = wire_get_u8(q) != 0;
	const uint8_t *bits = all ? NULL : wire_get_fixed(q, sizeof s->bits);
	uint64_t next;
	int r;

	if (q->bad)
		return -EPROTO;
	r = window_get(s->k, key.hi >> 8, key.lo, &s->window, &next);
	if (r < 0)
		return r;
	if (bits)
		memcpy(s->bits, bits, sizeof s->bits);
	else
		memset(s->bits, 0xff, sizeof s->bits);
	*p = diff_put_u8(*p, DIFF_DATA);
	*p = diff_put_layout(*p, s->window.kind);
	s->data = key;
	s->next = 0;
	s->in_data = true;
	return 0;
}

static bool is_wanted(const struct diff_source *s, unsigned i)
{
	return s->window.kind[i] == WINDOW_DATA && diff_bit(s->bits, i);
}

/* The next blocks of the DATA at hand. Bytes are sent as they are: one that is damaged here becomes known as damaged there,
 * since its checksum goes along. */
static int answer_blocks(struct diff_source *s, uint8_t **p)
{
	unsigned i, n = 0, end = s->next, at = 0;
	uint64_t ino = s->data.hi >> 8, damaged = 0;
	uint8_t *bits, *csums, *bytes;
	int r = 0;

	for (; end < WINDOW_BLOCKS && n < DIFF_BLOCKS_MAX; end++)
		n += is_wanted(s, end);
	if (n > 0) {
		*p = diff_put_u8(*p, DIFF_BLOCKS);
		*p = diff_put_u8(*p, (uint8_t)n);
		bits = *p;
		csums = bits + 8;
		bytes = csums + (size_t)4 * n;
		for (i = s->next; i < end; i++) {
			const uint8_t *from;

			if (!is_wanted(s, i))
				continue;
			from = window_bytes(s->k, &s->window, i, &r);
			if (!from)
				return r;
			csums = diff_put_u32(csums, s->window.csum[i]);
			memcpy(bytes, from, BLOCK_SIZE);
			if (block_csum(bytes, ino, s->data.lo + i) != s->window.csum[i])
				damaged |= 1ull << at;
			bytes += BLOCK_SIZE;
			at++;
		}
		put_le64(bits, damaged);
		*p = bytes;
	}
	s->next = end;
	s->in_data = end < WINDOW_BLOCKS;
	return 0;
}

static int answer(struct diff_source *s, uint8_t **p)
{
	struct diff_message *m = s->asked.first;
	struct wire_reader q = { m->bytes + s->at, m->bytes + m->len, false };
	int r;

	switch (wire_get_u8(&q)) {
	case DIFF_KEYS:
		r = answer_keys(s, &q, p);
		break;
	case DIFF_ITEM:
		r = answer_item(s, &q, p);
		break;
	case DIFF_DEEP:
		r = answer_deep(s, &q, p);
		break;
	case DIFF_DESC:
		r = answer_desc(s, &q, p);
		break;
	case DIFF_DATA:
		r = answer_data(s, &q, p);
		break;
	default:
		r = -EPROTO;
		break;
	}
	if (r == -EPROTO)
		return err_set(EPROTO, "diff: an impossible question");
	if (r < 0)
		return r;
	s->at = (size_t)(q.p - m->bytes);
	if (s->at == m->len) {
		diff_queue_drop(&s->asked);
		s->at = 0;
	}
	return 0;
}

/* Questions are answered until a message is full, or until one of them meant much reading. */
static int make_answers(struct diff_source *s)
{
	uint8_t *p = s->out;
	bool heavy = false;
	int r = 0;

	while (r == 0 && !heavy && (size_t)(p - s->out) < OUT_ENOUGH && (s->in_data || s->asked.first)) {
		if (s->in_data) {
			r = answer_blocks(s, &p);
		} else {
			heavy = s->asked.first->bytes[s->at] == DIFF_DEEP;
			r = answer(s, &p);
		}
	}
	s->out_type = DIFF_ANSWERS;
	s->out_len = (size_t)(p - s->out);
	return r;
}

static int make_message(struct diff_source *s)
{
	if (!s->begun) {
		make_begin(s);
		return 0;
	}
	/* What was asked comes first: the target has reasons to wait for it. */
	if (s->in_data || s->asked.first)
		return make_answers(s);
	return s->credit > 0 && !s->walked ? make_ranges(s) : 0;
}

int diff_source_step(struct diff_source *s)
{
	int r = s->failed;

	if (r == 0 && s->ended)
		return DIFF_READY;
	if (r == 0 && s->out_len == 0)
		r = make_message(s);
	if (r == 0 && s->out_len == 0)
		return DIFF_IDLE;
	if (r == 0) {
		r = s->send(s->ctx, s->out_type, s->out, s->out_len);
		if (r == -EAGAIN)
			return DIFF_FULL;
	}
	if (r < 0) {
		s->failed = r;
		return r;
	}
	s->out_len = 0;
	return DIFF_BUSY;
}
