/* SPDX-License-Identifier: MIT
 *
 * engine: what the store costs without FUSE. `put` compares it with LMDB and SQLite, one transaction for each
 * operation; `scale` tells what a store with many keys costs: time per operation, bytes per key, time to open after
 * a clean close and after a kill, memory. Figures are printed as name=value lines; run.sh takes the medians.
 *
 * Threading: each part runs in a process of its own, so that memory and page faults are counted apart.
 *
 * usage: engine put -d DIR [-t SECONDS] [-n OPS] [-p PEER]       one line for each peer, durability and operation
 *        engine scale -d DIR [-n KEYS] [-m OPS] [-t SECONDS] [-k] -k leaves DIR/scale.msync
 * Key i is named by a scrambled number, so nobody profits from keys that come in order; a value has 100 bytes.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/key.h"
#include "core/keys/keys.h"
#include "core/store/store.h"

#define VALUE_SIZE    100u
#define SAMPLES_MAX   (1u << 20)
#define WAIT_MS       100
#define WAITS_MAX     600           /* one operation may wait a minute for space before we give up */
#define LMDB_MAP_SIZE (1ull << 34)
#define SMALL_SCALE   10000u        /* what a large store is compared with */
#define SCALE_ROUNDS  5

static void die(const char *what, int err, const char *why)
{
	fprintf(stderr, "engine: %s: %s\n", what, why ? why : strerror(err));
	exit(1);
}

/* For calls that return 0 or a negative errno. */
static void must(int r, const char *what)
{
	if (r < 0)
		die(what, -r, NULL);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t rng_state = 88172645463325252u;

static uint64_t random_below(uint64_t n)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state % n;
}

/* Tells its key, and differs each time: SQLite does not write a value that is there already. */
static void value_of(uint64_t i, uint8_t value[VALUE_SIZE])
{
	static uint64_t version;

	version++;
	memset(value, (int)(i & 0xff), VALUE_SIZE);
	memcpy(value, &i, sizeof i);
	memcpy(value + VALUE_SIZE - sizeof version, &version, sizeof version);
}

static void check_value(uint64_t i, const void *value, size_t len, const char *who)
{
	uint8_t want[VALUE_SIZE];

	value_of(i, want);
	if (len != VALUE_SIZE || memcmp(value, want, VALUE_SIZE - sizeof i) != 0)
		die(who, 0, "wrong value");
}

/* The store ------------------------------------------------------------------------------------------------------ */
struct ms {
	struct keys *keys;
	struct store *store;
	int event;              /* written by the store's helpers when something moved */
	bool durable, threads;
	bool hands_over;        /* an fsync is asked of the syncer and waited for, as in the daemon */
	uint64_t waits;         /* times that an operation had to wait for space */
};

static void ms_progress(void *ctx)
{
	const struct ms *m = ctx;
	uint64_t one = 1;

	(void)!write(m->event, &one, sizeof one);
}

static void ms_wait(struct ms *m)
{
	struct pollfd p = { .fd = m->event, .events = POLLIN };
	uint64_t count;

	if (poll(&p, 1, WAIT_MS) > 0)
		(void)!read(m->event, &count, sizeof count);
}

static struct ms *ms_open_path(const char *path, bool durable, bool threads)
{
	struct store_options options = { .path = path, .create = true, .threads = threads, .progress = ms_progress };
	struct ms *m = calloc(1, sizeof *m);

	if (!m)
		die("calloc", ENOMEM, NULL);
	m->durable = durable;
	m->threads = threads;
	m->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	options.progress_ctx = m;
	must(m->event < 0 ? -errno : 0, "eventfd");
	must(keys_open(&options, &m->keys), path);
	m->store = keys_store(m->keys);
	return m;
}

static struct ms *ms_open_in(const char *dir, bool durable, bool threads)
{
	char path[4096];

	(void)snprintf(path, sizeof path, "%s/store", dir);
	return ms_open_path(path, durable, threads);
}

static void *ms_open(const char *dir, bool durable)
{
	return ms_open_in(dir, durable, true);
}

static void *ms_open_handing_over(const char *dir, bool durable)
{
	struct ms *m = ms_open_in(dir, durable, true);

	m->hands_over = true;
	return m;
}

