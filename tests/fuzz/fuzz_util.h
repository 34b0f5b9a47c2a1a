/* SPDX-License-Identifier: MIT
 *
 * fuzz: what the targets share. A target is a LLVMFuzzerTestOneInput(): built with clang it is a libFuzzer program
 * (`make fuzz`), built with main.c it runs the inputs of its corpus (`make test`).
 *
 * An input is a little program, so that it means the same whatever the base image looks like: first what is done to the
 * image of a store (patch an item, put one, mark blocks, write journal records...), then which calls are made on the
 * store that was opened from it. Whatever the first part touches gets its checksums, chain and nonce put right, so that
 * every byte gets behind them. The base image is made once; each execution maps it MAP_PRIVATE and changes its own copy.
 * Clock and random numbers are a function of the input, so a failure can be replayed; but no input can know the
 * generation that opening will choose, just as nobody who makes a store can.
 *
 * What is read from the input stands in a statement of its own, never twice among the arguments of one call: compilers differ in
 * which they evaluate first, and what clang's fuzzer has found must mean the same to the tests that gcc builds.
 */
#ifndef MSYNCFS_FUZZ_UTIL_H
#define MSYNCFS_FUZZ_UTIL_H

#include "core/keys/item.h"
#include "core/keys/keys_int.h"
#include "core/store/record.h"
#include "core/store/store.h"
#include "core/store/super.h"
#include "core/store/sys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

/* The input, byte by byte; zeros behind its end. */
struct input {
	const uint8_t *p, *end;
};
uint8_t in_u8(struct input *in);
uint16_t in_u16(struct input *in);
uint64_t in_u64(struct input *in);
/* A number that is often a meaningful one: small, near the end of a range, or a number that the base image has. */
uint64_t in_value(struct input *in);
/* Up to max bytes into buf; returns how many. */
uint32_t in_bytes(struct input *in, uint8_t *buf, uint32_t max);
/* Some of an inode's attributes become others: the lowest six bits of what is returned say which; the other two are free. */
uint8_t in_attr(struct input *in, struct keys_attr *a);

/* What the first part of an input may do. */
#define WORLD_SUPER   1u
#define WORLD_PAGES   2u
#define WORLD_ITEMS   4u
#define WORLD_SLOTS   8u
#define WORLD_JOURNAL 16u
#define WORLD_RAW     32u
#define WORLD_ALL     63u

struct store_options world_options(bool read_only);
/* Open a store whose image is made by the input (up to its opcode OPEN or its end). */
int world_open(struct input *in, unsigned may, bool read_only, struct keys **ret_keys);
/* What is left of such a store (core/store/salvage.h). */
int world_salvage(struct input *in, unsigned may, struct store_salvage *v, struct keys **ret_keys);
/* Without an input: the base image as it is. */
int world_open_base(struct keys **ret_keys);
/* The table of system calls that keeps everything in memory, for the file that is opened next: it has not grown yet. */
const struct sys_ops *world_sys(void);
/* Make the random numbers of the next execution. */
void world_seed(const uint8_t *data, size_t size);
/* Numbers that the base image has. */
uint64_t world_ino(unsigned i);
uint64_t world_block(unsigned i);

/* calls_util.c: calls on an opened store. */
/* Every call that reads, on every inode. Aborts if contents of one file are read through another. */
void calls_read(struct keys *k);
/* Calls as the rest of the input says. */
void calls_run(struct keys *k, struct input *in);
/* Housekeeping: sync, reap some orphans, checkpoint, compact. */
void calls_settle(struct keys *k);
/* False if the input has made checksums of its own: then it may show whatever it likes. */
bool world_honest(void);
void world_dishonest(void);

/* Files of the base image are filled with blocks that say whose they are. */
#define TAG_MAGIC 0x676174737466736dull
void tag_block(uint8_t *block, uint64_t ino, uint64_t fblock);

#endif
