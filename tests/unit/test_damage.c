/* SPDX-License-Identifier: MIT
 *
 * test_damage: what check says of damaged stores, compared with a model that was read from the store while it was whole.
 * Every page in use zeroed, bit-flipped, and swapped with another; two pages at once; several at once. After each:
 * - every damaged place is named by its block, none that is whole is;
 * - whatever had something there is named by its number and by a right path, and nothing else is;
 * - the rest is checked: a second damage is found behind the first.
 *
 *   DAMAGE_FULL=1   every page that is used, in each way, and more pairs (make salvage-test); else a sample
 *   SEED=n          replays the sample
 *   ONLY=n          one case, by its number; what check says of it is printed
 */
#include "tests/unit/fill_util.h"
#include "tests/unit/image_util.h"
#include "tests/unit/ok_util.h"
#include "tests/unit/random_util.h"
#include "tests/unit/scratch_util.h"

#include "core/check/check.h"
#include "core/keys/keys_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINES_MAX  4096u
#define LINE_SIZE  2100u
#define DAMAGE_MAX 6u

enum how { ZEROED, FLIPPED, SWAPPED, HOWS };
static const char *const how_names[] = { "zeroed", "flipped", "swapped" };

static char path[SCRATCH_PATH];
static struct cases cases;
static struct keys *k;

static void print_replay(void)
{
	cases_print_replay(&cases);
}

/* A store to damage ------------------------------------------------------------------------------------------------- */

static void make_store(void)
{
	const struct sys_ops sys = fill_sys(cases.seed);
	const struct store_options o = { .path = path, .create = true, .max_bytes = 24u << 20, .sys = &sys };
	uint64_t a, b, file, gone;
	uint32_t nlink;
	unsigned i;

	ok(keys_open(&o, &k));
	a = fill_make(k, KEYS_ROOT_INO, "first", S_IFDIR | 0755);
	b = fill_make(k, fill_make(k, a, "in the middle", S_IFDIR | 0755), "deep", S_IFDIR | 0711);
	fill_files(k, a, 0, 120);
	fill_files(k, b, 0, 120);
	fill_acl(k, b, ACL_DEFAULT_NAME);
	file = fill_make(k, b, "big", S_IFREG | 0644);
	fill_bytes(k, file, 0, 700000);
	fill_bytes(k, file, 123456, 99);
	for (i = 0; i < 500; i++)       /* extents in many leaves */
		fill_bytes(k, file, (1u << 20) + (uint64_t)i * 2 * BLOCK_SIZE, BLOCK_SIZE);
	file = fill_make(k, a, "attrs", S_IFREG | 0664);
	fill_acl(k, file, ACL_ACCESS_NAME);
	for (i = 0; i < 3; i++) {
		char name[32];

		(void)snprintf(name, sizeof name, "user.very long %u", i);
		fill_xattr(k, file, name, 65000);
	}
	file = fill_make(k, a, "hard", S_IFREG | 0640);
	fill_bytes(k, file, 0, 30000);
	fill_link(k, file, b, "hard 2");
	(void)fill_symlink(k, b, "symlink", 10);
	fill_files(k, fill_make(k, KEYS_ROOT_INO, "second", S_IFDIR | 0755), 0, 200);
	/* Outdated pages look as good as others. */
	ok(store_checkpoint(keys_store(k)));
	for (i = 0; i < 40; i++) {
		char name[32];

		(void)snprintf(name, sizeof name, "gone %u", i);
		fill_bytes(k, fill_make(k, KEYS_ROOT_INO, name, S_IFREG | 0600), 0, 900);
	}
	ok(store_checkpoint(keys_store(k)));
	for (i = 0; i < 40; i++) {
		char name[32];

		(void)snprintf(name, sizeof name, "gone %u", i);
		if (i < 38)
			fill_unlink(k, KEYS_ROOT_INO, name);
		else    /* the last two stay, without a name */
			ok(keys_unlink(k, KEYS_ROOT_INO, name, strlen(name), &gone, &nlink));
	}
	ok(store_checkpoint(keys_store(k)));
}

/* The model --------------------------------------------------------------------------------------------------------- */

