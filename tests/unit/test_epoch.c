/* SPDX-License-Identifier: MIT
 *
 * test_epoch: what a store is to others: its identity through crashes, the epochs that it begins, the calls of remote
 * mounts, marked orphans, and what check, dump and salvage make of all that.
 */
#include "core/check/check.h"
#include "core/keys/keys_int.h"
#include "core/salvage/salvage.h"
#include "core/store/store_int.h"
#include "core/stream/stream.h"
#include "tests/unit/image_util.h"
#include "tests/unit/ok_util.h"
#include "tests/unit/scratch_util.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static char path[SCRATCH_PATH], other[SCRATCH_PATH], third[SCRATCH_PATH];
static const struct keys_cred cred = { 0 };

/* Changes that were committed, as the followers see them. */
static struct {
	unsigned count;
	unsigned type[64];
	uint64_t seq[64], epoch[64], client[64], request[64];
} seen;

static void committed(void *ctx, const uint8_t *rec, uint32_t len)
{
	unsigned i = seen.count++ % 64;

	(void)ctx;
	assert_int_equal(get_le32(rec + REC_LEN), len);
	seen.type[i] = get_le16(rec + REC_TYPE);
	seen.seq[i] = get_le64(rec + REC_SEQ);
	seen.epoch[i] = get_le64(rec + REC_EPOCH);
	seen.client[i] = get_le64(rec + REC_CLIENT);
	seen.request[i] = get_le64(rec + REC_REQUEST);
}

static struct keys *open_with(const char *where, bool incomplete, bool threads)
{
	const struct store_options o = { .path = where, .create = true, .max_bytes = 64u << 20, .incomplete = incomplete,
					 .threads = threads, .committed = committed };
	struct keys *k;

	ok(keys_open(&o, &k));
	return k;
}

static struct keys *open_store(const char *where)
{
	return open_with(where, false, false);
}

static struct keys *new_store(void)
{
	(void)unlink(path);
	return open_store(path);
}

/* What another process would find after kill -9. */
static void copy(const char *from, const char *to)
{
	static uint8_t buf[1u << 20];
	int in = open(from, O_RDONLY), out = open(to, O_RDWR | O_CREAT | O_TRUNC, 0600);
	ssize_t n;

	assert_true(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof buf)) > 0)
		assert_int_equal(write(out, buf, (size_t)n), n);
	(void)close(in);
	(void)close(out);
}

static struct store_identity identity(struct keys *k)
{
	struct store_identity id;

	store_identity(k->store, &id);
	return id;
}

static void become(struct keys *k, enum store_role role, uint64_t promised)
{
	struct store_identity id = { .role = role, .promised_epoch = promised };

	memset(id.cluster, 0x5a, sizeof id.cluster);
	ok(store_put_identity(k->store, &id));
}

static uint64_t make(struct keys *k, const char *name)
{
	struct keys_attr a;

	ok(keys_make(k, KEYS_ROOT_INO, name, strlen(name), S_IFREG | 0644, 0, &cred, &a));
	return a.ino;
}

static void unlink_name(struct keys *k, const char *name)
{
	uint64_t ino;
	uint32_t nlink;

	ok(keys_unlink(k, KEYS_ROOT_INO, name, strlen(name), &ino, &nlink));
}

static uint64_t problems(struct keys *k)
{
	const struct check_options o = { .problem = NULL };
	struct check_report rep;

	ok(check_run(k, &o, &rep));
	return rep.problems;
}

static struct keys_epoch last_epoch(struct keys *k)
{
	struct keys_epoch e;
	unsigned n;

	ok(keys_history(k, &e, 1, &n));
	assert_int_equal(n, 1);
	return e;
}

/* Identity --------------------------------------------------------------------------------------------------------- */

