/* SPDX-License-Identifier: MIT
 *
 * recovery: make a new store, or open one: pick the superblock, walk the journal, replay it. Crash argument: DESIGN.md
 * section 4. The walk is made three times, each over its own copy of the journal's state: once to see what is valid
 * (nothing is written), once to claim the blocks that records name, once to apply.
 */
#include "core/store/store_int.h"

#include <stdio.h>
#include <unistd.h>

static int slot_gen(void *ctx, uint64_t group, gen_t *ret_gen)
{
	struct store *s = ctx;
	const uint8_t *v;
	uint32_t len;
	int r;

	if (s->tree.root.block == 0)
		return -ENOENT;         /* a store being made: the tree's first page asks */
	r = tree_get(&s->tree, (struct key){ KIND_SPACE, group }, &v, &len);
	if (r < 0)
		return r;
	if (len != 8)
		return err_corrupt("item of free-space group %llu has %u bytes", (unsigned long long)group, len);
	*ret_gen = get_le64(v);
	return 0;
}

static void fill_holder(struct super *sb, const struct store_options *o)
{
	sb->holder_pid = (uint32_t)getpid();
	memset(sb->holder_host, 0, sizeof sb->holder_host);
	(void)gethostname(sb->holder_host, sizeof sb->holder_host - 1);
	memset(sb->holder_mount, 0, sizeof sb->holder_mount);
	if (o->holder_mount)
		(void)snprintf(sb->holder_mount, sizeof sb->holder_mount, "%s", o->holder_mount);
}

static bool is_journal(const void *ctx, block_t block)
{
	const struct store *s = ctx;

	return journal_owns(&s->journal, block, 1);
}

int recovery_start_parts(struct store *s, gen_t gen)
{
	uint64_t seed;
	int r;

	s->own = s->super;
	s->store_id = super_store_id(&s->super);
	s->max_blocks = s->super.max_blocks;
	s->counts.inodes = s->super.inodes;
	s->counts.next_ino = s->super.next_ino;
	r = s->sys.random(s->sys.ctx, &seed, sizeof seed);
	if (r < 0)
		return r;
	s->space.slot_gen = slot_gen;
	s->space.ctx = s;
	r = space_init(&s->space, &s->map, gen, s->super.used_blocks, s->super.total_blocks);
	if (r == 0)
		r = tree_init(&s->tree, &s->map, &s->space, s->store_id);
	if (r == 0)
		r = journal_init(&s->journal, &s->map, s->super.seg_shift, s->store_id, seed);
	if (r < 0)
		return r;
	s->tree.taken = is_journal;
	s->tree.taken_ctx = s;
	s->tree.tag_seed = hash64(&seed, sizeof seed, s->store_id);
	s->tree.root = s->super.root;
	s->tree.sealed = s->super.gen;
	return 0;
}

static void publish_position(struct store *s)
{
	atomic_store(&s->durable_seq, s->super.journal.seq);
	atomic_store(&s->durable_pos, s->super.journal.pos);
	atomic_store(&s->ckpt_pos, s->super.journal.pos);
	atomic_store(&s->ckpt_seq, s->super.journal.seq);
	atomic_store(&s->last_ckpt_ns, s->super.written_ns);
	s->cut_pos = s->journal.tail;
}

/* A checkpoint, written while nobody else is there yet. */
static int first_checkpoint(struct store *s)
{
	int r = checkpoint_cut(s, false);

	if (r == 0)
		r = checkpoint_write(s);
	if (r == 0)
		r = checkpoint_finish(s);
	return r;
}

/* New store ------------------------------------------------------------------------------------------------------- */

