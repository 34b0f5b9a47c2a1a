/* SPDX-License-Identifier: MIT
 *
 * items: each item of the tree by itself, in the order of the keys. What cannot be is to be deleted; what is to be kept
 * will pass the rules of the stream (core/stream/rules.c).
 */
#include "core/salvage/mend.h"

#include <stdlib.h>

/* The inode that items are coming in for. */
struct current {
	struct mend_inode *rec;
	struct key first_xattr;         /* chunks in [first, end) are of an attribute that is whole */
	uint64_t xattr_end;
	uint64_t next;                  /* extents must begin here or behind */
	uint32_t xattrs;
	uint8_t value[KEYS_XATTR_MAX];
};

static int count_blocks(struct mend *m, uint64_t blocks)
{
	uint64_t before = m->done / 1024;

	m->done += blocks;
	if (!m->o->progress || m->done / 1024 == before)
		return 0;
	return m->o->progress(m->o->ctx, min_u64(m->done, m->used_blocks), m->used_blocks) ? -ECANCELED : 0;
}

/* Inodes ---------------------------------------------------------------------------------------------------------- */

static bool is_possible(const struct keys_attr *a, uint32_t inline_len)
{
	bool holds = S_ISREG(a->mode) || S_ISLNK(a->mode);

	if (a->size > 0 && !holds && !S_ISDIR(a->mode))
		return false;
	if (S_ISLNK(a->mode) && a->size == 0)
		return false;
	if (S_ISLNK(a->mode) && a->flags & KEYS_ATTR_INLINE && inline_len != a->size)
		return false;
	return a->nlink <= KEYS_LINK_MAX && (!(a->flags & KEYS_ATTR_INLINE) || holds) && inline_len <= a->size;
}

static int take_inode(struct mend *m, struct current *c, struct key k, const uint8_t *v, uint32_t len)
{
	struct mend_inode *r = c->rec;
	struct keys_attr a;
	const uint8_t *p;
	uint32_t n;
	bool orphan;

	if (k.lo != 0 || inode_decode(v, len, r->ino, &a) < 0 || !is_possible(&a, len - INODE_SIZE) ||
	    (r->ino == KEYS_ROOT_INO && !S_ISDIR(a.mode))) {
		salvage_say(m->v, SALVAGE_LOSS, "inode %llu: its attributes cannot be", (unsigned long long)r->ino);
		return mend_doom(m, k);
	}
	orphan = tree_get(m->t, (struct key){ KIND_ORPHAN, r->ino }, &p, &n) == 0;
	r->has_inode = true;
	r->mode = a.mode;
	r->nlink = a.nlink;
	r->flags = a.flags;
	r->aux = a.aux;
	r->size = a.size;
	r->blocks = a.blocks;
	r->removed = a.nlink == 0 && r->ino != KEYS_ROOT_INO;
	r->unlisted = r->removed && !orphan;
	m->found++;
	return orphan && !r->removed ? mend_doom(m, (struct key){ KIND_ORPHAN, r->ino }) : 0;
}

/* Extended attributes --------------------------------------------------------------------------------------------- */

/* Is the name also at an earlier probe of its hash? */
static bool xattr_is_double(struct mend *m, struct key k, const uint8_t *v)
{
	struct tree_cursor at;
	int r;

	if ((k.lo >> 8 & 0xff) == 0)
		return false;
	r = tree_seek(m->t, (struct key){ k.hi, k.lo & ~0xffffull }, &at);
	for (; r == 0 && key_cmp(cursor_key(&at), k) < 0; r = cursor_next(&at)) {
		uint32_t len;
		const uint8_t *w = cursor_value(&at, &len);

		if ((cursor_key(&at).lo & 0xff) == 0 && len >= XATTR_HEADER + v[0] && w[0] == v[0] &&
		    memcmp(w + XATTR_HEADER, v + XATTR_HEADER, v[0]) == 0)
			return true;
	}
	return false;
}

static bool name_is(const uint8_t *v, const char *name)
{
	return v[0] == strlen(name) && memcmp(v + XATTR_HEADER, name, v[0]) == 0;
}

