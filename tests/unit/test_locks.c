/* SPDX-License-Identifier: MIT
 *
 * test_locks: the lock table against a model that knows, byte by byte, who has what; circles; fairness; the grace period;
 * statements; bytes that cannot be.
 *
 *   SEED=n   replays the random part        ROUNDS=n   how long it is
 */
#include "tests/unit/random_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/replica/locks.h"
#include "core/replica/message.h"

#include <stdio.h>
#include <stdlib.h>

#define CLIENTS 3u
#define OWNERS  3u              /* of each */
#define NODES   (CLIENTS * OWNERS)
#define INOS    2u
#define BYTES   12u             /* the last one stands for all behind */
#define WAITERS 256u
#define PROBE   99u             /* a client that only asks */

static uint64_t seed, rounds;

/* The model -------------------------------------------------------------------------------------------------------- */

struct waiter {
	uint32_t node;
	struct lock_op op;
};

struct world {
	struct locks *t;
	struct locks *mirror[CLIENTS];
	uint8_t posix[INOS][BYTES][NODES], flock[INOS][NODES];  /* enum lock_type */
	struct waiter waiting[WAITERS];
	unsigned waiting_count;
	uint64_t ticket, counter;
	struct lock_answer last;        /* of the probe, or of who asked last */
	unsigned answers, lost;
	uint64_t probe[CLIENTS + 1], probe_round;       /* the last one that each client was asked; and of which statement */
	unsigned probes;
	bool off;                       /* the model looks away */
};

static struct world w;

static unsigned last_byte(uint64_t end)
{
	return end >= BYTES - 1 ? BYTES - 1 : (unsigned)end;
}

static uint8_t *cell(const struct lock_op *op, unsigned byte, unsigned node)
{
	unsigned ino = (unsigned)op->ino - 1;

	return op->kind == LOCKS_POSIX ? &w.posix[ino][byte][node] : &w.flock[ino][node];
}

static unsigned first_of(const struct lock_op *op)
{
	return op->kind == LOCKS_POSIX ? last_byte(op->start) : 0;
}

static unsigned end_of(const struct lock_op *op)
{
	return op->kind == LOCKS_POSIX ? last_byte(op->end) : 0;
}

static bool node_blocks(const struct lock_op *op, unsigned node)
{
	unsigned b;

	for (b = first_of(op); b <= end_of(op); b++) {
		uint8_t has = *cell(op, b, node);

		if (has == LOCKS_EXCLUSIVE || (has == LOCKS_SHARED && op->type == LOCKS_EXCLUSIVE))
			return true;
	}
	return false;
}

static bool model_blocked(const struct lock_op *op, unsigned node)
{
	unsigned n;

	for (n = 0; n < NODES; n++)
		if (n != node && node_blocks(op, n))
			return true;
	return false;
}

static void model_set(const struct lock_op *op, unsigned node)
{
	unsigned b;

	for (b = first_of(op); b <= end_of(op); b++)
		*cell(op, b, node) = op->type;
}

static bool model_reaches(unsigned from, unsigned to, bool *seen)
{
	unsigned i, n;

	if (from == to)
		return true;
	if (seen[from])
		return false;
	seen[from] = true;
	for (i = 0; i < w.waiting_count; i++)
		for (n = 0; n < NODES; n++)
			if (w.waiting[i].node == from && w.waiting[i].op.kind == LOCKS_POSIX && n != from &&
			    node_blocks(&w.waiting[i].op, n) && model_reaches(n, to, seen))
				return true;
	return false;
}

static bool model_circle(const struct lock_op *op, unsigned node)
{
	unsigned n;

	for (n = 0; n < NODES; n++) {
		bool seen[NODES] = { false };

		if (n != node && node_blocks(op, n) && model_reaches(n, node, seen))
			return true;
	}
	return false;
}

static bool conflict(const struct lock_op *a, const struct lock_op *b)
{
	return a->ino == b->ino && a->kind == b->kind && (a->type == LOCKS_EXCLUSIVE || b->type == LOCKS_EXCLUSIVE) &&
	       a->start <= b->end && b->start <= a->end;
}

static void forget_waiter(unsigned i)
{
	w.waiting_count--;
	memmove(&w.waiting[i], &w.waiting[i + 1], (w.waiting_count - i) * sizeof w.waiting[0]);
}

static struct lock_op op_of(const struct lock_answer *a)
{
	return (struct lock_op){ .ticket = a->ticket, .ino = a->ino, .owner = a->owner, .start = a->start, .end = a->end,
				 .pid = a->pid, .kind = a->kind, .type = a->type };
}

