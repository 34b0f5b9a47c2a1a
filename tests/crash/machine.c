/* SPDX-License-Identifier: MIT
 *
 * machine: the file, its disk, and what changed between. See crash.h.
 */
#include "tests/crash/crash.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct machine live, again[3];
struct work work;
struct store *store;
uint64_t rng;
bool helper_runs, in_call;
int capture_in;
bool capture_record;

#define RUN_MIN 6u                      /* pages side by side that are mapped rather than copied */

static const uint8_t zeros[BLOCK_SIZE];

static uint64_t draw(uint64_t *from, uint64_t n)
{
	uint64_t x = *from += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	x ^= x >> 31;
	return n ? x % n : x;
}

uint64_t below(uint64_t n)
{
	return draw(&rng, n);
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

/* Files as patches --------------------------------------------------------------------------------------------------- */

uint8_t *patch_add(struct patches *p, uint32_t page, const void *bytes)
{
	if (p->count == p->room) {
		check(!p->in_file);
		p->room = p->room ? p->room * 2 : 16;
		p->page = realloc(p->page, p->room * sizeof *p->page);
		p->bytes = realloc(p->bytes, (size_t)p->room * BLOCK_SIZE);
		check(p->page && p->bytes);
	}
	p->page[p->count] = page;
	return memcpy(p->bytes + (size_t)p->count++ * BLOCK_SIZE, bytes, BLOCK_SIZE);
}

/* Patches in a file: as many as a store has pages, so that they stay where they are, and many side by side can be mapped. */
static void patches_init_file(struct patches *p, int fd)
{
	*p = (struct patches){ .room = FILE_PAGES, .in_file = true };
	check(ftruncate(fd, FILE_MAX) == 0);
	p->page = calloc(FILE_PAGES, sizeof *p->page);
	p->bytes = map_file(fd);
	check(p->page);
}

static void patches_release(struct patches *p)
{
	free(p->page);
	if (p->in_file)
		(void)munmap(p->bytes, FILE_MAX);
	else
		free(p->bytes);
	memset(p, 0, sizeof *p);
}

const uint8_t *on_disk(const struct machine *m, uint32_t n)
{
	if (!m->is_live && m->patch_of[n] >= 0)
		return m->base.bytes + (size_t)m->patch_of[n] * BLOCK_SIZE;
	return ((uint64_t)n + 1) * BLOCK_SIZE <= live.disk_size ? live.disk + (uint64_t)n * BLOCK_SIZE : zeros;
}

const uint8_t *in_cache(const struct machine *m, uint32_t n)
{
	return (m->is_live ? m->file : m->engine) + (uint64_t)n * BLOCK_SIZE;
}

void flatten(const struct patches *p, uint8_t *bytes)
{
	unsigned i;

	memset(bytes, 0, p->size);
	memcpy(bytes, live.disk, min_u64(p->size, live.disk_size));
	for (i = 0; i < p->count; i++)
		memcpy(bytes + (uint64_t)p->page[i] * BLOCK_SIZE, p->bytes + (size_t)i * BLOCK_SIZE, BLOCK_SIZE);
}

uint8_t *big_buffer(void)
{
	void *p = mmap(NULL, FILE_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	check(p != MAP_FAILED);
	return p;
}

/* The machine as a system ------------------------------------------------------------------------------------------- */

static void note_size(struct machine *m)
{
	if (m->size_count < SIZES_MAX)
		m->sizes[m->size_count++] = m->size;
	else
		m->sizes[draw(&m->luck, SIZES_MAX)] = m->size;
}

static int set_size(struct machine *m, uint64_t size)
{
	if (ftruncate(m->fd, (off_t)size) < 0)
		return -errno;
	m->size = size;
	m->low_size = min_u64(m->low_size, size);
	note_size(m);
	return 0;
}

static int m_allocate(void *ctx, int fd, uint64_t off, uint64_t len)
{
	struct machine *m = ctx;

	check(fd >= 0);
	if (off + len > m->limit && off + len > m->size)
		return -ENOSPC;
	report->counts.grown += m->is_live && off + len > m->size;
	return off + len > m->size ? set_size(m, off + len) : 0;
}

static int m_truncate(void *ctx, int fd, uint64_t size)
{
	struct machine *m = ctx;
	uint64_t p;

	check(fd >= 0);
	for (p = size / BLOCK_SIZE; m->is_live && p < FILE_PAGES; p++)
		m->page[p].touched = false;
	report->counts.shortened += m->is_live;
	return set_size(m, size);
}

static int map_at(uint8_t *addr, size_t len, int prot, int flags, int fd, uint64_t off)
{
	return mmap(addr, len, prot, MAP_FIXED | flags, fd, (off_t)off) == MAP_FAILED ? -errno : 0;
}

static void put_patch(struct machine *m, const struct patches *p, unsigned i, uint8_t *addr, uint64_t off)
{
	m->from_disk[p->page[i]] = false;
	memcpy(addr + ((uint64_t)p->page[i] * BLOCK_SIZE - off), p->bytes + (size_t)i * BLOCK_SIZE, BLOCK_SIZE);
}

/* What the page cache has beyond the disk: pages of the process's own, so that find_dirty() finds them. */
static void put_cache(struct machine *m, uint8_t *addr, size_t len, uint64_t off)
{
	const struct patches *p = m->cache;
	unsigned i;

	for (i = 0; i < p->count; i++)
		if ((uint64_t)p->page[i] * BLOCK_SIZE >= off && (uint64_t)p->page[i] * BLOCK_SIZE < off + len)
			put_patch(m, p, i, addr, off);
}

/* What this disk has and the live one has not. Where that is many pages side by side they are mapped: a page fault for each
 * costs more. What is stored there later is the process's own then, as it is on the disk's pages. */
static int put_disk(struct machine *m, uint8_t *addr, size_t len, uint64_t off)
{
	const struct patches *p = &m->base;
	unsigned i, n;

	for (i = 0; i < p->count; i += n) {
		uint64_t at = (uint64_t)p->page[i] * BLOCK_SIZE;

		n = 1;
		if (at < off || at >= off + len)
			continue;
		while (i + n < p->count && p->page[i + n] == p->page[i] + n && at + n * BLOCK_SIZE < off + len)
			n++;
		if (n < RUN_MIN) {
			n = 1;
			put_patch(m, p, i, addr, off);
			continue;
		}
		memset(m->from_disk + p->page[i], 0, n);
		if (mmap(addr + (at - off), (size_t)n * BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED,
			 m->base_fd, (off_t)i * BLOCK_SIZE) == MAP_FAILED)
			return -errno;
	}
	return 0;
}

/* What the kernel holds for clean cannot be stored to unseen: that makes it dirty. */
static int watch_clean(struct machine *m, uint8_t *addr, size_t len, uint64_t off)
{
	unsigned i;

	for (i = 0; i < m->cache->count; i++) {
		uint64_t at = (uint64_t)m->cache->page[i] * BLOCK_SIZE;

		if (at < off || at >= off + len || !m->clean[m->cache->page[i]])
			continue;
		if (mprotect(addr + (at - off), BLOCK_SIZE, PROT_READ) < 0)
			return -errno;
	}
	return 0;
}

/* A private mapping of the live machine's disk, and over it what differs. Behind the end of this file there is nothing,
 * whatever the live one has. */
static int map_patched(struct machine *m, uint8_t *addr, size_t len, uint64_t off)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_NORESERVE;
	uint64_t there = off < m->disk_size ? min_u64(len, m->disk_size - off) : 0;
	int r = 0;

	memset(m->from_disk + off / BLOCK_SIZE, 1, there / BLOCK_SIZE);
	memset(m->from_disk + (off + there) / BLOCK_SIZE, 0, (len - there) / BLOCK_SIZE);

	if (there > 0)
		r = map_at(addr, there, prot, flags, live.disk_fd, off);
	if (r == 0 && there < len)
		r = map_at(addr + there, len - there, prot, flags | MAP_ANONYMOUS, -1, 0);
	if (r < 0)
		return r;
	r = put_disk(m, addr, len, off);
	if (r == 0 && m->cache)
		put_cache(m, addr, len, off);
	return r == 0 && m->lost ? watch_clean(m, addr, len, off) : r;
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

/* The live store is about to change this page, for the first time since protect(). */
static void touch(struct machine *m, uint32_t n)
{
	if (--capture_in == 0)
		add_image(HOW_KILL, call_from, "within a call");
	else if (capture_in == 3)
		add_image((enum how)below(HOW_COUNT), UINT32_MAX, "within a call");
	/* Contents that the record will name are in their blocks, and nothing names them yet. */
	if (capture_record && is_journal(n)) {
		capture_record = false;
		add_image(HOW_KILL, call_from, "before its record");
		add_image(below(2) ? HOW_ALL : (enum how)below(HOW_COUNT), UINT32_MAX, "before its record");
	}
	m->page[n].touched = true;
	m->touched[m->touched_count++] = n;
	(void)mprotect(m->engine + (uint64_t)n * BLOCK_SIZE, BLOCK_SIZE, PROT_READ | PROT_WRITE);
}

/* Every msync: images before, while and behind it. */
static int m_sync(void *ctx, void *addr, size_t len)
{
	struct machine *m = ctx;
	uint64_t off = (uint64_t)((uint8_t *)addr - m->engine);
	unsigned n;

	if (off % BLOCK_SIZE != 0 || len % BLOCK_SIZE != 0 || off + len > m->mapped)
		broken("msync of %zu bytes at %llu, %llu are mapped", len, (unsigned long long)off, (unsigned long long)m->mapped);
	if (!m->is_live) {
		image_synced(m, off, len);
		return 0;
	}
	if (!m->watched)
		return 0;
	report->counts.syncs++;
	protect(m);
	for (n = (unsigned)below(3); n > 0; n--, report->counts.at_sync++)
		add_image((enum how)below(HOW_COUNT), UINT32_MAX, "before a msync");
	/* Most of all before the first place of a superblock is synced: only there the page cache has one that no disk has. */
	if (store && !in_call && below(off / BLOCK_SIZE < SUPERS ? 1 : is_super(off / BLOCK_SIZE) ? 3 : 8) == 0)
		kill_and_cut("before a msync");
	if (store && !in_call)
		try_exhaustively(off, len);
	settle_live(off, len);
	if (helper_runs && store && below(3) == 0) {
		step_beside();
		/* (O11) What was acknowledged meanwhile is not to be lost: nothing is. */
		if (rebase_state() != UINT32_MAX)
			kill_and_cut("beside a rebase");
	}
	protect(m);
	for (n = (unsigned)below(3); n > 0; n--, report->counts.at_sync++)
		add_image((enum how)below(HOW_COUNT), UINT32_MAX, "behind a msync");
	return 0;
}

/* Bytes that go past the mapping are dirty pages of the file as others are: of what was written since the last msync there may be
 * any sectors on disk. The kernel takes them page by page, and a kill in between leaves the first ones. */
static int m_write(void *ctx, int fd, const void *bytes, size_t len, uint64_t off)
{
	struct machine *m = ctx;
	size_t done;

	check(fd >= 0);
	if (off % BLOCK_SIZE != 0 || len % BLOCK_SIZE != 0 || off + len > min_u64(m->mapped, m->size))
		broken("a write of %zu bytes at %llu, %llu are there", len, (unsigned long long)off, (unsigned long long)m->size);
	/* No file of its own; and what a process does that is gone nobody sees. */
	if (!m->is_live || !m->watched) {
		memcpy(m->engine + off, bytes, len);
		return 0;
	}
	for (done = 0; done < len; done += BLOCK_SIZE) {
		uint32_t n = (uint32_t)((off + done) / BLOCK_SIZE);

		if (!m->page[n].touched)
			touch(m, n);
		check(pwrite(m->fd, (const uint8_t *)bytes + done, BLOCK_SIZE, (off_t)(off + done)) == BLOCK_SIZE);
	}
	report->counts.written += len / BLOCK_SIZE;
	return 0;
}

static struct sys_ops m_sys(struct machine *m)
{
	return (struct sys_ops){ .allocate = m_allocate, .truncate = m_truncate, .size = sys_linux.size, .map = m_map, .unmap = m_unmap,
				 .sync = m_sync, .populate = m_populate, .ahead = m_populate, .write = m_write, .now_real_ns = m_real,
				 .now_mono_ns = m_mono, .random = m_random, .ctx = m };
}

int machine_open(struct machine *m, bool create, uint64_t max, struct keys **ret)
{
	const struct sys_ops sys = m_sys(m);
	const struct store_options o = { .path = m == &live && live_name == NAME_NONE ? FOLDER_STORE : m->path, .create = create,
					 .max_bytes = max, .sys = &sys, .incomplete = true };

	m->engine = NULL;
	return keys_open(&o, ret);
}

void machine_init(struct machine *m, bool is_live)
{
	memset(m, 0, sizeof *m);
	m->fd = new_file("crash");
	(void)snprintf(m->path, sizeof m->path, "/proc/self/fd/%d", m->fd);
	m->is_live = is_live;
	m->dirty = calloc(FILE_PAGES, sizeof *m->dirty);
	check(m->dirty);
	m->limit = FILE_MAX;
	m->disk_fd = -1;
	if (!is_live) {
		m->base_fd = new_file("base");
		patches_init_file(&m->base, m->base_fd);
		m->patch_of = malloc(FILE_PAGES * sizeof *m->patch_of);
		m->clean = calloc(FILE_PAGES, 1);
		m->from_disk = calloc(FILE_PAGES, 1);
		m->state = calloc(FILE_PAGES, 1);
		check(m->patch_of && m->clean && m->from_disk && m->state);
		memset(m->patch_of, 0xff, FILE_PAGES * sizeof *m->patch_of);
		return;
	}
	m->disk_fd = new_file("disk");
	check(ftruncate(m->disk_fd, FILE_MAX) == 0);
	m->disk = map_file(m->disk_fd);
	hashes_forget(0, FILE_PAGES);
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

void machine_release(struct machine *m)
{
	if (m->is_live) {
		forget_changes(m);
		(void)munmap(m->file, FILE_MAX);
		(void)munmap(m->disk, FILE_MAX);
		(void)close(m->disk_fd);
	}
	(void)close(m->fd);
	if (!m->is_live) {
		patches_release(&m->base);
		(void)close(m->base_fd);
	}
	free(m->patch_of);
	free(m->clean);
	free(m->from_disk);
	free(m->state);
	free(m->page);
	free(m->touched);
	free(m->dirty);
	memset(m, 0, sizeof *m);
}

void machine_forget(struct machine *m)
{
	m->cache = NULL;
	if (m->lost)
		memset(m->clean, 0, FILE_PAGES);
	m->lost = false;
}

/* In the order of its pages. */
static void load_base(struct machine *m, const struct patches *p)
{
	uint32_t n, last = 0;
	unsigned i;

	for (i = 0; i < m->base.count; i++)
		m->patch_of[m->base.page[i]] = -1;
	m->base.count = 0;
	m->base.size = p->size;
	for (i = 0; i < p->count; i++) {
		m->patch_of[p->page[i]] = (int32_t)i;
		last = (uint32_t)max_u64(last, p->page[i]);
	}
	for (n = 0; p->count > 0 && n <= last; n++) {
		if (m->patch_of[n] < 0)
			continue;
		i = (unsigned)m->patch_of[n];
		m->patch_of[n] = (int32_t)m->base.count;
		(void)patch_add(&m->base, n, p->bytes + (size_t)i * BLOCK_SIZE);
	}
}

void machine_load(struct machine *m, const struct patches *p, const struct patches *disk, bool lost)
{
	const struct patches *base = disk ? disk : p;
	unsigned i;

	load_base(m, base);
	m->engine = NULL;
	m->mapped = 0;
	check(ftruncate(m->fd, (off_t)p->size) == 0);
	machine_forget(m);
	m->cache = disk ? p : NULL;
	m->lost = lost;
	for (i = 0; lost && i < p->count; i++)
		m->clean[p->page[i]] = 1;
	/* A disk that was full is full. */
	m->limit = live.limit;
	m->size = p->size;
	m->disk_size = base->size;
	m->size_count = 0;
	if (m->size != m->disk_size)
		note_size(m);
}

void live_load(const struct patches *p)
{
	uint64_t n, from = min_u64(live.low_size, live.disk_size) / BLOCK_SIZE;
	unsigned i;

	check(ftruncate(live.fd, (off_t)p->size) == 0);
	if (p->size < live.disk_size) {
		hashes_forget(p->size / BLOCK_SIZE, FILE_PAGES);
		check(fallocate(live.disk_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)p->size,
				(off_t)(FILE_MAX - p->size)) == 0);
	}
	/* The cache is the disk again: where it had changed, and where the file had been cut. */
	for (i = 0; i < live.dirty_count; i++)
		if (((uint64_t)live.dirty[i] + 1) * BLOCK_SIZE <= p->size)
			memcpy(live.file + (uint64_t)live.dirty[i] * BLOCK_SIZE, on_disk(&live, live.dirty[i]), BLOCK_SIZE);
	for (n = from; (n + 1) * BLOCK_SIZE <= p->size; n++)
		if (memcmp(live.file + n * BLOCK_SIZE, on_disk(&live, (uint32_t)n), BLOCK_SIZE) != 0)
			memcpy(live.file + n * BLOCK_SIZE, on_disk(&live, (uint32_t)n), BLOCK_SIZE);
	forget_changes(&live);
	for (i = 0; i < p->count; i++) {
		hashes_forget(p->page[i], p->page[i] + 1);
		memcpy(live.disk + (uint64_t)p->page[i] * BLOCK_SIZE, p->bytes + (size_t)i * BLOCK_SIZE, BLOCK_SIZE);
		memcpy(live.file + (uint64_t)p->page[i] * BLOCK_SIZE, p->bytes + (size_t)i * BLOCK_SIZE, BLOCK_SIZE);
	}
	live.size = live.disk_size = live.low_size = p->size;
	live.engine = NULL;
	live.mapped = 0;
}

/* Watching changes -------------------------------------------------------------------------------------------------- */

void observe(struct machine *m)
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

			slot = (unsigned)draw(&m->luck, VALUES);
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

void protect(struct machine *m)
{
	unsigned i;

	observe(m);
	for (i = 0; i < m->touched_count; i++)
		m->page[m->touched[i]].touched = false;
	m->touched_count = 0;
	if (m->engine && m->watched)
		check(mprotect(m->engine, m->mapped, PROT_READ) == 0);
}

/* A page that the kernel held for clean is stored to. */
static bool made_dirty(struct machine *m, uint8_t *at)
{
	uint32_t n;

	if (!m->lost || !m->engine || at < m->engine || at >= m->engine + m->mapped)
		return false;
	n = (uint32_t)((at - m->engine) / BLOCK_SIZE);
	if (!m->clean[n])
		return false;
	m->clean[n] = 0;
	return mprotect(m->engine + (uint64_t)n * BLOCK_SIZE, BLOCK_SIZE, PROT_READ | PROT_WRITE) == 0;
}

/* The store writes to a page for the first time since protect(). */
void on_fault(int sig, siginfo_t *info, void *ctx)
{
	struct machine *m = &live;
	uint8_t *at = info->si_addr;
	uint32_t n;

	(void)ctx;
	for (n = 0; n < ARRAY_LEN(again); n++)
		if (made_dirty(&again[n], at))
			return;
	if (!m->watched || !m->engine || at < m->engine || at >= m->engine + m->mapped || m->page[(at - m->engine) / BLOCK_SIZE].touched)
		broken("signal %d at %p", sig, (void *)at);
	touch(m, (uint32_t)((at - m->engine) / BLOCK_SIZE));
}

void machine_ask(const struct machine *m, uint32_t first, uint32_t count, uint64_t *ret)
{
	static int fd = -1;

	if (fd < 0)
		fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	check(fd >= 0);
	check(pread(fd, ret, count * 8, (off_t)((uintptr_t)m->engine / BLOCK_SIZE + first) * 8) == (ssize_t)count * 8);
}

/* Only pages that this process has copies of can differ from the disk. fn for those of [from, to). */
static void each_copy(struct machine *m, uint32_t from, uint32_t to, void (*fn)(struct machine *m, uint32_t n))
{
	static uint64_t entry[8192];
	uint32_t n, i;

	for (n = from; n < to; n += i) {
		uint32_t part = (uint32_t)min_u64(to - n, ARRAY_LEN(entry));

		machine_ask(m, n, part, entry);
		for (i = 0; i < part; i++)
			if (is_copy(entry[i]) && !m->clean[n + i] &&
			    memcmp(in_cache(m, n + i), on_disk(m, n + i), BLOCK_SIZE) != 0)
				fn(m, n + i);
	}
}

static void note_dirty(struct machine *m, uint32_t n)
{
	m->dirty[m->dirty_count++] = n;
}

void find_dirty(struct machine *m)
{
	m->dirty_count = 0;
	each_copy(m, 0, (uint32_t)(m->mapped / BLOCK_SIZE), note_dirty);
}

void settle_live(uint64_t off, uint64_t len)
{
	struct machine *m = &live;
	unsigned i, left = 0;
	uint64_t n;

	keep_pending(off, len);
	/* What was cut off is gone, also where the file has grown again. */
	if (m->low_size < m->disk_size) {
		hashes_forget(m->low_size / BLOCK_SIZE, div_up(m->disk_size, BLOCK_SIZE));
		memset(m->disk + m->low_size, 0, m->disk_size - m->low_size);
	}
	m->disk_size = m->low_size = m->size;
	m->size_count = 0;
	for (i = 0; i < m->dirty_count; i++) {
		n = m->dirty[i];
		if (n * BLOCK_SIZE >= off && n * BLOCK_SIZE < off + len) {
			hashes_forget(n, n + 1);
			memcpy(m->disk + n * BLOCK_SIZE, m->file + n * BLOCK_SIZE, BLOCK_SIZE);
			forget_page(&m->page[n]);
		} else {
			m->dirty[left++] = (uint32_t)n;
		}
	}
	m->dirty_count = left;
}

static void put_on_disk(struct machine *m, uint32_t n)
{
	if (m->patch_of[n] >= 0) {
		memcpy(m->base.bytes + (size_t)m->patch_of[n] * BLOCK_SIZE, in_cache(m, n), BLOCK_SIZE);
	} else {
		m->patch_of[n] = (int32_t)m->base.count;
		(void)patch_add(&m->base, n, in_cache(m, n));
	}
}

void settle_again(struct machine *m, uint64_t off, uint64_t len)
{
	each_copy(m, (uint32_t)(off / BLOCK_SIZE), (uint32_t)((off + len) / BLOCK_SIZE), put_on_disk);
	m->disk_size = m->base.size = m->size;
	m->size_count = 0;
}
