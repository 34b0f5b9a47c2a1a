/* SPDX-License-Identifier: MIT
 *
 * contents: what files hold. Inline in the inode item, or in extents, or not there at all (zeros). Here it is found and read,
 * and changes are planned (keys_write...); contents_apply.c makes them.
 * Invariant (C1): bytes of a mapped block behind the file's size are zero, so a growing file reads zeros there.
 * Invariant (C2): inline contents are bytes [0, n) of the file, n <= INLINE_MAX; an inode with INLINE has no extents.
 */
#include "core/keys/keys_int.h"

#include <linux/falloc.h>
#include <unistd.h>

#define DATA_MAX   4096u                /* longest write that rides in its record */
#define ZEROS_SIZE 65536u
#define PAID_PIECES_MAX 16u             /* allocated extents that one write to a full store may fill */

static const uint8_t zeros[ZEROS_SIZE] __attribute__((aligned(4096)));

/* Extents ---------------------------------------------------------------------------------------------------------- */

int contents_find(struct keys *k, uint64_t ino, uint64_t fblock, struct extent *ret)
{
	struct tree_cursor c;
	const uint8_t *v;
	struct key key;
	uint32_t len;
	int r = tree_seek_le(k->tree, item_key(ino, ITEM_EXTENT, fblock), &c);

	if (r == 0) {
		key = cursor_key(&c);
		if (key.hi == item_key(ino, ITEM_EXTENT, 0).hi) {
			v = cursor_value(&c, &len);
			r = extent_decode(v, len, key, ret);
			if (r < 0 || ret->fblock + ret->count > fblock)
				return r;
		}
		r = cursor_next(&c);
	} else if (r == -ENOENT) {
		r = tree_seek(k->tree, item_key(ino, ITEM_EXTENT, fblock), &c);
	}
	if (r < 0)
		return r;
	key = cursor_key(&c);
	if (key.hi != item_key(ino, ITEM_EXTENT, 0).hi)
		return -ENOENT;
	v = cursor_value(&c, &len);
	r = extent_decode(v, len, key, ret);
	/* In a damaged tree the next item may stand before this one. */
	if (r == 0 && ret->fblock + ret->count <= fblock)
		r = err_corrupt("inode %llu: extents are out of order", (unsigned long long)ino);
	return r;
}

/* Block fblock of the extent, its checksum verified. */
static int extent_block(struct keys *k, uint64_t ino, const struct extent *e, uint64_t fblock, const uint8_t **ret)
{
	uint64_t i = fblock - e->fblock;
	int r = 0;
	const uint8_t *p = store_blocks(k->store, e->block + i, 1, &r);

	if (!p)
		return r < 0 ? r : -EUCLEAN;
	if (block_csum(p, ino, fblock) != get_le32(e->csums + 4 * i))
		return err_corrupt("inode %llu: contents at byte %llu (block %llu): checksum does not match",
				   (unsigned long long)ino, (unsigned long long)(fblock << BLOCK_SHIFT),
				   (unsigned long long)(e->block + i));
	*ret = p;
	return 0;
}

int contents_inline(struct keys *k, uint64_t ino, const uint8_t **ret, uint32_t *ret_len)
{
	const uint8_t *v;
	uint32_t len;
	int r = tree_get(k->tree, item_key(ino, ITEM_INODE, 0), &v, &len);

	if (r < 0)
		return r;
	*ret = v + INODE_SIZE;
	*ret_len = len - INODE_SIZE;
	return 0;
}

int contents_read_block(struct keys *k, const struct keys_attr *a, uint64_t fblock, uint8_t *out)
{
	const uint8_t *p;
	struct extent e;
	uint32_t len;
	int r;

	if (a->flags & KEYS_ATTR_INLINE) {
		memset(out, 0, BLOCK_SIZE);
		if (fblock > 0)
			return 0;
		r = contents_inline(k, a->ino, &p, &len);
		if (r == 0)
			memcpy(out, p, len);
		return r;
	}
	r = contents_find(k, a->ino, fblock, &e);
	if (r == -ENOENT || (r == 0 && (e.fblock > fblock || e.flags & EXTENT_UNWRITTEN))) {
		memset(out, 0, BLOCK_SIZE);
		return 0;
	}
	if (r == 0)
		r = extent_block(k, a->ino, &e, fblock, &p);
	if (r == 0)
		memcpy(out, p, BLOCK_SIZE);
	return r;
}

