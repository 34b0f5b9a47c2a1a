/* SPDX-License-Identifier: MIT
 *
 * check/contents: inode after inode, in the order of the tree: attributes against what the inode has, extended
 * attributes, extents, and every block of contents against its checksum.
 */
#include "core/check/check_int.h"

/* The inode that items are coming in for. */
struct check_current {
	uint64_t ino;                   /* 0 = none yet */
	bool exists, valid;             /* an INODE item was there / could be decoded */
	bool orphan;
	/* Pages that cannot be read in which items of these kinds may be. */
	const struct salvage_span *lost_xattrs, *lost_entries, *lost_extents;
	struct keys_attr a;
	uint32_t inline_len;
	uint64_t entries, subdirs;
	uint64_t mapped;                /* blocks */
	uint64_t next_fblock;           /* extents must begin here or behind */
	uint64_t written_to;            /* file block behind the last with contents */
	bool any_xattr, access_acl, default_acl;
	/* The attribute that chunks are coming in for. */
	uint64_t x_base;                /* UINT64_MAX = none */
	unsigned x_next, x_chunks;
	uint32_t x_left;
};

/* Attributes ------------------------------------------------------------------------------------------------------- */

static void check_acl(struct check *c, const struct check_current *cur, bool access)
{
	const char *name = access ? ACL_ACCESS_NAME : ACL_DEFAULT_NAME;
	uint8_t acl[ACL_SIZE_MAX];
	size_t len = 0;
	bool plain;
	int r = xattr_read(c->k, cur->ino, name, acl, sizeof acl, &len);

	if (r < 0 || acl_check(acl, len) < 0)
		check_problem(c, "inode %s: attribute %s cannot be read as an ACL", check_place(c, cur->ino), name);
	else if (access && acl_mode(acl, len, cur->a.mode, &plain) != cur->a.mode)
		check_problem(c, "inode %s: mode 0%o is not what its ACL says", check_place(c, cur->ino), cur->a.mode);
}

static void finish_xattr(struct check *c, struct check_current *cur)
{
	/* Reaping takes chunks from the first one on. */
	if (cur->x_base != UINT64_MAX && cur->x_next != cur->x_chunks && !cur->orphan && !cur->lost_xattrs)
		check_problem(c, "inode %s: an extended attribute has %u of %u parts", check_place(c, cur->ino), cur->x_next,
			      cur->x_chunks);
	cur->x_base = UINT64_MAX;
}

static void finish_directory(struct check *c, const struct check_current *cur)
{
	const struct keys_attr *a = &cur->a;

	if (a->size > cur->entries && cur->lost_entries)
		check_follows(c, "directory %s: %llu of its %llu names are lost %s", check_place(c, cur->ino),
			      (unsigned long long)(a->size - cur->entries), (unsigned long long)a->size,
			      check_with(c, cur->lost_entries));
	else if (a->size != cur->entries)
		check_problem(c, "directory %s: its size says %llu entries, it has %llu", check_place(c, cur->ino),
			      (unsigned long long)a->size, (unsigned long long)cur->entries);
	if (!cur->orphan && a->nlink != 0 && a->nlink != cur->subdirs + 2 &&
	    !(cur->lost_entries && a->nlink > cur->subdirs + 2 && a->size > cur->entries))
		check_problem(c, "directory %s has link count %u, but %llu subdirectories", check_place(c, cur->ino),
			      a->nlink, (unsigned long long)cur->subdirs);
	if ((cur->orphan || a->nlink == 0) && cur->entries > 0)
		check_problem(c, "directory %s was removed, but has entries", check_place(c, cur->ino));
}

/* Flags say what there should be. */
static void tell_lost_xattrs(struct check *c, const struct check_current *cur)
{
	uint32_t flags = cur->a.flags;

	if (flags & KEYS_ATTR_ACL && !cur->access_acl)
		check_follows(c, "inode %s: its ACL is lost %s", check_place(c, cur->ino), check_with(c, cur->lost_xattrs));
	if (flags & KEYS_ATTR_DEFAULT_ACL && !cur->default_acl)
		check_follows(c, "inode %s: its default ACL is lost %s", check_place(c, cur->ino),
			      check_with(c, cur->lost_xattrs));
	if (flags & KEYS_ATTR_XATTR)
		check_follows(c, "inode %s: some of its extended attributes may be lost %s", check_place(c, cur->ino),
			      check_with(c, cur->lost_xattrs));
}

