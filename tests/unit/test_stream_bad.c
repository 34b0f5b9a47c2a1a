/* SPDX-License-Identifier: MIT
 *
 * test_stream_bad: a stream that is cut, changed or made up is refused with a text and leaves no store; what is taken all the
 * same makes one that opens. SEED=n replays the random tests.
 */
#include "tests/unit/dump_util.h"
#include "tests/unit/ok_util.h"
#include "tests/unit/random_util.h"

#include "core/check/check.h"
#include "core/stream/stream_int.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zstd.h>

/* Bad streams -------------------------------------------------------------------------------------------------------- */

static size_t next_frame(struct dump b, size_t at)
{
	return at + FRAME_HEADER + get_le32(b.p + at + FRAME_PACKED);
}

static void test_stream_bad__cut_short(void **state)
{
	struct dump b = dump_random(100);
	size_t at;
	unsigned i;

	(void)state;
	for (at = STREAM_HEADER; at < b.len; at = next_frame(b, at)) {
		dump_refused(b.p, at, "cut before a frame", at);
		dump_refused(b.p, at + FRAME_HEADER, "cut behind a frame's header", at);
	}
	assert_int_equal(at, b.len);
	for (i = 0; i < 40; i++) {
		at = rnd((uint32_t)b.len);
		dump_refused(b.p, at, "cut", at);
	}
	dump_refused(b.p, b.len - 1, "cut", b.len - 1);
	b.p[b.len] = 0;
	dump_refused(b.p, b.len + 1, "something behind the end", b.len);
	free(b.p);
}

static void test_stream_bad__flipped_bits(void **state)
{
	struct dump b = dump_random(60);
	unsigned i;

	(void)state;
	for (i = 0; i < 120; i++) {
		/* Headers more often than chance would have it. */
		size_t at = i < 32 + FRAME_HEADER ? i : rnd((uint32_t)b.len);
		uint8_t bit = (uint8_t)(1u << rnd(8));

		b.p[at] ^= bit;
		dump_refused(b.p, b.len, "flipped", at);
		b.p[at] ^= bit;
	}
	free(b.p);
}

static void test_stream_bad__frames_out_of_place(void **state)
{
	struct keys *k = dump_open(":memory:", true);
	struct dump b, c;
	size_t first = STREAM_HEADER, second, third;

	(void)state;
	dump_big_file(k, 3u << 20);
	b = dump_store(k);
	ok(keys_close(k));
	second = next_frame(b, first);
	third = next_frame(b, second);
	assert_true(third < b.len);     /* at least two frames of items */
	c.p = malloc(2 * b.len);
	assert_non_null(c.p);
	/* One is missing. */
	memcpy(c.p, b.p, first);
	memcpy(c.p + first, b.p + second, b.len - second);
	dump_refused(c.p, b.len - (second - first), "frame missing", first);
	/* One comes twice. */
	memcpy(c.p, b.p, second);
	memcpy(c.p + second, b.p + first, b.len - first);
	dump_refused(c.p, b.len + (second - first), "frame twice", second);
	/* Two have changed places. */
	memcpy(c.p + first, b.p + second, third - second);
	memcpy(c.p + first + (third - second), b.p + first, second - first);
	memcpy(c.p + third, b.p + third, b.len - third);
	dump_refused(c.p, b.len, "frames swapped", first);
	/* Two streams, one behind the other. */
	memcpy(c.p, b.p, b.len);
	memcpy(c.p + b.len, b.p, b.len);
	dump_refused(c.p, 2 * b.len, "two streams", b.len);
	free(c.p);
	free(b.p);
}

static void test_stream_bad__garbage(void **state)
{
	static uint8_t p[100000];
	unsigned i;

	(void)state;
	dump_refused(p, 0, "nothing", 0);
	dump_refused(p, sizeof p, "zeros", 0);
	dump_refused((const uint8_t *)STREAM_MAGIC, 8, "magic", 0);
	for (i = 0; i < 20; i++) {
		dump_random_bytes(p, sizeof p);
		if (i & 1)
			memcpy(p, STREAM_MAGIC, STREAM_MAGIC_LEN);
		dump_refused(p, 1 + rnd(sizeof p - 1), "garbage", i);
	}
}

