/* SPDX-License-Identifier: MIT
 *
 * edit: the first part of an input: changes to the image of a store, each followed by what makes its checksums right.
 * Works on the index of the untouched image, so it never depends on what the image became; it trusts no byte that an
 * earlier opcode may have changed.
 */
#include "tests/fuzz/world_util.h"

#include "core/store/space.h"

#include <stdlib.h>

#define OPCODES     17u
#define OPEN        0xffu       /* from here on the input names calls */
#define EDITS_MAX   64u
#define RECORDS_MAX 128u

struct edit {
	uint8_t *image;
	const struct world_index *ix;
	uint64_t blocks;
	uint8_t dirty[WORLD_LARGE / BLOCK_SIZE / 8];    /* tree pages to be sealed */
	bool super_dirty[2], slot_dirty[3];
	/* The records behind the checkpoint, as they will be written. */
	uint8_t *rec[RECORDS_MAX];
	uint32_t len[RECORDS_MAX];
	bool crooked[RECORDS_MAX];                      /* its checksum stays wrong */
	unsigned rec_count;
	bool journal_dirty;
};

static uint8_t arena[1u << 20];         /* records of this execution */
static size_t arena_used;
static struct record building;

static uint8_t *block_at(const struct edit *e, block_t b)
{
	return e->image + (b % e->blocks) * BLOCK_SIZE;
}

static void touch_page(struct edit *e, block_t b)
{
	b %= e->blocks;
	e->dirty[b / 8] |= (uint8_t)(1u << b % 8);
}

/* The index ------------------------------------------------------------------------------------------------------- */

static void learn_page(struct world_index *ix, const uint8_t *image, block_t block)
{
	const uint8_t *p = image + block * BLOCK_SIZE;
	unsigned i;

	check(ix->page_count < WORLD_PAGES_MAX);
	if (page_level(p) == 0) {
		memmove(ix->pages + ix->leaf_count + 1, ix->pages + ix->leaf_count,
			(ix->page_count - ix->leaf_count) * sizeof *ix->pages);
		ix->pages[ix->leaf_count++] = block;
	} else {
		ix->pages[ix->page_count] = block;
	}
	ix->page_count++;
	for (i = 0; i < page_count(p); i++) {
		block_t child;
		gen_t gen;

		if (page_level(p) > 0) {
			inner_child(p, i, &child, &gen);
			learn_page(ix, image, child);
		} else if (ix->item_count < WORLD_ITEMS_MAX) {
			ix->items[ix->item_count++] = (struct world_item){ page_key(p, i), block };
		}
	}
}

static void know_block(block_t b)
{
	if (world.block_count < ARRAY_LEN(world.blocks))
		world.blocks[world.block_count++] = b;
}

void image_learn(void)
{
	unsigned w, i;

	for (w = 0; w < WORLDS; w++) {
		struct world_index *ix = &world.index[w];

		check(super_pick_at(world.bytes[w], world.size[w] / BLOCK_SIZE, &ix->sb, &ix->slot) == 0);
		learn_page(ix, world.bytes[w], ix->sb.root.block);
		for (i = 0; i < ix->page_count; i++)
			know_block(ix->pages[i]);
		for (i = 0; i < ix->sb.seg_count; i++)
			know_block(ix->sb.segs[i]);
	}
	for (i = 0; i < world.index[1].item_count; i++) {
		const struct world_item *it = &world.index[1].items[i];
		const uint8_t *leaf = world.bytes[1] + it->leaf * BLOCK_SIZE;
		uint32_t len;
		bool found;

		if ((it->key.hi & 0xff) == ITEM_EXTENT)
			know_block(get_le64(leaf_value(leaf, page_lower(leaf, it->key, &found), &len)));
	}
	for (i = 0; i < 8; i++)
		know_block(i);
	know_block(WORLD_SMALL / BLOCK_SIZE - 1);
	check(record_init(&building) == 0);
}

/* Pages and items ------------------------------------------------------------------------------------------------- */

/* A leaf whose inside is in order, so that page.c may change it; NULL otherwise. */
static uint8_t *sound_leaf(struct edit *e, block_t b)
{
	uint8_t *p = block_at(e, b);

	return page_level(p) == 0 && page_validate(p, get_le64(p + PAGE_BLOCK), page_gen(p), 0,
						   get_le64(p + PAGE_STORE)) == 0 ? p : NULL;
}

