/* SPDX-License-Identifier: MIT
 *
 * model: seeded random operations on the keys and on a model in plain memory, in small stores that fill up, with
 * checkpoints, syncs and compaction in between; everything is compared every so often, after close and opening again, and
 * after SIGKILL at the end of an operation or anywhere. At the end of each case all of the store is checked.
 *
 *   SEED=n    first case (each case prints its own if it fails)
 *   CASES=n   how many
 */
#include "tests/unit/model_util.h"
#include "tests/unit/random_util.h"
#include "tests/unit/scratch_util.h"

#include "core/check/check.h"
#include "core/store/store.h"
#include "core/store/sys.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define OPS_MAX   6000u         /* in one segment, between two openings */
#define DATA_MOST (300u << 10)
#define NODES_MAX 220u

static char path[SCRATCH_PATH];
static uint64_t seed, cases, case_seed;
static _Atomic uint64_t clock_ns;

static bool one_in(uint64_t n)
{
	return random_below(n) == 0;
}

/* Operations -------------------------------------------------------------------------------------------------------- */

enum kind {
	OP_MAKE, OP_SYMLINK, OP_LINK, OP_UNLINK, OP_RMDIR, OP_RENAME, OP_SETATTR, OP_TRUNCATE, OP_WRITE, OP_FALLOCATE,
	OP_COPY, OP_SETXATTR, OP_REMOVEXATTR, OP_ATIME, OP_REAP, OP_SYNC, OP_CHECKPOINT, OP_POLL, OP_COMPACT, OP_KINDS,
};
static const char *const kind_names[OP_KINDS] = {
	"make", "symlink", "link", "unlink", "rmdir", "rename", "setattr", "truncate", "write", "fallocate", "copy",
	"setxattr", "removexattr", "atime", "reap", "sync", "checkpoint", "poll", "compact",
};
/* How often, when the store is to fill and when it is to empty. */
static const unsigned char weights[2][OP_KINDS] = {
	{ 14, 4, 5, 3, 1, 8, 6, 4, 24, 8, 5, 8, 2, 2, 8, 1, 1, 3, 3 },
	{ 5, 2, 2, 16, 5, 10, 5, 12, 10, 8, 3, 3, 6, 2, 20, 1, 2, 3, 6 },
};

struct op {
	enum kind kind;
	uint64_t ino, dir, ino2;
	char name[260], name2[260];
	size_t len, len2;
	uint32_t mode;
	unsigned flags;
	uint64_t off, off2, bytes;
	struct keys_setattr set;
	struct keys_cred cred;
	uint64_t fill;                  /* where the bytes come from */
};

/* What the engine said, for those who were not there. */
struct result {
	int r;
	uint64_t value;                 /* number of a new inode, bytes written, what a failed fallocate left */
	uint64_t seq;                   /* after it */
};
#define LEFT_ZEROS 1u
#define LEFT_CTIME 2u
#define LEFT_MTIME 4u

static uint8_t *data_of(const struct op *o)
{
	static uint8_t data[DATA_MOST + 16];
	uint64_t x = o->fill;
	size_t i;

	for (i = 0; i < o->bytes; i += 8) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		memcpy(data + i, &x, 8);
	}
	return data;
}

static void pick_name(char *name, size_t *len)
{
	static const char *const odd[] = { ".", "..", "" };

	if (one_in(60)) {
		*len = strlen(strcpy(name, odd[random_below(3)]));
	} else if (one_in(12)) {
		*len = one_in(8) ? 256 : 200 + random_below(56);
		memset(name, (int)('A' + random_below(4)), *len);
	} else {
		*len = (size_t)sprintf(name, "name %u", (unsigned)random_below(60));
	}
}

static struct model_node *pick_node(const struct model *m)
{
	struct model_node *n;
	unsigned tries = 0;

	do {
		n = m->nodes[random_below(m->count)];
	} while (n->reaping && ++tries < 100);
	return n->reaping ? m->nodes[0] : n;
}

