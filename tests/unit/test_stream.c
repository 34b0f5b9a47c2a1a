/* SPDX-License-Identifier: MIT
 *
 * test_stream: dump and load: what was dumped is there after a load, to the nanosecond and to the hole; the same contents
 * give the same bytes; a stream that is cut, changed or made up leaves no store. SEED=n replays the random tests.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base.h"
#include "core/keys/item.h"
#include "core/store/store.h"
#include "core/store/tree.h"
#include "core/stream/stream.h"
#include "core/stream/stream_int.h"

#define dirent libc_dirent      /* item.h has a struct of that name */
#include <dirent.h>
#undef dirent
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>
#include <zstd.h>

#define SMALL_STORE (16u << 20)

static char folder[64], path_a[96], path_b[96];
static uint64_t seed, rng;

static uint32_t rnd(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 32) % n;
}

/* Files in memory and on disk ---------------------------------------------------------------------------------------- */

struct bytes {
	uint8_t *p;
	size_t len;
};

static int memory_file(const void *p, size_t len)
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

static struct bytes take_file(int fd)
{
	struct bytes b;
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	b.len = (size_t)st.st_size;
	b.p = malloc(b.len + 1);
	assert_non_null(b.p);
	assert_int_equal(pread(fd, b.p, b.len, 0), (ssize_t)b.len);
	assert_int_equal(close(fd), 0);
	return b;
}

static unsigned files_in_folder(void)
{
	DIR *d = opendir(folder);
	struct dirent64 *e;
	unsigned n = 0;

	assert_non_null(d);
	while ((e = readdir64(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

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

static struct keys *open_keys(const char *path, bool create)
{
	struct store_options o = { .path = path, .create = create, .read_only = !create };
	struct keys *k = NULL;
	int r = keys_open(&o, &k);

	if (r < 0)
		fail_msg("%s: %d %s", path, r, err_last());
	return k;
}

static struct bytes dump_keys(struct keys *k)
{
	int fd = memory_file("", 0), r;
	struct stream_counts counts;

	r = stream_dump(k, fd, NULL, &counts);
	if (r < 0)
		fail_msg("dump: %d %s", r, err_last());
	return take_file(fd);
}

static int load_bytes(const char *path, const uint8_t *p, size_t len, uint64_t max)
{
	struct stream_target target = { .path = path, .max_bytes = max };
	struct stream_counts counts;
	int fd = memory_file(p, len), r;

	r = stream_load(&target, fd, NULL, &counts);
	assert_int_equal(close(fd), 0);
	return r;
}

/* The stream is refused with a text, and nothing is left of it. */
static void assert_refused(const uint8_t *p, size_t len, const char *what, size_t at)
{
	int r = load_bytes(path_b, p, len, SMALL_STORE);

	if (r >= 0 || *err_last() == '\0' || files_in_folder() != 0)
		fail_msg("%s at %zu: %d '%s', %u files left (SEED=%llu)", what, at, r, err_last(), files_in_folder(),
			 (unsigned long long)seed);
}

static struct keys *load_ok(struct bytes b, const char *path)
{
	int r = load_bytes(path, b.p, b.len, 0);

	if (r < 0)
		fail_msg("load: %d %s (SEED=%llu)", r, err_last(), (unsigned long long)seed);
	return open_keys(path, false);
}

/* Random trees ------------------------------------------------------------------------------------------------------- */

#define OK(call) \
	do { \
		int ok_r = (call); \
		if (ok_r < 0) \
			fail_msg("%s: %d %s (SEED=%llu)", #call, ok_r, err_last(), (unsigned long long)seed); \
	} while (0)

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

static void random_bytes(uint8_t *p, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		p[i] = (uint8_t)(rnd(8) == 0 ? rnd(256) : 7);
}

static void random_contents(struct keys *k, uint64_t ino)
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
			OK(keys_setattr(k, ino, &set, &a));
			break;
		case 1:
			OK(keys_fallocate(k, ino, rnd(2) ? FALLOC_FL_KEEP_SIZE : 0, off, len, 0));
			break;
		case 2:
			OK(keys_fallocate(k, ino, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, off, len, 0));
			break;
		default:
			random_bytes(buf, len);
			OK(keys_write(k, ino, off, buf, len, false, &done));
			assert_int_equal(done, len);
		}
	}
}

static void random_xattrs(struct keys *k, uint64_t ino, bool link)
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
		random_bytes(value, len);
		OK(keys_setxattr(k, ino, name, value, len, 0, false));
		if (rnd(8) == 0)
			OK(keys_removexattr(k, ino, name));
	}
	if (!link && rnd(10) == 0)
		OK(keys_setxattr(k, ino, "system.posix_acl_access", acl, sizeof acl, 0, false));
	OK(keys_getattr(k, ino, &a));
	if (S_ISDIR(a.mode) && rnd(5) == 0)
		OK(keys_setxattr(k, ino, "system.posix_acl_default", acl, sizeof acl, 0, false));
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
	OK(keys_setattr(k, ino, &set, &a));
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
		OK(keys_symlink(t->k, dir, name, n, target, 1 + (rnd(2) ? rnd(50) : rnd(KEYS_SYMLINK_MAX)), &cred, &a));
	} else {
		OK(keys_make(t->k, dir, name, n, type | rnd(010000), rnd(UINT32_MAX), &cred, &a));
	}
	if (type == S_IFREG)
		random_contents(t->k, a.ino);
	if (rnd(3) == 0)
		random_xattrs(t->k, a.ino, type == S_IFLNK);
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
		OK(keys_unlink(t->k, t->nodes[i].dir, t->nodes[i].name, strlen(t->nodes[i].name), &ino, &nlink));
		t->nodes[i].dead = true;
		memcpy(t->nodes[i].name, "gone", 5);
		if (nlink == 0 && rnd(2))
			while (keys_reap(t->k, ino) > 0)
				;
	}
}

