/* SPDX-License-Identifier: MIT
 *
 * node: a simulated machine: the two engines and what they ask for. What the net thread and the request thread hand to
 * each other goes through a list (todo) that is worked on later, as it is between threads.
 */
#include "tests/sim/sim.h"

static struct node *node_of(void *ctx)
{
	return ctx;
}

uint64_t node_now(const struct node *n)
{
	return W->now + n->clock_skew;
}

bool node_leads(const struct node *n)
{
	enum primary_state s = primary_state(n->p);

	return n->alive && (s == PRIMARY_LEADS || s == PRIMARY_PARKED || s == PRIMARY_HANDING);
}

static void note(struct node *n, const char *text)
{
	sim_trace("node %u: %s", n->id, text);
}

static void add_todo(struct node *n, const struct todo *t)
{
	must(n->todo_count < TODO_MAX, "node %u: the list between its threads is full", n->id);
	n->todo[n->todo_count++] = *t;
}

/* What the primary's engine asks for ------------------------------------------------------------------------------- */

static int p_send(void *ctx, link_t link, unsigned type, const void *bytes, uint32_t len)
{
	struct node *n = node_of(ctx);

	/* A newer program says things that an older one does not know, and more in what comes first. */
	if (n->version > 1 && type == MSG_POSITION)
		(void)link_send(link, 1, MSG_UNKNOWN, NULL, 0, NULL, 0);
	if (n->version > 1 && type == MSG_WELCOME)
		return link_send(link, 1, type, bytes, len, "from 2.0", 8);
	return link_send(link, 1, type, bytes, len, NULL, 0);
}

static int p_send_change(void *ctx, link_t link, const struct msg_change *head)
{
	struct node *n = node_of(ctx);
	struct msg_change m = *head;
	uint8_t bytes[CHANGE_BYTES], buf[64];
	struct wire_writer w = wire_writer(buf, sizeof buf);

	must(m.seq >= 1 && m.seq <= n->st.n, "node %u: change %llu of %u is asked for", n->id, (unsigned long long)m.seq, n->st.n);
	if (m.seq < n->feed_from)
		return -ENOENT;
	m.change_epoch = n->st.list[m.seq - 1].epoch;
	change_put(bytes, &n->st.list[m.seq - 1]);
	msg_put_change(&w, &m);
	return link_send(link, 1, MSG_CHANGE, buf, (uint32_t)wire_used(&w), bytes, sizeof bytes);
}

static void p_close(void *ctx, link_t link, const char *reason)
{
	sim_trace("node %u closes link %llu: %s", node_of(ctx)->id, (unsigned long long)link, reason);
	link_close(link, 1);
}

static void get_history(void *ctx, struct history *ret)
{
	*ret = node_of(ctx)->st.s.history;
}

static int p_run(void *ctx, const struct primary_run *run)
{
	struct node *n = node_of(ctx);
	struct todo t = { .kind = TODO_RUN, .run = *run };

	if (n->todo_count >= TODO_MAX / 4)
		return -EAGAIN;
	must(run->len <= sizeof t.bytes, "a call of %u bytes", run->len);
	memcpy(t.bytes, run->bytes, run->len);
	add_todo(n, &t);
	return 0;
}

static void p_cancel(void *ctx, uint64_t token, uint64_t client, uint64_t request)
{
	struct todo t = { .kind = TODO_CANCEL, .run = { .token = token, .client = client, .request = request } };

	if (node_of(ctx)->todo_count < TODO_MAX / 2)
		add_todo(node_of(ctx), &t);
}

static int p_diff_start(void *ctx, link_t link, const struct msg_hello *hello)
{
	struct node *n = node_of(ctx);
	struct simlink *l = link_find(link);

	(void)hello;
	if (!l || chance(5))
		return -EBUSY;
	l->diff = true;
	l->diff_at = 0;
	l->diff_n = n->st.n;
	W->diffs++;
	return 0;
}

static int p_diff_frame(void *ctx, link_t link, unsigned type, const uint8_t *bytes, uint32_t len)
{
	(void)ctx;
	(void)link;
	(void)type;
	(void)bytes;
	(void)len;
	return 0;
}

