/* SPDX-License-Identifier: MIT
 *
 * crash: see crash_util.h.
 */
#include "tests/unit/crash_util.h"

#include "core/keys/cluster.h"
#include "core/keys/edit.h"
#include "core/keys/keys_int.h"

#include <linux/falloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define INLINE_ROOM 1024u
#define CHUNK_BYTES (1u << 20)
#define NAMES_MAX   40u
#define XATTR_NAMES 9u                   /* of which three mean something: below */
#define XATTR_ROOM  (XATTR_NAMES + 1u)
#define ACL_ROOM    120u
#define PER_REAP    200u

/* One block of a file: data, or allocated and not written. */
struct model_block {
	uint64_t at;                    /* block number in the file */
	const uint8_t *data;            /* NULL: unwritten */
	uint64_t hash;
};

struct model_name {
	char name[24];
	uint64_t ino;
	uint32_t type;
};

struct model_xattr {
	char name[28];
	const uint8_t *value;
	uint32_t len;
};

struct model_node {
	struct keys_attr a;
	uint64_t stamp;                 /* the call that made this copy */
	uint64_t hash;
	uint32_t inline_len;
	uint8_t inline_data[INLINE_ROOM];
	struct model_block *blocks;
	unsigned block_count, block_room;
	struct model_name *names;
	unsigned name_count, name_room;
	struct model_xattr xattr[XATTR_ROOM];
	unsigned xattr_count;
};

static const uint8_t zero_block[BLOCK_SIZE];
static const char acl_access[] = "system.posix_acl_access", acl_default[] = "system.posix_acl_default",
		  capability[] = "security.capability";

volatile bool work_own_memory;

uint64_t work_random(struct work *w, uint64_t n)
{
	w->rng += 0x9e3779b97f4a7c15ull;
	uint64_t x = w->rng;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	x ^= x >> 31;
	return n ? x % n : x;
}

static bool chance(struct work *w, unsigned percent)
{
	return work_random(w, 100) < percent;
}

static void say(struct work *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct work *w, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(w->text, sizeof w->text, format, ap);
	va_end(ap);
}

_Noreturn static void disagree(const struct work *w, const char *what)
{
	fprintf(stderr, "call %llu, %s: %s\n", (unsigned long long)w->ops, w->text, what);
	abort();
}

/* Memory ------------------------------------------------------------------------------------------------------------ */

struct chunk {
	struct chunk *next;
	uint64_t align;
	uint8_t bytes[];
};

/* Lives as long as the model does. */
static void *keep(struct work *w, size_t size)
{
	struct chunk *c = w->chunks;

	size = (size_t)align_up(size, 16);
	if (size > w->chunk_left) {
		size_t room = size > CHUNK_BYTES ? size : CHUNK_BYTES;

		work_own_memory = true;
		c = malloc(sizeof *c + room);
		work_own_memory = false;
		check(c);
		c->next = w->chunks;
		w->chunks = c;
		w->chunk_left = room;
		c->align = room;
	}
	w->chunk_left -= size;
	return c->bytes + (c->align - w->chunk_left - size);
}

void work_init(struct work *w, uint64_t seed)
{
	memset(w, 0, sizeof *w);
	w->rng = seed;
	w->real_ns = 1700000000ull * 1000000000u;
	w->mono_ns = 1000000000u;
	w->max_nodes = 40;
}

void work_release(struct work *w)
{
	struct chunk *c = w->chunks, *next;

	for (; c; c = next) {
		next = c->next;
		free(c);
	}
	free(w->states);
	free(w->nodes);
	memset(w, 0, sizeof *w);
}

/* Hashes: the same of a node of the model and of an inode of a store ------------------------------------------------ */

static uint64_t hash_attr(const struct keys_attr *a)
{
	const uint64_t v[] = {
		a->ino, a->mode, a->nlink, a->uid, a->gid, a->size, a->aux, a->blocks, a->flags, (uint64_t)a->atime.sec,
		a->atime.nsec, (uint64_t)a->mtime.sec, a->mtime.nsec, (uint64_t)a->ctime.sec, a->ctime.nsec,
		(uint64_t)a->btime.sec, a->btime.nsec,
	};

	return hash64(v, sizeof v, 1);
}

static uint64_t hash_orphan(uint64_t ino)
{
	return hash64(&ino, sizeof ino, 2);
}

static uint64_t hash_range(uint64_t from, uint64_t to)
{
	const uint64_t v[2] = { from, to };

	return hash64(v, sizeof v, 3);
}

/* Bytes of one block of the file. */
static uint64_t hash_piece(const void *p, size_t len, uint64_t off)
{
	return hash64(p, len, 4) ^ off * 0x9e3779b97f4a7c15ull;
}

static uint64_t hash_name(const char *name, size_t len, uint64_t ino, uint32_t type)
{
	return hash64(name, len, ino << 4 | type >> 12);
}

static uint64_t hash_xattr(const char *name, const void *value, size_t len)
{
	return hash64(value, len, hash64(name, strlen(name), 5));
}

static uint64_t hash_join(uint64_t ino, uint64_t hash)
{
	const uint64_t v[2] = { ino, hash };

	return hash64(v, sizeof v, 6);
}

/* Nodes ------------------------------------------------------------------------------------------------------------- */

static int node_index(const struct work *w, uint64_t ino)
{
	unsigned a = 0, b = w->count;

	while (a < b) {
		unsigned mid = (a + b) / 2;

		if (w->nodes[mid]->a.ino < ino)
			a = mid + 1;
		else
			b = mid;
	}
	return a < w->count && w->nodes[a]->a.ino == ino ? (int)a : -1;
}

static const struct model_node *node_get(const struct work *w, uint64_t ino)
{
	int i = node_index(w, ino);

	return i < 0 ? NULL : w->nodes[i];
}

/* The node for changing: a copy if a state has it. */
static struct model_node *node_edit(struct work *w, uint64_t ino)
{
	int i = node_index(w, ino);
	struct model_node *n;

	check(i >= 0);
	n = (struct model_node *)(uintptr_t)w->nodes[i];
	if (n->stamp != w->version) {
		const struct model_node *old = n;

		n = keep(w, sizeof *n);
		*n = *old;
		n->stamp = w->version;
		n->block_room = old->block_count + 8;
		n->blocks = keep(w, n->block_room * sizeof *n->blocks);
		if (old->block_count > 0)
			memcpy(n->blocks, old->blocks, old->block_count * sizeof *n->blocks);
		n->name_room = old->name_count + 2;
		n->names = keep(w, n->name_room * sizeof *n->names);
		if (old->name_count > 0)
			memcpy(n->names, old->names, old->name_count * sizeof *n->names);
		w->nodes[i] = n;
	}
	n->hash = 0;
	return n;
}

static struct model_node *node_add(struct work *w, const struct keys_attr *a)
{
	struct model_node *n = keep(w, sizeof *n);

	if (w->count == w->room) {
		w->room = w->room ? w->room * 2 : 64;
		work_own_memory = true;
		w->nodes = realloc(w->nodes, w->room * sizeof *w->nodes);
		work_own_memory = false;
		check(w->nodes);
	}
	check(w->count == 0 || w->nodes[w->count - 1]->a.ino < a->ino);
	memset(n, 0, sizeof *n);
	n->a = *a;
	n->stamp = w->version;
	w->nodes[w->count++] = n;
	return n;
}

static void node_remove(struct work *w, uint64_t ino)
{
	int i = node_index(w, ino);

	check(i >= 0);
	w->count--;
	memmove(w->nodes + i, w->nodes + i + 1, (w->count - (unsigned)i) * sizeof *w->nodes);
}

/* First block at or behind `at`. */
static unsigned block_lower(const struct model_node *n, uint64_t at)
{
	unsigned a = 0, b = n->block_count;

	while (a < b) {
		unsigned mid = (a + b) / 2;

		if (n->blocks[mid].at < at)
			a = mid + 1;
		else
			b = mid;
	}
	return a;
}

static const struct model_block *block_get(const struct model_node *n, uint64_t at)
{
	unsigned i = block_lower(n, at);

	return i < n->block_count && n->blocks[i].at == at ? &n->blocks[i] : NULL;
}

static void block_set(struct work *w, struct model_node *n, uint64_t at, const uint8_t *data)
{
	unsigned i = block_lower(n, at);

	if (i == n->block_count || n->blocks[i].at != at) {
		if (n->block_count == n->block_room) {
			struct model_block *p;

			n->block_room = n->block_room * 2 + 16;
			p = keep(w, n->block_room * sizeof *p);
			if (n->block_count > 0)
				memcpy(p, n->blocks, n->block_count * sizeof *p);
			n->blocks = p;
		}
		memmove(n->blocks + i + 1, n->blocks + i, (n->block_count - i) * sizeof *n->blocks);
		n->block_count++;
		n->a.blocks++;
	}
	n->blocks[i] = (struct model_block){ at, data, 0 };
	if (data)
		n->blocks[i].hash = hash_piece(data, BLOCK_SIZE, at << BLOCK_SHIFT);
}