/* Reading ---------------------------------------------------------------------------------------------------------- */

struct pieces {
	struct iovec *iov;
	int count, max;
	size_t bytes;
};

static bool add_piece(struct pieces *p, const void *data, size_t len)
{
	int n = p->count;

	if (n > 0 && (const uint8_t *)p->iov[n - 1].iov_base + p->iov[n - 1].iov_len == data) {
		p->iov[n - 1].iov_len += len;
	} else {
		if (p->count == p->max)
			return false;
		p->iov[p->count++] = (struct iovec){ (void *)(uintptr_t)data, len };
	}
	p->bytes += len;
	return true;
}

static bool add_zeros(struct pieces *p, uint64_t len)
{
	while (len > 0) {
		size_t n = (size_t)min_u64(len, ZEROS_SIZE);

		if (!add_piece(p, zeros, n))
			return false;
		len -= n;
	}
	return true;
}

static int read_inline(struct keys *k, uint64_t ino, uint64_t off, uint64_t end, struct pieces *p)
{
	const uint8_t *v;
	uint32_t len;
	int r = contents_inline(k, ino, &v, &len);

	if (r < 0)
		return r;
	if (off < len) {
		uint64_t n = min_u64(len, end) - off;

		if (!add_piece(p, v + off, n))
			return 0;
		off += n;
	}
	(void)add_zeros(p, end - off);
	return 0;
}

static int read_extent(struct keys *k, uint64_t ino, const struct extent *e, uint64_t off, uint64_t end,
		       struct pieces *p)
{
	while (off < end) {
		uint64_t n = min_u64(BLOCK_SIZE - (off & (BLOCK_SIZE - 1)), end - off);
		const uint8_t *block;
		int r = extent_block(k, ino, e, off >> BLOCK_SHIFT, &block);

		if (r != 0)
			return r;
		if (!add_piece(p, block + (off & (BLOCK_SIZE - 1)), n))
			return -ENOBUFS;
		off += n;
	}
	return 0;
}

int keys_read(struct keys *k, uint64_t ino, uint64_t off, size_t len, struct iovec *iov, int max_iov, int *ret_count,
	      size_t *ret_bytes)
{
	struct pieces p = { .iov = iov, .max = max_iov };
	struct keys_attr a;
	struct extent e;
	uint64_t end;
	int r = inode_get(k, ino, &a);

	if (r < 0)
		return r;
	if (S_ISDIR(a.mode))
		return -EISDIR;
	end = off < a.size ? off + min_u64(len, a.size - off) : off;
	if (a.flags & KEYS_ATTR_INLINE && off < end) {
		r = read_inline(k, ino, off, end, &p);
		off = end;
	}
	while (r == 0 && off < end) {
		uint64_t start, stop;

		r = contents_find(k, ino, off >> BLOCK_SHIFT, &e);
		if (r == -ENOENT || (r == 0 && e.fblock << BLOCK_SHIFT >= end)) {
			r = 0;
			(void)add_zeros(&p, end - off);
			break;
		}
		if (r < 0)
			break;
		start = e.fblock << BLOCK_SHIFT;
		stop = min_u64((e.fblock + e.count) << BLOCK_SHIFT, end);
		if (off < start && !add_zeros(&p, start - off))
			break;
		off = max_u64(off, start);
		if (e.flags & EXTENT_UNWRITTEN)
			r = add_zeros(&p, stop - off) ? 0 : -ENOBUFS;
		else
			r = read_extent(k, ino, &e, off, stop, &p);
		off = stop;
	}
	if (r < 0 && r != -ENOBUFS)
		return r;
	*ret_count = p.count;
	*ret_bytes = p.bytes;
	return 0;
}

int contents_read_small(struct keys *k, uint64_t ino, void *buf, size_t size, size_t *ret_len)
{
	struct iovec iov[16];
	size_t bytes, done = 0;
	int n, i, r = keys_read(k, ino, 0, size, iov, ARRAY_LEN(iov), &n, &bytes);

	for (i = 0; r == 0 && i < n; i++) {
		memcpy((uint8_t *)buf + done, iov[i].iov_base, iov[i].iov_len);
		done += iov[i].iov_len;
	}
	*ret_len = done;
	return r;
}

