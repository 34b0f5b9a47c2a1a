/* SPDX-License-Identifier: MIT
 *
 * check/tree: walks over the tree. The first verifies each page and the order of all keys, and takes the table of
 * inodes along; the later ones follow exactly the pages that the first accepted.
 */
#include "core/check/check_int.h"

#include <stdio.h>
#include <stdlib.h>

struct walk_to {
	check_item_fn fn;
	bool first;
};

/* Walks go upwards, and so do these. */
static int lose(struct check *c, block_t block, unsigned level, const struct salvage_span *span)
{
	int r = array_grow((void **)&c->lost, &c->lost_room, c->lost_count + 1, sizeof *c->lost);

	c->rep->incomplete = true;
	if (r == 0)
		c->lost[c->lost_count++] = (struct salvage_span){ span->low, span->high, block, level, false };
	return r;
}

/* What salvage missed, and what this walk could not read, as one list: ascending, each key once. A page that salvage accepted has all
 * keys up to those of the next one, so it may reach over such a hole. */
static int merge_lost(struct check *c)
{
	const struct salvage_span *hole = c->v->spans, *end = hole + c->v->span_count;
	struct salvage_span *own = c->lost;
	size_t own_count = c->lost_count, i;
	int r;

	c->lost = NULL;
	c->lost_count = c->lost_room = 0;
	r = array_grow((void **)&c->lost, &c->lost_room, own_count + 2 * c->v->span_count, sizeof *c->lost);
	for (i = 0; i < own_count && r == 0; i++) {
		struct salvage_span s = own[i];

		for (; hole < end && key_cmp(hole->low, s.high) < 0; hole++) {
			/* One of everything (block 0) only says that nobody knows: it comes first, and takes nothing away. */
			bool all = hole->block == 0;

			if (!all && key_cmp(s.low, hole->low) < 0)
				c->lost[c->lost_count++] = (struct salvage_span){ s.low, hole->low, s.block, s.level, false };
			c->lost[c->lost_count++] = *hole;
			if (!all && key_cmp(s.low, hole->high) < 0)
				s.low = hole->high;
		}
		if (key_cmp(s.low, s.high) < 0)
			c->lost[c->lost_count++] = s;
	}
	for (; hole < end && r == 0; hole++)
		c->lost[c->lost_count++] = *hole;
	free(own);
	return r;
}

static const struct salvage_span *lost_between(const struct check *c, struct key low, struct key high)
{
	size_t at = 0;

	return salvage_lost(c->lost, c->lost_count, low, high, &at);
}

const struct salvage_span *check_lost_key(const struct check *c, struct key k)
{
	struct key next = { k.hi + (k.lo == UINT64_MAX), k.lo + 1 };

	return lost_between(c, k, next);
}

const struct salvage_span *check_lost_kind(const struct check *c, uint64_t ino, enum item_kind kind)
{
	struct key low = item_key(ino, kind, 0);

	return lost_between(c, low, (struct key){ low.hi + 1, 0 });
}

const struct salvage_span *check_lost_inode(const struct check *c, uint64_t ino)
{
	return lost_between(c, (struct key){ ino << 8, 0 }, (struct key){ (ino + 1) << 8, 0 });
}

const char *check_with(struct check *c, const struct salvage_span *s)
{
	if (s->block)
		(void)snprintf(c->with, sizeof c->with, "with " PAGE_AT, PAGE_AT_ARGS(s->block));
	else
		(void)snprintf(c->with, sizeof c->with, "with a part of the tree that was not found");
	return c->with;
}

/* May the parent's word for a page be taken so far that it is read? */
static bool page_acceptable(struct check *c, block_t block, gen_t gen, gen_t parent_gen)
{
	if (!space_valid_range(c->sp, block, 1)) {
		check_damage(c, PAGE_AT " lies outside the store or on reserved blocks", PAGE_AT_ARGS(block));
		return false;
	}
	if (gen > parent_gen || (gen > c->gen_max && gen != c->sp->gen))
		check_damage(c, PAGE_AT " is of generation %llu, newer than what names it", PAGE_AT_ARGS(block),
			     (unsigned long long)gen);
	if (check_mark(c, block, 1, NULL) > 0) {
		check_damage(c, PAGE_AT " is used twice", PAGE_AT_ARGS(block));
		return false;
	}
	return true;
}

static int visit_leaf(struct check *c, const struct walk_to *w, const uint8_t *p, const struct salvage_span *span)
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
			check_damage(c, PAGE_AT ": item %u (inode %llu, kind %u) does not belong there",
				     PAGE_AT_ARGS(get_le64(p + PAGE_BLOCK)), i, (unsigned long long)(k.hi >> 8),
				     (unsigned)(k.hi & 0xff));
		}
	}
	return r;
}

