/* SPDX-License-Identifier: MIT
 *
 * journal: see journal.h; bytes in FORMAT.md section 4, crash order O1, O2, O4 in DESIGN.md.
 */
#include "core/store/journal.h"

#define SEARCH_TIMES 4u         /* a segment's bytes are hashed as often in the search for damage, and little more */

static uint64_t seg_size(const struct journal *j)
{
	return (uint64_t)1 << j->shift;
}

static uint64_t seg_offset(const struct journal *j, jpos_t pos)
{
	return pos & (seg_size(j) - 1);
}

static uint64_t seg_serial(const struct journal *j, jpos_t pos)
{
	return pos >> j->shift;
}

/* Address of a position whose segment is in use; NULL otherwise. */
static uint8_t *pos_address(const struct journal *j, jpos_t pos)
{
	uint64_t i = seg_serial(j, pos) - j->first_serial;

	return i < j->used ? (uint8_t *)map_block(j->map, j->segs[i]) + seg_offset(j, pos) : NULL;
}

int journal_init(struct journal *j, struct map *map, unsigned shift, uint64_t store_id, uint64_t nonce_seed)
{
	memset(j, 0, sizeof *j);
	j->map = map;
	j->shift = shift;
	j->store_id = store_id;
	j->nonce_seed = nonce_seed;
	return -pthread_mutex_init(&j->lock, NULL);
}

void journal_release(struct journal *j)
{
	if (j->map)
		(void)pthread_mutex_destroy(&j->lock);
	j->map = NULL;
}

static void publish(struct journal *j)
{
	/* The tail first: whoever sees the seq sees a tail that covers it. */
	atomic_store_explicit(&j->pub_tail, j->tail, memory_order_release);
	atomic_store_explicit(&j->pub_seq, j->seq, memory_order_release);
}

int journal_load(struct journal *j, const block_t *segs, unsigned count, const struct journal_start *start)
{
	if (count == 0 || count > JOURNAL_SEGS)
		return err_corrupt("superblock lists %u journal segments", count);
	if (seg_offset(j, start->pos) < SEG_HEADER || seg_offset(j, start->pos) + REC_NEXT_LEN > seg_size(j) ||
	    start->pos % 8 != 0)
		return err_corrupt("superblock: journal position %llu", (unsigned long long)start->pos);
	memcpy(j->segs, segs, count * sizeof *segs);
	j->count = count;
	j->used = 1;
	j->first_serial = seg_serial(j, start->pos);
	j->tail = start->pos;
	j->nonce = start->nonce;
	j->chain = start->chain;
	j->seq = start->seq;
	j->epoch = start->epoch;
	publish(j);
	return 0;
}

int journal_add_segment(struct journal *j, block_t first)
{
	int r = -ENOSPC;

	(void)pthread_mutex_lock(&j->lock);
	if (j->count < JOURNAL_SEGS) {
		j->segs[j->count++] = first;
		r = 0;
	}
	(void)pthread_mutex_unlock(&j->lock);
	return r;
}

bool journal_owns(const struct journal *j, block_t block, uint64_t count)
{
	unsigned i;

	for (i = 0; i < j->count; i++)
		if (block < j->segs[i] + journal_seg_blocks(j) && j->segs[i] < block + count)
			return true;
	return false;
}

bool journal_coming(struct journal *j, block_t *ret_first)
{
	bool any;

	(void)pthread_mutex_lock(&j->lock);
	any = j->used < j->count;
	*ret_first = any ? j->segs[j->used] : 0;
	(void)pthread_mutex_unlock(&j->lock);
	return any;
}

/* Write the header of the segment that is about to be used. */
static uint64_t begin_segment(struct journal *j, block_t first, uint64_t serial)
{
	uint8_t *p = map_block(j->map, first);
	uint64_t words[2] = { serial, j->nonce };
	uint64_t nonce = hash64(words, sizeof words, j->nonce_seed);

	memset(p, 0, SEG_HEADER);
	put_le64(p + SEG_MAGIC_OFF, SEG_MAGIC);
	put_le64(p + SEG_SERIAL, serial);
	put_le64(p + SEG_NONCE, nonce);
	put_le64(p + SEG_STORE, j->store_id);
	/* Spares are taken in order: this will most likely be the next one. Only for the search for damage. */
	put_le64(p + SEG_NEXT, j->used + 1 < j->count ? j->segs[j->used + 1] : 0);
	put_le64(p + SEG_CSUM, hash64(p + 16, SEG_HEADER - 16, first));
	return nonce;
}

