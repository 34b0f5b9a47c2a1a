/* SPDX-License-Identifier: MIT
 *
 * findings: the lines that check and salvage say, kept as one text, each line with its end; and a store of which check
 * must say nothing.
 */
#ifndef MSYNCFS_FINDINGS_UTIL_H
#define MSYNCFS_FINDINGS_UTIL_H

#include "core/check/check.h"

/* Since findings_forget(). */
const char *findings_text(void);
void findings_forget(void);
bool findings_have(const char *words);
/* Print each line as it comes, too. */
extern bool findings_print;

/* For struct check_options: problem and follows. */
void findings_keep(void *ctx, const char *line);
/* For struct salvage_options: say. What is lost begins with "lost: ". */
void findings_keep_lost(void *ctx, bool lost, const char *line);

/* Check finds nothing in what is open; else the test ends. */
void findings_none(struct keys *k);
/* Open the store read-only; check finds nothing. */
struct keys *findings_open_clean(const char *path);

#endif
