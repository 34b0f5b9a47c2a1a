/* SPDX-License-Identifier: MIT
 *
 * feeder: the net thread's side of a link: the primary's engine over real connections, the feed and diffs. Nothing of it touches the
 * store but by what is marked [any]: positions, blocks of contents by pread, a snapshot of its own. Here: who is connected, what is
 * sent and taken when, status. Its other rooms: feeder_int.h.
 *
 * Memory that is refused. Who cannot be told something for want of it would wait for ever: so either the memory is there before
 * it is needed (an answer comes back in the call's own item, orders and ends of links have theirs), or the link ends, which needs
 * none. Whatever was under way on it is said again on the next one.
 */
#include "fs/feeder_int.h"

#include "fs/log.h"
#include "fs/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct feeder *feeder_find(struct remote *l, net_id id)
{
	struct feeder *f = l->feeders;

	while (f != NULL && f->id != id)
		f = f->next;
	return f;
}

/* ---- The net thread at work ---- */

/* A change is in the journal a moment before it is in the feed: what is not there yet must not be asked for, or it would
 * count as gone. */
seq_t feeder_fed(const struct remote *l)
{
	seq_t first, last;

	(void)feed_range(&l->feed, &first, &last);
	return last;
}

void feeder_pump(struct remote *l)
{
	/* Asked first: a store that failed after something became durable is no reason to say EIO of that. */
	bool failed = store_failed(l->fs->store) != 0;

	primary_committed(l->primary, feeder_fed(l), atomic_load(&l->change_bytes), now_ms());
	if (primary_state(l->primary) == PRIMARY_RELAYS)
		relay_pump(l);
	else
		primary_durable(l->primary, store_durable_seq(l->fs->store));
	if (failed)
		primary_disk_failed(l->primary);
	while (primary_pump(l->primary, now_ms()))
		;
}

static void on_poked(void *ctx)
{
	struct remote *l = ctx;

	if (atomic_exchange(&l->break_links, false))
		for (struct feeder *f = l->feeders; f != NULL; f = f->next)
			(void)feeder_no_memory(l, f->id);
	feeder_pump(l);
}

void feeder_kick(struct remote *l)
{
	if (l->net != NULL && atomic_load_explicit(&l->peer_count, memory_order_relaxed) > 0)
		net_poke(l->net);
}

void feeder_break(struct remote *l)
{
	atomic_store(&l->break_links, true);
	net_poke(l->net);
}

/* Give the engine the frame that it could not take before. */
static void retry(struct remote *l, struct feeder *f)
{
	struct item *m = f->stuck;
	int r = primary_frame(l->primary, f->id, m->type, m->bytes, m->len, now_ms());

	if (r == -EAGAIN)
		return;
	f->stuck = NULL;
	free(m);
	if (r < 0)
		(void)net_close(l->net, f->id, WIRE_E_PROTOCOL, err_last());
	else
		(void)net_resume(l->net, f->id);
}

void feeder_retry_all(void *ctx)
{
	struct remote *l = ctx;

	for (struct feeder *f = l->feeders; f != NULL; f = f->next)
		if (f->stuck != NULL && !f->closed)
			retry(l, f);
	feeder_pump(l);
}

/* It would be waited for. */
int feeder_no_memory(struct remote *l, net_id id)
{
	(void)net_close(l->net, id, WIRE_E_BUSY, "no memory for a message: connect again");
	return -ENOTCONN;
}

/* Names come from peers: what a shell would not take as it is becomes '?'. */
static void clean_name(char *name)
{
	for (; *name != '\0'; name++)
		if (*name == '\'' || *name < ' ' || *name > '~')
			*name = '?';
}

static void put_peer(struct text *t, unsigned i, const struct primary_peer_status *st)
{
	static const char *const states[] = { "new", "streams", "diffs", "refused", "closed", "gone" };
	char limit[KEY_LIMIT_TEXT];

	text_put(t, "peer%u_name='%s'\npeer%u_state=%s\npeer%u_applied_seq=%llu\npeer%u_durable_seq=%llu\n"
		 "peer%u_lag_changes=%llu\npeer%u_lag_bytes=%llu\npeer%u_lag_seconds=%llu.%03llu\n",
		 i, st->name, i, states[st->state], i, (unsigned long long)st->applied, i, (unsigned long long)st->durable, i,
		 (unsigned long long)st->lag_seq, i, (unsigned long long)st->lag_bytes, i, (unsigned long long)st->lag_ms / 1000,
		 (unsigned long long)st->lag_ms % 1000);
	if (st->limited) {
		remote_limit_text(st->tree, limit);
		text_put(t, "peer%u_limit='%s'\n", i, limit);
	}
}

static void write_status(struct remote *l)
{
	char buf[PEERS_TEXT_MAX] = "";
	struct text t = { .buf = buf, .size = sizeof buf };
	struct primary_peer_status st;

	for (unsigned i = 0; primary_peer_status(l->primary, i, now_ms(), &st) == 0; i++) {
		clean_name(st.name);
		put_peer(&t, i, &st);
	}
	pthread_mutex_lock(&l->lock);
	memcpy(l->peers, buf, t.len + 1);
	pthread_mutex_unlock(&l->lock);
}

