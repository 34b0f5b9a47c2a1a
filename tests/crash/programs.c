/* SPDX-License-Identifier: MIT
 *
 * programs: the calls of real programs, as they come at the mount: an editor that saves, a database with a rollback journal
 * and one with a write-ahead log, a log that is rotated, a version control system's objects, references and locks, a
 * package being unpacked. Several run side by side, each works in a directory of its own, and each begins anew after a
 * crash with whatever it finds. A name that is not there although the program made it (its call may have been left out) is
 * no error: the program begins anew.
 */
#include "tests/crash/crash.h"

#include <stdio.h>
#include <sys/stat.h>

#define PROGRAMS 6u

struct program {
	unsigned step;                  /* of what it does */
	unsigned serial;                /* of what it makes */
	unsigned count;
	uint64_t dir;
	char name[24], other[24];
};

enum next { NEXT_STEP, NEXT_SYNC, NEXT_BEGIN };

static struct program programs[PROGRAMS];
static const char *const dirs[PROGRAMS] = { "editor", "rollback", "wal", "log", "git", "package" };
static uint8_t data[64 * 1024];

void programs_reset(void)
{
	memset(programs, 0, sizeof programs);
}

/* A file of the program's, made if it is not there; 0: the call failed (no room). */
static uint64_t file_of(struct work *w, const struct program *p, const char *name, bool *ret_made)
{
	uint64_t ino = work_lookup(w, p->dir, name, S_IFREG);

	*ret_made = ino == 0;
	if (ino == 0 && work_make(w, p->dir, name, S_IFREG | 0644, 0) == 0)
		ino = work_lookup(w, p->dir, name, S_IFREG);
	return ino;
}

static bool write_at(struct work *w, const struct program *p, const char *name, uint64_t off, size_t len)
{
	uint64_t ino = work_lookup(w, p->dir, name, S_IFREG);

	if (ino == 0)
		return false;
	work_bytes(w, data, len);
	return work_write(w, ino, off == UINT64_MAX ? work_size(w, ino) : off, data, len, KEYS_KILL_PRIV) == 0;
}

static bool move(struct work *w, const struct program *p, const char *from, const char *to)
{
	return work_lookup(w, p->dir, from, 0) != 0 && work_rename(w, p->dir, from, p->dir, to, 0) == 0;
}

static bool drop(struct work *w, const struct program *p, const char *name)
{
	return work_lookup(w, p->dir, name, 0) != 0 && work_unlink(w, p->dir, name) == 0;
}

/* Write to a temporary file, fsync, rename, fsync the directory. */
static enum next editor(struct work *w, struct program *p)
{
	bool made;

	switch (p->step) {
	case 0:
		p->count = (unsigned)work_random(w, 3);
		(void)snprintf(p->name, sizeof p->name, "doc%u", (unsigned)work_random(w, 4));
		(void)snprintf(p->other, sizeof p->other, ".doc.swp%u", p->serial++ % 8);
		return file_of(w, p, p->other, &made) ? NEXT_STEP : NEXT_BEGIN;
	case 1:
		if (!write_at(w, p, p->other, UINT64_MAX, 1 + (size_t)work_random(w, 20000)))
			return NEXT_BEGIN;
		if (p->count-- > 0)
			p->step--;
		return p->count < 3 ? NEXT_STEP : NEXT_SYNC;
	case 2:
		return move(w, p, p->other, p->name) ? NEXT_SYNC : NEXT_BEGIN;
	default:
		if (work_orphan(w))
			(void)work_reap(w, work_orphan(w));
		return NEXT_BEGIN;
	}
}

/* The old pages to the journal, fsync, its header, fsync, the pages in place, fsync, the journal away: that is the commit. */
static enum next rollback(struct work *w, struct program *p)
{
	bool made;
	uint64_t ino;

