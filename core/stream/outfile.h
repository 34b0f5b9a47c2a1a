/* SPDX-License-Identifier: MIT
 *
 * outfile: a file that appears under its name only when it is complete. Until then it has no name at all, or, on file
 * systems that cannot do that, another one beside it. Not thread-safe; mode 0600.
 */
#ifndef MSYNCFS_OUTFILE_H
#define MSYNCFS_OUTFILE_H

#include <limits.h>
#include <stdbool.h>

struct outfile {
	int fd;
	const char *path;               /* borrowed from the caller */
	bool has_temp;
	char temp[PATH_MAX];            /* the name it has now, if has_temp */
	char proc[64];                  /* else how it can be opened */
};

/* 0, or a negative errno with its text. */
int outfile_open(struct outfile *f, const char *path);
/* A path by which the file can be opened before it is published. */
const char *outfile_place(const struct outfile *f);
/* Sync it, give it its name, sync the folder. With replace, what has the name goes; else -EEXIST. */
int outfile_publish(struct outfile *f, bool replace);
/* Close it; what was not published is gone. */
void outfile_close(struct outfile *f);

#endif
