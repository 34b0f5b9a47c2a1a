/* SPDX-License-Identifier: MIT
 *
 * primary: roles, what is new, when an fsync is done, the switch-over, sending. See primary.h for the invariants.
 */
#include "core/replica/primary_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct primary *primary_new(const struct primary_options *o, const struct primary_ops *ops, void *ctx)
{
	struct primary *p = calloc(1, sizeof *p);

	if (!p)
		return NULL;
	p->o = *o;
	p->features = o->features;
	p->ops = ops;
	p->ctx = ctx;
	p->next_token = 1;
	if (p->o.version == 0)
		p->o.version = MSG_VERSION;
	if (p->o.lease_ms == 0)
		p->o.lease_ms = 10000;
	if (p->o.keep_ms == 0)
		p->o.keep_ms = 1000;
	if (p->o.sync_wait_ms == 0)
		p->o.sync_wait_ms = 10000;
	if (p->o.switch_wait_ms == 0)
		p->o.switch_wait_ms = 10000;
	return p;
}

void primary_free(struct primary *p)
{
	unsigned i;

	if (!p)
		return;
	for (i = 0; i < p->wait_count; i++)
		p->ops->waited(p->ctx, p->waits[i].cookie, -ECANCELED);
	while (p->peers) {
		struct primary_peer *peer = p->peers;

		p->peers = peer->next;
		idset_release(&peer->holds);
		primary_drop_locks(peer);
		free(peer);
	}
	for (i = 0; i < p->client_count; i++)
		free(p->clients[i]);
	free(p->clients);
	free(p);
}

void primary_note(struct primary *p, link_t link, const char *format, ...)
{
	char text[MSG_TEXT_MAX + 1];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	p->ops->note(p->ctx, link, text);
}

/* Roles ------------------------------------------------------------------------------------------------------------ */

static void begin(struct primary *p, enum primary_state state, uint64_t epoch, uint64_t promised, seq_t last, uint64_t now)
{
	p->state = state;
	p->epoch = epoch;
	p->promised = max_u64(p->promised, promised);
	p->last = last;
	p->now = now;
	p->paused = false;
	p->elsewhere[0] = 0;
	/* A switch-over is over when its epoch, or a later one, is heard of. */
	if (p->handed && epoch >= p->target_next)
		p->handed = false;
}

void primary_lead(struct primary *p, uint64_t epoch, uint64_t promised, seq_t last, seq_t durable, uint64_t now)
{
	p->now = now;
	primary_close_all(p, "this is the primary now: connect again", true);
	begin(p, PRIMARY_LEADS, epoch, promised, last, now);
	p->handed = false;
	p->path_count = 0;
	p->durable = durable;
	p->stale_ms = 0;
	p->synced = 0;
	p->grace_at = now;
	primary_update_synced(p);
}

void primary_relay(struct primary *p, uint64_t epoch, uint64_t promised, seq_t last, uint64_t now)
{
	p->now = now;
	/* A link has one epoch. */
	if (p->state != PRIMARY_RELAYS || p->epoch != epoch)
		primary_close_all(p, "this is a replica of another epoch now: connect again", true);
	begin(p, PRIMARY_RELAYS, epoch, promised, last, now);
	p->durable = 0;
}

void primary_pause(struct primary *p, const char *reason)
{
	if (p->state != PRIMARY_RELAYS)
		return;
	p->paused = true;
	primary_close_all(p, reason, false);
}

void primary_stand_still(struct primary *p, const char *reason, uint64_t now)
{
	struct primary_peer *peer;
	unsigned i;

	p->now = now;
	if (p->still == (reason != NULL))
		return;
	p->still = reason != NULL;
	if (reason) {
		primary_close_all(p, reason, false);
		primary_check_switch(p);
		return;
	}
	for (peer = p->peers; peer; peer = peer->next)
		peer->left_at = now;
	for (i = 0; i < p->client_count; i++)
		p->clients[i]->left_at = now;
}

