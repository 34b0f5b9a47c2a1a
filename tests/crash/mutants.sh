#!/bin/bash
# SPDX-License-Identifier: MIT
# make crash-mutants: each ordering point (O1-O12) and each rule of generations (G1-G6) of core/DESIGN.md broken on purpose,
# one at a time, in a copy of the sources (tests/mutants.sh). The power-cut machine must find each one; how many images it took
# is printed.
#   tests/crash/mutants.sh [NAME...]      IMAGES=100000: for one mutant at most; KEEP=1: leave the copies; V=1: what was
#                                         found; REDUCE=120: and make it short
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=../mutants.sh
. tests/mutants.sh
sources=(core tests/crash tests/unit)
built+=("build/$MODE/tests/crash" "build/$MODE/tests/unit")
IMAGES=${IMAGES:-100000}
SEED=${SEED:-1}

# run [KIND=...]: build it and run the machine until it finds something. KIND is where it shows first: of the cases that
# `make crash` runs, the other kinds are left out.
run() {
	local image images

	build tests/crash/crash || return 0
	machine env SEED="$SEED" IMAGES="$IMAGES" REDUCE="${REDUCE:-0}" "$@" "$T/src/build/$MODE/tests/crash/crash"
	image=$(sed -n 's/^crash: image //p' "$T/out")
	images=$(sed -n 's/^crash: \([0-9]*\) images.*/\1/p' "$T/out")
	if [ -n "$image" ]; then
		verdict 0 "image $image"
	else
		verdict 1 "in ${images:-no} images"
	fi
}

# ----------------------------------------------------------------------------------------------------- ordering points
begin record-check O1 'the check of a record does not depend on its bytes'
change core/store/journal.c 'get_le64(p + REC_CHECK) != hash64(p + 16, len - 16, j->nonce ^ pos))
		return false;
	*ret =' 'get_le64(p + REC_CHECK) == 0)
		return false;
	*ret ='
run

# Each of the two is enough for power cuts (DESIGN.md): both are broken.
begin record-unbound O1 'neither a chain nor a nonce tells records of a lost future from the present ones'
change core/store/journal.c 'if (get_le64(p + REC_CHAIN) != j->chain || get_le64(p + REC_SEQ)' 'if (get_le64(p + REC_SEQ)'
change core/store/journal.c '	uint64_t nonce = hash64(words, sizeof words, j->nonce_seed);' '	uint64_t nonce = sizeof words;'
run KIND=journal

begin no-extent-sync O2 'fsync does not write the extents'
change core/store/store.c '		r = map_sync(&s->map, ext[i].block, ext[i].count);' '		r = 0;'
run

begin no-journal-sync O2 'fsync does not write the journal'
change core/store/store.c '	if (r == 0 && from < tail)
		r = journal_sync(&s->journal, from, tail);' '	if (r == 0 && from < tail)
		s->journal.sync_mark = tail;'
run

begin early-answer O2 'an fsync is answered before its msync'
change core/store/store.c '	r = sync_extents(s);
	if (r == 0 && from < tail)' '	atomic_store(&s->durable_seq, seq);
	r = sync_extents(s);
	if (r == 0 && from < tail)'
run

begin received-unsynced O2 'fsync does not write what a replica has put past the mapping'
change core/replica/change_apply.c '			store_unsynced(a->k->store, t->block, t->count);
' ''
run KIND=replica

begin extents-unchecked O2 'recovery believes a record without looking at its extents'
change core/store/recovery.c '		r = recovery_extents_whole(s, &reader, &w->named);
		if (r <= 0)
			return r;
' ''
run

begin no-growth-sync O3 'growth is used before it is durable'
change core/store/map.c '	r = sync_piece(m, old >> BLOCK_SHIFT, 1);
	if (r < 0)
		return r;
	atomic_store' '	atomic_store'
run KIND=grow

begin next-first O4 'the segment that NEXT leads to is begun with another nonce'
change core/store/journal.c '	put_le64(rec + REC_HEADER + MUT_HEADER + 16, nonce);' '	put_le64(rec + REC_HEADER + MUT_HEADER + 16, nonce ^ (serial % 3 == 0));'
run KIND=journal

begin next-unsynced O4 'fsync does not write the segments before the last'
change core/store/journal.c '	return journal_ranges(j, from & ~(jpos_t)(BLOCK_SIZE - 1), to, sync_range, j->map);' \
	'	from = max_u64(from, (to - 1) >> j->shift << j->shift);
	return journal_ranges(j, from & ~(jpos_t)(BLOCK_SIZE - 1), to, sync_range, j->map);'
