/* SPDX-License-Identifier: MIT
 *
 * test_limit: keys that are limited to a directory. Random calls, some by who may change everything, some by who may change only
 * what is below /t: those of the latter that are let through leave all that has a name outside, or lost its last one there, as
 * it was, and what is inside alone is never refused; all seen by names from the root, without what limit.c goes by. Where files
 * are (keys_where()), with hints of older versions, wrong ones and none. Then each operation at the border, by name.
 *
 *   SEED=n   replays the random calls        CALLS=n   how many
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base.h"
#include "core/keys/restore.h"
#include "core/replica/limit.h"
#include "core/store/store.h"
#include "tests/unit/view_util.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>

#define TREE     "/t"
#define INOS_MAX 600u
#define ACL      "system.posix_acl_access"

static uint64_t rng, seed, calls;
static struct keys *k;
static uint64_t tree_ino;

static uint32_t rnd(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 32) % n;
}

static struct call_text text(const char *s)
{
	return (struct call_text){ s, (uint32_t)strlen(s) };
}

static struct keys *open_memory(void)
{
	const struct store_options o = { .path = ":memory:", .create = true, .max_bytes = 96u << 20 };
	struct keys *made;

	assert_int_equal(keys_open(&o, &made), 0);
	return made;
}

static uint64_t make(uint64_t dir, const char *name, uint32_t mode)
{
	const struct keys_cred cred = { 0 };
	struct keys_attr a;

	assert_int_equal(keys_make(k, dir, name, strlen(name), mode, 0, &cred, &a), 0);
	return a.ino;
}

static struct keys_attr attr_of(uint64_t ino)
{
	struct keys_attr a;

	assert_int_equal(keys_getattr(k, ino, &a), 0);
	return a;
}

static int where(uint64_t ino, uint64_t *dir)
{
	const struct keys_attr a = attr_of(ino);

	*dir = 0;
	return keys_where(k, &a, dir);
}

/* Names, seen from outside ------------------------------------------------------------------------------------------- */

static uint64_t died[INOS_MAX];         /* where an inode lost its last name */
static bool linked[INOS_MAX];           /* it had several names: if the newest went, nobody knows of the one that is left */


/* By its names: 1 or 0. Also of a removed directory, by where that was. */
static bool dir_is_inside(const struct view *v, uint64_t dir)
{
	size_t i;

	while (dir != KEYS_ROOT_INO) {
		uint64_t up = dir < INOS_MAX ? died[dir] : 0;

		if (dir == tree_ino)
			return true;
		for (i = 0; i < v->name_count; i++)
			if (v->names[i].ino == dir)
				up = v->names[i].dir;
		if (up == 0)
			return false;
		dir = up;
	}
	return false;
}

/* How many names it has inside and outside; of an orphan, where it had the last one. */
static void count_names(const struct view *v, uint64_t ino, unsigned *inside, unsigned *outside)
{
	size_t i;

	*inside = *outside = 0;
	if (ino == KEYS_ROOT_INO)
		*outside = 1;
	for (i = 0; i < v->name_count; i++)
		if (v->names[i].ino == ino && ino != tree_ino) {
			bool in = dir_is_inside(v, v->names[i].dir);

			*inside += in;
			*outside += !in;
		}
	if (ino == tree_ino)
		*inside = 1;            /* its attributes are its own */
	if (*inside + *outside == 0 && ino < INOS_MAX && died[ino] != 0) {
		*inside = dir_is_inside(v, died[ino]);
		*outside = !*inside;
	}
}

