/* SPDX-License-Identifier: MIT
 *
 * watch: the changes of the feed as text, for `msyncfs watch`, which reads MOUNTPOINT/.msyncfs/watch/SEQ again and again.
 * A text is made when its name is looked up: from change SEQ on, at most WATCH_CHANGES and WATCH_TEXT bytes of them.
 *
 *   msyncfs-watch 1 RESTARTS FIRST LAST
 *   SEQ <tab> TIME_NS <tab> TYPE <tab> INODE <tab> PATH [<tab> PATH]
 *
 * FIRST to LAST are what the feed has; LAST + 1 comes next. A SEQ below FIRST, or RESTARTS that differ from those of an
 * earlier text, say that changes are missing: then no line follows. TYPE is a word of type_name() in watch.c. A rename has two paths,
 * all others one; it is that of the moment when the text is made, from the root on, or begins with #INODE where it is not
 * known. Bytes of names below 33, backslashes and 127 are \ooo.
 */
#ifndef MSYNCFS_WATCH_H
#define MSYNCFS_WATCH_H

#include <stddef.h>
#include <stdint.h>

#define WATCH_TEXT    32768u
#define WATCH_CHANGES 256u
#define WATCH_VERSION 1

struct feed;
struct fs;

/* Request thread. The length of the text. feed NULL: -EOPNOTSUPP. */
int watch_to_text(struct fs *fs, const struct feed *feed, uint64_t from, char *buf, size_t size, size_t *ret_len);

#endif
