/* SPDX-License-Identifier: MIT
 *
 * control: the files in MOUNTPOINT/.msyncfs/, which exist only here: `status` (name=value lines),
 * `version`, `checkpoint` (a write returns when a checkpoint is on disk), and for mounts that others
 * follow `sync`, `promote` and `demote` (a write begins it) and `watch/SEQ` (the changes from SEQ on, see watch.h). The directory is
 * found by its name but not listed, so that cp -r, tar and rm -rf do not meet it. Their inode
 * numbers begin at CONTROL_FIRST, far above those of keys.
 *
 * Since nothing is opened, a text must not change while somebody reads it: each LOOKUP of `status`
 * gives a new inode with a text of that moment, kept until the kernel forgets the inode or
 * CONTROL_TEXTS later ones were made. The number that stat() shows is the same for all of them.
 */
#ifndef MSYNCFS_CONTROL_H
#define MSYNCFS_CONTROL_H

#include <fuse_lowlevel.h>
#include <stdbool.h>

#define CONTROL_FIRST (1ull << 48)
#define CONTROL_NAME  ".msyncfs"
#define CONTROL_TEXTS 64u
#define CONTROL_WATCHES 16u
#define CONTROL_WATCH_TEXT (1ull << 40)         /* numbers from here on are texts of changes */

struct fs;

int control_init(struct fs *fs);
void control_release(struct fs *fs);

static inline bool control_owns(uint64_t ino)
{
	return ino >= CONTROL_FIRST;
}

/* True if this is the name of the directory of control files. */
bool control_is_name(uint64_t dir, const char *name, size_t len);

/* 0 and the entry, or -ENOENT. `dir` is one of ours, or the root if control_is_name(). */
int control_lookup(struct fs *fs, uint64_t dir, const char *name,
		   struct fuse_entry_param *ret_entry);
int control_getattr(struct fs *fs, uint64_t ino, struct stat *ret_stat);
void control_forget(struct fs *fs, uint64_t ino);
/* The text from `off` on; valid until the next call. -EACCES: not for reading. */
int control_read(struct fs *fs, uint64_t ino, uint64_t off, size_t size, const char **ret_text,
		 size_t *ret_size);
/* The file `sync`: a write of "REPLICAS MILLISECONDS" returns when all is on disk here and on so many other machines; see ops_data.c. */
bool control_is_sync(uint64_t ino);
/* What was written to it; false: it is something else. */
bool control_parse_sync(const char *data, size_t size, unsigned *ret_replicas, unsigned *ret_ms);
/* A write of anything to another one. 0: done, and the reply is held until it has happened. */
int control_write(struct fs *fs, uint64_t ino, const char *data, size_t size);
/* The n-th entry of the directory, "." being 0. False: there is none. */
bool control_entry(unsigned n, const char **ret_name, struct stat *ret_stat);

#endif