static void p_diff_stop(void *ctx, link_t link)
{
	struct simlink *l = link_find(link);

	(void)ctx;
	if (l)
		l->diff = false;
}

static void p_client_here(void *ctx, const struct primary_run *who, const uint8_t *locks, uint32_t len)
{
	struct todo t = { .kind = TODO_CLIENT, .run = *who };

	(void)locks;
	(void)len;
	add_todo(node_of(ctx), &t);
}

static void p_client_left(void *ctx, uint64_t client, uint64_t session)
{
	struct todo t = { .kind = TODO_LEFT, .run = { .client = client, .session = session } };

	add_todo(node_of(ctx), &t);
}

static int p_client_expired(void *ctx, uint64_t client)
{
	(void)ctx;
	(void)client;
	return 0;
}

static void p_held(void *ctx, uint64_t ino, bool held)
{
	struct todo t = { .kind = TODO_HELD, .ino = ino, .flag = held };

	add_todo(node_of(ctx), &t);
}

/* The programs here that wait for disks do not know. */
static void fail_waits(struct node *n)
{
	unsigned i;

	for (i = 0; i < PROGS; i++)
		if (n->progs[i].op != 0 && n->progs[i].wait != 0) {
			n->progs[i].wait = 0;
			op_answer(n, i, -EIO, 0);
		}
}

static void p_fenced(void *ctx, uint64_t promised)
{
	struct node *n = node_of(ctx);

	n->fence = max_u64(n->fence, promised);
	n->parked = false;
	fail_waits(n);
	(void)replica_follow(n->r, promised, node_now(n));
}

static void p_park(void *ctx, bool park)
{
	node_of(ctx)->parked = park;
}

static void p_hand_over(void *ctx, uint64_t next, seq_t seq)
{
	must(node_of(ctx)->st.n == seq, "node %u has %u changes, and hands over behind %llu", node_of(ctx)->id, node_of(ctx)->st.n,
	     (unsigned long long)seq);
	node_of(ctx)->hand = next;
}

static void p_handed(void *ctx, const uint8_t store[16], const char *name)
{
	struct node *n = node_of(ctx);
	uint64_t id = get_le64(store);

	(void)name;
	n->from = (unsigned)id - 1;
	W->switches++;
}

static void p_synced(void *ctx, seq_t seq)
{
	(void)ctx;
	(void)seq;
}

static void p_note(void *ctx, link_t link, const char *text)
{
	(void)link;
	note(node_of(ctx), text);
}

static const struct primary_ops primary_ops = {
	.send = p_send, .send_change = p_send_change, .close = p_close, .history = get_history, .run = p_run,
	.cancel = p_cancel, .diff_start = p_diff_start, .diff_frame = p_diff_frame, .diff_stop = p_diff_stop,
	.client_here = p_client_here, .client_left = p_client_left, .client_expired = p_client_expired, .held = p_held,
	.fenced = p_fenced, .park = p_park, .hand_over = p_hand_over, .handed = p_handed, .synced = p_synced,
	.note = p_note,
};

/* What the replica's engine asks for ------------------------------------------------------------------------------- */

static int r_send(void *ctx, link_t link, unsigned type, const void *head, uint32_t head_len, const void *body,
		  uint32_t body_len)
{
	struct node *n = node_of(ctx);

	if (n->version > 1 && type == MSG_ACK)
		(void)link_send(link, 0, MSG_UNKNOWN, NULL, 0, NULL, 0);
	if (n->version > 1 && type == MSG_HELLO)
		return link_send(link, 0, type, head, head_len, "from 2.0", 8);
	return link_send(link, 0, type, head, head_len, body, body_len);
}

static void r_close(void *ctx, link_t link, const char *reason)
{
	sim_trace("node %u closes link %llu: %s", node_of(ctx)->id, (unsigned long long)link, reason);
	link_close(link, 0);
}

/* An orphan that the kernel here knows. */
static void note_orphan(struct node *n, uint64_t ino)
{
	if (n->knows[ino])
		replica_hold(n->r, ino, false);
}

