/* SPDX-License-Identifier: MIT
 *
 * names: every directory entry against the table of inodes. An entry stays if what it leads to is whole, or is a directory;
 * else it is told and deleted. Then every directory must hang below the root, and everything must have a name: what has
 * none is put aside.
 */
#include "core/salvage/mend.h"

static int doom_entry(struct mend *m, struct key k, bool lost, const struct dirent *d, const char *why)
{
	const char *place = mend_place(m, k.hi >> 8);

	salvage_say(m->v, lost ? SALVAGE_FOLLOWS : SALVAGE_DAMAGE, "directory %s: entry \"%.*s\" (inode %llu): %s", place, (int)d->len, d->name,
		    (unsigned long long)d->ino, why);
	return mend_doom(m, k);
}

/* Was the name met at an earlier probe of its hash? */
static bool is_double(struct mend *m, struct key k, const struct dirent *d)
{
	struct tree_cursor at;
	int r;

	if ((k.lo & 0xff) == 0)
		return false;
	r = tree_seek(m->t, (struct key){ k.hi, k.lo & ~0xffull }, &at);
	for (; r == 0 && key_cmp(cursor_key(&at), k) < 0; r = cursor_next(&at)) {
		struct dirent other;
		uint32_t len;
		const uint8_t *v = cursor_value(&at, &len);

		if (dirent_decode(v, len, cursor_key(&at), &other) == 0 && other.len == d->len &&
		    memcmp(other.name, d->name, d->len) == 0)
			return true;
	}
	return false;
}

static int accept(struct mend *m, struct mend_inode *dir, struct mend_inode *r, struct key k, const struct dirent *d)
{
	uint32_t type = mend_is_dir(r) ? S_IFDIR : r->mode & S_IFMT;

	r->names++;
	if (r->parent == 0)
		r->parent = dir->ino;
	dir->entries++;
	dir->subdirs += type == S_IFDIR;
	if (d->type == type)
		return 0;
	if (array_grow((void **)&m->retype, &m->retype_room, m->retype_count + 1, sizeof *m->retype) < 0)
		return -ENOMEM;
	m->retype[m->retype_count++] = k;
	salvage_say(m->v, SALVAGE_DAMAGE, "inode %llu: one of its names had the wrong type", (unsigned long long)r->ino);
	return 0;
}

/* An entry that leads to a directory: which of several is right, the directory itself knows, if it is there. */
static int take_directory(struct mend *m, struct mend_inode *dir, struct mend_inode *r, struct key k,
			  const struct dirent *d, bool odd)
{
	if (r->ino == KEYS_ROOT_INO || r->names > 0)
		return doom_entry(m, k, true, d, "the directory is elsewhere");
	if (r->has_inode && r->aux != dir->ino && !odd) {
		if (array_grow((void **)&m->odd, &m->odd_room, m->odd_count + 1, sizeof *m->odd) < 0)
			return -ENOMEM;
		m->odd[m->odd_count++] = k;
		return 0;
	}
	r->aux = dir->ino;
	return accept(m, dir, r, k, d);
}

static int take_entry(struct mend *m, struct mend_inode *dir, struct key k, const struct dirent *d, bool odd)
{
	struct mend_inode *r = mend_find(m, d->ino);

	if (!mend_is_dir(dir) || is_double(m, k, d))
		return doom_entry(m, k, true, d, "it cannot be there");
	if (!r)
		return doom_entry(m, k, true, d, d->type == S_IFDIR ? "it is lost, a directory, and so are all names in it" :
								      "its inode is lost");
	if (r->removed)
		return doom_entry(m, k, true, d, "the inode was removed");
	if (mend_is_dir(r))
		return take_directory(m, dir, r, k, d, odd);
	if (r->parent == 0)
		r->parent = dir->ino;   /* for the path in what is told */
	if (r->drop)
		return doom_entry(m, k, true, d, r->has_inode ? "its target is lost" : "its inode is lost");
	if (!r->has_inode)
		return doom_entry(m, k, true, d, "its inode is lost; its contents are put aside");
	if (r->broken)
		return doom_entry(m, k, true, d, "its contents are not whole; what is left of it is put aside");
	return accept(m, dir, r, k, d);
}

