/* SPDX-License-Identifier: MIT
 *
 * follower: the request thread's side of a remote mount: the replica's engine over the store. Changes of the primary are
 * applied here, calls of the kernel leave here and are answered when their change has come.
 */
#include "fs/remote_int.h"

#include "core/stream/stream.h"
#include "fs/control.h"
#include "fs/log.h"
#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TICK_MS    50
#define REDIAL_FAILURES 3u      /* connections in a row that were lost or refused, before another machine is asked */
#define SYNC_BEHIND_MS 100      /* between syncs of a remote mount that is behind */
#define DIFF_STEPS 8u           /* between two requests; one takes about 100 us */

/* What nobody else has is being written to a file beside the store, by a thread. */
struct aside {
	struct remote *l;
	pthread_t thread;
	uint64_t epoch;
	seq_t last;
	seq_t want;             /* the checkpoint must have it */
	atomic_int result;      /* 1: under way */
	atomic_bool stop;       /* the mount ends: nobody cuts the checkpoint any more that it may be waiting for */
	char path[4096];
};

static uint64_t now_ms(void)
{
	return (uint64_t)remote_now_ms();
}

/* ---- What diverged ---- */

static int dump_to(struct aside *a, struct keys *k)
{
	struct stream_counts counts;
	int fd = open(a->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), r;

	if (fd < 0)
		return -errno;
	r = stream_dump(k, fd, NULL, &counts);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	close(fd);
	if (r < 0)
		(void)unlink(a->path);
	return r;
}

static void *aside_main(void *arg)
{
	struct aside *a = arg;
	struct store *s = a->l->fs->store;
	const struct timespec pause = { .tv_nsec = 5000000 };
	char path[64];
	struct store_options so = { .path = path, .read_only = true, .snapshot = true };
	struct keys *k = NULL;
	int r = 0;

	session_block_signals();
	while (r == 0 && store_checkpoint_seq(s) < a->want) {
		r = atomic_load(&a->stop) ? -ECANCELED : store_failed(s);
		nanosleep(&pause, NULL);
	}
	store_path(s, path, sizeof path);
	if (r == 0)
		r = keys_open(&so, &k);
	/* There from an attempt before: it is the same. */
	if (r == 0)
		r = dump_to(a, k);
	if (k != NULL)
		(void)keys_close(k);
	atomic_store(&a->result, r == -EEXIST ? 0 : r);
	session_wake(a->l->fs);
	return NULL;
}

static void op_aside(void *ctx, uint64_t epoch, seq_t last, seq_t common)
{
	struct remote *l = ctx;
	struct aside *a = calloc(1, sizeof *a);
	const char *where = strcmp(l->fs->store_path, ":memory:") == 0 ? "/var/tmp/msyncfs" : l->fs->store_path;

	if (a == NULL) {
		replica_aside_done(l->replica, -ENOMEM, now_ms());
		return;
	}
	a->l = l;
	a->epoch = epoch;
	a->last = last;
	a->want = store_seq(l->fs->store);
	atomic_store(&a->result, 1);
	snprintf(a->path, sizeof a->path, "%s.diverged-%llu-%llu", where, (unsigned long long)epoch, (unsigned long long)last);
	log_warn("%s has changes %llu to %llu that its primary does not have: putting its state aside in %s",
		 l->fs->store_path, (unsigned long long)common + 1, (unsigned long long)last, a->path);
	atomic_store(&l->want_checkpoint, a->want + 1);
	l->aside = a;
	if (pthread_create(&a->thread, NULL, aside_main, a) != 0) {
		l->aside = NULL;
		free(a);
		replica_aside_done(l->replica, -EAGAIN, now_ms());
	}
}

static void look_at_aside(struct remote *l)
{
	struct aside *a = l->aside;
	int r = atomic_load(&a->result);

	if (r == 1)
		return;
	pthread_join(a->thread, NULL);
	l->aside = NULL;
	if (r < 0)
		log_error("%s: cannot put the state aside: %s, not following the primary until that works", a->path, strerror(-r));
	else
		log_warn("%s: what was here and not on the primary is there now: see msyncfs load", a->path);
	replica_aside_done(l->replica, r, now_ms());
	free(a);
}

/* ---- What was made here, and is not known to the kernel yet ---- */

