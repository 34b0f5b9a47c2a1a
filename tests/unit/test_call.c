/* SPDX-License-Identifier: MIT
 *
 * test_call: random calls, encoded, decoded and run on one store, against the same made through keys.h on another; the bytes
 * of every operation cut short, made longer and changed; what each operation may say and what not; what depends on who
 * asks; appends; inodes that are gone.
 *
 *   SEED=n   replays the random calls        CALLS=n   how many
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base.h"
#include "core/replica/call.h"
#include "core/store/store.h"
#include "core/store/sys.h"
#include "tests/unit/random_util.h"
#include "tests/unit/scratch_util.h"
#include "tests/unit/view_util.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define ACCESS_ACL "system.posix_acl_access"
#define INOS_MAX   200u

static uint64_t seed, calls;
static uint64_t clock_ns = 1700000000ull * 1000000000u;
static uint8_t wire[CALL_MAX];
static uint8_t bytes[KEYS_WRITE_MAX];

static uint64_t now(void *ctx)
{
	(void)ctx;
	return clock_ns;
}

static struct keys *open_memory(void)
{
	static struct sys_ops sys;
	const struct store_options o = { .path = ":memory:", .create = true, .max_bytes = 96u << 20, .sys = &sys };
	struct keys *k;

	sys = sys_linux;
	sys.now_real_ns = now;
	assert_int_equal(keys_open(&o, &k), 0);
	return k;
}

static struct call_text text(const char *s)
{
	return (struct call_text){ s, (uint32_t)strlen(s) };
}

/* Through the wire, as a remote mount's. */
static void run_remote(struct keys *k, const struct call *c, struct call_result *res)
{
	struct call back;
	size_t len = call_size(c);
	int r;

	assert_true(len <= sizeof wire);
	call_encode(c, wire);
	r = call_decode(wire, len, &back);
	if (r != 0)
		fail_msg("SEED=%llu: operation %u: %s", (unsigned long long)seed, c->op, err_last());
	call_run(k, &back, res);
}

/* Random calls ------------------------------------------------------------------------------------------------------- */

/* Names that were made, most of which are still there. */
static struct {
	uint64_t dir;
	struct call_text name;
} made[64];
static unsigned made_count;

static uint64_t inos[INOS_MAX];
static unsigned ino_count;
static char longest[KEYS_NAME_MAX + 1];
static const char *const names[] = { "a", "b", "c", "d", "e", "name with spaces", "\xc3\xa4", "-", "...", longest };
static const char *const attrs[] = { "user.a", "user.b", "security.capability", "trusted.x", ACCESS_ACL, "system.posix_acl_default",
				     "nothing.known" };

static uint64_t some_ino(void)
{
	return rnd(40) == 0 ? 1 + rnd(300) : inos[rnd(ino_count)];
}

/* Mostly a directory. */
static uint64_t some_dir(void)
{
	return rnd(4) == 0 ? some_ino() : made_count == 0 || rnd(3) == 0 ? KEYS_ROOT_INO : made[rnd(made_count)].dir;
}

static struct call_text some_name(void)
{
	return text(names[rnd(ARRAY_LEN(names))]);
}

static uint64_t some_off(void)
{
	return rnd(20) == 0 ? KEYS_SIZE_MAX - rnd(3) : rnd(2) ? rnd(5000) : rnd(400000);
}

static void some_set(struct keys_setattr *s)
{
	static const unsigned bits[] = { KEYS_SET_MODE, KEYS_SET_UID, KEYS_SET_GID, KEYS_SET_SIZE, KEYS_SET_CTIME, KEYS_KILL_PRIV };
	unsigned i;

	memset(s, 0, sizeof *s);
	for (i = 0; i < ARRAY_LEN(bits); i++)
		s->mask |= rnd(3) == 0 ? bits[i] : 0;
	s->mask |= rnd(3) ? 0 : rnd(2) ? KEYS_SET_ATIME : KEYS_SET_ATIME_NOW;
	s->mask |= rnd(3) ? 0 : rnd(2) ? KEYS_SET_MTIME : KEYS_SET_MTIME_NOW;
	s->mode = s->mask & KEYS_SET_MODE ? rnd(010000) : 0;
	s->uid = s->mask & KEYS_SET_UID ? rnd(4) : 0;
	s->gid = s->mask & KEYS_SET_GID ? rnd(4) : 0;
	s->size = s->mask & KEYS_SET_SIZE ? some_off() : 0;
	if (s->mask & KEYS_SET_ATIME)
		s->atime = (struct keys_time){ (int64_t)rnd(100000) - 50000, rnd(1000000000) };
	if (s->mask & KEYS_SET_MTIME)
		s->mtime = (struct keys_time){ (int64_t)rnd(100000) << 20, rnd(1000000000) };
	if (s->mask & KEYS_SET_CTIME)
		s->ctime = (struct keys_time){ rnd(100000), 999999999 };
}

/* A value: at times a valid ACL: owner, group, others, and one more user with its mask. */
static void some_value(struct call *c)
{
	static uint8_t acl[4 + 5 * 8];
	const uint16_t tags[] = { 1, 2, 4, 0x10, 0x20 };
	unsigned i;

	c->data = bytes;
	c->size = rnd(8) ? rnd(300) : rnd(KEYS_XATTR_MAX + 1);
	if (strncmp(c->name.s, "system.", 7) != 0 || rnd(8) == 0)
		return;
	put_le32(acl, 2);
	for (i = 0; i < 5; i++) {
		put_le16(acl + 4 + 8 * i, tags[i]);
		put_le16(acl + 6 + 8 * i, (uint16_t)rnd(8));
		put_le32(acl + 8 + 8 * i, tags[i] == 2 ? 77 : UINT32_MAX);
	}
	c->data = acl;
	c->size = sizeof acl;
}

