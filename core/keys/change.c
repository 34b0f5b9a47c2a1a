/* SPDX-License-Identifier: MIT
 *
 * change: a change being built: the mutations of keys in terms of record.h.
 */
#include "core/keys/keys_int.h"

void change_begin(struct keys *k, enum change_type type)
{
	k->refused = 0;
	k->number = 0;
	record_begin(store_record(k->store), type, type == CHANGE_REAP ? REC_FLAG_INTERNAL : 0, store_now_ns(k->store));
}

uint8_t *change_put_place(struct keys *k, struct key key, uint32_t len)
{
	uint8_t *p = record_mutation(store_record(k->store), MUT_PUT, 16 + len);

	put_le64(p, key.hi);
	put_le64(p + 8, key.lo);
	return p + 16;
}

void change_put(struct keys *k, struct key key, const void *value, uint32_t len)
{
	uint8_t *p = change_put_place(k, key, len);

	if (len > 0)
		memcpy(p, value, len);
}

void change_del(struct keys *k, struct key key)
{
	uint8_t *p = record_mutation(store_record(k->store), MUT_DEL, 16);

	put_le64(p, key.hi);
	put_le64(p + 8, key.lo);
}

/* Counters that a damaged store has at their ends must not go over them: what is in the journal has to be applied. */
static void check_inode(struct keys *k, const uint8_t *p, uint64_t ino)
{
	struct keys_attr a;

	if (k->refused == 0)
		k->refused = inode_decode(p, INODE_SIZE, ino, &a);
}

void change_attr(struct keys *k, const struct keys_attr *a)
{
	uint8_t *p = record_mutation(store_record(k->store), MUT_ATTR, 8 + INODE_SIZE);

	put_le64(p, a->ino);
	inode_encode(p + 8, a);
	check_inode(k, p + 8, a->ino);
}

void change_new_inode(struct keys *k, const struct keys_attr *a)
{
	uint8_t *p = change_put_place(k, item_key(a->ino, ITEM_INODE, 0), INODE_SIZE);

	inode_encode(p, a);
	check_inode(k, p, a->ino);
	k->number = a->ino;
}

void change_data(struct keys *k, uint64_t ino, uint64_t off, const void *data, uint32_t len)
{
	uint8_t *p = record_mutation(store_record(k->store), MUT_DATA, 16 + len);

	put_le64(p, ino);
	put_le64(p + 8, off);
	memcpy(p + 16, data, len);
}

void change_punch(struct keys *k, uint64_t ino, uint64_t from, uint64_t to)
{
	uint8_t *p = record_mutation(store_record(k->store), MUT_PUNCH, 24);

	put_le64(p, ino);
	put_le64(p + 8, from);
	put_le64(p + 16, to);
}

int change_commit_part(struct keys *k)
{
	return k->refused ? k->refused : store_commit(k->store);
}

/* The caller's request goes into the record that completes it, so it is known exactly if its effect is. */
static void change_client(struct keys *k)
{
	struct record *rec = store_record(k->store);
	uint8_t *p = record_mutation(rec, MUT_CLIENT, CLIENT_MUTATION);

	put_le64(p, k->client);
	put_le64(p + 8, k->request);
	put_le64(p + 16, k->number);
	put_le64(rec->buf + REC_CLIENT, k->client);
	put_le64(rec->buf + REC_REQUEST, k->request);
}

int change_commit(struct keys *k)
{
	if (k->client && !(get_le16(store_record(k->store)->buf + REC_FLAGS) & REC_FLAG_INTERNAL))
		change_client(k);
	return change_commit_part(k);
}

int change_reserve(struct keys *k, unsigned items, uint64_t blocks, bool frees)
{
	if (store_is_replica(k->store))
		return -EROFS;
	return change_reserve_own(k, items + (k->client ? 1 : 0), blocks, frees);
}

/* Worst case: each item copies its path and splits its leaf; a split of all levels happens once. */
static uint64_t tree_blocks(const struct keys *k, unsigned items)
{
	uint64_t levels = k->tree->root.level + 2;

	return items * (levels + 1) + 2 * levels;
}

int change_reserve_own(struct keys *k, unsigned items, uint64_t blocks, bool frees)
{
	return store_reserve(k->store, blocks + tree_blocks(k, items), frees);
}

int change_reserve_paid(struct keys *k, unsigned items)
{
	if (store_is_replica(k->store))
		return -EROFS;
	return store_reserve_paid(k->store, tree_blocks(k, items + (k->client ? 1 : 0)));
}
