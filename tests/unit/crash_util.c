/* SPDX-License-Identifier: MIT
 *
 * crash: which call comes next, what all calls have in common, and those for what no program can name: orphans and epochs. See
 * crash_util.h.
 */
#include "tests/unit/crash_int.h"

#include <stdio.h>
#include <sys/stat.h>

const struct keys_cred work_cred = { 1000, 100, 022 };

static bool work_is_primary(const struct work *w)
{
	struct store_identity id;

	store_identity(keys_store(w->k), &id);
	return id.role == STORE_PRIMARY;
}

/* The call returned r: how many records did it commit? Checks r against what the model expects. */
unsigned work_settle(struct work *w, int r)
{
	seq_t before = w->states[work_now(w)].seq, seq = store_seq(keys_store(w->k));
	int failed = store_failed(keys_store(w->k));
	char text[128];

	if (r == -ENOSPC || r == -EAGAIN)
		w->refused++;
	/* -ESTALE: of a marked orphan that could not be reaped at once. */
	if (r != w->expected && r != -ENOSPC && r != -EAGAIN && r != -ENOMEM &&
	    !(r == -ESTALE && work_is_primary(w)) && !failed) {
		(void)snprintf(text, sizeof text, "returned %d, %d expected: %s", r, w->expected, err_last());
		work_disagree(w, text);
	}
	if (seq < before || (r != 0 && r == w->expected && seq != before))
		work_disagree(w, "the sequence number moved strangely");
	return (unsigned)(seq - before);
}

/* One record of the call that is being made is in the model. */
void work_step_state(struct work *w)
{
	model_push(w, w->states[work_now(w)].seq + 1, false);
}

/* The number that a new inode gets: also if the call fails behind its record, and does not tell. */
uint64_t work_next_ino(const struct work *w)
{
	return store_counts(keys_store(w->k))->next_ino;
}

bool work_was_committed(struct work *w, int r)
{
	unsigned n = work_settle(w, r);

	if (n > 1 || (r == 0 && w->expected == 0 && n != 1))
		work_disagree(w, "one record expected");
	return n == 1;
}

uint64_t work_pick(struct work *w, uint32_t type, bool any)
{
	unsigned i, n = 0;

	for (i = 0; i < w->count; i++)
		n += (any && w->nodes[i]->a.nlink > 0) || (w->nodes[i]->a.mode & S_IFMT) == type;
	if (n == 0)
		return 0;
	n = (unsigned)work_random(w, n);
	for (i = 0; i < w->count; i++)
		if (((any && w->nodes[i]->a.nlink > 0) || (w->nodes[i]->a.mode & S_IFMT) == type) && n-- == 0)
			return w->nodes[i]->a.ino;
	return 0;
}

uint64_t work_pick_dir(struct work *w)
{
	uint64_t ino;

	do
		ino = work_chance(w, 40) ? KEYS_ROOT_INO : work_pick(w, S_IFDIR, false);
	while (node_get(w, ino)->a.nlink == 0);
	return ino;
}

/* Mostly a file with a name; now and then one that was removed while open. */
uint64_t work_pick_file(struct work *w)
{
	return work_pick(w, S_IFREG, false);
}

bool work_pick_name(struct work *w, uint64_t *ret_dir, struct model_name *ret)
{
	unsigned tries;

	for (tries = 0; tries < 8; tries++) {
		const struct model_node *d;

		*ret_dir = work_pick_dir(w);
		d = node_get(w, *ret_dir);
		if (d->name_count > 0) {
			*ret = d->names[work_random(w, d->name_count)];
			return true;
		}
	}
	return false;
}

void work_new_name(struct work *w, char name[24])
{
	(void)snprintf(name, 24, "%c%llu", "abcdefgh"[work_random(w, 8)], (unsigned long long)work_random(w, NAMES_MAX / 4));
	if (work_chance(w, 10))
		name[0] = '\xff';
}

void work_bytes(struct work *w, uint8_t *p, size_t len)
{
	uint64_t how = work_random(w, 8), x = work_random(w, 0);
	size_t i;

	if (how == 0) {
		memset(p, (int)(x & 1 ? 0 : x & 0xff), len);
		return;
	}
	for (i = 0; i < len; i++) {
		if (i % 8 == 0)
			x = x * 6364136223846793005ull + 1442695040888963407ull;
		p[i] = (uint8_t)(x >> 56 >> (how == 1 ? 4 : 0));
	}
}

/* A primary says first that nobody has it open: a change that shows in nothing. */
static int mark(struct work *w, uint64_t ino)
{
	int r;

	if (!work_is_primary(w))
		return 0;
	r = keys_mark_orphan(w->k, ino);
	if (work_settle(w, r) > 0)
		work_step_state(w);
	return r;
}

static int reap(struct work *w, uint64_t ino)
{
	unsigned i;
	int r = 0;

	work_say(w, "reap %llu", (unsigned long long)ino);
	w->reaping = ino;
	w->expected = 0;
	r = mark(w, ino);
	if (r < 0)
		return r;
	/* In one go: a half reaped orphan is none that a program could still have open. */
	for (i = 0; i < PER_REAP; i++) {
		r = keys_reap(w->k, ino);
		if (r != 1)
			break;
		w->expected = 0;
	}
	if (work_settle(w, r) != 0)
		work_disagree(w, "reaping moved the sequence number");
	return r;
}

static int op_reap(struct work *w)
{
	uint64_t ino = 0;
	unsigned i, n = 0;

	for (i = 0; i < w->count; i++)
		if (w->nodes[i]->a.nlink == 0 && work_random(w, ++n) == 0)
			ino = w->nodes[i]->a.ino;
	return ino == 0 ? 0 : reap(w, ino);
}

