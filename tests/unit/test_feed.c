/* SPDX-License-Identifier: MIT
 *
 * test_feed: the ring of the last changes: what is added is read, in order and whole; who is too slow is told; readers on
 * other threads never see a record that is partly another one, also while the feed begins anew.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/store/format.h"

/* The code under test with a place where another thread can be let in between two words, in the same way each time. */
static void between_words(void);
static inline void *copy_word(void *to, const void *from, size_t n)
{
	between_words();
	return (memcpy)(to, from, n);
}
#define memcpy copy_word
#include "core/replica/feed.c"
#undef memcpy


#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SECOND 1000000000ull
#define LONG_LINE 1000000u
/* A sanitizer looks at each of the many stores. */
#ifdef MSYNCFS_DEBUG
#define OVERTAKEN 300u          /* copies that somebody comes into */
#define CHANGES 50000u          /* beside readers; and after them LONG records that are long: the ring has */
#define LONG    500u            /* room for a few, and copying takes time */
#else
#define OVERTAKEN 2000u
#define CHANGES 100000u
#define LONG    4000u
#endif

/* A record whose every word follows from its number and the line that it is of. */
static uint32_t fill(uint8_t *rec, seq_t seq, uint64_t line, uint64_t time_ns)
{
	uint32_t len = REC_HEADER + (uint32_t)(hash64(&seq, 8, line) % 400) * 8, i;

	if (seq % 1000 == 999 || line == LONG_LINE)
		len = REC_MAX;
	for (i = 0; i < len; i += 8)
		put_le64(rec + i, seq * 0x9e3779b97f4a7c15ull + line * 7 + i);
	put_le64(rec + REC_SEQ, seq);
	put_le64(rec + REC_TIME, time_ns);
	return len;
}

static bool is_whole(const uint8_t *rec, uint32_t len, seq_t seq, uint64_t line)
{
	static _Thread_local uint8_t want[REC_MAX];

	return len == fill(want, seq, line, get_le64(rec + REC_TIME)) && memcmp(rec, want, len) == 0;
}

static void add(struct feed *f, seq_t seq, uint64_t line, uint64_t time_ns)
{
	static uint8_t rec[REC_MAX];

	feed_add(f, rec, fill(rec, seq, line, time_ns));
}

static void test_feed__in_order_and_whole(void **state)
{
	static uint8_t buf[REC_MAX];
	struct feed f;
	struct feed_reader r;
	seq_t first, last, seq;
	uint32_t len;

	(void)state;
	assert_int_equal(feed_init(&f, 1u << 20, 0, 41), 0);
	assert_false(feed_range(&f, &first, &last));
	assert_int_equal(feed_reader_init(&r, &f, 40), -ESTALE);
	assert_int_equal(feed_reader_init(&r, &f, 42), -EINVAL);
	assert_int_equal(feed_reader_init(&r, &f, 41), 0);
	assert_int_equal(feed_read(&r, buf, &len), 0);
	for (seq = 41; seq < 6000; seq++) {
		add(&f, seq, 0, seq);
		assert_int_equal(feed_read(&r, buf, &len), 1);
		assert_true(is_whole(buf, len, seq, 0));
		assert_int_equal(feed_read(&r, buf, &len), 0);
		assert_int_equal(feed_behind(&r), 0);
	}
	/* Whatever is still there is there as a whole; before it, nothing. */
	assert_true(feed_range(&f, &first, &last));
	assert_int_equal(last, 5999);
	assert_in_range(first, 42, 5990);
	assert_int_equal(feed_reader_init(&r, &f, first - 1), -ESTALE);
	assert_int_equal(feed_reader_init(&r, &f, first), 0);
	assert_int_equal(feed_behind(&r), feed_bytes(&f));
	assert_in_range(feed_bytes(&f), (1u << 20) - REC_MAX, 1u << 20);
	for (seq = first; seq <= last; seq++) {
		assert_int_equal(feed_read(&r, buf, &len), 1);
		assert_true(is_whole(buf, len, seq, 0));
	}
	/* One that slept is told, and so is one that waited for a number that will come again as another change. */
	assert_int_equal(feed_reader_init(&r, &f, first), 0);
	for (seq = 6000; seq < 12000; seq++)
		add(&f, seq, 0, seq);
	assert_int_equal(feed_read(&r, buf, &len), -ESTALE);
	assert_int_equal(feed_reader_init(&r, &f, 12000), 0);
	feed_restart(&f, 11000);
	for (seq = 11000; seq < 12001; seq++)
		add(&f, seq, 1, seq);
	assert_int_equal(feed_read(&r, buf, &len), -ESTALE);
	/* A gap is a restart. */
	assert_int_equal(feed_reader_init(&r, &f, 12001), 0);
	add(&f, 20000, 2, 1);
	assert_int_equal(feed_read(&r, buf, &len), -ESTALE);
	assert_true(feed_range(&f, &first, &last));
	assert_int_equal(first, 20000);
	assert_int_equal(last, 20000);
	feed_release(&f);
}