static struct keys *random_store(const char *path, unsigned count)
{
	struct tree_of_keys t = { .dirs = { KEYS_ROOT_INO }, .dir_count = 1 };

	t.k = open_keys(path, true);
	while (t.count < count) {
		random_make(&t);
		if (t.count % 3 == 0)
			random_change(&t);
		OK(store_poll(keys_store(t.k)));
	}
	random_xattrs(t.k, KEYS_ROOT_INO, false);
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

	OK(keys_listxattr(ka, ino, names, sizeof names, &na));
	OK(keys_listxattr(kb, ino, other, sizeof other, &nb));
	assert_int_equal(na, nb);
	for (at = 0; at < na; at += strlen(names + at) + 1) {
		OK(keys_getxattr(ka, ino, names + at, va, sizeof va, &la));
		OK(keys_getxattr(kb, ino, names + at, vb, sizeof vb, &lb));
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

	OK(keys_lookup(l->other, l->dir, e->name, e->len, &a));
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

		OK(extent_decode(v, len, cursor_key(&c), &e));
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
		OK(keys_seek(k, a->ino, data, SEEK_HOLE, &hole));
		while (data < hole) {
			OK(keys_read(k, a->ino, data, min_u64(hole - data, 1 << 20), iov, ARRAY_LEN(iov), &n, &bytes));
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

	OK(keys_getattr(ka, ino, &a));
	OK(keys_getattr(kb, ino, &b));
	same_attr(&a, &b);
	same_xattrs(ka, kb, ino);
	if (S_ISDIR(a.mode)) {
		OK(keys_readdir(ka, ino, 0, same_entry, &la));
		OK(keys_readdir(kb, ino, 0, same_entry, &lb));
		assert_int_equal(la.count, lb.count);
		assert_int_equal(la.count, a.size + 2);
	} else if (S_ISREG(a.mode)) {
		assert_int_equal(contents_hash(ka, &a), contents_hash(kb, &b));
	} else if (S_ISLNK(a.mode)) {
		OK(keys_readlink(ka, ino, ta, sizeof ta, &na));
		OK(keys_readlink(kb, ino, tb, sizeof tb, &nb));
		assert_int_equal(na, nb);
		assert_memory_equal(ta, tb, na);
	}
}

/* Next inode, orphans left out. 0: none. */
static uint64_t next_inode(struct keys *k, uint64_t ino)
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

static void assert_same(struct keys *ka, struct keys *kb)
{
	struct store_status st;
	uint64_t a = 0, b = 0, n = 0;

	while ((a = next_inode(ka, a)) != 0) {
		b = next_inode(kb, b);
		assert_int_equal(a, b);
		same_inode(ka, kb, a);
		n++;
	}
	assert_int_equal(next_inode(kb, b), 0);
	store_status(keys_store(kb), &st);
	assert_int_equal(st.inodes, n);
	assert_int_equal(store_counts(keys_store(ka))->next_ino, store_counts(keys_store(kb))->next_ino);
}

/* Round trips -------------------------------------------------------------------------------------------------------- */

static void round_trip(struct keys *ka)
{
	struct bytes first = dump_keys(ka), second;
	struct keys *kb = load_ok(first, path_b);

	assert_same(ka, kb);
	second = dump_keys(kb);
	assert_int_equal(first.len, second.len);
	assert_memory_equal(first.p, second.p, first.len);
	OK(keys_close(kb));
	assert_int_equal(unlink(path_b), 0);
	free(first.p);
	free(second.p);
}

static void test_stream__an_empty_store(void **state)
{
	struct keys *k = open_keys(":memory:", true);

	(void)state;
	round_trip(k);
	OK(keys_close(k));
}

static void test_stream__random_trees(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < 6; i++) {
		struct keys *k;

		rng = seed + i;
		k = random_store(":memory:", 40 + 60 * i);
		round_trip(k);
		OK(keys_close(k));
	}
	assert_int_equal(files_in_folder(), 0);
}

/* A loaded store works on: new things get new numbers, what is there can be changed and removed. */
static void test_stream__a_loaded_store_goes_on(void **state)
{
	const struct keys_cred cred = { 0 };
	struct keys *k, *kb;
	struct bytes b;
	struct keys_attr a, was;
	uint64_t ino = 0, next;

	(void)state;
	k = random_store(":memory:", 100);
	next = store_counts(keys_store(k))->next_ino;
	b = dump_keys(k);
	kb = load_ok(b, path_b);
	OK(keys_close(kb));
	kb = open_keys(path_b, true);
	OK(keys_make(kb, KEYS_ROOT_INO, "new", 3, S_IFREG | 0600, 0, &cred, &a));
	assert_int_equal(a.ino, next);
	while ((ino = next_inode(kb, ino)) != 0) {
		OK(keys_getattr(kb, ino, &was));
		if (S_ISREG(was.mode))
			random_contents(kb, ino);
		random_xattrs(kb, ino, S_ISLNK(was.mode));
	}
	OK(keys_close(kb));
	kb = open_keys(path_b, false);
	free(b.p);
	b = dump_keys(kb);
	free(b.p);
	OK(keys_close(kb));
	OK(keys_close(k));
	assert_int_equal(unlink(path_b), 0);
}

/* The order of names is the stream's own, so how they came into the store does not show. */
static void test_stream__history_does_not_show(void **state)
{
	const struct keys_cred cred = { 0 };
	struct bytes b[2];
	unsigned i, j;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct keys *k = open_keys(":memory:", true);
		struct keys_setattr set = { .mask = KEYS_SET_ATIME | KEYS_SET_MTIME | KEYS_SET_CTIME };
		struct keys_attr a, root;
		size_t n;

		OK(keys_make(k, KEYS_ROOT_INO, "f", 1, S_IFREG | 0600, 0, &cred, &a));
		for (j = 0; j < 200; j++) {
			char name[16];
			uint8_t page[BLOCK_SIZE];
			/* Both ways round: in order and against it. */
			unsigned m = i ? 199 - j : j;

			snprintf(name, sizeof name, "name%u", m);
			OK(keys_link(k, a.ino, KEYS_ROOT_INO, name, strlen(name), &root));
			snprintf(name, sizeof name, "user.%u", m);
			OK(keys_setxattr(k, a.ino, name, name, strlen(name), 0, false));
			memset(page, (int)m, sizeof page);
			OK(keys_write(k, a.ino, (uint64_t)m * sizeof page, page, sizeof page, false, &n));
		}
		OK(keys_setattr(k, a.ino, &set, &a));
		OK(keys_setattr(k, KEYS_ROOT_INO, &set, &root));
		b[i] = dump_keys(k);
		OK(keys_close(k));
	}
	/* Only the birth times may differ: 2 inodes, at the beginning of the first frame. */
	assert_int_equal(get_le32(b[0].p + STREAM_HEADER + FRAME_LEN), get_le32(b[1].p + STREAM_HEADER + FRAME_LEN));
	for (i = 0; i < 2; i++) {
		static uint8_t raw[2][FRAME_RAW];
		uint32_t len = get_le32(b[i].p + STREAM_HEADER + FRAME_LEN);
		uint8_t *p = raw[i];
		size_t n = ZSTD_decompress(raw[i], FRAME_RAW, b[i].p + STREAM_HEADER + FRAME_HEADER,
					   get_le32(b[i].p + STREAM_HEADER + FRAME_PACKED));

		assert_int_equal(n, len);
		while (p < raw[i] + len) {
			if (get_le32(p + ITEM_KIND) == STREAM_INODE) {
				memset(p + ITEM_HEADER + SI_NSEC + 12, 0, 4);
				memset(p + ITEM_HEADER + SI_SEC + 24, 0, 8);
			}
			p += ITEM_HEADER + get_le32(p + ITEM_LEN);
		}
		if (i == 1)
			assert_memory_equal(raw[0], raw[1], len);
	}
	free(b[0].p);
	free(b[1].p);
}

