/* SPDX-License-Identifier: MIT
 *
 * tree: see tree.h. Changes go top-down: each page on the way to the leaf is made writable (copied if it is older than the
 * current generation), its parent already being so; full inner pages are split on the way, so a split never has to go back
 * up. Invariants:
 * (T1) a page of the current generation is reachable from exactly one parent, of the current generation too;
 * (T2) every inner page but the root has at least one entry, every leaf but the root at least one item;
 * (T3) after any error the tree holds the same items as before;
 * (T4) a finger names a leaf of the tree as it is, and bounds that the inner pages above it give.
 *
 * An operation on a file touches the same few leaves several times (its directory, its inode), so the last leaves are
 * remembered: a finger saves the way down. What moves a leaf moves its finger; what changes bounds drops all fingers.
 */
#include "core/store/tree.h"

#include <stdlib.h>

/* 8 MiB of memory, touched as it is needed: the pages of about ten million keys. A miss costs one checksum. */
#ifndef VERIFIED_BITS
#define VERIFIED_BITS 20u
#endif
#define VERIFIED_SIZE (1u << VERIFIED_BITS)

struct tree_path {
	struct {
		uint8_t *page;
		unsigned i;
	} at[TREE_LEVELS];      /* by level */
};

int tree_init(struct tree *t, struct map *map, struct space *space, uint64_t store_id)
{
	memset(t, 0, sizeof *t);
	t->map = map;
	t->space = space;
	t->store_id = store_id;
	t->verified = calloc(VERIFIED_SIZE, sizeof *t->verified);
	return t->verified ? 0 : -ENOMEM;
}

void tree_release(struct tree *t)
{
	free(t->verified);
	t->verified = NULL;
}

/* What the cache remembers of a page. */
static uint64_t verified_tag(const struct tree *t, block_t block, gen_t gen)
{
	return mul_fold64(block ^ t->tag_seed, gen ^ (t->tag_seed << 32 | t->tag_seed >> 32)) | 1;
}

/* Pages that are made together are looked at together: neighbours share lines of the CPU's caches here too. */
static uint64_t *verified_slot(const struct tree *t, block_t block)
{
	return &t->verified[block % VERIFIED_SIZE];
}

/* Fingers --------------------------------------------------------------------------------------------------------- */

static struct tree_finger *finger_of(struct tree *t, struct key k)
{
	return &t->finger[(k.hi * 0x9e3779b97f4a7c15ull) >> 61];
}
_Static_assert(TREE_FINGERS == 8, "a finger's number has three bits");

/* The leaf that k belongs to, if it was met before. */
static const uint8_t *finger_leaf(struct tree *t, struct key k)
{
	const struct tree_finger *f = finger_of(t, k);

	/* A leaf that is gone is found out on the way down. */
	return f->leaf && key_cmp(f->low, k) <= 0 && key_cmp(k, f->high) < 0 &&
	       get_le32(f->leaf + PAGE_MAGIC_OFF) == PAGE_MAGIC && map_failed(t->map) == 0 ? f->leaf : NULL;
}

/* Bounds have changed. */
static void fingers_drop(struct tree *t)
{
	unsigned i;

	for (i = 0; i < TREE_FINGERS; i++)
		t->finger[i].leaf = NULL;
}

/* The leaf `from` was copied to `to`. */
static void fingers_move(struct tree *t, const uint8_t *from, const uint8_t *to)
{
	unsigned i;

	for (i = 0; i < TREE_FINGERS; i++)
		if (t->finger[i].leaf == from)
			t->finger[i].leaf = to;
}

void tree_forget_all(struct tree *t)
{
	fingers_drop(t);
	/* Tags that were made with another seed are nobody's. */
	t->tag_seed = mul_fold64(t->tag_seed ^ 0x9e3779b97f4a7c15ull, 0xbf58476d1ce4e5b9ull);
}

void tree_forget(struct tree *t, block_t block, uint64_t count)
{
	const uint8_t *first = map_place(t->map, block), *end = first + (count << BLOCK_SHIFT);
	unsigned i;

	for (i = 0; i < TREE_FINGERS; i++)
		if (t->finger[i].leaf >= first && t->finger[i].leaf < end)
			t->finger[i].leaf = NULL;
	for (; count > 0; block++, count--) {
		uint64_t *v = verified_slot(t, block);

		/* Most are 0, and stay pages that nobody has touched. */
		if (*v != 0)
			*v = 0;
	}
}

