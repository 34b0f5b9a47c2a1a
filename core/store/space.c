/* SPDX-License-Identifier: MIT
 *
 * space: see space.h. Three views of each group's bitmap (D, F, C) stand in its three slots; a slot of C is made the first
 * time that C changes the group, from F's or else D's. Invariants:
 * (S1) a slot named by D or F is never written by the request thread;
 * (S2) total = used + pending[0] + pending[1] + pinned + staged + allocatable, where used counts C's bits;
 * (S3) runs do not overlap, and every block in them is allocatable;
 * (S4) every block allocated or changed in C lies in a chunk marked in changes[C];
 * (S5) a staged block is free in every bitmap and in no run.
 */
#include "core/store/space.h"

#include "core/store/page.h"

#include <stdlib.h>

enum { D, F, C };
enum { HOLD_F, HOLD_C, HOLD_PIN, HOLD_STAGE, HOLDS };
#define NO_SLOT 3u
_Static_assert(SUPER_COPY % 64 + SUPERS <= 64, "the copies are in one word");
#define ANY_LENGTH UINT16_MAX
_Static_assert(GROUP_BLOCKS <= ANY_LENGTH, "a range's length");
#define RUN_MIN 16u             /* shorter ranges only if there is nothing better */

static block_t group_first(uint64_t group)
{
	return group * GROUP_BLOCKS;
}

static block_t slot_block(uint64_t group, unsigned slot)
{
	return group_first(group) + (group == 0 ? 2 : 0) + slot;
}

/* All blocks of a group that are never given out: in group 0 also the copies of the superblocks. */
static unsigned group_own(uint64_t group)
{
	return group == 0 ? SUPERS + SLOTS + SUPERS : SLOTS;
}

static uint8_t *slot_page(const struct space *sp, uint64_t group, unsigned slot)
{
	return map_block(sp->map, slot_block(group, slot));
}

static uint64_t virgin_word(uint64_t group, unsigned w)
{
	uint64_t copies = group == 0 && w == SUPER_COPY / 64 ? ((1ull << SUPERS) - 1) << SUPER_COPY % 64 : 0;

	return w == 0 ? (1ull << group_fixed(group)) - 1 : copies;
}

/* Blocks of the group that exist. */
static unsigned group_size(const struct space *sp, uint64_t group)
{
	return (unsigned)min_u64(sp->total - group_first(group), GROUP_BLOCKS);
}

static int grow_array(void **array, size_t *room, size_t need, size_t item)
{
	size_t n = *room ? *room : 64;
	void *p;

	if (need <= *room)
		return 0;
	while (n < need)
		n *= 2;
	p = realloc(*array, n * item);
	if (!p)
		return -ENOMEM;
	*array = p;
	*room = n;
	return 0;
}

static int reserve_chunks(struct space_changes *ch, uint64_t total)
{
	size_t words = (size_t)(total / CHUNK_BLOCKS / 64 + 1);
	uint64_t *p;

	if (words <= ch->chunk_words)
		return 0;
	p = realloc(ch->chunks, words * 8);
	if (!p)
		return -ENOMEM;
	memset(p + ch->chunk_words, 0, (words - ch->chunk_words) * 8);
	ch->chunks = p;
	ch->chunk_words = words;
	return 0;
}

void space_mark_changed(struct space *sp, block_t block, uint64_t count)
{
	struct space_changes *ch = &sp->changes[1];
	uint64_t c = block / CHUNK_BLOCKS, end = (block + count - 1) / CHUNK_BLOCKS;

	for (; c <= end; c++)
		ch->chunks[c / 64] |= 1ull << (c % 64);
	ch->blocks += count;
}

static int set_total(struct space *sp, uint64_t total)
{
	uint64_t groups = div_up(total, GROUP_BLOCKS);
	int r;

	/* A last group without room for its slots and one block more is left out until it grows. */
	if (groups > 0 && total - group_first(groups - 1) <= group_fixed(groups - 1))
		total = group_first(--groups);
	if (groups > sp->group_room) {
		uint64_t room = max_u64(groups, sp->group_room * 2);
		struct space_group *p = realloc(sp->groups, room * sizeof *p);

		if (!p)
			return -ENOMEM;
		sp->groups = p;
		sp->group_room = room;
	}
	r = reserve_chunks(&sp->changes[1], total);
	if (r < 0)
		return r;
	for (; sp->group_count < groups; sp->group_count++) {
		struct space_group *g = &sp->groups[sp->group_count];

		memset(g, 0, sizeof *g);
		memset(g->slot, NO_SLOT, sizeof g->slot);
		g->longest = ANY_LENGTH;
	}
	sp->total = total;
	sp->run_min = RUN_MIN;
	return 0;
}

