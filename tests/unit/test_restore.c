/* SPDX-License-Identifier: MIT
 *
 * test_restore: things put into a new store as they were elsewhere come out as they were put, a store made of them in order
 * is one that check finds clean, and it is so again after a crash; what cannot be is refused and changes nothing.
 */
#include "tests/unit/findings_util.h"
#include "tests/unit/ok_util.h"
#include "tests/unit/scratch_util.h"

#include "core/keys/keys_int.h"
#include "core/keys/restore.h"

static struct keys *k;
static char path[SCRATCH_PATH];

static struct keys_attr attr_of(uint64_t ino, uint32_t mode, uint32_t nlink)
{
	return (struct keys_attr){ .ino = ino, .mode = mode, .nlink = nlink, .uid = 12, .gid = 34, .atime = { 5, 6 },
				   .mtime = { -7, 8 }, .ctime = { 9, 10 }, .btime = { 1, 2 } };
}

/* The root with two names, a file whose contents are inline and that has attributes, a symbolic link with a long target. */
static void put_all(void)
{
	static const uint8_t acl[4 + 3 * 8] = { 2, 0, 0, 0, 1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, 4, 0, 4, 0, 0xff, 0xff, 0xff,
						0xff, 32, 0, 4, 0, 0xff, 0xff, 0xff, 0xff };
	struct keys_attr root = attr_of(KEYS_ROOT_INO, S_IFDIR | 01777, 2), file = attr_of(100, S_IFREG | 0644, 1);
	struct keys_attr link = attr_of(205, S_IFLNK | 0777, 1);
	char target[3000];
	uint32_t flags = 0;

	memset(target, 't', sizeof target);
	root.aux = KEYS_ROOT_INO;
	root.size = 2;
	ok(keys_restore_inode(k, &root, NULL, 0));
	file.size = 11;
	file.flags = KEYS_ATTR_INLINE;
	ok(keys_restore_inode(k, &file, "hello there", 11));
	ok(keys_restore_xattr(k, 100, "user.long", target, sizeof target, &flags));
	assert_int_equal(flags, KEYS_ATTR_XATTR);
	ok(keys_restore_xattr(k, 100, ACL_ACCESS_NAME, acl, sizeof acl, &flags));
	assert_int_equal(flags, KEYS_ATTR_XATTR | KEYS_ATTR_ACL);
	file.flags |= flags;
	ok(keys_restore_attr(k, &file));
	link.size = sizeof target;
	ok(keys_restore_inode(k, &link, NULL, 0));
	ok(keys_restore_target(k, 205, target, sizeof target));
	ok(keys_restore_entry(k, KEYS_ROOT_INO, "file", 4, 100, S_IFREG));
	ok(keys_restore_entry(k, KEYS_ROOT_INO, "link", 4, 205, S_IFLNK));
	keys_restore_next_ino(k, 1000);
}

static void assert_all(void)
{
	struct keys_attr a;
	char buf[4096];
	struct iovec iov[2];
	size_t n;
	int count;

	ok(keys_getattr(k, KEYS_ROOT_INO, &a));
	assert_int_equal(a.mode, S_IFDIR | 01777);
	assert_int_equal(a.uid, 12);
	ok(keys_lookup(k, KEYS_ROOT_INO, "file", 4, &a));
	assert_int_equal(a.ino, 100);
	assert_true(a.mtime.sec == -7 && a.mtime.nsec == 8 && a.ctime.sec == 9 && a.btime.sec == 1 && a.gid == 34);
	ok(keys_read(k, 100, 0, 100, iov, 2, &count, &n));
	assert_true(n == 11 && count == 1 && memcmp(iov[0].iov_base, "hello there", 11) == 0);
	ok(keys_getxattr(k, 100, "user.long", buf, sizeof buf, &n));
	assert_true(n == 3000 && buf[0] == 't' && buf[2999] == 't');
	ok(keys_lookup(k, KEYS_ROOT_INO, "link", 4, &a));
	assert_true(a.ino == 205 && a.blocks == 1);
	ok(keys_readlink(k, 205, buf, sizeof buf, &n));
	assert_true(n == 3000 && buf[2999] == 't');
	findings_forget();
	findings_none(k);
}

static void test_restore__comes_out_as_it_was_put(void **ctx)
{
	struct keys_attr a;

	(void)ctx;
	put_all();
	assert_all();
	ok(keys_make(k, KEYS_ROOT_INO, "new", 3, S_IFREG | 0600, 0, &(struct keys_cred){ 0, 0, 0 }, &a));
	assert_int_equal(a.ino, 1000);
}

/* Each is a record: the next opening has it. */
static void test_restore__survives_a_crash(void **ctx)
{
	const struct store_options ro = { .path = path, .read_only = true };

	(void)ctx;
	put_all();
	scratch_kill(k, path);
	ok(keys_open(&ro, &k));
	assert_all();
}

static void test_restore__what_cannot_be_is_refused(void **ctx)
{
	struct keys_attr file = attr_of(100, S_IFREG | 0644, 0), late = attr_of(50, S_IFREG | 0644, 0);
	char big[8192] = "";
	uint32_t flags = 0;
	seq_t seq;

	(void)ctx;
	put_all();
	seq = store_seq(keys_store(k));
	/* Numbers ascend. */
	assert_int_equal(keys_restore_inode(k, &late, NULL, 0), -EEXIST);
	assert_int_equal(keys_restore_inode(k, &file, NULL, 0), -EEXIST);
	file.ino = INO_MAX - 1;
	assert_int_equal(keys_restore_inode(k, &file, NULL, 0), -EEXIST);
	/* Contents that are not inline, or too long for it. */
	file.ino = 5000;
	assert_int_equal(keys_restore_inode(k, &file, "x", 1), -EINVAL);
	file.flags = KEYS_ATTR_INLINE;
	file.size = INLINE_MAX + 1;
	assert_int_equal(keys_restore_inode(k, &file, big, INLINE_MAX + 1), -EINVAL);
	assert_int_equal(keys_restore_target(k, 205, big, KEYS_SYMLINK_MAX + 1), -EINVAL);
	assert_int_equal(keys_restore_xattr(k, 100, ACL_DEFAULT_NAME, "nonsense", 8, &flags), -EINVAL);
	assert_int_equal(flags, 0);
	assert_int_equal(keys_restore_entry(k, KEYS_ROOT_INO, "file", 4, 205, S_IFLNK), -EEXIST);
	/* A number is never lowered. */
	keys_restore_next_ino(k, 3);
	assert_int_equal(store_counts(keys_store(k))->next_ino, 1000);
	assert_int_equal(store_seq(keys_store(k)), seq);
	assert_all();
}

static int setup(void **ctx)
{
	const struct store_options o = { .path = path, .create = true, .max_bytes = 16u << 20 };

	(void)ctx;
	if (scratch_make("restore") < 0)
		return -1;
	scratch_path(path, "store");
	return keys_open(&o, &k);
}

static int teardown(void **ctx)
{
	(void)ctx;
	(void)keys_close(k);
	return scratch_remove();
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_restore__comes_out_as_it_was_put),
		T(test_restore__survives_a_crash),
		T(test_restore__what_cannot_be_is_refused),
	};

	return cmocka_run_group_tests_name("restore", tests, NULL, NULL);
}
