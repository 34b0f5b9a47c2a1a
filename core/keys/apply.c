/* SPDX-License-Identifier: MIT
 *
 * apply: a record's mutations become changes of the tree. The only way the name space changes, live or in recovery. Trusts
 * nothing in the record but its framing: what does not fit the tree is -EUCLEAN.
 */
#include "core/keys/keys_int.h"

#define REAP_ITEMS 256u         /* items one REAP removes */

/* An item of the store itself. */
static int apply_put_own(struct keys *k, struct key key, const uint8_t *v, uint32_t len)
{
	struct store_counts *counts = store_counts(k->store);
	struct keys_epoch e;
	bool marked;
	int r;

	switch (key.hi) {
	case KIND_ORPHAN:
		r = orphan_decode(v, len, key.lo, &marked);
		break;
	case KIND_HISTORY:
		r = history_decode(v, len, key.lo, &e);
		/* Alike on all members, whatever numbers each of them has seen given out. */
		if (r == 0)
			counts->next_ino = max_u64(counts->next_ino, e.next_ino);
		break;
	default:
		return err_corrupt("record puts an item of the store, kind %llu", (unsigned long long)key.hi);
	}
	return r < 0 ? r : tree_put(k->tree, key, v, len);
}

static int apply_put(struct keys *k, const uint8_t *data, uint32_t len)
{
	struct store_counts *counts = store_counts(k->store);
	struct keys_attr a;
	struct key key;
	uint64_t ino;
	int r;

	if (len < 16 || len - 16 > ITEM_MAX)
		return err_corrupt("record puts an item of %u bytes", len);
	key = (struct key){ get_le64(data), get_le64(data + 8) };
	ino = key.hi >> 8;
	if (ino == 0)
		return apply_put_own(k, key, data + 16, len - 16);
	/* Extents come with MAP only, which knows whose blocks they are. */
	if (ino >= INO_MAX - 1 || (key.hi & 0xff) < ITEM_INODE || (key.hi & 0xff) > ITEM_DIRENT)
		return err_corrupt("record puts an item of inode %llu, kind %u", (unsigned long long)ino,
				   (unsigned)(key.hi & 0xff));
	if ((key.hi & 0xff) == ITEM_INODE) {
		r = inode_decode(data + 16, len - 16, ino, &a);
		if (r < 0)
			return r;
		/* Numbers only grow, so one not seen before is a new inode. */
		if (ino >= counts->next_ino) {
			counts->next_ino = ino + 1;
			counts->inodes++;
		}
	}
	return tree_put(k->tree, key, data + 16, len - 16);
}

static int apply_del(struct keys *k, const uint8_t *data, uint32_t len)
{
	struct key key;
	int r;

	if (len < 16)
		return err_corrupt("record deletes an item, %u bytes", len);
	key = (struct key){ get_le64(data), get_le64(data + 8) };
	/* Contents and inodes go through PUNCH and REAP, which give their blocks back. */
	if (key.hi >> 8 == 0 ? key.hi != KIND_HISTORY && key.hi != KIND_CLIENT :
	    (key.hi & 0xff) != ITEM_XATTR && (key.hi & 0xff) != ITEM_DIRENT)
		return err_corrupt("record deletes an item of kind %u", (unsigned)(key.hi & 0xff));
	r = tree_del(k->tree, key);
	return r == -ENOENT ? err_corrupt("record deletes an item that is not there") : r;
}

