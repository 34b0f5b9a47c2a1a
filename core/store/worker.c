/* SPDX-License-Identifier: MIT
 *
 * worker: the three helper threads. Each waits for its flag under wake_lock, then calls one plain function of the store.
 */
#include "core/store/store_int.h"

#include <signal.h>
#include <time.h>

#define PROV_ACTIVE_NS 2000000u         /* the provisioner looks again this often while there is work */
#define PROV_IDLE_LOOKS 50u             /* looks without any change before it sleeps */

static struct timespec after(const struct store *s, uint64_t ns)
{
	uint64_t t = s->sys.now_mono_ns(s->sys.ctx) + ns;

	return (struct timespec){ (time_t)(t / 1000000000u), (long)(t % 1000000000u) };
}

/* Called for every run and growth; costs a system call only if the provisioner sleeps. */
void store_wake_provisioner(struct store *s)
{
	if (!s->threads)
		return;
	/* What was posted must be visible before we look whether it sleeps; it sets the flag before it looks for the last time. */
	atomic_thread_fence(memory_order_seq_cst);
	if (!atomic_load(&s->prov_asleep))
		return;
	(void)pthread_mutex_lock(&s->wake_lock);
	s->prov_wanted = true;
	(void)pthread_mutex_unlock(&s->wake_lock);
	(void)pthread_cond_signal(&s->prov_wake);
}

/* What a helper does for the store. If a page of the file cannot be had, it is left half-way, and the store has failed. */
static void run_guarded(struct store *s, int (*fn)(void *store))
{
	uint64_t byte;

	if (map_guard(fn, s) < 0 && store_lost(s, &byte))
		store_fail(s, -EIO);
}

static int do_sync(void *store)
{
	return store_sync(store);
}

static int do_checkpoint(void *store)
{
	return checkpoint_write(store);
}

static int do_provision(void *store)
{
	return store_provision(store);
}

static void *syncer(void *arg)
{
	struct store *s = arg;

	(void)pthread_mutex_lock(&s->wake_lock);
	while (!s->stop) {
		bool wanted;

		if (!s->sync_wanted && s->sync_interval_s == 0) {
			(void)pthread_cond_wait(&s->sync_wake, &s->wake_lock);
		} else if (!s->sync_wanted) {
			struct timespec until = after(s, s->sync_interval_s * 1000000000ull);

			(void)pthread_cond_timedwait(&s->sync_wake, &s->wake_lock, &until);
		}
		wanted = s->sync_wanted || s->sync_interval_s > 0;
		s->sync_wanted = false;
		if (s->stop || !wanted)
			continue;
		(void)pthread_mutex_unlock(&s->wake_lock);
		run_guarded(s, do_sync);
		(void)pthread_mutex_lock(&s->wake_lock);
	}
	(void)pthread_mutex_unlock(&s->wake_lock);
	return NULL;
}

static void *checkpointer(void *arg)
{
	struct store *s = arg;

	(void)pthread_mutex_lock(&s->wake_lock);
	while (!s->stop) {
		if (!s->ckpt_wanted) {
			(void)pthread_cond_wait(&s->ckpt_wake, &s->wake_lock);
			continue;
		}
		s->ckpt_wanted = false;
		(void)pthread_mutex_unlock(&s->wake_lock);
		run_guarded(s, do_checkpoint);
		(void)pthread_mutex_lock(&s->wake_lock);
	}
	(void)pthread_mutex_unlock(&s->wake_lock);
	return NULL;
}

/* Looks every few milliseconds while the store is busy, so that the request thread need not wake it; sleeps otherwise. */
static void *provisioner(void *arg)
{
	struct store *s = arg;
	unsigned idle = 0;
	jpos_t seen = 0;

	(void)pthread_mutex_lock(&s->wake_lock);
	while (!s->stop) {
		jpos_t tail;

		(void)pthread_mutex_unlock(&s->wake_lock);
		run_guarded(s, do_provision);
		tail = atomic_load(&s->journal.pub_tail);
		idle = tail == seen ? idle + 1 : 0;
		seen = tail;
		(void)pthread_mutex_lock(&s->wake_lock);
		if (idle > PROV_IDLE_LOOKS) {
			atomic_store(&s->prov_asleep, true);
			/* Posted between the look and the flag? Then look once more. */
			if (!s->prov_wanted && !s->stop && !provision_is_posted(s) &&
			    atomic_load(&s->grow_wanted) == 0 && atomic_load(&s->shrink_wanted) == 0)
				(void)pthread_cond_wait(&s->prov_wake, &s->wake_lock);
			atomic_store(&s->prov_asleep, false);
			s->prov_wanted = false;
			idle = 0;
		} else if (!s->stop) {
			struct timespec until = after(s, PROV_ACTIVE_NS);

			(void)pthread_cond_timedwait(&s->prov_wake, &s->wake_lock, &until);
		}
	}
	(void)pthread_mutex_unlock(&s->wake_lock);
	return NULL;
}

int workers_start(struct store *s)
{
	static void *(*const body[])(void *) = { syncer, checkpointer, provisioner };
	sigset_t all, old;
	int r = 0;

	/* Signals are for the thread that the process began with, but for that of a page which cannot be had. */
	(void)sigfillset(&all);
	(void)sigdelset(&all, SIGBUS);
	(void)pthread_sigmask(SIG_BLOCK, &all, &old);
	while (s->threads_started < ARRAY_LEN(body) && r == 0) {
		r = -pthread_create(&s->thread[s->threads_started], NULL, body[s->threads_started], s);
		if (r == 0)
			s->threads_started++;
	}
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r == 0 ? 0 : err_set(-r, "no thread can be started: %s; raise ulimit -v, ulimit -u, or the cgroup's limits", strerror(-r));
}

void workers_stop(struct store *s)
{
	(void)pthread_mutex_lock(&s->wake_lock);
	s->stop = true;
	(void)pthread_cond_broadcast(&s->sync_wake);
	(void)pthread_cond_broadcast(&s->ckpt_wake);
	(void)pthread_cond_broadcast(&s->prov_wake);
	(void)pthread_mutex_unlock(&s->wake_lock);
	while (s->threads_started > 0)
		(void)pthread_join(s->thread[--s->threads_started], NULL);
}
