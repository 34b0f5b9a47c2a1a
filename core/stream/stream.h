/* SPDX-License-Identifier: MIT
 *
 * stream: a whole store as one portable stream of bytes (STREAM.md), and a store from such a stream. The stream says what
 * the store holds, not where: the same contents give the same bytes, whatever their history was.
 *
 * Threading: the caller's thread only, which is the request thread of the store. Memory does not grow with the store.
 * Errors: negative errno with a text in err_last(). -EUCLEAN: the store or the stream is damaged.
 */
#ifndef MSYNCFS_STREAM_H
#define MSYNCFS_STREAM_H

#include "core/keys/keys.h"

struct sys_ops;

#define STREAM_MAGIC     "\x89msydump"   /* the first bytes */
#define STREAM_MAGIC_LEN 8u

struct stream_counts {
	uint64_t inodes, entries, xattrs;
	uint64_t data_bytes;            /* contents that are stored, holes not counted */
	uint64_t unwritten_bytes;       /* allocated, never written */
	uint64_t stream_bytes;          /* of the stream, packed */
};

/* Called about every MiB of the stream, and when a signal came: another value than 0 ends the work with that error. */
struct stream_watch {
	int (*fn)(void *ctx, const struct stream_counts *counts);
	void *ctx;
};

/* Write all that is in the store, but for orphans, to fd. The store must not change meanwhile: it was opened read-only
 * (as a snapshot if a daemon has it open), or nobody else uses k. watch may be NULL. */
int stream_dump(struct keys *k, int fd, const struct stream_watch *watch, struct stream_counts *ret_counts);

struct stream_target {
	const char *path;               /* must not exist */
	uint64_t max_bytes;             /* as in store_options */
	const struct sys_ops *sys;      /* as in store_options */
};
/* Make a store of the stream that fd gives. It gets its name when it is complete, verified and on disk; on any error, and
 * if the process dies, there is none. (Where the file system cannot do O_TMPFILE, a process that dies leaves PATH.??????.)
 * -EEXIST. */
int stream_load(const struct stream_target *target, int fd, const struct stream_watch *watch,
		struct stream_counts *ret_counts);
/* -EEXIST if it is there already. */
int stream_target_check(const struct stream_target *target);
/* The same of all that another store shows, without a stream in between. `from` must not change meanwhile. */
int stream_copy(struct keys *from, const struct stream_target *target, const struct stream_watch *watch,
		struct stream_counts *ret_counts);

#endif
