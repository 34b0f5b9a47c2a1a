/* SPDX-License-Identifier: MIT
 *
 * test_salvage_lead: what leads to the rest is damaged, and the rest is whole. All four superblocks: the tree is found by
 * its pages. A NEXT record of the journal: the segments behind it are found by their headers, and mounting refuses rather
 * than take it for the journal's end. And a file that is too large to be mapped.
 *
 *   SALVAGE_FULL=1   every page of the tree, not only some
 *   SEED=n           replays the choice
 */
#include "tests/unit/image_util.h"
#include "tests/unit/view_util.h"

#include "core/check/check.h"
#include "core/keys/keys_int.h"
#include "core/salvage/salvage.h"
#include "core/store/journal.h"
#include "core/store/store.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define NEXTS_MAX 64u
#define TEXT_MAX  (1u << 16)

static char dir[64], path[96], new_path[96];
static uint64_t seed, rng;
static bool full;
static const struct keys_cred cred = { 0, 0, 022 };
static struct keys *k;
static struct view good;
static struct image im;
static char text[TEXT_MAX];

static uint64_t random_below(uint64_t n)
{
	rng = rng * 6364136223846793005ull + 1442695040888963407ull;
	return (rng >> 33) % n;
}

static void done(int r, int line)
{
	if (r < 0)
		fail_msg("SEED=%llu, line %d: %d: %s", (unsigned long long)seed, line, r, err_last());
}
#define ok(r) done((r), __LINE__)

/* A store to damage ------------------------------------------------------------------------------------------------- */

static uint64_t make(uint64_t where, const char *name, uint32_t mode)
{
	struct keys_attr a;

	ok(keys_make(k, where, name, strlen(name), mode, 0, &cred, &a));
	return a.ino;
}

static void write_bytes(uint64_t file, uint64_t off, size_t len)
{
	static uint8_t data[1 << 18];
	size_t n, i;

	assert_true(len <= sizeof data);
	for (i = 0; i < len; i++)
		data[i] = (uint8_t)(file * 31 + (off + i) / 7);
	for (i = 0; i < len; i += n)
		ok(keys_write(k, file, off + i, data + i, len - i, false, &n));
}

static void some_files(uint64_t where, unsigned count)
{
	char name[96];
	unsigned i;

	for (i = 0; i < count; i++) {
		uint64_t file;

		(void)snprintf(name, sizeof name, "file %u, with a name long enough to make the tree a high one", i);
		file = make(where, name, S_IFREG | 0644);
		write_bytes(file, i % 5 ? 0 : 100000, i * 101 % 9000 + 1);
		if (i % 9 == 0)
			ok(keys_setxattr(k, file, "user.tag", name, 90, 0, false));
	}
}

static void remove_file(uint64_t where, const char *name)
{
	uint64_t ino;
	uint32_t nlink;

	ok(keys_unlink(k, where, name, strlen(name), &ino, &nlink));
	while (nlink == 0 && keys_reap(k, ino) > 0)
		;
}

/* Every checkpoint leaves pages that look as good as those in force. */
static void make_closed_store(void)
{
	const struct store_options o = { .path = path, .create = true, .max_bytes = 32u << 20 };
	char name[32];
	unsigned i;

	ok(keys_open(&o, &k));
	some_files(make(KEYS_ROOT_INO, "one", S_IFDIR | 0755), 150);
	for (i = 0; i < 6; i++) {
		(void)snprintf(name, sizeof name, "gone %u", i);
		write_bytes(make(KEYS_ROOT_INO, name, S_IFREG | 0600), 0, 900 * (i + 1));
		ok(store_checkpoint(keys_store(k)));
		if (i > 0) {
			(void)snprintf(name, sizeof name, "gone %u", i - 1);
			remove_file(KEYS_ROOT_INO, name);
		}
		ok(store_checkpoint(keys_store(k)));
	}
	some_files(make(KEYS_ROOT_INO, "two", S_IFDIR | 0700), 50);
	ok(view_take(&good, k, false));
	ok(keys_close(k));
}

static void copy_file(const char *from, const char *to)
{
	static uint8_t bytes[1 << 20];
	FILE *f = fopen(from, "rb"), *g = fopen(to, "wb");
	size_t n;

	assert_true(f && g);
	while ((n = fread(bytes, 1, sizeof bytes, f)) > 0)
		assert_int_equal(fwrite(bytes, 1, n, g), n);
	assert_int_equal(fclose(g), 0);
	(void)fclose(f);
}

