/* SPDX-License-Identifier: MIT
 *
 * check: clean stores are clean, in every state a store can be in; damage of any byte that a checksum covers is found;
 * and so is damage behind whole checksums, each kind by its name.
 *
 *   SEED=n   replays the random parts
 */
#include "tests/unit/fill_util.h"
#include "tests/unit/findings_util.h"
#include "tests/unit/image_util.h"
#include "tests/unit/ok_util.h"
#include "tests/unit/random_util.h"
#include "tests/unit/scratch_util.h"

#include "core/keys/keys_int.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define BIG_SIZE  (3u << 20)

static char path[SCRATCH_PATH];
static uint64_t seed;

/* What make_store() made. */
static struct {
	uint64_t sub, deep, small, big, sparse, hard, symlink, longlink, attrs, device, fallocated, deleted_dir;
} ino;

/* Findings ---------------------------------------------------------------------------------------------------------- */

static int verify(struct keys *k, bool snapshot, struct check_report *rep)
{
	const struct check_options o = { .snapshot = snapshot, .problem = findings_keep };

	findings_forget();
	return check_run(k, &o, rep);
}

/* Open the store as the command does and check it: its findings, -1 if it cannot be opened. */
static int64_t findings_as(bool snapshot)
{
	const struct store_options o = { .path = path, .read_only = true, .snapshot = snapshot };
	struct check_report rep;
	struct keys *k;
	int r;

	if (keys_open(&o, &k) < 0) {
		findings_forget();
		findings_keep(NULL, err_last());
		return -1;
	}
	r = verify(k, snapshot, &rep);
	assert_int_equal(keys_close(k), 0);
	assert_int_equal(r, 0);
	return (int64_t)rep.problems;
}

static int64_t findings(void)
{
	return findings_as(false);
}

static void assert_snapshot_clean(const char *when)
{
	int64_t n = findings_as(true);

	if (n != 0)
		fail_msg("%s, snapshot: %lld findings (SEED=%llu):\n%s", when, (long long)n,
			 (unsigned long long)seed, findings_text());
}

static void assert_clean(const char *when)
{
	int64_t n = findings();

	if (n != 0)
		fail_msg("%s: %lld findings (SEED=%llu):\n%s", when, (long long)n, (unsigned long long)seed, findings_text());
	assert_snapshot_clean(when);
}

/* One of the findings has these words. */
static void assert_named(const char *words)
{
	int64_t n = findings();

	if (n <= 0 || !findings_have(words))
		fail_msg("\"%s\" is not among the %lld findings:\n%s", words, (long long)n, findings_text());
}

/* Stores ------------------------------------------------------------------------------------------------------------ */

/* The same in every run: the tests that edit items rely on which of them share a leaf, and that follows the seed of the
 * name hash. */
static int fixed_random(void *ctx, void *buf, size_t len)
{
	static uint64_t state = 0x9e3779b97f4a7c15ull;
	uint8_t *p = buf;

	(void)ctx;
	while (len-- > 0) {
		state = state * 6364136223846793005ull + 1442695040888963407ull;
		*p++ = (uint8_t)(state >> 56);
	}
	return 0;
}

static struct keys *open_store(void)
{
	struct sys_ops sys = sys_linux;
	const struct store_options o = { .path = path, .create = true, .max_bytes = 64u << 20, .sys = &sys };
	struct keys *k;
	int r;

	sys.random = fixed_random;
	r = keys_open(&o, &k);

	if (r < 0)
		fail_msg("keys_open: %d: %s", r, err_last());
	return k;
}

