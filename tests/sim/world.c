/* SPDX-License-Identifier: MIT
 *
 * world: programs, kernels and the operator of a simulated cluster, the scheduler, and the verdict. What is checked:
 * - each list of changes is a prefix of one line, nothing is in a list twice, epochs go up (model.c, at every addition);
 * - a program that was told that its change is made finds it in its own store, at the number that it was told;
 * - what an fsync said is on disk is on the disks of as many nodes as it should be; and in the end it is in the line of the
 *   cluster, or, if somebody was promoted by hand, at least in a state that was put aside;
 * - what was refused is nowhere; nothing leaves a store in a diff that was not put aside (node.c);
 * - no orphan is marked that the kernel of a connected replica knows;
 * - no program waits longer than its patience without a stream;
 * - when nothing breaks any more, all nodes become equal, and nobody waits.
 */
#include "tests/sim/sim.h"

#include <stdarg.h>

struct world *W;

/* Random numbers of this step (splitmix64). */
uint64_t rnd(uint64_t below)
{
	uint64_t z = W->rng += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	z ^= z >> 31;
	return below == 0 ? 0 : z % below;
}

void sim_fail(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(W->why, sizeof W->why, format, ap);
	va_end(ap);
	longjmp(W->failed, 1);
}

void sim_trace(const char *format, ...)
{
	va_list ap;

	if (!W->trace)
		return;
	printf("# %5llu %6llu  ", (unsigned long long)W->step, (unsigned long long)W->now);
	va_start(ap, format);
	(void)vprintf(format, ap);
	va_end(ap);
	putchar('\n');
}

/* Programs --------------------------------------------------------------------------------------------------------- */

/* On how many disks is it, in its place? */
static unsigned disks_with(uint64_t id, seq_t seq)
{
	unsigned i, count = 0;

	for (i = 0; i < W->nodes; i++) {
		const struct store *st = &W->node[i].st;

		count += st->durable >= seq && st->list[seq - 1].op == id;
	}
	return count;
}

/* What an fsync of this program's key makes of earlier changes on this mount. */
static void after_sync(struct node *n, const struct op *sync, bool good)
{
	uint64_t id;
	unsigned disks, want = W->sync_replicas == PRIMARY_SYNC_ALL ? 1 : 1 + W->sync_replicas;

	for (id = 1; id < W->next_op; id++) {
		struct op *o = &W->ops[id];

		if (o->state != OP_OK || o->node != n->id || o->boot != n->boot || o->key != sync->key ||
		    (unsigned)o->type == 0 || o->forgiven || o->answered >= sync->began)
			continue;
		if (!good) {
			o->forgiven = !o->durable;
			continue;
		}
		disks = o->durable ? want : disks_with(id, o->seq);
		must(disks >= want, "an fsync on node %u is done, but request %llu is on %u disks of %u", n->id,
		     (unsigned long long)id, disks, want);
		o->durable = true;
	}
}

void op_answer(struct node *n, unsigned prog, int error, seq_t seq)
{
	uint64_t id = n->progs[prog].op;
	struct op *o = &W->ops[id];

	must(id != 0 && o->state == OP_OPEN, "node %u: an answer that nobody waits for", n->id);
	n->progs[prog] = (struct prog){ 0 };
	o->error = error;
	o->seq = seq;
	o->answered = W->step;
	sim_trace("node %u: request %llu (type %u, key %u): %d at %llu", n->id, (unsigned long long)id, o->type, o->key,
		  error, (unsigned long long)seq);
	if ((unsigned)o->type == 0) {
		o->state = error == 0 ? OP_OK : OP_UNKNOWN;
		must(error != 0 || seq <= n->st.n, "node %u: an fsync up to %llu is done, the store is at %u", n->id,
		     (unsigned long long)seq, n->st.n);
		after_sync(n, o, error == 0);
		return;
	}
	o->state = error == 0 ? OP_OK : error == -EIO || error == -EINTR ? OP_UNKNOWN : OP_ERROR;
	must(error != 0 || (seq >= 1 && seq <= n->st.n && n->st.list[seq - 1].op == id),
	     "node %u: request %llu is answered, but its change is not in the store", n->id, (unsigned long long)id);
	must(error == 0 || error == -EIO || error == -EROFS || error == -EINTR || seq <= n->st.n,
	     "node %u: request %llu is refused for a state that is not here yet", n->id, (unsigned long long)id);
}

