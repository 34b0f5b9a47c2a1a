/* SPDX-License-Identifier: MIT
 *
 * remote_run: calls of other machines. The request thread of the primary runs them, oldest first, and its answers leave when its
 * own kernel was told; one that follows sends them on (relay.c). Nothing is durable here but what store_sync_request() is asked for.
 */
#include "fs/remote_int.h"

#include "fs/ops.h"

#include "core/replica/limit.h"

#include <errno.h>
#include <stdlib.h>

#define RUN_LIMIT_MS   30000    /* a call that finds no space so long gets ENOSPC */
#define TOLD_LIMIT_MS  1000

/* ---- Calls of remote mounts ---- */

static void run_call(struct remote *l, const struct primary_run *run, struct primary_result *res)
{
	struct call_result cr = { 0 };
	struct call c;

	res->error = call_decode(run->bytes, run->len, &c);
	if (res->error < 0) {
		res->error = -EIO;
		return;
	}
	res->sync = c.op == CALL_FSYNC || c.op == CALL_SYNC || (c.flags & CALL_DURABLE) != 0;
	if (c.op == CALL_SYNC) {
		res->counted = true;
		res->replicas = c.how == CALL_SYNC_ALL ? PRIMARY_SYNC_ALL : c.how;
		res->wait_ms = (uint32_t)min_u64(c.len, UINT32_MAX);
	}
	if (c.op == CALL_FSYNC || c.op == CALL_SYNC) {
		store_sync_request(l->fs->store);
		return;
	}
	if (call_changes_names(&c))
		res->error = -ops_refuses(&c);
	if (res->error == 0 && run->tree != NULL)
		res->error = limit_call(l->fs->keys, run->tree, &c);
	if (res->error < 0)
		return;
	keys_set_caller(l->fs->keys, run->client, run->request);
	call_run(l->fs->keys, &c, &cr);
	keys_set_caller(l->fs->keys, 0, 0);
	res->error = cr.error;
	res->number = cr.number;
	if (cr.error == 0 && cr.orphan != 0)
		ops_orphaned(l->fs, cr.orphan);
	if (cr.error == 0 && res->sync)
		store_sync_request(l->fs->store);
}

static void client_here(struct remote *l, const struct item *item)
{
	clients_here(&l->clients, item->run.client);
	/* Who does not say which locks it has, has those that it had. */
	if (item->type)
		lockd_client_here(l->lockd, &item->run, item->bytes, item->len);
}

static void client_news(struct remote *l, const struct item *item)
{
	if (!l->leads)
		relay_client(l, item);
	else if (item->kind == NEWS_CLIENT_HERE)
		client_here(l, item);
	else if (item->kind == NEWS_CLIENT_LEFT)
		lockd_client_left(l->lockd, item->run.client);
	else if (item->kind == NEWS_CLIENT_EXPIRED) {
		lockd_client_expired(l->lockd, item->run.client);
		clients_gone(&l->clients, item->run.client, (uint64_t)remote_now_ms());
	}
}

/* Asking for a lock again does no harm: the table knows it by its ticket. */
static void run_lock(struct remote *l, struct item *item)
{
	struct lockd_call c;
	struct primary_result res = { .error = lockd_take(l->lockd, &item->run, item->len, &c), .seq = store_seq(l->fs->store) };
	uint64_t client = item->run.client;

	feeder_result(l, item, &res);
	if (res.error == 0)
		lockd_run(l->lockd, client, &c);
}

/* Calls that were left over from following: whoever leads now gets them from the engine. */
static bool waits_for_role(const struct remote *l, const struct item *item)
{
	return item->kind == NEWS_RUN && item->id == 0 && l->handing;
}

/* Has it been run before its answer was lost? 0: it has; -ENOENT; else nobody can know. */
static int run_before(struct remote *l, const struct primary_run *run, struct primary_result *res)
{
	int r = keys_call_result(l->fs->keys, run->client, run->request, &res->seq, &res->number);

	return r == -ENOENT && clients_unsure(&l->clients, run->client, run->request, run->low) ? -ESTALE : r;
}

/* It was made before, but who asked for it on disk may have lost its link while that was waited for. */
static void wait_again(struct remote *l, const struct primary_run *run, struct primary_result *res)
{
	struct call c;

	res->sync = call_decode(run->bytes, run->len, &c) == 0 && (c.flags & CALL_DURABLE) != 0;
	if (res->sync)
		store_sync_request(l->fs->store);
}