static int fill_new_super(struct store *s, const struct store_options *o)
{
	struct super *sb = &s->super;
	int r;

	memset(sb, 0, sizeof *sb);
	r = s->sys.random(s->sys.ctx, sb->uuid, sizeof sb->uuid);
	if (r == 0)
		r = s->sys.random(s->sys.ctx, &sb->hash_seed, sizeof sb->hash_seed);
	sb->uuid[6] = (uint8_t)((sb->uuid[6] & 0x0f) | 0x40);   /* RFC 4122, version 4 */
	sb->uuid[8] = (uint8_t)((sb->uuid[8] & 0x3f) | 0x80);
	sb->gen_limit = GEN_STEP;
	sb->max_blocks = o->max_bytes >> BLOCK_SHIFT;
	sb->created_ns = s->sys.now_real_ns(s->sys.ctx);
	sb->next_ino = 16;
	sb->total_blocks = map_blocks(&s->map);
	sb->used_blocks = sb->total_blocks ? 2 * SUPERS + SLOTS : 0;
	sb->seg_shift = o->max_bytes && o->max_bytes < 256u << 20 ? SEG_SHIFT_SMALL : SEG_SHIFT_LARGE;
	fill_holder(sb, o);
	return r;
}

static int first_segments(struct store *s)
{
	block_t segs[1 + SPARES];
	struct journal_start start = { .pos = ((jpos_t)1 << s->super.seg_shift) | SEG_HEADER };
	unsigned i;
	int r = s->sys.random(s->sys.ctx, &start.nonce, sizeof start.nonce);

	for (i = 0; i < ARRAY_LEN(segs) && r == 0; i++)
		r = space_alloc_exact(&s->space, journal_seg_blocks(&s->journal), &segs[i]);
	if (r == 0)
		r = journal_load(&s->journal, segs, i, &start);
	/* The first records go to a segment that was begun in order. */
	return r < 0 ? r : journal_new_start(&s->journal);
}

int recovery_format(struct store *s, const struct store_options *o)
{
	uint64_t blocks = FIRST_BLOCKS;
	int r;

	if (o->max_bytes && o->max_bytes < STORE_MIN)
		return err_set(EINVAL, "a store of %llu bytes is too small; give it at least 8M",
			       (unsigned long long)o->max_bytes);
	if (o->max_bytes)
		blocks = min_u64(blocks, o->max_bytes >> BLOCK_SHIFT);
	r = map_open(&s->map, s->fd, false, o->max_bytes, &s->sys);
	if (r < 0)
		return r;
	r = map_grow(&s->map, blocks);
	if ((r == -ENOSPC || r == -EDQUOT || r == -EFBIG) && blocks > STORE_MIN >> BLOCK_SHIFT)
		r = map_grow(&s->map, STORE_MIN >> BLOCK_SHIFT);
	if (r < 0)
		return err_set(-r, "cannot make a store of %llu bytes: %s", (unsigned long long)STORE_MIN, strerror(-r));
	r = fill_new_super(s, o);
	if (r == 0)
		r = recovery_start_parts(s, 1);
	if (r == 0)
		r = first_segments(s);
	if (r == 0)
		r = tree_create(&s->tree);
	if (r < 0)
		return r;
	s->client.attach(s->client.ctx, s);
	r = s->client.format(s->client.ctx);
	s->was_clean = true;
	if (r == 0)
		r = first_checkpoint(s);
	/* Both superblocks are ours from the beginning. */
	if (r == 0)
		r = checkpoint_flip(s, &s->super);
	if (r == 0)
		publish_position(s);
	return r;
}

/* Opening --------------------------------------------------------------------------------------------------------- */

/* How often the blocks of the whole store may be named as the contents of records. In an honest journal it is once: what was freed is
 * not used again before a checkpoint. */
#define NAMED_TIMES 4u

struct walk {
	struct store *s;
	struct journal journal;
	uint64_t named;                 /* blocks of contents */
	int (*record)(struct store *s, struct record_reader *reader, const uint8_t *rec);
	int (*claim)(void *ctx, block_t first, uint64_t blocks);
	uint64_t records;
};

/* A store to itself makes the kernel write the page again even if it believes it clean (a writeback that failed once). */
static void dirty_again(struct store *s, block_t block, uint64_t count)
{
	if (s->read_only)
		return;
	for (; count > 0; block++, count--) {
		volatile uint8_t *p = map_block(&s->map, block);

		/* cppcheck-suppress selfAssignment ; the store is what is wanted: see above */
		*p = *p;
	}
}

