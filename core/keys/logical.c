/* SPDX-License-Identifier: MIT
 *
 * logical: see logical.h.
 */
#include "core/keys/logical.h"

#include "core/keys/keys_int.h"

#define INODE_BLOCKS 32u                /* offset of the field that is left out */

/* Windows ---------------------------------------------------------------------------------------------------------- */

int window_get(struct keys *k, uint64_t ino, uint64_t fblock, struct window *ret, uint64_t *ret_next)
{
	uint64_t at = fblock, end = fblock + WINDOW_BLOCKS, i;
	struct extent e;
	int r = 0;

	memset(ret->kind, WINDOW_HOLE, sizeof ret->kind);
	*ret_next = UINT64_MAX;
	while (at < end) {
		r = contents_find(k, ino, at, &e);
		if (r < 0)
			break;
		at = max_u64(at, e.fblock);
		for (; at < e.fblock + e.count && at < end; at++) {
			i = at - fblock;
			ret->kind[i] = e.flags & EXTENT_UNWRITTEN ? WINDOW_UNWRITTEN : WINDOW_DATA;
			ret->block[i] = e.block + (at - e.fblock);
			ret->csum[i] = e.flags & EXTENT_UNWRITTEN ? 0 : get_le32(e.csums + 4 * (at - e.fblock));
		}
	}
	if (r == 0)
		r = window_find(k, ino, end, ret_next);
	return r == -ENOENT ? 0 : r;
}

int window_find(struct keys *k, uint64_t ino, uint64_t fblock, uint64_t *ret_fblock)
{
	struct extent e;
	int r = contents_find(k, ino, fblock, &e);

	if (r < 0)
		return r;
	*ret_fblock = max_u64(e.fblock, fblock) & ~(uint64_t)(WINDOW_BLOCKS - 1);
	return 0;
}

unsigned window_run(const struct window *w, unsigned i)
{
	unsigned n = 1;

	while (i + n < WINDOW_BLOCKS && w->kind[i + n] == w->kind[i])
		n++;
	return n;
}

const uint8_t *window_bytes(struct keys *k, const struct window *w, unsigned i, int *ret_error)
{
	return store_blocks(k->store, w->block[i], 1, ret_error);
}

/* Kinds and checksums as bytes: the same for the same logical contents. */
uint64_t window_digest(const struct window *w, uint64_t seed)
{
	uint8_t b[WINDOW_BLOCKS * 5];
	unsigned i;

	for (i = 0; i < WINDOW_BLOCKS; i++) {
		b[i] = w->kind[i];
		put_le32(b + WINDOW_BLOCKS + 4 * i, w->kind[i] == WINDOW_DATA ? w->csum[i] : 0);
	}
	return hash64(b, sizeof b, seed);
}

int window_deep_digest(struct keys *k, const struct window *w, uint64_t seed, uint64_t *ret)
{
	uint64_t h = hash64(w->kind, sizeof w->kind, seed);
	unsigned i;
	int r = 0;

	for (i = 0; i < WINDOW_BLOCKS; i++) {
		const uint8_t *p;

		if (w->kind[i] != WINDOW_DATA)
			continue;
		p = window_bytes(k, w, i, &r);
		if (!p)
			return r;
		h = hash64(p, BLOCK_SIZE, h);
	}
	*ret = h;
	return 0;
}

/* Items ------------------------------------------------------------------------------------------------------------ */

bool logical_key_valid(struct key k)
{
	uint64_t ino = k.hi >> 8;
	unsigned kind = (unsigned)(k.hi & 0xff);

	if (ino == 0)
		return kind > KIND_SPACE && kind < KIND_SPACE + 16;
	if (ino >= INO_MAX - 1)
		return false;
	switch (kind) {
	case ITEM_INODE:
		return k.lo == 0;
	case ITEM_EXTENT:
		return k.lo % WINDOW_BLOCKS == 0 && k.lo <= WINDOW_LAST;
	default:
		return kind == ITEM_XATTR || kind == ITEM_DIRENT;
	}
}

uint64_t logical_digest(const struct logical_item *item, uint64_t seed)
{
	/* The key is in it, so that no two items are exchanged unnoticed. */
	seed ^= item->key.hi * 0x9e3779b97f4a7c15ull ^ item->key.lo * 0xc2b2ae3d27d4eb4full;
	return item->window ? window_digest(item->window, seed) : hash64(item->value, item->len, seed);
}