static int take_xattr(struct mend *m, struct current *c, struct key k, const uint8_t *v, uint32_t len)
{
	bool access, def, good;
	size_t n = 0;
	int r;

	if (c->xattrs > 0 && key_cmp(k, c->first_xattr) >= 0 && k.lo < c->xattr_end)
		return 0;
	/* A later part whose first one is gone: said by the flags, or together with the page. */
	if (k.lo & 0xff)
		return mend_doom(m, k);
	good = len >= XATTR_HEADER && v[0] > 0 && v[0] <= len - XATTR_HEADER && !memchr(v + XATTR_HEADER, '\0', v[0]) &&
	       xattr_read_at(m->k, c->rec->ino, k.lo, c->value, sizeof c->value, &n) == 0 && !xattr_is_double(m, k, v);
	access = good && name_is(v, ACL_ACCESS_NAME);
	def = good && name_is(v, ACL_DEFAULT_NAME);
	if (!good || ((access || def) && acl_check(c->value, n) < 0)) {
		bool named = len >= XATTR_HEADER && v[0] <= len - XATTR_HEADER;

		r = mend_note(m, c->rec->ino, true, "its extended attribute \"%.*s\" is lost", named ? v[0] : 0,
			      (const char *)v + (named ? XATTR_HEADER : 0));
		return r < 0 ? r : mend_doom(m, k);
	}
	c->rec->has_acl = c->rec->has_acl || access;
	c->rec->has_default = c->rec->has_default || def;
	c->first_xattr = k;
	c->xattr_end = k.lo + (v[0] + n) / XATTR_CHUNK + 1;
	c->xattrs++;
	return 0;
}

/* Contents -------------------------------------------------------------------------------------------------------- */

static int add_bad(struct mend *m, struct mend_inode *r, uint64_t fblock, block_t block)
{
	struct mend_bad *last = m->bad_count > 0 ? &m->bad[m->bad_count - 1] : NULL;
	int e;

	r->broken = true;
	if (last && last->ino == r->ino && last->fblock + last->count == fblock &&
	    last->block + last->count == block) {
		last->count++;
		return 0;
	}
	e = array_grow((void **)&m->bad, &m->bad_room, m->bad_count + 1, sizeof *m->bad);
	if (e == 0)
		m->bad[m->bad_count++] = (struct mend_bad){ r->ino, fblock, 1, block };
	return e;
}

static bool used_twice(struct mend *m, block_t block, uint64_t count)
{
	block_t first;

	return bit_any(m->used, block, count) || bit_set_range(m->used, block, count, &first) > 0;
}

static int take_extent(struct mend *m, struct current *c, struct key k, const uint8_t *v, uint32_t len)
{
	struct mend_inode *r = c->rec;
	struct extent e;
	uint64_t i;
	int err;

	if (extent_decode(v, len, k, &e) < 0 || e.fblock < c->next ||
	    !space_valid_range(&m->s->space, e.block, e.count) ||
	    (!r->has_inode && mend_is_dir(r)) || (r->has_inode && ((!S_ISREG(r->mode) && !S_ISLNK(r->mode)) || r->flags & KEYS_ATTR_INLINE)) ||
	    used_twice(m, e.block, e.count)) {
		r->broken = true;
		err = mend_note(m, r->ino, true, "what it has at byte %llu cannot be", (unsigned long long)k.lo << BLOCK_SHIFT);
		return err < 0 ? err : mend_doom(m, k);
	}
	c->next = r->end = e.fblock + e.count;
	r->mapped += e.count;
	for (i = 0; i < e.count && !(e.flags & EXTENT_UNWRITTEN); i++) {
		const uint8_t *p = map_block(&m->s->map, e.block + i);

		if (block_csum(p, r->ino, e.fblock + i) != get_le32(e.csums + 4 * i)) {
			err = add_bad(m, r, e.fblock + i, e.block + i);
			if (err < 0)
				return err;
		}
	}
	return count_blocks(m, e.count);
}

/* All items of the inode have come ---------------------------------------------------------------------------------- */

