/* SPDX-License-Identifier: MIT
 *
 * test_salvage: stores with files of all kinds, over several levels of the tree and two groups; one closed in order, one
 * killed with a journal of changes. Every page in turn zeroed, bit-flipped, and swapped with another one. After each:
 * - mounting it shows what was there, or says that it is damaged: never anything else;
 * - check names the damage, or it is a page that nothing uses;
 * - salvage gives everything outside of what the page held, byte by byte as it was, and names what is lost;
 * - the damaged store is not changed.
 *
 *   SALVAGE_FULL=1   every page that is used, in each way (make salvage-test); else a sample
 *   SEED=n           replays the sample and the swaps
 *   ONLY=n           one case, by its number; its findings are printed
 */
#include "tests/unit/fill_util.h"
#include "tests/unit/findings_util.h"
#include "tests/unit/image_util.h"
#include "tests/unit/ok_util.h"
#include "tests/unit/random_util.h"
#include "tests/unit/scratch_util.h"
#include "tests/unit/view_util.h"

#include "core/check/check.h"
#include "core/keys/keys_int.h"
#include "core/salvage/salvage.h"
#include "core/store/store_int.h"
#include "core/store/sys.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEQS_MAX 4096u
#define TOUCH    6u

enum how { ZEROED, FLIPPED, SWAPPED, HOWS };
static const char *const how_names[] = { "zeroed", "bit flipped", "swapped" };

static char path[SCRATCH_PATH], new_path[SCRATCH_PATH];
static struct cases cases;
static uint64_t mounted, refused, lost_something;
static struct keys *k;

/* What the intact store shows, and which inodes each change was about. */
static struct view good;
static uint64_t touched[SEQS_MAX][TOUCH];

static void print_replay(void)
{
	cases_print_replay(&cases);
}

/* A store to damage ------------------------------------------------------------------------------------------------- */

/* These changes were about a and b. */
static void touch(seq_t first, seq_t last, uint64_t a, uint64_t b)
{
	unsigned i;

	for (; first <= last; first++) {
		uint64_t *t = touched[first];

		assert_true(first < SEQS_MAX);
		for (i = 0; t[i] && t[i] != a; i++)
			assert_true(i + 2 < TOUCH);
		t[i] = a;
		for (i = 0; t[i] && t[i] != b; i++)
			assert_true(i + 1 < TOUCH);
		t[i] = b;
	}
}

static void kinds(uint64_t where)
{
	struct keys_setattr set = { .mask = KEYS_SET_SIZE | KEYS_SET_UID | KEYS_SET_GID | KEYS_SET_MTIME, .size = 5000,
				    .uid = 12, .gid = 34, .mtime = { -5, 7 } };
	struct keys_attr a;
	char name[32];
	uint64_t file;
	seq_t before;

	file = fill_make(k, where, "big", S_IFREG | 0644);
	fill_bytes(k, file, 0, 700000);
	fill_bytes(k, file, 123456, 99);
	file = fill_make(k, where, "sparse", S_IFREG | 0644);
	fill_bytes(k, file, 1u << 20, 5000);
	fill_bytes(k, file, 1ull << 40, 10000);
	file = fill_make(k, where, "cut", S_IFREG | 0644);
	fill_bytes(k, file, 0, 50000);
	before = store_seq(keys_store(k));
	ok(keys_setattr(k, file, &set, &a));
	touch(before + 1, store_seq(keys_store(k)), file, 0);
	file = fill_make(k, where, "fallocated", S_IFREG | 0644);
	before = store_seq(keys_store(k));
	ok(keys_fallocate(k, file, 0, 0, 100000, 0));
	touch(before + 1, store_seq(keys_store(k)), file, 0);
	fill_bytes(k, file, 8192, 20000);
	file = fill_make(k, where, "hard", S_IFREG | 0640);
	fill_bytes(k, file, 0, 3000);
	fill_link(k, file, where, "hard 2");
	(void)snprintf(name, sizeof name, "hard %llu", (unsigned long long)where);
	fill_link(k, file, KEYS_ROOT_INO, name);
	(void)fill_symlink(k, where, "symlink", 10);
	(void)fill_symlink(k, where, "long symlink", 3000);
	(void)fill_make(k, where, "device", S_IFCHR | 0600);
	(void)fill_make(k, where, "fifo", S_IFIFO | 0600);
	(void)fill_make(k, where, "socket", S_IFSOCK | 0600);
	file = fill_make(k, where, "attrs", S_IFREG | 0664);
	fill_xattr(k, file, "user.empty", 0);
	fill_xattr(k, file, "user.exact", 1024 - 10);
	fill_xattr(k, file, "user.long", 20000);
	/* Many leaves of the tree. */
	for (unsigned i = 0; i < 3; i++) {
		(void)snprintf(name, sizeof name, "user.very long %u", i);
		fill_xattr(k, file, name, 65000);
	}
	fill_acl(k, file, ACL_ACCESS_NAME);
	file = fill_make(k, where, "directory", S_IFDIR | 0750);
	fill_acl(k, file, ACL_DEFAULT_NAME);
	(void)fill_make(k, file, "inherits", S_IFREG | 0666);
	(void)fill_make(k, fill_make(k, file, "deep", S_IFDIR | 0700), "deeper", S_IFDIR | 0700);
}

