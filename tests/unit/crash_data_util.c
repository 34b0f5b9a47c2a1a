/* SPDX-License-Identifier: MIT
 *
 * crash_data: calls that change what files hold and what they take, on the store and on the model of crash_util.h.
 */
#include "tests/unit/crash_int.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <sys/stat.h>

static uint64_t work_some_offset(struct work *w, const struct model_node *n)
{
	switch (work_random(w, 6)) {
	case 0:
		return 0;
	case 1:
		return n->a.size;
	case 2:
		return work_random(w, 40) << BLOCK_SHIFT;
	case 3:
		return (1 + work_random(w, 16)) * (BLOCK_SIZE / 4) + work_random(w, 3) - 1;
	case 4:
		return work_chance(w, 5) ? 1ull << (20 + work_random(w, 42)) : work_random(w, 200000);
	default:
		return work_random(w, n->a.size + 1);
	}
}

int work_truncate(struct work *w, uint64_t ino, uint64_t to)
{
	const struct model_node *f = node_get(w, ino);
	struct keys_setattr set = { .mask = KEYS_SET_SIZE, .size = to };
	struct model_node *n;
	struct keys_attr a;
	int r;

	work_say(w, "truncate %llu from %llu to %llu", (unsigned long long)ino, (unsigned long long)f->a.size,
	    (unsigned long long)set.size);
	w->expected = 0;
	r = keys_setattr(w->k, ino, &set, &a);
	if (!work_was_committed(w, r))
		return r;
	n = node_edit(w, ino);
	if (set.size <= n->a.size)
		node_punch(w, n, set.size, KEYS_SIZE_MAX);
	n->a.size = set.size;
	model_touch(w, n, true);
	work_step_state(w);
	return r;
}

int work_op_truncate(struct work *w)
{
	uint64_t ino = work_pick_file(w);
	const struct model_node *f = node_get(w, ino);

	if (!f)
		return 0;
	return work_truncate(w, ino, work_chance(w, 20) ? 0 : work_chance(w, 20) ? f->a.size : work_some_offset(w, f));
}

void model_written(struct work *w, uint64_t ino, uint64_t off, const uint8_t *data, size_t len, unsigned kill)
{
	struct model_node *n = node_edit(w, ino);

	node_write(w, n, off, data, len);
	if (kill)
		model_kill_privileges(n, kill & KEYS_KILL_SGID);
	n->a.size = max_u64(n->a.size, off + len);
	model_touch(w, n, true);
	work_step_state(w);
}

static size_t some_length(struct work *w)
{
	static const unsigned big[WORK_PROFILES] = { 25, 3, 70, 40, 5, 60, 10, 40, 30, 25, 60 };
	bool fills = w->profile == WORK_FULL || w->profile == WORK_GROW;

	if (work_chance(w, big[w->profile]))
		return 4097 + (size_t)work_random(w, work_chance(w, 10) ? 400000 : fills ? 150000 : 40000);
	return 1 + (size_t)work_random(w, work_chance(w, 50) ? 100 : 4096);
}

void work_remember(struct work *w, uint64_t ino, uint64_t off, const uint8_t *data, size_t len)
{
	uint8_t *copy;

	if (len <= BLOCK_SIZE)
		return;
	copy = work_keep(w, len);
	memcpy(copy, data, len);
	w->big[w->big_next++ % WORK_LOST] = (struct work_lost){ w->states[work_now(w)].seq, ino, off, len, copy };
}

int work_write(struct work *w, uint64_t ino, uint64_t off, const uint8_t *data, size_t len, unsigned kill)
{
	const struct model_node *f = node_get(w, ino);
	size_t done = 0;
	int r;

	work_say(w, "write %zu bytes at %llu of %llu (size %llu)%s", len, (unsigned long long)off, (unsigned long long)ino,
	    (unsigned long long)f->a.size, kill ? ", kill" : "");
	w->expected = 0;
	r = keys_write(w->k, ino, off, data, len, kill, &done);
	if (r == 0 && done != len)
		work_disagree(w, "a short write");
	if (!work_was_committed(w, r))
		return r;
	model_written(w, ino, off, data, len, kill);
	work_remember(w, ino, off, data, len);
	return r;
}

int work_retry(struct work *w)
{
	seq_t now_at = w->states[work_now(w)].seq;
	struct work_lost *first = NULL;
	unsigned i;

	for (i = 0; i < WORK_LOST; i++)
		if (w->big[i].seq > now_at && (!first || w->big[i].seq < first->seq))
			first = &w->big[i];
	/* What comes behind it is not done again, and not lost twice. */
	for (i = 0; i < WORK_LOST; i++)
		if (w->big[i].seq > now_at)
			w->big[i].seq = 0;
	if (!first || !node_get(w, first->ino) || !S_ISREG(node_get(w, first->ino)->a.mode))
		return 0;
	work_begin(w);
	if (!store_is_replica(keys_store(w->k)))
		return work_write(w, first->ino, first->off, first->data, first->len, 0);
	return work_can_receive(first->off, first->len) ? work_receive(w, first->ino, first->off, first->data, first->len) : 0;
}