static unsigned node_of(uint64_t client, uint64_t owner)
{
	return (unsigned)(client - 1) * OWNERS + (unsigned)(owner - 1);
}

static void on_answer(void *ctx, const struct lock_answer *a)
{
	struct lock_op op = op_of(a);
	unsigned i, node;

	(void)ctx;
	w.answers++;
	w.lost += a->lost;
	w.last = *a;
	if (w.off || a->client == PROBE || a->lost)
		return;
	node = node_of(a->client, a->owner);
	if (a->error == 0 && op.type != LOCKS_OFF) {
		if (model_blocked(&op, node))
			fail_msg("SEED=%llu: granted what another one has", (unsigned long long)seed);
		if (a->counter <= w.counter)
			fail_msg("SEED=%llu: fencing number %llu after %llu", (unsigned long long)seed,
				 (unsigned long long)a->counter, (unsigned long long)w.counter);
		w.counter = a->counter;
	}
	if (a->error == 0) {
		model_set(&op, node);
		assert_int_equal(locks_note(w.mirror[a->client - 1], a->client, &op, a->epoch, a->counter), 0);
	}
	for (i = 0; i < w.waiting_count; i++)
		if (w.waiting[i].op.ticket == a->ticket && w.waiting[i].node / OWNERS == a->client - 1) {
			forget_waiter(i);
			break;
		}
}

static void on_probe(void *ctx, uint64_t client, uint64_t round, uint64_t number)
{
	(void)ctx;
	assert_in_range(client, 1, CLIENTS);
	assert_true(number > w.probe[client]);
	w.probe[client] = number;
	w.probe_round = round;
	w.probes++;
}

/* Each byte has in the table what it has in the model. */
static void compare(void)
{
	unsigned ino, b, n;

	if (!locks_check(w.t))
		fail_msg("SEED=%llu: the table breaks its own rules", (unsigned long long)seed);
	for (ino = 0; ino < INOS; ino++)
		for (b = 0; b <= BYTES; b++) {
			bool flock = b == BYTES;
			struct lock_op op = { .ticket = 1, .ino = ino + 1, .owner = 1, .start = flock ? 0 : b,
					      .end = flock || b == BYTES - 1 ? LOCKS_END : b,
					      .kind = flock ? LOCKS_FLOCK : LOCKS_POSIX, .type = LOCKS_EXCLUSIVE };
			uint8_t want = LOCKS_OFF;

			for (n = 0; n < NODES; n++)
				want = (uint8_t)max_u64(want, flock ? w.flock[ino][n] : w.posix[ino][b][n]);
			locks_query(w.t, PROBE, &op);
			if (w.last.type != want)
				fail_msg("SEED=%llu: byte %u of inode %u: %u, not %u", (unsigned long long)seed, b, ino + 1,
					 w.last.type, want);
		}
	for (b = 0; b < w.waiting_count; b++) {
		bool behind = model_blocked(&w.waiting[b].op, w.waiting[b].node);

		for (n = 0; n < b && !behind; n++)
			behind = w.waiting[n].node != w.waiting[b].node && conflict(&w.waiting[n].op, &w.waiting[b].op);
		if (!behind)
			fail_msg("SEED=%llu: somebody waits for nothing", (unsigned long long)seed);
	}
}

static void world_init(void)
{
	unsigned i;

	memset(&w, 0, sizeof w);
	w.t = locks_new(on_answer, on_probe, NULL);
	assert_non_null(w.t);
	locks_lead(w.t, 5, 0, false);
	for (i = 0; i < CLIENTS; i++) {
		w.mirror[i] = locks_new(on_answer, on_probe, NULL);
		assert_non_null(w.mirror[i]);
		locks_lead(w.mirror[i], 5, 0, false);
	}
}

static void world_free(void)
{
	unsigned i, held, waiting;

	locks_free(w.t);
	for (i = 0; i < CLIENTS; i++) {
		locks_count(w.mirror[i], &held, &waiting);
		assert_int_equal(waiting, 0);
		locks_free(w.mirror[i]);
	}
}

/* Random ----------------------------------------------------------------------------------------------------------- */