static void blocks_remove(struct model_node *n, uint64_t from, uint64_t to)
{
	unsigned a = block_lower(n, from), b = block_lower(n, to);

	memmove(n->blocks + a, n->blocks + b, (n->block_count - b) * sizeof *n->blocks);
	n->block_count -= b - a;
	n->a.blocks -= b - a;
}

static void block_read(const struct model_node *n, uint64_t at, uint8_t *out)
{
	const struct model_block *b = block_get(n, at);

	memset(out, 0, BLOCK_SIZE);
	if (n->a.flags & KEYS_ATTR_INLINE) {
		if (at == 0)
			memcpy(out, n->inline_data, n->inline_len);
	} else if (b && b->data) {
		memcpy(out, b->data, BLOCK_SIZE);
	}
}

/* Change bytes of one block; NULL = zeros. */
static void block_write(struct work *w, struct model_node *n, uint64_t off, const uint8_t *data, size_t len)
{
	uint8_t *p = keep(w, BLOCK_SIZE);

	block_read(n, off >> BLOCK_SHIFT, p);
	if (data)
		memcpy(p + (off & (BLOCK_SIZE - 1)), data, len);
	else
		memset(p + (off & (BLOCK_SIZE - 1)), 0, len);
	block_set(w, n, off >> BLOCK_SHIFT, p);
}

static void blocks_write(struct work *w, struct model_node *n, uint64_t off, const uint8_t *data, size_t len)
{
	while (len > 0) {
		size_t part = (size_t)min_u64(len, BLOCK_SIZE - (off & (BLOCK_SIZE - 1)));

		block_write(w, n, off, data, part);
		off += part;
		data += part;
		len -= part;
	}
}

static void inline_leave(struct work *w, struct model_node *n)
{
	uint32_t len = n->inline_len;
	uint8_t old[INLINE_ROOM];

	memcpy(old, n->inline_data, len);
	n->a.flags &= ~KEYS_ATTR_INLINE;
	n->inline_len = 0;
	if (len > 0)
		blocks_write(w, n, 0, old, len);
}

static void node_write(struct work *w, struct model_node *n, uint64_t off, const uint8_t *data, size_t len)
{
	if (n->a.flags & KEYS_ATTR_INLINE && off + len <= INLINE_ROOM) {
		if (off > n->inline_len)
			memset(n->inline_data + n->inline_len, 0, off - n->inline_len);
		memcpy(n->inline_data + off, data, len);
		n->inline_len = (uint32_t)max_u64(n->inline_len, off + len);
		return;
	}
	if (n->a.flags & KEYS_ATTR_INLINE)
		inline_leave(w, n);
	blocks_write(w, n, off, data, len);
}

static void zero_part(struct work *w, struct model_node *n, uint64_t from, uint64_t to)
{
	const struct model_block *b = block_get(n, from >> BLOCK_SHIFT);

	if (from < to && b && b->data)
		block_write(w, n, from, NULL, to - from);
}

static void node_punch(struct work *w, struct model_node *n, uint64_t from, uint64_t to)
{
	uint64_t first = div_up(from, BLOCK_SIZE), last = to >> BLOCK_SHIFT;

	if (n->a.flags & KEYS_ATTR_INLINE) {
		if (from >= n->inline_len)
			return;
		if (to >= n->inline_len)
			n->inline_len = (uint32_t)from;
		else
			memset(n->inline_data + from, 0, to - from);
		return;
	}
	if (first > last) {
		zero_part(w, n, from, to);
		return;
	}
	zero_part(w, n, from, first << BLOCK_SHIFT);
	zero_part(w, n, last << BLOCK_SHIFT, to);
	blocks_remove(n, first, to == KEYS_SIZE_MAX ? last + 1 : last);
}

static struct model_name *name_find(const struct model_node *n, const char *name)
{
	unsigned i;

	for (i = 0; i < n->name_count; i++)
		if (strcmp(n->names[i].name, name) == 0)
			return &n->names[i];
	return NULL;
}

static void name_set(struct work *w, struct model_node *n, const char *name, uint64_t ino, uint32_t mode)
{
	struct model_name *m = name_find(n, name);

	if (!m) {
		if (n->name_count == n->name_room) {
			struct model_name *p;

			n->name_room = n->name_room * 2 + 8;
			p = keep(w, n->name_room * sizeof *p);
			if (n->name_count > 0)
				memcpy(p, n->names, n->name_count * sizeof *p);
			n->names = p;
		}
		m = &n->names[n->name_count++];
		(void)snprintf(m->name, sizeof m->name, "%s", name);
		n->a.size++;
	}
	m->ino = ino;
	m->type = mode & S_IFMT;
}

static void name_remove(struct model_node *n, const char *name)
{
	struct model_name *m = name_find(n, name);

	check(m);
	*m = n->names[--n->name_count];
	n->a.size--;
}

static unsigned xattr_index(const struct model_node *n, const char *name)
{
	unsigned i;

	for (i = 0; i < n->xattr_count && strcmp(n->xattr[i].name, name) != 0; i++)
		;
	return i;
}

static const struct model_xattr *xattr_get(const struct model_node *n, const char *name)
{
	unsigned i = xattr_index(n, name);

	return i < n->xattr_count ? &n->xattr[i] : NULL;
}

static void xattr_set(struct work *w, struct model_node *n, const char *name, const void *value, size_t size)
{
	unsigned i = xattr_index(n, name);
	uint8_t *copy = keep(w, size + 1);

	check(i < XATTR_ROOM);
	if (size > 0)
		memcpy(copy, value, size);
	(void)snprintf(n->xattr[i].name, sizeof n->xattr[i].name, "%s", name);
	n->xattr[i].value = copy;
	n->xattr[i].len = (uint32_t)size;
	n->xattr_count += i == n->xattr_count;
	n->a.flags |= KEYS_ATTR_XATTR;
	if (strcmp(name, acl_access) == 0)
		n->a.flags |= KEYS_ATTR_ACL;
	if (strcmp(name, acl_default) == 0)
		n->a.flags |= KEYS_ATTR_DEFAULT_ACL;
}

static void xattr_drop(struct model_node *n, const char *name)
{
	unsigned i = xattr_index(n, name);

	if (i < n->xattr_count)
		n->xattr[i] = n->xattr[--n->xattr_count];
	if (strcmp(name, acl_access) == 0)
		n->a.flags &= ~KEYS_ATTR_ACL;
	if (strcmp(name, acl_default) == 0)
		n->a.flags &= ~KEYS_ATTR_DEFAULT_ACL;
}

/* What a write by somebody who is not root does to a program's privileges. */
static void kill_privileges(struct model_node *n, bool sgid)
{
	n->a.mode &= ~(uint32_t)S_ISUID;
	if (sgid || n->a.mode & S_IXGRP)
		n->a.mode &= ~(uint32_t)S_ISGID;
	xattr_drop(n, capability);
}

/* ACLs (acl(5)): where the permissions of a class stand, in an attribute's bytes. ------------------------------------ */

enum { CLASS_USER = 1, CLASS_GROUP = 4, CLASS_MASK = 16, CLASS_OTHER = 32 };

static uint8_t *acl_class(uint8_t *acl, size_t size, unsigned class)
{
	size_t at;

	for (at = 4; at + 8 <= size; at += 8)
		if (get_le16(acl + at) == class)
			return acl + at + 2;
	return NULL;
}

/* The group bits of a mode are the mask, where there is one. */
static uint8_t *acl_group_bits(uint8_t *acl, size_t size)
{
	uint8_t *mask = acl_class(acl, size, CLASS_MASK);

	return mask ? mask : acl_class(acl, size, CLASS_GROUP);
}

static uint32_t acl_to_mode(uint8_t *acl, size_t size)
{
	return (uint32_t)(get_le16(acl_class(acl, size, CLASS_USER)) << 6 | get_le16(acl_group_bits(acl, size)) << 3 |
			  get_le16(acl_class(acl, size, CLASS_OTHER)));
}

/* Three entries say what a mode can say. */
static bool acl_is_plain(size_t size)
{
	return size == 4 + 3 * 8;
}

/* The permissions of the classes become those of mode, or (limit) no more than those. */
static void acl_from_mode(uint8_t *acl, size_t size, uint32_t mode, bool limit)
{
	uint8_t *bits[] = { acl_class(acl, size, CLASS_OTHER), acl_group_bits(acl, size), acl_class(acl, size, CLASS_USER) };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(bits); i++)
		put_le16(bits[i], (uint16_t)((mode >> 3 * i & 7) & (limit ? get_le16(bits[i]) : 7u)));
}

