/* SPDX-License-Identifier: MIT
 *
 * limit: the least a FUSE file system can do. A server that keeps files in plain memory, with the request loop and
 * the protocol choices of the msyncfs daemon and nothing behind them: what is slow here is FUSE itself. A peer for
 * run.sh, not a file system to keep anything in: no hard links, symlinks, xattrs or locks.
 *
 * Threading: one thread does everything. Durability: none; fsync is answered at once.
 *
 * usage: limit [--poll-us=N] [--no-permissions] [--xattrs] MOUNTPOINT   stays in the foreground until it is unmounted
 *   --poll-us=N       after a request, look for the next one for N microseconds before sleeping (default 0)
 *   --no-permissions  without default_permissions, which costs a GETATTR of the directory after each change in it
 *   --xattrs          as a file system that has xattrs (none is ever set), which costs a GETXATTR of security.capability
 *                     before the first write after each refresh of an inode's attributes
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define CHUNK_SIZE    65536u
#define REGION_SIZE   (2u << 20)        /* chunks are mapped and populated this much at a time */
#define INLINE_SIZE   256u              /* contents up to here live in the node */
#define WRITE_MAX     (1u << 20)
#define READ_IOV_MAX  (WRITE_MAX / CHUNK_SIZE + 2)
#define FILE_SIZE_MAX (1ll << 40)
#define NAME_LEN_MAX  255u
#define BUCKETS_MIN   1024u
#define FOREVER_S     1e9               /* entries and attributes change through us only */

/* A file or directory. Numbers given to the kernel are addresses of nodes, except FUSE_ROOT_ID.
 * Bytes of contents behind `size` are zero; a NULL chunk is a hole. */
struct node {
	struct node *parent;            /* NULL once unlinked */
	struct node *hash_next;
	struct node *prev, *next;       /* in the parent, in order of their cookies */
	struct node *first, *last;      /* children */
	struct node *resume;            /* child where the last readdir stopped */
	uint64_t cookie;                /* position in the parent */
	uint64_t next_cookie;           /* for the next child */
	uint64_t lookups;
	struct stat attr;
	uint32_t hash;
	uint32_t name_len;
	char *name;
	uint8_t **chunks;               /* NULL: contents are in `small` */
	size_t chunk_count;
	uint8_t small[INLINE_SIZE];
};

static struct {
	struct node root;
	struct node **buckets;
	size_t bucket_count;
	size_t node_count;
	void *free_chunks;              /* a list through the first word of each */
	uint64_t chunks_used;
	long poll_us;
	bool no_permissions, xattrs;
	bool init_seen, init_patched, killpriv_v2;
} fs;

static uint8_t zero_chunk[CHUNK_SIZE];

