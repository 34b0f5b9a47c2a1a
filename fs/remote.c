/* SPDX-License-Identifier: MIT
 *
 * remote: see remote.h. Here: the inbox, what a committed change means for others, changes of roles,
 * what is done between two requests. Calls of other machines: remote_run.c; start and end: remote_start.c; status: remote_status.c.
 */
#include "fs/remote_int.h"

#include "fs/log.h"
#include "fs/repeat.h"

#include "core/keys/item.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OLD_WAITING    256      /* entries of the notifier while what is too old is taken from the kernel */

/* ---- Queues ---- */

void queue_init(struct queue *q)
{
	*q = (struct queue){ 0 };
	q->end = &q->first;
}

void queue_add(struct queue *q, struct item *item)
{
	item->next = NULL;
	*q->end = item;
	q->end = &item->next;
	q->count++;
	q->bytes += item->len;
}

struct item *queue_take(struct queue *q)
{
	struct item *item = q->first;

	if (item == NULL)
		return NULL;
	q->first = item->next;
	if (q->first == NULL)
		q->end = &q->first;
	q->count--;
	q->bytes -= item->len;
	return item;
}

void queue_clear(struct queue *q)
{
	struct item *item;

	while ((item = queue_take(q)) != NULL)
		free(item);
}

struct item *remote_item(enum news kind, net_id id, const void *bytes, uint32_t len)
{
	struct item *item = malloc(sizeof *item + len);

	if (item == NULL)
		return NULL;
	*item = (struct item){ .kind = kind, .id = id, .len = len, .since_ms = remote_now_ms() };
	if (len > 0)
		memcpy(item->bytes, bytes, len);
	return item;
}

struct item *remote_item_without_bytes(struct item *item)
{
	struct item *small = realloc(item, sizeof *item);

	if (small == NULL)
		small = item;
	small->run.bytes = NULL;
	small->run.len = small->len = 0;
	return small;
}

void remote_push(struct remote *l, struct item *item)
{
	pthread_mutex_lock(&l->lock);
	/* Clients come and go in the order of their calls. */
	queue_add(item->kind == NEWS_RUN || item->kind >= NEWS_CLIENT_HERE ? &l->runs : &l->inbox, item);
	pthread_mutex_unlock(&l->lock);
	session_wake(l->fs);
}

struct item *remote_take(struct remote *l, struct queue *q)
{
	struct item *item;
	bool resume;

	pthread_mutex_lock(&l->lock);
	item = queue_take(q);
	resume = l->paused && l->inbox.bytes < INBOX_BYTES / 2;
	if (resume)
		l->paused = false;
	pthread_mutex_unlock(&l->lock);
	if (resume && l->link != 0)
		(void)net_resume(l->net, l->link);
	return item;
}

/* ---- The epochs ---- */

void remote_read_history(struct remote *l)
{
	struct keys_epoch epochs[KEYS_HISTORY_MAX];
	struct history h = { 0 };
	unsigned count = 0;

	if (keys_history(l->fs->keys, epochs, MSG_HISTORY_MAX, &count) < 0)
		count = 0;
	for (unsigned i = 0; i < count; i++) {
		h.at[i] = (struct history_entry){ .epoch = epochs[i].epoch, .first = epochs[i].first_seq,
						  .nonce = epochs[i].nonce };
		memcpy(h.at[i].store, epochs[i].uuid, sizeof h.at[i].store);
	}
	h.count = count;
	pthread_mutex_lock(&l->lock);
	l->history = h;
	pthread_mutex_unlock(&l->lock);
}

void remote_history(struct remote *l, struct history *ret)
{
	pthread_mutex_lock(&l->lock);
	*ret = l->history;
	pthread_mutex_unlock(&l->lock);
	ret->last = store_seq(l->fs->store);
}

/* ---- What a change means ---- */

static bool known(struct remote *l, uint64_t ino)
{
	return ino == KEYS_ROOT_INO || inodes_known(&l->fs->inodes, ino);
}

