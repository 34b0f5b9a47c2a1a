/* SPDX-License-Identifier: MIT
 *
 * test_pending: the table of calls under way: order, the window of numbers, what is sent again after a cut, interrupts,
 * memory; and against a primary that remembers the answers of just a window of numbers, with cuts and losses at random:
 * no call is lost, none is executed twice, each is answered once.
 *
 *   SEED=n   replays the random part        ROUNDS=n   how long it is
 */
#include "tests/unit/random_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base.h"
#include "fs/pending.h"

#include <stdio.h>
#include <stdlib.h>

#define LOG_MAX 400u

static uint64_t seed, rounds;

/* Upstream: what was sent, in order; refuses when told to. */
static struct {
	uint64_t next;
	struct { uint64_t request, ino; bool again; } sent[LOG_MAX];
	unsigned count;
	int error;
	uint64_t cancelled[20];
	unsigned cancelled_count;
	unsigned room;          /* so many more are taken before -EAGAIN */
} up;

/* What the kernel was told. */
static struct { uint64_t unique, number; int error; unsigned unsure; bool interrupted, made; } told[LOG_MAX];
static bool sync_after;        /* what was made waits for disks, too */
static unsigned told_count;

static void note(uint64_t request, const void *bytes, size_t len, bool again)
{
	struct call c;

	assert_int_equal(call_decode(bytes, len, &c), 0);
	assert_true(up.count < LOG_MAX);
	up.sent[up.count].request = request;
	up.sent[up.count].ino = c.ino;
	up.sent[up.count++].again = again;
}

static int up_send(void *ctx, const void *call, size_t len, uint64_t *ret_request)
{
	assert_ptr_equal(ctx, &up);
	if (up.error < 0)
		return up.error;
	if (up.room == 0)
		return -EAGAIN;
	up.room--;
	*ret_request = ++up.next;
	note(*ret_request, call, len, false);
	return 0;
}

static int up_resend(void *ctx, uint64_t request, const void *call, size_t len)
{
	assert_ptr_equal(ctx, &up);
	if (up.room == 0)
		return -EAGAIN;
	up.room--;
	note(request, call, len, true);
	return 0;
}

static void up_cancel(void *ctx, uint64_t request)
{
	assert_ptr_equal(ctx, &up);
	assert_true(up.cancelled_count < ARRAY_LEN(up.cancelled));
	up.cancelled[up.cancelled_count++] = request;
}

static const struct fs_upstream upstream = { &up, up_send, up_resend, up_cancel };
/* One that keeps calls by itself. */
static const struct fs_upstream keeper = { &up, up_send, NULL, up_cancel };

static void on_answer(void *ctx, struct pending_call *p, const struct call_result *res)
{
	const struct call sync = { .op = CALL_SYNC, .flags = CALL_DURABLE, .how = 2, .len = 100 };

	assert_true(told_count < LOG_MAX);
	assert_null(p->what.name.s);
	assert_null(p->what.data);
	if (sync_after && res->error == 0 && !p->made) {
		assert_int_equal(pending_add_sync(ctx, p, res, &sync), 0);
		return;
	}
	told[told_count].made = p->made;
	told[told_count].unique = p->unique;
	told[told_count].number = p->made ? p->first.number : res->number;
	told[told_count].error = res->error;
	told[told_count].unsure = p->unsure;
	told[told_count++].interrupted = p->interrupted;
}

static void start(struct pending *t)
{
	memset(&up, 0, sizeof up);
	up.room = UINT32_MAX;
	told_count = 0;
	sync_after = false;
	pending_init(t, &upstream, on_answer, t);
}

/* A call on inode `unique`, so that it is known again. */
static int add(struct pending *t, uint64_t unique)
{
	const struct call c = { .op = CALL_WRITE, .ino = unique, .data = "data", .size = 4 };

	return pending_add(t, NULL, unique, &c, NULL, 0);
}

static bool done(struct pending *t, uint64_t request, int error, uint64_t number)
{
	const struct call_result res = { .error = error, .number = number };

	return pending_complete(t, request, &res);
}

