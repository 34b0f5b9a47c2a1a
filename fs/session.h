/* SPDX-License-Identifier: MIT
 *
 * session: the request loop. One thread reads a request, has it answered, and looks after the store
 * in between.
 *
 * System calls. For an ordinary operation this thread makes none but the read and the write on the device. What else it calls, each
 * for a reason that is rarer than requests (9004-requests.sh counts them):
 *   futex            to wake a helper that sleeps: the syncer for an fsync, the checkpointer once a checkpoint, the provisioner when space is
 *                    needed after 100 ms without a change; and when one of the short mutexes (store_int.h, defer.h) is held just then
 *   fstat            for an fsync that finds nothing to sync: is the file whole?
 *   timer_settime    the tick starts with the first change after a checkpoint, and stops when there is nothing to do
 *   mincore, madvise at the first look at each 256 KiB of the store since it was opened (map.h): is it there? If not, read it
 *   poll, read       of the eventfd and the device, while requests are parked or wait for a checkpoint, and always with other machines
 *   write            to the eventfd of the net thread, if that sleeps
 *   brk, mmap...     when the tables that grow with the kernel's inodes, or with parked requests, do
 *   open, read...    of /proc/PID/status: is the caller in the group? Asked only when setgid or a group is at stake
 *   writev           of a barrier to the device, when another machine asks whether a lock is just being given up
 *   write, sendto    a line for the log; getpid for `status`
 * It waits for none of them but the mutexes and the log. What can make it wait is memory: a page of the store that is not in the page cache is read from the disk
 * when it is touched, and all requests wait for that. See README.md, Limits.
 *
 * Parking: an operation that finds no space yet (-EAGAIN) was not done. Its bytes are kept and it
 * is begun anew when the store has made progress, until PARK_LIMIT_S have passed; then it fails
 * with ENOSPC. Other requests go on.
 */
#ifndef MSYNCFS_SESSION_H
#define MSYNCFS_SESSION_H

#include <stdbool.h>
#include <stdint.h>

struct fs;

/* Block the signals that belong to the request thread; call it before any other thread is
 * started. */
void session_block_signals(void);

int session_init(struct fs *fs);
void session_release(struct fs *fs);
/* Give the session the device of the mount, with our own reading and writing. */
int session_attach(struct fs *fs);
/* Until unmounted or told to stop by a signal; calls ready() once the kernel has been answered. 0
 * or what broke it. */
int session_run(struct fs *fs, void (*ready)(struct fs *fs));
/* The loop has ended, and somebody must still be waited for whom a program of this machine may hold up: for at most a
 * moment take a request that is left, and answer it with EIO. */
void session_refuse(struct fs *fs);
/* [any] The store has moved: look at what waits. */
void session_wake(struct fs *fs);
/* Before session_run(): until somebody calls session_wake(), or for so long; the first time it returns at once. */
void session_wait(struct fs *fs, int ms);
/* Request thread: lockd_barrier(number) is called when all requests that the kernel had for us by now have been read and dealt
 * with. */
int session_barrier(struct fs *fs, uint64_t number);
uint64_t session_parked(const struct fs *fs);
/* The mount was taken out of the name space by us. */
bool session_detached(const struct fs *fs);

#endif
