/* SPDX-License-Identifier: MIT
 *
 * ops: see ops.h. Here: the table, names, attributes, and what all handlers share.
 */
#include "fs/ops.h"

#include "core/base.h"
#include "fs/control.h"
#include "fs/remote.h"
#include "fs/log.h"
#include "fs/repeat.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#define CAP_LOCKS (FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS)
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
	if (remote_waits(fs->remote) && remote_synced(fs->remote) < seq) {
		if (store_failed(fs->store) != 0)
			return EIO;
		fs->hold = &fs->synced;
		fs->hold_seq = seq;
		store_sync_request(fs->store);
		return 0;
	}
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

double ops_valid_s(const struct fs *fs)
{
	return remote_valid_s(fs->remote);
}

void ops_fill_entry(const struct fs *fs, const struct keys_attr *attr, struct fuse_entry_param *ret_entry)
{
	*ret_entry = (struct fuse_entry_param){
		.ino = attr->ino,
		.attr_timeout = ops_valid_s(fs),
		.entry_timeout = ops_valid_s(fs),
	};
	ops_fill_stat(attr, &ret_entry->attr);
}

void ops_touch_atime(struct fs *fs, uint64_t ino)
{
	/* No space for it, or a failed store, is no reason to fail a read. */
	if (!fs->options->read_only && fs->options->atime != KEYS_NOATIME && fs->pending == NULL)
		(void)keys_touch_atime(fs->keys, ino, fs->options->atime);
}

/* The kernel here does not know this orphan: others may. */
static void given_up(struct fs *fs, uint64_t ino)
{
	if (fs->remote != NULL)
		remote_orphan(fs->remote, ino);
	else
		reaper_add(fs, ino);
}

void ops_orphaned(struct fs *fs, uint64_t ino)
{
	if (!inodes_mark_orphan(&fs->inodes, ino))
		given_up(fs, ino);
}

void ops_forget(struct fs *fs, uint64_t ino, uint64_t count)
{
	if (control_owns(ino))
		control_forget(fs, ino);
	else if (ino != KEYS_ROOT_INO && inodes_forget(&fs->inodes, ino, count))
		given_up(fs, ino);
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
	ops_fill_entry(fs, attr, &entry);
	if (fuse_reply_entry(req, &entry) < 0)
		ops_forget(fs, attr->ino, 1);
}

/* ---- Changes ---- */

/* Is the caller in this group? Reads /proc, so it is asked only when it matters. */
static bool in_group(void *ctx, uint32_t gid)
{
	gid_t list[GROUPS_MAX];
	int n = fuse_req_getgroups(ctx, GROUPS_MAX, list);

	for (int i = 0; i < n && i < GROUPS_MAX; i++)
		if (list[i] == gid)
			return true;
	return false;
}

void ops_fill_caller(fuse_req_t req, struct call *c)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	c->cred = (struct keys_cred){ .uid = ctx->uid, .gid = ctx->gid, .umask = ctx->umask };
	c->in_group = in_group;
	c->in_group_ctx = req;
}

static bool is_control(uint64_t dir, const struct call_text *name)
{
	return control_is_name(dir, name->s, name->len);
}

/* Nothing can be made or removed beside the control files, nor their directory itself. */
int ops_refuses(const struct call *c)
{
	if (control_owns(c->dir) || (c->op == CALL_LINK && control_owns(c->ino)))
		return EPERM;
	if (c->op == CALL_RENAME) {
		if (is_control(c->dir, &c->name) || control_owns(c->to_dir))
			return EPERM;
		return is_control(c->to_dir, &c->to_name) ? EEXIST : 0;
	}
	if (!is_control(c->dir, &c->name))
		return 0;
	return c->op == CALL_UNLINK ? EISDIR : c->op == CALL_RMDIR ? EPERM : EEXIST;
}

/* With a negative offset the kernel drops attributes only, which takes no lock that a request in
 * flight may hold. */
static void forget_attr(struct fs *fs, uint64_t ino)
{
	(void)fuse_lowlevel_notify_inval_inode(fs->fuse, ino, -1, 0);
}

