/* SPDX-License-Identifier: MIT
 *
 * held: loaded into the daemon (LD_PRELOAD), it looks at which mutexes are held in calls that can take long (msync, growth
 * and truncation, everything on a socket, waiting for events), and which the thread takes that reads /dev/fuse, the request
 * thread. None may be both: then a disk or a network that hangs would stop every request. It also counts the msyncs, and lets
 * one hang as long as the test likes. A directory (HELD_DIR) is where they meet:
 *
 *   hang      while it exists, msyncs do not return           hanging   made when one hangs
 *   msyncs    a byte for each one (not the provisioner's)     report    a line for each lock that is both
 *   seen      a line for each kind of call that was looked at, when it was the first of its kind
 *
 * Callers of pthread_cond_wait() need no look: while a thread waits there it is in no other call.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { FUSE_MAJOR = 10, FUSE_MINOR = 229, LOCKS_MAX = 4096, HELD_MAX = 64, KINDS_MAX = 32 };

struct lock_note {
	_Atomic(pthread_mutex_t *) lock;
	const void *at;                 /* where it was taken */
	const char *call;               /* what it was held over; NULL: taken by the request thread */
};

static struct lock_note slow[LOCKS_MAX], asked[LOCKS_MAX];
static _Atomic(const char *) kinds[KINDS_MAX];
static _Thread_local struct { pthread_mutex_t *lock; const void *at; } held[HELD_MAX];
static _Thread_local unsigned held_count;
static _Thread_local bool requesting;

/* Found once for each place that asks; dlsym() takes no lock of ours. */
#define REAL(name) ({ \
	static _Atomic(void *) found; \
	void *p = atomic_load(&found); \
	if (p == NULL) { \
		p = dlsym(RTLD_NEXT, #name); \
		atomic_store(&found, p); \
	} \
	(__typeof__(&(name)))p; })

/* ---- The directory ---- */

static const char *in_dir(const char *name, char *buf, size_t size)
{
	const char *dir = getenv("HELD_DIR");

	snprintf(buf, size, "%s/%s", dir != NULL ? dir : "/nonexistent", name);
	return buf;
}

static void add_text(const char *name, const char *text)
{
	char path[4096];
	int fd = open(in_dir(name, path, sizeof path), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);

	if (fd < 0)
		return;
	if (REAL(write)(fd, text, strlen(text)) < 0)
		perror(path);
	close(fd);
}

static void see(const char *kind)
{
	char line[64];

	for (unsigned i = 0; i < KINDS_MAX; i++) {
		const char *was = NULL;

		if (atomic_compare_exchange_strong(&kinds[i], &was, kind)) {
			snprintf(line, sizeof line, "%s\n", kind);
			add_text("seen", line);
			return;
		}
		if (strcmp(was, kind) == 0)
			return;
	}
}

/* ---- Locks ---- */

static const struct lock_note *find(const struct lock_note *set, const pthread_mutex_t *m)
{
	size_t i = (uintptr_t)m / 8 % LOCKS_MAX;

	for (unsigned n = 0; n < LOCKS_MAX; n++, i = (i + 1) % LOCKS_MAX) {
		const pthread_mutex_t *at = atomic_load(&set[i].lock);

		if (at == m)
			return &set[i];
		if (at == NULL)
			return NULL;
	}
	return NULL;
}

/* True: it is new. */
static bool note(struct lock_note *set, pthread_mutex_t *m, const void *at, const char *call)
{
	size_t i = (uintptr_t)m / 8 % LOCKS_MAX;

	for (unsigned n = 0; n < LOCKS_MAX; n++, i = (i + 1) % LOCKS_MAX) {
		pthread_mutex_t *was = NULL;

		if (atomic_compare_exchange_strong(&set[i].lock, &was, m)) {
			set[i].at = at;
			set[i].call = call;
			return true;
		}
		if (was == m)
			return false;
	}
	return false;
}

static void place(const void *at, char *buf, size_t size)
{
	Dl_info info;

	if (dladdr(at, &info) != 0 && info.dli_fname != NULL)
		snprintf(buf, size, "%s+%#lx", info.dli_fname, (unsigned long)((const char *)at - (const char *)info.dli_fbase));
	else
		snprintf(buf, size, "%p", at);
}

static void look(const pthread_mutex_t *m)
{
	const struct lock_note *s = find(slow, m), *a = find(asked, m);
	char by[300], over[300], line[800];

	if (s == NULL || a == NULL)
		return;
	place(a->at, by, sizeof by);
	place(s->at, over, sizeof over);
	snprintf(line, sizeof line, "a lock that the request thread takes at %s is held over %s, taken at %s\n", by,
		 s->call != NULL ? s->call : "?", over);
	add_text("report", line);
}