enum kind { FREE, SUPER, BITMAP, INNER, LEAF, DATA, OTHER };

struct m_block {
	enum kind kind;
	uint64_t ino, fblock;           /* of DATA */
};

struct m_inode {
	uint64_t ino;
	uint32_t nlink;
	bool is_dir, orphan;
	block_t leaf;                   /* has its attributes */
};

struct m_entry {
	uint64_t dir, ino;
	block_t leaf;
	char name[256];
};

/* Something of an inode in a leaf. */
struct m_item {
	uint64_t ino;
	enum item_kind kind;
	block_t leaf;
};

static struct image im;
static uint8_t *good;                   /* the store as it was */
static struct m_block *blocks;
static struct m_inode *inodes;
static struct m_entry *entries;
static struct m_item *items;
static block_t *used, *parent_page;     /* blocks in use; by block: the inner page that leads to it */
static block_t space_leaf;              /* says where the bitmap is */
static size_t inode_count, entry_count, item_count, used_count;

static void *grown(void *array, size_t count, size_t item)
{
	void *p = array;

	if ((count & (count - 1)) == 0)
		p = realloc(array, (count ? 2 * count : 1) * item);
	assert_non_null(p);
	return p;
}

static struct m_inode *m_inode(uint64_t ino)
{
	size_t i;

	for (i = 0; i < inode_count; i++)
		if (inodes[i].ino == ino)
			return &inodes[i];
	return NULL;
}

static void see_item(block_t leaf, struct key key, const uint8_t *v, uint32_t len)
{
	uint64_t ino = key.hi >> 8, i;
	struct keys_attr a;
	struct dirent d;
	struct extent e;

	if (key.hi == KIND_SPACE)
		space_leaf = leaf;
	if (ino == 0)
		return;
	items = grown(items, item_count, sizeof *items);
	items[item_count++] = (struct m_item){ ino, (enum item_kind)(key.hi & 0xff), leaf };
	switch (key.hi & 0xff) {
	case ITEM_INODE:
		assert_int_equal(inode_decode(v, len, ino, &a), 0);
		inodes = grown(inodes, inode_count, sizeof *inodes);
		inodes[inode_count++] = (struct m_inode){ ino, a.nlink, S_ISDIR(a.mode), a.nlink == 0, leaf };
		break;
	case ITEM_DIRENT:
		assert_int_equal(dirent_decode(v, len, key, &d), 0);
		entries = grown(entries, entry_count, sizeof *entries);
		entries[entry_count] = (struct m_entry){ .dir = ino, .ino = d.ino, .leaf = leaf };
		memcpy(entries[entry_count++].name, d.name, d.len);
		break;
	case ITEM_EXTENT:
		assert_int_equal(extent_decode(v, len, key, &e), 0);
		for (i = 0; i < e.count && !(e.flags & EXTENT_UNWRITTEN); i++)
			blocks[e.block + i] = (struct m_block){ DATA, ino, e.fblock + i };
		break;
	default:
		break;
	}
}

static void see_page(void *ctx, const struct image *image, uint8_t *p)
{
	block_t b = get_le64(p + PAGE_BLOCK), child;
	unsigned i;
	gen_t gen;

	(void)ctx;
	(void)image;
	blocks[b].kind = page_level(p) == 0 ? LEAF : INNER;
	for (i = 0; i < page_count(p); i++) {
		uint32_t len;

		if (page_level(p) == 0) {
			const uint8_t *v = leaf_value(p, i, &len);

			see_item(b, page_key(p, i), v, len);
		} else {
			inner_child(p, i, &child, &gen);
			parent_page[child] = b;
		}
	}
}

static void survey(void)
{
	uint64_t b;
	unsigned i;

	image_open(&im, path);
	good = malloc(im.blocks << BLOCK_SHIFT);
	blocks = calloc(im.blocks, sizeof *blocks);
	parent_page = calloc(im.blocks, sizeof *parent_page);
	used = calloc(im.blocks, sizeof *used);
	assert_true(good && blocks && parent_page && used);
	memcpy(good, im.base, im.blocks << BLOCK_SHIFT);
	inode_count = entry_count = item_count = used_count = 0;
	for (i = 0; i < SUPER_PLACES; i++)
		blocks[super_place(i)].kind = SUPER;
	blocks[image_bitmap(&im, 0)].kind = BITMAP;
	image_pages(&im, see_page, NULL);
	for (b = 0; b < im.blocks; b++)
		if (blocks[b].kind != FREE)
			used[used_count++] = b;
	print_message("# SEED=%llu: %llu blocks in use, tree of %u levels\n", (unsigned long long)cases.seed,
		      (unsigned long long)used_count, im.sb.root.level + 1);
}

