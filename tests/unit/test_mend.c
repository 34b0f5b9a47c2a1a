/* SPDX-License-Identifier: MIT
 *
 * test_mend: stores whose checksums are right and that contradict themselves, as a bug or somebody's hand leaves them. What
 * salvage makes of each: a store that check finds clean, with everything that can be kept where it was, and a line for what
 * cannot. And the small parts: spans of lost keys, and paths.
 *
 *   SEED=n   replays the random spans
 */
#include "tests/unit/fill_util.h"
#include "tests/unit/findings_util.h"
#include "tests/unit/image_util.h"
#include "tests/unit/ok_util.h"
#include "tests/unit/random_util.h"
#include "tests/unit/scratch_util.h"

#include "core/keys/keys_int.h"
#include "core/keys/place.h"
#include "core/salvage/salvage.h"
#include "core/store/salvage.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[SCRATCH_PATH], new_path[SCRATCH_PATH];
static struct salvage_report rep;
static struct keys *k;
static struct image im;

/* What make_store() made. */
static struct {
	uint64_t a, b, file, hard, big, link, attrs;
} ino;

static void print_findings(void)
{
	print_message("%s", findings_text());
}

static void make_store(void)
{
	const struct store_options o = { .path = path, .create = true, .max_bytes = 16u << 20 };
	static uint8_t data[20000];
	size_t n;

	memset(data, 'd', sizeof data);
	ok(keys_open(&o, &k));
	ino.a = fill_make(k, KEYS_ROOT_INO, "a", S_IFDIR | 0755);
	ino.b = fill_make(k, ino.a, "b", S_IFDIR | 0755);
	ino.file = fill_make(k, ino.b, "file", S_IFREG | 0644);
	ok(keys_write(k, ino.file, 0, "contents", 8, 0, &n));
	ino.hard = fill_make(k, ino.a, "hard", S_IFREG | 0644);
	fill_link(k, ino.hard, ino.b, "hard too");
	ino.big = fill_make(k, ino.b, "big", S_IFREG | 0644);
	ok(keys_write(k, ino.big, 0, data, sizeof data, 0, &n));
	ino.link = fill_symlink(k, ino.b, "link", 3000);
	ino.attrs = fill_make(k, ino.b, "attrs", S_IFREG | 0664);
	fill_acl(k, ino.attrs, ACL_ACCESS_NAME);
	ok(keys_close(k));
	image_open(&im, path);
}

/* What salvage makes of it ------------------------------------------------------------------------------------------ */

/* The new store, open. */
static void salvage(void)
{
	const struct stream_target target = { .path = new_path, .max_bytes = 16u << 20 };
	const struct salvage_options o = { .say = findings_keep_lost };

	image_close(&im);
	findings_forget();
	ok(salvage_store(path, &target, &o, &rep));
	k = findings_open_clean(new_path);
}

static void assert_said(const char *words)
{
	if (!findings_have(words))
		fail_msg("\"%s\" is not said:\n%s", words, findings_text());
}

static uint64_t at(uint64_t where, const char *name)
{
	struct keys_attr a;
	int r = keys_lookup(k, where, name, strlen(name), &a);

	return r < 0 ? 0 : a.ino;
}

/* In lost+found, by its number. */
static bool is_aside(uint64_t number)
{
	char name[32];

	(void)snprintf(name, sizeof name, "#%llu", (unsigned long long)number);
	return rep.folder[0] && at(at(KEYS_ROOT_INO, rep.folder), name) == number;
}

static struct keys_attr attr(uint64_t number)
{
	struct keys_attr a;

	ok(keys_getattr(k, number, &a));
	return a;
}

static struct key entry_key(uint64_t where, const char *name)
{
	return item_key(where, ITEM_DIRENT, (hash64(name, strlen(name), im.sb.hash_seed) & ((1ull << 54) - 1)) << 8);
}