static void fill_store(struct keys *k)
{
	char name[300];
	struct keys_attr a;
	struct keys_setattr set = { .mask = KEYS_SET_SIZE, .size = 5000 };
	uint64_t file;
	int i;

	ino.sub = fill_make(k, KEYS_ROOT_INO, "sub", S_IFDIR | 0755);
	ino.deep = fill_make(k, ino.sub, "deep", S_IFDIR | 02755);
	for (i = 0; i < 600; i++) {
		(void)snprintf(name, sizeof name, "file %d", i);
		file = fill_make(k, i % 2 ? ino.sub : ino.deep, name, S_IFREG | 0644);
		fill_bytes(k, file, 0, (size_t)(i * 13) % 3000);
	}
	memset(name, 'n', 255);
	name[255] = '\0';
	(void)fill_make(k, ino.sub, name, S_IFREG | 0600);
	ino.small = fill_make(k, ino.deep, "small", S_IFREG | 0644);
	fill_bytes(k, ino.small, 0, 100);
	ino.big = fill_make(k, ino.deep, "big", S_IFREG | 0644);
	fill_bytes(k, ino.big, 0, BIG_SIZE);
	fill_bytes(k, ino.big, 1234567, 99);
	ino.sparse = fill_make(k, KEYS_ROOT_INO, "sparse", S_IFREG | 0644);
	fill_bytes(k, ino.sparse, 1u << 20, 5000);
	fill_bytes(k, ino.sparse, 1ull << 40, 10000);
	ok(keys_fallocate(k, ino.sparse, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (1u << 20) + 100, 3000, 0));
	file = fill_make(k, KEYS_ROOT_INO, "cut", S_IFREG | 0644);
	fill_bytes(k, file, 0, 50000);
	ok(keys_setattr(k, file, &set, &a));
	ino.fallocated = fill_make(k, KEYS_ROOT_INO, "fallocated", S_IFREG | 0644);
	ok(keys_fallocate(k, ino.fallocated, 0, 0, 300000, 0));
	fill_bytes(k, ino.fallocated, 8192, 20000);
	ok(keys_fallocate(k, ino.fallocated, FALLOC_FL_KEEP_SIZE, 300000, 100000, 0));
	ino.hard = fill_make(k, ino.sub, "hard", S_IFREG | 0644);
	fill_link(k, ino.hard, ino.deep, "link");
	fill_link(k, ino.hard, KEYS_ROOT_INO, "link");
	ino.symlink = fill_symlink(k, ino.sub, "symlink", 10);
	ino.longlink = fill_symlink(k, ino.sub, "longlink", 3000);
	ino.device = fill_make(k, ino.sub, "device", S_IFCHR | 0600);
	(void)fill_make(k, ino.sub, "fifo", S_IFIFO | 0600);
	ino.attrs = fill_make(k, ino.sub, "attrs", S_IFREG | 0644);
	fill_xattr(k, ino.attrs, "user.empty", 0);
	fill_xattr(k, ino.attrs, "user.exact", 1024 - 10);
	fill_xattr(k, ino.attrs, "user.long", 65536);
	fill_xattr(k, ino.attrs, "user.gone", 5000);
	ok(keys_removexattr(k, ino.attrs, "user.gone"));
	fill_acl(k, ino.attrs, ACL_ACCESS_NAME);
	fill_acl(k, ino.sub, ACL_DEFAULT_NAME);
	(void)fill_make(k, ino.sub, "inherits", S_IFREG | 0666);
	(void)fill_make(k, ino.sub, "inherits too", S_IFDIR | 0777);
}

static void make_store(void)
{
	struct keys *k = open_store();
	struct check_report rep;

	fill_store(k);
	assert_int_equal(verify(k, false, &rep), 0);
	if (rep.problems)
		fail_msg("live: %s", findings_text());
	ok(keys_close(k));
	/* Once more, so that both superblocks were written in the run of a store with contents. */
	ok(keys_close(open_store()));
	assert_clean("closed");
}

static int setup(void **ctx)
{
	(void)ctx;
	if (scratch_make("check") < 0)
		return -1;
	scratch_path(path, "store");
	random_restart(seed);
	return 0;
}

/* Clean stores ------------------------------------------------------------------------------------------------------ */

static void test_check__new_store_is_clean(void **ctx)
{
	struct keys *k = open_store();
	struct check_report rep;

	(void)ctx;
	assert_int_equal(verify(k, false, &rep), 0);
	assert_string_equal(findings_text(), "");
	assert_int_equal(rep.inodes, 1);
	ok(keys_close(k));
	assert_clean("new");
	/* Opened and closed without a change. */
	k = open_store();
	ok(keys_close(k));
	assert_clean("opened again");
}

static void test_check__full_store_is_clean(void **ctx)
{
	const struct store_options o = { .path = path, .read_only = true };
	struct check_report rep;
	struct keys *k;

	(void)ctx;
	make_store();
	assert_int_equal(keys_open(&o, &k), 0);
	assert_int_equal(verify(k, false, &rep), 0);
	assert_int_equal(rep.inodes, 600 + 17);
	assert_int_equal(rep.names, 600 + 16 + 2);
	assert_true(rep.content_blocks >= BIG_SIZE / BLOCK_SIZE + 5);
	assert_true(rep.tree_pages > 50);
	assert_int_equal(rep.seq, store_seq(keys_store(k)));
	assert_false(rep.incomplete);
	ok(keys_close(k));
}

/* Names come and go; orphans remain, whole and partly reaped. */
static void test_check__orphans_are_clean(void **ctx)
{
	uint64_t gone, orphan;
	uint32_t nlink;
	struct keys *k;
	int i;

	(void)ctx;
	make_store();
	k = open_store();
	orphan = fill_make(k, KEYS_ROOT_INO, "orphan", S_IFREG | 0644);
	for (i = 0; i < 600; i++)       /* every second block: more extents than one REAP takes */
		fill_bytes(k, orphan, (uint64_t)i * 2 * BLOCK_SIZE, 4096);
	fill_xattr(k, orphan, "user.long", 20000);
	ok(keys_unlink(k, KEYS_ROOT_INO, "orphan", 6, &gone, &nlink));
	assert_int_equal(nlink, 0);
	ok(keys_unlink(k, KEYS_ROOT_INO, "sparse", 6, &gone, &nlink));
	gone = fill_make(k, ino.sub, "removed", S_IFDIR | 0755);
	ok(keys_rmdir(k, ino.sub, "removed", 7, &gone));
	ok(store_checkpoint(keys_store(k)));
	assert_snapshot_clean("orphans");
	assert_int_equal(keys_reap(k, orphan), 1);
	ok(store_checkpoint(keys_store(k)));
	assert_snapshot_clean("an orphan partly reaped");
	while ((i = keys_reap(k, orphan)) > 0)
		;
	ok(i);
	ok(store_checkpoint(keys_store(k)));
	assert_snapshot_clean("reaped");
	ok(keys_close(k));
	assert_clean("closed");
}