static void finish_flags(struct check *c, const struct check_current *cur)
{
	uint32_t flags = cur->a.flags;

	if (cur->any_xattr && !(flags & KEYS_ATTR_XATTR))
		check_problem(c, "inode %s has extended attributes, but its flags deny it", check_place(c, cur->ino));
	if (cur->default_acl && !S_ISDIR(cur->a.mode))
		check_problem(c, "inode %s has a default ACL, but is no directory", check_place(c, cur->ino));
	if (cur->lost_xattrs) {
		tell_lost_xattrs(c, cur);
		return;
	}
	if (!(flags & KEYS_ATTR_ACL) != !cur->access_acl || !(flags & KEYS_ATTR_DEFAULT_ACL) != !cur->default_acl)
		check_problem(c, "inode %s: its flags and its ACLs do not agree", check_place(c, cur->ino));
	if (cur->access_acl)
		check_acl(c, cur, true);
	if (cur->default_acl)
		check_acl(c, cur, false);
}

/* Blocks that were in extents which are lost: between which bytes of the file. */
static void tell_lost_contents(struct check *c, const struct check_current *cur)
{
	const struct key low = item_key(cur->ino, ITEM_EXTENT, 0), high = { low.hi + 1, 0 };
	const struct salvage_span *s;
	size_t at = 0;

	while ((s = salvage_lost(c->lost, c->lost_count, low, high, &at))) {
		uint64_t from = key_cmp(s->low, low) > 0 ? s->low.lo << BLOCK_SHIFT : 0;
		uint64_t to = key_cmp(s->high, high) < 0 ? s->high.lo << BLOCK_SHIFT : UINT64_MAX;

		to = min_u64(to, max_u64(cur->a.size, from + 1));
		check_follows(c, "inode %s: contents at bytes %llu to %llu: %llu blocks of them are lost %s",
			      check_place(c, cur->ino), (unsigned long long)from, (unsigned long long)to - 1,
			      (unsigned long long)(cur->a.blocks - cur->mapped), check_with(c, s));
	}
}

static void finish_contents(struct check *c, const struct check_current *cur)
{
	const struct keys_attr *a = &cur->a;

	if (cur->lost_extents && a->blocks > cur->mapped) {
		/* Of an orphan, they may just be reaped already. */
		tell_lost_contents(c, cur);
		return;
	}
	/* Reaping an orphan does not count its blocks down. */
	if (cur->orphan ? a->blocks < cur->mapped : a->blocks != cur->mapped)
		check_problem(c, "inode %s says it has %llu blocks, it has %llu", check_place(c, cur->ino),
			      (unsigned long long)a->blocks, (unsigned long long)cur->mapped);
	if (S_ISLNK(a->mode) && !cur->orphan &&
	    (a->size == 0 || (a->flags & KEYS_ATTR_INLINE ? cur->inline_len != a->size : cur->written_to != 1)))
		check_problem(c, "symbolic link %s: its target is not all there", check_place(c, cur->ino));
}

static void finish_inode(struct check *c, struct check_current *cur)
{
	finish_xattr(c, cur);
	if (!cur->exists || !cur->valid)
		return;
	if (S_ISDIR(cur->a.mode))
		finish_directory(c, cur);
	else if (cur->entries > 0)
		check_problem(c, "inode %s has directory entries, but is no directory", check_place(c, cur->ino));
	finish_contents(c, cur);
	if (!cur->orphan)
		finish_flags(c, cur);
}

static void begin_inode(struct check *c, struct check_current *cur, uint64_t ino)
{
	const struct check_inode *rec = check_find(c, ino);
	const struct salvage_span *lost = check_lost_inode(c, ino);

	*cur = (struct check_current){ .ino = ino, .exists = rec != NULL, .orphan = rec && rec_orphan(rec),
				       .x_base = UINT64_MAX };
	if (lost) {
		cur->lost_xattrs = check_lost_kind(c, ino, ITEM_XATTR);
		cur->lost_entries = check_lost_kind(c, ino, ITEM_DIRENT);
		cur->lost_extents = check_lost_kind(c, ino, ITEM_EXTENT);
	}
	if (rec)
		return;
	lost = check_lost_key(c, item_key(ino, ITEM_INODE, 0));
	if (!lost)
		check_problem(c, "inode %s does not exist, but something in the tree belongs to it", check_place(c, ino));
	else if (!check_has_ghost(c, ino))
		check_follows(c, "inode %s: its attributes are lost %s", check_place(c, ino), check_with(c, lost));
}