static void model_chmod(struct work *w, struct model_node *n, uint32_t mode)
{
	const struct model_xattr *x = xattr_get(n, acl_access);
	uint8_t acl[ACL_ROOM];

	n->a.mode = (n->a.mode & S_IFMT) | mode;
	if (!x)
		return;
	memcpy(acl, x->value, x->len);
	acl_from_mode(acl, x->len, mode, false);
	xattr_set(w, n, acl_access, acl, x->len);
}

/* A new inode's permissions: by its directory's default ACL, or less the umask. */
static void model_inherit(struct work *w, const struct model_node *dir, struct model_node *n, uint32_t umask)
{
	const struct model_xattr *x = xattr_get(dir, acl_default);
	uint8_t acl[ACL_ROOM];

	if (!x) {
		n->a.mode &= ~umask;
		return;
	}
	memcpy(acl, x->value, x->len);
	if (S_ISDIR(n->a.mode))
		xattr_set(w, n, acl_default, acl, x->len);
	acl_from_mode(acl, x->len, n->a.mode, true);
	n->a.mode = (n->a.mode & ~0777u) | acl_to_mode(acl, x->len);
	if (!acl_is_plain(x->len))
		xattr_set(w, n, acl_access, acl, x->len);
}

/* Where a sequence of data ends: blocks that follow each other. */
static uint64_t node_hash(const struct model_node *n)
{
	uint64_t h, i, j;

	if (n->a.nlink == 0)
		return hash_orphan(n->a.ino);
	h = hash_attr(&n->a);
	for (i = 0; i < n->name_count; i++)
		h += hash_name(n->names[i].name, strlen(n->names[i].name), n->names[i].ino, n->names[i].type);
	for (i = 0; i < n->xattr_count; i++)
		h += hash_xattr(n->xattr[i].name, n->xattr[i].value, n->xattr[i].len);
	if (n->a.flags & KEYS_ATTR_INLINE && n->inline_len > 0)
		return h + hash_range(0, n->inline_len) + hash_piece(n->inline_data, n->inline_len, 0);
	for (i = 0; i < n->block_count; i = j) {
		uint64_t from = n->blocks[i].at << BLOCK_SHIFT, to;

		for (j = i; j < n->block_count && n->blocks[j].data && n->blocks[j].at - n->blocks[i].at == j - i; j++) {
			uint64_t off = n->blocks[j].at << BLOCK_SHIFT;

			if (off >= n->a.size)
				continue;
			h += n->a.size - off >= BLOCK_SIZE ? n->blocks[j].hash :
			     hash_piece(n->blocks[j].data, n->a.size - off, off);
		}
		if (j == i) {
			j++;
			continue;
		}
		to = min_u64((n->blocks[j - 1].at + 1) << BLOCK_SHIFT, n->a.size);
		if (from < to)
			h += hash_range(from, to);
	}
	return h;
}

/* The present becomes a state. */
static void push_state(struct work *w, seq_t seq, bool vague)
{
	struct model_state *s;
	unsigned i;

	if (w->state_count == w->state_room) {
		w->state_room = w->state_room ? w->state_room * 2 : 256;
		work_own_memory = true;
		w->states = realloc(w->states, w->state_room * sizeof *w->states);
		work_own_memory = false;
		check(w->states);
	}
	s = &w->states[w->state_count++];
	w->version++;
	*s = (struct model_state){ .seq = seq, .vague = vague, .op = w->ops, .count = w->count };
	s->nodes = keep(w, w->count * sizeof *s->nodes);
	memcpy(s->nodes, w->nodes, w->count * sizeof *s->nodes);
	for (i = 0; i < w->count; i++) {
		struct model_node *n = (struct model_node *)(uintptr_t)w->nodes[i];

		if (n->hash == 0)
			n->hash = node_hash(n);
		s->hash += hash_join(n->a.ino, n->hash);
	}
}

static struct keys_time now(const struct work *w)
{
	return (struct keys_time){ (int64_t)(w->real_ns / 1000000000u), (uint32_t)(w->real_ns % 1000000000u) };
}

static void touch(const struct work *w, struct model_node *n, bool mtime)
{
	n->a.ctime = now(w);
	if (mtime)
		n->a.mtime = n->a.ctime;
}

void work_attach(struct work *w, struct keys *k)
{
	struct keys_attr root;

	check(keys_getattr(k, KEYS_ROOT_INO, &root) == 0);
	check(S_ISDIR(root.mode) && root.size == 0);
	w->k = k;
	(void)node_add(w, &root);
	push_state(w, store_seq(keys_store(k)), false);
}

unsigned work_state_of(const struct work *w, seq_t seq)
{
	unsigned i;

	for (i = w->state_count; i > w->line && w->states[i - 1].seq >= seq; i--)
		;
	return i < w->state_count ? i : w->state_count - 1;
}

void work_rewind(struct work *w, unsigned i, struct keys *k)
{
	const struct model_state *s = &w->states[i];

	w->state_count = i + 1;
	w->count = s->count;
	memcpy(w->nodes, s->nodes, s->count * sizeof *w->nodes);
	w->version++;
	w->k = k;
	if (i < w->line)
		w->line = 0;
}

/* What a store shows ------------------------------------------------------------------------------------------------ */

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

