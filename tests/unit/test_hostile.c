/* SPDX-License-Identifier: MIT
 *
 * hostile: stores that were made wrong on purpose, with every checksum right. What tests/fuzz looks for at random, one of
 * each kind: the call that meets it says so, nothing else is harmed, and the store can be opened again.
 */
#include "tests/unit/image_util.h"
#include "tests/unit/scratch_util.h"

#include "core/keys/keys_int.h"
#include "core/store/salvage.h"
#include "core/store/store_int.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define FAN_LEVELS 6u

static char path[SCRATCH_PATH];
static const struct keys_cred cred = { 0, 0, 022 };
static struct keys *k;
static uint64_t a_ino, b_ino, sub;
static struct image im;

static void fill(uint8_t *block, uint64_t ino, uint64_t fblock)
{
	memset(block, (int)(ino * 16 + fblock), BLOCK_SIZE);
}

static int open_again(void)
{
	const struct store_options o = { .path = path, .create = true, .max_bytes = 8u << 20 };

	return keys_open(&o, &k);
}

static void close_store(void)
{
	assert_int_equal(keys_close(k), 0);
	k = NULL;
}

static uint64_t make_file(const char *name)
{
	struct keys_attr a;
	uint8_t data[4 * BLOCK_SIZE];
	size_t n;
	unsigned i;

	assert_int_equal(keys_make(k, KEYS_ROOT_INO, name, strlen(name), S_IFREG | 0644, 0, &cred, &a), 0);
	for (i = 0; i < 4; i++)
		fill(data + i * BLOCK_SIZE, a.ino, i);
	assert_int_equal(keys_write(k, a.ino, 0, data, sizeof data, false, &n), 0);
	return a.ino;
}

static int setup(void **state)
{
	struct keys_attr a;
	char value[3000] = "value";

	(void)state;
	assert_int_equal(scratch_make_on_disk("hostile"), 0);
	scratch_path(path, "store");
	assert_int_equal(open_again(), 0);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, "sub", 3, S_IFDIR | 0755, 0, &cred, &a), 0);
	sub = a.ino;
	a_ino = make_file("a");
	b_ino = make_file("b");
	assert_int_equal(keys_setxattr(k, a_ino, "user.long", value, sizeof value, 0, false), 0);
	close_store();
	image_open(&im, path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (k)
		(void)keys_close(k);
	k = NULL;
	return scratch_remove();
}

/* The image is done: open it as a store. */
static void go(void)
{
	image_close(&im);
	if (open_again() < 0)
		fail_msg("%s", err_last());
}

static int read_block_of(uint64_t ino, uint64_t fblock, uint8_t *out)
{
	struct iovec iov[2];
	size_t bytes = 0;
	int n = 0, r = keys_read(k, ino, fblock << BLOCK_SHIFT, BLOCK_SIZE, iov, 2, &n, &bytes);

	if (r == 0) {
		assert_int_equal(n, 1);
		memcpy(out, iov[0].iov_base, bytes);
	}
	return r;
}

static void assert_reads(uint64_t ino, uint64_t fblock)
{
	uint8_t got[BLOCK_SIZE], want[BLOCK_SIZE];

	assert_int_equal(read_block_of(ino, fblock, got), 0);
	fill(want, ino, fblock);
	assert_memory_equal(got, want, BLOCK_SIZE);
}

static struct extent get_extent(uint64_t ino)
{
	struct extent e;
	uint8_t *leaf;
	uint32_t len;
	struct key key = item_key(ino, ITEM_EXTENT, 0);
	const uint8_t *v = image_item(&im, key, &len, &leaf);

	assert_int_equal(extent_decode(v, len, key, &e), 0);
	return e;
}

static void put_extent(uint64_t ino, const struct extent *e)
{
	uint8_t *leaf;
	uint32_t len;
	uint8_t *v = image_item(&im, item_key(ino, ITEM_EXTENT, 0), &len, &leaf);

	extent_encode(v, e);
	image_seal(&im, leaf);
}

