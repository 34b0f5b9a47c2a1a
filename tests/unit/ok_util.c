/* SPDX-License-Identifier: MIT
 *
 * ok: see ok_util.h.
 */
#include "tests/unit/ok_util.h"

void (*ok_failed)(void);

void ok_at(int r, const char *file, int line)
{
	if (r >= 0)
		return;
	if (ok_failed)
		ok_failed();
	print_error("%s:%d: %d: %s\n", file, line, r, err_last());
	_fail(file, line);
}

void must_at(bool x, const char *what, const char *file, int line)
{
	if (x)
		return;
	if (ok_failed)
		ok_failed();
	print_error("%s:%d: not so: %s\n", file, line, what);
	_fail(file, line);
}