int journal_new_start(struct journal *j)
{
	uint64_t serial = seg_serial(j, j->tail) + 1;

	if (journal_spares(j) == 0)
		return -EAGAIN;
	j->nonce = begin_segment(j, j->segs[j->used], serial);
	(void)pthread_mutex_lock(&j->lock);
	j->used++;
	(void)pthread_mutex_unlock(&j->lock);
	j->tail = serial << j->shift | SEG_HEADER;
	publish(j);
	return 0;
}

int journal_rebase(struct journal *j, seq_t seq, uint64_t epoch)
{
	seq_t old_seq = j->seq;
	uint64_t old_epoch = j->epoch;
	int r;

	/* Before the tail is published, so that nobody sees the new one with the old number. */
	j->seq = seq;
	j->epoch = epoch;
	r = journal_new_start(j);
	if (r < 0) {
		j->seq = old_seq;
		j->epoch = old_epoch;
	}
	return r;
}

/* Put a record at pos, where there is room. O1: the check is stored last; before it the bytes are no record, after it
 * they are one that recovery will find. (The order of the stores does not matter: a check over incomplete bytes fails.) */
static void put_record(struct journal *j, jpos_t pos, uint8_t *rec, uint32_t len, seq_t durable)
{
	uint8_t *to = pos_address(j, pos);
	bool internal = get_le16(rec + REC_FLAGS) & REC_FLAG_INTERNAL;

	check(to);
	put_le32(rec + REC_LEN, len);
	put_le64(rec + REC_CHAIN, j->chain);
	put_le64(rec + REC_SEQ, internal ? j->seq : j->seq + 1);
	put_le64(rec + REC_EPOCH, j->epoch);
	put_le64(rec + REC_DURABLE, durable);
	put_le64(rec + REC_CHECK, 0);
	memcpy(to, rec, len);
	j->chain = hash64(rec + 16, len - 16, j->nonce ^ pos);
	put_le64(to + REC_CHECK, j->chain);
	if (!internal)
		j->seq++;
	j->tail = pos + len;
}

/* Where the next record goes: behind the last, but not on a page that a sync is writing (J2). */
static jpos_t place(const struct journal *j)
{
	jpos_t page = j->tail & ~(jpos_t)(BLOCK_SIZE - 1), moved = page + BLOCK_SIZE;

	if (j->tail == page || atomic_load_explicit(&j->sync_mark, memory_order_acquire) <= page)
		return j->tail;
	if (seg_serial(j, moved) != seg_serial(j, j->tail) || seg_offset(j, moved) + REC_NEXT_LEN > seg_size(j))
		return j->tail;                 /* (J1) */
	return moved;
}

/* O4: lead to the first spare. A crash before the NEXT record is whole leaves the spare unused; after it, records go on
 * there. */
static int next_segment(struct journal *j, jpos_t pos, seq_t durable)
{
	uint8_t rec[REC_NEXT_LEN];
	uint64_t serial = seg_serial(j, pos) + 1, nonce;
	block_t first;

	if (journal_spares(j) <= JOURNAL_KEPT)
		return -EAGAIN;
	first = j->segs[j->used];
	nonce = begin_segment(j, first, serial);
	memset(rec, 0, sizeof rec);
	put_le32(rec + REC_MAGIC_OFF, REC_MAGIC);
	put_le16(rec + REC_TYPE, REC_TYPE_NEXT);
	put_le16(rec + REC_FLAGS, REC_FLAG_INTERNAL);
	put_le16(rec + REC_MUTATIONS, 1);
	put_le32(rec + REC_HEADER + MUT_LEN, 24);
	put_le64(rec + REC_HEADER + MUT_HEADER, first);
	put_le64(rec + REC_HEADER + MUT_HEADER + 8, serial);
	put_le64(rec + REC_HEADER + MUT_HEADER + 16, nonce);
	put_record(j, pos, rec, sizeof rec, durable);
	(void)pthread_mutex_lock(&j->lock);
	j->used++;
	(void)pthread_mutex_unlock(&j->lock);
	j->nonce = nonce;
	j->tail = serial << j->shift | SEG_HEADER;
	return 0;
}

