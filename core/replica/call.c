/* SPDX-License-Identifier: MIT
 *
 * call: see call.h. One table says of each operation what it is made of, what it may say, and how it is run; encoding,
 * decoding and the check for inodes that are gone go by it.
 */
#include "core/replica/call.h"

#include "core/keys/cluster.h"
#include "core/keys/item.h"
#include "core/replica/wire.h"
#include "core/store/store.h"

#include <linux/xattr.h>
#include <stdio.h>      /* RENAME_* */
#include <sys/stat.h>

/* What a call is made of, in the order of its bytes. */
enum {
	F_INO    = 1 << 0,
	F_DIR    = 1 << 1,
	F_NAME   = 1 << 2,      /* of a directory's entry */
	F_ATTR   = 1 << 3,      /* name of an attribute; its NUL travels too */
	F_TO     = 1 << 4,      /* to_dir, to_name */
	F_MODE   = 1 << 5,
	F_RDEV   = 1 << 6,
	F_HOW    = 1 << 7,
	F_SET    = 1 << 8,
	F_OFF    = 1 << 9,
	F_LEN    = 1 << 10,
	F_SRC    = 1 << 11,     /* src, src_off */
	F_TARGET = 1 << 12,     /* data: a path */
	F_DATA   = 1 << 13,     /* data: contents */
	F_VALUE  = 1 << 14,     /* data: value of an attribute */
};

#define HEADER_SIZE 20u         /* op, flags, who */
#define SET_SIZE    60u
#define SET_MASK    (KEYS_SET_MODE | KEYS_SET_UID | KEYS_SET_GID | KEYS_SET_SIZE | KEYS_SET_ATIME | KEYS_SET_MTIME | KEYS_SET_CTIME | \
		     KEYS_SET_ATIME_NOW | KEYS_SET_MTIME_NOW | KEYS_KILL_PRIV)
#define FLAGS_KILL  (CALL_KILL | CALL_MEMBER)

/* Who asks ----------------------------------------------------------------------------------------------------------- */

static bool in_group(const struct call *c, uint32_t gid)
{
	if (c->cred.gid == gid || (c->flags & CALL_MEMBER && c->group == gid))
		return true;
	return c->in_group && c->in_group(c->in_group_ctx, gid);
}

/* Setgid without group-execute once meant mandatory locking: members of the group keep it. */
static bool asks_group(const struct keys_attr *a)
{
	return (a->mode & (S_ISGID | S_IXGRP)) == S_ISGID && !S_ISDIR(a->mode);
}

static unsigned kill_mask(const struct call *c, const struct keys_attr *a)
{
	return asks_group(a) && !in_group(c, a->gid) ? KEYS_KILL_PRIV | KEYS_KILL_SGID : KEYS_KILL_PRIV;
}

/* What a change of the contents takes from the file; *ret_mode: its mode changes by that. */
static unsigned kill_by_write(struct keys *k, const struct call *c, bool *ret_mode)
{
	struct keys_attr a;

	*ret_mode = false;
	if (!(c->flags & CALL_KILL))
		return 0;
	if (keys_getattr(k, c->ino, &a) < 0 || !(a.mode & (S_ISUID | S_ISGID)))
		return KEYS_KILL_PRIV;
	*ret_mode = true;
	return kill_mask(c, &a);
}

static bool is_access_acl(const struct call *c)
{
	return strcmp(c->name.s, XATTR_NAME_POSIX_ACL_ACCESS) == 0;
}

void call_settle(struct keys *k, struct call *c)
{
	struct keys_attr a;

	if (c->in_group && c->flags & CALL_KILL && keys_getattr(k, c->ino, &a) == 0 &&
	    (c->op == CALL_SETXATTR ? is_access_acl(c) && a.mode & S_ISGID : asks_group(&a)) && in_group(c, a.gid)) {
		c->flags |= CALL_MEMBER;
		c->group = a.gid;
	}
	c->in_group = NULL;
}

/* Running ------------------------------------------------------------------------------------------------------------ */

static int run_make(struct keys *k, const struct call *c, struct call_result *res)
{
	return keys_make(k, c->dir, c->name.s, c->name.len, c->mode, c->rdev, &c->cred, &res->attr);
}

