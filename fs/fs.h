/* SPDX-License-Identifier: MIT
 *
 * fs: what one mount is made of. All of it belongs to the request thread, but for what is marked
 * [any]; the store's helpers come in through fs_progress() only.
 */
#ifndef MSYNCFS_FS_H
#define MSYNCFS_FS_H

#include "core/keys/keys.h"
#include "core/store/store.h"
#include "fs/defer.h"
#include "fs/inodes.h"
#include "fs/options.h"
#include "fs/pending.h"
#include "fs/reaper.h"

#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define FS_WRITE_MAX  KEYS_WRITE_MAX            /* longest WRITE and READ */
#define FS_DIRBUF_MAX (1024u * 1024u)
#define FS_IOV_MAX    1000 /* pieces of a READ; 1 MiB of single blocks has 257 */
#define FS_OPCODES    64                        /* that are counted one by one */
#define FS_FOREVER_S  1e9                       /* timeout of what only we change */

struct control;
struct guard;
struct remote;
struct repeat;
struct session;

/* A store that other mounts change too. The kernel is told of that by threads that hold nothing that a request could
 * wait for. */
struct fs_shared {
	void *ctx;
	/* What the kernel has cached of ino from byte `off` on may not be what the store has. Returns at
	 * once. */
	void (*stale)(void *ctx, uint64_t ino, uint64_t off);
};

struct fs {
	const struct options *options;
	char *store_path, *mountpoint;          /* absolute */
	struct keys *keys;
	struct store *store;
	struct fuse_session *fuse;
	int fd;                                 /* /dev/fuse; -1 before it is mounted */
	int ready_fd;                           /* of who waits until it is mounted, see daemon.h; -1: nobody */
	char device[24];                        /* of the mount, as the mount table has it; "" if not known */

	struct inodes inodes;
	struct reaper reaper;
	struct control *control;
	struct session *session;
	struct remote *remote;                      /* to other machines, or NULL */
	struct guard *guard;                    /* ends the connection if we are killed, or NULL */
	int unguarded;                          /* why there is none; 0: there is one, or none is needed */
	struct repeat *repeat;                  /* tells inotify of their changes, or NULL */
	struct defer durable;                   /* [any] replies that wait for durable_seq */
	struct defer synced;                    /* [any] replies that wait for disks of other machines, too */
	struct defer checkpoint;                /* [any] replies that wait for checkpoint_seq */
	atomic_bool started;                    /* [any] the queues may be used */
	const struct fs_shared *shared;         /* NULL: every change comes from this mount's kernel */
	struct pending *pending;                /* a remote mount: calls under way to the primary; else NULL */

	uint64_t syncs_failed;                  /* fsyncs of a remote mount for which too few disks were there */
	bool waits;                             /* it was said that we wait for who has the store */
	bool cluster_locks;                     /* locks of programs here count on all machines */
	uint64_t opens;                         /* number of the last open file, with cluster_locks */

	/* The request that is being answered. */
	const struct fuse_in_header *request;   /* raw; NULL between requests */
	fuse_req_t req;                         /* the same, as long as it has no reply */
	struct defer *hold;                     /* its reply waits here until hold_seq, or NULL */
	uint64_t hold_seq;
	bool again;                             /* it was not answered: park it */
	bool last_try;                          /* it was parked long enough: answer it now */

	uint64_t requests[FS_OPCODES];
	struct stat root;                       /* as last seen: the way to the control files */
	char *dirbuf;                           /* FS_DIRBUF_MAX, also for values of xattrs */
	struct iovec iov[FS_IOV_MAX];
};

/* store_options.progress: [any] send the replies that are due, wake the request thread if it waits
 * for space. */
void fs_progress(void *ctx);

#endif