/* Something stands in front, so that what comes goes to the second group; it is gone in the end. */
static void fill_first_group(void)
{
	uint64_t file = fill_make(k, KEYS_ROOT_INO, "filler", S_IFREG | 0600), off;
	const uint64_t step = 8u << 20;

	for (off = 0; off < 120 * (uint64_t)(1u << 20); off += step) {
		const seq_t before = store_seq(keys_store(k));
		int r;

		while ((r = keys_fallocate(k, file, 0, off, step, 0)) == -EAGAIN)
			ok(store_poll(keys_store(k)));
		ok(r);
		touch(before + 1, store_seq(keys_store(k)), file, 0);
	}
	ok(store_checkpoint(keys_store(k)));
}

/* Leaves of files that are gone look as good as others: only the bitmaps know better. */
static void leave_outdated_leaves(void)
{
	char name[32];
	unsigned i;

	for (i = 0; i < 60; i++) {
		(void)snprintf(name, sizeof name, "gone %u", i);
		fill_bytes(k, fill_make(k, KEYS_ROOT_INO, name, S_IFREG | 0600), 0, 900);
	}
	ok(store_checkpoint(keys_store(k)));
	for (i = 0; i < 60; i++) {
		(void)snprintf(name, sizeof name, "gone %u", i);
		fill_unlink(k, KEYS_ROOT_INO, name);
	}
	ok(store_checkpoint(keys_store(k)));
}

static void make_base(bool two_groups)
{
	const struct sys_ops sys = fill_sys(cases.seed);
	const struct store_options o = { .path = path, .create = true, .max_bytes = (two_groups ? 200u : 24u) << 20,
					 .sys = &sys };
	uint64_t a, b;

	memset(touched, 0, sizeof touched);
	fill_told = touch;
	ok(keys_open(&o, &k));
	a = fill_make(k, KEYS_ROOT_INO, "first", S_IFDIR | 0755);
	kinds(a);
	fill_files(k, a, 0, two_groups ? 150 : 60);
	if (two_groups)
		fill_first_group();
	b = fill_make(k, KEYS_ROOT_INO, "second", S_IFDIR | 0755);
	kinds(b);
	fill_files(k, b, 1000, two_groups ? 200 : 60);
	fill_files(k, fill_make(k, b, "third", S_IFDIR | 0755), 2000, 60);
	leave_outdated_leaves();
	if (two_groups) {
		fill_unlink(k, KEYS_ROOT_INO, "filler");
		ok(store_checkpoint(keys_store(k)));
	}
}

static void take_good(void)
{
	view_release(&good);
	assert_int_equal(view_take(&good, k, false), 0);
}

static void make_clean_store(void)
{
	make_base(true);
	take_good();
	ok(keys_close(k));
}

