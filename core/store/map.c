/* SPDX-License-Identifier: MIT
 *
 * map: see map.h. The mapping is made of adjacent MAP_FIXED pieces of one file; the kernel merges them into one area,
 * so hundreds of growth steps leave one entry in /proc/PID/maps and no descriptor behind.
 */
#include "core/store/map.h"

#include <setjmp.h>
#include <sys/mman.h>

/* Address space asked for: 16 TiB, or half of what a small machine has. */
#define RESERVE_MAX ((uint64_t)SIZE_MAX < 32ull << 40 ? (uint64_t)SIZE_MAX / 2 + 1 : 16ull << 40)
#define RESERVE_MIN (64ull << 20)
#define RESERVE_BESIDE ((size_t)64 << 20) /* that is to be free besides, for three threads and all else */
#define SYNC_PIECE  1024u               /* blocks synced at once: 4 MiB */
#define WRITE_PIECE 8u                  /* blocks written at once; see map_write() */
#define ASK_AHEAD   4u                  /* pieces asked for at once when the one before was asked for: somebody reads on */
#define MAPS_MAX    64u                 /* that a fault is looked up in */

struct guard {
	sigjmp_buf env;
	struct guard *outer;
};

/* A signal handler reads these: no locks, no memory that could be on its way elsewhere. */
static _Atomic(struct map *) maps[MAPS_MAX];
static _Thread_local struct guard *volatile guard;

/* With more than MAPS_MAX of them (tests), a fault in the last ones is as deadly as without a handler. */
static void register_map(struct map *m)
{
	unsigned i;

	for (i = 0; i < MAPS_MAX; i++) {
		struct map *none = NULL;

		if (atomic_compare_exchange_strong(&maps[i], &none, m))
			return;
	}
}

static void unregister_map(struct map *m)
{
	unsigned i;

	for (i = 0; i < MAPS_MAX; i++) {
		struct map *same = m;

		(void)atomic_compare_exchange_strong(&maps[i], &same, NULL);
	}
}

