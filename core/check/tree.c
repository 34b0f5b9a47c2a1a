/* SPDX-License-Identifier: MIT
 *
 * check/tree: walks over the tree. The first verifies each page and the order of all keys, and takes the table of
 * inodes along; the later ones follow exactly the pages that the first accepted.
 */
#include "core/check/check_int.h"

#include <stdlib.h>

struct walk_to {
	check_item_fn fn;
	bool first;
};

static void lose(struct check *c, const struct check_span *span)
{
	c->rep->incomplete = true;
	if (c->lost_count < LOST_MAX) {
		c->lost[c->lost_count++] = *span;
	} else {
		/* The last one stands for all that follow: walks go upwards. */
		c->lost[LOST_MAX - 1].high = span->high;
	}
}

bool check_is_lost(const struct check *c, struct key k)
{
	unsigned i;

	for (i = 0; i < c->lost_count; i++)
		if (key_cmp(k, c->lost[i].low) >= 0 && key_cmp(k, c->lost[i].high) < 0)
			return true;
	return false;
}

bool check_inode_is_lost(const struct check *c, uint64_t ino)
{
	struct key first = { ino << 8, 0 }, last = { ino << 8 | 0xff, UINT64_MAX };
	unsigned i;

	for (i = 0; i < c->lost_count; i++)
		if (key_cmp(last, c->lost[i].low) >= 0 && key_cmp(first, c->lost[i].high) < 0)
			return true;
	return false;
}

/* May the parent's word for a page be taken so far that it is read? */
static bool page_acceptable(struct check *c, block_t block, gen_t gen, gen_t parent_gen)
{
	if (!space_valid_range(c->sp, block, 1)) {
		check_problem(c, "tree page %llu lies outside the store or on reserved blocks",
			      (unsigned long long)block);
		return false;
	}
	if (gen > parent_gen || (gen > c->gen_max && gen != c->sp->gen))
		check_problem(c, "tree page %llu (byte %llu) is of generation %llu, newer than what names it",
			      (unsigned long long)block, (unsigned long long)block * BLOCK_SIZE,
			      (unsigned long long)gen);
	if (check_mark(c, block, 1, NULL) > 0) {
		check_problem(c, "tree page %llu (byte %llu) is used twice", (unsigned long long)block,
			      (unsigned long long)block * BLOCK_SIZE);
		return false;
	}
	return true;
}

static int visit_leaf(struct check *c, const struct walk_to *w, const uint8_t *p, const struct check_span *span)
{
	unsigned n = page_count(p), i;
	bool said = false;
	int r = 0;

	for (i = 0; i < n && r == 0; i++) {
		struct key k = page_key(p, i);
		uint32_t len;
		const uint8_t *v = leaf_value(p, i, &len);

		if (key_cmp(k, span->low) >= 0 && key_cmp(k, span->high) < 0) {
			r = w->fn(c, k, v, len);
		} else if (w->first && !said) {
			said = true;
			check_problem(c, "tree page %llu: item %u (inode %llu, kind %u) does not belong there",
				      (unsigned long long)get_le64(p + PAGE_BLOCK), i,
				      (unsigned long long)(k.hi >> 8), (unsigned)(k.hi & 0xff));
		}
	}
	return r;
}

