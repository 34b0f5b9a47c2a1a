/* SPDX-License-Identifier: MIT
 *
 * guard: see guard.h. The daemon and its guard talk through a socket until the guard knows what to watch: the guard says that it is
 * ready, is told a device number, and answers 0 or -errno. Then both close it.
 */
#include "fs/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GUARD_NAME    "fuse-guard"
#define DYING_WAIT_MS 1000      /* for a daemon that can die: then the kernel ends the connection itself */
#define ARG_START     48        /* fields of /proc/PID/stat */
#define ARG_END       49

struct guard {
	pid_t pid;
	int socket;             /* -1: nothing more to say */
};

/* Of a guard that watches: a signal handler needs it. */
static volatile sig_atomic_t alarm_pid;

/* ---- The guard ---- */

struct post {
	pid_t daemon;
	const char *mountpoint;
	unsigned minor;         /* of the mount */
	int abort_fd;           /* negative: by umount -f */
};

/* What ps shows is in the memory that the command line came in. Without /proc it stays. */
static void set_title(pid_t daemon)
{
	unsigned long start = 0, end = 0;
	char text[2048], *at, *save = NULL;
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC), field = 2;
	ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	/* The second field is a name in brackets, which may hold anything. */
	at = strrchr(text, ')');
	for (at = at != NULL ? strtok_r(at + 1, " ", &save) : NULL; at != NULL; at = strtok_r(NULL, " ", &save)) {
		field++;
		if (field == ARG_START)
			start = strtoul(at, NULL, 10);
		if (field == ARG_END)
			end = strtoul(at, NULL, 10);
	}
	if (start == 0 || end <= start)
		return;
	memset((char *)start, 0, end - start);
	snprintf((char *)start, end - start, GUARD_NAME " of process %d", (int)daemon);
}

/* The kernel kills whom it finds when memory is short, and at worst a whole group of processes: never this one, if we may say so. */
static void spare_me(void)
{
	static const char least[] = "-1000";
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	(void)!write(fd, least, sizeof least - 1);
	close(fd);
}

/* Nothing that the daemon has open, least of all the caller's terminal and pipes. */
static void close_all_but(int fd)
{
	unsigned keep = (unsigned)fd;

	if ((keep == 0 || close_range(0, keep - 1, 0) == 0) && close_range(keep + 1, ~0u, 0) == 0)
		return;
	/* Before Linux 5.9. So early the daemon has few. */
	for (int i = 0; i < FD_SETSIZE; i++)
		if (i != fd)
			close(i);
}

/* Would `umount -f` of it be allowed? The kernel looks at that first, and then refuses to combine it with MNT_EXPIRE. */
static int may_force(const char *mountpoint)
{
	if (umount2(mountpoint, MNT_FORCE | MNT_EXPIRE) == 0 || errno == EINVAL)
		return 0;
	return -errno;
}

static int open_abort(unsigned minor)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/sys/fs/fuse/connections/%u/abort", minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* As `umount -f` does, but only if this mount is still there, and without taking it away: the descriptor makes it busy, and programs
 * shall get an error, not what lies below. No request is made here, which nobody would answer. */
static int force(const char *mountpoint, unsigned minor)
{
	struct statx st;
	char path[64];
	int fd, r;

	fd = open(mountpoint, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &st) < 0 ? -errno : 0;
	if (r == 0 && (st.stx_dev_major != 0 || st.stx_dev_minor != minor))
		r = -ENOENT;
	if (r == 0) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		/* Busy is what it is to be. */
		r = umount2(path, MNT_FORCE) < 0 && errno != EBUSY ? -errno : 0;
	}
	close(fd);
	return r;
}

int guard_end(const char *mountpoint, unsigned minor)
{
	int fd = open_abort(minor), r = 0;

	if (fd < 0)
		return force(mountpoint, minor) == 0 ? 0 : fd;
	if (write(fd, "1", 1) < 0)
		r = -errno;
	close(fd);
	return r;
}

static int take_post(struct post *p)
{
	p->abort_fd = open_abort(p->minor);
	return p->abort_fd >= 0 || may_force(p->mountpoint) == 0 ? 0 : p->abort_fd;
}

/* Who is child of the daemon as long as one thread of it lives. */
static bool is_dead(const struct post *p)
{
	return getppid() != p->daemon;
}

/* A daemon that can die does, and its mount may be taken away at once and another one made under the same number. With one that hangs
 * the mount stays, and the number is ours. */
