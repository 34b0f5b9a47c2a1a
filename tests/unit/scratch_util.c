/* SPDX-License-Identifier: MIT
 *
 * scratch: see scratch_util.h.
 */
#include "tests/unit/scratch_util.h"

#include "tests/unit/ok_util.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAMES_MAX 8u

static char folder[64], paths[NAMES_MAX][SCRATCH_PATH];
static unsigned path_count;
static pid_t keeper;
static int keeper_fd;

/* The keeper: what is in the folder goes when nobody has the other end of the pipe any more. It has nothing else of the test's: no
 * descriptor that somebody waits for the end of, and not its session, which a watchdog kills. */
static void keep(int fd)
{
	const struct dirent *e;
	char c;
	DIR *d;

	(void)setsid();
	if (fd > 0)
		(void)close_range(0, (unsigned)fd - 1, 0);
	(void)close_range((unsigned)fd + 1, ~0u, 0);
	while (read(fd, &c, 1) < 0 && errno == EINTR)
		;
	d = opendir(folder);
	while (d && (e = readdir(d)) != NULL)
		(void)unlinkat(dirfd(d), e->d_name, 0);
	(void)rmdir(folder);
	_exit(0);
}

static int make_in(const char *parent, const char *test)
{
	int ends[2];

	path_count = 0;
	check((size_t)snprintf(folder, sizeof folder, "%s/msyncfs-%s.XXXXXX", parent, test) < sizeof folder);
	if (!mkdtemp(folder))
		return -1;
	if (pipe2(ends, O_CLOEXEC) < 0 || (keeper = fork()) < 0) {
		(void)rmdir(folder);
		return -1;
	}
	if (keeper == 0) {
		(void)close(ends[1]);
		keep(ends[0]);
	}
	(void)close(ends[0]);
	keeper_fd = ends[1];
	return 0;
}

int scratch_make_on_disk(const char *test)
{
	const char *tmp = getenv("TMPDIR");

	return make_in(tmp && *tmp ? tmp : "/tmp", test);
}

int scratch_make(const char *test)
{
	return access("/dev/shm", W_OK) == 0 ? make_in("/dev/shm", test) : scratch_make_on_disk(test);
}

const char *scratch_folder(void)
{
	return folder;
}

void scratch_path(char path[SCRATCH_PATH], const char *name)
{
	check(path_count < NAMES_MAX);
	(void)snprintf(path, SCRATCH_PATH, "%s/%.30s", folder, name);
	(void)snprintf(paths[path_count++], SCRATCH_PATH, "%s", path);
}

int scratch_remove(void)
{
	int r;

	for (; path_count > 0; path_count--)
		(void)unlink(paths[path_count - 1]);
	r = rmdir(folder);
	(void)close(keeper_fd);
	(void)waitpid(keeper, NULL, 0);
	return r;
}

int scratch_teardown(void **state)
{
	(void)state;
	return scratch_remove();
}

void scratch_copy(const char *from, const char *to)
{
	static uint8_t bytes[1 << 20];
	FILE *f = fopen(from, "rb"), *g = fopen(to, "wb");
	size_t n;

	assert_true(f && g);
	while ((n = fread(bytes, 1, sizeof bytes, f)) > 0)
		assert_int_equal(fwrite(bytes, 1, n, g), n);
	assert_int_equal(fclose(g), 0);
	(void)fclose(f);
}

void scratch_kill(struct keys *k, const char *path)
{
	char copy[SCRATCH_PATH + 8];

	(void)snprintf(copy, sizeof copy, "%s.copy", path);
	scratch_copy(path, copy);
	ok(keys_close(k));
	assert_int_equal(rename(copy, path), 0);
}
