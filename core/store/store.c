/* SPDX-License-Identifier: MIT
 *
 * store: commit, sync, housekeeping, figures. The request thread's and the syncer's side of DESIGN.md section 2.
 */
#include "core/store/store_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FILL_MIN     4u         /* blocks; fewer go through the mapping */
#define WRITE_BEHIND 2048u      /* blocks that are filled before they are written back */

int store_failed(const struct store *s)
{
	int r = atomic_load_explicit(&((struct store *)(uintptr_t)s)->failed, memory_order_acquire);

	return r ? r : map_failed(&s->map);
}

int store_check_file(struct store *s)
{
	int r = store_failed(s);

	if (r == 0)
		r = map_check_size(&s->map);
	if (r < 0)
		store_fail(s, r);
	return r;
}

bool store_lost(const struct store *s, uint64_t *ret_byte)
{
	return map_lost(&s->map, ret_byte);
}

void store_left_halfway(struct store *s)
{
	store_fail(s, -EIO);
}

/* Blocks kept for deletes and for checkpoints. */
static uint64_t reserve_blocks(const struct store *s)
{
	return min_u64(max_u64(s->space.total / 32, 64), 16384);
}

uint64_t store_reserved_blocks(const struct store *s)
{
	return reserve_blocks(s);
}

void store_fail(struct store *s, int error)
{
	int none = 0;

	(void)atomic_compare_exchange_strong(&s->failed, &none, error);
	store_progress(s);
}

void store_progress(struct store *s)
{
	if (s->live && s->progress)
		s->progress(s->progress_ctx);
}

seq_t store_seq(const struct store *s)
{
	return atomic_load_explicit(&((struct store *)(uintptr_t)s)->journal.pub_seq, memory_order_acquire);
}

seq_t store_durable_seq(const struct store *s)
{
	return atomic_load_explicit(&((struct store *)(uintptr_t)s)->durable_seq, memory_order_acquire);
}

seq_t store_checkpoint_seq(const struct store *s)
{
	return atomic_load_explicit(&((struct store *)(uintptr_t)s)->ckpt_seq, memory_order_acquire);
}

struct record *store_record(struct store *s)
{
	return &s->record;
}

struct tree *store_tree(struct store *s)
{
	return &s->tree;
}

struct space *store_space(struct store *s)
{
	return &s->space;
}

struct store_counts *store_counts(struct store *s)
{
	return &s->counts;
}

uint64_t store_now_ns(const struct store *s)
{
	return s->sys.now_real_ns(s->sys.ctx);
}

uint64_t store_hash_seed(const struct store *s)
{
	return s->super.hash_seed;
}

uint64_t store_gen(const struct store *s)
{
	return s->space.gen;
}

void store_path(const struct store *s, char *buf, size_t size)
{
	(void)snprintf(buf, size, "/proc/self/fd/%d", s->fd);
}

bool store_read_only(const struct store *s)
{
	return s->read_only;
}

void store_measure_disk(struct store *s)
{
	atomic_store(&s->disk_blocks, map_blocks(&s->map) +
		     (s->memory ? file_memory_free_blocks() : file_disk_free_blocks(s->fd)));
}

/* What the file has grown by since it was measured came out of that: it is never counted twice. */
uint64_t store_disk_free_blocks(const struct store *s)
{
	uint64_t all = atomic_load_explicit(&((struct store *)(uintptr_t)s)->disk_blocks, memory_order_relaxed);
	uint64_t file = map_blocks(&s->map);

	return all > file ? all - file : 0;
}

/* Space ----------------------------------------------------------------------------------------------------------- */

int store_add_segment(struct store *s, block_t first)
{
	tree_forget(&s->tree, first, journal_seg_blocks(&s->journal));
	return journal_add_segment(&s->journal, first);
}

/* A large file that has just grown has free space in one piece, and so has one that was closed, as large as the segments which its closing
 * gave back. All the segments that the journal is to keep are taken then, as soon as there is use for one: later, with a
 * tree that is rewritten at random, what is free lies in crumbs, and each one more would take a growth. */
static bool should_take_all(const struct store *s)
{
	return s->spared_total != 0 && s->space.total > GROW_EAGER && !s->max_blocks &&
	       (s->space.total > s->spared_total || journal_spares(&s->journal) < SPARES);
}

static int spare_segments(struct store *s)
{
	unsigned keep = should_take_all(s) ? checkpoint_keep_segments(s) : 0;
	unsigned wanted = keep > s->journal.used + SPARES ? keep - s->journal.used : SPARES;

	s->spared_total = s->space.total;
	/* Looked for in vain: free space comes in one piece again only with a checkpoint or growth. */
	if (s->no_spare_total == s->space.total && s->no_spare_flip == s->super.flip)
		return 0;
	while (journal_spares(&s->journal) < wanted && s->journal.count < SEGS_MAX) {
		uint64_t blocks = journal_seg_blocks(&s->journal);
		block_t first;
		int r;

		r = -ENOSPC;
		if (space_allocatable(&s->space) >= blocks + reserve_blocks(s) / 2)
			r = space_alloc_exact(&s->space, blocks, &first);
		if (r == -ENOSPC) {
			s->no_spare_total = s->space.total;
			s->no_spare_flip = s->super.flip;
			return 0;
		}
		if (r < 0)
			return r;
		r = store_add_segment(s, first);
		if (r < 0)
			return r;
	}
	return 0;
}

