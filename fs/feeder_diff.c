/* SPDX-License-Identifier: MIT
 *
 * feeder_diff: the comparison of this store with that of a remote mount that the feed does not reach back to. A thread for each, which
 * may wait for the disk; it reads a snapshot of its own, and never touches the store but by what is marked [any].
 */
#include "fs/feeder_int.h"

#include "core/store/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHECKPOINT_POLL_NS 5000000

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
	struct feeder *f = feeder_find(l, job->id);

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

void feeder_diff_tell(struct diff_job *job, bool stop, struct item *m)
{
	pthread_mutex_lock(&job->lock);
	job->stop = job->stop || stop;
	job->writable = true;
	if (m != NULL)
		queue_add(&job->in, m);
	pthread_cond_signal(&job->wake);
	pthread_mutex_unlock(&job->lock);
}

int feeder_diff_start(void *ctx, link_t id, const struct msg_hello *hello)
{
	struct remote *l = ctx;
	struct feeder *f = feeder_find(l, id);
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

int feeder_diff_frame(void *ctx, link_t id, unsigned type, const uint8_t *bytes, uint32_t len)
{
	struct feeder *f = feeder_find(ctx, id);
	struct item *m;

	if (f == NULL || f->diff == NULL)
		return 0;
	m = remote_item(NEWS_FRAME, id, bytes, len);
	if (m == NULL)
		return -ENOMEM;
	m->type = type - MSG_DIFF;
	feeder_diff_tell(f->diff, false, m);
	return 0;
}

void feeder_diff_stop(void *ctx, link_t id)
{
	struct feeder *f = feeder_find(ctx, id);

	if (f == NULL || f->diff == NULL)
		return;
	feeder_diff_tell(f->diff, true, NULL);
	f->diff = NULL;
}

void feeder_diff_release(struct remote *l)
{
	struct diff_job *job;

	while ((job = l->jobs) != NULL) {
		feeder_diff_tell(job, true, NULL);
		diff_free(job);
		check(l->jobs != job);
	}
}
