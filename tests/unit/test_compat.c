/* SPDX-License-Identifier: MIT
 *
 * test_compat: stores that each released format version made (tests/compat/vN) are opened by this build: they show what
 * their manifests say, check finds nothing, and they can be worked with. And what this build does not know is refused, or
 * opened as far as it may be.
 *
 * The stores: one that was closed, one that was killed, a full one; and of a cluster the primary and a replica that it fed,
 * both killed, and a replica whose first sync was not done.
 *
 *   test_compat --make DIR   makes the stores and manifests of the present version that are not there (tests/compat/make.sh)
 */
#include "tests/unit/scratch_util.h"
#include "tests/unit/view_util.h"

#include "core/check/check.h"
#include "core/keys/cluster.h"
#include "core/keys/keys_int.h"
#include "core/replica/change.h"
#include "core/salvage/salvage.h"
#include "core/store/super.h"

#include <fcntl.h>
#include <glob.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <zstd.h>

#define FOLDER     "tests/compat"
#define FILE_MAX   (16u << 20)
#define TEXT_MAX   (1u << 20)

static char path[SCRATCH_PATH], new_path[SCRATCH_PATH];
static const struct keys_cred cred = { 1000, 100, 022 };
static uint64_t epoch_max = UINT64_MAX; /* later ones are of openings since: no manifest has them */

static void done(int r, int line)
{
	if (r < 0) {
		(void)fprintf(stderr, "line %d: %d: %s\n", line, r, err_last());
		abort();
	}
}
#define ok(r) done((r), __LINE__)

/* The manifest ------------------------------------------------------------------------------------------------------ */

struct text {
	char *p;
	size_t len;
};

static void add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(struct text *t, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	t->len += (size_t)vsnprintf(t->p + t->len, TEXT_MAX - t->len, format, ap);
	va_end(ap);
	check(t->len < TEXT_MAX);
}

static void add_time(struct text *t, const char *name, struct keys_time time)
{
	add(t, " %s=%lld.%09u", name, (long long)time.sec, time.nsec);
}

static void add_node(struct text *t, const struct view_node *n)
{
	uint8_t pair[16];
	uint64_t sum = 0;
	size_t i;

	add(t, "inode %llu mode=0%o nlink=%u uid=%u gid=%u size=%llu aux=%llu blocks=%llu", (unsigned long long)n->a.ino,
	    n->a.mode, n->a.nlink, n->a.uid, n->a.gid, (unsigned long long)n->a.size, (unsigned long long)n->a.aux,
	    (unsigned long long)n->a.blocks);
	add_time(t, "atime", n->a.atime);
	add_time(t, "mtime", n->a.mtime);
	add_time(t, "ctime", n->a.ctime);
	add_time(t, "btime", n->a.btime);
	for (i = 0; i < n->block_count; i++) {
		put_le64(pair, n->blocks[i].fblock);
		put_le64(pair + 8, n->blocks[i].hash);
		sum = hash64(pair, sizeof pair, sum);
	}
	add(t, " data=%zu:%016llx\n", n->block_count, (unsigned long long)sum);
	for (i = 0; i < n->xattr_count; i++)
		add(t, "  %s=%zu:%016llx\n", n->xattrs[i].name, n->xattrs[i].len, (unsigned long long)n->xattrs[i].hash);
}

static void add_bytes(struct text *t, const char *name, const uint8_t *p, size_t len)
{
	add(t, " %s=", name);
	for (; len > 0; p++, len--)
		add(t, "%02x", *p);
}

/* Calls of a remote mount that are known still. */
static void add_client(struct text *t, struct keys *k, uint64_t client, uint64_t last_seq)
{
	uint64_t request, seq, number;

	add(t, "client %llu last_seq=%llu\n", (unsigned long long)client, (unsigned long long)last_seq);
	for (request = 1; request < 100; request++)
		if (keys_call_result(k, client, request, &seq, &number) == 0)
			add(t, "  call %llu seq=%llu number=%llu\n", (unsigned long long)request, (unsigned long long)seq,
			    (unsigned long long)number);
}

