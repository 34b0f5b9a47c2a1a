/* SPDX-License-Identifier: MIT
 *
 * images: what a power cut can leave, and whether it is good. See crash.h.
 */
#include "tests/crash/crash.h"

#include "core/check/check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PENDING_MAX  64u
#define RECUT_ALL    96u                /* of so many images one has its recovery cut at all of its points, often at each */
#define RECUT_KILLED 6u                 /* the same of those that a kill left */
#define RECUT_POINTS 24u                /* about as many as recovery has */
/* At so many of a recovery's msyncs the process is killed once: of an image that a kill left, at those of the superblock that it
 * found, at those of its own ones, and at others; of any other image. */
#define AGAIN_FOUND  1u
#define AGAIN_SUPER  8u
#define AGAIN_KILLED 32u
#define AGAIN_REST   2000u
enum { CUT_EVERYWHERE = UINT32_MAX, CUT_DONE = UINT32_MAX - 1 };
#define SHARE_SLACK  100u               /* so many above its share, a case tries half of what it could */
#define EXHAUST_BITS 10u                /* sectors of which all subsets are tried */

static const char *const how_names[] = {
	"nothing", "all", "random half", "few sectors", "most sectors", "one page", "all but one page", "only superblocks",
	"all but superblocks", "only journal", "all but journal", "the front", "the back", "older values", "first values",
	"mixed words", "one sector", "all but one sector of the journal", "all but one page of an extent",
	"all but the end of a segment",
	"all, but not what the file grew by", "", "kill", "chosen",
};
_Static_assert(ARRAY_LEN(how_names) == HOW_CHOSEN + 1, "a name for each");

unsigned open_from, call_from;
enum making live_making;
static struct image pending[PENDING_MAX + 1];
static unsigned pending_count;
uint32_t unit_now, unit_images;
static uint32_t seconds;                /* images of the recovery of the one that is tried, and of theirs */

/* Are there more images of this case than its share already? Then the next one, or set of them, is mostly left out: the more
 * there are, the more often, but never always, so that what comes late in a long round has its part too. */
static bool is_left_out(void)
{
	const uint64_t words[] = { orders->seed, orders->kind, unit_now, unit_images };
	uint64_t due = (uint64_t)orders->share * ((unit_now >> UNIT_SHIFT) + 1), tried = report->counts.images;

	if (orders->share == 0 || orders->try != TRY_ALL || tried <= due)
		return false;
	return hash64(words, sizeof words, 6) % (SHARE_SLACK + tried - due) >= SHARE_SLACK;
}

/* Its number and its randomness. False: nobody wants to try it. */
static bool image_new(struct image *im)
{
	const uint64_t words[] = { orders->seed, orders->kind, unit_now, ++unit_images };

	im->unit = unit_now;
	im->number = unit_images;
	im->second = 0;
	im->depth = 0;
	im->damaged = 0;
	im->making = live_making;
	im->nameless = false;
	im->id_from = identity_durable();
	im->id_to = identity_now();
	im->rng = hash64(words, sizeof words, 1);
	im->op = work.ops;
	return orders->try == TRY_ALL || (orders->try != TRY_NONE && unit_now == orders->unit &&
					  (orders->try == TRY_UNIT || orders->image == unit_images));
}

static bool is_ordered(const struct image *im)
{
	return orders->try == TRY_ONE && im->unit == orders->unit && im->number == orders->image &&
	       im->second == orders->second;
}

/* Building ---------------------------------------------------------------------------------------------------------- */

bool is_journal(uint32_t page)
{
	unsigned i;

	if (!store)
		return false;
	for (i = 0; i < store->journal.count; i++)
		if (page >= store->journal.segs[i] && page < store->journal.segs[i] + journal_seg_blocks(&store->journal))
			return true;
	return false;
}

