/* SPDX-License-Identifier: MIT
 *
 * compact: contents and tree pages that stand far back in a file that is mostly free are copied to its beginning, so that
 * the end can be given back. Nothing of it is journaled: it changes no contents and no name, only places, and only in the
 * current generation; a crash forgets it. Unwritten extents stay where they are, since records name their blocks.
 */
#include "core/keys/keys_int.h"

#define STEP_ITEMS  64u                 /* items looked at in one step */
#define STEP_BLOCKS 256u                /* blocks copied in one step: 1 MiB */

bool keys_compact_due(struct keys *k)
{
	return store_compact_limit(k->store) != 0;
}

/* Copy the extent, or as much of its beginning as there is room for in one piece, to the front. -ENOSPC: there is none in
 * front of the limit. */
static int move_extent(struct keys *k, uint64_t ino, struct extent *e, uint64_t limit, unsigned *blocks)
{
	block_t old = e->block;
	int64_t freed;
	uint64_t got;
	uint32_t i;
	int r;

	r = store_alloc(k->store, e->count, &e->block, &got);
	if (r < 0)
		return r;
	if (e->block + got > limit) {
		r = store_free(k->store, e->block, got, store_gen(k->store));
		return r < 0 ? r : -ENOSPC;
	}
	for (i = 0; i < got; i++) {
		const uint8_t *from = store_blocks(k->store, old + i, 1, &r);
		uint8_t *to = store_blocks(k->store, e->block + i, 1, &r);

		if (!from || !to)
			return r;
		/* The checksum goes along as it is: a damaged block stays known as damaged. */
		memcpy(to, from, BLOCK_SIZE);
	}
	store_written(k->store, e->block, got);
	e->count = (uint32_t)got;
	e->gen = store_gen(k->store);
	e->flags = 0;
	*blocks += e->count;
	r = contents_replace(k, ino, e, &freed);
	if (r < 0)
		store_broken(k->store, r);
	return r;
}

static int move_item(struct keys *k, const struct tree_cursor *c, uint64_t limit, unsigned *blocks)
{
	struct key key = cursor_key(c);
	struct extent e;
	uint32_t len;
	const uint8_t *v;
	int r;

	if (key.hi >> 8 == 0 || (key.hi & 0xff) != ITEM_EXTENT)
		return 0;
	v = cursor_value(c, &len);
	r = extent_decode(v, len, key, &e);
	if (r < 0 || e.flags & EXTENT_UNWRITTEN || e.block + e.count <= limit)
		return r;
	r = change_reserve_own(k, 4, e.count, false);
	if (r < 0)
		return r;
	return move_extent(k, key.hi >> 8, &e, limit, blocks);
}

/* Tree pages on the way to the cursor's item. */
static int move_pages(struct keys *k, struct key key, uint64_t limit)
{
	bool moved;
	int r = change_reserve_own(k, 1, 0, false);

	return r < 0 ? r : tree_relocate(k->tree, key, limit, &moved);
}

int keys_compact(struct keys *k)
{
	uint64_t limit = store_compact_limit(k->store);
	struct key at = { k->compact_hi, k->compact_lo };
	unsigned items, blocks = 0;
	struct tree_cursor c;
	int r = 0;

	if (limit == 0)
		return 0;
	for (items = 0; items < STEP_ITEMS && blocks < STEP_BLOCKS; items++) {
		r = tree_seek(k->tree, at, &c);
		if (r < 0)
			break;
		at = cursor_key(&c);
		r = move_item(k, &c, limit, &blocks);
		if (r == 0)
			r = move_pages(k, at, limit);
		if (r < 0)
			break;
		if (++at.lo == 0)
			at.hi++;
	}
	/* Damage ends it too: the next attempt comes when the end of the store has changed. */
	store_compacted(k->store, r < 0 && r != -EAGAIN);
	if (r < 0 && r != -EAGAIN)
		at = (struct key){ 0, 0 };
	k->compact_hi = at.hi;
	k->compact_lo = at.lo;
	return r == -ENOENT || r == -ENOSPC ? 0 : r < 0 ? r : 1;
}