static void test_epoch__identity_survives(void **state)
{
	struct keys *k = new_store(), *c;
	struct store_identity id = identity(k);

	(void)state;
	assert_int_equal(id.role, STORE_ALONE);
	(void)make(k, "a");
	become(k, STORE_REPLICA, 7);
	/* Not closed: what is on disk now. */
	copy(path, other);
	c = open_store(other);
	id = identity(c);
	assert_int_equal(id.role, STORE_REPLICA);
	assert_int_equal(id.promised_epoch, 7);
	assert_int_equal(id.cluster[15], 0x5a);
	assert_false(store_was_clean(c->store));
	assert_int_equal(c->store->super.feature_ro_compat, FEATURE_CLUSTER);
	/* Numbers stay as the primary gives them out. */
	assert_int_equal(store_counts(c->store)->next_ino, store_counts(k->store)->next_ino);
	ok(keys_close(c));
	/* A promise is never taken back; what cannot be is refused. */
	id.promised_epoch = 6;
	assert_int_equal(store_put_identity(k->store, &id), -EINVAL);
	id = (struct store_identity){ .role = STORE_PRIMARY, .promised_epoch = 7, .incomplete = true };
	assert_int_equal(store_put_identity(k->store, &id), -EINVAL);
	/* A checkpoint takes it along, and so does closing. */
	become(k, STORE_ALONE, 8);
	(void)make(k, "b");
	ok(store_checkpoint(k->store));
	ok(keys_close(k));
	k = open_store(path);
	assert_int_equal(identity(k).role, STORE_ALONE);
	assert_int_equal(identity(k).promised_epoch, 8);
	assert_int_equal(k->store->super.feature_ro_compat, 0);
	assert_int_equal(problems(k), 0);
	ok(keys_close(k));
}

/* While a superblock is being written, and closed at once: the next one has it. */
static void test_epoch__identity_set_beside_a_checkpoint(void **state)
{
	struct keys *k = new_store();
	struct store_identity id = { .role = STORE_REPLICA, .promised_epoch = 5 };
	uint64_t ticket;

	(void)state;
	(void)make(k, "a");
	ok(checkpoint_cut(k->store, false));
	ok(store_set_identity(k->store, &id, &ticket));
	assert_true(store_identity_durable(k->store) < ticket);
	ok(checkpoint_write(k->store));
	assert_true(store_identity_durable(k->store) < ticket);
	ok(store_poll(k->store));
	assert_true(store_identity_durable(k->store) >= ticket);
	k->store->changed = true;
	ok(checkpoint_cut(k->store, false));
	id.promised_epoch = 6;
	ok(store_set_identity(k->store, &id, &ticket));
	ok(keys_close(k));
	k = open_store(path);
	assert_int_equal(identity(k).promised_epoch, 6);
	assert_int_equal(problems(k), 0);
	ok(keys_close(k));
}

/* With helpers: asked for at any moment, also while a checkpoint is being written, and several times. */
static void test_epoch__identity_with_threads(void **state)
{
	const struct timespec nap = { 0, 1000000 };
	struct store_identity id;
	uint64_t ticket = 0;
	struct keys *k, *c;
	unsigned i;

	(void)state;
	(void)unlink(path);
	k = open_with(path, false, true);
	id = identity(k);
	for (i = 1; i <= 40; i++) {
		char name[16];

		(void)snprintf(name, sizeof name, "f%u", i);
		if (id.role != STORE_REPLICA)
			(void)make(k, name);
		if (i % 3 == 0)
			(void)store_checkpoint(k->store);
		id.role = i % 2 ? STORE_PRIMARY : STORE_REPLICA;
		id.promised_epoch = i;
		ok(store_set_identity(k->store, &id, &ticket));
		assert_int_equal(identity(k).promised_epoch, i);
		if (i % 5)
			continue;
		while (store_identity_durable(k->store) < ticket) {
			assert_int_equal(store_failed(k->store), 0);
			(void)nanosleep(&nap, NULL);
			ok(store_poll(k->store));
		}
		copy(path, other);
		c = open_store(other);
		assert_int_equal(identity(c).promised_epoch, i);
		ok(keys_close(c));
	}
	id.role = STORE_ALONE;
	ok(store_put_identity(k->store, &id));
	ok(keys_close(k));
	k = open_store(path);
	assert_int_equal(identity(k).role, STORE_ALONE);
	assert_int_equal(identity(k).promised_epoch, 40);
	assert_int_equal(problems(k), 0);
	ok(keys_close(k));
}

