/* SPDX-License-Identifier: MIT
 *
 * dump: what the tests of dump and load share: stores with trees made at random, streams in memory, and two stores compared,
 * to the nanosecond and to the hole.
 */
#ifndef MSYNCFS_DUMP_UTIL_H
#define MSYNCFS_DUMP_UTIL_H

#include "tests/unit/scratch_util.h"

#include "core/stream/stream.h"

#define DUMP_SMALL (16u << 20)          /* a store's size */

/* A stream in memory. One byte more is allocated. */
struct dump {
	uint8_t *p;
	size_t len;
};

/* Paths of two stores, in a folder that has nothing else. */
extern char dump_a[SCRATCH_PATH], dump_b[SCRATCH_PATH];
extern uint64_t dump_seed;

/* Around the tests: the folder and SEED=; the program's status. It fails if a descriptor is left open. */
int dump_begin(void);
int dump_end(int failed);
/* For cmocka, before each test: what another one has left is not its own. */
int dump_fresh(void **state);

/* A new store, or one that is there, read-only. */
struct keys *dump_open(const char *path, bool create);
/* An open store of so many random things. */
struct keys *dump_random_store(const char *path, unsigned count);
/* The stream of one. */
struct dump dump_random(unsigned count);
/* bytes: whole MiB. */
void dump_big_file(struct keys *k, size_t bytes);
void dump_random_bytes(uint8_t *p, size_t len);
/* Of a file; of a file or a symbolic link. */
void dump_random_contents(struct keys *k, uint64_t ino);
void dump_random_xattrs(struct keys *k, uint64_t ino, bool link);
/* The next number that has an inode; 0: none. */
uint64_t dump_next(struct keys *k, uint64_t ino);

struct dump dump_store(struct keys *k);
int dump_load(const char *path, const uint8_t *p, size_t len, uint64_t max);
/* It is loaded: the new store, open. */
struct keys *dump_load_ok(struct dump b, const char *path);
/* The stream is refused with a text, and nothing is left of it. */
void dump_refused(const uint8_t *p, size_t len, const char *what, size_t at);

/* A file in memory with these bytes; the bytes of one, which is closed. */
int dump_file(const void *p, size_t len);
struct dump dump_take(int fd);
/* In the folder. */
unsigned dump_files(void);

/* All that is in the stores is the same. */
void dump_same(struct keys *ka, struct keys *kb);

#endif
