/* SPDX-License-Identifier: MIT
 *
 * test_link: a primary and a replica meet on a link: who streams, who is refused and why, versions and features, epochs that
 * are too low, and all of it with little memory.
 */
#include "tests/unit/ends_util.h"
#include "tests/unit/ok_util.h"

#include <stdlib.h>

/* Every allocation of the engines goes through these (the linker is told so): the one with number fail_at fails. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);

static bool counting;
static unsigned allocations, fail_at;

static bool fails(void)
{
	return counting && ++allocations == fail_at;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
	return fails() ? NULL : __real_realloc(p, size);
}

static void test_link__streams(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	struct primary_peer_status s;

	(void)state;
	assert_int_equal(ends_set_up(&po, &ro, 4), 0);
	ends_join(5);
	assert_int_equal(ends_state(), REPLICA_STREAM);
	assert_int_equal(ends.theirs.last, 10);
	assert_int_equal(primary_peer_status(ends.p, 0, 5, &s), 0);
	assert_int_equal(s.state, PEER_STREAMS);
	assert_int_equal(s.applied, 10);
	assert_int_equal(s.durable, 4);
	assert_int_equal(s.lag_seq, 0);
	ends_tear_down();
}

/* What does not fit would not the next time either: the diff that follows is asked for once. */
static void test_link__change_that_does_not_fit(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	unsigned i;

	(void)state;
	for (i = 0; i < 2; i++) {
		assert_int_equal(ends_set_up(&po, &ro, 4), 0);
		ends.unfit = true;
		ends_join(5);
		assert_true(ends.closed_r);
		primary_closed(ends.p, 1, 5);
		ends.closed_p = ends.closed_r = false;
		ends.np = ends.nr = 0;
		ends_join(6);
		assert_int_equal(ends_state(), REPLICA_DIFF);
		assert_int_equal(ends.diffs, 1);
		/* It may be promoted meanwhile, if that diff does not come: it has a whole state. */
		if (i == 1) {
			replica_closed(ends.r, 1, 7);
			assert_int_equal(replica_promote(ends.r, 7), 0);
		} else {
			ends.theirs.last = 10;
			ends.unfit = false;
			replica_diff_done(ends.r, 1, 10, 7);
			ends_carry(7);
			assert_int_equal(ends_state(), REPLICA_STREAM);
			assert_int_equal(ends.diffs, 1);
		}
		ends_tear_down();
	}
}

/* Who speaks version 2, with more in its hello, a feature of its own, and an unknown message that may be skipped. */
static void test_link__newer_and_older(void **state)
{
	struct primary_options po = ends_primary();
	struct replica_options ro = ends_replica();
	uint8_t extra[256];
	unsigned side;

	(void)state;
	for (side = 0; side < 2; side++) {
		po.version = side ? 2 : 1;
		ro.version = side ? 1 : 2;
		po.features = side ? 3 : 1;
		ro.features = side ? 1 : 3;
		assert_int_equal(ends_set_up(&po, &ro, 10), 0);
		assert_int_equal(primary_opened(ends.p, 1, 0, 0), 0);
		assert_int_equal(replica_opened(ends.r, 1, 0), 0);
		memcpy(extra, ends.to_p[0].bytes, ends.to_p[0].len);
		memcpy(extra + ends.to_p[0].len, "more", 4);
		/* What is behind a hello counts only if it is newer than we are. */
		assert_int_equal(primary_frame(ends.p, 1, MSG_HELLO, extra, ends.to_p[0].len + 4, 0), side ? -EPROTO : 0);
		if (side == 1)
			assert_int_equal(primary_frame(ends.p, 1, MSG_HELLO, extra, ends.to_p[0].len, 0), 0);
		ends.np = 0;
		memcpy(extra, ends.to_r[0].bytes, ends.to_r[0].len);
		memcpy(extra + ends.to_r[0].len, "more", 4);
		if (side == 1)
			assert_int_equal(replica_frame(ends.r, 1, MSG_WELCOME, extra, ends.to_r[0].len + 4, 0), 0);
		else
			assert_int_equal(replica_frame(ends.r, 1, MSG_WELCOME, extra, ends.to_r[0].len, 0), 0);
		assert_int_equal(ends_state(), REPLICA_STREAM);
		assert_int_equal(primary_frame(ends.p, 1, 0x1ff, NULL, 0, 0), -EOPNOTSUPP);
		assert_int_equal(replica_frame(ends.r, 1, 0x1ff, NULL, 0, 0), -EOPNOTSUPP);
		ends_tear_down();
	}
	/* A feature that one needs and the other has not. */
	ro.version = 2;
	ro.features = 3;
	ro.required = 2;
	po.version = po.features = 1;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	ends_join(0);
	assert_true(ends.closed_p);
	assert_non_null(strstr(ends.note, "feature"));
	ends_tear_down();
}

static void test_link__refusals(void **state)
{
	static const uint64_t strange[][3] = { { 1, 1, 5 } };
	const struct primary_options po = ends_primary();
	struct replica_options ro = ends_replica();

	(void)state;
	memset(ro.cluster, 9, 16);
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	ends_join(0);
	assert_non_null(strstr(ends.note, "another cluster"));
	ends_tear_down();

	memset(ro.cluster, 1, 16);
	memset(ro.store, 2, 16);
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	ends_join(0);
	assert_non_null(strstr(ends.note, "copy of this one"));
	ends_tear_down();

	/* Not empty, and of no cluster: only if told so. */
	memset(ro.store, 3, 16);
	memset(ro.cluster, 0, 16);
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	ends.theirs = ends_history(1, strange, 10);
	ends_join(0);
	assert_non_null(strstr(ends.note, "not empty"));
	ends_tear_down();
	ro.flags = HELLO_REPLACE;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	ends.theirs = ends_history(1, strange, 10);
	ends_join(0);
	assert_int_equal(ends_state(), REPLICA_ASIDE);
	assert_int_equal(ends.asides, 1);
	replica_aside_done(ends.r, 0, 0);
	assert_int_equal(ends_state(), REPLICA_DIFF);
	ends_tear_down();

	/* It would have to forget what it knows to be committed. */
	memset(ro.cluster, 1, 16);
	ro.flags = 0;
	ro.committed = 12;
	assert_int_equal(ends_set_up(&po, &ro, 15), 0);
	ends_join(0);
	assert_non_null(strstr(ends.note, "committed"));
	assert_int_equal(ends.asides, 0);
	ends_tear_down();
}