static void some_data(struct call *c)
{
	c->size = 1 + (rnd(30) == 0 ? rnd(KEYS_WRITE_MAX) : rnd(4) ? rnd(6000) : rnd(100000));
	c->data = bytes + rnd(KEYS_WRITE_MAX - c->size + 1);
}

static void some_change(struct call *c)
{
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFIFO, S_IFCHR, S_IFBLK, S_IFSOCK };
	static const uint32_t modes[] = { 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
					  FALLOC_FL_COLLAPSE_RANGE };

	unsigned n = rnd(ARRAY_LEN(made));

	c->dir = some_dir();
	c->name = some_name();
	if (c->op >= CALL_UNLINK && n < made_count) {
		c->dir = made[n].dir;
		c->name = made[n].name;
	}
	switch (c->op) {
	case CALL_MAKE:
		c->mode = types[rnd(ARRAY_LEN(types))] | rnd(010000);
		c->rdev = rnd(70000);
		break;
	case CALL_SYMLINK:
		c->size = 1 + (rnd(5) ? rnd(50) : rnd(KEYS_SYMLINK_MAX));
		c->data = bytes;
		break;
	case CALL_RENAME:
		c->to_dir = some_dir();
		c->to_name = some_name();
		c->how = rnd(8);
		break;
	case CALL_SETATTR: some_set(&c->set); break;
	case CALL_WRITE:
		c->off = some_off();
		some_data(c);
		break;
	case CALL_APPEND: some_data(c); break;
	case CALL_FALLOCATE:
		c->how = modes[rnd(ARRAY_LEN(modes))];
		c->off = some_off();
		c->len = some_off();
		break;
	case CALL_COPY_RANGE:
		c->src = some_ino();
		c->src_off = rnd(100000);
		c->off = some_off();
		c->len = rnd(200000);
		break;
	case CALL_SETXATTR:
		c->name = text(attrs[rnd(ARRAY_LEN(attrs))]);
		c->how = rnd(4);
		some_value(c);
		break;
	case CALL_REMOVEXATTR: c->name = text(attrs[rnd(ARRAY_LEN(attrs))]); break;
	default: break;
	}
}

/* What its operation does not use stays 0, as after decoding. */
static void some_call(struct call *c)
{
	bool may_kill;

	memset(c, 0, sizeof *c);
	c->op = (uint16_t)(1 + rnd(CALL_OPS - 1));
	may_kill = c->op >= CALL_SETATTR && c->op <= CALL_SETXATTR;
	c->cred = (struct keys_cred){ rnd(4), rnd(4), rnd(01000) };
	c->flags = rnd(4) ? 0 : CALL_DURABLE;
	if (may_kill && rnd(2))
		c->flags |= CALL_KILL;
	if (c->flags & CALL_KILL && rnd(2)) {
		c->flags |= CALL_MEMBER;
		c->group = rnd(4);
	}
	c->ino = some_ino();
	some_change(c);
}

/* The same through keys.h. ------------------------------------------------------------------------------------------- */

static bool is_member(const struct call *c, uint32_t gid)
{
	return gid == c->cred.gid || (c->flags & CALL_MEMBER && gid == c->group);
}

/* From the text of chown(2) and write(2), not from the code under test. */
static unsigned to_kill(struct keys *k, const struct call *c, bool *ret_mode)
{
	struct keys_attr a = { 0 };
	unsigned mask = KEYS_KILL_PRIV;

	*ret_mode = false;
	if (!(c->flags & CALL_KILL))
		return 0;
	if (keys_getattr(k, c->ino, &a) == 0) {
		*ret_mode = (a.mode & 06000) != 0;
		if (!S_ISDIR(a.mode) && a.mode & 02000 && !(a.mode & 010) && !is_member(c, a.gid))
			mask |= KEYS_KILL_SGID;
	}
	return mask;
}

static int direct_data(struct keys *k, const struct call *c, struct call_result *res)
{
	struct keys_attr a;
	bool mode;
	unsigned kill = to_kill(k, c, &mode);
	size_t n = 0;
	int r = 0;

	res->off = c->off;
	if (c->op == CALL_APPEND) {
		r = keys_getattr(k, c->ino, &a);
		res->off = a.size;
	}
	if (c->op == CALL_FALLOCATE)
		r = keys_fallocate(k, c->ino, (int)c->how, c->off, c->len, kill);
	else if (c->op == CALL_COPY_RANGE)
		r = keys_copy_range(k, c->src, c->src_off, c->ino, c->off, c->len, kill, &n);
	else if (r == 0)
		r = keys_write(k, c->ino, res->off, c->data, c->size, kill, &n);
	res->number = r == 0 ? n : 0;
	res->stale = r == 0 ? mode && (n > 0 || c->op == CALL_FALLOCATE) : c->op == CALL_FALLOCATE && r != -EAGAIN;
	if (r < 0 || c->op == CALL_FALLOCATE || c->op == CALL_COPY_RANGE)
		res->off = 0;
	return r;
}

static int direct_attr(struct keys *k, const struct call *c, struct call_result *res)
{
	struct keys_setattr set = c->set;
	struct keys_attr a;
	bool mode;

	if (c->op == CALL_SETATTR) {
		if (set.mask & KEYS_KILL_PRIV)
			set.mask |= to_kill(k, c, &mode);
		return keys_setattr(k, c->ino, &set, &res->attr);
	}
	if (c->op == CALL_REMOVEXATTR)
		return keys_removexattr(k, c->ino, c->name.s);
	return keys_setxattr(k, c->ino, c->name.s, c->data, c->size, (int)c->how,
			     c->flags & CALL_KILL && strcmp(c->name.s, ACCESS_ACL) == 0 && keys_getattr(k, c->ino, &a) == 0 &&
			     a.mode & S_ISGID && !is_member(c, a.gid));
}

