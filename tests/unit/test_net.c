/* SPDX-License-Identifier: MIT
 *
 * test_net: links over real sockets on loopback: what arrives, who may come in, what peers that do harm can reach, and
 * what happens when a link breaks or all of it stops. Nothing here has a time limit; deadlines under test are made short.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/net_util.h"

#include <fcntl.h>
#include <malloc.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define TYPE 0x123

static uint64_t rng = 88172645463325252ull;
static char dir[] = "/tmp/msyncfs-net-XXXXXX";

static uint32_t rnd(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 32) % n;
}

static uint8_t *noise(size_t len)
{
	uint8_t *p = malloc(len + 1);

	assert_non_null(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)rnd(256);
	return p;
}

/* Options that make everything quick, but not so quick that a busy machine sees ghosts. */
static struct net_options quick(const struct keyring *keys)
{
	return (struct net_options){ .keys = keys, .ping_ms = 50, .dead_ms = 1000, .handshake_ms = 2000, .linger_ms = 300,
				     .retry_min_ms = 10, .retry_max_ms = 100 };
}

static const char *const one_id[] = { "alice" };

/* Addresses --------------------------------------------------------------------------------------------------------- */

static void test_net__addresses(void **state)
{
	static const struct {
		const char *text, *host, *port;
		bool local, only_listen, bad;
	} cases[] = {
		{ "one", "one", "6796", .local = false },
		{ "one:7", "one", "7", .local = false },
		{ "192.0.2.1:65535", "192.0.2.1", "65535", .local = false },
		{ "[::1]:99", "::1", "99", .local = false },
		{ "[fe80::1%eth0]", "fe80::1%eth0", "6796", .local = false },
		{ "::1", "::1", "6796", .local = false },
		{ ":6796", "", "6796", .only_listen = true },
		{ "one:0", "one", "0", .only_listen = true },
		{ "/run/x.sock", "/run/x.sock", "6796", .local = true },
		{ "./x:y", "./x:y", "6796", .local = true },
		{ "", .bad = true }, { "one:", .bad = true }, { "one:x", .bad = true }, { "one:65536", .bad = true },
		{ "one:99999999999", .bad = true }, { "[::1", .bad = true }, { "[::1]x", .bad = true },
		{ "[::1]:", .bad = true }, { "[one]:5", .bad = true }, { "[]", .bad = true },
		{ "/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
		  "0123456789", .bad = true },
	};
	struct net_address a;
	char *lengthy = malloc(400);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		bool good = !cases[i].bad;

		assert_int_equal(net_address_parse(cases[i].text, true, &a), good ? 0 : -EINVAL);
		if (good) {
			assert_string_equal(a.host, cases[i].host);
			assert_string_equal(a.port, cases[i].port);
			assert_int_equal(a.local, cases[i].local);
		}
		assert_int_equal(net_address_parse(cases[i].text, false, &a), good && !cases[i].only_listen ? 0 : -EINVAL);
	}
	assert_non_null(lengthy);
	memset(lengthy, 'a', 399);
	lengthy[399] = '\0';
	assert_int_equal(net_address_parse(lengthy, false, &a), -EINVAL);
	free(lengthy);
}

/* What is sent arrives ---------------------------------------------------------------------------------------------- */

static void echo_over(const char *address, const struct net_options *server, const struct net_options *client)
{
	struct side *a = side_new(server), *b = side_new(client);
	uint64_t hash = 0, bytes = 0, sent = 0;
	struct seen *l;
	net_id id;

	a->echo = true;
	side_listen(a, address);
	(void)side_dial(b, a->address);
	id = side_wait_open(b);
	for (int i = 0; i < 200; i++) {
		uint32_t len = i == 7 ? WIRE_PAYLOAD_MAX : i % 20 == 0 ? rnd(300000) : i % 5 == 0 ? 0 : rnd(200);
		uint8_t *p = noise(len);

		side_send(b, id, TYPE, p, len);
		hash = hash64(p, len, hash);
		bytes += len;
		sent++;
		free(p);
	}
	WAIT(b, b->frames == sent);
	l = side_open(b, 0);
	assert_true(l->id == id);
	assert_true(l->bytes == bytes);
	assert_true(l->hash == hash);
	side_free(b);
	side_free(a);
}

static void test_net__echo(void **state)
{
	struct net_options plain = quick(NULL), keyed, spinning = quick(NULL);
	struct keyring *ring = ring_of(one_id, 1, 7);
	char path[64];

	(void)state;
	keyed = quick(ring);
	spinning.spin_us = 50;
	(void)snprintf(path, sizeof path, "%s/echo.sock", dir);
	echo_over("127.0.0.1:0", &plain, &plain);
	echo_over("localhost:0", &plain, &spinning);
	echo_over(path, &plain, &plain);
	echo_over("127.0.0.1:0", &keyed, &keyed);
	echo_over(":0", &keyed, &keyed);
	echo_over(path, &keyed, &keyed);
	keyring_free(ring);
}

static void test_net__ipv6(void **state)
{
	struct net_options plain = quick(NULL);
	int fd = socket(AF_INET6, SOCK_STREAM, 0);

	(void)state;
	if (fd < 0 || access("/proc/net/if_inet6", R_OK) < 0) {
		if (fd >= 0)
			(void)close(fd);
		skip();
	}
	(void)close(fd);
	echo_over("[::1]:0", &plain, &plain);
}

/* Both directions at once, from several threads, with small queues. */
struct sender {
	struct side *s;
	net_id id;
	unsigned count;
};

static void *send_many(void *arg)
{
	struct sender *w = arg;
	uint8_t buf[20000] = { 0 };
	unsigned seed = 1;

	for (unsigned i = 0; i < w->count; i++) {
		seed = seed * 1103515245 + 12345;
		side_send(w->s, w->id, TYPE, buf, (seed >> 8) % sizeof buf);
	}
	return NULL;
}

static void test_net__both_ways_from_many_threads(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);
	struct net_options o = quick(ring);
	struct side *a, *b;
	struct sender w[4];
	pthread_t t[4];

	(void)state;
	o.out_max = 100000;
	a = side_new(&o);
	b = side_new(&o);
	side_listen(a, "127.0.0.1:0");
	(void)side_dial(b, a->address);
	for (int i = 0; i < 4; i++) {
		w[i].s = i & 1 ? a : b;
		w[i].id = side_wait_open(w[i].s);
		w[i].count = 1000;
		assert_int_equal(pthread_create(&t[i], NULL, send_many, &w[i]), 0);
	}
	for (int i = 0; i < 4; i++)
		(void)pthread_join(t[i], NULL);
	WAIT(a, a->frames == 2000);
	WAIT(b, b->frames == 2000);
	side_free(a);
	side_free(b);
	keyring_free(ring);
}

