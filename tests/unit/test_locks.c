/* SPDX-License-Identifier: MIT
 *
 * test_locks: the rules of the lock table (core/replica/locks.h), one by one: who waits and who goes first, circles, ranges,
 * statements, the grace period, probes, bounds, the listing.
 */
#include "tests/unit/ok_util.h"
#include "tests/unit/table_util.h"

static void test_locks__fair(void **state)
{
	(void)state;
	assert_int_equal(table_ask(1, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(table_ask(2, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 1);
	/* Who holds nothing waits its turn, though it could have it at once; who does not want to wait gets it. */
	assert_int_equal(table_ask(3, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 1);
	assert_int_equal(table_ask(3, 2, 1, LOCKS_FLOCK, LOCKS_SHARED, false), 0);
	assert_int_equal(table_ask(3, 2, 1, LOCKS_FLOCK, LOCKS_OFF, false), 0);
	/* Who holds something does not stand behind others: nobody would see the circle. */
	assert_int_equal(table_ask(1, 2, 2, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(table_ask(1, 2, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(table_ask(1, 2, 1, LOCKS_FLOCK, LOCKS_OFF, false), 0);
	(void)table_ask(1, 1, 1, LOCKS_FLOCK, LOCKS_OFF, false);
	assert_true(locks_holds(table.locks, 2, 1, 1, LOCKS_FLOCK, NULL));
	assert_false(locks_holds(table.locks, 3, 1, 1, LOCKS_FLOCK, NULL));
	(void)table_ask(2, 1, 1, LOCKS_FLOCK, LOCKS_OFF, false);
	assert_true(locks_holds(table.locks, 3, 1, 1, LOCKS_FLOCK, NULL));
}

static void test_locks__change_of_flock(void **state)
{
	(void)state;
	assert_int_equal(table_ask(1, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(table_ask(2, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(table_ask(1, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 1);
	/* The first one gave its own up when it began to wait: else both would wait for ever. */
	assert_int_equal(table_ask(2, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 0);
	assert_false(locks_holds(table.locks, 1, 1, 1, LOCKS_FLOCK, NULL));
	(void)table_ask(2, 1, 1, LOCKS_FLOCK, LOCKS_OFF, true);
	assert_true(locks_holds(table.locks, 1, 1, 1, LOCKS_FLOCK, NULL));
}

static void test_locks__circle_of_three(void **state)
{
	(void)state;
	for (uint64_t c = 1; c <= 3; c++)
		assert_int_equal(table_ask(c, 1, c, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
	assert_int_equal(table_ask(1, 1, 2, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 1);
	assert_int_equal(table_ask(2, 1, 3, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 1);
	assert_int_equal(table_ask(3, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), -EDEADLK);
	assert_int_equal(table_ask(3, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, false), -EAGAIN);
	locks_expire(table.locks, 3);
	assert_true(locks_holds(table.locks, 2, 3, 1, LOCKS_POSIX, NULL));
}

static void test_locks__ranges_are_one(void **state)
{
	(void)state;
	assert_int_equal(table_ask_range(1, 10, 19, LOCKS_SHARED, true), 0);
	assert_int_equal(table_ask_range(1, 20, 29, LOCKS_SHARED, true), 0);
	table_assert_held(1);
	assert_int_equal(table_ask_range(1, 0, 9, LOCKS_SHARED, true), 0);
	table_assert_held(1);
	assert_int_equal(table_ask_range(1, 5, 6, LOCKS_EXCLUSIVE, true), 0);
	table_assert_held(3);
	assert_int_equal(table_ask_range(1, 5, 6, LOCKS_SHARED, true), 0);
	table_assert_held(1);
	assert_int_equal(table_ask_range(1, 7, LOCKS_END, LOCKS_OFF, true), 0);
	table_assert_held(1);
	assert_int_equal(table_ask_range(2, 7, LOCKS_END, LOCKS_EXCLUSIVE, false), 0);
	assert_int_equal(table_ask_range(2, 6, 6, LOCKS_EXCLUSIVE, false), -EAGAIN);
}

/* What a waiter gets may be less than it had: who waited before it may go then. */
static void test_locks__grant_that_frees(void **state)
{
	(void)state;
	assert_int_equal(table_ask_range(1, 0, 5, LOCKS_EXCLUSIVE, true), 0);
	assert_int_equal(table_ask_range(2, 6, 10, LOCKS_EXCLUSIVE, true), 0);
	assert_int_equal(table_ask_range(3, 0, 3, LOCKS_SHARED, true), 1);
	assert_int_equal(table_ask_range(1, 0, 10, LOCKS_SHARED, true), 1);
	assert_int_equal(table_ask_range(2, 6, 10, LOCKS_OFF, true), 0);
	assert_true(locks_holds(table.locks, 3, 1, 1, LOCKS_POSIX, NULL));
}

static void test_locks__behind_who_expires(void **state)
{
	(void)state;
	assert_int_equal(table_ask(1, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(table_ask(2, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 1);
	assert_int_equal(table_ask(3, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 1);
	locks_expire(table.locks, 2);
	assert_true(locks_holds(table.locks, 3, 1, 1, LOCKS_FLOCK, NULL));
}

/* A client can neither raise the fencing numbers nor state half of what it says. */
static void test_locks__forged_statement(void **state)
{
	static uint8_t buf[LOCKS_STATE_MAX];
	char text[1024];
	size_t len;

	(void)state;
	assert_int_equal(table_ask(1, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 0);
	assert_int_equal(table_ask(1, 1, 2, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 0);
	len = locks_state(table.locks, 1, 1, "", buf);
	/* The last record's fencing number, then its type. */
	memset(buf + len - 20, 0xff, 16);
	assert_int_equal(locks_restate(table.locks, 1, buf, len, NULL, NULL), 0);
	(void)locks_to_text(table.locks, text, sizeof text);
	assert_non_null(strstr(text, "fence=5.3 "));
	assert_null(strstr(text, "fence=18446744073709551615"));
	buf[len - 57] = 3;
	assert_int_equal(locks_restate(table.locks, 1, buf, len, NULL, NULL), -EPROTO);
	table_assert_held(2);
}

static bool only_inode_2(void *ctx, uint64_t ino)
{
	(*(unsigned *)ctx)++;
	return ino == 2;
}

/* Who may not have a lock there has none, whatever it states, and is told. */
static void test_locks__stated_where_it_may_not(void **state)
{
	static uint8_t buf[LOCKS_STATE_MAX];
	unsigned asked = 0;
	size_t len;

	(void)state;
	assert_int_equal(table_ask(1, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
	assert_int_equal(table_ask(1, 1, 2, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
	len = locks_state(table.locks, 1, 1, "", buf);
	table.lost = 0;
	assert_int_equal(locks_restate(table.locks, 1, buf, len, only_inode_2, &asked), 0);
	assert_int_equal(asked, 2);
	assert_int_equal(table.lost, 1);
	table_assert_held(1);
	assert_int_equal(table_ask(2, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
	assert_int_equal(table_ask(2, 1, 2, LOCKS_POSIX, LOCKS_EXCLUSIVE, false), -EAGAIN);
}

static void test_locks__asked_twice(void **state)
{
	struct lock_op op = { .ticket = 7, .ino = 1, .owner = 1, .end = LOCKS_END, .kind = LOCKS_FLOCK,
			      .type = LOCKS_EXCLUSIVE, .wait = true };
	unsigned held, waiting;
	uint64_t fence;

	(void)state;
	locks_request(table.locks, 1, &op);
	fence = table.last.counter;
	locks_request(table.locks, 1, &op);
	assert_int_equal(table.last.error, 0);
	assert_int_equal(table.last.counter, fence);
	locks_request(table.locks, 2, &op);
	locks_request(table.locks, 2, &op);
	locks_count(table.locks, &held, &waiting);
	assert_int_equal(held, 1);
	assert_int_equal(waiting, 1);
	table.answers = 0;
	locks_expire(table.locks, 1);
	assert_int_equal(table.answers, 1);
}

static void test_locks__grace(void **state)
{
	static uint8_t buf[LOCKS_STATE_MAX];
	size_t len;

	(void)state;
	assert_int_equal(table_ask(1, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
	len = locks_state(table.locks, 1, 3, "one", buf);
	locks_free(table.locks);
	table.locks = locks_new(table_on_answer, table_on_probe, NULL);
	locks_lead(table.locks, 6, 100, true);
	/* Nobody gets anything, whether it wants to wait or not. */
	assert_int_equal(table_ask(2, 1, 1, LOCKS_POSIX, LOCKS_SHARED, false), 1);
	assert_int_equal(table_ask(2, 2, 2, LOCKS_POSIX, LOCKS_SHARED, false), 1);
	assert_int_equal(table_ask(3, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 1);
	assert_int_equal(locks_restate(table.locks, 1, buf, len, NULL, NULL), 0);
	assert_true(locks_holds(table.locks, 1, 1, 1, LOCKS_POSIX, NULL));
	table.answers = 0;
	locks_grace_end(table.locks);
	assert_int_equal(table.answers, 2);
	assert_true(locks_holds(table.locks, 2, 2, 2, LOCKS_POSIX, NULL));
	assert_false(locks_holds(table.locks, 2, 1, 1, LOCKS_POSIX, NULL));
	locks_expire(table.locks, 1);
	assert_true(locks_holds(table.locks, 3, 1, 1, LOCKS_POSIX, NULL));
	/* It comes too late. */
	table.lost = 0;
	assert_int_equal(locks_restate(table.locks, 1, buf, len, NULL, NULL), 0);
	assert_int_equal(table.lost, 1);
	assert_int_equal(table.last.round, 3);
	assert_false(locks_holds(table.locks, 1, 1, 1, LOCKS_POSIX, NULL));
}

/* (L5) What was closed before somebody asked without waiting is not in the way. */
static void test_locks__closed_is_unlocked(void **state)
{
	unsigned held, waiting;

	(void)state;
	assert_int_equal(table_ask(1, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 0);
	/* Who does not answer probes is not asked. */
	assert_int_equal(table_ask(2, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, false), -EAGAIN);
	assert_int_equal(table.probes, 0);
	locks_probes(table.locks, 1, 7);
	assert_int_equal(table_ask(2, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, false), -EAGAIN);
	locks_probes(table.locks, 1, 0);
	locks_probes(table.locks, 2, 0);
	/* It really has it. */
	assert_int_equal(table_ask(2, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, false), 1);
	assert_int_equal(table.probes, 1);
	assert_true(locks_check(table.locks));
	assert_int_equal(locks_probing(table.locks), table.probe[1]);
	locks_probed(table.locks, 1, table.probe[1] - 1);
	locks_probed(table.locks, 1, table.probe[1] + 1);
	locks_probed(table.locks, 3, table.probe[1]);
	assert_int_equal(table.answers, 0);
	locks_probed(table.locks, 1, table.probe[1]);
	assert_int_equal(table.answers, 1);
	assert_int_equal(table.last.error, -EAGAIN);
	assert_int_equal(locks_probing(table.locks), 0);
	/* It was just closing it; two ask, the first one gets it, and the second need not ask him. */
	assert_int_equal(table_ask(2, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, false), 1);
	assert_int_equal(table_ask(3, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, false), 1);
	assert_int_equal(table.probes, 3);
	locks_probes(table.locks, 3, 0);
	assert_int_equal(table_ask(1, 1, 1, LOCKS_FLOCK, LOCKS_OFF, false), -EAGAIN);
	assert_int_equal(table.answers, 3);
	assert_true(locks_holds(table.locks, 2, 1, 1, LOCKS_FLOCK, NULL));
	locks_probed(table.locks, 1, table.probe[1]);
	assert_true(locks_check(table.locks));
	/* Of the same machine; of two who have it together, the answer of both counts. */
	assert_int_equal(table_ask(2, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(table_ask(3, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(table_ask(3, 2, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, false), 1);
	assert_int_equal(table.probe[2], table.probe[3]);
	locks_probed(table.locks, 2, table.probe[2]);
	assert_int_equal(table.answers, 0);
	assert_int_equal(table_ask(2, 1, 1, LOCKS_FLOCK, LOCKS_OFF, false), 0);
	assert_int_equal(table_ask(3, 1, 1, LOCKS_FLOCK, LOCKS_OFF, false), 0);
	assert_true(locks_holds(table.locks, 3, 1, 2, LOCKS_FLOCK, NULL));
	locks_count(table.locks, &held, &waiting);
	assert_int_equal(held, 1);
	assert_int_equal(waiting, 0);
}

/* (L5) Nobody waits for who cannot answer. */
static void test_locks__probes_end(void **state)
{
	unsigned how;

	for (how = 0; how < 4; how++) {
		uint64_t number;

		(void)table_set_up(state);
		assert_int_equal(table_ask(1, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
		locks_probes(table.locks, 1, 0);
		assert_int_equal(table_ask(2, 1, 1, LOCKS_POSIX, LOCKS_SHARED, false), 1);
		number = locks_probing(table.locks);
		/* Who waits for what it has is in no circle with it: it goes on. */
		assert_int_equal(table_ask(2, 1, 2, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
		assert_int_equal(table_ask(1, 1, 2, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 1);
		table.answers = 0;
		if (how == 0)
			locks_leave(table.locks, 1);
		else if (how == 1)
			locks_probe_end(table.locks, number);
		else if (how == 2)
			locks_cancel(table.locks, 2, 2);
		else
			locks_expire(table.locks, 1);
		assert_int_equal(table.answers, 1);
		assert_int_equal(table.last.error, how == 2 ? -EINTR : how == 3 ? 0 : -EAGAIN);
		assert_int_equal(locks_probing(table.locks), 0);
		assert_true(locks_check(table.locks));
		/* With a statement of the client it is asked anew; if it has gone, not before it says that it can be asked. */
		if (how < 2) {
			static uint8_t buf[LOCKS_STATE_MAX];
			size_t len = locks_state(table.locks, 1, 4, "one", buf);

			assert_int_equal(table_ask(2, 1, 1, LOCKS_POSIX, LOCKS_SHARED, false), how == 1 ? 1 : -EAGAIN);
			number = table.probe[1];
			table.answers = 0;
			assert_int_equal(locks_restate(table.locks, 1, buf, len, NULL, NULL), 0);
			assert_int_equal(table.answers, 0);
			assert_int_equal(table.probe[1] > number, how == 1);
			assert_int_equal(table.probe_round, how == 1 ? 4 : 0);
			locks_probed(table.locks, 1, table.probe[1]);
			assert_int_equal(table.answers, how == 1);
			locks_probes(table.locks, 1, 0);
			assert_int_equal(table_ask(3, 1, 1, LOCKS_POSIX, LOCKS_SHARED, false), how == 1 ? 1 : -EAGAIN);
			locks_probe_end(table.locks, locks_probing(table.locks));
			number = table.probe[1];
		}
		/* Numbers of another primary are older than any of ours. */
		locks_follow(table.locks, 9);
		locks_lead(table.locks, 6, number + 100, false);
		assert_int_equal(table_ask(1, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
		locks_probes(table.locks, 1, 0);
		table.probe[1] = 0;
		assert_int_equal(table_ask(3, 1, 1, LOCKS_POSIX, LOCKS_SHARED, false), 1);
		assert_true(table.probe[1] > number + 100);
		(void)table_tear_down(state);
	}
}

static void test_locks__bounds(void **state)
{
	struct lock_op op = { .ino = 1, .owner = 1, .kind = LOCKS_POSIX, .type = LOCKS_SHARED };
	unsigned held, waiting;
	uint64_t i;

	(void)state;
	for (i = 0; i < LOCKS_CLIENT_MAX + 1; i++) {
		op.ticket = i + 1;
		op.ino = i % 1000 + 1;
		op.start = op.end = 2 * i;
		locks_request(table.locks, 1, &op);
		assert_int_equal(table.last.error, i < LOCKS_CLIENT_MAX ? 0 : -ENOLCK);
	}
	op.type = LOCKS_OFF;
	op.ino = 1;
	op.start = 0;
	op.end = LOCKS_END;
	locks_request(table.locks, 1, &op);
	assert_int_equal(table.last.error, 0);
	assert_int_equal(table_ask(2, 1, 5000, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 0);
	for (i = 0; i < LOCKS_WAIT_MAX + 1; i++)
		assert_int_equal(table_ask(3, i + 10, 5000, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), i < LOCKS_WAIT_MAX ? 1 : -ENOLCK);
	locks_count(table.locks, &held, &waiting);
	assert_int_equal(waiting, LOCKS_WAIT_MAX);
	locks_expire(table.locks, 3);
	locks_expire(table.locks, 1);
	locks_count(table.locks, &held, &waiting);
	assert_int_equal(held, 1);
	assert_int_equal(waiting, 0);
}

static void test_locks__handle(void **state)
{
	struct lock_op op = { .ticket = 1, .ino = 1, .owner = 5, .handle = 9, .end = 3, .kind = LOCKS_POSIX, .type = LOCKS_SHARED };
	uint64_t owner = 0;

	(void)state;
	locks_request(table.locks, 1, &op);
	assert_false(locks_of_handle(table.locks, 1, 1, 8, &owner));
	assert_true(locks_of_handle(table.locks, 1, 1, 9, &owner));
	assert_int_equal(owner, 5);
}

static void test_locks__listing(void **state)
{
	char text[1024], few[20];
	size_t len;

	(void)state;
	assert_int_equal(locks_to_text(table.locks, text, sizeof text), 0);
	assert_int_equal(table_ask(1, 1, 12, LOCKS_POSIX, LOCKS_SHARED, true), 0);
	locks_name(table.locks, 1, "a'b\n");
	len = locks_to_text(table.locks, text, sizeof text);
	assert_string_equal(text, "ino=12 kind=posix type=shared range=0-end holder='a?b?' pid=101 fence=5.1 state=held\n");
	assert_int_equal(locks_to_text(table.locks, few, sizeof few), len);
	assert_int_equal(strlen(few), sizeof few - 1);
	assert_int_equal(locks_to_text(table.locks, NULL, 0), len);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TABLE_TEST(test_locks__fair),
		TABLE_TEST(test_locks__change_of_flock),
		TABLE_TEST(test_locks__circle_of_three),
		TABLE_TEST(test_locks__ranges_are_one),
		TABLE_TEST(test_locks__grant_that_frees),
		TABLE_TEST(test_locks__behind_who_expires),
		TABLE_TEST(test_locks__forged_statement),
		TABLE_TEST(test_locks__stated_where_it_may_not),
		TABLE_TEST(test_locks__asked_twice),
		TABLE_TEST(test_locks__grace),
		TABLE_TEST(test_locks__closed_is_unlocked),
		cmocka_unit_test(test_locks__probes_end),
		TABLE_TEST(test_locks__bounds),
		TABLE_TEST(test_locks__handle),
		TABLE_TEST(test_locks__listing),
	};

	return cmocka_run_group_tests_name("locks", tests, NULL, NULL);
}
