/* SPDX-License-Identifier: MIT
 *
 * ops_lock: opening and closing, and locks that count on all machines (lockd.h), see ops.h.
 *
 * With the kernel's own locks nothing is opened (ENOSYS, and the kernel asks no more). A mount with locks of the cluster has to
 * hear of each close: FLUSH drops the POSIX locks of a process, RELEASE those of an open file. So it answers OPEN, with a number
 * for each open file, and lets the kernel keep what it has cached.
 */
#include "fs/control.h"
#include "fs/lockd.h"
#include "fs/ops.h"
#include "fs/remote.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);

	if (!fs->cluster_locks) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	/* Also of control files: one ENOSYS, and the kernel never asks again. */
	fi->fh = ++fs->opens;
	fi->keep_cache = 1;
	/* Through its cache the kernel would send a line that goes over the end of a page in two requests, and another machine's
	 * line could come between them. */
	if ((fi->flags & O_APPEND) != 0 && fs->shared != NULL && !control_owns(ino))
		fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	struct lock_op op = { .ino = ino, .owner = fi->lock_owner, .end = LOCKS_END, .kind = LOCKS_POSIX };

	if (!fs->cluster_locks)
		fuse_reply_err(req, ENOSYS);
	else if (control_owns(ino))
		fuse_reply_err(req, 0);
	else
		lockd_set(remote_lockd(fs->remote), req, &op);
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);

	if (fs->cluster_locks && !control_owns(ino))
		lockd_close(remote_lockd(fs->remote), ino, fi->fh, fi->flock_release != 0, fi->lock_owner);
	fuse_reply_err(req, 0);
}

static bool fill(uint64_t ino, const struct fuse_file_info *fi, const struct flock *fl, struct lock_op *ret)
{
	*ret = (struct lock_op){ .ino = ino, .owner = fi->lock_owner, .handle = fi->fh, .kind = LOCKS_POSIX,
				 .start = (uint64_t)fl->l_start, .end = LOCKS_END, .pid = (uint32_t)fl->l_pid };
	if (fl->l_len > 0)
		ret->end = ret->start + (uint64_t)fl->l_len - 1;
	ret->type = fl->l_type == F_WRLCK ? LOCKS_EXCLUSIVE : fl->l_type == F_RDLCK ? LOCKS_SHARED : LOCKS_OFF;
	return fl->l_start >= 0 && fl->l_len >= 0 && ret->end >= ret->start;
}

void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *fl)
{
	struct fs *fs = ops_fs(req);
	struct lock_op op;

	if (!fs->cluster_locks || control_owns(ino))
		fuse_reply_err(req, fs->cluster_locks ? ENOLCK : ENOSYS);
	else if (!fill(ino, fi, fl, &op) || op.type == LOCKS_OFF)
		fuse_reply_err(req, EINVAL);
	else
		lockd_get(remote_lockd(fs->remote), req, &op);
}

void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *fl, int wait)
{
	struct fs *fs = ops_fs(req);
	struct lock_op op;

	if (!fs->cluster_locks || control_owns(ino)) {
		fuse_reply_err(req, fs->cluster_locks ? ENOLCK : ENOSYS);
		return;
	}
	if (!fill(ino, fi, fl, &op)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	op.wait = wait != 0;
	lockd_set(remote_lockd(fs->remote), req, &op);
}

void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int how)
{
	struct fs *fs = ops_fs(req);
	struct lock_op op = { .ino = ino, .owner = fi->lock_owner, .handle = fi->fh, .kind = LOCKS_FLOCK, .end = LOCKS_END,
			      .pid = (uint32_t)fuse_req_ctx(req)->pid, .wait = (how & LOCK_NB) == 0 };

	if (!fs->cluster_locks || control_owns(ino)) {
		fuse_reply_err(req, fs->cluster_locks ? ENOLCK : ENOSYS);
		return;
	}
	how &= ~LOCK_NB;
	op.type = how == LOCK_EX ? LOCKS_EXCLUSIVE : how == LOCK_SH ? LOCKS_SHARED : LOCKS_OFF;
	lockd_set(remote_lockd(fs->remote), req, &op);
}