static struct model_node *pick_kind(const struct model *m, uint32_t type)
{
	struct model_node *n = pick_node(m);
	unsigned tries;

	if (one_in(40))
		return n;
	for (tries = 0; tries < 60 && (n->a.mode & S_IFMT) != type; tries++)
		n = pick_node(m);
	return n;
}

static void pick_entry(const struct model *m, struct op *o, bool want_dir)
{
	const struct model_node *d;
	unsigned tries = 0;
	const struct model_entry *e;

	do {
		d = pick_kind(m, S_IFDIR);
		if (d->entry_count == 0)
			continue;
		e = &d->entries[random_below(d->entry_count)];
		o->dir = d->a.ino;
		o->len = e->len;
		memcpy(o->name, e->name, e->len);
		if (want_dir == S_ISDIR(e->node->a.mode))
			return;
	} while (++tries < 12);
	if (o->dir == 0 || one_in(3)) {
		o->dir = d->a.ino;
		pick_name(o->name, &o->len);
	}
}

static uint64_t pick_offset(const struct model_node *n)
{
	static const uint64_t edges[] = { 0, 1023, 1024, 1025, 4095, 4096, 4097, 8192, 1u << 20 };

	switch (random_below(6)) {
	case 0:
		return edges[random_below(ARRAY_LEN(edges))];
	case 1:
		return n->a.size < 1u << 30 ? n->a.size : random_below(1u << 20);
	case 2:
		return random_below(3000);
	case 3:
		return random_below(64) * BLOCK_SIZE;
	case 4:
		return one_in(4) ? (1ull << (20 + random_below(43))) - random_below(6000) : random_below(200000);
	default:
		return random_below(400000);
	}
}

static uint64_t pick_length(void)
{
	static const uint64_t edges[] = { 0, 1, 1023, 1024, 1025, 4095, 4096, 4097, 8192, 65536 };

	switch (random_below(5)) {
	case 0:
		return edges[random_below(ARRAY_LEN(edges))];
	case 1:
		return 1 + random_below(DATA_MOST - 1);
	case 2:
		return 1 + random_below(30000);
	default:
		return 1 + random_below(5000);
	}
}

static struct keys_time pick_time(void)
{
	return (struct keys_time){ (int64_t)random_below(1ull << 33) - (1 << 20), (uint32_t)random_below(1000000000) };
}

static void pick_setattr(const struct model *m, struct op *o)
{
	struct model_node *n = pick_node(m);

	o->ino = n->a.ino;
	o->set.mask = (unsigned)random_below(1u << 10) & ~(unsigned)KEYS_SET_SIZE;
	if (o->kind == OP_TRUNCATE) {
		n = pick_kind(m, S_IFREG);
		o->ino = n->a.ino;
		o->set.mask = KEYS_SET_SIZE | (unsigned)(one_in(4) ? KEYS_KILL_PRIV : 0);
		o->set.size = one_in(3) ? n->a.size / (1 + random_below(3)) : one_in(40) ? 1ull << 63 : pick_offset(n);
	}
	o->set.mode = (uint32_t)random_below(010000);
	o->set.uid = (uint32_t)random_below(5);
	o->set.gid = (uint32_t)random_below(5);
	o->set.atime = pick_time();
	o->set.mtime = pick_time();
	o->set.ctime = pick_time();
}

static void pick_fallocate(const struct model *m, struct op *o)
{
	static const int modes[] = {
		0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	};
	const struct model_node *n = pick_kind(m, S_IFREG);

	o->ino = n->a.ino;
	o->flags = (unsigned)modes[random_below(ARRAY_LEN(modes))];
	o->off = pick_offset(n);
	o->bytes = pick_length();
}

