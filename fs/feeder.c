/* SPDX-License-Identifier: MIT
 *
 * feeder: the net thread's side of a link: the primary's engine over real connections, the feed and diffs. It never
 * touches the store but by what is marked [any]: positions, blocks of contents by pread, a snapshot of its own.
 *
 * Memory that is refused. Who cannot be told something for want of it would wait for ever: so either the memory is there before
 * it is needed (an answer comes back in the call's own item, orders and ends of links have theirs), or the link ends, which needs
 * none. Whatever was under way on it is said again on the next one.
 */
#include "fs/remote_int.h"

#include "core/store/map.h"
#include "fs/device.h"
#include "fs/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHECKPOINT_POLL_NS 5000000
#define SPARES 8u

/* A diff for one connection, in a thread of its own, which may wait for the disk. */
struct diff_job {
	struct diff_job *next;          /* remote.lock */
	struct remote *l;
	net_id id;
	pthread_t thread;
	struct net_work finished;       /* how the net thread hears of its end */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct diff_source *source;     /* the thread's */
	struct queue in;                /* lock */
	bool stop, writable;            /* lock */
	int error;                      /* how it ended; 0: as it should */
	char reason[256];
};

struct feeder {
	struct feeder *next;
	net_id id;
	bool closed;
	bool reading;                   /* reader is at reader.next */
	struct feed_reader reader;
	struct item *stuck;             /* a frame that the engine could not take yet; the connection is paused */
	struct diff_job *diff;
};

static struct feeder *find(struct remote *l, net_id id)
{
	struct feeder *f = l->feeders;

	while (f != NULL && f->id != id)
		f = f->next;
	return f;
}

static uint64_t now_ms(void)
{
	return (uint64_t)remote_now_ms();
}

/* ---- Diffs ---- */

static void diff_free(struct diff_job *job)
{
	struct diff_job **at;

	pthread_join(job->thread, NULL);
	pthread_mutex_lock(&job->l->lock);
	for (at = &job->l->jobs; *at != job; at = &(*at)->next)
		;
	*at = job->next;
	pthread_mutex_unlock(&job->l->lock);
	queue_clear(&job->in);
	pthread_cond_destroy(&job->wake);
	pthread_mutex_destroy(&job->lock);
	free(job);
}

static void diff_finished(void *ctx)
{
	struct diff_job *job = ctx;
	struct remote *l = job->l;
	struct feeder *f = find(l, job->id);

	if (f != NULL && f->diff == job) {
		f->diff = NULL;
		if (job->error != 0)
			primary_diff_failed(l->primary, job->id, job->reason);
	}
	diff_free(job);
}

static int diff_send(void *ctx, enum diff_type type, const void *bytes, size_t len)
{
	struct diff_job *job = ctx;

	return net_send(job->l->net, job->id, (uint16_t)(MSG_DIFF + type), WIRE_MUST, bytes, (uint32_t)len);
}

static bool diff_stopped(struct diff_job *job)
{
	bool stop;

	pthread_mutex_lock(&job->lock);
	stop = job->stop;
	pthread_mutex_unlock(&job->lock);
	return stop;
}

/* Wait until a checkpoint has all that is there now, then open it. */
static int diff_open(struct diff_job *job, struct keys **ret)
{
	struct store *s = job->l->fs->store;
	const struct timespec pause = { .tv_nsec = CHECKPOINT_POLL_NS };
	uint64_t want = store_seq(s) + 1;
	char path[64];
	struct store_options so = { .path = path, .read_only = true, .snapshot = true };

	while (store_checkpoint_seq(s) + 1 < want) {
		atomic_store(&job->l->want_checkpoint, want);
		session_wake(job->l->fs);
		if (diff_stopped(job))
			return -ECANCELED;
		if (store_failed(s) != 0)
			return err_set(EIO, "the primary's store has failed");
		nanosleep(&pause, NULL);
	}
	store_path(s, path, sizeof path);
	return keys_open(&so, ret);
}

/* What is read is a mapping of a file that somebody may cut: within map_guard(). */
static int diff_serve(void *ctx)
{
	struct diff_job *job = ctx;
	struct diff_source *source = job->source;

	for (;;) {
		int r = diff_source_step(source);
		struct item *m;

		if (r < 0 || r == DIFF_READY)
			return r < 0 ? r : 0;
		pthread_mutex_lock(&job->lock);
		while (!job->stop && job->in.first == NULL &&
		       (r == DIFF_IDLE || (r == DIFF_FULL && !job->writable)))
			pthread_cond_wait(&job->wake, &job->lock);
		job->writable = false;
		m = job->stop ? NULL : queue_take(&job->in);
		if (job->stop)
			r = -ECANCELED;
		pthread_mutex_unlock(&job->lock);
		if (r < 0)
			return r;
		if (m != NULL) {
			r = diff_source_message(source, m->type, m->bytes, m->len);
			free(m);
			if (r < 0)
				return r;
		}
	}
}

