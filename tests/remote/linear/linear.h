/* SPDX-License-Identifier: MIT
 *
 * linear: was what several machines saw of one key possible? Given are operations with the time when each began and when it
 * returned; asked for is one order of all of them in which each result is right, and that does not contradict the times.
 *
 * A key is a file: absent, or a list of values (its lines). What is asked (P6):
 *   - changes from any mount, and reads at the primary, are linearizable: who returned before another began comes first;
 *   - reads on a replica may be of an older state, but never of an older one than this mount has shown or made before
 *     (sequential consistency of the whole: all mounts pass through the same states), nor of one that is still to come.
 * A replica may show a change while it is under way before the primary does: each is told of it by itself.
 * So x has to come before y if x returned before y began, unless they are of two mounts, y changes nothing, and one of them is
 * a stale read. A change that a replica's kernel refuses (EEXIST, ENOENT) is such a read: its kernel answers from its cache.
 *
 * The search is Wing and Gong's, with Lowe's memory of what was tried: a set of operations done and the state behind them. What
 * changes nothing is done as soon as it can be: if there is an order at all, there is one with it there.
 *
 * Two appends at the same time, between which nobody reads, may be in either order, and so may all such pairs until the list begins
 * anew: without more it takes as many steps as there are orders. But where the lists that were read are known, and each value was
 * written once, a value that was read has its place: behind the list that it was read behind. One that was never read has none, and
 * nobody can read the list behind it: all such lists are one state. So there is next to nothing left to try.
 *
 * Threading: none. Memory: as the search needs, at most about LINEAR_TRIED_MAX * 16 bytes.
 */
#ifndef MSYNCFS_TESTS_LINEAR_H
#define MSYNCFS_TESTS_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINEAR_ABSENT     0u        /* states; others are hashes of lists of values */
#define LINEAR_EMPTY      1u
#define LINEAR_UNREAD     2u        /* any list with a value that nobody read */
#define LINEAR_NEVER      INT64_MAX /* the time of a return that nobody saw */
#define LINEAR_MOUNTS_MAX 16u
#define LINEAR_TRIED_MAX  4000000u

enum linear_kind {
	LINEAR_READ,            /* saw `state` */
	LINEAR_PUT,             /* the list is `value` alone */
	LINEAR_APPEND,          /* `value` behind the others; ENOENT: there was none */
	LINEAR_CREATE,          /* an empty list; EEXIST: there was one */
	LINEAR_REMOVE,          /* ENOENT: there was none */
	LINEAR_CLEAR,           /* an empty list instead; ENOENT: there was none */
};

struct linear_op {
	enum linear_kind kind;
	bool refused;           /* EEXIST or ENOENT */
	bool is_stale;          /* made at a replica: if it changes nothing, it may be of an older state */
	unsigned mount;
	uint64_t value, state;
	int64_t begun, returned;        /* LINEAR_NEVER: nobody knows whether it was done, or when */
	const uint64_t *list;           /* READ: the values of `state`; NULL: not known, if there are any */
	size_t len;
};

/* The list with one value more. */
uint64_t linear_fold(uint64_t state, uint64_t value);

/* 1: there is an order; 0: there is none, and *ret_stuck is the number of operations of the longest one found, with the
 * first that did not fit in *ret_at (an index of ops); -E2BIG: not found out with this much memory; -ENOMEM. Sorts ops by `begun`. */
int linear_check(struct linear_op *ops, size_t count, size_t *ret_done, size_t *ret_at);

#endif
