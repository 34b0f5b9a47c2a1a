/* SPDX-License-Identifier: MIT
 *
 * names: directories: find, list, make, link, unlink, rename. Entries are keyed by a seeded hash of the name; two names of
 * one hash stand at different probes. Changes are planned here and applied as items (apply.c).
 */
#include "core/keys/keys_int.h"

#include <stdio.h>      /* RENAME_* */

#define PROBES      256u
#define HASH_FIRST  3u                  /* cookies 0, 1, 2: the start, ".", ".." */
#define DEPTH_MAX   65536u              /* levels looked at when a directory moves */

static uint64_t name_hash(struct keys *k, const char *name, size_t len)
{
	uint64_t h = hash64(name, len, store_hash_seed(k->store)) & ((1ull << 54) - 1);

	return h < HASH_FIRST ? h + HASH_FIRST : h;
}

/* The entry, or the first free probe for it in *ret_free. 0, -ENOENT. */
static int find(struct keys *k, uint64_t dir, const char *name, size_t len, struct dirent *ret, uint64_t *ret_free)
{
	uint64_t hash = name_hash(k, name, len), next = hash << 8;
	struct tree_cursor c;
	int r = tree_seek(k->tree, item_key(dir, ITEM_DIRENT, next), &c);

	*ret_free = UINT64_MAX;
	for (; r == 0; r = cursor_next(&c)) {
		struct key key = cursor_key(&c);
		uint32_t n;
		const uint8_t *v;

		if (key.hi != item_key(dir, ITEM_DIRENT, 0).hi || key.lo >> 8 != hash)
			break;
		if (key.lo != next && *ret_free == UINT64_MAX)
			*ret_free = next;
		next = key.lo + 1;
		v = cursor_value(&c, &n);
		r = dirent_decode(v, n, key, ret);
		if (r != 0)
			return r;
		if (ret->len == len && memcmp(ret->name, name, len) == 0)
			return 0;
	}
	if (r < 0 && r != -ENOENT)
		return r;
	if (*ret_free == UINT64_MAX && next >> 8 == hash)
		*ret_free = next;
	return -ENOENT;
}

static int dirent_find(struct keys *k, uint64_t dir, const char *name, size_t len, struct dirent *ret)
{
	uint64_t unused;

	return find(k, dir, name, len, ret, &unused);
}

int dirent_new_key(struct keys *k, uint64_t dir, const char *name, size_t len, struct key *ret)
{
	struct dirent d;
	uint64_t lo;
	int r = find(k, dir, name, len, &d, &lo);

	if (r != -ENOENT)
		return r == 0 ? -EEXIST : r;
	if (lo == UINT64_MAX)
		return -ENOSPC;         /* 256 names of one seeded hash: not in this universe */
	*ret = item_key(dir, ITEM_DIRENT, lo);
	return 0;
}

static int get_dir(struct keys *k, uint64_t dir, struct keys_attr *ret)
{
	int r = inode_get(k, dir, ret);

	return r < 0 ? r : S_ISDIR(ret->mode) ? 0 : -ENOTDIR;
}

/* A directory that may get entries: not one that was removed while somebody stands in it. */
static int get_live_dir(struct keys *k, uint64_t dir, struct keys_attr *ret)
{
	int r = get_dir(k, dir, ret);

	return r == 0 && ret->nlink == 0 ? -ENOENT : r;
}

int keys_lookup(struct keys *k, uint64_t dir, const char *name, size_t len, struct keys_attr *ret_attr)
{
	struct keys_attr a;
	struct dirent d;
	int r;

	if (len == 1 && name[0] == '.')
		return inode_get(k, dir, ret_attr);
	r = get_dir(k, dir, &a);
	if (r != 0)
		return r;
	if (len == 2 && name[0] == '.' && name[1] == '.')
		return inode_get(k, a.aux, ret_attr);
	r = name_check(name, len);
	if (r == 0)
		r = dirent_find(k, dir, name, len, &d);
	if (r != 0)
		return r;
	r = inode_get(k, d.ino, ret_attr);
	return r == -ENOENT ? err_corrupt("directory %llu: an entry names inode %llu, which does not exist",
					  (unsigned long long)dir, (unsigned long long)d.ino) : r;
}

