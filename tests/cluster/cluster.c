/* SPDX-License-Identifier: MIT
 *
 * cluster: see cluster.h. Programs on three mounts lock and unlock, add one to a number under an exclusive lock, are interrupted;
 * links break, the primary is handed over. Demanded:
 *   - nobody has a lock while somebody else has one that excludes it, and no number is written twice;
 *   - no lock is lost: no link is away for a lease;
 *   - who does not want to wait is refused only if somebody had the lock since he asked, or might have been given it; in half of all
 *     clusters, as long as no link ends. What a close gives up the mount hears of later;
 *   - in a quarter of all clusters files are made, and removed on another machine at once: whoever made one has it open then, as on a
 *     local file system; it is given up nowhere before its last user has closed it, and in the end everywhere;
 *   - when troubles end, everybody gets what he waits for, and nothing is left in the table.
 *
 *   SEED=n   that one, with a trace if TRACE=1        SEEDS=n   so many        ROUNDS=n   of each program
 */
#include "tests/cluster/cluster.h"

#include "fs/log.h"
#include "fs/ops.h"

#include <errno.h>
#include <stdarg.h>
#include <time.h>

#define STEPS    60000u         /* with troubles */
#define PATIENCE_MS 200000u     /* without */
#define PATIENCE_ASKED_MS 1900u /* nothing is refused before because a machine does not answer */

struct cluster *C;

static uint64_t next_random(void)
{
	C->rng ^= C->rng << 13;
	C->rng ^= C->rng >> 7;
	C->rng ^= C->rng << 17;
	return C->rng;
}

uint32_t rnd(uint32_t n)
{
	return (uint32_t)(next_random() >> 32) % n;
}

void failed(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(C->why, sizeof C->why, format, ap);
	va_end(ap);
	longjmp(C->fail, 1);
}

void trace(const char *format, ...)
{
	va_list ap;

	if (!C->trace)
		return;
	(void)printf("# %8llu ", (unsigned long long)C->now_ms);
	va_start(ap, format);
	(void)vprintf(format, ap);
	va_end(ap);
	(void)printf("\n");
}

void log_write(enum log_level level, const char *format, ...)
{
	char text[512];
	va_list ap;

	(void)level;
	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	trace("log: %s", text);
	if (strstr(text, "is lost") || strstr(text, "cannot be:"))
		failed("%s", text);
}

/* The clock of all. */
int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
	(void)id;
	*t = (struct timespec){ .tv_sec = (time_t)(C->now_ms / 1000), .tv_nsec = (long)(C->now_ms % 1000) * 1000000 };
	return 0;
}

/* Programs ----------------------------------------------------------------------------------------------------------- */

static bool has_lock(const struct prog *p)
{
	return p->state == PROG_HOLDS || p->state == PROG_WRITES || p->state == PROG_WROTE;
}

static void granted(struct prog *p)
{
	for (unsigned i = 0; i < NODES * PROGS; i++) {
		const struct prog *o = &C->nodes[i / PROGS].progs[i % PROGS];

		if (o != p && has_lock(o) && o->op.ino == p->op.ino &&
		    (o->op.type == LOCKS_EXCLUSIVE || p->op.type == LOCKS_EXCLUSIVE))
			failed("program %u gets file %llu, which program %u has", p->id, (unsigned long long)p->op.ino, o->id);
	}
	p->state = PROG_HOLDS;
	C->grants++;
}

/* Who is told that he has not got it must not have it. */
static void check_free(const struct prog *p)
{
	char text[8192], pid[24];

	if (p->releasing > 0)
		return;
	snprintf(pid, sizeof pid, " pid=%u ", p->op.pid);
	(void)remote_locks(p->node->l, text, sizeof text);
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		if (strstr(line, pid) && strstr(line, "state=held"))
			failed("program %u is told that it has no lock, and it is kept for it", p->id);
}

/* Does it have the lock, or may it have it without knowing? */
static bool may_have(const struct prog *o, const struct prog *p)
{
	return o != p && o->op.ino == p->op.ino && (has_lock(o) || o->state == PROG_ASKS || o->state == PROG_FREES) &&
	       (o->op.type == LOCKS_EXCLUSIVE || o->state == PROG_FREES || p->op.type == LOCKS_EXCLUSIVE);
}

/* Who asked without waiting, and is refused, was not alone. */
static void check_refused(const struct prog *p)
{
	C->refusals++;
	if (C->whole && !C->closed && !p->excused && C->now_ms - p->since_ms < PATIENCE_ASKED_MS)
		failed("program %u is refused file %llu, which nobody has", p->id, (unsigned long long)p->op.ino);
}

