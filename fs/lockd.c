/* SPDX-License-Identifier: MIT
 *
 * lockd: see lockd.h.
 */
#include "fs/lockd.h"

#include "core/replica/limit.h"

#include "fs/log.h"
#include "fs/remote_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_MS 2000           /* at least so long, and at most twice, a lock is not refused because nobody answers a probe */

_Static_assert(LOCKS_STATE_MAX <= MSG_LOCKS_MAX, "a statement fits a hello");

enum entry_state {
	ENTRY_NEW,              /* to be asked for */
	ENTRY_ASKED,
	ENTRY_DONE,             /* the answer is here; see (K2) */
};

struct entry {
	struct entry *next;
	struct lock_op op;
	enum entry_state state;
	enum lock_call call;    /* SET; GET: a question only; PROBES, PROBED: a word to the primary, which nobody waits for */
	uint64_t number;        /* of such a word */
	bool in_flight;         /* the call has no result yet */
	bool own;               /* DONE: granted by our own table, which has it */
	bool cancelling;        /* its program does not want it any more */
	bool cancel_due;        /* which is still to be sent */
	fuse_req_t req;         /* NULL: nobody waits */
	uint64_t unique;
	uint64_t call_round;    /* when it was sent */
	struct lock_answer answer;
	seq_t seq;
	uint64_t mark;          /* of the notifier, 0: seq is not here yet */
};

struct lockd {
	struct remote *l;
	struct locks *table;
	struct entry *first, **end;
	uint64_t ticket, round;
	bool streams;           /* a remote mount: at the last look */
	bool restate;           /* the primary has more of ours than we have: to be told */
	bool fenced;
	int64_t grace_until_ms; /* 0: none */
	uint64_t announced;     /* the round of which the primary knows that we answer probes */
	uint64_t probe_wanted;  /* the newest probe to be answered; 0: none */
	uint64_t barrier;       /* which of them the barrier under way is for; 0: none is */
	/* The primary: probes up to this number are given up then; 0: there are none. */
	uint64_t probe_limit;
	int64_t probe_until_ms;
	char name[LOCKS_NAME_MAX + 1];
};

/* ---- Entries ---- */

static bool is_word(const struct entry *e)
{
	return e->call == LOCK_CALL_PROBES || e->call == LOCK_CALL_PROBED;
}

static bool is_unlock(const struct entry *e)
{
	return e->call == LOCK_CALL_SET && e->op.type == LOCKS_OFF;
}

static struct entry *find(struct lockd *d, uint64_t ticket)
{
	struct entry *e = d->first;

	while (e != NULL && e->op.ticket != ticket)
		e = e->next;
	return e;
}

static void unlink_entry(struct lockd *d, struct entry *e)
{
	struct entry **at = &d->first;

	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	if (d->end == &e->next)
		d->end = at;
}

static void reply_get(struct entry *e)
{
	const struct lock_answer *a = &e->answer;
	struct flock fl = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	if (a->type != LOCKS_OFF) {
		fl.l_type = a->type == LOCKS_SHARED ? F_RDLCK : F_WRLCK;
		fl.l_start = (off_t)a->start;
		fl.l_len = a->end == LOCKS_END ? 0 : (off_t)(a->end - a->start + 1);
		fl.l_pid = (pid_t)a->pid;
	}
	fuse_reply_lock(e->req, &fl);
}

/* Its call is not to be sent again: on another link it would ask once more for what nobody waits for. */
static void withdraw(struct lockd *d, struct entry *e)
{
	if (!e->in_flight)
		return;
	e->in_flight = false;
	(void)replica_cancel(d->l->replica, LOCKD_COOKIE | e->op.ticket);
}

/* The entry is over: what the program is told. */
static void finish(struct lockd *d, struct entry *e, int error)
{
	struct fs *fs = d->l->fs;

	withdraw(d, e);
	unlink_entry(d, e);
	if (e->req != NULL) {
		fs->req = e->req;
		if (error == 0 && e->call == LOCK_CALL_GET)
			reply_get(e);
		else
			fuse_reply_err(e->req, -error);
	}
	free(e);
}

