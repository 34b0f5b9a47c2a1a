/* SPDX-License-Identifier: MIT
 *
 * model: see model_util.h.
 */
#include "tests/unit/model_util.h"

#include "core/store/store.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static void *get_memory(void *old, size_t size)
{
	void *p = realloc(old, size ? size : 1);

	check(p);
	return p;
}

static void *copy_of(const void *p, size_t len)
{
	uint8_t *c = get_memory(NULL, len + 1);

	if (len > 0)
		memcpy(c, p, len);
	c[len] = '\0';
	return c;
}

static struct keys_time now(const struct model *m)
{
	return (struct keys_time){ (int64_t)(m->now_ns / 1000000000u), (uint32_t)(m->now_ns % 1000000000u) };
}

static void touch(const struct model *m, struct model_node *n, bool mtime)
{
	n->a.ctime = now(m);
	if (mtime)
		n->a.mtime = n->a.ctime;
}

static struct model_node *add_node(struct model *m, const struct keys_attr *a)
{
	struct model_node *n = get_memory(NULL, sizeof *n);

	memset(n, 0, sizeof *n);
	n->a = *a;
	m->nodes = get_memory(m->nodes, (m->count + 1) * sizeof *m->nodes);
	m->nodes[m->count++] = n;
	return n;
}

void model_init(struct model *m, const struct keys_attr *root)
{
	memset(m, 0, sizeof *m);
	(void)add_node(m, root);
}

static void free_node(struct model_node *n)
{
	size_t i;

	for (i = 0; i < n->page_count; i++)
		free(n->pages[i].bytes);
	for (i = 0; i < n->xattr_count; i++) {
		free(n->xattrs[i].name);
		free(n->xattrs[i].value);
	}
	for (i = 0; i < n->entry_count; i++)
		free(n->entries[i].name);
	free(n->pages);
	free(n->xattrs);
	free(n->entries);
	free(n->target);
	free(n);
}

void model_release(struct model *m)
{
	while (m->count > 0)
		free_node(m->nodes[--m->count]);
	free(m->nodes);
	m->nodes = NULL;
}

struct model_node *model_node(const struct model *m, uint64_t ino)
{
	size_t i;

	for (i = 0; i < m->count; i++)
		if (m->nodes[i]->a.ino == ino)
			return m->nodes[i];
	return NULL;
}

void model_reaped(struct model *m, uint64_t ino)
{
	size_t i;

	for (i = 0; i < m->count; i++) {
		if (m->nodes[i]->a.ino == ino) {
			free_node(m->nodes[i]);
			m->nodes[i] = m->nodes[--m->count];
			return;
		}
	}
}

/* Names ------------------------------------------------------------------------------------------------------------- */

const struct model_entry *model_entry(const struct model_node *dir, struct model_name name)
{
	size_t i;

	for (i = 0; i < dir->entry_count; i++)
		if (dir->entries[i].len == name.len && memcmp(dir->entries[i].name, name.s, name.len) == 0)
			return &dir->entries[i];
	return NULL;
}

static struct model_entry *entry_of(struct model_node *dir, struct model_name name)
{
	return (struct model_entry *)(uintptr_t)model_entry(dir, name);
}

static void add_entry(struct model_node *dir, struct model_name name, struct model_node *n)
{
	dir->entries = get_memory(dir->entries, (dir->entry_count + 1) * sizeof *dir->entries);
	dir->entries[dir->entry_count++] = (struct model_entry){ copy_of(name.s, name.len), name.len, n };
	dir->a.size++;
}

static void remove_entry(struct model_node *dir, struct model_entry *e)
{
	free(e->name);
	*e = dir->entries[--dir->entry_count];
	dir->a.size--;
}

static bool is_dots(struct model_name n)
{
	return (n.len == 1 && n.s[0] == '.') || (n.len == 2 && n.s[0] == '.' && n.s[1] == '.');
}

static int check_name(struct model_name n)
{
	return n.len > 255 ? -ENAMETOOLONG : n.len == 0 || memchr(n.s, '/', n.len) ? -EINVAL : 0;
}

