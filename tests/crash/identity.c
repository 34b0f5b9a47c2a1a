/* SPDX-License-Identifier: MIT
 *
 * identity: what the store is to others (role, cluster, promise, hash seed), which its superblocks keep beside the tree,
 * and the epochs that it began. The model of both, and changes of them.
 *
 * An identity change that returned survives a power cut; of one that did not there is all or nothing (O8a). A primary that
 * lost changes begins an epoch when it is opened, with a number nobody had before, before anybody can see what is left
 * (O10). See crash.h.
 */
#include "tests/crash/crash.h"

#include "core/keys/cluster.h"

#include <stdio.h>

#define KNOWN_MAX  1024u                /* changes between two openings */
#define EPOCHS_MAX 4096u

struct known {
	struct store_identity id;
	uint64_t seed;
	uint64_t ticket;                /* durable when the store says so of this; UINT64_MAX: not yet asked for */
};

unsigned identity_open_from;
static struct known known[KNOWN_MAX];
static unsigned known_count;
static uint64_t nonces[EPOCHS_MAX];     /* of the epochs that the live store began, also in futures that were lost */
static unsigned nonce_count;

static struct known shown(struct keys *k)
{
	struct known now = { .seed = store_hash_seed(keys_store(k)) };

	store_identity(keys_store(k), &now.id);
	return now;
}

void identity_known(struct keys *k)
{
	known[0] = shown(k);
	known_count = 1;
	identity_open_from = 0;
}

unsigned identity_durable(void)
{
	uint64_t ticket;
	unsigned i;

	if (!store)
		return identity_open_from;
	ticket = store_identity_durable(store);
	for (i = known_count; i > 1 && known[i - 1].ticket > ticket; i--)
		;
	return i > 0 ? i - 1 : 0;
}

unsigned identity_now(void)
{
	return known_count > 0 ? known_count - 1 : 0;
}

static bool same(const struct known *a, const struct known *b)
{
	return a->id.role == b->id.role && memcmp(a->id.cluster, b->id.cluster, sizeof a->id.cluster) == 0 &&
	       a->id.promised_epoch == b->id.promised_epoch && a->id.incomplete == b->id.incomplete && a->seed == b->seed;
}

int identity_find(struct keys *k, unsigned from, unsigned to, char *text, size_t size)
{
	struct known now = shown(k);
	unsigned i;

	for (i = to + 1; i-- > from; )
		if (same(&known[i], &now))
			return (int)i;
	(void)snprintf(text, size, "role %d, promise %llu, cluster %02x.., seed %llx%s is no identity that it had (of %u to %u)", (int)now.id.role,
		       (unsigned long long)now.id.promised_epoch, now.id.cluster[0], (unsigned long long)now.seed,
		       now.id.incomplete ? ", incomplete" : "", from, to);
	return -1;
}

/* Epochs ------------------------------------------------------------------------------------------------------------ */

static bool is_known(uint64_t nonce)
{
	unsigned i;

	for (i = 0; i < nonce_count; i++)
		if (nonces[i] == nonce)
			return true;
	return false;
}

unsigned epochs_unknown(struct keys *k)
{
	struct keys_epoch e[2 * KEYS_HISTORY_MAX];
	uint64_t seq = store_seq(keys_store(k));
	unsigned n, unknown = 0;

	if (keys_history(k, e, ARRAY_LEN(e), &n) < 0)
		return 0;
	for (; n > 0 && e[n - 1].first_seq == seq && !is_known(e[n - 1].nonce); n--, seq--)
		unknown++;
	return unknown;
}

uint64_t epochs_begin(struct keys *k)
{
	struct keys_epoch e[2 * KEYS_HISTORY_MAX];
	unsigned n;

	if (keys_history(k, e, ARRAY_LEN(e), &n) < 0)
		broken("the epochs cannot be read: %s", err_last());
	return n > 0 ? e[n - 1].first_seq : 1;
}

const char *epochs_wrong(struct keys *k, int found, unsigned unknown)
{
	struct store_identity id;

	store_identity(keys_store(k), &id);
	if (store_read_only(keys_store(k)) || id.role != STORE_PRIMARY)
		return NULL;
	if (store_epoch(keys_store(k)) < id.promised_epoch)
		return "a primary below its promise";
	/* What it lost somebody may have seen. */
	if (unknown == 0 && work.states[work_now(&work)].seq != work.states[found].seq)
		return "changes are lost, but no epoch was begun";
	return NULL;
}

