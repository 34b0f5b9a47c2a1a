/* SPDX-License-Identifier: MIT
 *
 * dump: one walk over the tree in the order of its keys, which is the order of the stream: an inode, its attributes, its
 * entries, its contents. Nothing of it depends on where things stand in the store or in which order they came there.
 */
#include "core/stream/stream_int.h"

#include "core/store/store.h"

#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>

struct dumper {
	struct keys *k;
	struct tree *tree;
	struct stream_writer *w;
	struct rules rules;
	uint64_t ino;                   /* the inode at hand */
	uint64_t size;
	uint64_t orphan;                /* the next orphan at or behind it, UINT64_MAX: none */
	uint8_t *value;                 /* KEYS_XATTR_MAX bytes */
};

/* A range of the file whose blocks are all of one kind. */
struct run {
	uint64_t from, to;              /* file blocks */
	bool unwritten;
};

static int dump_inode(struct dumper *d, const struct keys_attr *attr, const uint8_t *contents, uint32_t len)
{
	const struct keys_time *t[4] = { &attr->atime, &attr->mtime, &attr->ctime, &attr->btime };
	struct keys_attr a = *attr;
	uint8_t *p;
	int i, r;

	/* The other flags say what attributes there are: whoever reads these knows. */
	a.flags &= KEYS_ATTR_INLINE;
	r = rules_inode(&d->rules, &a, len);
	if (r < 0)
		return r;
	p = writer_item(d->w, STREAM_INODE, SI_LEN + len, &r);
	if (!p)
		return r;
	put_le64(p + SI_INO, a.ino);
	put_le32(p + SI_MODE, a.mode);
	put_le32(p + SI_NLINK, a.nlink);
	put_le32(p + SI_UID, a.uid);
	put_le32(p + SI_GID, a.gid);
	put_le64(p + SI_SIZE, a.size);
	put_le64(p + SI_AUX, a.aux);
	put_le32(p + SI_FLAGS, a.flags ? STREAM_INLINE : 0);
	for (i = 0; i < 4; i++) {
		put_le32(p + SI_NSEC + 4 * i, t[i]->nsec);
		put_le64(p + SI_SEC + 8 * i, (uint64_t)t[i]->sec);
	}
	memcpy(p + SI_LEN, contents, len);
	return 0;
}

static int dump_xattr(void *ctx, const struct sorted_name *n)
{
	struct dumper *d = ctx;
	size_t len;
	uint8_t *p;
	int r;

	if (memchr(n->name, '\0', n->len))
		return err_corrupt("inode %llu: extended attribute is damaged", (unsigned long long)d->ino);
	r = xattr_read_at(d->k, d->ino, n->lo, d->value, KEYS_XATTR_MAX, &len);
	if (r == -ENODATA || r == -ERANGE)
		return err_corrupt("inode %llu: extended attribute is damaged", (unsigned long long)d->ino);
	if (r == 0)
		r = rules_xattr(&d->rules, n->name, n->len, (uint32_t)len);
	if (r < 0)
		return r;
	p = writer_item(d->w, STREAM_XATTR, SX_LEN + n->len + (uint32_t)len, &r);
	if (!p)
		return r;
	p[SX_NAME_LEN] = (uint8_t)n->len;
	put_le32(p + SX_VALUE_LEN, (uint32_t)len);
	memcpy(p + SX_LEN, n->name, n->len);
	memcpy(p + SX_LEN + n->len, d->value, len);
	return 0;
}

static int dump_entry(void *ctx, const struct sorted_name *n)
{
	struct dumper *d = ctx;
	struct dirent e;
	uint8_t *p;
	int r = dirent_decode(n->value, n->value_len, item_key(d->ino, ITEM_DIRENT, 0), &e);

	if (r == 0)
		r = rules_entry(&d->rules, n->name, n->len, e.ino, e.type);
	if (r < 0)
		return r;
	p = writer_item(d->w, STREAM_ENTRY, SE_LEN + n->len, &r);
	if (!p)
		return r;
	put_le64(p + SE_INO, e.ino);
	p[SE_TYPE] = (uint8_t)(e.type >> 12);
	p[SE_NAME_LEN] = (uint8_t)n->len;
	memcpy(p + SE_LEN, n->name, n->len);
	return 0;
}

