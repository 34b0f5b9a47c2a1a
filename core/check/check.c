/* SPDX-License-Identifier: MIT
 *
 * check: see check.h. The order of things, superblocks, counters, and how findings are told.
 */
#include "core/check/check_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PATH_DEPTH   64u
#define PATH_BUDGET  1000000u
#define SUPER_TRIES  200u       /* a millisecond each */

void check_problem(struct check *c, const char *format, ...)
{
	char text[2048];
	va_list ap;

	c->rep->problems++;
	if (!c->o->problem)
		return;
	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	c->o->problem(c->o->ctx, text);
}

void check_problem_last(struct check *c)
{
	check_problem(c, "%s", err_last());
}

int check_progress(struct check *c, uint64_t blocks)
{
	const uint64_t step = 2048;
	uint64_t before = c->done / step;

	c->done += blocks;
	if (!c->o->progress || c->done / step == before)
		return 0;
	return c->o->progress(c->o->ctx, min_u64(c->done, c->total), c->total) ? -ECANCELED : 0;
}

int check_grow(void **array, size_t *room, size_t count, size_t item)
{
	size_t n = *room ? *room + *room / 2 : 256;
	void *p;

	if (count <= *room)
		return 0;
	p = realloc(*array, n * item);
	if (!p)
		return -ENOMEM;
	*array = p;
	*room = n;
	return 0;
}

/* Paths ------------------------------------------------------------------------------------------------------------ */

/* Put the name that `dir` has for the inode before *at. */
static bool prepend_name(struct check *c, uint64_t dir, uint64_t ino, char *buf, size_t *at)
{
	const struct key first = item_key(dir, ITEM_DIRENT, 0);
	struct tree_cursor cur;
	int r = tree_seek(c->t, first, &cur);

	for (; r == 0 && cursor_key(&cur).hi == first.hi && c->path_budget > 0; r = cursor_next(&cur)) {
		struct dirent d;
		uint32_t len;
		const uint8_t *v = cursor_value(&cur, &len);

		c->path_budget--;
		if (dirent_decode(v, len, cursor_key(&cur), &d) < 0 || d.ino != ino)
			continue;
		if (d.len + 1 > *at)
			return false;
		*at -= d.len;
		memcpy(buf + *at, d.name, d.len);
		buf[--*at] = '/';
		return true;
	}
	return false;
}

/* The path of an inode at the end of buf, from the table of parents; NULL if it is not known or too long. */
static const char *find_path(struct check *c, uint64_t ino, char *buf, size_t size)
{
	size_t at = size - 1;
	unsigned depth;

	buf[at] = '\0';
	if (ino == KEYS_ROOT_INO)
		return "/";
	for (depth = 0; depth < PATH_DEPTH && ino != KEYS_ROOT_INO; depth++) {
		const struct check_inode *rec = check_find(c, ino);

		if (!rec || rec->parent == 0 || !prepend_name(c, rec->parent, ino, buf, &at))
			return NULL;
		ino = rec->parent;
	}
	return ino == KEYS_ROOT_INO ? buf + at : NULL;
}

const char *check_place(struct check *c, uint64_t ino)
{
	char buf[512], *place = c->place[c->place_at++ % 2];
	const char *path = c->o->problem ? find_path(c, ino, buf, sizeof buf) : NULL;

	(void)snprintf(place, sizeof c->place[0], "%llu%s%s%s", (unsigned long long)ino, path ? " (" : "",
		       path ? path : "", path ? ")" : "");
	return place;
}

/* Superblocks and counters ----------------------------------------------------------------------------------------- */