/* What a member of a cluster keeps beside its files. */
static void add_cluster(struct text *t, struct keys *k)
{
	struct keys_epoch e[KEYS_HISTORY_MAX];
	struct store_identity id;
	uint64_t n, seq;
	unsigned count, i;
	bool marked;

	store_identity(k->store, &id);
	if (id.role == STORE_ALONE)
		return;
	add(t, "cluster role=%d promised=%llu incomplete=%d seed=%016llx", (int)id.role, (unsigned long long)id.promised_epoch,
	    id.incomplete, (unsigned long long)store_hash_seed(k->store));
	add_bytes(t, "id", id.cluster, sizeof id.cluster);
	add(t, "\n");
	ok(keys_history(k, e, ARRAY_LEN(e), &count));
	for (i = 0; i < count && e[i].epoch <= epoch_max; i++) {
		add(t, "epoch %llu first_seq=%llu nonce=%016llx next_ino=%llu", (unsigned long long)e[i].epoch,
		    (unsigned long long)e[i].first_seq, (unsigned long long)e[i].nonce, (unsigned long long)e[i].next_ino);
		add_bytes(t, "by", e[i].uuid, sizeof e[i].uuid);
		add(t, "\n");
	}
	for (n = 0; keys_next_client(k, n, &n, &seq) == 0; n++)
		add_client(t, k, n, seq);
	for (n = 0; keys_next_orphan(k, n, &n) == 0; n++) {
		ok(keys_orphan_marked(k, n, &marked));
		add(t, "orphan %llu marked=%d\n", (unsigned long long)n, marked);
	}
}

/* All that the opened store shows, as text. */
static char *manifest(struct keys *k)
{
	struct text t = { malloc(TEXT_MAX), 0 };
	struct view v;
	size_t i;

	check(t.p);
	ok(view_take(&v, k, false));
	for (i = 0; i < v.count; i++)
		add_node(&t, &v.nodes[i]);
	for (i = 0; i < v.name_count; i++)
		add(&t, "name %llu %llu 0%o %s\n", (unsigned long long)v.names[i].dir, (unsigned long long)v.names[i].ino,
		    v.names[i].type, v.names[i].name);
	view_release(&v);
	add_cluster(&t, k);
	return t.p;
}

/* Files ------------------------------------------------------------------------------------------------------------- */

static size_t read_file(const char *name, uint8_t *buf, size_t room)
{
	FILE *f = fopen(name, "rb");
	size_t n;

	check(f);
	n = fread(buf, 1, room, f);
	check(n < room);
	(void)fclose(f);
	return n;
}

/* Zeros are left out, so that a copy of a small store stays small. */
static void write_file(const char *name, const uint8_t *buf, size_t len)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	size_t at;

	check(fd >= 0 && ftruncate(fd, (off_t)len) == 0);
	for (at = 0; at < len; at += BLOCK_SIZE) {
		size_t n = len - at < BLOCK_SIZE ? len - at : BLOCK_SIZE;

		if (buf[at] || memcmp(buf + at, buf + at + 1, n - 1) != 0)
			check(pwrite(fd, buf + at, n, (off_t)at) == (ssize_t)n);
	}
	(void)close(fd);
}

static void pack(const char *from, const char *to)
{
	uint8_t *raw = malloc(FILE_MAX), *packed = malloc(ZSTD_compressBound(FILE_MAX));
	size_t n;

	check(raw && packed);
	n = read_file(from, raw, FILE_MAX);
	n = ZSTD_compress(packed, ZSTD_compressBound(FILE_MAX), raw, n, 19);
	check(!ZSTD_isError(n));
	write_file(to, packed, n);
	free(raw);
	free(packed);
}

static void unpack(const char *from, const char *to)
{
	uint8_t *raw = malloc(FILE_MAX), *packed = malloc(FILE_MAX);
	size_t n;

	check(raw && packed);
	n = read_file(from, packed, FILE_MAX);
	n = ZSTD_decompress(raw, FILE_MAX, packed, n);
	check(!ZSTD_isError(n));
	write_file(to, raw, n);
	free(raw);
	free(packed);
}

/* Making them ------------------------------------------------------------------------------------------------------- */

static uint64_t make(struct keys *k, uint64_t where, const char *name, uint32_t mode)
{
	struct keys_attr a;

	ok(keys_make(k, where, name, strlen(name), mode, 0x105, &cred, &a));
	return a.ino;
}

