/* SPDX-License-Identifier: MIT
 *
 * crash: many cases of the power-cut machine side by side, each in a process of its own. Words NAME=VALUE, as arguments or
 * in the environment:
 *
 *   (none)                          a fixed small part, as TAP
 *   IMAGES=n DURATION=s             cases from SEED on until so many images were opened, or so many seconds have passed
 *   SEED=n KIND=name CASES=n        where to begin, of which kind, how many cases
 *   JOBS=n                          side by side (default: one for each CPU)
 *   UNITS=list IMAGE=unit:n[/m] SECTORS=list      what a failure prints: replays just that
 *   KEEP=file                       of a replay: keep the image
 *   ROUNDS=n SHARE=n                of a case, and about how many images are tried for each (0: all that it could)
 *   REDUCE=s                        seconds for making a failure short (120)
 *   TRACE=1                         every call
 *
 * A failure is replayed with fewer and fewer calls, then with fewer and fewer sectors, as long as it fails; the shortest is
 * printed. Exit status 1: a failure was found.
 */
#include "tests/crash/crash.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS      220u
#define SHARE       5u
#define JOBS_MAX    64u
#define CASE_S      600u                /* of CPU time: a case that takes longer hangs */
#define REDUCE_S    120u                /* for making a failure short */

struct orders *orders;
struct report *report;

/* TSan asks this when it starts. Images are built in a handler of SIGSEGV, on purpose: the fault is one of the store's own, at a place
 * where it stores to its mapping and so is in no function of the C library. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "report_signal_unsafe=0";
}

static void *shared(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	check(p != MAP_FAILED);
	return p;
}

static double seconds_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void broken(const char *format, ...)
{
	va_list ap;
	int n = snprintf(report->text, sizeof report->text, "call %llu, %s: ", (unsigned long long)work.ops, work.text);

	va_start(ap, format);
	if (n > 0 && (size_t)n < sizeof report->text)
		(void)vsnprintf(report->text + n, sizeof report->text - (size_t)n, format, ap);
	va_end(ap);
	report->failed = true;
	_exit(1);
}

static const char *word(const char *name)
{
	const char *s = getenv(name);

	return s && *s ? s : NULL;
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *s = word(name);

	return s ? strtoull(s, NULL, 10) : otherwise;
}

/* One case in a process --------------------------------------------------------------------------------------------- */

struct job {
	pid_t pid;                      /* 0 = none */
	struct orders *orders;
	struct report *report;
};

static void job_init(struct job *j)
{
	*j = (struct job){ 0, shared(sizeof *j->orders), shared(sizeof *j->report) };
}

static void job_start(struct job *j, bool quiet)
{
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER };

	memset(j->report, 0, sizeof *j->report);
	fflush(NULL);
	j->pid = fork();
	check(j->pid >= 0);
	if (j->pid > 0)
		return;
	orders = j->orders;
	report = j->report;
	(void)signal(SIGINT, SIG_DFL);
	(void)signal(SIGTERM, SIG_DFL);
	if (quiet)
		check(freopen("/dev/null", "w", stderr));
	check(setrlimit(RLIMIT_CPU, &(struct rlimit){ CASE_S, CASE_S + 1 }) == 0);
	check(sigaction(SIGSEGV, &sa, NULL) == 0);
	case_run();
	exit(0);
}

/* Did it fail? */
static bool job_result(struct job *j, int status)
{
	struct report *r = j->report;

	j->pid = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && !r->failed)
		return false;
	if (!r->failed && WIFSIGNALED(status))
		(void)snprintf(r->text, sizeof r->text, "%s", WTERMSIG(status) == SIGXCPU ? "it hangs" : strsignal(WTERMSIG(status)));
	else if (!r->failed)
		(void)snprintf(r->text, sizeof r->text, "it ended with status %d", WEXITSTATUS(status));
	r->failed = true;
	return true;
}

static bool job_run(struct job *j, bool quiet)
{
	int status;

	job_start(j, quiet);
	while (waitpid(j->pid, &status, 0) < 0)
		check(errno == EINTR);
	return job_result(j, status);
}

/* Making a failure short -------------------------------------------------------------------------------------------- */

static double reduce_until;
static volatile sig_atomic_t interrupted;

