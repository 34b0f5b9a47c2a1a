/* SPDX-License-Identifier: MIT
 *
 * points: loaded into the daemon (LD_PRELOAD). Each call at which the daemon meets the system is counted, and the one that
 * the driver chose is its last: SIGKILL before it, after it, or a few microseconds later from a timer of the kernel, which
 * strikes between any two instructions. KILL_POINTS names the file that the driver shares with us.
 *
 * Why a library and not the store's table of system calls (struct sys_ops): the program under test is the one that is
 * installed, to the byte, and the points include what is not in the table: the device, flock, linkat, mount.
 * The calls go straight to the kernel: nothing here may be met again by way of libc.
 */
/* Both names of a call are ours to give: the headers must not make one of them the other. */
#undef _FILE_OFFSET_BITS

#include "tests/kill/points.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { FUSE_MAJOR = 10, FUSE_MINOR = 229 };

static struct points *points;

__attribute__((constructor)) static void attach(void)
{
	const char *path = getenv("KILL_POINTS");
	void *p;
	int fd;

	if (!path)
		return;
	fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	p = (void *)syscall(SYS_mmap, NULL, sizeof *points, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	(void)syscall(SYS_close, fd);
	if (p != MAP_FAILED)
		points = p;
	/* Of no use to programs that the daemon runs (fusermount3). */
	(void)unsetenv("LD_PRELOAD");
	(void)unsetenv("KILL_POINTS");
}

static void die(void)
{
	atomic_store(&points->fired, 1);
	(void)syscall(SYS_kill, getpid(), SIGKILL);
}

/* Goes on; the kernel strikes when the time is over. */
static void die_later(unsigned ns)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL };
	struct itimerspec when = { .it_value = { .tv_nsec = ns } };
	timer_t timer;

	atomic_store(&points->fired, 1);
	if (timer_create(CLOCK_MONOTONIC, &event, &timer) < 0 || timer_settime(timer, 0, &when, NULL) < 0)
		die();
}

/* True: this is the call; whoever arms anew stores `armed` last. */
static bool is_it(enum point point, bool after)
{
	return points && atomic_load(&points->armed) == point && atomic_load(&points->after) == after &&
	       atomic_fetch_sub(&points->left, 1) == 1;
}

static void strike(enum point point, bool after)
{
	unsigned ns;
	int error = errno;

	if (is_it(point, after)) {
		ns = atomic_load(&points->delay_ns);
		if (ns == 0)
			die();
		else
			die_later(ns);
	}
	errno = error;
}

static void before(enum point point)
{
	if (points)
		atomic_fetch_add(&points->seen[point], 1);
	strike(point, false);
}

static bool is_device(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(FUSE_MAJOR, FUSE_MINOR);
}

#define POINT(point, call)              \
	do {                            \
		long r_;                \
		before(point);          \
		r_ = (call);            \
		strike(point, true);    \
		return r_;              \
	} while (0)

static long do_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	/* Only mappings of the store; a process has many others. */
	if (fd < 0 || (flags & MAP_FIXED) == 0)
		return syscall(SYS_mmap, addr, len, prot, flags, fd, off);
	POINT(POINT_MMAP, syscall(SYS_mmap, addr, len, prot, flags, fd, off));
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return (void *)do_mmap(addr, len, prot, flags, fd, off);
}

void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return (void *)do_mmap(addr, len, prot, flags, fd, off);
}

static long do_msync(void *addr, size_t len, int flags)
{
	POINT(POINT_MSYNC, syscall(SYS_msync, addr, len, flags));
}

int msync(void *addr, size_t len, int flags)
{
	return (int)do_msync(addr, len, flags);
}

static long do_madvise(void *addr, size_t len, int advice)
{
	POINT(POINT_MADVISE, syscall(SYS_madvise, addr, len, advice));
}

int madvise(void *addr, size_t len, int advice)
{
	return (int)do_madvise(addr, len, advice);
}

static long do_fallocate(int fd, int mode, off_t off, off_t len)
{
	POINT(POINT_FALLOCATE, syscall(SYS_fallocate, fd, mode, off, len));
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	return (int)do_fallocate(fd, mode, off, len);
}

int fallocate64(int fd, int mode, off_t off, off_t len)
{
	return (int)do_fallocate(fd, mode, off, len);
}

static long do_ftruncate(int fd, off_t len)
{
	POINT(POINT_FTRUNCATE, syscall(SYS_ftruncate, fd, len));
}

int ftruncate(int fd, off_t len)
{
	return (int)do_ftruncate(fd, len);
}

int ftruncate64(int fd, off_t len)
{
	return (int)do_ftruncate(fd, len);
}

static long do_linkat(int from, const char *old, int to, const char *new, int flags)
{
	POINT(POINT_LINKAT, syscall(SYS_linkat, from, old, to, new, flags));
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
	return (int)do_linkat(from, old, to, new, flags);
}

static long do_flock(int fd, int operation)
{
	POINT(POINT_FLOCK, syscall(SYS_flock, fd, operation));
}

int flock(int fd, int operation)
{
	return (int)do_flock(fd, operation);
}

static long do_open(const char *path, int flags, mode_t mode)
{
	POINT(POINT_OPEN, syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

static mode_t mode_of(int flags, va_list ap)
{
	return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(ap, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
	mode_t mode;
	va_list ap;

	va_start(ap, flags);
	mode = mode_of(flags, ap);
	va_end(ap);
	return (int)do_open(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	mode_t mode;
	va_list ap;

	va_start(ap, flags);
	mode = mode_of(flags, ap);
	va_end(ap);
	return (int)do_open(path, flags, mode);
}

static long do_fsync(int fd)
{
	POINT(POINT_FSYNC, syscall(SYS_fsync, fd));
}

int fsync(int fd)
{
	return (int)do_fsync(fd);
}

static long do_read(int fd, void *buf, size_t n)
{
	if (!points || !is_device(fd))
		return syscall(SYS_read, fd, buf, n);
	POINT(POINT_READ, syscall(SYS_read, fd, buf, n));
}

ssize_t read(int fd, void *buf, size_t n)
{
	return do_read(fd, buf, n);
}

static long do_writev(int fd, const struct iovec *iov, int count)
{
	if (!points || !is_device(fd))
		return syscall(SYS_writev, fd, iov, count);
	POINT(POINT_WRITEV, syscall(SYS_writev, fd, iov, count));
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
	return do_writev(fd, iov, count);
}

static long do_write(int fd, const void *buf, size_t n)
{
	POINT(POINT_WRITE, syscall(SYS_write, fd, buf, n));
}

ssize_t write(int fd, const void *buf, size_t n)
{
	return do_write(fd, buf, n);
}

static long do_mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data)
{
	POINT(POINT_MOUNT, syscall(SYS_mount, source, target, type, flags, data));
}

int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data)
{
	return (int)do_mount(source, target, type, flags, data);
}

static long do_umount(const char *target, int flags)
{
	POINT(POINT_UMOUNT, syscall(SYS_umount2, target, flags));
}

int umount2(const char *target, int flags)
{
	return (int)do_umount(target, flags);
}
