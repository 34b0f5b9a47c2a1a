/* SPDX-License-Identifier: MIT
 *
 * rounds: one life, round by round. A round mounts the store, compares it with what was acknowledged, lets the workers work,
 * and ends the daemon in one of the ways below; the next round's comparison is the verdict on this one. What a round needs
 * is chosen from the life's seed before anything runs; the moment at which things meet is the machine's.
 */
#include "tests/kill/kill.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

const char *const kind_names[KINDS] = {
	"timed", "in-request", "at-point", "opening", "opening-at-point", "stopped", "sigterm", "umount-l", "umount-f", "clean",
	"closing", "race-store", "race-mount-point", "race-new-store", "race-kill", "race-dying",
	"programs", "journal",
};
const char *const point_names[POINTS] = POINT_NAMES;

static const unsigned kind_weights[KINDS] = {
	[KIND_TIMED] = 18, [KIND_REQUEST] = 24, [KIND_POINT] = 24, [KIND_OPENING] = 6, [KIND_OPENING_POINT] = 10,
	[KIND_STOPPED] = 5, [KIND_TERM] = 1, [KIND_LAZY] = 3, [KIND_FORCE] = 3, [KIND_CLEAN] = 3, [KIND_CLOSING] = 5,
	[KIND_RACE_STORE] = 3, [KIND_RACE_MOUNT] = 3, [KIND_RACE_NEW] = 3, [KIND_RACE_KILL] = 4, [KIND_RACE_DYING] = 4,
	[KIND_PROGRAMS] = 3, [KIND_JOURNAL] = 3,
};

/* P3: the journal since the last checkpoint, when a checkpoint is due at 32 MiB and as much may gather while it is written. */
static const uint64_t journal_bound = 72u << 20;
#define CHECKPOINT_BYTES (32ull << 20)          /* or an eighth of a smaller store */

static unsigned below(struct lane *l, unsigned n)
{
	return random_below(&l->rng, n);
}

/* From 0 to `most`, short ones as likely as long ones. */
static unsigned some(struct lane *l, unsigned most)
{
	unsigned bits = 1;

	while (bits < 31 && 1u << bits <= most)
		bits++;
	return below(l, (1u << below(l, bits + 1)) < most ? (1u << below(l, bits)) + 1 : most + 1) % (most + 1);
}

/* How long the load goes on: mostly short, at times long enough for the journal to grow. */
static void let_work(struct lane *l)
{
	unsigned n = below(l, 40);

	nap_us(n == 0 ? 500000 + below(l, 3500000) : n < 20 ? below(l, 40000) : some(l, 60000));
}

/* ---- Mount and compare; the load ---- */

static void worker_path(const struct lane *l, unsigned i, char *path, size_t size)
{
	(void)snprintf(path, size, "%s/w%u", l->mnt[l->at], i);
}

static void compare_all(struct lane *l)
{
	char path[400], text[800];
	unsigned i;

	for (i = 0; i < l->worker_count; i++) {
		struct worker *w = &l->workers[i];
		bool busy = atomic_load(&w->busy);
		int r;

		worker_path(l, i, path, sizeof path);
		if (!w->made) {
			if (mkdir(path, 0755) < 0 && errno != EEXIST)
				lost(l, "%s: %s", path, strerror(errno));
			w->made = true;
		}
		r = load_check(w, path, text, sizeof text);
		if (r < 0)
			lost(l, "worker %u after %llu operations: %s", i, (unsigned long long)atomic_load(&w->done), text);
		if (busy)
			atomic_fetch_add(r ? &l->figures->in_flight_done : &l->figures->in_flight_not, 1);
	}
}

