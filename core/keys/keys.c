/* SPDX-License-Identifier: MIT
 *
 * keys: open and close, orphans, figures.
 */
#include "core/keys/keys_int.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define EPOCH_TRIES 10000u      /* a millisecond each */

static void attach(void *ctx, struct store *s)
{
	struct keys *k = ctx;

	k->store = s;
	k->tree = store_tree(s);
}

/* A new store has a root directory that belongs to whoever makes it. */
static int format(void *ctx)
{
	struct keys *k = ctx;
	struct keys_attr root = { .ino = KEYS_ROOT_INO, .mode = S_IFDIR | 0755, .nlink = 2, .aux = KEYS_ROOT_INO };
	uint8_t item[INODE_SIZE];

	root.uid = getuid();
	root.gid = getgid();
	root.btime = keys_now(k);
	root.atime = root.mtime = root.ctime = root.btime;
	inode_encode(item, &root);
	store_counts(k->store)->inodes = 1;
	return tree_put(k->tree, item_key(KEYS_ROOT_INO, ITEM_INODE, 0), item, sizeof item);
}

static int check_root(void *arg)
{
	struct keys_attr root;
	int r = inode_get(arg, KEYS_ROOT_INO, &root);

	if (r == -ENOENT || (r == 0 && !S_ISDIR(root.mode)))
		r = err_corrupt("the store has no root directory");
	return r;
}

/* (O10) A primary that was not closed in order may have lost changes that others have seen: what follows is of another epoch.
 * Crash before that is on disk: the next opening is not clean either. One that was promoted and did not come to begin its
 * epoch does so now. */
static int new_epoch(void *arg)
{
	const struct timespec nap = { 0, 1000000 };
	struct keys *k = arg;
	struct store_identity id;
	unsigned tries;
	int r = 0;

	store_identity(k->store, &id);
	/* (O10a) It is to follow another one: it makes no changes of its own any more, so there is nothing that an epoch would
	 * have to tell apart; and one that nobody else has would be something to put aside. Crash before the role is on disk: a
	 * primary that was not closed in order, as before. After: a replica, which begins none. */
	if (k->follow && id.role == STORE_PRIMARY) {
		id.role = STORE_REPLICA;
		return store_put_identity(k->store, &id);
	}
	if (id.role != STORE_PRIMARY || (store_was_clean(k->store) && store_epoch(k->store) >= id.promised_epoch))
		return 0;
	for (tries = 0; tries < EPOCH_TRIES; tries++) {
		r = keys_begin_epoch(k, max_u64(store_epoch(k->store) + 1, id.promised_epoch));
		if (r != -EAGAIN)
			break;
		/* Room comes with a helper's work. */
		(void)nanosleep(&nap, NULL);
		r = store_poll(k->store);
		if (r < 0)
			break;
		r = -EAGAIN;
	}
	return r < 0 ? err_set(-r, "cannot begin a new epoch after a crash: %s", strerror(-r)) : 0;
}

int keys_open(const struct store_options *options, struct keys **ret_keys)
{
	struct keys *k = calloc(1, sizeof *k);
	struct store_client client = { .apply = keys_apply, .whole = keys_whole, .format = format, .attach = attach, .ctx = k };
	int r;

	if (!k)
		return -ENOMEM;
	k->follow = options->follow;
	if (options->salvage) {
		k->salvage = options->salvage;
		client.apply = keys_apply_rest;
	}
	r = store_open(options, &client, &k->store);
	if (r == 0 && !options->salvage) {
		r = map_guard(check_root, k);
		if (r == 0 && !options->read_only)
			r = map_guard(new_epoch, k);
		if (r < 0)
			(void)store_close(k->store);
	}
	if (r < 0) {
		free(k);
		return r;
	}
	*ret_keys = k;
	return 0;
}

int keys_close(struct keys *k)
{
	int r = store_close(k->store);

	free(k);
	return r;
}

int keys_abandon(struct keys *k)
{
	int r = store_abandon(k->store);

	free(k);
	return r;
}

struct store *keys_store(struct keys *k)
{
	return k->store;
}

/* In a cluster somebody else may have it open, until the primary has found that nobody has. */
static int reap_allowed(struct keys *k, const uint8_t *v, uint32_t len, uint64_t ino)
{
	struct store_identity id;
	bool marked = false;
	int r = orphan_decode(v, len, ino, &marked);

	store_identity(k->store, &id);
	return r < 0 ? r : id.role == STORE_ALONE || marked ? 0 : -EBUSY;
}

int keys_reap(struct keys *k, uint64_t ino)
{
	struct key orphan = { KIND_ORPHAN, ino };
	struct keys_attr a;
	const uint8_t *v;
	uint32_t len;
	int r = tree_get(k->tree, orphan, &v, &len);

	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = reap_allowed(k, v, len, ino);
	/* What apply cannot read is said now, not when it is in the journal. */
	if (r == 0)
		r = inode_get(k, ino, &a);
	if (r == -ENOENT)
		r = 0;
	if (r == 0)
		r = change_reserve_own(k, 4, 0, true);
	if (r < 0)
		return r;
	change_begin(k, CHANGE_REAP);
	put_le64(record_mutation(store_record(k->store), MUT_REAP, 8), ino);
	r = change_commit(k);
	if (r < 0)
		return r;
	r = tree_get(k->tree, orphan, &v, &len);
	return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

int keys_next_orphan(struct keys *k, uint64_t from, uint64_t *ret_ino)
{
	struct tree_cursor c;
	int r = tree_seek(k->tree, (struct key){ KIND_ORPHAN, from }, &c);

	if (r == 0 && cursor_key(&c).hi != KIND_ORPHAN)
		r = -ENOENT;
	if (r == 0)
		*ret_ino = cursor_key(&c).lo;
	return r;
}

void keys_statfs(struct keys *k, struct keys_statfs *ret)
{
	struct store_status st;
	uint64_t file, growth;

	store_status(k->store, &st);
	file = st.file_bytes / BLOCK_SIZE;
	growth = store_disk_free_blocks(k->store);
	if (st.max_bytes)
		growth = min_u64(growth, st.max_bytes / BLOCK_SIZE > file ? st.max_bytes / BLOCK_SIZE - file : 0);
	ret->blocks = file + growth;
	ret->bfree = st.free_blocks + st.pending_blocks + growth;
	ret->bavail = ret->bfree - min_u64(ret->bfree, store_reserved_blocks(k->store));
	/* An inode needs about 300 bytes. */
	ret->ffree = ret->bfree * (BLOCK_SIZE / 300);
	ret->files = st.inodes + ret->ffree;
}