/* Dumps of a store that nobody closed, and of one that somebody has open. */
static void test_stream__a_store_that_was_killed(void **state)
{
	struct keys *k, *ka, *kb;
	struct bytes b;
	pid_t pid;
	int status;

	(void)state;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		k = random_store(path_a, 120);
		_exit(k ? 0 : 1);       /* no keys_close(): as kill -9 leaves it */
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	ka = open_keys(path_a, false);
	b = dump_keys(ka);
	kb = load_ok(b, path_b);
	assert_same(ka, kb);
	OK(keys_close(kb));
	OK(keys_close(ka));
	free(b.p);
	assert_int_equal(unlink(path_a), 0);
	assert_int_equal(unlink(path_b), 0);
}

static void test_stream__a_snapshot_while_written_to(void **state)
{
	struct store_options o = { .path = path_a, .read_only = true, .snapshot = true };
	const struct keys_cred cred = { 0 };
	struct bytes before, during;
	struct keys *k, *snap;
	struct keys_attr a;
	unsigned i;

	(void)state;
	k = random_store(path_a, 100);
	OK(store_checkpoint(keys_store(k)));
	before = dump_keys(k);
	o.snapshot = false;
	assert_int_equal(keys_open(&o, &snap), -EBUSY);
	o.snapshot = true;
	OK(keys_open(&o, &snap));
	for (i = 0; i < 200; i++) {
		uint64_t ino = 0;
		char name[16];

		snprintf(name, sizeof name, "late%u", i);
		OK(keys_make(k, KEYS_ROOT_INO, name, strlen(name), S_IFREG | 0644, 0, &cred, &a));
		while (i % 50 == 0 && (ino = next_inode(k, ino)) != 0) {
			OK(keys_getattr(k, ino, &a));
			if (S_ISREG(a.mode))
				random_contents(k, ino);
			OK(store_poll(keys_store(k)));
		}
		if (i % 10 == 0)
			OK(store_checkpoint(keys_store(k)));
	}
	during = dump_keys(snap);
	assert_int_equal(before.len, during.len);
	assert_memory_equal(before.p, during.p, before.len);
	OK(keys_close(snap));
	OK(keys_close(k));
	free(before.p);
	free(during.p);
	assert_int_equal(unlink(path_a), 0);
}

