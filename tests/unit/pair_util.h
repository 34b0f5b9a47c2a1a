/* SPDX-License-Identifier: MIT
 *
 * pair: two stores, A and B, and the diff that makes B what A is. A is changed at random, with a model (pair_work); B is
 * new, an older copy of A with changes of its own, or unrelated. Messages are carried between the two in memory, late, in
 * any order of the two directions, and damaged if so told.
 */
#ifndef MSYNCFS_PAIR_UTIL_H
#define MSYNCFS_PAIR_UTIL_H

#include "tests/unit/crash_util.h"
#include "tests/unit/ok_util.h"
#include "tests/unit/scratch_util.h"

#include "core/replica/diff.h"

#define CARRY_DELAYED 256u

/* Of A, of B, and of what a kill or a power cut left of B. */
extern char path_a[SCRATCH_PATH], path_b[SCRATCH_PATH], path_c[SCRATCH_PATH];
extern struct work pair_work;

/* Of the run: SEED= and CASES=. ONLY= tries one test. To be called before the tests. */
extern uint64_t pair_seed, pair_cases;
void pair_begin(void);
/* For cmocka: the folder. */
int pair_setup(void **state);
int pair_teardown(void **state);
/* Case i of a test begins; each test has a number of its own, so that no two have the same stores. */
void pair_case(const char *what, uint64_t i, unsigned test);

/* Stores ------------------------------------------------------------------------------------------------------------ */

/* A store that waits for no disk; max: bytes it may grow to, 0: no limit. */
struct keys *pair_open(const char *path, uint64_t max);

enum pair_origin { PAIR_NEW, PAIR_OLDER, PAIR_OTHER, PAIR_EQUAL, PAIR_ORIGINS };

/* A, with the model; and B, of that origin. */
void pair_make(enum pair_origin origin, uint64_t b_max, struct keys **ret_a, struct keys **ret_b);
void pair_drop(struct keys *a, struct keys *b);
/* B becomes what A is now, block for block; A is closed for that, and opened again. */
void pair_copy(struct keys **a, struct keys **ret_b);
/* Random changes of A, and of the model. */
void pair_grow(unsigned calls);
/* Random changes without a model. */
void pair_scribble(struct keys *k, unsigned calls);
/* Files of all sizes, or of less than 2000 bytes. */
void pair_fill(struct keys *k, uint64_t bytes, bool small);

/* check finds nothing. */
void pair_clean(struct keys *k, const char *what);
/* All that a store holds, as one number; each item once through the code under test. */
uint64_t pair_digest(struct keys *k);
/* The same items, byte for byte. Lenient: blocks that b knows as damaged need not be equal, for a peer that is not honest
 * may make some. */
void pair_same(struct keys *a, struct keys *b);
extern bool pair_lenient;
/* Until the checkpoint of its rebase is on disk. */
void pair_wait_rebase(const struct keys *k);

/* The link ---------------------------------------------------------------------------------------------------------- */

struct carry_message {
	unsigned type;
	size_t len;
	uint8_t *bytes;
};

struct carry_lane {
	struct carry_message m[CARRY_DELAYED];
	unsigned first, count, limit;
};

struct carry {
	struct carry_lane to_target, to_source;
	struct diff_source *s;
	struct diff_target *t;
	struct keys *snapshot, *b;
	uint64_t messages, longest;
	unsigned changes;
	bool commit_called;
	bool hostile;                   /* messages are damaged */
	bool garble;                    /* contents are, a bit */
	bool fail_commit;
	bool stops;                     /* the link ends, after so many messages */
	uint64_t stop_at;
	int (*at_message)(void);        /* called at each */
};

extern struct carry ln;

/* A's state now is what is carried over; at most `limit` messages are under way in each direction. */
void carry_begin(struct keys *a, struct keys *b, bool direct, unsigned limit);
/* Until the target is ready, or somebody fails. */
int carry_run(void);
/* The test ends if the diff did. */
void carry_ready(int r);
void carry_end(void);
/* The same, of a B that has failed. */
void carry_drop(void);
/* From begin to end, with all that must be true then; carry_any() leaves out check. */
void carry_any(struct keys *a, struct keys *b, bool direct);
void carry_all(struct keys *a, struct keys *b, bool direct);
/* What the target sends, for a test that makes one of its own. */
int carry_to_source(void *ctx, enum diff_type type, const void *bytes, size_t len);

#endif
