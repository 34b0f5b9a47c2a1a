/* SPDX-License-Identifier: MIT
 *
 * test_relay: a primary that relays what it follows: what it remembers while it pauses, circles, features, locks and held
 * inodes that pass through it.
 */
#include "tests/unit/ends_util.h"
#include "tests/unit/ok_util.h"

static bool any_peer(enum peer_state state)
{
	struct primary_peer_status s;
	unsigned i;

	for (i = 0; primary_peer_status(ends.p, i, 0, &s) == 0; i++)
		if (s.state == state)
			return true;
	return false;
}

static void relay(uint64_t epoch, uint64_t now)
{
	primary_relay(ends.p, epoch, epoch, 10, now);
	primary_committed(ends.p, 10, 1000, now);
}

/* Paused it lets nobody in, and remembers who was there for a lease; in another epoch they are nobody's. */
static void test_relay__pauses(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	seq_t applied = UINT64_MAX, durable = UINT64_MAX;
	uint32_t count;

	(void)state;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	relay(1, 0);
	replica_hold(ends.r, 77, false);
	ends_join(0);
	assert_true(any_peer(PEER_STREAMS));
	assert_int_equal(ends.held_count, 1);
	assert_int_equal(ends.held[0], 77);
	primary_tree(ends.p, &applied, &durable, &count);
	assert_int_equal(applied, 10);
	assert_int_equal(count, 2);
	primary_pause(ends.p, "over");
	assert_true(ends.closed_p);
	assert_true(any_peer(PEER_GONE));
	assert_int_equal(ends.released, 0);
	/* It counts with what it had on disk. */
	applied = durable = UINT64_MAX;
	primary_tree(ends.p, &applied, &durable, &count);
	assert_int_equal(applied, 10);
	/* It comes again, too early. */
	replica_closed(ends.r, 1, 0);
	ends.closed_p = ends.closed_r = false;
	ends.np = ends.nr = 0;
	ends_join(0);
	assert_non_null(strstr(ends.note, "not in step"));
	assert_true(ends.closed_p);
	assert_int_equal(ends.released, 0);
	/* And again. */
	ends.closed_p = ends.closed_r = false;
	ends.np = ends.nr = 0;
	relay(1, 10);
	assert_int_equal(ends.released, 0);
	ends_join(10);
	assert_true(any_peer(PEER_STREAMS));
	assert_false(any_peer(PEER_GONE));
	assert_int_equal(ends.held_count, 1);
	/* A lease after it is gone, it holds nothing. */
	primary_pause(ends.p, "over");
	primary_tick(ends.p, 1009);
	assert_int_equal(ends.released, 0);
	primary_tick(ends.p, 1010);
	assert_int_equal(ends.released, 1);
	ends_tear_down();

	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	relay(1, 0);
	replica_hold(ends.r, 77, false);
	ends_join(0);
	primary_pause(ends.p, "over");
	relay(2, 0);
	assert_false(any_peer(PEER_GONE));
	assert_int_equal(ends.released, 1);
	ends_tear_down();
}

/* Who is followed is not fed. */
static void test_relay__circle(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	uint8_t store[16], got[MSG_PATH_MAX * 16];
	unsigned paused;

	(void)state;
	memset(store, 3, sizeof store);
	for (paused = 0; paused < 2; paused++) {
		assert_int_equal(ends_set_up(&po, &ro, 10), 0);
		assert_int_equal(replica_path(ends.r, got), 0);
		relay(1, 0);
		if (paused)
			primary_pause(ends.p, "over");
		primary_set_path(ends.p, store, 1);
		ends_join(0);
		assert_non_null(strstr(ends.note, "circle"));
		assert_true(ends.closed_p);
		/* The other one knows now whom it asked. */
		assert_int_equal(replica_path(ends.r, got), 1);
		assert_int_equal(got[0], 2);
		/* As a primary it may feed anyone. */
		ends.closed_p = ends.closed_r = false;
		ends.np = ends.nr = 0;
		primary_lead(ends.p, 3, 3, 10, 10, 0);
		ends_join(0);
		assert_false(ends.closed_p);
		ends_tear_down();
	}
}