/* May something be put there? */
static int check_new(const struct model *m, uint64_t dir, struct model_name name, struct model_node **ret)
{
	int r = check_name(name);

	if (r == 0 && is_dots(name))
		r = -EEXIST;
	*ret = model_node(m, dir);
	if (r < 0)
		return r;
	if (!*ret || (S_ISDIR((*ret)->a.mode) && (*ret)->a.nlink == 0))
		return -ENOENT;
	if (!S_ISDIR((*ret)->a.mode))
		return -ENOTDIR;
	return model_entry(*ret, name) ? -EEXIST : 0;
}

static struct model_node *make_node(struct model *m, const struct model_node *dir, uint32_t mode,
				    const struct keys_cred *cred, uint64_t ino)
{
	struct keys_attr a = { .ino = ino, .mode = mode, .nlink = 1, .uid = cred->uid, .gid = cred->gid };

	if (dir->a.mode & S_ISGID)
		a.gid = dir->a.gid;
	if (dir->a.mode & S_ISGID && S_ISDIR(mode))
		a.mode |= S_ISGID;
	a.atime = a.mtime = a.ctime = a.btime = now(m);
	return add_node(m, &a);
}

int model_make(struct model *m, uint64_t dir, struct model_name name, uint32_t mode, uint64_t rdev,
	       const struct keys_cred *cred, struct model_name target, uint64_t new_ino)
{
	struct model_node *d, *n;
	int r;

	if (S_ISLNK(mode) && (target.len == 0 || target.len > 4095))
		return target.len ? -ENAMETOOLONG : -ENOENT;
	r = check_new(m, dir, name, &d);
	if (r < 0)
		return r;
	n = make_node(m, d, S_ISLNK(mode) ? S_IFLNK | 0777 : mode & ~(cred->umask & 0777), cred, new_ino);
	if (S_ISCHR(mode) || S_ISBLK(mode))
		n->a.aux = rdev;
	if (S_ISLNK(mode)) {
		n->a.size = target.len;
		n->target = copy_of(target.s, target.len);
	}
	if (S_ISDIR(mode)) {
		n->a.aux = dir;
		n->a.nlink = 2;
		d->a.nlink++;
	}
	add_entry(d, name, n);
	touch(m, d, true);
	return 0;
}

int model_link(struct model *m, uint64_t ino, uint64_t dir, struct model_name name)
{
	struct model_node *n = model_node(m, ino), *d;
	int r;

	if (!n)
		return -ENOENT;
	if (S_ISDIR(n->a.mode))
		return -EPERM;
	if (n->a.nlink == 0)
		return -ENOENT;
	r = check_new(m, dir, name, &d);
	if (r < 0)
		return r;
	n->a.nlink++;
	touch(m, n, false);
	add_entry(d, name, n);
	touch(m, d, true);
	return 0;
}

static int find_old(const struct model *m, uint64_t dir, struct model_name name, struct model_node **ret_dir,
		    struct model_entry **ret)
{
	int r = is_dots(name) ? -EINVAL : check_name(name);

	if (r < 0)
		return r;
	*ret_dir = model_node(m, dir);
	if (!*ret_dir)
		return -ENOENT;
	if (!S_ISDIR((*ret_dir)->a.mode))
		return -ENOTDIR;
	*ret = entry_of(*ret_dir, name);
	return *ret ? 0 : -ENOENT;
}

static void lose_name(const struct model *m, struct model_node *n)
{
	n->a.nlink = S_ISDIR(n->a.mode) ? 0 : n->a.nlink - 1;
	touch(m, n, false);
}

int model_unlink(struct model *m, uint64_t dir, struct model_name name)
{
	struct model_node *d;
	struct model_entry *e;
	int r = find_old(m, dir, name, &d, &e);

	if (r < 0)
		return r;
	if (S_ISDIR(e->node->a.mode))
		return -EISDIR;
	lose_name(m, e->node);
	remove_entry(d, e);
	touch(m, d, true);
	return 0;
}