void primary_set_path(struct primary *p, const uint8_t *stores, uint32_t count)
{
	p->path_count = (uint32_t)min_u64(count, MSG_PATH_MAX);
	memcpy(p->path, stores, (size_t)p->path_count * 16);
}

void primary_set_features(struct primary *p, uint64_t features)
{
	p->features = features & p->o.features;
}

void primary_off(struct primary *p, const char *reason, const char *name)
{
	if (p->state == PRIMARY_PARKED)
		p->ops->park(p->ctx, false);
	p->state = PRIMARY_OFF;
	(void)snprintf(p->elsewhere, sizeof p->elsewhere, "%s", name);
	primary_close_all(p, reason, true);
}

void primary_elsewhere(struct primary *p, const char *name)
{
	if (p->state == PRIMARY_OFF)
		(void)snprintf(p->elsewhere, sizeof p->elsewhere, "%s", name);
}

void primary_set_cluster(struct primary *p, const uint8_t cluster[16], uint64_t hash_seed)
{
	memcpy(p->o.cluster, cluster, 16);
	p->o.hash_seed = hash_seed;
}

void primary_promised(struct primary *p, uint64_t promised)
{
	p->promised = max_u64(p->promised, promised);
}

void primary_fence(struct primary *p, uint64_t promised, const char *who)
{
	bool led = primary_leads(p) || p->state == PRIMARY_HANDING;
	struct primary_peer *peer;

	p->promised = max_u64(p->promised, promised);
	if (led) {
		primary_note(p, 0, "%s has promised epoch %llx, this store is of epoch %llx: it is not the primary any more",
			     who, (unsigned long long)promised, (unsigned long long)p->epoch);
		/* First nothing is acknowledged any more, then everyone hears why. */
		if (p->state == PRIMARY_PARKED)
			p->ops->park(p->ctx, false);
		p->state = PRIMARY_OFF;
		for (peer = p->peers; peer; peer = peer->next)
			if (peer->link != 0)
				primary_send_fenced(p, peer->link);
		primary_close_all(p, "there is a newer primary", true);
	}
	p->ops->fenced(p->ctx, promised);
}

/* The switch-over -------------------------------------------------------------------------------------------------- */

/* (P7) Its word on what it has counts. */
static bool counts(const struct primary_peer *peer)
{
	return peer->state == PEER_STREAMS && !peer->limited;
}

static struct primary_peer *find_store(const struct primary *p, const uint8_t store[16])
{
	struct primary_peer *peer;

	for (peer = p->peers; peer; peer = peer->next)
		if (counts(peer) && memcmp(peer->store, store, 16) == 0)
			return peer;
	return NULL;
}

int primary_switch(struct primary *p, const uint8_t store[16], uint64_t now)
{
	p->now = now;
	if (p->state == PRIMARY_PARKED || p->state == PRIMARY_HANDING)
		return err_set(EBUSY, "a switch-over is under way");
	if (p->state != PRIMARY_LEADS)
		return err_set(EROFS, "this is not the primary");
	if (!find_store(p, store))
		return err_set(ENOENT, "that replica is not connected, or not in step, or its key is limited");
	memcpy(p->target, store, 16);
	p->parked_at = now;
	p->state = PRIMARY_PARKED;
	p->ops->park(p->ctx, true);
	primary_check_switch(p);
	return 0;
}

/* Go on as before: who was left without an answer connects again and sends it again. */
static void give_up(struct primary *p, const char *why)
{
	struct primary_peer *peer, *next;

	primary_note(p, 0, "the switch-over is given up: %s", why);
	p->state = PRIMARY_LEADS;
	p->ops->park(p->ctx, false);
	for (peer = p->peers; peer; peer = next) {
		next = peer->next;
		if (peer->missed)
			primary_close_peer(p, peer, "a switch-over was given up: connect again");
	}
}

