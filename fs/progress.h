/* SPDX-License-Identifier: MIT
 *
 * progress: a line about long work, on standard error if that is a terminal, rewritten a few times
 * a second; and the signals that end such work in order. One at a time.
 */
#ifndef MSYNCFS_PROGRESS_H
#define MSYNCFS_PROGRESS_H

#include "core/stream/stream.h"

struct progress {
	const char *what;
	bool shown, drawn;
	uint64_t inodes;        /* how many there will be, 0: unknown */
	int64_t last_ms;
};

/* Catch SIGINT, SIGTERM and SIGHUP; *ret_watch is for stream_dump() or stream_load(), which such a
 * signal ends with -EINTR. */
void progress_start(struct progress *p, struct stream_watch *ret_watch, const char *what,
		    bool quiet, uint64_t inodes);
/* With counts, the last line stays and says what was done; without, it is wiped away. */
void progress_end(struct progress *p, const struct stream_counts *counts);

#endif
