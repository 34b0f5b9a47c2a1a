/* SPDX-License-Identifier: MIT
 *
 * cases: a store, a workload on it, and where power is cut. See crash.h.
 */
#include "tests/crash/crash.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

const char *const kind_names[WORK_PROFILES] = {
	"mixed", "small", "big", "space", "names", "full", "journal", "grow", "tail", "programs", "replica",
};

static struct {
	unsigned sync, checkpoint, poll, pieces, crash, reopen, cut, identity, rebase;
} rate;
static bool cluster;                    /* the store becomes part of one */
static unsigned rebase_durable = UINT32_MAX, rebase_before, rebase_to;
static uint32_t round_now, calls_in_round;
static int reader = -1;                 /* its descriptor */
static bool crumbs;                     /* the store is full of files whose blocks alternate */

/* Units ------------------------------------------------------------------------------------------------------------- */

struct unit {
	uint64_t rng, work_rng;
	uint32_t unit, images;
};

static bool is_wanted(uint32_t unit)
{
	unsigned i;

	if (!orders->use_units)
		return true;
	for (i = 0; i < orders->units.count; i++)
		if (orders->units.at[i] == unit)
			return true;
	return false;
}

static bool unit_enter(uint32_t unit, struct unit *outer)
{
	const uint64_t words[] = { orders->seed, orders->kind, unit };

	if (!is_wanted(unit))
		return false;
	*outer = (struct unit){ rng, work.rng, unit_now, unit_images };
	rng = hash64(words, sizeof words, 3);
	work.rng = hash64(words, sizeof words, 4);
	report->unit = unit_now = unit;
	unit_images = 0;
	if (report->units.count < LIST_MAX)
		report->units.at[report->units.count++] = unit;
	return true;
}

static void unit_leave(const struct unit *outer)
{
	rng = outer->rng;
	work.rng = outer->work_rng;
	report->unit = unit_now = outer->unit;
	unit_images = outer->images;
}

/* Calls ------------------------------------------------------------------------------------------------------------- */

static void expect(int r, const char *what)
{
	if (r < 0)
		broken("%s: %d: %s", what, r, err_last());
}

static void trace(int r)
{
	char text[1024] = "";

	if (!getenv("TRACE"))
		return;
	(void)work_compare(&work, work.k, work_now(&work), text, sizeof text);
	fprintf(stderr, "%u.%u: %s: %d, seq %llu%s%s\n", unit_now >> UNIT_SHIFT, unit_now & UNIT_CALL, work.text, r,
		(unsigned long long)store_seq(store), text[0] ? ": " : "", text);
}

static void trace_round(const char *what)
{
	if (getenv("TRACE"))
		fprintf(stderr, "%u: %s, seq %llu, durable %llu\n", unit_now >> UNIT_SHIFT, what, (unsigned long long)store_seq(store),
			(unsigned long long)store_durable_seq(store));
}

static void sync_now(void)
{
	seq_t seq = store_seq(store);

	protect(&live);
	helper_runs = below(2);
	expect(store_sync(store), "sync");
	helper_runs = false;
	if (store_durable_seq(store) < seq)
		broken("a sync that was not one");
	trace_round("synced");
}

enum call { CALL_ANY, CALL_RETRY, CALL_FLOOD, CALL_CRUMBS, CALL_BULK, CALL_DROP, CALL_REAP,
	    CALL_BEHIND };

/* One call, and what can be cut within. */
static void step(enum call call, bool beside)
{
	struct unit outer;
	bool waits = false;
	int r = 0;

	if (++calls_in_round > UNIT_CALL || !unit_enter(round_now << UNIT_SHIFT | calls_in_round, &outer))
		return;
	protect(&live);
	call_from = kill_state();
	capture_in = below(4) == 0 ? 4 + (int)below(40) : 0;
	capture_record = call == CALL_RETRY || below(16) == 0;
	in_call = true;
	if (call == CALL_RETRY)
		r = work_retry(&work);
	else if (call == CALL_FLOOD)
		r = work_flood(&work);
	else if (call == CALL_CRUMBS)
		r = work_free_crumbs(&work);
	else if (call == CALL_BULK || call == CALL_DROP)
		r = work_bulk(&work, call == CALL_DROP);
	else if (call == CALL_BEHIND)
		r = work_behind(&work);
	else if (call == CALL_REAP)
		r = work_orphan(&work) ? work_reap(&work, work_orphan(&work)) : 0;
	else if (store_is_replica(store))
		r = work_receive_some(&work);
	else if (work.profile == WORK_PROGRAMS && below(100) < 90)
		waits = programs_step(&work);
	else
		r = work_step(&work);
	in_call = capture_record = false;
	capture_in = 0;
	report->counts.calls++;
	report->counts.full += r == -ENOSPC;
	report->counts.retried += call == CALL_RETRY;
	trace(r);
	if (store_failed(store))
		broken("the store failed: %d: %s", store_failed(store), err_last());
	if (waits && !beside)
		sync_now();
	unit_leave(&outer);
}

