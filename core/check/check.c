/* SPDX-License-Identifier: MIT
 *
 * check: see check.h. The order of things, superblocks, counters, and how findings are told.
 */
#include "core/check/check_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SUPER_TRIES  200u       /* a millisecond each */
#define TEXT_SIZE    2048u

/* Telling ---------------------------------------------------------------------------------------------------------- */

static void tell(struct check *c, bool follows, const char *text)
{
	void (*fn)(void *ctx, const char *text) = follows ? c->o->follows : c->o->problem;

	if (follows)
		c->rep->follows++;
	else
		c->rep->problems++;
	if (fn)
		fn(c->o->ctx, text);
}

void check_damage(struct check *c, const char *format, ...)
{
	char text[TEXT_SIZE];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	tell(c, false, text);
}

void check_damage_last(struct check *c)
{
	tell(c, false, err_last());
}

void check_problem(struct check *c, const char *format, ...)
{
	char text[TEXT_SIZE];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	tell(c, c->doubt, text);
}

void check_follows(struct check *c, const char *format, ...)
{
	char text[TEXT_SIZE];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	tell(c, true, text);
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

const char *check_place(struct check *c, uint64_t ino)
{
	char *place = c->place[c->place_at++ % 2];
	const struct check_inode *rec = check_find(c, ino);
	size_t n;

	(void)place_text(&c->finder, ino, place);
	n = strlen(place);
	if (rec && (rec_orphan(rec) || (rec->nlink == 0 && rec->names == 0 && rec_type(rec) != 0)))
		(void)snprintf(place, sizeof c->place[0], "%llu (unlinked)", (unsigned long long)ino);
	else if (rec && rec_type(rec) != S_IFDIR && rec->names > 1 && n > 0 && place[n - 1] == ')' && !c->ghost)
		(void)snprintf(place + n - 1, sizeof c->place[0] - n, ", one of %u names)", rec->names);
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
			check_damage(c, "%ssuperblock %u (block %llu, byte %llu) is damaged, or a crash interrupted its writing; "
				     "the next mount writes it anew", copy, i % SUPERS, byte / BLOCK_SIZE, byte);
			continue;
		}
		/* A crash may have come between a superblock and its copy. */
		behind = force->flip - sb.flip;
		if (memcmp(sb.uuid, force->uuid, sizeof force->uuid) != 0 ||
		    (!c->o->snapshot && (behind > 3 || (behind & 1) != ((force->flip ^ i) & 1))))
			check_damage(c, "%ssuperblock %u (block %llu, byte %llu) does not go with the other ones", copy,
				     i % SUPERS, byte / BLOCK_SIZE, byte);
	}
}

/* With parts of the tree lost, so are the inodes that are not there. Without a superblock nobody knows. */
static void check_counts(struct check *c)
{
	unsigned long long said = store_counts(c->s)->inodes, found = c->rep->inodes;

	if (said == found || (c->v && c->v->no_super))
		return;
	if (c->lost_count > 0 && said > found)
		check_follows(c, "%llu of %llu inodes are lost", said - found, said);
	else
		check_problem(c, "the superblock counts %llu inodes, there are %llu", said, found);
}

/* The check -------------------------------------------------------------------------------------------------------- */

static int walks(struct check *c)
{
	int r = check_tree(c);

	if (r == 0)
		r = check_names(c);
	if (r < 0)
		return r;
	check_tell_lost(c);
	r = check_contents(c);
	if (r == 0)
		check_counts(c);
	return r;
}

/* What the tree was put together from was told by whoever did it, and so were the bitmaps: it needed them for that. */
static int run_rest(struct check *c)
{
	if (!c->v->no_super)
		check_supers(c);
	check_space_fixed(c);
	c->rep->incomplete = true;
	c->doubt = c->v->gap || c->v->no_super;
	return walks(c);
}

static int run_whole(struct check *c)
{
	int r;

	check_supers(c);
	/* With a store that is written to, generations since the checkpoint are in memory and in order. */
	c->gen_max = store_read_only(c->s) ? c->super.gen : c->sp->gen;
	r = check_space_load(c);
	if (r == 0)
		r = walks(c);
	if (r == 0)
		check_space_compare(c);
	return r;
}

