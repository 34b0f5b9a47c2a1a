/* SPDX-License-Identifier: MIT
 *
 * locks: see locks.h.
 */
#include "core/replica/locks.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define FILE_BUCKETS   4096u
#define CLIENT_BUCKETS 256u

/* Held, or waiting. */
struct lock {
	struct lock *next;              /* of its file: held in any order, waiting by age */
	struct lock *client_next, **client_at;
	struct lock_client *client;
	struct lock_file *file;
	struct lock_op op;
	uint64_t epoch, counter;        /* held */
	uint64_t mark;                  /* waiting: seen in this search for a circle */
	uint64_t probe;                 /* waiting, of who does not want to: (L5); 0: nobody was asked yet */
	struct lock *stack;             /* in that search */
};

struct lock_client {
	struct lock_client *next;
	uint64_t id, round;
	struct lock *held, *waiting;
	unsigned held_count, waiting_count;
	bool probes;                    /* (L5) it can be asked */
	uint64_t probe_asked, probe_told;
	char name[LOCKS_NAME_MAX + 1];
};

struct lock_file {
	struct lock_file *next;
	uint64_t ino;
	struct lock *held, *waiting;
};

struct locks {
	lock_answer_fn *answer;
	lock_probe_fn *probe_fn;
	void *ctx;
	uint64_t epoch, counter, mark, probe;
	bool grace;
	unsigned held_count, waiting_count, nowait_count;
	struct lock_file *files[FILE_BUCKETS];
	struct lock_client *clients[CLIENT_BUCKETS];
};

static unsigned hash(uint64_t n, unsigned buckets)
{
	return (unsigned)((n * 0x9e3779b97f4a7c15u) >> 40) % buckets;
}

/* Clients and files ------------------------------------------------------------------------------------------------ */

static struct lock_client *find_client(const struct locks *t, uint64_t id)
{
	struct lock_client *c = t->clients[hash(id, CLIENT_BUCKETS)];

	while (c && c->id != id)
		c = c->next;
	return c;
}

static struct lock_client *get_client(struct locks *t, uint64_t id)
{
	struct lock_client *c = find_client(t, id);

	if (c)
		return c;
	c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->id = id;
	c->next = t->clients[hash(id, CLIENT_BUCKETS)];
	t->clients[hash(id, CLIENT_BUCKETS)] = c;
	return c;
}

static struct lock_file *find_file(const struct locks *t, uint64_t ino)
{
	struct lock_file *f = t->files[hash(ino, FILE_BUCKETS)];

	while (f && f->ino != ino)
		f = f->next;
	return f;
}

static struct lock_file *get_file(struct locks *t, uint64_t ino)
{
	struct lock_file *f = find_file(t, ino);

	if (f)
		return f;
	f = calloc(1, sizeof *f);
	if (!f)
		return NULL;
	f->ino = ino;
	f->next = t->files[hash(ino, FILE_BUCKETS)];
	t->files[hash(ino, FILE_BUCKETS)] = f;
	return f;
}

/* Free it if nobody has or wants anything of it. */
static void put_file(struct locks *t, struct lock_file *f)
{
	struct lock_file **at;

	if (f->held || f->waiting)
		return;
	for (at = &t->files[hash(f->ino, FILE_BUCKETS)]; *at != f; at = &(*at)->next)
		;
	*at = f->next;
	free(f);
}

static void link_client(struct lock **list, struct lock *l)
{
	l->client_next = *list;
	l->client_at = list;
	if (*list)
		(*list)->client_at = &l->client_next;
	*list = l;
}

static void unlink_client(struct lock *l)
{
	*l->client_at = l->client_next;
	if (l->client_next)
		l->client_next->client_at = l->client_at;
}

static void add_held(struct locks *t, struct lock_client *c, struct lock_file *f, struct lock *l)
{
	l->client = c;
	l->file = f;
	l->next = f->held;
	f->held = l;
	link_client(&c->held, l);
	c->held_count++;
	t->held_count++;
}

