/* SPDX-License-Identifier: MIT
 *
 * load: what a worker does with its directory, and what the directory must then be. Each operation is one system call of
 * those that change something, and one request to the daemon; so when the daemon dies it has happened or it has not. It is
 * written down before it begins, and applied to the model after it returned. Both lie in memory that outlives the worker.
 *
 * Paths are relative to the worker's directory, which it holds open: it goes on when the mount is taken out of the tree.
 */
#include "tests/kill/kill.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum op_kind {
	OP_CREATE, OP_WRITE, OP_APPEND, OP_TRUNCATE, OP_RENAME, OP_EXCHANGE, OP_LINK, OP_UNLINK, OP_SYMLINK, OP_MKDIR, OP_RMDIR,
	OP_MOVEDIR, OP_CHMOD, OP_UTIMES, OP_SETXATTR, OP_RMXATTR, OP_FSYNC, OP_MMAP, OP_ALLOCATE, OP_PUNCH, OP_COPY, OP_READ,
	OPS,
};

static const char *const op_names[OPS] = {
	"create", "write", "append", "truncate", "rename", "exchange", "link", "unlink", "symlink", "mkdir", "rmdir", "movedir",
	"chmod", "utimes", "setxattr", "rmxattr", "fsync", "mmap", "allocate", "punch", "copy", "read",
};

/* How often each is tried. */
static const unsigned op_weights[OPS] = { 16, 20, 12, 6, 14, 2, 4, 8, 2, 3, 2, 1, 3, 2, 4, 2, 2, 4, 2, 3, 3, 6 };

enum { PAGE = 4096, BALLOON = 40 << 20, STUFFED_STORE = 280 << 20 };