static int direct_name(struct keys *k, const struct call *c, struct call_result *res)
{
	const char *s = c->name.s;
	uint32_t nlink = 0;
	uint64_t ino;
	int r;

	switch (c->op) {
	case CALL_MAKE:    r = keys_make(k, c->dir, s, c->name.len, c->mode, c->rdev, &c->cred, &res->attr); break;
	case CALL_SYMLINK: r = keys_symlink(k, c->dir, s, c->name.len, c->data, c->size, &c->cred, &res->attr); break;
	case CALL_LINK:    r = keys_link(k, c->ino, c->dir, s, c->name.len, &res->attr); break;
	case CALL_UNLINK:
		r = keys_unlink(k, c->dir, s, c->name.len, &ino, &nlink);
		res->orphan = r == 0 && nlink == 0 ? ino : 0;
		return r;
	case CALL_RMDIR: return keys_rmdir(k, c->dir, s, c->name.len, &res->orphan);
	case CALL_RENAME:
		return keys_rename(k, c->dir, s, c->name.len, c->to_dir, c->to_name.s, c->to_name.len, c->how, &c->cred,
				   &res->orphan);
	default: return 0;
	}
	res->number = r == 0 && c->op != CALL_LINK ? res->attr.ino : 0;
	return r;
}

static bool missing(struct keys *k, uint64_t ino)
{
	struct keys_attr a;

	return ino != 0 && keys_getattr(k, ino, &a) == -ENOENT;
}

static void run_direct(struct keys *k, const struct call *c, struct call_result *res)
{
	bool names_dir = c->op <= CALL_RENAME, names_ino = c->op == CALL_LINK || (c->op >= CALL_SETATTR && c->op < CALL_FSYNC);

	memset(res, 0, sizeof *res);
	if (c->op <= CALL_RENAME || c->op >= CALL_FSYNC)
		res->error = direct_name(k, c, res);
	else if (c->op == CALL_SETATTR || c->op == CALL_SETXATTR || c->op == CALL_REMOVEXATTR)
		res->error = direct_attr(k, c, res);
	else
		res->error = direct_data(k, c, res);
	if (res->error == -ENOENT &&
	    ((names_dir && missing(k, c->dir)) || (names_ino && missing(k, c->ino)) ||
	     (c->op == CALL_RENAME && missing(k, c->to_dir)) || (c->op == CALL_COPY_RANGE && missing(k, c->src))))
		res->error = -ESTALE;
}

static bool same_time(struct keys_time a, struct keys_time b)
{
	return a.sec == b.sec && a.nsec == b.nsec;
}

static bool same_attr(const struct keys_attr *a, const struct keys_attr *b)
{
	return a->ino == b->ino && a->mode == b->mode && a->nlink == b->nlink && a->uid == b->uid && a->gid == b->gid &&
	       a->size == b->size && a->aux == b->aux && a->blocks == b->blocks && a->flags == b->flags &&
	       a->inline_len == b->inline_len && same_time(a->atime, b->atime) && same_time(a->mtime, b->mtime) &&
	       same_time(a->ctime, b->ctime) && same_time(a->btime, b->btime);
}

static void same_inode(struct keys *a, struct keys *b, uint64_t ino, unsigned op)
{
	struct keys_attr x, y;
	int r = keys_getattr(a, ino, &x);

	if (r != keys_getattr(b, ino, &y) || (r == 0 && !same_attr(&x, &y)))
		fail_msg("SEED=%llu: inode %llu differs after operation %u", (unsigned long long)seed, (unsigned long long)ino, op);
}

static void same_views(struct keys *a, struct keys *b)
{
	struct view x, y;
	size_t i;

	assert_int_equal(view_take(&x, a, false), 0);
	assert_int_equal(view_take(&y, b, false), 0);
	assert_int_equal(x.count, y.count);
	assert_int_equal(x.name_count, y.name_count);
	for (i = 0; i < x.count; i++) {
		const char *why = view_differ(&x.nodes[i], &y.nodes[i]);

		if (why)
			fail_msg("SEED=%llu: inode %llu: %s", (unsigned long long)seed, (unsigned long long)x.nodes[i].a.ino, why);
	}
	for (i = 0; i < x.name_count; i++)
		assert_true(view_has_name(&y, &x.names[i]));
	view_release(&x);
	view_release(&y);
}

static void settle(struct keys *a, struct keys *b)
{
	assert_int_equal(store_checkpoint(keys_store(a)), 0);
	assert_int_equal(store_checkpoint(keys_store(b)), 0);
}

static void reap(struct keys *k, uint64_t ino)
{
	int r;

	while ((r = keys_reap(k, ino)) != 0)
		if (r == -EAGAIN)
			assert_int_equal(store_checkpoint(keys_store(k)), 0);
		else
			assert_int_equal(r, 1);
}

/* Few calls shall name it from now on. */
static void forget(uint64_t ino)
{
	unsigned i, n = 1;

	for (i = 1; i < ino_count; i++)
		if (inos[i] != ino || rnd(10) == 0)
			inos[n++] = inos[i];
	ino_count = n;
	for (i = n = 0; i < made_count; i++)
		if (made[i].dir != ino)
			made[n++] = made[i];
	made_count = n;
}

/* Orphans are kept for a while: a call may name one. */
static void after_call(struct keys *a, struct keys *b, const struct call *c, const struct call_result *res)
{
	unsigned n;
	uint64_t ino;

	if (res->error == 0 && c->op <= CALL_LINK) {
		n = made_count < ARRAY_LEN(made) ? made_count++ : rnd(ARRAY_LEN(made));
		made[n].dir = c->dir;
		made[n].name = c->name;
	}
	if (res->error == 0 && res->number > 0 && res->attr.ino == res->number && ino_count < INOS_MAX)
		inos[ino_count++] = res->number;
	if (ino_count == INOS_MAX)
		ino_count = 1 + rnd(INOS_MAX / 2);
	if (rnd(200) == 0 && keys_next_orphan(a, 0, &ino) == 0) {
		reap(a, ino);
		reap(b, ino);
		forget(ino);
	}
}

