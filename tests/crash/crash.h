/* SPDX-License-Identifier: MIT
 *
 * crash: what the parts of the power-cut machine share.
 *
 * A store works on a file whose every page is write-protected between calls, so that the machine knows which pages
 * changed, and whose msyncs it sees. It keeps what is on disk for sure (all that was synced), and for each page changed
 * since then the values it had. From these it builds what a power cut could leave: what is on disk plus any choice of newer
 * 512-byte sectors, each with any value it had, or a mix of old and new words. Each such image is opened, and must show
 * exactly one state of the model, not older than what was reported durable; so must the images of a power cut while the
 * first one is recovered. A kill is the same with everything that was stored, and loses nothing.
 *
 *   machine.c    the file, its disk, what changed           (watching, msync, growth)
 *   hashes.c     hashes of blocks that were hashed before
 *   folder.c     the folder that a new store is made in     (its name, and when that is on disk)
 *   images.c     what a power cut leaves, and the verdict
 *   identity.c   what the store is to others, and the epochs that it began: the model of that, and its part of the verdict
 *   cases.c      a case: a workload from a seed, in units that can be left out one by one
 *   programs.c   units that are calls of real programs
 *   crash.c      many cases side by side; a failure is replayed and made short
 *
 * One case runs in one process with one thread. All randomness of a unit comes from (seed, kind, unit), all of an image from
 * (seed, kind, unit, number), so that units and images can be left out and the others stay the same.
 */
#ifndef MSYNCFS_TESTS_CRASH_H
#define MSYNCFS_TESTS_CRASH_H

#include "tests/unit/crash_util.h"

#include "core/store/store_int.h"

#include <signal.h>

#define FILE_MAX    (160u << 20)
#define FILE_PAGES  (FILE_MAX / BLOCK_SIZE)
#define SECTOR      512u
#define PER_PAGE    (BLOCK_SIZE / SECTOR)
#define VALUES      8u                  /* older values kept of a page */
#define SIZES_MAX   8u
#define LIST_MAX    8192u

/* What a run is told, and what it tells: shared with the process that started it. ------------------------------------ */

struct list {
	unsigned count;
	uint32_t at[LIST_MAX];
};

static inline bool is_super(uint64_t page)
{
	return page < SUPERS || (page >= SUPER_COPY && page < SUPER_COPY + SUPERS);
}

enum try { TRY_ALL, TRY_NONE, TRY_UNIT, TRY_ONE };

/* A unit is round << UNIT_SHIFT | call within (0 = the round itself). */
#define UNIT_SHIFT  10u
#define UNIT_CALL   ((1u << UNIT_SHIFT) - 1)

struct orders {
	uint64_t seed;
	enum work_profile kind;
	unsigned rounds;
	bool use_units, use_sectors;
	struct list units;              /* only these */
	struct list sectors;            /* of the image that is tried: page << 3 | sector */
	unsigned share;                 /* about so many images are tried for each round; 0 = all */
	enum try try;                   /* which images are opened */
	uint32_t unit, image, second;   /* that one; second: which one of its recovery, or of one of theirs, 0 = itself */
};

struct counts {
	uint64_t calls, syncs, images, kills, kills_cut, kills_again, at_sync, recoveries, checked, reopened, adopted, beside, full,
		 exhaustive, exhausted, retried, damaged, grown, shortened, compacted, readers, making, identities, epochs, rebases, written, of_kind[WORK_PROFILES];
};

struct report {
	bool failed;
	uint32_t unit, image, second;   /* where it is */
	char text[2048];
	struct list units;              /* that were begun */
	struct list sectors;            /* that the image tried took from newer than the disk */
	struct counts counts;
};

extern struct orders *orders;
extern struct report *report;

