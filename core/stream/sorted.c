/* SPDX-License-Identifier: MIT
 *
 * sorted: names in the order of their bytes. In the tree they are in the order of a hash that each store seeds for itself,
 * so a stream in that order would say something about the store besides its contents. A directory with more names than
 * may be in memory at once is read several times, each time for the next names in order.
 */
#include "core/stream/stream_int.h"

#include <stdlib.h>

struct sorting {
	struct sorted_name *v;
	size_t n, room, keep;
	const struct sorted_name *after;        /* only names behind this one */
	struct sorted_name cut;                 /* and up to this one, if has_cut */
	bool has_cut, more;
};

static int compare(const void *pa, const void *pb)
{
	const struct sorted_name *a = pa, *b = pb;
	int r;

	if (a->prefix != b->prefix)
		return a->prefix < b->prefix ? -1 : 1;
	r = memcmp(a->name, b->name, min_u64(a->len, b->len));
	return r ? r : a->len < b->len ? -1 : a->len > b->len;
}

/* The name in an item. 0: the item has none (an attribute's later chunks). */
static int name_of(struct key key, const uint8_t *v, uint32_t len, struct sorted_name *ret)
{
	uint8_t head[8] = { 0 };
	struct dirent d;
	unsigned i;

	if ((key.hi & 0xff) == ITEM_DIRENT) {
		int r = dirent_decode(v, len, key, &d);

		if (r < 0)
			return r;
		ret->name = (const uint8_t *)d.name;
		ret->len = d.len;
	} else {
		if (key.lo & 0xff)
			return 0;
		if (len < XATTR_HEADER || v[0] == 0 || v[0] > len - XATTR_HEADER)
			return err_corrupt("inode %llu: extended attribute is damaged",
					   (unsigned long long)(key.hi >> 8));
		ret->name = v + XATTR_HEADER;
		ret->len = v[0];
	}
	ret->lo = key.lo;
	ret->value = v;
	ret->value_len = len;
	memcpy(head, ret->name, min_u64(ret->len, sizeof head));
	for (i = 0, ret->prefix = 0; i < sizeof head; i++)
		ret->prefix = ret->prefix << 8 | head[i];
	return 1;
}

/* Only the first `keep` stay; what lies behind is for another pass. */
static void cut_back(struct sorting *s)
{
	if (s->n > 1)
		qsort(s->v, s->n, sizeof *s->v, compare);
	if (s->n <= s->keep)
		return;
	s->n = s->keep;
	s->cut = s->v[s->n - 1];
	s->has_cut = s->more = true;
}

static int add_name(struct sorting *s, const struct sorted_name *name)
{
	if (s->after && compare(name, s->after) <= 0)
		return 0;
	if (s->has_cut && compare(name, &s->cut) > 0)
		return 0;
	if (s->n == s->room) {
		size_t room = s->room ? 2 * s->room : 64;
		void *v;

		if (room > 2 * s->keep)
			room = 2 * s->keep;
		if (s->n == room) {
			cut_back(s);
			return add_name(s, name);       /* once: there is room now */
		}
		v = realloc(s->v, room * sizeof *s->v);
		if (!v)
			return -ENOMEM;
		s->v = v;
		s->room = room;
	}
	s->v[s->n++] = *name;
	return 0;
}

static int one_pass(struct tree *t, uint64_t hi, struct sorting *s)
{
	struct tree_cursor c;
	int r;

	s->n = 0;
	s->has_cut = s->more = false;
	for (r = tree_seek(t, (struct key){ hi, 0 }, &c); r == 0 && cursor_key(&c).hi == hi; r = cursor_next(&c)) {
		struct sorted_name name;
		uint32_t len;
		const uint8_t *v = cursor_value(&c, &len);
		int found = name_of(cursor_key(&c), v, len, &name);

		if (found > 0)
			found = add_name(s, &name);
		if (found < 0)
			return found;
	}
	if (r < 0 && r != -ENOENT)
		return r;
	cut_back(s);
	return 0;
}

int sorted_names(struct tree *t, uint64_t hi, size_t keep, int (*fn)(void *ctx, const struct sorted_name *n), void *ctx)
{
	struct sorting s = { .keep = keep };
	struct sorted_name last;
	size_t i;
	int r;

	do {
		r = one_pass(t, hi, &s);
		for (i = 0; r == 0 && i < s.n; i++)
			r = fn(ctx, &s.v[i]);
		if (s.n > 0)
			last = s.v[s.n - 1];
		s.after = &last;
	} while (r == 0 && s.more);
	free(s.v);
	return r;
}
