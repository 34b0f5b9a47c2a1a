/* SPDX-License-Identifier: MIT
 *
 * load: the items of a stream, put into a new store one after the other. Every item passes the rules before it is put, so
 * what a hostile stream can make is a store as odd as an honest program could have made it, or none. The store gets its
 * name when all is done: whoever finds it, finds all of it.
 */
#include "core/stream/stream_int.h"

#include "core/keys/restore.h"
#include "core/store/map.h"
#include "core/store/store.h"
#include "core/stream/outfile.h"

#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>

#define TRIES_MAX  64u          /* checkpoints made for one change that needs room */
#define STEPS_FREE (1ull << 24) /* see check_loops() */

struct loader {
	struct keys *k;
	struct store *store;
	struct stream_reader *reader;   /* where the items come from: a stream, */
	struct keys *from;              /* or another store, */
	const struct stream_watch *watch;       /* watched by this */
	struct rules rules;
	struct stream_counts counts;
	struct keys_attr a;             /* the inode at hand, as it is to be in the end */
	bool changed;                   /* it is no longer as it was put */
};

/* Is the change to be tried again? It is when it needs space that a checkpoint gives. */
static bool again(struct loader *l, int r, unsigned *tries)
{
	if (r != -EAGAIN || ++*tries > TRIES_MAX)
		return false;
	return store_poll(l->store) == 0 && (!store_is_dirty(l->store) || store_checkpoint(l->store) == 0);
}

static int bad_item(const struct loader *l, const char *what)
{
	return err_corrupt("behind inode %llu: an item %s", (unsigned long long)l->rules.a.ino, what);
}

/* Items ----------------------------------------------------------------------------------------------------------- */

/* The last item of the inode has come. */
static int finish_inode(struct loader *l)
{
	unsigned tries = 0;
	int r;

	if (!l->changed)
		return 0;
	l->changed = false;
	do
		r = keys_restore_attr(l->k, &l->a);
	while (again(l, r, &tries));
	return r;
}

static int load_inode(struct loader *l, const uint8_t *p, uint32_t len)
{
	struct keys_attr a = { 0 };
	struct keys_time *t[4] = { &a.atime, &a.mtime, &a.ctime, &a.btime };
	unsigned tries = 0;
	uint32_t flags;
	int i, r;

	if (len < SI_LEN)
		return bad_item(l, "is too short for an inode");
	a.ino = get_le64(p + SI_INO);
	a.mode = get_le32(p + SI_MODE);
	a.nlink = get_le32(p + SI_NLINK);
	a.uid = get_le32(p + SI_UID);
	a.gid = get_le32(p + SI_GID);
	a.size = get_le64(p + SI_SIZE);
	a.aux = get_le64(p + SI_AUX);
	flags = get_le32(p + SI_FLAGS);
	for (i = 0; i < 4; i++) {
		t[i]->nsec = get_le32(p + SI_NSEC + 4 * i);
		t[i]->sec = (int64_t)get_le64(p + SI_SEC + 8 * i);
	}
	if (flags & ~STREAM_INLINE)
		return bad_item(l, "has unknown flags");
	a.flags = flags ? KEYS_ATTR_INLINE : 0;
	r = rules_inode(&l->rules, &a, len - SI_LEN);
	if (r == 0)
		r = finish_inode(l);
	if (r < 0)
		return r;
	l->a = a;
	do
		r = keys_restore_inode(l->k, &a, p + SI_LEN, len - SI_LEN);
	while (again(l, r, &tries));
	return r;
}

static int load_xattr(struct loader *l, const uint8_t *p, uint32_t len)
{
	uint32_t name_len = len < SX_LEN ? 0 : p[SX_NAME_LEN], value_len;
	unsigned tries = 0;
	char name[256];
	int r;

	value_len = len < SX_LEN ? 0 : get_le32(p + SX_VALUE_LEN);
	if (len < SX_LEN || value_len > len || len != SX_LEN + name_len + value_len)
		return bad_item(l, "is no extended attribute");
	r = rules_xattr(&l->rules, p + SX_LEN, name_len, value_len);
	if (r < 0)
		return r;
	memcpy(name, p + SX_LEN, name_len);
	name[name_len] = '\0';
	l->changed = true;
	do
		r = keys_restore_xattr(l->k, l->a.ino, name, p + SX_LEN + name_len, value_len, &l->a.flags);
	while (again(l, r, &tries));
	return r == -EINVAL ? bad_item(l, "is an impossible ACL") : r;
}

