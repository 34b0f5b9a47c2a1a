/* SPDX-License-Identifier: MIT
 *
 * primary_peer: links of a primary: who comes, what it is told, what it says, and what stays of it for a lease when it is
 * gone. See primary.h for the invariants.
 */
#include "core/replica/primary_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Peers ------------------------------------------------------------------------------------------------------------ */

static struct primary_peer *find_link(const struct primary *p, link_t link)
{
	struct primary_peer *peer;

	for (peer = p->peers; peer; peer = peer->next)
		if (peer->link == link && link != 0)
			return peer;
	return NULL;
}

static bool held_by_other(const struct primary *p, const struct primary_peer *but, uint64_t ino)
{
	const struct primary_peer *peer;

	for (peer = p->peers; peer; peer = peer->next)
		if (peer != but && idset_has(&peer->holds, ino))
			return true;
	return false;
}

static void release_all(struct primary *p, struct primary_peer *peer)
{
	uint32_t pos = 0;
	uint64_t ino;

	while ((ino = idset_next(&peer->holds, &pos)) != 0)
		if (!held_by_other(p, peer, ino))
			p->ops->held(p->ctx, ino, false);
	idset_release(&peer->holds);
}

static void free_peer(struct primary *p, struct primary_peer *peer)
{
	struct primary_peer **at;

	release_all(p, peer);
	for (at = &p->peers; *at != peer; at = &(*at)->next)
		;
	*at = peer->next;
	p->peer_count--;
	free(peer);
}

static void free_slot(struct primary *p, struct client *c, struct call_slot *s)
{
	if (s->state == SLOT_RUNS)
		p->ops->cancel(p->ctx, s->token, c->id, s->request);
	else if (s->state == SLOT_SYNC)
		p->sync_waits--;
	else if (s->state == SLOT_READY && c->peer)
		c->peer->ready--;
	s->state = SLOT_FREE;
}

static void forget_calls(struct primary *p, struct client *c)
{
	unsigned k;

	for (k = 0; k < MSG_WINDOW; k++)
		free_slot(p, c, &c->calls[k]);
}

/* Its clients are not reached by it any more. */
static void leave_clients(struct primary *p, struct primary_peer *peer)
{
	unsigned i;

	for (i = 0; i < p->client_count; i++) {
		struct client *c = p->clients[i];

		if (c->peer != peer)
			continue;
		forget_calls(p, c);
		c->peer = NULL;
		c->left_at = p->now;
		p->ops->client_left(p->ctx, c->id, c->session);
	}
}

/* The link is over. What it held counts for a lease. */
static void leave(struct primary *p, struct primary_peer *peer)
{
	enum peer_state was = peer->state;

	if (was == PEER_DIFFS)
		p->ops->diff_stop(p->ctx, peer->link);
	leave_clients(p, peer);
	primary_drop_locks(peer);
	peer->link = 0;
	peer->state = PEER_GONE;
	peer->left_at = p->now;
	peer->missed = false;
	if (was != PEER_STREAMS && was != PEER_DIFFS)
		free_peer(p, peer);
}

void primary_close_peer(struct primary *p, struct primary_peer *peer, const char *reason)
{
	link_t link = peer->link;

	if (link == 0)
		return;
	leave(p, peer);
	p->ops->close(p->ctx, link, reason);
}

/* forget: those who are gone count no more, either (another role). */
void primary_close_all(struct primary *p, const char *reason, bool forget)
{
	struct primary_peer *peer, *next;

	for (peer = p->peers; peer; peer = next) {
		next = peer->next;
		primary_close_peer(p, peer, reason);
	}
	while (forget && p->peers)
		free_peer(p, p->peers);
}

int primary_opened(struct primary *p, link_t link, unsigned flags, uint64_t now)
{
	struct primary_peer *peer;

	p->now = now;
	if (p->peer_count >= PRIMARY_PEERS_MAX)
		return err_set(EBUSY, "%u replicas are connected, or were a moment ago", p->peer_count);
	peer = calloc(1, sizeof *peer);
	if (!peer)
		return err_set(ENOMEM, "no memory for another replica");
	peer->link = link;
	peer->state = PEER_NEW;
	peer->no_calls = peer->limited = (flags & PRIMARY_PEER_READ_ONLY) != 0;
	peer->tree_count = 1;
	peer->next = p->peers;
	p->peers = peer;
	p->peer_count++;
	return 0;
}