static void pick_xattr(const struct model *m, struct op *o)
{
	const struct model_node *n = pick_node(m);

	o->ino = n->a.ino;
	if (n->xattr_count > 0 && !one_in(3)) {
		strcpy(o->name, n->xattrs[random_below(n->xattr_count)].name);
	} else if (one_in(10)) {
		strcpy(o->name, "security.capability");
	} else {
		size_t len = (size_t)sprintf(o->name, "user.x%u", (unsigned)random_below(20));

		if (one_in(6)) {
			memset(o->name + len, 'x', 255 - len);
			o->name[255] = '\0';
		}
	}
	o->bytes = one_in(5) ? random_below(KEYS_XATTR_MAX + 1) : one_in(4) ? 900 + random_below(300) : random_below(200);
	o->flags = one_in(4) ? XATTR_CREATE : one_in(4) ? XATTR_REPLACE : 0;
}

static void pick_reap(const struct model *m, struct op *o)
{
	size_t i, at = random_below(m->count);

	for (i = 0; i < m->count; i++) {
		o->ino = m->nodes[(at + i) % m->count]->a.ino;
		if (m->nodes[(at + i) % m->count]->a.nlink == 0)
			break;
	}
}

static void pick_rename(const struct model *m, struct op *o)
{
	static const unsigned flags[] = { 0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE, RENAME_WHITEOUT,
					  RENAME_EXCHANGE | RENAME_NOREPLACE };
	struct op to = { .kind = OP_RENAME };

	pick_entry(m, o, one_in(3));
	if (one_in(2)) {
		pick_entry(m, &to, one_in(3));
		o->ino2 = to.dir;
		o->len2 = to.len;
		memcpy(o->name2, to.name, to.len);
	} else {
		o->ino2 = pick_kind(m, S_IFDIR)->a.ino;
		pick_name(o->name2, &o->len2);
	}
	o->flags = flags[random_below(ARRAY_LEN(flags))];
}

static void pick_new(const struct model *m, struct op *o)
{
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFCHR, S_IFBLK,
					  S_IFIFO, S_IFSOCK };

	o->dir = pick_kind(m, S_IFDIR)->a.ino;
	pick_name(o->name, &o->len);
	o->mode = types[random_below(ARRAY_LEN(types))] | (uint32_t)random_below(010000);
	o->ino = pick_kind(m, S_IFREG)->a.ino;
	o->bytes = one_in(5) ? 1000 + random_below(3100) : 1 + random_below(60);
}

static enum kind pick_op_kind(const struct model *m, bool empty)
{
	unsigned total = 0, i;

	if (m->count > NODES_MAX)
		empty = true;
	for (i = 0; i < OP_KINDS; i++)
		total += weights[empty][i];
	total = (unsigned)random_below(total);
	for (i = 0; total >= weights[empty][i]; i++)
		total -= weights[empty][i];
	return (enum kind)i;
}

/* The next operation: depends on the random numbers and on the model only. */
static void pick_op(struct model *m, bool empty, struct op *o)
{
	memset(o, 0, sizeof *o);
	m->now_ns += one_in(50) ? random_below(5000000000ull) : random_below(30000000);
	o->kind = pick_op_kind(m, empty);
	o->fill = random_below(UINT64_MAX);
	o->cred = (struct keys_cred){ (uint32_t)random_below(4), (uint32_t)random_below(4), one_in(2) ? 022 : (uint32_t)random_below(01000) };
	switch (o->kind) {
	case OP_MAKE: case OP_SYMLINK: case OP_LINK:
		pick_new(m, o);
		break;
	case OP_UNLINK: case OP_RMDIR:
		pick_entry(m, o, o->kind == OP_RMDIR);
		break;
	case OP_RENAME:
		pick_rename(m, o);
		break;
	case OP_SETATTR: case OP_TRUNCATE:
		pick_setattr(m, o);
		break;
	case OP_WRITE:
		o->ino = pick_kind(m, S_IFREG)->a.ino;
		o->off = pick_offset(model_node(m, o->ino));
		o->bytes = pick_length();
		o->flags = one_in(3);
		break;
	case OP_FALLOCATE:
		pick_fallocate(m, o);
		break;
	case OP_COPY:
		o->ino = pick_kind(m, S_IFREG)->a.ino;
		o->ino2 = pick_kind(m, S_IFREG)->a.ino;
		o->off = one_in(2) ? 0 : pick_offset(model_node(m, o->ino));
		o->off2 = pick_offset(model_node(m, o->ino2));
		o->bytes = pick_length();
		break;
	case OP_SETXATTR: case OP_REMOVEXATTR:
		pick_xattr(m, o);
		break;
	case OP_ATIME:
		o->ino = pick_node(m)->a.ino;
		o->flags = (unsigned)random_below(3);
		break;
	case OP_REAP:
		pick_reap(m, o);
		break;
	default:
		break;
	}
}

