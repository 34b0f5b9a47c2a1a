/* SPDX-License-Identifier: MIT
 *
 * test_limit_peer: (P7) what the engine of a primary grants a peer whose key is limited: its calls say where they may change
 * something, and its word ends no epoch, counts for no fsync and takes nobody else's place.
 */
#include "tests/unit/ends_util.h"
#include "tests/unit/ok_util.h"

static const uint8_t locks[5] = { 1 };

#define TAG 0x4711u
static const uint64_t limited_client = (uint64_t)TAG << 32 | 5;

static void join_limited(const char *tree, uint64_t now)
{
	assert_int_equal(primary_opened(ends.p, 1, tree ? 0 : PRIMARY_PEER_READ_ONLY, now), 0);
	primary_limit(ends.p, 1, tree, TAG);
	assert_int_equal(replica_opened(ends.r, 1, now), 0);
	ends_carry(now);
}

/* Another link says this hello. 0: it streams; else it is not there. */
static int hello_on(link_t link, const char *tree, uint32_t tag, const struct msg_hello *h)
{
	struct primary_peer_status s;
	struct wire_writer w;
	uint8_t buf[512];
	unsigned i;

	assert_int_equal(primary_opened(ends.p, link, 0, 0), 0);
	if (tag)
		primary_limit(ends.p, link, tree, tag);
	w = wire_writer(buf, sizeof buf);
	msg_put_hello(&w, h);
	assert_int_equal(primary_frame(ends.p, link, MSG_HELLO, buf, (uint32_t)wire_used(&w), 0), 0);
	ends.nr = 0;
	for (i = 0; primary_peer_status(ends.p, i, 0, &s) == 0; i++)
		if (s.link == link)
			return 0;
	return -1;
}

static struct msg_hello plain_hello(uint8_t store, uint64_t client, uint64_t session)
{
	struct msg_hello h = { .version = 1, .version_min = 1, .client = client, .session = session, .low = 1, .epoch = 1, .promised = 1,
			       .durable = 10, .history = ends_history(1, (const uint64_t[][3]){ { 1, 1, 100 } }, 10), .locks = locks, .locks_len = 5 };

	memset(h.cluster, 1, 16);
	memset(h.store, store, 16);
	return h;
}

/* A call says where it may change something, and so does the client; the status shows it. */
static void test_limit__calls_say_it(void **state)
{
	const struct primary_options po = ends_primary();
	struct replica_options ro = ends_replica();
	struct primary_peer_status s;

	(void)state;
	ro.client = limited_client;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	join_limited("/t", 0);
	assert_int_equal(ends.heres, 1);
	assert_string_equal(ends.here.tree, "/t");
	assert_int_equal(ends.here.client, limited_client);
	ends_calls(1, REPLICA_CALL_WRITE, 0);
	ends_carry(0);
	assert_int_equal(ends.runs, 1);
	assert_string_equal(ends.run[0].tree, "/t");
	assert_int_equal(primary_peer_status(ends.p, 0, 0, &s), 0);
	assert_true(s.limited);
	assert_string_equal(s.tree, "/t");
	ends_tear_down();
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	ends_join(0);
	ends_calls(1, REPLICA_CALL_WRITE, 0);
	ends_carry(0);
	assert_null(ends.run[0].tree);
	assert_null(ends.here.tree);
	ends_tear_down();
}

/* A higher epoch, said by whom nobody has to believe: in its hello, in a message, as its last word. */
static void test_limit__ends_no_epoch(void **state)
{
	const struct primary_options po = ends_primary();
	struct replica_options ro = ends_replica();
	uint8_t buf[64];
	struct wire_writer w;
	unsigned i;

	(void)state;
	ro.client = limited_client;
	for (i = 0; i < 2; i++) {
		const char *tree = i ? "/t" : NULL;

		assert_int_equal(ends_set_up(&po, &ro, 10), 0);
		replica_promised(ends.r, 0x100000);
		join_limited(tree, 0);
		assert_int_equal(ends.fenced, 0);
		assert_int_equal(primary_state(ends.p), PRIMARY_LEADS);
		assert_true(ends.closed_p);
		ends_tear_down();
		assert_int_equal(ends_set_up(&po, &ro, 10), 0);
		join_limited(tree, 0);
		w = wire_writer(buf, sizeof buf);
		msg_put_ack(&w, &(struct msg_ack){ 0x100000, 10, 10, 10, 10, 1 });
		assert_int_equal(primary_frame(ends.p, 1, MSG_ACK, buf, (uint32_t)wire_used(&w), 0), -EPROTO);
		w = wire_writer(buf, sizeof buf);
		msg_put_fenced(&w, &(struct msg_fenced){ 0x100000, NULL, 0 });
		assert_int_equal(primary_frame(ends.p, 1, MSG_FENCED, buf, (uint32_t)wire_used(&w), 0), -ESTALE);
		assert_int_equal(ends.fenced, 0);
		assert_int_equal(primary_state(ends.p), PRIMARY_LEADS);
		ends_tear_down();
	}
}