static void test_net__one_buffer_for_all(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a = side_new(&o), *b = side_new(&o);
	struct net_buf *buf = net_buf_new(TYPE, 0, 70000);
	net_id ids[20];

	(void)state;
	side_listen(a, "127.0.0.1:0");
	for (int i = 0; i < 20; i++)
		(void)side_dial(b, a->address);
	WAIT(a, a->opened == 20);
	for (unsigned i = 0; i < 20; i++)
		ids[i] = side_open(a, i)->id;
	memset(net_buf_payload(buf), 'x', 70000);
	net_buf_trim(buf, 60000);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(net_send_buf(a->net, ids[i], buf), 0);
	net_buf_put(buf);
	WAIT(b, b->frames == 20);
	for (unsigned i = 0; i < 20; i++) {
		assert_true(side_open(b, i)->bytes == 60000);
		assert_true(side_open(b, i)->hash == side_open(b, 0)->hash);
	}
	side_free(a);
	side_free(b);
}

/* Who may come in --------------------------------------------------------------------------------------------------- */

/* A client that must not get in; what each side was told. */
static void refused(const struct keyring *server, const struct keyring *client, const char *server_text,
		    const char *client_text, int client_error)
{
	struct net_options so = quick(server), co = quick(client);
	struct side *a = side_new(&so), *b = side_new(&co);
	struct seen at_a, at_b;

	side_listen(a, "127.0.0.1:0");
	(void)side_dial(b, a->address);
	at_a = side_wait_closed(a);
	at_b = side_wait_closed(b);
	if (!strstr(at_a.text, server_text) || !strstr(at_b.text, client_text))
		print_message("server: %s\nclient: %s\n", at_a.text, at_b.text);
	assert_non_null(strstr(at_a.text, server_text));
	assert_non_null(strstr(at_b.text, client_text));
	assert_int_equal(at_b.error, client_error);
	assert_true(at_b.retry_ms > 0);
	/* It goes on trying, and never gets in. */
	WAIT(b, b->closed >= 3);
	assert_int_equal(a->opened, 0);
	assert_int_equal(b->opened, 0);
	side_free(b);
	side_free(a);
}

static void test_net__wrong_key(void **state)
{
	struct keyring *right = ring_of(one_id, 1, 7), *wrong = ring_of(one_id, 1, 8);

	(void)state;
	refused(right, wrong, "another secret for key \"alice\"", "refuses our key \"alice\"", -EACCES);
	keyring_free(right);
	keyring_free(wrong);
}

static void test_net__unknown_identity(void **state)
{
	static const char *const other[] = { "mallory" };
	struct keyring *right = ring_of(one_id, 1, 7), *wrong = ring_of(other, 1, 7);

	(void)state;
	refused(right, wrong, "no key \"mallory\"", "refuses our key \"mallory\"", -EACCES);
	keyring_free(right);
	keyring_free(wrong);
}

static void test_net__key_on_one_side_only(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);

	(void)state;
	refused(ring, NULL, "a peer without a key", "--key-file", -EACCES);
	refused(NULL, ring, "the peer has a key", "the peer has no key", -EACCES);
	keyring_free(ring);
}

static void test_net__the_key_says_who_it_is_and_what_it_may(void **state)
{
	static const char *const ids[] = { "alice", "bob,read-only", "carol,tree:/a/b" };
	struct keyring *all = ring_of(ids, 3, 7), *bob, *carol;
	struct net_options so = quick(all), co;
	struct side *a = side_new(&so), *b, *c;

	(void)state;
	bob = ring_of(&ids[1], 1, 8);           /* the secrets of ring_of() count up */
	carol = ring_of(&ids[2], 1, 9);
	side_listen(a, "127.0.0.1:0");
	co = quick(bob);
	b = side_new(&co);
	(void)side_dial(b, a->address);
	(void)side_wait_open(b);
	WAIT(a, a->opened == 1);
	assert_string_equal(a->links[0].key, "bob");
	assert_true(a->links[0].read_only);
	assert_string_equal(a->links[0].tree, "");
	side_free(b);
	co = quick(carol);
	c = side_new(&co);
	(void)side_dial(c, a->address);
	WAIT(a, a->opened == 2);
	assert_string_equal(a->links[1].key, "carol");
	assert_false(a->links[1].read_only);
	assert_string_equal(a->links[1].tree, "/a/b");
	side_free(c);
	side_free(a);
	keyring_free(all);
	keyring_free(bob);
	keyring_free(carol);
}

static int resolve_elsewhere(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret)
{
	(void)host;
	return getaddrinfo("192.0.2.1", port, hints, ret);
}

static void test_net__without_a_key_only_this_machine(void **state)
{
	static const char *const not_here[] = { ":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0" };
	struct net_options o = quick(NULL);
	struct side *a;
	struct seen l;
	net_id id;

	(void)state;
	o.ops.resolve = resolve_elsewhere;
	a = side_new(&o);
	for (size_t i = 1; i < ARRAY_LEN(not_here); i++)
		assert_int_equal(net_dial(a->net, i == 3 ? "192.0.2.1" : i == 2 ? "[2001:db8::1]" : "0.0.0.1:5", &id), -EACCES);
	assert_non_null(strstr(err_last(), "--key-file"));
	(void)side_dial(a, "a-name-that-leads-elsewhere");
	l = side_wait_closed(a);
	assert_int_equal(l.error, -EACCES);
	assert_non_null(strstr(l.text, "--key-file"));
	side_free(a);
	o.ops.resolve = NULL;
	a = side_new(&o);
	for (size_t i = 0; i < ARRAY_LEN(not_here); i++) {
		assert_int_equal(net_listen(a->net, not_here[i], NULL), -EACCES);
		assert_non_null(strstr(err_last(), "--key-file"));
	}
	side_free(a);
}

static void test_net__not_with_itself(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a = side_new(&o);
	struct seen l;

	(void)state;
	side_listen(a, "127.0.0.1:0");
	(void)side_dial(a, a->address);
	l = side_wait_closed(a);
	assert_non_null(strstr(l.text, "itself"));
	assert_int_equal(a->opened, 0);
	side_free(a);
}