static void ask_growth(struct store *s, uint64_t blocks)
{
	if (atomic_load_explicit(&s->grow_wanted, memory_order_relaxed) != 0)
		return;
	atomic_store_explicit(&s->grow_wanted, blocks, memory_order_release);
	store_wake_provisioner(s);
}

/* The usual step, at least `blocks`. */
static uint64_t growth_step(const struct store *s, uint64_t blocks)
{
	return max_u64(min_u64(s->space.total, GROW_MAX), blocks);
}

/* What could be allocated after a checkpoint: what waits for it, the segments it gives back, less what it needs itself. */
static uint64_t after_checkpoint(const struct store *s)
{
	unsigned keep = checkpoint_keep_segments(s) + 1;
	uint64_t blocks = space_allocatable(&s->space) + space_pending(&s->space) - s->space.pinned;
	uint64_t own = 2 * (s->tree.root.level + 2);

	if (s->journal.count > keep)
		blocks += (s->journal.count - keep) * journal_seg_blocks(&s->journal);
	return blocks > own ? blocks - own : 0;
}

/* Three quarters of a file that is not small are free, or wait for checkpoints to become free: the next one is waited for. Growth
 * would only make the file as long as the disk is slow (3 GB of keys, rewritten at random, once stood in 24 GB). With half of it
 * the states D, F and C of a tree that is rewritten at random do not fit beside each other: a checkpoint for each few crumbs. */
static bool frees_are_due(const struct store *s, uint64_t need)
{
	return s->space.total > GROW_EAGER && after_checkpoint(s) >= max_u64(need, s->space.total / 4 * 3);
}

/* Ask for growth when less than a quarter (at most 512 MiB) is left: ahead of need, off this thread. */
static void grow_ahead(struct store *s)
{
	uint64_t low = max_u64(min_u64(s->space.total / 4, 131072), 3072);

	if (s->tail == TAIL_KEEP && space_allocatable(&s->space) < low && !frees_are_due(s, low) &&
	    !atomic_load_explicit(&s->grow_refused, memory_order_acquire))
		ask_growth(s, growth_step(s, 0));
}

/* By how much the file should grow for a change that lacks room; 0: the next checkpoint makes it. The journal of a file that has only
 * crumbs would get no segment from checkpoints but those it has, and each of these is a few thousand changes: so the file
 * grows by what the journal lacks, once, 1/32 of its size at most. */
static uint64_t growth_for(const struct store *s, uint64_t need, bool segment)
{
	uint64_t seg = journal_seg_blocks(&s->journal);
	unsigned keep = checkpoint_keep_segments(s);

	if (!frees_are_due(s, need))
		return growth_step(s, segment ? 2 * seg : need);
	return segment && !s->max_blocks && s->journal.count < keep ? (keep - s->journal.count) * seg : 0;
}

/* Space for `need` blocks is short, or a journal segment is. Is any coming? -EAGAIN: yes; -ENOSPC: no. */
static int make_room(struct store *s, uint64_t need, bool segment)
{
	uint64_t growth = growth_for(s, need, segment);
	int r;

	/* The end is being given back: growth waits until that is done. */
	if (s->tail != TAIL_KEEP)
		return -EAGAIN;
	/* A refusal holds for a second: then the disk is asked anew. */
	if (atomic_load_explicit(&s->grow_refused, memory_order_acquire) &&
	    s->sys.now_mono_ns(s->sys.ctx) -
		    atomic_load_explicit(&s->grow_refused_ns, memory_order_relaxed) > 1000000000u)
		atomic_store_explicit(&s->grow_refused, false, memory_order_relaxed);
	if (!atomic_load_explicit(&s->grow_refused, memory_order_acquire) && growth > 0) {
		ask_growth(s, growth);
		if (!s->threads)
			(void)store_provision(s);
		if (!atomic_load_explicit(&s->grow_refused, memory_order_acquire))
			return -EAGAIN;
	}
	if (segment ? s->journal.used == 1 : after_checkpoint(s) < need)
		return -ENOSPC;
	if (atomic_load_explicit(&s->ckpt_state, memory_order_acquire) == CKPT_IDLE) {
		r = store_checkpoint(s);
		if (r < 0)
			return r;
	}
	return -EAGAIN;
}

