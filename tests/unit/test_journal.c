/* SPDX-License-Identifier: MIT
 *
 * test_journal: what was appended is read again, to the last whole record and no further, whatever stands behind it.
 */
#include "tests/unit/random_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/store/journal.h"
#include "core/store/record.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define SHIFT    SEG_SHIFT_SMALL
#define SEG_SIZE (1u << SHIFT)
#define STORE_ID 0x1122334455667788ull
#define LOG_MAX  40000u

struct entry {
	jpos_t pos;
	uint32_t len;
	seq_t seq;
	uint8_t fill;
};

struct world {
	struct map map;
	int fd;
	struct journal j;
	struct journal_start start;             /* where a reader begins: the last checkpoint */
	block_t segs[SEGS_MAX];                 /* as that superblock lists them */
	unsigned seg_count;
	block_t next_seg;                       /* never used so far */
	struct entry log[LOG_MAX];              /* since the checkpoint */
	unsigned logged;
	unsigned given, claimed;                /* segments */
	uint8_t buf[REC_MAX];
};

static void add_segments(struct world *w, unsigned n)
{
	for (; n > 0; n--, w->next_seg += SEG_SIZE / BLOCK_SIZE)
		assert_int_equal(journal_add_segment(&w->j, w->next_seg), 0);
}

/* As a checkpoint's superblock says: the segment of the position first, then all others. */
static void note_start(struct world *w)
{
	unsigned i;

	journal_position(&w->j, &w->start);
	w->seg_count = 0;
	for (i = w->j.used - 1; i < w->j.count; i++)
		w->segs[w->seg_count++] = w->j.segs[i];
	for (i = 0; i + 1 < w->j.used; i++)
		w->segs[w->seg_count++] = w->j.segs[i];
	w->logged = 0;
}

static struct world *world_new(unsigned spares)
{
	struct journal_start start = { .pos = (1u << SHIFT) | SEG_HEADER, .nonce = 77, .seq = 10, .epoch = 3 };
	struct world *w = calloc(1, sizeof *w);
	block_t first = 10;

	assert_non_null(w);
	w->fd = memfd_create("journal", MFD_CLOEXEC);
	assert_true(w->fd >= 0);
	assert_int_equal(map_open(&w->map, w->fd, false, 1ull << 30, &sys_linux), 0);
	assert_int_equal(map_grow(&w->map, 4096), 0);
	assert_int_equal(journal_init(&w->j, &w->map, SHIFT, STORE_ID, 0xabcdef), 0);
	assert_int_equal(journal_load(&w->j, &first, 1, &start), 0);
	w->next_seg = first + SEG_SIZE / BLOCK_SIZE;
	add_segments(w, spares);
	assert_int_equal(journal_new_start(&w->j), 0);
	note_start(w);
	assert_int_equal(journal_trim(&w->j, w->start.pos, 0, SEGS_MAX, NULL, NULL), 0);
	return w;
}

static void world_free(struct world *w)
{
	journal_release(&w->j);
	map_close(&w->map);
	(void)close(w->fd);
	free(w);
}

static int append(struct world *w, uint32_t len, seq_t durable, bool internal)
{
	struct record rec = { .buf = w->buf };
	struct entry *e = &w->log[w->logged];
	const uint8_t *at;
	int r;

	e->fill = (uint8_t)rnd(256);
	e->len = len;
	record_begin(&rec, 2, internal ? REC_FLAG_INTERNAL : 0, 5);
	memset(record_mutation(&rec, 200, len - REC_HEADER - MUT_HEADER), e->fill, len - REC_HEADER - MUT_HEADER);
	assert_int_equal(rec.len, len);
	r = journal_append(&w->j, rec.buf, rec.len, durable, &at);
	if (r < 0)
		return r;
	e->seq = w->j.seq;
	e->pos = w->j.tail - len;
	assert_int_equal(get_le64(at + REC_SEQ), e->seq);
	w->logged++;
	return 0;
}