int space_init(struct space *sp, struct map *map, gen_t gen, uint64_t used, uint64_t sb_total)
{
	uint64_t old_groups, g;
	int r;

	sp->map = map;
	sp->gen = gen;
	r = set_total(sp, sb_total);
	if (r < 0)
		return r;
	old_groups = sp->group_count;
	sp->used = used;
	r = set_total(sp, map_blocks(map));
	if (r < 0)
		return r;
	for (g = old_groups; g < sp->group_count; g++)
		sp->used += group_own(g);
	return 0;
}

void space_release(struct space *sp)
{
	uint64_t g;
	int i;

	for (g = 0; g < sp->group_count; g++)
		for (i = 0; i < HOLDS; i++)
			free(sp->groups[g].hold[i]);
	free(sp->groups);
	for (i = 0; i < 2; i++) {
		free(sp->changes[i].pages);
		free(sp->changes[i].groups);
		free(sp->changes[i].chunks);
	}
	free(sp->pool);
	memset(sp, 0, sizeof *sp);
}

int space_grown(struct space *sp)
{
	uint64_t old = sp->group_count, g;
	int r;

	if (map_blocks(sp->map) == sp->total)
		return 0;
	if (old > 0)
		sp->groups[old - 1].longest = ANY_LENGTH;
	r = set_total(sp, map_blocks(sp->map));
	if (r < 0)
		return r;
	for (g = old; g < sp->group_count; g++)
		sp->used += group_own(g);
	return 0;
}

uint64_t space_pending(const struct space *sp)
{
	return sp->pending[0] + sp->pending[1] + sp->pinned;
}

uint64_t space_allocatable(const struct space *sp)
{
	uint64_t taken = sp->used + space_pending(sp) + sp->staged;

	return taken < sp->total ? sp->total - taken : 0;
}

static int slot_validate(const struct space *sp, uint64_t group, unsigned slot, gen_t gen)
{
	const uint8_t *p = slot_page(sp, group, slot);

	if (get_le64(p + SLOT_MAGIC_OFF) != SLOT_MAGIC || get_le64(p + SLOT_GEN) != gen)
		return -ENOENT;
	if (get_le64(p + SLOT_GROUP) != group ||
	    get_le64(p + SLOT_CSUM) != hash64(p + 16, BLOCK_SIZE - 16, slot_block(group, slot)))
		return -ENOENT;
	return 0;
}

/* Find out which slot is in force, the first time the group is looked at. */
static int group_load(struct space *sp, uint64_t group)
{
	struct space_group *g = &sp->groups[group];
	unsigned slot;
	gen_t gen;
	int r;

	if (g->known)
		return 0;
	r = sp->slot_gen(sp->ctx, group, &gen);
	if (r == -ENOENT) {
		g->known = true;
		return 0;
	}
	if (r < 0)
		return r;
	for (slot = 0; slot < SLOTS; slot++) {
		if (slot_validate(sp, group, slot, gen) == 0) {
			g->slot[D] = (uint8_t)slot;
			g->known = true;
			return 0;
		}
	}
	return err_corrupt("free-space bitmap of group %llu (byte %llu): no slot of generation %llu is intact",
			   (unsigned long long)group, (unsigned long long)slot_block(group, 0) * BLOCK_SIZE,
			   (unsigned long long)gen);
}

static uint64_t slot_word(const uint8_t *page, unsigned w)
{
	return page ? get_le64(page + SLOT_BITS + w * 8) : 0;
}

static const uint8_t *view_page(const struct space *sp, uint64_t group, int view)
{
	unsigned slot = sp->groups[group].slot[view];

	return slot == NO_SLOT ? NULL : slot_page(sp, group, slot);
}

static uint64_t view_word(const struct space *sp, uint64_t group, int view, unsigned w)
{
	return slot_word(view_page(sp, group, view), w);
}

/* Bits that C, as it would be written now, says are in use. */
static uint64_t current_word(const struct space *sp, uint64_t group, unsigned w)
{
	const struct space_group *g = &sp->groups[group];
	int view;

	for (view = C; view >= D; view--)
		if (g->slot[view] != NO_SLOT)
			return view_word(sp, group, view, w);
	return virgin_word(group, w);
}

/* A group's bitmaps, found once for all of its words. Good until the group or the map changes. */
struct look {
	const uint8_t *view[3];
	uint64_t *const *hold;
	uint64_t group;
	unsigned size;
};

static struct look look_at(const struct space *sp, uint64_t group)
{
	struct look l = { .hold = sp->groups[group].hold, .group = group, .size = group_size(sp, group) };
	int i;

	for (i = 0; i < 3; i++)
		l.view[i] = view_page(sp, group, i);
	return l;
}

/* Bits that must not be given out: (G2), (G3). */
static uint64_t taken_word(const struct look *l, unsigned w)
{
	uint64_t bits = virgin_word(l->group, w);
	int i;

	for (i = 0; i < 3; i++)
		bits |= slot_word(l->view[i], w);
	for (i = 0; i < HOLDS; i++)
		bits |= l->hold[i] ? l->hold[i][w] : 0;
	return bits;
}

