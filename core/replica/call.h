/* SPDX-License-Identifier: MIT
 *
 * call: a change that somebody asks for, as data: which operation, on what, by whom. A mount builds one for each request
 * of its kernel that changes something. Where the store is the primary's, call_run() executes it at once; a remote mount
 * sends its bytes (call_encode()) to the primary, which decodes and runs it. So all that depends on the state of the store
 * (which privileges are lost, where the end of the file is, what is inherited) is decided in call_run(), in one step with
 * the change, and never twice.
 *
 * Permission checks are not made here: they are the business of the kernel whose program asks.
 * Threading: call_run() and call_settle() request thread only; the others any. No memory of its own.
 * Durability: as for the keys_ function that is called. A call with CALL_DURABLE, and CALL_FSYNC, may be answered only when
 * store_durable_seq() has reached the value of store_seq() right after call_run(): whoever answers sees to that.
 * The bytes: CALL.md.
 */
#ifndef MSYNCFS_CALL_H
#define MSYNCFS_CALL_H

#include "core/keys/keys.h"

#include <string.h>

/* Numbers of the protocol: never given another meaning. */
enum call_op {
	CALL_MAKE        = 1,   /* dir, name, mode, rdev */
	CALL_SYMLINK     = 2,   /* dir, name, data: the target */
	CALL_LINK        = 3,   /* ino, dir, name */
	CALL_UNLINK      = 4,   /* dir, name */
	CALL_RMDIR       = 5,   /* dir, name */
	CALL_RENAME      = 6,   /* dir, name, to_dir, to_name, how: RENAME_* */
	CALL_SETATTR     = 7,   /* ino, set */
	CALL_WRITE       = 8,   /* ino, off, data */
	CALL_APPEND      = 9,   /* ino, data: at the end of the file, wherever that is; off is only what the caller's kernel believes */
	CALL_FALLOCATE   = 10,  /* ino, how: FALLOC_FL_*, off, len */
	CALL_COPY_RANGE  = 11,  /* src, src_off, ino, off, len */
	CALL_SETXATTR    = 12,  /* ino, name, data: the value, how: XATTR_* */
	CALL_REMOVEXATTR = 13,  /* ino, name */
	CALL_FSYNC       = 14,  /* nothing: all that was done before is made durable */
	CALL_SYNC        = 15,  /* as FSYNC, and on `how` machines beside the primary; len: ms that it may take, then -ETIMEDOUT */
	CALL_OPS,
	CALL_LOCK_FIRST  = 32,  /* 32 to 47 are for locks, which do not change the store */
	CALL_LOCK_LAST   = 47,
};

#define CALL_SYNC_ALL ((uint32_t)INT32_MAX)     /* how: on all that are in step */

enum {
	CALL_KILL    = 1 << 0,  /* who asks has no CAP_FSETID: a change of the file takes setuid, setgid and capabilities from it */
	CALL_MEMBER  = 1 << 1,  /* who asks is a member of `group` (beside cred.gid) */
	CALL_DURABLE = 1 << 2,  /* to be answered when it is on disk */
};

#define CALL_MAX (KEYS_WRITE_MAX + 1024u)       /* bytes of the longest call */

/* Owned by whoever built the call. The name of an attribute has a NUL behind it, the others need none. */
struct call_text {
	const char *s;
	uint32_t len;
};

struct call {
	uint16_t op;                    /* enum call_op */
	uint16_t flags;                 /* CALL_* */
	uint32_t group;                 /* with CALL_MEMBER */
	struct keys_cred cred;          /* who asks */
	uint32_t mode;                  /* type and permissions of something new */
	uint32_t how;                   /* flags of the system call */
	/* Only of a call that is run where it was built, asked when it matters: is who asks in this group? Or NULL. */
	bool (*in_group)(void *ctx, uint32_t gid);
	void *in_group_ctx;
	uint64_t ino, dir;
	struct call_text name;
	const void *data;
	uint32_t size;                  /* of data */
	union {
		uint64_t rdev;
		struct {
			uint64_t to_dir;
			struct call_text to_name;
		};
		struct {
			uint64_t off, len, src, src_off;
		};
		struct keys_setattr set;        /* without KEYS_KILL_SGID, which call_run() finds out */
	};
};

/* Begin one where a full initializer would be felt: what its operation needs of the union is to be set. */
static inline void call_init(struct call *c, enum call_op op)
{
	memset(c, 0, offsetof(struct call, rdev));
	c->op = (uint16_t)op;
}

struct call_result {
	int error;                      /* 0 or negative errno; -EAGAIN: nothing was done, to be run again (keys.h) */
	/* The kernel of the mount cannot know from the answer what became of the attributes of `ino`: it has to ask again. Also with
	 * an error. */
	bool stale;
	uint64_t number;                /* the inode made, or the bytes written or copied; what a remote mount is told */
	uint64_t off;                   /* WRITE, APPEND: where they went */
	uint64_t orphan;                /* an inode that lost its last name, or 0 */
	struct keys_attr attr;          /* MAKE, SYMLINK, LINK, SETATTR: of the inode, if error is 0 */
};

/* Execute it. Everything in *ret is set. The arguments may be anything: what cannot be is refused as by a system call.
 * -ESTALE: an inode that it names by number is gone. */
void call_run(struct keys *k, const struct call *c, struct call_result *ret);
/* The same for the call `request` of the remote mount `client` (both not 0), at most once ever: if it was completed before,
 * also by another primary, its result is what it was then, of which `number` only is known. *ret_seq: the change that the
 * mount has to have applied before it believes the result. -EIO: so old that nobody can know any more. */
void call_run_once(struct keys *k, uint64_t client, uint64_t request, const struct call *c, struct call_result *ret,
		   uint64_t *ret_seq);
/* Does it change names (for mounts that make only those durable at once)? */
bool call_changes_names(const struct call *c);
/* Before a call is sent: answer what call_run() would ask in_group(), by the state of this store. Should the file belong to
 * another group by the time it is run, who asks counts as no member of that: privileges may be lost, never kept. */
void call_settle(struct keys *k, struct call *c);

/* 0, or the error of a system call with such arguments: what call_decode() at the other end would not accept. To be asked
 * before a call is sent. */
int call_check(const struct call *c);
/* Bytes that call_encode() will write: at most CALL_MAX. */
size_t call_size(const struct call *c);
/* buf has room for call_size(c) bytes. call_check() was passed. */
void call_encode(const struct call *c, void *buf);
/* 0, and pointers into buf; -EPROTO with a text: these bytes are no call. Every field has been checked to be what a kernel
 * could ask for: whole numbers in range, names without '/' and NUL, no unknown flag. Lock operations are not decoded here. The names of attributes are followed by a NUL. */
int call_decode(const void *buf, size_t len, struct call *ret);

#endif