static int is_zero(const uint8_t *p, size_t len)
{
	for (; len > 0; p += min_u64(len, BLOCK_SIZE), len -= (size_t)min_u64(len, BLOCK_SIZE))
		if (memcmp(p, zero_block, min_u64(len, BLOCK_SIZE)) != 0)
			return 0;
	return 1;
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

/* Changes ----------------------------------------------------------------------------------------------------------- */

static const struct keys_cred cred = { 1000, 100, 022 };

static bool is_primary(const struct work *w)
{
	struct store_identity id;

	store_identity(keys_store(w->k), &id);
	return id.role == STORE_PRIMARY;
}

/* The call returned r: how many records did it commit? Checks r against what the model expects. */
static unsigned settle(struct work *w, int r)
{
	seq_t before = w->states[work_now(w)].seq, seq = store_seq(keys_store(w->k));
	int failed = store_failed(keys_store(w->k));
	char text[128];

	if (r == -ENOSPC || r == -EAGAIN)
		w->refused++;
	/* -ESTALE: of a marked orphan that could not be reaped at once. */
	if (r != w->expected && r != -ENOSPC && r != -EAGAIN && r != -ENOMEM &&
	    !(r == -ESTALE && is_primary(w)) && !failed) {
		(void)snprintf(text, sizeof text, "returned %d, %d expected: %s", r, w->expected, err_last());
		disagree(w, text);
	}
	if (seq < before || (r != 0 && r == w->expected && seq != before))
		disagree(w, "the sequence number moved strangely");
	return (unsigned)(seq - before);
}

/* One record of the call that is being made is in the model. */
static void step_state(struct work *w)
{
	push_state(w, w->states[work_now(w)].seq + 1, false);
}

/* The number that a new inode gets: also if the call fails behind its record, and does not tell. */
static uint64_t next_ino(const struct work *w)
{
	return store_counts(keys_store(w->k))->next_ino;
}

static bool was_committed(struct work *w, int r)
{
	unsigned n = settle(w, r);

	if (n > 1 || (r == 0 && w->expected == 0 && n != 1))
		disagree(w, "one record expected");
	return n == 1;
}

static uint64_t pick(struct work *w, uint32_t type, bool any)
{
	unsigned i, n = 0;

	for (i = 0; i < w->count; i++)
		n += (any && w->nodes[i]->a.nlink > 0) || (w->nodes[i]->a.mode & S_IFMT) == type;
	if (n == 0)
		return 0;
	n = (unsigned)work_random(w, n);
	for (i = 0; i < w->count; i++)
		if (((any && w->nodes[i]->a.nlink > 0) || (w->nodes[i]->a.mode & S_IFMT) == type) && n-- == 0)
			return w->nodes[i]->a.ino;
	return 0;
}

static uint64_t pick_dir(struct work *w)
{
	uint64_t ino;

	do
		ino = chance(w, 40) ? KEYS_ROOT_INO : pick(w, S_IFDIR, false);
	while (node_get(w, ino)->a.nlink == 0);
	return ino;
}

/* Mostly a file with a name; now and then one that was removed while open. */
static uint64_t pick_file(struct work *w)
{
	return pick(w, S_IFREG, false);
}

static bool pick_name(struct work *w, uint64_t *ret_dir, struct model_name *ret)
{
	unsigned tries;

	for (tries = 0; tries < 8; tries++) {
		const struct model_node *d;

		*ret_dir = pick_dir(w);
		d = node_get(w, *ret_dir);
		if (d->name_count > 0) {
			*ret = d->names[work_random(w, d->name_count)];
			return true;
		}
	}
	return false;
}

static void new_name(struct work *w, char name[24])
{
	(void)snprintf(name, 24, "%c%llu", "abcdefgh"[work_random(w, 8)], (unsigned long long)work_random(w, NAMES_MAX / 4));
	if (chance(w, 10))
		name[0] = '\xff';
}

void work_bytes(struct work *w, uint8_t *p, size_t len)
{
	uint64_t how = work_random(w, 8), x = work_random(w, 0);
	size_t i;

	if (how == 0) {
		memset(p, (int)(x & 1 ? 0 : x & 0xff), len);
		return;
	}
	for (i = 0; i < len; i++) {
		if (i % 8 == 0)
			x = x * 6364136223846793005ull + 1442695040888963407ull;
		p[i] = (uint8_t)(x >> 56 >> (how == 1 ? 4 : 0));
	}
}

static struct model_node *new_node(struct work *w, uint64_t dir, uint64_t ino, uint32_t mode, bool whiteout)
{
	const struct model_node *d = node_get(w, dir);
	struct model_node *n;
	struct keys_attr a = { .ino = ino, .mode = mode, .nlink = S_ISDIR(mode) ? 2 : 1, .uid = cred.uid, .gid = cred.gid };

	if (d->a.mode & S_ISGID) {
		a.gid = d->a.gid;
		if (S_ISDIR(mode))
			a.mode |= S_ISGID;
	}
	if (S_ISREG(mode) || S_ISLNK(mode))
		a.flags = KEYS_ATTR_INLINE;
	a.atime = a.mtime = a.ctime = a.btime = now(w);
	if (ino <= w->highest_ino)
		disagree(w, "an inode number was given out twice");
	w->highest_ino = ino;
	n = node_add(w, &a);
	if (!S_ISLNK(mode) && !whiteout)
		model_inherit(w, d, n, cred.umask);
	return n;
}

int work_make(struct work *w, uint64_t dir, const char *name, uint32_t mode, uint64_t rdev)
{
	struct model_node *n;
	struct keys_attr a = { 0 };
	uint64_t ino;
	int r;

	say(w, "make %o %s in %llu", mode, name, (unsigned long long)dir);
	w->expected = name_find(node_get(w, dir), name) ? -EEXIST : 0;
	ino = next_ino(w);
	r = keys_make(w->k, dir, name, strlen(name), mode, rdev, &cred, &a);
	if (!was_committed(w, r))
		return r;
	if (r == 0 && a.ino != ino)
		disagree(w, "not the next inode number");
	n = new_node(w, dir, ino, mode, false);
	if (S_ISBLK(mode) || S_ISCHR(mode))
		n->a.aux = rdev;
	if (S_ISDIR(mode))
		n->a.aux = dir;
	mode = n->a.mode;
	n = node_edit(w, dir);
	name_set(w, n, name, ino, mode);
	if (S_ISDIR(mode))
		n->a.nlink++;
	touch(w, n, true);
	step_state(w);
	return r;
}

static int op_make(struct work *w)
{
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFIFO, S_IFSOCK, S_IFBLK,
					  S_IFCHR };
	uint32_t mode = types[work_random(w, ARRAY_LEN(types))] | (uint32_t)work_random(w, 01000);
	uint64_t dir = pick_dir(w), rdev = makedev(work_random(w, 200), work_random(w, 200));
	char name[24];

	if (chance(w, 10))
		mode |= S_ISGID;
	new_name(w, name);
	return work_make(w, dir, name, mode, rdev);
}

int work_symlink(struct work *w, uint64_t dir, const char *name, const uint8_t *target, size_t len)
{
	struct keys_attr a = { 0 };
	struct model_node *n;
	uint64_t ino;
	int r;

	say(w, "symlink of %zu bytes, %s in %llu", len, name, (unsigned long long)dir);
	w->expected = name_find(node_get(w, dir), name) ? -EEXIST : 0;
	ino = next_ino(w);
	r = keys_symlink(w->k, dir, name, strlen(name), (char *)target, len, &cred, &a);
	if (!was_committed(w, r))
		return r;
	if (r == 0 && a.ino != ino)
		disagree(w, "not the next inode number");
	n = new_node(w, dir, ino, S_IFLNK | 0777, false);
	n->a.size = len;
	node_write(w, n, 0, target, len);
	n = node_edit(w, dir);
	name_set(w, n, name, ino, S_IFLNK);
	touch(w, n, true);
	step_state(w);
	return r;
}

static int op_symlink(struct work *w)
{
	size_t len = 1 + (size_t)work_random(w, chance(w, 20) ? KEYS_SYMLINK_MAX : 60);
	uint8_t target[KEYS_SYMLINK_MAX];
	uint64_t dir = pick_dir(w);
	char name[24];

	work_bytes(w, target, len);
	new_name(w, name);
	return work_symlink(w, dir, name, target, len);
}

int work_link(struct work *w, uint64_t ino, uint64_t dir, const char *name)
{
	const struct model_node *f = node_get(w, ino);
	struct keys_attr a;
	struct model_node *n;
	int r;

	say(w, "link %llu as %s in %llu", (unsigned long long)ino, name, (unsigned long long)dir);
	w->expected = S_ISDIR(f->a.mode) ? -EPERM : f->a.nlink == 0 ? -ENOENT : name_find(node_get(w, dir), name) ? -EEXIST : 0;
	r = keys_link(w->k, ino, dir, name, strlen(name), &a);
	if (!was_committed(w, r))
		return r;
	n = node_edit(w, ino);
	n->a.nlink++;
	touch(w, n, false);
	a = n->a;
	n = node_edit(w, dir);
	name_set(w, n, name, ino, a.mode);
	touch(w, n, true);
	step_state(w);
	return r;
}

static int op_link(struct work *w)
{
	uint64_t ino = pick(w, S_IFREG, chance(w, 30)), dir = pick_dir(w);
	char name[24];

	if (!node_get(w, ino))
		return 0;
	new_name(w, name);
	return work_link(w, ino, dir, name);
}

static void lose_name(struct work *w, uint64_t ino)
{
	struct model_node *n = node_edit(w, ino);

	n->a.nlink = S_ISDIR(n->a.mode) ? 0 : n->a.nlink - 1;
	touch(w, n, false);
}

int work_unlink(struct work *w, uint64_t dir, const char *name)
{
	const struct model_name e = *name_find(node_get(w, dir), name);
	struct model_node *n;
	uint64_t ino = 0;
	uint32_t nlink;
	int r;

	if (S_ISDIR(e.type)) {
		say(w, "rmdir %s in %llu", e.name, (unsigned long long)dir);
		w->expected = node_get(w, e.ino)->a.size > 0 ? -ENOTEMPTY : 0;
		r = keys_rmdir(w->k, dir, e.name, strlen(e.name), &ino);
	} else {
		say(w, "unlink %s in %llu", e.name, (unsigned long long)dir);
		w->expected = 0;
		r = keys_unlink(w->k, dir, e.name, strlen(e.name), &ino, &nlink);
	}
	if (!was_committed(w, r))
		return r;
	lose_name(w, e.ino);
	n = node_edit(w, dir);
	name_remove(n, e.name);
	if (S_ISDIR(e.type))
		n->a.nlink--;
	touch(w, n, true);
	step_state(w);
	return r;
}

static int op_unlink(struct work *w)
{
	struct model_name e;
	uint64_t dir;

	return pick_name(w, &dir, &e) ? work_unlink(w, dir, e.name) : 0;
}

static bool is_below(const struct work *w, uint64_t dir, uint64_t top)
{
	for (;; dir = node_get(w, dir)->a.aux) {
		if (dir == top)
			return true;
		if (dir == KEYS_ROOT_INO)
			return false;
	}
}

static int rename_error(const struct work *w, uint64_t od, const struct model_name *e, uint64_t nd,
			const struct model_name *over, unsigned flags)
{
	if (flags & RENAME_EXCHANGE && !over)
		return -ENOENT;
	if (flags & RENAME_NOREPLACE && over)
		return -EEXIST;
	if (od != nd && S_ISDIR(e->type) && is_below(w, nd, e->ino))
		return -EINVAL;
	if (flags & RENAME_EXCHANGE)
		return od != nd && S_ISDIR(over->type) && is_below(w, od, over->ino) ? -EINVAL : 0;
	if (!over)
		return 0;
	if (S_ISDIR(e->type) && !S_ISDIR(over->type))
		return -ENOTDIR;
	if (!S_ISDIR(e->type) && S_ISDIR(over->type))
		return -EISDIR;
	return S_ISDIR(over->type) && over->ino != e->ino && node_get(w, over->ino)->a.size > 0 ? -ENOTEMPTY : 0;
}