/* Do the extents hold what the record says? If not, the record did not reach the disk whole: the prefix ends before it. */
int recovery_extents_whole(struct store *s, const struct record_reader *reader, uint64_t *named)
{
	unsigned i;

	for (i = 0; i < reader->extent_count; i++) {
		if (!space_valid_range(&s->space, reader->extents[i].block, reader->extents[i].count))
			return 0;
		*named += reader->extents[i].flags & EXT_DATA ? reader->extents[i].count : 0;
	}
	/* All of them are read here, before anything is claimed. */
	if (*named > NAMED_TIMES * s->space.total)
		return err_corrupt("the journal names more blocks of contents than there are: %llu, up to change %llu",
				   (unsigned long long)*named, (unsigned long long)get_le64(reader->rec + REC_SEQ));
	return reader->extent_count > 0 ? s->client.whole(s->client.ctx, reader) : 1;
}

static int walk_journal(struct store *s, struct walk *w)
{
	struct record_reader reader;
	struct journal_next next;
	int r;

	while (journal_peek(&w->journal, &next) > 0) {
		r = record_open(&reader, next.rec, next.len);
		if (r < 0)
			return r;
		r = recovery_extents_whole(s, &reader, &w->named);
		if (r <= 0)
			return r;
		if (w->record) {
			r = w->record(s, &reader, next.rec);
			if (r < 0)
				return r;
		}
		w->records++;
		r = journal_accept(&w->journal, &next, w->claim, s);
		if (r < 0)
			return r;
	}
	return 0;
}

static int claim_nothing(void *ctx, block_t first, uint64_t blocks)
{
	struct store *s = ctx;

	return space_valid_range(&s->space, first, blocks) ? 0 :
	       err_corrupt("journal leads to block %llu outside the store", (unsigned long long)first);
}

static int claim_blocks(void *ctx, block_t first, uint64_t blocks)
{
	struct store *s = ctx;

	return space_claim(&s->space, first, blocks);
}

static int claim_extents(struct store *s, struct record_reader *reader, const uint8_t *rec)
{
	unsigned i;
	int r = 0;

	(void)rec;
	for (i = 0; i < reader->extent_count && r == 0; i++) {
		const struct record_extent *e = &reader->extents[i];

		dirty_again(s, e->block, e->flags & EXT_DATA ? e->count : 0);
		if (e->flags & EXT_FRESH)
			r = space_claim(&s->space, e->block, e->count);
		else
			space_mark_changed(&s->space, e->block, e->count);
	}
	return r;
}

static int apply_record(struct store *s, struct record_reader *reader, const uint8_t *rec)
{
	if (get_le16(rec + REC_TYPE) == REC_TYPE_NEXT)
		return 0;
	/* The run had room for it; if this replay's tree is shaped less well, the file may grow. */
	if (space_allocatable(&s->space) < 256 && map_grow(&s->map, GROW_MIN) == 0)
		(void)space_grown(&s->space);
	return s->client.apply(s->client.ctx, reader, rec);
}

static int new_walk(struct store *s, struct walk *w)
{
	int r = journal_init(&w->journal, &s->map, s->super.seg_shift, s->store_id, 0);

	w->s = s;
	w->records = w->named = 0;
	return r < 0 ? r : journal_load(&w->journal, s->super.segs, s->super.seg_count, &s->super.journal);
}

/* The segments that the superblock lists must be marked as in use, or something else would be put there. (Nothing is
 * given out of a group whose bitmap cannot be read.) */
static int check_segments(struct store *s)
{
	uint64_t blocks = (uint64_t)1 << (s->super.seg_shift - BLOCK_SHIFT);
	unsigned i;
	int r = 0;

	for (i = 0; i < s->super.seg_count && r == 0; i++)
		r = claim_nothing(s, s->super.segs[i], blocks);
	/* From here on no page is read there. */
	if (r == 0)
		r = journal_load(&s->journal, s->super.segs, s->super.seg_count, &s->super.journal);
	for (i = 0; i < s->super.seg_count && r == 0; i++) {
		bool all = true;

		r = space_in_use(&s->space, s->super.segs[i], blocks, &all);
		if (r == -EUCLEAN)
			r = 0;
		else if (r == 0 && !all)
			r = s->read_only ? space_keep(&s->space, s->super.segs[i], blocks) :
			    err_corrupt("journal segment at block %llu is marked as free",
					(unsigned long long)s->super.segs[i]);
	}
	return r;
}

