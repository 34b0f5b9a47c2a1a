/* SPDX-License-Identifier: MIT
 *
 * tail: free blocks at the end of the file are given back to the disk. Order (DESIGN.md section 6):
 * 1. TAIL_CUT: the groups behind the new end lose their SPACE items and the store forgets them; a checkpoint is cut.
 *    A crash before it is durable: the old superblock, whose groups are all still in the file.
 * 2. TAIL_GIVE: that checkpoint is on disk, so nothing durable leads behind the new end: the provisioner truncates.
 *    A crash before or in the middle: a file longer than the superblock says, its end is virgin groups.
 * What stands far back in a mostly free file is first moved to the front: keys/compact.c, at our bidding.
 * The file does not grow between 1 and 2: a group that came back would not know which of its slots D still needs.
 */
#include "core/store/store_int.h"

#define TAIL_MIN   FIRST_BLOCKS         /* less than this is not worth it: 32 MiB */
#define TAIL_LOOKS 2u                   /* checkpoints in a row that must find it free */
#define TAIL_REST_NS (30ull * 1000000000u)      /* and that long after a growth: only then it is long free */

int tail_grown(struct store *s)
{
	if (s->tail == TAIL_KEEP)
		return space_grown(&s->space);
	if (s->tail == TAIL_GIVE && atomic_load_explicit(&s->shrink_wanted, memory_order_acquire) == 0)
		s->tail = TAIL_KEEP;
	return 0;
}

static int forget_groups(struct store *s, uint64_t old_count)
{
	uint64_t g;
	int r;

	for (g = s->space.group_count; g < old_count; g++) {
		r = tree_del(&s->tree, (struct key){ KIND_SPACE, g });
		if (r < 0 && r != -ENOENT)
			return r;
	}
	return 0;
}

static int begin(struct store *s, uint64_t total)
{
	uint64_t groups = s->space.group_count;
	int r;

	/* First, so that deleting the items allocates nothing behind the new end. */
	space_cut(&s->space, total);
	r = forget_groups(s, groups);
	if (r < 0) {
		/* Some items are gone while their groups are still known: only a checkpoint could tell, so none may be cut. */
		store_fail(s, r);
		return r;
	}
	s->tail = TAIL_CUT;
	s->tail_total = total;
	s->changed = true;
	return store_checkpoint(s);
}

static uint64_t tail_keep(block_t end)
{
	uint64_t keep = align_up(max_u64(end + end / 4 + TAIL_MIN / 2, TAIL_MIN), CHUNK_BLOCKS);

	return keep % GROUP_BLOCKS < CHUNK_BLOCKS ? keep + CHUNK_BLOCKS : keep;
}

static int free_segment(void *ctx, block_t first, uint64_t blocks)
{
	struct store *s = ctx;

	return space_free_data(&s->space, first, blocks, 0);
}

/* Something far back keeps the end from being cut: have it moved, unless that was tried and got no further. */
static int want_compaction(struct store *s, block_t end)
{
	uint64_t limit = (s->space.used + space_pending(&s->space)) * 2 + TAIL_MIN;
	unsigned before;
	int r;

	if (limit >= end || s->ckpt_pinned)
		return 0;
	if (s->compact_limit == 0 && end != s->compacted_end) {
		s->compact_limit = limit;
		space_go_low(&s->space, limit);
	}
	/* Journal segments move by themselves: the one in use is left, and is a spare after the next checkpoint. */
	before = s->journal.count + s->journal.used;
	r = journal_go_low(&s->journal, limit, store_durable_seq(s), free_segment, s);
	if (s->journal.count + s->journal.used != before)
		store_compacted(s, false);
	return r;
}

uint64_t store_compact_limit(const struct store *s)
{
	return s->compact_limit;
}

void store_broken(struct store *s, int error)
{
	store_fail(s, error);
}

void store_compacted(struct store *s, bool done)
{
	if (!s->changed)
		s->changed_ns = s->sys.now_mono_ns(s->sys.ctx);
	s->changed = true;
	if (!done)
		return;
	/* Where it ends is known once what was freed is free on disk too. */
	s->compact_limit = 0;
	s->compact_done = true;
}

/* After the next checkpoint, which is due in a while even if nothing changes. */
static void look_again(struct store *s)
{
	if (!s->changed)
		s->changed_ns = s->sys.now_mono_ns(s->sys.ctx);
	s->changed = true;
}

int tail_look(struct store *s)
{
	uint64_t total = s->space.total, keep, grown_ns;
	block_t end;
	int r;

	if (s->read_only)
		return 0;
	if (s->tail == TAIL_CUT) {
		/* The checkpoint without those groups is on disk. A reader that holds the one before may still look there. */
		s->tail = TAIL_GIVE;
		if (s->super.total_blocks == s->tail_total && !s->ckpt_pinned) {
			atomic_store_explicit(&s->shrink_wanted, s->tail_total, memory_order_release);
			store_wake_provisioner(s);
			if (!s->threads)
				(void)store_provision(s);
		}
		/* More may go: what stands at the new end was too far front to be moved while the old one was. In a store that is left
		 * alone nothing else would lead here again. It ends, since each cut takes a quarter of the file. */
		look_again(s);
		return tail_grown(s);
	}
	if (s->tail != TAIL_KEEP || total <= 2 * TAIL_MIN || space_allocatable(&s->space) < total / 2 ||
	    atomic_load(&s->grow_wanted) != 0) {
		s->tail_free_seen = 0;
		return 0;
	}
	r = space_high_water(&s->space, &end);
	if (r < 0)
		return r;
	if (s->compact_done) {
		s->compact_done = false;
		s->compacted_end = end;
	}
	/* Some room to work in stays, so that the next writes do not grow it again at once. */
	keep = tail_keep(end);
	if (keep + TAIL_MIN > total || keep + total / 4 > total) {
		s->tail_free_seen = 0;
		return want_compaction(s, end);
	}
	grown_ns = atomic_load_explicit(&s->grown_ns, memory_order_relaxed);
	if (grown_ns != 0 && s->sys.now_mono_ns(s->sys.ctx) - grown_ns < TAIL_REST_NS)
		s->tail_free_seen = 0;
	if (++s->tail_free_seen < TAIL_LOOKS) {
		look_again(s);
		return 0;
	}
	s->tail_free_seen = 0;
	return begin(s, keep);
}