static void move_dir(struct work *w, const struct model_name *e, uint64_t from, uint64_t to)
{
	if (!S_ISDIR(e->type) || from == to)
		return;
	node_edit(w, e->ino)->a.aux = to;
	node_edit(w, from)->a.nlink--;
	node_edit(w, to)->a.nlink++;
}

static void model_rename(struct work *w, uint64_t od, const struct model_name *e, uint64_t nd, const char *name,
			 const struct model_name *over, unsigned flags, uint64_t whiteout)
{
	if (flags & RENAME_EXCHANGE) {
		name_set(w, node_edit(w, od), e->name, over->ino, over->type);
		name_set(w, node_edit(w, nd), name, e->ino, e->type);
		move_dir(w, over, nd, od);
		touch(w, node_edit(w, over->ino), false);
	} else {
		if (flags & RENAME_WHITEOUT) {
			(void)new_node(w, od, whiteout, S_IFCHR, true);
			name_set(w, node_edit(w, od), e->name, whiteout, S_IFCHR);
		} else {
			name_remove(node_edit(w, od), e->name);
		}
		if (over && S_ISDIR(over->type))
			node_edit(w, nd)->a.nlink--;
		name_set(w, node_edit(w, nd), name, e->ino, e->type);
		if (over)
			lose_name(w, over->ino);
	}
	move_dir(w, e, od, nd);
	touch(w, node_edit(w, e->ino), false);
	touch(w, node_edit(w, od), true);
	touch(w, node_edit(w, nd), true);
}

int work_rename(struct work *w, uint64_t od, const char *oname, uint64_t nd, const char *name, unsigned flags)
{
	const struct model_name e = *name_find(node_get(w, od), oname);
	uint64_t orphan = 0, whiteout = 0;
	struct model_name over;
	const struct model_name *o;
	struct keys_attr a;
	int r;

	o = name_find(node_get(w, nd), name);
	if (o && o->ino == e.ino && S_ISDIR(e.type))
		return 0;               /* the kernel answers that */
	say(w, "rename %s in %llu to %s in %llu, flags %u", e.name, (unsigned long long)od, name, (unsigned long long)nd, flags);
	if (o) {
		over = *o;
		o = &over;
	}
	w->expected = rename_error(w, od, &e, nd, o, flags);
	whiteout = next_ino(w);
	r = keys_rename(w->k, od, e.name, strlen(e.name), nd, name, strlen(name), flags, &cred, &orphan);
	if (w->expected == 0 && o && o->ino == e.ino) {
		if (settle(w, r) != 0)
			disagree(w, "a rename of a file to itself made a record");
		return r;
	}
	if (!was_committed(w, r))
		return r;
	if (r == 0 && flags & RENAME_WHITEOUT)
		check(keys_lookup(w->k, od, e.name, strlen(e.name), &a) == 0 && a.ino == whiteout);
	model_rename(w, od, &e, nd, name, o, flags, whiteout);
	step_state(w);
	return r;
}

static int op_rename(struct work *w)
{
	static const unsigned all[] = { 0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE, RENAME_WHITEOUT };
	unsigned flags = all[work_random(w, ARRAY_LEN(all))];
	struct model_name e, over;
	uint64_t od, nd;
	char name[24];

	if (!pick_name(w, &od, &e))
		return 0;
	if (chance(w, 60) && pick_name(w, &nd, &over)) {
		memcpy(name, over.name, sizeof name);
	} else {
		nd = pick_dir(w);
		new_name(w, name);
	}
	return work_rename(w, od, e.name, nd, name, flags);
}

static uint64_t some_offset(struct work *w, const struct model_node *n)
{
	switch (work_random(w, 6)) {
	case 0:
		return 0;
	case 1:
		return n->a.size;
	case 2:
		return work_random(w, 40) << BLOCK_SHIFT;
	case 3:
		return (1 + work_random(w, 16)) * (BLOCK_SIZE / 4) + work_random(w, 3) - 1;
	case 4:
		return chance(w, 5) ? 1ull << (20 + work_random(w, 42)) : work_random(w, 200000);
	default:
		return work_random(w, n->a.size + 1);
	}
}

static int op_setattr(struct work *w)
{
	uint64_t ino = pick(w, S_IFREG, chance(w, 70));
	const struct model_node *f = node_get(w, ino);
	struct keys_setattr set = { .mask = (unsigned)work_random(w, 0) & (KEYS_SET_MODE | KEYS_SET_UID | KEYS_SET_GID |
			KEYS_SET_ATIME | KEYS_SET_MTIME | KEYS_SET_ATIME_NOW | KEYS_SET_MTIME_NOW | KEYS_KILL_PRIV | KEYS_KILL_SGID) };
	struct model_node *n;
	struct keys_attr a;
	int r;

	if (!f)
		return 0;
	set.mode = (uint32_t)work_random(w, 010000);
	set.uid = (uint32_t)work_random(w, 70000);
	set.gid = (uint32_t)work_random(w, 0);
	set.atime = (struct keys_time){ (int64_t)work_random(w, 1ull << 40) - (1 << 30), (uint32_t)work_random(w, 1000000000) };
	set.mtime = (struct keys_time){ (int64_t)work_random(w, 1ull << 33), (uint32_t)work_random(w, 1000000000) };
	say(w, "setattr of %llu, mask %x", (unsigned long long)ino, set.mask);
	w->expected = 0;
	r = keys_setattr(w->k, ino, &set, &a);
	if (!was_committed(w, r))
		return r;
	n = node_edit(w, ino);
	if (set.mask & KEYS_KILL_PRIV && !S_ISDIR(n->a.mode))
		kill_privileges(n, set.mask & KEYS_KILL_SGID);
	if (set.mask & KEYS_SET_UID)
		n->a.uid = set.uid;
	if (set.mask & KEYS_SET_GID)
		n->a.gid = set.gid;
	if (set.mask & KEYS_SET_MODE)
		model_chmod(w, n, set.mode);
	if (set.mask & (KEYS_SET_ATIME | KEYS_SET_ATIME_NOW))
		n->a.atime = set.mask & KEYS_SET_ATIME_NOW ? now(w) : set.atime;
	if (set.mask & (KEYS_SET_MTIME | KEYS_SET_MTIME_NOW))
		n->a.mtime = set.mask & KEYS_SET_MTIME_NOW ? now(w) : set.mtime;
	touch(w, n, false);
	step_state(w);
	return r;
}

int work_truncate(struct work *w, uint64_t ino, uint64_t to)
{
	const struct model_node *f = node_get(w, ino);
	struct keys_setattr set = { .mask = KEYS_SET_SIZE, .size = to };
	struct model_node *n;
	struct keys_attr a;
	int r;

	say(w, "truncate %llu from %llu to %llu", (unsigned long long)ino, (unsigned long long)f->a.size,
	    (unsigned long long)set.size);
	w->expected = 0;
	r = keys_setattr(w->k, ino, &set, &a);
	if (!was_committed(w, r))
		return r;
	n = node_edit(w, ino);
	if (set.size <= n->a.size)
		node_punch(w, n, set.size, KEYS_SIZE_MAX);
	n->a.size = set.size;
	touch(w, n, true);
	step_state(w);
	return r;
}

static int op_truncate(struct work *w)
{
	uint64_t ino = pick_file(w);
	const struct model_node *f = node_get(w, ino);

	if (!f)
		return 0;
	return work_truncate(w, ino, chance(w, 20) ? 0 : chance(w, 20) ? f->a.size : some_offset(w, f));
}

static void model_write(struct work *w, uint64_t ino, uint64_t off, const uint8_t *data, size_t len, unsigned kill)
{
	struct model_node *n = node_edit(w, ino);

	node_write(w, n, off, data, len);
	if (kill)
		kill_privileges(n, kill & KEYS_KILL_SGID);
	n->a.size = max_u64(n->a.size, off + len);
	touch(w, n, true);
	step_state(w);
}

static size_t some_length(struct work *w)
{
	static const unsigned big[WORK_PROFILES] = { 25, 3, 70, 40, 5, 60, 10, 40, 30, 25 };
	bool fills = w->profile == WORK_FULL || w->profile == WORK_GROW;

	if (chance(w, big[w->profile]))
		return 4097 + (size_t)work_random(w, chance(w, 10) ? 400000 : fills ? 150000 : 40000);
	return 1 + (size_t)work_random(w, chance(w, 50) ? 100 : 4096);
}

