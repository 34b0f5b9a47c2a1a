/* SPDX-License-Identifier: MIT
 *
 * race: several open, make, replace or take away one store file at the same time. Exactly one has it, nobody makes anew what
 * somebody else has made, nobody takes away what is not his, and who loses is told. What another process does at the worst
 * moment is done by a hook in front of the system call at which it matters (wrapped by the linker, see the Makefile); then
 * many of them race in earnest.
 *
 *   ROUNDS=n   of the races in earnest
 */
#include "tests/unit/scratch_util.h"

#include "core/base.h"
#include "core/keys/keys.h"
#include "core/store/store.h"

#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define RACERS 4

static char path[SCRATCH_PATH], other[SCRATCH_PATH];
static const struct keys_cred cred = { 0, 0, 022 };

/* The moment ------------------------------------------------------------------------------------------------------- */

/* Called once, in front of the next flock, or linkat, or open that makes a file. */
static void (*at_flock)(void), (*at_linkat)(void), (*at_create)(void);
static bool no_tmpfile;         /* a file system that cannot do it */

static void strike(void (**hook)(void))
{
	void (*call)(void) = *hook;

	*hook = NULL;
	if (call)
		call();
}

int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);
int __wrap_flock(int fd, int operation)
{
	strike(&at_flock);
	return __real_flock(fd, operation);
}

int __real_linkat(int from, const char *old, int to, const char *new, int flags);
int __wrap_linkat(int from, const char *old, int to, const char *new, int flags);
int __wrap_linkat(int from, const char *old, int to, const char *new, int flags)
{
	strike(&at_linkat);
	return __real_linkat(from, old, to, new, flags);
}

int __real_open64(const char *file, int flags, ...);
int __wrap_open64(const char *file, int flags, ...);
int __wrap_open64(const char *file, int flags, ...)
{
	mode_t mode = 0;
	va_list ap;

	va_start(ap, flags);
	if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE)
		mode = va_arg(ap, mode_t);
	va_end(ap);
	if ((flags & O_TMPFILE) == O_TMPFILE && no_tmpfile) {
		errno = EOPNOTSUPP;
		return -1;
	}
	if ((flags & O_CREAT) != 0)
		strike(&at_create);
	return __real_open64(file, flags, mode);
}

/* Another process -------------------------------------------------------------------------------------------------- */

static int open_store(unsigned wait_s, struct keys **ret)
{
	struct store_options o = { .path = path, .create = true, .wait_s = wait_s, .holder_mount = "/nowhere" };

	return keys_open(&o, ret);
}

static void must(bool ok)
{
	if (!ok)
		_exit(99);
}

static void make_file(struct keys *k, const char *name)
{
	struct keys_attr attr;

	must(keys_make(k, KEYS_ROOT_INO, name, strlen(name), S_IFREG | 0600, 0, &cred, &attr) == 0);
}

static bool has_file(struct keys *k, const char *name)
{
	struct keys_attr attr;

	return keys_lookup(k, KEYS_ROOT_INO, name, strlen(name), &attr) == 0;
}

static void wait_well(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* Makes the store, or opens it, leaves a file in it and is gone. */
static void other_makes_it(void)
{
	pid_t pid = fork();
	struct keys *k;

	if (pid == 0) {
		at_linkat = at_create = NULL;
		must(open_store(0, &k) == 0);
		make_file(k, "theirs");
		must(keys_close(k) == 0);
		_exit(0);
	}
	wait_well(pid);
}

static pid_t holder;

/* The same, but stays: a daemon. */
static void other_holds_it(void)
{
	int ready[2];
	struct keys *k;
	char byte;

	assert_int_equal(pipe(ready), 0);
	holder = fork();
	if (holder == 0) {
		at_linkat = at_create = NULL;
		must(open_store(0, &k) == 0);
		make_file(k, "theirs");
		must(write(ready[1], "", 1) == 1);
		for (;;)
			(void)pause();
	}
	(void)close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	(void)close(ready[0]);
}

static void end_holder(void)
{
	int status;

	assert_int_equal(kill(holder, SIGKILL), 0);
	assert_int_equal(waitpid(holder, &status, 0), holder);
	assert_true(WIFSIGNALED(status));
}

static void take_it_away(void)
{
	assert_int_equal(unlink(path), 0);
}

/* The file of that name is now another store. */
static void put_another_there(void)
{
	assert_int_equal(rename(other, path), 0);
}

static void make_empty(void)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

	assert_true(fd >= 0);
	(void)close(fd);
}

