/* SPDX-License-Identifier: MIT
 *
 * remount: `msyncfs mount -o remount,...`: change the flags of a mount of ours that belong to the kernel (ro, rw, suid, dev,
 * exec and their opposites). Options of the store and its daemon cannot be changed while it is mounted: naming one that is
 * not as it is already is an error, and then nothing is changed.
 */
#ifndef MSYNCFS_REMOUNT_H
#define MSYNCFS_REMOUNT_H

/* argc, argv: the command line of `mount`; store and mountpoint as given; path: the mount point, absolute. The exit status. */
int remount(int argc, char **argv, const char *store, const char *path);

#endif