/* The process "dies": the file is copied as the page cache has it. */
static void kill_store(void)
{
	char copy[128];

	(void)snprintf(copy, sizeof copy, "%s/copy", dir);
	copy_file(path, copy);
	ok(keys_close(k));
	assert_int_equal(rename(copy, path), 0);
}

static void long_attributes(uint64_t where, unsigned from, unsigned to)
{
	static char value[50000];
	char name[32];
	unsigned i;

	memset(value, 'v', sizeof value);
	for (i = from; i < to; i++) {
		(void)snprintf(name, sizeof name, "file %u", i);
		ok(keys_setxattr(k, make(where, name, S_IFREG | 0644), "user.long", value, sizeof value - i, 0, false));
		/* What was synced is known by the records behind it. */
		if (i % 4 == 3)
			ok(store_sync(keys_store(k)));
	}
}

/* A journal of several segments, more than the superblock lists. after_recovery: and they begin in the segment in which the
 * recovery of another such journal ended. */
static void make_killed_store(bool after_recovery)
{
	const struct store_options o = { .path = path, .create = true, .max_bytes = 64u << 20 };
	uint64_t where;

	ok(keys_open(&o, &k));
	where = make(KEYS_ROOT_INO, "where", S_IFDIR | 0755);
	if (after_recovery) {
		long_attributes(where, 100, 130);
		kill_store();
		ok(keys_open(&o, &k));
	} else {
		ok(store_checkpoint(keys_store(k)));
	}
	long_attributes(where, 0, 48);
	(void)make(where, "last", S_IFREG | 0644);
	ok(store_sync(keys_store(k)));
	(void)make(where, "behind", S_IFREG | 0644);
	ok(view_take(&good, k, false));
	kill_store();
}

/* What salvage makes of it ------------------------------------------------------------------------------------------ */

static void collect(void *ctx, bool lost, const char *line)
{
	size_t n = strlen(text);

	(void)ctx;
	(void)snprintf(text + n, sizeof text - n, "# %s%s\n", lost ? "lost: " : "", line);
}

static void complain(void *ctx, const char *line)
{
	collect(ctx, false, line);
}

static void salvage(struct view *ret, struct salvage_report *rep)
{
	const struct stream_target target = { .path = new_path, .max_bytes = 64u << 20 };
	const struct salvage_options o = { .say = collect };
	const struct store_options ro = { .path = new_path, .read_only = true };
	const struct check_options co = { .problem = complain };
	struct check_report checked;
	struct keys *n;

	text[0] = '\0';
	ok(salvage_store(path, &target, &o, rep));
	ok(keys_open(&ro, &n));
	ok(check_run(n, &co, &checked));
	if (checked.problems > 0)
		fail_msg("the new store is not clean:\n%s", text);
	ok(view_take(ret, n, false));
	ok(keys_close(n));
	assert_int_equal(unlink(new_path), 0);
}

static void assert_same(const struct view *now)
{
	size_t i;

	for (i = 0; i < good.count; i++) {
		const struct view_node *n = view_node(now, good.nodes[i].a.ino);
		const char *what = n ? view_differ(&good.nodes[i], n) : "everything";

		if (what)
			fail_msg("SEED=%llu: inode %llu: %s is not as it was\n%s", (unsigned long long)seed,
				 (unsigned long long)good.nodes[i].a.ino, what, text);
	}
	for (i = 0; i < good.name_count; i++)
		if (!view_has_name(now, &good.names[i]))
			fail_msg("the name %s is missing\n%s", good.names[i].name, text);
	assert_int_equal(now->count, good.count);
	assert_int_equal(now->name_count, good.name_count);
}

static void assert_refused(int want)
{
	const struct store_options o = { .path = path, .read_only = true };
	struct keys *m;

	assert_int_equal(keys_open(&o, &m), want);
	assert_true(*err_last() != '\0');
}

static void zero_supers(void)
{
	unsigned i;

	for (i = 0; i < SUPER_PLACES; i++)
		memset(image_block(&im, super_place(i)), 0, BLOCK_SIZE);
}

/* Without superblocks ----------------------------------------------------------------------------------------------- */

