/* SPDX-License-Identifier: MIT
 *
 * test_space: who may have which block. A model keeps, for each block, the three views (durable, frozen, current) and what
 * is held back, from DESIGN.md section 3; every block handed out must be free in all of them, and the counters must say
 * what the model counts.
 */
#include "tests/unit/random_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/store/space.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCKS_MAX (3 * GROUP_BLOCKS)
#define GROUPS_MAX 4

enum { IN_D = 1, IN_F = 2, IN_C = 4, HELD_F = 8, HELD_C = 16, PINNED = 32, POOL = 64, META = 128 };

struct world {
	struct map map;
	struct space sp;
	int fd;
	uint8_t state[BLOCKS_MAX];
	bool staged[BLOCKS_MAX];                /* given out, but free in every view */
	uint64_t staged_count;
	uint32_t gen[BLOCKS_MAX];               /* in which it was allocated */
	uint64_t total;                         /* blocks that space knows of */
	bool frozen;
	gen_t item_d[GROUPS_MAX], item_f[GROUPS_MAX], item_c[GROUPS_MAX];       /* the tree's SPACE items, by root */
	uint64_t used_d;
	uint64_t slot_hash[GROUPS_MAX][2];      /* of the slots of D and F */
};

static int slot_gen(void *ctx, uint64_t group, gen_t *ret_gen)
{
	const struct world *w = ctx;

	if (w->item_c[group] == 0)
		return -ENOENT;
	*ret_gen = w->item_c[group];
	return 0;
}

static bool is_fixed(block_t b)
{
	return b % GROUP_BLOCKS < (b < GROUP_BLOCKS ? 2 + SLOTS : SLOTS) ||
	       (b >= SUPER_COPY && b < SUPER_COPY + SUPERS);
}

/* Blocks behind the old end exist now. */
static void know_total(struct world *w)
{
	block_t b;

	for (b = w->total; b < w->sp.total; b++)
		w->state[b] = is_fixed(b) ? IN_D | IN_F | IN_C : 0;
	w->total = w->sp.total;
}

static struct world *world_new(uint64_t blocks)
{
	struct world *w = calloc(1, sizeof *w);

	assert_non_null(w);
	w->fd = memfd_create("space", MFD_CLOEXEC);
	assert_true(w->fd >= 0);
	assert_int_equal(map_open(&w->map, w->fd, false, 1ull << 30, &sys_linux), 0);
	/* Every store has the copies of its superblocks. */
	assert_int_equal(map_grow(&w->map, SUPER_COPY + SUPERS + blocks), 0);
	assert_int_equal(space_init(&w->sp, &w->map, 1, 0, 0), 0);
	w->sp.slot_gen = slot_gen;
	w->sp.ctx = w;
	know_total(w);
	return w;
}

static void world_free(struct world *w)
{
	space_release(&w->sp);
	map_close(&w->map);
	(void)close(w->fd);
	free(w);
}

static bool is_free(const struct world *w, block_t b)
{
	return (w->state[b] & (IN_D | IN_F | IN_C | HELD_F | HELD_C | PINNED)) == 0 && !w->staged[b];
}

static uint64_t count_free(const struct world *w)
{
	uint64_t n = 0;
	block_t b;

	for (b = 0; b < w->total; b++)
		n += is_free(w, b);
	return n;
}

/* total = used + pending + allocatable, and each as the model has it. */
static void check_counts(const struct world *w)
{
	uint64_t used = 0, pending = 0, free_blocks = count_free(w);
	block_t b;

	for (b = 0; b < w->total; b++)
		used += w->state[b] & IN_C ? 1 : 0;
	pending = w->total - used - free_blocks - w->staged_count;
	assert_int_equal(w->sp.staged, w->staged_count);
	assert_int_equal(w->sp.total, w->total);
	assert_int_equal(w->sp.used, used);
	assert_int_equal(space_pending(&w->sp), pending);
	assert_int_equal(space_allocatable(&w->sp), free_blocks);
}