static void drop_held(struct locks *t, struct lock **at)
{
	struct lock *l = *at;

	*at = l->next;
	unlink_client(l);
	l->client->held_count--;
	t->held_count--;
	free(l);
}

/* Out of the queue; it is the caller's then. */
static struct lock *take_waiting(struct locks *t, struct lock **at)
{
	struct lock *l = *at;

	check(l != NULL);
	*at = l->next;
	unlink_client(l);
	l->client->waiting_count--;
	t->waiting_count--;
	t->nowait_count -= !l->op.wait;
	return l;
}

/* What is in the way ----------------------------------------------------------------------------------------------- */

static bool same_owner(const struct lock *l, const struct lock_client *c, const struct lock_op *op)
{
	return l->client == c && l->op.owner == op->owner && l->op.kind == op->kind;
}

static bool overlap(const struct lock_op *a, const struct lock_op *b)
{
	return a->start <= b->end && b->start <= a->end;
}

/* Could the two not be held together by two owners? */
static bool excludes(const struct lock_op *a, const struct lock_op *b)
{
	return a->kind == b->kind && (a->type == LOCKS_EXCLUSIVE || b->type == LOCKS_EXCLUSIVE) && overlap(a, b);
}

static bool in_way(const struct lock *l, const struct lock_client *c, const struct lock_op *op)
{
	return !same_owner(l, c, op) && excludes(&l->op, op);
}

static struct lock *find_conflict(const struct lock_file *f, const struct lock_client *c, const struct lock_op *op)
{
	struct lock *l = f->held;

	while (l && !in_way(l, c, op))
		l = l->next;
	return l;
}

static bool process_holds(const struct lock_client *c, const struct lock_op *op)
{
	const struct lock *l = c->held;

	while (l && l->op.owner != op->owner && l->op.pid != op->pid)
		l = l->client_next;
	return l != NULL;
}

/* (L2) Is it somebody else's turn? `before`: it is in the queue itself; else all who wait came earlier. */
static bool must_queue(const struct lock_file *f, const struct lock *before, const struct lock_client *c,
		       const struct lock_op *op)
{
	const struct lock *l;

	for (l = f->waiting; l && l != before; l = l->next)
		if (in_way(l, c, op))
			return !process_holds(c, op);
	return false;
}

/* Changing what an owner has --------------------------------------------------------------------------------------- */

/* Does one of its locks get a hole? Then one more is needed. */
static bool splits(const struct lock *l, const struct lock_op *op)
{
	return l->op.start < op->start && l->op.end > op->end && l->op.type != op->type;
}

/* Is it one lock with what is new? */
static bool joins(const struct lock *l, const struct lock_op *op)
{
	if (l->op.type != op->type || l->op.handle != op->handle)
		return false;
	return overlap(&l->op, op) || (op->start > 0 && l->op.end == op->start - 1) ||
	       (l->op.start > 0 && op->end == l->op.start - 1);
}

/* Cut the range of op out of the lock; true: nothing is left of it. */
static bool cut_out(struct locks *t, struct lock *l, const struct lock_op *op, struct lock **spare)
{
	if (l->op.start < op->start && l->op.end > op->end) {
		struct lock *right = *spare;

		check(right != NULL);
		*spare = NULL;
		right->op = l->op;
		right->op.start = op->end + 1;
		right->epoch = l->epoch;
		right->counter = l->counter;
		l->op.end = op->start - 1;
		add_held(t, l->client, l->file, right);
		return false;
	}
	if (l->op.start < op->start)
		l->op.end = op->start - 1;
	else if (l->op.end > op->end)
		l->op.start = op->end + 1;
	else
		return true;
	return false;
}