int keys_seek(struct keys *k, uint64_t ino, uint64_t off, int whence, uint64_t *ret_off)
{
	struct keys_attr a;
	struct extent e;
	uint64_t at = off;
	int r = inode_get(k, ino, &a);

	if (r < 0)
		return r;
	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	if (off >= a.size)
		return -ENXIO;
	if (a.flags & KEYS_ATTR_INLINE) {
		const uint8_t *v;
		uint32_t n;

		r = contents_inline(k, ino, &v, &n);
		if (r < 0)
			return r;
		if (whence == SEEK_DATA && off >= n)
			return -ENXIO;
		*ret_off = whence == SEEK_DATA ? off : max_u64(off, min_u64(n, a.size));
		return 0;
	}
	for (;;) {
		r = contents_find(k, ino, at >> BLOCK_SHIFT, &e);
		if (r == -ENOENT) {
			*ret_off = at;
			return whence == SEEK_DATA ? -ENXIO : 0;
		}
		if (r < 0)
			return r;
		if (e.fblock << BLOCK_SHIFT > at) {
			if (whence == SEEK_HOLE)
				break;
			at = e.fblock << BLOCK_SHIFT;
		}
		if (!!(e.flags & EXTENT_UNWRITTEN) == (whence == SEEK_HOLE))
			break;
		at = (e.fblock + e.count) << BLOCK_SHIFT;
		if (at >= a.size)
			break;
	}
	if (whence == SEEK_DATA && at >= a.size)
		return -ENXIO;
	*ret_off = min_u64(at, a.size);
	return 0;
}

/* Planning a write ------------------------------------------------------------------------------------------------- */

void contents_give_back(struct keys *k, const struct target *t, unsigned n)
{
	while (n-- > 0)
		if (t[n].fresh)
			(void)store_free(k->store, t[n].block, t[n].count, store_gen(k->store));
}

int contents_find_targets(struct keys *k, const struct keys_attr *a, uint64_t fblock, uint64_t count, struct target *t,
			  unsigned max, unsigned *ret_n)
{
	struct extent e;
	unsigned n = 0;
	int r = 0;

	while (count > 0 && r == 0 && n < max) {
		uint64_t want = count, got;

		r = a->flags & KEYS_ATTR_INLINE ? -ENOENT : contents_find(k, a->ino, fblock, &e);
		if (r < 0 && r != -ENOENT)
			break;
		if (r == 0 && e.flags & EXTENT_UNWRITTEN && e.fblock <= fblock) {
			got = min_u64(min_u64(count, EXT_COUNT_MAX), e.fblock + e.count - fblock);
			t[n] = (struct target){ e.block + (fblock - e.fblock), (uint32_t)got, false };
			r = store_touch(k->store, t[n].block, got);
			if (r < 0)
				break;
		} else {
			/* Not over the beginning of an unwritten extent. */
			if (r == 0 && e.flags & EXTENT_UNWRITTEN)
				want = min_u64(want, e.fblock - fblock);
			/* A replica fills them with store_fill(). */
			want = min_u64(want, EXT_COUNT_MAX);
			r = store_is_replica(k->store) ? store_alloc_bulk(k->store, want, &t[n].block, &got) :
			    store_alloc(k->store, want, &t[n].block, &got);
			if (r < 0)
				break;
			t[n].count = (uint32_t)got;
			t[n].fresh = true;
		}
		r = 0;
		n++;
		fblock += got;
		count -= got;
	}
	*ret_n = n;
	if (r < 0)
		contents_give_back(k, t, n);
	return r;
}

/* Fill one block of a long write: the new bytes, around them what the file has. */
static int fill_block(struct keys *k, const struct keys_attr *a, uint64_t fblock, uint8_t *to, uint64_t off,
		      const uint8_t *data, size_t len)
{
	uint64_t start = fblock << BLOCK_SHIFT, end = start + BLOCK_SIZE;
	uint64_t from = max_u64(start, off), until = min_u64(end, off + len);

	if (from > start || until < end) {
		int r = contents_read_block(k, a, fblock, to);

		if (r < 0)
			return r;
	}
	memcpy(to + (from - start), data + (from - off), until - from);
	return 0;
}