/* (S3) What stands in runs is free and in no other run. */
static void check_runs(const struct world *w)
{
	const struct space_run *run = &w->sp.run[0][0];
	unsigned i, j;
	block_t b;

	for (i = 0; i < SPACE_KINDS * 2; i++) {
		for (b = run[i].next; b < run[i].end; b++)
			assert_true(b < w->total && is_free(w, b));
		for (j = 0; j < i; j++)
			if (run[i].next < run[i].end && run[j].next < run[j].end)
				assert_true(run[i].end <= run[j].next || run[j].end <= run[i].next);
	}
}

static void hash_slots(struct world *w, bool check_only)
{
	uint64_t g;
	int view;

	for (g = 0; g < w->sp.group_count; g++) {
		for (view = 0; view < 2; view++) {
			unsigned slot = w->sp.groups[g].slot[view];
			uint64_t h = 0;

			if (slot < SLOTS)
				h = hash64(map_block(&w->map, g * GROUP_BLOCKS + (g == 0 ? 2 : 0) + slot), BLOCK_SIZE, 0);
			if (check_only && h && w->slot_hash[g][view])
				assert_int_equal(h, w->slot_hash[g][view]);
			w->slot_hash[g][view] = h;
		}
	}
}

static void took(struct world *w, block_t b, uint64_t count, bool meta)
{
	assert_true(space_valid_range(&w->sp, b, count));
	for (; count > 0; b++, count--) {
		assert_true(is_free(w, b));
		w->state[b] |= (uint8_t)(IN_C | (meta ? META : 0));
		w->gen[b] = (uint32_t)w->sp.gen;
	}
}

static int alloc_data(struct world *w, uint64_t want)
{
	uint64_t n;
	block_t b;
	int r = rnd(2) ? space_alloc_data(&w->sp, want, &b, &n) : space_alloc_bulk(&w->sp, want, &b, &n);

	if (r == 0) {
		assert_true(n >= 1 && n <= want);
		took(w, b, n, false);
	}
	return r;
}

static int alloc_meta(struct world *w)
{
	bool pooled = w->sp.pool_count > 0;
	block_t b;
	int r = space_alloc_meta(&w->sp, &b);

	if (r < 0)
		return r;
	if (pooled) {
		assert_true(w->state[b] & POOL);
		w->state[b] &= (uint8_t)~POOL;
	} else {
		took(w, b, 1, true);
	}
	return 0;
}

static int alloc_exact(struct world *w, uint64_t count)
{
	block_t b;
	int r = space_alloc_exact(&w->sp, count, &b);

	if (r == 0)
		took(w, b, count, false);
	return r;
}

static void free_block(struct world *w, block_t b)
{
	uint8_t *st = &w->state[b];
	bool same = w->gen[b] == w->sp.gen;

	if (*st & META) {
		assert_int_equal(space_free_meta(&w->sp, b, w->gen[b]), 0);
		if (same) {
			*st |= POOL;
			return;
		}
	} else {
		assert_int_equal(space_free_data(&w->sp, b, 1, w->gen[b]), 0);
	}
	*st = (uint8_t)((*st & ~(IN_C | META)) | (same ? HELD_C : 0));
}

/* Free about one of n blocks in use. */
static void free_some(struct world *w, uint32_t n)
{
	block_t b;

	for (b = 0; b < w->total; b++)
		if (!is_fixed(b) && (w->state[b] & (IN_C | POOL)) == IN_C && rnd(n) == 0)
			free_block(w, b);
}

static void freeze(struct world *w)
{
	uint64_t g;
	block_t b;

	while (space_next_unlisted(&w->sp, &g) == 0) {
		assert_true(w->item_c[g] != w->sp.gen);
		w->item_c[g] = w->sp.gen;
	}
	assert_int_equal(space_freeze(&w->sp, w->sp.gen + 1), 0);
	memcpy(w->item_f, w->item_c, sizeof w->item_f);
	for (b = 0; b < w->total; b++) {
		uint8_t *st = &w->state[b];

		if (*st & POOL)
			*st = (uint8_t)((*st & ~(IN_C | POOL | META)) | HELD_C);
		*st = (uint8_t)((*st & ~(IN_F | HELD_F | HELD_C)) | (*st & IN_C ? IN_F : 0) | (*st & HELD_C ? HELD_F : 0));
	}
	w->used_d = w->sp.used;
	w->frozen = true;
	space_seal(&w->sp);
	assert_int_equal(space_sync_frozen(&w->sp), 0);
	memset(w->slot_hash, 0, sizeof w->slot_hash);
	hash_slots(w, false);
}

