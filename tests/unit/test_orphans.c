/* SPDX-License-Identifier: MIT
 *
 * test_orphans: the files without a name that a primary may mark: in order, none too early, none that is held, each once; and what a
 * look at them costs, in questions about holds, whatever waits.
 *
 *   SEED=n   replays the random part        ROUNDS=n   how long it is
 */
#include "tests/unit/random_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base.h"
#include "fs/orphans.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INOS 500u
#define MANY 100000u

static uint64_t rounds;

/* Who is held, by inode, and how often that was asked. */
static bool holds[INOS];
static unsigned asked;

static bool held(void *ctx, uint64_t ino)
{
	(void)ctx;
	asked++;
	return ino < INOS && holds[ino];
}

static uint64_t take(struct orphans *o, seq_t limit)
{
	uint64_t ino = orphans_next(o, limit, held, NULL);

	if (ino != 0)
		orphans_pop(o);
	return ino;
}

static void add(struct orphans *o, uint64_t ino, seq_t seq)
{
	assert_int_equal(orphans_add(o, ino, seq), 0);
}

static void test_orphans__in_order_and_not_before_everybody_knows(void **state)
{
	struct orphans o = { 0 };

	(void)state;
	memset(holds, 0, sizeof holds);
	add(&o, 7, 10);
	add(&o, 3, 10);
	add(&o, 9, 12);
	assert_int_equal(take(&o, 0), 0);
	assert_int_equal(take(&o, 9), 0);
	/* It is the next one until it is taken. */
	assert_int_equal(orphans_next(&o, 11, held, NULL), 7);
	assert_int_equal(take(&o, 11), 7);
	assert_int_equal(take(&o, 11), 3);
	assert_int_equal(take(&o, 11), 0);
	assert_int_equal(take(&o, UINT64_MAX), 9);
	assert_int_equal(take(&o, UINT64_MAX), 0);
	orphans_release(&o);
}

static void test_orphans__one_that_is_held_keeps_nobody(void **state)
{
	struct orphans o = { 0 };

	(void)state;
	memset(holds, 0, sizeof holds);
	holds[3] = true;
	add(&o, 3, 10);
	add(&o, 4, 11);
	assert_int_equal(take(&o, 11), 4);
	holds[3] = false;
	assert_int_equal(take(&o, 11), 0);
	assert_int_equal(orphans_freed(&o, 3, 15), 0);
	assert_int_equal(take(&o, 14), 0);
	assert_int_equal(take(&o, 15), 3);
	/* Of others it is of no use to hear. */
	assert_int_equal(orphans_freed(&o, 3, 16), 0);
	assert_int_equal(orphans_freed(&o, 4, 16), 0);
	assert_int_equal(take(&o, UINT64_MAX), 0);
	orphans_release(&o);
}

/* A frame comes from somebody: each is a look. */
static void test_orphans__a_look_costs_by_what_changed(void **state)
{
	struct orphans o = { 0 };

	(void)state;
	memset(holds, 0, sizeof holds);
	memset(holds, 1, 100);
	asked = 0;
	for (unsigned i = 1; i <= MANY; i++)
		add(&o, i, i);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(take(&o, 0), 0);
	assert_int_equal(asked, 0);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(take(&o, 99), 0);
	assert_int_equal(asked, 99);
	assert_int_equal(orphans_freed(&o, 5, MANY), 0);
	holds[5] = false;
	for (unsigned i = 100; i <= MANY; i++)
		assert_int_equal(take(&o, i), i);
	assert_int_equal(take(&o, MANY), 5);
	assert_int_equal(take(&o, MANY), 0);
	assert_int_equal(asked, MANY + 1);
	orphans_release(&o);
}

/* What the model says of each: since which change it waits; 0: it does not. */
static void test_orphans__as_a_model(void **state)
{
	struct orphans o = { 0 };
	seq_t since[INOS] = { 0 }, seq = 1, limit = 0;
	unsigned waiting = 0, marked = 0;

	(void)state;
	memset(holds, 0, sizeof holds);
	for (uint64_t i = 0; i < rounds; i++) {
		uint64_t ino = 1 + random_below(INOS - 1), got;

		switch (random_below(4)) {
		case 0:
			if (since[ino] == 0) {
				add(&o, ino, seq);
				since[ino] = seq++;
				waiting++;
			}
			break;
		case 1:
			holds[ino] = true;
			break;
		case 2:
			if (holds[ino]) {
				holds[ino] = false;
				assert_int_equal(orphans_freed(&o, ino, seq), 0);
			}
			break;
		default:
			limit = max_u64(limit, random_below(seq + 1));
			while ((got = take(&o, limit)) != 0) {
				assert_in_range(since[got], 1, limit);
				assert_false(holds[got]);
				since[got] = 0;
				waiting--;
				marked++;
			}
		}
	}
	for (uint64_t ino = 1; ino < INOS; ino++) {
		holds[ino] = false;
		assert_int_equal(orphans_freed(&o, ino, seq), 0);
	}
	while (take(&o, seq) != 0)
		waiting--;
	assert_int_equal(waiting, 0);
	assert_true(marked > 0);
	orphans_release(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_orphans__in_order_and_not_before_everybody_knows),
		cmocka_unit_test(test_orphans__one_that_is_held_keeps_nobody),
		cmocka_unit_test(test_orphans__a_look_costs_by_what_changed),
		cmocka_unit_test(test_orphans__as_a_model),
	};

	(void)random_seed();
	rounds = env_number("ROUNDS", 20000);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
