/* SPDX-License-Identifier: MIT
 *
 * crash_replica: changes that a replica gets from its primary, made here (core/replica/change.h), and the model of crash_util.h with
 * them. Only contents, in whole blocks: of all changes these are the ones that a replica makes in another way than a program's
 * (store_fill(), store_alloc_bulk()).
 */
#include "tests/unit/crash_int.h"

#include "core/keys/keys_int.h"
#include "core/replica/change.h"

#include <sys/stat.h>

#define PIECES_MAX 3u                   /* MAPs of one change */
#define BLOCKS_MAX 96u                  /* of one change */

static uint8_t *put_mutation(uint8_t *p, unsigned kind, uint32_t len)
{
	memset(p, 0, MUT_HEADER);
	p[MUT_KIND] = (uint8_t)kind;
	put_le32(p + MUT_LEN, len);
	return p + MUT_HEADER;
}

static uint8_t *put_map(uint8_t *p, uint64_t ino, uint64_t fblock, uint32_t count, const uint8_t *data)
{
	p = put_mutation(p, MUT_MAP, 24 + (count << BLOCK_SHIFT));
	put_le64(p, ino);
	put_le64(p + 8, fblock);
	put_le32(p + 16, count);
	put_le32(p + 20, 0);
	memcpy(p + 24, data, (size_t)count << BLOCK_SHIFT);
	return p + 24 + ((size_t)count << BLOCK_SHIFT);
}

static uint8_t *put_attr(uint8_t *p, const struct keys_attr *a)
{
	p = put_mutation(p, MUT_ATTR, 8 + INODE_SIZE);
	put_le64(p, a->ino);
	inode_encode(p + 8, a);
	return p + 8 + INODE_SIZE;
}

static void put_header(const struct work *w, uint8_t *p, uint32_t mutations, uint32_t len)
{
	const struct store *s = keys_store(w->k);

	memset(p, 0, CHANGE_HEADER);
	put_le64(p + CHANGE_SEQ, store_seq(s) + 1);
	put_le64(p + CHANGE_EPOCH_OFF, store_epoch(s));
	put_le64(p + CHANGE_TIME, w->real_ns);
	put_le16(p + CHANGE_TYPE, CHANGE_WRITE);
	put_le32(p + CHANGE_MUTATIONS, mutations);
	put_le64(p + CHANGE_CHECK, hash64(p + 8, len - 8, 0));
}

/* The file gets these blocks, in as many pieces as the primary had room for in one place. */
int work_receive(struct work *w, uint64_t ino, uint64_t off, const uint8_t *data, size_t len)
{
	static uint8_t bytes[CHANGE_MAX];
	uint64_t fblock = off >> BLOCK_SHIFT, count = len >> BLOCK_SHIFT, done = 0, part;
	const struct model_node *f = node_get(w, ino);
	unsigned pieces = 0;
	struct keys_attr a;
	uint8_t *p = bytes + CHANGE_HEADER;
	int r;

	work_say(w, "receive %zu bytes at %llu of %llu (size %llu)", len, (unsigned long long)off, (unsigned long long)ino,
		 (unsigned long long)f->a.size);
	check(off % BLOCK_SIZE == 0 && len % BLOCK_SIZE == 0 && count > 0 && count <= BLOCKS_MAX);
	w->expected = 0;
	for (; done < count; done += part) {
		part = ++pieces < PIECES_MAX ? 1 + work_random(w, count - done) : count - done;
		p = put_map(p, ino, fblock + done, (uint32_t)part, data + (done << BLOCK_SHIFT));
	}
	r = inode_get(w->k, ino, &a);
	if (r < 0)
		work_disagree(w, err_last());
	a.size = max_u64(a.size, off + len);
	a.mtime = a.ctime = model_now(w);
	p = put_attr(p, &a);
	put_header(w, bytes, pieces + 1, (uint32_t)(p - bytes));
	r = change_apply(w->k, bytes, (uint32_t)(p - bytes));
	if (!work_was_committed(w, r))
		return r;
	model_written(w, ino, off, data, len, 0);
	work_remember(w, ino, off, data, len);
	return r;
}

bool work_can_receive(uint64_t off, size_t len)
{
	return off % BLOCK_SIZE == 0 && len % BLOCK_SIZE == 0 && len >> BLOCK_SHIFT <= BLOCKS_MAX;
}

int work_receive_some(struct work *w)
{
	static uint8_t data[BLOCKS_MAX << BLOCK_SHIFT];
	uint64_t ino = work_pick_file(w), at;
	const struct model_node *f;
	size_t len;

	work_begin(w);
	if (ino == 0)
		return 0;
	f = node_get(w, ino);
	at = work_random(w, work_chance(w, 20) ? 400 : min_u64(f->a.size >> BLOCK_SHIFT, 400) + 2);
	len = (1 + (size_t)work_random(w, work_chance(w, 30) ? 3 : work_chance(w, 50) ? 20 : BLOCKS_MAX)) << BLOCK_SHIFT;
	work_bytes(w, data, len);
	return work_receive(w, ino, at << BLOCK_SHIFT, data, len);
}