/* Whose fsync waits here for other disks is to hear of it from us; but not if those disks are not to be had. */
static bool syncs_are_done(const struct primary *p)
{
	return p->o.sync_replicas == 0 || p->synced >= p->last || elapsed(p->now, p->parked_at) >= p->o.switch_wait_ms / 2;
}

void primary_check_switch(struct primary *p)
{
	struct primary_peer *peer;

	if (p->state != PRIMARY_PARKED)
		return;
	peer = find_store(p, p->target);
	if (!peer) {
		give_up(p, "the replica is gone");
		return;
	}
	/* Everything that was ever run is in our line up to `last`, and on the target's disk: it cannot lose any of it, not
	 * even by a power cut right after. */
	if (p->running == 0 && peer->acked && peer->applied == p->last && peer->durable == p->last && syncs_are_done(p)) {
		p->state = PRIMARY_HANDING;
		(void)snprintf(p->target_name, sizeof p->target_name, "%s", peer->name);
		p->target_epoch = p->epoch;
		p->target_seq = p->last;
		p->target_next = epoch_next_term(max_u64(p->epoch, p->promised));
		/* Crash before this is durable: we are the primary, the target was told nothing. After: nobody is, until the
		 * target is told (when it asks again) or somebody promotes one by hand; no change can be made meanwhile. */
		p->ops->hand_over(p->ctx, p->target_next, p->target_seq);
	} else if (elapsed(p->now, p->parked_at) >= p->o.switch_wait_ms) {
		give_up(p, "the replica did not get there in time");
	}
}

void primary_went_on(struct primary *p, seq_t last, uint64_t now)
{
	p->now = now;
	if (p->state != PRIMARY_HANDING)
		return;
	p->last = max_u64(p->last, last);
	p->state = PRIMARY_PARKED;
	primary_check_switch(p);
}

void primary_handed(struct primary *p, uint64_t now)
{
	struct primary_peer *peer;

	p->now = now;
	if (p->state != PRIMARY_HANDING)
		return;
	p->state = PRIMARY_OFF;
	p->handed = true;
	p->promised = max_u64(p->promised, p->target_next);
	p->ops->park(p->ctx, false);
	peer = find_store(p, p->target);
	/* Not sent, or lost: it hears it when it comes back (primary_peer.c). */
	if (peer)
		(void)primary_send_promote(p, peer->link);
	(void)snprintf(p->elsewhere, sizeof p->elsewhere, "%s", p->target_name);
	primary_close_all(p, "the primary has moved", true);
	p->ops->handed(p->ctx, p->target, p->target_name);
}

static void look_at_waits(struct primary *p);   /* each of the calls that wait for disks */

/* News ------------------------------------------------------------------------------------------------------------- */

void primary_committed(struct primary *p, seq_t last, uint64_t bytes, uint64_t now)
{
	struct sample *s = &p->samples[(p->sample_next + SAMPLES - 1) % SAMPLES];

	p->now = now;
	p->last = last;
	p->bytes = bytes;
	if (elapsed(now, s->at) >= SAMPLE_MS || s->at == 0) {
		p->samples[p->sample_next] = (struct sample){ last, bytes, now };
		p->sample_next = (p->sample_next + 1) % SAMPLES;
	}
}

void primary_durable(struct primary *p, seq_t seq)
{
	struct primary_peer *peer;

	/* Replicas make durable what is durable here: somebody waits for it. */
	for (peer = p->peers; peer && seq > p->durable && (p->o.sync_replicas | p->wait_count | p->sync_waits) != 0; peer = peer->next)
		peer->position_due = true;
	p->durable = max_u64(p->durable, seq);
	primary_update_synced(p);
}

void primary_disk_failed(struct primary *p)
{
	p->disk_failed = true;
	if (primary_leads(p))
		look_at_waits(p);
}

void primary_set_committed(struct primary *p, seq_t committed)
{
	p->committed = max_u64(p->committed, committed);
}