/* Beside the helpers the store goes on. Calls that would wait for a helper must not start its work here, within it: as if it
 * were busy. */
void step_beside(void)
{
	bool refused = atomic_load(&store->grow_refused);
	int state = CKPT_IDLE;

	if (atomic_load(&store->ckpt_state) == CKPT_DONE)
		return;
	helper_runs = false;
	atomic_store(&store->grow_refused, true);
	atomic_store(&store->grow_refused_ns, work.mono_ns);
	(void)atomic_compare_exchange_strong(&store->ckpt_state, &state, CKPT_WRITING);
	step(CALL_ANY, true);
	report->counts.beside++;
	if (state == CKPT_IDLE)
		atomic_store(&store->ckpt_state, CKPT_IDLE);
	atomic_store(&store->grow_refused, refused);
	helper_runs = true;
}

/* Rounds ------------------------------------------------------------------------------------------------------------ */

static void open_live(void)
{
	struct keys *k;

	store = NULL;
	expect(machine_open(&live, false, 0, &k), "open");
	work.k = k;
	store = keys_store(k);
}

/* The live store was opened: the model is what it shows. Then its images are tried. */
static void follow_opening(unsigned from, const char *what)
{
	unsigned epochs;
	char text[1024];
	const char *wrong;
	int found = opened_state(work.k, from, &epochs, text, sizeof text);

	if (found < 0)
		broken("%s: not a state: %s", what, text);
	if (identity_find(work.k, identity_open_from, identity_now(), text, sizeof text) < 0)
		broken("%s: %s", what, text);
	wrong = epochs_wrong(work.k, found, epochs);
	if (wrong)
		broken("%s: %s", what, wrong);
	work_rewind(&work, (unsigned)found, work.k);
	report->counts.epochs += epochs;
	for (; epochs > 0; epochs--)
		work_follow_epoch(&work);
	epochs_learn(work.k);
	try_pending();
	identity_known(work.k);
}

/* Power is cut here, and the work goes on with what is found. */
static void crash_once(void)
{
	static struct patches p;
	unsigned from;

	protect(&live);
	/* The disk becomes another one: what waits would miss it. */
	try_pending();
	from = cut_live(&p);
	/* What the old process still does, neither disk nor file see. */
	store = NULL;
	live.watched = false;
	check(mmap(live.engine, live.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, live.fd, 0) ==
	      live.engine);
	(void)keys_close(work.k);
	live.watched = true;
	live_load(&p);
	open_live();
	follow_opening(from, "the store after a power cut");
	programs_reset();
	report->counts.adopted++;
	trace_round("power was cut");
	/* Who was not told that it is done does it again. */
	if (below(4) != 0) {
		step(CALL_RETRY, false);
		try_pending();
		if (below(2))
			sync_now();
	}
}

/* Now and then again soon, with what the opening began not on disk yet. */
static void crash_live(void)
{
	unsigned n;

	crash_once();
	while (below(3) == 0) {
		for (n = 1 + (unsigned)below(8); n > 0; n--)
			step(CALL_ANY, false);
		crash_once();
	}
}

static void cut_between_calls(void)
{
	protect(&live);
	try_pending();
	if (below(1000) >= rate.cut)
		return;
	add_image((enum how)below(HOW_COUNT), UINT32_MAX, "between calls");
	if (below(5) == 0)
		kill_and_cut("between calls");
	if (below(3) == 0)
		add_image(HOW_KILL, work_now(&work), "between calls");
	try_pending();
}

/* Calls that fill the journal, on and on: four of the floods are a segment. */
static void burst(unsigned n)
{
	enum work_profile usual = work.profile;
	unsigned floods = 30 + (unsigned)below(70);

	work.profile = WORK_JOURNAL;
	for (; n > 0; n--) {
		step(below(100) < floods ? CALL_FLOOD : CALL_ANY, false);
		if (n % 16 == 1)
			cut_between_calls();
	}
	work.profile = usual;
}

static void cut_behind(const char *where)
{
	protect(&live);
	add_image(HOW_ALL, UINT32_MAX, where);
	add_image((enum how)below(HOW_COUNT), UINT32_MAX, where);
	try_pending();
}