static void test_stream_bad__a_newer_version(void **state)
{
	struct dump b = dump_random(5);

	(void)state;
	put_le32(b.p + STREAM_H_VERSION, STREAM_VERSION + 1);
	put_le64(b.p + STREAM_H_CHECK, hash64(b.p, STREAM_H_CHECK, 0));
	dump_refused(b.p, b.len, "newer", 0);
	assert_int_equal(dump_load(dump_b, b.p, b.len, 0), -EPROTONOSUPPORT);
	free(b.p);
}

/* Hostile: whole frames with right checksums that say wrong things ------------------------------------------------------- */

struct hostile {
	uint8_t raw[65536];
	uint32_t len;
	struct stream_counts counts;
	uint64_t next_ino;
};

static uint8_t *put_item(struct hostile *h, uint32_t kind, uint32_t len)
{
	uint8_t *p = h->raw + h->len;

	put_le32(p, kind);
	put_le32(p + 4, len);
	memset(p + ITEM_HEADER, 0, len);
	h->len += ITEM_HEADER + len;
	return p + ITEM_HEADER;
}

static uint8_t *put_inode(struct hostile *h, uint64_t ino, uint32_t mode, uint32_t nlink, uint64_t size, uint64_t aux)
{
	uint8_t *p = put_item(h, STREAM_INODE, SI_LEN);

	put_le64(p + SI_INO, ino);
	put_le32(p + SI_MODE, mode);
	put_le32(p + SI_NLINK, nlink);
	put_le64(p + SI_SIZE, size);
	put_le64(p + SI_AUX, aux);
	h->counts.inodes++;
	return p;
}

static void put_entry(struct hostile *h, const char *name, uint64_t ino, uint32_t type)
{
	uint8_t *p = put_item(h, STREAM_ENTRY, SE_LEN + (uint32_t)strlen(name));

	put_le64(p + SE_INO, ino);
	p[SE_TYPE] = (uint8_t)(type >> 12);
	p[SE_NAME_LEN] = (uint8_t)strlen(name);
	memcpy(p + SE_LEN, name, strlen(name));
	h->counts.entries++;
}

static void put_data(struct hostile *h, uint64_t off, uint32_t len)
{
	uint8_t *p = put_item(h, STREAM_DATA, SD_LEN + len);

	put_le64(p + SD_OFFSET, off);
	memset(p + SD_LEN, 'd', len);
	h->counts.data_bytes += len;
}

static void put_unwritten(struct hostile *h, uint64_t off, uint64_t len)
{
	uint8_t *p = put_item(h, STREAM_UNWRITTEN, SU_LEN);

	put_le64(p + SU_OFFSET, off);
	put_le64(p + SU_BYTES, len);
	h->counts.unwritten_bytes += len;
}

static void put_xattr(struct hostile *h, const char *name, const void *value, uint32_t len)
{
	uint32_t n = (uint32_t)strlen(name);
	uint8_t *p = put_item(h, STREAM_XATTR, SX_LEN + n + len);

	p[SX_NAME_LEN] = (uint8_t)n;
	put_le32(p + SX_VALUE_LEN, len);
	memcpy(p + SX_LEN, name, n);
	memcpy(p + SX_LEN + n, value, len);
	h->counts.xattrs++;
}

static size_t seal_frame(uint8_t *to, uint32_t kind, uint32_t raw, uint32_t packed, uint64_t number)
{
	memset(to, 0, FRAME_HEADER);
	put_le32(to + FRAME_KIND, kind);
	put_le32(to + FRAME_LEN, raw);
	put_le32(to + FRAME_PACKED, packed);
	put_le64(to + FRAME_CHECK, hash64(to + 8, FRAME_HEADER - 8 + packed, number));
	return FRAME_HEADER + packed;
}

