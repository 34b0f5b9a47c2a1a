/* SPDX-License-Identifier: MIT
 *
 * diff: a store A, changed at random, and a store B (new, an older copy of A with changes of its own, unrelated); messages
 * are carried between the two machines in memory. Afterwards both hold the same items, byte for byte, B is clean for
 * check, also after it was opened again; and what B shows before that is its old state, at every message, after a kill and
 * after a power cut too. Then everything that can go wrong: no space, a peer that sends anything, an abort anywhere.
 *
 *   SEED=n    the first case
 *   CASES=n   how many of each kind
 *   BYTES=n   keys in the store of the test that counts bytes (100000)
 *   MIB=n     size of the first sync that is measured (16)
 */
#include "tests/unit/crash_util.h"

#include "core/check/check.h"
#include "core/keys/edit.h"
#include "core/keys/keys_int.h"
#include "core/replica/diff.h"
#include "core/store/store_int.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define B_MAX      (24ull << 20)        /* B's file in cases that are cut */
#define DELAYED    256u
#define CUT_MAX    (96u << 20)          /* larger than any of them */

static char dir[64], path_a[96], path_b[96], path_c[96];
static uint64_t rng, seed, cases;
static struct work work;
static const struct keys_cred cred = { 0, 0, 022 };

static uint64_t below(uint64_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng >> 11) % n;
}

static void say_where(const char *what, uint64_t n)
{
	fprintf(stderr, "# %s: SEED=%llu\n", what, (unsigned long long)n);
}

/* Stores ------------------------------------------------------------------------------------------------------------ */

static uint64_t work_real_ns(void *ctx)
{
	(void)ctx;
	return work.real_ns;
}

static uint64_t work_mono_ns(void *ctx)
{
	(void)ctx;
	return work.mono_ns;
}

/* Nothing here waits for a disk: what a power cut leaves is made of bytes. */
static int no_sync(void *ctx, void *addr, size_t len)
{
	(void)ctx;
	(void)addr;
	(void)len;
	return 0;
}

static struct sys_ops sys_a, sys_b;

static struct keys *open_at(const char *path, const struct sys_ops *sys, uint64_t max)
{
	const struct store_options o = { .path = path, .create = true, .sys = sys ? sys : &sys_b, .max_bytes = max };
	struct keys *k;
	int r = keys_open(&o, &k);

	if (r < 0)
		fail_msg("%s cannot be opened: %s", path, err_last());
	return k;
}

static void problem(void *ctx, const char *text)
{
	(void)ctx;
	fprintf(stderr, "# check: %s\n", text);
}

static void assert_clean(struct keys *k, const char *what)
{
	const struct check_options o = { .problem = problem };
	struct check_report rep;

	assert_int_equal(check_run(k, &o, &rep), 0);
	if (rep.problems != 0)
		fail_msg("%s: %llu problems", what, (unsigned long long)rep.problems);
}

/* All that a store holds, as one number; each item once through the code under test, contents by keys_read(). */
static uint64_t digest_of(struct keys *k)
{
	static struct logical_walk w;
	struct logical_item item;
	uint64_t h = 1, deep;
	int r;

	logical_begin(&w, k, (struct key){ 0, 0 });
	while ((r = logical_next(&w, LOGICAL_END, &item)) > 0) {
		h = hash64(&item.key, sizeof item.key, h) ^ logical_digest(&item, 2);
		if (item.window && window_deep_digest(k, item.window, 3, &deep) == 0)
			h ^= deep;
	}
	if (r < 0)
		fail_msg("a walk ends with %d: %s", r, err_last());
	return h;
}

/* Blocks that b knows as damaged need not be equal: a peer that is not honest may make some. */
static bool lenient;

static void assert_block(struct keys *a, struct keys *b, const struct logical_item *ia, const struct logical_item *ib, unsigned i)
{
	const uint8_t *pa, *pb;
	int err;

	assert_int_equal(ia->window->csum[i], ib->window->csum[i]);
	pa = window_bytes(a, ia->window, i, &err);
	pb = window_bytes(b, ib->window, i, &err);
	if (lenient && block_csum(pb, ib->key.hi >> 8, ib->key.lo + i) != ib->window->csum[i])
		return;
	assert_memory_equal(pa, pb, BLOCK_SIZE);
}

static void assert_same(struct keys *a, struct keys *b)
{
	static struct logical_walk wa, wb;
	struct logical_item ia, ib;
	unsigned i;
	int ra, rb;

	logical_begin(&wa, a, (struct key){ 0, 0 });
	logical_begin(&wb, b, (struct key){ 0, 0 });
	for (;;) {
		ra = logical_next(&wa, LOGICAL_END, &ia);
		rb = logical_next(&wb, LOGICAL_END, &ib);
		assert_int_equal(ra, rb);
		assert_true(ra >= 0);
		if (ra == 0)
			break;
		if (key_cmp(ia.key, ib.key) != 0)
			fail_msg("keys %llx.%llx and %llx.%llx", (unsigned long long)ia.key.hi, (unsigned long long)ia.key.lo,
				 (unsigned long long)ib.key.hi, (unsigned long long)ib.key.lo);
		if (!ia.window) {
			assert_int_equal(ia.len, ib.len);
			assert_memory_equal(ia.value, ib.value, ia.len);
			continue;
		}
		assert_memory_equal(ia.window->kind, ib.window->kind, sizeof ia.window->kind);
		for (i = 0; i < WINDOW_BLOCKS; i++)
			if (ia.window->kind[i] == WINDOW_DATA)
				assert_block(a, b, &ia, &ib, i);
	}
	assert_int_equal(store_counts(a->store)->inodes, store_counts(b->store)->inodes);
	assert_int_equal(store_counts(a->store)->next_ino, store_counts(b->store)->next_ino);
	assert_int_equal(store_hash_seed(a->store), store_hash_seed(b->store));
}

static void copy_file(const char *from, const char *to)
{
	static uint8_t buf[1 << 20];
	int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ssize_t n;

	assert_true(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof buf)) > 0)
		assert_int_equal(write(out, buf, (size_t)n), n);
	assert_int_equal(n, 0);
	(void)close(in);
	(void)close(out);
}

/* Random changes without a model. */
static void scribble(struct keys *k, unsigned calls)
{
	static uint8_t data[300000];
	uint64_t next = store_counts(k->store)->next_ino;
	struct keys_attr a;
	unsigned i;
	size_t n;

	for (i = 0; i < calls; i++) {
		uint64_t ino = 1 + below(next + 3), off = below(40) * 4096 * (below(8) == 0 ? 100 : 1) + below(3) * 100;
		size_t len = (size_t)(below(3) ? below(3000) : below(sizeof data));
		char name[32];
		uint32_t nlink;
		uint64_t was;

		(void)snprintf(name, sizeof name, "s%llu", (unsigned long long)below(50));
		memset(data, (int)below(256), len);
		if (len > 8)
			memcpy(data, &rng, 8);
		switch (below(9)) {
		case 0: case 1: case 2:
			(void)keys_write(k, ino, off, data, len, 0, &n);
			break;
		case 3:
			(void)keys_make(k, below(2) ? 1 : ino, name, strlen(name), below(4) ? S_IFREG | 0644 : S_IFDIR | 0755, 0,
					&cred, &a);
			break;
		case 4:
			if (keys_unlink(k, 1, name, strlen(name), &was, &nlink) == 0 && nlink == 0 && below(2))
				while (keys_reap(k, was) == 1)
					;
			break;
		case 5:
			(void)keys_fallocate(k, ino, below(2) ? FALLOC_FL_KEEP_SIZE : FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
					     off, 1 + below(2000000), 0);
			break;
		case 6:
			(void)keys_setxattr(k, ino, below(2) ? "user.a" : "user.long", data, len % 5000, 0, false);
			break;
		case 7: {
			const struct keys_setattr set = { .mask = KEYS_SET_SIZE, .size = below(1000000) };

			(void)keys_setattr(k, ino, &set, &a);
			break;
		}
		default: {
			uint64_t orphan;

			(void)keys_rename(k, 1, name, strlen(name), 1, "moved", 5, 0, &cred, &orphan);
			break;
		}
		}
		if (below(40) == 0)
			(void)store_checkpoint(k->store);
		(void)store_poll(k->store);
	}
}