/* And what lies behind the end. */
static uint64_t busy_word(const struct look *l, unsigned w)
{
	uint64_t bits = taken_word(l, w);

	if ((w + 1) * 64 > l->size)
		bits |= w * 64 >= l->size ? ~0ull : ~0ull << (l->size - w * 64);
	return bits;
}

/* The group's slot of C, made if there is none. */
static int group_change(struct space *sp, uint64_t group, uint8_t **ret_page)
{
	struct space_group *g = &sp->groups[group];
	struct space_changes *ch = &sp->changes[1];
	unsigned slot = 0, w, used = 0;
	uint8_t *page;
	int r;

	r = group_load(sp, group);
	if (r < 0)
		return r;
	if (g->slot[C] != NO_SLOT) {
		*ret_page = slot_page(sp, group, g->slot[C]);
		return 0;
	}
	r = grow_array((void **)&ch->groups, &ch->group_room, ch->group_count + 1, sizeof *ch->groups);
	if (r < 0)
		return r;
	while (slot == g->slot[D] || slot == g->slot[F])
		slot++;
	page = slot_page(sp, group, slot);
	memset(page, 0, SLOT_BITS);
	put_le64(page + SLOT_MAGIC_OFF, SLOT_MAGIC);
	put_le64(page + SLOT_GROUP, group);
	put_le64(page + SLOT_GEN, sp->gen);
	for (w = 0; w < GROUP_WORDS; w++) {
		uint64_t bits = current_word(sp, group, w);

		put_le64(page + SLOT_BITS + w * 8, bits);
		used += (unsigned)__builtin_popcountll(bits);
	}
	put_le32(page + SLOT_USED, used);
	g->slot[C] = (uint8_t)slot;
	g->listed = false;
	ch->groups[ch->group_count++] = group;
	space_mark_changed(sp, slot_block(group, slot), 1);
	*ret_page = page;
	return 0;
}

/* Set or clear [bit, bit+count) of a group in C; all of them must have been the opposite. */
static int group_mark(struct space *sp, uint64_t group, unsigned bit, unsigned count, bool set)
{
	uint8_t *page;
	unsigned i;
	int r = group_change(sp, group, &page);

	if (r < 0)
		return r;
	for (i = bit; i < bit + count; i++) {
		uint8_t *byte = page + SLOT_BITS + i / 8, mask = (uint8_t)(1u << (i % 8));

		if (!!(*byte & mask) == set)
			return err_corrupt("block %llu is %s already",
					   (unsigned long long)(group_first(group) + i), set ? "in use" : "free");
		*byte ^= mask;
	}
	if (set) {
		put_le32(page + SLOT_USED, get_le32(page + SLOT_USED) + count);
		sp->used += count;
	} else {
		put_le32(page + SLOT_USED, get_le32(page + SLOT_USED) - count);
		sp->used -= count;
	}
	return 0;
}

static int group_hold(struct space *sp, uint64_t group, int which, unsigned bit, unsigned count)
{
	uint64_t **hold = &sp->groups[group].hold[which];
	unsigned i;

	if (!*hold) {
		*hold = calloc(GROUP_WORDS, 8);
		if (!*hold)
			return -ENOMEM;
		sp->held_groups += which != HOLD_STAGE;
	}
	for (i = bit; i < bit + count; i++)
		(*hold)[i / 64] |= 1ull << (i % 64);
	return 0;
}

static void drop_hold(struct space *sp, struct space_group *g, int which)
{
	if (g->hold[which]) {
		free(g->hold[which]);
		g->hold[which] = NULL;
		sp->held_groups -= which != HOLD_STAGE;
	}
}

/* Call fn for the part of [block, block+count) in each group. */
static int for_groups(struct space *sp, block_t block, uint64_t count,
		      int (*fn)(struct space *sp, uint64_t group, unsigned bit, unsigned count, gen_t gen), gen_t gen)
{
	while (count > 0) {
		uint64_t group = block / GROUP_BLOCKS;
		unsigned bit = (unsigned)(block % GROUP_BLOCKS);
		unsigned n = (unsigned)min_u64(count, GROUP_BLOCKS - bit);
		int r = fn(sp, group, bit, n, gen);

		if (r < 0)
			return r;
		block += n;
		count -= n;
	}
	return 0;
}

static int mark_used(struct space *sp, uint64_t group, unsigned bit, unsigned count, gen_t gen)
{
	(void)gen;
	return group_mark(sp, group, bit, count, true);
}

