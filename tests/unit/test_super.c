/* SPDX-License-Identifier: MIT
 *
 * test_super: which superblock counts, and what is refused: torn, newer, of unknown features, of impossible numbers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/store/super.h"

#include <stdio.h>

/* As the first 8 MiB of a file, with the superblocks in front and their copies at the end. */
static uint8_t pages[(SUPER_COPY + SUPERS) * BLOCK_SIZE];
#define COPY (pages + SUPER_COPY * BLOCK_SIZE)

static struct super sample(uint64_t flip)
{
	struct super sb;
	unsigned i;

	memset(&sb, 0, sizeof sb);
	for (i = 0; i < 16; i++)
		sb.uuid[i] = (uint8_t)(i * 17 + 1);
	sb.gen = 1000 + flip;
	sb.gen_limit = 1u << 20;
	sb.flip = flip;
	sb.promised_epoch = 4;
	sb.role = ROLE_REPLICA;
	sb.feature_ro_compat = FEATURE_CLUSTER;
	for (i = 0; i < 16; i++)
		sb.cluster[i] = (uint8_t)(200 - i);
	sb.total_blocks = 8192;
	sb.max_blocks = 1u << 20;
	sb.used_blocks = 900;
	sb.inodes = 33;
	sb.next_ino = 50;
	sb.root = (struct tree_root){ 777, 1000, 2 };
	sb.clean = true;
	sb.hash_seed = 0x8877665544332211ull;
	sb.created_ns = 11;
	sb.written_ns = 12;
	sb.journal = (struct journal_start){ .pos = (9u << SEG_SHIFT_SMALL) + 64, .nonce = 5, .chain = 6, .seq = 7, .epoch = 3 };
	sb.seg_shift = SEG_SHIFT_SMALL;
	sb.seg_count = 5;
	for (i = 0; i < 5; i++)
		sb.segs[i] = 100 + 64 * i;
	sb.holder_pid = 1234;
	(void)snprintf(sb.holder_host, sizeof sb.holder_host, "host");
	(void)snprintf(sb.holder_mount, sizeof sb.holder_mount, "/mnt/x");
	return sb;
}

static void put(uint64_t flip)
{
	struct super sb = sample(flip);

	super_encode(pages + (flip & 1) * BLOCK_SIZE, flip & 1, &sb);
}

static void seal(block_t block)
{
	uint8_t *p = pages + block * BLOCK_SIZE;

	put_le64(p + SB_CSUM, hash64(p + 16, BLOCK_SIZE - 16, block));
}

static int pick(uint64_t *ret_flip)
{
	struct super sb;
	block_t block = 99;
	int r = super_pick_at(pages, sizeof pages / BLOCK_SIZE, &sb, &block);

	*ret_flip = r == 0 || r == -EROFS ? sb.flip : 0;
	if (r == 0)
		assert_int_equal(block, sb.flip & 1);
	return r;
}

static void expect_pick(uint64_t flip)
{
	uint64_t got;

	assert_int_equal(pick(&got), 0);
	assert_int_equal(got, flip);
}

static void expect_flip(uint64_t flip)
{
	struct super sb;
	block_t block;

	assert_int_equal(super_pick_at(pages, sizeof pages / BLOCK_SIZE, &sb, &block), 0);
	assert_int_equal(sb.flip, flip);
}

static void expect_error(int error)
{
	uint64_t got;

	assert_int_equal(pick(&got), error);
}