uint64_t random_next(uint64_t *rng)
{
	uint64_t z = *rng += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

unsigned random_below(uint64_t *rng, unsigned n)
{
	return n == 0 ? 0 : (unsigned)((random_next(rng) >> 32) * n >> 32);
}

void load_op_text(const struct op *op, char *text, size_t size)
{
	(void)snprintf(text, size, "%s %d/%d %d/%d off=%u off2=%u len=%u version=%u", op_names[op->kind], op->dir, op->name,
		       op->dir2, op->name2, op->off, op->off2, op->len, op->version);
}

static void fill(uint8_t *p, unsigned len, unsigned version)
{
	uint64_t x = (uint64_t)version * 0x9e3779b97f4a7c15u | 1;
	unsigned i;

	for (i = 0; i < len; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		p[i] = (uint8_t)(x >> 56);
	}
}

/* ---- The model ---- */

void load_init(struct worker *w, uint64_t seed)
{
	int d, n;

	memset(w, 0, sizeof *w);
	w->rng = seed;
	w->world.dir[0] = true;
	for (d = 0; d < DIRS; d++)
		for (n = 0; n < NAMES; n++)
			w->world.name[d][n] = -1;
}

static struct inode *inode_of(struct world *s, int dir, int name)
{
	return &s->inode[s->name[dir][name]];
}

static int new_inode(struct world *s)
{
	int i;

	for (i = 0; i < INODES; i++)
		if (!s->inode[i].used)
			break;
	if (i == INODES)
		abort();        /* there are as many as names */
	memset(&s->inode[i], 0, offsetof(struct inode, data));
	s->inode[i].used = true;
	s->inode[i].nlink = 1;
	return i;
}

static void drop(struct world *s, int i)
{
	if (i >= 0 && --s->inode[i].nlink == 0)
		s->inode[i].used = false;
}

static void put(struct inode *f, unsigned off, unsigned len)
{
	if (off > f->size)
		memset(f->data + f->size, 0, off - f->size);
	if (off + len > f->size)
		f->size = off + len;
	f->mtime_s = 0;
}

static void set_size(struct inode *f, unsigned size)
{
	if (size > f->size)
		memset(f->data + f->size, 0, size - f->size);
	f->size = size;
	f->mtime_s = 0;
}

static void apply_data(struct world *s, const struct op *op, struct inode *f)
{
	unsigned end;

	switch (op->kind) {
	case OP_WRITE: case OP_APPEND: case OP_MMAP:
		put(f, op->off, op->len);
		fill(f->data + op->off, op->len, op->version);
		break;
	case OP_TRUNCATE:
		set_size(f, op->len);
		break;
	case OP_ALLOCATE:
		if (op->off + op->len > f->size)
			set_size(f, op->off + op->len);
		f->mtime_s = 0;
		break;
	case OP_PUNCH:
		end = op->off + op->len < f->size ? op->off + op->len : f->size;
		if (op->off < end)
			memset(f->data + op->off, 0, end - op->off);
		f->mtime_s = 0;
		break;
	case OP_COPY:
		put(f, op->off2, op->len);
		memmove(f->data + op->off2, inode_of(s, op->dir, op->name)->data + op->off, op->len);
		break;
	default:
		break;
	}
}

static void apply_names(struct world *s, const struct op *op)
{
	int *from = &s->name[op->dir][op->name], *to = &s->name[op->dir2][op->name2], i;

	switch (op->kind) {
	case OP_CREATE: case OP_SYMLINK:
		*from = new_inode(s);
		s->inode[*from].mode = op->mode;
		s->inode[*from].is_link = op->kind == OP_SYMLINK;
		s->inode[*from].size = op->len;
		if (op->len > 0)
			memset(s->inode[*from].data, 'a' + (int)(op->version % 26), op->len);
		break;
	case OP_RENAME:
		/* Two names of one inode: nothing is done. */
		if (*from == *to)
			break;
		drop(s, *to);
		*to = *from;
		*from = -1;
		break;
	case OP_EXCHANGE:
		i = *from;
		*from = *to;
		*to = i;
		break;
	case OP_LINK:
		*to = *from;
		s->inode[*to].nlink++;
		break;
	case OP_UNLINK:
		drop(s, *from);
		*from = -1;
		break;
	case OP_MKDIR: s->dir[op->dir] = true; s->moved[op->dir] = false; break;
	case OP_RMDIR: s->dir[op->dir] = false; break;
	case OP_MOVEDIR: s->moved[op->dir] = !s->moved[op->dir]; break;
	default: break;
	}
}

static void apply(struct world *s, const struct op *op)
{
	struct inode *f;
	unsigned i = op->off;

	switch (op->kind) {
	case OP_WRITE: case OP_APPEND: case OP_MMAP: case OP_TRUNCATE: case OP_ALLOCATE: case OP_PUNCH:
		apply_data(s, op, inode_of(s, op->dir, op->name));
		break;
	case OP_COPY:
		apply_data(s, op, inode_of(s, op->dir2, op->name2));
		break;
	case OP_CHMOD:
		inode_of(s, op->dir, op->name)->mode = op->mode;
		break;
	case OP_UTIMES:
		inode_of(s, op->dir, op->name)->mtime_s = op->version;
		break;
	case OP_SETXATTR: case OP_RMXATTR:
		f = inode_of(s, op->dir, op->name);
		f->xlen[i] = op->len;
		f->xversion[i] = op->kind == OP_SETXATTR ? op->version : 0;
		break;
	default:
		apply_names(s, op);
	}
}

/* ---- Choosing ---- */

/* A name that is there (of a file, if so wanted) or one that is not. False: there is none such. */
static bool pick(struct worker *w, bool present, bool file, int *ret_dir, int *ret_name)
{
	struct world *s = &w->world;
	int tries, d, n;

	for (tries = 0; tries < 40; tries++) {
		d = (int)random_below(&w->rng, DIRS);
		n = (int)random_below(&w->rng, NAMES);
		if (!s->dir[d] || (s->name[d][n] >= 0) != present)
			continue;
		if (present && file && inode_of(s, d, n)->is_link)
			continue;
		*ret_dir = d;
		*ret_name = n;
		return true;
	}
	return false;
}

/* Mostly small. */
static unsigned some_len(struct worker *w, unsigned most)
{
	unsigned n = random_below(&w->rng, 10), len;

	len = n < 5 ? 1 + random_below(&w->rng, 600) : n < 8 ? 1 + random_below(&w->rng, 9000) :
	      1 + random_below(&w->rng, FILE_MAX);
	return len < most ? len : most;
}

static bool choose_data(struct worker *w, struct op *op)
{
	struct inode *f, *to;

	if (!pick(w, true, true, &op->dir, &op->name))
		return false;
	f = inode_of(&w->world, op->dir, op->name);
	switch (op->kind) {
	case OP_WRITE:
		op->off = random_below(&w->rng, 4) == 0 ? random_below(&w->rng, FILE_MAX - 1) : random_below(&w->rng, f->size + 1);
		if (op->off >= FILE_MAX)
			op->off = 0;
		op->len = some_len(w, FILE_MAX - op->off);
		return true;
	case OP_APPEND:
		op->off = f->size;
		op->len = some_len(w, FILE_MAX - f->size);
		return op->len > 0;
	case OP_TRUNCATE:
		op->len = random_below(&w->rng, 3) ? random_below(&w->rng, f->size + 1) : random_below(&w->rng, FILE_MAX);
		return true;
	case OP_MMAP:
		/* Within one page: the kernel writes pages back one by one if it likes. */
		if (f->size < PAGE)
			return false;
		op->off = random_below(&w->rng, f->size / PAGE) * PAGE + random_below(&w->rng, PAGE / 2);
		op->len = 1 + random_below(&w->rng, PAGE / 2);
		return true;
	case OP_ALLOCATE: case OP_PUNCH:
		op->off = random_below(&w->rng, FILE_MAX - 1);
		op->len = some_len(w, FILE_MAX - op->off);
		return true;
	case OP_COPY:
		if (f->size == 0 || !pick(w, true, true, &op->dir2, &op->name2))
			return false;
		to = inode_of(&w->world, op->dir2, op->name2);
		if (to == f)
			return false;
		op->off = random_below(&w->rng, f->size);
		op->off2 = random_below(&w->rng, to->size < FILE_MAX ? to->size + 1 : FILE_MAX);
		op->len = some_len(w, f->size - op->off);
		if (op->len > FILE_MAX - op->off2)
			op->len = FILE_MAX - op->off2;
		return true;
	default:
		return true;
	}
}

static bool choose_dir(struct worker *w, struct op *op)
{
	struct world *s = &w->world;
	int n;

	op->dir = 1 + (int)random_below(&w->rng, DIRS - 1);
	if (op->kind == OP_MKDIR)
		return !s->dir[op->dir];
	if (!s->dir[op->dir])
		return false;
	for (n = 0; op->kind == OP_RMDIR && n < NAMES; n++)
		if (s->name[op->dir][n] >= 0)
			return false;
	return true;
}

static bool choose_xattr(struct worker *w, struct op *op)
{
	struct inode *f;

	if (!pick(w, true, true, &op->dir, &op->name))
		return false;
	f = inode_of(&w->world, op->dir, op->name);
	op->off = random_below(&w->rng, XATTRS);
	if (op->kind == OP_RMXATTR)
		return f->xversion[op->off] != 0;
	op->len = random_below(&w->rng, 4) ? random_below(&w->rng, 64) : random_below(&w->rng, XATTR_MAX);
	return true;
}

static bool choose_kind(struct worker *w, struct op *op)
{
	struct world *s = &w->world;

	switch (op->kind) {
	case OP_CREATE:
		op->mode = 0600 | random_below(&w->rng, 0200);
		return pick(w, false, false, &op->dir, &op->name);
	case OP_SYMLINK:
		op->len = 1 + random_below(&w->rng, 200);
		return pick(w, false, false, &op->dir, &op->name);
	case OP_RENAME:
		return pick(w, true, false, &op->dir, &op->name) &&
		       pick(w, random_below(&w->rng, 3) != 0, false, &op->dir2, &op->name2);
	case OP_EXCHANGE:
		return pick(w, true, false, &op->dir, &op->name) && pick(w, true, false, &op->dir2, &op->name2) &&
		       s->name[op->dir][op->name] != s->name[op->dir2][op->name2];
	case OP_LINK:
		return pick(w, true, true, &op->dir, &op->name) && pick(w, false, false, &op->dir2, &op->name2);
	case OP_UNLINK:
		return pick(w, true, false, &op->dir, &op->name);
	case OP_MKDIR: case OP_RMDIR: case OP_MOVEDIR:
		return choose_dir(w, op);
	case OP_CHMOD:
		op->mode = 0600 | random_below(&w->rng, 0200);
		return pick(w, true, true, &op->dir, &op->name);
	case OP_SETXATTR: case OP_RMXATTR:
		return choose_xattr(w, op);
	default:
		return choose_data(w, op);
	}
}

static void choose(struct worker *w, struct op *op)
{
	unsigned all = 0, n;
	int i;

	for (i = 0; i < OPS; i++)
		all += op_weights[i];
	do {
		memset(op, 0, sizeof *op);
		op->version = 1 + random_below(&w->rng, 1000000000);
		n = random_below(&w->rng, all);
		for (i = 0; n >= op_weights[i]; i++)
			n -= op_weights[i];
		op->kind = i;
	} while (!choose_kind(w, op));
	/* Write a new file, or write and put it in another's place: what programs do most. */
	if (w->op.kind == OP_CREATE && w->world.name[w->op.dir][w->op.name] >= 0 && random_below(&w->rng, 4)) {
		int dir = w->op.dir, name = w->op.name;

		memset(op, 0, sizeof *op);
		*op = (struct op){ .kind = OP_WRITE, .dir = dir, .name = name, .len = some_len(w, FILE_MAX),
				   .version = 1 + random_below(&w->rng, 1000000000) };
	}
}

/* ---- Doing ---- */

static uint8_t buffer[FILE_MAX + 1];
static int orphans[ORPHANS] = { -1, -1, -1 };

static void path_of(const struct world *s, int dir, int name, char *path, size_t size)
{
	if (dir == 0)
		(void)snprintf(path, size, "n%d", name);
	else if (name < 0)
		(void)snprintf(path, size, "%c%d", s->moved[dir] ? 'e' : 'd', dir);
	else
		(void)snprintf(path, size, "%c%d/n%d", s->moved[dir] ? 'e' : 'd', dir, name);
}

static void xattr_name(unsigned i, char *name, size_t size)
{
	(void)snprintf(name, size, "user.kill.%u", i);
}

static int do_mmap_write(int fd, const struct op *op)
{
	unsigned page = op->off & ~(unsigned)(PAGE - 1);
	uint8_t *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, page);
	int r;

	if (p == MAP_FAILED)
		return -errno;
	fill(p + (op->off - page), op->len, op->version);
	r = msync(p, PAGE, MS_SYNC) < 0 ? -errno : 0;
	(void)munmap(p, PAGE);
	/* Refused for space, the page in the kernel's cache still has what could not be written: it is to be read anew. */
	if (r == -ENOSPC || r == -EDQUOT)
		(void)posix_fadvise(fd, page, PAGE, POSIX_FADV_DONTNEED);
	return r;
}

