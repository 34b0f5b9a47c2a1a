/* SPDX-License-Identifier: MIT
 *
 * link: what ties a mount to those of other machines (core/replica/DESIGN.md): a primary feeds remote mounts and
 * runs their calls; a remote mount follows its primary and sends it the calls of its own kernel.
 *
 * Threads: the request thread owns the store and the follower's side (link.c, follower.c); the net thread owns the
 * feeder's side (feeder.c). They meet in an inbox for the request thread (a short mutex, bounded: a full one pauses
 * its connection), in net_post() the other way, and in the feed. Neither ever waits for the other.
 */
#ifndef MSYNCFS_LINK_H
#define MSYNCFS_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fs;
struct link;

/* Before the store is opened: who listens or connects has a link, others have none (*ret NULL). Reads the key file.
 * Errors were logged; -errno. */
int link_new(struct fs *fs, struct link **ret);
void link_free(struct link *l);

/* The store was opened: takes its role, listens or connects; a remote mount that is no state of its primary yet waits
 * until it is one (first sync). Errors were logged. */
int link_start(struct link *l);
/* The store is open, and this mount is none of another machine's: is that right for its role? 0 or -errno, logged. */
int link_check_alone(struct fs *fs);
/* The device is there: the kernel can be told of changes from elsewhere. */
int link_attach(struct link *l);
/* No request is answered any more: links end, calls without an answer get EIO. The device may be closed after it. */
void link_stop(struct link *l);

/* Request thread, between requests: some of what waits. True: there is more. */
bool link_step(struct link *l);
/* Nothing but changes of the primary may touch the store now. */
bool link_owns_store(const struct link *l);
/* store_options.committed; ctx is the fs. */
void link_committed(void *ctx, const uint8_t *rec, uint32_t len);
/* [any] The store made progress. */
void link_progress(struct link *l);
/* The kernel knows nothing (any more) of this inode, which has no name: what is to become of it is known elsewhere. */
void link_orphan(struct link *l, uint64_t ino);
bool link_leads(const struct link *l);

/* Lines for status. Returns the length. */
size_t link_status(struct link *l, char *buf, size_t size);

#endif