static void *ms_open_direct(const char *dir, bool durable)
{
	return ms_open_in(dir, durable, false);
}

static void ms_close(void *handle)
{
	struct ms *m = handle;

	must(keys_close(m->keys), "close");
	(void)close(m->event);
	free(m);
}

/* After -EAGAIN: true if the operation should be tried again. */
static bool ms_again(struct ms *m, unsigned *tries)
{
	if (++*tries > WAITS_MAX)
		return false;
	m->waits++;
	must(store_poll(m->store), "poll");
	if (m->threads) {
		ms_wait(m);
	} else {
		must(store_sync(m->store), "sync");
		must(store_checkpoint(m->store), "checkpoint");
	}
	return true;
}

/* What is due between requests, after an fsync if asked for. */
static void ms_finish(struct ms *m)
{
	uint64_t seq = store_seq(m->store);

	if (m->durable && !m->hands_over)
		must(store_sync(m->store), "sync");
	if (m->durable && m->hands_over) {
		store_sync_request(m->store);
		while (store_durable_seq(m->store) < seq) {
			must(store_failed(m->store), "store");
			ms_wait(m);
		}
	}
	must(store_poll(m->store), "poll");
}

static void ms_put(void *handle, uint64_t i, bool fresh)
{
	static const struct keys_cred cred = { 0 };
	uint8_t value[VALUE_SIZE];
	char key[KEY_LEN + 1];
	struct ms *m = handle;
	struct keys_attr attr;
	unsigned tries = 0;
	size_t done;
	int r;

	key_of(i, key);
	value_of(i, value);
	if (!fresh)
		must(keys_lookup(m->keys, KEYS_ROOT_INO, key, KEY_LEN, &attr), "lookup");
	while (fresh) {
		r = keys_make(m->keys, KEYS_ROOT_INO, key, KEY_LEN, S_IFREG | 0644, 0, &cred, &attr);
		if (r != -EAGAIN || !ms_again(m, &tries)) {
			must(r, "make");
			break;
		}
	}
	do {
		r = keys_write(m->keys, attr.ino, 0, value, VALUE_SIZE, false, &done);
	} while (r == -EAGAIN && ms_again(m, &tries));
	must(r, "write");
	ms_finish(m);
}

static void ms_get(void *handle, uint64_t i)
{
	char key[KEY_LEN + 1];
	struct ms *m = handle;
	struct keys_attr attr;
	struct iovec iov = { NULL, 0 };
	size_t bytes = 0;
	int count = 0;

	key_of(i, key);
	must(keys_lookup(m->keys, KEYS_ROOT_INO, key, KEY_LEN, &attr), "lookup");
	must(keys_read(m->keys, attr.ino, 0, VALUE_SIZE, &iov, 1, &count, &bytes), "read");
	check_value(i, iov.iov_base, count == 1 ? bytes : 0, "get");
}

/* LMDB ----------------------------------------------------------------------------------------------------------- */
struct lm {
	MDB_env *env;
	MDB_dbi dbi;
	MDB_txn *reader;
};

static void lm_must(int r, const char *what)
{
	if (r)
		die(what, 0, mdb_strerror(r));
}

static void *lm_open(const char *dir, bool durable)
{
	struct lm *l = calloc(1, sizeof *l);
	MDB_txn *txn;

	if (!l)
		die("calloc", ENOMEM, NULL);
	lm_must(mdb_env_create(&l->env), "mdb_env_create");
	lm_must(mdb_env_set_mapsize(l->env, LMDB_MAP_SIZE), "mdb_env_set_mapsize");
	lm_must(mdb_env_open(l->env, dir, durable ? 0 : MDB_NOSYNC | MDB_WRITEMAP, 0644), "mdb_env_open");
	lm_must(mdb_txn_begin(l->env, NULL, 0, &txn), "mdb_txn_begin");
	lm_must(mdb_dbi_open(txn, NULL, 0, &l->dbi), "mdb_dbi_open");
	lm_must(mdb_txn_commit(txn), "mdb_txn_commit");
	lm_must(mdb_txn_begin(l->env, NULL, MDB_RDONLY, &l->reader), "mdb_txn_begin");
	mdb_txn_reset(l->reader);
	return l;
}