/* Changes that only the journal has. */
static void make_killed_store(void)
{
	uint64_t a, b, fresh;
	struct keys_attr attr;
	char name[64];
	unsigned i;

	make_base(false);
	ok(store_checkpoint(keys_store(k)));
	ok(keys_lookup(k, KEYS_ROOT_INO, "first", 5, &attr));
	a = attr.ino;
	ok(keys_lookup(k, KEYS_ROOT_INO, "second", 6, &attr));
	b = attr.ino;
	fresh = fill_make(k, b, "fresh", S_IFDIR | 0711);
	kinds(fresh);
	for (i = 0; i < 40; i++) {
		uint64_t file;

		(void)snprintf(name, sizeof name, "new %u", i);
		file = fill_make(k, i % 2 ? fresh : a, name, S_IFREG | 0644);
		fill_bytes(k, file, 0, i * 450);
		/* Everything up to here is known to be on disk when the next record is written. */
		if (i % 3 == 0)
			ok(store_sync(keys_store(k)));
	}
	fill_rename(k, a, "new 4", b, "renamed");
	fill_rename(k, fresh, "new 5", a, "new 6");
	fill_unlink(k, a, "new 8");
	fill_unlink(k, a, "big");
	ok(keys_lookup(k, a, "sparse", 6, &attr));
	fill_bytes(k, attr.ino, 3u << 20, 300);
	ok(store_sync(keys_store(k)));
	(void)fill_make(k, b, "last but one", S_IFREG | 0644);
	(void)fill_make(k, b, "last", S_IFREG | 0644);
	take_good();
	scratch_kill(k, path);
}

/* What stands where ------------------------------------------------------------------------------------------------- */

static struct image im;

/* Of each block: is it in use, and which inodes may suffer when it is damaged. */
struct place {
	bool used, tree, inner, bitmap, unwritten;
	uint64_t *own;                  /* inodes with something in it */
	size_t own_count;
	uint64_t *names;                /* inodes with a name in it */
	size_t name_count;
	seq_t first_seq, last_seq;      /* changes in it; 0: none */
};
static struct place *places;

static void add(uint64_t **v, size_t *n, uint64_t ino)
{
	size_t i;

	for (i = 0; i < *n; i++)
		if ((*v)[i] == ino)
			return;
	*v = realloc(*v, (*n + 1) * sizeof **v);
	assert_non_null(*v);
	(*v)[(*n)++] = ino;
}

static void own(block_t b, uint64_t ino)
{
	assert_true(b < im.blocks);
	places[b].used = true;
	if (ino)
		add(&places[b].own, &places[b].own_count, ino);
}

static void see_page(void *ctx, const struct image *image, uint8_t *p)
{
	struct place *at = &places[get_le64(p + PAGE_BLOCK)];
	unsigned i;

	(void)ctx;
	(void)image;
	at->used = at->tree = true;
	at->inner = page_level(p) > 0;
	for (i = 0; page_level(p) == 0 && i < page_count(p); i++) {
		struct key key = page_key(p, i);
		uint64_t ino = key.hi >> 8, b;
		struct dirent d;
		struct extent e;
		uint32_t len;
		const uint8_t *v = leaf_value(p, i, &len);

		if (ino)
			add(&at->own, &at->own_count, ino);
		if (ino && (key.hi & 0xff) == ITEM_DIRENT && dirent_decode(v, len, key, &d) == 0)
			add(&at->names, &at->name_count, d.ino);
		if (ino && (key.hi & 0xff) == ITEM_EXTENT && extent_decode(v, len, key, &e) == 0)
			for (b = e.block; b < e.block + e.count; b++) {
				own(b, e.flags & EXTENT_UNWRITTEN ? 0 : ino);
				places[b].unwritten = e.flags & EXTENT_UNWRITTEN;
			}
	}
}

static void see_seq(block_t b, seq_t seq)
{
	places[b].used = true;
	if (places[b].first_seq == 0)
		places[b].first_seq = seq;
	places[b].last_seq = seq;
}

static void see_record(void *ctx, const uint8_t *rec, uint32_t len)
{
	const seq_t seq = get_le64(rec + REC_SEQ);
	const block_t last = (block_t)(rec + len - 1 - im.base) >> BLOCK_SHIFT;
	block_t b = (block_t)(rec - im.base) >> BLOCK_SHIFT;
	struct record_reader reader;
	unsigned i;

	(void)ctx;
	for (; b <= last; b++)
		see_seq(b, seq);
	ok(record_open(&reader, rec, len));
	for (i = 0; i < reader.extent_count; i++)
		for (b = reader.extents[i].block; b < reader.extents[i].block + reader.extents[i].count; b++)
			if (reader.extents[i].flags & EXT_DATA)
				see_seq(b, seq);
}

