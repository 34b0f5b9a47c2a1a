/* SPDX-License-Identifier: MIT
 *
 * diff_target: the side that becomes equal. Ranges of the source's keys come in; where its own digest is another, it asks
 * for the keys, then for the items that differ, for windows first what their blocks are, then for bytes. Questions wait in
 * a list for each kind; what was asked stands in one more list, in the order in which the answers come.
 *
 *   RANGES --differs--> KEYS --only here--> delete it
 *                        |  --item is new or differs--> ITEM --times of a file differ--> DEEP --bytes differ--> DESC
 *                        |  --window is new--> DATA
 *                        `  --window differs--> DESC --bytes are missing--> DATA
 *
 * DEEP: where an inode's times say that it was written, equal checksums of 32 bits do not prove that its blocks did not
 * change: then windows that seem equal are compared by 64-bit digests of their bytes.
 * (D1) The store's tree is changed only by diff_target_apply(), or in direct mode by edit(), whose work is repeatable.
 * (D2) Blocks of an edit are staged (not in use in any bitmap) until the edit is made.
 * (D3) In direct mode an inode whose contents are still to be compared is put by diff_target_apply(): after an interruption
 * it differs as before, and the comparison is made anew.
 */
#include "core/replica/diff_wire.h"

#include "core/keys/edit.h"
#include "core/keys/keys_int.h"
#include "core/replica/stage.h"
#include "core/store/store.h"

#include <stdlib.h>

#define STEP_UNITS     64u              /* little things done in one step */
#define STEP_ITEMS     256u             /* own items digested in one unit */
#define QUEUE_MAX      (16u << 20)      /* bytes of messages that wait */
#define RANGES_AHEAD   2u               /* messages of RANGES asked for before they are needed */
#define UNDER_WAY_MAX  (4u << 20)       /* bytes of answers asked for, about */
#define ASK_MAX        16384u           /* bytes of one ASK */
#define ASK_ROOM       96u              /* one question at most */
#define TODO_KEYS_MAX  2048u            /* ranges that wait: no more are looked at */
#define TODO_OTHER_MAX 4096u            /* other questions that wait: no more KEYS are asked for */
#define SEQ_MAX        (1ull << 61)

/* A question. */
struct want {
	enum diff_what what;
	struct key key, end;                    /* end: of KEYS */
	uint8_t bits[WINDOW_BLOCKS / 8];        /* of DATA */
};

struct wants {
	struct want *v;
	size_t first, count, room;
};

/* What was begun and goes on in the next unit. */
enum doing { DO_NOTHING, DO_KEYS, DO_DEEP, DO_DATA };

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): in the order of the work; there is one of it */
struct diff_target {
	struct keys *k;
	struct store *store;
	struct diff_target_options o;
	int failed;
	uint64_t commits;                       /* of the store, at the beginning */
	/* BEGIN */
	bool begun;
	uint64_t seed, next_ino, hash_seed;
	uint64_t highest_ino;                   /* put so far */
	/* ranges */
	struct diff_queue ranges;
	unsigned credit;                        /* messages of RANGES that were asked for and did not come */
	size_t ranges_at;                       /* how far the first is looked at; 0: not at all */
	unsigned ranges_left;                   /* in it */
	bool ranges_last, ranges_done;
	struct key range_from, range_end;
	uint64_t range_digest, own_digest;
	unsigned range_items;
	uint64_t own_items;
	bool in_range;
	struct logical_walk walk;
	/* answers */
	struct diff_queue answers;
	size_t answers_at;
	enum doing doing;
	struct want now;                        /* the question that is being answered */
	struct logical_walk look;
	struct key own_key;                     /* KEYS: the own item at hand */
	uint64_t own_item;                      /* its digest */
	bool has_own, own_end;
	unsigned n, i;                          /* KEYS: the source's; DEEP: windows left */
	struct { struct key key; uint64_t digest; } key[DIFF_RANGE_ITEMS];
	uint64_t deep_at;                       /* DEEP: window before */
	unsigned blocks_left, block_next;       /* DATA */
	bool data_complete;
	struct window window, plan;
	/* questions */
	struct wants todo[DIFF_DATA + 1], asked;
	uint64_t under_way;
	/* messages out */
	uint8_t ask[ASK_MAX];
	size_t ask_len;
	bool end_sent;
	/* edits */
	struct stage stage;
	struct edit_size size;
	bool applied;
	uint64_t told_ino;
	struct diff_progress progress;
};

static int hostile(const char *what)
{
	(void)err_set(EPROTO, "diff: the primary sent %s that cannot be", what);
	return -EPROTO;
}

/* Questions -------------------------------------------------------------------------------------------------------- */