/* Does a sector of this page reach the disk, and which percentage of them? */
static unsigned page_share(enum how how, uint32_t page, uint32_t chosen)
{
	switch (how) {
	case HOW_NONE:
		return 0;
	case HOW_RANDOM: case HOW_WORDS:
		return 50;
	case HOW_FEW:
		return 6;
	case HOW_MOST:
		return 96;
	case HOW_ONE_PAGE:
		return page == chosen ? 100 : 0;
	case HOW_ONE_SECTOR:
		return page == chosen ? 20 : 0;
	case HOW_BUT_ONE_PAGE: case HOW_EXTENT_HOLE: case HOW_NEXT_HOLE:
		return page == chosen ? 0 : 100;
	case HOW_JOURNAL_HOLE:
		return page == chosen ? 88 : 100;
	case HOW_SUPER:
		return is_super(page) ? 100 : 0;
	case HOW_BUT_SUPER:
		return is_super(page) ? 0 : 100;
	case HOW_JOURNAL:
		return is_journal(page) ? 100 : 0;
	case HOW_BUT_JOURNAL:
		return is_journal(page) ? 0 : 100;
	case HOW_FRONT:
		return page <= chosen ? 100 : 0;
	case HOW_BACK:
		return page >= chosen ? 100 : 0;
	default:
		return 100;
	}
}

/* Old and new words side by side: the disk was given a sector while it was being stored to. */
static void mix_words(uint8_t *to, const uint8_t *from)
{
	uint64_t pick = below(0);
	unsigned i;

	for (i = 0; i < SECTOR / 8; i++)
		if (pick >> i & 1)
			memcpy(to + i * 8, from + i * 8, 8);
}

/* Which percentage of the sectors that reach the disk do so with a value that they had before? Mostly none: a journal that
 * is old in many places ends early, and then little is to be seen of what comes behind. */
static unsigned choose_old(enum how how)
{
	if (how == HOW_ALL || how == HOW_KILL || how == HOW_SHORT || how == HOW_EXTENT_HOLE || how == HOW_NEXT_HOLE)
		return 0;
	return how == HOW_OLD ? 80 : below(3) == 0 ? 25 : 0;
}

static void put_page(const struct machine *m, uint32_t n, enum how how, uint32_t chosen, unsigned old, uint8_t *to)
{
	const struct page *p = m->is_live ? &m->page[n] : NULL;
	unsigned share = page_share(how, n, chosen), s;

	for (s = 0; s < BLOCK_SIZE; s += SECTOR) {
		const uint8_t *from = in_cache(m, n);

		if (below(100) >= share)
			continue;
		/* Any value that it had. */
		if (how == HOW_FIRST && p && p->count > 0)
			from = p->old[0];
		else if (old > 0 && p && p->count > 0 && below(100) < old)
			from = p->old[below(p->count)];
		if (how == HOW_WORDS && below(4) == 0)
			mix_words(to + s, from + s);
		else
			memcpy(to + s, from + s, SECTOR);
	}
}

/* Which of the sectors differ from the disk? Noted; and those that are not among the ordered ones are taken back. */
static void choose_sectors(const struct image *im, uint32_t n, const uint8_t *disk, uint8_t *page)
{
	unsigned s, i;

	if (!is_ordered(im))
		return;
	for (s = 0; s < PER_PAGE; s++) {
		uint32_t at = n << 3 | s;

		if (memcmp(page + s * SECTOR, disk + s * SECTOR, SECTOR) == 0)
			continue;
		for (i = 0; i < orders->sectors.count && orders->sectors.at[i] != at; i++)
			;
		if (orders->use_sectors && i == orders->sectors.count)
			memcpy(page + s * SECTOR, disk + s * SECTOR, SECTOR);
		else if (report->sectors.count < LIST_MAX)
			report->sectors.at[report->sectors.count++] = at;
	}
}

static uint64_t choose_size(const struct machine *m, enum how how)
{
	uint64_t size = m->disk_size;

	if (how == HOW_KILL || how == HOW_ALL || how == HOW_CHOSEN)
		size = m->size;
	else if (how != HOW_SHORT && m->size_count > 0 && below(2))
		size = m->sizes[below(m->size_count)];
	return size & ~(uint64_t)(BLOCK_SIZE - 1);
}

/* A page of contents that a record names and that nothing has synced. */
static bool choose_extent(uint32_t *ret_page)
{
	const struct store_range *e;

	if (!store || store->ext_count == 0)
		return false;
	e = &store->ext[below(store->ext_count)];
	*ret_page = (uint32_t)(e->block + below(e->count));
	return true;
}

/* Where the journal goes on in another segment (O4): the last page that was written of one it has left. */
static bool choose_next(const struct machine *m, uint32_t *ret_page)
{
	block_t first;
	unsigned i;
	bool any = false;

	if (!store || store->journal.used < 2)
		return false;
	first = store->journal.segs[below(store->journal.used - 1)];
	for (i = 0; i < m->dirty_count; i++) {
		uint32_t n = m->dirty[i];

		if (n >= first && n < first + journal_seg_blocks(&store->journal) && (!any || n > *ret_page)) {
			*ret_page = n;
			any = true;
		}
	}
	return any;
}

