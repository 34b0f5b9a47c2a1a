/* SPDX-License-Identifier: MIT
 *
 * test_message: the messages of chapter 2 of core/PROTOCOL.md as bytes, histories compared, sets of inodes.
 */
#include "tests/unit/ends_util.h"
#include "tests/unit/ok_util.h"

#include "core/replica/idset.h"
#include "core/replica/message.h"

#include <stdlib.h>

/* Messages --------------------------------------------------------------------------------------------------------- */

union message {
	struct msg_hello hello;
	struct msg_welcome welcome;
	struct msg_change change;
	struct msg_position position;
	struct msg_ack ack;
	struct msg_call call;
	struct msg_result result;
	struct msg_cancel cancel;
	struct msg_holds holds;
	struct msg_client client;
	struct msg_promote promote;
	struct msg_fenced fenced;
};

static const uint8_t ids[24] = { 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3 };

static struct msg_hello a_hello(void)
{
	struct msg_hello h = {
		.version = 1, .version_min = 1, .flags = 5, .features = 3, .required = 1, .client = 77, .session = 3, .low = 9,
		.epoch = 0x200001, .promised = 0x300000, .durable = 40, .committed = 30, .name = (const uint8_t *)"two:6796",
		.name_len = 8, .holds = ids, .hold_count = 3, .locks = ids, .locks_len = 5,
	};

	memset(h.cluster, 1, 16);
	memset(h.store, 2, 16);
	h.history.last = 50;
	h.history.count = 2;
	h.history.at[0] = (struct history_entry){ 1, 1, 11, { 1 } };
	h.history.at[1] = (struct history_entry){ 0x200001, 45, 12, { 2 } };
	return h;
}

static const uint8_t path[32] = { 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 9 };

static struct msg_welcome a_welcome(void)
{
	struct msg_welcome m = { .version = 1, .decision = WELCOME_STREAM, .features = 3, .hash_seed = 5, .epoch = 0x300000,
				 .promised = 0x300000, .seq = 50, .last = 60, .durable = 55, .lease_ms = 10000, .keep_ms = 1000,
				 .text = (const uint8_t *)"hi", .text_len = 2, .name = (const uint8_t *)"x", .name_len = 1,
				 .path = path, .path_count = 2 };

	memset(m.cluster, 1, 16);
	memset(m.store, 3, 16);
	return m;
}

static size_t put(unsigned type, uint8_t *to, size_t size)
{
	struct wire_writer w = wire_writer(to, size);
	struct msg_hello h = a_hello();
	struct msg_welcome v = a_welcome();

	switch (type) {
	case MSG_HELLO:
		msg_put_hello(&w, &h);
		break;
	case MSG_WELCOME:
		msg_put_welcome(&w, &v);
		break;
	case MSG_CHANGE:
		msg_put_change(&w, &(struct msg_change){ 9, 8, 7, 6, 5, ids, 24 });
		break;
	case MSG_POSITION:
		msg_put_position(&w, &(struct msg_position){ 9, 8, 7, 6, 5, 4 });
		break;
	case MSG_ACK:
		msg_put_ack(&w, &(struct msg_ack){ 9, 8, 7, 6, 5, 4 });
		break;
	case MSG_CALL:
		msg_put_call(&w, &(struct msg_call){ 9, 8, 7, 6, 5, ids, 24, 3 });
		break;
	case MSG_RESULT:
		msg_put_result(&w, &(struct msg_result){ 9, 8, 7, 6, -17, RESULT_SYNC, 5, 4, 3 });
		break;
	case MSG_CANCEL:
		msg_put_cancel(&w, &(struct msg_cancel){ 9, 8, 7, 6 });
		break;
	case MSG_HOLD:
	case MSG_RELEASE:
		msg_put_holds(&w, &(struct msg_holds){ 9, ids, 3 });
		break;
	case MSG_CLIENT:
		msg_put_client(&w, &(struct msg_client){ 9, 8, 7, 6, CLIENT_LOCKS, ids, 24 });
		break;
	case MSG_PROMOTE:
		msg_put_promote(&w, &(struct msg_promote){ 9, 10, 8 });
		break;
	default:
		msg_put_fenced(&w, &(struct msg_fenced){ 9, ids, 2 });
	}
	assert_false(w.full);
	return wire_used(&w);
}

