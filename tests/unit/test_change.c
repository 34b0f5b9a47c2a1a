/* SPDX-License-Identifier: MIT
 *
 * test_change: seeded random calls on a primary; each record that it commits is encoded, decoded and applied to a replica,
 * which must be in the same state at the same number: by the model of crash_util, and item by item. In between the
 * replica is killed and opened again, runs out of space, has its free space in single blocks, and is sent nonsense.
 *
 *   SEED=n    first case (a failure prints its own)
 *   CASES=n   how many
 */
#include "tests/unit/crash_util.h"
#include "tests/unit/ok_util.h"
#include "tests/unit/random_util.h"
#include "tests/unit/scratch_util.h"

#include "core/check/check.h"
#include "core/keys/keys_int.h"
#include "core/replica/change.h"
#include "core/store/store_int.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLIENTS 3u

struct pair {
	struct work w;
	struct keys *a, *b;
	uint64_t max_b;
	uint8_t *rec;                   /* what A committed last */
	uint32_t rec_len;
	unsigned pending;               /* records not yet sent: one at most between two calls of change_one() */
	uint8_t *log;                   /* encoded changes, one after the other: u32 length, bytes */
	size_t log_len, log_room, log_sent;
	uint64_t request[CLIENTS];
	bool alone;                     /* nothing is sent for now */
};

static char path_a[SCRATCH_PATH], path_b[SCRATCH_PATH], path_c[SCRATCH_PATH];
static uint64_t seed_now;
static struct sys_ops sys;
static struct pair *p;
static uint8_t change[CHANGE_MAX];

static void print_replay(void)
{
	print_error("# replay with SEED=%llu CASES=1\n", (unsigned long long)seed_now);
}

static uint64_t real_clock(void *ctx)
{
	(void)ctx;
	return p ? p->w.real_ns : 1700000000ull * 1000000000u;
}

static uint64_t mono_clock(void *ctx)
{
	(void)ctx;
	return p ? p->w.mono_ns : 1000000000u;
}

/* A killed program's pages are there all the same; what a power cut leaves is for others to test. */
static int no_sync(void *ctx, void *addr, size_t len)
{
	(void)ctx;
	(void)addr;
	(void)len;
	return 0;
}

static struct {
	unsigned calls, failing;        /* the call that fails, 1 = the next */
} writes;

static int count_write(void *ctx, int fd, const void *bytes, size_t len, uint64_t off)
{
	writes.calls++;
	if (writes.failing > 0 && --writes.failing == 0)
		return -ENOSPC;
	return sys_linux.write(ctx, fd, bytes, len, off);
}

static int read_a(void *ctx, block_t block, uint64_t count, uint8_t *to)
{
	struct pair *q = ctx;

	return store_read_blocks(keys_store(q->a), block, count, to);
}

/* A committed: encode at once, while the blocks are what they were. */
static void committed(void *ctx, const uint8_t *rec, uint32_t len)
{
	struct pair *q = ctx;
	static uint8_t bytes[CHANGE_MAX];
	struct change_info info;
	uint32_t n;

	if (!q->a)
		return;                 /* not open yet */
	ok(change_encode(rec, len, read_a, q, bytes, sizeof bytes, &n));
	ok(change_info(bytes, n, &info));
	must(info.seq == get_le64(rec + REC_SEQ));
	while (q->log_len + 4 + n > q->log_room) {
		q->log_room = q->log_room ? 2 * q->log_room : 1u << 20;
		q->log = realloc(q->log, q->log_room);
		check(q->log);
	}
	put_le32(q->log + q->log_len, n);
	memcpy(q->log + q->log_len + 4, bytes, n);
	q->log_len += 4 + n;
}

static struct keys *open_store(const char *path, uint64_t max, bool create, bool is_a)
{
	const struct store_options o = { .path = path, .create = create, .max_bytes = max, .sys = &sys,
					 .committed = is_a ? committed : NULL, .committed_ctx = p };
	struct keys *k = NULL;

	ok(keys_open(&o, &k));
	return k;
}

