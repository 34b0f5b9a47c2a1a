/* SPDX-License-Identifier: MIT
 *
 * contents_apply: DATA, MAP and PUNCH of a record become what the file holds, with the bytes at hand or with blocks that are
 * written already; and orphans are reaped. The same for a change that was just planned (contents.c), for recovery and for a
 * replica. The invariants (C1) and (C2) of contents.c.
 */
#include "core/keys/keys_int.h"

static const uint8_t zeros[BLOCK_SIZE];

static int inode_patch(struct keys *k, uint64_t ino, uint8_t **ret, struct keys_attr *a)
{
	uint32_t len;
	int r = tree_patch(k->tree, item_key(ino, ITEM_INODE, 0), ret, &len);

	return r < 0 ? r : inode_decode(*ret, len, ino, a);
}

static int add_blocks(struct keys *k, uint64_t ino, int64_t n)
{
	struct keys_attr a;
	uint8_t *v;
	int r;

	if (n == 0)
		return 0;
	r = inode_patch(k, ino, &v, &a);
	if (r < 0)
		return r;
	a.blocks += (uint64_t)n;
	inode_encode(v, &a);
	return 0;
}

static int extent_put(struct keys *k, uint64_t ino, const struct extent *e)
{
	uint8_t *v;
	int r = tree_put_place(k->tree, item_key(ino, ITEM_EXTENT, e->fblock),
			       extent_item_len(e->count, e->flags), &v);

	if (r == 0)
		extent_encode(v, e);
	return r;
}

/* The part [from, to) (file blocks) of an extent. */
static struct extent extent_part(const struct extent *e, uint64_t from, uint64_t to)
{
	struct extent p = { .fblock = from, .block = e->block + (from - e->fblock), .gen = e->gen,
			    .count = (uint32_t)(to - from), .flags = e->flags };

	if (!(e->flags & EXTENT_UNWRITTEN))
		memcpy(p.csums, e->csums + 4 * (from - e->fblock), 4 * p.count);
	return p;
}

/* Unmap file blocks [from, to). Blocks are given back, but those where the file block f stands at block keep + (f - from)
 * already (keep != 0): they change their owner from an unwritten extent to a new one. */
static int unmap_blocks(struct keys *k, uint64_t ino, uint64_t from, uint64_t to, block_t keep, int64_t *ret_freed)
{
	struct extent e, part;
	int r;

	*ret_freed = 0;
	while ((r = contents_find(k, ino, from, &e)) == 0 && e.fblock < to) {
		uint64_t a = max_u64(e.fblock, from), b = min_u64(e.fblock + e.count, to), end = e.fblock + e.count;
		block_t block = e.block + (a - e.fblock);

		if (a > e.fblock) {
			part = extent_part(&e, e.fblock, a);
			r = extent_put(k, ino, &part);
		} else {
			r = tree_del(k->tree, item_key(ino, ITEM_EXTENT, e.fblock));
		}
		if (r == 0 && b < end) {
			part = extent_part(&e, b, end);
			r = extent_put(k, ino, &part);
		}
		if (r == 0 && !(keep && e.flags & EXTENT_UNWRITTEN && block == keep + (a - from)))
			r = store_free(k->store, block, b - a, e.gen);
		if (r < 0)
			return r;
		*ret_freed += (int64_t)(b - a);
		if (b >= to)
			return 0;
	}
	return r == -ENOENT ? 0 : r;
}

/* Put an extent where nothing is mapped; join it to the one before if they are of one kind. */
static int map_blocks_at(struct keys *k, uint64_t ino, const struct extent *e)
{
	struct extent before;
	int r;

	if (e->fblock > 0) {
		r = contents_find(k, ino, e->fblock - 1, &before);
		/* One that cannot be, there or behind: it is not joined to. */
		if (r < 0 && r != -ENOENT && r != -EUCLEAN)
			return r;
		if (r == 0 && before.fblock + before.count == e->fblock && before.gen == e->gen &&
		    before.flags == e->flags && before.block + before.count == e->block &&
		    before.count + e->count <= (e->flags & EXTENT_UNWRITTEN ? GROUP_BLOCKS : EXT_COUNT_MAX)) {
			if (!(e->flags & EXTENT_UNWRITTEN))
				memcpy(before.csums + 4 * before.count, e->csums, 4 * e->count);
			before.count += e->count;
			return extent_put(k, ino, &before);
		}
	}
	return extent_put(k, ino, e);
}