static int fill_targets(struct keys *k, const struct keys_attr *a, uint64_t fblock, const struct target *t, unsigned n,
			uint64_t off, const uint8_t *data, size_t len)
{
	struct record *rec = store_record(k->store);
	unsigned i;
	uint32_t b;
	int r = 0;

	for (i = 0; i < n; i++) {
		uint8_t *csums, *to = store_blocks(k->store, t[i].block, t[i].count, &r);

		if (!to)
			return r;
		(void)record_extent(rec, t[i].block, t[i].count, EXT_DATA | (t[i].fresh ? EXT_FRESH : 0), &csums);
		for (b = 0; b < t[i].count; b++, fblock++) {
			r = fill_block(k, a, fblock, to + (size_t)b * BLOCK_SIZE, off, data, len);
			store_written(k->store, t[i].block + b, 1);
			if (r < 0)
				return r;
			put_le32(csums + 4 * b, block_csum(to + (size_t)b * BLOCK_SIZE, a->ino, fblock));
		}
		store_unsynced(k->store, t[i].block, t[i].count);
	}
	return 0;
}

static void change_map(struct keys *k, uint64_t ino, uint64_t fblock, const struct target *t, unsigned n, uint32_t flags)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		uint8_t *p = record_mutation(store_record(k->store), MUT_MAP, 24);

		put_le64(p, ino);
		put_le64(p + 8, fblock);
		put_le32(p + 16, i);
		put_le32(p + 20, flags);
		fblock += t[i].count;
	}
}

/* Can apply change this block? Asked before the change is in the journal, where it would have to stay. */
static int check_block(struct keys *k, const struct keys_attr *a, uint64_t fblock, bool all)
{
	const uint8_t *unused;
	struct extent e;
	int r = contents_find(k, a->ino, fblock, &e);

	if (r < 0 || e.fblock > fblock)
		return r == -ENOENT ? 0 : r;
	if (e.flags & EXTENT_UNWRITTEN)
		return store_touch(k->store, e.block + (fblock - e.fblock), 1);
	if (all || (e.flags & EXTENT_PRIVATE && e.gen == store_gen(k->store)))
		return 0;
	return extent_block(k, a->ino, &e, fblock, &unused);
}

int contents_check(struct keys *k, const struct keys_attr *a, uint64_t from, uint64_t to)
{
	uint64_t first = from >> BLOCK_SHIFT, last = (to - 1) >> BLOCK_SHIFT;
	int r;

	if (a->flags & KEYS_ATTR_INLINE || from >= to)
		return 0;
	r = check_block(k, a, first, from % BLOCK_SIZE == 0 && to - from >= BLOCK_SIZE);
	if (r == 0 && last != first)
		r = check_block(k, a, last, to % BLOCK_SIZE == 0);
	/* Those in between need not be right, but such as can be unmapped. */
	while (r == 0 && ++first < last) {
		struct extent e;

		r = contents_find(k, a->ino, first, &e);
		first = r == 0 ? max_u64(first, e.fblock + e.count - 1) : first;
	}
	return r == -ENOENT ? 0 : r;
}

static int write_long(struct keys *k, struct keys_attr *a, uint64_t off, const uint8_t *data, size_t *len, bool kill)
{
	struct target t[REC_EXTENTS_MAX];
	uint64_t first = off >> BLOCK_SHIFT, count = ((off + *len - 1) >> BLOCK_SHIFT) - first + 1, have = 0;
	unsigned n, i;
	int r = contents_find_targets(k, a, first, count, t, ARRAY_LEN(t), &n);

	if (r < 0)
		return r;
	for (i = 0; i < n; i++)
		have += t[i].count;
	*len = (size_t)min_u64(*len, ((first + have) << BLOCK_SHIFT) - off);
	a->size = max_u64(a->size, off + *len);
	k->number = *len;
	r = fill_targets(k, a, first, t, n, off, data, *len);
	if (r == 0) {
		change_map(k, a->ino, first, t, n, 0);
		r = kill ? xattr_change_drop(k, a->ino, CAPS_NAME) : 0;
	}
	if (r == 0) {
		change_attr(k, a);
		r = change_commit(k);
	}
	/* Only an error that left everything as it was gives the blocks back; after others the store has failed. */
	if (r < 0 && !store_failed(k->store))
		contents_give_back(k, t, n);
	return r;
}

