/* SPDX-License-Identifier: MIT
 *
 * edit: see edit.h.
 */
#include "core/keys/edit.h"

#include "core/keys/keys_int.h"

/* Checks ----------------------------------------------------------------------------------------------------------- */

static int check_own(struct key key, uint32_t len)
{
	bool orphan = key.hi == KIND_ORPHAN;

	if (orphan && (len > 1 || key.lo <= KEYS_ROOT_INO || key.lo >= INO_MAX))
		return err_corrupt("orphan item of inode %llu with %u bytes", (unsigned long long)key.lo, len);
	return len <= ITEM_MAX ? 0 : err_corrupt("item of %u bytes", len);
}

int edit_check(struct key key, const uint8_t *value, uint32_t len)
{
	uint64_t ino = key.hi >> 8;
	struct keys_attr a;
	struct dirent d;
	int r;

	if (!logical_key_valid(key) || logical_is_window(key))
		return err_corrupt("item of inode %llu, kind %u", (unsigned long long)ino, (unsigned)(key.hi & 0xff));
	if (ino == 0)
		return check_own(key, len);
	switch (key.hi & 0xff) {
	case ITEM_INODE:
		r = inode_decode(value, len, ino, &a);
		if (r == 0 && ino == KEYS_ROOT_INO && !S_ISDIR(a.mode))
			r = err_corrupt("the root directory is none");
		return r;
	case ITEM_DIRENT:
		return dirent_decode(value, len, key, &d);
	default:
		/* The last part of an attribute may be empty. */
		return len <= XATTR_HEADER + XATTR_CHUNK ? 0 :
		       err_corrupt("inode %llu: part of an attribute, %u bytes", (unsigned long long)ino, len);
	}
}

int edit_check_del(struct key key)
{
	if (!logical_key_valid(key) || key_cmp(key, item_key(KEYS_ROOT_INO, ITEM_INODE, 0)) == 0)
		return err_corrupt("item of inode %llu, kind %u cannot be taken away", (unsigned long long)(key.hi >> 8),
				   (unsigned)(key.hi & 0xff));
	return 0;
}

int edit_check_next_ino(uint64_t next_ino)
{
	return next_ino >= 16 && next_ino < INO_MAX - 1 ? 0 :
	       err_corrupt("the next inode would have the number %llu", (unsigned long long)next_ino);
}

/* Items ------------------------------------------------------------------------------------------------------------ */

/* Blocks that the inode's extents have. */
static int count_blocks(struct keys *k, uint64_t ino, uint64_t *ret)
{
	struct extent e = { 0 };
	uint64_t at = 0;
	int r;

	*ret = 0;
	while ((r = contents_find(k, ino, at, &e)) == 0) {
		*ret += e.count;
		at = e.fblock + e.count;
	}
	return r == -ENOENT ? 0 : r;
}

static int put_inode(struct keys *k, uint64_t ino, const uint8_t *value, uint32_t len)
{
	struct store_counts *counts = store_counts(k->store);
	uint8_t item[INODE_SIZE + INLINE_MAX];
	struct keys_attr a, old = { 0 };
	bool is_new;
	int r = inode_get(k, ino, &old);

	if (r < 0 && r != -ENOENT)
		return r;
	is_new = r == -ENOENT;
	r = inode_decode(value, len, ino, &a);
	if (r < 0)
		return r;
	a.blocks = old.blocks;
	/* What reaping took from an orphan was not counted down. */
	if (is_new || old.nlink == 0)
		r = count_blocks(k, ino, &a.blocks);
	if (r < 0)
		return r;
	inode_encode(item, &a);
	memcpy(item + INODE_SIZE, value + INODE_SIZE, len - INODE_SIZE);
	r = tree_put(k->tree, item_key(ino, ITEM_INODE, 0), item, len);
	if (r < 0)
		return r;
	counts->inodes += is_new;
	counts->next_ino = max_u64(counts->next_ino, ino + 1);
	return 0;
}

int edit_put(struct keys *k, struct key key, const uint8_t *value, uint32_t len)
{
	int r = edit_check(key, value, len);

	if (r < 0)
		return r;
	k->numbers_checked = false;
	if ((key.hi & 0xff) == ITEM_INODE && key.hi >> 8 != 0)
		r = put_inode(k, key.hi >> 8, value, len);
	else
		r = tree_put(k->tree, key, value, len);
	if (r == 0)
		store_edited(k->store, 0);
	return r;
}

int edit_del(struct keys *k, struct key key)
{
	int r = logical_is_window(key) ? -EINVAL : edit_check_del(key);

	if (r == 0)
		r = tree_del(k->tree, key);
	if (r < 0)
		return r;
	if ((key.hi & 0xff) == ITEM_INODE && key.hi >> 8 != 0 && store_counts(k->store)->inodes > 0)
		store_counts(k->store)->inodes--;
	store_edited(k->store, 0);
	return 0;
}

void edit_next_ino(struct keys *k, uint64_t next_ino)
{
	store_counts(k->store)->next_ino = next_ino;
	k->numbers_checked = false;
	store_edited(k->store, 0);
}

/* Contents --------------------------------------------------------------------------------------------------------- */