int model_rmdir(struct model *m, uint64_t dir, struct model_name name)
{
	struct model_node *d;
	struct model_entry *e;
	int r;

	if (is_dots(name))
		return name.len == 1 ? -EINVAL : -ENOTEMPTY;
	r = find_old(m, dir, name, &d, &e);
	if (r < 0)
		return r;
	if (!S_ISDIR(e->node->a.mode))
		return -ENOTDIR;
	if (e->node->entry_count > 0)
		return -ENOTEMPTY;
	lose_name(m, e->node);
	remove_entry(d, e);
	d->a.nlink--;
	touch(m, d, true);
	return 0;
}

/* Is `dir` the directory n or below it? */
static bool is_below(const struct model *m, const struct model_node *dir, const struct model_node *n)
{
	while (dir != n && dir->a.ino != KEYS_ROOT_INO)
		dir = model_node(m, dir->a.aux);
	return dir == n;
}

static int rename_check(const struct model *m, const struct model_node *od, const struct model_node *nd,
			const struct model_node *from, const struct model_node *to, unsigned flags)
{
	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) ||
	    (flags & RENAME_EXCHANGE && flags != RENAME_EXCHANGE))
		return -EINVAL;
	if (flags & RENAME_EXCHANGE && !to)
		return -ENOENT;
	if (flags & RENAME_NOREPLACE && to)
		return -EEXIST;
	if (from == to)
		return 0;
	if (S_ISDIR(from->a.mode) && is_below(m, nd, from))
		return -EINVAL;
	if (flags & RENAME_EXCHANGE)
		return S_ISDIR(to->a.mode) && is_below(m, od, to) ? -EINVAL : 0;
	if (!to)
		return 0;
	if (S_ISDIR(from->a.mode) != S_ISDIR(to->a.mode))
		return S_ISDIR(from->a.mode) ? -ENOTDIR : -EISDIR;
	return to->entry_count > 0 ? -ENOTEMPTY : 0;
}

static void move_dir(struct model_node *n, struct model_node *from, struct model_node *to)
{
	if (!S_ISDIR(n->a.mode))
		return;
	n->a.aux = to->a.ino;
	from->a.nlink--;
	to->a.nlink++;
}

int model_rename(struct model *m, uint64_t odir, struct model_name oname, uint64_t ndir, struct model_name nname,
		 unsigned flags, const struct keys_cred *cred, uint64_t new_ino)
{
	struct model_node *od, *nd, *from, *to = NULL;
	struct model_entry *oe, *ne;
	int r = find_old(m, odir, oname, &od, &oe);

	if (r == 0)
		r = check_new(m, ndir, nname, &nd);
	if (r < 0 && (r != -EEXIST || is_dots(nname)))
		return r;
	ne = entry_of(nd, nname);
	from = oe->node;
	to = ne ? ne->node : NULL;
	r = rename_check(m, od, nd, from, to, flags);
	if (r < 0 || from == to)
		return r;
	touch(m, from, false);
	touch(m, od, true);
	touch(m, nd, true);
	move_dir(from, od, nd);
	if (flags & RENAME_EXCHANGE) {
		touch(m, to, false);
		move_dir(to, nd, od);
		oe->node = to;
		ne->node = from;
		return 0;
	}
	if (to) {
		if (S_ISDIR(to->a.mode))
			nd->a.nlink--;
		lose_name(m, to);
		ne->node = from;
	}
	if (flags & RENAME_WHITEOUT)
		oe->node = make_node(m, od, S_IFCHR, cred, new_ino);
	else
		remove_entry(od, oe);
	if (!to)
		add_entry(nd, nname, from);
	return 0;
}

/* Contents ---------------------------------------------------------------------------------------------------------- */