static int run_symlink(struct keys *k, const struct call *c, struct call_result *res)
{
	return keys_symlink(k, c->dir, c->name.s, c->name.len, c->data, c->size, &c->cred, &res->attr);
}

static int run_link(struct keys *k, const struct call *c, struct call_result *res)
{
	return keys_link(k, c->ino, c->dir, c->name.s, c->name.len, &res->attr);
}

static int run_unlink(struct keys *k, const struct call *c, struct call_result *res)
{
	uint64_t ino;
	uint32_t nlink;
	int r = keys_unlink(k, c->dir, c->name.s, c->name.len, &ino, &nlink);

	if (r == 0 && nlink == 0)
		res->orphan = ino;
	return r;
}

static int run_rmdir(struct keys *k, const struct call *c, struct call_result *res)
{
	return keys_rmdir(k, c->dir, c->name.s, c->name.len, &res->orphan);
}

static int run_rename(struct keys *k, const struct call *c, struct call_result *res)
{
	return keys_rename(k, c->dir, c->name.s, c->name.len, c->to_dir, c->to_name.s, c->to_name.len, c->how, &c->cred,
			   &res->orphan);
}

static int run_setattr(struct keys *k, const struct call *c, struct call_result *res)
{
	struct keys_setattr set;
	struct keys_attr a;

	if (!(c->set.mask & KEYS_KILL_PRIV) || !(c->flags & CALL_KILL) || keys_getattr(k, c->ino, &a) < 0)
		return keys_setattr(k, c->ino, &c->set, &res->attr);
	set = c->set;
	set.mask |= kill_mask(c, &a);
	return keys_setattr(k, c->ino, &set, &res->attr);
}

static int run_write_at(struct keys *k, const struct call *c, uint64_t off, struct call_result *res)
{
	size_t written = 0;
	bool mode;
	unsigned kill = kill_by_write(k, c, &mode);
	int r = keys_write(k, c->ino, off, c->data, c->size, kill, &written);

	if (r < 0)
		return r;
	res->stale = mode;
	res->off = off;
	res->number = written;
	return 0;
}

static int run_write(struct keys *k, const struct call *c, struct call_result *res)
{
	return run_write_at(k, c, c->off, res);
}

/* The end of the file is that of this moment: nothing else comes in between, from whatever machine. */
static int run_append(struct keys *k, const struct call *c, struct call_result *res)
{
	struct keys_attr a;
	int r = keys_getattr(k, c->ino, &a);

	return r < 0 ? r : run_write_at(k, c, a.size, res);
}

static int run_fallocate(struct keys *k, const struct call *c, struct call_result *res)
{
	bool mode;
	unsigned kill = kill_by_write(k, c, &mode);
	int r = keys_fallocate(k, c->ino, (int)c->how, c->off, c->len, kill);

	/* It may have got part of the way. */
	res->stale = r < 0 ? r != -EAGAIN : mode;
	return r;
}

static int run_copy_range(struct keys *k, const struct call *c, struct call_result *res)
{
	size_t copied = 0;
	bool mode;
	unsigned kill = kill_by_write(k, c, &mode);
	int r = keys_copy_range(k, c->src, c->src_off, c->ino, c->off, (size_t)min_u64(c->len, KEYS_WRITE_MAX), kill, &copied);

	if (r < 0)
		return r;
	res->stale = mode && copied > 0;
	res->number = copied;
	return 0;
}

static int run_setxattr(struct keys *k, const struct call *c, struct call_result *res)
{
	struct keys_attr a;
	/* An access ACL set by somebody outside the file's group takes setgid away, as chmod does. */
	bool kill = c->flags & CALL_KILL && is_access_acl(c) && keys_getattr(k, c->ino, &a) == 0 && a.mode & S_ISGID &&
		    !in_group(c, a.gid);

	(void)res;
	return keys_setxattr(k, c->ino, c->name.s, c->data, c->size, (int)c->how, kill);
}

static int run_removexattr(struct keys *k, const struct call *c, struct call_result *res)
{
	(void)res;
	return keys_removexattr(k, c->ino, c->name.s);
}