static uint8_t *reserve(size_t *len, uint64_t bytes)
{
	/* A limit on address space (ulimit -v, valgrind) can refuse the large range: ask for less until it fits, and something
	 * is left for stacks and memory, while the store fits too. */
	for (; *len >= RESERVE_MIN; *len /= 2) {
		size_t beside = *len / 2 >= max_u64(bytes, RESERVE_MIN) ? RESERVE_BESIDE : 0;
		uint8_t *p = mmap(NULL, *len + beside, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (p == MAP_FAILED)
			continue;
		if (beside > 0)
			(void)munmap(p + *len, beside);
		return p;
	}
	return NULL;
}

static size_t asked_bytes(size_t reserved)
{
	return align_up((reserved >> (BLOCK_SHIFT + MAP_PIECE_SHIFT)) / 8 + sizeof(uint64_t), BLOCK_SIZE);
}

/* Only what is touched takes memory: a page for 8 GiB of store. */
static _Atomic uint64_t *new_asked(size_t reserved)
{
	void *p = mmap(NULL, asked_bytes(reserved), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int map_open(struct map *m, int fd, bool private_copy, uint64_t max_bytes, const struct sys_ops *sys)
{
	size_t len = (size_t)RESERVE_MAX;
	uint64_t bytes;
	uint8_t *base;
	int r;

	r = sys->size(sys->ctx, fd, &bytes);
	if (r < 0)
		return err_set(-r, "cannot stat the store: %s", strerror(-r));
	bytes &= ~(uint64_t)(BLOCK_SIZE - 1);
	if (max_bytes > 0) {
		uint64_t want = align_up(max_u64(max_u64(max_bytes, bytes), RESERVE_MIN), 1u << 21);

		len = (size_t)min_u64(want, RESERVE_MAX);
	}
	base = reserve(&len, bytes);
	if (!base || bytes > len) {
		if (base)
			(void)munmap(base, len);
		if (bytes > RESERVE_MAX)
			return err_set(EFBIG, "a store of %llu bytes cannot be mapped by this program, which has room for "
				       "%llu; use a 64-bit build", (unsigned long long)bytes,
				       (unsigned long long)RESERVE_MAX);
		return err_set(ENOMEM, "no address space for a store, %llu bytes in one piece; raise ulimit -v, or set it to unlimited",
			       (unsigned long long)max_u64(bytes, RESERVE_MIN));
	}
	if (bytes > 0) {
		r = sys->map(sys->ctx, base, (size_t)bytes, fd, 0, private_copy);
		if (r < 0) {
			(void)munmap(base, len);
			return err_set(-r, "cannot map the store: %s", strerror(-r));
		}
	}
	m->base = base;
	m->reserved = len;
	m->asked = new_asked(len);
	m->fd = fd;
	m->private_copy = private_copy;
	m->sys = sys;
	atomic_init(&m->blocks, bytes >> BLOCK_SHIFT);
	atomic_init(&m->failed, 0);
	atomic_init(&m->lost, 0);
	atomic_init(&m->cuts, 0);
	m->turn_next = m->turn_now = 0;
	(void)pthread_mutex_init(&m->turn_lock, NULL);
	(void)pthread_cond_init(&m->turn_over, NULL);
	register_map(m);
	return 0;
}

void map_close(struct map *m)
{
	if (!m->base)
		return;
	unregister_map(m);
	(void)munmap(m->base, m->reserved);
	if (m->asked)
		(void)munmap((void *)(uintptr_t)m->asked, asked_bytes(m->reserved));
	(void)pthread_mutex_destroy(&m->turn_lock);
	(void)pthread_cond_destroy(&m->turn_over);
	m->base = NULL;
}

/* Lost first: whoever sees that it failed sees why. */
static void mark_lost(struct map *m, uint64_t byte)
{
	uint64_t none = 0;
	int well = 0;

	(void)atomic_compare_exchange_strong(&m->lost, &none, byte + 1);
	(void)atomic_compare_exchange_strong(&m->failed, &well, -EIO);
}

void map_fault(const void *addr, const sigset_t *mask)
{
	unsigned i;

	for (i = 0; i < MAPS_MAX; i++) {
		struct map *m = atomic_load(&maps[i]);
		uintptr_t off = m ? (uintptr_t)addr - (uintptr_t)m->base : 0;

		if (!m || off >= m->reserved)
			continue;
		mark_lost(m, off);
		if (!guard)
			continue;
		/* With the handler's mask this thread would die of the next fault, or never hear of a signal again. */
		if (mask)
			(void)pthread_sigmask(SIG_SETMASK, mask, NULL);
		siglongjmp(guard->env, 1);
	}
}

int map_guard(int (*fn)(void *arg), void *arg)
{
	struct guard g = { .outer = guard };
	int r;

	/* map_fault() puts the signal mask right: there is none to save, which would be a system call. */
	if (sigsetjmp(g.env, 0) == 0) {
		guard = &g;
		r = fn(arg);
	} else {
		r = err_set(EIO, "a part of the store cannot be read: its file was cut short by somebody else, or the "
			    "disk failed");
	}
	guard = g.outer;
	return r;
}

/* The file grows before its growth is published, so at any time it has what is published, unless it is being cut. If that
 * is by us, there is no verdict: whoever does it does not cut what is in use. */
int map_check_size(struct map *m)
{
	unsigned cuts = atomic_load(&m->cuts);
	uint64_t blocks = map_blocks(m), size;
	int r;

	if (m->private_copy)
		return 0;
	r = m->sys->size(m->sys->ctx, m->fd, &size);
	if (r < 0) {
		int well = 0;

		(void)atomic_compare_exchange_strong(&m->failed, &well, r);
	} else if (size >> BLOCK_SHIFT < blocks && cuts % 2 == 0 && atomic_load(&m->cuts) == cuts) {
		mark_lost(m, size);
	}
	return map_failed(m);
}

/* A mutex held over the msync would not do: who lets it go and takes it again for the next piece has it before any who waits
 * is awake, and an fsync would wait for a whole checkpoint. */
static void await_turn(struct map *m)
{
	uint64_t mine;

	(void)pthread_mutex_lock(&m->turn_lock);
	mine = m->turn_next++;
	while (m->turn_now != mine)
		(void)pthread_cond_wait(&m->turn_over, &m->turn_lock);
	(void)pthread_mutex_unlock(&m->turn_lock);
}

static void end_turn(struct map *m)
{
	(void)pthread_mutex_lock(&m->turn_lock);
	m->turn_now++;
	(void)pthread_cond_broadcast(&m->turn_over);
	(void)pthread_mutex_unlock(&m->turn_lock);
}

/* One msync; the first error is final. That of a file which somebody has cut short succeeds, although what was behind its
 * end is gone. */
static int sync_piece(struct map *m, block_t first, uint64_t count)
{
	int r;

	await_turn(m);
	r = map_failed(m);
	if (r == 0) {
		atomic_fetch_add_explicit(&m->sync_turns, 1, memory_order_relaxed);
		r = m->sys->sync(m->sys->ctx, map_place(m, first), count << BLOCK_SHIFT);
		atomic_fetch_add_explicit(&m->sync_turns, 1, memory_order_relaxed);
		if (r < 0)
			atomic_store_explicit(&m->failed, r, memory_order_release);
		else
			r = map_check_size(m);
	}
	end_turn(m);
	return r;
}

static bool was_asked(const struct map *m, uint64_t piece)
{
	return atomic_load_explicit(&m->asked[piece / 64], memory_order_relaxed) >> piece % 64 & 1;
}

void map_ask(const struct map *m, block_t b)
{
	uint64_t piece = b >> MAP_PIECE_SHIFT, end = (map_blocks(m) + (1u << MAP_PIECE_SHIFT) - 1) >> MAP_PIECE_SHIFT, n = 0;
	uint64_t most = piece > 0 && was_asked(m, piece - 1) ? ASK_AHEAD : 1;
	block_t first = piece << MAP_PIECE_SHIFT, last;

	while (n < most && piece + n < end && !was_asked(m, piece + n))
		n++;
	last = min_u64((piece + n) << MAP_PIECE_SHIFT, map_blocks(m));
	if (n > 0)
		(void)m->sys->ahead(m->sys->ctx, map_place(m, first), (last - first) << BLOCK_SHIFT);
	/* Behind the call: whoever sees it said touches the pages, and must not be the one who makes them. Two that ask are two
	 * calls, no more. */
	for (; n > 0; n--)
		atomic_fetch_or_explicit(&m->asked[(piece + n - 1) / 64], (uint64_t)1 << (piece + n - 1) % 64, memory_order_release);
}

/* What comes there when the file grows again are other pages. */
static void forget_asked(struct map *m, block_t from, block_t to)
{
	uint64_t piece = (from + (1u << MAP_PIECE_SHIFT) - 1) >> MAP_PIECE_SHIFT;

	for (; m->asked && piece <= to >> MAP_PIECE_SHIFT; piece++)
		atomic_fetch_and_explicit(&m->asked[piece / 64], ~((uint64_t)1 << piece % 64), memory_order_relaxed);
}

int map_grow(struct map *m, uint64_t blocks)
{
	uint64_t old = map_blocks(m) << BLOCK_SHIFT;
	uint64_t add = blocks << BLOCK_SHIFT;
	int r;

	if (add > m->reserved - old)
		return -EFBIG;
	if (m->private_copy) {
		/* A reader's private copy: pages that exist in memory only. */
		void *p = mmap(m->base + old, add, PROT_READ | PROT_WRITE,
			       MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (p == MAP_FAILED)
			return -errno;
		atomic_store_explicit(&m->blocks, (old + add) >> BLOCK_SHIFT, memory_order_release);
		return 0;
	}
	r = m->sys->allocate(m->sys->ctx, m->fd, old, add);
	if (r < 0)
		return r;
	r = m->sys->map(m->sys->ctx, m->base + old, add, m->fd, old, 0);
	if (r < 0)
		return r;
	/* O3: the new size and blocks are durable before anybody may put something there. A crash before leaves a
	 * file of the old or the new size, with nothing in the new part; after, the new size. The msync of one page that
	 * nobody touched makes the file system commit just that; an fdatasync would wait for all dirty contents too. */
	r = sync_piece(m, old >> BLOCK_SHIFT, 1);
	if (r < 0)
		return r;
	atomic_store_explicit(&m->blocks, (old + add) >> BLOCK_SHIFT, memory_order_release);
	return 0;
}

int map_shrink(struct map *m, uint64_t blocks)
{
	uint64_t old = map_blocks(m) << BLOCK_SHIFT;
	uint64_t size = blocks << BLOCK_SHIFT;
	int r;

	if (size >= old)
		return 0;
	r = m->sys->unmap(m->sys->ctx, m->base + size, old - size);
	if (r < 0)
		return r;
	atomic_fetch_add(&m->cuts, 1);
	atomic_store_explicit(&m->blocks, blocks, memory_order_release);
	forget_asked(m, blocks, old >> BLOCK_SHIFT);
	if (!m->private_copy)
		r = m->sys->truncate(m->sys->ctx, m->fd, size);
	atomic_fetch_add(&m->cuts, 1);
	return r;
}

int map_sync(struct map *m, block_t first, uint64_t count)
{
	uint64_t blocks = map_blocks(m);
	int r = 0;

	/* Contents that waited for a sync, were removed, and lay behind where the file was cut since: nothing is there. */
	if (m->private_copy || first >= blocks)
		return 0;
	count = min_u64(count, blocks - first);
	while (count > 0 && r == 0) {
		uint64_t n = min_u64(count, SYNC_PIECE);

		r = sync_piece(m, first, n);
		first += n;
		count -= n;
	}
	return r;
}

void map_populate(struct map *m, block_t first, uint64_t count)
{
	block_t b, end = first + count;

	if (m->private_copy || count == 0)
		return;
	for (b = first; b < end; b = ((b >> MAP_PIECE_SHIFT) + 1) << MAP_PIECE_SHIFT)
		(void)map_block(m, b);
	(void)m->sys->populate(m->sys->ctx, map_place(m, first), count << BLOCK_SHIFT);
}

/* The kernel makes folios as large as a write, and writes a dirty one back whole. Such a block may be a tree page one day, so
 * the pieces are small (256 MiB of fresh pages, in CPU time: by 1 MiB 30 to 50 ms, by 32 KiB 70, by single pages 190; through
 * the mapping, faulted in ahead, 200, and 30 more to sync them).
 * A write would make a file longer that somebody has cut short, and with holes in it; so its size is looked at first, and again
 * behind it: a cut in between leaves a file that is too short still, or blocks at its end that read as zeros, which no checksum
 * fits. */
int map_write(struct map *m, block_t first, uint64_t count, const void *bytes)
{
	const uint8_t *from = bytes;
	block_t b = first, end = first + count;
	int r;

	if (m->private_copy || !m->sys->write) {
		memcpy(map_block(m, first), bytes, count << BLOCK_SHIFT);
		return 0;
	}
	r = map_check_size(m);
	while (r == 0 && b < end) {
		uint64_t n = min_u64(end - b, WRITE_PIECE - b % WRITE_PIECE);

		r = m->sys->write(m->sys->ctx, m->fd, from, n << BLOCK_SHIFT, b << BLOCK_SHIFT);
		from += n << BLOCK_SHIFT;
		b += n;
	}
	return r == 0 ? map_check_size(m) : r;
}

void map_write_back(struct map *m, block_t first, uint64_t count)
{
	if (!m->private_copy && m->sys->write_back)
		(void)m->sys->write_back(m->sys->ctx, m->fd, first << BLOCK_SHIFT, count << BLOCK_SHIFT);
}