/* The store is there, is one, and has the file. */
static void must_have(const char *name)
{
	struct keys *k;

	assert_int_equal(open_store(0, &k), 0);
	assert_true(has_file(k, name));
	assert_int_equal(keys_close(k), 0);
}

static int set_up(void **state)
{
	(void)state;
	if (scratch_make_on_disk("race") < 0)
		return -1;
	scratch_path(path, "store");
	(void)snprintf(other, sizeof other, "%s/other", scratch_folder());
	at_flock = at_linkat = at_create = NULL;
	no_tmpfile = false;
	return 0;
}

/* Nothing is left beside the store. */
/* One moment each -------------------------------------------------------------------------------------------------- */

static void test_race__an_empty_file_that_becomes_a_store_is_not_made_anew(void **state)
{
	struct keys *k;

	(void)state;
	make_empty();
	at_flock = other_makes_it;
	assert_int_equal(open_store(0, &k), 0);
	assert_true(has_file(k, "theirs"));
	assert_int_equal(keys_close(k), 0);
	must_have("theirs");
}

static void test_race__who_made_the_file_is_not_who_has_the_lock(void **state)
{
	struct keys *k;

	(void)state;
	no_tmpfile = true;
	at_flock = other_makes_it;
	assert_int_equal(open_store(0, &k), 0);
	assert_true(has_file(k, "theirs"));
	assert_int_equal(keys_close(k), 0);
	must_have("theirs");
}

static void test_race__what_somebody_holds_is_not_taken_away_by_who_made_the_file(void **state)
{
	struct keys *k;

	(void)state;
	no_tmpfile = true;
	at_flock = other_holds_it;
	assert_int_equal(open_store(0, &k), -EBUSY);
	assert_non_null(strstr(err_last(), "in use"));
	end_holder();
	must_have("theirs");
}

static void test_race__a_file_that_appears_is_opened(void **state)
{
	struct keys *k;

	(void)state;
	no_tmpfile = true;
	at_create = other_makes_it;
	assert_int_equal(open_store(0, &k), 0);
	assert_true(has_file(k, "theirs"));
	assert_int_equal(keys_close(k), 0);
}

static void test_race__a_name_that_is_taken_is_left_to_who_has_it(void **state)
{
	struct keys *k;

	(void)state;
	at_linkat = other_makes_it;
	assert_int_equal(open_store(0, &k), -EEXIST);
	assert_non_null(strstr(err_last(), "another process made"));
	must_have("theirs");
	take_it_away();
	at_linkat = other_holds_it;
	assert_int_equal(open_store(0, &k), -EEXIST);
	end_holder();
	must_have("theirs");
}

static void test_race__a_file_that_is_taken_away_is_not_the_store(void **state)
{
	struct keys *k;

	(void)state;
	other_makes_it();
	at_flock = take_it_away;
	assert_int_equal(open_store(0, &k), 0);
	assert_false(has_file(k, "theirs"));
	make_file(k, "ours");
	assert_int_equal(keys_close(k), 0);
	must_have("ours");
}

static void test_race__a_file_that_is_replaced_is_not_the_store(void **state)
{
	struct keys *k;

	(void)state;
	other_makes_it();
	assert_int_equal(rename(path, other), 0);
	assert_int_equal(open_store(0, &k), 0);
	make_file(k, "old");
	assert_int_equal(keys_close(k), 0);
	at_flock = put_another_there;
	assert_int_equal(open_store(0, &k), 0);
	assert_true(has_file(k, "theirs"));
	assert_false(has_file(k, "old"));
	assert_int_equal(keys_close(k), 0);
}