/* 0, or what is short. */
static int have_room(struct store *s, uint64_t need, bool *ret_segment)
{
	int r = checkpoint_finish(s);

	if (r == 0)
		r = tail_grown(s);
	if (r == 0 && journal_spares(&s->journal) <= JOURNAL_KEPT)
		r = spare_segments(s);
	if (r < 0)
		return r;
	*ret_segment = journal_spares(&s->journal) <= JOURNAL_KEPT;
	return space_allocatable(&s->space) >= need && !*ret_segment ? 0 : -ENOSPC;
}

/* The checkpoint that is being written falls behind: changes wait for it. Else the next one, the file and the time that a
 * recovery takes would grow with the slowness of the disk. */
static bool is_far_ahead(const struct store *s)
{
	return s->threads && store_is_writing(s) &&
	       (s->space.changes[1].page_count > AHEAD_PAGES || s->journal.tail - s->cut_pos > JOURNAL_AHEAD);
}

/* need: with what has to be left. */
static int reserve(struct store *s, uint64_t need, bool frees)
{
	bool segment = false;
	int r, tries;

	if (s->read_only || store_failed(s))
		return -EROFS;
	if (store_rebasing(s) || (!frees && is_far_ahead(s)))
		return -EAGAIN;
	/* Without threads make_room() has done what it promises when it returns; each step can bring the next need. */
	for (tries = 0; tries < 4; tries++) {
		r = have_room(s, need, &segment);
		if (r != -ENOSPC)
			return r;
		r = make_room(s, need, segment);
		if (r != -EAGAIN || s->threads)
			return r;
	}
	return -ENOSPC;
}

int store_reserve(struct store *s, uint64_t blocks, bool frees)
{
	/* What frees may use the reserve, but for what the next checkpoint needs. */
	return reserve(s, blocks + (frees ? 8 + s->space.changes[1].group_count / 64 : reserve_blocks(s)), frees);
}

int store_reserve_paid(struct store *s, uint64_t blocks)
{
	/* The tree grows by it, a little. So that deletes work whatever is written, half of the reserve stays theirs. */
	return reserve(s, blocks + reserve_blocks(s) / 2, false);
}

int store_alloc(struct store *s, uint64_t want, uint64_t *ret_block, uint64_t *ret_count)
{
	return space_alloc_data(&s->space, want, ret_block, ret_count);
}

int store_alloc_bulk(struct store *s, uint64_t want, uint64_t *ret_block, uint64_t *ret_count)
{
	return space_alloc_bulk(&s->space, want, ret_block, ret_count);
}

int store_free(struct store *s, uint64_t block, uint64_t count, uint64_t gen)
{
	/* What is salvaged needs no room back, and what an extent of a damaged store names may by now be a page of the new tree. */
	if (s->salvage_groups > 0 || journal_owns(&s->journal, block, count))
		return 0;
	return space_give_back(&s->space, block, count, gen);
}

int store_touch(struct store *s, uint64_t block, uint64_t count)
{
	bool all;
	int r = space_in_use(&s->space, block, count, &all);

	if (r < 0)
		return r;
	/* What is free is given to others sooner or later, and would then be written to by two. */
	if (!all || journal_owns(&s->journal, block, count))
		return err_corrupt("blocks %llu+%llu are unwritten contents, but marked as free or the journal's",
				   (unsigned long long)block, (unsigned long long)count);
	space_mark_changed(&s->space, block, count);
	return 0;
}

void store_written(struct store *s, uint64_t block, uint64_t count)
{
	tree_forget(&s->tree, block, count);
}

static int outside(uint64_t block, uint64_t count)
{
	return err_corrupt("contents at blocks %llu+%llu: outside the store or reserved", (unsigned long long)block,
			   (unsigned long long)count);
}

void *store_blocks(const struct store *s, uint64_t block, uint64_t count, int *ret_error)
{
	if (!space_valid_range(&s->space, block, count)) {
		*ret_error = outside(block, count);
		return NULL;
	}
	return map_block(&s->map, block);
}

/* What comes in bulk is on its way to the disk while more comes: else all of it waits for the sync at the end, and the disk has nothing
 * to do until then. Staged blocks are free to every checkpoint, and a sync asks for the others' anyway: what of it is on disk, and when,
 * means nothing. */
static void write_behind(struct store *s, uint64_t block, uint64_t count)
{
	struct store_range *f = &s->filling;

	if (!s->threads)
		return;
	if (f->block + f->count != block) {
		/* A few blocks here and there are not worth it. */
		if (f->count >= WRITE_BEHIND / 8)
			(void)provision_post(s, &s->filled, *f);
		*f = (struct store_range){ block, 0 };
	}
	f->count += count;
	if (f->count >= WRITE_BEHIND) {
		(void)provision_post(s, &s->filled, *f);
		*f = (struct store_range){ block + count, 0 };
	}
}

int store_fill(struct store *s, uint64_t block, uint64_t count, const void *bytes)
{
	int r = 0;

	if (!space_valid_range(&s->space, block, count))
		return outside(block, count);
	/* A few are of those that are faulted in ahead (space.h). */
	if (count < FILL_MIN)
		memcpy(map_block(&s->map, block), bytes, count << BLOCK_SHIFT);
	else
		r = map_write(&s->map, block, count, bytes);
	write_behind(s, block, count);
	store_written(s, block, count);
	return r;
}