static void checkpoint_now(void)
{
	int r;

	protect(&live);
	r = store_checkpoint(store);
	if (r != -ENOSPC && r != -EAGAIN && r != -EBUSY)
		expect(r, "checkpoint");
	trace_round("checkpoint");
}

/* A checkpoint in three parts, with calls between: sometimes enough of them to fill segments of the journal and the store,
 * as if the disk took its time. */
static void checkpoint_in_pieces(void)
{
	bool slow = (work.profile == WORK_JOURNAL || work.profile == WORK_FULL) && below(3) == 0;
	unsigned n = (unsigned)below(below(3) == 0 ? 150 : 6);
	int r;

	/* Much journal before it too, so that there are segments which it gives back. */
	if (slow && below(2))
		burst(20 + (unsigned)below(80));
	protect(&live);
	r = checkpoint_finish(store);
	if (r == 0)
		r = checkpoint_cut(store, false);
	if (r == -ENOSPC)
		return;
	expect(r, "cut");
	trace_round("cut");
	/* Blocks that were freed before the cut are not free before it is on disk. Looking for room at the beginning, as compaction
	 * does, comes upon those that are. */
	if (below(2))
		space_go_low(&store->space, 0);
	if (slow) {
		burst(10 + (unsigned)below(60));
		cut_behind("behind many calls beside a checkpoint");
	}
	for (; n > 0; n--) {
		step(CALL_ANY, false);
		if (n % 8 == 1)
			cut_between_calls();
	}
	if (rate.identity && below(3) == 0)
		identity_step(cluster);
	if (atomic_load(&store->ckpt_state) != CKPT_WRITING)
		return;
	protect(&live);
	helper_runs = true;
	expect(checkpoint_write(store), "checkpoint");
	helper_runs = false;
	trace_round("checkpoint written");
	cut_between_calls();
	for (n = (unsigned)below(4); n > 0; n--)
		step(CALL_ANY, false);
	expect(checkpoint_finish(store), "finish");
	trace_round("checkpoint finished");
	/* Another one at once takes along what was asked for beside this one. */
	if (below(3) == 0)
		checkpoint_now();
}

static void poll_now(void)
{
	int r;

	protect(&live);
	expect(store_poll(store), "poll");
	while (keys_compact_due(work.k) && below(8) != 0) {
		protect(&live);
		r = keys_compact(work.k);
		report->counts.compacted++;
		if (r != -EAGAIN)
			expect(r, "compaction");
	}
	trace_round("polled");
}

/* A reader beside the daemon pins the checkpoint in force, or lets go of it (DESIGN.md section 9): what a pinned one uses is
 * held back over the checkpoints that follow. */
static void pin_or_not(void)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = (off_t)1 << 62, .l_len = 1 };

	if (reader >= 0) {
		(void)close(reader);
		reader = -1;
		trace_round("a reader has left");
		return;
	}
	reader = open(live.path, O_RDONLY | O_CLOEXEC);
	check(reader >= 0 && fcntl(reader, F_OFD_SETLK, &lock) == 0);
	report->counts.readers++;
	trace_round("a reader has come");
}

/* Somebody removes other files of the disk that the store is on; then so much is written, with no msync but that of the
 * growth itself, that the journal goes on in segments that were not there before. */
static void grow(void)
{
	live.limit = max_u64(live.size, live.limit) + ((1 + below(3)) << 20) + below(2) * (BLOCK_SIZE * below(2048));
	if (below(2))
		return;
	burst(20 + (unsigned)below(60));
	protect(&live);
	add_image(HOW_SHORT, UINT32_MAX, "behind growth");
	cut_behind("behind growth");
}

/* A store whose free blocks stand alone, so that no journal segment can be had but those that it owns, and a journal that
 * goes on until the store has to help itself: a crash there must leave recovery a segment to begin in (JOURNAL_KEPT). */
static void cramp(void)
{
	unsigned n;

	step(CALL_CRUMBS, false);
	checkpoint_now();
	checkpoint_now();
	for (n = 10 + (unsigned)below(40); n > 0; n--) {
		step(CALL_FLOOD, false);
		protect(&live);
		if (below(2))
			add_image(below(2) ? HOW_ALL : (enum how)below(HOW_COUNT), UINT32_MAX, "in a cramped store");
		try_pending();
	}
}

