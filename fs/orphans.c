/* SPDX-License-Identifier: MIT
 *
 * orphans: see orphans.h.
 */
#include "fs/orphans.h"

#include <stdlib.h>
#include <string.h>

void orphans_release(struct orphans *o)
{
	free(o->at);
	idset_release(&o->held);
	*o = (struct orphans){ 0 };
}

int orphans_add(struct orphans *o, uint64_t ino, seq_t seq)
{
	int r;

	/* At least half of it is free: moving costs less than what was taken from it. */
	if (o->first + o->count == o->room && o->first > 0 && o->first >= o->count) {
		memcpy(o->at, o->at + o->first, o->count * sizeof *o->at);
		o->first = 0;
	}
	r = array_grow((void **)&o->at, &o->room, o->first + o->count + 1, sizeof *o->at);
	if (r == 0)
		o->at[o->first + o->count++] = (struct orphan){ ino, seq };
	return r;
}

int orphans_freed(struct orphans *o, uint64_t ino, seq_t seq)
{
	return idset_remove(&o->held, ino) ? orphans_add(o, ino, seq) : 0;
}

uint64_t orphans_next(struct orphans *o, seq_t limit, bool (*held)(void *ctx, uint64_t ino), void *ctx)
{
	while (o->count > 0 && o->at[o->first].seq <= limit) {
		uint64_t ino = o->at[o->first].ino;

		if (!held(ctx, ino))
			return ino;
		/* No memory: asked again with the next look, and those behind it wait for that. */
		if (idset_add(&o->held, ino) < 0)
			return 0;
		orphans_pop(o);
	}
	return 0;
}

void orphans_pop(struct orphans *o)
{
	o->first++;
	if (--o->count > 0)
		return;
	free(o->at);
	o->at = NULL;
	o->first = o->room = 0;
}
