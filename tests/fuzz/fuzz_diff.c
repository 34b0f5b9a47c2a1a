/* SPDX-License-Identifier: MIT
 *
 * fuzz_diff: the two machines of a diff. Odd inputs: a target whose store the input has edited takes over a whole source;
 * what the input says happens to the messages on their way, in both directions. Even ones: a source whose store the input
 * has edited is asked whatever the input says, well formed or not.
 */
#include "tests/fuzz/fuzz_util.h"

#include "core/replica/diff_wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define LANE_MAX  64u
#define STEPS_MAX 20000u

struct letter {
	unsigned type;
	size_t len;
	uint8_t *bytes;
};

static struct lane {
	struct letter m[LANE_MAX];
	unsigned first, count;
} down, up;                             /* to the target, to the source */

static int post(struct lane *l, unsigned type, const void *bytes, size_t len)
{
	struct letter *m = &l->m[(l->first + l->count) % LANE_MAX];

	check(len <= DIFF_MESSAGE_MAX);
	if (l->count == LANE_MAX / 2)
		return -EAGAIN;
	*m = (struct letter){ type, len, malloc(len ? len : 1) };
	check(m->bytes);
	if (len > 0)
		memcpy(m->bytes, bytes, len);
	l->count++;
	return 0;
}

static int post_down(void *ctx, enum diff_type type, const void *bytes, size_t len)
{
	(void)ctx;
	return post(&down, type, bytes, len);
}

static int post_up(void *ctx, enum diff_type type, const void *bytes, size_t len)
{
	(void)ctx;
	return post(&up, type, bytes, len);
}

static struct letter take(struct lane *l)
{
	struct letter m = l->m[l->first];

	l->first = (l->first + 1) % LANE_MAX;
	l->count--;
	return m;
}

static void empty(struct lane *l)
{
	while (l->count > 0)
		free(take(l).bytes);
}

/* The store that the target takes over: made once, only read. -------------------------------------------------------- */

static int fixed_random(void *ctx, void *buf, size_t len)
{
	static uint64_t state = 42;
	uint8_t *p = buf;

	(void)ctx;
	while (len-- > 0) {
		state = state * 6364136223846793005ull + 1442695040888963407ull;
		*p++ = (uint8_t)(state >> 56);
	}
	return 0;
}

static uint64_t fixed_time(void *ctx)
{
	(void)ctx;
	return 1700000000ull * 1000000000u;
}

static struct keys *make_source(void)
{
	static uint8_t data[100000];
	static struct sys_ops sys;
	const struct keys_cred cred = { 0, 0, 022 };
	const struct store_options o = { .path = ":memory:", .create = true, .max_bytes = 24u << 20, .sys = &sys };
	struct keys_attr a, d;
	struct keys *k;
	char name[16];
	unsigned i;
	size_t n;

	sys = sys_linux;
	sys.random = fixed_random;
	sys.now_real_ns = fixed_time;
	check(keys_open(&o, &k) == 0);
	check(keys_make(k, 1, "dir", 3, S_IFDIR | 0755, 0, &cred, &d) == 0);
	for (i = 0; i < 40; i++) {
		(void)snprintf(name, sizeof name, "file %u", i);
		check(keys_make(k, i % 3 ? d.ino : 1, name, strlen(name), S_IFREG | 0644, 0, &cred, &a) == 0);
		memset(data, (int)i + 1, sizeof data);
		check(keys_write(k, a.ino, i % 7 * 5000, data, i % 5 ? 40 * i : sizeof data, 0, &n) == 0 || i == 0);
		if (i % 9 == 2)
			check(keys_fallocate(k, a.ino, 1, 300000, 1500000, 0) == 0);
		if (i % 6 == 1)
			check(keys_setxattr(k, a.ino, "user.x", data, 100 * i, 0, false) == 0);
	}
	check(store_checkpoint(keys_store(k)) == 0);
	return k;
}

/* What happens to a message on its way. */
static void handle(struct letter *m, struct input *in)
{
	uint8_t how = in_u8(in);
	unsigned n;

	if (how < 160)
		return;
	switch (how % 4) {
	case 0:
		m->len = (size_t)min_u64(m->len, in_u16(in));
		return;
	case 1:
		m->type = in_u8(in) % 8;
		return;
	default:
		for (n = in_u8(in) % 4 + 1u; n > 0 && m->len > 0; n--) {
			size_t at = in_u16(in) % m->len;
			uint8_t v = in_u8(in);

			m->bytes[at] = how % 4 == 2 ? v : (uint8_t)(m->bytes[at] ^ v);
		}
		return;
	}
}

