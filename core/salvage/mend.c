/* SPDX-License-Identifier: MIT
 *
 * mend: see salvage.h and mend.h. What was found is told with paths, the tree is changed so that it contradicts itself
 * nowhere, and then all of it is copied as load would do it.
 */
#include "core/salvage/mend.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int mend_doom(struct mend *m, struct key k)
{
	int r = array_grow((void **)&m->doomed, &m->doomed_room, m->doomed_count + 1, sizeof *m->doomed);

	if (r == 0)
		m->doomed[m->doomed_count++] = k;
	return r;
}

struct mend_inode *mend_find(const struct mend *m, uint64_t ino)
{
	size_t a = 0, b = m->inode_count;

	while (a < b) {
		size_t mid = a + (b - a) / 2;

		if (m->inodes[mid].ino == ino)
			return &m->inodes[mid];
		if (m->inodes[mid].ino < ino)
			a = mid + 1;
		else
			b = mid;
	}
	return NULL;
}

/* Telling --------------------------------------------------------------------------------------------------------- */

int mend_note(struct mend *m, uint64_t ino, bool lost, const char *format, ...)
{
	char text[1024];
	va_list ap;
	int r = array_grow((void **)&m->notes, &m->note_room, m->note_count + 1, sizeof *m->notes);

	if (r < 0)
		return r;
	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	m->notes[m->note_count] = (struct mend_note){ ino, lost, strdup(text) };
	if (!m->notes[m->note_count].text)
		return -ENOMEM;
	m->note_count++;
	return 0;
}

static bool entry_of(void *ctx, uint64_t ino, uint64_t *ret_dir, uint64_t *ret_lo)
{
	const struct mend_inode *r = mend_find(ctx, ino);

	/* Without an entry, a directory's own word: better than none. */
	*ret_dir = !r ? 0 : r->path_dir ? r->path_dir : mend_is_dir(r) ? r->aux : 0;
	*ret_lo = r ? r->path_lo : 0;
	return *ret_dir != 0;
}

const char *mend_place(struct mend *m, uint64_t ino)
{
	return place_text(&m->finder, ino, m->place[m->place_at++ % 2]);
}

/* What stood in pages of the tree that cannot be read. */
static void say_spans(struct mend *m)
{
	uint64_t first, last, next = m->v->no_super ? UINT64_MAX : store_counts(m->s)->next_ino;
	size_t i;

	for (i = 0; i < m->v->span_count; i++) {
		const struct salvage_span *s = &m->v->spans[i];
		const char *from, *to;

		if (s->block == 0)
			continue;
		salvage_inodes(s, next, &first, &last);
		from = mend_place(m, first);
		to = mend_place(m, last);
		if (s->found)
			salvage_say(m->v, SALVAGE_NOTE, PAGE_AT " led to items of inodes %llu to %llu, from %s to %s: all of "
				    "them were found without it", PAGE_AT_ARGS(s->block), (unsigned long long)first,
				    (unsigned long long)last, from, to);
		else if (last == 0)
			salvage_say(m->v, SALVAGE_NOTE, PAGE_AT " is lost: it had items of the store itself",
				    PAGE_AT_ARGS(s->block));
		else if (s->level > 0)
			salvage_say(m->v, SALVAGE_FOLLOWS, "what stood below " PAGE_AT " was searched for, and something is "
				    "missing: it had items of inodes %llu to %llu, from %s to %s", PAGE_AT_ARGS(s->block),
				    (unsigned long long)first, (unsigned long long)last, from, to);
		else
			salvage_say(m->v, SALVAGE_FOLLOWS, PAGE_AT " is lost: it had items of inodes %llu to %llu, from %s to "
				    "%s", PAGE_AT_ARGS(s->block), (unsigned long long)first, (unsigned long long)last, from, to);
	}
}

static void say_notes(struct mend *m)
{
	size_t i;

	for (i = 0; i < m->note_count; i++)
		salvage_say(m->v, m->notes[i].lost ? SALVAGE_FOLLOWS : SALVAGE_DAMAGE, "inode %s: %s",
			    mend_place(m, m->notes[i].ino), m->notes[i].text);
}