static void test_call__random_calls(void **state)
{
	struct keys *a = open_memory(), *b = open_memory();
	struct call_result x, y;
	unsigned seen[CALL_OPS] = { 0 };
	struct call c;
	uint64_t i, done = 0;
	size_t n;

	(void)state;
	memset(longest, 'n', KEYS_NAME_MAX);
	for (n = 0; n < sizeof bytes; n++)
		bytes[n] = (uint8_t)(1 + rnd(255));
	inos[0] = KEYS_ROOT_INO;
	ino_count = 1;
	for (i = 0; i < calls; i++) {
		clock_ns += 1 + rnd(2000000000);
		some_call(&c);
		assert_int_equal(call_check(&c), 0);
		run_direct(a, &c, &x);
		memset(&y, 0xaa, sizeof y);
		y.attr.ino = 0;
		run_remote(b, &c, &y);
		if (x.error != y.error || x.number != y.number || x.off != y.off || x.orphan != y.orphan || x.stale != y.stale)
			fail_msg("SEED=%llu: call %llu, operation %u: (%d %llu %llu %llu %d) should be (%d %llu %llu %llu %d)",
				 (unsigned long long)seed, (unsigned long long)i, c.op, y.error, (unsigned long long)y.number,
				 (unsigned long long)y.off, (unsigned long long)y.orphan, y.stale, x.error, (unsigned long long)x.number,
				 (unsigned long long)x.off, (unsigned long long)x.orphan, x.stale);
		if (x.error == -EAGAIN) {
			settle(a, b);
			continue;
		}
		same_inode(a, b, c.ino, c.op);
		same_inode(a, b, c.dir, c.op);
		if (x.error == 0 && (c.op <= CALL_LINK || c.op == CALL_SETATTR))
			assert_true(same_attr(&x.attr, &y.attr));
		seen[c.op] += x.error == 0;
		done += x.error == 0;
		after_call(a, b, &c, &y);
		if (i % 5000 == 4999)
			same_views(a, b);
	}
	same_views(a, b);
	/* Of each operation some succeeded, or nothing was compared. */
	for (i = 1; i < CALL_OPS; i++)
		if (calls >= 5000 && seen[i] == 0)
			fail_msg("SEED=%llu: operation %llu never succeeded", (unsigned long long)seed, (unsigned long long)i);
	(void)printf("# %llu of %llu calls changed something\n", (unsigned long long)done, (unsigned long long)calls);
	assert_int_equal(keys_close(a), 0);
	assert_int_equal(keys_close(b), 0);
}

/* Hostile bytes ------------------------------------------------------------------------------------------------------ */

/* One of each operation that passes call_check(), no field 0. */
static struct call whole(unsigned op)
{
	struct call c = { .op = (uint16_t)op, .cred = { 11, 12, 022 }, .ino = 5, .dir = 6, .name = text("name") };
	static const struct keys_setattr all = { KEYS_SET_MODE | KEYS_SET_UID | KEYS_SET_GID | KEYS_SET_SIZE | KEYS_SET_ATIME |
						 KEYS_SET_MTIME | KEYS_SET_CTIME | KEYS_KILL_PRIV, 0755, 1, 2, 3, { 4, 5 }, { 6, 7 },
						 { 8, 9 } };

	switch (op) {
	case CALL_MAKE:    c.mode = S_IFCHR | 0644; c.rdev = 0x103; break;
	case CALL_SYMLINK: c.data = "to/there"; c.size = 8; break;
	case CALL_RENAME:  c.to_dir = 9; c.to_name = text("other"); c.how = 1; break;
	case CALL_SETATTR: c.set = all; break;
	case CALL_WRITE:   c.off = 4000; /* fall through */
	case CALL_APPEND:  c.data = "some bytes"; c.size = 10; break;
	case CALL_FALLOCATE: c.how = 1; c.off = 1; c.len = 2; break;
	case CALL_COPY_RANGE: c.src = 7; c.src_off = 1; c.off = 2; c.len = 3; break;
	case CALL_SETXATTR: c.data = "value"; c.size = 5; c.how = 1; /* fall through */
	case CALL_REMOVEXATTR: c.name = text("user.name"); break;
	default: break;
	}
	if (op >= CALL_SETATTR && op <= CALL_SETXATTR) {
		c.flags = CALL_KILL | CALL_MEMBER;
		c.group = 3;
	}
	return c;
}

/* Refused, or a call that says just these bytes. */
static bool decodes(const uint8_t *from, size_t len)
{
	static uint8_t again[CALL_MAX];
	uint8_t *copy = malloc(len ? len : 1);  /* of its own size, so that a sanitizer sees what is read behind it */
	struct call c;
	int r;

	assert_non_null(copy);
	memcpy(copy, from, len);
	r = call_decode(copy, len, &c);
	if (r == 0) {
		assert_int_equal(call_check(&c), 0);
		assert_int_equal(call_size(&c), len);
		call_encode(&c, again);
		assert_memory_equal(again, from, len);
	} else {
		assert_int_equal(r, -EPROTO);
		assert_true(err_last()[0] != '\0');
	}
	free(copy);
	return r == 0;
}