static void set_role(struct keys *k, enum store_role role)
{
	struct store_identity id = { .role = role };

	memset(id.cluster, 7, sizeof id.cluster);
	ok(store_put_identity(keys_store(k), &id));
}

/* Comparing -------------------------------------------------------------------------------------------------------- */

/* What the file has at its blocks, whatever extents it is in. */
static uint64_t extents_hash(struct keys *k, uint64_t ino)
{
	struct tree_cursor c;
	uint64_t h = 0;
	int r = tree_seek(k->tree, item_key(ino, ITEM_EXTENT, 0), &c);

	for (; r == 0 && cursor_key(&c).hi == item_key(ino, ITEM_EXTENT, 0).hi; r = cursor_next(&c)) {
		struct extent e;
		uint32_t len, i;
		const uint8_t *v = cursor_value(&c, &len);

		ok(extent_decode(v, len, cursor_key(&c), &e));
		for (i = 0; i < e.count; i++) {
			uint64_t block[2] = { e.fblock + i,
					      e.flags & EXTENT_UNWRITTEN ? ~0ull : get_le32(e.csums + 4 * i) };

			h = hash64(block, sizeof block, h);
		}
	}
	return h;
}

static bool is_logical(struct key k)
{
	return k.hi != KIND_SPACE && !(k.hi >> 8 != 0 && (k.hi & 0xff) == ITEM_EXTENT);
}

/* The next item but those that tell of places. */
static int next_logical(struct tree_cursor *c, int r)
{
	while (r == 0 && !is_logical(cursor_key(c)))
		r = cursor_next(c);
	return r;
}

static void compare_items(void)
{
	struct tree_cursor a, b;
	int ra = next_logical(&a, tree_seek(p->a->tree, (struct key){ 0, 0 }, &a));
	int rb = next_logical(&b, tree_seek(p->b->tree, (struct key){ 0, 0 }, &b));

	while (ra == 0 && rb == 0) {
		struct key k = cursor_key(&a);
		uint32_t la, lb;
		const uint8_t *va = cursor_value(&a, &la), *vb = cursor_value(&b, &lb);

		if (key_cmp(k, cursor_key(&b)) != 0 || la != lb || memcmp(va, vb, la) != 0)
			fail_msg("SEED=%llu: item (%llu, %u, %llu) is not alike", (unsigned long long)seed_now,
				 (unsigned long long)(k.hi >> 8), (unsigned)(k.hi & 0xff), (unsigned long long)k.lo);
		if (k.hi >> 8 != 0 && (k.hi & 0xff) == ITEM_INODE)
			must(extents_hash(p->a, k.hi >> 8) == extents_hash(p->b, k.hi >> 8));
		ra = next_logical(&a, cursor_next(&a));
		rb = next_logical(&b, cursor_next(&b));
	}
	must(ra == -ENOENT && rb == -ENOENT);
	must(store_counts(p->a->store)->next_ino == store_counts(p->b->store)->next_ino);
	must(store_counts(p->a->store)->inodes == store_counts(p->b->store)->inodes);
	must(store_seq(p->a->store) == store_seq(p->b->store));
	must(store_epoch(p->a->store) == store_epoch(p->b->store));
}

static void compare_model(void)
{
	char text[512];

	if (work_compare(&p->w, p->b, 0, text, sizeof text) < 0)
		fail_msg("SEED=%llu: the replica: %s", (unsigned long long)seed_now, text);
}

static void check_store(struct keys *k)
{
	const struct check_options o = { .problem = NULL };
	struct check_report rep;

	ok(check_run(k, &o, &rep));
	must(rep.problems == 0);
}

/* The replica ------------------------------------------------------------------------------------------------------ */

/* Marked orphans are reaped by each store for itself. */
static void reap_b(void)
{
	uint64_t ino = 0;

	while (keys_next_orphan(p->b, ino, &ino) == 0) {
		bool marked = false;
		int r = 1;

		ok(keys_orphan_marked(p->b, ino, &marked));
		if (!marked) {
			must(keys_reap(p->b, ino) == -EBUSY);
			ino++;
			continue;
		}
		while (r > 0 || r == -EAGAIN) {
			r = keys_reap(p->b, ino);
			if (r == -EAGAIN)
				ok(store_checkpoint(p->b->store));
		}
		must(r == 0);
		ino++;
	}
}

