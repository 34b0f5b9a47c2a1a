/* SPDX-License-Identifier: MIT
 *
 * pair: three real stores, of which one leads and the others follow it by changes and by diffs, and the power of each is cut
 * again and again: what is left of its file is what it had synced, and any 512-byte sectors of the rest, also in the middle of a
 * commit, a checkpoint, the change of a role or a rebase. Another one is promoted; who led follows, and what only it had is given
 * up for a diff. (`make sim` drives the engines of links through all orders of messages, over a model of a store; `make crash`
 * cuts one store in many more ways. Here is what the two have in common.) Demanded:
 *   - what a follower has after each change is, item by item, what the primary had behind that change;
 *   - what an image shows is one such state of its own line, not older than what was durable; in a rebase the old line or the new;
 *   - what was durable on all at once stays in the line of whoever leads then;
 *   - in the end all are equal, clean for check, also when opened again.
 *
 *   SEED=n    the first case        CASES=n   how many        STEPS=n   of each
 */
#include "tests/unit/ok_util.h"
#include "tests/unit/pair_util.h"
#include "tests/unit/random_util.h"
#include "tests/unit/scratch_util.h"

#include "core/keys/edit.h"
#include "core/keys/keys_int.h"
#include "core/replica/change.h"
#include "core/replica/diff.h"
#include "core/replica/message.h"
#include "core/store/store_int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NODES    3u
#define LINE_MAX 4096u          /* changes in one case */
#define FILE_MAX (24u << 20)
#define KEEP     40u            /* changes that a feed reaches back */
#define LANE     64u
#define PROMISE  (1ull << EPOCH_RUN_BITS)

/* A state of a line: what all items are after that change. */
struct line {
	uint64_t digest[LINE_MAX];
	seq_t last;
};

struct node {
	unsigned id;
	char path[SCRATCH_PATH];
	struct sys_ops sys;
	struct keys *k;
	struct line line;
	/* The feed: encoded changes, `first` is the oldest of them. */
	struct { uint8_t *bytes; uint32_t len; } change[LINE_MAX];
	seq_t first;
	/* What is on disk for sure. */
	uint8_t *disk;
	uint64_t size;
	/* A power cut within a call: after so many syncs, 0: none is to come; then what was left of the file. */
	unsigned cut_in;
	uint8_t *image;
	uint64_t image_size;
	seq_t image_durable;
	bool rebasing;          /* the state that it is to become is `to` */
	struct line to;
};

static uint64_t seed_now, mono;
static struct node nodes[NODES];
static unsigned leader;
static struct line acked;       /* durable on all; .last: so far */
static unsigned cuts, cuts_within, diffs, unfit, promotions, followed;
static const struct keys_cred cred = { 0, 0, 022 };

static void print_replay(void)
{
	print_error("# replay with SEED=%llu CASES=1\n", (unsigned long long)seed_now);
}

/* The disk --------------------------------------------------------------------------------------------------------- */

static uint64_t mono_clock(void *ctx)
{
	(void)ctx;
	return mono += 1000000;
}

static uint64_t real_clock(void *ctx)
{
	return 1700000000ull * 1000000000u + mono_clock(ctx);
}

static int random_bytes(void *ctx, void *buf, size_t len)
{
	(void)ctx;
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = (uint8_t)random_below(256);
	return 0;
}

static uint64_t read_file(const char *path, uint8_t *to)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	check(fd >= 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size <= FILE_MAX);
	check(pread(fd, to, (size_t)st.st_size, 0) == st.st_size);
	check(close(fd) == 0);
	return (uint64_t)st.st_size;
}

static void write_file(const char *path, const uint8_t *bytes, uint64_t size)
{
	int fd;

	(void)unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	check(fd >= 0);
	check(pwrite(fd, bytes, size, 0) == (ssize_t)size && close(fd) == 0);
}

/* What a power cut now leaves: the disk, and some of what the page cache has beyond it. */
static void take_image(struct node *n)
{
	static uint8_t now[FILE_MAX];
	uint64_t size = read_file(n->path, now), p;
	unsigned how = (unsigned)random_below(5);

	free(n->image);
	n->image = calloc(1, FILE_MAX);
	check(n->image);
	memcpy(n->image, n->disk, FILE_MAX);
	for (p = 0; p < size; p += 512) {
		bool take = how == 1 || (how == 2 && random_below(2)) || (how == 3 && random_below(16) == 0) ||
			    (how == 4 && random_below(16) != 0);

		if (take)
			memcpy(n->image + p, now + p, 512);
	}
	n->image_size = size;
	n->image_durable = n->k ? store_durable_seq(n->k->store) : 0;
}