static uint32_t any_len(uint32_t max)
{
	return REC_HEADER + MUT_HEADER + 8 * rnd((max - REC_HEADER - MUT_HEADER) / 8 + 1);
}

static int claim(void *ctx, block_t first, uint64_t blocks)
{
	struct world *w = ctx;

	assert_int_equal(blocks, SEG_SIZE / BLOCK_SIZE);
	assert_true(first < map_blocks(&w->map));
	w->claimed++;
	return 0;
}

/* Read from the start on; each record must be the one that was written. How many there are; *ret_damage as
 * journal_check_damage() says, or the error of a record that leads nowhere. */
static unsigned read_all(struct world *w, int *ret_damage)
{
	struct journal_next next;
	struct journal j;
	unsigned n = 0;

	assert_int_equal(journal_init(&j, &w->map, SHIFT, STORE_ID, 1), 0);
	assert_int_equal(journal_load(&j, w->segs, w->seg_count, &w->start), 0);
	*ret_damage = 0;
	while (*ret_damage == 0 && journal_peek(&j, &next) == 1) {
		if (get_le16(next.rec + REC_TYPE) != REC_TYPE_NEXT) {
			const struct entry *e = &w->log[n++];
			struct record_reader r;
			struct mutation m;
			uint32_t i;

			assert_true(n <= w->logged);
			assert_int_equal(next.pos, e->pos);
			assert_int_equal(next.len, e->len);
			assert_int_equal(get_le64(next.rec + REC_SEQ), e->seq);
			assert_int_equal(record_open(&r, next.rec, next.len), 0);
			assert_int_equal(record_next(&r, &m), 1);
			for (i = 0; i < m.len; i++)
				assert_true(m.data[i] == e->fill);
		}
		*ret_damage = journal_accept(&j, &next, claim, w);
	}
	if (*ret_damage == 0 && n == w->logged) {
		assert_int_equal(j.tail, w->j.tail);
		assert_int_equal(j.chain, w->j.chain);
		assert_int_equal(j.seq, w->j.seq);
		assert_int_equal(j.nonce, w->j.nonce);
		assert_int_equal(j.epoch, w->j.epoch);
	}
	if (*ret_damage == 0)
		*ret_damage = journal_check_damage(&j);
	journal_release(&j);
	return n;
}

static void expect_all(struct world *w)
{
	int damage;

	assert_int_equal(read_all(w, &damage), w->logged);
	assert_int_equal(damage, 0);
}

static uint8_t *bytes_at(const struct world *w, jpos_t pos)
{
	return (uint8_t *)map_block(&w->map, w->j.segs[(pos >> SHIFT) - w->j.first_serial]) + (pos & (SEG_SIZE - 1));
}

static void test_journal__records_are_read_in_order(void **state)
{
	struct world *w = world_new(20);
	unsigned i;

	(void)state;
	expect_all(w);
	for (i = 0; w->j.used < 18; i++) {
		assert_int_equal(append(w, any_len(i % 50 ? 900 : REC_MAX), 0, rnd(8) == 0), 0);
		if (i % 400 == 0)
			expect_all(w);
	}
	expect_all(w);
	assert_int_equal(w->claimed, 0);
	/* The same for a superblock that does not know the later segments. */
	w->seg_count = 1;
	expect_all(w);
	assert_int_equal(w->claimed, 17);
	world_free(w);
}

/* Room left at a segment's end, from none at all up. */
static void test_journal__segment_change_at_every_distance(void **state)
{
	uint32_t spare;

	(void)state;
	for (spare = 0; spare <= 2 * REC_NEXT_LEN; spare += 8) {
		struct world *w = world_new(3);
		uint32_t room;

		assert_int_equal(append(w, REC_MAX, 0, false), 0);
		room = SEG_SIZE - (uint32_t)(w->j.tail & (SEG_SIZE - 1)) - REC_NEXT_LEN;
		assert_int_equal(append(w, room - spare, 0, false), 0);
		expect_all(w);
		if (spare % 16)
			note_start(w);          /* a checkpoint is cut just there */
		assert_int_equal(append(w, 104 + spare / 2 % 64 * 8, 0, false), 0);
		assert_int_equal(append(w, 104, 0, false), 0);
		assert_int_equal(w->j.used, spare < 104 + spare / 2 % 64 * 8 ? 2 : w->j.used);
		expect_all(w);
		if (w->j.used == 2)
			w->seg_count = 1;
		expect_all(w);
		world_free(w);
	}
}