static bool names_lost(const struct mend *m, uint64_t dir)
{
	const struct key low = item_key(dir, ITEM_DIRENT, 0);

	return salvage_overlaps(m->v, low, (struct key){ low.hi + 1, 0 });
}

static void say_aside(struct mend *m, const struct mend_inode *r)
{
	const char *place = mend_place(m, r->ino);

	if (r->broken)
		salvage_say(m->v, SALVAGE_FOLLOWS, "inode %s is put aside: its contents are not whole", place);
	else if (mend_is_dir(r) && r->has_inode && r->aux)
		salvage_say(m->v, SALVAGE_FOLLOWS, "inode %s is put aside: it has no name any more; it was in directory %s",
			    place, mend_place(m, r->aux));
	else
		salvage_say(m->v, SALVAGE_FOLLOWS, "inode %s is put aside: it has no name any more", place);
}

/* What the counts say beyond what was seen. */
static void say_counts(struct mend *m)
{
	uint64_t should = store_counts(m->s)->inodes;
	size_t i;

	for (i = 0; i < m->inode_count; i++) {
		const struct mend_inode *r = &m->inodes[i];

		if (r->removed || r->drop)
			continue;
		if (!r->has_inode)
			salvage_say(m->v, SALVAGE_FOLLOWS, "inode %s: its attributes are lost; it gets new ones%s",
				    mend_place(m, r->ino), mend_is_dir(r) && names_lost(m, r->ino) ?
				    "; it is a directory, and some of its names may be lost" : "");
		else if (S_ISDIR(r->mode) && r->entries < r->size)
			salvage_say(m->v, SALVAGE_FOLLOWS, "directory %s: %llu of its %llu entries are lost", mend_place(m, r->ino),
				    (unsigned long long)(r->size - r->entries), (unsigned long long)r->size);
		else if (!S_ISDIR(r->mode) && r->names > 0 && r->names < r->nlink)
			salvage_say(m->v, SALVAGE_FOLLOWS, "inode %s: %u of its %u names are lost", mend_place(m, r->ino),
				    r->nlink - r->names, r->nlink);
		if (r->aside)
			say_aside(m, r);
	}
	if (!m->v->no_super && should > m->found)
		salvage_say(m->v, SALVAGE_FOLLOWS, "%llu of %llu inodes are lost", (unsigned long long)(should - m->found),
			    (unsigned long long)should);
}

/* Changing the tree ----------------------------------------------------------------------------------------------- */

static int put(struct mend *m, struct key k, const void *value, uint32_t len)
{
	int r = salvage_room(m->s);

	return r < 0 ? r : tree_put(m->t, k, value, len);
}

static int delete(struct mend *m, struct key k)
{
	int r = salvage_room(m->s);

	if (r == 0)
		r = tree_del(m->t, k);
	return r == -ENOENT ? 0 : r;    /* doomed twice */
}

static int delete_all(struct mend *m, uint64_t ino)
{
	for (;;) {
		struct tree_cursor at;
		int r = tree_seek(m->t, item_key(ino, 0, 0), &at);

		if (r == -ENOENT || (r == 0 && cursor_key(&at).hi >> 8 != ino))
			return 0;
		if (r == 0)
			r = delete(m, cursor_key(&at));
		if (r < 0)
			return r;
	}
}

static int delete_doomed(struct mend *m)
{
	size_t i;
	int r = 0;

	for (i = 0; i < m->doomed_count && r == 0; i++)
		r = delete(m, m->doomed[i]);
	for (i = 0; i < m->inode_count && r == 0; i++) {
		if (m->inodes[i].drop)
			r = delete_all(m, m->inodes[i].ino);
		else if (m->inodes[i].unlisted)
			r = put(m, (struct key){ KIND_ORPHAN, m->inodes[i].ino }, "", 0);
	}
	return r;
}