static void in_call(const char *call)
{
	if (requesting)
		return;
	see(call);
	for (unsigned i = 0; i < held_count; i++)
		if (note(slow, held[i].lock, held[i].at, call))
			look(held[i].lock);
}

int pthread_mutex_lock(pthread_mutex_t *m)
{
	const void *at = __builtin_return_address(0);
	int r = REAL(pthread_mutex_lock)(m);

	if (requesting && note(asked, m, at, NULL))
		look(m);
	if (held_count < HELD_MAX) {
		held[held_count].lock = m;
		held[held_count++].at = at;
	}
	return r;
}

/* Of the next mutex at the same place nothing is known. */
int pthread_mutex_destroy(pthread_mutex_t *m)
{
	const struct lock_note *s = find(slow, m), *a = find(asked, m);

	/* The slot stays in use, so that those behind it are found. */
	if (s != NULL)
		atomic_store(&slow[s - slow].lock, (pthread_mutex_t *)1);
	if (a != NULL)
		atomic_store(&asked[a - asked].lock, (pthread_mutex_t *)1);
	return REAL(pthread_mutex_destroy)(m);
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
	for (unsigned i = held_count; i > 0; i--) {
		if (held[i - 1].lock != m)
			continue;
		held[i - 1] = held[--held_count];
		break;
	}
	return REAL(pthread_mutex_unlock)(m);
}

/* ---- The disk ---- */

/* Who faults pages in is the provisioner. Its msyncs are nobody's who waits. */
static _Thread_local bool provisions;

int madvise(void *addr, size_t len, int advice)
{
	provisions |= advice == MADV_POPULATE_WRITE;
	return REAL(madvise)(addr, len, advice);
}

int msync(void *addr, size_t len, int flags)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	char hang[4096];

	in_call("msync");
	if (provisions)
		return REAL(msync)(addr, len, flags);
	add_text("msyncs", ".");
	in_dir("hang", hang, sizeof hang);
	if (access(hang, F_OK) == 0) {
		add_text("hanging", ".");
		while (access(hang, F_OK) == 0)
			nanosleep(&pause, NULL);
	}
	return REAL(msync)(addr, len, flags);
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	int (*real)(int, int, off_t, off_t) = (int (*)(int, int, off_t, off_t))dlsym(RTLD_NEXT, "fallocate64");

	in_call("fallocate");
	return real(fd, mode, off, len);
}

int ftruncate(int fd, off_t len)
{
	int (*real)(int, off_t) = (int (*)(int, off_t))dlsym(RTLD_NEXT, "ftruncate64");

	in_call("ftruncate");
	return real(fd, len);
}

/* ---- Descriptors ---- */

static bool is_device(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(FUSE_MAJOR, FUSE_MINOR);
}

static bool is_socket(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* Who reads the device is the request thread, until the device is gone: closing the store it may wait. */
ssize_t read(int fd, void *buf, size_t n)
{
	bool device = is_device(fd);
	ssize_t r;
	int error;

	if (device && !requesting) {
		requesting = true;
		see("requests");
	}
	if (!device && is_socket(fd))
		in_call("read of a socket");
	r = REAL(read)(fd, buf, n);
	error = errno;
	if (device && r < 0 && error == ENODEV)
		requesting = false;
	errno = error;
	return r;
}

ssize_t write(int fd, const void *buf, size_t n)
{
	if (is_socket(fd))
		in_call("write to a socket");
	return REAL(write)(fd, buf, n);
}

ssize_t recv(int fd, void *buf, size_t n, int flags)
{
	in_call("recv");
	return REAL(recv)(fd, buf, n, flags);
}

ssize_t send(int fd, const void *buf, size_t n, int flags)
{
	in_call("send");
	return REAL(send)(fd, buf, n, flags);
}

int connect(int fd, const struct sockaddr *to, socklen_t len)
{
	in_call("connect");
	return REAL(connect)(fd, to, len);
}

int accept4(int fd, struct sockaddr *from, socklen_t *len, int flags)
{
	in_call("accept");
	return REAL(accept4)(fd, from, len, flags);
}

int epoll_wait(int fd, struct epoll_event *events, int n, int ms)
{
	in_call("epoll_wait");
	return REAL(epoll_wait)(fd, events, n, ms);
}