static void programs_check(struct lane *l)
{
	char script[400], dir[400], acks[400], text[1024];
	char *argv[] = { "bash", script, "check", dir, acks, NULL };
	int fd, r;
	ssize_t n;

	if (!l->programs)
		return;
	(void)snprintf(script, sizeof script, "%s/programs.sh", l->scripts);
	(void)snprintf(dir, sizeof dir, "%s/programs", l->mnt[l->at]);
	(void)snprintf(acks, sizeof acks, "%s/acks", l->dir);
	r = run(l, argv);
	fd = open(l->out, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
	text[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		(void)close(fd);
	if (r != 0)
		lost(l, "sqlite or git: status %d: %s", r, text);
}

/* What the last round left is what it should be. */
static void begin_at(struct lane *l, int at)
{
	unsigned long long replayed;

	mount_up(l, at);
	replayed = mount_status(l->mnt[at], "recovered_records");
	if (replayed > atomic_load(&l->figures->replayed_max))
		atomic_store(&l->figures->replayed_max, replayed);
	compare_all(l);
	programs_check(l);
}

static void begin(struct lane *l)
{
	begin_at(l, 0);
}

static void load_begin(struct lane *l)
{
	char path[400];
	unsigned i;

	for (i = 0; i < l->worker_count; i++) {
		struct worker *w = &l->workers[i];
		pid_t pid;

		worker_path(l, i, path, sizeof path);
		atomic_store(&w->stop, false);
		atomic_store(&w->error, 0);
		atomic_store(&w->ready, false);
		w->text[0] = '\0';
		pid = fork();
		if (pid < 0)
			lost(l, "fork: %s", strerror(errno));
		if (pid == 0) {
			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			load_run(w, path, i == 0);
		}
		w->pid = pid;
	}
	if (l->tended || l->stuffed) {
		l->tender = fork();
		if (l->tender == 0) {
			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (l->stuffed)
				load_stuff(l->mnt[l->at], l->large, &l->workers[0].stop);
			load_tend(l->mnt[l->at], l->large, &l->workers[0].stop);
		}
	}
	/* They have their directory open, and keep it whatever becomes of the mount. */
	for (i = 0; i < l->worker_count; i++)
		while (!atomic_load(&l->workers[i].ready))
			nap_us(50);
}

static void load_stop(struct lane *l)
{
	unsigned i;

	for (i = 0; i < l->worker_count; i++)
		atomic_store(&l->workers[i].stop, true);
}

static bool may_end_with(int error, bool mount_died)
{
	return error == 0 || (mount_died && (error == ENOTCONN || error == ECONNABORTED || error == EIO));
}

/* Wait for the workers. If the mount died they end by themselves, on the errors of a dead mount and no others. */
static void load_end(struct lane *l, bool mount_died)
{
	unsigned i;

	if (l->tender > 0)
		(void)waitpid(l->tender, NULL, 0);
	l->tender = 0;
	for (i = 0; i < l->worker_count; i++) {
		struct worker *w = &l->workers[i];
		char op[200];
		int status, error;

		while (waitpid(w->pid, &status, 0) < 0)
			if (errno != EINTR)
				lost(l, "worker %u is no child", i);
		error = atomic_load(&w->error);
		load_op_text(&w->op, op, sizeof op);
		if (status != 0)
			lost(l, "worker %u ended with status %x in: %s", i, (unsigned)status, op);
		if (!may_end_with(error, mount_died) || w->text[0] != '\0')
			lost(l, "worker %u: %s: %s %s", i, op, strerror(error), w->text);
	}
}

static unsigned long long ops_done(const struct lane *l)
{
	unsigned long long n = 0;
	unsigned i;

	for (i = 0; i < l->worker_count; i++)
		n += atomic_load(&l->workers[i].done);
	return n;
}

/* Until something more was acknowledged: a daemon that hangs is found by the watchdog. */
static void wait_progress(struct lane *l, unsigned ops)
{
	unsigned long long from = ops_done(l);

	while (ops_done(l) < from + ops)
		nap_us(200);
}

static unsigned long long note_journal(struct lane *l)
{
	const char *mnt = l->mnt[l->at];
	unsigned long long at = mount_status(mnt, "journal_position_bytes"), from = mount_status(mnt, "checkpoint_position_bytes");

	if (at < from)
		return 0;
	if (at - from > atomic_load(&l->figures->journal_max))
		atomic_store(&l->figures->journal_max, at - from);
	if (at - from > journal_bound)
		lost(l, "the journal since the last checkpoint has %llu bytes: opening is not bounded", at - from);
	return at - from;
}

/* ---- Points ---- */

static void arm(struct lane *l, enum point point, unsigned nth, bool after, unsigned delay_ns)
{
	struct points *p = l->points;

	atomic_store(&p->fired, 0);
	atomic_store(&p->left, (int)nth);
	atomic_store(&p->after, after);
	atomic_store(&p->delay_ns, delay_ns);
	atomic_store(&p->armed, point);
	(void)snprintf(l->what, sizeof l->what, "%s %s call %u, %u ns", after ? "after" : "before", point_names[point], nth,
		       delay_ns);
}

static bool disarm(struct lane *l)
{
	unsigned point = atomic_exchange(&l->points->armed, POINT_NONE);

	if (!atomic_load(&l->points->fired))
		return false;
	atomic_fetch_add(&l->figures->at_point[point], 1);
	return true;
}

/* The workers work until the point is met; if it is not within reach, the kill comes anyhow. */
static void kill_at_point(struct lane *l, unsigned ops)
{
	unsigned long long most = ops_done(l) + ops;
	int status = 0;
	pid_t pid;

	while ((pid = waitpid(l->daemon, &status, WNOHANG)) == 0 && ops_done(l) < most)
		nap_us(100);
	if (pid == 0) {
		(void)disarm(l);
		mount_kill(l);
		return;
	}
	l->daemon = 0;
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL || !disarm(l))
		lost(l, "the daemon ended by itself: status %x", (unsigned)status);
	atomic_fetch_add(&l->figures->kills[l->kind], 1);
}

/* What every request meets, or what the helpers of the store meet now and then. */
static void arm_any(struct lane *l)
{
	static const enum point often[] = { POINT_READ, POINT_WRITEV, POINT_WRITEV };
	static const enum point seldom[] = { POINT_MSYNC, POINT_MSYNC, POINT_MSYNC, POINT_MADVISE, POINT_WRITE };
	unsigned delay = below(l, 3) ? 0 : 1 + some(l, 200000);
	bool after = below(l, 2);

	if (below(l, 3) == 0)
		arm(l, often[below(l, 3)], 1 + some(l, 600), after, delay);
	else
		arm(l, seldom[below(l, 5)], 1 + below(l, l->tended ? 12 : 4), after, delay);
}

/* Growing and shrinking are rare, and take some work. */
static void kill_at_growth(struct lane *l)
{
	static const enum point points[] = { POINT_MMAP, POINT_FALLOCATE, POINT_FTRUNCATE, POINT_FTRUNCATE };

	arm(l, points[below(l, 4)], 1 + below(l, 2), below(l, 2), below(l, 3) ? 0 : 1 + some(l, 200000));
	kill_at_point(l, 5000);
}

/* ---- The ways to end ---- */

static void round_timed(struct lane *l)
{
	begin(l);
	load_begin(l);
	let_work(l);
	if (below(l, 4) == 0)
		(void)note_journal(l);
	mount_kill(l);
	load_end(l, true);
}

/* P3: killed with as much in the journal as it may have, or nearly, or just when the checkpoint is due or being written. What
 * replays all that is the next round. */
static void round_journal(struct lane *l)
{
	unsigned share = 50 + below(l, 60), most = 8;
	unsigned long long checkpoints, limit, n, longest = 0;

	/* Or the load goes on: a checkpoint has to come each time, or the journal has no bound. */
	if (below(l, 4) == 0) {
		share = 100000;
		most = 1 + below(l, 3);
	}

	l->tended = false;
	l->stuffed = true;
	begin(l);
	checkpoints = mount_status(l->mnt[l->at], "checkpoints");
	load_begin(l);
	do {
		nap_us(500);
		limit = mount_status(l->mnt[l->at], "file_bytes") / 8;
		limit = limit < CHECKPOINT_BYTES ? limit : CHECKPOINT_BYTES;
		n = note_journal(l);
		longest = n > longest ? n : longest;
		/* A small store that is full writes checkpoints for want of space; and one may be over between two looks. */
	} while (n < limit * share / 100 && mount_status(l->mnt[l->at], "checkpoints") < checkpoints + most);
	if (longest >= limit / 2)
		atomic_fetch_add(&l->figures->journal_full, 1);
	mount_kill(l);
	load_end(l, true);
	l->stuffed = false;
}

/* In the midst of a request: the n-th from now on has been read, and the kernel strikes some instructions later. */
static void round_request(struct lane *l)
{
	begin(l);
	load_begin(l);
	arm(l, POINT_READ, 1 + some(l, 800), true, 1 + some(l, 30000));
	kill_at_point(l, 800);
	load_end(l, true);
}

static void round_point(struct lane *l)
{
	bool growth = below(l, 8) == 0;

	begin(l);
	if (growth)
		l->tended = l->large = true;
	load_begin(l);
	if (growth) {
		kill_at_growth(l);
	} else {
		arm_any(l);
		kill_at_point(l, 800);
	}
	load_end(l, true);
}

/* Something to recover from. */
static void leave_dirty(struct lane *l)
{
	begin(l);
	load_begin(l);
	wait_progress(l, 1 + some(l, 1000));
	mount_kill(l);
	load_end(l, true);
}

/* While it opens, recovers or mounts; also while it makes a new store. */
static void round_opening(struct lane *l)
{
	unsigned i, n = 1 + below(l, 4);
	struct start s;

	if (l->round > 0)
		leave_dirty(l);
	for (i = 0; i < n; i++) {
		bool command = below(l, 4) == 0;

		start_mount(l, &s, l->store, l->mnt[0], !command);
		nap_us(some(l, 20000));
		if (command) {
			/* The daemon finds nobody to tell that it is ready, and is killed as it goes; or all was done. */
			(void)kill(s.pid, SIGKILL);
			(void)start_wait(l, &s);
			nap_us(some(l, 20000));
			mount_end_children();
			atomic_fetch_add(&l->figures->kills[l->kind], 1);
		} else {
			l->daemon = s.pid;
			mount_kill(l);
		}
		mount_no_leftover(l);
	}
}

static void round_opening_point(struct lane *l)
{
	static const enum point points[] = { POINT_OPEN, POINT_FLOCK, POINT_LINKAT, POINT_MOUNT, POINT_UMOUNT, POINT_READ,
					     POINT_WRITEV, POINT_WRITE, POINT_MSYNC, POINT_MSYNC, POINT_MSYNC, POINT_MMAP,
					     POINT_MMAP, POINT_FALLOCATE, POINT_MADVISE, POINT_FSYNC };
	static const enum point when_new[] = { POINT_LINKAT, POINT_LINKAT, POINT_FSYNC, POINT_FALLOCATE };
	unsigned i, n = 1 + below(l, 4), nth, delay;
	enum point point;
	bool after;
	struct start s;

	if (l->round > 0)
		leave_dirty(l);
	for (i = 0; i < n; i++) {
		point = l->round == 0 && below(l, 2) ? when_new[below(l, 4)] : points[below(l, 16)];
		nth = 1 + below(l, point == POINT_MSYNC ? 12 : 3);
		after = below(l, 2);
		delay = below(l, 3) ? 0 : 1 + some(l, 500000);
		arm(l, point, nth, after, delay);
		start_mount(l, &s, l->store, l->mnt[0], false);
		if (start_wait(l, &s)) {
			/* Not met, or so late that the caller was told already: then it dies of it now, or of us. */
			mount_end_children();
			(void)disarm(l);
		} else {
			if (!disarm(l))
				start_must_succeed(l, &s);
			/* If the daemon was killed, the command tells. If the command itself was, the daemon may be there
			 * already, and finds nobody to tell that it is ready. */
			if (WIFSIGNALED(s.status))
				mount_end_children();
			else
				start_must_say(l, &s);
		}
		atomic_fetch_add(&l->figures->kills[l->kind], 1);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		mount_no_leftover(l);
	}
}

static void round_stopped(struct lane *l)
{
	unsigned i, n = 1 + below(l, 3), killed = below(l, 3);

	begin(l);
	load_begin(l);
	for (i = 0; i < n; i++) {
		wait_progress(l, 1 + some(l, 500));
		(void)kill(l->daemon, SIGSTOP);
		nap_us(some(l, 40000));
		if (killed == 0 && i + 1 == n) {
			mount_kill(l);
			load_end(l, true);
			return;
		}
		(void)kill(l->daemon, SIGCONT);
		/* Each worker has one operation under way at most: with more than that it goes on. */
		wait_progress(l, 2 * WORKERS);
	}
	load_stop(l);
	load_end(l, false);
	compare_all(l);
	if (killed == 1)
		mount_kill(l);
	else
		mount_down(l);
}

static void round_term(struct lane *l)
{
	int status;

	begin(l);
	load_begin(l);
	let_work(l);
	(void)kill(l->daemon, SIGTERM);
	status = mount_wait_daemon(l);
	if (status != 0)
		lost(l, "SIGTERM: the daemon ended with status %x", (unsigned)status);
	load_end(l, true);
	if (mount_is(l->mnt[0]))
		lost(l, "SIGTERM: the mount was left");
}

/* Out of the tree, but not out of use: the workers go on. Somebody mounts the store anew, and has to wait for the last of
 * them; then he has all that they were told. */
static void round_lazy(struct lane *l)
{
	struct start next = { 0 };
	bool waits = below(l, 2), killed = below(l, 3) == 0;
	int status;

	begin(l);
	load_begin(l);
	wait_progress(l, 1 + some(l, 500));
	mount_detach(l->mnt[0]);
	wait_progress(l, 2 * WORKERS);
	if (waits) {
		start_mount(l, &next, l->store, l->mnt[1], false);
		wait_progress(l, 1 + some(l, 1000));
	}
	if (killed) {
		mount_kill(l);
		load_end(l, true);
	} else {
		load_stop(l);
		load_end(l, false);
		status = mount_wait_daemon(l);
		if (status != 0)
			lost(l, "umount -l: the daemon ended with status %x", (unsigned)status);
	}
	if (waits) {
		if (!start_wait(l, &next))
			start_must_succeed(l, &next);
		l->at = 1;
		l->daemon = (pid_t)mount_status(l->mnt[1], "pid");
		compare_all(l);
		mount_down(l);
	}
}

static void round_force(struct lane *l)
{
	int status;

	if (geteuid() != 0) {
		round_timed(l);
		return;
	}
	begin(l);
	load_begin(l);
	nap_us(some(l, 40000));
	/* What is in flight is cut off; the mount stays if somebody has it open. */
	if (umount2(l->mnt[0], MNT_FORCE) < 0 && errno != EBUSY)
		lost(l, "umount -f: %s", strerror(errno));
	status = mount_wait_daemon(l);
	if (status != 0)
		lost(l, "umount -f: the daemon ended with status %x", (unsigned)status);
	load_end(l, true);
}

static void round_clean(struct lane *l)
{
	begin(l);
	load_begin(l);
	nap_us(some(l, 40000));
	load_stop(l);
	load_end(l, false);
	compare_all(l);
	mount_down(l);
	mount_check(l, l->store);
	begin(l);
	mount_down(l);
}

/* Unmounted, and killed while it closes the store; or another daemon comes, and has to wait until it is closed. */
static void round_closing(struct lane *l)
{
	static const enum point points[] = { POINT_MSYNC, POINT_MSYNC, POINT_MADVISE, POINT_READ, POINT_FTRUNCATE };
	int status, at = (int)below(l, 2);
	bool next = below(l, 3) == 0;
	struct start s;

	begin(l);
	load_begin(l);
	let_work(l);
	load_stop(l);
	load_end(l, false);
	compare_all(l);
	if (next) {
		mount_off(l);
		start_mount(l, &s, l->store, l->mnt[at], false);
	} else {
		if (l->points_so && below(l, 3))
			arm(l, points[below(l, 5)], 1 + below(l, 6), below(l, 2), below(l, 3) ? 0 : 1 + some(l, 500000));
		mount_off(l);
		nap_us(some(l, 10000));
		if (!l->points_so || atomic_load(&l->points->armed) == POINT_NONE)
			(void)kill(l->daemon, SIGKILL);
	}
	status = mount_wait_daemon(l);
	if (status != 0 && (next || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL))
		lost(l, "unmounted, the daemon ended with status %x", (unsigned)status);
	atomic_fetch_add(&l->figures->kills[l->kind], status != 0);
	(void)disarm(l);
	if (!next)
		return;
	if (!start_wait(l, &s))
		start_must_succeed(l, &s);
	l->at = at;
	l->daemon = (pid_t)mount_status(s.mnt, "pid");
	compare_all(l);
	mount_kill(l);
}

static off_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? 0 : st.st_size;
}