static int sync_disk(void *ctx, void *addr, size_t len)
{
	struct node *n = ctx;
	uint64_t off;
	int fd;

	/* A new store has no name yet, and is copied to the disk when it has one. */
	if (!n->k)
		return 0;
	if (n->cut_in > 0 && --n->cut_in == 0)
		take_image(n);
	off = (uint64_t)((uint8_t *)addr - n->k->store->map.base);
	fd = open(n->path, O_RDONLY | O_CLOEXEC);
	check(fd >= 0 && off + len <= FILE_MAX);
	check(pread(fd, n->disk + off, len, (off_t)off) >= 0 && close(fd) == 0);
	return 0;
}

/* Stores ----------------------------------------------------------------------------------------------------------- */

static int read_blocks(void *ctx, block_t block, uint64_t count, uint8_t *to)
{
	struct node *n = ctx;

	return store_read_blocks(n->k->store, block, count, to);
}

static void committed(void *ctx, const uint8_t *rec, uint32_t len)
{
	static uint8_t bytes[CHANGE_MAX];
	struct node *n = ctx;
	seq_t seq = get_le64(rec + REC_SEQ);
	uint32_t used;

	must(seq < LINE_MAX);
	ok(change_encode(rec, len, read_blocks, n, bytes, sizeof bytes, &used));
	free(n->change[seq].bytes);
	n->change[seq].bytes = malloc(used);
	check(n->change[seq].bytes);
	memcpy(n->change[seq].bytes, bytes, used);
	n->change[seq].len = used;
	if (n->first == 0)
		n->first = seq;
	if (seq - n->first >= KEEP)
		n->first = seq - KEEP + 1;
}

static void note_state(struct node *n)
{
	n->line.last = store_seq(n->k->store);
	must(n->line.last < LINE_MAX);
	n->line.digest[n->line.last] = pair_digest(n->k);
}

static void open_node(struct node *n, bool follow)
{
	const struct store_options o = { .path = n->path, .create = true, .follow = follow, .sys = &n->sys, .max_bytes = FILE_MAX,
					 .committed = committed, .committed_ctx = n };
	struct keys *k;

	n->k = NULL;
	n->first = 0;
	ok(keys_open(&o, &k));
	n->k = k;
	/* What an opening writes it has synced, or it is found again. */
	n->size = read_file(n->path, n->disk);
}

static void set_role(struct node *n, enum store_role role, uint64_t promised)
{
	struct store_identity id;

	store_identity(n->k->store, &id);
	id.role = role;
	id.promised_epoch = max_u64(id.promised_epoch, promised);
	memset(id.cluster, 7, sizeof id.cluster);
	ok(store_put_identity(n->k->store, &id));
}

static void history_of(struct node *n, struct history *ret)
{
	struct keys_epoch e[MSG_HISTORY_MAX];

	*ret = (struct history){ .last = store_seq(n->k->store) };
	ok(keys_history(n->k, e, MSG_HISTORY_MAX, &ret->count));
	for (unsigned i = 0; i < ret->count; i++) {
		ret->at[i] = (struct history_entry){ .epoch = e[i].epoch, .first = e[i].first_seq, .nonce = e[i].nonce };
		memcpy(ret->at[i].store, e[i].uuid, sizeof ret->at[i].store);
	}
}

/* Changes ---------------------------------------------------------------------------------------------------------- */

static void change_one(struct node *n)
{
	static uint8_t data[40000];
	uint64_t ino = 1 + random_below(store_counts(n->k->store)->next_ino % PROMISE + 2), orphan, was;
	uint64_t off = random_below(20) * 4096 + random_below(3) * 100;
	size_t len = (size_t)(random_below(3) ? random_below(600) : random_below(sizeof data)), done;
	const struct keys_setattr cut = { .mask = KEYS_SET_SIZE, .size = random_below(60000) };
	struct keys_attr attr;
	char name[16], other[16];
	uint32_t nlink;

	memset(data, (int)random_below(256), len);
	if (len > 8)
		memcpy(data, &(uint64_t){ random_below(UINT64_MAX) }, 8);
	(void)snprintf(name, sizeof name, "f%u", (unsigned)random_below(20));
	(void)snprintf(other, sizeof other, "f%u", (unsigned)random_below(20));
	/* Most of what is asked for cannot be; then nothing changes. */
	if (keys_lookup(n->k, 1, name, strlen(name), &attr) == 0)
		ino = attr.ino;
	switch (random_below(7)) {
	case 0: case 1:
		(void)keys_make(n->k, 1, name, strlen(name), random_below(5) ? S_IFREG | 0644 : S_IFDIR | 0755, 0, &cred, &attr);
		break;
	case 2: case 3:
		(void)keys_write(n->k, ino, off, data, len, 0, &done);
		break;
	case 4:
		(void)keys_unlink(n->k, 1, name, strlen(name), &was, &nlink);
		break;
	case 5:
		(void)keys_rename(n->k, 1, name, strlen(name), 1, other, strlen(other), 0, &cred, &orphan);
		break;
	default:
		if (random_below(2))
			(void)keys_setattr(n->k, ino, &cut, &attr);
		else
			(void)keys_fallocate(n->k, ino, FALLOC_FL_KEEP_SIZE | (random_below(2) ? FALLOC_FL_PUNCH_HOLE : 0), off,
					     1 + random_below(50000), 0);
		break;
	}
	if (store_seq(n->k->store) > n->line.last)
		note_state(n);
}