/* Change an inode's attributes, and the checksum with them. */
static void edit_attr(uint64_t number, void (*change)(struct keys_attr *a))
{
	struct keys_attr a;
	uint8_t *leaf, *v;
	uint32_t len;

	v = image_item(&im, item_key(number, ITEM_INODE, 0), &len, &leaf);
	assert_int_equal(inode_decode(v, len, number, &a), 0);
	change(&a);
	inode_encode(v, &a);
	image_seal(&im, leaf);
}

static void lead_entry_to(uint64_t where, const char *name, uint64_t number, uint32_t mode)
{
	uint8_t *leaf, *v;
	uint32_t len;

	v = image_item(&im, entry_key(where, name), &len, &leaf);
	put_le64(v, number);
	v[8] = (uint8_t)((mode & S_IFMT) >> 12);
	image_seal(&im, leaf);
}

static void test_mend__whole_store_stays_as_it_is(void **ctx)
{
	(void)ctx;
	salvage();
	assert_string_equal(findings_text(), "");
	assert_true(rep.damage == 0 && rep.lost == 0 && rep.aside == 0 && rep.folder[0] == '\0');
	assert_int_equal(at(ino.b, "file"), ino.file);
	assert_int_equal(at(ino.b, "hard too"), ino.hard);
}

static void test_mend__file_without_a_name_is_put_aside(void **ctx)
{
	(void)ctx;
	image_remove(&im, entry_key(ino.b, "file"));
	salvage();
	assert_true(is_aside(ino.file));
	assert_int_equal(at(ino.b, "file"), 0);
	assert_int_equal(attr(ino.file).nlink, 1);
	assert_string_equal(rep.folder, "lost+found");
	assert_said("is put aside: it has no name any more");
	assert_said("(/a/b): 1 of its 5 entries are lost");
}

static void test_mend__directory_without_a_name_keeps_what_is_in_it(void **ctx)
{
	char words[128];

	(void)ctx;
	image_remove(&im, entry_key(ino.a, "b"));
	salvage();
	assert_true(is_aside(ino.b));
	assert_int_equal(at(ino.b, "file"), ino.file);
	(void)snprintf(words, sizeof words, "it was in directory %llu (/a)", (unsigned long long)ino.a);
	assert_said(words);
}

static void test_mend__folder_takes_a_free_name(void **ctx)
{
	static const char *const taken[] = {
		"lost+found.4", "lost+found", "lost+found.03", "lost+found.", "lost+found.2", "lost+found.1", "lost+found.3x",
		"lost+found.99999999999999999999", "lost+found.5",
	};
	const struct store_options o = { .path = path };
	unsigned i;

	(void)ctx;
	image_close(&im);
	ok(keys_open(&o, &k));
	for (i = 0; i < ARRAY_LEN(taken); i++)
		(void)fill_make(k, KEYS_ROOT_INO, taken[i], S_IFREG | 0644);
	ok(keys_close(k));
	image_open(&im, path);
	image_remove(&im, entry_key(ino.b, "file"));
	salvage();
	assert_string_equal(rep.folder, "lost+found.3");
	assert_true(is_aside(ino.file));
}

static void test_mend__one_of_two_names_is_enough(void **ctx)
{
	(void)ctx;
	image_remove(&im, entry_key(ino.a, "hard"));
	salvage();
	assert_int_equal(at(ino.b, "hard too"), ino.hard);
	assert_int_equal(attr(ino.hard).nlink, 1);
	assert_said("1 of its 2 names are lost");
	assert_int_equal(rep.aside, 0);
}

static void test_mend__entry_to_nothing_is_told(void **ctx)
{
	(void)ctx;
	lead_entry_to(ino.b, "file", 99999, S_IFREG);
	salvage();
	assert_said("(/a/b): entry \"file\" (inode 99999): its inode is lost");
	assert_int_equal(at(ino.b, "file"), 0);
	assert_true(is_aside(ino.file));
}