static int r_apply(void *ctx, const struct msg_change *m)
{
	struct node *n = node_of(ctx);
	struct change c;

	if (n->full || (!W->calm && chance(5)))
		return -EAGAIN;
	must(m->len == CHANGE_BYTES, "a change of %u bytes", m->len);
	change_get(m->bytes, &c);
	must(c.seq == m->seq && c.epoch == m->change_epoch, "a change that says other numbers than its message");
	/* Not a lower one, nor a higher one before the promise is on disk. */
	must(m->epoch == n->st.promised, "node %u obeys epoch %llx, it has promised %llx", n->id,
	     (unsigned long long)m->epoch, (unsigned long long)n->st.promised);
	store_add(n, &c);
	if (c.type == CHANGE_DELETE)
		note_orphan(n, c.ino);
	primary_committed(n->p, n->st.n, n->st.n * CHANGE_BYTES, node_now(n));
	return 0;
}

static void r_promise(void *ctx, uint64_t epoch)
{
	node_of(ctx)->promise = epoch;
}

/* Whoever is fed from here was on a way that ends. */
static void pause_relay(struct node *n, const char *why)
{
	n->relay_link = 0;
	primary_pause(n->p, why);
}

static int r_welcome(void *ctx, const struct msg_welcome *w)
{
	struct node *n = node_of(ctx);

	struct replica_status s;

	replica_status(n->r, node_now(n), &s);
	if (n->relay_link != 0 && (w->decision != WELCOME_STREAM || primary_epoch(n->p) != w->epoch || n->relay_link != s.link))
		pause_relay(n, "a new epoch, link or state");
	return chance(10) ? -EAGAIN : 0;
}

static void r_aside(void *ctx, uint64_t epoch, seq_t last, seq_t common)
{
	struct node *n = node_of(ctx);

	(void)common;
	n->aside = true;
	n->aside_epoch = epoch;
	n->aside_last = last;
}

static int r_diff_start(void *ctx, link_t link, const struct msg_welcome *w)
{
	(void)link;
	(void)w;
	node_of(ctx)->staged_n = 0;
	return 0;
}

/* The store becomes what was staged, on disk, in one step. */
static void rebase(struct node *n)
{
	const struct node *l = world_leader();
	bool same_line;
	unsigned i;

	for (i = 0; i < n->st.n; i++)
		must(n->st.list[i].op == 0 || (i < n->staged_n && n->staged[i].op == n->st.list[i].op) ||
		     W->ops[n->st.list[i].op].reported, "node %u drops request %llu silently", n->id,
		     (unsigned long long)n->st.list[i].op);
	/* Nor does it go back to an earlier state of the line that stays. */
	same_line = l && n->staged_n > 0 && n->staged_n <= l->st.n &&
		    l->st.list[n->staged_n - 1].uid == n->staged[n->staged_n - 1].uid;
	for (i = n->staged_n; same_line && i < n->st.n; i++)
		must(i >= l->st.n || l->st.list[i].uid != n->st.list[i].uid, "node %u forgets change %u, which the primary has",
		     n->id, i + 1);
	memcpy(n->st.list, n->staged, n->staged_n * sizeof n->staged[0]);
	n->st.n = n->st.durable = n->staged_n;
	n->st.clean = false;
	n->feed_from = n->st.n + 1;
	store_rebuild(&n->st);
	for (i = 0; i < n->st.s.orphan_count; i++)
		if (!n->st.s.orphans[i].marked)
			note_orphan(n, n->st.s.orphans[i].ino);
	sim_trace("node %u: the diff is done, it is at %u", n->id, n->st.n);
	primary_committed(n->p, n->st.n, n->st.n * CHANGE_BYTES, node_now(n));
}

static int r_diff_frame(void *ctx, link_t link, unsigned type, const uint8_t *bytes, uint32_t len)
{
	struct node *n = node_of(ctx);
	uint32_t at;

	(void)link;
	if (chance(10))
		return -EAGAIN;
	for (at = 0; at + CHANGE_BYTES <= len; at += CHANGE_BYTES)
		change_get(bytes + at, &n->staged[n->staged_n++]);
	if (type == MSG_DIFF)
		return 0;
	rebase(n);
	replica_diff_done(n->r, n->st.n ? n->st.list[n->st.n - 1].epoch : 0, n->st.n, node_now(n));
	return 0;
}

