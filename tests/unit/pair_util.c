/* SPDX-License-Identifier: MIT
 *
 * pair: see pair_util.h.
 */
#include "tests/unit/pair_util.h"

#include "tests/unit/random_util.h"

#include "core/check/check.h"
#include "core/keys/keys_int.h"
#include "core/keys/logical.h"
#include "core/store/store_int.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

char path_a[SCRATCH_PATH], path_b[SCRATCH_PATH], path_c[SCRATCH_PATH];
uint64_t pair_seed, pair_cases;
struct work pair_work;

static const struct keys_cred cred = { 0, 0, 022 };

/* Stores ------------------------------------------------------------------------------------------------------------ */

static uint64_t work_real_ns(void *ctx)
{
	(void)ctx;
	return pair_work.real_ns;
}

static uint64_t work_mono_ns(void *ctx)
{
	(void)ctx;
	return pair_work.mono_ns;
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

static struct keys *open_with(const char *path, const struct sys_ops *sys, uint64_t max)
{
	const struct store_options o = { .path = path, .create = true, .sys = sys, .max_bytes = max };
	struct keys *k;
	int r = keys_open(&o, &k);

	if (r < 0)
		fail_msg("%s cannot be opened: %s", path, err_last());
	return k;
}

struct keys *pair_open(const char *path, uint64_t max)
{
	return open_with(path, &sys_b, max);
}

static void problem(void *ctx, const char *text)
{
	(void)ctx;
	fprintf(stderr, "# check: %s\n", text);
}

void pair_clean(struct keys *k, const char *what)
{
	const struct check_options o = { .problem = problem };
	struct check_report rep;

	assert_int_equal(check_run(k, &o, &rep), 0);
	if (rep.problems != 0)
		fail_msg("%s: %llu problems", what, (unsigned long long)rep.problems);
}

uint64_t pair_digest(struct keys *k)
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

bool pair_lenient;

static void assert_block(struct keys *a, struct keys *b, const struct logical_item *ia, const struct logical_item *ib, unsigned i)
{
	const uint8_t *pa, *pb;
	int err;

	assert_int_equal(ia->window->csum[i], ib->window->csum[i]);
	pa = window_bytes(a, ia->window, i, &err);
	pb = window_bytes(b, ib->window, i, &err);
	if (pair_lenient && block_csum(pb, ib->key.hi >> 8, ib->key.lo + i) != ib->window->csum[i])
		return;
	assert_memory_equal(pa, pb, BLOCK_SIZE);
}

void pair_same(struct keys *a, struct keys *b)
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

void pair_scribble(struct keys *k, unsigned calls)
{
	static uint8_t data[300000];
	uint64_t next = store_counts(k->store)->next_ino;
	struct keys_attr a;
	unsigned i;
	size_t n;

	for (i = 0; i < calls; i++) {
		uint64_t ino = 1 + random_below(next + 3);
		uint64_t off = random_below(40) * 4096 * (random_below(8) == 0 ? 100 : 1) + random_below(3) * 100;
		size_t len = (size_t)(random_below(3) ? random_below(3000) : random_below(sizeof data));
		char name[32];
		uint32_t nlink;
		uint64_t was;

		(void)snprintf(name, sizeof name, "s%llu", (unsigned long long)random_below(50));
		memset(data, (int)random_below(256), len);
		if (len > 8)
			put_le64(data, random_below(UINT64_MAX));
		switch (random_below(9)) {
		case 0: case 1: case 2:
			(void)keys_write(k, ino, off, data, len, 0, &n);
			break;
		case 3:
			(void)keys_make(k, random_below(2) ? 1 : ino, name, strlen(name),
					random_below(4) ? S_IFREG | 0644 : S_IFDIR | 0755, 0, &cred, &a);
			break;
		case 4:
			if (keys_unlink(k, 1, name, strlen(name), &was, &nlink) == 0 && nlink == 0 && random_below(2))
				while (keys_reap(k, was) == 1)
					;
			break;
		case 5:
			(void)keys_fallocate(k, ino, FALLOC_FL_KEEP_SIZE | (random_below(2) ? 0 : FALLOC_FL_PUNCH_HOLE), off,
					     1 + random_below(2000000), 0);
			break;
		case 6:
			(void)keys_setxattr(k, ino, random_below(2) ? "user.a" : "user.long", data, len % 5000, 0, false);
			break;
		case 7: {
			const struct keys_setattr set = { .mask = KEYS_SET_SIZE, .size = random_below(1000000) };

			(void)keys_setattr(k, ino, &set, &a);
			break;
		}
		default: {
			uint64_t orphan;

			(void)keys_rename(k, 1, name, strlen(name), 1, "moved", 5, 0, &cred, &orphan);
			break;
		}
		}
		if (random_below(40) == 0)
			(void)store_checkpoint(k->store);
		(void)store_poll(k->store);
	}
}

void pair_fill(struct keys *k, uint64_t bytes, bool small)
{
	static uint8_t data[200000];
	struct keys_attr attr;
	char name[32];
	unsigned i;

	for (i = 0; bytes > 0; i++) {
		size_t len = (size_t)min_u64(bytes, random_below(small || random_below(3) ? 2000 : sizeof data)), n;

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

struct carry ln;

static void damage(struct carry_message *m)
{
	unsigned i, n = 1 + (unsigned)random_below(4);

	switch (random_below(8)) {
	case 0:
		m->len = (size_t)random_below(m->len + 1);
		break;
	case 1:
		m->type = (unsigned)random_below(8);
		break;
	default:
		for (i = 0; i < n && m->len > 0; i++) {
			uint8_t *p = &m->bytes[random_below(2) ? random_below(m->len) : random_below(min_u64(m->len, 40))];

			*p = (uint8_t)(random_below(2) ? *p ^ 1u << random_below(8) : random_below(3) ? random_below(256) : 255);
		}
		break;
	}
}

static int lane_add(struct carry_lane *l, unsigned type, const void *bytes, size_t len)
{
	struct carry_message *m = &l->m[(l->first + l->count) % CARRY_DELAYED];

	if (l->count >= l->limit)
		return -EAGAIN;
	assert_true(len <= DIFF_MESSAGE_MAX);
	ln.longest = max_u64(ln.longest, len);
	*m = (struct carry_message){ type, len, malloc(len + 1) };
	assert_non_null(m->bytes);
	if (len > 0)
		memcpy(m->bytes, bytes, len);
	if (ln.hostile && random_below(12) == 0)
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

int carry_to_source(void *ctx, enum diff_type type, const void *bytes, size_t len)
{
	(void)ctx;
	return lane_add(&ln.to_source, type, bytes, len);
}

/* Hand over the first message. With a hostile link the bytes are in a buffer of just that size, so that ASan sees. */
static int deliver(struct carry_lane *l, bool to_target)
{
	struct carry_message *m = &l->m[l->first];
	uint8_t *exact = malloc(m->len ? m->len : 1);
	int r;

	assert_non_null(exact);
	memcpy(exact, m->bytes, m->len);
	r = to_target ? diff_target_message(ln.t, m->type, exact, m->len) : diff_source_message(ln.s, m->type, exact, m->len);
	free(exact);
	free(m->bytes);
	l->first = (l->first + 1) % CARRY_DELAYED;
	l->count--;
	return r;
}

static void lane_clear(struct carry_lane *l)
{
	for (; l->count > 0; l->count--, l->first = (l->first + 1) % CARRY_DELAYED)
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

void carry_begin(struct keys *a, struct keys *b, bool direct, unsigned limit)
{
	struct store_options o = { .path = path_a, .read_only = true, .snapshot = true };
	char path[32];
	const struct diff_target_options to = { .send = carry_to_source, .changed = count_change, .commit = note_commit,
						.direct = direct, .folder = random_below(2) ? scratch_folder() : NULL };

	memset(&ln, 0, sizeof ln);
	ln.to_target.limit = ln.to_source.limit = limit;
	ln.b = b;
	assert_int_equal(store_checkpoint(a->store), 0);
	store_path(a->store, path, sizeof path);
	if (a->store->memory || random_below(2))
		o.path = path;
	if (keys_open(&o, &ln.snapshot) < 0)
		fail_msg("no snapshot: %s", err_last());
	assert_int_equal(diff_source_new(ln.snapshot, random_below(UINT64_MAX), send_to_target, NULL, &ln.s), 0);
	assert_int_equal(diff_target_new(b, &to, &ln.t), 0);
}

int carry_run(void)
{
	bool idle = false;

	for (;;) {
		int s, t, r = 0;

		if (random_below(2) && ln.to_target.count > 0)
			r = deliver(&ln.to_target, true);
		else if (ln.to_source.count > 0)
			r = deliver(&ln.to_source, false);
		else if (ln.to_target.count > 0)
			r = deliver(&ln.to_target, true);
		if (r < 0)
			return r;
		if (ln.stops && ln.messages >= ln.stop_at)
			return -ECANCELED;
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

void carry_drop(void)
{
	diff_source_free(ln.s);
	diff_target_free(ln.t);
	lane_clear(&ln.to_target);
	lane_clear(&ln.to_source);
	assert_int_equal(keys_close(ln.snapshot), 0);
}

void carry_end(void)
{
	carry_drop();
	assert_int_equal(store_space(ln.b->store)->staged, 0);
}

void carry_ready(int r)
{
	if (r < 0)
		fail_msg("the diff ended with %d: %s", r, err_last());
}

void carry_any(struct keys *a, struct keys *b, bool direct)
{
	struct store_status sa, sb;
	int r;

	carry_begin(a, b, direct, 1 + (unsigned)random_below(20));
	carry_ready(carry_run());
	r = diff_target_apply(ln.t);
	carry_ready(r);
	assert_true(ln.commit_called);
	assert_false(store_rebasing(b->store));
	pair_same(ln.snapshot, b);
	store_status(ln.snapshot->store, &sa);
	store_status(b->store, &sb);
	assert_int_equal(sa.seq, sb.seq);
	assert_int_equal(sa.seq, sb.durable_seq);
	assert_int_equal(sa.seq, sb.checkpoint_seq);
	assert_int_equal(sa.epoch, sb.epoch);
	carry_end();
}

void carry_all(struct keys *a, struct keys *b, bool direct)
{
	carry_any(a, b, direct);
	pair_clean(b, "after the diff");
}

/* Cases ------------------------------------------------------------------------------------------------------------- */

int pair_setup(void **state)
{
	(void)state;
	pair_lenient = false;
	assert_int_equal(scratch_make_on_disk("diff"), 0);
	scratch_path(path_a, "a");
	scratch_path(path_b, "b");
	scratch_path(path_c, "c");
	sys_a = sys_b = sys_linux;
	sys_a.sync = sys_b.sync = no_sync;
	sys_a.now_real_ns = work_real_ns;
	sys_a.now_mono_ns = work_mono_ns;
	return 0;
}

int pair_teardown(void **state)
{
	(void)state;
	return scratch_remove();
}

void pair_grow(unsigned calls)
{
	while (calls-- > 0) {
		(void)work_step(&pair_work);
		if (random_below(50) == 0)
			(void)store_checkpoint(pair_work.k->store);
		(void)store_poll(pair_work.k->store);
	}
}

void pair_make(enum pair_origin origin, uint64_t b_max, struct keys **ret_a, struct keys **ret_b)
{
	struct keys *a;

	(void)unlink(path_a);
	(void)unlink(path_b);
	work_init(&pair_work, random_below(UINT64_MAX));
	pair_work.profile = (enum work_profile)random_below(5);
	a = open_with(path_a, &sys_a, 0);
	work_attach(&pair_work, a);
	pair_grow(50 + (unsigned)random_below(300));
	if (origin == PAIR_OLDER || origin == PAIR_EQUAL) {
		assert_int_equal(keys_close(a), 0);
		scratch_copy(path_a, path_b);
		a = open_with(path_a, &sys_a, 0);
		pair_work.k = a;
	}
	*ret_b = pair_open(path_b, b_max);
	if (origin == PAIR_OLDER || origin == PAIR_OTHER)
		pair_scribble(*ret_b, (unsigned)random_below(60));
	if (origin != PAIR_EQUAL)
		pair_grow(20 + (unsigned)random_below(200));
	*ret_a = a;
}

void pair_copy(struct keys **a, struct keys **ret_b)
{
	assert_int_equal(keys_close(*a), 0);
	scratch_copy(path_a, path_b);
	*a = pair_open(path_a, 0);
	*ret_b = pair_open(path_b, 0);
}

void pair_drop(struct keys *a, struct keys *b)
{
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
	work_release(&pair_work);
}

void pair_wait_rebase(const struct keys *k)
{
	const struct timespec nap = { 0, 200000 };

	while (store_rebasing(k->store)) {
		assert_int_equal(store_failed(k->store), 0);
		(void)nanosleep(&nap, NULL);
	}
}

void pair_case(const char *what, uint64_t i, unsigned test)
{
	random_restart((pair_seed + i) * 64 + test);
	fprintf(stderr, "# %s: SEED=%llu\n", what, (unsigned long long)(pair_seed + i));
}

void pair_begin(void)
{
	const char *only = getenv("ONLY");

	pair_seed = random_seed();
	pair_cases = env_number("CASES", 4);
	if (only)
		cmocka_set_test_filter(only);
}