/* A power cut while the identity is written: of each of the four places the old page, the new one, or half of it. */
static void test_epoch__identity_through_power_cuts(void **state)
{
	static uint8_t before[SUPER_PLACES][BLOCK_SIZE], after[SUPER_PLACES][BLOCK_SIZE];
	struct keys *k = new_store(), *c;
	unsigned mix, i, old = 0, new = 0;
	uint64_t seq, flip;

	(void)state;
	(void)make(k, "checkpointed");
	ok(store_checkpoint(k->store));
	(void)make(k, "in the journal");
	seq = store_seq(k->store);
	for (i = 0; i < SUPER_PLACES; i++)
		memcpy(before[i], map_block(&k->store->map, super_place(i)), BLOCK_SIZE);
	flip = k->store->super.flip;
	become(k, STORE_REPLICA, 3);
	for (i = 0; i < SUPER_PLACES; i++)
		memcpy(after[i], map_block(&k->store->map, super_place(i)), BLOCK_SIZE);
	/* What is in force is not written over. */
	for (i = 0; i < SUPER_PLACES; i++)
		assert_int_equal(memcmp(before[i], after[i], BLOCK_SIZE) == 0, get_le64(before[i] + SB_FLIP) == flip);
	for (mix = 0; mix < 81; mix++) {
		unsigned how = mix;
		int fd;

		copy(path, other);
		fd = open(other, O_RDWR);
		for (i = 0; i < SUPER_PLACES; i++, how /= 3) {
			uint8_t page[BLOCK_SIZE];

			memcpy(page, how % 3 == 0 ? before[i] : after[i], BLOCK_SIZE);
			if (how % 3 == 2)
				memcpy(page, before[i], BLOCK_SIZE / 8);
			assert_int_equal(pwrite(fd, page, BLOCK_SIZE, (off_t)super_place(i) * BLOCK_SIZE), BLOCK_SIZE);
		}
		(void)close(fd);
		c = open_store(other);
		assert_int_equal(store_seq(c->store), seq);
		if (identity(c).role == STORE_REPLICA) {
			assert_int_equal(identity(c).promised_epoch, 3);
			assert_int_equal(identity(c).cluster[0], 0x5a);
			new++;
		} else {
			assert_int_equal(identity(c).role, STORE_ALONE);
			assert_int_equal(identity(c).promised_epoch, 0);
			assert_int_equal(identity(c).cluster[0], 0);
			old++;
		}
		assert_int_equal(problems(c), 0);
		ok(keys_close(c));
	}
	assert_true(old > 0 && new > 0);
	ok(keys_close(k));
}

static void test_epoch__incomplete_replica_stays_closed(void **state)
{
	const struct store_options o = { .path = path }, ro = { .path = path, .read_only = true };
	struct keys *k = new_store();
	struct store_identity id = { .role = STORE_REPLICA, .incomplete = true };

	(void)state;
	ok(store_put_identity(k->store, &id));
	ok(keys_close(k));
	assert_int_equal(keys_open(&o, &k), -EINPROGRESS);
	assert_int_equal(keys_open(&ro, &k), -EINPROGRESS);
	assert_non_null(strstr(err_last(), "--from"));
	k = open_with(path, true, false);
	assert_true(identity(k).incomplete);
	id.incomplete = false;
	ok(store_put_identity(k->store, &id));
	ok(keys_close(k));
	ok(keys_open(&ro, &k));
	ok(keys_close(k));
}

static void test_epoch__seed_is_taken_over_before_any_name(void **state)
{
	struct keys *k = new_store(), *c;
	struct keys_attr a;

	(void)state;
	ok(keys_adopt_seed(k, 0x1234567));
	(void)make(k, "name");
	assert_int_equal(keys_adopt_seed(k, 0x1234567), 0);
	assert_int_equal(keys_adopt_seed(k, 5), -ENOTEMPTY);
	copy(path, other);
	c = open_store(other);
	assert_int_equal(store_hash_seed(c->store), 0x1234567);
	ok(keys_lookup(c, KEYS_ROOT_INO, "name", 4, &a));
	assert_int_equal(problems(c), 0);
	ok(keys_close(c));
	unlink_name(k, "name");
	/* It is an orphan: still an item of another inode. */
	assert_int_equal(keys_adopt_seed(k, 5), -ENOTEMPTY);
	ok(keys_close(k));
}

