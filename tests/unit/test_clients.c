/* SPDX-License-Identifier: MIT
 *
 * test_clients: when the last calls of a remote mount are forgotten, and when not; over a store in memory, with times that are
 * only told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base.h"
#include "core/keys/cluster.h"
#include "core/store/store.h"
#include "fs/clients.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static struct keys *k;
static struct clients c;
static uint64_t now;

static void call(uint64_t client, uint64_t request)
{
	const struct keys_cred cred = { 0 };
	struct keys_attr a;
	char name[32];

	(void)snprintf(name, sizeof name, "%llu.%llu", (unsigned long long)client, (unsigned long long)request);
	keys_set_caller(k, client, request);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, name, strlen(name), S_IFREG | 0644, 0, &cred, &a), 0);
	keys_set_caller(k, 0, 0);
}

static bool is_known(uint64_t client, uint64_t request)
{
	uint64_t seq, number;

	return keys_call_result(k, client, request, &seq, &number) == 0;
}

/* Time passes, as the request thread sees it. */
static void wait_ms(uint64_t ms)
{
	uint64_t end = now + ms;

	while (now < end) {
		now = min_u64(now + CLIENTS_LOOK_MS, end);
		for (unsigned i = 0; i < 64; i++)
			clients_step(&c, now);
	}
}

static int set_up(void **state)
{
	const struct store_options o = { .path = ":memory:", .create = true, .max_bytes = 64u << 20 };

	(void)state;
	now = 1000;
	assert_int_equal(keys_open(&o, &k), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	clients_release(&c);
	return keys_close(k);
}

static void test_clients__gone_for_good(void **state)
{
	(void)state;
	call(7, 1);
	call(8, 1);
	call(9, 1);
	clients_init(&c, k, now);
	/* 7 is here, 8 was, 9 never came. */
	clients_here(&c, 7);
	clients_here(&c, 8);
	wait_ms(3600000);
	clients_gone(&c, 8, now);
	wait_ms(CLIENTS_KEEP_MS - 3600000 - CLIENTS_LOOK_MS);
	assert_true(is_known(7, 1) && is_known(8, 1) && is_known(9, 1));
	wait_ms(3 * CLIENTS_LOOK_MS);
	assert_true(is_known(7, 1) && is_known(8, 1) && !is_known(9, 1));
	wait_ms(3600000);
	assert_true(is_known(7, 1) && !is_known(8, 1));
	assert_int_equal(c.forgot, 2);
	/* However long: who is here is kept, also when it has done nothing for long. */
	wait_ms(3 * CLIENTS_KEEP_MS);
	assert_true(is_known(7, 1));
	clients_gone(&c, 7, now);
	clients_here(&c, 7);
	wait_ms(2 * CLIENTS_KEEP_MS);
	assert_true(is_known(7, 1));
}

static void test_clients__a_new_primary_counts_anew(void **state)
{
	unsigned i;

	(void)state;
	call(7, 1);
	for (i = 0; i < 3; i++) {
		clients_init(&c, k, now);
		wait_ms(CLIENTS_KEEP_MS - CLIENTS_LOOK_MS);
		assert_true(is_known(7, 1));
		clients_release(&c);
	}
	/* And one that comes in time is not gone. */
	clients_init(&c, k, now);
	wait_ms(CLIENTS_KEEP_MS - CLIENTS_LOOK_MS);
	clients_here(&c, 7);
	wait_ms(CLIENTS_KEEP_MS);
	assert_true(is_known(7, 1));
}

/* (E3) */
static void test_clients__comes_back_after_all(void **state)
{
	(void)state;
	call(7, 40);
	clients_init(&c, k, now);
	assert_false(clients_unsure(&c, 7, 41, 41));
	wait_ms(CLIENTS_KEEP_MS + 2 * CLIENTS_LOOK_MS);
	assert_false(is_known(7, 40));
	assert_false(clients_unsure(&c, 8, 1, 1));
	/* It waits for 41 still: that, and what it may have sent behind it. */
	assert_true(clients_unsure(&c, 7, 41, 41));
	assert_true(clients_unsure(&c, 7, 41 + KEYS_CALL_SLOTS - 1, 60));
	assert_false(clients_unsure(&c, 7, 41 + KEYS_CALL_SLOTS, 60));
	/* What it does from then on is known again. */
	call(7, 41 + KEYS_CALL_SLOTS);
	clients_here(&c, 7);
	wait_ms(CLIENTS_KEEP_MS);
	assert_true(is_known(7, 41 + KEYS_CALL_SLOTS));
}

/* More than are looked at in one step, in any order. */
static void test_clients__many(void **state)
{
	uint64_t left, seq, i;
	unsigned n = 0;

	(void)state;
	for (i = 1; i <= 1000; i++)
		call(i * 7919 % 1009 + 1, 1);
	clients_init(&c, k, now);
	for (i = 1009; i >= 1; i--)
		if (i % 3 == 0)
			clients_here(&c, i);
	wait_ms(CLIENTS_KEEP_MS + 2 * CLIENTS_LOOK_MS);
	for (i = 0; keys_next_client(k, i, &left, &seq) == 0; i = left + 1) {
		assert_int_equal(left % 3, 0);
		n++;
	}
	assert_true(n > 300);
	assert_int_equal(c.forgot + n, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_clients__gone_for_good, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_clients__a_new_primary_counts_anew, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_clients__comes_back_after_all, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_clients__many, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
