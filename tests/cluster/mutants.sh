#!/bin/bash
# SPDX-License-Identifier: MIT
# make cluster-mutants: what keeps locks and roles right (core/replica/locks.h L1-L4, fs/lockd.h K1-K3, the change of roles), broken on
# purpose, one at a time, in a copy of the sources (tests/mutants.sh). The cluster, or a unit test of the table, must find each one.
#   tests/cluster/mutants.sh [NAME...]      SEEDS=1000: most that one mutant gets; KEEP=1: leave the copies; V=1: what was found
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=../mutants.sh
. tests/mutants.sh
sources=(core fs tests)
built+=("build/$MODE/fs" "build/$MODE/tests/cluster" "build/$MODE"/tests/unit/*_util.[do])
SEEDS=${SEEDS:-1000}
cluster=tests/cluster/cluster table=tests/unit/test_locks model=tests/unit/test_locks_model

# mutant NAME RULE WHAT PROGRAM FILE OLD NEW
mutant() {
	local why

	begin "$1" "$2" "$3"
	change "$5" "$6" "$7"
	if [ "$4" != "$cluster" ]; then
		run_unit "${4##*/}"
		return
	fi
	build "$4" || return 0
	machine env CMOCKA_MESSAGE_OUTPUT=TAP SEEDS="$SEEDS" "$T/src/build/$MODE/$4" && { verdict 1 "in $SEEDS seeds"; return; }
	why=$(sed -n 's/^# CASE=cluster //p' "$T/out" "$T/err" | head -n 1)
	verdict 0 "${why:-it ended with a signal}"
}

L=core/replica/locks.c D=fs/lockd.c F=fs/follower.c M=fs/remote.c

# ---------------------------------------------------------------------------------------------------------- the table
mutant no-grace L4 'a new primary gives out locks at once' $cluster $L '	t->grace = grace;
' '	t->grace = grace && false;
'
mutant no-grace-end L4 'and never after a grace period' $cluster $L '			for (l = f->waiting; l; l = l->next)
				give_up_flock(t, l->client, f, &l->op);
	wake_all(t);' '			for (l = f->waiting; l; l = l->next)
				give_up_flock(t, l->client, f, &l->op);'
mutant no-fence L 'fencing numbers do not go up' $model $L '	if (r == 0)
		t->counter++;' '	if (r == 0 && t->counter == 0)
		t->counter++;'
mutant no-conflict L1 'a shared lock does not mind an exclusive one' $table $L '(a->type == LOCKS_EXCLUSIVE || b->type == LOCKS_EXCLUSIVE)' '(a->type == LOCKS_EXCLUSIVE && b->type == LOCKS_EXCLUSIVE)'
mutant no-queue L2 'who comes goes before who waits' $table $L '			return !process_holds(c, op);' '			return false;'
mutant queue-always L2 'who holds something stands behind others, too' $table $L '			return !process_holds(c, op);' '			return true;'
mutant asked-twice L3 'a question that comes again stands in the queue twice' $table $L '		if (l->client == c && l->op.ticket == op->ticket)
			return true;' '		if (l->client == c && l->op.ticket == op->ticket)
			break;'
mutant keeps-waiting L 'who is gone goes on to wait' $model $L '	drop_of(t, c, false, true);
	if (!c->probes)' '	if (!c->probes)'
