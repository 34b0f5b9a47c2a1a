/* SPDX-License-Identifier: MIT
 *
 * device: see device.h.
 */
#include "fs/device.h"

#include "fs/log.h"

#include <errno.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ERROR_TRIES  50         /* for a bare error; the kernel may be short of memory for a moment */
#define TRY_PAUSE_NS 10000000
#define EINTR_MAX    1000       /* the kernel does not interrupt these writes at all */

/* Written whole, or an error. */
static int send_once(int fd, const struct iovec *iov, int count)
{
	size_t len = 0;
	ssize_t n = -1;
	int i;

	for (i = 0; i < count; i++)
		len += iov[i].iov_len;
	errno = EINTR;
	for (i = 0; i < EINTR_MAX && n < 0 && errno == EINTR; i++)
		n = writev(fd, iov, count);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

int device_notify(int fd, const struct iovec *iov, int count)
{
	return send_once(fd, iov, count);
}

/* True: the caller has its answer, or there is none. */
static bool is_over(int r)
{
	return r == 0 || r == -ENOENT || r == -ENODEV || r == -ECONNABORTED;
}

int device_reply(int fd, const struct iovec *iov, int count)
{
	static const struct timespec pause = { .tv_nsec = TRY_PAUSE_NS };
	static int64_t logged_s;
	struct fuse_out_header bare = { .len = sizeof bare, .error = -EIO };
	struct iovec one = { &bare, sizeof bare };
	int r = send_once(fd, iov, count), again;

	if (is_over(r))
		return r;
	/* A page of the store that cannot be read (EFAULT): the kernel has ended the request with
	 * EIO, and does not know it any more. Without memory it has not begun with it. */
	if (log_allowed(&logged_s))
		log_error("reply not sent: %s: its caller gets EIO", strerror(-r));
	memcpy(&bare.unique, (const char *)iov[0].iov_base + offsetof(struct fuse_out_header, unique),
	       sizeof bare.unique);
	again = send_once(fd, &one, 1);
	for (int i = 1; i < ERROR_TRIES && !is_over(again); i++) {
		nanosleep(&pause, NULL);
		again = send_once(fd, &one, 1);
	}
	if (!is_over(again)) {
		log_error("the kernel takes no replies: %s: unmounting", strerror(-again));
		/* Some thread of ours takes it: the one that reads requests. */
		kill(getpid(), SIGTERM);
	}
	return r;
}
