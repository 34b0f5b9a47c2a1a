/* SPDX-License-Identifier: MIT
 * The checker of histories (tests/remote/linear/): what is possible is accepted, what is not is refused, and on many random
 * small histories it says what trying every order says.
 */
#include "tests/remote/linear/linear.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

enum { OPS_MAX = 64, PRIMARY = 0, TWO = 1, THREE = 2 };

static struct linear_op ops[OPS_MAX];
static size_t count;

static struct linear_op *add(enum linear_kind kind, unsigned mount, int64_t begun, int64_t returned)
{
	struct linear_op *op = &ops[count++];

	*op = (struct linear_op){ .kind = kind, .mount = mount, .is_stale = mount != PRIMARY, .begun = begun, .returned = returned };
	return op;
}

static void put(unsigned mount, uint64_t value, int64_t begun, int64_t returned)
{
	add(LINEAR_PUT, mount, begun, returned)->value = value;
}

static void append(unsigned mount, uint64_t value, int64_t begun, int64_t returned)
{
	add(LINEAR_APPEND, mount, begun, returned)->value = value;
}

static void refused(enum linear_kind kind, unsigned mount, int64_t begun, int64_t returned)
{
	add(kind, mount, begun, returned)->refused = true;
}

/* A read of n values; n < 0: there was none. */
static void get(unsigned mount, int64_t begun, int64_t returned, int n, ...)
{
	struct linear_op *op = add(LINEAR_READ, mount, begun, returned);
	va_list ap;

	op->state = n < 0 ? LINEAR_ABSENT : LINEAR_EMPTY;
	va_start(ap, n);
	for (int i = 0; i < n; i++)
		op->state = linear_fold(op->state, (uint64_t)va_arg(ap, int));
	va_end(ap);
}

static int verdict(void)
{
	size_t done, at;
	int r = linear_check(ops, count, &done, &at);

	count = 0;
	return r;
}

static void test_linear__in_a_row(void **state)
{
	(void)state;
	get(PRIMARY, 1, 2, -1);
	put(PRIMARY, 7, 3, 4);
	get(PRIMARY, 5, 6, 1, 7);
	append(TWO, 8, 7, 8);
	get(PRIMARY, 9, 10, 2, 7, 8);
	add(LINEAR_REMOVE, THREE, 11, 12);
	refused(LINEAR_REMOVE, PRIMARY, 13, 14);
	refused(LINEAR_APPEND, PRIMARY, 15, 16);
	add(LINEAR_CREATE, TWO, 17, 18);
	refused(LINEAR_CREATE, PRIMARY, 19, 20);
	get(PRIMARY, 21, 22, 0);
	assert_int_equal(verdict(), 1);
}

static void test_linear__a_lost_update(void **state)
{
	(void)state;
	put(PRIMARY, 1, 1, 2);
	append(TWO, 2, 3, 10);
	append(THREE, 3, 4, 9);
	get(PRIMARY, 11, 12, 2, 1, 3);
	assert_int_equal(verdict(), 0);
	/* Both orders of two appends at the same time are right. */
	for (int swap = 0; swap < 2; swap++) {
		put(PRIMARY, 1, 1, 2);
		append(TWO, 2, 3, 10);
		append(THREE, 3, 4, 9);
		get(PRIMARY, 11, 12, 3, 1, swap ? 2 : 3, swap ? 3 : 2);
		assert_int_equal(verdict(), 1);
	}
}

static void test_linear__an_old_read_at_the_primary(void **state)
{
	(void)state;
	put(PRIMARY, 1, 1, 2);
	put(TWO, 2, 3, 4);
	get(PRIMARY, 5, 6, 1, 1);
	assert_int_equal(verdict(), 0);
	/* While the change is under way both are right, but not the new one and then the old. */
	put(PRIMARY, 1, 1, 2);
	put(TWO, 2, 3, 10);
	get(PRIMARY, 4, 5, 1, 1);
	get(PRIMARY, 6, 7, 1, 2);
	assert_int_equal(verdict(), 1);
	put(PRIMARY, 1, 1, 2);
	put(TWO, 2, 3, 10);
	get(PRIMARY, 4, 5, 1, 2);
	get(PRIMARY, 6, 7, 1, 1);
	assert_int_equal(verdict(), 0);
}

