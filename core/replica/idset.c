/* SPDX-License-Identifier: MIT
 *
 * idset: linear probing in a table that is at most half full; removal moves what follows back, so there are no marks of
 * what was there.
 */
#include "core/replica/idset.h"

#include <stdlib.h>

#define SIZE_MIN 16u

static uint32_t home(uint64_t id, uint32_t size)
{
	id *= 0x9e3779b97f4a7c15u;
	return (uint32_t)(id >> 32) & (size - 1);
}

/* Where it is, or the free slot where it would be. There is always a free one. */
static uint32_t find(const uint64_t *slots, uint32_t size, uint64_t id)
{
	uint32_t i = home(id, size);

	while (slots[i] != 0 && slots[i] != id)
		i = (i + 1) & (size - 1);
	return i;
}

void idset_release(struct idset *s)
{
	free(s->slots);
	*s = (struct idset){ 0 };
}

bool idset_has(const struct idset *s, uint64_t id)
{
	return s->size != 0 && id != 0 && s->slots[find(s->slots, s->size, id)] == id;
}

static int grow(struct idset *s)
{
	uint32_t size = s->size ? s->size * 2 : SIZE_MIN, i;
	uint64_t *slots = calloc(size, sizeof *slots);

	if (!slots)
		return -ENOMEM;
	for (i = 0; i < s->size; i++)
		if (s->slots[i] != 0)
			slots[find(slots, size, s->slots[i])] = s->slots[i];
	free(s->slots);
	s->slots = slots;
	s->size = size;
	return 0;
}

int idset_add(struct idset *s, uint64_t id)
{
	uint32_t i;
	int r;

	check(id != 0);
	if (idset_has(s, id))
		return 0;
	if (s->count >= IDSET_MAX)
		return -E2BIG;
	if ((s->count + 1) * 2 > s->size) {
		r = grow(s);
		if (r < 0)
			return r;
	}
	i = find(s->slots, s->size, id);
	s->slots[i] = id;
	s->count++;
	return 1;
}

bool idset_remove(struct idset *s, uint64_t id)
{
	uint32_t mask = s->size - 1, hole, i;

	if (!idset_has(s, id))
		return false;
	hole = find(s->slots, s->size, id);
	for (i = (hole + 1) & mask; s->slots[i] != 0; i = (i + 1) & mask) {
		/* It may move into the hole unless its home lies cyclically behind the hole. */
		if (((i - home(s->slots[i], s->size)) & mask) < ((i - hole) & mask))
			continue;
		s->slots[hole] = s->slots[i];
		hole = i;
	}
	s->slots[hole] = 0;
	s->count--;
	return true;
}

uint64_t idset_next(const struct idset *s, uint32_t *pos)
{
	while (*pos < s->size)
		if (s->slots[(*pos)++] != 0)
			return s->slots[*pos - 1];
	return 0;
}