void primary_set_stale(struct primary *p, uint32_t stale_ms)
{
	p->stale_ms = stale_ms;
}

/* How many replicas are known to have seq on disk. Only those that are fed by us: one behind a relay may just have come
 * from there to here, or gone to another, and would be counted twice. */
static uint64_t count_durable(const struct primary *p, seq_t seq)
{
	const struct primary_peer *peer;
	uint64_t n = 0;

	for (peer = p->peers; peer; peer = peer->next)
		n += counts(peer) && peer->acked && peer->durable >= seq;
	return n;
}

/* The highest seq that is on the disks of all that are in step, and of those behind them. Who catches up is not waited for: it
 * would hold up everybody for as long as that takes. */
static seq_t all_disks(const struct primary *p)
{
	const struct primary_peer *peer;
	seq_t best = p->durable;

	for (peer = p->peers; peer; peer = peer->next)
		if (counts(peer) && peer->in_step)
			best = min_u64(best, peer->tree_durable);
	return best;
}

/* (P4) The highest seq that enough disks have. */
static seq_t enough_disks(const struct primary *p)
{
	const struct primary_peer *peer;
	seq_t best = 0;

	if (p->o.sync_replicas == 0)
		return p->durable;
	if (p->o.sync_replicas == PRIMARY_SYNC_ALL)
		return all_disks(p);
	for (peer = p->peers; peer; peer = peer->next)
		if (counts(peer) && peer->acked && peer->durable > best &&
		    count_durable(p, peer->durable) >= p->o.sync_replicas)
			best = peer->durable;
	return min_u64(best, p->durable);
}

static void slot_ready(struct primary *p, struct client *c, struct call_slot *s)
{
	if (s->state == SLOT_SYNC)
		p->sync_waits--;
	s->state = SLOT_READY;
	c->peer->ready++;
}

/* (P4) Is it on as many other disks as somebody asked for? Never on fewer than every fsync here waits for. */
static bool is_on(const struct primary *p, seq_t seq, uint32_t replicas)
{
	if (seq > p->synced)
		return false;
	return replicas == PRIMARY_SYNC_ALL ? seq <= all_disks(p) : count_durable(p, seq) >= replicas;
}

/* (P4) Is it on the disks that were asked for? */
static bool is_synced(const struct primary *p, const struct primary_result *res)
{
	return is_on(p, res->seq, res->counted ? res->replicas : 0);
}

/* Our own machine's. */
static void look_at_own_waits(struct primary *p)
{
	unsigned i, kept = 0;

	for (i = 0; i < p->wait_count; i++) {
		struct wait w = p->waits[i];
		bool done = is_on(p, w.seq, w.replicas);

		if (primary_leads(p) && !done && elapsed(p->now, w.since) < w.wait_ms)
			p->waits[kept++] = w;
		else
			p->ops->waited(p->ctx, w.cookie, !primary_leads(p) ? -ECANCELED : done ? 0 : -ETIMEDOUT);
	}
	p->wait_count = kept;
}

int primary_wait(struct primary *p, uint64_t cookie, seq_t seq, uint32_t replicas, uint32_t wait_ms, uint64_t now)
{
	p->now = now;
	if (p->wait_count == PRIMARY_WAITS_MAX)
		return -EBUSY;
	p->waits[p->wait_count++] = (struct wait){ cookie, now, seq, replicas, wait_ms };
	look_at_own_waits(p);
	return 0;
}

/* What becomes of a call that waits for disks: 0 or an error; 1: it goes on waiting. */
static int wait_is_over(const struct primary *p, const struct call_slot *s)
{
	uint64_t waited = elapsed(p->now, s->since);

	if (is_synced(p, &s->res))
		return 0;
	if (p->disk_failed && p->durable < s->res.seq)
		return -EIO;
	if (s->res.counted)
		return waited < s->res.wait_ms ? 1 : -ETIMEDOUT;
	/* Our disk has it, too few others do: it is not what was asked for, so it is no success. */
	return waited >= p->o.sync_wait_ms && p->durable >= s->res.seq ? -EIO : 1;
}