/* The engine -------------------------------------------------------------------------------------------------------- */

static int engine_names(struct keys *k, const struct op *o, uint64_t *value)
{
	struct keys_attr a = { 0 };
	uint32_t nlink;
	uint64_t gone;
	int r;

	switch (o->kind) {
	case OP_MAKE:
		r = keys_make(k, o->dir, o->name, o->len, o->mode, o->fill & 0xffff, &o->cred, &a);
		break;
	case OP_SYMLINK:
		r = keys_symlink(k, o->dir, o->name, o->len, (const char *)data_of(o), o->bytes, &o->cred, &a);
		break;
	case OP_LINK:
		r = keys_link(k, o->ino, o->dir, o->name, o->len, &a);
		break;
	case OP_UNLINK:
		return keys_unlink(k, o->dir, o->name, o->len, &gone, &nlink);
	case OP_RMDIR:
		return keys_rmdir(k, o->dir, o->name, o->len, &gone);
	default:
		r = keys_rename(k, o->dir, o->name, o->len, o->ino2, o->name2, o->len2, o->flags, &o->cred, &gone);
		if (r == 0 && o->flags & RENAME_WHITEOUT && keys_lookup(k, o->dir, o->name, o->len, &a) < 0)
			a.ino = 0;
	}
	*value = a.ino;
	return r;
}

static int engine_once(struct keys *k, const struct op *o, uint64_t *value)
{
	struct keys_attr a;
	size_t n = 0;
	int r;

	switch (o->kind) {
	case OP_SETATTR: case OP_TRUNCATE:
		return keys_setattr(k, o->ino, &o->set, &a);
	case OP_WRITE:
		r = keys_write(k, o->ino, o->off, data_of(o), o->bytes, o->flags, &n);
		*value = n;
		return r;
	case OP_FALLOCATE:
		return keys_fallocate(k, o->ino, (int)o->flags, o->off, o->bytes, 0);
	case OP_COPY:
		r = keys_copy_range(k, o->ino, o->off, o->ino2, o->off2, o->bytes, 0, &n);
		*value = n;
		return r;
	case OP_SETXATTR:
		return keys_setxattr(k, o->ino, o->name, data_of(o), o->bytes, (int)o->flags, false);
	case OP_REMOVEXATTR:
		return keys_removexattr(k, o->ino, o->name);
	case OP_ATIME:
		return keys_touch_atime(k, o->ino, (enum keys_atime)o->flags);
	case OP_REAP:
		return keys_reap(k, o->ino);
	case OP_SYNC:
		return store_sync(keys_store(k));
	case OP_CHECKPOINT:
		r = store_checkpoint(keys_store(k));
		return r == -ENOSPC ? 0 : r;
	case OP_POLL:
		return store_poll(keys_store(k));
	case OP_COMPACT:
		r = keys_compact_due(k) ? keys_compact(k) : 0;
		return r == -EAGAIN || r == 1 ? 0 : r;
	default:
		return engine_names(k, o, value);
	}
}

static void engine(struct keys *k, const struct op *o, struct result *res)
{
	unsigned tries = 0;

	res->value = 0;
	while ((res->r = engine_once(k, o, &res->value)) == -EAGAIN && tries++ < 20000) {
		(void)store_poll(keys_store(k));
		(void)usleep(100);
	}
	res->seq = store_seq(keys_store(k));
}

/* The model --------------------------------------------------------------------------------------------------------- */

