/* SPDX-License-Identifier: MIT
 *
 * rules: what may stand in a stream, and in which order. Keeps no list of anything, so it needs no memory that grows:
 * that every entry leads to an inode, that every inode has as many entries as its link count says, and that each
 * directory has one entry, in the directory that it calls its parent, is checked as a sum. Each entry adds a hash of what
 * it leads to, each inode takes away the same hash as often as it must have been added: what is left must be 0. The seed
 * of the hash is random and never leaves this process, so that nobody can write a stream whose wrongs cancel out.
 */
#include "core/stream/stream_int.h"

#include <sys/stat.h>

#define INO_FIRST 16u           /* 2 to 15 are reserved */

void rules_init(struct rules *u, uint64_t seed, struct stream_counts *counts)
{
	memset(u, 0, sizeof *u);
	u->seed = seed;
	u->counts = counts;
}

/* A link to ino; parent: of a directory the directory that it is in, else 0. */
static uint64_t link_hash(const struct rules *u, uint64_t ino, uint32_t type, uint64_t parent)
{
	uint8_t b[24];

	put_le64(b, ino);
	put_le64(b + 8, type);
	put_le64(b + 16, parent);
	return hash64(b, sizeof b, u->seed);
}

static int bad_inode(uint64_t ino, const char *what)
{
	return err_corrupt("inode %llu: %s", (unsigned long long)ino, what);
}

/* All items of the inode have come. */
static int inode_done(const struct rules *u)
{
	const struct keys_attr *a = &u->a;

	if (S_ISDIR(a->mode) && u->entries != a->size)
		return err_corrupt("directory %llu: has %llu entries, but says %llu", (unsigned long long)a->ino,
				   (unsigned long long)u->entries, (unsigned long long)a->size);
	if (S_ISDIR(a->mode) && u->subdirs + 2 != a->nlink)
		return err_corrupt("directory %llu: has %llu directories, but a link count of %u",
				   (unsigned long long)a->ino, (unsigned long long)u->subdirs, a->nlink);
	if (S_ISLNK(a->mode) && (a->flags & KEYS_ATTR_INLINE ? u->inline_len : u->data) != a->size)
		return bad_inode(a->ino, "the symbolic link is shorter than it says");
	return 0;
}

static int check_attr(const struct keys_attr *a, uint32_t inline_len)
{
	const struct keys_time *t[4] = { &a->atime, &a->mtime, &a->ctime, &a->btime };
	bool holds = S_ISREG(a->mode) || S_ISLNK(a->mode);
	int i;

	switch (a->mode & S_IFMT) {
	case S_IFREG: case S_IFDIR: case S_IFLNK: case S_IFCHR: case S_IFBLK: case S_IFIFO: case S_IFSOCK:
		break;
	default:
		return bad_inode(a->ino, "impossible type");
	}
	for (i = 0; i < 4; i++)
		if (t[i]->nsec >= 1000000000u)
			return bad_inode(a->ino, "impossible time");
	if (a->mode & ~(uint32_t)(S_IFMT | 07777))
		return bad_inode(a->ino, "impossible mode");
	if (a->nlink == 0 || a->nlink > KEYS_LINK_MAX)
		return bad_inode(a->ino, "impossible link count");
	if (a->size > KEYS_SIZE_MAX || (a->size > 0 && !holds && !S_ISDIR(a->mode)) ||
	    (S_ISLNK(a->mode) && (a->size == 0 || a->size > KEYS_SYMLINK_MAX)))
		return bad_inode(a->ino, "impossible size");
	if (a->flags & ~KEYS_ATTR_INLINE || (a->flags && !holds) || (!a->flags && inline_len > 0) ||
	    inline_len > INLINE_MAX || inline_len > a->size)
		return bad_inode(a->ino, "impossible contents");
	return 0;
}