/* To the primary. The request has no reply until ops_answer(). */
static void send_call(struct fs *fs, fuse_req_t req, struct call *c, fs_reply_fn *reply)
{
	struct keys_attr attr;
	unsigned unsure = 0;
	int r;

	call_settle(fs->keys, c);
	/* The kernel's idea of the end of the file may be old, and what it is to know of lost privileges
	 * cannot be seen any more when the change is here. */
	if ((c->op == CALL_APPEND || (c->flags & CALL_KILL) != 0) && keys_getattr(fs->keys, c->ino, &attr) == 0) {
		unsure |= attr.size != c->off ? PENDING_UNSURE_END : 0;
		unsure |= (attr.mode & (S_ISUID | S_ISGID)) != 0 ? PENDING_UNSURE_MODE : 0;
	}
	r = call_check(c);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	fs->req = NULL;
	r = pending_add(fs->pending, req, fs->request->unique, c, reply, unsure);
	if (r < 0)
		fuse_reply_err(req, -r);
}

/* A change elsewhere may concern a file that has its name from here. */
static void name_seen(struct fs *fs, const struct call *c, const struct call_result *res)
{
	struct keys_attr attr;

	switch (c->op) {
	case CALL_MAKE: case CALL_SYMLINK: case CALL_LINK:
		repeat_named(fs->repeat, c->dir, c->name.s, c->name.len, res->attr.ino);
		break;
	case CALL_RENAME:
		if (keys_lookup(fs->keys, c->to_dir, c->to_name.s, c->to_name.len, &attr) == 0)
			repeat_named(fs->repeat, c->to_dir, c->to_name.s, c->to_name.len, attr.ino);
		break;
	default:
		break;
	}
}

/* A file that is to be made is there, by another machine, and the kernel had not heard of it. We cannot tell whether it was
 * asked for exclusively: nothing is opened here, open(O_CREAT) and mknod() look the same. With ESTALE the kernel looks the
 * name up again and decides itself (path_openat() and do_mknodat() in fs/namei.c begin once more, with LOOKUP_REVAL). */
static int made_elsewhere(const struct fs *fs, const struct call *c, int error)
{
	return error == -EEXIST && fs->shared != NULL && c->op == CALL_MAKE && S_ISREG(c->mode) ? -ESTALE : error;
}

void ops_call(struct fs *fs, fuse_req_t req, struct call *c, fs_reply_fn *reply)
{
	bool names = call_changes_names(c);
	struct call_result res;
	int r = names ? ops_refuses(c) : 0;

	if (r != 0) {
		fuse_reply_err(req, r);
		return;
	}
	if (fs->options->sync || (names && fs->options->dirsync))
		c->flags |= CALL_DURABLE;
	if (fs->pending != NULL) {
		send_call(fs, req, c, reply);
		return;
	}
	if (remote_parks(fs->remote)) {
		ops_error(fs, req, -EAGAIN);
		return;
	}
	call_run(fs->keys, c, &res);
	if (res.stale)
		forget_attr(fs, c->ino);
	if (res.error < 0) {
		ops_error(fs, req, made_elsewhere(fs, c, res.error));
		return;
	}
	if (res.orphan != 0)
		ops_orphaned(fs, res.orphan);
	if (fs->repeat != NULL && names)
		name_seen(fs, c, &res);
	if ((c->flags & CALL_DURABLE) != 0 && ops_hold_durable(fs) != 0)
		fuse_reply_err(req, EIO);
	else
		reply(fs, req, c, &res);
}

/* What the primary said is not more than what can have happened. */
static bool answer_fits(const struct call *c, const struct call_result *res)
{
	switch (c->op) {
	case CALL_WRITE: case CALL_APPEND:
		return res->number <= c->size;
	case CALL_COPY_RANGE:
		return res->number <= c->len;
	default:
		return true;
	}
}

void ops_ask_disks(const struct fs *fs, struct call *c)
{
	uint32_t n = fs->options->sync_replicas;

	c->op = n != 0 ? CALL_SYNC : CALL_FSYNC;
	c->how = n == PRIMARY_SYNC_ALL ? CALL_SYNC_ALL : n;
	c->len = n != 0 ? options_sync_wait_ms(fs->options) : 0;
}

