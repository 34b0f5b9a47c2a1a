/* SPDX-License-Identifier: MIT
 *
 * ops: see ops.h. Here: the table, names, attributes, and what all handlers share.
 */
#include "fs/ops.h"

#include "core/base.h"
#include "fs/control.h"
#include "fs/log.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#define GROUPS_MAX 256          /* of a process, that are looked at */

/* ---- Shared ---- */

static void log_damage(uint64_t ino)
{
	static int64_t logged_s;

	if (log_allowed(&logged_s))
		log_error("ino=%llu: damage: %s: run msyncfs check", (unsigned long long)ino,
			  err_last());
}

void ops_error(struct fs *fs, fuse_req_t req, int error)
{
	uint64_t byte;

	/* What the reaper still holds is free space, too. */
	if (error == -ENOSPC && reaper_has_work(fs) && !fs->last_try)
		error = -EAGAIN;
	if (error == -EAGAIN) {
		if (!fs->last_try) {
			fs->again = true;
			fs->req = NULL;
			fuse_reply_none(req);
			return;
		}
		error = -ENOSPC;
	}
	/* Of a store that lost pages, what cannot be verified is what is not there. */
	if (error == -EUCLEAN && store_lost(fs->store, &byte))
		error = -EIO;
	if (error == -EUCLEAN && fs->request != NULL)
		log_damage(fs->request->nodeid);
	fuse_reply_err(req, -error);
}

int ops_hold_durable(struct fs *fs)
{
	uint64_t seq = store_seq(fs->store), byte;

	/* In this order: a store that failed behind seq has not failed those who wait for seq. But a file
	 * that lost a part holds nothing of what was promised. */
	if (store_lost(fs->store, &byte))
		return EIO;
	/* No sync follows that would find out whether the file is still whole: so look, for one fstat. */
	if (store_durable_seq(fs->store) >= seq)
		return store_failed(fs->store) == 0 && store_check_file(fs->store) < 0 ? EIO : 0;
	if (store_failed(fs->store) != 0)
		return EIO;
	fs->hold = &fs->durable;
	fs->hold_seq = seq;
	store_sync_request(fs->store);
	return 0;
}

int ops_hold_checkpoint(struct fs *fs)
{
	uint64_t seq = store_seq(fs->store);
	int r = store_checkpoint(fs->store);

	/* -EAGAIN: one is being written, which may be too old for us; ask again when it is done. */
	if (r < 0)
		return r;
	if (store_checkpoint_seq(fs->store) < seq) {
		fs->hold = &fs->checkpoint;
		fs->hold_seq = seq;
	}
	return 0;
}

void ops_changed(struct fs *fs, bool names)
{
	if (!fs->options->sync && !(names && fs->options->dirsync))
		return;
	/* With a failed store the change would not have been made: then the queue answers EIO. */
	if (ops_hold_durable(fs) != 0) {
		fs->hold = &fs->durable;
		fs->hold_seq = UINT64_MAX;
	}
}

static struct timespec to_timespec(struct keys_time t)
{
	return (struct timespec){ .tv_sec = t.sec, .tv_nsec = t.nsec };
}

static struct keys_time from_timespec(struct timespec t)
{
	return (struct keys_time){ .sec = t.tv_sec, .nsec = (uint32_t)t.tv_nsec };
}

void ops_fill_stat(const struct keys_attr *attr, struct stat *ret_stat)
{
	struct stat st = {
		.st_ino = attr->ino,
		.st_mode = attr->mode,
		.st_nlink = attr->nlink,
		.st_uid = attr->uid,
		.st_gid = attr->gid,
		.st_size = (off_t)attr->size,
		.st_blksize = 4096,
		.st_blocks = (blkcnt_t)(attr->blocks * 8),
		.st_atim = to_timespec(attr->atime),
		.st_mtim = to_timespec(attr->mtime),
		.st_ctim = to_timespec(attr->ctime),
	};

	if (S_ISDIR(attr->mode))
		st.st_size = (off_t)(attr->size * 20);  /* an entry's item without its name */
	else if ((attr->flags & KEYS_ATTR_INLINE) != 0 && attr->blocks == 0)
		st.st_blocks = (blkcnt_t)((attr->inline_len + 511) / 512);     /* not a hole */
	if (S_ISCHR(attr->mode) || S_ISBLK(attr->mode))
		st.st_rdev = attr->aux;
	*ret_stat = st;
}