void store_unsynced(struct store *s, uint64_t block, uint64_t count)
{
	struct store_range *last;

	(void)pthread_mutex_lock(&s->ext_lock);
	last = s->ext_count > 0 ? &s->ext[s->ext_count - 1] : NULL;
	if (last && last->block + last->count == block) {
		last->count += count;
	} else if (s->ext_count < EXT_RANGES) {
		s->ext[s->ext_count++] = (struct store_range){ block, count };
	} else {
		/* One range that covers both: syncing too much is slow, never wrong. */
		block_t end = max_u64(last->block + last->count, block + count);

		last->block = min_u64(last->block, block);
		last->count = end - last->block;
	}
	(void)pthread_mutex_unlock(&s->ext_lock);
	atomic_fetch_add_explicit(&s->ext_blocks, count, memory_order_relaxed);
	s->named_blocks += count;
}

/* Commit ---------------------------------------------------------------------------------------------------------- */

/* Damage met while applying a record that is in the journal already: the tree may be half changed. No checkpoint may be
 * cut from it; the journal has the change, and the next opening will meet the same damage and say so. */
static int apply_failed(struct store *s, int error)
{
	store_fail(s, error);
	return error;
}

int store_commit(struct store *s)
{
	struct record_reader reader;
	const uint8_t *rec;
	int r;

	if (s->record.overflow)
		return -E2BIG;
	if (store_failed(s) || s->read_only)
		return -EROFS;
	/* O11: a record now would be lost if the checkpoint of the rebase does not reach the disk. */
	if (store_rebasing(s))
		return -EAGAIN;
	r = journal_append(&s->journal, s->record.buf, s->record.len, store_durable_seq(s), &rec);
	if (r < 0)
		return r;
	/* From here on kill -9 loses nothing of it (O1). */
	s->commits++;
	if (!s->changed) {
		s->changed = true;
		s->changed_ns = s->sys.now_mono_ns(s->sys.ctx);
	}
	if (atomic_load_explicit(&s->oldest_ns, memory_order_relaxed) == 0)
		atomic_store_explicit(&s->oldest_ns, get_le64(rec + REC_TIME), memory_order_relaxed);
	r = record_open(&reader, rec, s->record.len);
	if (r == 0)
		r = s->client.apply(s->client.ctx, &reader, rec);
	if (r < 0)
		return apply_failed(s, r);
	if (s->committed && !(get_le16(rec + REC_FLAGS) & REC_FLAG_INTERNAL))
		s->committed(s->committed_ctx, rec, s->record.len);
	return 0;
}

/* Sync ------------------------------------------------------------------------------------------------------------ */

void store_sync_request(struct store *s)
{
	(void)pthread_mutex_lock(&s->wake_lock);
	s->sync_wanted = true;
	(void)pthread_mutex_unlock(&s->wake_lock);
	/* Not before: the syncer would wake up only to wait for the lock, which makes unlocking a system call too. While it is at
	 * work this is none. */
	(void)pthread_cond_signal(&s->sync_wake);
}

/* In order of place, and those that touch as one: each msync costs the disk a flush, whatever it writes. */
static unsigned merge_ranges(struct store_range *ext, unsigned n)
{
	unsigned i, j, kept = 0;

	for (i = 1; i < n; i++) {
		struct store_range this = ext[i];

		for (j = i; j > 0 && ext[j - 1].block > this.block; j--)
			ext[j] = ext[j - 1];
		ext[j] = this;
	}
	for (i = 0; i < n; i++) {
		struct store_range *last = kept > 0 ? &ext[kept - 1] : NULL;

		if (last && ext[i].block <= last->block + last->count)
			last->count = max_u64(last->block + last->count, ext[i].block + ext[i].count) - last->block;
		else
			ext[kept++] = ext[i];
	}
	return kept;
}

static int sync_extents(struct store *s)
{
	struct store_range ext[EXT_RANGES];
	unsigned n, i;
	int r = 0;

	(void)pthread_mutex_lock(&s->ext_lock);
	n = s->ext_count;
	memcpy(ext, s->ext, n * sizeof *ext);
	s->ext_count = 0;
	(void)pthread_mutex_unlock(&s->ext_lock);
	atomic_store_explicit(&s->ext_blocks, 0, memory_order_relaxed);
	n = merge_ranges(ext, n);
	for (i = 0; i < n && r == 0; i++)
		r = map_sync(&s->map, ext[i].block, ext[i].count);
	return r;
}

/* seq is on disk, unless a rebase came since `rebases` was read: then its number means something else. */
static void raise_durable(struct store *s, seq_t seq, unsigned rebases)
{
	(void)pthread_mutex_lock(&s->ext_lock);
	if (rebases == s->rebases && !atomic_load(&s->rebasing) && atomic_load(&s->durable_seq) < seq)
		atomic_store(&s->durable_seq, seq);
	(void)pthread_mutex_unlock(&s->ext_lock);
}

