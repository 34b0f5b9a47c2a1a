/* SPDX-License-Identifier: MIT
 *
 * reaper: see reaper.h.
 */
#include "fs/reaper.h"

#include "fs/fs.h"
#include "fs/remote.h"
#include "fs/log.h"

#include "core/keys/cluster.h"

#include <errno.h>
#include <string.h>

void reaper_start(struct fs *fs)
{
	fs->reaper = (struct reaper){ .scanning = true, .off = fs->options->read_only && fs->options->from == NULL };
}

void reaper_add(struct fs *fs, uint64_t ino)
{
	struct reaper *r = &fs->reaper;

	if (r->count < REAPER_SLOTS) {
		r->ring[(r->head + r->count++) & (REAPER_SLOTS - 1)] = ino;
		return;
	}
	/* No room to note it: the store knows all its orphans. */
	if (!r->scanning || ino < r->scan_from)
		r->scan_from = ino;
	r->scanning = true;
}

bool reaper_has_work(const struct fs *fs)
{
	return !fs->reaper.off && !remote_owns_store(fs->remote) && (fs->reaper.count > 0 || fs->reaper.scanning || keys_compact_due(fs->keys));
}

/* Reap a slice of ino; what keys_reap() says, but that damage of one inode is no reason to leave
 * the others. */
static int reap(struct fs *fs, uint64_t ino)
{
	int r = keys_reap(fs->keys, ino);

	/* Part of a cluster, and perhaps open on another machine. A primary that nobody can reach decides alone. */
	if (r == -EBUSY && fs->remote != NULL) {
		if (remote_leads(fs->remote))
			remote_orphan(fs->remote, ino);
		return 0;
	}
	if (r == -EBUSY && (r = keys_mark_orphan(fs->keys, ino)) == 0)
		return 1;
	if (r >= 0 || r == -EAGAIN)
		return r;
	if (r == -EROFS || r == -EIO) {
		fs->reaper.off = true;
		return r;
	}
	log_error("reap: ino=%llu: %s, leaving it", (unsigned long long)ino, strerror(-r));
	return 0;
}

/* A slice of the next orphan in the store that the kernel does not know. */
static int scan_step(struct fs *fs)
{
	struct reaper *rp = &fs->reaper;
	uint64_t ino;
	int r;

	r = keys_next_orphan(fs->keys, rp->scan_from, &ino);
	if (r == -ENOENT) {
		rp->scanning = false;
		rp->scan_from = 0;
		return 0;
	}
	if (r < 0) {
		log_error("reap: orphans cannot be listed: %s, leaving them", strerror(-r));
		rp->scanning = false;
		return 0;
	}
	r = 0;
	/* One that is in use is reaped when the kernel forgets it. */
	if (!inodes_mark_orphan(&fs->inodes, ino))
		r = reap(fs, ino);
	if (r == 0)
		rp->scan_from = ino + 1;
	return r;
}

int reaper_step(struct fs *fs)
{
	struct reaper *rp = &fs->reaper;
	int r;

	if (!reaper_has_work(fs))
		return 0;
	if (rp->count > 0) {
		r = reap(fs, rp->ring[rp->head]);
		if (r == 0) {
			rp->head = (rp->head + 1) & (REAPER_SLOTS - 1);
			rp->count--;
		}
	} else if (rp->scanning) {
		r = scan_step(fs);
	} else {
		r = keys_compact(fs->keys);
		if (r < 0 && r != -EAGAIN) {
			log_error("compaction: %s, leaving it", strerror(-r));
			rp->off = r == -EROFS || r == -EIO;
		}
	}
	if (r == -EAGAIN)
		return r;
	return reaper_has_work(fs) ? 1 : 0;
}