/* Versions and features --------------------------------------------------------------------------------------------- */

static void meet(struct net_options so, struct net_options co, int version, uint64_t features, const char *text)
{
	struct side *a = side_new(&so), *b = side_new(&co);
	struct seen l;

	side_listen(a, "127.0.0.1:0");
	(void)side_dial(b, a->address);
	if (version > 0) {
		(void)side_wait_open(a);
		(void)side_wait_open(b);
		assert_int_equal(a->links[0].version, version);
		assert_int_equal(b->links[0].version, version);
		assert_true(a->links[0].features == features && b->links[0].features == features);
	} else {
		l = side_wait_closed(a);
		assert_non_null(strstr(l.text, text));
		l = side_wait_closed(b);
		assert_non_null(strstr(l.text, text));
		assert_int_equal(l.error, -EPROTONOSUPPORT);
		assert_int_equal(a->opened + b->opened, 0);
	}
	side_free(a);
	side_free(b);
}

static void test_net__versions_and_features(void **state)
{
	struct net_options o = quick(NULL), n = quick(NULL);

	(void)state;
	o.software = "msyncfs 1";
	n.software = "msyncfs 2";
	o.version_min = 1, o.version_max = 2;
	n.version_min = 2, n.version_max = 3;
	meet(o, n, 2, 0, NULL);
	meet(n, o, 2, 0, NULL);
	n.version_min = 3;
	meet(o, n, 0, 0, "upgrade the older");
	n.version_min = 1;
	o.features = 5;
	n.features = 6;
	meet(o, n, 2, 4, NULL);
	n.required = 4;
	meet(o, n, 2, 4, NULL);
	n.required = 2;
	meet(o, n, 0, 0, "features");
	meet(n, o, 0, 0, "features");
}

static void test_net__unknown_frames(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a = side_new(&o), *b = side_new(&o);
	struct net_stat st;
	struct seen l;
	net_id id, at_a;

	(void)state;
	a->answer = -EOPNOTSUPP;
	side_listen(a, "127.0.0.1:0");
	(void)side_dial(b, a->address);
	id = side_wait_open(b);
	at_a = side_wait_open(a);
	assert_int_equal(net_send(b->net, id, 0x777, 0, "x", 1), 0);
	assert_int_equal(net_send(b->net, id, 0x55, 0, "x", 1), 0);     /* of the transport's own, of a later version */
	assert_int_equal(net_send(b->net, id, 0x777, 0, "x", 1), 0);
	WAIT(a, a->frames == 2);
	while (net_stat(a->net, at_a, &st) == 0 && st.skipped < 3)
		(void)usleep(1000);
	assert_true(st.skipped == 3 && st.state == NET_OPEN);
	assert_int_equal(net_send(b->net, id, 0x778, WIRE_MUST, "x", 1), 0);
	l = side_wait_closed(b);
	assert_int_equal(l.code, WIRE_E_UNKNOWN);
	assert_non_null(strstr(l.text, "type 1912"));
	l = side_wait_closed(a);
	assert_int_equal(l.error, -EPROTO);
	side_free(a);
	side_free(b);
}

static void refuse_with_reason(struct side *s, net_id id, const struct wire_frame *f, const uint8_t *payload)
{
	(void)id;
	(void)f;
	(void)payload;
	s->answer = err_set(EACCES, "this key may only read");
}

static void test_net__the_owners_refusal_reaches_the_peer(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a = side_new(&o), *b = side_new(&o);
	struct seen l;

	(void)state;
	a->answer = -EACCES;
	a->on_frame = refuse_with_reason;
	side_listen(a, "127.0.0.1:0");
	(void)side_dial(b, a->address);
	assert_int_equal(net_send(b->net, side_wait_open(b), TYPE, 0, "x", 1), 0);
	l = side_wait_closed(b);
	assert_int_equal(l.code, WIRE_E_DENIED);
	assert_int_equal(l.error, -EACCES);
	assert_string_equal(l.text, "the peer says: this key may only read");
	side_free(a);
	side_free(b);
}

/* Peers that do harm ------------------------------------------------------------------------------------------------ */

/* After whatever happened, others get in as ever. */
static void still_serves(struct side *a, const struct net_options *client)
{
	struct side *b = side_new(client);
	net_id id;

	a->echo = true;
	(void)side_dial(b, a->address);
	id = side_wait_open(b);
	assert_int_equal(net_send(b->net, id, TYPE, 0, "hello", 5), 0);
	WAIT(b, b->frames == 1);
	side_free(b);
}

static void test_net__garbage_before_the_handshake(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);

	(void)state;
	for (int keyed = 0; keyed < 2; keyed++) {
		struct net_options o = quick(keyed ? ring : NULL);
		struct side *a = side_new(&o);

		side_listen(a, "127.0.0.1:0");
		for (int i = 0; i < 60; i++) {
			uint32_t len = 1 + rnd(i % 10 == 0 ? 100000 : 600);
			uint8_t *p = noise(len), answer[600];
			int fd = raw_connect(a->port);

			if (i % 3 == 1 && len > 12)     /* a TLS record, at least by its head */
				memcpy(p, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
			if (i % 3 == 2 && len > 8)
				(void)raw_frame(p, WIRE_HELLO, WIRE_MUST, NULL, 0), put_le32(p, len - 8);
			raw_send(fd, p, len);
			(void)shutdown(fd, SHUT_WR);
			(void)raw_read_end(fd, answer, sizeof answer);
			(void)close(fd);
			free(p);
		}
		WAIT(a, a->closed == 60);
		assert_int_equal(a->opened, 0);
		still_serves(a, &o);
		side_free(a);
	}
	keyring_free(ring);
}

