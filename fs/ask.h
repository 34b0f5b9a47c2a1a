/* SPDX-License-Identifier: MIT
 *
 * ask: what the verbs ask of a mount's daemon, through its control files (control.h): one is opened, read or written, and
 * what can go wrong is said as one line. Of other processes: nothing here knows the daemon's own state.
 */
#ifndef MSYNCFS_ASK_H
#define MSYNCFS_ASK_H

#include <stdbool.h>
#include <stddef.h>

/* What an errno means for what was asked. */
struct ask_reason {
	int error;
	const char *text;               /* what it is: what to do */
};

/* A control file, by its name within the folder of control files. A descriptor, or a negative errno. *ret_found: the
 * directory of the mount is there, whether or not it is one. */
int ask_open(const char *mountpoint, const char *file, int flags, bool *ret_found);
/* Write a text to one. 0 or a negative errno: the daemon's answer. */
int ask_write(const char *mountpoint, const char *file, const char *text, bool *ret_found);
/* All that can be read from fd, which is closed, and a NUL; what is behind size - 1 is left out. Bytes, or a negative errno. */
int ask_read(int fd, char *buf, size_t size);
/* Say why it did not work (error of either sign); reasons ends with a text that is NULL. */
void ask_explain(const char *mountpoint, bool found, int error, const struct ask_reason *reasons);

#endif