static int take_directory_items(struct mend *m, struct mend_inode *dir)
{
	const struct key first = item_key(dir->ino, ITEM_DIRENT, 0);
	struct tree_cursor at;
	int r = tree_seek(m->t, first, &at);

	while (r == 0 && cursor_key(&at).hi == first.hi) {
		struct key k = cursor_key(&at);
		struct dirent d;
		uint32_t len;
		const uint8_t *v = cursor_value(&at, &len);

		if (dirent_decode(v, len, k, &d) == 0)  /* else it is doomed */
			r = take_entry(m, dir, k, &d, false);
		if (r == 0)
			r = cursor_next(&at);
	}
	return r == -ENOENT ? 0 : r;
}

static int take_odd(struct mend *m)
{
	size_t i;
	int r = 0;

	for (i = 0; i < m->odd_count && r == 0; i++) {
		struct mend_inode *dir = mend_find(m, m->odd[i].hi >> 8);
		struct dirent d;
		const uint8_t *v;
		uint32_t len;

		r = tree_get(m->t, m->odd[i], &v, &len);
		if (r == 0)
			r = dirent_decode(v, len, m->odd[i], &d);
		if (r == 0)
			r = take_entry(m, dir, m->odd[i], &d, true);
	}
	return r;
}

/* A directory that is below itself loses its name. */
static int cut_off(struct mend *m, struct mend_inode *rec)
{
	struct mend_inode *dir = mend_find(m, rec->aux);
	const struct key first = item_key(rec->aux, ITEM_DIRENT, 0);
	struct tree_cursor at;
	int r = tree_seek(m->t, first, &at);

	rec->aside = true;
	rec->names = 0;
	for (; r == 0 && cursor_key(&at).hi == first.hi; r = cursor_next(&at)) {
		struct dirent d;
		uint32_t len;
		const uint8_t *v = cursor_value(&at, &len);

		if (dirent_decode(v, len, cursor_key(&at), &d) < 0 || d.ino != rec->ino)
			continue;
		if (dir) {
			dir->entries--;
			dir->subdirs--;
		}
		salvage_say(m->v, SALVAGE_FOLLOWS, "directory %llu: it is below itself; it is put aside", (unsigned long long)rec->ino);
		return mend_doom(m, cursor_key(&at));
	}
	return r == -ENOENT ? 0 : r;
}

/* Up to the root, or to something that is put aside. */
static int climb(struct mend *m, struct mend_inode *rec)
{
	struct mend_inode *at = rec;

	while (at && at->ino != KEYS_ROOT_INO && !at->aside && at->state == MEND_UNSEEN) {
		at->state = MEND_ON_WAY;
		at = mend_find(m, at->aux);
	}
	if (at && at->state == MEND_ON_WAY && !at->aside) {
		int r = cut_off(m, at);

		if (r < 0)
			return r;
	}
	for (at = rec; at && at->state == MEND_ON_WAY; at = mend_find(m, at->aux))
		at->state = MEND_REACHED;
	return 0;
}

int mend_names(struct mend *m)
{
	size_t i;
	int r = 0;

	for (i = 0; i < m->inode_count && r == 0; i++)
		if (m->inodes[i].has_entries && !m->inodes[i].removed)
			r = take_directory_items(m, &m->inodes[i]);
	if (r == 0)
		r = take_odd(m);
	for (i = 0; i < m->inode_count && r == 0; i++) {
		struct mend_inode *rec = &m->inodes[i];

		rec->aside = rec->names == 0 && rec->ino != KEYS_ROOT_INO && !rec->removed && !rec->drop;
	}
	for (i = 0; i < m->inode_count && r == 0; i++)
		if (mend_is_dir(&m->inodes[i]) && !m->inodes[i].removed)
			r = climb(m, &m->inodes[i]);
	return r;
}
