/* SPDX-License-Identifier: MIT
 *
 * crash: the power-cut machine. A store works on a file whose every page is write-protected between calls, so that the
 * machine knows which pages changed, and whose msyncs it sees. It keeps what is on disk for sure (all that was synced), and
 * for each page changed since the values it had. From these it builds what a power cut could leave: what is on disk plus
 * any choice of newer 512-byte sectors, each with any value it had, or a mix of old and new words. Each such image is
 * opened, and must show exactly one state of the model, not older than what was reported durable; so must the images of a
 * power cut while the first one is recovered. A kill is the same with everything that was stored, and loses nothing.
 *
 * Calls also happen while a msync of a checkpoint or of store_sync() is under way, as they do beside the helper threads.
 *
 *   SEED=n CASES=n   n cases of each kind from this seed on; what a failure prints replays it: SEED=n CASES=1 KIND=n
 */
#include "tests/unit/crash_util.h"

#include "core/check/check.h"
#include "core/store/store_int.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define FILE_MAX    (48u << 20)
#define FILE_PAGES  (FILE_MAX / BLOCK_SIZE)
#define SECTOR      512u
#define VALUES      4u                  /* older values kept of a page */
#define PENDING_MAX 12u
#define SIZES_MAX   8u

struct page {
	bool touched, dirty;
	uint8_t count;
	uint8_t *old[VALUES];           /* what it held since it was last synced; the last of them is what it holds now */
};

/* A file as the pages in which it differs from what the live machine has on disk. */
struct patches {
	uint64_t size;                  /* of the file */
	unsigned count, room;
	uint32_t *page;
	uint8_t *bytes;
};

/* A store file and what of it is on disk. The live one is a file, its disk another. Those that are opened again exist only
 * as a private mapping of the live one's disk, with patches: making one costs no more than what differs. */
struct machine {
	int fd, disk_fd;
	char path[40];
	bool is_live;
	bool watched;                   /* live: writes to it are seen */
	bool keeps;                     /* not live: what is synced stays, it is opened once more */
	uint64_t size, limit;
	uint8_t *engine;                /* where the store has it mapped */
	uint64_t mapped;
	uint8_t *file;                  /* live: what the page cache has */
	uint8_t *disk;                  /* live: what is on disk for sure */
	uint64_t disk_size, sizes[SIZES_MAX];
	unsigned size_count;
	struct patches base;            /* not live: what is on disk */
	const struct patches *cache;    /* not live: what the page cache has beyond it, NULL = nothing */
	int32_t *patch_of;              /* not live: by page, -1 = none */
	uint64_t random;
	struct page *page;              /* live */
	uint32_t *touched, *dirty;
	unsigned touched_count, dirty_count;
};

enum how {
	HOW_NONE, HOW_ALL, HOW_RANDOM, HOW_FEW, HOW_MOST, HOW_ONE_PAGE, HOW_BUT_ONE_PAGE, HOW_SUPER, HOW_BUT_SUPER, HOW_JOURNAL,
	HOW_BUT_JOURNAL, HOW_FRONT, HOW_BACK, HOW_OLD, HOW_WORDS, HOW_ONE_SECTOR, HOW_COUNT, HOW_KILL,
};
static const char *const how_names[] = {
	"nothing", "all", "random half", "few sectors", "most sectors", "one page", "all but one page", "only superblocks",
	"all but superblocks", "only journal", "all but journal", "the front", "the back", "older values", "mixed words",
	"one sector", "", "kill",
};

struct image {
	struct patches p;
	enum how how;
	unsigned from;                  /* oldest state allowed */
	bool unsynced;                  /* a kill: the page cache has it, but on disk is what the live disk has */
	unsigned durable;               /* then the oldest state that a power cut may still lead back to */
	const char *where;
	uint64_t op;
};

static struct machine live, again[2];
static struct work work;
static struct store *store;             /* of the live machine, NULL while it opens */
static uint64_t rng, seed;
static int kind;
static unsigned open_from;              /* oldest state allowed while it opens */
static struct image pending[PENDING_MAX];
static unsigned pending_count;
static bool helper_runs;
static int capture_in;                  /* take a kill image at this page fault of the call */
static unsigned call_from;
static unsigned images, recut_images, checked, kills, kills_cut, cuts_in_sync, reopened, adopted, calls_in_sync;
static bool in_call;
static uint64_t blocks_full;

static uint64_t below(uint64_t n)
{
	uint64_t x;

	rng += 0x9e3779b97f4a7c15ull;
	x = rng;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	x ^= x >> 31;
	return n ? x % n : x;
}