/* Everything outside is as it was. What also has names inside may have got or lost some of those. */
static const char *outside_differs(const struct view *was, const struct view *is)
{
	size_t i;

	for (i = 0; i < was->count; i++) {
		struct view_node a = was->nodes[i];
		const struct view_node *b = view_node(is, a.a.ino);
		unsigned in, out;

		count_names(was, a.a.ino, &in, &out);
		if (out == 0)
			continue;
		if (!b)
			return "an inode is gone";
		if (in > 0) {
			a.a.nlink = b->a.nlink;
			a.a.ctime = b->a.ctime;
		}
		if (view_differ(&a, b))
			return view_differ(&a, b);
		if (S_ISDIR(a.a.mode) && (a.a.size != b->a.size || a.a.nlink != b->a.nlink))
			return "a directory";
	}
	for (i = 0; i < was->name_count; i++)
		if (!dir_is_inside(was, was->names[i].dir) && !view_has_name(is, &was->names[i]))
			return "a name is gone";
	for (i = 0; i < is->name_count; i++)
		if (!dir_is_inside(is, is->names[i].dir) && !view_has_name(was, &is->names[i]))
			return "a name is new";
	return NULL;
}

/* Random calls --------------------------------------------------------------------------------------------------------- */

static uint64_t inos[INOS_MAX];
static unsigned ino_count;
static const char *const names[] = { "a", "b", "c", "d", "e" };

static uint64_t some_ino(void)
{
	return inos[rnd(ino_count)];
}

static uint64_t some_dir(void)
{
	unsigned i;

	for (i = 0; i < 8; i++) {
		uint64_t ino = some_ino();
		struct keys_attr a;

		if (keys_getattr(k, ino, &a) == 0 && S_ISDIR(a.mode))
			return ino;
	}
	return rnd(2) ? tree_ino : KEYS_ROOT_INO;
}

static struct call_text some_name(void)
{
	return text(names[rnd(ARRAY_LEN(names))]);
}

static void some_call(struct call *c)
{
	static const uint16_t ops[] = {
		CALL_MAKE, CALL_MAKE, CALL_MAKE, CALL_SYMLINK, CALL_LINK, CALL_LINK, CALL_UNLINK, CALL_UNLINK, CALL_RMDIR, CALL_RENAME,
		CALL_RENAME, CALL_RENAME, CALL_SETATTR, CALL_WRITE, CALL_APPEND, CALL_FALLOCATE, CALL_COPY_RANGE, CALL_SETXATTR,
		CALL_REMOVEXATTR, CALL_FSYNC,
	};
	static const uint32_t hows[] = { 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT };
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFIFO, S_IFCHR };

	memset(c, 0, sizeof *c);
	c->op = ops[rnd(ARRAY_LEN(ops))];
	c->ino = some_ino();
	c->dir = some_dir();
	c->name = c->op == CALL_SETXATTR || c->op == CALL_REMOVEXATTR ? text("user.a") : some_name();
	c->data = "contents";
	c->size = 8;
	switch (c->op) {
	case CALL_MAKE:
		c->mode = types[rnd(ARRAY_LEN(types))] | 0755;
		c->rdev = 5;
		break;
	case CALL_RENAME:
		c->to_dir = some_dir();
		c->to_name = some_name();
		c->how = hows[rnd(ARRAY_LEN(hows))];
		break;
	case CALL_SETATTR:
		c->set = (struct keys_setattr){ .mask = rnd(2) ? KEYS_SET_MODE : KEYS_SET_SIZE, .mode = rnd(01000), .size = rnd(5000) };
		break;
	case CALL_WRITE: case CALL_FALLOCATE:
		c->off = rnd(9000);
		c->len = 1 + rnd(9000);
		break;
	case CALL_COPY_RANGE:
		c->src = some_ino();
		c->len = 100;
		break;
	default:
		break;
	}
}

/* Is there no doubt that all that the call changes is inside, or that it is not? 1, 0; -1: in doubt. */
static int is_inside(const struct view *v, const struct call *c)
{
	unsigned in = 0, out = 0;
	const struct view_node *n = view_node(v, c->ino);

	switch (c->op) {
	case CALL_MAKE: case CALL_SYMLINK: case CALL_UNLINK: case CALL_RMDIR:
		return dir_is_inside(v, c->dir);
	case CALL_RENAME:
		return dir_is_inside(v, c->dir) && dir_is_inside(v, c->to_dir);
	case CALL_FSYNC:
		return 1;
	default:
		count_names(v, c->ino, &in, &out);
		if (!n || in + out != 1 || S_ISCHR(n->a.mode) || (linked[c->ino] && n->a.nlink == 1))
			return out > 0 && in == 0 ? 0 : -1;
		return in == 1 && (c->op != CALL_LINK || dir_is_inside(v, c->dir));
	}
}