/* The case is over: it failed. */
_Noreturn void broken(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* machine.c ---------------------------------------------------------------------------------------------------------- */

struct page {
	bool touched, dirty;
	uint8_t count;
	uint8_t *old[VALUES];           /* what it held since it was last synced; the last of them is what it holds now */
};

/* A file as the pages in which it differs from what the live machine has on disk. */
struct patches {
	uint64_t size;                  /* of the file */
	unsigned count, room;
	bool in_file;                   /* room for all */
	uint32_t *page;
	uint8_t *bytes;
};

/* A store file and what of it is on disk. The live one is a file, its disk another. Those that are opened again exist only
 * as a private mapping of the live one's disk, with patches: making one costs no more than what differs. */
struct machine {
	int fd, disk_fd;
	char path[40];
	bool is_live;
	bool watched;                   /* live: writes to it are seen */
	uint64_t size, limit;
	uint8_t *engine;                /* where the store has it mapped */
	uint64_t mapped;
	uint8_t *file;                  /* live: what the page cache has */
	uint8_t *disk;                  /* live: what is on disk for sure */
	uint64_t disk_size, sizes[SIZES_MAX];
	uint64_t low_size;              /* live: the smallest size since the last msync */
	unsigned size_count;
	struct patches base;            /* not live: what is on disk */
	int base_fd;                    /* the file that it is in */
	const struct patches *cache;    /* not live: what the page cache has beyond it, NULL = nothing */
	bool lost;                      /* the kernel holds that for clean: it failed to write it, and told the one who died */
	uint8_t *clean;                 /* by page: 1 = so, until something is stored there */
	int32_t *patch_of;              /* not live: by page, -1 = none */
	bool *from_disk;                /* not live: by page, mapped from the live one's disk */
	uint8_t *state;                 /* not live: hashes.c's, by page */
	bool frozen;                    /* not live: it is only read */
	uint64_t random;                /* what it gives to the store */
	uint64_t luck;                  /* which of the values before is forgotten */
	struct page *page;              /* live */
	uint32_t *touched, *dirty;
	unsigned touched_count, dirty_count;
};

extern struct machine live, again[3];  /* an image, one of its recovery, one of that one's */
extern struct work work;
extern struct store *store;             /* of the live machine, NULL while it opens */
extern uint64_t rng;
extern bool helper_runs, in_call;
extern int capture_in;                  /* take a kill image at this page fault of the call */
extern bool capture_record;             /* take images when the call is about to store its record */

uint64_t below(uint64_t n);
uint8_t *patch_add(struct patches *p, uint32_t page, const void *bytes);
/* The whole file, as bytes. */
void flatten(const struct patches *p, uint8_t *bytes);
uint8_t *big_buffer(void);
/* Page n as the disk has it for sure; as the page cache has it. */
const uint8_t *on_disk(const struct machine *m, uint32_t n);
const uint8_t *in_cache(const struct machine *m, uint32_t n);
void machine_init(struct machine *m, bool is_live);
void machine_release(struct machine *m);
/* m becomes a file that holds p. disk: only that is on disk, all of p in the page cache (NULL: p is on disk); lost: and the
 * kernel believes that it is not the page cache alone which has it. */
void machine_load(struct machine *m, const struct patches *p, const struct patches *disk, bool lost);
/* What was in the page cache only is there no more. */
void machine_forget(struct machine *m);
int machine_open(struct machine *m, bool create, uint64_t max, struct keys **ret);
/* The live file becomes p, all of it on disk. */
void live_load(const struct patches *p);
/* Note what pages hold that were touched; and watch them all again. */
void observe(struct machine *m);
void protect(struct machine *m);
/* Pages of a machine that is not watched that differ from its disk: m->dirty. */
void find_dirty(struct machine *m);
/* What the kernel says of pages of a mapped machine that is not live (/proc/self/pagemap). */
void machine_ask(const struct machine *m, uint32_t first, uint32_t count, uint64_t *ret);
/* Does this process have a copy of that page (bits 62 and 63: it is there at all; bit 61: it is a file's)? */
static inline bool is_copy(uint64_t entry)
{
	return entry >> 62 && !(entry >> 61 & 1);
}
/* Part of the file is on disk now. */
void settle_live(uint64_t off, uint64_t len);
void settle_again(struct machine *m, uint64_t off, uint64_t len);
void on_fault(int sig, siginfo_t *info, void *ctx);

/* hashes.c ----------------------------------------------------------------------------------------------------------- */

/* From here to machine_thaw() m, which is open, is read and not stored to. */
void machine_freeze(struct machine *m);
void machine_thaw(struct machine *m);
/* Pages [from, to) of the live disk are stored to. */
void hashes_forget(uint64_t from, uint64_t to);

/* folder.c ----------------------------------------------------------------------------------------------------------- */

/* Where the live store's name is. While it is made in a folder it has none at first. */
enum name { NAME_ON_DISK, NAME_NONE, NAME_IN_CACHE };
extern enum name live_name;
#define FOLDER_STORE "folder-of-the-power-cut-machine/store"

/* From now on calls that name FOLDER_STORE mean the live file, which gets its name by linkat(). */
void folder_begin(void);
void folder_end(void);

/* images.c ----------------------------------------------------------------------------------------------------------- */

enum how {
	HOW_NONE, HOW_ALL, HOW_RANDOM, HOW_FEW, HOW_MOST, HOW_ONE_PAGE, HOW_BUT_ONE_PAGE, HOW_SUPER, HOW_BUT_SUPER, HOW_JOURNAL,
	HOW_BUT_JOURNAL, HOW_FRONT, HOW_BACK, HOW_OLD, HOW_FIRST, HOW_WORDS, HOW_ONE_SECTOR, HOW_JOURNAL_HOLE, HOW_EXTENT_HOLE,
	HOW_NEXT_HOLE, HOW_SHORT, HOW_COUNT, HOW_KILL, HOW_CHOSEN,
};

enum making {
	MADE,
	MAKING,                         /* under a name that is given when the store is whole: there is none, or all of it */
	MAKING_IN_PLACE,                /* in an empty file that was there: until it is made, it need not be a store */
};

struct image {
	struct patches p;
	enum how how;
	unsigned from;                  /* oldest state allowed */
	unsigned id_from, id_to;        /* oldest and newest identity allowed */
	enum making making;             /* the call that makes the store has not returned */
	bool nameless;                  /* the name is not on disk */
	unsigned damaged;               /* 1 + the superblock place that is damaged besides; 0: none */
	const struct patches *disk;     /* a kill: the page cache has the image, but on disk is only this; NULL: all of it */
	bool lost;                      /* and no writeback brings it there, unless it is stored again (G6) */
	unsigned durable;               /* then the oldest state that a power cut may still lead back to */
	unsigned depth;                 /* 0: of the live store; 1: of the recovery of such an image; 2: of one that a second kill left */
	const char *where;
	uint64_t op;
	uint32_t unit, number, second;
	uint64_t rng;
};

extern unsigned open_from;              /* oldest state allowed while the live store opens */
extern enum making live_making;
extern unsigned call_from;              /* the state before the call that is being made */

extern uint32_t unit_now, unit_images;  /* images are numbered within the unit */

/* Is this page in one of the live store's journal segments? */
bool is_journal(uint32_t page);

/* An image of the live machine now. UINT32_MAX: from what is durable. It is tried by try_pending(): when the call that is
 * being made has returned. */
void add_image(enum how how, unsigned from, const char *where);
void try_pending(void);
void drop_pending(void);
/* The process dies here, and then, while the store is recovered from the page cache, power is cut. */
void kill_and_cut(const char *where);
/* Power is cut: build one image for good, try it, and leave it in p. Its oldest state allowed. */
unsigned cut_live(struct patches *p);
/* Before a msync of [off, off + len): all subsets of what changed, where that is few sectors. */
void try_exhaustively(uint64_t off, uint64_t len);
/* Calls of msync on m, a machine that an image was opened on. */
void image_synced(struct machine *m, uint64_t off, uint64_t len);
/* The live disk is about to get other pages: images that wait keep those that they have from it. */
void keep_pending(uint64_t off, uint64_t len);
unsigned durable_state(void);
/* No file of m's shows what the model has. */
_Noreturn void bad_image(const struct image *im, const char *what, const char *text);

/* Which state of the model does an opened store show, not older than `from`? -1: none, text says why. *ret_epochs: how many
 * changes the opening (and those before it that the model did not see) put behind that, each the beginning of an epoch. */
int opened_state(struct keys *k, unsigned from, unsigned *ret_epochs, char *text, size_t size);

/* identity.c --------------------------------------------------------------------------------------------------------- */

/* The model begins with what k shows: the store was made or opened, nothing else is possible any more. */
void identity_known(struct keys *k);
/* The oldest identity that a power cut now may leave, and the newest that there was. */
unsigned identity_durable(void);
unsigned identity_now(void);
extern unsigned identity_open_from;     /* oldest identity allowed while the live store opens */
/* Which of those allowed does k show? -1: none, text says what it shows. */
int identity_find(struct keys *k, unsigned from, unsigned to, char *text, size_t size);
/* Epochs that k has begun, and the live store knows nothing of: those at the very end, with no other change behind them. */
unsigned epochs_unknown(struct keys *k);
/* The first change of the epoch in force; 1: none was begun. */
uint64_t epochs_begin(struct keys *k);
/* (O10) Has the store begun an epoch if it had to? NULL, or what is wrong. */
const char *epochs_wrong(struct keys *k, int found, unsigned unknown);
/* The live store has begun these. */
void epochs_learn(struct keys *k);
/* A change of the live store's identity, of whatever kind is possible now. cluster: it may become part of one. */
void identity_step(bool cluster);
/* Names of a store that has none yet are keyed by another seed. */
void identity_seed(void);

/* cases.c ------------------------------------------------------------------------------------------------------------ */

extern const char *const kind_names[WORK_PROFILES];

void case_run(void);
/* A call beside a msync. */
void step_beside(void);
/* The oldest state that a kill now may leave. */
unsigned kill_state(void);
/* The state that is durable while a rebase is made, else UINT32_MAX. */
unsigned rebase_state(void);

/* programs.c --------------------------------------------------------------------------------------------------------- */

void programs_reset(void);
/* The next call of one of the programs; true: the program now waits for an fsync. */
bool programs_step(struct work *w);

#endif