static void test_hostile__contents_of_another_file_are_not_shown(void **state)
{
	struct extent a, b;
	uint8_t got[BLOCK_SIZE];

	(void)state;
	/* a names b's blocks, with the checksums that b's extent has. */
	a = get_extent(a_ino);
	b = get_extent(b_ino);
	a.block = b.block;
	memcpy(a.csums, b.csums, sizeof a.csums);
	put_extent(a_ino, &a);
	go();
	assert_int_equal(read_block_of(a_ino, 0, got), -EUCLEAN);
	assert_int_equal(read_block_of(a_ino, 3, got), -EUCLEAN);
	assert_reads(b_ino, 0);
	assert_reads(b_ino, 3);
	close_store();
}

static void test_hostile__blocks_in_another_order_are_not_shown(void **state)
{
	struct extent a;
	uint8_t got[BLOCK_SIZE], block[BLOCK_SIZE], c[4];

	(void)state;
	a = get_extent(a_ino);
	memcpy(block, image_block(&im, a.block), BLOCK_SIZE);
	memcpy(image_block(&im, a.block), image_block(&im, a.block + 1), BLOCK_SIZE);
	memcpy(image_block(&im, a.block + 1), block, BLOCK_SIZE);
	memcpy(c, a.csums, 4);
	memmove(a.csums, a.csums + 4, 4);
	memcpy(a.csums + 4, c, 4);
	put_extent(a_ino, &a);
	go();
	assert_int_equal(read_block_of(a_ino, 0, got), -EUCLEAN);
	assert_int_equal(read_block_of(a_ino, 1, got), -EUCLEAN);
	assert_reads(a_ino, 2);
	close_store();
}

/* An extent of one unwritten block far behind the file's contents. */
static void add_unwritten(block_t block)
{
	struct extent e = { .fblock = 100, .block = block, .count = 1, .gen = 1, .flags = EXTENT_UNWRITTEN };
	uint8_t item[EXTENT_HEADER];

	extent_encode(item, &e);
	image_add(&im, item_key(a_ino, ITEM_EXTENT, 100), item, sizeof item);
}

static void assert_unwritten_refused(block_t block)
{
	static uint8_t data[8 * BLOCK_SIZE];
	uint8_t before[BLOCK_SIZE], *p;
	size_t n;

	memset(data, 'x', sizeof data);
	memcpy(before, image_block(&im, block), BLOCK_SIZE);
	add_unwritten(block);
	go();
	assert_int_equal(keys_write(k, a_ino, 100 * BLOCK_SIZE + 5, data, 10, false, &n), -EUCLEAN);
	assert_int_equal(keys_write(k, a_ino, 98 * BLOCK_SIZE, data, sizeof data, false, &n), -EUCLEAN);
	p = map_block(&keys_store(k)->map, block);
	assert_memory_equal(p, before, BLOCK_SIZE);
	/* Nothing else is harmed. */
	assert_int_equal(store_failed(keys_store(k)), 0);
	assert_int_equal(keys_write(k, b_ino, 9 * BLOCK_SIZE, data, 100, false, &n), 0);
	close_store();
	assert_int_equal(open_again(), 0);
	assert_reads(b_ino, 1);
	close_store();
}

static void test_hostile__unwritten_blocks_that_are_free_are_not_written(void **state)
{
	(void)state;
	assert_unwritten_refused(im.blocks - 3);
}

static void test_hostile__unwritten_blocks_of_the_journal_are_not_written(void **state)
{
	(void)state;
	assert_unwritten_refused(im.sb.segs[im.sb.seg_count - 1] + 9);
}

static void assert_not_opened(const char *words)
{
	image_close(&im);
	assert_int_equal(open_again(), -EUCLEAN);
	if (!strstr(err_last(), words))
		fail_msg("\"%s\" instead of \"%s\"", err_last(), words);
	k = NULL;
}

static void test_hostile__journal_segment_on_free_blocks_is_refused(void **state)
{
	(void)state;
	im.sb.segs[1] = im.blocks - 70;
	image_write_super(&im);
	assert_not_opened("is marked as free");
}