/* own: the kernel here asked for it, and knows. */
static void look_at(struct remote *l, const struct change_event *e, bool own)
{
	switch (e->kind) {
	case EVENT_NAME:
		if (own)
			repeat_named(l->fs->repeat, e->dir, e->name, e->len, e->ino);
		/* fall through */
	case EVENT_NO_NAME:
		if (!own && e->len > 0 && known(l, e->dir))
			notify_name(l->notify, e->dir, e->name, e->len);
		break;
	case EVENT_ATTR: case EVENT_XATTR:
		if (!own && known(l, e->ino))
			notify_attr(l->notify, e->ino);
		if (!own && l->fs->pending != NULL)
			pending_crossed(l->fs->pending, e->ino);
		break;
	case EVENT_DATA:
		if (!own && known(l, e->ino))
			notify_data(l->notify, e->ino, e->from, e->to > e->from && e->to < INT64_MAX ? e->to - e->from : 0);
		break;
	case EVENT_ORPHAN:
		if (l->leads)
			break;          /* ops_orphaned() follows */
		/* Marked and known: this mount was away for a lease. Then it is gone for changes; here it can be read until it is
		 * forgotten. */
		if (!inodes_mark_orphan(&l->fs->inodes, e->ino)) {
			if (e->marked)
				reaper_add(l->fs, e->ino);
		} else if (!e->marked) {
			replica_hold(l->replica, e->ino, false);
		}
		break;
	case EVENT_CALL:
		if (own && !l->leads)
			follower_made(l, e->request, e->number);
		break;
	case EVENT_EPOCH:
		remote_read_history(l);
		break;
	default:
		break;
	}
}

void remote_committed(void *ctx, const uint8_t *rec, uint32_t len)
{
	struct fs *fs = ctx;
	struct remote *l = fs->remote;
	struct change_events events;
	struct change_event e;
	bool own;

	if (l == NULL || !l->feeds)
		return;
	feed_add(&l->feed, rec, len);
	atomic_fetch_add_explicit(&l->change_bytes, len, memory_order_relaxed);
	/* Calls that were left over when a remote mount became the primary are of programs here, too. */
	own = get_le64(rec + REC_CLIENT) == (l->leads ? 0 : l->client) || get_le64(rec + REC_CLIENT) == l->client;
	/* What a local program did on a primary concerns the epoch only, which no call changes. */
	if (!(l->leads && own && get_le16(rec + REC_TYPE) != CHANGE_EPOCH) &&
	    change_events_of_record(&events, rec, len) == 0)
		while (change_event(&events, &e) == 1)
			look_at(l, &e, own);
	if (!own)
		repeat_record(fs->repeat, rec, len);
	if (l->leads || l->relays)
		feeder_kick(l);
}

/* ---- Changes of roles ---- */

/* Another primary was made: this one is none any more. */
static void fenced(struct remote *l, uint64_t promised)
{
	struct store_identity id;
	uint64_t ticket;

	store_identity(l->fs->store, &id);
	if (id.role != STORE_PRIMARY)
		return;
	id.role = STORE_REPLICA;
	id.promised_epoch = max_u64(id.promised_epoch, promised);
	log_error("%s: another machine is the primary of this cluster now (epoch %llu): no changes are taken here any more: "
		  "unmount, and mount with --from", l->fs->store_path, (unsigned long long)promised);
	(void)store_set_identity(l->fs->store, &id, &ticket);
	defer_give_up(&l->fs->synced);
	remote_drop_unsynced(l, -EIO);
	lockd_fenced(l->lockd);
}

static void mark(struct remote *l, uint64_t ino)
{
	/* Who leads next marks it. Known again, or no space: it is found when the store is opened again. */
	if (l->leads && !l->handing && !inodes_known(&l->fs->inodes, ino) && keys_mark_orphan(l->fs->keys, ino) == 0)
		reaper_add(l->fs, ino);
}

static void hand_over(struct remote *l, uint64_t next, seq_t seq)
{
	struct store_identity id;

	/* The word that changes are parked and a change passed each other: nobody but this thread could know. */
	if (store_seq(l->fs->store) != seq) {
		feeder_went_on(l);
		return;
	}
	store_identity(l->fs->store, &id);
	id.role = STORE_REPLICA;
	id.promised_epoch = max_u64(id.promised_epoch, next);
	/* From here on the store takes no changes, until it is known whom to send them to. */
	l->handing = true;
	if (store_set_identity(l->fs->store, &id, &l->hand_ticket) < 0)
		l->hand_ticket = 0;
}

static void hold_orphan(void *l, uint64_t ino)
{
	replica_hold(((struct remote *)l)->replica, ino, false);
}

