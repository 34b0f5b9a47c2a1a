/* SPDX-License-Identifier: MIT
 *
 * salvage_scan: which leaves of the tree are there. First those that the superblock's root leads to; then, for each inner
 * page that cannot be read, those that stood below it: blocks that the free-space bitmaps count as used, that nothing whole
 * names, whose checksum, number, store and generation hold, and whose keys fall into the hole. Inner pages need not be
 * found: leaves say themselves which keys they have. In a tree that is copied on writing, blocks hold many outdated
 * leaves that look as good; the bitmap in force is what tells them apart.
 */
#include "core/store/salvage_int.h"

#include <stdlib.h>

#define ROOT_TRIES  64u
#define MISSING_FEW 16u                 /* pages below a root that is taken all the same */

static int progress(struct salvage *g, uint64_t blocks)
{
	uint64_t before = g->done / 4096;

	g->done += blocks;
	if (!g->v->progress || g->done / 4096 == before)
		return 0;
	return g->v->progress(g->v->ctx, min_u64(g->done, g->total), g->total) ? -ECANCELED : 0;
}

static int page_check(const struct salvage *g, block_t block, gen_t gen, unsigned level)
{
	const uint8_t *p;

	if (block >= g->blocks || !space_valid_range(&g->s->space, block, 1))
		return err_corrupt(PAGE_AT " lies outside the store", PAGE_AT_ARGS(block));
	p = map_block(&g->s->map, block);
	if (get_le64(p + PAGE_CSUM) != page_csum(p, block))
		return err_corrupt(PAGE_AT ": checksum does not match", PAGE_AT_ARGS(block));
	return page_validate(p, block, gen, level, g->s->store_id);
}

/* A tree page that is whole by itself. */
static bool scan_is_page(const struct salvage *g, block_t block)
{
	const uint8_t *p = map_block(&g->s->map, block);

	return get_le32(p + PAGE_MAGIC_OFF) == PAGE_MAGIC && get_le64(p + PAGE_BLOCK) == block &&
	       page_level(p) < TREE_LEVELS && page_check(g, block, page_gen(p), page_level(p)) == 0;
}

static int add_leaf(struct salvage *g, block_t block, bool searched)
{
	const uint8_t *p = map_block(&g->s->map, block);
	int r = array_grow((void **)&g->leaves, &g->leaf_room, g->leaf_count + 1, sizeof *g->leaves);

	if (r < 0)
		return r;
	g->leaves[g->leaf_count++] = (struct salvage_leaf){ page_key(p, 0), page_key(p, page_count(p) - 1), block,
							    page_gen(p), searched };
	return 0;
}

/* A page cannot be read; err_last() says why. */
static int add_hole(struct salvage *g, const struct salvage_hole *hole)
{
	int r = array_grow((void **)&g->holes, &g->hole_room, g->hole_count + 1, sizeof *g->holes);

	if (r < 0)
		return r;
	salvage_say(g->v, SALVAGE_DAMAGE, "%s", err_last());
	g->holes[g->hole_count++] = *hole;
	return 0;
}

/* Items that say where the bitmaps are, and which blocks hold contents. */
static void take_items(struct salvage *g, const uint8_t *p)
{
	unsigned n = page_count(p), i;

	for (i = 0; i < n; i++) {
		struct key k = page_key(p, i);
		uint32_t len;
		const uint8_t *v = leaf_value(p, i, &len);
		uint64_t block, count;

		if (k.hi == KIND_SPACE && k.lo < g->groups && len == 8)
			g->group_gen[k.lo] = get_le64(v);
		/* kind and layout of an extent: FORMAT.md section 6 */
		if (k.hi >> 8 == 0 || (k.hi & 0xff) != 4 || len < 24)
			continue;
		block = get_le64(v);
		for (count = get_le16(v + 16); count > 0 && block < g->blocks; block++, count--)
			map_set(g->seen, block);
	}
}

