/* SPDX-License-Identifier: MIT
 *
 * pending: the calls of a remote mount that its primary has not answered yet. Each request of the kernel that changes
 * something becomes an entry, with what its reply needs. How calls travel is behind struct fs_upstream, and how the kernel is
 * answered behind `answer`, so the table knows neither sockets nor FUSE. Request thread only.
 *
 * Calls are handed to upstream in the order in which they came; it numbers them, 1, 2, 3... Some upstreams (the engine in
 * core/replica/) keep a call until it is answered, whatever happens to the line: then the table is done with the bytes when
 * they were taken. For one that does not (it has `resend`), the table keeps them and sends all that is unanswered again on
 * each new line; then at most PENDING_WINDOW numbers lie between the oldest that is unanswered and the newest, since the
 * primary remembers the answers of that many (DESIGN.md of core/replica, section 6): a call whose number has fallen out of
 * them could be executed twice.
 *
 * Life of an entry: waits (no number) -> sent -> answered. It leaves the table before `answer` is called, which therefore
 * may add new ones. One that ends otherwise (an interrupt, umount) may have been executed or may still
 * be: its number is not sent again, and an answer that comes late finds nothing.
 */
#ifndef MSYNCFS_PENDING_H
#define MSYNCFS_PENDING_H

#include "core/replica/call.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PENDING_WINDOW    32u
#define PENDING_MAX_BYTES ((size_t)64 << 20)    /* of calls; more must wait in the kernel, see pending_is_full() */

/* What the kernel, when it is answered, may believe of the inode although it is not so. */
#define PENDING_UNSURE_END  1u  /* where the file ends, and so where an append went */
#define PENDING_UNSURE_MODE 2u  /* which privileges it has */

struct fuse_req;
struct fs;
struct pending_call;

/* How a kernel is told: what it asked, without names and data, and what became of it. */
typedef void fs_reply_fn(struct fs *fs, struct fuse_req *req, const struct call *what, const struct call_result *res);

/* The way to the primary. None of these functions may call back into the table; the bytes are theirs only until they return. */
struct fs_upstream {
	void *ctx;
	/* Give a new call the next number and send it. 0; -EAGAIN: not now, to be asked again by pending_push(); any other
	 * error ends this call. */
	int (*send)(void *ctx, const void *call, size_t len, uint64_t *ret_request);
	/* Send one again that has a number, on a new line. 0 or -EAGAIN. NULL: it does so by itself. */
	int (*resend)(void *ctx, uint64_t request, const void *call, size_t len);
	/* Nobody waits for this one any more. May be NULL. */
	void (*cancel)(void *ctx, uint64_t request);
};

struct pending_call {
	struct pending_call *next;
	uint64_t request;               /* number, 0: never sent */
	uint64_t unique;                /* the kernel's, by which it interrupts */
	struct fuse_req *req;
	fs_reply_fn *reply;
	struct call what;
	bool interrupted;
	unsigned unsure;                /* PENDING_UNSURE_* */
	bool made;                      /* it was, with `first`; now it waits for disks, see pending_add_sync() */
	uint64_t held;                  /* the inode that it has made here: one lookup of it is the entry's. 0: none */
	struct call_result first;
	size_t len;
	uint8_t *bytes;                 /* NULL: upstream has them */
};

struct pending {
	const struct fs_upstream *upstream;
	/* The entry has left the table; it is freed when this returns. What it holds is to be let go. */
	void (*answer)(void *ctx, struct pending_call *p, const struct call_result *res);
	void *ctx;
	struct pending_call *first, **end;
	struct pending_call **unsent;   /* the first that was not sent on this line */
	uint64_t newest;                /* highest number given so far */
	size_t count, bytes;
	bool linked;                    /* there is a line on which calls get to the primary */
};

void pending_init(struct pending *t, const struct fs_upstream *upstream,
		  void (*answer)(void *ctx, struct pending_call *p, const struct call_result *res), void *ctx);
/* Frees what is left, unanswered. */
void pending_release(struct pending *t);

/* A new call: kept, and sent if it is its turn. call_settle() it first, and call_check(). 0, and the entry will be answered later
 * (or was, if upstream refused it); -ENOMEM, -ENOBUFS (PENDING_MAX_BYTES): it was not taken. unsure: PENDING_UNSURE_*. */
int pending_add(struct pending *t, struct fuse_req *req, uint64_t unique, const struct call *c, fs_reply_fn *reply,
		unsigned unsure);
/* From `answer`: the call was made, with `first`; before the kernel hears of it, `sync` is called, too. As pending_add(); what it
 * holds goes over to the new entry. */
int pending_add_sync(struct pending *t, struct pending_call *made, const struct call_result *first, const struct call *sync);
/* Send what can be sent: after there was -EAGAIN. */
void pending_push(struct pending *t);
/* A line is up: what is unanswered is sent, again or for the first time, in order. */
void pending_link_up(struct pending *t);
/* It is gone: nothing is sent, unless upstream takes care of that; entries that were interrupted are answered with EINTR,
 * since nothing else can end them soon. */
void pending_link_down(struct pending *t);

/* The primary's answer to a request, and this store has applied its change: error, number and off are looked at. False: there is no such
 * entry (any more). */
bool pending_complete(struct pending *t, uint64_t request, const struct call_result *res);
/* The call with this number, or NULL. */
struct pending_call *pending_find(struct pending *t, uint64_t request);
/* A change of ino that is no change by this mount was applied here: calls on it are answered as unsure of all. */
void pending_crossed(struct pending *t, uint64_t ino);
/* The kernel's program wants out (FUSE_INTERRUPT). Without a line the entry is answered with EINTR at once; with one the answer
 * is on its way, and an EINTR would be a surprise for programs that have a timer: it is marked. False: no such entry. */
bool pending_interrupt(struct pending *t, uint64_t unique);
/* The lowest number that may still be sent again; false: none has a number, so it is the next that upstream gives. */
bool pending_lowest(const struct pending *t, uint64_t *ret_request);

/* So much waits that no further requests should be read while there is a line, which will make room soon. */
static inline bool pending_is_full(const struct pending *t)
{
	return t->bytes >= PENDING_MAX_BYTES;
}

#endif