static int load_hostile(const struct hostile *h)
{
	static uint8_t out[200000];
	uint8_t *p = out + STREAM_HEADER;
	size_t packed;

	memset(out, 0, STREAM_HEADER);
	memcpy(out, STREAM_MAGIC, STREAM_MAGIC_LEN);
	put_le32(out + STREAM_H_VERSION, STREAM_VERSION);
	put_le64(out + STREAM_H_CHECK, hash64(out, STREAM_H_CHECK, 0));
	packed = ZSTD_compress(p + FRAME_HEADER, 100000, h->raw, h->len, 1);
	assert_false(ZSTD_isError(packed));
	p += seal_frame(p, FRAME_ITEMS, h->len, (uint32_t)packed, 0);
	put_le64(p + FRAME_HEADER + END_FRAMES, 1);
	put_le64(p + FRAME_HEADER + END_INODES, h->counts.inodes);
	put_le64(p + FRAME_HEADER + END_ENTRIES, h->counts.entries);
	put_le64(p + FRAME_HEADER + END_XATTRS, h->counts.xattrs);
	put_le64(p + FRAME_HEADER + END_DATA, h->counts.data_bytes);
	put_le64(p + FRAME_HEADER + END_UNWRITTEN, h->counts.unwritten_bytes);
	put_le64(p + FRAME_HEADER + END_NEXT_INO, h->next_ino ? h->next_ino : 1000);
	put_le64(p + FRAME_HEADER + END_TOTAL, hash64(h->raw, h->len, 0));
	p += seal_frame(p, FRAME_END, END_LEN, END_LEN, 1);
	return dump_load(dump_b, out, (size_t)(p - out), DUMP_SMALL);
}

#define FILE_MODE (S_IFREG | 0644)
#define DIR_MODE  (S_IFDIR | 0755)

/* A root directory with one file in it, whose number is 16. */
static void with_file(struct hostile *h, uint64_t size)
{
	put_inode(h, 1, DIR_MODE, 2, 1, 1);
	put_entry(h, "file", 16, S_IFREG);
	put_inode(h, 16, FILE_MODE, 1, size, 0);
}

static const uint8_t bad_acl[] = { 2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255 };