static int visit(struct salvage *g, const struct salvage_hole *at)
{
	const uint8_t *p = map_block(&g->s->map, at->block < g->blocks ? at->block : 0);
	unsigned n, i;
	int r = progress(g, 1);

	if (r < 0)
		return r;
	r = page_check(g, at->block, at->gen, at->level);
	if (r == 0 && map_bit(g->seen, at->block))
		r = err_corrupt(PAGE_AT " is used twice", PAGE_AT_ARGS(at->block));
	n = r == 0 ? page_count(p) : 0;
	if (r == 0 && at->level == 0 && n > 0 &&
	    (key_cmp(page_key(p, 0), at->low) < 0 || key_cmp(page_key(p, n - 1), at->high) >= 0))
		r = err_corrupt(PAGE_AT " has items that do not belong there", PAGE_AT_ARGS(at->block));
	if (r < 0)
		return add_hole(g, at);
	map_set(g->seen, at->block);
	if (at->level == 0) {
		take_items(g, p);
		return n > 0 ? add_leaf(g, at->block, false) : 0;
	}
	for (i = 0; i < n && r == 0; i++) {
		struct salvage_hole child = { .low = at->low, .high = at->high, .level = at->level - 1 };

		/* Within what the page itself may have, so that holes ascend. */
		if (i > 0 && key_cmp(page_key(p, i), child.low) > 0)
			child.low = page_key(p, i);
		if (i + 1 < n && key_cmp(page_key(p, i + 1), child.high) < 0)
			child.high = page_key(p, i + 1);
		if (key_cmp(child.low, child.high) > 0)
			child.low = child.high;
		inner_child(p, i, &child.block, &child.gen);
		r = visit(g, &child);   /* at most TREE_LEVELS deep */
	}
	return r;
}

int scan_tree(struct salvage *g)
{
	const struct tree_root *root = &g->s->super.root;
	struct salvage_hole all = { .high = { UINT64_MAX, UINT64_MAX }, .block = root->block, .gen = root->gen,
				    .level = root->level };

	return visit(g, &all);
}

/* Searching ------------------------------------------------------------------------------------------------------- */

static bool fits_hole(const struct salvage *g, const uint8_t *p)
{
	struct key first = page_key(p, 0);
	const struct salvage_hole *h;
	size_t a = 0, b = g->v->no_super ? 1 : g->hole_count;

	/* The last one that begins at or before it. Without a superblock the first is everything. */
	while (a + 1 < b) {
		size_t mid = a + (b - a) / 2;

		if (key_cmp(g->holes[mid].low, first) <= 0)
			a = mid;
		else
			b = mid;
	}
	h = &g->holes[a];
	/* Of a leaf that is lost, whatever else has these keys is an outdated copy. */
	return h->level > 0 && page_gen(p) <= h->gen && key_cmp(first, h->low) >= 0 && key_cmp(page_key(p, page_count(p) - 1), h->high) < 0;
}

static bool has_inner_hole(const struct salvage *g)
{
	size_t i;

	for (i = 0; i < g->hole_count; i++)
		if (g->holes[i].level > 0)
			return true;
	return false;
}

static int search(struct salvage *g)
{
	block_t b;
	int r = 0;

	if (!has_inner_hole(g))
		return 0;
	for (b = 0; b < g->blocks && r == 0; b++) {
		const uint8_t *p = map_block(&g->s->map, b);
		bool known = g->group_known[b / GROUP_BLOCKS];

		r = progress(g, 1);
		if (r < 0 || map_bit(g->seen, b) || (known && !map_bit(g->marked, b)) ||
		    !space_valid_range(&g->s->space, b, 1) || !scan_is_page(g, b))
			continue;
		if (page_level(p) > 0) {
			map_set(g->seen, b);
		} else if (page_count(p) > 0 && fits_hole(g, p)) {
			map_set(g->seen, b);
			g->outdated += !known;
			r = add_leaf(g, b, true);
		}
	}
	return r;
}

/* In the order of keys; of two with the same first key the better one first. */
static int compare_leaves(const void *pa, const void *pb)
{
	const struct salvage_leaf *a = pa, *b = pb;
	int c = key_cmp(a->first, b->first);

	if (c)
		return c;
	if (a->searched != b->searched)
		return a->searched ? 1 : -1;
	return a->gen > b->gen ? -1 : a->gen < b->gen;
}