static void test_race__a_link_to_nothing_is_said_to_be_one(void **state)
{
	struct keys *k;

	(void)state;
	no_tmpfile = true;
	assert_int_equal(symlink("nothing", path), 0);
	assert_int_equal(open_store(0, &k), -ENOENT);
	assert_non_null(strstr(err_last(), "symbolic link"));
}

/* A lock on what is not a store yet: whoever has it is waited for a while, and what becomes of it is seen. */
static void test_race__a_store_in_the_making_is_waited_for(void **state)
{
	const struct timespec nap = { 0, 100000000 };
	struct keys *k;
	pid_t pid;
	int fd;

	(void)state;
	make_empty();
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	pid = fork();
	if (pid == 0) {
		/* It has the lock as well; it goes with the last of us. */
		(void)nanosleep(&nap, NULL);
		(void)flock(fd, LOCK_UN);
		_exit(0);
	}
	(void)close(fd);
	assert_int_equal(open_store(30, &k), 0);
	wait_well(pid);
	assert_int_equal(keys_close(k), 0);
}

static struct waiting {
	unsigned pid, calls, last_ms;
	unsigned until_ms;      /* then it is given up; 0: waited for */
} waiting;

static int is_waiting(void *ctx, unsigned pid, unsigned waited_ms)
{
	struct waiting *w = ctx;

	w->pid = pid;
	w->calls++;
	w->last_ms = waited_ms;
	return w->until_ms != 0 && waited_ms >= w->until_ms ? err_set(EBUSY, "given up") : 0;
}

static int open_waiting(unsigned wait_s, struct keys **ret)
{
	const struct store_options o = { .path = path, .create = true, .wait_s = wait_s, .holder_mount = "/nowhere",
					 .waiting = is_waiting, .waiting_ctx = &waiting };

	return keys_open(&o, ret);
}

/* Who waits is asked whether it goes on, and told for whom. */
static void test_race__waiting_can_be_given_up(void **state)
{
	char text[32];
	struct keys *k;

	(void)state;
	other_holds_it();
	waiting = (struct waiting){ .until_ms = 200 };
	assert_int_equal(open_waiting(30, &k), -EBUSY);
	assert_string_equal(err_last(), "given up");
	assert_int_equal(waiting.pid, holder);
	assert_true(waiting.calls > 1 && waiting.last_ms >= 200 && waiting.last_ms < 1000);
	/* Nobody gives up: what is said at the end is true of one that is mounted nowhere. */
	waiting = (struct waiting){ 0 };
	assert_int_equal(open_waiting(1, &k), -EBUSY);
	assert_true(waiting.calls > 1);
	(void)snprintf(text, sizeof text, "process %d", (int)holder);
	assert_non_null(strstr(err_last(), text));
	assert_null(strstr(err_last(), "mount"));
	end_holder();
	must_have("theirs");
}

/* Taking away ------------------------------------------------------------------------------------------------------ */

static off_t size_of_file(void)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_size : -1;
}

static void test_race__what_came_to_nothing_is_taken_away(void **state)
{
	struct keys *k;
	int way;

	(void)state;
	for (way = 0; way < 2; way++) {
		no_tmpfile = way == 1;
		assert_int_equal(open_store(0, &k), 0);
		assert_true(size_of_file() > 0);
		assert_int_equal(keys_abandon(k), 0);
		assert_int_equal(size_of_file(), -1);
		/* A file that was there stays, empty as it was, and may become a store later. */
		make_empty();
		assert_int_equal(open_store(0, &k), 0);
		assert_int_equal(keys_abandon(k), 0);
		assert_int_equal(size_of_file(), 0);
		assert_int_equal(open_store(0, &k), 0);
		assert_int_equal(keys_close(k), 0);
		/* What is a store already stays one, with files or without. */
		assert_int_equal(open_store(0, &k), 0);
		assert_int_equal(keys_abandon(k), 0);
		assert_int_equal(open_store(0, &k), 0);
		make_file(k, "theirs");
		assert_int_equal(keys_abandon(k), 0);
		must_have("theirs");
		take_it_away();
		/* So does a new one in which somebody has put something. */
		assert_int_equal(open_store(0, &k), 0);
		make_file(k, "theirs");
		assert_int_equal(keys_abandon(k), 0);
		must_have("theirs");
		take_it_away();
	}
}

