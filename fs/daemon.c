/* SPDX-License-Identifier: MIT
 *
 * daemon: see daemon.h.
 */
#include "fs/daemon.h"

#include "fs/cmd.h"
#include "fs/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The parent: its status is 0 once a byte came, else that of the child. */
static _Noreturn void wait_for(pid_t child, int fd)
{
	char byte;
	ssize_t n;
	int status;

	do {
		n = read(fd, &byte, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 1)
		_exit(0);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			_exit(EXIT_FAILED);
	if (WIFSIGNALED(status))
		log_error("the daemon was killed: signal %d (%s): mount again, nothing is lost", WTERMSIG(status),
			  strsignal(WTERMSIG(status)));
	_exit(WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : EXIT_FAILED);
}

void daemon_let_go(void)
{
	/* Linux has it from 5.9; before, they stay open, as they did for every daemon that forgot. */
	(void)close_range(STDERR_FILENO + 1, UINT_MAX, 0);
}

int daemon_start(int *ret_ready_fd)
{
	int fds[2], null;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0) {
		int error = errno;

		close(fds[0]);
		close(fds[1]);
		return -error;
	}
	if (pid > 0) {
		close(fds[1]);
		wait_for(pid, fds[0]);
	}
	close(fds[0]);
	/* A session of its own: no signal of the terminal comes here. */
	setsid();
	null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		if (null > STDERR_FILENO)
			close(null);
	}
	*ret_ready_fd = fds[1];
	return 0;
}

bool daemon_is_abandoned(int ready_fd)
{
	struct pollfd p = { .fd = ready_fd };

	/* Of a pipe that nobody reads any more. */
	return ready_fd >= 0 && poll(&p, 1, 0) > 0 && (p.revents & POLLERR) != 0;
}

int daemon_ready(int ready_fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), r = 0;

	/* First let go of the terminal, or of the pipe that a caller reads to its end; then of the
	 * caller. What other threads say meanwhile is not to go nowhere. */
	log_to_syslog();
	if (null >= 0) {
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		if (null > STDERR_FILENO)
			close(null);
	}
	if (write(ready_fd, "", 1) != 1)
		r = -errno;
	close(ready_fd);
	return r;
}