static bool exists(uint64_t ino)
{
	struct keys_attr a;

	return keys_getattr(k, ino, &a) == 0;
}

static void note(const struct call *c, const struct call_result *res, const struct view *was)
{
	size_t i;

	if (c->op == CALL_LINK)
		linked[c->ino] = true;
	if (res->number != 0 && (c->op == CALL_MAKE || c->op == CALL_SYMLINK) && ino_count < INOS_MAX)
		inos[ino_count++] = res->number;
	if (res->orphan == 0 || res->orphan >= INOS_MAX)
		return;
	for (i = 0; i < was->name_count; i++)
		if (was->names[i].ino == res->orphan)
			died[res->orphan] = was->names[i].dir;
}

/* What keys_where() says of everything. */
static void check_where(const struct view *v)
{
	size_t i, n;

	for (n = 0; n < v->count; n++) {
		const struct keys_attr *a = &v->nodes[n].a;
		uint64_t dir, real = 0;
		bool one = false;
		int r = where(a->ino, &dir);

		for (i = 0; i < v->name_count; i++)
			if (v->names[i].ino == a->ino) {
				real = v->names[i].dir;
				one = one || real == dir;
			}
		if (a->ino == KEYS_ROOT_INO || S_ISCHR(a->mode))
			continue;
		if (a->nlink == 0)
			real = died[a->ino];
		if (S_ISDIR(a->mode) || a->nlink == 0 || (a->nlink == 1 && !linked[a->ino]) ? r != 0 || dir != real : r != -ENODATA && (r != 0 || !one))
			fail_msg("SEED=%llu: inode %llu is said to be in %llu (%d), it is in %llu", (unsigned long long)seed,
				 (unsigned long long)a->ino, (unsigned long long)dir, r, (unsigned long long)real);
	}
}

static void one_call(void)
{
	bool limited = rnd(3) != 0;     /* the rest makes what there is */
	struct call_result res = { 0 };
	struct view was, is;
	struct call c;
	int verdict = 0, inside;

	some_call(&c);
	assert_int_equal(view_take(&was, k, false), 0);
	if (limited) {
		verdict = limit_call(k, TREE, &c);
		inside = exists(c.ino) && exists(c.dir) ? is_inside(&was, &c) : -1;
		if (inside >= 0 && inside != (verdict == 0))
			fail_msg("SEED=%llu: operation %u on %llu, %llu: it is %s, but the verdict is %d", (unsigned long long)seed, c.op,
				 (unsigned long long)c.ino, (unsigned long long)c.dir, inside ? "inside" : "outside", verdict);
	}
	if (verdict == 0)
		call_run(k, &c, &res);
	if (verdict == 0 && res.error == 0)
		note(&c, &res, &was);
	/* What the tree is does not move with its path. */
	if (!limited) {
		struct keys_attr t;

		tree_ino = keys_lookup(k, KEYS_ROOT_INO, "t", 1, &t) == 0 && S_ISDIR(t.mode) ? t.ino : UINT64_MAX;
	}
	assert_int_equal(view_take(&is, k, false), 0);
	if (limited && outside_differs(&was, &is))
		fail_msg("SEED=%llu: operation %u on %llu changes what is outside: %s", (unsigned long long)seed, c.op,
			 (unsigned long long)c.ino, outside_differs(&was, &is));
	check_where(&is);
	view_release(&was);
	view_release(&is);
}

