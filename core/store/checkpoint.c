/* SPDX-License-Identifier: MIT
 *
 * checkpoint: the generation C becomes F, F is written, the superblock flips, F becomes D. Order and crash argument:
 * DESIGN.md sections 3 and 4, O5 to O7.
 */
#include "core/store/store_int.h"

/* The items that say which slot of each changed group is in force. Putting them allocates pages, which may change another
 * group: each group is listed once a generation, so this ends. */
static int put_group_items(struct store *s)
{
	uint64_t group;
	uint8_t gen[8];
	int r;

	put_le64(gen, s->space.gen);
	while (space_next_unlisted(&s->space, &group) == 0) {
		r = tree_put(&s->tree, (struct key){ KIND_SPACE, group }, gen, sizeof gen);
		if (r < 0) {
			s->space.groups[group].listed = false;
			return r;
		}
	}
	return 0;
}

/* Enough segments stay ours for the journal between two checkpoints, also while changes wait for the first, as far as the store's
 * size allows. One that is given back may not be had again: in a file whose tree is rewritten at random what is free lies
 * in crumbs, and each segment would wait for a checkpoint. */
unsigned checkpoint_keep_segments(const struct store *s)
{
	uint64_t keep = min_u64(s->space.total / 32 / journal_seg_blocks(&s->journal), SEGS_MAX / 2);

	/* A store that lies there needs what the next opening begins with. */
	return s->closing ? SPARES : (unsigned)max_u64(keep, 2 * SPARES);
}

/* Of the segments that nobody needs once this checkpoint is on disk, those beyond what is kept are free in it: they belong
 * to C until then (held), and the superblock does not list them. */
static int release_segments(struct store *s)
{
	unsigned keep = checkpoint_keep_segments(s) + 1, old = journal_old(&s->journal), i;
	int r = 0;

	s->gone_segments = s->journal.count > keep ? s->journal.count - keep : 0;
	if (s->gone_segments > old)
		s->gone_segments = old;
	for (i = 0; i < s->gone_segments && r == 0; i++)
		r = space_free_data(&s->space, s->journal.segs[i], journal_seg_blocks(&s->journal), s->space.gen);
	return r;
}

/* The checkpoint cannot be cut: they are ours as before. */
static int keep_segments(struct store *s)
{
	uint64_t blocks = journal_seg_blocks(&s->journal);
	unsigned i;
	int r = 0;

	for (i = 0; i < s->gone_segments && r == 0; i++) {
		r = space_claim(&s->space, s->journal.segs[i], blocks);
		s->space.pending[1] -= blocks;
	}
	s->gone_segments = 0;
	return r;
}

/* The identity of `from` into sb. */
static void checkpoint_take_identity(struct super *sb, const struct super *from)
{
	sb->feature_ro_compat = from->feature_ro_compat;
	sb->feature_incompat = from->feature_incompat;
	sb->role = from->role;
	memcpy(sb->cluster, from->cluster, sizeof sb->cluster);
	sb->promised_epoch = from->promised_epoch;
}

static int fill_super(struct store *s, struct super *sb, bool clean)
{
	unsigned n = 0, i;

	*sb = s->super;
	checkpoint_take_identity(sb, &s->own);
	sb->gen = s->space.gen;
	if (sb->gen_limit < sb->gen + GEN_STEP / 2)
		sb->gen_limit = sb->gen + GEN_STEP;
	sb->total_blocks = s->space.total;
	sb->inodes = s->counts.inodes;
	sb->next_ino = s->counts.next_ino;
	sb->root = s->tree.root;
	sb->clean = clean;
	journal_position(&s->journal, &sb->journal);
	if (s->journal.count - s->gone_segments > SEGS_MAX)
		return err_set(EOVERFLOW, "too many journal segments");
	/* The segment that holds the position first; all others that we own are spares to whoever opens this. */
	for (i = s->journal.used - 1; i < s->journal.count; i++)
		sb->segs[n++] = s->journal.segs[i];
	for (i = s->gone_segments; i + 1 < s->journal.used; i++)
		sb->segs[n++] = s->journal.segs[i];
	sb->seg_count = n;
	return 0;
}

