/* SPDX-License-Identifier: MIT
 *
 * ok: a call that must succeed, and what must be true. ok(call) ends the test with the place, the error and its text if the
 * call fails; must(x) with the place and x.
 * Includes cmocka, and what cmocka wants to be included before it.
 */
#ifndef MSYNCFS_OK_UTIL_H
#define MSYNCFS_OK_UTIL_H

#include "core/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define ok(r) ok_at((r), __FILE__, __LINE__)

#define must(x) must_at((x), #x, __FILE__, __LINE__)

void ok_at(int r, const char *file, int line);
void must_at(bool x, const char *what, const char *file, int line);

/* If set: called before either ends a test, to say what it was about. */
extern void (*ok_failed)(void);

#endif