static void complain(const struct op *o, const char *what, int have, int want)
{
	(void)fprintf(stderr, "# SEED=%llu: %s ino %llu dir %llu '%.*s' -> %llu '%.*s' flags %u off %llu bytes %llu "
		      "size %llu mask %u: %s %d, should be %d (%s)\n", (unsigned long long)case_seed,
		      kind_names[o->kind], (unsigned long long)o->ino, (unsigned long long)o->dir, (int)o->len, o->name,
		      (unsigned long long)o->ino2, (int)o->len2, o->name2, o->flags, (unsigned long long)o->off,
		      (unsigned long long)o->bytes, (unsigned long long)o->set.size, o->set.mask, what, have, want,
		      err_last());
}

static int model_copy(struct model *m, const struct op *o)
{
	static uint8_t buf[DATA_MOST];
	struct model_node *src = model_node(m, o->ino);
	uint64_t len = o->bytes;

	if (!src)
		return -ENOENT;
	if (S_ISDIR(src->a.mode))
		return -EISDIR;
	len = o->off < src->a.size ? min_u64(len, src->a.size - o->off) : 0;
	if (len == 0)
		return 0;
	if (S_ISLNK(src->a.mode))
		memcpy(buf, src->target + o->off, len);
	else
		model_read(src, o->off, len, buf);
	return model_write(m, o->ino2, o->off2, buf, len, false);
}

/* The same on the model, and what it says to it. */
static int model_op(struct model *m, const struct op *o, const struct result *res)
{
	struct model_name name = { o->name, o->len }, name2 = { o->name2, o->len2 };
	struct model_name target = { (const char *)data_of(o), o->bytes };

	switch (o->kind) {
	case OP_MAKE:
		return model_make(m, o->dir, name, o->mode, o->fill & 0xffff, &o->cred, target, res->value);
	case OP_SYMLINK:
		return model_make(m, o->dir, name, S_IFLNK, 0, &o->cred, target, res->value);
	case OP_LINK:
		return model_link(m, o->ino, o->dir, name);
	case OP_UNLINK:
		return model_unlink(m, o->dir, name);
	case OP_RMDIR:
		return model_rmdir(m, o->dir, name);
	case OP_RENAME:
		return model_rename(m, o->dir, name, o->ino2, name2, o->flags, &o->cred, res->value);
	case OP_SETATTR: case OP_TRUNCATE:
		return model_setattr(m, o->ino, &o->set);
	case OP_WRITE:
		return model_write(m, o->ino, o->off, data_of(o), o->bytes, o->flags);
	case OP_FALLOCATE:
		return model_fallocate(m, o->ino, (int)o->flags, o->off, o->bytes);
	case OP_COPY:
		return model_copy(m, o);
	case OP_SETXATTR:
		return model_setxattr(m, o->ino, o->name, data_of(o), o->bytes, (int)o->flags);
	case OP_REMOVEXATTR:
		return model_removexattr(m, o->ino, o->name);
	case OP_ATIME:
		return model_touch_atime(m, o->ino, (enum keys_atime)o->flags);
	default:
		return 0;
	}
}

static bool is_removal(const struct op *o, const struct model *m)
{
	const struct model_node *n = model_node(m, o->ino);

	return o->kind == OP_UNLINK || o->kind == OP_RMDIR || o->kind == OP_REMOVEXATTR || o->kind == OP_REAP ||
	       (o->kind == OP_TRUNCATE && n && o->set.size <= n->a.size) ||
	       (o->kind == OP_FALLOCATE && o->flags & FALLOC_FL_PUNCH_HOLE) || o->kind >= OP_SYNC;
}