static void move_root(block_t b)
{
	page_copy(image_block(&im, b), image_block(&im, im.sb.root.block), b, im.sb.root.gen);
	image_seal(&im, image_block(&im, b));
	im.sb.root.block = b;
	image_write_super(&im);
}

static void test_hostile__root_in_the_journal_is_refused(void **state)
{
	(void)state;
	move_root(im.sb.segs[1] + 10);
	assert_not_opened("reserved blocks");
}

static void test_hostile__root_on_a_bitmap_is_refused(void **state)
{
	block_t b = 2;

	(void)state;
	while (b == image_bitmap(&im, 0))
		b++;
	move_root(b);
	assert_not_opened("reserved blocks");
}

/* A page at b: `first`, then one and the same child as often as it fits. */
static block_t fan(block_t b, unsigned level, block_t first, block_t rest)
{
	uint8_t *p = image_block(&im, b);
	gen_t gen = im.sb.root.gen;
	unsigned i;

	page_init(p, b, gen, super_store_id(&im.sb), level);
	inner_insert(p, 0, (struct key){ 0, 0 }, first, gen);
	inner_insert(p, 1, item_key(1, ITEM_XATTR, 0), rest, gen);
	for (i = 2; i < INNER_MAX; i++)
		inner_insert(p, i, (struct key){ UINT64_MAX, i }, rest, gen);
	image_seal(&im, p);
	return b;
}

static block_t one_item(block_t b, struct key key, const void *value, uint32_t len)
{
	uint8_t *leaf = image_block(&im, b);

	page_init(leaf, b, im.sb.root.gen, super_store_id(&im.sb), 0);
	memcpy(leaf_insert(leaf, 0, key, len), value, len);
	image_seal(&im, leaf);
	return b;
}

/* A leaf with one attribute, named 125 times on each of some levels: a walk over it would not end in a lifetime. */
static void test_hostile__pages_named_many_times_end_a_walk(void **state)
{
	const struct store_options o = { .path = path, .read_only = true };
	struct keys_attr attr = { .mode = S_IFDIR | 0755, .nlink = 2, .aux = 1, .flags = KEYS_ATTR_XATTR };
	uint8_t x[XATTR_HEADER + 6] = { 6, 0, 0, 0, 0, 0, 0, 0, 'u', 's', 'e', 'r', '.', 'x' }, inode[INODE_SIZE];
	block_t b = im.blocks - 40, first, rest, above;
	unsigned level;
	size_t len;

	(void)state;
	inode_encode(inode, &attr);
	first = one_item(b++, item_key(1, ITEM_INODE, 0), inode, sizeof inode);
	rest = one_item(b++, item_key(1, ITEM_XATTR, 0x10000), x, sizeof x);
	for (level = 1; level <= FAN_LEVELS; level++) {
		above = fan(b++, level, rest, rest);
		first = fan(b++, level, first, rest);
		rest = above;
	}
	im.sb.root = (struct tree_root){ first, im.sb.root.gen, FAN_LEVELS };
	image_write_super(&im);
	image_close(&im);
	(void)alarm(20);
	assert_int_equal(keys_open(&o, &k), 0);
	assert_int_equal(keys_listxattr(k, 1, NULL, 0, &len), -EUCLEAN);
	close_store();
	(void)alarm(0);
}

static int take_all(void *ctx, const struct keys_dirent *e)
{
	(void)ctx;
	(void)e;
	return 0;
}

/* A listing that goes on behind the cookie 1 would meet it again and again. */
static void test_hostile__entry_with_the_cookie_of_a_dot_ends_a_listing(void **state)
{
	uint8_t item[DIRENT_HEADER + 1];

	(void)state;
	dirent_encode(item, a_ino, S_IFREG, "x", 1);
	image_add(&im, item_key(sub, ITEM_DIRENT, 1), item, sizeof item);
	go();
	assert_int_equal(keys_readdir(k, sub, 0, take_all, NULL), -EUCLEAN);
	assert_int_equal(keys_readdir(k, KEYS_ROOT_INO, 0, take_all, NULL), 0);
	close_store();
}