/* Contents ------------------------------------------------------------------------------------------------------- */
/* A chunk with undefined bytes. Regions are populated when they are mapped, so no request pays page by page. */
static uint8_t *chunk_get(void)
{
	uint8_t *region, *c;
	size_t off;

	if (!fs.free_chunks) {
		region = mmap(NULL, REGION_SIZE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (region == MAP_FAILED)
			return NULL;
		for (off = REGION_SIZE; off > 0; off -= CHUNK_SIZE) {
			c = region + off - CHUNK_SIZE;
			*(void **)c = fs.free_chunks;
			fs.free_chunks = c;
		}
	}
	c = fs.free_chunks;
	fs.free_chunks = *(void **)c;
	fs.chunks_used++;
	return c;
}

static void chunk_put(uint8_t *c)
{
	if (!c)
		return;
	*(void **)c = fs.free_chunks;
	fs.free_chunks = c;
	fs.chunks_used--;
}

static int chunks_reserve(struct node *n, size_t count)
{
	size_t want = n->chunk_count ? n->chunk_count : 4;
	uint8_t **chunks;

	if (count <= n->chunk_count)
		return 0;
	while (want < count)
		want *= 2;
	chunks = realloc(n->chunks, want * sizeof *chunks);
	if (!chunks)
		return -ENOMEM;
	memset(chunks + n->chunk_count, 0, (want - n->chunk_count) * sizeof *chunks);
	n->chunks = chunks;
	n->chunk_count = want;
	return 0;
}

/* Move contents out of the node. */
static int node_spill(struct node *n)
{
	uint8_t *c;
	int r;

	r = chunks_reserve(n, 1);
	if (r < 0 || n->attr.st_size == 0)
		return r;
	c = chunk_get();
	if (!c)
		return -ENOMEM;
	memcpy(c, n->small, INLINE_SIZE);
	memset(c + INLINE_SIZE, 0, CHUNK_SIZE - INLINE_SIZE);
	n->chunks[0] = c;
	return 0;
}

/* Copy into one chunk, which is taken if it was a hole; what is not written of a fresh one is zeroed. */
static int chunk_write(uint8_t **slot, size_t off, const void *data, size_t len)
{
	if (!*slot) {
		*slot = chunk_get();
		if (!*slot)
			return -ENOMEM;
		memset(*slot, 0, off);
		memset(*slot + off + len, 0, CHUNK_SIZE - off - len);
	}
	memcpy(*slot + off, data, len);
	return 0;
}

static int node_write(struct node *n, uint64_t off, const uint8_t *data, size_t len)
{
	uint64_t end = off + len;
	size_t in_chunk, part;
	int r;

	if (end > FILE_SIZE_MAX)
		return -EFBIG;
	if (!n->chunks && end <= INLINE_SIZE) {
		memcpy(n->small + off, data, len);
	} else {
		r = n->chunks ? 0 : node_spill(n);
		if (r == 0)
			r = chunks_reserve(n, (end + CHUNK_SIZE - 1) / CHUNK_SIZE);
		for (; r == 0 && len > 0; off += part, data += part, len -= part) {
			in_chunk = off % CHUNK_SIZE;
			part = len < CHUNK_SIZE - in_chunk ? len : CHUNK_SIZE - in_chunk;
			r = chunk_write(&n->chunks[off / CHUNK_SIZE], in_chunk, data, part);
		}
		if (r < 0)
			return r;
	}
	if ((uint64_t)n->attr.st_size < end)
		n->attr.st_size = (off_t)end;
	return 0;
}

static void node_drop_contents(struct node *n)
{
	size_t i;

	for (i = 0; i < n->chunk_count; i++)
		chunk_put(n->chunks[i]);
	free(n->chunks);
	n->chunks = NULL;
	n->chunk_count = 0;
}

static int node_truncate(struct node *n, uint64_t size)
{
	size_t i, keep = (size + CHUNK_SIZE - 1) / CHUNK_SIZE;
	int r;

	if (size > FILE_SIZE_MAX)
		return -EFBIG;
	if (size == 0) {
		node_drop_contents(n);
		memset(n->small, 0, INLINE_SIZE);
	} else if (n->chunks) {
		for (i = keep; i < n->chunk_count; i++) {
			chunk_put(n->chunks[i]);
			n->chunks[i] = NULL;
		}
		if (size % CHUNK_SIZE && keep <= n->chunk_count && n->chunks[keep - 1])
			memset(n->chunks[keep - 1] + size % CHUNK_SIZE, 0, CHUNK_SIZE - size % CHUNK_SIZE);
	} else if (size > INLINE_SIZE) {
		r = node_spill(n);
		if (r < 0)
			return r;
	} else {
		memset(n->small + size, 0, INLINE_SIZE - size);
	}
	n->attr.st_size = (off_t)size;
	return 0;
}

/* Pieces of [off, off + len), which is inside the file. */
static int node_pieces(struct node *n, uint64_t off, size_t len, struct iovec *iov)
{
	size_t in_chunk, part, idx;
	int count = 0;

	if (!n->chunks) {
		iov[0] = (struct iovec){ n->small + off, len };
		return 1;
	}
	for (; len > 0 && count < (int)READ_IOV_MAX; off += part, len -= part, count++) {
		idx = off / CHUNK_SIZE;
		in_chunk = off % CHUNK_SIZE;
		part = len < CHUNK_SIZE - in_chunk ? len : CHUNK_SIZE - in_chunk;
		iov[count].iov_base = (idx < n->chunk_count && n->chunks[idx] ? n->chunks[idx] : zero_chunk)
				      + in_chunk;
		iov[count].iov_len = part;
	}
	return count;
}

/* Names ---------------------------------------------------------------------------------------------------------- */
static uint32_t name_hash(const struct node *dir, const char *name, size_t len)
{
	uint64_t h = 0xcbf29ce484222325u ^ (uintptr_t)dir;
	size_t i;

	for (i = 0; i < len; i++)
		h = (h ^ (uint8_t)name[i]) * 0x100000001b3u;
	return (uint32_t)(h ^ h >> 32);
}

static struct node *dir_find(const struct node *dir, const char *name)
{
	size_t len = strlen(name);
	uint32_t hash = name_hash(dir, name, len);
	struct node *n;

	for (n = fs.buckets[hash & (fs.bucket_count - 1)]; n; n = n->hash_next)
		if (n->hash == hash && n->parent == dir && n->name_len == len && !memcmp(n->name, name, len))
			return n;
	return NULL;
}

static int buckets_grow(void)
{
	size_t i, count = fs.bucket_count ? fs.bucket_count * 2 : BUCKETS_MIN;
	struct node **b = calloc(count, sizeof *b), *n, *next;

	if (!b)
		return -ENOMEM;
	for (i = 0; i < fs.bucket_count; i++) {
		for (n = fs.buckets[i]; n; n = next) {
			next = n->hash_next;
			n->hash_next = b[n->hash & (count - 1)];
			b[n->hash & (count - 1)] = n;
		}
	}
	free(fs.buckets);
	fs.buckets = b;
	fs.bucket_count = count;
	return 0;
}

/* Give a node a name; it takes over `name`. */
static void dir_insert(struct node *dir, char *name, struct node *n)
{
	size_t slot;

	n->parent = dir;
	n->name = name;
	n->name_len = (uint32_t)strlen(name);
	n->hash = name_hash(dir, name, n->name_len);
	n->cookie = dir->next_cookie++;
	n->next = NULL;
	n->prev = dir->last;
	if (dir->last)
		dir->last->next = n;
	else
		dir->first = n;
	dir->last = n;
	slot = n->hash & (fs.bucket_count - 1);
	n->hash_next = fs.buckets[slot];
	fs.buckets[slot] = n;
}

static void dir_remove(struct node *n)
{
	struct node *dir = n->parent;
	struct node **p = &fs.buckets[n->hash & (fs.bucket_count - 1)];

	while (*p != n)
		p = &(*p)->hash_next;
	*p = n->hash_next;
	if (dir->resume == n)
		dir->resume = NULL;
	*(n->prev ? &n->prev->next : &dir->first) = n->next;
	*(n->next ? &n->next->prev : &dir->last) = n->prev;
	n->parent = NULL;
	free(n->name);
	n->name = NULL;
}

/* Free a node that has neither a name nor a reference from the kernel. */
static void node_reap(struct node *n)
{
	if (n->parent || n->lookups > 0 || n == &fs.root)
		return;
	node_drop_contents(n);
	free(n);
	fs.node_count--;
}

static void touch(struct node *n, bool modified)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	n->attr.st_ctim = now;
	if (modified)
		n->attr.st_mtim = now;
}

