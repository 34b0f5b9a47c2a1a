/* SPDX-License-Identifier: MIT
 *
 * provision: what the request thread and the syncer will need is made ready off them: the file grows, free blocks and the
 * journal's next pages are faulted in for writing, and its blocks have been on disk before a record is in them. Only
 * blocks that nobody uses yet are touched, so there is nothing to order.
 */
#include "core/store/store_int.h"

#define POPULATE_AHEAD (256u * 1024u)   /* bytes of journal faulted in before the tail */
#define SYNCS_MANY     4u               /* in one segment */

static int grow_by(struct store *s, uint64_t want)
{
	uint64_t total = map_blocks(&s->map), limit = s->max_blocks, step;
	int r = -ENOSPC;

	if (limit)
		want = limit > total ? min_u64(want, limit - total) : 0;
	if (want == 0)
		return -ENOSPC;
	for (step = want; ; step = max_u64(step / 2, GROW_MIN)) {
		r = map_grow(&s->map, min_u64(step, want));
		if (r == 0 || step <= GROW_MIN)
			return r;
		if (r != -ENOSPC && r != -EDQUOT && r != -EFBIG)
			return r;
	}
}

static int grow(struct store *s)
{
	uint64_t want = atomic_load_explicit(&s->grow_wanted, memory_order_acquire);
	int r;

	if (want == 0)
		return 0;
	r = grow_by(s, want);
	if (r == 0) {
		atomic_fetch_add(&s->grows, 1);
		atomic_store_explicit(&s->grown_ns, s->sys.now_mono_ns(s->sys.ctx), memory_order_relaxed);
	} else {
		atomic_store_explicit(&s->grow_refused_ns, s->sys.now_mono_ns(s->sys.ctx), memory_order_relaxed);
		atomic_store_explicit(&s->grow_refused, true, memory_order_release);
	}
	store_measure_disk(s);
	atomic_store_explicit(&s->grow_wanted, 0, memory_order_release);
	store_progress(s);
	return map_failed(&s->map);
}

/* Nothing durable leads behind the new end any more (tail.c). */
static void shrink(struct store *s)
{
	uint64_t blocks = atomic_load_explicit(&s->shrink_wanted, memory_order_acquire);
	int r;

	if (blocks == 0)
		return;
	r = map_shrink(&s->map, blocks);
	/* Out of the mapping, but the disk does not take it back: the file stays long, as after a crash here. */
	if (r < 0 && map_blocks(&s->map) != blocks)
		store_fail(s, r);
	store_measure_disk(s);
	atomic_store_explicit(&s->shrink_wanted, 0, memory_order_release);
	store_progress(s);
}

bool provision_has_room(const struct range_ring *ring)
{
	return atomic_load_explicit(&ring->head, memory_order_relaxed) - atomic_load_explicit(&ring->tail, memory_order_acquire) <
	       ARRAY_LEN(ring->at);
}

bool provision_post(struct store *s, struct range_ring *ring, struct store_range range)
{
	unsigned head = atomic_load_explicit(&ring->head, memory_order_relaxed);

	if (!provision_has_room(ring))
		return false;
	ring->at[head % ARRAY_LEN(ring->at)] = range;
	atomic_store_explicit(&ring->head, head + 1, memory_order_release);
	store_wake_provisioner(s);
	return true;
}

static bool is_empty(const struct range_ring *ring)
{
	return atomic_load(&ring->head) == atomic_load(&ring->tail);
}

bool provision_is_posted(const struct store *s)
{
	return !is_empty(&s->fresh) || !is_empty(&s->filled);
}

static bool take(struct range_ring *ring, struct store_range *ret)
{
	unsigned tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

	if (tail == atomic_load_explicit(&ring->head, memory_order_acquire))
		return false;
	*ret = ring->at[tail % ARRAY_LEN(ring->at)];
	atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
	return true;
}

static int populate_range(void *ctx, block_t first, uint64_t count)
{
	struct store *s = ctx;

	map_populate(&s->map, first, count);
	return 0;
}

/* Fault in the journal from the tail's next page on, to the end of its segment at most. */
static void populate_journal(struct store *s)
{
	jpos_t tail = atomic_load_explicit(&s->journal.pub_tail, memory_order_acquire);
	jpos_t end = min_u64(align_up(tail, BLOCK_SIZE) + POPULATE_AHEAD,
			     ((tail >> s->journal.shift) + 1) << s->journal.shift);
	jpos_t from = max_u64(align_up(tail, BLOCK_SIZE), s->populated_pos);

	if (end > from && (end - from >= POPULATE_AHEAD / 2 || s->populated_pos < tail)) {
		(void)journal_ranges(&s->journal, from, end, populate_range, s);
		s->populated_pos = end;
	}
}

static bool was_written(const struct store *s, block_t seg)
{
	unsigned i, n = (unsigned)min_u64(s->written_segs, JOURNAL_SEGS);

	for (i = 0; i < n; i++)
		if (s->written_seg[i] == seg)
			return true;
	return false;
}

/* The first msync of a block that was allocated and never written changes the file system's own records too (the extent is
 * no longer "unwritten"): two blocks more, or a commit of its journal, for each page of ours. So while there are many
 * syncs the segment that comes next is written once before records are in it. Not the tail's: an append could meet a page
 * that is being written (J2). Whatever a crash leaves of it, nothing leads there. */
static int write_ahead_of_journal(struct store *s)
{
	block_t seg;

	if (atomic_load(&s->segment_syncs) < SYNCS_MANY || !journal_coming(&s->journal, &seg) || was_written(s, seg))
		return 0;
	s->written_seg[s->written_segs++ % JOURNAL_SEGS] = seg;
	/* What nobody dirtied would not be written. */
	map_populate(&s->map, seg, journal_seg_blocks(&s->journal));
	return map_sync(&s->map, seg, journal_seg_blocks(&s->journal));
}

int store_provision(struct store *s)
{
	struct store_range range;
	int r;

	shrink(s);
	r = grow(s);
	if (r == 0)
		r = write_ahead_of_journal(s);
	if (r < 0) {
		store_fail(s, r);
		return r;
	}
	while (take(&s->fresh, &range))
		map_populate(&s->map, range.block, range.count);
	populate_journal(s);
	while (take(&s->filled, &range))
		map_write_back(&s->map, range.block, range.count);
	return 0;
}
