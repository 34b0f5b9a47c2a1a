/* SPDX-License-Identifier: MIT
 *
 * super: see super.h.
 */
#include "core/store/super.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void super_uuid_text(const struct super *sb, char text[UUID_TEXT])
{
	const uint8_t *u = sb->uuid;

	(void)snprintf(text, UUID_TEXT, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
		       u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

static int check_features(const struct super *sb, uint32_t version, uint32_t block_shift)
{
	if (version == FORMAT_VERSION && block_shift != BLOCK_SHIFT)
		return err_set(EPROTONOSUPPORT, "the store has blocks of 2^%u bytes, this program knows 2^%u only",
			       block_shift, BLOCK_SHIFT);
	if (version != FORMAT_VERSION)
		return err_set(EPROTONOSUPPORT, "the store has format version %u, this program knows version %u; "
			       "use a newer msyncfs", version, FORMAT_VERSION);
	if (sb->feature_incompat & ~FEATURE_INCOMPAT_KNOWN)
		return err_set(EPROTONOSUPPORT, "the store uses features this program does not know (incompat 0x%llx); "
			       "use a newer msyncfs",
			       (unsigned long long)(sb->feature_incompat & ~FEATURE_INCOMPAT_KNOWN));
	if (sb->feature_ro_compat & ~FEATURE_RO_COMPAT_KNOWN)
		return err_set(EROFS, "the store uses features this program may only read (ro_compat 0x%llx); "
			       "mount it with -o ro or use a newer msyncfs",
			       (unsigned long long)(sb->feature_ro_compat & ~FEATURE_RO_COMPAT_KNOWN));
	return 0;
}

static bool segments_distinct(const struct super *sb)
{
	uint64_t blocks = (uint64_t)1 << (sb->seg_shift - BLOCK_SHIFT);
	unsigned i, j;

	for (i = 0; i < sb->seg_count; i++)
		for (j = 0; j < i; j++)
			if (sb->segs[i] < sb->segs[j] + blocks && sb->segs[j] < sb->segs[i] + blocks)
				return false;
	return true;
}

static int check_numbers(const struct super *sb, block_t block)
{
	bool ok = sb->gen > 0 && sb->gen < sb->gen_limit && sb->seg_count > 0 && sb->seg_count <= SEGS_MAX &&
		  (sb->seg_shift == SEG_SHIFT_SMALL || sb->seg_shift == SEG_SHIFT_LARGE) &&
		  sb->total_blocks >= SUPER_COPY + SUPERS && sb->root.level < TREE_LEVELS && sb->root.gen <= sb->gen && sb->root.block < sb->total_blocks &&
		  sb->total_blocks < 1ull << 51 && sb->used_blocks <= sb->total_blocks && sb->next_ino > 1 &&
		  sb->next_ino < 1ull << 48 && sb->gen_limit < 1ull << 62 && sb->flip < 1ull << 62 &&
		  sb->journal.seq < 1ull << 62 && sb->journal.pos < 1ull << 62 && segments_distinct(sb) &&
		  sb->role <= ROLE_REPLICA && !(sb->role == ROLE_ALONE) == !!(sb->feature_ro_compat & FEATURE_CLUSTER) &&
		  (sb->role == ROLE_REPLICA || !(sb->feature_incompat & FEATURE_INCOMPLETE));

	return ok ? 0 : err_corrupt("superblock %llu holds impossible numbers", (unsigned long long)block);
}

int super_decode(const uint8_t *p, block_t block, struct super *ret)
{
	unsigned i;
	int r;

	if (memcmp(p, SB_MAGIC, 8) != 0)
		return err_set(EMEDIUMTYPE, "not an msyncfs store");
	if (get_le64(p + SB_CSUM) != hash64(p + 16, BLOCK_SIZE - 16, block))
		return err_corrupt("superblock %llu: checksum does not match", (unsigned long long)block);
	memset(ret, 0, sizeof *ret);
	ret->feature_compat = get_le64(p + SB_COMPAT);
	ret->feature_ro_compat = get_le64(p + SB_RO_COMPAT);
	ret->feature_incompat = get_le64(p + SB_INCOMPAT);
	/* An unknown version may mean anything by the fields that follow. */
	r = check_features(ret, get_le32(p + SB_VERSION), get_le32(p + SB_BLOCK_SHIFT));
	if (r == -EPROTONOSUPPORT)
		return r;
	memcpy(ret->uuid, p + SB_UUID, 16);
	ret->gen = get_le64(p + SB_GEN);
	ret->gen_limit = get_le64(p + SB_GEN_LIMIT);
	ret->flip = get_le64(p + SB_FLIP);
	ret->promised_epoch = get_le64(p + SB_PROMISED);
	ret->role = get_le32(p + SB_ROLE);
	memcpy(ret->cluster, p + SB_CLUSTER, 16);
	ret->total_blocks = get_le64(p + SB_TOTAL);
	ret->max_blocks = get_le64(p + SB_MAX);
	ret->used_blocks = get_le64(p + SB_USED);
	ret->inodes = get_le64(p + SB_INODES);
	ret->next_ino = get_le64(p + SB_NEXT_INO);
	ret->root.block = get_le64(p + SB_ROOT_BLOCK);
	ret->root.gen = get_le64(p + SB_ROOT_GEN);
	ret->root.level = get_le32(p + SB_ROOT_LEVEL);
	ret->clean = get_le32(p + SB_CLEAN) != 0;
	ret->hash_seed = get_le64(p + SB_HASH_SEED);
	ret->created_ns = get_le64(p + SB_CREATED);
	ret->written_ns = get_le64(p + SB_WRITTEN);
	ret->journal.pos = get_le64(p + SB_JPOS);
	ret->journal.chain = get_le64(p + SB_JCHAIN);
	ret->journal.nonce = get_le64(p + SB_JNONCE);
	ret->journal.seq = get_le64(p + SB_SEQ);
	ret->journal.epoch = get_le64(p + SB_EPOCH);
	ret->seg_shift = get_le32(p + SB_SEG_SHIFT);
	ret->seg_count = get_le32(p + SB_SEG_COUNT);
	ret->holder_pid = get_le32(p + SB_HOLDER_PID);
	memcpy(ret->holder_host, p + SB_HOLDER_HOST, SB_HOST_LEN - 1);
	memcpy(ret->holder_mount, p + SB_HOLDER_MOUNT, SB_MOUNT_LEN - 1);
	for (i = 0; i < SEGS_MAX; i++)
		ret->segs[i] = get_le64(p + SB_SEGS + i * 8);
	return check_numbers(ret, block) < 0 ? -EUCLEAN : r;
}

void super_encode(uint8_t *p, block_t block, const struct super *sb)
{
	unsigned i;

	memset(p, 0, BLOCK_SIZE);
	memcpy(p, SB_MAGIC, 8);         /* NOLINT(bugprone-not-null-terminated-result): eight bytes, no text */
	put_le32(p + SB_VERSION, FORMAT_VERSION);
	put_le32(p + SB_BLOCK_SHIFT, BLOCK_SHIFT);
	put_le64(p + SB_COMPAT, sb->feature_compat);
	put_le64(p + SB_RO_COMPAT, sb->feature_ro_compat);
	put_le64(p + SB_INCOMPAT, sb->feature_incompat);
	memcpy(p + SB_UUID, sb->uuid, 16);
	put_le64(p + SB_GEN, sb->gen);
	put_le64(p + SB_GEN_LIMIT, sb->gen_limit);
	put_le64(p + SB_FLIP, sb->flip);
	put_le64(p + SB_SEQ, sb->journal.seq);
	put_le64(p + SB_EPOCH, sb->journal.epoch);
	put_le64(p + SB_PROMISED, sb->promised_epoch);
	put_le32(p + SB_ROLE, sb->role);
	memcpy(p + SB_CLUSTER, sb->cluster, 16);
	put_le64(p + SB_TOTAL, sb->total_blocks);
	put_le64(p + SB_MAX, sb->max_blocks);
	put_le64(p + SB_USED, sb->used_blocks);
	put_le64(p + SB_INODES, sb->inodes);
	put_le64(p + SB_NEXT_INO, sb->next_ino);
	put_le64(p + SB_ROOT_BLOCK, sb->root.block);
	put_le64(p + SB_ROOT_GEN, sb->root.gen);
	put_le32(p + SB_ROOT_LEVEL, sb->root.level);
	put_le32(p + SB_CLEAN, sb->clean);
	put_le64(p + SB_HASH_SEED, sb->hash_seed);
	put_le64(p + SB_CREATED, sb->created_ns);
	put_le64(p + SB_WRITTEN, sb->written_ns);
	put_le64(p + SB_JPOS, sb->journal.pos);
	put_le64(p + SB_JCHAIN, sb->journal.chain);
	put_le64(p + SB_JNONCE, sb->journal.nonce);
	put_le32(p + SB_SEG_SHIFT, sb->seg_shift);
	put_le32(p + SB_SEG_COUNT, sb->seg_count);
	put_le32(p + SB_HOLDER_PID, sb->holder_pid);
	memcpy(p + SB_HOLDER_HOST, sb->holder_host, SB_HOST_LEN);
	memcpy(p + SB_HOLDER_MOUNT, sb->holder_mount, SB_MOUNT_LEN);
	for (i = 0; i < sb->seg_count; i++)
		put_le64(p + SB_SEGS + i * 8, sb->segs[i]);
	put_le64(p + SB_CSUM, hash64(p + 16, BLOCK_SIZE - 16, block));
}

/* As super_decode(), but a superblock that was put into another one's place is taken as what it is. */
static int decode_anywhere(const uint8_t *p, block_t block, struct super *ret)
{
	uint64_t csum = get_le64(p + SB_CSUM);
	unsigned i;

	for (i = 0; i < SUPER_PLACES; i++)
		if (super_place(i) != block && csum == hash64(p + 16, BLOCK_SIZE - 16, super_place(i)))
			return super_decode(p, super_place(i), ret);
	return super_decode(p, block, ret);
}

int super_pick(const uint8_t *const *pages, struct super *ret, block_t *ret_block)
{
	struct super sb[SUPER_PLACES];
	bool ours = false;
	int r[SUPER_PLACES], best = -1;
	unsigned i;

	for (i = 0; i < SUPER_PLACES; i++) {
		r[i] = pages[i] ? decode_anywhere(pages[i], super_place(i), &sb[i]) : -EMEDIUMTYPE;
		/* A whole superblock of a newer kind outranks whatever the other ones are. */
		if (r[i] == -EPROTONOSUPPORT)
			return r[i];
		ours = ours || r[i] != -EMEDIUMTYPE;
	}
	for (i = 0; i < SUPER_PLACES; i++)
		if ((r[i] == 0 || r[i] == -EROFS) && (best < 0 || sb[i].flip > sb[best].flip))
			best = (int)i;
	if (best < 0) {
		/* All torn or foreign: say "damaged" if one of them was ours. */
		if (!ours)
			return err_set(EMEDIUMTYPE, "not an msyncfs store");
		return err_corrupt("all superblocks are damaged");
	}
	*ret = sb[best];
	*ret_block = super_place((unsigned)best);
	/* Once more, for the text. */
	return r[best] == 0 ? 0 : decode_anywhere(pages[best], *ret_block, &sb[best]);
}

int super_pick_at(const uint8_t *base, uint64_t blocks, struct super *ret, block_t *ret_block)
{
	const uint8_t *pages[SUPER_PLACES];
	unsigned i;

	for (i = 0; i < SUPER_PLACES; i++)
		pages[i] = super_place(i) < blocks ? base + super_place(i) * BLOCK_SIZE : NULL;
	return super_pick(pages, ret, ret_block);
}

/* One block; 0, -ENODATA if the file is shorter, or what the system says. */
static int read_block(int fd, block_t block, uint8_t *bytes)
{
	size_t got = 0;

	while (got < BLOCK_SIZE) {
		ssize_t n = pread(fd, bytes + got, BLOCK_SIZE - got, (off_t)((block << BLOCK_SHIFT) + got));

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -ENODATA;
		got += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

int super_read(int fd, struct super *ret)
{
	const uint8_t *pages[SUPER_PLACES];
	uint8_t bytes[SUPER_PLACES][BLOCK_SIZE];
	int r, unreadable = 0;
	block_t block;
	unsigned i;

	for (i = 0; i < SUPER_PLACES; i++) {
		r = read_block(fd, super_place(i), bytes[i]);
		pages[i] = r == 0 ? bytes[i] : NULL;
		if (r < 0 && r != -ENODATA)
			unreadable = r;
	}
	r = super_pick(pages, ret, &block);
	/* What cannot be read is not what "foreign" or "damaged" would call it. */
	if (r < 0 && r != -EROFS && r != -EPROTONOSUPPORT && unreadable < 0)
		return err_set(-unreadable, "cannot read the superblocks: %s", strerror(-unreadable));
	return r;
}