int fuse_reply_err(fuse_req_t req, int err)
{
	struct prog *p = (struct prog *)req;

	trace("program %u: %s", p->id, err == 0 ? "done" : strerror(err));
	if (p->state == PROG_ASKS && err == EAGAIN)
		check_refused(p);
	if ((p->state == PROG_ASKS && err != 0) || p->state == PROG_FREES)
		check_free(p);
	if (p->state == PROG_ASKS && err == 0)
		granted(p);
	else if ((p->state == PROG_ASKS && ((err == EINTR && p->interrupted) || (err == EAGAIN && !p->op.wait))) ||
		 (p->state == PROG_FREES && err == 0))
		p->state = PROG_IDLE;
	else
		failed("program %u in state %d is told: %s", p->id, (int)p->state, strerror(err));
	return 0;
}

int fuse_reply_lock(fuse_req_t req, const struct flock *lock)
{
	(void)lock;
	failed("program %u did not ask who has it", ((struct prog *)req)->id);
}

void prog_wrote(struct prog *p, int error)
{
	trace("program %u: wrote %llu: %s", p->id, (unsigned long long)p->next, strerror(-error));
	if (error < 0)
		failed("program %u: a write fails: %s", p->id, strerror(-error));
	p->state = PROG_WROTE;
	p->node->is_cached = true;
	p->node->cached = p->next;
}

static void set_lock(struct prog *p, bool waits_for_answer)
{
	struct node *n = p->node;
	struct lock_op op = p->op;

	p->unique = ++C->last_unique;
	p->since_ms = C->now_ms;
	n->head.unique = p->unique;
	n->fs.request = &n->head;
	n->fs.req = waits_for_answer ? (fuse_req_t)p : NULL;
	lockd_set(remote_lockd(n->l), n->fs.req, &op);
	n->fs.request = NULL;
	n->fs.req = NULL;
}

/* Whoever asks for the same may have it before p has its answer. */
static void note_others(struct prog *p)
{
	p->excused = false;
	for (unsigned i = 0; i < NODES * PROGS; i++) {
		struct prog *o = &C->nodes[i / PROGS].progs[i % PROGS];

		if (o == p || o->op.ino != p->op.ino)
			continue;
		p->excused |= may_have(o, p);
		o->excused |= o->state == PROG_ASKS;
	}
}

static void begin(struct prog *p)
{
	bool count = chance(70), quick = C->whole && chance(50);

	if (p->left == 0) {
		p->state = PROG_DONE;
		return;
	}
	p->left--;
	p->interrupted = p->sent = false;
	p->op = (struct lock_op){ .ino = count ? INO_COUNT : INO_OTHER, .owner = p->id % PROGS + 1 + PROGS * p->files, .handle = p->id + 1,
				  .end = LOCKS_END, .pid = p->id + 100, .kind = count ? LOCKS_POSIX : LOCKS_FLOCK,
				  .type = chance(80) ? LOCKS_EXCLUSIVE : LOCKS_SHARED, .wait = chance(90) };
	if (quick) {
		p->op.ino = INO_QUICK + rnd(QUICK);
		p->op.kind = LOCKS_FLOCK;
		p->op.wait = false;
	}
	note_others(p);
	p->state = PROG_ASKS;
	trace("program %u asks for file %llu%s", p->id, (unsigned long long)p->op.ino, p->op.type == LOCKS_SHARED ? ", shared" : "");
	set_lock(p, true);
}

static void end(struct prog *p)
{
	bool waits = chance(70);

	trace("program %u unlocks", p->id);
	/* Who does not wait closes the file: then it is a new open file that is locked next. */
	p->files += !waits;
	p->state = waits ? PROG_FREES : PROG_IDLE;
	p->op.type = LOCKS_OFF;
	if (waits) {
		set_lock(p, true);
		return;
	}
	p->releasing++;
	node_kernel_add(p->node, &(struct pending_request){ .prog = p, .op = p->op });
}

/* The mount reads a request that nobody waits for. */
static void kernel_step(struct node *n)
{
	struct pending_request r;

	if (n->kernel_count == 0)
		return;
	r = n->kernel[n->kernel_first];
	n->kernel_first = (n->kernel_first + 1) % KERNEL_MAX;
	n->kernel_count--;
	n->fs.request = &n->head;
	n->fs.req = NULL;
	if (r.prog) {
		trace("node %u hears that program %u has closed its file", n->id, r.prog->id);
		r.prog->releasing--;
		lockd_set(remote_lockd(n->l), NULL, &r.op);
	} else {
		lockd_barrier(remote_lockd(n->l), r.number);
	}
	n->fs.request = NULL;
}