void ops_fill_entry(const struct keys_attr *attr, struct fuse_entry_param *ret_entry)
{
	*ret_entry = (struct fuse_entry_param){
		.ino = attr->ino,
		.attr_timeout = FS_FOREVER_S,
		.entry_timeout = FS_FOREVER_S,
	};
	ops_fill_stat(attr, &ret_entry->attr);
}

void ops_fill_cred(fuse_req_t req, struct keys_cred *ret_cred)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	*ret_cred = (struct keys_cred){ .uid = ctx->uid, .gid = ctx->gid, .umask = ctx->umask };
}

bool ops_in_group(fuse_req_t req, gid_t gid)
{
	gid_t list[GROUPS_MAX];
	int n;

	if (fuse_req_ctx(req)->gid == gid)
		return true;
	n = fuse_req_getgroups(req, GROUPS_MAX, list);
	for (int i = 0; i < n && i < GROUPS_MAX; i++)
		if (list[i] == gid)
			return true;
	return false;
}

unsigned ops_kill_mask(fuse_req_t req, const struct keys_attr *attr)
{
	/* Setgid without group-execute once meant mandatory locking: members of the group keep it. */
	bool asks = (attr->mode & (S_ISGID | S_IXGRP)) == S_ISGID && !S_ISDIR(attr->mode);

	return asks && !ops_in_group(req, attr->gid) ? KEYS_KILL_PRIV | KEYS_KILL_SGID :
						       KEYS_KILL_PRIV;
}

int ops_kill_priv(struct fs *fs, fuse_req_t req, uint64_t ino)
{
	struct keys_setattr set = { 0 };
	struct keys_attr attr;
	int r;

	if (fuse_req_ctx(req)->uid == 0)
		return 0;
	r = keys_getattr(fs->keys, ino, &attr);
	if (r < 0)
		return r;
	if ((attr.mode & (S_ISUID | S_ISGID)) == 0 && (attr.flags & KEYS_ATTR_XATTR) == 0)
		return 0;
	set.mask = ops_kill_mask(req, &attr);
	r = keys_setattr(fs->keys, ino, &set, &attr);
	if (r == 0)
		ops_forget_mode(fs, ino);
	return r;
}

/* With a negative offset the kernel drops attributes only, which takes no lock that a request in
 * flight may hold. */
void ops_forget_mode(struct fs *fs, uint64_t ino)
{
	(void)fuse_lowlevel_notify_inval_inode(fs->fuse, ino, -1, 0);
}

void ops_touch_atime(struct fs *fs, uint64_t ino)
{
	/* No space for it, or a failed store, is no reason to fail a read. */
	if (!fs->options->read_only && fs->options->atime != KEYS_NOATIME)
		(void)keys_touch_atime(fs->keys, ino, fs->options->atime);
}

static void orphaned(struct fs *fs, uint64_t ino)
{
	if (ino != 0 && !inodes_mark_orphan(&fs->inodes, ino))
		reaper_add(fs, ino);
}

static void forget(struct fs *fs, uint64_t ino, uint64_t count)
{
	if (control_owns(ino))
		control_forget(fs, ino);
	else if (ino != KEYS_ROOT_INO && inodes_forget(&fs->inodes, ino, count))
		reaper_add(fs, ino);
}

/* Tell the kernel of an inode that exists; it holds one lookup more of it then. */
static void reply_entry(struct fs *fs, fuse_req_t req, const struct keys_attr *attr)
{
	struct fuse_entry_param entry;
	int r = inodes_ref(&fs->inodes, attr->ino);

	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	ops_fill_entry(attr, &entry);
	if (fuse_reply_entry(req, &entry) < 0)
		forget(fs, attr->ino, 1);
}