/* A fallocate that ran out of space may have done a part; the size is as it was. */
static void look_what_is_left(struct keys *k, const struct model *m, const struct op *o, struct result *res)
{
	const struct model_node *n = model_node(m, o->ino);
	uint8_t had[256];
	struct keys_attr a;
	uint64_t at;

	if (!n || keys_getattr(k, o->ino, &a) < 0)
		return;
	if (a.ctime.sec != n->a.ctime.sec || a.ctime.nsec != n->a.ctime.nsec)
		res->value |= LEFT_CTIME;
	if (a.mtime.sec != n->a.mtime.sec || a.mtime.nsec != n->a.mtime.nsec)
		res->value |= LEFT_MTIME;
	for (at = o->off; at < o->off + o->bytes && at < n->a.size && !(res->value & LEFT_ZEROS); at += sizeof had) {
		size_t len = (size_t)min_u64(min_u64(sizeof had, o->off + o->bytes - at), n->a.size - at), bytes;
		struct iovec iov[4];
		int pieces, i;
		size_t done = 0;

		model_read(n, at, len, had);
		if (keys_read(k, o->ino, at, len, iov, 4, &pieces, &bytes) < 0)
			return;
		for (i = 0; i < pieces; i++) {
			if (memcmp(iov[i].iov_base, had + done, iov[i].iov_len) != 0)
				res->value |= LEFT_ZEROS;
			done += iov[i].iov_len;
		}
	}
}

static void model_left(struct model *m, const struct op *o, const struct result *res)
{
	struct model_node *n = model_node(m, o->ino);
	struct keys_time t = { (int64_t)(m->now_ns / 1000000000u), (uint32_t)(m->now_ns % 1000000000u) };

	if (!n)
		return;
	if (res->value & LEFT_ZEROS)
		model_zero(n, o->off, o->bytes);
	if (res->value & LEFT_CTIME)
		n->a.ctime = t;
	if (res->value & LEFT_MTIME)
		n->a.mtime = t;
}

static int follow_reap(struct model *m, const struct op *o, const struct result *res)
{
	struct model_node *n = model_node(m, o->ino);

	if (res->r < 0 || !n || n->a.nlink > 0)
		return res->r == 0 ? 0 : -1;
	n->reaping = true;
	if (res->r == 0)
		model_reaped(m, o->ino);
	return 0;
}

/* The model does what the engine did; -1 if the engine did something else than it should. */
static int follow(struct model *m, const struct op *o, const struct result *res)
{
	int r;

	if (o->kind == OP_REAP) {
		r = follow_reap(m, o, res);
		if (r < 0)
			complain(o, "reaping gives", res->r, 0);
		return r;
	}
	if (res->r == -ENOSPC && !is_removal(o, m)) {
		if (o->kind == OP_FALLOCATE)
			model_left(m, o, res);
		return 0;
	}
	r = model_op(m, o, res);
	if (r != res->r) {
		complain(o, "result", res->r, r);
		return -1;
	}
	if (r == 0 && o->kind == OP_WRITE && res->value != o->bytes) {
		complain(o, "written", (int)res->value, (int)o->bytes);
		return -1;
	}
	return 0;
}

/* Stores ------------------------------------------------------------------------------------------------------------ */

static uint64_t fake_now(void *ctx)
{
	(void)ctx;
	return clock_ns;
}

static struct keys *open_store(uint64_t max_bytes, bool threads, bool read_only)
{
	struct sys_ops sys = sys_linux;
	struct store_options o = { .path = path, .create = true, .max_bytes = max_bytes, .threads = threads,
				   .read_only = read_only, .sys = &sys };
	struct keys *k;
	int r;

	sys.now_real_ns = fake_now;
	if (!threads)
		sys.now_mono_ns = fake_now;
	r = keys_open(&o, &k);
	if (r == 0)
		return k;
	(void)fprintf(stderr, "# SEED=%llu: keys_open: %d: %s\n", (unsigned long long)case_seed, r, err_last());
	return NULL;
}

static void print_problem(void *ctx, const char *text)
{
	(void)fprintf(stderr, "# SEED=%llu: %s: %s\n", (unsigned long long)case_seed, (const char *)ctx, text);
}

static int check_store(struct keys *k, const char *when)
{
	const struct check_options o = { .problem = print_problem, .ctx = (void *)(uintptr_t)when };
	struct check_report rep;

	return check_run(k, &o, &rep) == 0 && rep.problems == 0 ? 0 : -1;
}