static void *diff_main(void *arg)
{
	struct diff_job *job = arg;
	struct keys *k = NULL;
	uint64_t seed;
	int r;

	session_block_signals();
	r = diff_open(job, &k);
	if (r == 0)
		r = store_random(keys_store(k), &seed, sizeof seed);
	if (r == 0)
		r = diff_source_new(k, seed, diff_send, job, &job->source);
	if (r == 0)
		r = map_guard(diff_serve, job);
	if (r < 0) {
		job->error = r;
		snprintf(job->reason, sizeof job->reason, "the comparison ended: %s",
			 *err_last() != '\0' ? err_last() : strerror(-r));
	}
	diff_source_free(job->source);
	if (k != NULL)
		(void)keys_close(k);
	/* When the net thread has ended, feeder_release() waits for this one. */
	job->finished = (struct net_work){ .fn = diff_finished, .ctx = job };
	(void)net_post_work(job->l->net, &job->finished);
	return NULL;
}

static void diff_tell(struct diff_job *job, bool stop, struct item *m)
{
	pthread_mutex_lock(&job->lock);
	job->stop = job->stop || stop;
	job->writable = true;
	if (m != NULL)
		queue_add(&job->in, m);
	pthread_cond_signal(&job->wake);
	pthread_mutex_unlock(&job->lock);
}

static int op_diff_start(void *ctx, link_t id, const struct msg_hello *hello)
{
	struct remote *l = ctx;
	struct feeder *f = find(l, id);
	struct diff_job *job;

	(void)hello;
	if (f == NULL || f->diff != NULL)
		return -EBUSY;
	job = calloc(1, sizeof *job);
	if (job == NULL)
		return -ENOMEM;
	job->l = l;
	job->id = id;
	queue_init(&job->in);
	pthread_mutex_init(&job->lock, NULL);
	pthread_cond_init(&job->wake, NULL);
	if (pthread_create(&job->thread, NULL, diff_main, job) != 0) {
		free(job);
		return -EAGAIN;
	}
	pthread_mutex_lock(&l->lock);
	job->next = l->jobs;
	l->jobs = job;
	pthread_mutex_unlock(&l->lock);
	f->diff = job;
	return 0;
}

static int op_diff_frame(void *ctx, link_t id, unsigned type, const uint8_t *bytes, uint32_t len)
{
	struct feeder *f = find(ctx, id);
	struct item *m;

	if (f == NULL || f->diff == NULL)
		return 0;
	m = remote_item(NEWS_FRAME, id, bytes, len);
	if (m == NULL)
		return -ENOMEM;
	m->type = type - MSG_DIFF;
	diff_tell(f->diff, false, m);
	return 0;
}

static void op_diff_stop(void *ctx, link_t id)
{
	struct feeder *f = find(ctx, id);

	if (f == NULL || f->diff == NULL)
		return;
	diff_tell(f->diff, true, NULL);
	f->diff = NULL;
}

/* ---- News for the request thread that must not be lost ---- */

static void refill_spares(struct remote *l)
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

/* ---- What the engine wants ---- */

/* It would be waited for. */
static int no_memory(struct remote *l, net_id id)
{
	(void)net_close(l->net, id, WIRE_E_BUSY, "no memory for a message: connect again");
	return -ENOTCONN;
}