int work_write(struct work *w, uint64_t ino, uint64_t off, const uint8_t *data, size_t len, unsigned kill)
{
	const struct model_node *f = node_get(w, ino);
	size_t done = 0;
	int r;

	say(w, "write %zu bytes at %llu of %llu (size %llu)%s", len, (unsigned long long)off, (unsigned long long)ino,
	    (unsigned long long)f->a.size, kill ? ", kill" : "");
	w->expected = 0;
	r = keys_write(w->k, ino, off, data, len, kill, &done);
	if (r == 0 && done != len)
		disagree(w, "a short write");
	if (!was_committed(w, r))
		return r;
	model_write(w, ino, off, data, len, kill);
	if (len > BLOCK_SIZE) {
		struct work_lost *l = &w->big[w->big_next++ % WORK_LOST];
		uint8_t *copy = keep(w, len);

		memcpy(copy, data, len);
		*l = (struct work_lost){ w->states[work_now(w)].seq, ino, off, len, copy };
	}
	return r;
}

int work_retry(struct work *w)
{
	seq_t now_at = w->states[work_now(w)].seq;
	struct work_lost *first = NULL;
	unsigned i;

	for (i = 0; i < WORK_LOST; i++)
		if (w->big[i].seq > now_at && (!first || w->big[i].seq < first->seq))
			first = &w->big[i];
	/* What comes behind it is not done again, and not lost twice. */
	for (i = 0; i < WORK_LOST; i++)
		if (w->big[i].seq > now_at)
			w->big[i].seq = 0;
	if (!first || !node_get(w, first->ino) || !S_ISREG(node_get(w, first->ino)->a.mode))
		return 0;
	work_begin(w);
	return work_write(w, first->ino, first->off, first->data, first->len, 0);
}

static int op_write(struct work *w)
{
	static uint8_t data[KEYS_WRITE_MAX];
	uint64_t ino = pick_file(w), off;
	const struct model_node *f = node_get(w, ino);
	unsigned kill = chance(w, 20) ? KEYS_KILL_PRIV | (chance(w, 30) ? KEYS_KILL_SGID : 0u) : 0;
	size_t len;

	if (!f)
		return 0;
	len = some_length(w);
	off = some_offset(w, f);
	if (chance(w, 10)) {
		off &= ~(uint64_t)(BLOCK_SIZE - 1);
		len = (size_t)align_up(len, BLOCK_SIZE);
	}
	work_bytes(w, data, len);
	return work_write(w, ino, off, data, len, kill);
}

/* Two files whose blocks alternate: what the second of them gives back stands alone. */
static void fill_crumbs(struct work *w)
{
	static const char *const names[] = { "bread", "crumbs" };
	static uint8_t data[2 * BLOCK_SIZE];
	uint64_t ino[2];
	unsigned i;
	int r = 0;

	for (i = 0; i < 2; i++) {
		work_begin(w);
		check(work_make(w, KEYS_ROOT_INO, names[i], S_IFREG | 0644, 0) == 0);
		ino[i] = work_lookup(w, KEYS_ROOT_INO, names[i], S_IFREG);
	}
	for (i = 0; r == 0; i ^= 1) {
		work_begin(w);
		work_bytes(w, data, sizeof data);
		r = work_write(w, ino[i], node_get(w, ino[i])->a.size, data, sizeof data, 0);
	}
}

int work_free_crumbs(struct work *w)
{
	uint64_t ino = work_lookup(w, KEYS_ROOT_INO, "crumbs", S_IFREG), size = ino ? node_get(w, ino)->a.size : 0;
	uint64_t part = (160 + work_random(w, 60)) * 2 * BLOCK_SIZE;

	work_begin(w);
	return size > part ? work_truncate(w, ino, size - part) : 0;
}

void work_fill(struct work *w, bool crumbs)
{
	static uint8_t data[300000];
	int r = 0;

	if (crumbs) {
		fill_crumbs(w);
		return;
	}
	while (r != -ENOSPC) {
		uint64_t ino = pick_file(w);

		work_begin(w);
		if (ino == 0 || node_get(w, ino)->a.size > 1000000) {
			r = op_make(w);
			continue;
		}
		work_bytes(w, data, sizeof data);
		r = work_write(w, ino, node_get(w, ino)->a.size, data, sizeof data, 0);
	}
}

static int op_copy(struct work *w)
{
	static uint8_t data[400000 + BLOCK_SIZE];
	uint64_t src = pick_file(w), dst = pick_file(w), from, to, at;
	const struct model_node *s = node_get(w, src), *d = node_get(w, dst);
	size_t len = some_length(w), done = 0;
	int r;

	if (!s || !d)
		return 0;
	from = some_offset(w, s);
	to = some_offset(w, d);
	len = from < s->a.size ? (size_t)min_u64(len, s->a.size - from) : 0;
	say(w, "copy %zu bytes at %llu of %llu to %llu of %llu", len, (unsigned long long)from, (unsigned long long)src,
	    (unsigned long long)to, (unsigned long long)dst);
	if (len > sizeof data - BLOCK_SIZE)
		return 0;
	for (at = from; at < from + len; ) {
		size_t part = (size_t)min_u64(from + len - at, BLOCK_SIZE - (at & (BLOCK_SIZE - 1)));
		uint8_t block[BLOCK_SIZE];

		block_read(s, at >> BLOCK_SHIFT, block);
		memcpy(data + (at - from), block + (at & (BLOCK_SIZE - 1)), part);
		at += part;
	}
	w->expected = 0;
	r = keys_copy_range(w->k, src, from, dst, to, len, 0, &done);
	if (len == 0) {
		if (settle(w, r) != 0 || done != 0)
			disagree(w, "a copy of nothing made a record");
		return r;
	}
	if (r == 0 && done != len)
		disagree(w, "a short copy");
	if (was_committed(w, r))
		model_write(w, dst, to, data, len, 0);
	return r;
}

/* Blocks for the holes in [at, end), as many as the store says it gave. */
static void model_allocate(struct work *w, struct model_node *n, uint64_t at, uint64_t end, uint64_t limit)
{
	for (; at < end && n->a.blocks < limit; at++)
		if (!block_get(n, at))
			block_set(w, n, at, NULL);
}

/* The records that preallocation makes, as long as `left` says that there were more. */
static void model_preallocate(struct work *w, uint64_t ino, uint64_t off, uint64_t len, bool keep_size, unsigned left, bool done)
{
	uint64_t at = off >> BLOCK_SHIFT, end = div_up(off + len, BLOCK_SIZE);
	struct keys_attr a = { 0 };
	struct model_node *n;

	if (left > 0 && node_get(w, ino)->inline_len > 0 && end > 1) {
		uint8_t block[BLOCK_SIZE];

		n = node_edit(w, ino);
		block_read(n, 0, block);
		node_write(w, n, 0, block, BLOCK_SIZE);
		step_state(w);
		left--;
	}
	if (left == 0)
		return;
	(void)keys_getattr(w->k, ino, &a);
	/* Pieces in several records: what each of them got depends on where free blocks were. */
	for (; left > 1; left--)
		push_state(w, w->states[work_now(w)].seq + 1, true);
	n = node_edit(w, ino);
	if (end > 1)
		n->a.flags &= ~KEYS_ATTR_INLINE;
	if (!(n->a.flags & KEYS_ATTR_INLINE))
		model_allocate(w, n, at, end, done ? UINT64_MAX : a.blocks);
	touch(w, n, true);
	if (done && !keep_size && off + len > n->a.size)
		n->a.size = off + len;
	step_state(w);
}

int work_fallocate(struct work *w, uint64_t ino, int mode, uint64_t off, uint64_t len)
{
	const struct model_node *f = node_get(w, ino);
	struct model_node *n;
	unsigned left;
	int r;

	say(w, "fallocate %x, %llu bytes at %llu of %llu (size %llu, %llu blocks)", mode, (unsigned long long)len,
	    (unsigned long long)off, (unsigned long long)ino, (unsigned long long)f->a.size, (unsigned long long)f->a.blocks);
	w->expected = 0;
	r = keys_fallocate(w->k, ino, mode, off, len, 0);
	left = settle(w, r);
	if (r == 0 && left == 0)
		disagree(w, "no record was made");
	if (left > 0 && mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		n = node_edit(w, ino);
		node_punch(w, n, off, off + len);
		touch(w, n, true);
		step_state(w);
		left--;
	}
	if (!(mode & FALLOC_FL_PUNCH_HOLE))
		model_preallocate(w, ino, off, len, mode & FALLOC_FL_KEEP_SIZE, left, r == 0);
	return r;
}