static void test_random__nothing_outside(void **state)
{
	uint64_t i;

	(void)state;
	for (i = 0; i < calls; i++) {
		/* A store of a few dozen inodes, again and again. */
		if (i % 300 == 0) {
			if (k)
				(void)keys_close(k);
			k = open_memory();
			memset(died, 0, sizeof died);
			memset(linked, 0, sizeof linked);
			ino_count = 0;
			inos[ino_count++] = KEYS_ROOT_INO;
			inos[ino_count++] = tree_ino = make(KEYS_ROOT_INO, "t", S_IFDIR | 0755);
			inos[ino_count++] = make(KEYS_ROOT_INO, "o", S_IFDIR | 0755);
			inos[ino_count++] = make(tree_ino, "a", S_IFDIR | 0755);
		}
		one_call();
	}
	(void)keys_close(k);
	k = NULL;
}

/* Each operation at the border ------------------------------------------------------------------------------------------ */

/* /t/in (a directory), /t/in/f; /out (a directory), /out/f; /t/both and /out/both, one file. */
static struct { uint64_t in, f_in, out, f_out, both; } at;

static int set_up(void **state)
{
	struct keys_attr a;

	(void)state;
	k = open_memory();
	tree_ino = make(KEYS_ROOT_INO, "t", S_IFDIR | 0755);
	at.in = make(tree_ino, "in", S_IFDIR | 0755);
	at.f_in = make(at.in, "f", S_IFREG | 0644);
	at.out = make(KEYS_ROOT_INO, "out", S_IFDIR | 0755);
	at.f_out = make(at.out, "f", S_IFREG | 0644);
	at.both = make(at.out, "both", S_IFREG | 0644);
	assert_int_equal(keys_link(k, at.both, tree_ino, "both", 4, &a), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	(void)keys_close(k);
	k = NULL;
	return 0;
}

static int on_name(enum call_op op, uint64_t dir, const char *name)
{
	const struct call c = { .op = (uint16_t)op, .dir = dir, .name = text(name), .mode = S_IFREG | 0644, .data = "x", .size = 1 };

	return limit_call(k, TREE, &c);
}

static int on_ino(enum call_op op, uint64_t ino)
{
	/* The source of a copy is outside: it is only read. */
	struct call c = { .op = (uint16_t)op, .ino = ino, .name = text("user.a"), .data = "x", .size = 1 };

	if (op == CALL_COPY_RANGE)
		c.src = at.f_out;
	return limit_call(k, TREE, &c);
}

static int rename_(uint64_t from, uint64_t to, uint32_t how)
{
	const struct call c = { .op = CALL_RENAME, .dir = from, .name = text("f"), .to_dir = to, .to_name = text("g"), .how = how };

	return limit_call(k, TREE, &c);
}

static int link_(uint64_t ino, uint64_t dir)
{
	const struct call c = { .op = CALL_LINK, .ino = ino, .dir = dir, .name = text("new") };

	return limit_call(k, TREE, &c);
}

static const enum call_op by_name[] = { CALL_MAKE, CALL_SYMLINK, CALL_UNLINK, CALL_RMDIR };
static const enum call_op by_ino[] = { CALL_SETATTR, CALL_WRITE, CALL_APPEND, CALL_FALLOCATE, CALL_COPY_RANGE, CALL_SETXATTR,
				       CALL_REMOVEXATTR };

static void test_border__names(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(by_name); i++) {
		assert_int_equal(on_name(by_name[i], at.in, "f"), 0);
		assert_int_equal(on_name(by_name[i], tree_ino, "in"), 0);
		assert_int_equal(on_name(by_name[i], at.out, "f"), -EROFS);
		/* The directory itself cannot be removed. */
		assert_int_equal(on_name(by_name[i], KEYS_ROOT_INO, "t"), -EROFS);
		assert_int_equal(on_name(by_name[i], 4242, "f"), -ESTALE);
	}
}