static void test_journal__sync_moves_the_tail_to_the_next_page(void **state)
{
	struct world *w = world_new(20);
	unsigned i;

	(void)state;
	for (i = 0; i < 900; i++) {
		jpos_t tail = w->j.tail;

		if (rnd(3) == 0) {
			assert_int_equal(journal_sync(&w->j, w->start.pos, tail), 0);
			assert_int_equal(append(w, any_len(500), 0, false), 0);
			if (w->log[w->logged - 1].pos >> SHIFT == tail >> SHIFT &&
			    (tail & (SEG_SIZE - 1)) + 2 * BLOCK_SIZE < SEG_SIZE)
				assert_int_equal(w->log[w->logged - 1].pos, align_up(tail, BLOCK_SIZE));
		} else {
			assert_int_equal(append(w, any_len(3000), 0, false), 0);
		}
	}
	assert_true(w->j.used > 3);
	expect_all(w);
	world_free(w);
}

static void test_journal__full_without_spares_changes_nothing(void **state)
{
	struct world *w = world_new(2);
	struct journal_start before, after;
	int r;

	(void)state;
	while ((r = append(w, any_len(20000), 0, false)) == 0)
		;
	assert_int_equal(r, -EAGAIN);
	assert_int_equal(journal_spares(&w->j), JOURNAL_KEPT);
	journal_position(&w->j, &before);
	assert_int_equal(append(w, 40000, 0, false), -EAGAIN);
	journal_position(&w->j, &after);
	assert_memory_equal(&before, &after, sizeof before);
	expect_all(w);
	add_segments(w, 1);
	assert_int_equal(append(w, 40000, 0, false), 0);
	expect_all(w);
	world_free(w);
}

static void test_journal__torn_tail_is_discarded(void **state)
{
	struct world *w = world_new(3);
	const struct entry *last;
	uint8_t kept[400], *p;
	uint32_t cut;
	unsigned i;
	int damage;

	(void)state;
	for (i = 0; i < 20; i++)
		assert_int_equal(append(w, i == 19 ? 400 : any_len(300), i > 2 ? w->j.seq - 2 : 0, false), 0);
	last = &w->log[w->logged - 1];
	p = bytes_at(w, last->pos);
	memcpy(kept, p, last->len);
	for (cut = 0; cut < last->len; cut++) {
		/* Something else than the record stood there before. */
		memset(p + cut, last->fill ^ 0x5a, last->len - cut);
		assert_int_equal(read_all(w, &damage), w->logged - 1);
		assert_int_equal(damage, 0);
		memcpy(p, kept, last->len);
	}
	/* Everything but the check. */
	memset(p + REC_CHECK, 0, 8);
	assert_int_equal(read_all(w, &damage), w->logged - 1);
	memcpy(p, kept, last->len);
	expect_all(w);
	world_free(w);
}

/* Each byte of a record in the middle: the prefix ends before it. It is called damage if and only if a later record says
 * that it was on disk. */
static void flip_bytes(bool durable)
{
	struct world *w = world_new(3);
	const struct entry *e;
	unsigned i, mid = 6;
	uint8_t *p;
	int damage;

	for (i = 0; i < 12; i++)
		assert_int_equal(append(w, any_len(300), durable ? w->j.seq : 0, false), 0);
	e = &w->log[mid];
	p = bytes_at(w, e->pos);
	for (i = 0; i < e->len; i++) {
		unsigned bit;

		for (bit = 0; bit < 8; bit++) {
			p[i] ^= (uint8_t)(1u << bit);
			assert_int_equal(read_all(w, &damage), mid);
			assert_int_equal(damage, durable ? -EUCLEAN : 0);
			p[i] ^= (uint8_t)(1u << bit);
		}
	}
	expect_all(w);
	world_free(w);
}

