/* SPDX-License-Identifier: MIT
 *
 * cluster: see cluster.h. Plans changes like its neighbours; what they do to the tree is in apply.c.
 */
#include "core/keys/cluster.h"
#include "core/keys/keys_int.h"

#include <string.h>

#define EPOCH_INOS ((uint64_t)1 << 24)  /* numbers that a lost tail may have given out */

/* Epochs ---------------------------------------------------------------------------------------------------------- */

/* Those before the last KEYS_HISTORY_MAX - 1, into the change being built. */
static int drop_history(struct keys *k)
{
	struct keys_epoch e[2 * KEYS_HISTORY_MAX];
	unsigned n, i;
	int r = keys_history(k, e, ARRAY_LEN(e), &n);

	if (r < 0)
		return r;
	for (i = 0; i + KEYS_HISTORY_MAX <= n; i++)
		change_del(k, (struct key){ KIND_HISTORY, e[i].epoch });
	return 0;
}

/* What a crash may lose of epochs is the beginning of one, so that the numbers which recovery leaves out, as many as one of them
 * does, are enough (recovery.c): the one before is on disk before the next begins. A crash here leaves that one or not, and the next
 * opening begins another. */
static int settle_history(struct keys *k)
{
	struct keys_epoch e[2 * KEYS_HISTORY_MAX];
	unsigned n;
	int r = keys_history(k, e, ARRAY_LEN(e), &n);

	return r < 0 || n == 0 ? r : store_settle(k->store, e[n - 1].first_seq);
}

static uint64_t leave_inos(const struct keys *k)
{
	uint64_t next = store_counts(k->store)->next_ino;

	/* At the end of all numbers there are none to leave out; then nothing can be made either. */
	return next + EPOCH_INOS < INO_MAX - 1 ? next + EPOCH_INOS : next;
}

int keys_begin_epoch(struct keys *k, uint64_t epoch)
{
	uint64_t before = store_epoch(k->store);
	struct keys_epoch e = { .epoch = epoch, .first_seq = store_seq(k->store) + 1, .next_ino = leave_inos(k) };
	struct store_identity id;
	int r;

	store_identity(k->store, &id);
	if (id.role != STORE_PRIMARY)
		return -EPERM;
	if (epoch <= before || epoch < id.promised_epoch)
		return -EINVAL;
	store_uuid(k->store, e.uuid);
	r = store_random(k->store, &e.nonce, sizeof e.nonce);
	/* Also a full store begins one: it makes no file larger. */
	if (r == 0)
		r = change_reserve(k, 4, 0, true);
	if (r == 0)
		r = settle_history(k);
	if (r < 0)
		return r;
	change_begin(k, CHANGE_EPOCH);
	r = drop_history(k);
	if (r < 0)
		return r;
	history_encode(change_put_place(k, (struct key){ KIND_HISTORY, epoch }, HISTORY_SIZE), &e);
	/* The record itself is of the new epoch. If it does not get into the journal, nothing is. */
	store_set_epoch(k->store, epoch);
	r = change_commit(k);
	if (r < 0 && !store_failed(k->store))
		store_set_epoch(k->store, before);
	return r;
}

int keys_history(struct keys *k, struct keys_epoch *ret, unsigned max, unsigned *ret_count)
{
	struct tree_cursor c;
	unsigned n = 0, i;
	int r = tree_seek_le(k->tree, (struct key){ KIND_HISTORY, UINT64_MAX }, &c);

	while (r == 0 && n < max && cursor_key(&c).hi == KIND_HISTORY) {
		uint32_t len;
		const uint8_t *v = cursor_value(&c, &len);

		r = history_decode(v, len, cursor_key(&c).lo, &ret[n]);
		if (r < 0)
			return r;
		n++;
		r = cursor_prev(&c);
	}
	if (r < 0 && r != -ENOENT)
		return r;
	for (i = 0; i < n / 2; i++) {
		struct keys_epoch e = ret[i];

		ret[i] = ret[n - 1 - i];
		ret[n - 1 - i] = e;
	}
	*ret_count = n;
	return 0;
}

