/* SPDX-License-Identifier: MIT
 *
 * remote: see remote.h. Here: start and end, the inbox, calls of remote mounts, what a committed change means for others.
 */
#include "fs/remote_int.h"

#include "fs/cmd.h"
#include "fs/control.h"
#include "fs/log.h"
#include "fs/ops.h"
#include "fs/repeat.h"
#include "fs/say.h"

#include "core/keys/item.h"
#include "core/replica/limit.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define RUN_LIMIT_MS   30000    /* a call that finds no space so long gets ENOSPC */
#define FRAME_MALLOC   (2 << 20)        /* longer than any frame */
#define FRAMES_KEPT    (16 << 20)       /* as much as the inbox holds */
#define OLD_WAITING    256      /* entries of the notifier while what is too old is taken from the kernel */
#define TOLD_LIMIT_MS  1000

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

static struct item *take(struct remote *l, struct queue *q)
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
	struct item *taken = aside ? take(l, &l->runs) : NULL;

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
static void release_results(struct remote *l)
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
	release_results(l);
}

/* The oldest call that waits. False: there is none, or it finds no space yet. */
static bool run_next(struct remote *l)
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
		item = take(l, &l->runs);
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
	item = take(l, &l->runs);
	/* Of one that was left over from following nobody counts. */
	if (res.counted && item->id == 0)
		res.error = -EIO;
	if (item->id != 0) {
		give_result(l, item, &res);
		return true;
	}
	follower_result(l, &item->run, &res);
	free(item);
	return true;
}

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

static bool limits_trees(const struct keyring *ring)
{
	for (size_t i = 0; ring != NULL && i < ring->count; i++)
		if (ring->keys[i].tree != NULL)
			return true;
	return false;
}

void remote_walk(struct remote *l)
{
	l->walk = (struct keys_where_walk){ 0 };
	l->walks = limits_trees(l->ring);
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
		item = l->stuck.first != NULL ? queue_take(&l->stuck) : take(l, &l->inbox);
		if (item == NULL)
			break;
		if (handle(l, item) == -EAGAIN) {
			queue_add(&l->stuck, item);
			break;
		}
		free(item);
		more = i + 1 == STEP_ITEMS;
	}
	release_results(l);
	for (unsigned i = 0; i < STEP_ITEMS && run_next(l); i++)
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
static const struct net_key *own_limit(const struct remote *l)
{
	const struct net_key *k = l->ring != NULL ? &l->ring->keys[0] : NULL;

	return k != NULL && l->fs->options->from != NULL && key_is_limited(k) ? k : NULL;
}

