/* SPDX-License-Identifier: MIT
 *
 * text: see text.h.
 */
#include "fs/text.h"

#include <stdarg.h>
#include <stdio.h>

void text_put(struct text *t, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(t->buf + t->len, t->size - t->len, format, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < t->size - t->len) {
		t->len += (size_t)n;
		return;
	}
	t->full = true;
	if (t->len < t->size)
		t->buf[t->len] = '\0';
}