void epochs_learn(struct keys *k)
{
	struct keys_epoch e[2 * KEYS_HISTORY_MAX];
	unsigned n, i;

	if (keys_history(k, e, ARRAY_LEN(e), &n) < 0)
		broken("the epochs cannot be read: %s", err_last());
	for (i = 0; i < n; i++)
		if (!is_known(e[i].nonce) && nonce_count < EPOCHS_MAX)
			nonces[nonce_count++] = e[i].nonce;
}

/* Changes ----------------------------------------------------------------------------------------------------------- */

static void did(int r, const char *what)
{
	if (r < 0)
		broken("%s: %d: %s", what, r, err_last());
}

/* While it is under way a power cut leaves this one or that before. */
static struct known *begin_change(const struct store_identity *id)
{
	struct known *next = &known[known_count++];

	*next = (struct known){ *id, store_hash_seed(store), UINT64_MAX };
	report->counts.identities++;
	return next;
}

/* As a daemon that serves does it: it goes on meanwhile. */
static void set(const struct store_identity *id)
{
	struct known *next = begin_change(id);
	uint64_t ticket = 0;

	helper_runs = below(2);
	did(store_set_identity(store, id, &ticket), "another identity");
	helper_runs = false;
	next->ticket = ticket;
}

static void put(const struct store_identity *id)
{
	struct known *next = begin_change(id);

	did(store_put_identity(store, id), "another identity");
	next->ticket = 0;
	if (identity_durable() != identity_now())
		broken("an identity that was put is not durable");
}

static void new_epoch(const struct store_identity *id)
{
	if (work_epoch(&work, max_u64(store_epoch(store) + 1, id->promised_epoch)) < 0)
		return;
	epochs_learn(work.k);
	report->counts.epochs++;
}

static uint64_t next_term(const struct store_identity *id)
{
	return max_u64(id->promised_epoch, store_epoch(store)) + 1 + below(3);
}

/* It commits nothing of its own any more: the model waits, or follows what comes from elsewhere. */
static void become_replica(struct store_identity *id)
{
	id->role = STORE_REPLICA;
	id->incomplete = below(2);
	id->promised_epoch += below(3);
	put(id);
	if (below(2))
		did(store_sync(store), "sync");
	if (id->incomplete) {
		id->incomplete = false;
		put(id);
	}
}

/* A power cut before its epoch begins: it does when it is opened. */
static void be_promoted(struct store_identity *id)
{
	id->role = STORE_PRIMARY;
	id->promised_epoch = next_term(id);
	put(id);
	protect(&live);
	add_image((enum how)below(HOW_COUNT), UINT32_MAX, "between a promotion and its epoch");
	try_pending();
	new_epoch(id);
}

void identity_step(bool cluster)
{
	struct store_identity id;
	unsigned i;

	if (known_count + 4 > KNOWN_MAX)
		return;
	protect(&live);
	store_identity(store, &id);
	if (id.role == STORE_ALONE && cluster && below(2)) {
		id.role = STORE_PRIMARY;
		for (i = 0; i < sizeof id.cluster; i++)
			id.cluster[i] = (uint8_t)below(256);
		put(&id);
	} else if (id.role == STORE_REPLICA && below(4) == 0) {
		be_promoted(&id);
	} else if (id.role == STORE_PRIMARY && below(orders->kind == WORK_REPLICA ? 2 : 3) == 0) {
		become_replica(&id);
		/* Nothing comes from elsewhere in other kinds of work. */
		if (orders->kind != WORK_REPLICA)
			be_promoted(&id);
	} else if (id.role == STORE_PRIMARY && below(3) == 0) {
		new_epoch(&id);
	} else {
		id.promised_epoch += 1 + below(3);
		id.cluster[below(sizeof id.cluster)] ^= (uint8_t)(1 + below(255));
		if (below(2))
			set(&id);
		else
			put(&id);
	}
}

void identity_seed(void)
{
	struct known *next = &known[known_count];

	*next = known[known_count - 1];
	next->seed = below(0);
	next->ticket = UINT64_MAX;
	known_count++;
	report->counts.identities++;
	did(keys_adopt_seed(work.k, next->seed), "another seed");
	next->ticket = 0;
}