static void test_journal__flipped_bit_ends_the_prefix(void **state)
{
	(void)state;
	flip_bytes(false);
}

static void test_journal__flipped_bit_before_durable_is_damage(void **state)
{
	(void)state;
	flip_bytes(true);
}

/* The record that leads to the next segment is as good as any other. */
static void test_journal__damaged_next_is_damage(void **state)
{
	struct world *w = world_new(3);
	unsigned i, before;
	jpos_t next;
	uint8_t *p;
	int damage;

	(void)state;
	assert_int_equal(append(w, REC_MAX, 0, false), 0);
	assert_int_equal(append(w, SEG_SIZE - REC_MAX - SEG_HEADER - REC_NEXT_LEN, 0, false), 0);
	next = w->j.tail;
	before = w->logged;
	for (i = 0; i < 3; i++)
		assert_int_equal(append(w, 200, w->j.seq, false), 0);
	assert_int_equal(w->j.used, 2);
	p = bytes_at(w, next);
	for (i = 0; i < REC_NEXT_LEN; i++) {
		p[i] ^= 0x10;
		assert_int_equal(read_all(w, &damage), before);
		assert_int_equal(damage, -EUCLEAN);
		p[i] ^= 0x10;
	}
	expect_all(w);
	world_free(w);
}

/* The record that proves the damage may stand in segments that were allocated after the checkpoint: only the NEXT records
 * before it know them. */
static void test_journal__damage_is_seen_from_segments_that_are_not_listed(void **state)
{
	struct world *w = world_new(1);
	uint8_t *p;
	unsigned i;
	int damage;

	(void)state;
	add_segments(w, 4);
	for (i = 0; i < 9; i++)
		assert_int_equal(append(w, REC_MAX - 1000, 0, false), 0);
	assert_true(w->j.used >= 4);
	assert_int_equal(append(w, 200, 0, false), 0);
	p = bytes_at(w, w->log[0].pos);
	p[300] ^= 1;
	/* Nothing says so far that it was on disk. */
	assert_int_equal(read_all(w, &damage), 0);
	assert_int_equal(damage, 0);
	assert_int_equal(append(w, 200, w->log[0].seq, false), 0);
	assert_int_equal(read_all(w, &damage), 0);
	assert_int_equal(damage, -EUCLEAN);
	p[300] ^= 1;
	expect_all(w);
	world_free(w);
}

/* A segment that leads into itself or out of the store ends the search. */
static void test_journal__the_search_for_damage_ends(void **state)
{
	static const uint64_t bad[] = { 0, 1, 4096 - SEG_SIZE / BLOCK_SIZE + 1, 4096, UINT64_MAX, UINT64_MAX - 3 };
	struct world *w = world_new(3);
	uint8_t *p;
	unsigned i;
	int damage;

	(void)state;
	assert_int_equal(append(w, 200, 0, false), 0);
	assert_int_equal(append(w, REC_MAX, 0, false), 0);
	assert_int_equal(append(w, SEG_SIZE - REC_MAX - 200 - SEG_HEADER - REC_NEXT_LEN, 0, false), 0);
	p = bytes_at(w, w->j.tail);
	assert_int_equal(append(w, 200, w->log[0].seq, false), 0);
	bytes_at(w, w->log[0].pos)[150] ^= 1;
	assert_int_equal(read_all(w, &damage), 0);
	assert_int_equal(damage, -EUCLEAN);
	for (i = 0; i < ARRAY_LEN(bad); i++) {
		jpos_t pos = w->log[2].pos + w->log[2].len;

		put_le64(p + REC_HEADER + MUT_HEADER, bad[i]);
		put_le64(p + REC_CHECK, hash64(p + 16, REC_NEXT_LEN - 16, w->start.nonce ^ pos));
		/* What the NEXT names is not looked at; the segment's header is, since it is listed. */
		assert_int_equal(read_all(w, &damage), 0);
		assert_int_equal(damage, -EUCLEAN);
	}
	world_free(w);
}