/* Epochs ----------------------------------------------------------------------------------------------------------- */

static void test_epoch__begins_after_a_crash(void **state)
{
	struct keys *k = new_store(), *c, *d;
	struct keys_epoch e, f;
	uint64_t next, seq;
	uint8_t uuid[16];

	(void)state;
	(void)make(k, "a");
	become(k, STORE_PRIMARY, 1ull << 20);
	ok(keys_begin_epoch(k, 1ull << 20));
	e = last_epoch(k);
	assert_int_equal(e.epoch, 1ull << 20);
	assert_int_equal(e.first_seq, store_seq(k->store));
	store_uuid(k->store, uuid);
	assert_memory_equal(e.uuid, uuid, 16);
	assert_int_equal(e.next_ino, store_counts(k->store)->next_ino);
	(void)make(k, "b");
	seq = store_seq(k->store);
	next = store_counts(k->store)->next_ino;
	copy(path, other);
	copy(path, third);
	memset(&seen, 0, sizeof seen);
	c = open_store(other);
	/* One change, before anybody else could make one. */
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.type[0], CHANGE_EPOCH);
	assert_int_equal(seen.seq[0], seq + 1);
	assert_int_equal(seen.epoch[0], (1ull << 20) + 1);
	assert_int_equal(store_epoch(c->store), (1ull << 20) + 1);
	e = last_epoch(c);
	assert_int_equal(e.epoch, (1ull << 20) + 1);
	assert_int_equal(e.first_seq, seq + 1);
	/* The crash leaves out as many as the epoch: that may be lost, too. */
	assert_int_equal(store_counts(c->store)->next_ino, next + (2u << 24));
	assert_int_equal(make(c, "c"), next + (2u << 24));
	assert_int_equal(problems(c), 0);
	/* The same again from the same crash: the same number, another epoch. */
	d = open_store(third);
	f = last_epoch(d);
	assert_int_equal(f.epoch, e.epoch);
	assert_int_not_equal(f.nonce, e.nonce);
	ok(keys_close(d));
	/* Crash in the new epoch: the next one. Closed in order: none. */
	copy(other, third);
	d = open_store(third);
	assert_int_equal(last_epoch(d).epoch, (1ull << 20) + 2);
	ok(keys_close(d));
	d = open_store(third);
	assert_true(store_was_clean(d->store));
	assert_int_equal(last_epoch(d).epoch, (1ull << 20) + 2);
	assert_int_equal(store_epoch(d->store), (1ull << 20) + 2);
	ok(keys_close(d));
	ok(keys_close(c));
	ok(keys_close(k));
}

/* A crash that loses two beginnings would give the numbers of the second one out again: see cluster.c. */
static void test_epoch__one_beginning_is_lost_at_most(void **state)
{
	struct keys *k = new_store();
	struct keys_epoch e;

	(void)state;
	become(k, STORE_PRIMARY, 1ull << 20);
	ok(keys_begin_epoch(k, 1ull << 20));
	e = last_epoch(k);
	(void)make(k, "a");
	assert_true(store_durable_seq(k->store) < e.first_seq);
	ok(keys_begin_epoch(k, (1ull << 20) + 1));
	assert_true(store_durable_seq(k->store) >= e.first_seq);
	e = last_epoch(k);
	assert_true(store_durable_seq(k->store) < e.first_seq);
	ok(keys_close(k));
}

static void test_epoch__replica_begins_none(void **state)
{
	struct keys *k = new_store(), *c;
	unsigned n;
	struct keys_epoch e[4];

	(void)state;
	(void)make(k, "a");
	become(k, STORE_REPLICA, 0);
	copy(path, other);
	memset(&seen, 0, sizeof seen);
	c = open_store(other);
	assert_false(store_was_clean(c->store));
	assert_int_equal(seen.count, 0);
	ok(keys_history(c, e, 4, &n));
	assert_int_equal(n, 0);
	assert_int_equal(keys_begin_epoch(c, 5), -EPERM);
	ok(keys_close(c));
	ok(keys_close(k));
}

