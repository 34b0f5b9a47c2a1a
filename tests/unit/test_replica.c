/* SPDX-License-Identifier: MIT
 *
 * test_replica: what a replica asks of its primary: calls and the window of calls, fsyncs and whose disks they wait for, how
 * stale reads may be; and a switch-over with fsyncs under way.
 */
#include "tests/unit/ends_util.h"
#include "tests/unit/ok_util.h"

/* At most 32 calls are out; the next ones go when the lowest is answered. */
static void test_calls__window(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	unsigned i;

	(void)state;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	ends_join(0);
	ends_calls(100, 0, 0);
	ends_carry(0);
	assert_int_equal(ends.runs, 32);
	for (i = 1; i < 32; i++)
		ends_result(i, 0, false, 0);
	ends_carry(0);
	assert_int_equal(ends.answers, 31);
	assert_int_equal(ends.runs, 32);
	ends_result(0, -EEXIST, false, 0);
	ends_carry(0);
	assert_int_equal(ends.answers, 32);
	assert_int_equal(ends.error, -EEXIST);
	assert_int_equal(ends.runs, 64);
	assert_int_equal(ends.run[63].request, 64);
	assert_false(ends.closed_p);
	ends_tear_down();
}

/* Too much, out of order, below the lowest, of others: the peer is dropped or the call is skipped. */
static void test_calls__hostile(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	static const struct {
		struct msg_call c;
		int r;
	} tries[] = {
		{ { 1, 5, 1, 2, 1, NULL, 0, 1 }, 0 },
		{ { 1, 5, 1, 2, 1, NULL, 0, 1 }, -EPROTO },        /* again */
		{ { 1, 5, 1, 1, 1, NULL, 0, 1 }, -EPROTO },        /* backwards */
		{ { 1, 6, 1, 3, 1, NULL, 0, 1 }, 0 },              /* not its client */
		{ { 1, 5, 0, 3, 1, NULL, 0, 1 }, 0 },              /* an old session */
		{ { 0, 5, 1, 3, 1, NULL, 0, 1 }, -ESTALE },        /* an old epoch */
	};
	uint8_t buf[64];
	unsigned i;

	(void)state;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	ends_join(0);
	for (i = 0; i < ARRAY_LEN(tries); i++) {
		struct wire_writer w = wire_writer(buf, sizeof buf);

		msg_put_call(&w, &tries[i].c);
		assert_int_equal(primary_frame(ends.p, 1, MSG_CALL, buf, (uint32_t)wire_used(&w), 0), tries[i].r);
	}
	assert_int_equal(ends.runs, 1);
	ends_tear_down();
}

static void test_calls__policies(void **state)
{
	const struct primary_options po = ends_primary();
	struct replica_options ro = ends_replica();
	const struct replica_call c = { .cookie = 1, .bytes = (const uint8_t *)"op", .len = 2 };

	(void)state;
	ro.policy = REPLICA_READONLY;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	assert_int_equal(replica_call(ends.r, &c, 0), -EROFS);
	ends_tear_down();
	ro.policy = REPLICA_ERROR;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	assert_int_equal(replica_call(ends.r, &c, 0), -EIO);
	ends_join(0);
	/* With a stream it is taken; if the link is lost then, nobody knows. */
	assert_int_equal(replica_call(ends.r, &c, 0), 0);
	ends_carry(0);
	replica_closed(ends.r, 1, 1);
	replica_tick(ends.r, 2);
	assert_int_equal(ends.answers, 1);
	assert_int_equal(ends.error, -EIO);
	ends_tear_down();
	/* Never sent: it was not done, which is EROFS; and not before the patience is over. */
	ro.policy = REPLICA_WAIT;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	assert_int_equal(replica_call(ends.r, &c, 0), 0);
	replica_tick(ends.r, 999);
	assert_int_equal(ends.answers, 0);
	replica_tick(ends.r, 1000);
	assert_int_equal(ends.answers, 1);
	assert_int_equal(ends.error, -EROFS);
	/* An interrupt. */
	assert_int_equal(replica_call(ends.r, &c, 1000), 0);
	assert_true(replica_cancel(ends.r, 1));
	assert_int_equal(ends.error, -EINTR);
	assert_false(replica_cancel(ends.r, 1));
	ends_tear_down();
}

static void test_calls__read_only_key(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();

	(void)state;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	assert_int_equal(primary_opened(ends.p, 1, PRIMARY_PEER_READ_ONLY, 0), 0);
	assert_int_equal(replica_opened(ends.r, 1, 0), 0);
	ends_carry(0);
	ends_calls(1, REPLICA_CALL_WRITE, 0);
	ends_carry(0);
	assert_int_equal(ends.runs, 0);
	assert_int_equal(ends.answers, 1);
	assert_int_equal(ends.error, -EROFS);
	ends_tear_down();
}