static struct node *node_of(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? &fs.root : (struct node *)ino;
}

static fuse_ino_t ino_of(const struct node *n)
{
	return n == &fs.root ? FUSE_ROOT_ID : (fuse_ino_t)n;
}

/* Requests: names ------------------------------------------------------------------------------------------------ */
static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->want &= ~(unsigned)(FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS |
				  FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_SPLICE_READ |
				  FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	conn->want |= conn->capable & FUSE_CAP_EXPLICIT_INVAL_DATA;
	conn->max_write = WRITE_MAX;
	conn->time_gran = 1;
}

static void reply_node(fuse_req_t req, struct node *n)
{
	struct fuse_entry_param e = {
		.ino = ino_of(n), .attr = n->attr, .attr_timeout = FOREVER_S, .entry_timeout = FOREVER_S,
	};

	n->lookups++;
	(void)fuse_reply_entry(req, &e);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param none = { .entry_timeout = FOREVER_S };
	struct node *n = dir_find(node_of(parent), name);

	if (n)
		reply_node(req, n);
	else
		(void)fuse_reply_entry(req, &none);
}

static void forget_one(fuse_ino_t ino, uint64_t nlookup)
{
	struct node *n = node_of(ino);

	n->lookups -= nlookup < n->lookups ? nlookup : n->lookups;
	node_reap(n);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	forget_one(ino, nlookup);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	size_t i;

	for (i = 0; i < count; i++)
		forget_one(forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static struct node *node_new(fuse_req_t req, mode_t mode, dev_t rdev)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct node *n = calloc(1, sizeof *n);

	if (!n)
		return NULL;
	n->next_cookie = 3;
	n->attr.st_ino = (ino_t)(uintptr_t)n;
	n->attr.st_mode = mode;
	n->attr.st_nlink = S_ISDIR(mode) ? 2 : 1;
	n->attr.st_uid = ctx->uid;
	n->attr.st_gid = ctx->gid;
	n->attr.st_rdev = rdev;
	n->attr.st_blksize = 4096;
	touch(n, true);
	n->attr.st_atim = n->attr.st_mtim;
	fs.node_count++;
	return n;
}

static int make(fuse_req_t req, struct node *dir, const char *name, mode_t mode, dev_t rdev, struct node **ret_node)
{
	struct node *n;
	char *copy;

	if (strlen(name) > NAME_LEN_MAX)
		return ENAMETOOLONG;
	if (dir_find(dir, name))
		return EEXIST;
	if (fs.node_count >= fs.bucket_count && buckets_grow() < 0)
		return ENOMEM;
	copy = strdup(name);
	n = copy ? node_new(req, mode, rdev) : NULL;
	if (!n) {
		free(copy);
		return ENOMEM;
	}
	dir_insert(dir, copy, n);
	if (S_ISDIR(mode))
		dir->attr.st_nlink++;
	touch(dir, true);
	*ret_node = n;
	return 0;
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct node *n = NULL;
	int r = make(req, node_of(parent), name, mode, rdev, &n);

	if (r)
		(void)fuse_reply_err(req, r);
	else
		reply_node(req, n);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	op_mknod(req, parent, name, S_IFDIR | (mode & 07777), 0);
}

/* Take the name off and forget the node if the kernel has. */
static void remove_name(struct node *n)
{
	struct node *dir = n->parent;

	dir_remove(n);
	touch(dir, true);
	if (S_ISDIR(n->attr.st_mode))
		dir->attr.st_nlink--;
	n->attr.st_nlink = 0;
	touch(n, false);
	node_reap(n);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct node *n = dir_find(node_of(parent), name);
	int r = !n ? ENOENT : S_ISDIR(n->attr.st_mode) ? EISDIR : 0;

	if (!r)
		remove_name(n);
	(void)fuse_reply_err(req, r);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct node *n = dir_find(node_of(parent), name);
	int r = !n ? ENOENT : !S_ISDIR(n->attr.st_mode) ? ENOTDIR : n->first ? ENOTEMPTY : 0;

	if (!r)
		remove_name(n);
	(void)fuse_reply_err(req, r);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		      const char *newname, unsigned flags)
{
	struct node *dir = node_of(parent), *newdir = node_of(newparent);
	struct node *n = dir_find(dir, name), *old = dir_find(newdir, newname);
	char *copy = NULL;
	int r;

	r = flags & ~(unsigned)RENAME_NOREPLACE ? EINVAL : !n ? ENOENT :
	    old && (flags & RENAME_NOREPLACE) ? EEXIST : old && old->first ? ENOTEMPTY : 0;
	if (!r && old != n) {
		copy = strdup(newname);
		r = copy ? 0 : ENOMEM;
	}
	if (copy) {
		if (old)
			remove_name(old);
		dir_remove(n);
		dir_insert(newdir, copy, n);
		if (S_ISDIR(n->attr.st_mode)) {
			dir->attr.st_nlink--;
			newdir->attr.st_nlink++;
		}
		touch(n, false);
		touch(dir, true);
		touch(newdir, true);
	}
	(void)fuse_reply_err(req, r);
}

/* Add one entry; false if the buffer is full. */
static bool add_entry(fuse_req_t req, char *buf, size_t size, size_t *used, const char *name, const struct stat *st,
		      uint64_t next)
{
	size_t need = fuse_add_direntry(req, buf + *used, size - *used, name, st, (off_t)next);

	if (need > size - *used)
		return false;
	*used += need;
	return true;
}

/* Cookies: 1 is behind ".", 2 behind "..", then each child's own. */
static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct node *dir = node_of(ino), *n;
	uint64_t from = (uint64_t)off;
	bool room = true;
	size_t used = 0;
	char *buf;

	(void)fi;
	buf = malloc(size);
	if (!buf) {
		(void)fuse_reply_err(req, ENOMEM);
		return;
	}
	if (from < 1)
		room = add_entry(req, buf, size, &used, ".", &dir->attr, 1);
	if (from < 2)
		room = room && add_entry(req, buf, size, &used, "..", &fs.root.attr, 2);
	n = dir->resume && dir->resume->cookie <= from ? dir->resume : dir->first;
	while (n && n->cookie <= from)
		n = n->next;
	for (; n && room; n = n->next) {
		room = add_entry(req, buf, size, &used, n->name, &n->attr, n->cookie);
		if (room)
			dir->resume = n;
	}
	(void)fuse_reply_buf(req, buf, used);
	free(buf);
}