static int wants_add(struct wants *q, const struct want *w)
{
	if (q->count == q->room) {
		size_t room = q->room ? 2 * q->room : 64, i;
		struct want *v = malloc(room * sizeof *v);

		if (!v)
			return -ENOMEM;
		for (i = 0; i < q->count; i++)
			v[i] = q->v[(q->first + i) % q->room];
		free(q->v);
		*q = (struct wants){ v, 0, q->count, room };
	}
	q->v[(q->first + q->count++) % q->room] = *w;
	return 0;
}

static struct want wants_take(struct wants *q)
{
	struct want w = q->v[q->first];

	q->first = (q->first + 1) % q->room;
	q->count--;
	return w;
}

static int want(struct diff_target *t, enum diff_what what, struct key key)
{
	struct want w = { .what = what, .key = key };

	memset(w.bits, 0xff, sizeof w.bits);
	return wants_add(&t->todo[what], &w);
}

static unsigned bits_set(const uint8_t *bits)
{
	unsigned i, n = 0;

	for (i = 0; i < WINDOW_BLOCKS / 8; i++)
		n += (unsigned)__builtin_popcount(bits[i]);
	return n;
}

/* About what the answer is long; DEEP counts for the reading that it means. */
static uint64_t cost(const struct want *w)
{
	switch (w->what) {
	case DIFF_KEYS:
		return 512;
	case DIFF_ITEM:
		return LOGICAL_MAX;
	case DIFF_DEEP:
		return 65536;
	case DIFF_DESC:
		return 4096;
	default:
		return 1024 + (uint64_t)bits_set(w->bits) * (BLOCK_SIZE + 4);
	}
}

/* Items first, so that an inode is there before its contents; KEYS last, so that what they lead to does not pile up. */
static bool next_question(struct diff_target *t, struct want *ret)
{
	static const enum diff_what order[] = { DIFF_ITEM, DIFF_DATA, DIFF_DESC, DIFF_DEEP, DIFF_KEYS };
	size_t waiting = 0;
	unsigned i;

	for (i = 0; i < ARRAY_LEN(order); i++) {
		struct wants *q = &t->todo[order[i]];

		if (order[i] == DIFF_KEYS && waiting > TODO_OTHER_MAX)
			return false;
		waiting += q->count;
		if (q->count == 0)
			continue;
		if (t->under_way > 0 && t->under_way + cost(&q->v[q->first]) > UNDER_WAY_MAX)
			return false;
		*ret = wants_take(q);
		return true;
	}
	return false;
}

static uint8_t *put_question(uint8_t *p, const struct want *w)
{
	p = diff_put_u8(p, (uint8_t)w->what);
	switch (w->what) {
	case DIFF_KEYS:
		p = diff_put_key(p, w->key, (struct key){ 0, 0 });
		return diff_put_key(p, w->end, w->key);
	case DIFF_ITEM:
		return diff_put_key(p, w->key, (struct key){ 0, 0 });
	case DIFF_DATA:
		p = diff_put_window(p, w->key);
		p = diff_put_u8(p, bits_set(w->bits) == WINDOW_BLOCKS);
		if (bits_set(w->bits) == WINDOW_BLOCKS)
			return p;
		memcpy(p, w->bits, sizeof w->bits);
		return p + sizeof w->bits;
	default:
		return diff_put_window(p, w->key);
	}
}

/* Fill the message of questions. They count as asked from here on: the message only waits for `send`. */
static int make_ask(struct diff_target *t)
{
	uint8_t *p = t->ask;
	struct want w;
	int r = 0;

	while (r == 0 && p - t->ask + ASK_ROOM < (ptrdiff_t)sizeof t->ask && next_question(t, &w)) {
		p = put_question(p, &w);
		t->under_way += cost(&w);
		r = wants_add(&t->asked, &w);
	}
	t->ask_len = (size_t)(p - t->ask);
	return r;
}

static int send(struct diff_target *t, enum diff_type type, const void *bytes, size_t len)
{
	int r = t->o.send(t->o.ctx, type, bytes, len);

	if (r == 0)
		t->progress.sent_bytes += len;
	return r;
}

/* Everything that can be said now. -EAGAIN. */
static int talk(struct diff_target *t)
{
	const uint8_t one = 1;
	int r = 0;

	while (r == 0 && t->begun && !t->ranges_done && !t->ranges_last && t->credit + t->ranges.count < RANGES_AHEAD) {
		r = send(t, DIFF_MORE, &one, 1);
		t->credit += r == 0;
	}
	while (r == 0) {
		if (t->ask_len == 0)
			r = make_ask(t);
		if (r < 0 || t->ask_len == 0)
			break;
		r = send(t, DIFF_ASK, t->ask, t->ask_len);
		if (r == 0)
			t->ask_len = 0;
	}
	return r;
}

