/* SPDX-License-Identifier: MIT
 *
 * world: the base image, made once, and what an input does to its own copy of it. See fuzz_util.h.
 */
#include "tests/fuzz/world_util.h"

#include "core/store/store_int.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct world world;

/* The system ------------------------------------------------------------------------------------------------------ */

/* The file that is open is as long as it says, until it grows: then it is as long as it would be. */
static uint64_t grown;

static int w_size(void *ctx, int fd, uint64_t *ret_size)
{
	struct stat st;

	(void)ctx;
	if (fstat(fd, &st) < 0)
		return -errno;
	*ret_size = max_u64(grown, (uint64_t)st.st_size);
	return 0;
}

static int w_allocate(void *ctx, int fd, uint64_t off, uint64_t len)
{
	(void)ctx;
	(void)fd;
	if (off + len > WORLD_MAX)
		return -ENOSPC;
	grown = max_u64(grown, off + len);
	return 0;
}

static int w_truncate(void *ctx, int fd, uint64_t size)
{
	(void)ctx;
	(void)fd;
	(void)size;
	return 0;
}

static int map_at(void *addr, size_t len, int prot, int flags, int fd, uint64_t off)
{
	return mmap(addr, len, prot, MAP_FIXED | MAP_PRIVATE | MAP_NORESERVE | flags, fd, (off_t)off) == MAP_FAILED ?
	       -errno : 0;
}

static int w_map(void *ctx, void *addr, size_t len, int fd, uint64_t off, int private_copy)
{
	int r;

	(void)ctx;
	(void)fd;
	(void)private_copy;
	/* No page of it may be one that the file does not have: that fault would be ours, and look like one of the store's. */
	check(off > 0 || !world.ready || len <= world.size[world.which]);
	if (off > 0 || !world.ready)
		r = map_at(addr, len, PROT_READ | PROT_WRITE, MAP_ANONYMOUS, -1, 0);
	else
		r = map_at(addr, len, PROT_READ | PROT_WRITE, 0, world.base_fd[world.which], 0);
	if (off == 0)
		world.image = addr;
	if (r == 0 && off == 0 && world.in)
		image_edit(addr, world.in, world.may);
	return r;
}

static int w_unmap(void *ctx, void *addr, size_t len)
{
	(void)ctx;
	return map_at(addr, len, PROT_NONE, MAP_ANONYMOUS, -1, 0);
}

static int w_sync(void *ctx, void *addr, size_t len)
{
	(void)ctx;
	(void)addr;
	(void)len;
	return 0;
}

static uint64_t w_clock(void *ctx)
{
	(void)ctx;
	return world.clock += 1000000;
}

static int w_random(void *ctx, void *buf, size_t len)
{
	uint8_t *p = buf;

	(void)ctx;
	for (; len > 0; len--)
		*p++ = (uint8_t)((world.random = world.random * 6364136223846793005ull + 1442695040888963407ull) >> 56);
	return 0;
}

const struct sys_ops *world_sys(void)
{
	static const struct sys_ops sys = {
		.allocate = w_allocate, .truncate = w_truncate, .size = w_size, .map = w_map, .unmap = w_unmap, .sync = w_sync,
		.populate = w_sync, .ahead = w_sync, .now_real_ns = w_clock, .now_mono_ns = w_clock, .random = w_random,
	};

	grown = 0;
	return &sys;
}

void world_seed(const uint8_t *data, size_t size)
{
	world.random = hash64(data, size, 0x6675);
	world.clock = 1700000000ull * 1000000000u;
	world.honest = true;
}

/* The base image -------------------------------------------------------------------------------------------------- */

void tag_block(uint8_t *block, uint64_t ino, uint64_t fblock)
{
	uint64_t x = ino << 20 ^ fblock;
	unsigned i;

	put_le64(block, TAG_MAGIC);
	put_le64(block + 8, ino);
	put_le64(block + 16, fblock);
	for (i = 24; i < BLOCK_SIZE; i += 8)
		put_le64(block + i, x = x * 6364136223846793005ull + 1);
}

static void write_tagged(struct keys *k, uint64_t ino, uint64_t fblock, unsigned blocks)
{
	static uint8_t buf[64 * BLOCK_SIZE];
	size_t n;
	unsigned i;

	for (i = 0; i < blocks; i++)
		tag_block(buf + (size_t)i * BLOCK_SIZE, ino, fblock + i);
	check(keys_write(k, ino, fblock << BLOCK_SHIFT, buf, (size_t)blocks * BLOCK_SIZE, false, &n) == 0);
}

