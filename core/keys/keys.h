/* SPDX-License-Identifier: MIT
 *
 * keys: a POSIX name space over the store. Every call here is one operation of a local file system; permission
 * checks are the caller's (the kernel's default_permissions), everything else is here: link counts, times, setgid
 * inheritance, ACL inheritance, sticky errors.
 *
 * Threading: one thread (the request thread) makes all calls, unless said otherwise.
 * Durability: a call that returns 0 survives the death of the process; it survives power loss once
 * store_durable_seq() >= the value of store_seq() right after it.
 * Errors: negative errno. -EAGAIN from a changing call: nothing was done, space is being made, call again after the
 * store's `progress` callback. -EROFS: read-only, a replica (cluster.h) or failed. -EUCLEAN: damage, see err_last(). -EIO: failed before.
 */
#ifndef MSYNCFS_KEYS_H
#define MSYNCFS_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define KEYS_ROOT_INO   1u
#define KEYS_NAME_MAX   255u
#define KEYS_SYMLINK_MAX 4095u
#define KEYS_XATTR_MAX  65536u
#define KEYS_SIZE_MAX   ((uint64_t)INT64_MAX)
#define KEYS_LINK_MAX   2147483647u
#define KEYS_WRITE_MAX  (1024u * 1024u)     /* longest keys_write; longer ones are cut short */

struct keys;
struct store;
struct store_options;

struct keys_time {
	int64_t sec;
	uint32_t nsec;
};

/* An inode, decoded. `aux` is the device number of a device node and the parent of a directory. */
struct keys_attr {
	uint64_t ino;
	uint32_t mode;          /* type and permissions */
	uint32_t nlink;
	uint32_t uid;
	uint32_t gid;
	uint64_t size;          /* bytes; of a directory: entries */
	uint64_t aux;
	uint64_t where;         /* of others: a hint at where the newest name is; where.c */
	uint64_t blocks;        /* allocated, 4096 bytes each */
	uint32_t flags;         /* KEYS_ATTR_* */
	uint32_t inline_len;    /* bytes of contents in the inode itself (read only) */
	struct keys_time atime, mtime, ctime, btime;
};
#define KEYS_ATTR_INLINE      1u
#define KEYS_ATTR_ACL         2u
#define KEYS_ATTR_DEFAULT_ACL 4u
#define KEYS_ATTR_XATTR       8u

/* Who creates something. */
struct keys_cred {
	uint32_t uid;
	uint32_t gid;
	uint32_t umask;         /* applied unless the parent has a default ACL */
};

/* What keys_setattr changes. */
enum {
	KEYS_SET_MODE  = 1 << 0,    /* permission bits only; an access ACL is kept in step */
	KEYS_SET_UID   = 1 << 1,
	KEYS_SET_GID   = 1 << 2,
	KEYS_SET_SIZE  = 1 << 3,
	KEYS_SET_ATIME = 1 << 4,
	KEYS_SET_MTIME = 1 << 5,
	KEYS_SET_CTIME = 1 << 6,    /* else ctime becomes now */
	KEYS_SET_ATIME_NOW = 1 << 7,
	KEYS_SET_MTIME_NOW = 1 << 8,
	KEYS_KILL_PRIV = 1 << 9,    /* clear setuid, and setgid where group-executable; drop security.capability */
	KEYS_KILL_SGID = 1 << 10,   /* with KEYS_KILL_PRIV: also a setgid without group-execute (caller not in the group) */
};
struct keys_setattr {
	unsigned mask;
	uint32_t mode, uid, gid;
	uint64_t size;
	struct keys_time atime, mtime, ctime;
};

/* How reads change the access time. */
enum keys_atime { KEYS_NOATIME, KEYS_RELATIME, KEYS_STRICTATIME };

/* Open the store (created if absent and options say so) and the keys in it. The store is opened by store_open(),
 * whose contract holds; *ret_keys is to be closed with keys_close(). */
