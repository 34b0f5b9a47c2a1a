/* SPDX-License-Identifier: MIT
 *
 * test_locks_model: the lock table against a model that knows, byte by byte, who has what: random requests, cancels,
 * statements, clients that leave or expire, and new primaries.
 *
 *   SEED=n   replays it        ROUNDS=n   how long it is
 */
#include "tests/unit/ok_util.h"
#include "tests/unit/random_util.h"
#include "tests/unit/table_util.h"

#include <stdio.h>

#define CLIENTS TABLE_CLIENTS
#define OWNERS  3u              /* of each */
#define NODES   (CLIENTS * OWNERS)
#define INOS    2u
#define BYTES   12u             /* the last one stands for all behind */
#define WAITERS 256u
#define PROBE   99u             /* a client that only asks */

static uint64_t seed, rounds;

struct waiter {
	uint32_t node;
	struct lock_op op;
};

static struct world {
	struct locks *mirror[CLIENTS];
	uint8_t posix[INOS][BYTES][NODES], flock[INOS][NODES];  /* enum lock_type */
	struct waiter waiting[WAITERS];
	unsigned waiting_count;
	uint64_t counter;
} w;

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

	table_on_answer(ctx, a);
	if (a->client == PROBE || a->lost)
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

/* Each byte has in the table what it has in the model. */
static void compare(void)
{
	unsigned ino, b, n;

	if (!locks_check(table.locks))
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
			locks_query(table.locks, PROBE, &op);
			if (table.last.type != want)
				fail_msg("SEED=%llu: byte %u of inode %u: %u, not %u", (unsigned long long)seed, b, ino + 1,
					 table.last.type, want);
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
	memset(&table, 0, sizeof table);
	table.locks = locks_new(on_answer, table_on_probe, NULL);
	assert_non_null(table.locks);
	locks_lead(table.locks, 5, 0, false);
	for (i = 0; i < CLIENTS; i++) {
		w.mirror[i] = locks_new(on_answer, table_on_probe, NULL);
		assert_non_null(w.mirror[i]);
		locks_lead(w.mirror[i], 5, 0, false);
	}
}

static void world_free(void)
{
	unsigned i, held, waiting;

	locks_free(table.locks);
	for (i = 0; i < CLIENTS; i++) {
		locks_count(w.mirror[i], &held, &waiting);
		assert_int_equal(waiting, 0);
		locks_free(w.mirror[i]);
	}
}

static void random_request(void)
{
	unsigned node = rnd(NODES);
	uint64_t client = node / OWNERS + 1;
	struct lock_op op = { .ticket = ++table.ticket, .ino = rnd(INOS) + 1, .owner = node % OWNERS + 1, .pid = node + 1,
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
	table.answers = 0;
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
	locks_request(table.locks, client, &op);
	if (table.answers > 0 && table.last.ticket == op.ticket && table.last.client == client) {
		int error = table.last.error;

		if (circle != (error == -EDEADLK) || (blocked && !op.wait) != (error == -EAGAIN) || (error != 0 && !blocked))
			fail_msg("SEED=%llu: blocked %d, circle %d: %d", (unsigned long long)seed, blocked, circle, error);
	} else if (op.type != LOCKS_OFF && !op.wait && table.answers == 0) {
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
	locks_cancel(table.locks, one.node / OWNERS + 1, one.op.ticket);
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
	w.mirror[client - 1] = locks_new(on_answer, table_on_probe, NULL);
	assert_non_null(w.mirror[client - 1]);
	locks_lead(w.mirror[client - 1], 5, 0, false);
	locks_expire(table.locks, client);
}

/* It states what it has: nothing changes but that it waits no more. */
static void random_restate(void)
{
	static uint8_t buf[LOCKS_STATE_MAX];
	uint64_t client = rnd(CLIENTS) + 1;
	size_t len = locks_state(w.mirror[client - 1], client, 7, "name", buf);

	drop_waiters(client);
	table.lost = 0;
	assert_int_equal(locks_restate(table.locks, client, buf, len, NULL, NULL), 0);
	assert_int_equal(table.lost, 0);
}

static void random_leave(void)
{
	uint64_t client = rnd(CLIENTS) + 1;

	drop_waiters(client);
	locks_leave(table.locks, client);
}

/* Another one becomes the primary, and is told by all what they have. */
static void new_primary(void)
{
	static uint8_t buf[LOCKS_STATE_MAX];
	uint64_t c;

	locks_free(table.locks);
	table.locks = locks_new(on_answer, table_on_probe, NULL);
	assert_non_null(table.locks);
	locks_lead(table.locks, 5, w.counter, true);
	w.waiting_count = 0;
	table.lost = 0;
	for (c = 1; c <= CLIENTS; c++)
		assert_int_equal(locks_restate(table.locks, c, buf, locks_state(w.mirror[c - 1], c, 1, "", buf), NULL, NULL), 0);
	assert_int_equal(table.lost, 0);
	locks_grace_end(table.locks);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_locks__random),
	};

	seed = random_seed();
	rounds = env_number("ROUNDS", 20000);
	(void)printf("# ROUNDS=%llu\n", (unsigned long long)rounds);
	return cmocka_run_group_tests_name("locks_model", tests, NULL, NULL);
}