int keys_readlink(struct keys *k, uint64_t ino, char *buf, size_t size, size_t *ret_len)
{
	struct keys_attr a;
	int r = inode_get(k, ino, &a);

	if (r != 0)
		return r;
	if (!S_ISLNK(a.mode))
		return -EINVAL;
	if (a.size > size)
		return -ERANGE;
	return contents_read_small(k, ino, buf, size, ret_len);
}

int keys_readdir(struct keys *k, uint64_t dir, uint64_t cookie, int (*fn)(void *ctx, const struct keys_dirent *entry),
		 void *ctx)
{
	struct tree_cursor c;
	struct keys_attr a;
	int r = get_dir(k, dir, &a);

	if (r != 0)
		return r;
	if (cookie < 1 && fn(ctx, &(struct keys_dirent){ 1, dir, S_IFDIR, 1, "." }))
		return 0;
	if (cookie < 2 && fn(ctx, &(struct keys_dirent){ 2, a.aux, S_IFDIR, 2, ".." }))
		return 0;
	/* Cookies are positive as off_t: 54 bits of hash and 8 of probe. */
	r = tree_seek(k->tree, item_key(dir, ITEM_DIRENT, cookie < 2 ? 0 : cookie + 1), &c);
	for (; r == 0; r = cursor_next(&c)) {
		struct key key = cursor_key(&c);
		struct keys_dirent e;
		struct dirent d;
		uint32_t n;
		const uint8_t *v;

		if (key.hi != item_key(dir, ITEM_DIRENT, 0).hi)
			return 0;
		/* Its cookie would lead back to the beginning, or be no offset: a listing would not end. */
		if (key.lo >> 8 < HASH_FIRST || key.lo >> 62)
			return err_corrupt("directory %llu: an entry is out of its place", (unsigned long long)dir);
		v = cursor_value(&c, &n);
		r = dirent_decode(v, n, key, &d);
		if (r != 0)
			return r;
		e = (struct keys_dirent){ key.lo, d.ino, d.type, d.len, d.name };
		if (fn(ctx, &e))
			return 0;
	}
	return r == -ENOENT ? 0 : r;
}

/* Creating --------------------------------------------------------------------------------------------------------- */

static void change_put_dirent(struct keys *k, struct key key, uint64_t ino, uint32_t mode, const char *name, size_t len)
{
	dirent_encode(change_put_place(k, key, (uint32_t)(DIRENT_HEADER + len)), ino, mode, name, len);
}

/* The deletion names the entry, for those who follow the changes. */
static void change_del_name(struct keys *k, const struct dirent *d)
{
	uint8_t *p = record_mutation(store_record(k->store), MUT_DELNAME, 16 + d->len);

	put_le64(p, d->key.hi);
	put_le64(p + 8, d->key.lo);
	memcpy(p + 16, d->name, d->len);
}

static void change_put_orphan(struct keys *k, uint64_t ino)
{
	change_put(k, (struct key){ KIND_ORPHAN, ino }, NULL, 0);
}

/* Owner, group and times of something new in a directory. */
static void new_attr(struct keys *k, const struct keys_attr *dir, uint32_t mode, const struct keys_cred *cred,
		     struct keys_attr *a)
{
	memset(a, 0, sizeof *a);
	a->ino = store_counts(k->store)->next_ino;
	a->mode = mode;
	a->nlink = S_ISDIR(mode) ? 2 : 1;
	a->uid = cred->uid;
	a->gid = cred->gid;
	if (dir->mode & S_ISGID) {
		a->gid = dir->gid;
		if (S_ISDIR(mode))
			a->mode |= S_ISGID;
	}
	if (S_ISREG(mode) || S_ISLNK(mode))
		a->flags = KEYS_ATTR_INLINE;
	a->btime = keys_now(k);
	a->atime = a->mtime = a->ctime = a->btime;
}