static void look_at_waits(struct primary *p)
{
	unsigned i, k;

	if (p->sync_waits == 0)
		return;
	for (i = 0; i < p->client_count; i++) {
		struct client *c = p->clients[i];

		for (k = 0; k < MSG_WINDOW; k++) {
			struct call_slot *s = &c->calls[k];
			int r = s->state == SLOT_SYNC ? wait_is_over(p, s) : 1;

			if (r > 0)
				continue;
			s->res.error = r < 0 ? r : s->res.error;
			slot_ready(p, c, s);
		}
	}
}

void primary_update_synced(struct primary *p)
{
	seq_t seq;

	seq = primary_leads(p) ? enough_disks(p) : 0;
	if (seq > p->synced) {
		p->synced = seq;
		p->ops->synced(p->ctx, seq);
	}
	look_at_own_waits(p);
	if (primary_leads(p))
		look_at_waits(p);
}

void primary_result(struct primary *p, uint64_t client, uint64_t request, uint64_t token, const struct primary_result *res,
		    uint64_t now)
{
	struct client *c = primary_find_client(p, client);
	struct call_slot *s;

	p->now = now;
	check(p->running > 0);
	p->running--;
	if (c && c->peer) {
		s = &c->calls[request % MSG_WINDOW];
		/* (P3) A run of an earlier link is nobody's any more: what it did, the next run finds done. */
		if (s->state == SLOT_RUNS && s->request == request && s->token == token) {
			s->res = *res;
			if (res->sync && res->error == 0 && p->state != PRIMARY_RELAYS && !is_synced(p, res)) {
				s->state = SLOT_SYNC;
				s->since = now;
				p->sync_waits++;
				if (p->disk_failed)
					look_at_waits(p);
			} else {
				slot_ready(p, c, s);
			}
		}
	}
	primary_check_switch(p);
}

/* Sending ---------------------------------------------------------------------------------------------------------- */

/* 0, or negative: nothing more goes out to it now. */
static int sent(struct primary_peer *peer, int r)
{
	/* Another error means that the link is gone: primary_closed() will say so. */
	if (r < 0)
		peer->blocked = true;
	return r;
}

static int send_result(struct primary *p, struct primary_peer *peer, const struct client *c, const struct call_slot *s)
{
	const struct msg_result m = { p->epoch, c->id, c->session, s->request, s->res.error, s->res.sync ? RESULT_SYNC : 0,
				      s->res.seq, s->res.number, s->tag };
	uint8_t buf[96];
	struct wire_writer w = wire_writer(buf, sizeof buf);

	msg_put_result(&w, &m);
	check(!w.full);
	return sent(peer, p->ops->send(p->ctx, peer->link, MSG_RESULT, buf, (uint32_t)wire_used(&w)));
}

static int send_results(struct primary *p, struct primary_peer *peer)
{
	unsigned i, k;
	int r;

	for (i = 0; i < p->client_count && peer->ready > 0; i++) {
		struct client *c = p->clients[i];

		if (c->peer != peer)
			continue;
		for (k = 0; k < MSG_WINDOW && peer->ready > 0; k++) {
			if (c->calls[k].state != SLOT_READY)
				continue;
			r = send_result(p, peer, c, &c->calls[k]);
			if (r < 0)
				return r;
			c->calls[k].state = SLOT_FREE;
			peer->ready--;
		}
	}
	return 0;
}

static int send_locks(struct primary *p, struct primary_peer *peer)
{
	int r = 0;

	while (peer->locks && r == 0) {
		struct lock_note *n = peer->locks;
		uint8_t buf[128];
		struct wire_writer w = wire_writer(buf, sizeof buf);

		n->m.epoch = p->epoch;
		msg_put_lock(&w, &n->m);
		check(!w.full);
		r = sent(peer, p->ops->send(p->ctx, peer->link, MSG_LOCK, buf, (uint32_t)wire_used(&w)));
		if (r < 0)
			break;
		peer->locks = n->next;
		peer->lock_count--;
		free(n);
	}
	return r;
}