static void test_super__what_was_encoded_is_decoded(void **state)
{
	struct super sb = sample(6), back;
	unsigned i;

	(void)state;
	sb.feature_compat = 1ull << 63;         /* unknown ones are ignored */
	super_encode(pages, 0, &sb);
	assert_int_equal(super_decode(pages, 0, &back), 0);
	assert_memory_equal(&sb, &back, sizeof sb);
	sb.seg_count = SEGS_MAX;
	for (i = 0; i < SEGS_MAX; i++)
		sb.segs[i] = 100 + 64 * i;
	super_encode(pages, 0, &sb);
	assert_int_equal(super_decode(pages, 0, &back), 0);
	assert_int_equal(back.segs[SEGS_MAX - 1], 100 + 64 * (SEGS_MAX - 1));
	/* Segments that overlap are not to be had. */
	sb.segs[SEGS_MAX - 1] = 163;
	super_encode(pages, 0, &sb);
	assert_int_equal(super_decode(pages, 0, &back), -EUCLEAN);
	/* FORMAT.md: numbers stand where it says. */
	assert_int_equal(get_le64(pages + 80), 6);
	assert_int_equal(get_le64(pages + 152), 777);
	assert_int_equal(get_le32(pages + 16), 1);
	assert_int_equal(get_le32(pages + 20), 12);
	/* It belongs to its block. */
	assert_int_equal(super_decode(pages, 1, &back), -EUCLEAN);
}

static void test_super__larger_flip_counts(void **state)
{
	(void)state;
	put(6);
	put(7);
	expect_pick(7);
	put(8);
	expect_pick(8);
	memset(pages, 0, BLOCK_SIZE);
	expect_pick(7);
	put(8);
	memset(pages + BLOCK_SIZE, 0xff, BLOCK_SIZE);
	expect_pick(8);
}

static void test_super__torn_one_gives_way_to_the_other(void **state)
{
	uint8_t old[BLOCK_SIZE], whole[BLOCK_SIZE];
	unsigned cut;

	(void)state;
	put(7);
	put(6);
	memcpy(old, pages, BLOCK_SIZE);
	put(8);
	memcpy(whole, pages, BLOCK_SIZE);
	for (cut = 0; cut <= BLOCK_SIZE; cut += 8) {
		bool same_new;

		memcpy(pages, whole, cut);
		memcpy(pages + cut, old + cut, BLOCK_SIZE - cut);
		same_new = memcmp(pages, whole, BLOCK_SIZE) == 0;
		expect_pick(same_new ? 8 : 7);
		/* The end first. */
		memcpy(pages, old, cut);
		memcpy(pages + cut, whole + cut, BLOCK_SIZE - cut);
		expect_pick(memcmp(pages, whole, BLOCK_SIZE) == 0 ? 8 : 7);
	}
}

static void test_super__every_flipped_bit_is_seen(void **state)
{
	unsigned i;

	(void)state;
	put(7);
	put(8);
	for (i = 0; i < BLOCK_SIZE; i++) {
		pages[i] ^= (uint8_t)(1u << i % 8);
		expect_pick(7);
		pages[i] ^= (uint8_t)(1u << i % 8);
	}
	expect_pick(8);
}

static void test_super__foreign_and_damaged_are_told_apart(void **state)
{
	(void)state;
	memset(pages, 0, sizeof pages);
	expect_error(-EMEDIUMTYPE);
	memset(pages, 'x', sizeof pages);
	expect_error(-EMEDIUMTYPE);
	put(6);
	pages[100] ^= 1;
	expect_error(-EUCLEAN);
	put(7);
	pages[BLOCK_SIZE + 100] ^= 1;
	expect_error(-EUCLEAN);
}

static void test_super__newer_version_is_refused(void **state)
{
	unsigned slot;

	(void)state;
	for (slot = 0; slot < 2; slot++) {
		put(8);
		put(7);
		put_le32(pages + slot * BLOCK_SIZE + SB_VERSION, 2);
		seal(slot);
		expect_error(-EPROTONOSUPPORT);
		/* One that is torn besides says nothing. */
		pages[slot * BLOCK_SIZE + 300] ^= 1;
		assert_int_equal(super_pick_at(pages, sizeof pages / BLOCK_SIZE, &(struct super){ 0 },
					       &(block_t){ 0 }), 0);
	}
}

static void test_super__unknown_features(void **state)
{
	struct super sb;
	uint64_t flip;
	unsigned bit;

	(void)state;
	for (bit = 1; bit < 64; bit += 9) {
		put(7);
		sb = sample(8);
		sb.feature_incompat |= 1ull << bit;
		super_encode(pages, 0, &sb);
		expect_error(-EPROTONOSUPPORT);
		sb = sample(8);
		sb.feature_ro_compat |= 1ull << bit;
		super_encode(pages, 0, &sb);
		assert_int_equal(pick(&flip), -EROFS);
		assert_int_equal(flip, 8);      /* filled: it may be read */
		sb = sample(8);
		sb.feature_compat = 1ull << bit;
		super_encode(pages, 0, &sb);
		expect_pick(8);
	}
}

