/* SPDX-License-Identifier: MIT
 *
 * linear: see linear.h.
 *
 * One step of the search does everything that changes nothing and can be done (settle), then one change. Each step remembers
 * how long the list of what is done was before it, so that it can be taken back.
 */
#include "tests/remote/linear/linear.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct step {
	uint64_t state;         /* before its change */
	uint64_t set[2];        /* of all that was done by then, as sums of random numbers */
	size_t done;            /* how many those are */
	size_t next;            /* the change to try next, as next_change() counts */
};

/* What reads tell of a value. */
struct value {
	uint64_t value;
	uint64_t before;        /* the list that it was read behind */
	unsigned uses;          /* operations that write it; 0: this slot is free */
	bool read, unsure;
};

/* Where a value belongs, by operation. */
enum place { PLACE_ANY, PLACE_READ, PLACE_UNREAD };

struct tried {
	uint64_t set, state;    /* set 0: free */
};

struct search {
	struct linear_op *ops;
	size_t count, first;    /* all before `first` are done */
	unsigned mounts;
	size_t known;           /* operations whose outcome is known: those have to be done */
	size_t known_done;
	uint8_t *is_done;
	uint8_t *place;         /* enum place */
	uint64_t *before;       /* PLACE_READ */
	size_t *order;          /* what is done, in order */
	size_t done;
	uint64_t state, set[2];
	struct tried *tried;
	size_t tried_count, tried_room;
	size_t best, best_at;
};

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

uint64_t linear_fold(uint64_t state, uint64_t value)
{
	uint64_t h = mix(state * 0x9e3779b97f4a7c15ull + mix(value + 0x632be59bd9b4e019ull));

	return h > LINEAR_UNREAD ? h : h + 3;
}

/* Is the result right in this state, and which one comes behind? What nobody knows of is right where it changes something:
 * where it does not, it is left out as well. */
static bool fits(const struct search *s, size_t i, uint64_t state, uint64_t *ret_state)
{
	const struct linear_op *op = &s->ops[i];
	const bool there = state != LINEAR_ABSENT;

	*ret_state = state;
	switch (op->kind) {
	case LINEAR_READ:
		return state == op->state;
	case LINEAR_PUT:
		*ret_state = s->place[i] == PLACE_UNREAD ? LINEAR_UNREAD : linear_fold(LINEAR_EMPTY, op->value);
		return true;
	case LINEAR_APPEND:
		if (op->refused || !there)
			return op->refused && !there;
		*ret_state = s->place[i] == PLACE_UNREAD ? LINEAR_UNREAD : linear_fold(state, op->value);
		return s->place[i] != PLACE_READ || state == s->before[i];
	case LINEAR_CREATE:
		if (!there && !op->refused)
			*ret_state = LINEAR_EMPTY;
		return op->refused == there;
	default:
		if (there && !op->refused)
			*ret_state = op->kind == LINEAR_CLEAR ? LINEAR_EMPTY : LINEAR_ABSENT;
		return op->refused != there;
	}
}

static bool changes_nothing(const struct linear_op *op)
{
	return op->kind == LINEAR_READ || op->refused;
}

static bool is_old(const struct linear_op *op)
{
	return op->is_stale && changes_nothing(op);
}

static void set_done(struct search *s, size_t i)
{
	s->is_done[i] = 1;
	s->order[s->done++] = i;
	s->set[0] += mix(i + 1);
	s->set[1] += mix(~i);
	s->known_done += s->ops[i].returned != LINEAR_NEVER;
}

static void take_back(struct search *s, size_t to)
{
	while (s->done > to) {
		size_t i = s->order[--s->done];

		s->is_done[i] = 0;
		s->known_done -= s->ops[i].returned != LINEAR_NEVER;
		if (i < s->first)
			s->first = i;
	}
}

/* The earliest returns of what is not done: of each mount; of all; of all but stale reads. */
struct returns {
	int64_t mount[LINEAR_MOUNTS_MAX], all, fresh;
	int64_t latest;         /* of those of mounts: what begins behind it is not free */
};