static void survey_release(void)
{
	free(good);
	free(blocks);
	free(parent_page);
	free(used);
	free(inodes);
	free(entries);
	free(items);
	good = NULL;
	blocks = NULL;
	parent_page = used = NULL;
	inodes = NULL;
	entries = NULL;
	items = NULL;
	image_close(&im);
}

/* Damage ------------------------------------------------------------------------------------------------------------- */

static block_t hit[2 * DAMAGE_MAX];     /* blocks that are not as they were, and are in use */
static unsigned hit_count;

static bool is_hit(block_t b)
{
	unsigned i;

	for (i = 0; i < hit_count; i++)
		if (hit[i] == b)
			return true;
	return false;
}

static void note_hit(block_t b)
{
	if (blocks[b].kind != FREE && !is_hit(b) &&
	    memcmp(image_block(&im, b), good + (b << BLOCK_SHIFT), BLOCK_SIZE) != 0)
		hit[hit_count++] = b;
}

/* Every bit counts but those that nothing reads: of a superblock all do, of a bitmap too. */
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
		note_hit(other);
		break;
	}
	note_hit(b);
}

static void put_back(void)
{
	memcpy(im.base, good, im.blocks << BLOCK_SHIFT);
	hit_count = 0;
}

/* What check says ---------------------------------------------------------------------------------------------------- */

struct line {
	bool follows;
	char text[LINE_SIZE];
};
static struct line *lines;
static size_t line_count;
static char about[512];

static void keep(bool follows, const char *text)
{
	if (cases.only)
		print_message("#   %s%s\n", follows ? "  " : "", text);
	assert_true(line_count < LINES_MAX);
	lines[line_count].follows = follows;
	(void)snprintf(lines[line_count++].text, LINE_SIZE, "%s", text);
}

static void keep_problem(void *ctx, const char *text)
{
	(void)ctx;
	keep(false, text);
}

static void keep_follows(void *ctx, const char *text)
{
	(void)ctx;
	keep(true, text);
}

#define broken(...) \
	do { \
		print_message("# CASE %llu: %s\n", (unsigned long long)cases.number, about); \
		print_replay(); \
		for (size_t at_ = 0; at_ < line_count; at_++) \
			print_message("#   %s%s\n", lines[at_].follows ? "  " : "", lines[at_].text); \
		fail_msg(__VA_ARGS__); \
	} while (0)

/* The blocks that a line names: "block 7", "tree page 7", "blocks 7 to 9". */
static bool names_block(const char *text, block_t b)
{
	static const char *const words[] = { "block ", "blocks ", "tree page " };
	unsigned long long from, to;
	const char *p;
	size_t w;

	for (w = 0; w < ARRAY_LEN(words); w++)
		for (p = text; (p = strstr(p, words[w])); p++) {
			int n = sscanf(p + strlen(words[w]), "%llu to %llu", &from, &to);

			if ((n == 1 && from == b) || (n == 2 && b >= from && b <= to))
				return true;
		}
	return false;
}

static bool below(block_t b, block_t page)
{
	for (; b; b = parent_page[b])
		if (parent_page[b] == page)
			return true;
	return false;
}

/* Does a damaged inner page hide it? */
static bool is_hidden(block_t b)
{
	unsigned i;

	for (i = 0; i < hit_count; i++)
		if (blocks[hit[i]].kind == INNER && below(b, hit[i]))
			return true;
	return false;
}

/* Without the bitmap, what stood below an inner page and what is outdated look the same. */
static bool outdated_may_be_found(void)
{
	bool bitmap = false, inner = false;
	unsigned i;

	for (i = 0; i < hit_count; i++) {
		bitmap = bitmap || blocks[hit[i]].kind == BITMAP;
		inner = inner || blocks[hit[i]].kind == INNER;
	}
	return bitmap && inner;
}