/* An old primary that is to follow has nothing of its own: also if a power cut comes while it becomes a replica. */
static void test_epoch__who_follows_begins_none(void **state)
{
	struct store_options o = { .path = other, .max_bytes = 64u << 20, .follow = true, .incomplete = true, .committed = committed };
	struct keys *k = new_store(), *c;
	uint64_t seq, epoch;
	unsigned i;

	(void)state;
	become(k, STORE_PRIMARY, 1ull << 20);
	ok(keys_begin_epoch(k, 1ull << 20));
	(void)make(k, "a");
	/* Once not closed in order, once with a promise that it did not come to keep. */
	for (i = 0; i < 2; i++) {
		seq = store_seq(k->store);
		epoch = store_epoch(k->store);
		copy(path, other);
		memset(&seen, 0, sizeof seen);
		ok(keys_open(&o, &c));
		assert_false(store_was_clean(c->store));
		assert_int_equal(identity(c).role, STORE_REPLICA);
		assert_int_equal(identity(c).promised_epoch, (1ull + i) << 20);
		assert_int_equal(seen.count, 0);
		assert_int_equal(store_seq(c->store), seq);
		assert_int_equal(store_epoch(c->store), epoch);
		/* What it lost it gets again, numbers of inodes and all. */
		assert_int_equal(store_counts(c->store)->next_ino, store_counts(k->store)->next_ino);
		assert_int_equal(last_epoch(c).epoch, 1ull << 20);
		/* Crash: it is one still, and stays one. */
		copy(other, third);
		ok(keys_close(c));
		c = open_store(third);
		assert_int_equal(identity(c).role, STORE_REPLICA);
		assert_int_equal(seen.count, 0);
		assert_int_equal(keys_begin_epoch(c, 9ull << 20), -EPERM);
		assert_int_equal(problems(c), 0);
		ok(keys_close(c));
		become(k, STORE_PRIMARY, 2ull << 20);
	}
	ok(keys_close(k));
}

static void test_epoch__promotion_ends_whatever_comes_between(void **state)
{
	struct keys *k = new_store(), *c;

	(void)state;
	become(k, STORE_REPLICA, 1ull << 20);
	/* Role and promise are on disk, the epoch is not begun: crash, or closed in order. */
	become(k, STORE_PRIMARY, 2ull << 20);
	copy(path, other);
	c = open_store(other);
	assert_int_equal(last_epoch(c).epoch, 2ull << 20);
	ok(keys_close(c));
	ok(keys_close(k));
	k = open_store(path);
	assert_int_equal(last_epoch(k).epoch, 2ull << 20);
	/* Never back, never below the promise. */
	assert_int_equal(keys_begin_epoch(k, 2ull << 20), -EINVAL);
	become(k, STORE_PRIMARY, 9ull << 20);
	assert_int_equal(keys_begin_epoch(k, 8ull << 20), -EINVAL);
	ok(keys_begin_epoch(k, 9ull << 20));
	ok(keys_close(k));
}

static void test_epoch__history_is_bounded(void **state)
{
	struct keys *k = new_store();
	struct keys_epoch e[2 * KEYS_HISTORY_MAX];
	unsigned i, n;

	(void)state;
	become(k, STORE_PRIMARY, 0);
	for (i = 1; i <= 100; i++) {
		ok(keys_begin_epoch(k, i));
		if (i % 30 == 0)
			(void)make(k, i == 30 ? "x" : i == 60 ? "y" : "z");
	}
	ok(keys_history(k, e, ARRAY_LEN(e), &n));
	assert_int_equal(n, KEYS_HISTORY_MAX);
	for (i = 0; i < n; i++) {
		assert_int_equal(e[i].epoch, 100 - KEYS_HISTORY_MAX + 1 + i);
		assert_true(i == 0 || e[i].first_seq > e[i - 1].first_seq);
	}
	ok(keys_history(k, e, 3, &n));
	assert_int_equal(n, 3);
	assert_int_equal(e[0].epoch, 98);
	assert_int_equal(e[2].epoch, 100);
	assert_int_equal(problems(k), 0);
	ok(keys_close(k));
}

