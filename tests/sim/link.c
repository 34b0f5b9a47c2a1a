/* SPDX-License-Identifier: MIT
 *
 * link: frames between two nodes. In order on one link; links know nothing of each other, so frames of an old one may be
 * delivered beside those of a new one. What breaks is noticed by each end at a time of its own; until then an end may
 * send into nothing.
 */
#include "tests/sim/sim.h"

struct simlink *link_find(link_t id)
{
	unsigned i;

	for (i = 0; i < LINKS_MAX; i++)
		if (id != 0 && W->links[i].id == id)
			return &W->links[i];
	return NULL;
}

static struct node *end_node(const struct simlink *l, unsigned end)
{
	return &W->node[l->node[end]];
}

/* The node at this end still is the one that had the link. */
static bool end_lives(const struct simlink *l, unsigned end)
{
	const struct node *n = end_node(l, end);

	return n->alive && n->boot == l->boot[end];
}

static void drop(struct queue *q)
{
	unsigned i;

	for (i = 0; i < q->count; i++)
		free(q->at[i].bytes);
	q->count = 0;
}

static struct frame take_first(struct queue *q)
{
	struct frame f = q->at[0];

	q->count--;
	memmove(q->at, q->at + 1, q->count * sizeof q->at[0]);
	return f;
}

static void put_back(struct queue *q, const struct frame *f)
{
	memmove(q->at + 1, q->at, q->count * sizeof q->at[0]);
	q->at[0] = *f;
	q->count++;
}

static void release(struct simlink *l)
{
	drop(&l->q[0]);
	drop(&l->q[1]);
	memset(l, 0, sizeof *l);
}

void link_release_all(void)
{
	unsigned i;

	for (i = 0; i < LINKS_MAX; i++)
		if (W->links[i].id != 0)
			release(&W->links[i]);
}

bool link_dial(struct node *n, struct node *to)
{
	unsigned i;

	for (i = 0; i < LINKS_MAX; i++) {
		struct simlink *l = &W->links[i];

		if (l->id != 0)
			continue;
		l->id = ++W->next_link;
		l->node[0] = n->id;
		l->node[1] = to->id;
		l->boot[0] = n->boot;
		l->boot[1] = to->boot;
		l->up[0] = l->up[1] = true;
		sim_trace("link %llu: node %u dials node %u", (unsigned long long)l->id, n->id, to->id);
		return true;
	}
	return false;
}

int link_send(link_t id, unsigned end, unsigned type, const void *head, uint32_t head_len, const void *body, uint32_t body_len)
{
	struct simlink *l = link_find(id);
	struct queue *q;
	struct frame *f;

	if (!l || !l->up[end])
		return -ENOTCONN;
	if (l->cut || !l->up[!end])
		return 0;               /* into nothing */
	q = &l->q[!end];
	/* Farewells fit always, as they do on a real link. */
	if (q->count >= QUEUE_MAX && type != MSG_FENCED && type != MSG_WELCOME) {
		q->full = true;
		return -EAGAIN;
	}
	if (q->count == ARRAY_LEN(q->at))
		return -EAGAIN;
	f = &q->at[q->count++];
	f->type = type;
	f->len = head_len + body_len;
	f->bytes = malloc(f->len > 0 ? f->len : 1);
	if (!f->bytes)
		abort();
	if (head_len > 0)
		memcpy(f->bytes, head, head_len);
	if (body_len > 0)
		memcpy(f->bytes + head_len, body, body_len);
	return 0;
}

/* An end goes: what it had sent still arrives, then the other end notices. */
void link_close(link_t id, unsigned end)
{
	struct simlink *l = link_find(id);

	if (!l)
		return;
	l->up[end] = false;
	drop(&l->q[end]);
}

void link_break(struct simlink *l)
{
	sim_trace("link %llu breaks", (unsigned long long)l->id);
	l->cut = true;
	drop(&l->q[0]);
	drop(&l->q[1]);
}