static void lm_put(void *handle, uint64_t i, bool fresh)
{
	uint8_t value[VALUE_SIZE];
	char key[KEY_LEN + 1];
	MDB_val k = { KEY_LEN, key }, v = { VALUE_SIZE, value };
	struct lm *l = handle;
	MDB_txn *txn;

	(void)fresh;
	key_of(i, key);
	value_of(i, value);
	lm_must(mdb_txn_begin(l->env, NULL, 0, &txn), "mdb_txn_begin");
	lm_must(mdb_put(txn, l->dbi, &k, &v, 0), "mdb_put");
	lm_must(mdb_txn_commit(txn), "mdb_txn_commit");
}

static void lm_get(void *handle, uint64_t i)
{
	char key[KEY_LEN + 1];
	MDB_val k = { KEY_LEN, key }, v;
	struct lm *l = handle;

	key_of(i, key);
	lm_must(mdb_txn_renew(l->reader), "mdb_txn_renew");
	lm_must(mdb_get(l->reader, l->dbi, &k, &v), "mdb_get");
	check_value(i, v.mv_data, v.mv_size, "mdb_get");
	mdb_txn_reset(l->reader);
}

static void lm_close(void *handle)
{
	struct lm *l = handle;

	mdb_txn_abort(l->reader);
	mdb_env_close(l->env);
	free(l);
}

/* SQLite --------------------------------------------------------------------------------------------------------- */
struct sq {
	sqlite3 *db;
	sqlite3_stmt *put, *get;
};

static void sq_must(struct sq *q, bool ok, const char *what)
{
	if (!ok)
		die(what, 0, q->db ? sqlite3_errmsg(q->db) : "out of memory");
}

static void *sq_open(const char *dir, bool durable)
{
	static const char put[] = "INSERT INTO kv VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = excluded.v";
	struct sq *q = calloc(1, sizeof *q);
	char path[4096];

	if (!q)
		die("calloc", ENOMEM, NULL);
	(void)snprintf(path, sizeof path, "%s/sqlite.db", dir);
	sq_must(q, sqlite3_open(path, &q->db) == SQLITE_OK, path);
	sq_must(q, sqlite3_exec(q->db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL) == SQLITE_OK, "journal_mode");
	sq_must(q, sqlite3_exec(q->db, durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = OFF", NULL, NULL,
				NULL) == SQLITE_OK, "synchronous");
	sq_must(q, sqlite3_exec(q->db, "CREATE TABLE kv (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID", NULL, NULL,
				NULL) == SQLITE_OK, "create table");
	sq_must(q, sqlite3_prepare_v2(q->db, put, -1, &q->put, NULL) == SQLITE_OK, "prepare put");
	sq_must(q, sqlite3_prepare_v2(q->db, "SELECT v FROM kv WHERE k = ?1", -1, &q->get, NULL) == SQLITE_OK,
		"prepare get");
	return q;
}

static void sq_put(void *handle, uint64_t i, bool fresh)
{
	uint8_t value[VALUE_SIZE];
	char key[KEY_LEN + 1];
	struct sq *q = handle;

	(void)fresh;
	key_of(i, key);
	value_of(i, value);
	sqlite3_bind_text(q->put, 1, key, KEY_LEN, SQLITE_STATIC);
	sqlite3_bind_blob(q->put, 2, value, VALUE_SIZE, SQLITE_STATIC);
	sq_must(q, sqlite3_step(q->put) == SQLITE_DONE, "put");
	sqlite3_reset(q->put);
}

static void sq_get(void *handle, uint64_t i)
{
	char key[KEY_LEN + 1];
	struct sq *q = handle;

	key_of(i, key);
	sqlite3_bind_text(q->get, 1, key, KEY_LEN, SQLITE_STATIC);
	sq_must(q, sqlite3_step(q->get) == SQLITE_ROW, "get");
	check_value(i, sqlite3_column_blob(q->get, 0), (size_t)sqlite3_column_bytes(q->get, 0), "sqlite get");
	sqlite3_reset(q->get);
}

static void sq_close(void *handle)
{
	struct sq *q = handle;

	sqlite3_finalize(q->put);
	sqlite3_finalize(q->get);
	sq_must(q, sqlite3_close(q->db) == SQLITE_OK, "close");
	free(q);
}