static void let_go(struct remote *l, struct pending_call *p)
{
	uint64_t ino = p->held;

	p->held = 0;
	if (ino != 0)
		ops_forget(l->fs, ino, 1);
}

/* Between the change and its answer lie other machines' changes, which may take the name again. So the call has the inode as a
 * lookup of the kernel would: it is held (R5) like a file that is open, and is still there when the kernel is told of it. */
void follower_made(struct remote *l, uint64_t request, uint64_t ino)
{
	struct pending_call *p;
	uint64_t cookie;

	if (ino <= KEYS_ROOT_INO || control_owns(ino) || replica_waiting(l->replica, request, &cookie) != request)
		return;
	p = pending_find(l->pending, cookie);
	if (p == NULL || (p->what.op != CALL_MAKE && p->what.op != CALL_SYMLINK))
		return;
	/* One that was made in a line that is over. */
	let_go(l, p);
	/* Without memory the kernel could not be told of it either. */
	if (inodes_ref(&l->fs->inodes, ino) == 0)
		p->held = ino;
}

static void call_answered(void *ctx, struct pending_call *p, const struct call_result *res)
{
	struct remote *l = ctx;

	ops_answer(l->fs, p, res);
	let_go(l, p);
}

/* The state has made a jump: no change was seen that made an inode, or took its last name. What is known here, to the kernel or
 * to a call that waits, is held. */
static void hold_after_jump(struct remote *l)
{
	uint64_t request, cookie, seq, ino;
	bool marked;

	for (request = replica_waiting(l->replica, 1, &cookie); request != 0; request = replica_waiting(l->replica, request + 1, &cookie))
		if (keys_call_result(l->fs->keys, l->client, request, &seq, &ino) == 0)
			follower_made(l, request, ino);
	for (ino = 0; keys_next_orphan(l->fs->keys, ino, &ino) == 0; ino++)
		if (inodes_mark_orphan(&l->fs->inodes, ino) && keys_orphan_marked(l->fs->keys, ino, &marked) == 0 && !marked)
			replica_hold(l->replica, ino, false);
}

/* ---- Diff ---- */

/* If others are fed from here, calls come from them, whatever the kernel here may do. */
static uint32_t hello_flags(const struct options *o)
{
	return o->listen != NULL ? HELLO_FEEDS : o->read_only ? HELLO_READ_ONLY : 0;
}

static int diff_send(void *ctx, enum diff_type type, const void *bytes, size_t len)
{
	struct remote *l = ctx;

	return net_send(l->net, l->link, (uint16_t)(MSG_DIFF + type), WIRE_MUST, bytes, (uint32_t)len);
}

static bool known(struct remote *l, uint64_t ino)
{
	return ino == KEYS_ROOT_INO || inodes_known(&l->fs->inodes, ino);
}

static void diff_changed(void *ctx, const struct diff_change *c)
{
	struct remote *l = ctx;

	if (!known(l, c->ino))
		return;
	if (c->name != NULL)
		notify_name(l->notify, c->ino, c->name, c->len);
	else
		notify_data(l->notify, c->ino, 0, 0);
}

static void diff_end(struct remote *l)
{
	diff_target_free(l->diff);
	l->diff = NULL;
	l->diff_applied = false;
}

static int op_diff_start(void *ctx, link_t id, const struct msg_welcome *w)
{
	struct remote *l = ctx;
	struct diff_target_options o = { .send = diff_send, .changed = diff_changed, .ctx = l };
	struct store_identity own;
	char *path = NULL;
	int r;

	(void)id;
	(void)w;
	if (l->diff != NULL)
		return err_set(EBUSY, "the state of the last comparison is not on disk yet");
	l->comparisons++;
	store_identity(l->fs->store, &own);
	o.direct = l->diff_direct = own.incomplete;
	if (strcmp(l->fs->store_path, ":memory:") != 0) {
		path = strdup(l->fs->store_path);
		if (path == NULL)
			return -ENOMEM;
		o.folder = dirname(path);
	}
	r = diff_target_new(l->fs->keys, &o, &l->diff);
	free(path);
	return r;
}

static int op_diff_frame(void *ctx, link_t id, unsigned type, const uint8_t *bytes, uint32_t len)
{
	struct remote *l = ctx;

	(void)id;
	return l->diff != NULL ? diff_target_message(l->diff, type - MSG_DIFF, bytes, len) : 0;
}