/* Contents made to look like long records everywhere cost no more than a few times the journal's size, and what was
 * written after a sync is found behind them all the same. */
static void test_journal__crafted_contents_do_not_slow_the_search(void **state)
{
	struct world *w = world_new(3);
	struct journal_next next;
	struct journal j;
	uint64_t off;
	uint8_t *p;
	unsigned i;
	int damage;

	(void)state;
	for (i = 0; i < 2; i++)
		assert_int_equal(append(w, i == 0 ? REC_MAX : SEG_SIZE / 4, 0, false), 0);
	p = bytes_at(w, w->log[0].pos);
	for (off = REC_HEADER; off < (uint64_t)REC_MAX + SEG_SIZE / 4; off += 8) {
		put_le32(p + off, REC_MAGIC);
		put_le32(p + off + 4, SEG_SIZE / 2 - 64);
	}
	assert_int_equal(journal_init(&j, &w->map, SHIFT, STORE_ID, 1), 0);
	assert_int_equal(journal_load(&j, w->segs, w->seg_count, &w->start), 0);
	assert_int_equal(journal_peek(&j, &next), 0);
	assert_int_equal(journal_check_damage(&j), 0);
	/* It did look, and then at one place in a page. */
	assert_true(j.searched > 4 * SEG_SIZE);
	assert_true(j.searched < 4 * SEG_SIZE + (SEG_SIZE / BLOCK_SIZE + 1) * (uint64_t)REC_MAX);
	journal_release(&j);

	assert_int_equal(journal_sync(&w->j, w->log[0].pos, w->j.tail), 0);
	assert_int_equal(append(w, 200, w->j.seq, false), 0);
	assert_int_equal(w->log[2].pos % BLOCK_SIZE, 0);
	assert_int_equal(read_all(w, &damage), 0);
	assert_int_equal(damage, -EUCLEAN);
	world_free(w);
}

/* Hundreds of NEXT records in one segment, each whole in one use of it, which the one before leads to. */
static void test_journal__segment_that_leads_to_itself_is_searched_once(void **state)
{
	struct world *w = world_new(3);
	uint64_t serial = w->start.pos >> SHIFT, nonce = w->start.nonce, off = w->start.pos & (SEG_SIZE - 1);
	uint8_t *p = bytes_at(w, w->start.pos);
	struct journal j;
	unsigned i;

	(void)state;
	assert_int_equal(append(w, 200, 0, false), 0);
	for (i = 0; i < 500; i++, p += REC_NEXT_LEN, off += REC_NEXT_LEN, serial++) {
		memset(p, 0, REC_NEXT_LEN);
		put_le32(p + REC_MAGIC_OFF, REC_MAGIC);
		put_le32(p + REC_LEN, REC_NEXT_LEN);
		put_le16(p + REC_TYPE, REC_TYPE_NEXT);
		put_le16(p + REC_FLAGS, REC_FLAG_INTERNAL);
		put_le64(p + REC_HEADER + MUT_HEADER, w->segs[0]);
		put_le64(p + REC_HEADER + MUT_HEADER + 8, serial + 1);
		put_le64(p + REC_HEADER + MUT_HEADER + 16, nonce + 1);
		put_le64(p + REC_CHECK, hash64(p + 16, REC_NEXT_LEN - 16, nonce++ ^ (serial << SHIFT | off)));
	}
	assert_int_equal(journal_init(&j, &w->map, SHIFT, STORE_ID, 1), 0);
	assert_int_equal(journal_load(&j, w->segs, w->seg_count, &w->start), 0);
	assert_int_equal(journal_check_damage(&j), 0);
	assert_true(j.searched > 0 && j.searched < 2 * SEG_SIZE);
	journal_release(&j);
	world_free(w);
}

static int give(void *ctx, block_t first, uint64_t blocks)
{
	struct world *w = ctx;

	assert_true(first > 0);
	assert_int_equal(blocks, SEG_SIZE / BLOCK_SIZE);
	w->given++;
	return 0;
}