/* Calls of remote mounts ------------------------------------------------------------------------------------------ */

void keys_set_caller(struct keys *k, uint64_t client, uint64_t request)
{
	k->client = request ? client : 0;
	k->request = client ? request : 0;
}

int keys_call_result(struct keys *k, uint64_t client, uint64_t request, uint64_t *ret_seq, uint64_t *ret_number)
{
	const uint8_t *v;
	uint64_t in_slot;
	uint32_t len;
	int r = tree_get(k->tree, (struct key){ KIND_CLIENT, client }, &v, &len);

	if (r < 0)
		return r;
	if (len != CLIENT_SIZE)
		return err_corrupt("the item of client %llx has %u bytes", (unsigned long long)client, len);
	v += request % KEYS_CALL_SLOTS * CLIENT_SLOT;
	in_slot = get_le64(v);
	if (in_slot != request)
		return in_slot > request ? -ESTALE : -ENOENT;
	*ret_seq = get_le64(v + CLIENT_SEQ);
	*ret_number = get_le64(v + CLIENT_NUMBER);
	return 0;
}

int keys_forget_client(struct keys *k, uint64_t client)
{
	const uint8_t *v;
	uint32_t len;
	int r = tree_get(k->tree, (struct key){ KIND_CLIENT, client }, &v, &len);

	if (r == 0)
		r = change_reserve(k, 1, 0, true);
	if (r < 0)
		return r;
	change_begin(k, CHANGE_FORGET);
	change_del(k, (struct key){ KIND_CLIENT, client });
	return change_commit(k);
}

int keys_next_client(struct keys *k, uint64_t from, uint64_t *ret_client, uint64_t *ret_seq)
{
	struct tree_cursor c;
	const uint8_t *v;
	uint64_t seq = 0;
	uint32_t len;
	unsigned i;
	int r = tree_seek(k->tree, (struct key){ KIND_CLIENT, from }, &c);

	if (r == 0 && cursor_key(&c).hi != KIND_CLIENT)
		r = -ENOENT;
	if (r < 0)
		return r;
	v = cursor_value(&c, &len);
	if (len != CLIENT_SIZE)
		return err_corrupt("the item of client %llx has %u bytes", (unsigned long long)cursor_key(&c).lo, len);
	for (i = 0; i < KEYS_CALL_SLOTS; i++)
		seq = max_u64(seq, get_le64(v + i * CLIENT_SLOT + CLIENT_SEQ));
	*ret_client = cursor_key(&c).lo;
	*ret_seq = seq;
	return 0;
}

/* Orphans ---------------------------------------------------------------------------------------------------------- */

int keys_orphan_marked(struct keys *k, uint64_t ino, bool *ret_marked)
{
	const uint8_t *v;
	uint32_t len;
	int r = tree_get(k->tree, (struct key){ KIND_ORPHAN, ino }, &v, &len);

	return r < 0 ? r : orphan_decode(v, len, ino, ret_marked);
}

int keys_mark_orphan(struct keys *k, uint64_t ino)
{
	const uint8_t mark = ORPHAN_MARK;
	bool marked = false;
	int r = keys_orphan_marked(k, ino, &marked);

	if (r < 0 || marked)
		return r;
	r = change_reserve(k, 1, 0, true);
	if (r < 0)
		return r;
	change_begin(k, CHANGE_MARK);
	change_put(k, (struct key){ KIND_ORPHAN, ino }, &mark, sizeof mark);
	return change_commit(k);
}

/* Joining ---------------------------------------------------------------------------------------------------------- */

int keys_adopt_seed(struct keys *k, uint64_t seed)
{
	struct tree_cursor c;
	struct keys_attr root;
	int r = inode_get(k, KEYS_ROOT_INO, &root);

	if (seed == store_hash_seed(k->store))
		return 0;
	if (r == 0)
		r = tree_seek(k->tree, item_key(KEYS_ROOT_INO, ITEM_INODE, 0), &c);
	if (r == 0)
		r = cursor_next(&c);
	if (r != -ENOENT)
		return r < 0 ? r : -ENOTEMPTY;
	return store_put_hash_seed(k->store, seed);
}