/* Contents -------------------------------------------------------------------------------------------------------- */

/* keys_read() verifies the checksum of every block. */
static int dump_data(struct dumper *d, uint64_t off, uint64_t len)
{
	struct iovec iov[CHUNK_BYTES / BLOCK_SIZE + 1];
	size_t bytes = 0;
	uint8_t *p;
	int i, n = 0, r = rules_data(&d->rules, off, len);

	if (r == 0)
		r = keys_read(d->k, d->ino, off, len, iov, ARRAY_LEN(iov), &n, &bytes);
	if (r == 0 && bytes != len)
		r = err_corrupt("inode %llu: contents end early", (unsigned long long)d->ino);
	if (r < 0)
		return r;
	p = writer_item(d->w, STREAM_DATA, SD_LEN + (uint32_t)len, &r);
	if (!p)
		return r;
	put_le64(p + SD_OFFSET, off);
	for (i = 0, p += SD_LEN; i < n; p += iov[i].iov_len, i++)
		memcpy(p, iov[i].iov_base, iov[i].iov_len);
	return 0;
}

static int dump_run(struct dumper *d, const struct run *run)
{
	uint64_t at = run->from << BLOCK_SHIFT, end = run->to << BLOCK_SHIFT;
	uint8_t *p;
	int r = 0;

	if (run->from == run->to)
		return 0;
	if (run->unwritten) {
		r = rules_unwritten(&d->rules, at, end - at);
		p = r < 0 ? NULL : writer_item(d->w, STREAM_UNWRITTEN, SU_LEN, &r);
		if (!p)
			return r;
		put_le64(p + SU_OFFSET, at);
		put_le64(p + SU_BYTES, end - at);
		return 0;
	}
	/* The rest of the last block is zeros that nobody can read. */
	end = min_u64(end, d->size);
	while (at < end && r == 0) {
		uint64_t len = min_u64(CHUNK_BYTES - at % CHUNK_BYTES, end - at);

		r = dump_data(d, at, len);
		at += len;
	}
	return r;
}

/* The next piece of the file: it makes the run at hand longer, or it is another one. */
static int dump_piece(struct dumper *d, struct run *run, uint64_t from, uint64_t to, bool unwritten)
{
	int r = 0;

	if (from >= to)
		return 0;
	if (from != run->to || unwritten != run->unwritten) {
		r = dump_run(d, run);
		*run = (struct run){ from, from, unwritten };
	}
	run->to = to;
	return r;
}

/* All extents from the cursor on; it is left at the first item behind them. Neighbours of one kind are one run, however
 * many extents they are in. A block behind the file's end holds zeros, so it is as good as unwritten. */
static int dump_contents(struct dumper *d, struct tree_cursor *c)
{
	uint64_t eof = div_up(d->size, BLOCK_SIZE);
	struct run run = { 0 };
	int r = 0, next = 0;

	while (r == 0 && next == 0 && cursor_key(c).hi == item_key(d->ino, ITEM_EXTENT, 0).hi) {
		struct extent e;
		uint32_t len;
		const uint8_t *v = cursor_value(c, &len);
		uint64_t end, split;

		r = extent_decode(v, len, cursor_key(c), &e);
		if (r < 0)
			return r;
		if (e.fblock < run.to)
			return err_corrupt("inode %llu: extents overlap", (unsigned long long)d->ino);
		end = e.fblock + e.count;
		split = e.flags & EXTENT_UNWRITTEN ? e.fblock : min_u64(end, max_u64(e.fblock, eof));
		r = dump_piece(d, &run, e.fblock, split, false);
		if (r == 0)
			r = dump_piece(d, &run, split, end, true);
		next = cursor_next(c);
	}
	if (r == 0)
		r = dump_run(d, &run);
	return r < 0 ? r : next;
}

/* The walk -------------------------------------------------------------------------------------------------------- */