static int mark_free(struct space *sp, uint64_t group, unsigned bit, unsigned count, gen_t gen)
{
	int r;

	if (gen == sp->gen) {
		/* (G3): hold first, so that an error leaves nothing half done. */
		r = group_hold(sp, group, HOLD_C, bit, count);
		if (r < 0)
			return r;
	}
	r = group_mark(sp, group, bit, count, false);
	if (r < 0)
		return r;
	sp->pending[1] += count;
	return 0;
}

bool space_valid_range(const struct space *sp, block_t block, uint64_t count)
{
	uint64_t bit = block % GROUP_BLOCKS;

	if (count == 0 || count > sp->total || block > sp->total - count)
		return false;
	if (block < SUPER_COPY + SUPERS && block + count > SUPER_COPY)
		return false;
	/* Not over a group's end either: the next group begins with its slots. */
	return bit >= group_fixed(block / GROUP_BLOCKS) && bit + count <= GROUP_BLOCKS;
}

int space_free_data(struct space *sp, block_t block, uint64_t count, gen_t gen)
{
	if (!space_valid_range(sp, block, count))
		return err_corrupt("blocks %llu+%llu cannot be freed: outside the store or reserved",
				   (unsigned long long)block, (unsigned long long)count);
	return for_groups(sp, block, count, mark_free, gen);
}

/* Those that are in use, one range after the other. */
static int free_used(struct space *sp, uint64_t group, unsigned bit, unsigned count, gen_t gen)
{
	unsigned end = bit + count, from;
	int r = group_load(sp, group);

	while (r == 0 && bit < end) {
		for (from = bit; bit < end && current_word(sp, group, bit / 64) >> (bit % 64) & 1; bit++)
			;
		if (bit > from)
			r = mark_free(sp, group, from, bit - from, gen);
		else
			bit++;
	}
	return r == -EUCLEAN ? 0 : r;
}

int space_give_back(struct space *sp, block_t block, uint64_t count, gen_t gen)
{
	return space_valid_range(sp, block, count) ? for_groups(sp, block, count, free_used, gen) : 0;
}

static int keep_blocks(struct space *sp, uint64_t group, unsigned bit, unsigned count, gen_t gen)
{
	(void)gen;
	return group_hold(sp, group, HOLD_C, bit, count);
}

int space_keep(struct space *sp, block_t block, uint64_t count)
{
	return for_groups(sp, block, count, keep_blocks, 0);
}

int space_in_use(struct space *sp, block_t block, uint64_t count, bool *ret_all)
{
	block_t end = block + count;

	*ret_all = space_valid_range(sp, block, count);
	for (; *ret_all && block < end; block++) {
		uint64_t group = block / GROUP_BLOCKS;
		unsigned bit = (unsigned)(block % GROUP_BLOCKS);
		int r = group_load(sp, group);

		if (r < 0)
			return r;
		*ret_all = current_word(sp, group, bit / 64) >> (bit % 64) & 1;
	}
	return 0;
}

int space_claim(struct space *sp, block_t block, uint64_t count)
{
	int r;

	if (!space_valid_range(sp, block, count))
		return err_corrupt("blocks %llu+%llu: outside the store or reserved",
				   (unsigned long long)block, (unsigned long long)count);
	r = for_groups(sp, block, count, mark_used, 0);
	if (r == 0)
		space_mark_changed(sp, block, count);
	return r;
}

/* Runs ------------------------------------------------------------------------------------------------------------ */

/* Cut [*first, *end) back to its first part that no run has; it may become empty. */
static void avoid_runs(const struct space *sp, block_t *first, block_t *end)
{
	const struct space_run *run = &sp->run[0][0];
	unsigned i, moved = 1;

	/* Past the runs that begin the range, of which one may follow the other in any order... */
	while (moved) {
		for (moved = 0, i = 0; i < SPACE_KINDS * 2; i++) {
			if (run[i].next < run[i].end && run[i].next <= *first && *first < run[i].end) {
				*first = run[i].end;
				moved = 1;
			}
		}
	}
	/* ... up to the next one. */
	for (i = 0; i < SPACE_KINDS * 2; i++)
		if (run[i].next < run[i].end && run[i].next >= *first)
			*end = min_u64(*end, run[i].next);
}

/* The end of the free range that begins at bit b, or a place in it, if it goes on for `enough`. */
static unsigned free_end(const struct look *l, unsigned b, uint64_t enough)
{
	unsigned first = b;

	while (b < l->size && b - first < enough) {
		uint64_t busy = busy_word(l, b / 64) >> (b % 64);

		if (busy)
			return b + (unsigned)__builtin_ctzll(busy);
		b = (b / 64 + 1) * 64;
	}
	return b < l->size ? b : l->size;
}

/* The next free range of the group at or behind *bit that has more than `beyond` blocks, at most max of it; false if there
 * is none. */
static bool free_range(const struct space *sp, const struct look *l, unsigned *bit, uint64_t beyond, uint64_t max,
		       struct space_run *ret)
{
	unsigned b = *bit, from;
	block_t first, end;

