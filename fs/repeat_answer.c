/* SPDX-License-Identifier: MIT
 *
 * repeat_answer: what the thread of repeat.h is shown: the world before the change that it repeats. Nothing is changed here.
 *
 * What the kernel has afterwards must be right all the same. So an answer is valid for ever only if the store says the
 * same now; else its time is over at once, and whoever uses the name next makes the kernel ask again. An inode that is
 * gone, or that the kernel does not know and that has no name any more, is stood for by a number that nobody else is ever
 * shown. The kernel keeps names of a directory under the directory's lock, which it holds from our LOOKUP to our MKNOD,
 * UNLINK or RENAME.
 */
#include "fs/repeat_int.h"

#include "fs/control.h"
#include "fs/device.h"
#include "fs/ops.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>


static uint64_t valid_s(const struct repeat *r)
{
	return (uint64_t)ops_valid_s(r->fs);
}

static void reply(const struct repeat *r, const struct fuse_in_header *in, int error, const void *bytes, size_t len)
{
	struct fuse_out_header out = { .len = (uint32_t)(sizeof out + (error == 0 ? len : 0)), .error = -error, .unique = in->unique };
	struct iovec iov[2] = { { &out, sizeof out }, { (void *)(uintptr_t)bytes, len } };

	(void)device_reply(r->fs->fd, iov, error == 0 && len > 0 ? 2 : 1);
}

static void fill_attr(struct fuse_attr *to, const struct keys_attr *attr)
{
	struct stat st;

	ops_fill_stat(attr, &st);
	*to = (struct fuse_attr){
		.ino = st.st_ino, .size = (uint64_t)st.st_size, .blocks = (uint64_t)st.st_blocks, .mode = st.st_mode,
		.nlink = (uint32_t)st.st_nlink, .uid = st.st_uid, .gid = st.st_gid, .rdev = (uint32_t)st.st_rdev,
		.blksize = (uint32_t)st.st_blksize, .atime = (uint64_t)st.st_atim.tv_sec, .mtime = (uint64_t)st.st_mtim.tv_sec,
		.ctime = (uint64_t)st.st_ctim.tv_sec, .atimensec = (uint32_t)st.st_atim.tv_nsec,
		.mtimensec = (uint32_t)st.st_mtim.tv_nsec, .ctimensec = (uint32_t)st.st_ctim.tv_nsec,
	};
}

static void fill_fake(struct fuse_attr *to, uint64_t ino, uint32_t type)
{
	*to = (struct fuse_attr){ .ino = ino, .mode = type | 0700, .nlink = type == S_IFDIR ? 2 : 1, .blksize = 4096 };
}

/* The inode of the step, under its (old or new) name. */
static void reply_step_entry(struct repeat *r, const struct fuse_in_header *in, const struct step *s)
{
	struct fuse_entry_out e = { .nodeid = s->fake };
	struct fs *fs = r->fs;
	struct keys_attr attr, now;
	bool real = s->ino != 0 && keys_getattr(fs->keys, s->ino, &attr) == 0 && (attr.mode & S_IFMT) == s->type &&
		    (attr.nlink > 0 || inodes_known(&fs->inodes, s->ino));

	/* A removed name of what the kernel does not know: it need not get to know it now. */
	if (real && s->kind == STEP_DELETE && !inodes_known(&fs->inodes, s->ino))
		real = false;
	if (real && inodes_ref(&fs->inodes, s->ino) < 0) {
		reply(r, in, ENOMEM, NULL, 0);
		return;
	}
	if (real) {
		e.nodeid = s->ino;
		fill_attr(&e.attr, &attr);
		if (e.attr.nlink == 0)
			e.attr.nlink = 1;
		else
			e.attr_valid = valid_s(r);
		if (keys_lookup(fs->keys, s->dir, s->name, s->name_len, &now) == 0 && now.ino == s->ino)
			e.entry_valid = valid_s(r);
	} else {
		fill_fake(&e.attr, s->fake, s->type);
	}
	reply(r, in, 0, &e, sizeof e);
}

/* Where a name of this request begins, and how long it is; NULL: none. */
static const char *name_at(const struct fuse_in_header *in, size_t head, size_t *ret_len)
{
	const char *name = (const char *)(in + 1) + head;
	size_t room = in->len > sizeof *in + head ? in->len - sizeof *in - head : 0;

	*ret_len = strnlen(name, room);
	return *ret_len < room ? name : NULL;
}

static bool is_name(const struct fuse_in_header *in, const char *name, size_t len, uint64_t dir, const char *want, size_t want_len)
{
	return in->nodeid == dir && name != NULL && len == want_len && memcmp(name, want, len) == 0;
}