/* A large file, others behind it, and then it is gone: what is far back is moved to the front, and the end is given back. */
static void fall_empty(void)
{
	unsigned n;

	for (n = 0; n < 7; n++) {
		step(CALL_BULK, false);
		poll_now();
	}
	for (n = 6 + (unsigned)below(12); n > 0; n--)
		step(below(3) ? CALL_BEHIND : CALL_ANY, false);
	step(CALL_DROP, false);
	for (n = 0; n < 6; n++)
		step(CALL_REAP, false);
	/* The end is given back only when the last growth is long ago. */
	work.mono_ns += 60ull * 1000000000u;
	for (n = 4 + (unsigned)below(4); n > 0; n--) {
		checkpoint_now();
		if (below(2))
			step(CALL_ANY, false);
		poll_now();
		cut_between_calls();
	}
}

/* (O9) Not one block can be had, as if a reader held all that are free: then the close cannot cut a checkpoint, and it is
 * the journal that has to be on disk. With a checkpoint before, so that the pages which a cut must change are older. */
static void take_all_blocks(void)
{
	unsigned n;

	checkpoint_now();
	for (n = 1 + (unsigned)below(4); n > 0; n--)
		step(CALL_ANY, false);
	protect(&live);
	expect(space_keep(&store->space, 0, store->space.total), "hold");
	space_go_low(&store->space, 0);
}

static void reopen_live(void)
{
	helper_runs = false;
	if (below(3) == 0)
		take_all_blocks();
	open_from = work_now(&work);
	expect(keys_close(work.k), "close");
	live.engine = NULL;
	protect(&live);
	/* A close that succeeds is a sync. */
	store = NULL;
	identity_open_from = identity_now();
	add_image((enum how)below(HOW_COUNT), open_from, "closed");
	try_pending();
	open_live();
	follow_opening(open_from, "closed and opened");
	trace_round("closed and opened");
}

unsigned kill_state(void)
{
	return rebase_durable != UINT32_MAX && work_now(&work) == rebase_to ? rebase_before : work_now(&work);
}

unsigned rebase_state(void)
{
	return rebase_durable;
}

/* (O11) The store becomes another one's state, under a number that may be lower. Until that is on disk it is the old one,
 * also for a kill, and changes have to wait. */
static void rebase_now(void)
{
	seq_t seq = store_seq(store), base = max_u64(seq - min_u64(seq, below(40)) + below(40), epochs_begin(work.k));
	unsigned durable;
	int r;

	protect(&live);
	expect(store_poll(store), "poll");
	if (!work_rebase_ready(&work))
		return;
	protect(&live);
	durable = durable_state();
	rebase_before = call_from = work_now(&work);
	capture_in = below(2) ? 4 + (int)below(20) : 0;
	in_call = true;
	work_edit(&work, base);
	rebase_durable = durable;
	rebase_to = work_now(&work);
	in_call = false;
	helper_runs = below(2);
	r = work_rebase(&work);
	helper_runs = false;
	capture_in = 0;
	expect(r, "rebase");
	if (store_failed(store) || store_rebasing(store) || store_durable_seq(store) != base)
		broken("a rebase to %llu that is not one: %llu is durable", (unsigned long long)base,
		       (unsigned long long)store_durable_seq(store));
	rebase_durable = UINT32_MAX;
	report->counts.rebases++;
	trace_round("rebased");
	cut_behind("behind a rebase");
}

static void one_round(void)
{
	uint64_t what = below(1000);

	if (work.profile == WORK_GROW && below(16) == 0 && live.limit < 40u << 20)
		grow();
	if (crumbs && below(50) == 0)
		cramp();
	if (below(reader < 0 ? 60 : 6) == 0)
		pin_or_not();
	if (work.profile == WORK_TAIL && below(40) == 0)
		fall_empty();
	if (below(1000) < rate.identity)
		identity_step(cluster);
	if (below(1000) < rate.rebase)
		rebase_now();
	if (what < rate.sync)
		sync_now();
	else if ((what -= rate.sync) < rate.checkpoint)
		checkpoint_now();
	else if ((what -= rate.checkpoint) < rate.pieces)
		checkpoint_in_pieces();
	else if ((what -= rate.pieces) < rate.poll)
		poll_now();
	else if ((what -= rate.poll) < rate.crash)
		crash_live();
	else if ((what -= rate.crash) < rate.reopen)
		reopen_live();
	else
		step(CALL_ANY, false);
	cut_between_calls();
}

