/* SPDX-License-Identifier: MIT
 *
 * test_sync: what an fsync costs, and what waits for an msync. The store runs with its helper threads over a disk of our
 * own, on which one msync can be made to hang for as long as the test likes. Meanwhile the request thread (the test) does
 * everything that a mount does, and must not wait:
 *
 * - Locks are looked at, not timed: each mutex that a thread holds while it is in a call that can take long is noted, and
 *   so is each one that the request thread takes (pthread_mutex_lock() is wrapped by the linker). No mutex may be both. So
 *   a lock around an msync is found even if nothing happens to wait for it, and the test fails instead of hanging.
 * - Of the table of system calls the request thread may use the clocks only, and ask for pages ahead.
 */
#include "tests/unit/scratch_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/keys/keys.h"
#include "core/store/store_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define LOCKS_MAX 64
#define CALLS_MAX 512
#define BLOCKS_MAX 65536

enum { SYNCER, CHECKPOINTER, PROVISIONER };     /* in the order in which worker.c starts them */

static char path[SCRATCH_PATH];

/* Locks ------------------------------------------------------------------------------------------------------------- */

int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __real_pthread_mutex_unlock(pthread_mutex_t *m);
int __real_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __real_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until);

struct lock_set {
	_Atomic(pthread_mutex_t *) at[LOCKS_MAX];
};

static struct lock_set slow;            /* held by somebody in a call that can take long */
static struct lock_set asked;           /* taken by the request thread */
static _Thread_local bool requesting;
static _Thread_local pthread_mutex_t *held[LOCKS_MAX];
static _Thread_local unsigned held_count;
static _Atomic(struct store *) store;   /* that is open; helpers look at it while it is opened and closed */
static _Atomic(pthread_cond_t *) watched;
static _Atomic unsigned followers;      /* how often somebody began to wait for it */

static bool set_has(struct lock_set *s, const pthread_mutex_t *m)
{
	unsigned i;

	for (i = 0; i < LOCKS_MAX; i++)
		if (atomic_load(&s->at[i]) == m)
			return true;
	return false;
}

static void set_add(struct lock_set *s, pthread_mutex_t *m)
{
	unsigned i;

	for (i = 0; i < LOCKS_MAX; i++) {
		pthread_mutex_t *was = NULL;

		if (atomic_compare_exchange_strong(&s->at[i], &was, m) || was == m)
			return;
	}
	check(!"more locks than there is room for");
}

_Noreturn static void broken(const char *what)
{
	fprintf(stderr, "test_sync: %s\n", what);
	(void)unlink(path);
	abort();
}

/* Aborts at once, since to go on might be to wait for ever. */
static void look(const pthread_mutex_t *m)
{
	const struct store *s = store;
	char text[128];

	if (!set_has(&slow, m) || !set_has(&asked, m))
		return;
	(void)snprintf(text, sizeof text, "the request thread takes %s, which is held over a call that can take long",
		       !s ? "a lock" : m == &s->ext_lock ? "ext_lock" : m == &s->wake_lock ? "wake_lock" :
		       m == &s->journal.lock ? "journal.lock" : m == &s->sync_lock ? "sync_lock" :
		       m == &s->map.turn_lock ? "turn_lock" : "a lock");
	broken(text);
}

static void note_slow(void)
{
	unsigned i;

	for (i = 0; i < held_count; i++) {
		set_add(&slow, held[i]);
		look(held[i]);
	}
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
	if (requesting) {
		set_add(&asked, m);
		look(m);
	}
	check(held_count < LOCKS_MAX);
	held[held_count++] = m;
	return __real_pthread_mutex_lock(m);
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
	unsigned i = held_count;

	while (i > 0 && held[i - 1] != m)
		i--;
	check(i > 0);
	held[i - 1] = held[--held_count];
	return __real_pthread_mutex_unlock(m);
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
	if (requesting)
		broken("the request thread waits for a helper");
	if (c == atomic_load(&watched))
		atomic_fetch_add(&followers, 1);
	return __real_pthread_cond_wait(c, m);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until)
{
	if (requesting)
		broken("the request thread waits for a helper");
	return __real_pthread_cond_timedwait(c, m, until);
}