/* Edits ------------------------------------------------------------------------------------------------------------ */

static void tell(struct diff_target *t, uint64_t ino, const char *name, uint32_t len)
{
	struct diff_change c = { .ino = ino, .name = name, .len = len };

	if (!t->o.changed || (!name && ino == t->told_ino))
		return;
	t->told_ino = name ? 0 : ino;
	t->o.changed(t->o.ctx, &c);
}

/* The entry that stands at this key. False: none that could be read. */
static bool old_entry(struct diff_target *t, struct key key, char name[KEYS_NAME_MAX], struct dirent *ret)
{
	const uint8_t *v;
	uint32_t len;

	if (tree_get(t->k->tree, key, &v, &len) < 0 || dirent_decode(v, len, key, ret) < 0)
		return false;
	memcpy(name, ret->name, ret->len);
	ret->name = name;
	return true;
}

static void tell_edit(struct diff_target *t, const struct stage_edit *e)
{
	uint64_t ino = e->key.hi >> 8;
	char name[KEYS_NAME_MAX];
	struct dirent old, now;
	bool had;

	if (!t->o.changed || ino == 0)
		return;
	if ((e->key.hi & 0xff) != ITEM_DIRENT) {
		tell(t, ino, NULL, 0);
		return;
	}
	had = old_entry(t, e->key, name, &old);
	if (e->kind == STAGE_PUT && dirent_decode(e->value, e->len, e->key, &now) == 0) {
		if (had && old.len == now.len && memcmp(old.name, now.name, now.len) == 0)
			had = false;
		tell(t, ino, now.name, now.len);
	}
	if (had)
		tell(t, ino, old.name, old.len);
}

static int make_edit(struct diff_target *t, const struct stage_edit *e)
{
	int r;

	tell_edit(t, e);
	switch (e->kind) {
	case STAGE_PUT:
		return edit_put(t->k, e->key, e->value, e->len);
	case STAGE_DEL:
		r = edit_del(t->k, e->key);
		return r == -ENOENT ? 0 : r;
	default:
		return edit_window(t->k, e->key.hi >> 8, e->key.lo, e->window);
	}
}

static void add_size(struct edit_size *size, const struct stage_edit *e)
{
	if (e->kind == STAGE_WINDOW)
		edit_size_window(size, e->window);
	else
		edit_size_put(size, e->len);
}

/* An edit is known: it is kept for later, or made. -EAGAIN (direct): nothing was done. */
static int edit(struct diff_target *t, const struct stage_edit *e, bool later)
{
	struct edit_size size = { 0 };
	int r;

	if (!t->o.direct || later) {
		r = stage_add(&t->stage, e);
		if (r == 0)
			add_size(&t->size, e);
	} else {
		add_size(&size, e);
		r = store_reserve(t->store, edit_blocks(t->k, &size, 0), false);
		if (r < 0)
			return r;
		r = make_edit(t, e);
		if (r < 0)
			store_broken(t->store, r);
	}
	if (r == 0)
		t->progress.items_differ++;
	return r;
}

static int delete(struct diff_target *t, struct key key)
{
	struct stage_edit e = { .kind = STAGE_DEL, .key = key };

	if (edit_check_del(key) < 0)
		return hostile("a state without a root");
	if (logical_is_window(key)) {
		memset(t->plan.kind, WINDOW_HOLE, sizeof t->plan.kind);
		e.kind = STAGE_WINDOW;
		e.window = &t->plan;
	}
	return edit(t, &e, false);
}

/* Ranges ----------------------------------------------------------------------------------------------------------- */

/* Begin the next message. */
static int open_ranges(struct diff_target *t)
{
	const struct diff_message *m = t->ranges.first;

	if (m->len < 3 || m->bytes[0] > DIFF_RANGES_LAST || get_le16(m->bytes + 1) == 0)
		return hostile("ranges");
	t->ranges_last = m->bytes[0];
	t->ranges_left = get_le16(m->bytes + 1);
	t->ranges_at = 3;
	return 0;
}

/* Read the next range; the walk over the own items begins. */
static int next_range(struct diff_target *t)
{
	const struct diff_message *m = t->ranges.first;
	struct wire_reader q = { m->bytes + t->ranges_at, m->bytes + m->len, false };
	bool last = t->ranges_last && t->ranges_left == 1;

	t->range_end = last ? LOGICAL_END : diff_get_key(&q, t->range_from);
	t->range_digest = wire_get_u64(&q);
	t->range_items = wire_get_u8(&q);
	if (q.bad || t->range_items > DIFF_RANGE_ITEMS || !logical_is_bound(t->range_end) ||
	    key_cmp(t->range_end, t->range_from) <= 0 || (!last && key_cmp(t->range_end, LOGICAL_END) == 0))
		return hostile("ranges");
	t->ranges_at = (size_t)(q.p - m->bytes);
	t->own_digest = t->seed;
	t->own_items = 0;
	t->in_range = true;
	/* Most ranges follow each other in the walk as well; a key that ended one begins the next. */
	t->walk.at = t->range_from;
	t->walk.ino = 0;
	return 0;
}