static block_t leaf_for(const struct edit *e, struct key k)
{
	unsigned i;
	block_t leaf = e->ix->pages[0];

	for (i = 0; i < e->ix->item_count && key_cmp(e->ix->items[i].key, k) <= 0; i++)
		leaf = e->ix->items[i].leaf;
	return leaf;
}

static void put_item(struct edit *e, struct key k, const uint8_t *v, uint32_t len)
{
	block_t b = leaf_for(e, k);
	uint8_t *p = sound_leaf(e, b);
	unsigned i;
	bool found;

	if (!p || len > ITEM_MAX)
		return;
	i = page_lower(p, k, &found);
	if (found)
		leaf_remove(p, i);
	while (leaf_room(p) < LEAF_ENTRY + len && page_count(p) > 0) {
		leaf_remove(p, page_count(p) - 1);
		i = page_lower(p, k, &found);
	}
	memcpy(leaf_insert(p, i, k, len), v, len);
	touch_page(e, b);
}

static struct key in_key(struct input *in, const struct edit *e)
{
	uint8_t how = in_u8(in);

	if (how < 64)
		return e->ix->items[in_u16(in) % e->ix->item_count].key;
	if (how < 80)
		return (struct key){ how % 2 ? KIND_ORPHAN : KIND_SPACE, in_value(in) };
	return (struct key){ in_value(in) << 8 | (how % 5 ? how % 5 : in_u8(in)), in_value(in) };
}

static uint32_t make_inode(struct input *in, uint8_t *v)
{
	struct keys_attr a = { .mode = S_IFREG | 0644, .nlink = 1 };
	uint8_t what = in_attr(in, &a);

	if (what & 64)
		a.mtime = (struct keys_time){ (int64_t)in_value(in), (uint32_t)in_value(in) };
	inode_encode(v, &a);
	return INODE_SIZE + (what & 128 ? in_bytes(in, v + INODE_SIZE, INLINE_MAX) : 0);
}

/* An extent. Its checksums are those of the blocks that it names, or those of another file's extent: what somebody could
 * do who knows no contents. */
static uint32_t make_extent(struct input *in, struct edit *e, struct key k, uint8_t *v)
{
	struct extent x = { .block = in_value(in), .gen = in_value(in), .flags = in_u8(in) % 4 };
	uint8_t how = in_u8(in);
	uint32_t i, max = x.flags & EXTENT_UNWRITTEN ? 65535 : EXT_COUNT_MAX;

	x.count = (uint32_t)(in_value(in) % (max + 1));
	for (i = 0; i < x.count && !(x.flags & EXTENT_UNWRITTEN); i++) {
		const uint8_t *p = block_at(e, x.block + i);

		if (how & 1) {
			world.honest = false;
			put_le32(x.csums + 4 * i, block_csum(p, k.hi >> 8, k.lo + i));
		} else if (get_le64(p) == TAG_MAGIC) {
			/* As the file has it whose block this is. */
			put_le32(x.csums + 4 * i, block_csum(p, get_le64(p + 8), get_le64(p + 16)));
		}
	}
	extent_encode(v, &x);
	if (!(x.flags & EXTENT_UNWRITTEN) && x.count > EXT_COUNT_MAX)
		return EXTENT_HEADER;
	return extent_item_len(x.count, x.flags);
}

static uint32_t make_item(struct input *in, struct edit *e, struct key k, uint8_t *v)
{
	uint8_t how = in_u8(in);

	memset(v, 0, ITEM_MAX);
	if (how >= 224) {
		world.honest = false;
		return in_bytes(in, v, ITEM_MAX);
	}
	switch (k.hi & 0xff) {
	case ITEM_INODE:
		return make_inode(in, v);
	case ITEM_XATTR:
		v[0] = in_u8(in);
		put_le32(v + 4, (uint32_t)in_value(in));
		return XATTR_HEADER + in_bytes(in, v + XATTR_HEADER, ITEM_MAX - XATTR_HEADER);
	case ITEM_DIRENT:
		put_le64(v, in_value(in));
		v[8] = in_u8(in) & 15;
		return DIRENT_HEADER + in_bytes(in, v + DIRENT_HEADER, 300);
	case ITEM_EXTENT:
		return make_extent(in, e, k, v);
	case KIND_SPACE:
		put_le64(v, in_value(in));
		return 8;
	default:
		return how & 1 ? in_bytes(in, v, ITEM_MAX) : 0;
	}
}