static void durable(struct world *w, bool keep)
{
	block_t b;

	hash_slots(w, true);            /* (S1) */
	assert_int_equal(space_durable(&w->sp, keep), 0);
	memcpy(w->item_d, w->item_f, sizeof w->item_d);
	for (b = 0; b < w->total; b++) {
		uint8_t *st = &w->state[b];
		/* Blocks that only a pinned checkpoint uses stay held while there are pins. */
		uint8_t pin = keep ? (uint8_t)((*st & PINNED) | (*st & IN_D ? PINNED : 0)) : 0;

		*st = (uint8_t)((*st & ~(IN_D | HELD_F | PINNED)) | (*st & IN_F ? IN_D : 0) | pin);
		if (!is_fixed(b))
			*st &= (uint8_t)~IN_F;
	}
	w->frozen = false;
	memset(w->slot_hash, 0, sizeof w->slot_hash);
	hash_slots(w, false);
}

static void checkpoint(struct world *w)
{
	freeze(w);
	durable(w, false);
}

/* Take all there is; as many blocks as the counter promised. */
static void drain(struct world *w)
{
	uint64_t before = w->sp.used, promised = space_allocatable(&w->sp), pooled = w->sp.pool_count;

	while (pooled-- > 0)
		assert_int_equal(alloc_meta(w), 0);
	while (rnd(2) ? alloc_data(w, 1 + rnd(600)) == 0 : alloc_meta(w) == 0)
		;
	while (alloc_data(w, 700) == 0)
		;
	assert_int_equal(w->sp.used - before, promised);
	assert_int_equal(space_allocatable(&w->sp), 0);
	assert_int_equal(alloc_meta(w), -ENOSPC);
	check_counts(w);
}

static void stage(struct world *w, uint64_t want)
{
	uint64_t n;
	block_t b;

	if (space_stage(&w->sp, want, &b, &n) < 0)
		return;
	assert_true(n >= 1 && n <= want && space_valid_range(&w->sp, b, n));
	for (; n > 0; b++, n--) {
		assert_true(is_free(w, b));
		w->staged[b] = true;
		w->staged_count++;
	}
}

/* About one of n staged blocks, or what follows it too, is used or given up. */
static void unstage(struct world *w, uint32_t n)
{
	block_t b;

	for (b = 0; b < w->total; b++) {
		uint64_t count = 1, i;

		if (!w->staged[b] || rnd(n) != 0)
			continue;
		while (b + count < w->total && w->staged[b + count] && rnd(4))
			count++;
		for (i = 0; i < count; i++)
			w->staged[b + i] = false;
		w->staged_count -= count;
		if (rnd(2)) {
			assert_int_equal(space_use_staged(&w->sp, b, count), 0);
			took(w, b, count, false);
		} else {
			assert_int_equal(space_drop_staged(&w->sp, b, count), 0);
		}
		assert_int_equal(space_use_staged(&w->sp, b, 1), -EUCLEAN);
		assert_int_equal(space_drop_staged(&w->sp, b, 1), -EUCLEAN);
	}
}

static void random_step(struct world *w)
{
	struct space_run run;

	switch (rnd(14)) {
	case 12:
		stage(w, 1 + rnd(rnd(4) ? 8 : 400));
		break;
	case 13:
		if (rnd(4) == 0)
			unstage(w, 1 + rnd(10));
		break;
	case 0: case 1: case 2:
		(void)alloc_data(w, 1 + rnd(rnd(4) ? 8 : 400));
		break;
	case 3: case 4: case 5:
		(void)alloc_meta(w);
		break;
	case 6:
		(void)alloc_exact(w, rnd(8) ? 64 : 1 + rnd(300));
		break;
	case 7:
		if (rnd(4) == 0)
			free_some(w, 2 + rnd(20));
		break;
	case 8:
		if (space_take_run(&w->sp, &run))
			assert_true(run.next < run.end);
		break;
	case 9:
		if (rnd(4) == 0 && !w->frozen)
			freeze(w);
		break;
	case 10:
		if (rnd(4) == 0 && w->frozen)
			durable(w, false);
		break;
	default:
		if (rnd(10) == 0)
			space_go_low(&w->sp, rnd((uint32_t)w->total));
	}
}