/* Orphans that the store has no more leave the model: also if the call that removed them went wrong at its end. */
static void follow_reap(struct work *w)
{
	bool failed = store_failed(keys_store(w->k)) != 0;
	unsigned i;

	for (i = 0; i < w->count; i++) {
		uint64_t ino = w->nodes[i]->a.ino, found;

		/* A store that failed then may have the record or not, and so the next one to open it. */
		if (failed && w->reaping == ino) {
			node_remove(w, ino);
			model_push(w, w->states[work_now(w)].seq, false);
			return;
		}

		if (w->nodes[i]->a.nlink > 0 || (keys_next_orphan(w->k, ino, &found) == 0 && found == ino))
			continue;
		node_remove(w, ino);
		model_push(w, w->states[work_now(w)].seq, false);
		return;
	}
}

int work_reap(struct work *w, uint64_t ino)
{
	int r = reap(w, ino);

	follow_reap(w);
	return r;
}

int work_epoch(struct work *w, uint64_t epoch)
{
	int r;

	work_say(w, "epoch %llu", (unsigned long long)epoch);
	w->expected = 0;
	r = keys_begin_epoch(w->k, epoch);
	/* Nothing shows but the numbers of what is made from now on. */
	if (work_was_committed(w, r))
		work_step_state(w);
	return r;
}

int work_forget(struct work *w, uint64_t client)
{
	int r;

	work_say(w, "forget client %llu", (unsigned long long)client);
	w->expected = 0;
	r = keys_forget_client(w->k, client);
	/* Nothing shows. */
	if (r != -ENOENT && work_was_committed(w, r))
		work_step_state(w);
	return r;
}

void work_follow_epoch(struct work *w)
{
	work_step_state(w);
}

static int (*const calls[])(struct work *w) = {
	work_op_make, work_op_symlink, work_op_link, work_op_unlink, work_op_rename, work_op_setattr, work_op_truncate, work_op_write, work_op_copy, work_op_fallocate,
	work_op_setxattr, work_op_removexattr, work_op_atime, op_reap, work_op_acl,
};

/* How often, by profile. */
static const unsigned char weights[WORK_PROFILES][ARRAY_LEN(calls)] = {
	[WORK_MIXED] = { 10, 2, 3, 6, 6, 6, 8, 30, 5, 10, 6, 3, 2, 5, 5 },
	[WORK_SMALL] = { 6, 1, 1, 2, 1, 2, 6, 60, 4, 6, 3, 1, 1, 2, 1 },
	[WORK_BIG]   = { 6, 1, 1, 4, 2, 1, 8, 60, 8, 6, 1, 1, 1, 5, 1 },
	[WORK_SPACE] = { 6, 1, 1, 3, 1, 1, 15, 40, 4, 40, 1, 1, 1, 4, 1 },
	[WORK_NAMES] = { 30, 6, 10, 15, 25, 6, 2, 8, 1, 1, 10, 6, 3, 12, 10 },
	[WORK_FULL]  = { 6, 1, 1, 3, 2, 1, 3, 60, 10, 20, 4, 1, 1, 4, 1 },
	[WORK_JOURNAL] = { 6, 1, 2, 4, 4, 2, 2, 30, 1, 2, 60, 1, 1, 4, 1 },
	[WORK_GROW]  = { 6, 1, 1, 2, 2, 1, 2, 50, 6, 6, 60, 1, 1, 3, 1 },
	[WORK_TAIL]  = { 8, 1, 1, 14, 2, 1, 6, 20, 2, 14, 3, 1, 1, 14, 1 },
	[WORK_PROGRAMS] = { 10, 2, 3, 6, 6, 6, 8, 30, 5, 10, 6, 3, 2, 5, 4 },
	[WORK_REPLICA] = { 10, 1, 2, 4, 2, 2, 6, 40, 4, 16, 2, 1, 1, 5, 2 },
};

void work_begin(struct work *w)
{
	w->ops++;
	w->real_ns += 1 + work_random(w, 2000000000);
	w->mono_ns += 1 + work_random(w, 300000000);
	w->text[0] = '\0';
}

uint64_t work_lookup(const struct work *w, uint64_t dir, const char *name, uint32_t type)
{
	const struct model_node *d = node_get(w, dir);
	const struct model_name *e = d ? name_find(d, name) : NULL;

	return e && (type == 0 || e->type == type) ? e->ino : 0;
}

uint64_t work_size(const struct work *w, uint64_t ino)
{
	return node_get(w, ino)->a.size;
}

uint64_t work_orphan(const struct work *w)
{
	unsigned i;

	for (i = 0; i < w->count && w->nodes[i]->a.nlink > 0; i++)
		;
	return i < w->count ? w->nodes[i]->a.ino : 0;
}

int work_step(struct work *w)
{
	unsigned sum = 0, i, at;
	int r;

	work_begin(w);
	for (i = 0; i < ARRAY_LEN(calls); i++)
		sum += weights[w->profile][i];
	at = (unsigned)work_random(w, sum);
	for (i = 0; at >= weights[w->profile][i]; i++)
		at -= weights[w->profile][i];
	if (w->count >= w->max_nodes && (calls[i] == work_op_make || calls[i] == work_op_symlink))
		i = work_chance(w, 50) ? 3 : 13;
	r = calls[i](w);
	if (calls[i] == op_reap)
		follow_reap(w);
	return r;
}