/* Permissions: from the parent's default ACL if it has one, else less the umask. Adds the ACLs to the change. */
static int inherit_acl(struct keys *k, const struct keys_attr *dir, const struct keys_cred *cred, struct keys_attr *a)
{
	uint8_t acl[ACL_SIZE_MAX];
	struct xattr_place place = { 0 };
	size_t len;
	bool plain;
	int r = -ENODATA;

	if (S_ISLNK(a->mode))
		return 0;
	if (dir->flags & KEYS_ATTR_DEFAULT_ACL)
		r = xattr_read(k, dir->ino, ACL_DEFAULT_NAME, acl, sizeof acl, &len);
	if (r == -ENODATA) {
		a->mode &= ~(cred->umask & 0777);
		return 0;
	}
	if (r == 0 && acl_check(acl, len) < 0)
		r = err_corrupt("inode %llu: default ACL is damaged", (unsigned long long)dir->ino);
	if (r != 0)
		return r;
	if (S_ISDIR(a->mode)) {
		r = xattr_find(k, a->ino, ACL_DEFAULT_NAME, &place);
		if (r != 0)
			return r;
		xattr_change_set(k, a->ino, &place, ACL_DEFAULT_NAME, acl, (uint32_t)len);
		a->flags |= KEYS_ATTR_DEFAULT_ACL | KEYS_ATTR_XATTR;
	}
	a->mode = acl_create(acl, len, a->mode, &plain);
	if (plain)
		return 0;
	r = xattr_find(k, a->ino, ACL_ACCESS_NAME, &place);
	if (r != 0)
		return r;
	xattr_change_set(k, a->ino, &place, ACL_ACCESS_NAME, acl, (uint32_t)len);
	a->flags |= KEYS_ATTR_ACL | KEYS_ATTR_XATTR;
	return 0;
}

/* Is there a number for a new inode, and has nothing had it? An inode that came under the number of another would show
 * that one's contents. */
static int check_next_ino(struct keys *k)
{
	uint64_t next = store_counts(k->store)->next_ino;
	struct tree_cursor c;
	int r;

	if (next >= INO_MAX - 1)
		return -ENOSPC;
	if (k->numbers_checked)
		return 0;
	r = tree_seek_le(k->tree, (struct key){ UINT64_MAX, UINT64_MAX }, &c);
	if (r == 0 && cursor_key(&c).hi >> 8 >= next)
		r = err_corrupt("the next inode number is %llu, but there is an item of inode %llu",
				(unsigned long long)next, (unsigned long long)(cursor_key(&c).hi >> 8));
	k->numbers_checked = r == 0;
	return r;
}

static int prepare_new(struct keys *k, uint64_t dir, const char *name, size_t len, struct keys_attr *ret_dir,
		       struct key *ret_key)
{
	int r = name_check(name, len);

	if (r == 0)
		r = get_live_dir(k, dir, ret_dir);
	if (r == 0)
		r = dirent_new_key(k, dir, name, len, ret_key);
	if (r == 0)
		r = check_next_ino(k);
	return r == 0 ? change_reserve(k, 8, 4, false) : r;
}

static int commit_new(struct keys *k, struct keys_attr *d, struct key key, const char *name, size_t len,
		      const struct keys_attr *a, struct keys_attr *ret_attr)
{
	int r;

	change_put_dirent(k, key, a->ino, a->mode, name, len);
	d->size++;
	attr_touch(k, d, true);
	change_attr(k, d);
	r = change_commit(k);
	return r < 0 ? r : inode_get(k, a->ino, ret_attr);
}

int keys_make(struct keys *k, uint64_t dir, const char *name, size_t len, uint32_t mode, uint64_t rdev,
	      const struct keys_cred *cred, struct keys_attr *ret_attr)
{
	struct keys_attr d, a;
	struct key key;
	int r;

	switch (mode & S_IFMT) {
	case S_IFREG: case S_IFDIR: case S_IFCHR: case S_IFBLK: case S_IFIFO: case S_IFSOCK:
		break;
	default:
		return -EINVAL;
	}
	r = prepare_new(k, dir, name, len, &d, &key);
	if (r != 0)
		return r;
	if (S_ISDIR(mode) && d.nlink >= KEYS_LINK_MAX)
		return -EMLINK;
	change_begin(k, S_ISREG(mode) ? CHANGE_CREATE : S_ISDIR(mode) ? CHANGE_MKDIR : CHANGE_MKNOD);
	new_attr(k, &d, mode & (S_IFMT | 07777), cred, &a);
	if (S_ISCHR(mode) || S_ISBLK(mode))
		a.aux = rdev;
	if (S_ISDIR(mode)) {
		a.aux = dir;
		d.nlink++;
	}
	r = inherit_acl(k, &d, cred, &a);
	if (r != 0)
		return r;
	where_named(&a, key);
	change_new_inode(k, &a);
	return commit_new(k, &d, key, name, len, &a, ret_attr);
}

