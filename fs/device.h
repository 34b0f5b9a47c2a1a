/* SPDX-License-Identifier: MIT
 *
 * device: replies on /dev/fuse, from any thread. A request that is never answered hangs its caller for
 * good, so a reply that the kernel does not take becomes a bare error, and if not even that gets
 * through, the daemon is told to unmount: then the kernel ends what waits.
 */
#ifndef MSYNCFS_DEVICE_H
#define MSYNCFS_DEVICE_H

#include <stdbool.h>
#include <sys/uio.h>

/* Send one reply: iov[0] begins with its header. 0; -ENOENT: its caller has given up; -ENODEV: the
 * mount is gone; else its caller gets EIO. */
int device_reply(int fd, const struct iovec *iov, int count);
/* Something that is no reply (a notification): best effort. */
int device_notify(int fd, const struct iovec *iov, int count);

#endif
