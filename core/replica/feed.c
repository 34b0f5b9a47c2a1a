/* SPDX-License-Identifier: MIT
 *
 * feed: see feed.h. All that both sides touch is atomic, so that a torn copy is allowed and noticed, never undefined. The
 * words of a record are stored with release and loaded with acquire: a reader that has seen one word of a later record
 * also sees the `first` that was raised before it (F1). On the machines that matter this costs nothing.
 */
#include "core/replica/feed.h"

#include "core/store/format.h"

#include <sys/mman.h>

#define SLOT_BYTES 128u         /* one slot for as many bytes: hardly any record is shorter */
#define TIME_WORD  (REC_TIME / 8)
_Static_assert(REC_HEADER >= 96 && REC_MAX % 8 == 0, "a record is words");

static uint64_t load(const _Atomic uint64_t *p, memory_order order)
{
	return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)p, order);
}

int feed_init(struct feed *f, uint64_t size, uint64_t keep_ns, seq_t next)
{
	uint64_t ring = FEED_SIZE_MIN;
	void *p;

	if (size > FEED_SIZE_MAX)
		return -EINVAL;
	while (ring < size)
		ring <<= 1;
	memset(f, 0, sizeof *f);
	f->size = ring;
	f->slots = ring / SLOT_BYTES;
	f->mapped = (size_t)(ring + f->slots * 8);
	if (f->mapped != ring + f->slots * 8)
		return -EINVAL;
	/* Untouched pages cost nothing. */
	p = mmap(NULL, f->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	f->words = p;
	f->at = f->words + ring / 8;
	f->keep_ns = keep_ns;
	feed_restart(f, next);
	return 0;
}

void feed_release(struct feed *f)
{
	if (f->words)
		(void)munmap((void *)f->words, f->mapped);
	f->words = NULL;
}

/* Drop what is in the way of `need` more bytes, and what is older than `oldest_ns`. */
static void drop(struct feed *f, uint64_t next, uint64_t need, uint64_t oldest_ns)
{
	uint64_t first = load(&f->first, memory_order_relaxed), was = first;

	while (first < next) {
		uint64_t at = load(&f->at[first & (f->slots - 1)], memory_order_relaxed);
		uint64_t word = load(&f->words[(at / 8 + TIME_WORD) & (f->size / 8 - 1)], memory_order_relaxed);

		if (f->head + need - at <= f->size && next + 2 - first <= f->slots && get_le64(&word) >= oldest_ns)
			break;
		first++;
	}
	/* (F1) Before the stores that follow, which are releases. */
	if (first != was)
		atomic_store_explicit(&f->first, first, memory_order_relaxed);
}

void feed_add(struct feed *f, const uint8_t *rec, uint32_t len)
{
	uint64_t seq = get_le64(rec + REC_SEQ), mask = f->size / 8 - 1, time_ns = get_le64(rec + REC_TIME);
	uint64_t to = f->head / 8;
	uint32_t i;

	check(len >= REC_HEADER && len <= REC_MAX && len % 8 == 0);
	if (seq != load(&f->next, memory_order_relaxed))
		feed_restart(f, seq);
	drop(f, seq, len, f->keep_ns && time_ns > f->keep_ns ? time_ns - f->keep_ns : 0);
	for (i = 0; i < len; i += 8) {
		uint64_t word;

		memcpy(&word, rec + i, 8);
		atomic_store_explicit(&f->words[to++ & mask], word, memory_order_release);
	}
	atomic_store_explicit(&f->at[seq & (f->slots - 1)], f->head, memory_order_release);
	f->head += len;
	atomic_store_explicit(&f->at[(seq + 1) & (f->slots - 1)], f->head, memory_order_release);
	/* Last: who sees the number finds the record. */
	atomic_store_explicit(&f->next, seq + 1, memory_order_release);
}

void feed_restart(struct feed *f, seq_t next)
{
	uint64_t restarts = load(&f->restarts, memory_order_relaxed);

	/* Odd while it lasts: who begins to read just now shall not take the old numbers for the new ones. Who reads on from
	 * before finds it changed, whatever else it finds. */
	atomic_store_explicit(&f->restarts, restarts + 1, memory_order_relaxed);
	atomic_store_explicit(&f->first, next, memory_order_release);
	atomic_store_explicit(&f->at[next & (f->slots - 1)], f->head, memory_order_release);
	atomic_store_explicit(&f->next, next, memory_order_release);
	atomic_store_explicit(&f->restarts, restarts + 2, memory_order_release);
}

bool feed_range(const struct feed *f, seq_t *ret_first, seq_t *ret_last)
{
	uint64_t next = load(&f->next, memory_order_acquire), first = load(&f->first, memory_order_acquire);

	*ret_first = first;
	*ret_last = next - 1;
	return first < next;
}

uint64_t feed_bytes(const struct feed *f)
{
	uint64_t next = load(&f->next, memory_order_acquire), first = load(&f->first, memory_order_acquire);

	if (first >= next)
		return 0;
	/* It moves on meanwhile: a figure, not more. */
	return min_u64(load(&f->at[next & (f->slots - 1)], memory_order_acquire) -
			       load(&f->at[first & (f->slots - 1)], memory_order_acquire), f->size);
}

int feed_reader_init(struct feed_reader *r, const struct feed *f, seq_t seq)
{
	uint64_t next;

	r->feed = f;
	r->next = seq;
	/* Before all else: a restart that comes after it is noticed at the first read. */
	r->restarts = load(&f->restarts, memory_order_acquire);
	if (r->restarts & 1)
		return -ESTALE;
	next = load(&f->next, memory_order_acquire);
	if (seq > next)
		return -EINVAL;
	return seq < load(&f->first, memory_order_acquire) ? -ESTALE : 0;
}

int feed_read(struct feed_reader *r, uint8_t *buf, uint32_t *ret_len)
{
	const struct feed *f = r->feed;
	uint64_t mask = f->size / 8 - 1, next = load(&f->next, memory_order_acquire), at, len, i;

	if (load(&f->restarts, memory_order_acquire) != r->restarts || r->next < load(&f->first, memory_order_acquire))
		return -ESTALE;
	if (r->next >= next)
		return 0;
	at = load(&f->at[r->next & (f->slots - 1)], memory_order_acquire);
	len = load(&f->at[(r->next + 1) & (f->slots - 1)], memory_order_acquire) - at;
	/* Overwritten between the two: any number may stand there. */
	if (len < REC_HEADER || len > REC_MAX || len % 8 != 0)
		return -ESTALE;
	for (i = 0, at /= 8; i < len; i += 8) {
		uint64_t word = load(&f->words[at++ & mask], memory_order_acquire);

		memcpy(buf + i, &word, 8);
	}
	if (load(&f->restarts, memory_order_acquire) != r->restarts || r->next < load(&f->first, memory_order_acquire))
		return -ESTALE;
	*ret_len = (uint32_t)len;
	r->next++;
	return 1;
}

uint64_t feed_behind(const struct feed_reader *r)
{
	const struct feed *f = r->feed;
	uint64_t next = load(&f->next, memory_order_acquire), behind;

	if (r->next >= next)
		return 0;
	behind = load(&f->at[next & (f->slots - 1)], memory_order_acquire) -
		 load(&f->at[r->next & (f->slots - 1)], memory_order_acquire);
	return behind <= f->size ? behind : 0;
}