/* What was applied already is what the store holds, with the link or without: the engine hears of it when it is on disk
 * (diff_step()). If it did not, it would say one position and believe another on every link from then on. */
static void op_diff_stop(void *ctx, link_t id)
{
	struct remote *l = ctx;

	(void)id;
	if (l->diff != NULL && !l->diff_applied)
		diff_end(l);
}

static void diff_failed(struct remote *l, int error)
{
	const char *text = *err_last() != '\0' ? err_last() : strerror(-error);
	char reason[256];

	snprintf(reason, sizeof reason, "the comparison with the primary ended: %s", text);
	log_warn("%s: %s", l->fs->store_path, reason);
	diff_end(l);
	replica_diff_failed(l->replica, reason, now_ms());
}

/* The new state is durable: what it was an unfinished copy of, it is. */
static void diff_done(struct remote *l)
{
	struct diff_progress p;
	struct store_identity id;

	store_identity(l->fs->store, &id);
	if (id.incomplete) {
		id.incomplete = false;
		if (l->complete_ticket == 0 && store_set_identity(l->fs->store, &id, &l->complete_ticket) < 0) {
			diff_failed(l, -EIO);
			return;
		}
	}
	if (store_identity_durable(l->fs->store) < l->complete_ticket)
		return;
	l->complete_ticket = 0;
	diff_target_progress(l->diff, &p);
	log_info("%s: equal to the primary at change %llu: %llu items differed, %llu bytes came",
		 l->fs->store_path, (unsigned long long)p.seq, (unsigned long long)p.items_differ,
		 (unsigned long long)p.received_bytes);
	diff_end(l);
	replica_set_flags(l->replica, hello_flags(l->fs->options));
	if (l->feeds)
		feed_restart(&l->feed, store_seq(l->fs->store) + 1);
	remote_read_history(l);
	/* Orphans that are marked, and not quite gone on the primary. */
	reaper_start(l->fs);
	hold_after_jump(l);
	l->told_durable = store_durable_seq(l->fs->store);
	replica_diff_done(l->replica, p.epoch, p.seq, now_ms());
}

/* True: there is more to do at once. */
static bool diff_step(struct remote *l)
{
	int r = DIFF_BUSY;

	if (l->diff_applied) {
		if (store_failed(l->fs->store) != 0)
			diff_failed(l, store_failed(l->fs->store));
		else if (!store_rebasing(l->fs->store))
			diff_done(l);
		return false;
	}
	for (unsigned i = 0; i < DIFF_STEPS && r == DIFF_BUSY; i++)
		r = diff_target_step(l->diff);
	if (r == DIFF_READY) {
		r = diff_target_apply(l->diff);
		l->diff_applied = r == 0;
		if (r == -EAGAIN || r == 0)
			return false;
	}
	if (r < 0) {
		diff_failed(l, r);
		return false;
	}
	return r == DIFF_BUSY;
}

/* ---- What the engine wants ---- */

/* What is not said would be waited for: on the next link it is said again. */
static int no_memory(struct remote *l, net_id id)
{
	(void)net_close(l->net, id, WIRE_E_CLOSED, "no memory for a message");
	return -ENOTCONN;
}

static int op_send(void *ctx, link_t id, unsigned type, const void *head, uint32_t head_len, const void *body,
		   uint32_t body_len)
{
	struct remote *l = ctx;
	struct net_buf *b = net_buf_new((uint16_t)type, msg_flags(type), head_len + body_len);
	int r;

	if (b == NULL)
		return no_memory(l, id);
	memcpy(net_buf_payload(b), head, head_len);
	if (body_len > 0)
		memcpy(net_buf_payload(b) + head_len, body, body_len);
	r = net_send_buf(l->net, id, b);
	net_buf_put(b);
	return r == -ENOMEM ? no_memory(l, id) : r;
}

static void op_close(void *ctx, link_t id, const char *reason)
{
	struct remote *l = ctx;

	if (reason != NULL)
		log_warn("leaving the primary: %s", reason);
	(void)net_close(l->net, id, reason != NULL ? WIRE_E_OWNER : WIRE_E_CLOSED, reason != NULL ? reason : "");
}

static void op_history(void *ctx, struct history *ret)
{
	remote_history(ctx, ret);
}