/* Files of all sizes. */
static void fill(struct keys *k, uint64_t bytes, bool small)
{
	static uint8_t data[200000];
	struct keys_attr attr;
	char name[32];
	unsigned i;

	for (i = 0; bytes > 0; i++) {
		size_t len = (size_t)min_u64(bytes, small || below(3) ? below(2000) : below(sizeof data)), n;

		(void)snprintf(name, sizeof name, "fill%u", i);
		assert_int_equal(keys_make(k, 1, name, strlen(name), S_IFREG | 0644, 0, &cred, &attr), 0);
		memset(data, (int)i, len);
		if (len > 0)
			assert_int_equal(keys_write(k, attr.ino, 0, data, len, 0, &n), 0);
		bytes -= len;
		(void)store_poll(k->store);
	}
}

/* The link ---------------------------------------------------------------------------------------------------------- */

struct message {
	unsigned type;
	size_t len;
	uint8_t *bytes;
};

struct lane {
	struct message m[DELAYED];
	unsigned first, count, limit;
};

static struct link {
	struct lane to_target, to_source;
	struct diff_source *s;
	struct diff_target *t;
	struct keys *snapshot, *b;
	uint64_t messages, longest;
	unsigned changes;
	bool hostile, commit_called, garble;
	int (*at_message)(void);        /* called at each */
	bool fail_commit;
} ln;

static void damage(struct message *m)
{
	unsigned i, n = 1 + (unsigned)below(4);

	switch (below(8)) {
	case 0:
		m->len = (size_t)below(m->len + 1);
		break;
	case 1:
		m->type = (unsigned)below(8);
		break;
	default:
		for (i = 0; i < n && m->len > 0; i++) {
			uint8_t *p = &m->bytes[below(2) ? below(m->len) : below(min_u64(m->len, 40))];

			*p = below(2) ? (uint8_t)(*p ^ 1u << below(8)) : (uint8_t)(below(3) ? below(256) : 255);
		}
		break;
	}
}

static int lane_add(struct lane *l, unsigned type, const void *bytes, size_t len)
{
	struct message *m = &l->m[(l->first + l->count) % DELAYED];

	if (l->count >= l->limit)
		return -EAGAIN;
	assert_true(len <= DIFF_MESSAGE_MAX);
	ln.longest = max_u64(ln.longest, len);
	*m = (struct message){ type, len, malloc(len + 1) };
	assert_non_null(m->bytes);
	if (len > 0)
		memcpy(m->bytes, bytes, len);
	if (ln.hostile && below(12) == 0)
		damage(m);
	/* A byte of contents. */
	if (ln.garble && type == DIFF_ANSWERS && len > BLOCK_SIZE)
		m->bytes[len - 1] ^= 1;
	l->count++;
	ln.messages++;
	return 0;
}

static int send_to_target(void *ctx, enum diff_type type, const void *bytes, size_t len)
{
	(void)ctx;
	return lane_add(&ln.to_target, type, bytes, len);
}

static int send_to_source(void *ctx, enum diff_type type, const void *bytes, size_t len)
{
	(void)ctx;
	return lane_add(&ln.to_source, type, bytes, len);
}

/* Hand over the first message. With a hostile link the bytes are in a buffer of just that size, so that ASan sees. */
static int deliver(struct lane *l, bool to_target)
{
	struct message *m = &l->m[l->first];
	uint8_t *exact = malloc(m->len ? m->len : 1);
	int r;

	assert_non_null(exact);
	memcpy(exact, m->bytes, m->len);
	r = to_target ? diff_target_message(ln.t, m->type, exact, m->len) : diff_source_message(ln.s, m->type, exact, m->len);
	free(exact);
	free(m->bytes);
	l->first = (l->first + 1) % DELAYED;
	l->count--;
	return r;
}

static void lane_clear(struct lane *l)
{
	for (; l->count > 0; l->count--, l->first = (l->first + 1) % DELAYED)
		free(l->m[l->first].bytes);
}

static void count_change(void *ctx, const struct diff_change *c)
{
	(void)ctx;
	assert_true(c->ino != 0);
	ln.changes++;
}

static int note_commit(void *ctx, uint64_t seq, uint64_t epoch)
{
	(void)ctx;
	(void)seq;
	(void)epoch;
	ln.commit_called = true;
	return ln.fail_commit ? -EIO : 0;
}

/* A's state now is what is carried over. */
static void link_begin(struct keys *a, struct keys *b, bool direct, unsigned limit)
{
	struct store_options o = { .path = path_a, .read_only = true, .snapshot = true };
	char path[32];
	const struct diff_target_options to = { .send = send_to_source, .changed = count_change, .commit = note_commit,
						.direct = direct, .folder = below(2) ? dir : NULL };

	memset(&ln, 0, sizeof ln);
	ln.to_target.limit = ln.to_source.limit = limit;
	ln.b = b;
	assert_int_equal(store_checkpoint(a->store), 0);
	store_path(a->store, path, sizeof path);
	if (a->store->memory || below(2))
		o.path = path;
	if (keys_open(&o, &ln.snapshot) < 0)
		fail_msg("no snapshot: %s", err_last());
	assert_int_equal(diff_source_new(ln.snapshot, below(UINT64_MAX), send_to_target, NULL, &ln.s), 0);
	assert_int_equal(diff_target_new(b, &to, &ln.t), 0);
}

/* Until the target is ready, or somebody fails. */
static int link_run(void)
{
	bool idle = false;

	for (;;) {
		int s, t, r = 0;

		if (below(2) && ln.to_target.count > 0)
			r = deliver(&ln.to_target, true);
		else if (ln.to_source.count > 0)
			r = deliver(&ln.to_source, false);
		else if (ln.to_target.count > 0)
			r = deliver(&ln.to_target, true);
		if (r < 0)
			return r;
		if (ln.at_message) {
			r = ln.at_message();
			if (r < 0)
				return r;
		}
		s = diff_source_step(ln.s);
		if (s < 0)
			return s;
		t = diff_target_step(ln.t);
		if (t < 0)
			return t;
		(void)store_poll(ln.b->store);
		if (t == DIFF_READY)
			return 0;
		if (s == DIFF_IDLE && t == DIFF_IDLE && ln.to_source.count + ln.to_target.count == 0) {
			if (idle)
				return -EDEADLK;
			idle = true;
		} else {
			idle = false;
		}
	}
}

static void link_end(void)
{
	diff_source_free(ln.s);
	diff_target_free(ln.t);
	lane_clear(&ln.to_target);
	lane_clear(&ln.to_source);
	assert_int_equal(keys_close(ln.snapshot), 0);
	assert_int_equal(store_space(ln.b->store)->staged, 0);
}