/* (R1) Who has promised a higher epoch does not obey, whatever the other side thinks of it. */
static void test_link__lower_epoch(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	struct msg_fenced m;
	unsigned i;

	(void)state;
	assert_int_equal(ends_set_up(&po, &ro, 4), 0);
	assert_int_equal(primary_opened(ends.p, 1, 0, 0), 0);
	assert_int_equal(replica_opened(ends.r, 1, 0), 0);
	assert_int_equal(primary_frame(ends.p, 1, MSG_HELLO, ends.to_p[0].bytes, ends.to_p[0].len, 0), 0);
	replica_promised(ends.r, 0x100000);
	ends.np = 0;
	assert_int_equal(replica_frame(ends.r, 1, MSG_WELCOME, ends.to_r[0].bytes, ends.to_r[0].len, 0), -ESTALE);
	assert_int_equal(ends.np, 1);
	assert_int_equal(ends.to_p[0].type, MSG_FENCED);
	assert_int_equal(msg_get_fenced(ends.to_p[0].bytes, ends.to_p[0].len, &m), 0);
	assert_int_equal(m.promised, 0x100000);
	/* And when the promise comes after the welcome: nothing more of the old stream. */
	ends_tear_down();
	assert_int_equal(ends_set_up(&po, &ro, 4), 0);
	ends_join(0);
	ends.ours.last = 11;
	primary_committed(ends.p, 11, 1100, 0);
	primary_tick(ends.p, 200);
	(void)primary_pump(ends.p, 200);
	assert_true(ends.nr >= 2);
	replica_promised(ends.r, 0x100000);
	for (i = 0; i < ends.nr; i++)
		assert_int_equal(replica_frame(ends.r, 1, ends.to_r[i].type, ends.to_r[i].bytes, ends.to_r[i].len, 200), -ESTALE);
	assert_int_equal(ends.theirs.last, 10);
	ends_tear_down();
}

/* But not the word of somebody of whom nothing is known yet. */
static void test_link__fenced_before_the_hello(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	uint8_t buf[64];
	struct wire_writer w = wire_writer(buf, sizeof buf);

	(void)state;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	assert_int_equal(primary_opened(ends.p, 1, 0, 0), 0);
	msg_put_fenced(&w, &(struct msg_fenced){ 0x100000, NULL, 0 });
	assert_int_equal(primary_frame(ends.p, 1, MSG_FENCED, buf, (uint32_t)wire_used(&w), 0), -EPROTO);
	assert_int_equal(ends.fenced, 0);
	assert_int_equal(primary_state(ends.p), PRIMARY_LEADS);
	ends_tear_down();
}

/* A promise that is newer than the primary ends it; it says so to all. */
static void test_link__fenced(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();

	(void)state;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	replica_promised(ends.r, 0x100000);
	ends_join(0);
	assert_int_equal(ends.fenced, 0x100000);
	assert_int_equal(primary_state(ends.p), PRIMARY_OFF);
	assert_int_equal(ends_state(), REPLICA_DOWN);
	ends_tear_down();
}

/* Everything that was allocated once fails once; nothing breaks, and with memory again it works. */
static void test_memory__little(void **state)
{
	const struct primary_options po = ends_primary();
	struct replica_options ro = ends_replica();
	unsigned n, most = 0;

	(void)state;
	ro.flags = HELLO_FEEDS;
	for (n = 1; n == 1 || n <= most + 1; n++) {
		const struct replica_call c = { .cookie = 1, .bytes = (const uint8_t *)"op", .len = 2 };

		allocations = 0;
		fail_at = n;
		counting = true;
		if (ends_set_up(&po, &ro, 4) == 0 && primary_opened(ends.p, 1, 0, 0) == 0 && replica_opened(ends.r, 1, 0) == 0) {
			ends_carry(0);
			replica_hold(ends.r, 5, false);
			replica_hold(ends.r, 6, true);
			(void)replica_call(ends.r, &c, 0);
			replica_client(ends.r, 9, 1, 1, false, (const uint8_t *)"l", 1);
			ends_carry(0);
			/* What could not be noted is held all the same. */
			counting = false;
			ends_carry(0);
			if (ends_state() == REPLICA_STREAM && !ends.closed_p)
				assert_false(ends_may_mark(5, 3, 5000));
		}
		if (allocations > most)
			most = allocations;
		counting = false;
		ends_tear_down();
		memset(&ends, 0, sizeof ends);
	}
	assert_true(most > 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_link__streams),
		cmocka_unit_test(test_link__change_that_does_not_fit),
		cmocka_unit_test(test_link__newer_and_older),
		cmocka_unit_test(test_link__refusals),
		cmocka_unit_test(test_link__lower_epoch),
	cmocka_unit_test(test_link__fenced_before_the_hello),
	cmocka_unit_test(test_link__fenced),
		cmocka_unit_test(test_memory__little),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