/* The disk ---------------------------------------------------------------------------------------------------------- */

static struct {
	pthread_mutex_t lock;           /* taken past the wrapper: it is the test's */
	pthread_cond_t moved;
	unsigned begun, ended;          /* msyncs */
	unsigned hang;                  /* the msync of this number hangs, 1 = the first; 0 = none */
	bool hanging;
	int error;                      /* what the one that hangs returns in the end */
	uint64_t progress;
	struct { uint64_t block, count; pthread_t by; } calls[CALLS_MAX];
	/* The provisioner's msyncs are not an fsync's: which blocks had one. */
	uint64_t ahead;
	uint64_t back;                  /* blocks that were asked to be written back */
	bool written[BLOCKS_MAX];
} disk = { .lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER };

static void disk_lock(void)
{
	(void)__real_pthread_mutex_lock(&disk.lock);
}

static void disk_unlock(void)
{
	(void)__real_pthread_mutex_unlock(&disk.lock);
}

static void may_take_long(const char *call)
{
	if (requesting)
		broken(call);
	note_slow();
}

static void sync_ahead(uint64_t block, uint64_t count)
{
	uint64_t i;

	disk_lock();
	for (i = block; i < block + count && i < BLOCKS_MAX; i++)
		disk.written[i] = true;
	disk.ahead++;
	(void)pthread_cond_broadcast(&disk.moved);
	disk_unlock();
}

static int d_sync(void *ctx, void *addr, size_t len)
{
	struct store *s = store;
	unsigned n;
	int r = 0;

	(void)ctx;
	may_take_long("the request thread calls msync");
	if (s && pthread_equal(pthread_self(), s->thread[PROVISIONER])) {
		sync_ahead((uint64_t)((uint8_t *)addr - s->map.base) >> BLOCK_SHIFT, len >> BLOCK_SHIFT);
		return 0;
	}
	disk_lock();
	n = disk.begun++;
	if (n < CALLS_MAX && s) {
		disk.calls[n].block = (uint64_t)((uint8_t *)addr - s->map.base) >> BLOCK_SHIFT;
		disk.calls[n].count = len >> BLOCK_SHIFT;
		disk.calls[n].by = pthread_self();
	}
	if (n + 1 == disk.hang) {
		disk.hanging = true;
		(void)pthread_cond_broadcast(&disk.moved);
		while (disk.hanging)
			(void)__real_pthread_cond_wait(&disk.moved, &disk.lock);
		r = disk.error;
	}
	disk.ended++;
	(void)pthread_cond_broadcast(&disk.moved);
	disk_unlock();
	return r;
}

static int d_allocate(void *ctx, int fd, uint64_t off, uint64_t len)
{
	may_take_long("the request thread calls fallocate");
	return sys_linux.allocate(ctx, fd, off, len);
}

static int d_truncate(void *ctx, int fd, uint64_t size)
{
	may_take_long("the request thread calls ftruncate");
	return sys_linux.truncate(ctx, fd, size);
}

static int d_size(void *ctx, int fd, uint64_t *ret_size)
{
	if (requesting)
		broken("the request thread calls fstat");
	return sys_linux.size(ctx, fd, ret_size);
}

static int d_map(void *ctx, void *addr, size_t len, int fd, uint64_t off, int private_copy)
{
	may_take_long("the request thread calls mmap");
	return sys_linux.map(ctx, addr, len, fd, off, private_copy);
}

static int d_unmap(void *ctx, void *addr, size_t len)
{
	may_take_long("the request thread calls mmap");
	return sys_linux.unmap(ctx, addr, len);
}

static int d_populate(void *ctx, void *addr, size_t len)
{
	may_take_long("the request thread calls madvise");
	return sys_linux.populate(ctx, addr, len);
}

