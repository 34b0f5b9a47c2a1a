/* SPDX-License-Identifier: MIT
 *
 * test_order: what an opening writes in which order, where the power-cut machine comes seldom. (G6) The superblock that is
 * found may be in the page cache only: it is stored to and msynced before the one that is surely on disk is written over. Since opening
 * also makes its other place whole, and syncs that, it takes two kills (the second one in the midst of this), a power cut
 * and a damaged superblock before anything is lost without it: tests/crash makes that by chance, here it is seen each time.
 */
#include "tests/unit/scratch_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/keys/keys.h"
#include "core/store/store_int.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[SCRATCH_PATH], other[SCRATCH_PATH];
static uint8_t before[SUPER_PLACES][BLOCK_SIZE];
static uint8_t *base;                   /* where it is mapped */
static block_t force;                   /* the superblock in force when it was opened */
static bool synced, too_early;
static volatile bool stored;            /* to it, whatever */
static unsigned syncs;

static int watch(int prot)
{
	return mprotect(base + force * BLOCK_SIZE, BLOCK_SIZE, prot);
}

/* The kernel may hold it for clean although it is not on disk: only a store makes it dirty. */
static void on_store(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (stored || (uint8_t *)info->si_addr < base + force * BLOCK_SIZE || (uint8_t *)info->si_addr >= base + (force + 1) * BLOCK_SIZE)
		abort();
	stored = true;
	(void)watch(PROT_READ | PROT_WRITE);
}

static int o_map(void *ctx, void *addr, size_t len, int fd, uint64_t off, int private_copy)
{
	int r = sys_linux.map(NULL, addr, len, fd, off, private_copy);

	(void)ctx;
	base = (uint8_t *)addr - off;
	if (r == 0 && off <= force * BLOCK_SIZE && (force + 1) * BLOCK_SIZE <= off + len)
		assert_int_equal(watch(PROT_READ), 0);
	return r;
}

/* Before this msync: was a place of the other superblock written to, which is the one that is on disk for sure? */
static int o_sync(void *ctx, void *addr, size_t len)
{
	const uint8_t *from = addr, *page = base + force * BLOCK_SIZE;
	unsigned i;

	(void)ctx;
	syncs++;
	for (i = 0; i < SUPER_PLACES; i++)
		if (i % SUPERS != get_le64(page + SB_FLIP) % SUPERS &&
		    memcmp(base + super_place(i) * BLOCK_SIZE, before[i], BLOCK_SIZE) != 0)
			too_early = too_early || !synced;
	synced = synced || (stored && from <= page && page < from + len);
	return 0;
}

/* As a kill leaves it. */
static void copy_open(void)
{
	static uint8_t buf[1u << 20];
	int in = open(path, O_RDONLY), out = open(other, O_RDWR | O_CREAT | O_TRUNC, 0600);
	ssize_t n;

	assert_true(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof buf)) > 0)
		assert_int_equal(write(out, buf, (size_t)n), n);
	(void)close(in);
	(void)close(out);
}

static void read_supers(void)
{
	const uint8_t *pages[SUPER_PLACES];
	int fd = open(other, O_RDONLY);
	struct super sb;
	unsigned i;

	for (i = 0; i < SUPER_PLACES; i++) {
		assert_int_equal(pread(fd, before[i], BLOCK_SIZE, (off_t)(super_place(i) * BLOCK_SIZE)), BLOCK_SIZE);
		pages[i] = before[i];
	}
	assert_int_equal(super_pick(pages, &sb, &force), 0);
	(void)close(fd);
}

static void test_order__found_superblock_is_synced_first(void **state)
{
	struct store_options o = { .path = path, .create = true, .max_bytes = 32u << 20 };
	const struct keys_cred cred = { 0 };
	struct sys_ops sys = sys_linux;
	struct sigaction sa = { .sa_sigaction = on_store, .sa_flags = SA_SIGINFO }, old;
	struct keys_attr a;
	struct keys *k, *c;
	unsigned i;
	char name[16];

	(void)state;
	assert_int_equal(sigaction(SIGSEGV, &sa, &old), 0);
	sys.map = o_map;
	sys.sync = o_sync;
	assert_int_equal(keys_open(&o, &k), 0);
	/* In either slot. */
	for (i = 0; i < 4; i++) {
		const struct store_options again = { .path = other, .sys = &sys };

		(void)snprintf(name, sizeof name, "f%u", i);
		assert_int_equal(keys_make(k, KEYS_ROOT_INO, name, strlen(name), S_IFREG | 0644, 0, &cred, &a), 0);
		assert_int_equal(store_checkpoint(keys_store(k)), 0);
		copy_open();
		read_supers();
		assert_int_equal(force, (i + 1) % SUPERS);
		synced = too_early = stored = false;
		syncs = 0;
		assert_int_equal(keys_open(&again, &c), 0);
		assert_true(synced && syncs > 3);
		assert_false(too_early);
		assert_int_equal(keys_lookup(c, KEYS_ROOT_INO, name, strlen(name), &a), 0);
		assert_int_equal(keys_close(c), 0);
	}
	assert_int_equal(keys_close(k), 0);
	assert_int_equal(sigaction(SIGSEGV, &old, NULL), 0);
}

static int setup(void **state)
{
	(void)state;
	if (scratch_make_on_disk("order") < 0)
		return -1;
	scratch_path(path, "store");
	scratch_path(other, "other");
	return 0;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_order__found_superblock_is_synced_first),
};

int main(void)
{
	return cmocka_run_group_tests_name("order", tests, setup, scratch_teardown);
}