/* Records since the checkpoint; the last one's number. */
static seq_t see_journal(void)
{
	return image_records(&im, see_record, NULL);
}

static void survey(void)
{
	uint64_t g, b;
	unsigned i;

	image_open(&im, path);
	places = calloc(im.blocks, sizeof *places);
	assert_non_null(places);
	for (i = 0; i < SUPER_PLACES; i++)
		places[super_place(i)].used = true;
	for (g = 0; g * GROUP_BLOCKS < im.blocks; g++)
		if (image_bitmap(&im, g))
			places[image_bitmap(&im, g)].used = places[image_bitmap(&im, g)].bitmap = true;
	image_pages(&im, see_page, NULL);
	(void)see_journal();
	/* The first page of each segment has a header. */
	for (i = 0; i < im.sb.seg_count; i++)
		places[im.sb.segs[i]].used = true;
	for (g = b = 0; b < im.blocks; b++)
		g += places[b].used;
	print_message("# %s: %llu blocks, %llu with something in them, tree of %u levels\n", path,
		      (unsigned long long)im.blocks, (unsigned long long)g, im.sb.root.level + 1);
}

static void survey_release(void)
{
	uint64_t b;

	for (b = 0; b < im.blocks; b++) {
		free(places[b].own);
		free(places[b].names);
	}
	free(places);
	image_close(&im);
}

/* One case ---------------------------------------------------------------------------------------------------------- */

/* Inodes that may suffer, sorted in: in their own content; in a name only. */
static uint64_t *hurt, *nameless;
static size_t hurt_count, nameless_count;
static bool prefix;             /* of the changes: nothing proves that those behind were on disk */
/* A bitmap and an inner page were swapped: what stood below that and what is outdated look the same, and it is said so. */
static bool outdated;

static bool is_among(const uint64_t *v, size_t n, uint64_t ino)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (v[i] == ino)
			return true;
	return false;
}

static void hurt_seqs(seq_t from, seq_t to)
{
	unsigned i;

	for (; from > 0 && from <= to; from++)
		for (i = 0; i < TOUCH; i++)
			if (touched[from][i])
				add(&hurt, &hurt_count, touched[from][i]);
}

static seq_t last_seq, durable_seq;

static void expect_damage(block_t b)
{
	const struct place *at = &places[b];
	size_t i;

	for (i = 0; i < at->own_count; i++)
		add(&hurt, &hurt_count, at->own[i]);
	for (i = 0; i < at->name_count; i++)
		add(&nameless, &nameless_count, at->names[i]);
	if (at->first_seq == 0)
		return;
	/* Behind a record that nobody knows to have been on disk, the journal ends. */
	prefix = prefix || at->first_seq > durable_seq;
	hurt_seqs(at->first_seq, at->first_seq > durable_seq ? last_seq : at->last_seq);
}

/* Nothing is left that could tell more: a lost page or change was about it, and that one is named. */
static bool is_in_range(uint64_t ino)
{
	const char *p;
	unsigned long long from, to;
	unsigned i;

	for (p = findings_text(); (p = strstr(p, "it had items of inodes ")); p++)
		if (sscanf(p, "it had items of inodes %llu to %llu", &from, &to) == 2 && ino >= from && ino <= to)
			return true;
	for (p = findings_text(); (p = strstr(p, ": changes ")); p++)
		if (sscanf(p, ": changes %llu to %llu are lost", &from, &to) == 2)
			for (; from <= to && from < SEQS_MAX; from++)
				for (i = 0; i < TOUCH; i++)
					if (touched[from][i] == ino)
						return true;
	return false;
}

