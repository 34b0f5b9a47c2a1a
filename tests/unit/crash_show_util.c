/* SPDX-License-Identifier: MIT
 *
 * crash_show: all that a store shows, and which state of the model that is (work_compare() of crash_util.h).
 */
#include "tests/unit/crash_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DUMP_MAX 8192u

struct dump_node {
	uint64_t ino, hash;
};

struct dump {
	struct keys *k;
	struct dump_node node[DUMP_MAX];
	unsigned count;
	uint64_t dirs[DUMP_MAX];
	unsigned dir_count;
	uint64_t names;                 /* hash of the names of the directory being read */
	unsigned entries;
	uint64_t *found;                /* inodes that it names */
	unsigned found_count;
	char *text;
	size_t size;
	bool bad;
};

static void wrong(struct dump *d, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void wrong(struct dump *d, const char *format, ...)
{
	va_list ap;

	if (d->bad)
		return;
	d->bad = true;
	va_start(ap, format);
	(void)vsnprintf(d->text, d->size, format, ap);
	va_end(ap);
}

/* [from, to) of the file: its hash, or with `hole` whether it reads as zeros. */
static uint64_t dump_bytes(struct dump *d, uint64_t ino, uint64_t from, uint64_t to, bool hole)
{
	struct iovec iov[100];
	uint64_t h = 0;

	while (from < to && !d->bad) {
		size_t bytes;
		int n, i, r = keys_read(d->k, ino, from, (size_t)min_u64(to - from, 90 * BLOCK_SIZE), iov, ARRAY_LEN(iov),
					&n, &bytes);

		if (r < 0 || bytes == 0 || bytes > to - from) {
			wrong(d, "inode %llu: read at %llu: %d, %zu bytes: %s", (unsigned long long)ino,
			      (unsigned long long)from, r, bytes, err_last());
			return 0;
		}
		for (i = 0; i < n; i++) {
			const uint8_t *p = iov[i].iov_base;
			size_t left = iov[i].iov_len;

			if (hole && !is_zero(p, left))
				wrong(d, "inode %llu: bytes in a hole near %llu", (unsigned long long)ino,
				      (unsigned long long)from);
			while (left > 0) {
				size_t part = (size_t)min_u64(left, BLOCK_SIZE - (from & (BLOCK_SIZE - 1)));

				h += hash_piece(p, part, from);
				p += part;
				left -= part;
				from += part;
			}
		}
	}
	return h;
}

static void dump_hole(struct dump *d, uint64_t ino, uint64_t from, uint64_t to)
{
	uint64_t head = min_u64(to, from + 16 * BLOCK_SIZE);

	(void)dump_bytes(d, ino, from, head, true);
	if (to > head)
		(void)dump_bytes(d, ino, max_u64(head, to - min_u64(to, 16 * BLOCK_SIZE)), to, true);
}

static uint64_t dump_contents(struct dump *d, const struct keys_attr *a)
{
	uint64_t h = 0, at = 0;

	while (at < a->size && !d->bad) {
		uint64_t from, to;
		int r = keys_seek(d->k, a->ino, at, SEEK_DATA, &from);

		if (r == -ENXIO) {
			dump_hole(d, a->ino, at, a->size);
			break;
		}
		if (r == 0)
			r = keys_seek(d->k, a->ino, from, SEEK_HOLE, &to);
		if (r < 0 || from < at || to <= from || to > a->size) {
			wrong(d, "inode %llu: seek at %llu: %d: %s", (unsigned long long)a->ino, (unsigned long long)at, r,
			      err_last());
			return 0;
		}
		dump_hole(d, a->ino, at, from);
		h += hash_range(from, to) + dump_bytes(d, a->ino, from, to, false);
		at = to;
	}
	return h;
}

static uint64_t dump_xattrs(struct dump *d, uint64_t ino)
{
	static char names[4096], value[KEYS_XATTR_MAX];
	size_t len, n;
	uint64_t h = 0;
	const char *p;
	int r = keys_listxattr(d->k, ino, names, sizeof names, &len);

	for (p = names; r == 0 && p < names + len; p += strlen(p) + 1) {
		r = keys_getxattr(d->k, ino, p, value, sizeof value, &n);
		if (r == 0)
			h += hash_xattr(p, value, n);
	}
	if (r < 0)
		wrong(d, "inode %llu: extended attributes: %d: %s", (unsigned long long)ino, r, err_last());
	return h;
}

static int dump_entry(void *ctx, const struct keys_dirent *e)
{
	struct dump *d = ctx;

	if (e->cookie < 3)
		return 0;
	d->names += hash_name(e->name, e->len, e->ino, e->type);
	d->entries++;
	if (d->found_count == DUMP_MAX)
		return 1;
	d->found[d->found_count++] = e->ino;
	return 0;
}

static void dump_node(struct dump *d, uint64_t ino)
{
	struct keys_attr a;
	uint64_t h;
	int r = keys_getattr(d->k, ino, &a);

	if (r < 0 || d->count == DUMP_MAX) {
		wrong(d, "inode %llu: %d: %s", (unsigned long long)ino, r, err_last());
		return;
	}
	if (a.nlink == 0) {
		wrong(d, "inode %llu: has a name, but no links", (unsigned long long)ino);
		return;
	}
	h = hash_attr(&a);
	if (a.flags & KEYS_ATTR_XATTR)
		h += dump_xattrs(d, ino);
	if (S_ISREG(a.mode) || S_ISLNK(a.mode))
		h += dump_contents(d, &a);
	if (S_ISDIR(a.mode)) {
		d->names = 0;
		d->entries = 0;
		r = keys_readdir(d->k, ino, 0, dump_entry, d);
		if (r < 0 || d->entries != a.size)
			wrong(d, "directory %llu: %d, %u of %llu entries: %s", (unsigned long long)ino, r, d->entries,
			      (unsigned long long)a.size, err_last());
		h += d->names;
	}
	d->node[d->count++] = (struct dump_node){ ino, h };
}

static int by_ino(const void *a, const void *b)
{
	const struct dump_node *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* All that can be reached, and the orphans. */
static void dump_store(struct dump *d)
{
	uint64_t *level = calloc(2 * DUMP_MAX, sizeof *level), orphan;
	unsigned level_count = 1, i;
	struct store_status st;
	int r;

	check(level);
	d->found = level + DUMP_MAX;
	level[0] = KEYS_ROOT_INO;
	/* Level by level: each inode once, however many names it has. Names deeper down may name one of this level too. */
	while (level_count > 0 && !d->bad) {
		unsigned n = 0;

		d->found_count = 0;
		for (i = 0; i < level_count; i++)
			dump_node(d, level[i]);
		qsort(d->found, d->found_count, sizeof *d->found, by_number);
		qsort(d->node, d->count, sizeof *d->node, by_ino);
		for (i = 0; i < d->found_count; i++) {
			struct dump_node key = { d->found[i], 0 };

			if ((n > 0 && level[n - 1] == d->found[i]) ||
			    bsearch(&key, d->node, d->count, sizeof key, by_ino))
				continue;
			level[n++] = d->found[i];
		}
		level_count = n;
	}
	free(level);
	for (orphan = 0; !d->bad && (r = keys_next_orphan(d->k, orphan, &orphan)) != -ENOENT; orphan++) {
		if (r < 0 || d->count == DUMP_MAX) {
			wrong(d, "orphans: %d: %s", r, err_last());
			break;
		}
		d->node[d->count++] = (struct dump_node){ orphan, hash_orphan(orphan) };
	}
	qsort(d->node, d->count, sizeof *d->node, by_ino);
	store_status(keys_store(d->k), &st);
	if (st.inodes != d->count)
		wrong(d, "the store counts %llu inodes, but shows %u", (unsigned long long)st.inodes, d->count);
}

static size_t put(char *text, size_t size, size_t at, const char *format, ...) __attribute__((format(printf, 4, 5)));
static size_t put(char *text, size_t size, size_t at, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(text + at, size - at, format, ap);
	va_end(ap);
	return min_u64(at + (size_t)n, size - 1);
}

static size_t put_number(char *text, size_t size, size_t at, const char *name, uint64_t is, uint64_t should)
{
	return is == should ? at : put(text, size, at, " %s %llu, not %llu", name, (unsigned long long)is, (unsigned long long)should);
}

static size_t put_time(char *text, size_t size, size_t at, const char *name, struct keys_time is, struct keys_time should)
{
	return is.sec == should.sec && is.nsec == should.nsec ? at :
	       put(text, size, at, " %s %lld.%09u, not %lld.%09u", name, (long long)is.sec, is.nsec, (long long)should.sec, should.nsec);
}

static size_t put_attr(char *text, size_t size, size_t at, const struct keys_attr *a, const struct keys_attr *m)
{
	size_t before = at;

	at = put_number(text, size, at, "mode", a->mode, m->mode);
	at = put_number(text, size, at, "nlink", a->nlink, m->nlink);
	at = put_number(text, size, at, "uid", a->uid, m->uid);
	at = put_number(text, size, at, "gid", a->gid, m->gid);
	at = put_number(text, size, at, "size", a->size, m->size);
	at = put_number(text, size, at, "aux", a->aux, m->aux);
	at = put_number(text, size, at, "blocks", a->blocks, m->blocks);
	at = put_number(text, size, at, "flags", a->flags, m->flags);
	at = put_time(text, size, at, "atime", a->atime, m->atime);
	at = put_time(text, size, at, "mtime", a->mtime, m->mtime);
	at = put_time(text, size, at, "ctime", a->ctime, m->ctime);
	at = put_time(text, size, at, "btime", a->btime, m->btime);
	return at == before ? put(text, size, at, " what it holds") : at;
}

/* What the store and the state differ in. */
static void describe(const struct dump *d, const struct model_state *s, char *text, size_t size)
{
	size_t at = put(text, size, 0, "change %llu:", (unsigned long long)s->seq);
	unsigned i = 0, j = 0;

	while (i < d->count || j < s->count) {
		uint64_t x = i < d->count ? d->node[i].ino : UINT64_MAX, y = j < s->count ? s->nodes[j]->a.ino : UINT64_MAX;
		struct keys_attr a = { 0 };

		if (x < y)
			at = put(text, size, at, " inode %llu should not be there;", (unsigned long long)x);
		if (y < x)
			at = put(text, size, at, " inode %llu is missing;", (unsigned long long)y);
		if (x == y && d->node[i].hash != s->nodes[j]->hash) {
			(void)keys_getattr(d->k, x, &a);
			at = put(text, size, at, " inode %llu:", (unsigned long long)x);
			at = put_attr(text, size, at, &a, &s->nodes[j]->a);
			at = put(text, size, at, ";");
		}
		i += x <= y;
		j += y <= x;
	}
}

int work_compare(const struct work *w, struct keys *k, unsigned from, char *text, size_t size)
{
	return work_compare_at(w, k, store_seq(keys_store(k)), from, text, size);
}

int work_compare_at(const struct work *w, struct keys *k, seq_t seq, unsigned from, char *text, size_t size)
{
	struct dump *d = calloc(1, sizeof *d);
	uint64_t hash = 0;
	int found = -1;
	unsigned i;

	check(d);
	d->k = k;
	d->text = text;
	d->size = size;
	dump_store(d);
	for (i = 0; i < d->count; i++)
		hash += hash_join(d->node[i].ino, d->node[i].hash);
	/* The latest that fits: reaping goes on under one seq. */
	for (i = w->state_count; !d->bad && i-- > from && found < 0; )
		if (w->states[i].seq == seq && (w->states[i].vague || w->states[i].hash == hash))
			found = (int)i;
	if (found < 0 && !d->bad) {
		if (seq < w->states[from].seq)
			(void)snprintf(text, size, "change %llu is lost, %llu is the last there", (unsigned long long)w->states[from].seq,
				       (unsigned long long)seq);
		else if (seq > w->states[work_now(w)].seq)
			(void)snprintf(text, size, "change %llu was never made", (unsigned long long)seq);
		else
			describe(d, &w->states[work_state_of(w, seq)], text, size);
	}
	free(d);
	return found;
}