/* Does everybody follow, and can be asked? */
static bool is_whole(void)
{
	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = &C->nodes[i];
		struct replica_status st;

		if (n->l->leads)
			continue;
		replica_status(n->l->replica, C->now_ms, &st);
		if (st.state != REPLICA_STREAM || st.open_calls > 0)
			return false;
	}
	return true;
}

static void write_number(struct prog *p)
{
	struct node *n = p->node;
	struct call c = { .op = CALL_WRITE, .ino = INO_COUNT };

	if (p->sent || remote_parks(n->l))
		return;
	p->sent = true;
	if (!n->is_cached) {
		n->is_cached = true;
		n->cached = node_number(n);
	}
	p->next = n->cached + 1;
	c.off = p->next;
	if (n->fs.pending) {
		trace("program %u sends %llu", p->id, (unsigned long long)p->next);
		if (pending_add(n->fs.pending, (struct fuse_req *)p, ++C->last_unique, &c, NULL, 0) < 0)
			failed("a call is not taken");
		return;
	}
	node_commit(n, p->next);
	prog_wrote(p, 0);
}

static void prog_step(struct prog *p)
{
	switch (p->state) {
	case PROG_IDLE:
		if (chance(30))
			begin(p);
		break;
	case PROG_ASKS:
		if (!C->calm && !p->interrupted && chance(2)) {
			trace("program %u is interrupted", p->id);
			p->interrupted = true;
			if (!lockd_interrupt(remote_lockd(p->node->l), p->unique))
				failed("program %u waits for nothing", p->id);
		}
		break;
	case PROG_HOLDS:
		if (p->op.ino != INO_COUNT || p->op.type != LOCKS_EXCLUSIVE) {
			if (chance(30))
				end(p);
			break;
		}
		p->state = PROG_WRITES;
		/* fall through */
	case PROG_WRITES:
		write_number(p);
		break;
	case PROG_WROTE:
		if (chance(50))
			end(p);
		break;
	default:
		break;
	}
}

/* Files -------------------------------------------------------------------------------------------------------------- */

bool file_is_open(uint64_t ino)
{
	for (unsigned i = 0; i < NODES * MAKERS; i++) {
		const struct maker *m = &C->nodes[i / MAKERS].makers[i % MAKERS];

		if (m->state == MAKER_OPEN && m->ino == ino)
			return true;
	}
	return false;
}

void maker_made(struct maker *m, int error, uint64_t ino)
{
	struct node *n = m->node;
	const struct file *f;

	if (error < 0)
		failed("node %u: a file is not made: %s", n->id, strerror(-error));
	f = node_file(n, ino);
	if (!f->there)
		failed("node %u has the answer before the file that was made", n->id);
	if (f->marked || f->reaped)
		failed("node %u: file %llu was given up before its maker had it", n->id, (unsigned long long)ino);
	trace("node %u has made file %llu%s", n->id, (unsigned long long)ino, f->removed ? ", which is removed" : "");
	C->undone += f->removed;
	if (inodes_ref(&n->fs.inodes, ino) < 0)
		failed("no memory");
	m->state = MAKER_OPEN;
	m->ino = ino;
}

static void make_file(struct maker *m)
{
	struct node *n = m->node;
	const struct call c = { .op = CALL_MAKE };

	if (remote_parks(n->l))
		return;
	if (m->left == 0) {
		m->state = MAKER_DONE;
		return;
	}
	m->left--;
	m->state = MAKER_ASKS;
	if (!n->fs.pending)
		maker_made(m, 0, node_make(n));
	else if (pending_add(n->fs.pending, (struct fuse_req *)m, ++C->last_unique, &c, NULL, 0) < 0)
		failed("a call is not taken");
}

/* One of the newest, if this machine has it. */
static void remove_file(struct node *n)
{
	struct call c = { .op = CALL_UNLINK };
	const struct file *f;

	if (C->files == 0 || remote_parks(n->l))
		return;
	c.off = FILE_FIRST + (C->calm ? rnd((uint32_t)C->files) : C->files - 1 - rnd((uint32_t)min_u64(C->files, 4)));
	f = node_file(n, c.off);
	if (!f->there || f->removed)
		return;
	if (n->fs.pending)
		(void)pending_add(n->fs.pending, NULL, ++C->last_unique, &c, NULL, 0);
	else if (node_remove(n, c.off) == 0)
		ops_orphaned(&n->fs, c.off);
}