void primary_limit(struct primary *p, link_t link, const char *tree, uint32_t tag)
{
	struct primary_peer *peer = find_link(p, link);

	check(peer && peer->state == PEER_NEW);
	peer->limited = true;
	peer->tree = tree;
	peer->tag = tag;
}

void primary_closed(struct primary *p, link_t link, uint64_t now)
{
	struct primary_peer *peer = find_link(p, link);

	p->now = now;
	if (peer)
		leave(p, peer);
	primary_check_switch(p);
	primary_update_synced(p);
}

void primary_writable(struct primary *p, link_t link)
{
	struct primary_peer *peer = find_link(p, link);

	if (peer)
		peer->blocked = false;
}

/* Clients ---------------------------------------------------------------------------------------------------------- */

struct client *primary_find_client(struct primary *p, uint64_t id)
{
	unsigned i;

	for (i = 0; i < p->client_count; i++)
		if (p->clients[i]->id == id)
			return p->clients[i];
	return NULL;
}

static struct client *add_client(struct primary *p, uint64_t id)
{
	struct client **more, *c;
	unsigned room = p->client_room ? p->client_room * 2 : 16;

	if (p->client_count >= PRIMARY_CLIENTS_MAX)
		return NULL;
	if (p->client_count == p->client_room) {
		more = realloc(p->clients, room * sizeof(struct client *));
		if (!more)
			return NULL;
		p->clients = more;
		p->client_room = room;
	}
	c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->id = id;
	p->clients[p->client_count++] = c;
	return c;
}

/* Nobody waits for what is below it. */
static void raise_low(struct primary *p, struct client *c, uint64_t low)
{
	unsigned k;

	if (low <= c->low)
		return;
	c->low = low;
	for (k = 0; k < MSG_WINDOW; k++)
		if (c->calls[k].state != SLOT_FREE && c->calls[k].request < low)
			free_slot(p, c, &c->calls[k]);
}

/* What was known of it was said with another key. */
static void begin_anew(struct primary *p, struct client *c)
{
	forget_calls(p, c);
	if (c->peer)
		p->ops->client_left(p->ctx, c->id, c->session);
	c->peer = NULL;
	c->session = c->low = c->newest = 0;
}

/* A client is reached by this peer from now on. -ESTALE: it has been here by a later connection of its own. */
static int client_comes(struct primary *p, struct primary_peer *peer, uint64_t id, uint64_t session, uint64_t low,
			const uint8_t *locks, uint32_t len)
{
	struct client *c = primary_find_client(p, id);
	struct primary_run who = { .client = id, .session = session, .tree = peer->tree };

	/* (P7) A limited key takes nobody's place, and who is not limited is not kept out by what one said before. */
	if (c && c->tag != peer->tag && peer->limited)
		return err_set(EACCES, "client %016llx came by another key before", (unsigned long long)id);
	if (c && c->tag != peer->tag)
		begin_anew(p, c);
	if (c && session < c->session)
		return err_set(ESTALE, "client %016llx has a newer connection", (unsigned long long)id);
	if (!c)
		c = add_client(p, id);
	if (!c)
		return err_set(EBUSY, "too many clients");
	/* What came by another link is not answered there any more; it is sent again by this one. */
	if (c->peer && (c->peer != peer || c->session != session)) {
		forget_calls(p, c);
		p->ops->client_left(p->ctx, c->id, c->session);
	}
	if (c->peer != peer || c->session != session)
		c->newest = 0;
	c->peer = peer;
	c->tag = peer->tag;
	c->session = session;
	raise_low(p, c, low);
	who.low = c->low;
	/* Who may lock nothing states nothing. */
	p->ops->client_here(p->ctx, &who, locks, peer->no_calls ? 0 : len);
	return 0;
}