int contents_unmap(struct keys *k, uint64_t ino, uint64_t from, uint64_t to, int64_t *ret_freed)
{
	return unmap_blocks(k, ino, from, to, 0, ret_freed);
}

int contents_replace(struct keys *k, uint64_t ino, const struct extent *e, int64_t *ret_freed)
{
	int r = unmap_blocks(k, ino, e->fblock, e->fblock + e->count, 0, ret_freed);

	return r < 0 ? r : map_blocks_at(k, ino, e);
}

/* A block of the file that may be changed in place: private to this generation. *ret_e describes its extent. all: whatever
 * it holds, all of it will be overwritten. */
static int private_block(struct keys *k, const struct keys_attr *a, uint64_t fblock, bool all, struct extent *e, uint8_t **ret)
{
	uint8_t old[BLOCK_SIZE];
	struct extent part;
	uint64_t n;
	int64_t freed = 0;
	int r = contents_find(k, a->ino, fblock, e);

	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && e->fblock <= fblock && e->flags & EXTENT_PRIVATE && e->gen == store_gen(k->store)) {
		*ret = store_blocks(k->store, e->block + (fblock - e->fblock), 1, &r);
		return *ret ? 0 : r;
	}
	part = (struct extent){ .fblock = fblock, .count = 1, .flags = EXTENT_PRIVATE, .gen = store_gen(k->store) };
	/* In what is salvaged nothing is written that an item or a record names: nobody has marked it as theirs. */
	if (r == 0 && e->fblock <= fblock && e->flags & EXTENT_UNWRITTEN && !k->salvage) {
		/* Reserved for just this; nobody reads its bytes before the extent says so. */
		part.block = e->block + (fblock - e->fblock);
		memset(old, 0, sizeof old);
		r = store_touch(k->store, part.block, 1);
		if (r == 0)
			r = unmap_blocks(k, a->ino, fblock, fblock + 1, part.block, &freed);
	} else {
		/* Private bytes ride in records, so the old ones are copied: verified first. */
		memset(old, 0, sizeof old);
		r = all ? 0 : contents_read_block(k, a, fblock, old);
		if (r == 0)
			r = store_alloc(k->store, 1, &part.block, &n);
		if (r == 0)
			r = unmap_blocks(k, a->ino, fblock, fblock + 1, 0, &freed);
	}
	if (r < 0)
		return r;
	*ret = store_blocks(k->store, part.block, 1, &r);
	if (!*ret)
		return r;
	memcpy(*ret, old, BLOCK_SIZE);
	store_written(k->store, part.block, 1);
	put_le32(part.csums, block_csum(*ret, a->ino, fblock));
	r = map_blocks_at(k, a->ino, &part);
	if (r == 0)
		r = add_blocks(k, a->ino, 1 - freed);
	return r < 0 ? r : contents_find(k, a->ino, fblock, e);
}

/* The block's bytes changed: put its new checksum into the extent's item. */
static int private_changed(struct keys *k, uint64_t ino, const struct extent *e, uint64_t fblock, const uint8_t *block)
{
	uint8_t *v;
	uint32_t len;
	int r = tree_patch(k->tree, item_key(ino, ITEM_EXTENT, e->fblock), &v, &len);

	if (r == 0 && len < EXTENT_HEADER + 4 * (fblock - e->fblock + 1))
		r = err_corrupt("inode %llu: extent at block %llu changed", (unsigned long long)ino,
				(unsigned long long)e->fblock);
	if (r == 0)
		put_le32(v + EXTENT_HEADER + 4 * (fblock - e->fblock), block_csum(block, ino, fblock));
	return r;
}