int remote_promote(struct remote *l)
{
	int r = l->leads || l->replica == NULL ? err_set(EINVAL, "this is the primary") :
		own_limit(l) != NULL ? err_set(EPERM, "its key is limited: only a machine with a key without limits becomes the primary") :
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

/* ---- Status ---- */

void remote_limit_text(const char *tree, char text[KEY_LIMIT_TEXT])
{
	(void)snprintf(text, KEY_LIMIT_TEXT, "%s%s", tree != NULL ? "tree:" : "read-only", tree != NULL ? tree : "");
	/* What a shell would not take as it is. */
	for (char *c = text; *c != '\0'; c++)
		if (*c == '\'' || (unsigned char)*c < ' ')
			*c = '?';
}

static size_t follower_status(struct remote *l, char *buf, size_t size)
{
	static const char *const states[] = { "down", "hello", "aside", "diff", "stream", "leading", "leads" };
	struct replica_status st;
	struct diff_progress p = { 0 };
	char trouble[256];
	int n;

	replica_status(l->replica, (uint64_t)remote_now_ms(), &st);
	if (l->diff != NULL)
		diff_target_progress(l->diff, &p);
	pthread_mutex_lock(&l->lock);
	memcpy(trouble, l->trouble, sizeof trouble);
	pthread_mutex_unlock(&l->lock);
	for (char *c = trouble; *c != '\0'; c++)
		if (*c == '\'')
			*c = '?';
	n = snprintf(buf, size, "from='%s'\nlink_state=%s\nlink_trouble='%s'\nprimary_seq=%llu\nprimary_durable_seq=%llu\n"
		     "lag_changes=%llu\nstale_seconds=%llu.%03llu\nmax_stale_seconds=%u\nreads=%s\nopen_calls=%u\nholds=%u\nsync_total_bytes=%llu\nsync_done_bytes=%llu\n"
		     "comparisons=%llu\n",
		     l->address, states[st.state], st.state == REPLICA_STREAM ? "" : trouble,
		     (unsigned long long)st.primary_last, (unsigned long long)st.primary_durable,
		     (unsigned long long)(st.primary_last > st.applied ? st.primary_last - st.applied : 0),
		     (unsigned long long)st.stale_ms / 1000, (unsigned long long)st.stale_ms % 1000, l->fs->options->max_stale_s,
		     remote_may_read(l) < 0 ? "refused" : "ok", st.open_calls, st.holds,
		     (unsigned long long)p.total_bytes, (unsigned long long)p.done_bytes, (unsigned long long)l->comparisons);
	return n > 0 && (size_t)n < size ? (size_t)n : 0;
}

size_t remote_status(struct remote *l, char *buf, size_t size)
{
	size_t len = 0, waiting;
	uint64_t lag_ns;
	struct net_stat ns;
	int n;

	if (l == NULL)
		return 0;
	if (!l->leads)
		len = follower_status(l, buf, size);
	if (l->leads && limits_trees(l->ring)) {
		n = snprintf(buf + len, size - len, "limits=%s\n", l->walks ? "looking" : "ready");
		len += n > 0 && (size_t)n < size - len ? (size_t)n : 0;
	}
	if (own_limit(l) != NULL && !l->leads) {
		char limit[KEY_LIMIT_TEXT];

		remote_limit_text(own_limit(l)->tree, limit);
		n = snprintf(buf + len, size - len, "key_limit='%s'\n", limit);
		len += n > 0 && (size_t)n < size - len ? (size_t)n : 0;
	}
	pthread_mutex_lock(&l->lock);
	n = snprintf(buf + len, size - len, "%s", l->peers);
	pthread_mutex_unlock(&l->lock);
	if (n > 0 && (size_t)n < size - len)
		len += (size_t)n;
	if (l->link != 0 && net_stat(l->net, l->link, &ns) == 0) {
		n = snprintf(buf + len, size - len, "link_bytes_received=%llu\nlink_bytes_sent=%llu\nlink_round_trip_seconds=%llu.%06llu\n",
			     (unsigned long long)ns.bytes_in, (unsigned long long)ns.bytes_out,
			     (unsigned long long)ns.rtt_ns / 1000000000, (unsigned long long)ns.rtt_ns % 1000000000 / 1000);
		if (n > 0 && (size_t)n < size - len)
			len += (size_t)n;
	}
	len += repeat_status(l->fs->repeat, buf + len, size - len);
	notify_lag(l->notify, &waiting, &lag_ns);
	n = snprintf(buf + len, size - len, "relay=%s\nclients_forgotten=%llu\npeers=%llu\nnotify_waiting=%zu\nnotify_lag_seconds=%llu.%06llu\n",
		     l->relays ? "on" : "off", (unsigned long long)l->clients.forgot, (unsigned long long)atomic_load(&l->peer_count), waiting, (unsigned long long)lag_ns / 1000000000,
		     (unsigned long long)lag_ns % 1000000000 / 1000);
	return n > 0 && (size_t)n < size - len ? len + (size_t)n : len;
}

/* ---- Start and end ---- */

/* While a remote mount catches up, frames of up to 1.25 MiB come and go. By default glibc gives the memory of each back to the
 * system and asks for it again, and every page of it is cleared and faulted in anew, which costs more than what is done with the
 * bytes. */
static void keep_memory_of_frames(void)
{
#ifdef __GLIBC__
	(void)mallopt(M_MMAP_THRESHOLD, FRAME_MALLOC);
	(void)mallopt(M_TRIM_THRESHOLD, FRAMES_KEPT);
#endif
}

int remote_new(struct fs *fs, struct remote **ret)
{
	const struct options *o = fs->options;
	struct remote *l;
	int r;

	*ret = NULL;
	if (o->listen == NULL && o->from == NULL)
		return 0;
	l = calloc(1, sizeof *l);
	if (l == NULL) {
		log_error("out of memory: free some");
		return -ENOMEM;
	}
	keep_memory_of_frames();
	l->fs = fs;
	l->leads = o->from == NULL;
	queue_init(&l->inbox);
	queue_init(&l->runs);
	queue_init(&l->stuck);
	queue_init(&l->untold);
	queue_init(&l->forwarded);
	pthread_mutex_init(&l->lock, NULL);
	if (o->key_file != NULL) {
		r = keyring_load(o->key_file, &l->ring);
		if (r < 0) {
			say_error(SAY_FILE, o->key_file, NULL, r);
			remote_free(l);
			return r;
		}
	}
	if (o->listen != NULL && own_limit(l) != NULL && own_limit(l)->tree != NULL) {
		log_error("%s: its first key is limited to %s: with that this mount may follow, but feed nobody: leave out --listen",
			  o->key_file, own_limit(l)->tree);
		remote_free(l);
		return -EPERM;
	}
	*ret = l;
	return 0;
}

void remote_free(struct remote *l)
{
	if (l == NULL)
		return;
	queue_clear(&l->inbox);
	queue_clear(&l->runs);
	queue_clear(&l->stuck);
	queue_clear(&l->untold);
	queue_clear(&l->forwarded);
	if (l->feeds)
		feed_release(&l->feed);
	free(l->old);
	clients_release(&l->clients);
	keyring_free(l->ring);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

int remote_check_alone(struct fs *fs)
{
	struct store_identity id;

	store_identity(fs->store, &id);
	if (id.role != STORE_REPLICA || fs->options->read_only)
		return 0;
	log_error("%s: a replica of another machine's mount: give --from=ADDR, or mount it with -o ro", fs->store_path);
	return -EROFS;
}

static bool is_zero(const uint8_t id[16])
{
	static const uint8_t zero[16];

	return memcmp(id, zero, sizeof zero) == 0;
}

/* This store is the primary, and has been one, or is one from now on. */
static int lead(struct remote *l)
{
	struct store *s = l->fs->store;
	struct store_identity id;
	int r = 0;

	store_identity(s, &id);
	if (id.role == STORE_REPLICA) {
		log_error("%s: a replica of another machine's mount: give --from=ADDR instead of --listen", l->fs->store_path);
		return -EROFS;
	}
	l->was_primary = id.role == STORE_PRIMARY;
	if (id.role == STORE_ALONE) {
		id.role = STORE_PRIMARY;
		id.promised_epoch = max_u64(id.promised_epoch, epoch_next_term(store_epoch(s)));
		if (is_zero(id.cluster) && store_random(s, id.cluster, sizeof id.cluster) < 0)
			return -EIO;
		/* Before anybody can see a change of this epoch. */
		r = store_put_identity(s, &id);
		if (r == 0)
			r = keys_begin_epoch(l->fs->keys, id.promised_epoch);
	}
	if (r < 0)
		say_error(SAY_MOUNT, l->fs->store_path, "cannot become a primary", r);
	return r;
}

static int check_follower(struct remote *l)
{
	struct store *s = l->fs->store;
	struct store_identity id;

	store_identity(s, &id);
	if (id.role == STORE_ALONE && store_seq(s) > 0 && !l->fs->options->replace) {
		log_error("%s: has files of its own and never was a replica: give the name of a new file, or -o replace to give "
			  "them up (they are dumped first)", l->fs->store_path);
		return -ENOTEMPTY;
	}
	return 0;
}

static int start_net(struct remote *l)
{
	struct net_options no = { .keys = l->ring };
	struct net_owner owner = feeder_owner;
	const char *listen = l->fs->options->listen, *what = listen != NULL ? listen : l->fs->options->from;
	net_id timer;
	int r;

	owner.ctx = l;
	r = net_start(&no, &owner, &l->net);
	if (r == 0)
		r = net_every(l->net, TICK_NET_MS, feeder_tick, l, &timer);
	if (r == 0 && l->leads)
		feeder_lead(l);
	else if (r == 0)
		feeder_cluster(l);
	if (r == 0 && listen != NULL)
		r = net_listen(l->net, listen, NULL);
	if (r == 0 && !l->leads) {
		what = l->fs->options->from;
		r = follower_follow(l, what);
	}
	if (r < 0)
		say_error(SAY_ADDRESS, what, NULL, r);
	return r;
}

static int send_away(void *ctx, net_id id, const char *address)
{
	(void)ctx;
	(void)id;
	(void)address;
	return -EAGAIN;
}

static void nobody_opened(void *ctx, net_id id, const struct net_peer *peer)
{
	(void)ctx;
	(void)id;
	(void)peer;
}

static int nobody_sent(void *ctx, net_id id, const struct wire_frame *f, const uint8_t *payload)
{
	(void)ctx;
	(void)id;
	(void)f;
	(void)payload;
	return -EAGAIN;
}

static void nobody_closed(void *ctx, net_id id, const struct net_end *end)
{
	(void)ctx;
	(void)id;
	(void)end;
}

/* Can others reach us there? Asked before the store becomes a primary, or a replica again: a mount that fails changes nothing.
 * Who connects in this moment is sent away, and comes again. */
static int try_listen(struct remote *l)
{
	static const struct net_owner nobody = { .accepted = send_away, .opened = nobody_opened, .frame = nobody_sent,
						 .closed = nobody_closed };
	const struct net_options no = { .keys = l->ring };
	const char *listen = l->fs->options->listen;
	struct net *net = NULL;
	int r = listen != NULL ? net_start(&no, &nobody, &net) : 0;

	if (r == 0 && listen != NULL)
		r = net_listen(net, listen, NULL);
	if (r < 0)
		say_error(SAY_ADDRESS, listen, NULL, r);
	if (net != NULL)
		net_stop(net);
	return r;
}

int remote_start(struct remote *l)
{
	const struct options *o = l->fs->options;
	struct store *s = l->fs->store;
	int r;

	store_uuid(s, l->store);
	r = try_listen(l);
	if (r == 0)
		r = l->leads ? lead(l) : check_follower(l);
	if (r < 0)
		return r;
	r = store_random(s, &l->client, sizeof l->client);
	if (r < 0)
		return r;
	if (own_limit(l) != NULL)
		l->client = key_client(own_limit(l), l->client);
	r = feed_init(&l->feed, o->keep_bytes != 0 ? o->keep_bytes : FEED_SIZE, (uint64_t)o->keep_s * 1000000000u, store_seq(s) + 1);
	if (r == 0) {
		l->feeds = true;
		remote_read_history(l);
		r = feeder_init(l);
	}
	if (r == 0)
		r = lockd_new(l, &l->lockd);
	/* Others may hold locks that they were given before it was opened. */
	if (r == 0 && l->leads) {
		clients_init(&l->clients, l->fs->keys, (uint64_t)remote_now_ms());
		remote_walk(l);
	}
	if (r == 0 && l->leads)
		lockd_lead(l->lockd, store_epoch(s), l->was_primary);
	if (r == 0 && !l->leads)
		r = follower_init(l);
	if (r < 0) {
		say_errno(SAY_MOUNT, l->fs->store_path, "remote mounts", r);
		return r;
	}
	r = start_net(l);
	if (r == 0 && !l->leads)
		r = first_sync(l);
	return r;
}

static void stale(void *ctx, uint64_t ino, uint64_t off)
{
	struct remote *l = ctx;

	notify_data(l->notify, ino, off, 0);
}

/* A lock may wait for it. */
static void told(void *ctx)
{
	session_wake(ctx);
}

int remote_attach(struct remote *l)
{
	int r = notify_start(l->fs->fd, &l->notify);

	l->shared = (struct fs_shared){ .ctx = l, .stale = stale };
	l->fs->shared = &l->shared;
	if (r == 0) {
		notify_watch(l->notify, told, l->fs);
		r = repeat_start(l->fs, l->fs->options->inotify, &l->fs->repeat);
	}
	return r;
}

void remote_stop(struct remote *l)
{
	if (l == NULL)
		return;
	/* Its memory stays until the threads that serve and make comparisons have ended: they may be about to say something. */
	net_end(l->net);
	follower_release(l);
	lockd_free(l->lockd);
	l->lockd = NULL;
	feeder_release(l);
	net_stop(l->net);
	l->net = NULL;
	/* They may wait for a lock that a program holds whose request nobody has answered. */
	notify_end(l->notify);
	repeat_end(l->fs->repeat);
	while (!notify_ended(l->notify) || !repeat_ended(l->fs->repeat))
		session_refuse(l->fs);
	notify_stop(l->notify);
	repeat_stop(l->fs->repeat);
	l->notify = NULL;
	l->fs->repeat = NULL;
}