/* Segments are used again and again; records of equal length stand where older ones stood. */
static void recycle(uint32_t len, uint32_t kinds)
{
	struct world *w = world_new(6);
	unsigned round, i, n;
	seq_t durable = 0;

	for (round = 0; round < 60; round++) {
		n = 1 + rnd(4 * SEG_SIZE / len);
		for (i = 0; i < n && append(w, len + 8 * rnd(kinds), durable, false) == 0; i++) {
			if (rnd(200) == 0) {
				assert_int_equal(journal_sync(&w->j, w->start.pos, w->j.tail), 0);
				durable = w->j.seq;
			}
		}
		expect_all(w);
		note_start(w);
		durable = w->j.seq;
		/* A reader of this checkpoint, before anything was written behind it: nothing stale is taken up. */
		expect_all(w);
		assert_int_equal(journal_trim(&w->j, w->start.pos, 0, 6, give, w), 0);
		assert_int_equal(w->j.used, 1);
		assert_int_equal(w->j.count, 7);
		expect_all(w);
		if (rnd(6) == 0) {
			/* After a crash: records go on elsewhere. */
			assert_int_equal(journal_new_start(&w->j), 0);
			note_start(w);
			expect_all(w);
			assert_int_equal(journal_trim(&w->j, w->start.pos, 0, 6, give, w), 0);
		}
	}
	world_free(w);
}

static void test_journal__stale_records_are_never_read(void **state)
{
	(void)state;
	recycle(512, 1);
	recycle(4096, 1);
	recycle(104, 3);
	recycle(1000, 40);
}

static void test_journal__trim_gives_back_what_is_too_much(void **state)
{
	struct world *w = world_new(12);
	jpos_t from = w->start.pos;

	(void)state;
	while (w->j.used < 9)
		assert_int_equal(append(w, 60000, 0, false), 0);
	assert_int_equal(journal_trim(&w->j, from, 0, 100, give, w), 0);
	assert_int_equal(w->j.used, 9);
	note_start(w);
	assert_int_equal(journal_trim(&w->j, w->start.pos, 0, 4, give, w), 0);
	assert_int_equal(w->j.used, 1);
	assert_int_equal(journal_spares(&w->j), 4);
	assert_int_equal(w->given, 13 - 1 - 4);
	/* Twice is no harm. */
	assert_int_equal(journal_trim(&w->j, w->start.pos, 0, 4, give, w), 0);
	assert_int_equal(append(w, 60000, 0, false), 0);
	assert_int_equal(append(w, 60000, 0, false), 0);
	assert_int_equal(append(w, 60000, 0, false), 0);
	assert_int_equal(append(w, 60000, 0, false), 0);
	assert_int_equal(append(w, 60000, 0, false), 0);
	expect_all(w);
	world_free(w);
}

static void test_journal__go_low_leaves_the_end(void **state)
{
	struct world *w = world_new(6);
	block_t limit = w->j.segs[3];
	unsigned i;

	(void)state;
	/* The tail stands behind the limit, two spares before it. */
	while (w->j.segs[w->j.used - 1] < limit)
		assert_int_equal(append(w, 60000, 0, false), 0);
	note_start(w);
	assert_int_equal(journal_trim(&w->j, w->start.pos, 0, 20, give, w), 0);
	assert_int_equal(w->given, 0);
	assert_int_equal(append(w, 600, 0, false), 0);
	assert_int_equal(journal_go_low(&w->j, limit, 0, give, w), 0);
	assert_true(w->given > 0);
	assert_true(w->j.segs[w->j.used - 1] < limit);
	for (i = w->j.used; i < w->j.count; i++)
		assert_true(w->j.segs[i] < limit);
	assert_int_equal(append(w, 600, 0, false), 0);
	expect_all(w);
	world_free(w);
}

struct covered {
	uint64_t blocks;
	unsigned pieces;
};

static int count_range(void *ctx, block_t first, uint64_t count)
{
	struct covered *c = ctx;

	(void)first;
	c->blocks += count;
	c->pieces++;
	return 0;
}

