/* SPDX-License-Identifier: MIT
 *
 * test_net: links over real sockets on loopback: what arrives, who may come in, and what happens when a link is closed or
 * all of it stops. What peers do that mean harm, and links that break, are in test_netpeer. Nothing here has a time
 * limit; deadlines under test are made short.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/net_util.h"
#include "tests/unit/random_util.h"
#include "tests/unit/scratch_util.h"

#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define TYPE 0x123

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

/* Else a test that waits for frames would do so for ever. */
static void assert_still_open(struct side *s)
{
	if (s->closed > 0)
		(void)fprintf(stderr, "a link broke: %s\n", side_wait_closed(s).text);
	assert_int_equal(s->closed, 0);
}

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
	WAIT(b, b->frames == sent || b->closed > 0);
	assert_still_open(b);
	l = side_open(b, 0);
	assert_true(l->id == id);
	assert_true(l->bytes == bytes);
	assert_true(l->hash == hash);
	side_free(b);
	side_free(a);
}

static bool knows_localhost(void)
{
	struct addrinfo *found;

	if (getaddrinfo("localhost", NULL, NULL, &found) != 0)
		return false;
	freeaddrinfo(found);
	return true;
}

static void test_net__echo(void **state)
{
	struct net_options plain = quick(NULL), keyed, spinning = quick(NULL);
	struct keyring *ring = ring_of(one_id, 1, 7);
	char path[64];

	(void)state;
	keyed = quick(ring);
	spinning.spin_us = 50;
	(void)snprintf(path, sizeof path, "%s/echo.sock", scratch_folder());
	echo_over("127.0.0.1:0", &plain, &plain);
	/* A bare container may have no /etc/hosts. */
	echo_over(knows_localhost() ? "localhost:0" : "127.0.0.1:0", &plain, &spinning);
	echo_over(path, &plain, &plain);
	echo_over("127.0.0.1:0", &keyed, &keyed);
	echo_over(":0", &keyed, &keyed);
	keyed.rekey_writes = 2;                 /* new keys all the time */
	echo_over("127.0.0.1:0", &keyed, &keyed);
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

static void both_ways(const char *address, const struct net_options *o)
{
	struct side *a = side_new(o), *b = side_new(o);
	struct sender w[4];
	pthread_t t[4];

	side_listen(a, address);
	(void)side_dial(b, a->address);
	for (int i = 0; i < 4; i++) {
		w[i].s = i & 1 ? a : b;
		w[i].id = side_wait_open(w[i].s);
		w[i].count = 1000;
		assert_int_equal(pthread_create(&t[i], NULL, send_many, &w[i]), 0);
	}
	for (int i = 0; i < 4; i++)
		(void)pthread_join(t[i], NULL);
	WAIT(a, a->frames == 2000 || a->closed > 0);
	WAIT(b, b->frames == 2000 || b->closed > 0);
	assert_still_open(a);
	assert_still_open(b);
	side_free(a);
	side_free(b);
}

static void test_net__both_ways_from_many_threads(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);
	struct net_options o = quick(ring);

	(void)state;
	o.out_max = 100000;
	both_ways("127.0.0.1:0", &o);
	keyring_free(ring);
}

/* A side whose new key's announcement finds no room goes on reading: or the two would wait for each other's room, and call
 * each other dead. A Unix socket has little room. */
static void test_net__new_keys_both_ways(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);
	struct net_options o = quick(ring);
	char path[64];

	(void)state;
	(void)snprintf(path, sizeof path, "%s/keys.sock", scratch_folder());
	o.out_max = 1000000;
	o.rekey_writes = 1;
	both_ways(path, &o);
	both_ways("127.0.0.1:0", &o);
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
	refused(ring, NULL, "give --key-file to both", "give --key-file to both", -EACCES);
	refused(NULL, ring, "give --key-file to both", "give --key-file to both", -EACCES);
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

