/* SPDX-License-Identifier: MIT
 *
 * salvage: see salvage.h. The order: superblock, or what can be known without one; bitmaps; the leaves of the tree and, if
 * a page is missing, a search for what stood below it; a new tree over them; the journal.
 *
 * Everything happens in a private mapping, and even there no block of the file is changed: all of them count as used, and
 * new pages go into memory that is mapped behind the file's end.
 */
#include "core/store/salvage_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define ROOM_BLOCKS 8192u       /* free before each change: more than any record needs */
#define NEW_FILL    (INNER_MAX * 3 / 4)

void salvage_say(struct store_salvage *v, enum salvage_finding kind, const char *format, ...)
{
	char text[2048];
	va_list ap;

	v->damage++;
	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (v->say)
		v->say(v->ctx, kind, text);
}

void salvage_release(struct store_salvage *v)
{
	free(v->spans);
	v->spans = NULL;
	v->span_count = v->span_room = 0;
}

const struct salvage_span *salvage_lost(const struct salvage_span *spans, size_t count, struct key low, struct key high,
					size_t *at)
{
	size_t a = *at, b = count;

	/* One of everything comes first; the others ascend, and do not overlap. */
	if (a == 0 && count > 0 && spans[0].block == 0) {
		*at = 1;
		if (!spans[0].found)
			return &spans[0];
		a = 1;
	}
	while (a < b) {
		size_t mid = a + (b - a) / 2;

		if (key_cmp(spans[mid].high, low) <= 0)
			a = mid + 1;
		else
			b = mid;
	}
	for (; a < count && key_cmp(spans[a].low, high) < 0; a++) {
		if (!spans[a].found) {
			*at = a + 1;
			return &spans[a];
		}
	}
	*at = count;
	return NULL;
}

void salvage_inodes(const struct salvage_span *s, uint64_t next_ino, uint64_t *ret_first, uint64_t *ret_last)
{
	uint64_t first = s->low.hi >> 8, last = s->high.hi >> 8;

	/* An inode's own item has the least of its keys: (ino << 8 | 1, 0). */
	if (last > 0 && (s->high.hi & 0xff) <= 1 && s->high.lo == 0)
		last--;
	last = min_u64(last, min_u64(next_ino, 1ull << 48) - 1);
	*ret_last = last;
	*ret_first = min_u64(first > 0 ? first : 1, last);
}

bool salvage_overlaps(const struct store_salvage *v, struct key low, struct key high)
{
	size_t at = 0;

	return salvage_lost(v->spans, v->span_count, low, high, &at) != NULL;
}

/* Space ----------------------------------------------------------------------------------------------------------- */

static block_t first_slot(uint64_t group)
{
	return group * GROUP_BLOCKS + (group == 0 ? SUPERS : 0);
}

/* For struct space: each group of the file is full. The bitmap that says so is put over its first slot, in memory, when it
 * is asked for. */
static int full_group(void *ctx, uint64_t group, gen_t *ret_gen)
{
	struct store *s = ctx;
	uint8_t *p = map_block(&s->map, first_slot(group));

	if (group >= s->salvage_groups)
		return -ENOENT;
	memset(p, 0, SLOT_BITS);
	memset(p + SLOT_BITS, 0xff, BLOCK_SIZE - SLOT_BITS);
	put_le64(p + SLOT_MAGIC_OFF, SLOT_MAGIC);
	put_le64(p + SLOT_GROUP, group);
	put_le64(p + SLOT_GEN, 1);
	put_le32(p + SLOT_USED, GROUP_BLOCKS);
	put_le64(p + SLOT_CSUM, hash64(p + 16, BLOCK_SIZE - 16, first_slot(group)));
	*ret_gen = 1;
	return 0;
}

int salvage_room(struct store *s)
{
	int r;

	if (space_allocatable(&s->space) >= ROOM_BLOCKS)
		return 0;
	r = map_grow(&s->map, GROUP_BLOCKS);
	if (r == 0)
		r = space_grown(&s->space);
	return r < 0 ? err_set(ENOMEM, "no memory, or no address space, for the salvaged tree") : 0;
}

