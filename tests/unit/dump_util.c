/* SPDX-License-Identifier: MIT
 *
 * dump: see dump_util.h.
 */
#include "tests/unit/dump_util.h"

#include "tests/unit/ok_util.h"
#include "tests/unit/random_util.h"

#include "core/keys/item.h"
#include "core/store/store.h"
#include "core/store/tree.h"

#define dirent libc_dirent      /* item.h has a struct of that name */
#include <dirent.h>
#undef dirent
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

char dump_a[SCRATCH_PATH], dump_b[SCRATCH_PATH];
uint64_t dump_seed;

/* Files in memory and on disk ---------------------------------------------------------------------------------------- */

int dump_file(const void *p, size_t len)
{
	int fd = memfd_create("stream", MFD_CLOEXEC);

	assert_true(fd >= 0);
	while (len > 0) {
		ssize_t n = write(fd, p, len);

		assert_true(n > 0);
		p = (const uint8_t *)p + n;
		len -= (size_t)n;
	}
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

struct dump dump_take(int fd)
{
	struct dump b;
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	b.len = (size_t)st.st_size;
	b.p = malloc(b.len + 1);
	assert_non_null(b.p);
	assert_int_equal(pread(fd, b.p, b.len, 0), (ssize_t)b.len);
	assert_int_equal(close(fd), 0);
	return b;
}

unsigned dump_files(void)
{
	DIR *d = opendir(scratch_folder());
	struct dirent64 *e;
	unsigned n = 0;

	assert_non_null(d);
	while ((e = readdir64(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

struct keys *dump_open(const char *path, bool create)
{
	struct store_options o = { .path = path, .create = create, .read_only = !create };
	struct keys *k = NULL;
	int r = keys_open(&o, &k);

	if (r < 0)
		fail_msg("%s: %d %s", path, r, err_last());
	return k;
}

struct dump dump_store(struct keys *k)
{
	int fd = dump_file("", 0), r;
	struct stream_counts counts;

	r = stream_dump(k, fd, NULL, &counts);
	if (r < 0)
		fail_msg("dump: %d %s", r, err_last());
	return dump_take(fd);
}

int dump_load(const char *path, const uint8_t *p, size_t len, uint64_t max)
{
	struct stream_target target = { .path = path, .max_bytes = max };
	struct stream_counts counts;
	int fd = dump_file(p, len), r;

	r = stream_load(&target, fd, NULL, &counts);
	assert_int_equal(close(fd), 0);
	return r;
}

void dump_refused(const uint8_t *p, size_t len, const char *what, size_t at)
{
	int r = dump_load(dump_b, p, len, DUMP_SMALL);

	if (r >= 0 || *err_last() == '\0' || dump_files() != 0)
		fail_msg("%s at %zu: %d '%s', %u files left (SEED=%llu)", what, at, r, err_last(), dump_files(),
			 (unsigned long long)dump_seed);
}

struct keys *dump_load_ok(struct dump b, const char *path)
{
	int r = dump_load(path, b.p, b.len, 0);

	if (r < 0)
		fail_msg("load: %d %s (SEED=%llu)", r, err_last(), (unsigned long long)dump_seed);
	return dump_open(path, false);
}

/* Random trees ------------------------------------------------------------------------------------------------------- */

#define NODES 400u

struct tree_of_keys {
	struct keys *k;
	uint64_t dirs[NODES];
	unsigned dir_count;
	struct { uint64_t dir, ino; char name[16]; bool dead; } nodes[NODES];
	unsigned count;
};

static void random_name(char *name, unsigned i)
{
	snprintf(name, 16, "%c%u", "a\xff\x01Z"[rnd(4)], i);
}

void dump_random_bytes(uint8_t *p, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		p[i] = (uint8_t)(rnd(8) == 0 ? rnd(256) : 7);
}

void dump_random_contents(struct keys *k, uint64_t ino)
{
	static uint8_t buf[300000];
	static const uint32_t spans[] = { 30, 1500, 9000, 300000 };
	unsigned n = rnd(5);
	struct keys_setattr set = { .mask = KEYS_SET_SIZE };
	struct keys_attr a;

	while (n-- > 0) {
		uint64_t off = rnd(4) ? rnd(spans[rnd(4)]) : (uint64_t)rnd(1u << 30) << rnd(32);
		size_t len = 1 + rnd(spans[rnd(4)]), done;

		switch (rnd(8)) {
		case 0:
			set.size = rnd(2) ? off : rnd(20000);
			ok(keys_setattr(k, ino, &set, &a));
			break;
		case 1:
			ok(keys_fallocate(k, ino, rnd(2) ? FALLOC_FL_KEEP_SIZE : 0, off, len, 0));
			break;
		case 2:
			ok(keys_fallocate(k, ino, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, off, len, 0));
			break;
		default:
			dump_random_bytes(buf, len);
			ok(keys_write(k, ino, off, buf, len, false, &done));
			assert_int_equal(done, len);
		}
	}
}

void dump_random_xattrs(struct keys *k, uint64_t ino, bool link)
{
	static const char *const space[] = { "user.", "trusted.", "security." };
	static uint8_t value[KEYS_XATTR_MAX];
	/* user::rw- user:1000:r-- group::r-- mask::r-- other::--- */
	static const uint8_t acl[] = { 2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0, 4, 0, 4, 0,
				       255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255,
				       255 };
	unsigned n = rnd(4) ? rnd(4) : rnd(40);
	struct keys_attr a;
	char name[256];

	while (n-- > 0) {
		size_t len = rnd(16) ? rnd(100) : rnd(KEYS_XATTR_MAX + 1);

		snprintf(name, sizeof name, "%s%u%.*s", space[rnd(3)], rnd(1000), rnd(8) ? 0 : 200,
			 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
		dump_random_bytes(value, len);
		ok(keys_setxattr(k, ino, name, value, len, 0, false));
		if (rnd(8) == 0)
			ok(keys_removexattr(k, ino, name));
	}
	if (!link && rnd(10) == 0)
		ok(keys_setxattr(k, ino, "system.posix_acl_access", acl, sizeof acl, 0, false));
	ok(keys_getattr(k, ino, &a));
	if (S_ISDIR(a.mode) && rnd(5) == 0)
		ok(keys_setxattr(k, ino, "system.posix_acl_default", acl, sizeof acl, 0, false));
}

static void random_times(struct keys *k, uint64_t ino)
{
	struct keys_setattr set = { .mask = KEYS_SET_ATIME | KEYS_SET_MTIME | KEYS_SET_CTIME | KEYS_SET_UID | KEYS_SET_GID };
	struct keys_attr a;

	set.uid = rnd(70000);
	set.gid = rnd(3) ? rnd(70000) : UINT32_MAX - 1;
	set.atime = (struct keys_time){ (int64_t)rnd(1000) - 500, rnd(1000000000) };
	set.mtime = (struct keys_time){ INT64_MAX / (1 + (int64_t)rnd(9)), 999999999 };
	set.ctime = (struct keys_time){ (int64_t)rnd(UINT32_MAX), rnd(1000000000) };
	ok(keys_setattr(k, ino, &set, &a));
}

static void random_make(struct tree_of_keys *t)
{
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK };
	const struct keys_cred cred = { rnd(1000), rnd(1000), 022 };
	uint32_t type = types[rnd(ARRAY_LEN(types))];
	uint64_t dir = t->dirs[rnd(t->dir_count)];
	struct keys_attr a;
	char name[16], target[KEYS_SYMLINK_MAX];
	size_t n;

	random_name(name, t->count);
	n = strlen(name);
	if (type == S_IFLNK) {
		memset(target, 't', sizeof target);
		ok(keys_symlink(t->k, dir, name, n, target, 1 + (rnd(2) ? rnd(50) : rnd(KEYS_SYMLINK_MAX)), &cred, &a));
	} else {
		ok(keys_make(t->k, dir, name, n, type | rnd(010000), rnd(UINT32_MAX), &cred, &a));
	}
	if (type == S_IFREG)
		dump_random_contents(t->k, a.ino);
	if (rnd(3) == 0)
		dump_random_xattrs(t->k, a.ino, type == S_IFLNK);
	if (rnd(2))
		random_times(t->k, a.ino);
	if (type == S_IFDIR)
		t->dirs[t->dir_count++] = a.ino;
	t->nodes[t->count].dir = dir;
	t->nodes[t->count].ino = a.ino;
	t->nodes[t->count].dead = type == S_IFDIR;
	memcpy(t->nodes[t->count++].name, name, sizeof name);
}

/* Hard links, orphans with and without rest, directories that move below newer ones. */
static void random_change(struct tree_of_keys *t)
{
	unsigned i = rnd(t->count);
	uint64_t orphan, ino, to = t->dirs[rnd(t->dir_count)];
	uint32_t nlink;
	struct keys_attr a;
	char name[16];
	int r;

	snprintf(name, sizeof name, "n%u", rnd(1000000));
	if (rnd(3) == 0) {
		r = keys_rename(t->k, t->nodes[i].dir, t->nodes[i].name, strlen(t->nodes[i].name), to, name,
				strlen(name), 0, &(struct keys_cred){ 0 }, &orphan);
		assert_true(r == 0 || r == -EINVAL || r == -ENOENT);
		if (r == 0) {
			t->nodes[i].dir = to;
			memcpy(t->nodes[i].name, name, sizeof name);
		}
	} else if (!t->nodes[i].dead && rnd(2)) {
		r = keys_link(t->k, t->nodes[i].ino, to, name, strlen(name), &a);
		assert_true(r == 0 || r == -EEXIST);
	} else if (!t->nodes[i].dead) {
		ok(keys_unlink(t->k, t->nodes[i].dir, t->nodes[i].name, strlen(t->nodes[i].name), &ino, &nlink));
		t->nodes[i].dead = true;
		memcpy(t->nodes[i].name, "gone", 5);
		if (nlink == 0 && rnd(2))
			while (keys_reap(t->k, ino) > 0)
				;
	}
}

struct keys *dump_random_store(const char *path, unsigned count)
{
	struct tree_of_keys t = { .dirs = { KEYS_ROOT_INO }, .dir_count = 1 };

	t.k = dump_open(path, true);
	while (t.count < count) {
		random_make(&t);
		if (t.count % 3 == 0)
			random_change(&t);
		ok(store_poll(keys_store(t.k)));
	}
	dump_random_xattrs(t.k, KEYS_ROOT_INO, false);
	random_times(t.k, KEYS_ROOT_INO);
	return t.k;
}

/* Comparing ---------------------------------------------------------------------------------------------------------- */

static void same_time(struct keys_time a, struct keys_time b)
{
	assert_int_equal(a.sec, b.sec);
	assert_int_equal(a.nsec, b.nsec);
}

static void same_attr(const struct keys_attr *a, const struct keys_attr *b)
{
	const uint32_t told = KEYS_ATTR_INLINE | KEYS_ATTR_ACL | KEYS_ATTR_DEFAULT_ACL;

	assert_int_equal(a->ino, b->ino);
	assert_int_equal(a->mode, b->mode);
	assert_int_equal(a->nlink, b->nlink);
	assert_int_equal(a->uid, b->uid);
	assert_int_equal(a->gid, b->gid);
	assert_int_equal(a->size, b->size);
	assert_int_equal(a->aux, b->aux);
	assert_int_equal(a->blocks, b->blocks);
	assert_int_equal(a->flags & told, b->flags & told);
	same_time(a->atime, b->atime);
	same_time(a->mtime, b->mtime);
	same_time(a->ctime, b->ctime);
	same_time(a->btime, b->btime);
}

static void same_xattrs(struct keys *ka, struct keys *kb, uint64_t ino)
{
	static char names[65536], other[65536];
	static uint8_t va[KEYS_XATTR_MAX], vb[KEYS_XATTR_MAX];
	size_t na, nb, la, lb, at;

	ok(keys_listxattr(ka, ino, names, sizeof names, &na));
	ok(keys_listxattr(kb, ino, other, sizeof other, &nb));
	assert_int_equal(na, nb);
	for (at = 0; at < na; at += strlen(names + at) + 1) {
		ok(keys_getxattr(ka, ino, names + at, va, sizeof va, &la));
		ok(keys_getxattr(kb, ino, names + at, vb, sizeof vb, &lb));
		assert_int_equal(la, lb);
		assert_memory_equal(va, vb, la);
	}
}

struct listing {
	struct keys *other;
	uint64_t dir, count;
};

static int same_entry(void *ctx, const struct keys_dirent *e)
{
	struct listing *l = ctx;
	struct keys_attr a;

	ok(keys_lookup(l->other, l->dir, e->name, e->len, &a));
	assert_int_equal(a.ino, e->ino);
	assert_int_equal(a.mode & S_IFMT, e->type);
	l->count++;
	return 0;
}

/* What kind each piece of the file is of, and what stands there: the hash of (from, to, kind) of all runs of blocks, and
 * of the bytes of those that hold any. */
static uint64_t contents_hash(struct keys *k, const struct keys_attr *a)
{
	XXH3_state_t *x = XXH3_createState();
	uint64_t run[3] = { 0, 0, 9 }, h, off = 0, data, hole;
	struct tree_cursor c;
	struct iovec iov[600];
	size_t bytes;
	int i, n, r = tree_seek(store_tree(keys_store(k)), item_key(a->ino, ITEM_EXTENT, 0), &c);

	(void)XXH3_64bits_reset(x);
	for (; r == 0 && cursor_key(&c).hi == item_key(a->ino, ITEM_EXTENT, 0).hi; r = cursor_next(&c)) {
		struct extent e;
		uint32_t len;
		const uint8_t *v = cursor_value(&c, &len);
		uint64_t b;

		ok(extent_decode(v, len, cursor_key(&c), &e));
		for (b = e.fblock; b < e.fblock + e.count; b++) {
			/* What was written behind the end is as good as unwritten. */
			uint64_t kind = e.flags & EXTENT_UNWRITTEN || b >= div_up(a->size, BLOCK_SIZE);

			if (b != run[1] || kind != run[2]) {
				(void)XXH3_64bits_update(x, run, sizeof run);
				run[0] = b;
				run[2] = kind;
			}
			run[1] = b + 1;
		}
	}
	(void)XXH3_64bits_update(x, run, sizeof run);
	while (off < a->size && keys_seek(k, a->ino, off, SEEK_DATA, &data) == 0) {
		ok(keys_seek(k, a->ino, data, SEEK_HOLE, &hole));
		while (data < hole) {
			ok(keys_read(k, a->ino, data, min_u64(hole - data, 1 << 20), iov, ARRAY_LEN(iov), &n, &bytes));
			assert_true(bytes > 0);
			for (i = 0; i < n; i++)
				(void)XXH3_64bits_update(x, iov[i].iov_base, iov[i].iov_len);
			data += bytes;
		}
		off = hole;
	}
	h = XXH3_64bits_digest(x);
	XXH3_freeState(x);
	return h;
}

static void same_inode(struct keys *ka, struct keys *kb, uint64_t ino)
{
	static char ta[KEYS_SYMLINK_MAX], tb[KEYS_SYMLINK_MAX];
	struct listing la = { kb, ino, 0 }, lb = { ka, ino, 0 };
	struct keys_attr a, b;
	size_t na, nb;

	ok(keys_getattr(ka, ino, &a));
	ok(keys_getattr(kb, ino, &b));
	same_attr(&a, &b);
	same_xattrs(ka, kb, ino);
	if (S_ISDIR(a.mode)) {
		ok(keys_readdir(ka, ino, 0, same_entry, &la));
		ok(keys_readdir(kb, ino, 0, same_entry, &lb));
		assert_int_equal(la.count, lb.count);
		assert_int_equal(la.count, a.size + 2);
	} else if (S_ISREG(a.mode)) {
		assert_int_equal(contents_hash(ka, &a), contents_hash(kb, &b));
	} else if (S_ISLNK(a.mode)) {
		ok(keys_readlink(ka, ino, ta, sizeof ta, &na));
		ok(keys_readlink(kb, ino, tb, sizeof tb, &nb));
		assert_int_equal(na, nb);
		assert_memory_equal(ta, tb, na);
	}
}

/* Next inode, orphans left out. 0: none. */
uint64_t dump_next(struct keys *k, uint64_t ino)
{
	struct tree_cursor c;
	uint64_t orphan;

	for (;;) {
		if (tree_seek(store_tree(keys_store(k)), item_key(ino + 1, 0, 0), &c) < 0)
			return 0;
		ino = cursor_key(&c).hi >> 8;
		if (keys_next_orphan(k, ino, &orphan) < 0 || orphan != ino)
			return ino;
	}
}

void dump_same(struct keys *ka, struct keys *kb)
{
	struct store_status st;
	uint64_t a = 0, b = 0, n = 0;

	while ((a = dump_next(ka, a)) != 0) {
		b = dump_next(kb, b);
		assert_int_equal(a, b);
		same_inode(ka, kb, a);
		n++;
	}
	assert_int_equal(dump_next(kb, b), 0);
	store_status(keys_store(kb), &st);
	assert_int_equal(st.inodes, n);
	assert_int_equal(store_counts(keys_store(ka))->next_ino, store_counts(keys_store(kb))->next_ino);
}

void dump_big_file(struct keys *k, size_t bytes)
{
	const struct keys_cred cred = { 0 };
	static uint8_t buf[1 << 20];
	struct keys_attr a;
	size_t n, off;

	ok(keys_make(k, KEYS_ROOT_INO, "big", 3, S_IFREG | 0644, 0, &cred, &a));
	for (off = 0; off < bytes; off += sizeof buf) {
		dump_random_bytes(buf, sizeof buf);
		ok(keys_write(k, a.ino, off, buf, sizeof buf, false, &n));
		ok(store_poll(keys_store(k)));
	}
}

struct dump dump_random(unsigned count)
{
	struct keys *k;
	struct dump b;

	k = dump_random_store(":memory:", count);
	b = dump_store(k);
	ok(keys_close(k));
	return b;
}

/* The run ----------------------------------------------------------------------------------------------------------- */

static unsigned fds_before;

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void print_seed(void)
{
	print_message("# SEED=%llu\n", (unsigned long long)dump_seed);
}

int dump_begin(void)
{
	dump_seed = random_seed();
	ok_failed = print_seed;
	if (scratch_make_on_disk("stream") < 0)
		return -1;
	scratch_path(dump_a, "a");
	scratch_path(dump_b, "b");
	fds_before = open_fds();
	return 0;
}

int dump_fresh(void **state)
{
	(void)state;
	(void)unlink(dump_a);
	(void)unlink(dump_b);
	random_restart(dump_seed);
	return 0;
}

int dump_end(int failed)
{
	if (failed == 0 && open_fds() != fds_before) {
		printf("# descriptors are left open\n");
		failed = 1;
	}
	return scratch_remove() < 0 ? 1 : failed;
}