/* Each says whom it follows, and whom that one does; a circle is told however long it is. An older peer is told as before. */
static void test_relay__long_circle(void **state)
{
	struct primary_options po = ends_primary();
	struct replica_options ro = ends_replica();
	uint8_t stores[MSG_PATH_MAX * 16 + 16], got[MSG_PATH_MAX * 16];
	unsigned i, features;

	(void)state;
	for (i = 0; i <= MSG_PATH_MAX; i++)
		memset(stores + 16 * (size_t)i, (int)(10 + i), 16);
	for (features = 0; features < 4; features++) {
		po.features = (features & 1) != 0 ? MSG_FEATURES : 0;
		ro.features = (features & 2) != 0 ? MSG_FEATURES : 0;
		/* Who is refused for another reason learns of it. */
		assert_int_equal(ends_set_up(&po, &ro, 10), 0);
		primary_off(ends.p, "over", "");
		primary_set_path(ends.p, stores, 3);
		ends_join(0);
		assert_non_null(strstr(ends.note, "not in step"));
		assert_int_equal(replica_path(ends.r, got), features == 3 ? 4 : 1);
		assert_int_equal(got[0], 2);
		assert_true(features < 3 || memcmp(got + 16, stores, 48) == 0);
		/* Up to itself, or where it begins anew. */
		ends.closed_p = ends.closed_r = false;
		ends.np = ends.nr = 0;
		memset(stores + 32, 2, 16);
		primary_set_path(ends.p, stores, 3);
		ends_join(0);
		assert_int_equal(replica_path(ends.r, got), features == 3 ? 3 : 1);
		ends.closed_p = ends.closed_r = false;
		ends.np = ends.nr = 0;
		memset(stores + 32, 3, 16);
		primary_set_path(ends.p, stores, 3);
		ends_join(0);
		assert_non_null(strstr(ends.note, "over 2 others: in a circle"));
		assert_int_equal(replica_path(ends.r, got), features == 3 ? 3 : 1);
		memset(stores + 32, 12, 16);
		/* As much as goes into a message. */
		ends.closed_p = ends.closed_r = false;
		ends.np = ends.nr = 0;
		primary_set_path(ends.p, stores, MSG_PATH_MAX + 1);
		ends_join(0);
		assert_int_equal(replica_path(ends.r, got), features == 3 ? MSG_PATH_MAX : 1);
		ends_tear_down();
	}
}

/* A relay offers what it can pass on. */
static void test_relay__features(void **state)
{
	struct primary_options po = ends_primary();
	struct replica_options ro = ends_replica();
	struct replica_status s;
	unsigned i;

	(void)state;
	po.features = ro.features = MSG_FEATURES;
	for (i = 0; i < 2; i++) {
		assert_int_equal(ends_set_up(&po, &ro, 10), 0);
		primary_set_features(ends.p, MSG_FEATURES_OWN | (i > 0 ? MSG_FEATURE_PROBE | 1ull << 40 : 0));
		relay(1, 0);
		ends_join(0);
		replica_status(ends.r, 0, &s);
		assert_int_equal(s.state, REPLICA_STREAM);
		assert_int_equal(s.features, i > 0 ? MSG_FEATURES : MSG_FEATURES_OWN);
		ends_tear_down();
	}
}

static void test_relay__locks_pass(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	struct msg_lock m = { .client = 5, .ticket = 1, .kind = 1, .type = 1, .ino = 9 };
	uint8_t buf[128];
	struct wire_writer w;

	(void)state;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	relay(1, 0);
	ends_join(0);
	/* Down, to a client that is fed; */
	primary_lock(ends.p, &m);
	ends_carry(0);
	assert_int_equal(ends.lock_of, 5);
	/* and from above, for one that is behind this replica. */
	m.client = 99;
	m.epoch = 1;
	w = wire_writer(buf, sizeof buf);
	msg_put_lock(&w, &m);
	assert_int_equal(replica_frame(ends.r, 1, MSG_LOCK, buf, (uint32_t)wire_used(&w), 0), 0);
	assert_int_equal(ends.lock_of, 99);
	ends_tear_down();
}

/* What those behind it hold is not known yet: so everything is held, until it says otherwise. */
static void test_relay__holds_all_at_first(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();

	(void)state;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	replica_hold_all(ends.r, true);
	ends_join(0);
	assert_false(ends_may_mark(5, 3, 5000));
	replica_tick(ends.r, 5000);
	ends_carry(5000);
	assert_false(ends_may_mark(5, 3, 5000));
	replica_hold_all(ends.r, false);
	replica_tick(ends.r, 5001);
	ends_carry(5001);
	assert_int_equal(ends_state(), REPLICA_STREAM);
	assert_true(ends_may_mark(5, 3, 5001));
	ends_tear_down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_relay__pauses),
		cmocka_unit_test(test_relay__circle),
		cmocka_unit_test(test_relay__long_circle),
		cmocka_unit_test(test_relay__features),
		cmocka_unit_test(test_relay__locks_pass),
		cmocka_unit_test(test_relay__holds_all_at_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
