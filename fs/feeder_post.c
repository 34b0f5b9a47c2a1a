/* SPDX-License-Identifier: MIT
 *
 * feeder_post: what the request thread hands to the net thread: roles, results of calls, waits for other machines, locks. An order
 * that must not be lost has its memory before.
 */
#include "fs/feeder_int.h"

#include "fs/device.h"
#include "fs/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct lead take_lead(struct remote *l)
{
	struct lead lead;

	pthread_mutex_lock(&l->lock);
	lead = l->lead;
	pthread_mutex_unlock(&l->lock);
	primary_set_cluster(l->primary, lead.cluster, lead.seed);
	return lead;
}

static void cluster_posted(void *ctx)
{
	(void)take_lead(ctx);
}

static void lead_posted(void *ctx)
{
	struct remote *l = ctx;
	struct lead lead = take_lead(l);

	primary_set_features(l->primary, MSG_FEATURES);
	primary_lead(l->primary, lead.epoch, lead.promised, store_seq(l->fs->store), store_durable_seq(l->fs->store), now_ms());
	feeder_pump(l);
}

static void post_lead(struct remote *l, struct net_work *work)
{
	struct lead lead = { .epoch = store_epoch(l->fs->store), .seed = store_hash_seed(l->fs->store) };
	struct store_identity id;

	store_identity(l->fs->store, &id);
	lead.promised = id.promised_epoch;
	memcpy(lead.cluster, id.cluster, sizeof lead.cluster);
	pthread_mutex_lock(&l->lock);
	l->lead = lead;
	pthread_mutex_unlock(&l->lock);
	(void)net_post_work(l->net, work);
}

void feeder_lead(struct remote *l)
{
	/* What was counted before was of an earlier epoch; the net thread counts nothing before it leads. */
	atomic_store(&l->synced, 0);
	post_lead(l, &l->lead_work);
}

void feeder_cluster(struct remote *l)
{
	post_lead(l, &l->cluster_work);
}

static void handed_posted(void *ctx)
{
	struct remote *l = ctx;

	primary_handed(l->primary, now_ms());
	feeder_pump(l);
}

void feeder_handed(struct remote *l)
{
	(void)net_post_work(l->net, &l->handed_work);
}

static void went_on_posted(void *ctx)
{
	struct remote *l = ctx;

	primary_went_on(l->primary, store_seq(l->fs->store), now_ms());
	feeder_pump(l);
}

void feeder_went_on(struct remote *l)
{
	(void)net_post_work(l->net, &l->went_on_work);
}

static void elsewhere_posted(void *ctx)
{
	struct remote *l = ctx;
	char name[sizeof l->elsewhere];

	pthread_mutex_lock(&l->lock);
	memcpy(name, l->elsewhere, sizeof name);
	pthread_mutex_unlock(&l->lock);
	primary_elsewhere(l->primary, name);
}

void feeder_elsewhere(struct remote *l, const char *who)
{
	pthread_mutex_lock(&l->lock);
	snprintf(l->elsewhere, sizeof l->elsewhere, "%s", who);
	pthread_mutex_unlock(&l->lock);
	(void)net_post_work(l->net, &l->elsewhere_work);
}

struct name_post {
	struct remote *l;
	char name[MSG_NAME_MAX + 1];
};

/* The remote mount of this name; without one, that which has applied most. */
static bool choose(struct remote *l, const char *name, struct primary_peer_status *ret)
{
	struct primary_peer_status st;
	bool found = false;

	for (unsigned i = 0; primary_peer_status(l->primary, i, now_ms(), &st) == 0; i++)
		if (st.state == PEER_STREAMS && !st.limited && (name[0] == '\0' || strcmp(st.name, name) == 0) &&
		    (!found || st.applied > ret->applied)) {
			*ret = st;
			found = true;
		}
	return found;
}

static void switch_posted(void *ctx)
{
	struct name_post *p = ctx;
	struct primary_peer_status st;
	int r = choose(p->l, p->name, &st) ? primary_switch(p->l->primary, st.store, now_ms()) : -ENOENT;

	if (r < 0)
		log_error("%s: not handed over%s%s: %s", p->l->fs->store_path, p->name[0] != '\0' ? " to " : "", p->name,
			  r == -ENOENT ? "no such remote mount follows with a key that is not limited" : strerror(-r));
	else
		feeder_pump(p->l);
	free(p);
}