/* It was made, and is to be on more disks than the primary's before its program hears of it. 1: that is being asked for; 0: it
 * need not be; negative: it cannot be known. */
static int wait_for_disks(struct fs *fs, struct pending_call *p, const struct call_result *res)
{
	struct call c = { .flags = CALL_DURABLE };

	if (res->error != 0 || p->made || fs->options->sync_replicas == 0 || (p->what.flags & CALL_DURABLE) == 0 ||
	    p->what.op == CALL_SYNC)
		return 0;
	ops_ask_disks(fs, &c);
	return fs->pending != NULL && pending_add_sync(fs->pending, p, res, &c) == 0 ? 1 : -EIO;
}

/* An fsync for which too few disks were there: of no error that is known to programs. What asks by the control file hears it. */
static bool is_late(const struct pending_call *p, int error)
{
	return error == -ETIMEDOUT && (p->made || (p->what.op == CALL_SYNC && p->what.src_off == 0));
}

void ops_answer(void *ctx, struct pending_call *p, const struct call_result *res)
{
	struct call_result mine = { .error = res->error, .number = res->number, .off = p->what.off };
	const struct call *c = &p->what;
	struct fs *fs = ctx;

	int r = wait_for_disks(fs, p, res);

	if (r > 0)
		return;
	fs->req = p->req;
	if (r < 0)
		mine.error = r;
	if (is_late(p, mine.error)) {
		fs->syncs_failed++;
		mine.error = -EIO;
	}
	if (p->made && mine.error == 0)
		mine.number = p->first.number;
	/* Errors that mean something else between the kernel and us: "park it", "never ask again". */
	if (mine.error > 0 || mine.error <= -512 || mine.error == -EAGAIN || mine.error == -ENOSYS ||
	    (mine.error == 0 && !answer_fits(c, &mine)))
		mine.error = -EIO;
	if (((p->unsure & PENDING_UNSURE_MODE) != 0 && (c->flags & CALL_KILL) != 0) || (mine.error < 0 && c->op == CALL_FALLOCATE))
		forget_attr(fs, c->ino);
	if (mine.error == 0 && (c->op == CALL_MAKE || c->op == CALL_SYMLINK))
		mine.error = keys_getattr(fs->keys, mine.number, &mine.attr);
	else if (mine.error == 0 && (c->op == CALL_LINK || c->op == CALL_SETATTR))
		mine.error = keys_getattr(fs->keys, c->ino, &mine.attr);
	/* Whatever others did to it meanwhile, an inode that a call made or was made to is still there (pending.h, held; the kernel's own
	 * lookups). It is not where a comparison with the primary has jumped over all of that. Not ESTALE: the kernel would take the
	 * name anew and call again, and what was done once would be done twice. */
	if (mine.error == -ENOENT && res->error == 0)
		mine.error = -EIO;
	/* The bytes are somewhere else than the kernel believes, but where? */
	if (c->op == CALL_APPEND && (p->unsure & PENDING_UNSURE_END) != 0)
		mine.off = 0;
	mine.error = made_elsewhere(fs, c, mine.error);
	if (mine.error < 0)
		fuse_reply_err(p->req, -mine.error);
	else
		p->reply(fs, p->req, c, &mine);
}

/* The end of every operation that made an entry. */
static void reply_made(struct fs *fs, fuse_req_t req, const struct call *c, const struct call_result *res)
{
	(void)c;
	reply_entry(fs, req, &res->attr);
}

void ops_reply_done(struct fs *fs, fuse_req_t req, const struct call *c, const struct call_result *res)
{
	(void)fs;
	(void)c;
	(void)res;
	fuse_reply_err(req, 0);
}

static struct call_text text(const char *name)
{
	return (struct call_text){ name, (uint32_t)strlen(name) };
}