static void round_programs(struct lane *l)
{
	char script[400], dir[400], acks[400];
	bool at_work = below(l, 4) != 0;
	siginfo_t info = { 0 };
	off_t before;
	pid_t pid;
	int status;

	if (access("/usr/bin/git", X_OK) < 0 || access("/usr/bin/sqlite3", X_OK) < 0) {
		round_timed(l);
		return;
	}
	begin(l);
	(void)snprintf(script, sizeof script, "%s/programs.sh", l->scripts);
	(void)snprintf(dir, sizeof dir, "%s/programs", l->mnt[l->at]);
	(void)snprintf(acks, sizeof acks, "%s/acks", l->dir);
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		lost(l, "%s: %s", dir, strerror(errno));
	l->programs = true;
	before = size_of(acks);
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
		(void)execlp("bash", "bash", script, "work", dir, acks, NULL);
		_exit(127);
	}
	load_begin(l);
	/* At times before they come to anything, else at any moment after something was committed, or after a full store has
	 * ended them. */
	while (at_work && size_of(acks) == before && waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == 0)
		nap_us(20000);
	nap_us(below(l, 400000));
	mount_kill(l);
	load_end(l, true);
	/* It ends on the first command that fails. */
	if (waitpid(pid, &status, 0) != pid || status != 0)
		lost(l, "programs.sh work: status %x", (unsigned)status);
}