/* Pages ----------------------------------------------------------------------------------------------------------- */

/* A page met for the first time, as its parent names it. */
static int verify_page(const struct tree *t, block_t block, gen_t gen, unsigned level)
{
	const uint8_t *p;
	int r;

	if (block >= map_blocks(t->map) || block % GROUP_BLOCKS < group_fixed(block / GROUP_BLOCKS) ||
	    (block >= SUPER_COPY && block < SUPER_COPY + SUPERS) ||
	    (t->taken && t->taken(t->taken_ctx, block)))
		return err_corrupt(PAGE_AT " lies outside the store or on reserved blocks",
				   PAGE_AT_ARGS(block));
	p = map_block(t->map, block);
	if (gen <= t->sealed && get_le64(p + PAGE_CSUM) != page_csum(p, block))
		return err_corrupt(PAGE_AT ": checksum does not match", PAGE_AT_ARGS(block));
	r = page_validate(p, block, gen, level, t->store_id);
	if (r < 0)
		return r;
	if (level == 0 && page_count(p) == 0 && block != t->root.block)
		return err_corrupt(PAGE_AT " is an empty leaf", PAGE_AT_ARGS(block));
	return 0;
}

int tree_page(const struct tree *t, block_t block, gen_t gen, unsigned level, const uint8_t **ret_page)
{
	const uint8_t *p;
	uint64_t *v, tag;
	int r;

	/* No page that was read from a file names one that is younger than the superblock (page_validate()): it is ours. But
	 * once the mapping has failed nothing is trusted for having been right before: a change may have been left half-way,
	 * and pages may be gone. */
	if (gen <= t->sealed || map_failed(t->map) != 0) {
		v = verified_slot(t, block);
		tag = verified_tag(t, block, gen);
		if (*v != tag || map_failed(t->map) != 0) {
			r = verify_page(t, block, gen, level);
			if (r < 0)
				return r;
			*v = tag;
		}
	}
	/* Not before: until now it may be any number. */
	p = map_block(t->map, block);
	/* Zeros, where somebody cut the file and made it long again. */
	if (get_le32(p + PAGE_MAGIC_OFF) != PAGE_MAGIC)
		return err_corrupt(PAGE_AT " is gone", PAGE_AT_ARGS(block));
	/* The cache does not know the level that this parent claims. */
	if (page_level(p) != level)
		return err_corrupt(PAGE_AT " has level %u, not %u", PAGE_AT_ARGS(block), page_level(p), level);
	*ret_page = p;
	return 0;
}

static int new_page(struct tree *t, unsigned level, uint8_t **ret_page, block_t *ret_block)
{
	block_t block;
	int r = space_alloc_meta(t->space, &block);

	if (r < 0)
		return r;
	*ret_page = map_block(t->map, block);
	page_init(*ret_page, block, t->space->gen, t->store_id, level);
	*verified_slot(t, block) = verified_tag(t, block, t->space->gen);
	*ret_block = block;
	return 0;
}

int tree_create(struct tree *t)
{
	uint8_t *page;
	int r = new_page(t, 0, &page, &t->root.block);

	if (r < 0)
		return r;
	t->root.gen = t->space->gen;
	t->root.level = 0;
	return 0;
}

/* The page, copied if it is older than C; *block and *gen become those of the copy. */
static int writable(struct tree *t, block_t *block, gen_t *gen, unsigned level, uint8_t **ret_page)
{
	const uint8_t *old = NULL;
	block_t copy;
	int r = tree_page(t, *block, *gen, level, &old);

	if (r < 0)
		return r;
	if (*gen == t->space->gen) {
		*ret_page = map_block(t->map, *block);
		return 0;
	}
	r = space_alloc_meta(t->space, &copy);
	if (r < 0)
		return r;
	if (copy == *block)
		return err_corrupt(PAGE_AT " is marked as free", PAGE_AT_ARGS(copy));
	r = space_free_meta(t->space, *block, *gen);
	if (r < 0) {
		(void)space_free_meta(t->space, copy, t->space->gen);
		return r;
	}
	*ret_page = map_block(t->map, copy);
	page_copy(*ret_page, old, copy, t->space->gen);
	*verified_slot(t, copy) = verified_tag(t, copy, t->space->gen);
	if (level == 0)
		fingers_move(t, old, *ret_page);
	*block = copy;
	*gen = t->space->gen;
	return 0;
}