/* ---- Session ---- */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fs *fs = userdata;
	unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_DONT_MASK |
			FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO |
			FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_POSIX_ACL | FUSE_CAP_CACHE_SYMLINKS;

	/* Where others change files too, a new size may come with a reply before the kernel was told of the new contents:
	 * it has to drop the pages then, or it would show zeros behind the old end. */
	if (fs->remote == NULL)
		want |= FUSE_CAP_EXPLICIT_INVAL_DATA;
	if (fs->options->writeback)
		want |= FUSE_CAP_WRITEBACK_CACHE;
	/* Left out: ATOMIC_O_TRUNC (nothing is opened), AUTO_INVAL_DATA (nothing changes behind the
	 * kernel), HANDLE_KILLPRIV (see session.c); of locks the kernel's own are right and cost nothing if
	 * nobody else has the files. */
	fs->cluster_locks = fs->remote != NULL && options_cluster_locks(fs->options) &&
			    (conn->capable & CAP_LOCKS) == CAP_LOCKS;
	if (fs->cluster_locks)
		want |= CAP_LOCKS;
	/* With it the kernel reads from its cache only while the attributes are valid, which they are for max-stale. What is in
	 * a symbolic link it would use without. */
	if (fs->options->max_stale_s != 0)
		want = (want | FUSE_CAP_AUTO_INVAL_DATA) & ~(FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_CACHE_SYMLINKS);
	conn->want = want & conn->capable;
	conn->max_write = FS_WRITE_MAX;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
	conn->time_gran = 1;
	if (fs->options->writeback && (conn->want & FUSE_CAP_WRITEBACK_CACHE) == 0)
		log_warn("writeback: this kernel does not have it, ignoring");
}

bool ops_is_too_old(struct fs *fs, const struct fuse_in_header *in)
{
	const char *name = (const char *)(in + 1);

	switch (in->opcode) {
	case FUSE_LOOKUP:
		if (control_is_name(in->nodeid, name, strnlen(name, in->len - sizeof *in)))
			return false;
		break;
	/* The root's are asked for on the way to .msyncfs/status. */
	case FUSE_GETATTR:
		if (in->nodeid == KEYS_ROOT_INO)
			return false;
		break;
	case FUSE_READ: case FUSE_READDIR: case FUSE_READDIRPLUS: case FUSE_READLINK: case FUSE_GETXATTR: case FUSE_LISTXATTR:
	case FUSE_LSEEK:
		break;
	default:
		return false;
	}
	return !control_owns(in->nodeid) && remote_may_read(fs->remote) < 0;
}

/* Opening is free: see ops.h. Of files: ops_lock.c. */
static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
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
	struct fs *fs = ops_fs(req);
	const struct fuse_entry_param nothing = { .ino = 0, .entry_timeout = ops_valid_s(fs) };
	struct keys_attr attr;
	int r;

	if (control_owns(dir) || control_is_name(dir, name, strlen(name))) {
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
	if (fs->repeat == NULL || r != 0)
		return;
	if (S_ISDIR(attr.mode))
		repeat_dir_seen(fs->repeat, attr.ino);
	if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
		repeat_named(fs->repeat, dir, name, strlen(name), attr.ino);
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
	fuse_reply_attr(req, &st, ops_valid_s(fs));
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
	struct keys_setattr set = { 0 };

	for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++)
		if ((valid & bits[i].valid) != 0)
			set.mask |= bits[i].mask;
	/* "Now" comes together with the plain bit and the caller's idea of the time. */
	if ((set.mask & KEYS_SET_ATIME_NOW) != 0)
		set.mask &= ~(unsigned)KEYS_SET_ATIME;
	if ((set.mask & KEYS_SET_MTIME_NOW) != 0)
		set.mask &= ~(unsigned)KEYS_SET_MTIME;
	/* A call has 0 in what it does not set. */
	if ((set.mask & KEYS_SET_MODE) != 0)
		set.mode = st->st_mode & 07777;
	if ((set.mask & KEYS_SET_UID) != 0)
		set.uid = st->st_uid;
	if ((set.mask & KEYS_SET_GID) != 0)
		set.gid = st->st_gid;
	if ((set.mask & KEYS_SET_SIZE) != 0)
		set.size = (uint64_t)st->st_size;
	if ((set.mask & KEYS_SET_ATIME) != 0)
		set.atime = from_timespec(st->st_atim);
	if ((set.mask & KEYS_SET_MTIME) != 0)
		set.mtime = from_timespec(st->st_mtim);
	if ((set.mask & KEYS_SET_CTIME) != 0)
		set.ctime = from_timespec(st->st_ctim);
	*ret_set = set;
}

