/* SPDX-License-Identifier: MIT
 *
 * model: the store of a simulated node: a list of changes, what they make, and how many of them are on disk. What must
 * hold of every list is checked whenever something is added to one.
 */
#include "tests/sim/sim.h"

static unsigned client_at(struct state *s, uint64_t id)
{
	unsigned i;

	for (i = 0; i < s->client_count; i++)
		if (s->clients[i].id == id)
			return i;
	must(s->client_count < CLIENTS, "the model has room for %u clients", CLIENTS);
	memset(&s->clients[i], 0, sizeof s->clients[i]);
	s->clients[i].id = id;
	s->client_count++;
	return i;
}

const struct slot *store_slot(const struct store *st, uint64_t client, uint64_t request)
{
	unsigned i;

	for (i = 0; i < st->s.client_count; i++)
		if (st->s.clients[i].id == client && st->s.clients[i].slots[request % MSG_WINDOW].request == request)
			return &st->s.clients[i].slots[request % MSG_WINDOW];
	return NULL;
}

static void put_history(struct history *h, const struct change *c)
{
	struct history_entry *e;

	if (h->count == MSG_HISTORY_MAX) {
		memmove(h->at, h->at + 1, (MSG_HISTORY_MAX - 1) * sizeof h->at[0]);
		h->count--;
	}
	e = &h->at[h->count++];
	*e = (struct history_entry){ c->epoch, c->seq, c->nonce, { 0 } };
	put_le64(e->store, c->store);
}

static void apply(struct state *s, const struct change *c)
{
	unsigned i;

	switch ((enum change_type)c->type) {
	case CHANGE_EPOCH:
		put_history(&s->history, c);
		break;
	case CHANGE_CREATE:
		s->ino[c->key] = c->ino;
		s->value[c->key] = c->op;
		break;
	case CHANGE_PUT:
		s->value[c->key] = c->op;
		break;
	case CHANGE_DELETE:
		s->ino[c->key] = 0;
		s->orphans[s->orphan_count].ino = c->ino;
		s->orphans[s->orphan_count].seq = c->seq;
		s->orphans[s->orphan_count++].marked = false;
		break;
	case CHANGE_MARK:
		for (i = 0; i < s->orphan_count; i++)
			if (s->orphans[i].ino == c->key)
				s->orphans[i].marked = true;
		break;
	}
	if (c->client != 0)
		s->clients[client_at(s, c->client)].slots[c->request % MSG_WINDOW] =
			(struct slot){ c->request, c->seq, c->ino };
	s->has[c->op] = 1;
	s->history.last = c->seq;
}

void store_rebuild(struct store *st)
{
	unsigned i;

	memset(&st->s, 0, sizeof st->s);
	for (i = 0; i < st->n; i++)
		apply(&st->s, &st->list[i]);
}

void store_add(struct node *n, const struct change *c)
{
	struct store *st = &n->st;
	uint64_t last = st->n ? st->list[st->n - 1].uid : 0, epoch = st->n ? st->list[st->n - 1].epoch : 0;

	must(st->n < LIST_MAX, "the model has room for %u changes", LIST_MAX);
	must(c->seq == st->n + 1, "node %u: change %llu behind %u", n->id, (unsigned long long)c->seq, st->n);
	/* The prefix property: what is before a change is the same wherever it is. */
	must(c->parent == last && W->parent_of[c->uid] == c->parent,
	     "node %u: change %llu (uid %llu) belongs behind uid %llu, the node has uid %llu", n->id,
	     (unsigned long long)c->seq, (unsigned long long)c->uid, (unsigned long long)c->parent, (unsigned long long)last);
	must(c->epoch >= epoch && (c->epoch == epoch) == (c->type != CHANGE_EPOCH),
	     "node %u: change %llu of epoch %llx behind epoch %llx", n->id, (unsigned long long)c->seq,
	     (unsigned long long)c->epoch, (unsigned long long)epoch);
	must(c->op == 0 || !st->s.has[c->op], "node %u: request %llu is done twice", n->id, (unsigned long long)c->op);
	st->list[st->n++] = *c;
	st->clean = false;
	apply(&st->s, c);
	st->s.has[0] = 0;
}

struct change store_make(struct node *n, enum change_type type, uint64_t epoch)
{
	struct store *st = &n->st;
	struct change c = { .seq = st->n + 1, .epoch = epoch, .type = type };

	must(W->next_uid < UID_MAX, "the model has room for %u changes in all", UID_MAX);
	c.uid = W->next_uid++;
	c.parent = st->n ? st->list[st->n - 1].uid : 0;
	W->parent_of[c.uid] = c.parent;
	return c;
}

void store_cut(struct node *n, unsigned keep)
{
	n->st.n = keep;
	store_rebuild(&n->st);
}

void change_put(uint8_t *to, const struct change *c)
{
	const uint64_t v[] = { c->seq, c->epoch, c->uid, c->parent, c->type, c->key, c->op, c->ino, c->client, c->request,
			       c->nonce, c->store };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(v); i++)
		put_le64(to + 8 * i, v[i]);
}

void change_get(const uint8_t *from, struct change *c)
{
	uint64_t *v[] = { &c->seq, &c->epoch, &c->uid, &c->parent, &c->type, &c->key, &c->op, &c->ino, &c->client,
			  &c->request, &c->nonce, &c->store };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(v); i++)
		*v[i] = get_le64(from + 8 * i);
}