static void assert_ready(int r)
{
	if (r < 0)
		fail_msg("the diff ended with %d: %s", r, err_last());
}

static void transfer_any(struct keys *a, struct keys *b, bool direct)
{
	struct store_status sa, sb;
	int r;

	link_begin(a, b, direct, 1 + (unsigned)below(20));
	assert_ready(link_run());
	r = diff_target_apply(ln.t);
	assert_ready(r);
	assert_true(ln.commit_called);
	assert_false(store_rebasing(b->store));
	assert_same(ln.snapshot, b);
	store_status(ln.snapshot->store, &sa);
	store_status(b->store, &sb);
	assert_int_equal(sa.seq, sb.seq);
	assert_int_equal(sa.seq, sb.durable_seq);
	assert_int_equal(sa.seq, sb.checkpoint_seq);
	assert_int_equal(sa.epoch, sb.epoch);
	link_end();
}

static void transfer(struct keys *a, struct keys *b, bool direct)
{
	transfer_any(a, b, direct);
	assert_clean(b, "after the diff");
}

/* Cases ------------------------------------------------------------------------------------------------------------- */

static int setup(void **state)
{
	(void)state;
	lenient = false;
	(void)snprintf(dir, sizeof dir, "/tmp/msyncfs-diff.XXXXXX");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path_a, sizeof path_a, "%s/a", dir);
	(void)snprintf(path_b, sizeof path_b, "%s/b", dir);
	(void)snprintf(path_c, sizeof path_c, "%s/c", dir);
	sys_a = sys_b = sys_linux;
	sys_a.sync = sys_b.sync = no_sync;
	sys_a.now_real_ns = work_real_ns;
	sys_a.now_mono_ns = work_mono_ns;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	(void)unlink(path_a);
	(void)unlink(path_b);
	(void)unlink(path_c);
	(void)rmdir(dir);
	return 0;
}

static void grow_work(unsigned calls)
{
	while (calls-- > 0) {
		(void)work_step(&work);
		if (below(50) == 0)
			(void)store_checkpoint(work.k->store);
		(void)store_poll(work.k->store);
	}
}

enum origin { ORIGIN_NEW, ORIGIN_OLDER, ORIGIN_OTHER, ORIGIN_EQUAL, ORIGINS };

/* A, with a model; and B. */
static void make_pair(enum origin origin, uint64_t b_max, struct keys **ret_a, struct keys **ret_b)
{
	struct keys *a;

	(void)unlink(path_a);
	(void)unlink(path_b);
	work_init(&work, below(UINT64_MAX));
	work.profile = (enum work_profile)below(5);
	a = open_at(path_a, &sys_a, 0);
	work_attach(&work, a);
	grow_work(50 + (unsigned)below(300));
	if (origin == ORIGIN_OLDER || origin == ORIGIN_EQUAL) {
		assert_int_equal(keys_close(a), 0);
		copy_file(path_a, path_b);
		a = open_at(path_a, &sys_a, 0);
		work.k = a;
	}
	*ret_b = open_at(path_b, &sys_b, b_max);
	if (origin == ORIGIN_OLDER || origin == ORIGIN_OTHER)
		scribble(*ret_b, (unsigned)below(60));
	if (origin != ORIGIN_EQUAL)
		grow_work(20 + (unsigned)below(200));
	*ret_a = a;
}

static void drop_pair(struct keys *a, struct keys *b)
{
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
	work_release(&work);
}

static void test_diff__all_become_equal(void **state)
{
	uint64_t i;

	(void)state;
	for (i = 0; i < cases * ORIGINS; i++) {
		struct keys *a, *b;
		char text[512];
		uint64_t d;

		rng = (seed + i) * 0x9e3779b97f4a7c15ull + 1;
		say_where("equal", seed + i);
		make_pair((enum origin)(i % ORIGINS), 0, &a, &b);
		transfer(a, b, i % ORIGINS == ORIGIN_NEW && below(2));
		/* What B shows is what the model says of A. */
		if (work_compare(&work, b, work_now(&work), text, sizeof text) < 0)
			fail_msg("%s", text);
		d = digest_of(b);
		assert_int_equal(keys_close(b), 0);
		b = open_at(path_b, &sys_b, 0);
		assert_int_equal(digest_of(b), d);
		/* And it goes on from there: changes, another diff. */
		scribble(b, 20);
		grow_work(30);
		transfer(a, b, false);
		drop_pair(a, b);
	}
}

/* While it is staged, B is what it was ------------------------------------------------------------------------------- */

static struct {
	uint64_t old, new;              /* digests */
	uint64_t seq_old, seq_new;
	unsigned tried, was_new;
} two;

/* A file as a kill or a power cut left it. */
static void assert_old_or_new(const char *path, bool old_only, const char *what)
{
	struct keys *k = open_at(path, NULL, 0);
	uint64_t d = digest_of(k), seq_now = store_seq(k->store);
	bool is_new = d == two.new && seq_now == two.seq_new;

	if (!(d == two.old && seq_now == two.seq_old) && !is_new)
		fail_msg("%s: neither old nor new, change %llu", what, (unsigned long long)seq_now);
	if (old_only && two.old != two.new && is_new)
		fail_msg("%s: new too early", what);
	two.was_new += is_new;
	two.tried++;
	assert_clean(k, what);
	assert_int_equal(keys_close(k), 0);
}

static int look_and_kill(void)
{
	if (digest_of(ln.b) != two.old)
		fail_msg("B changed before it was told to");
	assert_clean(ln.b, "meanwhile");
	if (below(3) == 0) {
		copy_file(path_b, path_c);
		assert_old_or_new(path_c, true, "killed in the middle");
	}
	/* Checkpoints of the old state with blocks staged. */
	if (below(3) == 0) {
		store_edited(ln.b->store, 0);
		assert_int_equal(store_checkpoint(ln.b->store), 0);
	}
	return 0;
}

static void note_two(struct keys *a, struct keys *b)
{
	memset(&two, 0, sizeof two);
	two.old = digest_of(b);
	two.new = digest_of(a);
	two.seq_old = store_seq(b->store);
	two.seq_new = store_seq(a->store);
}

static void test_diff__old_state_until_applied(void **state)
{
	uint64_t i;

	(void)state;
	for (i = 0; i < cases; i++) {
		struct keys *a, *b;

		rng = (seed + i) * 0x9e3779b97f4a7c15ull + 2;
		say_where("old", seed + i);
		make_pair(i % 2 ? ORIGIN_OLDER : ORIGIN_OTHER, B_MAX, &a, &b);
		assert_int_equal(store_checkpoint(a->store), 0);
		note_two(a, b);
		link_begin(a, b, false, 3);
		ln.at_message = look_and_kill;
		assert_ready(link_run());
		assert_ready(diff_target_apply(ln.t));
		assert_int_equal(digest_of(b), two.new);
		copy_file(path_b, path_c);
		assert_old_or_new(path_c, false, "killed after it");
		assert_int_equal(two.was_new, 1);
		link_end();
		drop_pair(a, b);
	}
}

/* Power cuts while it is applied. The disk of B: what was synced, and any part of what was not. */
static struct {
	bool on;
	uint8_t *disk;
	uint64_t size;
	int fd;
	unsigned images;
} cut;