/* Of the request thread too, once for each piece of the file (map.h): it only begins to read. */
static int d_ahead(void *ctx, void *addr, size_t len)
{
	if (!requesting)
		note_slow();
	return sys_linux.ahead(ctx, addr, len);
}

static int d_write_back(void *ctx, int fd, uint64_t off, uint64_t len)
{
	(void)ctx;
	(void)fd;
	may_take_long("the request thread calls sync_file_range");
	disk_lock();
	disk.back += len >> BLOCK_SHIFT;
	for (; len > 0; off += BLOCK_SIZE, len -= BLOCK_SIZE)
		if (off >> BLOCK_SHIFT < BLOCKS_MAX)
			disk.written[off >> BLOCK_SHIFT] = true;
	(void)pthread_cond_broadcast(&disk.moved);
	disk_unlock();
	return 0;
}

static uint64_t d_real(void *ctx)
{
	return sys_linux.now_real_ns(ctx);
}

static uint64_t d_mono(void *ctx)
{
	return sys_linux.now_mono_ns(ctx);
}

static int d_random(void *ctx, void *buf, size_t len)
{
	if (requesting)
		broken("the request thread calls getrandom");
	return sys_linux.random(ctx, buf, len);
}

static const struct sys_ops slow_disk = {
	.allocate = d_allocate, .truncate = d_truncate, .size = d_size, .map = d_map, .unmap = d_unmap, .sync = d_sync,
	.populate = d_populate, .ahead = d_ahead, .write_back = d_write_back, .now_real_ns = d_real, .now_mono_ns = d_mono,
	.random = d_random,
};

static void progress(void *ctx)
{
	(void)ctx;
	disk_lock();
	disk.progress++;
	(void)pthread_cond_broadcast(&disk.moved);
	disk_unlock();
}

static unsigned msyncs(void)
{
	unsigned n;

	disk_lock();
	n = disk.begun;
	disk_unlock();
	return n;
}

static bool is_hanging(void)
{
	bool yes;

	disk_lock();
	yes = disk.hanging;
	disk_unlock();
	return yes;
}

static void go_on(void)
{
	disk_lock();
	disk.hang = 0;
	disk.hanging = false;
	(void)pthread_cond_broadcast(&disk.moved);
	disk_unlock();
}

/* The store --------------------------------------------------------------------------------------------------------- */

static struct keys *keys;
static unsigned names;
static struct { uint64_t block, count; } staged;
static const struct keys_cred cred = { 0, 0, 022 };

static void open_store(void)
{
	const struct store_options o = { .path = path, .create = true, .sys = &slow_disk, .threads = true, .progress = progress };

	(void)unlink(path);
	memset(&slow, 0, sizeof slow);
	memset(&asked, 0, sizeof asked);
	disk.begun = disk.ended = 0;
	disk.hang = 0;
	disk.hanging = false;
	disk.error = 0;
	disk.back = 0;
	memset(disk.written, 0, sizeof disk.written);
	assert_int_equal(keys_open(&o, &keys), 0);
	store = keys_store(keys);
	names = 0;
	requesting = true;
}

static void close_store(void)
{
	struct keys *k = keys;

	requesting = false;
	store = NULL;
	assert_int_equal(keys_close(k), 0);
}

static uint64_t make(void)
{
	struct keys_attr a;
	char name[16];

	(void)snprintf(name, sizeof name, "f%u", names++);
	assert_int_equal(keys_make(keys, KEYS_ROOT_INO, name, strlen(name), S_IFREG | 0644, 0, &cred, &a), 0);
	return a.ino;
}

static void write_bytes(uint64_t ino, uint64_t off, size_t len)
{
	static uint8_t data[1 << 20];
	size_t n;

	memset(data, (int)(names + off), len);
	assert_int_equal(keys_write(keys, ino, off, data, len, 0, &n), 0);
	assert_int_equal(n, len);
}

/* As the mount's fsync: ask, and do not wait. */
static void ask_sync(void)
{
	store_sync_request(store);
}