void primary_drop_locks(struct primary_peer *peer)
{
	while (peer->locks) {
		struct lock_note *n = peer->locks;

		peer->locks = n->next;
		free(n);
	}
	peer->lock_count = 0;
}

void primary_lock(struct primary *p, const struct msg_lock *m)
{
	struct client *c = primary_find_client(p, m->client);
	struct lock_note *n;

	if (!c || !c->peer || !(primary_leads(p) || p->state == PRIMARY_RELAYS))
		return;
	n = c->peer->lock_count < PRIMARY_LOCKS_MAX ? malloc(sizeof *n) : NULL;
	if (!n) {
		/* What it is not told it would wait for: it comes again, and asks. */
		primary_close_peer(p, c->peer, "too many answers about locks wait for it: connect again");
		return;
	}
	*n = (struct lock_note){ .m = *m };
	if (c->peer->locks)
		*c->peer->locks_end = n;
	else
		c->peer->locks = n;
	c->peer->locks_end = &n->next;
	c->peer->lock_count++;
}

static int send_position(struct primary *p, struct primary_peer *peer)
{
	const struct msg_position m = { p->epoch, p->last, p->durable, p->committed, p->bytes, p->stale_ms };
	uint8_t buf[64];
	struct wire_writer w = wire_writer(buf, sizeof buf);
	int r;

	msg_put_position(&w, &m);
	check(!w.full);
	r = sent(peer, p->ops->send(p->ctx, peer->link, MSG_POSITION, buf, (uint32_t)wire_used(&w)));
	if (r == 0) {
		peer->position_due = false;
		peer->position_at = p->now;
	}
	return r;
}

/* (P2) One after the other. 1: there are more. */
static int send_changes(struct primary *p, struct primary_peer *peer)
{
	unsigned n;
	int r;

	for (n = 0; peer->sent < p->last; n++) {
		const struct msg_change head = { .epoch = p->epoch, .seq = peer->sent + 1, .durable = p->durable,
						 .committed = p->committed };

		if (n >= PRIMARY_BATCH)
			return 1;
		r = p->ops->send_change(p->ctx, peer->link, &head);
		if (r == -ENOENT) {
			primary_fall_back(p, peer);
			return 0;
		}
		if (sent(peer, r) < 0)
			return r;
		peer->sent++;
	}
	return 0;
}

bool primary_pump(struct primary *p, uint64_t now)
{
	struct primary_peer *peer, *next;
	bool more = false;

	p->now = now;
	for (peer = p->peers; peer; peer = next) {
		next = peer->next;      /* falling back may end this one */
		if (peer->blocked || (peer->state != PEER_STREAMS && peer->state != PEER_DIFFS))
			continue;
		/* Results first: they are small, and who gets them early has only to wait for the change. */
		if (peer->ready > 0 && send_results(p, peer) < 0)
			continue;
		if (peer->locks && send_locks(p, peer) < 0)
			continue;
		if (peer->position_due && send_position(p, peer) < 0)
			continue;
		if (peer->state == PEER_STREAMS && send_changes(p, peer) > 0)
			more = true;
	}
	return more;
}

void primary_tick(struct primary *p, uint64_t now)
{
	struct primary_peer *peer;

	p->now = now;
	for (peer = p->peers; peer; peer = peer->next)
		if (elapsed(now, peer->position_at) >= p->o.keep_ms || now < peer->position_at)
			peer->position_due = true;
	primary_expire(p);
	look_at_own_waits(p);
	if (primary_leads(p))
		look_at_waits(p);
	primary_check_switch(p);
}

/* Questions -------------------------------------------------------------------------------------------------------- */