/* The store is made: in a folder, where it gets its name when it is whole, or in an empty file that is there. */
static void make_once(uint64_t max)
{
	struct keys *k;
	unsigned n;

	/* A disk with little room: the store begins small and grows. */
	live.limit = work.profile == WORK_GROW || below(2) ? 8u << 20 : FILE_MAX;
	live.random = below(0);
	live.watched = true;
	open_from = identity_open_from = 0;
	live_making = MAKING_IN_PLACE;
	if (below(3) != 0) {
		live_making = MAKING;
		folder_begin();
	}
	expect(machine_open(&live, true, max, &k), "create");
	folder_end();
	live_making = MADE;
	store = keys_store(k);
	work_attach(&work, k);
	identity_known(k);
	protect(&live);
	for (n = 2; n > 0; n--)
		add_image((enum how)below(HOW_COUNT), 0, "made");
	try_pending();
	if (below(3) == 0)
		identity_seed();
}

/* As if it had never been. */
static void unmake(void)
{
	expect(keys_close(work.k), "close");
	store = NULL;
	drop_pending();
	work_release(&work);
	machine_release(&live);
	machine_init(&live, true);
}

static void begin_work(void)
{
	work_init(&work, below(0));
	work.profile = orders->kind;
	work.max_nodes = 10 + (unsigned)below(60);
}

static void make_store(uint64_t max)
{
	unsigned n;

	begin_work();
	for (n = (unsigned)below(4); n > 0; n--) {
		make_once(max);
		unmake();
		begin_work();
	}
	make_once(max);
	if (below(2))
		reopen_live();
	/* Full stores are mostly on disks that are full too: recovery cannot grow either. */
	if (work.profile == WORK_FULL && below(4) != 0)
		live.limit = live.size;
	else if (work.profile != WORK_GROW)
		live.limit = FILE_MAX;
	crumbs = work.profile == WORK_FULL && below(2);
	if (work.profile == WORK_FULL || work.profile == WORK_GROW)
		work_fill(&work, crumbs);
	try_pending();
}

static void set_rates(void)
{
	bool tail = work.profile == WORK_TAIL, journal = work.profile == WORK_JOURNAL;

	rate.sync = 20 + (unsigned)below(100);
	rate.checkpoint = (unsigned)below(tail ? 200 : 40);
	rate.pieces = (unsigned)below(journal ? 100 : 50);
	rate.poll = (unsigned)below(200);
	rate.crash = 30;
	rate.reopen = 5;
	rate.cut = 300;
	rate.identity = below(3) ? (unsigned)below(150) : 0;
	rate.rebase = below(2) ? (unsigned)below(60) : 0;
	cluster = below(4) != 0;
	/* What matters is growth that nothing but its own msync has made durable. */
	if (work.profile == WORK_GROW) {
		rate.sync = (unsigned)below(40);
		rate.checkpoint = rate.pieces = 8;
		rate.poll = (unsigned)below(60);
	}
	/* Mostly a replica, which gets changes, then one that was away too long, now and then a primary. */
	if (work.profile == WORK_REPLICA) {
		rate.identity = 20 + (unsigned)below(60);
		rate.rebase = (unsigned)below(60);
		cluster = true;
	}
	/* Programs say themselves when they sync. */
	if (work.profile == WORK_PROGRAMS)
		rate.sync = 10;
}

static uint64_t choose_size_max(void)
{
	static const uint64_t sizes[] = { 8, 8, 8, 9, 10, 12, 16, 16, 40 };
	uint64_t size = sizes[below(ARRAY_LEN(sizes))];

	if (work.profile == WORK_TAIL)
		size = 150;
	if (work.profile == WORK_GROW)
		size = 40;
	return size << 20;
}

void case_run(void)
{
	const uint64_t words[] = { orders->seed, orders->kind };
	char text[1024];
	struct unit outer;
	uint64_t max;
	unsigned i;

	rng = hash64(words, sizeof words, 5);
	unit_now = unit_images = round_now = 0;
	work.profile = orders->kind;
	max = choose_size_max();
	set_rates();
	machine_init(&live, true);
	for (i = 0; i < ARRAY_LEN(again); i++)
		machine_init(&again[i], false);
	programs_reset();
	make_store(max);
	for (round_now = 1; round_now <= orders->rounds; round_now++) {
		calls_in_round = 0;
		if (!unit_enter(round_now << UNIT_SHIFT, &outer))
			continue;
		one_round();
		unit_leave(&outer);
	}
	if (work_compare(&work, work.k, work_now(&work), text, sizeof text) < 0)
		broken("the live store: %s", text);
	open_from = work_now(&work);
	expect(keys_close(work.k), "close");
	store = NULL;
	live.engine = NULL;
	protect(&live);
	try_pending();
	if (reader >= 0)
		(void)close(reader);
	work_release(&work);
	machine_release(&live);
	for (i = 0; i < ARRAY_LEN(again); i++)
		machine_release(&again[i]);
}