	while (b < l->size) {
		uint64_t busy = busy_word(l, b / 64) >> (b % 64);

		if (busy & 1) {
			unsigned n = ~busy ? (unsigned)__builtin_ctzll(~busy) : 64;

			b += n < 64 - b % 64 ? n : 64 - b % 64;
			continue;
		}
		from = b;
		b = free_end(l, b, max + 4 * RUN_BLOCKS);
		if (b - from <= beyond)
			continue;
		first = group_first(l->group) + from;
		end = group_first(l->group) + b;
		avoid_runs(sp, &first, &end);
		if (first < end && end - first > beyond) {
			/* What lies behind the part taken is looked at again. */
			end = min_u64(end, first + max);
			*ret = (struct space_run){ first, end };
			*bit = (unsigned)(end - group_first(l->group));
			return true;
		}
		b = (unsigned)(max_u64(first, end) - group_first(l->group));
	}
	*bit = l->size;
	return false;
}

/* The first range of at least `min` blocks of the group from *bit on; if it has none, its longest, if that is longer than
 * *best. -ENOENT: no such range, and *best is what there is. */
static int find_in_group(struct space *sp, uint64_t group, unsigned *bit, uint64_t min, uint64_t max, struct space_run *best)
{
	bool whole = *bit == 0;
	struct look l;
	int r = group_load(sp, group);

	if (r < 0)
		return r;
	l = look_at(sp, group);
	while (free_range(sp, &l, bit, best->end - best->next, max, best))
		if (best->end - best->next >= min)
			return 0;
	if (whole)
		sp->groups[group].longest = (uint16_t)min_u64(sp->groups[group].longest, best->end - best->next);
	return -ENOENT;
}

/* The first range of at least `min` blocks from the scan position on, or the longest there is. */
static int find_run(struct space *sp, uint64_t min, uint64_t max, struct space_run *ret)
{
	struct space_run best = { 0, 0 };
	uint64_t tried;

	for (tried = 0; tried <= sp->group_count; tried++) {
		uint64_t group = sp->scan / GROUP_BLOCKS;
		unsigned bit = (unsigned)(sp->scan % GROUP_BLOCKS);

		if (group >= sp->group_count)
			group = sp->scan = bit = 0;
		if (sp->groups[group].longest > best.end - best.next) {
			int r = find_in_group(sp, group, &bit, min, max, &best);

			if (r == 0) {
				sp->scan = group_first(group) + bit;
				*ret = best;
			}
			if (r != -ENOENT)
				return r;
		}
		sp->scan = group_first(group + 1);
	}
	if (best.next == best.end)
		return -ENOSPC;
	*ret = best;
	return 0;
}

/* Short runs are taken where they are found as soon as one look at everything has found no long one: what is free is in
 * crumbs then until the next checkpoint, and looking at everything for each crumb would take time by the store's size. */
static int find_next_run(struct space *sp, struct space_run *ret)
{
	int r = find_run(sp, sp->run_min, RUN_BLOCKS, ret);

	if (r == 0 && ret->end - ret->next < sp->run_min)
		sp->run_min = ret->end - ret->next;
	return r;
}

static int run_refill(struct space *sp, enum space_kind kind)
{
	struct space_run *cur = &sp->run[kind][0], *next = &sp->run[kind][1];
	int r;

	if (cur->next >= cur->end) {
		*cur = *next;
		*next = (struct space_run){ 0, 0 };
		if (cur->next >= cur->end) {
			r = find_next_run(sp, cur);
			if (r < 0)
				return r;
		}
	}
	/* Nobody gets a run of BULK ready, so none is held back for that: a small store has other uses for 2 MiB. */
	if (kind != SPACE_BULK && next->next >= next->end && find_next_run(sp, next) == 0)
		sp->run_posted[kind] = false;
	return 0;
}

bool space_take_run(struct space *sp, struct space_run *ret_run)
{
	int kind;

	for (kind = 0; kind < SPACE_BULK; kind++) {
		struct space_run *next = &sp->run[kind][1];

		if (!sp->run_posted[kind] && next->next < next->end) {
			sp->run_posted[kind] = true;
			*ret_run = *next;
			return true;
		}
	}
	return false;
}

/* The other kinds' runs are free blocks too: first those that are not in use yet. */
static int run_borrow(struct space *sp, enum space_kind kind)
{
	int i, other;

	for (i = 1; i >= 0; i--) {
		for (other = 0; other < SPACE_KINDS; other++) {
			struct space_run *run = &sp->run[other][i];

			if (other != (int)kind && run->next < run->end) {
				sp->run[kind][0] = *run;
				*run = (struct space_run){ 0, 0 };
				return 0;
			}
		}
	}
	return -ENOSPC;
}

