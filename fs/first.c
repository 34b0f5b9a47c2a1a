/* SPDX-License-Identifier: MIT
 *
 * first: the first sync of a remote mount, before which there is nothing to be mounted. Request thread, while the mount starts. What
 * stands in its way either stays until somebody does something (another key, another cluster, a store that has files): then the mount
 * fails at once and says what to do. Or it may pass (nobody listens there yet, a relay that catches up): then it waits, says on the
 * terminal what for, and can be interrupted; who cannot be reached at all is waited for as long as on-disconnect says.
 */
#include "fs/remote_int.h"

#include "fs/daemon.h"
#include "fs/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define POLL_MS      2
#define SHOW_MS      250
#define REACH_MIN_MS 5000       /* it is waited for a primary that cannot be reached, at least */
#define LASTS_ENOUGH 2u         /* refusals of the transport; one may be the end of a peer that is being started */

struct first {
	struct remote *l;
	int64_t heard_ms;               /* when there was last something to hope for */
	int64_t shown_ms;               /* 0: no progress was shown yet */
	char told[256];                 /* what was said last that is waited for */
	char trouble[256];
	int error;
	unsigned lasts;
};

bool first_is_lasting(const struct net_end *end)
{
	return end->error == -EACCES || end->error == -EPROTONOSUPPORT || end->error == -ELOOP;
}

/* What is to be done about a refusal that stays; NULL: it may pass. */
static const char *after_refusal(uint8_t code)
{
	switch (code) {
	case REFUSED_CLUSTER:   return "give the name of a new file as STORE, or follow its own cluster";
	case REFUSED_VERSION:   return "upgrade the older of the two";
	case REFUSED_NOT_EMPTY: return "give the name of a new file as STORE, or -o replace to give up what is in this one";
	case REFUSED_COMMITTED: return "that machine lacks changes which are known to be safe: follow one that has them";
	case REFUSED_SELF:      return "give the name of a new file as STORE: each mount has one of its own";
	case REFUSED_LIMITED:   return "see limit= in the key files of both";
	default:                return NULL;
	}
}

/* Most that stays of the transport's own says itself what to do; of a key it only says what is wrong. */
static const char *after_error(int error, const char *trouble)
{
	return error == -EACCES && strstr(trouble, "--key-file") == NULL ? ": check --key-file here and there (msyncfs keygen)" : "";
}

static void look_at_trouble(struct first *f)
{
	struct remote *l = f->l;

	pthread_mutex_lock(&l->lock);
	memcpy(f->trouble, l->trouble, sizeof f->trouble);
	f->error = l->trouble_error;
	f->lasts = l->trouble_lasts;
	pthread_mutex_unlock(&l->lock);
}

/* On the terminal, each thing once; what a peer says that may keep us for long, also without one. */
static void tell_waiting(struct first *f, bool busy)
{
	if (f->trouble[0] == '\0' || strcmp(f->trouble, f->told) == 0 || (!busy && !isatty(STDERR_FILENO)))
		return;
	memcpy(f->told, f->trouble, sizeof f->told);
	log_info("waiting for the primary: %s", f->trouble);
}

static void show_progress(struct first *f)
{
	struct diff_progress p;

	if (f->l->diff == NULL || !isatty(STDERR_FILENO) || remote_now_ms() - f->shown_ms < SHOW_MS)
		return;
	f->shown_ms = remote_now_ms();
	diff_target_progress(f->l->diff, &p);
	fprintf(stderr, "\rfirst sync: %llu of %llu MiB   ", (unsigned long long)p.done_bytes >> 20,
		(unsigned long long)p.total_bytes >> 20);
}

/* The signals that end a mount are blocked while it starts; those of a terminal come to the command only. */
static bool is_told_to_stop(const struct first *f)
{
	sigset_t set;

	if (daemon_is_abandoned(f->l->fs->ready_fd))
		return true;
	return sigpending(&set) == 0 && (sigismember(&set, SIGINT) == 1 || sigismember(&set, SIGTERM) == 1 ||
					 sigismember(&set, SIGHUP) == 1);
}

static int interrupted(const struct first *f)
{
	if (f->l->comparisons == 0)
		log_error("%s: interrupted while it waited for the primary%s%s", f->l->fs->store_path,
			  f->trouble[0] != '\0' ? ": " : "", f->trouble);
	else
		log_error("%s: interrupted before the first sync was complete: mount again to go on", f->l->fs->store_path);
	return -EINTR;
}

/* 0: go on waiting. */
static int judge(struct first *f, const struct replica_status *st)
{
	const char *after = after_refusal(st->refused);
	int64_t limit_ms = (int64_t)max_u64((uint64_t)f->l->fs->options->wait_s * 1000, REACH_MIN_MS);

	look_at_trouble(f);
	/* Once the link is closed its end has been written down. */
	if (st->state == REPLICA_DOWN && after != NULL) {
		log_error("%s: %s", f->trouble, after);
		return -ECONNREFUSED;
	}
	if (st->state == REPLICA_DOWN && f->lasts >= LASTS_ENOUGH) {
		log_error("%s%s", f->trouble, after_error(f->error, f->trouble));
		return -ECONNREFUSED;
	}
	if (st->state == REPLICA_DOWN)
		tell_waiting(f, st->refused == REFUSED_BUSY);
	/* What is under way, and who says that it is too early, may take as long as it likes. */
	if (st->state == REPLICA_DIFF || st->state == REPLICA_ASIDE || (st->state != REPLICA_DOWN && st->refused == REFUSED_BUSY))
		f->heard_ms = remote_now_ms();
	if (remote_now_ms() - f->heard_ms <= limit_ms)
		return is_told_to_stop(f) ? interrupted(f) : 0;
	log_error("%s: the primary cannot be reached: %s: check the address and the key, and that it is mounted with --listen",
		  f->l->fs->options->from, f->trouble[0] != '\0' ? f->trouble : "no answer");
	return -ETIMEDOUT;
}

/* A store that was a state of the primary already is mounted at once, whether or not that can be reached. */
int first_sync(struct remote *l)
{
	struct first f = { .l = l, .heard_ms = remote_now_ms() };
	struct store_identity id;
	struct replica_status st;

	store_identity(l->fs->store, &id);
	if (id.role == STORE_REPLICA && !id.incomplete && !is_zero(id.cluster, 16))
		return 0;
	for (;;) {
		bool more = remote_step(l);
		int r;

		(void)store_poll(l->fs->store);
		replica_status(l->replica, (uint64_t)remote_now_ms(), &st);
		if (st.state == REPLICA_STREAM)
			break;
		r = store_failed(l->fs->store);
		if (r < 0)
			log_error("%s: the store failed before the first sync was complete: %s: look after its disk, mount again",
				  l->fs->store_path, strerror(-r));
		else
			r = judge(&f, &st);
		if (r < 0)
			return r;
		show_progress(&f);
		if (!more)
			session_wait(l->fs, POLL_MS);
	}
	if (f.shown_ms != 0)
		fprintf(stderr, "\r%40s\r", "");
	return 0;
}