/* ---- Races ---- */

/* Some at once: exactly one wins, the others say why not. The winner; each has ended or is in the background. */
static int race(struct lane *l, struct start *s, int n, const char *const *stores, const char *const *mnts)
{
	int i, winner = -1;

	for (i = 0; i < n; i++) {
		start_mount(l, &s[i], stores[i], mnts[i], false);
		if (below(l, 2))
			nap_us(some(l, 4000));
	}
	for (i = 0; i < n; i++) {
		if (!start_wait(l, &s[i])) {
			start_must_say(l, &s[i]);
			continue;
		}
		if (winner >= 0)
			lost(l, "two daemons won: %s on %s and %s on %s", s[winner].store, s[winner].mnt, s[i].store, s[i].mnt);
		winner = i;
	}
	if (winner < 0)
		lost(l, "none of the daemons won");
	l->daemon = (pid_t)mount_status(s[winner].mnt, "pid");
	if (l->daemon == 0)
		lost(l, "the winner on %s is not usable", s[winner].mnt);
	if (mount_count(s[winner].mnt) != 1)
		lost(l, "%u mounts on top of each other", mount_count(s[winner].mnt));
	return winner;
}

static void load_and_kill(struct lane *l)
{
	load_begin(l);
	nap_us(some(l, 20000));
	mount_kill(l);
	load_end(l, true);
}