static void test_space__random_against_model(void **state)
{
	unsigned round, step;

	(void)state;
	for (round = 0; round < 12; round++) {
		struct world *w = world_new(600 + rnd(3000));

		for (step = 0; step < 1500; step++) {
			random_step(w);
			if (step % 4 == 0)
				check_counts(w);
			check_runs(w);
		}
		/* Nothing is held for good. */
		unstage(w, 1);
		assert_int_equal(w->staged_count, 0);
		free_some(w, 1);
		if (w->frozen)
			durable(w, false);
		checkpoint(w);
		checkpoint(w);
		assert_int_equal(space_pending(&w->sp), 0);
		assert_int_equal(w->sp.held_groups, 0);
		assert_int_equal(w->sp.used, 2 * SUPERS + SLOTS);
		check_counts(w);
		drain(w);
		world_free(w);
	}
}

static void test_space__freed_block_waits_for_its_checkpoint(void **state)
{
	struct world *w = world_new(1000);
	block_t b;
	uint64_t n;

	(void)state;
	drain(w);
	checkpoint(w);
	for (b = 100; b < 200; b++)
		free_block(w, b);
	/* Free in C only: D still needs them, and then F's flight is not over either. */
	assert_int_equal(space_alloc_data(&w->sp, 1, &b, &n), -ENOSPC);
	assert_int_equal(space_pending(&w->sp), 100);
	freeze(w);
	assert_int_equal(space_alloc_data(&w->sp, 1, &b, &n), -ENOSPC);
	durable(w, false);
	assert_int_equal(space_allocatable(&w->sp), 100);
	drain(w);
	/* (G3) Allocated and freed in the same generation, named by a record: quarantined until that one is on disk. */
	for (b = 100; b < 200; b++)
		if (!(w->state[b] & META))
			free_block(w, b);
	n = space_pending(&w->sp);
	assert_true(n > 0);
	assert_int_equal(space_allocatable(&w->sp), 0);
	freeze(w);
	assert_int_equal(space_allocatable(&w->sp), 0);
	assert_int_equal(space_pending(&w->sp), n);
	durable(w, false);
	assert_int_equal(space_allocatable(&w->sp), n);
	drain(w);
	world_free(w);
}

static void test_space__pool_gives_pages_again_at_once(void **state)
{
	struct world *w = world_new(1000);
	block_t a, b;

	(void)state;
	assert_int_equal(space_alloc_meta(&w->sp, &a), 0);
	took(w, a, 1, true);
	free_block(w, a);
	assert_int_equal(space_alloc_meta(&w->sp, &b), 0);
	assert_int_equal(a, b);
	w->state[b] &= (uint8_t)~POOL;
	free_block(w, b);
	/* What is in the pool at the cut is free in F, but its checksum is still being written. */
	freeze(w);
	assert_int_equal(w->sp.pool_count, 0);
	assert_false(is_free(w, b));
	drain(w);
	durable(w, false);
	assert_true(is_free(w, b));
	drain(w);
	world_free(w);
}

static void test_space__everything_allocatable_can_be_had(void **state)
{
	unsigned round;

	(void)state;
	for (round = 0; round < 40; round++) {
		struct world *w = world_new(200 + rnd(4000));
		unsigned i;

		for (i = 0; i < 3; i++) {
			drain(w);
			free_some(w, 1 + rnd(6));
			checkpoint(w);
			checkpoint(w);
		}
		if (round % 2)
			(void)alloc_data(w, 3);
		drain(w);
		world_free(w);
	}
}

