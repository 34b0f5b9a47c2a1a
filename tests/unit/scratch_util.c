/* SPDX-License-Identifier: MIT
 *
 * scratch: see scratch_util.h.
 */
#include "tests/unit/scratch_util.h"

#include "tests/unit/ok_util.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NAMES_MAX 8u

static char folder[64], paths[NAMES_MAX][SCRATCH_PATH];
static unsigned path_count;

static int make_in(const char *parent, const char *test)
{
	path_count = 0;
	check((size_t)snprintf(folder, sizeof folder, "%s/msyncfs-%s.XXXXXX", parent, test) < sizeof folder);
	return mkdtemp(folder) ? 0 : -1;
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
	for (; path_count > 0; path_count--)
		(void)unlink(paths[path_count - 1]);
	return rmdir(folder);
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