static void begin_local(struct node *n, unsigned prog, const uint8_t *bytes)
{
	struct op *o = &W->ops[n->progs[prog].op];
	struct primary_result res;
	int e;

	if (n->parked || primary_state(n->p) != PRIMARY_LEADS) {
		n->progs[prog].parked = true;
		return;
	}
	if ((unsigned)o->type == 0) {
		e = replica_sync_check(n->r, o->key + 1);
		if (e < 0 || n->st.n == 0) {
			op_answer(n, prog, e, n->st.n);
			return;
		}
		n->progs[prog].wait = n->st.n;
		n->progs[prog].wait_since = node_now(n);
		return;
	}
	node_run_op(n, bytes, 0, 0, &res);
	if (res.error == 0)
		replica_wrote(n->r, o->key + 1, res.seq);
	op_answer(n, prog, res.error, res.seq);
}

static void begin(struct node *n, unsigned prog)
{
	struct op *o = &W->ops[n->progs[prog].op];
	uint8_t bytes[24];
	struct replica_call c = { .cookie = prog, .object = o->key + 1, .bytes = bytes, .len = sizeof bytes,
				  .flags = (unsigned)o->type == 0 ? REPLICA_CALL_SYNC : REPLICA_CALL_WRITE };
	int e;

	put_le64(bytes, o->type);
	put_le64(bytes + 8, o->key);
	put_le64(bytes + 16, n->progs[prog].op);
	n->progs[prog].parked = false;
	if (node_leads(n)) {
		begin_local(n, prog, bytes);
		return;
	}
	o->since = node_now(n);
	e = replica_call(n->r, &c, node_now(n));
	if (e == -EAGAIN)
		n->progs[prog].parked = true;
	else if (e < 0)
		op_answer(n, prog, e, 0);
}

void prog_start(struct node *n, unsigned prog)
{
	static const enum change_type types[] = { 0, 0, CHANGE_CREATE, CHANGE_CREATE, CHANGE_DELETE, CHANGE_DELETE, CHANGE_PUT };
	struct op *o;

	if (W->next_op == OPS_MAX)
		return;
	o = &W->ops[W->next_op];
	*o = (struct op){ .state = OP_OPEN, .node = n->id, .prog = prog, .boot = n->boot, .began = W->step,
			  .since = node_now(n), .type = types[rnd(ARRAY_LEN(types))], .key = (unsigned)rnd(KEYS) };
	n->progs[prog] = (struct prog){ .op = W->next_op++ };
	begin(n, prog);
}

void prog_retry(struct node *n, unsigned prog)
{
	struct prog *p = &n->progs[prog];

	if (p->wait != 0) {
		if (primary_synced(n->p) >= p->wait)
			op_answer(n, prog, replica_sync_check(n->r, W->ops[p->op].key + 1), p->wait);
		else if (node_now(n) > p->wait_since + 300)
			op_answer(n, prog, -EIO, 0);
	} else if (p->parked) {
		begin(n, prog);
	} else if (chance(3)) {
		(void)replica_cancel(n->r, prog);
	}
}

void progs_end(struct node *n)
{
	unsigned i;

	for (i = 0; i < PROGS; i++) {
		if (n->progs[i].op != 0 && W->ops[n->progs[i].op].state == OP_OPEN)
			W->ops[n->progs[i].op].state = OP_UNKNOWN;
		n->progs[i] = (struct prog){ 0 };
	}
}

static void do_prog(struct node *n)
{
	unsigned prog = (unsigned)rnd(PROGS);

	if (node_hangs(n))
		return;
	if (n->progs[prog].op != 0)
		prog_retry(n, prog);
	else if (!W->calm)
		prog_start(n, prog);
}