static int fix_types(struct mend *m)
{
	size_t i;
	int r = 0;

	for (i = 0; i < m->retype_count && r == 0; i++) {
		const struct mend_inode *rec;
		struct dirent d;
		uint32_t len;
		uint8_t *v;

		r = salvage_room(m->s);
		if (r == 0)
			r = tree_patch(m->t, m->retype[i], &v, &len);
		if (r == 0)
			r = dirent_decode(v, len, m->retype[i], &d);
		rec = r == 0 ? mend_find(m, d.ino) : NULL;
		if (rec)
			v[8] = (uint8_t)((mend_is_dir(rec) ? S_IFDIR : rec->mode & S_IFMT) >> 12);
	}
	return r;
}

/* The inode as it is to be. */
static void wanted(const struct mend *m, const struct mend_inode *rec, struct keys_attr *a)
{
	bool dir = mend_is_dir(rec);

	if (!rec->has_inode) {
		*a = (struct keys_attr){ .ino = rec->ino, .mode = dir ? S_IFDIR | 0700 : S_IFREG | 0600,
					 .uid = (uint32_t)geteuid(), .gid = (uint32_t)getegid() };
		a->size = dir ? 0 : min_u64(rec->end << BLOCK_SHIFT, KEYS_SIZE_MAX);
		a->blocks = rec->mapped;
		a->atime = a->mtime = a->ctime = a->btime = keys_now(m->k);
	}
	if (dir) {
		a->nlink = (uint32_t)rec->subdirs + 2;
		a->size = rec->entries;
		a->aux = rec->ino == KEYS_ROOT_INO ? KEYS_ROOT_INO : rec->aside ? m->folder : rec->aux;
	} else {
		a->nlink = rec->aside ? 1 : rec->names;
	}
	if (rec->flags & KEYS_ATTR_ACL && !rec->has_acl)
		a->mode &= ~(uint32_t)S_IRWXG;
}

static int fix_inode(struct mend *m, const struct mend_inode *rec)
{
	uint8_t item[INODE_SIZE], *v;
	struct keys_attr a = { 0 };
	struct key k = item_key(rec->ino, ITEM_INODE, 0);
	const uint8_t *old;
	uint32_t len;
	int r;

	if (rec->removed || rec->drop)
		return 0;
	if (!rec->has_inode) {
		wanted(m, rec, &a);
		inode_encode(item, &a);
		return put(m, k, item, sizeof item);
	}
	r = tree_get(m->t, k, &old, &len);
	if (r == 0)
		r = inode_decode(old, len, rec->ino, &a);
	if (r < 0)
		return r;
	wanted(m, rec, &a);
	inode_encode(item, &a);
	if (memcmp(item, old, INODE_SIZE) == 0)
		return 0;
	r = salvage_room(m->s);
	if (r == 0)
		r = tree_patch(m->t, k, &v, &len);
	if (r == 0)
		memcpy(v, item, INODE_SIZE);
	return r;
}

static int punch(struct mend *m)
{
	size_t i;
	int r = 0;

	for (i = 0; i < m->bad_count && r == 0; i++) {
		const struct mend_bad *b = &m->bad[i];
		const struct mend_inode *rec = mend_find(m, b->ino);

		if (rec->removed || rec->drop)
			continue;
		r = salvage_room(m->s);
		if (r == 0)
			r = contents_apply_punch(m->k, b->ino, b->fblock << BLOCK_SHIFT,
						 min_u64((b->fblock + b->count) << BLOCK_SHIFT, KEYS_SIZE_MAX));
	}
	return r;
}

/* lost+found ------------------------------------------------------------------------------------------------------ */

#define FOLDER "lost+found"

/* The number behind a name of lost+found, as we write it; 1: none. 0: it is another name. */
static uint64_t folder_number(const struct dirent *d)
{
	const size_t n = strlen(FOLDER);
	uint64_t number = 0;
	size_t i;

	if (d->len < n || memcmp(d->name, FOLDER, n) != 0)
		return 0;
	if (d->len == n)
		return 1;
	if (d->len < n + 2 || d->len > n + 18 || d->name[n] != '.' || d->name[n + 1] == '0')
		return 0;
	for (i = n + 1; i < d->len; i++) {
		if (d->name[i] < '0' || d->name[i] > '9')
			return 0;
		number = number * 10 + (unsigned)(d->name[i] - '0');
	}
	return number > 1 ? number : 0;
}

