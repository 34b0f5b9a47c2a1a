/* SPDX-License-Identifier: MIT
 *
 * check/space: each block in use once, and the bitmaps say the same.
 */
#include "core/check/check_int.h"

static block_t slot_block(uint64_t group, unsigned slot)
{
	return group * GROUP_BLOCKS + (group == 0 ? 2 : 0) + slot;
}

uint64_t check_mark(struct check *c, block_t block, uint64_t count, block_t *ret_first)
{
	block_t first;
	uint64_t twice = bit_set_range(c->used, block, count, ret_first ? ret_first : &first);

	c->rep->used_blocks += count - twice;
	return twice;
}

static unsigned popcount_bits(const uint8_t *bits)
{
	unsigned w, n = 0;

	for (w = 0; w < GROUP_WORDS; w++)
		n += (unsigned)__builtin_popcountll(get_le64(bits + w * 8));
	return n;
}

static void keep_bits(struct check *c, uint64_t group, const uint8_t *bits)
{
	uint64_t *to = c->bits + group * GROUP_WORDS, room = c->blocks / 64 + 1 - group * GROUP_WORDS;
	unsigned w;

	for (w = 0; w < GROUP_WORDS; w++) {
		uint64_t word = get_le64(bits + w * 8);

		if (w < room)
			to[w] = word;
		if (w >= room ? word != 0 : (w + 1 == room && word >> (c->blocks % 64) != 0))
			check_problem(c, "free-space bitmap of group %llu (byte %llu) has blocks behind the end of the store",
				      (unsigned long long)group, (unsigned long long)slot_block(group, 0) * BLOCK_SIZE);
	}
}

static void check_slot_count(struct check *c, uint64_t group, const uint8_t *page)
{
	unsigned n = popcount_bits(page + SLOT_BITS);

	if (get_le32(page + SLOT_USED) != n)
		check_problem(c, "free-space bitmap of group %llu (byte %llu) counts %u blocks in use, but marks %u",
			      (unsigned long long)group, (unsigned long long)slot_block(group, 0) * BLOCK_SIZE,
			      get_le32(page + SLOT_USED), n);
}

/* Which of the three it was is not known any more. */
static void bad_slots(struct check *c, uint64_t group, gen_t gen)
{
	unsigned long long first = slot_block(group, 0);

	check_damage(c, "free-space bitmap of group %llu (blocks %llu to %llu, byte %llu): no slot of generation %llu is intact",
		     (unsigned long long)group, first, first + SLOTS - 1, first * BLOCK_SIZE, (unsigned long long)gen);
	c->group_bad[group] = 1;
}

/* A snapshot's slot: copied before it is verified, since the daemon may write it anew once a later checkpoint is on
 * disk. */
static int load_pinned(struct check *c, uint64_t group)
{
	uint8_t page[BLOCK_SIZE];
	const uint8_t *v;
	struct super now;
	uint32_t len;
	unsigned slot;
	block_t block;
	gen_t gen;
	int r = tree_get(c->t, (struct key){ KIND_SPACE, group }, &v, &len);

	if (r == -ENOENT) {
		memset(page, 0, sizeof page);
		put_le64(page + SLOT_BITS, (1ull << group_fixed(group)) - 1);
		if (group == 0)
			page[SLOT_BITS + SUPER_COPY / 8] = ((1u << SUPERS) - 1) << SUPER_COPY % 8;
		keep_bits(c, group, page + SLOT_BITS);
		return 0;
	}
	if (r < 0 || len != 8) {
		c->group_bad[group] = 1;        /* the walk will say why */
		return 0;
	}
	gen = get_le64(v);
	for (slot = 0; slot < SLOTS; slot++) {
		block = slot_block(group, slot);
		memcpy(page, map_block(&c->s->map, block), sizeof page);
		if (get_le64(page + SLOT_MAGIC_OFF) == SLOT_MAGIC && get_le64(page + SLOT_GEN) == gen &&
		    get_le64(page + SLOT_GROUP) == group &&
		    get_le64(page + SLOT_CSUM) == hash64(page + 16, BLOCK_SIZE - 16, block)) {
			check_slot_count(c, group, page);
			keep_bits(c, group, page + SLOT_BITS);
			return 0;
		}
	}
	if (super_pick_at(c->s->map.base, map_blocks(&c->s->map), &now, &block) != 0 || now.gen != c->super.gen)
		return -EAGAIN;
	bad_slots(c, group, gen);
	return 0;
}