/* Calls ------------------------------------------------------------------------------------------------------------ */

static void test_epoch__calls_are_known_once_complete(void **state)
{
	struct keys *k = new_store(), *c;
	uint64_t seq, number, client, ino;
	char data[5000] = "x";
	size_t n;
	unsigned i;

	(void)state;
	become(k, STORE_PRIMARY, 0);
	assert_int_equal(keys_call_result(k, 7, 1, &seq, &number), -ENOENT);
	keys_set_caller(k, 7, 1);
	ino = make(k, "a");
	keys_set_caller(k, 7, 2);
	ok(keys_write(k, ino, 10, data, 100, 0, &n));
	keys_set_caller(k, 7, 3);
	ok(keys_write(k, ino, 0, data, sizeof data, 0, &n));
	/* One that changes nothing leaves no trace, nor does one that fails. */
	keys_set_caller(k, 7, 4);
	ok(keys_rename(k, KEYS_ROOT_INO, "a", 1, KEYS_ROOT_INO, "a", 1, 0, &cred, &number));
	keys_set_caller(k, 7, 5);
	assert_int_equal(keys_unlink(k, KEYS_ROOT_INO, "b", 1, &number, &(uint32_t){ 0 }), -ENOENT);
	keys_set_caller(k, 0, 0);
	(void)make(k, "local");
	assert_int_equal(seen.client[(seen.count - 1) % 64], 0);
	copy(path, other);
	c = open_store(other);
	ok(keys_call_result(c, 7, 1, &seq, &number));
	assert_int_equal(number, ino);
	ok(keys_call_result(c, 7, 2, &seq, &number));
	assert_int_equal(number, 100);
	ok(keys_call_result(c, 7, 3, &seq, &number));
	assert_int_equal(number, sizeof data);
	assert_int_equal(seq, 3);
	assert_int_equal(keys_call_result(c, 7, 4, &seq, &number), -ENOENT);
	assert_int_equal(keys_call_result(c, 7, 5, &seq, &number), -ENOENT);
	assert_int_equal(problems(c), 0);
	ok(keys_close(c));
	/* The slots go round. */
	for (i = 6; i <= 40; i++) {
		keys_set_caller(k, 7, i);
		ok(keys_write(k, ino, 0, data, i, 0, &n));
	}
	keys_set_caller(k, 0, 0);
	assert_int_equal(keys_call_result(k, 7, 8, &seq, &number), -ESTALE);
	ok(keys_call_result(k, 7, 9, &seq, &number));
	assert_int_equal(number, 9);
	ok(keys_call_result(k, 7, 40, &seq, &number));
	assert_int_equal(seq, store_seq(k->store));
	keys_set_caller(k, 9, 1);
	(void)make(k, "of another");
	keys_set_caller(k, 0, 0);
	ok(keys_next_client(k, 8, &client, &seq));
	assert_int_equal(client, 9);
	ok(keys_next_client(k, 0, &client, &seq));
	assert_int_equal(client, 7);
	ok(keys_forget_client(k, 7));
	assert_int_equal(keys_forget_client(k, 7), -ENOENT);
	assert_int_equal(keys_call_result(k, 7, 40, &seq, &number), -ENOENT);
	assert_int_equal(problems(k), 0);
	ok(keys_close(k));
}