/* Another one is the primary: follow it. Until that has begun no changes are taken. */
static int handed(struct remote *l, const char *name)
{
	int r = follower_init(l);

	/* What programs here have open without a name only this store knew of; who was fed from here goes to the new primary, and
	 * says there what it has. */
	if (r == 0) {
		replica_hold_none(l->replica);
		inodes_each_orphan(&l->fs->inodes, hold_orphan, l);
	}
	if (r == 0)
		r = follower_follow(l, name);
	if (r == -ENOMEM)
		return -EAGAIN;
	l->leads = false;
	/* Our engine still has these calls, as sent. */
	remote_drop_unsynced(l, 0);
	clients_release(&l->clients);
	l->handed_over = true;
	/* Whoever takes over has what they wait for; whether the others do, nobody here will know. */
	defer_give_up(&l->fs->synced);
	log_info("%s: %s is the primary now", l->fs->store_path, name[0] != '\0' ? name : "another machine");
	if (r < 0)
		log_error("%s: cannot follow it: %s: mount again with --from", l->fs->store_path, err_last());
	lockd_follow(l->lockd);
	l->handing = false;
	atomic_store(&l->parked, false);
	return 0;
}

/* ---- Too old a state (max-stale) ---- */

int remote_may_read(const struct remote *l)
{
	return l == NULL || l->leads || l->replica == NULL ? 0 : replica_may_read(l->replica, (uint64_t)remote_now_ms());
}

/* What the kernel has is told of changes, so it is as old as the store. It may use it until the store is too old, as far as is
 * known now; if the primary is heard of meanwhile, it asks once more and goes on. A primary may become a remote mount. */
double remote_valid_s(const struct remote *l)
{
	uint64_t limit_ms, stale_ms = 0;

	if (l == NULL || l->fs->options->max_stale_s == 0)
		return FS_FOREVER_S;
	limit_ms = (uint64_t)l->fs->options->max_stale_s * 1000;
	if (!l->leads && l->replica != NULL)
		stale_ms = replica_stale_ms(l->replica, (uint64_t)remote_now_ms());
	return stale_ms < limit_ms ? (double)(limit_ms - stale_ms) / 1000 : 0;
}

/* Contents that are mapped, or read by splice, are not asked for again by the kernel, however old their attributes are: so
 * they are taken from it. Names and attributes are over by themselves (remote_valid_s()). */
static void take_from_kernel(struct remote *l)
{
	size_t count = inodes_count(&l->fs->inodes);

	free(l->old);
	l->old = malloc((count + 1) * sizeof *l->old);
	if (l->old == NULL)
		return;         /* tried again */
	l->old_count = inodes_list(&l->fs->inodes, l->old, count);
	l->old[l->old_count++] = KEYS_ROOT_INO;
	l->too_old = true;
}

/* A few at a time: the notifier's queue is for changes. */
static void tend_old(struct remote *l)
{
	size_t waiting;
	uint64_t ns;

	notify_lag(l->notify, &waiting, &ns);
	for (; l->old_count > 0 && waiting < OLD_WAITING; waiting++)
		notify_data(l->notify, l->old[--l->old_count], 0, 0);
	if (l->old_count > 0)
		return;
	free(l->old);
	l->old = NULL;
}

static void look_at_age(struct remote *l)
{
	bool too_old = remote_may_read(l) < 0;

	if (too_old && !l->too_old) {
		take_from_kernel(l);
		if (l->too_old)
			log_warn("%s: its state is older than %u s: reads get ESTALE", l->fs->store_path, l->fs->options->max_stale_s);
	} else if (!too_old && l->too_old) {
		l->too_old = false;
		log_info("%s: its state is recent again: it can be read", l->fs->store_path);
	}
	if (l->old != NULL)
		tend_old(l);
}

/* ---- Between requests ---- */

static int handle(struct remote *l, struct item *item)
{
	switch (item->kind) {
	case NEWS_HAND_OVER:
		hand_over(l, item->number, item->seq);
		return 0;
	case NEWS_HANDED:
		return handed(l, (const char *)item->bytes);
	case NEWS_MARK:
		mark(l, item->number);
		return 0;
	case NEWS_FENCED:
		fenced(l, item->number);
		return 0;
	case NEWS_HELD:
	case NEWS_TREE:
		relay_news(l, item);
		return 0;
	default:
		return follower_item(l, item);
	}
}

/* A key that is limited to a directory needs to know where files are. Those of older versions, and of a store that was loaded, are
 * looked for once. True: there are more. */
static bool walk_names(struct remote *l)
{
	int r = keys_where_settle(l->fs->keys, &l->walk);

	/* No space: with the next request or tick. Damage is told by who meets it; from there on files keep what they have. */
	l->walks = r > 0 || r == -EAGAIN || r == -ENOSPC;
	return r > 0;
}

bool remote_limits_trees(const struct keyring *ring)
{
	for (size_t i = 0; ring != NULL && i < ring->count; i++)
		if (ring->keys[i].tree != NULL)
			return true;
	return false;
}

void remote_walk(struct remote *l)
{
	l->walk = (struct keys_where_walk){ 0 };
	l->walks = remote_limits_trees(l->ring);
}