static void client_goes(struct primary *p, struct primary_peer *peer, const struct msg_client *m)
{
	struct client *c = primary_find_client(p, m->client);

	if (!c || c->peer != peer || c->session != m->session)
		return;
	forget_calls(p, c);
	c->peer = NULL;
	c->left_at = p->now;
	p->ops->client_left(p->ctx, c->id, c->session);
}

void primary_expire(struct primary *p)
{
	struct primary_peer *peer, *next;
	unsigned i;

	/* They cannot come back. */
	if (p->still)
		return;
	for (peer = p->peers; peer; peer = next) {
		next = peer->next;
		if (peer->state == PEER_GONE && elapsed(p->now, peer->left_at) >= p->o.lease_ms)
			free_peer(p, peer);
	}
	for (i = 0; i < p->client_count;) {
		struct client *c = p->clients[i];

		if (c->peer || elapsed(p->now, c->left_at) < p->o.lease_ms || p->ops->client_expired(p->ctx, c->id) < 0) {
			i++;
			continue;
		}
		p->clients[i] = p->clients[--p->client_count];
		free(c);
	}
}

/* Hello ------------------------------------------------------------------------------------------------------------ */

static int send_welcome(struct primary *p, struct primary_peer *peer, struct msg_welcome *m, const char *text,
			const char *name)
{
	uint8_t buf[1024 + MSG_PATH_MAX * 16];
	struct wire_writer w = wire_writer(buf, sizeof buf);

	m->version = p->o.version;
	m->features = peer->features;
	memcpy(m->cluster, p->o.cluster, 16);
	memcpy(m->store, p->o.store, 16);
	m->hash_seed = p->o.hash_seed;
	m->epoch = p->epoch;
	m->promised = p->promised;
	m->last = max_u64(p->last, m->seq);
	m->durable = min_u64(p->durable, m->last);
	m->lease_ms = p->o.lease_ms;
	m->keep_ms = p->o.keep_ms;
	m->text = (const uint8_t *)text;
	m->text_len = (uint32_t)min_u64(strlen(text), MSG_TEXT_MAX);
	m->name = (const uint8_t *)name;
	m->name_len = (uint32_t)min_u64(strlen(name), MSG_NAME_MAX);
	m->path = p->path[0];
	m->path_count = p->path_count;
	msg_put_welcome(&w, m);
	check(!w.full);
	return p->ops->send(p->ctx, peer->link, MSG_WELCOME, buf, (uint32_t)wire_used(&w));
}