static void test_mend__directory_that_is_gone_is_told(void **ctx)
{
	(void)ctx;
	lead_entry_to(ino.b, "file", 99999, S_IFDIR);
	salvage();
	assert_said("entry \"file\" (inode 99999): it is lost, a directory, and so are all names in it");
}

static void test_mend__second_name_of_a_directory_goes(void **ctx)
{
	(void)ctx;
	lead_entry_to(ino.b, "file", ino.b, S_IFDIR);
	salvage();
	assert_int_equal(at(ino.a, "b"), ino.b);
	assert_int_equal(at(ino.b, "file"), 0);
	assert_said("the directory is elsewhere");
}

static void test_mend__wrong_type_is_put_right(void **ctx)
{
	(void)ctx;
	lead_entry_to(ino.b, "file", ino.file, S_IFIFO);
	salvage();
	assert_int_equal(at(ino.b, "file"), ino.file);
	assert_said("one of its names had the wrong type");
	assert_int_equal(rep.lost, 0);
}

static void parent_is_b(struct keys_attr *a) { a->aux = ino.b; }

/* a is in b is in a: neither hangs below the root. */
static void test_mend__loop_is_cut(void **ctx)
{
	(void)ctx;
	edit_attr(ino.a, parent_is_b);
	lead_entry_to(ino.b, "file", ino.a, S_IFDIR);
	image_remove(&im, entry_key(KEYS_ROOT_INO, "a"));
	salvage();
	assert_said("it is below itself; it is put aside");
	assert_true(is_aside(ino.a) || is_aside(ino.b));
	assert_int_equal(at(ino.a, "hard"), ino.hard);
}

static void test_mend__file_without_its_inode_keeps_its_contents(void **ctx)
{
	struct iovec iov[8];
	size_t n;
	int count;

	(void)ctx;
	image_remove(&im, item_key(ino.big, ITEM_INODE, 0));
	salvage();
	assert_true(is_aside(ino.big));
	assert_int_equal(attr(ino.big).mode, S_IFREG | 0600);
	assert_said("(/a/b/big): its attributes are lost; it gets new ones");
	ok(keys_read(k, ino.big, 0, 100, iov, 8, &count, &n));
	assert_true(n == 100 && memcmp(iov[0].iov_base, "dddd", 4) == 0);
}

static void test_mend__directory_without_its_inode_stays(void **ctx)
{
	(void)ctx;
	image_remove(&im, item_key(ino.b, ITEM_INODE, 0));
	salvage();
	assert_int_equal(at(ino.a, "b"), ino.b);
	assert_int_equal(attr(ino.b).mode, S_IFDIR | 0700);
	assert_int_equal(at(ino.b, "file"), ino.file);
	assert_said("(/a/b): its attributes are lost; it gets new ones");
}

static void test_mend__root_without_its_inode_stays(void **ctx)
{
	(void)ctx;
	image_remove(&im, item_key(KEYS_ROOT_INO, ITEM_INODE, 0));
	salvage();
	assert_int_equal(at(at(KEYS_ROOT_INO, "a"), "b"), ino.b);
}

static void test_mend__link_without_its_target_goes(void **ctx)
{
	(void)ctx;
	image_remove(&im, item_key(ino.link, ITEM_EXTENT, 0));
	salvage();
	assert_int_equal(at(ino.b, "link"), 0);
	assert_said("(/a/b/link): 1 blocks of its contents are lost");
}

static void test_mend__without_its_acl_the_group_has_no_rights(void **ctx)
{
	const uint64_t h = hash64(ACL_ACCESS_NAME, strlen(ACL_ACCESS_NAME), im.sb.hash_seed) & ((1ull << 40) - 1);

	(void)ctx;
	image_remove(&im, item_key(ino.attrs, ITEM_XATTR, h << 16));
	salvage();
	assert_int_equal(at(ino.b, "attrs"), ino.attrs);
	assert_int_equal(attr(ino.attrs).mode & 0070, 0);
	assert_said("(/a/b/attrs): its ACL is lost");
}