static uint64_t make(struct keys *k, uint64_t dir, const char *name, uint32_t mode)
{
	const struct keys_cred cred = { 1000, 1000, 022 };
	struct keys_attr a;

	check(keys_make(k, dir, name, strlen(name), mode, 5, &cred, &a) == 0);
	world.inos[world.ino_count++] = a.ino;
	return a.ino;
}

static void set_xattr(struct keys *k, uint64_t ino, const char *name, size_t len)
{
	static uint8_t value[KEYS_XATTR_MAX];

	memset(value, 'v', len);
	check(keys_setxattr(k, ino, name, value, len, 0, false) == 0);
}

static void symlink_to(struct keys *k, const char *name, size_t len)
{
	const struct keys_cred cred = { 0, 0, 022 };
	struct keys_attr a;
	char target[KEYS_SYMLINK_MAX];

	memset(target, 't', sizeof target);
	check(keys_symlink(k, KEYS_ROOT_INO, name, strlen(name), target, len, &cred, &a) == 0);
	world.inos[world.ino_count++] = a.ino;
}

static const uint8_t an_acl[] = {
	2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 5, 0, 232, 3, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255,
	16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
};

/* What a checkpoint contains. */
static void first_half(struct keys *k)
{
	uint64_t d, e, f, unused;
	uint32_t nlink;
	struct keys_attr a;
	char name[32];
	unsigned i;

	world.inos[world.ino_count++] = KEYS_ROOT_INO;
	d = make(k, KEYS_ROOT_INO, "d", S_IFDIR | 0755);
	e = make(k, d, "e", S_IFDIR | 0755);
	for (i = 0; i < 3; i++) {
		(void)snprintf(name, sizeof name, "f%u", i);
		f = make(k, i == 2 ? e : KEYS_ROOT_INO, name, S_IFREG | 0644);
		write_tagged(k, f, 0, 3 + 9 * i);
		write_tagged(k, f, 40, 1);
	}
	f = make(k, d, "small", S_IFREG | 0644);
	check(keys_write(k, f, 0, "hello", 5, false, &(size_t){ 0 }) == 0);
	check(keys_link(k, f, e, "again", 5, &a) == 0);
	f = make(k, d, "unwritten", S_IFREG | 0644);
	check(keys_fallocate(k, f, FALLOC_FL_KEEP_SIZE, 0, 20 * BLOCK_SIZE, 0) == 0);
	write_tagged(k, f, 4, 1);
	write_tagged(k, f, 8, 2);
	symlink_to(k, "short", 20);
	symlink_to(k, "long", 3000);
	(void)make(k, d, "dev", S_IFCHR | 0600);
	(void)make(k, d, "fifo", S_IFIFO | 0600);
	set_xattr(k, e, "user.one", 10);
	set_xattr(k, f, "user.chunks", 4000);
	set_xattr(k, f, "user.two", 0);
	check(keys_setxattr(k, f, ACL_ACCESS_NAME, an_acl, sizeof an_acl, 0, false) == 0);
	check(keys_setxattr(k, d, ACL_DEFAULT_NAME, an_acl, sizeof an_acl, 0, false) == 0);
	e = make(k, KEYS_ROOT_INO, "many", S_IFDIR | 0755);
	for (i = 0; i < 70; i++) {
		(void)snprintf(name, sizeof name, "an entry with a name %u", i);
		f = make(k, e, name, S_IFREG | 0600);
		if (world.ino_count > 24)
			world.ino_count--;
	}
	for (i = 0; i < 70; i += 3) {
		(void)snprintf(name, sizeof name, "an entry with a name %u", i);
		check(keys_unlink(k, e, name, strlen(name), &unused, &nlink) == 0);
		while (keys_reap(k, unused) > 0)
			;
	}
	f = make(k, d, "gone", S_IFREG | 0644);
	write_tagged(k, f, 0, 5);
	check(keys_unlink(k, d, "gone", 4, &unused, &nlink) == 0);
}

/* What the journal has beyond it. */
static void second_half(struct keys *k)
{
	uint64_t f, unused;
	const struct keys_cred cred = { 0, 0, 022 };

	f = make(k, KEYS_ROOT_INO, "late", S_IFREG | 0644);
	write_tagged(k, f, 1, 6);
	check(keys_write(k, f, 300, "rides in its record", 19, false, &(size_t){ 0 }) == 0);
	write_tagged(k, world.inos[4], 2, 5);
	check(keys_rename(k, KEYS_ROOT_INO, "f0", 2, KEYS_ROOT_INO, "g0", 2, 0, &cred, &unused) == 0);
	set_xattr(k, f, "user.late", 1500);
	check(keys_fallocate(k, world.inos[3], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000, 20000, 0) == 0);
	check(keys_fallocate(k, f, 0, 40 * BLOCK_SIZE, 8 * BLOCK_SIZE, 0) == 0);
	write_tagged(k, f, 42, 2);
}