/* (K3) */
static int refused(const struct entry *e, int error)
{
	if (is_unlock(e))
		return 0;
	return error == -EINTR || error == -EAGAIN || error == -EDEADLK || error == -EINVAL ? error : -ENOLCK;
}

/* ---- The table's answers ---- */

static void to_client(struct lockd *d, const struct lock_answer *a)
{
	const struct msg_lock m = {
		.client = a->client, .round = a->round, .ticket = a->ticket, .error = a->error,
		.flags = a->lost ? LOCK_LOST : 0, .kind = a->kind, .type = a->type, .pid = a->pid, .ino = a->ino,
		.owner = a->owner, .start = a->start, .end = a->end, .seq = store_seq(d->l->fs->store),
		.fence_epoch = a->epoch, .fence = a->counter,
	};

	feeder_lock(d->l, &m);
}

static void on_answer(void *ctx, const struct lock_answer *answer)
{
	struct lockd *d = ctx;
	struct lock_answer a = *answer;
	struct entry *e;

	/* The number of a process means something on its own machine only. */
	if (a.holder != 0 && a.holder != a.client)
		a.pid = 0;
	if (a.client != d->l->client) {
		to_client(d, &a);
		return;
	}
	/* The table is asked for entries that are there, and only so: it has nothing that nobody waits for. */
	e = find(d, a.ticket);
	if (e == NULL || e->state == ENTRY_DONE)
		return;
	e->answer = a;
	e->state = ENTRY_DONE;
	e->own = a.error == 0 && a.counter != 0;
	e->seq = 0;
	e->mark = notify_mark();
}

/* (L5) The table wants to know of locks that are being given up just now: of ours, or of those of another mount. */
static void on_probe(void *ctx, uint64_t client, uint64_t round, uint64_t number)
{
	struct lockd *d = ctx;
	/* It is of no lock; the fields have to be of one. */
	const struct msg_lock m = { .client = client, .round = round, .ticket = number, .flags = LOCK_PROBE, .kind = LOCKS_FLOCK,
				    .ino = KEYS_ROOT_INO, .end = LOCKS_END, .seq = store_seq(d->l->fs->store) };

	if (client == d->l->client)
		d->probe_wanted = max_u64(d->probe_wanted, number);
	else
		feeder_lock(d->l, &m);
}

/* ---- Asking ---- */

static int send_call(struct lockd *d, enum lock_call what, const struct lock_op *op, uint64_t cookie)
{
	uint8_t bytes[LOCK_CALL_SIZE];
	struct replica_call rc = { .cookie = LOCKD_COOKIE | cookie, .bytes = bytes,
				   .len = (uint32_t)lock_call_encode(what, op, bytes) };

	return replica_call(d->l->replica, &rc, (uint64_t)remote_now_ms());
}

static void ask_table(struct lockd *d, struct entry *e)
{
	e->state = ENTRY_ASKED;
	if (e->call == LOCK_CALL_GET)
		locks_query(d->table, d->l->client, &e->op);
	else
		locks_request(d->table, d->l->client, &e->op);
}

/* 0; -EAGAIN: no room now. Else the entry is over. */
static int ask_primary(struct lockd *d, struct entry *e)
{
	struct lock_op op = e->op;
	int r;

	if (is_word(e))
		op.ticket = e->number;
	r = send_call(d, e->call, &op, e->op.ticket);
	if (r == -EAGAIN)
		return r;
	if (r < 0) {
		/* An unlock that cannot be sent. */
		d->restate |= is_unlock(e);
		finish(d, e, refused(e, r));
		return 0;
	}
	e->state = ENTRY_ASKED;
	e->in_flight = true;
	e->call_round = d->round;
	return 0;
}

static void ask(struct lockd *d)
{
	struct entry *e, *next;

	for (e = d->first; e != NULL; e = next) {
		next = e->next;
		if (e->cancel_due && !d->l->leads) {
			if (send_call(d, LOCK_CALL_CANCEL, &e->op, ++d->ticket) == -EAGAIN)
				break;
			e->cancel_due = false;
		}
		/* While its call is on its way it is not sent once more: that its order is kept is enough. */
		if (e->state != ENTRY_NEW || e->in_flight)
			continue;
		if (d->fenced || (is_word(e) && d->l->leads))
			finish(d, e, refused(e, -ENOLCK));
		else if (d->l->leads)
			ask_table(d, e);
		else if (ask_primary(d, e) == -EAGAIN)
			break;
	}
}