/* O2: extents, then the journal's tail; only then is durable_seq raised, which is what answers an fsync. Crash before:
 * any valid prefix, nobody was answered. After: at least these records, with the extents they name. */
static int sync_to(struct store *s, seq_t seq, jpos_t tail, unsigned rebases)
{
	jpos_t from = max_u64(atomic_load(&s->durable_pos), atomic_load(&s->ckpt_pos));
	uint64_t begin = s->sys.now_mono_ns(s->sys.ctx), real = s->sys.now_real_ns(s->sys.ctx);
	int r;

	r = sync_extents(s);
	if (r == 0 && from < tail)
		r = journal_sync(&s->journal, from, tail);
	if (r < 0)
		return r;
	atomic_store(&s->durable_pos, max_u64(from, tail));
	raise_durable(s, seq, rebases);
	atomic_store(&s->oldest_ns, store_seq(s) > seq ? real : 0);
	atomic_store(&s->last_sync_ns, real);
	atomic_store(&s->last_sync_took_ns, s->sys.now_mono_ns(s->sys.ctx) - begin);
	atomic_fetch_add(&s->syncs, 1);
	if (s->synced_serial != tail >> s->journal.shift)
		atomic_store(&s->segment_syncs, 0);
	s->synced_serial = tail >> s->journal.shift;
	atomic_fetch_add(&s->segment_syncs, 1);
	return 0;
}

/* Under sync_lock: wait until nobody is at a sync. True: it is done for us, or the store has failed. One that began before our changes
 * does not do; of those who wait for its end the first makes the next one, for all of them. */
static bool is_served(struct store *s, seq_t wanted)
{
	while (s->syncing) {
		(void)pthread_cond_wait(&s->sync_over, &s->sync_lock);
		if (store_failed(s) < 0 || store_durable_seq(s) >= wanted)
			return true;
	}
	return false;
}

/* What the one who is at it does, without any lock. */
static int lead_sync(struct store *s)
{
	seq_t before = store_durable_seq(s), seq;
	unsigned rebases;
	bool rebasing;
	jpos_t tail;
	int r;

	(void)pthread_mutex_lock(&s->ext_lock);
	rebases = s->rebases;
	rebasing = atomic_load(&s->rebasing);
	(void)pthread_mutex_unlock(&s->ext_lock);
	/* The seq first: the tail, and the list of extents, then cover it. */
	seq = store_seq(s);
	tail = atomic_load_explicit(&s->journal.pub_tail, memory_order_acquire);
	r = store_failed(s);
	/* What is durable is so only while the file is whole. */
	if (r == 0)
		r = map_check_size(&s->map);
	if (r == 0 && !rebasing && seq > before)
		r = sync_to(s, seq, tail, rebases);
	/* Before the next one begins, and before those who waited look. */
	if (r < 0)
		store_fail(s, r);
	return r == 0 && rebasing ? -EAGAIN : r;
}

int store_sync(struct store *s)
{
	seq_t wanted = store_seq(s), before = store_durable_seq(s);
	bool served;
	int r;

	if (s->read_only)
		return 0;
	(void)pthread_mutex_lock(&s->sync_lock);
	served = is_served(s, wanted);
	s->syncing = s->syncing || !served;
	(void)pthread_mutex_unlock(&s->sync_lock);
	if (served) {
		r = store_failed(s);
	} else {
		r = lead_sync(s);
		(void)pthread_mutex_lock(&s->sync_lock);
		s->syncing = false;
		(void)pthread_mutex_unlock(&s->sync_lock);
		(void)pthread_cond_broadcast(&s->sync_over);
	}
	if (r < 0)
		return r;
	/* The journal went on, perhaps into a segment that nobody has made ready: few and small changes wake nobody else. */
	if (store_durable_seq(s) != before)
		store_wake_provisioner(s);
	store_progress(s);
	return 0;
}

int store_settle(struct store *s, uint64_t seq)
{
	if (store_durable_seq(s) >= seq)
		return 0;
	if (store_failed(s))
		return store_failed(s);
	if (!s->threads)
		return store_sync(s);
	store_sync_request(s);
	return -EAGAIN;
}

/* Another's state ------------------------------------------------------------------------------------------------- */

int store_stage(struct store *s, uint64_t want, uint64_t *ret_block, uint64_t *ret_count)
{
	return space_stage(&s->space, want, ret_block, ret_count);
}

int store_use_staged(struct store *s, uint64_t block, uint64_t count)
{
	return space_use_staged(&s->space, block, count);
}

int store_drop_staged(struct store *s, uint64_t block, uint64_t count)
{
	return space_drop_staged(&s->space, block, count);
}