/* As kill -9: the writer is gone, its last checkpoint is old, the journal has the rest. */
static void killed_writer(unsigned steps)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct keys *k = open_store();
		char name[32];
		unsigned i;

		for (i = 0; i < steps; i++) {
			uint64_t file, gone;
			uint32_t nlink;

			(void)snprintf(name, sizeof name, "k%u", (unsigned)random_below(200));
			if (keys_unlink(k, KEYS_ROOT_INO, name, strlen(name), &gone, &nlink) == 0 && i % 2)
				while (keys_reap(k, gone) > 0)
					;
			else if (keys_lookup(k, KEYS_ROOT_INO, name, strlen(name), &(struct keys_attr){ 0 }) < 0) {
				file = fill_make(k, KEYS_ROOT_INO, name, S_IFREG | 0644);
				fill_bytes(k, file, random_below(100000), 1 + random_below(30000));
			}
			if (random_below(100) == 0)
				ok(store_checkpoint(keys_store(k)));
		}
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_check__after_kill_is_clean(void **ctx)
{
	int i;

	(void)ctx;
	make_store();
	for (i = 0; i < 6; i++) {
		(void)random_below(2);
		killed_writer((unsigned)(40 + random_below(400)));
		assert_clean("killed");
	}
	ok(keys_close(open_store()));
	assert_clean("recovered");
}

/* Directories that shrink and grow again shift the bounds of inner pages. */
static void test_check__deleted_and_made_again_is_clean(void **ctx)
{
	struct keys *k = open_store();
	struct check_report rep;
	char name[32];
	int round, i;

	(void)ctx;
	for (round = 0; round < 4; round++) {
		for (i = 0; i < 12000; i++) {
			(void)snprintf(name, sizeof name, "%d.%d", round, i);
			(void)fill_make(k, KEYS_ROOT_INO, name, S_IFREG | 0644);
		}
		assert_int_equal(verify(k, false, &rep), 0);
		if (rep.problems)
			fail_msg("round %d, made:\n%.2000s", round, findings_text());
		for (i = 0; i < 12000; i++) {
			uint64_t gone;
			uint32_t nlink;

			(void)snprintf(name, sizeof name, "%d.%d", round, i);
			ok(keys_unlink(k, KEYS_ROOT_INO, name, strlen(name), &gone, &nlink));
			while (keys_reap(k, gone) > 0)
				;
		}
		assert_int_equal(verify(k, false, &rep), 0);
		if (rep.problems)
			fail_msg("round %d, removed:\n%.2000s", round, findings_text());
	}
	ok(keys_close(k));
	assert_clean("closed");
}

#define REMOVED 8000u

static char (*removed)[32];
static unsigned removed_count;

static int take_name(void *ctx, const struct keys_dirent *e)
{
	(void)ctx;
	if (e->name[0] == '.')
		return 0;
	(void)snprintf(removed[removed_count++], sizeof *removed, "%.*s", (int)e->len, e->name);
	return removed_count == REMOVED;
}

/* Part of a directory removed in the order of the tree, as rm -r does: leaves become empty from the left on, then those
 * that stay must take in what belongs before their old first key. */
static void test_check__removed_in_order_is_clean(void **ctx)
{
	struct keys *k = open_store();
	struct check_report rep;
	uint64_t where = fill_make(k, KEYS_ROOT_INO, "where", S_IFDIR | 0755);
	char name[32];
	unsigned i;

	(void)ctx;
	for (i = 0; i < 20000; i++) {
		(void)snprintf(name, sizeof name, "name.%u", i);
		(void)fill_make(k, where, name, S_IFREG | 0644);
	}
	removed = calloc(REMOVED, sizeof *removed);
	assert_non_null(removed);
	removed_count = 0;
	ok(keys_readdir(k, where, 0, take_name, NULL));
	for (i = 0; i < removed_count; i++) {
		uint64_t gone;
		uint32_t nlink;

		ok(keys_unlink(k, where, removed[i], strlen(removed[i]), &gone, &nlink));
	}
	free(removed);
	for (i = 0; i < 20000; i++) {
		(void)snprintf(name, sizeof name, "again.%u", i);
		(void)fill_make(k, where, name, S_IFREG | 0644);
	}
	assert_int_equal(verify(k, false, &rep), 0);
	if (rep.problems)
		fail_msg("made again:\n%.2000s", findings_text());
	ok(keys_close(k));
	assert_clean("closed");
}