static bool answer_lookup(struct repeat *r, const struct fuse_in_header *in, const struct step *s, bool busy)
{
	size_t len;
	const char *name = name_at(in, 0, &len);

	/* The kernel let go of the directory: nobody watches it. Something may be moved there all the same. */
	if (!(busy && s->kind == STEP_RENAME) && name != NULL && strcmp(name, ".") == 0 && in->nodeid != KEYS_ROOT_INO && !inodes_known(&r->fs->inodes, in->nodeid)) {
		reply(r, in, ESTALE, NULL, 0);
		return true;
	}
	if (!busy || s->name_len == 0)
		return false;
	if (is_name(in, name, len, s->dir, s->name, s->name_len)) {
		if (s->kind == STEP_CREATE)
			reply(r, in, ENOENT, NULL, 0);
		else
			reply_step_entry(r, in, s);
		return true;
	}
	if (s->kind == STEP_RENAME && is_name(in, name, len, s->to_dir, s->to_name, s->to_len)) {
		reply(r, in, ENOENT, NULL, 0);
		return true;
	}
	return false;
}

/* The attributes as they are: whatever is to be set. */
static void answer_setattr(struct repeat *r, const struct fuse_in_header *in)
{
	struct fuse_attr_out out = { .attr_valid = valid_s(r) };
	struct keys_attr attr;
	int error = keys_getattr(r->fs->keys, in->nodeid, &attr);

	if (error < 0) {
		reply(r, in, error == -ENOENT ? ESTALE : EIO, NULL, 0);
		return;
	}
	fill_attr(&out.attr, &attr);
	reply(r, in, 0, &out, sizeof out);
}

/* What only our thread was shown, by whoever comes across it. */
static void answer_fake(struct repeat *r, const struct fuse_in_header *in, const struct step *s, bool busy)
{
	struct fuse_attr_out out = { 0 };

	switch (in->opcode) {
	case FUSE_FORGET:
		return;
	case FUSE_GETATTR: case FUSE_SETATTR:
		if (!busy || in->nodeid != s->fake)
			break;
		fill_fake(&out.attr, s->fake, s->type);
		reply(r, in, 0, &out, sizeof out);
		return;
	case FUSE_OPEN:
		reply(r, in, 0, &(struct fuse_open_out){ 0 }, sizeof(struct fuse_open_out));
		return;
	case FUSE_FLUSH: case FUSE_RELEASE:
		reply(r, in, 0, NULL, 0);
		return;
	default:
		break;
	}
	reply(r, in, in->opcode == FUSE_GETXATTR || in->opcode == FUSE_LISTXATTR ? EOPNOTSUPP : ESTALE, NULL, 0);
}

/* Our thread makes itself known. */
static bool greets(struct repeat *r, const struct fuse_in_header *in)
{
	size_t len;
	const char *name = name_at(in, 0, &len);

	if (!is_name(in, name, len, CONTROL_FIRST, r->nonce, NONCE_BYTES))
		return false;
	atomic_store(&r->pid, in->pid);
	reply(r, in, ENOENT, NULL, 0);
	return true;
}

static bool answer_change(struct repeat *r, const struct fuse_in_header *in, const struct step *s)
{
	size_t len, head = in->opcode == FUSE_MKNOD   ? sizeof(struct fuse_mknod_in) :
			   in->opcode == FUSE_MKDIR   ? sizeof(struct fuse_mkdir_in) :
			   in->opcode == FUSE_RENAME  ? sizeof(struct fuse_rename_in) :
			   in->opcode == FUSE_RENAME2 ? sizeof(struct fuse_rename2_in) : 0;
	const char *name = name_at(in, head, &len);

	/* Whatever else our thread does by mistake changes nothing. */
	if (!is_name(in, name, len, s->dir, s->name, s->name_len))
		reply(r, in, EPERM, NULL, 0);
	else if (s->kind == STEP_CREATE)
		reply_step_entry(r, in, s);
	else
		reply(r, in, 0, NULL, 0);
	return true;
}

bool repeat_answer(struct repeat *r, const struct fuse_in_header *in)
{
	unsigned pid = atomic_load_explicit(&r->pid, memory_order_relaxed);
	bool ours = pid != 0 && in->pid == pid, busy;
	struct step s;

	if (!ours && in->nodeid < REPEAT_FIRST && (pid != 0 || in->opcode != FUSE_LOOKUP))
		return false;
	if (pid == 0)
		return greets(r, in);
	pthread_mutex_lock(&r->lock);
	s = r->now;
	busy = r->busy;
	pthread_mutex_unlock(&r->lock);
	if (in->nodeid >= REPEAT_FIRST) {
		answer_fake(r, in, &s, busy);
		return true;
	}
	switch (in->opcode) {
	case FUSE_LOOKUP:
		return answer_lookup(r, in, &s, busy);
	case FUSE_MKNOD: case FUSE_MKDIR: case FUSE_SYMLINK: case FUSE_UNLINK: case FUSE_RMDIR: case FUSE_RENAME: case FUSE_RENAME2:
		return answer_change(r, in, &s);
	case FUSE_SETATTR:
		answer_setattr(r, in);
		return true;
	case FUSE_CREATE: case FUSE_WRITE: case FUSE_LINK: case FUSE_SETXATTR: case FUSE_REMOVEXATTR: case FUSE_FALLOCATE:
		reply(r, in, EPERM, NULL, 0);
		return true;
	default:
		return false;
	}
}
