/* SPDX-License-Identifier: MIT
 *
 * mend: what the files of core/salvage share. The opened tree (core/store/salvage.h) is looked at twice, and changed only
 * at the end, so that it can be asked all the while:
 * 1. items.c: every item by itself, every block of contents; the table of inodes, and by which entry each is met first;
 * 2. names.c: every name against that table; what has none, or hangs nowhere, is put aside;
 * 3. mend.c: the changes that make a store of it that contradicts itself nowhere.
 */
#ifndef MSYNCFS_MEND_H
#define MSYNCFS_MEND_H

#include "core/keys/place.h"
#include "core/salvage/salvage.h"
#include "core/store/store_int.h"

enum mend_state { MEND_UNSEEN, MEND_ON_WAY, MEND_REACHED };

struct mend_inode {
	uint64_t ino;
	uint64_t aux;                   /* of the inode; of a directory in the end: where it is */
	uint64_t size, blocks;          /* of the inode */
	uint64_t parent;                /* the first directory that names it, 0 = none */
	uint64_t path_dir, path_lo;     /* the entry that its path goes by, 0 = none was met */
	uint64_t entries, subdirs;      /* good ones */
	uint64_t mapped;                /* blocks that extents have */
	uint64_t end;                   /* file block behind the last of them */
	uint32_t mode, nlink, flags, names;
	uint8_t state;
	bool has_inode;
	bool removed;                   /* nobody can see it any more */
	bool has_entries, has_acl, has_default;
	bool broken;                    /* contents are missing or damaged */
	bool drop;                      /* nothing of it can be saved */
	bool aside;                     /* goes to lost+found */
	bool unlisted;                  /* has no ORPHAN item, but should */
};

/* Blocks of a file that cannot be read. */
struct mend_bad {
	uint64_t ino, fblock, count;
	block_t block;
};

/* What is to be said of an inode once its path is known. */
struct mend_note {
	uint64_t ino;
	bool lost;
	char *text;
};

struct mend {
	struct keys *k;
	struct store *s;
	struct tree *t;
	struct store_salvage *v;
	const struct salvage_options *o;
	struct salvage_report *rep;
	struct mend_inode *inodes;      /* ascending */
	size_t inode_count, inode_room;
	struct key *doomed;             /* items to delete */
	size_t doomed_count, doomed_room;
	struct mend_bad *bad;
	size_t bad_count, bad_room;
	struct mend_note *notes;
	size_t note_count, note_room;
	struct key *odd;                /* entries of directories that say they are elsewhere */
	size_t odd_count, odd_room;
	struct key *retype;             /* entries with the wrong type */
	size_t retype_count, retype_room;
	uint64_t *used;                 /* blocks of contents, one bit each */
	uint64_t used_blocks;
	uint64_t found;                 /* inode items */
	uint64_t done;
	uint64_t folder;                /* inode of lost+found */
	struct place_finder finder;
	char place[2][PLACE_SIZE];
	unsigned place_at;
};

int mend_doom(struct mend *m, struct key k);
/* NULL if nothing of it is there. */
struct mend_inode *mend_find(const struct mend *m, uint64_t ino);
/* To be said when paths are known: "inode 17 (/a/b): text". -ENOMEM. */
int mend_note(struct mend *m, uint64_t ino, bool lost, const char *format, ...) __attribute__((format(printf, 4, 5)));
/* "17 (/a/b)", valid until the second next call; names must have been looked at. */
const char *mend_place(struct mend *m, uint64_t ino);
static inline bool mend_is_dir(const struct mend_inode *r)
{
	return r->has_inode ? S_ISDIR(r->mode) : r->has_entries || r->ino == KEYS_ROOT_INO;
}

/* items.c */
int mend_items(struct mend *m);
/* names.c */
int mend_names(struct mend *m);

#endif