/* Bad streams -------------------------------------------------------------------------------------------------------- */

/* bytes: whole MiB. */
static void put_big_file(struct keys *k, size_t bytes)
{
	const struct keys_cred cred = { 0 };
	static uint8_t buf[1 << 20];
	struct keys_attr a;
	size_t n, off;

	OK(keys_make(k, KEYS_ROOT_INO, "big", 3, S_IFREG | 0644, 0, &cred, &a));
	for (off = 0; off < bytes; off += sizeof buf) {
		random_bytes(buf, sizeof buf);
		OK(keys_write(k, a.ino, off, buf, sizeof buf, false, &n));
		OK(store_poll(keys_store(k)));
	}
}

static struct bytes some_stream(unsigned count)
{
	struct keys *k;
	struct bytes b;

	k = random_store(":memory:", count);
	b = dump_keys(k);
	OK(keys_close(k));
	return b;
}

static size_t next_frame(struct bytes b, size_t at)
{
	return at + FRAME_HEADER + get_le32(b.p + at + FRAME_PACKED);
}

static void test_stream__cut_short(void **state)
{
	struct bytes b = some_stream(100);
	size_t at;
	unsigned i;

	(void)state;
	for (at = STREAM_HEADER; at < b.len; at = next_frame(b, at)) {
		assert_refused(b.p, at, "cut before a frame", at);
		assert_refused(b.p, at + FRAME_HEADER, "cut behind a frame's header", at);
	}
	assert_int_equal(at, b.len);
	for (i = 0; i < 40; i++) {
		at = rnd((uint32_t)b.len);
		assert_refused(b.p, at, "cut", at);
	}
	assert_refused(b.p, b.len - 1, "cut", b.len - 1);
	b.p[b.len] = 0;
	assert_refused(b.p, b.len + 1, "something behind the end", b.len);
	free(b.p);
}

static void test_stream__flipped_bits(void **state)
{
	struct bytes b = some_stream(60);
	unsigned i;

	(void)state;
	for (i = 0; i < 120; i++) {
		/* Headers more often than chance would have it. */
		size_t at = i < 32 + FRAME_HEADER ? i : rnd((uint32_t)b.len);
		uint8_t bit = (uint8_t)(1u << rnd(8));

		b.p[at] ^= bit;
		assert_refused(b.p, b.len, "flipped", at);
		b.p[at] ^= bit;
	}
	free(b.p);
}

static void test_stream__frames_out_of_place(void **state)
{
	struct keys *k = open_keys(":memory:", true);
	struct bytes b, c;
	size_t first = STREAM_HEADER, second, third;

	(void)state;
	put_big_file(k, 3u << 20);
	b = dump_keys(k);
	OK(keys_close(k));
	second = next_frame(b, first);
	third = next_frame(b, second);
	assert_true(third < b.len);     /* at least two frames of items */
	c.p = malloc(2 * b.len);
	assert_non_null(c.p);
	/* One is missing. */
	memcpy(c.p, b.p, first);
	memcpy(c.p + first, b.p + second, b.len - second);
	assert_refused(c.p, b.len - (second - first), "frame missing", first);
	/* One comes twice. */
	memcpy(c.p, b.p, second);
	memcpy(c.p + second, b.p + first, b.len - first);
	assert_refused(c.p, b.len + (second - first), "frame twice", second);
	/* Two have changed places. */
	memcpy(c.p + first, b.p + second, third - second);
	memcpy(c.p + first + (third - second), b.p + first, second - first);
	memcpy(c.p + third, b.p + third, b.len - third);
	assert_refused(c.p, b.len, "frames swapped", first);
	/* Two streams, one behind the other. */
	memcpy(c.p, b.p, b.len);
	memcpy(c.p + b.len, b.p, b.len);
	assert_refused(c.p, 2 * b.len, "two streams", b.len);
	free(c.p);
	free(b.p);
}

static void test_stream__garbage(void **state)
{
	static uint8_t p[100000];
	unsigned i;

	(void)state;
	assert_refused(p, 0, "nothing", 0);
	assert_refused(p, sizeof p, "zeros", 0);
	assert_refused((const uint8_t *)STREAM_MAGIC, 8, "magic", 0);
	for (i = 0; i < 20; i++) {
		random_bytes(p, sizeof p);
		if (i & 1)
			memcpy(p, STREAM_MAGIC, STREAM_MAGIC_LEN);
		assert_refused(p, 1 + rnd(sizeof p - 1), "garbage", i);
	}
}

static void test_stream__a_newer_version(void **state)
{
	struct bytes b = some_stream(5);

	(void)state;
	put_le32(b.p + STREAM_H_VERSION, STREAM_VERSION + 1);
	put_le64(b.p + STREAM_H_CHECK, hash64(b.p, STREAM_H_CHECK, 0));
	assert_refused(b.p, b.len, "newer", 0);
	assert_int_equal(load_bytes(path_b, b.p, b.len, 0), -EPROTONOSUPPORT);
	free(b.p);
}