void feeder_tick(void *ctx)
{
	struct remote *l = ctx;

	feeder_refill_spares(l);
	still_look(l);
	primary_tick(l->primary, now_ms());
	feeder_retry_all(l);
	feeder_mark_orphans(l);
	write_status(l);
	/* Some may have waited for too long. */
	if (atomic_load_explicit(&l->fs->started, memory_order_acquire))
		defer_run(&l->fs->synced);
}

/* ---- Connections ---- */

static void on_opened(void *ctx, net_id id, const struct net_peer *peer)
{
	struct remote *l = ctx;
	struct feeder *f;
	unsigned flags = 0;

	if (peer->dialer != 0) {
		feeder_up_opened(l, id, peer->address);
		return;
	}
	if (peer->key != NULL && peer->key->read_only)
		flags |= PRIMARY_PEER_READ_ONLY;
	f = calloc(1, sizeof *f);
	if (f == NULL || primary_opened(l->primary, id, flags, now_ms()) < 0) {
		free(f);
		(void)net_close(l->net, id, WIRE_E_BUSY, "too many remote mounts");
		return;
	}
	if (peer->key != NULL && key_is_limited(peer->key))
		primary_limit(l->primary, id, peer->key->tree, key_tag(peer->key));
	f->id = id;
	f->next = l->feeders;
	l->feeders = f;
	atomic_fetch_add(&l->peer_count, 1);
}

static int on_frame(void *ctx, net_id id, const struct wire_frame *w, const uint8_t *payload)
{
	struct remote *l = ctx;
	struct feeder *f;
	int r;

	if (id == l->up_link)
		return feeder_up_frame(l, id, w, payload);
	f = feeder_find(l, id);
	if (f == NULL)
		return 0;
	r = primary_frame(l->primary, id, w->type, payload, w->len, now_ms());
	if (r == -EAGAIN) {
		f->stuck = remote_item(NEWS_FRAME, id, payload, w->len);
		if (f->stuck == NULL)
			return err_set(ENOMEM, "no memory for a frame");
		f->stuck->type = w->type;
		(void)net_pause(l->net, id);
		r = 0;
	}
	feeder_mark_orphans(l);
	feeder_pump(l);
	return r;
}

static void on_writable(void *ctx, net_id id)
{
	struct remote *l = ctx;
	struct feeder *f = feeder_find(l, id);

	if (id == l->up_link) {
		feeder_up_writable(l, id);
		return;
	}
	if (f != NULL && f->diff != NULL)
		feeder_diff_tell(f->diff, false, NULL);
	primary_writable(l->primary, id);
	feeder_pump(l);
}

static void on_closed(void *ctx, net_id id, const struct net_end *end)
{
	struct remote *l = ctx;
	struct feeder **at, *f;

	if (end->dialer != 0) {
		feeder_up_closed(l, id, end);
		return;
	}
	for (at = &l->feeders; (f = *at) != NULL && f->id != id; at = &f->next)
		;
	if (f == NULL)
		return;
	f->closed = true;
	primary_closed(l->primary, id, now_ms());
	feeder_diff_stop(l, id);
	*at = f->next;
	free(f->stuck);
	free(f);
	atomic_fetch_sub(&l->peer_count, 1);
	feeder_pump(l);
}

static void on_note(void *ctx, const char *text)
{
	(void)ctx;
	log_warn("remote mounts: %s", text);
}

const struct net_owner feeder_owner = {
	.opened = on_opened, .frame = on_frame, .writable = on_writable, .closed = on_closed, .note = on_note,
	.poked = on_poked,
};

/* ---- Begin and end ---- */

int feeder_init(struct remote *l)
{
	struct primary_options o = {
		.hash_seed = store_hash_seed(l->fs->store),
		.version = MSG_VERSION,
		.features = MSG_FEATURES,
		.lease_ms = LEASE_MS,
		.keep_ms = 1000,
		.sync_replicas = l->fs->options->sync_replicas,
		.sync_wait_ms = options_sync_wait_ms(l->fs->options),
		.switch_wait_ms = 10000,
	};

	memcpy(o.store, l->store, sizeof o.store);
	l->record = malloc(REC_MAX);
	l->change = malloc(CHANGE_MAX);
	l->primary = primary_new(&o, &feeder_engine_ops, l);
	feeder_init_posts(l);
	feeder_refill_spares(l);
	return l->spare_count == SPARES && l->record != NULL && l->change != NULL && l->primary != NULL ? 0 : -ENOMEM;
}

/* The net thread has ended, and told of the end of each connection. */
void feeder_release(struct remote *l)
{
	feeder_diff_release(l);
	primary_free(l->primary);
	net_buf_put(l->frame);
	feeder_free_spares(l);
	free(l->up_closed);
	free(l->record);
	free(l->change);
	orphans_release(&l->orphans);
}