/* As with kill -9: another process opens what is in the page cache. */
static void kill_b(void)
{
	static uint8_t buf[1u << 20];
	seq_t seq = store_seq(p->b->store);
	int from = open(path_b, O_RDONLY), to = open(path_c, O_RDWR | O_CREAT | O_TRUNC, 0600);
	ssize_t n;

	check(from >= 0 && to >= 0);
	while ((n = read(from, buf, sizeof buf)) > 0)
		check(write(to, buf, (size_t)n) == n);
	check(close(from) == 0 && close(to) == 0);
	ok(keys_close(p->b));
	check(rename(path_c, path_b) == 0);
	p->b = open_store(path_b, 0, false, false);
	must(!store_was_clean(p->b->store));
	must(store_seq(p->b->store) == seq);
}

static int apply(const uint8_t *bytes, uint32_t len)
{
	unsigned tries;
	int r = -EAGAIN;

	for (tries = 0; r == -EAGAIN && tries < 4; tries++) {
		r = change_apply(p->b, bytes, len);
		if (r == -EAGAIN)
			ok(store_poll(p->b->store));
	}
	return r;
}

static void send_next(void)
{
	const uint8_t *at = p->log + p->log_sent;
	uint32_t len = get_le32(at);
	int r = apply(at + 4, len);

	while (r == -ENOSPC && p->max_b < 128u << 20) {
		/* A replica smaller than its primary: nothing has changed, and with more room it goes on. */
		compare_model();
		ok(keys_close(p->b));
		p->max_b *= 2;
		p->b = open_store(path_b, p->max_b, false, false);
		r = apply(at + 4, len);
	}
	ok(r);
	/* Once is enough. */
	must(change_apply(p->b, at + 4, len) == -EPROTO);
	p->log_sent += 4 + len;
}

static void send_all(void)
{
	while (p->log_sent < p->log_len)
		send_next();
	p->log_sent = p->log_len = 0;
	reap_b();
}

/* Whatever is changed of a change, it is refused or applied; a store that took nonsense into its journal would fail, now or
 * when it is opened again. */
static void send_nonsense(void)
{
	uint32_t len = get_le32(p->log + p->log_sent);
	unsigned n = 1 + (unsigned)random_below(4), i;
	seq_t seq = store_seq(p->b->store);
	int r;

	memcpy(change, p->log + p->log_sent + 4, len);
	for (i = 0; i < n; i++) {
		uint32_t at = (uint32_t)(random_below(3) ? CHANGE_HEADER + random_below(min_u64(len - CHANGE_HEADER, 200) + 1) : random_below(len));

		if (at >= len)
			continue;
		switch (random_below(4)) {
		case 0:
			change[at] ^= (uint8_t)(1 << random_below(8));
			break;
		case 1:
			change[at] = (uint8_t)random_below(256);
			break;
		case 2:
			put_le32(change + (at & ~3u), (uint32_t)random_below(1u << random_below(32)));
			break;
		default:
			/* Another one's beginning, with this one's length. */
			memmove(change + CHANGE_HEADER, change + (at & ~7u), min_u64(len - (at & ~7u), len - CHANGE_HEADER));
		}
	}
	if (random_below(8) == 0)
		len = (uint32_t)random_below(len + 1);
	if (random_below(2))
		put_le64(change + CHANGE_SEQ, seq + 1);
	if (len >= CHANGE_HEADER && random_below(16))
		put_le64(change + CHANGE_CHECK, hash64(change + 8, len - 8, 0));
	r = apply(change, len);
	must(r == 0 || r == -EPROTO || r == -ENOSPC);
	must(store_failed(p->b->store) == 0);
	must(store_seq(p->b->store) == seq + (r == 0));
}

/* The primary ------------------------------------------------------------------------------------------------------ */

/* A client is gone for good: on both sides. */
static void forget_one(unsigned c)
{
	uint64_t number;
	seq_t seq;
	int r = work_forget(&p->w, 1000 + c);

	must(r == 0 || r == -ENOENT || r == -EAGAIN);
	if (r < 0)
		return;
	send_all();
	must(keys_call_result(p->b, 1000 + c, p->request[c], &seq, &number) == -ENOENT);
}