/* Is the cursor at an item of this kind of the inode at hand? */
static bool is_at(const struct dumper *d, const struct tree_cursor *c, enum item_kind kind)
{
	return c->levels > 0 && cursor_key(c).hi == item_key(d->ino, kind, 0).hi;
}

/* Everything of one inode; the cursor stands at its INODE item and is left at the next one. 0, -ENOENT: no more. */
static int dump_one(struct dumper *d, struct tree_cursor *c)
{
	struct key key = cursor_key(c);
	struct keys_attr a;
	const uint8_t *v;
	uint32_t len;
	int r;

	d->ino = key.hi >> 8;
	if ((key.hi & 0xff) != ITEM_INODE || key.lo != 0)
		return err_corrupt("inode %llu: it is not there, but something of it is", (unsigned long long)d->ino);
	v = cursor_value(c, &len);
	r = inode_decode(v, len, d->ino, &a);
	if (r < 0)
		return r;
	if (d->ino > d->orphan) {
		r = keys_next_orphan(d->k, d->ino, &d->orphan);
		if (r < 0 && r != -ENOENT)
			return r;
		if (r == -ENOENT)
			d->orphan = UINT64_MAX;
	}
	if (d->ino == d->orphan)
		return tree_seek(d->tree, item_key(d->ino + 1, 0, 0), c);
	d->size = a.size;
	r = dump_inode(d, &a, v + INODE_SIZE, len - INODE_SIZE);
	if (r == 0)
		r = cursor_next(c);
	if (r == 0 && is_at(d, c, ITEM_XATTR)) {
		r = sorted_names(d->tree, item_key(d->ino, ITEM_XATTR, 0).hi, SORTED_KEEP, dump_xattr, d);
		if (r == 0)
			r = tree_seek(d->tree, item_key(d->ino, ITEM_DIRENT, 0), c);
	}
	if (r == 0 && is_at(d, c, ITEM_DIRENT)) {
		r = sorted_names(d->tree, item_key(d->ino, ITEM_DIRENT, 0).hi, SORTED_KEEP, dump_entry, d);
		if (r == 0)
			r = tree_seek(d->tree, item_key(d->ino, ITEM_EXTENT, 0), c);
	}
	if (r == 0 && is_at(d, c, ITEM_EXTENT))
		r = dump_contents(d, c);
	return r;
}

static int dump_all(struct dumper *d)
{
	struct store *s = keys_store(d->k);
	struct tree_cursor c;
	/* Items of inode 0 are the store's own. */
	int r = tree_seek(d->tree, item_key(1, 0, 0), &c);

	while (r == 0) {
		r = dump_one(d, &c);
		if (r == 0 && cursor_key(&c).hi >> 8 <= d->ino)
			return err_corrupt("inode %llu: an item of unknown kind", (unsigned long long)d->ino);
	}
	if (r != -ENOENT)
		return r;
	r = rules_end(&d->rules, store_counts(s)->next_ino);
	return r < 0 ? r : writer_end(d->w, store_counts(s)->next_ino);
}

int dump_to(struct keys *k, struct stream_writer *w, struct stream_counts *counts)
{
	struct dumper *d = calloc(1, sizeof *d);
	uint64_t seed;
	int r = -ENOMEM;

	if (!d)
		goto out;
	d->k = k;
	d->w = w;
	d->tree = store_tree(keys_store(k));
	d->value = malloc(KEYS_XATTR_MAX);
	if (!d->value)
		goto out;
	r = getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed ? 0 : -EIO;
	if (r < 0)
		goto out;
	rules_init(&d->rules, seed, counts);
	r = dump_all(d);
out:
	writer_free(w);
	if (d)
		free(d->value);
	free(d);
	return r;
}

int stream_dump(struct keys *k, int fd, const struct stream_watch *watch, struct stream_counts *ret_counts)
{
	struct stream_counts counts = { 0 };
	struct stream_writer *w;
	int r;

	err_clear();
	r = writer_new(fd, watch, &counts, &w);
	if (r == 0)
		r = dump_to(k, w, &counts);
	if (r == 0)
		*ret_counts = counts;
	return r;
}
