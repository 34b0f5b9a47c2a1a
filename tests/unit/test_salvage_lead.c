/* SPDX-License-Identifier: MIT
 *
 * test_salvage_lead: what leads to the rest is damaged, and the rest is whole. All four superblocks: the tree is found by
 * its pages. A NEXT record of the journal: the segments behind it are found by their headers, and mounting refuses rather
 * than take it for the journal's end. And a file that is too large to be mapped.
 *
 *   SALVAGE_FULL=1   every page of the tree, not only some
 *   SEED=n           replays the choice
 */
#include "tests/unit/fill_util.h"
#include "tests/unit/findings_util.h"
#include "tests/unit/image_util.h"
#include "tests/unit/ok_util.h"
#include "tests/unit/random_util.h"
#include "tests/unit/scratch_util.h"
#include "tests/unit/view_util.h"

#include "core/keys/keys_int.h"
#include "core/salvage/salvage.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXTS_MAX 64u

static char path[SCRATCH_PATH], new_path[SCRATCH_PATH];
static uint64_t seed;
static bool full;
static struct keys *k;
static struct view good;
static struct image im;

/* A store to damage ------------------------------------------------------------------------------------------------- */

/* Every checkpoint leaves pages that look as good as those in force. */
static void make_closed_store(void)
{
	const struct store_options o = { .path = path, .create = true, .max_bytes = 32u << 20 };
	char name[32];
	unsigned i;

	ok(keys_open(&o, &k));
	fill_files(k, fill_make(k, KEYS_ROOT_INO, "one", S_IFDIR | 0755), 0, 150);
	for (i = 0; i < 6; i++) {
		(void)snprintf(name, sizeof name, "gone %u", i);
		fill_bytes(k, fill_make(k, KEYS_ROOT_INO, name, S_IFREG | 0600), 0, 900 * (i + 1));
		ok(store_checkpoint(keys_store(k)));
		if (i > 0) {
			(void)snprintf(name, sizeof name, "gone %u", i - 1);
			fill_unlink(k, KEYS_ROOT_INO, name);
		}
		ok(store_checkpoint(keys_store(k)));
	}
	fill_files(k, fill_make(k, KEYS_ROOT_INO, "two", S_IFDIR | 0700), 0, 50);
	ok(view_take(&good, k, false));
	ok(keys_close(k));
}

static void long_attributes(uint64_t where, unsigned from, unsigned to)
{
	static char value[50000];
	char name[32];
	unsigned i;

	memset(value, 'v', sizeof value);
	for (i = from; i < to; i++) {
		(void)snprintf(name, sizeof name, "file %u", i);
		ok(keys_setxattr(k, fill_make(k, where, name, S_IFREG | 0644), "user.long", value, sizeof value - i, 0, false));
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
	where = fill_make(k, KEYS_ROOT_INO, "where", S_IFDIR | 0755);
	if (after_recovery) {
		long_attributes(where, 100, 130);
		scratch_kill(k, path);
		ok(keys_open(&o, &k));
	} else {
		ok(store_checkpoint(keys_store(k)));
	}
	long_attributes(where, 0, 48);
	(void)fill_make(k, where, "last", S_IFREG | 0644);
	ok(store_sync(keys_store(k)));
	(void)fill_make(k, where, "behind", S_IFREG | 0644);
	ok(view_take(&good, k, false));
	scratch_kill(k, path);
}

/* What salvage makes of it ------------------------------------------------------------------------------------------ */

static void salvage(struct view *ret, struct salvage_report *rep)
{
	const struct stream_target target = { .path = new_path, .max_bytes = 64u << 20 };
	const struct salvage_options o = { .say = findings_keep_lost };
	struct keys *n;

	findings_forget();
	ok(salvage_store(path, &target, &o, rep));
	n = findings_open_clean(new_path);
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
				 (unsigned long long)good.nodes[i].a.ino, what, findings_text());
	}
	for (i = 0; i < good.name_count; i++)
		if (!view_has_name(now, &good.names[i]))
			fail_msg("the name %s is missing\n%s", good.names[i].name, findings_text());
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
	assert_true(rep.lost == 1 && findings_have("no superblock is left"));
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
			fail_msg("inode %llu has something else in it\n%s", (unsigned long long)n->a.ino, findings_text());
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
		assert_true(rep.lost > 0 && findings_have("no superblock is left"));
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

static void see_record(void *ctx, const uint8_t *rec, uint32_t len)
{
	struct next_place *at = &nexts[next_count];
	unsigned i;

	(void)ctx;
	(void)len;
	if (get_le16(rec + REC_TYPE) != REC_TYPE_NEXT)
		return;
	assert_true(++next_count < NEXTS_MAX);
	*at = (struct next_place){ .rec = im.base + (rec - im.base) };
	for (i = 0; i < im.sb.seg_count; i++)
		at->listed = at->listed || im.sb.segs[i] == get_le64(rec + REC_HEADER + MUT_HEADER);
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
	next_count = 0;
	(void)image_records(&im, see_record, NULL);
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
					 (unsigned long long)rep.damage, (unsigned long long)rep.lost, findings_text());
			assert_true(findings_have("between two changes"));
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
	const struct salvage_options so = { .say = findings_keep_lost };
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
	random_restart(seed);
	if (scratch_make("lead") < 0)
		return -1;
	scratch_path(path, "store");
	scratch_path(new_path, "new");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	view_release(&good);
	return scratch_remove();
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

	seed = random_seed();
	full = getenv("SALVAGE_FULL") != NULL;
	return cmocka_run_group_tests_name("salvage_lead", tests, NULL, NULL);
}
