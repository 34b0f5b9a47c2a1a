/* SPDX-License-Identifier: MIT
 *
 * test_record: what is built is read again; whatever else the bytes are, the reader stays inside them. Buffers to be read
 * are as long as the record to the byte, so that the address sanitizer sees the first step outside.
 */
#include "tests/unit/random_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/store/record.h"

#include <stdlib.h>

/* Read all there is; every byte that is pointed to is touched. The number of mutations, or an error. */
static int read_all(const uint8_t *bytes, uint32_t len)
{
	static struct record_reader r;
	uint8_t *copy = malloc(len ? len : 1);
	struct mutation m;
	volatile uint8_t sum = 0;
	int n = 0, got;
	uint32_t i, j;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	got = record_open(&r, copy, len);
	for (i = 0; got == 0 && i < r.extent_count; i++)
		for (j = 0; r.extents[i].flags & EXT_DATA && j < 4 * r.extents[i].count; j++)
			sum = (uint8_t)(sum + r.extents[i].csums[j]);
	while (got == 0 && (got = record_next(&r, &m)) == 1) {
		for (j = 0; j < m.len; j++)
			sum = (uint8_t)(sum + m.data[j]);
		n++;
		got = 0;
		if (r.left == 0 && r.at == r.len)
			break;
	}
	free(copy);
	assert_true(got == 0 || got == -EUCLEAN);
	return got < 0 ? got : n;
}

static void build(struct record *rec, unsigned extents, unsigned mutations, uint32_t max_len)
{
	unsigned i;

	record_begin(rec, 12, 0, 99);
	for (i = 0; i < extents; i++) {
		uint32_t count = 1 + rnd(20);
		uint8_t *csums;

		assert_int_equal(record_extent(rec, 1000 + i, count, i % 3 ? EXT_FRESH | EXT_DATA : EXT_FRESH, &csums), i);
		if (i % 3)
			memset(csums, (int)i, 4 * count);
	}
	for (i = 0; i < mutations; i++) {
		uint32_t len = rnd(max_len + 1);

		memset(record_mutation(rec, 1 + i % 8, len), (int)(i & 0xff), len);
	}
}

static void test_record__round_trip(void **state)
{
	struct record_reader r;
	struct record rec;
	unsigned round;

	(void)state;
	assert_int_equal(record_init(&rec), 0);
	for (round = 0; round < 500; round++) {
		unsigned extents = rnd(30), mutations = rnd(60), i;
		struct mutation m;

		build(&rec, extents, mutations, 300);
		assert_false(rec.overflow);
		assert_int_equal(rec.len % 8, 0);
		assert_int_equal(get_le64(rec.buf + REC_TIME), 99);
		assert_int_equal(record_open(&r, rec.buf, rec.len), 0);
		assert_int_equal(r.extent_count, extents);
		for (i = 0; i < extents; i++) {
			assert_int_equal(r.extents[i].block, 1000 + i);
			if (i % 3)
				assert_int_equal(r.extents[i].csums[4 * r.extents[i].count - 1], i);
		}
		for (i = 0; i < mutations; i++) {
			assert_int_equal(record_next(&r, &m), 1);
			assert_int_equal(m.kind, 1 + i % 8);
			assert_true(m.len == 0 || (m.data[0] == i && m.data[m.len - 1] == i));
		}
		assert_int_equal(record_next(&r, &m), 0);
		assert_int_equal(record_next(&r, &m), 0);
	}
	record_release(&rec);
	record_release(&rec);
}

static void test_record__overflow_is_told_and_harmless(void **state)
{
	struct record rec;
	unsigned i;

	(void)state;
	assert_int_equal(record_init(&rec), 0);
	/* To the last byte. */
	record_begin(&rec, 2, 0, 0);
	(void)record_mutation(&rec, 1, REC_MAX - REC_HEADER - MUT_HEADER);
	assert_false(rec.overflow);
	assert_int_equal(rec.len, REC_MAX);
	memset(record_mutation(&rec, 1, 1000), 1, 1000);
	assert_true(rec.overflow);
	record_begin(&rec, 2, 0, 0);
	assert_false(rec.overflow);
	for (i = 0; i < 500; i++)
		memset(record_mutation(&rec, 1, 1 + rnd(1200)), 0x77, 1);
	assert_true(rec.overflow);
	record_begin(&rec, 2, 0, 0);
	for (i = 0; i < REC_EXTENTS_MAX; i++)
		(void)record_extent(&rec, i, 1, EXT_FRESH, NULL);
	assert_false(rec.overflow);
	(void)record_extent(&rec, i, 1, EXT_FRESH, NULL);
	assert_true(rec.overflow);
	record_begin(&rec, 2, 0, 0);
	for (i = 0; i < 200; i++) {
		uint8_t *csums;

		(void)record_extent(&rec, i, EXT_COUNT_MAX, EXT_DATA, &csums);
		memset(csums, 0xee, 4 * EXT_COUNT_MAX);
	}
	assert_true(rec.overflow);
	record_release(&rec);
}