/* A random call, sometimes for a client far away; what is told of it must be true on both sides. */
static void change_one(void)
{
	unsigned c = (unsigned)random_below(2 * CLIENTS);
	seq_t before = store_seq(p->a->store), seq;
	uint64_t number;
	int r;

	if (random_below(40) == 0)
		(void)work_epoch(&p->w, store_epoch(p->a->store) + 1);
	if (random_below(40) == 0 && !p->alone)
		forget_one((unsigned)random_below(CLIENTS));
	if (c < CLIENTS)
		keys_set_caller(p->a, 1000 + c, ++p->request[c]);
	(void)work_step(&p->w);
	keys_set_caller(p->a, 0, 0);
	if (random_below(3) == 0)
		(void)store_poll(p->a->store);
	if (p->alone)
		return;
	send_all();
	if (c >= CLIENTS)
		return;
	r = keys_call_result(p->b, 1000 + c, p->request[c], &seq, &number);
	must(r == 0 || r == -ENOENT);
	must(r == -ENOENT || (seq == store_seq(p->a->store) && seq > before));
}

/* max_b: bytes that the replica may grow to; 0: some. */
static void begin_case(uint64_t n, uint64_t max_b)
{
	struct pair *q = calloc(1, sizeof *q);

	check(q);
	seed_now = n;
	random_restart(n);
	(void)unlink(path_a);
	(void)unlink(path_b);
	work_init(&q->w, n);
	p = q;
	q->w.profile = (enum work_profile)random_below(WORK_PROGRAMS);
	q->w.max_nodes = 10 + (unsigned)random_below(80);
	q->max_b = max_b ? max_b : (8u << 20) + random_below(3) * (8u << 20);
	q->a = open_store(path_a, 64u << 20, true, true);
	q->b = open_store(path_b, q->max_b, true, false);
	ok(keys_adopt_seed(q->b, store_hash_seed(q->a->store)));
	set_role(q->a, STORE_PRIMARY);
	set_role(q->b, STORE_REPLICA);
	work_attach(&q->w, q->a);
}

static void end_case(void)
{
	struct pair *q = p;

	ok(keys_close(q->b));
	ok(keys_close(q->a));
	work_release(&q->w);
	free(q->log);
	p = NULL;
	free(q);
}

static void test_change__replica_follows(void **state)
{
	uint64_t n, first = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : 1;
	uint64_t cases = getenv("CASES") ? strtoull(getenv("CASES"), NULL, 0) : 24;

	(void)state;
	for (n = first; n < first + cases; n++) {
		unsigned i, steps;

		begin_case(n, 0);
		steps = 100 + (unsigned)random_below(500);
		for (i = 0; i < steps; i++) {
			change_one();
			if (random_below(40) == 0)
				compare_model();
			if (random_below(60) == 0)
				compare_items();
			if (random_below(80) == 0)
				ok(store_checkpoint(p->b->store));
			if (random_below(150) == 0)
				kill_b();
			if (random_below(50) == 0)
				(void)keys_compact(p->b);
		}
		compare_model();
		compare_items();
		check_store(p->a);
		check_store(p->b);
		ok(keys_close(p->b));
		p->b = open_store(path_b, 0, false, false);
		must(store_was_clean(p->b->store));
		compare_items();
		end_case();
	}
}

static void test_change__nonsense_harms_nothing(void **state)
{
	uint64_t n, first = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : 1;
	uint64_t cases = getenv("CASES") ? strtoull(getenv("CASES"), NULL, 0) : 24;

	(void)state;
	for (n = first; n < first + cases; n++) {
		unsigned i, steps;

		begin_case(n, 0);
		steps = 20 + (unsigned)random_below(150);
		for (i = 0; i < steps; i++)
			change_one();
		p->alone = true;
		for (i = 0; i < 400; i++) {
			while (p->log_sent >= p->log_len) {
				p->log_len = p->log_sent = 0;
				change_one();
			}
			send_nonsense();
			if (random_below(4) == 0)
				p->log_sent += 4 + get_le32(p->log + p->log_sent);
			if (random_below(40) == 0)
				kill_b();
		}
		kill_b();
		must(store_failed(p->b->store) == 0);
		end_case();
	}
}