/* put ------------------------------------------------------------------------------------------------------------ */
/* Who puts makes the msync himself, as with the other peers. `handover`: the syncer makes it, as in the daemon, whose request thread
 * must not wait. `direct` is the store without its helper threads. */
static const struct peer {
	const char *name;
	void *(*open)(const char *dir, bool durable);
	void (*put)(void *handle, uint64_t i, bool fresh);
	void (*get)(void *handle, uint64_t i);
	void (*close)(void *handle);
} peers[] = {
	{ "msyncfs", ms_open, ms_put, ms_get, ms_close },
	{ "handover", ms_open_handing_over, ms_put, ms_get, ms_close },
	{ "direct", ms_open_direct, ms_put, ms_get, ms_close },
	{ "lmdb", lm_open, lm_put, lm_get, lm_close },
	{ "sqlite", sq_open, sq_put, sq_get, sq_close },
};

struct config {
	const char *dir;
	const char *peer;       /* put: only this one */
	uint64_t keys;          /* put: most operations; scale: keys of the large store */
	uint64_t ops;           /* scale: operations in one measurement */
	double seconds;
	bool keep;
};

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

enum op { PUT_NEW, OVERWRITE, GET };
static const char *const op_names[] = { "put_new", "overwrite", "get" };

/* Until the time or the operations are used up; put_new counts *key_count up. */
static void measure(const struct peer *p, void *h, bool durable, enum op op, const struct config *cfg,
		    uint64_t *key_count)
{
	uint32_t *samples = malloc(SAMPLES_MAX * sizeof *samples);
	uint64_t begin = now_ns(), limit = begin + (uint64_t)(cfg->seconds * 1e9), t = begin, next, n;
	const char *sync = durable ? "durable" : "nosync";

	if (!samples)
		die("malloc", ENOMEM, NULL);
	for (n = 0; n < cfg->keys && n < SAMPLES_MAX && t < limit; n++) {
		if (op == PUT_NEW)
			p->put(h, (*key_count)++, true);
		else if (op == OVERWRITE)
			p->put(h, random_below(*key_count), false);
		else
			p->get(h, random_below(*key_count));
		next = now_ns();
		samples[n] = next - t > UINT32_MAX ? UINT32_MAX : (uint32_t)(next - t);
		t = next;
	}
	qsort(samples, n, sizeof *samples, by_value);
	printf("%s_%s_%s_per_s=%.0f\n", p->name, sync, op_names[op], (double)n * 1e9 / (double)(t - begin));
	printf("%s_%s_%s_p50_us=%.2f\n", p->name, sync, op_names[op], samples[n / 2] / 1e3);
	printf("%s_%s_%s_p99_us=%.2f\n", p->name, sync, op_names[op], samples[n * 99 / 100] / 1e3);
	printf("%s_%s_%s_max_us=%.2f\n", p->name, sync, op_names[op], samples[n - 1] / 1e3);
	free(samples);
}

/* Remove what a peer left in its directory: plain files only. */
static void remove_dir(const char *dir)
{
	static const char *const names[] = {
		"store", "data.mdb", "lock.mdb", "sqlite.db", "sqlite.db-wal", "sqlite.db-shm",
	};
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	size_t i;

	for (i = 0; fd >= 0 && i < sizeof names / sizeof *names; i++)
		(void)unlinkat(fd, names[i], 0);
	if (fd >= 0)
		(void)close(fd);
	(void)rmdir(dir);
}

static void put_one(const struct config *cfg, const struct peer *p, bool durable)
{
	uint64_t key_count = 0;
	char dir[4096];
	void *h;

	(void)snprintf(dir, sizeof dir, "%s/%s", cfg->dir, p->name);
	must(mkdir(dir, 0755) < 0 ? -errno : 0, dir);
	h = p->open(dir, durable);
	measure(p, h, durable, PUT_NEW, cfg, &key_count);
	measure(p, h, durable, OVERWRITE, cfg, &key_count);
	if (!durable)
		measure(p, h, durable, GET, cfg, &key_count);
	p->close(h);
}