/* The owner's locks become what the operation says; conflicts were looked at. 0; -ENOLCK: nothing has changed. */
static int apply(struct locks *t, struct lock_client *c, struct lock_file *f, const struct lock_op *asked, uint64_t epoch,
		 uint64_t counter)
{
	struct lock_op op = *asked;
	struct lock *fresh = NULL, *spare = NULL, **at, *l;
	unsigned need = op.type != LOCKS_OFF, hole = 0;

	for (l = f->held; l; l = l->next)
		hole |= same_owner(l, c, &op) && splits(l, &op);
	need += hole;
	if (need > 0 && (c->held_count + need > LOCKS_CLIENT_MAX || t->held_count + t->waiting_count + need > LOCKS_MAX))
		return -ENOLCK;
	if (op.type != LOCKS_OFF && !(fresh = calloc(1, sizeof *fresh)))
		return -ENOLCK;
	if (hole && !(spare = calloc(1, sizeof *spare))) {
		free(fresh);
		return -ENOLCK;
	}
	for (at = &f->held; (l = *at) != NULL;) {
		if (same_owner(l, c, &op) && op.type != LOCKS_OFF && joins(l, &op)) {
			op.start = min_u64(op.start, l->op.start);
			op.end = max_u64(op.end, l->op.end);
			drop_held(t, at);
		} else if (same_owner(l, c, &op) && overlap(&l->op, &op) && cut_out(t, l, &op, &spare)) {
			drop_held(t, at);
		} else {
			at = &l->next;
		}
	}
	free(spare);
	if (fresh) {
		fresh->op = op;
		fresh->epoch = epoch;
		fresh->counter = counter;
		add_held(t, c, f, fresh);
	}
	return 0;
}

/* Answers ---------------------------------------------------------------------------------------------------------- */

static void answer(struct locks *t, uint64_t client, const struct lock_op *op, int error, uint64_t counter)
{
	const struct lock_client *c = find_client(t, client);
	const struct lock_answer a = {
		.client = client, .round = c ? c->round : 0, .ticket = op->ticket, .error = error, .kind = op->kind,
		.type = op->type, .pid = op->pid, .ino = op->ino, .owner = op->owner, .start = op->start, .end = op->end,
		.epoch = counter ? t->epoch : 0, .counter = counter,
	};

	t->answer(t->ctx, &a);
}

static void grant(struct locks *t, struct lock_client *c, struct lock_file *f, const struct lock_op *op)
{
	int r = apply(t, c, f, op, t->epoch, t->counter + 1);

	if (r == 0)
		t->counter++;
	answer(t, c->id, op, r, r == 0 ? t->counter : 0);
}

/* (L5) Can anybody be asked whether what is in the way of op is given up already? */
static bool may_ask(const struct lock_file *f, const struct lock_client *c, const struct lock_op *op)
{
	const struct lock *l = f->held;

	while (l && !(in_way(l, c, op) && l->client->probes))
		l = l->next;
	return l != NULL;
}

/* (L5) May what is in the way of this one, which does not want to wait, be given up already? Who has it is asked, once. Whoever got
 * it later really has it. */
static bool is_unsure(struct locks *t, struct lock *w)
{
	bool first = w->probe == 0, unsure = false;
	struct lock *l;

	if (first)
		w->probe = ++t->probe;
	for (l = w->file->held; l; l = l->next) {
		struct lock_client *c = l->client;

		if (!c->probes || !in_way(l, w->client, &w->op))
			continue;
		if (first && c->probe_asked != w->probe) {
			c->probe_asked = w->probe;
			t->probe_fn(t->ctx, c->id, c->round, w->probe);
		}
		unsure |= c->probe_asked >= w->probe && c->probe_told < w->probe;
	}
	return unsure;
}

/* Something of the file became free, or is known: whose turn is it? */
static void wake(struct locks *t, struct lock_file *f)
{
	struct lock **at = &f->waiting, *l;

	if (t->grace)
		return;
	while ((l = *at) != NULL) {
		bool blocked = find_conflict(f, l->client, &l->op) != NULL;

		if (blocked && (l->op.wait || is_unsure(t, l))) {
			at = &l->next;
			continue;
		}
		if (!blocked && l->op.wait && must_queue(f, l, l->client, &l->op)) {
			at = &l->next;
			continue;
		}
		l = take_waiting(t, at);
		if (blocked) {
			answer(t, l->client->id, &l->op, -EAGAIN, 0);
		} else {
			grant(t, l->client, f, &l->op);
			/* It may have given up more than it got (an exclusive lock made shared): the others may go now. */
			at = &f->waiting;
		}
		free(l);
	}
}