static int visit(struct check *c, const struct walk_to *w, block_t block, gen_t gen, unsigned level,
		 const struct salvage_span *span, gen_t parent_gen)
{
	const uint8_t *p;
	unsigned n, i;
	int r;

	if (w->first) {
		r = check_progress(c, 1);
		if (r < 0)
			return r;
		if (!page_acceptable(c, block, gen, parent_gen))
			return lose(c, block, level, span);
	} else if (block >= c->blocks || !bit_get(c->pages, block) || bit_get(c->seen, block)) {
		return 0;
	}
	r = tree_page(c->t, block, gen, level, &p);
	/* tree_page() knows pages that were in order when they were first met; they may have changed since. */
	if (r == 0 && w->first)
		r = page_validate(p, block, gen, level, c->t->store_id);
	if (r < 0) {
		if (!w->first)
			return 0;
		check_damage_last(c);
		return lose(c, block, level, span);
	}
	bit_set(w->first ? c->pages : c->seen, block);
	n = page_count(p);
	if (w->first) {
		c->rep->tree_pages++;
		if (n == 0 && level != c->t->root.level)
			check_damage(c, PAGE_AT " is empty", PAGE_AT_ARGS(block));
	}
	if (level == 0)
		return visit_leaf(c, w, p, span);
	for (i = 0, r = 0; i < n && r == 0; i++) {
		struct salvage_span below = *span;
		block_t child;
		gen_t child_gen;

		if (i > 0 && w->first && (key_cmp(page_key(p, i), span->low) <= 0 ||
					  key_cmp(page_key(p, i), span->high) >= 0))
			check_damage(c, PAGE_AT ": the key of child %u lies outside the page's own bounds",
				     PAGE_AT_ARGS(block), i);
		if (i > 0 && key_cmp(page_key(p, i), below.low) > 0)
			below.low = page_key(p, i);
		if (i + 1 < n && key_cmp(page_key(p, i + 1), below.high) < 0)
			below.high = page_key(p, i + 1);
		/* A key behind the page's own bounds: that child has none, and spans ascend. */
		if (key_cmp(below.low, below.high) > 0)
			below.low = below.high;
		inner_child(p, i, &child, &child_gen);
		r = visit(c, w, child, child_gen, level - 1, &below, gen);
	}
	return r;
}

static int walk(struct check *c, const struct walk_to *w)
{
	const struct salvage_span all = { .high = { UINT64_MAX, UINT64_MAX } };
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

/* Inner pages only, each once. */
static bool inner_whole(struct check *c, block_t block, gen_t gen, unsigned level)
{
	const uint8_t *p;
	bool whole = true;
	unsigned i;

	if (level == 0 || (block < c->blocks && bit_get(c->seen, block)))
		return true;
	if (tree_page(c->t, block, gen, level, &p) < 0)
		return false;
	bit_set(c->seen, block);
	for (i = 0; i < page_count(p) && whole; i++) {
		block_t child;
		gen_t child_gen;

		inner_child(p, i, &child, &child_gen);
		whole = inner_whole(c, child, child_gen, level - 1);    /* at most TREE_LEVELS deep */
	}
	return whole;
}

int check_inner(struct check *c, bool *ret_whole)
{
	c->seen = calloc(c->blocks / 64 + 1, 8);
	if (!c->seen)
		return -ENOMEM;
	*ret_whole = inner_whole(c, c->t->root.block, c->t->root.gen, c->t->root.level);
	free(c->seen);
	c->seen = NULL;
	return 0;
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
		check_damage_last(c);
		return;
	}
	if (c->v && c->v->no_super)
		return;                 /* where the store stands is not known */
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

		fits = request > 0 ? request % KEYS_CALL_SLOTS == i && seq > 0 && (seq <= store_seq(c->s) || c->doubt) : seq == 0;
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
		r = array_grow((void **)&c->orphans, &c->orphan_room, c->orphan_count + 1, sizeof *c->orphans);
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
	int r = array_grow((void **)&c->inodes, &c->inode_room, c->inode_count + 1, sizeof *c->inodes);

	if (r < 0)
		return r;
	c->rep->inodes++;
	/* What is wrong with it is told with its path, by contents.c. Type 0: nothing is expected of it. */
	if (inode_decode(v, len, ino, &a) < 0)
		memset(&a, 0, sizeof a);
	rec = &c->inodes[c->inode_count++];
	*rec = (struct check_inode){ .id = ino << 8 | (uint64_t)is_orphan(c, ino) << 6 | (a.mode & S_IFMT) >> 12,
				     .parent = S_ISDIR(a.mode) ? a.aux : 0, .nlink = a.nlink };
	return 0;
}

/* An item of an inode, which must have come before. */
static int scan_part(struct check *c, uint64_t ino)
{
	int r;

	if ((c->inode_count > 0 && rec_ino(&c->inodes[c->inode_count - 1]) == ino) ||
	    (c->headless_count > 0 && c->headless[c->headless_count - 1] == ino))
		return 0;
	r = array_grow((void **)&c->headless, &c->headless_room, c->headless_count + 1, sizeof *c->headless);
	if (r == 0)
		c->headless[c->headless_count++] = ino;
	return r;
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
			return scan_part(c, ino);
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

	if (r == 0 && c->v && c->v->span_count > 0)
		r = merge_lost(c);
	for (i = 0; i < c->orphan_count && r == 0; i++) {
		const struct salvage_span *lost = check_lost_key(c, item_key(c->orphans[i], ITEM_INODE, 0));

		if (check_find(c, c->orphans[i]))
			continue;
		if (lost)
			check_follows(c, "inode %llu (unlinked): it is lost %s", (unsigned long long)c->orphans[i],
				      check_with(c, lost));
		else
			check_problem(c, "inode %llu is listed as an orphan but does not exist",
				      (unsigned long long)c->orphans[i]);
	}
	return r;
}