static int compare(const struct model *m, struct keys *k, const char *when)
{
	char why[512];

	if (model_compare(m, k, why, sizeof why) == 0)
		return 0;
	(void)fprintf(stderr, "# SEED=%llu: %s: %s (%s)\n", (unsigned long long)case_seed, when, why, err_last());
	return -1;
}

struct segment {
	uint64_t max_bytes;
	bool threads;
	unsigned ops, every;
};

struct log {
	_Atomic unsigned done;
	_Atomic bool ended;             /* it is about to die by itself */
	struct result results[OPS_MAX];
};

/* One operation on both; the result goes to *res. */
static int step(struct model *m, struct keys *k, bool empty, struct result *res)
{
	struct op o;

	pick_op(m, empty, &o);
	clock_ns = m->now_ns;
	engine(k, &o, res);
	if (o.kind == OP_FALLOCATE && res->r == -ENOSPC)
		look_what_is_left(k, m, &o, res);
	return follow(m, &o, res);
}

static bool empties(const struct segment *s, unsigned i)
{
	return i * 4 / s->ops % 2 == 1;
}

static int run_here(struct model *m, const struct segment *s)
{
	struct keys *k = open_store(s->max_bytes, s->threads, false);
	struct result res;
	unsigned i;
	int r = k ? 0 : -1;

	for (i = 0; i < s->ops && r == 0; i++) {
		r = step(m, k, empties(s, i), &res);
		if (r == 0 && i % s->every == s->every - 1)
			r = compare(m, k, "running");
	}
	if (k && keys_close(k) < 0 && r == 0)
		r = -1;
	return r;
}

/* The same in a process that dies of SIGKILL. */
static _Noreturn void run_child(struct model *m, const struct segment *s, struct log *log)
{
	struct keys *k = open_store(s->max_bytes, s->threads, false);
	unsigned i;

	int r = k ? 0 : -1;

	for (i = 0; i < s->ops && r == 0; i++) {
		r = step(m, k, empties(s, i), &log->results[i]);
		if (r == 0)
			log->done = i + 1;
	}
	log->ended = true;
	if (r == 0)
		(void)raise(SIGKILL);
	_exit(1);
}

static bool is_there(struct keys *k, const struct op *o, uint64_t *ret_ino)
{
	struct keys_attr a;
	int r = keys_lookup(k, o->dir, o->name, o->len, &a);

	*ret_ino = r == 0 ? a.ino : 0;
	return r == 0;
}

/* The operation that was under way when the process died: was it done? The store's seq tells. */
static int settle(struct model *m, struct keys *k, const struct op *o, uint64_t seq_before)
{
	struct result res = { 0 };
	struct keys_attr a;
	bool changed = store_seq(keys_store(k)) != seq_before;

	if (o->kind == OP_REAP && model_node(m, o->ino) && model_node(m, o->ino)->a.nlink == 0) {
		res.r = keys_getattr(k, o->ino, &a) == -ENOENT ? 0 : 1;
		return follow(m, o, &res);
	}
	if (!changed)
		return 0;
	if (o->kind == OP_FALLOCATE) {
		if (keys_getattr(k, o->ino, &a) == 0)
			model_node(m, o->ino)->a.size = a.size;
		look_what_is_left(k, m, o, &res);
		model_left(m, o, &res);
		return 0;
	}
	(void)is_there(k, o, &res.value);
	if (o->kind == OP_WRITE)
		res.value = o->bytes;
	return follow(m, o, &res);
}

static int after_kill(struct model *m, const struct segment *s, const struct log *log, uint64_t seq)
{
	struct keys *k = open_store(s->max_bytes, false, true);
	unsigned i, done = log->done;
	struct op o;
	int r = k ? 0 : -1;

	for (i = 0; i < done && r == 0; i++) {
		pick_op(m, empties(s, i), &o);
		r = follow(m, &o, &log->results[i]);
		seq = log->results[i].seq;
	}
	if (r == 0 && done < s->ops) {
		pick_op(m, empties(s, i), &o);
		clock_ns = m->now_ns;
		r = settle(m, k, &o, seq);
	}
	clock_ns = m->now_ns;
	if (r == 0)
		r = compare(m, k, "killed, read-only");
	if (k)
		(void)keys_close(k);
	return r;
}

