/* SPDX-License-Identifier: MIT
 *
 * mnt: the kernel's mount table and the ways to take a mount out of it.
 */
#ifndef MSYNCFS_MNT_H
#define MSYNCFS_MNT_H

#include <stdbool.h>

struct mnt_info {
	char device[24];        /* major:minor, which tells mounts of one place apart */
	char type[64];
	char source[4096];
};

/* The uppermost mount at this absolute path. 0, -ENOENT: nothing is mounted there. */
int mnt_find(const char *path, struct mnt_info *ret_info);
bool mnt_is_ours(const struct mnt_info *info);
/* Take it out of the name space, also if it is busy or its daemon is dead (as `umount -l`). */
int mnt_detach(const char *path);

/* While one mounts at this absolute path, others who want to wait, at most wait_s seconds. The lock is the descriptor:
 * closed in each process that has it, or with their end, it is gone. -EBUSY: somebody has it all the time. */
int mnt_lock(const char *path, unsigned wait_s, int *ret_fd);

#endif
