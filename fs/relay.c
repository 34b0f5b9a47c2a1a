/* SPDX-License-Identifier: MIT
 *
 * relay: a remote mount that feeds others (core/replica/DESIGN.md, section 6): the primary's engine on the net thread serves
 * them, and the replica's engine on the request thread sends their calls on. Here is what the two tell each other.
 *
 * Those behind are fed only while this mount streams itself: on one link, in one epoch, from a state that makes no jump. When
 * any of that ends, their links end first: the request thread gives the order, and goes on (applies what is of another epoch
 * or line, begins an epoch) only when the net thread has carried it out, since the feed is read there. So nobody behind is
 * ever sent what does not follow on what it has, and to each of them a link that broke further up is a link that broke:
 * their patience runs, and their locks are stated anew. What they hold counts for a lease after.
 *
 * Orders go by net_post(), in order; what comes back (calls, holds, positions) by the inbox, in order: a position is never
 * told before the holds that came before it (R5).
 */
#include "fs/remote_int.h"

#include "fs/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Orders: request thread, then net thread ---- */

enum order { ORDER_RELAY, ORDER_PAUSE, ORDER_PATH };

struct relay_post {
	struct remote *l;
	enum order order;
	uint64_t epoch, promised, seed;
	uint64_t features;
	uint8_t cluster[16], path[MSG_PATH_MAX * 16];
	uint32_t path_count;
	seq_t last;
};

static void carry_out(void *ctx)
{
	struct relay_post *p = ctx;
	struct remote *l = p->l;
	uint64_t now = (uint64_t)remote_now_ms();

	switch (p->order) {
	case ORDER_RELAY:
		primary_set_cluster(l->primary, p->cluster, p->seed);
		primary_set_features(l->primary, p->features | MSG_FEATURES_OWN);
		primary_relay(l->primary, p->epoch, p->promised, p->last, now);
		break;
	case ORDER_PAUSE:
		primary_pause(l->primary, "this replica's own link is over: connect again");
		break;
	case ORDER_PATH:
		primary_set_path(l->primary, p->path, p->path_count);
		break;
	}
	free(p);
	atomic_fetch_add(&l->relay_done, 1);
	feeder_pump(l);
	session_wake(l->fs);
}

static bool give(struct remote *l, const struct relay_post *order)
{
	struct relay_post *p = malloc(sizeof *p);

	if (p == NULL)
		return false;
	*p = *order;
	p->l = l;
	if (net_post(l->net, carry_out, p) < 0) {
		free(p);
		return false;
	}
	l->relay_posts++;
	return true;
}

bool relay_stop(struct remote *l)
{
	if (l->relays) {
		if (!give(l, &(struct relay_post){ .order = ORDER_PAUSE }))
			return false;
		l->relays = false;
	}
	return atomic_load(&l->relay_done) == l->relay_posts;
}

bool relay_welcome(struct remote *l, const struct msg_welcome *w)
{
	if (l->relays && w->decision == WELCOME_STREAM && w->epoch == l->relay_epoch && l->link == l->relay_link)
		return true;
	/* It comes again; until then nothing is begun that would have to be stopped once more. */
	l->relay_held_back = relay_stop(l) ? 0 : l->link;
	return l->relay_held_back == 0;
}

static void begin(struct remote *l, const struct replica_status *st)
{
	struct relay_post p = { .order = ORDER_RELAY, .epoch = st->link_epoch, .promised = st->promised, .last = st->applied,
				.seed = store_hash_seed(l->fs->store), .features = st->features };
	struct store_identity id;

	store_identity(l->fs->store, &id);
	memcpy(p.cluster, id.cluster, sizeof p.cluster);
	atomic_store(&l->relay_durable, 0);
	if (!give(l, &p))
		return;
	l->relays = true;
	l->relay_link = st->link;
	l->relay_epoch = st->link_epoch;
	if (l->relay_since_ms == 0)
		l->relay_since_ms = remote_now_ms();
}

/* Whom this mount follows, and whom those follow, it does not let in. */
static void tell_path(struct remote *l)
{
	struct relay_post p = { .order = ORDER_PATH };

	p.path_count = replica_path(l->replica, p.path);
	if (p.path_count == l->relay_path_count && memcmp(p.path, l->relay_path, sizeof p.path) == 0)
		return;
	if (!give(l, &p))
		return;
	l->relay_path_count = p.path_count;
	memcpy(l->relay_path, p.path, sizeof p.path);
}

