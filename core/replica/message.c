/* SPDX-License-Identifier: MIT
 *
 * message: the messages as bytes, field by field in the order of core/PROTOCOL.md, and histories compared.
 */
#include "core/replica/message.h"

/* Histories -------------------------------------------------------------------------------------------------------- */

int history_check(const struct history *h)
{
	unsigned i;

	if (h->count > MSG_HISTORY_MAX)
		return err_set(EPROTO, "history: %u entries", h->count);
	for (i = 0; i < h->count; i++) {
		const struct history_entry *e = &h->at[i];

		if (e->epoch == 0 || e->first == 0 || e->first > h->last)
			return err_set(EPROTO, "history: entry %u begins at %llu of %llu", i, (unsigned long long)e->first,
				       (unsigned long long)h->last);
		if (i > 0 && (e->epoch <= e[-1].epoch || e->first <= e[-1].first))
			return err_set(EPROTO, "history: entry %u is not behind the one before it", i);
	}
	return 0;
}

static bool same_entry(const struct history_entry *a, const struct history_entry *b)
{
	return a->epoch == b->epoch && a->first == b->first && a->nonce == b->nonce &&
	       memcmp(a->store, b->store, sizeof a->store) == 0;
}

/* Last seq of the epoch at[i]. */
static seq_t entry_end(const struct history *h, unsigned i)
{
	return i + 1 < h->count ? h->at[i + 1].first - 1 : h->last;
}

enum history_verdict history_compare(const struct history *ours, const struct history *theirs, seq_t *ret_common)
{
	unsigned i = ours->count, j = theirs->count;
	seq_t common;

	*ret_common = 0;
	if (theirs->last == 0)
		return HISTORY_EMPTY;
	/* From the newest entries down to the first pair that is the same. Below it both lines are one: an entry is made by
	 * one store, once, behind a line that it names by being in it. */
	while (i > 0 && j > 0 && !same_entry(&ours->at[i - 1], &theirs->at[j - 1])) {
		if (ours->at[i - 1].epoch > theirs->at[j - 1].epoch)
			i--;
		else if (ours->at[i - 1].epoch < theirs->at[j - 1].epoch)
			j--;
		else
			i--, j--;
	}
	if (i == 0 || j == 0)
		return HISTORY_UNKNOWN;
	common = min_u64(entry_end(ours, i - 1), entry_end(theirs, j - 1));
	*ret_common = common;
	return theirs->last > common ? HISTORY_DIVERGED : HISTORY_STREAM;
}

/* Parts ------------------------------------------------------------------------------------------------------------ */

static void put_history(struct wire_writer *w, const struct history *h)
{
	unsigned i;

	wire_put_u64(w, h->last);
	wire_put_u32(w, h->count);
	for (i = 0; i < h->count; i++) {
		wire_put_u64(w, h->at[i].epoch);
		wire_put_u64(w, h->at[i].first);
		wire_put_u64(w, h->at[i].nonce);
		wire_put_fixed(w, h->at[i].store, 16);
	}
}

static void get_fixed(struct wire_reader *r, void *to, size_t len)
{
	const uint8_t *p = wire_get_fixed(r, len);

	if (p)
		memcpy(to, p, len);
	else
		memset(to, 0, len);
}

static void get_history(struct wire_reader *r, struct history *h)
{
	unsigned i;

	h->last = wire_get_u64(r);
	h->count = wire_get_u32(r);
	if (h->count > MSG_HISTORY_MAX) {
		r->bad = true;
		h->count = 0;
	}
	for (i = 0; i < h->count; i++) {
		h->at[i].epoch = wire_get_u64(r);
		h->at[i].first = wire_get_u64(r);
		h->at[i].nonce = wire_get_u64(r);
		get_fixed(r, h->at[i].store, 16);
	}
}

/* u32 count, then u64 each. */
static const uint8_t *get_ids(struct wire_reader *r, uint32_t max, uint32_t *ret_count)
{
	uint32_t count = wire_get_u32(r);
	const uint8_t *p;

	if (count > max) {
		r->bad = true;
		count = 0;
	}
	p = wire_get_fixed(r, (size_t)count * 8);
	*ret_count = p ? count : 0;
	return p;
}

/* u32 count, then 16 bytes each. */
static const uint8_t *get_stores(struct wire_reader *r, uint32_t max, uint32_t *ret_count)
{
	uint32_t count = wire_get_u32(r);
	const uint8_t *p;

	if (count > max) {
		r->bad = true;
		count = 0;
	}
	p = wire_get_fixed(r, (size_t)count * 16);
	*ret_count = p ? count : 0;
	return p;
}