/* The first name of these that the root does not have. It has no more than its entries: one look at all of them. */
static int choose_folder(struct mend *m)
{
	const struct key first = item_key(KEYS_ROOT_INO, ITEM_DIRENT, 0);
	uint64_t most = m->inodes[0].entries + 2, n = 1, *have = calloc(most / 64 + 1, 8);
	struct tree_cursor at;
	int r;

	if (!have)
		return -ENOMEM;
	r = tree_seek(m->t, first, &at);
	for (; r == 0 && cursor_key(&at).hi == first.hi; r = cursor_next(&at)) {
		struct dirent d;
		uint32_t len;
		const uint8_t *v = cursor_value(&at, &len);
		uint64_t number = dirent_decode(v, len, cursor_key(&at), &d) == 0 ? folder_number(&d) : 0;

		if (number < most)
			bit_set(have, number);
	}
	while (n < most && bit_get(have, n))
		n++;
	free(have);
	if (n == 1)
		(void)snprintf(m->rep->folder, sizeof m->rep->folder, FOLDER);
	else
		(void)snprintf(m->rep->folder, sizeof m->rep->folder, FOLDER ".%llu", (unsigned long long)n);
	return r == -ENOENT ? 0 : r;
}

static int put_entry(struct mend *m, uint64_t dir, const char *name, uint64_t ino, uint32_t type)
{
	size_t len = strlen(name);
	uint8_t item[DIRENT_HEADER + KEYS_NAME_MAX];
	struct key k;
	int r = dirent_new_key(m->k, dir, name, len, &k);

	if (r < 0)
		return r;
	dirent_encode(item, ino, type, name, len);
	return put(m, k, item, (uint32_t)(DIRENT_HEADER + len));
}

/* The root and what is put aside need an inode each, which may not be in the table. */
static int add_inode(struct mend *m, uint64_t ino)
{
	size_t i = m->inode_count;
	int r = array_grow((void **)&m->inodes, &m->inode_room, m->inode_count + 1, sizeof *m->inodes);

	if (r < 0)
		return r;
	if (ino == KEYS_ROOT_INO) {
		memmove(m->inodes + 1, m->inodes, i * sizeof *m->inodes);
		i = 0;
	}
	m->inode_count++;
	m->inodes[i] = (struct mend_inode){ .ino = ino, .has_entries = true };
	return 0;
}

static int make_folder(struct mend *m)
{
	struct mend_inode *root = &m->inodes[0], *folder;
	size_t i;
	int r;

	for (i = 0; i < m->inode_count; i++)
		m->rep->aside += m->inodes[i].aside;
	if (m->rep->aside == 0)
		return 0;
	r = choose_folder(m);
	if (r < 0)
		return r;
	m->folder = store_counts(m->s)->next_ino++;
	r = put_entry(m, KEYS_ROOT_INO, m->rep->folder, m->folder, S_IFDIR);
	root->entries++;
	root->subdirs++;
	for (i = 0; i < m->inode_count && r == 0; i++) {
		const struct mend_inode *rec = &m->inodes[i];
		char name[32];

		if (!rec->aside)
			continue;
		(void)snprintf(name, sizeof name, "#%llu", (unsigned long long)rec->ino);
		r = put_entry(m, m->folder, name, rec->ino,
			      mend_is_dir(rec) ? S_IFDIR : rec->has_inode ? rec->mode & S_IFMT : S_IFREG);
	}
	if (r == 0)
		r = add_inode(m, m->folder);
	if (r < 0)
		return r;
	folder = &m->inodes[m->inode_count - 1];
	folder->aux = KEYS_ROOT_INO;
	folder->entries = m->rep->aside;
	for (i = 0; i + 1 < m->inode_count; i++)
		folder->subdirs += m->inodes[i].aside && mend_is_dir(&m->inodes[i]);
	return 0;
}

