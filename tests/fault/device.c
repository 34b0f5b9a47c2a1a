/* SPDX-License-Identifier: MIT
 *
 * device: loaded into the daemon (LD_PRELOAD), it makes calls on /dev/fuse and its eventfd fail as a file says that can be
 * changed while the daemon runs. The file (FAULT_FILE) holds one line:
 *
 *   CALL FIRST COUNT ERRNO     the FIRST-th CALL from now on (1 = the next), and COUNT in all, fail with this number;
 *                              CALL is read, write or poll; ERRNO 0 is a write that takes half. COUNT 0: for ever
 *
 * Each failure adds a byte to FAULT_FILE.hit, so that a test sees that there was one.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <pthread.h>
#include <unistd.h>

enum { FUSE_MAJOR = 10, FUSE_MINOR = 229 };

static struct {
	pthread_mutex_t lock;
	struct timespec seen;           /* when the file was changed last */
	ino_t ino;
	char call[16];
	long first, count;
	int error;
	bool forever;
} plan = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void load(const char *file, const struct stat *st)
{
	char text[64] = "";
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	ssize_t (*real_read)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");

	plan.seen = st->st_mtim;
	plan.ino = st->st_ino;
	plan.call[0] = '\0';
	if (fd < 0)
		return;
	if (real_read(fd, text, sizeof text - 1) < 0 ||
	    sscanf(text, "%15s %ld %ld %d", plan.call, &plan.first, &plan.count, &plan.error) != 4)
		plan.call[0] = '\0';
	plan.forever = plan.count == 0;
	close(fd);
}

static void note_hit(const char *file)
{
	ssize_t (*real_write)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
	char hit[4096];
	int fd;

	snprintf(hit, sizeof hit, "%s.hit", file);
	fd = open(hit, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (fd < 0)
		return;
	if (real_write(fd, ".", 1) < 0)
		perror(hit);
	close(fd);
}

/* -1: let it through; else the errno to fail with. */
static int strike(const char *call)
{
	const char *file = getenv("FAULT_FILE");
	struct stat st;
	int error = -1;

	if (file == NULL || stat(file, &st) < 0)
		return -1;
	pthread_mutex_lock(&plan.lock);
	if (st.st_ino != plan.ino || st.st_mtim.tv_sec != plan.seen.tv_sec || st.st_mtim.tv_nsec != plan.seen.tv_nsec)
		load(file, &st);
	if (strcmp(plan.call, call) == 0 && --plan.first <= 0) {
		error = plan.error;
		if (!plan.forever && --plan.count <= 0)
			plan.call[0] = '\0';
	}
	pthread_mutex_unlock(&plan.lock);
	if (error >= 0)
		note_hit(file);
	return error;
}

static bool is_device(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(FUSE_MAJOR, FUSE_MINOR);
}

ssize_t read(int fd, void *buf, size_t n)
{
	ssize_t (*real)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
	int error = is_device(fd) ? strike("read") : -1;

	if (error < 0)
		return real(fd, buf, n);
	errno = error;
	return -1;
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
	ssize_t (*real)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
	int error = is_device(fd) ? strike("write") : -1;

	if (error < 0)
		return real(fd, iov, count);
	errno = error;
	return error == 0 ? (ssize_t)iov[0].iov_len / 2 : -1;
}

int poll(struct pollfd *fds, nfds_t n, int ms)
{
	int (*real)(struct pollfd *, nfds_t, int) = dlsym(RTLD_NEXT, "poll");
	bool ours = false;
	int error;

	for (nfds_t i = 0; i < n; i++)
		ours |= fds[i].fd >= 0 && is_device(fds[i].fd);
	error = ours ? strike("poll") : -1;
	if (error < 0)
		return real(fds, n, ms);
	errno = error;
	return -1;
}