/* A full store: the write needs no block if the file has one for all of it, from fallocate. A few pieces only, since each
 * is an item that may split. */
static int reserve_paid(struct keys *k, const struct keys_attr *a, uint64_t off, size_t len)
{
	uint64_t at = off >> BLOCK_SHIFT, end = ((off + len - 1) >> BLOCK_SHIFT) + 1;
	unsigned pieces = 0;

	while (at < end) {
		uint64_t next;
		bool is;
		int r = contents_unwritten(k, a, at, &is, &next);

		if (r < 0 || !is || ++pieces > PAID_PIECES_MAX)
			return r < 0 ? r : -ENOSPC;
		at = next;
	}
	return change_reserve_paid(k, 3 * (pieces + (unsigned)(len / (EXT_COUNT_MAX * BLOCK_SIZE)) + 2));
}

static int reserve_write(struct keys *k, const struct keys_attr *a, uint64_t off, size_t len)
{
	int r = change_reserve(k, 8, len / BLOCK_SIZE + 4, false), paid;

	if (r != -ENOSPC && r != -EAGAIN)
		return r;
	paid = reserve_paid(k, a, off, len);
	return paid == -ENOSPC ? r : paid;
}

/* Contents that leave the inode go to blocks of the file: a damaged one has such already. */
static int check_leaves(struct keys *k, const struct keys_attr *a, uint64_t end)
{
	struct extent e;
	int r = a->flags & KEYS_ATTR_INLINE && end > INLINE_MAX ? contents_find(k, a->ino, 0, &e) : -ENOENT;

	if (r == 0)
		r = err_corrupt("inode %llu: it has contents in the inode, and extents too", (unsigned long long)a->ino);
	return r == -ENOENT ? 0 : r;
}

int keys_write(struct keys *k, uint64_t ino, uint64_t off, const void *data, size_t len, unsigned kill, size_t *ret_written)
{
	struct keys_attr a;
	int r = inode_get_to_change(k, ino, &a);

	if (r < 0)
		return r;
	if (!S_ISREG(a.mode))
		return S_ISDIR(a.mode) ? -EISDIR : -EINVAL;
	if (off >= KEYS_SIZE_MAX && len > 0)
		return -EFBIG;
	len = (size_t)min_u64(min_u64(len, KEYS_WRITE_MAX), KEYS_SIZE_MAX - off);
	*ret_written = len;
	if (len == 0)
		return 0;
	r = reserve_write(k, &a, off, len);
	if (r == 0)
		r = check_leaves(k, &a, off + len);
	if (r < 0)
		return r;
	attr_touch(k, &a, true);
	if (kill)
		attr_kill_priv(&a, kill);
	change_begin(k, CHANGE_WRITE);
	if (len > DATA_MAX)
		return write_long(k, &a, off, data, ret_written, kill && a.flags & KEYS_ATTR_XATTR);
	r = contents_check(k, &a, off, off + len);
	if (r < 0)
		return r;
	a.size = max_u64(a.size, off + len);
	k->number = len;
	change_data(k, ino, off, data, (uint32_t)len);
	if (kill && a.flags & KEYS_ATTR_XATTR) {
		r = xattr_change_drop(k, ino, CAPS_NAME);
		if (r < 0)
			return r;
	}
	change_attr(k, &a);
	return change_commit(k);
}

int contents_unwritten(struct keys *k, const struct keys_attr *a, uint64_t fblock, bool *ret_is, uint64_t *ret_next)
{
	struct extent e;
	int r = a->flags & KEYS_ATTR_INLINE ? -ENOENT : contents_find(k, a->ino, fblock, &e);

	if (r < 0 && r != -ENOENT)
		return r;
	*ret_is = r == 0 && e.fblock <= fblock && e.flags & EXTENT_UNWRITTEN;
	*ret_next = r < 0 ? UINT64_MAX : e.fblock > fblock ? e.fblock : e.fblock + e.count;
	return 0;
}

/* fallocate -------------------------------------------------------------------------------------------------------- */