_Noreturn static void broken(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn static void broken(const char *format, ...)
{
	const char *keep = getenv("KEEP");
	char text[2048];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	fprintf(stderr, "SEED=%llu CASES=1 KIND=%d: at call %llu (%s): %s\n", (unsigned long long)seed, kind,
		(unsigned long long)work.ops, work.text, text);
	if (keep && *keep)
		fprintf(stderr, "image kept in %s\n", keep);
	fflush(NULL);
	abort();
}

/* Files as patches --------------------------------------------------------------------------------------------------- */

static const uint8_t zeros[BLOCK_SIZE];

static uint8_t *patch_add(struct patches *p, uint32_t page, const void *bytes)
{
	if (p->count == p->room) {
		p->room = p->room ? p->room * 2 : 16;
		p->page = realloc(p->page, p->room * sizeof *p->page);
		p->bytes = realloc(p->bytes, (size_t)p->room * BLOCK_SIZE);
		check(p->page && p->bytes);
	}
	p->page[p->count] = page;
	return memcpy(p->bytes + (size_t)p->count++ * BLOCK_SIZE, bytes, BLOCK_SIZE);
}

static void patches_copy(struct patches *to, const struct patches *from)
{
	unsigned i;

	to->size = from->size;
	to->count = 0;
	for (i = 0; i < from->count; i++)
		(void)patch_add(to, from->page[i], from->bytes + (size_t)i * BLOCK_SIZE);
}

static void patches_release(struct patches *p)
{
	free(p->page);
	free(p->bytes);
	memset(p, 0, sizeof *p);
}

/* Page n as the disk has it for sure. */
static const uint8_t *on_disk(const struct machine *m, uint32_t n)
{
	if (!m->is_live && m->patch_of[n] >= 0)
		return m->base.bytes + (size_t)m->patch_of[n] * BLOCK_SIZE;
	return ((uint64_t)n + 1) * BLOCK_SIZE <= live.disk_size ? live.disk + (uint64_t)n * BLOCK_SIZE : zeros;
}

static const uint8_t *in_cache(const struct machine *m, uint32_t n)
{
	return (m->is_live ? m->file : m->engine) + (uint64_t)n * BLOCK_SIZE;
}

/* The whole file, as bytes. */
static void flatten(const struct patches *p, uint8_t *bytes)
{
	unsigned i;

	memset(bytes, 0, p->size);
	memcpy(bytes, live.disk, min_u64(p->size, live.disk_size));
	for (i = 0; i < p->count; i++)
		memcpy(bytes + (uint64_t)p->page[i] * BLOCK_SIZE, p->bytes + (size_t)i * BLOCK_SIZE, BLOCK_SIZE);
}

static uint8_t *big_buffer(void)
{
	void *p = mmap(NULL, FILE_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	check(p != MAP_FAILED);
	return p;
}

static void keep_image(const struct patches *p)
{
	const char *keep = getenv("KEEP");
	int fd = keep && *keep ? open(keep, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
	uint8_t *bytes;

	if (fd < 0)
		return;
	bytes = big_buffer();
	flatten(p, bytes);
	(void)!write(fd, bytes, p->size);
	(void)close(fd);
}

/* The machine as a system ------------------------------------------------------------------------------------------- */

static void note_size(struct machine *m)
{
	if (m->size_count < SIZES_MAX)
		m->sizes[m->size_count++] = m->size;
	else
		m->sizes[below(SIZES_MAX)] = m->size;
}

static int set_size(struct machine *m, uint64_t size)
{
	if (ftruncate(m->fd, (off_t)size) < 0)
		return -errno;
	m->size = size;
	note_size(m);
	return 0;
}

static int m_allocate(void *ctx, int fd, uint64_t off, uint64_t len)
{
	struct machine *m = ctx;

	check(fd >= 0);
	if (off + len > m->limit)
		return -ENOSPC;
	return off + len > m->size ? set_size(m, off + len) : 0;
}

static int m_truncate(void *ctx, int fd, uint64_t size)
{
	struct machine *m = ctx;
	uint64_t p;

	check(fd >= 0);
	for (p = size / BLOCK_SIZE; m->is_live && p < FILE_PAGES; p++)
		m->page[p].touched = false;
	return set_size(m, size);
}

static int map_at(uint8_t *addr, size_t len, int prot, int flags, int fd, uint64_t off)
{
	return mmap(addr, len, prot, MAP_FIXED | flags, fd, (off_t)off) == MAP_FAILED ? -errno : 0;
}

static void put_patches(const struct patches *p, uint8_t *addr, size_t len, uint64_t off)
{
	unsigned i;

	for (i = 0; i < p->count; i++) {
		uint64_t at = (uint64_t)p->page[i] * BLOCK_SIZE;

		if (at >= off && at < off + len)
			memcpy(addr + (at - off), p->bytes + (size_t)i * BLOCK_SIZE, BLOCK_SIZE);
	}
}

/* A private mapping of the live machine's disk, and over it what differs. */
static int map_patched(struct machine *m, uint8_t *addr, size_t len, uint64_t off)
{
	int r = map_at(addr, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, live.disk_fd, off);

	if (r < 0)
		return r;
	/* Behind the end of this file there is nothing, whatever the live one has. */
	if (off + len > m->disk_size && max_u64(off, m->disk_size) < live.disk_size) {
		uint64_t from = max_u64(off, m->disk_size);

		memset(addr + (from - off), 0, min_u64(off + len, live.disk_size) - from);
	}
	put_patches(&m->base, addr, len, off);
	if (m->cache)
		put_patches(m->cache, addr, len, off);
	return 0;
}

static int m_map(void *ctx, void *addr, size_t len, int fd, uint64_t off, int private_copy)
{
	struct machine *m = ctx;

	m->engine = (uint8_t *)addr - off;
	m->mapped = off + len;
	if (!m->is_live)
		return map_patched(m, addr, len, off);
	return map_at(addr, len, PROT_READ | (m->watched && !private_copy ? 0 : PROT_WRITE),
		      private_copy ? MAP_PRIVATE : MAP_SHARED, fd, off);
}

static int m_unmap(void *ctx, void *addr, size_t len)
{
	struct machine *m = ctx;

	m->mapped = (uint64_t)((uint8_t *)addr - m->engine);
	return map_at(addr, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static int m_populate(void *ctx, void *addr, size_t len)
{
	(void)ctx;
	(void)addr;
	(void)len;
	return 0;
}

static uint64_t m_real(void *ctx)
{
	(void)ctx;
	return work.real_ns;
}

static uint64_t m_mono(void *ctx)
{
	(void)ctx;
	return work.mono_ns;
}

static int m_random(void *ctx, void *buf, size_t len)
{
	struct machine *m = ctx;
	uint8_t *p = buf;

	for (; len > 0; len--)
		*p++ = (uint8_t)((m->random = m->random * 6364136223846793005ull + 1442695040888963407ull) >> 56);
	return 0;
}

static int m_sync(void *ctx, void *addr, size_t len);

static struct sys_ops m_sys(struct machine *m)
{
	return (struct sys_ops){ m_allocate, m_truncate, m_map, m_unmap, m_sync, m_populate, m_real, m_mono, m_random, m };
}

static int new_file(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	check(fd >= 0);
	return fd;
}

static void *map_file(int fd)
{
	void *p = mmap(NULL, FILE_MAX, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	check(p != MAP_FAILED);
	return p;
}

static void machine_init(struct machine *m, bool is_live)
{
	m->fd = new_file("crash");
	(void)snprintf(m->path, sizeof m->path, "/proc/self/fd/%d", m->fd);
	m->is_live = is_live;
	m->dirty = calloc(FILE_PAGES, sizeof *m->dirty);
	check(m->dirty);
	m->limit = FILE_MAX;
	m->disk_fd = -1;
	if (!is_live) {
		m->patch_of = malloc(FILE_PAGES * sizeof *m->patch_of);
		check(m->patch_of);
		memset(m->patch_of, 0xff, FILE_PAGES * sizeof *m->patch_of);
		return;
	}
	m->disk_fd = new_file("disk");
	check(ftruncate(m->disk_fd, FILE_MAX) == 0);
	m->disk = map_file(m->disk_fd);
	m->file = map_file(m->fd);
	m->page = calloc(FILE_PAGES, sizeof *m->page);
	m->touched = calloc(FILE_PAGES, sizeof *m->touched);
	check(m->page && m->touched);
}

static void forget_page(struct page *p)
{
	while (p->count > 0)
		free(p->old[--p->count]);
	p->dirty = false;
}

static void forget_changes(struct machine *m)
{
	unsigned i;

	for (i = 0; i < m->dirty_count; i++)
		forget_page(&m->page[m->dirty[i]]);
	for (i = 0; i < m->touched_count; i++)
		m->page[m->touched[i]].touched = false;
	m->dirty_count = m->touched_count = m->size_count = 0;
}

static void machine_release(struct machine *m)
{
	if (m->is_live) {
		forget_changes(m);
		(void)munmap(m->file, FILE_MAX);
		(void)munmap(m->disk, FILE_MAX);
		(void)close(m->disk_fd);
	}
	(void)close(m->fd);
	patches_release(&m->base);
	free(m->patch_of);
	free(m->page);
	free(m->touched);
	free(m->dirty);
	memset(m, 0, sizeof *m);
}

static void set_base(struct machine *m, const struct image *im)
{
	const struct patches nothing = { .size = live.disk_size }, *p = im->unsynced ? &nothing : &im->p;
	unsigned i;

	for (i = 0; i < m->base.count; i++)
		m->patch_of[m->base.page[i]] = -1;
	patches_copy(&m->base, p);
	for (i = 0; i < p->count; i++)
		m->patch_of[p->page[i]] = (int32_t)i;
	m->engine = NULL;
	m->mapped = 0;
	check(ftruncate(m->fd, (off_t)im->p.size) == 0);
	m->cache = im->unsynced ? &im->p : NULL;
	m->size = im->p.size;
	m->disk_size = p->size;
	m->size_count = 0;
	if (m->size != m->disk_size)
		note_size(m);
}

/* The live file becomes this one, and all of it is on disk. */
static void live_load(const struct patches *p)
{
	static uint8_t *bytes;

	if (!bytes)
		bytes = big_buffer();
	flatten(p, bytes);
	forget_changes(&live);
	memcpy(live.disk, bytes, p->size);
	memset(live.disk + p->size, 0, FILE_MAX - p->size);
	check(ftruncate(live.fd, (off_t)p->size) == 0);
	memcpy(live.file, bytes, p->size);
	live.size = live.disk_size = p->size;
	live.engine = NULL;
	live.mapped = 0;
}

/* Watching changes -------------------------------------------------------------------------------------------------- */

static uint64_t size_whole(uint64_t size)
{
	return size & ~(uint64_t)(BLOCK_SIZE - 1);
}

/* Note what pages hold that were touched; nothing else has changed. */
static void observe(struct machine *m)
{
	unsigned i;

	for (i = 0; i < m->touched_count; i++) {
		uint32_t n = m->touched[i];
		struct page *p = &m->page[n];
		unsigned slot = p->count;

		if (((uint64_t)n + 1) * BLOCK_SIZE > m->size)
			continue;
		if (memcmp(p->count > 0 ? p->old[p->count - 1] : on_disk(m, n), in_cache(m, n), BLOCK_SIZE) == 0)
			continue;
		if (!p->dirty) {
			p->dirty = true;
			m->dirty[m->dirty_count++] = n;
		}
		if (slot == VALUES) {
			uint8_t *recycled;

			slot = (unsigned)below(VALUES);
			recycled = p->old[slot];
			memmove(p->old + slot, p->old + slot + 1, (VALUES - slot - 1) * sizeof *p->old);
			p->old[slot = VALUES - 1] = recycled;
		} else {
			p->old[p->count++] = malloc(BLOCK_SIZE);
			check(p->old[slot]);
		}
		memcpy(p->old[slot], in_cache(m, n), BLOCK_SIZE);
	}
}

static void protect(struct machine *m)
{
	unsigned i;

	observe(m);
	for (i = 0; i < m->touched_count; i++)
		m->page[m->touched[i]].touched = false;
	m->touched_count = 0;
	if (m->engine && m->watched)
		check(mprotect(m->engine, m->mapped, PROT_READ) == 0);
}

static void add_image(enum how how, unsigned from, const char *where);
static void try_image(const struct image *im, unsigned depth);

/* The store writes to a page for the first time since protect(). */
static void on_fault(int sig, siginfo_t *info, void *ctx)
{
	struct machine *m = &live;
	uint8_t *at = info->si_addr;
	uint32_t n;

	(void)ctx;
	if (!m->watched || !m->engine || at < m->engine || at >= m->engine + m->mapped || m->page[(at - m->engine) / BLOCK_SIZE].touched) {
		/* Not ours: happens again, and ends us. */
		fprintf(stderr, "SEED=%llu CASES=1 KIND=%d: at call %llu (%s): signal %d at %p\n", (unsigned long long)seed, kind,
			(unsigned long long)work.ops, work.text, sig, (void *)at);
		(void)signal(sig, SIG_DFL);
		return;
	}
	n = (uint32_t)((at - m->engine) / BLOCK_SIZE);
	if (--capture_in == 0)
		add_image(HOW_KILL, call_from, "within a call");
	else if (capture_in == 3)
		add_image((enum how)below(HOW_COUNT), UINT32_MAX, "within a call");
	m->page[n].touched = true;
	m->touched[m->touched_count++] = n;
	(void)mprotect(m->engine + (uint64_t)n * BLOCK_SIZE, BLOCK_SIZE, PROT_READ | PROT_WRITE);
}

/* Images ------------------------------------------------------------------------------------------------------------ */

static bool is_journal(uint32_t page)
{
	unsigned i;

	if (!store)
		return false;
	for (i = 0; i < store->journal.count; i++)
		if (page >= store->journal.segs[i] && page < store->journal.segs[i] + journal_seg_blocks(&store->journal))
			return true;
	return false;
}

/* Does a sector of this page reach the disk, and which percentage of them? */
static unsigned page_share(enum how how, uint32_t page, uint32_t chosen)
{
	switch (how) {
	case HOW_NONE:
		return 0;
	case HOW_RANDOM: case HOW_WORDS:
		return 50;
	case HOW_FEW:
		return 6;
	case HOW_MOST:
		return 96;
	case HOW_ONE_PAGE:
		return page == chosen ? 100 : 0;
	case HOW_ONE_SECTOR:
		return page == chosen ? 20 : 0;
	case HOW_BUT_ONE_PAGE:
		return page == chosen ? 0 : 100;
	case HOW_SUPER:
		return page < 2 ? 100 : 0;
	case HOW_BUT_SUPER:
		return page < 2 ? 0 : 100;
	case HOW_JOURNAL:
		return is_journal(page) ? 100 : 0;
	case HOW_BUT_JOURNAL:
		return is_journal(page) ? 0 : 100;
	case HOW_FRONT:
		return page <= chosen ? 100 : 0;
	case HOW_BACK:
		return page >= chosen ? 100 : 0;
	default:
		return 100;
	}
}

/* Old and new words side by side: the disk was given a sector while it was being stored to. */
static void mix_words(uint8_t *to, const uint8_t *from)
{
	uint64_t pick = below(0);
	unsigned i;

	for (i = 0; i < SECTOR / 8; i++)
		if (pick >> i & 1)
			memcpy(to + i * 8, from + i * 8, 8);
}

static void put_page(const struct machine *m, uint32_t n, enum how how, uint32_t chosen, uint8_t *to)
{
	const struct page *p = m->is_live ? &m->page[n] : NULL;
	unsigned share = page_share(how, n, chosen), s;

	for (s = 0; s < BLOCK_SIZE; s += SECTOR) {
		const uint8_t *from = in_cache(m, n);

		if (below(100) >= share)
			continue;
		/* Any value that it had. */
		if (how != HOW_ALL && how != HOW_KILL && p && p->count > 0 && below(100) < (how == HOW_OLD ? 80 : 25))
			from = p->old[below(p->count)];
		if (how == HOW_WORDS && below(4) == 0)
			mix_words(to + s, from + s);
		else
			memcpy(to + s, from + s, SECTOR);
	}
}

/* What a power cut now could leave. */
static void build(struct machine *m, enum how how, struct patches *p)
{
	uint32_t chosen = m->dirty_count > 0 ? m->dirty[below(m->dirty_count)] : 0;
	uint8_t page[BLOCK_SIZE];
	unsigned i;

	p->count = 0;
	p->size = m->disk_size;
	if (how == HOW_KILL || how == HOW_ALL)
		p->size = m->size;
	else if (m->size_count > 0 && below(2))
		p->size = m->sizes[below(m->size_count)];
	p->size = size_whole(p->size);
	for (i = 0; i < m->dirty_count; i++) {
		uint32_t n = m->dirty[i];

		memcpy(page, on_disk(m, n), BLOCK_SIZE);
		if (((uint64_t)n + 1) * BLOCK_SIZE <= min_u64(p->size, m->size))
			put_page(m, n, how, chosen, page);
		if (memcmp(page, on_disk(&live, n), BLOCK_SIZE) != 0)
			(void)patch_add(p, n, page);
	}
	/* What this file has on disk and the live one has not. */
	for (i = 0; !m->is_live && i < m->base.count; i++) {
		uint32_t n = m->base.page[i];

		if (memcmp(on_disk(m, n), in_cache(m, n), BLOCK_SIZE) == 0)
			(void)patch_add(p, n, on_disk(m, n));
	}
}

/* Pages that are not watched: those that differ from what is on disk. */
static void find_dirty(struct machine *m)
{
	uint32_t n;

	m->dirty_count = 0;
	for (n = 0; n < m->mapped / BLOCK_SIZE; n++)
		if (memcmp(in_cache(m, n), on_disk(m, n), BLOCK_SIZE) != 0)
			m->dirty[m->dirty_count++] = n;
}

/* The oldest state that a power cut now may lead back to. */
static unsigned durable_state(void)
{
	return store ? work_state_of(&work, store_durable_seq(store)) : open_from;
}

/* Verified when the call that is being made has returned. */
static void add_image(enum how how, unsigned from, const char *where)
{
	struct image *im = &pending[pending_count];

	if (pending_count == PENDING_MAX)
		return;
	if (from == UINT32_MAX)
		from = durable_state();
	observe(&live);
	build(&live, how, &im->p);
	im->how = how;
	im->from = from;
	im->unsynced = false;
	im->where = where;
	im->op = work.ops;
	pending_count++;
}

/* The process dies here, and then, while the store is recovered from the page cache, power is cut. */
static void kill_and_cut(const char *where)
{
	static struct image im;

	im = (struct image){ .p = im.p, .how = HOW_KILL, .unsynced = true, .durable = durable_state(), .from = work_now(&work),
			     .where = where, .op = work.ops };
	observe(&live);
	build(&live, HOW_KILL, &im.p);
	kills_cut++;
	try_image(&im, 0);
}

/* The live disk is about to get other pages: images that wait keep those that they have from it. */
static void keep_pending(uint64_t off, uint64_t len)
{
	static uint8_t has[FILE_PAGES];
	unsigned i, j;
	uint32_t n;

	for (i = 0; i < pending_count; i++) {
		struct patches *p = &pending[i].p;
		unsigned count = p->count;

		for (j = 0; j < count; j++)
			has[p->page[j]] = 1;
		for (n = (uint32_t)(off / BLOCK_SIZE); n < (off + len) / BLOCK_SIZE; n++)
			if (!has[n] && ((uint64_t)n + 1) * BLOCK_SIZE <= p->size &&
			    memcmp(on_disk(&live, n), in_cache(&live, n), BLOCK_SIZE) != 0)
				(void)patch_add(p, n, on_disk(&live, n));
		for (j = 0; j < count; j++)
			has[p->page[j]] = 0;
	}
}

static void settle_live(uint64_t off, uint64_t len)
{
	struct machine *m = &live;
	unsigned i, left = 0;
	uint64_t n;

	keep_pending(off, len);
	memcpy(m->disk + off, m->file + off, len);
	if (m->size < m->disk_size)
		memset(m->disk + m->size, 0, m->disk_size - m->size);
	m->disk_size = m->size;
	m->size_count = 0;
	for (n = off / BLOCK_SIZE; n < (off + len) / BLOCK_SIZE; n++)
		forget_page(&m->page[n]);
	for (i = 0; i < m->dirty_count; i++)
		if (m->page[m->dirty[i]].dirty)
			m->dirty[left++] = m->dirty[i];
	m->dirty_count = left;
}

/* A part of a file that was opened again is on disk now. */
static void settle_again(struct machine *m, uint64_t off, uint64_t len)
{
	uint32_t n;

	for (n = (uint32_t)(off / BLOCK_SIZE); n < (off + len) / BLOCK_SIZE; n++) {
		if (memcmp(on_disk(m, n), in_cache(m, n), BLOCK_SIZE) == 0)
			continue;
		if (m->patch_of[n] >= 0) {
			memcpy(m->base.bytes + (size_t)m->patch_of[n] * BLOCK_SIZE, in_cache(m, n), BLOCK_SIZE);
		} else {
			m->patch_of[n] = (int32_t)m->base.count;
			(void)patch_add(&m->base, n, in_cache(m, n));
		}
	}
	m->disk_size = m->base.size = m->size;
	m->size_count = 0;
}

static void cut_recovery(struct machine *m, const struct image *of, const char *where)
{
	static struct patches p;
	struct image im = *of;
	unsigned n = (unsigned)below(3);

	im.where = where;
	if (im.unsynced) {
		im.unsynced = false;
		im.from = im.durable;
	}
	find_dirty(m);
	while (n-- > 0) {
		im.how = (enum how)below(HOW_COUNT);
		build(m, im.how, &p);
		im.p = p;
		recut_images++;
		try_image(&im, 1);
	}
}

static void step(void);

/* Beside the helpers the store goes on. Calls that would wait for a helper must not start its work here, within it: as if it
 * were busy. */
static void step_beside(void)
{
	bool refused = atomic_load(&store->grow_refused);
	int state = CKPT_IDLE;

	if (atomic_load(&store->ckpt_state) == CKPT_DONE)
		return;
	helper_runs = false;
	atomic_store(&store->grow_refused, true);
	atomic_store(&store->grow_refused_ns, work.mono_ns);
	(void)atomic_compare_exchange_strong(&store->ckpt_state, &state, CKPT_WRITING);
	step();
	calls_in_sync++;
	if (state == CKPT_IDLE)
		atomic_store(&store->ckpt_state, CKPT_IDLE);
	atomic_store(&store->grow_refused, refused);
	helper_runs = true;
}

static const struct image *recovering;  /* of again[0], if its recovery is cut too */

static int m_sync(void *ctx, void *addr, size_t len)
{
	struct machine *m = ctx;
	uint64_t off = (uint64_t)((uint8_t *)addr - m->engine);
	unsigned n;

	if (off % BLOCK_SIZE != 0 || len % BLOCK_SIZE != 0 || off + len > m->mapped)
		broken("msync of %zu bytes at %llu, %llu are mapped", len, (unsigned long long)off, (unsigned long long)m->mapped);
	if (!m->is_live) {
		const struct image *of = recovering;

		if (m == &again[0] && of) {
			recovering = NULL;
			cut_recovery(m, of, "before a msync of recovery");
			settle_again(m, off, len);
			cut_recovery(m, of, "behind a msync of recovery");
			recovering = of;
		} else if (m->keeps) {
			settle_again(m, off, len);
		}
		return 0;
	}
	if (!m->watched)
		return 0;
	protect(m);
	for (n = (unsigned)below(3); n > 0; n--, cuts_in_sync++)
		add_image((enum how)below(HOW_COUNT), UINT32_MAX, "before a msync");
	if (store && !in_call && (off < 2 * BLOCK_SIZE || below(6) == 0))
		kill_and_cut("before a msync");
	settle_live(off, len);
	if (helper_runs && store && below(3) == 0)
		step_beside();
	protect(m);
	for (n = (unsigned)below(3); n > 0; n--, cuts_in_sync++)
		add_image((enum how)below(HOW_COUNT), UINT32_MAX, "behind a msync");
	return 0;
}

/* Trying images ----------------------------------------------------------------------------------------------------- */

static char finding[512];

static void note_finding(void *ctx, const char *text)
{
	(void)ctx;
	if (finding[0] == '\0')
		(void)snprintf(finding, sizeof finding, "%s", text);
}

static void check_store(struct keys *k, const struct image *im)
{
	const struct check_options o = { .problem = note_finding };
	struct check_report report;
	int r;

	finding[0] = '\0';
	r = check_run(k, &o, &report);
	if (r < 0 || report.problems > 0) {
		keep_image(&im->p);
		broken("image of call %llu (%s, %s): check: %d, %llu problems: %s", (unsigned long long)im->op, im->where,
		     how_names[im->how], r, (unsigned long long)report.problems, finding);
	}
	checked++;
}

static int open_machine(struct machine *m, bool create, uint64_t max, struct keys **ret)
{
	const struct sys_ops sys = m_sys(m);
	const struct store_options o = { .path = m->path, .create = create, .max_bytes = max, .sys = &sys };

	m->engine = NULL;
	return keys_open(&o, ret);
}

_Noreturn static void bad_image(const struct image *im, unsigned depth, const char *what, const char *text)
{
	keep_image(&im->p);
	broken("%simage of call %llu (%s, %s): %s: %s", depth ? "second " : "", (unsigned long long)im->op, im->where,
	     how_names[im->how], what, text);
}

static void close_image(struct keys *k, const struct image *im, unsigned depth)
{
	int r = keys_close(k);

	if (r < 0)
		bad_image(im, depth, "close", strerror(-r));
}

/* Read-only it shows the same, and changes nothing. This one is a real file. */
static void try_read_only(const struct image *im, unsigned depth, int found)
{
	static uint8_t *bytes;
	char text[1024], path[40];
	struct store_options o = { .path = path, .read_only = true };
	int fd = new_file("read-only");
	uint8_t *file;
	struct keys *k;

	if (!bytes)
		bytes = big_buffer();
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	flatten(&im->p, bytes);
	file = map_file(fd);
	check(ftruncate(fd, (off_t)im->p.size) == 0);
	memcpy(file, bytes, im->p.size);
	if (keys_open(&o, &k) < 0)
		bad_image(im, depth, "opened read-only", err_last());
	if (work_compare(&work, k, im->from, text, sizeof text) != found)
		bad_image(im, depth, "read-only", text);
	close_image(k, im, depth);
	if (memcmp(file, bytes, im->p.size) != 0)
		bad_image(im, depth, "read-only", "the file was changed");
	(void)munmap(file, FILE_MAX);
	(void)close(fd);
}

/* Open the image: which state is it? */
static void try_image(const struct image *im, unsigned depth)
{
	struct machine *m = &again[depth];
	bool recut = depth == 0 && (im->unsynced || below(14) == 0);
	char text[1024];
	struct keys *k;
	int found;

	images++;
	kills += im->how == HOW_KILL;
	m->keeps = below(16) == 0;
	set_base(m, im);
	m->random = below(0);
	recovering = recut ? im : NULL;
	if (open_machine(m, false, 0, &k) < 0)
		bad_image(im, depth, "cannot be opened", err_last());
	recovering = NULL;
	found = work_compare(&work, k, im->from, text, sizeof text);
	if (found < 0)
		bad_image(im, depth, "not a state", text);
	if (im->unsynced) {
		/* Open, so all of it is durable. */
		struct image now = *im;

		now.durable = (unsigned)found;
		cut_recovery(m, &now, "behind a recovery");
	}
	if (below(8) == 0)
		check_store(k, im);
	close_image(k, im, depth);
	if (m->keeps) {
		/* Once recovered and closed it stays so: what was synced is all there is. */
		m->cache = NULL;
		if (open_machine(m, false, 0, &k) < 0)
			bad_image(im, depth, "cannot be opened again", err_last());
		if (work_compare(&work, k, (unsigned)found, text, sizeof text) != found)
			bad_image(im, depth, "opened again", text);
		close_image(k, im, depth);
		reopened++;
	}
	if (below(40) == 0)
		try_read_only(im, depth, found);
}

static void try_pending(void)
{
	unsigned i;

	for (i = 0; i < pending_count; i++)
		try_image(&pending[i], 0);
	pending_count = 0;
}

/* The workload ------------------------------------------------------------------------------------------------------ */

static struct {
	unsigned sync, checkpoint, poll, pieces, crash, reopen, cut;
} rate;

/* One call, and what can be cut within. */
static void step(void)
{
	int r;

	protect(&live);
	call_from = work_now(&work);
	capture_in = below(4) == 0 ? 4 + (int)below(40) : 0;
	in_call = true;
	r = work_step(&work);
	in_call = false;
	capture_in = 0;
	if (getenv("TRACE")) {
		char text[1024] = "";

		(void)work_compare(&work, work.k, work_now(&work), text, sizeof text);
		fprintf(stderr, "%llu: %s: %d, seq %llu, at %llu.%09llu%s%s\n", (unsigned long long)work.ops, work.text, r,
			(unsigned long long)store_seq(store), (unsigned long long)work.real_ns / 1000000000,
			(unsigned long long)work.real_ns % 1000000000, text[0] ? ": " : "", text);
	}
	blocks_full += r == -ENOSPC;
	if (store_failed(store))
		broken("the store failed: %d: %s", store_failed(store), err_last());
}

static void expect(int r, const char *what)
{
	if (r < 0)
		broken("%s: %d: %s", what, r, err_last());
}

static void open_live(void)
{
	struct keys *k;

	store = NULL;
	expect(open_machine(&live, false, 0, &k), "open");
	work.k = k;
	store = keys_store(k);
}

/* Power is cut here, and the work goes on with what is found. */
static void crash_live(void)
{
	static struct patches p;
	struct image im = { .how = (enum how)below(HOW_COUNT), .where = "the live store", .op = work.ops };
	char text[1024];
	int found;

	if (below(3) == 0)
		im.how = HOW_KILL;
	protect(&live);
	im.from = open_from = im.how == HOW_KILL ? work_now(&work) : durable_state();
	build(&live, im.how, &p);
	im.p = p;
	try_image(&im, 0);
	/* What the old process still does, no disk sees. */
	store = NULL;
	live.watched = false;
	check(mprotect(live.engine, live.mapped, PROT_READ | PROT_WRITE) == 0);
	(void)keys_close(work.k);
	live.watched = true;
	live_load(&im.p);
	open_live();
	found = work_compare(&work, work.k, im.from, text, sizeof text);
	if (found < 0)
		bad_image(&im, 0, "not a state", text);
	work_rewind(&work, (unsigned)found, work.k);
	try_pending();
	adopted++;
}

static void reopen_live(void)
{
	char text[1024];

	open_from = work_now(&work);
	helper_runs = false;
	expect(keys_close(work.k), "close");
	live.engine = NULL;
	protect(&live);
	/* A close that succeeds is a sync. */
	store = NULL;
	add_image((enum how)below(HOW_COUNT), open_from, "closed");
	try_pending();
	open_live();
	try_pending();
	if (work_compare(&work, work.k, work_now(&work), text, sizeof text) < 0)
		broken("closed and opened: %s", text);
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

/* A checkpoint in three parts, with calls between: sometimes enough of them to fill segments of the journal and the store. */
static void checkpoint_in_pieces(void)
{
	unsigned n = (unsigned)below(below(4) == 0 ? 100 : 6);
	int r = checkpoint_finish(store);

	if (r == 0)
		r = checkpoint_cut(store, false);
	if (r == -ENOSPC)
		return;
	expect(r, "cut");
	for (; n > 0; n--) {
		step();
		if (n % 8 == 1)
			cut_between_calls();
	}
	if (atomic_load(&store->ckpt_state) != CKPT_WRITING)
		return;
	protect(&live);
	helper_runs = true;
	expect(checkpoint_write(store), "checkpoint");
	helper_runs = false;
	cut_between_calls();
	for (n = (unsigned)below(4); n > 0; n--)
		step();
	expect(checkpoint_finish(store), "finish");
}

static void one_round(void)
{
	uint64_t what = below(1000);
	int r = 0;

	if (what < rate.sync) {
		seq_t seq = store_seq(store);

		protect(&live);
		helper_runs = below(2);
		expect(store_sync(store), "sync");
		helper_runs = false;
		if (store_durable_seq(store) < seq)
			broken("a sync that was not one");
	} else if ((what -= rate.sync) < rate.checkpoint) {
		protect(&live);
		r = store_checkpoint(store);
		if (r != -ENOSPC && r != -EAGAIN && r != -EBUSY)
			expect(r, "checkpoint");
	} else if ((what -= rate.checkpoint) < rate.pieces) {
		checkpoint_in_pieces();
	} else if ((what -= rate.pieces) < rate.poll) {
		protect(&live);
		expect(store_poll(store), "poll");
	} else if ((what -= rate.poll) < rate.crash) {
		crash_live();
	} else if ((what -= rate.crash) < rate.reopen) {
		reopen_live();
	} else {
		step();
	}
	cut_between_calls();
}

/* Making it is not watched: until it has a name nobody can find it. */
static void make_store(uint64_t max)
{
	struct keys *k;

	/* A disk with little room: the store begins small and grows. */
	live.limit = below(2) ? 8u << 20 : FILE_MAX;
	expect(open_machine(&live, true, max, &k), "create");
	expect(keys_close(k), "close");
	live.limit = FILE_MAX;
	memcpy(live.disk, live.file, live.size);
	live.disk_size = live.size;
	live.size_count = 0;
	live.watched = true;
	open_from = pending_count = 0;
	open_live();
	work_attach(&work, work.k);
	if (work.profile == WORK_FULL)
		work_fill(&work);
	try_pending();
}

static void run_case(uint64_t case_seed, enum work_profile profile, unsigned rounds)
{
	static const uint64_t sizes[] = { 8, 8, 8, 9, 10, 12, 16, 16, 40 };
	uint64_t max = sizes[below(ARRAY_LEN(sizes))] << 20;
	char text[1024];
	unsigned i;

	seed = case_seed;
	kind = (int)profile;
	rng = case_seed * 1000003 + (uint64_t)profile;
	max = sizes[below(ARRAY_LEN(sizes))] << 20;
	work_init(&work, below(0));
	work.profile = profile;
	work.max_nodes = 10 + (unsigned)below(60);
	rate.sync = 20 + (unsigned)below(100);
	rate.checkpoint = (unsigned)below(40);
	rate.pieces = (unsigned)below(50);
	rate.poll = (unsigned)below(200);
	rate.crash = 15;
	rate.reopen = 5;
	rate.cut = 300;
	machine_init(&live, true);
	machine_init(&again[0], false);
	machine_init(&again[1], false);
	live.random = below(0);
	make_store(max);
	for (i = 0; i < rounds; i++)
		one_round();
	if (work_compare(&work, work.k, work_now(&work), text, sizeof text) < 0)
		broken("the live store: %s", text);
	open_from = work_now(&work);
	expect(keys_close(work.k), "close");
	store = NULL;
	live.engine = NULL;
	protect(&live);
	try_pending();
	work_release(&work);
	machine_release(&live);
	machine_release(&again[0]);
	machine_release(&again[1]);
}

static void run_kind(enum work_profile profile, unsigned cases, unsigned rounds)
{
	const char *s = getenv("SEED"), *c = getenv("CASES"), *k = getenv("KIND"), *v = getenv("VERBOSE");
	uint64_t first = s && *s ? strtoull(s, NULL, 10) : 1;
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct sigaction old;
	unsigned i;

	if (c && *c)
		cases = (unsigned)strtoul(c, NULL, 10);
	if (k && *k && strtol(k, NULL, 10) != (long)profile)
		return;                 /* not skip(): "not ok" in cmocka's TAP */
	images = recut_images = checked = kills = kills_cut = cuts_in_sync = reopened = adopted = calls_in_sync = 0;
	blocks_full = 0;
	check(sigaction(SIGSEGV, &sa, &old) == 0);
	for (i = 0; i < cases; i++)
		run_case(first + i, profile, rounds);
	check(sigaction(SIGSEGV, &old, NULL) == 0);
	if (v && *v)
		print_message("# kind %d: %u cases, %u images (%u kills, %u with a cut behind, %u at msyncs, %u while recovering), %u checked, %u reopened, "
			      "%u went on from, %u calls beside a msync, %llu met a full store\n", (int)profile, cases, images, kills, kills_cut,
			      cuts_in_sync, recut_images, checked, reopened, adopted, calls_in_sync, (unsigned long long)blocks_full);
}

static void test_crash__mixed(void **state)
{
	(void)state;
	run_kind(WORK_MIXED, 1, 220);
}

static void test_crash__small_writes(void **state)
{
	(void)state;
	run_kind(WORK_SMALL, 1, 220);
}

static void test_crash__big_writes(void **state)
{
	(void)state;
	run_kind(WORK_BIG, 1, 220);
}

static void test_crash__space(void **state)
{
	(void)state;
	run_kind(WORK_SPACE, 1, 220);
}

static void test_crash__names(void **state)
{
	(void)state;
	run_kind(WORK_NAMES, 1, 220);
}

static void test_crash__full_store(void **state)
{
	(void)state;
	run_kind(WORK_FULL, 1, 220);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crash__mixed),
		cmocka_unit_test(test_crash__small_writes),
		cmocka_unit_test(test_crash__big_writes),
		cmocka_unit_test(test_crash__space),
		cmocka_unit_test(test_crash__names),
		cmocka_unit_test(test_crash__full_store),
	};

	return cmocka_run_group_tests_name("crash", tests, NULL, NULL);
}