int journal_append(struct journal *j, uint8_t *rec, uint32_t len, seq_t durable, const uint8_t **ret_rec)
{
	jpos_t pos = place(j);
	int r;

	check(len >= REC_HEADER && len <= REC_MAX && len % 8 == 0);
	if (seg_offset(j, pos) + len + REC_NEXT_LEN > seg_size(j)) {
		r = next_segment(j, pos, durable);
		if (r < 0)
			return r;
		pos = j->tail;
	}
	put_record(j, pos, rec, len, durable);
	*ret_rec = pos_address(j, pos);
	publish(j);
	return 0;
}

void journal_position(const struct journal *j, struct journal_start *ret)
{
	*ret = (struct journal_start){ .pos = j->tail, .nonce = j->nonce, .chain = j->chain, .seq = j->seq,
				       .epoch = j->epoch };
}

int journal_ranges(struct journal *j, jpos_t from, jpos_t to,
		   int (*fn)(void *ctx, block_t first, uint64_t count), void *ctx)
{
	while (from < to) {
		jpos_t end = min_u64(to, (seg_serial(j, from) + 1) << j->shift);
		uint64_t i, first = seg_offset(j, from) >> BLOCK_SHIFT;
		uint64_t count = div_up(seg_offset(j, end - 1) + 1, BLOCK_SIZE) - first;
		block_t block = 0;
		int r;

		(void)pthread_mutex_lock(&j->lock);
		i = seg_serial(j, from) - j->first_serial;
		if (i < j->used)
			block = j->segs[i] + first;
		(void)pthread_mutex_unlock(&j->lock);
		/* A segment that is no longer there was trimmed: a checkpoint made it superfluous. */
		r = block ? fn(ctx, block, count) : 0;
		if (r < 0)
			return r;
		from = end;
	}
	return 0;
}

static int sync_range(void *ctx, block_t first, uint64_t count)
{
	return map_sync(ctx, first, count);
}

int journal_sync(struct journal *j, jpos_t from, jpos_t to)
{
	/* (J2): from now on the tail stays away from the pages written here. An append that looked at the mark just
	 * before may still land on the last one; it is not among those this sync was asked for. */
	if (atomic_load_explicit(&j->sync_mark, memory_order_relaxed) < to)
		atomic_store_explicit(&j->sync_mark, to, memory_order_release);
	return journal_ranges(j, from & ~(jpos_t)(BLOCK_SIZE - 1), to, sync_range, j->map);
}

unsigned journal_old(const struct journal *j)
{
	return j->used - 1;
}

int journal_trim(struct journal *j, jpos_t pos, unsigned gone, unsigned keep,
		 int (*fn)(void *ctx, block_t first, uint64_t blocks), void *ctx)
{
	block_t old[JOURNAL_SEGS];
	unsigned n, i;
	int r = 0;

	(void)pthread_mutex_lock(&j->lock);
	n = (unsigned)min_u64(seg_serial(j, pos) - j->first_serial, j->used - 1);
	memcpy(old, j->segs, n * sizeof *old);
	memmove(j->segs, j->segs + n, (j->count - n) * sizeof *old);
	gone = (unsigned)min_u64(gone, n);
	memcpy(j->segs + j->count - n, old + gone, (n - gone) * sizeof *old);
	j->count -= gone;
	j->used -= n;
	j->first_serial += n;
	n = journal_spares(j) > keep ? journal_spares(j) - keep : 0;
	memcpy(old, j->segs + j->count - n, n * sizeof *old);
	j->count -= n;
	(void)pthread_mutex_unlock(&j->lock);
	for (i = 0; i < n && r == 0; i++)
		r = fn(ctx, old[i], journal_seg_blocks(j));
	return r;
}

int journal_go_low(struct journal *j, block_t limit, seq_t durable, int (*fn)(void *ctx, block_t first, uint64_t blocks),
		   void *ctx)
{
	unsigned i;
	int r = 0;

	for (i = j->count; i-- > j->used && r == 0; ) {
		block_t first = j->segs[i];

		if (first < limit)
			continue;
		(void)pthread_mutex_lock(&j->lock);
		memmove(j->segs + i, j->segs + i + 1, (j->count - i - 1) * sizeof *j->segs);
		j->count--;
		(void)pthread_mutex_unlock(&j->lock);
		r = fn(ctx, first, journal_seg_blocks(j));
	}
	if (r == 0 && j->segs[j->used - 1] >= limit && journal_spares(j) > JOURNAL_KEPT) {
		r = next_segment(j, place(j), durable);
		publish(j);
	}
	return r;
}

/* Recovery -------------------------------------------------------------------------------------------------------- */