/* A reader beside the writer sees its checkpoint, whatever the writer does meanwhile. */
static void test_check__snapshot_beside_a_writer_is_clean(void **ctx)
{
	const struct store_options o = { .path = path, .read_only = true, .snapshot = true };
	struct check_report rep;
	struct keys *k, *reader;
	uint64_t file, gone;
	uint32_t nlink;
	int i;

	(void)ctx;
	make_store();
	k = open_store();
	assert_int_equal(keys_open(&(struct store_options){ .path = path, .read_only = true }, &reader), -EBUSY);
	assert_int_equal(keys_open(&o, &reader), 0);
	for (i = 0; i < 5; i++) {
		int r;

		file = fill_make(k, KEYS_ROOT_INO, "meanwhile", S_IFREG | 0644);
		fill_bytes(k, file, 0, 1000000);
		ok(store_checkpoint(keys_store(k)));
		r = verify(reader, true, &rep);
		if (r == -EAGAIN) {
			/* Overtaken: a new snapshot is as good. */
			ok(keys_close(reader));
			assert_int_equal(keys_open(&o, &reader), 0);
			r = verify(reader, true, &rep);
		}
		assert_int_equal(r, 0);
		if (rep.problems)
			fail_msg("checkpoint %d:\n%s", i, findings_text());
		ok(keys_unlink(k, KEYS_ROOT_INO, "meanwhile", 9, &gone, &nlink));
		while (keys_reap(k, gone) > 0)
			;
	}
	ok(keys_close(reader));
	ok(keys_close(k));
	assert_clean("closed");
}

static int cancel(void *ctx, uint64_t at, uint64_t total)
{
	(void)ctx;
	assert_true(at <= total);
	return 1;
}

static void test_check__progress_can_cancel(void **ctx)
{
	const struct check_options o = { .progress = cancel };
	struct check_report rep;
	struct keys *k;

	(void)ctx;
	make_store();
	k = open_store();
	assert_int_equal(check_run(k, &o, &rep), -ECANCELED);
	ok(keys_close(k));
}

/* Flipped bits ------------------------------------------------------------------------------------------------------ */

static block_t *covered;
static size_t covered_count, covered_room;

static void cover(block_t b)
{
	if (covered_count == covered_room) {
		covered_room = covered_room ? 2 * covered_room : 1024;
		covered = realloc(covered, covered_room * sizeof *covered);
		assert_non_null(covered);
	}
	covered[covered_count++] = b;
}

static void cover_page(void *ctx, const struct image *im, uint8_t *page)
{
	unsigned i, b;

	(void)ctx;
	(void)im;
	cover(get_le64(page + PAGE_BLOCK));
	for (i = 0; page_level(page) == 0 && i < page_count(page); i++) {
		struct extent e;
		uint32_t len;
		const uint8_t *v = leaf_value(page, i, &len);

		if ((page_key(page, i).hi & 0xff) != ITEM_EXTENT || page_key(page, i).hi >> 8 == 0)
			continue;
		assert_int_equal(extent_decode(v, len, page_key(page, i), &e), 0);
		for (b = 0; !(e.flags & EXTENT_UNWRITTEN) && b < e.count; b++)
			cover(e.block + b);
	}
}

static void cover_all(const struct image *im)
{
	covered_count = 0;
	cover(0);
	cover(1);
	cover(image_bitmap(im, 0));
	image_pages(im, cover_page, NULL);
}

static void flip_and_check(const struct image *im, block_t b, unsigned byte, unsigned bit)
{
	uint8_t *p = image_block(im, b) + byte;

	*p ^= (uint8_t)(1u << bit);
	if (findings() == 0)
		fail_msg("SEED=%llu: bit %u of byte %u of block %llu (first bytes %.4s) was flipped: not found",
			 (unsigned long long)seed, bit, byte, (unsigned long long)b, (char *)image_block(im, b));
	*p ^= (uint8_t)(1u << bit);
}

static void test_check__any_flipped_bit_is_found(void **ctx)
{
	struct image im;
	unsigned i;

	(void)ctx;
	make_store();
	image_open(&im, path);
	cover_all(&im);
	for (i = 0; i < 300; i++)
		flip_and_check(&im, covered[random_below(covered_count)], (unsigned)random_below(BLOCK_SIZE),
			       (unsigned)random_below(8));
	/* Most blocks are contents: metadata once more, and its headers. */
	for (i = 0; i < 300; i++) {
		block_t b = covered[random_below(min_u64(covered_count, 40))];

		flip_and_check(&im, b, (unsigned)random_below(i % 2 ? BLOCK_SIZE : 48), (unsigned)random_below(8));
	}
	image_close(&im);
	assert_clean("all put back");
}