static void lie(struct hostile *h, unsigned which)
{
	switch (which) {
	case 0:  put_inode(h, 16, FILE_MODE, 1, 0, 0); break;
	case 1:  put_inode(h, 1, FILE_MODE, 1, 0, 0); break;
	case 2:  put_inode(h, 1, DIR_MODE, 2, 0, 7); break;
	case 3:  put_inode(h, 1, DIR_MODE, 3, 0, 1); break;
	case 4:  put_inode(h, 1, DIR_MODE, 2, 1, 1); break;
	case 5:  with_file(h, 0); put_inode(h, 16, FILE_MODE, 1, 0, 0); break;
	case 6:  with_file(h, 0); put_inode(h, 17, FILE_MODE, 1, 0, 0); break;
	case 7:  with_file(h, 0); put_inode(h, 15, FILE_MODE, 1, 0, 0); break;
	case 8:  put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "x", 16, S_IFREG); break;
	case 9:  put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "x", 16, S_IFIFO);
		 put_inode(h, 16, FILE_MODE, 1, 0, 0); break;
	case 10: put_inode(h, 1, DIR_MODE, 2, 2, 1); put_entry(h, "x", 16, S_IFREG); put_entry(h, "x", 16, S_IFREG);
		 put_inode(h, 16, FILE_MODE, 2, 0, 0); break;
	case 11: put_inode(h, 1, DIR_MODE, 2, 2, 1); put_entry(h, "y", 16, S_IFREG); put_entry(h, "x", 16, S_IFREG);
		 put_inode(h, 16, FILE_MODE, 2, 0, 0); break;
	case 12: put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "a/b", 16, S_IFREG);
		 put_inode(h, 16, FILE_MODE, 1, 0, 0); break;
	case 13: put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "..", 16, S_IFREG);
		 put_inode(h, 16, FILE_MODE, 1, 0, 0); break;
	case 14: put_inode(h, 1, DIR_MODE, 4, 2, 1); put_entry(h, "a", 16, S_IFDIR); put_entry(h, "b", 16, S_IFDIR);
		 put_inode(h, 16, DIR_MODE, 2, 0, 1); break;
	case 15: put_inode(h, 1, DIR_MODE, 3, 1, 1); put_entry(h, "a", 16, S_IFDIR);
		 put_inode(h, 16, DIR_MODE, 2, 0, 16); break;
	/* Two directories in each other, the root empty. */
	case 16: put_inode(h, 1, DIR_MODE, 2, 0, 1);
		 put_inode(h, 16, DIR_MODE, 3, 1, 17); put_entry(h, "a", 17, S_IFDIR);
		 put_inode(h, 17, DIR_MODE, 3, 1, 16); put_entry(h, "b", 16, S_IFDIR); break;
	/* A directory in itself. */
	case 17: put_inode(h, 1, DIR_MODE, 2, 0, 1);
		 put_inode(h, 16, DIR_MODE, 3, 1, 16); put_entry(h, "a", 16, S_IFDIR); break;
	/* The root in a directory. */
	case 18: put_inode(h, 1, DIR_MODE, 3, 1, 1); put_entry(h, "a", 16, S_IFDIR);
		 put_inode(h, 16, DIR_MODE, 3, 1, 1); put_entry(h, "b", 1, S_IFDIR); break;
	case 19: with_file(h, 10); put_data(h, 0, 11); break;
	case 20: with_file(h, 10); put_data(h, 4096, 4096); break;
	case 21: with_file(h, 9000); put_data(h, 100, 4096); break;
	case 22: with_file(h, 9000); put_data(h, 4096, 4096); put_data(h, 0, 4096); break;
	case 23: with_file(h, 9000); put_data(h, 0, 100); break;
	case 24: with_file(h, 9000); put_unwritten(h, 0, 4097); break;
	case 25: with_file(h, 9000); put_unwritten(h, UINT64_MAX - 4095, 4096); break;
	case 26: with_file(h, 9000); put_unwritten(h, 4096, UINT64_MAX - 4095); break;
	case 27: with_file(h, 0); put_unwritten(h, 0, (uint64_t)1 << 62); break;       /* no disk is that large */
	case 28: with_file(h, UINT64_MAX); break;
	case 29: with_file(h, 0); put_entry(h, "x", 16, S_IFREG); break;
	case 30: with_file(h, 0); put_xattr(h, "system.posix_acl_access", bad_acl, sizeof bad_acl); break;
	case 31: with_file(h, 0); put_xattr(h, "user.b", "1", 1); put_xattr(h, "user.a", "2", 1); break;
	case 32: with_file(h, 0); put_xattr(h, "", "1", 1); break;
	case 33: with_file(h, 0); put_le32(put_item(h, STREAM_XATTR, SX_LEN + 9) + SX_VALUE_LEN, 1u << 30); break;
	case 34: with_file(h, 0); put_item(h, 99, 16); break;
	case 35: with_file(h, 0); put_item(h, STREAM_ENTRY, 3); break;
	case 36: with_file(h, 0); put_item(h, STREAM_DATA, 3); break;
	case 37: with_file(h, 0); put_item(h, STREAM_INODE, 50); break;
	case 38: with_file(h, 0); h->len -= 20; break;
	case 39: put_data(h, 0, 4096); break;
	case 40: put_unwritten(h, 0, 4096); break;
	case 41: put_xattr(h, "user.a", "1", 1); break;
	case 42: put_entry(h, "a", 16, S_IFREG); break;
	case 43: with_file(h, 0); h->next_ino = 16; break;
	case 44: with_file(h, 0); h->next_ino = UINT64_MAX; break;
	case 45: with_file(h, 0); h->counts.inodes++; break;
	case 46: put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "l", 16, S_IFLNK);
		 put_inode(h, 16, S_IFLNK | 0777, 1, 20, 0); break;
	case 47: put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "l", 16, S_IFLNK);
		 put_inode(h, 16, S_IFLNK | 0777, 1, 0, 0); break;
	case 48: put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "l", 16, S_IFIFO);
		 put_inode(h, 16, S_IFIFO | 0777, 1, 20, 0); break;
	case 49: put_inode(h, 1, DIR_MODE, 2, 0, 1); put_le32(h->raw + ITEM_HEADER + SI_NSEC, 1000000000); break;
	case 50: put_inode(h, 1, DIR_MODE, 2, 0, 1); put_le32(h->raw + ITEM_HEADER + SI_FLAGS, 2); break;
	case 51: put_inode(h, 1, DIR_MODE, 2, 0, 1); put_le32(h->raw + ITEM_HEADER + SI_FLAGS, 1); break;
	case 52: put_inode(h, 1, DIR_MODE | 0200000, 2, 0, 1); break;
	case 53: put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "f", 16, S_IFREG);
		 put_inode(h, 16, FILE_MODE, 0, 0, 0); break;
	case 54: with_file(h, 20); put_le32(h->raw + h->len - SI_LEN + SI_FLAGS, 1); put_data(h, 0, 20); break;
	default: fail();
	}
}
#define LIES 55u

