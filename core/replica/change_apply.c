/* SPDX-License-Identifier: MIT
 *
 * change_apply: a change from elsewhere becomes a record of this store. Three looks at its mutations:
 * 1. survey: how much room it needs, by its framing alone;
 * 2. admit: would apply refuse it, whatever it says? What is in the journal must be applied, now and at every opening, so a
 *    peer that sends nonsense must not get it there. What can fail behind this is damage of this store only;
 * 3. build: bytes go to blocks of our own, the rest is copied.
 * Request thread. What is durable on return: as after any commit.
 *
 * Rules that hold for whatever a primary commits, and that admit relies on:
 * (A1) contents of one record are all of one kind: data of whole blocks, unwritten blocks, or DATA and PUNCH;
 * (A2) MAPs of a record are of one file, which exists, and ascend;
 * (A3) an inode is put when it is made, with a number that was never given out; ATTR changes it, but not its type;
 * (A4) items belong to inodes that exist.
 */
#include "core/replica/change.h"

#include "core/keys/keys_int.h"

#define MADE_MAX    4u          /* inodes that one change makes */
#define DELETED_MAX 160u        /* items that one change deletes; an attribute has 66 */
#define PIECES_MAX  (REC_EXTENTS_MAX - 32u)     /* unwritten extents of one of our records */
#define DATA_MAX    4096u

struct apply {
	struct keys *k;
	struct change_reader change;    /* at its first mutation */
	/* survey */
	unsigned items;
	uint64_t blocks;                /* of contents */
	bool maps_data, maps_unwritten, edits, grows;
	/* admit */
	struct keys_attr made[MADE_MAX];
	unsigned made_count, placed;    /* in the order of their PUTs; those that were passed so far */
	struct key deleted[DELETED_MAX];
	unsigned deleted_count;
	uint64_t map_ino, map_next;     /* of the last MAP: its file, the block behind it */
	uint64_t known;                 /* an inode that was found to exist */
	bool epoch;                     /* HISTORY is put */
	/* build */
	struct target target[REC_EXTENTS_MAX];
	unsigned target_count;
};

static int unfit(const struct apply *a, const char *what)
{
	return err_set(EPROTO, "change %llu does not fit: %s", (unsigned long long)a->change.info.seq, what);
}

/* Survey ---------------------------------------------------------------------------------------------------------- */

static int survey_map(struct apply *a, const struct mutation *m)
{
	struct change_map map;
	int r = change_map_decode(m, &map);

	if (r < 0)
		return r;
	if (map.data) {
		a->maps_data = true;
		a->items += 2 + map.count / 32;
	} else {
		a->maps_unwritten = true;
		a->items += 2;
	}
	a->grows = true;
	a->blocks += map.count;
	return 0;
}

static int survey_one(struct apply *a, const struct mutation *m)
{
	unsigned kind;

	switch (m->kind) {
	case MUT_PUT:
		kind = m->len < 16 ? 0 : get_le64(m->data) & 0xff;
		a->grows = a->grows || (m->len >= 16 && get_le64(m->data) >> 8 != 0 && kind != ITEM_DIRENT);
		a->items++;
		return 0;
	case MUT_DEL: case MUT_DELNAME: case MUT_ATTR: case MUT_CLIENT:
		a->items++;
		return 0;
	case MUT_DATA:
		a->edits = a->grows = true;
		a->items += 6;
		a->blocks += 3;
		return 0;
	case MUT_PUNCH:
		a->edits = true;
		a->items += 6;
		a->blocks += 2;
		return 0;
	case MUT_MAP:
		return survey_map(a, m);
	default:
		return m->kind >= MUT_IGNORABLE ? 0 : unfit(a, "an unknown kind of mutation");
	}
}

static int survey(struct apply *a)
{
	struct change_reader c = a->change;
	struct mutation m;
	int r;

	while ((r = change_next(&c, &m)) > 0) {
		r = survey_one(a, &m);
		if (r < 0)
			return r;
	}
	if (r == 0 && a->maps_data + a->maps_unwritten + a->edits > 1)
		r = unfit(a, "contents of several kinds");      /* (A1) */
	return r;
}

/* Admit ------------------------------------------------------------------------------------------------------------ */

/* The inode, also one that this change has made by now: apply finds what an earlier mutation has put, and no more. -EPROTO: there
 * is none. */
static int admit_inode(struct apply *a, uint64_t ino, struct keys_attr *ret)
{
	unsigned i;
	int r;

	for (i = 0; i < a->placed; i++)
		if (a->made[i].ino == ino) {
			*ret = a->made[i];
			return 0;
		}
	r = inode_get(a->k, ino, ret);
	if (r == 0)
		a->known = ino;
	return r == -ENOENT ? unfit(a, "an inode that is not there") : r;
}

