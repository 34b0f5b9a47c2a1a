/* SPDX-License-Identifier: MIT
 *
 * scratch: a folder of a test's own, and the files in it; in memory where the machine has that. It goes also when the test is
 * killed: a process of its own waits for that.
 */
#ifndef MSYNCFS_SCRATCH_UTIL_H
#define MSYNCFS_SCRATCH_UTIL_H

#include "core/keys/keys.h"

#define SCRATCH_PATH 96

/* For a test's setup: 0, or -1. The second one: on the disk (TMPDIR), for what only a disk does. */
int scratch_make(const char *test);
int scratch_make_on_disk(const char *test);
const char *scratch_folder(void);
/* The path of a file in the folder, there or not. */
void scratch_path(char path[SCRATCH_PATH], const char *name);
/* For its teardown: the folder goes, with the files that scratch_path() named. -1: something else was left in it; that goes
 * too. */
int scratch_remove(void);
/* The same, as cmocka wants it. */
int scratch_teardown(void **state);

/* The file as the page cache has it, under another name. Aborts the test if that cannot be. */
void scratch_copy(const char *from, const char *to);
/* The process "dies": what the store at the path has now is what the next opening finds. Closes k. */
void scratch_kill(struct keys *k, const char *path);

#endif