static void test_linear__an_old_read_at_a_replica(void **state)
{
	(void)state;
	put(PRIMARY, 1, 1, 2);
	put(PRIMARY, 2, 3, 4);
	get(TWO, 5, 6, 1, 1);
	get(THREE, 5, 6, -1);
	get(THREE, 7, 8, 1, 2);
	get(TWO, 7, 8, 1, 2);
	assert_int_equal(verdict(), 1);
	/* Not back again, */
	put(PRIMARY, 1, 1, 2);
	put(PRIMARY, 2, 3, 4);
	get(TWO, 5, 6, 1, 2);
	get(TWO, 7, 8, 1, 1);
	assert_int_equal(verdict(), 0);
	/* nor older than what was written here, */
	put(PRIMARY, 1, 1, 2);
	put(TWO, 2, 3, 4);
	get(TWO, 5, 6, 1, 1);
	assert_int_equal(verdict(), 0);
	/* nor from the future, */
	get(TWO, 1, 2, 1, 9);
	put(PRIMARY, 9, 3, 4);
	assert_int_equal(verdict(), 0);
	/* nor what never was. */
	put(PRIMARY, 1, 1, 2);
	put(PRIMARY, 2, 3, 4);
	get(TWO, 5, 6, 2, 1, 2);
	assert_int_equal(verdict(), 0);
}

/* A change that is under way may be seen at a replica first, but not when it has returned, nor by who went on from it. */
static void test_linear__a_replica_is_told_first(void **state)
{
	(void)state;
	for (int then = 0; then < 3; then++) {
		put(PRIMARY, 1, 1, 2);
		put(TWO, 2, 3, then == 1 ? 6 : 10);
		get(THREE, 4, 5, 1, 2);
		if (then == 2)
			append(THREE, 3, 6, 7);
		get(PRIMARY, 8, 9, 1, 1);
		assert_int_equal(verdict(), then == 0);
	}
}

static void test_linear__replicas_see_one_order(void **state)
{
	(void)state;
	for (int same = 0; same < 2; same++) {
		put(PRIMARY, 1, 1, 20);
		put(PRIMARY, 2, 1, 20);
		get(TWO, 2, 3, 1, 1);
		get(TWO, 4, 5, 1, 2);
		get(THREE, 2, 3, 1, same ? 1 : 2);
		get(THREE, 4, 5, 1, same ? 2 : 1);
		assert_int_equal(verdict(), same);
	}
}

static void test_linear__exclusive_creation(void **state)
{
	(void)state;
	add(LINEAR_CREATE, TWO, 1, 5);
	add(LINEAR_CREATE, THREE, 2, 6);
	assert_int_equal(verdict(), 0);
	add(LINEAR_CREATE, TWO, 1, 5);
	refused(LINEAR_CREATE, THREE, 2, 6);
	assert_int_equal(verdict(), 1);
	/* Refused by a name that this replica need not have seen to be gone yet; not so at the primary. */
	for (unsigned mount = PRIMARY; mount <= THREE; mount += THREE) {
		add(LINEAR_CREATE, PRIMARY, 1, 2);
		add(LINEAR_REMOVE, PRIMARY, 3, 4);
		refused(LINEAR_CREATE, mount, 5, 6);
		assert_int_equal(verdict(), mount == THREE);
	}
}

