/* SPDX-License-Identifier: MIT
 *
 * locks: locks between processes, each case in a child that reports through its exit status.
 *
 *   locks CASE FILE [SAME_FILE_ON_ANOTHER_MOUNT, for the second process]
 *      exclusive  fcntl: a second process is refused, F_GETLK names the holder, unlock lets it in
 *      ranges     fcntl: disjoint ranges and shared locks do not meet; an upgrade does
 *      wait       fcntl: F_SETLKW waits until the holder lets go, and not longer
 *      signal     fcntl: a wait is ended by a signal (EINTR)
 *      deadlock   fcntl: a circle of two waits is EDEADLK
 *      close      fcntl: closing any descriptor of the file drops the process's locks
 *      exit       fcntl: the holder's death frees the lock
 *      flock      flock(2): exclusive against shared, waiting, inheritance over fork
 *      count      500 times: lock (flock and fcntl by turns), add one to the number in FILE, unlock
 *      closed     flock and open file description locks: what was closed, or whose process has ended and was waited for, is
 *                 unlocked: who asks next without waiting gets it, 200 times
 *      ofd        open file description locks: two descriptors of one process meet
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *path, *path_of_child;
static int to_child[2], to_parent[2];

#define check(x) do { if (!(x)) { \
	printf("line %d: %s (%s)\n", __LINE__, #x, strerror(errno)); fflush(stdout); _exit(1); } } while (0)

static int open_file(void)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	check(fd >= 0);
	return fd;
}

static int lock_with(int fd, int cmd, short type, off_t from, off_t len)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = from, .l_len = len };

	return fcntl(fd, cmd, &l);
}

static int lock(int fd, short type, off_t from, off_t len)
{
	return lock_with(fd, F_SETLK, type, from, len);
}

static pid_t fork_child(void)
{
	pid_t child = fork();

	if (child == 0 && path_of_child != NULL)
		path = path_of_child;
	return child;
}

/* The two processes take turns: tell() lets the other go on, await() waits for its word. */
static void tell(int fd) { check(write(fd, "x", 1) == 1); }

static void await(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char c;

	check(poll(&p, 1, 20000) == 1);
	check(read(fd, &c, 1) == 1);
}

/* Wait until a process sleeps in the kernel (state S or D), that is, until it waits for its lock. */
static void await_asleep(pid_t pid)
{
	char name[64], line[512];

	for (int i = 0; i < 2000; i++) {
		FILE *f;
		char *state;

		snprintf(name, sizeof name, "/proc/%d/stat", (int)pid);
		f = fopen(name, "r");
		check(f != NULL);
		check(fgets(line, sizeof line, f) != NULL);
		fclose(f);
		state = strrchr(line, ')');
		if (state && (state[2] == 'S' || state[2] == 'D') && i > 2)
			return;
		usleep(5000);
	}
	check(!"asleep");
}

