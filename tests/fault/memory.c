/* SPDX-License-Identifier: MIT
 *
 * memory: refuses memory to the daemon and to its libraries, as a file says (FAULT_FILE) that can be changed while it runs. The
 * file holds one line:
 *
 *   FIRST COUNT     the FIRST-th allocation from now on (1 = the next) fails, and COUNT in all; COUNT 0: for ever
 *
 * Each failure adds a byte to FAULT_FILE.hit. It is made in two ways:
 *
 * - as a library that is loaded into the daemon (LD_PRELOAD): every malloc(), calloc(), realloc(), aligned_alloc() and
 *   posix_memalign() of the process, those within the C library too (strdup(), fopen(), asprintf()). When the process ends, what is
 *   still allocated goes to FAULT_FILE.live: a line "COUNT PLACE" for each place that asked for it, so that a leak is what a
 *   run without faults does not leave behind.
 * - linked into the daemon (-DLINKED, -Wl,--wrap) where a sanitizer has an allocator of its own: the calls of our own code only,
 *   and the sanitizer looks for leaks.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- The plan ---- */

static struct {
	struct timespec seen;           /* when the file was changed last */
	ino_t ino;
	long first, count;
	bool armed, forever;
} plan;
static atomic_flag busy = ATOMIC_FLAG_INIT;     /* around the plan and the table; a mutex might ask for memory */

static void take(void)
{
	while (atomic_flag_test_and_set(&busy))
		;
}

static void give(void)
{
	atomic_flag_clear(&busy);
}

/* Only calls that ask for no memory. */
static void load(const char *file)
{
	char text[64] = "", *end;
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

	if (fd >= 0)
		close(fd);
	plan.first = n > 0 ? strtol(text, &end, 10) : 0;
	plan.count = plan.first > 0 ? strtol(end, NULL, 10) : 0;
	plan.armed = plan.first > 0;
	plan.forever = plan.count == 0;
}

static void note_hit(const char *file)
{
	static const char suffix[] = ".hit";
	char hit[4096];
	size_t len = strlen(file);
	int fd;

	if (len + sizeof suffix > sizeof hit)
		return;
	memcpy(hit, file, len);
	memcpy(hit + len, suffix, sizeof suffix);
	fd = open(hit, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (fd < 0 || write(fd, ".", 1) < 0)
		return;
	close(fd);
}

/* True: refuse this one. */
static bool strike(void)
{
	const char *file = getenv("FAULT_FILE");
	bool refused = false;
	struct stat st;
	int error = errno;

	if (file == NULL || stat(file, &st) < 0) {
		errno = error;
		return false;
	}
	take();
	if (st.st_ino != plan.ino || st.st_mtim.tv_sec != plan.seen.tv_sec || st.st_mtim.tv_nsec != plan.seen.tv_nsec) {
		plan.seen = st.st_mtim;
		plan.ino = st.st_ino;
		load(file);
	}
	if (plan.armed && --plan.first <= 0) {
		refused = true;
		plan.armed = plan.forever || --plan.count > 0;
		note_hit(file);
	}
	give();
	errno = refused ? ENOMEM : error;
	return refused;
}

#ifdef LINKED

#define WRAP(type, name, args, call) \
	type __real_##name args; \
	type __wrap_##name args; \
	type __wrap_##name args { return strike() ? NULL : __real_##name call; }

WRAP(void *, malloc, (size_t size), (size))
WRAP(void *, calloc, (size_t n, size_t size), (n, size))
WRAP(void *, realloc, (void *p, size_t size), (p, size))
WRAP(char *, strdup, (const char *s), (s))

#else

/* ---- What is allocated ---- */

enum { TABLE = 1 << 18, PLACES = 4096 };

static struct { const void *p, *at; } table[TABLE];
static size_t table_used;

static size_t slot_of(const void *p)
{
	return ((uintptr_t)p / 16 * 0x9e3779b97f4a7c15ull >> 20) % TABLE;
}

static void *remember(void *p, const void *at)
{
	size_t i = slot_of(p);

	if (p == NULL)
		return NULL;
	take();
	if (table_used < TABLE / 2) {
		while (table[i].p != NULL)
			i = (i + 1) % TABLE;
		table[i].p = p;
		table[i].at = at;
		table_used++;
	}
	give();
	return p;
}

static void forget(const void *p)
{
	size_t i = slot_of(p), hole;

	if (p == NULL)
		return;
	take();
	while (table[i].p != NULL && table[i].p != p)
		i = (i + 1) % TABLE;
	if (table[i].p != NULL) {
		/* Those behind it move up, so that they are found. */
		hole = i;
		for (i = (i + 1) % TABLE; table[i].p != NULL; i = (i + 1) % TABLE) {
			if ((i - slot_of(table[i].p)) % TABLE < (i - hole) % TABLE)
				continue;
			table[hole] = table[i];
			hole = i;
		}
		table[hole].p = NULL;
		table_used--;
	}
	give();
}

/* ---- The calls ---- */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *p);

void *malloc(size_t size)
{
	return strike() ? NULL : remember(__libc_malloc(size), __builtin_return_address(0));
}

void *calloc(size_t n, size_t size)
{
	return strike() ? NULL : remember(__libc_calloc(n, size), __builtin_return_address(0));
}

void *realloc(void *p, size_t size)
{
	void *to;

	if (size > 0 && strike())
		return NULL;
	/* Forgotten first: as soon as it is free another thread may get it. */
	forget(p);
	to = __libc_realloc(p, size);
	remember(to != NULL || size == 0 ? to : p, __builtin_return_address(0));
	return to;
}

void *aligned_alloc(size_t align, size_t size)
{
	return strike() ? NULL : remember(__libc_memalign(align, size), __builtin_return_address(0));
}

int posix_memalign(void **ret, size_t align, size_t size)
{
	void *p = strike() ? NULL : remember(__libc_memalign(align, size), __builtin_return_address(0));

	if (p == NULL)
		return ENOMEM;
	*ret = p;
	return 0;
}

void free(void *p)
{
	forget(p);
	__libc_free(p);
}

/* The daemon's children (fusermount3) are not meant. */
static void __attribute__((constructor)) stay_here(void)
{
	unsetenv("LD_PRELOAD");
}

static void __attribute__((destructor)) report(void)
{
	static struct { const void *at; unsigned count; } places[PLACES];
	const char *file = getenv("FAULT_FILE");
	unsigned n = 0, j;
	char path[4096];
	int fd;

	if (file == NULL)
		return;
	take();
	plan.armed = false;
	for (size_t i = 0; i < TABLE; i++) {
		if (table[i].p == NULL)
			continue;
		for (j = 0; j < n && places[j].at != table[i].at; j++)
			;
		if (j == n && n < PLACES)
			places[n++].at = table[i].at;
		if (j < PLACES)
			places[j].count++;
	}
	give();
	snprintf(path, sizeof path, "%s.live", file);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	for (j = 0; fd >= 0 && j < n; j++) {
		Dl_info info = { 0 };

		if (dladdr(places[j].at, &info) != 0 && info.dli_fname != NULL)
			dprintf(fd, "%u %s+%#lx\n", places[j].count, info.dli_fname,
				(unsigned long)((const char *)places[j].at - (const char *)info.dli_fbase));
		else
			dprintf(fd, "%u %p\n", places[j].count, places[j].at);
	}
	if (fd >= 0)
		close(fd);
}
#endif