void link_end_of(struct node *n)
{
	unsigned i, end;

	for (i = 0; i < LINKS_MAX; i++)
		for (end = 0; end < 2; end++) {
			struct simlink *l = &W->links[i];

			if (l->id == 0 || l->node[end] != n->id || !l->up[end])
				continue;
			l->up[end] = false;
			drop(&l->q[end]);
			/* A process that dies leaves some of what it sent. */
			while (l->q[!end].count > 0 && chance(50)) {
				free(l->q[!end].at[l->q[!end].count - 1].bytes);
				l->q[!end].count--;
			}
		}
}

/* The engine is done with this link, by its own will. */
static void end_closed(struct simlink *l, unsigned end)
{
	struct node *n = end_node(l, end);
	link_t id = l->id;

	if (!l->up[end])
		return;
	link_close(id, end);
	if (!l->opened[end])
		return;
	if (end == 0)
		replica_closed(n->r, id, node_now(n));
	else
		primary_closed(n->p, id, node_now(n));
}

static void open_end(struct simlink *l, unsigned end)
{
	struct node *n = end_node(l, end);
	int r;

	l->opened[end] = true;
	if (end == 0)
		r = replica_opened(n->r, l->id, node_now(n));
	else
		r = primary_opened(n->p, l->id, 0, node_now(n));
	if (r < 0) {
		l->opened[end] = false;
		link_close(l->id, end);
	}
}

/* (P1) The highest epoch that the frame speaks of. */
static uint64_t epoch_in(const struct frame *f)
{
	struct msg_hello h;

	if (f->type == MSG_HELLO)
		return msg_get_hello(f->bytes, f->len, &h) == 0 ? h.promised : 0;
	return msg_is_diff(f->type) || f->len < 8 ? 0 : get_le64(f->bytes);
}

static void deliver(struct simlink *l, unsigned end)
{
	struct node *n = end_node(l, end);
	struct queue *q = &l->q[end];
	struct frame f = take_first(q);
	link_t id = l->id;
	int r;

	sim_trace("link %llu: frame %x, %u bytes, to node %u", (unsigned long long)id, f.type, f.len, n->id);
	if (end == 0)
		r = replica_frame(n->r, id, f.type, f.bytes, f.len, node_now(n));
	else
		r = primary_frame(n->p, id, f.type, f.bytes, f.len, node_now(n));
	must(end == 0 || !node_leads(n) || epoch_in(&f) <= primary_epoch(n->p),
	     "node %u has heard of epoch %llx, and leads in epoch %llx", n->id, (unsigned long long)epoch_in(&f),
	     (unsigned long long)primary_epoch(n->p));
	if (r == -EAGAIN && l->up[end]) {
		put_back(q, &f);
		return;
	}
	free(f.bytes);
	if (!l->up[end])
		return;
	if (r == -EOPNOTSUPP && f.type == MSG_UNKNOWN)
		r = 0;                  /* it does not carry WIRE_MUST */
	if (r < 0) {
		sim_trace("node %u drops link %llu: %s", n->id, (unsigned long long)id, err_last());
		must(r != -EPROTO, "node %u: %s", n->id, err_last());
		end_closed(l, end);
		return;
	}
	if (q->full && q->count <= QUEUE_MAX / 2) {
		q->full = false;
		if (l->up[!end] && end_lives(l, !end)) {
			if (end == 0)
				primary_writable(end_node(l, 1)->p, id);
			else
				replica_writable(end_node(l, 0)->r, id);
		}
	}
}

void link_step(struct simlink *l)
{
	unsigned end = (unsigned)rnd(2);

	if (!l->up[0] && !l->up[1]) {
		release(l);
		return;
	}
	if (!l->up[end])
		return;
	/* What is for its request thread waits. */
	if (end == 0 && node_hangs(end_node(l, 0)))
		return;
	if (!l->opened[end] && !l->cut && l->up[!end]) {
		open_end(l, end);
		return;
	}
	if (l->opened[end] && l->q[end].count > 0) {
		deliver(l, end);
		return;
	}
	/* Nothing more will come: sooner or later it is noticed. */
	if ((l->cut && chance(W->calm ? 60 : 20)) || (!l->cut && !l->up[!end] && chance(50))) {
		sim_trace("link %llu: node %u notices its end", (unsigned long long)l->id, l->node[end]);
		end_closed(l, end);
	}
}