/* Free space in single blocks ----------------------------------------------------------------------------------------- */

/* Take all blocks, give every second one back. */
static void fragment_b(void)
{
	struct store *s = p->b->store;
	static block_t taken[16384];
	unsigned n = 0, i;
	uint64_t got;

	while (space_allocatable(&s->space) > store_reserved_blocks(s) + 64 && n < ARRAY_LEN(taken)) {
		ok(store_alloc(s, 1, &taken[n++], &got));
		must(got == 1);
	}
	for (i = 0; i < n; i += 2)
		ok(store_free(s, taken[i], 1, store_gen(s)));
	/* So that there is something to cut. */
	s->changed = true;
	ok(store_checkpoint(s));
	s->changed = true;
	ok(store_checkpoint(s));
	/* The longer pieces that are left are given out first. */
	do {
		block_t block;

		ok(store_alloc(s, 512, &block, &got));
	} while (got > 1);
	must(space_allocatable(&s->space) > 2000);
}

/* Extents that the last record of the replica names. */
static unsigned extents_b(void)
{
	return get_le16(p->b->store->record.buf + REC_EXTENTS);
}

static void test_change__fragmented_space(void **state)
{
	static uint8_t data[KEYS_WRITE_MAX];
	struct keys_attr a;
	size_t i, done;

	(void)state;
	begin_case(1, 32u << 20);
	for (i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 7 + i / 4096);
	fragment_b();
	ok(keys_make(p->a, KEYS_ROOT_INO, "f", 1, S_IFREG | 0600, 0, &(struct keys_cred){ 0 }, &a));
	/* 257 blocks: one more than extents in a record. */
	ok(keys_write(p->a, a.ino, 100, data, sizeof data, 0, &done));
	must(done == sizeof data);
	send_all();
	must(extents_b() == REC_EXTENTS_MAX);
	compare_items();
	/* One piece with the primary; here more than a record names. */
	ok(keys_fallocate(p->a, a.ino, FALLOC_FL_KEEP_SIZE, 4u << 20, 3u << 20, 0));
	send_all();
	must(extents_b() < 768 && extents_b() > 0);
	compare_items();
	/* Into space that is unwritten: no more is taken. */
	ok(keys_write(p->a, a.ino, 4u << 20, data, sizeof data, 0, &done));
	send_all();
	compare_items();
	kill_b();
	compare_items();
	end_case();
}

/* Many blocks at once are written past the mapping. If that fails, nothing has changed, and the change can come again. */
static void test_change__a_write_that_fails(void **state)
{
	static uint8_t data[KEYS_WRITE_MAX];
	struct keys_attr a;
	uint64_t free_blocks;
	size_t i, done;

	(void)state;
	begin_case(8, 64u << 20);
	for (i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 5 + i / 4096);
	ok(keys_make(p->a, KEYS_ROOT_INO, "f", 1, S_IFREG | 0600, 0, &(struct keys_cred){ 0 }, &a));
	send_all();
	ok(keys_write(p->a, a.ino, 0, data, sizeof data, 0, &done));
	writes.failing = 3;
	free_blocks = space_allocatable(&p->b->store->space) + space_pending(&p->b->store->space);
	must(change_apply(p->b, p->log + 4, get_le32(p->log)) == -ENOSPC);
	must(writes.failing == 0 && store_failed(p->b->store) == 0);
	must(space_allocatable(&p->b->store->space) + space_pending(&p->b->store->space) == free_blocks);
	must(store_seq(p->b->store) + 1 == store_seq(p->a->store));
	writes.calls = 0;
	send_all();
	must(writes.calls >= sizeof data / 65536);
	compare_items();
	kill_b();
	compare_items();
	end_case();
}