/* Do the findings have this number, not as a part of a longer one? */
static bool is_named(uint64_t ino)
{
	char number[32];
	const char *const text = findings_text(), *p = text;
	size_t n = (size_t)snprintf(number, sizeof number, "%llu", (unsigned long long)ino);

	for (; (p = strstr(p, number)); p++)
		if ((p == text || p[-1] < '0' || p[-1] > '9') && (p[n] < '0' || p[n] > '9') &&
		    ((p >= text + 6 && memcmp(p - 6, "inode ", 6) == 0) ||
		     (p >= text + 10 && memcmp(p - 10, "directory ", 10) == 0)))
			return true;
	return is_in_range(ino);
}

static char about[256];

#define broken(...) \
	do { \
		print_message("# CASE %llu: %s\n%s", (unsigned long long)cases.number, about, \
			      findings_text()); \
		print_replay(); \
		fail_msg(__VA_ARGS__); \
	} while (0)

/* What is there is found, or it is said that it cannot be read: nothing is just missing. */
static void ask_mount(struct keys *m)
{
	struct keys_attr a;
	size_t i;
	int r;

	for (i = 0; i < good.count && !prefix; i++) {
		r = keys_getattr(m, good.nodes[i].a.ino, &a);
		if (r < 0 && r != -EUCLEAN)
			broken("mounted: inode %llu: %d", (unsigned long long)good.nodes[i].a.ino, r);
	}
	for (i = 0; i < good.name_count && !prefix; i++) {
		const struct view_name *n = &good.names[i];

		r = keys_lookup(m, n->dir, n->name, strlen(n->name), &a);
		if ((r < 0 && r != -EUCLEAN) || (r == 0 && a.ino != n->ino))
			broken("mounted: name %s of inode %llu: %d", n->name, (unsigned long long)n->ino, r);
	}
}

static void compare_mount(const struct view *now)
{
	size_t i;

	for (i = 0; i < now->count; i++) {
		const struct view_node *n = &now->nodes[i], *was = view_node(&good, n->a.ino);

		if (prefix && (is_among(hurt, hurt_count, n->a.ino) || !was))
			continue;
		if (!was)
			broken("mounted: inode %llu was never there", (unsigned long long)n->a.ino);
		if (!view_is_part(n, was) || n->a.mode != was->a.mode || n->a.size != was->a.size)
			broken("mounted: inode %llu shows something else", (unsigned long long)n->a.ino);
	}
	for (i = 0; i < now->name_count; i++)
		if (!prefix && !view_has_name(&good, &now->names[i]))
			broken("mounted: the name %s was never there", now->names[i].name);
}

/* Mount it (in memory) and read all of it. */
static void try_mount(void)
{
	const struct store_options o = { .path = path, .read_only = true };
	struct view now;
	struct keys *m;
	int r = keys_open(&o, &m);

	if (r < 0) {
		if ((r != -EUCLEAN && r != -EMEDIUMTYPE) || *err_last() == '\0')
			broken("mount: %d: %s", r, err_last());
		refused++;
		return;
	}
	mounted++;
	r = view_take(&now, m, true);
	ask_mount(m);
	ok(keys_close(m));
	if (r < 0)
		broken("reading the mounted store: %d: %s", r, err_last());
	compare_mount(&now);
	view_release(&now);
}

/* Does check name the damage? */
static void try_check(bool harmless)
{
	const struct check_options co = { .problem = findings_keep, .follows = findings_keep };
	struct check_report rep;
	int r;

	findings_forget();
	r = check_path(path, &co, &rep);
	/* Which says what is wrong by itself. */
	if (r < 0 && (r != -EMEDIUMTYPE || *err_last() == '\0'))
		broken("check: %d: %s", r, err_last());
	if (r == 0 && rep.problems == 0 && !harmless)
		broken("check finds nothing");
}

static void compare_names(const struct view *now)
{
	size_t i;

	for (i = 0; i < good.name_count && !outdated; i++) {
		const struct view_name *n = &good.names[i];

		if (!is_among(hurt, hurt_count, n->ino) && !is_among(nameless, nameless_count, n->ino) &&
		    !(prefix && is_among(hurt, hurt_count, n->dir)) && !view_has_name(now, n)) {
			/* Its directory has no inode any more, and no name: then it is put aside with all that is in it. */
			broken("salvage: the name %s of inode %llu in directory %llu is missing", n->name,
			       (unsigned long long)n->ino, (unsigned long long)n->dir);
		}
	}
}