static int load_entry(struct loader *l, const uint8_t *p, uint32_t len)
{
	uint32_t type = len < SE_LEN ? 0 : (uint32_t)p[SE_TYPE] << 12;
	uint64_t ino = len < SE_LEN ? 0 : get_le64(p + SE_INO);
	unsigned tries = 0;
	int r;

	if (len < SE_LEN || len - SE_LEN != p[SE_NAME_LEN] || type & ~(uint32_t)S_IFMT)
		return bad_item(l, "is no directory entry");
	r = rules_entry(&l->rules, p + SE_LEN, len - SE_LEN, ino, type);
	if (r < 0)
		return r;
	do
		r = keys_restore_entry(l->k, l->a.ino, (const char *)p + SE_LEN, len - SE_LEN, ino, type);
	while (again(l, r, &tries));
	return r == -EEXIST ? bad_item(l, "names an entry twice") : r;
}

static int load_data(struct loader *l, const uint8_t *p, uint32_t len)
{
	uint64_t off = len <= SD_LEN ? 0 : get_le64(p + SD_OFFSET);
	unsigned tries = 0;
	size_t n = 0;
	int r;

	if (len <= SD_LEN)
		return bad_item(l, "has no contents");
	p += SD_LEN;
	len -= SD_LEN;
	r = rules_data(&l->rules, off, len);
	if (r < 0)
		return r;
	l->changed = true;
	do {
		if (S_ISLNK(l->a.mode)) {
			r = keys_restore_target(l->k, l->a.ino, p, len);
		} else {
			r = keys_write(l->k, l->a.ino, off, p, len, 0, &n);
			if (r == 0 && n != len)
				return err_set(EIO, "inode %llu: written in part", (unsigned long long)l->a.ino);
		}
	} while (again(l, r, &tries));
	return r;
}

static int load_unwritten(struct loader *l, const uint8_t *p, uint32_t len)
{
	unsigned tries = 0;
	uint64_t off, n;
	int r;

	if (len != SU_LEN)
		return bad_item(l, "is no allocation");
	off = get_le64(p + SU_OFFSET);
	n = get_le64(p + SU_BYTES);
	r = rules_unwritten(&l->rules, off, n);
	if (r < 0)
		return r;
	l->changed = true;
	/* The last block of the largest file ends one byte behind the largest size. What a try has allocated stays. */
	do
		r = keys_fallocate(l->k, l->a.ino, FALLOC_FL_KEEP_SIZE, off, min_u64(n, KEYS_SIZE_MAX - off), 0);
	while (again(l, r, &tries));
	return r;
}

static int load_item(struct loader *l, unsigned kind, const uint8_t *p, uint32_t len)
{
	switch (kind) {
	case STREAM_INODE:      return load_inode(l, p, len);
	case STREAM_XATTR:      return load_xattr(l, p, len);
	case STREAM_ENTRY:      return load_entry(l, p, len);
	case STREAM_DATA:       return load_data(l, p, len);
	case STREAM_UNWRITTEN:  return load_unwritten(l, p, len);
	default:                return bad_item(l, "is of an unknown kind");
	}
}

/* The end --------------------------------------------------------------------------------------------------------- */

/* Do the parents of this directory lead to the root? Those with smaller numbers do, as was seen before. */
static int climb(struct loader *l, uint64_t ino, uint64_t *steps)
{
	uint64_t at = ino, limit = STEPS_FREE + 64 * l->counts.inodes;
	struct keys_attr a;

	do {
		int r = keys_getattr(l->k, at, &a);

		if (r < 0)
			return r == -ENOENT ? err_corrupt("directory %llu: no parent", (unsigned long long)ino) : r;
		at = a.aux;
		if (++*steps > limit)
			return err_corrupt("directory %llu: it is below itself", (unsigned long long)ino);
	} while (at > ino);
	return at == ino ? err_corrupt("directory %llu: it is below itself", (unsigned long long)ino) : 0;
}

/* The rules know that each directory is in one other; are they all below the root, or do some go in circles? A circle has
 * a directory with a smaller number than its parent, and streams seldom have such directories. The steps are limited
 * because a hostile stream could ask for as many as the square of its length. */
static int check_loops(struct loader *l)
{
	struct tree_cursor c;
	uint64_t steps = 0;
	int r;

	if (l->rules.uphill == 0)
		return 0;
	r = tree_seek(store_tree(l->store), item_key(1, ITEM_INODE, 0), &c);
	while (r == 0) {
		uint64_t ino = cursor_key(&c).hi >> 8;
		struct keys_attr a;

		r = keys_getattr(l->k, ino, &a);
		if (r == 0 && S_ISDIR(a.mode) && ino != KEYS_ROOT_INO && a.aux >= ino)
			r = climb(l, ino, &steps);
		if (r == 0)
			r = tree_seek(store_tree(l->store), item_key(ino + 1, 0, 0), &c);
	}
	return r == -ENOENT ? 0 : r;
}

