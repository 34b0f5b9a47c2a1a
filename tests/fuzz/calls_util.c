/* SPDX-License-Identifier: MIT
 *
 * calls: the second part of an input, and the calls that every execution makes. See fuzz_util.h.
 */
#include "tests/fuzz/fuzz_util.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

#define INODES   22u            /* those with different contents; all others are empty files */
#define CALLS    24u            /* of an input */
#define ENTRIES  300u           /* listed at once */

static const char *const names[] = {
	"d", "e", "f0", "g0", "f1", "small", "again", "unwritten", "short", "long", "many", "late", "an entry with a name 5",
	"new", "new2", ".", "..", "a/b", "",
};

static const char *const xattrs[] = {
	"user.one", "user.chunks", "user.two", "user.late", ACL_ACCESS_NAME, ACL_DEFAULT_NAME, CAPS_NAME, "user.new", "bad",
};

static const char *in_name(struct input *in)
{
	return names[in_u8(in) % ARRAY_LEN(names)];
}

/* Reading --------------------------------------------------------------------------------------------------------- */

/* Is this a block of the base image, whole, but of another place? (It says whose it is, unless it was written over.) */
static bool is_foreign(const uint8_t *p, uint64_t ino, uint64_t fblock)
{
	uint8_t whole[BLOCK_SIZE];

	if (get_le64(p) != TAG_MAGIC || (get_le64(p + 8) == ino && get_le64(p + 16) == fblock))
		return false;
	tag_block(whole, get_le64(p + 8), get_le64(p + 16));
	return memcmp(p, whole, BLOCK_SIZE) == 0;
}

static void check_owner(uint64_t ino, uint64_t off, const struct iovec *iov, int n)
{
	int i;

	for (i = 0; i < n; off += iov[i].iov_len, i++) {
		const uint8_t *p = iov[i].iov_base;
		uint64_t at = align_up(off, BLOCK_SIZE) - off;

		for (; at + BLOCK_SIZE <= iov[i].iov_len; at += BLOCK_SIZE)
			check(!world_honest() || !is_foreign(p + at, ino, (off + at) >> BLOCK_SHIFT));
	}
}

static uint8_t sink;

static void read_at(struct keys *k, uint64_t ino, uint64_t off, size_t len)
{
	struct iovec iov[64];
	size_t bytes = 0, total = 0;
	int n = 0, i;

	if (keys_read(k, ino, off, len, iov, ARRAY_LEN(iov), &n, &bytes) < 0)
		return;
	check(n <= (int)ARRAY_LEN(iov) && bytes <= len);
	for (i = 0; i < n; i++) {
		const uint8_t *p = iov[i].iov_base;

		/* First and last byte are mapped. */
		sink ^= (uint8_t)(p[0] ^ p[iov[i].iov_len - 1]);
		total += iov[i].iov_len;
	}
	check(total == bytes);
	check_owner(ino, off, iov, n);
}

struct listing {
	struct keys *k;
	uint64_t dir, last;
	unsigned count;
};

static int take_entry(void *ctx, const struct keys_dirent *e)
{
	struct listing *l = ctx;
	struct keys_attr a;

	/* Cookies go up, so that a listing ends. */
	check(l->last == UINT64_MAX || e->cookie > l->last);
	check(e->len > 0 && e->len <= KEYS_NAME_MAX && !memchr(e->name, '/', e->len) && !memchr(e->name, 0, e->len));
	l->last = e->cookie;
	if (l->count % 16 == 0)
		(void)keys_getattr(l->k, e->ino, &a);
	return ++l->count >= ENTRIES;
}

static void read_dir(struct keys *k, uint64_t dir, uint64_t cookie)
{
	struct listing l = { .k = k, .dir = dir, .last = UINT64_MAX };

	(void)keys_readdir(k, dir, cookie, take_entry, &l);
}

static void read_xattrs(struct keys *k, uint64_t ino)
{
	static char list[65536], value[KEYS_XATTR_MAX];
	size_t len = 0, n = 0, at;

	if (keys_listxattr(k, ino, NULL, 0, &len) < 0 || keys_listxattr(k, ino, list, sizeof list, &n) < 0)
		return;
	check(n <= sizeof list && n == len);
	for (at = 0; at < n; at += strlen(list + at) + 1)
		if (keys_getxattr(k, ino, list + at, value, sizeof value, &len) == 0)
			check(len <= sizeof value);
}

static void read_inode(struct keys *k, uint64_t ino)
{
	struct keys_attr a, b;
	char target[KEYS_SYMLINK_MAX + 1];
	uint64_t off;
	size_t len;
	unsigned i;

	if (keys_getattr(k, ino, &a) < 0)
		return;
	check(a.ino == ino);
	read_at(k, ino, 0, 131072);
	read_at(k, ino, 3 * BLOCK_SIZE - 100, 3 * BLOCK_SIZE);
	if (a.size > 4096)
		read_at(k, ino, a.size - 4096, 8192);
	read_at(k, ino, a.size / 2, 1000000);
	(void)keys_seek(k, ino, 0, SEEK_DATA, &off);
	(void)keys_seek(k, ino, a.size / 2, SEEK_HOLE, &off);
	(void)keys_seek(k, ino, 0, SEEK_HOLE, &off);
	if (keys_readlink(k, ino, target, sizeof target, &len) == 0)
		check(len <= KEYS_SYMLINK_MAX);
	read_dir(k, ino, 0);
	read_dir(k, ino, 2);
	for (i = ino % 2; S_ISDIR(a.mode) && i < ARRAY_LEN(names); i += 2)
		(void)keys_lookup(k, ino, names[i], strlen(names[i]), &b);
	read_xattrs(k, ino);
}

