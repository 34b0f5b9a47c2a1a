#!/bin/bash
# SPDX-License-Identifier: MIT
# make sim-mutants: the rules of core/replica/primary.h (P1-P8) and core/replica/replica.h (R1-R7), and what a store owes them (S), broken
# on purpose, one at a time, in a copy of the sources (tests/mutants.sh). The simulator must find each one; which seed it took is printed.
# Not here, since no simulated program makes as many calls or speaks in a lower epoch: the window of 32 calls and a stream below
# a promise (tests/unit/test_replica.c, test_link.c).
#   tests/sim/mutants.sh [NAME...]      SEEDS=200000: most that one mutant gets; KEEP=1: leave the copies; V=1: what was found
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=../mutants.sh
. tests/mutants.sh
sources=(core tests)
built+=("build/$MODE/tests/sim")
SEEDS=${SEEDS:-200000}

# run: build it and run seeds until one finds something.
run() {
	local why

	build tests/sim/sim || return 0
	machine env SEEDS="$SEEDS" "$T/src/build/$MODE/tests/sim/sim"
	why=$(sed -n 's/^# SEED=\([0-9]*\): /\1 /p' "$T/out" | sort -n | head -n 1)
	[ -n "$why" ] || why=$(sed -n 's/^# a process died: seed \([0-9]*\)/\1 died/p' "$T/out" | head -n 1)
	if [ -n "$why" ]; then
		verdict 0 "seed $why"
	else
		verdict 1 "in $SEEDS seeds"
	fi
}

P=core/replica/primary.c PP=core/replica/primary_peer.c R=core/replica/replica.c RC=core/replica/replica_call.c

# ------------------------------------------------------------------------------------------------------------- epochs
begin no-fence-hello P1 'a primary does not mind that a replica has promised a higher epoch'
change $PP 'if (h->promised > p->epoch && !peer->limited && (primary_leads(p) || p->state == PRIMARY_HANDING)) {' 'if (0) {'
run

begin promise-later R1 'a replica obeys a higher epoch before its promise is on disk'
change $R '			r->ops->promise(r->ctx, epoch);
		}
		return -EAGAIN;' '			r->ops->promise(r->ctx, epoch);
		}
		r->promised = epoch;'
run

begin promote-low R1 'a promotion does not look at what was promised'
change $R 'uint64_t epoch = epoch_next_term(max_u64(max_u64(r->promised, r->promising), r->epoch));' 'uint64_t epoch = epoch_next_term(r->epoch);'
run

begin same-epoch S 'a primary that crashed goes on in its epoch'
change tests/sim/node.c '	if (n->st.primary && (!n->st.clean || epoch < n->st.promised)) {' '	if (n->st.primary && (n->st.n == 0 || epoch < n->st.promised)) {'
run

begin no-nonce P2 'two epochs of the same number are taken for one'
change core/replica/message.c 'return a->epoch == b->epoch && a->first == b->first && a->nonce == b->nonce &&
	       memcmp(a->store, b->store, sizeof a->store) == 0;' 'return a->epoch == b->epoch && a->first == b->first;'
run

begin by-seq-only P2 'histories are not compared, only positions'
change core/replica/message.c '	return theirs->last > common ? HISTORY_DIVERGED : HISTORY_STREAM;' '	*ret_common = min_u64(theirs->last, ours->last);
	return theirs->last > ours->last ? HISTORY_DIVERGED : HISTORY_STREAM;'
run

begin relay-ahead P2 'a relay takes who is ahead of it for diverged'
change $PP '	if (p->state == PRIMARY_RELAYS && v != HISTORY_EMPTY && v != HISTORY_STREAM && common == ours.last)' '	if (0)'
run

# ------------------------------------------------------------------------------------------------------------- stream
begin skip-change P2 'a change is left out when a link is full'
change $P '		if (sent(peer, r) < 0)
			return r;
		peer->sent++;' '		peer->sent++;
		if (sent(peer, r) < 0)
			return r;'
run

begin any-order R2 'a change is applied whatever its number, if it is not sent again from the right place'
change $R 'r->state != REPLICA_STREAM || m.seq != r->applied + 1 ||' 'r->state != REPLICA_STREAM ||'
change $PP '	peer->sent = w.seq;' '	peer->sent = w.seq > 0 ? w.seq - 1 : 0;'
run