/* Circles ---------------------------------------------------------------------------------------------------------- */

/* Whoever is in the way of op: what do they wait for? True: for the owner that is looked for. */
static bool push_blockers(struct locks *t, struct lock **stack, const struct lock_file *f, const struct lock_client *c,
			  const struct lock_op *op, const struct lock_client *want, const struct lock_op *want_op)
{
	struct lock *held, *w;

	for (held = f->held; held; held = held->next) {
		if (!in_way(held, c, op))
			continue;
		if (same_owner(held, want, want_op))
			return true;
		for (w = held->client->waiting; w; w = w->client_next) {
			/* Who does not want to wait goes on soon. */
			if (w->op.owner != held->op.owner || w->op.kind != LOCKS_POSIX || w->mark == t->mark || !w->op.wait)
				continue;
			w->mark = t->mark;
			w->stack = *stack;
			*stack = w;
		}
	}
	return false;
}

/* Would it wait for itself? Each waiter is looked at once. */
static bool makes_circle(struct locks *t, const struct lock_file *f, const struct lock_client *c, const struct lock_op *op)
{
	struct lock *stack = NULL, *w;

	if (op->kind != LOCKS_POSIX)
		return false;
	t->mark++;
	if (push_blockers(t, &stack, f, c, op, c, op))
		return true;
	while ((w = stack) != NULL) {
		stack = w->stack;
		if (push_blockers(t, &stack, w->file, w->client, &w->op, c, op))
			return true;
	}
	return false;
}

/* Requests --------------------------------------------------------------------------------------------------------- */

static int enqueue(struct locks *t, struct lock_client *c, struct lock_file *f, const struct lock_op *op)
{
	struct lock **at, *l;

	if (c->waiting_count >= LOCKS_WAIT_MAX || t->held_count + t->waiting_count >= LOCKS_MAX)
		return -ENOLCK;
	l = calloc(1, sizeof *l);
	if (!l)
		return -ENOLCK;
	l->op = *op;
	l->client = c;
	l->file = f;
	for (at = &f->waiting; *at; at = &(*at)->next)
		;
	*at = l;
	link_client(&c->waiting, l);
	c->waiting_count++;
	t->waiting_count++;
	t->nowait_count += !op->wait;
	return 0;
}

/* (L3) Was it asked for already? True: then there is nothing to do. */
static bool asked_before(struct locks *t, const struct lock_client *c, const struct lock_file *f, const struct lock_op *op)
{
	const struct lock *l;

	for (l = f->waiting; l; l = l->next)
		if (l->client == c && l->op.ticket == op->ticket)
			return true;
	for (l = f->held; l; l = l->next)
		if (same_owner(l, c, op) && l->op.ticket == op->ticket && l->op.type == op->type &&
		    l->op.start <= op->start && l->op.end >= op->end) {
			answer(t, c->id, op, 0, l->epoch == t->epoch ? l->counter : t->counter);
			return true;
		}
	return false;
}

/* As flock(2) does: who waits for another type gives up what it has first, else two who change shared into exclusive wait for
 * each other. */
static void give_up_flock(struct locks *t, struct lock_client *c, struct lock_file *f, const struct lock_op *op)
{
	struct lock_op off = *op;

	off.type = LOCKS_OFF;
	if (op->kind == LOCKS_FLOCK && op->wait)
		(void)apply(t, c, f, &off, 0, 0);
}

static void request_lock(struct locks *t, struct lock_client *c, struct lock_file *f, const struct lock_op *op)
{
	int r;

	if (asked_before(t, c, f, op))
		return;
	if (!t->grace) {
		bool blocked = find_conflict(f, c, op) != NULL;

		if (!blocked && (!op->wait || !must_queue(f, NULL, c, op))) {
			grant(t, c, f, op);
			wake(t, f);
			return;
		}
		if (op->wait ? blocked && makes_circle(t, f, c, op) : !may_ask(f, c, op)) {
			answer(t, c->id, op, op->wait ? -EDEADLK : -EAGAIN, 0);
			return;
		}
	}
	r = enqueue(t, c, f, op);
	if (r < 0) {
		answer(t, c->id, op, op->wait || t->grace ? r : -EAGAIN, 0);
		return;
	}
	if (!t->grace) {
		give_up_flock(t, c, f, op);
		wake(t, f);
	}
}