/* Bytes that pack well. */
static int write_bytes(struct keys *k, uint64_t file, uint64_t off, size_t len)
{
	uint8_t *p = malloc(len);
	size_t n, i;
	int r = 0;

	check(p);
	for (i = 0; i < len; i++)
		p[i] = (uint8_t)((off + i) / BLOCK_SIZE + file);
	for (i = 0; i < len && r == 0; i += n)
		r = keys_write(k, file, off + i, p + i, len - i, false, &n);
	free(p);
	return r;
}

static void some_of_all(struct keys *k, uint64_t where)
{
	static const uint8_t acl[] = { 2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0, 4, 0, 4, 0,
				       255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255,
				       255 };
	struct keys_setattr set = { .mask = KEYS_SET_MTIME | KEYS_SET_UID, .uid = 4000000000u, .mtime = { -86400, 999 } };
	static char value[5000];
	struct keys_attr a;
	char name[64];
	uint64_t file;
	int i;

	for (i = 0; i < 40; i++) {
		(void)snprintf(name, sizeof name, "file %d \xc3\xa4", i);
		file = make(k, where, name, S_IFREG | 0644);
		ok(write_bytes(k, file, 0, (size_t)i * 70 + 1));
	}
	file = make(k, where, "big", S_IFREG | 0600);
	ok(write_bytes(k, file, 0, 200000));
	ok(keys_link(k, file, where, "hard link", 9, &a));
	file = make(k, where, "sparse", S_IFREG | 0600);
	ok(write_bytes(k, file, 1ull << 41, 6000));
	ok(keys_setattr(k, file, &set, &a));
	file = make(k, where, "fallocated", S_IFREG | 0600);
	ok(keys_fallocate(k, file, FALLOC_FL_KEEP_SIZE, 0, 100000, 0));
	ok(write_bytes(k, file, 4096, 4096));
	ok(keys_symlink(k, where, "link", 4, "to/somewhere", 12, &cred, &a));
	memset(value, 'v', sizeof value);
	ok(keys_symlink(k, where, "long link", 9, value, 3000, &cred, &a));
	file = make(k, where, "attributes", S_IFREG | 0664);
	ok(keys_setxattr(k, file, "user.long", value, sizeof value, 0, false));
	ok(keys_setxattr(k, file, "user.empty", "", 0, 0, false));
	ok(keys_setxattr(k, file, ACL_ACCESS_NAME, acl, sizeof acl, 0, false));
	(void)make(k, where, "device", S_IFBLK | 0600);
	(void)make(k, where, "fifo", S_IFIFO | 0600);
	(void)make(k, make(k, where, "directory", S_IFDIR | 02775), "in it", S_IFREG | 0644);
}

static void fill(struct keys *k)
{
	uint64_t file = make(k, KEYS_ROOT_INO, "fills it", S_IFREG | 0600), off = 0;
	size_t step = 65536;

	while (step >= 4096) {
		int r = write_bytes(k, file, off, step);

		if (r == 0)
			off += step;
		else if (r == -ENOSPC)
			step /= 2;
		else
			ok(r == -EAGAIN ? store_poll(keys_store(k)) : r);
	}
}

static bool is_there(const char *folder, const char *name)
{
	char to[512];

	(void)snprintf(to, sizeof to, "%s/%s.zst", folder, name);
	return access(to, F_OK) == 0;
}

/* The store and its manifest, which was taken before if it is closed now. */
static void keep_store(const char *folder, const char *name, const char *from, char *text)
{
	char to[512];

	(void)snprintf(to, sizeof to, "%s/%s.zst", folder, name);
	pack(from, to);
	(void)snprintf(to, sizeof to, "%s/%s.manifest", folder, name);
	write_file(to, (uint8_t *)text, strlen(text));
	free(text);
	(void)printf("%s/%s\n", folder, name);
}

static void make_one(const char *folder, const char *name, bool killed, bool filled)
{
	const struct store_options o = { .path = path, .create = true, .max_bytes = 8u << 20 };
	struct keys *k;
	char *text;

	if (is_there(folder, name))
		return;
	(void)unlink(path);
	ok(keys_open(&o, &k));
	some_of_all(k, make(k, KEYS_ROOT_INO, "before", S_IFDIR | 0755));
	if (filled)
		fill(k);
	if (killed) {
		ok(store_checkpoint(keys_store(k)));
		some_of_all(k, make(k, KEYS_ROOT_INO, "behind", S_IFDIR | 0755));
		ok(keys_rename(k, KEYS_ROOT_INO, "before", 6, KEYS_ROOT_INO, "renamed", 7, 0, &cred, &(uint64_t){ 0 }));
	}
	text = manifest(k);
	if (killed)
		keep_store(folder, name, path, text);   /* as the page cache has it */
	ok(keys_close(k));
	if (!killed)
		keep_store(folder, name, path, text);
}