static void put_ids(struct wire_writer *w, const uint8_t *ids, uint32_t count)
{
	wire_put_u32(w, count);
	wire_put_fixed(w, ids, (size_t)count * 8);
}

/* All that is left: what was decoded must not be bad already. */
static const uint8_t *get_rest(struct wire_reader *r, uint32_t *ret_len)
{
	size_t left = r->bad ? 0 : wire_left(r);

	*ret_len = (uint32_t)left;
	return wire_get_fixed(r, left);
}

/* Hello and welcome ------------------------------------------------------------------------------------------------ */

void msg_put_hello(struct wire_writer *w, const struct msg_hello *m)
{
	wire_put_u16(w, m->version);
	wire_put_u16(w, m->version_min);
	wire_put_u32(w, m->flags);
	wire_put_u64(w, m->features);
	wire_put_u64(w, m->required);
	wire_put_fixed(w, m->cluster, 16);
	wire_put_fixed(w, m->store, 16);
	wire_put_u64(w, m->client);
	wire_put_u64(w, m->session);
	wire_put_u64(w, m->low);
	wire_put_u64(w, m->epoch);
	wire_put_u64(w, m->promised);
	wire_put_u64(w, m->durable);
	wire_put_u64(w, m->committed);
	put_history(w, &m->history);
	wire_put_bytes(w, m->name, m->name_len);
	put_ids(w, m->holds, m->hold_count);
	wire_put_bytes(w, m->locks, m->locks_len);
}

/* What follows the fields of version 1 is no error if the sender speaks a newer one. */
static int end_of(const struct wire_reader *r, uint16_t version, const char *what)
{
	struct wire_reader known = *r;

	if (!r->bad && version > MSG_VERSION)
		known.p = known.end;
	return wire_end(&known, what);
}

int msg_get_hello(const uint8_t *p, size_t len, struct msg_hello *ret)
{
	struct wire_reader r = wire_reader(p, len);
	int e;

	ret->version = wire_get_u16(&r);
	ret->version_min = wire_get_u16(&r);
	ret->flags = wire_get_u32(&r);
	ret->features = wire_get_u64(&r);
	ret->required = wire_get_u64(&r);
	get_fixed(&r, ret->cluster, 16);
	get_fixed(&r, ret->store, 16);
	ret->client = wire_get_u64(&r);
	ret->session = wire_get_u64(&r);
	ret->low = wire_get_u64(&r);
	ret->epoch = wire_get_u64(&r);
	ret->promised = wire_get_u64(&r);
	ret->durable = wire_get_u64(&r);
	ret->committed = wire_get_u64(&r);
	get_history(&r, &ret->history);
	ret->name = wire_get_bytes(&r, MSG_NAME_MAX, &ret->name_len);
	ret->holds = get_ids(&r, MSG_HOLDS_MAX, &ret->hold_count);
	ret->locks = wire_get_bytes(&r, MSG_LOCKS_MAX, &ret->locks_len);
	e = end_of(&r, ret->version, "hello");
	if (e < 0)
		return e;
	if (ret->version == 0 || ret->version_min == 0 || ret->version_min > ret->version)
		return err_set(EPROTO, "hello: versions %u to %u", ret->version_min, ret->version);
	if (ret->client == 0 || ret->low == 0)
		return err_set(EPROTO, "hello: client or lowest request number is 0");
	if (ret->durable > ret->history.last || ret->committed > ret->history.last || ret->epoch > ret->promised)
		return err_set(EPROTO, "hello: its positions contradict each other");
	return history_check(&ret->history);
}

void msg_put_welcome(struct wire_writer *w, const struct msg_welcome *m)
{
	wire_put_u16(w, m->version);
	wire_put_u8(w, m->decision);
	wire_put_u8(w, m->code);
	wire_put_u64(w, m->features);
	wire_put_fixed(w, m->cluster, 16);
	wire_put_fixed(w, m->store, 16);
	wire_put_u64(w, m->hash_seed);
	wire_put_u64(w, m->epoch);
	wire_put_u64(w, m->promised);
	wire_put_u64(w, m->seq);
	wire_put_u64(w, m->last);
	wire_put_u64(w, m->durable);
	wire_put_u32(w, m->lease_ms);
	wire_put_u32(w, m->keep_ms);
	wire_put_bytes(w, m->text, m->text_len);
	wire_put_bytes(w, m->name, m->name_len);
	if ((m->features & MSG_FEATURE_PATH) == 0)
		return;
	wire_put_u32(w, m->path_count);
	wire_put_fixed(w, m->path, (size_t)m->path_count * 16);
}