static int writable_root(struct tree *t, uint8_t **ret_page)
{
	return writable(t, &t->root.block, &t->root.gen, t->root.level, ret_page);
}

static int writable_child(struct tree *t, uint8_t *parent, unsigned i, uint8_t **ret_page)
{
	block_t block, was;
	gen_t gen;
	int r;

	inner_child(parent, i, &block, &gen);
	was = block;
	r = writable(t, &block, &gen, page_level(parent) - 1, ret_page);
	if (r == 0 && block != was)
		inner_set_child(parent, i, block, gen);
	return r;
}

/* Put a new root above the old one. */
static int raise_root(struct tree *t, uint8_t **ret_page)
{
	uint8_t *page;
	block_t block;
	int r;

	if (t->root.level + 1 >= TREE_LEVELS)
		return err_corrupt("the tree is higher than %u levels", TREE_LEVELS);
	r = new_page(t, t->root.level + 1, &page, &block);
	if (r < 0)
		return r;
	inner_insert(page, 0, (struct key){ 0, 0 }, t->root.block, t->root.gen);
	t->root = (struct tree_root){ block, t->space->gen, t->root.level + 1 };
	*ret_page = page;
	return 0;
}

/* Split the full inner page that is child i of parent (which has room). */
static int split_inner(struct tree *t, uint8_t *parent, unsigned i, uint8_t *page)
{
	unsigned half = page_count(page) / 2;
	uint8_t *right;
	block_t block;
	int r = new_page(t, page_level(page), &right, &block);

	if (r < 0)
		return r;
	inner_move_tail(page, half, right);
	inner_insert(parent, i + 1, page_key(right, 0), block, t->space->gen);
	return 0;
}

/* Make the path to k writable, with room in each inner page for one more entry if `grow`. */
static int path_writable(struct tree *t, struct key k, bool grow, struct tree_path *path)
{
	uint8_t *page, *child;
	unsigned level;
	int r = writable_root(t, &page);

	if (r < 0)
		return r;
	if (grow && t->root.level > 0 && page_count(page) == INNER_MAX) {
		uint8_t *old = page;

		r = raise_root(t, &page);
		if (r < 0)
			return r;
		r = split_inner(t, page, 0, old);
		if (r < 0)
			return r;
	}
	for (level = t->root.level; level > 0; level--) {
		unsigned i = inner_find(page, k);

		r = writable_child(t, page, i, &child);
		if (r < 0)
			return r;
		if (grow && level > 1 && page_count(child) == INNER_MAX) {
			r = split_inner(t, page, i, child);
			if (r < 0)
				return r;
			i = inner_find(page, k);
			r = writable_child(t, page, i, &child);
			if (r < 0)
				return r;
		}
		path->at[level].page = page;
		path->at[level].i = i;
		page = child;
	}
	path->at[0].page = page;
	path->at[0].i = 0;
	return 0;
}

/* The header and the first entries of a page that is looked at next: their lines are fetched side by side. */
static void prefetch(const struct tree *t, block_t block)
{
	const uint8_t *p;
	unsigned i;

	/* It may be any number: whoever looks at it says so. */
	if (block >= map_blocks(t->map))
		return;
	p = map_block(t->map, block);
	for (i = 0; i < 5; i++)
		__builtin_prefetch(p + i * 64);
	__builtin_prefetch(verified_slot(t, block));
}

/* Down to the leaf that k belongs to, which gets the finger. With a cursor the way is kept. */
static int find_leaf(struct tree *t, struct key k, struct tree_cursor *c, const uint8_t **ret_leaf)
{
	struct tree_finger f = { NULL, { 0, 0 }, { UINT64_MAX, UINT64_MAX } };
	block_t block = t->root.block;
	gen_t gen = t->root.gen;
	unsigned level = t->root.level, i;
	const uint8_t *page;

	for (;; level--) {
		int r = tree_page(t, block, gen, level, &page);

		if (r < 0)
			return r;
		if (c)
			c->path[level].page = page;
		if (level == 0)
			break;
		i = inner_near(page, k, f.low, f.high);
		if (i > 0)
			f.low = page_key(page, i);
		if (i + 1 < page_count(page))
			f.high = page_key(page, i + 1);
		if (c)
			c->path[level].i = i;
		inner_child(page, i, &block, &gen);
		prefetch(t, block);
	}
	f.leaf = page;
	*finger_of(t, k) = f;
	*ret_leaf = page;
	return 0;
}

