/* SPDX-License-Identifier: MIT
 *
 * notify: tells the kernel of changes that it did not ask for: names that lead elsewhere now, attributes
 * and contents that are old. Threads of its own do it, since the kernel may hold the lock that it needs
 * for a program whose request is still to be answered: nobody who answers requests may wait for that.
 * What belongs to one directory or inode is told in order, by one thread.
 *
 * Any thread may add. The queue is bounded: with more than NOTIFY_MAX entries an inode is told of as a
 * whole instead of by each change.
 */
#ifndef MSYNCFS_NOTIFY_H
#define MSYNCFS_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NOTIFY_THREADS 4u
#define NOTIFY_MAX     4096u

struct notify;

/* fd: the device, which must stay open until notify_stop() has returned. */
int notify_start(int fd, struct notify **ret);
/* Ask the threads to end: what is left in the queue is not told any more. What is under way may wait for a program whose
 * request is still to be answered: somebody has to answer until notify_ended(). NULL is fine for all three. */
void notify_end(struct notify *n);
bool notify_ended(struct notify *n);
void notify_stop(struct notify *n);

/* Is there memory set aside for what one change can say? If not, and there is none to be had, it is to wait: what the kernel is not
 * told of it keeps for ever. NULL: yes. */
bool notify_ready(struct notify *n);

/* The name does not lead where it led. */
void notify_name(struct notify *n, uint64_t dir, const char *name, uint32_t len);
/* Attributes of ino are others. */
void notify_attr(struct notify *n, uint64_t ino);
/* Attributes, and contents from byte `off` on (len 0: to the end). */
void notify_data(struct notify *n, uint64_t ino, uint64_t off, uint64_t len);
/* Before the first entry: call told(), from any thread and under a lock, when an entry was told after notify_told() said no. */
void notify_watch(struct notify *n, void (*told)(void *ctx), void *ctx);
/* This moment; and whether the kernel has been told of all that was queued until then. */
uint64_t notify_mark(void);
bool notify_told(struct notify *n, uint64_t mark_ns);
/* Entries that wait, and how long the oldest has. */
void notify_lag(struct notify *n, size_t *ret_count, uint64_t *ret_ns);

#endif
