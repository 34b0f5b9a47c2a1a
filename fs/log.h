/* SPDX-License-Identifier: MIT
 *
 * log: one line for each decision, to standard error (command line, foreground) or to syslog
 * (daemon). Lines on standard error begin with "msyncfs: ". Any thread may log; log_set_level() and
 * log_to_syslog() belong to start-up.
 */
#ifndef MSYNCFS_LOG_H
#define MSYNCFS_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* The most detailed level that is shown; LOG_LEVEL_WARN until called. */
void log_set_level(enum log_level level);
/* From now on write to syslog, as the daemon does once it has let go of the terminal. */
void log_to_syslog(void);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* True at most once a second for each `last_s`, which the call site keeps: for errors that requests
 * can repeat. */
bool log_allowed(int64_t *last_s);

#endif
