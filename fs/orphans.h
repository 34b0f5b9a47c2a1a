/* SPDX-License-Identifier: MIT
 *
 * orphans: files without a name that wait until they may be marked (core/replica/DESIGN.md, section 7), on a primary. One waits first
 * until everybody has the change that took its last name, in the order of these changes; then, if somebody holds it, until nobody
 * does. So a look at what may be marked costs by what changed since the last one, not by how many wait.
 *
 * Belongs to one thread. Nothing here is durable: what is not marked is found when the store is opened again.
 */
#ifndef MSYNCFS_ORPHANS_H
#define MSYNCFS_ORPHANS_H

#include "core/replica/idset.h"

struct orphan {
	uint64_t ino;
	seq_t seq;                      /* the change that took its last name, at the latest */
};

struct orphans {
	struct orphan *at;              /* for that change: count of them from first on, oldest first */
	size_t first, count, room;
	struct idset held;              /* for those that hold it */
};

void orphans_release(struct orphans *o);
/* Later calls have no lower seq, or theirs wait a little longer than they must. -ENOMEM: it is not among them. */
int orphans_add(struct orphans *o, uint64_t ino, seq_t seq);
/* Nobody holds it any more. If it waited for that: it waits for the change `seq` now, which is to be no older than the one that took
 * its name. -ENOMEM: it does not wait any more. */
int orphans_freed(struct orphans *o, uint64_t ino, seq_t seq);
/* The next one that may be marked, if everybody has the changes up to `limit`; 0: none. Those that are held are set aside: orphans_freed()
 * is to follow for each. It stays the next one until orphans_pop(). */
uint64_t orphans_next(struct orphans *o, seq_t limit, bool (*held)(void *ctx, uint64_t ino), void *ctx);
void orphans_pop(struct orphans *o);

#endif
