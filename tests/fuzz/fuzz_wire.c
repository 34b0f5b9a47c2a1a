/* SPDX-License-Identifier: MIT
 *
 * fuzz_wire: what a peer says before anything is known of it, and the texts that people write: a stream of frames, the
 * transport's hello and error, cursors, key files, addresses. The first byte of an input chooses. What is accepted must
 * survive being written and read again.
 */
#include "tests/fuzz/fuzz_util.h"

#include "core/replica/key.h"
#include "core/replica/net.h"
#include "core/replica/wire.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile uint8_t sink;

static void touch(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sink = (uint8_t)(sink + p[i]);
}

static bool printable(const char *text, size_t max)
{
	size_t i = 0;

	for (; text[i] != '\0'; i++)
		if (i >= max || text[i] < 0x20 || text[i] > 0x7e)
			return false;
	return i <= max;
}

static void hello(const uint8_t *p, size_t len)
{
	const struct wire_hello ours = { WIRE_VERSION_MIN, WIRE_VERSION + 2, 1000, 0xff, 1, 42, "us" };
	struct wire_hello h, again;
	struct wire_agreed a, b;
	uint8_t buf[WIRE_HELLO_MAX];
	struct wire_writer w = wire_writer(buf, sizeof buf);
	uint16_t code = 0;
	int r;

	if (wire_hello_get(p, len, &h) < 0)
		return;
	check(printable(h.software, WIRE_SOFTWARE_MAX));
	wire_hello_put(&w, &h);
	check(!w.full && wire_hello_get(buf, wire_used(&w), &again) == 0);
	check(again.version_min == h.version_min && again.version_max == h.version_max && again.features == h.features &&
	      again.required == h.required && again.instance == h.instance && strcmp(again.software, h.software) == 0);
	/* Both sides come to the same conclusion. */
	r = wire_agree(&ours, &h, &a, &code);
	check(r == wire_agree(&h, &ours, &b, &code));
	check(r < 0 || (a.version == b.version && a.features == b.features && a.version >= WIRE_VERSION_MIN));
}

static void error(const uint8_t *p, size_t len)
{
	struct wire_error e, again;
	uint8_t buf[WIRE_HELLO_MAX];
	struct wire_writer w = wire_writer(buf, sizeof buf);

	if (wire_error_get(p, len, &e) < 0)
		return;
	check(printable(e.text, WIRE_TEXT_MAX));
	wire_error_put(&w, e.code, e.text);
	check(!w.full && wire_error_get(buf, wire_used(&w), &again) == 0);
	check(again.code == e.code && strcmp(again.text, e.text) == 0);
}

static void frames(const uint8_t *p, size_t len)
{
	while (len >= WIRE_HEADER) {
		struct wire_frame f;
		uint8_t header[WIRE_HEADER];

		if (wire_frame_get(p, WIRE_PAYLOAD_MAX, &f) < 0 || f.len > len - WIRE_HEADER)
			return;
		check(f.len <= WIRE_PAYLOAD_MAX && f.type != 0 && !(f.flags & ~WIRE_FLAGS));
		wire_frame_put(header, &f);
		check(memcmp(header, p, WIRE_HEADER) == 0);
		p += WIRE_HEADER;
		len -= WIRE_HEADER;
		if (f.type == WIRE_HELLO)
			hello(p, f.len);
		else if (f.type == WIRE_ERROR)
			error(p, f.len);
		touch(p, f.len);
		p += f.len;
		len -= f.len;
	}
}

/* Steps that the first half names, on the second half. */
static void cursor(const uint8_t *p, size_t len)
{
	struct wire_reader r = wire_reader(p + len / 2, len - len / 2);
	const uint8_t *got;
	size_t left;
	uint32_t n;

	for (size_t i = 0; i < len / 2; i++) {
		left = wire_left(&r);
		switch (p[i] % 6) {
		case 0: sink = wire_get_u8(&r); break;
		case 1: sink = (uint8_t)wire_get_u16(&r); break;
		case 2: sink = (uint8_t)wire_get_u32(&r); break;
		case 3: sink = (uint8_t)wire_get_u64(&r); break;
		case 4:
			got = wire_get_bytes(&r, p[i], &n);
			check(got || (r.bad && n == 0));
			touch(got, n);
			break;
		default:
			n = p[i] / 6u;
			got = wire_get_fixed(&r, n);
			if (got)
				touch(got, n);
			break;
		}
		check(wire_left(&r) <= left);
	}
	check((wire_end(&r, "cursor") == 0) == (!r.bad && wire_left(&r) == 0));
}

static void key_file(const uint8_t *p, size_t len)
{
	struct keyring *ring, *again;
	static char buf[4 * KEY_TREE_MAX];
	ssize_t n;
	int fd;

	if (keyring_parse("k", (const char *)p, len, &ring) < 0)
		return;
	for (size_t i = 0; i < ring->count; i++) {
		const struct net_key *k = &ring->keys[i];

		check(key_validate(k) == 0 && keyring_find(ring, k->id, strlen(k->id)) == k);
		fd = memfd_create("msyncfs-fuzz", MFD_CLOEXEC);
		check(fd >= 0 && key_write(fd, k) == 0);
		n = pread(fd, buf, sizeof buf, 0);
		(void)close(fd);
		check(n > 0 && keyring_parse("k", buf, (size_t)n, &again) == 0 && again->count == 1);
		check(memcmp(again->keys[0].secret, k->secret, KEY_SECRET) == 0 && again->keys[0].read_only == k->read_only &&
		      (k->tree != NULL) == (again->keys[0].tree != NULL) &&
		      (!k->tree || strcmp(k->tree, again->keys[0].tree) == 0));
		keyring_free(again);
	}
	keyring_free(ring);
}

static void address(const uint8_t *p, size_t len)
{
	char *text = malloc(len + 1);
	struct net_address a;

	check(text != NULL);
	memcpy(text, p, len);
	text[len] = '\0';
	if (net_address_parse(text, false, &a) == 0)
		check(a.host[0] != '\0' && atoi(a.port) > 0 && net_address_parse(text, true, &a) == 0);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const what[])(const uint8_t *p, size_t len) = { frames, hello, error, cursor, key_file, address };

	if (size > 0)
		what[data[0] % ARRAY_LEN(what)](data + 1, size - 1);
	return 0;
}