/* Whatever a known peer says that cannot be: it is told so, and dropped. */
static void test_net__garbage_after_the_hello(void **state)
{
	static const struct {
		uint32_t len, got;
		uint16_t type, flags;
		const char *text;
	} cases[] = {
		{ WIRE_PAYLOAD_MAX + 1, 0, TYPE, 0, "more than the" },          /* oversize: refused by its head */
		{ ~0u, 0, TYPE, 0, "more than the" },
		{ 0, 0, 0, 0, "impossible type" },
		{ 0, 0, TYPE, 2, "impossible type" },
		{ 3, 3, WIRE_PING, 0, "a ping of 3" },
		{ 9, 9, WIRE_PONG, 0, "a ping of 9" },
		{ 5, 5, WIRE_ERROR, 0, "error frame" },
		{ 5, 5, WIRE_HELLO, 0, "second hello" },
		{ 5, 5, 0x33, WIRE_MUST, "type 51" },
	};
	struct net_options o = quick(NULL);
	struct side *a = side_new(&o);

	(void)state;
	side_listen(a, "127.0.0.1:0");
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		uint8_t buf[2048], answer[4096];
		const struct wire_frame f = { cases[i].len, cases[i].type, cases[i].flags };
		size_t n = raw_hello(buf), got;
		int fd = raw_connect(a->port);

		wire_frame_put(buf + n, &f);
		memset(buf + n + WIRE_HEADER, 0x5a, cases[i].got);
		raw_send(fd, buf, n + WIRE_HEADER + cases[i].got);
		got = raw_read_end(fd, answer, sizeof answer);
		(void)close(fd);
		WAIT(a, a->closed == i + 1);
		assert_int_equal(a->links[i].error, -EPROTO);
		assert_true(a->links[i].was_open);
		assert_non_null(strstr(a->links[i].text, cases[i].text));
		assert_non_null(memmem(answer, got, cases[i].text, strlen(cases[i].text)));
	}
	still_serves(a, &o);
	side_free(a);
}

static void test_net__hello_must_be_first_and_whole(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a = side_new(&o);
	uint8_t hello[WIRE_HELLO_MAX + 8], buf[2048], answer[2048];
	size_t n = raw_hello(hello);
	unsigned links = 0;

	(void)state;
	side_listen(a, "127.0.0.1:0");
	for (size_t i = 0; i < n - 8; i++) {    /* cut at every byte, the length of the frame set right */
		int fd = raw_connect(a->port);

		memcpy(buf, hello, n);
		put_le32(buf, (uint32_t)i);
		raw_send(fd, buf, 8 + i);
		(void)raw_read_end(fd, answer, sizeof answer);
		(void)close(fd);
		links++;
	}
	for (int i = 0; i < 3; i++) {
		int fd = raw_connect(a->port);

		memset(buf, 0, sizeof buf);
		n = raw_frame(buf, i == 0 ? TYPE : i == 1 ? WIRE_PING : WIRE_HELLO, WIRE_MUST, buf + 1024, 8);
		if (i == 2)
			put_le32(buf, WIRE_HELLO_MAX + 1);
		raw_send(fd, buf, n);
		(void)raw_read_end(fd, answer, sizeof answer);
		(void)close(fd);
		links++;
	}
	WAIT(a, a->closed == links);
	assert_int_equal(a->opened, 0);
	for (unsigned i = 0; i < links; i++)
		assert_int_equal(a->links[i].error, -EPROTO);
	still_serves(a, &o);
	side_free(a);
}

/* Inside TLS, a bit that was changed on the way ends the link, whenever. */
static void test_net__changed_on_the_way(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);
	struct net_options o = quick(ring);
	struct side *a = side_new(&o), *b = side_new(&o);
	struct relay *r;
	char address[64];
	net_id id;

	(void)state;
	side_listen(a, "127.0.0.1:0");
	r = relay_new(a->port);
	(void)snprintf(address, sizeof address, "127.0.0.1:%u", r->port);
	(void)side_dial(b, address);
	id = side_wait_open(b);
	side_send(b, id, TYPE, "one", 3);
	WAIT(a, a->frames == 1);
	atomic_store(&r->flip, 1);
	(void)net_send(b->net, id, TYPE, 0, "two", 3);
	WAIT(b, b->closed >= 1);
	WAIT(a, a->closed >= 1);
	/* And in the handshake of the next. */
	atomic_store(&r->flip, 3);
	WAIT(b, b->closed >= 2);
	(void)side_wait_open(b);
	side_free(b);
	side_free(a);
	relay_free(r);
	keyring_free(ring);
}

static void test_net__slow_loris(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);

	(void)state;
	for (int keyed = 0; keyed < 2; keyed++) {
		struct net_options o = quick(keyed ? ring : NULL);
		struct side *a;
		uint8_t buf[2048];
		size_t n = keyed ? 200 : raw_hello(buf);
		int fd;

		if (keyed)
			memcpy(buf, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
		o.handshake_ms = 200;
		a = side_new(&o);
		side_listen(a, "127.0.0.1:0");
		fd = raw_connect(a->port);
		for (size_t i = 0; i < n - 1; i++) {
			bool closed;

			raw_send(fd, buf + i, 1);
			(void)usleep(20000);
			(void)pthread_mutex_lock(&a->lock);
			closed = a->closed > 0;
			(void)pthread_mutex_unlock(&a->lock);
			if (closed)
				break;
		}
		(void)side_wait_closed(a);
		assert_int_equal(a->links[0].error, -ETIMEDOUT);
		(void)close(fd);
		o.handshake_ms = 2000;
		still_serves(a, &o);
		side_free(a);
	}
	keyring_free(ring);
}

/* Known, but it never finishes a frame: a byte now and then is no sign of life. */
static void test_net__slow_frame(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a;
	uint8_t buf[2048];
	size_t n = raw_hello(buf);
	int fd;

	(void)state;
	o.dead_ms = 400;
	a = side_new(&o);
	side_listen(a, "127.0.0.1:0");
	fd = raw_connect(a->port);
	n += raw_frame(buf + n, TYPE, 0, buf, 1000);
	for (size_t i = 0; i < n; i++) {
		bool closed;

		raw_send(fd, buf + i, i < 70 ? 1 : 1);
		if (i > 80)
			(void)usleep(10000);
		(void)pthread_mutex_lock(&a->lock);
		closed = a->closed > 0;
		(void)pthread_mutex_unlock(&a->lock);
		if (closed)
			break;
	}
	(void)side_wait_closed(a);
	assert_true(a->links[0].was_open);
	assert_int_equal(a->links[0].error, -ETIMEDOUT);
	(void)close(fd);
	side_free(a);
}

static bool more_descriptors(rlim_t want)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return false;
	if (l.rlim_cur < want && (l.rlim_max == RLIM_INFINITY || l.rlim_max >= want)) {
		l.rlim_cur = want;
		(void)setrlimit(RLIMIT_NOFILE, &l);
	}
	return getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur >= want;
}

