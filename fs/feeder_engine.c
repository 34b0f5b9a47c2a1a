/* SPDX-License-Identifier: MIT
 *
 * feeder_engine: what the primary's engine asks of this mount, on the net thread: frames to be sent, changes from the feed with their
 * contents, news for the request thread.
 */
#include "fs/feeder_int.h"

#include "fs/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- News for the request thread that must not be lost ---- */

void feeder_refill_spares(struct remote *l)
{
	while (l->spare_count < SPARES) {
		struct item *item = malloc(sizeof *item + MSG_NAME_MAX + 1);

		if (item == NULL)
			return;
		item->next = l->spares;
		l->spares = item;
		l->spare_count++;
	}
}

/* At most MSG_NAME_MAX + 1 bytes. NULL: even the spare ones are used up. */
static struct item *sure_item(struct remote *l, enum news kind, const void *bytes, uint32_t len)
{
	struct item *item = remote_item(kind, 0, bytes, len);

	if (item != NULL || l->spares == NULL)
		return item;
	item = l->spares;
	l->spares = item->next;
	l->spare_count--;
	*item = (struct item){ .kind = kind, .len = len };
	if (len > 0)
		memcpy(item->bytes, bytes, len);
	return item;
}

void feeder_free_spares(struct remote *l)
{
	while (l->spares != NULL) {
		struct item *item = l->spares;

		l->spares = item->next;
		free(item);
	}
}

/* ---- What the engine wants ---- */

static int op_send(void *ctx, link_t id, unsigned type, const void *bytes, uint32_t len)
{
	struct remote *l = ctx;
	int r = net_send(l->net, id, (uint16_t)type, msg_flags(type), bytes, len);

	return r == -ENOMEM ? feeder_no_memory(l, id) : r;
}

static int read_blocks(void *ctx, block_t block, uint64_t count, uint8_t *to)
{
	struct remote *l = ctx;

	return store_read_blocks(l->fs->store, block, count, to);
}

/* The frame of a change: made once, for all that are at it. */
static int make_change(struct remote *l, struct feeder *f, const struct msg_change *head)
{
	struct msg_change m = *head;
	struct change_info info = { 0 };
	struct wire_writer w;
	uint32_t len;
	int r = 0;

	if (!f->reading || f->reader.next != head->seq)
		r = feed_reader_init(&f->reader, &l->feed, head->seq);
	f->reading = r == 0;
	if (r < 0)
		return -ENOENT;
	r = feed_read(&f->reader, l->record, &len);
	if (r != 1) {
		f->reading = false;
		return -ENOENT;
	}
	/* Contents that are no longer where they were count as gone from the feed. */
	r = change_encode(l->record, len, read_blocks, l, l->change, CHANGE_MAX, &m.len);
	if (r == 0)
		r = change_info(l->change, m.len, &info);
	if (r < 0)
		return -ENOENT;
	m.bytes = l->change;
	m.change_epoch = info.epoch;
	net_buf_put(l->frame);
	l->frame = net_buf_new(MSG_CHANGE, msg_flags(MSG_CHANGE), MSG_OVERHEAD + m.len);
	if (l->frame == NULL)
		return -ENOMEM;
	w = wire_writer(net_buf_payload(l->frame), MSG_OVERHEAD + m.len);
	msg_put_change(&w, &m);
	net_buf_trim(l->frame, (uint32_t)wire_used(&w));
	l->frame_seq = head->seq;
	return 0;
}

static int op_send_change(void *ctx, link_t id, const struct msg_change *head)
{
	struct remote *l = ctx;
	struct feeder *f = feeder_find(l, id);
	int r = 0;

	if (f == NULL)
		return -ENOTCONN;
	if (l->frame == NULL || l->frame_seq != head->seq)
		r = make_change(l, f, head);
	if (r == 0)
		r = net_send_buf(l->net, id, l->frame);
	return r == -ENOMEM ? feeder_no_memory(l, id) : r;
}

static void op_close(void *ctx, link_t id, const char *reason)
{
	struct remote *l = ctx;

	(void)net_close(l->net, id, reason != NULL ? WIRE_E_OWNER : WIRE_E_CLOSED, reason != NULL ? reason : "");
}

static void op_history(void *ctx, struct history *ret)
{
	remote_history(ctx, ret);
}

static int op_run(void *ctx, const struct primary_run *run)
{
	struct remote *l = ctx;
	struct item *item;
	bool full;

	pthread_mutex_lock(&l->lock);
	full = l->runs.count >= RUNS_MAX || l->runs.bytes >= RUNS_BYTES;
	l->runs_refused = l->runs_refused || full;
	pthread_mutex_unlock(&l->lock);
	if (full)
		return -EAGAIN;
	item = remote_item(NEWS_RUN, run->link, run->bytes, run->len);
	if (item == NULL)
		return -EAGAIN;
	item->run = *run;
	item->run.bytes = item->bytes;
	remote_push(l, item);
	return 0;
}