/* Where name and value fill their items to the last byte, one more follows, which is empty. */
static void test_change__empty_part_of_an_attribute(void **state)
{
	static const uint8_t value[XATTR_CHUNK * 3];
	struct keys_attr a;
	unsigned parts;

	(void)state;
	begin_case(6, 32u << 20);
	ok(keys_make(p->a, KEYS_ROOT_INO, "f", 1, S_IFREG | 0600, 0, &(struct keys_cred){ 0 }, &a));
	for (parts = 1; parts <= 3; parts++) {
		ok(keys_setxattr(p->a, a.ino, "user.a", value, parts * XATTR_CHUNK - strlen("user.a"), 0, false));
		send_all();
		compare_items();
	}
	end_case();
}

/* Records that no primary makes, each of which apply would refuse: they must not get as far. */
static uint8_t *craft(uint8_t *at, unsigned kind, uint32_t len, uint64_t a, uint64_t b)
{
	memset(at, 0, MUT_HEADER + len);
	put_le32(at, kind);
	put_le32(at + MUT_LEN, len);
	put_le64(at + MUT_HEADER, a);
	put_le64(at + MUT_HEADER + 8, b);
	return at + MUT_HEADER + align_up(len, 8);
}

static uint8_t *craft_map(uint8_t *at, uint64_t ino, uint64_t fblock)
{
	uint8_t *end = craft(at, MUT_MAP, 24 + BLOCK_SIZE, ino, fblock);

	put_le32(at + MUT_HEADER + 16, 1);
	return end;
}

static int send_crafted(const uint8_t *end, unsigned mutations)
{
	uint32_t len = (uint32_t)(end - change);
	int r;

	memset(change, 0, CHANGE_HEADER);
	put_le64(change + CHANGE_SEQ, store_seq(p->b->store) + 1);
	put_le64(change + CHANGE_EPOCH_OFF, store_epoch(p->b->store));
	put_le16(change + CHANGE_TYPE, CHANGE_WRITE);
	put_le32(change + CHANGE_MUTATIONS, mutations);
	put_le64(change + CHANGE_CHECK, hash64(change + 8, len - 8, 0));
	r = apply(change, len);
	must(store_failed(p->b->store) == 0);
	return r;
}

static void test_change__what_apply_would_refuse(void **state)
{
	uint8_t *m = change + CHANGE_HEADER, *end;
	struct keys_attr a;
	uint64_t ino;
	unsigned i;

	(void)state;
	begin_case(5, 0);
	ok(keys_make(p->a, KEYS_ROOT_INO, "f", 1, S_IFREG | 0600, 0, &(struct keys_cred){ 0 }, &a));
	ok(keys_fallocate(p->a, a.ino, 0, 0, 64 << 12, 0));
	send_all();
	ino = a.ino;
	/* Twice into the same unwritten block; backwards; into two files. */
	end = craft_map(craft_map(m, ino, 3), ino, 3);
	must(send_crafted(end, 2) == -EPROTO);
	end = craft_map(craft_map(m, ino, 4), ino, 3);
	must(send_crafted(end, 2) == -EPROTO);
	end = craft_map(craft_map(m, ino, 4), KEYS_ROOT_INO, 5);
	must(send_crafted(end, 2) == -EPROTO);
	must(send_crafted(craft_map(m, KEYS_ROOT_INO, 5), 1) == -EPROTO);
	/* Of several kinds; of what is not there; behind the end of all. */
	end = craft(craft_map(m, ino, 4), MUT_DATA, 20, ino, 100);
	must(send_crafted(end, 2) == -EPROTO);
	must(send_crafted(craft(m, MUT_DATA, 20, ino + 1, 0), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_DATA, 20, ino, KEYS_SIZE_MAX), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_DATA, 16 + 5000, ino, 0), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_DATA, 20, KEYS_ROOT_INO, 0), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_PUNCH, 24, ino, 4096), 1) == -EPROTO);
	must(send_crafted(craft_map(m, ino, KEYS_SIZE_MAX >> BLOCK_SHIFT), 1) == 0);
	must(send_crafted(craft_map(m, ino, (KEYS_SIZE_MAX >> BLOCK_SHIFT) + 1), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_REAP, 8 + 8, ino, 0), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_CLIENT, 24, 0, 1), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_CLIENT, 24, 1, 0), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_DEL, 16, ino << 8 | ITEM_INODE, 0), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_DEL, 16, KIND_ORPHAN, ino), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_DEL, 16, KIND_CLIENT, 1), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_PUT, 16, KIND_ORPHAN, ino + 1), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_PUT, 24, KIND_SPACE, 0), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_PUT, 16 + CLIENT_SIZE, KIND_CLIENT, 1), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_PUT, 16 + HISTORY_SIZE, KIND_HISTORY, 1), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_PUT, 16 + EXTENT_HEADER, ino << 8 | ITEM_EXTENT, 0), 1) == -EPROTO);
	must(send_crafted(craft(m, MUT_PUT, 16 + INODE_SIZE, ino << 8 | ITEM_INODE, 0), 1) == -EPROTO);
	/* Too long for a record, which is found when blocks were taken already: they are given back, see the end. */
	for (end = craft_map(m, ino, 100), i = 0; i < 40; i++)
		end = craft(end, 200, 4000, 0, 0);
	must(send_crafted(end, 41) == -EPROTO);
	/* One that fits, to see that it is these that do not. */
	end = craft_map(craft_map(m, ino, 3), ino, 4);
	must(send_crafted(end, 2) == 0);
	check_store(p->b);
	kill_b();
	check_store(p->b);
	end_case();
}