/* ---- Answering programs ---- */

/* (K2) */
static bool may_have(struct lockd *d, struct entry *e)
{
	if (e->answer.error < 0 || e->call != LOCK_CALL_SET || is_unlock(e))
		return true;
	if (e->mark == 0) {
		if (!d->streams || store_seq(d->l->fs->store) < e->seq)
			return false;
		e->mark = notify_mark();
	}
	return notify_told(d->l->notify, e->mark);
}

static void settle(struct lockd *d)
{
	struct entry *e, *next;

	for (e = d->first; e != NULL; e = next) {
		int error = e->answer.error;

		next = e->next;
		if (e->state != ENTRY_DONE || !may_have(d, e))
			continue;
		if (error == 0 && e->call == LOCK_CALL_SET && !is_unlock(e) && !d->l->leads &&
		    locks_note(d->table, d->l->client, &e->op, e->answer.epoch, e->answer.counter) < 0) {
			d->restate = true;
			error = -ENOLCK;
		}
		finish(d, e, error < 0 ? refused(e, error) : 0);
	}
}

static struct entry *append(struct lockd *d, enum lock_call call)
{
	struct entry *e = calloc(1, sizeof *e);

	if (e == NULL)
		return NULL;
	e->op.ticket = ++d->ticket;
	e->call = call;
	*d->end = e;
	d->end = &e->next;
	return e;
}

static bool add(struct lockd *d, fuse_req_t req, const struct lock_op *op, enum lock_call call)
{
	struct fs *fs = d->l->fs;
	struct entry *e = append(d, call);
	uint64_t ticket = d->ticket;

	if (e == NULL)
		return false;
	e->op = *op;
	e->op.ticket = ticket;
	e->req = req;
	if (req != NULL) {
		e->unique = fs->request->unique;
		fs->req = NULL;         /* it is answered later, also if this very request is left half-way */
	}
	ask(d);
	settle(d);
	return true;
}

/* Is something of this owner under way? */
static bool is_busy(const struct lockd *d, const struct lock_op *op)
{
	for (const struct entry *e = d->first; e != NULL; e = e->next)
		if (e->op.ino == op->ino && e->op.owner == op->owner && e->op.kind == op->kind)
			return true;
	return false;
}

/* A remote mount: (K3), and what flock(2) gives up before it waits. True: nothing is to be asked. */
static bool note_here(struct lockd *d, const struct lock_op *op)
{
	struct lock_op off = *op;
	enum lock_type has = LOCKS_OFF;
	bool holds = locks_holds(d->table, d->l->client, op->ino, op->owner, op->kind, &has);

	off.type = LOCKS_OFF;
	if (op->type == LOCKS_OFF && !holds)
		return !is_busy(d, op);
	if (op->type == LOCKS_OFF || (op->kind == LOCKS_FLOCK && op->wait && holds && has != op->type)) {
		/* Without memory for a split it stays: then it is as before. */
		if (locks_note(d->table, d->l->client, &off, 0, 0) < 0)
			return false;
	}
	if (op->type != LOCKS_OFF || d->streams)
		return false;
	/* There may be a statement on its way that has it. */
	d->restate = true;
	return true;
}

/* Without memory for an entry: others wait for what is unlocked, and its owner may be gone. */
static void unlock_anyway(struct lockd *d, struct lock_op *op)
{
	op->ticket = ++d->ticket;
	if (d->l->leads)
		locks_request(d->table, d->l->client, op);
	else
		d->restate = true;
}

void lockd_set(struct lockd *d, fuse_req_t req, struct lock_op *op)
{
	if (!d->l->leads && note_here(d, op)) {
		if (req != NULL)
			fuse_reply_err(req, 0);
		return;
	}
	if (add(d, req, op, LOCK_CALL_SET))
		return;
	if (op->type == LOCKS_OFF)
		unlock_anyway(d, op);
	if (req != NULL)
		fuse_reply_err(req, op->type == LOCKS_OFF ? 0 : ENOLCK);
}