static void test_pending__order_and_window(void **state)
{
	struct pending t;
	unsigned i;

	(void)state;
	start(&t);
	for (i = 1; i <= 40; i++)
		assert_int_equal(add(&t, i), 0);
	assert_int_equal(up.count, 0);
	pending_link_up(&t);
	assert_int_equal(up.count, PENDING_WINDOW);
	for (i = 0; i < up.count; i++) {
		assert_int_equal(up.sent[i].request, i + 1);
		assert_int_equal(up.sent[i].ino, i + 1);
	}
	/* A later one answered makes no room: the oldest counts. */
	assert_true(done(&t, 2, 0, 20));
	assert_true(done(&t, 32, -ENOENT, 0));
	assert_int_equal(up.count, PENDING_WINDOW);
	assert_true(done(&t, 1, 0, 10));
	assert_int_equal(up.count, PENDING_WINDOW + 2);
	assert_int_equal(up.sent[up.count - 1].request, 34);
	assert_int_equal(up.sent[up.count - 1].ino, 34);
	assert_int_equal(told_count, 3);
	assert_int_equal(told[0].unique, 2);
	assert_int_equal(told[0].number, 20);
	assert_int_equal(told[1].error, -ENOENT);
	/* Answered before, never sent, none. */
	assert_false(done(&t, 1, 0, 0));
	assert_false(done(&t, 36, 0, 0));
	assert_false(done(&t, 0, 0, 0));
	for (i = 3; i <= 40; i++)
		assert_true(i == 32 || done(&t, i, 0, i));
	assert_int_equal(t.count, 0);
	assert_int_equal(t.bytes, 0);
	assert_int_equal(up.count, 40);
	pending_release(&t);
}

static void test_pending__sent_again_in_order(void **state)
{
	uint64_t lowest = 0;
	struct pending t;
	unsigned i;

	(void)state;
	start(&t);
	pending_link_up(&t);
	for (i = 1; i <= 5; i++)
		assert_int_equal(add(&t, i), 0);
	assert_true(done(&t, 2, 0, 0));
	pending_link_down(&t);
	assert_int_equal(add(&t, 6), 0);
	assert_int_equal(up.count, 5);
	assert_true(pending_lowest(&t, &lowest));
	assert_int_equal(lowest, 1);
	/* An answer that came just before the cut. */
	assert_true(done(&t, 1, 0, 0));
	assert_true(pending_lowest(&t, &lowest));
	assert_int_equal(lowest, 3);
	up.room = 2;
	pending_link_up(&t);
	assert_int_equal(up.count, 7);
	up.room = 1;
	pending_push(&t);
	/* A cut in the middle of it: from the beginning. */
	pending_link_down(&t);
	up.room = UINT32_MAX;
	pending_link_up(&t);
	assert_int_equal(up.count, 12);
	for (i = 0; i < 4; i++) {
		assert_int_equal(up.sent[8 + i].request, 3 + i);
		assert_int_equal(up.sent[8 + i].ino, 3 + i);
		assert_int_equal(up.sent[8 + i].again, i < 3);
	}
	pending_release(&t);
	assert_int_equal(told_count, 2);
}

static void test_pending__upstream_refuses(void **state)
{
	struct pending t;

	(void)state;
	start(&t);
	pending_link_up(&t);
	up.room = 1;
	assert_int_equal(add(&t, 1), 0);
	assert_int_equal(add(&t, 2), 0);
	assert_int_equal(up.count, 1);
	up.error = -E2BIG;
	up.room = UINT32_MAX;
	pending_push(&t);
	assert_int_equal(told_count, 1);
	assert_int_equal(told[0].unique, 2);
	assert_int_equal(told[0].error, -E2BIG);
	assert_int_equal(add(&t, 3), 0);
	assert_int_equal(told[1].unique, 3);
	up.error = 0;
	assert_int_equal(add(&t, 4), 0);
	assert_int_equal(up.sent[1].request, 2);
	assert_int_equal(t.count, 2);
	pending_release(&t);
}

