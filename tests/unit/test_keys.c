/* SPDX-License-Identifier: MIT
 *
 * test_keys: each operation's result, errors, link counts and times; the sizes at which contents change their form;
 * what a directory shows while it changes; a store opened read-only, and one that shrinks.
 */
#include "tests/unit/ok_util.h"
#include "tests/unit/scratch_util.h"

#include "core/base.h"
#include "core/check/check.h"
#include "core/keys/keys.h"
#include "core/store/store.h"
#include "core/store/sys.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const struct keys_cred cred = { 1000, 100, 022 };
static char path[SCRATCH_PATH];
static struct sys_ops sys;
static uint64_t clock_ns = 1700000000ull * 1000000000u;

/* Each look at the clock is a second later. */
static uint64_t tick(void *ctx)
{
	(void)ctx;
	return clock_ns += 1000000000u;
}

/* The other clock, as far as a test puts it. */
static uint64_t mono_ahead;
static uint64_t tick_mono(void *ctx)
{
	return sys_linux.now_mono_ns(ctx) + mono_ahead;
}

#define N(s)  (s), strlen(s)

static struct keys *open_at(const char *where, uint64_t max_bytes, bool read_only)
{
	const struct store_options o = { .path = where, .create = !read_only, .read_only = read_only,
					 .max_bytes = max_bytes, .sys = &sys };
	struct keys *k;

	sys = sys_linux;
	sys.now_real_ns = tick;
	sys.now_mono_ns = tick_mono;
	ok(keys_open(&o, &k));
	return k;
}

static struct keys *open_memory(void)
{
	return open_at(":memory:", 64u << 20, false);
}

/* Close a store that must be whole. */
static void close_checked(struct keys *k)
{
	const struct check_options o = { .problem = NULL };
	struct check_report rep;

	ok(check_run(k, &o, &rep));
	assert_int_equal(rep.problems, 0);
	ok(keys_close(k));
}

static struct keys_attr attr(struct keys *k, uint64_t ino)
{
	struct keys_attr a;

	ok(keys_getattr(k, ino, &a));
	return a;
}

static uint64_t make(struct keys *k, uint64_t where, const char *name, uint32_t mode)
{
	struct keys_attr a;

	ok(keys_make(k, where, N(name), mode, 0x105, &cred, &a));
	assert_int_equal(a.ino, attr(k, a.ino).ino);
	return a.ino;
}

static uint64_t file(struct keys *k, const char *name)
{
	return make(k, KEYS_ROOT_INO, name, S_IFREG | 0666);
}

static void write_all(struct keys *k, uint64_t ino, uint64_t off, const void *data, size_t len)
{
	size_t at, n;

	for (at = 0; at < len; at += n) {
		int r = keys_write(k, ino, off + at, (const char *)data + at, len - at, false, &n);

		if (r == -EAGAIN) {
			ok(store_checkpoint(keys_store(k)));
			n = 0;
			continue;
		}
		ok(r);
	}
}

static size_t read_some(struct keys *k, uint64_t ino, uint64_t off, void *buf, size_t len)
{
	struct iovec iov[600];
	size_t bytes, at = 0;
	int n, i;

	ok(keys_read(k, ino, off, len, iov, ARRAY_LEN(iov), &n, &bytes));
	for (i = 0; i < n; i++) {
		memcpy((char *)buf + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	assert_int_equal(at, bytes);
	return at;
}

static void truncate_to(struct keys *k, uint64_t ino, uint64_t size)
{
	const struct keys_setattr set = { .mask = KEYS_SET_SIZE, .size = size };
	struct keys_attr a;

	ok(keys_setattr(k, ino, &set, &a));
	assert_int_equal(a.size, size);
}

static void reap(struct keys *k, uint64_t ino)
{
	int r;

	while ((r = keys_reap(k, ino)) == 1)
		;
	ok(r);
}

static void remove_file(struct keys *k, const char *name)
{
	uint64_t ino;
	uint32_t nlink;

	ok(keys_unlink(k, KEYS_ROOT_INO, N(name), &ino, &nlink));
	if (nlink == 0)
		reap(k, ino);
}

static bool same_time(struct keys_time a, struct keys_time b)
{
	return a.sec == b.sec && a.nsec == b.nsec;
}

/* Names ------------------------------------------------------------------------------------------------------------- */

static void test_keys__errors_of_names(void **state)
{
	static char longest[256];
	struct keys *k = open_memory();
	uint64_t d, f, full, ino;
	struct keys_attr a;
	uint32_t nlink;
	size_t len;
	char buf[8];

	(void)state;
	memset(longest, 'n', sizeof longest);
	d = make(k, KEYS_ROOT_INO, "d", S_IFDIR | 0755);
	full = make(k, KEYS_ROOT_INO, "full", S_IFDIR | 0755);
	(void)make(k, full, "x", S_IFREG | 0644);
	f = file(k, "f");

	assert_int_equal(keys_lookup(k, KEYS_ROOT_INO, N("none"), &a), -ENOENT);
	assert_int_equal(keys_lookup(k, f, N("x"), &a), -ENOTDIR);
	assert_int_equal(keys_lookup(k, KEYS_ROOT_INO, longest, 256, &a), -ENAMETOOLONG);
	assert_int_equal(keys_lookup(k, 999, N("x"), &a), -ENOENT);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, N("f"), S_IFREG, 0, &cred, &a), -EEXIST);
	assert_int_equal(keys_make(k, f, N("x"), S_IFREG, 0, &cred, &a), -ENOTDIR);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, longest, 256, S_IFREG, 0, &cred, &a), -ENAMETOOLONG);
	ok(keys_make(k, KEYS_ROOT_INO, longest, 255, S_IFREG, 0, &cred, &a));
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, N("l"), S_IFLNK, 0, &cred, &a), -EINVAL);
	assert_int_equal(keys_link(k, d, KEYS_ROOT_INO, N("d2"), &a), -EPERM);
	assert_int_equal(keys_link(k, f, KEYS_ROOT_INO, N("d"), &a), -EEXIST);
	assert_int_equal(keys_link(k, 999, KEYS_ROOT_INO, N("y"), &a), -ENOENT);
	assert_int_equal(keys_unlink(k, KEYS_ROOT_INO, N("d"), &ino, &nlink), -EISDIR);
	assert_int_equal(keys_unlink(k, KEYS_ROOT_INO, N("none"), &ino, &nlink), -ENOENT);
	assert_int_equal(keys_rmdir(k, KEYS_ROOT_INO, N("f"), &ino), -ENOTDIR);
	assert_int_equal(keys_rmdir(k, KEYS_ROOT_INO, N("full"), &ino), -ENOTEMPTY);
	assert_int_equal(keys_rmdir(k, KEYS_ROOT_INO, N("."), &ino), -EINVAL);
	assert_int_equal(keys_rmdir(k, KEYS_ROOT_INO, N(".."), &ino), -ENOTEMPTY);
	assert_int_equal(keys_readlink(k, f, buf, sizeof buf, &len), -EINVAL);
	assert_int_equal(keys_symlink(k, KEYS_ROOT_INO, N("s"), "", 0, &cred, &a), -ENOENT);
	assert_int_equal(keys_getattr(k, 12345, &a), -ENOENT);

	/* A directory that was removed while somebody stands in it. */
	ok(keys_rmdir(k, KEYS_ROOT_INO, N("d"), &ino));
	assert_int_equal(ino, d);
	assert_int_equal(keys_make(k, d, N("x"), S_IFREG, 0, &cred, &a), -ENOENT);
	assert_int_equal(keys_link(k, f, d, N("x"), &a), -ENOENT);
	assert_int_equal(keys_rename(k, KEYS_ROOT_INO, N("f"), d, N("x"), 0, &cred, &ino), -ENOENT);
	reap(k, d);
	assert_int_equal(keys_getattr(k, d, &a), -ENOENT);
	close_checked(k);
}