static void earliest(struct search *s, struct returns *ret)
{
	ret->latest = ret->all = ret->fresh = LINEAR_NEVER;
	for (unsigned m = 0; m < LINEAR_MOUNTS_MAX; m++)
		ret->mount[m] = LINEAR_NEVER;
	while (s->first < s->count && s->is_done[s->first])
		s->first++;
	/* What begins later than the latest of these cannot return earlier, nor be free itself. */
	for (size_t i = s->first; i < s->count && s->ops[i].begun <= ret->latest; i++) {
		const struct linear_op *op = &s->ops[i];

		if (s->is_done[i])
			continue;
		if (op->returned < ret->all)
			ret->all = op->returned;
		if (op->returned < ret->fresh && !is_old(op))
			ret->fresh = op->returned;
		if (op->returned < ret->mount[op->mount])
			ret->mount[op->mount] = op->returned;
		ret->latest = ret->mount[0];
		for (unsigned m = 1; m < s->mounts; m++)
			if (ret->mount[m] > ret->latest)
				ret->latest = ret->mount[m];
	}
}

/* Does nothing have to come before it any more? */
static bool is_free(const struct search *s, size_t i, const struct returns *r)
{
	const struct linear_op *op = &s->ops[i];

	if (s->is_done[i])
		return false;
	if (!changes_nothing(op))
		return op->begun <= r->all;
	return op->begun <= r->mount[op->mount] && (op->is_stale || op->begun <= r->fresh);
}

/* Need it not be tried? An append that nobody knows of and nobody read: if it was done, it only keeps others from being read. */
static bool is_needless(const struct search *s, size_t i)
{
	return s->ops[i].kind == LINEAR_APPEND && s->ops[i].returned == LINEAR_NEVER && s->place[i] == PLACE_UNREAD;
}

/* The next change that may come now, first of those whose outcome is known, then (counted from `count` on) of the others. */
static size_t next_change(const struct search *s, size_t from, const struct returns *r)
{
	for (size_t half = from / s->count; half < 2; half++) {
		size_t i = half == from / s->count ? from % s->count : 0;

		for (i = i > s->first ? i : s->first; i < s->count && s->ops[i].begun <= r->latest; i++)
			if (!changes_nothing(&s->ops[i]) && (s->ops[i].returned == LINEAR_NEVER) == (half == 1) && is_free(s, i, r) &&
			    !is_needless(s, i))
				return half * s->count + i;
	}
	return 2 * s->count;
}

static void settle(struct search *s)
{
	struct returns r;
	uint64_t same;
	bool again = true;

	while (again) {
		again = false;
		earliest(s, &r);
		for (size_t i = s->first; i < s->count && s->ops[i].begun <= r.latest; i++) {
			if (!changes_nothing(&s->ops[i]) || !is_free(s, i, &r) || !fits(s, i, s->state, &same))
				continue;
			set_done(s, i);
			again = true;
		}
	}
}

/* 1: it is new; 0: this was tried. */
static int remember(struct search *s)
{
	uint64_t key = mix(s->set[0]) ^ s->set[1];
	size_t at;

	key += key == 0;
	if (2 * s->tried_count >= s->tried_room) {
		struct tried *old = s->tried;
		size_t room = s->tried_room;

		if (s->tried_count >= LINEAR_TRIED_MAX)
			return -E2BIG;
		s->tried_room = room > 0 ? 2 * room : 1024;
		s->tried = calloc(s->tried_room, sizeof *s->tried);
		if (s->tried == NULL) {
			s->tried = old;
			s->tried_room = room;
			return -ENOMEM;
		}
		for (size_t i = 0; i < room; i++) {
			if (old[i].set == 0)
				continue;
			for (at = old[i].set % s->tried_room; s->tried[at].set != 0; at = (at + 1) % s->tried_room)
				;
			s->tried[at] = old[i];
		}
		free(old);
	}
	for (at = key % s->tried_room; s->tried[at].set != 0; at = (at + 1) % s->tried_room)
		if (s->tried[at].set == key && s->tried[at].state == s->state)
			return 0;
	s->tried[at] = (struct tried){ key, s->state };
	s->tried_count++;
	return 1;
}

static void note_best(struct search *s)
{
	if (s->done < s->best)
		return;
	s->best = s->done;
	for (s->best_at = s->first; s->best_at < s->count; s->best_at++)
		if (!s->is_done[s->best_at] && s->ops[s->best_at].returned != LINEAR_NEVER)
			break;
}