static void random_request(void)
{
	unsigned node = rnd(NODES);
	uint64_t client = node / OWNERS + 1;
	struct lock_op op = { .ticket = ++w.ticket, .ino = rnd(INOS) + 1, .owner = node % OWNERS + 1, .pid = node + 1,
			      .kind = rnd(3) == 0 ? LOCKS_FLOCK : LOCKS_POSIX, .type = (uint8_t)rnd(3), .wait = rnd(2) };
	bool blocked, circle;
	unsigned before = w.waiting_count, i;

	op.end = LOCKS_END;
	if (op.kind == LOCKS_POSIX) {
		op.start = rnd(BYTES);
		op.end = rnd(4) == 0 ? LOCKS_END : op.start + rnd((uint32_t)(BYTES - op.start));
		if (op.end >= BYTES - 1)
			op.end = LOCKS_END;
		if (op.start == BYTES - 1 && op.end != LOCKS_END)
			op.end = LOCKS_END;
	}
	/* A process waits for one thing only. */
	for (i = 0; i < w.waiting_count; i++)
		if (w.waiting[i].node == node)
			return;
	blocked = op.type != LOCKS_OFF && model_blocked(&op, node);
	circle = blocked && op.wait && op.kind == LOCKS_POSIX && model_circle(&op, node);
	w.answers = 0;
	if (op.type != LOCKS_OFF && op.wait) {
		w.waiting[w.waiting_count++] = (struct waiter){ node, op };
		assert_true(w.waiting_count < WAITERS);
	}
	/* What flock(2) gives up before it waits. */
	if (blocked && op.wait && op.kind == LOCKS_FLOCK) {
		struct lock_op off = op;

		off.type = LOCKS_OFF;
		model_set(&off, node);
		(void)locks_note(w.mirror[client - 1], client, &off, 0, 0);
	}
	locks_request(w.t, client, &op);
	if (w.answers > 0 && w.last.ticket == op.ticket && w.last.client == client) {
		int error = w.last.error;

		if (circle != (error == -EDEADLK) || (blocked && !op.wait) != (error == -EAGAIN) || (error != 0 && !blocked))
			fail_msg("SEED=%llu: blocked %d, circle %d: %d", (unsigned long long)seed, blocked, circle, error);
	} else if (op.type != LOCKS_OFF && !op.wait && w.answers == 0) {
		fail_msg("SEED=%llu: no answer", (unsigned long long)seed);
	} else if (circle) {
		fail_msg("SEED=%llu: a circle of %u waiters", (unsigned long long)seed, before + 1);
	}
}

static void random_cancel(void)
{
	struct waiter one;

	if (w.waiting_count == 0)
		return;
	one = w.waiting[rnd(w.waiting_count)];
	locks_cancel(w.t, one.node / OWNERS + 1, one.op.ticket);
}

static void drop_waiters(uint64_t client)
{
	unsigned i = 0;

	while (i < w.waiting_count)
		if (w.waiting[i].node / OWNERS == client - 1)
			forget_waiter(i);
		else
			i++;
}

static void random_expire(void)
{
	uint64_t client = rnd(CLIENTS) + 1;
	unsigned ino, b, n;

	drop_waiters(client);
	for (n = (unsigned)(client - 1) * OWNERS; n < client * OWNERS; n++)
		for (ino = 0; ino < INOS; ino++) {
			w.flock[ino][n] = LOCKS_OFF;
			for (b = 0; b < BYTES; b++)
				w.posix[ino][b][n] = LOCKS_OFF;
		}
	locks_free(w.mirror[client - 1]);
	w.mirror[client - 1] = locks_new(on_answer, on_probe, NULL);
	assert_non_null(w.mirror[client - 1]);
	locks_lead(w.mirror[client - 1], 5, 0, false);
	locks_expire(w.t, client);
}

/* It states what it has: nothing changes but that it waits no more. */
static void random_restate(void)
{
	static uint8_t buf[LOCKS_STATE_MAX];
	uint64_t client = rnd(CLIENTS) + 1;
	size_t len = locks_state(w.mirror[client - 1], client, 7, "name", buf);

	drop_waiters(client);
	w.lost = 0;
	assert_int_equal(locks_restate(w.t, client, buf, len, NULL, NULL), 0);
	assert_int_equal(w.lost, 0);
}

static void random_leave(void)
{
	uint64_t client = rnd(CLIENTS) + 1;

	drop_waiters(client);
	locks_leave(w.t, client);
}

/* Another one becomes the primary, and is told by all what they have. */
static void new_primary(void)
{
	static uint8_t buf[LOCKS_STATE_MAX];
	uint64_t c;

	locks_free(w.t);
	w.t = locks_new(on_answer, on_probe, NULL);
	assert_non_null(w.t);
	locks_lead(w.t, 5, w.counter, true);
	w.waiting_count = 0;
	w.lost = 0;
	for (c = 1; c <= CLIENTS; c++)
		assert_int_equal(locks_restate(w.t, c, buf, locks_state(w.mirror[c - 1], c, 1, "", buf), NULL, NULL), 0);
	assert_int_equal(w.lost, 0);
	locks_grace_end(w.t);
}

