/* SPDX-License-Identifier: MIT
 *
 * map: one file as one range of memory that grows in place. A large range of addresses is reserved once; the file is
 * mapped into it and, when it grows, the new part behind the old. A pointer into the mapping stays valid until
 * map_close(), whatever grows. Blocks are allocated on disk before they are mapped, so a store into the mapping can
 * never meet a full disk (no SIGBUS).
 *
 * What still raises SIGBUS is a page that the system cannot deliver: the file was cut short by somebody else, or the disk
 * cannot read it. Code that touches the mapping runs in map_guard(), and the program's SIGBUS handler calls map_fault():
 * the mapping has then failed for good, and the guarded call is left at once. Nothing is put in the place of such a page:
 * a page of zeros would be a lie that could find its way to the disk or to a reader.
 *
 * Pages come into the page cache one by one, whatever is read or written: the kernel writes a dirty page back with all of its
 * folio, and its own readahead makes folios of up to 2 MiB, so a change of 4 KiB would cost 100 KiB of writing and more (ext4
 * from Linux 6.16, XFS from 5.18). So the first look at each 256 KiB asks for them (MADV_WILLNEED, which reads in single pages)
 * before a page fault can.
 *
 * Threads: map_block() from any thread for blocks below map_blocks(); map_grow() and map_shrink() from one thread at a time.
 */
#ifndef MSYNCFS_MAP_H
#define MSYNCFS_MAP_H

#include "core/base.h"
#include "core/store/sys.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#define MAP_PIECE_SHIFT 6u              /* blocks that are asked for at once: 256 KiB */

struct map {
	uint8_t *base;
	size_t reserved;                /* bytes of address space */
	_Atomic uint64_t blocks;        /* mapped and allocated */
	int fd;
	bool private_copy;
	const struct sys_ops *sys;
	pthread_mutex_t turn_lock;      /* guards the turns; never held over a system call */
	pthread_cond_t turn_over;
	uint64_t turn_next, turn_now;   /* one msync at a time, in the order of asking: an error has one owner */
	_Atomic uint64_t sync_turns;    /* msyncs begun and ended: odd while one is under way */
	_Atomic int failed;             /* first error of a sync or a fault, negative; final */
	_Atomic uint64_t lost;          /* byte behind the first that could not be had; 0 = none */
	_Atomic uint64_t *asked;        /* a bit for each piece that was asked for; NULL: no memory, nobody asks */
	_Atomic unsigned cuts;          /* of our own, begun and ended: odd while the file is being cut */
};

/* Reserve addresses and map the whole of fd (its size rounded down to blocks). With private_copy changes stay in
 * memory. max_bytes bounds the reservation (0: as much as possible). On error nothing is held; fd stays the caller's. */
int map_open(struct map *m, int fd, bool private_copy, uint64_t max_bytes, const struct sys_ops *sys);
void map_close(struct map *m);
/* Grow by `blocks` blocks; on return they are on disk (allocated, size durable) and mapped. -ENOSPC, -EFBIG, -EDQUOT:
 * nothing changed that matters (the file may be longer than the mapping; the next growth uses that). */
int map_grow(struct map *m, uint64_t blocks);
/* Cut the mapping and the file down to `blocks` blocks. Nobody may use what is behind. On an error the mapping may have
 * been cut (map_blocks() tells) and the file not: that does no harm. */
int map_shrink(struct map *m, uint64_t blocks);
/* msync the blocks [first, first + count), in pieces, each when those who asked before have had one. After the first error every
 * call fails with it: the kernel reports a failed writeback once, to whoever asks first, so nobody may trust a later success. Not
 * on the request thread. */
int map_sync(struct map *m, block_t first, uint64_t count);
/* 0, or the error that made the mapping fail. */
static inline int map_failed(const struct map *m)
{
	return atomic_load_explicit(&((struct map *)(uintptr_t)m)->failed, memory_order_acquire);
}
/* The first byte at which the file was found cut short or unreadable; false: it was not. Any thread. */
static inline bool map_lost(const struct map *m, uint64_t *ret_byte)
{
	uint64_t lost = atomic_load_explicit(&((struct map *)(uintptr_t)m)->lost, memory_order_acquire);

	if (lost > 0)
		*ret_byte = lost - 1;
	return lost > 0;
}
/* Is the file still as long as the mapping? If not, the mapping has failed. One fstat, no lock. Any thread. */
int map_check_size(struct map *m);
/* Run fn(arg) and return what it does. If this thread meets a page meanwhile that cannot be had, fn is left where it is,
 * and the result is -EIO: so it holds no lock while it touches a mapping, and what it was changing is half changed. What
 * it allocated is leaked. May be nested; the innermost is left. */
int map_guard(int (*fn)(void *arg), void *arg);
/* For the handler of SIGBUS: addr is where the fault was. If it lies in a mapping, that has failed; within map_guard() this then
 * does not return. mask: what the thread blocks from then on, that is what it had blocked before (uc_sigmask of the handler's
 * context); NULL: as it is now, for who is no handler. Any thread. */
void map_fault(const void *addr, const sigset_t *mask);
/* Fault blocks in for writing; best effort. */
void map_populate(struct map *m, block_t first, uint64_t count);
/* Put bytes into blocks that nobody looks at meanwhile, past the mapping: the kernel neither reads nor clears the pages first, and
 * no page is faulted in. For many blocks a third of what storing through the mapping costs; for a few of which the pages are
 * there already, more. Seen through the mapping on return; no more durable than what is stored there. System calls. An error is
 * final only if the file was found cut short. */
int map_write(struct map *m, block_t first, uint64_t count, const void *bytes);
/* Have the kernel begin to write what is dirty among these blocks, so that a later sync finds less to do; best effort, and says nothing of
 * what is on disk. It may wait for room in the disk's queue: not on the request thread. */
void map_write_back(struct map *m, block_t first, uint64_t count);

static inline uint64_t map_blocks(const struct map *m)
{
	return atomic_load_explicit(&m->blocks, memory_order_acquire);
}

/* Where a block is or will be; it is not looked at yet. */
static inline void *map_place(const struct map *m, block_t b)
{
	return m->base + (b << BLOCK_SHIFT);
}

/* Ask for the piece that `b` is in. Once for each piece and opening; a system call. */
void map_ask(const struct map *m, block_t b);

static inline void *map_block(const struct map *m, block_t b)
{
	uint64_t piece = b >> MAP_PIECE_SHIFT;

	if (m->asked && !(atomic_load_explicit(&m->asked[piece / 64], memory_order_acquire) >> piece % 64 & 1))
		map_ask(m, b);
	return map_place(m, b);
}

#endif