/* Small things -------------------------------------------------------------------------------------------------------- */

static void test_change__only_what_fits(void **state)
{
	struct keys_attr a;
	uint32_t len;
	seq_t seq;

	(void)state;
	begin_case(2, 0);
	p->alone = true;
	ok(keys_make(p->a, KEYS_ROOT_INO, "f", 1, S_IFREG | 0600, 0, &(struct keys_cred){ 0 }, &a));
	ok(keys_make(p->a, KEYS_ROOT_INO, "g", 1, S_IFREG | 0600, 0, &(struct keys_cred){ 0 }, &a));
	len = get_le32(p->log);
	memcpy(change, p->log + 4, len);
	seq = store_seq(p->b->store);
	/* Not the next one. */
	must(change_apply(p->b, p->log + 8 + len, get_le32(p->log + 4 + len)) == -EPROTO);
	/* Of an epoch that nobody began; of one that is over. */
	put_le64(change + CHANGE_EPOCH_OFF, store_epoch(p->b->store) + 1);
	put_le64(change + CHANGE_CHECK, hash64(change + 8, len - 8, 0));
	must(change_apply(p->b, change, len) == -EPROTO);
	/* A bit on the way. */
	memcpy(change, p->log + 4, len);
	change[len - 1] ^= 1;
	must(change_apply(p->b, change, len) == -EPROTO);
	/* A replica takes changes from its primary only, a primary from nobody. */
	must(keys_make(p->b, KEYS_ROOT_INO, "h", 1, S_IFREG | 0600, 0, &(struct keys_cred){ 0 }, &a) == -EROFS);
	must(keys_touch_atime(p->b, KEYS_ROOT_INO, KEYS_STRICTATIME) == 0);
	must(store_seq(p->b->store) == seq);
	must(change_apply(p->a, p->log + 4, len) == -EROFS);
	send_all();
	compare_items();
	end_case();
}

static void test_change__late_reader_is_told(void **state)
{
	static uint8_t data[64 << 10], rec[REC_MAX];
	struct keys_attr a;
	const struct store *s;
	uint32_t len, n;
	size_t done;
	unsigned i;

	(void)state;
	begin_case(3, 0);
	p->alone = true;
	ok(keys_make(p->a, KEYS_ROOT_INO, "f", 1, S_IFREG | 0600, 0, &(struct keys_cred){ 0 }, &a));
	memset(data, 1, sizeof data);
	ok(keys_write(p->a, a.ino, 0, data, sizeof data, 0, &done));
	s = p->a->store;
	/* The last record, as it stands in the store's buffer (the journal filled in the rest). */
	len = s->record.len;
	memcpy(rec, s->record.buf, len);
	ok(change_encode(rec, len, read_a, p, change, sizeof change, &n));
	/* Buffers that are too small say so, whatever their size. */
	for (i = 0; i < n; i += 1 + i / 8)
		must(change_encode(rec, len, read_a, p, change, i, &n) == -E2BIG);
	/* The blocks are written over: with other bytes, then given to other files. */
	for (i = 2; i < 5000; i++) {
		memset(data, (int)i, sizeof data);
		ok(keys_write(p->a, a.ino, 0, data, sizeof data, 0, &done));
		p->log_len = 0;
		if (i % 16 == 0)
			ok(store_checkpoint(p->a->store));
	}
	must(change_encode(rec, len, read_a, p, change, sizeof change, &n) == -ESTALE);
	end_case();
}

