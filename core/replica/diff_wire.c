/* SPDX-License-Identifier: MIT
 *
 * diff_wire: see diff_wire.h.
 */
#include "core/replica/diff_wire.h"

#include <stdlib.h>

int diff_queue_add(struct diff_queue *q, const void *bytes, size_t len)
{
	struct diff_message *m = malloc(sizeof *m + len);

	if (!m)
		return -ENOMEM;
	m->next = NULL;
	m->len = len;
	if (len > 0)
		memcpy(m->bytes, bytes, len);
	if (q->last)
		q->last->next = m;
	else
		q->first = m;
	q->last = m;
	q->bytes += len + sizeof *m;
	q->count++;
	return 0;
}

void diff_queue_drop(struct diff_queue *q)
{
	struct diff_message *m = q->first;

	q->first = m->next;
	if (!q->first)
		q->last = NULL;
	q->bytes -= m->len + sizeof *m;
	q->count--;
	free(m);
}

void diff_queue_clear(struct diff_queue *q)
{
	while (q->first)
		diff_queue_drop(q);
}

/* Reading ---------------------------------------------------------------------------------------------------------- */

struct key diff_get_key(struct wire_reader *r, struct key before)
{
	uint64_t hi = wire_get_var(r), lo = wire_get_var(r);
	struct key k = { before.hi + hi, hi == 0 ? before.lo + lo : lo };

	if (k.hi < before.hi || (hi == 0 && k.lo < before.lo))
		r->bad = true;
	return r->bad ? (struct key){ 0, 0 } : k;
}

struct key diff_get_window(struct wire_reader *r)
{
	uint64_t ino = wire_get_var(r), window = wire_get_var(r);

	if (ino == 0 || ino >= INO_MAX - 1 || window > WINDOW_LAST / WINDOW_BLOCKS)
		r->bad = true;
	return r->bad ? item_key(1, ITEM_EXTENT, 0) : item_key(ino, ITEM_EXTENT, window * WINDOW_BLOCKS);
}

void diff_get_layout(struct wire_reader *r, uint8_t kind[WINDOW_BLOCKS])
{
	unsigned i = 0;

	memset(kind, WINDOW_HOLE, WINDOW_BLOCKS);
	while (i < WINDOW_BLOCKS && !r->bad) {
		unsigned v = wire_get_u16(r), n = (v & 0xfff) + 1;

		if (v >> 12 > WINDOW_DATA || n > WINDOW_BLOCKS - i)
			r->bad = true;
		else
			memset(kind + i, (int)(v >> 12), n);
		i += n;
	}
}

/* Writing ---------------------------------------------------------------------------------------------------------- */

uint8_t *diff_put_u8(uint8_t *p, uint8_t v)
{
	*p = v;
	return p + 1;
}

uint8_t *diff_put_u16(uint8_t *p, uint16_t v)
{
	put_le16(p, v);
	return p + 2;
}

uint8_t *diff_put_u32(uint8_t *p, uint32_t v)
{
	put_le32(p, v);
	return p + 4;
}

uint8_t *diff_put_u64(uint8_t *p, uint64_t v)
{
	put_le64(p, v);
	return p + 8;
}

uint8_t *diff_put_var(uint8_t *p, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		*p++ = (uint8_t)(v | 0x80);
	*p = (uint8_t)v;
	return p + 1;
}

uint8_t *diff_put_key(uint8_t *p, struct key k, struct key before)
{
	p = diff_put_var(p, k.hi - before.hi);
	return diff_put_var(p, k.hi == before.hi ? k.lo - before.lo : k.lo);
}

uint8_t *diff_put_window(uint8_t *p, struct key k)
{
	p = diff_put_var(p, k.hi >> 8);
	return diff_put_var(p, k.lo / WINDOW_BLOCKS);
}

uint8_t *diff_put_layout(uint8_t *p, const uint8_t kind[WINDOW_BLOCKS])
{
	unsigned i, n;

	for (i = 0; i < WINDOW_BLOCKS; i += n) {
		n = 1;
		while (i + n < WINDOW_BLOCKS && kind[i + n] == kind[i])
			n++;
		p = diff_put_u16(p, (uint16_t)((unsigned)kind[i] << 12 | (n - 1)));
	}
	return p;
}