/* In the leaf that has k's finger, whose bounds tell about where it is. */
static unsigned lower_in_leaf(struct tree *t, const uint8_t *leaf, struct key k, bool *ret_found)
{
	const struct tree_finger *f = finger_of(t, k);

	return page_near(leaf, k, f->low, f->high, ret_found);
}

int tree_get(struct tree *t, struct key k, const uint8_t **ret_value, uint32_t *ret_len)
{
	const uint8_t *leaf = finger_leaf(t, k);
	unsigned i;
	bool found;

	if (!leaf) {
		int r = find_leaf(t, k, NULL, &leaf);

		if (r < 0)
			return r;
	}
	i = lower_in_leaf(t, leaf, k, &found);
	if (!found)
		return -ENOENT;
	*ret_value = leaf_value(leaf, i, ret_len);
	return 0;
}

/* The leaf of k by its finger, if it may be changed in place. By (T1) all pages above it are of C then, too. */
static uint8_t *finger_writable(struct tree *t, struct key k)
{
	const uint8_t *leaf = finger_leaf(t, k);

	return leaf && page_gen(leaf) == t->space->gen ? t->map->base + (leaf - t->map->base) : NULL;
}

/* True if no leaf stands to the right of the path. */
static bool is_rightmost(const struct tree *t, const struct tree_path *path)
{
	unsigned level;

	for (level = 1; level <= t->root.level; level++)
		if (path->at[level].i + 1 != page_count(path->at[level].page))
			return false;
	return true;
}

/* Where to split a leaf that gets a new item of `size` bytes before entry i: the number of entries, counted with the new one, that stay left. */
static unsigned split_point(const uint8_t *page, unsigned i, unsigned size, bool append)
{
	unsigned n = page_count(page) + 1, total = leaf_used(page) + size, left = 0, best = 1, j;
	const unsigned capacity = BLOCK_SIZE - PAGE_ENTRIES;
	unsigned best_gap = ~0u;

	if (append && i == n - 1)
		return n - 1;
	for (j = 0; j + 1 < n; j++) {
		uint32_t len;
		unsigned gap;

		if (j == i) {
			left += size;
		} else {
			(void)leaf_value(page, j < i ? j : j - 1, &len);
			left += LEAF_ENTRY + len;
		}
		if (left > capacity || total - left > capacity)
			continue;
		gap = left > total - left ? 2 * left - total : total - 2 * left;
		if (gap < best_gap) {
			best_gap = gap;
			best = j + 1;
		}
	}
	return best;
}

/* Split the leaf of the path so that an item of `size` bytes fits before entry i; *page and *i move along. */
static int split_leaf(struct tree *t, struct tree_path *path, struct key k, unsigned size, uint8_t **page, unsigned *i)
{
	/* Files grow at their end and new inodes come last: fill the left page to the brim there. */
	bool append = is_rightmost(t, path) || (k.hi & 0xff) == 4;
	unsigned left, moved;
	uint8_t *parent, *right;
	struct key sep;
	block_t block;
	int r;

	if (t->root.level == 0) {
		r = raise_root(t, &path->at[1].page);
		if (r < 0)
			return r;
		path->at[1].i = 0;
	}
	fingers_drop(t);
	parent = path->at[1].page;
	left = split_point(*page, *i, size, append);
	r = new_page(t, 0, &right, &block);
	if (r < 0)
		return r;
	moved = left > *i ? left - 1 : left;    /* first entry, counted without the new one, that goes right */
	sep = left == *i ? k : page_key(*page, moved);
	if (moved < page_count(*page))
		leaf_move_tail(*page, moved, right);
	inner_insert(parent, path->at[1].i + 1, sep, block, t->space->gen);
	if (left <= *i) {
		*i -= left;
		*page = right;
	}
	return 0;
}

