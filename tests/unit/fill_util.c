/* SPDX-License-Identifier: MIT
 *
 * fill: see fill_util.h.
 */
#include "tests/unit/fill_util.h"

#include "tests/unit/ok_util.h"

#include "core/store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

void (*fill_told)(seq_t first, seq_t last, uint64_t a, uint64_t b);

static const struct keys_cred cred = { 0, 0, 022 };
static uint64_t sys_clock, sys_random;

static seq_t seq(struct keys *k)
{
	return store_seq(keys_store(k));
}

static void tell(struct keys *k, seq_t before, uint64_t a, uint64_t b)
{
	if (fill_told)
		fill_told(before + 1, seq(k), a, b);
}

/* Space comes with the next checkpoint or growth. */
static bool is_short(struct keys *k, int r)
{
	if (r == -EAGAIN)
		ok(store_poll(keys_store(k)));
	return r == -EAGAIN;
}

uint64_t fill_make(struct keys *k, uint64_t where, const char *name, uint32_t mode)
{
	const seq_t before = seq(k);
	struct keys_attr a;
	int r;

	do
		r = keys_make(k, where, name, strlen(name), mode, 0x105, &cred, &a);
	while (is_short(k, r));
	ok(r);
	tell(k, before, where, a.ino);
	return a.ino;
}

void fill_bytes(struct keys *k, uint64_t file, uint64_t off, size_t len)
{
	const seq_t before = seq(k);
	uint8_t *p = malloc(len + 1);
	size_t n, i;

	assert_non_null(p);
	for (i = 0; i < len; i++)
		p[i] = (uint8_t)((off + i) / 7 + (off + i) / BLOCK_SIZE * 31 + file * 17);
	for (i = 0; i < len; i += n) {
		int r;

		do
			r = keys_write(k, file, off + i, p + i, len - i, false, &n);
		while (is_short(k, r));
		ok(r);
	}
	tell(k, before, file, 0);
	free(p);
}

void fill_xattr(struct keys *k, uint64_t file, const char *name, size_t size)
{
	const seq_t before = seq(k);
	uint8_t *p = malloc(size + 1);

	assert_non_null(p);
	memset(p, (int)('a' + file % 26), size);
	ok(keys_setxattr(k, file, name, p, size, 0, false));
	tell(k, before, file, 0);
	free(p);
}

void fill_acl(struct keys *k, uint64_t file, const char *name)
{
	static const uint16_t entries[5][3] = { { 1, 7, 0 }, { 2, 6, 1000 }, { 4, 5, 0 }, { 16, 7, 0 }, { 32, 4, 0 } };
	const seq_t before = seq(k);
	uint8_t acl[4 + 5 * 8];
	unsigned i;

	put_le32(acl, 2);
	for (i = 0; i < 5; i++) {
		put_le16(acl + 4 + i * 8, entries[i][0]);
		put_le16(acl + 6 + i * 8, entries[i][1]);
		put_le32(acl + 8 + i * 8, entries[i][2]);
	}
	ok(keys_setxattr(k, file, name, acl, sizeof acl, 0, false));
	tell(k, before, file, 0);
}

void fill_link(struct keys *k, uint64_t file, uint64_t where, const char *name)
{
	const seq_t before = seq(k);
	struct keys_attr a;

	ok(keys_link(k, file, where, name, strlen(name), &a));
	tell(k, before, where, file);
}

uint64_t fill_symlink(struct keys *k, uint64_t where, const char *name, size_t len)
{
	const seq_t before = seq(k);
	char target[KEYS_SYMLINK_MAX];
	struct keys_attr a;

	assert_true(len <= sizeof target);
	memset(target, 't', len);
	ok(keys_symlink(k, where, name, strlen(name), target, len, &cred, &a));
	tell(k, before, where, a.ino);
	return a.ino;
}

void fill_rename(struct keys *k, uint64_t from, const char *name, uint64_t to, const char *new_name)
{
	struct keys_attr a;
	uint64_t orphan;
	seq_t before;

	ok(keys_lookup(k, from, name, strlen(name), &a));
	before = seq(k);
	ok(keys_rename(k, from, name, strlen(name), to, new_name, strlen(new_name), 0, &cred, &orphan));
	tell(k, before, from, to);
	tell(k, before, from, a.ino);
}

void fill_unlink(struct keys *k, uint64_t where, const char *name)
{
	const seq_t before = seq(k);
	uint32_t nlink;
	uint64_t ino;
	int r = 1;

	ok(keys_unlink(k, where, name, strlen(name), &ino, &nlink));
	tell(k, before, where, ino);
	while (nlink == 0 && r > 0) {
		do
			r = keys_reap(k, ino);
		while (is_short(k, r));
		ok(r);
	}
}

void fill_files(struct keys *k, uint64_t where, unsigned from, unsigned count)
{
	char name[80];
	unsigned i;

	for (i = from; i < from + count; i++) {
		uint64_t file;

		(void)snprintf(name, sizeof name, "file %u with a name that is not short so that leaves are many", i);
		file = fill_make(k, where, name, S_IFREG | (0600 + i % 64));
		fill_bytes(k, file, i % 2 ? 0 : 8192, i % 3 ? i * 37 % 900 : i * 131 % 9000);
		if (i % 7 == 0)
			fill_xattr(k, file, "user.tag", 20 + i % 300);
	}
}

static uint64_t fixed_now(void *ctx)
{
	(void)ctx;
	return sys_clock += 1000;
}

static int fixed_random(void *ctx, void *buf, size_t len)
{
	uint8_t *p = buf;

	(void)ctx;
	for (; len > 0; len--, sys_random++)
		*p++ = (uint8_t)hash64(&sys_random, sizeof sys_random, 1);
	return 0;
}

struct sys_ops fill_sys(uint64_t seed)
{
	struct sys_ops sys = sys_linux;

	sys_clock = 1700000000000000000ull;
	sys_random = seed;
	sys.now_real_ns = sys.now_mono_ns = fixed_now;
	sys.random = fixed_random;
	return sys;
}