static void test_border__inodes(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(by_ino); i++) {
		assert_int_equal(on_ino(by_ino[i], at.f_in), 0);
		assert_int_equal(on_ino(by_ino[i], at.in), 0);
		assert_int_equal(on_ino(by_ino[i], tree_ino), 0);
		assert_int_equal(on_ino(by_ino[i], at.f_out), -EROFS);
		assert_int_equal(on_ino(by_ino[i], at.out), -EROFS);
		assert_int_equal(on_ino(by_ino[i], KEYS_ROOT_INO), -EROFS);
		assert_int_equal(on_ino(by_ino[i], 4242), -ESTALE);
		/* Its other name is outside. */
		assert_int_equal(on_ino(by_ino[i], at.both), -EPERM);
	}
	assert_int_equal(on_ino(CALL_FSYNC, at.f_out), 0);
	assert_int_equal(on_ino(CALL_SYNC, at.f_out), 0);
	assert_int_equal(on_ino(31, at.f_in), -EROFS);
	assert_int_equal(limit_lock(k, TREE, at.f_in), 0);
	assert_int_equal(limit_lock(k, TREE, at.f_out), -EROFS);
}

static void test_border__rename(void **state)
{
	static const uint32_t hows[] = { 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT };
	unsigned i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(hows); i++) {
		assert_int_equal(rename_(at.in, tree_ino, hows[i]), 0);
		assert_int_equal(rename_(at.in, at.out, hows[i]), -EXDEV);
		assert_int_equal(rename_(at.out, at.in, hows[i]), -EXDEV);
		assert_int_equal(rename_(at.out, KEYS_ROOT_INO, hows[i]), -EROFS);
		assert_int_equal(rename_(at.in, 4242, hows[i]), -ESTALE);
		assert_int_equal(rename_(4242, at.out, hows[i]), -ESTALE);
	}
}

static void test_border__link(void **state)
{
	uint64_t dev = make(at.in, "dev", S_IFCHR | 0600);

	(void)state;
	assert_int_equal(link_(at.f_in, tree_ino), 0);
	assert_int_equal(link_(at.f_in, at.out), -EXDEV);
	assert_int_equal(link_(at.f_out, at.in), -EXDEV);
	assert_int_equal(link_(at.f_out, at.out), -EROFS);
	/* One name more inside for what has one there. */
	assert_int_equal(link_(at.both, at.in), 0);
	/* Of a device nobody knows where it is. */
	assert_int_equal(link_(dev, at.in), -EPERM);
	assert_int_equal(on_ino(CALL_SETATTR, dev), -EPERM);
	assert_int_equal(on_name(CALL_UNLINK, at.in, "dev"), 0);
}

/* link and unlink in place of rename, as mail programs do; then the other way round. */
static void test_border__link_and_unlink(void **state)
{
	struct keys_attr a;
	uint64_t ino, dir;
	uint32_t n;

	(void)state;
	assert_int_equal(keys_link(k, at.f_in, tree_ino, "g", 1, &a), 0);
	assert_int_equal(on_ino(CALL_WRITE, at.f_in), -EPERM);
	assert_int_equal(keys_unlink(k, at.in, "f", 1, &ino, &n), 0);
	assert_int_equal(on_ino(CALL_WRITE, at.f_in), 0);
	assert_int_equal(where(at.f_in, &dir), 0);
	assert_int_equal(dir, tree_ino);
	/* The newest name goes: of the other one there is no hint. It is found by looking. */
	assert_int_equal(keys_link(k, at.f_in, at.in, "h", 1, &a), 0);
	assert_int_equal(keys_unlink(k, at.in, "h", 1, &ino, &n), 0);
	assert_int_equal(on_ino(CALL_WRITE, at.f_in), -EPERM);
	/* The name outside went: now it is inside only. */
	assert_int_equal(keys_unlink(k, at.out, "both", 4, &ino, &n), 0);
	assert_int_equal(on_ino(CALL_WRITE, at.both), 0);
}