static void r_diff_stop(void *ctx, link_t link)
{
	(void)ctx;
	(void)link;
}

static uint32_t r_locks(void *ctx, uint8_t *buf, uint32_t max)
{
	(void)ctx;
	(void)buf;
	(void)max;
	return 0;
}

static void r_answer(void *ctx, uint64_t cookie, const struct replica_answer *a)
{
	op_answer(node_of(ctx), (unsigned)cookie, a->error, a->seq);
}

static void r_forwarded(void *ctx, uint64_t client, uint64_t session, uint64_t request, uint64_t token,
			const struct replica_answer *a)
{
	struct node *n = node_of(ctx);
	const struct primary_result res = { .error = a->error, .sync = (a->flags & RESULT_SYNC) != 0, .seq = a->seq, .number = a->number };

	(void)session;
	primary_result(n->p, client, request, token, &res, node_now(n));
}

static void r_run(void *ctx, uint64_t client, uint64_t request, uint64_t low, const uint8_t *bytes, uint32_t len)
{
	struct node *n = node_of(ctx);
	struct primary_result res;
	struct replica_answer a;

	(void)low;
	(void)len;
	node_run_op(n, bytes, client, request, &res);
	/* What waits for disks here would wait like any local fsync; the model answers that it does not know. */
	a = (struct replica_answer){ res.sync ? -EIO : res.error, 0, res.seq, res.number };
	replica_local_result(n->r, client, request, &a);
}

static void r_lead(void *ctx, uint64_t epoch)
{
	node_of(ctx)->lead = epoch;
}

static void r_elsewhere(void *ctx, const char *name)
{
	(void)ctx;
	(void)name;
}

static void r_note(void *ctx, const char *text)
{
	note(node_of(ctx), text);
}

static const struct replica_ops replica_ops = {
	.send = r_send, .close = r_close, .history = get_history, .apply = r_apply, .promise = r_promise,
	.welcome = r_welcome, .aside = r_aside, .diff_start = r_diff_start, .diff_frame = r_diff_frame,
	.diff_stop = r_diff_stop, .locks = r_locks, .answer = r_answer, .forwarded = r_forwarded, .run = r_run,
	.lead = r_lead, .elsewhere = r_elsewhere, .news = NULL, .note = r_note,
};

/* Starting and stopping -------------------------------------------------------------------------------------------- */