/* The place of the page for `block`, or where it would be put. */
static size_t page_place(const struct model_node *n, uint64_t block)
{
	size_t lo = 0, hi = n->page_count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (n->pages[mid].block < block)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static uint8_t *page_at(struct model_node *n, uint64_t block)
{
	size_t i = page_place(n, block);

	if (i < n->page_count && n->pages[i].block == block)
		return n->pages[i].bytes;
	n->pages = get_memory(n->pages, (n->page_count + 1) * sizeof *n->pages);
	memmove(n->pages + i + 1, n->pages + i, (n->page_count - i) * sizeof *n->pages);
	n->pages[i] = (struct model_page){ block, get_memory(NULL, BLOCK_SIZE) };
	memset(n->pages[i].bytes, 0, BLOCK_SIZE);
	n->page_count++;
	return n->pages[i].bytes;
}

static void put_bytes(struct model_node *n, uint64_t off, const uint8_t *data, size_t len)
{
	while (len > 0) {
		size_t at = off % BLOCK_SIZE, some = len < BLOCK_SIZE - at ? len : BLOCK_SIZE - at;

		memcpy(page_at(n, off / BLOCK_SIZE) + at, data, some);
		off += some;
		data += some;
		len -= some;
	}
}

void model_read(const struct model_node *n, uint64_t off, size_t len, uint8_t *buf)
{
	size_t i = page_place(n, off / BLOCK_SIZE);

	memset(buf, 0, len);
	for (; i < n->page_count && n->pages[i].block * BLOCK_SIZE < off + len; i++) {
		uint64_t start = n->pages[i].block * BLOCK_SIZE;
		uint64_t a = max_u64(start, off), b = min_u64(start + BLOCK_SIZE, off + len);

		if (a < b)
			memcpy(buf + (a - off), n->pages[i].bytes + (a - start), b - a);
	}
}

void model_zero(struct model_node *n, uint64_t off, uint64_t len)
{
	size_t i, keep = 0;

	for (i = 0; i < n->page_count; i++) {
		struct model_page p = n->pages[i];
		uint64_t start = p.block * BLOCK_SIZE;
		uint64_t a = max_u64(start, off), b = min_u64(start + BLOCK_SIZE, off + len);

		if (a < b)
			memset(p.bytes + (a - start), 0, b - a);
		if (a < b && b - a == BLOCK_SIZE)
			free(p.bytes);
		else
			n->pages[keep++] = p;
	}
	n->page_count = keep;
}

static void drop_xattr(struct model_node *n, size_t i)
{
	free(n->xattrs[i].name);
	free(n->xattrs[i].value);
	n->xattrs[i] = n->xattrs[--n->xattr_count];
}

static size_t find_xattr(const struct model_node *n, const char *name)
{
	size_t i;

	for (i = 0; i < n->xattr_count && strcmp(n->xattrs[i].name, name) != 0; i++)
		;
	return i;
}

static void kill_privileges(struct model_node *n)
{
	size_t i = find_xattr(n, "security.capability");

	if (S_ISDIR(n->a.mode))
		return;
	n->a.mode &= ~(uint32_t)S_ISUID;
	if (n->a.mode & S_IXGRP)
		n->a.mode &= ~(uint32_t)S_ISGID;
	if (i < n->xattr_count)
		drop_xattr(n, i);
}

static int check_file(const struct model_node *n, int other)
{
	return !n ? -ENOENT : S_ISREG(n->a.mode) ? 0 : S_ISDIR(n->a.mode) ? -EISDIR : other;
}

int model_write(struct model *m, uint64_t ino, uint64_t off, const uint8_t *data, size_t len, bool kill_priv)
{
	struct model_node *n = model_node(m, ino);
	int r = check_file(n, -EINVAL);

	if (r < 0 || len == 0)
		return r;
	if (off >= KEYS_SIZE_MAX)
		return -EFBIG;
	put_bytes(n, off, data, len);
	n->a.size = max_u64(n->a.size, off + len);
	if (kill_priv)
		kill_privileges(n);
	touch(m, n, true);
	return 0;
}

int model_fallocate(struct model *m, uint64_t ino, int mode, uint64_t off, uint64_t len)
{
	struct model_node *n = model_node(m, ino);
	int r = check_file(n, -ENODEV);

	if (r < 0)
		return r;
	if (len == 0)
		return -EINVAL;
	if (off > KEYS_SIZE_MAX || len > KEYS_SIZE_MAX - off)
		return -EFBIG;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		model_zero(n, off, len);
		touch(m, n, true);
	}
	touch(m, n, true);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && off + len > n->a.size)
		n->a.size = off + len;
	return 0;
}

/* Attributes -------------------------------------------------------------------------------------------------------- */