/* The end of every operation that made an entry. */
static void reply_made(struct fs *fs, fuse_req_t req, int r, const struct keys_attr *attr)
{
	if (r < 0) {
		ops_error(fs, req, r);
		return;
	}
	ops_changed(fs, true);
	reply_entry(fs, req, attr);
}

static void reply_names(struct fs *fs, fuse_req_t req, int r)
{
	if (r < 0) {
		ops_error(fs, req, r);
		return;
	}
	ops_changed(fs, true);
	fuse_reply_err(req, 0);
}

/* Nothing can be made or removed beside the control files, nor their directory itself. True: req
 * was answered. */
static bool refuse_control(fuse_req_t req, uint64_t dir, const char *name, int error)
{
	if (control_owns(dir))
		error = EPERM;
	else if (!control_is_name(dir, name))
		return false;
	fuse_reply_err(req, error);
	return true;
}

/* ---- Session ---- */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fs *fs = userdata;
	unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_DONT_MASK |
			FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO |
			FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_POSIX_ACL | FUSE_CAP_CACHE_SYMLINKS |
			FUSE_CAP_EXPLICIT_INVAL_DATA;

	if (fs->options->writeback)
		want |= FUSE_CAP_WRITEBACK_CACHE;
	/* Left out: ATOMIC_O_TRUNC (nothing is opened), AUTO_INVAL_DATA (nothing changes behind the
	 * kernel), HANDLE_KILLPRIV (see session.c), locks (the kernel's own are right and cost
	 * nothing). */
	conn->want = want & conn->capable;
	conn->max_write = FS_WRITE_MAX;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
	conn->time_gran = 1;
	if (fs->options->writeback && (conn->want & FUSE_CAP_WRITEBACK_CACHE) == 0)
		log_warn("writeback: this kernel does not have it, ignoring");
}

/* Opening is free: see ops.h. */
static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, ENOSYS);
}

static void op_create(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	(void)dir;
	(void)name;
	(void)mode;
	(void)fi;
	fuse_reply_err(req, ENOSYS);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct keys_statfs figures;
	struct statvfs st;

	(void)ino;
	keys_statfs(ops_fs(req)->keys, &figures);
	st = (struct statvfs){
		.f_bsize = 4096,
		.f_frsize = 4096,
		.f_blocks = figures.blocks,
		.f_bfree = figures.bfree,
		.f_bavail = figures.bavail,
		.f_files = figures.files,
		.f_ffree = figures.ffree,
		.f_favail = figures.ffree,
		.f_namemax = KEYS_NAME_MAX,
	};
	fuse_reply_statfs(req, &st);
}

/* ---- Looking up and forgetting ---- */

static void lookup_control(fuse_req_t req, uint64_t dir, const char *name)
{
	struct fuse_entry_param entry;
	int r = control_lookup(ops_fs(req), dir, name, &entry);

	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_entry(req, &entry);
}

static void op_lookup(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	const struct fuse_entry_param nothing = { .ino = 0, .entry_timeout = FS_FOREVER_S };
	struct fs *fs = ops_fs(req);
	struct keys_attr attr;
	int r;

	if (control_owns(dir) || control_is_name(dir, name)) {
		lookup_control(req, dir, name);
		return;
	}
	r = keys_lookup(fs->keys, dir, name, strlen(name), &attr);
	/* An orphan that the kernel has forgotten is found by a file handle only: it is as good as
	 * gone. */
	if (r == 0 && attr.nlink == 0 && !inodes_known(&fs->inodes, attr.ino))
		r = -ESTALE;
	if (r == -ENOENT)
		fuse_reply_entry(req, &nothing); /* the kernel remembers that it is not there */
	else if (r < 0)
		ops_error(fs, req, r);
	else
		reply_entry(fs, req, &attr);
}