/* Give blocks to the holes in [first, end), at most one record's worth; *ret_next is where to go on. */
static int allocate_some(struct keys *k, const struct keys_attr *a, uint64_t first, uint64_t end, uint64_t *ret_next)
{
	struct record *rec = store_record(k->store);
	struct { uint64_t fblock; struct target t; } piece[64];
	uint64_t at = first, room = CONTENTS_RESERVE_MAX;
	unsigned n = 0, i;
	struct extent e;
	int r = check_leaves(k, a, UINT64_MAX);

	if (r < 0)
		return r;
	while (at < end && n < ARRAY_LEN(piece) && room > 0) {
		uint64_t hole = end - at, got;

		r = a->flags & KEYS_ATTR_INLINE ? -ENOENT : contents_find(k, a->ino, at, &e);
		if (r < 0 && r != -ENOENT)
			goto fail;
		if (r == 0 && e.fblock <= at) {
			at = e.fblock + e.count;
			continue;
		}
		if (r == 0)
			hole = min_u64(hole, e.fblock - at);
		r = store_alloc(k->store, min_u64(hole, room), &piece[n].t.block, &got);
		if (r < 0)
			goto fail;
		piece[n].fblock = at;
		piece[n].t.count = (uint32_t)got;
		piece[n].t.fresh = true;
		n++;
		at += got;
		room -= got;
	}
	for (i = 0; i < n; i++)
		(void)record_extent(rec, piece[i].t.block, piece[i].t.count, EXT_FRESH, NULL);
	for (i = 0; i < n; i++) {
		uint8_t *p = record_mutation(rec, MUT_MAP, 24);

		put_le64(p, a->ino);
		put_le64(p + 8, piece[i].fblock);
		put_le32(p + 16, i);
		put_le32(p + 20, MAP_UNWRITTEN);
	}
	*ret_next = at;
	return 0;
fail:
	for (i = 0; i < n; i++)
		contents_give_back(k, &piece[i].t, 1);
	return r;
}

/* The record at hand did not get into the journal: the blocks that it names are nobody's. */
static void give_back_named(struct keys *k)
{
	const struct record *rec = store_record(k->store);
	struct record_reader reader;
	unsigned i;

	if (store_failed(k->store) || rec->overflow || record_open(&reader, rec->buf, rec->len) < 0)
		return;
	for (i = 0; i < reader.extent_count; i++)
		if (reader.extents[i].flags & EXT_FRESH)
			(void)store_free(k->store, reader.extents[i].block, reader.extents[i].count, store_gen(k->store));
}

/* Room for one record of allocate_some(). */
static int reserve_some(struct keys *k, uint64_t blocks)
{
	return change_reserve(k, 2 * (unsigned)min_u64(64, blocks) + 6, min_u64(blocks, CONTENTS_RESERVE_MAX), false);
}

/* What the caller may not keep: its mode bits go from *a now, its capabilities by change_kill(), since a record's extents
 * come before its mutations. */
static int plan_kill(struct keys *k, struct keys_attr *a, unsigned kill, struct xattr_place *ret_caps)
{
	int r = 0;

	ret_caps->exists = false;
	if (kill == 0)
		return 0;
	attr_kill_priv(a, kill);
	if (a->flags & KEYS_ATTR_XATTR)
		r = xattr_find(k, a->ino, CAPS_NAME, ret_caps);
	return r == -ENOSPC ? 0 : r;
}

static void change_kill(struct keys *k, uint64_t ino, const struct xattr_place *caps)
{
	if (caps->exists)
		xattr_change_remove(k, ino, caps);
}