static void test_pending__upstream_that_keeps(void **state)
{
	struct pending t;
	unsigned i;

	(void)state;
	start(&t);
	t.upstream = &keeper;
	/* It takes all that it can, line or not, and the bytes are its own then. */
	up.room = 100;
	for (i = 1; i <= 110; i++)
		assert_int_equal(add(&t, i), 0);
	assert_int_equal(up.count, 100);
	assert_int_equal(t.count, 110);
	assert_int_equal(t.bytes, 10 * t.first->len);
	pending_link_up(&t);
	pending_link_down(&t);
	pending_link_up(&t);
	assert_int_equal(up.count, 100);
	up.room = 5;
	assert_true(done(&t, 50, 0, 1));
	assert_int_equal(up.count, 105);
	assert_int_equal(up.sent[104].ino, 105);
	/* What nobody waits for any more is said. */
	assert_true(pending_interrupt(&t, 107));
	assert_true(pending_interrupt(&t, 1));
	assert_true(pending_interrupt(&t, 2));
	assert_int_equal(up.cancelled_count, 0);
	pending_link_down(&t);
	assert_int_equal(up.cancelled_count, 2);
	assert_int_equal(up.cancelled[1], 2);
	assert_int_equal(told[told_count - 1].unique, 107);
	assert_int_equal(told[told_count - 1].error, -EINTR);
	assert_int_equal(up.cancelled_count, 2);
	assert_true(pending_interrupt(&t, 60));
	assert_int_equal(up.cancelled[2], 60);
	assert_false(done(&t, 60, 0, 1));
	pending_release(&t);
	assert_int_equal(t.bytes, 0);
}

static void test_pending__interrupts(void **state)
{
	struct pending t;
	unsigned i;

	(void)state;
	start(&t);
	pending_link_up(&t);
	for (i = 1; i <= 4; i++)
		assert_int_equal(add(&t, i), 0);
	/* The answer is on its way. */
	assert_true(pending_interrupt(&t, 2));
	assert_true(pending_interrupt(&t, 3));
	assert_false(pending_interrupt(&t, 9));
	assert_int_equal(told_count, 0);
	assert_true(done(&t, 3, 0, 0));
	assert_int_equal(told[0].error, 0);
	assert_true(told[0].interrupted);
	pending_link_down(&t);
	assert_int_equal(told_count, 2);
	assert_int_equal(told[1].unique, 2);
	assert_int_equal(told[1].error, -EINTR);
	assert_true(pending_interrupt(&t, 4));
	assert_int_equal(told[2].unique, 4);
	assert_int_equal(told[2].error, -EINTR);
	/* What was interrupted is not sent again. */
	pending_link_up(&t);
	assert_int_equal(up.count, 5);
	assert_int_equal(up.sent[4].request, 1);
	assert_false(done(&t, 2, 0, 0));
	assert_int_equal(t.count, 1);
	pending_release(&t);
}

static void test_pending__crossed(void **state)
{
	struct pending t;
	const struct call c = { .op = CALL_APPEND, .ino = 5, .data = "x", .size = 1, .off = 77 };

	(void)state;
	start(&t);
	pending_link_up(&t);
	assert_int_equal(add(&t, 4), 0);
	assert_int_equal(pending_add(&t, NULL, 5, &c, NULL, 0), 0);
	assert_int_equal(pending_add(&t, NULL, 6, &c, NULL, PENDING_UNSURE_END), 0);
	pending_crossed(&t, 4);
	pending_crossed(&t, 9);
	assert_true(done(&t, 1, 0, 4));
	assert_true(done(&t, 2, 0, 1));
	assert_true(done(&t, 3, 0, 1));
	assert_int_equal(told[0].unsure, PENDING_UNSURE_END | PENDING_UNSURE_MODE);
	assert_int_equal(told[1].unsure, 0);
	assert_int_equal(told[2].unsure, PENDING_UNSURE_END);
	pending_release(&t);
}