/* A cluster: each change of the primary is one of the replica. -------------------------------------------------------- */

struct pair {
	struct keys *primary, *replica;
};

static int read_primary(void *ctx, block_t block, uint64_t count, uint8_t *to)
{
	const struct pair *p = ctx;

	return store_read_blocks(keys_store(p->primary), block, count, to);
}

static void feed(void *ctx, const uint8_t *rec, uint32_t len)
{
	static uint8_t bytes[CHANGE_MAX];
	const struct pair *p = ctx;
	uint32_t n;
	int r;

	ok(change_encode(rec, len, read_primary, ctx, bytes, sizeof bytes, &n));
	while ((r = change_apply(p->replica, bytes, n)) == -EAGAIN)
		ok(store_poll(keys_store(p->replica)));
	ok(r);
}

static void become(struct keys *k, enum store_role role, uint64_t promised, bool incomplete)
{
	struct store_identity id = { .role = role, .promised_epoch = promised, .incomplete = incomplete };

	memset(id.cluster, 0xc1, sizeof id.cluster);
	ok(store_put_identity(keys_store(k), &id));
}

static uint64_t call(struct keys *k, uint64_t where, uint64_t client, uint64_t request)
{
	char name[64];
	uint64_t ino;

	(void)snprintf(name, sizeof name, "call %llu of %llu", (unsigned long long)request, (unsigned long long)client);
	keys_set_caller(k, client, request);
	ino = make(k, where, name, S_IFREG | 0644);
	keys_set_caller(k, 0, 0);
	return ino;
}

static void orphan(struct keys *k, bool marked)
{
	uint64_t ino = make(k, KEYS_ROOT_INO, "unlinked", S_IFREG | 0600);
	uint32_t nlink;

	ok(write_bytes(k, ino, 0, 20000));
	ok(keys_unlink(k, KEYS_ROOT_INO, "unlinked", 8, &ino, &nlink));
	if (marked)
		ok(keys_mark_orphan(k, ino));
}

/* More calls than are remembered, contents in the record and outside it, orphans of both kinds. */
static void some_calls(struct keys *k, uint64_t where, uint64_t first)
{
	uint64_t n, file = 0;
	size_t wrote;

	for (n = first; n < first + 40; n++)
		file = call(k, where, 1 + n % 2, n);
	ok(write_bytes(k, file, 0, 3000));
	file = call(k, where, 3ull << 40, first);
	keys_set_caller(k, 3ull << 40, first + 1);
	ok(keys_write(k, file, 4096, "0123456789", 10, false, &wrote));
	keys_set_caller(k, 0, 0);
	ok(write_bytes(k, file, 8192, 100000));
	ok(keys_setxattr(k, file, "user.name", "value", 5, 0, false));
	orphan(k, false);
	orphan(k, true);
}

/* Both are killed. And the replica once more, put aside before its first sync was done. */
static void make_cluster(const char *folder)
{
	struct pair p = { NULL, NULL };
	const struct store_options o = { .path = path, .create = true, .max_bytes = 8u << 20, .committed = feed, .committed_ctx = &p };
	const struct store_options of = { .path = new_path, .create = true, .max_bytes = 8u << 20, .incomplete = true };
	uint64_t where;
	char *text;

	if (is_there(folder, "primary") && is_there(folder, "replica") && is_there(folder, "incomplete"))
		return;
	(void)unlink(path);
	ok(keys_open(&o, &p.primary));
	ok(keys_open(&of, &p.replica));
	become(p.primary, STORE_PRIMARY, 3, false);
	become(p.replica, STORE_REPLICA, 3, false);
	ok(keys_adopt_seed(p.replica, store_hash_seed(keys_store(p.primary))));
	ok(keys_begin_epoch(p.primary, 3));
	where = make(p.primary, KEYS_ROOT_INO, "directory", S_IFDIR | 0755);
	some_calls(p.primary, where, 1);
	ok(store_checkpoint(keys_store(p.primary)));
	ok(store_checkpoint(keys_store(p.replica)));
	become(p.replica, STORE_REPLICA, 1ull << 33, false);
	become(p.primary, STORE_PRIMARY, 1ull << 33, false);
	ok(keys_begin_epoch(p.primary, (1ull << 33) + 1));
	some_calls(p.primary, where, 41);
	keep_store(folder, "primary", path, manifest(p.primary));
	keep_store(folder, "replica", new_path, manifest(p.replica));
	become(p.replica, STORE_REPLICA, 1ull << 33, true);
	text = manifest(p.replica);
	ok(keys_close(p.replica));
	keep_store(folder, "incomplete", new_path, text);
	ok(keys_close(p.primary));
	(void)unlink(new_path);
}

