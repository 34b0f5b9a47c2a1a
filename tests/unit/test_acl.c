/* SPDX-License-Identifier: MIT
 *
 * test_acl: POSIX ACLs as acl(5) tells them: which are valid, what they mean for the mode, what chmod and creating do to
 * them. ACLs are written as in getfacl's short form, "u::rwx,u:1000:r--,g::r-x,m::rwx,o::---".
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/keys/keys_int.h"

#include <stdlib.h>

static size_t parse(const char *text, uint8_t *acl)
{
	size_t n = 0;

	put_le32(acl, 2);
	while (*text) {
		static const char letters[] = "ugmo";
		static const uint16_t tags[2][4] = { { 1, 4, 16, 32 }, { 2, 8, 0, 0 } };
		uint8_t *e = acl + 4 + 8 * n++;
		const char *p = text + 2;
		unsigned perm = 0;
		bool named = *p != ':';

		put_le32(e + 4, named ? (uint32_t)strtoul(p, NULL, 10) : ~0u);
		p = strchr(p, ':') + 1;
		perm = (p[0] == 'r') * 4u + (p[1] == 'w') * 2u + (p[2] == 'x');
		put_le16(e, tags[named][strchr(letters, *text) - letters]);
		put_le16(e + 2, (uint16_t)perm);
		text = p + 3;
		text += *text == ',';
	}
	return 4 + 8 * n;
}

static void expect_acl(const uint8_t *acl, size_t size, const char *want)
{
	uint8_t other[200];

	assert_int_equal(parse(want, other), size);
	assert_memory_equal(acl, other, size);
}

static void test_acl__which_are_valid(void **state)
{
	static const struct {
		const char *text;
		int result;
	} cases[] = {
		{ "", 0 },                                              /* none at all: remove it */
		{ "u::rwx,g::r-x,o::r--", 0 },
		{ "u::---,g::---,o::---", 0 },
		{ "u::rwx,g::r-x,m::rwx,o::r--", 0 },
		{ "u::rwx,u:5:rwx,g::r-x,m::r--,o::r--", 0 },
		{ "u::rwx,u:5:rwx,u:6:---,g::r-x,g:7:r--,g:8:r--,m::r--,o::r--", 0 },
		{ "u::rwx,u:5:rwx,g::r-x,o::r--", -EINVAL },            /* named entries need a mask */
		{ "u::rwx,g::r-x,g:5:rwx,o::r--", -EINVAL },
		{ "g::r-x,o::r--", -EINVAL },
		{ "u::rwx,o::r--", -EINVAL },
		{ "u::rwx,g::r-x", -EINVAL },
		{ "m::rwx", -EINVAL },
		{ "u::rwx,u::rwx,g::r-x,o::r--", -EINVAL },
		{ "u::rwx,g::r-x,g::r-x,o::r--", -EINVAL },
		{ "u::rwx,g::r-x,m::rwx,m::rwx,o::r--", -EINVAL },
		{ "u::rwx,g::r-x,o::r--,o::r--", -EINVAL },
		{ "g::r-x,u::rwx,o::r--", -EINVAL },                    /* out of order */
		{ "u::rwx,g::r-x,o::r--,m::rwx", -EINVAL },
	};
	uint8_t acl[200];
	unsigned i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++)
		if (acl_check(acl, parse(cases[i].text, acl)) != cases[i].result)
			fail_msg("%s: not %d", cases[i].text, cases[i].result);
}

static void test_acl__which_bytes_are_none(void **state)
{
	static uint8_t acl[ACL_SIZE_MAX + 8];
	size_t size = parse("u::rwx,g::r-x,o::r--", acl), i;

	(void)state;
	for (i = 0; i < size; i++)
		if (i != 4)
			assert_int_equal(acl_check(acl, i), -EINVAL);
	put_le32(acl, 1);
	assert_int_equal(acl_check(acl, size), -EINVAL);
	put_le32(acl, 2);
	put_le16(acl + 6, 8);                   /* no such permission */
	assert_int_equal(acl_check(acl, size), -EINVAL);
	put_le16(acl + 6, 7);
	put_le16(acl + 4, 3);                   /* no such tag */
	assert_int_equal(acl_check(acl, size), -EINVAL);
	put_le16(acl + 4, 0);
	assert_int_equal(acl_check(acl, size), -EINVAL);
	/* The most entries, and one more. */
	for (i = 0; i < 513; i++) {
		put_le16(acl + 4 + i * 8, i == 0 ? 1 : 2);
		put_le16(acl + 6 + i * 8, 7);
	}
	put_le16(acl + 4 + 509 * 8, 4);
	put_le16(acl + 4 + 510 * 8, 16);
	put_le16(acl + 4 + 511 * 8, 32);
	assert_int_equal(acl_check(acl, 4 + 512 * 8), 0);
	assert_int_equal(acl_check(acl, 4 + 513 * 8), -EINVAL);
}