/* (R7) Asked after each tick. */
static void check_patience(struct node *n)
{
	const struct simlink *l;
	const struct node *up;
	struct replica_status s;
	unsigned i;

	/* Its own programs hang with it. */
	if (node_hangs(n))
		return;
	replica_status(n->r, node_now(n), &s);
	l = s.state == REPLICA_STREAM ? link_find(s.link) : NULL;
	up = l && !l->cut && l->up[1] ? &W->node[l->node[1]] : NULL;
	must(!up || !node_hangs(up) || W->now - up->hung_at <= STILL_MS + 700,
	     "node %u is fed by node %u, which has stood still for %llu ms", n->id, up->id,
	     (unsigned long long)(W->now - up->hung_at));
	if (s.state == REPLICA_STREAM || s.state == REPLICA_LEADS || s.state == REPLICA_LEADING)
		return;
	for (i = 0; i < PROGS; i++) {
		const struct prog *p = &n->progs[i];
		uint64_t from;

		if (p->op == 0 || p->parked || p->wait != 0)
			continue;
		from = max_u64(W->ops[p->op].since, n->down_since);
		must(node_now(n) <= from + W->wait_ms + 50, "node %u: request %llu waits, the link is down for %llu ms", n->id,
		     (unsigned long long)p->op, (unsigned long long)(node_now(n) - from));
	}
}

/* Kernels ---------------------------------------------------------------------------------------------------------- */

static void do_kernel(struct node *n)
{
	uint64_t ino = n->st.s.ino[rnd(KEYS)];
	unsigned i;

	if (!n->alive || node_hangs(n))
		return;
	if (ino != 0 && chance(60)) {
		n->knows[ino] = 1;
		return;
	}
	for (i = 0; i < 3 && n->st.s.orphan_count > 0; i++) {
		ino = n->st.s.orphans[rnd(n->st.s.orphan_count)].ino;
		if (n->knows[ino]) {
			n->knows[ino] = 0;
			replica_release(n->r, ino, false);
		}
	}
}

/* Is n connected with `to`, directly or over relays, as both ends see it, and for long enough that who left another
 * place is known here? How many links it is away; 0: it is not. */
static unsigned live(const struct node *n, const struct node *to, unsigned depth)
{
	struct replica_status s;
	struct primary_peer_status ps;
	const struct simlink *l;
	const struct node *up;
	unsigned i, hops;

	if (!n->alive || depth > NODES_MAX)
		return 0;
	replica_status(n->r, node_now(n), &s);
	if (s.state != REPLICA_STREAM)
		return 0;
	l = link_find(s.link);
	if (!l || l->cut || !l->up[0] || !l->up[1])
		return 0;
	up = &W->node[l->node[1]];
	if (!up->alive || up->boot != l->boot[1])
		return 0;
	for (i = 0; primary_peer_status(up->p, i, node_now(up), &ps) == 0; i++)
		if (ps.link == s.link)
			break;
	if (ps.link != s.link || ps.state != PEER_STREAMS)
		return 0;
	if (up == to)
		return 1;
	hops = live(up, to, depth + 1);
	/* What it has and holds goes up one relay after the other. */
	return hops > 0 && node_now(n) > n->down_since + 6ull * LEASE_MS * (hops + 1) ? hops + 1 : 0;
}

struct node *world_leader(void)
{
	struct node *best = NULL;
	unsigned i;

	for (i = 0; i < W->nodes; i++) {
		struct node *n = &W->node[i];

		if (n->alive && node_leads(n) && (!best || primary_epoch(n->p) > primary_epoch(best->p)))
			best = n;
	}
	return best;
}

/* Who is gone for less than a lease is not forgotten. */
static bool lately(const struct node *n, const struct node *to)
{
	return n->alive && !W->skewed && n->live_with == to->id && n->live_at != 0 &&
	       W->now < n->live_at + LEASE_MS * 3 / 4;
}

static void watch_live(void)
{
	struct node *l = world_leader();
	unsigned i;

	for (i = 0; l && i < W->nodes; i++) {
		struct node *n = &W->node[i];
		struct replica_status s;
		const struct simlink *k;

		/* Who was here when it began to stand still cannot come back before it goes on. */
		if (l->still && lately(n, l))
			n->live_at = W->now;
		if (!n->alive || n == l)
			continue;
		replica_status(n->r, node_now(n), &s);
		k = link_find(s.link);
		if (!k || k->node[1] != l->id || !live(n, l, 0))
			continue;
		n->live_at = W->now;
		n->live_with = l->id;
	}
}

