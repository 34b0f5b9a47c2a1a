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