static int visit(struct check *c, const struct walk_to *w, block_t block, gen_t gen, unsigned level,
		 const struct check_span *span, gen_t parent_gen)
{
	const uint8_t *p;
	unsigned n, i;
	int r;

	if (w->first) {
		r = check_progress(c, 1);
		if (r < 0)
			return r;
		if (!page_acceptable(c, block, gen, parent_gen)) {
			lose(c, span);
			return 0;
		}
	} else if (block >= c->blocks || !bit_get(c->pages, block) || bit_get(c->seen, block)) {
		return 0;
	}
	r = tree_page(c->t, block, gen, level, &p);
	/* tree_page() knows pages that were in order when they were first met; they may have changed since. */
	if (r == 0 && w->first)
		r = page_validate(p, block, gen, level, c->t->store_id);
	if (r < 0) {
		if (w->first) {
			check_problem_last(c);
			lose(c, span);
		}
		return 0;
	}
	bit_set(w->first ? c->pages : c->seen, block);
	n = page_count(p);
	if (w->first) {
		c->rep->tree_pages++;
		if (n == 0 && level != c->t->root.level)
			check_problem(c, "tree page %llu is empty", (unsigned long long)block);
	}
	if (level == 0)
		return visit_leaf(c, w, p, span);
	for (i = 0, r = 0; i < n && r == 0; i++) {
		struct check_span below = *span;
		block_t child;
		gen_t child_gen;

		if (i > 0 && w->first && (key_cmp(page_key(p, i), span->low) <= 0 ||
					  key_cmp(page_key(p, i), span->high) >= 0))
			check_problem(c, "tree page %llu: the key of child %u lies outside the page's own bounds",
				      (unsigned long long)block, i);
		if (i > 0 && key_cmp(page_key(p, i), below.low) > 0)
			below.low = page_key(p, i);
		if (i + 1 < n && key_cmp(page_key(p, i + 1), below.high) < 0)
			below.high = page_key(p, i + 1);
		inner_child(p, i, &child, &child_gen);
		r = visit(c, w, child, child_gen, level - 1, &below, gen);
	}
	return r;
}

static int walk(struct check *c, const struct walk_to *w)
{
	const struct check_span all = { { 0, 0 }, { UINT64_MAX, UINT64_MAX } };
	const struct tree_root *root = &c->t->root;

	return visit(c, w, root->block, root->gen, root->level, &all, root->gen);
}

int check_walk(struct check *c, check_item_fn fn)
{
	struct walk_to w = { .fn = fn };

	/* Freed and made anew rather than cleared: few of its pages are ever touched. */
	free(c->seen);
	c->seen = calloc(c->blocks / 64 + 1, 8);
	return c->seen ? walk(c, &w) : -ENOMEM;
}

/* The table of inodes ---------------------------------------------------------------------------------------------- */

struct check_inode *check_find(const struct check *c, uint64_t ino)
{
	size_t a = 0, b = c->inode_count;

	while (a < b) {
		size_t mid = a + (b - a) / 2;

		if (rec_ino(&c->inodes[mid]) == ino)
			return &c->inodes[mid];
		if (rec_ino(&c->inodes[mid]) < ino)
			a = mid + 1;
		else
			b = mid;
	}
	return NULL;
}

/* Epochs come in ascending order, and so do the changes that began them. */
static void scan_epoch(struct check *c, uint64_t epoch, const uint8_t *v, uint32_t len)
{
	struct keys_epoch e;

	if (history_decode(v, len, epoch, &e) < 0) {
		check_problem_last(c);
		return;
	}
	if (epoch > store_epoch(c->s) || e.first_seq > store_seq(c->s) || e.first_seq <= c->epoch_seq ||
	    e.next_ino > store_counts(c->s)->next_ino)
		check_problem(c, "the item of epoch %llu (from change %llu on) does not fit the store, which is at change %llu of "
			      "epoch %llu", (unsigned long long)epoch, (unsigned long long)e.first_seq,
			      (unsigned long long)store_seq(c->s), (unsigned long long)store_epoch(c->s));
	c->epoch_seq = e.first_seq;
}

static void scan_client(struct check *c, uint64_t client, const uint8_t *v, uint32_t len)
{
	unsigned i;
	bool fits = client > 0 && len == CLIENT_SIZE;

	for (i = 0; fits && i < KEYS_CALL_SLOTS; i++) {
		uint64_t request = get_le64(v + i * CLIENT_SLOT + CLIENT_REQUEST);
		uint64_t seq = get_le64(v + i * CLIENT_SLOT + CLIENT_SEQ);

		fits = request > 0 ? request % KEYS_CALL_SLOTS == i && seq > 0 && seq <= store_seq(c->s) : seq == 0;
	}
	if (!fits)
		check_problem(c, "the item of client %llx is damaged", (unsigned long long)client);
}