/* An open file without a name is where it had its last one. */
static void test_border__orphans(void **state)
{
	struct keys_attr a;
	uint64_t ino, gone;
	uint32_t n;

	(void)state;
	assert_int_equal(keys_unlink(k, at.in, "f", 1, &ino, &n), 0);
	assert_int_equal(keys_unlink(k, at.out, "f", 1, &ino, &n), 0);
	assert_int_equal(on_ino(CALL_WRITE, at.f_in), 0);
	assert_int_equal(on_ino(CALL_SETATTR, at.f_in), 0);
	assert_int_equal(on_ino(CALL_WRITE, at.f_out), -EROFS);
	/* Renamed over. */
	at.f_in = make(at.in, "f", S_IFREG | 0644);
	at.f_out = make(at.out, "f", S_IFREG | 0644);
	(void)make(at.in, "g", S_IFREG | 0644);
	assert_int_equal(keys_rename(k, at.in, "g", 1, at.out, "f", 1, 0, &(struct keys_cred){ 0 }, &gone), 0);
	assert_int_equal(gone, at.f_out);
	assert_int_equal(on_ino(CALL_WRITE, gone), -EROFS);
	/* Its directory is removed, and is moved out before that. */
	assert_int_equal(keys_unlink(k, at.in, "f", 1, &ino, &n), 0);
	assert_int_equal(keys_rmdir(k, tree_ino, "in", 2, &ino), 0);
	assert_int_equal(on_ino(CALL_WRITE, at.f_in), 0);
	/* A hint that was not made when the last name went says nothing. */
	a = attr_of(at.f_in);
	a.where &= ~1ull;
	assert_int_equal(keys_restore_attr(k, &a), 0);
	assert_int_equal(on_ino(CALL_WRITE, at.f_in), -EPERM);
}

/* What counts is where things are when the call is run. */
static void test_border__moved_meanwhile(void **state)
{
	const struct call write = { .op = CALL_WRITE, .ino = at.f_in, .data = "x", .size = 1 };
	const struct keys_cred cred = { 0 };
	struct keys_attr a;
	uint64_t gone;

	(void)state;
	assert_int_equal(limit_call(k, TREE, &write), 0);
	/* The directory goes out, comes back, and goes with another one. */
	assert_int_equal(keys_rename(k, tree_ino, "in", 2, at.out, "in", 2, 0, &cred, &gone), 0);
	assert_int_equal(limit_call(k, TREE, &write), -EROFS);
	assert_int_equal(on_name(CALL_MAKE, at.in, "new"), -EROFS);
	assert_int_equal(keys_rename(k, KEYS_ROOT_INO, "out", 3, tree_ino, "out", 3, 0, &cred, &gone), 0);
	assert_int_equal(limit_call(k, TREE, &write), 0);
	assert_int_equal(on_ino(CALL_WRITE, at.f_out), 0);
	/* Exchanged with a directory outside. */
	(void)make(KEYS_ROOT_INO, "x", S_IFDIR | 0755);
	assert_int_equal(keys_rename(k, KEYS_ROOT_INO, "x", 1, tree_ino, "out", 3, RENAME_EXCHANGE, &cred, &gone), 0);
	assert_int_equal(limit_call(k, TREE, &write), -EROFS);
	/* Files, exchanged. */
	assert_int_equal(keys_symlink(k, tree_ino, "l", 1, "x", 1, &cred, &a), 0);
	assert_int_equal(keys_rename(k, tree_ino, "l", 1, at.out, "f", 1, RENAME_EXCHANGE, &cred, &gone), 0);
	assert_int_equal(on_ino(CALL_WRITE, at.f_out), 0);
	assert_int_equal(on_ino(CALL_SETATTR, a.ino), -EROFS);
	/* The tree itself is moved: the path counts. */
	assert_int_equal(keys_rename(k, KEYS_ROOT_INO, "t", 1, KEYS_ROOT_INO, "u", 1, 0, &cred, &gone), 0);
	assert_int_equal(on_ino(CALL_WRITE, at.f_out), -EROFS);
	assert_int_equal(keys_symlink(k, KEYS_ROOT_INO, "t", 1, "u", 1, &cred, &a), 0);
	assert_int_equal(on_ino(CALL_WRITE, at.f_out), -EROFS);
	assert_int_equal(on_name(CALL_MAKE, tree_ino, "new"), -EROFS);
	assert_int_equal(limit_call(k, "/u", &(struct call){ .op = CALL_WRITE, .ino = at.f_out }), 0);
	assert_int_equal(limit_call(k, "/u/l", &(struct call){ .op = CALL_WRITE, .ino = at.f_out }), -EROFS);
}