static block_t leaf_of_extent(block_t b);

/* Is the place named? What stood below an inner page that is damaged has no place any more that could be known, but where
 * what is missing must be. Contents that only a lost leaf leads to are unknown. */
static void expect_place(block_t b)
{
	bool hidden = is_hidden(b);
	size_t i;

	if ((blocks[b].kind == DATA && is_hit(leaf_of_extent(b))) || (hidden && outdated_may_be_found()))
		return;
	/* Zeros are what a slot has that was never written; which one counts is not known without its item. */
	if (blocks[b].kind == BITMAP && (is_hit(space_leaf) || is_hidden(space_leaf)) && image_block(&im, b)[0] == 0 &&
	    memcmp(image_block(&im, b), image_block(&im, b) + 1, BLOCK_SIZE - 1) == 0)
		return;
	for (i = 0; i < line_count; i++)
		if ((hidden || !lines[i].follows) && names_block(lines[i].text, b))
			return;
	broken("block %llu is damaged, and not named", (unsigned long long)b);
}

/* Nothing whole is blamed. */
static void expect_blame(const char *text)
{
	unsigned i;

	for (i = 0; i < hit_count; i++) {
		if (names_block(text, hit[i]))
			return;
		/* Of the three slots nobody knows which one it was. */
		if (blocks[hit[i]].kind == BITMAP && strstr(text, "free-space bitmap of group 0"))
			return;
	}
	broken("\"%s\" is about nothing that is damaged", text);
}

/* Paths -------------------------------------------------------------------------------------------------------------- */

/* Is the path one of the inode's? Both without the beginning if it is not known. */
static bool path_is(uint64_t ino, const char *p, size_t len)
{
	size_t i, n;

	for (i = 0; i < entry_count; i++) {
		n = strlen(entries[i].name);
		if (entries[i].ino != ino || n > len || memcmp(p + len - n, entries[i].name, n) != 0)
			continue;
		if (len == n)
			return true;
		if (p[len - n - 1] != '/')
			continue;
		if (len == n + 1 ? entries[i].dir == KEYS_ROOT_INO : path_is(entries[i].dir, p, len - n - 1))
			return true;
	}
	return false;
}

/* All of its names lead up to the root over leaves that are whole. */
static bool path_known(uint64_t ino)
{
	bool any = false;
	size_t i;

	if (ino == KEYS_ROOT_INO)
		return true;
	for (i = 0; i < entry_count; i++) {
		if (entries[i].ino != ino)
			continue;
		any = true;
		if (is_hit(entries[i].leaf) || !path_known(entries[i].dir))
			return false;
	}
	return any;
}

/* "17 (/a/b)..." at the beginning of a text is right. */
static void expect_path(const char *text, const char *line)
{
	unsigned long long ino;
	const char *p, *end;
	int n;

	if (sscanf(text, "%llu%n", &ino, &n) != 1)
		return;
	p = text + n;
	if (strncmp(p, " (", 2) != 0) {
		if (path_known(ino) && m_inode(ino) && !m_inode(ino)->orphan)
			broken("\"%s\" has no path of inode %llu", line, ino);
		return;
	}
	p += 2;
	end = strpbrk(p, ",)");
	if (strncmp(p, "unlinked)", 9) == 0) {
		if (!m_inode(ino) || !m_inode(ino)->orphan)
			broken("\"%s\": inode %llu has names", line, ino);
		return;
	}
	if (end && strstr(p, " below inode ") && strstr(p, " below inode ") < end) {
		if (path_known(ino))
			broken("\"%s\": the path of inode %llu is known", line, ino);
		end = strstr(p, " below inode ");
	} else if (*p != '/') {
		broken("\"%s\": no path", line);
	}
	if (!end || (ino == KEYS_ROOT_INO ? end - p != 1 : !path_is(ino, p, (size_t)(end - p))))
		broken("\"%s\": that is no path of inode %llu", line, ino);
}