static void compare_node(const struct view *now, const struct view_node *was)
{
	const struct view_node *n = view_node(now, was->a.ino);
	bool own_hurt = is_among(hurt, hurt_count, was->a.ino);
	struct view_node same;
	const char *what;

	if (!n && outdated)
		return;
	if (!n) {
		if (!own_hurt)
			broken("salvage: inode %llu is missing", (unsigned long long)was->a.ino);
		if (!prefix && !is_named(was->a.ino))
			broken("salvage: inode %llu is missing, and not named", (unsigned long long)was->a.ino);
		return;
	}
	if (outdated)
		return;
	if (!view_is_part(n, was) && !(own_hurt && hurt_count && last_seq > 0 && im.sb.journal.seq < last_seq))
		broken("salvage: inode %llu has something else in it", (unsigned long long)was->a.ino);
	same = *n;
	if (is_among(nameless, nameless_count, was->a.ino)) {
		same.a.nlink = was->a.nlink;
		same.a.aux = was->a.aux;
	}
	what = view_differ(was, &same);
	if (what && !own_hurt)
		broken("salvage: inode %llu: %s", (unsigned long long)was->a.ino, what);
	if (what && !prefix && !is_named(was->a.ino))
		broken("salvage: inode %llu differs in %s, and is not named", (unsigned long long)was->a.ino, what);
}

static void compare_new(const struct salvage_report *rep)
{
	struct keys *m = findings_open_clean(new_path);
	struct view now;
	size_t i;

	ok(view_take(&now, m, false));
	ok(keys_close(m));
	for (i = 0; i < good.count; i++)
		compare_node(&now, &good.nodes[i]);
	compare_names(&now);
	for (i = 0; i < now.count; i++)
		if (!view_node(&good, now.nodes[i].a.ino) && !prefix && hurt_count + nameless_count == 0 &&
		    !(outdated && findings_have("they may be outdated")))
			broken("salvage: inode %llu was never there", (unsigned long long)now.nodes[i].a.ino);
	if (hurt_count + nameless_count == 0 && !outdated && rep->lost > 0)
		broken("salvage: says that something is lost");
	lost_something += rep->lost > 0;
	view_release(&now);
}

static void try_salvage(void)
{
	const struct stream_target target = { .path = new_path, .max_bytes = 32u << 20 };
	const struct salvage_options o = { .say = findings_keep_lost };
	struct salvage_report rep;
	int r;

	findings_forget();
	r = salvage_store(path, &target, &o, &rep);
	/* Of what is outdated there may be more than what there was. */
	if (r == -ENOSPC && outdated)
		return;
	if (r < 0)
		broken("salvage: %d: %s", r, err_last());
	compare_new(&rep);
	assert_int_equal(unlink(new_path), 0);
}

static void damage(enum how how, block_t b, block_t other)
{
	uint8_t *p = image_block(&im, b), page[BLOCK_SIZE];

	switch (how) {
	case ZEROED:
		memset(p, 0, BLOCK_SIZE);
		break;
	case FLIPPED:
		p[random_below(BLOCK_SIZE)] ^= (uint8_t)(1u << random_below(8));
		break;
	default:
		memcpy(page, p, BLOCK_SIZE);
		memcpy(p, image_block(&im, other), BLOCK_SIZE);
		memcpy(image_block(&im, other), page, BLOCK_SIZE);
		break;
	}
}

/* Of the journal, and in headers of segments, not every bit is read; nor is what the journal makes outdated. */
static bool is_harmless(enum how how, block_t b)
{
	const struct place *at = &places[b];
	size_t i;
	seq_t s;

	if (!at->used || at->unwritten || at->first_seq || (at->own_count == 0 && !at->tree && how == FLIPPED))
		return true;
	for (i = 0; i < im.sb.seg_count; i++)
		if (im.sb.segs[i] == b)
			return true;
	for (i = 0; i < at->own_count; i++)
		for (s = im.sb.journal.seq + 1; s <= last_seq; s++)
			if (is_among(touched[s], TOUCH, at->own[i]))
				return true;
	return false;
}

