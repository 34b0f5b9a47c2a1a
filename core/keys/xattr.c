/* SPDX-License-Identifier: MIT
 *
 * xattr: extended attributes, each in one item or, if long, in up to XATTR_CHUNKS of them. Setting an ACL also sets the
 * mode, in the same record.
 */
#include "core/keys/keys_int.h"

#include <sys/xattr.h>

#define PROBES 256u

static uint64_t name_base(struct keys *k, const char *name, unsigned probe)
{
	uint64_t h = hash64(name, strlen(name), store_hash_seed(k->store)) & ((1ull << 40) - 1);

	return h << 16 | (uint64_t)probe << 8;
}

static unsigned chunk_count(size_t name_len, uint32_t len)
{
	return (unsigned)((name_len + len) / XATTR_CHUNK + 1);
}

/* Chunk 0: its name and the value's length. */
static int head_decode(uint64_t ino, const uint8_t *v, uint32_t len, const char **ret_name, uint32_t *ret_name_len,
		       uint32_t *ret_len)
{
	if (len < XATTR_HEADER || v[0] == 0 || v[0] > len - XATTR_HEADER || get_le32(v + 4) > KEYS_XATTR_MAX)
		return err_corrupt("inode %llu: extended attribute is damaged", (unsigned long long)ino);
	*ret_name = (const char *)v + XATTR_HEADER;
	*ret_name_len = v[0];
	*ret_len = get_le32(v + 4);
	return 0;
}

int xattr_find(struct keys *k, uint64_t ino, const char *name, struct xattr_place *ret)
{
	size_t n = strlen(name);
	unsigned probe;

	*ret = (struct xattr_place){ .base = UINT64_MAX };
	for (probe = 0; probe < PROBES; probe++) {
		uint64_t base = name_base(k, name, probe);
		uint32_t len, name_len = 0, value_len = 0;
		const char *found = NULL;
		const uint8_t *v;
		int r = tree_get(k->tree, item_key(ino, ITEM_XATTR, base), &v, &len);

		/* Probes are not closed up after a removal, so all of a hash's places are looked at; but a place without
		 * an item is nearly always the first one, and then the rest is empty too unless two names collided. */
		if (r == -ENOENT) {
			struct tree_cursor c;

			if (ret->base == UINT64_MAX)
				ret->base = base;
			r = tree_seek(k->tree, item_key(ino, ITEM_XATTR, base), &c);
			if (r == -ENOENT || (r == 0 && (cursor_key(&c).hi != item_key(ino, ITEM_XATTR, 0).hi ||
							cursor_key(&c).lo >> 16 != base >> 16)))
				return 0;
			if (r == 0)
				continue;
		}
		if (r == 0)
			r = head_decode(ino, v, len, &found, &name_len, &value_len);
		if (r != 0)
			return r;
		if (name_len == n && memcmp(found, name, n) == 0) {
			*ret = (struct xattr_place){ base, true, value_len, chunk_count(n, value_len) };
			return 0;
		}
	}
	return ret->base == UINT64_MAX ? -ENOSPC : 0;
}

/* The value that begins in the item with this base, behind a name of name_len bytes. */
static int read_chunks(struct keys *k, uint64_t ino, uint64_t base, uint32_t name_len, uint32_t value_len, uint8_t *buf)
{
	unsigned chunks = chunk_count(name_len, value_len), i;
	size_t done = 0;

	for (i = 0; i < chunks; i++) {
		uint32_t len, skip = i == 0 ? XATTR_HEADER + name_len : 0;
		const uint8_t *v;
		int r = tree_get(k->tree, item_key(ino, ITEM_XATTR, base + i), &v, &len);

		if (r == -ENOENT || (r == 0 && (len < skip || len - skip > value_len - done)))
			return err_corrupt("inode %llu: extended attribute is damaged", (unsigned long long)ino);
		if (r < 0)
			return r;
		memcpy(buf + done, v + skip, len - skip);
		done += len - skip;
	}
	return done == value_len ? 0 :
	       err_corrupt("inode %llu: extended attribute is short", (unsigned long long)ino);
}

int xattr_read_at(struct keys *k, uint64_t ino, uint64_t base, void *buf, size_t size, size_t *ret_len)
{
	uint32_t len, name_len = 0, value_len = 0;
	const char *name;
	const uint8_t *v;
	int r = tree_get(k->tree, item_key(ino, ITEM_XATTR, base), &v, &len);

	if (r == 0)
		r = head_decode(ino, v, len, &name, &name_len, &value_len);
	if (r < 0)
		return r == -ENOENT ? -ENODATA : r;
	if (size < value_len)
		return -ERANGE;
	*ret_len = value_len;
	return read_chunks(k, ino, base, name_len, value_len, buf);
}