/* Events tell what happened, of a record and of its change alike. */
static void test_change__events(void **state)
{
	static struct change_events e;
	struct change_event ev;
	struct keys_attr a;
	uint64_t ino;
	uint32_t nlink;

	(void)state;
	begin_case(4, 0);
	p->alone = true;
	ok(keys_make(p->a, KEYS_ROOT_INO, "name", 4, S_IFREG | 0600, 0, &(struct keys_cred){ 0 }, &a));
	ok(change_events_of_change(&e, p->log + 4, get_le32(p->log)));
	must(change_event(&e, &ev) == 1 && ev.kind == EVENT_NEW && ev.ino == a.ino);
	must(change_event(&e, &ev) == 1 && ev.kind == EVENT_NAME && ev.dir == KEYS_ROOT_INO && ev.ino == a.ino &&
	     ev.type == S_IFREG && ev.len == 4 && memcmp(ev.name, "name", 4) == 0);
	must(change_event(&e, &ev) == 1 && ev.kind == EVENT_ATTR && ev.ino == KEYS_ROOT_INO);
	must(change_event(&e, &ev) == 0);
	ok(change_events_of_record(&e, p->a->store->record.buf, p->a->store->record.len));
	must(change_event(&e, &ev) == 1 && ev.kind == EVENT_NEW && ev.ino == a.ino);
	p->log_len = 0;
	keys_set_caller(p->a, 5, 9);
	ok(keys_unlink(p->a, KEYS_ROOT_INO, "name", 4, &ino, &nlink));
	keys_set_caller(p->a, 0, 0);
	ok(change_events_of_change(&e, p->log + 4, get_le32(p->log)));
	must(change_event(&e, &ev) == 1 && ev.kind == EVENT_NO_NAME && ev.dir == KEYS_ROOT_INO && ev.len == 4 &&
	     memcmp(ev.name, "name", 4) == 0);
	must(change_event(&e, &ev) == 1 && ev.kind == EVENT_ORPHAN && ev.ino == a.ino && !ev.marked);
	must(change_event(&e, &ev) == 1 && ev.kind == EVENT_ATTR);
	must(change_event(&e, &ev) == 1 && ev.kind == EVENT_ATTR);
	must(change_event(&e, &ev) == 1 && ev.kind == EVENT_CALL && ev.client == 5 && ev.request == 9);
	must(change_event(&e, &ev) == 0);
	end_case();
}

static int setup(void **state)
{
	(void)state;
	if (scratch_make_on_disk("change") < 0)
		return -1;
	scratch_path(path_a, "a");
	scratch_path(path_b, "b");
	scratch_path(path_c, "c");
	sys = sys_linux;
	sys.now_real_ns = real_clock;
	sys.now_mono_ns = mono_clock;
	sys.sync = no_sync;
	sys.write = count_write;
	ok_failed = print_replay;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_change__replica_follows),
		cmocka_unit_test(test_change__nonsense_harms_nothing),
		cmocka_unit_test(test_change__fragmented_space),
		cmocka_unit_test(test_change__a_write_that_fails),
		cmocka_unit_test(test_change__empty_part_of_an_attribute),
		cmocka_unit_test(test_change__what_apply_would_refuse),
		cmocka_unit_test(test_change__only_what_fits),
		cmocka_unit_test(test_change__late_reader_is_told),
		cmocka_unit_test(test_change__events),
	};

	return cmocka_run_group_tests_name("change", tests, setup, scratch_teardown);
}