static void round_race_store(struct lane *l)
{
	const char *stores[MOUNTS] = { l->store, l->store, l->store }, *mnts[MOUNTS] = { l->mnt[0], l->mnt[1], l->mnt[2] };
	struct start s[MOUNTS];

	if (below(l, 2) && l->round > 0)
		leave_dirty(l);
	l->at = race(l, s, 2 + (int)below(l, 2), stores, mnts);
	compare_all(l);
	load_and_kill(l);
}

/* A file that counts the rounds that its store was mounted in. */
static void count_in(struct lane *l, const char *mnt, unsigned *count)
{
	char path[400];
	struct stat st;
	int fd;

	(void)snprintf(path, sizeof path, "%s/count", mnt);
	if ((stat(path, &st) < 0 ? 0 : (unsigned)st.st_size) != *count)
		lost(l, "%s should have %u bytes", path, *count);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, "x", 1) != 1)
		lost(l, "%s: %s", path, strerror(errno));
	(void)close(fd);
	++*count;
}

static unsigned other_count;            /* of the second store of this life */

static void round_race_mount(struct lane *l)
{
	const char *stores[2] = { l->store, l->store2 }, *mnts[2] = { l->mnt[0], l->mnt[0] };
	struct start s[2];

	if (below(l, 2) && l->round > 0)
		leave_dirty(l);
	if (race(l, s, 2, stores, mnts) == 0) {
		l->at = 0;
		compare_all(l);
		load_and_kill(l);
		return;
	}
	count_in(l, l->mnt[0], &other_count);
	mount_kill(l);
}

