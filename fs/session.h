/* SPDX-License-Identifier: MIT
 *
 * session: the request loop. One thread reads a request, has it answered, and looks after the store
 * in between. For an ordinary operation it makes no system call but the read and the write on the
 * device.
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
uint64_t session_parked(const struct fs *fs);
/* The mount was taken out of the name space by us. */
bool session_detached(const struct fs *fs);

#endif
