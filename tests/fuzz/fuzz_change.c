/* SPDX-License-Identifier: MIT
 *
 * fuzz_change: what a peer may send as changes: their decoding by itself; then a replica to which the input sends one change
 * after the other, each of them sealed, so that every byte gets behind the check. Whatever comes, the replica refuses it
 * or is in its next state: it never fails, and can be read to its end.
 */
#include "tests/fuzz/fuzz_util.h"

#include "core/replica/change.h"

#include <sys/stat.h>

#define CHANGES   12u           /* of one input */
#define MUTATIONS 10u           /* of one change */

static uint8_t bytes[CHANGE_MAX];
static uint32_t len, mutations;

static void decode_alone(const uint8_t *data, uint32_t size)
{
	static struct change_events e;
	struct change_reader r;
	struct change_event ev;
	struct change_map map;
	struct mutation m;
	uint64_t sum = 0;

	if (change_open(&r, data, size) == 0)
		while (change_next(&r, &m) > 0) {
			sum += m.len > 0 ? m.data[m.len - 1] : 0;
			if (m.kind == MUT_MAP && change_map_decode(&m, &map) == 0 && map.data)
				sum += map.data[((size_t)map.count << BLOCK_SHIFT) - 1];
		}
	if (change_events_of_change(&e, data, size) == 0)
		while (change_event(&e, &ev) > 0)
			sum += ev.len > 0 ? (uint8_t)ev.name[ev.len - 1] : ev.from;
	if (change_events_of_record(&e, data, size) == 0)
		while (change_event(&e, &ev) > 0)
			sum += ev.len > 0 ? (uint8_t)ev.name[ev.len - 1] : ev.from;
	__asm__ volatile("" : : "r"(sum));
}

static uint8_t *put(unsigned kind, uint32_t n)
{
	uint8_t *p = bytes + len;

	check(len + MUT_HEADER + align_up(n, 8) <= sizeof bytes);
	memset(p, 0, MUT_HEADER + align_up(n, 8));
	put_le32(p, kind);
	put_le32(p + MUT_LEN, n);
	len += MUT_HEADER + (uint32_t)align_up(n, 8);
	mutations++;
	return p + MUT_HEADER;
}

/* An inode that is there, or one that would be new. */
static uint64_t some_ino(struct input *in, struct keys *k)
{
	uint8_t how = in_u8(in);

	if (how < 96)
		return world_ino(how);
	return how < 192 ? store_counts(keys_store(k))->next_ino + how % 4 : in_value(in);
}

/* The key of something that is there, if there is any. */
static struct key some_key(struct input *in, struct keys *k)
{
	struct key key = { some_ino(in, k) << 8 | in_u8(in) % 5, in_value(in) };
	struct tree_cursor c;
	uint8_t how = in_u8(in);

	if (how < 160 && tree_seek(store_tree(keys_store(k)), key, &c) == 0)
		return cursor_key(&c);
	if (how >= 224)
		key.hi = 16 + how % 5;
	return key;
}

static void fill_attr(struct input *in, uint64_t ino, uint8_t *to)
{
	struct keys_attr a = { .ino = ino, .mode = S_IFREG | 0644, .nlink = 1, .flags = KEYS_ATTR_INLINE };

	(void)in_attr(in, &a);
	inode_encode(to, &a);
}

static void put_item(struct input *in, struct keys *k)
{
	static uint8_t v[INODE_SIZE + INLINE_MAX + 64];
	struct key key = { some_ino(in, k) << 8 | (1 + in_u8(in) % 4), in_u8(in) & 1 ? in_value(in) : 0 };
	struct keys_epoch e = { .first_seq = store_seq(keys_store(k)) + 1 };
	uint32_t n = in_bytes(in, v, 300);
	uint8_t *p;

	switch (in_u8(in) % 10) {
	case 0:
		key = (struct key){ KIND_ORPHAN, some_ino(in, k) };
		n = in_u8(in) % 3;
		v[0] = 1;
		break;
	case 1:
		key = (struct key){ KIND_HISTORY, store_epoch(keys_store(k)) + 1 + (in_u8(in) > 200) };
		e.next_ino = in_value(in);
		history_encode(v, &e);
		n = HISTORY_SIZE;
		break;
	case 2:
		key = some_key(in, k);
		break;
	case 3:
		key.hi = (key.hi & ~0xffull) | ITEM_DIRENT;
		dirent_encode(v, some_ino(in, k), in_u16(in) & S_IFMT, "name", 4);
		n = DIRENT_HEADER + 4;
		break;
	default:
		if ((key.hi & 0xff) != ITEM_INODE)
			break;
		memmove(v + INODE_SIZE, v, n);
		fill_attr(in, key.hi >> 8, v);
		n += INODE_SIZE;
	}
	p = put(MUT_PUT, 16 + n);
	put_le64(p, key.hi);
	put_le64(p + 8, key.lo);
	memcpy(p + 16, v, n);
}