/* Requests: contents and attributes ------------------------------------------------------------------------------ */
static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	(void)fuse_reply_attr(req, &node_of(ino)->attr, FOREVER_S);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);
	struct timespec now;
	int r = 0;

	(void)fi;
	if (to_set & FUSE_SET_ATTR_SIZE)
		r = node_truncate(n, (uint64_t)attr->st_size);
	if (r < 0) {
		(void)fuse_reply_err(req, -r);
		return;
	}
	touch(n, to_set & FUSE_SET_ATTR_SIZE);
	now = n->attr.st_ctim;
	if (to_set & FUSE_SET_ATTR_MODE)
		n->attr.st_mode = (n->attr.st_mode & S_IFMT) | (attr->st_mode & 07777);
	if (to_set & FUSE_SET_ATTR_UID)
		n->attr.st_uid = attr->st_uid;
	if (to_set & FUSE_SET_ATTR_GID)
		n->attr.st_gid = attr->st_gid;
	if (to_set & FUSE_SET_ATTR_ATIME)
		n->attr.st_atim = attr->st_atim;
	if (to_set & FUSE_SET_ATTR_MTIME)
		n->attr.st_mtim = attr->st_mtim;
	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		n->attr.st_atim = now;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		n->attr.st_mtim = now;
	(void)fuse_reply_attr(req, &n->attr, FOREVER_S);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);
	struct iovec iov[READ_IOV_MAX];

	(void)fi;
	if (off >= n->attr.st_size) {
		(void)fuse_reply_buf(req, NULL, 0);
		return;
	}
	if (size > (uint64_t)(n->attr.st_size - off))
		size = (size_t)(n->attr.st_size - off);
	(void)fuse_reply_iov(req, iov, node_pieces(n, (uint64_t)off, size, iov));
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);
	int r = node_write(n, (uint64_t)off, (const uint8_t *)data, size);

	(void)fi;
	if (r < 0) {
		(void)fuse_reply_err(req, -r);
		return;
	}
	touch(n, true);
	(void)fuse_reply_write(req, size);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino, (void)datasync, (void)fi;
	(void)fuse_reply_err(req, 0);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	uint64_t used = fs.chunks_used * (CHUNK_SIZE / 4096), total = 1u << 24;
	struct statvfs st = {
		.f_bsize = 4096, .f_frsize = 4096, .f_blocks = total, .f_bfree = total - used,
		.f_bavail = total - used, .f_files = total, .f_ffree = total - fs.node_count, .f_namemax = NAME_LEN_MAX,
	};

	(void)ino;
	(void)fuse_reply_statfs(req, &st);
}