void locks_request(struct locks *t, uint64_t client, const struct lock_op *op)
{
	struct lock_client *c = NULL;
	struct lock_file *f = NULL;
	int r;

	if (!lock_op_fits(op)) {
		answer(t, client, op, -EINVAL, 0);
		return;
	}
	/* Who unlocks what it does not have needs no memory. */
	if (op->type == LOCKS_OFF && (!(c = find_client(t, client)) || !(f = find_file(t, op->ino)))) {
		answer(t, client, op, 0, 0);
		return;
	}
	c = c ? c : get_client(t, client);
	f = f ? f : c ? get_file(t, op->ino) : NULL;
	if (!f) {
		answer(t, client, op, -ENOLCK, 0);
		return;
	}
	if (op->type == LOCKS_OFF) {
		r = apply(t, c, f, op, 0, 0);
		answer(t, client, op, r, 0);
		wake(t, f);
	} else {
		request_lock(t, c, f, op);
	}
	put_file(t, f);
}

void locks_query(struct locks *t, uint64_t client, const struct lock_op *op)
{
	const struct lock_client *c = find_client(t, client);
	const struct lock_file *f = lock_op_fits(op) && op->type != LOCKS_OFF ? find_file(t, op->ino) : NULL;
	const struct lock *l = f ? find_conflict(f, c, op) : NULL;
	struct lock_answer a = {
		.client = client, .round = c ? c->round : 0, .ticket = op->ticket, .kind = op->kind, .type = LOCKS_OFF,
		.ino = op->ino, .owner = op->owner, .start = op->start, .end = op->end,
	};

	if (!lock_op_fits(op) || op->type == LOCKS_OFF)
		a.error = -EINVAL;
	if (l) {
		a.type = l->op.type;
		a.start = l->op.start;
		a.end = l->op.end;
		a.pid = l->op.pid;
		a.holder = l->client->id;
	}
	t->answer(t->ctx, &a);
}

static struct lock *find_waiting(const struct lock_client *c, uint64_t ticket)
{
	struct lock *l = c ? c->waiting : NULL;

	while (l && l->op.ticket != ticket)
		l = l->client_next;
	return l;
}

void locks_cancel(struct locks *t, uint64_t client, uint64_t ticket)
{
	struct lock *l = find_waiting(find_client(t, client), ticket), **at;
	struct lock_file *f;

	if (!l)
		return;
	f = l->file;
	for (at = &f->waiting; *at != l; at = &(*at)->next)
		;
	(void)take_waiting(t, at);
	answer(t, client, &l->op, -EINTR, 0);
	free(l);
	/* Who stood behind it may go. */
	wake(t, f);
	put_file(t, f);
}

/* Clients that come and go ----------------------------------------------------------------------------------------- */

/* Forget what it waits for, or holds, without an answer. */
static void drop_of(struct locks *t, const struct lock_client *c, bool held, bool wakes)
{
	struct lock *l;

	while ((l = held ? c->held : c->waiting) != NULL) {
		struct lock_file *f = l->file;
		struct lock **at = held ? &f->held : &f->waiting;

		while (*at)
			if ((*at)->client != c)
				at = &(*at)->next;
			else if (held)
				drop_held(t, at);
			else
				free(take_waiting(t, at));
		check((held ? c->held : c->waiting) != l);
		if (wakes)
			wake(t, f);
		put_file(t, f);
	}
}

static void free_client(struct locks *t, struct lock_client *c)
{
	struct lock_client **at;

	for (at = &t->clients[hash(c->id, CLIENT_BUCKETS)]; *at != c; at = &(*at)->next)
		;
	*at = c->next;
	free(c);
}


