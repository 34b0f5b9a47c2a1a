/* SPDX-License-Identifier: MIT
 *
 * remote: what ties a mount to those of other machines (core/replica/DESIGN.md): a primary feeds remote mounts and
 * runs their calls; a remote mount follows its primary and sends it the calls of its own kernel.
 *
 * Threads: the request thread owns the store and the follower's side (remote*.c, follower.c); the net thread owns the
 * feeder's side (feeder*.c). They meet in an inbox for the request thread (a short mutex, bounded: a full one pauses
 * its connection), in net_post() the other way, and in the feed. Neither ever waits for the other.
 */
#ifndef MSYNCFS_REMOTE_H
#define MSYNCFS_REMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fs;
struct lockd;
struct remote;
struct text;

/* Before the store is opened: who listens or connects has a link, others have none (*ret NULL). Reads the key file.
 * Errors were logged; -errno. */
int remote_new(struct fs *fs, struct remote **ret);
void remote_free(struct remote *l);

/* The store was opened: takes its role, listens or connects; a remote mount that is no state of its primary yet waits
 * until it is one (first sync). Errors were logged. */
int remote_start(struct remote *l);
/* The store is open, and this mount is none of another machine's: is that right for its role? 0 or -errno, logged. */
int remote_check_alone(struct fs *fs);
/* The device is there: the kernel can be told of changes from elsewhere. */
int remote_attach(struct remote *l);
/* No request is answered any more: links end, calls without an answer get EIO. The device may be closed after it. */
void remote_stop(struct remote *l);

/* Request thread, between requests: some of what waits. True: there is more. */
bool remote_step(struct remote *l);
/* Nothing but changes of the primary may touch the store now. */
bool remote_owns_store(const struct remote *l);
/* store_options.committed; ctx is the fs. */
void remote_committed(void *ctx, const uint8_t *rec, uint32_t len);
/* [any] The store made progress. */
void remote_progress(struct remote *l);
/* The kernel knows nothing (any more) of this inode, which has no name: what is to become of it is known elsewhere. */
void remote_orphan(struct remote *l, uint64_t ino);
/* The locks of the cluster. */
struct lockd *remote_lockd(struct remote *l);
/* Request thread of a primary: answer the write request `unique` of so many bytes when all that was done so far is on disk here and
 * on `replicas` other machines, or with ETIMEDOUT. 0: it will be answered. */
int remote_wait(struct remote *l, uint64_t unique, uint32_t size, uint32_t replicas, uint32_t wait_ms);
/* Request thread: does an fsync here wait for disks of other machines, beside this store's? That of a remote mount asks its
 * primary instead. */
bool remote_waits(const struct remote *l);
/* [any] Up to here all disks have it that fsync asks for. */
uint64_t remote_synced(const struct remote *l);
/* Request thread: -ESTALE if the state is older than reads may see (max-stale); else 0. */
int remote_may_read(const struct remote *l);
/* Request thread: for how long, in seconds, the kernel may use an answer of now without asking again. */
double remote_valid_s(const struct remote *l);
/* Request thread: the last changes; NULL: none are kept. */
struct feed;
const struct feed *remote_feed(const struct remote *l);
bool remote_leads(const struct remote *l);
/* Changes wait a moment: the primary is being handed over. */
bool remote_parks(const struct remote *l);
/* `promote` and `demote`: begin; the role in status tells when it is done. name: of the remote mount that is to be the
 * primary, or "". 0; -EBUSY, -EINVAL: not possible, see the log. */
int remote_promote(struct remote *l);
int remote_demote(struct remote *l, const char *name);

/* Request thread: lines for status. */
void remote_status(struct remote *l, struct text *t);
/* A line for each lock: on the primary of all machines, elsewhere of this one. Returns the length of all, of which at most
 * size - 1 bytes and a NUL are written. */
size_t remote_locks(const struct remote *l, char *buf, size_t size);

#endif