/* Many bytes of whole blocks: a finding each time, never a crash. */
static void test_check__overwritten_blocks_are_found(void **ctx)
{
	uint8_t kept[BLOCK_SIZE];
	struct image im;
	unsigned i, n;

	(void)ctx;
	make_store();
	image_open(&im, path);
	cover_all(&im);
	for (i = 0; i < 60; i++) {
		block_t b = covered[random_below(i % 2 ? covered_count : 40)], from;
		uint8_t *p = image_block(&im, b);

		memcpy(kept, p, BLOCK_SIZE);
		switch (i % 3) {
		case 0:
			memset(p, i % 2 ? 0xff : 0, BLOCK_SIZE);
			break;
		case 1:
			for (n = 0; n < BLOCK_SIZE; n++)
				p[n] = (uint8_t)random_below(256);
			break;
		default:
			/* A write that went to the wrong place. */
			do
				from = covered[random_below(40)];
			while (from == b);
			memcpy(p, image_block(&im, from), BLOCK_SIZE);
			break;
		}
		if (memcmp(kept, p, BLOCK_SIZE) != 0 && findings() == 0)
			fail_msg("SEED=%llu: block %llu was overwritten: not found", (unsigned long long)seed,
				 (unsigned long long)b);
		memcpy(p, kept, BLOCK_SIZE);
	}
	image_close(&im);
	assert_clean("all put back");
}

/* Tree pages with garbage in them whose checksums are right: anything may be found, nothing may crash or hang. */
static void test_check__hostile_pages_do_no_harm(void **ctx)
{
	struct image im;
	uint8_t kept[BLOCK_SIZE];
	unsigned i, n;

	(void)ctx;
	make_store();
	image_open(&im, path);
	cover_all(&im);
	for (i = 0; i < 400; i++) {
		uint8_t *p;

		do
			p = image_block(&im, covered[3 + random_below(covered_count - 3)]);
		while (get_le32(p) != PAGE_MAGIC);
		memcpy(kept, p, BLOCK_SIZE);
		for (n = 1 + (unsigned)random_below(4); n > 0; n--) {
			unsigned at = (unsigned)random_below(BLOCK_SIZE);

			/* Most bytes of an entry are plausible: small changes go further than large ones. */
			if (random_below(2))
				p[at] ^= (uint8_t)(1u << random_below(8));
			else
				p[at] = image_block(&im, covered[random_below(40)])[random_below(BLOCK_SIZE)];
		}
		image_seal(&im, p);
		(void)findings();
		memcpy(p, kept, BLOCK_SIZE);
	}
	image_close(&im);
	assert_clean("all put back");
}

/* Damage behind whole checksums ------------------------------------------------------------------------------------- */

static struct image im;

static void begin_damage(void)
{
	make_store();
	image_open(&im, path);
}

/* The attributes of an inode, changed. */
static void damage_attr(uint64_t n, void (*change)(struct keys_attr *a))
{
	struct keys_attr a;
	uint8_t *leaf, *v;
	uint32_t len;

	v = image_item(&im, item_key(n, ITEM_INODE, 0), &len, &leaf);
	assert_int_equal(inode_decode(v, len, n, &a), 0);
	change(&a);
	inode_encode(v, &a);
	image_seal(&im, leaf);
}

static void more_links(struct keys_attr *a) { a->nlink++; }
static void no_links(struct keys_attr *a) { a->nlink = 0; }
static void more_blocks(struct keys_attr *a) { a->blocks += 3; }
static void bigger(struct keys_attr *a) { a->size++; }
static void smaller(struct keys_attr *a) { a->size -= 5; }
static void other_parent(struct keys_attr *a) { a->aux = 424242; }
static void file_parent(struct keys_attr *a) { a->aux = ino.small; }
static void parent_is_child(struct keys_attr *a) { a->aux = ino.deep; }
static void no_acl_flag(struct keys_attr *a) { a->flags &= ~KEYS_ATTR_ACL; }
static void no_xattr_flag(struct keys_attr *a) { a->flags &= ~KEYS_ATTR_XATTR; }
static void other_mode(struct keys_attr *a) { a->mode ^= 0070; }
static void becomes_fifo(struct keys_attr *a) { a->mode = S_IFIFO | 0644; }
static void is_inline(struct keys_attr *a) { a->flags |= KEYS_ATTR_INLINE; }

