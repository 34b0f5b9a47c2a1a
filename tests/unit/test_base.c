/* SPDX-License-Identifier: MIT
 *
 * test_base: ranges of bits, against one bit at a time.
 *
 *   SEED=n   replays the random ranges
 */
#include "tests/unit/random_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base.h"

#define BITS 640u

static uint64_t map[BITS / 64], want[BITS / 64];

static void one_range(uint64_t i, uint64_t count)
{
	uint64_t set = 0, first = 0, got = 0, b;

	for (b = i; b < i + count; b++) {
		if (!bit_get(want, b))
			continue;
		if (set++ == 0)
			first = b;
	}
	assert_int_equal(bit_any(map, i, count), set > 0);
	for (b = i; b < i + count; b++)
		bit_set(want, b);
	assert_int_equal(bit_set_range(map, i, count, &got), set);
	assert_int_equal(got, first);
	assert_memory_equal(map, want, sizeof map);
}

static void test_base__ranges_of_bits(void **state)
{
	unsigned round, n;

	(void)state;
	for (round = 0; round < 2000; round++) {
		memset(map, 0, sizeof map);
		memset(want, 0, sizeof want);
		for (n = 0; n < 8; n++) {
			uint64_t i = rnd(BITS), count = rnd((uint32_t)min_u64(BITS - i, round % 2 ? 70 : BITS) + 1);

			one_range(i, count);
		}
	}
	memset(map, 0, sizeof map);
	memset(want, 0, sizeof want);
	one_range(0, BITS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base__ranges_of_bits),
	};

	(void)random_seed();
	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