static void test_call__hostile_bytes(void **state)
{
	uint8_t good[400], bad[400];
	unsigned op, bit;
	size_t len, i;

	(void)state;
	for (op = 1; op < CALL_OPS; op++) {
		struct call c = whole(op);

		assert_int_equal(call_check(&c), 0);
		len = call_size(&c);
		assert_true(len < sizeof good);
		call_encode(&c, good);
		assert_true(decodes(good, len));
		for (i = 0; i < len; i++)
			assert_false(decodes(good, i));
		memcpy(bad, good, len);
		bad[len] = 0;
		assert_false(decodes(bad, len + 1));
		for (i = 0; i < len; i++) {
			for (bit = 0; bit < 8; bit++) {
				memcpy(bad, good, len);
				bad[i] ^= (uint8_t)(1u << bit);
				(void)decodes(bad, len);
			}
			bad[i] = 0xff;
			(void)decodes(bad, len);
		}
	}
	/* Operations that there are not, those of locks among them. */
	for (op = 0; op < 70000; op += op < 100 ? 1 : 997) {
		put_le16(good, (uint16_t)op);
		if (op == 0 || op >= CALL_OPS)
			assert_int_equal(call_decode(good, 20, &(struct call){ 0 }), op % 65536 == CALL_FSYNC ? 0 : -EPROTO);
	}
}

static void test_call__random_bytes(void **state)
{
	uint8_t buf[200];
	unsigned i, j, good = 0;

	(void)state;
	for (i = 0; i < 200000; i++) {
		struct call c = whole(1 + rnd(CALL_OPS - 1));
		size_t len = call_size(&c);

		call_encode(&c, buf);
		for (j = rnd(4); j < 4; j++)
			buf[rnd((uint32_t)len)] = (uint8_t)(rnd(2) ? rnd(256) : rnd(3) - 1);
		if (rnd(10) == 0)
			len = rnd((uint32_t)len);
		good += decodes(buf, len);
	}
	assert_true(good > 1000);
}

/* What an operation may say ------------------------------------------------------------------------------------------ */

static void refused(const struct call *c, int error, int line)
{
	size_t len = call_size(c);

	if (call_check(c) != error)
		fail_msg("line %d: operation %u: %d, should be %d", line, c->op, call_check(c), error);
	assert_true(len <= sizeof wire);
	call_encode(c, wire);
	if (call_decode(wire, len, &(struct call){ 0 }) != -EPROTO)
		fail_msg("line %d: operation %u is decoded", line, c->op);
}
#define REFUSED(c, error) refused((c), (error), __LINE__)

static void accepted(const struct call *c, int line)
{
	call_encode(c, wire);
	if (call_check(c) != 0 || call_decode(wire, call_size(c), &(struct call){ 0 }) != 0)
		fail_msg("line %d: operation %u is refused: %s", line, c->op, err_last());
}
#define ACCEPTED(c) accepted((c), __LINE__)

static void check_names(unsigned op)
{
	static char name[KEYS_NAME_MAX + 2];
	struct call c = whole(op);

	memset(name, 'x', sizeof name);
	c.name = (struct call_text){ name, KEYS_NAME_MAX };
	ACCEPTED(&c);
	c.name.len++;
	REFUSED(&c, -ENAMETOOLONG);
	c.name.len = 0;
	REFUSED(&c, -EINVAL);
	c.name = text("a/b");
	REFUSED(&c, -EINVAL);
	c.name = (struct call_text){ "a\0b", 3 };
	REFUSED(&c, -EINVAL);
	c.name = text(".");
	REFUSED(&c, -EEXIST);
	c.name = text("..");
	REFUSED(&c, -EEXIST);
	c.name = text("...");
	ACCEPTED(&c);
	c = whole(op);
	c.dir = 0;
	REFUSED(&c, -ESTALE);
	c.dir = 1ull << 48;
	REFUSED(&c, -ESTALE);
	c.dir--;
	ACCEPTED(&c);
}

static void check_flags(unsigned op)
{
	bool may_kill = op >= CALL_SETATTR && op <= CALL_SETXATTR;
	struct call c = whole(op);

	c.flags = CALL_DURABLE;
	c.group = 0;
	ACCEPTED(&c);
	c.group = 1;
	REFUSED(&c, -EINVAL);
	c.group = 0;
	c.flags = CALL_MEMBER;
	REFUSED(&c, -EINVAL);
	c.flags = CALL_KILL;
	if (may_kill)
		ACCEPTED(&c);
	else
		REFUSED(&c, -EINVAL);
	c.flags = CALL_DURABLE << 1;
	REFUSED(&c, -EINVAL);
	c = whole(op);
	c.cred.umask = 07777;
	ACCEPTED(&c);
	c.cred.umask++;
	REFUSED(&c, -EINVAL);
}

static void test_call__names_and_flags(void **state)
{
	struct call c;
	unsigned op;

	(void)state;
	for (op = 1; op < CALL_OPS; op++) {
		if (op <= CALL_RENAME)
			check_names(op);
		check_flags(op);
	}
	c = whole(CALL_RENAME);
	c.to_name = text("..");
	REFUSED(&c, -EEXIST);
	c = whole(CALL_RENAME);
	c.to_dir = 0;
	REFUSED(&c, -ESTALE);
	c = whole(CALL_RENAME);
	c.how = 7;
	ACCEPTED(&c);
	c.how = 8;
	REFUSED(&c, -EINVAL);
	c = whole(CALL_LINK);
	c.ino = 0;
	REFUSED(&c, -ESTALE);
	c = whole(CALL_SETXATTR);
	c.name = text("");
	REFUSED(&c, -ERANGE);
	c.name = (struct call_text){ "user.a\0b", 8 };
	REFUSED(&c, -ERANGE);
	c = whole(CALL_SETXATTR);
	c.how = 4;
	REFUSED(&c, -EINVAL);
	c = whole(CALL_LOCK_FIRST);
	assert_int_equal(call_check(&c), -EOPNOTSUPP);
}