/* An fsync waits for as many disks as was asked for; too long is EIO, never success. */
static void test_sync__waits_for_replicas(void **state)
{
	struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();

	(void)state;
	po.sync_replicas = 1;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	/* Its disk has less than the primary's. */
	ends.ours.last = 11;
	primary_committed(ends.p, 11, 1100, 0);
	primary_durable(ends.p, 11);
	ends_join(0);
	ends_calls(1, REPLICA_CALL_SYNC, 0);
	ends_carry(0);
	primary_result(ends.p, 5, 1, ends.run[0].token, &(struct primary_result){ .sync = true, .seq = 11 }, 0);
	ends_carry(0);
	assert_int_equal(ends.answers, 0);
	replica_durable(ends.r, 11);
	ends_carry(0);
	assert_int_equal(ends.answers, 1);
	assert_int_equal(ends.error, 0);
	assert_int_equal(primary_synced(ends.p), 11);
	/* And once more, with a replica whose disk hangs. */
	ends.ours.last = 12;
	primary_committed(ends.p, 12, 1200, 0);
	primary_durable(ends.p, 12);
	ends_calls(1, REPLICA_CALL_SYNC, 0);
	ends_carry(0);
	primary_result(ends.p, 5, 2, ends.run[1].token, &(struct primary_result){ .sync = true, .seq = 12 }, 0);
	primary_tick(ends.p, 400);
	ends_carry(400);
	assert_int_equal(ends.answers, 1);
	primary_tick(ends.p, 600);
	ends_carry(600);
	assert_int_equal(ends.answers, 2);
	assert_int_equal(ends.error, -EIO);
	ends_tear_down();
}

/* Once for a call, and for the primary's own machine: so many others as it says, whatever the rule for fsync is. */
static void test_sync__counted(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	struct primary_result res = { .sync = true, .seq = 11, .counted = true, .replicas = 1, .wait_ms = 300 };

	(void)state;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	ends.ours.last = 11;
	primary_committed(ends.p, 11, 1100, 0);
	ends_join(0);
	ends_calls(2, REPLICA_CALL_SYNC, 0);
	ends_carry(0);
	assert_int_equal(primary_wait(ends.p, 77, 11, 1, 1000, 0), 0);
	primary_result(ends.p, 5, 1, ends.run[0].token, &res, 0);
	res.replicas = 2;
	primary_result(ends.p, 5, 2, ends.run[1].token, &res, 0);
	replica_durable(ends.r, 11);
	ends_carry(0);
	/* The other has it, our own disk has not. */
	assert_int_equal(ends.answers, 0);
	assert_int_equal(ends.waited, 0);
	primary_durable(ends.p, 11);
	ends_carry(0);
	assert_int_equal(ends.answers, 1);
	assert_int_equal(ends.error, 0);
	assert_int_equal(ends.waited, 77);
	assert_int_equal(ends.waited_error, 0);
	/* Two others there are not. */
	assert_int_equal(primary_wait(ends.p, 78, 11, 2, 1000, 0), 0);
	primary_tick(ends.p, 299);
	ends_carry(299);
	assert_int_equal(ends.answers, 1);
	primary_tick(ends.p, 300);
	ends_carry(300);
	assert_int_equal(ends.answers, 2);
	assert_int_equal(ends.error, -ETIMEDOUT);
	assert_int_equal(ends.waited, 77);
	primary_tick(ends.p, 1000);
	assert_int_equal(ends.waited, 78);
	assert_int_equal(ends.waited_error, -ETIMEDOUT);
	/* Who is no primary any more cannot count. */
	assert_int_equal(primary_wait(ends.p, 79, 11, 2, 1000, 1000), 0);
	primary_off(ends.p, "over", "");
	primary_tick(ends.p, 1001);
	assert_int_equal(ends.waited, 79);
	assert_int_equal(ends.waited_error, -ECANCELED);
	ends_tear_down();
}

/* (R6) */
static void test_sync__after_loss(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	const struct replica_call c = { .cookie = 1, .object = 77, .flags = REPLICA_CALL_SYNC, .bytes = (const uint8_t *)"op", .len = 2 };

	(void)state;
	assert_int_equal(ends_set_up(&po, &ro, 15), 0);
	replica_wrote(ends.r, 77, 12);
	replica_wrote(ends.r, 78, 9);
	ends_join(0);
	assert_int_equal(ends.asides, 1);
	assert_int_equal(replica_sync_check(ends.r, 78), 0);
	assert_int_equal(replica_call(ends.r, &c, 0), -EIO);
	assert_int_equal(replica_call(ends.r, &c, 0), 0);
	assert_int_equal(replica_sync_check(ends.r, 0), -EIO);
	assert_int_equal(replica_sync_check(ends.r, 0), 0);
	ends_tear_down();
}