/* Take from `list` (which is in j's orders) what is not needed for the failure: ever smaller parts are left out (ddmin). */
static void reduce(struct job *j, struct list *list)
{
	static struct list before;
	unsigned part = list->count / 2, at;

	while (part > 0 && seconds_now() < reduce_until && !interrupted) {
		bool any = false;

		for (at = 0; at < list->count && seconds_now() < reduce_until && !interrupted; ) {
			unsigned n = (unsigned)min_u64(part, list->count - at);

			before = *list;
			memmove(list->at + at, list->at + at + n, (list->count - at - n) * sizeof *list->at);
			list->count -= n;
			if (job_run(j, true)) {
				any = true;
				continue;
			}
			*list = before;
			at += n;
		}
		if (part == 1 && !any)
			break;
		part = part > 1 ? part / 2 : 1;
	}
}

static void print_list(const char *name, const struct list *list, unsigned shift)
{
	unsigned i;

	printf(" %s=", name);
	for (i = 0; i < list->count; i++)
		printf("%s%u.%u", i ? "," : "", list->at[i] >> shift, list->at[i] & ((1u << shift) - 1));
}

static void print_replay(const struct orders *o, const struct report *r)
{
	printf("  make crash SEED=%llu KIND=%s", (unsigned long long)o->seed, kind_names[o->kind]);
	if (o->use_units)
		print_list("UNITS", &o->units, UNIT_SHIFT);
	if (r->image > 0)
		printf(" IMAGE=%u.%u:%u", r->unit >> UNIT_SHIFT, r->unit & UNIT_CALL, r->image);
	if (r->second > 0)
		printf("/%u", r->second);
	if (o->use_sectors)
		print_list("SECTORS", &o->sectors, 3);
	printf("\n");
}

/* The failure in a run of the machine is in one image: try only that, so that a replay takes no time. */
static void point_at(struct orders *o, const struct report *r)
{
	o->try = r->image > 0 ? TRY_ONE : TRY_NONE;
	o->unit = r->unit;
	o->image = r->image;
	o->second = r->second;
}

static void make_short(struct job *j)
{
	static struct orders good;
	struct orders *o = j->orders;
	unsigned calls = j->report->units.count, i;

	reduce_until = seconds_now() + (double)number("REDUCE", REDUCE_S);
	o->use_units = true;
	o->units = j->report->units;
	good = *o;
	point_at(o, j->report);
	/* Fewer calls; any image of the unit may show it. */
	if (o->try == TRY_ONE)
		o->try = TRY_UNIT;
	if (!job_run(j, true)) {
		*o = good;
		if (!job_run(j, true)) {
			printf("  it does not fail again with the same seed\n");
			return;
		}
	}
	reduce(j, &o->units);
	(void)job_run(j, true);
	good = *o;
	point_at(o, j->report);
	if (!job_run(j, true))
		*o = good;
	/* Fewer sectors: of a kill all are needed. */
	if (o->try == TRY_ONE && j->report->sectors.count > 0) {
		good = *o;
		o->use_sectors = true;
		o->sectors = j->report->sectors;
		i = o->sectors.count;
		if (job_run(j, true)) {
			reduce(j, &o->sectors);
			printf("  %u of %u calls and rounds, %u of %u sectors\n", o->units.count, calls, o->sectors.count, i);
		} else {
			*o = good;
		}
	} else {
		printf("  %u of %u calls and rounds\n", o->units.count, calls);
	}
	(void)job_run(j, true);
	printf("  %s\n", j->report->text);
	print_replay(o, j->report);
}

static void tell_failure(struct job *j, const char *mark)
{
	printf("%sfailed: %s\n", mark, j->report->text);
	print_replay(j->orders, j->report);
	fflush(stdout);
	if (!j->orders->use_units && number("REDUCE", REDUCE_S) > 0)
		make_short(j);
	fflush(stdout);
}

/* Many of them ------------------------------------------------------------------------------------------------------ */

static struct job jobs[JOBS_MAX];
static struct counts total;

static void on_signal(int sig)
{
	interrupted = sig;
}

static void add_counts(const struct counts *c)
{
	const uint64_t *from = (const uint64_t *)c;
	uint64_t *to = (uint64_t *)&total;
	unsigned i;

	for (i = 0; i < sizeof total / sizeof *to; i++)
		to[i] += from[i];
}

static uint64_t running_images(unsigned count)
{
	uint64_t n = total.images;
	unsigned i;

	for (i = 0; i < count; i++)
		if (jobs[i].pid)
			n += jobs[i].report->counts.images;
	return n;
}

static void stop_all(unsigned count)
{
	unsigned i;

	for (i = 0; i < count; i++) {
		if (jobs[i].pid) {
			(void)kill(jobs[i].pid, SIGKILL);
			(void)waitpid(jobs[i].pid, NULL, 0);
			add_counts(&jobs[i].report->counts);
		}
		jobs[i].pid = 0;
	}
}