static void take_inode(struct check *c, struct check_current *cur, const uint8_t *v, uint32_t len)
{
	const uint32_t known = KEYS_ATTR_INLINE | KEYS_ATTR_ACL | KEYS_ATTR_DEFAULT_ACL | KEYS_ATTR_XATTR;
	uint64_t next = store_counts(c->s)->next_ino;
	struct keys_attr *a = &cur->a;

	if (cur->ino >= next && !(c->v && c->v->no_super))
		check_problem(c, "inode %s: its number was not given out yet (the next one is %llu)",
			      check_place(c, cur->ino), (unsigned long long)next);
	if (cur->ino != KEYS_ROOT_INO && cur->ino < 16)
		check_problem(c, "inode %s: its number is reserved", check_place(c, cur->ino));
	if (inode_decode(v, len, cur->ino, a) < 0) {
		check_damage(c, "inode %s: its attributes cannot be read: %s", check_place(c, cur->ino), err_last());
		return;
	}
	cur->valid = true;
	cur->inline_len = len - INODE_SIZE;
	if (a->flags & ~known)
		check_problem(c, "inode %s has unknown flags 0x%x", check_place(c, cur->ino), a->flags & ~known);
	if (a->flags & KEYS_ATTR_INLINE && !S_ISREG(a->mode) && !S_ISLNK(a->mode))
		check_problem(c, "inode %s is no file, but has contents in its inode", check_place(c, cur->ino));
	if (cur->inline_len > a->size)
		check_problem(c, "inode %s has %u bytes in its inode, but is %llu bytes long", check_place(c, cur->ino),
			      cur->inline_len, (unsigned long long)a->size);
	if (!S_ISREG(a->mode) && !S_ISLNK(a->mode) && !S_ISDIR(a->mode) && a->size != 0)
		check_problem(c, "inode %s is a special file, but has a size", check_place(c, cur->ino));
}

/* Extended attributes ---------------------------------------------------------------------------------------------- */

/* Was the name met at an earlier probe of its hash? */
static bool xattr_is_double(struct check *c, struct key k, const uint8_t *name, uint32_t name_len)
{
	struct tree_cursor at;
	int r;

	if ((k.lo >> 8 & 0xff) == 0)
		return false;
	r = tree_seek(c->t, (struct key){ k.hi, k.lo & ~0xffffull }, &at);
	for (; r == 0 && key_cmp(cursor_key(&at), k) < 0; r = cursor_next(&at)) {
		uint32_t len;
		const uint8_t *v = cursor_value(&at, &len);

		if ((cursor_key(&at).lo & 0xff) == 0 && len >= XATTR_HEADER + name_len && v[0] == name_len &&
		    memcmp(v + XATTR_HEADER, name, name_len) == 0)
			return true;
	}
	return false;
}

/* The first part: name and length. */
static void take_xattr_head(struct check *c, struct check_current *cur, struct key k, const uint8_t *v, uint32_t len)
{
	const uint8_t *name = v + XATTR_HEADER;
	uint32_t n, size;

	if (len < XATTR_HEADER || v[0] == 0 || v[0] > len - XATTR_HEADER || get_le32(v + 4) > KEYS_XATTR_MAX ||
	    memchr(name, '\0', v[0])) {
		check_problem(c, "inode %s: an extended attribute is damaged", check_place(c, cur->ino));
		return;
	}
	n = v[0];
	size = get_le32(v + 4);
	cur->x_base = k.lo;
	cur->x_next = 0;
	cur->x_chunks = (n + size) / XATTR_CHUNK + 1;
	cur->x_left = n + size;
	if ((hash64(name, n, store_hash_seed(c->s)) & ((1ull << 40) - 1)) != k.lo >> 16)
		check_problem(c, "inode %s: extended attribute \"%.*s\" is not where its hash belongs",
			      check_place(c, cur->ino), (int)n, (const char *)name);
	if (xattr_is_double(c, k, name, n))
		check_problem(c, "inode %s: extended attribute \"%.*s\" is there twice", check_place(c, cur->ino), (int)n,
			      (const char *)name);
	if (n == strlen(ACL_ACCESS_NAME) && memcmp(name, ACL_ACCESS_NAME, n) == 0)
		cur->access_acl = true;
	if (n == strlen(ACL_DEFAULT_NAME) && memcmp(name, ACL_DEFAULT_NAME, n) == 0)
		cur->default_acl = true;
}