static int do_read(struct worker *w, int fd, const struct op *op)
{
	const struct inode *f = inode_of(&w->world, op->dir, op->name);
	size_t all = 0, at;
	ssize_t n;

	/* A read that the daemon's death ends is short; the next one says why. */
	while ((n = pread(fd, buffer + all, sizeof buffer - all, (off_t)all)) > 0)
		all += (size_t)n;
	if (n < 0)
		return -errno;
	for (at = 0; at < all && at < f->size && buffer[at] == f->data[at]; at++)
		;
	if (all != f->size || at < all) {
		(void)snprintf(w->text, sizeof w->text, "read while mounted: %zu bytes, should be %u; byte %zu is %02x, should be %02x",
			       all, f->size, at, at < all ? buffer[at] : 0, at < f->size ? f->data[at] : 0);
		return -EBADMSG;
	}
	return 0;
}

/* Operations on the contents of an open file. A short write leaves in op->len what was written. */
static int do_data(struct worker *w, int at, int fd, struct op *op)
{
	char other[32];
	loff_t from = op->off, to = op->off2;
	ssize_t n;
	int fd2;

	switch (op->kind) {
	case OP_WRITE: case OP_APPEND:
		fill(buffer, op->len, op->version);
		n = op->kind == OP_WRITE ? pwrite(fd, buffer, op->len, op->off) : write(fd, buffer, op->len);
		if (n >= 0)
			op->len = (unsigned)n;
		return n < 0 ? -errno : n == 0 ? -EIO : 0;
	case OP_TRUNCATE:
		return ftruncate(fd, op->len) < 0 ? -errno : 0;
	case OP_MMAP:
		return do_mmap_write(fd, op);
	case OP_ALLOCATE:
		return fallocate(fd, 0, op->off, op->len) < 0 ? -errno : 0;
	case OP_PUNCH:
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, op->off, op->len) < 0 ? -errno : 0;
	case OP_FSYNC:
		return fsync(fd) < 0 ? -errno : 0;
	case OP_COPY:
		path_of(&w->world, op->dir2, op->name2, other, sizeof other);
		fd2 = openat(at, other, O_WRONLY | O_CLOEXEC);
		if (fd2 < 0)
			return -errno;
		n = copy_file_range(fd, &from, fd2, &to, op->len, 0);
		if (n >= 0)
			op->len = (unsigned)n;
		n = n < 0 ? -errno : n == 0 ? -EIO : 0;
		(void)close(fd2);
		return (int)n;
	default:
		return do_read(w, fd, op);
	}
}