mutant keeps-all L 'what is not stated any more stays' $cluster $L '	drop_of(t, c, false, false);
	drop_of(t, c, true, false);
	for (i = 0; i < s.count' '	drop_of(t, c, false, false);
	for (i = 0; i < s.count'
mutant no-probe L5 'who does not want to wait hears what the table has' $table $L '	while (l && !(in_way(l, c, op) && l->client->probes))
		l = l->next;' '	l = NULL;'
mutant any-probe L5 'an answer to an older probe counts' $table $L 'c->probe_told < w->probe;' 'c->probe_told == 0;'
mutant probe-lost L5 'a statement leaves a probe without an answer' $table $L '	ask_anew(t);
' '	(void)ask_anew;
'
mutant probe-circle L5 'who does not want to wait is part of a circle' $table $L ' || w->mark == t->mark || !w->op.wait)' ' || w->mark == t->mark)'
mutant probe-gone L5 'who is gone is still asked' $table $L '	c->probes = false;
	wake_all(t);' '	wake_all(t);'

# ------------------------------------------------------------------------------------------------------------- mounts
mutant any-round K1 'an answer counts from whichever statement it is' $cluster $D 'if (m->round != d->round || d->l->leads)' 'if (d->l->leads)'
mutant no-second K1 'nothing is asked again after a link broke' $cluster $D '			finish(d, e, 0);
		else
			e->state = ENTRY_NEW;' '			finish(d, e, 0);
		else if (e->state == ENTRY_DONE)
			e->state = ENTRY_NEW;'
mutant not-told K2 'a program has its lock before its kernel knows what has changed' $cluster $D '	return notify_told(d->l->notify, e->mark);' '	return true;'
mutant not-here K2 'and before the changes are here' $cluster $D '		if (!d->streams || store_seq(d->l->fs->store) < e->seq)
			return false;' ''
mutant lost-unlock K3 'what is unlocked between a hello and its welcome is told to nobody' $cluster $D '	/* There may be a statement on its way that has it. */
	d->restate = true;' ''
mutant own-forgotten K1 'what the own table granted is asked for again of the next primary, and stated' $cluster $D '		if (e->state == ENTRY_DONE && e->own)
			continue;' ''
mutant no-barrier K4 'a probe is answered before what the kernel has' $cluster $D '	if (d->probe_wanted != 0 && d->barrier == 0 && session_barrier(d->l->fs, d->probe_wanted) == 0)
		d->barrier = d->probe_wanted;' '	if (d->probe_wanted != 0 && d->barrier == 0) {
		d->barrier = d->probe_wanted;
		lockd_barrier(d, d->barrier);
	}'
mutant old-barrier K4 'a barrier answers probes that came after it' $cluster $D '			(void)say(d, LOCK_CALL_PROBED, number);' '			(void)say(d, LOCK_CALL_PROBED, d->probe_wanted);'
mutant no-announce K4 'nobody is told that probes are answered here' $cluster $D '	locks_probes(d->table, d->l->client, 0);
' ''

# -------------------------------------------------------------------------------------------------------------- roles
mutant new-engine R4 'who led and follows again counts its calls from 1' $cluster $F '	if (l->replica != NULL) {
		follow_again(l);' '	if (l->replica != NULL && false) {
		follow_again(l);'
mutant change-passes R 'a change that passed the word that changes are parked does not count' $cluster $M '	if (store_seq(l->fs->store) != seq) {' '	if (false && store_seq(l->fs->store) != seq) {'
mutant oneself R 'a mount follows itself if it is told so' $cluster $F '	    strcmp(name, own) == 0)' '	    own[0] == 0)'
mutant nameless R 'who takes over is not known any more when its link breaks' $cluster core/replica/primary.c '		(void)snprintf(p->target_name, sizeof p->target_name, "%s", peer->name);
' ''
mutant still-forgets P8 'who stands still forgets who was sent away' $cluster core/replica/primary_peer.c '	if (p->still)
		return;
	for (peer' '	for (peer'
mutant still-lease P8 'a lease does not begin anew when it goes on' $cluster core/replica/primary.c '		p->clients[i]->left_at = now;' '		;'
mutant old-word R 'others are told of the primary before the last' $cluster $F '	feeder_elsewhere(l, l->address);
' ''

# ------------------------------------------------------------------------------------------------- files without a name
mutant not-held R5 'what a call has made is nobody'"'"'s until its program hears of it' $cluster $F '	if (inodes_ref(&l->fs->inodes, ino) == 0)
		p->held = ino;' '	(void)p;'
mutant held-on R5 'what a call has made is held after its answer, too' $cluster $F '	ops_answer(l->fs, p, res);
	let_go(l, p);' '	ops_answer(l->fs, p, res);'
mutant open-lost R5 'who hands over does not say what its programs have open' $cluster $M '		inodes_each_orphan(&l->fs->inodes, hold_orphan, l);
' '		(void)hold_orphan;
'
mutant holds-stay R5 'who hands over holds what it held before it led' $cluster core/replica/replica.c '	r->own_holds = r->fed_holds = (struct idset){ 0 };
	r->hold_all = r->holds_more = false;' '	r->own_holds = r->fed_holds = (struct idset){ 0 };'
mutant tree-stays P5 'who hands over says what those have whom it fed once' $cluster core/replica/replica.c '	r->tree_applied = r->tree_durable = UINT64_MAX;
	r->tree_count = 1;
}' '}'

finish cluster-mutants