static bool is_durable(void)
{
	return store_durable_seq(store) >= store_seq(store);
}

/* until() takes what is written over. */
static bool is_checkpointed(void)
{
	return atomic_load(&store->ckpt_state) == CKPT_IDLE;
}

/* What the request thread does while it has nothing else to do. Helpers tell of their progress, so this waits for that. */
static void until(bool (*condition)(void))
{
	for (;;) {
		uint64_t seen;

		disk_lock();
		seen = disk.progress + disk.begun + disk.ahead + disk.back;
		disk_unlock();
		assert_int_equal(store_poll(store), 0);
		if (condition())
			return;
		disk_lock();
		while (disk.progress + disk.begun + disk.ahead + disk.back == seen && !disk.hanging)
			(void)__real_pthread_cond_wait(&disk.moved, &disk.lock);
		disk_unlock();
	}
}

/* Nothing is left to sync or to checkpoint, so that only what is asked for from now on costs an msync. */
static void settle(void)
{
	until(is_checkpointed);
	assert_int_equal(store_checkpoint(store), 0);
	until(is_checkpointed);
	assert_true(is_durable());
}

static bool in_journal(unsigned call)
{
	return journal_owns(&store->journal, disk.calls[call].block, disk.calls[call].count);
}

/* Which of the helpers made it? */
static bool is_by(unsigned call, unsigned helper)
{
	return pthread_equal(disk.calls[call].by, store->thread[helper]);
}

static int count_entry(void *ctx, const struct keys_dirent *e)
{
	(void)e;
	++*(unsigned *)ctx;
	return 0;
}

static void check_contents(uint64_t ino, uint64_t off, size_t len)
{
	struct iovec iov[300];
	size_t bytes;
	int count;

	assert_int_equal(keys_read(keys, ino, off, len, iov, 300, &count, &bytes), 0);
	assert_int_equal(bytes, len);
}

/* Everything that a program can ask of a mount, none of which may wait. */
static void everything(void)
{
	uint64_t ino = make(), orphan, off;
	struct keys_setattr set = { .mask = KEYS_SET_MODE, .mode = 0600 };
	struct keys_statfs figures;
	struct store_status st;
	struct keys_attr a;
	char name[16], to[16], buf[256];
	uint32_t nlink;
	unsigned seen = 0;
	size_t n;
	int r;

	(void)snprintf(name, sizeof name, "f%u", names - 1);
	(void)snprintf(to, sizeof to, "g%u", names - 1);
	write_bytes(ino, 0, 100);
	write_bytes(ino, 4096, 70000);
	check_contents(ino, 4096, 70000);
	ask_sync();
	assert_int_equal(keys_lookup(keys, KEYS_ROOT_INO, name, strlen(name), &a), 0);
	assert_int_equal(keys_getattr(keys, ino, &a), 0);
	assert_int_equal(keys_setattr(keys, ino, &set, &a), 0);
	assert_int_equal(keys_setxattr(keys, ino, "user.a", "value", 5, 0, false), 0);
	assert_int_equal(keys_getxattr(keys, ino, "user.a", buf, sizeof buf, &n), 0);
	assert_int_equal(keys_listxattr(keys, ino, buf, sizeof buf, &n), 0);
	assert_int_equal(keys_removexattr(keys, ino, "user.a"), 0);
	assert_int_equal(keys_seek(keys, ino, 0, SEEK_DATA, &off), 0);
	assert_int_equal(keys_fallocate(keys, ino, 0, 100000, 50000, 0), 0);
	assert_int_equal(keys_link(keys, ino, KEYS_ROOT_INO, to, strlen(to), &a), 0);
	assert_int_equal(keys_rename(keys, KEYS_ROOT_INO, to, strlen(to), KEYS_ROOT_INO, "h", 1, 0, &cred, &orphan), 0);
	assert_int_equal(keys_symlink(keys, KEYS_ROOT_INO, to, strlen(to), "target", 6, &cred, &a), 0);
	assert_int_equal(keys_readlink(keys, a.ino, buf, sizeof buf, &n), 0);
	assert_int_equal(keys_readdir(keys, KEYS_ROOT_INO, 0, count_entry, &seen), 0);
	assert_true(seen > 2);
	assert_int_equal(keys_touch_atime(keys, ino, KEYS_STRICTATIME), 0);
	assert_int_equal(keys_unlink(keys, KEYS_ROOT_INO, "h", 1, &orphan, &nlink), 0);
	assert_int_equal(keys_unlink(keys, KEYS_ROOT_INO, name, strlen(name), &orphan, &nlink), 0);
	assert_int_equal(nlink, 0);
	while ((r = keys_reap(keys, orphan)) == 1)
		;
	assert_int_equal(r, 0);
	keys_statfs(keys, &figures);
	store_status(store, &st);
	(void)store_failed(store);
	/* -EAGAIN: the checkpoint that hangs. */
	r = store_checkpoint(store);
	assert_true(r == 0 || r == -EAGAIN);
	assert_int_equal(store_poll(store), 0);
}

