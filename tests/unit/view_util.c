/* SPDX-License-Identifier: MIT
 *
 * view: see view_util.h.
 */
#include "tests/unit/view_util.h"

#include "core/base.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void *grown(void *p, size_t count, size_t item)
{
	/* Powers of two: enlarged when count reaches one. */
	if ((count & (count - 1)) != 0)
		return p;
	p = realloc(p, (count ? 2 * count : 1) * item);
	check(p);
	return p;
}

static int take_block(struct view_node *n, struct keys *k, uint64_t fblock)
{
	uint8_t bytes[BLOCK_SIZE] = { 0 };
	struct iovec iov[4];
	size_t done = 0, at = 0;
	int i, count, r = keys_read(k, n->a.ino, fblock << BLOCK_SHIFT, BLOCK_SIZE, iov, 4, &count, &done);

	if (r < 0)
		return r;
	for (i = 0; i < count; at += iov[i].iov_len, i++)
		memcpy(bytes + at, iov[i].iov_base, iov[i].iov_len);
	n->blocks = grown(n->blocks, n->block_count, sizeof *n->blocks);
	n->blocks[n->block_count++] = (struct view_block){ fblock, hash64(bytes, sizeof bytes, 7) };
	return 0;
}

static int take_contents(struct view_node *n, struct keys *k, bool damaged)
{
	uint64_t at = 0, end;
	int r = 0;

	while (at < n->a.size) {
		r = keys_seek(k, n->a.ino, at, SEEK_DATA, &at);
		if (r == -ENXIO)
			return 0;
		if (r == 0)
			r = keys_seek(k, n->a.ino, at, SEEK_HOLE, &end);
		if (r < 0)
			return r;
		for (; at < end; at = (at / BLOCK_SIZE + 1) * BLOCK_SIZE) {
			r = take_block(n, k, at / BLOCK_SIZE);
			if (r < 0 && !(r == -EUCLEAN && damaged))
				return r;
		}
	}
	return 0;
}

static int take_xattrs(struct view_node *n, struct keys *k, bool damaged)
{
	static char list[1 << 20];
	static uint8_t value[KEYS_XATTR_MAX];
	size_t len, at;
	int r = keys_listxattr(k, n->a.ino, list, sizeof list, &len);

	for (at = 0; r == 0 && at < len; at += strlen(list + at) + 1) {
		size_t size;

		r = keys_getxattr(k, n->a.ino, list + at, value, sizeof value, &size);
		if (r == -EUCLEAN && damaged) {
			r = 0;
			continue;
		}
		if (r < 0)
			break;
		n->xattrs = grown(n->xattrs, n->xattr_count, sizeof *n->xattrs);
		memset(&n->xattrs[n->xattr_count], 0, sizeof *n->xattrs);
		memcpy(n->xattrs[n->xattr_count].name, list + at, strlen(list + at));
		n->xattrs[n->xattr_count].len = size;
		n->xattrs[n->xattr_count++].hash = hash64(value, size, 8);
	}
	return r;
}

static int by_ino(const void *a, const void *b)
{
	const struct view_node *x = a, *y = b;

	return x->a.ino < y->a.ino ? -1 : x->a.ino > y->a.ino;
}