void store_edited(struct store *s, uint64_t blocks)
{
	if (!s->changed)
		s->changed_ns = s->sys.now_mono_ns(s->sys.ctx);
	s->changed = true;
	s->named_blocks += blocks;
}

bool store_rebasing(const struct store *s)
{
	return atomic_load(&((struct store *)(uintptr_t)s)->rebasing);
}

uint64_t store_commits(const struct store *s)
{
	return s->commits;
}

int store_rebase_ready(struct store *s, uint64_t blocks)
{
	int r;

	if (s->read_only || store_failed(s))
		return -EROFS;
	r = checkpoint_finish(s);
	if (r < 0)
		return r;
	/* What the edits touch gets an item in each group of blocks; a spare for the journal comes with every reservation. */
	r = store_reserve(s, blocks + s->space.group_count / 64 + 16, true);
	if (r == 0 && atomic_load_explicit(&s->ckpt_state, memory_order_acquire) != CKPT_IDLE)
		r = -EAGAIN;
	return r;
}

/* O11. The edits are in C only. A crash before the superblock of this checkpoint is whole on disk: D and its journal, of
 * which nothing was overwritten (G1-G4; the fresh segment was a spare). After it: the edited tree with its number, and
 * nothing behind it. What was acknowledged as durable under the old number is no statement about the new one, so
 * durable_seq begins anew, and only the checkpoint raises it. */
int store_rebase(struct store *s, const struct store_base *base)
{
	int r = store_failed(s);

	if (r < 0)
		return r;
	check(!s->read_only);
	if (atomic_load_explicit(&s->ckpt_state, memory_order_acquire) != CKPT_IDLE) {
		store_fail(s, -EAGAIN);         /* store_rebase_ready() was not asked */
		return -EAGAIN;
	}
	/* Before the new number is published: a sync that is under way must not call it durable. */
	(void)pthread_mutex_lock(&s->ext_lock);
	atomic_store(&s->rebasing, true);
	s->rebases++;
	if (base->seq > 0 && atomic_load(&s->durable_seq) >= base->seq)
		atomic_store(&s->durable_seq, base->seq - 1);
	(void)pthread_mutex_unlock(&s->ext_lock);
	s->super.hash_seed = base->hash_seed;
	store_edited(s, 0);
	r = journal_rebase(&s->journal, base->seq, base->epoch);
	if (r == 0)
		r = store_checkpoint(s);
	if (r < 0)
		store_fail(s, r);
	return r;
}

/* Housekeeping ---------------------------------------------------------------------------------------------------- */

int store_write_cut(struct store *s)
{
	int r;

	if (s->threads) {
		(void)pthread_mutex_lock(&s->wake_lock);
		s->ckpt_wanted = true;
		(void)pthread_mutex_unlock(&s->wake_lock);
		(void)pthread_cond_signal(&s->ckpt_wake);
		return 0;
	}
	r = checkpoint_write(s);
	return r < 0 ? r : checkpoint_finish(s);
}

int store_checkpoint(struct store *s)
{
	int r = checkpoint_finish(s);

	if (r == 0)
		r = store_failed(s);
	if (r < 0)
		return r;
	if (atomic_load_explicit(&s->ckpt_state, memory_order_acquire) != CKPT_IDLE)
		return -EAGAIN;
	r = checkpoint_cut(s, false);
	/* Nothing changed since the last one: there is none to write. */
	if (r < 0 || atomic_load_explicit(&s->ckpt_state, memory_order_acquire) == CKPT_IDLE)
		return r;
	return store_write_cut(s);
}

/* Where the tree has few more leaves than that, each is copied once for many changes. In a large one nearly every random change
 * copies one of its own, however long the generation is: there a long one would only make recovery long. */
static uint64_t cut_pages(const struct store *s)
{
	return s->space.total > GROW_EAGER ? CUT_PAGES_LARGE : CUT_PAGES;
}

static bool checkpoint_due(const struct store *s)
{
	const struct space *sp = &s->space;
	uint64_t journal = s->journal.tail - s->cut_pos, allocatable = space_allocatable(sp);
	uint64_t waiting = space_pending(sp) - sp->pinned;

	if (!s->changed)
		return false;
	return journal > min_u64(JOURNAL_DUE, sp->total * BLOCK_SIZE / 8) || s->named_blocks > 131072 ||
	       sp->changes[1].page_count > cut_pages(s) || sp->held_groups > 1024 ||
	       s->journal.used + SPARES >= SEGS_MAX / 2 ||
	       (waiting > 64 && allocatable < sp->total / 8 && waiting > allocatable / 4) ||
	       s->sys.now_mono_ns(s->sys.ctx) - s->changed_ns > DIRT_MAX_NS;
}

static void post_runs(struct store *s)
{
	struct space_run run;

	while (provision_has_room(&s->fresh) && space_take_run(&s->space, &run))
		(void)provision_post(s, &s->fresh, (struct store_range){ run.next, run.end - run.next });
}

