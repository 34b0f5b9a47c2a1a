/* SPDX-License-Identifier: MIT
 *
 * map: one file as one range of memory that grows in place. A large range of addresses is reserved once; the file is
 * mapped into it and, when it grows, the new part behind the old. A pointer into the mapping stays valid until
 * map_close(), whatever grows. Blocks are allocated on disk before they are mapped, so a store into the mapping can
 * never meet a full disk (no SIGBUS).
 *
 * Threads: map_block() from any thread for blocks below map_blocks(); map_grow() and map_shrink() from one thread at a time.
 */
#ifndef MSYNCFS_MAP_H
#define MSYNCFS_MAP_H

#include "core/base.h"
#include "core/store/sys.h"

#include <pthread.h>
#include <stdatomic.h>

struct map {
	uint8_t *base;
	size_t reserved;                /* bytes of address space */
	_Atomic uint64_t blocks;        /* mapped and allocated */
	int fd;
	bool private_copy;
	const struct sys_ops *sys;
	pthread_mutex_t sync_lock;      /* one msync at a time: an error has one owner */
	_Atomic int failed;             /* first error of a sync, negative; final */
};

/* Reserve addresses and map the whole of fd (its size rounded down to blocks). With private_copy changes stay in
 * memory. max_bytes bounds the reservation (0: as much as possible). On error nothing is held; fd stays the caller's. */
int map_open(struct map *m, int fd, bool private_copy, uint64_t max_bytes, const struct sys_ops *sys);
void map_close(struct map *m);
/* Grow by `blocks` blocks; on return they are on disk (allocated, size durable) and mapped. -ENOSPC, -EFBIG, -EDQUOT:
 * nothing changed that matters (the file may be longer than the mapping; the next growth uses that). */
int map_grow(struct map *m, uint64_t blocks);
/* Cut the mapping and the file down to `blocks` blocks. Nobody may use what is behind. */
int map_shrink(struct map *m, uint64_t blocks);
/* msync the blocks [first, first + count), in pieces. After the first error every call fails with it: the kernel reports
 * a failed writeback once, to whoever asks first, so nobody may trust a later success. Not on the request thread. */
int map_sync(struct map *m, block_t first, uint64_t count);
/* 0, or the error that made the mapping fail. */
static inline int map_failed(const struct map *m)
{
	return atomic_load_explicit(&((struct map *)(uintptr_t)m)->failed, memory_order_acquire);
}
/* Fault blocks in for writing; best effort. */
void map_populate(struct map *m, block_t first, uint64_t count);

static inline uint64_t map_blocks(const struct map *m)
{
	return atomic_load_explicit(&m->blocks, memory_order_acquire);
}

static inline void *map_block(const struct map *m, block_t b)
{
	return m->base + (b << BLOCK_SHIFT);
}

#endif