/* Is there a record at pos that follows the last one? */
static bool record_at(const struct journal *j, jpos_t pos, struct journal_next *ret)
{
	const uint8_t *p = pos_address(j, pos);
	uint64_t room = seg_size(j) - seg_offset(j, pos);
	bool internal;
	uint32_t len;

	if (!p || room < REC_HEADER || get_le32(p + REC_MAGIC_OFF) != REC_MAGIC)
		return false;
	len = get_le32(p + REC_LEN);
	if (len < REC_HEADER || len > REC_MAX || len > room || len % 8 != 0)
		return false;
	internal = get_le16(p + REC_FLAGS) & REC_FLAG_INTERNAL;
	if (get_le64(p + REC_CHAIN) != j->chain || get_le64(p + REC_SEQ) != j->seq + !internal)
		return false;
	if (get_le64(p + REC_CHECK) != hash64(p + 16, len - 16, j->nonce ^ pos))
		return false;
	*ret = (struct journal_next){ p, len, pos };
	return true;
}

int journal_peek(struct journal *j, struct journal_next *ret)
{
	jpos_t moved = align_up(j->tail, BLOCK_SIZE);

	if (record_at(j, j->tail, ret))
		return 1;
	if (moved != j->tail && seg_serial(j, moved) == seg_serial(j, j->tail))
		return record_at(j, moved, ret);
	return 0;
}

/* A NEXT record: make the named segment the one after the last used. */
static int follow(struct journal *j, const uint8_t *rec, uint32_t len,
		  int (*claim)(void *ctx, block_t first, uint64_t blocks), void *ctx)
{
	const uint8_t *data = rec + REC_HEADER + MUT_HEADER;
	block_t first;
	unsigned i;
	int r;

	/* The tail may stand at the segment's very end: the record itself tells which segment it is in. */
	if (len != REC_NEXT_LEN || get_le64(data + 8) != seg_serial(j, j->tail - 1) + 1)
		return err_corrupt("journal: the record at position %llu leads nowhere",
				   (unsigned long long)j->tail);
	first = get_le64(data);
	for (i = j->used; i < j->count && j->segs[i] != first; i++)
		;
	if (i == j->count) {
		r = claim(ctx, first, journal_seg_blocks(j));
		if (r == 0)
			r = journal_add_segment(j, first);
		if (r < 0)
			return r;
	}
	j->segs[i] = j->segs[j->used];
	j->segs[j->used++] = first;
	j->nonce = get_le64(data + 16);
	j->tail = get_le64(data + 8) << j->shift | SEG_HEADER;
	j->skipped = 0;
	return 0;
}

int journal_accept(struct journal *j, const struct journal_next *n, int (*claim)(void *ctx, block_t first, uint64_t blocks),
		   void *ctx)
{
	bool internal = get_le16(n->rec + REC_FLAGS) & REC_FLAG_INTERNAL;
	int r = 0;

	j->chain = get_le64(n->rec + REC_CHECK);
	j->epoch = get_le64(n->rec + REC_EPOCH);
	j->seq += !internal;
	j->tail = n->pos + n->len;
	if (internal && get_le16(n->rec + REC_TYPE) == REC_TYPE_NEXT)
		r = follow(j, n->rec, n->len, claim, ctx);
	publish(j);
	return r;
}

/* Is there a record that is whole by itself, whatever came before it? Its length; 0: none. */
static uint32_t whole_at(const uint8_t *p, uint64_t room, uint64_t nonce, jpos_t pos, uint64_t *hashed)
{
	uint32_t len;

	if (get_le32(p + REC_MAGIC_OFF) != REC_MAGIC)
		return 0;
	len = get_le32(p + REC_LEN);
	if (len < REC_HEADER || len > REC_MAX || len > room || len % 8 != 0)
		return 0;
	*hashed += len;
	return get_le64(p + REC_CHECK) == hash64(p + 16, len - 16, nonce ^ pos) ? len : 0;
}

/* One use of a segment: which one, and what its records are sealed with. */
struct seg_use {
	block_t first;
	uint64_t serial, nonce;
};

/* Is a segment there, if it begins at this block? */
static bool is_inside(const struct journal *j, block_t first)
{
	uint64_t end = j->end > 0 ? j->end : map_blocks(j->map), need = journal_seg_blocks(j);

	return first >= SUPERS && need <= end && first <= end - need;
}

/* Where a whole NEXT record of u leads; false: the record is none, or leads nowhere. */
static bool leads_on(const struct journal *j, const struct seg_use *u, const uint8_t *rec, uint32_t len,
		     struct seg_use *ret)
{
	const uint8_t *data = rec + REC_HEADER + MUT_HEADER;