/* Opening them ------------------------------------------------------------------------------------------------------ */

static void tell(void *ctx, const char *text)
{
	(void)ctx;
	print_message("# check: %s\n", text);
}

static void assert_clean(struct keys *k)
{
	const struct check_options o = { .problem = tell };
	struct check_report rep;

	ok(check_run(k, &o, &rep));
	assert_int_equal(rep.problems, 0);
}

static void assert_shows(struct keys *k, const char *want)
{
	char *text = manifest(k);
	size_t i, line = 0;

	for (i = 0; text[i] && text[i] == want[i]; i++)
		line = text[i] == '\n' ? i + 1 : line;
	if (text[i] || want[i])
		fail_msg("it shows\n%.200s\ninstead of\n%.200s", text + line, want + line);
	free(text);
}

static bool incomplete;                 /* the first sync of the store that is tried was not done */

static struct keys *open_again(bool read_only)
{
	const struct store_options o = { .path = path, .read_only = read_only, .incomplete = incomplete };
	struct keys *k;

	ok(keys_open(&o, &k));
	return k;
}

/* It is no state of its primary: who does not say that he fills it does not see it. */
static bool is_incomplete(void)
{
	const struct store_options ro = { .path = path, .read_only = true }, rw = { .path = path };
	struct keys *k;

	if (keys_open(&ro, &k) == 0) {
		ok(keys_close(k));
		return false;
	}
	assert_non_null(strstr(err_last(), "the first sync of this replica was interrupted"));
	assert_int_equal(keys_open(&rw, &k), -EINPROGRESS);
	return true;
}

/* (O10) A primary that was not closed in order, or is below its promise, has begun the next epoch, once; nobody else has. */
static void assert_epochs(struct keys *k, bool was_clean, unsigned opening)
{
	struct keys_epoch e[KEYS_HISTORY_MAX];
	struct store_identity id;
	uint8_t uuid[16];
	unsigned n, begun = 0;

	store_identity(k->store, &id);
	if (id.role == STORE_ALONE)
		return;
	ok(keys_history(k, e, ARRAY_LEN(e), &n));
	while (begun < n && e[n - 1 - begun].epoch > epoch_max)
		begun++;
	assert_int_equal(begun, opening > 0 && id.role == STORE_PRIMARY && (!was_clean || epoch_max < id.promised_epoch));
	assert_true(store_epoch(k->store) == e[n - 1].epoch);
	if (begun == 0)
		return;
	store_uuid(k->store, uuid);
	assert_true(e[n - 1].epoch == max_u64(epoch_max + 1, id.promised_epoch));
	assert_memory_equal(e[n - 1].uuid, uuid, sizeof uuid);
	if (opening == 1)
		assert_true(e[n - 1].first_seq == store_seq(k->store));
}

static void reap_marked(struct keys *k)
{
	uint64_t ino;
	bool marked;
	int r;

	for (ino = 0; keys_next_orphan(k, ino, &ino) == 0; ino++) {
		ok(keys_orphan_marked(k, ino, &marked));
		while ((r = keys_reap(k, ino)) > 0)
			;
		assert_int_equal(r, marked ? 0 : -EBUSY);
	}
}