/* The superblock of one slot. A daemon may be writing it right now: then again in a moment. */
static int read_slot(struct check *c, block_t slot, struct super *ret)
{
	const struct timespec nap = { 0, 1000000 };
	uint8_t page[BLOCK_SIZE];
	unsigned tries;
	int r = 0;

	for (tries = 0; tries < (c->o->snapshot ? SUPER_TRIES : 1); tries++) {
		if (tries > 0)
			(void)nanosleep(&nap, NULL);
		memcpy(page, map_block(&c->s->map, slot), sizeof page);
		r = super_decode(page, slot, ret);
		if (r == 0 || r == -EROFS)
			return 0;
	}
	return r;
}

/* Each superblock stands in two places. What is wrong with one of the four does no harm as long as another one is whole;
 * the next two checkpoints write all of them anew. */
static void check_supers(struct check *c)
{
	struct super sb, *force = &c->super;
	block_t block;
	unsigned i;

	/* An opened store that is not a snapshot has counted up its own copy. */
	if (c->o->snapshot || super_pick_at(c->s->map.base, map_blocks(&c->s->map), force, &block) < 0)
		*force = c->s->super;
	for (i = 0; i < SUPER_PLACES; i++) {
		const char *copy = i < SUPERS ? "" : "copy of ";
		unsigned long long byte = (unsigned long long)super_place(i) * BLOCK_SIZE;
		uint64_t behind;

		if (read_slot(c, super_place(i), &sb) < 0) {
			check_problem(c, "%ssuperblock %u (byte %llu) is damaged, or a crash interrupted its writing; %s",
				      copy, i % SUPERS, byte, "the next mount writes it anew");
			continue;
		}
		/* A crash may have come between a superblock and its copy. */
		behind = force->flip - sb.flip;
		if (memcmp(sb.uuid, force->uuid, sizeof force->uuid) != 0 ||
		    (!c->o->snapshot && (behind > 3 || (behind & 1) != ((force->flip ^ i) & 1))))
			check_problem(c, "%ssuperblock %u (byte %llu) does not go with the other ones", copy, i % SUPERS, byte);
	}
}

static void check_counts(struct check *c)
{
	const struct store_counts *counts = store_counts(c->s);

	if (!c->rep->incomplete && counts->inodes != c->rep->inodes)
		check_problem(c, "the superblock counts %llu inodes, there are %llu",
			      (unsigned long long)counts->inodes, (unsigned long long)c->rep->inodes);
}

/* The check -------------------------------------------------------------------------------------------------------- */

static int run(struct check *c)
{
	int r = check_space_load(c);

	if (r == 0)
		r = check_tree(c);
	if (r == 0)
		r = check_names(c);
	if (r == 0)
		r = check_contents(c);
	if (r < 0)
		return r;
	check_counts(c);
	check_space_compare(c);
	if (c->o->progress && c->o->progress(c->o->ctx, c->total, c->total))
		return -ECANCELED;
	return 0;
}

int check_run(struct keys *k, const struct check_options *options, struct check_report *ret_report)
{
	struct store *s = keys_store(k);
	struct check c = { .k = k, .s = s, .t = store_tree(s), .sp = store_space(s), .o = options, .rep = ret_report,
			   .blocks = store_space(s)->total, .path_budget = PATH_BUDGET };
	size_t words = (size_t)(c.blocks / 64 + 1);
	int r = -ENOMEM;

	memset(ret_report, 0, sizeof *ret_report);
	ret_report->seq = store_seq(s);
	c.total = c.sp->used;
	c.used = calloc(words, 8);
	c.pages = calloc(words, 8);
	c.bits = calloc(words, 8);
	c.group_bad = calloc(c.sp->group_count + 1, 1);
	if (c.used && c.pages && c.bits && c.group_bad) {
		check_supers(&c);
		/* With a store that is written to, generations since the checkpoint are in memory and in order. */
		c.gen_max = store_read_only(s) ? c.super.gen : c.sp->gen;
		r = run(&c);
	}
	free(c.used);
	free(c.pages);
	free(c.seen);
	free(c.bits);
	free(c.group_bad);
	free(c.inodes);
	free(c.orphans);
	return r;
}