static int by_name(const void *a, const void *b)
{
	const struct view_name *x = a, *y = b;

	if (x->dir != y->dir)
		return x->dir < y->dir ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int by_xattr(const void *a, const void *b)
{
	return strcmp(((const struct view_xattr *)a)->name, ((const struct view_xattr *)b)->name);
}

static int take_name(void *ctx, const struct keys_dirent *e)
{
	struct view *v = ctx;
	struct view_name *n;

	if (e->cookie < 3)
		return 0;               /* . and .. */
	v->names = grown(v->names, v->name_count, sizeof *v->names);
	n = &v->names[v->name_count++];
	memset(n, 0, sizeof *n);
	n->ino = e->ino;
	n->type = e->type;
	memcpy(n->name, e->name, e->len);
	return 0;
}

static int take_node(struct view *v, struct keys *k, uint64_t ino, bool damaged)
{
	struct view_node *n;
	size_t first = v->name_count;
	int r;

	v->nodes = grown(v->nodes, v->count, sizeof *v->nodes);
	n = &v->nodes[v->count];
	memset(n, 0, sizeof *n);
	r = keys_getattr(k, ino, &n->a);
	if (r < 0)
		return r == -EUCLEAN && damaged ? 0 : r;
	v->count++;
	r = take_xattrs(n, k, damaged);
	if (r == 0 && (S_ISREG(n->a.mode) || S_ISLNK(n->a.mode)))
		r = take_contents(n, k, damaged);
	if (r == 0 && S_ISDIR(n->a.mode)) {
		r = keys_readdir(k, ino, 0, take_name, v);
		for (; first < v->name_count; first++)
			v->names[first].dir = ino;
	}
	if (n->xattr_count > 0)
		qsort(n->xattrs, n->xattr_count, sizeof *n->xattrs, by_xattr);
	return r == -EUCLEAN && damaged ? 0 : r;
}

static bool is_taken(const struct view *v, uint64_t ino)
{
	size_t i;

	for (i = 0; i < v->count; i++)
		if (v->nodes[i].a.ino == ino)
			return true;
	return false;
}

int view_take(struct view *v, struct keys *k, bool damaged)
{
	size_t i;
	int r;

	memset(v, 0, sizeof *v);
	r = take_node(v, k, KEYS_ROOT_INO, damaged);
	for (i = 0; r == 0 && i < v->name_count; i++)
		if (v->names[i].type == S_IFDIR || !is_taken(v, v->names[i].ino))
			r = take_node(v, k, v->names[i].ino, damaged);
	if (v->count > 1)
		qsort(v->nodes, v->count, sizeof *v->nodes, by_ino);
	if (v->name_count > 1)
		qsort(v->names, v->name_count, sizeof *v->names, by_name);
	return r;
}

void view_release(struct view *v)
{
	size_t i;

	for (i = 0; i < v->count; i++) {
		free(v->nodes[i].blocks);
		free(v->nodes[i].xattrs);
	}
	free(v->nodes);
	free(v->names);
	memset(v, 0, sizeof *v);
}

const struct view_node *view_node(const struct view *v, uint64_t ino)
{
	struct view_node key = { .a.ino = ino };

	return v->count ? bsearch(&key, v->nodes, v->count, sizeof key, by_ino) : NULL;
}

bool view_has_name(const struct view *v, const struct view_name *n)
{
	const struct view_name *have = v->name_count ? bsearch(n, v->names, v->name_count, sizeof *n, by_name) : NULL;

	return have && have->ino == n->ino && have->type == n->type;
}

static bool same_time(struct keys_time a, struct keys_time b)
{
	return a.sec == b.sec && a.nsec == b.nsec;
}

const char *view_differ(const struct view_node *a, const struct view_node *b)
{
	size_t i;

	if (a->a.mode != b->a.mode || a->a.uid != b->a.uid || a->a.gid != b->a.gid)
		return "mode or owner";
	if (!same_time(a->a.atime, b->a.atime) || !same_time(a->a.mtime, b->a.mtime) ||
	    !same_time(a->a.ctime, b->a.ctime) || !same_time(a->a.btime, b->a.btime))
		return "times";
	if (!S_ISDIR(a->a.mode) && (a->a.size != b->a.size || a->a.nlink != b->a.nlink))
		return "size or links";
	if (a->a.aux != b->a.aux || a->a.blocks != b->a.blocks)
		return "device, parent or blocks";
	if (a->xattr_count != b->xattr_count)
		return "number of extended attributes";
	for (i = 0; i < a->xattr_count; i++)
		if (memcmp(&a->xattrs[i], &b->xattrs[i], sizeof a->xattrs[i]) != 0)
			return "extended attributes";
	if (a->block_count != b->block_count)
		return "holes";
	for (i = 0; i < a->block_count; i++)
		if (a->blocks[i].fblock != b->blocks[i].fblock || a->blocks[i].hash != b->blocks[i].hash)
			return "contents";
	return NULL;
}

bool view_is_part(const struct view_node *b, const struct view_node *a)
{
	size_t i, j = 0;

	for (i = 0; i < b->block_count; i++) {
		while (j < a->block_count && a->blocks[j].fblock < b->blocks[i].fblock)
			j++;
		if (j == a->block_count || a->blocks[j].fblock != b->blocks[i].fblock ||
		    a->blocks[j].hash != b->blocks[i].hash)
			return false;
	}
	return true;
}