void locks_expire(struct locks *t, uint64_t client)
{
	struct lock_client *c = find_client(t, client);

	if (!c)
		return;
	/* First what it waits for: it is to get nothing more. */
	drop_of(t, c, false, true);
	drop_of(t, c, true, true);
	free_client(t, c);
}

void locks_follow(struct locks *t, uint64_t client)
{
	struct lock_client *c, *next;
	unsigned i;

	t->grace = false;
	for (i = 0; i < CLIENT_BUCKETS; i++)
		for (c = t->clients[i]; c; c = next) {
			next = c->next;
			drop_of(t, c, false, false);
			c->probes = false;
			if (c->id == client)
				continue;
			drop_of(t, c, true, false);
			free_client(t, c);
		}
}

static void wake_all(struct locks *t)
{
	struct lock_file *f, *next;
	unsigned i;

	for (i = 0; i < FILE_BUCKETS; i++)
		for (f = t->files[i]; f; f = next) {
			next = f->next;
			wake(t, f);
			put_file(t, f);
		}
}

void locks_leave(struct locks *t, uint64_t client)
{
	struct lock_client *c = find_client(t, client);

	if (!c)
		return;
	drop_of(t, c, false, true);
	if (!c->probes)
		return;
	c->probes = false;
	wake_all(t);
}

void locks_lead(struct locks *t, uint64_t epoch, uint64_t counter, bool grace)
{
	t->epoch = epoch;
	t->counter = counter;
	/* An answer to another primary is for none of ours. */
	t->probe = max_u64(t->probe, counter);
	t->grace = grace;
}

void locks_probes(struct locks *t, uint64_t client, uint64_t round)
{
	struct lock_client *c = find_client(t, client);

	if (c && c->round == round)
		c->probes = true;
}

void locks_probed(struct locks *t, uint64_t client, uint64_t number)
{
	struct lock_client *c = find_client(t, client);

	if (!c || number > c->probe_asked || number <= c->probe_told)
		return;
	c->probe_told = number;
	if (t->nowait_count > 0)
		wake_all(t);
}

uint64_t locks_probing(const struct locks *t)
{
	return t->nowait_count > 0 && !t->grace ? t->probe : 0;
}

void locks_probe_end(struct locks *t, uint64_t number)
{
	struct lock_client *c;
	unsigned i;

	for (i = 0; i < CLIENT_BUCKETS; i++)
		for (c = t->clients[i]; c; c = c->next)
			c->probe_told = max_u64(c->probe_told, min_u64(number, c->probe_asked));
	wake_all(t);
}

void locks_grace_end(struct locks *t)
{
	struct lock_file *f;
	struct lock *l;
	unsigned i;

	if (!t->grace)
		return;
	t->grace = false;
	for (i = 0; i < FILE_BUCKETS; i++)
		for (f = t->files[i]; f; f = f->next)
			for (l = f->waiting; l; l = l->next)
				give_up_flock(t, l->client, f, &l->op);
	wake_all(t);
}

/* What a client states --------------------------------------------------------------------------------------------- */

size_t locks_state(const struct locks *t, uint64_t client, uint64_t round, const char *name, uint8_t *buf)
{
	const struct lock_client *c = find_client(t, client);
	struct wire_writer w = wire_writer(buf, LOCKS_STATE_MAX);
	const struct lock *l;

	lock_statement_begin(&w, round, name, c ? c->held_count : 0);
	for (l = c ? c->held : NULL; l; l = l->client_next)
		lock_statement_put(&w, &l->op, l->epoch, l->counter);
	check(!w.full);
	return wire_used(&w);
}

static void lost(struct locks *t, const struct lock_client *c, const struct lock_op *op)
{
	const struct lock_answer a = {
		.client = c->id, .round = c->round, .lost = true, .kind = op->kind, .type = op->type, .pid = op->pid,
		.ino = op->ino, .owner = op->owner, .start = op->start, .end = op->end,
	};

	t->answer(t->ctx, &a);
}