/* Items of the store itself: they come before all inodes, orphans in ascending order. */
static int scan_own(struct check *c, struct key k, const uint8_t *v, uint32_t len)
{
	bool marked;
	int r;

	switch (k.hi) {
	case KIND_SPACE:
		if (len != 8 || k.lo >= c->sp->group_count || get_le64(v) > max_u64(c->gen_max, c->sp->gen))
			check_problem(c, "item of free-space group %llu is damaged, or names a group that does not exist",
				      (unsigned long long)k.lo);
		return 0;
	case KIND_ORPHAN:
		if (k.lo <= KEYS_ROOT_INO || k.lo >= INO_MAX || orphan_decode(v, len, k.lo, &marked) < 0) {
			check_problem(c, "orphan item of inode %llu is damaged", (unsigned long long)k.lo);
			return 0;
		}
		r = check_grow((void **)&c->orphans, &c->orphan_room, c->orphan_count + 1, sizeof *c->orphans);
		if (r == 0)
			c->orphans[c->orphan_count++] = k.lo;
		return r;
	case KIND_HISTORY:
		scan_epoch(c, k.lo, v, len);
		return 0;
	case KIND_CLIENT:
		scan_client(c, k.lo, v, len);
		return 0;
	default:
		check_problem(c, "item of unknown kind %llu", (unsigned long long)k.hi);
		return 0;
	}
}

static bool is_orphan(const struct check *c, uint64_t ino)
{
	size_t a = 0, b = c->orphan_count;

	while (a < b) {
		size_t mid = a + (b - a) / 2;

		if (c->orphans[mid] == ino)
			return true;
		if (c->orphans[mid] < ino)
			a = mid + 1;
		else
			b = mid;
	}
	return false;
}

static int scan_inode(struct check *c, uint64_t ino, const uint8_t *v, uint32_t len)
{
	struct check_inode *rec;
	struct keys_attr a;
	int r = check_grow((void **)&c->inodes, &c->inode_room, c->inode_count + 1, sizeof *c->inodes);

	if (r < 0)
		return r;
	c->rep->inodes++;
	if (ino >= store_counts(c->s)->next_ino)
		check_problem(c, "inode %llu: its number was not given out yet (the next one is %llu)",
			      (unsigned long long)ino, (unsigned long long)store_counts(c->s)->next_ino);
	if (ino != KEYS_ROOT_INO && ino < 16)
		check_problem(c, "inode %llu: its number is reserved", (unsigned long long)ino);
	r = inode_decode(v, len, ino, &a);
	if (r < 0) {
		check_problem_last(c);
		memset(&a, 0, sizeof a);        /* type 0: nothing is expected of it */
	}
	rec = &c->inodes[c->inode_count++];
	*rec = (struct check_inode){ .id = ino << 8 | (uint64_t)is_orphan(c, ino) << 6 | (a.mode & S_IFMT) >> 12,
				     .parent = S_ISDIR(a.mode) ? a.aux : 0, .nlink = a.nlink };
	return 0;
}

static int scan_item(struct check *c, struct key k, const uint8_t *v, uint32_t len)
{
	uint64_t ino = k.hi >> 8;

	if (ino == 0)
		return scan_own(c, k, v, len);
	switch (k.hi & 0xff) {
	case ITEM_INODE:
		if (k.lo == 0 && ino < INO_MAX)
			return scan_inode(c, ino, v, len);
		break;
	case ITEM_XATTR: case ITEM_DIRENT: case ITEM_EXTENT:
		if (ino < INO_MAX)
			return 0;
		break;
	default:
		break;
	}
	check_problem(c, "inode %llu: item of unknown kind %u", (unsigned long long)ino, (unsigned)(k.hi & 0xff));
	return 0;
}

int check_tree(struct check *c)
{
	struct walk_to w = { .fn = scan_item, .first = true };
	int r = walk(c, &w);
	size_t i;

	for (i = 0; i < c->orphan_count && r == 0; i++)
		if (!check_find(c, c->orphans[i]) &&
		    !check_is_lost(c, item_key(c->orphans[i], ITEM_INODE, 0)))
			check_problem(c, "inode %llu is listed as an orphan but does not exist",
				      (unsigned long long)c->orphans[i]);
	return r;
}