static void test_check__wrong_attributes_are_named(void **ctx)
{
	const struct {
		const uint64_t *ino;
		void (*change)(struct keys_attr *a);
		const char *words;
	} cases[] = {
		{ &ino.hard, more_links, "has link count 4, but 3 names" },
		{ &ino.small, no_links, "has link count 0, but is not listed as an orphan" },
		{ &ino.deep, more_links, "has link count 3, but 0 subdirectories" },
		{ &ino.sub, bigger, "its size says" },
		{ &ino.big, more_blocks, "blocks, it has 768" },
		{ &ino.deep, other_parent, "whose \"..\" is inode 424242" },
		{ &ino.deep, file_parent, "which is no directory" },
		{ &ino.sub, parent_is_child, "is below itself, not below the root" },
		{ &ino.attrs, no_acl_flag, "its flags and its ACLs do not agree" },
		{ &ino.attrs, no_xattr_flag, "has extended attributes, but its flags deny it" },
		{ &ino.attrs, other_mode, "is not what its ACL says" },
		{ &ino.big, is_inline, "has its contents in the inode, but an extent" },
		{ &ino.big, becomes_fifo, "is no file, but has an extent" },
		{ &ino.big, smaller, "has contents behind the end of the file" },
		{ &ino.small, smaller, "has 100 bytes in its inode, but is 95 bytes long" },
		{ &ino.symlink, smaller, "its target is not all there" },
		{ &ino.device, bigger, "is a special file, but has a size" },
	};
	size_t i;

	(void)ctx;
	make_store();
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		uint8_t kept[BLOCK_SIZE], *leaf;
		unsigned at;
		bool exists;

		image_open(&im, path);
		leaf = image_leaf(&im, item_key(*cases[i].ino, ITEM_INODE, 0), &at, &exists);
		memcpy(kept, leaf, BLOCK_SIZE);
		/* A page of contents with zeros behind the end does not show it: big ends on a block. */
		damage_attr(*cases[i].ino, cases[i].change);
		assert_named(cases[i].words);
		memcpy(leaf, kept, BLOCK_SIZE);
		image_close(&im);
	}
	assert_clean("all put back");
}

/* The key of a name. */
static struct key entry_key(uint64_t where, const char *name)
{
	uint64_t h = hash64(name, strlen(name), im.sb.hash_seed) & ((1ull << 54) - 1);

	return item_key(where, ITEM_DIRENT, h << 8);
}

static void test_check__entry_to_missing_inode_is_named(void **ctx)
{
	uint8_t *leaf, *v;
	uint32_t len;

	(void)ctx;
	begin_damage();
	v = image_item(&im, entry_key(ino.deep, "small"), &len, &leaf);
	put_le64(v, 99999);
	image_seal(&im, leaf);
	image_close(&im);
	assert_named("entry \"small\" names inode 99999, which does not exist");
	assert_named("has link count 1, but 0 names");
}

static void test_check__entry_with_wrong_type_is_named(void **ctx)
{
	uint8_t *leaf, *v;
	uint32_t len;

	(void)ctx;
	begin_damage();
	v = image_item(&im, entry_key(ino.deep, "small"), &len, &leaf);
	v[8] = S_IFLNK >> 12;
	image_seal(&im, leaf);
	image_close(&im);
	assert_named("entry \"small\" says type 0120000");
}

static void test_check__renamed_entry_is_named(void **ctx)
{
	uint8_t *leaf, *v;
	uint32_t len;

	(void)ctx;
	begin_damage();
	v = image_item(&im, entry_key(ino.deep, "small"), &len, &leaf);
	v[DIRENT_HEADER] = 'S';
	image_seal(&im, leaf);
	image_close(&im);
	assert_named("is not where its hash belongs");
}

static void test_check__missing_entry_is_named(void **ctx)
{
	(void)ctx;
	begin_damage();
	image_remove(&im, entry_key(KEYS_ROOT_INO, "sub"));
	image_close(&im);
	assert_named("has no name");
	assert_named("its size says 5 entries, it has 4");
}

static void test_check__second_name_of_a_directory_is_named(void **ctx)
{
	uint8_t *leaf, *v;
	uint32_t len;

	(void)ctx;
	begin_damage();
	v = image_item(&im, entry_key(ino.deep, "small"), &len, &leaf);
	put_le64(v, ino.sub);
	v[8] = S_IFDIR >> 12;
	image_seal(&im, leaf);
	image_close(&im);
	assert_named("entry \"small\" names directory");
}

static void test_check__duplicate_name_is_named(void **ctx)
{
	struct key k;
	uint8_t *leaf, *v, kept[300];
	uint32_t len;

	(void)ctx;
	begin_damage();
	k = entry_key(ino.deep, "small");
	v = image_item(&im, k, &len, &leaf);
	memcpy(kept, v, len);
	k.lo++;
	image_add(&im, k, kept, len);
	image_close(&im);
	assert_named("the name \"small\" is there twice");
	assert_named("has link count 1, but 2 names");
}

static void test_check__missing_inode_is_named(void **ctx)
{
	(void)ctx;
	begin_damage();
	image_remove(&im, item_key(ino.attrs, ITEM_INODE, 0));
	image_close(&im);
	assert_named("does not exist, but something in the tree belongs to it");
	assert_named("entry \"attrs\" names inode");
	assert_named("the superblock counts");
}