static void test_call__modes_and_attributes(void **state)
{
	struct call c = whole(CALL_MAKE);
	unsigned type;

	(void)state;
	for (type = 0; type < 16; type++) {
		c.mode = type << 12 | 07777;
		if (type == 1 || type == 2 || type == 4 || type == 6 || type == 8 || type == 12)
			ACCEPTED(&c);
		else
			REFUSED(&c, -EINVAL);
	}
	c.mode = S_IFREG | 0x10000;
	REFUSED(&c, -EINVAL);
	c = whole(CALL_SETATTR);
	c.set.mask |= KEYS_KILL_SGID;
	REFUSED(&c, -EINVAL);
	c = whole(CALL_SETATTR);
	c.set.mask |= KEYS_SET_ATIME_NOW;
	REFUSED(&c, -EINVAL);
	c = whole(CALL_SETATTR);
	c.set.mask |= KEYS_SET_MTIME_NOW;
	REFUSED(&c, -EINVAL);
	c = whole(CALL_SETATTR);
	c.set.mode = 010000;
	REFUSED(&c, -EINVAL);
	c = whole(CALL_SETATTR);
	c.set.size = KEYS_SIZE_MAX;
	ACCEPTED(&c);
	c.set.size++;
	REFUSED(&c, -EINVAL);
	c = whole(CALL_SETATTR);
	c.set.ctime.nsec = 999999999;
	ACCEPTED(&c);
	c.set.ctime.nsec++;
	REFUSED(&c, -EINVAL);
	c = whole(CALL_SETATTR);
	c.set.mask = 0;
	memset(&c.set, 0, sizeof c.set);
	ACCEPTED(&c);
}

/* What the mask does not name has to be 0, so that one call has one encoding. */
static void test_call__attributes_without_mask(void **state)
{
	struct call c = whole(CALL_SETATTR), d;
	size_t len = call_size(&c), i;

	(void)state;
	c.set.mask = 0;
	call_encode(&c, wire);
	assert_int_equal(call_decode(wire, len, &d), 0);
	assert_int_equal(d.set.mode | d.set.uid | d.set.gid | (int)d.set.size, 0);
	for (i = len - 56; i < len; i++) {
		wire[i] = 1;
		assert_int_equal(call_decode(wire, len, &d), -EPROTO);
		wire[i] = 0;
	}
}

static void test_call__bytes_and_offsets(void **state)
{
	static char path[KEYS_SYMLINK_MAX + 1];
	struct call c = whole(CALL_SYMLINK);

	(void)state;
	memset(path, 'p', sizeof path);
	c.data = path;
	c.size = KEYS_SYMLINK_MAX;
	ACCEPTED(&c);
	c.size++;
	REFUSED(&c, -ENAMETOOLONG);
	c.size = 0;
	REFUSED(&c, -ENOENT);
	c.data = "a\0b";
	c.size = 3;
	REFUSED(&c, -ENOENT);
	c = whole(CALL_WRITE);
	c.data = bytes;
	c.size = KEYS_WRITE_MAX;
	ACCEPTED(&c);
	assert_true(call_size(&c) <= CALL_MAX);
	c.size = 0;
	REFUSED(&c, -EINVAL);
	c = whole(CALL_WRITE);
	c.off = KEYS_SIZE_MAX;
	ACCEPTED(&c);
	c.off++;
	REFUSED(&c, -EFBIG);
	c = whole(CALL_FALLOCATE);
	c.len = KEYS_SIZE_MAX + 1;
	REFUSED(&c, -EFBIG);
	c = whole(CALL_FALLOCATE);
	c.how = UINT32_MAX;
	REFUSED(&c, -EINVAL);
	c = whole(CALL_COPY_RANGE);
	c.src_off = UINT64_MAX;
	REFUSED(&c, -EFBIG);
	c = whole(CALL_COPY_RANGE);
	c.src = 0;
	REFUSED(&c, -ESTALE);
	c = whole(CALL_SETXATTR);
	c.data = bytes;
	c.size = KEYS_XATTR_MAX;
	ACCEPTED(&c);
	c.size++;
	REFUSED(&c, -E2BIG);
}

/* A write of more than a call may have, by its length alone: nothing is read there. */
static void test_call__too_long(void **state)
{
	struct call c = whole(CALL_WRITE);
	size_t at = call_size(&c) - c.size - 4;

	(void)state;
	call_encode(&c, wire);
	put_le32(wire + at, KEYS_WRITE_MAX + 1);
	assert_int_equal(call_decode(wire, call_size(&c), &c), -EPROTO);
	put_le32(wire + at, UINT32_MAX);
	assert_int_equal(call_decode(wire, at + 14, &c), -EPROTO);
}

/* What depends on the state ------------------------------------------------------------------------------------------ */

static uint64_t make_file(struct keys *k, const char *name, uint32_t mode, uint32_t gid)
{
	const struct keys_cred cred = { 1000, gid, 0 };
	const struct keys_setattr set = { .mask = KEYS_SET_MODE, .mode = mode };
	struct keys_attr a;

	assert_int_equal(keys_make(k, KEYS_ROOT_INO, name, strlen(name), S_IFREG | 0644, 0, &cred, &a), 0);
	assert_int_equal(keys_setattr(k, a.ino, &set, &a), 0);
	return a.ino;
}

static uint32_t mode_after(struct keys *k, struct call *c, struct call_result *res)
{
	struct keys_attr a;

	run_remote(k, c, res);
	assert_int_equal(res->error, 0);
	assert_int_equal(keys_getattr(k, c->ino, &a), 0);
	return a.mode & 07777;
}