int work_op_write(struct work *w)
{
	static uint8_t data[KEYS_WRITE_MAX];
	uint64_t ino = work_pick_file(w), off;
	const struct model_node *f = node_get(w, ino);
	unsigned kill = work_chance(w, 20) ? KEYS_KILL_PRIV | (work_chance(w, 30) ? KEYS_KILL_SGID : 0u) : 0;
	size_t len;

	if (!f)
		return 0;
	len = some_length(w);
	off = work_some_offset(w, f);
	if (work_chance(w, 10)) {
		off &= ~(uint64_t)(BLOCK_SIZE - 1);
		len = (size_t)align_up(len, BLOCK_SIZE);
	}
	work_bytes(w, data, len);
	return work_write(w, ino, off, data, len, kill);
}

/* Two files whose blocks alternate: what the second of them gives back stands alone. */
static void fill_crumbs(struct work *w)
{
	static const char *const names[] = { "bread", "crumbs" };
	static uint8_t data[2 * BLOCK_SIZE];
	uint64_t ino[2];
	unsigned i;
	int r = 0;

	for (i = 0; i < 2; i++) {
		work_begin(w);
		check(work_make(w, KEYS_ROOT_INO, names[i], S_IFREG | 0644, 0) == 0);
		ino[i] = work_lookup(w, KEYS_ROOT_INO, names[i], S_IFREG);
	}
	for (i = 0; r == 0; i ^= 1) {
		work_begin(w);
		work_bytes(w, data, sizeof data);
		r = work_write(w, ino[i], node_get(w, ino[i])->a.size, data, sizeof data, 0);
	}
}

int work_free_crumbs(struct work *w)
{
	uint64_t ino = work_lookup(w, KEYS_ROOT_INO, "crumbs", S_IFREG), size = ino ? node_get(w, ino)->a.size : 0;
	uint64_t part = (160 + work_random(w, 60)) * 2 * BLOCK_SIZE;

	work_begin(w);
	return size > part ? work_truncate(w, ino, size - part) : 0;
}

void work_fill(struct work *w, bool crumbs)
{
	static uint8_t data[300000];
	int r = 0;

	if (crumbs) {
		fill_crumbs(w);
		return;
	}
	while (r != -ENOSPC) {
		uint64_t ino = work_pick_file(w);

		work_begin(w);
		if (ino == 0 || node_get(w, ino)->a.size > 1000000) {
			r = work_op_make(w);
			continue;
		}
		work_bytes(w, data, sizeof data);
		r = work_write(w, ino, node_get(w, ino)->a.size, data, sizeof data, 0);
	}
}

int work_op_copy(struct work *w)
{
	static uint8_t data[400000 + BLOCK_SIZE];
	uint64_t src = work_pick_file(w), dst = work_pick_file(w), from, to, at;
	const struct model_node *s = node_get(w, src), *d = node_get(w, dst);
	size_t len = some_length(w), done = 0;
	int r;

	if (!s || !d)
		return 0;
	from = work_some_offset(w, s);
	to = work_some_offset(w, d);
	len = from < s->a.size ? (size_t)min_u64(len, s->a.size - from) : 0;
	work_say(w, "copy %zu bytes at %llu of %llu to %llu of %llu", len, (unsigned long long)from, (unsigned long long)src,
	    (unsigned long long)to, (unsigned long long)dst);
	if (len > sizeof data - BLOCK_SIZE)
		return 0;
	for (at = from; at < from + len; ) {
		size_t part = (size_t)min_u64(from + len - at, BLOCK_SIZE - (at & (BLOCK_SIZE - 1)));
		uint8_t block[BLOCK_SIZE];

		block_read(s, at >> BLOCK_SHIFT, block);
		memcpy(data + (at - from), block + (at & (BLOCK_SIZE - 1)), part);
		at += part;
	}
	w->expected = 0;
	r = keys_copy_range(w->k, src, from, dst, to, len, 0, &done);
	if (len == 0) {
		if (work_settle(w, r) != 0 || done != 0)
			work_disagree(w, "a copy of nothing made a record");
		return r;
	}
	if (r == 0 && done != len)
		work_disagree(w, "a short copy");
	if (work_was_committed(w, r))
		model_written(w, dst, to, data, len, 0);
	return r;
}

/* Blocks for the holes in [at, end), as many as the store says it gave. */
static void model_allocate(struct work *w, struct model_node *n, uint64_t at, uint64_t end, uint64_t limit)
{
	for (; at < end && n->a.blocks < limit; at++)
		if (!block_get(n, at))
			block_set(w, n, at, NULL);
}