/* Another file of that name is not ours to take away. */
static void test_race__what_took_its_name_stays(void **state)
{
	struct keys *k;

	(void)state;
	assert_int_equal(open_store(0, &k), 0);
	take_it_away();
	make_empty();
	assert_int_equal(keys_abandon(k), 0);
	assert_int_equal(size_of_file(), 0);
}

static void test_race__who_is_killed_is_waited_for(void **state)
{
	const struct timespec nap = { 0, 100000000 };
	struct keys *k;
	pid_t pid;

	(void)state;
	other_holds_it();
	pid = fork();
	if (pid == 0) {
		(void)nanosleep(&nap, NULL);
		_exit(kill(holder, SIGKILL) != 0);
	}
	/* The mount that the superblock names is not there. */
	assert_int_equal(open_store(30, &k), 0);
	wait_well(pid);
	assert_int_equal(waitpid(holder, NULL, 0), holder);
	assert_true(has_file(k, "theirs"));
	assert_int_equal(keys_close(k), 0);
}

/* In earnest ------------------------------------------------------------------------------------------------------- */

struct track {
	atomic_int ready, go, decided, won;
};

/* Each opens at the signal; who has it keeps it until all have been told, leaves a file, and dies as it stands. */
static _Noreturn void racer(struct track *t, unsigned n)
{
	struct keys *k;
	int r;

	no_tmpfile = n % 2;
	atomic_fetch_add(&t->ready, 1);
	while (!atomic_load(&t->go))
		;
	r = open_store(0, &k);
	if (r == 0) {
		atomic_fetch_add(&t->won, 1);
		make_file(k, "theirs");
	} else {
		must(r == -EBUSY || r == -EEXIST);
		must(*err_last() != '\0');
	}
	atomic_fetch_add(&t->decided, 1);
	while (atomic_load(&t->decided) < RACERS)
		(void)sched_yield();
	_exit(0);
}

static void test_race__of_many_makers_one_wins(void **state)
{
	const char *words = getenv("ROUNDS");
	unsigned rounds = words ? (unsigned)strtoul(words, NULL, 10) : 60, round, i;
	struct track *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pids[RACERS];

	(void)state;
	assert_ptr_not_equal(t, MAP_FAILED);
	for (round = 0; round < rounds; round++) {
		memset(t, 0, sizeof *t);
		if (round % 3 == 0)
			make_empty();
		for (i = 0; i < RACERS; i++) {
			pids[i] = fork();
			if (pids[i] == 0)
				racer(t, round / 3 + (round % 2 ? i : 0));
		}
		while (atomic_load(&t->ready) < RACERS)
			(void)sched_yield();
		atomic_store(&t->go, 1);
		for (i = 0; i < RACERS; i++)
			wait_well(pids[i]);
		assert_int_equal(atomic_load(&t->won), 1);
		must_have("theirs");
		take_it_away();
	}
	(void)munmap(t, sizeof *t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define RACE(name) cmocka_unit_test_setup_teardown(test_race__##name, set_up, scratch_teardown)
		RACE(an_empty_file_that_becomes_a_store_is_not_made_anew),
		RACE(who_made_the_file_is_not_who_has_the_lock),
		RACE(what_somebody_holds_is_not_taken_away_by_who_made_the_file),
		RACE(a_file_that_appears_is_opened),
		RACE(a_name_that_is_taken_is_left_to_who_has_it),
		RACE(a_file_that_is_taken_away_is_not_the_store),
		RACE(a_file_that_is_replaced_is_not_the_store),
		RACE(a_link_to_nothing_is_said_to_be_one),
		RACE(a_store_in_the_making_is_waited_for),
		RACE(waiting_can_be_given_up),
		RACE(what_came_to_nothing_is_taken_away),
		RACE(what_took_its_name_stays),
		RACE(who_is_killed_is_waited_for),
		RACE(of_many_makers_one_wins),
	};

	return cmocka_run_group_tests_name("race", tests, NULL, NULL);
}