/* Memory behind the file. */
static int open_room(struct salvage *g)
{
	struct store *s = g->s;
	uint64_t groups = div_up(g->blocks, GROUP_BLOCKS), i;
	int r = map_grow(&s->map, (groups + 1) * GROUP_BLOCKS - g->blocks);

	if (r == 0)
		r = space_grown(&s->space);
	if (r < 0)
		return err_set(ENOMEM, "no memory, or no address space, for the salvaged tree");
	s->salvage_groups = groups;
	s->space.slot_gen = full_group;
	for (i = 0; i < groups; i++)
		s->space.groups[i].longest = 0;
	s->space.used = groups * GROUP_BLOCKS + SLOTS;
	s->space.scan = groups * GROUP_BLOCKS;
	return 0;
}

/* Bitmaps --------------------------------------------------------------------------------------------------------- */

static bool slot_is_whole(const struct salvage *g, uint64_t group, block_t block)
{
	const uint8_t *p = map_block(&g->s->map, block);

	return block < g->blocks && get_le64(p + SLOT_MAGIC_OFF) == SLOT_MAGIC && get_le64(p + SLOT_GROUP) == group &&
	       get_le64(p + SLOT_GEN) <= g->s->super.gen &&
	       get_le64(p + SLOT_CSUM) == hash64(p + 16, BLOCK_SIZE - 16, block);
}

/* Something else than a whole bitmap, the zeros of a slot that was never written, or what a generation that crashed was
 * about to write. */
static bool slot_is_spoiled(const struct salvage *g, uint64_t group, block_t block)
{
	static const uint8_t zeros[BLOCK_SIZE];
	const uint8_t *p = map_block(&g->s->map, block);
	bool headed = get_le64(p + SLOT_MAGIC_OFF) == SLOT_MAGIC && get_le64(p + SLOT_GROUP) == group;

	return memcmp(p, zeros, sizeof zeros) != 0 && !(headed && get_le64(p + SLOT_GEN) > g->s->super.gen) &&
	       !(headed && get_le64(p + SLOT_CSUM) == hash64(p + 16, BLOCK_SIZE - 16, block));
}

/* -EAGAIN: a later checkpoint is in force by now, and its successor may have written there. */
static int no_slot(struct salvage *g, uint64_t group, gen_t want)
{
	struct super now;
	block_t block;

	if (g->snapshot && (super_pick_at(g->s->map.base, g->blocks, &now, &block) != 0 || now.gen != g->s->super.gen))
		return -EAGAIN;
	if (want)
		salvage_say(g->v, SALVAGE_DAMAGE, "free-space bitmap of group %llu (blocks %llu to %llu, byte %llu): no slot of "
			    "generation %llu is intact", (unsigned long long)group, (unsigned long long)first_slot(group),
			    (unsigned long long)first_slot(group) + SLOTS - 1,
			    (unsigned long long)first_slot(group) * BLOCK_SIZE, (unsigned long long)want);
	return 0;
}

/* Leaves that were found say which slots were in force after all. What a guess led to may be outdated then. */
static void check_guesses(struct salvage *g)
{
	uint64_t i;

	for (i = 0; i < g->groups; i++) {
		if (!g->group_guess[i] || !g->group_gen[i] || g->group_guess[i] == g->group_gen[i])
			continue;
		g->group_known[i] = 0;
		g->outdated++;
		(void)no_slot(g, i, g->group_gen[i]);
	}
}

/* Slots were guessed, and a spoiled one may be the newer one. If what the others mark is as much as the superblock counts,
 * it is not; else they are outdated. */
static void judge_guesses(struct salvage *g)
{
	uint64_t i;

	if (!g->spoiled || (!g->v->no_super && g->in_use == g->v->used_blocks))
		return;
	for (i = 0; i < g->groups; i++)
		if (g->group_guess[i])
			g->group_known[i] = 0;
}

static bool is_in_hole(const struct salvage *g, struct key k)
{
	size_t i;

	for (i = 0; i < g->hole_count && key_cmp(g->holes[i].low, k) <= 0; i++)
		if (key_cmp(k, g->holes[i].high) < 0)
			return true;
	return false;
}