static void cut_write(const uint8_t *now, unsigned how)
{
	int fd = open(path_c, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint64_t p;

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, cut.disk, cut.size, 0), (ssize_t)cut.size);
	for (p = 0; p < cut.size; p += 512) {
		bool take = how == 0 ? false : how == 1 ? true : how == 2 ? below(2) : below(20) == 0;

		if (take && memcmp(now + p, cut.disk + p, 512) != 0)
			assert_int_equal(pwrite(fd, now + p, 512, (off_t)p), 512);
	}
	(void)close(fd);
}

static int cut_sync(void *ctx, void *addr, size_t len)
{
	const struct map *m = &ln.b->store->map;
	uint64_t off = (uint64_t)((uint8_t *)addr - m->base);
	unsigned how;

	(void)ctx;
	if (!cut.disk)
		return 0;
	for (how = 0; cut.on && how < 4; how++) {
		uint64_t before = rng;

		cut.size = map_blocks(m) << BLOCK_SHIFT;
		cut_write(m->base, how);
		cut.on = false;
		assert_old_or_new(path_c, false, "power cut");
		cut.on = true;
		rng = before + how + 1;
		cut.images++;
	}
	memcpy(cut.disk + off, m->base + off, len);
	return 0;
}

static void test_diff__power_cut_while_applying(void **state)
{
	uint64_t i;

	(void)state;
	for (i = 0; i < cases; i++) {
		struct keys *a, *b;
		unsigned was_new;

		rng = (seed + i) * 0x9e3779b97f4a7c15ull + 3;
		say_where("cut", seed + i);
		make_pair(i % 2 ? ORIGIN_OLDER : ORIGIN_OTHER, B_MAX, &a, &b);
		/* Changes that only the journal has. */
		scribble(b, 10);
		assert_int_equal(store_sync(b->store), 0);
		fill(a, 1 << 20, false);
		assert_int_equal(store_checkpoint(a->store), 0);
		note_two(a, b);
		/* All that is in the file is on disk; what comes from now on is not. */
		cut.disk = calloc(1, CUT_MAX);
		assert_non_null(cut.disk);
		memcpy(cut.disk, b->store->map.base, map_blocks(&b->store->map) << BLOCK_SHIFT);
		link_begin(a, b, false, 20);
		b->store->sys.sync = cut_sync;
		assert_ready(link_run());
		cut.on = true;
		assert_ready(diff_target_apply(ln.t));
		cut.on = false;
		assert_true(cut.images > 0);
		was_new = two.was_new;
		cut.size = map_blocks(&b->store->map) << BLOCK_SHIFT;
		cut_write(b->store->map.base, 0);
		assert_old_or_new(path_c, false, "after it");
		assert_int_equal(two.was_new, was_new + 1);
		free(cut.disk);
		cut.disk = NULL;
		link_end();
		drop_pair(a, b);
	}
}

/* Aborts ------------------------------------------------------------------------------------------------------------ */

static uint64_t abort_at;

static int abort_now(void)
{
	return ln.messages >= abort_at ? -ECANCELED : 0;
}

static void test_diff__abort_leaves_the_old_state(void **state)
{
	uint64_t i;

	(void)state;
	for (i = 0; i < cases * 2; i++) {
		struct keys *a, *b;
		uint64_t old, seq_old, used;
		int r;

		rng = (seed + i) * 0x9e3779b97f4a7c15ull + 4;
		say_where("abort", seed + i);
		make_pair(i % 2 ? ORIGIN_OLDER : ORIGIN_OTHER, 0, &a, &b);
		old = digest_of(b);
		seq_old = store_seq(b->store);
		used = store_space(b->store)->used;
		link_begin(a, b, false, 1 + (unsigned)below(4));
		ln.at_message = abort_now;
		abort_at = below(40);
		r = link_run();
		assert_true(r == -ECANCELED || r == 0);
		link_end();
		assert_int_equal(digest_of(b), old);
		assert_int_equal(store_seq(b->store), seq_old);
		assert_int_equal(store_space(b->store)->used, used);
		assert_clean(b, "aborted");
		scribble(b, 20);
		assert_clean(b, "aborted, and went on");
		/* A later one succeeds. */
		transfer(a, b, false);
		drop_pair(a, b);
	}
}

static void test_diff__direct_goes_on_after_an_interruption(void **state)
{
	uint64_t i;

	(void)state;
	for (i = 0; i < cases; i++) {
		struct diff_progress first, second;
		struct keys *a, *b;
		int r;

		rng = (seed + i) * 0x9e3779b97f4a7c15ull + 5;
		say_where("direct", seed + i);
		make_pair(i % 2 ? ORIGIN_NEW : ORIGIN_OTHER, 0, &a, &b);
		link_begin(a, b, true, 2);
		ln.at_message = abort_now;
		abort_at = 6 + below(30);
		r = link_run();
		assert_true(r == -ECANCELED || r == 0);
		diff_target_progress(ln.t, &first);
		link_end();
		if (below(2)) {
			(void)store_checkpoint(b->store);
			copy_file(path_b, path_c);
			assert_int_equal(keys_close(b), 0);
			copy_file(path_c, path_b);
			b = open_at(path_b, &sys_b, 0);
		}
		if (below(2))
			grow_work(10);
		link_begin(a, b, true, 5);
		assert_ready(link_run());
		assert_ready(diff_target_apply(ln.t));
		diff_target_progress(ln.t, &second);
		assert_same(ln.snapshot, b);
		link_end();
		assert_clean(b, "direct, in two parts");
		drop_pair(a, b);
	}
}

/* A store that is changed meanwhile is not what was compared. */
static void test_diff__change_meanwhile_is_noticed(void **state)
{
	struct keys_attr attr;
	struct keys *a, *b;

	(void)state;
	rng = seed + 6;
	make_pair(ORIGIN_OTHER, 0, &a, &b);
	link_begin(a, b, false, 5);
	assert_ready(link_run());
	assert_int_equal(keys_make(b, 1, "new", 3, S_IFREG | 0644, 0, &cred, &attr), 0);
	assert_int_equal(diff_target_apply(ln.t), -ESTALE);
	link_end();
	assert_clean(b, "changed meanwhile");
	drop_pair(a, b);
}

/* No space ---------------------------------------------------------------------------------------------------------- */

static void test_diff__no_space_leaves_the_old_state(void **state)
{
	static uint8_t data[1 << 20];
	uint64_t i;

	(void)state;
	for (i = 0; i < cases; i++) {
		struct keys *a, *b;
		uint64_t old;
		struct keys_attr attr;
		size_t n;
		unsigned f;
		int r;

		rng = (seed + i) * 0x9e3779b97f4a7c15ull + 7;
		say_where("full", seed + i);
		make_pair(ORIGIN_OTHER, (8ull << 20) + below(8) * (1ull << 20), &a, &b);
		for (f = 0; f < 4; f++) {
			char name[16];
			unsigned at;

			(void)snprintf(name, sizeof name, "big%u", f);
			r = keys_make(a, 1, name, strlen(name), S_IFREG | 0644, 0, &cred, &attr);
			assert_true(r == 0 || r == -EEXIST);
			for (at = 0; r == 0 && at < 4; at++) {
				memset(data, (int)(f * 16 + at), sizeof data);
				assert_int_equal(keys_write(a, attr.ino, (uint64_t)at << 20, data, sizeof data, 0, &n), 0);
			}
		}
		old = digest_of(b);
		link_begin(a, b, false, 5);
		r = link_run();
		if (r == 0)
			r = diff_target_apply(ln.t);
		assert_int_equal(r, -ENOSPC);
		link_end();
		assert_int_equal(store_failed(b->store), 0);
		assert_int_equal(digest_of(b), old);
		assert_clean(b, "full");
		scribble(b, 20);
		assert_int_equal(keys_close(a), 0);
		assert_int_equal(keys_close(b), 0);
		work_release(&work);
	}
}