/* Which inode the line is about; 0: none. */
static uint64_t subject(const char *text)
{
	unsigned long long ino;

	if (sscanf(text, "inode %llu", &ino) == 1 || sscanf(text, "directory %llu", &ino) == 1 ||
	    sscanf(text, "symbolic link %llu", &ino) == 1)
		return ino;
	return 0;
}

static bool told(uint64_t ino, bool follows, const char *words)
{
	size_t i;

	for (i = 0; i < line_count; i++)
		if (lines[i].follows == follows && subject(lines[i].text) == ino && strstr(lines[i].text, words))
			return true;
	return false;
}

/* Is the number in what a line says of a page's inodes? */
static bool in_range(uint64_t ino)
{
	unsigned long long from, to;
	const char *p;
	size_t i;

	for (i = 0; i < line_count; i++) {
		p = strstr(lines[i].text, " of inodes ");
		if (p && sscanf(p, " of inodes %llu to %llu", &from, &to) == 2 && ino >= from && ino <= to)
			return true;
	}
	return false;
}

static void expect_contents(block_t b)
{
	char words[96];

	if (is_hit(leaf_of_extent(b)) || is_hidden(b))
		return;
	(void)snprintf(words, sizeof words, "contents at bytes");
	if (!told(blocks[b].ino, false, words))
		broken("contents of inode %llu in block %llu are not told", (unsigned long long)blocks[b].ino,
		       (unsigned long long)b);
}

/* An item was in a leaf that is lost. */
static void expect_item(const struct m_item *it)
{
	const struct m_inode *n = m_inode(it->ino);
	bool head = n && !is_hit(n->leaf);

	if (!in_range(it->ino))
		broken("inode %llu had something in tree page %llu, which is not told", (unsigned long long)it->ino,
		       (unsigned long long)it->leaf);
	/* If its attributes and its names are lost too, nothing but the range is known. */
	if (!head && !path_known(it->ino))
		return;
	if (!head && !told(it->ino, true, "lost"))
		broken("that inode %llu is lost is not told", (unsigned long long)it->ino);
	if (!head)
		return;
	if (it->kind == ITEM_DIRENT && !told(it->ino, true, "names are lost"))
		broken("directory %llu has lost names, which is not told", (unsigned long long)it->ino);
	if (it->kind == ITEM_EXTENT && !told(it->ino, true, "contents at bytes"))
		broken("inode %llu has lost contents, which is not told", (unsigned long long)it->ino);
	if (it->kind == ITEM_XATTR && !told(it->ino, true, "extended attributes may be lost"))
		broken("inode %llu has lost attributes, which is not told", (unsigned long long)it->ino);
}

static void expect_leaf(block_t b)
{
	size_t i;

	if (is_hidden(b))
		return;
	for (i = 0; i < item_count; i++)
		if (items[i].leaf == b)
			expect_item(&items[i]);
	/* Who had a name there, and has its attributes. */
	for (i = 0; i < entry_count; i++) {
		const struct m_inode *n = m_inode(entries[i].ino);

		if (entries[i].leaf == b && n && !is_hit(n->leaf) && !told(entries[i].ino, true, "name"))
			broken("inode %llu has lost a name, which is not told", (unsigned long long)entries[i].ino);
	}
}

/* Something of it, or a name, was in what is damaged. */
static bool is_touched(uint64_t ino)
{
	size_t i;

	for (i = 0; i < item_count; i++)
		if (items[i].ino == ino && (is_hit(items[i].leaf) || is_hidden(items[i].leaf)))
			return true;
	for (i = 0; i < entry_count; i++)
		if (entries[i].ino == ino && (is_hit(entries[i].leaf) || is_hidden(entries[i].leaf)))
			return true;
	for (i = 0; i < hit_count; i++)
		if (blocks[hit[i]].kind == DATA && blocks[hit[i]].ino == ino)
			return true;
	return false;
}