/* The slot in force: of generation want, or, if that is not known, the newest that the checkpoint can have (later ones were
 * never in force); if another one is spoiled, judge_guesses() decides. 0: not to be had. */
static block_t choose_slot(struct salvage *g, uint64_t group, gen_t want)
{
	block_t block = first_slot(group), best = 0;
	unsigned i;

	for (i = 0; i < SLOTS; i++, block++) {
		const uint8_t *p = map_block(&g->s->map, block);
		gen_t gen = slot_is_whole(g, group, block) ? get_le64(p + SLOT_GEN) : 0;

		if (gen == 0 && !want && block < g->blocks && slot_is_spoiled(g, group, block)) {
			salvage_say(g->v, SALVAGE_DAMAGE, "free-space bitmap of group %llu (block %llu, byte %llu) is damaged; it may be "
				    "the one in force", (unsigned long long)group, (unsigned long long)block,
				    (unsigned long long)block * BLOCK_SIZE);
			g->spoiled = block;
		}
		if (gen > 0 && (!want || gen == want) &&
		    (!best || gen > get_le64((uint8_t *)map_block(&g->s->map, best) + SLOT_GEN)))
			best = block;
	}
	return best;
}

static int load_group(struct salvage *g, uint64_t group)
{
	struct key k = { KIND_SPACE, group };
	gen_t want = g->group_gen[group];
	block_t best;
	uint64_t w;

	/* Its item is not lost, so it has none: all free. */
	g->group_known[group] = want == 0 && !g->v->no_super && !is_in_hole(g, k);
	if (g->group_known[group]) {
		g->in_use += group == 0 ? 2 * SUPERS + SLOTS : group * GROUP_BLOCKS < g->counted ? SLOTS : 0;
		return 0;
	}
	best = choose_slot(g, group, want);
	if (!best)
		return no_slot(g, group, want);
	g->group_known[group] = 1;
	g->in_use += get_le32((uint8_t *)map_block(&g->s->map, best) + SLOT_USED);
	g->group_guess[group] = want ? 0 : get_le64((uint8_t *)map_block(&g->s->map, best) + SLOT_GEN);
	for (w = 0; w < GROUP_WORDS && group * GROUP_WORDS + w <= g->blocks / 64; w++)
		g->marked[group * GROUP_WORDS + w] = get_le64((uint8_t *)map_block(&g->s->map, best) + SLOT_BITS + w * 8);
	return 0;
}

/* The superblock -------------------------------------------------------------------------------------------------- */

static void say_supers(const struct salvage *g)
{
	struct super sb;
	unsigned i;

	for (i = 0; i < SUPER_PLACES; i++) {
		block_t block = super_place(i);
		int r = block < g->blocks ? super_decode(map_block(&g->s->map, block), block, &sb) : -EUCLEAN;

		if (r < 0 && r != -EROFS)
			salvage_say(g->v, SALVAGE_DAMAGE, "%ssuperblock %u (byte %llu) is damaged", i < SUPERS ? "" : "copy of ",
				    i % SUPERS, (unsigned long long)block * BLOCK_SIZE);
	}
}

/* Nothing says where the tree begins. Made up: all that can be known from its pages. */
static int make_super(struct salvage *g)
{
	struct super *sb = &g->s->super;
	struct tree_root root = { 0 };
	uint64_t id = 0;
	int r = scan_root(g, &root, &id);

	if (r == -ENOENT)
		return err_set(EMEDIUMTYPE, "not an msyncfs store, or nothing of it is left");
	if (r < 0)
		return r;
	memset(sb, 0, sizeof *sb);
	put_le64(sb->uuid, id);
	sb->gen = root.gen;
	sb->gen_limit = root.gen + GEN_STEP;
	sb->next_ino = 16;
	sb->root = root;
	sb->seg_shift = SEG_SHIFT_SMALL;
	g->v->no_super = true;
	salvage_say(g->v, SALVAGE_LOSS, "no superblock is left: what is there is of generation %llu, the newest that is found, "
		    "without what the journal holds since", (unsigned long long)root.gen);
	return 0;
}