int keys_symlink(struct keys *k, uint64_t dir, const char *name, size_t len, const char *target, size_t target_len,
		 const struct keys_cred *cred, struct keys_attr *ret_attr)
{
	struct keys_attr d, a;
	struct key key;
	int r;

	if (target_len == 0)
		return -ENOENT;
	if (target_len > KEYS_SYMLINK_MAX)
		return -ENAMETOOLONG;
	r = prepare_new(k, dir, name, len, &d, &key);
	if (r != 0)
		return r;
	change_begin(k, CHANGE_SYMLINK);
	new_attr(k, &d, S_IFLNK | 0777, cred, &a);
	a.size = target_len;
	where_named(&a, key);
	change_new_inode(k, &a);
	change_data(k, a.ino, 0, target, (uint32_t)target_len);
	return commit_new(k, &d, key, name, len, &a, ret_attr);
}

int keys_link(struct keys *k, uint64_t ino, uint64_t dir, const char *name, size_t len, struct keys_attr *ret_attr)
{
	struct keys_attr d, a;
	struct key key;
	int r = inode_get(k, ino, &a);

	if (r != 0)
		return r;
	if (S_ISDIR(a.mode))
		return -EPERM;
	if (a.nlink == 0)
		return -ENOENT;
	if (a.nlink >= KEYS_LINK_MAX)
		return -EMLINK;
	r = prepare_new(k, dir, name, len, &d, &key);
	if (r != 0)
		return r;
	change_begin(k, CHANGE_LINK);
	a.nlink++;
	where_named(&a, key);
	attr_touch(k, &a, false);
	change_attr(k, &a);
	return commit_new(k, &d, key, name, len, &a, ret_attr);
}

/* Removing --------------------------------------------------------------------------------------------------------- */

/* One name less, in `dir`; the last one makes it an orphan. */
static void lose_name(struct keys *k, struct keys_attr *a, uint64_t dir)
{
	if (a->nlink > 0)
		a->nlink--;
	if (S_ISDIR(a->mode))
		a->nlink = 0;
	attr_touch(k, a, false);
	if (a->nlink == 0) {
		where_orphaned(a, dir);
		change_put_orphan(k, a->ino);
	}
	change_attr(k, a);
}

/* frees: the change makes the store no larger, and may use what is reserved for that. */
static int prepare_remove(struct keys *k, uint64_t dir, const char *name, size_t len, bool frees,
			  struct keys_attr *ret_dir, struct dirent *ret_entry, struct keys_attr *ret_attr)
{
	int r = name_check(name, len);

	if (r != 0)
		return r == -EEXIST ? -EINVAL : r;
	/* First, since it may change the tree, and the entry found points into it. */
	r = change_reserve(k, frees ? 4 : 10, 0, frees);
	if (r == 0)
		r = get_dir(k, dir, ret_dir);
	if (r == 0)
		r = dirent_find(k, dir, name, len, ret_entry);
	if (r == 0)
		r = inode_get(k, ret_entry->ino, ret_attr);
	return r;
}

static int remove_name(struct keys *k, enum change_type type, struct keys_attr *d, const struct dirent *e,
		       struct keys_attr *a)
{
	change_begin(k, type);
	change_del_name(k, e);
	lose_name(k, a, d->ino);
	if (d->size > 0)
		d->size--;
	if (S_ISDIR(a->mode) && d->nlink > 2)
		d->nlink--;
	attr_touch(k, d, true);
	change_attr(k, d);
	return change_commit(k);
}

int keys_unlink(struct keys *k, uint64_t dir, const char *name, size_t len, uint64_t *ret_ino, uint32_t *ret_nlink)
{
	struct keys_attr d, a;
	struct dirent e;
	int r = prepare_remove(k, dir, name, len, true, &d, &e, &a);

	if (r != 0)
		return r;
	if (S_ISDIR(a.mode))
		return -EISDIR;
	r = remove_name(k, CHANGE_UNLINK, &d, &e, &a);
	if (r != 0)
		return r;
	*ret_ino = a.ino;
	*ret_nlink = a.nlink;
	return 0;
}