/* What it will have applied when it is heard of next, at least. One that is gone may have lost power: it comes back with what is
 * on its disk, and its new kernel may learn of inodes that have no name here any more. */
static seq_t sure_applied(const struct primary_peer *peer)
{
	return peer->state == PEER_GONE ? peer->tree_durable : peer->tree_applied;
}

seq_t primary_mark_limit(const struct primary *p, uint64_t now)
{
	const struct primary_peer *peer;
	seq_t limit = UINT64_MAX;

	/* (P5) Who led before knew of holds that we do not: they are restated within a lease. */
	if (p->state != PRIMARY_LEADS || elapsed(now, p->grace_at) < p->o.lease_ms)
		return 0;
	for (peer = p->peers; peer; peer = peer->next) {
		if (peer->state == PEER_NEW)
			continue;
		if (peer->state == PEER_DIFFS || (peer->state == PEER_STREAMS && !peer->acked) || peer->holds_more)
			return 0;
		limit = min_u64(limit, sure_applied(peer));
	}
	return limit;
}

bool primary_holds(const struct primary *p, uint64_t ino)
{
	const struct primary_peer *peer;

	for (peer = p->peers; peer; peer = peer->next)
		if (idset_has(&peer->holds, ino))
			return true;
	return false;
}

enum primary_state primary_state(const struct primary *p)
{
	return p->state;
}

uint64_t primary_epoch(const struct primary *p)
{
	return p->epoch;
}

seq_t primary_synced(const struct primary *p)
{
	return p->synced;
}

bool primary_idle(const struct primary *p)
{
	return p->running == 0;
}

void primary_tree(const struct primary *p, seq_t *applied, seq_t *durable, uint32_t *count)
{
	const struct primary_peer *peer;

	*count = 1;
	for (peer = p->peers; peer; peer = peer->next) {
		if (peer->state == PEER_NEW)
			continue;
		*applied = min_u64(*applied, sure_applied(peer));
		if (peer->state != PEER_STREAMS || !peer->acked)
			continue;
		*durable = min_u64(*durable, peer->tree_durable);
		*count += peer->tree_count;
	}
}

int primary_peer_status(const struct primary *p, unsigned i, uint64_t now, struct primary_peer_status *ret)
{
	const struct primary_peer *peer = p->peers;
	const struct sample *s;
	unsigned k;

	while (peer && i-- > 0)
		peer = peer->next;
	if (!peer)
		return -ENOENT;
	memset(ret, 0, sizeof *ret);
	ret->link = peer->link;
	ret->state = peer->state;
	memcpy(ret->store, peer->store, 16);
	memcpy(ret->name, peer->name, sizeof ret->name);
	ret->client = peer->client;
	ret->sent = peer->sent;
	ret->applied = peer->applied;
	ret->durable = peer->durable;
	ret->tree_count = peer->tree_count;
	ret->holds = peer->holds.count;
	ret->read_only = peer->read_only || peer->no_calls;
	ret->blocked = peer->blocked;
	ret->limited = peer->limited;
	ret->tree = peer->tree;
	ret->lag_seq = p->last > peer->applied ? p->last - peer->applied : 0;
	for (k = 0; k < p->client_count; k++)
		if (p->clients[k]->peer == peer) {
			unsigned n;

			for (n = 0; n < MSG_WINDOW; n++)
				ret->open_calls += p->clients[k]->calls[n].state != SLOT_FREE;
		}
	if (ret->lag_seq == 0)
		return 0;
	/* The oldest sample behind what it has: so much it is behind. */
	for (k = 0; k < SAMPLES; k++) {
		s = &p->samples[(p->sample_next + k) % SAMPLES];
		if (s->seq > peer->applied) {
			ret->lag_ms = elapsed(now, s->at);
			ret->lag_bytes = p->bytes > s->bytes ? p->bytes - s->bytes : 0;
			break;
		}
	}
	return 0;
}