static int find_super(struct salvage *g)
{
	struct super *sb = &g->s->super;
	block_t block;
	int r = g->snapshot ? 0 : super_pick_at(g->s->map.base, g->blocks, sb, &block);

	if (r == -EPROTONOSUPPORT)
		return r;
	if (!g->v->supers_told || (r < 0 && r != -EROFS))
		say_supers(g);
	if (r == 0 || r == -EROFS) {
		if (sb->total_blocks > g->blocks)
			salvage_say(g->v, SALVAGE_LOSS, "the store is cut short: %llu bytes, should have %llu",
				    (unsigned long long)g->blocks * BLOCK_SIZE,
				    (unsigned long long)sb->total_blocks * BLOCK_SIZE);
		r = 0;
	} else {
		r = make_super(g);
	}
	g->v->used_blocks = g->v->no_super ? g->blocks : sb->used_blocks;
	g->counted = sb->total_blocks;
	sb->total_blocks = g->blocks;
	sb->used_blocks = 0;
	return r;
}

/* The tree -------------------------------------------------------------------------------------------------------- */

/* One level more over the nodes in v, in place; *n becomes the number of its pages. */
static int build_level(struct store *s, struct salvage_leaf *v, size_t *n, unsigned level)
{
	size_t i = 0, made = 0;

	while (i < *n) {
		unsigned fill = 0;
		uint8_t *page;
		block_t block = 0;
		int r = salvage_room(s);

		if (r == 0)
			r = space_alloc_meta(&s->space, &block);
		if (r < 0)
			return r;
		page = map_block(&s->map, block);
		page_init(page, block, s->space.gen, s->store_id, level);
		for (; i < *n && fill < NEW_FILL; i++, fill++)
			inner_insert(page, fill, v[i].first, v[i].block, v[i].gen);
		v[made++] = (struct salvage_leaf){ .first = page_key(page, 0), .block = block, .gen = s->space.gen };
	}
	*n = made;
	return 0;
}

static int build_tree(struct salvage *g)
{
	struct store *s = g->s;
	unsigned level = 0;
	size_t n = g->leaf_count;
	int r = 0;

	if (n == 0)
		return tree_create(&s->tree);
	while (n > 1 && r == 0) {
		if (++level >= TREE_LEVELS)
			return err_corrupt("the tree would be higher than %u levels", TREE_LEVELS);
		r = build_level(s, g->leaves, &n, level);
	}
	s->tree.root = (struct tree_root){ g->leaves[0].block, g->leaves[0].gen, level };
	return r;
}

static int add_span(struct salvage *g, const struct salvage_hole *h, bool found)
{
	struct store_salvage *v = g->v;
	int r = array_grow((void **)&v->spans, &v->span_room, v->span_count + 1, sizeof *v->spans);

	if (r == 0)
		v->spans[v->span_count++] = (struct salvage_span){ h->low, h->high, h->block, h->level, found };
	return r;
}

/* What each hole has lost. Of an inner page nothing is, if everything in use was found. */
static int judge_holes(struct salvage *g)
{
	bool all_known = true;
	uint64_t i;
	int r = 0;

	for (i = 0; i < g->groups; i++)
		all_known = all_known && g->group_known[i];
	for (i = 0; i < g->hole_count && r == 0; i++)
		r = add_span(g, &g->holes[i], g->holes[i].level > 0 && all_known && g->unfound == 0 && !g->v->no_super);
	g->v->gap = g->v->gap || g->outdated > 0;
	if (r == 0 && g->outdated > 0)
		salvage_say(g->v, SALVAGE_FOLLOWS, "tree pages were found where no free-space bitmap is whole: they may be outdated");
	return r;
}

/* Nothing says that the page we begin at is the root, so there may be more: the first hole is everything. */
static int doubt_root(struct salvage *g)
{
	struct salvage_hole all = { .high = { UINT64_MAX, UINT64_MAX }, .gen = g->s->super.gen, .level = TREE_LEVELS };
	int r = array_grow((void **)&g->holes, &g->hole_room, g->hole_count + 1, sizeof *g->holes);

	if (r < 0)
		return r;
	memmove(g->holes + 1, g->holes, g->hole_count * sizeof *g->holes);
	g->holes[0] = all;
	g->hole_count++;
	return 0;
}