static void do_marks(struct node *n)
{
	unsigned i, k;

	if (!n || node_hangs(n) || primary_state(n->p) != PRIMARY_LEADS)
		return;
	for (i = 0; i < n->st.s.orphan_count; i++) {
		uint64_t ino = n->st.s.orphans[i].ino;
		struct change c;

		if (n->st.s.orphans[i].marked || n->knows[ino] ||
		    primary_mark_limit(n->p, node_now(n)) < n->st.s.orphans[i].seq || primary_holds(n->p, ino))
			continue;
		for (k = 0; k < W->nodes; k++)
			must(k == n->id || !W->node[k].knows[ino] || (!live(&W->node[k], n, 0) && !lately(&W->node[k], n)),
			     "node %u marks orphan %llu, which the kernel of node %u knows", n->id,
			     (unsigned long long)ino, k);
		c = store_make(n, CHANGE_MARK, primary_epoch(n->p));
		c.key = ino;
		(void)node_commit(n, &c);
		W->marks++;
		return;
	}
}

/* What breaks, and the operator ------------------------------------------------------------------------------------ */

static struct node *any_node(void)
{
	return &W->node[rnd(W->nodes)];
}

/* Some of what is under way to the disk gets there, some does not. */
static void crash(struct node *n, bool power)
{
	uint64_t promise = chance(50) ? n->promise : 0, lead = chance(50) ? n->lead : 0, down = chance(50) ? max_u64(n->hand, n->fence) : 0;

	if (primary_state(n->p) != PRIMARY_HANDING && !n->fence)
		down = 0;
	W->crashed = true;
	sim_trace("node %u: %s", n->id, power ? "the power fails" : "killed");
	node_stop(n, false);
	n->st.promised = max_u64(n->st.promised, max_u64(promise, max_u64(lead, down)));
	if (lead)
		n->st.primary = true;
	if (down)
		n->st.primary = false;
	if (power)
		store_cut(n, n->st.durable + (unsigned)rnd(n->st.n - n->st.durable + 1));
	/* What a crash leaves is what is on disk. */
	if (power)
		n->st.durable = n->st.n;
}

static void stop_clean(struct node *n)
{
	if (node_hangs(n) || n->promise || n->lead || n->hand || n->fence || n->full)
		return;
	sim_trace("node %u: stopped", n->id);
	node_stop(n, true);
}

/* Sometimes for less than is noticed, mostly for longer than patience and leases last. */
static void hang(struct node *n)
{
	if (node_hangs(n))
		return;
	n->hung_at = W->now;
	n->hung_until = W->now + (chance(30) ? rnd(STILL_MS) : rnd(8 * STILL_MS));
	sim_trace("node %u: stands still", n->id);
	W->hangs++;
}

static void point(struct node *n)
{
	struct node *l = world_leader();

	n->from = l && chance(50) ? l->id : (unsigned)rnd(W->nodes);
}

static void by_hand(struct node *n)
{
	if (node_hangs(n) || node_leads(n) || replica_promote(n->r, node_now(n)) < 0)
		return;
	W->promoted = true;
	sim_trace("node %u: promoted by hand", n->id);
}

static void demote(struct node *n)
{
	sim_trace("node %u: demoted by hand", n->id);
	primary_off(n->p, "demoted", "");
	n->hand = n->fence = 0;
	n->parked = false;
	node_demote(n, 0);
}

static void hand_over(void)
{
	struct node *n = world_leader();
	uint8_t store[16] = { 0 };
	unsigned i, k = (unsigned)rnd(W->nodes);

	for (i = 0; n && i < W->nodes; i++) {
		struct node *to = &W->node[(k + i) % W->nodes];

		put_le64(store, to->id + 1);
		if (n == to || primary_switch(n->p, store, node_now(n)) < 0)
			continue;
		sim_trace("node %u hands over to node %u", n->id, to->id);
		return;
	}
}