static void test_mend__missing_contents_leave_a_hole_aside(void **ctx)
{
	(void)ctx;
	image_remove(&im, item_key(ino.big, ITEM_EXTENT, 0));
	salvage();
	assert_true(is_aside(ino.big));
	assert_int_equal(at(ino.b, "big"), 0);
	assert_said("(/a/b/big): 5 blocks of its contents are lost");
	assert_said("its contents are not whole; what is left of it is put aside");
}

static void no_links(struct keys_attr *a) { a->nlink = 0; }

/* Nobody can see it any more: that is not a loss of a whole file. */
/* Where salvage has the pages of its own tree. */
static void test_mend__extent_behind_the_file_takes_nothing_there(void **ctx)
{
	const struct key key = item_key(ino.big, ITEM_EXTENT, 0);
	uint8_t *leaf, *v;
	struct extent e;
	uint32_t len;

	(void)ctx;
	v = image_item(&im, key, &len, &leaf);
	ok(extent_decode(v, len, key, &e));
	e.block = GROUP_BLOCKS + SLOTS;
	extent_encode(v, &e);
	image_seal(&im, leaf);
	salvage();
	assert_said("/a/b/big");
	assert_true(is_aside(ino.big));
	assert_int_equal(at(at(at(KEYS_ROOT_INO, "a"), "b"), "file"), ino.file);
	assert_int_equal(attr(ino.big).blocks, 0);
}

static void test_mend__unlinked_file_without_a_name_goes(void **ctx)
{
	(void)ctx;
	edit_attr(ino.file, no_links);
	image_remove(&im, entry_key(ino.b, "file"));
	salvage();
	assert_int_equal(rep.aside, 0);
	assert_int_equal(keys_getattr(k, ino.file, &(struct keys_attr){ 0 }), -ENOENT);
}

static void test_mend__new_store_is_not_made_over_another(void **ctx)
{
	const struct stream_target target = { .path = new_path };
	const struct salvage_options o = { .say = findings_keep_lost };
	FILE *f = fopen(new_path, "w");

	(void)ctx;
	assert_true(f && fclose(f) == 0);
	image_close(&im);
	assert_int_equal(salvage_store(path, &target, &o, &rep), -EEXIST);
}

static int stop(void *ctx, uint64_t at_block, uint64_t total)
{
	(void)ctx;
	assert_true(at_block <= total);
	return 1;
}

static void test_mend__can_be_cancelled(void **ctx)
{
	const struct stream_target target = { .path = new_path };
	const struct salvage_options o = { .say = findings_keep_lost, .progress = stop };
	const struct store_options create = { .path = path };
	static uint8_t data[1 << 20];
	size_t n;
	int i;

	(void)ctx;
	/* Progress is told every few MiB. */
	image_close(&im);
	ok(keys_open(&create, &k));
	for (i = 0; i < 6; i++) {
		memset(data, 'a' + i, sizeof data);
		ok(keys_write(k, ino.big, (uint64_t)i << 20, data, sizeof data, 0, &n));
	}
	ok(keys_close(k));
	assert_int_equal(salvage_store(path, &target, &o, &rep), -ECANCELED);
	assert_int_equal(access(new_path, F_OK), -1);
}

/* Spans ------------------------------------------------------------------------------------------------------------- */

/* As plainly as can be. */
static const struct salvage_span *lost_plainly(const struct salvage_span *v, size_t n, struct key low, struct key high, size_t *i)
{
	for (; *i < n; ++*i)
		if (!v[*i].found && key_cmp(low, v[*i].high) < 0 && key_cmp(v[*i].low, high) < 0)
			return &v[(*i)++];
	return NULL;
}

