/* SPDX-License-Identifier: MIT
 *
 * still: does this machine work? Net thread, at each tick. A link that is up says nothing of the request thread behind it, nor of its
 * disk. If the one has not been through its loop for long, or one msync does not end, no call is answered, and who waits for
 * an answer would do so for ever: so the links end, and nobody is let in until it goes on (P8, R7; core/replica/DESIGN.md, section 6).
 */
#include "fs/remote_int.h"

#include "fs/log.h"

/* How long this has not moved, in our own ticks: while the whole process is stopped, nothing of it stands still alone. */
static void count_still(uint64_t now, uint64_t *seen, bool moves, uint32_t *ms, uint32_t step)
{
	*ms = moves || now != *seen ? 0 : (uint32_t)min_u64((uint64_t)*ms + step, UINT32_MAX);
	*seen = now;
}

void still_look(struct remote *l)
{
	enum primary_state state = primary_state(l->primary);
	uint64_t now = (uint64_t)remote_now_ms();
	uint32_t step = (uint32_t)min_u64(now - l->looked_ms, 2ull * TICK_NET_MS);
	uint64_t turns = atomic_load_explicit(&l->turns, memory_order_relaxed), disk = store_disk_turns(l->fs->store);
	const char *reason = NULL;

	l->looked_ms = now;
	count_still(turns, &l->turns_seen, turns == 0, &l->turns_ms, step);
	count_still(disk, &l->disk_seen, disk % 2 == 0, &l->disk_ms, step);
	if (l->turns_ms >= STILL_MS)
		reason = "this machine stands still: the thread that makes changes waits, perhaps for its disk";
	else if (l->disk_ms >= STILL_DISK_MS)
		reason = "this machine stands still: its disk does not answer";
	else if (state == PRIMARY_HANDING && store_failed(l->fs->store) != 0)
		reason = "this machine stands still: its store failed while it handed over";
	if ((reason != NULL) != l->still && state != PRIMARY_OFF) {
		if (reason != NULL)
			log_error("%s: %s: remote mounts are sent away until it goes on", l->fs->store_path, reason);
		else
			log_info("%s: this machine goes on: remote mounts are let in again", l->fs->store_path);
	}
	l->still = reason != NULL;
	primary_stand_still(l->primary, reason, now);
}