static int end_range(struct diff_target *t)
{
	struct want w = { .what = DIFF_KEYS, .key = t->range_from, .end = t->range_end };
	int r = 0;

	t->in_range = false;
	t->progress.ranges++;
	t->progress.items += max_u64(t->own_items, t->range_items);
	if (t->own_digest != t->range_digest || t->own_items != t->range_items) {
		t->progress.ranges_differ++;
		r = wants_add(&t->todo[DIFF_KEYS], &w);
	}
	t->range_from = t->range_end;
	if (--t->ranges_left > 0)
		return r;
	if (t->ranges_at != t->ranges.first->len)
		return hostile("ranges");
	t->ranges_done = t->ranges_last;
	diff_queue_drop(&t->ranges);
	t->ranges_at = 0;
	if (t->ranges_done && t->ranges.first)
		return hostile("ranges behind the last");
	return r;
}

/* Some own items of a range. 1: something was done; 0: there is nothing to do. */
static int work_ranges(struct diff_target *t)
{
	struct logical_item item;
	unsigned n;
	int r = 0;

	if (!t->ranges.first || t->todo[DIFF_KEYS].count >= TODO_KEYS_MAX)
		return 0;
	if (t->ranges_at == 0)
		r = open_ranges(t);
	if (r == 0 && !t->in_range)
		r = next_range(t);
	for (n = 0; r >= 0 && n < STEP_ITEMS; n++) {
		r = logical_next(&t->walk, t->range_end, &item);
		if (r <= 0)
			break;
		t->own_digest = diff_chain(t->own_digest, item.key, logical_digest(&item, t->seed));
		t->own_items++;
		if (!item.window)
			t->progress.done_bytes += item.len;
		else
			t->progress.done_bytes += BLOCK_SIZE; /* the rest is counted as it is compared or comes */
	}
	if (r == 0)
		r = end_range(t);
	return r < 0 ? r : 1;
}

/* KEYS ------------------------------------------------------------------------------------------------------------- */

static int open_keys(struct diff_target *t, struct wire_reader *q)
{
	struct key before = t->now.key;
	unsigned i;

	t->n = wire_get_u8(q);
	if (t->n > DIFF_RANGE_ITEMS)
		return hostile("keys");
	for (i = 0; i < t->n; i++) {
		struct key k = diff_get_key(q, before);

		if (q->bad || !logical_key_valid(k) || (i > 0 && key_cmp(k, before) <= 0) ||
		    (key_cmp(t->now.end, LOGICAL_END) != 0 && key_cmp(k, t->now.end) >= 0))
			return hostile("keys");
		t->key[i].key = before = k;
		t->key[i].digest = wire_get_u64(q);
	}
	t->i = 0;
	t->has_own = t->own_end = false;
	logical_begin(&t->look, t->k, t->now.key);
	t->doing = DO_KEYS;
	return q->bad ? hostile("keys") : 0;
}

/* The next own item, or the source's, whichever comes first. */
static int work_keys(struct diff_target *t)
{
	struct logical_item own;
	bool ours, theirs;
	int r, order;

	if (!t->has_own && !t->own_end) {
		r = logical_next(&t->look, t->now.end, &own);
		if (r < 0)
			return r;
		t->has_own = r > 0;
		t->own_key = r > 0 ? own.key : LOGICAL_END;
		t->own_item = r > 0 ? logical_digest(&own, t->seed) : 0;
		t->own_end = r == 0;
	}
	if (!t->has_own && t->i == t->n) {
		t->doing = DO_NOTHING;
		return 0;
	}
	order = !t->has_own ? 1 : t->i == t->n ? -1 : key_cmp(t->own_key, t->key[t->i].key);
	ours = order <= 0;
	theirs = order >= 0;
	if (!theirs)
		r = delete(t, t->own_key);
	else if (ours && t->own_item == t->key[t->i].digest)
		r = 0;
	else if (logical_is_window(t->key[t->i].key))
		r = want(t, ours ? DIFF_DESC : DIFF_DATA, t->key[t->i].key);
	else
		r = want(t, DIFF_ITEM, t->key[t->i].key);
	if (r < 0)
		return r;
	t->i += theirs;
	if (ours)
		t->has_own = false;
	return 0;
}

/* ITEM ------------------------------------------------------------------------------------------------------------- */

static bool same_time(struct keys_time a, struct keys_time b)
{
	return a.sec == b.sec && a.nsec == b.nsec;
}

