/* SPDX-License-Identifier: MIT
 *
 * mount: daemons begun, found, ended, and what they leave. The lane is the reaper of its descendants (PR_SET_CHILD_SUBREAPER),
 * so it sees the end of a daemon that went to the background, and how it ended.
 */
#include "tests/kill/kill.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Processes ---- */

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return status;
}

/* The child of a fork: what it says goes to the file. */
static _Noreturn void become(const char *out, char *const argv[])
{
	int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600), null = open("/dev/null", O_RDONLY);

	if (fd >= 0 && null >= 0) {
		(void)dup2(null, STDIN_FILENO);
		(void)dup2(fd, STDOUT_FILENO);
		(void)dup2(fd, STDERR_FILENO);
		(void)close(fd);
		(void)close(null);
		(void)execvp(argv[0], argv);
	}
	_exit(127);
}

static void slurp(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, size - 1);

	text[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		(void)close(fd);
}

int run(struct lane *l, char *const argv[])
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		become(l->out, argv);
	status = pid < 0 ? -1 : wait_for(pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

/* ---- The mount table ---- */

unsigned mount_count(const char *mnt)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096], point[1024];
	unsigned n = 0;

	if (!f)
		abort();
	while (fgets(line, sizeof line, f))
		n += sscanf(line, "%*d %*d %*s %*s %1023s", point) == 1 && strcmp(point, mnt) == 0;
	(void)fclose(f);
	return n;
}

bool mount_is(const char *mnt)
{
	return mount_count(mnt) > 0;
}

unsigned long long mount_status(const char *mnt, const char *name)
{
	char path[400], text[8192], *at;
	size_t len = strlen(name);

	(void)snprintf(path, sizeof path, "%s/.msyncfs/status", mnt);
	slurp(path, text, sizeof text);
	for (at = text; at && *at; at = strchr(at, '\n'), at = at ? at + 1 : NULL)
		if (strncmp(at, name, len) == 0 && at[len] == '=')
			return strtoull(at + len + 1, NULL, 10);
	return 0;
}

