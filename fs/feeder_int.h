/* SPDX-License-Identifier: MIT
 *
 * feeder_int: what the rooms of the feeder share: feeder.c (the net thread at work, connections), feeder_up.c (that to our own
 * primary), feeder_engine.c (what the engine wants), feeder_diff.c (comparisons), feeder_post.c (orders and answers of the request
 * thread), feeder_orphans.c (files without a name). Net thread, unless it is said otherwise. Nobody else includes it.
 */
#ifndef MSYNCFS_FEEDER_INT_H
#define MSYNCFS_FEEDER_INT_H

#include "fs/remote_int.h"

#define SPARES 8u

struct diff_job;

struct feeder {
	struct feeder *next;
	net_id id;
	bool closed;
	bool reading;                   /* reader is at reader.next */
	struct feed_reader reader;
	struct item *stuck;             /* a frame that the engine could not take yet; the connection is paused */
	struct diff_job *diff;
};

static inline uint64_t now_ms(void)
{
	return (uint64_t)remote_now_ms();
}

/* feeder.c */
struct feeder *feeder_find(struct remote *l, net_id id);
/* The last change that is in the feed. */
seq_t feeder_fed(const struct remote *l);
/* Frames that the engine could not take before. */
void feeder_retry_all(void *l);
/* It would be waited for: the link ends. -ENOTCONN. */
int feeder_no_memory(struct remote *l, net_id id);

/* feeder_up.c: the connection to our primary */
void feeder_up_opened(struct remote *l, net_id id, const char *address);
int feeder_up_frame(struct remote *l, net_id id, const struct wire_frame *w, const uint8_t *payload);
void feeder_up_writable(struct remote *l, net_id id);
void feeder_up_closed(struct remote *l, net_id id, const struct net_end *end);

/* feeder_engine.c */
extern const struct primary_ops feeder_engine_ops;
/* Memory for news that must not be lost. */
void feeder_refill_spares(struct remote *l);
void feeder_free_spares(struct remote *l);

/* feeder_diff.c, for the engine */
int feeder_diff_start(void *l, link_t id, const struct msg_hello *hello);
int feeder_diff_frame(void *l, link_t id, unsigned type, const uint8_t *bytes, uint32_t len);
void feeder_diff_stop(void *l, link_t id);
/* [any] The connection takes more; to be ended; a frame of the other end, which it takes over. */
void feeder_diff_tell(struct diff_job *job, bool stop, struct item *m);
/* The net thread has ended: wait for all of them. */
void feeder_diff_release(struct remote *l);

/* feeder_orphans.c */
/* Tell the request thread which files nobody else keeps it from marking. */
void feeder_mark_orphans(struct remote *l);
/* Nobody who is fed holds that inode any more. */
void feeder_orphan_freed(struct remote *l, uint64_t ino);

/* feeder_post.c */
/* For the engine: what a program waited for is done, or not. */
void feeder_waited(void *l, uint64_t cookie, int error);
void feeder_init_posts(struct remote *l);

#endif