/* What needs no run here: news of who is there, locks, and what was left over from following. */
static bool run_aside(struct remote *l, const struct item *item)
{
	bool own = item->id == 0, lock = item->kind == NEWS_RUN && lock_call_is(item->bytes, item->len);
	bool aside = item->kind != NEWS_RUN || (own ? lock || !l->leads : l->leads && lock);
	struct item *taken = aside ? remote_take(l, &l->runs) : NULL;

	if (taken == NULL)
		return false;
	if (taken->kind == NEWS_RUN && !own) {
		run_lock(l, taken);
		return true;
	}
	if (taken->kind != NEWS_RUN)
		client_news(l, taken);
	free(taken);
	return true;
}

/* ---- Answers and this kernel ---- */

/* Who is told that its change was made may ask a program on the primary for it. So the answer leaves when the kernel here has
 * been told. A notifier waits for programs here whose changes are under way, and those of the primary wait for no other
 * machine; but in a switch-over they do, so nothing is held then, nor ever for long. */
void remote_release_results(struct remote *l)
{
	struct item *u;

	while ((u = l->untold.first) != NULL &&
	       (remote_parks(l) || notify_told(l->notify, u->mark) || remote_now_ms() - u->since_ms >= TOLD_LIMIT_MS))
		feeder_result(l, queue_take(&l->untold), &u->res);
}

static void give_result(struct remote *l, struct item *item, const struct primary_result *res)
{
	item = remote_item_without_bytes(item);
	item->mark = notify_mark();
	item->since_ms = remote_now_ms();
	item->res = *res;
	queue_add(&l->untold, item);
	remote_release_results(l);
}

void remote_release_synced(struct remote *l)
{
	struct item *u;
	int failed = store_failed(l->fs->store);

	while ((u = l->unsynced.first) != NULL && (failed < 0 || store_durable_seq(l->fs->store) >= u->res.seq)) {
		u = queue_take(&l->unsynced);
		if (failed < 0)
			u->res.error = -EIO;
		follower_result(l, &u->run, &u->res);
		free(u);
	}
}

void remote_drop_unsynced(struct remote *l, int error)
{
	struct item *u;

	while (l->unsynced.first != NULL) {
		u = queue_take(&l->unsynced);
		u->res.error = error;
		if (error < 0)
			follower_result(l, &u->run, &u->res);
		free(u);
	}
}

/* The oldest call that waits. False: there is none, or it finds no space yet. */
bool remote_run_next(struct remote *l)
{
	struct primary_result res = { 0 };
	struct item *item;
	int r;

	pthread_mutex_lock(&l->lock);
	item = l->runs.first;
	pthread_mutex_unlock(&l->lock);
	if (item == NULL || waits_for_role(l, item))
		return false;
	if (run_aside(l, item))
		return true;
	if (!l->leads) {
		r = relay_run(l, item);
		if (r == -EAGAIN)
			return false;
		item = remote_take(l, &l->runs);
		res.error = -EIO;
		if (r == 0)
			relay_keep(l, item);
		else
			feeder_result(l, item, &res);
		return true;
	}
	if (!notify_ready(l->notify))
		return false;
	r = run_before(l, &item->run, &res);
	if (r == 0)             /* done before its answer was lost */
		wait_again(l, &item->run, &res);
	else if (r == -ENOENT)
		run_call(l, &item->run, &res);
	else
		res.error = -EIO;
	if (res.error == -EAGAIN) {
		if (remote_now_ms() - item->since_ms < RUN_LIMIT_MS || store_is_writing(l->fs->store))
			return false;
		res.error = -ENOSPC;
	}
	if (r != 0)
		res.seq = store_seq(l->fs->store);
	item = remote_take(l, &l->runs);
	/* Of one that was left over from following nobody counts. */
	if (res.counted && item->id == 0)
		res.error = -EIO;
	if (item->id != 0) {
		give_result(l, item, &res);
		return true;
	}
	if (res.sync && res.error == 0) {
		item = remote_item_without_bytes(item);
		item->res = res;
		queue_add(&l->unsynced, item);
		remote_release_synced(l);
		return true;
	}
	follower_result(l, &item->run, &res);
	free(item);
	return true;
}