/* Of an item that may stand before its inode. */
static int admit_owner(struct apply *a, uint64_t ino)
{
	struct keys_attr unused;
	unsigned i;

	for (i = a->placed; i < a->made_count; i++)
		if (a->made[i].ino == ino)
			return 0;
	return ino == a->known ? 0 : admit_inode(a, ino, &unused);
}

static int admit_new_inode(struct apply *a, struct key key, const uint8_t *v, uint32_t len)
{
	uint64_t ino = key.hi >> 8, next = store_counts(a->k->store)->next_ino;
	struct keys_attr attr = { 0 };

	/* (A3) */
	if (key.lo != 0 || ino >= INO_MAX - 1 || ino < next || a->made_count == MADE_MAX ||
	    (a->made_count > 0 && ino <= a->made[a->made_count - 1].ino))
		return unfit(a, "an inode with a number that was given out before");
	if (inode_decode(v, len, ino, &attr) < 0)
		return unfit(a, "an inode that cannot be");
	a->made[a->made_count++] = attr;
	return 0;
}

static int admit_put_own(struct apply *a, struct key key, const uint8_t *v, uint32_t len)
{
	struct keys_epoch e;
	bool marked;

	switch (key.hi) {
	case KIND_ORPHAN:
		if (orphan_decode(v, len, key.lo, &marked) < 0)
			return unfit(a, "an orphan that cannot be");
		return admit_owner(a, key.lo);
	case KIND_HISTORY:
		if (history_decode(v, len, key.lo, &e) < 0 || e.epoch != a->change.info.epoch ||
		    e.first_seq != a->change.info.seq || a->epoch)
			return unfit(a, "an epoch that it does not begin");
		a->epoch = true;
		return 0;
	default:
		return unfit(a, "an item of the store itself");
	}
}

static int admit_put(struct apply *a, const struct mutation *m)
{
	const uint8_t *v = m->data + 16;
	struct dirent d;
	struct key key;
	uint32_t len;

	if (m->len < 16 || m->len - 16 > ITEM_MAX)
		return unfit(a, "an item that cannot be");
	key = (struct key){ get_le64(m->data), get_le64(m->data + 8) };
	len = m->len - 16;
	if (key.hi >> 8 == 0)
		return admit_put_own(a, key, v, len);
	switch (key.hi & 0xff) {
	case ITEM_INODE:
		a->placed++;            /* admit_made() has looked at it */
		return 0;
	case ITEM_XATTR:
		/* The last part is empty where name and value fill those before it; the first one has a name. */
		return (len > 0 || (key.lo & 0xff) > 0) && len <= XATTR_HEADER + XATTR_CHUNK ? admit_owner(a, key.hi >> 8) :
		       unfit(a, "an extended attribute that cannot be");
	case ITEM_DIRENT:
		if (dirent_decode(v, len, key, &d) < 0)
			return unfit(a, "a name that cannot be");
		return admit_owner(a, key.hi >> 8);
	default:
		return unfit(a, "an item of unknown kind");
	}
}

static int admit_del(struct apply *a, const struct mutation *m)
{
	struct key key;
	const uint8_t *v;
	uint32_t len;
	unsigned i;
	int r;

	if (m->len < 16)
		return unfit(a, "a deletion that cannot be");
	key = (struct key){ get_le64(m->data), get_le64(m->data + 8) };
	if (key.hi >> 8 == 0 ? key.hi != KIND_HISTORY && key.hi != KIND_CLIENT :
	    (key.hi & 0xff) != ITEM_XATTR && (key.hi & 0xff) != ITEM_DIRENT)
		return unfit(a, "the deletion of what is not deleted that way");
	for (i = 0; i < a->deleted_count; i++)
		if (key_cmp(a->deleted[i], key) == 0)
			return unfit(a, "an item that it deletes twice");
	if (a->deleted_count == DELETED_MAX)
		return unfit(a, "too many deletions");
	a->deleted[a->deleted_count++] = key;
	r = tree_get(a->k->tree, key, &v, &len);
	return r == -ENOENT ? unfit(a, "the deletion of an item that is not there") : r;
}

