/* SPDX-License-Identifier: MIT
 *
 * test_key: key files: what is made is read again; files that others could read, or that are not just what they should
 * be, are refused with their line.
 */
#include "tests/unit/scratch_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/replica/key.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD   "msyncfs-key-1\n"
#define SECRET "secret=000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F\n"
#define KEY(id) HEAD "id=" id "\n" SECRET

static char path[SCRATCH_PATH];

static void put_file(const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	(void)close(fd);
}

static void test_key__what_is_made_is_read_again(void **state)
{
	struct net_key k = { .id = "alice@one.example", .read_only = true, .tree = strdup("/a/b c/\303\244") }, other = { 0 };
	struct keyring *ring;
	struct stat st;

	(void)state;
	assert_int_equal(key_generate(&k), 0);
	assert_int_equal(key_generate(&other), 0);
	assert_memory_not_equal(k.secret, other.secret, KEY_SECRET);
	assert_int_equal(strncmp(other.id, "key-", 4), 0);
	assert_int_equal(key_create(path, &k), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* Never written over, and what is there stays. */
	assert_int_equal(key_create(path, &other), -EEXIST);
	assert_int_equal(keyring_load(path, &ring), 0);
	assert_int_equal(ring->count, 1);
	assert_string_equal(ring->keys[0].id, k.id);
	assert_memory_equal(ring->keys[0].secret, k.secret, KEY_SECRET);
	assert_true(ring->keys[0].read_only);
	assert_string_equal(ring->keys[0].tree, k.tree);
	keyring_free(ring);
	key_release(&k);
	assert_int_equal(k.secret[0] | k.secret[31], 0);
	key_release(&other);
	assert_int_equal(unlink(path), 0);
}

/* The same lines give the same number everywhere, other lines another one; only a key with a directory has its clients numbered. */
static void test_key__tags(void **state)
{
	struct net_key k = { .id = "one" }, ro = { .id = "one", .read_only = true }, tree = { .id = "one", .tree = strdup("/a") };
	struct net_key other = { .id = "one", .tree = strdup("/ab") }, both = { .id = "one", .read_only = true, .tree = strdup("/a") };
	struct net_key name = { .id = "on", .tree = strdup("/a") };
	const struct net_key *all[] = { &k, &ro, &tree, &other, &both, &name };
	unsigned i, j;

	(void)state;
	for (i = 0; i < ARRAY_LEN(all); i++) {
		assert_int_not_equal(key_tag(all[i]), 0);
		for (j = 0; j < i; j++)
			assert_int_not_equal(key_tag(all[i]), key_tag(all[j]));
	}
	assert_int_equal(key_tag(&tree), hash64("/a", 2, hash64("one", 3, 0)) >> 32 | 1);
	assert_int_equal(key_client(&k, 0x123456789abcdef0), 0x123456789abcdef0);
	assert_int_equal(key_client(&ro, 0x123456789abcdef0), 0x123456789abcdef0);
	assert_int_equal(key_client(&tree, 0x123456789abcdef0), (uint64_t)key_tag(&tree) << 32 | 0x9abcdef0);
	assert_false(key_is_limited(&k));
	assert_true(key_is_limited(&ro) && key_is_limited(&tree));
	for (i = 0; i < ARRAY_LEN(all); i++)
		free(all[i]->tree);
}

static void test_key__several_in_one_file(void **state)
{
	static const char text[] = "# for the replicas\n\n" KEY("one") "limit=tree:/x\n\n" KEY("two") KEY("three") "limit=read-only";
	struct keyring *ring;

	(void)state;
	assert_int_equal(keyring_parse("t", text, sizeof text - 1, &ring), 0);
	assert_int_equal(ring->count, 3);
	assert_string_equal(keyring_find(ring, "two", 3)->id, "two");
	assert_null(keyring_find(ring, "tw", 2));
	assert_null(keyring_find(ring, "two\0", 4));
	assert_null(keyring_find(ring, "", 0));
	assert_string_equal(ring->keys[0].tree, "/x");
	assert_false(ring->keys[0].read_only);
	assert_null(ring->keys[1].tree);
	assert_true(ring->keys[2].read_only);
	assert_int_equal(ring->keys[2].secret[31], 0x1f);
	keyring_free(ring);
}

static void test_key__what_is_wrong_is_told_with_its_line(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "", "no key in it" }, { "\n# nothing\n", "no key in it" }, { "id=x\n", "line 1" }, { "hello\n", "no key file" },
		{ "msyncfs-key-2\nid=x\n" SECRET, "no key file" }, { HEAD "id=x\n", "line 3: the key before here has no secret" },
		{ HEAD SECRET, "no id" }, { HEAD "id=x\n" KEY("y"), "line 3: the key before here has no secret" },
		{ HEAD "id=\n" SECRET, "line 2" }, { HEAD "id=a b\n" SECRET, "line 2" }, { HEAD "id=-a\n" SECRET, "line 2" },
		{ HEAD "id=0123456789012345678901234567890123456789012345678901234567890123x\n" SECRET, "line 2" },
		{ HEAD "id=a\nid=b\n" SECRET, "line 3: a second id" }, { KEY("x") KEY("x"), "line 5: an id that another" },
		{ HEAD "id=x\nsecret=00\n", "64 hex" }, { HEAD "id=x\n" SECRET SECRET, "line 4: a second secret" },
		{ HEAD "id=x\nsecret=g00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n", "64 hex" },
		{ HEAD "id=x\nsecret=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f0\n", "64 hex" },
		{ KEY("x") "limit=\n", "line 4: an unknown limit" }, { KEY("x") "limit=readonly\n", "unknown limit" },
		{ KEY("x") "limit=tree:a\n", "line 4: tree:" }, { KEY("x") "limit=tree:/\n", "tree:" },
		{ KEY("x") "limit=tree:/a/../b\n", "tree:" }, { KEY("x") "limit=tree:/a//b\n", "tree:" },
		{ KEY("x") "limit=tree:/a/.\n", "tree:" }, { KEY("x") "limit=tree:/a/\n", "tree:" },
		{ KEY("x") "limit=tree:/a\nlimit=tree:/b\n", "line 5: a second tree" }, { KEY("x") "colour=red\n", "line 4: neither" },
		{ KEY("x") " \n", "line 4: neither" },
	};
	struct keyring *ring = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int r = keyring_parse("my.key", cases[i].text, strlen(cases[i].text), &ring);

		if (r != -EINVAL || !strstr(err_last(), cases[i].says))
			print_message("%zu: %d %s\n", i, r, err_last());
		assert_int_equal(r, -EINVAL);
		assert_non_null(strstr(err_last(), cases[i].says));
		assert_int_equal(strncmp(err_last(), "my.key: ", 8), 0);
		assert_null(ring);
	}
	/* A NUL is a byte like others that do not belong there. */
	assert_int_equal(keyring_parse("k", HEAD "id=a\0b\n" SECRET, sizeof(HEAD "id=a\0b\n" SECRET) - 1, &ring), -EINVAL);
}