static void test_hostile__number_of_an_inode_is_not_given_again(void **state)
{
	struct keys_attr a;

	(void)state;
	im.sb.next_ino = a_ino;
	image_write_super(&im);
	go();
	assert_int_equal(keys_make(k, sub, "new", 3, S_IFREG | 0644, 0, &cred, &a), -EUCLEAN);
	assert_int_equal(keys_symlink(k, sub, "new", 3, "x", 1, &cred, &a), -EUCLEAN);
	assert_reads(a_ino, 2);
	assert_int_equal(keys_link(k, a_ino, sub, "other", 5, &a), -EUCLEAN);
	close_store();
	assert_int_equal(open_again(), 0);
	assert_reads(a_ino, 2);
	close_store();
}

static void test_hostile__rotten_block_written_in_part(void **state)
{
	struct keys_setattr set = { .mask = KEYS_SET_SIZE, .size = BLOCK_SIZE + 7 };
	struct extent a;
	struct keys_attr attr;
	uint8_t data[BLOCK_SIZE], got[BLOCK_SIZE];
	size_t n;

	(void)state;
	a = get_extent(a_ino);
	image_block(&im, a.block + 1)[5] ^= 1;
	memset(data, 'n', sizeof data);
	go();
	/* Refused, and not in the journal, where it could never be applied. */
	assert_int_equal(keys_write(k, a_ino, BLOCK_SIZE + 100, data, 100, false, &n), -EUCLEAN);
	assert_int_equal(keys_write(k, a_ino, 100, data, BLOCK_SIZE, false, &n), -EUCLEAN);
	assert_int_equal(keys_setattr(k, a_ino, &set, &attr), -EUCLEAN);
	assert_int_equal(keys_fallocate(k, a_ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10, BLOCK_SIZE + 10, 0), -EUCLEAN);
	assert_int_equal(store_failed(keys_store(k)), 0);
	/* All of it anew: then it is whole. */
	assert_int_equal(keys_write(k, a_ino, BLOCK_SIZE, data, BLOCK_SIZE, false, &n), 0);
	assert_int_equal(keys_write(k, a_ino, BLOCK_SIZE + 100, data, 100, false, &n), 0);
	close_store();
	assert_int_equal(open_again(), 0);
	assert_int_equal(read_block_of(a_ino, 1, got), 0);
	assert_memory_equal(got, data, BLOCK_SIZE);
	assert_reads(a_ino, 0);
	close_store();
}

static void test_hostile__full_counters_refuse_a_change(void **state)
{
	struct keys_attr attr;
	uint8_t *leaf, *v;
	uint32_t len;

	(void)state;
	v = image_item(&im, item_key(sub, ITEM_INODE, 0), &len, &leaf);
	assert_int_equal(inode_decode(v, len, sub, &attr), 0);
	attr.size = KEYS_SIZE_MAX;
	inode_encode(v, &attr);
	image_seal(&im, leaf);
	go();
	assert_int_equal(keys_make(k, sub, "new", 3, S_IFREG | 0644, 0, &cred, &attr), -EUCLEAN);
	assert_int_equal(store_failed(keys_store(k)), 0);
	assert_int_equal(keys_make(k, KEYS_ROOT_INO, "new", 3, S_IFREG | 0644, 0, &cred, &attr), 0);
	close_store();
	assert_int_equal(open_again(), 0);
	close_store();
}

static void test_hostile__attribute_without_its_parts_can_be_removed(void **state)
{
	uint64_t h = hash64("user.long", 9, im.sb.hash_seed) & ((1ull << 40) - 1);
	char value[4000];
	size_t len;

	(void)state;
	image_remove(&im, item_key(a_ino, ITEM_XATTR, h << 16 | 1));
	go();
	assert_int_equal(keys_getxattr(k, a_ino, "user.long", value, sizeof value, &len), -EUCLEAN);
	assert_int_equal(keys_removexattr(k, a_ino, "user.long"), 0);
	assert_int_equal(keys_getxattr(k, a_ino, "user.long", value, sizeof value, &len), -ENODATA);
	close_store();
	assert_int_equal(open_again(), 0);
	close_store();
}