static int write_blocks(struct keys *k, const struct keys_attr *a, uint64_t off, const uint8_t *data, uint64_t len)
{
	while (len > 0) {
		uint64_t fblock = off >> BLOCK_SHIFT, at = off & (BLOCK_SIZE - 1), n = min_u64(len, BLOCK_SIZE - at);
		struct extent e;
		uint8_t *to;
		int r = private_block(k, a, fblock, n == BLOCK_SIZE, &e, &to);

		if (r < 0)
			return r;
		memcpy(to + at, data, n);
		store_written(k->store, e.block + (fblock - e.fblock), 1);
		r = private_changed(k, a->ino, &e, fblock, to);
		if (r < 0)
			return r;
		off += n;
		data += n;
		len -= n;
	}
	return 0;
}

/* Resize the inline contents; new bytes are zero. */
static int inline_resize(struct keys *k, uint64_t ino, uint32_t len, uint8_t **ret)
{
	uint8_t item[INODE_SIZE + INLINE_MAX];
	const uint8_t *v;
	uint32_t old;
	int r = tree_get(k->tree, item_key(ino, ITEM_INODE, 0), &v, &old);

	if (r < 0)
		return r;
	memset(item, 0, sizeof item);
	memcpy(item, v, min_u64(old, INODE_SIZE + len));
	r = tree_put_place(k->tree, item_key(ino, ITEM_INODE, 0), INODE_SIZE + len, ret);
	if (r == 0)
		memcpy(*ret, item, INODE_SIZE + len);
	return r;
}

/* Contents leave the inode (C2); with keep they go to block 0. */
static int inline_leave(struct keys *k, struct keys_attr *a, bool keep)
{
	uint8_t old[INLINE_MAX];
	const uint8_t *v;
	uint8_t *item;
	uint32_t len;
	int r = contents_inline(k, a->ino, &v, &len);

	if (r < 0)
		return r;
	memcpy(old, v, len);
	r = inline_resize(k, a->ino, 0, &item);
	if (r < 0)
		return r;
	a->flags &= ~KEYS_ATTR_INLINE;
	inode_encode(item, a);
	return keep && len > 0 ? write_blocks(k, a, 0, old, len) : 0;
}

/* Inline contents, longer than before if need be. */
static int write_inline(struct keys *k, uint64_t ino, uint64_t off, const uint8_t *data, uint32_t len)
{
	uint32_t old;
	uint8_t *item;
	int r = tree_patch(k->tree, item_key(ino, ITEM_INODE, 0), &item, &old);

	if (r == 0 && old < INODE_SIZE + off + len)
		r = inline_resize(k, ino, (uint32_t)(off + len), &item);
	if (r == 0)
		memcpy(item + INODE_SIZE + off, data, len);
	return r;
}

int contents_apply_data(struct keys *k, uint64_t ino, uint64_t off, const uint8_t *data, uint32_t len)
{
	struct keys_attr a;
	int r = inode_get(k, ino, &a);

	if (r < 0)
		return r;
	if (off > KEYS_SIZE_MAX || len > KEYS_SIZE_MAX - off)
		return err_corrupt("inode %llu: a write behind the largest size", (unsigned long long)ino);
	if (a.flags & KEYS_ATTR_INLINE && off + len <= INLINE_MAX)
		return write_inline(k, ino, off, data, len);
	if (a.flags & KEYS_ATTR_INLINE) {
		r = inline_leave(k, &a, true);
		if (r < 0)
			return r;
	}
	return write_blocks(k, &a, off, data, len);
}