static uint32_t choose_page(const struct machine *m, enum how how)
{
	unsigned tries;
	uint32_t n = 0;

	if (m->is_live && ((how == HOW_EXTENT_HOLE && choose_extent(&n)) || (how == HOW_NEXT_HOLE && choose_next(m, &n))))
		return n;
	for (tries = 0; m->dirty_count > 0 && tries < 20; tries++) {
		n = m->dirty[below(m->dirty_count)];
		if (how != HOW_JOURNAL_HOLE || is_journal(n))
			break;
	}
	return n;
}

/* A page of the image, if it differs from what the live disk has. */
static void put_built(struct image *im, const struct machine *m, uint32_t n, uint8_t *page)
{
	choose_sectors(im, n, on_disk(m, n), page);
	if (memcmp(page, on_disk(&live, n), BLOCK_SIZE) != 0)
		(void)patch_add(&im->p, n, page);
}

/* What this file has on disk and the live one has not. */
static void put_base(struct patches *p, const struct machine *m)
{
	static uint8_t has[FILE_PAGES];
	unsigned i;

	if (m->is_live)
		return;
	for (i = 0; i < m->dirty_count; i++)
		has[m->dirty[i]] = 1;
	for (i = 0; i < m->base.count; i++)
		if (!has[m->base.page[i]])
			(void)patch_add(p, m->base.page[i], on_disk(m, m->base.page[i]));
	for (i = 0; i < m->dirty_count; i++)
		has[m->dirty[i]] = 0;
}

/* What a power cut now could leave. */
static void build(struct machine *m, enum how how, struct image *im)
{
	uint32_t chosen = choose_page(m, how);
	unsigned old = choose_old(how), i;
	uint8_t page[BLOCK_SIZE];

	im->how = how;
	im->p.count = 0;
	im->p.size = choose_size(m, how);
	if (is_ordered(im))
		report->sectors.count = 0;
	for (i = 0; i < m->dirty_count; i++) {
		uint32_t n = m->dirty[i];

		memcpy(page, on_disk(m, n), BLOCK_SIZE);
		if (((uint64_t)n + 1) * BLOCK_SIZE <= min_u64(im->p.size, m->size))
			put_page(m, n, how, chosen, old, page);
		put_built(im, m, n, page);
	}
	put_base(&im->p, m);
}

/* (O7a) Besides the power cut one of the four superblocks is damaged: what the others lead to is complete too. */
static void damage(struct image *im, bool often)
{
	unsigned place = (unsigned)below(SUPER_PLACES), i;
	uint8_t *page;
	uint32_t n;

	/* Most is to be feared for the one in force. */
	if (store && below(2))
		place = (unsigned)(store->super.flip % SUPERS + SUPERS * below(2));
	n = (uint32_t)super_place(place);
	if (below(often ? 2 : 6) != 0 || (uint64_t)(n + 1) * BLOCK_SIZE > im->p.size)
		return;
	for (i = 0; i < im->p.count && im->p.page[i] != n; i++)
		;
	page = i < im->p.count ? im->p.bytes + (size_t)i * BLOCK_SIZE : patch_add(&im->p, n, on_disk(&live, n));
	if (below(2))
		memset(page, 0, BLOCK_SIZE);
	else
		page[below(BLOCK_SIZE)] ^= (uint8_t)(1 + below(255));
	im->damaged = place + 1;
	report->counts.damaged++;
}

unsigned durable_state(void)
{
	if (rebase_state() != UINT32_MAX)
		return rebase_state();
	return store ? work_state_of(&work, store_durable_seq(store)) : open_from;
}

static void build_with_own_luck(struct machine *m, enum how how, struct image *im, bool may_damage)
{
	uint64_t saved = rng;

	rng = im->rng;
	build(m, how, im);
	if (may_damage)
		damage(im, false);
	im->rng = rng;
	rng = saved;
}

