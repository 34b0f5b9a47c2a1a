/* SPDX-License-Identifier: MIT
 *
 * test_outfile: a file has its name only when it is complete, whether or not the file system has unnamed files; what fails
 * leaves the folder as it was. Linked with open64, linkat, renameat2, rename and fsync wrapped (Makefile), so that a test can
 * be a file system without unnamed files, or one that fails.
 */
#include "tests/unit/ok_util.h"
#include "tests/unit/scratch_util.h"

#include "core/base.h"
#include "core/stream/outfile.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[SCRATCH_PATH];
static bool no_unnamed;         /* O_TMPFILE is not known */
static bool no_flags;           /* nor is renameat2() */
static int fail_fsync;          /* the fsync that fails, counted from 1 */
static int fsyncs;
static int fail_link, fail_rename;      /* errno, or 0 */

int __real_open64(const char *name, int flags, ...);
int __wrap_open64(const char *name, int flags, ...);
int __wrap_open64(const char *name, int flags, ...)
{
	mode_t mode = 0;
	va_list ap;

	va_start(ap, flags);
	if (flags & (O_CREAT | O_TMPFILE))
		mode = va_arg(ap, mode_t);
	va_end(ap);
	if (no_unnamed && (flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return __real_open64(name, flags, mode);
}

int __real_linkat(int odir, const char *from, int ndir, const char *to, int flags);
int __wrap_linkat(int odir, const char *from, int ndir, const char *to, int flags);
int __wrap_linkat(int odir, const char *from, int ndir, const char *to, int flags)
{
	if (fail_link) {
		errno = fail_link;
		return -1;
	}
	return __real_linkat(odir, from, ndir, to, flags);
}

int __real_renameat2(int odir, const char *from, int ndir, const char *to, unsigned flags);
int __wrap_renameat2(int odir, const char *from, int ndir, const char *to, unsigned flags);
int __wrap_renameat2(int odir, const char *from, int ndir, const char *to, unsigned flags)
{
	if (fail_rename || no_flags) {
		errno = fail_rename ? fail_rename : EINVAL;
		return -1;
	}
	return __real_renameat2(odir, from, ndir, to, flags);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
	if (++fsyncs == fail_fsync) {
		errno = EIO;
		return -1;
	}
	return __real_fsync(fd);
}

/* The names in the folder. */
static unsigned names(void)
{
	DIR *d = opendir(scratch_folder());
	struct dirent *e;
	unsigned n = 0;

	assert_non_null(d);
	while ((e = readdir(d)) != NULL)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void is_text(const char *want)
{
	char buf[64] = "";
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_true(read(fd, buf, sizeof buf - 1) >= 0);
	close(fd);
	assert_string_equal(buf, want);
}

static void begin(struct outfile *f, const char *text)
{
	ok(outfile_open(f, path));
	assert_int_equal(write(f->fd, text, strlen(text)), strlen(text));
}

static void write_now(const char *text, bool replace)
{
	struct outfile f;

	begin(&f, text);
	ok(outfile_publish(&f, replace));
	outfile_close(&f);
}

/* What holds on every kind of file system. */
static void life(void)
{
	struct outfile f;
	struct stat st;
	char *place;
	int fd;

	/* Not complete: it has no name, but can be opened; given up, nothing is left. */
	begin(&f, "one");
	assert_int_equal(stat(path, &st), -1);
	place = strdup(outfile_place(&f));
	fd = open(place, O_RDWR);
	assert_true(fd >= 0);
	assert_true(fstat(fd, &st) == 0 && st.st_size == 3);
	close(fd);
	outfile_close(&f);
	assert_int_equal(names(), 0);
	assert_int_equal(f.fd, -1);
	outfile_close(&f);
	free(place);

	/* Complete: it has its name, its mode, its contents, and nothing stands beside it. */
	write_now("two", false);
	is_text("two");
	assert_true(stat(path, &st) == 0 && (st.st_mode & 07777) == 0600);
	assert_int_equal(names(), 1);

	/* What has the name stays, or goes, as told. */
	begin(&f, "three");
	assert_int_equal(outfile_publish(&f, false), -EEXIST);
	assert_non_null(strstr(err_last(), path));
	outfile_close(&f);
	is_text("two");
	assert_int_equal(names(), 1);
	write_now("four", true);
	is_text("four");
	assert_int_equal(names(), 1);
	assert_int_equal(unlink(path), 0);
	write_now("five", true);
	is_text("five");
	assert_int_equal(unlink(path), 0);
}

static void test_outfile__has_its_name_when_it_is_complete(void **state)
{
	(void)state;
	life();
}

static void test_outfile__on_file_systems_without_unnamed_files(void **state)
{
	(void)state;
	no_unnamed = true;
	life();
	no_flags = true;
	life();
}

static void test_outfile__what_fails_leaves_nothing(void **state)
{
	struct outfile f;
	int i, kind;

	(void)state;
	for (kind = 0; kind < 2; kind++) {
		no_unnamed = kind == 1;
		/* The contents, or the name, cannot be synced: it is no success. */
		for (i = 1; i <= 2; i++) {
			fsyncs = 0;
			fail_fsync = i;
			begin(&f, "text");
			assert_int_equal(outfile_publish(&f, false), -EIO);
			outfile_close(&f);
			fail_fsync = 0;
			/* Before its contents are on disk it gets no name. */
			assert_int_equal(names(), i == 2);
			(void)unlink(path);
		}
		/* The name cannot be had; what has it stays. */
		write_now("old", true);
		if (kind == 0)
			fail_link = ENOSPC;
		else
			fail_rename = ENOSPC;
		for (i = 0; i < 2; i++) {
			begin(&f, "new");
			assert_int_equal(outfile_publish(&f, i == 1), -ENOSPC);
			outfile_close(&f);
			is_text("old");
			assert_int_equal(names(), 1);
		}
		fail_link = fail_rename = 0;
		assert_int_equal(unlink(path), 0);
	}
}

static void refused(const char *where, int error, const char *why)
{
	struct outfile f;

	assert_int_equal(outfile_open(&f, where), -error);
	assert_non_null(strstr(err_last(), why));
	assert_int_equal(f.fd, -1);
	outfile_close(&f);
}

static void test_outfile__places_that_cannot_be(void **state)
{
	char where[2 * PATH_MAX];
	int kind;

	(void)state;
	for (kind = 0; kind < 2; kind++) {
		no_unnamed = kind == 1;
		(void)snprintf(where, sizeof where, "%s/nowhere/file", scratch_folder());
		refused(where, ENOENT, "folder does not exist");
		write_now("a file", true);
		(void)snprintf(where, sizeof where, "%s/file/file", scratch_folder());
		refused(where, ENOTDIR, "folder does not exist");
		assert_int_equal(unlink(path), 0);
		memset(where, 'x', sizeof where);
		memcpy(where, "/tmp/", 5);
		where[5 + 255] = '/';
		where[sizeof where - 1] = '\0';
		for (size_t i = 5; i + 256 < sizeof where; i += 256)
			where[i + 255] = '/';
		/* The text is cut behind the name. */
		refused(where, ENAMETOOLONG, "/tmp/xxx");
	}
	assert_int_equal(names(), 0);
}

static int begin_test(void **state)
{
	(void)state;
	no_unnamed = no_flags = false;
	fail_fsync = fsyncs = fail_link = fail_rename = 0;
	return 0;
}

static int set_up(void **state)
{
	(void)state;
	if (scratch_make_on_disk("outfile") < 0)
		return -1;
	scratch_path(path, "file");
	return 0;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup(test_outfile__has_its_name_when_it_is_complete, begin_test),
	cmocka_unit_test_setup(test_outfile__on_file_systems_without_unnamed_files, begin_test),
	cmocka_unit_test_setup(test_outfile__what_fails_leaves_nothing, begin_test),
	cmocka_unit_test_setup(test_outfile__places_that_cannot_be, begin_test),
};

int main(void)
{
	return cmocka_run_group_tests_name("outfile", tests, set_up, scratch_teardown);
}