void lockd_get(struct lockd *d, fuse_req_t req, struct lock_op *op)
{
	if (!add(d, req, op, LOCK_CALL_GET))
		fuse_reply_err(req, ENOLCK);
}

void lockd_close(struct lockd *d, uint64_t ino, uint64_t handle, bool flock, uint64_t owner)
{
	struct lock_op op = { .ino = ino, .owner = owner, .end = LOCKS_END, .kind = LOCKS_FLOCK };
	uint64_t last = 0;
	bool found = false;

	if (flock)
		lockd_set(d, NULL, &op);
	op.kind = LOCKS_POSIX;
	/* Locks of processes went with FLUSH; what is left belongs to the open file itself (F_OFD_SETLK). */
	while (locks_of_handle(d->table, d->l->client, ino, handle, &op.owner) && !(found && op.owner == last)) {
		found = true;
		last = op.owner;
		lockd_set(d, NULL, &op);
	}
}

bool lockd_interrupt(struct lockd *d, uint64_t unique)
{
	struct entry *e = d->first;

	while (e != NULL && (e->unique != unique || e->req == NULL))
		e = e->next;
	if (e == NULL)
		return false;
	if (e->state == ENTRY_DONE || e->cancelling || e->op.type == LOCKS_OFF)
		return true;            /* its answer is on its way */
	if (d->l->leads) {
		locks_cancel(d->table, d->l->client, e->op.ticket);
		settle(d);
		return true;
	}
	if (d->streams && (e->state == ENTRY_ASKED || e->in_flight)) {
		e->cancelling = e->cancel_due = true;
		ask(d);
		return true;
	}
	/* Nobody can be asked. Should it have been granted: it is not in the next statement. */
	finish(d, e, -EINTR);
	return true;
}

/* ---- Probes ---- */

/* A word to the primary, behind all that it is still to be told. Without memory: it does without. */
static bool say(struct lockd *d, enum lock_call what, uint64_t number)
{
	struct entry *e = append(d, what);

	if (e == NULL)
		return false;
	e->number = number;
	ask(d);
	return true;
}

static void begin_barrier(struct lockd *d)
{
	if (d->probe_wanted != 0 && d->barrier == 0 && session_barrier(d->l->fs, d->probe_wanted) == 0)
		d->barrier = d->probe_wanted;
}

/* (K4) What programs had given up before the probe came is in the table, or on its way. */
void lockd_barrier(struct lockd *d, uint64_t number)
{
	if (number != d->barrier)
		return;
	d->barrier = 0;
	/* Another role, or another statement: nobody waits for it. */
	if (d->probe_wanted >= number) {
		if (d->l->leads)
			locks_probed(d->table, d->l->client, number);
		else
			(void)say(d, LOCK_CALL_PROBED, number);
		if (d->probe_wanted == number)
			d->probe_wanted = 0;
	}
	begin_barrier(d);
	settle(d);
}

static void tend_probes(struct lockd *d)
{
	int64_t now = remote_now_ms();
	uint64_t newest = d->l->leads ? locks_probing(d->table) : 0;

	begin_barrier(d);
	if (newest == 0) {
		d->probe_limit = 0;
	} else if (d->probe_limit == 0) {
		d->probe_limit = newest;
		d->probe_until_ms = now + PROBE_MS;
	} else if (now >= d->probe_until_ms) {
		locks_probe_end(d->table, d->probe_limit);
		d->probe_limit = 0;
	}
}

size_t lockd_to_text(const struct lockd *d, char *buf, size_t size)
{
	return locks_to_text(d->table, buf, size);
}

/* ---- The line to the primary ---- */

/* It is gone, or a statement is made: what is under way is void (K1). Not what our own table granted when it decided: that is in
 * the statement. */
static void void_answers(struct lockd *d)
{
	struct entry *e, *next;

	d->probe_wanted = 0;
	for (e = d->first; e != NULL; e = next) {
		next = e->next;
		if (e->state == ENTRY_DONE && e->own)
			continue;
		if (e->cancelling)
			finish(d, e, -EINTR);
		else if (is_unlock(e) || is_word(e))
			finish(d, e, 0);
		else
			e->state = ENTRY_NEW;
	}
}

