/* SPDX-License-Identifier: MIT
 *
 * identity: what the store is to others, its epoch, and what others ask of it beside changes. Request thread, but for what
 * is marked [any] in store.h. Owns store.own, which each superblock takes along that is cut from then on.
 */
#include "core/store/store_int.h"

#include <time.h>
#include <unistd.h>

void store_identity(const struct store *s, struct store_identity *ret)
{
	memset(ret, 0, sizeof *ret);
	ret->role = (enum store_role)s->own.role;
	memcpy(ret->cluster, s->own.cluster, sizeof ret->cluster);
	ret->promised_epoch = s->own.promised_epoch;
	ret->incomplete = s->own.feature_incompat & FEATURE_INCOMPLETE;
}

uint64_t store_identity_durable(const struct store *s)
{
	return atomic_load_explicit(&((struct store *)(uintptr_t)s)->durable_version, memory_order_acquire);
}

bool identity_waits(const struct store *s)
{
	return s->own_version != store_identity_durable(s);
}

int identity_write(struct store *s)
{
	if (!identity_waits(s) || atomic_load_explicit(&s->ckpt_state, memory_order_acquire) != CKPT_IDLE)
		return 0;
	checkpoint_cut_identity(s);
	return store_write_cut(s);
}

static int identity_change(struct store *s, const struct store_identity *id)
{
	int r = checkpoint_finish(s);

	if (r == 0)
		r = s->read_only ? -EROFS : store_failed(s);
	if (r < 0)
		return r;
	if ((unsigned)id->role > ROLE_REPLICA || id->promised_epoch < s->own.promised_epoch ||
	    (id->incomplete && id->role != STORE_REPLICA))
		return -EINVAL;
	s->own.role = (uint32_t)id->role;
	memcpy(s->own.cluster, id->cluster, sizeof s->own.cluster);
	s->own.promised_epoch = id->promised_epoch;
	/* Who does not know what a cluster is may not write to a part of one. */
	s->own.feature_ro_compat &= ~FEATURE_CLUSTER;
	s->own.feature_ro_compat |= id->role != STORE_ALONE ? FEATURE_CLUSTER : 0;
	s->own.feature_incompat &= ~FEATURE_INCOMPLETE;
	s->own.feature_incompat |= id->incomplete ? FEATURE_INCOMPLETE : 0;
	s->own_version++;
	return 0;
}

int store_set_identity(struct store *s, const struct store_identity *id, uint64_t *ret_ticket)
{
	int r = identity_change(s, id);

	if (r < 0)
		return r;
	*ret_ticket = s->own_version;
	return identity_write(s);
}

/* Wait until no superblock is being written. What the checkpointer has begun it also ends. */
static int wait_idle(struct store *s)
{
	const struct timespec nap = { 0, 200000 };

	for (;;) {
		int r = store_failed(s);

		if (r == 0)
			r = checkpoint_finish(s);
		if (r < 0 || atomic_load_explicit(&s->ckpt_state, memory_order_acquire) == CKPT_IDLE)
			return r;
		if (s->threads)
			(void)nanosleep(&nap, NULL);
		else
			r = checkpoint_write(s);
		if (r < 0)
			return r;
	}
}

/* Wait until it is on disk; what the checkpointer has not begun is done here. */
static int identity_wait(struct store *s)
{
	int r = wait_idle(s);

	if (r == 0 && identity_waits(s)) {
		checkpoint_cut_identity(s);
		r = checkpoint_write(s);
	}
	return r == 0 ? checkpoint_finish(s) : r;
}

int store_put_identity(struct store *s, const struct store_identity *id)
{
	int r = identity_change(s, id);

	return r < 0 ? r : identity_wait(s);
}

int store_put_hash_seed(struct store *s, uint64_t seed)
{
	/* A superblock that is being written has the old one, and becomes s->super when that is done. */
	int r = s->read_only ? -EROFS : wait_idle(s);

	if (r < 0 || s->super.hash_seed == seed)
		return r;
	s->super.hash_seed = seed;
	s->own_version++;
	return identity_wait(s);
}

bool store_is_replica(const struct store *s)
{
	return s->own.role == ROLE_REPLICA;
}

void store_uuid(const struct store *s, uint8_t ret_uuid[16])
{
	memcpy(ret_uuid, s->super.uuid, 16);
}

bool store_was_clean(const struct store *s)
{
	return s->was_clean;
}

uint64_t store_epoch(const struct store *s)
{
	return s->journal.epoch;
}

void store_set_epoch(struct store *s, uint64_t epoch)
{
	s->journal.epoch = epoch;
}

int store_random(const struct store *s, void *buf, size_t len)
{
	return s->sys.random(s->sys.ctx, buf, len);
}

int store_read_blocks(const struct store *s, uint64_t block, uint64_t count, void *buf)
{
	size_t want = (size_t)count << BLOCK_SHIFT, got = 0;

	while (got < want) {
		ssize_t n = pread(s->fd, (uint8_t *)buf + got, want - got, (off_t)((block << BLOCK_SHIFT) + got));

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -ESTALE;         /* the end of the file was given back */
		got += n > 0 ? (size_t)n : 0;
	}
	return 0;
}