	switch (p->step) {
	case 0:
		p->count = 1 + (unsigned)work_random(w, 3);
		return file_of(w, p, "db", &made) ? NEXT_STEP : NEXT_BEGIN;
	case 1:
		return file_of(w, p, "db-journal", &made) ? NEXT_STEP : NEXT_BEGIN;
	case 2:
		return write_at(w, p, "db-journal", 512, p->count * 4104) ? NEXT_SYNC : NEXT_BEGIN;
	case 3:
		return write_at(w, p, "db-journal", 0, 28) ? NEXT_SYNC : NEXT_BEGIN;
	case 4:
		if (!write_at(w, p, "db", work_random(w, 24) * 4096, 4096))
			return NEXT_BEGIN;
		if (--p->count > 0)
			p->step--;
		return p->count > 0 ? NEXT_STEP : NEXT_SYNC;
	default:
		ino = work_lookup(w, p->dir, "db-journal", S_IFREG);
		if (ino == 0)
			return NEXT_BEGIN;
		/* journal_mode DELETE, TRUNCATE or PERSIST */
		switch (work_random(w, 3)) {
		case 0:
			(void)drop(w, p, "db-journal");
			return NEXT_BEGIN;
		case 1:
			(void)work_truncate(w, ino, 0);
			return NEXT_BEGIN;
		default:
			(void)write_at(w, p, "db-journal", 0, 28);
			return NEXT_BEGIN;
		}
	}
}

/* Frames are appended, with an fsync for each commit; now and then the pages go to the database, and the log begins anew
 * in place. */
static enum next wal(struct work *w, struct program *p)
{
	bool made;

	switch (p->step) {
	case 0:
		return file_of(w, p, "db", &made) ? NEXT_STEP : NEXT_BEGIN;
	case 1:
		return file_of(w, p, "db-wal", &made) ? NEXT_STEP : NEXT_BEGIN;
	case 2:
		return write_at(w, p, "db-wal", 0, 32) ? NEXT_STEP : NEXT_BEGIN;
	case 3:
		if (!write_at(w, p, "db-wal", 32 + 4120ull * p->serial, 24) ||
		    (w->ops++, !write_at(w, p, "db-wal", 56 + 4120ull * p->serial, 4096)))
			return NEXT_BEGIN;
		p->count = 3;
		if (++p->serial % 6 != 0)
			p->step--;
		return work_random(w, 3) == 0 ? NEXT_STEP : NEXT_SYNC;
	case 4:
		if (!write_at(w, p, "db", work_random(w, 24) * 4096, 4096))
			return NEXT_BEGIN;
		if (p->count-- > 0)
			p->step--;
		return NEXT_STEP;
	default:
		p->serial = 0;
		if (work_random(w, 3) == 0 && work_lookup(w, p->dir, "db-wal", S_IFREG))
			(void)work_truncate(w, work_lookup(w, p->dir, "db-wal", S_IFREG), 0);
		return NEXT_SYNC;
	}
}

/* Lines are appended; every few an fsync; at last it is moved away and begun anew. */
static enum next logger(struct work *w, struct program *p)
{
	bool made;

	switch (p->step) {
	case 0:
		p->count = 4 + (unsigned)work_random(w, 30);
		return file_of(w, p, "log", &made) ? NEXT_STEP : NEXT_BEGIN;
	case 1:
		if (!write_at(w, p, "log", UINT64_MAX, 20 + (size_t)work_random(w, 200)))
			return NEXT_BEGIN;
		if (p->count-- > 0)
			p->step--;
		return work_random(w, 4) == 0 ? NEXT_SYNC : NEXT_STEP;
	case 2:
		(void)snprintf(p->name, sizeof p->name, "log.%u", p->serial++ % 3);
		return move(w, p, "log", p->name) ? NEXT_SYNC : NEXT_BEGIN;
	default:
		if (work_orphan(w))
			(void)work_reap(w, work_orphan(w));
		return NEXT_BEGIN;
	}
}

/* An object: temporary file, link, unlink. A reference: lock file made exclusively, written, renamed into place; and a line
 * in its log. */
static enum next git(struct work *w, struct program *p)
{
	bool made;