static void expect_line(const struct line *l)
{
	uint64_t ino = subject(l->text);
	const char *p;

	if (!l->follows)
		expect_blame(l->text);
	if (outdated_may_be_found())
		return;
	/* What stood below an inner page is all found. */
	if (ino && hit_count == 1 && blocks[hit[0]].kind == INNER)
		broken("\"%s\": nothing of inode %llu is lost", l->text, (unsigned long long)ino);
	if (ino && !is_touched(ino))
		broken("\"%s\": inode %llu was not hurt", l->text, (unsigned long long)ino);
	if (ino)
		expect_path(strchr(l->text + (strncmp(l->text, "symbolic", 8) == 0 ? 9 : 0), ' ') + 1, l->text);
	p = strstr(l->text, ", from ");
	if (p)
		expect_path(p + 7, l->text);
	p = p ? strstr(p, " to ") : NULL;
	(void)p;        /* the second path may hold " to " itself: the first is enough */
}

static block_t leaf_of_extent(block_t b)
{
	const struct key key = item_key(blocks[b].ino, ITEM_EXTENT, blocks[b].fblock);
	struct image was = im;
	unsigned i;
	bool found;

	was.base = good;
	return get_le64(image_leaf(&was, key, &i, &found) + PAGE_BLOCK);
}

static void ask_check(void)
{
	const struct check_options o = { .problem = keep_problem, .follows = keep_follows };
	struct check_report rep;
	unsigned i, supers = 0;
	size_t n;
	int r;

	line_count = 0;
	r = check_path(path, &o, &rep);
	for (i = 0; i < hit_count; i++)
		supers += blocks[hit[i]].kind == SUPER;
	if (r < 0)
		broken("check: %d: %s", r, err_last());
	if (hit_count > 0 && rep.problems == 0)
		broken("no problem is found");
	if (hit_count == 0 && line_count > 0)
		broken("a whole store is blamed");
	for (i = 0; i < hit_count; i++) {
		expect_place(hit[i]);
		if (blocks[hit[i]].kind == DATA)
			expect_contents(hit[i]);
		else if (blocks[hit[i]].kind == LEAF)
			expect_leaf(hit[i]);
	}
	/* Without superblocks more is not known. */
	for (n = 0; n < line_count && supers < SUPER_PLACES; n++)
		expect_line(&lines[n]);
}

static void describe(void)
{
	static const char *const kinds[] = { "free", "superblock", "bitmap", "inner page", "leaf", "contents", "other" };
	size_t at = strlen(about);
	unsigned i;

	for (i = 0; i < hit_count && at < sizeof about; i++)
		at += (size_t)snprintf(about + at, sizeof about - at, "; %llu is %s%s", (unsigned long long)hit[i],
				       kinds[blocks[hit[i]].kind], is_hidden(hit[i]) ? ", hidden" : "");
}

/* Tests -------------------------------------------------------------------------------------------------------------- */

static block_t random_used(void)
{
	return used[random_below(used_count)];
}

/* Metadata is what is interesting; most blocks are contents. */
static block_t random_page(void)
{
	block_t b;

	do
		b = random_used();
	while (blocks[b].kind == DATA && random_below(8) > 0);
	return b;
}

static void one_case(unsigned count, const enum how *how, const block_t *b, const block_t *other)
{
	unsigned i;

	about[0] = '\0';
	for (i = 0; i < count; i++) {
		size_t at = strlen(about);

		(void)snprintf(about + at, sizeof about - at, "%sblock %llu %s", i ? ", " : "", (unsigned long long)b[i],
			       how_names[how[i]]);
		damage(how[i], b[i], other[i]);
	}
	if (cases_next(&cases)) {
		describe();
		ask_check();
	}
	put_back();
}

static void begin(void)
{
	cases_restart(&cases);
	hit_count = 0;
	make_store();
	ok(keys_close(k));
	survey();
	assert_true(im.sb.root.level >= 2);
}

static void end(void)
{
	print_message("# %llu cases\n", (unsigned long long)cases.tried);
	assert_true(cases.only || cases.tried > 0);
	survey_release();
}

static void test_damage__one_page(void **ctx)
{
	size_t i;
	enum how how;

	(void)ctx;
	begin();
	for (i = 0; i < used_count; i++)
		for (how = ZEROED; how < HOWS; how++) {
			block_t b = used[i], other = random_used();
			enum kind kind = blocks[b].kind;

			if (cases.full || kind == SUPER || kind == BITMAP || kind == INNER ||
			    random_below(100) < (kind == LEAF ? 40 : 5))
				one_case(1, &how, &b, &other);
		}
	end();
}