/* Run fn in a process of its own; `killed` if it ends itself with SIGKILL. */
static int in_child(void (*fn)(const struct config *cfg, const void *arg), const struct config *cfg, const void *arg,
		    bool killed)
{
	int status = 0;
	pid_t pid;

	(void)fflush(stdout);
	pid = fork();
	must(pid < 0 ? -errno : 0, "fork");
	if (pid == 0) {
		fn(cfg, arg);
		(void)fflush(stdout);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) < 0)
		die("waitpid", errno, NULL);
	return killed ? !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) : status != 0;
}

struct put_arg {
	const struct peer *peer;
	bool durable;
};

static void put_child(const struct config *cfg, const void *arg)
{
	const struct put_arg *a = arg;

	put_one(cfg, a->peer, a->durable);
}

static int run_put(const struct config *cfg)
{
	struct put_arg arg;
	char dir[4096];
	int bad = 0;
	size_t i;

	for (i = 0; i < 2 * (sizeof peers / sizeof *peers); i++) {
		arg = (struct put_arg){ &peers[i / 2], i % 2 };
		if (cfg->peer && strcmp(cfg->peer, arg.peer->name) != 0)
			continue;
		bad |= in_child(put_child, cfg, &arg, false);
		(void)snprintf(dir, sizeof dir, "%s/%s", cfg->dir, arg.peer->name);
		remove_dir(dir);
	}
	return bad;
}

/* scale ---------------------------------------------------------------------------------------------------------- */
/* Memory that is this process's own, without the mapped store. */
static uint64_t anonymous_kib(void)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	uint64_t sum = 0, kib;
	char line[512];

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "Anonymous: %" SCNu64 " kB", &kib) == 1)
			sum += kib;
	if (f)
		(void)fclose(f);
	return sum;
}

/* Median over a few rounds of the mean cost of an operation. */
static double cost_ns(struct ms *m, enum op op, uint64_t ops, uint64_t *key_count)
{
	uint32_t rounds[SCALE_ROUNDS];
	uint64_t begin, i;
	int round;

	for (round = 0; round < SCALE_ROUNDS; round++) {
		begin = now_ns();
		for (i = 0; i < ops; i++) {
			if (op == PUT_NEW)
				ms_put(m, (*key_count)++, true);
			else if (op == OVERWRITE)
				ms_put(m, random_below(*key_count), false);
			else
				ms_get(m, random_below(*key_count));
		}
		rounds[round] = (uint32_t)((now_ns() - begin) / ops);
	}
	qsort(rounds, SCALE_ROUNDS, sizeof *rounds, by_value);
	return rounds[SCALE_ROUNDS / 2];
}

static void scale_path(const struct config *cfg, char path[4096])
{
	(void)snprintf(path, 4096, "%s/scale.msync", cfg->dir);
}

/* Cost at 10 thousand keys and at cfg->keys, then a clean close. New keys are measured on the way up to each size
 * (a quarter of the small one), so that both sizes are what they are called. */
static void scale_fill(const struct config *cfg, const void *arg)
{
	uint64_t key_count = 0, sizes[2] = { SMALL_SCALE, cfg->keys }, begin, ops;
	double ns[2][3];
	char path[4096];
	struct ms *m;
	int s, op;

	(void)arg;
	scale_path(cfg, path);
	m = ms_open_path(path, false, true);
	begin = now_ns();
	for (s = 0; s < 2; s++) {
		ops = SMALL_SCALE / 4 / SCALE_ROUNDS;
		while (key_count < sizes[s] - ops * SCALE_ROUNDS)
			ms_put(m, key_count++, true);
		ns[s][PUT_NEW] = cost_ns(m, PUT_NEW, ops, &key_count);
		if (s == 1)
			printf("scale_fill_s=%.2f\n", (double)(now_ns() - begin) / 1e9);
		for (op = OVERWRITE; op <= GET; op++)
			ns[s][op] = cost_ns(m, (enum op)op, cfg->ops, &key_count);
	}
	for (op = PUT_NEW; op <= GET; op++)
		printf("scale_%s_small_ns=%.0f\nscale_%s_large_ns=%.0f\nscale_%s_ratio=%.3f\n", op_names[op], ns[0][op],
		       op_names[op], ns[1][op], op_names[op], ns[1][op] / ns[0][op]);
	printf("scale_keys=%" PRIu64 "\nscale_waits=%" PRIu64 "\nscale_full_anonymous_kib=%" PRIu64 "\n", key_count,
	       m->waits, anonymous_kib());
	begin = now_ns();
	ms_close(m);
	printf("scale_close_ms=%.2f\n", (double)(now_ns() - begin) / 1e6);
}