int keys_open(const struct store_options *options, struct keys **ret_keys);
/* Last checkpoint and close; returns the error that made the store fail, if one did. */
int keys_close(struct keys *k);
/* As store_abandon(): what this opening made is taken away again. */
int keys_abandon(struct keys *k);
struct store *keys_store(struct keys *k);

/* Reading -------------------------------------------------------------------------------------------------------- */
/* -ENOENT for a number that is not (or no longer) an inode. */
int keys_getattr(struct keys *k, uint64_t ino, struct keys_attr *ret_attr);
/* "." and ".." are answered too. -ENOENT, -ENOTDIR, -ENAMETOOLONG. */
int keys_lookup(struct keys *k, uint64_t dir, const char *name, size_t len, struct keys_attr *ret_attr);
/* The directory in which it is: of a directory its parent, of others that of the newest of their names, or of the last one that
 * they lost. That name was looked at, so *ret_dir is right whoever wrote the hint. -ENODATA: not known (device nodes; the newest
 * name was removed and older ones are left; made by a version that gave no hints, and see keys_where_settle()). */
int keys_where(struct keys *k, const struct keys_attr *a, uint64_t *ret_dir);
/* The target, not NUL-terminated; *ret_len <= KEYS_SYMLINK_MAX. */
int keys_readlink(struct keys *k, uint64_t ino, char *buf, size_t size, size_t *ret_len);

/* Describe up to `len` bytes at `off` as pieces of the mapping (and of a page of zeros for holes), at most max_iov pieces and never past the end of the file.
 * The pieces are valid until the next changing call. Checksums were verified. *ret_count may be 0 (end of file). */
int keys_read(struct keys *k, uint64_t ino, uint64_t off, size_t len, struct iovec *iov, int max_iov,
	      int *ret_count, size_t *ret_bytes);
/* SEEK_DATA / SEEK_HOLE; -ENXIO past the end. Unwritten space counts as a hole. */
int keys_seek(struct keys *k, uint64_t ino, uint64_t off, int whence, uint64_t *ret_off);

struct keys_dirent {
	uint64_t cookie;        /* pass it to keys_readdir to go on behind this entry */
	uint64_t ino;
	uint32_t type;          /* mode bits S_IFMT */
	uint32_t len;
	const char *name;       /* in the mapping, not NUL-terminated; valid during the callback */
};
/* Calls fn for ".", ".." and each entry behind `cookie` (0 = from the start) until it returns non-zero or all are
 * done; 0 unless -ENOTDIR, -ENOENT or damage. fn must not change anything. Entries that exist all the while are seen once. */
int keys_readdir(struct keys *k, uint64_t dir, uint64_t cookie,
		 int (*fn)(void *ctx, const struct keys_dirent *entry), void *ctx);

/* Value into buf if size > 0 (-ERANGE if too small); *ret_len is its length in any case. -ENODATA. */
int keys_getxattr(struct keys *k, uint64_t ino, const char *name, void *buf, size_t size, size_t *ret_len);
/* NUL-terminated names one after the other. */
int keys_listxattr(struct keys *k, uint64_t ino, char *buf, size_t size, size_t *ret_len);

/* Changing ------------------------------------------------------------------------------------------------------- */
/* Create a file, directory, device, fifo or socket: mode has the type; rdev for devices. setgid and default ACL of the parent are inherited. -EEXIST. */
int keys_make(struct keys *k, uint64_t dir, const char *name, size_t len, uint32_t mode, uint64_t rdev,
	      const struct keys_cred *cred, struct keys_attr *ret_attr);
int keys_symlink(struct keys *k, uint64_t dir, const char *name, size_t len, const char *target, size_t target_len,
		 const struct keys_cred *cred, struct keys_attr *ret_attr);