static void test_mend__lost_spans_are_found(void **ctx)
{
	struct salvage_span v[20];
	unsigned round, i;

	(void)ctx;
	for (round = 0; round < 20000; round++) {
		size_t n = random_below(ARRAY_LEN(v) + 1), a = 0, b = 0;
		uint64_t from = random_below(5);
		struct key low = { 0, random_below(100) }, high = { 0, low.lo + 1 + random_below(30) };
		const struct salvage_span *s;

		for (i = 0; i < n; i++) {
			v[i] = (struct salvage_span){ .low = { 0, from }, .block = i + 1, .found = random_below(4) == 0 };
			from += 1 + random_below(6);
			v[i].high = (struct key){ 0, from };
			from += random_below(6);
		}
		/* Nobody knows the root: everything may be lost. */
		if (n > 0 && random_below(4) == 0)
			v[0] = (struct salvage_span){ .high = { UINT64_MAX, UINT64_MAX }, .found = random_below(2) };
		do {
			s = lost_plainly(v, n, low, high, &a);
			assert_ptr_equal(salvage_lost(v, n, low, high, &b), s);
		} while (s);
	}
}

static void test_mend__spans_have_inodes(void **ctx)
{
	static const struct {
		struct key low, high;
		uint64_t next, first, last;
	} cases[] = {
		{ { 0, 0 }, { 17, 5 }, 100, 0, 0 },                             /* the store's own items only */
		{ { 0, 0 }, { 1 << 8 | 1, 0 }, 100, 0, 0 },
		{ { 0, 0 }, { 1 << 8 | 3, 7 }, 100, 1, 1 },
		{ { 20 << 8 | 3, 7 }, { 25 << 8 | 1, 0 }, 100, 20, 24 },        /* 25 itself is not in it */
		{ { 20 << 8 | 3, 7 }, { 25 << 8 | 2, 0 }, 100, 20, 25 },
		{ { 20 << 8 | 1, 0 }, { UINT64_MAX, UINT64_MAX }, 100, 20, 99 },
		{ { 20 << 8 | 1, 0 }, { UINT64_MAX, UINT64_MAX }, UINT64_MAX, 20, (1ull << 48) - 1 },
	};
	size_t i;

	(void)ctx;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		const struct salvage_span s = { .low = cases[i].low, .high = cases[i].high };
		uint64_t first, last;

		salvage_inodes(&s, cases[i].next, &first, &last);
		assert_int_equal(first, cases[i].first);
		assert_int_equal(last, cases[i].last);
	}
}

/* Paths ------------------------------------------------------------------------------------------------------------- */

/* What somebody who looked at the tree knows: for each inode, one entry. */
static struct {
	uint64_t ino, dir, lo;
} known[400];
static size_t known_count;

static bool entry_of(void *ctx, uint64_t number, uint64_t *ret_dir, uint64_t *ret_lo)
{
	size_t i;

	(void)ctx;
	for (i = 0; i < known_count; i++) {
		if (known[i].ino != number)
			continue;
		*ret_dir = known[i].dir;
		*ret_lo = known[i].lo;
		return true;
	}
	return false;
}

static void know(uint64_t number, uint64_t where, const char *name)
{
	known[known_count].ino = number;
	known[known_count].dir = where;
	known[known_count++].lo = entry_key(where, name).lo;
}