uint32_t lockd_state(struct lockd *d, uint8_t *buf, uint32_t max)
{
	check(max >= LOCKS_STATE_MAX);
	void_answers(d);
	d->restate = false;
	d->round++;
	return (uint32_t)locks_state(d->table, d->l->client, d->round, d->name, buf);
}

/* Another machine has it now. */
static void lose(struct lockd *d, const struct msg_lock *m)
{
	struct lock_op off = { .ticket = 1, .ino = m->ino, .owner = m->owner, .kind = m->kind, .start = m->start, .end = m->end };

	(void)locks_note(d->table, d->l->client, &off, 0, 0);
	/* Its program has not been told yet that it has it: it is asked for again. */
	for (struct entry *e = d->first; e != NULL; e = e->next)
		if (e->own && e->op.ino == m->ino && e->op.owner == m->owner && e->op.kind == m->kind) {
			e->own = false;
			e->state = ENTRY_NEW;
		}
	log_warn("ino=%llu: a lock of process %u is lost: the primary was out of reach for longer than locks are kept, and another "
		 "machine has it now", (unsigned long long)m->ino, m->pid);
}

void lockd_message(struct lockd *d, const struct msg_lock *m)
{
	struct lock_answer a = { .ticket = m->ticket, .error = m->error, .kind = m->kind, .type = m->type, .pid = m->pid,
				 .ino = m->ino, .owner = m->owner, .start = m->start, .end = m->end,
				 .epoch = m->fence_epoch, .counter = m->fence };
	struct entry *e = find(d, m->ticket);

	if (m->round != d->round || d->l->leads)
		return;
	if ((m->flags & LOCK_PROBE) != 0) {
		d->probe_wanted = max_u64(d->probe_wanted, m->ticket);
		begin_barrier(d);
		return;
	}
	if ((m->flags & LOCK_LOST) != 0) {
		lose(d, m);
		return;
	}
	if (e == NULL || e->state == ENTRY_DONE) {
		/* Granted, and nobody waits: it is not unlocked, since its owner may have asked for it again meanwhile, and would lose
		 * what it was just given. What we have is stated instead. */
		d->restate |= e == NULL && m->error == 0 && m->fence != 0 &&
			      !locks_holds(d->table, d->l->client, m->ino, m->owner, m->kind, NULL);
		return;
	}
	withdraw(d, e);
	e->answer = a;
	e->seq = m->seq;
	e->mark = 0;
	e->own = false;
	e->state = ENTRY_DONE;
	e->cancel_due = false;
}

void lockd_result(struct lockd *d, uint64_t cookie, int error)
{
	struct entry *e = find(d, cookie & ~LOCKD_COOKIE);

	/* Not one that was withdrawn. */
	if (e == NULL || !e->in_flight)
		return;
	e->in_flight = false;
	if (e->state == ENTRY_DONE)
		return;
	if (error < 0 || is_word(e))
		finish(d, e, refused(e, error));
	else if (e->call_round != d->round)
		e->state = ENTRY_NEW;
}

/* ---- Roles ---- */

/* Our own table decides. It may have what is asked for (what it granted before, and it was stated since): then it says so. */
static void ask_anew(struct lockd *d)
{
	for (struct entry *e = d->first; e != NULL; e = e->next) {
		withdraw(d, e);
		e->own = false;
		e->state = ENTRY_NEW;
	}
}

void lockd_lead(struct lockd *d, uint64_t epoch, bool grace)
{
	/* Numbers must go up over a restart in the same epoch, and locks leave nothing on disk: so they begin with the time. */
	void_answers(d);
	ask_anew(d);
	d->streams = d->restate = false;
	locks_lead(d->table, epoch, clock_real_ns() / 1000u, grace);
	d->grace_until_ms = grace ? remote_now_ms() + LEASE_MS : 0;
	locks_name(d->table, d->l->client, d->name);
	locks_probes(d->table, d->l->client, 0);
}

void lockd_follow(struct lockd *d)
{
	locks_follow(d->table, d->l->client);
	d->grace_until_ms = 0;
	d->streams = false;
	void_answers(d);
}

void lockd_fenced(struct lockd *d)
{
	lockd_follow(d);
	d->fenced = true;
}