void calls_read(struct keys *k)
{
	struct keys_statfs st;
	struct store_status status;
	unsigned i;

	keys_statfs(k, &st);
	store_status(keys_store(k), &status);
	for (i = 0; i < INODES; i++)
		read_inode(k, world_ino(i));
	read_inode(k, 2);
}

/* Changing -------------------------------------------------------------------------------------------------------- */

static void set_attr(struct keys *k, struct input *in, uint64_t ino)
{
	struct keys_setattr set = { .mask = in_u8(in), .mode = in_u16(in), .uid = 7 };
	struct keys_attr a;

	if (set.mask & KEYS_SET_SIZE)
		set.size = in_value(in);
	set.mask |= (in_u8(in) & 3u) << 8;
	(void)keys_setattr(k, ino, &set, &a);
}

static void write_to(struct keys *k, struct input *in, uint64_t ino)
{
	static uint8_t data[64 * BLOCK_SIZE];
	uint64_t off = in_value(in), len = in_value(in);
	size_t n;

	if (in_u8(in) & 1)
		off <<= BLOCK_SHIFT;
	memset(data, 'w', sizeof data);
	(void)keys_write(k, ino, off, data, len % (sizeof data + 1), in_u8(in) & 1, &n);
}

/* More than a segment of the journal holds. */
static void write_often(struct keys *k, uint64_t ino)
{
	static uint8_t data[BLOCK_SIZE];
	unsigned i;
	size_t n;

	for (i = 0; i < 70; i++)
		if (keys_write(k, ino, (i % 7) * 1000, data, sizeof data, false, &n) < 0)
			return;
}

/* Mostly one that there is. */
static uint64_t in_ino(struct input *in)
{
	uint8_t how = in_u8(in);

	return how < 220 ? world_ino(how) : in_value(in);
}

static void one_call(struct keys *k, struct input *in)
{
	static const int fallocates[] = { 0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE };
	const struct keys_cred cred = { 5, 5, 077 };
	uint64_t ino = in_ino(in), other = in_ino(in), off, to, len, out;
	const char *name = in_name(in), *name2 = in_name(in);
	static char value[20000];
	unsigned what = in_u8(in) % 21;
	struct keys_attr a;
	const char *attr;
	uint32_t nlink;
	size_t n;

	switch (what) {
	case 0: case 1: write_to(k, in, ino); break;
	case 2: case 3: set_attr(k, in, ino); break;
	case 4:  (void)keys_make(k, ino, name, strlen(name), (uint32_t)(in_u8(in) & 15) << 12 | 0644, 3, &cred, &a); break;
	case 5:  (void)keys_symlink(k, ino, name, strlen(name), value, in_u16(in) % 4200, &cred, &a); break;
	case 6:  (void)keys_link(k, ino, other, name, strlen(name), &a); break;
	case 7:  (void)keys_unlink(k, ino, name, strlen(name), &out, &nlink); break;
	case 8:  (void)keys_rmdir(k, ino, name, strlen(name), &out); break;
	case 9: case 10:
		(void)keys_rename(k, ino, name, strlen(name), other, name2, strlen(name2), in_u8(in) % 8, &cred, &out);
		break;
	case 11: case 12: case 13:
		off = in_value(in);
		len = in_value(in);
		(void)keys_fallocate(k, ino, fallocates[what - 11], off, len, 0);
		break;
	case 14:
		world_dishonest();     /* a copy is the same bytes under another number */
		off = in_value(in);
		to = in_value(in);
		len = in_value(in) % (1u << 20);
		(void)keys_copy_range(k, ino, off, other, to, len, 0, &n);
		break;
	case 15:
		attr = xattrs[in_u8(in) % ARRAY_LEN(xattrs)];
		len = in_u16(in) % sizeof value;
		(void)keys_setxattr(k, ino, attr, value, len, in_u8(in) % 3, false);
		break;
	case 16: (void)keys_removexattr(k, ino, xattrs[in_u8(in) % ARRAY_LEN(xattrs)]); break;
	case 17: (void)keys_reap(k, ino); break;
	case 19: write_often(k, ino); break;
	case 18: (void)store_checkpoint(keys_store(k)); break;
	default: (void)keys_touch_atime(k, ino, KEYS_STRICTATIME); break;
	}
}

void calls_run(struct keys *k, struct input *in)
{
	unsigned calls = 0;

	while (in->p < in->end && calls++ < CALLS)
		one_call(k, in);
}

void calls_settle(struct keys *k)
{
	uint64_t ino = 0;
	unsigned i;

	(void)store_sync(keys_store(k));
	for (i = 0; i < 20 && keys_next_orphan(k, ino, &ino) == 0; i++) {
		int r = keys_reap(k, ino);

		if (r == -EAGAIN)
			(void)store_checkpoint(keys_store(k));
		else if (r <= 0)
			ino++;
	}
	(void)store_poll(keys_store(k));
	/* Each may find an end to give back, or something to be moved first. */
	for (i = 0; i < 8 && store_checkpoint(keys_store(k)) == 0 && store_poll(keys_store(k)) == 0; i++) {
		unsigned steps = 0;

		while (keys_compact_due(k) && steps++ < 30 && keys_compact(k) >= 0)
			;
	}
}