/* Which bytes may be missing, by the pages that are. */
static int note_missing(struct mend *m, const struct mend_inode *r)
{
	struct key low = item_key(r->ino, ITEM_EXTENT, 0), high = item_key(r->ino, ITEM_EXTENT + 1, 0);
	uint64_t missing = r->blocks - r->mapped;
	const struct salvage_span *s;
	bool said = false;
	size_t at = 0;
	int e = 0;

	while (e == 0 && (s = salvage_lost(m->v->spans, m->v->span_count, low, high, &at))) {
		uint64_t from, to;

		from = key_cmp(s->low, low) > 0 ? s->low.lo << BLOCK_SHIFT : 0;
		to = key_cmp(s->high, high) < 0 ? s->high.lo << BLOCK_SHIFT : r->size;
		e = mend_note(m, r->ino, true, "%llu blocks of its contents are lost, somewhere from byte %llu to byte %llu",
			      (unsigned long long)missing, (unsigned long long)from,
			      (unsigned long long)min_u64(to, max_u64(r->size, from)));
		said = true;
	}
	if (e == 0 && !said)
		e = mend_note(m, r->ino, true, "%llu blocks of its contents are lost", (unsigned long long)missing);
	return e;
}

static int note_bad(struct mend *m, const struct mend_inode *r)
{
	size_t i = m->bad_count;
	int e = 0;

	while (i > 0 && m->bad[i - 1].ino == r->ino)
		i--;
	for (; i < m->bad_count && e == 0; i++) {
		const struct mend_bad *b = &m->bad[i];

		e = mend_note(m, r->ino, true, "contents at bytes %llu to %llu (block %llu, byte %llu of the store) are damaged",
			      (unsigned long long)b->fblock << BLOCK_SHIFT,
			      (unsigned long long)((b->fblock + b->count) << BLOCK_SHIFT) - 1,
			      (unsigned long long)b->block, (unsigned long long)b->block << BLOCK_SHIFT);
	}
	return e;
}

static int finish_attributes(struct mend *m, struct mend_inode *r)
{
	struct key low = item_key(r->ino, ITEM_XATTR, 0), high = item_key(r->ino, ITEM_XATTR + 1, 0);
	int e = 0;

	if (r->flags & KEYS_ATTR_ACL && !r->has_acl)
		e = mend_note(m, r->ino, true, "its ACL is lost: its group has no permission now");
	else if (r->flags & KEYS_ATTR_XATTR && salvage_overlaps(m->v, low, high))
		e = mend_note(m, r->ino, true, "some of its extended attributes may be lost");
	if (e == 0 && r->flags & KEYS_ATTR_DEFAULT_ACL && !r->has_default)
		e = mend_note(m, r->ino, true, "its default ACL is lost");
	return e;
}

static int finish_inode(struct mend *m, struct current *c)
{
	struct mend_inode *r = c->rec;
	int e;

	if (!r || r->removed)
		return 0;
	if (!r->has_inode) {
		/* Attributes of what is unknown, and nothing else. */
		r->drop = !mend_is_dir(r) && r->mapped == 0;
		r->broken = r->broken || r->mapped > 0;
		return note_bad(m, r);
	}
	e = finish_attributes(m, r);
	if (e == 0 && !S_ISDIR(r->mode) && !(r->flags & KEYS_ATTR_INLINE) && r->mapped < r->blocks) {
		r->broken = true;
		e = note_missing(m, r);
	}
	if (e == 0)
		e = note_bad(m, r);
	/* A target in part is none; nor is one that is longer than what there is of it. */
	r->drop = S_ISLNK(r->mode) && (r->broken || (!(r->flags & KEYS_ATTR_INLINE) && r->mapped == 0));
	if (e == 0 && r->drop && !r->broken)
		e = mend_note(m, r->ino, true, "its target is lost");
	return e;
}