/* Diffs ------------------------------------------------------------------------------------------------------------ */

struct message {
	unsigned type;
	size_t len;
	uint8_t *bytes;
};

static struct lane {
	struct message m[LANE];
	unsigned first, count;
} to_target, to_source;

static int lane_add(struct lane *l, unsigned type, const void *bytes, size_t len)
{
	struct message *m = &l->m[(l->first + l->count) % LANE];

	if (l->count == LANE)
		return -EAGAIN;
	*m = (struct message){ type, len, malloc(len + 1) };
	check(m->bytes);
	/* Some have no bytes, and no place of them. */
	if (len > 0)
		memcpy(m->bytes, bytes, len);
	l->count++;
	return 0;
}

static int send_to_target(void *ctx, enum diff_type type, const void *bytes, size_t len)
{
	(void)ctx;
	return lane_add(&to_target, type, bytes, len);
}

static int send_to_source(void *ctx, enum diff_type type, const void *bytes, size_t len)
{
	(void)ctx;
	return lane_add(&to_source, type, bytes, len);
}

static bool lane_take(struct lane *l, struct message *ret)
{
	if (l->count == 0)
		return false;
	*ret = l->m[l->first];
	l->first = (l->first + 1) % LANE;
	l->count--;
	return true;
}

static void carry(struct diff_source *s, struct diff_target *t)
{
	struct message m;
	int r = 0;

	while (r != DIFF_READY) {
		if (lane_take(&to_target, &m)) {
			ok(diff_target_message(t, m.type, m.bytes, m.len));
			free(m.bytes);
		}
		if (lane_take(&to_source, &m)) {
			ok(diff_source_message(s, m.type, m.bytes, m.len));
			free(m.bytes);
		}
		ok(diff_source_step(s));
		r = diff_target_step(t);
		ok(r);
	}
	while (lane_take(&to_target, &m) || lane_take(&to_source, &m))
		free(m.bytes);
}

/* The follower becomes what the leader is now. */
static void diff(struct node *from, struct node *to)
{
	const struct store_options o = { .path = from->path, .read_only = true, .snapshot = true };
	const struct diff_target_options options = { .send = send_to_source, .folder = random_below(2) ? scratch_folder() : NULL };
	struct diff_source *s;
	struct diff_target *t;
	struct keys *snapshot;

	ok(store_checkpoint(from->k->store));
	ok(keys_open(&o, &snapshot));
	must(store_seq(snapshot->store) == from->line.last);
	ok(diff_source_new(snapshot, random_below(UINT64_MAX), send_to_target, NULL, &s));
	ok(diff_target_new(to->k, &options, &t));
	carry(s, t);
	must(pair_digest(to->k) == to->line.digest[to->line.last]);
	to->rebasing = true;
	to->to = from->line;
	ok(diff_target_apply(t));
	must(!store_rebasing(to->k->store));
	diff_source_free(s);
	diff_target_free(t);
	ok(keys_close(snapshot));
	/* An image of before may still show what was. */
	if (!to->image) {
		to->rebasing = false;
		to->line = from->line;
	}
	to->first = 0;
	must(store_seq(to->k->store) == from->line.last);
	must(pair_digest(to->k) == from->line.digest[from->line.last]);
	must(store_durable_seq(to->k->store) == from->line.last);
	diffs++;
}

/* Following -------------------------------------------------------------------------------------------------------- */

