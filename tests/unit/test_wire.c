/* SPDX-License-Identifier: MIT
 *
 * test_wire: cursors never leave their bytes; what is written is read again; every other byte string is refused with
 * -EPROTO, or means what it says. Buffers to be read are as long as their bytes, so that the address sanitizer sees the
 * first step outside.
 */
#include "tests/unit/random_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/replica/wire.h"

#include <stdio.h>
#include <stdlib.h>

static uint8_t *exact(const void *bytes, size_t len)
{
	uint8_t *p = malloc(len ? len : 1);

	assert_non_null(p);
	if (len > 0)
		memcpy(p, bytes, len);
	return p;
}

/* Numbers in groups of 7 bits: those of up to 64 bits, and no others. */
static void test_wire__var(void **state)
{
	static const struct {
		uint8_t bytes[11];
		uint8_t len;
		bool bad;
		uint64_t want;
	} cases[] = {
		{ { 0 }, 1, false, 0 },
		{ { 0x7f }, 1, false, 127 },
		{ { 0x80, 1 }, 2, false, 128 },
		{ { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1 }, 10, false, UINT64_MAX },
		{ { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2 }, 10, true, 0 },
		{ { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0 }, 11, true, 0 },
		{ { 0x80 }, 1, true, 0 },
		{ { 0 }, 0, true, 0 },
	};
	unsigned i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		uint8_t *p = exact(cases[i].bytes, cases[i].len);
		struct wire_reader r = wire_reader(p, cases[i].len);

		assert_int_equal(wire_get_var(&r), cases[i].want);
		assert_int_equal(r.bad, cases[i].bad);
		assert_true(cases[i].bad || wire_left(&r) == 0);
		free(p);
	}
}

static void test_wire__round_trip(void **state)
{
	uint8_t buf[64];
	struct wire_writer w = wire_writer(buf, sizeof buf);
	struct wire_reader r;
	const uint8_t *p;
	uint32_t len;

	(void)state;
	wire_put_u8(&w, 0xab);
	wire_put_u16(&w, 0x1234);
	wire_put_u32(&w, 0xdeadbeef);
	wire_put_u64(&w, 0x0123456789abcdefull);
	wire_put_bytes(&w, "hello", 5);
	wire_put_bytes(&w, NULL, 0);
	wire_put_fixed(&w, "xyz", 3);
	assert_false(w.full);
	/* The bytes themselves: little-endian on every machine. */
	assert_memory_equal(buf, "\xab\x34\x12\xef\xbe\xad\xde\xef\xcd\xab\x89\x67\x45\x23\x01\x05\0\0\0hello\0\0\0\0xyz",
			    wire_used(&w));
	r = wire_reader(buf, wire_used(&w));
	assert_int_equal(wire_get_u8(&r), 0xab);
	assert_int_equal(wire_get_u16(&r), 0x1234);
	assert_true(wire_get_u32(&r) == 0xdeadbeef);
	assert_true(wire_get_u64(&r) == 0x0123456789abcdefull);
	p = wire_get_bytes(&r, 5, &len);
	assert_int_equal(len, 5);
	assert_memory_equal(p, "hello", 5);
	p = wire_get_bytes(&r, 0, &len);
	assert_non_null(p);
	assert_int_equal(len, 0);
	assert_int_equal(wire_end(&r, "test"), -EPROTO);        /* three are left */
	assert_non_null(strstr(err_last(), "test: 3 bytes too many"));
	assert_memory_equal(wire_get_fixed(&r, 3), "xyz", 3);
	assert_int_equal(wire_end(&r, "test"), 0);
}