static void take_xattr(struct check *c, struct check_current *cur, struct key k, const uint8_t *v, uint32_t len)
{
	unsigned chunk = (unsigned)(k.lo & 0xff);
	uint32_t bytes = len, want;

	cur->any_xattr = true;
	if (chunk == 0) {
		finish_xattr(c, cur);
		take_xattr_head(c, cur, k, v, len);
		if (cur->x_base == UINT64_MAX)
			return;
		bytes -= XATTR_HEADER;
	} else if (cur->x_base == UINT64_MAX || cur->x_base != k.lo - chunk || cur->x_next != chunk ||
		   chunk >= cur->x_chunks) {
		if (!cur->orphan && !cur->lost_xattrs)
			check_problem(c, "inode %s: part %u of an extended attribute does not belong to one",
				      check_place(c, cur->ino), chunk);
		return;
	}
	want = cur->x_left < XATTR_CHUNK ? cur->x_left : XATTR_CHUNK;
	if (bytes != want)
		check_problem(c, "inode %s: part %u of an extended attribute has %u bytes instead of %u",
			      check_place(c, cur->ino), chunk, bytes, want);
	cur->x_left -= want;
	cur->x_next++;
}

/* Contents --------------------------------------------------------------------------------------------------------- */

/* Blocks that are not what they should be, one after the other: one finding. */
struct bad {
	uint64_t fblock, count;
	block_t block;
};

static void report_bad(struct check *c, const struct check_current *cur, struct bad *bad)
{
	unsigned long long first = bad->fblock << BLOCK_SHIFT, block = bad->block;
	unsigned long long last = ((bad->fblock + bad->count) << BLOCK_SHIFT) - 1;

	if (bad->count == 1)
		check_damage(c, "inode %s: contents at bytes %llu to %llu (block %llu, byte %llu of the store): "
			     "checksum does not match", check_place(c, cur->ino), first, last, block, block * BLOCK_SIZE);
	else if (bad->count > 1)
		check_damage(c, "inode %s: contents at bytes %llu to %llu (blocks %llu to %llu, byte %llu of the store): "
			     "checksums do not match", check_place(c, cur->ino), first, last, block,
			     block + bad->count - 1, block * BLOCK_SIZE);
	bad->count = 0;
}

static int read_contents(struct check *c, struct check_current *cur, const struct extent *e)
{
	struct bad bad = { 0 };
	uint64_t i;

	for (i = 0; i < e->count; i++) {
		const uint8_t *p = map_block(&c->s->map, e->block + i);
		uint64_t start = (e->fblock + i) << BLOCK_SHIFT;
		unsigned long long block = e->block + i;
		int r = check_progress(c, 1);

		if (r < 0)
			return r;
		c->rep->content_blocks++;
		if (block_csum(p, cur->ino, e->fblock + i) != get_le32(e->csums + 4 * i)) {
			if (bad.count++ == 0) {
				bad.fblock = e->fblock + i;
				bad.block = e->block + i;
			}
			continue;
		}
		report_bad(c, cur, &bad);
		if (cur->valid && start + BLOCK_SIZE > cur->a.size) {
			size_t from = cur->a.size > start ? (size_t)(cur->a.size - start) : 0;

			if (!is_zero(p + from, BLOCK_SIZE - from))
				check_problem(c, "inode %s: block %llu has contents behind the end of the file",
					      check_place(c, cur->ino), block);
		}
	}
	report_bad(c, cur, &bad);
	return 0;
}