static void reply_none(fuse_req_t req)
{
	ops_fs(req)->req = NULL;
	fuse_reply_none(req);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	forget(ops_fs(req), ino, count);
	reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		forget(ops_fs(req), forgets[i].ino, forgets[i].nlookup);
	reply_none(req);
}

/* ---- Attributes ---- */

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	struct keys_attr attr;
	struct stat st;
	uint64_t byte;
	int r;

	(void)fi;
	if (control_owns(ino)) {
		r = control_getattr(fs, ino, &st);
		if (r < 0)
			fuse_reply_err(req, -r);
		else
			fuse_reply_attr(req, &st, 0);
		return;
	}
	/* With the root's attributes lost, .msyncfs/status can still say so. */
	if (ino == KEYS_ROOT_INO && store_lost(fs->store, &byte)) {
		fuse_reply_attr(req, &fs->root, 0);
		return;
	}
	r = keys_getattr(fs->keys, ino, &attr);
	if (r < 0) {
		ops_error(fs, req, r);
		return;
	}
	ops_fill_stat(&attr, &st);
	if (ino == KEYS_ROOT_INO)
		fs->root = st;
	fuse_reply_attr(req, &st, FS_FOREVER_S);
}

static void fill_setattr(const struct stat *st, int valid, struct keys_setattr *ret_set)
{
	static const struct {
		int valid;
		unsigned mask;
	} bits[] = {
		{ FUSE_SET_ATTR_MODE, KEYS_SET_MODE },
		{ FUSE_SET_ATTR_UID, KEYS_SET_UID },
		{ FUSE_SET_ATTR_GID, KEYS_SET_GID },
		{ FUSE_SET_ATTR_SIZE, KEYS_SET_SIZE },
		{ FUSE_SET_ATTR_ATIME, KEYS_SET_ATIME },
		{ FUSE_SET_ATTR_MTIME, KEYS_SET_MTIME },
		{ FUSE_SET_ATTR_CTIME, KEYS_SET_CTIME },
		{ FUSE_SET_ATTR_ATIME_NOW, KEYS_SET_ATIME_NOW },
		{ FUSE_SET_ATTR_MTIME_NOW, KEYS_SET_MTIME_NOW },
		{ FATTR_KILL_SUIDGID, KEYS_KILL_PRIV },
	};
	struct keys_setattr set = {
		.mode = st->st_mode & 07777,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.size = (uint64_t)st->st_size,
		.atime = from_timespec(st->st_atim),
		.mtime = from_timespec(st->st_mtim),
		.ctime = from_timespec(st->st_ctim),
	};

	for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++)
		if ((valid & bits[i].valid) != 0)
			set.mask |= bits[i].mask;
	/* "Now" comes together with the plain bit and the caller's idea of the time. */
	if ((set.mask & KEYS_SET_ATIME_NOW) != 0)
		set.mask &= ~(unsigned)KEYS_SET_ATIME;
	if ((set.mask & KEYS_SET_MTIME_NOW) != 0)
		set.mask &= ~(unsigned)KEYS_SET_MTIME;
	*ret_set = set;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int valid,
		       struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	struct keys_setattr set;
	struct keys_attr attr;
	int r;

	if (control_owns(ino)) {
		/* `echo >checkpoint` truncates first. */
		if ((valid & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0)
			fuse_reply_err(req, EPERM);
		else
			op_getattr(req, ino, fi);
		return;
	}
	fill_setattr(st, valid, &set);
	/* With a size, the kernel has found that the caller lacks CAP_FSETID; with an owner it does
	 * not say. */
	if ((set.mask & KEYS_KILL_PRIV) != 0 &&
	    ((set.mask & KEYS_SET_SIZE) != 0 || fuse_req_ctx(req)->uid != 0) &&
	    keys_getattr(fs->keys, ino, &attr) == 0)
		set.mask |= ops_kill_mask(req, &attr);
	r = keys_setattr(fs->keys, ino, &set, &attr);
	if (r < 0) {
		ops_error(fs, req, r);
		return;
	}
	ops_changed(fs, false);
	ops_fill_stat(&attr, st);
	fuse_reply_attr(req, st, FS_FOREVER_S);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = ops_fs(req);
	char target[KEYS_SYMLINK_MAX + 1];
	size_t len;
	int r = keys_readlink(fs->keys, ino, target, KEYS_SYMLINK_MAX, &len);

	if (r < 0) {
		ops_error(fs, req, r);
		return;
	}
	target[len] = '\0';
	fuse_reply_readlink(req, target);
	ops_touch_atime(fs, ino);
}