/* A path of several names; names that only begin like it. */
static void test_border__paths(void **state)
{
	const struct call write = { .op = CALL_WRITE, .ino = at.f_in }, make_in_t = { .op = CALL_MAKE, .dir = tree_ino, .name = text("n") };
	uint64_t beside = make(KEYS_ROOT_INO, "tt", S_IFDIR | 0755);

	(void)state;
	assert_int_equal(limit_call(k, "/t/in", &write), 0);
	assert_int_equal(limit_call(k, "/t/in", &make_in_t), -EROFS);
	assert_int_equal(limit_call(k, "/t/i", &write), -EROFS);
	assert_int_equal(limit_call(k, "/t/in/f", &write), -EROFS);
	assert_int_equal(limit_call(k, "/none", &write), -EROFS);
	assert_int_equal(on_name(CALL_MAKE, beside, "f"), -EROFS);
}

/* Too deep, and directories in a circle, as only a made store has them: an answer, and not late. */
static void test_border__depth(void **state)
{
	uint64_t dir = tree_ino, at_limit = 0;
	struct keys_attr a, dev;
	unsigned i;

	(void)state;
	for (i = 0; i < LIMIT_DEPTH + 10; i++) {
		dir = make(dir, "d", S_IFDIR | 0755);
		if (i == LIMIT_DEPTH - 2)
			at_limit = dir;
	}
	assert_int_equal(on_name(CALL_MAKE, at_limit, "f"), 0);
	assert_int_equal(on_name(CALL_MAKE, dir, "f"), -EROFS);
	a = attr_of(at.in);
	a.aux = at.in;
	assert_int_equal(keys_restore_attr(k, &a), 0);
	assert_int_equal(on_name(CALL_MAKE, at.in, "f"), -EROFS);
	a.aux = at.f_out;
	assert_int_equal(keys_restore_attr(k, &a), 0);
	assert_int_equal(on_name(CALL_MAKE, at.in, "f"), -EROFS);
	a.aux = 4242;
	assert_int_equal(keys_restore_attr(k, &a), 0);
	assert_int_equal(on_name(CALL_MAKE, at.in, "f"), -EROFS);
	/* By a device whose number is the tree's; in a file that is the tree. */
	assert_int_equal(keys_make(k, at.out, "dev", 3, S_IFCHR | 0600, tree_ino, &(struct keys_cred){ 0 }, &dev), 0);
	a.aux = dev.ino;
	assert_int_equal(keys_restore_attr(k, &a), 0);
	assert_int_equal(on_name(CALL_MAKE, at.in, "f"), -EROFS);
	a.aux = at.f_in;
	assert_int_equal(keys_restore_attr(k, &a), 0);
	assert_int_equal(limit_call(k, "/t/in/f", &(struct call){ .op = CALL_MAKE, .dir = at.in, .name = text("g") }), -EROFS);
}

/* Hints -------------------------------------------------------------------------------------------------------------------- */

static void put_hint(uint64_t ino, uint64_t hint)
{
	struct keys_attr a = attr_of(ino);

	a.where = hint;
	assert_int_equal(keys_restore_attr(k, &a), 0);
}

/* Whatever is written there: only a name that is there counts. */
static void test_hints__are_looked_at(void **state)
{
	uint64_t right = attr_of(at.f_out).where, dir;
	unsigned i;

	(void)state;
	assert_int_equal(where(at.f_out, &dir), 0);
	assert_int_equal(dir, at.out);
	for (i = 0; i < 0x10000; i++) {
		put_hint(at.f_out, at.in << 16 | i);
		assert_int_equal(on_ino(CALL_WRITE, at.f_out), -EPERM);
	}
	put_hint(at.f_out, UINT64_MAX);
	assert_int_equal(on_ino(CALL_WRITE, at.f_out), -EPERM);
	put_hint(at.f_out, 4242ull << 16);
	assert_int_equal(on_ino(CALL_WRITE, at.f_out), -EPERM);
	put_hint(at.f_out, right);
	assert_int_equal(on_ino(CALL_WRITE, at.f_out), -EROFS);
}