static struct {
	struct feed *f;
	unsigned at, adds;              /* when the reader is at this word, so many changes are added */
	bool restart;
} intruder;

static void between_words(void)
{
	struct feed *f = intruder.f;
	seq_t first, last;
	unsigned i;

	if (!f || intruder.at-- > 0)
		return;
	intruder.f = NULL;
	assert_true(feed_range(f, &first, &last));
	if (intruder.restart)
		feed_restart(f, last - 100);
	for (i = 1; i <= intruder.adds; i++)
		add(f, intruder.restart ? last - 101 + i : last + i, 1, 0);
}

/* Whatever comes in while a record is copied: it is whole, or the reader is told. */
static void test_feed__overtaken_while_copying(void **state)
{
	static uint8_t buf[REC_MAX];
	struct feed_reader r;
	struct feed f;
	seq_t first, last, seq;
	unsigned n, told = 0, whole = 0;
	uint32_t len;

	(void)state;
	for (n = 0; n < OVERTAKEN; n++) {
		int e;

		assert_int_equal(feed_init(&f, FEED_SIZE_MIN, 0, 1), 0);
		for (seq = 1; seq < 900; seq++)
			add(&f, seq, 0, 0);
		assert_true(feed_range(&f, &first, &last));
		assert_int_equal(feed_reader_init(&r, &f, first + n % 7), 0);
		intruder.f = &f;
		intruder.at = n % 13;
		intruder.adds = n % 5 == 0 ? 800 : n % 9;
		intruder.restart = n % 11 == 0;
		e = feed_read(&r, buf, &len);
		intruder.f = NULL;
		assert_true(e == 1 || e == -ESTALE);
		if (e == 1)
			assert_true(is_whole(buf, len, first + n % 7, 0));
		*(e == 1 ? &whole : &told) += 1;
		feed_release(&f);
	}
	assert_in_range(told, OVERTAKEN / 5, OVERTAKEN * 19 / 20);
	assert_in_range(whole, OVERTAKEN / 20, OVERTAKEN * 4 / 5);
}

static void test_feed__short_records_fill_all_slots(void **state)
{
	uint8_t rec[REC_HEADER] = { 0 }, buf[REC_MAX];
	struct feed f;
	struct feed_reader r;
	seq_t first, last, seq;
	uint32_t len;

	(void)state;
	assert_int_equal(feed_init(&f, 1u << 20, 0, 1), 0);
	for (seq = 1; seq < 40000; seq++) {
		put_le64(rec + REC_SEQ, seq);
		feed_add(&f, rec, sizeof rec);
	}
	assert_true(feed_range(&f, &first, &last));
	/* As many as there are slots, though the ring had room for more. */
	assert_in_range(last - first, 8000, 8192);
	assert_int_equal(feed_reader_init(&r, &f, first), 0);
	for (seq = first; seq <= last; seq++) {
		assert_int_equal(feed_read(&r, buf, &len), 1);
		assert_int_equal(get_le64(buf + REC_SEQ), seq);
		assert_int_equal(len, sizeof rec);
	}
	feed_release(&f);
}