static int op_fallocate(struct work *w)
{
	static const int modes[] = { 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
				     FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };
	int mode = modes[work_random(w, ARRAY_LEN(modes))];
	uint64_t ino = pick_file(w), off, len;
	const struct model_node *f = node_get(w, ino);

	if (!f)
		return 0;
	off = work_random(w, 4) ? work_random(w, f->a.size < 1000000 ? f->a.size + 10000 : 300000) : work_random(w, 30) << BLOCK_SHIFT;
	len = 1 + work_random(w, chance(w, 50) ? 5000 : w->profile == WORK_TAIL ? 16000000 : 120000);
	if (chance(w, 30))
		len = align_up(len, BLOCK_SIZE);
	return work_fallocate(w, ino, mode, off, len);
}

/* A file that takes most of the store, step by step as that grows; then, with `drop`, it goes. */
int work_bulk(struct work *w, bool drop)
{
	uint64_t ino = work_lookup(w, KEYS_ROOT_INO, "bulk", S_IFREG), size = ino ? node_get(w, ino)->a.size : 0;
	struct keys_statfs fs;

	work_begin(w);
	if (ino == 0)
		return drop ? 0 : work_make(w, KEYS_ROOT_INO, "bulk", S_IFREG | 0644, 0);
	if (drop)
		return work_unlink(w, KEYS_ROOT_INO, "bulk");
	keys_statfs(w->k, &fs);
	fs.bavail = fs.bavail / 8 * 7;
	if (fs.bavail == 0 || size + fs.bavail * BLOCK_SIZE > 120000000)
		return 0;
	return work_fallocate(w, ino, 0, size, fs.bavail * BLOCK_SIZE);
}

int work_behind(struct work *w)
{
	static uint8_t data[60000];
	size_t len = 5000 + (size_t)work_random(w, sizeof data - 5000);
	char name[24];
	uint64_t ino;

	work_begin(w);
	(void)snprintf(name, sizeof name, "behind%u", (unsigned)work_random(w, 3));
	ino = work_lookup(w, KEYS_ROOT_INO, name, S_IFREG);
	if (ino == 0)
		return work_make(w, KEYS_ROOT_INO, name, S_IFREG | 0600, 0);
	work_bytes(w, data, len);
	return work_write(w, ino, work_random(w, 40) << BLOCK_SHIFT, data, len, 0);
}

static int work_setxattr(struct work *w, uint64_t ino, const char *name, const uint8_t *value, size_t size, int flags)
{
	const struct model_xattr *there = xattr_get(node_get(w, ino), name);
	struct model_node *n;
	int r;

	say(w, "setxattr %s of %llu, %zu bytes, flags %d", name, (unsigned long long)ino, size, flags);
	w->expected = flags == XATTR_CREATE && there ? -EEXIST : flags == XATTR_REPLACE && !there ? -ENODATA : 0;
	r = keys_setxattr(w->k, ino, name, value, size, flags, false);
	if (!was_committed(w, r))
		return r;
	n = node_edit(w, ino);
	xattr_set(w, n, name, value, size);
	touch(w, n, false);
	step_state(w);
	return r;
}

static int op_setxattr(struct work *w)
{
	static const char *const names[] = { "user.u", "user.v", "user.w", "user.x", "user.y", "trusted.z", capability };
	uint64_t ino = pick(w, S_IFREG, true);
	static uint8_t value[KEYS_XATTR_MAX];
	/* The longest fill the journal fast: four records are a segment. */
	unsigned big = w->profile == WORK_JOURNAL ? 50 : w->profile == WORK_GROW ? 30 : 5;
	size_t size = chance(w, big) ? KEYS_XATTR_MAX - (size_t)work_random(w, chance(w, 50) ? 20000 : KEYS_XATTR_MAX) :
		      (size_t)work_random(w, chance(w, 20) ? 5000 : 50);
	int flags = chance(w, 20) ? XATTR_CREATE : chance(w, 20) ? XATTR_REPLACE : 0;

	work_bytes(w, value, size);
	return work_setxattr(w, ino, names[work_random(w, ARRAY_LEN(names))], value, size, flags);
}

int work_flood(struct work *w)
{
	static uint8_t value[KEYS_XATTR_MAX];
	size_t size = 55000 + (size_t)work_random(w, sizeof value - 55000);

	work_begin(w);
	work_bytes(w, value, size);
	return work_setxattr(w, KEYS_ROOT_INO, "user.flood", value, size, 0);
}

static int op_removexattr(struct work *w)
{
	uint64_t ino = 0;
	const struct model_node *f;
	struct model_node *n;
	char name[28] = "user.none";
	unsigned tries;
	int r;

	for (tries = 0; tries < 8 && (ino == 0 || node_get(w, ino)->xattr_count == 0); tries++)
		ino = pick(w, S_IFREG, true);
	f = node_get(w, ino);
	if (f->xattr_count > 0)
		memcpy(name, f->xattr[work_random(w, f->xattr_count)].name, sizeof name);
	say(w, "removexattr %s of %llu", name, (unsigned long long)ino);
	w->expected = f->xattr_count == 0 ? -ENODATA : 0;
	r = keys_removexattr(w->k, ino, name);
	if (!was_committed(w, r))
		return r;
	n = node_edit(w, ino);
	xattr_drop(n, name);
	touch(w, n, false);
	step_state(w);
	return r;
}

static size_t put_class(uint8_t *acl, size_t at, unsigned class, unsigned perm, uint32_t id)
{
	put_le16(acl + at, (uint16_t)class);
	put_le16(acl + at + 2, (uint16_t)perm);
	put_le32(acl + at + 4, id);
	return at + 8;
}

/* Some valid ACL; now and then none. */
static size_t some_acl(struct work *w, uint8_t *acl)
{
	unsigned users = (unsigned)work_random(w, 3), groups = (unsigned)work_random(w, 3), i;
	size_t at = 4;

	put_le32(acl, 2);
	if (chance(w, 15))
		return at;
	at = put_class(acl, at, CLASS_USER, (unsigned)work_random(w, 8), ~0u);
	for (i = 0; i < users; i++)
		at = put_class(acl, at, 2, (unsigned)work_random(w, 8), 1000 + i);
	at = put_class(acl, at, CLASS_GROUP, (unsigned)work_random(w, 8), ~0u);
	for (i = 0; i < groups; i++)
		at = put_class(acl, at, 8, (unsigned)work_random(w, 8), 2000 + i);
	if (users + groups > 0 || chance(w, 20))
		at = put_class(acl, at, CLASS_MASK, (unsigned)work_random(w, 8), ~0u);
	return put_class(acl, at, CLASS_OTHER, (unsigned)work_random(w, 8), ~0u);
}

static int op_acl(struct work *w)
{
	uint64_t ino = pick(w, chance(w, 40) ? S_IFDIR : S_IFREG, chance(w, 20));
	const struct model_node *f = node_get(w, ino);
	bool access = chance(w, 50), none;
	const char *name = access ? acl_access : acl_default;
	uint8_t acl[ACL_ROOM];
	size_t size = some_acl(w, acl);
	struct model_node *n;
	int r;

	if (!f)
		return 0;
	none = size == 4;
	say(w, "set %s of %llu, %zu bytes", name, (unsigned long long)ino, size);
	w->expected = S_ISLNK(f->a.mode) ? -EOPNOTSUPP : !access && !S_ISDIR(f->a.mode) && !none ? -EACCES : 0;
	r = keys_setxattr(w->k, ino, name, acl, size, 0, false);
	if (!was_committed(w, r))
		return r;
	n = node_edit(w, ino);
	if (access && !none)
		n->a.mode = (n->a.mode & ~0777u) | acl_to_mode(acl, size);
	if (none || (access && acl_is_plain(size)))
		xattr_drop(n, name);
	else
		xattr_set(w, n, name, acl, size);
	touch(w, n, false);
	step_state(w);
	return r;
}

static int op_atime(struct work *w)
{
	uint64_t ino = pick(w, S_IFREG, true);
	int r;

	say(w, "touch atime of %llu", (unsigned long long)ino);
	w->expected = 0;
	r = keys_touch_atime(w->k, ino, KEYS_STRICTATIME);
	if (settle(w, r) == 0)
		return r;
	node_edit(w, ino)->a.atime = now(w);
	step_state(w);
	return r;
}

/* A primary says first that nobody has it open: a change that shows in nothing. */
static int mark(struct work *w, uint64_t ino)
{
	int r;

	if (!is_primary(w))
		return 0;
	r = keys_mark_orphan(w->k, ino);
	if (settle(w, r) > 0)
		step_state(w);
	return r;
}

static int reap(struct work *w, uint64_t ino)
{
	unsigned i;
	int r = 0;

	say(w, "reap %llu", (unsigned long long)ino);
	w->reaping = ino;
	w->expected = 0;
	r = mark(w, ino);
	if (r < 0)
		return r;
	/* In one go: a half reaped orphan is none that a program could still have open. */
	for (i = 0; i < PER_REAP; i++) {
		r = keys_reap(w->k, ino);
		if (r != 1)
			break;
		w->expected = 0;
	}
	if (settle(w, r) != 0)
		disagree(w, "reaping moved the sequence number");
	return r;
}