static void test_key__too_many(void **state)
{
	char *text = malloc(600000);
	struct keyring *ring;
	size_t n = 0;

	(void)state;
	assert_non_null(text);
	for (unsigned i = 0; i < KEYS_MAX; i++)
		n += (size_t)snprintf(text + n, 600000 - n, HEAD "id=k%u\n" SECRET, i);
	assert_int_equal(keyring_parse("k", text, n, &ring), 0);
	assert_int_equal(ring->count, KEYS_MAX);
	keyring_free(ring);
	n += (size_t)snprintf(text + n, 600000 - n, KEY("last"));
	assert_int_equal(keyring_parse("k", text, n, &ring), -EINVAL);
	free(text);
}

static void test_key__only_its_owner_may_read_it(void **state)
{
	static const mode_t open_to_others[] = { 0640, 0604, 0620, 0602, 0610, 0601, 0644, 0777, 0660 };
	static const mode_t fine[] = { 0600, 0400, 0700 };
	struct keyring *ring;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(open_to_others); i++) {
		put_file(KEY("x"), open_to_others[i]);
		assert_int_equal(keyring_load(path, &ring), -EACCES);
		assert_non_null(strstr(err_last(), path));
		assert_non_null(strstr(err_last(), "chmod 600"));
	}
	for (size_t i = 0; i < ARRAY_LEN(fine); i++) {
		(void)unlink(path);
		put_file(KEY("x"), fine[i]);
		assert_int_equal(keyring_load(path, &ring), 0);
		keyring_free(ring);
	}
	if (geteuid() == 0) {
		assert_int_equal(chown(path, 65534, 65534), 0);
		assert_int_equal(keyring_load(path, &ring), -EACCES);
		assert_non_null(strstr(err_last(), "65534"));
	}
	assert_int_equal(unlink(path), 0);
}

static void test_key__only_a_file(void **state)
{
	struct keyring *ring;
	char *large = calloc(1, KEY_FILE_MAX + 2);

	(void)state;
	assert_non_null(large);
	assert_int_equal(keyring_load(path, &ring), -ENOENT);
	assert_non_null(strstr(err_last(), "keygen"));
	assert_int_equal(keyring_load(scratch_folder(), &ring), -EACCES);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(keyring_load(path, &ring), -EACCES);   /* and does not wait for a writer */
	assert_int_equal(unlink(path), 0);
	memset(large, '#', KEY_FILE_MAX + 1);
	put_file(large, 0600);
	assert_int_equal(keyring_load(path, &ring), -EINVAL);
	assert_int_equal(unlink(path), 0);
	free(large);
}

static void test_key__nothing_is_left_of_what_failed(void **state)
{
	struct net_key bad_id = { .id = "a b" }, bad_tree = { .id = "a", .tree = strdup("/a\nlimit=x") };

	(void)state;
	assert_int_equal(key_create(path, &bad_id), -EINVAL);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(key_create(path, &bad_tree), -EINVAL);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(symlink("elsewhere", path), 0);
	assert_int_equal(key_generate(&bad_id), 0);
	bad_id.id[1] = '-';
	assert_int_equal(key_create(path, &bad_id), -EEXIST);   /* a link is not followed */
	assert_int_equal(unlink(path), 0);
	assert_int_equal(key_write(-1, &bad_id), -EBADF);
	key_release(&bad_tree);
}

static int make_dir(void **state)
{
	(void)state;
	if (scratch_make_on_disk("key") < 0)
		return -1;
	(void)snprintf(path, sizeof path, "%s/k", scratch_folder());
	return 0;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_key__what_is_made_is_read_again),
	cmocka_unit_test(test_key__tags),
	cmocka_unit_test(test_key__several_in_one_file),
	cmocka_unit_test(test_key__what_is_wrong_is_told_with_its_line),
	cmocka_unit_test(test_key__too_many),
	cmocka_unit_test(test_key__only_its_owner_may_read_it),
	cmocka_unit_test(test_key__only_a_file),
	cmocka_unit_test(test_key__nothing_is_left_of_what_failed),
};

int main(void)
{
	return cmocka_run_group_tests_name("key", tests, make_dir, scratch_teardown);
}
