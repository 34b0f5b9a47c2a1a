/* SPDX-License-Identifier: MIT
 *
 * defer: replies that are held back until the store has come far enough ("durable before reply" as
 * a mechanism). The request thread adds the bytes of a finished reply with the sequence number it
 * waits for; whichever thread then learns of progress sends all that are due, so any number of
 * waiters shares one sync. If the store has failed, or it takes longer than the queue's patience, the waiters get EIO instead.
 *
 * Locks: io_lock before lock. io_lock is held over the write to the device, so that defer_stop()
 * knows that nobody still uses the descriptor; the request thread takes it only if a reply is due already. lock is held
 * for a few instructions only.
 */
#ifndef MSYNCFS_DEFER_H
#define MSYNCFS_DEFER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct store;

/* The largest reply that can wait: that of an operation which made an entry is 144 bytes. */
#define DEFER_REPLY_MAX 176u

struct defer_entry {
	uint64_t seq;
	uint64_t until_ms;              /* 0: as long as it takes */
	uint32_t len;
	uint8_t reply[DEFER_REPLY_MAX];
};

struct defer {
	const struct store *store;
	uint64_t (*reached)(const void *ctx);
	const void *ctx;
	unsigned patience_ms;           /* 0: as long as it takes */
	int fd;                         /* io_lock; -1: stopped */
	pthread_mutex_t io_lock, lock;
	struct defer_entry *ring;       /* lock; in order of seq */
	size_t size, head, count;       /* lock; size is a power of two */
	uint64_t expired;               /* lock; those that waited for too long */
};

/* reached(ctx): any thread. */
int defer_init(struct defer *d, const struct store *store, uint64_t (*reached)(const void *ctx), const void *ctx,
	       unsigned patience_ms, int fd);
/* Who still waits gets EIO, and nothing is sent any more. After it no other thread uses the descriptor. They are not left to the
 * closing of the device: that comes when the threads have ended that tell the kernel of changes, and such a one may be
 * waiting for the lock of a directory that a program holds until it has its answer. */
void defer_stop(struct defer *d);
void defer_release(struct defer *d);

/* Request thread: hold this reply until reached() >= seq. Never fails for the caller: without
 * memory the waiter is told so. The caller sees to it that somebody calls defer_run() when the
 * store moves, and calls it once itself, since that may have happened just before. */
void defer_add(struct defer *d, uint64_t seq, const struct iovec *iov, int count);
/* Any thread: send what is due. */
void defer_run(struct defer *d);
/* Any thread: what is awaited will not come. */
void defer_give_up(struct defer *d);
bool defer_is_empty(struct defer *d);
/* How many wait, and how many have waited for too long. */
void defer_count(struct defer *d, uint64_t *ret_waiting, uint64_t *ret_expired);

#endif