static int apply_attr(struct keys *k, const uint8_t *data, uint32_t len)
{
	struct keys_attr now = { 0 }, a = { 0 };
	uint32_t have;
	uint64_t ino;
	uint8_t *v;
	int r;

	if (len != 8 + INODE_SIZE)
		return err_corrupt("record sets attributes, %u bytes", len);
	ino = get_le64(data);
	if (ino == 0 || ino >= INO_MAX)
		return err_corrupt("record sets attributes of inode %llu", (unsigned long long)ino);
	r = tree_patch(k->tree, item_key(ino, ITEM_INODE, 0), &v, &have);
	if (r < 0)
		return r == -ENOENT ? err_corrupt("record sets attributes of a missing inode") : r;
	r = inode_decode(v, have, ino, &now);
	if (r == 0)
		r = inode_decode(data + 8, INODE_SIZE, ino, &a);
	if (r < 0)
		return r;
	/* Where the contents are is known to the functions that put them there. */
	a.blocks = now.blocks;
	a.flags = (a.flags & ~KEYS_ATTR_INLINE) | (now.flags & KEYS_ATTR_INLINE);
	inode_encode(v, &a);
	return 0;
}

/* The call of a remote mount is complete with this record. */
static int apply_client(struct keys *k, const uint8_t *data, uint32_t len, seq_t seq)
{
	struct key key;
	uint64_t request;
	uint32_t have;
	uint8_t *v;
	int r;

	if (len != CLIENT_MUTATION || get_le64(data) == 0 || get_le64(data + 8) == 0)
		return err_corrupt("record is the call of a client, %u bytes", len);
	key = (struct key){ KIND_CLIENT, get_le64(data) };
	request = get_le64(data + 8);
	r = tree_patch(k->tree, key, &v, &have);
	if (r == -ENOENT) {
		have = CLIENT_SIZE;
		r = tree_put_place(k->tree, key, CLIENT_SIZE, &v);
		if (r == 0)
			memset(v, 0, CLIENT_SIZE);
	}
	if (r == 0 && have != CLIENT_SIZE)
		r = err_corrupt("the item of client %llx has %u bytes", (unsigned long long)key.lo, have);
	if (r < 0)
		return r;
	v += request % KEYS_CALL_SLOTS * CLIENT_SLOT;
	put_le64(v + CLIENT_REQUEST, request);
	put_le64(v + CLIENT_SEQ, seq);
	put_le64(v + CLIENT_NUMBER, get_le64(data + 16));
	return 0;
}

static int reap_items(struct keys *k, uint64_t ino, enum item_kind kind, unsigned *budget)
{
	while (*budget > 0) {
		struct tree_cursor c;
		struct key key = item_key(ino, kind, 0);
		int r = tree_seek(k->tree, key, &c);

		if (r == -ENOENT || (r == 0 && cursor_key(&c).hi != key.hi))
			return 0;
		if (r == 0)
			r = tree_del(k->tree, cursor_key(&c));
		if (r < 0)
			return r;
		(*budget)--;
	}
	return 1;
}

static int apply_reap(struct keys *k, const uint8_t *data, uint32_t len)
{
	struct key orphan;
	struct keys_attr a;
	unsigned budget = REAP_ITEMS;
	const uint8_t *v;
	uint32_t n;
	int r;

	if (len != 8)
		return err_corrupt("record reaps, %u bytes", len);
	orphan = (struct key){ KIND_ORPHAN, get_le64(data) };
	r = tree_get(k->tree, orphan, &v, &n);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = inode_get(k, orphan.lo, &a);
	/* A damaged store's: there is nothing to reap, but no reason to try for ever. */
	if (r == -ENOENT || (r == 0 && a.nlink != 0))
		return tree_del(k->tree, orphan);
	if (r == 0)
		r = contents_reap(k, a.ino, &budget);
	if (r == 0)
		r = reap_items(k, a.ino, ITEM_XATTR, &budget);
	if (r == 0)
		r = reap_items(k, a.ino, ITEM_DIRENT, &budget);
	if (r != 0)
		return r < 0 ? r : 0;
	/* The inode last, so that whoever looks in between finds an orphan. */
	r = tree_del(k->tree, item_key(a.ino, ITEM_INODE, 0));
	if (r == 0)
		r = tree_del(k->tree, orphan);
	if (r == 0)
		store_counts(k->store)->inodes--;
	return r;
}