static void edit_put(struct edit *e, struct input *in)
{
	struct key k = in_key(in, e);
	uint8_t v[ITEM_MAX + 100];

	put_item(e, k, v, make_item(in, e, k, v));
}

/* Where the item's value is now, if it is still there. */
static uint8_t *find_item(struct edit *e, const struct world_item *it, uint32_t *ret_len)
{
	uint8_t *p = sound_leaf(e, it->leaf);
	unsigned i;
	bool found = false;

	if (!p)
		return NULL;
	i = page_lower(p, it->key, &found);
	return found ? p + (leaf_value(p, i, ret_len) - p) : NULL;
}

static void edit_item(struct edit *e, struct input *in, bool field)
{
	const struct world_item *it = &e->ix->items[in_u16(in) % e->ix->item_count];
	uint32_t len, at;
	uint8_t *v = find_item(e, it, &len), buf[ITEM_MAX];

	if (!v || len == 0)
		return;
	if ((it->key.hi & 0xff) == ITEM_EXTENT)
		world.honest = false;
	at = in_u16(in) % len;
	if (field) {
		put_le64(buf, in_value(in));
		memcpy(v + (at & ~3u), buf, min_u64(8, len - (at & ~3u)));
	} else {
		uint32_t n = in_bytes(in, buf, len - at);

		memcpy(v + at, buf, n);
	}
	touch_page(e, it->leaf);
}

static void edit_del(struct edit *e, struct input *in)
{
	const struct world_item *it = &e->ix->items[in_u16(in) % e->ix->item_count];
	uint8_t *p = sound_leaf(e, it->leaf);
	unsigned i;
	bool found = false;

	if (!p)
		return;
	i = page_lower(p, it->key, &found);
	if (found)
		leaf_remove(p, i);
	touch_page(e, it->leaf);
}

static block_t in_page(struct input *in, const struct edit *e)
{
	uint8_t n = in_u8(in);

	/* Inner pages are few, and the root is the first of them. */
	if (n >= 192 && e->ix->page_count > e->ix->leaf_count)
		return e->ix->pages[e->ix->leaf_count + n % (e->ix->page_count - e->ix->leaf_count)];
	return e->ix->pages[n % e->ix->page_count];
}

static void edit_page(struct edit *e, struct input *in)
{
	block_t b = in_page(in, e);
	uint8_t *p = block_at(e, b), buf[256];
	uint8_t how = in_u8(in);
	uint32_t at, n;

	world.honest = false;
	if (how < 128) {
		/* A field of the header or of an entry. */
		at = how < 64 ? (how % 12) * 4 : PAGE_ENTRIES + in_u8(in) * 4;
		put_le64(buf, in_value(in));
		n = how % 2 ? 8 : 2;
	} else {
		at = in_u16(in) % BLOCK_SIZE;
		n = in_bytes(in, buf, sizeof buf);
	}
	memcpy(p + at, buf, min_u64(n, BLOCK_SIZE - at));
	touch_page(e, b);
}

/* An inner page's child becomes another page of the tree, rightly named. */
static void edit_child(struct edit *e, struct input *in)
{
	unsigned inner = e->ix->page_count - e->ix->leaf_count;
	block_t b, child = in_page(in, e);
	uint8_t *p;
	unsigned i = in_u8(in);

	if (inner == 0)
		return;
	b = e->ix->pages[e->ix->leaf_count + in_u8(in) % inner];
	p = block_at(e, b);
	if (page_level(p) == 0 || page_count(p) == 0 || page_count(p) > INNER_MAX)
		return;
	inner_set_child(p, i % page_count(p), child, page_gen(block_at(e, child)));
	touch_page(e, b);
}