/* All that was spent, also waiting on nobody: what a busy machine does not change. */
static double cpu_of_cases(void)
{
	struct rusage u;

	(void)getrusage(RUSAGE_CHILDREN, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void tell_counts(double took)
{
	const struct counts *c = &total;
	double cpu = cpu_of_cases();
	unsigned k;

	printf("# %llu calls, %llu msyncs; %llu images at msyncs, %llu sets of sectors tried in all %llu ways; %llu power cuts went on "
	       "from, %llu writes made again, %llu calls beside a msync, %llu met a full store; %llu images checked, %llu opened twice, %llu "
	       "with a superblock damaged besides; the file grew %llu times, was cut %llu times, %llu steps of compaction, %llu readers\n"
	       "# %llu images of stores being made, %llu changes of identity, %llu epochs begun, %llu rebases, %llu blocks written past the mapping\n",
	       (unsigned long long)c->calls, (unsigned long long)c->syncs, (unsigned long long)c->at_sync,
	       (unsigned long long)c->exhaustive, (unsigned long long)c->exhausted, (unsigned long long)c->adopted,
	       (unsigned long long)c->retried, (unsigned long long)c->beside, (unsigned long long)c->full,
	       (unsigned long long)c->checked, (unsigned long long)c->reopened, (unsigned long long)c->damaged,
	       (unsigned long long)c->grown, (unsigned long long)c->shortened, (unsigned long long)c->compacted,
	       (unsigned long long)c->readers, (unsigned long long)c->making, (unsigned long long)c->identities,
	       (unsigned long long)c->epochs, (unsigned long long)c->rebases, (unsigned long long)c->written);
	printf("# images of each kind:");
	for (k = 0; k < WORK_PROFILES; k++)
		printf(" %s %llu%s", kind_names[k], (unsigned long long)c->of_kind[k], k + 1 < WORK_PROFILES ? "," : "\n");
	printf("crash: %llu images (%llu of them within a recovery), %llu kills (%llu with a power cut behind, %llu of them in a recovery), in %.0f s (%.0f a second): "
	       "zero lost\n"
	       "crash: %.2f ms of CPU time for each image, %.0f s in all\n", (unsigned long long)c->images, (unsigned long long)c->recoveries, (unsigned long long)c->kills,
	       (unsigned long long)(c->kills_cut + c->kills_again), (unsigned long long)c->kills_again, took, (double)c->images / took,
	       c->images ? cpu * 1000 / (double)c->images : 0, cpu);
}

struct plan {
	uint64_t seed, images;
	double duration;
	int kind;                       /* -1 = all in turn */
	unsigned cases, count;          /* cases: 0 = no limit; count: side by side */
	struct orders orders;
};

static void order_case(struct plan *p, struct job *j, uint64_t n)
{
	*j->orders = p->orders;
	j->orders->seed = p->kind < 0 ? p->seed + n / WORK_PROFILES : p->seed + n;
	j->orders->kind = p->kind < 0 ? (enum work_profile)(n % WORK_PROFILES) : (enum work_profile)p->kind;
}

/* Wait for a job: true if it failed. */
static struct job *next_failed(unsigned count, int *ret_alive)
{
	int status;
	pid_t pid = waitpid(-1, &status, 0);
	unsigned i;

	for (i = 0; i < count && pid > 0; i++) {
		if (jobs[i].pid != pid)
			continue;
		--*ret_alive;
		if (job_result(&jobs[i], status))
			return &jobs[i];
		add_counts(&jobs[i].report->counts);
	}
	return NULL;
}

static int run_many(struct plan *p)
{
	double begin = seconds_now();
	struct job *failed = NULL;
	uint64_t next = 0;
	int alive = 0;
	unsigned i;

	for (i = 0; i < p->count; i++)
		job_init(&jobs[i]);
	while (!failed && !interrupted) {
		bool enough = (p->images && running_images(p->count) >= p->images) ||
			      (p->duration > 0 && seconds_now() - begin >= p->duration) || (p->cases && next >= p->cases);

		if (enough && alive == 0)
			break;
		for (i = 0; i < p->count && !enough; i++) {
			if (jobs[i].pid || (p->cases && next >= p->cases))
				continue;
			order_case(p, &jobs[i], next++);
			job_start(&jobs[i], false);
			alive++;
		}
		failed = next_failed(p->count, &alive);
	}
	if (failed)
		add_counts(&failed->report->counts);
	stop_all(p->count);
	if (failed) {
		printf("crash: image %llu\n", (unsigned long long)total.images);
		tell_failure(failed, "crash: ");
	}
	if (interrupted)
		printf("crash: interrupted\n");
	if (failed || interrupted)
		return 1;
	tell_counts(seconds_now() - begin);
	return 0;
}

/* The part of every `make test`: a case of each kind, cut short. */
static int run_small(const struct plan *p)
{
	struct job *j = &jobs[0];
	bool bad = false;
	unsigned k;

	job_init(j);
	printf("1..%u\n", WORK_PROFILES);
	for (k = 0; k < WORK_PROFILES && !interrupted; k++) {
		*j->orders = p->orders;
		j->orders->seed = 1;
		j->orders->kind = (enum work_profile)k;
		j->orders->rounds = ROUNDS / 20;
		j->orders->share = 0;
		if (job_run(j, false)) {
			printf("not ok %u - %s\n", k + 1, kind_names[k]);
			tell_failure(j, "# ");
			bad = true;
		} else {
			printf("ok %u - %s: %llu images, %llu of them within a recovery\n", k + 1, kind_names[k],
			       (unsigned long long)j->report->counts.images, (unsigned long long)j->report->counts.recoveries);
		}
	}
	return bad || interrupted;
}

/* Words ------------------------------------------------------------------------------------------------------------- */

_Noreturn static void usage(const char *what)
{
	fprintf(stderr, "crash: %s; words are SEED= KIND= CASES= IMAGES= DURATION= JOBS= UNITS= IMAGE= SECTORS= ROUNDS= SHARE= REDUCE=\n", what);
	exit(2);
}

static void read_list(const char *name, struct list *list, unsigned shift, bool *ret_used)
{
	const char *s = word(name);
	unsigned a, b;
	int n;

	*ret_used = s != NULL;
	for (; s && sscanf(s, "%u.%u%n", &a, &b, &n) == 2 && list->count < LIST_MAX; s += s[n] == ',' ? n + 1 : n) {
		list->at[list->count++] = a << shift | b;
		if (s[n] == '\0')
			return;
	}
	if (s)
		usage(name);
}

static void read_image(struct orders *o)
{
	const char *s = word("IMAGE");
	unsigned a, b;

	if (!s)
		return;
	if (sscanf(s, "%u.%u:%u/%u", &a, &b, &o->image, &o->second) < 3)
		usage("IMAGE");
	o->unit = a << UNIT_SHIFT | b;
	o->try = TRY_ONE;
}

static void read_plan(struct plan *p)
{
	const char *kind = word("KIND");
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	p->seed = number("SEED", 1);
	p->images = number("IMAGES", 0);
	p->duration = (double)number("DURATION", 0);
	p->cases = (unsigned)number("CASES", 0);
	p->count = (unsigned)min_u64(number("JOBS", (uint64_t)(cpus > 0 ? cpus : 1)), JOBS_MAX);
	p->kind = -1;
	for (unsigned k = 0; k < WORK_PROFILES; k++)
		if (kind && strcmp(kind, kind_names[k]) == 0)
			p->kind = (int)k;
	if (kind && p->kind < 0)
		usage("KIND is not known");
	if (p->count == 0)
		usage("JOBS");
	p->orders.rounds = (unsigned)number("ROUNDS", ROUNDS);
	p->orders.share = (unsigned)number("SHARE", SHARE);
	read_list("UNITS", &p->orders.units, UNIT_SHIFT, &p->orders.use_units);
	read_list("SECTORS", &p->orders.sectors, 3, &p->orders.use_sectors);
	read_image(&p->orders);
	/* A seed and a kind alone are one case. */
	if (!p->images && p->duration <= 0 && !p->cases && (word("SEED") || kind || p->orders.use_units))
		p->cases = kind ? 1 : WORK_PROFILES;
}

int main(int argc, char **argv)
{
	static struct plan plan;
	struct sigaction sa = { .sa_handler = on_signal };
	int i;

	for (i = 1; i < argc; i++)
		if (!strchr(argv[i], '=') || putenv(argv[i]) != 0)
			usage(argv[i]);
	(void)sigaction(SIGINT, &sa, NULL);
	(void)sigaction(SIGTERM, &sa, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	/* Each opening asks for large tables of zeros and uses little of them: fresh pages cost less than clearing used ones. */
	(void)mallopt(M_MMAP_THRESHOLD, 64 * 1024);
	read_plan(&plan);
	if (!plan.images && plan.duration <= 0 && !plan.cases)
		return run_small(&plan);
	return run_many(&plan);
}