struct key logical_after(struct key k)
{
	if (logical_is_window(k))
		return k.lo < WINDOW_LAST ? (struct key){ k.hi, k.lo + WINDOW_BLOCKS } : (struct key){ k.hi + 1, 0 };
	return ++k.lo == 0 ? (struct key){ k.hi + 1, 0 } : k;
}

/* Go to the first window of ino at or behind fblock; if there is none, to what follows its extents. */
static int go_to_window(struct logical_walk *w, uint64_t ino, uint64_t fblock)
{
	int r = window_find(w->k, ino, fblock, &w->fblock);

	w->ino = r == 0 ? ino : 0;
	if (r == -ENOENT) {
		w->at = item_key(ino, ITEM_EXTENT + 1, 0);
		r = 0;
	}
	return r;
}

void logical_begin(struct logical_walk *w, struct keys *k, struct key from)
{
	w->k = k;
	w->at = from;
	w->ino = 0;
	w->leaf = 0;
	w->leaves = 0;
}

/* Leaves that the window's extents fill at most, about. */
static unsigned window_leaves(const struct window *w)
{
	unsigned i, parts = 1;

	for (i = 1; i < WINDOW_BLOCKS; i++)
		parts += w->kind[i] != w->kind[i - 1] ||
			 (w->kind[i] == WINDOW_DATA && w->block[i] != w->block[i - 1] + 1);
	return 1 + parts / 16;
}

static int take_window(struct logical_walk *w, struct key end, struct logical_item *ret)
{
	struct key key = item_key(w->ino, ITEM_EXTENT, w->fblock);
	uint64_t next;
	int r;

	if (key_cmp(end, LOGICAL_END) != 0 && key_cmp(key, end) >= 0)
		return 0;
	r = window_get(w->k, w->ino, w->fblock, &w->window, &next);
	if (r < 0)
		return r;
	*ret = (struct logical_item){ .key = key, .window = &w->window };
	w->leaves += window_leaves(&w->window);
	if (next == UINT64_MAX) {
		w->at = item_key(w->ino, ITEM_EXTENT + 1, 0);
		w->ino = 0;
	} else {
		w->fblock = next;
	}
	return 1;
}

/* An item as it stands in the tree. */
static int take_item(struct logical_walk *w, const struct tree_cursor *c, struct logical_item *ret)
{
	struct key key = cursor_key(c);
	uint32_t len;
	const uint8_t *v = cursor_value(c, &len);

	if ((key.hi & 0xff) == ITEM_INODE && key.hi >> 8 != 0) {
		struct keys_attr a;
		int r = inode_decode(v, len, key.hi >> 8, &a);

		if (r < 0)
			return r;
		memcpy(w->inode, v, len);
		memset(w->inode + INODE_BLOCKS, 0, 8);
		v = w->inode;
	}
	*ret = (struct logical_item){ .key = key, .value = v, .len = len };
	return 1;
}

int logical_next(struct logical_walk *w, struct key end, struct logical_item *ret)
{
	bool all = key_cmp(end, LOGICAL_END) == 0;
	int r;

	/* A walk that begins within an inode's extents: the first window may belong to one that began before. */
	if (w->ino == 0 && logical_is_window(w->at)) {
		r = go_to_window(w, w->at.hi >> 8, w->at.lo);
		if (r < 0)
			return r;
	}
	while (w->ino == 0) {
		struct tree_cursor c;
		struct key key;
		block_t leaf;

		r = tree_seek(w->k->tree, w->at, &c);
		if (r == -ENOENT)
			return 0;
		if (r < 0)
			return r;
		leaf = get_le64(c.path[0].page + PAGE_BLOCK);
		w->leaves += leaf != w->leaf;
		w->leaf = leaf;
		key = cursor_key(&c);
		if (!all && key_cmp(key, end) >= 0)
			return 0;
		w->at = key.lo == UINT64_MAX ? (struct key){ key.hi + 1, 0 } : (struct key){ key.hi, key.lo + 1 };
		if (logical_is_window(key)) {
			r = go_to_window(w, key.hi >> 8, key.lo);
			if (r < 0)
				return r;
		} else if (logical_key_valid(key)) {
			return take_item(w, &c, ret);
		}
	}
	return take_window(w, end, ret);
}

int logical_get(struct logical_walk *w, struct key k, struct logical_item *ret)
{
	int r;

	logical_begin(w, w->k, k);
	r = logical_next(w, LOGICAL_END, ret);
	if (r < 0)
		return r;
	return r > 0 && key_cmp(ret->key, k) == 0 ? 0 : -ENOENT;
}
