/* SPDX-License-Identifier: MIT
 *
 * fuzz_call: calls as another machine sends them. Bytes as they are, or those of a call that is put together and then
 * changed in places, so that most get through the decoder; what is decoded says just these bytes, and is run on a store.
 */
#include "core/replica/call.h"
#include "tests/fuzz/fuzz_util.h"

#include <stdlib.h>
#include <string.h>

#define CALLS 24u

static const char *const names[] = { "d", "e", "f0", "g0", "f1", "small", "again", "unwritten", "short", "long", "many", "new", "new2" };
static const char *const attrs[] = { "user.one", "user.chunks", ACL_ACCESS_NAME, ACL_DEFAULT_NAME, CAPS_NAME, "user.new" };

static struct call_text in_text(struct input *in, const char *const *list, size_t count)
{
	const char *s = list[in_u8(in) % count];

	return (struct call_text){ s, (uint32_t)strlen(s) };
}

static uint64_t in_ino(struct input *in)
{
	uint8_t how = in_u8(in);

	return how < 220 ? world_ino(how) : in_value(in);
}

static void in_set(struct input *in, struct keys_setattr *s)
{
	s->mask = in_u16(in) & 0x3ff;
	s->mode = in_u16(in) & 07777;
	s->uid = in_u8(in);
	s->gid = in_u8(in);
	s->size = in_value(in);
	s->atime = s->mtime = s->ctime = (struct keys_time){ (int64_t)in_value(in), in_u16(in) };
}

static void in_call(struct input *in, struct call *c)
{
	static uint8_t data[70000];

	memset(c, 0, sizeof *c);
	c->op = (uint16_t)(1 + in_u8(in) % (CALL_OPS - 1));
	c->flags = in_u8(in) % 8;
	c->group = c->flags & CALL_MEMBER ? in_u8(in) : 0;
	c->cred = (struct keys_cred){ in_u8(in), in_u8(in), in_u16(in) & 0777 };
	c->ino = in_ino(in);
	c->dir = in_ino(in);
	c->name = c->op >= CALL_SETXATTR ? in_text(in, attrs, ARRAY_LEN(attrs)) : in_text(in, names, ARRAY_LEN(names));
	c->mode = (uint32_t)(in_u8(in) & 15) << 12 | (in_u16(in) & 07777);
	c->how = in_u8(in) % (c->op == CALL_SETXATTR ? 4 : c->op == CALL_RENAME ? 8 : 64);
	c->data = data;
	c->size = (uint32_t)(in_value(in) % sizeof data);
	if (c->op == CALL_SYMLINK)
		memset(data, 'p', sizeof data);
	else
		data[0] = in_u8(in);
	switch (c->op) {
	case CALL_MAKE:   c->rdev = in_value(in); break;
	case CALL_RENAME:
		c->to_dir = in_ino(in);
		c->to_name = in_text(in, names, ARRAY_LEN(names));
		break;
	case CALL_SETATTR: in_set(in, &c->set); break;
	default:
		c->off = in_value(in);
		c->len = in_value(in);
		c->src = in_ino(in);
		c->src_off = in_value(in);
		break;
	}
}

static void wrong_byte(struct input *in, uint8_t *p, size_t len)
{
	uint8_t b = in_u8(in);

	p[in_u16(in) % len] = b;
}

/* The bytes of one call, in memory of just their size. */
static uint8_t *make_bytes(struct input *in, size_t *ret_len)
{
	uint8_t how = in_u8(in), *p;
	struct call c;
	size_t len;

	if (how % 4 == 0) {
		len = in_u16(in);
		len = min_u64(len, (uint64_t)(in->end - in->p));
		p = malloc(len ? len : 1);
		check(p);
		if (len > 0)
			memcpy(p, in->p, len);
		in->p += len;
	} else {
		in_call(in, &c);
		len = call_size(&c);
		p = malloc(len);
		check(p);
		call_encode(&c, p);
		for (how = how % 8 == 1 ? in_u8(in) % 4 : 0; how > 0; how--)
			wrong_byte(in, p, len);
	}
	*ret_len = len;
	return p;
}

static void one_call(struct keys *k, struct input *in)
{
	struct call_result res;
	struct call c;
	size_t len;
	uint8_t *bytes = make_bytes(in, &len), *again;
	int r = call_decode(bytes, len, &c);

	check(r == 0 || r == -EPROTO);
	if (r == 0) {
		check(call_check(&c) == 0 && call_size(&c) == len);
		again = malloc(len);
		check(again);
		call_encode(&c, again);
		check(memcmp(again, bytes, len) == 0);
		free(again);
		/* A copy is the same bytes under another number. */
		if (c.op == CALL_COPY_RANGE)
			world_dishonest();
		call_run(k, &c, &res);
		check(res.error <= 0 && res.number <= INO_MAX && (res.error == 0 || (res.number == 0 && res.orphan == 0)));
		if (res.error == -EAGAIN)
			(void)store_checkpoint(keys_store(k));
	}
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };
	unsigned calls = 0;
	struct keys *k;

	world_seed(data, size);
	check(world_open_base(&k) == 0);
	while (in.p < in.end && calls++ < CALLS)
		one_call(k, &in);
	check(store_failed(keys_store(k)) == 0);
	calls_read(k);
	calls_settle(k);
	check(keys_close(k) == 0);
	return 0;
}