/* Was the file written, as far as the inodes tell, and are there own windows that may have changed? */
static int needs_deep(struct diff_target *t, uint64_t ino, const uint8_t *value, uint32_t len, bool *ret)
{
	struct keys_attr now, own;
	uint64_t unused;
	int r = inode_get(t->k, ino, &own);

	*ret = false;
	if (r == 0)
		r = inode_decode(value, len, ino, &now);
	if (r == 0 && same_time(now.mtime, own.mtime) && same_time(now.ctime, own.ctime) && now.size == own.size)
		return 0;
	if (r == 0)
		r = window_find(t->k, ino, 0, &unused);
	*ret = r == 0;
	return r == -ENOENT ? 0 : r;
}

static int take_item(struct diff_target *t, struct wire_reader *q)
{
	struct stage_edit e = { .kind = STAGE_PUT, .key = t->now.key };
	uint64_t ino = e.key.hi >> 8;
	bool deep = false;
	int r;

	e.len = wire_get_u16(q);
	if (e.len == DIFF_NO_ITEM || e.len > LOGICAL_MAX)
		return hostile("an item");
	e.value = wire_get_fixed(q, e.len);
	if (!e.value || edit_check(e.key, e.value, e.len) < 0)
		return hostile("an item");
	if (ino != 0 && (e.key.hi & 0xff) == ITEM_INODE) {
		r = needs_deep(t, ino, e.value, e.len, &deep);
		if (r < 0)
			return r;
		t->highest_ino = max_u64(t->highest_ino, ino);
	}
	r = edit(t, &e, deep);                  /* (D3) */
	if (r == 0 && deep)
		r = want(t, DIFF_DEEP, item_key(ino, ITEM_EXTENT, 0));
	if (r == 0)
		t->progress.done_bytes += e.len;
	return r;
}

/* DEEP ------------------------------------------------------------------------------------------------------------- */

/* One window. Those whose kinds or checksums differ are found by KEYS. */
static int work_deep(struct diff_target *t)
{
	const struct diff_message *m = t->answers.first;
	struct wire_reader q = { m->bytes + t->answers_at, m->bytes + m->len, false };
	struct key key = { t->now.key.hi, 0 };
	uint64_t digest, deep, own, next, step;
	int r;

	if (t->i == t->n) {
		bool more = wire_get_u8(&q) == 1;

		if (q.bad || (more && t->n == 0))
			return hostile("digests");
		t->answers_at = (size_t)(q.p - m->bytes);
		t->doing = DO_NOTHING;
		key.lo = t->deep_at + WINDOW_BLOCKS;
		return more && key.lo <= WINDOW_LAST ? want(t, DIFF_DEEP, key) : 0;
	}
	step = wire_get_var(&q);
	digest = wire_get_u64(&q);
	deep = wire_get_u64(&q);
	if (q.bad || (step == 0 && t->i > 0) || step > (WINDOW_LAST - t->deep_at) / WINDOW_BLOCKS)
		return hostile("digests");
	key.lo = t->deep_at + step * WINDOW_BLOCKS;
	r = window_get(t->k, key.hi >> 8, key.lo, &t->window, &next);
	if (r == 0 && window_digest(&t->window, t->seed) == digest) {
		r = window_deep_digest(t->k, &t->window, t->seed, &own);
		if (r == 0 && own != deep)
			r = want(t, DIFF_DESC, key);
	}
	if (r < 0)
		return r;
	t->deep_at = key.lo;
	t->i++;
	t->answers_at = (size_t)(q.p - m->bytes);
	return 0;
}

/* DESC ------------------------------------------------------------------------------------------------------------- */

static int window_edit(struct diff_target *t, struct key key, const struct window *w)
{
	struct stage_edit e = { .kind = STAGE_WINDOW, .key = key, .window = w };

	return edit(t, &e, false);
}

/* What the source has, block by block: what is equal stays, other bytes are asked for. */
static int take_desc(struct diff_target *t, struct wire_reader *q)
{
	struct want w = { .what = DIFF_DATA, .key = t->now.key };
	uint64_t next, same = 0;
	unsigned i;
	int r = window_get(t->k, t->now.key.hi >> 8, t->now.key.lo, &t->window, &next);

	if (r < 0)
		return r;
	diff_get_layout(q, t->plan.kind);
	for (i = 0; i < WINDOW_BLOCKS && !q->bad; i++) {
		const uint8_t *bytes;
		uint64_t digest;
		uint32_t csum;

		if (t->plan.kind[i] != WINDOW_DATA)
			continue;
		csum = wire_get_u32(q);
		digest = wire_get_u64(q);
		t->plan.kind[i] = WINDOW_KEEP;
		if (t->window.kind[i] == WINDOW_DATA && t->window.csum[i] == csum) {
			bytes = window_bytes(t->k, &t->window, i, &r);
			if (!bytes)
				return r;
			if (hash64(bytes, BLOCK_SIZE, t->seed) == digest) {
				same++;
				continue;
			}
		}
		w.bits[i / 8] |= (uint8_t)(1u << (i % 8));
	}
	if (q->bad)
		return hostile("a window");
	r = bits_set(w.bits) > 0 ? wants_add(&t->todo[DIFF_DATA], &w) : window_edit(t, t->now.key, &t->plan);
	if (r == 0)
		t->progress.done_bytes += same * BLOCK_SIZE;
	return r;
}