/* With ever more room in B: either it fits, or nothing happened. */
static void test_diff__every_size_fits_or_not(void **state)
{
	uint64_t size, fitted = 0, full = 0, late = 0;

	(void)state;
	for (size = 0; size < 24; size++) {
		struct keys *a, *b;
		uint64_t old;
		int r;

		rng = seed * 0x9e3779b97f4a7c15ull + 8;
		make_pair(ORIGIN_OTHER, (8ull << 20) + size * (256u << 10), &a, &b);
		fill(a, size % 2 ? 3 << 20 : 7 << 20, size % 2);
		old = digest_of(b);
		link_begin(a, b, false, 5);
		r = link_run();
		if (r == 0) {
			r = diff_target_apply(ln.t);
			late += r == -ENOSPC;
		}
		if (r != 0 && r != -ENOSPC)
			fail_msg("%d: %s", r, err_last());
		assert_int_equal(store_failed(b->store), 0);
		if (r == 0)
			assert_same(ln.snapshot, b);
		else
			assert_int_equal(digest_of(b), old);
		fitted += r == 0;
		full += r < 0;
		link_end();
		assert_clean(b, "of some size");
		drop_pair(a, b);
	}
	print_message("# fitted %llu, full %llu, of these %llu only when it was applied\n", (unsigned long long)fitted,
		      (unsigned long long)full, (unsigned long long)late);
}

/* Peers that send anything ------------------------------------------------------------------------------------------- */

static void test_diff__damaged_messages_do_no_harm(void **state)
{
	unsigned refused = 0, passed = 0;
	uint64_t i;

	(void)state;
	for (i = 0; i < cases * 20; i++) {
		static struct keys *a, *b;
		uint64_t old;
		int r;

		rng = (seed + i) * 0x9e3779b97f4a7c15ull + 9;
		if (i % 20 == 0) {
			if (a)
				drop_pair(a, b);
			say_where("hostile", seed + i);
			make_pair((enum origin)(i / 20 % ORIGINS), 0, &a, &b);
		}
		old = digest_of(b);
		link_begin(a, b, false, 5);
		ln.hostile = true;
		r = link_run();
		if (r < 0) {
			refused++;
			link_end();
			assert_int_equal(store_failed(b->store), 0);
			assert_int_equal(digest_of(b), old);
			assert_clean(b, "refused");
		} else {
			passed++;
			r = diff_target_apply(ln.t);
			assert_true(r == 0 || r == -ENOSPC);
			link_end();
			lenient = true;
			/* Strange, but whole: it can be walked, closed, opened, and repaired by an honest diff. */
			assert_int_equal(store_failed(b->store), 0);
			(void)digest_of(b);
			assert_int_equal(keys_close(b), 0);
			b = open_at(path_b, &sys_b, 0);
			transfer_any(a, b, false);
			scribble(b, 10);
		}
		if (i + 1 == cases * 20) {
			drop_pair(a, b);
			a = b = NULL;
		}
	}
	print_message("# %u refused, %u passed\n", refused, passed);
}