static int unmount(const char *mnt, int flags)
{
	char *argv[] = { "fusermount3", "-u", "-q", "--", (char *)mnt, NULL };
	char *lazy[] = { "fusermount3", "-u", "-z", "-q", "--", (char *)mnt, NULL };
	int status;
	pid_t pid;

	if (umount2(mnt, flags) == 0)
		return 0;
	if (errno != EPERM)
		return -errno;
	pid = fork();
	if (pid == 0)
		become("/dev/null", flags & MNT_DETACH ? lazy : argv);
	status = wait_for(pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

void mount_detach(const char *mnt)
{
	while (mount_is(mnt) && unmount(mnt, MNT_DETACH) == 0)
		;
}

/* ---- Daemons ---- */

void start_mount(struct lane *l, struct start *s, const char *store, const char *mnt, bool foreground)
{
	char *argv[9] = { (char *)l->program, "mount" };
	int n = 2;

	if (foreground)
		argv[n++] = "-f";
	if (l->options) {
		argv[n++] = "-o";
		argv[n++] = (char *)l->options;
	}
	argv[n++] = (char *)store;
	argv[n++] = (char *)mnt;
	*s = (struct start){ .foreground = foreground, .store = store, .mnt = mnt, .begun_s = seconds_now() };
	(void)snprintf(s->out, sizeof s->out, "%s/said.%d", l->dir, (int)(mnt == l->mnt[0] ? 0 : mnt == l->mnt[1] ? 1 : 2));
	/* Two on one mount point: each has a file of its own. */
	if (store == l->store2)
		(void)strcat(s->out, "b");
	s->pid = fork();
	if (s->pid < 0)
		lost(l, "fork: %s", strerror(errno));
	if (s->pid == 0) {
		if (l->points_so) {
			char points[300];

			(void)snprintf(points, sizeof points, "%s/../points", l->dir);
			(void)setenv("KILL_POINTS", points, 1);
			(void)setenv("LD_PRELOAD", l->points_so, 1);
		}
		become(s->out, argv);
	}
}

bool start_wait(struct lane *l, struct start *s)
{
	unsigned us;

	if (!s->ended)
		s->status = wait_for(s->pid);
	s->ended = true;
	if (s->status != 0)
		return false;
	us = (unsigned)((seconds_now() - s->begun_s) * 1e6);
	atomic_fetch_add(&l->figures->opens, 1);
	atomic_fetch_add(&l->figures->open_us, us);
	if (us > atomic_load(&l->figures->open_us_max))
		atomic_store(&l->figures->open_us_max, us);
	return true;
}

void start_must_say(struct lane *l, const struct start *s)
{
	char text[2048], *end;

	slurp(s->out, text, sizeof text);
	if (!WIFEXITED(s->status) || WEXITSTATUS(s->status) == 0)
		lost(l, "%s on %s: status %x, should have failed: %s", s->store, s->mnt, (unsigned)s->status, text);
	end = strchr(text, '\n');
	if (strncmp(text, "msyncfs: ", 9) != 0 || !end || end[1] != '\0')
		lost(l, "%s on %s: failed without one clear line: \"%s\"", s->store, s->mnt, text);
	atomic_fetch_add(&l->figures->races_lost, 1);
}

_Noreturn void start_must_succeed(struct lane *l, const struct start *s)
{
	char text[2048];

	slurp(s->out, text, sizeof text);
	lost(l, "mount failed: status %x: %s", (unsigned)s->status, text);
}

/* In the foreground: usable when it says so itself. */
static void wait_usable(struct lane *l, struct start *s)
{
	while ((pid_t)mount_status(s->mnt, "pid") != s->pid) {
		if (waitpid(s->pid, &s->status, WNOHANG) == s->pid)
			start_must_succeed(l, s);
		nap_us(300);
	}
}

void mount_up(struct lane *l, int at)
{
	struct start s;

	l->at = at;
	start_mount(l, &s, l->store, l->mnt[at], random_below(&l->rng, 4) == 0);
	if (s.foreground)
		wait_usable(l, &s);
	else if (!start_wait(l, &s))
		start_must_succeed(l, &s);
	/* Nothing else may be done to find it: it is who answers. */
	l->daemon = (pid_t)mount_status(l->mnt[at], "pid");
	if (l->daemon == 0)
		lost(l, "the mount command returned, but the mount is not usable");
	if (mount_count(l->mnt[at]) != 1)
		lost(l, "%u mounts on top of each other", mount_count(l->mnt[at]));
}

int mount_wait_daemon(struct lane *l)
{
	int status = wait_for(l->daemon);

	if (status < 0)
		lost(l, "the daemon %d is not a child: %s", (int)l->daemon, strerror(errno));
	l->daemon = 0;
	return status;
}

void mount_kill(struct lane *l)
{
	int status;

	(void)kill(l->daemon, SIGKILL);
	status = mount_wait_daemon(l);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		lost(l, "the daemon ended by itself: status %x", (unsigned)status);
	atomic_fetch_add(&l->figures->kills[l->kind], 1);
}

void mount_end_children(void)
{
	char path[64], text[4096] = "", *at, *end;
	int tries;

	(void)snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	for (tries = 0; tries < 1000; tries++) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		slurp(path, text, sizeof text);
		if (text[0] == '\0')
			return;
		for (at = text; *at != '\0'; at = *end != '\0' ? end + 1 : end) {
			pid_t pid = (pid_t)strtol(at, &end, 10);

			if (end == at)
				break;
			(void)kill(pid, SIGKILL);
		}
		nap_us(2000);
	}
}

void mount_off(struct lane *l)
{
	int r;

	/* Others may look at a mount for a moment, as a file indexer does. */
	while ((r = unmount(l->mnt[l->at], 0)) == -EBUSY)
		nap_us(1000);
	if (r < 0)
		lost(l, "umount: %s", strerror(-r));
}

void mount_down(struct lane *l)
{
	int status;

	mount_off(l);
	status = mount_wait_daemon(l);
	if (status != 0)
		lost(l, "unmounted, the daemon ended with status %x", (unsigned)status);
}

/* ---- What is left ---- */

static bool belongs(const struct lane *l, const char *name)
{
	static const char *const fixed[] = { ".", "..", "store.msync", "store2.msync", "acks" };
	size_t i;

	for (i = 0; i < sizeof fixed / sizeof *fixed; i++)
		if (strcmp(name, fixed[i]) == 0)
			return true;
	(void)l;
	return strncmp(name, "mnt", 3) == 0 || strncmp(name, "said.", 5) == 0 || strcmp(name, "out") == 0;
}

/* A daemon that was killed may have had a process at work, which ends by itself: fusermount3 of a common user's, and well; the
 * leak checker of a sanitizer, which is killed with it. All others should have been waited for. */
static void no_children(struct lane *l)
{
	bool sanitized = !l->points_so, may_wait = sanitized || geteuid() != 0;
	int status = 0;
	pid_t pid;

	do
		pid = waitpid(-1, &status, may_wait ? 0 : WNOHANG);
	while (pid > 0 && (status == 0 || (sanitized && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)));
	if (pid == 0)
		lost(l, "a process is left");
	if (pid > 0)
		lost(l, "process %d was left, and ended with status %x", (int)pid, (unsigned)status);
}

void mount_no_leftover(struct lane *l)
{
	DIR *d = opendir(l->dir);
	struct dirent *e;

	if (!d)
		lost(l, "%s: %s", l->dir, strerror(errno));
	while ((e = readdir(d)) != NULL)
		if (!belongs(l, e->d_name))
			lost(l, "%s was left behind", e->d_name);
	(void)closedir(d);
	no_children(l);
}

void mount_check(struct lane *l, const char *store)
{
	char *argv[] = { (char *)l->program, "check", (char *)store, NULL };
	char text[2048];
	int r = run(l, argv);

	slurp(l->out, text, sizeof text);
	if (r != 0)
		lost(l, "check: status %d: %s", r, text);
	atomic_fetch_add(&l->figures->checks, 1);
}