static void test_salvage_lead__no_superblock(void **state)
{
	struct salvage_report rep;
	struct view now;

	(void)state;
	make_closed_store();
	image_open(&im, path);
	zero_supers();
	image_close(&im);
	assert_refused(-EMEDIUMTYPE);
	salvage(&now, &rep);
	assert_true(rep.lost == 1 && strstr(text, "no superblock is left"));
	assert_same(&now);
	view_release(&now);
}

/* And a page of the tree is gone too: which root was in force is not sure any more, but nothing is mixed up. */
static block_t *pages;
static size_t page_total;

static void note_page(void *ctx, const struct image *image, uint8_t *page)
{
	(void)ctx;
	(void)image;
	pages = realloc(pages, (page_total + 1) * sizeof *pages);
	assert_non_null(pages);
	pages[page_total++] = get_le64(page + PAGE_BLOCK);
}

static unsigned count_missing(const struct view *now)
{
	unsigned missing = 0;
	size_t i;

	for (i = 0; i < good.count; i++) {
		const struct view_node *n = view_node(now, good.nodes[i].a.ino);

		if (!n)
			missing++;
		else if (!view_is_part(n, &good.nodes[i]))
			fail_msg("inode %llu has something else in it\n%s", (unsigned long long)n->a.ino, text);
	}
	return missing;
}

static void test_salvage_lead__no_superblock_and_a_page_less(void **state)
{
	uint8_t was[BLOCK_SIZE];
	unsigned tried = 0, most = 0;
	size_t i;

	(void)state;
	make_closed_store();
	image_open(&im, path);
	page_total = 0;
	image_pages(&im, note_page, NULL);
	zero_supers();
	for (i = 0; i < page_total; i++) {
		struct salvage_report rep;
		struct view now;
		unsigned missing;

		/* The root, and some. */
		if (i > 0 && !full && random_below(8) > 0)
			continue;
		memcpy(was, image_block(&im, pages[i]), BLOCK_SIZE);
		memset(image_block(&im, pages[i]), 0, BLOCK_SIZE);
		salvage(&now, &rep);
		assert_true(rep.lost > 0 && strstr(text, "no superblock is left"));
		missing = count_missing(&now);
		/* Without the root an older one is taken, below which all is whole. */
		if (i > 0)
			most = missing > most ? missing : most;
		else
			assert_int_equal(rep.lost, 1);
		view_release(&now);
		memcpy(image_block(&im, pages[i]), was, BLOCK_SIZE);
		tried++;
	}
	print_message("# %u of %zu pages, at most %u of %zu inodes missing\n", tried, page_total, most, good.count);
	/* A leaf has the items of a few files. */
	assert_true(most < good.count / 8);
	image_close(&im);
	free(pages);
	pages = NULL;
}

/* A damaged NEXT ---------------------------------------------------------------------------------------------------- */

struct next_place {
	uint8_t *rec;
	bool listed;                    /* the superblock lists where it leads */
};
static struct next_place nexts[NEXTS_MAX];
static unsigned next_count;

static int claim_nothing(void *ctx, block_t first, uint64_t blocks)
{
	(void)ctx;
	(void)first;
	(void)blocks;
	return 0;
}

static void find_nexts(void)
{
	struct map map = { .base = im.base };
	struct journal_next next;
	struct journal j;
	unsigned i;

	atomic_init(&map.blocks, im.blocks);
	ok(journal_init(&j, &map, im.sb.seg_shift, super_store_id(&im.sb), 0));
	ok(journal_load(&j, im.sb.segs, im.sb.seg_count, &im.sb.journal));
	next_count = 0;
	while (journal_peek(&j, &next) > 0) {
		if (get_le16(next.rec + REC_TYPE) == REC_TYPE_NEXT) {
			block_t to = get_le64(next.rec + REC_HEADER + MUT_HEADER);
			struct next_place *at = &nexts[next_count++];

			assert_true(next_count < NEXTS_MAX);
			*at = (struct next_place){ .rec = im.base + (next.rec - im.base) };
			for (i = 0; i < im.sb.seg_count; i++)
				at->listed = at->listed || im.sb.segs[i] == to;
		}
		ok(journal_accept(&j, &next, claim_nothing, NULL));
	}
	journal_release(&j);
}

