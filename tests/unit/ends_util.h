/* SPDX-License-Identifier: MIT
 *
 * ends: a primary and a replica face to face, without a link and without stores: what each sends is put into a box until
 * the test carries it over, and what each asks its owner for is written down. For steps that must be just so; what happens
 * over time is the simulator's (tests/sim).
 */
#ifndef MSYNCFS_ENDS_UTIL_H
#define MSYNCFS_ENDS_UTIL_H

#include "core/replica/primary.h"
#include "core/replica/replica.h"

#define ENDS_BOX 512u

struct ends_sent {
	unsigned type;
	uint32_t len;
	uint8_t bytes[1024];
};

/* Both ends of one link, and what was asked of them. */
struct ends {
	struct primary *p;
	struct replica *r;
	struct ends_sent to_p[ENDS_BOX], to_r[ENDS_BOX];
	unsigned np, nr;
	struct history ours, theirs;
	bool closed_p, closed_r, full_feed, unfit;
	uint64_t promised, fenced, led;
	unsigned runs, answers, asides, diffs;
	struct primary_run run[ENDS_BOX];
	int error;
	uint64_t cookie;
	char note[512];
	uint64_t waited;
	int waited_error;
	uint64_t hand_next, lock_of;
	uint64_t held[4];
	unsigned held_count, released, expired;
	struct primary_run here;        /* the last client that came, */
	uint32_t here_locks;            /* with so many bytes of locks */
	unsigned heres;
};

extern struct ends ends;

/* A history of so many epochs, each { epoch, its first change, its random number }. */
struct history ends_history(unsigned count, const uint64_t (*at)[3], seq_t last);
/* What a test changes before it sets up. */
struct primary_options ends_primary(void);
struct replica_options ends_replica(void);
/* The primary is at 10 of epoch 1, the replica at `last`. -ENOMEM: also then ends_tear_down() follows. */
int ends_set_up(const struct primary_options *po, const struct replica_options *ro, seq_t last);
void ends_tear_down(void);
/* Hand over what was sent, until nothing is. The first error of each end ends the link there. */
void ends_carry(uint64_t now);
/* The link is there: the replica says hello. */
void ends_join(uint64_t now);
enum replica_state ends_state(void);
/* The replica makes so many calls; the one that the primary was asked for as number i is answered. */
void ends_calls(unsigned count, uint32_t flags, uint64_t now);
void ends_result(unsigned i, int error, bool sync, uint64_t now);
/* (P5) */
bool ends_may_mark(uint64_t ino, seq_t seq, uint64_t now);

#endif