/* None is missed behind another, and both are named in full. */
static void test_damage__several_pages(void **ctx)
{
	unsigned n, i, rounds = cases.full ? 3000 : 300;

	(void)ctx;
	begin();
	for (n = 0; n < rounds; n++) {
		enum how how[DAMAGE_MAX];
		block_t b[DAMAGE_MAX], other[DAMAGE_MAX];
		unsigned count = n % 3 ? 2 : 2 + (unsigned)random_below(DAMAGE_MAX - 1);

		for (i = 0; i < count; i++) {
			how[i] = (enum how)random_below(HOWS);
			b[i] = random_page();
			other[i] = random_page();
		}
		one_case(count, how, b, other);
	}
	end();
}

/* Somebody else has it open: the checkpoint is checked, with the same result. */
static void test_damage__while_it_is_open(void **ctx)
{
	struct store_options o = { .path = path };
	unsigned n;

	(void)ctx;
	cases_restart(&cases);
	hit_count = 0;
	make_store();
	ok(keys_close(k));
	ok(keys_open(&o, &k));
	survey();
	/* What it wrote when it opened the store. */
	for (n = 0; n < (cases.full ? 300u : 40u); n++) {
		enum how how = (enum how)random_below(2);
		block_t b = random_page(), other = b;

		if (blocks[b].kind != SUPER)
			one_case(1, &how, &b, &other);
	}
	survey_release();
	ok(keys_close(k));
}

/* Changes that only the journal has, one of them damaged, and a page of the checkpoint too. */
static void test_damage__journal_and_a_page(void **ctx)
{
	char name[32];
	unsigned i, n, tried = 0;
	uint64_t where;

	(void)ctx;
	cases_restart(&cases);
	hit_count = 0;
	make_store();
	where = fill_make(k, KEYS_ROOT_INO, "fresh", S_IFDIR | 0755);
	for (i = 0; i < 60; i++) {
		(void)snprintf(name, sizeof name, "new %u", i);
		fill_bytes(k, fill_make(k, where, name, S_IFREG | 0644), 0, 700);
		if (i % 3 == 0)
			ok(store_sync(keys_store(k)));
	}
	ok(store_sync(keys_store(k)));
	(void)fill_make(k, where, "last", S_IFREG | 0644);
	(void)fill_make(k, where, "very last", S_IFREG | 0644);
	scratch_kill(k, path);
	survey();
	for (n = 0; n < (cases.full ? 400u : 60u); n++) {
		uint64_t start = im.sb.journal.pos & (((uint64_t)1 << im.sb.seg_shift) - 1);
		/* Not at its end, where nobody could prove that it was on disk. */
		uint64_t byte = (im.sb.segs[0] << BLOCK_SHIFT) + start + 200 + random_below(30000);
		const struct check_options o = { .problem = keep_problem, .follows = keep_follows };
		block_t b = random_page(), journal = byte >> BLOCK_SHIFT;
		struct check_report rep;
		bool page = false, record = false;
		size_t at;

		if (blocks[b].kind == FREE || blocks[b].kind == BITMAP)
			continue;
		memset(image_block(&im, journal), 0, BLOCK_SIZE);
		image_block(&im, b)[100 + random_below(3000)] ^= 8;
		note_hit(b);
		(void)snprintf(about, sizeof about, "journal page %llu, and block %llu", (unsigned long long)journal,
			       (unsigned long long)b);
		if (cases_next(&cases)) {
			describe();
			line_count = 0;
			ok(check_path(path, &o, &rep));
			for (at = 0; at < line_count; at++) {
				unsigned long long where_byte;
				const char *p = strstr(lines[at].text, "the journal is damaged at byte ");

				page = page || names_block(lines[at].text, b);
				if (!p || lines[at].follows)
					continue;
				record = sscanf(p, "the journal is damaged at byte %llu", &where_byte) == 1 &&
					 where_byte >> BLOCK_SHIFT <= journal;
			}
			if (!record)
				broken("the journal's damage is not named");
			if (!page && !is_hidden(b))
				broken("the page's damage is not named");
			tried++;
		}
		put_back();
	}
	assert_true(cases.only || tried > 10);
	survey_release();
}