static void damage_next(uint8_t *rec, unsigned how)
{
	switch (how) {
	case 0:
		rec[REC_HEADER + MUT_HEADER + random_below(24)] ^= (uint8_t)(1u << random_below(8));
		break;
	case 1:
		memset(rec, 0, REC_NEXT_LEN);
		break;
	default:
		/* Its check. */
		rec[REC_CHECK] ^= 1;
		break;
	}
}

static void try_nexts(bool after_recovery)
{
	uint8_t was[REC_NEXT_LEN];
	unsigned i, how, listed = 0;

	make_killed_store(after_recovery);
	image_open(&im, path);
	find_nexts();
	for (i = 0; i < next_count; i++)
		listed += nexts[i].listed;
	print_message("# %u NEXT records, %u lead to a listed segment\n", next_count, listed);
	assert_true(next_count >= 6 && listed < next_count);
	for (i = 0; i < next_count; i++) {
		memcpy(was, nexts[i].rec, sizeof was);
		for (how = 0; how < 3; how++) {
			struct salvage_report rep;
			struct view now;

			damage_next(nexts[i].rec, how);
			assert_refused(-EUCLEAN);
			salvage(&now, &rep);
			/* It held no change, so nothing is lost. */
			if (rep.lost > 0 || rep.damage == 0)
				fail_msg("NEXT %u of %u: %llu findings, %llu with a loss\n%s", i, next_count,
					 (unsigned long long)rep.damage, (unsigned long long)rep.lost, text);
			assert_non_null(strstr(text, "between two changes"));
			assert_same(&now);
			view_release(&now);
			memcpy(nexts[i].rec, was, sizeof was);
		}
	}
	image_close(&im);
}

static void test_salvage_lead__damaged_next(void **state)
{
	(void)state;
	try_nexts(false);
}

static void test_salvage_lead__damaged_next_after_a_recovery(void **state)
{
	(void)state;
	try_nexts(true);
}

/* Too large --------------------------------------------------------------------------------------------------------- */

static void test_salvage_lead__file_beyond_the_address_space(void **state)
{
	const struct stream_target target = { .path = new_path };
	const struct store_options rw = { .path = path }, ro = { .path = path, .read_only = true },
				   beside = { .path = path, .read_only = true, .snapshot = true };
	const struct store_options *const all[] = { &rw, &ro, &beside };
	const struct salvage_options so = { .say = collect };
	struct salvage_report rep;
	struct stat before, after;
	unsigned i;

	(void)state;
	make_closed_store();
	if (truncate(path, (off_t)17 << 40) < 0) {
		print_message("# left out: no file of 17 TiB here\n");
		return;
	}
	assert_int_equal(stat(path, &before), 0);
	for (i = 0; i < ARRAY_LEN(all); i++) {
		assert_int_equal(keys_open(all[i], &k), -EFBIG);
		assert_non_null(strstr(err_last(), "cannot be mapped by this program"));
	}
	assert_int_equal(salvage_store(path, &target, &so, &rep), -EFBIG);
	assert_int_equal(access(new_path, F_OK), -1);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(after.st_size, before.st_size);
	assert_int_equal(after.st_blocks, before.st_blocks);
}

static int setup(void **state)
{
	(void)state;
	rng = seed;
	(void)snprintf(dir, sizeof dir, "%s/msyncfs-lead.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof path, "%s/store", dir);
	(void)snprintf(new_path, sizeof new_path, "%s/new", dir);
	return 0;
}

static int teardown(void **state)
{
	char copy[128];

	(void)state;
	view_release(&good);
	(void)snprintf(copy, sizeof copy, "%s/copy", dir);
	(void)unlink(copy);
	(void)unlink(path);
	(void)unlink(new_path);
	return rmdir(dir);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_salvage_lead__no_superblock),
		T(test_salvage_lead__no_superblock_and_a_page_less),
		T(test_salvage_lead__damaged_next),
		T(test_salvage_lead__damaged_next_after_a_recovery),
		T(test_salvage_lead__file_beyond_the_address_space),
	};
	const char *s = getenv("SEED");

	seed = s && *s ? strtoull(s, NULL, 10) : (uint64_t)time(NULL);
	full = getenv("SALVAGE_FULL") != NULL;
	print_message("# SEED=%llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests_name("salvage_lead", tests, NULL, NULL);
}