/* The superblock in force is what we wrote: nobody has zeroed or replaced the file's beginning (cut it and made it long
 * again, or a second daemon where locks do not work). If not, this store is no longer ours to write to. */
static int super_untouched(struct store *s)
{
	block_t slot = s->super.flip & 1;
	struct super now;

	if (super_decode(map_block(&s->map, slot), slot, &now) == 0 && now.flip == s->super.flip &&
	    now.gen == s->super.gen)
		return 0;
	return err_corrupt("the superblock in force was changed by somebody else");
}

int checkpoint_cut(struct store *s, bool clean)
{
	int r;

	if (atomic_load(&s->ckpt_state) != CKPT_IDLE)
		return 0;
	if (store_failed(s))
		return store_failed(s);
	/* Blocks may also wait to become free without any change since the last one: its journal segments. */
	if (!s->changed && s->space.pending[1] == 0 && s->super.clean == clean && s->live)
		return 0;
	s->gone_segments = 0;
	r = s->super.flip > 0 ? super_untouched(s) : 0;         /* a new store has none */
	if (r == 0)
		r = put_group_items(s);
	/* The groups of these segments may get a slot of C by it, so their items come after; once freed they stay so. */
	if (r == 0)
		r = release_segments(s);
	if (r == 0)
		r = put_group_items(s);
	if (r == 0)
		r = fill_super(s, &s->next, clean);
	if (r == 0)
		r = space_freeze(&s->space, s->space.gen + 1);
	if (r == -ENOSPC && keep_segments(s) == 0)
		return err_set(ENOSPC, "no room for a checkpoint");
	if (r < 0) {
		store_fail(s, r);
		return r;
	}
	/* Only after the freeze is it known what the generation left in use. */
	s->next.used_blocks = s->space.used;
	s->next.flip = s->super.flip + 1;
	s->next_version = s->own_version;
	s->flip_only = false;
	s->changed = false;
	s->cut_pos = s->journal.tail;
	s->named_blocks = 0;
	atomic_store_explicit(&s->ckpt_state, CKPT_WRITING, memory_order_release);
	return 0;
}

/* D's tree, journal and segments, so nothing else needs to be on disk before it (as O8). Crash: one of the two, and both
 * lead to the same. The slot it goes to is not the one in force. */
void checkpoint_cut_identity(struct store *s)
{
	if (atomic_load(&s->ckpt_state) != CKPT_IDLE)
		return;
	s->next = s->super;
	checkpoint_take_identity(&s->next, &s->own);
	s->next.flip = s->super.flip + 1;
	s->next_version = s->own_version;
	s->flip_only = true;
	atomic_store_explicit(&s->ckpt_state, CKPT_WRITING, memory_order_release);
}

static int put_super(struct store *s, const struct super *sb, block_t block)
{
	super_encode(map_block(&s->map, block), block, sb);
	return map_sync(&s->map, block, 1);
}

/* The superblock that is not in force, then its copy. */
static int write_super(struct store *s, struct super *sb)
{
	unsigned slot = sb->flip & 1;
	int r;

	sb->written_ns = s->sys.now_real_ns(s->sys.ctx);
	/* O6, O7: torn or not there: D. Whole: F, which is complete. */
	r = put_super(s, sb, super_place(slot));
	/* O7a: whatever state a crash leaves the copy in, the first place is whole. Nothing of D is released before both
	 * are on disk: with any one of the four damaged there is still another way in. */
	return r < 0 ? r : put_super(s, sb, super_place(SUPERS + slot));
}