static void test_keys__errors_of_contents(void **state)
{
	struct keys *k = open_memory();
	struct keys_setattr set = { .mask = KEYS_SET_SIZE, .size = 5 };
	uint64_t d, f, fifo, off;
	struct keys_attr a;
	struct iovec iov[4];
	size_t n;
	int count;

	(void)state;
	d = make(k, KEYS_ROOT_INO, "d", S_IFDIR | 0755);
	fifo = make(k, KEYS_ROOT_INO, "fifo", S_IFIFO | 0644);
	f = file(k, "f");
	write_all(k, f, 0, "12345", 5);
	assert_int_equal(keys_read(k, d, 0, 1, iov, 4, &count, &n), -EISDIR);
	assert_int_equal(keys_write(k, d, 0, "x", 1, false, &n), -EISDIR);
	assert_int_equal(keys_write(k, 999, 0, "x", 1, false, &n), -ENOENT);
	assert_int_equal(keys_write(k, f, KEYS_SIZE_MAX, "x", 1, false, &n), -EFBIG);
	assert_int_equal(keys_setattr(k, d, &set, &a), -EISDIR);
	assert_int_equal(keys_setattr(k, fifo, &set, &a), -EINVAL);
	set.size = KEYS_SIZE_MAX + 1;
	assert_int_equal(keys_setattr(k, f, &set, &a), -EFBIG);
	assert_int_equal(keys_fallocate(k, f, 0, 0, 0, 0), -EINVAL);
	assert_int_equal(keys_fallocate(k, d, 0, 0, 1, 0), -EISDIR);
	assert_int_equal(keys_fallocate(k, fifo, 0, 0, 1, 0), -ENODEV);
	assert_int_equal(keys_fallocate(k, f, 0, KEYS_SIZE_MAX, 1, 0), -EFBIG);
	assert_int_equal(keys_fallocate(k, f, FALLOC_FL_COLLAPSE_RANGE, 0, 4096, 0), -EOPNOTSUPP);
	assert_int_equal(keys_fallocate(k, f, FALLOC_FL_PUNCH_HOLE, 0, 4096, 0), -EOPNOTSUPP);
	assert_int_equal(keys_seek(k, f, 5, SEEK_DATA, &off), -ENXIO);
	assert_int_equal(keys_seek(k, f, 6, SEEK_HOLE, &off), -ENXIO);
	assert_int_equal(keys_seek(k, f, 0, SEEK_SET, &off), -EINVAL);
	assert_int_equal(attr(k, f).size, 5);
	close_checked(k);
}

