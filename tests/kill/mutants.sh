#!/bin/bash
# SPDX-License-Identifier: MIT
# make kill-mutants: what a kill must not harm, broken on purpose, one thing at a time, in a copy of the sources
# (tests/mutants.sh). The kill machine must find each one; how many kills it took is printed.
#   tests/kill/mutants.sh [NAME...]      LIMIT_S=120: longest run for one mutant; KEEP=1: leave the copies; V=1: what was found
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=../mutants.sh
. tests/mutants.sh
sources=(core fs tests)
built=("build/$MODE")
LIMIT_S=${LIMIT_S:-120}
SEED=${SEED:-1}
KILL=$PWD/build/$MODE/tests/kill

# run [WORD...]: build it and run the machine until it finds something.
run() {
	local status kills

	build msyncfs || return 0
	rm -rf --one-file-system "${T:?}/run" && mkdir "$T/run" || exit 2
	machine env PROGRAM="$T/src/build/$MODE/msyncfs" POINTS="$KILL/points.so" SCRIPTS="$PWD/tests/kill" \
		"$KILL/kill" "$T/run" SEED="$SEED" DURATION="$LIMIT_S" "$@"
	status=$?
	cat "$T/err" >>"$T/out"
	kills=$(sed -n 's/^# \([0-9]*\) kills.*/\1/p' "$T/out")
	[ "$status" = 1 ] && grep -q '^# LOST' "$T/out"
	verdict $? "after ${kills:-no} kills"
}

begin early-answer P1 'a change is answered before its record is complete (the check comes with the next)'
change core/store/journal.c '	put_le64(to + REC_CHECK, j->chain);' '	{
		static uint8_t *last;
		static uint64_t check_of_last;

		if (last)
			put_le64(last + REC_CHECK, check_of_last);
		last = to;
		check_of_last = j->chain;
	}'
run

begin record-check P1 'recovery believes a record whose check does not fit'
change core/store/journal.c '	if (get_le64(p + REC_CHECK) != hash64(p + 16, len - 16, j->nonce ^ pos))
		return false;
' ''
run KIND=in-request

begin last-record P1 'recovery leaves the last record out'
change core/store/recovery.c 'static int walk_journal(struct store *s, struct walk *w)
{' 'static int claim_none(void *ctx, block_t first, uint64_t blocks)
{
	(void)ctx;
	(void)first;
	return blocks == 0;
}

static int walk_journal(struct store *s, struct walk *w)
{'
change core/store/recovery.c '	while (journal_peek(&w->journal, &next) > 0) {
' '	while (journal_peek(&w->journal, &next) > 0) {
		struct journal after = w->journal;
		struct journal_next then;

		if (journal_accept(&after, &next, claim_none, s) < 0 || journal_peek(&after, &then) <= 0)
			break;
'
run

begin claim P1 'recovery gives the blocks of named extents to others'
change core/store/recovery.c '		if (e->flags & EXT_FRESH)
			r = space_claim(&s->space, e->block, e->count);
		else' '		if ((e->flags & EXT_FRESH) == 0)'
run

begin no-bound P3 'no checkpoint comes because the journal is long'
change core/store/store.c '	return journal > min_u64(JOURNAL_DUE, sp->total * BLOCK_SIZE / 8) || s->named_blocks' '	return journal == UINT64_MAX || s->named_blocks'
change core/store/store.c '	       s->journal.used + SPARES >= SEGS_MAX / 2 ||
' ''
run KIND=journal

begin no-bound-ahead P3 'the journal has no bound while a checkpoint is being written'
change core/store/store.c '(s->space.changes[1].page_count > AHEAD_PAGES || s->journal.tail - s->cut_pos > JOURNAL_AHEAD)' 's->space.changes[1].page_count > AHEAD_PAGES'
run_unit test_ahead

begin no-flock lock 'a store is not locked'
change core/store/file.c '		if (flock(fd, how | LOCK_NB) == 0)
			return 0;' '		(void)how;
		return 0;'
run

begin size-before-lock lock 'whether a store is new is decided before its lock is taken'
change core/store/file.c '	*ret_new = st.st_size == 0;
	return r;' '	*ret_new = was_empty;
	return r;'
change core/store/file.c '	int r = fstat(fd, &st) < 0 ? open_failed(o->path, errno) : check_kind(o, fd, &st);
' '	int r = fstat(fd, &st) < 0 ? open_failed(o->path, errno) : check_kind(o, fd, &st);
	bool was_empty = st.st_size == 0;
'
run_unit test_race

begin no-mount-lock lock 'the mount point is not locked'
change fs/mount.c '	int r = mnt_lock(path, WORD_MS / 1000, &mount_lock);
' '	int r = path == NULL ? mnt_lock(path, WORD_MS / 1000, &mount_lock) : 0;
'
run

begin no-wait lock 'a daemon that is being killed is not waited for'
change core/store/file.c '	return !is_mounted(sb.holder_mount) || is_ending(&sb);' '	return !is_mounted(sb.holder_mount) && !is_ending(&sb);'
run

begin dead-mount lock 'the mount of a killed daemon is left in the way'
change fs/mount.c '		if (mnt_detach(path) < 0)
			return fail(path, "the mount of a daemon' '		if (path[0] == '"'/'"')
			return fail(path, "the mount of a daemon'
run

begin unreaped left 'what had no name is kept by the next opening'
change fs/reaper.c 'void reaper_start(struct fs *fs)
{' 'void reaper_start(struct fs *fs)
{
	if (fs != NULL)
		return;'
run

begin named-temporary left 'a new store has its name before it is one'
change core/store/file.c '	n = (size_t)open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);' '	strcat(dir, "/.msyncfs.new");
	n = (size_t)open(dir, O_CREAT | O_RDWR | O_CLOEXEC, 0600);'
run

finish kill-mutants