int contents_apply_map(struct keys *k, uint64_t ino, uint64_t fblock, const struct record_extent *x, uint32_t flags)
{
	struct extent e = { .fblock = fblock, .block = x->block, .count = x->count, .gen = store_gen(k->store),
			    .flags = flags & MAP_UNWRITTEN ? EXTENT_UNWRITTEN : 0 };
	struct keys_attr a;
	int64_t freed = 0;
	int r = inode_get(k, ino, &a);

	if (r < 0)
		return r;
	if (!S_ISREG(a.mode) || fblock > (KEYS_SIZE_MAX >> BLOCK_SHIFT) - x->count + 1 ||
	    !(x->flags & EXT_DATA) == !(flags & MAP_UNWRITTEN))
		return err_corrupt("inode %llu: impossible change of its extents", (unsigned long long)ino);
	if (x->flags & EXT_DATA)
		memcpy(e.csums, x->csums, 4 * x->count);
	if (a.flags & KEYS_ATTR_INLINE) {
		r = inline_leave(k, &a, fblock > 0);
		if (r < 0)
			return r;
	}
	if (!(x->flags & EXT_FRESH)) {
		/* The record says that the file has these blocks already, unwritten: do not take its word for it. */
		uint64_t f;

		for (f = fblock; f < fblock + x->count; ) {
			struct extent old;

			r = contents_find(k, ino, f, &old);
			if (r < 0 && r != -ENOENT)
				return r;
			if (r == -ENOENT || old.fblock > f || !(old.flags & EXTENT_UNWRITTEN) ||
			    old.block + (f - old.fblock) != x->block + (f - fblock))
				return err_corrupt("inode %llu: a record claims blocks that are not the file's",
						   (unsigned long long)ino);
			f = old.fblock + old.count;
		}
	}
	r = unmap_blocks(k, ino, fblock, fblock + x->count, x->flags & EXT_FRESH ? 0 : x->block, &freed);
	if (r == 0)
		r = map_blocks_at(k, ino, &e);
	return r < 0 ? r : add_blocks(k, ino, (int64_t)x->count - freed);
}

/* Zero [from, to) inside one block, if the file has bytes there. */
static int zero_part(struct keys *k, const struct keys_attr *a, uint64_t from, uint64_t to)
{
	struct extent e;
	int r;

	if (from >= to)
		return 0;
	r = contents_find(k, a->ino, from >> BLOCK_SHIFT, &e);
	if (r == -ENOENT || (r == 0 && (e.fblock > from >> BLOCK_SHIFT || e.flags & EXTENT_UNWRITTEN)))
		return 0;
	return r < 0 ? r : write_blocks(k, a, from, zeros, to - from);
}

int contents_apply_punch(struct keys *k, uint64_t ino, uint64_t from, uint64_t to)
{
	uint64_t first = div_up(from, BLOCK_SIZE), last = to >> BLOCK_SHIFT;
	struct keys_attr a;
	const uint8_t *v;
	uint8_t *item;
	int64_t freed = 0;
	uint32_t len;
	int r = inode_get(k, ino, &a);

	if (r < 0)
		return r;
	if (from > to || to > KEYS_SIZE_MAX)
		return err_corrupt("inode %llu: impossible hole", (unsigned long long)ino);
	if (a.flags & KEYS_ATTR_INLINE) {
		r = contents_inline(k, ino, &v, &len);
		if (r < 0 || from >= len)
			return r;
		if (to >= len)
			return inline_resize(k, ino, (uint32_t)from, &item);
		r = inline_resize(k, ino, len, &item);
		if (r == 0)
			memset(item + INODE_SIZE + from, 0, to - from);
		return r;
	}
	if (first > last)
		return zero_part(k, &a, from, to);
	r = zero_part(k, &a, from, first << BLOCK_SHIFT);
	if (r == 0)
		r = zero_part(k, &a, last << BLOCK_SHIFT, to);
	/* The end of a truncation reaches to the last possible block. */
	if (to == KEYS_SIZE_MAX)
		last = (KEYS_SIZE_MAX >> BLOCK_SHIFT) + 1;
	if (r == 0 && first < last)
		r = unmap_blocks(k, ino, first, last, 0, &freed);
	return r < 0 ? r : add_blocks(k, ino, -freed);
}

int contents_reap(struct keys *k, uint64_t ino, unsigned *budget)
{
	struct tree_cursor c;

	while (*budget > 0) {
		struct extent e;
		const uint8_t *v;
		uint32_t len;
		struct key key;
		bool whole;
		int r = tree_seek(k->tree, item_key(ino, ITEM_EXTENT, 0), &c);

		if (r == -ENOENT)
			return 0;
		if (r < 0)
			return r;
		key = cursor_key(&c);
		if (key.hi != item_key(ino, ITEM_EXTENT, 0).hi)
			return 0;
		v = cursor_value(&c, &len);
		/* One that cannot be goes too: this is in the journal already, where nothing would get past an error. */
		whole = extent_decode(v, len, key, &e) == 0;
		r = tree_del(k->tree, key);
		if (r == 0 && whole)
			r = store_free(k->store, e.block, e.count, e.gen);
		if (r < 0)
			return r;
		(*budget)--;
	}
	return 1;
}
