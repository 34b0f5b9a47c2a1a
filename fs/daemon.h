/* SPDX-License-Identifier: MIT
 *
 * daemon: going to the background so that the command returns when the mount is usable, or failed,
 * with its status.
 */
#ifndef MSYNCFS_DAEMON_H
#define MSYNCFS_DAEMON_H

#include <stdbool.h>

/* Close what the caller has open but for the standard files: a daemon would keep a lock that a script holds (`exec 9>lock; flock
 * 9`), and a pipe that somebody reads to its end, for as long as it lives. Call it before anything is opened. */
void daemon_let_go(void);
/* Fork. Only the child returns, still with the terminal's standard error, so that it can say what
 * went wrong: 0 and the descriptor for daemon_ready(), or -errno. The parent waits, and exits with
 * the status of the child's failure or 0. Call it before any thread is started. */
int daemon_start(int *ret_ready_fd);
/* Is the parent gone (^C)? Then nobody waits for what this child does, which no signal of the terminal tells it. */
bool daemon_is_abandoned(int ready_fd);
/* Let the parent go, and the terminal. -EPIPE: the parent is gone, so nobody wants this mount any
 * more. */
int daemon_ready(int ready_fd);

#endif
