/* SPDX-License-Identifier: MIT
 *
 * table: a lock table alone, without machines and links. What it answers and whom it probes is written down.
 */
#ifndef MSYNCFS_TABLE_UTIL_H
#define MSYNCFS_TABLE_UTIL_H

#include "core/replica/locks.h"

#define TABLE_CLIENTS 3u

struct table {
	struct locks *locks;
	uint64_t ticket;                /* the last one that was used */
	struct lock_answer last;
	unsigned answers, lost, probes; /* so many */
	uint64_t probe[TABLE_CLIENTS + 1], probe_round; /* the last one that each client was asked; and of which statement */
};

extern struct table table;

/* A table that leads, epoch 5, with nothing in it. */
int table_set_up(void **state);
int table_tear_down(void **state);
#define TABLE_TEST(name) cmocka_unit_test_setup_teardown(name, table_set_up, table_tear_down)

/* What a table calls; a test that looks at answers itself passes them on. */
void table_on_answer(void *ctx, const struct lock_answer *a);
void table_on_probe(void *ctx, uint64_t client, uint64_t round, uint64_t number);

/* Ask for all of an inode, or for a range of inode 1 as owner 1. The answer, or 1: it waits. */
int table_ask(uint64_t client, uint64_t owner, uint64_t ino, enum lock_kind kind, enum lock_type type, bool wait);
int table_ask_range(uint64_t client, uint64_t start, uint64_t end, enum lock_type type, bool wait);
/* So many locks are held. */
void table_assert_held(unsigned want);

#endif