static int run_killed(struct model *m, const struct segment *s, bool anywhere, uint64_t seq)
{
	struct log *log = mmap(NULL, sizeof *log, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned until = (unsigned)random_below(s->ops), extra = (unsigned)random_below(2000);
	int status, r = 0;
	pid_t pid;

	assert_true(log != MAP_FAILED);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		run_child(m, s, log);
	while (anywhere && log->done < until && !log->ended)
		(void)usleep(50);
	if (anywhere) {
		(void)usleep(extra);
		(void)kill(pid, SIGKILL);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		r = -1;
	if (r == 0)
		r = after_kill(m, s, log, seq);
	(void)munmap(log, sizeof *log);
	return r;
}

/* Opened and recovered: everything is there, and whole. */
static int look(struct model *m, const struct segment *s, const char *when, uint64_t *ret_seq)
{
	struct keys *k = open_store(s->max_bytes, false, false);
	int r = k ? compare(m, k, when) : -1;

	if (r == 0)
		r = check_store(k, when);
	if (k) {
		*ret_seq = store_seq(keys_store(k));
		if (keys_close(k) < 0)
			r = -1;
	}
	return r;
}

static int start(struct model *m, const struct segment *s)
{
	struct keys *k;
	struct keys_attr root;

	clock_ns = 1700000000ull * 1000000000u;
	k = open_store(s->max_bytes, false, false);
	if (!k || keys_getattr(k, KEYS_ROOT_INO, &root) < 0)
		return -1;
	model_init(m, &root);
	m->now_ns = clock_ns;
	return keys_close(k);
}

static int run_case(void)
{
	static const uint64_t sizes[] = { 8, 9, 12, 24, 64, 160 };
	struct segment s = { .max_bytes = sizes[random_below(ARRAY_LEN(sizes))] << 20 };
	unsigned segments = 2 + (unsigned)random_below(4), i;
	struct model m = { 0 };
	uint64_t seq = 0;
	int r;

	(void)unlink(path);
	r = start(&m, &s);
	for (i = 0; i < segments && r == 0; i++) {
		unsigned how = (unsigned)random_below(4);

		s.threads = one_in(3);
		s.ops = 100 + (unsigned)random_below(1200);
		s.every = 100 + (unsigned)random_below(300);
		r = how < 2 ? run_here(&m, &s) : run_killed(&m, &s, how == 3, seq);
		if (r == 0)
			r = look(&m, &s, how < 2 ? "closed" : "killed", &seq);
	}
	model_release(&m);
	(void)unlink(path);
	return r;
}

static void test_model__random_operations(void **ctx)
{
	uint64_t i, failures = 0;

	(void)ctx;
	for (i = 0; i < cases; i++) {
		case_seed = seed + i;
		random_restart(case_seed);
		(void)random_below(2);
		(void)random_below(2);
		if (run_case() < 0) {
			(void)fprintf(stderr, "# failed: SEED=%llu CASES=1\n", (unsigned long long)case_seed);
			failures++;
		}
	}
	if (failures)
		fail_msg("%llu of %llu cases failed, from SEED=%llu on", (unsigned long long)failures,
			 (unsigned long long)cases, (unsigned long long)seed);
}

static int setup(void **ctx)
{
	(void)ctx;
	if (scratch_make("model") < 0)
		return -1;
	scratch_path(path, "store");
	return 0;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(test_model__random_operations, setup, scratch_teardown),
};

int main(void)
{
	seed = env_number("SEED", (uint64_t)time(NULL) % 1000000 * 1000);
	cases = env_number("CASES", getenv("MODE") && strcmp(getenv("MODE"), "release") != 0 ? 25 : 100);
	(void)printf("# SEED=%llu CASES=%llu\n", (unsigned long long)seed, (unsigned long long)cases);
	(void)fflush(stdout);
	return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
