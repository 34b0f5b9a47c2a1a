/* SPDX-License-Identifier: MIT
 *
 * ops_data: contents and syncing, see ops.h.
 */
#include "fs/control.h"
#include "fs/ops.h"
#include "fs/remote.h"

#include <errno.h>
#include <fcntl.h>

static void read_control(fuse_req_t req, uint64_t ino, size_t size, off_t off)
{
	const char *text;
	size_t len;
	int r = control_read(ops_fs(req), ino, (uint64_t)off, size, &text, &len);

	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_buf(req, text, len);
}

/* The bytes go from the mapping to the kernel in one writev, uncopied. */
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	size_t bytes = 0;
	int count = 0, r;

	if (control_owns(ino)) {
		read_control(req, ino, size, off);
		return;
	}
	if (size > FS_WRITE_MAX)
		size = FS_WRITE_MAX;
	r = keys_read(fs->keys, ino, (uint64_t)off, size, fs->iov, FS_IOV_MAX, &count, &bytes);
	if (r < 0) {
		ops_error(fs, req, r);
		return;
	}
	/* The usual single piece needs no list of pieces of libfuse's own. */
	if (count <= 1)
		fuse_reply_buf(req, count == 1 ? fs->iov[0].iov_base : NULL, bytes);
	else
		fuse_reply_iov(req, fs->iov, count);
	/* The pieces end here. */
	if ((fi->flags & O_NOATIME) == 0)
		ops_touch_atime(fs, ino);
}

static void reply_written(struct fs *fs, fuse_req_t req, const struct call *c, const struct call_result *res)
{
	fuse_reply_write(req, res->number);
	/* Through its cache the kernel has put the bytes where it believes the end to be, which is wrong if the file was changed
	 * elsewhere; past its cache (op_open) it has them not at all, but perhaps a page that somebody read meanwhile. */
	if (c->op == CALL_APPEND)
		fs->shared->stale(fs->shared->ctx, c->ino, res->off < c->off ? res->off : c->off);
}

/* The offset of an append is where the kernel believes the end to be. Where others change the file
 * that may be wrong, and the primary decides; elsewhere it is right, and a program that asks for
 * another place (RWF_NOAPPEND) gets it. */
static enum call_op write_op(const struct fs *fs, const struct fuse_file_info *fi)
{
	return (fi->flags & O_APPEND) != 0 && fs->shared != NULL ? CALL_APPEND : CALL_WRITE;
}

/* Other machines have it: now this one, too. */
static void reply_synced(struct fs *fs, fuse_req_t req, const struct call *c, const struct call_result *res)
{
	(void)res;
	if (ops_hold_durable(fs) != 0)
		fuse_reply_err(req, EIO);
	else
		fuse_reply_write(req, c->src_off);
	/* It is answered between two requests. */
	if (fs->hold != NULL)
		defer_run(fs->hold);
	fs->hold = NULL;
}