/* Nothing that is done with such a file may be in the journal if applying it fails: no opening would get past it. */
static void remove_file(const char *name)
{
	uint64_t ino;
	uint32_t nlink;
	int r;

	assert_int_equal(keys_unlink(k, KEYS_ROOT_INO, name, strlen(name), &ino, &nlink), 0);
	while ((r = keys_reap(k, ino)) > 0)
		;
	assert_int_equal(r, 0);
}

/* As after kill -9: what was done is in the journal. */
static void kill_and_open(void)
{
	scratch_kill(k, path);
	if (open_again() < 0)
		fail_msg("%s", err_last());
}

static int truncate_file(uint64_t ino, uint64_t size)
{
	const struct keys_setattr set = { .mask = KEYS_SET_SIZE, .size = size };
	struct keys_attr a;

	return keys_setattr(k, ino, &set, &a);
}

static void place_extent(uint64_t ino, block_t block)
{
	struct extent e = get_extent(ino);

	e.block = block;
	put_extent(ino, &e);
}

static void test_hostile__blocks_that_cannot_be_freed(void **state)
{
	static const block_t places[] = { 1ull << 50, UINT64_MAX - 1, 0, SUPER_COPY - 2, 2046 };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(places) + 2; i++) {
		block_t block = i < ARRAY_LEN(places) ? places[i] : i == ARRAY_LEN(places) ? im.sb.segs[0] : get_extent(b_ino).block;

		place_extent(a_ino, block);
		go();
		assert_int_equal(truncate_file(a_ino, BLOCK_SIZE), 0);
		kill_and_open();
		remove_file("a");
		/* Its blocks may be free by now, if they were those of a. */
		remove_file("b");
		kill_and_open();
		b_ino = make_file("b");
		assert_reads(b_ino, 0);
		close_store();
		(void)teardown(state);
		assert_int_equal(setup(state), 0);
	}
	image_close(&im);
}

static void add_extent(uint64_t ino, uint64_t fblock)
{
	uint8_t item[ITEM_MAX];
	struct extent e = get_extent(ino);

	e.fblock = fblock;
	extent_encode(item, &e);
	image_add(&im, item_key(ino, ITEM_EXTENT, fblock), item, extent_item_len(e.count, 0));
}

static void add_garbage(uint64_t ino)
{
	uint8_t *leaf, *v;
	uint32_t len;

	add_extent(ino, 100);
	v = image_item(&im, item_key(ino, ITEM_EXTENT, 100), &len, &leaf);
	put_le16(v + 16, 60000);        /* blocks */
	image_seal(&im, leaf);
}

/* All of the extent before it is replaced, and what is new would be joined to what stands before. */
static void test_hostile__write_before_an_extent_that_cannot_be(void **state)
{
	static const uint8_t data[4 * BLOCK_SIZE] = { 1 };
	size_t n;

	(void)state;
	add_extent(a_ino, 50);
	add_garbage(a_ino);
	image_remove(&im, item_key(a_ino, ITEM_EXTENT, 0));
	go();
	assert_int_equal(keys_write(k, a_ino, 50 * BLOCK_SIZE, data, sizeof data, false, &n), 0);
	assert_int_equal(store_failed(keys_store(k)), 0);
	kill_and_open();
	assert_reads(b_ino, 0);
	close_store();
}