void add_image(enum how how, unsigned from, const char *where)
{
	struct image *im = &pending[pending_count];
	bool left_out;

	/* A file that has grown is the rarer state: look at it more often. */
	if (how != HOW_KILL && live.size > live.disk_size && below(3) == 0)
		how = HOW_SHORT;
	/* Also if it is not tried: a replay must see the same. */
	observe(&live);
	left_out = is_left_out();
	if (!image_new(im) || left_out || pending_count == PENDING_MAX)
		return;
	build_with_own_luck(&live, how, im, how != HOW_KILL);
	im->from = from == UINT32_MAX ? durable_state() : from;
	im->nameless = live_name == NAME_NONE || (live_name == NAME_IN_CACHE && how != HOW_KILL && im->rng >> 63);
	im->disk = NULL;
	im->lost = false;
	im->where = where;
	pending_count++;
}

static void keep_page(struct patches *p, const uint8_t *has, uint32_t n)
{
	if (!has[n] && ((uint64_t)n + 1) * BLOCK_SIZE <= p->size)
		(void)patch_add(p, n, on_disk(&live, n));
}

void keep_pending(uint64_t off, uint64_t len)
{
	static uint8_t has[FILE_PAGES];
	unsigned i, j;
	uint64_t n;

	for (i = 0; i < pending_count; i++) {
		struct patches *p = &pending[i].p;
		unsigned count = p->count;

		for (j = 0; j < count; j++)
			has[p->page[j]] = 1;
		for (j = 0; j < live.dirty_count; j++)
			if (live.dirty[j] >= off / BLOCK_SIZE && live.dirty[j] < (off + len) / BLOCK_SIZE)
				keep_page(p, has, live.dirty[j]);
		for (n = live.low_size / BLOCK_SIZE; n < live.disk_size / BLOCK_SIZE; n++)
			if (!live.page[n].dirty || n < off / BLOCK_SIZE || n >= (off + len) / BLOCK_SIZE)
				keep_page(p, has, (uint32_t)n);
		for (j = 0; j < count; j++)
			has[p->page[j]] = 0;
	}
}

/* The verdict ------------------------------------------------------------------------------------------------------- */

static char finding[512];

static void note_finding(void *ctx, const char *text)
{
	(void)ctx;
	if (finding[0] == '\0')
		(void)snprintf(finding, sizeof finding, "%s", text);
}

static void keep_image(const struct patches *p)
{
	const char *path = getenv("KEEP");
	int fd = path && *path && orders->try == TRY_ONE ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
	uint8_t *bytes;

	if (fd < 0)
		return;
	bytes = big_buffer();
	flatten(p, bytes);
	(void)!write(fd, bytes, p->size);
	(void)close(fd);
	fprintf(stderr, "image kept in %s\n", path);
}

_Noreturn void bad_image(const struct image *im, const char *what, const char *text)
{
	keep_image(&im->p);
	report->unit = im->unit;
	report->image = im->number;
	report->second = im->second;
	broken("%s of call %llu (%s, %s%s): %s: %s", im->second ? "image within the recovery of an image" : "image",
	       (unsigned long long)im->op, im->where, how_names[im->how], im->damaged ? ", and a superblock damaged" : "",
	       what, text);
}

static void check_store(struct keys *k, const struct image *im)
{
	const struct check_options o = { .problem = note_finding };
	struct check_report found;
	char text[640];
	int r;

	finding[0] = '\0';
	r = check_run(k, &o, &found);
	if (r < 0 || found.problems > 0) {
		(void)snprintf(text, sizeof text, "%d, %llu problems: %s", r, (unsigned long long)found.problems, finding);
		bad_image(im, "check", text);
	}
	report->counts.checked++;
}

static void close_image(struct keys *k, const struct image *im)
{
	int r = keys_close(k);

	if (r < 0)
		bad_image(im, "close", strerror(-r));
}

int opened_state(struct keys *k, unsigned from, unsigned *ret_epochs, char *text, size_t size)
{
	*ret_epochs = epochs_unknown(k);
	return work_compare_at(&work, k, store_seq(keys_store(k)) - *ret_epochs, from, text, size);
}

/* Which state and which identity does it show? Both are ones that this image may have, or it is a bad one. */
static int judge(struct keys *k, struct image *im, const char *what)
{
	const char *wrong;
	char text[1024];
	unsigned epochs;
	int found = opened_state(k, im->from, &epochs, text, sizeof text), id;

	if (found < 0)
		bad_image(im, what, text);
	id = identity_find(k, im->id_from, im->id_to, text, sizeof text);
	if (id < 0)
		bad_image(im, what, text);
	wrong = epochs_wrong(k, found, epochs);
	if (wrong)
		bad_image(im, what, wrong);
	im->id_from = (unsigned)id;
	return found;
}