/* A file with an attribute, and contents of both kinds. */
static void honest(struct hostile *h)
{
	memset(h, 0, sizeof *h);
	with_file(h, 9000);
	put_xattr(h, "user.a", "1", 1);
	put_data(h, 0, 4096);
	put_unwritten(h, 4096, 4096);
	put_data(h, 8192, 808);
}

static void test_stream_bad__hostile_streams(void **state)
{
	struct hostile *h = malloc(sizeof *h);
	unsigned i;

	(void)state;
	assert_non_null(h);
	/* What the lies are made of is well when it does not lie. */
	honest(h);
	put_unwritten(h, 12288, 409600);
	ok(load_hostile(h));
	assert_int_equal(unlink(dump_b), 0);
	for (i = 0; i < LIES; i++) {
		int r;

		memset(h, 0, sizeof *h);
		lie(h, i);
		r = load_hostile(h);
		if (r != (i == 27 ? -ENOSPC : -EUCLEAN) || *err_last() == '\0' || dump_files() != 0)
			fail_msg("lie %u: %d '%s', %u files left", i, r, err_last(), dump_files());
	}
	free(h);
}

/* Random changes inside frames whose checksums are made right again: an error or a store, never a crash. */
static void test_stream_bad__random_lies(void **state)
{
	struct hostile *h = malloc(sizeof *h), *good = malloc(sizeof *h);
	unsigned i, j;

	(void)state;
	assert_non_null(h);
	assert_non_null(good);
	random_restart(dump_seed);
	honest(good);
	for (i = 0; i < 300; i++) {
		*h = *good;
		for (j = 0; j <= rnd(3); j++)
			/* Not the data: they may be anything. */
			h->raw[rnd(4) ? rnd(300) : rnd(h->len)] ^= (uint8_t)(1u << rnd(8));
		if (load_hostile(h) == 0) {
			ok(keys_close(dump_open(dump_b, false)));
			assert_int_equal(unlink(dump_b), 0);
		}
		assert_int_equal(dump_files(), 0);
	}
	free(h);
	free(good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_stream_bad__cut_short, dump_fresh),
		cmocka_unit_test_setup(test_stream_bad__flipped_bits, dump_fresh),
		cmocka_unit_test_setup(test_stream_bad__frames_out_of_place, dump_fresh),
		cmocka_unit_test_setup(test_stream_bad__garbage, dump_fresh),
		cmocka_unit_test_setup(test_stream_bad__a_newer_version, dump_fresh),
		cmocka_unit_test_setup(test_stream_bad__hostile_streams, dump_fresh),
		cmocka_unit_test_setup(test_stream_bad__random_lies, dump_fresh),
	};

	if (dump_begin() < 0)
		return 1;
	return dump_end(cmocka_run_group_tests_name("stream_bad", tests, NULL, NULL));
}