static void begin(struct check *c, struct keys *k, const struct check_options *o, struct check_report *rep)
{
	struct store *s = keys_store(k);

	*c = (struct check){ .k = k, .s = s, .t = store_tree(s), .sp = store_space(s), .o = o, .rep = rep,
			     .v = k->salvage, .blocks = store_space(s)->total,
			     .total = k->salvage ? k->salvage->used_blocks : store_space(s)->used };
	c->finder = (struct place_finder){ c->t, check_entry_of, c };
	c->super = s->super;
	c->gen_max = s->super.gen;
	memset(rep, 0, sizeof *rep);
	rep->seq = store_seq(s);
}

static int run(struct check *c)
{
	size_t words = (size_t)(c->blocks / 64 + 1);
	int r = -ENOMEM;

	c->used = calloc(words, 8);
	c->pages = calloc(words, 8);
	c->bits = calloc(words, 8);
	c->group_bad = calloc(c->sp->group_count + 1, 1);
	if (c->used && c->pages && c->bits && c->group_bad)
		r = c->v ? run_rest(c) : run_whole(c);
	if (r == 0 && c->o->progress && c->o->progress(c->o->ctx, c->total, c->total))
		r = -ECANCELED;
	free(c->used);
	free(c->pages);
	free(c->seen);
	free(c->bits);
	free(c->group_bad);
	free(c->inodes);
	free(c->orphans);
	free(c->headless);
	free(c->ghosts);
	free(c->lost);
	return r;
}

int check_run(struct keys *k, const struct check_options *options, struct check_report *ret_report)
{
	struct check c;

	begin(&c, k, options, ret_report);
	return run(&c);
}

/* Stores that cannot be opened, or of which parts could not be reached ------------------------------------------------ */

struct rest {
	const struct check_options *o;
	uint64_t problems, follows;
};

static void say(void *ctx, enum salvage_finding kind, const char *text)
{
	struct rest *rest = ctx;
	bool follows = kind == SALVAGE_NOTE || kind == SALVAGE_FOLLOWS;
	void (*fn)(void *ctx, const char *text) = follows ? rest->o->follows : rest->o->problem;

	if (follows)
		rest->follows++;
	else
		rest->problems++;
	if (fn)
		fn(rest->o->ctx, text);
}

static int pass_progress(void *ctx, uint64_t done, uint64_t total)
{
	struct rest *rest = ctx;

	return rest->o->progress ? rest->o->progress(rest->o->ctx, done, total) : 0;
}

/* Put together what is left of it. why: what kept it from being opened; if all that is left is in order, that is the problem. */
static int check_rest(const struct store_options *so, const struct check_options *o, const char *why,
		      struct check_report *rep)
{
	struct rest rest = { .o = o };
	struct store_salvage v = { .say = say, .progress = pass_progress, .ctx = &rest, .supers_told = true };
	struct store_options with = *so;
	struct check c;
	struct keys *k;
	int r;

	with.salvage = &v;
	r = keys_open(&with, &k);
	if (r == 0) {
		begin(&c, k, o, rep);
		r = run(&c);
		rep->problems += rest.problems;
		rep->follows += rest.follows;
		if (r == 0 && rep->problems == 0)
			tell(&c, false, why);
		(void)keys_close(k);
	} else if (r == -EMEDIUMTYPE) {
		/* Of what was a store a moment ago. */
		r = err_set(EUCLEAN, "%s", why);
	}
	salvage_release(&v);
	return r;
}

int check_path(const char *path, const struct check_options *options, struct check_report *ret_report)
{
	struct store_options so = { .path = path, .read_only = true };
	struct check_options o = *options;
	char why[512] = "";
	bool whole = false;
	struct check c;
	struct keys *k;
	int r;

	memset(ret_report, 0, sizeof *ret_report);
	r = keys_open(&so, &k);
	if (r == -EBUSY) {
		so.snapshot = o.snapshot = true;
		r = keys_open(&so, &k);
	}
	if (r < 0 && r != -EUCLEAN)
		return r;
	if (r < 0) {
		(void)snprintf(why, sizeof why, "%s", err_last());
		return check_rest(&so, &o, why, ret_report);
	}
	begin(&c, k, &o, ret_report);
	r = check_inner(&c, &whole);
	if (r == 0 && o.opened)
		o.opened(o.ctx, so.snapshot, store_seq(keys_store(k)));
	if (r == 0 && whole)
		r = run(&c);
	(void)keys_close(k);
	if (r == 0 && !whole)
		r = check_rest(&so, &o, "a page of the tree cannot be read", ret_report);
	/* Texts of findings are no texts of what kept us from looking. */
	if (r == -ENOMEM || r == -ECANCELED)
		err_clear();
	return r;
}
