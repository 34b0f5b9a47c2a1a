/* SPDX-License-Identifier: MIT
 *
 * hashes: of blocks that were hashed before. An image is the live machine's disk and a few pages besides. Its contents are
 * verified and hashed for the comparison with the model, verified by the check, and both again when it was closed and opened:
 * of a full store nearly all of that is about pages which thousands of images have in common.
 *
 * So the hash function is wrapped here (the linker's --wrap). While a machine is only read, between machine_freeze() and
 * machine_thaw(), a block of it that is still the disk's own page has the hash that this page had the last time: whether it
 * is, the kernel says (/proc/self/pagemap), and what is stored to the disk is forgotten. No verdict becomes another one by that.
 * One in SAMPLE is computed nevertheless, and has to agree. See crash.h.
 */
#include "tests/crash/crash.h"

#include <xxhash.h>

#define WAYS    2u                      /* of contents the store's checksum and the model's hash */
#define SAMPLE  64u

enum { PAGE_UNKNOWN, PAGE_OF_DISK, PAGE_OWN };

struct known {
	uint64_t seed, hash;
	unsigned first;                 /* byte of the page that it begins with */
};

static struct known known[FILE_PAGES][WAYS];
static uint8_t count[FILE_PAGES], turn[FILE_PAGES];
static uint64_t asked;

XXH64_hash_t __real_XXH3_64bits_withSeed(const void *p, size_t len, XXH64_hash_t seed);
XXH64_hash_t __wrap_XXH3_64bits_withSeed(const void *p, size_t len, XXH64_hash_t seed);

void hashes_forget(uint64_t from, uint64_t to)
{
	memset(count + from, 0, to > from ? to - from : 0);
}

void machine_freeze(struct machine *m)
{
	memset(m->state, PAGE_UNKNOWN, m->mapped / BLOCK_SIZE);
	m->frozen = true;
}

void machine_thaw(struct machine *m)
{
	m->frozen = false;
}

/* Is page n of m the disk's own? Asked of the kernel for many at once. */
static bool is_of_disk(struct machine *m, uint32_t n)
{
	uint64_t entry[512];
	uint32_t first = n - n % (uint32_t)ARRAY_LEN(entry), i, part;

	if (m->state[n] == PAGE_UNKNOWN) {
		part = (uint32_t)min_u64(m->mapped / BLOCK_SIZE - first, ARRAY_LEN(entry));
		machine_ask(m, first, part, entry);
		for (i = 0; i < part; i++)
			m->state[first + i] = m->from_disk[first + i] && !is_copy(entry[i]) ? PAGE_OF_DISK : PAGE_OWN;
	}
	return m->state[n] == PAGE_OF_DISK;
}

/* The machine that p, a whole block or all of it but what its checksum leaves out, belongs to and that is frozen. */
static struct machine *frozen_at(const uint8_t *p, size_t len)
{
	unsigned i;

	for (i = 0; i < ARRAY_LEN(again); i++) {
		struct machine *m = &again[i];

		if (m->frozen && p >= m->engine && p < m->engine + m->mapped &&
		    ((uint64_t)(p - m->engine) + len) % BLOCK_SIZE == 0)
			return m;
	}
	return NULL;
}

static uint64_t hash_of_disk(uint32_t n, const uint8_t *p, size_t len, uint64_t seed)
{
	struct known *k;
	unsigned i;

	for (i = 0; i < count[n]; i++) {
		k = &known[n][i];
		if (k->seed != seed || k->first != BLOCK_SIZE - len)
			continue;
		if (++asked % SAMPLE == 0 && __real_XXH3_64bits_withSeed(p, len, seed) != k->hash)
			broken("block %u of the disk was stored to, and its hash not forgotten", n);
		return k->hash;
	}
	i = count[n] < WAYS ? count[n]++ : turn[n]++ % WAYS;
	k = &known[n][i];
	*k = (struct known){ seed, __real_XXH3_64bits_withSeed(p, len, seed), (unsigned)(BLOCK_SIZE - len) };
	return k->hash;
}

XXH64_hash_t __wrap_XXH3_64bits_withSeed(const void *p, size_t len, XXH64_hash_t seed)
{
	struct machine *m = len == BLOCK_SIZE || len == BLOCK_SIZE - 16 ? frozen_at(p, len) : NULL;
	uint32_t n;

	if (!m)
		return __real_XXH3_64bits_withSeed(p, len, seed);
	n = (uint32_t)(((const uint8_t *)p - m->engine) / BLOCK_SIZE);
	return is_of_disk(m, n) ? hash_of_disk(n, p, len, seed) : __real_XXH3_64bits_withSeed(p, len, seed);
}