static void test_call__privileges(void **state)
{
	struct keys *k = open_memory();
	struct call_result res;
	struct call c;
	unsigned op, n = 0;
	char name[16];

	(void)state;
	for (op = CALL_WRITE; op <= CALL_COPY_RANGE; op++) {
		c = whole(op);
		c.src = make_file(k, (snprintf(name, sizeof name, "s%u", n++), name), 0644, 7);
		{
			const struct call fill = { .op = CALL_WRITE, .ino = c.src, .data = "0123456789", .size = 10 };

			run_remote(k, &fill, &res);
		}
		if (op != CALL_COPY_RANGE)
			c.src = whole(op).src;
		/* By somebody outside the group; by a member, known by number or as a fact; by a member of what was the group
		 * when it was asked; by somebody who may keep them. */
		c.ino = make_file(k, (snprintf(name, sizeof name, "f%u", n++), name), 06644, 7);
		c.flags = CALL_KILL;
		c.group = 0;
		assert_int_equal(mode_after(k, &c, &res), 0644);
		assert_true(res.stale);
		assert_int_equal(mode_after(k, &c, &res), 0644);
		assert_false(res.stale);
		c.ino = make_file(k, (snprintf(name, sizeof name, "f%u", n++), name), 06644, 12);
		assert_int_equal(mode_after(k, &c, &res), 02644);
		c.ino = make_file(k, (snprintf(name, sizeof name, "f%u", n++), name), 06644, 7);
		c.flags = CALL_KILL | CALL_MEMBER;
		c.group = 7;
		assert_int_equal(mode_after(k, &c, &res), 02644);
		c.ino = make_file(k, (snprintf(name, sizeof name, "f%u", n++), name), 06644, 8);
		assert_int_equal(mode_after(k, &c, &res), 0644);
		c.ino = make_file(k, (snprintf(name, sizeof name, "f%u", n++), name), 06654, 7);
		assert_int_equal(mode_after(k, &c, &res), 0654);
		c.ino = make_file(k, (snprintf(name, sizeof name, "f%u", n++), name), 06644, 7);
		c.flags = c.group = 0;
		assert_int_equal(mode_after(k, &c, &res), 06644);
		assert_false(res.stale);
	}
	assert_int_equal(keys_close(k), 0);
}

static unsigned asked;

static bool only_seven(void *ctx, uint32_t gid)
{
	(void)ctx;
	asked++;
	return gid == 7;
}

/* Groups are asked for only when they matter; call_settle() makes a fact of the answer. */
static void test_call__settle(void **state)
{
	struct keys *k = open_memory();
	struct call_result res;
	struct call c = whole(CALL_WRITE);

	(void)state;
	c.flags = CALL_KILL;
	c.group = 0;
	c.in_group = only_seven;
	c.ino = make_file(k, "plain", 0644, 7);
	asked = 0;
	call_run(k, &c, &res);
	call_settle(k, &c);
	assert_int_equal(asked, 0);
	assert_null(c.in_group);
	assert_int_equal(c.flags, CALL_KILL);
	c.in_group = only_seven;
	c.ino = make_file(k, "other", 02644, 8);
	call_settle(k, &c);
	assert_int_equal(asked, 1);
	assert_int_equal(c.flags, CALL_KILL);
	c.in_group = only_seven;
	c.ino = make_file(k, "mine", 06644, 7);
	call_settle(k, &c);
	assert_int_equal(c.flags, CALL_KILL | CALL_MEMBER);
	assert_int_equal(c.group, 7);
	assert_int_equal(mode_after(k, &c, &res), 02644);
	assert_int_equal(asked, 2);
	/* Here and at once: the same. */
	c.flags = CALL_KILL;
	c.group = 0;
	c.in_group = only_seven;
	c.ino = make_file(k, "here", 06644, 7);
	call_run(k, &c, &res);
	assert_int_equal(res.error, 0);
	assert_int_equal(asked, 3);
	c.in_group = NULL;
	assert_int_equal(mode_after(k, &c, &res), 0644);
	assert_int_equal(keys_close(k), 0);
}

static void test_call__append(void **state)
{
	struct keys *k = open_memory();
	uint64_t f = make_file(k, "log", 0644, 0);
	struct call c = { .op = CALL_APPEND, .ino = f, .data = "line\n", .size = 5 };
	struct call_result res;
	struct keys_attr a;
	unsigned i;

	(void)state;
	for (i = 0; i < 1000; i++) {
		/* Whatever the caller's kernel believes. */
		c.off = i % 3 == 0 ? 0 : i * 7;
		run_remote(k, &c, &res);
		assert_int_equal(res.error, 0);
		assert_int_equal(res.number, 5);
		assert_int_equal(res.off, 5 * i);
	}
	assert_int_equal(keys_getattr(k, f, &a), 0);
	assert_int_equal(a.size, 5000);
	assert_int_equal(keys_setattr(k, f, &(struct keys_setattr){ .mask = KEYS_SET_SIZE, .size = KEYS_SIZE_MAX }, &a), 0);
	run_remote(k, &c, &res);
	assert_int_equal(res.error, -EFBIG);
	c.ino = KEYS_ROOT_INO;
	run_remote(k, &c, &res);
	assert_int_equal(res.error, -EISDIR);
	assert_int_equal(keys_close(k), 0);
}

/* A name that is not there is ENOENT, an inode that is not there ESTALE. */
static void test_call__gone(void **state)
{
	struct keys *k = open_memory();
	struct call_result res;
	unsigned op;

	(void)state;
	for (op = 1; op < CALL_FSYNC; op++) {
		struct call c = whole(op);

		run_remote(k, &c, &res);
		assert_int_equal(res.error, -ESTALE);
		assert_int_equal(res.number, 0);
	}
	for (op = CALL_UNLINK; op <= CALL_RENAME; op++) {
		struct call c = whole(op);

		c.dir = c.to_dir = KEYS_ROOT_INO;
		if (op != CALL_RENAME)
			c.to_dir = whole(op).to_dir;
		run_remote(k, &c, &res);
		assert_int_equal(res.error, -ENOENT);
	}
	assert_int_equal(keys_close(k), 0);
}