/* Ask check, and keep the lines. */
static struct check_report ask(void)
{
	const struct check_options o = { .problem = keep_problem, .follows = keep_follows };
	struct check_report rep;

	line_count = 0;
	ok(check_path(path, &o, &rep));
	return rep;
}

static bool says(bool follows, const char *words)
{
	size_t i;

	for (i = 0; i < line_count; i++)
		if (lines[i].follows == follows && strstr(lines[i].text, words))
			return true;
	return false;
}

/* What leads to the rest is gone, all four times. The rest is found and checked all the same. */
static void test_damage__no_superblock(void **ctx)
{
	char words[64];
	block_t b = 0;
	unsigned i;

	(void)ctx;
	begin();
	for (i = 0; i < SUPER_PLACES; i++)
		image_block(&im, super_place(i))[50 + i] ^= 1;
	while (blocks[b].kind != DATA)
		b++;
	image_block(&im, b)[7] ^= 1;
	(void)ask();
	for (i = 0; i < SUPER_PLACES; i++) {
		(void)snprintf(words, sizeof words, "superblock %u (byte %llu) is damaged", i % SUPERS,
			       (unsigned long long)super_place(i) * BLOCK_SIZE);
		if (!says(false, words))
			broken("superblock %u is not named", i);
	}
	if (!says(false, "no superblock is left"))
		broken("that none is left is not said");
	note_hit(b);
	expect_place(b);
	for (i = 0; i < line_count; i++)
		if (subject(lines[i].text))
			expect_path(strchr(lines[i].text, ' ') + 1, lines[i].text);
	/* Nothing is one: then it is no store any more. */
	for (i = 0; i < SUPER_PLACES; i++)
		memset(image_block(&im, super_place(i)), 0, BLOCK_SIZE);
	assert_int_equal(check_path(path, &(struct check_options){ .problem = NULL }, &(struct check_report){ 0 }),
			 -EMEDIUMTYPE);
	survey_release();
}

/* The end of the file is gone: whose contents were there? */
static void test_damage__cut_short(void **ctx)
{
	block_t b, last = 0;
	unsigned i;

	(void)ctx;
	begin();
	for (b = 0; b < im.blocks; b++)
		if (blocks[b].kind == DATA)
			last = b;
	assert_int_equal(truncate(path, (off_t)(last << BLOCK_SHIFT)), 0);
	(void)ask();
	if (!says(false, "the store is cut short"))
		broken("that it is cut short is not said");
	if (!told(blocks[last].ino, true, "behind the end of the store"))
		broken("inode %llu had contents there, which is not told", (unsigned long long)blocks[last].ino);
	for (i = 0; i < line_count; i++)
		if (subject(lines[i].text))
			expect_path(strchr(lines[i].text, ' ') + 1, lines[i].text);
	survey_release();
}

/* All that is there is in order, but it cannot be opened: that is never clean. */
static void test_damage__impossible_superblock(void **ctx)
{
	struct check_report rep;

	(void)ctx;
	begin();
	im.sb.journal.pos++;
	image_write_super(&im);
	rep = ask();
	if (rep.problems == 0 || !says(false, "journal position"))
		broken("that it cannot be opened is not said");
	survey_release();
}

static int setup(void **ctx)
{
	(void)ctx;
	if (scratch_make("damage") < 0)
		return -1;
	scratch_path(path, "store");
	return 0;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, scratch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_damage__one_page),
		T(test_damage__several_pages),
		T(test_damage__while_it_is_open),
		T(test_damage__journal_and_a_page),
		T(test_damage__no_superblock),
		T(test_damage__cut_short),
		T(test_damage__impossible_superblock),
	};
	int r;

	cases_begin(&cases, "test_damage", "DAMAGE_FULL");
	ok_failed = print_replay;
	lines = calloc(LINES_MAX, sizeof *lines);
	assert_non_null(lines);
	r = cmocka_run_group_tests_name("damage", tests, NULL, NULL);
	free(lines);
	return r;
}