/* Each of the steps a reader can make, at each length: it stays inside, and once bad it stays bad. */
static void test_wire__a_reader_stays_inside(void **state)
{
	static const uint8_t bytes[] = { 5, 0, 0, 0, 'h', 'e', 'l', 'l', 'o', 9, 9, 9 };

	(void)state;
	for (size_t len = 0; len <= sizeof bytes; len++) {
		for (int step = 0; step < 6; step++) {
			static const size_t needs[] = { 1, 2, 4, 8, 9, 7 };
			uint8_t *copy = exact(bytes, len);
			struct wire_reader r = wire_reader(copy, len);
			const uint8_t *p = copy;
			uint32_t got = 77;

			switch (step) {
			case 0: (void)wire_get_u8(&r); break;
			case 1: (void)wire_get_u16(&r); break;
			case 2: (void)wire_get_u32(&r); break;
			case 3: (void)wire_get_u64(&r); break;
			case 4: p = wire_get_bytes(&r, 100, &got); break;
			default: p = wire_get_fixed(&r, 7); break;
			}
			assert_int_equal(r.bad, len < needs[step]);
			if (r.bad) {
				assert_true(step < 4 || p == NULL);
				assert_true(step != 4 || got == 0);
				assert_int_equal(wire_get_u64(&r), 0);
				assert_null(wire_get_fixed(&r, 0));
				assert_int_equal(wire_end(&r, "test"), -EPROTO);
			} else {
				assert_int_equal(wire_left(&r), len - needs[step]);
			}
			free(copy);
		}
	}
}

static void test_wire__strings_have_a_limit(void **state)
{
	uint8_t buf[] = { 3, 0, 0, 0, 'a', 'b', 'c' }, huge[] = { 0xff, 0xff, 0xff, 0xff, 'a' };
	struct wire_reader r = wire_reader(buf, sizeof buf);
	uint32_t len;

	(void)state;
	assert_null(wire_get_bytes(&r, 2, &len));
	assert_true(r.bad && len == 0);
	r = wire_reader(huge, sizeof huge);
	assert_null(wire_get_bytes(&r, ~0u, &len));
	assert_true(r.bad && len == 0);
}

static void test_wire__a_writer_stays_inside(void **state)
{
	(void)state;
	for (size_t size = 0; size < 12; size++) {
		uint8_t *buf = malloc(size ? size : 1);
		struct wire_writer w = wire_writer(buf, size);

		wire_put_bytes(&w, "hello", 5);
		assert_int_equal(w.full, size < 9);
		assert_int_equal(wire_used(&w), size < 9 ? 0 : 9);      /* not the length alone */
		wire_put_u16(&w, 1);
		assert_int_equal(w.full, size < 11);
		wire_put_u8(&w, 1);
		assert_int_equal(w.full, size < 12);
		assert_true(wire_used(&w) <= size);
		free(buf);
	}
}

static void test_wire__frame_header(void **state)
{
	static const struct {
		struct wire_frame f;
		uint32_t max;
		bool good;
	} cases[] = {
		{ { 0, 1, 0 }, 0, true }, { { 10, WIRE_OWNER, WIRE_MUST }, 10, true },
		{ { 11, WIRE_OWNER, 0 }, 10, false }, { { 0, 0, 0 }, 10, false }, { { 0, 1, 2 }, 10, false },
		{ { 0, 1, 0x8000 }, 10, false }, { { WIRE_PAYLOAD_MAX, 0xffff, 1 }, ~0u, true },
		{ { WIRE_PAYLOAD_MAX + 1, 0xffff, 1 }, ~0u, false }, { { ~0u, 5, 0 }, ~0u, false },
	};
	struct wire_frame f;
	uint8_t h[WIRE_HEADER];

	(void)state;
	assert_int_equal(WIRE_FRAME_MAX, 5 << 18);      /* 1.25 MiB */
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		wire_frame_put(h, &cases[i].f);
		assert_int_equal(wire_frame_get(h, cases[i].max, &f), cases[i].good ? 0 : -EPROTO);
		if (cases[i].good)
			assert_memory_equal(&f, &cases[i].f, sizeof f);
	}
}

static struct wire_hello a_hello(void)
{
	return (struct wire_hello){ 1, 3, 1000, 7, 3, 0x1122334455667788ull, "msyncfs 0.1.0" };
}