static int link_step(struct diff_source *s, struct diff_target *t, struct input *in)
{
	struct letter m;
	int r = 0, ours;

	if (down.count > 0) {
		m = take(&down);
		handle(&m, in);
		r = diff_target_message(t, m.type, m.bytes, m.len);
		free(m.bytes);
	} else if (up.count > 0) {
		m = take(&up);
		handle(&m, in);
		r = diff_source_message(s, m.type, m.bytes, m.len);
		free(m.bytes);
	}
	if (r == 0)
		r = diff_source_step(s);
	if (r < 0)
		return r;
	ours = diff_target_step(t);
	if (ours == DIFF_IDLE && r == DIFF_IDLE && down.count + up.count == 0)
		return -ENODATA;
	return ours;
}

static void fuzz_target(struct input *in)
{
	static struct keys *source;
	const bool direct = in_u8(in) & 1;
	const struct diff_target_options o = { .send = post_up, .direct = direct };
	struct diff_source *s;
	struct diff_target *t;
	struct keys *k;
	unsigned steps;
	int r = 0;

	if (!source)
		source = make_source();
	if (world_open(in, WORLD_ITEMS, false, &k) < 0)
		return;
	check(diff_source_new(source, 7, post_down, NULL, &s) == 0);
	check(diff_target_new(k, &o, &t) == 0);
	for (steps = 0; steps < STEPS_MAX && r >= 0 && r != DIFF_READY; steps++) {
		r = link_step(s, t, in);
		(void)store_poll(keys_store(k));
	}
	check(steps < STEPS_MAX);
	if (r == DIFF_READY)
		(void)diff_target_apply(t);
	diff_source_free(s);
	diff_target_free(t);
	empty(&down);
	empty(&up);
	check(store_failed(keys_store(k)) || store_space(keys_store(k))->staged == 0);
	calls_read(k);
	calls_run(k, in);
	calls_settle(k);
	(void)keys_close(k);
}

/* Questions ---------------------------------------------------------------------------------------------------------- */

static uint8_t *put_question(uint8_t *p, struct input *in)
{
	uint64_t ino = in_value(in), window = in_value(in);

	p = diff_put_u8(p, in_u8(in) % 7);
	p = diff_put_var(p, in_u8(in) & 1 ? ino << 8 | in_u8(in) % 20 : ino);
	p = diff_put_var(p, window);
	if (in_u8(in) & 1) {
		p = diff_put_var(p, in_value(in));
		p = diff_put_var(p, in_value(in));
	}
	return p;
}

static void fuzz_source(struct input *in)
{
	uint8_t bytes[4096], *p;
	struct diff_source *s;
	struct keys *k;
	int r = 0;

	if (world_open(in, WORLD_ITEMS, false, &k) < 0)
		return;
	check(diff_source_new(k, 7, post_down, NULL, &s) == 0);
	while (r >= 0 && r != DIFF_READY && (in->p < in->end || r == DIFF_BUSY)) {
		unsigned n;

		switch (in_u8(in) % 8) {
		case 0:
			n = in_bytes(in, bytes, sizeof bytes);
			r = diff_source_message(s, in_u8(in) % 8, bytes, n);
			break;
		case 1: case 2: case 3:
			for (p = bytes, n = in_u8(in) % 8; n > 0; n--)
				p = put_question(p, in);
			r = diff_source_message(s, DIFF_ASK, bytes, (size_t)(p - bytes));
			break;
		case 4:
			bytes[0] = in_u8(in);
			r = diff_source_message(s, DIFF_MORE, bytes, 1);
			break;
		default:
			break;
		}
		if (r >= 0)
			r = diff_source_step(s);
		if (down.count > 4)
			empty(&down);
	}
	diff_source_free(s);
	empty(&down);
	(void)keys_close(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };

	world_seed(data, size);
	if (in_u8(&in) & 1)
		fuzz_target(&in);
	else
		fuzz_source(&in);
	return 0;
}