/* All items have come. */
static int finish(struct loader *l, uint64_t next_ino)
{
	int r = rules_end(&l->rules, next_ino);

	if (r == 0)
		r = finish_inode(l);
	if (r < 0)
		return r;
	keys_restore_next_ino(l->k, next_ino);
	return check_loops(l);
}

static int check_end(struct loader *l)
{
	const uint8_t *end = reader_end(l->reader);
	const struct stream_counts *n = &l->counts;

	if (get_le64(end + END_INODES) != n->inodes || get_le64(end + END_ENTRIES) != n->entries ||
	    get_le64(end + END_XATTRS) != n->xattrs || get_le64(end + END_DATA) != n->data_bytes ||
	    get_le64(end + END_UNWRITTEN) != n->unwritten_bytes)
		return err_set(EUCLEAN, "the stream is damaged: its end marker counts otherwise");
	return finish(l, get_le64(end + END_NEXT_INO));
}

static int take_item(void *ctx, unsigned kind, const uint8_t *p, uint32_t len)
{
	struct loader *l = ctx;
	int r = load_item(l, kind, p, len);

	return r == 0 ? store_poll(l->store) : r;
}

static int load_stream(struct loader *l)
{
	const uint8_t *data;
	unsigned kind;
	uint32_t len;
	int r;

	while ((r = reader_item(l->reader, &kind, &data, &len)) > 0) {
		r = take_item(l, kind, data, len);
		if (r < 0)
			break;
	}
	return r == 0 ? check_end(l) : r;
}

/* Everything that another store shows. */
static int load_keys(struct loader *l)
{
	struct stream_counts counts = { 0 };
	struct stream_writer *w;
	int r = writer_to(take_item, l, l->watch, &counts, &w);

	if (r == 0)
		r = dump_to(l->from, w, &counts);
	return r == 0 ? finish(l, store_counts(keys_store(l->from))->next_ino) : r;
}

static int fill(void *arg)
{
	struct loader *l = arg;

	return l->from ? load_keys(l) : load_stream(l);
}

static int load_store(struct loader *l, const struct stream_target *target, const char *place)
{
	struct store_options o = { .path = place, .create = true, .max_bytes = target->max_bytes, .sys = target->sys };
	uint64_t byte;
	int closed, r = keys_open(&o, &l->k);

	if (r < 0)
		return r;
	l->store = keys_store(l->k);
	r = map_guard(fill, l);
	if (r < 0 && store_lost(l->store, &byte))
		r = err_set(EIO, "byte %llu of the new file cannot be had: somebody cut it short, or its disk failed",
			    (unsigned long long)byte);
	if (r == -EAGAIN || r == -ENOSPC)
		r = err_set(ENOSPC, "no room for inode %llu; make room on the disk, or allow a larger store",
			    (unsigned long long)l->rules.a.ino);
	closed = keys_close(l->k);
	if (r == 0 && closed < 0)
		r = err_set(-closed, "the store cannot be closed: %s", strerror(-closed));
	return r;
}

int stream_target_check(const struct stream_target *target)
{
	struct stat st;

	return lstat(target->path, &st) == 0 ? err_set(EEXIST, "%s: exists already", target->path) : 0;
}

/* The new store, of what l reads from. */
static int make_store(struct loader *l, const struct stream_target *target)
{
	struct outfile file;
	uint64_t seed;
	int r = getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed ? 0 : -EIO;

	if (r < 0)
		return r;
	rules_init(&l->rules, seed, &l->counts);
	r = outfile_open(&file, target->path);
	if (r == 0)
		r = load_store(l, target, outfile_place(&file));
	if (r == 0)
		r = outfile_publish(&file, false);
	outfile_close(&file);
	return r;
}

int stream_load(const struct stream_target *target, int fd, const struct stream_watch *watch,
		struct stream_counts *ret_counts)
{
	struct loader *l = calloc(1, sizeof *l);
	int r = -ENOMEM;

	err_clear();
	if (!l)
		return r;
	r = stream_target_check(target);
	/* The header first: what is no stream at all makes no file. */
	if (r == 0)
		r = reader_new(fd, watch, &l->counts, &l->reader);
	if (r == 0)
		r = make_store(l, target);
	if (r == 0)
		*ret_counts = l->counts;
	reader_free(l->reader);
	free(l);
	return r;
}

int stream_copy(struct keys *from, const struct stream_target *target, const struct stream_watch *watch,
		struct stream_counts *ret_counts)
{
	struct loader *l = calloc(1, sizeof *l);
	int r = -ENOMEM;

	if (!l)
		return r;
	l->from = from;
	l->watch = watch;
	r = stream_target_check(target);
	if (r == 0)
		r = make_store(l, target);
	if (r == 0)
		*ret_counts = l->counts;
	free(l);
	return r;
}