static int admit_attr(struct apply *a, const struct mutation *m)
{
	struct keys_attr now = { 0 }, attr = { 0 };
	int r;

	if (m->len != 8 + INODE_SIZE || inode_decode(m->data + 8, INODE_SIZE, get_le64(m->data), &attr) < 0)
		return unfit(a, "attributes that cannot be");
	r = admit_inode(a, attr.ino, &now);
	/* The root would no longer be one, contents would become names. */
	if (r == 0 && (now.mode ^ attr.mode) & S_IFMT)
		r = unfit(a, "another type for an inode");
	return r;
}

/* DATA and PUNCH: damage of what they leave standing in their first and last block is met here, not in apply. */
static int admit_edit(struct apply *a, const struct mutation *m)
{
	struct keys_attr attr;
	uint64_t from, to;
	int r;

	if (m->kind == MUT_DATA ? m->len < 16 || m->len - 16 > DATA_MAX : m->len != 24)
		return unfit(a, "contents that cannot be");
	from = get_le64(m->data + 8);
	to = m->kind == MUT_PUNCH ? get_le64(m->data + 16) : from + (m->len - 16);
	if (from > to || to > KEYS_SIZE_MAX)
		return unfit(a, "contents behind the largest size");
	r = admit_inode(a, get_le64(m->data), &attr);
	if (r == 0 && !S_ISREG(attr.mode) && !S_ISLNK(attr.mode))
		r = unfit(a, "contents of what has none");
	return r < 0 ? r : contents_check(a->k, &attr, from, to);
}

static int admit_map(struct apply *a, const struct mutation *m)
{
	struct keys_attr attr;
	struct change_map map;
	int r = change_map_decode(m, &map);

	if (r < 0)
		return r;
	/* (A2) */
	if (a->map_ino ? map.ino != a->map_ino || map.fblock < a->map_next : a->made_count > 0)
		return unfit(a, "contents out of order");
	r = a->map_ino ? 0 : admit_inode(a, map.ino, &attr);
	if (r == 0 && !a->map_ino && !S_ISREG(attr.mode))
		r = unfit(a, "contents of what has none");
	a->map_ino = map.ino;
	a->map_next = map.fblock + map.count;
	return r;
}

static int admit_client(struct apply *a, const struct mutation *m)
{
	const uint8_t *v;
	uint32_t len;
	int r;

	if (m->len != CLIENT_MUTATION || get_le64(m->data) == 0 || get_le64(m->data + 8) == 0)
		return unfit(a, "a call that cannot be");
	r = tree_get(a->k->tree, (struct key){ KIND_CLIENT, get_le64(m->data) }, &v, &len);
	if (r == 0 && len != CLIENT_SIZE)
		r = err_corrupt("the item of client %llx has %u bytes", (unsigned long long)get_le64(m->data), len);
	return r == -ENOENT ? 0 : r;
}

/* What it makes comes first: attributes that something new inherits may stand before it. */
static int admit_made(struct apply *a)
{
	struct change_reader c = a->change;
	struct mutation m;
	struct key key;
	int r;

	while ((r = change_next(&c, &m)) > 0) {
		if (m.kind != MUT_PUT || m.len < 16 || m.len - 16 > ITEM_MAX)
			continue;
		key = (struct key){ get_le64(m.data), get_le64(m.data + 8) };
		if (key.hi >> 8 == 0 || (key.hi & 0xff) != ITEM_INODE)
			continue;
		r = admit_new_inode(a, key, m.data + 16, m.len - 16);
		if (r < 0)
			return r;
	}
	return r;
}

static int admit_one(struct apply *a, const struct mutation *m)
{
	switch (m->kind) {
	case MUT_PUT:
		return admit_put(a, m);
	case MUT_DEL: case MUT_DELNAME:
		return admit_del(a, m);
	case MUT_ATTR:
		return admit_attr(a, m);
	case MUT_DATA: case MUT_PUNCH:
		return admit_edit(a, m);
	case MUT_MAP:
		return admit_map(a, m);
	case MUT_CLIENT:
		return admit_client(a, m);
	default:
		return 0;               /* survey() knows them all */
	}
}