static int op_send(void *ctx, link_t id, unsigned type, const void *bytes, uint32_t len)
{
	struct remote *l = ctx;
	int r = net_send(l->net, id, (uint16_t)type, msg_flags(type), bytes, len);

	return r == -ENOMEM ? no_memory(l, id) : r;
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
	struct feeder *f = find(l, id);
	int r = 0;

	if (f == NULL)
		return -ENOTCONN;
	if (l->frame == NULL || l->frame_seq != head->seq)
		r = make_change(l, f, head);
	if (r == 0)
		r = net_send_buf(l->net, id, l->frame);
	return r == -ENOMEM ? no_memory(l, id) : r;
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

/* A program that waits for other machines. */
struct machine_wait {
	struct remote *l;
	seq_t seq;
	uint64_t unique;
	uint32_t size, replicas, wait_ms;
};

static void op_waited(void *ctx, uint64_t cookie, int error)
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

static const struct primary_ops engine_ops = {
	.send = op_send, .send_change = op_send_change, .close = op_close, .history = op_history, .run = op_run,
	.cancel = op_cancel, .diff_start = op_diff_start, .diff_frame = op_diff_frame, .diff_stop = op_diff_stop,
	.client_here = op_client_here, .client_left = op_client_left, .client_expired = op_client_expired,
	.held = op_held, .fenced = op_fenced, .park = op_park, .hand_over = op_hand_over, .handed = op_handed,
	.synced = op_synced, .waited = op_waited, .note = op_note,
};

/* ---- The net thread at work ---- */

/* A change is in the journal a moment before it is in the feed: what is not there yet must not be asked for, or it would
 * count as gone. */
static seq_t fed(const struct remote *l)
{
	seq_t first, last;

	(void)feed_range(&l->feed, &first, &last);
	return last;
}

void feeder_pump(struct remote *l)
{
	primary_committed(l->primary, fed(l), atomic_load(&l->change_bytes), now_ms());
	if (primary_state(l->primary) == PRIMARY_RELAYS) {
		relay_pump(l);
	} else {
		/* In this order: a store that failed after something became durable is no reason to say EIO of that. */
		bool failed = store_failed(l->fs->store) != 0;

		primary_durable(l->primary, store_durable_seq(l->fs->store));
		if (failed)
			primary_disk_failed(l->primary);
	}
	while (primary_pump(l->primary, now_ms()))
		;
}

static void on_poked(void *ctx)
{
	struct remote *l = ctx;

	if (atomic_exchange(&l->break_links, false))
		for (struct feeder *f = l->feeders; f != NULL; f = f->next)
			(void)no_memory(l, f->id);
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

static void retry_all(void *ctx)
{
	struct remote *l = ctx;

	for (struct feeder *f = l->feeders; f != NULL; f = f->next)
		if (f->stuck != NULL && !f->closed)
			retry(l, f);
	feeder_pump(l);
}

static void mark_orphans(struct remote *l)
{
	size_t kept = 0;

	for (size_t i = 0; i < l->orphan_count; i++) {
		struct orphan o = l->orphans[i];
		struct item *item = NULL;

		if (primary_may_mark(l->primary, o.ino, o.seq, now_ms()))
			item = remote_item(NEWS_MARK, 0, NULL, 0);
		if (item == NULL) {
			l->orphans[kept++] = o;
			continue;
		}
		item->number = o.ino;
		remote_push(l, item);
	}
	l->orphan_count = kept;
}

/* Names come from peers: what a shell would not take as it is becomes '?'. */
static void clean_name(char *name)
{
	for (; *name != '\0'; name++)
		if (*name == '\'' || *name < ' ' || *name > '~')
			*name = '?';
}

static void peer_line(char *text, size_t size, size_t *len, unsigned i, const struct primary_peer_status *st)
{
	static const char *const states[] = { "new", "streams", "diffs", "refused", "closed", "gone" };
	int n = snprintf(text + *len, size - *len,
			 "peer%u_name='%s'\npeer%u_state=%s\npeer%u_applied_seq=%llu\npeer%u_durable_seq=%llu\n"
			 "peer%u_lag_changes=%llu\npeer%u_lag_bytes=%llu\npeer%u_lag_seconds=%llu.%03llu\n",
			 i, st->name, i, states[st->state], i, (unsigned long long)st->applied, i,
			 (unsigned long long)st->durable, i, (unsigned long long)st->lag_seq, i,
			 (unsigned long long)st->lag_bytes, i, (unsigned long long)st->lag_ms / 1000,
			 (unsigned long long)st->lag_ms % 1000);

	if (n > 0 && (size_t)n < size - *len && st->limited) {
		char limit[KEY_LIMIT_TEXT];

		remote_limit_text(st->tree, limit);
		n += snprintf(text + *len + n, size - *len - (size_t)n, "peer%u_limit='%s'\n", i, limit);
	}
	if (n > 0 && (size_t)n < size - *len)
		*len += (size_t)n;
}


static void write_status(struct remote *l)
{
	char text[STATUS_MAX];
	struct primary_peer_status st;
	size_t len = 0;
	unsigned i;

	text[0] = '\0';
	for (i = 0; primary_peer_status(l->primary, i, now_ms(), &st) == 0; i++) {
		clean_name(st.name);
		peer_line(text, sizeof text, &len, i, &st);
	}
	text[len] = '\0';
	pthread_mutex_lock(&l->lock);
	memcpy(l->peers, text, len + 1);
	pthread_mutex_unlock(&l->lock);
}

/* ---- Does this machine work? ---- */

/* How long this has not moved, in our own ticks: while the whole process is stopped, nothing of it stands still alone. */
static void count_still(uint64_t now, uint64_t *seen, bool moves, uint32_t *ms, uint32_t step)
{
	*ms = moves || now != *seen ? 0 : (uint32_t)min_u64((uint64_t)*ms + step, UINT32_MAX);
	*seen = now;
}

/* (R7) A link that is up says nothing of the request thread behind it, nor of its disk. If the one has not been through its loop
 * for long, or one msync does not end, no call is answered, and who waits for one would do so for ever: so the links end. */
static void look_after_work(struct remote *l)
{
	enum primary_state state = primary_state(l->primary);
	uint32_t step = (uint32_t)min_u64(now_ms() - l->looked_ms, 2ull * TICK_NET_MS);
	uint64_t turns = atomic_load_explicit(&l->turns, memory_order_relaxed), disk = store_disk_turns(l->fs->store);
	const char *reason = NULL;

	l->looked_ms = now_ms();
	count_still(turns, &l->turns_seen, turns == 0, &l->turns_ms, step);
	count_still(disk, &l->disk_seen, disk % 2 == 0, &l->disk_ms, step);
	if (l->turns_ms >= STILL_MS)
		reason = "this machine stands still: the thread that makes changes waits, perhaps for its disk";
	else if (l->disk_ms >= STILL_DISK_MS)
		reason = "this machine stands still: its disk does not answer";
	else if (state == PRIMARY_HANDING && store_failed(l->fs->store) != 0)
		reason = "this machine stands still: its store failed while it handed over";
	if ((reason != NULL) != l->still && state != PRIMARY_OFF) {
		if (reason != NULL)
			log_error("%s: %s: remote mounts are sent away until it goes on", l->fs->store_path, reason);
		else
			log_info("%s: this machine goes on: remote mounts are let in again", l->fs->store_path);
	}
	l->still = reason != NULL;
	primary_stand_still(l->primary, reason, now_ms());
}

void feeder_tick(void *ctx)
{
	struct remote *l = ctx;

	refill_spares(l);
	look_after_work(l);
	primary_tick(l->primary, now_ms());
	retry_all(l);
	mark_orphans(l);
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
		struct item *item = remote_item(NEWS_OPENED, id, NULL, 0);

		/* With the news of its beginning goes that of its end. */
		if (l->up_closed == NULL)
			l->up_closed = remote_item(NEWS_CLOSED, id, NULL, 0);
		if (item == NULL || l->up_closed == NULL) {
			free(item);
			(void)net_close(l->net, id, WIRE_E_CLOSED, "");
			return;
		}
		l->up_closed->id = id;
		l->up_link = id;
		log_debug("connected to %s", peer->address);
		remote_push(l, item);
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

/* From our primary: to the request thread. */
static int frame_up(struct remote *l, net_id id, const struct wire_frame *w, const uint8_t *payload)
{
	struct item *item = remote_item(NEWS_FRAME, id, payload, w->len);
	bool full;

	if (item == NULL)
		return err_set(ENOMEM, "no memory for a frame");
	item->type = w->type;
	pthread_mutex_lock(&l->lock);
	full = l->inbox.bytes + w->len > INBOX_BYTES && !l->paused;
	l->paused = l->paused || full;
	pthread_mutex_unlock(&l->lock);
	if (full)
		(void)net_pause(l->net, id);
	remote_push(l, item);
	return 0;
}

static int on_frame(void *ctx, net_id id, const struct wire_frame *w, const uint8_t *payload)
{
	struct remote *l = ctx;
	struct feeder *f;
	int r;

	if (id == l->up_link)
		return frame_up(l, id, w, payload);
	f = find(l, id);
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
	if (l->orphan_count > 0)
		mark_orphans(l);
	feeder_pump(l);
	return r;
}

static void on_writable(void *ctx, net_id id)
{
	struct remote *l = ctx;
	struct feeder *f = find(l, id);

	if (id == l->up_link) {
		struct item *item = remote_item(NEWS_WRITABLE, id, NULL, 0);

		if (item != NULL)
			remote_push(l, item);
		else
			(void)no_memory(l, id);
		return;
	}
	if (f != NULL && f->diff != NULL)
		diff_tell(f->diff, false, NULL);
	primary_writable(l->primary, id);
	feeder_pump(l);
}

/* A refusal is known twice, by what the peer said and by what we made of it: which is heard first is chance. */
static const char *plain(const char *trouble)
{
	static const char *const before[] = { ": the peer says: ", ": refused: " };

	for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
		const char *at = strstr(trouble, before[i]);

		if (at != NULL)
			return at + strlen(before[i]);
	}
	return trouble;
}

static void on_closed(void *ctx, net_id id, const struct net_end *end)
{
	struct remote *l = ctx;
	struct feeder **at, *f;

	if (end->dialer != 0) {
		bool ours = l->up_link == id;
		/* Of one that never opened it only counts as a failure. */
		struct item *item = ours ? l->up_closed : remote_item(NEWS_CLOSED, id, NULL, 0);
		char trouble[sizeof l->trouble];
		bool news;

		snprintf(trouble, sizeof trouble, "%s: %s", end->address, end->text);
		pthread_mutex_lock(&l->lock);
		news = strcmp(plain(trouble), plain(l->trouble)) != 0;
		memcpy(l->trouble, trouble, sizeof trouble);
		l->paused = false;
		pthread_mutex_unlock(&l->lock);
		/* Before the mount can be used, who waits for that says it. */
		if (news && atomic_load_explicit(&l->fs->started, memory_order_acquire))
			log_warn("no link to the primary: %s", trouble);
		if (ours) {
			l->up_link = 0;
			l->up_closed = NULL;
		}
		if (item != NULL)
			remote_push(l, item);
		return;
	}
	for (at = &l->feeders; (f = *at) != NULL && f->id != id; at = &f->next)
		;
	if (f == NULL)
		return;
	f->closed = true;
	primary_closed(l->primary, id, now_ms());
	op_diff_stop(l, id);
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

/* ---- For the request thread ---- */

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

static void wait_posted(void *ctx)
{
	struct machine_wait *w = ctx;
	struct remote *l = w->l;
	int r = primary_wait(l->primary, (uint64_t)(uintptr_t)w, w->seq, w->replicas, w->wait_ms, now_ms());

	if (r < 0)
		op_waited(l, (uint64_t)(uintptr_t)w, r);
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

	primary_committed(l->primary, fed(l), atomic_load(&l->change_bytes), now_ms());
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
		(void)net_post(l->net, retry_all, l);
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

struct orphan_post {
	struct remote *l;
	struct orphan o;
};

static void orphan_posted(void *ctx)
{
	struct orphan_post *p = ctx;
	struct remote *l = p->l;

	if (l->orphan_count == l->orphan_room) {
		size_t room = l->orphan_room != 0 ? 2 * l->orphan_room : 64;
		struct orphan *more = realloc(l->orphans, room * sizeof *more);

		/* It stays unmarked until the store is opened again. */
		if (more == NULL) {
			free(p);
			return;
		}
		l->orphans = more;
		l->orphan_room = room;
	}
	l->orphans[l->orphan_count++] = p->o;
	free(p);
	mark_orphans(l);
}

void feeder_orphan(struct remote *l, uint64_t ino, seq_t seq)
{
	struct orphan_post *p = malloc(sizeof *p);

	if (p == NULL)
		return;
	*p = (struct orphan_post){ l, { ino, seq } };
	if (net_post(l->net, orphan_posted, p) < 0)
		free(p);
}

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
	l->primary = primary_new(&o, &engine_ops, l);
	l->lead_work = (struct net_work){ .fn = lead_posted, .ctx = l };
	l->cluster_work = (struct net_work){ .fn = cluster_posted, .ctx = l };
	l->handed_work = (struct net_work){ .fn = handed_posted, .ctx = l };
	l->went_on_work = (struct net_work){ .fn = went_on_posted, .ctx = l };
	l->elsewhere_work = (struct net_work){ .fn = elsewhere_posted, .ctx = l };
	refill_spares(l);
	return l->spare_count == SPARES && l->record != NULL && l->change != NULL && l->primary != NULL ? 0 : -ENOMEM;
}

/* The net thread has ended, and told of the end of each connection. */
void feeder_release(struct remote *l)
{
	struct diff_job *job;

	while ((job = l->jobs) != NULL) {
		diff_tell(job, true, NULL);
		diff_free(job);
		check(l->jobs != job);
	}
	primary_free(l->primary);
	net_buf_put(l->frame);
	while (l->spares != NULL) {
		struct item *item = l->spares;

		l->spares = item->next;
		free(item);
	}
	free(l->up_closed);
	free(l->record);
	free(l->change);
	free(l->orphans);
}