static void follow(struct node *n, unsigned changes)
{
	struct node *l = &nodes[leader];
	struct history ours, theirs;
	seq_t common;
	enum history_verdict v;

	history_of(l, &ours);
	history_of(n, &theirs);
	v = history_compare(&ours, &theirs, &common);
	/* An empty one, too: what it was made with (the root's times) is in no change. */
	if (v != HISTORY_STREAM || (common < ours.last && (l->first == 0 || common + 1 < l->first)) ||
	    store_hash_seed(l->k->store) != store_hash_seed(n->k->store)) {
		diff(l, n);
		return;
	}
	while (changes-- > 0 && n->line.last < l->line.last) {
		seq_t seq = n->line.last + 1;
		int r = change_apply(n->k, l->change[seq].bytes, l->change[seq].len);

		if (r == -EAGAIN)
			r = change_apply(n->k, l->change[seq].bytes, l->change[seq].len);
		/* It led, left out numbers of inodes when it was opened, and has lost the epoch that did so for all. */
		if (r == -EPROTO) {
			must(store_seq(n->k->store) == seq - 1 && pair_digest(n->k) == n->line.digest[seq - 1]);
			unfit++;
			diff(l, n);
			return;
		}
		ok(r);
		note_state(n);
		/* Passes through the same states. */
		must(n->line.last == seq && n->line.digest[seq] == l->line.digest[seq]);
		followed++;
	}
}

/* What all have on disk, of the line of the leader, nothing takes away. */
static void note_acked(void)
{
	const struct line *line = &nodes[leader].line;
	seq_t least = UINT64_MAX;

	for (unsigned i = 0; i < NODES; i++) {
		seq_t d = store_durable_seq(nodes[i].k->store);
		struct history ours, theirs;
		seq_t common;

		history_of(&nodes[leader], &ours);
		history_of(&nodes[i], &theirs);
		(void)history_compare(&ours, &theirs, &common);
		least = min_u64(least, i == leader ? d : min_u64(d, common));
	}
	for (; acked.last < least; acked.last++)
		acked.digest[acked.last + 1] = line->digest[acked.last + 1];
}

static void check_acked(void)
{
	const struct line *line = &nodes[leader].line;

	must(line->last >= acked.last);
	for (seq_t s = 1; s <= acked.last; s++)
		must(acked.digest[s] == 0 || line->digest[s] == acked.digest[s]);
}

/* Power ------------------------------------------------------------------------------------------------------------ */

/* What the image shows is a state of the store's line, or of the one that it was becoming. */
static void check_image(struct node *n)
{
	const struct store_options o = { .path = n->path, .read_only = true };
	struct keys *k;
	uint64_t d;
	seq_t seq;

	ok(keys_open(&o, &k));
	seq = store_seq(k->store);
	d = pair_digest(k);
	ok(keys_close(k));
	if (n->rebasing && seq == n->to.last && d == n->to.digest[seq]) {
		n->line = n->to;
	} else {
		must(seq >= n->image_durable);
		must(seq <= n->line.last);
		must(d == n->line.digest[seq]);
	}
	n->line.last = seq;
	n->rebasing = false;
}

/* follow: it is not to lead any more. */
static void cut_power(struct node *n, bool stays)
{
	struct store_identity id;

	if (!n->image)
		take_image(n);
	else
		cuts_within++;
	n->cut_in = 0;
	/* Nothing of what it does while it closes is on that disk. */
	ok(keys_close(n->k));
	write_file(n->path, n->image, n->image_size);
	memcpy(n->disk, n->image, FILE_MAX);
	check_image(n);
	free(n->image);
	n->image = NULL;
	open_node(n, !stays);
	store_identity(n->k->store, &id);
	must(stays || id.role == STORE_REPLICA);
	/* A primary that may have lost something has begun an epoch, or one that has promised it. */
	must(store_seq(n->k->store) == n->line.last + (id.role == STORE_PRIMARY && !store_was_clean(n->k->store)));
	/* A superblock that was being written is written anew. */
	pair_clean(n->k, "the end");
	note_state(n);
	cuts++;
}

/* Higher than any that somebody here knows. */
static uint64_t next_epoch(void)
{
	uint64_t epoch = 0;

	for (unsigned i = 0; i < NODES; i++) {
		struct store_identity id;

		store_identity(nodes[i].k->store, &id);
		epoch = max_u64(epoch, epoch_next_term(max_u64(store_epoch(nodes[i].k->store), id.promised_epoch)));
	}
	return epoch;
}

static void lead(struct node *n)
{
	uint64_t epoch = next_epoch();

	set_role(n, STORE_PRIMARY, epoch);
	ok(keys_begin_epoch(n->k, epoch));
	note_state(n);
	leader = n->id;
	promotions++;
}

/* The leader's power is cut. If it led only a moment ago, that may be gone. */
static void cut_leader(void)
{
	struct node *n = &nodes[leader];
	struct store_identity id;

	cut_power(n, true);
	store_identity(n->k->store, &id);
	if (id.role != STORE_PRIMARY)
		lead(n);
}