static void test_check__orphan_items_are_named(void **ctx)
{
	(void)ctx;
	begin_damage();
	image_add(&im, (struct key){ KIND_ORPHAN, ino.small }, NULL, 0);
	image_add(&im, (struct key){ KIND_ORPHAN, 77777 }, NULL, 0);
	image_close(&im);
	assert_named("is listed as an orphan, but has link count 1");
	assert_named("inode 77777 is listed as an orphan but does not exist");
}

/* The first extent of a file at or behind a file block. */
static uint8_t *first_extent(uint64_t file, uint64_t fblock, struct extent *e, uint8_t **ret_leaf)
{
	unsigned i;
	bool exists;
	uint32_t len;

	*ret_leaf = image_leaf(&im, item_key(file, ITEM_EXTENT, fblock), &i, &exists);
	assert_true(i < page_count(*ret_leaf));
	assert_int_equal(page_key(*ret_leaf, i).hi, item_key(file, ITEM_EXTENT, 0).hi);
	(void)leaf_value(*ret_leaf, i, &len);
	assert_int_equal(extent_decode(leaf_value(*ret_leaf, i, &len), len, page_key(*ret_leaf, i), e), 0);
	return *ret_leaf + (leaf_value(*ret_leaf, i, &len) - *ret_leaf);
}

static void test_check__block_used_twice_is_named(void **ctx)
{
	struct extent big, e;
	uint8_t *leaf, *v;

	(void)ctx;
	begin_damage();
	(void)first_extent(ino.big, 256, &big, &leaf);
	v = first_extent(ino.sparse, 1ull << 28, &e, &leaf);
	e.block = big.block;
	memcpy(e.csums, big.csums, 4 * e.count);
	extent_encode(v, &e);
	image_seal(&im, leaf);
	image_close(&im);
	assert_named("which is used twice");
	assert_named("are leaked");
}

/* A tree that was made on purpose: each of its extents costs a page's third, and would have a MiB read. */
static void test_check__blocks_used_many_times_are_read_twice_at_most(void **ctx)
{
	struct check_report before, rep;
	uint8_t value[ITEM_MAX], *v;
	struct extent e;
	uint64_t i, most;
	const uint8_t *p;
	struct keys *k;
	struct tree *t;
	uint32_t len;

	(void)ctx;
	make_store();
	k = open_store();
	t = store_tree(keys_store(k));
	assert_int_equal(contents_find(k, ino.big, 256, &e), 0);
	assert_int_equal(tree_get(t, item_key(ino.big, ITEM_EXTENT, e.fblock), &p, &len), 0);
	memcpy(value, p, len);
	assert_int_equal(verify(k, false, &before), 0);
	most = 2 * store_space(keys_store(k))->total;
	for (i = 0; i <= most / e.count; i++) {
		assert_int_equal(store_poll(keys_store(k)), 0);
		assert_int_equal(tree_put_place(t, item_key(ino.sparse, ITEM_EXTENT, (1ull << 28) + (i + 1) * 1000), len, &v), 0);
		memcpy(v, value, len);
	}
	assert_int_equal(verify(k, false, &rep), 0);
	assert_true(rep.problems > most / e.count);
	assert_true(rep.content_blocks > before.content_blocks);
	assert_true(rep.content_blocks <= most);
	assert_int_equal(keys_close(k), 0);
}

static void test_check__extent_outside_is_named(void **ctx)
{
	struct extent e;
	uint8_t *leaf, *v;

	(void)ctx;
	begin_damage();
	v = first_extent(ino.sparse, 1ull << 28, &e, &leaf);
	e.block = im.blocks - 1;
	extent_encode(v, &e);
	image_seal(&im, leaf);
	assert_named("lies outside the store or on reserved blocks");
	e.block = 2;
	extent_encode(v, &e);
	image_seal(&im, leaf);
	image_close(&im);
	assert_named("lies outside the store or on reserved blocks");
}

static void test_check__overlapping_extents_are_named(void **ctx)
{
	struct extent e;
	uint8_t *leaf, *v;

	(void)ctx;
	begin_damage();
	/* Unwritten extents stand before and behind a written one. One more block in the first. */
	v = first_extent(ino.fallocated, 0, &e, &leaf);
	assert_true(e.flags & EXTENT_UNWRITTEN);
	e.count++;
	extent_encode(v, &e);
	image_seal(&im, leaf);
	image_close(&im);
	assert_named("overlaps the one before");
}

static void test_check__contents_are_named_with_their_path(void **ctx)
{
	struct extent e;
	uint8_t *leaf;

	(void)ctx;
	begin_damage();
	(void)first_extent(ino.big, 0, &e, &leaf);
	image_block(&im, e.block + 2)[77] ^= 4;
	image_block(&im, e.block + 3)[0] ^= 4;
	image_close(&im);
	assert_named("(/sub/deep/big): contents at bytes 8192 to 16383 (block");
	assert_int_equal(findings(), 1);
}