static int op_apply(void *ctx, const struct msg_change *c)
{
	struct remote *l = ctx;
	/* What the kernel could not be told of it would keep for ever. */
	int r = notify_ready(l->notify) ? change_apply(l->fs->keys, c->bytes, c->len) : -EAGAIN;

	if (r == -ENOSPC && !l->space_logged)
		log_error("%s: no space for the primary's changes: make room on its disk", l->fs->store_path);
	l->space_logged = r == -ENOSPC;
	return r == -ENOSPC ? -EAGAIN : r;
}

static void op_promise(void *ctx, uint64_t epoch)
{
	struct remote *l = ctx;
	struct store_identity id;

	store_identity(l->fs->store, &id);
	id.promised_epoch = max_u64(id.promised_epoch, epoch);
	l->promise_epoch = epoch;
	if (store_set_identity(l->fs->store, &id, &l->promise_ticket) < 0)
		l->promise_ticket = 0;
}

static int op_welcome(void *ctx, const struct msg_welcome *w)
{
	struct remote *l = ctx;
	struct store *s = l->fs->store;
	struct store_identity id;
	int r;

	if (!relay_welcome(l, w))
		return -EAGAIN;
	l->failures = 0;
	memcpy(l->followed, l->address, sizeof l->followed);
	/* Who was told of an older primary here, or of none, is told of this one; a relay feeds them itself. */
	if (l->handed_over)
		feeder_elsewhere(l, l->address);
	store_identity(s, &id);
	if (id.role == STORE_REPLICA && memcmp(id.cluster, w->cluster, 16) == 0 &&
	    (!id.incomplete || w->decision != WELCOME_STREAM))
		return 0;
	id.role = STORE_REPLICA;
	memcpy(id.cluster, w->cluster, 16);
	id.promised_epoch = max_u64(id.promised_epoch, w->epoch);
	/* With nothing to lose, it is filled at once, and is no state of anything until the end. */
	if (store_seq(s) == 0 && w->decision != WELCOME_STREAM)
		id.incomplete = true;
	r = store_put_identity(s, &id);
	if (r == 0)
		feeder_cluster(l);
	return r;
}

static uint32_t op_locks(void *ctx, uint8_t *buf, uint32_t max)
{
	return lockd_state(((struct remote *)ctx)->lockd, buf, max);
}

static void op_lock(void *ctx, const struct msg_lock *m)
{
	struct remote *l = ctx;

	if (m->client == l->client)
		lockd_message(l->lockd, m);
	else
		feeder_lock(l, m);
}

static void op_answer(void *ctx, uint64_t cookie, const struct replica_answer *a)
{
	struct remote *l = ctx;
	const struct call_result res = { .error = a->error, .number = a->number };

	if ((cookie & LOCKD_COOKIE) != 0) {
		lockd_result(l->lockd, cookie, a->error);
		return;
	}
	if (a->error == 0 && (a->flags & RESULT_SYNC) != 0 && a->seq > atomic_load(&l->synced))
		atomic_store(&l->synced, a->seq);
	/* Interrupted or timed out ones have left already. */
	(void)pending_complete(l->pending, cookie, &res);
}

static void op_forwarded(void *ctx, uint64_t client, uint64_t session, uint64_t request, uint64_t token,
			 const struct replica_answer *a)
{
	relay_answer(ctx, client, session, request, token, a);
}

/* This is the primary now, and what programs here had asked the old one is still to be settled. */
static void op_run(void *ctx, uint64_t client, uint64_t request, uint64_t low, const uint8_t *bytes, uint32_t len)
{
	struct remote *l = ctx;
	const struct replica_answer taken = { .seq = store_seq(l->fs->store) };
	const struct replica_answer unknown = { .error = -EIO, .seq = store_seq(l->fs->store) };
	struct item *item;

	(void)low;
	/* A lock that somebody waits for is asked of our own table, and what was unlocked is not in it: run now, it would take
	 * away what its owner may have been given since. */
	if (lock_call_is(bytes, len)) {
		replica_local_result(l->replica, client, request, &taken);
		return;
	}
	item = remote_item(NEWS_RUN, 0, bytes, len);
	if (item == NULL) {
		/* The old primary may have run it. */
		replica_local_result(l->replica, client, request, &unknown);
		return;
	}
	item->run = (struct primary_run){ .client = client, .request = request, .bytes = item->bytes, .len = len };
	remote_push(l, item);
}