/* The records that preallocation makes, as long as `left` says that there were more. */
static void model_preallocate(struct work *w, uint64_t ino, uint64_t off, uint64_t len, bool keep_size, unsigned left, bool done)
{
	uint64_t at = off >> BLOCK_SHIFT, end = div_up(off + len, BLOCK_SIZE);
	struct keys_attr a = { 0 };
	struct model_node *n;

	if (left > 0 && node_get(w, ino)->inline_len > 0 && end > 1) {
		uint8_t block[BLOCK_SIZE];

		n = node_edit(w, ino);
		block_read(n, 0, block);
		node_write(w, n, 0, block, BLOCK_SIZE);
		work_step_state(w);
		left--;
	}
	if (left == 0)
		return;
	(void)keys_getattr(w->k, ino, &a);
	/* Pieces in several records: what each of them got depends on where free blocks were. */
	for (; left > 1; left--)
		model_push(w, w->states[work_now(w)].seq + 1, true);
	n = node_edit(w, ino);
	/* Contents within the inode stay there. */
	if (end > 1 || n->inline_len == 0)
		n->a.flags &= ~KEYS_ATTR_INLINE;
	if (!(n->a.flags & KEYS_ATTR_INLINE))
		model_allocate(w, n, at, end, done ? UINT64_MAX : a.blocks);
	model_touch(w, n, true);
	if (done && !keep_size && off + len > n->a.size)
		n->a.size = off + len;
	work_step_state(w);
}

int work_fallocate(struct work *w, uint64_t ino, int mode, uint64_t off, uint64_t len)
{
	const struct model_node *f = node_get(w, ino);
	struct model_node *n;
	unsigned left;
	int r;

	work_say(w, "fallocate %x, %llu bytes at %llu of %llu (size %llu, %llu blocks)", mode, (unsigned long long)len,
	    (unsigned long long)off, (unsigned long long)ino, (unsigned long long)f->a.size, (unsigned long long)f->a.blocks);
	w->expected = 0;
	r = keys_fallocate(w->k, ino, mode, off, len, 0);
	left = work_settle(w, r);
	if (r == 0 && left == 0)
		work_disagree(w, "no record was made");
	if (left > 0 && mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		n = node_edit(w, ino);
		node_punch(w, n, off, off + len);
		model_touch(w, n, true);
		work_step_state(w);
		left--;
	}
	if (!(mode & FALLOC_FL_PUNCH_HOLE))
		model_preallocate(w, ino, off, len, mode & FALLOC_FL_KEEP_SIZE, left, r == 0);
	return r;
}

int work_op_fallocate(struct work *w)
{
	static const int modes[] = { 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
				     FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };
	int mode = modes[work_random(w, ARRAY_LEN(modes))];
	uint64_t ino = work_pick_file(w), off, len;
	const struct model_node *f = node_get(w, ino);

	if (!f)
		return 0;
	off = work_random(w, 4) ? work_random(w, f->a.size < 1000000 ? f->a.size + 10000 : 300000) : work_random(w, 30) << BLOCK_SHIFT;
	len = 1 + work_random(w, work_chance(w, 50) ? 5000 : w->profile == WORK_TAIL ? 16000000 : 120000);
	if (work_chance(w, 30))
		len = align_up(len, BLOCK_SIZE);
	return work_fallocate(w, ino, mode, off, len);
}

/* A file that takes most of the store, step by step as that grows; then, with `drop`, it goes. */
int work_bulk(struct work *w, bool drop)
{
	uint64_t ino = work_lookup(w, KEYS_ROOT_INO, "bulk", S_IFREG), size = ino ? node_get(w, ino)->a.size : 0;
	struct keys_statfs fs;

	work_begin(w);
	if (ino == 0)
		return drop ? 0 : work_make(w, KEYS_ROOT_INO, "bulk", S_IFREG | 0644, 0);
	if (drop)
		return work_unlink(w, KEYS_ROOT_INO, "bulk");
	keys_statfs(w->k, &fs);
	fs.bavail = fs.bavail / 8 * 7;
	if (fs.bavail == 0 || size + fs.bavail * BLOCK_SIZE > 120000000)
		return 0;
	return work_fallocate(w, ino, 0, size, fs.bavail * BLOCK_SIZE);
}

int work_behind(struct work *w)
{
	static uint8_t data[60000];
	size_t len = 5000 + (size_t)work_random(w, sizeof data - 5000);
	char name[24];
	uint64_t ino;

	work_begin(w);
	(void)snprintf(name, sizeof name, "behind%u", (unsigned)work_random(w, 3));
	ino = work_lookup(w, KEYS_ROOT_INO, name, S_IFREG);
	if (ino == 0)
		return work_make(w, KEYS_ROOT_INO, name, S_IFREG | 0600, 0);
	work_bytes(w, data, len);
	return work_write(w, ino, work_random(w, 40) << BLOCK_SHIFT, data, len, 0);
}
