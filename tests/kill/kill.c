/* SPDX-License-Identifier: MIT
 *
 * kill: the daemon is killed thousands of times, under load, while it opens, while it is stopped, unmounted by force, raced
 * for; and each time everything that was acknowledged is there, nothing else is, and nothing is left lying about.
 * The daemon is the program as it is installed: this one knows it by its command line, its mounts and its end.
 *
 *   kill DIR NAME=VALUE...      (or in the environment)
 *   PROGRAM=path                the msyncfs to try
 *   POINTS=path                 points.so: without it nothing is killed at chosen points
 *   SCRIPTS=dir                 where programs.sh is
 *   DURATION=s LIVES=n          until so many seconds have passed, or so many stores have come to their end
 *   SEED=n LIFE=n               where to begin; a failure prints both: LIFE alone is then tried again and again
 *   KIND=name                   only this way to end a daemon
 *   ROUNDS=n JOBS=n             of a life; side by side (default: one for each CPU)
 *
 * A replay makes the same choices; what meets what is the machine's, so it may take some tries.
 * Exit status: 1 if something was lost. Then the files are left in DIR, with nothing mounted.
 */
#include "tests/kill/kill.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { JOBS_MAX = 32 };

struct driver {
	struct figures figures;
	atomic_uint next_life;
	atomic_bool stop, failed;
};

static struct driver *driver;
static struct lane lane;                /* of this process */
static unsigned max_lives, fixed_life;
static bool is_replay;

double seconds_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void nap_us(unsigned us)
{
	struct timespec t = { us / 1000000, (long)(us % 1000000) * 1000 };

	(void)nanosleep(&t, NULL);
}