int msg_get_welcome(const uint8_t *p, size_t len, struct msg_welcome *ret)
{
	struct wire_reader r = wire_reader(p, len);
	int e;

	ret->version = wire_get_u16(&r);
	ret->decision = wire_get_u8(&r);
	ret->code = wire_get_u8(&r);
	ret->features = wire_get_u64(&r);
	get_fixed(&r, ret->cluster, 16);
	get_fixed(&r, ret->store, 16);
	ret->hash_seed = wire_get_u64(&r);
	ret->epoch = wire_get_u64(&r);
	ret->promised = wire_get_u64(&r);
	ret->seq = wire_get_u64(&r);
	ret->last = wire_get_u64(&r);
	ret->durable = wire_get_u64(&r);
	ret->lease_ms = wire_get_u32(&r);
	ret->keep_ms = wire_get_u32(&r);
	ret->text = wire_get_bytes(&r, MSG_TEXT_MAX, &ret->text_len);
	ret->name = wire_get_bytes(&r, MSG_NAME_MAX, &ret->name_len);
	ret->path = NULL;
	ret->path_count = 0;
	if ((ret->features & MSG_FEATURE_PATH) != 0)
		ret->path = get_stores(&r, MSG_PATH_MAX, &ret->path_count);
	e = end_of(&r, ret->version, "welcome");
	if (e < 0)
		return e;
	if (ret->decision < WELCOME_STREAM || ret->decision > WELCOME_REFUSED)
		return err_set(EPROTO, "welcome: decision %u", ret->decision);
	if (ret->decision != WELCOME_REFUSED && (ret->epoch == 0 || ret->seq > ret->last || ret->durable > ret->last))
		return err_set(EPROTO, "welcome: its positions contradict each other");
	return 0;
}

/* The stream ------------------------------------------------------------------------------------------------------- */

void msg_put_change(struct wire_writer *w, const struct msg_change *m)
{
	wire_put_u64(w, m->epoch);
	wire_put_u64(w, m->change_epoch);
	wire_put_u64(w, m->seq);
	wire_put_u64(w, m->durable);
	wire_put_u64(w, m->committed);
	wire_put_fixed(w, m->bytes, m->len);
}

int msg_get_change(const uint8_t *p, size_t len, struct msg_change *ret)
{
	struct wire_reader r = wire_reader(p, len);

	ret->epoch = wire_get_u64(&r);
	ret->change_epoch = wire_get_u64(&r);
	ret->seq = wire_get_u64(&r);
	ret->durable = wire_get_u64(&r);
	ret->committed = wire_get_u64(&r);
	ret->bytes = get_rest(&r, &ret->len);
	if (wire_end(&r, "change") < 0)
		return -EPROTO;
	if (ret->seq == 0 || ret->change_epoch > ret->epoch)
		return err_set(EPROTO, "change: seq %llu, epoch %llx in a stream of epoch %llx",
			       (unsigned long long)ret->seq, (unsigned long long)ret->change_epoch,
			       (unsigned long long)ret->epoch);
	return 0;
}

void msg_put_position(struct wire_writer *w, const struct msg_position *m)
{
	wire_put_u64(w, m->epoch);
	wire_put_u64(w, m->last);
	wire_put_u64(w, m->durable);
	wire_put_u64(w, m->committed);
	wire_put_u64(w, m->last_bytes);
	wire_put_u32(w, m->stale_ms);
}

int msg_get_position(const uint8_t *p, size_t len, struct msg_position *ret)
{
	struct wire_reader r = wire_reader(p, len);

	ret->epoch = wire_get_u64(&r);
	ret->last = wire_get_u64(&r);
	ret->durable = wire_get_u64(&r);
	ret->committed = wire_get_u64(&r);
	ret->last_bytes = wire_get_u64(&r);
	ret->stale_ms = wire_get_u32(&r);
	return wire_end(&r, "position");
}

void msg_put_ack(struct wire_writer *w, const struct msg_ack *m)
{
	wire_put_u64(w, m->epoch);
	wire_put_u64(w, m->applied);
	wire_put_u64(w, m->durable);
	wire_put_u64(w, m->tree_applied);
	wire_put_u64(w, m->tree_durable);
	wire_put_u32(w, m->tree_count);
}

