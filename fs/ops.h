/* SPDX-License-Identifier: MIT
 *
 * ops: the requests of the kernel, translated to calls of keys. ops.c has the table, names and
 * attributes and what all share; ops_data.c contents and syncing; ops_dir.c listing; ops_xattr.c
 * extended attributes. Each handler answers its request exactly once, or parks it with ops_error().
 *
 * Nothing is opened: OPEN, OPENDIR, FLUSH and CREATE are answered with ENOSYS, and the kernel stops
 * asking. It creates with MKNOD, and keeps what it has cached, since all changes pass through us. A
 * new small file costs LOOKUP, MKNOD and WRITE.
 */
#ifndef MSYNCFS_OPS_H
#define MSYNCFS_OPS_H

#include "fs/fs.h"

#include <sys/stat.h>

extern const struct fuse_lowlevel_ops ops_table;

/* Each handler begins with it. */
static inline struct fs *ops_fs(fuse_req_t req)
{
	struct fs *fs = fuse_req_userdata(req);

	fs->req = req;
	return fs;
}

/* Answer with -error, or park the request if it is -EAGAIN. */
void ops_error(struct fs *fs, fuse_req_t req, int error);
/* A change of names (`names`) or of anything else was made: hold the reply back if the mount is
 * synchronous. */
void ops_changed(struct fs *fs, bool names);
/* Hold the reply until all is durable that was done so far. 0, or EIO: the store has failed. */
int ops_hold_durable(struct fs *fs);
/* Hold the reply until a checkpoint has all that was done so far. Negative errno as from keys. */
int ops_hold_checkpoint(struct fs *fs);
void ops_fill_stat(const struct keys_attr *attr, struct stat *ret_stat);
void ops_fill_entry(const struct keys_attr *attr, struct fuse_entry_param *ret_entry);
void ops_fill_cred(fuse_req_t req, struct keys_cred *ret_cred);
/* Is the caller in this group? Reads /proc if it is not its first one: only for what is rare. */
bool ops_in_group(fuse_req_t req, gid_t gid);
/* What somebody without CAP_FSETID takes from the mode by a change: bits for keys_write() and
 * keys_setattr(). */
unsigned ops_kill_mask(fuse_req_t req, const struct keys_attr *attr);
/* Drop setuid, setgid and capabilities of ino, if it has any, as a change by this caller does. */
int ops_kill_priv(struct fs *fs, fuse_req_t req, uint64_t ino);
/* The mode of ino is about to change by a request whose reply does not tell the kernel: make it ask
 * again. */
void ops_forget_mode(struct fs *fs, uint64_t ino);

/* ino was read: after the reply, since nobody waits for it. */
void ops_touch_atime(struct fs *fs, uint64_t ino);

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
	      struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
		  struct fuse_file_info *fi);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t src, off_t src_off,
			struct fuse_file_info *src_fi, fuse_ino_t dst, off_t dst_off,
			struct fuse_file_info *dst_fi, size_t len, int flags);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

#endif