static void test_linear__nobody_knows(void **state)
{
	(void)state;
	/* Done late, or never, but not twice and not before it began. */
	put(PRIMARY, 1, 1, 2);
	append(TWO, 2, 3, LINEAR_NEVER);
	get(PRIMARY, 5, 6, 1, 1);
	get(PRIMARY, 7, 8, 2, 1, 2);
	assert_int_equal(verdict(), 1);
	put(PRIMARY, 1, 1, 2);
	append(TWO, 2, 3, LINEAR_NEVER);
	get(PRIMARY, 5, 6, 1, 1);
	assert_int_equal(verdict(), 1);
	put(PRIMARY, 1, 1, 2);
	append(TWO, 2, 3, LINEAR_NEVER);
	get(PRIMARY, 5, 6, 3, 1, 2, 2);
	assert_int_equal(verdict(), 0);
	put(PRIMARY, 1, 1, 2);
	get(PRIMARY, 3, 4, 2, 1, 2);
	append(TWO, 2, 5, LINEAR_NEVER);
	assert_int_equal(verdict(), 0);
}

static void test_linear__where_it_broke(void **state)
{
	size_t done = 0, at = 0;

	(void)state;
	for (int i = 0; i < 20; i++) {
		put(PRIMARY, (uint64_t)i + 1, 10 * i, 10 * i + 2);
		get(PRIMARY, 10 * i + 3, 10 * i + 4, 1, i == 12 ? 11 : i + 1);
	}
	assert_int_equal(linear_check(ops, count, &done, &at), 0);
	count = 0;
	assert_int_equal(done, 25);
	assert_int_equal(at, 25);
}

/* Many pairs of appends at the same time, which nobody reads before the list begins anew; a replica has read one of the first in an
 * order that is not the first one tried. Without the lists that takes more steps than there is memory for. */
static void test_linear__orders_that_nobody_read(void **state)
{
	enum { PAIRS = 40 };
	static const uint64_t list[] = { 2, 1 };
	static struct linear_op many[8 * PAIRS];
	size_t done, at, n = 0;

	(void)state;
	many[n++] = (struct linear_op){ .kind = LINEAR_CREATE, .begun = 0, .returned = 1 };
	for (int64_t i = 0; i < PAIRS; i++)
		for (int64_t k = 0; k < 2; k++)
			many[n++] = (struct linear_op){ .kind = LINEAR_APPEND, .value = (uint64_t)(2 * i + k + 1), .begun = 10 * i + 10 + k,
							.returned = 10 * i + 18 };
	many[n++] = (struct linear_op){ .kind = LINEAR_READ, .mount = TWO, .is_stale = true, .begun = 15, .returned = 10 * PAIRS + 5,
					.list = list, .len = 2, .state = linear_fold(linear_fold(LINEAR_EMPTY, 2), 1) };
	many[n++] = (struct linear_op){ .kind = LINEAR_CLEAR, .begun = 10 * PAIRS + 10, .returned = 10 * PAIRS + 11 };
	assert_int_equal(linear_check(many, n, &done, &at), 1);
}

/* ---- Against trying everything ---- */

static bool comes_before(const struct linear_op *x, const struct linear_op *y)
{
	bool looks = y->kind == LINEAR_READ || y->refused;
	bool old = y->is_stale || (x->is_stale && (x->kind == LINEAR_READ || x->refused));

	return x->returned < y->begun && !(looks && old && x->mount != y->mount);
}

/* Its own words for what an operation does: a list of values, -1 long if there is none. */
struct list { int len; uint64_t v[8]; };

static uint64_t state_of(const struct list *l)
{
	uint64_t s = l->len < 0 ? LINEAR_ABSENT : LINEAR_EMPTY;

	for (int i = 0; i < l->len; i++)
		s = linear_fold(s, l->v[i]);
	return s;
}