int msg_get_ack(const uint8_t *p, size_t len, struct msg_ack *ret)
{
	struct wire_reader r = wire_reader(p, len);

	ret->epoch = wire_get_u64(&r);
	ret->applied = wire_get_u64(&r);
	ret->durable = wire_get_u64(&r);
	ret->tree_applied = wire_get_u64(&r);
	ret->tree_durable = wire_get_u64(&r);
	ret->tree_count = wire_get_u32(&r);
	if (wire_end(&r, "ack") < 0)
		return -EPROTO;
	if (ret->durable > ret->applied || ret->tree_applied > ret->applied || ret->tree_durable > ret->durable ||
	    ret->tree_count == 0)
		return err_set(EPROTO, "ack: its positions contradict each other");
	return 0;
}

/* Calls ------------------------------------------------------------------------------------------------------------ */

void msg_put_call(struct wire_writer *w, const struct msg_call *m)
{
	wire_put_u64(w, m->epoch);
	wire_put_u64(w, m->client);
	wire_put_u64(w, m->session);
	wire_put_u64(w, m->request);
	wire_put_u64(w, m->low);
	wire_put_u64(w, m->tag);
	wire_put_fixed(w, m->bytes, m->len);
}

int msg_get_call(const uint8_t *p, size_t len, struct msg_call *ret)
{
	struct wire_reader r = wire_reader(p, len);

	ret->epoch = wire_get_u64(&r);
	ret->client = wire_get_u64(&r);
	ret->session = wire_get_u64(&r);
	ret->request = wire_get_u64(&r);
	ret->low = wire_get_u64(&r);
	ret->tag = wire_get_u64(&r);
	ret->bytes = get_rest(&r, &ret->len);
	if (wire_end(&r, "call") < 0)
		return -EPROTO;
	if (ret->low == 0 || ret->request < ret->low || ret->request - ret->low >= MSG_WINDOW)
		return err_set(EPROTO, "call: number %llu, and the lowest still to come is %llu",
			       (unsigned long long)ret->request, (unsigned long long)ret->low);
	return 0;
}

void msg_put_result(struct wire_writer *w, const struct msg_result *m)
{
	wire_put_u64(w, m->epoch);
	wire_put_u64(w, m->client);
	wire_put_u64(w, m->session);
	wire_put_u64(w, m->request);
	wire_put_u32(w, (uint32_t)-m->error);
	wire_put_u32(w, m->flags);
	wire_put_u64(w, m->seq);
	wire_put_u64(w, m->number);
	wire_put_u64(w, m->tag);
}

int msg_get_result(const uint8_t *p, size_t len, struct msg_result *ret)
{
	struct wire_reader r = wire_reader(p, len);
	uint32_t error;

	ret->epoch = wire_get_u64(&r);
	ret->client = wire_get_u64(&r);
	ret->session = wire_get_u64(&r);
	ret->request = wire_get_u64(&r);
	error = wire_get_u32(&r);
	ret->flags = wire_get_u32(&r);
	ret->seq = wire_get_u64(&r);
	ret->number = wire_get_u64(&r);
	ret->tag = wire_get_u64(&r);
	if (wire_end(&r, "result") < 0)
		return -EPROTO;
	if (error >= 4096)
		return err_set(EPROTO, "result: error %u", error);
	ret->error = -(int32_t)error;
	return 0;
}

void msg_put_cancel(struct wire_writer *w, const struct msg_cancel *m)
{
	wire_put_u64(w, m->epoch);
	wire_put_u64(w, m->client);
	wire_put_u64(w, m->session);
	wire_put_u64(w, m->request);
}

int msg_get_cancel(const uint8_t *p, size_t len, struct msg_cancel *ret)
{
	struct wire_reader r = wire_reader(p, len);

	ret->epoch = wire_get_u64(&r);
	ret->client = wire_get_u64(&r);
	ret->session = wire_get_u64(&r);
	ret->request = wire_get_u64(&r);
	return wire_end(&r, "cancel");
}

/* The rest --------------------------------------------------------------------------------------------------------- */

void msg_put_holds(struct wire_writer *w, const struct msg_holds *m)
{
	wire_put_u64(w, m->epoch);
	put_ids(w, m->inos, m->count);
}

int msg_get_holds(const uint8_t *p, size_t len, struct msg_holds *ret)
{
	struct wire_reader r = wire_reader(p, len);

	ret->epoch = wire_get_u64(&r);
	ret->inos = get_ids(&r, MSG_HOLDS_MAX, &ret->count);
	return wire_end(&r, "hold or release");
}