static void test_acl__what_it_means_for_the_mode(void **state)
{
	static const struct {
		const char *text;
		uint32_t mode, want;
		bool plain;
	} cases[] = {
		{ "u::rwx,g::r-x,o::r--", 0100000, 0100754, true },
		{ "u::---,g::---,o::---", 0107777, 0107000, true },
		{ "u::rw-,g::---,m::r--,o::-wx", 0, 0643, false },      /* the mask stands for the group */
		{ "u::rw-,u:9:rwx,g::rwx,m::---,o::---", 07000, 07600, false },
		{ "u::rw-,g::r--,g:9:rwx,m::rwx,o::---", 0, 0670, false },
	};
	uint8_t acl[200];
	unsigned i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		size_t size = parse(cases[i].text, acl);
		bool plain = !cases[i].plain;

		assert_int_equal(acl_mode(acl, size, cases[i].mode, &plain), cases[i].want);
		assert_int_equal(plain, cases[i].plain);
	}
}

static void test_acl__chmod(void **state)
{
	uint8_t acl[200];
	size_t size = parse("u::rwx,u:9:rw-,g::r-x,m::rwx,o::r--", acl);
	unsigned mode;
	bool plain;

	(void)state;
	acl_chmod(acl, size, 0100640);
	expect_acl(acl, size, "u::rw-,u:9:rw-,g::r-x,m::r--,o::---");
	size = parse("u::rwx,g::r-x,o::r--", acl);
	acl_chmod(acl, size, 0421);
	expect_acl(acl, size, "u::r--,g::-w-,o::--x");
	/* What was set is what is seen, with a mask and without. */
	for (mode = 0; mode < 01000; mode++) {
		size = parse(mode % 2 ? "u::rwx,g::r-x,o::r--" : "u::rwx,u:9:rw-,g::r-x,m::rwx,o::r--", acl);
		acl_chmod(acl, size, mode);
		assert_int_equal(acl_check(acl, size), 0);
		assert_int_equal(acl_mode(acl, size, 0, &plain), mode);
	}
}

/* acl(5), "Object creation and default ACLs": the access ACL is the default ACL, less what the mode does not ask for. */
static void test_acl__create(void **state)
{
	static const struct {
		const char *parent;
		uint32_t mode, want;
		const char *acl;
		bool plain;
	} cases[] = {
		{ "u::rwx,g::r-x,o::r--", 0100666, 0100644, "u::rw-,g::r--,o::r--", true },
		{ "u::rwx,g::rwx,o::rwx", 0040777, 0040777, "u::rwx,g::rwx,o::rwx", true },
		{ "u::rwx,u:9:rwx,g::r-x,m::rwx,o::r-x", 0100644, 0100644, "u::rw-,u:9:rwx,g::r-x,m::r--,o::r--", false },
		{ "u::rwx,u:9:rwx,g::r-x,m::r-x,o::---", 0106777, 0106750, "u::rwx,u:9:rwx,g::r-x,m::r-x,o::---", false },
		{ "u::r--,g::---,m::---,o::---", 0777, 0400, "u::r--,g::---,m::---,o::---", false },
		{ "u::rwx,g::rwx,g:3:-w-,m::rwx,o::rwx", 0, 0, "u::---,g::rwx,g:3:-w-,m::---,o::---", false },
	};
	uint8_t acl[200];
	unsigned i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		size_t size = parse(cases[i].parent, acl);
		bool plain = !cases[i].plain;

		assert_int_equal(acl_create(acl, size, cases[i].mode, &plain), cases[i].want);
		assert_int_equal(plain, cases[i].plain);
		expect_acl(acl, size, cases[i].acl);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_acl__which_are_valid),
	cmocka_unit_test(test_acl__which_bytes_are_none),
	cmocka_unit_test(test_acl__what_it_means_for_the_mode),
	cmocka_unit_test(test_acl__chmod),
	cmocka_unit_test(test_acl__create),
};

int main(void)
{
	return cmocka_run_group_tests_name("acl", tests, NULL, NULL);
}
