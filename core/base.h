/* SPDX-License-Identifier: MIT
 *
 * base: bytes, bounds, errors and clocks, included first everywhere. Integers of the format are read and written with the
 * get/put functions below (little-endian on every machine, any alignment). Assertions: check() is always on and is
 * for our own mistakes; bytes that come from a file, a peer or the kernel are validated and reported instead, with
 * err_corrupt() or err_set(), whose text the caller at the edge (command line, log) fetches with err_last().
 */
#ifndef MSYNCFS_BASE_H
#define MSYNCFS_BASE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BLOCK_SHIFT 12
#define BLOCK_SIZE  4096u

typedef uint64_t block_t;       /* block number in the store file */
typedef uint64_t gen_t;         /* generation, see DESIGN.md section 3 */
typedef uint64_t seq_t;         /* sequence number of a change */
typedef uint64_t jpos_t;        /* journal position, bytes */

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

static inline uint16_t get_le16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t get_le32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap32(v);
#endif
	return v;
}

static inline uint64_t get_le64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap64(v);
#endif
	return v;
}

static inline void put_le16(void *p, uint16_t v)
{
	uint8_t *b = p;

	b[0] = (uint8_t)v;
	b[1] = (uint8_t)(v >> 8);
}

static inline void put_le32(void *p, uint32_t v)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap32(v);
#endif
	memcpy(p, &v, sizeof v);
}

static inline void put_le64(void *p, uint64_t v)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap64(v);
#endif
	memcpy(p, &v, sizeof v);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* The two halves of the product, each mixed with the other. */
static inline uint64_t mul_fold64(uint64_t a, uint64_t b)
{
#ifdef __SIZEOF_INT128__
	unsigned __int128 m = (unsigned __int128)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
#else
	uint64_t al = (uint32_t)a, ah = a >> 32, bl = (uint32_t)b, bh = b >> 32;
	uint64_t low = al * bl, mid = ah * bl + (low >> 32), mid2 = al * bh + (uint32_t)mid;

	return ((uint32_t)low | mid2 << 32) ^ (ah * bh + (mid >> 32) + (mid2 >> 32));
#endif
}

static inline uint64_t div_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

/* to must be a power of two; the caller knows that v + to does not overflow. */
static inline uint64_t align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) & ~(to - 1);
}

static inline bool is_zero(const void *p, size_t len)
{
	const uint8_t *b = p;

	return len == 0 || (b[0] == 0 && memcmp(b, b + 1, len - 1) == 0);
}

static inline bool bit_get(const uint64_t *map, uint64_t i)
{
	return map[i / 64] >> (i % 64) & 1;
}

static inline void bit_set(uint64_t *map, uint64_t i)
{
	map[i / 64] |= 1ull << (i % 64);
}

/* Of the word that bit i is in, those of its bits that are in [i, i + count). */
static inline uint64_t bit_mask(uint64_t i, uint64_t count)
{
	uint64_t n = min_u64(count, 64 - i % 64);

	return (n == 64 ? ~0ull : (1ull << n) - 1) << (i % 64);
}

/* Set `count` bits from i on; how many of them were set already. *ret_first: the first of these. */
uint64_t bit_set_range(uint64_t *map, uint64_t i, uint64_t count, uint64_t *ret_first);
/* Is one of them set? */
bool bit_any(const uint64_t *map, uint64_t i, uint64_t count);

/* Room for `count` items, at least; the array may move. -ENOMEM, and it is as it was. */
int array_grow(void **array, size_t *room, size_t count, size_t item);

/* XXH3 64-bit with a seed: the checksum of everything but contents. */
uint64_t hash64(const void *p, size_t len, uint64_t seed);
/* The checksum of a block of contents, as the block `fblock` of the file `ino`: bytes that are right in another place are
 * wrong here. */
uint32_t block_csum(const void *block, uint64_t ino, uint64_t fblock);

/* Text of the last error of this thread: what and where, "" if none. Valid until the next err_set(). */
const char *err_last(void);
void err_clear(void);
/* Remember the text and return -error, so that `return err_set(EBUSY, "...")` reads well. */
int err_set(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Damage: -EUCLEAN, with the place in the code that found it. */
/* The value is spelled out so that compilers and analyzers know it, too. */
#define err_corrupt(...) (err_corrupt_at(__FILE__, __LINE__, __VA_ARGS__), -EUCLEAN)
void err_corrupt_at(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The clocks of the system. mono and boot begin anywhere and never go back; boot counts the time that the machine sleeps,
 * too, as the other machines do that wait for this one. real: since 1970, as the administrator sets it. */
uint64_t clock_mono_ns(void);
int64_t clock_mono_ms(void);
int64_t clock_boot_ms(void);
uint64_t clock_real_ns(void);

_Noreturn void check_failed(const char *expr, const char *file, int line);
#define check(x) ((x) ? (void)0 : check_failed(#x, __FILE__, __LINE__))
#ifdef MSYNCFS_DEBUG
#define dcheck(x) check(x)
#else
#define dcheck(x) ((void)sizeof(x))
#endif

#endif