static const uint8_t cluster[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

/* The EPOCH change, not yet on disk. */
static void begin_epoch(struct node *n, uint64_t epoch)
{
	struct change c = store_make(n, CHANGE_EPOCH, epoch);

	c.nonce = rnd(UINT64_MAX);
	c.store = n->id + 1;
	store_add(n, &c);
}

static void lead(struct node *n, uint64_t epoch)
{
	primary_set_features(n->p, MSG_FEATURES);
	primary_lead(n->p, epoch, n->st.promised, n->st.n, n->st.durable, node_now(n));
	primary_committed(n->p, n->st.n, n->st.n * CHANGE_BYTES, node_now(n));
}

void node_start(struct node *n)
{
	struct primary_options po = { .hash_seed = 7, .lease_ms = LEASE_MS, .keep_ms = 50, .sync_replicas = W->sync_replicas,
				      .sync_wait_ms = 300, .switch_wait_ms = 500, .version = n->version,
				      .features = n->version > 1 ? 3 : 1 };
	struct replica_options ro = { .wait_ms = W->wait_ms, .flags = HELLO_FEEDS, .version = n->version,
				      .features = n->version > 1 ? 3 : 1 };
	uint64_t epoch;

	n->alive = true;
	n->hung_at = 0;
	n->still = false;
	n->boot++;
	n->client = ++W->next_client;
	n->todo_count = 0;
	n->promise = n->lead = n->hand = n->fence = 0;
	n->aside = n->parked = n->full = false;
	n->relay_link = 0;
	memset(n->knows, 0, sizeof n->knows);
	memset(n->progs, 0, sizeof n->progs);
	n->feed_from = n->st.n + 1;
	store_rebuild(&n->st);
	epoch = n->st.n ? n->st.list[n->st.n - 1].epoch : 0;
	if (n->st.primary && (!n->st.clean || epoch < n->st.promised)) {
		epoch = max_u64(epoch, n->st.promised) + 1;
		begin_epoch(n, epoch);
		/* Role and promise of a primary are on disk before anyone is let in. */
		n->st.promised = epoch;
	}
	memcpy(po.cluster, cluster, 16);
	put_le64(po.store, n->id + 1);
	memcpy(ro.cluster, n->st.n > 0 ? cluster : (const uint8_t[16]){ 0 }, 16);
	put_le64(ro.store, n->id + 1);
	ro.client = n->client;
	n->p = primary_new(&po, &primary_ops, n);
	n->r = replica_new(&ro, &replica_ops, n, epoch, n->st.n, n->st.durable, n->st.promised);
	if (!n->p || !n->r)
		abort();
	sim_trace("node %u starts: %s, at %u of epoch %llx, promised %llx", n->id, n->st.primary ? "primary" : "replica",
		  n->st.n, (unsigned long long)epoch, (unsigned long long)n->st.promised);
	if (n->st.primary) {
		replica_start_leading(n->r, epoch, n->st.n);
		lead(n, epoch);
	} else {
		primary_promised(n->p, n->st.promised);
	}
	n->last_state = REPLICA_DOWN;
	n->down_since = node_now(n);
}

void node_stop(struct node *n, bool clean)
{
	n->alive = false;
	n->st.clean = clean;
	if (clean)
		n->st.durable = n->st.n;
	link_end_of(n);
	primary_free(n->p);
	replica_free(n->r);
	progs_end(n);
	n->p = NULL;
	n->r = NULL;
}

/* The disk --------------------------------------------------------------------------------------------------------- */

static void promoted(struct node *n)
{
	uint64_t epoch = n->lead;
	unsigned i;

	n->lead = 0;
	must(epoch > n->st.promised, "node %u begins epoch %llx, it has promised %llx", n->id, (unsigned long long)epoch,
	     (unsigned long long)n->st.promised);
	n->st.promised = epoch;
	n->st.primary = true;
	/* The operator's kernel knows orphans, too: they are kept from being marked as those of others are. */
	begin_epoch(n, epoch);
	for (i = 0; i < n->st.s.orphan_count; i++)
		if (!n->st.s.orphans[i].marked)
			note_orphan(n, n->st.s.orphans[i].ino);
	lead(n, epoch);
	replica_led(n->r, epoch, n->st.n, node_now(n));
	W->promotions++;
	sim_trace("node %u is the primary of epoch %llx from %u on", n->id, (unsigned long long)epoch, n->st.n);
}

static void aside_done(struct node *n)
{
	unsigned i;

	n->aside = false;
	/* What it was asked for is its state at that time; it has not shrunk since. */
	for (i = 0; i < n->st.n; i++)
		W->ops[n->st.list[i].op].reported = true;
	W->asides++;
	replica_aside_done(n->r, 0, node_now(n));
}

void node_demote(struct node *n, uint64_t promised)
{
	n->st.primary = false;
	n->st.promised = max_u64(n->st.promised, promised);
	fail_waits(n);
	/* If it is being promoted again meanwhile, that goes on. */
	(void)replica_follow(n->r, n->st.promised, node_now(n));
	replica_promised(n->r, n->st.promised);
}

void node_disk(struct node *n)
{
	if (!n->alive || node_hangs(n) || chance(60) || (n->hand && chance(60)))
		return;
	if (n->promise) {
		n->st.promised = max_u64(n->st.promised, n->promise);
		n->promise = 0;
		replica_promised(n->r, n->st.promised);
		primary_promised(n->p, n->st.promised);
	} else if (n->fence) {
		uint64_t e = n->fence;

		n->fence = 0;
		node_demote(n, e);
	} else if (n->hand) {
		uint64_t e = n->hand;

		n->hand = 0;
		if (primary_state(n->p) != PRIMARY_HANDING)
			return;         /* fenced meanwhile */
		node_demote(n, e);
		primary_handed(n->p, node_now(n));
	} else if (n->lead) {
		promoted(n);
	} else if (n->aside) {
		aside_done(n);
	}
}

void node_sync(struct node *n)
{
	if (!n->alive || node_hangs(n) || n->full || chance(50) || (W->lazy && !W->calm && chance(85)))
		return;
	n->st.durable += (unsigned)rnd(n->st.n - n->st.durable + 1);
	if (chance(60))
		n->st.durable = n->st.n;
	replica_durable(n->r, n->st.durable);
	if (node_leads(n))
		primary_durable(n->p, n->st.durable);
}

/* Calls ------------------------------------------------------------------------------------------------------------ */

/* A primary makes a change. */
int node_commit(struct node *n, struct change *c)
{
	must(n->st.primary && n->st.promised <= c->epoch, "node %u makes a change in epoch %llx, it has promised %llx", n->id,
	     (unsigned long long)c->epoch, (unsigned long long)n->st.promised);
	store_add(n, c);
	if (c->type == CHANGE_DELETE)
		note_orphan(n, c->ino);
	if (n->st.n - n->feed_from >= FEED_KEEP)
		n->feed_from = n->st.n - FEED_KEEP;
	replica_committed(n->r, c->epoch, n->st.n);
	primary_committed(n->p, n->st.n, n->st.n * CHANGE_BYTES, node_now(n));
	return 0;
}

/* Run what a program asked for; client 0: one here. */
void node_run_op(struct node *n, const uint8_t *bytes, uint64_t client, uint64_t request, struct primary_result *ret)
{
	enum change_type type = (enum change_type)get_le64(bytes);
	uint64_t key = get_le64(bytes + 8), op = get_le64(bytes + 16);
	const struct slot *slot = client ? store_slot(&n->st, client, request) : NULL;
	struct change c;

	*ret = (struct primary_result){ .seq = n->st.n };
	if (slot) {
		ret->seq = slot->seq;
		ret->number = slot->number;
		W->resent++;
		return;
	}
	if ((unsigned)type == 0) {
		ret->sync = true;
		return;
	}
	if ((type == CHANGE_CREATE) != (n->st.s.ino[key] == 0)) {
		ret->error = type == CHANGE_CREATE ? -EEXIST : -ENOENT;
		return;
	}
	c = store_make(n, type, primary_epoch(n->p));
	c.key = key;
	c.op = op;
	c.client = client;
	c.request = request;
	c.ino = type == CHANGE_CREATE ? c.uid : n->st.s.ino[key];
	(void)node_commit(n, &c);
	ret->seq = c.seq;
	ret->number = c.ino;
	W->done_calls++;
}

static void do_run(struct node *n, const struct todo *t)
{
	struct primary_result res = { .error = -EIO };
	struct primary_run run = t->run;

	run.bytes = t->bytes;
	if (primary_state(n->p) == PRIMARY_RELAYS) {
		if (replica_forward(n->r, &run, node_now(n)) == 0)
			return;
		/* Of a client that has left. */
	} else if (node_leads(n) && n->st.primary) {
		node_run_op(n, t->bytes, run.client, run.request, &res);
	}
	primary_result(n->p, run.client, run.request, run.token, &res, node_now(n));
}

void node_todo(struct node *n)
{
	struct todo t;

	if (node_hangs(n) || n->todo_count == 0 || (n->full && n->todo[0].kind == TODO_RUN && node_leads(n)))
		return;
	t = n->todo[0];
	n->todo_count--;
	memmove(n->todo, n->todo + 1, n->todo_count * sizeof n->todo[0]);
	switch (t.kind) {
	case TODO_RUN:
		do_run(n, &t);
		break;
	case TODO_CLIENT:
		replica_client(n->r, t.run.client, t.run.session, t.run.low, false, NULL, 0);
		break;
	case TODO_LEFT:
		replica_client(n->r, t.run.client, t.run.session, 0, true, NULL, 0);
		break;
	case TODO_HELD:
		if (t.flag)
			replica_hold(n->r, t.ino, true);
		else
			replica_release(n->r, t.ino, true);
		break;
	case TODO_CANCEL:
		replica_forward_cancel(n->r, t.run.client, t.run.request, t.run.token);
		break;
	}
}

/* Sending ---------------------------------------------------------------------------------------------------------- */

void node_diff(struct simlink *l)
{
	struct node *n = &W->node[l->node[1]];
	uint8_t buf[PIECE * CHANGE_BYTES];
	unsigned k = 0;

	while (k < PIECE && l->diff_at + k < l->diff_n) {
		change_put(buf + k * CHANGE_BYTES, &n->st.list[l->diff_at + k]);
		k++;
	}
	if (link_send(l->id, 1, l->diff_at + k == l->diff_n ? MSG_DIFF + 1 : MSG_DIFF, buf, k * CHANGE_BYTES, NULL, 0) < 0)
		return;
	l->diff_at += k;
	if (l->diff_at == l->diff_n)
		l->diff = false;
}

/* Since when has it no stream? */
void node_watch(struct node *n)
{
	struct replica_status s;

	if (!n->alive)
		return;
	replica_status(n->r, node_now(n), &s);
	if ((s.state == REPLICA_STREAM) != (n->last_state == REPLICA_STREAM))
		n->down_since = node_now(n);
	n->last_state = s.state;
}

/* What a daemon does between events: a replica that streams feeds others, and hands on what those have. */
void node_look(struct node *n)
{
	struct replica_status s;
	enum primary_state ps = primary_state(n->p);
	seq_t applied, durable;
	uint32_t count;
	uint8_t path[MSG_PATH_MAX * 16];
	uint32_t path_count;
	unsigned i;

	replica_status(n->r, node_now(n), &s);
	if (n->relay_link != 0 && (s.link != n->relay_link || (s.state != REPLICA_STREAM && s.state != REPLICA_HELLO)))
		pause_relay(n, "it has no link itself");
	path_count = replica_path(n->r, path);
	if (path_count > 0 && !node_leads(n))
		primary_set_path(n->p, path, path_count);
	if (s.state == REPLICA_STREAM && n->relay_link == 0 && (ps == PRIMARY_OFF || ps == PRIMARY_RELAYS)) {
		n->relay_link = s.link;
		primary_set_features(n->p, s.features | MSG_FEATURES_OWN);
		primary_relay(n->p, s.link_epoch, n->st.promised, n->st.n, node_now(n));
		primary_committed(n->p, n->st.n, n->st.n * CHANGE_BYTES, node_now(n));
	}
	if (primary_state(n->p) == PRIMARY_RELAYS) {
		if (n->st.n + 1 > FEED_KEEP && n->feed_from < n->st.n + 1 - FEED_KEEP)
			n->feed_from = n->st.n + 1 - FEED_KEEP;
		primary_set_stale(n->p, (uint32_t)s.stale_ms);
		for (i = 0; i < n->todo_count && n->todo[i].kind != TODO_HELD; i++)
			;
		applied = n->st.n;
		durable = n->st.durable;
		primary_tree(n->p, &applied, &durable, &count);
		/* Not past holds that are still on their way between the threads. */
		if (i == n->todo_count)
			replica_tree(n->r, applied, durable, count);
	}
}

void node_pump(struct node *n)
{
	(void)primary_pump(n->p, node_now(n));
	if (node_hangs(n))
		return;
	(void)replica_pump(n->r, node_now(n));
	node_look(n);
}

void node_tick(struct node *n)
{
	n->still = node_hangs(n) && W->now - n->hung_at >= STILL_MS;
	primary_stand_still(n->p, n->still ? "its request thread stands still" : NULL, node_now(n));
	primary_tick(n->p, node_now(n));
	if (!node_hangs(n))
		replica_tick(n->r, node_now(n));
}