run KIND=journal

begin durable-ahead O4 'records say of more than is on disk that it is'
change core/store/store.c 's->record.len, store_durable_seq(s), &rec);' 's->record.len, store_seq(s), &rec);'
run

begin kept-none O4 'appends may take the last spare segment'
change core/store/journal.h '#define JOURNAL_KEPT 1u' '#define JOURNAL_KEPT 0u'
run KIND=full

begin no-spare-made rec 'recovery has no segment to begin in if the superblock lists none that was not walked'
change core/store/recovery.c '	if (s->read_only || s->journal.count > chain)
		return 0;' '	if (s)
		return 0;'
run KIND=journal

begin no-checkpoint-sync O5 'a checkpoint flips before its pages are written'
change core/store/checkpoint.c '	return space_sync_frozen(&s->space);' '	return 0;'
run

begin sync-behind-flip O5 'a checkpoint writes its pages behind the flip'
change core/store/checkpoint.c '	return space_sync_frozen(&s->space);' '	return 0;'
change core/store/checkpoint.c '		r = write_super(s, &s->next);
	if (r < 0) {' '		r = write_super(s, &s->next);
	if (r == 0 && !s->flip_only)
		r = space_sync_frozen(&s->space);
	if (r < 0) {'
run

begin received-left-out O5 'a checkpoint leaves out what a replica has put past the mapping'
change core/store/space.c '	space_mark_changed(sp, *ret_block, n);
	return 0;' '	if (kind != SPACE_BULK)
		space_mark_changed(sp, *ret_block, n);
	return 0;'
change core/replica/change_apply.c '			store_unsynced(a->k->store, t->block, t->count);
' ''
run KIND=replica

begin sync-one-chunk-less O5 'a checkpoint leaves out the last chunk'
change core/store/space.c '		end = min_u64(c * CHUNK_BLOCKS, blocks);
' '		end = min_u64(c * CHUNK_BLOCKS, blocks);
		if (c - first > 1)
			end = (c - 1) * CHUNK_BLOCKS;
'
run

begin same-slot O6 'the superblock in force is overwritten'
change core/store/checkpoint.c '	s->next.flip = s->super.flip + 1;
	s->next_version = s->own_version;
	s->flip_only = false;' '	s->next.flip = s->super.flip + 2;
	s->next_version = s->own_version;
	s->flip_only = false;'
run

begin super-unchecked O6 'the checksum of a superblock is not looked at'
change core/store/super.c '	if (get_le64(p + SB_CSUM) != hash64(p + 16, BLOCK_SIZE - 16, block))' '	if (0)'
run

begin no-flip-sync O7 'the flip is not written before the old blocks are released'
change core/store/checkpoint.c '	return map_sync(&s->map, block, 1);' '	return s->live ? 0 : map_sync(&s->map, block, 1);'
run

begin first-place-unsynced O7 'of the two places of the flip only the copy is written'
change core/store/checkpoint.c '	r = put_super(s, sb, super_place(slot));' '	r = 0;
	super_encode(map_block(&s->map, super_place(slot)), super_place(slot), sb);'
run

begin copy-unsynced O7a 'the copy of the flip is stored, not written'
change core/store/checkpoint.c '	return r < 0 ? r : put_super(s, sb, super_place(SUPERS + slot));' \
	'	super_encode(map_block(&s->map, super_place(SUPERS + slot)), super_place(SUPERS + slot), sb);
	return r;'
run

begin no-copy O7a 'the flip has no copy'
change core/store/checkpoint.c '	return r < 0 ? r : put_super(s, sb, super_place(SUPERS + slot));' '	return r;'
run

begin no-repair O7a 'opening leaves torn what it found torn of the superblock in force'
change core/store/recovery.c '	if (r == 0 && !o->snapshot)
		r = checkpoint_repair(s, slot);
' ''
run

begin release-at-cut O7 'what waited for the checkpoint is released at its cut'
change core/store/checkpoint.c '	s->named_blocks = 0;
	atomic_store' '	s->named_blocks = 0;
	if (s->live)
		for (uint64_t g = 0; g < s->space.group_count; g++)
			s->space.groups[g].slot[0] = s->space.groups[g].slot[1] != 3 ? s->space.groups[g].slot[1] : s->space.groups[g].slot[0];
	atomic_store'
run

begin no-limit O8 'opening does not raise the limit of generations'
change core/store/recovery.c '	s->super.clean = false;
	return checkpoint_flip(s, &s->super);' '	s->super.clean = false;
	return 0;'
change core/store/recovery.c 'start_parts(s, s->super.gen_limit + skip);' 'start_parts(s, s->super.gen + 1);'
run

begin no-close-sync O9 'a close that can cut no checkpoint does not write the journal'
change core/store/store.c '		r = store_sync(s);
		if (r == 0)
			r = checkpoint_drop_spares(s);' '		r = checkpoint_drop_spares(s);'
run

begin close-without O9 'a close writes nothing'
change core/store/store.c '		if (r == 0)
			r = checkpoint_write(s);
		/* As without room' '		/* As without room'
change core/store/store.c '		r = store_sync(s);
		if (r == 0)
			r = checkpoint_drop_spares(s);' '		r = checkpoint_drop_spares(s);'
run

begin clean-trusted O9 'a store that says clean is not walked'
change core/store/checkpoint.c '	sb->clean = clean;' '	sb->clean = true;'
change core/store/recovery.c '	while (journal_peek(&w->journal, &next) > 0) {' '	while (!s->super.clean && journal_peek(&w->journal, &next) > 0) {'
run

# -------------------------------------------------------------------------------------------------------------- recovery
begin no-claim G2 'recovery applies before it claims what records name'
change core/store/recovery.c '		if (e->flags & EXT_FRESH)
			r = space_claim(&s->space, e->block, e->count);
		else' ''
run

begin journal-continued rec 'the old journal is continued after a crash'
change core/store/recovery.c '		r = journal_new_start(&s->journal);
		if (r == 0)
			r = first_checkpoint(s);' '		r = first_checkpoint(s);'
run KIND=big

begin no-recovery-checkpoint rec 'recovery does not end with a checkpoint'
change core/store/recovery.c '		if (r == 0)
			r = first_checkpoint(s);
	}
	publish' '	}
	publish'
run

begin numbers-again rec 'inode numbers that a crash lost are given out again'
change core/store/recovery.c '	uint64_t n = leads ? 1ull << 24 : s->super.role == ROLE_ALONE ? 1ull << 20 : 0;' \
	'	uint64_t n = leads ? 1ull << 24 : 0;'
run

begin numbers-of-epoch rec 'inode numbers that a crash lost together with the beginning of an epoch are given out again'
change core/store/recovery.c '	uint64_t n = leads ? 1ull << 24 : s->super.role == ROLE_ALONE ? 1ull << 20 : 0;' \
	'	uint64_t n = s->super.role == ROLE_ALONE ? 1ull << 20 : 0;'
run KIND=names

begin extents-clean G6 'recovery writes extents that it found in the page cache only if the kernel knows them to be dirty'
change core/store/recovery.c '		dirty_again(s, e->block, e->flags & EXT_DATA ? e->count : 0);
' ''
run

begin no-dirty-extents G6 'recovery does not write extents that it found in the page cache'
change core/store/recovery.c '		if (e->flags & EXT_FRESH)
			r = space_claim(&s->space, e->block, e->count);
		else
			space_mark_changed(&s->space, e->block, e->count);' '		if (e->flags & EXT_FRESH) {
			struct space_changes ch = s->space.changes[1];
			uint64_t c = e->block / CHUNK_BLOCKS, was = ch.chunks[c / 64];

			r = space_claim(&s->space, e->block, e->count);
			ch.chunks[c / 64] = was;
		}'
run

# ----------------------------------------------------------------------------------------------------------- generations
begin change-in-place G1 'tree pages of older generations are changed in place'
change core/store/tree.c '	if (*gen == t->space->gen) {' '	if (*gen + 1 >= t->space->gen) {'
run

begin reuse-old-blocks G2 'blocks that D uses are given out as soon as C has freed them'
change core/store/space.c '	for (i = 0; i < 3; i++)
		l.view[i] = view_page(sp, group, i);' '	for (i = 0; i < 3; i++)
		l.view[i] = NULL;
	for (i = C; i >= D && !l.view[C]; i--)
		l.view[C] = view_page(sp, group, i);'
run

begin no-quarantine G3 'blocks that a record names are given out again in the same generation'
change core/store/space.c '	if (gen == sp->gen) {
		/* (G3)' '	if (false && gen == sp->gen) {
		/* (G3)'
run

begin hold-only-c G3 'quarantine ends when the checkpoint is cut'
change core/store/space.c '		sp->groups[g].hold[HOLD_F] = sp->groups[g].hold[HOLD_C];
		sp->groups[g].hold[HOLD_C] = NULL;' '		free(sp->groups[g].hold[HOLD_C]);
		sp->groups[g].hold[HOLD_C] = NULL;'
run KIND=big

begin segment-at-cut G4 'segments are used again when the checkpoint is cut, before it is on disk'
change core/store/checkpoint.c '	s->named_blocks = 0;
	atomic_store' '	s->named_blocks = 0;
	if (s->live && s->gone_segments == 0)
		(void)journal_trim(&s->journal, s->next.journal.pos, 0, 256, free_segment, s);
	atomic_store'
change core/store/checkpoint.c 'static int free_segment(void *ctx, block_t first, uint64_t blocks)
{' 'static int free_segment(void *ctx, block_t first, uint64_t blocks);
static int free_segment(void *ctx, block_t first, uint64_t blocks)
{'
change core/store/checkpoint.c '#include "core/store/store_int.h"
' '#include "core/store/store_int.h"

static int free_segment(void *ctx, block_t first, uint64_t blocks);
'
run KIND=journal

begin segment-freed G4 'the blocks of segments that a checkpoint gives back are free at its cut'
change core/store/checkpoint.c '		r = space_free_data(&s->space, s->journal.segs[i], journal_seg_blocks(&s->journal), s->space.gen);' \
	'		r = space_free_data(&s->space, s->journal.segs[i], journal_seg_blocks(&s->journal), 0);'
run KIND=journal

# Two kills, a power cut and a damaged superblock: see core/DESIGN.md.
begin super-clean G6 'a superblock found in the page cache is written only if the kernel knows it to be dirty'
change core/store/recovery.c '	dirty_again(s, slot, 1);
' ''
run

begin super-not-again G6 'a superblock found in the page cache is not written again'
change core/store/recovery.c '	dirty_again(s, slot, 1);
	r = map_sync(&s->map, slot, 1);
	return' '	return'
run

# --------------------------------------------------------------------------------------------- what the store is to others
begin identity-unsynced O8a 'another identity counts as durable when its superblock is stored'
change core/store/checkpoint.c '	if (r == 0)
		r = write_super(s, &s->next);
	if (r < 0) {' '	if (r == 0 && s->flip_only)
		super_encode(map_block(&s->map, s->next.flip & 1), s->next.flip & 1, &s->next);
	else if (r == 0)
		r = write_super(s, &s->next);
	if (r < 0) {'
run

begin identity-early O8a 'another identity counts as durable before it is written'
change core/store/checkpoint.c '	int r = write_frozen(s);

	if (r == 0)
		r = write_super(s, &s->next);' '	int r;

	atomic_store(&s->durable_version, s->next_version);
	r = write_frozen(s);
	if (r == 0)
		r = write_super(s, &s->next);'
run

begin identity-in-place O8a 'another identity is written over the superblock in force'
change core/store/checkpoint.c '	s->next.flip = s->super.flip + 1;
	s->next_version = s->own_version;
	s->flip_only = true;' '	s->next.flip = s->super.flip + 2;
	s->next_version = s->own_version;
	s->flip_only = true;'
run

begin identity-with-c O8a 'the superblock of another identity leads to the tree that is being changed'
change core/store/checkpoint.c '	s->next = s->super;
	checkpoint_take_identity' '	s->next = s->super;
	s->next.root = s->tree.root;
	checkpoint_take_identity'
run

begin identity-not-cut O8a 'a checkpoint makes durable what was asked for after its cut'
change core/store/checkpoint.c '	atomic_store(&s->durable_version, s->next_version);' '	atomic_store(&s->durable_version, s->own_version);'
run

begin identity-lost O8a 'a checkpoint does not take the identity along'
change core/store/checkpoint.c '	checkpoint_take_identity(sb, &s->own);
	sb->gen' '	sb->gen'
run

begin epoch-kept O10 'a primary that was not closed in order goes on in its epoch'
change core/keys/keys.c '(store_was_clean(k->store) && store_epoch(k->store) >= id.promised_epoch)' '(store_epoch(k->store) >= id.promised_epoch)'
run

begin epoch-below-promise O10 'a primary below its promise goes on in its epoch if it was closed in order'
change core/keys/keys.c '(store_was_clean(k->store) && store_epoch(k->store) >= id.promised_epoch)' 'store_was_clean(k->store)'
run

begin epoch-same-nonce O10 'two epochs that begin after the same crash have the same number'
change core/keys/cluster.c '	r = store_random(k->store, &e.nonce, sizeof e.nonce);' '	e.nonce = hash64(&epoch, sizeof epoch, 0);
	r = 0;'
run

begin epoch-uncommitted O10 'the epoch of an opening is not in the journal'
change core/keys/keys.c '		r = keys_begin_epoch(k, max_u64(store_epoch(k->store) + 1, id.promised_epoch));' '		store_set_epoch(k->store, max_u64(store_epoch(k->store) + 1, id.promised_epoch));'
run

begin rebase-open O11 'changes go on while a rebase is not on disk'
change core/store/store.c '	if (store_rebasing(s) || (!frees && is_far_ahead(s)))' '	if (!frees && is_far_ahead(s))'
change core/store/store.c '	if (store_rebasing(s))
		return -EAGAIN;
	r = journal_append' '	r = journal_append'
run

begin rebase-durable O11 'what was durable under the old numbers counts under the new ones'
change core/store/store.c '	if (base->seq > 0 && atomic_load(&s->durable_seq) >= base->seq)' '	if (0)'
run

begin rebase-staged O11 'blocks that a replica staged are not written with the checkpoint that leads to them'
change core/store/space.c '	space_mark_changed(sp, block, count);
	return for_groups(sp, block, count, release_staged, 0);' '	return for_groups(sp, block, count, release_staged, 0);'
change core/store/space.c '	r = for_groups(sp, block, count, mark_used, 0);
	if (r < 0)
		return r;
	return for_groups(sp, block, count, release_staged, 0);' '	uint64_t c = block / CHUNK_BLOCKS, was = sp->changes[1].chunks[c / 64];

	r = for_groups(sp, block, count, mark_used, 0);
	if (r < 0)
		return r;
	sp->changes[1].chunks[c / 64] = was;
	return for_groups(sp, block, count, release_staged, 0);'
run

# --------------------------------------------------------------------------------------------------------- making a store
begin made-unsynced O12 'of a new store nothing but the superblocks is written'
change core/store/checkpoint.c '	if (s->flip_only)
		return 0;
	space_seal' '	if (s->flip_only || s->super.flip == 0)
		return 0;
	space_seal'
run

begin made-super-unsynced O12 'the superblocks of a new store are stored, not written'
change core/store/checkpoint.c '	super_encode(map_block(&s->map, block), block, sb);
	return map_sync(&s->map, block, 1);' '	super_encode(map_block(&s->map, block), block, sb);
	return sb->flip <= 2 ? 0 : map_sync(&s->map, block, 1);'
run

begin made-named-first O12a 'a new store has its name before it is one'
change core/store/store.c '	r = map_guard(make_or_load, &opening);
	if (r < 0 && s->map.base' '	if (opening.is_new)
		r = file_publish(o, s->fd, unnamed);
	if (r == 0)
		r = map_guard(make_or_load, &opening);
	if (r < 0 && s->map.base'
change core/store/store.c '	if (r == 0 && opening.is_new)
		r = file_publish(o, s->fd, unnamed);
	if (r < 0)
		goto fail;
	store_measure_disk' '	if (r < 0)
		goto fail;
	store_measure_disk'
run

begin made-folder-unsynced O12b 'the folder of a new store is not written'
change core/store/file.c '	if (dirfd < 0 || fsync(dirfd) < 0)' '	if (dirfd < 0)'
run

# ------------------------------------------------------------------------------------------------------------- the end
begin cut-early end 'the end of the file is given back before its checkpoint is on disk'
change core/store/tail.c '	s->changed = true;
	return store_checkpoint(s);' '	s->changed = true;
	atomic_store_explicit(&s->shrink_wanted, s->tail_total, memory_order_release);
	(void)store_provision(s);
	return store_checkpoint(s);'
run KIND=tail

begin compact-in-place end 'compaction forgets where the contents are now'
change core/keys/compact.c '		memcpy(to, from, BLOCK_SIZE);' '		if (i > 0)
			memcpy(to, from, BLOCK_SIZE);'
run KIND=tail

finish crash-mutants