/* Hostile: whole frames with right checksums that say wrong things ------------------------------------------------------- */

struct hostile {
	uint8_t raw[65536];
	uint32_t len;
	struct stream_counts counts;
	uint64_t next_ino;
};

static uint8_t *put_item(struct hostile *h, uint32_t kind, uint32_t len)
{
	uint8_t *p = h->raw + h->len;

	put_le32(p, kind);
	put_le32(p + 4, len);
	memset(p + ITEM_HEADER, 0, len);
	h->len += ITEM_HEADER + len;
	return p + ITEM_HEADER;
}

static uint8_t *put_inode(struct hostile *h, uint64_t ino, uint32_t mode, uint32_t nlink, uint64_t size, uint64_t aux)
{
	uint8_t *p = put_item(h, STREAM_INODE, SI_LEN);

	put_le64(p + SI_INO, ino);
	put_le32(p + SI_MODE, mode);
	put_le32(p + SI_NLINK, nlink);
	put_le64(p + SI_SIZE, size);
	put_le64(p + SI_AUX, aux);
	h->counts.inodes++;
	return p;
}

static void put_entry(struct hostile *h, const char *name, uint64_t ino, uint32_t type)
{
	uint8_t *p = put_item(h, STREAM_ENTRY, SE_LEN + (uint32_t)strlen(name));

	put_le64(p + SE_INO, ino);
	p[SE_TYPE] = (uint8_t)(type >> 12);
	p[SE_NAME_LEN] = (uint8_t)strlen(name);
	memcpy(p + SE_LEN, name, strlen(name));
	h->counts.entries++;
}

static void put_data(struct hostile *h, uint64_t off, uint32_t len)
{
	uint8_t *p = put_item(h, STREAM_DATA, SD_LEN + len);

	put_le64(p + SD_OFFSET, off);
	memset(p + SD_LEN, 'd', len);
	h->counts.data_bytes += len;
}

static void put_unwritten(struct hostile *h, uint64_t off, uint64_t len)
{
	uint8_t *p = put_item(h, STREAM_UNWRITTEN, SU_LEN);

	put_le64(p + SU_OFFSET, off);
	put_le64(p + SU_BYTES, len);
	h->counts.unwritten_bytes += len;
}

static void put_xattr(struct hostile *h, const char *name, const void *value, uint32_t len)
{
	uint32_t n = (uint32_t)strlen(name);
	uint8_t *p = put_item(h, STREAM_XATTR, SX_LEN + n + len);

	p[SX_NAME_LEN] = (uint8_t)n;
	put_le32(p + SX_VALUE_LEN, len);
	memcpy(p + SX_LEN, name, n);
	memcpy(p + SX_LEN + n, value, len);
	h->counts.xattrs++;
}

static size_t seal_frame(uint8_t *to, uint32_t kind, uint32_t raw, uint32_t packed, uint64_t number)
{
	memset(to, 0, FRAME_HEADER);
	put_le32(to + FRAME_KIND, kind);
	put_le32(to + FRAME_LEN, raw);
	put_le32(to + FRAME_PACKED, packed);
	put_le64(to + FRAME_CHECK, hash64(to + 8, FRAME_HEADER - 8 + packed, number));
	return FRAME_HEADER + packed;
}

static int load_hostile(const struct hostile *h)
{
	static uint8_t out[200000];
	uint8_t *p = out + STREAM_HEADER;
	size_t packed;

	memset(out, 0, STREAM_HEADER);
	memcpy(out, STREAM_MAGIC, STREAM_MAGIC_LEN);
	put_le32(out + STREAM_H_VERSION, STREAM_VERSION);
	put_le64(out + STREAM_H_CHECK, hash64(out, STREAM_H_CHECK, 0));
	packed = ZSTD_compress(p + FRAME_HEADER, 100000, h->raw, h->len, 1);
	assert_false(ZSTD_isError(packed));
	p += seal_frame(p, FRAME_ITEMS, h->len, (uint32_t)packed, 0);
	put_le64(p + FRAME_HEADER + END_FRAMES, 1);
	put_le64(p + FRAME_HEADER + END_INODES, h->counts.inodes);
	put_le64(p + FRAME_HEADER + END_ENTRIES, h->counts.entries);
	put_le64(p + FRAME_HEADER + END_XATTRS, h->counts.xattrs);
	put_le64(p + FRAME_HEADER + END_DATA, h->counts.data_bytes);
	put_le64(p + FRAME_HEADER + END_UNWRITTEN, h->counts.unwritten_bytes);
	put_le64(p + FRAME_HEADER + END_NEXT_INO, h->next_ino ? h->next_ino : 1000);
	put_le64(p + FRAME_HEADER + END_TOTAL, hash64(h->raw, h->len, 0));
	p += seal_frame(p, FRAME_END, END_LEN, END_LEN, 1);
	return load_bytes(path_b, out, (size_t)(p - out), SMALL_STORE);
}

#define FILE_MODE (S_IFREG | 0644)
#define DIR_MODE  (S_IFDIR | 0755)

