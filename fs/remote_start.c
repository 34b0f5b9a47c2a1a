/* SPDX-License-Identifier: MIT
 *
 * remote_start: a mount's role and its links, from the options to the end (see remote.h). Request thread; the net thread begins and
 * ends in here. That a store becomes a primary is durable before anybody can see a change of its epoch.
 */
#include "fs/remote_int.h"

#include "fs/log.h"
#include "fs/repeat.h"
#include "fs/say.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_MALLOC   (2 << 20)        /* longer than any frame */
#define FRAMES_KEPT    (16 << 20)       /* as much as the inbox holds */

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
	queue_init(&l->unsynced);
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
	if (o->listen != NULL && remote_own_limit(l) != NULL && remote_own_limit(l)->tree != NULL) {
		log_error("%s: its first key is limited to %s: with that this mount may follow, but feed nobody: leave out --listen",
			  o->key_file, remote_own_limit(l)->tree);
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
	queue_clear(&l->unsynced);
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
		if (is_zero(id.cluster, 16) && store_random(s, id.cluster, sizeof id.cluster) < 0)
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
	if (remote_own_limit(l) != NULL)
		l->client = key_client(remote_own_limit(l), l->client);
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