static int apply_contents(struct keys *k, const struct record_reader *reader, const struct mutation *m)
{
	const uint8_t *d = m->data;

	switch (m->kind) {
	case MUT_DATA:
		if (m->len < 16)
			break;
		return contents_apply_data(k, get_le64(d), get_le64(d + 8), d + 16, m->len - 16);
	case MUT_MAP:
		if (m->len != 24 || get_le32(d + 16) >= reader->extent_count)
			break;
		return contents_apply_map(k, get_le64(d), get_le64(d + 8), &reader->extents[get_le32(d + 16)],
					  get_le32(d + 20));
	case MUT_PUNCH:
		if (m->len != 24)
			break;
		return contents_apply_punch(k, get_le64(d), get_le64(d + 8), get_le64(d + 16));
	default:
		break;
	}
	return err_corrupt("record has a mutation of kind %u with %u bytes", m->kind, m->len);
}

/* Do the blocks that a MAP names hold the contents that it makes of them? */
static bool map_whole(struct keys *k, uint64_t ino, uint64_t fblock, const struct record_extent *e)
{
	uint32_t b;

	for (b = 0; e->flags & EXT_DATA && b < e->count; b++) {
		int unused;
		const void *p = store_blocks(k->store, e->block + b, 1, &unused);

		if (!p || block_csum(p, ino, fblock + b) != get_le32(e->csums + 4 * b))
			return false;
	}
	return true;
}

int keys_whole(void *ctx, const struct record_reader *reader)
{
	struct keys *k = ctx;
	struct record_reader own = *reader;
	bool mapped[REC_EXTENTS_MAX] = { false };
	struct mutation m;
	int r;

	while ((r = record_next(&own, &m)) > 0) {
		uint32_t i = m.kind == MUT_MAP && m.len == 24 ? get_le32(m.data + 16) : REC_EXTENTS_MAX;

		if (i >= reader->extent_count)
			continue;               /* no MAP, or one that apply refuses */
		if (mapped[i])
			return err_corrupt("record maps an extent twice");
		mapped[i] = true;
		if (!map_whole(k, get_le64(m.data), get_le64(m.data + 8), &reader->extents[i]))
			return 0;
	}
	return r < 0 ? r : 1;
}

static int apply_mutation(struct keys *k, const struct record_reader *reader, const struct mutation *m)
{
	switch (m->kind) {
	case MUT_PUT:
		return apply_put(k, m->data, m->len);
	case MUT_DEL:
	case MUT_DELNAME:
		return apply_del(k, m->data, m->len);
	case MUT_ATTR:
		return apply_attr(k, m->data, m->len);
	case MUT_REAP:
		return apply_reap(k, m->data, m->len);
	case MUT_CLIENT:
		return apply_client(k, m->data, m->len, get_le64(reader->rec + REC_SEQ));
	default:
		return m->kind < MUT_IGNORABLE ? apply_contents(k, reader, m) : 0;
	}
}

int keys_apply(void *ctx, struct record_reader *reader, const uint8_t *rec)
{
	struct mutation m;
	int r;

	(void)rec;
	while ((r = record_next(reader, &m)) > 0) {
		r = apply_mutation(ctx, reader, &m);
		if (r < 0)
			return r;
	}
	return r;
}

int keys_apply_rest(void *ctx, struct record_reader *reader, const uint8_t *rec)
{
	struct keys *k = ctx;
	struct mutation m;
	int r;

	while ((r = record_next(reader, &m)) > 0) {
		r = apply_mutation(k, reader, &m);
		if (r < 0 && r != -EUCLEAN && r != -ENOENT)
			return r;
		if (r < 0)
			salvage_say(k->salvage, SALVAGE_FOLLOWS, "change %llu cannot be applied as a whole: %s",
				    (unsigned long long)get_le64(rec + REC_SEQ), err_last());
	}
	if (r < 0)
		salvage_say(k->salvage, SALVAGE_FOLLOWS, "change %llu: %s", (unsigned long long)get_le64(rec + REC_SEQ),
			    err_last());
	return 0;
}
