/* SPDX-License-Identifier: MIT
 *
 * text: a text that grows in a buffer of its caller, for what status and watch show. What does not fit is left out whole, so a line
 * that is put at once is there or is not. Belongs to one thread.
 */
#ifndef MSYNCFS_TEXT_H
#define MSYNCFS_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text {
	char *buf;                      /* a NUL follows the last byte, if size > 0 */
	size_t size, len;
	bool full;                      /* something was left out */
};

void text_put(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