/* An operation of several records is the caller's with its last one. */
static void test_epoch__last_record_completes_a_call(void **state)
{
	struct keys *k = new_store();
	uint64_t seq, number, ino;
	size_t n;
	unsigned i;

	(void)state;
	become(k, STORE_PRIMARY, 0);
	ino = make(k, "a");
	ok(keys_write(k, ino, 0, "inline", 6, 0, &n));
	memset(&seen, 0, sizeof seen);
	keys_set_caller(k, 7, 1);
	/* Out of the inode first, then blocks. */
	ok(keys_fallocate(k, ino, 0, 0, 100000, 0));
	keys_set_caller(k, 7, 2);
	/* A hole, then blocks. */
	ok(keys_fallocate(k, ino, FALLOC_FL_ZERO_RANGE, 0, 50000, 0));
	keys_set_caller(k, 0, 0);
	assert_int_equal(seen.count, 4);
	for (i = 0; i < 4; i++) {
		assert_int_equal(seen.client[i], i % 2 ? 7 : 0);
		assert_int_equal(seen.request[i], i % 2 ? i / 2 + 1 : 0);
	}
	for (i = 0; i < 2; i++) {
		ok(keys_call_result(k, 7, i + 1, &seq, &number));
		assert_int_equal(seq, seen.seq[2 * i + 1]);
	}
	/* More holes than one record fills. */
	for (i = 0; i < 80; i++)
		ok(keys_write(k, ino, (100 + 2 * i) << 12, "x", 1, 0, &n));
	memset(&seen, 0, sizeof seen);
	keys_set_caller(k, 7, 3);
	ok(keys_fallocate(k, ino, FALLOC_FL_KEEP_SIZE, 100 << 12, 160 << 12, 0));
	keys_set_caller(k, 0, 0);
	assert_int_equal(seen.count, 2);
	assert_int_equal(seen.client[0], 0);
	assert_int_equal(seen.client[1], 7);
	assert_int_equal(problems(k), 0);
	ok(keys_close(k));
}

/* Orphans ---------------------------------------------------------------------------------------------------------- */

static void test_epoch__only_marked_orphans_are_reaped(void **state)
{
	struct keys *k = new_store();
	struct keys_setattr set = { .mask = KEYS_SET_MODE, .mode = 0600 };
	struct keys_attr a;
	uint64_t ino;
	bool marked = true;
	size_t n;

	(void)state;
	become(k, STORE_PRIMARY, 0);
	ino = make(k, "a");
	assert_int_equal(keys_mark_orphan(k, ino), -ENOENT);
	unlink_name(k, "a");
	assert_int_equal(keys_reap(k, ino), -EBUSY);
	ok(keys_orphan_marked(k, ino, &marked));
	assert_false(marked);
	/* Somebody may have it open. */
	ok(keys_write(k, ino, 0, "text", 4, 0, &n));
	ok(keys_mark_orphan(k, ino));
	ok(keys_mark_orphan(k, ino));
	ok(keys_orphan_marked(k, ino, &marked));
	assert_true(marked);
	assert_int_equal(keys_write(k, ino, 0, "text", 4, 0, &n), -ESTALE);
	assert_int_equal(keys_setattr(k, ino, &set, &a), -ESTALE);
	assert_int_equal(keys_fallocate(k, ino, 0, 0, 4096, 0), -ESTALE);
	assert_int_equal(keys_setxattr(k, ino, "user.a", "b", 1, 0, false), -ESTALE);
	assert_int_equal(keys_removexattr(k, ino, "user.a"), -ESTALE);
	assert_int_equal(problems(k), 0);
	assert_int_equal(keys_reap(k, ino), 0);
	assert_int_equal(keys_getattr(k, ino, &a), -ENOENT);
	assert_int_equal(problems(k), 0);
	ok(keys_close(k));
}

/* The tools -------------------------------------------------------------------------------------------------------- */

static struct keys *busy_primary(void)
{
	struct keys *k = new_store();

	become(k, STORE_PRIMARY, 1ull << 20);
	ok(keys_begin_epoch(k, 1ull << 20));
	keys_set_caller(k, 7, 33);
	(void)make(k, "a");
	keys_set_caller(k, 0, 0);
	(void)make(k, "b");
	unlink_name(k, "b");
	ok(keys_mark_orphan(k, store_counts(k->store)->next_ino - 1));
	return k;
}