/* Run where it was built, a call may say anything. */
static void test_call__anything_unchecked(void **state)
{
	static const uint16_t none[] = { 0, CALL_OPS, CALL_LOCK_FIRST, UINT16_MAX };
	struct keys *k = open_memory();
	struct call_result res;
	struct call c = { 0 };
	unsigned i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(none); i++) {
		c.op = none[i];
		call_run(k, &c, &res);
		assert_int_equal(res.error, -EOPNOTSUPP);
	}
	c = (struct call){ .op = CALL_MAKE, .dir = KEYS_ROOT_INO, .name = text("."), .mode = S_IFREG };
	call_run(k, &c, &res);
	assert_int_equal(res.error, -EEXIST);
	c.name = text("a/b");
	call_run(k, &c, &res);
	assert_int_equal(res.error, -EINVAL);
	c = (struct call){ .op = CALL_WRITE, .ino = 1ull << 60, .data = "x", .size = 1 };
	call_run(k, &c, &res);
	assert_int_equal(res.error, -ESTALE);
	assert_true(call_changes_names(&(struct call){ .op = CALL_RENAME }));
	assert_false(call_changes_names(&(struct call){ .op = CALL_WRITE }));
	assert_int_equal(keys_close(k), 0);
}

/* Make what the call needs to succeed. *f: the file that the later ones change. */
static void prepare_once(struct keys *k, struct call *c, uint64_t *f)
{
	static const char *const own[] = { [CALL_MAKE] = "made", [CALL_SYMLINK] = "link", [CALL_LINK] = "linked", [CALL_UNLINK] = "made",
					   [CALL_RMDIR] = "dir", [CALL_RENAME] = "old" };
	struct keys_attr a;

	c->dir = KEYS_ROOT_INO;
	if (c->op <= CALL_RENAME)
		c->name = text(own[c->op]);
	switch (c->op) {
	case CALL_MAKE:   c->mode = S_IFREG | 0644; break;
	case CALL_LINK:   c->ino = make_file(k, "target", 0644, 1); break;
	case CALL_RMDIR:  assert_int_equal(keys_make(k, KEYS_ROOT_INO, "dir", 3, S_IFDIR | 0755, 0, &c->cred, &a), 0); break;
	case CALL_RENAME:
		*f = make_file(k, "old", 0644, 5);
		c->to_dir = KEYS_ROOT_INO;
		break;
	case CALL_COPY_RANGE:
		c->src = *f;
		c->src_off = 0;
		break;
	case CALL_FALLOCATE: c->len = 9u << 20; break;          /* more than one record */
	default: break;
	}
	if (c->op >= CALL_SETATTR)
		c->ino = *f;
}

/* A call that comes twice is executed once, and its number is the same; a store that was opened anew in between knows it, too. */
static void test_call__once(void **state)
{
	char path[SCRATCH_PATH];
	struct store_options o = { .path = path, .create = true, .max_bytes = 64u << 20 };
	struct call_result first, again;
	uint64_t request = 0, seq, seq2, before, f = 0;
	struct keys_attr a, b;
	struct keys *k;
	unsigned op;

	(void)state;
	assert_int_equal(scratch_make_on_disk("call"), 0);
	scratch_path(path, "store");
	assert_int_equal(keys_open(&o, &k), 0);
	for (op = 1; op < CALL_FSYNC; op++) {
		struct call c = whole(op);

		prepare_once(k, &c, &f);
		call_run_once(k, 7, ++request, &c, &first, &seq);
		if (first.error != 0)
			fail_msg("operation %u: %d", op, first.error);
		assert_int_equal(seq, store_seq(keys_store(k)));
		if (op % 3 == 0) {
			assert_int_equal(keys_close(k), 0);
			assert_int_equal(keys_open(&o, &k), 0);
		}
		before = store_seq(keys_store(k));
		(void)keys_getattr(k, c.ino, &a);
		call_run_once(k, 7, request, &c, &again, &seq2);
		assert_int_equal(again.error, 0);
		assert_int_equal(again.number, first.number);
		assert_int_equal(seq2, seq);
		assert_int_equal(store_seq(keys_store(k)), before);
		if (op >= CALL_SETATTR) {
			assert_int_equal(keys_getattr(k, c.ino, &b), 0);
			assert_true(same_attr(&a, &b));
		}
		/* The next is another one. */
		call_run_once(k, 7, ++request, &c, &again, &seq2);
		assert_true(seq2 >= seq);
		if (op == CALL_APPEND)
			assert_int_equal(again.off, first.off + first.number);
	}
	{
		struct call c = whole(CALL_APPEND);

		c.ino = f;
		for (op = 0; op < 40; op++)
			call_run_once(k, 7, ++request, &c, &first, &seq);
		call_run_once(k, 7, request - 33, &c, &again, &seq2);
		assert_int_equal(again.error, -EIO);
		/* One that was refused left nothing, and may succeed the next time. */
		c = whole(CALL_UNLINK);
		c.dir = KEYS_ROOT_INO;
		c.name = text("late");
		call_run_once(k, 7, ++request, &c, &first, &seq);
		assert_int_equal(first.error, -ENOENT);
		(void)make_file(k, "late", 0644, 1);
		call_run_once(k, 7, request, &c, &again, &seq2);
		assert_int_equal(again.error, 0);
		assert_true(again.orphan > 0);
	}
	assert_int_equal(keys_close(k), 0);
	assert_int_equal(scratch_remove(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_call__random_calls),
		cmocka_unit_test(test_call__hostile_bytes),
		cmocka_unit_test(test_call__random_bytes),
		cmocka_unit_test(test_call__names_and_flags),
		cmocka_unit_test(test_call__modes_and_attributes),
		cmocka_unit_test(test_call__attributes_without_mask),
		cmocka_unit_test(test_call__bytes_and_offsets),
		cmocka_unit_test(test_call__too_long),
		cmocka_unit_test(test_call__privileges),
		cmocka_unit_test(test_call__settle),
		cmocka_unit_test(test_call__append),
		cmocka_unit_test(test_call__gone),
		cmocka_unit_test(test_call__anything_unchecked),
		cmocka_unit_test(test_call__once),
	};

	seed = random_seed();
	calls = env_number("CALLS", 20000);
	(void)printf("# CALLS=%llu\n", (unsigned long long)calls);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