static void maker_step(struct maker *m)
{
	if (chance(40))
		remove_file(m->node);
	else if (m->state == MAKER_IDLE)
		make_file(m);
	else if (m->state == MAKER_OPEN && chance(30)) {
		trace("node %u closes file %llu", m->node->id, (unsigned long long)m->ino);
		m->state = MAKER_IDLE;
		ops_forget(&m->node->fs, m->ino, 1);
	}
}

/* All were removed, and are gone everywhere. */
static bool files_are_over(void)
{
	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = &C->nodes[i];

		for (unsigned k = 0; k < MAKERS; k++)
			if (n->makers[k].state != MAKER_DONE)
				return false;
		for (uint64_t ino = FILE_FIRST; ino < FILE_FIRST + C->files; ino++)
			if (!node_file(n, ino)->reaped)
				return false;
	}
	return true;
}

/* Mounts ------------------------------------------------------------------------------------------------------------- */

static void start(struct node *n, unsigned id, unsigned rounds)
{
	n->id = id;
	snprintf(n->listen, sizeof n->listen, "/%u", id);
	snprintf(n->from, sizeof n->from, "/0");
	n->options = (struct options){ .listen = n->listen, .from = id == 0 ? NULL : n->from, .on_disconnect = REPLICA_WAIT,
				       .wait_s = 100000 };
	n->fs = (struct fs){ .options = &n->options, .store_path = n->listen, .store = (struct store *)n,
			     .keys = (struct keys *)n, .cluster_locks = true };
	n->identity.role = id == 0 ? STORE_ALONE : STORE_REPLICA;
	memcpy(n->identity.cluster, C->nodes[0].identity.cluster, sizeof n->identity.cluster);
	for (unsigned i = 0; i < PROGS; i++)
		n->progs[i] = (struct prog){ .node = n, .id = id * PROGS + i, .left = rounds };
	for (unsigned i = 0; i < MAKERS; i++)
		n->makers[i] = (struct maker){ .node = n, .left = rounds };
	if (inodes_init(&n->fs.inodes) < 0 || inodes_ref(&n->fs.inodes, INO_COUNT) < 0)
		failed("no memory");
	if (remote_new(&n->fs, &n->l) < 0)
		failed("no memory");
	n->fs.remote = n->l;
	if (remote_start(n->l) < 0)
		failed("node %u does not start: %s", id, err_last());
	n->l->notify = (struct notify *)n;
}

static void stop(struct node *n)
{
	n->l->notify = NULL;
	remote_stop(n->l);
	remote_free(n->l);
	inodes_release(&n->fs.inodes);
}

static void hand_over(void)
{
	unsigned to = rnd(NODES);
	char name[8];

	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = &C->nodes[i];

		if (!n->l->leads || i == to)
			continue;
		snprintf(name, sizeof name, "/%u", to);
		trace("node %u is to hand over to node %u", i, to);
		(void)remote_demote(n->l, name);
		C->switches++;
	}
}

static bool hangs(const struct node *n)
{
	return n->hung_until > C->now_ms && !C->calm;
}

/* A primary, for longer than its net thread looks on, and than leases last. Time goes faster then, or little else would be seen. Not a remote
 * mount: it may lose its locks by that, and its programs would not be told before it goes on. */
static void stand_still(void)
{
	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = &C->nodes[i];

		if (!n->l->leads || hangs(n))
			continue;
		n->hung_until = C->now_ms + 5000 + rnd(30000);
		trace("node %u stands still until %llu", i, (unsigned long long)n->hung_until);
		C->hangs++;
	}
}

static bool anybody_hangs(void)
{
	for (unsigned i = 0; i < NODES; i++)
		if (hangs(&C->nodes[i]))
			return true;
	return false;
}

static void step_of(unsigned threads)
{
	struct node *n = &C->nodes[rnd(NODES)];
	unsigned what = rnd(threads);

	C->now_ms += anybody_hangs() ? rnd(80) : chance(3) ? rnd(40) : rnd(2);
	if (what < 35)
		(void)node_net_step(n);
	else if (hangs(n))
		;
	else if (what < 70)
		(void)remote_step(n->l);
	else if (what < 78)
		(void)node_store_step(n);
	else if (what < 86)
		(void)node_notify_step(n);
	else if (what < 90)
		kernel_step(n);
	else if (C->makes && chance(50))
		maker_step(&n->makers[rnd(MAKERS)]);
	else
		prog_step(&n->progs[rnd(PROGS)]);
	if (!C->calm && !C->whole && rnd(400) == 0)
		links_cut_one();
	if (!C->calm && !C->whole && rnd(6000) == 0)
		hand_over();
	if (!C->calm && !C->whole && C->seed % 4 == 3 && rnd(6000) == 0)
		stand_still();
}