/* A higher tree whose inner pages all name one child, many times. */
static void edit_fan(struct edit *e, struct input *in)
{
	block_t at = in_value(in), child = in_page(in, e);
	unsigned n = in_u8(in) % INNER_MAX + 1, i, levels = in_u8(in) % TREE_LEVELS;
	uint8_t *super = block_at(e, e->ix->slot);

	for (; levels > 0; levels--, at++) {
		unsigned level = page_level(block_at(e, child)) + 1;
		block_t b = at % e->blocks;
		uint8_t *p = block_at(e, b);

		if (b < 5 || level >= TREE_LEVELS || b == child)
			return;
		page_init(p, b, e->ix->sb.gen, super_store_id(&e->ix->sb), level);
		for (i = 0; i < n; i++)
			inner_insert(p, i, (struct key){ 0, i }, child, page_gen(block_at(e, child)));
		touch_page(e, b);
		put_le64(super + SB_ROOT_BLOCK, b);
		put_le64(super + SB_ROOT_GEN, e->ix->sb.gen);
		put_le32(super + SB_ROOT_LEVEL, level);
		e->super_dirty[e->ix->slot] = true;
		child = b;
	}
}

/* Superblocks and bitmaps ------------------------------------------------------------------------------------------ */

static void edit_super(struct edit *e, struct input *in)
{
	static const uint16_t fields[] = {
		SB_VERSION, SB_BLOCK_SHIFT, SB_COMPAT, SB_RO_COMPAT, SB_INCOMPAT, SB_GEN, SB_GEN_LIMIT, SB_FLIP, SB_SEQ,
		SB_EPOCH, SB_TOTAL, SB_MAX, SB_USED, SB_INODES, SB_NEXT_INO, SB_ROOT_BLOCK, SB_ROOT_GEN, SB_ROOT_LEVEL,
		SB_CLEAN, SB_JPOS, SB_JCHAIN, SB_SEG_SHIFT, SB_SEG_COUNT, SB_JNONCE, SB_HOLDER_MOUNT, SB_SEGS,
	};
	uint8_t how = in_u8(in), buf[64];
	block_t slot = how & 1 ? e->ix->slot : (e->ix->slot ^ (how >> 1 & 1));
	uint8_t *p = block_at(e, slot);
	unsigned f = in_u8(in) % ARRAY_LEN(fields);
	uint32_t at;

	world.honest = false;           /* generations and the seed of hashes are part of what tells files apart */
	if (how >= 224) {
		at = in_u16(in) % BLOCK_SIZE;
		memcpy(p + at, buf, min_u64(in_bytes(in, buf, sizeof buf), BLOCK_SIZE - at));
	} else if (fields[f] == SB_SEGS) {
		at = SB_SEGS + 8 * (in_u8(in) % SEGS_MAX);
		put_le64(p + at, in_value(in));
	} else {
		uint64_t v = in_value(in);

		/* Also a little more or less than it is. */
		if (how & 4)
			v = get_le64(p + fields[f]) + v - 50;
		if (fields[f] == SB_VERSION || fields[f] == SB_BLOCK_SHIFT || fields[f] == SB_ROOT_LEVEL ||
		    fields[f] == SB_CLEAN || fields[f] == SB_SEG_SHIFT || fields[f] == SB_SEG_COUNT)
			put_le32(p + fields[f], (uint32_t)v);
		else
			put_le64(p + fields[f], v);
	}
	e->super_dirty[slot] = true;
}

/* Blocks are marked as free or used that are not. */
static void edit_bits(struct edit *e, struct input *in)
{
	uint64_t first = in_value(in) % GROUP_BLOCKS, n = in_value(in) % 4096, b;
	unsigned slot = in_u8(in);
	bool set = slot & 128;

	for (slot &= 3; slot < 3; slot++) {
		uint8_t *p = block_at(e, 2 + slot);

		for (b = first; b < first + n && b < GROUP_BLOCKS; b++) {
			uint8_t *byte = p + SLOT_BITS + b / 8;

			*byte = (uint8_t)(set ? *byte | 1u << b % 8 : *byte & ~(1u << b % 8));
		}
		e->slot_dirty[slot] = true;
	}
}

