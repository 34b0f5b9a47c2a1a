/* SPDX-License-Identifier: MIT
 *
 * random: what a test chooses by chance, so that a run that failed can be had again: one sequence of numbers, begun from
 * SEED= in the environment. A test that never asks for a seed has the same numbers in every run, or those of SEED=.
 */
#ifndef MSYNCFS_RANDOM_UTIL_H
#define MSYNCFS_RANDOM_UTIL_H

#include <stdbool.h>
#include <stdint.h>

/* A number from the environment. */
uint64_t env_number(const char *name, uint64_t otherwise);

/* SEED=, or one that is another each time; never 0. It is printed, and the sequence begins with it. */
uint64_t random_seed(void);
void random_restart(uint64_t seed);

/* The next one, below n. rnd() is for numbers that fit into 32 bits. */
uint64_t random_below(uint64_t n);
uint32_t rnd(uint32_t n);

/* Many cases, numbered in the order of one seed. ONLY=n tries that one, FULL_NAME= all there are instead of a sample. */
struct cases {
	const char *program, *full_name;
	uint64_t seed, only;            /* only: 0 for all */
	uint64_t number, tried;         /* of this one; so far */
	bool full;
};

void cases_begin(struct cases *c, const char *program, const char *full_name);
/* The sequence, and the numbers, from the start. */
void cases_restart(struct cases *c);
/* Go to the next case: is it to be tried? */
bool cases_next(struct cases *c);
/* How to have this case again: on standard error, so that it is seen of a failure whatever runs the test. */
void cases_print_replay(const struct cases *c);

#endif