/* Whoever answers waits, or finds that the store has failed. */
static int run_fsync(struct keys *k, const struct call *c, struct call_result *res)
{
	(void)k;
	(void)c;
	(void)res;
	return 0;
}

static const struct op {
	const char *name;
	int (*run)(struct keys *k, const struct call *c, struct call_result *res);
	uint32_t fields;
	uint32_t how;           /* bits that it may have */
	uint16_t flags;         /* beside CALL_DURABLE */
	bool names, made;       /* changes names; its result is the inode of attr */
} ops[CALL_OPS] = {
	[CALL_MAKE]        = { "make", run_make, F_DIR | F_NAME | F_MODE | F_RDEV, .names = true, .made = true },
	[CALL_SYMLINK]     = { "symlink", run_symlink, F_DIR | F_NAME | F_TARGET, .names = true, .made = true },
	[CALL_LINK]        = { "link", run_link, F_INO | F_DIR | F_NAME, .names = true },
	[CALL_UNLINK]      = { "unlink", run_unlink, F_DIR | F_NAME, .names = true },
	[CALL_RMDIR]       = { "rmdir", run_rmdir, F_DIR | F_NAME, .names = true },
	[CALL_RENAME]      = { "rename", run_rename, F_DIR | F_NAME | F_TO | F_HOW,
			       RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT, .names = true },
	[CALL_SETATTR]     = { "setattr", run_setattr, F_INO | F_SET, .flags = FLAGS_KILL },
	[CALL_WRITE]       = { "write", run_write, F_INO | F_OFF | F_DATA, .flags = FLAGS_KILL },
	[CALL_APPEND]      = { "append", run_append, F_INO | F_DATA, .flags = FLAGS_KILL },
	[CALL_FALLOCATE]   = { "fallocate", run_fallocate, F_INO | F_HOW | F_OFF | F_LEN, INT32_MAX, FLAGS_KILL },
	[CALL_COPY_RANGE]  = { "copy_range", run_copy_range, F_INO | F_OFF | F_LEN | F_SRC, .flags = FLAGS_KILL },
	[CALL_SETXATTR]    = { "setxattr", run_setxattr, F_INO | F_ATTR | F_HOW | F_VALUE, XATTR_CREATE | XATTR_REPLACE, FLAGS_KILL },
	[CALL_REMOVEXATTR] = { "removexattr", run_removexattr, F_INO | F_ATTR },
	[CALL_FSYNC]       = { "fsync", run_fsync, 0 },
	[CALL_SYNC]        = { "sync", run_fsync, F_HOW | F_LEN, INT32_MAX },
};

static bool is_gone(struct keys *k, uint64_t ino)
{
	struct keys_attr a;

	return keys_getattr(k, ino, &a) == -ENOENT;
}

/* One of the inodes that it names by number. */
static bool names_gone(struct keys *k, const struct call *c)
{
	uint32_t fields = ops[c->op].fields;

	return (fields & F_INO && is_gone(k, c->ino)) || (fields & F_DIR && is_gone(k, c->dir)) ||
	       (fields & F_TO && is_gone(k, c->to_dir)) || (fields & F_SRC && is_gone(k, c->src));
}

void call_run(struct keys *k, const struct call *c, struct call_result *ret)
{
	ret->stale = false;
	ret->number = ret->off = ret->orphan = 0;
	if (c->op >= CALL_OPS || !ops[c->op].run) {
		ret->error = -EOPNOTSUPP;
		return;
	}
	ret->error = ops[c->op].run(k, c, ret);
	if (ret->error == 0 && ops[c->op].made)
		ret->number = ret->attr.ino;
	/* A name that is not there is one thing, a directory that is not there another: its kernel knows it still. */
	if (ret->error == -ENOENT && names_gone(k, c))
		ret->error = -ESTALE;
}