/* Refusing these once makes the kernel do without them: no OPEN, OPENDIR or FLUSH ever again, MKNOD for CREATE. */
static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino, (void)fi;
	(void)fuse_reply_err(req, ENOSYS);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	(void)parent, (void)name, (void)mode, (void)fi;
	(void)fuse_reply_err(req, ENOSYS);
}

/* ENOSYS makes the kernel never ask again. */
static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	(void)ino, (void)name, (void)size;
	(void)fuse_reply_err(req, fs.xattrs ? ENODATA : ENOSYS);
}

static const struct fuse_lowlevel_ops ops = {
	.init = op_init, .lookup = op_lookup, .forget = op_forget, .forget_multi = op_forget_multi,
	.getattr = op_getattr, .setattr = op_setattr, .mknod = op_mknod, .mkdir = op_mkdir, .unlink = op_unlink,
	.rmdir = op_rmdir, .rename = op_rename, .read = op_read, .write = op_write, .readdir = op_readdir,
	.statfs = op_statfs, .fsync = op_fsync, .fsyncdir = op_fsync,
	.open = op_open, .opendir = op_open, .flush = op_open, .create = op_create,
	.getxattr = op_getxattr,
};

/* The loop ------------------------------------------------------------------------------------------------------- */
static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

/* Read the device; with --poll-us it is non-blocking and asked again for a while before we sleep. */
static ssize_t device_read(int fd, void *buf, size_t len, void *userdata)
{
	const struct fuse_in_header *head = buf;
	const struct fuse_init_in *init = (const void *)(head + 1);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t until = 0;
	ssize_t got;

	(void)userdata;
	for (;;) {
		got = read(fd, buf, len);
		if (got >= 0 || errno != EAGAIN)
			break;
		if (!until)
			until = now_us() + (uint64_t)fs.poll_us;
		else if (now_us() >= until && poll(&p, 1, -1) < 0)
			return -1;
	}
	if (got >= (ssize_t)(sizeof *head + sizeof *init) && !fs.init_seen && head->opcode == FUSE_INIT) {
		fs.init_seen = true;
		fs.killpriv_v2 = init->flags & FUSE_HANDLE_KILLPRIV_V2;
	}
	return got;
}