/* The feature bits go along with the role, or a program that knows no clusters would write to a part of one. */
static void test_super__role_and_features_agree(void **state)
{
	static const struct {
		uint32_t role;
		uint64_t ro_compat, incompat;
		int error;
	} c[] = {
		{ ROLE_ALONE, 0, 0, 0 }, { ROLE_PRIMARY, FEATURE_CLUSTER, 0, 0 }, { ROLE_REPLICA, FEATURE_CLUSTER, 0, 0 },
		{ ROLE_REPLICA, FEATURE_CLUSTER, FEATURE_INCOMPLETE, 0 }, { ROLE_ALONE, FEATURE_CLUSTER, 0, -EUCLEAN },
		{ ROLE_PRIMARY, 0, 0, -EUCLEAN }, { ROLE_REPLICA, 0, 0, -EUCLEAN },
		{ ROLE_PRIMARY, FEATURE_CLUSTER, FEATURE_INCOMPLETE, -EUCLEAN }, { ROLE_ALONE, 0, FEATURE_INCOMPLETE, -EUCLEAN },
		{ ROLE_REPLICA + 1, FEATURE_CLUSTER, 0, -EUCLEAN }, { ~0u, FEATURE_CLUSTER, 0, -EUCLEAN },
	};
	unsigned i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(c); i++) {
		struct super sb = sample(6), back;

		sb.role = c[i].role;
		sb.feature_ro_compat = c[i].ro_compat;
		sb.feature_incompat = c[i].incompat;
		super_encode(pages, 0, &sb);
		assert_int_equal(super_decode(pages, 0, &back), c[i].error);
	}
}

static void test_super__impossible_numbers_are_refused(void **state)
{
	static const struct {
		unsigned at, size;
		uint64_t value;
	} bad[] = {
		{ SB_GEN, 8, 0 }, { SB_GEN, 8, 1u << 20 }, { SB_GEN, 8, ~0ull }, { SB_GEN_LIMIT, 8, 5 },
		{ SB_TOTAL, 8, 0 }, { SB_TOTAL, 8, 777 }, { SB_TOTAL, 8, 899 }, { SB_TOTAL, 8, 1ull << 51 },
		{ SB_TOTAL, 8, ~0ull }, { SB_USED, 8, 8193 }, { SB_USED, 8, ~0ull }, { SB_NEXT_INO, 8, 0 },
		{ SB_NEXT_INO, 8, 1 }, { SB_NEXT_INO, 8, 1ull << 48 }, { SB_ROOT_BLOCK, 8, 8192 },
		{ SB_ROOT_BLOCK, 8, ~0ull }, { SB_ROOT_GEN, 8, 1009 }, { SB_ROOT_LEVEL, 4, TREE_LEVELS },
		{ SB_ROOT_LEVEL, 4, ~0u }, { SB_SEG_SHIFT, 4, 0 }, { SB_SEG_SHIFT, 4, 19 }, { SB_SEG_SHIFT, 4, 64 },
		{ SB_SEG_COUNT, 4, 0 }, { SB_SEG_COUNT, 4, SEGS_MAX + 1 }, { SB_SEG_COUNT, 4, ~0u },
	};
	unsigned i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(bad); i++) {
		struct super sb;

		put(7);
		put(8);
		if (bad[i].size == 8)
			put_le64(pages + bad[i].at, bad[i].value);
		else
			put_le32(pages + bad[i].at, (uint32_t)bad[i].value);
		seal(0);
		if (super_decode(pages, 0, &sb) != -EUCLEAN)
			fail_msg("%u: value %llu at %u is accepted", i, (unsigned long long)bad[i].value, bad[i].at);
		expect_pick(7);
	}
	/* Texts without an end get one. */
	put(8);
	memset(pages + SB_HOLDER_HOST, 'h', SB_HOST_LEN);
	memset(pages + SB_HOLDER_MOUNT, 'm', SB_MOUNT_LEN);
	seal(0);
	{
		struct super sb;

		assert_int_equal(super_decode(pages, 0, &sb), 0);
		assert_int_equal(strlen(sb.holder_host), SB_HOST_LEN - 1);
		assert_int_equal(strlen(sb.holder_mount), SB_MOUNT_LEN - 1);
	}
}