static bool is_better(const struct salvage_leaf *a, const struct salvage_leaf *b)
{
	return a->searched != b->searched ? !a->searched : a->gen > b->gen;
}

/* No key may be in two leaves. With whole bitmaps there are none of these. */
static void drop_overlaps(struct salvage *g)
{
	size_t i, n = 0;

	for (i = 0; i < g->leaf_count; i++) {
		const struct salvage_leaf leaf = g->leaves[i];

		/* It may reach back over several that are worse than it. */
		while (n > 0 && key_cmp(leaf.first, g->leaves[n - 1].last) <= 0 && is_better(&leaf, &g->leaves[n - 1]))
			n--;
		if (n == 0 || key_cmp(leaf.first, g->leaves[n - 1].last) > 0)
			g->leaves[n++] = leaf;
	}
	g->leaf_count = n;
}

static void mark_known(struct salvage *g)
{
	const struct super *sb = &g->s->super;
	uint64_t seg_blocks = (uint64_t)1 << (sb->seg_shift - BLOCK_SHIFT), b;
	unsigned i;

	for (i = 0; i < sb->seg_count; i++)
		for (b = sb->segs[i]; b < sb->segs[i] + seg_blocks && b < g->blocks; b++)
			map_set(g->seen, b);
	for (b = 0; b < g->blocks; b++)
		if (!space_valid_range(&g->s->space, b, 1))
			map_set(g->seen, b);
}

static void say_unfound(const struct salvage *g, block_t first, uint64_t count)
{
	if (count > 0)
		salvage_say(g->v, SALVAGE_FOLLOWS, "blocks %llu to %llu (byte %llu) are marked as in use, and nothing that is left "
			    "leads to them", (unsigned long long)first, (unsigned long long)(first + count - 1),
			    (unsigned long long)first * BLOCK_SIZE);
}

/* Blocks in use that are nothing that is known: what is still missing is among them. Below inner pages nothing else says
 * where that stood. */
static void count_unfound(struct salvage *g)
{
	const bool inner = has_inner_hole(g) && !g->v->no_super;
	uint64_t run = 0;
	block_t b;
	size_t i;

	for (i = 0; i < g->hole_count; i++)
		if (g->holes[i].block < g->blocks)
			map_set(g->seen, g->holes[i].block);
	for (b = 0; b < g->blocks; b++) {
		bool unfound = g->group_known[b / GROUP_BLOCKS] && map_bit(g->marked, b) && !map_bit(g->seen, b);

		g->unfound += unfound;
		if (inner && !unfound)
			say_unfound(g, b - run, run);
		run = unfound ? run + 1 : 0;
	}
	if (inner)
		say_unfound(g, b - run, run);
}

int scan_holes(struct salvage *g)
{
	size_t i;
	int r;

	mark_known(g);
	g->total += g->blocks;
	r = search(g);
	if (r < 0)
		return r;
	if (g->leaf_count > 0)
		qsort(g->leaves, g->leaf_count, sizeof *g->leaves, compare_leaves);
	drop_overlaps(g);
	for (i = 0; i < g->leaf_count; i++)
		if (g->leaves[i].searched)
			take_items(g, map_block(&g->s->map, g->leaves[i].block));
	count_unfound(g);
	return 0;
}

/* Without a superblock -------------------------------------------------------------------------------------------- */

struct candidate {
	uint64_t id;
	gen_t gen;
	block_t block;
	unsigned level;
};

static int by_id(const void *pa, const void *pb)
{
	const struct candidate *a = pa, *b = pb;

	return a->id < b->id ? -1 : a->id > b->id;
}

static int by_age(const void *pa, const void *pb)
{
	const struct candidate *a = pa, *b = pb;

	if (a->gen != b->gen)
		return a->gen > b->gen ? -1 : 1;
	return a->level > b->level ? -1 : a->level < b->level;
}