static bool step(const struct linear_op *op, struct list *l)
{
	bool there = l->len >= 0;

	switch (op->kind) {
	case LINEAR_READ: return op->state == state_of(l);
	case LINEAR_PUT: *l = (struct list){ 1, { op->value } }; return true;
	case LINEAR_APPEND:
		if (op->refused || !there)
			return op->refused && !there;
		l->v[l->len++] = op->value;
		return true;
	case LINEAR_CREATE:
		if (op->refused || there)
			return op->refused && there;
		l->len = 0;
		return true;
	default:
		if (op->refused || !there)
			return op->refused && !there;
		l->len = op->kind == LINEAR_CLEAR ? 0 : -1;
		return true;
	}
}

static bool every_order(unsigned used, struct list l)
{
	bool all = true;

	for (size_t i = 0; i < count; i++) {
		struct list behind = l;
		bool ready = true;

		if (used & 1u << i)
			continue;
		all = all && ops[i].returned == LINEAR_NEVER;
		for (size_t j = 0; j < count && ready; j++)
			ready = used & 1u << j || !comes_before(&ops[j], &ops[i]);
		if (ready && step(&ops[i], &behind) && every_order(used | 1u << i, behind))
			return true;
	}
	return all;
}

/* told: the lists of reads are known, and each value is written once, mostly. */
static void random_history(bool told)
{
	static uint64_t lists[OPS_MAX][8];
	struct list l = { -1, { 0 } }, seen[8];
	size_t states = 0, n = 3 + (size_t)(rand() % 5);
	int64_t t = 0;

	/* A right one is made in order, then times and results are disturbed. */
	for (size_t i = 0; i < n; i++) {
		unsigned mount = (unsigned)(rand() % 3);
		struct linear_op *op;
		struct list before = l;

		t += 4;
		op = add((enum linear_kind)(rand() % 6), mount, t - rand() % 6, t + 1 + rand() % 6);
		seen[states++ % 8] = l;
		op->value = (uint64_t)(told && rand() % 8 != 0 ? i + 4 : 1 + rand() % 3u);
		if (op->kind == LINEAR_READ) {
			const struct list *from = rand() % 2 ? &l : &seen[(size_t)rand() % (states < 8 ? states : 8)];

			op->state = state_of(from);
			if (told && from->len >= 0) {
				op->list = memcpy(lists[i], from->v, sizeof from->v);
				op->len = (size_t)from->len;
			}
		} else if (!step(op, &l)) {
			l = before;
			op->refused = true;
		}
		if (op->kind != LINEAR_READ && !op->refused && rand() % 8 == 0)
			op->returned = LINEAR_NEVER;
		if (rand() % 8 == 0 && op->kind != LINEAR_READ && op->kind != LINEAR_PUT && op->returned != LINEAR_NEVER)
			op->refused = !op->refused;
	}
}

static void test_linear__as_every_order_says(void **state)
{
	const char *word = getenv("SEED");
	unsigned seed = word ? (unsigned)strtoul(word, NULL, 10) : (unsigned)time(NULL);
	unsigned good = 0;

	(void)state;
	print_message("SEED=%u\n", seed);
	srand(seed);
	for (int i = 0; i < 20000; i++) {
		int want;

		random_history(i % 2 == 1);
		want = every_order(0, (struct list){ -1, { 0 } });
		good += (unsigned)want;
		if (verdict() != want)
			fail_msg("history %d: every order says %d", i, want);
	}
	assert_in_range(good, 4000, 16000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linear__in_a_row),
		cmocka_unit_test(test_linear__a_lost_update),
		cmocka_unit_test(test_linear__an_old_read_at_the_primary),
		cmocka_unit_test(test_linear__an_old_read_at_a_replica),
		cmocka_unit_test(test_linear__a_replica_is_told_first),
		cmocka_unit_test(test_linear__replicas_see_one_order),
		cmocka_unit_test(test_linear__exclusive_creation),
		cmocka_unit_test(test_linear__nobody_knows),
		cmocka_unit_test(test_linear__where_it_broke),
		cmocka_unit_test(test_linear__orders_that_nobody_read),
		cmocka_unit_test(test_linear__as_every_order_says),
	};

	return cmocka_run_group_tests_name("linear", tests, NULL, NULL);
}