/* A replica makes no change of its own, until it is promoted. A primary answers new calls, and those before again. */
static void go_on_in_cluster(struct keys *k)
{
	struct store_identity id;
	uint64_t seq, number, again;
	struct keys_attr a;

	store_identity(k->store, &id);
	if (id.role == STORE_ALONE)
		return;
	if (id.role == STORE_REPLICA) {
		assert_int_equal(keys_make(k, KEYS_ROOT_INO, "no", 2, S_IFREG | 0600, 0, &cred, &a), -EROFS);
		reap_marked(k);
		become(k, STORE_PRIMARY, store_epoch(k->store) + 5, false);
		ok(keys_begin_epoch(k, store_epoch(k->store) + 5));
	} else {
		reap_marked(k);
	}
	number = call(k, KEYS_ROOT_INO, 1, 1000);
	ok(keys_call_result(k, 1, 1000, &seq, &again));
	assert_true(seq == store_seq(k->store) && again == number);
	assert_int_equal(keys_call_result(k, 1, 2, &seq, &again), -ESTALE);
	ok(keys_call_result(k, 1, 80, &seq, &again));
	ok(keys_forget_client(k, 2));
}

static void go_on(void)
{
	struct keys *k = open_again(false);
	uint64_t file;
	uint32_t nlink;

	go_on_in_cluster(k);
	if (keys_unlink(k, KEYS_ROOT_INO, "fills it", 8, &file, &nlink) == 0)
		while (keys_reap(k, file) > 0)
			;
	ok(store_checkpoint(keys_store(k)));
	ok(write_bytes(k, make(k, KEYS_ROOT_INO, "new", S_IFREG | 0644), 0, 50000));
	assert_clean(k);
	ok(keys_close(k));
	incomplete = false;
	k = open_again(true);
	assert_clean(k);
	ok(keys_close(k));
}

static void try_store(const char *folder, const char *name)
{
	static char want[TEXT_MAX];
	char from[512];
	struct keys *k;
	unsigned i;
	bool clean;

	print_message("# %s/%s\n", folder, name);
	(void)snprintf(from, sizeof from, "%s/%s.zst", folder, name);
	unpack(from, path);
	(void)snprintf(from, sizeof from, "%s/%s.manifest", folder, name);
	want[read_file(from, (uint8_t *)want, sizeof want)] = '\0';
	incomplete = is_incomplete();
	k = open_again(true);
	clean = store_was_clean(k->store);
	epoch_max = store_epoch(k->store);
	assert_clean(k);
	assert_shows(k, want);
	assert_epochs(k, clean, 0);
	ok(keys_close(k));
	/* Recovered, closed, opened again: the same. */
	for (i = 1; i <= 2; i++) {
		k = open_again(false);
		assert_shows(k, want);
		assert_epochs(k, clean, i);
		ok(keys_close(k));
		k = open_again(true);
		assert_clean(k);
		ok(keys_close(k));
	}
	/* And it works on. */
	go_on();
	epoch_max = UINT64_MAX;
}

static unsigned try_folder(const char *folder)
{
	char pattern[512], stem[64];
	unsigned n;
	glob_t g;

	(void)snprintf(pattern, sizeof pattern, "%s/*.zst", folder);
	check(glob(pattern, 0, NULL, &g) == 0);
	for (n = 0; n < g.gl_pathc; n++) {
		const char *name = strrchr(g.gl_pathv[n], '/') + 1;

		(void)snprintf(stem, sizeof stem, "%.*s", (int)strlen(name) - 4, name);
		try_store(folder, stem);
	}
	globfree(&g);
	return n;
}

static void test_compat__stores_of_each_version(void **ctx)
{
	char folder[64];
	unsigned version;

	(void)ctx;
	for (version = 1; version <= FORMAT_VERSION; version++) {
		(void)snprintf(folder, sizeof folder, FOLDER "/v%u", version);
		assert_true(try_folder(folder) >= (version == 1 ? 6 : 1));
	}
}

/* What is not known ------------------------------------------------------------------------------------------------- */

static void new_store(void)
{
	const struct store_options o = { .path = path, .create = true, .max_bytes = 8u << 20 };
	struct keys *k;

	(void)unlink(path);
	ok(keys_open(&o, &k));
	(void)make(k, KEYS_ROOT_INO, "file", S_IFREG | 0644);
	ok(keys_close(k));
}

