/* SPDX-License-Identifier: MIT
 *
 * inodes: see inodes.h. Open addressing with linear probing. The table in use deletes by shifting
 * back, so it has no tombstones and never needs cleaning; the old one, which only shrinks, marks
 * slots as gone.
 */
#include "fs/inodes.h"

#include <errno.h>
#include <stdlib.h>

#define INODES_MIN_SIZE 1024u           /* slots */
#define INODES_ORPHAN   (1ull << 63)
#define INODES_GONE     UINT64_MAX
#define INODES_STEP     16u     /* old slots moved with each change, so it ends in time */

static size_t slot_of(const struct inodes_table *t, uint64_t ino)
{
	return (size_t)((ino * 0x9e3779b97f4a7c15ull) >> 20) & (t->size - 1);
}

static struct inodes_slot *table_find(const struct inodes_table *t, uint64_t ino)
{
	if (t->size == 0)
		return NULL;
	for (size_t i = slot_of(t, ino);; i = (i + 1) & (t->size - 1)) {
		if (t->slots[i].ino == ino)
			return &t->slots[i];
		if (t->slots[i].ino == 0)
			return NULL;
	}
}

static void table_add(struct inodes_table *t, uint64_t ino, uint64_t refs)
{
	size_t i = slot_of(t, ino);

	while (t->slots[i].ino != 0)
		i = (i + 1) & (t->size - 1);
	t->slots[i].ino = ino;
	t->slots[i].refs = refs;
	t->used++;
}

static void table_remove(struct inodes_table *t, struct inodes_slot *slot)
{
	size_t mask = t->size - 1, hole = (size_t)(slot - t->slots);

	/* Move back each later slot of the run whose own place is not behind the hole. */
	for (size_t i = (hole + 1) & mask; t->slots[i].ino != 0; i = (i + 1) & mask) {
		size_t home = slot_of(t, t->slots[i].ino);

		if (((i - home) & mask) < ((i - hole) & mask))
			continue;
		t->slots[hole] = t->slots[i];
		hole = i;
	}
	t->slots[hole].ino = 0;
	t->used--;
}

/* Move a few slots out of the old table. */
static void move_some(struct inodes *t)
{
	if (t->old.slots == NULL)
		return;
	for (unsigned n = 0; n < INODES_STEP && t->next < t->old.size; n++, t->next++) {
		struct inodes_slot *s = &t->old.slots[t->next];

		if (s->ino == 0 || s->ino == INODES_GONE)
			continue;
		table_add(&t->now, s->ino, s->refs);
		s->ino = INODES_GONE;
		t->old.used--;
	}
	if (t->next == t->old.size) {
		free(t->old.slots);
		t->old = (struct inodes_table){ 0 };
	}
}

/* Begin a table of `size` slots; failing is no harm as long as there is a free slot. */
static void begin_move(struct inodes *t, size_t size)
{
	struct inodes_slot *slots;

	if (t->old.slots != NULL)
		return;
	slots = calloc(size, sizeof *slots);
	if (slots == NULL)
		return;
	t->old = t->now;
	t->now = (struct inodes_table){ .slots = slots, .size = size };
	t->next = 0;
}

static struct inodes_slot *find(struct inodes *t, uint64_t ino)
{
	struct inodes_slot *s = table_find(&t->now, ino);

	return s != NULL ? s : table_find(&t->old, ino);
}

int inodes_init(struct inodes *t)
{
	*t = (struct inodes){ 0 };
	t->now.slots = calloc(INODES_MIN_SIZE, sizeof *t->now.slots);
	if (t->now.slots == NULL)
		return -ENOMEM;
	t->now.size = INODES_MIN_SIZE;
	return 0;
}

void inodes_release(struct inodes *t)
{
	free(t->now.slots);
	free(t->old.slots);
	*t = (struct inodes){ 0 };
}

int inodes_ref(struct inodes *t, uint64_t ino)
{
	struct inodes_slot *s;

	move_some(t);
	s = find(t, ino);
	if (s != NULL) {
		s->refs++;
		return 0;
	}
	/* Two thirds full is where runs begin to grow. */
	if (inodes_count(t) * 3 >= t->now.size * 2)
		begin_move(t, t->now.size * 2);
	/* Everything old must find a place too, and one slot stays free to end every search. */
	if (inodes_count(t) + 2 > t->now.size)
		return -ENOMEM;
	table_add(&t->now, ino, 1);
	return 0;
}

bool inodes_forget(struct inodes *t, uint64_t ino, uint64_t count)
{
	struct inodes_slot *s;
	uint64_t refs;
	bool orphan;

	move_some(t);
	s = find(t, ino);
	if (s == NULL)
		return false;
	refs = s->refs & ~INODES_ORPHAN;
	orphan = (s->refs & INODES_ORPHAN) != 0;
	if (refs > count) {
		s->refs -= count;
		return false;
	}
	if (t->old.slots != NULL && s >= t->old.slots && s < t->old.slots + t->old.size) {
		s->ino = INODES_GONE;
		t->old.used--;
	} else {
		table_remove(&t->now, s);
	}
	if (t->now.size > INODES_MIN_SIZE && inodes_count(t) * 8 < t->now.size)
		begin_move(t, t->now.size / 2);
	return orphan;
}

bool inodes_mark_orphan(struct inodes *t, uint64_t ino)
{
	struct inodes_slot *s = find(t, ino);

	if (s == NULL)
		return false;
	s->refs |= INODES_ORPHAN;
	return true;
}

void inodes_each_orphan(const struct inodes *t, void (*tell)(void *ctx, uint64_t ino), void *ctx)
{
	const struct inodes_table *tables[] = { &t->old, &t->now };

	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < tables[k]->size; i++) {
			const struct inodes_slot *s = &tables[k]->slots[i];

			if (s->ino != 0 && s->ino != INODES_GONE && (s->refs & INODES_ORPHAN) != 0)
				tell(ctx, s->ino);
		}
}

bool inodes_known(struct inodes *t, uint64_t ino)
{
	return find(t, ino) != NULL;
}

size_t inodes_count(const struct inodes *t)
{
	return t->now.used + t->old.used;
}

static size_t table_list(const struct inodes_table *t, uint64_t *ret, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < t->size && n < max; i++)
		if (t->slots[i].ino != 0 && t->slots[i].ino != INODES_GONE)
			ret[n++] = t->slots[i].ino;
	return n;
}

size_t inodes_list(const struct inodes *t, uint64_t *ret, size_t max)
{
	size_t n = table_list(&t->old, ret, max);

	return n + table_list(&t->now, ret + n, max - n);
}