/* A store that is not there, or an empty file: who makes it has it. */
static void round_race_new(struct lane *l)
{
	char store[350];
	const char *stores[MOUNTS] = { store, store, store }, *mnts[MOUNTS] = { l->mnt[0], l->mnt[1], l->mnt[2] };
	struct start s[MOUNTS];
	unsigned count = 0;
	int fd, won;

	(void)snprintf(store, sizeof store, "%s/mnt-new.msync", l->dir);
	if (below(l, 2)) {
		fd = open(store, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0)
			lost(l, "%s: %s", store, strerror(errno));
		(void)close(fd);
	}
	won = race(l, s, 2 + (int)below(l, 2), stores, mnts);
	count_in(l, s[won].mnt, &count);
	mount_kill(l);
	start_mount(l, &s[0], store, l->mnt[0], false);
	if (!start_wait(l, &s[0]))
		start_must_succeed(l, &s[0]);
	count_in(l, l->mnt[0], &count);
	l->daemon = (pid_t)mount_status(l->mnt[0], "pid");
	l->at = 0;
	mount_down(l);
	mount_check(l, store);
	(void)unlink(store);
}

/* One is killed while the other waits for the store or the mount point. */
static void round_race_kill(struct lane *l)
{
	int at = (int)below(l, 2);
	struct start first, second;
	unsigned pause = some(l, 40000);

	if (below(l, 2) && l->round > 0)
		leave_dirty(l);
	start_mount(l, &first, l->store, l->mnt[2], true);
	nap_us(below(l, 2) ? some(l, 5000) : below(l, 50000));
	start_mount(l, &second, l->store, l->mnt[at ? 2 : 1], false);
	nap_us(pause);
	l->daemon = first.pid;
	(void)kill(first.pid, SIGKILL);
	(void)mount_wait_daemon(l);
	atomic_fetch_add(&l->figures->kills[l->kind], 1);
	if (!start_wait(l, &second)) {
		/* It saw the first one serving. On one mount point both say it to one file. */
		if (!at)
			start_must_say(l, &second);
		return;
	}
	l->at = at ? 2 : 1;
	l->daemon = (pid_t)mount_status(second.mnt, "pid");
	if (l->daemon == 0)
		lost(l, "the second on %s is not usable", second.mnt);
	compare_all(l);
	load_and_kill(l);
}