int checkpoint_repair(struct store *s, block_t force)
{
	unsigned i;
	int r = 0;

	for (i = s->super.flip & 1; i < SUPER_PLACES && r == 0; i += SUPERS) {
		block_t block = super_place(i);
		struct super sb;

		if (block == force || s->read_only ||
		    (super_decode(map_block(&s->map, block), block, &sb) == 0 && sb.flip == s->super.flip))
			continue;
		/* A crash leaves it torn, as it was found; the one in force is whole and on disk. */
		r = put_super(s, &s->super, block);
	}
	return r < 0 ? err_set(-r, "cannot write the superblock: %s", strerror(-r)) : 0;
}

int checkpoint_flip(struct store *s, struct super *sb)
{
	sb->flip++;
	return s->read_only ? 0 : write_super(s, sb);
}

static bool checkpoint_is_pinned(struct store *s)
{
	return file_is_pinned(s->fd);
}

static int write_frozen(struct store *s)
{
	if (s->flip_only)
		return 0;
	space_seal(&s->space);
	/* O5: all of F is on disk. Crash before: D, whose pages and journal nobody touched. */
	return space_sync_frozen(&s->space);
}

int checkpoint_write(struct store *s)
{
	uint64_t begin = s->sys.now_mono_ns(s->sys.ctx);
	int r = write_frozen(s);

	if (r == 0)
		r = write_super(s, &s->next);
	if (r < 0) {
		store_fail(s, r);
		return r;
	}
	atomic_store(&s->durable_version, s->next_version);
	if (s->flip_only) {
		atomic_store_explicit(&s->ckpt_state, CKPT_DONE, memory_order_release);
		store_progress(s);
		return 0;
	}
	/* After the store of the superblock: a reader that pinned D sees either our look or the new superblock. */
	s->ckpt_pinned = checkpoint_is_pinned(s);
	atomic_store(&s->ckpt_pos, s->next.journal.pos);
	atomic_store(&s->ckpt_seq, s->next.journal.seq);
	(void)pthread_mutex_lock(&s->ext_lock);
	if (atomic_load(&s->durable_seq) < s->next.journal.seq)
		atomic_store(&s->durable_seq, s->next.journal.seq);
	/* O11: if this was the checkpoint of a rebase, changes go on from here. (None that was cut before can end after it.) */
	atomic_store(&s->rebasing, false);
	(void)pthread_mutex_unlock(&s->ext_lock);
	atomic_store(&s->last_ckpt_ns, s->next.written_ns);
	atomic_store(&s->last_ckpt_took_ns, s->sys.now_mono_ns(s->sys.ctx) - begin);
	atomic_fetch_add(&s->ckpts, 1);
	atomic_store_explicit(&s->ckpt_state, CKPT_DONE, memory_order_release);
	store_progress(s);
	return 0;
}

static int free_segment(void *ctx, block_t first, uint64_t blocks)
{
	struct store *s = ctx;

	/* It was allocated in some older generation: not to be used before the next checkpoint is on disk. */
	return space_free_data(&s->space, first, blocks, 0);
}

int checkpoint_drop_spares(struct store *s)
{
	s->closing = true;
	return journal_trim(&s->journal, s->super.journal.pos, 0, checkpoint_keep_segments(s), free_segment, s);
}

int checkpoint_finish(struct store *s)
{
	int r;

	if (atomic_load_explicit(&s->ckpt_state, memory_order_acquire) != CKPT_DONE)
		return 0;
	if (s->flip_only) {
		s->super = s->next;
		atomic_store_explicit(&s->ckpt_state, CKPT_IDLE, memory_order_release);
		return 0;
	}
	r = space_durable(&s->space, s->ckpt_pinned);
	if (r < 0)
		return r;
	s->super = s->next;
	s->tree.sealed = s->super.gen;
	atomic_store_explicit(&s->ckpt_state, CKPT_IDLE, memory_order_release);
	/* (G4): what lies before the new superblock's position is free to be written again. */
	r = journal_trim(&s->journal, s->super.journal.pos, s->gone_segments, checkpoint_keep_segments(s),
			 free_segment, s);
	return r < 0 || !s->live ? r : tail_look(s);
}