static void restate_one(struct locks *t, struct lock_client *c, struct lock_op *op, uint64_t epoch, uint64_t counter)
{
	struct lock_file *f = get_file(t, op->ino);

	op->ticket = 0;
	if (!f) {
		lost(t, c, op);
		return;
	}
	/* Numbers that this table, and those before it, cannot have given get a new one. */
	if (epoch > t->epoch || (epoch == t->epoch && counter > t->counter)) {
		epoch = t->epoch;
		counter = ++t->counter;
	}
	if (find_conflict(f, c, op) || apply(t, c, f, op, epoch, counter) < 0)
		lost(t, c, op);
	put_file(t, f);
}

static void set_name(struct lock_client *c, const uint8_t *name, uint32_t len)
{
	uint32_t i;

	for (i = 0; i < len; i++)
		c->name[i] = (char)(name[i] > ' ' && name[i] <= '~' && name[i] != '\'' && name[i] != '\\' ? name[i] : '?');
	c->name[len] = 0;
}

/* (L5) What was asked of a statement before is not answered. */
static void ask_anew(struct locks *t)
{
	struct lock_file *f;
	struct lock *l;
	unsigned i;

	for (i = 0; t->nowait_count > 0 && i < FILE_BUCKETS; i++)
		for (f = t->files[i]; f; f = f->next)
			for (l = f->waiting; l; l = l->next)
				l->probe = 0;
}

int locks_restate(struct locks *t, uint64_t client, const uint8_t *bytes, size_t len, bool (*may)(void *ctx, uint64_t ino),
		  void *ctx)
{
	struct lock_client *c;
	struct lock_statement s;
	uint64_t epoch, counter;
	struct lock_op op;
	uint32_t i;
	int r = lock_statement_decode(bytes, len, &s);

	if (r < 0)
		return r;
	c = get_client(t, client);
	if (!c)
		return err_set(ENOMEM, "locks: no memory for a client");
	c->round = s.round;
	set_name(c, s.name, s.name_len);
	/* Nobody is woken in between: what it has and states again is never free. */
	drop_of(t, c, false, false);
	drop_of(t, c, true, false);
	for (i = 0; i < s.count && lock_statement_next(&s, &op, &epoch, &counter); i++)
		if (may && !may(ctx, op.ino))
			lost(t, c, &op);
		else
			restate_one(t, c, &op, epoch, counter);
	ask_anew(t);
	wake_all(t);
	return 0;
}

int locks_note(struct locks *t, uint64_t client, const struct lock_op *op, uint64_t epoch, uint64_t counter)
{
	struct lock_client *c = get_client(t, client);
	struct lock_file *f = c ? get_file(t, op->ino) : NULL;
	int r;

	if (!f)
		return -ENOLCK;
	r = apply(t, c, f, op, epoch, counter);
	put_file(t, f);
	return r;
}

void locks_name(struct locks *t, uint64_t client, const char *name)
{
	struct lock_client *c = get_client(t, client);

	if (c)
		set_name(c, (const uint8_t *)name, (uint32_t)min_u64(strlen(name), LOCKS_NAME_MAX));
}

/* Questions -------------------------------------------------------------------------------------------------------- */

bool locks_holds(const struct locks *t, uint64_t client, uint64_t ino, uint64_t owner, enum lock_kind kind,
		 enum lock_type *ret_type)
{
	const struct lock_file *f = find_file(t, ino);
	const struct lock *l;

	for (l = f ? f->held : NULL; l; l = l->next)
		if (l->client->id == client && l->op.owner == owner && l->op.kind == kind) {
			if (ret_type)
				*ret_type = l->op.type;
			return true;
		}
	return false;
}

bool locks_of_handle(const struct locks *t, uint64_t client, uint64_t ino, uint64_t handle, uint64_t *ret_owner)
{
	const struct lock_file *f = find_file(t, ino);
	const struct lock *l;

	for (l = f ? f->held : NULL; l; l = l->next)
		if (l->client->id == client && l->op.handle == handle && l->op.kind == LOCKS_POSIX) {
			*ret_owner = l->op.owner;
			return true;
		}
	return false;
}