int store_poll(struct store *s)
{
	int r;

	if (s->read_only)
		return 0;
	r = store_failed(s);
	if (r < 0)
		return r;
	r = checkpoint_finish(s);
	if (r == 0)
		r = tail_grown(s);
	if (r == 0 && (journal_spares(&s->journal) < SPARES || s->spared_total != s->space.total))
		r = spare_segments(s);
	if (r < 0)
		return r;
	if (s->threads)
		post_runs(s);
	grow_ahead(s);
	if (!s->threads && atomic_load(&s->grow_wanted))
		(void)store_provision(s);
	r = identity_write(s);
	if (r == 0 && atomic_load_explicit(&s->ckpt_state, memory_order_acquire) == CKPT_IDLE && checkpoint_due(s))
		r = store_checkpoint(s);
	return r == -ENOSPC ? 0 : r;
}

bool store_is_dirty(const struct store *s)
{
	return !s->read_only && !store_failed(s) &&
	       (s->changed || identity_waits(s) || atomic_load(&((struct store *)(uintptr_t)s)->ckpt_state) != CKPT_IDLE);
}

uint64_t store_disk_turns(const struct store *s)
{
	return atomic_load_explicit(&((struct store *)(uintptr_t)s)->map.sync_turns, memory_order_relaxed);
}

bool store_is_writing(const struct store *s)
{
	return atomic_load_explicit(&((struct store *)(uintptr_t)s)->ckpt_state, memory_order_acquire) == CKPT_WRITING;
}

/* Figures --------------------------------------------------------------------------------------------------------- */

void store_status(const struct store *cs, struct store_status *ret)
{
	struct store *s = (struct store *)(uintptr_t)cs;        /* atomics are loaded from a non-const object */
	jpos_t tail = atomic_load(&s->journal.pub_tail);

	memset(ret, 0, sizeof *ret);
	super_uuid_text(&s->super, ret->uuid);
	ret->seq = store_seq(s);
	ret->durable_seq = store_durable_seq(s);
	ret->checkpoint_seq = store_checkpoint_seq(s);
	ret->epoch = s->journal.epoch;
	ret->promised_epoch = s->own.promised_epoch;
	ret->role = (enum store_role)s->own.role;
	ret->incomplete = s->own.feature_incompat & FEATURE_INCOMPLETE;
	ret->journal_pos = tail;
	ret->checkpoint_pos = atomic_load(&s->ckpt_pos);
	ret->durable_pos = max_u64(atomic_load(&s->durable_pos), ret->checkpoint_pos);
	ret->journal_bytes = (uint64_t)s->journal.count << s->journal.shift;
	ret->oldest_unsynced_ns = ret->seq > ret->durable_seq ? atomic_load(&s->oldest_ns) : 0;
	if (ret->seq > ret->durable_seq)
		ret->dirty_bytes = tail - ret->durable_pos + atomic_load(&s->ext_blocks) * BLOCK_SIZE;
	ret->uncheckpointed_bytes = s->changed ? s->space.changes[1].blocks * BLOCK_SIZE : 0;
	ret->last_sync_ns = atomic_load(&s->last_sync_ns);
	ret->last_sync_took_ns = atomic_load(&s->last_sync_took_ns);
	ret->syncs = atomic_load(&s->syncs);
	ret->last_checkpoint_ns = atomic_load(&s->last_ckpt_ns);
	ret->last_checkpoint_took_ns = atomic_load(&s->last_ckpt_took_ns);
	ret->checkpoints = atomic_load(&s->ckpts);
	ret->file_bytes = map_blocks(&s->map) << BLOCK_SHIFT;
	ret->max_bytes = s->super.max_blocks << BLOCK_SHIFT;
	ret->used_blocks = s->space.used;
	ret->free_blocks = space_allocatable(&s->space);
	ret->pending_blocks = space_pending(&s->space);
	ret->inodes = s->counts.inodes;
	ret->grows = atomic_load(&s->grows);
	ret->recovered_records = s->recovered;
	ret->failed = -store_failed(s);
	ret->read_only = s->read_only;
}

/* Open and close -------------------------------------------------------------------------------------------------- */

static void store_release(struct store *s)
{
	record_release(&s->record);
	tree_release(&s->tree);
	space_release(&s->space);
	journal_release(&s->journal);
	map_close(&s->map);
	(void)pthread_mutex_destroy(&s->sync_lock);
	(void)pthread_mutex_destroy(&s->ext_lock);
	(void)pthread_mutex_destroy(&s->wake_lock);
	(void)pthread_cond_destroy(&s->sync_over);
	(void)pthread_cond_destroy(&s->sync_wake);
	(void)pthread_cond_destroy(&s->ckpt_wake);
	(void)pthread_cond_destroy(&s->prov_wake);
	if (s->fd >= 0)
		(void)close(s->fd);
	free(s->made_path);
	free(s);
}

static struct store *store_new(const struct store_options *o, const struct store_client *client)
{
	struct store *s = calloc(1, sizeof *s);
	pthread_condattr_t attr;