static bool client_news(struct remote *l, enum news kind, const struct primary_run *who, const uint8_t *locks, uint32_t len)
{
	struct item *item = remote_item(kind, 0, locks, locks != NULL ? len : 0);

	if (item == NULL)
		return false;
	item->run = *who;
	item->type = locks != NULL;
	remote_push(l, item);
	return true;
}

/* It may be run all the same, and nobody is told; a relay sends it no more. */
static void op_cancel(void *ctx, uint64_t token, uint64_t client, uint64_t request)
{
	struct remote *l = ctx;

	if (primary_state(l->primary) == PRIMARY_RELAYS)
		(void)client_news(l, NEWS_CANCEL, &(struct primary_run){ .token = token, .client = client, .request = request }, NULL, 0);
}

static void op_client_here(void *ctx, const struct primary_run *who, const uint8_t *locks, uint32_t len)
{
	/* The locks that it has would be given to others. */
	if (!client_news(ctx, NEWS_CLIENT_HERE, who, locks, len))
		feeder_break(ctx);
}

/* If nobody is told: what it waits for is dropped when it comes again, or expires. */
static void op_client_left(void *ctx, uint64_t client, uint64_t session)
{
	(void)client_news(ctx, NEWS_CLIENT_LEFT, &(struct primary_run){ .client = client, .session = session }, NULL, 0);
}

static int op_client_expired(void *ctx, uint64_t client)
{
	return client_news(ctx, NEWS_CLIENT_EXPIRED, &(struct primary_run){ .client = client }, NULL, 0) ? 0 : -ENOMEM;
}

static void op_held(void *ctx, uint64_t ino, bool held)
{
	struct remote *l = ctx;

	if (primary_state(l->primary) == PRIMARY_RELAYS)
		relay_held(l, ino, held);
	if (!held)
		feeder_orphan_freed(l, ino);
}

static void op_fenced(void *ctx, uint64_t promised)
{
	struct item *item = sure_item(ctx, NEWS_FENCED, NULL, 0);

	if (item == NULL)
		return;
	item->number = promised;
	remote_push(ctx, item);
}

static void op_park(void *ctx, bool park)
{
	struct remote *l = ctx;

	atomic_store(&l->parked, park);
	/* The target is to have everything on its disk, which follows ours. */
	if (park)
		store_sync_request(l->fs->store);
	session_wake(l->fs);
}

static void op_hand_over(void *ctx, uint64_t next, seq_t seq)
{
	struct item *item = sure_item(ctx, NEWS_HAND_OVER, NULL, 0);

	if (item == NULL)
		return;
	item->number = next;
	item->seq = seq;
	remote_push(ctx, item);
}

static void op_handed(void *ctx, const uint8_t store[16], const char *name)
{
	struct item *item = sure_item(ctx, NEWS_HANDED, name, (uint32_t)strlen(name) + 1);

	(void)store;
	if (item != NULL)
		remote_push(ctx, item);
}

static void op_synced(void *ctx, seq_t seq)
{
	struct remote *l = ctx;

	atomic_store_explicit(&l->synced, seq, memory_order_release);
	if (l->fs->options->sync_replicas != 0 && atomic_load_explicit(&l->fs->started, memory_order_acquire))
		defer_run(&l->fs->synced);
}

/* Who is refused comes again, and hears the same: that is said once. */
static void say(struct remote *l, const char *what, const char *who, const char *text)
{
	char line[sizeof l->noted];

	snprintf(line, sizeof line, "%s %s: %s", what, who, text);
	if (strcmp(line, l->noted) != 0)
		log_info("%s", line);
	memcpy(l->noted, line, sizeof line);
}

static void op_note(void *ctx, link_t id, const char *text)
{
	struct remote *l = ctx;
	struct primary_peer_status st;

	for (unsigned i = 0; primary_peer_status(l->primary, i, now_ms(), &st) == 0; i++)
		if (st.link == id && id != 0) {
			say(l, "remote mount", st.name[0] != '\0' ? st.name : "without a name", text);
			return;
		}
	say(l, "remote", "mounts", text);
}

const struct primary_ops feeder_engine_ops = {
	.send = op_send, .send_change = op_send_change, .close = op_close, .history = op_history, .run = op_run,
	.cancel = op_cancel, .diff_start = feeder_diff_start, .diff_frame = feeder_diff_frame, .diff_stop = feeder_diff_stop,
	.client_here = op_client_here, .client_left = op_client_left, .client_expired = op_client_expired,
	.held = op_held, .fenced = op_fenced, .park = op_park, .hand_over = op_hand_over, .handed = op_handed,
	.synced = op_synced, .waited = feeder_waited, .note = op_note,
};