/* Staged blocks that stand one after the other become the file's blocks [fblock + i, ...); *ret_n of them. */
static int map_data(struct keys *k, uint64_t ino, uint64_t fblock, const struct window *w, unsigned i, unsigned end,
		    unsigned *ret_n, int64_t *ret_more)
{
	struct extent e = { .fblock = fblock + i, .block = w->block[i], .gen = store_gen(k->store) };
	int64_t freed = 0;
	int r;

	while (i + e.count < end && w->block[i + e.count] == e.block + e.count) {
		put_le32(e.csums + 4 * e.count, w->csum[i + e.count]);
		e.count++;
	}
	r = store_use_staged(k->store, e.block, e.count);
	if (r < 0)
		return r;
	store_written(k->store, e.block, e.count);
	store_edited(k->store, e.count);
	r = contents_replace(k, ino, &e, &freed);
	*ret_n = e.count;
	*ret_more += (int64_t)e.count - freed;
	return r;
}

/* Blocks that read as zeros, but are the file's. */
static int map_unwritten(struct keys *k, uint64_t ino, uint64_t fblock, uint64_t count, int64_t *ret_more)
{
	while (count > 0) {
		struct extent e;
		uint64_t n = count;
		int64_t freed = 0;
		int r = contents_find(k, ino, fblock, &e);

		if (r < 0 && r != -ENOENT)
			return r;
		if (r == 0 && e.flags & EXTENT_UNWRITTEN && e.fblock <= fblock) {
			n = min_u64(count, e.fblock + e.count - fblock);
		} else {
			/* Not over the beginning of one that is unwritten already. */
			if (r == 0 && e.flags & EXTENT_UNWRITTEN)
				n = min_u64(n, e.fblock - fblock);
			e = (struct extent){ .fblock = fblock, .gen = store_gen(k->store), .flags = EXTENT_UNWRITTEN };
			r = store_alloc(k->store, n, &e.block, &n);
			if (r < 0)
				return r;
			e.count = (uint32_t)n;
			r = contents_replace(k, ino, &e, &freed);
			*ret_more += (int64_t)n - freed;
			if (r < 0)
				return r;
		}
		fblock += n;
		count -= n;
	}
	return 0;
}

/* The inode may be none: items come in any order, and a peer may send what it likes. put_inode() counts, then. */
static int add_blocks(struct keys *k, uint64_t ino, int64_t more)
{
	struct keys_attr a = { 0 };
	uint8_t *v = NULL;
	uint32_t len;
	int r = inode_get(k, ino, &a);

	if (r == -ENOENT || more == 0)
		return 0;
	if (r == 0)
		r = tree_patch(k->tree, item_key(ino, ITEM_INODE, 0), &v, &len);
	if (r < 0)
		return r;
	a.blocks += (uint64_t)more;
	inode_encode(v, &a);
	return 0;
}

int edit_window(struct keys *k, uint64_t ino, uint64_t fblock, const struct window *w)
{
	int64_t more = 0, freed;
	unsigned i, n = 0, end;
	int r = 0;

	if (!logical_key_valid(item_key(ino, ITEM_EXTENT, fblock)) || ino == 0)
		return err_corrupt("inode %llu: contents at block %llu", (unsigned long long)ino,
				   (unsigned long long)fblock);
	for (i = 0; i < WINDOW_BLOCKS && r == 0; i = end) {
		end = i + window_run(w, i);
		switch (w->kind[i]) {
		case WINDOW_HOLE:
			freed = 0;
			r = contents_unmap(k, ino, fblock + i, fblock + end, &freed);
			more -= freed;
			break;
		case WINDOW_UNWRITTEN:
			r = map_unwritten(k, ino, fblock + i, end - i, &more);
			break;
		case WINDOW_DATA:
			for (; i < end && r == 0; i += n)
				r = map_data(k, ino, fblock, w, i, end, &n, &more);
			break;
		default:
			break;
		}
	}
	if (r == 0)
		r = add_blocks(k, ino, more);
	store_edited(k->store, 0);
	return r;
}

/* Room ------------------------------------------------------------------------------------------------------------- */

void edit_size_put(struct edit_size *size, uint32_t len)
{
	size->puts++;
	size->bytes += LEAF_ENTRY + len;
}

void edit_size_window(struct edit_size *size, const struct window *w)
{
	unsigned i, n, parts = 2;               /* what stands over its ends is split */

	for (i = 0; i < WINDOW_BLOCKS; i += n) {
		n = window_run(w, i);
		/* In fragmented space each of them may get an extent of its own. */
		if (w->kind[i] == WINDOW_UNWRITTEN) {
			size->unwritten += n;
			parts += n;
		}
		if (w->kind[i] == WINDOW_DATA) {
			unsigned j;

			for (j = i + 1; j < i + n; j++)
				parts += w->block[j] != w->block[j - 1] + 1;
		}
		parts++;
	}
	size->puts += 2 * parts + 1;
	size->bytes += (uint64_t)parts * (LEAF_ENTRY + EXTENT_HEADER) + 4 * WINDOW_BLOCKS * 2;
}

/* Two things need tree pages. Copies: each put copies its path, but no page of the tree twice. Splits: a leaf is split
 * when it is full, and has a third of its room afterwards at least; so each leaf once, and then once more for each third
 * of a page that is put. */
uint64_t edit_blocks(const struct keys *k, const struct edit_size *size, uint64_t leaves)
{
	uint64_t levels = k->tree->root.level + 2, copies = size->puts * levels, splits = size->puts;

	if (leaves > 0) {
		copies = min_u64(copies, leaves + leaves / 4 + 2 * levels);
		splits = min_u64(splits, leaves + size->bytes / (BLOCK_SIZE / 3));
	}
	return copies + splits + splits / 8 + 2 * levels + size->unwritten + 4;
}
