/* SPDX-License-Identifier: MIT
 *
 * test_map: the mapping grows and shrinks in place; what the system refuses changes nothing; a failed sync is final.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/store/map.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The system's calls, of which the n-th may be made to fail. */
static struct {
	int allocate, map, sync, unmap, truncate;       /* calls until it fails; 0 = never */
	int error;
	unsigned syncs, writes;
	size_t longest_sync, longest_write;
} faults;

static int due(int *left)
{
	return *left > 0 && --*left == 0 ? faults.error : 0;
}

static int do_allocate(void *ctx, int fd, uint64_t off, uint64_t len)
{
	int r = due(&faults.allocate);

	return r < 0 ? r : sys_linux.allocate(ctx, fd, off, len);
}

static int do_map(void *ctx, void *addr, size_t len, int fd, uint64_t off, int private_copy)
{
	int r = due(&faults.map);

	return r < 0 ? r : sys_linux.map(ctx, addr, len, fd, off, private_copy);
}

static int do_unmap(void *ctx, void *addr, size_t len)
{
	int r = due(&faults.unmap);

	return r < 0 ? r : sys_linux.unmap(ctx, addr, len);
}

static int do_truncate(void *ctx, int fd, uint64_t size)
{
	int r = due(&faults.truncate);

	return r < 0 ? r : sys_linux.truncate(ctx, fd, size);
}

static int do_sync(void *ctx, void *addr, size_t len)
{
	int r = due(&faults.sync);

	faults.syncs++;
	if (len > faults.longest_sync)
		faults.longest_sync = len;
	return r < 0 ? r : sys_linux.sync(ctx, addr, len);
}

static struct sys_ops sys;

static int open_map(struct map *m, uint64_t max_bytes)
{
	int fd = memfd_create("map", MFD_CLOEXEC);

	assert_true(fd >= 0);
	memset(&faults, 0, sizeof faults);
	sys = sys_linux;
	sys.allocate = do_allocate;
	sys.map = do_map;
	sys.unmap = do_unmap;
	sys.truncate = do_truncate;
	sys.sync = do_sync;
	assert_int_equal(map_open(m, fd, false, max_bytes, &sys), 0);
	return fd;
}

static uint64_t file_size(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_size;
}

static unsigned count_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	(void)closedir(d);
	return n;
}

/* Areas of memory inside the reservation. */
static unsigned count_areas(const struct map *m)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long long from, to;
	char line[600];
	unsigned n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "%llx-%llx", &from, &to) == 2 && to > (uintptr_t)m->base &&
		    from < (uintptr_t)m->base + m->reserved)
			n++;
	(void)fclose(f);
	return n;
}

static void put_number(const struct map *m, block_t b)
{
	put_le64(map_block(m, b), b * 3 + 1);
}

static void check_numbers(const struct map *m, block_t from, block_t to)
{
	for (; from < to; from++)
		assert_int_equal(get_le64(map_block(m, from)), from * 3 + 1);
}

static void test_map__grows_in_place(void **state)
{
	unsigned before = count_descriptors(), i;
	struct map m;
	int fd = open_map(&m, 1u << 30);
	uint8_t *base = m.base;
	block_t b;

	(void)state;
	for (i = 0; i < 700; i++) {
		uint64_t old = map_blocks(&m), add = 1 + i % 9;

		assert_int_equal(map_grow(&m, add), 0);
		assert_int_equal(map_blocks(&m), old + add);
		assert_ptr_equal(m.base, base);
		for (b = old; b < old + add; b++) {
			assert_int_equal(get_le64(map_block(&m, b)), 0);
			put_number(&m, b);
		}
	}
	check_numbers(&m, 0, map_blocks(&m));
	assert_int_equal(file_size(fd), map_blocks(&m) << BLOCK_SHIFT);
	assert_true(count_areas(&m) <= 4);
	assert_int_equal(count_descriptors(), before + 1);
	map_close(&m);
	map_close(&m);                          /* twice is no harm */
	(void)close(fd);
	assert_int_equal(count_descriptors(), before);
}

static void test_map__shrinks_and_grows_again(void **state)
{
	struct map m;
	int fd = open_map(&m, 1u << 30);
	block_t b;

	(void)state;
	assert_int_equal(map_grow(&m, 500), 0);
	for (b = 0; b < 500; b++)
		put_number(&m, b);
	assert_int_equal(map_shrink(&m, 600), 0);
	assert_int_equal(map_blocks(&m), 500);
	assert_int_equal(map_shrink(&m, 123), 0);
	assert_int_equal(map_blocks(&m), 123);
	assert_int_equal(file_size(fd), 123 << BLOCK_SHIFT);
	check_numbers(&m, 0, 123);
	assert_int_equal(map_grow(&m, 300), 0);
	check_numbers(&m, 0, 123);
	for (b = 123; b < 423; b++)
		assert_int_equal(get_le64(map_block(&m, b)), 0);
	assert_true(count_areas(&m) <= 4);
	map_close(&m);
	(void)close(fd);
}