void relay_step(struct remote *l, const struct replica_status *st)
{
	bool same = st->link == l->relay_link && (st->state == REPLICA_STREAM || st->state == REPLICA_HELLO);

	/* Who was the primary sends others to the one that is it now. */
	if (l->fs->options->listen == NULL || l->leads || l->handed_over)
		return;
	tell_path(l);
	if (l->relays && !same)
		(void)relay_stop(l);
	if (!l->relays && st->state == REPLICA_STREAM && st->link != l->relay_held_back && relay_stop(l))
		begin(l, st);
	if (!l->relays)
		return;
	atomic_store(&l->relay_fresh_ms, (uint64_t)remote_now_ms() - st->stale_ms);
	atomic_store(&l->relay_durable, min_u64(st->primary_durable, st->applied));
	/* Whoever was fed before is here again by now, or has been away for a lease. */
	if (remote_now_ms() - l->relay_since_ms >= LEASE_MS)
		replica_hold_all(l->replica, false);
}

/* ---- What comes from those behind: request thread ---- */

void relay_answer(struct remote *l, uint64_t client, uint64_t session, uint64_t request, uint64_t token,
		  const struct replica_answer *a)
{
	const struct primary_result res = { .error = a->error, .sync = (a->flags & RESULT_SYNC) != 0, .seq = a->seq,
					    .number = a->number };
	struct item *item;

	/* Answers come in the order of the calls, mostly. */
	for (size_t n = l->forwarded.count; n > 0; n--) {
		item = queue_take(&l->forwarded);
		if (item->run.token == token && item->run.client == client && item->run.session == session &&
		    item->run.request == request) {
			feeder_result(l, item, &res);
			return;
		}
		queue_add(&l->forwarded, item);
	}
}

int relay_run(struct remote *l, const struct item *item)
{
	/* Its link has ended, or will: it is sent again. */
	return l->relays ? replica_forward(l->replica, &item->run, (uint64_t)remote_now_ms()) : -ENOTCONN;
}

void relay_keep(struct remote *l, struct item *item)
{
	queue_add(&l->forwarded, remote_item_without_bytes(item));
}

void relay_client(struct remote *l, const struct item *item)
{
	const struct primary_run *who = &item->run;

	if (l->replica == NULL)
		return;
	if (item->kind == NEWS_CANCEL)
		replica_forward_cancel(l->replica, who->client, who->request, who->token);
	else if (item->kind != NEWS_CLIENT_EXPIRED)
		replica_client(l->replica, who->client, who->session, who->low, item->kind == NEWS_CLIENT_LEFT,
			       item->type ? item->bytes : NULL, item->len);
}

void relay_news(struct remote *l, const struct item *item)
{
	if (l->leads || l->replica == NULL)
		return;
	if (item->kind == NEWS_TREE)
		replica_tree(l->replica, item->number, item->durable, item->type);
	else if (item->type)
		replica_hold(l->replica, item->number, true);
	else
		replica_release(l->replica, item->number, true);
}

/* ---- Net thread ---- */

void relay_held(struct remote *l, uint64_t ino, bool held)
{
	struct item *item = remote_item(NEWS_HELD, 0, NULL, 0);

	if (item == NULL) {
		/* One that is held too long does no harm. For one that is not known to be held, what those behind have is
		 * said no more: so nothing is ever marked that they might hold. */
		l->tree_lost = l->tree_lost || held;
		return;
	}
	item->number = ino;
	item->type = held;
	remote_push(l, item);
}

static void tell_tree(struct remote *l)
{
	seq_t applied = UINT64_MAX, durable = UINT64_MAX;
	struct item *item;
	uint32_t count;

	primary_tree(l->primary, &applied, &durable, &count);
	if (l->tree_lost || (applied == l->tree_applied && durable == l->tree_durable && count == l->tree_count))
		return;
	item = remote_item(NEWS_TREE, 0, NULL, 0);
	if (item == NULL)
		return;
	item->number = l->tree_applied = applied;
	item->durable = l->tree_durable = durable;
	item->type = l->tree_count = count;
	remote_push(l, item);
}

void relay_pump(struct remote *l)
{
	uint64_t now = (uint64_t)remote_now_ms(), fresh = atomic_load(&l->relay_fresh_ms);

	primary_durable(l->primary, atomic_load(&l->relay_durable));
	primary_set_stale(l->primary, (uint32_t)min_u64(now > fresh ? now - fresh : 0, UINT32_MAX));
	tell_tree(l);
}
