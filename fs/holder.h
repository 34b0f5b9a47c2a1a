/* SPDX-License-Identifier: MIT
 *
 * holder: who has a store whose mount is gone from the mount table: a daemon that still serves it, since a program has files
 * open there, and those programs; and who has a mount whose daemon was killed, but not gone. Seen from outside, through /proc.
 * Any thread; nothing is changed.
 */
#ifndef MSYNCFS_HOLDER_H
#define MSYNCFS_HOLDER_H

#include <stdbool.h>
#include <stddef.h>

/* Does process pid have the FUSE device open? Then it has not begun to close its store. False also where that cannot be
 * seen (another user's process). *ret_minor: the device number of its mount, 0 if this kernel does not tell. */
bool holder_serves(unsigned pid, unsigned *ret_minor);

/* Was the daemon of this mount killed, and a thread of it cannot end (guard.h)? store: as the mount table has it, absolute. For a moment
 * that is also so while it ends. */
bool holder_hangs(const char *store, unsigned minor);

/* Who else uses that mount, as "123 (bash), 124 (tail)"; "" if nobody is seen. With minor 0: who uses any mount of FUSE that
 * is in no mount table. */
void holder_users(unsigned pid, unsigned minor, char *buf, size_t size);

#endif
