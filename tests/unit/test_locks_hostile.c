/* SPDX-License-Identifier: MIT
 *
 * test_locks_hostile: bytes that cannot be, in statements, calls and messages about locks: each is refused, or does what it
 * says, and the table stays whole.
 *
 *   SEED=n   replays it        ROUNDS=n   how long it is
 */
#include "tests/unit/ok_util.h"
#include "tests/unit/random_util.h"
#include "tests/unit/table_util.h"

#include "core/replica/message.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t seed, rounds;

/* Exactly so long, so that the address sanitizer sees the first step outside. */
static uint8_t *exact(const uint8_t *bytes, size_t len)
{
	uint8_t *p = malloc(len ? len : 1);

	assert_non_null(p);
	memcpy(p, bytes, len);
	return p;
}

static void test_locks__hostile_statements(void **state)
{
	static uint8_t buf[LOCKS_STATE_MAX];
	size_t len, i;
	uint8_t *p;

	(void)state;
	assert_int_equal(table_ask(2, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
	for (i = 2; i < 6; i++)
		assert_int_equal(table_ask(1, 1, i, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
	len = locks_state(table.locks, 1, 1, "x", buf);
	for (i = 1; i < len; i++) {
		p = exact(buf, i);
		assert_int_equal(locks_restate(table.locks, 1, p, i, NULL, NULL), -EPROTO);
		free(p);
	}
	assert_true(locks_holds(table.locks, 1, 2, 1, LOCKS_POSIX, NULL));
	for (i = 0; i < rounds; i++) {
		unsigned n = rnd(4) + 1;

		p = exact(buf, len);
		while (n-- > 0)
			p[rnd((uint32_t)len)] = (uint8_t)rnd(256);
		(void)locks_restate(table.locks, 1, p, len, NULL, NULL);
		free(p);
		if (!locks_check(table.locks) || !locks_holds(table.locks, 2, 1, 1, LOCKS_POSIX, NULL))
			fail_msg("SEED=%llu: a statement broke the table", (unsigned long long)seed);
	}
	/* None: it has none. */
	assert_int_equal(locks_restate(table.locks, 1, NULL, 0, NULL, NULL), 0);
	assert_false(locks_holds(table.locks, 1, 2, 1, LOCKS_POSIX, NULL));
}

static void test_locks__hostile_calls(void **state)
{
	const struct lock_op op = { .ticket = 3, .ino = 4, .owner = 5, .start = 6, .end = 7, .pid = 8, .kind = LOCKS_POSIX,
				    .type = LOCKS_SHARED, .wait = true };
	uint8_t buf[LOCK_CALL_SIZE], again[LOCK_CALL_SIZE];
	enum lock_call what;
	struct lock_op got;
	uint64_t i;

	(void)state;
	for (what = LOCK_CALL_SET; what <= LOCK_CALL_PROBED; what++) {
		size_t len = lock_call_encode(what, &op, buf), n;
		enum lock_call is;

		assert_true(lock_call_is(buf, len));
		assert_int_equal(lock_call_decode(buf, len, &is, &got), 0);
		assert_int_equal(is, what);
		assert_int_equal(got.ticket, 3);
		if (what <= LOCK_CALL_GET)
			assert_memory_equal(&got, &op, sizeof op);
		for (n = 0; n < len; n++) {
			uint8_t *p = exact(buf, n);

			assert_int_equal(lock_call_decode(p, n, &is, &got), -EPROTO);
			free(p);
		}
	}
	for (i = 0; i < rounds; i++) {
		size_t len = lock_call_encode(rnd(2) ? LOCK_CALL_SET : LOCK_CALL_GET, &op, buf);

		buf[rnd((uint32_t)len)] = (uint8_t)rnd(256);
		buf[rnd((uint32_t)len)] = (uint8_t)rnd(256);
		if (lock_call_decode(buf, len, &what, &got) < 0)
			continue;
		/* One encoding only. */
		assert_int_equal(lock_call_encode(what, &got, again), len);
		assert_memory_equal(buf, again, len);
		if (what == LOCK_CALL_SET)
			locks_request(table.locks, rnd(TABLE_CLIENTS) + 1, &got);
		else if (what == LOCK_CALL_GET)
			locks_query(table.locks, 1, &got);
		else if (what == LOCK_CALL_PROBES)
			locks_probes(table.locks, rnd(TABLE_CLIENTS) + 1, rnd(2));
		else
			locks_probed(table.locks, rnd(TABLE_CLIENTS) + 1, got.ticket);
	}
	assert_true(locks_check(table.locks));
}

static void test_locks__hostile_messages(void **state)
{
	const struct msg_lock m = { .epoch = 1, .client = 2, .round = 3, .ticket = 4, .error = -11, .kind = LOCKS_FLOCK,
				    .type = LOCKS_SHARED, .pid = 5, .ino = 6, .owner = 7, .start = 0, .end = LOCKS_END,
				    .seq = 8, .fence_epoch = 9, .fence = 10 };
	struct msg_lock got;
	uint8_t buf[128], again[128];
	struct wire_writer ww = wire_writer(buf, sizeof buf);
	size_t len, n;
	uint64_t i;

	(void)state;
	msg_put_lock(&ww, &m);
	len = wire_used(&ww);
	assert_int_equal(msg_get_lock(buf, len, &got), 0);
	assert_int_equal(got.error, -11);
	assert_int_equal(got.fence, 10);
	for (n = 0; n < len; n++) {
		uint8_t *p = exact(buf, n);

		assert_int_equal(msg_get_lock(p, n, &got), -EPROTO);
		free(p);
	}
	for (i = 0; i < rounds; i++) {
		uint8_t *p = exact(buf, len);

		p[rnd((uint32_t)len)] = (uint8_t)rnd(256);
		if (msg_get_lock(p, len, &got) == 0) {
			ww = wire_writer(again, sizeof again);
			msg_put_lock(&ww, &got);
			assert_int_equal(wire_used(&ww), len);
			assert_memory_equal(p, again, len);
			assert_true(got.error <= 0 && got.error > -4096 && got.start <= got.end);
		}
		free(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TABLE_TEST(test_locks__hostile_statements),
		TABLE_TEST(test_locks__hostile_calls),
		cmocka_unit_test(test_locks__hostile_messages),
	};

	seed = random_seed();
	rounds = env_number("ROUNDS", 20000);
	(void)printf("# ROUNDS=%llu\n", (unsigned long long)rounds);
	return cmocka_run_group_tests_name("locks_hostile", tests, NULL, NULL);
}