int feeder_switch(struct remote *l, const char *name)
{
	struct name_post *p = malloc(sizeof *p);
	int r;

	if (p == NULL)
		return -ENOMEM;
	p->l = l;
	snprintf(p->name, sizeof p->name, "%s", name);
	r = net_post(l->net, switch_posted, p);
	if (r < 0)
		free(p);
	return r;
}

/* A program that waits for other machines. */
struct machine_wait {
	struct remote *l;
	seq_t seq;
	uint64_t unique;
	uint32_t size, replicas, wait_ms;
};

void feeder_waited(void *ctx, uint64_t cookie, int error)
{
	struct machine_wait *w = (void *)(uintptr_t)cookie;
	struct remote *l = ctx;
	struct fuse_write_out done = { .size = w->size };
	struct fuse_out_header head = { .len = sizeof head + (error == 0 ? sizeof done : 0), .error = error, .unique = w->unique };
	struct iovec iov[2] = { { &head, sizeof head }, { &done, sizeof done } };

	/* The device is open until this thread has ended. */
	(void)device_reply(l->fs->fd, iov, error == 0 ? 2 : 1);
	free(w);
}

static void wait_posted(void *ctx)
{
	struct machine_wait *w = ctx;
	struct remote *l = w->l;
	int r = primary_wait(l->primary, (uint64_t)(uintptr_t)w, w->seq, w->replicas, w->wait_ms, now_ms());

	if (r < 0)
		feeder_waited(l, (uint64_t)(uintptr_t)w, r);
	else
		feeder_pump(l);
}

int feeder_wait(struct remote *l, uint64_t unique, uint32_t size, uint32_t replicas, uint32_t wait_ms)
{
	struct machine_wait *w = malloc(sizeof *w);
	int r;

	if (w == NULL)
		return -ENOMEM;
	*w = (struct machine_wait){ l, store_seq(l->fs->store), unique, size, replicas, wait_ms };
	r = net_post(l->net, wait_posted, w);
	if (r < 0)
		free(w);
	return r;
}

static void result_posted(void *ctx)
{
	struct item *item = ctx;
	struct remote *l = item->l;

	primary_committed(l->primary, feeder_fed(l), atomic_load(&l->change_bytes), now_ms());
	primary_result(l->primary, item->run.client, item->run.request, item->run.token, &item->res, now_ms());
	free(item);
	feeder_pump(l);
}

void feeder_result(struct remote *l, struct item *item, const struct primary_result *res)
{
	const struct primary_result given = *res;
	bool refused;

	pthread_mutex_lock(&l->lock);
	refused = l->runs_refused && l->runs.count < RUNS_MAX / 2 && l->runs.bytes < RUNS_BYTES / 2;
	if (refused)
		l->runs_refused = false;
	pthread_mutex_unlock(&l->lock);
	/* If that is not heard: each tick tries. */
	if (refused)
		(void)net_post(l->net, feeder_retry_all, l);
	item->res = given;
	item->l = l;
	item->work = (struct net_work){ .fn = result_posted, .ctx = item };
	if (net_post_work(l->net, &item->work) < 0)
		free(item);
}

struct lock_post {
	struct remote *l;
	struct msg_lock m;
};

static void lock_posted(void *ctx)
{
	struct lock_post *p = ctx;

	primary_lock(p->l->primary, &p->m);
	feeder_pump(p->l);
	free(p);
}

void feeder_lock(struct remote *l, const struct msg_lock *m)
{
	struct lock_post *p = malloc(sizeof *p);

	if (p == NULL) {
		feeder_break(l);
		return;
	}
	*p = (struct lock_post){ l, *m };
	if (net_post(l->net, lock_posted, p) < 0)
		free(p);
}

void feeder_init_posts(struct remote *l)
{
	l->lead_work = (struct net_work){ .fn = lead_posted, .ctx = l };
	l->cluster_work = (struct net_work){ .fn = cluster_posted, .ctx = l };
	l->handed_work = (struct net_work){ .fn = handed_posted, .ctx = l };
	l->went_on_work = (struct net_work){ .fn = went_on_posted, .ctx = l };
	l->elsewhere_work = (struct net_work){ .fn = elsewhere_posted, .ctx = l };
}
