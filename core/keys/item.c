/* SPDX-License-Identifier: MIT
 *
 * item: see item.h.
 */
#include "core/keys/item.h"

#include <sys/stat.h>

enum {
	I_MODE = 0, I_NLINK = 4, I_UID = 8, I_GID = 12, I_SIZE = 16, I_AUX = 24, I_BLOCKS = 32, I_FLAGS = 40,
	I_NSEC = 48, I_SEC = 64,
};
enum { X_BLOCK = 0, X_GEN = 8, X_COUNT = 16, X_FLAGS = 18 };

/* A directory's parent, a device's number; of all others the same place has a hint at where they are. */
static bool has_aux(uint32_t mode)
{
	return S_ISDIR(mode) || S_ISCHR(mode) || S_ISBLK(mode);
}

void inode_encode(uint8_t *p, const struct keys_attr *a)
{
	const struct keys_time *t[4] = { &a->atime, &a->mtime, &a->ctime, &a->btime };
	int i;

	memset(p, 0, INODE_SIZE);
	put_le32(p + I_MODE, a->mode);
	put_le32(p + I_NLINK, a->nlink);
	put_le32(p + I_UID, a->uid);
	put_le32(p + I_GID, a->gid);
	put_le64(p + I_SIZE, a->size);
	put_le64(p + I_AUX, has_aux(a->mode) ? a->aux : a->where);
	put_le64(p + I_BLOCKS, a->blocks);
	put_le32(p + I_FLAGS, a->flags);
	for (i = 0; i < 4; i++) {
		put_le32(p + I_NSEC + i * 4, t[i]->nsec);
		put_le64(p + I_SEC + i * 8, (uint64_t)t[i]->sec);
	}
}

int inode_decode(const uint8_t *p, uint32_t len, uint64_t ino, struct keys_attr *a)
{
	struct keys_time *t[4] = { &a->atime, &a->mtime, &a->ctime, &a->btime };
	int i;

	if (len < INODE_SIZE)
		return err_corrupt("inode %llu: %u bytes", (unsigned long long)ino, len);
	a->ino = ino;
	a->mode = get_le32(p + I_MODE);
	a->nlink = get_le32(p + I_NLINK);
	a->uid = get_le32(p + I_UID);
	a->gid = get_le32(p + I_GID);
	a->size = get_le64(p + I_SIZE);
	a->aux = has_aux(a->mode) ? get_le64(p + I_AUX) : 0;
	a->where = has_aux(a->mode) ? 0 : get_le64(p + I_AUX);
	a->blocks = get_le64(p + I_BLOCKS);
	a->flags = get_le32(p + I_FLAGS);
	a->inline_len = len - INODE_SIZE;
	for (i = 0; i < 4; i++) {
		t[i]->nsec = get_le32(p + I_NSEC + i * 4);
		t[i]->sec = (int64_t)get_le64(p + I_SEC + i * 8);
		if (t[i]->nsec >= 1000000000u)
			return err_corrupt("inode %llu: impossible time", (unsigned long long)ino);
	}
	switch (a->mode & S_IFMT) {
	case S_IFREG: case S_IFDIR: case S_IFLNK: case S_IFCHR: case S_IFBLK: case S_IFIFO: case S_IFSOCK:
		break;
	default:
		return err_corrupt("inode %llu: impossible mode 0%o", (unsigned long long)ino, a->mode);
	}
	if (a->mode & ~(uint32_t)(S_IFMT | 07777) || a->size > KEYS_SIZE_MAX ||
	    (len > INODE_SIZE && !(a->flags & KEYS_ATTR_INLINE)) || len > INODE_SIZE + INLINE_MAX ||
	    (S_ISLNK(a->mode) && a->size > KEYS_SYMLINK_MAX))
		return err_corrupt("inode %llu: impossible fields", (unsigned long long)ino);
	return 0;
}