static void op_lead(void *ctx, uint64_t epoch)
{
	struct remote *l = ctx;
	struct store_identity id;

	store_identity(l->fs->store, &id);
	id.role = STORE_PRIMARY;
	id.promised_epoch = max_u64(id.promised_epoch, epoch);
	l->lead_epoch = epoch;
	if (store_set_identity(l->fs->store, &id, &l->lead_ticket) < 0)
		l->lead_ticket = 0;
}

/* The promise and the role are on disk. A crash from here on: the store is opened as a primary below its promise, and begins
 * the epoch then (O10). */
static void begin_to_lead(struct remote *l)
{
	int r;

	/* Those behind are in the old epoch. */
	if (!relay_stop(l))
		return;
	r = keys_begin_epoch(l->fs->keys, l->lead_epoch);
	if (r == -EAGAIN)
		return;
	l->lead_ticket = 0;
	if (r < 0) {
		log_error("%s: cannot become the primary: %s", l->fs->store_path, *err_last() != '\0' ? err_last() : strerror(-r));
		return;
	}
	l->leads = true;
	clients_init(&l->clients, l->fs->keys, now_ms());
	remote_walk(l);
	/* What programs here asked the old primary for may still be settled. */
	clients_here(&l->clients, l->client);
	l->handed_over = false;
	l->relay_path_count = 0;
	l->fs->pending = NULL;
	if (l->dialer != 0)
		(void)net_undial(l->net, l->dialer);
	l->dialer = 0;
	remote_read_history(l);
	replica_led(l->replica, l->lead_epoch, store_seq(l->fs->store), now_ms());
	lockd_lead(l->lockd, l->lead_epoch, true);
	feeder_lead(l);
	/* Orphans that the old primary had not marked yet. */
	reaper_start(l->fs);
	log_info("%s: the primary of epoch %llu", l->fs->store_path, (unsigned long long)l->lead_epoch);
}

int follower_promote(struct remote *l)
{
	return replica_promote(l->replica, now_ms());
}

void follower_result(struct remote *l, const struct primary_run *run, const struct primary_result *res)
{
	const struct replica_answer a = { .error = res->error, .seq = res->seq, .number = res->number };

	replica_local_result(l->replica, run->client, run->request, &a);
}

/* Connect to another address from now on. */
static int redial(struct remote *l, const char *address)
{
	net_id dialer;
	int r = net_dial(l->net, address, &dialer);

	if (r < 0)
		return r;
	if (l->dialer != 0)
		(void)net_undial(l->net, l->dialer);
	l->dialer = dialer;
	l->failures = 0;
	snprintf(l->address, sizeof l->address, "%s", address);
	return 0;
}

static void op_elsewhere(void *ctx, const char *name)
{
	struct remote *l = ctx;
	char own[512];

	/* Without a port or a path it is no address. Our own: who is asked has not heard yet that it is to lead; it is asked again. */
	follower_name(l->fs->options, own, sizeof own);
	if (strpbrk(name, ":/") == NULL || strlen(name) >= sizeof l->address || strcmp(name, l->address) == 0 ||
	    strcmp(name, own) == 0)
		return;
	log_info("%s is not the primary: following %s", l->address, name);
	if (redial(l, name) < 0)
		log_warn("%s: %s", name, err_last());
}

static void op_note(void *ctx, const char *text)
{
	(void)ctx;
	log_info("primary: %s", text);
}

static const struct replica_ops engine_ops = {
	.send = op_send, .close = op_close, .history = op_history, .apply = op_apply, .promise = op_promise,
	.welcome = op_welcome, .aside = op_aside, .diff_start = op_diff_start, .diff_frame = op_diff_frame,
	.diff_stop = op_diff_stop, .locks = op_locks, .lock = op_lock, .answer = op_answer, .forwarded = op_forwarded, .run = op_run,
	.lead = op_lead, .elsewhere = op_elsewhere, .note = op_note,
};

/* ---- Calls of this mount ---- */