static int get(unsigned type, const uint8_t *p, size_t len, union message *m)
{
	switch (type) {
	case MSG_HELLO:
		return msg_get_hello(p, len, &m->hello);
	case MSG_WELCOME:
		return msg_get_welcome(p, len, &m->welcome);
	case MSG_CHANGE:
		return msg_get_change(p, len, &m->change);
	case MSG_POSITION:
		return msg_get_position(p, len, &m->position);
	case MSG_ACK:
		return msg_get_ack(p, len, &m->ack);
	case MSG_CALL:
		return msg_get_call(p, len, &m->call);
	case MSG_RESULT:
		return msg_get_result(p, len, &m->result);
	case MSG_CANCEL:
		return msg_get_cancel(p, len, &m->cancel);
	case MSG_HOLD:
	case MSG_RELEASE:
		return msg_get_holds(p, len, &m->holds);
	case MSG_CLIENT:
		return msg_get_client(p, len, &m->client);
	case MSG_PROMOTE:
		return msg_get_promote(p, len, &m->promote);
	default:
		return msg_get_fenced(p, len, &m->fenced);
	}
}

/* What was put is what is got; a byte less, or one more, is refused (CHANGE and CALL end with what is left). */
static void test_message__exact_end(void **state)
{
	union message m;
	uint8_t buf[1024], *exact;
	unsigned type;
	size_t len, cut;

	(void)state;
	for (type = MSG_HELLO; type <= MSG_FENCED; type++) {
		bool rest = type == MSG_CHANGE || type == MSG_CALL;

		len = put(type, buf, sizeof buf);
		assert_int_equal(get(type, buf, len, &m), 0);
		for (cut = 0; cut < len; cut++) {
			exact = malloc(cut + 1);
			assert_non_null(exact);
			memcpy(exact, buf, cut);
			if (!rest || cut < (type == MSG_CALL ? 48u : 40u))
				assert_int_equal(get(type, exact, cut, &m), -EPROTO);
			free(exact);
		}
		buf[len] = 0;
		assert_int_equal(get(type, buf, len + 1, &m), rest ? 0 : -EPROTO);
	}
}

static void test_message__fields(void **state)
{
	const struct msg_hello h = a_hello();
	const struct msg_welcome w = a_welcome();
	union message m;
	uint8_t buf[1024];

	(void)state;
	assert_int_equal(get(MSG_HELLO, buf, put(MSG_HELLO, buf, sizeof buf), &m), 0);
	assert_int_equal(m.hello.flags, 5);
	assert_int_equal(m.hello.session, 3);
	assert_int_equal(m.hello.low, 9);
	assert_int_equal(m.hello.promised, 0x300000);
	assert_int_equal(m.hello.durable, 40);
	assert_int_equal(m.hello.committed, 30);
	assert_memory_equal(m.hello.store, h.store, 16);
	assert_int_equal(m.hello.history.count, 2);
	assert_memory_equal(&m.hello.history.at[1], &h.history.at[1], sizeof h.history.at[1]);
	assert_memory_equal(m.hello.name, "two:6796", 8);
	assert_int_equal(m.hello.hold_count, 3);
	assert_memory_equal(m.hello.holds, ids, 24);
	assert_int_equal(m.hello.locks_len, 5);
	assert_int_equal(get(MSG_WELCOME, buf, put(MSG_WELCOME, buf, sizeof buf), &m), 0);
	assert_memory_equal(m.welcome.cluster, w.cluster, 16);
	assert_int_equal(m.welcome.hash_seed, 5);
	assert_int_equal(m.welcome.last, 60);
	assert_int_equal(m.welcome.lease_ms, 10000);
	assert_int_equal(m.welcome.path_count, 2);
	assert_memory_equal(m.welcome.path, path, sizeof path);
	assert_int_equal(get(MSG_RESULT, buf, put(MSG_RESULT, buf, sizeof buf), &m), 0);
	assert_int_equal(m.result.error, -17);
	assert_int_equal(m.result.flags, RESULT_SYNC);
	assert_int_equal(m.result.tag, 3);
	assert_int_equal(get(MSG_CHANGE, buf, put(MSG_CHANGE, buf, sizeof buf), &m), 0);
	assert_int_equal(m.change.seq, 7);
	assert_int_equal(m.change.len, 24);
	assert_int_equal(get(MSG_ACK, buf, put(MSG_ACK, buf, sizeof buf), &m), 0);
	assert_int_equal(m.ack.tree_applied, 6);
}