int model_setattr(struct model *m, uint64_t ino, const struct keys_setattr *set)
{
	struct model_node *n = model_node(m, ino);

	if (!n)
		return -ENOENT;
	if (set->mask & KEYS_SET_SIZE) {
		int r = check_file(n, -EINVAL);

		if (r < 0)
			return r;
		if (set->size > KEYS_SIZE_MAX)
			return -EFBIG;
		model_zero(n, set->size, (uint64_t)INT64_MAX - set->size);
		n->a.size = set->size;
		n->a.mtime = now(m);
	}
	if (set->mask & KEYS_KILL_PRIV)
		kill_privileges(n);
	if (set->mask & KEYS_SET_UID)
		n->a.uid = set->uid;
	if (set->mask & KEYS_SET_GID)
		n->a.gid = set->gid;
	if (set->mask & KEYS_SET_MODE)
		n->a.mode = (n->a.mode & S_IFMT) | (set->mode & 07777);
	if (set->mask & (KEYS_SET_ATIME | KEYS_SET_ATIME_NOW))
		n->a.atime = set->mask & KEYS_SET_ATIME_NOW ? now(m) : set->atime;
	if (set->mask & (KEYS_SET_MTIME | KEYS_SET_MTIME_NOW))
		n->a.mtime = set->mask & KEYS_SET_MTIME_NOW ? now(m) : set->mtime;
	n->a.ctime = set->mask & KEYS_SET_CTIME ? set->ctime : now(m);
	return 0;
}

static int64_t ns_of(struct keys_time t)
{
	return t.sec * 1000000000 + t.nsec;
}

int model_touch_atime(struct model *m, uint64_t ino, enum keys_atime policy)
{
	struct model_node *n = model_node(m, ino);

	if (policy == KEYS_NOATIME)
		return 0;
	if (!n)
		return -ENOENT;
	if (policy == KEYS_STRICTATIME || ns_of(n->a.atime) <= ns_of(n->a.mtime) ||
	    ns_of(n->a.atime) <= ns_of(n->a.ctime) || now(m).sec - n->a.atime.sec >= 24 * 60 * 60)
		n->a.atime = now(m);
	return 0;
}

int model_setxattr(struct model *m, uint64_t ino, const char *name, const void *value, size_t size, int flags)
{
	struct model_node *n = model_node(m, ino);
	size_t i;

	if (strncmp(name, "user.", 5) != 0 && strncmp(name, "security.", 9) != 0 && strncmp(name, "trusted.", 8) != 0)
		return -EOPNOTSUPP;
	if (!n)
		return -ENOENT;
	i = find_xattr(n, name);
	if (flags & XATTR_CREATE && i < n->xattr_count)
		return -EEXIST;
	if (flags & XATTR_REPLACE && i == n->xattr_count)
		return -ENODATA;
	if (i < n->xattr_count)
		drop_xattr(n, i);
	n->xattrs = get_memory(n->xattrs, (n->xattr_count + 1) * sizeof *n->xattrs);
	n->xattrs[n->xattr_count++] = (struct model_xattr){ copy_of(name, strlen(name)), copy_of(value, size), size };
	touch(m, n, false);
	return 0;
}

int model_removexattr(struct model *m, uint64_t ino, const char *name)
{
	struct model_node *n = model_node(m, ino);
	size_t i;

	if (!n)
		return -ENOENT;
	i = find_xattr(n, name);
	if (i == n->xattr_count)
		return -ENODATA;
	drop_xattr(n, i);
	touch(m, n, false);
	return 0;
}

/* Comparing --------------------------------------------------------------------------------------------------------- */

struct compare {
	const struct model *m;
	struct keys *k;
	const struct model_node *n;
	char *why;
	size_t size;
};

static int differs(const struct compare *c, const char *what, uint64_t have, uint64_t want)
{
	(void)snprintf(c->why, c->size, "inode %llu: %s: %llu (0x%llx), should be %llu (0x%llx)",
		       (unsigned long long)c->n->a.ino, what, (unsigned long long)have, (unsigned long long)have,
		       (unsigned long long)want, (unsigned long long)want);
	return -1;
}

#define SAME(what, have, want) \
	do { \
		if ((uint64_t)(have) != (uint64_t)(want)) \
			return differs(c, what, (uint64_t)(have), (uint64_t)(want)); \
	} while (0)