static int do_file(struct worker *w, int at, const char *path, struct op *op)
{
	char name[32];
	struct timespec times[2] = { { 0, UTIME_OMIT }, { op->version, 0 } };
	int fd, r;

	if (op->kind == OP_CHMOD)
		return fchmodat(at, path, op->mode, 0) < 0 ? -errno : 0;
	if (op->kind == OP_UTIMES)
		return utimensat(at, path, times, 0) < 0 ? -errno : 0;
	fd = openat(at, path, O_RDWR | O_CLOEXEC | (op->kind == OP_APPEND ? O_APPEND : 0));
	if (fd < 0)
		return -errno;
	xattr_name(op->off, name, sizeof name);
	if (op->kind == OP_SETXATTR) {
		fill(buffer, op->len, op->version);
		r = fsetxattr(fd, name, buffer, op->len, 0) < 0 ? -errno : 0;
	} else if (op->kind == OP_RMXATTR) {
		r = fremovexattr(fd, name) < 0 ? -errno : 0;
	} else {
		r = do_data(w, at, fd, op);
	}
	(void)close(fd);
	return r;
}

/* Now and then the file goes on living without a name: what becomes of it when the daemon dies is the daemon's business. */
static int do_unlink(struct worker *w, int at, const char *path)
{
	unsigned i = random_below(&w->rng, 2 * ORPHANS);

	if (i < ORPHANS) {
		if (orphans[i] >= 0)
			(void)close(orphans[i]);
		orphans[i] = openat(at, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	}
	return unlinkat(at, path, 0) < 0 ? -errno : 0;
}

static int perform(struct worker *w, int at, struct op *op)
{
	char path[32], other[32], target[256];
	int fd, r;

	path_of(&w->world, op->dir, op->name, path, sizeof path);
	path_of(&w->world, op->dir2, op->name2, other, sizeof other);
	switch (op->kind) {
	case OP_CREATE:
		fd = openat(at, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, op->mode);
		r = fd < 0 ? -errno : 0;
		if (fd >= 0)
			(void)close(fd);
		return r;
	case OP_SYMLINK:
		memset(target, 'a' + (int)(op->version % 26), op->len);
		target[op->len] = '\0';
		return symlinkat(target, at, path) < 0 ? -errno : 0;
	case OP_RENAME:
		return renameat(at, path, at, other) < 0 ? -errno : 0;
	case OP_EXCHANGE:
		return syscall(SYS_renameat2, at, path, at, other, 2 /* RENAME_EXCHANGE */) < 0 ? -errno : 0;
	case OP_LINK:
		return linkat(at, path, at, other, 0) < 0 ? -errno : 0;
	case OP_UNLINK:
		return do_unlink(w, at, path);
	case OP_MKDIR:
		(void)snprintf(path, sizeof path, "d%d", op->dir);
		return mkdirat(at, path, 0755) < 0 ? -errno : 0;
	case OP_RMDIR:
		path_of(&w->world, op->dir, -1, path, sizeof path);
		return unlinkat(at, path, AT_REMOVEDIR) < 0 ? -errno : 0;
	case OP_MOVEDIR:
		path_of(&w->world, op->dir, -1, path, sizeof path);
		(void)snprintf(other, sizeof other, "%c%d", w->world.moved[op->dir] ? 'd' : 'e', op->dir);
		return renameat(at, path, at, other) < 0 ? -errno : 0;
	default:
		return do_file(w, at, path, op);
	}
}

/* A write that came back short: its last request found no space, or the mount died under it. In the second case the rest was
 * under way, and stays so: the whole may be there. What was acknowledged is. */
static int settle_short(struct worker *w, int at, const struct op *whole, const struct op *done)
{
	struct statfs st;

	apply(&w->world, done);
	w->op = *whole;
	/* It is the daemon who knows the figures. */
	if (fstatfs(at, &st) < 0)
		return -errno;
	w->op = *done;
	return 0;
}

/* The mount died under a mapping. */
static struct worker *me;

static void on_fault(int sig)
{
	(void)sig;
	atomic_store(&me->error, ENOTCONN);
	_exit(0);
}

void load_run(struct worker *w, const char *path, bool pause)
{
	int at = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	struct op op, whole;

	me = w;
	(void)signal(SIGBUS, on_fault);
	(void)umask(0);
	/* A page of it that had to be faulted in would part a write in two requests. */
	memset(buffer, 1, sizeof buffer);
	if (at < 0)
		r = -errno;
	atomic_store(&w->ready, true);
	while (r == 0 && !atomic_load(&w->stop)) {
		choose(w, &op);
		w->op = op;
		atomic_store(&w->busy, true);
		r = perform(w, at, &op);
		if (r == 0 && op.len != w->op.len) {
			whole = w->op;
			r = settle_short(w, at, &whole, &op);
			atomic_store(&w->busy, r != 0);
		} else if (r == 0) {
			apply(&w->world, &op);
			atomic_fetch_add(&w->done, 1);
			atomic_store(&w->busy, false);
		} else if (r == -ENOSPC || r == -EDQUOT) {
			atomic_fetch_add(&w->refused, 1);
			atomic_store(&w->busy, false);
			r = 0;
		}
		if (pause && random_below(&w->rng, 8) == 0)
			nap_us(random_below(&w->rng, 2000));
	}
	atomic_store(&w->error, -r);
	_exit(0);
}

/* What it does may fail for want of space; it ends when the mount is gone. */
void load_tend(const char *mnt, bool large, const atomic_bool *stop)
{
	char balloon[400], checkpoint[400];
	unsigned i;
	int fd;

	(void)snprintf(balloon, sizeof balloon, "%s/balloon", mnt);
	(void)snprintf(checkpoint, sizeof checkpoint, "%s/.msyncfs/checkpoint", mnt);
	while (!atomic_load(stop)) {
		fd = large ? open(balloon, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
		for (i = 0; fd >= 0 && i < BALLOON / FILE_MAX && !atomic_load(stop); i++)
			if (write(fd, buffer, FILE_MAX) < 0)
				break;
		if (fd >= 0)
			(void)close(fd);
		(void)unlink(balloon);
		fd = open(checkpoint, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || (write(fd, "1", 1) < 0 && errno != ENOSPC))
			break;
		(void)close(fd);
		nap_us(1000);
	}
	_exit(0);
}

void load_stuff(const char *mnt, bool large, const atomic_bool *stop)
{
	char path[400];
	unsigned i;
	int fd;

	(void)snprintf(path, sizeof path, "%s/stuffing", mnt);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0 && large)
		(void)fallocate(fd, 0, 0, STUFFED_STORE);
	/* A full store may have room again in a moment; what else fails is the mount. */
	for (i = 0; fd >= 0 && !atomic_load(stop); i++)
		if (pwrite(fd, buffer, PAGE, (off_t)(i % 16) * PAGE) < 0 && errno != ENOSPC)
			break;
	_exit(0);
}

unsigned load_inodes(const struct worker *w)
{
	unsigned n = 0;
	int i;

	for (i = 0; i < INODES; i++)
		n += w->world.inode[i].used;
	for (i = 0; i < DIRS; i++)
		n += w->world.dir[i];
	return n;
}

/* ---- Comparing ---- */

struct compare {
	const struct world *s;
	int at;
	char *text;
	size_t size;
};

static bool __attribute__((format(printf, 2, 3))) differs(struct compare *c, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(c->text, c->size, format, ap);
	va_end(ap);
	return false;
}

static bool compare_xattrs(struct compare *c, const char *path, int fd, const struct inode *f)
{
	static uint8_t want[XATTR_MAX];
	char name[32], list[512];
	unsigned i, count = 0;
	ssize_t n;

	for (i = 0; i < XATTRS; i++) {
		xattr_name(i, name, sizeof name);
		n = fgetxattr(fd, name, buffer, sizeof buffer);
		if (n < 0 && errno != ENODATA)
			return differs(c, "%s: %s: %s", path, name, strerror(errno));
		if (n < 0 && f->xversion[i] == 0)
			continue;
		fill(want, f->xlen[i], f->xversion[i]);
		if (n < 0 || f->xversion[i] == 0 || (unsigned)n != f->xlen[i] || memcmp(buffer, want, (size_t)n) != 0)
			return differs(c, "%s: %s: %zd bytes, should be %u of version %u", path, name, n, f->xlen[i],
				       f->xversion[i]);
		count += (unsigned)strlen(name) + 1;
	}
	n = flistxattr(fd, list, sizeof list);
	return n == (ssize_t)count || differs(c, "%s: a list of %zd bytes of attributes, should be %u", path, n, count);
}

static bool compare_contents(struct compare *c, const char *path, const struct inode *f)
{
	int fd = openat(c->at, path, O_RDONLY | O_CLOEXEC);
	ssize_t n;
	unsigned i;
	bool ok;

	if (fd < 0)
		return differs(c, "%s: open: %s", path, strerror(errno));
	n = pread(fd, buffer, sizeof buffer, 0);
	ok = n == (ssize_t)f->size;
	if (!ok)
		(void)differs(c, "%s: %zd bytes read (%s), should be %u", path, n, n < 0 ? strerror(errno) : "", f->size);
	for (i = 0; ok && i < f->size; i++)
		if (buffer[i] != f->data[i])
			ok = differs(c, "%s: byte %u of %u is %02x, should be %02x", path, i, f->size, buffer[i], f->data[i]);
	ok = ok && compare_xattrs(c, path, fd, f);
	(void)close(fd);
	return ok;
}

static bool compare_link(struct compare *c, const char *path, const struct inode *f)
{
	ssize_t n = readlinkat(c->at, path, (char *)buffer, sizeof buffer);

	return (n == (ssize_t)f->size && memcmp(buffer, f->data, f->size) == 0) ||
	       differs(c, "%s: a link of %zd bytes, should be another one of %u", path, n, f->size);
}

static bool compare_inode(struct compare *c, const char *path, const struct inode *f, ino_t *ino)
{
	struct stat st;

	if (fstatat(c->at, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return differs(c, "%s: %s", path, strerror(errno));
	if (!(f->is_link ? S_ISLNK(st.st_mode) : S_ISREG(st.st_mode)))
		return differs(c, "%s: is of another kind: mode %o", path, st.st_mode);
	if (*ino != 0 && *ino != st.st_ino)
		return differs(c, "%s: is not the inode of its other name", path);
	if (st.st_nlink != f->nlink)
		return differs(c, "%s: %lu links, should be %u", path, (unsigned long)st.st_nlink, f->nlink);
	if ((unsigned)st.st_size != f->size)
		return differs(c, "%s: %ld bytes, should be %u", path, (long)st.st_size, f->size);
	if (!f->is_link && (st.st_mode & 07777) != f->mode)
		return differs(c, "%s: mode %o, should be %o", path, st.st_mode & 07777, f->mode);
	if (f->mtime_s != 0 && (uint64_t)st.st_mtime != f->mtime_s)
		return differs(c, "%s: changed at %ld, should be %lu", path, (long)st.st_mtime, (unsigned long)f->mtime_s);
	/* Of two names one is looked into. */
	if (*ino != 0)
		return true;
	*ino = st.st_ino;
	return f->is_link ? compare_link(c, path, f) : compare_contents(c, path, f);
}

/* Is a name that the directory shows one that it should have? */
static bool is_expected(const struct world *s, int dir, const char *name)
{
	char path[32];
	int i;

	for (i = 1; dir == 0 && i < DIRS; i++) {
		path_of(s, i, -1, path, sizeof path);
		if (s->dir[i] && strcmp(name, path) == 0)
			return true;
	}
	for (i = 0; i < NAMES; i++) {
		(void)snprintf(path, sizeof path, "n%d", i);
		if (s->name[dir][i] >= 0 && strcmp(name, path) == 0)
			return true;
	}
	return false;
}

static bool compare_names(struct compare *c, int dir)
{
	char path[32] = ".";
	struct dirent *e;
	bool ok = true;
	int fd, n, got = 0, want = 0;
	DIR *d;

	if (dir != 0)
		path_of(c->s, dir, -1, path, sizeof path);
	fd = openat(c->at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return differs(c, "%s: %s", path, strerror(errno));
	d = fdopendir(fd);
	if (!d)
		abort();
	while (ok && (e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		got++;
		ok = is_expected(c->s, dir, e->d_name) || differs(c, "%s/%s should not be there", path, e->d_name);
	}
	(void)closedir(d);
	for (n = 0; n < NAMES; n++)
		want += c->s->name[dir][n] >= 0;
	for (n = 1; dir == 0 && n < DIRS; n++)
		want += c->s->dir[n];
	return ok && (got == want || differs(c, "%s: %d names, should be %d", path, got, want));
}

static bool compare(const struct world *s, const char *path, char *text, size_t size)
{
	struct compare c = { .s = s, .at = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), .text = text, .size = size };
	ino_t inos[INODES] = { 0 };
	char name[32];
	bool ok = true;
	int d, n;

	if (c.at < 0)
		return differs(&c, "%s: %s", path, strerror(errno));
	for (d = 0; ok && d < DIRS; d++) {
		if (s->dir[d])
			ok = compare_names(&c, d);
		for (n = 0; ok && s->dir[d] && n < NAMES; n++) {
			if (s->name[d][n] < 0)
				continue;
			path_of(s, d, n, name, sizeof name);
			ok = compare_inode(&c, name, &s->inode[s->name[d][n]], &inos[s->name[d][n]]);
		}
	}
	(void)close(c.at);
	return ok;
}

/* The kernel hands a write on in pages, and parts it behind a page of which only a part is written and that it does not
 * have: so of one under way the first page can be there, or all but the last. The n-th such part; false: there is none. */
static bool part_of_write(const struct op *op, unsigned n, struct op *ret_part)
{
	unsigned first = PAGE - op->off % PAGE, last = (op->off + op->len) % PAGE;

	*ret_part = *op;
	if (op->kind != OP_WRITE && op->kind != OP_APPEND)
		return false;
	ret_part->len = n == 0 ? first : op->len - last;
	return n < 2 && ret_part->len > 0 && op->len > ret_part->len;
}

/* Each part has the bytes that the whole has there: the pattern goes from the front. */
static bool is_part(struct world *s, const struct worker *w, const char *path)
{
	char text[300];
	struct op part;
	unsigned n;

	for (n = 0; n < 2; n++) {
		if (!part_of_write(&w->op, n, &part))
			continue;
		*s = w->world;
		apply(s, &part);
		if (compare(s, path, text, sizeof text))
			return true;
	}
	return false;
}

int load_check(struct worker *w, const char *path, char *text, size_t size)
{
	static struct world after;
	char without[300] = "", with[300] = "", op[200];
	bool busy = atomic_load(&w->busy);

	atomic_store(&w->busy, false);
	if (compare(&w->world, path, without, sizeof without))
		return 0;
	if (!busy) {
		(void)snprintf(text, size, "%s", without);
		return -1;
	}
	after = w->world;
	apply(&after, &w->op);
	if (compare(&after, path, with, sizeof with) || is_part(&after, w, path)) {
		w->world = after;
		return 1;
	}
	load_op_text(&w->op, op, sizeof op);
	(void)snprintf(text, size, "under way: %s; without it: %s; with it: %s", op, without, with);
	return -1;
}