static void test_map__the_limit_is_efbig(void **state)
{
	struct map m;
	int fd = open_map(&m, 1);               /* the least that is reserved: 64 MiB */

	(void)state;
	assert_int_equal(m.reserved, 64u << 20);
	assert_int_equal(map_grow(&m, 16385), -EFBIG);
	assert_int_equal(map_grow(&m, 16000), 0);
	assert_int_equal(map_grow(&m, 385), -EFBIG);
	assert_int_equal(map_blocks(&m), 16000);
	assert_int_equal(map_grow(&m, 384), 0);
	assert_int_equal(map_grow(&m, 1), -EFBIG);
	map_close(&m);
	(void)close(fd);
}

static void test_map__refused_growth_changes_nothing(void **state)
{
	static const int errors[] = { -ENOSPC, -EDQUOT, -EFBIG, -EIO };
	struct map m;
	int fd = open_map(&m, 1u << 30);
	unsigned i;

	(void)state;
	assert_int_equal(map_grow(&m, 10), 0);
	put_number(&m, 9);
	for (i = 0; i < ARRAY_LEN(errors); i++) {
		faults.error = errors[i];
		faults.allocate = 1;
		assert_int_equal(map_grow(&m, 7), errors[i]);
		faults.map = 1;
		assert_int_equal(map_grow(&m, 7), errors[i]);
		assert_int_equal(map_blocks(&m), 10 + i);
		assert_int_equal(map_failed(&m), 0);
		assert_int_equal(map_grow(&m, 1), 0);
		assert_int_equal(map_sync(&m, 0, 5), 0);
	}
	check_numbers(&m, 9, 10);
	faults.unmap = 1;
	assert_int_equal(map_shrink(&m, 5), -EIO);
	assert_int_equal(map_blocks(&m), 10 + i);
	map_close(&m);
	(void)close(fd);
}

static void test_map__first_failed_sync_is_final(void **state)
{
	struct map m;
	int fd = open_map(&m, 1u << 30);
	unsigned syncs;

	(void)state;
	assert_int_equal(map_grow(&m, 5000), 0);
	faults.longest_sync = 0;
	faults.syncs = 0;
	assert_int_equal(map_sync(&m, 10, 4900), 0);
	assert_int_equal(faults.syncs, 5);
	assert_true(faults.longest_sync <= 4u << 20);   /* in pieces */
	assert_int_equal(map_sync(&m, 10, 0), 0);
	assert_int_equal(faults.syncs, 5);
	/* The third piece fails, once. */
	faults.error = -EIO;
	faults.sync = 3;
	assert_int_equal(map_sync(&m, 0, 5000), -EIO);
	assert_int_equal(map_failed(&m), -EIO);
	syncs = faults.syncs;
	faults.error = -ENOSPC;
	assert_int_equal(map_sync(&m, 0, 1), -EIO);
	assert_int_equal(map_sync(&m, 4000, 1000), -EIO);
	assert_int_equal(map_grow(&m, 1), -EIO);
	assert_int_equal(map_blocks(&m), 5000);
	assert_int_equal(faults.syncs, syncs);          /* the kernel is not asked again */
	map_close(&m);
	(void)close(fd);
}

static void test_map__failed_sync_of_growth_is_final_too(void **state)
{
	struct map m;
	int fd = open_map(&m, 1u << 30);

	(void)state;
	assert_int_equal(map_grow(&m, 10), 0);
	faults.error = -EIO;
	faults.sync = 1;
	assert_int_equal(map_grow(&m, 10), -EIO);
	assert_int_equal(map_blocks(&m), 10);
	assert_int_equal(map_sync(&m, 0, 1), -EIO);
	map_close(&m);
	(void)close(fd);
}

static void test_map__private_copy_leaves_the_file(void **state)
{
	struct map m, p;
	int fd = open_map(&m, 1u << 30);

	(void)state;
	assert_int_equal(map_grow(&m, 10), 0);
	put_number(&m, 3);
	assert_int_equal(ftruncate(fd, (10 << BLOCK_SHIFT) + 100), 0);  /* rounded down */
	assert_int_equal(map_open(&p, fd, true, 1u << 30, &sys), 0);
	assert_int_equal(map_blocks(&p), 10);
	check_numbers(&p, 3, 4);
	faults.syncs = 0;
	put_number(&p, 4);
	assert_int_equal(map_grow(&p, 100), 0);
	put_number(&p, 109);
	assert_int_equal(map_sync(&p, 0, 110), 0);
	map_populate(&p, 0, 110);
	assert_int_equal(map_shrink(&p, 5), 0);
	assert_int_equal(faults.syncs, 0);
	assert_int_equal(get_le64(map_block(&m, 4)), 0);
	assert_int_equal(file_size(fd), (10 << BLOCK_SHIFT) + 100);
	map_close(&p);
	map_close(&m);
	(void)close(fd);
}

static int do_write(void *ctx, int fd, const void *bytes, size_t len, uint64_t off)
{
	faults.writes++;
	if (len > faults.longest_write)
		faults.longest_write = len;
	return sys_linux.write(ctx, fd, bytes, len, off);
}