static void keep_image(unsigned which, uint64_t size)
{
	uint64_t at;
	int fd = memfd_create("msyncfs-fuzz", MFD_CLOEXEC);

	check(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	for (at = 0; at < size; at += BLOCK_SIZE) {
		const uint8_t *p = world.image + at;

		/* What holds zeros stays a hole. */
		if (p[0] || memcmp(p, p + 1, BLOCK_SIZE - 1) != 0)
			check(pwrite(fd, p, BLOCK_SIZE, (off_t)at) == (ssize_t)BLOCK_SIZE);
	}
	world.base_fd[which] = fd;
	world.size[which] = size;
	world.bytes[which] = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	check(world.bytes[which] != MAP_FAILED);
	(void)snprintf(world.path[which], sizeof world.path[which], "/proc/self/fd/%d", fd);
}

/* A large file that is mostly free, since what filled it is gone; and some contents, and pages, behind that. */
static void init_large(void)
{
	const struct store_options o = { .path = ":memory:", .create = true, .max_bytes = WORLD_LARGE, .sys = world_sys() };
	struct keys *k;
	uint64_t f, unused, count = world.ino_count;
	uint32_t nlink;
	unsigned i;

	check(keys_open(&o, &k) == 0);
	f = make(k, KEYS_ROOT_INO, "filler", S_IFREG | 0644);
	for (i = 0; i < 11; i++) {
		check(keys_fallocate(k, f, 0, i * (4ull << 20), 4u << 20, 0) == 0);
		check(store_poll(keys_store(k)) == 0);
	}
	first_half(k);
	check(keys_unlink(k, KEYS_ROOT_INO, "filler", 6, &unused, &nlink) == 0);
	while (keys_reap(k, f) > 0)
		;
	check(store_checkpoint(keys_store(k)) == 0);
	world.ino_count = (unsigned)count;      /* the same numbers, but for one more */
	check(map_blocks(&keys_store(k)->map) << BLOCK_SHIFT <= WORLD_LARGE);
	keep_image(2, map_blocks(&keys_store(k)->map) << BLOCK_SHIFT);
	check(keys_close(k) == 0);
}

static void init(void)
{
	const struct store_options o = { .path = ":memory:", .create = true, .max_bytes = WORLD_SMALL,
					 .sys = world_sys() };
	struct keys *k;

	world_seed((const uint8_t *)"base", 4);
	check(keys_open(&o, &k) == 0);
	first_half(k);
	check(store_checkpoint(keys_store(k)) == 0);
	keep_image(0, WORLD_SMALL);
	second_half(k);
	keep_image(1, WORLD_SMALL);
	check(keys_close(k) == 0);
	init_large();
	image_learn();
	world.ready = true;
}

uint64_t world_ino(unsigned i)
{
	return world.ino_count ? world.inos[i % world.ino_count] : i;
}

uint64_t world_block(unsigned i)
{
	return world.block_count ? world.blocks[i % world.block_count] : i;
}

void world_dishonest(void)
{
	world.honest = false;
}

bool world_honest(void)
{
	return world.honest;
}

static int open_world(struct input *in, unsigned may, bool read_only, struct store_salvage *salvage,
		      struct keys **ret_keys)
{
	struct store_options o = { .read_only = read_only, .salvage = salvage };
	int r;

	if (!world.ready) {
		uint64_t random = world.random;

		init();
		world.random = random;
		world.clock = 1700000000ull * 1000000000u;
	}
	world.which = 0;
	if (in && in->p < in->end) {
		uint8_t which = in_u8(in);

		world.which = which % 4 == 2 ? 2 : which & 1;
	}
	o.path = world.path[world.which];
	o.sys = world_sys();            /* behind init(), whose files grew */
	world.in = in;
	world.may = may;
	world.honest = true;
	r = keys_open(&o, ret_keys);
	world.in = NULL;
	return r;
}

int world_open(struct input *in, unsigned may, bool read_only, struct keys **ret_keys)
{
	return open_world(in, may, read_only, NULL, ret_keys);
}

int world_salvage(struct input *in, unsigned may, struct store_salvage *v, struct keys **ret_keys)
{
	return open_world(in, may, true, v, ret_keys);
}

int world_open_base(struct keys **ret_keys)
{
	return world_open(NULL, 0, false, ret_keys);
}