void msg_put_client(struct wire_writer *w, const struct msg_client *m)
{
	wire_put_u64(w, m->epoch);
	wire_put_u64(w, m->client);
	wire_put_u64(w, m->session);
	wire_put_u64(w, m->low);
	wire_put_u32(w, m->flags);
	wire_put_bytes(w, m->locks, m->locks_len);
}

int msg_get_client(const uint8_t *p, size_t len, struct msg_client *ret)
{
	struct wire_reader r = wire_reader(p, len);

	ret->epoch = wire_get_u64(&r);
	ret->client = wire_get_u64(&r);
	ret->session = wire_get_u64(&r);
	ret->low = wire_get_u64(&r);
	ret->flags = wire_get_u32(&r);
	ret->locks = wire_get_bytes(&r, MSG_LOCKS_MAX, &ret->locks_len);
	if (wire_end(&r, "client") < 0)
		return -EPROTO;
	if (ret->client == 0 || ret->low == 0)
		return err_set(EPROTO, "client: its id or lowest request number is 0");
	return 0;
}

void msg_put_promote(struct wire_writer *w, const struct msg_promote *m)
{
	wire_put_u64(w, m->epoch);
	wire_put_u64(w, m->next);
	wire_put_u64(w, m->seq);
}

int msg_get_promote(const uint8_t *p, size_t len, struct msg_promote *ret)
{
	struct wire_reader r = wire_reader(p, len);

	ret->epoch = wire_get_u64(&r);
	ret->next = wire_get_u64(&r);
	ret->seq = wire_get_u64(&r);
	return wire_end(&r, "promote");
}

void msg_put_fenced(struct wire_writer *w, const struct msg_fenced *m)
{
	wire_put_u64(w, m->promised);
	wire_put_bytes(w, m->text, m->text_len);
}

int msg_get_fenced(const uint8_t *p, size_t len, struct msg_fenced *ret)
{
	struct wire_reader r = wire_reader(p, len);

	ret->promised = wire_get_u64(&r);
	ret->text = wire_get_bytes(&r, MSG_TEXT_MAX, &ret->text_len);
	return wire_end(&r, "fenced");
}

void msg_put_lock(struct wire_writer *w, const struct msg_lock *m)
{
	wire_put_u64(w, m->epoch);
	wire_put_u64(w, m->client);
	wire_put_u64(w, m->round);
	wire_put_u64(w, m->ticket);
	wire_put_u32(w, (uint32_t)-m->error);
	wire_put_u32(w, m->flags);
	wire_put_u8(w, m->kind);
	wire_put_u8(w, m->type);
	wire_put_u32(w, m->pid);
	wire_put_u64(w, m->ino);
	wire_put_u64(w, m->owner);
	wire_put_u64(w, m->start);
	wire_put_u64(w, m->end);
	wire_put_u64(w, m->seq);
	wire_put_u64(w, m->fence_epoch);
	wire_put_u64(w, m->fence);
}

int msg_get_lock(const uint8_t *p, size_t len, struct msg_lock *ret)
{
	struct wire_reader r = wire_reader(p, len);
	uint32_t error;

	ret->epoch = wire_get_u64(&r);
	ret->client = wire_get_u64(&r);
	ret->round = wire_get_u64(&r);
	ret->ticket = wire_get_u64(&r);
	error = wire_get_u32(&r);
	ret->flags = wire_get_u32(&r);
	ret->kind = wire_get_u8(&r);
	ret->type = wire_get_u8(&r);
	ret->pid = wire_get_u32(&r);
	ret->ino = wire_get_u64(&r);
	ret->owner = wire_get_u64(&r);
	ret->start = wire_get_u64(&r);
	ret->end = wire_get_u64(&r);
	ret->seq = wire_get_u64(&r);
	ret->fence_epoch = wire_get_u64(&r);
	ret->fence = wire_get_u64(&r);
	if (wire_end(&r, "lock") < 0)
		return -EPROTO;
	if (error >= 4096 || ret->kind < 1 || ret->kind > 2 || ret->type > 2 || ret->start > ret->end || ret->ino == 0 ||
	    (ret->ticket == 0) != ((ret->flags & LOCK_LOST) != 0))
		return err_set(EPROTO, "lock: an answer that cannot be");
	ret->error = -(int32_t)error;
	return 0;
}