/* The kind's run at hand, with something in it. -ENOSPC. */
static int run_find(struct space *sp, enum space_kind kind, struct space_run **ret)
{
	int r = 0;

	*ret = &sp->run[kind][0];
	if ((*ret)->next >= (*ret)->end)
		r = run_refill(sp, kind);
	return r == -ENOSPC ? run_borrow(sp, kind) : r;
}

static enum space_kind kind_of_bulk(uint64_t want)
{
	return want >= SPACE_BULK_MIN ? SPACE_BULK : SPACE_DATA;
}

static int take(struct space *sp, enum space_kind kind, uint64_t want, block_t *ret_block, uint64_t *ret_count)
{
	struct space_run *run;
	uint64_t n;
	int r = run_find(sp, kind, &run);

	if (r < 0)
		return r;
	n = min_u64(want, run->end - run->next);
	r = for_groups(sp, run->next, n, mark_used, 0);
	if (r < 0)
		return r;
	*ret_block = run->next;
	*ret_count = n;
	run->next += n;
	space_mark_changed(sp, *ret_block, n);
	return 0;
}

int space_alloc_meta(struct space *sp, block_t *ret_block)
{
	struct space_changes *ch = &sp->changes[1];
	uint64_t n;
	int r;

	if (sp->pool_count > 0) {
		*ret_block = sp->pool[--sp->pool_count];
		return 0;
	}
	r = grow_array((void **)&ch->pages, &ch->page_room, ch->page_count + 1, sizeof *ch->pages);
	if (r < 0)
		return r;
	r = take(sp, SPACE_META, 1, ret_block, &n);
	if (r < 0)
		return r;
	ch->pages[ch->page_count++] = *ret_block;
	return 0;
}

int space_free_meta(struct space *sp, block_t block, gen_t gen)
{
	int r;

	if (gen != sp->gen)
		return space_free_data(sp, block, 1, gen);
	r = grow_array((void **)&sp->pool, &sp->pool_room, sp->pool_count + 1, sizeof *sp->pool);
	if (r < 0)
		return r;
	sp->pool[sp->pool_count++] = block;
	return 0;
}

int space_alloc_data(struct space *sp, uint64_t want, block_t *ret_block, uint64_t *ret_count)
{
	return take(sp, SPACE_DATA, want, ret_block, ret_count);
}

int space_alloc_bulk(struct space *sp, uint64_t want, block_t *ret_block, uint64_t *ret_count)
{
	return take(sp, kind_of_bulk(want), want, ret_block, ret_count);
}

int space_alloc_exact(struct space *sp, uint64_t count, block_t *ret_block)
{
	struct space_run run;
	uint64_t scan = sp->scan;
	int r;

	sp->scan = 0;
	r = find_run(sp, count, count, &run);
	sp->scan = scan;
	if (r < 0)
		return r;
	if (run.end - run.next < count)
		return -ENOSPC;
	r = for_groups(sp, run.next, count, mark_used, 0);
	if (r < 0)
		return r;
	*ret_block = run.next;
	return 0;
}

/* Staged blocks --------------------------------------------------------------------------------------------------- */

static int hold_staged(struct space *sp, uint64_t group, unsigned bit, unsigned count, gen_t gen)
{
	int r = group_hold(sp, group, HOLD_STAGE, bit, count);

	(void)gen;
	if (r == 0)
		sp->staged += count;
	return r;
}

static bool is_staged(const struct space *sp, block_t block, uint64_t count)
{
	block_t b;

	if (!space_valid_range(sp, block, count))
		return false;
	for (b = block; b < block + count; b++) {
		const uint64_t *hold = sp->groups[b / GROUP_BLOCKS].hold[HOLD_STAGE];
		unsigned bit = (unsigned)(b % GROUP_BLOCKS);

		if (!hold || !(hold[bit / 64] >> (bit % 64) & 1))
			return false;
	}
	return true;
}

static int release_staged(struct space *sp, uint64_t group, unsigned bit, unsigned count, gen_t gen)
{
	uint64_t *hold = sp->groups[group].hold[HOLD_STAGE];
	unsigned i;

	(void)gen;
	for (i = bit; i < bit + count; i++)
		hold[i / 64] &= ~(1ull << (i % 64));
	sp->staged -= count;
	for (i = 0; i < GROUP_WORDS && hold[i] == 0; i++)
		;
	if (i == GROUP_WORDS)
		drop_hold(sp, &sp->groups[group], HOLD_STAGE);
	return 0;
}

int space_stage(struct space *sp, uint64_t want, block_t *ret_block, uint64_t *ret_count)
{
	struct space_run *run;
	uint64_t n;
	int r = run_find(sp, kind_of_bulk(want), &run);

	if (r < 0)
		return r;
	/* A run never goes over a group's end, so an error leaves nothing half done. */
	n = min_u64(want, run->end - run->next);
	r = for_groups(sp, run->next, n, hold_staged, 0);
	if (r < 0)
		return r;
	*ret_block = run->next;
	*ret_count = n;
	run->next += n;
	return 0;
}