/* What it says that it has counts for nobody's fsync; nor does anybody wait for it. It takes nothing over. */
static void test_limit__counts_for_nothing(void **state)
{
	struct primary_options po = ends_primary();
	struct replica_options ro = ends_replica();
	uint8_t store[16];

	(void)state;
	memset(store, 3, sizeof store);
	ro.client = limited_client;
	po.sync_replicas = 1;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	join_limited("/t", 0);
	replica_durable(ends.r, 10);
	ends_carry(0);
	assert_int_equal(primary_synced(ends.p), 0);
	assert_int_equal(primary_wait(ends.p, 8, 10, 1, 100, 0), 0);
	primary_tick(ends.p, 100);
	assert_int_equal(ends.waited, 8);
	assert_int_equal(ends.waited_error, -ETIMEDOUT);
	assert_int_equal(primary_switch(ends.p, store, 0), -ENOENT);
	assert_int_equal(primary_state(ends.p), PRIMARY_LEADS);
	ends_tear_down();
	/* Its disk never has anything. */
	po.sync_replicas = PRIMARY_SYNC_ALL;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	join_limited("/t", 0);
	ends.ours.last = 11;
	primary_committed(ends.p, 11, 1100, 0);
	primary_durable(ends.p, 11);
	ends_carry(0);
	assert_int_equal(primary_synced(ends.p), 11);
	ends_tear_down();
}

/* Nobody but itself: the store or the client of another key is not taken, and who has a right to them gets them back. */
static void test_limit__is_nobody_else(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	struct msg_hello h;

	(void)state;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	ends_join(0);
	ends_calls(1, 0, 0);
	ends_carry(0);
	/* The store of the one that is here; its client, by a read-only key; one whose number is another's. */
	h = plain_hello(3, limited_client, 1);
	assert_int_equal(hello_on(2, "/t", TAG, &h), -1);
	h = plain_hello(4, 5, 9);
	assert_int_equal(hello_on(3, NULL, TAG, &h), -1);
	assert_int_equal(hello_on(4, "/t", TAG, &h), -1);
	h = plain_hello(4, limited_client, 9);
	assert_int_equal(hello_on(5, "/t", TAG + 1, &h), -1);
	/* The other one was not touched: it gets its answer. */
	ends_result(0, 0, false, 0);
	(void)primary_pump(ends.p, 0);
	ends_carry(0);
	assert_int_equal(ends.answers, 1);
	assert_false(ends.closed_p && ends_state() != REPLICA_STREAM);
	/* Gone for a moment: still not. */
	ends.closed_p = false;
	primary_closed(ends.p, 1, 0);
	h = plain_hello(3, limited_client, 1);
	assert_int_equal(hello_on(6, "/t", TAG, &h), -1);
	h = plain_hello(4, limited_client, 1);
	assert_int_equal(hello_on(7, "/t", TAG, &h), 0);
	/* A read-only key says first that it is client 77, of a far session; then 77 comes. */
	h = plain_hello(5, 77, 1000000);
	h.low = 1000000;
	assert_int_equal(hello_on(8, NULL, TAG + 2, &h), 0);
	assert_int_equal(ends.here.client, 77);
	h = plain_hello(6, 77, 1);
	assert_int_equal(hello_on(9, NULL, 0, &h), 0);
	assert_int_equal(ends.here.session, 1);
	assert_int_equal(ends.here.low, 1);
	/* And a store that a limited key had first. */
	h = plain_hello(5, 78, 1);
	assert_int_equal(hello_on(10, NULL, 0, &h), 0);
	ends_tear_down();
}

/* Who may lock nothing states nothing. */
static void test_limit__read_only_states_no_locks(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	const struct msg_hello h = plain_hello(4, 9, 1);
	uint8_t buf[512];
	struct wire_writer w = wire_writer(buf, sizeof buf);

	(void)state;
	msg_put_hello(&w, &h);
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	assert_int_equal(primary_opened(ends.p, 2, PRIMARY_PEER_READ_ONLY, 0), 0);
	assert_int_equal(primary_frame(ends.p, 2, MSG_HELLO, buf, (uint32_t)wire_used(&w), 0), 0);
	assert_int_equal(ends.heres, 1);
	assert_int_equal(ends.here_locks, 0);
	assert_int_equal(primary_opened(ends.p, 3, 0, 0), 0);
	assert_int_equal(primary_frame(ends.p, 3, MSG_HELLO, buf, (uint32_t)wire_used(&w), 0), 0);
	assert_int_equal(ends.here_locks, 5);
	ends_tear_down();
}

/* It feeds nobody, and no relay takes it: what it may do is decided on the primary only. */
static void test_limit__no_relays(void **state)
{
	const struct primary_options po = ends_primary();
	const struct replica_options ro = ends_replica();
	struct msg_hello h = plain_hello(4, limited_client, 1);

	(void)state;
	assert_int_equal(ends_set_up(&po, &ro, 10), 0);
	h.flags = HELLO_FEEDS;
	assert_int_equal(hello_on(2, "/t", TAG, &h), -1);
	h.flags = 0;
	assert_int_equal(hello_on(3, "/t", TAG, &h), 0);
	primary_relay(ends.p, 1, 1, 10, 0);
	primary_committed(ends.p, 10, 1000, 0);
	assert_int_equal(hello_on(4, "/t", TAG, &h), -1);
	assert_non_null(strstr(ends.note, "relay"));
	assert_int_equal(hello_on(5, NULL, 0, &h), 0);
	ends_tear_down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limit__calls_say_it),
		cmocka_unit_test(test_limit__ends_no_epoch),
		cmocka_unit_test(test_limit__counts_for_nothing),
		cmocka_unit_test(test_limit__is_nobody_else),
		cmocka_unit_test(test_limit__read_only_states_no_locks),
		cmocka_unit_test(test_limit__no_relays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