	if (!s)
		return NULL;
	s->sys = o->sys ? *o->sys : sys_linux;
	s->client = *client;
	s->progress = o->progress;
	s->progress_ctx = o->progress_ctx;
	s->committed = o->committed;
	s->committed_ctx = o->committed_ctx;
	s->read_only = o->read_only;
	s->threads = o->threads && !o->read_only;
	s->sync_interval_s = o->sync_interval_s;
	s->fd = -1;
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_mutex_init(&s->sync_lock, NULL);
	(void)pthread_mutex_init(&s->ext_lock, NULL);
	(void)pthread_mutex_init(&s->wake_lock, NULL);
	(void)pthread_cond_init(&s->sync_over, &attr);
	(void)pthread_cond_init(&s->sync_wake, &attr);
	(void)pthread_cond_init(&s->ckpt_wake, &attr);
	(void)pthread_cond_init(&s->prov_wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	return s;
}

struct opening {
	struct store *s;
	const struct store_options *o;
	bool is_new;
};

static int make_or_load(void *arg)
{
	struct opening *a = arg;

	return a->is_new ? recovery_format(a->s, a->o) :
	       a->o->salvage ? salvage_open(a->s, a->o) : recovery_load(a->s, a->o);
}

int store_open(const struct store_options *o, const struct store_client *client, struct store **ret_store)
{
	struct store *s = store_new(o, client);
	struct opening opening = { .s = s, .o = o };
	bool unnamed = false, made = false, ours = false;
	uint64_t byte;
	int r = -ENOMEM;

	err_clear();
	if (!s)
		return r;
	if (record_init(&s->record) < 0)
		goto fail;
	r = file_open(o, &s->fd, &opening.is_new, &s->memory, &unnamed, &made);
	if (r < 0)
		goto fail;
	ours = opening.is_new && !s->memory;
	if (ours) {
		s->made_name = unnamed || made;
		s->made_path = strdup(o->path);
		r = s->made_path ? 0 : -ENOMEM;
		if (r < 0)
			goto fail;
	}
	r = map_guard(make_or_load, &opening);
	if (r < 0 && s->map.base && store_lost(s, &byte))
		r = err_set(EIO, "%s: byte %llu cannot be read: the file is being cut short, or the disk failed",
			    o->path, (unsigned long long)byte);
	if (r == 0 && opening.is_new)
		r = file_publish(o, s->fd, unnamed);
	if (r < 0)
		goto fail;
	store_measure_disk(s);
	if (s->threads) {
		r = workers_start(s);
		if (r < 0) {
			workers_stop(s);
			goto fail;
		}
	}
	if (!s->read_only && !s->memory)
		file_mark(s->fd, &s->super);
	s->live = true;
	*ret_store = s;
	return 0;
fail:
	if (ours)
		file_discard(o->path, s->fd, s->made_name);
	store_release(s);
	return r;
}

/* Last sync and checkpoint. */
static int finish(void *arg)
{
	struct store *s = arg;
	int r = s->read_only ? 0 : store_failed(s);

	/* A checkpoint that the checkpointer was told of but did not get to is written now. */
	if (r == 0 && !s->read_only && atomic_load(&s->ckpt_state) == CKPT_WRITING)
		r = checkpoint_write(s);
	if (r == 0 && !s->read_only)
		r = checkpoint_finish(s);
	if (r == 0 && !s->read_only) {
		/* O9: the last checkpoint says that nothing follows it. The sync first: if none can be cut (not one block
		 * to be had, as when a reader holds all that are free), all changes are in the journal on disk. */
		r = store_sync(s);
		if (r == 0)
			r = checkpoint_drop_spares(s);
		if (r == 0)
			r = checkpoint_cut(s, true);
		if (r == 0)
			r = checkpoint_write(s);
		/* As without room, so without memory: what was synced is on disk, and no msync has failed. */
		if (r == -ENOSPC || (r == -ENOMEM && map_failed(&s->map) == 0 && store_durable_seq(s) >= store_seq(s))) {
			/* All changes are in the journal; only the identity is not. */
			r = 0;
			if (identity_waits(s)) {
				checkpoint_cut_identity(s);
				r = checkpoint_write(s);
			}
		}
	}
	return r;
}

int store_close(struct store *s)
{
	int r;

	if (s->threads)
		workers_stop(s);
	s->threads = false;
	s->live = false;
	r = map_guard(finish, s);
	store_release(s);
	return r;
}

int store_abandon(struct store *s)
{
	/* The root directory is all there is. */
	if (!s->made_path || s->counts.inodes > 1)
		return store_close(s);
	if (s->threads)
		workers_stop(s);
	s->threads = false;
	s->live = false;
	/* The lock is kept until it is gone: who waits for it finds no store. A crash before leaves an empty store, which is
	 * as good as none. */
	file_discard(s->made_path, s->fd, s->made_name);
	store_release(s);
	return 0;
}