/* ---- Making and removing names ---- */

static void make(fuse_req_t req, uint64_t dir, const char *name, mode_t mode, dev_t rdev)
{
	struct fs *fs = ops_fs(req);
	struct keys_cred cred;
	struct keys_attr attr;
	int r;

	if (refuse_control(req, dir, name, EEXIST))
		return;
	ops_fill_cred(req, &cred);
	r = keys_make(fs->keys, dir, name, strlen(name), mode, rdev, &cred, &attr);
	reply_made(fs, req, r, &attr);
}

static void op_mknod(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, dev_t rdev)
{
	make(req, dir, name, mode, rdev);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode)
{
	make(req, dir, name, S_IFDIR | (mode & 07777), 0);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t dir, const char *name)
{
	struct fs *fs = ops_fs(req);
	struct keys_cred cred;
	struct keys_attr attr;
	int r;

	if (refuse_control(req, dir, name, EEXIST))
		return;
	ops_fill_cred(req, &cred);
	r = keys_symlink(fs->keys, dir, name, strlen(name), target, strlen(target), &cred, &attr);
	reply_made(fs, req, r, &attr);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t dir, const char *name)
{
	struct fs *fs = ops_fs(req);
	struct keys_attr attr;
	int r;

	if (control_owns(ino)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	if (refuse_control(req, dir, name, EEXIST))
		return;
	r = keys_link(fs->keys, ino, dir, name, strlen(name), &attr);
	reply_made(fs, req, r, &attr);
}

static void op_unlink(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct fs *fs = ops_fs(req);
	uint64_t ino;
	uint32_t nlink;
	int r;

	if (refuse_control(req, dir, name, EISDIR))
		return;
	r = keys_unlink(fs->keys, dir, name, strlen(name), &ino, &nlink);
	if (r == 0 && nlink == 0)
		orphaned(fs, ino);
	reply_names(fs, req, r);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct fs *fs = ops_fs(req);
	uint64_t ino;
	int r;

	if (refuse_control(req, dir, name, EPERM))
		return;
	r = keys_rmdir(fs->keys, dir, name, strlen(name), &ino);
	if (r == 0)
		orphaned(fs, ino);
	reply_names(fs, req, r);
}

static void op_rename(fuse_req_t req, fuse_ino_t odir, const char *oname, fuse_ino_t ndir,
		      const char *nname, unsigned flags)
{
	struct fs *fs = ops_fs(req);
	struct keys_cred cred;
	uint64_t orphan = 0;
	int r;

	if (refuse_control(req, odir, oname, EPERM) || refuse_control(req, ndir, nname, EEXIST))
		return;
	ops_fill_cred(req, &cred);
	r = keys_rename(fs->keys, odir, oname, strlen(oname), ndir, nname, strlen(nname), flags,
			&cred, &orphan);
	if (r == 0)
		orphaned(fs, orphan);
	reply_names(fs, req, r);
}

const struct fuse_lowlevel_ops ops_table = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.symlink = op_symlink,
	.link = op_link,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
	.statfs = op_statfs,
	.open = op_open,
	.opendir = op_open,
	.flush = op_open,
	.create = op_create,
	.read = op_read,
	.write = op_write,
	.fsync = op_fsync,
	.fsyncdir = op_fsync,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
	.copy_file_range = op_copy_file_range,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
};