/* One that is to be on more disks is called, then its sync; the kernel hears of the first when the second is answered. */
static void test_pending__waits_for_disks(void **state)
{
	struct pending t;

	(void)state;
	start(&t);
	sync_after = true;
	pending_link_up(&t);
	assert_int_equal(add(&t, 5), 0);
	assert_int_equal(add(&t, 6), 0);
	assert_int_equal(add(&t, 7), 0);
	assert_true(done(&t, 1, 0, 55));
	assert_int_equal(told_count, 0);
	assert_int_equal(up.count, 4);
	assert_int_equal(up.sent[3].ino, 0);
	/* One that failed waits for nothing. */
	assert_true(done(&t, 2, -EEXIST, 0));
	assert_int_equal(told_count, 1);
	assert_false(told[0].made);
	assert_true(done(&t, 3, 0, 77));
	/* Interrupts find it by the kernel's number, in either half. */
	assert_true(pending_interrupt(&t, 5));
	assert_false(pending_interrupt(&t, 6));
	assert_true(done(&t, 4, 0, 0));
	assert_int_equal(told_count, 2);
	assert_int_equal(told[1].unique, 5);
	assert_int_equal(told[1].number, 55);
	assert_true(told[1].made && told[1].interrupted);
	assert_true(done(&t, 5, -ETIMEDOUT, 0));
	assert_int_equal(told[2].unique, 7);
	assert_int_equal(told[2].error, -ETIMEDOUT);
	assert_null(t.first);
	pending_release(&t);
}

static void test_pending__memory(void **state)
{
	static uint8_t data[KEYS_WRITE_MAX];
	const struct call c = { .op = CALL_WRITE, .ino = 2, .data = data, .size = sizeof data };
	struct pending t;
	unsigned n;
	int r;

	(void)state;
	start(&t);
	for (n = 1; (r = pending_add(&t, NULL, n, &c, NULL, 0)) == 0; n++)
		assert_true(n < 100);
	assert_int_equal(r, -ENOBUFS);
	assert_true(pending_is_full(&t));
	assert_int_equal(n, 65);
	assert_true(pending_interrupt(&t, 1));
	assert_false(pending_is_full(&t));
	assert_int_equal(pending_add(&t, NULL, n, &c, NULL, 0), 0);
	pending_release(&t);
}

/* Random: a primary behind a line that breaks ------------------------------------------------------------------------ */

/* A call carries its own number in its offset. */
#define OPS_MAX 20000u
static struct {
	uint8_t executed[OPS_MAX];
	uint8_t answered[OPS_MAX];
	int error[OPS_MAX];
	struct { uint64_t request, op; } slot[PENDING_WINDOW];  /* what the primary remembers */
	struct { uint64_t request, op; } line[200];             /* sent, not executed */
	struct { uint64_t request, op; } back[400];             /* answers under way */
	unsigned line_count, back_count;
	uint64_t next;
} world;

static int world_take(uint64_t request, const void *bytes, size_t len)
{
	struct call c;

	if (world.line_count == ARRAY_LEN(world.line) || rnd(10) == 0)
		return -EAGAIN;
	assert_int_equal(call_decode(bytes, len, &c), 0);
	world.line[world.line_count].request = request;
	world.line[world.line_count++].op = c.off;
	return 0;
}

static int world_send(void *ctx, const void *call, size_t len, uint64_t *ret_request)
{
	int r = world_take(world.next + 1, call, len);

	(void)ctx;
	if (r == 0)
		*ret_request = ++world.next;
	return r;
}

static int world_resend(void *ctx, uint64_t request, const void *call, size_t len)
{
	(void)ctx;
	return world_take(request, call, len);
}

static const struct fs_upstream world_upstream = { NULL, world_send, world_resend, NULL };

static void world_answer(void *ctx, struct pending_call *p, const struct call_result *res)
{
	uint64_t op = p->what.off;

	(void)ctx;
	world.answered[op]++;
	world.error[op] = res->error;
	/* An answer is the one of this call. */
	if (res->error == 0 && (res->number != op || world.executed[op] != 1))
		fail_msg("SEED=%llu: call %llu: answer of %llu, executed %u times", (unsigned long long)seed, (unsigned long long)op,
			 (unsigned long long)res->number, world.executed[op]);
}

