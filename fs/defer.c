/* SPDX-License-Identifier: MIT
 *
 * defer: see defer.h.
 */
#include "fs/defer.h"

#include "core/base.h"
#include "core/store/store.h"
#include "fs/device.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>

#define DEFER_MIN_SIZE 64u

int defer_init(struct defer *d, const struct store *store, uint64_t (*reached)(const void *ctx), const void *ctx,
	       unsigned patience_ms, int fd)
{
	*d = (struct defer){ .store = store, .reached = reached, .ctx = ctx, .patience_ms = patience_ms, .fd = fd };
	d->ring = malloc(DEFER_MIN_SIZE * sizeof *d->ring);
	if (d->ring == NULL)
		return -ENOMEM;
	d->size = DEFER_MIN_SIZE;
	pthread_mutex_init(&d->io_lock, NULL);
	pthread_mutex_init(&d->lock, NULL);
	return 0;
}


void defer_release(struct defer *d)
{
	if (d->ring == NULL)
		return;
	free(d->ring);
	d->ring = NULL;
	pthread_mutex_destroy(&d->io_lock);
	pthread_mutex_destroy(&d->lock);
}

/* Turn a reply into an error: what follows the header is dropped. */
static void entry_set_error(struct defer_entry *e, int error)
{
	struct fuse_out_header out;

	memcpy(&out, e->reply, sizeof out);
	out.error = -error;
	out.len = sizeof out;
	memcpy(e->reply, &out, sizeof out);
	e->len = sizeof out;
}

/* If the connection is gone (ENODEV) there is nobody left to tell. The lookup that a reply which was
 * not taken would have counted is not taken back: the inode is known until the mount ends. */
static void entry_send(struct defer_entry *e, int fd)
{
	struct iovec iov = { e->reply, e->len };

	(void)device_reply(fd, &iov, 1);
}

static bool ring_grow(struct defer *d)
{
	struct defer_entry *ring = malloc(2 * d->size * sizeof *ring);

	if (ring == NULL)
		return false;
	for (size_t i = 0; i < d->count; i++)
		ring[i] = d->ring[(d->head + i) & (d->size - 1)];
	free(d->ring);
	d->ring = ring;
	d->size *= 2;
	d->head = 0;
	return true;
}

void defer_add(struct defer *d, uint64_t seq, const struct iovec *iov, int count)
{
	struct defer_entry e = { .seq = seq, .until_ms = d->patience_ms != 0 ? (uint64_t)clock_mono_ms() + d->patience_ms : 0 };
	bool kept;

	for (int i = 0; i < count; i++) {
		if (e.len + iov[i].iov_len > sizeof e.reply) {
			/* No reply of a changing operation is that long. */
			entry_set_error(&e, EIO);
			break;
		}
		memcpy(e.reply + e.len, iov[i].iov_base, iov[i].iov_len);
		e.len += (uint32_t)iov[i].iov_len;
	}
	pthread_mutex_lock(&d->lock);
	kept = d->count < d->size || ring_grow(d);
	if (kept)
		d->ring[(d->head + d->count++) & (d->size - 1)] = e;
	pthread_mutex_unlock(&d->lock);
	if (kept)
		return;
	entry_set_error(&e, ENOMEM);
	pthread_mutex_lock(&d->io_lock);
	entry_send(&e, d->fd);
	pthread_mutex_unlock(&d->io_lock);
}

enum due { DUE_NOT, DUE_REACHED, DUE_FAILED, DUE_LATE };

/* Under the lock: is the first entry to be sent, and with what it says, or as an error? Those behind it have more patience left. */
static enum due first_due(const struct defer *d)
{
	const struct defer_entry *e = &d->ring[d->head];
	uint64_t byte;
	bool failed;

	if (d->count == 0)
		return DUE_NOT;
	/* In this order: a store that failed after it reached seq is no reason to say EIO. */
	failed = store_failed(d->store) != 0;
	if (e->seq <= d->reached(d->ctx) && !store_lost(d->store, &byte))
		return DUE_REACHED;
	if (failed)
		return DUE_FAILED;
	return e->until_ms != 0 && (uint64_t)clock_mono_ms() >= e->until_ms ? DUE_LATE : DUE_NOT;
}

static bool is_due(struct defer *d)
{
	bool due;

	pthread_mutex_lock(&d->lock);
	due = first_due(d) != DUE_NOT;
	pthread_mutex_unlock(&d->lock);
	return due;
}

/* Take the first entry if it is due. */
static bool pop_due(struct defer *d, struct defer_entry *ret_entry)
{
	enum due due;

	pthread_mutex_lock(&d->lock);
	due = first_due(d);
	if (due != DUE_NOT) {
		*ret_entry = d->ring[d->head];
		d->head = (d->head + 1) & (d->size - 1);
		d->count--;
		d->expired += due == DUE_LATE;
		if (due != DUE_REACHED)
			entry_set_error(ret_entry, EIO);
	}
	pthread_mutex_unlock(&d->lock);
	return due != DUE_NOT;
}

void defer_run(struct defer *d)
{
	struct defer_entry e;

	/* For each entry anew, so that two threads that learn of progress share the work. An entry that is not due yet is
	 * found by whoever makes it so: that is told before they look, under the same lock. */
	while (is_due(d)) {
		bool due;

		pthread_mutex_lock(&d->io_lock);
		due = pop_due(d, &e);
		if (due && d->fd >= 0)
			entry_send(&e, d->fd);
		pthread_mutex_unlock(&d->io_lock);
	}
}

static bool pop_any(struct defer *d, struct defer_entry *ret_entry)
{
	bool any;

	pthread_mutex_lock(&d->lock);
	any = d->count > 0;
	if (any) {
		*ret_entry = d->ring[d->head];
		d->head = (d->head + 1) & (d->size - 1);
		d->count--;
	}
	pthread_mutex_unlock(&d->lock);
	return any;
}

void defer_stop(struct defer *d)
{
	struct defer_entry e;

	defer_run(d);
	pthread_mutex_lock(&d->io_lock);
	while (d->fd >= 0 && pop_any(d, &e)) {
		entry_set_error(&e, EIO);
		entry_send(&e, d->fd);
	}
	d->fd = -1;
	pthread_mutex_unlock(&d->io_lock);
}

void defer_give_up(struct defer *d)
{
	pthread_mutex_lock(&d->lock);
	for (size_t i = 0; i < d->count; i++)
		d->ring[(d->head + i) & (d->size - 1)].until_ms = 1;
	pthread_mutex_unlock(&d->lock);
	defer_run(d);
}

void defer_count(struct defer *d, uint64_t *ret_waiting, uint64_t *ret_expired)
{
	pthread_mutex_lock(&d->lock);
	*ret_waiting = d->count;
	*ret_expired = d->expired;
	pthread_mutex_unlock(&d->lock);
}

bool defer_is_empty(struct defer *d)
{
	bool empty;

	pthread_mutex_lock(&d->lock);
	empty = d->count == 0;
	pthread_mutex_unlock(&d->lock);
	return empty;
}
