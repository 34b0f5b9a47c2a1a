/* SPDX-License-Identifier: MIT
 *
 * ops: the requests of the kernel, translated to calls of keys. ops.c has the table, names and
 * attributes and what all share; ops_data.c contents and syncing; ops_dir.c listing; ops_lock.c locks; ops_xattr.c
 * extended attributes. Each handler answers its request exactly once, or parks it with ops_error().
 *
 * Nothing is opened: OPEN (but see ops_lock.c), OPENDIR, FLUSH and CREATE are answered with ENOSYS, and the kernel stops
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
/* Every change goes through here: run it on this store, or send it to the primary, and call reply()
 * when it was made; after an error the request is answered, or parked, without. Names and data have
 * to last only until this returns. */
void ops_call(struct fs *fs, fuse_req_t req, struct call *c, fs_reply_fn *reply);
/* A call of a remote mount was answered, and its change is in this store: tell the kernel. ctx is the fs. */
void ops_answer(void *ctx, struct pending_call *p, const struct call_result *res);
/* 0, or the errno of a call that would make, remove or hide what belongs to the control files: also
 * for calls of other machines. */
int ops_refuses(const struct call *c);
/* ino lost its last name by a change made here. */
void ops_orphaned(struct fs *fs, uint64_t ino);
/* The kernel has `count` lookups less of ino. */
void ops_forget(struct fs *fs, uint64_t ino, uint64_t count);
/* Fill in who asks: credentials, and how to find out more. */
void ops_fill_caller(fuse_req_t req, struct call *c);
/* A reply for what needs no more than "done". */
void ops_reply_done(struct fs *fs, fuse_req_t req, const struct call *c, const struct call_result *res);
/* Hold the reply until all that was done so far is on the disks that fsync asks for, those of other machines included if
 * this is a primary. 0, or EIO: the store has failed. */
int ops_hold_durable(struct fs *fs);
/* A remote mount: make c the call that asks for those disks. */
void ops_ask_disks(const struct fs *fs, struct call *c);
/* Hold the reply until a checkpoint has all that was done so far. Negative errno as from keys. */
int ops_hold_checkpoint(struct fs *fs);
void ops_fill_stat(const struct keys_attr *attr, struct stat *ret_stat);
void ops_fill_entry(const struct fs *fs, const struct keys_attr *attr, struct fuse_entry_param *ret_entry);
/* For how long the kernel may use what it is told now: for ever, but with max-stale. */
double ops_valid_s(const struct fs *fs);
/* Does this request read, of a remote mount whose state is too old for that (max-stale)? */
bool ops_is_too_old(struct fs *fs, const struct fuse_in_header *in);

/* ino was read: after the reply, since nobody waits for it. A remote mount leaves the time as it
 * is. */
void ops_touch_atime(struct fs *fs, uint64_t ino);

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *fl);
void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *fl, int wait);
void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int how);
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