int xattr_read(struct keys *k, uint64_t ino, const char *name, void *buf, size_t size, size_t *ret_len)
{
	struct xattr_place p;
	int r = xattr_find(k, ino, name, &p);

	if (r != 0)
		return r == -ENOSPC ? -ENODATA : r;
	if (!p.exists)
		return -ENODATA;
	*ret_len = p.len;
	if (size == 0)
		return 0;
	if (size < p.len)
		return -ERANGE;
	return read_chunks(k, ino, p.base, (uint32_t)strlen(name), p.len, buf);
}

static int check_name(const char *name, size_t size)
{
	static const char *const prefixes[] = { "user.", "trusted.", "security." };
	size_t i;

	if (name[0] == '\0' || strlen(name) > 255)
		return -ERANGE;
	if (size > KEYS_XATTR_MAX)
		return -E2BIG;
	for (i = 0; i < ARRAY_LEN(prefixes); i++) {
		size_t n = strlen(prefixes[i]);

		if (strncmp(name, prefixes[i], n) == 0)
			return name[n] == '\0' ? -EINVAL : 0;
	}
	return strcmp(name, ACL_ACCESS_NAME) == 0 || strcmp(name, ACL_DEFAULT_NAME) == 0 ? 0 : -EOPNOTSUPP;
}

int keys_getxattr(struct keys *k, uint64_t ino, const char *name, void *buf, size_t size, size_t *ret_len)
{
	struct keys_attr a;
	int r = check_name(name, 0);

	if (r == 0)
		r = inode_get(k, ino, &a);
	if (r != 0)
		return r;
	if (!(a.flags & KEYS_ATTR_XATTR))
		return -ENODATA;
	return xattr_read(k, ino, name, buf, size, ret_len);
}

int keys_listxattr(struct keys *k, uint64_t ino, char *buf, size_t size, size_t *ret_len)
{
	struct tree_cursor c;
	struct keys_attr a;
	size_t done = 0;
	int r = inode_get(k, ino, &a);

	if (r != 0)
		return r;
	r = a.flags & KEYS_ATTR_XATTR ? tree_seek(k->tree, item_key(ino, ITEM_XATTR, 0), &c) : -ENOENT;
	for (; r == 0; r = cursor_next(&c)) {
		struct key key = cursor_key(&c);
		uint32_t len, name_len = 0, value_len = 0;
		const char *name = NULL;
		const uint8_t *v;

		if (key.hi != item_key(ino, ITEM_XATTR, 0).hi)
			break;
		if (key.lo & 0xff)
			continue;
		v = cursor_value(&c, &len);
		r = head_decode(ino, v, len, &name, &name_len, &value_len);
		if (r != 0)
			return r;
		if (size > 0) {
			if (size - done < name_len + 1)
				return -ERANGE;
			memcpy(buf + done, name, name_len);
			buf[done + name_len] = '\0';
		}
		done += name_len + 1;
	}
	*ret_len = done;
	return r == -ENOENT || r == 0 ? 0 : r;
}

/* Changing --------------------------------------------------------------------------------------------------------- */

/* Those that are there: a damaged attribute can be removed too. */
static void del_chunks(struct keys *k, uint64_t ino, const struct xattr_place *p, unsigned from)
{
	const uint8_t *v;
	uint32_t len;

	for (; from < p->chunks; from++)
		if (tree_get(k->tree, item_key(ino, ITEM_XATTR, p->base + from), &v, &len) == 0)
			change_del(k, item_key(ino, ITEM_XATTR, p->base + from));
}

void xattr_change_set(struct keys *k, uint64_t ino, const struct xattr_place *p, const char *name, const void *value,
		      uint32_t size)
{
	size_t n = strlen(name);
	unsigned chunks = chunk_count(n, size), i;
	const uint8_t *from = value;
	uint32_t left = size;

	for (i = 0; i < chunks; i++) {
		uint32_t head = i == 0 ? (uint32_t)(XATTR_HEADER + n) : 0;
		uint32_t body = (uint32_t)min_u64(left, i == 0 ? XATTR_CHUNK - n : XATTR_CHUNK);
		uint8_t *to = change_put_place(k, item_key(ino, ITEM_XATTR, p->base + i), head + body);

		if (i == 0) {
			memset(to, 0, XATTR_HEADER);
			to[0] = (uint8_t)n;
			put_le32(to + 4, size);
			memcpy(to + XATTR_HEADER, name, n);     /* NOLINT(bugprone-not-null-terminated-result): n is stored */
		}
		if (body > 0)
			memcpy(to + head, from, body);
		from += body;
		left -= body;
	}
	del_chunks(k, ino, p, i);
}