static void reply_attr(struct fs *fs, fuse_req_t req, const struct call *c, const struct call_result *res)
{
	struct stat st;

	(void)c;
	ops_fill_stat(&res->attr, &st);
	fuse_reply_attr(req, &st, ops_valid_s(fs));
}

/* Nothing is to be set but, where the kernel keeps the times itself (--writeback), the change time; what it writes back later has
 * the modification time with it. So the kernel passes on a chown that changes no owner, which takes setuid and setgid away all
 * the same (chown_common()) if who asks may change the mode; nobody has looked at that. It also comes before a change of the
 * contents by somebody who may not keep the bits, which takes them away by itself. */
static bool loses_privileges(struct fs *fs, uint64_t ino, const struct call *c)
{
	struct keys_attr attr;

	if ((c->set.mask & ~(unsigned)KEYS_SET_CTIME) != 0)
		return false;
	return c->cred.uid == 0 || (keys_getattr(fs->keys, ino, &attr) == 0 && attr.uid == c->cred.uid);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int valid,
		       struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	struct call c = { .op = CALL_SETATTR, .ino = ino };

	if (control_owns(ino)) {
		/* `echo >checkpoint` truncates first. */
		if ((valid & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0)
			fuse_reply_err(req, EPERM);
		else
			op_getattr(req, ino, fi);
		return;
	}
	ops_fill_caller(req, &c);
	fill_setattr(st, valid, &c.set);
	if (loses_privileges(fs, ino, &c))
		c.set.mask |= KEYS_KILL_PRIV;
	/* With a size, the kernel has found that the caller lacks CAP_FSETID; with an owner it does
	 * not say. */
	if ((c.set.mask & KEYS_KILL_PRIV) != 0 && ((c.set.mask & KEYS_SET_SIZE) != 0 || c.cred.uid != 0))
		c.flags |= CALL_KILL;
	ops_call(fs, req, &c, reply_attr);
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
	struct call c;

	call_init(&c, CALL_MAKE);
	c.dir = dir;
	c.name = text(name);
	c.mode = mode;
	c.rdev = rdev;
	ops_fill_caller(req, &c);
	ops_call(ops_fs(req), req, &c, reply_made);
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
	struct call c = { .op = CALL_SYMLINK, .dir = dir, .name = text(name), .data = target,
			  .size = (uint32_t)strlen(target) };

	ops_fill_caller(req, &c);
	ops_call(ops_fs(req), req, &c, reply_made);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t dir, const char *name)
{
	struct call c = { .op = CALL_LINK, .ino = ino, .dir = dir, .name = text(name) };

	ops_fill_caller(req, &c);
	ops_call(ops_fs(req), req, &c, reply_made);
}

static void op_unlink(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct call c = { .op = CALL_UNLINK, .dir = dir, .name = text(name) };

	ops_fill_caller(req, &c);
	ops_call(ops_fs(req), req, &c, ops_reply_done);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct call c = { .op = CALL_RMDIR, .dir = dir, .name = text(name) };

	ops_fill_caller(req, &c);
	ops_call(ops_fs(req), req, &c, ops_reply_done);
}

static void op_rename(fuse_req_t req, fuse_ino_t odir, const char *oname, fuse_ino_t ndir,
		      const char *nname, unsigned flags)
{
	struct call c = { .op = CALL_RENAME, .dir = odir, .name = text(oname), .to_dir = ndir,
			  .to_name = text(nname), .how = flags };

	ops_fill_caller(req, &c);
	ops_call(ops_fs(req), req, &c, ops_reply_done);
}

const struct fuse_lowlevel_ops ops_table = {
	.init = op_init,
	.lookup = op_lookup,
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
	.opendir = op_opendir,
	.flush = op_flush,
	.release = op_release,
	.getlk = op_getlk,
	.setlk = op_setlk,
	.flock = op_flock,
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
