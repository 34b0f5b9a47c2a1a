/* SPDX-License-Identifier: MIT
 *
 * repeat: makes inotify work for changes made elsewhere. The kernel tells watchers of system calls made through its own
 * mount, never of what a replica applies. So a thread of ours repeats each change of another machine as a system call
 * through our own mount, and the request thread, which knows that thread by the pid in its requests, shows it the world
 * before the change and answers without changing anything (repeat_answer.c).
 *
 *   made           mknod, mkdir, symlink    CREATE                 written, cut   truncate to the size it has  MODIFY
 *   removed        unlink, rmdir            DELETE                 attributes     utimensat                    ATTRIB
 *   renamed        renameat2                MOVED_FROM, MOVED_TO   quiet a while  open for writing, close      CLOSE_WRITE
 *
 * Only in directories that the kernel holds (a watch pins its inode). Always after the change was applied. Nobody waits
 * for the thread: it may itself wait for a lock that a local program holds, whose request is still to be answered.
 * The queue is bounded by REPEAT_MAX: what does not fit becomes one ATTRIB of its directory, or one MODIFY of its file,
 * and is counted (inotify_dropped in status).
 *
 * The way to the mount is a detached clone of it (open_tree), which does not make it busy; it is given up when the mount
 * has left this name space. Directories are opened by file handles. Both need the capabilities of root: without them, or
 * on a read-only mount, inotify is "off" in status.
 */
#ifndef MSYNCFS_REPEAT_H
#define MSYNCFS_REPEAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fs;
struct fuse_in_header;
struct repeat;
struct text;

#define REPEAT_MAX   8192u
/* Inodes that only our thread is shown, in place of what is gone already. */
#define REPEAT_FIRST (1ull << 62)

/* The device must stay open until repeat_stop() has returned. repeats: else only names are kept, for repeat_path(). */
int repeat_start(struct fs *fs, bool repeats, struct repeat **ret);
/* Ask it to end; somebody has to answer requests until repeat_ended(). NULL is fine for all three. */
void repeat_end(struct repeat *r);
bool repeat_ended(struct repeat *r);
void repeat_stop(struct repeat *r);

/* Request thread: a change of another machine was applied; its record. */
void repeat_record(struct repeat *r, const uint8_t *rec, uint32_t len);
/* Request thread: this name leads to ino. What is told of an inode alone is repeated under the last name that it was seen with. */
void repeat_named(struct repeat *r, uint64_t dir, const char *name, size_t len, uint64_t ino);
/* Request thread: a path of ino from the root on, without a slash before it, as it is now; if a part of it is not known, it begins
 * with #NUMBER of the inode that is the last known. *scan: how many entries of directories may be listed for it. Returns its length, at most size - 1, always terminated. */
size_t repeat_path(struct repeat *r, uint64_t ino, unsigned *scan, char *buf, size_t size);
/* Request thread: the kernel got to know this directory: where to look for names that were not seen yet. */
void repeat_dir_seen(struct repeat *r, uint64_t ino);
/* Request thread: is it a request of our thread that is to be answered here? True: it was. */
bool repeat_answer(struct repeat *r, const struct fuse_in_header *in);
/* Request thread: lines for status. */
void repeat_status(struct repeat *r, struct text *t);

#endif