/* Put the item into this leaf if there is room. */
static bool put_in_leaf(uint8_t *page, struct key k, uint32_t len, uint8_t **ret_value)
{
	uint32_t old_len;
	unsigned i;
	bool found;

	i = page_lower(page, k, &found);
	if (found) {
		const uint8_t *v = leaf_value(page, i, &old_len);

		if (old_len == len) {
			*ret_value = page + (v - page);
			return true;
		}
		if (leaf_room(page) + old_len < len)
			return false;
		leaf_remove(page, i);
	} else if (leaf_room(page) < LEAF_ENTRY + len) {
		return false;
	}
	*ret_value = leaf_insert(page, i, k, len);
	return true;
}

int tree_put_place(struct tree *t, struct key k, uint32_t len, uint8_t **ret_value)
{
	struct tree_path path;
	uint8_t *page, *to;
	uint32_t old_len;
	unsigned i, at;
	bool found;
	int r;

	check(len <= ITEM_MAX);
	page = finger_writable(t, k);
	if (page && put_in_leaf(page, k, len, ret_value))
		return 0;
	r = path_writable(t, k, true, &path);
	if (r < 0)
		return r;
	page = path.at[0].page;
	if (put_in_leaf(page, k, len, ret_value))
		return 0;
	i = page_lower(page, k, &found);
	if (found) {
		const uint8_t *v = leaf_value(page, i, &old_len);

		/* Make room first, so that an error leaves the old value (T3). */
		uint8_t kept[ITEM_MAX];

		memcpy(kept, v, old_len);
		leaf_remove(page, i);
		to = page;
		at = i;
		r = split_leaf(t, &path, k, LEAF_ENTRY + len, &to, &at);
		if (r < 0) {
			memcpy(leaf_insert(page, i, k, old_len), kept, old_len);
			return r;
		}
		*ret_value = leaf_insert(to, at, k, len);
		return 0;
	}
	r = split_leaf(t, &path, k, LEAF_ENTRY + len, &page, &i);
	if (r < 0)
		return r;
	*ret_value = leaf_insert(page, i, k, len);
	return 0;
}

int tree_put(struct tree *t, struct key k, const void *value, uint32_t len)
{
	uint8_t *place;
	int r = tree_put_place(t, k, len, &place);

	if (r == 0 && len > 0)
		memcpy(place, value, len);
	return r;
}

int tree_patch(struct tree *t, struct key k, uint8_t **ret_value, uint32_t *ret_len)
{
	uint8_t *page = finger_writable(t, k);
	struct tree_path path;
	unsigned i;
	bool found;

	if (!page) {
		int r = path_writable(t, k, false, &path);

		if (r < 0)
			return r;
		page = path.at[0].page;
	}
	i = page_lower(page, k, &found);
	if (!found)
		return -ENOENT;
	*ret_value = page + (leaf_value(page, i, ret_len) - page);
	return 0;
}

/* Take the empty or merged-away child i out of its parent at `level`; go on upwards while that empties pages. */
static int drop_child(struct tree *t, struct tree_path *path, unsigned level, unsigned i)
{
	fingers_drop(t);
	for (;;) {
		uint8_t *page = path->at[level].page;
		int r;

		inner_remove(page, i);
		if (page_count(page) > 0 || level == t->root.level)
			return 0;
		r = space_free_meta(t->space, get_le64(page + PAGE_BLOCK), page_gen(page));
		if (r < 0)
			return r;
		level++;
		i = path->at[level].i;
	}
}

/* While the root has one child only, the child becomes the root. An empty root becomes an empty leaf. */
static int lower_root(struct tree *t)
{
	while (t->root.level > 0) {
		const uint8_t *page;
		struct tree_root child;
		int r = tree_page(t, t->root.block, t->root.gen, t->root.level, &page);

		if (r < 0)
			return r;
		if (page_count(page) > 1)
			return 0;
		if (page_count(page) == 0) {
			uint8_t *p = map_block(t->map, t->root.block);

			page_init(p, t->root.block, t->root.gen, t->store_id, 0);
			t->root.level = 0;
			return 0;
		}
		inner_child(page, 0, &child.block, &child.gen);
		child.level = t->root.level - 1;
		r = space_free_meta(t->space, t->root.block, t->root.gen);
		if (r < 0)
			return r;
		t->root = child;
	}
	return 0;
}

static bool fits_together(const uint8_t *a, const uint8_t *b)
{
	if (page_level(a) == 0)
		return leaf_used(a) + leaf_used(b) <= (BLOCK_SIZE - PAGE_ENTRIES) * 7 / 8;
	return page_count(a) + page_count(b) <= INNER_MAX * 7 / 8;
}