static void test_feed__old_ones_go(void **state)
{
	struct feed f;
	seq_t first, last, seq;

	(void)state;
	assert_int_equal(feed_init(&f, 64u << 20, 60 * SECOND, 1), 0);
	for (seq = 1; seq <= 100; seq++)
		add(&f, seq, 0, seq * SECOND);
	assert_true(feed_range(&f, &first, &last));
	assert_int_equal(first, 40);
	/* A clock that goes back keeps all. */
	add(&f, 101, 0, 5);
	assert_true(feed_range(&f, &first, &last));
	assert_int_equal(first, 40);
	add(&f, 102, 0, 10000 * SECOND);
	assert_true(feed_range(&f, &first, &last));
	assert_int_equal(first, 102);
	feed_release(&f);
}

/* Threads ---------------------------------------------------------------------------------------------------------- */

#define READERS 3u

struct race {
	struct feed f;
	_Atomic bool stop;
	_Atomic uint64_t line;          /* counts restarts of the producer; odd while one is under way */
	unsigned torn[READERS], read[READERS], stale[READERS];
};

struct side {
	struct race *race;
	unsigned i;
};

static void *reads(void *arg)
{
	struct side *s = arg;
	struct race *x = s->race;
	static _Thread_local uint8_t buf[REC_MAX];
	struct feed_reader r;
	seq_t first, last;
	uint32_t len;

	while (!atomic_load(&x->stop)) {
		/* From the very edge, where it is overwritten at once, or from the end. */
		if (!feed_range(&x->f, &first, &last) || feed_reader_init(&r, &x->f, s->i == 0 ? first : last) < 0)
			continue;
		for (;;) {
			uint64_t before = atomic_load(&x->line);
			int e = feed_read(&r, buf, &len);

			if (e < 0) {
				x->stale[s->i]++;
				break;
			}
			if (e == 0 && atomic_load(&x->stop))
				break;
			if (e == 0)
				continue;
			x->read[s->i]++;
			/* Which line it is of is known if no restart came meanwhile. */
			if (before % 2 == 0 && before == atomic_load(&x->line) && !is_whole(buf, len, r.next - 1, before))
				x->torn[s->i]++;
		}
	}
	return NULL;
}

static void test_feed__readers_on_other_threads(void **state)
{
	static struct race x;
	struct side side[READERS];
	pthread_t t[READERS];
	unsigned i;
	seq_t seq = 1;

	(void)state;
	assert_int_equal(feed_init(&x.f, FEED_SIZE_MIN, 0, seq), 0);
	for (i = 0; i < READERS; i++) {
		side[i] = (struct side){ &x, i };
		assert_int_equal(pthread_create(&t[i], NULL, reads, &side[i]), 0);
	}
	for (i = 0; i < CHANGES; i++) {
		if (i % 20000 == 19999) {
			uint64_t line = atomic_load(&x.line);

			atomic_store(&x.line, line + 1);
			seq -= 5000;
			feed_restart(&x.f, seq);
			add(&x.f, seq, line + 2, i);
			atomic_store(&x.line, line + 2);
			seq++;
			continue;
		}
		add(&x.f, seq++, atomic_load(&x.line), i);
	}
	atomic_store(&x.line, x.line + 1);
	feed_restart(&x.f, seq);
	add(&x.f, seq++, LONG_LINE, 0);
	atomic_store(&x.line, LONG_LINE);
	for (i = 0; i < LONG; i++)
		add(&x.f, seq++, LONG_LINE, i);
	atomic_store(&x.stop, true);
	for (i = 0; i < READERS; i++) {
		assert_int_equal(pthread_join(t[i], NULL), 0);
		assert_int_equal(x.torn[i], 0);
	}
	assert_true(x.read[0] + x.read[1] + x.read[2] > 0);
	feed_release(&x.f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_feed__in_order_and_whole),
		cmocka_unit_test(test_feed__overtaken_while_copying),
		cmocka_unit_test(test_feed__short_records_fill_all_slots),
		cmocka_unit_test(test_feed__old_ones_go),
		cmocka_unit_test(test_feed__readers_on_other_threads),
	};

	return cmocka_run_group_tests_name("feed", tests, NULL, NULL);
}