/* A root directory with one file in it, whose number is 16. */
static void with_file(struct hostile *h, uint64_t size)
{
	put_inode(h, 1, DIR_MODE, 2, 1, 1);
	put_entry(h, "file", 16, S_IFREG);
	put_inode(h, 16, FILE_MODE, 1, size, 0);
}

static const uint8_t bad_acl[] = { 2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255 };

static void lie(struct hostile *h, unsigned which)
{
	switch (which) {
	case 0:  put_inode(h, 16, FILE_MODE, 1, 0, 0); break;
	case 1:  put_inode(h, 1, FILE_MODE, 1, 0, 0); break;
	case 2:  put_inode(h, 1, DIR_MODE, 2, 0, 7); break;
	case 3:  put_inode(h, 1, DIR_MODE, 3, 0, 1); break;
	case 4:  put_inode(h, 1, DIR_MODE, 2, 1, 1); break;
	case 5:  with_file(h, 0); put_inode(h, 16, FILE_MODE, 1, 0, 0); break;
	case 6:  with_file(h, 0); put_inode(h, 17, FILE_MODE, 1, 0, 0); break;
	case 7:  with_file(h, 0); put_inode(h, 15, FILE_MODE, 1, 0, 0); break;
	case 8:  put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "x", 16, S_IFREG); break;
	case 9:  put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "x", 16, S_IFIFO);
		 put_inode(h, 16, FILE_MODE, 1, 0, 0); break;
	case 10: put_inode(h, 1, DIR_MODE, 2, 2, 1); put_entry(h, "x", 16, S_IFREG); put_entry(h, "x", 16, S_IFREG);
		 put_inode(h, 16, FILE_MODE, 2, 0, 0); break;
	case 11: put_inode(h, 1, DIR_MODE, 2, 2, 1); put_entry(h, "y", 16, S_IFREG); put_entry(h, "x", 16, S_IFREG);
		 put_inode(h, 16, FILE_MODE, 2, 0, 0); break;
	case 12: put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "a/b", 16, S_IFREG);
		 put_inode(h, 16, FILE_MODE, 1, 0, 0); break;
	case 13: put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "..", 16, S_IFREG);
		 put_inode(h, 16, FILE_MODE, 1, 0, 0); break;
	case 14: put_inode(h, 1, DIR_MODE, 4, 2, 1); put_entry(h, "a", 16, S_IFDIR); put_entry(h, "b", 16, S_IFDIR);
		 put_inode(h, 16, DIR_MODE, 2, 0, 1); break;
	case 15: put_inode(h, 1, DIR_MODE, 3, 1, 1); put_entry(h, "a", 16, S_IFDIR);
		 put_inode(h, 16, DIR_MODE, 2, 0, 16); break;
	/* Two directories in each other, the root empty. */
	case 16: put_inode(h, 1, DIR_MODE, 2, 0, 1);
		 put_inode(h, 16, DIR_MODE, 3, 1, 17); put_entry(h, "a", 17, S_IFDIR);
		 put_inode(h, 17, DIR_MODE, 3, 1, 16); put_entry(h, "b", 16, S_IFDIR); break;
	/* A directory in itself. */
	case 17: put_inode(h, 1, DIR_MODE, 2, 0, 1);
		 put_inode(h, 16, DIR_MODE, 3, 1, 16); put_entry(h, "a", 16, S_IFDIR); break;
	/* The root in a directory. */
	case 18: put_inode(h, 1, DIR_MODE, 3, 1, 1); put_entry(h, "a", 16, S_IFDIR);
		 put_inode(h, 16, DIR_MODE, 3, 1, 1); put_entry(h, "b", 1, S_IFDIR); break;
	case 19: with_file(h, 10); put_data(h, 0, 11); break;
	case 20: with_file(h, 10); put_data(h, 4096, 4096); break;
	case 21: with_file(h, 9000); put_data(h, 100, 4096); break;
	case 22: with_file(h, 9000); put_data(h, 4096, 4096); put_data(h, 0, 4096); break;
	case 23: with_file(h, 9000); put_data(h, 0, 100); break;
	case 24: with_file(h, 9000); put_unwritten(h, 0, 4097); break;
	case 25: with_file(h, 9000); put_unwritten(h, UINT64_MAX - 4095, 4096); break;
	case 26: with_file(h, 9000); put_unwritten(h, 4096, UINT64_MAX - 4095); break;
	case 27: with_file(h, 0); put_unwritten(h, 0, (uint64_t)1 << 62); break;       /* no disk is that large */
	case 28: with_file(h, UINT64_MAX); break;
	case 29: with_file(h, 0); put_entry(h, "x", 16, S_IFREG); break;
	case 30: with_file(h, 0); put_xattr(h, "system.posix_acl_access", bad_acl, sizeof bad_acl); break;
	case 31: with_file(h, 0); put_xattr(h, "user.b", "1", 1); put_xattr(h, "user.a", "2", 1); break;
	case 32: with_file(h, 0); put_xattr(h, "", "1", 1); break;
	case 33: with_file(h, 0); put_le32(put_item(h, STREAM_XATTR, SX_LEN + 9) + SX_VALUE_LEN, 1u << 30); break;
	case 34: with_file(h, 0); put_item(h, 99, 16); break;
	case 35: with_file(h, 0); put_item(h, STREAM_ENTRY, 3); break;
	case 36: with_file(h, 0); put_item(h, STREAM_DATA, 3); break;
	case 37: with_file(h, 0); put_item(h, STREAM_INODE, 50); break;
	case 38: with_file(h, 0); h->len -= 20; break;
	case 39: put_data(h, 0, 4096); break;
	case 40: put_unwritten(h, 0, 4096); break;
	case 41: put_xattr(h, "user.a", "1", 1); break;
	case 42: put_entry(h, "a", 16, S_IFREG); break;
	case 43: with_file(h, 0); h->next_ino = 16; break;
	case 44: with_file(h, 0); h->next_ino = UINT64_MAX; break;
	case 45: with_file(h, 0); h->counts.inodes++; break;
	case 46: put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "l", 16, S_IFLNK);
		 put_inode(h, 16, S_IFLNK | 0777, 1, 20, 0); break;
	case 47: put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "l", 16, S_IFLNK);
		 put_inode(h, 16, S_IFLNK | 0777, 1, 0, 0); break;
	case 48: put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "l", 16, S_IFIFO);
		 put_inode(h, 16, S_IFIFO | 0777, 1, 20, 0); break;
	case 49: put_inode(h, 1, DIR_MODE, 2, 0, 1); put_le32(h->raw + ITEM_HEADER + SI_NSEC, 1000000000); break;
	case 50: put_inode(h, 1, DIR_MODE, 2, 0, 1); put_le32(h->raw + ITEM_HEADER + SI_FLAGS, 2); break;
	case 51: put_inode(h, 1, DIR_MODE, 2, 0, 1); put_le32(h->raw + ITEM_HEADER + SI_FLAGS, 1); break;
	case 52: put_inode(h, 1, DIR_MODE | 0200000, 2, 0, 1); break;
	case 53: put_inode(h, 1, DIR_MODE, 2, 1, 1); put_entry(h, "f", 16, S_IFREG);
		 put_inode(h, 16, FILE_MODE, 0, 0, 0); break;
	case 54: with_file(h, 20); put_le32(h->raw + h->len - SI_LEN + SI_FLAGS, 1); put_data(h, 0, 20); break;
	default: fail();
	}
}
#define LIES 55u