static int up_send(void *ctx, const void *bytes, size_t len, uint64_t *ret_request)
{
	struct remote *l = ctx;
	struct replica_call rc = { .cookie = l->cookie + 1, .bytes = bytes, .len = (uint32_t)len };
	struct call c;
	int r = call_decode(bytes, len, &c);

	if (r < 0)
		return -EIO;
	rc.object = c.ino;
	rc.flags = c.op == CALL_FSYNC || c.op == CALL_SYNC || (c.flags & CALL_DURABLE) != 0 ? REPLICA_CALL_SYNC : REPLICA_CALL_WRITE;
	r = replica_call(l->replica, &rc, now_ms());
	if (r < 0)
		return r;
	*ret_request = ++l->cookie;
	return 0;
}

static void up_cancel(void *ctx, uint64_t request)
{
	(void)replica_cancel(((struct remote *)ctx)->replica, request);
}

/* Whom we ask does not lead, or is gone. Who was given with --from may know more; so may the last primary that there was: it may
 * have handed over to us, and the word of it was lost with the link. */
static void ask_another(struct remote *l)
{
	const char *from = l->fs->options->from, *to = from;

	if (from == NULL || strcmp(l->address, from) == 0)
		to = l->followed;
	if (to[0] != '\0' && strcmp(l->address, to) != 0)
		(void)redial(l, to);
}

/* ---- For remote.c ---- */

int follower_item(struct remote *l, struct item *item)
{
	int r;

	switch (item->kind) {
	case NEWS_OPENED:
		l->link = item->id;
		/* Nothing would ever be said on it. */
		if (replica_opened(l->replica, item->id, now_ms()) < 0)
			(void)net_close(l->net, item->id, WIRE_E_CLOSED, err_last());
		return 0;
	case NEWS_FRAME:
		r = replica_frame(l->replica, item->id, item->type, item->bytes, item->len, now_ms());
		if (r == -EAGAIN)
			return r;
		if (r < 0 && l->link == item->id)
			/* Said when it is closed. */
			(void)net_close(l->net, item->id, WIRE_E_PROTOCOL, err_last());
		return 0;
	case NEWS_WRITABLE:
		replica_writable(l->replica, item->id);
		return 0;
	default:
		replica_closed(l->replica, item->id, now_ms());
		if (l->link == item->id)
			l->link = 0;
		if (++l->failures >= REDIAL_FAILURES)
			ask_another(l);
		return 0;
	}
}

bool follower_step(struct remote *l)
{
	struct store *s = l->fs->store;
	seq_t durable = store_durable_seq(s);
	int64_t now = remote_now_ms();
	struct replica_status st;
	bool more = false;

	/* What somebody made durable on the primary is to be so here, soon: others may wait for that. While more of it is still to
	 * come (catching up), what they wait for is most likely among that, and a sync for each few changes would write pages of the
	 * journal again and again, and have the journal written ahead. */
	replica_status(l->replica, (uint64_t)now, &st);
	if (min_u64(st.primary_durable, st.applied) > max_u64(durable, l->sync_asked) && !store_rebasing(s) &&
	    (st.applied >= st.primary_durable || now - l->sync_asked_ms >= SYNC_BEHIND_MS)) {
		l->sync_asked = store_seq(s);
		l->sync_asked_ms = now;
		store_sync_request(s);
	}

	if (durable != l->told_durable && !store_rebasing(s)) {
		l->told_durable = durable;
		replica_durable(l->replica, durable);
	}
	if (l->promise_ticket != 0 && store_identity_durable(s) >= l->promise_ticket) {
		l->promise_ticket = 0;
		replica_promised(l->replica, l->promise_epoch);
	}
	if (l->lead_ticket != 0 && store_identity_durable(s) >= l->lead_ticket)
		begin_to_lead(l);
	if (l->aside != NULL)
		look_at_aside(l);
	if (l->diff != NULL)
		more = diff_step(l);
	replica_status(l->replica, (uint64_t)now, &st);
	if (st.state == REPLICA_STREAM && st.session != l->streamed) {
		l->streamed = st.session;
		log_info("%s: following %s", l->fs->store_path, l->address);
		pthread_mutex_lock(&l->lock);
		l->trouble[0] = '\0';
		pthread_mutex_unlock(&l->lock);
	}
	relay_step(l, &st);
	if (now - l->ticked_ms >= TICK_MS) {
		l->ticked_ms = now;
		replica_tick(l->replica, (uint64_t)now);
	}
	while (replica_pump(l->replica, (uint64_t)now))
		;
	pending_push(l->pending);
	return more;
}