/* DATA ------------------------------------------------------------------------------------------------------------- */

static int open_data(struct diff_target *t, struct wire_reader *q)
{
	unsigned i;

	diff_get_layout(q, t->plan.kind);
	if (q->bad)
		return hostile("a window");
	t->blocks_left = t->block_next = 0;
	for (i = 0; i < WINDOW_BLOCKS; i++) {
		if (t->plan.kind[i] != WINDOW_DATA)
			continue;
		/* Marked as data when its bytes are here: what is staged is known at any time. */
		t->plan.kind[i] = WINDOW_KEEP;
		t->window.kind[i] = diff_bit(t->now.bits, i) ? WINDOW_DATA : WINDOW_KEEP;
		t->blocks_left += diff_bit(t->now.bits, i);
	}
	t->doing = DO_DATA;
	return 0;
}

/* What a BLOCKS says. */
struct blocks {
	unsigned n;
	uint64_t damaged;
	const uint8_t *csums, *bytes;
};

static int get_blocks(struct diff_target *t, struct wire_reader *q, struct blocks *ret)
{
	if (wire_get_u8(q) != DIFF_BLOCKS)
		return hostile("something else than blocks");
	ret->n = wire_get_u8(q);
	ret->damaged = wire_get_u64(q);
	ret->csums = wire_get_fixed(q, (size_t)4 * ret->n);
	ret->bytes = wire_get_fixed(q, (size_t)ret->n * BLOCK_SIZE);
	if (q->bad || ret->n == 0 || ret->n > DIFF_BLOCKS_MAX || ret->n > t->blocks_left)
		return hostile("blocks");
	return 0;
}

/* Some blocks that nothing leads to yet, and the bytes into them. */
static int stage_run(struct diff_target *t, uint64_t want, const uint8_t *bytes, uint64_t *ret_block, uint64_t *ret_got)
{
	int r = store_stage(t->store, want, ret_block, ret_got);

	if (r < 0)
		return r;
	r = store_fill(t->store, *ret_block, *ret_got, bytes);
	if (r < 0)
		(void)store_drop_staged(t->store, *ret_block, *ret_got);
	return r;
}

/* The blocks of the window at hand that came (D2). */
static int stage_blocks(struct diff_target *t, const struct blocks *b)
{
	uint64_t ino = t->now.key.hi >> 8, block = 0, got = 0;
	unsigned i = t->block_next, j;

	for (j = 0; j < b->n; j++) {
		const uint8_t *bytes = b->bytes + (size_t)j * BLOCK_SIZE;
		int r = 0;

		while (t->plan.kind[i] != WINDOW_KEEP || t->window.kind[i] != WINDOW_DATA)
			i++;
		if (got == 0)
			r = stage_run(t, b->n - j, bytes, &block, &got);
		if (r < 0)
			return r;
		t->plan.kind[i] = WINDOW_DATA;
		t->plan.block[i] = block;
		t->plan.csum[i] = get_le32(b->csums + (size_t)4 * j);
		/* A block that is damaged at the source is known as damaged here, too; one that became so on the way is none. */
		if (block_csum(bytes, ino, t->now.key.lo + i) != t->plan.csum[i]) {
			if (!(b->damaged >> j & 1)) {
				if (got > 1)
					(void)store_drop_staged(t->store, block + 1, got - 1);
				return hostile("damaged blocks");
			}
			t->progress.damaged_blocks++;
		}
		block++;
		got--;
		i++;
	}
	t->block_next = i;
	return 0;
}

/* The next BLOCKS of the window at hand, or its end. */
static int work_data(struct diff_target *t)
{
	const struct diff_message *m = t->answers.first;
	struct wire_reader q;
	struct blocks b;
	int r;

	if (t->blocks_left == 0) {
		r = window_edit(t, t->now.key, &t->plan);
		if (r == 0)
			t->doing = DO_NOTHING;
		return r;
	}
	if (!m)
		return -ENODATA;
	q = (struct wire_reader){ m->bytes + t->answers_at, m->bytes + m->len, false };
	r = get_blocks(t, &q, &b);
	/* More than one range of blocks may be needed; each is asked for only after there is room for all. */
	if (r == 0)
		r = store_reserve(t->store, b.n, false);
	if (r == 0)
		r = stage_blocks(t, &b);
	if (r < 0)
		return r;
	t->blocks_left -= b.n;
	t->progress.staged_blocks += b.n;
	t->progress.done_bytes += (uint64_t)b.n * BLOCK_SIZE;
	t->answers_at = (size_t)(q.p - m->bytes);
	return 0;
}