/* They say nothing. At most 64 are kept, and whoever is quick gets in meanwhile. */
static void test_net__a_thousand_that_say_nothing(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);
	struct net_options o = quick(ring);
	struct side *a;
	static int fd[1000];

	(void)state;
	if (!more_descriptors(2500))
		skip();
	o.handshake_ms = 60000;
	a = side_new(&o);
	side_listen(a, "127.0.0.1:0");
	for (unsigned i = 0; i < 1000; i++)
		fd[i] = raw_connect(a->port);
	WAIT(a, a->closed >= 1000 - 64);
	assert_true(a->accepted_most <= 64);
	still_serves(a, &o);
	for (unsigned i = 0; i < 1000; i++)
		(void)close(fd[i]);
	side_free(a);
	keyring_free(ring);
}

static void test_net__a_thousand_links(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a, *b;

	(void)state;
	if (!more_descriptors(2500))
		skip();
	o.dead_ms = 60000;
	o.ping_ms = 1000;
	o.handshake_ms = 60000;
	o.handshakes_max = 256;
	a = side_new(&o);
	b = side_new(&o);
	a->echo = true;
	side_listen(a, "127.0.0.1:0");
	for (unsigned i = 0; i < 1000; i++) {
		(void)side_dial(b, a->address);
		if (i % 50 == 49)
			WAIT(b, b->opened >= i - 40);
	}
	WAIT(b, b->opened - b->closed >= 1000 || b->opened >= 1000);
	for (unsigned i = 0; i < 1000; i++) {
		struct seen *l;

		(void)pthread_mutex_lock(&b->lock);
		l = side_open(b, i);
		(void)pthread_mutex_unlock(&b->lock);
		assert_non_null(l);
		side_send(b, l->id, TYPE, "hello", 5);
	}
	WAIT(b, b->frames == 1000);
	side_free(b);
	side_free(a);
}

/* Out of descriptors: said, once in a while, and over when there are some again. */
static void test_net__no_descriptors(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a = side_new(&o);
	struct rlimit l, less;
	int fd[4];

	(void)state;
	side_listen(a, "127.0.0.1:0");
	still_serves(a, &o);
	for (int i = 0; i < 4; i++) {
		fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_true(fd[i] >= 0);
	}
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &l), 0);
	less = l;
	less.rlim_cur = (rlim_t)fd[3] + 1;
	(void)close(fd[3]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &less), 0);
	fd[3] = raw_connect(a->port);           /* the last one there is */
	WAIT(a, a->notes > 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
	still_serves(a, &o);
	for (int i = 0; i < 4; i++)
		(void)close(fd[i]);
	side_free(a);
}

/* A peer that is not read from: its sender is told to wait, and memory on both sides stays small. */
static void flood(const struct keyring *keys)
{
	struct net_options o = quick(keys);
	struct side *a, *b;
	uint64_t queued = 0, hash = 0, before;
	static uint8_t buf[50000];
	struct net_stat st;
	net_id at_a, id;
	int r;

	o.out_max = 1u << 20;
	a = side_new(&o);
	b = side_new(&o);
	a->pause_on_open = true;
	side_listen(a, "127.0.0.1:0");
	(void)side_dial(b, a->address);
	at_a = side_wait_open(a);
	id = side_wait_open(b);
	before = mallinfo2().uordblks;
	/* Twice as long as a silence may last: nobody is taken for dead while one side is paused. */
	for (uint64_t end = test_now_ms() + 2 * o.dead_ms; test_now_ms() < end;) {
		memset(buf, (int)(queued & 0xff), sizeof buf);
		r = net_send(b->net, id, TYPE, 0, buf, sizeof buf);
		assert_true(r == 0 || r == -EAGAIN);
		if (r == 0) {
			hash = hash64(buf, sizeof buf, hash);
			queued++;
		} else {
			(void)usleep(5000);
		}
	}
	assert_int_equal(net_stat(b->net, id, &st), 0);
	assert_true(st.queued_bytes <= o.out_max);
	assert_true(r == -EAGAIN);
	assert_true(mallinfo2().uordblks - before < o.out_max + (3u << 20));
	assert_true(queued * sizeof buf < 64u << 20);   /* the rest of it is in the kernel's buffers */
	assert_int_equal(net_stat(a->net, at_a, &st), 0);
	assert_true(st.paused && st.state == NET_OPEN);
	WAIT(a, a->frames == 0);
	assert_int_equal(net_resume(a->net, at_a), 0);
	WAIT(a, a->frames == queued);
	assert_true(a->links[0].hash == hash);
	WAIT(b, side_open(b, 0)->writable > 0);
	side_free(b);
	side_free(a);
}

static void test_net__flood_against_a_paused_consumer(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);

	(void)state;
	flood(NULL);
	flood(ring);
	keyring_free(ring);
}

/* Pings by the million from one who reads no answer. */
static void test_net__flood_of_pings(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a;
	static uint8_t buf[64000];
	size_t n = raw_hello(buf);
	uint64_t before;
	int fd;

	(void)state;
	o.dead_ms = 60000;
	a = side_new(&o);
	side_listen(a, "127.0.0.1:0");
	fd = raw_connect(a->port);
	raw_send(fd, buf, n);
	(void)side_wait_open(a);
	before = mallinfo2().uordblks;
	for (n = 0; n + 16 <= sizeof buf; n += 16)
		(void)raw_frame(buf + n, WIRE_PING, WIRE_MUST, "12345678", 8);
	for (int i = 0; i < 1000; i++)          /* 4 million of them */
		raw_send(fd, buf, n);
	assert_true(mallinfo2().uordblks < before + (1u << 20));
	still_serves(a, &o);
	(void)close(fd);
	side_free(a);
}

/* Links that break -------------------------------------------------------------------------------------------------- */

/* The link is there, but nothing comes through: both notice, and the dialer comes back when it can. */
static void test_net__half_open(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);

	(void)state;
	for (int keyed = 0; keyed < 2; keyed++) {
		struct net_options o = quick(keyed ? ring : NULL);
		struct side *a = side_new(&o), *b = side_new(&o);
		struct relay *r;
		char address[64];
		struct seen l;

		side_listen(a, "127.0.0.1:0");
		r = relay_new(a->port);
		(void)snprintf(address, sizeof address, "127.0.0.1:%u", r->port);
		(void)side_dial(b, address);
		(void)side_wait_open(b);
		(void)side_wait_open(a);
		atomic_store(&r->hold, true);
		l = side_wait_closed(b);
		assert_int_equal(l.error, -ETIMEDOUT);
		assert_non_null(strstr(l.text, "nothing was heard"));
		l = side_wait_closed(a);
		assert_int_equal(l.error, -ETIMEDOUT);
		atomic_store(&r->hold, false);
		WAIT(b, b->opened >= 2);
		side_free(b);
		side_free(a);
		relay_free(r);
	}
	keyring_free(ring);
}