/* The order of things --------------------------------------------------------------------------------------------- */

static int change_all(struct mend *m)
{
	struct store_counts *counts = store_counts(m->s);
	size_t i;
	int r = 0;

	if (m->inode_count > 0)
		counts->next_ino = max_u64(counts->next_ino, m->inodes[m->inode_count - 1].ino + 1);
	r = delete_doomed(m);
	if (r == 0)
		r = fix_types(m);
	if (r == 0)
		r = make_folder(m);
	for (i = 0; i < m->inode_count && r == 0; i++)
		r = fix_inode(m, &m->inodes[i]);
	return r == 0 ? punch(m) : r;
}

static int mend(struct mend *m)
{
	int r = mend_items(m);

	if (r == 0 && (m->inode_count == 0 || m->inodes[0].ino != KEYS_ROOT_INO))
		r = add_inode(m, KEYS_ROOT_INO);
	if (r < 0)
		return r;
	m->inodes[0].aux = KEYS_ROOT_INO;
	m->inodes[0].removed = m->inodes[0].drop = false;
	r = mend_names(m);
	if (r < 0)
		return r;
	say_spans(m);
	say_notes(m);
	say_counts(m);
	return change_all(m);
}

static void mend_release(struct mend *m)
{
	size_t i;

	for (i = 0; i < m->note_count; i++)
		free(m->notes[i].text);
	free(m->notes);
	free(m->inodes);
	free(m->doomed);
	free(m->bad);
	free(m->odd);
	free(m->retype);
	free(m->used);
	free(m);
}

struct teller {
	const struct salvage_options *o;
	struct salvage_report *rep;
};

static void say(void *ctx, enum salvage_finding kind, const char *text)
{
	struct teller *t = ctx;
	bool lost = kind == SALVAGE_LOSS || kind == SALVAGE_FOLLOWS;

	t->rep->damage++;
	t->rep->lost += lost;
	if (t->o->say)
		t->o->say(t->o->ctx, lost, text);
}

static int tell_progress(void *ctx, uint64_t done, uint64_t total)
{
	struct teller *t = ctx;

	return t->o->progress ? t->o->progress(t->o->ctx, done, total) : 0;
}

static void tell_mapped(void *ctx, void *base, uint64_t bytes)
{
	struct teller *t = ctx;

	if (t->o->mapped)
		t->o->mapped(t->o->ctx, base, bytes);
}

int salvage_store(const char *path, const struct stream_target *target, const struct salvage_options *options,
		  struct salvage_report *ret_report)
{
	struct teller teller = { options, ret_report };
	struct store_salvage v = { .say = say, .progress = tell_progress, .mapped = tell_mapped, .ctx = &teller };
	struct store_options so = { .path = path, .read_only = true, .salvage = &v };
	struct mend *m = calloc(1, sizeof *m);
	struct keys *k = NULL;
	int r = -ENOMEM;

	err_clear();
	memset(ret_report, 0, sizeof *ret_report);
	if (!m)
		return r;
	r = stream_target_check(target);
	if (r == 0)
		r = keys_open(&so, &k);
	if (r < 0)
		goto out;
	m->k = k;
	m->s = keys_store(k);
	m->t = store_tree(m->s);
	m->v = &v;
	m->o = options;
	m->rep = ret_report;
	m->finder = (struct place_finder){ m->t, entry_of, m };
	m->used = calloc(map_blocks(&m->s->map) / 64 + 1, 8);
	m->used_blocks = max_u64(v.used_blocks, 1);
	r = m->used ? mend(m) : -ENOMEM;
	/* Whoever ends things in order is to know before there is a new file. */
	if (r == 0 && options->watch)
		r = options->watch->fn(options->watch->ctx, &ret_report->saved);
	if (r == 0)
		r = stream_copy(k, target, options->watch, &ret_report->saved);
	(void)keys_close(k);
out:
	salvage_release(&v);
	mend_release(m);
	return r;
}