static size_t put_hello(const struct wire_hello *h, uint8_t *buf)
{
	struct wire_writer w = wire_writer(buf, WIRE_HELLO_MAX);

	wire_hello_put(&w, h);
	assert_false(w.full);
	return wire_used(&w);
}

static int get_hello(const uint8_t *bytes, size_t len, struct wire_hello *ret)
{
	uint8_t *copy = exact(bytes, len);
	int r = wire_hello_get(copy, len, ret);

	free(copy);
	return r;
}

static void test_wire__hello(void **state)
{
	struct wire_hello h = a_hello(), got;
	uint8_t buf[WIRE_HELLO_MAX + 8], header[WIRE_HEADER];
	size_t len = put_hello(&h, buf), i;

	(void)state;
	assert_memory_equal(buf, "msyncnet\1\0\3\0", 12);
	assert_int_equal(get_hello(buf, len, &got), 0);
	assert_memory_equal(&got, &h, offsetof(struct wire_hello, software) + sizeof h.software);
	for (i = 0; i < len; i++)
		assert_int_equal(get_hello(buf, i, &got), -EPROTO);
	buf[len] = 0;
	assert_int_equal(get_hello(buf, len + 1, &got), -EPROTO);
	/* What a later version says in addition is skipped. */
	put_le32(buf + len - 4, 5);
	memcpy(buf + len, "later", 5);
	assert_int_equal(get_hello(buf, len + 5, &got), 0);
	assert_memory_equal(&got, &h, offsetof(struct wire_hello, software) + sizeof h.software);
	/* No hello is taken for TLS, nor TLS for a hello. */
	for (i = 0; i <= WIRE_HELLO_MAX; i++) {
		wire_frame_put(header, &(struct wire_frame){ (uint32_t)i, WIRE_HELLO, WIRE_MUST });
		assert_false(wire_is_tls(header, sizeof header));
	}
	assert_true(wire_is_tls((const uint8_t *)"\x16\x03\x01\x02\0\x01", 6));
	assert_false(wire_is_tls((const uint8_t *)"\x16", 1));
}

static void test_wire__hellos_that_cannot_be(void **state)
{
	struct wire_hello h, got;
	uint8_t buf[WIRE_HELLO_MAX];
	size_t len;

	(void)state;
	h = a_hello();
	h.version_min = 4;
	len = put_hello(&h, buf);
	assert_int_equal(get_hello(buf, len, &got), -EPROTO);
	h = a_hello();
	h.version_min = h.version_max = 0;
	len = put_hello(&h, buf);
	assert_int_equal(get_hello(buf, len, &got), -EPROTO);
	h = a_hello();
	h.required = 8;                 /* it needs what it does not know */
	len = put_hello(&h, buf);
	assert_int_equal(get_hello(buf, len, &got), -EPROTO);
	h = a_hello();
	len = put_hello(&h, buf);
	buf[0] ^= 1;
	assert_int_equal(get_hello(buf, len, &got), -EPROTO);
	assert_non_null(strstr(err_last(), "does not speak"));
	/* Its name goes to logs: nothing in it is more than text. */
	(void)snprintf(h.software, sizeof h.software, "a\nb\033[31mc\x80");
	len = put_hello(&h, buf);
	assert_int_equal(get_hello(buf, len, &got), 0);
	assert_string_equal(got.software, "a?b?[31mc?");
}