static void put_map(struct input *in, struct keys *k)
{
	bool unwritten = in_u8(in) & 1;
	uint32_t count = (uint32_t)in_value(in) % (unwritten ? 20000 : 300);
	uint8_t *p = put(MUT_MAP, 24 + (unwritten ? 0 : (count % 40) << BLOCK_SHIFT));

	put_le64(p, some_ino(in, k));
	put_le64(p + 8, in_value(in));
	put_le32(p + 16, unwritten ? count : count % 40);
	put_le32(p + 20, unwritten ? MAP_UNWRITTEN : in_u8(in) == 255);
}

static void put_one(struct input *in, struct keys *k)
{
	static const uint8_t kinds[] = { MUT_PUT, MUT_PUT, MUT_PUT, MUT_DEL, MUT_DELNAME, MUT_ATTR, MUT_ATTR, MUT_DATA, MUT_DATA,
					 MUT_MAP, MUT_MAP, MUT_PUNCH, MUT_CLIENT };
	uint8_t how = in_u8(in), v[128], *p;
	unsigned kind = how < 240 ? kinds[how % sizeof kinds] : 0;
	struct key key;
	uint32_t n;

	switch (kind) {
	case MUT_PUT:
		put_item(in, k);
		break;
	case MUT_DEL: case MUT_DELNAME:
		key = some_key(in, k);
		n = kind == MUT_DEL ? 0 : in_bytes(in, v, 100);
		p = put(kind, 16 + n);
		put_le64(p, key.hi);
		put_le64(p + 8, key.lo);
		memcpy(p + 16, v, n);
		break;
	case MUT_ATTR:
		p = put(kind, 8 + INODE_SIZE);
		put_le64(p, some_ino(in, k));
		fill_attr(in, get_le64(p), p + 8);
		break;
	case MUT_DATA:
		n = (uint32_t)in_value(in) % 5000;
		p = put(kind, 16 + n);
		put_le64(p, some_ino(in, k));
		put_le64(p + 8, in_value(in));
		break;
	case MUT_MAP:
		put_map(in, k);
		break;
	case MUT_PUNCH: case MUT_CLIENT:
		p = put(kind, 24);
		put_le64(p, kind == MUT_PUNCH ? some_ino(in, k) : in_value(in));
		put_le64(p + 8, in_value(in));
		put_le64(p + 16, in_value(in));
		break;
	default:
		n = in_bytes(in, v, sizeof v);
		memcpy(put(in_u8(in), n), v, n);
	}
}

static void make_change(struct input *in, struct keys *k)
{
	static const uint8_t types[] = { CHANGE_CREATE, CHANGE_WRITE, CHANGE_UNLINK, CHANGE_FALLOCATE };
	uint8_t how = in_u8(in);
	unsigned n = in_u8(in);

	n = n < 128 ? 1 + n % 2 : 1 + n % MUTATIONS;
	memset(bytes, 0, CHANGE_HEADER);
	len = CHANGE_HEADER;
	mutations = 0;
	while (n-- > 0)
		put_one(in, k);
	put_le64(bytes + CHANGE_SEQ, store_seq(keys_store(k)) + 1 + (how >= 240 ? in_value(in) : 0));
	put_le64(bytes + CHANGE_EPOCH_OFF, store_epoch(keys_store(k)) + (how % 16 > 13));
	put_le64(bytes + CHANGE_TIME, in_value(in));
	put_le16(bytes + CHANGE_TYPE, how >= 224 ? in_u8(in) : how % 16 > 13 ? CHANGE_EPOCH : types[how % sizeof types]);
	put_le32(bytes + CHANGE_MUTATIONS, mutations + (how >= 248 ? in_u8(in) : 0));
	/* Now and then a byte is wrong. */
	if (in_u8(in) >= 200) {
		how = in_u8(in);
		bytes[CHANGE_HEADER + in_u16(in) % (len - CHANGE_HEADER)] = how;
	}
	put_le64(bytes + CHANGE_CHECK, hash64(bytes + 8, len - 8, 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };
	struct store_identity id = { .role = STORE_REPLICA };
	struct keys *k;
	unsigned i;

	if (size <= CHANGE_MAX)
		decode_alone(data, (uint32_t)size);
	world_seed(data, size);
	check(world_open_base(&k) == 0);
	world_dishonest();
	check(store_put_identity(keys_store(k), &id) == 0);
	for (i = 0; i < CHANGES && in.p < in.end; i++) {
		seq_t seq = store_seq(keys_store(k));
		int r;

		make_change(&in, k);
		decode_alone(bytes, len);
		r = change_apply(k, bytes, len);
		check(r == 0 || r == -EPROTO || r == -ENOSPC || r == -EAGAIN);
		check(store_failed(keys_store(k)) == 0);
		check(store_seq(keys_store(k)) == seq + (r == 0));
		if (r == 0 && in_u8(&in) % 4 == 0)
			(void)store_checkpoint(keys_store(k));
	}
	calls_read(k);
	check(store_failed(keys_store(k)) == 0);
	calls_settle(k);
	(void)keys_close(k);
	return 0;
}