/* Mounted again before the one that was killed is gone: this waits for it, it does not fail. */
static void round_race_dying(struct lane *l)
{
	int at = (int)below(l, 2), status;
	pid_t dying;
	struct start s;

	begin(l);
	load_begin(l);
	nap_us(some(l, 40000));
	dying = l->daemon;
	(void)kill(dying, SIGKILL);
	nap_us(some(l, 500));
	start_mount(l, &s, l->store, l->mnt[at], false);
	status = mount_wait_daemon(l);
	if (!WIFSIGNALED(status))
		lost(l, "the daemon ended by itself: status %x", (unsigned)status);
	atomic_fetch_add(&l->figures->kills[l->kind], 1);
	load_end(l, true);
	if (!start_wait(l, &s))
		start_must_succeed(l, &s);
	l->at = at;
	l->daemon = (pid_t)mount_status(s.mnt, "pid");
	compare_all(l);
	load_and_kill(l);
}

/* ---- A life ---- */

static void (*const round_of[KINDS])(struct lane *l) = {
	[KIND_TIMED] = round_timed, [KIND_REQUEST] = round_request, [KIND_POINT] = round_point, [KIND_OPENING] = round_opening,
	[KIND_OPENING_POINT] = round_opening_point, [KIND_STOPPED] = round_stopped, [KIND_TERM] = round_term,
	[KIND_LAZY] = round_lazy, [KIND_FORCE] = round_force, [KIND_CLEAN] = round_clean, [KIND_CLOSING] = round_closing,
	[KIND_RACE_STORE] = round_race_store,
	[KIND_RACE_MOUNT] = round_race_mount, [KIND_RACE_NEW] = round_race_new, [KIND_RACE_KILL] = round_race_kill,
	[KIND_RACE_DYING] = round_race_dying,
	[KIND_PROGRAMS] = round_programs, [KIND_JOURNAL] = round_journal,
};

static bool needs_points(enum kind kind)
{
	return kind == KIND_REQUEST || kind == KIND_POINT || kind == KIND_OPENING_POINT;
}

static enum kind choose_kind(struct lane *l)
{
	unsigned all = 0, n;
	int i;

	if (l->only_kind >= 0)
		return (enum kind)l->only_kind;
	/* The making of a store is soon over: it gets more than its share. */
	if (l->round == 0 && l->points_so && below(l, 2))
		return KIND_OPENING_POINT;
	for (i = 0; i < KINDS; i++)
		all += kind_weights[i];
	n = below(l, all);
	for (i = 0; n >= kind_weights[i]; i++)
		n -= kind_weights[i];
	return needs_points((enum kind)i) && !l->points_so ? KIND_TIMED : (enum kind)i;
}

