/* SPDX-License-Identifier: MIT
 *
 * crash_nodes: the model of crash_util.h: nodes, what they hold, and the states that they are in. Knows no store, but for the first
 * state. Nothing here is locked or durable.
 */
#include "tests/unit/crash_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

const uint8_t model_zeros[BLOCK_SIZE];
const char model_acl_access[] = "system.posix_acl_access", model_acl_default[] = "system.posix_acl_default",
	   model_capability[] = "security.capability";

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

bool work_chance(struct work *w, unsigned percent)
{
	return work_random(w, 100) < percent;
}

void work_say(struct work *w, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(w->text, sizeof w->text, format, ap);
	va_end(ap);
}

_Noreturn void work_disagree(const struct work *w, const char *what)
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
void *work_keep(struct work *w, size_t size)
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

uint64_t hash_attr(const struct keys_attr *a)
{
	const uint64_t v[] = {
		a->ino, a->mode, a->nlink, a->uid, a->gid, a->size, a->aux, a->blocks, a->flags, (uint64_t)a->atime.sec,
		a->atime.nsec, (uint64_t)a->mtime.sec, a->mtime.nsec, (uint64_t)a->ctime.sec, a->ctime.nsec,
		(uint64_t)a->btime.sec, a->btime.nsec,
	};

	return hash64(v, sizeof v, 1);
}

uint64_t hash_orphan(uint64_t ino)
{
	return hash64(&ino, sizeof ino, 2);
}

uint64_t hash_range(uint64_t from, uint64_t to)
{
	const uint64_t v[2] = { from, to };

	return hash64(v, sizeof v, 3);
}

/* Bytes of one block of the file. */
uint64_t hash_piece(const void *p, size_t len, uint64_t off)
{
	return hash64(p, len, 4) ^ off * 0x9e3779b97f4a7c15ull;
}

uint64_t hash_name(const char *name, size_t len, uint64_t ino, uint32_t type)
{
	return hash64(name, len, ino << 4 | type >> 12);
}

uint64_t hash_xattr(const char *name, const void *value, size_t len)
{
	return hash64(value, len, hash64(name, strlen(name), 5));
}

uint64_t hash_join(uint64_t ino, uint64_t hash)
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

const struct model_node *node_get(const struct work *w, uint64_t ino)
{
	int i = node_index(w, ino);

	return i < 0 ? NULL : w->nodes[i];
}

/* The node for changing: a copy if a state has it. */
struct model_node *node_edit(struct work *w, uint64_t ino)
{
	int i = node_index(w, ino);
	struct model_node *n;

	check(i >= 0);
	n = (struct model_node *)(uintptr_t)w->nodes[i];
	if (n->stamp != w->version) {
		const struct model_node *old = n;

		n = work_keep(w, sizeof *n);
		*n = *old;
		n->stamp = w->version;
		n->block_room = old->block_count + 8;
		n->blocks = work_keep(w, n->block_room * sizeof *n->blocks);
		if (old->block_count > 0)
			memcpy(n->blocks, old->blocks, old->block_count * sizeof *n->blocks);
		n->name_room = old->name_count + 2;
		n->names = work_keep(w, n->name_room * sizeof *n->names);
		if (old->name_count > 0)
			memcpy(n->names, old->names, old->name_count * sizeof *n->names);
		w->nodes[i] = n;
	}
	n->hash = 0;
	return n;
}