int rules_inode(struct rules *u, const struct keys_attr *a, uint32_t inline_len)
{
	bool dir = S_ISDIR(a->mode), root = a->ino == KEYS_ROOT_INO;
	int r = u->a.ino > 0 ? inode_done(u) : 0;

	if (r < 0)
		return r;
	if (a->ino <= u->a.ino || a->ino >= INO_MAX - 1 || (a->ino < INO_FIRST && !root))
		return bad_inode(a->ino, "impossible number here");
	if (root ? !dir || a->aux != KEYS_ROOT_INO : u->a.ino == 0)
		return err_corrupt("there is no root directory");
	if (dir && (a->aux == 0 || a->aux >= INO_MAX))
		return bad_inode(a->ino, "impossible parent");
	r = check_attr(a, inline_len);
	if (r < 0)
		return r;
	if (!dir)
		u->links -= a->nlink * link_hash(u, a->ino, a->mode & S_IFMT, 0);
	else if (!root)
		u->links -= link_hash(u, a->ino, S_IFDIR, a->aux);
	if (dir && !root && a->aux >= a->ino)
		u->uphill++;
	u->a = *a;
	u->inline_len = inline_len;
	u->stage = STREAM_INODE;
	u->entries = u->subdirs = u->data = u->at = 0;
	u->counts->inodes++;
	u->counts->data_bytes += inline_len;
	return 0;
}

/* Names ascend; each stage has its own. */
static int next_name(struct rules *u, enum stream_kind stage, const uint8_t *name, uint32_t len)
{
	int order = 1;

	if (u->a.ino == 0 || u->stage > stage || len == 0 || len > 255 || memchr(name, '\0', len))
		return bad_inode(u->a.ino, "impossible name");
	if (u->stage == stage) {
		order = memcmp(name, u->name, min_u64(len, u->name_len));
		order = order ? order : len > u->name_len ? 1 : -1;
	}
	if (order < 0)
		return bad_inode(u->a.ino, "names are not in order, or one comes twice");
	memcpy(u->name, name, len);
	u->name_len = len;
	u->stage = stage;
	return 0;
}

int rules_xattr(struct rules *u, const uint8_t *name, uint32_t len, uint32_t value_len)
{
	int r = next_name(u, STREAM_XATTR, name, len);

	if (r < 0)
		return r;
	if (value_len > KEYS_XATTR_MAX)
		return bad_inode(u->a.ino, "an extended attribute is too long");
	u->counts->xattrs++;
	return 0;
}

int rules_entry(struct rules *u, const uint8_t *name, uint32_t len, uint64_t ino, uint32_t type)
{
	int r = next_name(u, STREAM_ENTRY, name, len);

	if (r < 0)
		return r;
	if (!S_ISDIR(u->a.mode) || name_check((const char *)name, len) < 0 || ino == 0 || ino >= INO_MAX)
		return bad_inode(u->a.ino, "impossible directory entry");
	u->links += link_hash(u, ino, type, type == S_IFDIR ? u->a.ino : 0);
	u->entries++;
	u->subdirs += type == S_IFDIR;
	u->counts->entries++;
	return 0;
}

static int next_range(struct rules *u, enum stream_kind kind, uint64_t off)
{
	if (u->a.ino == 0 || u->a.flags & KEYS_ATTR_INLINE || off % BLOCK_SIZE != 0 || off < u->at)
		return bad_inode(u->a.ino, "contents are not in order");
	u->stage = kind;
	return 0;
}

int rules_data(struct rules *u, uint64_t off, uint64_t len)
{
	int r = next_range(u, STREAM_DATA, off);

	if (r < 0)
		return r;
	if ((!S_ISREG(u->a.mode) && !S_ISLNK(u->a.mode)) || len == 0 || off >= u->a.size || len > u->a.size - off ||
	    off / CHUNK_BYTES != (off + len - 1) / CHUNK_BYTES || (len % BLOCK_SIZE != 0 && off + len != u->a.size))
		return bad_inode(u->a.ino, "impossible contents");
	u->at = align_up(off + len, BLOCK_SIZE);
	u->data += len;
	u->counts->data_bytes += len;
	return 0;
}

int rules_unwritten(struct rules *u, uint64_t off, uint64_t len)
{
	int r = next_range(u, STREAM_UNWRITTEN, off);

	if (r < 0)
		return r;
	if (!S_ISREG(u->a.mode) || len == 0 || len % BLOCK_SIZE != 0 || off > KEYS_SIZE_MAX ||
	    len > KEYS_SIZE_MAX + 1 - off)
		return bad_inode(u->a.ino, "impossible allocation");
	u->at = off + len;
	u->counts->unwritten_bytes += len;
	return 0;
}

int rules_end(struct rules *u, uint64_t next_ino)
{
	int r = u->a.ino > 0 ? inode_done(u) : err_corrupt("there is no root directory");

	if (r < 0)
		return r;
	if (next_ino < INO_FIRST || next_ino <= u->a.ino || next_ino >= INO_MAX)
		return err_corrupt("impossible next inode number");
	if (u->links != 0)
		return err_corrupt("directory entries and link counts do not fit each other");
	return 0;
}
