/* SPDX-License-Identifier: MIT
 *
 * status: what a mount says of itself, as name=value lines that a shell can read with `.` or eval.
 */
#ifndef MSYNCFS_STATUS_H
#define MSYNCFS_STATUS_H

#include <stddef.h>

#define STATUS_MAX 16384u

struct fs;

/* Request thread. The length of the text, which always fits. */
size_t status_to_text(struct fs *fs, char *buf, size_t size);

#endif
