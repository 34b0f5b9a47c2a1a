/* SPDX-License-Identifier: MIT
 *
 * test_outfile: a file has its name when it is complete, and not before; what was there is never lost for it, and nothing
 * else is left. Both ways: without a name meanwhile, and, where the file system cannot do that (open is made to say so),
 * with another one.
 */
#include "core/base.h"
#include "core/stream/outfile.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64], path[96];
static bool no_unnamed;

int __real_open64(const char *name, int flags, ...);
int __wrap_open64(const char *name, int flags, ...);

int __wrap_open64(const char *name, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	if (no_unnamed && (flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return __real_open64(name, flags, mode);
}

static unsigned files_in_dir(void)
{
	DIR *d = opendir(dir);
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	(void)closedir(d);
	return n - 2;
}

static void put_file(const char *name, const char *text)
{
	FILE *f = fopen(name, "w");

	assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void assert_holds(const char *name, const char *text)
{
	char got[64] = "";
	FILE *f = fopen(name, "r");

	assert_non_null(f);
	assert_true(fgets(got, sizeof got, f) != NULL);
	assert_string_equal(got, text);
	(void)fclose(f);
}

static void begin(struct outfile *f, const char *text)
{
	assert_int_equal(outfile_open(f, path), 0);
	assert_int_equal(write(f->fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void appears_when_complete(void)
{
	struct outfile f;
	struct stat st;

	begin(&f, "new");
	assert_int_equal(access(path, F_OK), -1);
	assert_holds(outfile_place(&f), "new");
	assert_int_equal(outfile_publish(&f, false), 0);
	assert_holds(path, "new");
	outfile_close(&f);
	assert_int_equal(files_in_dir(), 1);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(unlink(path), 0);
}

static void test_outfile__appears_when_complete(void **ctx)
{
	(void)ctx;
	appears_when_complete();
	no_unnamed = true;
	appears_when_complete();
}

static void does_not_replace(void)
{
	struct outfile f;

	put_file(path, "old");
	begin(&f, "new");
	assert_int_equal(outfile_publish(&f, false), -EEXIST);
	assert_non_null(strstr(err_last(), "exists already"));
	outfile_close(&f);
	assert_holds(path, "old");
	assert_int_equal(files_in_dir(), 1);
	assert_int_equal(unlink(path), 0);
	/* A symbolic link to nothing is a name too. */
	assert_int_equal(symlink("nowhere", path), 0);
	begin(&f, "new");
	assert_int_equal(outfile_publish(&f, false), -EEXIST);
	outfile_close(&f);
	assert_int_equal(files_in_dir(), 1);
	assert_int_equal(unlink(path), 0);
}

static void test_outfile__does_not_replace_what_is_there(void **ctx)
{
	(void)ctx;
	does_not_replace();
	no_unnamed = true;
	does_not_replace();
}

static void replaces(void)
{
	struct outfile f;

	put_file(path, "old");
	begin(&f, "new");
	assert_int_equal(outfile_publish(&f, true), 0);
	outfile_close(&f);
	assert_holds(path, "new");
	assert_int_equal(files_in_dir(), 1);
	assert_int_equal(unlink(path), 0);
	/* But not a directory. */
	assert_int_equal(mkdir(path, 0700), 0);
	begin(&f, "new");
	assert_true(outfile_publish(&f, true) < 0);
	outfile_close(&f);
	assert_int_equal(files_in_dir(), 1);
	assert_int_equal(rmdir(path), 0);
}

static void test_outfile__replaces_if_told_to(void **ctx)
{
	(void)ctx;
	replaces();
	no_unnamed = true;
	replaces();
}

static void test_outfile__what_is_not_published_is_gone(void **ctx)
{
	struct outfile f;

	(void)ctx;
	for (no_unnamed = false;; no_unnamed = true) {
		begin(&f, "new");
		outfile_close(&f);
		outfile_close(&f);
		assert_int_equal(files_in_dir(), 0);
		if (no_unnamed)
			break;
	}
}

static void test_outfile__impossible_names_are_refused(void **ctx)
{
	char name[PATH_MAX + 2];
	struct outfile f;

	(void)ctx;
	for (no_unnamed = false;; no_unnamed = true) {
		(void)snprintf(name, sizeof name, "%s/no/such/folder", dir);
		assert_int_equal(outfile_open(&f, name), -ENOENT);
		assert_non_null(strstr(err_last(), "the folder does not exist"));
		outfile_close(&f);
		put_file(path, "file");
		(void)snprintf(name, sizeof name, "%s/below", path);
		assert_int_equal(outfile_open(&f, name), -ENOTDIR);
		outfile_close(&f);
		assert_int_equal(unlink(path), 0);
		memset(name, 'x', sizeof name - 1);
		name[sizeof name - 2] = '/';
		name[sizeof name - 1] = '\0';
		assert_int_equal(outfile_open(&f, name), -ENAMETOOLONG);
		outfile_close(&f);
		if (no_unnamed)
			break;
	}
	assert_int_equal(files_in_dir(), 0);
}

static int setup(void **ctx)
{
	(void)ctx;
	no_unnamed = false;
	(void)snprintf(dir, sizeof dir, "%s/msyncfs-outfile.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof path, "%s/out", dir);
	return 0;
}

static int teardown(void **ctx)
{
	(void)ctx;
	return rmdir(dir);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_outfile__appears_when_complete),
		T(test_outfile__does_not_replace_what_is_there),
		T(test_outfile__replaces_if_told_to),
		T(test_outfile__what_is_not_published_is_gone),
		T(test_outfile__impossible_names_are_refused),
	};

	return cmocka_run_group_tests_name("outfile", tests, NULL, NULL);
}