int keys_rmdir(struct keys *k, uint64_t dir, const char *name, size_t len, uint64_t *ret_ino)
{
	struct keys_attr d, a;
	struct dirent e;
	int r = len == 1 && name[0] == '.' ? -EINVAL :
		len == 2 && name[0] == '.' && name[1] == '.' ? -ENOTEMPTY :
		prepare_remove(k, dir, name, len, true, &d, &e, &a);

	if (r != 0)
		return r;
	if (!S_ISDIR(a.mode))
		return -ENOTDIR;
	if (a.size > 0)
		return -ENOTEMPTY;
	r = remove_name(k, CHANGE_RMDIR, &d, &e, &a);
	if (r == 0)
		*ret_ino = a.ino;
	return r;
}

/* Renaming --------------------------------------------------------------------------------------------------------- */

struct rename {
	struct keys_attr odir, ndir;    /* ndir is unused if both are one */
	struct keys_attr *od, *nd;
	struct keys_attr from, to;      /* to: what the new name names now, if exists */
	struct dirent oe, ne;
	bool exists;
};

/* Would the directory `ino` end up below itself? The kernel prevents it, a hostile store or another caller may not. */
static int check_loop(struct keys *k, uint64_t ino, uint64_t dir)
{
	struct keys_attr a;
	unsigned depth;

	for (depth = 0; depth < DEPTH_MAX; depth++) {
		int r;

		if (dir == ino)
			return -EINVAL;
		if (dir == KEYS_ROOT_INO)
			return 0;
		r = get_dir(k, dir, &a);
		if (r != 0)
			return r;
		dir = a.aux;
	}
	return err_corrupt("directory %llu is not below the root", (unsigned long long)dir);
}

static int rename_prepare(struct keys *k, uint64_t odir, const char *oname, size_t olen, uint64_t ndir,
			  const char *nname, size_t nlen, unsigned flags, struct rename *rn)
{
	/* A full store lets a new version take an old one's name, but not grow by longer names. */
	bool frees = nlen <= olen && !(flags & RENAME_WHITEOUT);
	int r = prepare_remove(k, odir, oname, olen, frees, &rn->odir, &rn->oe, &rn->from);

	if (r == 0)
		r = name_check(nname, nlen);
	if (r == 0 && flags & RENAME_WHITEOUT)
		r = check_next_ino(k);
	if (r != 0)
		return r;
	rn->od = rn->nd = &rn->odir;
	if (odir != ndir) {
		r = get_live_dir(k, ndir, &rn->ndir);
		if (r != 0)
			return r;
		rn->nd = &rn->ndir;
	}
	r = dirent_find(k, ndir, nname, nlen, &rn->ne);
	rn->exists = r == 0;
	if (r == 0)
		r = inode_get(k, rn->ne.ino, &rn->to);
	else if (r == -ENOENT)
		r = 0;
	return r;
}

static int rename_check(struct keys *k, const struct rename *rn, uint64_t ndir, uint64_t odir, unsigned flags)
{
	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) ||
	    (flags & RENAME_EXCHANGE && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT)))
		return -EINVAL;
	if (flags & RENAME_EXCHANGE && !rn->exists)
		return -ENOENT;
	if (flags & RENAME_NOREPLACE && rn->exists)
		return -EEXIST;
	if (rn->exists && rn->from.ino == rn->to.ino)
		return 0;
	if (odir != ndir && S_ISDIR(rn->from.mode)) {
		int r = check_loop(k, rn->from.ino, ndir);

		if (r != 0)
			return r;
	}
	if (flags & RENAME_EXCHANGE) {
		int r = odir != ndir && S_ISDIR(rn->to.mode) ? check_loop(k, rn->to.ino, odir) : 0;

		return r;
	}
	if (!rn->exists)
		return 0;
	if (S_ISDIR(rn->from.mode) && !S_ISDIR(rn->to.mode))
		return -ENOTDIR;
	if (!S_ISDIR(rn->from.mode) && S_ISDIR(rn->to.mode))
		return -EISDIR;
	return S_ISDIR(rn->to.mode) && rn->to.size > 0 ? -ENOTEMPTY : 0;
}