static void test_epoch__check_finds_what_cannot_be(void **state)
{
	static const struct {
		uint64_t hi, lo;
		unsigned at, size;
		uint64_t value;
	} bad[] = {
		{ KIND_HISTORY, 1ull << 20, 0, 8, 0 }, { KIND_HISTORY, 1ull << 20, 0, 8, 1000 },
		{ KIND_HISTORY, 1ull << 20, 32, 8, 1ull << 40 }, { KIND_HISTORY, 1ull << 20, 32, 8, ~0ull },
		{ KIND_CLIENT, 7, 24, 8, 34 }, { KIND_CLIENT, 7, 24, 8, 0 }, { KIND_CLIENT, 7, 32, 8, 1000 },
		{ KIND_CLIENT, 7, 32, 8, 0 }, { KIND_CLIENT, 7, 0, 8, 1 }, { KIND_ORPHAN, 0, 0, 1, 2 },
	};
	struct keys *k = busy_primary();
	uint64_t orphan = store_counts(k->store)->next_ino - 1;
	unsigned i;

	(void)state;
	assert_int_equal(problems(k), 0);
	ok(keys_close(k));
	for (i = 0; i < ARRAY_LEN(bad); i++) {
		struct image im;
		struct key key = { bad[i].hi, bad[i].hi == KIND_ORPHAN ? orphan : bad[i].lo };
		uint8_t *leaf, *v;
		uint32_t len;

		copy(path, other);
		image_open(&im, other);
		v = image_item(&im, key, &len, &leaf);
		if (bad[i].size == 8)
			put_le64(v + bad[i].at, bad[i].value);
		else
			v[bad[i].at] = (uint8_t)bad[i].value;
		image_seal(&im, leaf);
		image_close(&im);
		k = open_store(other);
		if (problems(k) == 0)
			fail_msg("case %u was not found", i);
		ok(keys_close(k));
	}
}

static void test_epoch__copies_are_alone(void **state)
{
	const struct salvage_options so = { .say = NULL };
	struct stream_target t = { .path = other };
	struct keys *k = busy_primary();
	struct salvage_report rep;
	struct stream_counts counts;
	struct keys_epoch e;
	struct keys_attr a;
	uint64_t client, seq;
	unsigned n, which;
	int fd = memfd_create("dump", 0);

	(void)state;
	(void)unlink(other);
	copy(path, third);
	ok(stream_dump(k, fd, NULL, &counts));
	ok(keys_close(k));
	for (which = 0; which < 2; which++) {
		(void)unlink(other);
		assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
		if (which == 0)
			ok(stream_load(&t, fd, NULL, &counts));
		else
			ok(salvage_store(third, &t, &so, &rep));
		k = open_store(other);
		ok(keys_lookup(k, KEYS_ROOT_INO, "a", 1, &a));
		assert_int_equal(identity(k).role, STORE_ALONE);
		assert_int_equal(store_epoch(k->store), 0);
		ok(keys_history(k, &e, 1, &n));
		assert_int_equal(n, 0);
		assert_int_equal(keys_next_client(k, 0, &client, &seq), -ENOENT);
		assert_int_equal(problems(k), 0);
		ok(keys_close(k));
	}
	assert_int_equal(rep.lost, 0);
	(void)close(fd);
}

static int setup(void **state)
{
	(void)state;
	if (scratch_make_on_disk("epoch") < 0)
		return -1;
	scratch_path(path, "a");
	scratch_path(other, "b");
	scratch_path(third, "c");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_epoch__identity_survives),
		cmocka_unit_test(test_epoch__identity_set_beside_a_checkpoint),
		cmocka_unit_test(test_epoch__identity_with_threads),
		cmocka_unit_test(test_epoch__identity_through_power_cuts),
		cmocka_unit_test(test_epoch__incomplete_replica_stays_closed),
		cmocka_unit_test(test_epoch__seed_is_taken_over_before_any_name),
		cmocka_unit_test(test_epoch__begins_after_a_crash),
		cmocka_unit_test(test_epoch__one_beginning_is_lost_at_most),
		cmocka_unit_test(test_epoch__replica_begins_none),
		cmocka_unit_test(test_epoch__who_follows_begins_none),
		cmocka_unit_test(test_epoch__promotion_ends_whatever_comes_between),
		cmocka_unit_test(test_epoch__history_is_bounded),
		cmocka_unit_test(test_epoch__calls_are_known_once_complete),
		cmocka_unit_test(test_epoch__last_record_completes_a_call),
		cmocka_unit_test(test_epoch__only_marked_orphans_are_reaped),
		cmocka_unit_test(test_epoch__check_finds_what_cannot_be),
		cmocka_unit_test(test_epoch__copies_are_alone),
	};

	return cmocka_run_group_tests_name("epoch", tests, setup, scratch_teardown);
}