static void do_chaos(void)
{
	enum chaos kind = chance(W->gentle ? 4 : 30) ? CHAOS_BREAK : (enum chaos)rnd(CHAOS_COUNT);
	struct node *l0 = world_leader(), *n = l0 && chance(30) ? l0 : any_node();
	struct simlink *l;
	unsigned k = (unsigned)rnd(LINKS_MAX), i;

	for (i = 0; i < 4 && !(W->kinds & 1u << kind); i++)
		kind = (enum chaos)rnd(CHAOS_COUNT);
	if (!n->alive || !(W->kinds & 1u << kind) || (W->gentle && chance(60)))
		return;
	switch (kind) {
	case CHAOS_BREAK:
		for (i = 0; i < LINKS_MAX && W->links[(k + i) % LINKS_MAX].id == 0; i++)
			;
		l = &W->links[(k + i) % LINKS_MAX];
		if (l->id != 0 && !l->cut)
			link_break(l);
		break;
	case CHAOS_KILL:
		crash(n, false);
		break;
	case CHAOS_POWER:
		crash(n, true);
		break;
	case CHAOS_STOP:
		stop_clean(n);
		break;
	case CHAOS_FULL:
		n->full = !n->full;
		break;
	case CHAOS_CLOCK:
		W->skewed = true;
		n->clock_skew += chance(50) ? rnd(3000) : n->clock_skew > 5000 ? (uint64_t)0 - rnd(100) : 0;
		break;
	case CHAOS_PROMOTE:
		by_hand(n);
		break;
	case CHAOS_SWITCH:
		hand_over();
		break;
	case CHAOS_POINT:
		point(n);
		break;
	case CHAOS_HANG:
		hang(n);
		break;
	default:
		if (!node_hangs(n) && node_leads(n) && world_leader() != n)
			demote(n);
	}
}

/* Does following `from` lead back to n? */
static bool in_ring(const struct node *n)
{
	const struct node *at = &W->node[n->from];
	unsigned i;

	for (i = 0; i < W->nodes && !(at->alive && node_leads(at)); i++) {
		if (at == n)
			return true;
		at = &W->node[at->from];
	}
	return at == n || i == W->nodes;
}

static void do_dial(struct node *n)
{
	struct replica_status s;
	unsigned i;

	if (!n->alive)
		return;
	replica_status(n->r, node_now(n), &s);
	if (s.state != REPLICA_DOWN || n->from == n->id || node_leads(n) || n->fence || n->lead || in_ring(n) ||
	    !W->node[n->from].alive)
		return;
	for (i = 0; i < LINKS_MAX; i++)
		if (W->links[i].id != 0 && W->links[i].node[0] == n->id && W->links[i].boot[0] == n->boot && W->links[i].up[0])
			return;
	(void)link_dial(n, &W->node[n->from]);
}

/* The scheduler ---------------------------------------------------------------------------------------------------- */

static void do_link(void)
{
	unsigned i, k = (unsigned)rnd(LINKS_MAX);
	struct node *a;

	for (i = 0; i < LINKS_MAX; i++) {
		struct simlink *l = &W->links[(k + i) % LINKS_MAX];

		if (l->id == 0)
			continue;
		if (l->diff && l->up[1] && !l->cut && chance(40))
			node_diff(l);
		a = &W->node[l->node[0]];
		link_step(l);
		node_watch(a);
		return;
	}
}

static void step(void)
{
	uint64_t what = rnd(100);
	struct node *n = any_node();
	unsigned i;

	W->now += rnd(4) + (chance(2) ? rnd(100) : 0);
	for (i = 0; i < W->nodes; i++)
		if (node_hangs(&W->node[i]) && (W->calm || W->now >= W->node[i].hung_until))
			W->node[i].hung_at = 0;
	if (!n->alive) {
		if (chance(W->calm ? 50 : 6))
			node_start(n);
		return;
	}
	if (what < 40)
		for (i = 0; i < 3; i++)
			do_link();
	else if (what < 52)
		node_todo(n);
	else if (what < 60)
		for (i = 0; i < W->nodes; i++)
			node_disk(&W->node[i]);
	else if (what < 67)
		for (i = 0; i < W->nodes; i++)
			node_sync(&W->node[i]);
	else if (what < 81)
		do_prog(n);
	else if (what < 84)
		for (i = 0; i < W->nodes; i++)
			do_kernel(&W->node[i]);
	else if (what < 86)
		do_marks(world_leader());
	else if (what < 91)
		for (i = 0; i < W->nodes; i++)
			do_dial(&W->node[i]);
	else if (!W->calm)
		do_chaos();
	for (i = 0; i < W->nodes; i++) {
		n = &W->node[i];
		if (!n->alive)
			continue;
		node_watch(n);
		if (chance(8)) {
			node_tick(n);
			check_patience(n);
		}
		if (chance(60))
			node_pump(n);
	}
	if (W->step % 4 == 0)
		watch_live();
	W->did++;
}

