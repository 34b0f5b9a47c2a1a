/* SPDX-License-Identifier: MIT
 *
 * ops_dir: listing directories, see ops.h. The offset of an entry is the cookie of keys, which
 * stays valid whatever changes, so there is no state between two requests.
 */
#include "fs/control.h"
#include "fs/log.h"
#include "fs/ops.h"
#include "fs/repeat.h"

#include <errno.h>
#include <string.h>

struct listing {
	struct fs *fs;
	fuse_req_t req;
	uint64_t dir;
	bool plus;              /* with attributes; each entry then counts as a lookup */
	size_t size, used;
	int error;
};

static bool is_dots(const char *name, size_t len)
{
	return name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'));
}

/* Put one entry into the buffer. False: it does not fit. */
static bool add(struct listing *l, const char *name, const struct fuse_entry_param *entry,
		uint64_t cookie)
{
	char *at = l->fs->dirbuf + l->used;
	size_t room = l->size - l->used, need;

	if (l->plus)
		need = fuse_add_direntry_plus(l->req, at, room, name, entry, (off_t)cookie);
	else
		need = fuse_add_direntry(l->req, at, room, name, &entry->attr, (off_t)cookie);
	if (need > room)
		return false;
	l->used += need;
	return true;
}

static int list_cb(void *ctx, const struct keys_dirent *d)
{
	struct listing *l = ctx;
	struct fuse_entry_param entry = { .attr.st_ino = d->ino, .attr.st_mode = d->type };
	char name[KEYS_NAME_MAX + 1];
	struct keys_attr attr;

	if (d->len > KEYS_NAME_MAX) {
		l->error = -EUCLEAN;
		return 1;
	}
	memcpy(name, d->name, d->len);
	name[d->len] = '\0';
	/* An entry without a node id is listed only: the dots, and what cannot be read, which a
	 * lookup will report. */
	if (l->plus && !is_dots(name, d->len) && keys_getattr(l->fs->keys, d->ino, &attr) == 0 &&
	    inodes_ref(&l->fs->inodes, d->ino) == 0)
		ops_fill_entry(l->fs, &attr, &entry);
	if (S_ISDIR(d->type) && entry.ino != 0)
		repeat_dir_seen(l->fs->repeat, d->ino);
	if (!is_dots(name, d->len))
		repeat_named(l->fs->repeat, l->dir, name, d->len, d->ino);
	if (add(l, name, &entry, d->cookie))
		return 0;
	if (entry.ino != 0 && inodes_forget(&l->fs->inodes, d->ino, 1))
		reaper_add(l->fs, d->ino);
	return 1;
}

static void list_control(struct listing *l, uint64_t from)
{
	const char *name;

	for (unsigned n = from < UINT32_MAX ? (unsigned)from : UINT32_MAX;; n++) {
		struct fuse_entry_param entry = { 0 };

		/* In a directory there is nothing but what is asked for. */
		if ((n >= 2 && l->dir != CONTROL_FIRST) || !control_entry(n, &name, &entry.attr) || !add(l, name, &entry, (uint64_t)n + 1))
			return;
	}
}

/* The reply was not taken: take the lookups back. */
static void unlist(struct listing *l)
{
	const struct fuse_direntplus *d;

	for (size_t at = 0; l->plus && at < l->used; at += FUSE_DIRENTPLUS_SIZE(d)) {
		d = (const void *)(l->fs->dirbuf + at);
		if (d->entry_out.nodeid != 0 &&
		    inodes_forget(&l->fs->inodes, d->entry_out.nodeid, 1))
			reaper_add(l->fs, d->entry_out.nodeid);
	}
}

static void list(fuse_req_t req, uint64_t ino, size_t size, off_t off, bool plus)
{
	struct fs *fs = ops_fs(req);
	struct listing l = { .fs = fs, .req = req, .dir = ino, .plus = plus };
	int r = 0;

	l.size = size < FS_DIRBUF_MAX ? size : FS_DIRBUF_MAX;
	if (control_owns(ino))
		list_control(&l, (uint64_t)off);
	else
		r = keys_readdir(fs->keys, ino, (uint64_t)off, list_cb, &l);
	if (r == 0)
		r = l.error;
	/* What was listed before the damage is shown, and the damage when the reader goes on. */
	if (r < 0 && l.used == 0) {
		ops_error(fs, req, r);
		return;
	}
	if (fuse_reply_buf(req, fs->dirbuf, l.used) < 0) {
		unlist(&l);
		return;
	}
	if (!control_owns(ino) && !fs->options->nodiratime)
		ops_touch_atime(fs, ino);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, true);
}