static int finish(pid_t child)
{
	int status;

	check(waitpid(child, &status, 0) == child);
	return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static int case_exclusive(void)
{
	int fd = open_file();
	pid_t child;

	check(lock(fd, F_WRLCK, 0, 0) == 0);
	child = fork_child();
	if (child == 0) {
		int mine = open_file();
		struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

		check(lock(mine, F_WRLCK, 0, 0) < 0 && (errno == EAGAIN || errno == EACCES));
		check(lock(mine, F_RDLCK, 5, 1) < 0);
		check(fcntl(mine, F_GETLK, &l) == 0 && l.l_type == F_WRLCK);
		/* Elsewhere the number would be that of another process. */
		check(l.l_pid == (path_of_child != NULL ? 0 : getppid()));
		tell(to_parent[1]);
		await(to_child[0]);
		check(lock(mine, F_WRLCK, 0, 0) == 0);
		_exit(0);
	}
	await(to_parent[0]);
	check(lock(fd, F_UNLCK, 0, 0) == 0);
	tell(to_child[1]);
	return finish(child);
}

static int case_ranges(void)
{
	int fd = open_file();
	pid_t child;

	check(lock(fd, F_WRLCK, 0, 100) == 0 && lock(fd, F_RDLCK, 200, 100) == 0);
	check(lock(fd, F_UNLCK, 40, 20) == 0);      /* splits the first one */
	child = fork_child();
	if (child == 0) {
		int mine = open_file();

		check(lock(mine, F_WRLCK, 100, 100) == 0);
		check(lock(mine, F_WRLCK, 40, 20) == 0);
		check(lock(mine, F_WRLCK, 39, 1) < 0 && lock(mine, F_RDLCK, 60, 1) < 0);
		check(lock(mine, F_RDLCK, 250, 10) == 0);
		check(lock(mine, F_WRLCK, 250, 10) < 0);
		check(lock(mine, F_WRLCK, 1000, 0) == 0);
		_exit(0);
	}
	return finish(child);
}

static int case_wait(void)
{
	int fd = open_file();
	pid_t child;

	check(lock(fd, F_WRLCK, 0, 10) == 0);
	child = fork_child();
	if (child == 0) {
		int mine = open_file();

		alarm(20);
		tell(to_parent[1]);
		check(lock_with(mine, F_SETLKW, F_WRLCK, 5, 10) == 0);
		tell(to_parent[1]);
		_exit(0);
	}
	await(to_parent[0]);
	await_asleep(child);
	check(lock(fd, F_UNLCK, 0, 10) == 0);
	await(to_parent[0]);
	return finish(child);
}

static void on_signal(int sig) { (void)sig; }

static int case_signal(void)
{
	int fd = open_file();
	pid_t child;

	check(lock(fd, F_WRLCK, 0, 0) == 0);
	child = fork_child();
	if (child == 0) {
		struct sigaction sa = { .sa_handler = on_signal };
		int mine = open_file();

		check(sigaction(SIGUSR1, &sa, NULL) == 0);
		alarm(20);
		tell(to_parent[1]);
		check(lock_with(mine, F_SETLKW, F_WRLCK, 0, 0) < 0 && errno == EINTR);
		_exit(0);
	}
	await(to_parent[0]);
	await_asleep(child);
	check(kill(child, SIGUSR1) == 0);
	return finish(child);
}

static int case_deadlock(void)
{
	int fd = open_file();
	pid_t child;

	check(lock(fd, F_WRLCK, 0, 1) == 0);
	child = fork_child();
	if (child == 0) {
		int mine = open_file();

		alarm(20);
		check(lock(mine, F_WRLCK, 1, 1) == 0);
		tell(to_parent[1]);
		check(lock_with(mine, F_SETLKW, F_WRLCK, 0, 1) == 0);
		_exit(0);
	}
	await(to_parent[0]);
	await_asleep(child);
	check(lock_with(fd, F_SETLKW, F_WRLCK, 1, 1) < 0 && errno == EDEADLK);
	check(lock(fd, F_UNLCK, 0, 0) == 0);
	return finish(child);
}

static int case_close(void)
{
	int fd = open_file(), other = open_file();
	pid_t child;

	check(lock(fd, F_WRLCK, 0, 0) == 0);
	check(close(other) == 0);
	child = fork_child();
	if (child == 0) {
		check(lock(open_file(), F_WRLCK, 0, 0) == 0);
		_exit(0);
	}
	return finish(child);
}

static int case_exit(void)
{
	int fd = open_file();
	pid_t child = fork_child();

	if (child == 0) {
		int mine = open_file();

		check(lock(mine, F_WRLCK, 0, 0) == 0 && flock(mine, LOCK_EX) == 0);
		tell(to_parent[1]);
		pause();
	}
	await(to_parent[0]);
	check(lock(fd, F_WRLCK, 0, 0) < 0 && flock(fd, LOCK_EX | LOCK_NB) < 0);
	check(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
	alarm(20);
	check(lock_with(fd, F_SETLKW, F_WRLCK, 0, 0) == 0 && flock(fd, LOCK_EX) == 0);
	return 0;
}

static int case_flock(void)
{
	int fd = open_file(), other = open_file();
	pid_t child;

	check(flock(fd, LOCK_SH) == 0 && flock(other, LOCK_SH) == 0);
	check(flock(other, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK);
	check(flock(other, LOCK_UN) == 0 && flock(fd, LOCK_EX) == 0);
	check(flock(other, LOCK_SH | LOCK_NB) < 0);
	child = fork_child();
	if (child == 0) {
		int mine = open_file();

		/* The parent's descriptor came along and holds the lock; an own one does not. */
		check(flock(fd, LOCK_EX | LOCK_NB) == 0);
		check(flock(mine, LOCK_EX | LOCK_NB) < 0);
		close(fd);
		alarm(20);
		tell(to_parent[1]);
		check(flock(mine, LOCK_EX) == 0);
		_exit(0);
	}
	await(to_parent[0]);
	await_asleep(child);
	check(close(fd) == 0);
	return finish(child);
}

static int case_ofd(void)
{
	int a = open_file(), b;

	if (path_of_child != NULL)
		path = path_of_child;
	b = open_file();

	check(lock_with(a, F_OFD_SETLK, F_WRLCK, 0, 10) == 0);
	check(lock_with(b, F_OFD_SETLK, F_RDLCK, 5, 1) < 0 && errno == EAGAIN);
	check(lock_with(b, F_OFD_SETLK, F_WRLCK, 10, 1) == 0);
	check(close(a) == 0);
	check(lock_with(b, F_OFD_SETLK, F_WRLCK, 0, 10) == 0);
	return 0;
}

/* The kernel tells the mount later, and nobody waits for that; it must not be seen. */
static int case_closed(void)
{
	const char *here = path, *there = path_of_child != NULL ? path_of_child : path;

	path = there;
	for (int i = 0; i < 200; i++) {
		int a, b = open_file(), r;
		bool flocks = i % 2 == 0, exits = i % 4 >= 2;
		pid_t child = exits ? fork() : 0;

		if (child == 0) {
			path = here;
			a = open_file();
			check(flocks ? flock(a, LOCK_EX) == 0 : lock_with(a, F_OFD_SETLK, F_WRLCK, 0, 0) == 0);
			if (exits)
				_exit(0);
			check(close(a) == 0);
		} else {
			check(finish(child) == 0);
		}
		path = there;
		r = flocks ? flock(b, LOCK_EX | LOCK_NB) : lock_with(b, F_OFD_SETLK, F_WRLCK, 0, 0);
		if (r != 0)
			printf("round %d, %s, %s\n", i, flocks ? "flock" : "open file description lock", exits ? "exit" : "close");
		check(r == 0);
		check(flocks ? flock(b, LOCK_UN) == 0 : lock_with(b, F_OFD_SETLK, F_UNLCK, 0, 0) == 0);
		check(close(b) == 0);
	}
	return 0;
}

/* Through one descriptor, so that what is read comes from the kernel's cache if that is allowed to have it. */
static int case_count(void)
{
	int fd = open_file();
	char text[16];

	for (int i = 0; i < 500; i++) {
		ssize_t n;
		int len;

		alarm(60);
		check(i % 2 == 0 ? flock(fd, LOCK_EX) == 0 : lock_with(fd, F_SETLKW, F_WRLCK, 0, 0) == 0);
		/* The two kinds do not exclude each other: who has one takes the other, too, in the same order. */
		check(i % 2 != 0 || lock_with(fd, F_SETLKW, F_WRLCK, 0, 0) == 0);
		n = pread(fd, text, sizeof text - 1, 0);
		check(n >= 0);
		text[n] = '\0';
		len = snprintf(text, sizeof text, "%08d", atoi(text) + 1);
		check(pwrite(fd, text, (size_t)len, 0) == len);
		check(lock(fd, F_UNLCK, 0, 0) == 0);
		check(i % 2 != 0 || flock(fd, LOCK_UN) == 0);
	}
	return 0;
}

static const struct {
	const char *name;
	int (*run)(void);
} cases[] = {
	{ "exclusive", case_exclusive }, { "ranges", case_ranges }, { "wait", case_wait }, { "signal", case_signal },
	{ "deadlock", case_deadlock }, { "close", case_close }, { "exit", case_exit }, { "flock", case_flock },
	{ "closed", case_closed }, { "ofd", case_ofd }, { "count", case_count },
};

int main(int argc, char **argv)
{
	if (argc < 3 || argc > 4 || pipe2(to_child, O_CLOEXEC) < 0 || pipe2(to_parent, O_CLOEXEC) < 0)
		return 2;
	path = argv[2];
	path_of_child = argv[3];
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		if (strcmp(cases[i].name, argv[1]) == 0)
			return cases[i].run();
	fprintf(stderr, "locks: no case %s\n", argv[1]);
	return 2;
}