void call_run_once(struct keys *k, uint64_t client, uint64_t request, const struct call *c, struct call_result *ret,
		   uint64_t *ret_seq)
{
	uint64_t number;
	int r = keys_call_result(k, client, request, ret_seq, &number);

	if (r == -ENOENT) {
		keys_set_caller(k, client, request);
		call_run(k, c, ret);
		keys_set_caller(k, 0, 0);
		/* Also of one that was refused: by what it saw. */
		*ret_seq = store_seq(keys_store(k));
		return;
	}
	ret->error = r == -ESTALE ? -EIO : r;
	ret->stale = false;
	ret->number = r == 0 ? number : 0;
	ret->off = ret->orphan = 0;
	ret->attr.ino = 0;
	if (r < 0)
		*ret_seq = store_seq(keys_store(k));
}

bool call_changes_names(const struct call *c)
{
	return c->op < CALL_OPS && ops[c->op].names;
}

/* Bytes -------------------------------------------------------------------------------------------------------------- */

static size_t bytes_size(uint32_t fields, const struct call *c)
{
	size_t n = 0;

	n += fields & F_NAME ? 4 + c->name.len : 0;
	n += fields & F_ATTR ? 4 + c->name.len + 1 : 0;
	n += fields & F_TO ? 12 + c->to_name.len : 0;
	n += fields & (F_TARGET | F_DATA | F_VALUE) ? 4 + c->size : 0;
	return n;
}

size_t call_size(const struct call *c)
{
	uint32_t fields = ops[c->op].fields;
	size_t n = HEADER_SIZE + bytes_size(fields, c);

	n += fields & F_INO ? 8 : 0;
	n += fields & F_DIR ? 8 : 0;
	n += fields & F_MODE ? 4 : 0;
	n += fields & F_RDEV ? 8 : 0;
	n += fields & F_HOW ? 4 : 0;
	n += fields & F_SET ? SET_SIZE : 0;
	n += fields & F_OFF ? 8 : 0;
	n += fields & F_LEN ? 8 : 0;
	n += fields & F_SRC ? 16 : 0;
	return n;
}

static void put_time(struct wire_writer *w, bool used, const struct keys_time *t)
{
	wire_put_u64(w, used ? (uint64_t)t->sec : 0);
	wire_put_u32(w, used ? t->nsec : 0);
}

/* What the mask does not ask for is 0. */
static void put_set(struct wire_writer *w, const struct keys_setattr *s)
{
	wire_put_u32(w, s->mask);
	wire_put_u32(w, s->mask & KEYS_SET_MODE ? s->mode : 0);
	wire_put_u32(w, s->mask & KEYS_SET_UID ? s->uid : 0);
	wire_put_u32(w, s->mask & KEYS_SET_GID ? s->gid : 0);
	wire_put_u64(w, s->mask & KEYS_SET_SIZE ? s->size : 0);
	put_time(w, s->mask & KEYS_SET_ATIME, &s->atime);
	put_time(w, s->mask & KEYS_SET_MTIME, &s->mtime);
	put_time(w, s->mask & KEYS_SET_CTIME, &s->ctime);
}

void call_encode(const struct call *c, void *buf)
{
	uint32_t fields = ops[c->op].fields;
	struct wire_writer w = wire_writer(buf, call_size(c));

	wire_put_u16(&w, c->op);
	wire_put_u16(&w, c->flags);
	wire_put_u32(&w, c->cred.uid);
	wire_put_u32(&w, c->cred.gid);
	wire_put_u32(&w, c->cred.umask);
	wire_put_u32(&w, c->group);
	if (fields & F_INO)
		wire_put_u64(&w, c->ino);
	if (fields & F_DIR)
		wire_put_u64(&w, c->dir);
	if (fields & (F_NAME | F_ATTR))
		wire_put_bytes(&w, c->name.s, c->name.len + (fields & F_ATTR ? 1 : 0));
	if (fields & F_TO) {
		wire_put_u64(&w, c->to_dir);
		wire_put_bytes(&w, c->to_name.s, c->to_name.len);
	}
	if (fields & F_MODE)
		wire_put_u32(&w, c->mode);
	if (fields & F_RDEV)
		wire_put_u64(&w, c->rdev);
	if (fields & F_HOW)
		wire_put_u32(&w, c->how);
	if (fields & F_SET)
		put_set(&w, &c->set);
	if (fields & F_OFF)
		wire_put_u64(&w, c->off);
	if (fields & F_LEN)
		wire_put_u64(&w, c->len);
	if (fields & F_SRC) {
		wire_put_u64(&w, c->src);
		wire_put_u64(&w, c->src_off);
	}
	if (fields & (F_TARGET | F_DATA | F_VALUE))
		wire_put_bytes(&w, c->data, c->size);
	check(!w.full && w.p == w.end);
}