/* All superblocks get this. */
static void set_field(unsigned at, unsigned size, uint64_t value)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t page[BLOCK_SIZE];
	unsigned i;

	check(fd >= 0);
	for (i = 0; i < SUPER_PLACES; i++) {
		off_t off = (off_t)super_place(i) * BLOCK_SIZE;

		check(pread(fd, page, sizeof page, off) == (ssize_t)sizeof page);
		if (size == 8)
			put_le64(page + at, value);
		else
			put_le32(page + at, (uint32_t)value);
		put_le64(page + SB_CSUM, hash64(page + 16, BLOCK_SIZE - 16, super_place(i)));
		check(pwrite(fd, page, sizeof page, off) == (ssize_t)sizeof page);
	}
	(void)close(fd);
}

static void assert_opens(bool read_only, bool snapshot, int want, const char *words)
{
	const struct store_options o = { .path = path, .read_only = read_only, .snapshot = snapshot };
	struct keys *k;
	int r = keys_open(&o, &k);

	if (r == 0)
		ok(keys_close(k));
	assert_int_equal(r, want);
	if (words && !strstr(err_last(), words))
		fail_msg("\"%s\" is not in \"%s\"", words, err_last());
}

static void assert_refused(const char *words)
{
	const struct stream_target target = { .path = new_path };
	const struct salvage_options so = { 0 };
	struct salvage_report rep;

	assert_opens(false, false, -EPROTONOSUPPORT, words);
	assert_opens(true, false, -EPROTONOSUPPORT, words);
	assert_opens(true, true, -EPROTONOSUPPORT, words);
	assert_int_equal(salvage_store(path, &target, &so, &rep), -EPROTONOSUPPORT);
	assert_int_equal(access(new_path, F_OK), -1);
}

static void test_compat__newer_version_is_refused(void **ctx)
{
	static uint8_t was[FILE_MAX], now[FILE_MAX];
	size_t n;

	(void)ctx;
	new_store();
	set_field(SB_VERSION, 4, FORMAT_VERSION + 1);
	n = read_file(path, was, sizeof was);
	assert_refused("use a newer msyncfs");
	assert_int_equal(read_file(path, now, sizeof now), n);
	assert_memory_equal(was, now, n);
	set_field(SB_VERSION, 4, FORMAT_VERSION);
	set_field(SB_BLOCK_SHIFT, 4, 16);
	assert_refused("blocks of 2^16 bytes");
}

static void test_compat__feature_flags_are_obeyed(void **ctx)
{
	const struct store_options rw = { .path = path };
	struct super sb;
	struct keys *k;
	unsigned bit;
	int fd;

	(void)ctx;
	for (bit = 1; bit < 64; bit += 31) {
		new_store();
		set_field(SB_INCOMPAT, 8, 1ull << bit);
		assert_refused("features this program does not know");
		set_field(SB_INCOMPAT, 8, 0);
		set_field(SB_RO_COMPAT, 8, 1ull << bit);
		assert_opens(false, false, -EROFS, "may only read");
		assert_opens(true, false, 0, NULL);
		assert_opens(true, true, 0, NULL);
		set_field(SB_RO_COMPAT, 8, 0);
		set_field(SB_COMPAT, 8, 1ull << bit);
		ok(keys_open(&rw, &k));
		(void)make(k, KEYS_ROOT_INO, "new", S_IFREG | 0644);
		ok(store_checkpoint(keys_store(k)));
		assert_clean(k);
		ok(keys_close(k));
		/* Whoever knows the feature finds the bit as it was. */
		fd = open(path, O_RDONLY | O_CLOEXEC);
		ok(super_read(fd, &sb));
		(void)close(fd);
		assert_true(sb.feature_compat == 1ull << bit);
	}
}

static int setup(void **ctx)
{
	(void)ctx;
	if (scratch_make("compat") < 0)
		return -1;
	scratch_path(path, "store");
	scratch_path(new_path, "new");
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_compat__stores_of_each_version, setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(test_compat__newer_version_is_refused, setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(test_compat__feature_flags_are_obeyed, setup, scratch_teardown),
	};

	if (argc == 3 && strcmp(argv[1], "--make") == 0) {
		check(setup(NULL) == 0);
		make_one(argv[2], "closed", false, false);
		make_one(argv[2], "killed", true, false);
		make_one(argv[2], "full", false, true);
		make_cluster(argv[2]);
		return scratch_remove() == 0 ? 0 : 1;
	}
	return cmocka_run_group_tests_name("compat", tests, NULL, NULL);
}