static void test_wire__agreement(void **state)
{
	static const struct {
		uint16_t a_min, a_max, b_min, b_max, version;
	} cases[] = {
		{ 1, 1, 1, 1, 1 }, { 1, 2, 2, 3, 2 }, { 1, 2, 1, 3, 2 }, { 2, 3, 1, 2, 2 }, { 1, 1, 2, 2, 0 },
		{ 3, 4, 1, 2, 0 }, { 1, 9, 5, 5, 5 }, { 1, 65535, 65535, 65535, 65535 },
	};
	struct wire_hello a = a_hello(), b = a_hello();
	struct wire_agreed got;
	uint16_t code = 77;

	(void)state;
	b.instance++;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int want = cases[i].version ? 0 : -EPROTONOSUPPORT;

		a.version_min = cases[i].a_min, a.version_max = cases[i].a_max;
		b.version_min = cases[i].b_min, b.version_max = cases[i].b_max;
		assert_int_equal(wire_agree(&a, &b, &got, &code), want);
		assert_true(want < 0 ? code == WIRE_E_VERSION : got.version == cases[i].version);
		assert_int_equal(wire_agree(&b, &a, &got, &code), want);
	}
	a = b = a_hello();
	assert_int_equal(wire_agree(&a, &b, &got, &code), -EPROTONOSUPPORT);
	assert_int_equal(code, WIRE_E_SELF);
	b.instance++;
	b.features = 0x13;
	assert_int_equal(wire_agree(&a, &b, &got, &code), 0);
	assert_true(got.features == 3);
	b.required = 0x10;
	assert_int_equal(wire_agree(&a, &b, &got, &code), -EPROTONOSUPPORT);
	assert_int_equal(code, WIRE_E_FEATURES);
	assert_int_equal(wire_agree(&b, &a, &got, &code), -EPROTONOSUPPORT);
}

static void test_wire__error_frame(void **state)
{
	char text[WIRE_TEXT_MAX + 100];
	uint8_t buf[WIRE_HELLO_MAX];
	struct wire_writer w;
	struct wire_error e;
	size_t len, i;

	(void)state;
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	w = wire_writer(buf, sizeof buf);
	wire_error_put(&w, WIRE_E_VERSION, text);       /* too long: cut, and it still fits where a hello may stand */
	assert_false(w.full);
	assert_int_equal(wire_error_get(buf, wire_used(&w), &e), 0);
	assert_int_equal(strlen(e.text), WIRE_TEXT_MAX);
	w = wire_writer(buf, sizeof buf);
	wire_error_put(&w, 0x1234, "no\tway");
	len = wire_used(&w);
	for (i = 0; i <= len; i++) {
		uint8_t *copy = exact(buf, i);

		assert_int_equal(wire_error_get(copy, i, &e), i < len ? -EPROTO : 0);
		free(copy);
	}
	assert_int_equal(e.code, 0x1234);
	assert_string_equal(e.text, "no?way");
}

/* A valid frame with some bytes changed, and bytes by chance: refused or decoded, never a step outside. */
static void test_wire__changed_bytes(void **state)
{
	struct wire_hello h = a_hello(), got;
	uint8_t buf[WIRE_HELLO_MAX], *copy;
	struct wire_error e;
	size_t len;
	int r;

	(void)state;
	for (int i = 0; i < 200000; i++) {
		len = put_hello(&h, buf);
		for (uint32_t n = 1 + rnd(4); n > 0; n--)
			buf[rnd((uint32_t)len)] = (uint8_t)rnd(256);
		if (i % 4 == 0)
			len = rnd((uint32_t)len + 1);
		copy = exact(buf, len);
		r = wire_hello_get(copy, len, &got);
		assert_true(r == 0 || r == -EPROTO);
		if (r == 0) {
			assert_true(got.version_min <= got.version_max && strlen(got.software) <= WIRE_SOFTWARE_MAX);
			for (const char *p = got.software; *p; p++)
				assert_true(*p >= 0x20 && *p < 0x7f);
		}
		r = wire_error_get(copy, len, &e);
		assert_true(r == 0 || r == -EPROTO);
		free(copy);
	}
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_wire__var),
		cmocka_unit_test(test_wire__round_trip),
	cmocka_unit_test(test_wire__a_reader_stays_inside),
	cmocka_unit_test(test_wire__strings_have_a_limit),
	cmocka_unit_test(test_wire__a_writer_stays_inside),
	cmocka_unit_test(test_wire__frame_header),
	cmocka_unit_test(test_wire__hello),
	cmocka_unit_test(test_wire__hellos_that_cannot_be),
	cmocka_unit_test(test_wire__agreement),
	cmocka_unit_test(test_wire__error_frame),
	cmocka_unit_test(test_wire__changed_bytes),
};

int main(void)
{
	return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