	switch (p->step) {
	case 0:
		(void)snprintf(p->name, sizeof p->name, "obj%u", p->serial++ % 12);
		return file_of(w, p, "tmp_obj", &made) ? NEXT_STEP : NEXT_BEGIN;
	case 1:
		return write_at(w, p, "tmp_obj", 0, 50 + (size_t)work_random(w, 9000)) ? NEXT_SYNC : NEXT_BEGIN;
	case 2:
		if (work_lookup(w, p->dir, p->name, 0) == 0 && work_lookup(w, p->dir, "tmp_obj", S_IFREG) != 0)
			(void)work_link(w, work_lookup(w, p->dir, "tmp_obj", S_IFREG), p->dir, p->name);
		return NEXT_STEP;
	case 3:
		return drop(w, p, "tmp_obj") ? NEXT_STEP : NEXT_BEGIN;
	case 4:
		/* A lock that a crash left is removed by hand. */
		if (!file_of(w, p, "master.lock", &made))
			return NEXT_BEGIN;
		if (!made) {
			(void)drop(w, p, "master.lock");
			return NEXT_BEGIN;
		}
		return NEXT_STEP;
	case 5:
		return write_at(w, p, "master.lock", 0, 41) ? NEXT_SYNC : NEXT_BEGIN;
	case 6:
		return move(w, p, "master.lock", "master") ? NEXT_STEP : NEXT_BEGIN;
	case 7:
		return file_of(w, p, "HEAD.log", &made) ? NEXT_STEP : NEXT_BEGIN;
	default:
		(void)write_at(w, p, "HEAD.log", UINT64_MAX, 150);
		return NEXT_BEGIN;
	}
}

/* Files are unpacked under other names, all synced, then renamed over the old ones; a link says which version is there. */
static enum next package(struct work *w, struct program *p)
{
	const unsigned files = 5;
	bool made;

	(void)snprintf(p->name, sizeof p->name, "bin%u", p->count % files);
	(void)snprintf(p->other, sizeof p->other, "bin%u.new", p->count % files);
	switch (p->step) {
	case 0:
		return file_of(w, p, p->other, &made) ? NEXT_STEP : NEXT_BEGIN;
	case 1:
		if (!write_at(w, p, p->other, 0, 1 + (size_t)work_random(w, work_random(w, 3) ? 3000 : 50000)))
			return NEXT_BEGIN;
		if (++p->count % files != 0)
			p->step = UINT32_MAX;           /* the next file, from the first step on */
		return p->count % files != 0 ? NEXT_STEP : NEXT_SYNC;
	case 2:
		if (!move(w, p, p->other, p->name))
			return NEXT_BEGIN;
		if (++p->count % files != 0)
			p->step--;
		return p->count % files != 0 ? NEXT_STEP : NEXT_SYNC;
	case 3:
		if (work_lookup(w, p->dir, "version", 0))
			(void)drop(w, p, "version");
		return NEXT_STEP;
	case 4:
		if (work_lookup(w, p->dir, "version", 0) == 0)
			(void)work_symlink(w, p->dir, "version", (const uint8_t *)"v-1.2.3", 7);
		return NEXT_SYNC;
	default:
		if (work_orphan(w))
			(void)work_reap(w, work_orphan(w));
		return NEXT_BEGIN;
	}
}

static enum next (*const bodies[PROGRAMS])(struct work *w, struct program *p) = {
	editor, rollback, wal, logger, git, package,
};

bool programs_step(struct work *w)
{
	unsigned i = (unsigned)work_random(w, PROGRAMS);
	struct program *p = &programs[i];
	enum next next;

	work_begin(w);
	p->dir = work_lookup(w, KEYS_ROOT_INO, dirs[i], S_IFDIR);
	if (p->dir == 0) {
		(void)work_make(w, KEYS_ROOT_INO, dirs[i], S_IFDIR | 0755, 0);
		return false;
	}
	next = bodies[i](w, p);
	p->step++;
	if (next == NEXT_BEGIN)
		p->step = 0;
	return next == NEXT_SYNC;
}