static void edit_slot(struct edit *e, struct input *in)
{
	unsigned slot = in_u8(in) % 3;
	uint32_t at = in_u16(in) % BLOCK_SIZE, n;
	uint8_t buf[64];

	n = in_bytes(in, buf, sizeof buf);
	memcpy(block_at(e, 2 + slot) + at, buf, min_u64(n, BLOCK_SIZE - at));
	e->slot_dirty[slot] = true;
}

static void edit_raw(struct edit *e, struct input *in)
{
	block_t b = in_value(in);
	uint32_t at = in_u16(in) % BLOCK_SIZE, n;
	uint8_t buf[128];

	n = in_bytes(in, buf, sizeof buf);
	memcpy(block_at(e, b) + at, buf, min_u64(n, BLOCK_SIZE - at));
}

/* Journal --------------------------------------------------------------------------------------------------------- */

static void keep_record(struct edit *e, const uint8_t *rec, uint32_t len)
{
	uint8_t *p = arena + arena_used;

	if (e->rec_count == RECORDS_MAX || len > sizeof arena - arena_used)
		return;
	memcpy(p, rec, len);
	arena_used += align_up(len, 8);
	e->rec[e->rec_count] = p;
	e->len[e->rec_count] = len;
	e->crooked[e->rec_count++] = false;
}

static void read_records(struct edit *e)
{
	const struct super *sb = &e->ix->sb;
	uint64_t at = sb->journal.pos & ((1ull << sb->seg_shift) - 1);
	const uint8_t *seg = block_at(e, sb->segs[0]);

	arena_used = 0;
	while (at + REC_HEADER < 1ull << sb->seg_shift && get_le32(seg + at) == REC_MAGIC) {
		uint32_t len = get_le32(seg + at + REC_LEN);

		if (len < REC_HEADER || len > REC_MAX)
			break;
		keep_record(e, seg + at, len);
		at += len;
	}
	e->journal_dirty = true;
}

/* One after the other from the superblock's position on, each leading to the next. NEXT is followed. */
static void write_records(struct edit *e)
{
	const struct super *sb = &e->ix->sb;
	uint64_t size = 1ull << sb->seg_shift, chain = sb->journal.chain, seq = sb->journal.seq, nonce = sb->journal.nonce;
	uint8_t *seg = block_at(e, sb->segs[0]);
	jpos_t pos = sb->journal.pos;
	unsigned i;

	for (i = 0; i < e->rec_count; i++) {
		uint8_t *to = seg + (pos & (size - 1));
		uint32_t len = e->len[i];
		bool internal = get_le16(e->rec[i] + REC_FLAGS) & REC_FLAG_INTERNAL;

		if ((pos & (size - 1)) + len > size)
			return;
		memcpy(to, e->rec[i], len);
		if (e->crooked[i])
			return;
		seq += !internal;
		put_le32(to + REC_MAGIC_OFF, REC_MAGIC);
		put_le32(to + REC_LEN, len);
		put_le64(to + REC_CHAIN, chain);
		put_le64(to + REC_SEQ, seq);
		chain = hash64(to + 16, len - 16, nonce ^ pos);
		put_le64(to + REC_CHECK, chain);
		pos += len;
		if (internal && get_le16(to + REC_TYPE) == REC_TYPE_NEXT && len == REC_NEXT_LEN) {
			const uint8_t *next = to + REC_HEADER + MUT_HEADER;

			if (get_le64(next) >= e->blocks || size / BLOCK_SIZE > e->blocks - get_le64(next))
				return;
			seg = block_at(e, get_le64(next));
			pos = get_le64(next + 8) << sb->seg_shift | SEG_HEADER;
			nonce = get_le64(next + 16);
		}
	}
	if ((pos & (size - 1)) + 8 < size)
		put_le64(seg + (pos & (size - 1)), 0);
}

static void add_extent(struct edit *e, struct input *in, uint64_t ino, uint64_t fblock)
{
	block_t b = in_value(in);
	uint32_t flags = in_u8(in) % 4, count = (uint32_t)in_value(in), i;
	uint8_t *csums;

	count %= flags & EXT_DATA ? 40 : 600;
	(void)record_extent(&building, b, count, flags, &csums);
	for (i = 0; flags & EXT_DATA && i < count && !building.overflow; i++)
		put_le32(csums + 4 * i, block_csum(block_at(e, b + i), ino, fblock + i));
}