static void make_life(struct lane *l)
{
	static const char *const options[] = { NULL, NULL, "sync", "sync-interval=1", "sync-interval=0", "size=16M", "noatime",
					       "strictatime", "size=64M,sync-interval=1" };
	unsigned i;

	if (mkdir(l->dir, 0700) < 0)
		lost(l, "%s: %s", l->dir, strerror(errno));
	(void)snprintf(l->store, sizeof l->store, "%s/store.msync", l->dir);
	(void)snprintf(l->store2, sizeof l->store2, "%s/store2.msync", l->dir);
	(void)snprintf(l->out, sizeof l->out, "%s/out", l->dir);
	for (i = 0; i < MOUNTS; i++) {
		(void)snprintf(l->mnt[i], sizeof l->mnt[i], "%s/mnt%u", l->dir, i);
		if (mkdir(l->mnt[i], 0755) < 0)
			lost(l, "%s: %s", l->mnt[i], strerror(errno));
	}
	l->options = options[below(l, sizeof options / sizeof *options)];
	l->worker_count = 1 + below(l, WORKERS);
	for (i = 0; i < l->worker_count; i++)
		load_init(&l->workers[i], random_next(&l->rng));
	l->programs = false;
	other_count = 0;
}

/* What sqlite and git had acknowledged. */
static void count_commits(struct lane *l)
{
	char path[400], line[64];
	FILE *f;

	(void)snprintf(path, sizeof path, "%s/acks", l->dir);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f))
		atomic_fetch_add(&l->figures->commits, strncmp(line, "last", 4) != 0);
	if (f)
		(void)fclose(f);
}

/* The store is closed well, whole, free, and alone. */
static void end_life(struct lane *l)
{
	unsigned long long inodes = 0, named = 1;
	char balloon[400];
	unsigned i;
	int fd;

	begin(l);
	(void)snprintf(balloon, sizeof balloon, "%s/balloon", l->mnt[0]);
	(void)unlink(balloon);
	(void)snprintf(balloon, sizeof balloon, "%s/stuffing", l->mnt[0]);
	(void)unlink(balloon);
	mount_down(l);
	begin(l);
	/* What had no name when its daemon died is gone: there are as many inodes as have names. */
	for (i = 0; i < l->worker_count; i++)
		named += load_inodes(&l->workers[i]);
	/* The daemon sees to it between requests. */
	for (i = 0; !l->programs && i < 2000; i++) {
		inodes = mount_status(l->mnt[0], "inodes");
		if (inodes == named)
			break;
		nap_us(1000);
	}
	if (!l->programs && inodes != named)
		lost(l, "%llu inodes are in use, %llu have names", inodes, named);
	mount_down(l);
	mount_check(l, l->store);
	for (i = 0; i < MOUNTS; i++) {
		mount_detach(l->mnt[i]);
		if (rmdir(l->mnt[i]) < 0)
			lost(l, "%s: %s", l->mnt[i], strerror(errno));
	}
	fd = open(l->store, O_RDWR | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		lost(l, "a lock is left on the store");
	(void)close(fd);
	mount_no_leftover(l);
	count_commits(l);
	for (i = 0; i < l->worker_count; i++) {
		atomic_fetch_add(&l->figures->ops, atomic_load(&l->workers[i].done));
		atomic_fetch_add(&l->figures->refused, atomic_load(&l->workers[i].refused));
	}
	atomic_fetch_add(&l->figures->lives, 1);
}

void life_run(struct lane *l)
{
	char *remove[] = { "rm", "-rf", "--one-file-system", "--", l->dir, NULL };

	make_life(l);
	(void)snprintf(l->what, sizeof l->what, "new");
	for (l->round = 0; l->round < l->rounds; l->round++) {
		l->kind = choose_kind(l);
		(void)snprintf(l->what, sizeof l->what, "%s", kind_names[l->kind]);
		l->tended = below(l, 3) == 0;
		l->large = below(l, 3) == 0;
		(void)alarm(WATCHDOG_S);
		round_of[l->kind](l);
		atomic_fetch_add(&l->figures->rounds[l->kind], 1);
		if (l->kind < KIND_RACE_STORE && below(l, 6) == 0 && access(l->store, F_OK) == 0)
			mount_check(l, l->store);
	}
	end_life(l);
	(void)alarm(0);
	(void)snprintf(l->out, sizeof l->out, "/dev/null");
	(void)run(l, remove);
}