static int begin_inode(struct mend *m, struct current *c, uint64_t ino)
{
	int e = array_grow((void **)&m->inodes, &m->inode_room, m->inode_count + 1, sizeof *m->inodes);
	const uint8_t *v;
	uint32_t len;

	if (e < 0)
		return e;
	c->rec = &m->inodes[m->inode_count++];
	*c->rec = (struct mend_inode){ .ino = ino };
	c->next = c->xattrs = 0;
	/* Also if its inode is lost. */
	c->rec->removed = tree_get(m->t, (struct key){ KIND_ORPHAN, ino }, &v, &len) == 0;
	return 0;
}

static int take_item(struct mend *m, struct current *c, struct key k, const uint8_t *v, uint32_t len)
{
	struct dirent d;

	if ((k.hi & 0xff) == ITEM_INODE)
		return take_inode(m, c, k, v, len);
	if (c->rec->removed)
		return c->rec->has_inode ? 0 : mend_doom(m, k);
	switch (k.hi & 0xff) {
	case ITEM_XATTR:
		return take_xattr(m, c, k, v, len);
	case ITEM_DIRENT:
		if (dirent_decode(v, len, k, &d) < 0) {
			salvage_say(m->v, SALVAGE_LOSS, "directory %llu: an entry cannot be read", (unsigned long long)(k.hi >> 8));
			return mend_doom(m, k);
		}
		c->rec->has_entries = true;
		return 0;
	case ITEM_EXTENT:
		return take_extent(m, c, k, v, len);
	default:
		salvage_say(m->v, SALVAGE_LOSS, "inode %llu: an item of unknown kind %u", (unsigned long long)(k.hi >> 8),
			    (unsigned)(k.hi & 0xff));
		return mend_doom(m, k);
	}
}

/* By which entry each inode is met first; a directory by one of where it says that it is, if there is one. */
static int find_entries(struct mend *m)
{
	struct tree_cursor at;
	size_t i;
	int r = 0;

	for (i = 0; i < m->inode_count && (r == 0 || r == -ENOENT); i++) {
		const struct key first = item_key(m->inodes[i].ino, ITEM_DIRENT, 0);

		if (!m->inodes[i].has_entries || m->inodes[i].removed)
			continue;
		r = tree_seek(m->t, first, &at);
		for (; r == 0 && cursor_key(&at).hi == first.hi; r = cursor_next(&at)) {
			struct mend_inode *rec;
			struct dirent d;
			uint32_t len;
			const uint8_t *v = cursor_value(&at, &len);

			rec = dirent_decode(v, len, cursor_key(&at), &d) == 0 ? mend_find(m, d.ino) : NULL;
			if (!rec || (rec->path_dir && !(rec->has_inode && S_ISDIR(rec->mode) && rec->path_dir != rec->aux &&
						       rec->aux == m->inodes[i].ino)))
				continue;
			rec->path_dir = m->inodes[i].ino;
			rec->path_lo = cursor_key(&at).lo;
		}
	}
	return r == -ENOENT ? 0 : r;
}

int mend_items(struct mend *m)
{
	struct current *c = calloc(1, sizeof *c);
	struct tree_cursor at;
	int r = c ? tree_seek(m->t, item_key(1, 0, 0), &at) : -ENOMEM;

	while (r == 0) {
		struct key k = cursor_key(&at);
		uint64_t ino = k.hi >> 8;
		uint32_t len;
		const uint8_t *v = cursor_value(&at, &len);

		if (ino >= INO_MAX - 1 || (ino < 16 && ino != KEYS_ROOT_INO)) {
			salvage_say(m->v, SALVAGE_LOSS, "inode %llu: its number cannot be", (unsigned long long)ino);
			r = mend_doom(m, k);
		} else {
			if (!c->rec || c->rec->ino != ino) {
				r = finish_inode(m, c);
				if (r == 0)
					r = begin_inode(m, c, ino);
			}
			if (r == 0)
				r = take_item(m, c, k, v, len);
		}
		if (r == 0)
			r = count_blocks(m, 0);
		if (r == 0)
			r = cursor_next(&at);
	}
	if (r == -ENOENT)
		r = finish_inode(m, c);
	free(c);
	return r < 0 ? r : find_entries(m);
}