static void force_if_it_hangs(const struct post *p)
{
	const struct timespec nap = { .tv_nsec = 10000000 };

	for (int ms = 0; ms < DYING_WAIT_MS && !is_dead(p); ms += 10)
		nanosleep(&nap, NULL);
	if (!is_dead(p))
		(void)force(p->mountpoint, p->minor);
}

static _Noreturn void stand_guard(struct post *p, int fd)
{
	int answer = 0, sig = SIGRTMIN;
	siginfo_t info;
	sigset_t set;

	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	close_all_but(fd);
	setsid();
	prctl(PR_SET_NAME, GUARD_NAME);
	set_title(p->daemon);
	spare_me();
	/* A parent that ended before this will send nothing; all threads of it that may end later will. */
	if (prctl(PR_SET_PDEATHSIG, sig) < 0 || is_dead(p) || send(fd, &answer, sizeof answer, MSG_NOSIGNAL) < 0)
		_exit(1);
	/* Nothing comes: the mount failed, or the daemon ended before it had one. */
	if (recv(fd, &p->minor, sizeof p->minor, 0) != sizeof p->minor)
		_exit(0);
	answer = take_post(p);
	(void)send(fd, &answer, sizeof answer, MSG_NOSIGNAL);
	if (answer < 0)
		_exit(1);
	close(fd);
	sigemptyset(&set);
	sigaddset(&set, sig);
	/* By the daemon or its end. The sender is missing if the kernel found no memory for it. */
	do
		info.si_pid = -1;
	while (sigwaitinfo(&set, &info) != sig || (info.si_pid != p->daemon && info.si_pid != 0));
	if (p->abort_fd < 0)
		force_if_it_hangs(p);
	else
		(void)!write(p->abort_fd, "1", 1);
	_exit(0);
}

/* ---- The daemon ---- */

void guard_alarm(void)
{
	if (alarm_pid > 0)
		(void)kill((pid_t)alarm_pid, SIGRTMIN);
}

/* The handler is gone already (SA_RESETHAND): this ends us as it would have. */
static void on_crash(int sig)
{
	int error = errno;

	guard_alarm();
	errno = error;
	(void)raise(sig);
}

/* Whatever would write a core: the kernel waits for all threads first. Handlers that are there (sanitizers) stay, and SIGBUS is lost.h's. */
static void catch_crashes(void)
{
	static const int crashes[] = { SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV, SIGXCPU, SIGSYS };
	struct sigaction act = { .sa_handler = on_crash, .sa_flags = SA_RESETHAND }, old;

	for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
		if (sigaction(crashes[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
			(void)sigaction(crashes[i], &act, NULL);
}

/* The next word of the guard; if there is none it has ended. */
static int listen_to(struct guard *g)
{
	int word;
	ssize_t n;

	do
		n = recv(g->socket, &word, sizeof word, 0);
	while (n < 0 && errno == EINTR);
	return n == sizeof word ? word : n < 0 ? -errno : -ECHILD;
}

int guard_start(const char *mountpoint, struct guard **ret)
{
	struct post post = { .daemon = getpid(), .mountpoint = mountpoint, .abort_fd = -1 };
	struct guard *g = malloc(sizeof *g);
	int fds[2], r;

	if (g == NULL)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) {
		r = -errno;
		free(g);
		return r;
	}
	g->pid = fork();
	r = -errno;
	if (g->pid == 0)
		stand_guard(&post, fds[1]);
	close(fds[1]);
	g->socket = fds[0];
	if (g->pid > 0)
		r = listen_to(g);
	if (r < 0) {
		guard_stop(g);
		return r;
	}
	*ret = g;
	return 0;
}

int guard_watch(struct guard *g, const char *device)
{
	unsigned minor;
	int r = 0;

	if (sscanf(device, "0:%u", &minor) != 1)
		return -ENODEV;
	if (send(g->socket, &minor, sizeof minor, MSG_NOSIGNAL) < 0)
		r = -errno;
	if (r == 0)
		r = listen_to(g);
	close(g->socket);
	g->socket = -1;
	if (r < 0)
		return r;
	alarm_pid = g->pid;
	catch_crashes();
	return 0;
}

void guard_stop(struct guard *g)
{
	if (g == NULL)
		return;
	/* First: whoever gets its number next is no guard. */
	alarm_pid = 0;
	if (g->socket >= 0)
		close(g->socket);
	if (g->pid > 0) {
		(void)kill(g->pid, SIGKILL);
		while (waitpid(g->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	free(g);
}