static void test_stream__hostile_streams(void **state)
{
	struct hostile *h = malloc(sizeof *h);
	unsigned i;

	(void)state;
	assert_non_null(h);
	/* What the lies are made of is well when it does not lie. */
	memset(h, 0, sizeof *h);
	with_file(h, 9000);
	put_xattr(h, "user.a", "1", 1);
	put_data(h, 0, 4096);
	put_unwritten(h, 4096, 4096);
	put_data(h, 8192, 808);
	put_unwritten(h, 12288, 409600);
	OK(load_hostile(h));
	assert_int_equal(unlink(path_b), 0);
	for (i = 0; i < LIES; i++) {
		int r;

		memset(h, 0, sizeof *h);
		lie(h, i);
		r = load_hostile(h);
		if (r != (i == 27 ? -ENOSPC : -EUCLEAN) || *err_last() == '\0' || files_in_folder() != 0)
			fail_msg("lie %u: %d '%s', %u files left", i, r, err_last(), files_in_folder());
	}
	free(h);
}

/* Random changes inside frames whose checksums are made right again: an error or a store, never a crash. */
static void test_stream__random_lies(void **state)
{
	struct hostile *h = malloc(sizeof *h), *good = malloc(sizeof *h);
	unsigned i, j;

	(void)state;
	assert_non_null(h);
	assert_non_null(good);
	rng = seed;
	memset(good, 0, sizeof *good);
	with_file(good, 9000);
	put_xattr(good, "user.a", "1", 1);
	put_data(good, 0, 4096);
	put_unwritten(good, 4096, 4096);
	put_data(good, 8192, 808);
	for (i = 0; i < 300; i++) {
		*h = *good;
		for (j = 0; j <= rnd(3); j++)
			/* Not the data: they may be anything. */
			h->raw[rnd(4) ? rnd(300) : rnd(h->len)] ^= (uint8_t)(1u << rnd(8));
		if (load_hostile(h) == 0) {
			OK(keys_close(open_keys(path_b, false)));
			assert_int_equal(unlink(path_b), 0);
		}
		assert_int_equal(files_in_folder(), 0);
	}
	free(h);
	free(good);
}

/* Failing otherwise ---------------------------------------------------------------------------------------------------- */

static void test_stream__what_is_there_stays(void **state)
{
	struct bytes b = some_stream(5);
	int fd = open(path_b, O_CREAT | O_WRONLY | O_EXCL | O_CLOEXEC, 0600);
	struct stat st;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "mine", 4), 4);
	close(fd);
	assert_int_equal(load_bytes(path_b, b.p, b.len, 0), -EEXIST);
	assert_int_equal(stat(path_b, &st), 0);
	assert_int_equal(st.st_size, 4);
	assert_int_equal(unlink(path_b), 0);
	free(b.p);
}

