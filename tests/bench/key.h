/* SPDX-License-Identifier: MIT
 *
 * How the programs of the bench name the keys of a large store: engine makes them without FUSE, fsbench uses them through a mount.
 */
#ifndef MSYNCFS_BENCH_KEY_H
#define MSYNCFS_BENCH_KEY_H

#include <stdint.h>

#define KEY_LEN 16u

/* One to one, so keys are distinct (splitmix64's finisher). */
static inline void key_of(uint64_t i, char key[KEY_LEN + 1])
{
	static const char digits[] = "0123456789abcdef";
	int d;

	i += 0x9e3779b97f4a7c15u;
	i = (i ^ i >> 30) * 0xbf58476d1ce4e5b9u;
	i = (i ^ i >> 27) * 0x94d049bb133111ebu;
	i ^= i >> 31;
	for (d = 0; d < (int)KEY_LEN; d++, i >>= 4)
		key[d] = digits[i & 15];
	key[KEY_LEN] = '\0';
}

#endif
