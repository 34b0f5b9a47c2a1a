/* SPDX-License-Identifier: MIT
 *
 * super: the superblock, decoded. Two of them on disk, each in two places; which one counts is told in FORMAT.md section 2.
 */
#ifndef MSYNCFS_SUPER_H
#define MSYNCFS_SUPER_H

#include "core/base.h"
#include "core/store/format.h"
#include "core/store/journal.h"
#include "core/store/tree.h"

struct super {
	uint64_t feature_compat, feature_ro_compat, feature_incompat;
	uint8_t uuid[16];
	gen_t gen, gen_limit;
	uint64_t flip;
	uint64_t promised_epoch;
	uint32_t role;                  /* ROLE_*; FEATURE_CLUSTER goes along */
	uint8_t cluster[16];            /* zeros while it never had a role */
	uint64_t total_blocks, max_blocks, used_blocks;
	uint64_t inodes, next_ino;
	struct tree_root root;
	bool clean;
	uint64_t hash_seed, created_ns, written_ns;
	struct journal_start journal;
	unsigned seg_shift, seg_count;
	block_t segs[SEGS_MAX];
	uint32_t holder_pid;
	char holder_host[SB_HOST_LEN];
	char holder_mount[SB_MOUNT_LEN];
};

static inline uint64_t super_store_id(const struct super *sb)
{
	return get_le64(sb->uuid);
}

#define UUID_TEXT 37u
/* The uuid as people write it. */
void super_uuid_text(const struct super *sb, char text[UUID_TEXT]);

/* page is 4096 bytes. 0; -EMEDIUMTYPE: no superblock of ours; -EPROTONOSUPPORT: a format or feature that this build does
 * not know; -EROFS: may only be read; -EUCLEAN: damaged. *ret is filled for 0 and -EROFS. */
int super_decode(const uint8_t *page, block_t block, struct super *ret);
void super_encode(uint8_t *page, block_t block, const struct super *sb);
/* The four blocks: 0 and 1 are the superblocks, 2 and 3 their copies. */
static inline block_t super_place(unsigned i)
{
	return i < SUPERS ? i : SUPER_COPY + i - SUPERS;
}
/* Of the pages at the four places (NULL: the file is too short to have it) the one that counts: its block in *ret_block.
 * One that stands in another's place counts too, since all of it is there. Errors as super_decode(). */
int super_pick(const uint8_t *const *pages, struct super *ret, block_t *ret_block);
/* The same in a mapped file. */
int super_pick_at(const uint8_t *base, uint64_t blocks, struct super *ret, block_t *ret_block);
/* The same in a file, beside a daemon that may be writing one. */
int super_read(int fd, struct super *ret);

#endif