static void put_line(char *buf, size_t size, size_t *len, const char *format, ...) __attribute__((format(printf, 4, 5)));

static void put_line(char *buf, size_t size, size_t *len, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(*len < size ? buf + *len : NULL, *len < size ? size - *len : 0, format, ap);
	va_end(ap);
	*len += n > 0 ? (size_t)n : 0;
}

static void lock_to_text(const struct lock *l, bool waits, char *buf, size_t size, size_t *len)
{
	char end[24] = "end";

	if (l->op.end != LOCKS_END)
		(void)snprintf(end, sizeof end, "%llu", (unsigned long long)l->op.end);
	put_line(buf, size, len, "ino=%llu kind=%s type=%s range=%llu-%s holder='%s' pid=%u ", (unsigned long long)l->op.ino,
		 l->op.kind == LOCKS_POSIX ? "posix" : "flock", l->op.type == LOCKS_SHARED ? "shared" : "exclusive",
		 (unsigned long long)l->op.start, end, l->client->name, l->op.pid);
	if (waits)
		put_line(buf, size, len, "fence=- state=waits\n");
	else
		put_line(buf, size, len, "fence=%llu.%llu state=held\n", (unsigned long long)l->epoch,
			 (unsigned long long)l->counter);
}

size_t locks_to_text(const struct locks *t, char *buf, size_t size)
{
	const struct lock_file *f;
	const struct lock *l;
	size_t len = 0;
	unsigned i;

	if (size > 0)
		buf[0] = 0;
	for (i = 0; i < FILE_BUCKETS; i++)
		for (f = t->files[i]; f; f = f->next) {
			for (l = f->held; l; l = l->next)
				lock_to_text(l, false, buf, size, &len);
			for (l = f->waiting; l; l = l->next)
				lock_to_text(l, true, buf, size, &len);
		}
	return len;
}

void locks_count(const struct locks *t, unsigned *ret_held, unsigned *ret_waiting)
{
	*ret_held = t->held_count;
	*ret_waiting = t->waiting_count;
}

static bool file_ok(const struct locks *t, const struct lock_file *f)
{
	const struct lock *a, *b;

	if (!f->held && !f->waiting)
		return false;
	for (a = f->held; a; a = a->next)
		for (b = a->next; b; b = b->next)
			/* (L1), and one owner's locks do not overlap. */
			if (same_owner(a, b->client, &b->op) ? overlap(&a->op, &b->op) : excludes(&a->op, &b->op))
				return false;
	for (a = f->waiting; a && !t->grace; a = a->next) {
		/* (L2) Nobody waits for nothing; (L5) who does not want to, waits for what may be nothing. */
		if (find_conflict(f, a->client, &a->op) && (a->op.wait || may_ask(f, a->client, &a->op)))
			continue;
		for (b = f->waiting; b != a && !in_way(b, a->client, &a->op); b = b->next)
			;
		if (b == a || !a->op.wait)
			return false;
	}
	return true;
}

bool locks_check(const struct locks *t)
{
	const struct lock_file *f;
	unsigned i;

	for (i = 0; i < FILE_BUCKETS; i++)
		for (f = t->files[i]; f; f = f->next)
			if (!file_ok(t, f))
				return false;
	return true;
}

/* Start and end ---------------------------------------------------------------------------------------------------- */

struct locks *locks_new(lock_answer_fn *answer_fn, lock_probe_fn *probe_fn, void *ctx)
{
	struct locks *t = calloc(1, sizeof *t);

	if (!t)
		return NULL;
	t->answer = answer_fn;
	t->probe_fn = probe_fn;
	t->ctx = ctx;
	return t;
}

void locks_free(struct locks *t)
{
	struct lock_client *c, *next;
	unsigned i;

	if (!t)
		return;
	for (i = 0; i < CLIENT_BUCKETS; i++)
		for (c = t->clients[i]; c; c = next) {
			next = c->next;
			drop_of(t, c, false, false);
			drop_of(t, c, true, false);
			free(c);
		}
	free(t);
}