static void add_mutation(struct edit *e, struct input *in)
{
	static const unsigned lens[] = { 0, 0, 0, 0, 8 + INODE_SIZE, 0, 24, 24, 8 };
	unsigned kind = in_u8(in) % 9;
	uint8_t v[ITEM_MAX + 100], *p;
	uint32_t len;
	struct key k;

	switch (kind) {
	case MUT_PUT: case MUT_DEL: case MUT_DELNAME:
		k = in_key(in, e);
		len = kind == MUT_PUT ? make_item(in, e, k, v) : kind == MUT_DELNAME ? in_bytes(in, v, 64) : 0;
		p = record_mutation(&building, kind, 16 + len);
		put_le64(p, k.hi);
		put_le64(p + 8, k.lo);
		memcpy(p + 16, v, len);
		return;
	case MUT_ATTR:
		(void)make_inode(in, v);
		p = record_mutation(&building, kind, lens[kind]);
		put_le64(p, in_value(in));
		memcpy(p + 8, v, INODE_SIZE);
		return;
	case MUT_DATA:
		len = in_bytes(in, v, ITEM_MAX);
		len *= 1 + in_u8(in) % 4;
		p = record_mutation(&building, kind, 16 + len);
		memset(p + 16, 'd', len);
		put_le64(p, in_value(in));
		put_le64(p + 8, in_value(in));
		return;
	case MUT_MAP: case MUT_PUNCH: case MUT_REAP:
		p = record_mutation(&building, kind, lens[kind]);
		put_le64(p, in_value(in));
		if (kind != MUT_REAP)
			put_le64(p + 8, in_value(in));
		if (kind != MUT_REAP)
			put_le64(p + 16, kind == MUT_MAP ? in_u16(in) & 0x0101u : in_value(in));
		if (kind == MUT_MAP)
			put_le32(p + 20, in_u8(in) & 1);
		return;
	default:
		len = in_bytes(in, v, 200);
		memcpy(record_mutation(&building, in_u8(in), len), v, len);
	}
}

/* A record of its own making, behind those that are there. */
static void edit_append(struct edit *e, struct input *in)
{
	unsigned extents = in_u8(in) % 4, mutations = in_u8(in) % 6, type = in_u8(in) % 24, i;
	unsigned internal = in_u8(in) < 224 ? 0 : REC_FLAG_INTERNAL;

	world.honest = false;
	record_begin(&building, type, internal, in_value(in));
	for (i = 0; i < extents; i++) {
		uint64_t ino = in_value(in), fblock = in_value(in);
		uint32_t flags, index = i;
		uint8_t *p;

		add_extent(e, in, ino, fblock);
		/* Mapped where its checksums are right, if it is to be whole. */
		flags = in_u8(in) & 1;
		if (i + 1 == extents && !building.overflow) {
			p = record_mutation(&building, MUT_MAP, 24);
			put_le64(p, ino);
			put_le64(p + 8, fblock);
			put_le32(p + 16, index);
			put_le32(p + 20, flags);
		}
	}
	for (i = 0; i < mutations; i++)
		add_mutation(e, in);
	if (!building.overflow)
		keep_record(e, building.buf, building.len);
}

static void edit_next(struct edit *e, struct input *in)
{
	uint8_t rec[REC_NEXT_LEN] = { 0 };
	uint64_t serial = e->ix->sb.journal.pos >> e->ix->sb.seg_shift;

	put_le16(rec + REC_TYPE, REC_TYPE_NEXT);
	put_le16(rec + REC_FLAGS, REC_FLAG_INTERNAL);
	put_le16(rec + REC_MUTATIONS, 1);
	put_le32(rec + REC_HEADER + MUT_LEN, 24);
	put_le64(rec + REC_HEADER + MUT_HEADER, in_value(in));
	put_le64(rec + REC_HEADER + MUT_HEADER + 8, serial + in_u8(in) % 4);
	put_le64(rec + REC_HEADER + MUT_HEADER + 16, in_value(in));
	keep_record(e, rec, sizeof rec);
}