/* Answers ---------------------------------------------------------------------------------------------------------- */

/* The next answer begins: it must be that of the question asked first. */
static int open_answer(struct diff_target *t)
{
	const struct diff_message *m = t->answers.first;
	struct wire_reader q = { m->bytes + t->answers_at, m->bytes + m->len, false };
	int r;

	if (t->asked.count == 0 || wire_get_u8(&q) != t->asked.v[t->asked.first].what)
		return hostile("an answer that was not asked for");
	t->now = t->asked.v[t->asked.first];
	switch (t->now.what) {
	case DIFF_KEYS:
		r = open_keys(t, &q);
		break;
	case DIFF_ITEM:
		r = take_item(t, &q);
		break;
	case DIFF_DEEP:
		t->n = wire_get_u8(&q);
		t->i = 0;
		t->deep_at = t->now.key.lo;
		r = q.bad || t->n > DIFF_DEEP_MAX ? hostile("digests") : 0;
		t->doing = DO_DEEP;
		break;
	case DIFF_DESC:
		r = take_desc(t, &q);
		break;
	default:
		r = open_data(t, &q);
		break;
	}
	if (r < 0)
		return r;
	(void)wants_take(&t->asked);
	t->under_way -= cost(&t->now);
	t->answers_at = (size_t)(q.p - m->bytes);
	return 0;
}

/* One unit of the answers that are here. 1: something was done; 0: nothing is here. */
static int work_answers(struct diff_target *t)
{
	int r;

	switch (t->doing) {
	case DO_KEYS:
		r = work_keys(t);
		break;
	case DO_DATA:
		r = work_data(t);
		break;
	case DO_DEEP:
		r = t->answers.first ? work_deep(t) : -ENODATA;
		break;
	default:
		r = t->answers.first ? open_answer(t) : -ENODATA;
		break;
	}
	if (r == -ENODATA)
		return 0;
	if (r < 0)
		return r;
	if (t->answers.first && t->answers_at == t->answers.first->len) {
		diff_queue_drop(&t->answers);
		t->answers_at = 0;
	}
	return 1;
}

/* The machine ------------------------------------------------------------------------------------------------------ */

int diff_target_new(struct keys *k, const struct diff_target_options *options, struct diff_target **ret)
{
	struct diff_target *t = calloc(1, sizeof *t);
	int r;

	if (!t)
		return -ENOMEM;
	t->k = k;
	t->store = keys_store(k);
	t->o = *options;
	t->commits = store_commits(t->store);
	logical_begin(&t->walk, k, (struct key){ 0, 0 });
	r = stage_open(&t->stage, options->folder);
	if (r < 0) {
		free(t);
		return r;
	}
	*ret = t;
	return 0;
}

/* Runs of a window's staged blocks are given back. */
static void drop_window(struct diff_target *t, const struct window *w)
{
	unsigned i;

	for (i = 0; i < WINDOW_BLOCKS; i++)
		if (w->kind[i] == WINDOW_DATA)
			(void)store_drop_staged(t->store, w->block[i], 1);
}

void diff_target_free(struct diff_target *t)
{
	struct stage_edit e;
	unsigned i;

	if (!t)
		return;
	if (!t->applied && stage_rewind(&t->stage) == 0)
		while (stage_next(&t->stage, &e) > 0)
			if (e.kind == STAGE_WINDOW)
				drop_window(t, e.window);
	if (t->doing == DO_DATA)
		drop_window(t, &t->plan);
	stage_close(&t->stage);
	diff_queue_clear(&t->ranges);
	diff_queue_clear(&t->answers);
	for (i = 0; i < ARRAY_LEN(t->todo); i++)
		free(t->todo[i].v);
	free(t->asked.v);
	free(t);
}

void diff_target_progress(const struct diff_target *t, struct diff_progress *ret)
{
	*ret = t->progress;
	ret->done_bytes = min_u64(ret->done_bytes, ret->total_bytes);
}