/* The primary executes the first of what came, unless it remembers it. */
static void world_execute(void)
{
	uint64_t request, op;

	if (world.line_count == 0)
		return;
	request = world.line[0].request;
	op = world.line[0].op;
	memmove(world.line, world.line + 1, --world.line_count * sizeof world.line[0]);
	if (world.slot[request % PENDING_WINDOW].request != request) {
		world.executed[op]++;
		world.slot[request % PENDING_WINDOW].request = request;
		world.slot[request % PENDING_WINDOW].op = op;
	}
	if (world.back_count < ARRAY_LEN(world.back)) {
		world.back[world.back_count].request = request;
		world.back[world.back_count++].op = world.slot[request % PENDING_WINDOW].op;
	}
}

/* Some answers take longer (fsync). */
static void world_deliver(struct pending *t)
{
	struct call_result res = { 0 };
	unsigned i;
	uint64_t request;

	if (world.back_count == 0)
		return;
	i = rnd(3) ? 0 : rnd(world.back_count);
	request = world.back[i].request;
	res.number = world.back[i].op;
	memmove(world.back + i, world.back + i + 1, (--world.back_count - i) * sizeof world.back[0]);
	(void)pending_complete(t, request, &res);
}

static void world_cut(struct pending *t)
{
	pending_link_down(t);
	/* Some of what was under way still arrives. */
	while (world.line_count > 0 && rnd(3))
		world_execute();
	world.line_count = world.back_count = 0;
}

static void test_pending__random(void **state)
{
	uint64_t i, ops = 0, ended = 0;
	struct pending t;
	bool linked = false;

	(void)state;
	pending_init(&t, &world_upstream, world_answer, NULL);
	for (i = 0; i < rounds; i++) {
		uint32_t what = rnd(1000);

		if (what < 250 && ops < OPS_MAX && t.count < 80) {
			const struct call c = { .op = CALL_WRITE, .ino = 1 + ops % 9, .off = ops, .data = "x", .size = 1 };

			assert_int_equal(pending_add(&t, NULL, ops, &c, NULL, 0), 0);
			ops++;
		} else if (what < 550) {
			world_execute();
		} else if (what < 850) {
			world_deliver(&t);
		} else if (what < 990) {
			pending_push(&t);
		} else if (what < 997) {
			if (linked)
				world_cut(&t);
			else
				pending_link_up(&t);
			linked = !linked;
		} else if (t.first) {
			(void)pending_interrupt(&t, t.first->unique);
		}
	}
	while (t.count > 0) {
		if (!linked)
			pending_link_up(&t);
		linked = true;
		world_execute();
		world_deliver(&t);
		pending_push(&t);
	}
	for (i = 0; i < ops; i++) {
		if (world.answered[i] != 1 || world.executed[i] > 1 || (world.error[i] == 0 && world.executed[i] != 1))
			fail_msg("SEED=%llu: call %llu: executed %u times, answered %u times with %d", (unsigned long long)seed,
				 (unsigned long long)i, world.executed[i], world.answered[i], world.error[i]);
		ended += world.error[i] != 0;
	}
	(void)printf("# %llu calls, %llu of them ended early\n", (unsigned long long)ops, (unsigned long long)ended);
	assert_true(ops > rounds / 100 && ended < ops);
	pending_release(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pending__order_and_window),
		cmocka_unit_test(test_pending__sent_again_in_order),
		cmocka_unit_test(test_pending__upstream_refuses),
		cmocka_unit_test(test_pending__upstream_that_keeps),
		cmocka_unit_test(test_pending__interrupts),
		cmocka_unit_test(test_pending__crossed),
		cmocka_unit_test(test_pending__waits_for_disks),
		cmocka_unit_test(test_pending__memory),
		cmocka_unit_test(test_pending__random),
	};

	seed = random_seed();
	rounds = env_number("ROUNDS", 100000);
	(void)printf("# ROUNDS=%llu\n", (unsigned long long)rounds);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