/* In small pieces, seen through the mapping, and never behind the end of a file that somebody has cut. */
static void test_map__written_past_the_mapping(void **state)
{
	static uint8_t bytes[40 << BLOCK_SHIFT];
	struct map m;
	int fd = open_map(&m, 1u << 30);
	uint64_t byte;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(i * 3 + (i >> BLOCK_SHIFT));
	assert_int_equal(map_grow(&m, 100), 0);
	put_number(&m, 4);
	put_number(&m, 45);
	sys.write = do_write;
	assert_int_equal(map_write(&m, 5, 40, bytes), 0);
	assert_true(faults.writes > 0 && faults.longest_write == 32768);
	assert_memory_equal(map_block(&m, 5), bytes, sizeof bytes);
	check_numbers(&m, 4, 5);
	check_numbers(&m, 45, 46);
	/* Where the table has no such call. */
	sys.write = NULL;
	assert_int_equal(map_write(&m, 50, 40, bytes), 0);
	assert_memory_equal(map_block(&m, 50), bytes, sizeof bytes);
	sys.write = do_write;
	faults.writes = 0;
	assert_int_equal(ftruncate(fd, 60 << BLOCK_SHIFT), 0);
	assert_int_equal(map_write(&m, 60, 40, bytes), -EIO);
	assert_int_equal(faults.writes, 0);
	assert_int_equal(file_size(fd), 60 << BLOCK_SHIFT);
	assert_true(map_lost(&m, &byte) && byte == 60 << BLOCK_SHIFT);
	map_close(&m);
	(void)close(fd);
}

static void test_map__what_cannot_be_mapped_is_an_error(void **state)
{
	struct map m;
	int fd = open_map(&m, 1u << 30);

	(void)state;
	assert_int_equal(map_grow(&m, 10), 0);
	map_close(&m);
	faults.error = -EACCES;
	faults.map = 1;
	assert_int_equal(map_open(&m, fd, false, 0, &sys), -EACCES);
	assert_int_equal(map_open(&m, -1, false, 0, &sys), -EBADF);
	assert_int_equal(map_open(&m, fd, false, 0, &sys), 0);
	assert_int_equal(map_blocks(&m), 10);
	map_close(&m);
	(void)close(fd);
}

static uint64_t bytes_dirtied(void)
{
	char line[128];
	uint64_t n = 0;
	FILE *f = fopen("/proc/self/io", "re");

	if (!f)
		return 0;
	while (fgets(line, sizeof line, f))
		(void)sscanf(line, "write_bytes: %" SCNu64, &n);
	(void)fclose(f);
	return n;
}

#define BIG 8192u       /* blocks */

/* The kernel writes a folio back when a page of it is dirty, and makes large ones when it reads ahead by itself. */
static void test_map__a_changed_page_is_a_page_to_write(void **state)
{
	char name[] = "/var/tmp/msyncfs-map.XXXXXX";
	int fd = mkstemp(name);
	uint64_t b, before;
	struct map m;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(unlink(name), 0);
	assert_int_equal(map_open(&m, fd, false, 0, &sys_linux), 0);
	assert_int_equal(map_grow(&m, BIG), 0);
	/* Used, as it is by the allocator: first made ready, then written and synced. */
	for (b = 0; b < BIG; b += 512) {
		map_populate(&m, b, 512);
		memset(map_place(&m, b), 1, 512u << BLOCK_SHIFT);
		assert_int_equal(map_sync(&m, b, 512), 0);
	}
	/* Known to the page cache no more, and met again in order: where readahead is at its largest. */
	map_close(&m);
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	assert_int_equal(map_open(&m, fd, false, 0, &sys_linux), 0);
	for (b = 0; b < BIG; b++)
		assert_int_equal(*(uint8_t *)map_block(&m, b), 1);
	before = bytes_dirtied();
	if (before == 0)
		skip();         /* a file system that is not accounted for */
	for (b = 0; b < BIG; b += 64) {
		*(uint8_t *)map_block(&m, b) = 2;
		assert_int_equal(map_sync(&m, b, 1), 0);
	}
	assert_in_range(bytes_dirtied() - before, 0, BIG / 64 * 2 * BLOCK_SIZE);
	map_close(&m);
	(void)close(fd);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_map__grows_in_place),
	cmocka_unit_test(test_map__shrinks_and_grows_again),
	cmocka_unit_test(test_map__the_limit_is_efbig),
	cmocka_unit_test(test_map__refused_growth_changes_nothing),
	cmocka_unit_test(test_map__first_failed_sync_is_final),
	cmocka_unit_test(test_map__failed_sync_of_growth_is_final_too),
	cmocka_unit_test(test_map__private_copy_leaves_the_file),
	cmocka_unit_test(test_map__written_past_the_mapping),
	cmocka_unit_test(test_map__what_cannot_be_mapped_is_an_error),
	cmocka_unit_test(test_map__a_changed_page_is_a_page_to_write),
};

int main(void)
{
	return cmocka_run_group_tests_name("map", tests, NULL, NULL);
}