/* libfuse 3.14 has no name for HANDLE_KILLPRIV_V2, without which the kernel asks for security.capability before each
 * write: set it in the answer to INIT, the first answer that has a body. */
static ssize_t device_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct fuse_init_out *out;

	(void)userdata;
	if (!fs.init_patched && fs.init_seen) {
		if (fs.killpriv_v2 && count == 2 && iov[1].iov_len >= offsetof(struct fuse_init_out, flags2)) {
			out = iov[1].iov_base;
			out->flags |= FUSE_HANDLE_KILLPRIV_V2;
		}
		fs.init_patched = true;
	}
	return writev(fd, iov, count);
}

static const struct fuse_custom_io device_io = { .read = device_read, .writev = device_writev };

static int serve(struct fuse_session *se)
{
	struct fuse_buf buf = { .mem = NULL };
	int r = 0;

	while (!fuse_session_exited(se)) {
		r = fuse_session_receive_buf(se, &buf);
		if (r == -EINTR)
			continue;
		if (r <= 0)
			break;
		fuse_session_process_buf(se, &buf);
	}
	free(buf.mem);
	return r < 0 && r != -ENODEV ? r : 0;
}

static int mount_and_serve(const char *mountpoint)
{
	const char *words = fs.no_permissions ? "-ofsname=limit,subtype=limit" :
			    "-ofsname=limit,subtype=limit,default_permissions";
	char *argv[] = { (char *)"limit", (char *)words, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(2, argv);
	struct fuse_session *se = fuse_session_new(&args, &ops, sizeof ops, NULL);
	int fd, r = -EIO;

	if (!se)
		goto out;
	if (fuse_set_signal_handlers(se) != 0 || fuse_session_mount(se, mountpoint) != 0)
		goto out;
	fd = fuse_session_fd(se);
	r = fuse_session_custom_io(se, &device_io, fd);
	if (r == 0 && fs.poll_us > 0)
		r = fcntl(fd, F_SETFL, O_NONBLOCK | fcntl(fd, F_GETFL)) < 0 ? -errno : 0;
	if (r == 0)
		r = serve(se);
	fuse_session_unmount(se);
out:
	if (se) {
		fuse_remove_signal_handlers(se);
		fuse_session_destroy(se);
	}
	fuse_opt_free_args(&args);
	return r;
}

int main(int argc, char **argv)
{
	int r, arg = 1;

	for (; arg < argc && argv[arg][0] == '-'; arg++) {
		if (!strncmp(argv[arg], "--poll-us=", 10))
			fs.poll_us = atol(argv[arg] + 10);
		else if (!strcmp(argv[arg], "--no-permissions"))
			fs.no_permissions = true;
		else if (!strcmp(argv[arg], "--xattrs"))
			fs.xattrs = true;
		else
			break;
	}
	if (argc != arg + 1 || argv[arg][0] == '-') {
		fprintf(stderr, "usage: limit [--poll-us=N] [--no-permissions] [--xattrs] MOUNTPOINT\n");
		return 2;
	}
	fs.root.attr = (struct stat){
		.st_ino = FUSE_ROOT_ID, .st_mode = S_IFDIR | 0755, .st_nlink = 2, .st_uid = getuid(),
		.st_gid = getgid(), .st_blksize = 4096,
	};
	fs.root.next_cookie = 3;
	touch(&fs.root, true);
	r = buckets_grow();
	if (r == 0)
		r = mount_and_serve(argv[arg]);
	if (r < 0)
		fprintf(stderr, "limit: %s: %s\n", argv[arg], strerror(-r));
	return r < 0;
}