/* Where others can reach it; for who does not listen, the name of the machine. */
void follower_name(const struct options *o, char *name, size_t size)
{
	char host[HOST_NAME_MAX + 1] = "";
	struct net_address a;
	const char *where;
	bool brackets;

	(void)gethostname(host, sizeof host - 1);
	if (o->listen == NULL || net_address_parse(o->listen, true, &a) < 0) {
		snprintf(name, size, "%s", host);
		return;
	}
	where = a.host[0] != '\0' ? a.host : host;
	brackets = !a.local && strchr(where, ':') != NULL;
	snprintf(name, size, "%s%s%s%s%s", brackets ? "[" : "", where, brackets ? "]" : "", a.local ? "" : ":",
		 a.local ? "" : a.port);
}

int follower_follow(struct remote *l, const char *address)
{
	/* Told by a peer: a name without a port is no address. */
	if (address != l->fs->options->from && strpbrk(address, ":/") == NULL)
		return err_set(EINVAL, "it does not say where it can be reached");
	return strlen(address) < sizeof l->address ? redial(l, address) : err_set(ENAMETOOLONG, "too long an address");
}

/* It followed before it led. The same engine goes on: the numbers of its calls that were used are in the store, and one that came
 * again would be taken for done; and the new primary may remember our links. */
static void follow_again(struct remote *l)
{
	struct store *s = l->fs->store;
	struct store_identity id;

	store_identity(s, &id);
	replica_committed(l->replica, store_epoch(s), store_seq(s));
	l->told_durable = store_durable_seq(s);
	replica_durable(l->replica, l->told_durable);
	/* It is on disk: that was waited for before anybody else could be the primary. */
	(void)replica_follow(l->replica, id.promised_epoch, now_ms());
	replica_promised(l->replica, id.promised_epoch);
	l->fs->pending = l->pending;
}

int follower_init(struct remote *l)
{
	const struct options *o = l->fs->options;
	struct store *s = l->fs->store;
	struct pending *pending;
	struct store_identity id;
	char name[512];
	struct replica_options ro = {
		.client = l->client,
		.version = MSG_VERSION,
		.features = MSG_FEATURES,
		.policy = o->on_disconnect,
		.wait_ms = o->wait_s * 1000,
		.max_stale_ms = o->max_stale_s * 1000,
		/* Until now it was the primary itself. */
		.fresh_at = l->handing ? now_ms() : 0,
		.flags = hello_flags(o) | (o->replace ? HELLO_REPLACE : 0),
		.name = name,
	};

	if (l->replica != NULL) {
		follow_again(l);
		return 0;
	}
	pending = calloc(1, sizeof *pending);
	if (pending == NULL)
		return -ENOMEM;
	store_identity(s, &id);
	memcpy(ro.cluster, id.cluster, sizeof ro.cluster);
	memcpy(ro.store, l->store, sizeof ro.store);
	if (id.incomplete)
		ro.flags |= HELLO_INCOMPLETE;
	follower_name(o, name, sizeof name);
	name[MSG_NAME_MAX] = '\0';
	l->told_durable = store_durable_seq(s);
	l->replica = replica_new(&ro, &engine_ops, l, store_epoch(s), store_seq(s), l->told_durable, id.promised_epoch);
	if (l->replica == NULL) {
		free(pending);
		return -ENOMEM;
	}
	l->pending = pending;
	l->upstream = (struct fs_upstream){ .ctx = l, .send = up_send, .cancel = up_cancel };
	pending_init(l->pending, &l->upstream, call_answered, l);
	pending_link_up(l->pending);
	/* Who was fed from here before this mount was made again may hold what only it knows of. */
	replica_hold_all(l->replica, o->listen != NULL && !l->handed_over);
	l->fs->pending = l->pending;
	return 0;
}

void follower_release(struct remote *l)
{
	if (l->aside != NULL) {
		atomic_store(&l->aside->stop, true);
		pthread_join(l->aside->thread, NULL);
		free(l->aside);
		l->aside = NULL;
	}
	if (l->diff != NULL)
		diff_end(l);
	replica_free(l->replica);
	l->replica = NULL;
	l->fs->pending = NULL;
	if (l->pending != NULL) {
		pending_release(l->pending);
		free(l->pending);
		l->pending = NULL;
	}
}
