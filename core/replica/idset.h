/* SPDX-License-Identifier: MIT
 *
 * idset: a set of 64-bit numbers other than 0 (inodes that a kernel holds), of bounded size. Belongs to one thread.
 */
#ifndef MSYNCFS_IDSET_H
#define MSYNCFS_IDSET_H

#include "core/base.h"

#define IDSET_MAX (1u << 20)            /* numbers in a set */

struct idset {
	uint64_t *slots;                /* open addressing; 0: free */
	uint32_t size;                  /* a power of two, or 0 */
	uint32_t count;
};

void idset_release(struct idset *s);
bool idset_has(const struct idset *s, uint64_t id);
/* 1: it was not there; 0: it was; -ENOMEM, -E2BIG: the set is as before. */
int idset_add(struct idset *s, uint64_t id);
/* Was it there? */
bool idset_remove(struct idset *s, uint64_t id);
/* The numbers one after the other: *pos begins at 0; 0 at the end. The set must not change meanwhile. */
uint64_t idset_next(const struct idset *s, uint32_t *pos);

#endif