/* All below that page is whole, and no leaf in use is elsewhere: it was the root. */
static bool root_is_proven(const struct salvage *g)
{
	size_t i;

	for (i = 0; i < g->leaf_count; i++)
		if (g->leaves[i].searched)
			return false;
	for (i = 0; i < g->groups; i++)
		if (!g->group_known[i] && g->group_gen[i])
			return false;
	return g->hole_count == 1;
}

static int find_tree(struct salvage *g)
{
	uint64_t i;
	int r = scan_tree(g);

	if (r == 0 && g->v->no_super)
		r = doubt_root(g);
	if (r < 0)
		return r;
	for (i = 0; i < g->groups && r == 0; i++)
		r = load_group(g, i);
	judge_guesses(g);
	if (r == 0 && g->hole_count == 0)
		r = open_room(g);
	if (r < 0 || g->hole_count == 0)
		return r;
	r = scan_holes(g);
	check_guesses(g);
	if (r == 0 && g->v->no_super && root_is_proven(g))
		g->hole_count = 0;
	if (r == 0)
		r = judge_holes(g);
	if (r == 0)
		r = open_room(g);
	return r < 0 ? r : build_tree(g);
}

/* The journal ----------------------------------------------------------------------------------------------------- */

/* Behind the file there is the new tree, which changes while the journal is read: no segment. */
static bool is_segment(const struct salvage *g, block_t first, uint64_t blocks)
{
	return space_valid_range(&g->s->space, first, blocks) && first + blocks <= g->blocks;
}

static int claim_nothing(void *ctx, block_t first, uint64_t blocks)
{
	const struct salvage *g = ctx;

	return is_segment(g, first, blocks) ? 0 :
	       err_corrupt("journal leads to block %llu outside the store", (unsigned long long)first);
}

static int apply(struct salvage *g, struct record_reader *reader, const uint8_t *rec)
{
	int r = salvage_room(g->s);

	if (r < 0 || get_le16(rec + REC_TYPE) == REC_TYPE_NEXT)
		return r;
	return g->s->client.apply(g->s->client.ctx, reader, rec);
}

/* The records from where the journal stands. proven: those here were on disk, whatever their contents are now. */
static int walk(struct salvage *g, bool proven, uint64_t *records)
{
	struct journal *j = &g->s->journal;
	struct record_reader reader;
	struct journal_next next;
	uint64_t named = 0;
	int r;

	while (journal_peek(j, &next) > 0) {
		if (record_open(&reader, next.rec, next.len) < 0)
			return 0;
		if (!proven && recovery_extents_whole(g->s, &reader, &named) <= 0)
			return 0;
		r = apply(g, &reader, next.rec);
		if (r < 0)
			return r;
		++*records;
		if (journal_accept(j, &next, claim_nothing, g) < 0)
			return 0;
	}
	return 0;
}

static void say_gap(struct salvage *g, seq_t from, seq_t to, unsigned long long byte)
{
	g->v->gap = true;
	if (to > from)
		salvage_say(g->v, SALVAGE_LOSS, "the journal is damaged at byte %llu: changes %llu to %llu are lost", byte,
			    (unsigned long long)from + 1, (unsigned long long)to);
	else
		salvage_say(g->v, SALVAGE_DAMAGE, "the journal is damaged at byte %llu, between two changes", byte);
}

/* The segments that the superblock names, but those that lie outside the file: it was cut, or the superblock lies. */
static int load_journal(struct salvage *g)
{
	struct journal *j = &g->s->journal;
	const struct super *sb = &g->s->super;
	block_t segs[SEGS_MAX];
	unsigned i, n = 0;

	for (i = 0; i < sb->seg_count; i++)
		if (is_segment(g, sb->segs[i], journal_seg_blocks(j)))
			segs[n++] = sb->segs[i];
		else if (i == 0)
			return err_corrupt("its first segment, at block %llu, lies outside the file", (unsigned long long)sb->segs[0]);
	j->end = g->blocks;
	return journal_load(j, segs, n, &sb->journal);
}