static int compare_attr(const struct compare *c, const struct keys_attr *a)
{
	const struct keys_attr *w = &c->n->a;

	SAME("ino", a->ino, w->ino);
	SAME("mode", a->mode, w->mode);
	SAME("nlink", a->nlink, w->nlink);
	SAME("uid", a->uid, w->uid);
	SAME("gid", a->gid, w->gid);
	SAME("size", a->size, w->size);
	SAME("aux", a->aux, w->aux);
	SAME("atime", ns_of(a->atime), ns_of(w->atime));
	SAME("mtime", ns_of(a->mtime), ns_of(w->mtime));
	SAME("ctime", ns_of(a->ctime), ns_of(w->ctime));
	SAME("btime", ns_of(a->btime), ns_of(w->btime));
	return 0;
}

/* The bytes [from, to), read from the keys, against the model. */
static int compare_bytes(const struct compare *c, uint64_t from, uint64_t to)
{
	static uint8_t want[65536];

	while (from < to) {
		size_t len = (size_t)min_u64(to - from, sizeof want), bytes = 0, at = 0;
		struct iovec iov[20];
		int n = 0, i, r = keys_read(c->k, c->n->a.ino, from, len, iov, ARRAY_LEN(iov), &n, &bytes);

		SAME("reading", r, 0);
		if (bytes == 0)
			return differs(c, "bytes read", from, to);
		model_read(c->n, from, bytes, want);
		for (i = 0; i < n; i++) {
			const uint8_t *p = iov[i].iov_base;
			size_t b;

			if (memcmp(p, want + at, iov[i].iov_len) != 0) {
				for (b = 0; p[b] == want[at + b]; b++)
					;
				(void)snprintf(c->why, c->size, "inode %llu: byte %llu is 0x%02x, should be 0x%02x",
					       (unsigned long long)c->n->a.ino, (unsigned long long)(from + at + b),
					       p[b], want[at + b]);
				return -1;
			}
			at += iov[i].iov_len;
		}
		SAME("bytes in pieces", at, bytes);
		from += bytes;
	}
	return 0;
}

/* Every page of the model in [from, to) must be zeros: the keys say that there is a hole. */
static int compare_hole(const struct compare *c, uint64_t from, uint64_t to)
{
	size_t i = page_place(c->n, from / BLOCK_SIZE);

	for (; i < c->n->page_count && c->n->pages[i].block * BLOCK_SIZE < to; i++) {
		uint64_t start = c->n->pages[i].block * BLOCK_SIZE, at;

		for (at = max_u64(start, from); at < min_u64(start + BLOCK_SIZE, to); at++)
			SAME("hole where there is a byte", 0, c->n->pages[i].bytes[at - start]);
	}
	return 0;
}

static int compare_contents(const struct compare *c)
{
	uint64_t at = 0, size = c->n->a.size, data, hole;

	while (at < size) {
		int r = keys_seek(c->k, c->n->a.ino, at, SEEK_DATA, &data);

		if (r == -ENXIO)
			data = size;
		else
			SAME("SEEK_DATA", r, 0);
		if (data < at || data > size)
			return differs(c, "SEEK_DATA goes to", data, at);
		if (compare_hole(c, at, data) < 0)
			return -1;
		if (data == size)
			break;
		r = keys_seek(c->k, c->n->a.ino, data, SEEK_HOLE, &hole);
		SAME("SEEK_HOLE", r, 0);
		if (hole <= data || hole > size)
			return differs(c, "SEEK_HOLE goes to", hole, data);
		if (compare_bytes(c, data, hole) < 0)
			return -1;
		at = hole;
	}
	/* Holes read as zeros too, at both ends. */
	if (size > 0 && compare_bytes(c, 0, min_u64(size, 70000)) < 0)
		return -1;
	return compare_bytes(c, size > 9000 ? size - 9000 : 0, size);
}