/* Runs that are given up are found again, also in a group of which the runs had the last free blocks. */
static void test_space__go_low_loses_nothing(void **state)
{
	struct world *w = world_new(900);
	uint64_t n;
	block_t b;

	(void)state;
	assert_int_equal(alloc_data(w, 1), 0);
	assert_int_equal(alloc_meta(w), 0);
	/* All that is free stands in runs now. */
	while (alloc_exact(w, 1) == 0)
		;
	n = space_allocatable(&w->sp);
	assert_true(n > 0);
	space_go_low(&w->sp, 0);
	assert_int_equal(space_allocatable(&w->sp), n);
	assert_int_equal(space_alloc_data(&w->sp, 1, &b, &n), 0);
	took(w, b, n, false);
	drain(w);
	world_free(w);
}

static void test_space__growth_brings_virgin_groups(void **state)
{
	static const uint64_t steps[] = { 1, 63, 100, GROUP_BLOCKS - 664 + 1, 2, 1, 500, GROUP_BLOCKS - 500, 300 };
	struct world *w = world_new(500);
	unsigned i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(steps); i++) {
		drain(w);
		assert_int_equal(map_grow(&w->map, steps[i]), 0);
		assert_int_equal(space_grown(&w->sp), 0);
		know_total(w);
		/* A last group of nothing but slots waits for more. */
		assert_true(w->total == map_blocks(&w->map) || map_blocks(&w->map) - w->total <= SLOTS);
		check_counts(w);
		if (i % 2)
			checkpoint(w);
	}
	drain(w);
	assert_int_equal(w->sp.group_count, 3);
	world_free(w);
}

static void test_space__alloc_exact_is_contiguous_or_nothing(void **state)
{
	struct world *w = world_new(GROUP_BLOCKS + 400);
	block_t b;

	(void)state;
	assert_int_equal(alloc_exact(w, GROUP_BLOCKS), -ENOSPC);        /* longer than any group */
	/* Three pieces: before and behind the copies of the superblocks, and the second group. */
	assert_int_equal(alloc_exact(w, GROUP_BLOCKS - SUPER_COPY - SUPERS), 0);
	assert_int_equal(alloc_exact(w, SUPER_COPY + SUPERS + 398), -ENOSPC);
	assert_int_equal(alloc_exact(w, SUPER_COPY + SUPERS + 397), 0);
	assert_int_equal(alloc_exact(w, SUPER_COPY - SUPERS - SLOTS), 0);
	assert_int_equal(space_allocatable(&w->sp), 0);
	for (b = 1000; b < 1100; b += 2)
		free_block(w, b);
	checkpoint(w);
	checkpoint(w);
	assert_int_equal(alloc_exact(w, 2), -ENOSPC);
	assert_int_equal(alloc_exact(w, 1), 0);
	check_counts(w);
	drain(w);
	world_free(w);
}

static void test_space__pins_hold_what_a_reader_sees(void **state)
{
	struct world *w = world_new(2000);
	unsigned i;

	(void)state;
	(void)alloc_data(w, 300);
	(void)alloc_data(w, 300);
	checkpoint(w);
	for (i = 0; i < 6; i++) {
		free_some(w, 3);
		(void)alloc_data(w, 50);
		freeze(w);
		(void)alloc_meta(w);
		durable(w, true);
		check_counts(w);
	}
	assert_true(w->sp.pinned > 0);
	drain(w);
	/* The reader went away: all of it comes back with the next checkpoint. */
	checkpoint(w);
	assert_int_equal(w->sp.pinned, 0);
	check_counts(w);
	drain(w);
	world_free(w);
}