static int replay(struct salvage *g)
{
	struct journal *j = &g->s->journal;
	uint64_t records = 0;
	bool proven = false, past;
	jpos_t skipped_to = 0;
	int r = load_journal(g);

	if (r == -EUCLEAN) {
		g->v->gap = true;
		salvage_say(g->v, SALVAGE_LOSS, "the journal cannot be read, and what only it has is lost: %s", err_last());
		return 0;
	}
	while (r == 0) {
		unsigned long long byte;
		seq_t at;

		r = walk(g, proven, &records);
		if (r < 0)
			break;
		at = j->seq;
		byte = journal_byte(j);
		if (!proven && journal_check_damage(j) == 0) {
			struct journal later = *j;

			/* As a power cut leaves it: what comes behind was never promised to anybody. */
			if (journal_skip(&later, false) > 0)
				salvage_say(g->v, SALVAGE_NOTE, "the journal ends at change %llu (byte %llu); a later one is there, but nothing "
					    "proves that what came between was ever on disk", (unsigned long long)at, byte);
			break;
		}
		/* The record at hand may be whole but for its extents: it goes in, and its contents are found damaged. */
		if (!proven) {
			proven = true;
			if (journal_peek(j, &(struct journal_next){ 0 }) > 0)
				continue;
		}
		/* One that is whole, but says nothing that can be done: it would be found again and again. */
		past = j->tail == skipped_to || journal_peek(j, &(struct journal_next){ 0 }) > 0;
		if (journal_skip(j, past) == 0) {
			if (past || j->proven > at)
				say_gap(g, at, max_u64(j->proven, at), byte);
			break;
		}
		skipped_to = j->tail;
		say_gap(g, at, j->seq, byte);
	}
	g->s->recovered = records;
	return r;
}

/* Opening --------------------------------------------------------------------------------------------------------- */

static int start(struct salvage *g)
{
	struct store *s = g->s;
	uint32_t skip;
	int r = find_super(g);

	if (r == 0)
		r = s->sys.random(s->sys.ctx, &skip, sizeof skip);
	if (r == 0)
		r = recovery_start_parts(s, s->super.gen_limit + skip);
	if (r < 0)
		return r;
	s->store_id = super_store_id(&s->super);
	g->total += g->blocks / 16;
	r = find_tree(g);
	if (r < 0)
		return r;
	s->client.attach(s->client.ctx, s);
	if (g->snapshot)
		r = load_journal(g);
	else
		r = g->v->no_super ? 0 : replay(g);
	s->counts.next_ino += 1024;
	return r;
}

int salvage_open(struct store *s, const struct store_options *o)
{
	struct salvage *g = calloc(1, sizeof *g);
	int r = -ENOMEM;

	if (!g)
		return r;
	g->s = s;
	g->v = o->salvage;
	g->snapshot = o->snapshot;
	/* As in recovery_load(): pinned before it is mapped. */
	r = g->snapshot ? file_pin(o, s->fd, &s->super) : 0;
	if (r == 0)
		r = map_open(&s->map, s->fd, true, 0, &s->sys);
	if (r < 0)
		goto out;
	g->blocks = map_blocks(&s->map);
	g->v->file_blocks = g->blocks;
	g->groups = div_up(g->blocks, GROUP_BLOCKS);
	if (g->v->mapped)
		g->v->mapped(g->v->ctx, s->map.base, g->blocks << BLOCK_SHIFT);
	/* So much of it is needed before there is a superblock. */
	s->space.total = g->blocks;
	g->marked = calloc(g->blocks / 64 + 1, 8);
	g->seen = calloc(g->blocks / 64 + 1, 8);
	g->group_known = calloc(g->groups + 1, 1);
	g->group_gen = calloc(g->groups + 1, 8);
	g->group_guess = calloc(g->groups + 1, 8);
	r = g->marked && g->seen && g->group_known && g->group_gen && g->group_guess ? start(g) : -ENOMEM;
out:
	free(g->marked);
	free(g->seen);
	free(g->group_known);
	free(g->group_gen);
	free(g->group_guess);
	free(g->leaves);
	free(g->holes);
	free(g);
	return r;
}