static struct keys_time get_time(struct wire_reader *r)
{
	struct keys_time t = { (int64_t)wire_get_u64(r), 0 };

	t.nsec = wire_get_u32(r);
	return t;
}

static void get_set(struct wire_reader *r, struct keys_setattr *s)
{
	s->mask = wire_get_u32(r);
	s->mode = wire_get_u32(r);
	s->uid = wire_get_u32(r);
	s->gid = wire_get_u32(r);
	s->size = wire_get_u64(r);
	s->atime = get_time(r);
	s->mtime = get_time(r);
	s->ctime = get_time(r);
}

static struct call_text get_text(struct wire_reader *r, uint32_t max)
{
	struct call_text t;

	t.s = (const char *)wire_get_bytes(r, max, &t.len);
	return t;
}

static void get_data(struct wire_reader *r, uint32_t fields, struct call *c)
{
	uint32_t max = fields & F_TARGET ? KEYS_SYMLINK_MAX : fields & F_VALUE ? KEYS_XATTR_MAX : KEYS_WRITE_MAX;

	c->data = wire_get_bytes(r, max, &c->size);
}

static void get_fields(struct wire_reader *r, uint32_t fields, struct call *c)
{
	if (fields & F_INO)
		c->ino = wire_get_u64(r);
	if (fields & F_DIR)
		c->dir = wire_get_u64(r);
	if (fields & (F_NAME | F_ATTR))
		c->name = get_text(r, KEYS_NAME_MAX + (fields & F_ATTR ? 1 : 0));
	if (fields & F_TO) {
		c->to_dir = wire_get_u64(r);
		c->to_name = get_text(r, KEYS_NAME_MAX);
	}
	if (fields & F_MODE)
		c->mode = wire_get_u32(r);
	if (fields & F_RDEV)
		c->rdev = wire_get_u64(r);
	if (fields & F_HOW)
		c->how = wire_get_u32(r);
	if (fields & F_SET)
		get_set(r, &c->set);
	if (fields & F_OFF)
		c->off = wire_get_u64(r);
	if (fields & F_LEN)
		c->len = wire_get_u64(r);
	if (fields & F_SRC) {
		c->src = wire_get_u64(r);
		c->src_off = wire_get_u64(r);
	}
	if (fields & (F_TARGET | F_DATA | F_VALUE))
		get_data(r, fields, c);
}

/* Checking what was decoded ------------------------------------------------------------------------------------------ */

static bool ino_fits(uint64_t ino)
{
	return ino > 0 && ino < INO_MAX;
}

static bool time_fits(bool used, const struct keys_time *t)
{
	return t->nsec < 1000000000u && (used || (t->sec == 0 && t->nsec == 0));
}

static bool set_fits(const struct keys_setattr *s)
{
	unsigned m = s->mask;

	if (m & ~(unsigned)SET_MASK || (m & KEYS_SET_ATIME && m & KEYS_SET_ATIME_NOW) || (m & KEYS_SET_MTIME && m & KEYS_SET_MTIME_NOW))
		return false;
	if (s->mode > (m & KEYS_SET_MODE ? 07777 : 0) || (s->uid && !(m & KEYS_SET_UID)) || (s->gid && !(m & KEYS_SET_GID)))
		return false;
	return s->size <= (m & KEYS_SET_SIZE ? KEYS_SIZE_MAX : 0) && time_fits(m & KEYS_SET_ATIME, &s->atime) &&
	       time_fits(m & KEYS_SET_MTIME, &s->mtime) && time_fits(m & KEYS_SET_CTIME, &s->ctime);
}

static bool mode_fits(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: case S_IFDIR: case S_IFCHR: case S_IFBLK: case S_IFIFO: case S_IFSOCK:
		return !(mode & ~(uint32_t)(S_IFMT | 07777));
	default:
		return false;
	}
}