static void promote(void)
{
	struct node *old = &nodes[leader];
	unsigned best = leader, i;

	for (i = 0; i < NODES; i++)
		if (i != leader && (best == leader || nodes[i].line.last > nodes[best].line.last))
			best = i;
	if (random_below(2))
		cut_power(old, false);
	else
		set_role(old, STORE_REPLICA, 0);
	lead(&nodes[best]);
	check_acked();
}

/* Cases ------------------------------------------------------------------------------------------------------------ */

static void step(void)
{
	struct node *n = &nodes[random_below(NODES)];
	unsigned what = (unsigned)random_below(100);

	/* Power goes within what is done now. */
	if (random_below(8) == 0 && !n->image)
		n->cut_in = 1 + (unsigned)random_below(6);
	if (what < 40)
		change_one(&nodes[leader]);
	else if (what < 70 && n != &nodes[leader])
		follow(n, 1 + (unsigned)random_below(12));
	else if (what < 80)
		ok(store_sync(n->k->store));
	else if (what < 85)
		(void)store_checkpoint(n->k->store);
	else if (what < 97)
		(void)store_poll(n->k->store);
	else if (what == 98)
		promote();
	else
		n->cut_in = 0;
	for (unsigned i = 0; i < NODES; i++)
		if (nodes[i].image || (what >= 98 && random_below(NODES) == 0 && &nodes[i] == n)) {
			if (i == leader)
				cut_leader();
			else
				cut_power(&nodes[i], false);
			check_acked();
		}
	/* Of what came to a disk behind a cut nothing counts: that is why this comes last. */
	note_acked();
}

static void begin_case(uint64_t seed)
{
	seed_now = seed;
	random_restart(seed);
	leader = 0;
	memset(&acked, 0, sizeof acked);
	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = &nodes[i];

		memset(n, 0, sizeof *n);
		n->id = i;
		(void)snprintf(n->path, sizeof n->path, "%s/%u", scratch_folder(), i);
		n->disk = calloc(1, FILE_MAX);
		check(n->disk);
		n->sys = sys_linux;
		n->sys.ctx = n;
		n->sys.sync = sync_disk;
		n->sys.random = random_bytes;
		n->sys.now_real_ns = real_clock;
		n->sys.now_mono_ns = mono_clock;
		open_node(n, false);
		if (i > 0 && random_below(2))
			ok(keys_adopt_seed(n->k, store_hash_seed(nodes[0].k->store)));
		set_role(n, i == 0 ? STORE_PRIMARY : STORE_REPLICA, 0);
		n->line.digest[0] = pair_digest(n->k);
	}
	ok(keys_begin_epoch(nodes[0].k, PROMISE));
	note_state(&nodes[0]);
}

static void end_case(void)
{
	struct node *l = &nodes[leader];

	for (unsigned i = 0; i < NODES; i++)
		nodes[i].cut_in = 0;
	for (unsigned i = 0; i < NODES; i++)
		/* Also one that is as far in another line. */
		if (i != leader)
			do
				follow(&nodes[i], UINT32_MAX);
			while (nodes[i].line.last != l->line.last);
	check_acked();
	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = &nodes[i];

		must(pair_digest(n->k) == l->line.digest[l->line.last]);
		pair_clean(n->k, "the end");
		ok(keys_close(n->k));
		open_node(n, false);
		must(store_seq(n->k->store) == l->line.last);
		must(pair_digest(n->k) == l->line.digest[l->line.last]);
		ok(keys_close(n->k));
		for (unsigned s = 0; s < LINE_MAX; s++)
			free(n->change[s].bytes);
		free(n->disk);
		(void)unlink(n->path);
	}
}

static void test_pair__power_cuts_of_all(void **state)
{
	uint64_t first = env_number("SEED", 1), cases = env_number("CASES", 8), steps = env_number("STEPS", 500);

	(void)state;
	for (uint64_t c = first; c < first + cases; c++) {
		begin_case(c);
		for (uint64_t i = 0; i < steps; i++)
			step();
		end_case();
	}
	print_message("# %llu cases: %u power cuts, %u of them within a call, %u promotions, %u diffs (%u for a change that did not "
		      "fit), %u changes followed\n", (unsigned long long)cases, cuts, cuts_within, promotions, diffs, unfit, followed);
}

static int set_up(void **state)
{
	(void)state;
	ok_failed = print_replay;
	return scratch_make_on_disk("pair");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_pair__power_cuts_of_all) };

	return cmocka_run_group_tests(tests, set_up, scratch_teardown);
}