/* Tests ------------------------------------------------------------------------------------------------------------- */

static void test_sync__an_fsync_is_one_msync_of_the_journals_tail(void **state)
{
	unsigned before, i;
	uint64_t ino;

	(void)state;
	open_store();
	ino = make();
	settle();
	for (i = 0; i < 20; i++) {
		before = msyncs();
		write_bytes(ino, 0, 1 + i * 200);       /* rides in its record */
		ask_sync();
		until(is_durable);
		assert_int_equal(msyncs(), before + 1);
		assert_true(in_journal(before));
		/* The page it ends on and those it has filled, no more. */
		assert_true(disk.calls[before].count <= 3);
	}
	/* Nothing new: nothing to do. store_sync() is what the syncer calls. */
	before = msyncs();
	requesting = false;
	assert_int_equal(store_sync(store), 0);
	requesting = true;
	assert_int_equal(msyncs(), before);
	close_store();
}

/* No hand-over: that would be two changes of threads for each. And no lock, on which others would wait for the disk. */
static void test_sync__who_waits_makes_the_msync(void **state)
{
	unsigned before, i;
	uint64_t ino;

	(void)state;
	open_store();
	ino = make();
	settle();
	for (i = 0; i < 20; i++) {
		before = msyncs();
		write_bytes(ino, 0, 1 + i * 200);
		requesting = false;
		assert_int_equal(store_sync(store), 0);
		requesting = true;
		assert_true(is_durable());
		assert_int_equal(msyncs(), before + 1);
		assert_true(in_journal(before));
		assert_true(pthread_equal(disk.calls[before].by, pthread_self()));
	}
	assert_false(set_has(&slow, &store->sync_lock));
	close_store();
}

/* The segment that the tail's leads to, if it is not the last: all of it. */
static bool is_next_written(void)
{
	block_t first = 0;
	uint64_t i, n = journal_seg_blocks(&store->journal);

	if (!journal_coming(&store->journal, &first))
		return false;
	disk_lock();
	for (i = 0; i < n && disk.written[first + i]; i++)
		;
	disk_unlock();
	return i == n;
}

/* What tells that there are many syncs. */
static void sync_often(uint64_t ino)
{
	unsigned i;

	for (i = 0; i < 8; i++) {
		write_bytes(ino, 0, 100);
		ask_sync();
		until(is_durable);
	}
}