static void test_record__mutated_bytes(void **state)
{
	struct record rec;
	uint8_t kept[8192];
	unsigned round, i, refused = 0;

	(void)state;
	assert_int_equal(record_init(&rec), 0);
	for (round = 0; round < 300; round++) {
		build(&rec, rnd(12), rnd(12), 100);
		assert_true(rec.len <= sizeof kept);
		memcpy(kept, rec.buf, rec.len);
		for (i = 0; i < 200; i++) {
			unsigned n = 1 + rnd(3);

			while (n-- > 0)
				kept[rnd(rec.len)] = (uint8_t)(rnd(3) ? rnd(256) : 0xff * rnd(2));
			refused += read_all(kept, rec.len) < 0;
			if (rnd(4))
				memcpy(kept, rec.buf, rec.len);
		}
	}
	assert_true(refused > 1000);
	record_release(&rec);
}

static void test_record__cut_at_every_byte(void **state)
{
	struct record rec;
	uint32_t len;

	(void)state;
	assert_int_equal(record_init(&rec), 0);
	build(&rec, 7, 9, 60);
	for (len = 0; len < rec.len; len++)
		assert_int_equal(read_all(rec.buf, len), -EUCLEAN);
	assert_int_equal(read_all(rec.buf, rec.len), 9);
	/* What follows the last mutation is an error too. */
	{
		struct record_reader r;
		struct mutation m;
		int got;

		memset(rec.buf + rec.len, 0, 8);
		assert_int_equal(record_open(&r, rec.buf, rec.len + 8), 0);
		while ((got = record_next(&r, &m)) == 1)
			;
		assert_int_equal(got, -EUCLEAN);
	}
	record_release(&rec);
}

static void test_record__random_bytes(void **state)
{
	uint8_t bytes[600];
	unsigned round, i;

	(void)state;
	for (round = 0; round < 60000; round++) {
		uint32_t len = rnd(sizeof bytes + 1);

		for (i = 0; i < len; i++)
			bytes[i] = (uint8_t)(rnd(2) ? 0 : rnd(256));
		if (len >= REC_HEADER) {
			put_le16(bytes + REC_EXTENTS, (uint16_t)rnd(4));
			put_le16(bytes + REC_MUTATIONS, (uint16_t)rnd(6));
		}
		(void)read_all(bytes, len);
	}
}

static void test_record__impossible_extents_are_refused(void **state)
{
	static const struct {
		uint32_t count, flags;
	} bad[] = {
		{ 0, EXT_FRESH }, { 0, EXT_DATA }, { EXT_COUNT_MAX + 1, EXT_DATA }, { GROUP_BLOCKS + 1, EXT_FRESH },
		{ ~0u, 0 }, { ~0u, EXT_DATA }, { 0x40000001, EXT_DATA }, { 1, 4 }, { 1, 0x80000001 },
	};
	struct record rec;
	unsigned i;

	(void)state;
	assert_int_equal(record_init(&rec), 0);
	for (i = 0; i < ARRAY_LEN(bad); i++) {
		build(&rec, 1, 1, 2000);
		put_le32(rec.buf + REC_HEADER + EXT_COUNT, bad[i].count);
		put_le32(rec.buf + REC_HEADER + EXT_FLAGS, bad[i].flags);
		assert_int_equal(read_all(rec.buf, rec.len), -EUCLEAN);
	}
	build(&rec, 1, 1, 8);
	put_le16(rec.buf + REC_EXTENTS, REC_EXTENTS_MAX + 1);
	assert_int_equal(read_all(rec.buf, rec.len), -EUCLEAN);
	build(&rec, 0, 1, 8);
	put_le32(rec.buf + REC_HEADER + MUT_LEN, ~0u);
	assert_int_equal(read_all(rec.buf, rec.len), -EUCLEAN);
	put_le32(rec.buf + REC_HEADER + MUT_LEN, ~0u - 6);
	assert_int_equal(read_all(rec.buf, rec.len), -EUCLEAN);
	record_release(&rec);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_record__round_trip),
	cmocka_unit_test(test_record__overflow_is_told_and_harmless),
	cmocka_unit_test(test_record__mutated_bytes),
	cmocka_unit_test(test_record__cut_at_every_byte),
	cmocka_unit_test(test_record__random_bytes),
	cmocka_unit_test(test_record__impossible_extents_are_refused),
};

int main(void)
{
	return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