	if (len != REC_NEXT_LEN || get_le16(rec + REC_TYPE) != REC_TYPE_NEXT ||
	    !(get_le16(rec + REC_FLAGS) & REC_FLAG_INTERNAL) || get_le64(data + 8) != u->serial + 1)
		return false;
	*ret = (struct seg_use){ get_le64(data), u->serial + 1, get_le64(data + 16) };
	return is_inside(j, ret->first);
}

/* What one search has looked at. */
struct search {
	block_t first[2 * JOURNAL_SEGS];
	unsigned count;
};

/* In an honest journal no block is in two uses of segments since the last checkpoint. In one that was made on purpose each of a
 * segment's NEXT records may lead to that segment again, under another serial: it is looked at once. */
static bool looked_at(const struct journal *j, struct search *s, block_t first)
{
	uint64_t blocks = journal_seg_blocks(j);
	unsigned i;

	for (i = 0; i < s->count; i++)
		if (first < s->first[i] + blocks && s->first[i] < first + blocks)
			return true;
	if (s->count == ARRAY_LEN(s->first))
		return true;
	s->first[s->count++] = first;
	return false;
}

/* Look at a segment from `from` on. -EUCLEAN: a record there proves damage. 1: *ret_next is where its whole NEXT leads; 0:
 * it has none, or was looked at already.
 * Contents may be anything, also what looks like a record of 128 KiB at every 8 bytes. So when SEARCH_TIMES the segment's
 * size was hashed, only those places are looked at where a record that knows of a sync stands: the first one of a page,
 * since a sync moves the tail there (J2), and the first one of the segment. */
static int search_segment(struct journal *j, struct search *s, const struct seg_use *u, uint64_t from, struct seg_use *ret_next)
{
	const uint8_t *p = map_block(j->map, u->first);
	uint64_t off, hashed = 0;
	int r = 0;

	if (looked_at(j, s, u->first))
		return 0;
	for (off = from; off + REC_HEADER <= seg_size(j); off += 8) {
		uint32_t len;

		if (hashed > SEARCH_TIMES * seg_size(j) && off % BLOCK_SIZE != 0 && off != SEG_HEADER)
			continue;
		len = whole_at(p + off, seg_size(j) - off, u->nonce, u->serial << j->shift | off, &hashed);
		if (len == 0)
			continue;
		if (get_le64(p + off + REC_DURABLE) > j->seq) {
			j->proven = get_le64(p + off + REC_DURABLE);
			return err_corrupt("journal: the record of change %llu (byte %llu or behind) is damaged, although "
					   "it was on disk: the record at byte %llu says so",
					   (unsigned long long)(j->seq + 1),
					   (unsigned long long)((j->segs[j->used - 1] << BLOCK_SHIFT) +
								seg_offset(j, j->tail)),
					   (unsigned long long)((u->first << BLOCK_SHIFT) + off));
		}
		if (leads_on(j, u, p + off, len, ret_next))
			r = 1;
		off += len - 8;         /* within a whole record there are no others */
	}
	j->searched += hashed;
	return r;
}

/* A segment and those that the chain went on in. They may be none that a superblock lists: allocated since, they are
 * known by the NEXT records only. *serial becomes that of the last one. */
static int search_chain(struct journal *j, struct search *s, struct seg_use u, uint64_t from, uint64_t *serial)
{
	unsigned hops = 0;
	int r;

	do {
		struct seg_use next = { 0 };

		r = search_segment(j, s, &u, from, &next);
		*serial = u.serial;
		u = next;
		from = SEG_HEADER;
	} while (r > 0 && ++hops < JOURNAL_SEGS);
	return r < 0 ? r : 0;
}

static bool is_header(const struct journal *j, block_t first)
{
	const uint8_t *p;

	if (!is_inside(j, first))
		return false;
	p = map_block(j->map, first);
	return get_le64(p + SEG_MAGIC_OFF) == SEG_MAGIC && get_le64(p + SEG_STORE) == j->store_id &&
	       get_le64(p + SEG_CSUM) == hash64(p + 16, SEG_HEADER - 16, first);
}

/* The segment with this serial, as far as its header can be found: among those that we know, or where the header of the
 * one before it says. 0: none. */