static int load_current(struct check *c, uint64_t group)
{
	const uint8_t *bits, *v;
	uint32_t len;
	int r = tree_get(c->t, (struct key){ KIND_SPACE, group }, &v, &len);
	gen_t gen = r == 0 && len == 8 ? get_le64(v) : 0;
	unsigned slot;

	if ((r < 0 && r != -ENOENT) || (r == 0 && len != 8)) {
		c->group_bad[group] = 1;        /* the walk will say why */
		return 0;
	}
	r = space_group_bits(c->sp, group, &bits);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		bad_slots(c, group, gen);
		return 0;
	}
	slot = c->sp->groups[group].slot[0];
	if (slot < SLOTS)
		check_slot_count(c, group, map_block(&c->s->map, slot_block(group, slot)));
	keep_bits(c, group, bits);
	return 0;
}

static void mark_journal(struct check *c)
{
	const struct journal *j = &c->s->journal;
	uint64_t blocks = journal_seg_blocks(j);
	block_t twice;
	unsigned i;

	for (i = 0; i < j->count; i++) {
		if (!space_valid_range(c->sp, j->segs[i], blocks))
			check_problem(c, "journal segment at block %llu lies outside the store or on reserved blocks",
				      (unsigned long long)j->segs[i]);
		else if (check_mark(c, j->segs[i], blocks, &twice) > 0)
			check_problem(c, "journal segment at block %llu: block %llu is used twice",
				      (unsigned long long)j->segs[i], (unsigned long long)twice);
	}
}

void check_space_fixed(struct check *c)
{
	uint64_t g;
	size_t i;

	(void)check_mark(c, 0, SUPERS, NULL);
	(void)check_mark(c, SUPER_COPY, SUPERS, NULL);
	for (g = 0; g < c->sp->group_count; g++)
		(void)check_mark(c, slot_block(g, 0), SLOTS, NULL);
	/* Tree pages that came and went since the last checkpoint: in use until the next one. */
	for (i = 0; i < c->sp->pool_count; i++)
		(void)check_mark(c, c->sp->pool[i], 1, NULL);
	mark_journal(c);
}

int check_space_load(struct check *c)
{
	uint64_t g;
	int r = 0;

	check_space_fixed(c);
	for (g = 0; g < c->sp->group_count && r == 0; g++)
		r = c->o->snapshot ? load_pinned(c, g) : load_current(c, g);
	return r;
}

/* Findings come in ranges. */
struct range {
	block_t first;
	uint64_t count;
	bool leaked;
};

static void report_range(struct check *c, struct range *range)
{
	unsigned long long first = range->first, last = range->first + range->count - 1;

	if (range->count > 0 && range->leaked)
		check_problem(c, "blocks %llu to %llu (byte %llu) are leaked: marked as in use, but nothing uses them",
			      first, last, first * BLOCK_SIZE);
	else if (range->count > 0)
		check_problem(c, "blocks %llu to %llu (byte %llu) are in use, but marked as free", first, last,
			      first * BLOCK_SIZE);
	range->count = 0;
}

static void compare_block(struct check *c, block_t b, struct range *range)
{
	bool used = bit_get(c->used, b), marked = bit_get(c->bits, b);

	if (used == marked || (marked && c->rep->incomplete))
		return;
	if (range->count == 0 || range->first + range->count != b || range->leaked != marked) {
		report_range(c, range);
		*range = (struct range){ .first = b, .leaked = marked };
	}
	range->count++;
}

void check_space_compare(struct check *c)
{
	struct range range = { 0 };
	uint64_t w, marked = 0;
	bool all = true;
	unsigned i;

	for (w = 0; w < c->blocks / 64 + 1; w++) {
		if (w / GROUP_WORDS < c->sp->group_count && c->group_bad[w / GROUP_WORDS]) {
			all = false;
			continue;
		}
		marked += (uint64_t)__builtin_popcountll(c->bits[w]);
		if (c->used[w] == c->bits[w])
			continue;
		for (i = 0; i < 64 && w * 64 + i < c->blocks; i++)
			compare_block(c, w * 64 + i, &range);
	}
	report_range(c, &range);
	if (all && marked != c->sp->used)
		check_problem(c, "the superblock counts %llu blocks in use, the bitmaps mark %llu",
			      (unsigned long long)c->sp->used, (unsigned long long)marked);
}