bool remote_step(struct remote *l)
{
	struct item *item;
	bool more = false;
	uint64_t want;

	if (l == NULL)
		return false;
	atomic_fetch_add_explicit(&l->turns, 1, memory_order_relaxed);
	for (unsigned i = 0; i < STEP_ITEMS; i++) {
		item = l->stuck.first != NULL ? queue_take(&l->stuck) : remote_take(l, &l->inbox);
		if (item == NULL)
			break;
		if (handle(l, item) == -EAGAIN) {
			queue_add(&l->stuck, item);
			break;
		}
		free(item);
		more = i + 1 == STEP_ITEMS;
	}
	remote_release_results(l);
	remote_release_synced(l);
	for (unsigned i = 0; i < STEP_ITEMS && remote_run_next(l); i++)
		more = i + 1 == STEP_ITEMS;
	want = atomic_load(&l->want_checkpoint);
	if (want != 0 && (store_checkpoint_seq(l->fs->store) + 1 >= want || store_checkpoint(l->fs->store) == 0))
		(void)atomic_compare_exchange_strong(&l->want_checkpoint, &want, 0);
	if (l->hand_ticket != 0 && store_identity_durable(l->fs->store) >= l->hand_ticket) {
		l->hand_ticket = 0;
		feeder_handed(l);
	}
	if (l->replica != NULL)
		more = follower_step(l) || more;
	if (l->leads && !remote_parks(l))
		clients_step(&l->clients, (uint64_t)remote_now_ms());
	if (l->leads && !remote_parks(l) && l->walks)
		more = walk_names(l) || more;
	lockd_step(l->lockd);
	if (l->notify != NULL && l->fs->options->max_stale_s != 0)
		look_at_age(l);
	return more || l->old != NULL;
}

bool remote_parks(const struct remote *l)
{
	return l != NULL && (l->handing || atomic_load_explicit(&((struct remote *)(uintptr_t)l)->parked, memory_order_relaxed));
}

/* The key with which this mount connects, if that is limited. It is so at the other end, whatever stands here; but who means well
 * begins nothing with it that would be refused there. */
const struct net_key *remote_own_limit(const struct remote *l)
{
	const struct net_key *k = l->ring != NULL ? &l->ring->keys[0] : NULL;

	return k != NULL && l->fs->options->from != NULL && key_is_limited(k) ? k : NULL;
}

int remote_promote(struct remote *l)
{
	int r = l->leads || l->replica == NULL ? err_set(EINVAL, "this is the primary") :
		remote_own_limit(l) != NULL ? err_set(EPERM, "its key is limited: only a machine with a key without limits becomes the primary") :
		follower_promote(l);

	if (r < 0)
		log_error("%s: not promoted: %s", l->fs->store_path, err_last());
	return r;
}

int remote_demote(struct remote *l, const char *name)
{
	if (!l->leads)
		return -EINVAL;
	return feeder_switch(l, name);
}

size_t remote_locks(const struct remote *l, char *buf, size_t size)
{
	return l != NULL ? lockd_to_text(l->lockd, buf, size) : 0;
}

struct lockd *remote_lockd(struct remote *l)
{
	return l->lockd;
}

int remote_wait(struct remote *l, uint64_t unique, uint32_t size, uint32_t replicas, uint32_t wait_ms)
{
	if (l == NULL || !l->feeds || !l->leads)
		return -EINVAL;
	store_sync_request(l->fs->store);
	return feeder_wait(l, unique, size, replicas, wait_ms);
}

bool remote_waits(const struct remote *l)
{
	return l != NULL && l->leads && l->fs->options->sync_replicas != 0;
}

uint64_t remote_synced(const struct remote *l)
{
	return l != NULL ? atomic_load_explicit(&((struct remote *)(uintptr_t)l)->synced, memory_order_acquire) : 0;
}

const struct feed *remote_feed(const struct remote *l)
{
	return l != NULL && l->feeds ? &l->feed : NULL;
}

bool remote_leads(const struct remote *l)
{
	return l->leads;
}

bool remote_owns_store(const struct remote *l)
{
	return l != NULL && l->diff != NULL;
}

void remote_progress(struct remote *l)
{
	if (l != NULL && l->leads && l->feeds)
		feeder_kick(l);
}

void remote_orphan(struct remote *l, uint64_t ino)
{
	bool marked;

	if (l->leads) {
		feeder_orphan(l, ino, store_seq(l->fs->store));
		return;
	}
	replica_release(l->replica, ino, false);
	if (keys_orphan_marked(l->fs->keys, ino, &marked) == 0 && marked)
		reaper_add(l->fs, ino);
}