/* The first msync of a block that was never written is a change of the file system's own too. So no fsync makes one. */
static void test_sync__the_journals_blocks_were_written_before(void **state)
{
	unsigned i, before, segments = 0, was;
	uint64_t ino, b;

	(void)state;
	open_store();
	ino = make();
	sync_often(ino);
	until(is_next_written);
	was = store->journal.used;
	while (segments < 3) {
		/* Who sleeps is woken by the sync. */
		while (!atomic_load(&store->prov_asleep))
			(void)usleep(1000);
		before = msyncs();
		for (i = 0; i < 60; i++)
			write_bytes(ino, 0, 4000);
		ask_sync();
		until(is_durable);
		for (; before < msyncs(); before++) {
			/* But for the page that it began on, and the segment that the opening began in. */
			if (segments == 0 || !is_by(before, SYNCER))
				continue;
			for (b = disk.calls[before].block + 1; b < disk.calls[before].block + disk.calls[before].count; b++)
				assert_true(disk.written[b]);
		}
		if (store->journal.used > was)
			segments++;
		was = store->journal.used;
		sync_often(ino);
		until(is_next_written);
	}
	close_store();
}

static void test_sync__and_one_of_the_extents(void **state)
{
	static const size_t sizes[] = { 4097, 8192, 65536, 300000, 1 << 20 };
	unsigned before, i;
	uint64_t ino;

	(void)state;
	open_store();
	ino = make();
	settle();
	for (i = 0; i < ARRAY_LEN(sizes); i++) {
		before = msyncs();
		/* In pieces, as they come from the kernel; of one file, and of others. */
		write_bytes(ino, (uint64_t)i << 20, sizes[i]);
		write_bytes(make(), 0, sizes[i]);
		write_bytes(ino, 0, 10);
		ask_sync();
		until(is_durable);
		assert_int_equal(msyncs(), before + 2);
		assert_false(in_journal(before));
		assert_true(disk.calls[before].count >= 2 * (sizes[i] >> BLOCK_SHIFT));
		assert_true(in_journal(before + 1));
	}
	close_store();
}

/* `count` callers ask while an msync is under way, which began before their changes: all of them wait for the same next one. */
static void share(unsigned count, size_t size)
{
	unsigned before, i;

	open_store();
	settle();
	before = msyncs();
	disk.hang = before + 1;
	(void)make();
	ask_sync();
	until(is_hanging);
	for (i = 0; i < count; i++) {
		write_bytes(make(), 0, size);
		ask_sync();
	}
	assert_int_equal(msyncs(), before + 1);
	assert_false(is_durable());
	go_on();
	until(is_durable);
	assert_int_equal(msyncs(), before + 2 + (size > 4096));
	close_store();
}

/* What a replica receives in bulk is on its way to the disk before anybody asks for a sync, but not by the request thread; a few
 * blocks are not. */
#define BULK 5000u              /* blocks; of two times 8 MiB all, of the rest nothing yet */

static bool is_written_back(void)
{
	bool yes;

	disk_lock();
	yes = disk.back >= 4096;
	disk_unlock();
	return yes;
}

static bool is_staged(void)
{
	return store_stage(store, 1, &staged.block, &staged.count) == 0;
}

static void test_sync__bulk_is_written_while_more_comes(void **state)
{
	static uint8_t bytes[64 << BLOCK_SHIFT];
	static bool filled[BLOCKS_MAX];
	unsigned done, i, n;

	(void)state;
	open_store();
	settle();
	/* One here, one there. */
	for (i = 0; i < 100; i++) {
		until(is_staged);
		assert_int_equal(store_fill(store, staged.block, 1, bytes), 0);
		if (i % 2)
			assert_int_equal(store_drop_staged(store, staged.block, 1), 0);
	}
	for (done = 0; done < BULK; done += n) {
		uint64_t block, count;
		int r = store_stage(store, min_u64(64, BULK - done), &block, &count);

		n = 0;
		if (r == -EAGAIN || r == -ENOSPC) {
			until(is_staged);
			assert_int_equal(store_drop_staged(store, staged.block, 1), 0);
			continue;
		}
		assert_int_equal(r, 0);
		assert_int_equal(store_fill(store, block, count, bytes), 0);
		for (n = (unsigned)count, i = 0; i < n; i++)
			filled[block + i] = true;
	}
	until(is_written_back);
	disk_lock();
	assert_true(disk.back < BULK);
	for (i = n = 0; i < BLOCKS_MAX; i++)
		n += filled[i] && disk.written[i];
	assert_true(n >= 4096);
	disk_unlock();
	close_store();
}