static block_t find_segment(const struct journal *j, uint64_t serial, block_t before)
{
	const uint8_t *p;
	unsigned i;

	for (i = j->used; i < j->count; i++)
		if (is_header(j, j->segs[i]) &&
		    get_le64((uint8_t *)map_block(j->map, j->segs[i]) + SEG_SERIAL) == serial)
			return j->segs[i];
	if (!is_header(j, before))
		return 0;
	p = map_block(j->map, before);
	if (!is_header(j, get_le64(p + SEG_NEXT)))
		return 0;
	return get_le64((uint8_t *)map_block(j->map, get_le64(p + SEG_NEXT)) + SEG_SERIAL) == serial ?
	       get_le64(p + SEG_NEXT) : 0;
}

int journal_check_damage(struct journal *j)
{
	/* The tail may stand at the segment's very end. */
	uint64_t start = seg_serial(j, j->tail - 1), serial = start;
	block_t at = j->segs[j->used - 1];
	struct seg_use u = { at, start, j->nonce }, unused;
	struct search s = { .count = 0 };
	unsigned i;
	int r;

	j->searched = 0;
	r = search_chain(j, &s, u, j->tail - (start << j->shift), &serial);
	/* Segments that were used after these tell by their headers: the NEXT that led there may be what is damaged. */
	for (i = j->used; i < j->count && r == 0; i++) {
		const uint8_t *p;

		if (!is_header(j, j->segs[i]))
			continue;
		p = map_block(j->map, j->segs[i]);
		if (get_le64(p + SEG_SERIAL) <= serial)
			continue;
		u = (struct seg_use){ j->segs[i], get_le64(p + SEG_SERIAL), get_le64(p + SEG_NONCE) };
		r = search_chain(j, &s, u, SEG_HEADER, &serial);
	}
	/* Those that no superblock lists, behind a NEXT that is damaged itself: each header names the one after it. */
	for (i = 0; i < SEGS_MAX && r >= 0; i++) {
		at = find_segment(j, start + 1 + i, at);
		if (at == 0)
			break;
		u = (struct seg_use){ at, start + 1 + i, get_le64((uint8_t *)map_block(j->map, at) + SEG_NONCE) };
		r = search_segment(j, &s, &u, SEG_HEADER, &unused);
	}
	return r < 0 ? r : 0;
}

/* Salvage --------------------------------------------------------------------------------------------------------- */

uint64_t journal_byte(const struct journal *j)
{
	return (j->segs[j->used - 1] << BLOCK_SHIFT) + seg_offset(j, j->tail);
}

/* The next whole record in the tail's segment, from the tail on, or behind it; the tail is put there. */
static bool skip_in_segment(struct journal *j, bool past)
{
	const uint8_t *p = map_block(j->map, j->segs[j->used - 1]);
	uint64_t off;

	for (off = seg_offset(j, j->tail) + (past ? 8 : 0); off < seg_size(j); off += 8) {
		jpos_t pos = (j->tail & ~(seg_size(j) - 1)) | off;
		bool internal;
		seq_t seq;

		/* As in search_segment(), and for the same reason. */
		if (j->skipped > SEARCH_TIMES * seg_size(j) && off % BLOCK_SIZE != 0 && off != SEG_HEADER)
			continue;
		if (off + REC_HEADER > seg_size(j) || !whole_at(p + off, seg_size(j) - off, j->nonce, pos, &j->skipped))
			continue;
		internal = get_le16(p + off + REC_FLAGS) & REC_FLAG_INTERNAL;
		seq = get_le64(p + off + REC_SEQ);
		if (seq < j->seq + !internal)
			continue;
		j->tail = pos;
		j->chain = get_le64(p + off + REC_CHAIN);
		j->seq = seq - !internal;
		return true;
	}
	return false;
}

int journal_skip(struct journal *j, bool past)
{
	while (!skip_in_segment(j, past)) {
		uint64_t serial = seg_serial(j, j->tail) + 1;
		block_t first = find_segment(j, serial, j->segs[j->used - 1]);
		unsigned i;

		if (first == 0)
			return 0;
		for (i = j->used; i < j->count && j->segs[i] != first; i++)
			;
		if (i == j->count && journal_add_segment(j, first) < 0)
			return 0;
		j->segs[i] = j->segs[j->used];
		j->segs[j->used++] = first;
		j->nonce = get_le64((uint8_t *)map_block(j->map, first) + SEG_NONCE);
		j->tail = serial << j->shift | SEG_HEADER;
		j->skipped = 0;
		past = false;
	}
	publish(j);
	return 1;
}