static int refuse(struct primary *p, struct primary_peer *peer, enum msg_refusal code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* Say why, and close. Always 0: the frame that led here is dealt with. */
static int refuse(struct primary *p, struct primary_peer *peer, enum msg_refusal code, const char *format, ...)
{
	struct msg_welcome m = { .decision = WELCOME_REFUSED, .code = (uint8_t)code };
	char text[MSG_TEXT_MAX + 1];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	primary_note(p, peer->link, "refused: %s", text);
	(void)send_welcome(p, peer, &m, text, p->elsewhere);
	primary_close_peer(p, peer, text);
	return 0;
}

int primary_send_promote(struct primary *p, link_t link)
{
	const struct msg_promote m = { p->target_epoch, p->target_next, p->target_seq };
	uint8_t buf[64];
	struct wire_writer w = wire_writer(buf, sizeof buf);

	msg_put_promote(&w, &m);
	check(!w.full);
	return p->ops->send(p->ctx, link, MSG_PROMOTE, buf, (uint32_t)wire_used(&w));
}

void primary_send_fenced(struct primary *p, link_t link)
{
	static const char text[] = "a higher epoch was promised here";
	const struct msg_fenced m = { p->promised, (const uint8_t *)text, sizeof text - 1 };
	uint8_t buf[128];
	struct wire_writer w = wire_writer(buf, sizeof buf);

	msg_put_fenced(&w, &m);
	check(!w.full);
	(void)p->ops->send(p->ctx, link, MSG_FENCED, buf, (uint32_t)wire_used(&w));
}

/* (P7) 1: go on; 0: it was sent away. */
static int admit_limited(struct primary *p, struct primary_peer *peer, const struct msg_hello *h)
{
	const struct primary_peer *other;

	if (peer->tree && p->state == PRIMARY_RELAYS)
		return refuse(p, peer, REFUSED_LIMITED, "this is a relay: a key that is limited to a directory is taken by the primary only");
	if (peer->tree && h->flags & HELLO_FEEDS)
		return refuse(p, peer, REFUSED_LIMITED, "its key is limited to %.200s: it may feed nobody (--listen)", peer->tree);
	if (peer->tree && h->client >> 32 != peer->tag)
		return refuse(p, peer, REFUSED_LIMITED, "its key is limited to %.200s: its own key file has to say the same (limit=tree:)",
			      peer->tree);
	for (other = p->peers; other; other = other->next)
		if (other->state != PEER_NEW && other->tag != peer->tag && memcmp(other->store, h->store, 16) == 0)
			return refuse(p, peer, REFUSED_BUSY, "its store came by another key a moment ago");
	return 1;
}

/* Does this replica follow that store? -1: no; else over how many others. */
static int follows(const struct primary *p, const uint8_t store[16])
{
	uint32_t i;

	for (i = 0; i < p->path_count; i++)
		if (memcmp(p->path[i], store, 16) == 0)
			return (int)i;
	return -1;
}

/* In a circle nobody is fed. All of it say so: each hears from the one that it asks whom that one follows, and passes it on. */
static int refuse_circle(struct primary *p, struct primary_peer *peer, int others)
{
	char over[32] = "";

	if (others > 0)
		(void)snprintf(over, sizeof over, " over %d other%s", others, others > 1 ? "s" : "");
	return refuse(p, peer, REFUSED_SELF, "this replica follows that one%s: in a circle nobody is fed, one of them has to follow another",
		      over);
}

/* Who is it, and may it be here? 1: go on; 0: it was sent away. */
static int admit(struct primary *p, struct primary_peer *peer, const struct msg_hello *h)
{
	if (h->version_min > p->o.version || h->version < MSG_VERSION_MIN)
		return refuse(p, peer, REFUSED_VERSION, "it speaks versions %u to %u of the protocol, this side %u to %u",
			      h->version_min, h->version, MSG_VERSION_MIN, p->o.version);
	if ((h->required & ~p->features) != 0 || (p->o.required & ~h->features) != 0)
		return refuse(p, peer, REFUSED_VERSION, "a feature is missing: it needs %llx of our %llx, and has %llx of the needed %llx",
			      (unsigned long long)h->required, (unsigned long long)p->features,
			      (unsigned long long)h->features, (unsigned long long)p->o.required);
	if (memcmp(h->store, p->o.store, 16) == 0)
		return refuse(p, peer, REFUSED_SELF, "its store is a copy of this one");
	if (!is_zero(h->cluster, 16) && memcmp(h->cluster, p->o.cluster, 16) != 0)
		return refuse(p, peer, REFUSED_CLUSTER, "its store belongs to another cluster");
	if (peer->limited && !admit_limited(p, peer, h))
		return 0;
	/* (P1) Whoever has promised a higher epoch may not be fed by us, and we are the primary no more. */
	if (h->promised > p->epoch && !peer->limited && (primary_leads(p) || p->state == PRIMARY_HANDING)) {
		primary_fence(p, h->promised, "a replica");
		return 0;
	}
	if (p->state == PRIMARY_OFF || p->state == PRIMARY_HANDING || (p->handed && p->state == PRIMARY_RELAYS)) {
		/* The one that was to take over has not heard of it: only if nothing has happened since (it has promised
		 * nothing newer, and ends where our line ended). */
		if (p->handed && !peer->limited && memcmp(h->store, p->target, 16) == 0 && h->promised < p->target_next &&
		    h->history.last == p->target_seq) {
			(void)primary_send_promote(p, peer->link);
			primary_close_peer(p, peer, "you are the primary");
			return 0;
		}
		if (p->state != PRIMARY_RELAYS && (p->path_count == 0 || p->elsewhere[0]))
			return refuse(p, peer, REFUSED_NOT_PRIMARY, "this is not the primary%s%s",
				      p->elsewhere[0] ? ", that is " : "", p->elsewhere);
	}
	if (follows(p, h->store) >= 0)
		return refuse_circle(p, peer, follows(p, h->store));
	if (p->state == PRIMARY_OFF || p->state == PRIMARY_HANDING || p->paused)
		return refuse(p, peer, REFUSED_BUSY, "this replica is not in step with its primary just now");
	if (p->still)
		return refuse(p, peer, REFUSED_BUSY, "this machine stands still just now");
	if (h->promised > p->epoch)
		return refuse(p, peer, REFUSED_BUSY, "this replica has not heard of epoch %llx yet",
			      (unsigned long long)h->promised);
	return 1;
}

/* What it has against what we have: *ret. 1: go on; 0: it was sent away. */
static int decide(struct primary *p, struct primary_peer *peer, const struct msg_hello *h, struct msg_welcome *ret)
{
	struct history ours;
	enum history_verdict v;
	seq_t common;

	p->ops->history(p->ctx, &ours);
	v = history_compare(&ours, &h->history, &common);
	if (v == HISTORY_UNKNOWN && is_zero(h->cluster, 16) && !(h->flags & HELLO_REPLACE))
		return refuse(p, peer, REFUSED_NOT_EMPTY, "its store is not empty and never was a replica of this one");
	/* A relay cannot tell what is ahead of it from what diverged. */
	if (p->state == PRIMARY_RELAYS && v != HISTORY_EMPTY && v != HISTORY_STREAM && common == ours.last)
		return refuse(p, peer, REFUSED_BUSY, "it is ahead of this replica");
	if ((v == HISTORY_DIVERGED || v == HISTORY_UNKNOWN) && h->committed > common)
		return refuse(p, peer, REFUSED_COMMITTED, "it would have to forget changes that it knows to be committed (%llu, common are %llu)",
			      (unsigned long long)h->committed, (unsigned long long)common);
	ret->seq = common;
	if (h->flags & HELLO_INCOMPLETE)
		ret->decision = WELCOME_DIFF;
	else if (v == HISTORY_DIVERGED || v == HISTORY_UNKNOWN)
		ret->decision = WELCOME_ASIDE;
	else
		ret->decision = WELCOME_STREAM;
	return 1;
}

static int take_holds(struct primary *p, struct primary_peer *peer, const uint8_t *ids, uint32_t count)
{
	uint32_t i;

	for (i = 0; i < count; i++) {
		uint64_t ino = get_le64(ids + 8 * (size_t)i);
		bool first;
		int r;

		if (ino == 0)
			return err_set(EPROTO, "hold: inode 0");
		first = !primary_holds(p, ino);
		r = idset_add(&peer->holds, ino);
		if (r < 0)
			peer->holds_more = true;        /* then it holds everything (P5) */
		else if (first)
			p->ops->held(p->ctx, ino, true);
	}
	return 0;
}

/* What it held before and does not name now it holds no more. */
static void drop_holds(struct primary *p, struct primary_peer *peer, const uint8_t *ids, uint32_t count)
{
	struct idset old = peer->holds;
	uint32_t pos = 0, i;
	uint64_t ino;

	peer->holds = (struct idset){ 0 };
	for (i = 0; i < count; i++)
		if (idset_has(&old, get_le64(ids + 8 * (size_t)i)) &&
		    idset_add(&peer->holds, get_le64(ids + 8 * (size_t)i)) < 0)
			peer->holds_more = true;
	while ((ino = idset_next(&old, &pos)) != 0)
		if (!primary_holds(p, ino))
			p->ops->held(p->ctx, ino, false);
	idset_release(&old);
}

/* Another link of the same store, or what is left of one, ends here. The new one has its holds already. */
static void replace_others(struct primary *p, struct primary_peer *peer)
{
	struct primary_peer *other, *next;

	for (other = p->peers; other; other = next) {
		next = other->next;
		if (other == peer || other->state == PEER_NEW || memcmp(other->store, peer->store, 16) != 0)
			continue;
		if (other->link != 0)
			primary_close_peer(p, other, "the same store has connected again");
		free_peer(p, other);
	}
}

static void remember(struct primary *p, struct primary_peer *peer, const struct msg_hello *h)
{
	memcpy(peer->store, h->store, 16);
	peer->client = h->client;
	peer->epoch = p->epoch;
	peer->version = (uint16_t)min_u64(h->version, p->o.version);
	peer->read_only = (h->flags & HELLO_READ_ONLY) != 0;
	peer->feeds = (h->flags & HELLO_FEEDS) != 0;
	peer->acked = peer->in_step = false;
	peer->join_seq = p->last;
}

static int start_diff(struct primary *p, struct primary_peer *peer, const struct msg_hello *h)
{
	int r = p->ops->diff_start(p->ctx, peer->link, h);

	if (r < 0)
		return refuse(p, peer, REFUSED_BUSY, "no diff can be made now");
	peer->state = PEER_DIFFS;
	return 0;
}

static int on_hello(struct primary *p, struct primary_peer *peer, const uint8_t *bytes, uint32_t len)
{
	struct msg_hello h;
	struct msg_welcome w = { 0 };
	bool again = peer->state != PEER_NEW;
	int r = msg_get_hello(bytes, len, &h);

	if (r < 0)
		return r;
	if (again && (!(h.flags & HELLO_AGAIN) || h.client != peer->client || memcmp(h.store, peer->store, 16) != 0))
		return err_set(EPROTO, "hello: a second one, of somebody else");
	/* By name, also if it is sent away. */
	memcpy(peer->name, h.name, h.name_len);
	peer->name[h.name_len] = 0;
	peer->features = h.features & p->features;
	r = admit(p, peer, &h);
	if (r > 0)
		r = decide(p, peer, &h, &w);
	if (r <= 0)
		return r;
	r = client_comes(p, peer, h.client, h.session, h.low, h.locks, h.locks_len);
	if (r < 0)
		return refuse(p, peer, REFUSED_BUSY, "%s", err_last());
	remember(p, peer, &h);
	peer->holds_more = (h.flags & HELLO_HOLDS_MORE) != 0;
	r = take_holds(p, peer, h.holds, h.hold_count);
	if (r < 0)
		return r;
	drop_holds(p, peer, h.holds, h.hold_count);
	if (peer->state == PEER_DIFFS)
		p->ops->diff_stop(p->ctx, peer->link);
	peer->state = PEER_STREAMS;
	replace_others(p, peer);
	peer->sent = w.seq;
	/* What it says of itself counts when it has acknowledged our epoch (P4); until then it holds back marks (P5). */
	peer->applied = peer->tree_applied = w.decision == WELCOME_STREAM ? w.seq : 0;
	peer->durable = peer->tree_durable = 0;
	peer->position_due = true;
	r = send_welcome(p, peer, &w, "", "");
	if (r < 0) {
		/* Its first frame does not even fit: not a link that one can work with. */
		primary_close_peer(p, peer, "the link took no welcome");
		return 0;
	}
	if (w.decision != WELCOME_STREAM)
		return start_diff(p, peer, &h);
	return 0;
}

void primary_fall_back(struct primary *p, struct primary_peer *peer)
{
	struct msg_welcome w = { .decision = WELCOME_DIFF, .seq = peer->sent };

	primary_note(p, peer->link, "the feed does not reach back to %llu: what differs is sent instead",
		     (unsigned long long)peer->sent + 1);
	peer->acked = peer->in_step = false;
	peer->applied = peer->tree_applied = 0;
	if (send_welcome(p, peer, &w, "", "") < 0)
		primary_close_peer(p, peer, "the feed does not reach back, and the link is full");
	else
		(void)start_diff(p, peer, NULL);
}

void primary_diff_failed(struct primary *p, link_t link, const char *reason)
{
	struct primary_peer *peer = find_link(p, link);

	if (peer && peer->state == PEER_DIFFS)
		primary_close_peer(p, peer, reason);
}

/* Messages --------------------------------------------------------------------------------------------------------- */

/* (P1) 1: of our epoch; 0: it has ended a link; negative: drop the peer. */
static int right_epoch(struct primary *p, struct primary_peer *peer, uint64_t epoch)
{
	if (epoch > p->epoch) {
		if (!primary_leads(p) || peer->limited)
			return err_set(EPROTO, "a message of epoch %llx, this replica is in %llx", (unsigned long long)epoch,
				       (unsigned long long)p->epoch);
		primary_fence(p, epoch, "a replica");
		return 0;
	}
	if (epoch < peer->epoch) {
		primary_send_fenced(p, peer->link);
		return err_set(ESTALE, "a message of epoch %llx, which is over", (unsigned long long)epoch);
	}
	return 1;
}

static int on_ack(struct primary *p, struct primary_peer *peer, const uint8_t *bytes, uint32_t len)
{
	struct msg_ack m;
	int r = msg_get_ack(bytes, len, &m);

	if (r == 0)
		r = right_epoch(p, peer, m.epoch);
	if (r <= 0)
		return r;
	if (peer->state != PEER_STREAMS)
		return 0;
	if (m.applied > peer->sent || m.applied < peer->applied || (peer->acked && m.durable < peer->durable))
		return err_set(EPROTO, "ack: of %llu, durable %llu, after %llu, durable %llu; sent was %llu",
			       (unsigned long long)m.applied, (unsigned long long)m.durable,
			       (unsigned long long)peer->applied, (unsigned long long)peer->durable,
			       (unsigned long long)peer->sent);
	peer->acked = true;
	peer->in_step = peer->in_step || m.applied >= peer->join_seq;
	peer->applied = m.applied;
	peer->durable = m.durable;
	peer->tree_applied = m.tree_applied;
	peer->tree_durable = m.tree_durable;
	peer->tree_count = peer->feeds ? m.tree_count : 1;
	primary_update_synced(p);
	primary_check_switch(p);
	return 0;
}

/* The client of a message, if it is reached by this peer. */
static struct client *client_of(struct primary *p, struct primary_peer *peer, uint64_t id, uint64_t session)
{
	struct client *c = primary_find_client(p, id);

	return c && c->peer == peer && c->session == session ? c : NULL;
}

/* Answer at once, without running it. */
static void answer_error(struct primary_peer *peer, struct call_slot *s, const struct msg_call *m, int error)
{
	*s = (struct call_slot){ .state = SLOT_READY, .request = m->request, .tag = m->tag, .res = { .error = error } };
	peer->ready++;
}

static int on_call(struct primary *p, struct primary_peer *peer, const uint8_t *bytes, uint32_t len)
{
	struct msg_call m;
	struct client *c;
	struct call_slot *s;
	int r = msg_get_call(bytes, len, &m);

	if (r == 0)
		r = right_epoch(p, peer, m.epoch);
	if (r <= 0)
		return r;
	c = client_of(p, peer, m.client, m.session);
	/* It came by a way that its client has left; it is sent again by the new one. */
	if (!c || m.request < c->low)
		return 0;
	s = &c->calls[m.request % MSG_WINDOW];
	/* In order. That its slot is free follows: what was there is below the lowest, since the window is not wider. */
	if (m.request <= c->newest)
		return err_set(EPROTO, "call: number %llu after %llu", (unsigned long long)m.request,
			       (unsigned long long)c->newest);
	raise_low(p, c, m.low);
	if (p->state == PRIMARY_PARKED || p->state == PRIMARY_HANDING) {
		peer->missed = true;
		return 0;
	}
	if (peer->no_calls || peer->read_only) {
		answer_error(peer, s, &m, -EROFS);
	} else {
		const struct primary_run run = { p->next_token, peer->link, m.client, m.session, m.request, m.low, m.bytes,
						 m.len, peer->tree };

		r = p->ops->run(p->ctx, &run);
		if (r < 0)
			return r;
		p->next_token++;
		p->running++;
		*s = (struct call_slot){ .state = SLOT_RUNS, .request = m.request, .token = run.token, .tag = m.tag };
	}
	c->newest = m.request;
	return 0;
}

static int on_cancel(struct primary *p, struct primary_peer *peer, const uint8_t *bytes, uint32_t len)
{
	struct msg_cancel m;
	struct client *c;
	struct call_slot *s;
	int r = msg_get_cancel(bytes, len, &m);

	if (r == 0)
		r = right_epoch(p, peer, m.epoch);
	if (r <= 0)
		return r;
	c = client_of(p, peer, m.client, m.session);
	if (!c)
		return 0;
	s = &c->calls[m.request % MSG_WINDOW];
	if (s->request == m.request)
		free_slot(p, c, s);
	return 0;
}

static int on_holds(struct primary *p, struct primary_peer *peer, bool hold, const uint8_t *bytes, uint32_t len)
{
	struct msg_holds m;
	uint32_t i;
	int r = msg_get_holds(bytes, len, &m);

	if (r == 0)
		r = right_epoch(p, peer, m.epoch);
	if (r <= 0)
		return r;
	if (hold)
		return take_holds(p, peer, m.inos, m.count);
	for (i = 0; i < m.count; i++) {
		uint64_t ino = get_le64(m.inos + 8 * (size_t)i);

		if (idset_remove(&peer->holds, ino) && !primary_holds(p, ino))
			p->ops->held(p->ctx, ino, false);
	}
	return 0;
}

static int on_client(struct primary *p, struct primary_peer *peer, const uint8_t *bytes, uint32_t len)
{
	struct msg_client m;
	int r = msg_get_client(bytes, len, &m);

	if (r == 0)
		r = right_epoch(p, peer, m.epoch);
	if (r <= 0)
		return r;
	if (!peer->feeds || m.client == peer->client)
		return err_set(EPROTO, "client: of a replica that feeds nobody");
	if (m.flags & CLIENT_GONE)
		client_goes(p, peer, &m);
	else if (client_comes(p, peer, m.client, m.session, m.low, m.flags & CLIENT_LOCKS ? m.locks : NULL, m.locks_len) < 0)
		primary_note(p, peer->link, "%s, ignoring", err_last());
	return 0;
}

static int on_fenced(struct primary *p, const struct primary_peer *peer, const uint8_t *bytes, uint32_t len)
{
	struct msg_fenced m;
	int r = msg_get_fenced(bytes, len, &m);

	if (r < 0)
		return r;
	if (m.promised > p->epoch && !peer->limited && (primary_leads(p) || p->state == PRIMARY_HANDING)) {
		primary_fence(p, m.promised, "a replica");
		return 0;
	}
	return err_set(ESTALE, "it refuses this epoch");
}

int primary_frame(struct primary *p, link_t link, unsigned type, const uint8_t *bytes, uint32_t len, uint64_t now)
{
	struct primary_peer *peer = find_link(p, link);

	p->now = now;
	/* We have ended this link already; what was still under way is of no interest. */
	if (!peer)
		return 0;
	if (type == MSG_HELLO)
		return on_hello(p, peer, bytes, len);
	/* Of another cluster, perhaps: its word would end an epoch. */
	if (peer->state == PEER_NEW)
		return err_set(EPROTO, "a message of type %x before its hello", type);
	switch (type) {
	case MSG_FENCED:
		return on_fenced(p, peer, bytes, len);
	case MSG_ACK:
		return on_ack(p, peer, bytes, len);
	case MSG_CALL:
		return on_call(p, peer, bytes, len);
	case MSG_CANCEL:
		return on_cancel(p, peer, bytes, len);
	case MSG_HOLD:
	case MSG_RELEASE:
		return on_holds(p, peer, type == MSG_HOLD, bytes, len);
	case MSG_CLIENT:
		return on_client(p, peer, bytes, len);
	case MSG_WELCOME:
	case MSG_CHANGE:
	case MSG_POSITION:
	case MSG_RESULT:
	case MSG_PROMOTE:
	case MSG_LOCK:
		return err_set(EPROTO, "a message of type %x, which only a primary sends", type);
	default:
		if (!msg_is_diff(type))
			return err_set(EOPNOTSUPP, "a message of unknown type %x", type);
		/* Late ones of a diff that was ended are dropped. */
		return peer->state == PEER_DIFFS ? p->ops->diff_frame(p->ctx, link, type, bytes, len) : 0;
	}
}