static int compare_xattrs(const struct compare *c)
{
	static uint8_t value[KEYS_XATTR_MAX];
	static char names[1 << 20];
	size_t len = 0, at, found = 0, i;

	SAME("listxattr", keys_listxattr(c->k, c->n->a.ino, names, sizeof names, &len), 0);
	for (at = 0; at < len; at += strlen(names + at) + 1) {
		size_t n = 0;

		i = find_xattr(c->n, names + at);
		if (i == c->n->xattr_count)
			return differs(c, "an extended attribute too much", at, len);
		SAME("getxattr", keys_getxattr(c->k, c->n->a.ino, names + at, value, sizeof value, &n), 0);
		SAME("size of an extended attribute", n, c->n->xattrs[i].size);
		SAME("bytes of an extended attribute", memcmp(value, c->n->xattrs[i].value, n), 0);
		found++;
	}
	SAME("number of extended attributes", found, c->n->xattr_count);
	return 0;
}

struct list {
	const struct compare *c;
	size_t found;
	uint64_t last;
	int r;
};

static int list_entry(void *ctx, const struct keys_dirent *e)
{
	struct list *l = ctx;
	const struct model_entry *want;

	if (e->cookie <= l->last)
		return l->r = differs(l->c, "cookie", e->cookie, l->last + 1);
	l->last = e->cookie;
	if (e->name[0] == '.' && (e->len == 1 || (e->len == 2 && e->name[1] == '.')))
		return e->ino == (e->len == 1 ? l->c->n->a.ino : l->c->n->a.aux) ? 0 :
			(l->r = differs(l->c, "inode of . or ..", e->ino, l->c->n->a.aux));
	want = model_entry(l->c->n, (struct model_name){ e->name, e->len });
	if (!want)
		return l->r = differs(l->c, "an entry too much, to inode", e->ino, 0);
	if (e->ino != want->node->a.ino || e->type != (want->node->a.mode & S_IFMT))
		return l->r = differs(l->c, "an entry's inode", e->ino, want->node->a.ino);
	l->found++;
	return 0;
}

static int compare_entries(const struct compare *c)
{
	struct list l = { .c = c };
	struct keys_attr a;
	size_t i;

	SAME("readdir", keys_readdir(c->k, c->n->a.ino, 0, list_entry, &l), 0);
	if (l.r < 0)
		return l.r;
	SAME("number of entries", l.found, c->n->entry_count);
	for (i = 0; i < c->n->entry_count; i++) {
		const struct model_entry *e = &c->n->entries[i];

		SAME("lookup", keys_lookup(c->k, c->n->a.ino, e->name, e->len, &a), 0);
		SAME("inode looked up", a.ino, e->node->a.ino);
	}
	return 0;
}

int model_compare_node(const struct model *m, struct keys *k, const struct model_node *n, char *why, size_t size)
{
	struct compare whole = { m, k, n, why, size }, *c = &whole;
	char target[KEYS_SYMLINK_MAX];
	struct keys_attr a;
	size_t len = 0;

	SAME("getattr", keys_getattr(k, n->a.ino, &a), 0);
	if (n->reaping)
		return 0;
	if (compare_attr(c, &a) < 0 || compare_xattrs(c) < 0)
		return -1;
	if (S_ISLNK(n->a.mode)) {
		SAME("readlink", keys_readlink(k, n->a.ino, target, sizeof target, &len), 0);
		SAME("target's length", len, n->a.size);
		SAME("target", memcmp(target, n->target, len), 0);
	}
	if (S_ISDIR(n->a.mode))
		return compare_entries(c);
	return S_ISREG(n->a.mode) ? compare_contents(c) : 0;
}

int model_compare(const struct model *m, struct keys *k, char *why, size_t size)
{
	struct compare whole = { m, k, m->nodes[0], why, size }, *c = &whole;
	struct store_status st;
	uint64_t orphan = 0;
	size_t i, orphans = 0;

	for (i = 0; i < m->count; i++) {
		orphans += m->nodes[i]->a.nlink == 0;
		if (model_compare_node(m, k, m->nodes[i], why, size) < 0)
			return -1;
	}
	while (keys_next_orphan(k, orphan, &orphan) == 0) {
		const struct model_node *n = model_node(m, orphan);

		if (!n || n->a.nlink > 0)
			return differs(c, "an orphan too much", orphan, 0);
		orphans--;
		orphan++;
	}
	SAME("orphans missing", orphans, 0);
	store_status(keys_store(k), &st);
	SAME("inodes", st.inodes, m->count);
	return 0;
}