static void test_locks__random(void **state)
{
	uint64_t i;

	(void)state;
	world_init();
	for (i = 0; i < rounds; i++) {
		uint32_t what = rnd(200);

		if (what < 170)
			random_request();
		else if (what < 185)
			random_cancel();
		else if (what < 190)
			random_restate();
		else if (what < 194)
			random_leave();
		else if (what < 198)
			random_expire();
		else
			new_primary();
		compare();
	}
	/* All let go: nothing is left, and everybody who waited got it. */
	while (w.waiting_count > 0)
		random_cancel();
	for (i = 0; i < 50; i++)
		random_expire();
	compare();
	world_free();
}

/* One by one ------------------------------------------------------------------------------------------------------- */

static int ask(uint64_t client, uint64_t owner, uint64_t ino, enum lock_kind kind, enum lock_type type, bool wait)
{
	const struct lock_op op = { .ticket = ++w.ticket, .ino = ino, .owner = owner, .end = LOCKS_END, .kind = kind,
				    .pid = (uint32_t)(client * 100 + owner), .type = type, .wait = wait };

	w.answers = 0;
	w.last.error = 1;
	locks_request(w.t, client, &op);
	return w.answers > 0 ? w.last.error : 1;        /* 1: it waits */
}

static void test_locks__fair(void **state)
{
	(void)state;
	world_init();
	w.off = true;
	assert_int_equal(ask(1, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(ask(2, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 1);
	/* Who holds nothing waits its turn, though it could have it at once; who does not want to wait gets it. */
	assert_int_equal(ask(3, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 1);
	assert_int_equal(ask(3, 2, 1, LOCKS_FLOCK, LOCKS_SHARED, false), 0);
	assert_int_equal(ask(3, 2, 1, LOCKS_FLOCK, LOCKS_OFF, false), 0);
	/* Who holds something does not stand behind others: nobody would see the circle. */
	assert_int_equal(ask(1, 2, 2, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(ask(1, 2, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(ask(1, 2, 1, LOCKS_FLOCK, LOCKS_OFF, false), 0);
	(void)ask(1, 1, 1, LOCKS_FLOCK, LOCKS_OFF, false);
	assert_true(locks_holds(w.t, 2, 1, 1, LOCKS_FLOCK, NULL));
	assert_false(locks_holds(w.t, 3, 1, 1, LOCKS_FLOCK, NULL));
	(void)ask(2, 1, 1, LOCKS_FLOCK, LOCKS_OFF, false);
	assert_true(locks_holds(w.t, 3, 1, 1, LOCKS_FLOCK, NULL));
	world_free();
}

static void test_locks__change_of_flock(void **state)
{
	(void)state;
	world_init();
	w.off = true;
	assert_int_equal(ask(1, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(ask(2, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(ask(1, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 1);
	/* The first one gave its own up when it began to wait: else both would wait for ever. */
	assert_int_equal(ask(2, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 0);
	assert_false(locks_holds(w.t, 1, 1, 1, LOCKS_FLOCK, NULL));
	(void)ask(2, 1, 1, LOCKS_FLOCK, LOCKS_OFF, true);
	assert_true(locks_holds(w.t, 1, 1, 1, LOCKS_FLOCK, NULL));
	world_free();
}

static void test_locks__circle_of_three(void **state)
{
	(void)state;
	world_init();
	w.off = true;
	for (uint64_t c = 1; c <= 3; c++)
		assert_int_equal(ask(c, 1, c, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
	assert_int_equal(ask(1, 1, 2, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 1);
	assert_int_equal(ask(2, 1, 3, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 1);
	assert_int_equal(ask(3, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), -EDEADLK);
	assert_int_equal(ask(3, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, false), -EAGAIN);
	locks_expire(w.t, 3);
	assert_true(locks_holds(w.t, 2, 3, 1, LOCKS_POSIX, NULL));
	world_free();
}

static int ask_range(uint64_t client, uint64_t start, uint64_t end, enum lock_type type, bool wait)
{
	const struct lock_op op = { .ticket = ++w.ticket, .ino = 1, .owner = 1, .start = start, .end = end, .kind = LOCKS_POSIX,
				    .type = type, .wait = wait };

	w.answers = 0;
	locks_request(w.t, client, &op);
	return w.answers > 0 ? w.last.error : 1;
}

static void assert_held(unsigned want)
{
	unsigned held, waiting;

	locks_count(w.t, &held, &waiting);
	assert_int_equal(held, want);
}

static void test_locks__ranges_are_one(void **state)
{
	(void)state;
	world_init();
	w.off = true;
	assert_int_equal(ask_range(1, 10, 19, LOCKS_SHARED, true), 0);
	assert_int_equal(ask_range(1, 20, 29, LOCKS_SHARED, true), 0);
	assert_held(1);
	assert_int_equal(ask_range(1, 0, 9, LOCKS_SHARED, true), 0);
	assert_held(1);
	assert_int_equal(ask_range(1, 5, 6, LOCKS_EXCLUSIVE, true), 0);
	assert_held(3);
	assert_int_equal(ask_range(1, 5, 6, LOCKS_SHARED, true), 0);
	assert_held(1);
	assert_int_equal(ask_range(1, 7, LOCKS_END, LOCKS_OFF, true), 0);
	assert_held(1);
	assert_int_equal(ask_range(2, 7, LOCKS_END, LOCKS_EXCLUSIVE, false), 0);
	assert_int_equal(ask_range(2, 6, 6, LOCKS_EXCLUSIVE, false), -EAGAIN);
	world_free();
}

/* What a waiter gets may be less than it had: who waited before it may go then. */
static void test_locks__grant_that_frees(void **state)
{
	(void)state;
	world_init();
	w.off = true;
	assert_int_equal(ask_range(1, 0, 5, LOCKS_EXCLUSIVE, true), 0);
	assert_int_equal(ask_range(2, 6, 10, LOCKS_EXCLUSIVE, true), 0);
	assert_int_equal(ask_range(3, 0, 3, LOCKS_SHARED, true), 1);
	assert_int_equal(ask_range(1, 0, 10, LOCKS_SHARED, true), 1);
	assert_int_equal(ask_range(2, 6, 10, LOCKS_OFF, true), 0);
	assert_true(locks_holds(w.t, 3, 1, 1, LOCKS_POSIX, NULL));
	world_free();
}

static void test_locks__behind_who_expires(void **state)
{
	(void)state;
	world_init();
	w.off = true;
	assert_int_equal(ask(1, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(ask(2, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 1);
	assert_int_equal(ask(3, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 1);
	locks_expire(w.t, 2);
	assert_true(locks_holds(w.t, 3, 1, 1, LOCKS_FLOCK, NULL));
	world_free();
}

/* A client can neither raise the fencing numbers nor state half of what it says. */
static void test_locks__forged_statement(void **state)
{
	static uint8_t buf[LOCKS_STATE_MAX];
	char text[1024];
	size_t len;

	(void)state;
	world_init();
	w.off = true;
	assert_int_equal(ask(1, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 0);
	assert_int_equal(ask(1, 1, 2, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 0);
	len = locks_state(w.t, 1, 1, "", buf);
	/* The last record's fencing number, then its type. */
	memset(buf + len - 20, 0xff, 16);
	assert_int_equal(locks_restate(w.t, 1, buf, len, NULL, NULL), 0);
	(void)locks_to_text(w.t, text, sizeof text);
	assert_non_null(strstr(text, "fence=5.3 "));
	assert_null(strstr(text, "fence=18446744073709551615"));
	buf[len - 57] = 3;
	assert_int_equal(locks_restate(w.t, 1, buf, len, NULL, NULL), -EPROTO);
	assert_held(2);
	world_free();
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
	world_init();
	w.off = true;
	assert_int_equal(ask(1, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
	assert_int_equal(ask(1, 1, 2, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
	len = locks_state(w.t, 1, 1, "", buf);
	w.lost = 0;
	assert_int_equal(locks_restate(w.t, 1, buf, len, only_inode_2, &asked), 0);
	assert_int_equal(asked, 2);
	assert_int_equal(w.lost, 1);
	assert_held(1);
	assert_int_equal(ask(2, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
	assert_int_equal(ask(2, 1, 2, LOCKS_POSIX, LOCKS_EXCLUSIVE, false), -EAGAIN);
	world_free();
}

static void test_locks__asked_twice(void **state)
{
	struct lock_op op = { .ticket = 7, .ino = 1, .owner = 1, .end = LOCKS_END, .kind = LOCKS_FLOCK,
			      .type = LOCKS_EXCLUSIVE, .wait = true };
	unsigned held, waiting;
	uint64_t fence;

	(void)state;
	world_init();
	w.off = true;
	locks_request(w.t, 1, &op);
	fence = w.last.counter;
	locks_request(w.t, 1, &op);
	assert_int_equal(w.last.error, 0);
	assert_int_equal(w.last.counter, fence);
	locks_request(w.t, 2, &op);
	locks_request(w.t, 2, &op);
	locks_count(w.t, &held, &waiting);
	assert_int_equal(held, 1);
	assert_int_equal(waiting, 1);
	w.answers = 0;
	locks_expire(w.t, 1);
	assert_int_equal(w.answers, 1);
	world_free();
}

static void test_locks__grace(void **state)
{
	static uint8_t buf[LOCKS_STATE_MAX];
	size_t len;

	(void)state;
	world_init();
	w.off = true;
	assert_int_equal(ask(1, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
	len = locks_state(w.t, 1, 3, "one", buf);
	locks_free(w.t);
	w.t = locks_new(on_answer, on_probe, NULL);
	locks_lead(w.t, 6, 100, true);
	/* Nobody gets anything, whether it wants to wait or not. */
	assert_int_equal(ask(2, 1, 1, LOCKS_POSIX, LOCKS_SHARED, false), 1);
	assert_int_equal(ask(2, 2, 2, LOCKS_POSIX, LOCKS_SHARED, false), 1);
	assert_int_equal(ask(3, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 1);
	assert_int_equal(locks_restate(w.t, 1, buf, len, NULL, NULL), 0);
	assert_true(locks_holds(w.t, 1, 1, 1, LOCKS_POSIX, NULL));
	w.answers = 0;
	locks_grace_end(w.t);
	assert_int_equal(w.answers, 2);
	assert_true(locks_holds(w.t, 2, 2, 2, LOCKS_POSIX, NULL));
	assert_false(locks_holds(w.t, 2, 1, 1, LOCKS_POSIX, NULL));
	locks_expire(w.t, 1);
	assert_true(locks_holds(w.t, 3, 1, 1, LOCKS_POSIX, NULL));
	/* It comes too late. */
	w.lost = 0;
	assert_int_equal(locks_restate(w.t, 1, buf, len, NULL, NULL), 0);
	assert_int_equal(w.lost, 1);
	assert_int_equal(w.last.round, 3);
	assert_false(locks_holds(w.t, 1, 1, 1, LOCKS_POSIX, NULL));
	world_free();
}

/* (L5) What was closed before somebody asked without waiting is not in the way. */
static void test_locks__closed_is_unlocked(void **state)
{
	unsigned held, waiting;

	(void)state;
	world_init();
	w.off = true;
	assert_int_equal(ask(1, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 0);
	/* Who does not answer probes is not asked. */
	assert_int_equal(ask(2, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, false), -EAGAIN);
	assert_int_equal(w.probes, 0);
	locks_probes(w.t, 1, 7);
	assert_int_equal(ask(2, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, false), -EAGAIN);
	locks_probes(w.t, 1, 0);
	locks_probes(w.t, 2, 0);
	/* It really has it. */
	assert_int_equal(ask(2, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, false), 1);
	assert_int_equal(w.probes, 1);
	assert_true(locks_check(w.t));
	assert_int_equal(locks_probing(w.t), w.probe[1]);
	locks_probed(w.t, 1, w.probe[1] - 1);
	locks_probed(w.t, 1, w.probe[1] + 1);
	locks_probed(w.t, 3, w.probe[1]);
	assert_int_equal(w.answers, 0);
	locks_probed(w.t, 1, w.probe[1]);
	assert_int_equal(w.answers, 1);
	assert_int_equal(w.last.error, -EAGAIN);
	assert_int_equal(locks_probing(w.t), 0);
	/* It was just closing it; two ask, the first one gets it, and the second need not ask him. */
	assert_int_equal(ask(2, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, false), 1);
	assert_int_equal(ask(3, 1, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, false), 1);
	assert_int_equal(w.probes, 3);
	locks_probes(w.t, 3, 0);
	assert_int_equal(ask(1, 1, 1, LOCKS_FLOCK, LOCKS_OFF, false), -EAGAIN);
	assert_int_equal(w.answers, 3);
	assert_true(locks_holds(w.t, 2, 1, 1, LOCKS_FLOCK, NULL));
	locks_probed(w.t, 1, w.probe[1]);
	assert_true(locks_check(w.t));
	/* Of the same machine; of two who have it together, the answer of both counts. */
	assert_int_equal(ask(2, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(ask(3, 1, 1, LOCKS_FLOCK, LOCKS_SHARED, true), 0);
	assert_int_equal(ask(3, 2, 1, LOCKS_FLOCK, LOCKS_EXCLUSIVE, false), 1);
	assert_int_equal(w.probe[2], w.probe[3]);
	locks_probed(w.t, 2, w.probe[2]);
	assert_int_equal(w.answers, 0);
	assert_int_equal(ask(2, 1, 1, LOCKS_FLOCK, LOCKS_OFF, false), 0);
	assert_int_equal(ask(3, 1, 1, LOCKS_FLOCK, LOCKS_OFF, false), 0);
	assert_true(locks_holds(w.t, 3, 1, 2, LOCKS_FLOCK, NULL));
	locks_count(w.t, &held, &waiting);
	assert_int_equal(held, 1);
	assert_int_equal(waiting, 0);
	world_free();
}

/* (L5) Nobody waits for who cannot answer. */
static void test_locks__probes_end(void **state)
{
	unsigned how;

	(void)state;
	for (how = 0; how < 4; how++) {
		uint64_t number;

		world_init();
		w.off = true;
		assert_int_equal(ask(1, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
		locks_probes(w.t, 1, 0);
		assert_int_equal(ask(2, 1, 1, LOCKS_POSIX, LOCKS_SHARED, false), 1);
		number = locks_probing(w.t);
		/* Who waits for what it has is in no circle with it: it goes on. */
		assert_int_equal(ask(2, 1, 2, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
		assert_int_equal(ask(1, 1, 2, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 1);
		w.answers = 0;
		if (how == 0)
			locks_leave(w.t, 1);
		else if (how == 1)
			locks_probe_end(w.t, number);
		else if (how == 2)
			locks_cancel(w.t, 2, 2);
		else
			locks_expire(w.t, 1);
		assert_int_equal(w.answers, 1);
		assert_int_equal(w.last.error, how == 2 ? -EINTR : how == 3 ? 0 : -EAGAIN);
		assert_int_equal(locks_probing(w.t), 0);
		assert_true(locks_check(w.t));
		/* With a statement of the client it is asked anew; if it has gone, not before it says that it can be asked. */
		if (how < 2) {
			static uint8_t buf[LOCKS_STATE_MAX];
			size_t len = locks_state(w.t, 1, 4, "one", buf);

			assert_int_equal(ask(2, 1, 1, LOCKS_POSIX, LOCKS_SHARED, false), how == 1 ? 1 : -EAGAIN);
			number = w.probe[1];
			w.answers = 0;
			assert_int_equal(locks_restate(w.t, 1, buf, len, NULL, NULL), 0);
			assert_int_equal(w.answers, 0);
			assert_int_equal(w.probe[1] > number, how == 1);
			assert_int_equal(w.probe_round, how == 1 ? 4 : 0);
			locks_probed(w.t, 1, w.probe[1]);
			assert_int_equal(w.answers, how == 1);
			locks_probes(w.t, 1, 0);
			assert_int_equal(ask(3, 1, 1, LOCKS_POSIX, LOCKS_SHARED, false), how == 1 ? 1 : -EAGAIN);
			locks_probe_end(w.t, locks_probing(w.t));
			number = w.probe[1];
		}
		/* Numbers of another primary are older than any of ours. */
		locks_follow(w.t, 9);
		locks_lead(w.t, 6, number + 100, false);
		assert_int_equal(ask(1, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
		locks_probes(w.t, 1, 0);
		w.probe[1] = 0;
		assert_int_equal(ask(3, 1, 1, LOCKS_POSIX, LOCKS_SHARED, false), 1);
		assert_true(w.probe[1] > number + 100);
		world_free();
	}
}

static void test_locks__bounds(void **state)
{
	struct lock_op op = { .ino = 1, .owner = 1, .kind = LOCKS_POSIX, .type = LOCKS_SHARED };
	unsigned held, waiting;
	uint64_t i;

	(void)state;
	world_init();
	w.off = true;
	for (i = 0; i < LOCKS_CLIENT_MAX + 1; i++) {
		op.ticket = i + 1;
		op.ino = i % 1000 + 1;
		op.start = op.end = 2 * i;
		locks_request(w.t, 1, &op);
		assert_int_equal(w.last.error, i < LOCKS_CLIENT_MAX ? 0 : -ENOLCK);
	}
	op.type = LOCKS_OFF;
	op.ino = 1;
	op.start = 0;
	op.end = LOCKS_END;
	locks_request(w.t, 1, &op);
	assert_int_equal(w.last.error, 0);
	assert_int_equal(ask(2, 1, 5000, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), 0);
	for (i = 0; i < LOCKS_WAIT_MAX + 1; i++)
		assert_int_equal(ask(3, i + 10, 5000, LOCKS_FLOCK, LOCKS_EXCLUSIVE, true), i < LOCKS_WAIT_MAX ? 1 : -ENOLCK);
	locks_count(w.t, &held, &waiting);
	assert_int_equal(waiting, LOCKS_WAIT_MAX);
	locks_expire(w.t, 3);
	locks_expire(w.t, 1);
	locks_count(w.t, &held, &waiting);
	assert_int_equal(held, 1);
	assert_int_equal(waiting, 0);
	world_free();
}

static void test_locks__handle(void **state)
{
	struct lock_op op = { .ticket = 1, .ino = 1, .owner = 5, .handle = 9, .end = 3, .kind = LOCKS_POSIX, .type = LOCKS_SHARED };
	uint64_t owner = 0;

	(void)state;
	world_init();
	w.off = true;
	locks_request(w.t, 1, &op);
	assert_false(locks_of_handle(w.t, 1, 1, 8, &owner));
	assert_true(locks_of_handle(w.t, 1, 1, 9, &owner));
	assert_int_equal(owner, 5);
	world_free();
}

static void test_locks__listing(void **state)
{
	char text[1024], few[20];
	size_t len;

	(void)state;
	world_init();
	w.off = true;
	assert_int_equal(locks_to_text(w.t, text, sizeof text), 0);
	assert_int_equal(ask(1, 1, 12, LOCKS_POSIX, LOCKS_SHARED, true), 0);
	locks_name(w.t, 1, "a'b\n");
	len = locks_to_text(w.t, text, sizeof text);
	assert_string_equal(text, "ino=12 kind=posix type=shared range=0-end holder='a?b?' pid=101 fence=5.1 state=held\n");
	assert_int_equal(locks_to_text(w.t, few, sizeof few), len);
	assert_int_equal(strlen(few), sizeof few - 1);
	assert_int_equal(locks_to_text(w.t, NULL, 0), len);
	world_free();
}

/* Bytes that cannot be --------------------------------------------------------------------------------------------- */

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
	world_init();
	w.off = true;
	assert_int_equal(ask(2, 1, 1, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
	for (i = 2; i < 6; i++)
		assert_int_equal(ask(1, 1, i, LOCKS_POSIX, LOCKS_EXCLUSIVE, true), 0);
	len = locks_state(w.t, 1, 1, "x", buf);
	for (i = 1; i < len; i++) {
		p = exact(buf, i);
		assert_int_equal(locks_restate(w.t, 1, p, i, NULL, NULL), -EPROTO);
		free(p);
	}
	assert_true(locks_holds(w.t, 1, 2, 1, LOCKS_POSIX, NULL));
	for (i = 0; i < rounds; i++) {
		unsigned n = rnd(4) + 1;

		p = exact(buf, len);
		while (n-- > 0)
			p[rnd((uint32_t)len)] = (uint8_t)rnd(256);
		(void)locks_restate(w.t, 1, p, len, NULL, NULL);
		free(p);
		if (!locks_check(w.t) || !locks_holds(w.t, 2, 1, 1, LOCKS_POSIX, NULL))
			fail_msg("SEED=%llu: a statement broke the table", (unsigned long long)seed);
	}
	/* None: it has none. */
	assert_int_equal(locks_restate(w.t, 1, NULL, 0, NULL, NULL), 0);
	assert_false(locks_holds(w.t, 1, 2, 1, LOCKS_POSIX, NULL));
	world_free();
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
	world_init();
	w.off = true;
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
			locks_request(w.t, rnd(CLIENTS) + 1, &got);
		else if (what == LOCK_CALL_GET)
			locks_query(w.t, 1, &got);
		else if (what == LOCK_CALL_PROBES)
			locks_probes(w.t, rnd(CLIENTS) + 1, rnd(2));
		else
			locks_probed(w.t, rnd(CLIENTS) + 1, got.ticket);
	}
	assert_true(locks_check(w.t));
	world_free();
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
		cmocka_unit_test(test_locks__random),
		cmocka_unit_test(test_locks__fair),
		cmocka_unit_test(test_locks__change_of_flock),
		cmocka_unit_test(test_locks__circle_of_three),
		cmocka_unit_test(test_locks__ranges_are_one),
		cmocka_unit_test(test_locks__grant_that_frees),
		cmocka_unit_test(test_locks__behind_who_expires),
		cmocka_unit_test(test_locks__forged_statement),
		cmocka_unit_test(test_locks__stated_where_it_may_not),
		cmocka_unit_test(test_locks__asked_twice),
		cmocka_unit_test(test_locks__grace),
		cmocka_unit_test(test_locks__closed_is_unlocked),
		cmocka_unit_test(test_locks__probes_end),
		cmocka_unit_test(test_locks__bounds),
		cmocka_unit_test(test_locks__handle),
		cmocka_unit_test(test_locks__listing),
		cmocka_unit_test(test_locks__hostile_statements),
		cmocka_unit_test(test_locks__hostile_calls),
		cmocka_unit_test(test_locks__hostile_messages),
	};

	seed = random_seed();
	rounds = env_number("ROUNDS", 20000);
	(void)printf("# ROUNDS=%llu\n", (unsigned long long)rounds);
	return cmocka_run_group_tests_name("locks", tests, NULL, NULL);
}