/* With a clock of the test's own: exactly when, and not before. */
static atomic_ullong fake_ns;

static uint64_t fake_now(void *ctx)
{
	(void)ctx;
	return atomic_load(&fake_ns);
}

static void count_up(void *ctx)
{
	(void)atomic_fetch_add((atomic_uint *)ctx, 1);
}

/* Let the net thread go through two turns: what was due has been done. */
static void turn(struct side *s)
{
	atomic_uint n = 0;

	for (unsigned i = 1; i <= 2; i++) {
		assert_int_equal(net_post(s->net, count_up, &n), 0);
		while (atomic_load(&n) < i)
			(void)usleep(100);
	}
}

static void test_net__dead_time_by_the_clock(void **state)
{
	struct net_options o = { .ops = { NULL, fake_now, NULL } };
	struct side *a;
	uint8_t buf[WIRE_HELLO_MAX + 8];
	struct net_stat st;
	net_id id;
	int fd;

	(void)state;
	atomic_store(&fake_ns, 1000000000000ull);
	a = side_new(&o);
	side_listen(a, "127.0.0.1:0");
	fd = raw_connect(a->port);
	raw_send(fd, buf, raw_hello(buf));
	id = side_wait_open(a);
	(void)atomic_fetch_add(&fake_ns, 4999 * 1000000ull);
	turn(a);
	assert_int_equal(net_stat(a->net, id, &st), 0);
	assert_true(st.frames_out >= 1);
	assert_true(net_now_ns(a->net) - st.heard_ns == 4999 * 1000000ull);
	(void)raw_frame(buf, WIRE_PING, WIRE_MUST, "12345678", 8);
	raw_send(fd, buf, 16);
	do {
		assert_int_equal(net_stat(a->net, id, &st), 0);
	} while (net_now_ns(a->net) != st.heard_ns);
	(void)atomic_fetch_add(&fake_ns, 4999 * 1000000ull);
	turn(a);
	assert_int_equal(a->closed, 0);
	(void)atomic_fetch_add(&fake_ns, 1000000ull);
	turn(a);
	assert_int_equal(a->closed, 1);
	assert_int_equal(a->links[0].error, -ETIMEDOUT);
	(void)close(fd);
	side_free(a);
}

static void test_net__reconnect(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a = side_new(&o), *b = side_new(&o);
	char address[128], again[64];
	net_id dialer, first;
	struct seen l;
	unsigned tried;

	(void)state;
	side_listen(a, "127.0.0.1:0");
	(void)snprintf(address, sizeof address, "%s", a->address);
	(void)snprintf(again, sizeof again, "127.0.0.1:%u", a->port);
	dialer = side_dial(b, address);
	first = side_wait_open(b);
	side_free(a);
	l = side_wait_closed(b);
	assert_true(l.id == first && l.was_open && l.dialer == dialer);
	assert_string_equal(l.text, "the peer says: this side stops");
	tried = b->closed;
	WAIT(b, b->closed >= tried + 5);        /* nobody there */
	assert_true(b->links[tried + 1].error == -ECONNREFUSED || b->links[tried + 2].error == -ECONNREFUSED);
	assert_int_equal(net_send(b->net, first, TYPE, 0, "x", 1), -ENOTCONN);
	a = side_new(&o);
	side_listen(a, again);
	assert_true(side_wait_open(b) != first);
	assert_int_equal(net_undial(b->net, dialer), 0);
	(void)side_wait_closed(a);
	turn(b);
	turn(b);
	tried = b->count;
	(void)usleep(150000);
	assert_int_equal(b->count, tried);
	side_free(b);
	side_free(a);
}

/* Twice as long each time, up to the limit, and never the same for all. */
static void test_net__backoff(void **state)
{
	struct net_options o = { .retry_min_ms = 8, .retry_max_ms = 64 };
	struct side *b = side_new(&o);
	bool differ = false;
	char path[64];

	(void)state;
	(void)snprintf(path, sizeof path, "%s/nobody", dir);
	(void)side_dial(b, path);
	WAIT(b, b->closed >= 12);
	for (unsigned i = 0; i < 12; i++) {
		uint32_t most = 8u << (i < 3 ? i : 3);

		assert_int_equal(b->links[i].error, -ENOENT);
		assert_in_range(b->links[i].retry_ms, most / 2, most + 1);
		differ = differ || (i > 4 && b->links[i].retry_ms != b->links[i - 1].retry_ms);
	}
	assert_true(differ);
	side_free(b);
}

static void test_net__replay_is_worth_nothing(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);
	struct net_options o = quick(ring);
	struct side *a = side_new(&o), *b = side_new(&o);
	struct relay *r;
	char address[64];
	uint8_t answer[4096];
	uint64_t frames;
	unsigned opened;

	(void)state;
	side_listen(a, "127.0.0.1:0");
	r = relay_new(a->port);
	(void)snprintf(address, sizeof address, "127.0.0.1:%u", r->port);
	(void)side_dial(b, address);
	side_send(b, side_wait_open(b), TYPE, "delete everything", 17);
	WAIT(a, a->frames == 1);
	side_free(b);
	(void)side_wait_closed(a);
	opened = a->opened;
	frames = a->frames;
	assert_true(r->recorded > 300);
	for (int i = 0; i < 3; i++) {
		int fd = raw_connect(a->port);

		raw_send(fd, r->record, r->recorded);
		(void)raw_read_end(fd, answer, sizeof answer);
		(void)close(fd);
	}
	WAIT(a, a->closed >= opened + 3);
	assert_int_equal(a->opened, opened);
	assert_true(a->frames == frames);
	side_free(a);
	relay_free(r);
	keyring_free(ring);
}

/* Closing, stopping, posts ------------------------------------------------------------------------------------------ */