struct model_node *node_add(struct work *w, const struct keys_attr *a)
{
	struct model_node *n = work_keep(w, sizeof *n);

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

void node_remove(struct work *w, uint64_t ino)
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

const struct model_block *block_get(const struct model_node *n, uint64_t at)
{
	unsigned i = block_lower(n, at);

	return i < n->block_count && n->blocks[i].at == at ? &n->blocks[i] : NULL;
}

void block_set(struct work *w, struct model_node *n, uint64_t at, const uint8_t *data)
{
	unsigned i = block_lower(n, at);

	if (i == n->block_count || n->blocks[i].at != at) {
		if (n->block_count == n->block_room) {
			struct model_block *p;

			n->block_room = n->block_room * 2 + 16;
			p = work_keep(w, n->block_room * sizeof *p);
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

void block_read(const struct model_node *n, uint64_t at, uint8_t *out)
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
	uint8_t *p = work_keep(w, BLOCK_SIZE);

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

void node_write(struct work *w, struct model_node *n, uint64_t off, const uint8_t *data, size_t len)
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

void node_punch(struct work *w, struct model_node *n, uint64_t from, uint64_t to)
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

struct model_name *name_find(const struct model_node *n, const char *name)
{
	unsigned i;

	for (i = 0; i < n->name_count; i++)
		if (strcmp(n->names[i].name, name) == 0)
			return &n->names[i];
	return NULL;
}

void name_set(struct work *w, struct model_node *n, const char *name, uint64_t ino, uint32_t mode)
{
	struct model_name *m = name_find(n, name);

	if (!m) {
		if (n->name_count == n->name_room) {
			struct model_name *p;

			n->name_room = n->name_room * 2 + 8;
			p = work_keep(w, n->name_room * sizeof *p);
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

void name_remove(struct model_node *n, const char *name)
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

const struct model_xattr *xattr_get(const struct model_node *n, const char *name)
{
	unsigned i = xattr_index(n, name);

	return i < n->xattr_count ? &n->xattr[i] : NULL;
}

void xattr_set(struct work *w, struct model_node *n, const char *name, const void *value, size_t size)
{
	unsigned i = xattr_index(n, name);
	uint8_t *copy = work_keep(w, size + 1);

	check(i < XATTR_ROOM);
	if (size > 0)
		memcpy(copy, value, size);
	(void)snprintf(n->xattr[i].name, sizeof n->xattr[i].name, "%s", name);
	n->xattr[i].value = copy;
	n->xattr[i].len = (uint32_t)size;
	n->xattr_count += i == n->xattr_count;
	n->a.flags |= KEYS_ATTR_XATTR;
	if (strcmp(name, model_acl_access) == 0)
		n->a.flags |= KEYS_ATTR_ACL;
	if (strcmp(name, model_acl_default) == 0)
		n->a.flags |= KEYS_ATTR_DEFAULT_ACL;
}

void xattr_drop(struct model_node *n, const char *name)
{
	unsigned i = xattr_index(n, name);

	if (i < n->xattr_count)
		n->xattr[i] = n->xattr[--n->xattr_count];
	if (strcmp(name, model_acl_access) == 0)
		n->a.flags &= ~KEYS_ATTR_ACL;
	if (strcmp(name, model_acl_default) == 0)
		n->a.flags &= ~KEYS_ATTR_DEFAULT_ACL;
}

/* What a write by somebody who is not root does to a program's privileges. */
void model_kill_privileges(struct model_node *n, bool sgid)
{
	n->a.mode &= ~(uint32_t)S_ISUID;
	if (sgid || n->a.mode & S_IXGRP)
		n->a.mode &= ~(uint32_t)S_ISGID;
	xattr_drop(n, model_capability);
}

/* ACLs (acl(5)): where the permissions of a class stand, in an attribute's bytes. ------------------------------------ */

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

uint32_t acl_to_mode(uint8_t *acl, size_t size)
{
	return (uint32_t)(get_le16(acl_class(acl, size, CLASS_USER)) << 6 | get_le16(acl_group_bits(acl, size)) << 3 |
			  get_le16(acl_class(acl, size, CLASS_OTHER)));
}

/* Three entries say what a mode can say. */
bool acl_is_plain(size_t size)
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

void model_chmod(struct work *w, struct model_node *n, uint32_t mode)
{
	const struct model_xattr *x = xattr_get(n, model_acl_access);
	uint8_t acl[ACL_ROOM];

	n->a.mode = (n->a.mode & S_IFMT) | mode;
	if (!x)
		return;
	memcpy(acl, x->value, x->len);
	acl_from_mode(acl, x->len, mode, false);
	xattr_set(w, n, model_acl_access, acl, x->len);
}

/* A new inode's permissions: by its directory's default ACL, or less the umask. */
void model_inherit(struct work *w, const struct model_node *dir, struct model_node *n, uint32_t umask)
{
	const struct model_xattr *x = xattr_get(dir, model_acl_default);
	uint8_t acl[ACL_ROOM];

	if (!x) {
		n->a.mode &= ~umask;
		return;
	}
	memcpy(acl, x->value, x->len);
	if (S_ISDIR(n->a.mode))
		xattr_set(w, n, model_acl_default, acl, x->len);
	acl_from_mode(acl, x->len, n->a.mode, true);
	n->a.mode = (n->a.mode & ~0777u) | acl_to_mode(acl, x->len);
	if (!acl_is_plain(x->len))
		xattr_set(w, n, model_acl_access, acl, x->len);
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
void model_push(struct work *w, seq_t seq, bool vague)
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
	s->nodes = work_keep(w, w->count * sizeof *s->nodes);
	memcpy(s->nodes, w->nodes, w->count * sizeof *s->nodes);
	for (i = 0; i < w->count; i++) {
		struct model_node *n = (struct model_node *)(uintptr_t)w->nodes[i];

		if (n->hash == 0)
			n->hash = node_hash(n);
		s->hash += hash_join(n->a.ino, n->hash);
	}
}

struct keys_time model_now(const struct work *w)
{
	return (struct keys_time){ (int64_t)(w->real_ns / 1000000000u), (uint32_t)(w->real_ns % 1000000000u) };
}

void model_touch(const struct work *w, struct model_node *n, bool mtime)
{
	n->a.ctime = model_now(w);
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
	model_push(w, store_seq(keys_store(k)), false);
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