static int take_begin(struct diff_target *t, const void *bytes, size_t len)
{
	struct wire_reader q = { bytes, (const uint8_t *)bytes + len, false };
	uint32_t version = wire_get_u32(&q);

	if (t->begun || len != DIFF_BEGIN_LEN)
		return hostile("a beginning");
	if (version != DIFF_VERSION)
		return err_set(EPROTO, "diff: the primary speaks version %u, this program %u", version, DIFF_VERSION);
	(void)wire_get_u32(&q);
	t->progress.seq = wire_get_u64(&q);
	t->progress.epoch = wire_get_u64(&q);
	t->hash_seed = wire_get_u64(&q);
	t->seed = wire_get_u64(&q);
	t->next_ino = wire_get_u64(&q);
	(void)wire_get_u64(&q);
	t->progress.total_bytes = wire_get_u64(&q);
	if (q.bad || t->progress.seq >= SEQ_MAX || edit_check_next_ino(t->next_ino) < 0)
		return hostile("a beginning");
	t->begun = true;
	return 0;
}

int diff_target_message(struct diff_target *t, unsigned type, const void *bytes, size_t len)
{
	t->progress.received_bytes += len;
	if (t->failed)
		return t->failed;
	if (len > DIFF_MESSAGE_MAX || (type != DIFF_BEGIN && !t->begun) ||
	    t->ranges.bytes + t->answers.bytes + len > QUEUE_MAX)
		return hostile("more than was asked for");
	switch (type) {
	case DIFF_BEGIN:
		return take_begin(t, bytes, len);
	case DIFF_RANGES:
		if (t->credit == 0)
			break;
		t->credit--;
		return diff_queue_add(&t->ranges, bytes, len);
	case DIFF_ANSWERS:
		/* Empty ones would cost memory without being counted. */
		if (len == 0)
			break;
		return diff_queue_add(&t->answers, bytes, len);
	default:
		break;
	}
	return hostile("a message");
}

static bool is_complete(const struct diff_target *t)
{
	unsigned i;

	for (i = 0; i < ARRAY_LEN(t->todo); i++)
		if (t->todo[i].count > 0)
			return false;
	return t->ranges_done && t->asked.count == 0 && t->ask_len == 0 && t->doing == DO_NOTHING;
}

/* All is here. */
static int complete(struct diff_target *t)
{
	int r;

	if (t->answers.first)
		return hostile("answers that were not asked for");
	if (t->end_sent)
		return DIFF_READY;
	r = send(t, DIFF_END, NULL, 0);
	if (r == -EAGAIN)
		return DIFF_FULL;
	t->end_sent = r == 0;
	return r < 0 ? r : DIFF_READY;
}

static int step(struct diff_target *t)
{
	unsigned units;
	bool full = false;
	int r = 1;

	for (units = 0; r > 0 && units < STEP_UNITS; units++) {
		r = work_answers(t);
		if (r == 0)
			r = work_ranges(t);
	}
	if (r == -EAGAIN)
		return DIFF_SPACE;
	if (r < 0)
		return r;
	if (t->begun) {
		int said = talk(t);

		if (said < 0 && said != -EAGAIN)
			return said;
		full = said == -EAGAIN;
	}
	if (r > 0)
		return DIFF_BUSY;
	return full ? DIFF_FULL : is_complete(t) ? complete(t) : DIFF_IDLE;
}

int diff_target_step(struct diff_target *t)
{
	int r = t->failed;

	if (r == 0 && store_failed(t->store))
		r = -EIO;
	/* A failed checkpoint of somebody else's, a store that is closed: whatever it is, no more edits. */
	if (r == 0 && store_commits(t->store) != t->commits)
		r = -ESTALE;
	if (r == 0)
		r = step(t);
	if (r < 0)
		t->failed = r;
	return r;
}

/* Applying --------------------------------------------------------------------------------------------------------- */

static int apply_all(struct diff_target *t)
{
	struct stage_edit e;
	int r;

	while ((r = stage_next(&t->stage, &e)) > 0) {
		r = make_edit(t, &e);
		if (r < 0)
			return r;
	}
	return r;
}

int diff_target_apply(struct diff_target *t)
{
	const struct store_base base = { .seq = t->progress.seq, .epoch = t->progress.epoch, .hash_seed = t->hash_seed };
	int r;

	if (t->failed || t->applied || !t->end_sent)
		return -EINVAL;
	if (store_commits(t->store) != t->commits)
		return -ESTALE;
	r = stage_rewind(&t->stage);
	if (r == 0)
		r = store_rebase_ready(t->store, edit_blocks(t->k, &t->size, t->walk.leaves));
	if (r < 0)
		return r;
	/* From here on there is no way back but the superblock in force. */
	t->applied = true;
	r = apply_all(t);
	if (r == 0) {
		edit_next_ino(t->k, max_u64(t->next_ino, t->highest_ino + 1));
		r = t->o.commit ? t->o.commit(t->o.ctx, base.seq, base.epoch) : 0;
	}
	if (r == 0)
		return store_rebase(t->store, &base);
	store_broken(t->store, r);
	return r;
}