static int admit(struct apply *a)
{
	const struct change_info *i = &a->change.info;
	struct change_reader c = a->change;
	uint64_t epoch = store_epoch(a->k->store);
	struct mutation m;
	int r = admit_made(a);

	while (r == 0 && (r = change_next(&c, &m)) > 0) {
		r = admit_one(a, &m);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	/* The first change of an epoch says so, and no other one. */
	if (i->epoch < epoch || (i->epoch > epoch) != a->epoch || a->epoch != (i->type == CHANGE_EPOCH))
		return err_set(EPROTO, "change %llu is of epoch %llu, the store of epoch %llu", (unsigned long long)i->seq,
			       (unsigned long long)i->epoch, (unsigned long long)epoch);
	return 0;
}

/* Build ------------------------------------------------------------------------------------------------------------ */

static void begin_record(struct apply *a)
{
	const struct change_info *i = &a->change.info;
	struct record *rec = store_record(a->k->store);

	record_begin(rec, i->type, 0, i->time_ns);
	put_le64(rec->buf + REC_COMMITTED, i->committed);
	put_le64(rec->buf + REC_CLIENT, i->client);
	put_le64(rec->buf + REC_REQUEST, i->request);
}

static void put_map(struct record *rec, uint64_t ino, uint64_t fblock, uint32_t extent, uint32_t flags)
{
	uint8_t *p = record_mutation(rec, MUT_MAP, 24);

	put_le64(p, ino);
	put_le64(p + 8, fblock);
	put_le32(p + 16, extent);
	put_le32(p + 20, flags);
}

/* Bytes to blocks; the extents of the record. What a record of ours cannot name, in badly fragmented space, goes into it. */
static int build_extents(struct apply *a)
{
	struct record *rec = store_record(a->k->store);
	struct change_reader c = a->change;
	struct keys_attr attr;
	struct mutation m;
	struct change_map map;
	int r = a->maps_data ? inode_get(a->k, a->map_ino, &attr) : 0;

	while (r == 0 && a->maps_data && (r = change_next(&c, &m)) > 0) {
		unsigned n = 0, i;
		uint32_t done = 0, b;

		r = m.kind == MUT_MAP ? change_map_decode(&m, &map) : 0;
		if (r < 0 || m.kind != MUT_MAP)
			continue;
		r = contents_find_targets(a->k, &attr, map.fblock, map.count, a->target + a->target_count,
					  REC_EXTENTS_MAX - a->target_count, &n);
		if (r < 0)
			break;
		for (i = 0; i < n; i++) {
			const struct target *t = &a->target[a->target_count + i];
			uint8_t *csums;

			r = store_fill(a->k->store, t->block, t->count, map.data + ((size_t)done << BLOCK_SHIFT));
			if (r < 0)
				break;
			(void)record_extent(rec, t->block, t->count, EXT_DATA | (t->fresh ? EXT_FRESH : 0), &csums);
			for (b = 0; b < t->count; b++, done++)
				put_le32(csums + 4 * b, block_csum(map.data + ((size_t)done << BLOCK_SHIFT), map.ino,
								   map.fblock + done));
			store_unsynced(a->k->store, t->block, t->count);
		}
		a->target_count += n;
	}
	return r < 0 ? r : 0;
}

/* The extents were found in the same order. */
static void build_map(struct apply *a, const struct change_map *map, unsigned *next)
{
	struct record *rec = store_record(a->k->store);
	uint32_t done = 0;

	for (; done < map->count && *next < a->target_count; (*next)++) {
		put_map(rec, map->ino, map->fblock + done, *next, 0);
		done += a->target[*next].count;
	}
	for (; done < map->count; done++) {
		uint8_t *p = record_mutation(rec, MUT_DATA, 16 + BLOCK_SIZE);

		put_le64(p, map->ino);
		put_le64(p + 8, (map->fblock + done) << BLOCK_SHIFT);
		memcpy(p + 16, map->data + ((size_t)done << BLOCK_SHIFT), BLOCK_SIZE);
	}
}

static int build_mutations(struct apply *a)
{
	struct record *rec = store_record(a->k->store);
	struct change_reader c = a->change;
	struct mutation m;
	unsigned next = 0;
	int r;

	while ((r = change_next(&c, &m)) > 0) {
		struct change_map map;

		if (m.kind != MUT_MAP) {
			uint8_t *p = record_mutation(rec, m.kind, m.len);

			/* Past its end it begins anew, and is thrown away: see record.h. */
			if (!rec->overflow)
				memcpy(p, m.data, m.len);
			continue;
		}
		r = change_map_decode(&m, &map);
		if (r < 0)
			break;
		if (map.data)
			build_map(a, &map, &next);
		if (rec->overflow)
			break;
	}
	return r < 0 ? r : 0;
}

/* Unwritten space ------------------------------------------------------------------------------------------------- */

/* The record holds `target_count` pieces of it: their MAPs. */
struct piece_list {
	uint64_t fblock[PIECES_MAX];
};

static int commit_pieces(struct apply *a, const struct piece_list *p)
{
	unsigned i;
	int r;

	record_begin(store_record(a->k->store), CHANGE_FALLOCATE, REC_FLAG_INTERNAL, a->change.info.time_ns);
	for (i = 0; i < a->target_count; i++)
		(void)record_extent(store_record(a->k->store), a->target[i].block, a->target[i].count, EXT_FRESH, NULL);
	for (i = 0; i < a->target_count; i++)
		put_map(store_record(a->k->store), a->map_ino, p->fblock[i], i, MAP_UNWRITTEN);
	r = store_commit(a->k->store);
	if (r == 0)
		a->target_count = 0;
	/* Room for the next ones, and for the change itself. */
	return r < 0 ? r : change_reserve_own(a->k, a->items + PIECES_MAX / 16, a->blocks, false);
}

/* Find blocks for one range. Space that is unwritten already needs none: it was put there by a part of this change that was
 * committed before. */
static int take_pieces(struct apply *a, const struct change_map *map, struct piece_list *p)
{
	uint64_t at = map->fblock, end = map->fblock + map->count;
	int r = 0;

	while (r == 0 && at < end) {
		struct target *t;
		struct keys_attr attr;
		uint64_t next = 0, got = 0;
		bool there = false;

		if (a->target_count == PIECES_MAX) {
			r = commit_pieces(a, p);
			if (r < 0)
				break;
		}
		r = inode_get(a->k, map->ino, &attr);
		if (r == 0)
			r = contents_unwritten(a->k, &attr, at, &there, &next);
		if (r < 0)
			break;
		next = min_u64(next, end);
		if (there) {
			at = next;
			continue;
		}
		t = &a->target[a->target_count];
		r = store_alloc(a->k->store, next - at, &t->block, &got);
		if (r < 0)
			break;
		t->count = (uint32_t)got;
		t->fresh = true;
		p->fblock[a->target_count++] = at;
		at += got;
	}
	return r;
}

/* A range of unwritten space may be one piece with the primary and thousands here. What a record cannot name goes ahead in
 * internal ones. Crash between them: the file has some space more that reads as zeros, and the change comes again. */
static int build_unwritten(struct apply *a)
{
	struct change_reader c = a->change;
	struct piece_list p = { { 0 } };
	struct mutation m;
	unsigned i;
	int r;

	while ((r = change_next(&c, &m)) > 0) {
		struct change_map map;

		if (m.kind != MUT_MAP)
			continue;
		r = change_map_decode(&m, &map);
		if (r == 0)
			r = take_pieces(a, &map, &p);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	begin_record(a);
	for (i = 0; i < a->target_count; i++)
		(void)record_extent(store_record(a->k->store), a->target[i].block, a->target[i].count, EXT_FRESH, NULL);
	for (i = 0; i < a->target_count; i++)
		put_map(store_record(a->k->store), a->map_ino, p.fblock[i], i, MAP_UNWRITTEN);
	return 0;
}

/* All together ---------------------------------------------------------------------------------------------------- */

static int build(struct apply *a)
{
	int r;

	if (a->maps_unwritten) {
		r = build_unwritten(a);
	} else {
		begin_record(a);
		r = build_extents(a);
	}
	if (r == 0)
		r = build_mutations(a);
	return r;
}

static int commit(struct apply *a)
{
	struct store *s = a->k->store;
	uint64_t before = store_epoch(s);
	int r;

	store_set_epoch(s, a->change.info.epoch);
	r = store_commit(s);
	/* If it did not get into the journal, the next internal record is of the old epoch. */
	if (r < 0 && !store_failed(s))
		store_set_epoch(s, before);
	return r == -E2BIG ? unfit(a, "it is too long") : r;
}

int change_apply(struct keys *k, const uint8_t *bytes, uint32_t len)
{
	struct apply a;
	int r;

	if (!store_is_replica(k->store))
		return err_set(EROFS, "only a replica takes changes from elsewhere");
	memset(&a, 0, offsetof(struct apply, target));
	a.target_count = 0;
	a.k = k;
	r = change_open(&a.change, bytes, len);
	if (r < 0)
		return r;
	if (a.change.info.seq != store_seq(k->store) + 1)
		return err_set(EPROTO, "change %llu came, but change %llu is the next one",
			       (unsigned long long)a.change.info.seq, (unsigned long long)store_seq(k->store) + 1);
	r = survey(&a);
	/* First, since it may change the tree. */
	if (r == 0)
		r = change_reserve_own(k, a.items, a.blocks, !a.grows);
	if (r == 0)
		r = admit(&a);
	if (r == 0)
		r = build(&a);
	if (r == 0)
		r = commit(&a);
	/* Only an error that left everything as it was gives the blocks back; after others the store has failed. */
	if (r < 0 && !store_failed(k->store))
		contents_give_back(k, a.target, a.target_count);
	return r;
}