static void test_mend__paths(void **ctx)
{
	const struct store_options o = { .path = path };
	struct place_finder finder = { NULL, entry_of, NULL };
	char got[PLACE_SIZE], want[PLACE_SIZE], name[256];
	uint64_t where = KEYS_ROOT_INO, deep = 0;
	unsigned i;

	(void)ctx;
	image_close(&im);
	ok(keys_open(&o, &k));
	memset(name, 'n', 255);
	name[255] = '\0';
	for (i = 0; i < 5; i++)
		where = deep = fill_make(k, where, name, S_IFDIR | 0755);
	ok(keys_close(k));
	image_open(&im, path);
	ok(keys_open(&(struct store_options){ .path = path, .read_only = true }, &k));
	finder.tree = store_tree(keys_store(k));
	known_count = 0;
	assert_string_equal(place_text(&finder, KEYS_ROOT_INO, got), "1 (/)");
	(void)snprintf(want, sizeof want, "%llu", (unsigned long long)ino.file);
	assert_string_equal(place_text(&finder, ino.file, got), want);
	know(ino.file, ino.b, "file");
	(void)snprintf(want, sizeof want, "%llu (file below inode %llu)", (unsigned long long)ino.file,
		       (unsigned long long)ino.b);
	assert_string_equal(place_text(&finder, ino.file, got), want);
	know(ino.b, ino.a, "b");
	know(ino.a, KEYS_ROOT_INO, "a");
	(void)snprintf(want, sizeof want, "%llu (/a/b/file)", (unsigned long long)ino.file);
	assert_string_equal(place_text(&finder, ino.file, got), want);
	/* An entry that leads to somebody else is no name. */
	known[0].lo = entry_key(ino.b, "big").lo;
	(void)snprintf(want, sizeof want, "%llu", (unsigned long long)ino.file);
	assert_string_equal(place_text(&finder, ino.file, got), want);
	/* Too long: its end. */
	known_count = 0;
	for (i = 0, where = KEYS_ROOT_INO; i < 5; i++) {
		know(at(where, name), where, name);
		where = known[known_count - 1].ino;
	}
	assert_int_equal(where, deep);
	(void)place_text(&finder, deep, got);
	assert_non_null(strstr(got, "(.../nnn"));
	assert_true(strlen(got) > 500);
	/* Round and round. */
	known_count = 0;
	know(ino.b, ino.a, "b");
	know(ino.a, ino.b, "file");
	(void)place_text(&finder, ino.b, got);
	assert_int_equal(strlen(got) < sizeof got, 1);
}

static int setup(void **ctx)
{
	(void)ctx;
	if (scratch_make("mend") < 0)
		return -1;
	scratch_path(path, "store");
	scratch_path(new_path, "new");
	k = NULL;
	make_store();
	k = NULL;
	return 0;
}

static int teardown(void **ctx)
{
	(void)ctx;
	if (k)
		(void)keys_close(k);
	k = NULL;
	if (im.base)
		image_close(&im);
	return scratch_remove();
}

/* These use no store that was salvaged, or close it. */
static int teardown_closed(void **ctx)
{
	k = NULL;
	return teardown(ctx);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define T_CLOSED(name) cmocka_unit_test_setup_teardown(name, setup, teardown_closed)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_mend__whole_store_stays_as_it_is),
		T(test_mend__file_without_a_name_is_put_aside),
		T(test_mend__directory_without_a_name_keeps_what_is_in_it),
		T(test_mend__folder_takes_a_free_name),
		T(test_mend__one_of_two_names_is_enough),
		T(test_mend__entry_to_nothing_is_told),
		T(test_mend__directory_that_is_gone_is_told),
		T(test_mend__second_name_of_a_directory_goes),
		T(test_mend__wrong_type_is_put_right),
		T(test_mend__loop_is_cut),
		T(test_mend__file_without_its_inode_keeps_its_contents),
		T(test_mend__directory_without_its_inode_stays),
		T(test_mend__root_without_its_inode_stays),
		T(test_mend__link_without_its_target_goes),
		T(test_mend__without_its_acl_the_group_has_no_rights),
		T(test_mend__missing_contents_leave_a_hole_aside),
		T(test_mend__extent_behind_the_file_takes_nothing_there),
		T(test_mend__unlinked_file_without_a_name_goes),
		T(test_mend__new_store_is_not_made_over_another),
		T_CLOSED(test_mend__can_be_cancelled),
		T(test_mend__lost_spans_are_found),
		T(test_mend__spans_have_inodes),
		T(test_mend__paths),
	};

	(void)random_seed();
	ok_failed = print_findings;
	return cmocka_run_group_tests_name("mend", tests, NULL, NULL);
}