int space_use_staged(struct space *sp, block_t block, uint64_t count)
{
	int r;

	if (!is_staged(sp, block, count))
		return err_corrupt("blocks %llu+%llu are not staged", (unsigned long long)block,
				   (unsigned long long)count);
	r = for_groups(sp, block, count, mark_used, 0);
	if (r < 0)
		return r;
	space_mark_changed(sp, block, count);
	return for_groups(sp, block, count, release_staged, 0);
}

int space_drop_staged(struct space *sp, block_t block, uint64_t count)
{
	if (!is_staged(sp, block, count))
		return err_corrupt("blocks %llu+%llu are not staged", (unsigned long long)block,
				   (unsigned long long)count);
	sp->groups[block / GROUP_BLOCKS].longest = ANY_LENGTH;
	return for_groups(sp, block, count, release_staged, 0);
}

/* Checkpoints ----------------------------------------------------------------------------------------------------- */

int space_next_unlisted(struct space *sp, uint64_t *ret_group)
{
	struct space_changes *ch = &sp->changes[1];
	size_t i;

	for (i = ch->group_count; i-- > 0; ) {
		struct space_group *g = &sp->groups[ch->groups[i]];

		/* Groups that were cut off since have no item any more. */
		if (ch->groups[i] < sp->group_count && !g->listed) {
			g->listed = true;
			*ret_group = ch->groups[i];
			return 0;
		}
	}
	return -ENOENT;
}

/* Tree pages that C made and no longer needs are free in what is written for C, but the checkpointer will still put
 * checksums into them: held until it is done. */
static int pool_drain(struct space *sp)
{
	int r;

	while (sp->pool_count > 0) {
		block_t block = sp->pool[sp->pool_count - 1];

		r = space_free_data(sp, block, 1, sp->gen);
		if (r < 0)
			return r;
		sp->pool_count--;
	}
	return 0;
}

int space_freeze(struct space *sp, gen_t next_gen)
{
	struct space_changes spare = sp->changes[0];
	uint64_t g;
	size_t i;
	int r;

	/* The pool's groups have slots of C already (their pages were allocated in it), so nothing becomes unlisted. */
	r = pool_drain(sp);
	if (r < 0)
		return r;
	spare.page_count = spare.group_count = 0;
	spare.blocks = 0;
	if (spare.chunks)
		memset(spare.chunks, 0, spare.chunk_words * 8);
	r = reserve_chunks(&spare, sp->total);
	sp->changes[0] = spare;
	if (r < 0)
		return r;
	sp->changes[0] = sp->changes[1];
	sp->changes[1] = spare;
	for (i = 0; i < sp->changes[0].group_count; i++) {
		uint64_t *entry = &sp->changes[0].groups[i];
		struct space_group *grp = &sp->groups[*entry];

		grp->slot[F] = grp->slot[C];
		grp->slot[C] = NO_SLOT;
		grp->listed = false;
		/* The checkpointer must not read groups[], which may move when the store grows. */
		*entry = *entry << 2 | grp->slot[F];
	}
	for (g = 0; g < sp->group_count; g++) {
		sp->groups[g].hold[HOLD_F] = sp->groups[g].hold[HOLD_C];
		sp->groups[g].hold[HOLD_C] = NULL;
	}
	sp->pending[0] = sp->pending[1];
	sp->pending[1] = 0;
	sp->gen = next_gen;
	return 0;
}

void space_seal(struct space *sp)
{
	const struct space_changes *ch = &sp->changes[0];
	size_t i;

	for (i = 0; i < ch->page_count; i++) {
		uint8_t *p = map_block(sp->map, ch->pages[i]);

		put_le64(p + PAGE_CSUM, page_csum(p, ch->pages[i]));
	}
	for (i = 0; i < ch->group_count; i++) {
		block_t block = slot_block(ch->groups[i] >> 2, ch->groups[i] & 3);
		uint8_t *p = map_block(sp->map, block);

		put_le64(p + SLOT_CSUM, hash64(p + 16, BLOCK_SIZE - 16, block));
	}
}

int space_sync_frozen(struct space *sp)
{
	const struct space_changes *ch = &sp->changes[0];
	uint64_t blocks = map_blocks(sp->map), chunks = div_up(blocks, CHUNK_BLOCKS), c = 0;

	while (c < chunks) {
		uint64_t first;
		block_t end;
		int r;

		if (!(ch->chunks[c / 64] >> (c % 64))) {
			c = (c / 64 + 1) * 64;
			if (c / 64 >= ch->chunk_words)
				break;
			continue;
		}
		c += (uint64_t)__builtin_ctzll(ch->chunks[c / 64] >> (c % 64));
		first = c;
		while (c < chunks && c / 64 < ch->chunk_words && ch->chunks[c / 64] >> (c % 64) & 1)
			c++;
		if (first >= chunks)
			break;
		end = min_u64(c * CHUNK_BLOCKS, blocks);
		r = map_sync(sp->map, first * CHUNK_BLOCKS, end - first * CHUNK_BLOCKS);
		if (r < 0)
			return r;
		if (c / 64 >= ch->chunk_words)
			break;
	}
	return 0;
}