/* Contents that changed on the way are no contents; those that are damaged at the source are, and known as damaged. */
static void test_diff__damage_on_the_way_is_refused(void **state)
{
	static uint8_t data[3 * BLOCK_SIZE];
	struct diff_progress progress;
	struct keys_attr attr;
	struct iovec iov[4];
	struct window w;
	struct keys *a, *b;
	uint64_t next;
	uint8_t *p;
	size_t n;
	int r, count;

	(void)state;
	rng = seed + 20;
	a = open_at(path_a, NULL, 0);
	b = open_at(path_b, NULL, 0);
	assert_int_equal(keys_make(a, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
	memset(data, 7, sizeof data);
	assert_int_equal(keys_write(a, attr.ino, 0, data, sizeof data, 0, &n), 0);
	link_begin(a, b, false, 5);
	ln.garble = true;
	assert_int_equal(link_run(), -EPROTO);
	link_end();
	assert_int_equal(window_get(a, attr.ino, 0, &w, &next), 0);
	p = store_blocks(a->store, w.block[1], 1, &r);
	p[100] ^= 1;
	link_begin(a, b, false, 5);
	assert_ready(link_run());
	diff_target_progress(ln.t, &progress);
	assert_int_equal(progress.damaged_blocks, 1);
	assert_ready(diff_target_apply(ln.t));
	link_end();
	assert_int_equal(keys_read(b, attr.ino, 0, BLOCK_SIZE, iov, 4, &count, &n), 0);
	assert_int_equal(keys_read(b, attr.ino, BLOCK_SIZE, BLOCK_SIZE, iov, 4, &count, &n), -EUCLEAN);
	assert_int_equal(keys_read(b, attr.ino, 2 * BLOCK_SIZE, BLOCK_SIZE, iov, 4, &count, &n), 0);
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* Contents that differ although checksums and layout are equal: only the bytes tell. */
static void test_diff__equal_checksums_prove_nothing(void **state)
{
	static uint8_t data[64 * BLOCK_SIZE];
	struct keys_attr attr;
	struct window w;
	struct keys *a, *b;
	uint64_t next;
	uint8_t *p;
	size_t n;
	int r;

	(void)state;
	rng = seed + 10;
	a = open_at(path_a, NULL, 0);
	assert_int_equal(keys_make(a, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
	memset(data, 7, sizeof data);
	assert_int_equal(keys_write(a, attr.ino, 0, data, sizeof data, 0, &n), 0);
	assert_int_equal(keys_close(a), 0);
	copy_file(path_a, path_b);
	a = open_at(path_a, NULL, 0);
	b = open_at(path_b, NULL, 0);
	assert_int_equal(window_get(b, attr.ino, 0, &w, &next), 0);
	p = store_blocks(b->store, w.block[20], 1, &r);
	p[100] ^= 1;
	/* The inode is the same: nobody looks at the bytes. */
	link_begin(a, b, false, 5);
	assert_ready(link_run());
	link_end();
	assert_int_equal(p[100], 7 ^ 1);
	/* It was written: the bytes are compared, and this block is fetched. */
	assert_int_equal(keys_write(a, attr.ino, 0, data, 1, 0, &n), 0);
	transfer(a, b, false);
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* (D3) Interrupted anywhere, a direct diff that goes on still compares the bytes. */
static void test_diff__direct_proves_contents_after_an_interruption(void **state)
{
	static uint8_t data[64 * BLOCK_SIZE];
	unsigned at, aborted = 1;

	(void)state;
	memset(data, 7, sizeof data);
	for (at = 1; aborted; at++) {
		struct keys_attr attr;
		struct window w;
		struct keys *a, *b;
		uint64_t next;
		uint8_t *p;
		size_t n;
		int r;

		rng = seed + 19 + at;
		(void)unlink(path_a);
		a = open_at(path_a, NULL, 0);
		assert_int_equal(keys_make(a, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
		assert_int_equal(keys_write(a, attr.ino, 0, data, sizeof data, 0, &n), 0);
		assert_int_equal(keys_close(a), 0);
		copy_file(path_a, path_b);
		a = open_at(path_a, NULL, 0);
		b = open_at(path_b, NULL, 0);
		assert_int_equal(window_get(b, attr.ino, 0, &w, &next), 0);
		p = store_blocks(b->store, w.block[20], 1, &r);
		p[100] ^= 1;
		assert_int_equal(keys_write(a, attr.ino, 0, data, 1, 0, &n), 0);
		link_begin(a, b, true, 5);
		ln.at_message = abort_now;
		abort_at = at;
		r = link_run();
		aborted = r == -ECANCELED;
		link_end();
		transfer(a, b, true);
		assert_int_equal(keys_close(a), 0);
		assert_int_equal(keys_close(b), 0);
	}
	assert_true(at > 6);
}

/* What reaping took from an orphan was not counted down; here the orphan is a file again. */
static void test_diff__half_reaped_orphan_comes_back(void **state)
{
	struct keys_attr attr, after;
	struct keys *a, *b;
	uint32_t nlink;
	uint64_t ino;
	unsigned i;
	size_t n;

	(void)state;
	rng = seed + 18;
	a = open_at(path_a, NULL, 0);
	assert_int_equal(keys_make(a, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
	for (i = 0; i < 600; i++)
		assert_int_equal(keys_write(a, attr.ino, (uint64_t)i * 2 * BLOCK_SIZE, "x", 1, 0, &n), 0);
	assert_int_equal(keys_close(a), 0);
	copy_file(path_a, path_b);
	a = open_at(path_a, NULL, 0);
	b = open_at(path_b, NULL, 0);
	assert_int_equal(keys_unlink(b, 1, "f", 1, &ino, &nlink), 0);
	assert_int_equal(keys_reap(b, ino), 1);
	transfer(a, b, false);
	assert_int_equal(keys_getattr(b, ino, &after), 0);
	assert_int_equal(after.blocks, 600);
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* Where name and value fill their items to the last byte, one more follows, which is empty. */
static void test_diff__empty_part_of_an_attribute_comes(void **state)
{
	uint8_t value[XATTR_CHUNK] = { 1 };
	struct keys_attr attr;
	struct keys *a, *b;

	(void)state;
	rng = seed + 21;
	a = open_at(path_a, NULL, 0);
	b = open_at(path_b, NULL, 0);
	assert_int_equal(keys_make(a, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
	assert_int_equal(keys_setxattr(a, attr.ino, "user.a", value, XATTR_CHUNK - strlen("user.a"), 0, false), 0);
	transfer(a, b, false);
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* Contents before their inode. */
static void test_diff__edits_come_in_any_order(void **state)
{
	static struct logical_walk w;
	struct logical_item item;
	uint8_t value[LOGICAL_MAX];
	struct window window;
	struct keys_attr attr;
	uint64_t block, got;
	struct keys *k;
	size_t n;
	int r;

	(void)state;
	k = open_at(path_a, NULL, 0);
	assert_int_equal(keys_make(k, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
	assert_int_equal(keys_write(k, attr.ino, 0, path_a, 1, 0, &n), 0);
	assert_int_equal(keys_write(k, attr.ino, 20000, path_a, 1, 0, &n), 0);
	logical_begin(&w, k, (struct key){ 0, 0 });
	assert_int_equal(logical_get(&w, item_key(attr.ino, ITEM_INODE, 0), &item), 0);
	memcpy(value, item.value, item.len);
	n = item.len;
	assert_int_equal(store_rebase_ready(k->store, 100), 0);
	assert_int_equal(edit_del(k, item.key), 0);
	assert_int_equal(edit_del(k, item.key), -ENOENT);
	memset(&window, 0, sizeof window);
	assert_int_equal(edit_window(k, attr.ino, 0, &window), 0);
	assert_int_equal(store_stage(k->store, 1, &block, &got), 0);
	memset(store_blocks(k->store, block, 1, &r), 0, BLOCK_SIZE);
	window.kind[2] = WINDOW_DATA;
	window.block[2] = block;
	window.csum[2] = block_csum(store_blocks(k->store, block, 1, &r), attr.ino, 2);
	window.kind[5] = window.kind[6] = WINDOW_UNWRITTEN;
	assert_int_equal(edit_window(k, attr.ino, 0, &window), 0);
	assert_int_equal(edit_put(k, item_key(attr.ino, ITEM_INODE, 0), value, (uint32_t)n), 0);
	assert_int_equal(keys_getattr(k, attr.ino, &attr), 0);
	assert_int_equal(attr.blocks, 3);
	/* And what cannot be. */
	assert_int_equal(edit_put(k, item_key(1, ITEM_INODE, 0), value, (uint32_t)n), -EUCLEAN);        /* a root that is a file */
	assert_int_equal(edit_del(k, item_key(1, ITEM_INODE, 0)), -EUCLEAN);
	assert_int_equal(edit_put(k, (struct key){ KIND_SPACE, 0 }, value, 8), -EUCLEAN);
	assert_int_equal(edit_del(k, (struct key){ KIND_SPACE, 0 }), -EUCLEAN);
	assert_int_equal(edit_put(k, item_key(attr.ino, ITEM_EXTENT, 0), value, 28), -EUCLEAN);
	assert_int_equal(edit_put(k, item_key(INO_MAX, ITEM_INODE, 0), value, (uint32_t)n), -EUCLEAN);
	assert_int_equal(edit_put(k, item_key(attr.ino, ITEM_XATTR, 0), value, LOGICAL_MAX), -EUCLEAN);
	assert_int_equal(edit_window(k, 0, 0, &window), -EUCLEAN);
	assert_int_equal(edit_window(k, attr.ino, 1, &window), -EUCLEAN);
	assert_int_equal(edit_window(k, attr.ino, WINDOW_LAST + WINDOW_BLOCKS, &window), -EUCLEAN);
	window.block[2] = 7;
	assert_int_equal(edit_window(k, attr.ino, 0, &window), -EUCLEAN);       /* not staged */
	assert_clean(k, "edited");
	assert_int_equal(keys_close(k), 0);
}

/* Threads: the checkpoint of the rebase is written in the background ------------------------------------------------- */

static atomic_bool progressed;

static void on_progress(void *ctx)
{
	(void)ctx;
	atomic_store(&progressed, true);
}

static void wait_while(const struct store *s, bool (*fn)(const struct store *s))
{
	const struct timespec nap = { 0, 200000 };

	while (fn(s)) {
		assert_int_equal(store_failed(s), 0);
		(void)nanosleep(&nap, NULL);
	}
}

static void test_diff__nothing_is_durable_before_the_rebase_is(void **state)
{
	uint64_t i;

	(void)state;
	for (i = 0; i < cases; i++) {
		struct store_options o = { .path = path_b, .create = true, .threads = true, .progress = on_progress };
		struct keys_attr attr;
		struct keys *a, *b;
		bool rebasing;
		uint64_t seq;
		int r;

		rng = (seed + i) * 0x9e3779b97f4a7c15ull + 11;
		make_pair(ORIGIN_OTHER, 0, &a, &b);
		scribble(b, 50);
		/* B's own changes may have higher numbers than A's, all of them durable. */
		while (i % 2 == 0 && store_seq(b->store) < store_seq(a->store) + 20)
			scribble(b, 50);
		assert_int_equal(keys_close(b), 0);
		assert_int_equal(keys_open(&o, &b), 0);
		scribble(b, 5);
		store_sync_request(b->store);
		link_begin(a, b, false, 5);
		assert_ready(link_run());
		seq = store_seq(ln.snapshot->store);
		do {
			(void)store_poll(b->store);
			store_sync_request(b->store);
			r = diff_target_apply(ln.t);
		} while (r == -EAGAIN);
		assert_ready(r);
		assert_int_equal(store_seq(b->store), seq);
		do {
			uint64_t durable = store_durable_seq(b->store);

			store_sync_request(b->store);
			rebasing = store_rebasing(b->store);
			/* Durable only by its checkpoint, which is told before; the flag goes a moment later. */
			assert_true(durable < seq || store_checkpoint_seq(b->store) >= seq);
			if (rebasing && durable < seq) {
				r = store_reserve(b->store, 1, true);
				assert_true(r == -EAGAIN || !store_rebasing(b->store));
			}
		} while (rebasing);
		wait_while(b->store, store_rebasing);
		assert_int_equal(store_durable_seq(b->store), seq);
		assert_same(ln.snapshot, b);
		link_end();
		do {
			(void)store_poll(b->store);
			r = keys_make(b, 1, "after", 5, S_IFREG | 0644, 0, &cred, &attr);
		} while (r == -EAGAIN);
		assert_int_equal(r, 0);
		assert_int_equal(store_seq(b->store), seq + 1);
		assert_int_equal(store_sync(b->store), 0);
		assert_int_equal(store_durable_seq(b->store), seq + 1);
		/* A kill: the record behind the fresh start is found. */
		copy_file(path_b, path_c);
		drop_pair(a, b);
		b = open_at(path_c, NULL, 0);
		assert_int_equal(store_seq(b->store), seq + 1);
		assert_int_equal(keys_lookup(b, 1, "after", 5, &attr), 0);
		assert_clean(b, "a copy after the rebase");
		assert_int_equal(keys_close(b), 0);
	}
}

/* The owner's last word before the checkpoint fails: the store has failed, on disk is the old state. */
static void test_diff__failing_commit_is_final(void **state)
{
	struct keys *a, *b;
	uint64_t old;

	(void)state;
	rng = seed + 12;
	make_pair(ORIGIN_OTHER, 0, &a, &b);
	old = digest_of(b);
	link_begin(a, b, false, 5);
	assert_ready(link_run());
	ln.fail_commit = true;
	assert_int_equal(diff_target_apply(ln.t), -EIO);
	assert_int_equal(store_failed(b->store), -EIO);
	diff_source_free(ln.s);
	diff_target_free(ln.t);
	lane_clear(&ln.to_target);
	lane_clear(&ln.to_source);
	assert_int_equal(keys_close(ln.snapshot), 0);
	(void)keys_close(b);
	b = open_at(path_b, NULL, 0);
	assert_int_equal(digest_of(b), old);
	assert_clean(b, "after a failure");
	drop_pair(a, b);
}

/* Bytes ------------------------------------------------------------------------------------------------------------- */

static void test_diff__few_changes_cost_few_bytes(void **state)
{
	const char *n = getenv("BYTES");
	uint64_t keys = n ? strtoull(n, NULL, 10) : 100000, i, all = 0;
	uint64_t *inos = calloc(keys, sizeof *inos);
	struct diff_progress p;
	static struct logical_walk w;
	struct logical_item item;
	struct timespec t0, t1, t2;
	struct keys_attr attr;
	uint8_t data[100];
	char name[32];
	struct keys *a, *b;
	size_t wrote;

	(void)state;
	rng = seed + 13;
	assert_non_null(inos);
	a = open_at(path_a, NULL, 0);
	for (i = 0; i < keys; i++) {
		(void)snprintf(name, sizeof name, "key number %llu", (unsigned long long)i);
		assert_int_equal(keys_make(a, 1, name, strlen(name), S_IFREG | 0644, 0, &cred, &attr), 0);
		memset(data, (int)i, sizeof data);
		assert_int_equal(keys_write(a, attr.ino, 0, data, sizeof data, 0, &wrote), 0);
		inos[i] = attr.ino;
		if (i % 1000 == 0)
			(void)store_poll(a->store);
	}
	assert_int_equal(keys_close(a), 0);
	copy_file(path_a, path_b);
	a = open_at(path_a, NULL, 0);
	b = open_at(path_b, NULL, 0);
	for (i = 0; i < keys / 100; i++) {
		memset(data, (int)below(256), sizeof data);
		assert_int_equal(keys_write(a, inos[below(keys)], 0, data, sizeof data, 0, &wrote), 0);
	}
	free(inos);
	link_begin(a, b, false, 20);
	(void)clock_gettime(CLOCK_MONOTONIC, &t0);
	assert_ready(link_run());
	(void)clock_gettime(CLOCK_MONOTONIC, &t1);
	assert_ready(diff_target_apply(ln.t));
	(void)clock_gettime(CLOCK_MONOTONIC, &t2);
	diff_target_progress(ln.t, &p);
	logical_begin(&w, ln.snapshot, (struct key){ 0, 0 });
	while (logical_next(&w, LOGICAL_END, &item) > 0)
		all += 16 + item.len;
	print_message("# %llu keys: %llu bytes of items, %llu received (%.2f %%), %llu sent; %llu of %llu ranges, %llu edits; "
		      "%.0f ms compared, %.1f ms applied\n",
		      (unsigned long long)keys, (unsigned long long)all, (unsigned long long)p.received_bytes,
		      100.0 * (double)p.received_bytes / (double)all, (unsigned long long)p.sent_bytes,
		      (unsigned long long)p.ranges_differ, (unsigned long long)p.ranges, (unsigned long long)p.items_differ,
		      (double)(t1.tv_sec - t0.tv_sec) * 1e3 + (double)(t1.tv_nsec - t0.tv_nsec) / 1e6,
		      (double)(t2.tv_sec - t1.tv_sec) * 1e3 + (double)(t2.tv_nsec - t1.tv_nsec) / 1e6);
	assert_true(p.received_bytes + p.sent_bytes < all * 3 / 100);
	assert_same(ln.snapshot, b);
	link_end();
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* The first sync of MIB=n, with threads and the disk; by hand. */
static void test_diff__first_sync_is_as_fast_as_the_disk(void **state)
{
	const char *n = getenv("MIB");
	uint64_t mib = n ? strtoull(n, NULL, 10) : 16, i;
	const struct store_options o = { .path = path_a, .create = true, .threads = true };
	struct store_options to = o;
	static uint8_t data[1 << 20];
	struct timespec t[3];
	struct keys_attr attr;
	struct keys *a, *b;
	size_t wrote;
	int r;

	(void)state;
	rng = seed + 17;
	to.path = path_b;
	assert_int_equal(keys_open(&o, &a), 0);
	assert_int_equal(keys_make(a, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
	for (i = 0; i < mib; i++) {
		memset(data, (int)i, sizeof data);
		do {
			(void)store_poll(a->store);
			r = keys_write(a, attr.ino, i << 20, data, sizeof data, 0, &wrote);
		} while (r == -EAGAIN);
		assert_int_equal(r, 0);
	}
	assert_int_equal(keys_close(a), 0);
	a = open_at(path_a, NULL, 0);
	assert_int_equal(keys_open(&to, &b), 0);
	link_begin(a, b, true, 20);
	(void)clock_gettime(CLOCK_MONOTONIC, &t[0]);
	assert_ready(link_run());
	(void)clock_gettime(CLOCK_MONOTONIC, &t[1]);
	do {
		(void)store_poll(b->store);
		r = diff_target_apply(ln.t);
	} while (r == -EAGAIN);
	assert_ready(r);
	wait_while(b->store, store_rebasing);
	(void)clock_gettime(CLOCK_MONOTONIC, &t[2]);
	print_message("# %llu MiB: here after %.2f s, on disk after %.2f s\n", (unsigned long long)mib,
		      (double)(t[1].tv_sec - t[0].tv_sec) + (double)(t[1].tv_nsec - t[0].tv_nsec) / 1e9,
		      (double)(t[2].tv_sec - t[0].tv_sec) + (double)(t[2].tv_nsec - t[0].tv_nsec) / 1e9);
	assert_same(ln.snapshot, b);
	link_end();
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* A megabyte-size file in which a few blocks changed: only these come. */
static void test_diff__only_changed_blocks_come(void **state)
{
	static uint8_t data[1 << 20];
	struct diff_progress p;
	struct keys_attr attr;
	struct keys *a, *b;
	unsigned i;
	size_t n;

	(void)state;
	rng = seed + 14;
	a = open_at(path_a, NULL, 0);
	assert_int_equal(keys_make(a, 1, "f", 1, S_IFREG | 0644, 0, &cred, &attr), 0);
	for (i = 0; i < 32; i++) {
		memset(data, (int)i, sizeof data);
		assert_int_equal(keys_write(a, attr.ino, (uint64_t)i << 20, data, sizeof data, 0, &n), 0);
	}
	assert_int_equal(keys_close(a), 0);
	copy_file(path_a, path_b);
	a = open_at(path_a, NULL, 0);
	b = open_at(path_b, NULL, 0);
	for (i = 0; i < 5; i++)
		assert_int_equal(keys_write(a, attr.ino, (uint64_t)i * 5000000 + 5, "changed", 7, 0, &n), 0);
	link_begin(a, b, false, 5);
	assert_ready(link_run());
	diff_target_progress(ln.t, &p);
	assert_int_equal(p.staged_blocks, 5);
	assert_true(p.received_bytes < 5 * (BLOCK_SIZE + 4000) + 1000);
	assert_ready(diff_target_apply(ln.t));
	assert_same(ln.snapshot, b);
	link_end();
	assert_clean(b, "five blocks");
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* Two stores in memory; the primary goes on while its checkpoint is read, and gives nothing of it out again. */
static struct keys *busy;

static int go_on(void)
{
	scribble(busy, 3);
	(void)store_checkpoint(busy->store);
	return 0;
}

static void test_diff__primary_goes_on_meanwhile(void **state)
{
	uint64_t i, d;

	(void)state;
	for (i = 0; i < cases; i++) {
		struct keys *a = open_at(":memory:", NULL, 0), *b = open_at(":memory:", NULL, 0);

		rng = (seed + i) * 0x9e3779b97f4a7c15ull + 16;
		say_where("busy", seed + i);
		fill(a, 2 << 20, false);
		scribble(a, 200);
		scribble(b, 50);
		busy = a;
		link_begin(a, b, false, 2);
		d = digest_of(a);
		ln.at_message = go_on;
		assert_ready(link_run());
		assert_ready(diff_target_apply(ln.t));
		assert_same(ln.snapshot, b);
		assert_int_equal(digest_of(b), d);
		link_end();
		assert_clean(b, "from a busy primary");
		assert_int_equal(keys_close(a), 0);
		assert_int_equal(keys_close(b), 0);
	}
}

/* What changed is told, by name and by inode. */
static struct diff_change told[64];
static char told_names[64][64];
static unsigned told_count;

static void tell(void *ctx, const struct diff_change *c)
{
	(void)ctx;
	assert_true(told_count < ARRAY_LEN(told));
	told[told_count] = *c;
	(void)snprintf(told_names[told_count], sizeof told_names[0], "%.*s", c->name ? (int)c->len : 0, c->name ? c->name : "");
	told_count++;
}

static bool was_told(uint64_t ino, const char *name)
{
	unsigned i;

	for (i = 0; i < told_count; i++)
		if (told[i].ino == ino && !told[i].name == !name && (!name || strcmp(told_names[i], name) == 0))
			return true;
	return false;
}

static void test_diff__changes_are_told(void **state)
{
	const struct diff_target_options to = { .send = send_to_source, .changed = tell };
	struct keys_attr keep, change, gone, made;
	struct keys *a, *b;
	uint32_t nlink;
	uint64_t ino;
	size_t n;

	(void)state;
	rng = seed + 15;
	a = open_at(path_a, NULL, 0);
	assert_int_equal(keys_make(a, 1, "keep", 4, S_IFREG | 0644, 0, &cred, &keep), 0);
	assert_int_equal(keys_make(a, 1, "change", 6, S_IFREG | 0644, 0, &cred, &change), 0);
	assert_int_equal(keys_make(a, 1, "gone", 4, S_IFREG | 0644, 0, &cred, &gone), 0);
	assert_int_equal(keys_close(a), 0);
	copy_file(path_a, path_b);
	a = open_at(path_a, NULL, 0);
	b = open_at(path_b, NULL, 0);
	assert_int_equal(keys_write(a, change.ino, 0, "x", 1, 0, &n), 0);
	assert_int_equal(keys_unlink(a, 1, "gone", 4, &ino, &nlink), 0);
	assert_int_equal(keys_make(a, 1, "made", 4, S_IFREG | 0644, 0, &cred, &made), 0);
	link_begin(a, b, false, 5);
	diff_target_free(ln.t);
	assert_int_equal(diff_target_new(b, &to, &ln.t), 0);
	told_count = 0;
	assert_ready(link_run());
	assert_int_equal(told_count, 0);
	assert_ready(diff_target_apply(ln.t));
	assert_true(was_told(1, NULL) && was_told(1, "gone") && was_told(1, "made") && was_told(change.ino, NULL) &&
		    was_told(gone.ino, NULL) && was_told(made.ino, NULL));
	assert_false(was_told(keep.ino, NULL) || was_told(1, "keep") || was_told(1, "change"));
	link_end();
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_diff__all_become_equal),
		T(test_diff__old_state_until_applied),
		T(test_diff__power_cut_while_applying),
		T(test_diff__abort_leaves_the_old_state),
		T(test_diff__direct_goes_on_after_an_interruption),
		T(test_diff__change_meanwhile_is_noticed),
		T(test_diff__no_space_leaves_the_old_state),
		T(test_diff__every_size_fits_or_not),
		T(test_diff__damaged_messages_do_no_harm),
		T(test_diff__damage_on_the_way_is_refused),
		T(test_diff__equal_checksums_prove_nothing),
		T(test_diff__direct_proves_contents_after_an_interruption),
		T(test_diff__half_reaped_orphan_comes_back),
		T(test_diff__empty_part_of_an_attribute_comes),
		T(test_diff__edits_come_in_any_order),
		T(test_diff__nothing_is_durable_before_the_rebase_is),
		T(test_diff__failing_commit_is_final),
		T(test_diff__few_changes_cost_few_bytes),
		T(test_diff__first_sync_is_as_fast_as_the_disk),
		T(test_diff__only_changed_blocks_come),
		T(test_diff__primary_goes_on_meanwhile),
		T(test_diff__changes_are_told),
	};
	const char *s = getenv("SEED"), *c = getenv("CASES"), *only = getenv("ONLY");

	seed = s ? strtoull(s, NULL, 10) : (uint64_t)time(NULL);
	cases = c ? strtoull(c, NULL, 10) : 4;
	if (seed == 0)
		seed = 1;
	if (only)
		cmocka_set_test_filter(only);
	return cmocka_run_group_tests_name("diff", tests, NULL, NULL);
}