void xattr_change_remove(struct keys *k, uint64_t ino, const struct xattr_place *p)
{
	del_chunks(k, ino, p, 0);
}

int xattr_change_drop(struct keys *k, uint64_t ino, const char *name)
{
	struct xattr_place p;
	int r = xattr_find(k, ino, name, &p);

	if (r == 0 && p.exists)
		xattr_change_remove(k, ino, &p);
	return r == -ENOSPC ? 0 : r;
}

/* An ACL's effect on the inode; *ret_store: it says more than the mode, so it is kept as an attribute. */
static int set_acl(struct keys_attr *a, const char *name, const void *value, size_t size, bool kill_sgid, bool *ret_store)
{
	bool access = strcmp(name, ACL_ACCESS_NAME) == 0, plain;
	int r;

	*ret_store = true;
	if (!access && strcmp(name, ACL_DEFAULT_NAME) != 0)
		return 0;
	if (S_ISLNK(a->mode))
		return -EOPNOTSUPP;
	r = acl_check(value, size);
	if (r != 0)
		return r;
	if (!access) {
		*ret_store = size > 4;
		if (!S_ISDIR(a->mode))
			return size > 4 ? -EACCES : 0;
		a->flags = size > 4 ? a->flags | KEYS_ATTR_DEFAULT_ACL : a->flags & ~KEYS_ATTR_DEFAULT_ACL;
		return 0;
	}
	if (size == 4) {
		*ret_store = false;
		a->flags &= ~KEYS_ATTR_ACL;
		return 0;
	}
	a->mode = acl_mode(value, size, a->mode, &plain);
	if (kill_sgid)
		a->mode &= ~(uint32_t)S_ISGID;
	*ret_store = !plain;
	a->flags = plain ? a->flags & ~KEYS_ATTR_ACL : a->flags | KEYS_ATTR_ACL;
	return 0;
}

int keys_setxattr(struct keys *k, uint64_t ino, const char *name, const void *value, size_t size, int flags,
		  bool kill_sgid)
{
	struct xattr_place p;
	struct keys_attr a;
	bool store = true;
	int r = check_name(name, size);

	if (r == 0)
		r = inode_get_to_change(k, ino, &a);
	if (r == 0)
		r = set_acl(&a, name, value, size, kill_sgid, &store);
	if (r == 0)
		r = xattr_find(k, ino, name, &p);
	if (r != 0)
		return r;
	if (flags & XATTR_CREATE && p.exists)
		return -EEXIST;
	if (flags & XATTR_REPLACE && !p.exists)
		return -ENODATA;
	r = change_reserve(k, 4 + 2 * chunk_count(strlen(name), (uint32_t)size) / 3, 0, false);
	if (r != 0)
		return r;
	change_begin(k, CHANGE_SETXATTR);
	if (store) {
		xattr_change_set(k, ino, &p, name, value, (uint32_t)size);
		a.flags |= KEYS_ATTR_XATTR;
	} else if (p.exists) {
		xattr_change_remove(k, ino, &p);
	}
	attr_touch(k, &a, false);
	change_attr(k, &a);
	return change_commit(k);
}

int keys_removexattr(struct keys *k, uint64_t ino, const char *name)
{
	struct xattr_place p;
	struct keys_attr a;
	int r = check_name(name, 0);

	if (r == 0)
		r = inode_get_to_change(k, ino, &a);
	if (r == 0)
		r = xattr_find(k, ino, name, &p);
	if (r != 0)
		return r == -ENOSPC ? -ENODATA : r;
	/* An ACL that says no more than the mode is not stored, so there is none to miss. */
	if (!p.exists)
		return strncmp(name, "system.", 7) == 0 ? 0 : -ENODATA;
	r = change_reserve(k, 4, 0, true);
	if (r != 0)
		return r;
	if (strcmp(name, ACL_ACCESS_NAME) == 0)
		a.flags &= ~KEYS_ATTR_ACL;
	if (strcmp(name, ACL_DEFAULT_NAME) == 0)
		a.flags &= ~KEYS_ATTR_DEFAULT_ACL;
	change_begin(k, CHANGE_REMOVEXATTR);
	xattr_change_remove(k, ino, &p);
	attr_touch(k, &a, false);
	change_attr(k, &a);
	return change_commit(k);
}