/* Hold back what D's view of the group uses; count what F would free. */
static int group_pin(struct space *sp, uint64_t group)
{
	struct space_group *g = &sp->groups[group];
	unsigned w;

	if (!g->hold[HOLD_PIN]) {
		g->hold[HOLD_PIN] = calloc(GROUP_WORDS, 8);
		if (!g->hold[HOLD_PIN])
			return -ENOMEM;
		sp->held_groups++;
	}
	for (w = 0; w < GROUP_WORDS; w++)
		g->hold[HOLD_PIN][w] |= view_word(sp, group, D, w);
	return 0;
}

static void group_count_pinned(struct space *sp, uint64_t group)
{
	unsigned w;

	for (w = 0; w < GROUP_WORDS; w++)
		sp->pinned += (uint64_t)__builtin_popcountll(view_word(sp, group, D, w) &
							     ~view_word(sp, group, F, w));
}

int space_durable(struct space *sp, bool keep)
{
	const struct space_changes *ch = &sp->changes[0];
	uint64_t g;
	size_t i;

	for (i = 0; keep && i < ch->group_count; i++) {
		int r = group_pin(sp, ch->groups[i] >> 2);

		if (r < 0)
			return r;
	}
	for (i = 0; i < ch->group_count; i++) {
		uint64_t group = ch->groups[i] >> 2;
		struct space_group *grp = &sp->groups[group];

		if (keep)
			group_count_pinned(sp, group);
		grp->slot[D] = grp->slot[F];
		grp->slot[F] = NO_SLOT;
		grp->longest = ANY_LENGTH;
	}
	for (g = 0; g < sp->group_count; g++) {
		struct space_group *grp = &sp->groups[g];

		if (grp->hold[HOLD_F] || grp->hold[HOLD_PIN])
			grp->longest = ANY_LENGTH;
		drop_hold(sp, grp, HOLD_F);
		if (!keep)
			drop_hold(sp, grp, HOLD_PIN);
	}
	if (!keep)
		sp->pinned = 0;
	sp->pending[0] = 0;
	sp->changes[0].page_count = sp->changes[0].group_count = 0;
	sp->changes[0].blocks = 0;
	/* Start low again, so that contents move towards the beginning and the end falls free. */
	sp->scan = 0;
	sp->run_min = RUN_MIN;
	return 0;
}

/* Looking --------------------------------------------------------------------------------------------------------- */

int space_group_bits(struct space *sp, uint64_t group, const uint8_t **ret_bits)
{
	uint8_t *page;
	int r = group_change(sp, group, &page);

	if (r < 0)
		return r;
	*ret_bits = page + SLOT_BITS;
	return 0;
}

int space_high_water(struct space *sp, block_t *ret_end)
{
	struct look l;
	uint64_t g;
	unsigned w;
	int r;

	for (g = sp->group_count; g-- > 0; ) {
		r = group_load(sp, g);
		if (r < 0)
			return r;
		l = look_at(sp, g);
		for (w = GROUP_WORDS; w-- > 0; ) {
			uint64_t bits = taken_word(&l, w);

			if (bits && !(w == 0 && bits == virgin_word(g, 0) && g > 0)) {
				*ret_end = group_first(g) + w * 64 + 64 - (unsigned)__builtin_clzll(bits);
				return 0;
			}
		}
	}
	*ret_end = 0;
	return 0;
}

void space_go_low(struct space *sp, block_t limit)
{
	uint64_t g;
	int kind, i;

	for (kind = 0; kind < SPACE_KINDS; kind++)
		for (i = 0; i < 2; i++)
			if (sp->run[kind][i].end > limit)
				sp->run[kind][i] = (struct space_run){ 0, 0 };
	/* What these runs held was not counted as free. */
	for (g = 0; g < sp->group_count; g++)
		sp->groups[g].longest = ANY_LENGTH;
	sp->scan = 0;
}

void space_cut(struct space *sp, uint64_t total)
{
	uint64_t groups = div_up(total, GROUP_BLOCKS), g;
	int i;

	for (g = groups; g < sp->group_count; g++) {
		sp->used -= group_own(g);
		for (i = 0; i < HOLDS; i++)
			drop_hold(sp, &sp->groups[g], i);
	}
	if (groups < sp->group_count)
		sp->group_count = groups;
	sp->total = total;
	space_go_low(sp, total);
}