/* Both places of a superblock, as a checkpoint writes them. */
static void put_both(uint64_t flip)
{
	struct super sb = sample(flip);

	put(flip);
	super_encode(COPY + (flip & 1) * BLOCK_SIZE, SUPER_COPY + (flip & 1), &sb);
}

static void test_super__copy_stands_in_for_a_damaged_one(void **state)
{
	struct super sb;
	block_t block;

	(void)state;
	memset(pages, 0, sizeof pages);
	put_both(7);
	put_both(8);
	assert_int_equal(super_pick_at(pages, sizeof pages / BLOCK_SIZE, &sb, &block), 0);
	assert_int_equal(block, 0);
	pages[100] ^= 1;
	assert_int_equal(super_pick_at(pages, sizeof pages / BLOCK_SIZE, &sb, &block), 0);
	assert_int_equal(block, SUPER_COPY);
	assert_int_equal(sb.flip, 8);
	/* A crash before the copy was written: the first place counts, whatever the copy is. */
	put(9);
	assert_int_equal(super_pick_at(pages, sizeof pages / BLOCK_SIZE, &sb, &block), 0);
	assert_int_equal(sb.flip, 9);
	memset(COPY, 0xaa, 2 * BLOCK_SIZE);
	assert_int_equal(super_pick_at(pages, sizeof pages / BLOCK_SIZE, &sb, &block), 0);
	assert_int_equal(sb.flip, 9);
	/* A file that ends before the copies. */
	assert_int_equal(super_pick_at(pages, 2, &sb, &block), 0);
	assert_int_equal(super_pick_at(pages, 0, &sb, &block), -EMEDIUMTYPE);
	/* Only copies left. */
	put_both(8);
	put_both(9);
	memset(pages, 0, 2 * BLOCK_SIZE);
	assert_int_equal(super_pick_at(pages, sizeof pages / BLOCK_SIZE, &sb, &block), 0);
	assert_int_equal(sb.flip, 9);
}

static void swap(unsigned a, unsigned b)
{
	uint8_t page[BLOCK_SIZE], *p = pages + super_place(a) * BLOCK_SIZE, *q = pages + super_place(b) * BLOCK_SIZE;

	memcpy(page, p, BLOCK_SIZE);
	memcpy(p, q, BLOCK_SIZE);
	memcpy(q, page, BLOCK_SIZE);
}

static void test_super__one_in_another_place_counts(void **state)
{
	unsigned a, b;

	(void)state;
	memset(pages, 0, sizeof pages);
	put_both(7);
	put_both(8);
	for (a = 0; a < SUPER_PLACES; a++) {
		for (b = 0; b < a; b++) {
			swap(a, b);
			expect_flip(8);
			swap(a, b);
		}
	}
}

static const struct CMUnitTest tests[] = {

	cmocka_unit_test(test_super__what_was_encoded_is_decoded),
	cmocka_unit_test(test_super__larger_flip_counts),
	cmocka_unit_test(test_super__torn_one_gives_way_to_the_other),
	cmocka_unit_test(test_super__every_flipped_bit_is_seen),
	cmocka_unit_test(test_super__foreign_and_damaged_are_told_apart),
	cmocka_unit_test(test_super__newer_version_is_refused),
	cmocka_unit_test(test_super__unknown_features),
	cmocka_unit_test(test_super__role_and_features_agree),
	cmocka_unit_test(test_super__impossible_numbers_are_refused),
	cmocka_unit_test(test_super__copy_stands_in_for_a_damaged_one),
	cmocka_unit_test(test_super__one_in_another_place_counts),
};

int main(void)
{
	return cmocka_run_group_tests_name("super", tests, NULL, NULL);
}