static void *shared(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

/* ---- Failures ---- */

static void print_failure(const struct lane *l, const char *text)
{
	/* One write: lanes do not mix their lines. */
	char all[6000];
	int n = snprintf(all, sizeof all,
			 "# LOST: life %u, round %u (%s), %s%s: %s\n# replay: make kill SEED=%llu LIFE=%u ROUNDS=%u%s%s\n",
			 l->life, l->round, l->what, l->options ? "-o " : "no options", l->options ? l->options : "", text,
			 (unsigned long long)l->seed, l->life, l->rounds, l->only_kind >= 0 ? " KIND=" : "",
			 l->only_kind >= 0 ? kind_names[l->only_kind] : "");

	if (n > 0 && write(STDOUT_FILENO, all, (size_t)n < sizeof all ? (size_t)n : sizeof all - 1) < 0)
		perror("kill");
}

void lost(struct lane *l, const char *format, ...)
{
	char text[4000];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (!atomic_exchange(&driver->failed, true) || is_replay)
		print_failure(l, text);
	atomic_store(&driver->stop, true);
	_exit(1);
}

/* A round that does not end. */
static void on_alarm(int sig)
{
	(void)sig;
	if (!atomic_exchange(&driver->failed, true))
		print_failure(&lane, "it hangs");
	atomic_store(&driver->stop, true);
	_exit(1);
}

static void on_stop(int sig)
{
	(void)sig;
	atomic_store(&driver->stop, true);
}

/* ---- Lanes ---- */

static void make_points(struct lane *l, const char *dir)
{
	char path[300];
	int fd;

	(void)snprintf(path, sizeof path, "%s/points", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof *l->points) < 0)
		lost(l, "%s: %s", path, strerror(errno));
	l->points = mmap(NULL, sizeof *l->points, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (l->points == MAP_FAILED)
		lost(l, "%s: %s", path, strerror(errno));
	(void)close(fd);
}

static bool is_over(const struct lane *l)
{
	if (atomic_load(&driver->stop))
		return true;
	if (l->end_s > 0 && seconds_now() >= l->end_s)
		return true;
	return max_lives > 0 && atomic_load(&driver->next_life) >= max_lives;
}

static _Noreturn void run_lane(const char *base, int number)
{
	struct lane *l = &lane;
	char dir[200];

	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	(void)signal(SIGALRM, on_alarm);
	(void)snprintf(dir, sizeof dir, "%.100s/lane%d", base, number);
	if (mkdir(dir, 0700) < 0)
		lost(l, "%s: %s", dir, strerror(errno));
	make_points(l, dir);
	l->workers = shared(WORKERS * sizeof *l->workers);
	while (!is_over(l)) {
		unsigned n = atomic_fetch_add(&driver->next_life, 1);
		uint64_t s = l->seed * 1000003;

		if (max_lives > 0 && n >= max_lives)
			break;
		l->life = is_replay ? fixed_life : n;
		s += l->life;
		l->rng = random_next(&s);
		(void)snprintf(l->dir, sizeof l->dir, "%s/life%u", dir, n);
		life_run(l);
	}
	_exit(0);
}

/* ---- The end ---- */

static void detach_below(const char *dir)
{
	char line[4096], point[1024], dirs[64][256];
	unsigned n = 0, i;
	FILE *f = fopen("/proc/self/mountinfo", "re");
	size_t len = strlen(dir);

	while (f && fgets(line, sizeof line, f))
		if (n < 64 && sscanf(line, "%*d %*d %*s %*s %1023s", point) == 1 && strncmp(point, dir, len) == 0 &&
		    strlen(point) < sizeof dirs[0])
			(void)snprintf(dirs[n++], sizeof dirs[0], "%.255s", point);
	if (f)
		(void)fclose(f);
	for (i = 0; i < n; i++)
		mount_detach(dirs[i]);
}

static unsigned long long sum(const atomic_ullong *p, int n)
{
	unsigned long long all = 0;

	while (n-- > 0)
		all += atomic_load(&p[n]);
	return all;
}

static void print_figures(double seconds)
{
	const struct figures *f = &driver->figures;
	unsigned long long opens = atomic_load(&f->opens);
	int i;

	printf("# %llu kills, %llu rounds with %llu stores in %.0f s; lost: %s\n", sum(f->kills, KINDS), sum(f->rounds, KINDS),
	       (unsigned long long)atomic_load(&f->lives), seconds, atomic_load(&driver->failed) ? "SOMETHING, see above" : "0");
	printf("# rounds by kind:");
	for (i = 0; i < KINDS; i++)
		printf(" %s %llu", kind_names[i], (unsigned long long)atomic_load(&f->rounds[i]));
	printf("\n# kills by kind:");
	for (i = 0; i < KINDS; i++)
		if (atomic_load(&f->kills[i]) > 0)
			printf(" %s %llu", kind_names[i], (unsigned long long)atomic_load(&f->kills[i]));
	printf("\n# kills at points:");
	for (i = 1; i < POINTS; i++)
		printf(" %s %llu", point_names[i], (unsigned long long)atomic_load(&f->at_point[i]));
	printf("\n# %llu operations acknowledged (%llu refused for space), under way at a kill: %llu happened, %llu did not; "
	       "%llu commits of sqlite and git\n", (unsigned long long)atomic_load(&f->ops),
	       (unsigned long long)atomic_load(&f->refused), (unsigned long long)atomic_load(&f->in_flight_done),
	       (unsigned long long)atomic_load(&f->in_flight_not), (unsigned long long)atomic_load(&f->commits));
	printf("# %llu mounts timed: mean %.1f ms, longest %.1f ms; most records replayed %llu, longest journal %.1f MiB, at least half full at %llu kills; "
	       "%llu checks; %llu races lost with one clear line\n", opens,
	       opens ? (double)atomic_load(&f->open_us) / (double)opens / 1000 : 0, (double)atomic_load(&f->open_us_max) / 1000,
	       (unsigned long long)atomic_load(&f->replayed_max), (double)atomic_load(&f->journal_max) / 1048576,
	       (unsigned long long)atomic_load(&f->journal_full),
	       (unsigned long long)atomic_load(&f->checks), (unsigned long long)atomic_load(&f->races_lost));
}

/* ---- Words ---- */

static const char *word(int argc, char **argv, const char *name)
{
	size_t len = strlen(name);
	int i;

	for (i = 2; i < argc; i++)
		if (strncmp(argv[i], name, len) == 0 && argv[i][len] == '=')
			return argv[i] + len + 1;
	name = getenv(name);
	return name && *name ? name : NULL;
}

static unsigned long long number(int argc, char **argv, const char *name, unsigned long long otherwise)
{
	const char *value = word(argc, argv, name);

	return value ? strtoull(value, NULL, 10) : otherwise;
}

static int kind_number(const char *name)
{
	int i;

	for (i = 0; name && i < KINDS; i++)
		if (strcmp(name, kind_names[i]) == 0)
			return i;
	if (name) {
		fprintf(stderr, "kill: %s: no such kind\n", name);
		exit(2);
	}
	return -1;
}

static unsigned read_words(int argc, char **argv)
{
	struct lane *l = &lane;
	unsigned long long seconds = number(argc, argv, "DURATION", 0), jobs = number(argc, argv, "JOBS", 0);

	l->figures = &driver->figures;
	l->program = word(argc, argv, "PROGRAM");
	l->points_so = word(argc, argv, "POINTS");
	l->scripts = word(argc, argv, "SCRIPTS");
	l->seed = number(argc, argv, "SEED", (unsigned long long)time(NULL));
	l->rounds = (unsigned)number(argc, argv, "ROUNDS", 24);
	l->only_kind = kind_number(word(argc, argv, "KIND"));
	is_replay = word(argc, argv, "LIFE") != NULL;
	fixed_life = (unsigned)number(argc, argv, "LIFE", 0);
	max_lives = (unsigned)number(argc, argv, "LIVES", 0);
	if (max_lives == 0 && seconds == 0)
		seconds = 180;
	l->end_s = seconds > 0 ? seconds_now() + (double)seconds : 0;
	if (jobs == 0)
		jobs = (unsigned long long)sysconf(_SC_NPROCESSORS_ONLN);
	return jobs > JOBS_MAX ? JOBS_MAX : jobs < 1 ? 1 : (unsigned)jobs;
}

int main(int argc, char **argv)
{
	double begun = seconds_now();
	char dir[4096];
	unsigned jobs, i;
	pid_t pids[JOBS_MAX];
	int status;

	driver = shared(sizeof *driver);
	if (argc < 2 || !realpath(argv[1], dir) || strlen(dir) > 100) {
		fprintf(stderr, "usage: kill DIR NAME=VALUE... (DIR: an empty directory with a short name)\n");
		return 2;
	}
	jobs = read_words(argc, argv);
	if (!lane.program || !lane.scripts) {
		fprintf(stderr, "kill: PROGRAM= and SCRIPTS= must be given\n");
		return 2;
	}
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	(void)signal(SIGINT, on_stop);
	(void)signal(SIGTERM, on_stop);
	(void)signal(SIGPIPE, SIG_IGN);
	printf("# SEED=%llu, %u side by side\n", (unsigned long long)lane.seed, jobs);
	(void)fflush(stdout);
	for (i = 0; i < jobs; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			run_lane(dir, (int)i);
	}
	for (i = 0; i < jobs; i++) {
		while (waitpid(pids[i], &status, 0) < 0 && errno == EINTR)
			;
		if (status != 0 && !atomic_load(&driver->failed)) {
			atomic_store(&driver->failed, true);
			printf("# a lane ended with status %x\n", (unsigned)status);
		}
	}
	/* Daemons that a failed lane has left have become ours; what they serve goes with them. */
	mount_end_children();
	detach_below(dir);
	print_figures(seconds_now() - begun);
	return atomic_load(&driver->failed) ? 1 : 0;
}