/* ---- Other mounts ---- */

int lockd_take(const struct lockd *d, const struct primary_run *run, uint32_t len, struct lockd_call *ret)
{
	if (lock_call_decode(run->bytes, len, &ret->what, &ret->op) < 0)
		return -EIO;
	if (d->fenced || !d->l->leads)
		return -ENOLCK;
	/* A lock keeps others out, as a change would. To ask who has it, and to let go of it, is open to all. */
	if (run->tree != NULL && ret->what == LOCK_CALL_SET && ret->op.type != LOCKS_OFF)
		return limit_lock(d->l->fs->keys, run->tree, ret->op.ino);
	return 0;
}

void lockd_run(struct lockd *d, uint64_t client, const struct lockd_call *c)
{
	if (c->what == LOCK_CALL_SET)
		locks_request(d->table, client, &c->op);
	else if (c->what == LOCK_CALL_GET)
		locks_query(d->table, client, &c->op);
	else if (c->what == LOCK_CALL_PROBES)
		locks_probes(d->table, client, c->op.ticket);
	else if (c->what == LOCK_CALL_PROBED)
		locks_probed(d->table, client, c->op.ticket);
	else
		locks_cancel(d->table, client, c->op.ticket);
}

/* Where a client that is limited to a directory may have locks. */
struct lock_limit {
	struct keys *keys;
	const char *tree;
};

static bool may_lock(void *ctx, uint64_t ino)
{
	const struct lock_limit *limit = ctx;

	return limit->tree == NULL || limit_lock(limit->keys, limit->tree, ino) == 0;
}

void lockd_client_here(struct lockd *d, const struct primary_run *who, const uint8_t *bytes, uint32_t len)
{
	struct lock_limit limit = { d->l->fs->keys, who->tree };

	if (!d->l->leads || d->fenced || who->client == d->l->client)
		return;
	if (locks_restate(d->table, who->client, bytes, len, may_lock, &limit) < 0)
		log_warn("a remote mount states locks that cannot be: %s, ignoring", err_last());
}

void lockd_client_left(struct lockd *d, uint64_t client)
{
	if (client != d->l->client)
		locks_leave(d->table, client);
}

void lockd_client_expired(struct lockd *d, uint64_t client)
{
	if (client != d->l->client)
		locks_expire(d->table, client);
}

/* ---- Between requests ---- */

static void look_at_line(struct lockd *d)
{
	struct replica_status st;
	bool streams;

	replica_status(d->l->replica, (uint64_t)remote_now_ms(), &st);
	streams = st.state == REPLICA_STREAM;
	if (d->streams && !streams)
		void_answers(d);
	d->streams = streams;
	/* All on the way to the primary, and the primary itself, know what a probe is. */
	if (streams && d->announced != d->round && (st.features & MSG_FEATURE_PROBE) != 0 && say(d, LOCK_CALL_PROBES, d->round))
		d->announced = d->round;
}

void lockd_step(struct lockd *d)
{
	if (d->grace_until_ms != 0 && remote_now_ms() >= d->grace_until_ms) {
		d->grace_until_ms = 0;
		locks_grace_end(d->table);
	}
	if (!d->l->leads && d->l->replica != NULL)
		look_at_line(d);
	if (d->restate && d->streams) {
		d->restate = false;
		replica_restate(d->l->replica, (uint64_t)remote_now_ms());
		look_at_line(d);
	}
	tend_probes(d);
	if (d->first == NULL)
		return;
	ask(d);
	settle(d);
}

int lockd_new(struct remote *l, struct lockd **ret)
{
	struct lockd *d = calloc(1, sizeof *d);

	if (d == NULL)
		return -ENOMEM;
	d->l = l;
	d->end = &d->first;
	d->table = locks_new(on_answer, on_probe, d);
	if (d->table == NULL) {
		free(d);
		return -ENOMEM;
	}
	follower_name(l->fs->options, d->name, sizeof d->name);
	*ret = d;
	return 0;
}

void lockd_free(struct lockd *d)
{
	if (d == NULL)
		return;
	while (d->first != NULL)
		finish(d, d->first, -EIO);
	locks_free(d->table);
	free(d);
}