static void test_hostile__contents_that_leave_an_inode_with_extents(void **state)
{
	uint8_t *leaf, *v;
	struct keys_attr a;
	uint32_t len;
	size_t n;

	(void)state;
	v = image_item(&im, item_key(a_ino, ITEM_INODE, 0), &len, &leaf);
	assert_int_equal(inode_decode(v, len, a_ino, &a), 0);
	a.flags |= KEYS_ATTR_INLINE;
	inode_encode(v, &a);
	image_seal(&im, leaf);
	add_garbage(a_ino);
	go();
	assert_int_equal(keys_write(k, a_ino, 80 * BLOCK_SIZE, "x", 1, false, &n), -EUCLEAN);
	assert_int_equal(keys_fallocate(k, a_ino, 0, 80 * BLOCK_SIZE, 10 * BLOCK_SIZE, 0), -EUCLEAN);
	assert_int_equal(store_failed(keys_store(k)), 0);
	assert_int_equal(keys_write(k, a_ino, 0, "x", 1, false, &n), 0);
	kill_and_open();
	assert_reads(b_ino, 0);
	close_store();
}

static void test_hostile__extent_that_cannot_be(void **state)
{
	(void)state;
	add_garbage(a_ino);
	go();
	assert_int_equal(truncate_file(a_ino, 0), -EUCLEAN);
	assert_int_equal(store_failed(keys_store(k)), 0);
	kill_and_open();
	assert_reads(a_ino, 0);
	remove_file("a");
	kill_and_open();
	assert_reads(b_ino, 0);
	close_store();
}

/* Records ---------------------------------------------------------------------------------------------------------- */

static struct record rec;

static void add_map(uint64_t ino, uint64_t fblock, uint32_t index)
{
	uint8_t *p = record_mutation(&rec, MUT_MAP, 24);

	put_le64(p, ino);
	put_le64(p + 8, fblock);
	put_le32(p + 16, index);
	put_le32(p + 20, 0);
}

static int is_whole(void)
{
	struct record_reader reader;

	assert_int_equal(record_open(&reader, rec.buf, rec.len), 0);
	return keys_whole(k, &reader);
}

static void begin_record(const struct extent *e)
{
	uint8_t *csums;

	record_begin(&rec, CHANGE_WRITE, 0, 1);
	(void)record_extent(&rec, e->block, e->count, EXT_FRESH | EXT_DATA, &csums);
	memcpy(csums, e->csums, 4 * e->count);
}

static void test_hostile__record_is_whole_for_its_own_file_only(void **state)
{
	struct extent e;
	struct record_reader reader;
	uint8_t *p;

	(void)state;
	e = get_extent(a_ino);
	go();
	assert_int_equal(record_init(&rec), 0);
	begin_record(&e);
	add_map(a_ino, 0, 0);
	assert_int_equal(is_whole(), 1);
	begin_record(&e);
	add_map(b_ino, 0, 0);
	assert_int_equal(is_whole(), 0);
	begin_record(&e);
	add_map(a_ino, 1, 0);
	assert_int_equal(is_whole(), 0);
	begin_record(&e);
	add_map(a_ino, 0, 0);
	add_map(a_ino, 0, 0);
	assert_int_equal(is_whole(), -EUCLEAN);
	/* Extents are put by MAP only. */
	record_begin(&rec, CHANGE_WRITE, 0, 1);
	p = record_mutation(&rec, MUT_PUT, 16 + EXTENT_HEADER + 4 * e.count);
	put_le64(p, item_key(b_ino, ITEM_EXTENT, 0).hi);
	put_le64(p + 8, 50);
	extent_encode(p + 16, &e);
	assert_int_equal(record_open(&reader, rec.buf, rec.len), 0);
	assert_int_equal(keys_apply(k, &reader, rec.buf), -EUCLEAN);
	record_release(&rec);
	close_store();
}