static void write_sync(fuse_req_t req, const char *data, size_t size)
{
	struct call c = { .op = CALL_SYNC, .flags = CALL_DURABLE, .src_off = size };
	struct fs *fs = ops_fs(req);
	unsigned replicas, ms;
	int r;

	if (!control_parse_sync(data, size, &replicas, &ms)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (replicas == 0) {
		reply_synced(fs, req, &c, NULL);
	} else if (fs->pending != NULL) {
		c.how = replicas;
		c.len = ms;
		/* At the same time as the others. */
		store_sync_request(fs->store);
		ops_fill_caller(req, &c);
		ops_call(fs, req, &c, reply_synced);
	} else {
		r = remote_wait(fs->remote, fs->request->unique, (uint32_t)size, replicas, ms);
		if (r < 0) {
			fuse_reply_err(req, -r);
			return;
		}
		/* The net thread answers it. */
		fs->req = NULL;
		fuse_reply_none(req);
	}
}

static void write_control(fuse_req_t req, uint64_t ino, const char *data, size_t size)
{
	struct fs *fs = ops_fs(req);
	int r;

	if (control_is_sync(ino)) {
		write_sync(req, data, size);
		return;
	}
	r = control_write(fs, ino, data, size);
	if (r < 0)
		ops_error(fs, req, r);
	else
		fuse_reply_write(req, size);
}

void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
	      struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	const struct fuse_write_in *in = (const void *)(fs->request + 1);
	struct call c;

	/* libfuse has checked nothing: data must lie within the request. */
	if (size > FS_WRITE_MAX || sizeof *fs->request + sizeof *in + size > fs->request->len) {
		fuse_reply_err(req, EIO);
		return;
	}
	if (control_owns(ino)) {
		write_control(req, ino, data, size);
		return;
	}
	if (size == 0) {
		fuse_reply_write(req, 0);
		return;
	}
	call_init(&c, write_op(fs, fi));
	c.ino = ino;
	c.off = (uint64_t)off;
	c.data = data;
	c.size = (uint32_t)size;
	/* Who asks matters only then. */
	if ((in->write_flags & FUSE_WRITE_KILL_SUIDGID) != 0) {
		ops_fill_caller(req, &c);
		c.flags |= CALL_KILL;
	}
	/* O_SYNC includes O_DSYNC. The kernel asks for an fsync too, which then finds nothing to
	 * wait for. */
	if ((fi->flags & O_DSYNC) != 0)
		c.flags |= CALL_DURABLE;
	ops_call(fs, req, &c, reply_written);
}

/* Also of directories: the journal is one prefix, so syncing anything syncs all before it. */
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct call c = { .op = CALL_FSYNC, .flags = CALL_DURABLE };
	struct fs *fs = ops_fs(req);

	(void)ino;
	(void)datasync;
	(void)fi;
	ops_fill_caller(req, &c);
	if (fs->pending != NULL)
		ops_ask_disks(fs, &c);
	ops_call(fs, req, &c, ops_reply_done);
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
		  struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	struct call c = { .op = CALL_FALLOCATE, .ino = ino, .how = (uint32_t)mode, .off = (uint64_t)off,
			  .len = (uint64_t)len };

	(void)fi;
	if (control_owns(ino)) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	/* The kernel leaves this to us, and does not say whether the caller may keep the bits
	 * (CAP_FSETID). */
	ops_fill_caller(req, &c);
	if (c.cred.uid != 0)
		c.flags |= CALL_KILL;
	ops_call(fs, req, &c, ops_reply_done);
}

/* SEEK_DATA and SEEK_HOLE; the others never leave the kernel. */
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	uint64_t found;
	int r;

	(void)fi;
	/* With the kernel's write-back cache it has data that we have not seen, and does not write it before it asks. ENOSYS
	 * makes it answer by itself: all is data. */
	if (fs->options->writeback) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	if (control_owns(ino)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	r = keys_seek(fs->keys, ino, (uint64_t)off, whence, &found);
	if (r < 0)
		ops_error(fs, req, r);
	else
		fuse_reply_lseek(req, (off_t)found);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t src, off_t src_off,
			struct fuse_file_info *src_fi, fuse_ino_t dst, off_t dst_off,
			struct fuse_file_info *dst_fi, size_t len, int flags)
{
	struct fs *fs = ops_fs(req);
	struct call c = { .op = CALL_COPY_RANGE, .src = src, .src_off = (uint64_t)src_off, .ino = dst,
			  .off = (uint64_t)dst_off, .len = len };

	(void)src_fi;
	(void)dst_fi;
	if (control_owns(src) || control_owns(dst) || flags != 0) {
		/* The kernel then copies by reading and writing. */
		fuse_reply_err(req, flags != 0 ? EINVAL : EXDEV);
		return;
	}
	ops_fill_caller(req, &c);
	if (c.cred.uid != 0)
		c.flags |= CALL_KILL;
	ops_call(fs, req, &c, reply_written);
}