static void count_up(void *ctx)
{
	(void)atomic_fetch_add((atomic_uint *)ctx, 1);
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

/* ---- Memory that is refused to this thread ---- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);

static _Thread_local bool refuse;

void *__wrap_malloc(size_t size)
{
	return refuse ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return refuse ? NULL : __real_calloc(n, size);
}

struct again {
	struct net *net;
	struct net_work work;
	atomic_uint runs;
};

/* It may be posted anew from within. */
static void run_again(void *ctx)
{
	struct again *a = ctx;

	if (atomic_fetch_add(&a->runs, 1) < 9)
		assert_int_equal(net_post_work(a->net, &a->work), 0);
}

/* What was given its memory before needs none later: work, what happens again and again, the end of a dialer, a close. */
static void test_net__without_memory(void **state)
{
	struct net_options o = quick(NULL);
	struct side *a = side_new(&o), *b = side_new(&o);
	struct again again = { .net = a->net };
	static struct step steps[3];
	struct order order = { PTHREAD_MUTEX_INITIALIZER, 0, 0 };
	struct net_work work[3] = { 0 };
	atomic_uint fired = 0;
	net_id every, dialer, open;

	(void)state;
	side_listen(a, "127.0.0.1:0");
	dialer = side_dial(b, a->address);
	open = side_wait_open(b);
	assert_int_equal(net_every(a->net, 5, count_up, &fired, &every), 0);
	again.work = (struct net_work){ .fn = run_again, .ctx = &again };
	for (unsigned i = 0; i < 3; i++) {
		steps[i] = (struct step){ &order, i };
		work[i] = (struct net_work){ .fn = in_order, .ctx = &steps[i] };
	}
	refuse = true;
	assert_int_equal(net_post(a->net, count_up, &fired), -ENOMEM);
	assert_int_equal(net_send(b->net, open, TYPE, 0, "x", 1), -ENOMEM);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(net_post_work(a->net, &work[i]), 0);
	assert_int_equal(net_post_work(a->net, &again.work), 0);
	assert_int_equal(net_close(b->net, open, WIRE_E_BUSY, "no memory"), 0);
	assert_int_equal(net_undial(b->net, dialer), 0);
	refuse = false;
	WAIT(b, b->closed >= 1);
	assert_int_equal(net_undial(b->net, dialer + 1), -ENOENT);
	while (atomic_load(&again.runs) < 10 || atomic_load(&fired) < 5)
		(void)usleep(1000);
	assert_int_equal(net_timer_cancel(a->net, every), 0);
	assert_int_equal(net_timer_cancel(a->net, every), -ENOENT);
	side_turn(b);
	/* Nobody connects any more. */
	assert_int_equal(net_undial(b->net, dialer), -ENOENT);
	side_free(b);
	side_free(a);
	assert_int_equal(order.next, 3);
	assert_int_equal(order.bad, 0);
	assert_int_equal(atomic_load(&again.runs), 10);
}

/* None is lost, however they fall, and many are one. */
static void test_net__pokes(void **state)
{
	struct side *a = side_new(NULL);

	(void)state;
	for (uint64_t i = 1; i <= 100000; i++) {
		atomic_store(&a->produced, i);
		net_poke(a->net);
		if (i % 100 == 0)
			WAIT(a, atomic_load(&a->consumed) == i);
	}
	assert_true(atomic_load(&a->pokes) >= 1000 && atomic_load(&a->pokes) <= 100000);
	side_free(a);
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

/* What threads of an owner do until they are told to end, which may be after the net thread has ended. */
struct user {
	struct side *s;
	const char *address;
	net_id link;
	atomic_bool stop;
	atomic_uint rounds;
	struct net_work work;
	atomic_uint ran;
};

static void use_everything(struct user *u)
{
	struct net *net = u->s->net;
	struct net_stat st;
	net_id id = 0;

	(void)net_send(net, u->link, TYPE, 0, "x", 1);
	(void)net_post(net, count_up, &u->ran);
	(void)net_post_work(net, &u->work);
	net_poke(net);
	if (net_timer(net, 100000, count_up, &u->ran, &id) == 0)
		(void)net_timer_cancel(net, id);
	if (net_dial(net, u->address, &id) == 0)
		(void)net_undial(net, id);
	(void)net_stat(net, u->link, &st);
	(void)net_pause(net, u->link);
	(void)net_resume(net, u->link);
	if (atomic_load(&u->rounds) % 64 == 63)
		(void)net_close(net, u->link, WIRE_E_CLOSED, "bye");
	(void)atomic_fetch_add(&u->rounds, 1);
}

static void *user_main(void *arg)
{
	struct user *u = arg;

	while (!atomic_load(&u->stop))
		use_everything(u);
	return NULL;
}

static void test_net__used_after_its_end(void **state)
{
	struct net_options o = quick(NULL);

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		struct side *a = side_new(&o), *b = side_new(&o);
		struct user u = { .s = b };
		net_id id = 0;
		unsigned rounds;
		pthread_t t;

		u.work = (struct net_work){ .fn = count_up, .ctx = &u.ran };
		side_listen(a, "127.0.0.1:0");
		u.address = a->address;
		(void)side_dial(b, a->address);
		u.link = side_wait_open(b);
		assert_int_equal(pthread_create(&t, NULL, user_main, &u), 0);
		while (atomic_load(&u.rounds) < 3)
			(void)usleep(100);
		net_end(b->net);
		rounds = atomic_load(&u.rounds);
		while (atomic_load(&u.rounds) < rounds + 3)
			(void)usleep(100);
		assert_int_equal(net_post(b->net, count_up, &u.ran), -ESHUTDOWN);
		assert_int_equal(net_send(b->net, u.link, TYPE, 0, "x", 1), -ENOTCONN);
		assert_int_equal(net_dial(b->net, a->address, &id), -ESHUTDOWN);
		rounds = atomic_load(&u.ran);
		atomic_store(&u.stop, true);
		(void)pthread_join(t, NULL);
		assert_int_equal(atomic_load(&u.ran), rounds);  /* nothing is run any more */
		side_free(b);
		side_free(a);
	}
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
	(void)snprintf(path, sizeof path, "%s/x.sock", scratch_folder());
	(void)snprintf(file, sizeof file, "%s/file", scratch_folder());
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
	side_turn(a);
	side_listen(b, address);
	side_free(b);
	side_free(a);
}

/* ------------------------------------------------------------------------------------------------------------------- */

static int set_up(void **state)
{
	(void)state;
	return scratch_make_on_disk("net");
}

#define NET_TEST(f) cmocka_unit_test_setup_teardown(f, count_descriptors, same_descriptors)

static const struct CMUnitTest tests[] = {
	NET_TEST(test_net__addresses),
	NET_TEST(test_net__echo),
	NET_TEST(test_net__ipv6),
	NET_TEST(test_net__both_ways_from_many_threads),
	NET_TEST(test_net__new_keys_both_ways),
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
	NET_TEST(test_net__close_lets_the_queue_out_first),
	NET_TEST(test_net__no_frame_after_close),
	NET_TEST(test_net__accepted_may_refuse),
	NET_TEST(test_net__links_max),
	NET_TEST(test_net__posts_and_timers),
	NET_TEST(test_net__without_memory),
	NET_TEST(test_net__pokes),
	NET_TEST(test_net__a_look_up_that_blocks),
	NET_TEST(test_net__stop_while_busy),
	NET_TEST(test_net__used_after_its_end),
	NET_TEST(test_net__unix_socket_paths),
	NET_TEST(test_net__port_in_use),
};

int main(void)
{
	return cmocka_run_group_tests_name("net", tests, set_up, scratch_teardown);
}