/* A directory goes from one parent to another: `..` and the parents' link counts. */
static void move_dir(struct keys_attr *dir, struct keys_attr *from, struct keys_attr *to)
{
	if (!S_ISDIR(dir->mode) || from == to)
		return;
	dir->aux = to->ino;
	if (from->nlink > 2)
		from->nlink--;
	to->nlink++;
}

static void rename_dirs(struct keys *k, struct rename *rn)
{
	attr_touch(k, rn->od, true);
	change_attr(k, rn->od);
	if (rn->nd != rn->od) {
		attr_touch(k, rn->nd, true);
		change_attr(k, rn->nd);
	}
}

static int rename_exchange(struct keys *k, struct rename *rn, const char *oname, size_t olen, const char *nname,
			   size_t nlen)
{
	change_begin(k, CHANGE_EXCHANGE);
	change_put_dirent(k, rn->oe.key, rn->to.ino, rn->to.mode, oname, olen);
	change_put_dirent(k, rn->ne.key, rn->from.ino, rn->from.mode, nname, nlen);
	move_dir(&rn->from, rn->od, rn->nd);
	move_dir(&rn->to, rn->nd, rn->od);
	where_named(&rn->from, rn->ne.key);
	where_named(&rn->to, rn->oe.key);
	attr_touch(k, &rn->from, false);
	change_attr(k, &rn->from);
	attr_touch(k, &rn->to, false);
	change_attr(k, &rn->to);
	rename_dirs(k, rn);
	return change_commit(k);
}

/* The old name gets a whiteout: a character device 0/0, as overlayfs wants it. */
static void leave_whiteout(struct keys *k, struct rename *rn, const char *oname, size_t olen, const struct keys_cred *cred)
{
	struct keys_attr a;

	new_attr(k, rn->od, S_IFCHR, cred, &a);
	change_new_inode(k, &a);
	change_put_dirent(k, rn->oe.key, a.ino, a.mode, oname, olen);
}

static int rename_over(struct keys *k, struct rename *rn, const char *oname, size_t olen, const char *nname, size_t nlen,
		       bool whiteout, const struct keys_cred *cred)
{
	struct key key = rn->ne.key;
	int r = 0;

	if (!rn->exists)
		r = dirent_new_key(k, rn->nd->ino, nname, nlen, &key);
	if (r != 0)
		return r;
	change_begin(k, CHANGE_RENAME);
	if (whiteout) {
		leave_whiteout(k, rn, oname, olen, cred);
	} else {
		change_del_name(k, &rn->oe);
		if (rn->od->size > 0)
			rn->od->size--;
	}
	change_put_dirent(k, key, rn->from.ino, rn->from.mode, nname, nlen);
	if (rn->exists) {
		if (S_ISDIR(rn->to.mode) && rn->nd->nlink > 2)
			rn->nd->nlink--;
		lose_name(k, &rn->to, rn->nd->ino);
	} else {
		rn->nd->size++;
	}
	move_dir(&rn->from, rn->od, rn->nd);
	where_named(&rn->from, key);
	attr_touch(k, &rn->from, false);
	change_attr(k, &rn->from);
	rename_dirs(k, rn);
	return change_commit(k);
}

int keys_rename(struct keys *k, uint64_t odir, const char *oname, size_t olen, uint64_t ndir, const char *nname,
		size_t nlen, unsigned flags, const struct keys_cred *cred, uint64_t *ret_orphan)
{
	struct rename rn;
	int r = rename_prepare(k, odir, oname, olen, ndir, nname, nlen, flags, &rn);

	if (r == 0)
		r = rename_check(k, &rn, ndir, odir, flags);
	if (r != 0)
		return r;
	*ret_orphan = 0;
	/* rename(2): two names of one file stay as they are. */
	if (rn.exists && rn.from.ino == rn.to.ino)
		return 0;
	if (flags & RENAME_EXCHANGE)
		return rename_exchange(k, &rn, oname, olen, nname, nlen);
	r = rename_over(k, &rn, oname, olen, nname, nlen, flags & RENAME_WHITEOUT, cred);
	if (r == 0 && rn.exists && rn.to.nlink == 0)
		*ret_orphan = rn.to.ino;
	return r;
}