static void test_sync__sixteen_share_one(void **state)
{
	(void)state;
	share(16, 100);
	share(16, 20000);
	share(64, 100);
	share(64, 20000);
}

struct waiter {
	pthread_t thread;
	int result;
	bool durable;           /* what it waited for, when it returned */
};

static void *wait_for_sync(void *arg)
{
	struct waiter *w = arg;
	uint64_t wanted = store_seq(store);

	w->result = store_sync(store);
	w->durable = store_durable_seq(store) >= wanted;
	return NULL;
}

/* The same with callers that wait, which make the msyncs themselves. The first one's msync ends with `error`. */
static void share_waiting(unsigned count, size_t size, int error)
{
	struct waiter w[65] = { 0 };
	unsigned before, i;

	assert_true(count < ARRAY_LEN(w));
	open_store();
	settle();
	before = msyncs();
	disk.hang = before + 1;
	disk.error = error;
	(void)make();
	requesting = false;
	assert_int_equal(pthread_create(&w[0].thread, NULL, wait_for_sync, &w[0]), 0);
	while (!is_hanging())
		(void)usleep(1000);
	requesting = true;
	for (i = 1; i <= count; i++)
		write_bytes(make(), 0, size);
	requesting = false;
	atomic_store(&followers, 0);
	atomic_store(&watched, &store->sync_over);
	for (i = 1; i <= count; i++)
		assert_int_equal(pthread_create(&w[i].thread, NULL, wait_for_sync, &w[i]), 0);
	while (atomic_load(&followers) < count)
		(void)usleep(1000);
	atomic_store(&watched, NULL);
	assert_int_equal(msyncs(), before + 1);
	go_on();
	for (i = 0; i <= count; i++) {
		assert_int_equal(pthread_join(w[i].thread, NULL), 0);
		assert_int_equal(w[i].result, error);
		assert_true(w[i].durable == (error == 0));
	}
	assert_int_equal(msyncs(), before + (error < 0 ? 1 : 2 + (size > 4096)));
	if (error < 0) {
		struct keys *k = keys;

		assert_int_equal(store_sync(store), error);
		assert_int_equal(store_reserve(store, 1, false), -EROFS);
		assert_int_equal(msyncs(), before + 1);
		store = NULL;
		assert_int_equal(keys_close(k), error);
		return;
	}
	close_store();
}

static void test_sync__who_waits_shares_one(void **state)
{
	(void)state;
	share_waiting(16, 100, 0);
	share_waiting(16, 20000, 0);
	share_waiting(64, 100, 0);
	share_waiting(64, 20000, 0);
}

static void test_sync__an_error_is_everybodys(void **state)
{
	(void)state;
	share_waiting(16, 100, -EIO);
	share_waiting(64, 20000, -EIO);
	/* The file is as the next test wants it: a store that was not failed. */
	assert_int_equal(unlink(path), 0);
}

/* What needs msyncs in a life; with the n-th of them all hanging. */
static bool hung;

static void look_at_it(void)
{
	if (!is_hanging())
		return;
	hung = true;
	everything();
	everything();
	assert_true(is_hanging());
	go_on();
}

static bool is_hung_or_durable(void)
{
	return is_hanging() || is_durable();
}

static bool is_hung_or_checkpointed(void)
{
	return is_hanging() || is_checkpointed();
}

static bool is_hung_or_grown(void)
{
	return is_hanging() || atomic_load(&store->grow_wanted) == 0;
}

static void through_sync(void)
{
	ask_sync();
	until(is_hung_or_durable);
	look_at_it();
	until(is_durable);
}

static void through_checkpoint(void)
{
	until(is_hung_or_checkpointed);
	look_at_it();
	until(is_checkpointed);
	assert_int_equal(store_checkpoint(store), 0);
	until(is_hung_or_checkpointed);
	look_at_it();
	through_sync();
}