static void one_case(enum how how, block_t b, block_t other)
{
	uint8_t was[BLOCK_SIZE], was_other[BLOCK_SIZE], now[BLOCK_SIZE];
	bool same;

	memcpy(was, image_block(&im, b), BLOCK_SIZE);
	memcpy(was_other, image_block(&im, other), BLOCK_SIZE);
	damage(how, b, other);
	memcpy(now, image_block(&im, b), BLOCK_SIZE);
	same = memcmp(was, now, BLOCK_SIZE) == 0;
	(void)snprintf(about, sizeof about, "block %llu (%s) %s%s%.0llu", (unsigned long long)b,
		       places[b].tree ? "tree" : places[b].first_seq ? "journal" : places[b].used ? "used" : "free",
		       how_names[how], how == SWAPPED ? " with " : "", how == SWAPPED ? (unsigned long long)other : 0ull);
	if (cases_next(&cases) && !same) {
		hurt_count = nameless_count = 0;
		prefix = false;
		outdated = how == SWAPPED && ((places[b].bitmap && places[other].inner) || (places[b].inner && places[other].bitmap));
		if (places[b].used)
			expect_damage(b);
		if (how == SWAPPED && places[other].used)
			expect_damage(other);
		findings_forget();
		try_mount();
		try_check(is_harmless(how, b));
		try_salvage();
		if (memcmp(now, image_block(&im, b), BLOCK_SIZE) != 0)
			broken("the damaged store was changed");
	}
	memcpy(image_block(&im, b), was, BLOCK_SIZE);
	memcpy(image_block(&im, other), was_other, BLOCK_SIZE);
}

static block_t random_used(block_t but)
{
	block_t b;

	do
		b = random_below(im.blocks);
	while (!places[b].used || b == but);
	return b;
}

/* How many of a hundred pages of this sort are tried, in one of the ways each. */
static unsigned share(const struct place *at)
{
	if (cases.full)
		return at->used ? 100 : 1;
	return !at->used ? 0 : at->tree ? 12 : at->own_count ? 3 : 9;
}

static void try_all(void)
{
	block_t b;
	int how;

	mounted = refused = lost_something = 0;
	cases_restart(&cases);
	for (b = 0; b < im.blocks; b++) {
		/* All that there is only once or twice, always. */
		bool single = b <= SUPERS + SLOTS || (b >= SUPER_COPY && b < SUPER_COPY + SUPERS) ||
			      b == im.sb.root.block;

		for (how = 0; how < HOWS; how++)
			if (single || random_below(cases.full ? 100 : 300) < share(&places[b]))
				one_case((enum how)how, b, random_used(b));
	}
	print_message("# %llu cases: mounted %llu times, refused %llu times, something was lost %llu times\n",
		      (unsigned long long)cases.tried, (unsigned long long)mounted, (unsigned long long)refused,
		      (unsigned long long)lost_something);
	assert_true(cases.only || (mounted > 0 && refused > 0 && lost_something > 0));
}

/* Tests ------------------------------------------------------------------------------------------------------------- */

static void test_salvage__closed_store(void **ctx)
{
	(void)ctx;
	make_clean_store();
	survey();
	assert_true(im.blocks > GROUP_BLOCKS && im.sb.root.level >= 2);
	last_seq = durable_seq = im.sb.journal.seq;
	try_all();
	survey_release();
}

static void test_salvage__killed_store(void **ctx)
{
	(void)ctx;
	make_killed_store();
	survey();
	last_seq = see_journal();
	assert_true(last_seq > im.sb.journal.seq + 100);
	/* The last record but one knows how far the disk was. */
	durable_seq = last_seq - 2;
	try_all();
	survey_release();
}

static int setup(void **ctx)
{
	(void)ctx;
	if (scratch_make("salvage") < 0)
		return -1;
	scratch_path(path, "store");
	scratch_path(new_path, "new");
	return 0;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, scratch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_salvage__closed_store),
		T(test_salvage__killed_store),
	};
	int r;

	cases_begin(&cases, "test_salvage", "SALVAGE_FULL");
	ok_failed = print_replay;
	findings_print = cases.only != 0;
	r = cmocka_run_group_tests_name("salvage", tests, NULL, NULL);
	view_release(&good);
	free(hurt);
	free(nameless);
	return r;
}