/* (R8) A machine that slept for long does not do again what it asked for before: what that did may be forgotten. */
static void test_calls__too_old(void **state)
{
	const uint64_t day = 24u * 3600 * 1000;
	const struct primary_options po = ends_primary();
	struct replica_options ro = ends_replica();

	(void)state;
	ro.wait_ms = (uint32_t)day;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	ends_join(0);
	ends_calls(1, 0, 0);
	ends_carry(0);
	assert_int_equal(ends.runs, 1);
	/* A day later it is sent again, */
	primary_closed(ends.p, 1, day);
	replica_closed(ends.r, 1, day);
	ends_join(day);
	assert_int_equal(ends.runs, 2);
	assert_int_equal(ends.answers, 0);
	/* two hours after that no more, though the link was up all the while. One that never was is sent. */
	primary_closed(ends.p, 1, day + 7200000);
	replica_closed(ends.r, 1, day + 7200000);
	ends_calls(1, 0, day + 7200000);
	ends_join(day + 7200000);
	assert_int_equal(ends.answers, 1);
	assert_int_equal(ends.error, -EIO);
	assert_int_equal(ends.runs, 3);
	assert_int_equal(ends.run[2].request, 2);
	ends_tear_down();
}

static void test_reads__max_stale(void **state)
{
	const struct primary_options po = ends_primary();
	struct replica_options ro = ends_replica();

	(void)state;
	ro.max_stale_ms = 300;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	ends_join(1000);
	/* The first position says: this is it. */
	assert_int_equal(replica_stale_ms(ends.r, 1000), 0);
	assert_int_equal(replica_may_read(ends.r, 1300), 0);
	assert_int_equal(replica_may_read(ends.r, 1301), -ESTALE);
	primary_tick(ends.p, 1400);
	ends_carry(1400);
	assert_int_equal(replica_may_read(ends.r, 1700), 0);
	/* A position that was not reached says nothing yet. */
	ends.ours.last = 11;
	primary_committed(ends.p, 11, 1100, 1500);
	primary_tick(ends.p, 1500);
	ends_carry(1500);
	assert_int_equal(replica_stale_ms(ends.r, 1500), 0);
	ends_tear_down();
}

/* With `all`, those count that are in step; who catches up does not hold up the others. */
static void test_sync__all_in_step(void **state)
{
	struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();

	(void)state;
	po.sync_replicas = PRIMARY_SYNC_ALL;
	assert_int_equal(ends_set_up(&po, &ro, 4), 0);
	assert_int_equal(primary_synced(ends.p), 10);
	assert_int_equal(primary_opened(ends.p, 1, 0, 0), 0);
	assert_int_equal(replica_opened(ends.r, 1, 0), 0);
	assert_int_equal(primary_frame(ends.p, 1, ends.to_p[0].type, ends.to_p[0].bytes, ends.to_p[0].len, 0), 0);
	ends.np = 0;
	/* It streams, and has 4 of 10. */
	ends.ours.last = 11;
	primary_committed(ends.p, 11, 1100, 0);
	primary_durable(ends.p, 11);
	assert_int_equal(primary_synced(ends.p), 11);
	ends_carry(0);
	ends.ours.last = 12;
	primary_committed(ends.p, 12, 1200, 0);
	primary_durable(ends.p, 12);
	assert_int_equal(primary_synced(ends.p), 11);
	ends_carry(0);
	assert_int_equal(primary_synced(ends.p), 11);
	replica_durable(ends.r, 12);
	ends_carry(0);
	assert_int_equal(primary_synced(ends.p), 12);
	/* Gone: nobody is waited for. */
	primary_closed(ends.p, 1, 0);
	primary_durable(ends.p, 13);
	assert_int_equal(primary_synced(ends.p), 13);
	ends_tear_down();
}

/* A switch-over waits for fsyncs that wait for disks, but not for disks that are not to be had. */
static void test_switch__lets_syncs_finish(void **state)
{
	struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	uint8_t store[16];
	unsigned replicas;

	(void)state;
	memset(store, 3, sizeof store);
	po.switch_wait_ms = 1000;
	for (replicas = 0; replicas < 3; replicas++) {
		po.sync_replicas = replicas;
		assert_int_equal(ends_set_up(&po, &ro, 10), 0);
		ends_join(0);
		assert_int_equal(primary_switch(ends.p, store, 0), 0);
		ends_carry(0);
		assert_int_equal(ends.hand_next != 0, replicas < 2);
		primary_tick(ends.p, 499);
		assert_int_equal(ends.hand_next != 0, replicas < 2);
		primary_tick(ends.p, 500);
		assert_int_not_equal(ends.hand_next, 0);
		ends_tear_down();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls__window),
		cmocka_unit_test(test_calls__hostile),
		cmocka_unit_test(test_calls__policies),
		cmocka_unit_test(test_calls__read_only_key),
		cmocka_unit_test(test_sync__waits_for_replicas),
		cmocka_unit_test(test_sync__counted),
		cmocka_unit_test(test_sync__after_loss),
		cmocka_unit_test(test_calls__too_old),
		cmocka_unit_test(test_reads__max_stale),
		cmocka_unit_test(test_sync__all_in_step),
		cmocka_unit_test(test_switch__lets_syncs_finish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