static void test_space__opening_finds_the_durable_bitmaps(void **state)
{
	struct world *w = world_new(GROUP_BLOCKS + 3000);
	block_t b, free_block_no = 0;

	(void)state;
	while (w->sp.used < GROUP_BLOCKS + 1000)
		(void)alloc_data(w, 512);
	free_some(w, 10);
	checkpoint(w);
	(void)alloc_data(w, 100);       /* lost: no checkpoint has it */
	space_release(&w->sp);
	for (b = 0; b < w->total; b++) {
		w->state[b] = (uint8_t)(w->state[b] & IN_D ? IN_D | (is_fixed(b) ? IN_F : 0) | IN_C : 0);
		if (!w->state[b])
			free_block_no = b;
	}
	memcpy(w->item_c, w->item_d, sizeof w->item_c);
	assert_int_equal(space_init(&w->sp, &w->map, 1000, w->used_d, w->total), 0);
	w->sp.slot_gen = slot_gen;
	w->sp.ctx = w;
	check_counts(w);
	/* What the journal names is claimed before anything is handed out; a claim of what is in use is damage. */
	assert_int_equal(space_claim(&w->sp, free_block_no, 1), 0);
	took(w, free_block_no, 1, false);
	assert_int_equal(space_claim(&w->sp, free_block_no, 1), -EUCLEAN);
	assert_int_equal(space_claim(&w->sp, 0, 1), -EUCLEAN);
	assert_int_equal(space_claim(&w->sp, GROUP_BLOCKS + 1, 1), -EUCLEAN);
	assert_int_equal(space_claim(&w->sp, w->total - 1, 2), -EUCLEAN);
	assert_int_equal(space_claim(&w->sp, ~0ull, 2), -EUCLEAN);
	check_counts(w);
	drain(w);
	checkpoint(w);
	/* A bitmap whose checksum does not match is damage, not an empty group. */
	space_release(&w->sp);
	assert_int_equal(space_init(&w->sp, &w->map, 2000, w->used_d, w->total), 0);
	w->sp.slot_gen = slot_gen;
	w->sp.ctx = w;
	for (b = 2; b < 2 + SLOTS; b++)
		((uint8_t *)map_block(&w->map, b))[SLOT_BITS + 100] ^= 1;
	assert_int_equal(space_free_data(&w->sp, 50, 1, 1), -EUCLEAN);
	world_free(w);
}

static void test_space__freeing_what_is_free_is_damage(void **state)
{
	struct world *w = world_new(GROUP_BLOCKS + 100);

	(void)state;
	assert_int_equal(space_free_data(&w->sp, 50, 1, 0), -EUCLEAN);
	assert_int_equal(space_free_data(&w->sp, 2, 1, 0), -EUCLEAN);
	assert_int_equal(space_free_data(&w->sp, GROUP_BLOCKS, 1, 0), -EUCLEAN);
	assert_int_equal(space_free_data(&w->sp, GROUP_BLOCKS - 2, 4, 0), -EUCLEAN);
	assert_int_equal(space_free_data(&w->sp, w->total, 1, 0), -EUCLEAN);
	assert_int_equal(space_free_data(&w->sp, 50, 0, 0), -EUCLEAN);
	assert_false(space_valid_range(&w->sp, 10, ~0ull));
	assert_true(space_valid_range(&w->sp, 5, SUPER_COPY - 5));
	assert_false(space_valid_range(&w->sp, 5, SUPER_COPY - 4));
	assert_false(space_valid_range(&w->sp, SUPER_COPY + 1, 2));
	assert_true(space_valid_range(&w->sp, SUPER_COPY + SUPERS, GROUP_BLOCKS - SUPER_COPY - SUPERS));
	world_free(w);
}

static void test_space__cut_forgets_the_end(void **state)
{
	struct world *w = world_new(2 * GROUP_BLOCKS + 5000);
	block_t b, end, keep = 9000;
	uint64_t g;

	(void)state;
	while (w->sp.used < w->total - 3000)
		(void)alloc_data(w, 512);
	checkpoint(w);
	for (b = 4000; b < w->total; b++)
		if (!is_fixed(b) && w->state[b] & IN_C)
			free_block(w, b);
	assert_int_equal(space_high_water(&w->sp, &end), 0);
	assert_true(end > 2 * GROUP_BLOCKS);    /* D still has it */
	checkpoint(w);
	checkpoint(w);
	assert_int_equal(space_high_water(&w->sp, &end), 0);
	assert_int_equal(end, 4000);
	space_cut(&w->sp, keep);
	w->total = keep;
	check_counts(w);
	for (g = 1; g < GROUPS_MAX; g++)
		w->item_c[g] = 0;
	checkpoint(w);
	assert_int_equal(map_shrink(&w->map, keep), 0);
	drain(w);
	/* It grows again: the groups that come are virgin. */
	assert_int_equal(map_grow(&w->map, GROUP_BLOCKS), 0);
	assert_int_equal(space_grown(&w->sp), 0);
	know_total(w);
	check_counts(w);
	drain(w);
	checkpoint(w);
	check_counts(w);
	world_free(w);
}