static void test_keys__link_counts_and_times(void **state)
{
	struct keys *k = open_memory();
	struct keys_attr before, now, root;
	uint64_t d, e, f, ino;
	struct keys_attr a;
	uint32_t nlink;

	(void)state;
	root = attr(k, KEYS_ROOT_INO);
	assert_int_equal(root.nlink, 2);
	d = make(k, KEYS_ROOT_INO, "d", S_IFDIR | 0777);
	assert_int_equal(attr(k, KEYS_ROOT_INO).nlink, 3);
	assert_int_equal(attr(k, d).nlink, 2);
	assert_int_equal(attr(k, d).mode, S_IFDIR | 0755);
	assert_int_equal(attr(k, d).aux, KEYS_ROOT_INO);
	e = make(k, d, "e", S_IFDIR | 0777);
	assert_int_equal(attr(k, d).nlink, 3);
	assert_int_equal(attr(k, d).size, 1);
	f = file(k, "f");
	before = attr(k, f);
	assert_true(same_time(before.atime, before.btime) && same_time(before.mtime, before.ctime));
	assert_int_equal(before.uid, cred.uid);
	assert_int_equal(before.gid, cred.gid);
	assert_int_equal(before.mode, S_IFREG | 0644);

	/* link: ctime of the file, mtime and ctime of the directory. */
	root = attr(k, d);
	ok(keys_link(k, f, d, N("g"), &a));
	now = attr(k, f);
	assert_int_equal(now.nlink, 2);
	assert_true(same_time(now.mtime, before.mtime) && !same_time(now.ctime, before.ctime));
	assert_false(same_time(attr(k, d).mtime, root.mtime));
	assert_true(same_time(attr(k, d).atime, root.atime));
	before = now;
	ok(keys_unlink(k, d, N("g"), &ino, &nlink));
	assert_int_equal(nlink, 1);
	assert_false(same_time(attr(k, f).ctime, before.ctime));

	/* write: mtime and ctime; chmod: ctime. */
	before = attr(k, f);
	write_all(k, f, 0, "x", 1);
	now = attr(k, f);
	assert_true(same_time(now.mtime, now.ctime) && !same_time(now.mtime, before.mtime));
	ok(keys_setattr(k, f, &(struct keys_setattr){ .mask = KEYS_SET_MODE, .mode = 07777 }, &a));
	assert_true(same_time(a.mtime, now.mtime) && !same_time(a.ctime, now.ctime));
	assert_int_equal(a.mode, S_IFREG | 07777);
	/* A write by somebody else clears setuid and setgid. */
	{
		size_t n;

		ok(keys_write(k, f, 0, "y", 1, true, &n));
		assert_int_equal(attr(k, f).mode, S_IFREG | 01777);
		/* Setgid without group-execute goes only where the caller is not in the group. */
		ok(keys_setattr(k, f, &(struct keys_setattr){ .mask = KEYS_SET_MODE, .mode = 06767 }, &a));
		ok(keys_write(k, f, 0, "y", 1, KEYS_KILL_PRIV, &n));
		assert_int_equal(attr(k, f).mode, S_IFREG | 02767);
		ok(keys_write(k, f, 0, "y", 1, KEYS_KILL_PRIV | KEYS_KILL_SGID, &n));
		assert_int_equal(attr(k, f).mode, S_IFREG | 0767);
		ok(keys_setattr(k, f, &(struct keys_setattr){ .mask = KEYS_SET_MODE, .mode = 06767 }, &a));
		ok(keys_setattr(k, f, &(struct keys_setattr){ .mask = KEYS_KILL_PRIV | KEYS_KILL_SGID }, &a));
		assert_int_equal(a.mode, S_IFREG | 0767);
	}

	/* A directory that moves takes a link from one parent to the other. */
	ok(keys_rename(k, d, N("e"), KEYS_ROOT_INO, N("e"), 0, &cred, &ino));
	assert_int_equal(attr(k, d).nlink, 2);
	assert_int_equal(attr(k, KEYS_ROOT_INO).nlink, 4);
	assert_int_equal(attr(k, e).aux, KEYS_ROOT_INO);
	ok(keys_lookup(k, e, N(".."), &a));
	assert_int_equal(a.ino, KEYS_ROOT_INO);

	/* relatime: once after a change. */
	before = attr(k, f);
	ok(keys_touch_atime(k, f, KEYS_NOATIME));
	assert_true(same_time(attr(k, f).atime, before.atime));
	ok(keys_touch_atime(k, f, KEYS_RELATIME));
	now = attr(k, f);
	assert_false(same_time(now.atime, before.atime));
	assert_true(same_time(now.ctime, before.ctime));
	ok(keys_touch_atime(k, f, KEYS_RELATIME));
	assert_true(same_time(attr(k, f).atime, now.atime));
	ok(keys_touch_atime(k, f, KEYS_STRICTATIME));
	assert_false(same_time(attr(k, f).atime, now.atime));
	/* Times as they are given. */
	ok(keys_setattr(k, f, &(struct keys_setattr){ .mask = KEYS_SET_ATIME | KEYS_SET_MTIME, .atime = { -5, 7 },
						      .mtime = { 1ll << 40, 999999999 } }, &a));
	assert_true(same_time(a.atime, (struct keys_time){ -5, 7 }));
	assert_true(same_time(a.mtime, (struct keys_time){ 1ll << 40, 999999999 }));
	close_checked(k);
}

static void test_keys__setgid_directory_passes_its_group_on(void **state)
{
	struct keys *k = open_memory();
	struct keys_attr a;
	uint64_t d, e;

	(void)state;
	d = make(k, KEYS_ROOT_INO, "d", S_IFDIR | 0755);
	ok(keys_setattr(k, d, &(struct keys_setattr){ .mask = KEYS_SET_GID | KEYS_SET_MODE, .gid = 77, .mode = 02775 }, &a));
	e = make(k, d, "e", S_IFDIR | 0755);
	assert_int_equal(attr(k, e).gid, 77);
	assert_int_equal(attr(k, e).mode, S_IFDIR | 02755);
	a = attr(k, make(k, e, "f", S_IFREG | 0644));
	assert_int_equal(a.gid, 77);
	assert_int_equal(a.mode, S_IFREG | 0644);
	assert_int_equal(a.uid, cred.uid);
	close_checked(k);
}

