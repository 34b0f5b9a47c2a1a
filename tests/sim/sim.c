/* SPDX-License-Identifier: MIT
 *
 * sim: many seeds side by side. Words in the environment, as `make sim` hands them on:
 *   SEEDS=n     how many seeds (default: what fits into a test)      SEED=n    just this one, with a trace if TRACE=1
 *   FIRST=n     from which on (1)                                    STEPS=n   steps of a seed until it calms down (600)
 *   KINDS=n     what may break (bits of enum chaos; 0: by the seed)  SHRINK=1  make the failure of SEED= short
 *   JOBS=n      processes (CPUs)
 * Prints TAP. A failure names the command that replays it.
 */
#include "tests/sim/sim.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef MSYNCFS_DEBUG
#define SEEDS_DEFAULT 1500u         /* sanitizers take their time */
#else
#define SEEDS_DEFAULT 20000u
#endif
#define STEPS_DEFAULT 600u
#define JOBS_MAX 64u

/* Of one process, seen by the one that started it. */
struct tally {
	uint64_t seeds, steps, changes, diffs, asides, promotions, switches, marks, resent, hangs;
	uint64_t failed;                /* seed; 0: none */
	char why[512];
};

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

static bool run(struct world *w, uint64_t seed, const uint8_t *skip, bool trace)
{
	bool good;
	unsigned i;

	memset(w, 0, sizeof *w);
	w->seed = seed;
	w->steps = number("STEPS", STEPS_DEFAULT);
	w->kinds = (unsigned)number("KINDS", 0);
	w->trace = trace;
	w->skip = skip;
	good = world_run(w);
	link_release_all();
	for (i = 0; i < w->nodes; i++)
		if (w->node[i].alive) {
			w->trace = false;
			primary_free(w->node[i].p);
			replica_free(w->node[i].r);
		}
	return good;
}

static void job(struct tally *t, uint64_t first, uint64_t end, unsigned stride)
{
	struct world *w = calloc(1, sizeof *w);
	uint64_t seed;

	if (!w)
		_exit(2);
	for (seed = first; seed < end; seed += stride) {
		bool good = run(w, seed, NULL, false);

		t->seeds++;
		t->steps += w->did;
		t->changes += w->done_calls;
		t->diffs += w->diffs;
		t->asides += w->asides;
		t->promotions += w->promotions;
		t->switches += w->switches;
		t->marks += w->marks;
		t->resent += w->resent;
		t->hangs += w->hangs;
		if (!good) {
			t->failed = seed;
			memcpy(t->why, w->why, sizeof t->why);
			break;
		}
	}
	free(w);
}

/* Leave out as many steps as can be left out: pieces of half the length, then of a quarter... */
static void make_short(struct world *w, uint64_t seed)
{
	uint64_t steps = number("STEPS", STEPS_DEFAULT), size, at, left = 0;
	uint8_t *skip = calloc(steps + 1, 1), *try = calloc(steps + 1, 1);

	if (!skip || !try)
		exit(2);
	for (size = steps / 2; size > 0; size /= 2)
		for (at = 1; at <= steps; at += size) {
			memcpy(try, skip, steps + 1);
			memset(try + at, 1, min_u64(size, steps + 1 - at));
			if (!run(w, seed, try, false))
				memcpy(skip, try, steps + 1);
		}
	for (at = 1; at <= steps; at++)
		left += !skip[at];
	printf("# %llu of %llu steps are left:\n", (unsigned long long)left, (unsigned long long)steps);
	(void)run(w, seed, skip, true);
	printf("# %s\n", w->why);
	free(skip);
	free(try);
}

static int one(uint64_t seed)
{
	struct world *w = calloc(1, sizeof *w);
	bool good;

	if (!w)
		return 2;
	good = run(w, seed, NULL, getenv("TRACE") != NULL);
	printf("1..1\n%s 1 - seed %llu%s%s\n", good ? "ok" : "not ok", (unsigned long long)seed, good ? "" : ": ", w->why);
	if (!good && getenv("SHRINK"))
		make_short(w, seed);
	free(w);
	return good ? 0 : 1;
}

static int many(uint64_t first, uint64_t seeds, unsigned jobs)
{
	struct tally *t = mmap(NULL, jobs * sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), sum = { 0 };
	pid_t pids[JOBS_MAX];
	bool crashed = false;
	unsigned i;

	if (t == MAP_FAILED)
		return 2;
	for (i = 0; i < jobs; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			job(&t[i], first + i, first + seeds, jobs);
			_exit(0);
		}
	}
	for (i = 0; i < jobs; i++) {
		int status;

		if (pids[i] < 0 || waitpid(pids[i], &status, 0) < 0 || status != 0) {
			crashed = true;
			printf("# a process died: seed %llu\n", (unsigned long long)(first + i + t[i].seeds * jobs));
		}
		sum.seeds += t[i].seeds;
		sum.steps += t[i].steps;
		sum.changes += t[i].changes;
		sum.diffs += t[i].diffs;
		sum.asides += t[i].asides;
		sum.promotions += t[i].promotions;
		sum.switches += t[i].switches;
		sum.marks += t[i].marks;
		sum.resent += t[i].resent;
		sum.hangs += t[i].hangs;
		if (t[i].failed != 0) {
			sum.failed = t[i].failed;
			printf("# SEED=%llu: %s\n# replay: make sim SEED=%llu TRACE=1   make it short: make sim SEED=%llu SHRINK=1\n",
			       (unsigned long long)t[i].failed, t[i].why, (unsigned long long)t[i].failed,
			       (unsigned long long)t[i].failed);
		}
	}
	printf("# sim: %llu seeds, %llu steps, %llu changes, %llu answered from a slot, %llu diffs, %llu put aside, "
	       "%llu promotions, %llu switch-overs, %llu marks, %llu hung for a while\n",
	       (unsigned long long)sum.seeds, (unsigned long long)sum.steps, (unsigned long long)sum.changes,
	       (unsigned long long)sum.resent, (unsigned long long)sum.diffs, (unsigned long long)sum.asides,
	       (unsigned long long)sum.promotions, (unsigned long long)sum.switches, (unsigned long long)sum.marks, (unsigned long long)sum.hangs);
	printf("1..1\n%s 1 - %llu seeds from %llu on\n", sum.failed || crashed ? "not ok" : "ok",
	       (unsigned long long)seeds, (unsigned long long)first);
	return sum.failed || crashed ? 1 : 0;
}

int main(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t jobs = number("JOBS", cpus > 0 ? (uint64_t)cpus : 1);

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (number("SEED", 0) != 0)
		return one(number("SEED", 0));
	return many(number("FIRST", 1), number("SEEDS", SEEDS_DEFAULT), (unsigned)min_u64(max_u64(jobs, 1), JOBS_MAX));
}