/* The first walk: what is there? Nothing is written. */
static int survey(struct store *s, uint64_t *ret_records)
{
	struct walk w = { .claim = claim_nothing };
	int r = check_segments(s);

	if (r < 0)
		return r;
	r = new_walk(s, &w);
	if (r == 0)
		r = walk_journal(s, &w);
	if (r == 0)
		r = journal_check_damage(&w.journal);
	*ret_records = w.records;
	journal_release(&w.journal);
	return r;
}

static int claim_all(struct store *s, unsigned *ret_chain)
{
	struct walk w = { .record = claim_extents, .claim = claim_blocks };
	int r = new_walk(s, &w);

	if (r == 0)
		r = walk_journal(s, &w);
	/* The third walk follows the chain in the segments found here. What the first two read may have been there. */
	if (r == 0)
		r = journal_load(&s->journal, w.journal.segs, w.journal.count, &s->super.journal);
	tree_forget_all(&s->tree);
	*ret_chain = w.journal.used;
	journal_release(&w.journal);
	return r;
}

static int replay(struct store *s)
{
	struct walk w = { .record = apply_record, .claim = claim_nothing };
	int r;

	/* By value: the store's journal is the one that walks on. Its lock is not held by anybody yet. */
	w.journal = s->journal;
	r = walk_journal(s, &w);
	memcpy(s->journal.segs, w.journal.segs, sizeof s->journal.segs);
	s->journal.count = w.journal.count;
	s->journal.used = w.journal.used;
	s->journal.nonce = w.journal.nonce;
	s->journal.chain = w.journal.chain;
	s->journal.seq = w.journal.seq;
	s->journal.epoch = w.journal.epoch;
	s->journal.tail = w.journal.tail;
	atomic_store(&s->journal.pub_tail, s->journal.tail);
	atomic_store(&s->journal.pub_seq, s->journal.seq);
	return r;
}

/* Make sure of the file: its size, its blocks, the superblock in force. */
static int check_file(struct store *s, block_t slot)
{
	uint64_t size = map_blocks(&s->map) << BLOCK_SHIFT;
	int r;

	if (s->super.total_blocks > map_blocks(&s->map))
		return err_corrupt("the store is cut short: %llu bytes, should have %llu", (unsigned long long)size,
				   (unsigned long long)(s->super.total_blocks << BLOCK_SHIFT));
	if (s->read_only)
		return 0;
	/* A copy may have holes where the store was free; a store into a hole on a full disk would be SIGBUS. */
	r = s->sys.allocate(s->sys.ctx, s->fd, 0, size);
	if (r < 0)
		return err_set(-r, "cannot allocate all blocks of the store (it was copied with holes?): %s", strerror(-r));
	/* (G6) */
	dirty_again(s, slot, 1);
	r = map_sync(&s->map, slot, 1);
	return r < 0 ? err_set(-r, "cannot write the superblock: %s", strerror(-r)) : 0;
}

/* O8: no generation is used before a superblock that allows it is on disk. */
static int raise_generations(struct store *s, const struct store_options *o)
{
	if (o->max_bytes)
		s->max_blocks = s->super.max_blocks = o->max_bytes >> BLOCK_SHIFT;
	fill_holder(&s->super, o);
	s->super.gen_limit = s->space.gen + GEN_STEP;
	s->super.clean = false;
	return checkpoint_flip(s, &s->super);
}

/* Recovery ends in a segment that was not walked. The run that crashed always owned one (JOURNAL_KEPT); if it was
 * allocated after the last checkpoint, its blocks are free now, and still in one piece before anything is applied. */
static int keep_spare(struct store *s, unsigned chain)
{
	block_t first;
	int r = 0;

	if (s->read_only || s->journal.count > chain)
		return 0;
	r = space_alloc_exact(&s->space, journal_seg_blocks(&s->journal), &first);
	if (r == -ENOSPC && map_grow(&s->map, 2 * journal_seg_blocks(&s->journal)) == 0 &&
	    space_grown(&s->space) == 0)
		r = space_alloc_exact(&s->space, journal_seg_blocks(&s->journal), &first);
	return r < 0 ? err_set(-r, "no room for a journal segment") : store_add_segment(s, first);
}

