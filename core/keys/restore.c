/* SPDX-License-Identifier: MIT
 *
 * restore: see restore.h. Records with plain PUT mutations, of the type of the change that would have made the same.
 */
#include "core/keys/keys_int.h"
#include "core/keys/restore.h"

static enum change_type type_of(uint32_t mode)
{
	return S_ISREG(mode) ? CHANGE_CREATE : S_ISDIR(mode) ? CHANGE_MKDIR : S_ISLNK(mode) ? CHANGE_SYMLINK :
	       CHANGE_MKNOD;
}

int keys_restore_inode(struct keys *k, const struct keys_attr *a, const void *contents, uint32_t len)
{
	struct keys_attr put = *a;
	uint8_t *p;
	int r;

	put.blocks = 0;
	if (len > INLINE_MAX || (len > 0 && !(a->flags & KEYS_ATTR_INLINE)))
		return -EINVAL;
	/* A PUT with a number not seen before is what counts a new inode (apply.c). */
	if (a->ino != KEYS_ROOT_INO && (a->ino < store_counts(k->store)->next_ino || a->ino >= INO_MAX - 1))
		return -EEXIST;
	r = change_reserve(k, 1, 0, false);
	if (r < 0)
		return r;
	change_begin(k, type_of(a->mode));
	p = change_put_place(k, item_key(a->ino, ITEM_INODE, 0), INODE_SIZE + len);
	inode_encode(p, &put);
	if (len > 0)
		memcpy(p + INODE_SIZE, contents, len);
	return change_commit(k);
}

int keys_restore_attr(struct keys *k, const struct keys_attr *a)
{
	int r = change_reserve(k, 1, 0, false);

	if (r < 0)
		return r;
	change_begin(k, CHANGE_SETATTR);
	change_attr(k, a);
	return change_commit(k);
}

int keys_restore_xattr(struct keys *k, uint64_t ino, const char *name, const void *value, uint32_t size, uint32_t *flags)
{
	uint32_t acl = strcmp(name, ACL_ACCESS_NAME) == 0 ? KEYS_ATTR_ACL :
		       strcmp(name, ACL_DEFAULT_NAME) == 0 ? KEYS_ATTR_DEFAULT_ACL : 0;
	struct xattr_place place;
	int r = acl ? acl_check(value, size) : 0;

	if (r == 0)
		r = xattr_find(k, ino, name, &place);
	if (r == 0)
		r = change_reserve(k, 2 + (unsigned)((strlen(name) + size) / XATTR_CHUNK), 0, false);
	if (r < 0)
		return r;
	change_begin(k, CHANGE_SETXATTR);
	xattr_change_set(k, ino, &place, name, value, size);
	r = change_commit(k);
	if (r == 0)
		*flags |= KEYS_ATTR_XATTR | acl;
	return r;
}

int keys_restore_entry(struct keys *k, uint64_t dir, const char *name, size_t len, uint64_t ino, uint32_t type)
{
	struct key key;
	int r = dirent_new_key(k, dir, name, len, &key);

	if (r == 0)
		r = change_reserve(k, 1, 0, false);
	if (r < 0)
		return r;
	change_begin(k, CHANGE_LINK);
	dirent_encode(change_put_place(k, key, (uint32_t)(DIRENT_HEADER + len)), ino, type, name, len);
	return change_commit(k);
}

int keys_restore_target(struct keys *k, uint64_t ino, const void *target, uint32_t len)
{
	int r = len > KEYS_SYMLINK_MAX ? -EINVAL : change_reserve(k, 2, 2, false);

	if (r < 0)
		return r;
	change_begin(k, CHANGE_SYMLINK);
	change_data(k, ino, 0, target, len);
	return change_commit(k);
}

void keys_restore_next_ino(struct keys *k, uint64_t next_ino)
{
	struct store_counts *counts = store_counts(k->store);

	counts->next_ino = max_u64(counts->next_ino, next_ino);
}