/* Store an older version, or load, left: nothing is known, until it was looked for. */
static void test_hints__are_settled(void **state)
{
	struct keys_where_walk walk = { 0 };
	struct keys_attr a, before;
	uint64_t many[200], row[4], in_row[4], seq, ino, dir;
	unsigned i, steps = 0;
	char name[32];
	uint32_t n;
	int r;

	(void)state;
	for (i = 0; i < ARRAY_LEN(many); i++) {
		(void)snprintf(name, sizeof name, "file %u", i);
		many[i] = make(i % 2 ? at.in : at.out, name, S_IFREG | 0644);
		put_hint(many[i], i % 3 == 0 ? 0 : at.out << 16 | 0x1234);
	}
	/* Directories whose numbers follow each other. */
	for (i = 0; i < ARRAY_LEN(row); i++)
		row[i] = make(at.in, (char[]){ (char)('A' + (int)i), 0 }, S_IFDIR | 0755);
	for (i = 0; i < ARRAY_LEN(row); i++) {
		in_row[i] = make(row[i], "f", S_IFREG | 0644);
		put_hint(in_row[i], 0);
	}
	before = attr_of(many[1]);
	/* Newest name gone. */
	assert_int_equal(keys_link(k, at.f_in, tree_ino, "g", 1, &a), 0);
	assert_int_equal(keys_unlink(k, tree_ino, "g", 1, &ino, &n), 0);
	assert_int_equal(on_ino(CALL_WRITE, at.f_in), -EPERM);
	while ((r = keys_where_settle(k, &walk)) == 1)
		assert_true(++steps < 10000);
	assert_int_equal(r, 0);
	for (i = 0; i < ARRAY_LEN(many); i++) {
		assert_int_equal(where(many[i], &dir), 0);
		assert_int_equal(dir, i % 2 ? at.in : at.out);
	}
	for (i = 0; i < ARRAY_LEN(row); i++) {
		assert_int_equal(where(in_row[i], &dir), 0);
		assert_int_equal(dir, row[i]);
	}
	assert_int_equal(on_ino(CALL_WRITE, at.f_in), 0);
	/* Nothing else changes by it. */
	a = attr_of(many[1]);
	assert_true(a.ctime.sec == before.ctime.sec && a.ctime.nsec == before.ctime.nsec && a.mtime.nsec == before.mtime.nsec);
	assert_true(a.nlink == before.nlink && a.size == before.size && a.aux == 0);
	/* And the second time nothing at all does. */
	seq = store_seq(keys_store(k));
	walk = (struct keys_where_walk){ 0 };
	while ((r = keys_where_settle(k, &walk)) == 1)
		;
	assert_int_equal(r, 0);
	assert_int_equal(store_seq(keys_store(k)), seq);
}

/* A large directory: entries whose hashes begin the same. */
static void test_hints__large_directory(void **state)
{
	uint64_t first = 0, dir;
	char name[32];
	unsigned i;

	(void)state;
	for (i = 0; i < 60000; i++) {
		uint64_t ino;

		(void)snprintf(name, sizeof name, "%u", i);
		ino = make(at.in, name, S_IFREG | 0644);
		if (i == 0)
			first = ino;
	}
	for (i = 0; i < 60000; i++) {
		assert_int_equal(where(first + i, &dir), 0);
		assert_int_equal(dir, at.in);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random__nothing_outside),
		cmocka_unit_test_setup_teardown(test_border__names, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_border__inodes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_border__rename, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_border__link, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_border__link_and_unlink, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_border__orphans, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_border__moved_meanwhile, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_border__paths, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_border__depth, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hints__are_looked_at, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hints__are_settled, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hints__large_directory, set_up, tear_down),
	};

	seed = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : (uint64_t)time(NULL) * 2654435761u % 1000000007u;
	calls = getenv("CALLS") ? strtoull(getenv("CALLS"), NULL, 0) : 6000;
	rng = seed * 2 + 1;
	printf("# SEED=%llu CALLS=%llu\n", (unsigned long long)seed, (unsigned long long)calls);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