/* Join child l of the path's page at `level` with the one to its right, if they fit into one page. 1: done. */
static int join_children(struct tree *t, struct tree_path *path, unsigned level, unsigned l)
{
	uint8_t *parent = path->at[level].page, *left;
	const uint8_t *a, *right;
	block_t block, lblock;
	gen_t gen, lgen;
	int r;

	inner_child(parent, l, &lblock, &lgen);
	r = tree_page(t, lblock, lgen, level - 1, &a);
	if (r < 0)
		return r;
	inner_child(parent, l + 1, &block, &gen);
	r = tree_page(t, block, gen, level - 1, &right);
	if (r < 0 || !fits_together(a, right))
		return r;
	r = writable_child(t, parent, l, &left);
	if (r < 0)
		return r;
	r = space_free_meta(t->space, block, gen);
	if (r < 0)
		return r;
	if (level == 1)
		leaf_append(left, right);
	else
		inner_append(left, right, page_key(parent, l + 1));
	r = drop_child(t, path, level, l + 1);
	return r < 0 ? r : 1;
}

/* The path's child at `level` has become small: join it with its right neighbour, or else with its left one. */
static int merge_child(struct tree *t, struct tree_path *path, unsigned level)
{
	unsigned i = path->at[level].i;
	int r = 0;

	if (i + 1 < page_count(path->at[level].page))
		r = join_children(t, path, level, i);
	if (r == 0 && i > 0)
		r = join_children(t, path, level, i - 1);
	return r < 0 ? r : 0;
}

int tree_del(struct tree *t, struct key k)
{
	struct tree_path path;
	unsigned i, level;
	bool found;
	int r = path_writable(t, k, false, &path);

	if (r < 0)
		return r;
	i = page_lower(path.at[0].page, k, &found);
	if (!found)
		return -ENOENT;
	leaf_remove(path.at[0].page, i);
	if (t->root.level == 0)
		return 0;
	if (page_count(path.at[0].page) == 0) {
		r = space_free_meta(t->space, get_le64(path.at[0].page + PAGE_BLOCK), t->space->gen);
		if (r == 0)
			r = drop_child(t, &path, 1, path.at[1].i);
	} else if (leaf_used(path.at[0].page) < BLOCK_SIZE / 4) {
		r = merge_child(t, &path, 1);
		/* The item is gone; that neighbours could not be joined for lack of space does no harm. */
		if (r == -ENOSPC)
			r = 0;
	}
	for (level = 1; r == 0 && level < t->root.level; level++) {
		unsigned n = page_count(path.at[level].page);

		if (n == 0 || n >= INNER_MAX / 4)
			break;
		r = merge_child(t, &path, level + 1);
		if (r == -ENOSPC)
			r = 0;
	}
	return r < 0 ? r : lower_root(t);
}

/* Cursors --------------------------------------------------------------------------------------------------------- */

/* Go down from path[level] (page set) to the first or last leaf entry below entry i. */
static int descend(struct tree_cursor *c, unsigned level, bool first)
{
	while (level > 0) {
		/* cppcheck-suppress arrayIndexOutOfBoundsCond ; level is below c->levels, at most TREE_LEVELS */
		const uint8_t *page = c->path[level].page, *child = NULL;
		block_t block;
		gen_t gen;
		int r;

		/* cppcheck-suppress arrayIndexOutOfBoundsCond ; likewise */
		inner_child(page, c->path[level].i, &block, &gen);
		level--;
		r = tree_page(c->tree, block, gen, level, &child);
		if (r < 0)
			return r;
		if (page_count(child) == 0)
			return err_corrupt(PAGE_AT " is empty", PAGE_AT_ARGS(block));
		c->path[level].page = child;
		c->path[level].i = first ? 0 : page_count(child) - 1;
	}
	return 0;
}

/* The way to the leaf of a cursor that came by a finger. The leaf has items, or it would be the root. */
static int complete(struct tree_cursor *c)
{
	const uint8_t *leaf;
	int r;

	if (c->levels != 1 || c->tree->root.level == 0)
		return 0;
	r = find_leaf(c->tree, page_key(c->path[0].page, 0), c, &leaf);
	if (r < 0)
		return r;
	c->levels = c->tree->root.level + 1;
	return 0;
}