/* How many pages below this one, itself among them, cannot be read; it is not counted further than `limit`. *looks: how many more pages
 * may be looked at. A tree has no more than the file: where many pages lead to the same ones, all ways together would never end,
 * and what is not looked at is missing. */
static unsigned count_missing(const struct salvage *g, block_t block, gen_t gen, unsigned level, unsigned limit, uint64_t *looks)
{
	const uint8_t *p = map_block(&g->s->map, block < g->blocks ? block : 0);
	unsigned i, missing = 0;

	if (*looks == 0 || page_check(g, block, gen, level) < 0)
		return 1;
	--*looks;
	for (i = 0; level > 0 && i < page_count(p) && missing <= limit; i++) {
		block_t child;
		gen_t child_gen;

		inner_child(p, i, &child, &child_gen);
		/* At most TREE_LEVELS deep. */
		missing += count_missing(g, child, child_gen, level - 1, limit, looks);
	}
	return missing;
}

static unsigned missing_below(const struct salvage *g, const struct candidate *c, unsigned limit)
{
	uint64_t looks = g->blocks;

	return count_missing(g, c->block, c->gen, c->level, limit, &looks);
}

/* The id that most pages have: only theirs are left. */
static size_t keep_most_common(struct candidate *v, size_t n)
{
	size_t i, from = 0, best = 0, best_len = 0;

	qsort(v, n, sizeof *v, by_id);
	for (i = 1; i <= n; i++) {
		if (i < n && v[i].id == v[from].id)
			continue;
		if (i - from > best_len) {
			best = from;
			best_len = i - from;
		}
		from = i;
	}
	memmove(v, v + best, best_len * sizeof *v);
	return best_len;
}

static int collect(struct salvage *g, struct candidate **ret, size_t *ret_n)
{
	struct candidate *v = NULL;
	size_t n = 0, room = 0;
	block_t b;
	int r = 0;

	for (b = 0; b < g->blocks && r == 0; b++) {
		const uint8_t *p = map_block(&g->s->map, b);

		r = progress(g, 1);
		if (r < 0 || get_le32(p + PAGE_MAGIC_OFF) != PAGE_MAGIC || get_le64(p + PAGE_BLOCK) != b)
			continue;
		g->s->store_id = get_le64(p + PAGE_STORE);
		if (!scan_is_page(g, b))
			continue;
		r = array_grow((void **)&v, &room, n + 1, sizeof *v);
		if (r == 0)
			v[n++] = (struct candidate){ g->s->store_id, page_gen(p), b, page_level(p) };
	}
	*ret = v;
	*ret_n = n;
	return r;
}

/* The newest of the highest pages below which all is whole; 0, the newest page, if there is none. */
static size_t newest_whole(const struct salvage *g, const struct candidate *v, size_t n)
{
	size_t i, tries = 0;
	unsigned top = 0;

	for (i = 0; i < n; i++)
		top = v[i].level > top ? v[i].level : top;
	for (i = 0; i < n && tries < ROOT_TRIES; i++) {
		if (v[i].level != top)
			continue;
		tries++;
		if (missing_below(g, &v[i], 0) == 0)
			return i;
	}
	return 0;
}

int scan_root(struct salvage *g, struct tree_root *ret_root, uint64_t *ret_id)
{
	struct candidate *v;
	size_t n, best;
	int r = collect(g, &v, &n);

	if (r == 0 && n == 0)
		r = -ENOENT;
	if (r < 0) {
		free(v);
		return r;
	}
	n = keep_most_common(v, n);
	g->s->store_id = *ret_id = v[0].id;
	qsort(v, n, sizeof *v, by_age);
	best = newest_whole(g, v, n);
	/* The highest page of the newest generation is its root, unless that did not get to the disk, or is damaged. Then an
	 * older root is higher. A few pages that are missing below it are damage; many are a checkpoint that was cut off. */
	if (best > 0 && v[best].level <= v[0].level && missing_below(g, &v[0], MISSING_FEW) <= MISSING_FEW)
		best = 0;
	*ret_root = (struct tree_root){ v[best].block, v[best].gen, v[best].level };
	free(v);
	return 0;
}