void extent_encode(uint8_t *p, const struct extent *e)
{
	memset(p, 0, EXTENT_HEADER);
	put_le64(p + X_BLOCK, e->block);
	put_le64(p + X_GEN, e->gen);
	put_le16(p + X_COUNT, (uint16_t)e->count);
	put_le16(p + X_FLAGS, (uint16_t)e->flags);
	if (!(e->flags & EXTENT_UNWRITTEN))
		memcpy(p + EXTENT_HEADER, e->csums, 4 * e->count);
}

int extent_decode(const uint8_t *p, uint32_t len, struct key k, struct extent *e)
{
	if (len < EXTENT_HEADER)
		return err_corrupt("inode %llu: extent of %u bytes", (unsigned long long)(k.hi >> 8), len);
	e->fblock = k.lo;
	e->block = get_le64(p + X_BLOCK);
	e->gen = get_le64(p + X_GEN);
	e->count = get_le16(p + X_COUNT);
	e->flags = get_le16(p + X_FLAGS);
	if (e->count == 0 || e->flags > EXTENT_PRIVATE ||       /* never both */
	    e->fblock > (KEYS_SIZE_MAX >> BLOCK_SHIFT) - e->count + 1 ||
	    (!(e->flags & EXTENT_UNWRITTEN) && e->count > EXT_COUNT_MAX) ||
	    len != extent_item_len(e->count, e->flags))
		return err_corrupt("inode %llu: impossible extent at block %llu", (unsigned long long)(k.hi >> 8),
				   (unsigned long long)k.lo);
	if (!(e->flags & EXTENT_UNWRITTEN))
		memcpy(e->csums, p + EXTENT_HEADER, 4 * e->count);
	return 0;
}

int dirent_decode(const uint8_t *p, uint32_t len, struct key k, struct dirent *d)
{
	d->key = k;
	if (len <= DIRENT_HEADER || len > DIRENT_HEADER + KEYS_NAME_MAX)
		return err_corrupt("directory %llu: entry of %u bytes", (unsigned long long)(k.hi >> 8), len);
	d->ino = get_le64(p);
	d->type = (uint32_t)p[8] << 12;
	d->name = (const char *)p + DIRENT_HEADER;
	d->len = len - DIRENT_HEADER;
	if (name_check(d->name, d->len) < 0 || d->ino == 0 || d->ino >= INO_MAX)
		return err_corrupt("directory %llu: impossible entry", (unsigned long long)(k.hi >> 8));
	return 0;
}

void dirent_encode(uint8_t *p, uint64_t ino, uint32_t mode, const char *name, size_t len)
{
	put_le64(p, ino);
	p[8] = (uint8_t)((mode & S_IFMT) >> 12);
	memcpy(p + DIRENT_HEADER, name, len);
}

void history_encode(uint8_t *p, const struct keys_epoch *e)
{
	put_le64(p, e->first_seq);
	put_le64(p + 8, e->nonce);
	memcpy(p + 16, e->uuid, 16);
	put_le64(p + 32, e->next_ino);
}

int history_decode(const uint8_t *p, uint32_t len, uint64_t epoch, struct keys_epoch *e)
{
	if (len != HISTORY_SIZE)
		return err_corrupt("the item of epoch %llu has %u bytes", (unsigned long long)epoch, len);
	e->epoch = epoch;
	e->first_seq = get_le64(p);
	e->nonce = get_le64(p + 8);
	memcpy(e->uuid, p + 16, 16);
	e->next_ino = get_le64(p + 32);
	if (epoch == 0 || e->first_seq == 0 || e->first_seq >= 1ull << 62 || e->next_ino >= INO_MAX)
		return err_corrupt("the item of epoch %llu holds impossible numbers", (unsigned long long)epoch);
	return 0;
}

int orphan_decode(const uint8_t *p, uint32_t len, uint64_t ino, bool *ret_marked)
{
	if (len > 1 || (len == 1 && p[0] != ORPHAN_MARK))
		return err_corrupt("orphan item of inode %llu is damaged", (unsigned long long)ino);
	*ret_marked = len == 1;
	return 0;
}

int name_check(const char *name, size_t len)
{
	if (len > KEYS_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0 || memchr(name, '/', len) || memchr(name, '\0', len))
		return -EINVAL;
	if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
		return -EEXIST;
	return 0;
}