static void through_growth(void)
{
	uint64_t ino = make(), grows = atomic_load(&store->grows);
	unsigned n;

	for (n = 0; n < 24 && atomic_load(&store->grow_wanted) == 0 && atomic_load(&store->grows) == grows; n++) {
		write_bytes(ino, (uint64_t)n << 20, 1 << 20);
		assert_int_equal(store_poll(store), 0);
	}
	until(is_hung_or_grown);
	look_at_it();
	until(is_hung_or_grown);
	assert_true(atomic_load(&store->grows) > grows);
}

static bool run_life(unsigned n)
{
	open_store();
	settle();
	hung = false;
	disk.hang = msyncs() + n;
	(void)make();
	through_sync();
	write_bytes(make(), 0, 1 << 20);
	through_sync();
	through_checkpoint();
	through_growth();
	(void)make();
	through_sync();
	through_checkpoint();
	go_on();
	close_store();
	return hung;
}

static void test_sync__all_goes_on_while_an_msync_hangs(void **state)
{
	unsigned n = 1;

	(void)state;
	while (run_life(n))
		n++;
	/* The fsyncs, the extents, the pieces of two checkpoints and their superblocks, the growth. */
	assert_true(n > 10);
}

static bool somebody_waits(void)
{
	bool waits;

	(void)__real_pthread_mutex_lock(&store->map.turn_lock);
	waits = store->map.turn_next - store->map.turn_now >= 2;
	(void)__real_pthread_mutex_unlock(&store->map.turn_lock);
	return waits;
}

static bool is_roomy(void)
{
	return atomic_load(&store->grow_wanted) == 0 && is_checkpointed();
}

/* `mib` MiB, waiting for room. */
static void fill(uint64_t ino, unsigned mib)
{
	static uint8_t data[1 << 20];
	unsigned i;
	size_t n;
	int r;

	for (i = 0; i < mib; i++) {
		while ((r = keys_write(keys, ino, (uint64_t)i << 20, data, sizeof data, 0, &n)) == -EAGAIN)
			until(is_roomy);
		assert_int_equal(r, 0);
		assert_int_equal(n, sizeof data);
	}
}

/* An fsync waits for no more than one piece of a checkpoint. */
static void test_sync__an_fsync_is_next(void **state)
{
	unsigned before;
	uint64_t ino;

	(void)state;
	open_store();
	ino = make();
	fill(ino, 60);
	settle();
	fill(ino, 30);
	ask_sync();
	until(is_durable);
	until(is_roomy);
	before = msyncs();
	disk.hang = before + 1;
	assert_int_equal(store_checkpoint(store), 0);
	until(is_hanging);
	assert_true(is_by(before, CHECKPOINTER));
	(void)make();
	ask_sync();
	while (!somebody_waits())
		(void)usleep(1000);
	go_on();
	until(is_durable);
	assert_true(is_by(before + 1, SYNCER));
	assert_true(in_journal(before + 1));
	until(is_checkpointed);
	/* The checkpoint had more to do. */
	assert_true(msyncs() > before + 5);
	close_store();
}

static int set_up(void **state)
{
	(void)state;
	if (scratch_make("sync") < 0)
		return -1;
	scratch_path(path, "store");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sync__an_fsync_is_one_msync_of_the_journals_tail),
		cmocka_unit_test(test_sync__who_waits_makes_the_msync),
		cmocka_unit_test(test_sync__the_journals_blocks_were_written_before),
		cmocka_unit_test(test_sync__and_one_of_the_extents),
		cmocka_unit_test(test_sync__bulk_is_written_while_more_comes),
		cmocka_unit_test(test_sync__sixteen_share_one),
		cmocka_unit_test(test_sync__who_waits_shares_one),
		cmocka_unit_test(test_sync__an_error_is_everybodys),
		cmocka_unit_test(test_sync__all_goes_on_while_an_msync_hangs),
		cmocka_unit_test(test_sync__an_fsync_is_next),
	};

	return cmocka_run_group_tests_name("sync", tests, set_up, scratch_teardown);
}