static void test_net__close_lets_the_queue_out_first(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);

	(void)state;
	for (int keyed = 0; keyed < 2; keyed++) {
		struct net_options o = quick(keyed ? ring : NULL);
		struct side *a, *b;
		uint8_t *p = noise(100000);
		struct seen l;
		net_id id;

		o.linger_ms = 60000;
		a = side_new(&o);
		b = side_new(&o);
		side_listen(a, "127.0.0.1:0");
		(void)side_dial(b, a->address);
		id = side_wait_open(a);
		for (int i = 0; i < 50; i++)
			assert_int_equal(net_send(a->net, id, TYPE, 0, p, 100000), 0);
		assert_int_equal(net_close(a->net, id, WIRE_E_OWNER + 5, "enough"), 0);
		assert_true(net_send(a->net, id, TYPE, 0, p, 1) == -ENOTCONN);
		l = side_wait_closed(b);
		assert_true(l.frames == 50 && l.bytes == 5000000);
		assert_int_equal(l.code, WIRE_E_OWNER + 5);
		assert_string_equal(l.text, "the peer says: enough");
		l = side_wait_closed(a);
		assert_int_equal(l.error, 0);
		assert_string_equal(l.text, "enough");
		free(p);
		side_free(b);
		side_free(a);
	}
	keyring_free(ring);
}

static void close_at_third(struct side *s, net_id id, const struct wire_frame *f, const uint8_t *payload)
{
	(void)f;
	(void)payload;
	if (s->frames == 3)
		assert_int_equal(net_close(s->net, id, 0, "three are enough"), 0);
}

static void test_net__no_frame_after_close(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a = side_new(&o), *b = side_new(&o);
	net_id id;

	(void)state;
	a->on_frame = close_at_third;
	side_listen(a, "127.0.0.1:0");
	(void)side_dial(b, a->address);
	id = side_wait_open(b);
	for (int i = 0; i < 1000; i++)
		(void)net_send(b->net, id, TYPE, 0, "x", 1);
	(void)side_wait_closed(a);
	assert_true(a->links[0].frames == 3);
	(void)side_wait_closed(b);
	side_free(b);
	side_free(a);
}

static void test_net__accepted_may_refuse(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a = side_new(&o), *b = side_new(&o);

	(void)state;
	a->refuse_accept = -EBUSY;
	side_listen(a, "127.0.0.1:0");
	(void)side_dial(b, a->address);
	(void)side_wait_closed(a);
	(void)side_wait_closed(b);
	assert_int_equal(a->opened + b->opened, 0);
	side_free(b);
	side_free(a);
}

static void test_net__links_max(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a, *b;

	(void)state;
	o.links_max = 2;
	a = side_new(&o);
	b = side_new(&o);
	side_listen(a, "127.0.0.1:0");
	for (int i = 0; i < 4; i++)
		(void)side_dial(b, a->address);
	WAIT(b, b->opened >= 2 && b->closed >= 8);
	assert_int_equal(a->opened, 2);
	side_free(b);
	side_free(a);
}

struct order {
	pthread_mutex_t lock;
	unsigned next, bad;
};

struct step {
	struct order *o;
	unsigned number;
};

static void in_order(void *ctx)
{
	struct step *s = ctx;

	(void)pthread_mutex_lock(&s->o->lock);
	s->o->bad += s->number != s->o->next++;
	(void)pthread_mutex_unlock(&s->o->lock);
}

static void test_net__posts_and_timers(void **state)
{
	struct order o = { PTHREAD_MUTEX_INITIALIZER, 0, 0 };
	static struct step steps[1000], last[10];
	struct side *a = side_new(NULL);
	atomic_uint fired = 0;
	net_id t[4];
	uint64_t began = test_now_ms();

	(void)state;
	assert_int_equal(net_timer(a->net, 3600000, count_up, &fired, &t[0]), 0);
	assert_int_equal(net_timer(a->net, 30, count_up, &fired, &t[1]), 0);
	assert_int_equal(net_timer(a->net, 60, count_up, &fired, &t[2]), 0);
	assert_int_equal(net_timer(a->net, 3600000, count_up, &fired, &t[3]), 0);
	assert_int_equal(net_timer_cancel(a->net, t[0]), 0);
	assert_int_equal(net_timer_cancel(a->net, t[0]), -ENOENT);
	for (unsigned i = 0; i < 1000; i++) {
		steps[i] = (struct step){ &o, i };
		assert_int_equal(net_post(a->net, in_order, &steps[i]), 0);
	}
	while (atomic_load(&fired) < 2)
		(void)usleep(1000);
	assert_true(test_now_ms() - began >= 60);
	assert_int_equal(net_timer_cancel(a->net, t[1]), -ENOENT);
	for (unsigned i = 0; i < 10; i++) {
		last[i] = (struct step){ &o, 1000 + i };
		assert_int_equal(net_post(a->net, in_order, &last[i]), 0);
	}
	side_free(a);                   /* t[3] is dropped, the posts are not */
	assert_int_equal(o.next, 1010);
	assert_int_equal(o.bad, 0);
}

static pthread_mutex_t blocker = PTHREAD_MUTEX_INITIALIZER;
static atomic_uint resolving;

static int resolve_blocked(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret)
{
	(void)host;
	(void)atomic_fetch_add(&resolving, 1);
	(void)pthread_mutex_lock(&blocker);
	(void)pthread_mutex_unlock(&blocker);
	(void)atomic_fetch_sub(&resolving, 1);
	return getaddrinfo("127.0.0.1", port, hints, ret);
}

/* A name server that does not answer: nobody waits for it, neither the other links nor the end. */
static void test_net__a_look_up_that_blocks(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a, *b;
	char name[64];
	struct seen l;

	(void)state;
	o.ops.resolve = resolve_blocked;
	o.handshake_ms = 300;
	a = side_new(&o);
	b = side_new(&o);
	side_listen(a, "127.0.0.1:0");
	(void)pthread_mutex_lock(&blocker);
	(void)snprintf(name, sizeof name, "somewhere:%u", a->port);
	(void)side_dial(b, name);
	(void)side_dial(b, a->address);
	(void)side_wait_open(b);
	l = side_wait_closed(b);
	assert_int_equal(l.error, -ETIMEDOUT);
	assert_non_null(strstr(l.text, "name"));
	WAIT(b, b->closed >= 3);
	assert_int_equal(atomic_load(&resolving), 1);   /* one look-up, however many attempts */
	(void)pthread_mutex_unlock(&blocker);
	WAIT(b, b->opened == 2);
	(void)pthread_mutex_lock(&blocker);
	(void)side_dial(b, name);
	while (atomic_load(&resolving) == 0)
		(void)usleep(1000);
	side_free(b);                                   /* while it blocks */
	side_free(a);
	(void)pthread_mutex_unlock(&blocker);
	while (atomic_load(&resolving) != 0)
		(void)usleep(1000);
	(void)usleep(20000);                            /* the thread's last steps, for the leak check */
}