static void test_check__xattr_parts_are_named(void **ctx)
{
	uint64_t h;

	(void)ctx;
	begin_damage();
	h = hash64("user.long", 9, im.sb.hash_seed) & ((1ull << 40) - 1);
	image_remove(&im, item_key(ino.attrs, ITEM_XATTR, h << 16 | 64));
	image_close(&im);
	assert_named("an extended attribute has 64 of 65 parts");
	image_open(&im, path);
	image_remove(&im, item_key(ino.attrs, ITEM_XATTR, h << 16 | 0));
	image_close(&im);
	assert_named("part 1 of an extended attribute does not belong to one");
}

static void test_check__leaked_blocks_are_named(void **ctx)
{
	char words[64];
	block_t b;

	(void)ctx;
	begin_damage();
	for (b = im.blocks - 1; image_block(&im, image_bitmap(&im, 0))[SLOT_BITS + b / 8] & 1u << b % 8; b--)
		;
	image_mark(&im, b, true);
	(void)snprintf(words, sizeof words, "blocks %llu to %llu (byte", (unsigned long long)b, (unsigned long long)b);
	assert_named(words);
	assert_named("are leaked: marked as in use, but nothing uses them");
	assert_int_equal(findings(), 1);
	image_mark(&im, b, false);
	image_close(&im);
	assert_clean("put back");
}

static void test_check__block_marked_free_is_named(void **ctx)
{
	struct extent e;
	uint8_t *leaf;

	(void)ctx;
	begin_damage();
	(void)first_extent(ino.big, 0, &e, &leaf);
	image_mark(&im, e.block, false);
	image_close(&im);
	assert_named("are in use, but marked as free");
}

static void test_check__superblock_counters_are_named(void **ctx)
{
	(void)ctx;
	begin_damage();
	im.sb.used_blocks++;
	image_write_super(&im);
	assert_named("blocks in use, the bitmaps mark");
	im.sb.used_blocks--;
	im.sb.inodes += 2;
	image_write_super(&im);
	assert_named("inodes, there are");
	im.sb.inodes -= 2;
	im.sb.next_ino = 100;
	image_write_super(&im);
	assert_named("its number was not given out yet");
	image_close(&im);
}

static void test_check__page_in_a_wrong_place_is_named(void **ctx)
{
	uint8_t *root;
	block_t block;
	gen_t gen;

	(void)ctx;
	begin_damage();
	root = image_block(&im, im.sb.root.block);
	assert_true(page_level(root) > 0 && page_count(root) > 3);
	inner_child(root, 1, &block, &gen);
	inner_set_child(root, 2, block, gen);
	image_seal(&im, root);
	image_close(&im);
	assert_named("is used twice");
}

static void test_check__damaged_superblock_is_named(void **ctx)
{
	(void)ctx;
	begin_damage();
	image_close(&im);
	for (unsigned i = 0; i < SUPER_PLACES; i++) {
		char words[64];

		image_open(&im, path);
		image_block(&im, super_place(i))[100] ^= 1;
		image_close(&im);
		(void)snprintf(words, sizeof words, "superblock %u (block %u, byte %u) is damaged", i % SUPERS,
			       (unsigned)super_place(i), (unsigned)super_place(i) * BLOCK_SIZE);
		assert_named(words);
		assert_int_equal(findings(), 1);
		ok(keys_close(open_store()));
		assert_clean("the next mount writes it anew");
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, scratch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_check__new_store_is_clean),
		T(test_check__full_store_is_clean),
		T(test_check__orphans_are_clean),
		T(test_check__after_kill_is_clean),
		T(test_check__deleted_and_made_again_is_clean),
		T(test_check__removed_in_order_is_clean),
		T(test_check__snapshot_beside_a_writer_is_clean),
		T(test_check__progress_can_cancel),
		T(test_check__any_flipped_bit_is_found),
		T(test_check__overwritten_blocks_are_found),
		T(test_check__hostile_pages_do_no_harm),
		T(test_check__wrong_attributes_are_named),
		T(test_check__entry_to_missing_inode_is_named),
		T(test_check__entry_with_wrong_type_is_named),
		T(test_check__renamed_entry_is_named),
		T(test_check__missing_entry_is_named),
		T(test_check__second_name_of_a_directory_is_named),
		T(test_check__duplicate_name_is_named),
		T(test_check__missing_inode_is_named),
		T(test_check__orphan_items_are_named),
		T(test_check__block_used_twice_is_named),
		T(test_check__blocks_used_many_times_are_read_twice_at_most),
		T(test_check__extent_outside_is_named),
		T(test_check__overlapping_extents_are_named),
		T(test_check__contents_are_named_with_their_path),
		T(test_check__xattr_parts_are_named),
		T(test_check__leaked_blocks_are_named),
		T(test_check__block_marked_free_is_named),
		T(test_check__superblock_counters_are_named),
		T(test_check__page_in_a_wrong_place_is_named),
		T(test_check__damaged_superblock_is_named),
	};
	int r;

	seed = random_seed();
	r = cmocka_run_group_tests_name("check", tests, NULL, NULL);
	free(covered);
	return r;
}