static void test_stream__a_store_too_small(void **state)
{
	struct keys *k = open_keys(":memory:", true);
	struct bytes b;

	(void)state;
	put_big_file(k, 20u << 20);
	b = dump_keys(k);
	OK(keys_close(k));
	assert_int_equal(load_bytes(path_b, b.p, b.len, SMALL_STORE), -ENOSPC);
	assert_int_equal(files_in_folder(), 0);
	k = load_ok(b, path_b);
	OK(keys_close(k));
	assert_int_equal(unlink(path_b), 0);
	free(b.p);
}

static int stop_at_once(void *ctx, const struct stream_counts *counts)
{
	(void)ctx;
	(void)counts;
	return -EINTR;
}

static void test_stream__stopped(void **state)
{
	const struct stream_watch watch = { stop_at_once, NULL };
	struct stream_target target = { .path = path_b };
	struct stream_counts counts;
	struct bytes b = some_stream(100);
	int fd = memory_file(b.p, b.len);

	(void)state;
	assert_int_equal(stream_load(&target, fd, &watch, &counts), -EINTR);
	assert_int_equal(files_in_folder(), 0);
	close(fd);
	free(b.p);
}

static void test_stream__the_disk_of_the_stream_is_full(void **state)
{
	struct stream_counts counts;
	struct keys *k;
	int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	(void)state;
	/* Not skip(): "not ok" in cmocka's TAP. */
	if (fd < 0) {
		print_message("# left out: no /dev/full\n");
		return;
	}
	k = random_store(":memory:", 20);
	assert_int_equal(stream_dump(k, fd, NULL, &counts), -ENOSPC);
	OK(keys_close(k));
	close(fd);
}

/* Names in order, however few fit at once. */
static int see_name(void *ctx, const struct sorted_name *n)
{
	struct sorted_name *last = ctx;
	int order = last->name ? memcmp(last->name, n->name, min_u64(last->len, n->len)) : -1;

	assert_true(order < 0 || (order == 0 && last->len < n->len));
	last->value_len++;              /* counts */
	last->name = n->name;
	last->len = n->len;
	return 0;
}

static void test_stream__names_in_many_passes(void **state)
{
	static const size_t keeps[] = { 1, 2, 7, 64, 499, 500, 501, 100000 };
	const struct keys_cred cred = { 0 };
	struct keys *k = open_keys(":memory:", true);
	struct keys_attr a;
	unsigned i;

	(void)state;
	for (i = 0; i < 500; i++) {
		char name[300];
		unsigned len = 1 + rnd(rnd(4) ? 12 : 250);

		memset(name, 'a', len);
		snprintf(name + len, 8, "%u", i);
		OK(keys_make(k, KEYS_ROOT_INO, name, min_u64(strlen(name), 255), FILE_MODE, 0, &cred, &a));
	}
	for (i = 0; i < ARRAY_LEN(keeps); i++) {
		struct sorted_name last = { 0 };

		OK(sorted_names(store_tree(keys_store(k)), item_key(KEYS_ROOT_INO, ITEM_DIRENT, 0).hi, keeps[i],
				see_name, &last));
		assert_int_equal(last.value_len, 500);
	}
	OK(keys_close(k));
}

/* What a test that failed has left is not the next one's. */
static int begin(void **state)
{
	(void)state;
	(void)unlink(path_a);
	(void)unlink(path_b);
	rng = seed;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_stream__an_empty_store, begin),
		cmocka_unit_test_setup(test_stream__random_trees, begin),
		cmocka_unit_test_setup(test_stream__a_loaded_store_goes_on, begin),
		cmocka_unit_test_setup(test_stream__history_does_not_show, begin),
		cmocka_unit_test_setup(test_stream__a_store_that_was_killed, begin),
		cmocka_unit_test_setup(test_stream__a_snapshot_while_written_to, begin),
		cmocka_unit_test_setup(test_stream__cut_short, begin),
		cmocka_unit_test_setup(test_stream__flipped_bits, begin),
		cmocka_unit_test_setup(test_stream__frames_out_of_place, begin),
		cmocka_unit_test_setup(test_stream__garbage, begin),
		cmocka_unit_test_setup(test_stream__a_newer_version, begin),
		cmocka_unit_test_setup(test_stream__hostile_streams, begin),
		cmocka_unit_test_setup(test_stream__random_lies, begin),
		cmocka_unit_test_setup(test_stream__what_is_there_stays, begin),
		cmocka_unit_test_setup(test_stream__a_store_too_small, begin),
		cmocka_unit_test_setup(test_stream__stopped, begin),
		cmocka_unit_test_setup(test_stream__the_disk_of_the_stream_is_full, begin),
		cmocka_unit_test_setup(test_stream__names_in_many_passes, begin),
	};
	const char *given = getenv("SEED"), *tmp = getenv("TMPDIR");
	unsigned fds;
	int failed;

	seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid() % 1000;
	printf("# SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout);
	snprintf(folder, sizeof folder, "%.40s/test_stream.XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(folder))
		return 1;
	snprintf(path_a, sizeof path_a, "%s/a", folder);
	snprintf(path_b, sizeof path_b, "%s/b", folder);
	fds = open_fds();
	failed = cmocka_run_group_tests_name("stream", tests, NULL, NULL);
	if (failed == 0 && open_fds() != fds) {
		printf("# descriptors are left open\n");
		failed = 1;
	}
	(void)unlink(path_a);
	(void)unlink(path_b);
	(void)rmdir(folder);
	return failed;
}