/* An extent among its neighbours and among all that the store holds. False: it must not be read. */
static bool check_extent(struct check *c, struct check_current *cur, const struct extent *e)
{
	unsigned long long byte = e->fblock << BLOCK_SHIFT;
	uint64_t again;
	block_t twice;

	if (cur->valid && !S_ISREG(cur->a.mode) && !S_ISLNK(cur->a.mode))
		check_problem(c, "inode %s is no file, but has an extent", check_place(c, cur->ino));
	if (cur->valid && cur->a.flags & KEYS_ATTR_INLINE)
		check_problem(c, "inode %s has its contents in the inode, but an extent at byte %llu too",
			      check_place(c, cur->ino), byte);
	if (e->fblock < cur->next_fblock)
		check_problem(c, "inode %s: the extent at byte %llu overlaps the one before", check_place(c, cur->ino), byte);
	cur->next_fblock = max_u64(cur->next_fblock, e->fblock + e->count);
	cur->mapped += e->count;
	if (e->gen > c->gen_max && e->gen != c->sp->gen)
		check_problem(c, "inode %s: the extent at byte %llu is of generation %llu, which was never used",
			      check_place(c, cur->ino), byte, (unsigned long long)e->gen);
	/* That it is cut short is told. */
	if (c->v && e->block + e->count > c->v->file_blocks && c->super.total_blocks > c->v->file_blocks) {
		check_follows(c, "inode %s: contents at bytes %llu to %llu (blocks %llu+%u) lie behind the end of the store",
			      check_place(c, cur->ino), byte, ((e->fblock + e->count) << BLOCK_SHIFT) - 1ull,
			      (unsigned long long)e->block, e->count);
		return false;
	}
	if (!space_valid_range(c->sp, e->block, e->count)) {
		check_problem(c, "inode %s: the extent at byte %llu (blocks %llu+%u) lies outside the store or on reserved blocks",
			      check_place(c, cur->ino), byte, (unsigned long long)e->block, e->count);
		return false;
	}
	again = check_mark(c, e->block, e->count, &twice);
	if (again > 0)
		check_problem(c, "inode %s: the extent at byte %llu has block %llu, which is used twice",
			      check_place(c, cur->ino), byte, (unsigned long long)twice);
	/* Each extent of a tree that was made on purpose may name the same MiB: in all, contents are read twice at most. */
	c->twice += again;
	return again == 0 || c->twice <= c->blocks;
}

static int take_extent(struct check *c, struct check_current *cur, struct key k, const uint8_t *v, uint32_t len)
{
	struct extent e;

	if (extent_decode(v, len, k, &e) < 0) {
		check_damage(c, "inode %s: an extent cannot be read: %s", check_place(c, cur->ino), err_last());
		return 0;
	}
	if (!check_extent(c, cur, &e))
		return 0;
	if (e.flags & EXTENT_UNWRITTEN)
		return check_progress(c, e.count);
	cur->written_to = e.fblock + e.count;
	return read_contents(c, cur, &e);
}

static int take_item(struct check *c, struct key k, const uint8_t *v, uint32_t len)
{
	struct check_current *cur = c->cur;
	uint64_t ino = k.hi >> 8;

	if (ino == 0 || ino >= INO_MAX)
		return 0;
	if (ino != cur->ino) {
		if (cur->ino)
			finish_inode(c, cur);
		begin_inode(c, cur, ino);
	}
	switch (k.hi & 0xff) {
	case ITEM_INODE:
		if (k.lo == 0)
			take_inode(c, cur, v, len);
		return 0;
	case ITEM_XATTR:
		take_xattr(c, cur, k, v, len);
		return 0;
	case ITEM_DIRENT:
		cur->entries++;
		cur->subdirs += len > 8 && (uint32_t)v[8] << 12 == S_IFDIR;
		return 0;
	case ITEM_EXTENT:
		return take_extent(c, cur, k, v, len);
	default:
		return 0;
	}
}

int check_contents(struct check *c)
{
	struct check_current cur = { .ino = 0 };
	int r;

	c->cur = &cur;
	r = check_walk(c, take_item);
	if (r == 0 && cur.ino)
		finish_inode(c, &cur);
	c->cur = NULL;
	return r;
}
