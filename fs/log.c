/* SPDX-License-Identifier: MIT
 *
 * log: see log.h. A line is built in one buffer and written with one call, so that threads do not
 * mix theirs.
 */
#include "fs/log.h"

#include "core/base.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

static enum log_level log_level = LOG_LEVEL_WARN;
static atomic_bool log_syslog;          /* set when the daemon goes into the background: threads of the link log already */

void log_set_level(enum log_level level)
{
	log_level = level;
}

void log_to_syslog(void)
{
	openlog("msyncfs", LOG_PID, LOG_DAEMON);
	atomic_store(&log_syslog, true);
}

void log_write(enum log_level level, const char *format, ...)
{
	static const int priority[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
	static const char prefix[] = "msyncfs: ";
	char line[1024];
	size_t len = sizeof prefix - 1;
	va_list ap;
	int n;

	if (level > log_level)
		return;
	memcpy(line, prefix, len);
	va_start(ap, format);
	n = vsnprintf(line + len, sizeof line - len - 1, format, ap);
	va_end(ap);
	if (n < 0)
		return;
	len += strlen(line + len);
	/* A message ends where its line ends: what libfuse passes on may bring a newline of its
	 * own. */
	while (len > 0 && line[len - 1] == '\n')
		len--;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	if (atomic_load(&log_syslog)) {
		syslog(priority[level], "%.*s", (int)(len - (sizeof prefix - 1)),
		       line + sizeof prefix - 1);
		return;
	}
	line[len++] = '\n';
	/* There is nobody to tell that standard error cannot be written. */
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}

bool log_allowed(int64_t *last_s)
{
	const int64_t now_s = clock_mono_ms() / 1000;
	int64_t last = __atomic_load_n(last_s, __ATOMIC_RELAXED);

	if (last != 0 && now_s <= last)
		return false;
	__atomic_store_n(last_s, now_s, __ATOMIC_RELAXED);
	return true;
}