/* The end ---------------------------------------------------------------------------------------------------------- */

/* The one that has most of the newest line. */
static struct node *fullest(void)
{
	struct node *best = NULL;
	uint64_t best_epoch = 0;
	unsigned i;

	for (i = 0; i < W->nodes; i++) {
		struct node *n = &W->node[i];
		uint64_t epoch = n->st.n ? n->st.list[n->st.n - 1].epoch : 0;

		if (!best || epoch > best_epoch || (epoch == best_epoch && n->st.n > best->st.n)) {
			best = n;
			best_epoch = epoch;
		}
	}
	return best;
}

/* One primary, everyone follows it, nothing is full. */
static void operate(void)
{
	struct node *l;
	unsigned i;

	/* Who is told to follow another one leaves the link that it has. */
	for (i = 0; i < LINKS_MAX; i++) {
		struct simlink *k = &W->links[i];

		if (k->id != 0 && !k->cut && W->node[k->node[0]].from != k->node[1])
			link_break(k);
	}

	for (i = 0; i < W->nodes; i++) {
		if (!W->node[i].alive)
			return;
		W->node[i].full = false;
		if (W->node[i].lead || W->node[i].hand || W->node[i].fence)
			return;         /* let it get to the disk first */
	}
	l = world_leader();
	if (l) {
		W->no_leader = 0;
	} else {
		/* After a switch-over that was cut off nobody is the primary; who has all of it may be made one without loss. Not
		 * while the one that was to take over may yet hear of it. */
		l = fullest();
		if (++W->no_leader > 20)
			(void)replica_promote(l->r, node_now(l));
		return;
	}
	for (i = 0; i < W->nodes; i++) {
		struct node *n = &W->node[i];

		if (n != l && node_leads(n))
			demote(n);
		n->from = W->chain ? (i + W->nodes - 1) % W->nodes : l->id;
	}
}

static bool settled(void)
{
	struct node *l = world_leader();
	unsigned i, k;

	if (!l)
		return false;
	for (i = 0; i < W->nodes; i++) {
		struct node *n = &W->node[i];

		if (!n->alive || n->st.n != l->st.n || n->promise || n->lead || n->hand || n->fence || n->aside)
			return false;
		if (n->st.n > 0 && n->st.list[n->st.n - 1].uid != l->st.list[l->st.n - 1].uid)
			return false;
		for (k = 0; k < PROGS; k++)
			if (n->progs[k].op != 0)
				return false;
	}
	return true;
}

static void verdict(void)
{
	const struct node *l = world_leader();
	uint64_t id;
	unsigned i;

	for (i = 0; i < W->nodes; i++) {
		const struct node *n = &W->node[i];

		must(memcmp(n->st.list, l->st.list, n->st.n * sizeof n->st.list[0]) == 0, "node %u is not equal to node %u",
		     i, l->id);
		must(memcmp(n->st.s.value, l->st.s.value, sizeof n->st.s.value) == 0, "node %u has other values", i);
	}
	for (id = 1; id < W->next_op; id++) {
		const struct op *o = &W->ops[id];

		if ((unsigned)o->type == 0)
			continue;
		/* With two primaries at once one may refuse what the other, whose line stays, was asked before. */
		must(o->state != OP_ERROR || !l->st.s.has[id] || (W->promoted && o->error != -EROFS), "request %llu was refused (%d), but it is done",
		     (unsigned long long)id, o->error);
		/* Where nothing crashed and nobody was promoted by hand, switch-overs lose nothing at all. */
		must(o->state != OP_OK || W->promoted || W->crashed || l->st.s.has[id], "request %llu was done, and is lost",
		     (unsigned long long)id);
		must(!o->durable || l->st.s.has[id] || (W->promoted && o->reported),
		     "request %llu was on disk by an fsync, and is lost", (unsigned long long)id);
	}
}

