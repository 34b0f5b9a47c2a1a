/* SPDX-License-Identifier: MIT
 *
 * ops_data: contents and syncing, see ops.h.
 */
#include "fs/control.h"
#include "fs/ops.h"

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

/* What this write drops; *ret_mode: it may be setuid or setgid. */
static unsigned to_kill(struct fs *fs, fuse_req_t req, uint64_t ino, const struct fuse_write_in *in,
			bool *ret_mode)
{
	struct keys_attr attr;

	*ret_mode = false;
	if ((in->write_flags & FUSE_WRITE_KILL_SUIDGID) == 0)
		return 0;
	if (keys_getattr(fs->keys, ino, &attr) < 0 || (attr.mode & (S_ISUID | S_ISGID)) == 0)
		return KEYS_KILL_PRIV;
	*ret_mode = true;
	return ops_kill_mask(req, &attr);
}

static int write_data(struct fs *fs, fuse_req_t req, uint64_t ino, const char *data, size_t size,
		      uint64_t off, size_t *ret_written)
{
	const struct fuse_write_in *in = (const void *)(fs->request + 1);
	unsigned kill;
	bool mode;
	int r;

	/* libfuse has checked nothing: data must lie within the request. */
	if (size > FS_WRITE_MAX || sizeof *fs->request + sizeof *in + size > fs->request->len)
		return -EIO;
	*ret_written = 0;
	if (size == 0)
		return 0;
	kill = to_kill(fs, req, ino, in, &mode);
	r = keys_write(fs->keys, ino, off, data, size, kill, ret_written);
	if (r == 0 && mode)
		ops_forget_mode(fs, ino);
	return r;
}

void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
	      struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	size_t written = 0;
	int r;

	if (control_owns(ino)) {
		r = control_write(fs, ino);
		if (r < 0)
			ops_error(fs, req, r);
		else
			fuse_reply_write(req, size);
		return;
	}
	r = write_data(fs, req, ino, data, size, (uint64_t)off, &written);
	if (r < 0) {
		ops_error(fs, req, r);
		return;
	}
	ops_changed(fs, false);
	/* O_SYNC includes O_DSYNC. The kernel asks for an fsync too, which then finds nothing to
	 * wait for. */
	if ((fi->flags & O_DSYNC) != 0 && fs->hold == NULL && ops_hold_durable(fs) != 0)
		fuse_reply_err(req, EIO);
	else
		fuse_reply_write(req, written);
}

/* Also of directories: the journal is one prefix, so syncing anything syncs all before it. */
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, ops_hold_durable(ops_fs(req)));
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
		  struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	int r;

	(void)fi;
	if (control_owns(ino)) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	/* The kernel leaves this to us, and does not say whether the caller may keep the bits
	 * (CAP_FSETID). */
	r = ops_kill_priv(fs, req, ino);
	if (r == 0)
		r = keys_fallocate(fs->keys, ino, mode, (uint64_t)off, (uint64_t)len);
	if (r < 0) {
		/* It may have got part of the way. */
		if (r != -EAGAIN)
			ops_forget_mode(fs, ino);
		ops_error(fs, req, r);
		return;
	}
	ops_changed(fs, false);
	fuse_reply_err(req, 0);
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
	size_t copied = 0;
	int r;

	(void)src_fi;
	(void)dst_fi;
	if (control_owns(src) || control_owns(dst) || flags != 0) {
		/* The kernel then copies by reading and writing. */
		fuse_reply_err(req, flags != 0 ? EINVAL : EXDEV);
		return;
	}
	r = ops_kill_priv(fs, req, dst);
	if (r == 0)
		r = keys_copy_range(fs->keys, src, (uint64_t)src_off, dst, (uint64_t)dst_off, len,
				    &copied);
	if (r < 0) {
		ops_error(fs, req, r);
		return;
	}
	ops_changed(fs, false);
	fuse_reply_write(req, copied);
}
