/* SPDX-License-Identifier: MIT
 *
 * ok: a call that must succeed. ok(call) ends the test with the place, the error and its text if the call fails.
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

void ok_at(int r, const char *file, int line);

/* If set: called before ok() ends a test, to say what it was about. */
extern void (*ok_failed)(void);

#endif