static int out_of_order(struct tree_cursor *c)
{
	block_t block = get_le64(c->path[0].page + PAGE_BLOCK);

	c->levels = 0;
	return err_corrupt(PAGE_AT ": its keys do not belong there", PAGE_AT_ARGS(block));
}

/* Go on to the leaf to the right. */
static int next_leaf(struct tree_cursor *c)
{
	unsigned level;
	int r = complete(c);

	if (r < 0)
		return r;
	for (level = 1; level < c->levels; level++) {
		if (c->path[level].i + 1 < page_count(c->path[level].page)) {
			c->path[level].i++;
			return descend(c, level, true);
		}
	}
	c->levels = 0;
	return -ENOENT;
}

int cursor_next(struct tree_cursor *c)
{
	struct key k;
	int r;

	if (c->levels == 0)
		return -ENOENT;
	if (c->path[0].i + 1 < page_count(c->path[0].page)) {
		c->path[0].i++;
		return 0;
	}
	k = cursor_key(c);
	r = next_leaf(c);
	return r == 0 && key_cmp(cursor_key(c), k) <= 0 ? out_of_order(c) : r;
}

static int prev_leaf(struct tree_cursor *c)
{
	unsigned level;
	int r = complete(c);

	if (r < 0)
		return r;
	for (level = 1; level < c->levels; level++) {
		if (c->path[level].i > 0) {
			c->path[level].i--;
			return descend(c, level, false);
		}
	}
	c->levels = 0;
	return -ENOENT;
}

int cursor_prev(struct tree_cursor *c)
{
	struct key k;
	int r;

	if (c->levels == 0)
		return -ENOENT;
	if (c->path[0].i > 0) {
		c->path[0].i--;
		return 0;
	}
	/* The leaf may be an empty root. */
	k = page_count(c->path[0].page) > 0 ? cursor_key(c) : (struct key){ 0, 0 };
	r = prev_leaf(c);
	return r == 0 && key_cmp(cursor_key(c), k) >= 0 ? out_of_order(c) : r;
}

/* The leaf that k belongs to; path[0].i is the first entry >= k, maybe behind the last. */
static int seek_leaf(struct tree *t, struct key k, struct tree_cursor *c)
{
	const uint8_t *leaf = finger_leaf(t, k);
	bool found;

	c->tree = t;
	c->levels = 1;
	c->path[0].page = leaf;
	if (!leaf) {
		int r = find_leaf(t, k, c, &leaf);

		if (r < 0)
			return r;
		c->levels = t->root.level + 1;
	}
	c->path[0].i = lower_in_leaf(t, leaf, k, &found);
	return 0;
}

int tree_seek(struct tree *t, struct key k, struct tree_cursor *c)
{
	int r = seek_leaf(t, k, c);

	if (r < 0)
		return r;
	if (c->path[0].i < page_count(c->path[0].page))
		return 0;
	if (page_count(c->path[0].page) == 0) {
		c->levels = 0;
		return -ENOENT;
	}
	c->path[0].i = page_count(c->path[0].page) - 1;
	r = cursor_next(c);
	return r == 0 && key_cmp(cursor_key(c), k) < 0 ? out_of_order(c) : r;
}

int tree_seek_le(struct tree *t, struct key k, struct tree_cursor *c)
{
	int r = seek_leaf(t, k, c);

	if (r < 0)
		return r;
	if (c->path[0].i < page_count(c->path[0].page) && key_cmp(cursor_key(c), k) == 0)
		return 0;
	/* All of the leaf may lie behind k: then the one before it. */
	if (c->path[0].i > 0) {
		c->path[0].i--;
		return 0;
	}
	r = prev_leaf(c);
	return r == 0 && key_cmp(cursor_key(c), k) >= 0 ? out_of_order(c) : r;
}

int tree_relocate(struct tree *t, struct key k, block_t limit, bool *ret_moved)
{
	block_t block = t->root.block;
	gen_t gen = t->root.gen;
	struct tree_path path;
	unsigned level;
	const uint8_t *page = NULL;
	int r;

	*ret_moved = false;
	for (level = t->root.level;; level--) {
		if (block >= limit && gen != t->space->gen)
			*ret_moved = true;
		r = tree_page(t, block, gen, level, &page);
		if (r < 0)
			return r;
		if (level == 0)
			break;
		inner_child(page, inner_find(page, k), &block, &gen);
	}
	return *ret_moved ? path_writable(t, k, false, &path) : 0;
}
