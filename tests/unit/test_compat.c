/* SPDX-License-Identifier: MIT
 *
 * test_compat: stores that each released format version made (tests/compat/vN) are opened by this build: they show what
 * their manifests say, check finds nothing, and they can be worked with. And what this build does not know is refused, or
 * opened as far as it may be.
 *
 *   test_compat --make DIR   makes the stores and manifests of the present version (tests/compat/make.sh)
 */
#include "tests/unit/view_util.h"

#include "core/check/check.h"
#include "core/keys/keys_int.h"
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

static char dir[64], path[96], new_path[96];
static const struct keys_cred cred = { 1000, 100, 022 };

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

static void make_one(const char *folder, const char *name, bool killed, bool filled)
{
	const struct store_options o = { .path = path, .create = true, .max_bytes = 8u << 20 };
	char to[512];
	struct keys *k;
	char *text;

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
	(void)snprintf(to, sizeof to, "%s/%s.zst", folder, name);
	if (killed)
		pack(path, to);         /* as the page cache has it */
	ok(keys_close(k));
	if (!killed)
		pack(path, to);
	(void)snprintf(to, sizeof to, "%s/%s.manifest", folder, name);
	write_file(to, (uint8_t *)text, strlen(text));
	free(text);
	(void)printf("%s/%s\n", folder, name);
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

static void try_store(const char *folder, const char *name)
{
	const struct store_options ro = { .path = path, .read_only = true }, rw = { .path = path };
	static char want[TEXT_MAX];
	char from[512];
	struct keys *k;
	uint64_t file;
	uint32_t nlink;
	int i;

	print_message("# %s/%s\n", folder, name);
	(void)snprintf(from, sizeof from, "%s/%s.zst", folder, name);
	unpack(from, path);
	(void)snprintf(from, sizeof from, "%s/%s.manifest", folder, name);
	want[read_file(from, (uint8_t *)want, sizeof want)] = '\0';
	ok(keys_open(&ro, &k));
	assert_clean(k);
	assert_shows(k, want);
	ok(keys_close(k));
	/* Recovered, closed, opened again: the same. */
	for (i = 0; i < 2; i++) {
		ok(keys_open(&rw, &k));
		assert_shows(k, want);
		ok(keys_close(k));
		ok(keys_open(&ro, &k));
		assert_clean(k);
		ok(keys_close(k));
	}
	/* And it works on. */
	ok(keys_open(&rw, &k));
	if (keys_unlink(k, KEYS_ROOT_INO, "fills it", 8, &file, &nlink) == 0)
		while (keys_reap(k, file) > 0)
			;
	ok(store_checkpoint(keys_store(k)));
	ok(write_bytes(k, make(k, KEYS_ROOT_INO, "new", S_IFREG | 0644), 0, 50000));
	assert_clean(k);
	ok(keys_close(k));
	ok(keys_open(&ro, &k));
	assert_clean(k);
	ok(keys_close(k));
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
		assert_true(try_folder(folder) >= 3);
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
	(void)snprintf(dir, sizeof dir, "%s/msyncfs-compat.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof path, "%s/store", dir);
	(void)snprintf(new_path, sizeof new_path, "%s/new", dir);
	return 0;
}

static int teardown(void **ctx)
{
	(void)ctx;
	(void)unlink(path);
	return rmdir(dir);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_compat__stores_of_each_version, setup, teardown),
		cmocka_unit_test_setup_teardown(test_compat__newer_version_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_compat__feature_flags_are_obeyed, setup, teardown),
	};

	if (argc == 3 && strcmp(argv[1], "--make") == 0) {
		check(setup(NULL) == 0);
		make_one(argv[2], "closed", false, false);
		make_one(argv[2], "killed", true, false);
		make_one(argv[2], "full", false, true);
		return teardown(NULL) == 0 ? 0 : 1;
	}
	return cmocka_run_group_tests_name("compat", tests, NULL, NULL);
}
