/* SPDX-License-Identifier: MIT
 *
 * random: see random_util.h.
 */
#include "tests/unit/random_util.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static uint64_t state;                  /* 0: not begun */

static uint64_t next(void)
{
	if (state == 0)
		random_restart(env_number("SEED", 88172645463325252ull));
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

uint64_t random_below(uint64_t n)
{
	return next() % n;
}

uint32_t rnd(uint32_t n)
{
	return (uint32_t)(next() >> 32) % n;
}

void random_restart(uint64_t seed)
{
	/* Seeds that are near to each other begin far from each other; 0 would stay 0. */
	state = seed * 0x9e3779b97f4a7c15ull;
	state = state ? state : 1;
}

uint64_t env_number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

uint64_t random_seed(void)
{
	uint64_t seed = env_number("SEED", (uint64_t)time(NULL) * 1000 + (uint64_t)getpid() % 1000);

	seed = seed ? seed : 1;
	(void)printf("# SEED=%llu\n", (unsigned long long)seed);
	(void)fflush(stdout);
	random_restart(seed);
	return seed;
}

void cases_begin(struct cases *c, const char *program, const char *full_name)
{
	const char *full = getenv(full_name);

	*c = (struct cases){ .program = program, .full_name = full_name, .only = env_number("ONLY", 0),
			     .full = full && *full };
	c->seed = random_seed();
}

void cases_restart(struct cases *c)
{
	random_restart(c->seed);
	c->number = c->tried = 0;
}

bool cases_next(struct cases *c)
{
	c->number++;
	if (c->only != 0 && c->only != c->number)
		return false;
	c->tried++;
	return true;
}

void cases_print_replay(const struct cases *c)
{
	(void)fprintf(stderr, "# replay: SEED=%llu ONLY=%llu %s%s%s\n", (unsigned long long)c->seed,
		      (unsigned long long)c->number, c->full ? c->full_name : "", c->full ? "=1 " : "", c->program);
}