static int preallocate(struct keys *k, uint64_t ino, uint64_t off, uint64_t len, bool keep_size, unsigned kill)
{
	uint64_t at = off >> BLOCK_SHIFT, end = div_up(off + len, BLOCK_SIZE);
	struct xattr_place caps = { 0 };
	struct keys_statfs fs;
	struct keys_attr a;
	int r;

	/* What cannot fit is refused before anything is taken. */
	r = inode_get_to_change(k, ino, &a);
	if (r < 0)
		return r;
	keys_statfs(k, &fs);
	if (end - at > a.blocks && end - at - a.blocks > fs.bavail)
		return -ENOSPC;
	/* Several records: if space ends in between, what is allocated stays, as on other file systems. */
	do {
		r = reserve_some(k, end - at);
		if (r == 0)
			r = inode_get_to_change(k, ino, &a);
		if (r == 0)
			r = plan_kill(k, &a, kill, &caps);
		if (r != 0)
			return r;
		kill = 0;
		change_begin(k, CHANGE_FALLOCATE);
		if (a.inline_len > 0 && end > 1) {
			/* Out of the inode, since an inode with extents holds nothing inline (C2). */
			uint8_t block[BLOCK_SIZE];

			r = contents_read_block(k, &a, 0, block);
			if (r < 0)
				return r;
			change_data(k, ino, 0, block, BLOCK_SIZE);
			change_kill(k, ino, &caps);
			change_attr(k, &a);
			r = change_commit_part(k);
			if (r < 0)
				return r;
			continue;
		}
		if (a.inline_len > 0 && end <= 1) {
			at = end;       /* contents stay in the inode: see README, "Limits" */
		} else {
			r = allocate_some(k, &a, at, end, &at);
			if (r < 0)
				return r;
		}
		change_kill(k, ino, &caps);
		attr_touch(k, &a, true);
		if (at >= end && !keep_size && off + len > a.size)
			a.size = off + len;
		change_attr(k, &a);
		r = at < end ? change_commit_part(k) : change_commit(k);
		if (r < 0) {
			give_back_named(k);
			return r;
		}
	} while (at < end);
	return 0;
}

static int punch(struct keys *k, uint64_t ino, uint64_t off, uint64_t len, unsigned kill, int (*commit)(struct keys *k))
{
	struct keys_attr a = { 0 };
	struct xattr_place caps = { 0 };
	int r = change_reserve(k, 8, 2, true);

	if (r == 0)
		r = inode_get_to_change(k, ino, &a);
	if (r == 0)
		r = plan_kill(k, &a, kill, &caps);
	if (r != 0)
		return r;
	r = contents_check(k, &a, off, off + len);
	if (r < 0)
		return r;
	attr_touch(k, &a, true);
	change_begin(k, CHANGE_PUNCH);
	change_kill(k, ino, &caps);
	change_punch(k, ino, off, off + len);
	change_attr(k, &a);
	return commit(k);
}

int keys_fallocate(struct keys *k, uint64_t ino, int mode, uint64_t off, uint64_t len, unsigned kill)
{
	struct keys_attr a;
	int r = inode_get_to_change(k, ino, &a);

	if (r < 0)
		return r;
	if (store_read_only(k->store) || store_failed(k->store))
		return -EROFS;
	if (!S_ISREG(a.mode))
		return S_ISDIR(a.mode) ? -EISDIR : -ENODEV;
	if (len == 0)
		return -EINVAL;
	if (off > KEYS_SIZE_MAX || len > KEYS_SIZE_MAX - off)
		return -EFBIG;
	switch (mode) {
	case 0:
	case FALLOC_FL_KEEP_SIZE:
		return preallocate(k, ino, off, len, mode != 0, kill);
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
		return punch(k, ino, off, len, kill, change_commit);
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		/* Asked for before the punch, so that -EAGAIN means that nothing was done. */
		r = reserve_some(k, len / BLOCK_SIZE + 2);
		if (r == 0)
			r = punch(k, ino, off, len, kill, change_commit_part);
		return r < 0 ? r : preallocate(k, ino, off, len, mode & FALLOC_FL_KEEP_SIZE, 0);
	default:
		return -EOPNOTSUPP;
	}
}

int keys_copy_range(struct keys *k, uint64_t src, uint64_t src_off, uint64_t dst, uint64_t dst_off, size_t len,
		    unsigned kill, size_t *ret_copied)
{
	static uint8_t buf[KEYS_WRITE_MAX];     /* request thread only */
	struct iovec iov[600];
	size_t bytes, done = 0;
	int n, i, r;

	len = (size_t)min_u64(len, sizeof buf);
	r = keys_read(k, src, src_off, len, iov, ARRAY_LEN(iov), &n, &bytes);
	if (r != 0)
		return r;
	for (i = 0; i < n; i++) {
		memcpy(buf + done, iov[i].iov_base, iov[i].iov_len);
		done += iov[i].iov_len;
	}
	if (done == 0) {
		*ret_copied = 0;
		return 0;
	}
	return keys_write(k, dst, dst_off, buf, done, kill, ret_copied);
}