begin no-aside R6 'what diverged is not put aside'
change $R '	r->state = REPLICA_ASIDE;
	if (' '	to_diff(r);
	return;
	if ('
run

begin diff-in-aside R6 'a diff goes on while what diverged is being put aside'
change $R '		if (r->state == REPLICA_ASIDE)
			return -EAGAIN;' '		if (r->state == REPLICA_ASIDE)
			return 0;'
run

begin relay-old-epoch S 'a relay goes on feeding in its old epoch when it has got a new one'
change tests/sim/node.c '		pause_relay(n, "a new epoch, link or state");' '		(void)w->epoch;'
change tests/sim/node.c '		pause_relay(n, "it has no link itself");' '		(void)s;'
run

# -------------------------------------------------------------------------------------------------------------- calls
begin no-dedupe S 'the slot of a call is not looked up'
change tests/sim/node.c '	if (slot) {' '	if (0 && slot) {'
run

begin settle-early R3 'a call is answered before its change is here'
change $RC 'c->state == RCALL_ANSWERED && c->answer.seq <= r->applied' 'c->state == RCALL_ANSWERED'
run

begin settle-any-state R3 'a call is answered by a number of another line'
change $RC '	if (r->answered == 0 || (r->state != REPLICA_STREAM && r->state != REPLICA_LEADS))' '	if (r->answered == 0)'
run

begin old-result R3 'a result of an earlier link counts'
change $RC '		c->state = RCALL_UNSENT;
		if (c->own)' '		if (c->state != RCALL_ANSWERED)
			c->state = RCALL_UNSENT;
		if (c->own)'
change $RC '	r->answered = 0;
	/* The end' '	/* The end'
run

begin no-resend R4 'calls are not sent again'
change $RC '		c->state = RCALL_UNSENT;
		if (c->own)' '		if (c->own)'
change $RC '	r->answered = 0;
	/* The end' '	/* The end'
run

begin resend-order R4 'calls are sent again in the wrong order'
change $RC '	for (c = r->calls.first; c; c = next) {
		next = c->next;
		if (c->state != RCALL_UNSENT' '	for (c = r->calls.first; c; c = next) {
		next = c->next;
		if (next && next->state == RCALL_UNSENT && next->client == c->client && next->ever_sent)
			(void)transmit(r, next);
		if (c->state != RCALL_UNSENT'
run

begin no-token P3 'an answer goes to whatever run comes first'
change $P ' && s->token == token) {' ') {'
run

begin no-tag P3 'a relay takes an answer of an earlier sending of the call'
change $RC '		if (c->state == RCALL_SENT && c->tag == m->tag)' '		if (c->state == RCALL_SENT && c->request == m->request && c->client == m->client)'
run

begin not-moved P3 'a client that comes by another way is still answered on the old one'
change $PP '	if (c->peer && (c->peer != peer || c->session != session)) {' '	if (0) {'
run

begin erofs-for-sent R7 'who is given up hears EROFS although it may have been run'
change $RC '	if (c->ever_sent || (c->flags & REPLICA_CALL_SYNC)' '	if ((c->flags & REPLICA_CALL_SYNC)'
run

begin no-patience R7 'a call waits as long as the link is down'
change $RC '			if ((*at)->own && r->down_ms - (*at)->down_at >= wait)' '			if ((*at)->own && r->down_ms - (*at)->down_at >= wait + 100000)'
run

begin still-feeds P8 'who stands still goes on to feed others'
change $P '		primary_close_all(p, reason, false);
		primary_check_switch(p);' '		primary_check_switch(p);'
run

begin still-lets-in P8 'who stands still lets others in'
change $PP '	if (p->still)
		return refuse' '	if (0)
		return refuse'
run

# -------------------------------------------------------------------------------------------------------------- disks
begin sync-at-once P4 'an fsync does not wait for disks'
change $P 'p->state != PRIMARY_RELAYS && !is_synced(p, res)) {' 'p->state != PRIMARY_RELAYS && !is_synced(p, res) && false) {'
run

begin ack-undurable P4 'a replica says that it has on disk what it has applied'
change $R 'const struct msg_ack m = { r->link_epoch, r->applied, min_u64(r->durable, r->applied),' 'const struct msg_ack m = { r->link_epoch, r->applied, r->applied,'
change $R '				   min_u64(min_u64(r->durable, r->applied), r->tree_durable), r->tree_count };' '				   min_u64(r->applied, r->tree_durable), r->tree_count };'
run

begin not-own-disk P4 'replicas alone make an fsync done'
change $P '	return min_u64(best, p->durable);' '	return best;'
run

begin applied-counts P4 'what is applied on replicas counts as on disk'
change $PP '	peer->durable = m.durable;' '	peer->durable = m.applied;'
run

begin lost-untold R6 'an fsync after own changes were lost is a success'
change $RC '		r->lost[i] = 1;' '		r->lost[i] = 0;'
run

# -------------------------------------------------------------------------------------------------------- switch-over
begin hand-early P4 'the target of a switch-over need not have everything'
change $P 'p->running == 0 && peer->acked && peer->applied == p->last && peer->durable == p->last' 'p->running == 0 && peer->acked'
change $R '	    m.epoch != r->epoch || m.next' '	    m.next'
change $R 'm.seq != r->applied || m.seq > r->durable ||' '0 ||'
run

begin hand-unparked P4 'calls go on to be run while the primary hands over'
change $PP '	if (p->state == PRIMARY_PARKED || p->state == PRIMARY_HANDING) {' '	if (0) {'
run

begin hand-volatile P4 'the target is told before the old primary is none, on disk'
change $P '		p->ops->hand_over(p->ctx, p->target_next, p->target_seq);' '		(void)primary_send_promote(p, peer->link);
		p->ops->hand_over(p->ctx, p->target_next, p->target_seq);'
run

begin hand-running P4 'a switch-over does not wait for calls that are being run'
change $P 'p->running == 0 && peer->acked' 'peer->acked'
run

# -------------------------------------------------------------------------------------------------------------- holds
begin no-hold P5 'holds do not matter'
change $P '		if (idset_has(&peer->holds, ino))' '		if (idset_has(&peer->holds, ino) && false)'
run

begin mark-unacked P5 'an orphan is marked before everyone knows that it is one'
change $P '		limit = min_u64(limit, sure_applied(peer));' ''
run

begin hold-after-ack R5 'a hold is sent after the acknowledgement'
change $R '	if (r->state == REPLICA_STREAM && send_news(r) == 0 && r->ack_due)
		(void)send_ack(r);' '	if (r->state == REPLICA_STREAM && (!r->ack_due || send_ack(r) == 0))
		(void)send_news(r);'
run

begin no-grace P5 'a new primary marks before holds can be restated'
change $P 'elapsed(now, p->grace_at) < p->o.lease_ms' 'elapsed(now, p->grace_at) > UINT64_MAX / 2'
run

begin forget-gone P5 'who is gone holds nothing'
change $PP '	if (was != PEER_STREAMS && was != PEER_DIFFS)
		free_peer(p, peer);' '	free_peer(p, peer);'
change $PP '		if (other->link != 0)
			primary_close_peer(p, other, "the same store has connected again");
		free_peer(p, other);' '		primary_close_peer(p, other, "the same store has connected again");'
run

begin gone-applied P5 'who is gone counts with what it had applied, not with what is on its disk'
change $P '	return peer->state == PEER_GONE ? peer->tree_durable : peer->tree_applied;' '	return peer->tree_applied;'
run

begin unrestated P5 'holds are not restated at a new link'
change $R '		h.hold_count = count;' '		h.hold_count = 0 * count;'
run

begin relay-holds P5 'a relay does not pass on the holds of those that it feeds'
change tests/sim/node.c '			replica_hold(n->r, t.ino, true);' '			(void)t.ino;'
run

begin hold-in-hello R5 'a hold that comes between hello and welcome is not told'
change $R '	if (r->state != REPLICA_STREAM && r->state != REPLICA_HELLO)
		return;' '	if (r->state != REPLICA_STREAM)
		return;'
run

begin relay-order R5 'a relay passes acknowledgements on before the holds that came before them'
change tests/sim/node.c '		if (i == n->todo_count)
			replica_tree' '			replica_tree'
run

begin relay-ack P5 'a relay acknowledges what those that it feeds have not'
change $P '		*applied = min_u64(*applied, sure_applied(peer));' ''
run

# -------------------------------------------------------------------------------------------------------------- links
begin never-writable P6 'a link that was full stays shut'
change $PP '		peer->blocked = false;' '		peer->blocked = true;'
run

begin lost-frame P6 'a frame that was not taken is not given again'
change tests/sim/link.c '		put_back(q, &f);
		return;' '		free(f.bytes);
		return;'
run

finish sim-mutants