/* What is staged keeps the end of the file, and stays staged over checkpoints. */
static void test_space__staged_blocks_keep_the_end(void **state)
{
	struct world *w = world_new(3000);
	uint64_t n;
	block_t b, end;

	(void)state;
	while (alloc_data(w, 512) == 0)
		;
	free_some(w, 1);
	checkpoint(w);
	checkpoint(w);
	do {
		assert_int_equal(space_stage(&w->sp, 512, &b, &n), 0);
		if (b + n < w->total)
			assert_int_equal(space_drop_staged(&w->sp, b, n), 0);
	} while (b + n < w->total);
	assert_int_equal(w->sp.staged, n);
	checkpoint(w);
	assert_int_equal(space_high_water(&w->sp, &end), 0);
	assert_int_equal(end, w->total);
	assert_int_equal(space_drop_staged(&w->sp, b, n), 0);
	assert_int_equal(space_high_water(&w->sp, &end), 0);
	assert_true(end < w->total);
	check_counts(w);
	world_free(w);
}

/* What is written past the mapping is faulted in by nobody; a few blocks are, and so is the rest. */
static void test_space__bulk_is_not_faulted_in(void **state)
{
	struct world *w = world_new(20000);
	struct space_run bulk, run;
	unsigned runs = 0;
	uint64_t n;
	block_t b;

	(void)state;
	assert_int_equal(space_alloc_bulk(&w->sp, 200, &b, &n), 0);
	assert_int_equal(n, 200);
	bulk = (struct space_run){ b, b + RUN_BLOCKS };
	took(w, b, n, false);
	assert_int_equal(space_alloc_data(&w->sp, 200, &b, &n), 0);
	took(w, b, n, false);
	assert_true(b >= bulk.end || b + n <= bulk.next);
	assert_int_equal(space_alloc_bulk(&w->sp, SPACE_BULK_MIN - 1, &b, &n), 0);
	took(w, b, n, false);
	assert_true(b >= bulk.end || b + n <= bulk.next);
	assert_int_equal(alloc_meta(w), 0);
	for (; space_take_run(&w->sp, &run); runs++) {
		assert_true(run.next >= w->sp.run[SPACE_BULK][1].end || run.end <= w->sp.run[SPACE_BULK][1].next);
		assert_true(run.next >= w->sp.run[SPACE_BULK][0].end || run.end <= w->sp.run[SPACE_BULK][0].next);
	}
	assert_int_equal(runs, 2);
	check_runs(w);
	world_free(w);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_space__bulk_is_not_faulted_in),
	cmocka_unit_test(test_space__random_against_model),
	cmocka_unit_test(test_space__freed_block_waits_for_its_checkpoint),
	cmocka_unit_test(test_space__pool_gives_pages_again_at_once),
	cmocka_unit_test(test_space__everything_allocatable_can_be_had),
	cmocka_unit_test(test_space__go_low_loses_nothing),
	cmocka_unit_test(test_space__growth_brings_virgin_groups),
	cmocka_unit_test(test_space__alloc_exact_is_contiguous_or_nothing),
	cmocka_unit_test(test_space__pins_hold_what_a_reader_sees),
	cmocka_unit_test(test_space__opening_finds_the_durable_bitmaps),
	cmocka_unit_test(test_space__freeing_what_is_free_is_damage),
	cmocka_unit_test(test_space__cut_forgets_the_end),
	cmocka_unit_test(test_space__staged_blocks_keep_the_end),
};

int main(void)
{
	return cmocka_run_group_tests_name("space", tests, NULL, NULL);
}