static void edit_record(struct edit *e, struct input *in)
{
	unsigned i = in_u8(in), how = in_u8(in);
	uint8_t buf[128];
	uint32_t at, n;

	if (e->rec_count == 0)
		return;
	world.honest = false;
	i %= e->rec_count;
	switch (how % 4) {
	case 0:         /* bytes */
		at = in_u16(in) % e->len[i];
		n = in_bytes(in, buf, sizeof buf);
		memcpy(e->rec[i] + at, buf, min_u64(n, e->len[i] - at));
		break;
	case 1:         /* a number */
		at = (in_u16(in) * 4u) % e->len[i];
		put_le64(buf, in_value(in));
		memcpy(e->rec[i] + at, buf, min_u64(8, e->len[i] - at));
		break;
	case 2:         /* not there */
		memmove(e->rec + i, e->rec + i + 1, (e->rec_count - i - 1) * sizeof *e->rec);
		memmove(e->len + i, e->len + i + 1, (e->rec_count - i - 1) * sizeof *e->len);
		e->rec_count--;
		break;
	default:
		e->crooked[i] = how & 64;
		if (how & 128)
			keep_record(e, e->rec[i], e->len[i]);
		break;
	}
}

/* The interpreter -------------------------------------------------------------------------------------------------- */

static void seal(struct edit *e)
{
	unsigned i;
	block_t b;

	if (e->journal_dirty)
		write_records(e);
	for (b = 0; b < e->blocks; b++) {
		uint8_t *p = block_at(e, b);

		if (e->dirty[b / 8] == 0)
			b |= 7;
		else if (e->dirty[b / 8] >> b % 8 & 1)
			put_le64(p + PAGE_CSUM, page_csum(p, b));
	}
	for (i = 0; i < 3; i++)
		if (e->slot_dirty[i])
			put_le64(block_at(e, 2 + i) + SLOT_CSUM, hash64(block_at(e, 2 + i) + 16, BLOCK_SIZE - 16, 2 + i));
	for (i = 0; i < 2; i++)
		if (e->super_dirty[i])
			put_le64(block_at(e, i) + SB_CSUM, hash64(block_at(e, i) + 16, BLOCK_SIZE - 16, i));
}

static void one_edit(struct edit *e, struct input *in, unsigned op)
{
	switch (op) {
	case 0:         edit_super(e, in); break;
	case 1: case 2: case 3: edit_put(e, in); break;
	case 4:         edit_item(e, in, false); break;
	case 5: case 6: edit_item(e, in, true); break;
	case 7:         edit_del(e, in); break;
	case 8:         edit_page(e, in); break;
	case 9:         edit_child(e, in); break;
	case 10:        edit_fan(e, in); break;
	case 11:        edit_bits(e, in); break;
	case 12:        edit_slot(e, in); break;
	case 13:        edit_raw(e, in); break;
	case 14:        edit_append(e, in); break;
	case 15:        edit_next(e, in); break;
	default:        edit_record(e, in); break;
	}
}

void image_edit(uint8_t *image, struct input *in, unsigned may)
{
	static const uint8_t needs[OPCODES] = {
		WORLD_SUPER, WORLD_ITEMS, WORLD_ITEMS, WORLD_ITEMS, WORLD_ITEMS, WORLD_ITEMS, WORLD_ITEMS, WORLD_ITEMS,
		WORLD_PAGES, WORLD_PAGES, WORLD_PAGES, WORLD_SLOTS, WORLD_SLOTS, WORLD_RAW, WORLD_JOURNAL, WORLD_JOURNAL,
		WORLD_JOURNAL,
	};
	static struct edit e;
	unsigned edits = 0;

	memset(&e, 0, sizeof e);
	e.image = image;
	e.ix = &world.index[world.which];
	e.blocks = world.size[world.which] / BLOCK_SIZE;
	if (may & WORLD_JOURNAL)
		read_records(&e);
	while (in->p < in->end && edits++ < EDITS_MAX) {
		uint8_t op = in_u8(in);

		if (op == OPEN)
			break;
		/* What this target does not do is something that it does. */
		op %= OPCODES;
		while (!(needs[op] & may))
			op = (uint8_t)((op + 1) % OPCODES);
		one_edit(&e, in, op);
	}
	seal(&e);
}