static void step(void)
{
	step_of(100);
}

/* All but programs. */
static void step_beginning(void)
{
	step_of(90);
}

/* Over: all programs have ended, and nobody has a lock. */
static bool is_over(void)
{
	for (unsigned i = 0; i < NODES; i++) {
		for (unsigned k = 0; k < PROGS; k++)
			if (C->nodes[i].progs[k].state != PROG_DONE)
				return false;
		if (remote_locks(C->nodes[i].l, NULL, 0) > 0)
			return false;
	}
	return !C->makes || files_are_over();
}

static void show(void)
{
	char text[2048];

	for (unsigned i = 0; i < NODES && C->nodes[i].l; i++) {
		struct node *n = &C->nodes[i];

		for (uint64_t ino = FILE_FIRST; C->makes && ino < FILE_FIRST + C->files; ino++) {
			const struct file *f = node_file(n, ino);

			if (!f->reaped)
				printf("#   node %u: file %llu:%s%s%s%s\n", i, (unsigned long long)ino, f->there ? " there" : "",
				       f->removed ? " removed" : "", f->marked ? " marked" : "", file_is_open(ino) ? " open" : "");
		}
		printf("# node %u%s at %llu\n", i, n->l->leads ? ", the primary" : "", (unsigned long long)n->seq);
		for (unsigned k = 0; k < PROGS; k++)
			printf("#   program %u: state %d since %llu\n", n->progs[k].id, (int)n->progs[k].state,
			       (unsigned long long)n->progs[k].since_ms);
		(void)remote_locks(n->l, text, sizeof text);
		for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
			printf("#   %s\n", line);
	}
}

static bool run(uint64_t seed, unsigned rounds, bool traces)
{
	uint64_t calm_ms;

	C = calloc(1, sizeof *C);
	if (!C)
		abort();
	C->seed = seed;
	C->rng = seed * 0x9e3779b97f4a7c15u + 1;
	C->now_ms = 1000000;
	C->trace = traces;
	C->makes = seed % 4 == 1;
	for (unsigned i = 0; i < 10; i++)
		(void)next_random();
	if (setjmp(C->fail) != 0) {
		printf("# CASE=cluster SEED=%llu: %s\n", (unsigned long long)C->seed, C->why);
		show();
		return false;
	}
	for (unsigned i = 0; i < NODES; i++)
		start(&C->nodes[i], i, rounds);
	if (seed % 2 == 0) {
		/* Nobody locks yet. */
		C->whole = true;
		for (unsigned i = 0; i < STEPS && (i < 2000 || !is_whole()); i++)
			step_beginning();
	}
	for (unsigned i = 0; i < STEPS && !is_over(); i++)
		step();
	C->calm = true;
	calm_ms = C->now_ms;
	while (!is_over()) {
		step();
		if (C->now_ms - calm_ms > PATIENCE_MS)
			failed("somebody waits for ever, or a lock stays");
	}
	return true;
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

int main(void)
{
	bool one = getenv("SEED") != NULL, good = true;
	uint64_t seed = number_from("SEED", 1), seeds = one ? 1 : number_from("SEEDS", 40), i;
	unsigned rounds = (unsigned)number_from("ROUNDS", 30), cuts = 0, switches = 0, hangs = 0, grants = 0, refusals = 0, undone = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("1..1\n");
	for (i = 0; i < seeds && good; i++) {
		good = run(seed + i, rounds, number_from("TRACE", 0) != 0);
		cuts += C->cuts;
		switches += C->switches;
		hangs += C->hangs;
		grants += C->grants;
		refusals += C->refusals;
		undone += C->undone;
		for (unsigned k = 0; k < NODES && good; k++)
			stop(&C->nodes[k]);
		links_release();
		free(C);
	}
	printf("# %llu clusters, %u locks, %u refused, %u links broken, %u times handed over, %u primaries that stood still, %u files undone before "
	       "they were known\n", (unsigned long long)i, grants, refusals, cuts, switches, hangs, undone);
	printf("%s 1 - locks hold on all mounts, and nobody waits for ever\n", good ? "ok" : "not ok");
	return good ? 0 : 1;
}