/* Each of its blocks would be read for each record, before anybody finds that they are in use. */
static void test_hostile__journal_that_names_the_same_blocks_again_and_again(void **state)
{
	char killed[SCRATCH_PATH];
	struct store_options o = { .path = killed, .read_only = true };
	struct extent e;
	const uint8_t *at;
	unsigned i, n;

	(void)state;
	scratch_path(killed, "killed");
	e = get_extent(a_ino);
	go();
	assert_int_equal(record_init(&rec), 0);
	for (n = 0; n < 100; n++) {
		record_begin(&rec, CHANGE_WRITE, 0, 1);
		for (i = 0; i < 32; i++) {
			uint8_t *csums;

			(void)record_extent(&rec, e.block, e.count, EXT_FRESH | EXT_DATA, &csums);
			memcpy(csums, e.csums, 4 * e.count);
		}
		for (i = 0; i < 32; i++)
			add_map(a_ino, 0, i);
		assert_false(rec.overflow);
		assert_int_equal(journal_append(&keys_store(k)->journal, rec.buf, rec.len, 0, &at), 0);
	}
	record_release(&rec);
	scratch_copy(path, killed);
	assert_int_equal(keys_abandon(k), 0);
	assert_int_equal(keys_open(&o, &k), -EUCLEAN);
	k = NULL;
	assert_non_null(strstr(err_last(), "names more blocks"));
}

/* What a record says is a file's unwritten blocks is another file's contents: in what is salvaged nobody has marked them. */
static void test_hostile__what_is_salvaged_is_not_written_over(void **state)
{
	struct store_salvage v = { .say = NULL };
	const struct store_options o = { .path = path, .read_only = true, .salvage = &v };
	struct record_reader reader;
	uint8_t got[BLOCK_SIZE], want[BLOCK_SIZE] = "hello";
	struct extent e;
	uint8_t *p;
	unsigned i;

	(void)state;
	e = get_extent(b_ino);
	image_close(&im);
	assert_int_equal(keys_open(&o, &k), 0);
	assert_int_equal(record_init(&rec), 0);
	record_begin(&rec, CHANGE_WRITE, 0, 1);
	(void)record_extent(&rec, e.block, e.count, EXT_FRESH, NULL);
	add_map(a_ino, 0, 0);
	put_le32(rec.buf + rec.len - 4, MAP_UNWRITTEN);
	p = record_mutation(&rec, MUT_DATA, 16 + 5);
	put_le64(p, a_ino);
	put_le64(p + 8, 0);
	memcpy(p + 16, want, 5);
	assert_int_equal(record_open(&reader, rec.buf, rec.len), 0);
	assert_int_equal(keys_apply_rest(k, &reader, rec.buf), 0);
	assert_int_equal(v.damage, 0);
	record_release(&rec);
	for (i = 0; i < e.count; i++)
		assert_reads(b_ino, i);
	assert_int_equal(read_block_of(a_ino, 0, got), 0);
	assert_memory_equal(got, want, BLOCK_SIZE);
	salvage_release(&v);
	close_store();
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_hostile__contents_of_another_file_are_not_shown),
		T(test_hostile__blocks_in_another_order_are_not_shown),
		T(test_hostile__unwritten_blocks_that_are_free_are_not_written),
		T(test_hostile__unwritten_blocks_of_the_journal_are_not_written),
		T(test_hostile__journal_segment_on_free_blocks_is_refused),
		T(test_hostile__root_in_the_journal_is_refused),
		T(test_hostile__root_on_a_bitmap_is_refused),
		T(test_hostile__pages_named_many_times_end_a_walk),
		T(test_hostile__entry_with_the_cookie_of_a_dot_ends_a_listing),
		T(test_hostile__number_of_an_inode_is_not_given_again),
		T(test_hostile__rotten_block_written_in_part),
		T(test_hostile__full_counters_refuse_a_change),
		T(test_hostile__attribute_without_its_parts_can_be_removed),
		T(test_hostile__blocks_that_cannot_be_freed),
		T(test_hostile__write_before_an_extent_that_cannot_be),
		T(test_hostile__contents_that_leave_an_inode_with_extents),
		T(test_hostile__extent_that_cannot_be),
		T(test_hostile__record_is_whole_for_its_own_file_only),
		T(test_hostile__journal_that_names_the_same_blocks_again_and_again),
		T(test_hostile__what_is_salvaged_is_not_written_over),
	};

	return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}