/* What a first sync has put there so far is nobody's state. */
static int check_complete(const struct store *s, const struct store_options *o)
{
	if (!(s->super.feature_incompat & FEATURE_INCOMPLETE) || o->incomplete)
		return 0;
	return err_set(EINPROGRESS, "the first sync of this replica was interrupted, so it is not complete; "
		       "mount it with --from to go on, or remove it");
}

/* What the file has already, no limit takes away; but one that was given before stays good, whatever a recovery needed. */
static int check_limit(const struct store *s, const struct store_options *o)
{
	uint64_t bytes = map_blocks(&s->map) << BLOCK_SHIFT;

	if (!o->refuse_larger || s->read_only || o->max_bytes == 0 || o->max_bytes >= bytes || o->max_bytes >> BLOCK_SHIFT == s->super.max_blocks)
		return 0;
	return err_set(EINVAL, "it is larger already than the size to which it may grow; give at least size=%llu, or none",
		       (unsigned long long)bytes);
}

/* Numbers that a lost tail gave out do not come back as other files. In a cluster the epoch that begins now leaves them out,
 * on all members alike; but the beginning of an epoch may be lost itself, with what followed it, and the next one would begin
 * at the same number. So a primary leaves out as many here, where it is on disk before any of them is given out. Not one that is
 * to follow from now on (O10a): it gives out none, and is to get the tail again, numbers and all, from whoever has it. */
static void leave_numbers(struct store *s, bool follow)
{
	bool leads = s->super.role == ROLE_PRIMARY && !follow;
	uint64_t n = leads ? 1ull << 24 : s->super.role == ROLE_ALONE ? 1ull << 20 : 0;

	if (s->counts.next_ino < (1ull << 48) - 2 * n - 4096)
		s->counts.next_ino += n;
}

int recovery_load(struct store *s, const struct store_options *o)
{
	uint64_t records;
	unsigned chain = 0;
	uint32_t skip;
	block_t slot = 0;
	int r;

	/* Pinned before it is mapped: the file may have grown since the last look, but not after this one. */
	if (o->snapshot) {
		r = file_pin(o, s->fd, &s->super);
		if (r < 0)
			return r;
	}
	r = map_open(&s->map, s->fd, s->read_only, 0, &s->sys);
	if (r < 0)
		return r;
	if (!o->snapshot) {
		r = super_pick_at(s->map.base, map_blocks(&s->map), &s->super, &slot);
		if (r < 0 && !(r == -EROFS && s->read_only))
			return r;
	}
	r = check_limit(s, o);
	if (r == 0)
		r = check_file(s, slot);
	if (r == 0 && !o->snapshot)
		r = checkpoint_repair(s, slot);
	if (r < 0)
		return r;
	r = check_complete(s, o);
	if (r < 0)
		return r;
	s->was_clean = s->super.clean;
	/* Nobody can have made a store whose items or pages claim to be of the generation that begins now, which would be
	 * changed in place without being checked. */
	r = s->sys.random(s->sys.ctx, &skip, sizeof skip);
	if (r == 0)
		r = recovery_start_parts(s, s->super.gen_limit + skip);
	if (r < 0)
		return r;
	s->client.attach(s->client.ctx, s);
	if (o->snapshot) {
		r = journal_load(&s->journal, s->super.segs, s->super.seg_count, &s->super.journal);
		publish_position(s);
		return r;
	}
	r = survey(s, &records);
	if (r == 0)
		r = raise_generations(s, o);
	if (r == 0)
		r = claim_all(s, &chain);
	if (r == 0)
		r = keep_spare(s, chain);
	if (r == 0)
		r = replay(s);
	if (r < 0)
		return r;
	s->recovered = records;
	s->was_clean = s->was_clean && records == 0;
	if (!s->read_only && !s->was_clean) {
		/* The old journal is not continued: see DESIGN.md. */
		leave_numbers(s, o->follow);
		r = journal_new_start(&s->journal);
		if (r == 0)
			r = first_checkpoint(s);
	}
	publish_position(s);
	atomic_store(&s->durable_seq, s->read_only ? store_seq(s) : s->super.journal.seq);
	return r;
}