static void test_keys__rename_flags(void **state)
{
	struct keys *k = open_memory();
	uint64_t a, b, d, sub, orphan;
	struct keys_attr at;

	(void)state;
	a = file(k, "a");
	b = file(k, "b");
	d = make(k, KEYS_ROOT_INO, "d", S_IFDIR | 0755);
	sub = make(k, d, "sub", S_IFDIR | 0755);
#define RENAME(od, on, nd, nn, flags) keys_rename(k, od, N(on), nd, N(nn), flags, &cred, &orphan)
	assert_int_equal(RENAME(1, "a", 1, "b", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(RENAME(1, "a", 1, "none", RENAME_EXCHANGE), -ENOENT);
	assert_int_equal(RENAME(1, "none", 1, "b", 0), -ENOENT);
	assert_int_equal(RENAME(1, "a", 1, "b", RENAME_EXCHANGE | RENAME_NOREPLACE), -EINVAL);
	assert_int_equal(RENAME(1, "a", 1, "b", 64), -EINVAL);
	assert_int_equal(RENAME(1, "d", sub, "x", 0), -EINVAL);
	assert_int_equal(RENAME(1, "d", d, "x", 0), -EINVAL);
	assert_int_equal(RENAME(1, "a", 1, "d", 0), -EISDIR);
	assert_int_equal(RENAME(1, "d", 1, "a", 0), -ENOTDIR);
	(void)make(k, KEYS_ROOT_INO, "e", S_IFDIR | 0755);
	assert_int_equal(RENAME(1, "e", 1, "d", 0), -ENOTEMPTY);
	ok(RENAME(1, "d", 1, "e", 0));          /* over an empty directory */
	assert_int_not_equal(orphan, 0);
	reap(k, orphan);
	assert_int_equal(attr(k, KEYS_ROOT_INO).nlink, 3);
	ok(RENAME(1, "e", 1, "d", 0));

	ok(RENAME(1, "a", 1, "b", RENAME_EXCHANGE));
	ok(keys_lookup(k, 1, N("a"), &at));
	assert_int_equal(at.ino, b);
	/* A file and a directory change places. */
	ok(RENAME(1, "a", d, "sub", RENAME_EXCHANGE));
	assert_int_equal(attr(k, sub).aux, KEYS_ROOT_INO);
	assert_int_equal(attr(k, d).nlink, 2);
	assert_int_equal(attr(k, KEYS_ROOT_INO).nlink, 4);
	ok(RENAME(d, "sub", 1, "a", RENAME_EXCHANGE));
	assert_int_equal(attr(k, sub).aux, d);

	ok(RENAME(1, "b", 1, "c", RENAME_WHITEOUT));
	ok(keys_lookup(k, 1, N("b"), &at));
	assert_int_equal(at.mode & S_IFMT, S_IFCHR);
	assert_int_equal(at.aux, 0);
	ok(keys_lookup(k, 1, N("c"), &at));
	assert_int_equal(at.ino, a);
	/* Over the last name of another file, which somebody may have open. */
	ok(RENAME(1, "a", 1, "c", 0));
	assert_int_equal(orphan, a);
	assert_int_equal(attr(k, a).nlink, 0);
	reap(k, a);
	/* Two names of one file stay both. */
	ok(keys_link(k, b, 1, N("c2"), &at));
	ok(RENAME(1, "c", 1, "c2", 0));
	assert_int_equal(orphan, 0);
	assert_int_equal(attr(k, b).nlink, 2);
	ok(keys_lookup(k, 1, N("c"), &at));
	close_checked(k);
}

struct listing {
	uint64_t cookie;
	unsigned char seen[2000];
	unsigned others, room;
};

static int list(void *ctx, const struct keys_dirent *e)
{
	struct listing *l = ctx;

	if (l->room-- == 0)
		return 1;
	assert_true(e->cookie > l->cookie && e->cookie <= INT64_MAX);
	l->cookie = e->cookie;
	if (e->len == 5 && e->name[0] == 'k') {
		char number[5] = "";

		memcpy(number, e->name + 1, 4);
		l->seen[atoi(number) % 2000]++;
	} else {
		l->others++;
	}
	return 0;
}

static void test_keys__cookies_are_stable_under_change(void **state)
{
	static struct listing l;
	struct keys *k = open_memory();
	uint64_t d = make(k, KEYS_ROOT_INO, "d", S_IFDIR | 0755), last;
	char name[16];
	unsigned i, step = 0;

	(void)state;
	for (i = 0; i < 700; i++) {
		(void)snprintf(name, sizeof name, "k%04u", i);
		(void)make(k, d, name, S_IFREG | 0644);
	}
	do {
		last = l.cookie;
		l.room = 1 + step % 7;
		ok(keys_readdir(k, d, last, list, &l));
		/* Names come and go beside those that stay. */
		for (i = 0; i < 3; i++, step++) {
			uint64_t ino;
			uint32_t nlink;

			(void)snprintf(name, sizeof name, "other%u", step);
			(void)make(k, d, name, S_IFREG | 0644);
			(void)snprintf(name, sizeof name, "other%u", step / 2);
			if (step % 2 && keys_unlink(k, d, N(name), &ino, &nlink) == 0)
				reap(k, ino);
		}
	} while (l.cookie != last);
	for (i = 0; i < 700; i++)
		assert_int_equal(l.seen[i], 1);
	assert_true(l.others >= 2);             /* . and .. */
	close_checked(k);
}

static void test_keys__orphans_live_until_reaped(void **state)
{
	static uint8_t data[1 << 20], back[1 << 20];
	struct keys *k = open_at(path, 64u << 20, false);
	struct keys_statfs before, after;
	uint64_t f, ino, found;
	struct keys_attr a;
	uint32_t nlink;
	int i;

	(void)state;
	memset(data, 'o', sizeof data);
	ok(store_checkpoint(keys_store(k)));
	keys_statfs(k, &before);
	f = file(k, "f");
	for (i = 0; i < 8; i++)
		write_all(k, f, (uint64_t)i << 21, data, sizeof data);
	ok(keys_setxattr(k, f, "user.x", data, 60000, 0, false));
	assert_int_equal(keys_reap(k, f), 0);                   /* no orphan: nothing happens */
	assert_int_equal(keys_next_orphan(k, 0, &found), -ENOENT);
	ok(keys_unlink(k, KEYS_ROOT_INO, N("f"), &ino, &nlink));
	assert_int_equal(nlink, 0);
	/* Still there for who has it open, also after opening anew. */
	assert_int_equal(keys_link(k, f, KEYS_ROOT_INO, N("again"), &a), -ENOENT);
	write_all(k, f, 0, "open", 4);
	close_checked(k);
	k = open_at(path, 0, false);
	ok(keys_next_orphan(k, 0, &found));
	assert_int_equal(found, f);
	assert_int_equal(keys_next_orphan(k, f + 1, &found), -ENOENT);
	assert_int_equal(read_some(k, f, 0, back, sizeof back), sizeof back);
	assert_memory_equal(back, "openoooo", 8);
	reap(k, f);
	assert_int_equal(keys_getattr(k, f, &a), -ENOENT);
	assert_int_equal(keys_next_orphan(k, 0, &found), -ENOENT);
	ok(store_checkpoint(keys_store(k)));
	ok(store_checkpoint(keys_store(k)));
	keys_statfs(k, &after);
	assert_int_equal(before.files - before.ffree, after.files - after.ffree);
	assert_true(after.blocks - after.bfree <= before.blocks - before.bfree + 2048);
	close_checked(k);
	(void)unlink(path);
}

/* Contents ---------------------------------------------------------------------------------------------------------- */

static const uint64_t sizes[] = { 0, 1, 1023, 1024, 1025, 4095, 4096, 4097, 8192, 12289 };

static void same_contents(struct keys *k, uint64_t f, const uint8_t *want, size_t len)
{
	static uint8_t back[40000];

	assert_int_equal(attr(k, f).size, len);
	assert_int_equal(read_some(k, f, 0, back, sizeof back), len);
	assert_memory_equal(back, want, len);
}

/* A file of size a, written at b with c bytes, cut to d. */
static void test_keys__sizes_where_contents_change_form(void **state)
{
	static uint8_t want[40000], data[40000];
	struct keys *k = open_memory();
	unsigned a, b, c, d, i;

	(void)state;
	for (i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 31 + i / 251 + 1);
	for (a = 0; a < ARRAY_LEN(sizes); a++) {
		for (b = 0; b < ARRAY_LEN(sizes); b++) {
			for (c = 1; c < ARRAY_LEN(sizes); c++) {
				uint64_t f = file(k, "f"), end = max_u64(sizes[a], sizes[b] + sizes[c]);

				memset(want, 0, sizeof want);
				write_all(k, f, 0, data, sizes[a]);
				memcpy(want, data, sizes[a]);
				write_all(k, f, sizes[b], data + 7, sizes[c]);
				memcpy(want + sizes[b], data + 7, sizes[c]);
				same_contents(k, f, want, end);
				d = (a + 3 * b + 7 * c) % ARRAY_LEN(sizes);
				truncate_to(k, f, sizes[d]);
				same_contents(k, f, want, sizes[d]);
				memset(want + sizes[d], 0, sizeof want - sizes[d]);
				truncate_to(k, f, 13000);
				same_contents(k, f, want, 13000);
				remove_file(k, "f");
			}
		}
		ok(store_checkpoint(keys_store(k)));
	}
	close_checked(k);
}

static void test_keys__holes_and_allocation(void **state)
{
	static uint8_t buf[20000], zeros[20000];
	struct keys *k = open_memory();
	uint64_t f = file(k, "f"), off;

	(void)state;
	write_all(k, f, 1u << 20, "data", 4);
	assert_int_equal(attr(k, f).size, (1u << 20) + 4);
	assert_int_equal(attr(k, f).blocks, 1);
	ok(keys_seek(k, f, 0, SEEK_DATA, &off));
	assert_int_equal(off, 1u << 20);
	ok(keys_seek(k, f, 0, SEEK_HOLE, &off));
	assert_int_equal(off, 0);
	ok(keys_seek(k, f, 1u << 20, SEEK_HOLE, &off));
	assert_int_equal(off, (1u << 20) + 4);
	assert_int_equal(read_some(k, f, 5, buf, sizeof buf), sizeof buf);
	assert_memory_equal(buf, zeros, sizeof buf);

	/* fallocate: blocks that read as zeros and are holes; the size only without KEEP_SIZE. */
	ok(keys_fallocate(k, f, FALLOC_FL_KEEP_SIZE, 4u << 20, 1u << 20, 0));
	assert_int_equal(attr(k, f).size, (1u << 20) + 4);
	assert_int_equal(attr(k, f).blocks, 257);
	ok(keys_fallocate(k, f, 0, 4u << 20, 1u << 20, 0));
	assert_int_equal(attr(k, f).size, 5u << 20);
	assert_int_equal(attr(k, f).blocks, 257);
	assert_int_equal(keys_seek(k, f, 2u << 20, SEEK_DATA, &off), -ENXIO);
	write_all(k, f, (4u << 20) + 5000, "in it", 5);
	assert_int_equal(attr(k, f).blocks, 257);
	ok(keys_seek(k, f, 2u << 20, SEEK_DATA, &off));
	assert_int_equal(off, (4u << 20) + 4096);
	assert_int_equal(read_some(k, f, (4u << 20) + 4096, buf, 4096), 4096);
	assert_memory_equal(buf + 904, "in it", 5);
	assert_memory_equal(buf, zeros, 904);
	assert_memory_equal(buf + 909, zeros, 4096 - 909);

	/* Punch: the parts of blocks are zeroed, whole ones given back. */
	ok(keys_fallocate(k, f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4u << 20, 1u << 20, 0));
	assert_int_equal(attr(k, f).blocks, 1);
	assert_int_equal(attr(k, f).size, 5u << 20);
	ok(keys_fallocate(k, f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (1u << 20) + 1, 2, 0));
	assert_int_equal(read_some(k, f, 1u << 20, buf, 4), 4);
	assert_memory_equal(buf, "d\0\0a", 4);
	ok(keys_fallocate(k, f, FALLOC_FL_ZERO_RANGE, 1u << 20, 4096, 0));
	assert_int_equal(read_some(k, f, 1u << 20, buf, 4), 4);
	assert_memory_equal(buf, zeros, 4);
	/* Cut to what it is: what was allocated behind the end goes. */
	ok(keys_fallocate(k, f, FALLOC_FL_KEEP_SIZE, 8u << 20, 1u << 20, 0));
	truncate_to(k, f, 0);
	assert_int_equal(attr(k, f).blocks, 0);
	close_checked(k);
}

static void test_keys__the_largest_size(void **state)
{
	struct keys *k = open_memory();
	uint64_t f = file(k, "f"), off;
	char buf[20];
	size_t n;

	(void)state;
	truncate_to(k, f, KEYS_SIZE_MAX);
	assert_int_equal(attr(k, f).blocks, 0);
	write_all(k, f, KEYS_SIZE_MAX - 10, "0123456789", 10);
	assert_int_equal(attr(k, f).size, KEYS_SIZE_MAX);
	assert_int_equal(read_some(k, f, KEYS_SIZE_MAX - 10, buf, 20), 10);
	assert_memory_equal(buf, "0123456789", 10);
	assert_int_equal(read_some(k, f, KEYS_SIZE_MAX, buf, 20), 0);
	ok(keys_write(k, f, KEYS_SIZE_MAX - 4, "abcdefgh", 8, false, &n));
	assert_int_equal(n, 4);
	ok(keys_seek(k, f, 0, SEEK_DATA, &off));
	assert_int_equal(off, KEYS_SIZE_MAX & ~4095ull);
	ok(keys_fallocate(k, f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, KEYS_SIZE_MAX, 0));
	assert_int_equal(attr(k, f).blocks, 0);
	assert_int_equal(keys_seek(k, f, 0, SEEK_DATA, &off), -ENXIO);
	truncate_to(k, f, 3);
	remove_file(k, "f");
	close_checked(k);
}

static void test_keys__symlinks_up_to_4095(void **state)
{
	static const size_t lens[] = { 1, 1023, 1024, 1025, 4094, 4095 };
	static char target[4096], back[4096];
	struct keys *k = open_memory();
	struct keys_attr a;
	unsigned i;
	size_t len;

	(void)state;
	memset(target, 't', sizeof target);
	for (i = 0; i < ARRAY_LEN(lens); i++) {
		char name[4] = { 's', (char)('0' + i), '\0' };

		ok(keys_symlink(k, KEYS_ROOT_INO, N(name), target, lens[i], &cred, &a));
		assert_int_equal(a.mode, S_IFLNK | 0777);
		assert_int_equal(a.size, lens[i]);
		ok(keys_readlink(k, a.ino, back, sizeof back, &len));
		assert_int_equal(len, lens[i]);
		assert_memory_equal(back, target, len);
		assert_int_equal(keys_readlink(k, a.ino, back, lens[i] - 1, &len), -ERANGE);
	}
	assert_int_equal(keys_symlink(k, KEYS_ROOT_INO, N("s"), target, 4096, &cred, &a), -ENAMETOOLONG);
	close_checked(k);
}

/* Extended attributes ------------------------------------------------------------------------------------------------ */

static void test_keys__xattrs(void **state)
{
	static const uint32_t lens[] = { 0, 1, 1017, 1018, 1019, 2041, 2042, 4096, 65535, 65536 };
	static char value[65537], back[65537], names[65536], name[300];
	struct keys *k = open_memory();
	uint64_t f = file(k, "f");
	size_t len;
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof value; i++)
		value[i] = (char)(i * 7 + i / 1000);
	assert_int_equal(keys_getxattr(k, f, "user.none", back, 10, &len), -ENODATA);
	assert_int_equal(keys_removexattr(k, f, "user.none"), -ENODATA);
	assert_int_equal(keys_setxattr(k, f, "user.", "v", 1, 0, false), -EINVAL);
	assert_int_equal(keys_setxattr(k, f, "foo.x", "v", 1, 0, false), -EOPNOTSUPP);
	assert_int_equal(keys_setxattr(k, f, "user.x", value, 65537, 0, false), -E2BIG);
	assert_int_equal(keys_setxattr(k, f, "user.x", "v", 1, XATTR_REPLACE, false), -ENODATA);
	memcpy(name, "user.", 5);
	memset(name + 5, 'n', 251);
	assert_int_equal(keys_setxattr(k, f, name, "v", 1, 0, false), -ERANGE);
	name[255] = '\0';
	ok(keys_setxattr(k, f, name, "v", 1, XATTR_CREATE, false));
	assert_int_equal(keys_setxattr(k, f, name, "v", 1, XATTR_CREATE, false), -EEXIST);
	ok(keys_removexattr(k, f, name));
	for (i = 0; i < 2 * ARRAY_LEN(lens); i++) {
		uint32_t n = lens[i * 7 % ARRAY_LEN(lens)];

		ok(keys_setxattr(k, f, "user.x", value + i, min_u64(n, sizeof value - i), 0, false));
		ok(keys_getxattr(k, f, "user.x", back, sizeof back, &len));
		assert_int_equal(len, min_u64(n, sizeof value - i));
		assert_memory_equal(back, value + i, len);
		assert_int_equal(keys_getxattr(k, f, "user.x", NULL, 0, &len), 0);
		if (n > 1)
			assert_int_equal(keys_getxattr(k, f, "user.x", back, 1, &len), -ERANGE);
	}
	ok(keys_removexattr(k, f, "user.x"));
	ok(keys_listxattr(k, f, NULL, 0, &len));
	assert_int_equal(len, 0);
	for (i = 0; i < 1000; i++) {
		(void)snprintf(name, sizeof name, "user.name%03u", i);
		ok(keys_setxattr(k, f, name, name, i % 13, XATTR_CREATE, false));
	}
	assert_int_equal(keys_listxattr(k, f, names, 100, &len), -ERANGE);
	ok(keys_listxattr(k, f, names, sizeof names, &len));
	assert_int_equal(len, 1000 * (strlen("user.name000") + 1));
	for (i = 0; i < 1000; i++) {
		(void)snprintf(name, sizeof name, "user.name%03u", i);
		ok(keys_getxattr(k, f, name, back, sizeof back, &len));
		assert_int_equal(len, i % 13);
		if (i % 3)
			ok(keys_removexattr(k, f, name));
	}
	ok(keys_listxattr(k, f, names, sizeof names, &len));
	assert_int_equal(len, 334 * (strlen("user.name000") + 1));
	remove_file(k, "f");
	close_checked(k);
}

static size_t acl_build(uint8_t *acl, const uint16_t (*entries)[3], unsigned n)
{
	unsigned i;

	put_le32(acl, 2);
	for (i = 0; i < n; i++) {
		put_le16(acl + 4 + i * 8, entries[i][0]);
		put_le16(acl + 6 + i * 8, entries[i][1]);
		put_le32(acl + 8 + i * 8, entries[i][0] == 2 || entries[i][0] == 8 ? entries[i][2] : ~0u);
	}
	return 4 + n * 8;
}

static void test_keys__default_acl_is_inherited(void **state)
{
	static const uint16_t entries[][3] = { { 1, 7, 0 }, { 2, 6, 1000 }, { 4, 5, 0 }, { 16, 7, 0 }, { 32, 1, 0 } };
	struct keys *k = open_memory();
	uint8_t acl[100], back[100];
	uint64_t d, sub, f;
	struct keys_attr a;
	size_t size, len;

	(void)state;
	size = acl_build(acl, entries, 5);
	d = make(k, KEYS_ROOT_INO, "d", S_IFDIR | 0755);
	f = file(k, "f");
	assert_int_equal(keys_setxattr(k, f, "system.posix_acl_default", acl, size, 0, false), -EACCES);
	/* None at all is what a file has already: nothing is stored. */
	ok(keys_setxattr(k, f, "system.posix_acl_default", acl, 4, 0, false));
	assert_int_equal(keys_getxattr(k, f, "system.posix_acl_default", back, sizeof back, &len), -ENODATA);
	assert_int_equal(keys_setxattr(k, d, "system.posix_acl_default", acl, size - 1, 0, false), -EINVAL);
	ok(keys_setxattr(k, d, "system.posix_acl_default", acl, size, 0, false));
	assert_int_equal(attr(k, d).mode, S_IFDIR | 0755);
	/* The umask does not count; the mode asked for does. */
	a = attr(k, make(k, d, "f", S_IFREG | 0666));
	assert_int_equal(a.mode, S_IFREG | 0660);
	assert_true(a.flags & KEYS_ATTR_ACL);
	ok(keys_getxattr(k, a.ino, "system.posix_acl_access", back, sizeof back, &len));
	assert_int_equal(len, size);
	assert_int_equal(get_le16(back + 4 + 3 * 8 + 2), 6);    /* mask */
	assert_int_equal(get_le16(back + 4 + 2 * 8 + 2), 5);    /* group as it was */
	assert_int_equal(keys_getxattr(k, a.ino, "system.posix_acl_default", back, sizeof back, &len), -ENODATA);
	sub = make(k, d, "sub", S_IFDIR | 0777);
	assert_int_equal(attr(k, sub).mode, S_IFDIR | 0771);
	ok(keys_getxattr(k, sub, "system.posix_acl_default", back, sizeof back, &len));
	assert_memory_equal(back, acl, size);
	/* chmod changes the mask; removing the ACL leaves the mode. */
	ok(keys_setattr(k, a.ino, &(struct keys_setattr){ .mask = KEYS_SET_MODE, .mode = 0640 }, &a));
	ok(keys_getxattr(k, a.ino, "system.posix_acl_access", back, sizeof back, &len));
	assert_int_equal(get_le16(back + 4 + 3 * 8 + 2), 4);
	assert_int_equal(get_le16(back + 4 + 1 * 8 + 2), 6);
	ok(keys_removexattr(k, a.ino, "system.posix_acl_access"));
	assert_int_equal(attr(k, a.ino).mode, S_IFREG | 0640);
	assert_false(attr(k, a.ino).flags & KEYS_ATTR_ACL);
	/* A symbolic link has none. */
	ok(keys_symlink(k, d, N("s"), "t", 1, &cred, &a));
	assert_int_equal(a.mode, S_IFLNK | 0777);
	assert_int_equal(keys_setxattr(k, a.ino, "system.posix_acl_access", acl, size, 0, false), -EOPNOTSUPP);
	/* An access ACL that says no more than the mode becomes the mode. */
	{
		static const uint16_t plain[][3] = { { 1, 6, 0 }, { 4, 4, 0 }, { 32, 0, 0 } };

		ok(keys_setxattr(k, f, "system.posix_acl_access", acl, acl_build(acl, plain, 3), 0, false));
		assert_int_equal(attr(k, f).mode, S_IFREG | 0640);
		assert_int_equal(keys_getxattr(k, f, "system.posix_acl_access", back, sizeof back, &len), -ENODATA);
	}
	close_checked(k);
}

/* The file ---------------------------------------------------------------------------------------------------------- */

static uint64_t hash_file(uint64_t *ret_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint64_t h;
	void *p;

	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(p != MAP_FAILED);
	(void)close(fd);
	h = hash64(p, (size_t)st.st_size, 0);
	(void)munmap(p, (size_t)st.st_size);
	*ret_size = (uint64_t)st.st_size;
	return h;
}

/* Also of a store that was not closed: it is recovered in memory. */
static void test_keys__read_only_changes_no_byte(void **state)
{
	const struct keys_setattr set = { .mask = KEYS_SET_MODE, .mode = 0 };
	unsigned clean;

	(void)state;
	for (clean = 0; clean < 2; clean++) {
		uint64_t before, size, size_after, ino, f;
		struct keys_attr a;
		struct keys *k;
		uint32_t nlink;
		char buf[8];
		size_t n;
		int status;
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			k = open_at(path, 16u << 20, false);
			write_all(k, file(k, "f"), 0, "12345", 5);
			_exit(clean ? -keys_close(k) : 0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		before = hash_file(&size);
		k = open_at(path, 0, true);
		ok(keys_lookup(k, KEYS_ROOT_INO, N("f"), &a));
		f = a.ino;
		assert_int_equal(read_some(k, f, 0, buf, 8), 5);
		assert_memory_equal(buf, "12345", 5);
		assert_int_equal(keys_write(k, f, 0, "x", 1, false, &n), -EROFS);
		assert_int_equal(keys_make(k, KEYS_ROOT_INO, N("x"), S_IFREG, 0, &cred, &a), -EROFS);
		assert_int_equal(keys_unlink(k, KEYS_ROOT_INO, N("f"), &ino, &nlink), -EROFS);
		assert_int_equal(keys_setattr(k, f, &set, &a), -EROFS);
		assert_int_equal(keys_setxattr(k, f, "user.x", "v", 1, 0, false), -EROFS);
		assert_int_equal(keys_fallocate(k, f, 0, 0, 10, 0), -EROFS);
		assert_int_equal(keys_rename(k, 1, N("f"), 1, N("g"), 0, &cred, &ino), -EROFS);
		ok(keys_touch_atime(k, f, KEYS_STRICTATIME));
		close_checked(k);
		assert_int_equal(hash_file(&size_after), before);
		assert_int_equal(size_after, size);
		(void)unlink(path);
	}
}

#define KEPT 60u

static void fill_kept(uint8_t *p, unsigned i)
{
	unsigned j;

	for (j = 0; j < 50000; j++)
		p[j] = (uint8_t)(j * (i + 3) + j / 300);
}

static void check_kept(struct keys *k)
{
	static uint8_t want[50000], back[50000];
	struct keys_attr a;
	char name[16];
	unsigned i;

	for (i = 0; i < KEPT; i++) {
		(void)snprintf(name, sizeof name, "kept%u", i);
		ok(keys_lookup(k, KEYS_ROOT_INO, N(name), &a));
		fill_kept(want, i);
		assert_int_equal(a.size, sizeof want);
		assert_int_equal(read_some(k, a.ino, 0, back, sizeof back), sizeof back);
		assert_memory_equal(back, want, sizeof back);
	}
}

static void test_keys__the_file_shrinks_and_keeps_all(void **state)
{
	static uint8_t data[1 << 20], kept[50000];
	struct keys *k = open_at(path, 0, false);
	uint64_t peak, size, moved = 0;
	char name[16];
	unsigned i, round;

	(void)state;
	for (i = 0; i < KEPT; i++) {
		unsigned j;
		uint64_t f;

		(void)snprintf(name, sizeof name, "gone%u", i);
		f = file(k, name);
		for (j = 0; j < 3; j++)
			write_all(k, f, (uint64_t)j << 20, data, sizeof data);
		(void)snprintf(name, sizeof name, "kept%u", i);
		fill_kept(kept, i);
		write_all(k, file(k, name), 0, kept, sizeof kept);
		ok(store_poll(keys_store(k)));
	}
	ok(store_checkpoint(keys_store(k)));
	(void)hash_file(&peak);
	assert_true(peak > 180u << 20);
	for (i = 0; i < KEPT; i++) {
		(void)snprintf(name, sizeof name, "gone%u", i);
		remove_file(k, name);
	}
	for (round = 0; round < 24; round++) {
		int r;

		/* Not while it has only just grown. */
		if (round == 12) {
			(void)hash_file(&size);
			assert_true(size >= peak);
			mono_ahead += 40ull * 1000000000u;
		}
		ok(store_checkpoint(keys_store(k)));
		while ((r = keys_compact(k)) == 1)
			moved++;
		assert_true(r == 0 || r == -EAGAIN);
		check_kept(k);
	}
	assert_true(moved > 0);
	(void)hash_file(&size);
	assert_true(size < peak / 2);
	close_checked(k);
	k = open_at(path, 0, false);
	check_kept(k);
	close_checked(k);
	(void)unlink(path);
}

/* Nobody does anything any more but wait. */
static void test_keys__the_file_shrinks_while_nothing_changes(void **state)
{
	static uint8_t data[1 << 20];
	struct keys *k = open_at(path, 0, false);
	uint64_t size, before = 0, checkpoints, small;
	struct store_status st;
	char name[16];
	unsigned i;

	(void)state;
	for (i = 0; i < 400; i++) {
		(void)snprintf(name, sizeof name, "gone%u", i);
		write_all(k, file(k, name), 0, data, sizeof data);
		ok(store_poll(keys_store(k)));
	}
	/* Journal that stands behind all that. */
	small = file(k, "small");
	for (i = 0; i < 4000; i++) {
		write_all(k, small, 0, data, 4000);
		ok(store_poll(keys_store(k)));
	}
	for (i = 0; i < 400; i++) {
		(void)snprintf(name, sizeof name, "gone%u", i);
		remove_file(k, name);
	}
	for (i = 0; i < 40; i++) {
		int r;

		mono_ahead += 40ull * 1000000000u;
		ok(store_poll(keys_store(k)));
		while ((r = keys_compact(k)) == 1)
			;
		assert_true(r == 0 || r == -EAGAIN);
	}
	(void)hash_file(&size);
	assert_in_range(size, 1, 64u << 20);
	/* And when there is no more to be had, it rests. */
	store_status(keys_store(k), &st);
	checkpoints = st.checkpoints;
	for (i = 0; i < 10; i++) {
		mono_ahead += 40ull * 1000000000u;
		ok(store_poll(keys_store(k)));
	}
	store_status(keys_store(k), &st);
	assert_int_equal(st.checkpoints, checkpoints);
	(void)hash_file(&before);
	assert_int_equal(before, size);
	close_checked(k);
	(void)unlink(path);
}

static int set_up(void **state)
{
	(void)state;
	if (scratch_make_on_disk("keys") < 0)
		return -1;
	scratch_path(path, "s");
	return 0;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_keys__errors_of_names),
	cmocka_unit_test(test_keys__errors_of_contents),
	cmocka_unit_test(test_keys__link_counts_and_times),
	cmocka_unit_test(test_keys__setgid_directory_passes_its_group_on),
	cmocka_unit_test(test_keys__rename_flags),
	cmocka_unit_test(test_keys__cookies_are_stable_under_change),
	cmocka_unit_test(test_keys__orphans_live_until_reaped),
	cmocka_unit_test(test_keys__sizes_where_contents_change_form),
	cmocka_unit_test(test_keys__holes_and_allocation),
	cmocka_unit_test(test_keys__the_largest_size),
	cmocka_unit_test(test_keys__symlinks_up_to_4095),
	cmocka_unit_test(test_keys__xattrs),
	cmocka_unit_test(test_keys__default_acl_is_inherited),
	cmocka_unit_test(test_keys__read_only_changes_no_byte),
	cmocka_unit_test(test_keys__the_file_shrinks_and_keeps_all),
	cmocka_unit_test(test_keys__the_file_shrinks_while_nothing_changes),
};

int main(void)
{
	return cmocka_run_group_tests_name("keys", tests, set_up, scratch_teardown);
}