static void test_journal__ranges_cover_what_was_asked_for(void **state)
{
	struct world *w = world_new(6);
	struct covered c = { 0, 0 };
	jpos_t seg = w->start.pos & ~(jpos_t)(SEG_SIZE - 1);

	(void)state;
	while (w->j.used < 3)
		assert_int_equal(append(w, 60000, 0, false), 0);
	assert_int_equal(journal_ranges(&w->j, seg + 100, seg + 100, count_range, &c), 0);
	assert_int_equal(c.blocks, 0);
	assert_int_equal(journal_ranges(&w->j, seg + 4095, seg + 4097, count_range, &c), 0);
	assert_int_equal(c.blocks, 2);
	c = (struct covered){ 0, 0 };
	assert_int_equal(journal_ranges(&w->j, seg + 64, seg + 2 * SEG_SIZE + 1, count_range, &c), 0);
	assert_int_equal(c.pieces, 3);
	assert_int_equal(c.blocks, 2 * SEG_SIZE / BLOCK_SIZE + 1);
	/* Trimmed segments need no sync any more. */
	note_start(w);
	assert_int_equal(journal_trim(&w->j, w->start.pos, 0, 20, give, w), 0);
	c = (struct covered){ 0, 0 };
	assert_int_equal(journal_ranges(&w->j, seg + 64, seg + 2 * SEG_SIZE + 1, count_range, &c), 0);
	assert_int_equal(c.blocks, 1);
	world_free(w);
}

static void test_journal__impossible_start_is_refused(void **state)
{
	static const uint64_t offsets[] = { 0, 56, 65, SEG_SIZE - REC_NEXT_LEN + 8, SEG_SIZE - 8 };
	struct world *w = world_new(2);
	struct journal j;
	unsigned i;

	(void)state;
	assert_int_equal(journal_init(&j, &w->map, SHIFT, STORE_ID, 1), 0);
	for (i = 0; i < ARRAY_LEN(offsets); i++) {
		struct journal_start s = w->start;

		s.pos = (5u << SHIFT) + offsets[i];
		assert_int_equal(journal_load(&j, w->segs, 1, &s), -EUCLEAN);
	}
	assert_int_equal(journal_load(&j, w->segs, 0, &w->start), -EUCLEAN);
	assert_int_equal(journal_load(&j, w->segs, JOURNAL_SEGS + 1, &w->start), -EUCLEAN);
	journal_release(&j);
	for (i = w->j.count; i < JOURNAL_SEGS; i++)
		assert_int_equal(journal_add_segment(&w->j, 3000), 0);
	assert_int_equal(journal_add_segment(&w->j, 3000), -ENOSPC);
	world_free(w);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_journal__records_are_read_in_order),
	cmocka_unit_test(test_journal__segment_change_at_every_distance),
	cmocka_unit_test(test_journal__sync_moves_the_tail_to_the_next_page),
	cmocka_unit_test(test_journal__full_without_spares_changes_nothing),
	cmocka_unit_test(test_journal__torn_tail_is_discarded),
	cmocka_unit_test(test_journal__flipped_bit_ends_the_prefix),
	cmocka_unit_test(test_journal__flipped_bit_before_durable_is_damage),
	cmocka_unit_test(test_journal__damaged_next_is_damage),
	cmocka_unit_test(test_journal__damage_is_seen_from_segments_that_are_not_listed),
	cmocka_unit_test(test_journal__the_search_for_damage_ends),
	cmocka_unit_test(test_journal__crafted_contents_do_not_slow_the_search),
	cmocka_unit_test(test_journal__segment_that_leads_to_itself_is_searched_once),
	cmocka_unit_test(test_journal__stale_records_are_never_read),
	cmocka_unit_test(test_journal__trim_gives_back_what_is_too_much),
	cmocka_unit_test(test_journal__go_low_leaves_the_end),
	cmocka_unit_test(test_journal__ranges_cover_what_was_asked_for),
	cmocka_unit_test(test_journal__impossible_start_is_refused),
};

int main(void)
{
	return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