static void *send_until_closed(void *arg)
{
	struct sender *w = arg;
	static const uint8_t buf[3000];

	while (w->count > 0) {
		int r = net_send(w->s->net, w->id, TYPE, 0, buf, sizeof buf);

		if (r == -EAGAIN)
			(void)usleep(1000);
		else if (r < 0)
			return NULL;
		w->count--;
	}
	return NULL;
}

/* Stop in the middle of everything: links full of frames, handshakes under way, dialers that wait. */
static void test_net__stop_while_busy(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);

	(void)state;
	for (unsigned round = 0; round < 30; round++) {
		struct net_options o = quick(round & 1 ? ring : NULL);
		struct side *a = side_new(&o), *b = side_new(&o);
		struct sender w[4];
		pthread_t t[4];
		unsigned links;

		a->echo = true;
		side_listen(a, "127.0.0.1:0");
		for (int i = 0; i < 8; i++)
			(void)side_dial(b, i < 6 ? a->address : "127.0.0.1:1");
		(void)side_wait_open(b);
		(void)pthread_mutex_lock(&b->lock);
		for (links = 0; links < 4 && side_open(b, links); links++)
			w[links] = (struct sender){ b, side_open(b, links)->id, 1u << 30 };
		(void)pthread_mutex_unlock(&b->lock);
		for (unsigned i = 0; i < links; i++)
			assert_int_equal(pthread_create(&t[i], NULL, send_until_closed, &w[i]), 0);
		(void)usleep(rnd(20000));
		side_free(a);                   /* b's senders see their links go */
		for (unsigned i = 0; i < links; i++)
			(void)pthread_join(t[i], NULL);
		side_free(b);
	}
	keyring_free(ring);
}

static void test_net__unix_socket_paths(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a = side_new(&o), *b = side_new(&o);
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	char path[64], file[64];
	struct stat st;
	int fd;

	(void)state;
	(void)snprintf(path, sizeof path, "%s/x.sock", dir);
	(void)snprintf(file, sizeof file, "%s/file", dir);
	/* One that a crash left. */
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	memcpy(un.sun_path, path, strlen(path));
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
	(void)close(fd);
	side_listen(a, path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	still_serves(a, &o);
	assert_int_equal(net_listen(b->net, path, NULL), -EADDRINUSE);
	still_serves(a, &o);
	/* A file is not a socket, and stays. */
	fd = open(file, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	(void)close(fd);
	assert_int_equal(net_listen(b->net, file, NULL), -EADDRINUSE);
	assert_int_equal(access(file, F_OK), 0);
	(void)unlink(file);
	side_free(b);
	side_free(a);
	assert_int_equal(access(path, F_OK), -1);
}

static void test_net__port_in_use(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a = side_new(&o), *b = side_new(&o);
	char address[64];

	(void)state;
	side_listen(a, "127.0.0.1:0");
	(void)snprintf(address, sizeof address, "127.0.0.1:%u", a->port);
	assert_int_equal(net_listen(b->net, address, NULL), -EADDRINUSE);
	assert_non_null(strstr(err_last(), address));
	assert_int_equal(net_unlisten(a->net), 0);
	turn(a);
	side_listen(b, address);
	side_free(b);
	side_free(a);
}

/* ------------------------------------------------------------------------------------------------------------------- */

static unsigned descriptors;

static int count_descriptors(void **state)
{
	(void)state;
	descriptors = open_descriptors();
	return 0;
}

static int same_descriptors(void **state)
{
	(void)state;
	if (open_descriptors() == descriptors)
		return 0;
	print_error("%u descriptors before, %u after\n", descriptors, open_descriptors());
	return -1;
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	return rmdir(dir);
}

#define NET_TEST(f) cmocka_unit_test_setup_teardown(f, count_descriptors, same_descriptors)

static const struct CMUnitTest tests[] = {
	NET_TEST(test_net__addresses),
	NET_TEST(test_net__echo),
	NET_TEST(test_net__ipv6),
	NET_TEST(test_net__both_ways_from_many_threads),
	NET_TEST(test_net__one_buffer_for_all),
	NET_TEST(test_net__wrong_key),
	NET_TEST(test_net__unknown_identity),
	NET_TEST(test_net__key_on_one_side_only),
	NET_TEST(test_net__the_key_says_who_it_is_and_what_it_may),
	NET_TEST(test_net__without_a_key_only_this_machine),
	NET_TEST(test_net__not_with_itself),
	NET_TEST(test_net__versions_and_features),
	NET_TEST(test_net__unknown_frames),
	NET_TEST(test_net__the_owners_refusal_reaches_the_peer),
	NET_TEST(test_net__garbage_before_the_handshake),
	NET_TEST(test_net__garbage_after_the_hello),
	NET_TEST(test_net__hello_must_be_first_and_whole),
	NET_TEST(test_net__changed_on_the_way),
	NET_TEST(test_net__slow_loris),
	NET_TEST(test_net__slow_frame),
	NET_TEST(test_net__a_thousand_that_say_nothing),
	NET_TEST(test_net__a_thousand_links),
	NET_TEST(test_net__no_descriptors),
	NET_TEST(test_net__flood_against_a_paused_consumer),
	NET_TEST(test_net__flood_of_pings),
	NET_TEST(test_net__half_open),
	NET_TEST(test_net__dead_time_by_the_clock),
	NET_TEST(test_net__reconnect),
	NET_TEST(test_net__backoff),
	NET_TEST(test_net__replay_is_worth_nothing),
	NET_TEST(test_net__close_lets_the_queue_out_first),
	NET_TEST(test_net__no_frame_after_close),
	NET_TEST(test_net__accepted_may_refuse),
	NET_TEST(test_net__links_max),
	NET_TEST(test_net__posts_and_timers),
	NET_TEST(test_net__a_look_up_that_blocks),
	NET_TEST(test_net__stop_while_busy),
	NET_TEST(test_net__unix_socket_paths),
	NET_TEST(test_net__port_in_use),
};

int main(void)
{
	return cmocka_run_group_tests_name("net", tests, make_dir, remove_dir);
}