/* Open, say what it took and what the store looks like, close. */
static void scale_open(const struct config *cfg, const void *arg)
{
	const char *after = arg;
	struct store_status st;
	uint64_t begin, keys;
	char path[4096];
	struct ms *m;

	scale_path(cfg, path);
	begin = now_ns();
	m = ms_open_path(path, false, true);
	printf("scale_open_%s_ms=%.2f\n", after, (double)(now_ns() - begin) / 1e6);
	store_status(m->store, &st);
	keys = st.inodes > 1 ? st.inodes - 1 : 1;
	printf("scale_open_%s_recovered=%" PRIu64 "\n", after, st.recovered_records);
	printf("scale_open_%s_anonymous_kib=%" PRIu64 "\n", after, anonymous_kib());
	if (!strcmp(after, "clean"))
		printf("scale_bytes_per_key=%.1f\nscale_file_bytes_per_key=%.1f\nscale_grows=%" PRIu64 "\n",
		       (double)st.used_blocks * 4096 / (double)keys, (double)st.file_bytes / (double)keys, st.grows);
	ms_close(m);
}

/* Overwrite until the journal is as full as it gets, which is told by having seen it emptied twice, then die. */
static void scale_kill(const struct config *cfg, const void *arg)
{
	uint64_t key_count = cfg->keys, limit = now_ns() + (uint64_t)(cfg->seconds * 1e9), peak = 0, held = 0;
	struct store_status st;
	uint64_t first;
	char path[4096];
	struct ms *m;
	int i;

	(void)arg;
	scale_path(cfg, path);
	m = ms_open_path(path, false, true);
	store_status(m->store, &st);
	first = st.checkpoints;
	while (now_ns() < limit) {
		for (i = 0; i < 1000; i++)
			ms_put(m, random_below(key_count), false);
		store_status(m->store, &st);
		held = st.journal_pos - st.checkpoint_pos;
		if (held > peak)
			peak = held;
		if (st.checkpoints >= first + 2 && held >= peak / 10 * 9)
			break;
	}
	printf("scale_kill_journal_bytes=%" PRIu64 "\nscale_kill_journal_peak_bytes=%" PRIu64 "\n", held, peak);
	(void)fflush(stdout);
	(void)kill(getpid(), SIGKILL);
}

static int run_scale(const struct config *cfg)
{
	char path[4096];
	int bad;

	scale_path(cfg, path);
	bad = in_child(scale_fill, cfg, NULL, false);
	if (!bad)
		bad = in_child(scale_open, cfg, "clean", false);
	if (!bad)
		bad = in_child(scale_kill, cfg, NULL, true);
	if (!bad)
		bad = in_child(scale_open, cfg, "killed", false);
	if (!cfg->keep)
		(void)unlink(path);
	return bad;
}

static int usage(void)
{
	fprintf(stderr, "usage: engine put -d DIR [-t SECONDS] [-n OPS] [-p PEER]\n"
		"       engine scale -d DIR [-n KEYS] [-m OPS] [-t SECONDS] [-k]\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct config cfg = { .keys = 1000000, .ops = 5000, .seconds = 2 };
	bool scale = argc > 1 && !strcmp(argv[1], "scale");
	int opt;

	if (argc < 2 || (!scale && strcmp(argv[1], "put") != 0))
		return usage();
	if (scale)
		cfg.seconds = 20;
	optind = 2;
	while ((opt = getopt(argc, argv, "d:p:n:m:t:k")) != -1) {
		switch (opt) {
		case 'd': cfg.dir = optarg; break;
		case 'p': cfg.peer = optarg; break;
		case 'n': cfg.keys = strtoull(optarg, NULL, 10); break;
		case 'm': cfg.ops = strtoull(optarg, NULL, 10); break;
		case 't': cfg.seconds = atof(optarg); break;
		case 'k': cfg.keep = true; break;
		default: return usage();
		}
	}
	if (!cfg.dir || !cfg.keys || !cfg.ops || (scale && cfg.keys < 2 * SMALL_SCALE))
		return usage();
	return scale ? run_scale(&cfg) : run_put(&cfg);
}
