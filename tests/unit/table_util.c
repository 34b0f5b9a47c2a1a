/* SPDX-License-Identifier: MIT
 *
 * table: see table_util.h.
 */
#include "tests/unit/table_util.h"

#include "tests/unit/ok_util.h"

struct table table;

void table_on_answer(void *ctx, const struct lock_answer *a)
{
	(void)ctx;
	table.answers++;
	table.lost += a->lost;
	table.last = *a;
}

void table_on_probe(void *ctx, uint64_t client, uint64_t round, uint64_t number)
{
	(void)ctx;
	assert_in_range(client, 1, TABLE_CLIENTS);
	assert_true(number > table.probe[client]);
	table.probe[client] = number;
	table.probe_round = round;
	table.probes++;
}

int table_set_up(void **state)
{
	(void)state;
	memset(&table, 0, sizeof table);
	table.locks = locks_new(table_on_answer, table_on_probe, NULL);
	assert_non_null(table.locks);
	locks_lead(table.locks, 5, 0, false);
	return 0;
}

int table_tear_down(void **state)
{
	(void)state;
	locks_free(table.locks);
	return 0;
}

static int request(uint64_t client, const struct lock_op *op)
{
	table.answers = 0;
	locks_request(table.locks, client, op);
	return table.answers > 0 ? table.last.error : 1;
}

int table_ask(uint64_t client, uint64_t owner, uint64_t ino, enum lock_kind kind, enum lock_type type, bool wait)
{
	const struct lock_op op = { .ticket = ++table.ticket, .ino = ino, .owner = owner, .end = LOCKS_END, .kind = kind,
				    .pid = (uint32_t)(client * 100 + owner), .type = type, .wait = wait };

	return request(client, &op);
}

int table_ask_range(uint64_t client, uint64_t start, uint64_t end, enum lock_type type, bool wait)
{
	const struct lock_op op = { .ticket = ++table.ticket, .ino = 1, .owner = 1, .start = start, .end = end,
				    .kind = LOCKS_POSIX, .type = type, .wait = wait };

	return request(client, &op);
}

void table_assert_held(unsigned want)
{
	unsigned held, waiting;

	locks_count(table.locks, &held, &waiting);
	assert_int_equal(held, want);
}