static int check_numbers(const struct op *op, const struct call *c, const char **ret_what)
{
	uint32_t fields = op->fields;

	*ret_what = "flags";
	if (c->flags & ~(op->flags | CALL_DURABLE) || (c->flags & FLAGS_KILL) == CALL_MEMBER || (c->group && !(c->flags & CALL_MEMBER)))
		return -EINVAL;
	*ret_what = "umask";
	if (c->cred.umask > 07777)
		return -EINVAL;
	*ret_what = "inode number";
	if ((fields & F_INO && !ino_fits(c->ino)) || (fields & F_DIR && !ino_fits(c->dir)) ||
	    (fields & F_TO && !ino_fits(c->to_dir)) || (fields & F_SRC && !ino_fits(c->src)))
		return -ESTALE;
	*ret_what = "mode";
	if (fields & F_MODE && !mode_fits(c->mode))
		return -EINVAL;
	*ret_what = "flags of the system call";
	if (c->how & ~op->how)
		return -EINVAL;
	*ret_what = "attributes";
	if (fields & F_SET && !set_fits(&c->set))
		return -EINVAL;
	*ret_what = "offset or length";
	if ((fields & F_OFF && c->off > KEYS_SIZE_MAX) || (fields & F_LEN && c->len > KEYS_SIZE_MAX) ||
	    (fields & F_SRC && c->src_off > KEYS_SIZE_MAX))
		return -EFBIG;
	return 0;
}

static int check_bytes(const struct op *op, const struct call *c, const char **ret_what)
{
	uint32_t fields = op->fields;
	int r = fields & F_NAME ? name_check(c->name.s, c->name.len) : 0;

	if (r == 0 && fields & F_TO)
		r = name_check(c->to_name.s, c->to_name.len);
	*ret_what = "name";
	if (r != 0)
		return r;
	if (fields & F_ATTR && (c->name.len == 0 || c->name.len > KEYS_NAME_MAX || memchr(c->name.s, '\0', c->name.len)))
		return -ERANGE;
	*ret_what = "contents";
	if (fields & F_TARGET && (c->size == 0 || memchr(c->data, '\0', c->size)))
		return -ENOENT;
	if (fields & F_TARGET && c->size > KEYS_SYMLINK_MAX)
		return -ENAMETOOLONG;
	if (fields & F_VALUE && c->size > KEYS_XATTR_MAX)
		return -E2BIG;
	if (fields & F_DATA && (c->size == 0 || c->size > KEYS_WRITE_MAX))
		return -EINVAL;
	return 0;
}

/* *ret_what is the part that was looked at last. */
static int check_call(const struct call *c, const char **ret_what)
{
	int r = check_numbers(&ops[c->op], c, ret_what);

	return r == 0 ? check_bytes(&ops[c->op], c, ret_what) : r;
}

int call_check(const struct call *c)
{
	const char *what;

	return c->op < CALL_OPS && ops[c->op].run ? check_call(c, &what) : -EOPNOTSUPP;
}

int call_decode(const void *buf, size_t len, struct call *ret)
{
	struct wire_reader r = wire_reader(buf, len);
	struct call c = { 0 };
	const char *what;
	int e;

	c.op = wire_get_u16(&r);
	c.flags = wire_get_u16(&r);
	c.cred.uid = wire_get_u32(&r);
	c.cred.gid = wire_get_u32(&r);
	c.cred.umask = wire_get_u32(&r);
	c.group = wire_get_u32(&r);
	if (!r.bad && (c.op >= CALL_OPS || !ops[c.op].run))
		return err_set(EPROTO, "a call with the unknown operation %u", c.op);
	if (!r.bad)
		get_fields(&r, ops[c.op].fields, &c);
	e = wire_end(&r, "call");
	if (e < 0)
		return e;
	/* The name of an attribute came with its NUL. */
	if (ops[c.op].fields & F_ATTR && (c.name.len == 0 || c.name.s[--c.name.len] != '\0'))
		return err_set(EPROTO, "a call (%s) with a name that does not end", ops[c.op].name);
	if (check_call(&c, &what) != 0)
		return err_set(EPROTO, "a call (%s) with impossible %s", ops[c.op].name, what);
	*ret = c;
	return 0;
}
