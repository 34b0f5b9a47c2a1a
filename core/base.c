/* SPDX-License-Identifier: MIT
 *
 * base: arrays, checksums, the per-thread text of the last error, clocks.
 */
#include "core/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <xxhash.h>

static _Thread_local char err_text[512];

uint64_t hash64(const void *p, size_t len, uint64_t seed)
{
	return XXH3_64bits_withSeed(p, len, seed);
}

uint32_t block_csum(const void *block, uint64_t ino, uint64_t fblock)
{
	return (uint32_t)XXH3_64bits_withSeed(block, BLOCK_SIZE, ino * 0x9e3779b97f4a7c15ull + fblock);
}

uint64_t bit_set_range(uint64_t *map, uint64_t i, uint64_t count, uint64_t *ret_first)
{
	uint64_t set = 0;

	while (count > 0) {
		uint64_t mask = bit_mask(i, count), twice = map[i / 64] & mask, n = 64 - i % 64;

		if (set == 0 && twice != 0)
			*ret_first = (i & ~63ull) + (unsigned)__builtin_ctzll(twice);
		set += (unsigned)__builtin_popcountll(twice);
		map[i / 64] |= mask;
		n = min_u64(n, count);
		i += n;
		count -= n;
	}
	return set;
}

bool bit_any(const uint64_t *map, uint64_t i, uint64_t count)
{
	while (count > 0) {
		uint64_t n = min_u64(count, 64 - i % 64);

		if (map[i / 64] & bit_mask(i, count))
			return true;
		i += n;
		count -= n;
	}
	return false;
}

int array_grow(void **array, size_t *room, size_t count, size_t item)
{
	size_t n = *room ? *room + *room / 2 : 64;
	void *p;

	if (count <= *room)
		return 0;
	n = n < count ? count : n;
	p = realloc(*array, n * item);
	if (!p)
		return -ENOMEM;
	*array = p;
	*room = n;
	return 0;
}

const char *err_last(void)
{
	return err_text;
}

void err_clear(void)
{
	err_text[0] = '\0';
}

int err_set(int error, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(err_text, sizeof err_text, format, ap);
	va_end(ap);
	return -error;
}

void err_corrupt_at(const char *file, int line, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(err_text, sizeof err_text, format, ap);
	va_end(ap);
	if (n > 0 && (size_t)n < sizeof err_text)
		(void)snprintf(err_text + n, sizeof err_text - (size_t)n, " [%s:%d]", file, line);
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec t;

	(void)clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t clock_mono_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

int64_t clock_mono_ms(void)
{
	return (int64_t)(clock_mono_ns() / 1000000u);
}

int64_t clock_boot_ms(void)
{
	return (int64_t)(clock_ns(CLOCK_BOOTTIME) / 1000000u);
}

uint64_t clock_real_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

void check_failed(const char *expr, const char *file, int line)
{
	(void)fprintf(stderr, "msyncfs: %s:%d: this must hold: %s\n", file, line, expr);
	abort();
}