/* Numbers that contradict each other. */
static void test_message__impossible(void **state)
{
	uint8_t buf[1024];
	struct wire_writer w;
	union message m;
	struct msg_hello h;
	unsigned i;

	(void)state;
	for (i = 0; i < 11; i++) {
		h = a_hello();
		if (i == 0)
			h.client = 0;
		if (i == 1)
			h.low = 0;
		if (i == 2)
			h.durable = 51;
		if (i == 3)
			h.committed = 51;
		if (i == 4)
			h.epoch = h.promised + 1;
		if (i == 5)
			h.version_min = 2;
		if (i == 6)
			h.version = h.version_min = 0;
		if (i == 7)
			h.history.at[1].first = 1;
		if (i == 8)
			h.history.at[1].epoch = 1;
		if (i == 9)
			h.history.at[1].first = 51;
		if (i == 10)
			h.history.at[0].epoch = 0;
		w = wire_writer(buf, sizeof buf);
		msg_put_hello(&w, &h);
		assert_int_equal(get(MSG_HELLO, buf, wire_used(&w), &m), -EPROTO);
	}
	w = wire_writer(buf, sizeof buf);
	msg_put_ack(&w, &(struct msg_ack){ 1, 5, 6, 5, 5, 1 });
	assert_int_equal(get(MSG_ACK, buf, wire_used(&w), &m), -EPROTO);
	w = wire_writer(buf, sizeof buf);
	msg_put_call(&w, &(struct msg_call){ 1, 1, 1, 33, 1, NULL, 0, 1 });
	assert_int_equal(get(MSG_CALL, buf, wire_used(&w), &m), -EPROTO);
	w = wire_writer(buf, sizeof buf);
	msg_put_result(&w, &(struct msg_result){ 1, 1, 1, 1, -4096, 0, 1, 1, 1 });
	assert_int_equal(get(MSG_RESULT, buf, wire_used(&w), &m), -EPROTO);
}

/* Histories -------------------------------------------------------------------------------------------------------- */

static void compare(const struct history *ours, const struct history *theirs, enum history_verdict v, seq_t common)
{
	seq_t got;

	assert_int_equal(history_compare(ours, theirs, &got), v);
	assert_int_equal(got, common);
}

static void test_history__compare(void **state)
{
	static const uint64_t one[][3] = { { 1, 1, 100 } }, two[][3] = { { 1, 1, 100 }, { 2, 11, 200 } };
	static const uint64_t other[][3] = { { 1, 1, 100 }, { 2, 11, 201 } }, later[][3] = { { 1, 1, 100 }, { 3, 9, 300 } };
	static const uint64_t strange[][3] = { { 1, 1, 999 } }, three[][3] = { { 1, 1, 100 }, { 2, 11, 200 }, { 4, 16, 4 } };
	const struct history none = { 0 }, a10 = ends_history(1, one, 10), a15 = ends_history(1, one, 15), b20 = ends_history(2, two, 20);
	const struct history o20 = ends_history(2, other, 20), l12 = ends_history(2, later, 12);
	const struct history s5 = ends_history(1, strange, 5), t30 = ends_history(3, three, 30);

	(void)state;
	compare(&a10, &none, HISTORY_EMPTY, 0);
	compare(&a15, &a10, HISTORY_STREAM, 10);
	compare(&a10, &a15, HISTORY_DIVERGED, 10);      /* it has what we lost */
	compare(&b20, &a10, HISTORY_STREAM, 10);        /* missed the beginning of epoch 2 */
	compare(&b20, &a15, HISTORY_DIVERGED, 10);      /* its tail of epoch 1 is not ours */
	compare(&a15, &b20, HISTORY_DIVERGED, 10);
	compare(&b20, &o20, HISTORY_DIVERGED, 10);      /* epoch 2 twice */
	compare(&b20, &l12, HISTORY_DIVERGED, 8);       /* they went on from 8 */
	compare(&l12, &a10, HISTORY_DIVERGED, 8);
	compare(&t30, &b20, HISTORY_DIVERGED, 15);
	compare(&t30, &a10, HISTORY_STREAM, 10);
	compare(&b20, &s5, HISTORY_UNKNOWN, 0);
	compare(&none, &a10, HISTORY_UNKNOWN, 0);
}

/* Sets ------------------------------------------------------------------------------------------------------------- */

static void test_idset__model(void **state)
{
	static uint8_t model[4096];
	struct idset s = { 0 };
	uint64_t x = 88172645463325252u, id;
	uint32_t pos = 0, count = 0, n, i;

	(void)state;
	for (i = 0; i < 200000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		id = 1 + x % (i < 100000 ? 4095 : 50);
		if (x >> 40 & 1) {
			assert_int_equal(idset_add(&s, id), model[id] ? 0 : 1);
			model[id] = 1;
		} else {
			assert_int_equal(idset_remove(&s, id), model[id] != 0);
			model[id] = 0;
		}
	}
	for (i = 1; i < 4096; i++) {
		assert_int_equal(idset_has(&s, i), model[i] != 0);
		count += model[i];
	}
	assert_int_equal(s.count, count);
	for (n = 0; (id = idset_next(&s, &pos)) != 0; n++)
		assert_true(model[id]);
	assert_int_equal(n, count);
	idset_release(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_message__exact_end),
		cmocka_unit_test(test_message__fields),
		cmocka_unit_test(test_message__impossible),
		cmocka_unit_test(test_history__compare),
		cmocka_unit_test(test_idset__model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