static void dump(void)
{
	static const char *const states[] = { "down", "hello", "aside", "diff", "stream", "leading", "leads" };
	unsigned i;

	for (i = 0; i < W->nodes && W->trace; i++) {
		struct node *n = &W->node[i];
		struct replica_status s = { 0 };

		if (n->alive)
			replica_status(n->r, node_now(n), &s);
		sim_trace("node %u: %s, at %u of %llx, durable %u, promised %llx, %s, p %d, open %u, from %u, full %d, pending %llx %llx %llx %llx %d",
			  i, n->alive ? "alive" : "dead", n->st.n, (unsigned long long)s.epoch, n->st.durable,
			  (unsigned long long)n->st.promised, states[s.state], n->alive ? (int)primary_state(n->p) : -1, s.open_calls, n->from,
			  n->full, (unsigned long long)n->promise, (unsigned long long)n->lead, (unsigned long long)n->hand,
			  (unsigned long long)n->fence, n->aside);
	}
}

static void set_up(void)
{
	static const uint32_t replicas[] = { 0, 0, 1, 2, 3, PRIMARY_SYNC_ALL };
	unsigned i;

	W->rng = W->seed * 0x2545f4914f6cdd1du;
	W->next_op = W->next_uid = 1;
	W->nodes = chance(40) ? 2 : 2 + (unsigned)rnd(NODES_MAX - 1);
	W->lazy = chance(40);
	W->sync_replicas = replicas[rnd(ARRAY_LEN(replicas))];
	if (W->sync_replicas != PRIMARY_SYNC_ALL && W->sync_replicas >= W->nodes)
		W->sync_replicas = W->nodes - 1;
	W->wait_ms = 100 + (uint32_t)rnd(400);
	if (W->kinds == 0) {
		/* Half of the seeds without promotions by hand: there nothing that was on disk may be lost. */
		W->kinds = (unsigned)rnd(1u << CHAOS_COUNT) | 1u << CHAOS_BREAK;
		if (chance(50))
			W->kinds &= ~(1u << CHAOS_PROMOTE);
		/* And a third where links live long, relays too, and little else happens but switch-overs or restarts. */
		if (chance(33)) {
			W->gentle = true;
			W->lazy = false;
			W->kinds = 1u << CHAOS_BREAK | (chance(60) ? 1u << CHAOS_SWITCH : 1u << CHAOS_KILL);
			/* Some of them a chain, each node fed by the one before it. */
			W->chain = chance(50);
			if (W->chain && W->nodes == 2)
				W->nodes = 3;
		}
	}
	for (i = 0; i < W->nodes; i++) {
		struct node *n = &W->node[i];

		n->id = i;
		n->version = chance(25) ? 2 : 1;
		n->from = i == 0 ? 0 : W->chain ? i - 1 : chance(70) ? 0 : (unsigned)rnd(i);
		n->st.primary = i == 0;
		node_start(n);
	}
}

/* True: nothing was found. */
bool world_run(struct world *w)
{
	W = w;
	if (setjmp(w->failed) != 0) {
		dump();
		return false;
	}
	set_up();
	for (w->step = 1; w->step <= w->steps; w->step++) {
		w->rng = (w->seed * 0x9e3779b97f4a7c15u) ^ (w->step * 0xd1342543de82ef95u);
		if (!w->skip || !w->skip[w->step])
			step();
	}
	w->calm = true;
	for (; w->step <= w->steps + 12000; w->step++) {
		w->rng = (w->seed * 0x9e3779b97f4a7c15u) ^ (w->step * 0xd1342543de82ef95u);
		if (w->step % 64 == 0)
			operate();
		step();
		if (w->step % 16 == 0 && settled())
			break;
	}
	must(settled(), "nothing breaks any more, but the nodes do not become equal, or somebody waits");
	verdict();
	return true;
}