static int op_reap(struct work *w)
{
	uint64_t ino = 0;
	unsigned i, n = 0;

	for (i = 0; i < w->count; i++)
		if (w->nodes[i]->a.nlink == 0 && work_random(w, ++n) == 0)
			ino = w->nodes[i]->a.ino;
	return ino == 0 ? 0 : reap(w, ino);
}

/* Orphans that the store has no more leave the model: also if the call that removed them went wrong at its end. */
static void follow_reap(struct work *w)
{
	bool failed = store_failed(keys_store(w->k)) != 0;
	unsigned i;

	for (i = 0; i < w->count; i++) {
		uint64_t ino = w->nodes[i]->a.ino, found;

		/* A store that failed then may have the record or not, and so the next one to open it. */
		if (failed && w->reaping == ino) {
			node_remove(w, ino);
			push_state(w, w->states[work_now(w)].seq, false);
			return;
		}

		if (w->nodes[i]->a.nlink > 0 || (keys_next_orphan(w->k, ino, &found) == 0 && found == ino))
			continue;
		node_remove(w, ino);
		push_state(w, w->states[work_now(w)].seq, false);
		return;
	}
}

int work_reap(struct work *w, uint64_t ino)
{
	int r = reap(w, ino);

	follow_reap(w);
	return r;
}

int work_epoch(struct work *w, uint64_t epoch)
{
	int r;

	say(w, "epoch %llu", (unsigned long long)epoch);
	w->expected = 0;
	r = keys_begin_epoch(w->k, epoch);
	/* Nothing shows but the numbers of what is made from now on. */
	if (was_committed(w, r))
		step_state(w);
	return r;
}

void work_follow_epoch(struct work *w)
{
	step_state(w);
}

/* Rebase ------------------------------------------------------------------------------------------------------------ */

/* A file that has a block of its own at one place at least, and what becomes of it; NULL: none. */
static uint64_t pick_long_file(struct work *w)
{
	uint64_t ino = 0;
	unsigned i, n = 0;

	for (i = 0; i < w->count; i++) {
		const struct model_node *f = w->nodes[i];

		if (S_ISREG(f->a.mode) && f->a.nlink > 0 && !(f->a.flags & KEYS_ATTR_INLINE) && f->a.size >= BLOCK_SIZE &&
		    work_random(w, ++n) == 0)
			ino = f->a.ino;
	}
	return ino;
}

/* One of the file's blocks gets other contents, in a block of the store that nothing led to before. */
static int edit_contents(struct work *w, uint64_t ino)
{
	struct store *s = keys_store(w->k);
	struct model_node *n = node_edit(w, ino);
	uint64_t at = work_random(w, n->a.size >> BLOCK_SHIFT), block, got;
	uint8_t *data = keep(w, BLOCK_SIZE);
	struct window window;
	void *to;
	int r = store_stage(s, 1, &block, &got);

	if (r < 0)
		return r;
	to = store_blocks(s, block, 1, &r);
	check(to);
	work_bytes(w, data, BLOCK_SIZE);
	memcpy(to, data, BLOCK_SIZE);
	memset(&window, 0, sizeof window);
	memset(window.kind, WINDOW_KEEP, sizeof window.kind);
	window.kind[at % WINDOW_BLOCKS] = WINDOW_DATA;
	window.block[at % WINDOW_BLOCKS] = block;
	window.csum[at % WINDOW_BLOCKS] = block_csum(data, ino, at);
	block_set(w, n, at, data);
	return edit_window(w->k, ino, at - at % WINDOW_BLOCKS, &window);
}

static int edit_times(struct work *w, uint64_t ino)
{
	struct key key = item_key(ino, ITEM_INODE, 0);
	uint8_t item[INODE_SIZE + INLINE_MAX];
	struct model_node *n;
	struct keys_attr a;
	const uint8_t *v;
	uint32_t len;
	int r = tree_get(store_tree(keys_store(w->k)), key, &v, &len);

	if (r == 0)
		r = inode_decode(v, len, ino, &a);
	if (r < 0)
		return r;
	memcpy(item, v, len);
	a.mtime = a.ctime = now(w);
	inode_encode(item, &a);
	n = node_edit(w, ino);
	n->a.mtime = n->a.ctime = a.mtime;
	return edit_put(w->k, key, item, len);
}

bool work_rebase_ready(struct work *w)
{
	return store_rebase_ready(keys_store(w->k), 64) == 0;
}

void work_edit(struct work *w, seq_t seq)
{
	uint64_t ino = pick_long_file(w);
	int r = 0;

	w->ops++;
	say(w, "rebase to change %llu", (unsigned long long)seq);
	if (ino != 0)
		r = edit_contents(w, ino);
	if (r == 0)
		r = edit_times(w, ino != 0 ? ino : KEYS_ROOT_INO);
	if (r < 0)
		disagree(w, err_last());
	push_state(w, seq, false);
}

int work_rebase(struct work *w)
{
	struct store *s = keys_store(w->k);
	const struct store_base base = { w->states[work_now(w)].seq, store_epoch(s), store_hash_seed(s) };
	int r = store_rebase(s, &base);

	if (r == 0)
		w->line = work_now(w);
	return r;
}

static int (*const calls[])(struct work *w) = {
	op_make, op_symlink, op_link, op_unlink, op_rename, op_setattr, op_truncate, op_write, op_copy, op_fallocate,
	op_setxattr, op_removexattr, op_atime, op_reap, op_acl,
};

/* How often, by profile. */
static const unsigned char weights[WORK_PROFILES][ARRAY_LEN(calls)] = {
	[WORK_MIXED] = { 10, 2, 3, 6, 6, 6, 8, 30, 5, 10, 6, 3, 2, 5, 5 },
	[WORK_SMALL] = { 6, 1, 1, 2, 1, 2, 6, 60, 4, 6, 3, 1, 1, 2, 1 },
	[WORK_BIG]   = { 6, 1, 1, 4, 2, 1, 8, 60, 8, 6, 1, 1, 1, 5, 1 },
	[WORK_SPACE] = { 6, 1, 1, 3, 1, 1, 15, 40, 4, 40, 1, 1, 1, 4, 1 },
	[WORK_NAMES] = { 30, 6, 10, 15, 25, 6, 2, 8, 1, 1, 10, 6, 3, 12, 10 },
	[WORK_FULL]  = { 6, 1, 1, 3, 2, 1, 3, 60, 10, 20, 4, 1, 1, 4, 1 },
	[WORK_JOURNAL] = { 6, 1, 2, 4, 4, 2, 2, 30, 1, 2, 60, 1, 1, 4, 1 },
	[WORK_GROW]  = { 6, 1, 1, 2, 2, 1, 2, 50, 6, 6, 60, 1, 1, 3, 1 },
	[WORK_TAIL]  = { 8, 1, 1, 14, 2, 1, 6, 20, 2, 14, 3, 1, 1, 14, 1 },
	[WORK_PROGRAMS] = { 10, 2, 3, 6, 6, 6, 8, 30, 5, 10, 6, 3, 2, 5, 4 },
};

void work_begin(struct work *w)
{
	w->ops++;
	w->real_ns += 1 + work_random(w, 2000000000);
	w->mono_ns += 1 + work_random(w, 300000000);
	w->text[0] = '\0';
}

uint64_t work_lookup(const struct work *w, uint64_t dir, const char *name, uint32_t type)
{
	const struct model_node *d = node_get(w, dir);
	const struct model_name *e = d ? name_find(d, name) : NULL;

	return e && (type == 0 || e->type == type) ? e->ino : 0;
}

uint64_t work_size(const struct work *w, uint64_t ino)
{
	return node_get(w, ino)->a.size;
}

uint64_t work_orphan(const struct work *w)
{
	unsigned i;

	for (i = 0; i < w->count && w->nodes[i]->a.nlink > 0; i++)
		;
	return i < w->count ? w->nodes[i]->a.ino : 0;
}

int work_step(struct work *w)
{
	unsigned sum = 0, i, at;
	int r;

	work_begin(w);
	for (i = 0; i < ARRAY_LEN(calls); i++)
		sum += weights[w->profile][i];
	at = (unsigned)work_random(w, sum);
	for (i = 0; at >= weights[w->profile][i]; i++)
		at -= weights[w->profile][i];
	if (w->count >= w->max_nodes && (calls[i] == op_make || calls[i] == op_symlink))
		i = chance(w, 50) ? 3 : 13;
	r = calls[i](w);
	if (calls[i] == op_reap)
		follow_reap(w);
	return r;
}