int keys_link(struct keys *k, uint64_t ino, uint64_t dir, const char *name, size_t len, struct keys_attr *ret_attr);
/* *ret_ino is the inode that lost a name; if *ret_nlink is 0 it is an orphan: call keys_reap() once nobody has it open. */
int keys_unlink(struct keys *k, uint64_t dir, const char *name, size_t len, uint64_t *ret_ino, uint32_t *ret_nlink);
int keys_rmdir(struct keys *k, uint64_t dir, const char *name, size_t len, uint64_t *ret_ino);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT (linux/fs.h); cred for the whiteout. *ret_orphan: inode that lost its last name, or 0. */
int keys_rename(struct keys *k, uint64_t odir, const char *oname, size_t olen, uint64_t ndir, const char *nname,
		size_t nlen, unsigned flags, const struct keys_cred *cred, uint64_t *ret_orphan);
int keys_setattr(struct keys *k, uint64_t ino, const struct keys_setattr *set, struct keys_attr *ret_attr);
/* Writes up to KEYS_WRITE_MAX bytes. kill: 0, or KEYS_KILL_PRIV, to which KEYS_KILL_SGID may be added. *ret_written > 0 on success. -EFBIG past KEYS_SIZE_MAX. */
int keys_write(struct keys *k, uint64_t ino, uint64_t off, const void *data, size_t len, unsigned kill, size_t *ret_written);
/* mode: 0 or FALLOC_FL_KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE; others -EOPNOTSUPP. kill: as keys_write(). An error may come when a part
 * was done already; to begin again is right. */
int keys_fallocate(struct keys *k, uint64_t ino, int mode, uint64_t off, uint64_t len, unsigned kill);
/* Copies up to len bytes; *ret_copied may be less (call again), 0 at the end of the source. kill: as keys_write(). */
int keys_copy_range(struct keys *k, uint64_t src, uint64_t src_off, uint64_t dst, uint64_t dst_off, size_t len, unsigned kill,
		    size_t *ret_copied);
/* flags: XATTR_CREATE, XATTR_REPLACE. system.posix_acl_* are checked (-EINVAL) and kept in step with the mode.
 * kill_sgid: clear setgid with an access ACL (caller not in the group). */
int keys_setxattr(struct keys *k, uint64_t ino, const char *name, const void *value, size_t size, int flags, bool kill_sgid);
int keys_removexattr(struct keys *k, uint64_t ino, const char *name);
/* Where a walk over all names is, to begin with zeros. */
struct keys_where_walk {
	uint64_t hi, lo;
};
/* Look at some names, and give what has no hint (made by an older version, by load, or one of several names is gone) one that
 * keys_where() can go by. 1: there are more; 0: that was all; -EAGAIN: now or later, again. For idle moments. */
int keys_where_settle(struct keys *k, struct keys_where_walk *at);
/* The file was read: update atime as the policy says. Cheap if there is nothing to do. */
int keys_touch_atime(struct keys *k, uint64_t ino, enum keys_atime policy);

/* Orphans -------------------------------------------------------------------------------------------------------- */
/* Remove part of an orphan (about 256 items). 0: gone; 1: more to do; not an orphan: 0 and nothing happens. -EBUSY: the store is
 * part of a cluster, and the orphan is not marked (cluster.h). */
int keys_reap(struct keys *k, uint64_t ino);
/* First orphan with a number >= from: *ret_ino, or -ENOENT. */
int keys_next_orphan(struct keys *k, uint64_t from, uint64_t *ret_ino);

/* Compaction ------------------------------------------------------------------------------------------------------ */
/* Is there something far back in a mostly free file that could be moved? */
bool keys_compact_due(struct keys *k);
/* Move some of it (about 1 MiB). 1: more to do; 0: done for now; -EAGAIN. For idle moments. */
int keys_compact(struct keys *k);

struct keys_statfs {
	uint64_t blocks, bfree, bavail;     /* 4096 bytes each */
	uint64_t files, ffree;
};
void keys_statfs(struct keys *k, struct keys_statfs *ret);

#endif