static int run(struct search *s, struct step *steps)
{
	struct returns returns;
	size_t depth = 0;
	int r;

	settle(s);
	steps[0] = (struct step){ .state = s->state, .set = { s->set[0], s->set[1] }, .done = s->done };
	for (;;) {
		struct step *top = &steps[depth];
		size_t n;

		if (s->known_done == s->known)
			return 1;
		note_best(s);
		earliest(s, &returns);
		n = next_change(s, top->next, &returns);
		if (n < 2 * s->count) {
			size_t i = n % s->count;
			uint64_t behind;

			top->next = n + 1;
			if (!fits(s, i, s->state, &behind))
				continue;
			set_done(s, i);
			s->state = behind;
			settle(s);
			r = remember(s);
			if (r < 0)
				return r;
			if (r > 0) {
				steps[++depth] = (struct step){ .state = s->state, .set = { s->set[0], s->set[1] }, .done = s->done };
				continue;
			}
		} else if (depth == 0) {
			return 0;
		} else {
			top = &steps[--depth];
		}
		take_back(s, top->done);
		s->state = top->state;
		memcpy(s->set, top->set, sizeof s->set);
	}
}

static int by_begin(const void *a, const void *b)
{
	const struct linear_op *x = a, *y = b;

	return x->begun < y->begun ? -1 : x->begun > y->begun;
}

/* ---- What reads tell ---- */

static struct value *find(struct value *values, size_t room, uint64_t value)
{
	size_t at = mix(value) % room;

	while (values[at].uses > 0 && values[at].value != value)
		at = (at + 1) % room;
	return &values[at];
}

static bool writes(const struct linear_op *op)
{
	return (op->kind == LINEAR_PUT || op->kind == LINEAR_APPEND) && !op->refused;
}

static void look_at_list(const struct linear_op *op, struct value *values, size_t room)
{
	uint64_t state = LINEAR_EMPTY;

	for (size_t i = 0; i < op->len; i++) {
		struct value *v = find(values, room, op->list[i]);

		/* Nobody wrote it: the read will not fit anywhere. */
		if (v->uses > 0) {
			v->unsure = v->unsure || (v->read && v->before != state);
			v->read = true;
			v->before = state;
		}
		state = linear_fold(state, op->list[i]);
	}
}

/* Only if all lists are known: else what nobody seems to have read may have been. */
static bool lists_are_known(const struct search *s)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->ops[i].kind == LINEAR_READ && s->ops[i].list == NULL && s->ops[i].state > LINEAR_EMPTY)
			return false;
	return true;
}

static int find_places(struct search *s)
{
	size_t room = 2 * s->count + 1;
	struct value *values;

	if (!lists_are_known(s))
		return 0;
	values = calloc(room, sizeof *values);
	if (values == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < s->count; i++) {
		struct value *v;

		if (!writes(&s->ops[i]))
			continue;
		v = find(values, room, s->ops[i].value);
		v->value = s->ops[i].value;
		v->uses++;
	}
	for (size_t i = 0; i < s->count; i++)
		if (s->ops[i].kind == LINEAR_READ && s->ops[i].list != NULL)
			look_at_list(&s->ops[i], values, room);
	for (size_t i = 0; i < s->count; i++) {
		const struct value *v = find(values, room, s->ops[i].value);

		/* Written twice, or read in two places: the search says what that means. */
		if (!writes(&s->ops[i]) || v->uses != 1 || v->unsure)
			continue;
		s->place[i] = v->read ? PLACE_READ : PLACE_UNREAD;
		s->before[i] = v->before;
	}
	free(values);
	return 0;
}

int linear_check(struct linear_op *ops, size_t count, size_t *ret_done, size_t *ret_at)
{
	struct search s = { .ops = ops, .count = count };
	struct step *steps = calloc(count + 1, sizeof *steps);
	int r = -ENOMEM;

	s.is_done = calloc(count + 1, 1);
	s.order = calloc(count + 1, sizeof *s.order);
	s.place = calloc(count + 1, 1);
	s.before = calloc(count + 1, sizeof *s.before);
	if (count == 0)
		r = 1;
	else if (steps != NULL && s.is_done != NULL && s.order != NULL && s.place != NULL && s.before != NULL) {
		qsort(ops, count, sizeof *ops, by_begin);
		for (size_t i = 0; i < count; i++) {
			s.known += ops[i].returned != LINEAR_NEVER;
			if (ops[i].mount >= s.mounts)
				s.mounts = ops[i].mount + 1;
		}
		r = find_places(&s);
		if (r == 0)
			r = run(&s, steps);
	}
	if (r == 0) {
		*ret_done = s.best;
		*ret_at = s.best_at;
	}
	free(s.is_done);
	free(s.order);
	free(s.place);
	free(s.before);
	free(s.tried);
	free(steps);
	return r;
}