/* Read-only it shows the same, and changes nothing. This one is a real file. */
static void try_read_only(const struct image *im, int found)
{
	static uint8_t *bytes;
	char path[40];
	struct store_options o = { .path = path, .read_only = true, .incomplete = true };
	struct image now = *im;
	int fd = memfd_create("read-only", MFD_CLOEXEC);
	uint8_t *file;
	struct keys *k;

	if (!bytes)
		bytes = big_buffer();
	check(fd >= 0);
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	flatten(&im->p, bytes);
	check(ftruncate(fd, (off_t)im->p.size) == 0);
	file = mmap(NULL, im->p.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(file != MAP_FAILED);
	memcpy(file, bytes, im->p.size);
	if (keys_open(&o, &k) < 0)
		bad_image(im, "opened read-only", err_last());
	if (judge(k, &now, "read-only") != found)
		bad_image(im, "read-only", "another state");
	close_image(k, im);
	if (memcmp(file, bytes, im->p.size) != 0)
		bad_image(im, "read-only", "the file was changed");
	(void)munmap(file, im->p.size);
	(void)close(fd);
}

static void try_image(const struct image *im);

/* The recovery of an image, while it is made on again[depth]: it is cut too. */
static struct recovery {
	const struct image *of;                 /* NULL: it is not, or it is over */
	unsigned cut_at;                        /* power is cut at this point of it only; CUT_EVERYWHERE, CUT_DONE */
	bool at_super;                          /* it is about to write a superblock */
	bool own_super;                         /* and has begun with its own ones, in the other slot than the one that it found */
	unsigned found;                         /* 1 + the slot of that; 0: not known yet */
} recoveries[ARRAY_LEN(again) - 1];

/* One image of the recovery of another. */
static void second_image(struct machine *m, const struct image *of, enum how how, const char *where,
			 void (*builder)(struct machine *m, enum how how, struct image *im))
{
	static struct patches kept[ARRAY_LEN(recoveries)];
	const uint64_t words[] = { of->rng, ++seconds };
	struct image im = *of;
	uint64_t saved = rng;

	im.p = kept[of->depth];
	im.second = seconds;
	im.depth = of->depth + 1;
	im.making = MADE;
	im.where = where;
	im.disk = NULL;
	im.lost = false;
	im.durable = of->disk ? of->durable : of->from;
	if (how != HOW_KILL)
		im.from = im.durable;
	rng = im.rng = hash64(words, sizeof words, 2);
	builder(m, how, &im);
	/* (G6) Of what a kill left in the page cache the superblock may be what the disk has not: look there. */
	if (!im.damaged && how != HOW_KILL)
		damage(&im, of->disk && recoveries[of->depth].at_super);
	im.rng = rng;
	rng = saved;
	kept[of->depth] = im.p;
	/* Its own images are numbered behind it. */
	if (orders->try == TRY_ONE && orders->second != 0 && orders->second != im.second && !im.disk)
		return;
	report->counts.recoveries++;
	try_image(&im);
}

/* What a kill in the midst of a recovery leaves: all that was stored is in the page cache, what was msynced on disk. */
static void build_kill(struct machine *m, enum how how, struct image *im)
{
	const struct patches *before = m->cache;
	static uint8_t has[FILE_PAGES];
	unsigned i;

	im->how = how;
	im->p.count = 0;
	im->p.size = m->size;
	im->disk = &m->base;
	for (i = 0; i < m->dirty_count; i++)
		(void)patch_add(&im->p, m->dirty[i], in_cache(m, m->dirty[i]));
	/* What the kernel failed to write before, and nobody has stored since, is no longer dirty; it is there all the same. */
	for (i = 0; before && i < before->count; i++)
		if (m->clean[before->page[i]])
			(void)patch_add(&im->p, before->page[i], in_cache(m, before->page[i]));
	for (i = 0; i < im->p.count; i++)
		has[im->p.page[i]] = 1;
	for (i = 0; i < m->base.count; i++)
		if (!has[m->base.page[i]])
			(void)patch_add(&im->p, m->base.page[i], on_disk(m, m->base.page[i]));
	for (i = 0; i < im->p.count; i++)
		has[im->p.page[i]] = 0;
	/* Failed once, its writeback fails again. */
	im->lost = (before && m->lost) || below(2);
}

/* The process dies here once more. The next one finds what two others have stored, and some of that on disk. */
static void kill_again(struct machine *m, const struct image *of, const char *where)
{
	find_dirty(m);
	report->counts.kills_again++;
	second_image(m, of, HOW_KILL, where, build_kill);
}

static void cut_recovery(struct machine *m, const struct image *of, const char *where)
{
	struct recovery *r = &recoveries[of->depth];
	unsigned n = r->cut_at == CUT_EVERYWHERE ? (unsigned)below(3) : 1;

	r->cut_at = r->cut_at == CUT_EVERYWHERE ? CUT_EVERYWHERE : CUT_DONE;
	find_dirty(m);
	while (n-- > 0)
		second_image(m, of, (enum how)below(HOW_COUNT), where, build);
}

/* While a store is made there may be none. True: there is none, and need not be. */
static bool is_unmade(const struct image *im)
{
	if (!im->nameless)
		return false;
	if (im->making == MADE)
		bad_image(im, "a store that was made", "its name is not on disk");
	return true;
}

/* Open the image: which state is it? */
static void try_opened(struct machine *m, const struct image *im)
{
	struct recovery *rec = im->depth == 0 || (im->disk && im->depth < ARRAY_LEN(recoveries)) ? &recoveries[im->depth] : NULL;
	struct image now = *im;
	struct keys *k;
	int found, r;

	if (is_unmade(im))
		return;
	machine_load(m, &im->p, im->disk, im->lost);
	m->random = below(0);
	/* Of most images the recovery is cut once, at any of its points; if it has fewer, behind the last. */
	if (rec)
		*rec = (struct recovery){ .cut_at = below(im->disk ? RECUT_KILLED : RECUT_ALL) == 0 ? CUT_EVERYWHERE :
					  (unsigned)below(RECUT_POINTS), .of = im };
	r = machine_open(m, false, 0, &k);
	if (rec)
		rec->of = NULL;
	if (r < 0 && im->making == MAKING_IN_PLACE)
		return;
	if (r < 0)
		bad_image(im, "cannot be opened", err_last());
	machine_freeze(m);
	found = judge(k, &now, "not a state");
	/* Open, so all of it is durable, whatever it is. */
	now.from = now.durable = (unsigned)found;
	now.id_to = now.id_from;
	if (rec && rec->cut_at != CUT_DONE)
		cut_recovery(m, &now, "behind a recovery");
	check_store(k, im);
	machine_thaw(m);
	close_image(k, im);
	/* Once recovered and closed it stays so: what was synced is all there is. */
	machine_forget(m);
	if (machine_open(m, false, 0, &k) < 0)
		bad_image(im, "cannot be opened again", err_last());
	machine_freeze(m);
	if (judge(k, &now, "opened again") != found)
		bad_image(im, "opened again", "another state");
	machine_thaw(m);
	close_image(k, im);
	report->counts.reopened++;
	if (below(200) == 0)
		try_read_only(im, found);
}

static void try_image(const struct image *im)
{
	const uint32_t before[] = { report->unit, report->image, report->second };
	uint64_t saved = rng;

	report->unit = im->unit;
	report->image = im->number;
	report->second = im->second;
	report->counts.images++;
	report->counts.of_kind[orders->kind]++;
	report->counts.kills += im->how == HOW_KILL;
	report->counts.making += im->making != MADE;
	rng = im->rng;
	if (im->depth == 0)
		seconds = 0;
	try_opened(&again[im->depth], im);
	rng = saved;
	report->unit = before[0];
	report->image = before[1];
	report->second = before[2];
}

void try_pending(void)
{
	unsigned i;

	for (i = 0; i < pending_count; i++)
		try_image(&pending[i]);
	pending_count = 0;
}

void drop_pending(void)
{
	pending_count = 0;
}

void kill_and_cut(const char *where)
{
	static struct image im;
	struct patches disk = { .size = live.disk_size };
	/* All luck of the unit is drawn whether the image is tried or not: a replay must see the same. */
	bool left_out = is_left_out(), lost = below(2);

	im = (struct image){ .p = im.p };
	observe(&live);
	if (!image_new(&im) || left_out)
		return;
	build_with_own_luck(&live, HOW_KILL, &im, false);
	im.disk = &disk;
	im.lost = lost;
	im.durable = durable_state();
	im.from = kill_state();
	im.where = where;
	report->counts.kills_cut++;
	try_image(&im);
}

unsigned cut_live(struct patches *p)
{
	static struct image im;
	static const enum how often[] = { HOW_KILL, HOW_KILL, HOW_EXTENT_HOLE, HOW_EXTENT_HOLE, HOW_NEXT_HOLE };
	enum how how = below(2) ? often[below(ARRAY_LEN(often))] : (enum how)below(HOW_COUNT);
	bool left_out = is_left_out(), wanted;

	im = (struct image){ .p = im.p };
	wanted = image_new(&im) && !left_out;
	/* The work goes on with it: undamaged, or the images that follow would have more than one damage. */
	build_with_own_luck(&live, how, &im, false);
	im.from = open_from = how == HOW_KILL ? work_now(&work) : durable_state();
	identity_open_from = im.id_from;
	im.where = "the live store";
	if (wanted)
		try_image(&im);
	*p = im.p;
	return im.from;
}

/* All subsets ------------------------------------------------------------------------------------------------------- */

static struct {
	bool busy;                              /* there is one set at a time */
	unsigned count;
	uint32_t page[EXHAUST_BITS], sector[EXHAUST_BITS];
	unsigned values[EXHAUST_BITS];          /* besides what the disk has */
	const uint8_t *value[EXHAUST_BITS][VALUES + 2];
	uint8_t mixed[EXHAUST_BITS][SECTOR];
	unsigned pick[EXHAUST_BITS];            /* of this image: 0 = as on disk */
	uint64_t combinations;
	enum how rest;                          /* what becomes of all other sectors */
	uint64_t off, len;
} all;

static void note_value(unsigned i, const uint8_t *value, const uint8_t *disk)
{
	unsigned j;

	if (memcmp(value, disk, SECTOR) == 0)
		return;
	for (j = 0; j < all.values[i]; j++)
		if (memcmp(value, all.value[i][j], SECTOR) == 0)
			return;
	all.value[i][all.values[i]++] = value;
}

/* The sectors of [off, off+len) that have changed, with the values they had. False: too many. */
static bool collect(const struct machine *m, uint64_t off, uint64_t len, uint64_t max)
{
	unsigned i, s, j;

	all.count = 0;
	all.combinations = 1;
	all.off = off;
	all.len = len;
	for (i = 0; i < m->dirty_count; i++) {
		uint32_t n = m->dirty[i];
		const struct page *p = m->is_live ? &m->page[n] : NULL;

		if ((uint64_t)n * BLOCK_SIZE < off || ((uint64_t)n + 1) * BLOCK_SIZE > min_u64(off + len, m->size))
			continue;
		for (s = 0; s < PER_PAGE; s++) {
			const uint8_t *disk = on_disk(m, n) + s * SECTOR;
			unsigned at = all.count;

			if (at == EXHAUST_BITS)
				return false;
			all.values[at] = 0;
			for (j = 0; p && j < p->count; j++)
				note_value(at, p->old[j] + s * SECTOR, disk);
			note_value(at, in_cache(m, n) + s * SECTOR, disk);
			if (all.values[at] == 0)
				continue;
			/* What differs of two superblocks is often one sector: torn it is only within. */
			if (is_super(n)) {
				memcpy(all.mixed[at], disk, SECTOR);
				mix_words(all.mixed[at], in_cache(m, n) + s * SECTOR);
				note_value(at, all.mixed[at], disk);
			}
			all.page[at] = n;
			all.sector[at] = s;
			all.combinations *= all.values[at] + 1;
			if (all.combinations > max)
				return false;
			all.count++;
		}
	}
	return all.count > 0;
}

static void put_picks(uint32_t n, uint8_t *page)
{
	unsigned i;

	for (i = 0; i < all.count; i++)
		if (all.page[i] == n && all.pick[i] > 0)
			memcpy(page + all.sector[i] * SECTOR, all.value[i][all.pick[i] - 1], SECTOR);
}

static void build_picked(struct machine *m, enum how how, struct image *im)
{
	uint32_t chosen = choose_page(m, all.rest);
	unsigned old = choose_old(all.rest), i;
	uint8_t page[BLOCK_SIZE];

	im->how = how;
	im->p.count = 0;
	im->p.size = m->size & ~(uint64_t)(BLOCK_SIZE - 1);
	if (is_ordered(im))
		report->sectors.count = 0;
	for (i = 0; i < m->dirty_count; i++) {
		uint32_t n = m->dirty[i];
		uint64_t at = (uint64_t)n * BLOCK_SIZE;

		memcpy(page, on_disk(m, n), BLOCK_SIZE);
		if (at >= all.off && at < all.off + all.len)
			put_picks(n, page);
		else if (at + BLOCK_SIZE <= m->size)
			put_page(m, n, all.rest, chosen, old, page);
		put_built(im, m, n, page);
	}
	put_base(&im->p, m);
}

/* The next combination; false behind the last one. */
static bool next_pick(void)
{
	unsigned i;

	for (i = 0; i < all.count; i++) {
		if (++all.pick[i] <= all.values[i])
			return true;
		all.pick[i] = 0;
	}
	return false;
}

/* All that is not synced, if that is little; else what this msync is about, with all, nothing or some of the rest. */
static bool collect_some(const struct machine *m, uint64_t off, uint64_t len)
{
	static const enum how rests[] = { HOW_NONE, HOW_ALL, HOW_RANDOM };
	uint64_t max = below(48) == 0 ? 1u << EXHAUST_BITS : below(4) == 0 ? 64 : 12;

	all.rest = rests[below(ARRAY_LEN(rests))];
	memset(all.pick, 0, sizeof all.pick);
	return collect(m, 0, FILE_MAX, max) || collect(m, off, len, max);
}

void try_exhaustively(uint64_t off, uint64_t len)
{
	static struct image im;
	bool left_out = is_left_out();

	if (!collect_some(&live, off, len))
		return;
	report->counts.exhaustive += !left_out;
	all.busy = true;
	do {
		uint64_t saved = rng;

		im = (struct image){ .p = im.p };
		if (!image_new(&im) || left_out)
			continue;
		rng = im.rng;
		build_picked(&live, HOW_CHOSEN, &im);
		damage(&im, is_super((uint32_t)(off / BLOCK_SIZE)));
		im.rng = rng;
		rng = saved;
		im.from = durable_state();
		im.where = "before a msync, one of all subsets";
		report->counts.exhausted++;
		try_image(&im);
	} while (next_pick());
	all.busy = false;
}

static void exhaust_recovery(struct machine *m, const struct image *of, uint64_t off, uint64_t len)
{
	if (all.busy || (below(6) != 0 && !(of->disk && recoveries[of->depth].at_super)))
		return;
	all.rest = below(2) ? HOW_NONE : HOW_ALL;
	memset(all.pick, 0, sizeof all.pick);
	find_dirty(m);
	if (!collect(m, off, len, 32))
		return;
	report->counts.exhaustive++;
	all.busy = true;
	do {
		report->counts.exhausted++;
		second_image(m, of, HOW_CHOSEN, "before a msync of recovery, one of all subsets", build_picked);
	} while (next_pick());
	all.busy = false;
}

static bool is_cut_here(struct recovery *r)
{
	return r->cut_at == CUT_EVERYWHERE || (r->cut_at < RECUT_POINTS && r->cut_at-- == 0);
}

/* (G6) A second kill is about a superblock most of all: what of the four places two processes have stored, and neither synced. */
static bool is_killed_here(const struct recovery *r)
{
	unsigned rate = !r->of->disk ? AGAIN_REST : !r->at_super ? AGAIN_KILLED : r->own_super ? AGAIN_SUPER : AGAIN_FOUND;

	return r->of->depth == 0 && !all.busy && below(rate) == 0;
}

static void note_super(struct recovery *r, uint64_t page)
{
	unsigned slot = (unsigned)(page < SUPERS ? page : page - SUPER_COPY);

	r->at_super = is_super(page);
	if (!r->at_super)
		return;
	if (r->found == 0)
		r->found = 1 + slot;
	r->own_super = r->own_super || slot != r->found - 1;
}

void image_synced(struct machine *m, uint64_t off, uint64_t len)
{
	struct recovery *r = m - again < (ptrdiff_t)ARRAY_LEN(recoveries) ? &recoveries[m - again] : NULL;
	const struct image *of = r ? r->of : NULL;

	if (!of) {
		settle_again(m, off, len);
		return;
	}
	note_super(r, off / BLOCK_SIZE);
	if (is_cut_here(r))
		cut_recovery(m, of, "before a msync of recovery");
	if (is_killed_here(r))
		kill_again(m, of, "killed again before a msync of recovery");
	if (r->cut_at == CUT_EVERYWHERE || (of->depth > 0 && r->at_super))
		exhaust_recovery(m, of, off, len);
	settle_again(m, off, len);
	r->at_super = false;
	if (is_cut_here(r))
		cut_recovery(m, of, "behind a msync of recovery");
}
