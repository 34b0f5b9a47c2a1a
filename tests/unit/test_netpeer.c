/* SPDX-License-Identifier: MIT
 *
 * test_netpeer: peers that mean harm or are broken, and links that break: what they can reach, what they cost, and that
 * all others are served meanwhile. Nothing here has a time limit; deadlines under test are made short.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/net_util.h"
#include "tests/unit/random_util.h"
#include "tests/unit/scratch_util.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#define TYPE 0x123

static const char *const one_id[] = { "alice" };

/* Peers that do harm ------------------------------------------------------------------------------------------------ */

static void test_netpeer__garbage_before_the_handshake(void **state)
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
static void test_netpeer__garbage_after_the_hello(void **state)
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

static void test_netpeer__hello_must_be_first_and_whole(void **state)
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

/* An impostor: speaks TLS 1.3 well, has a certificate, and no key. */
static SSL_CTX *impostor_context(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	EVP_PKEY *pkey = EVP_EC_gen("P-256");
	X509 *x = X509_new();

	assert_true(ctx && pkey && x);
	(void)ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	(void)X509_gmtime_adj(X509_getm_notBefore(x), -3600);
	(void)X509_gmtime_adj(X509_getm_notAfter(x), 3600);
	assert_int_equal(X509_set_pubkey(x, pkey), 1);
	assert_true(X509_sign(x, pkey, EVP_sha256()) > 0);
	assert_int_equal(SSL_CTX_use_certificate(ctx, x), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(ctx, pkey), 1);
	X509_free(x);
	EVP_PKEY_free(pkey);
	return ctx;
}

static void test_netpeer__a_certificate_is_no_key(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);
	struct net_options o = quick(ring);
	struct side *b = side_new(&o);
	SSL_CTX *ctx = impostor_context();
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t len = sizeof a;
	char address[64];
	SSL *ssl = SSL_new(ctx);
	struct seen l;
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd;

	(void)state;
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	(void)snprintf(address, sizeof address, "127.0.0.1:%u", ntohs(a.sin_port));
	(void)side_dial(b, address);
	fd = accept(listener, NULL, NULL);
	assert_true(fd >= 0 && SSL_set_fd(ssl, fd) == 1);
	(void)signal(SIGPIPE, SIG_IGN);         /* OpenSSL's own socket writes raise it */
	assert_true(SSL_accept(ssl) != 1);      /* the client will not have it */
	(void)signal(SIGPIPE, SIG_DFL);
	l = side_wait_closed(b);
	assert_int_equal(b->opened, 0);
	assert_false(l.was_open);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	(void)close(fd);
	(void)close(listener);
	side_free(b);
	keyring_free(ring);
}

/* Inside TLS, a bit that was changed on the way ends the link, whenever. */
static void test_netpeer__changed_on_the_way(void **state)
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

static void test_netpeer__slow_loris(void **state)
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
static void test_netpeer__slow_frame(void **state)
{
	static const uint8_t zeros[1000];
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
	n += raw_frame(buf + n, TYPE, 0, zeros, sizeof zeros);
	for (size_t i = 0; i < n; i++) {
		bool closed;

		raw_send(fd, buf + i, 1);
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
	assert_true(a->frames == 0);            /* long before it was whole */
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

/* They promise a long frame and send the beginning of it. */
static void test_netpeer__memory_follows_bytes_not_promises(void **state)
{
	static const uint8_t zeros[5000];
	struct net_options o = quick(NULL);
	struct side *a;
	static int fd[600];
	uint8_t buf[WIRE_HELLO_MAX + 20];
	const struct wire_frame f = { WIRE_PAYLOAD_MAX, TYPE, 0 };
	struct net_stat st;
	uint64_t before;

	(void)state;
	if (!more_descriptors(2500))
		skip();
	o.dead_ms = 60000;
	a = side_new(&o);
	side_listen(a, "127.0.0.1:0");
	before = memory_asked();
	for (unsigned i = 0; i < ARRAY_LEN(fd); i++) {
		size_t n = raw_hello(buf);

		fd[i] = raw_connect(a->port);
		raw_send(fd[i], buf, n);
		WAIT(a, a->opened == i + 1);
		wire_frame_put(buf, &f);
		raw_send(fd[i], buf, WIRE_HEADER);
		raw_send(fd[i], zeros, sizeof zeros);
		do {
			assert_int_equal(net_stat(a->net, a->links[i].id, &st), 0);
		} while (st.bytes_in < n + WIRE_HEADER + sizeof zeros);
	}
	side_turn(a);
	assert_true(!MEMORY_COUNTS || memory_asked() - before < 200u << 20);    /* promised: 750 MiB */
	for (unsigned i = 0; i < ARRAY_LEN(fd); i++)
		(void)close(fd[i]);
	side_free(a);
}

/* They say nothing. At most 64 are kept, and whoever is quick gets in meanwhile. */
static void test_netpeer__a_thousand_that_say_nothing(void **state)
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

static void test_netpeer__a_thousand_links(void **state)
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
static void test_netpeer__no_descriptors(void **state)
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
	o.dead_ms = 2000;
	a = side_new(&o);
	b = side_new(&o);
	a->pause_on_open = true;
	side_listen(a, "127.0.0.1:0");
	(void)side_dial(b, a->address);
	at_a = side_wait_open(a);
	id = side_wait_open(b);
	before = memory_touched();
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
	assert_true(!MEMORY_COUNTS || memory_touched() - before < 24u << 20);
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

static void test_netpeer__flood_against_a_paused_consumer(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);

	(void)state;
	flood(NULL);
	flood(ring);
	keyring_free(ring);
}

/* Pings by the million from one who reads no answer. */
static void test_netpeer__flood_of_pings(void **state)
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
	before = memory_touched();
	for (n = 0; n + 16 <= sizeof buf; n += 16)
		(void)raw_frame(buf + n, WIRE_PING, WIRE_MUST, "12345678", 8);
	for (int i = 0; i < 1000; i++)          /* 4 million of them */
		raw_send(fd, buf, n);
	assert_true(!MEMORY_COUNTS || memory_touched() - before < 24u << 20);
	still_serves(a, &o);
	(void)close(fd);
	side_free(a);
}

/* Links that break -------------------------------------------------------------------------------------------------- */

/* The link is there, but nothing comes through: both notice, and the dialer comes back when it can. */
static void test_netpeer__half_open(void **state)
{
	struct keyring *ring = ring_of(one_id, 1, 7);

	(void)state;
	for (int keyed = 0; keyed < 2; keyed++) {
		struct net_options o = quick(keyed ? ring : NULL);
		struct side *a, *b;
		struct relay *r;
		char address[64];
		struct seen l;

		o.dead_ms = 1000;
		a = side_new(&o);
		b = side_new(&o);
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

static void test_netpeer__dead_time_by_the_clock(void **state)
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
	side_turn(a);
	assert_int_equal(net_stat(a->net, id, &st), 0);
	assert_true(st.frames_out >= 1);
	assert_true(net_now_ns(a->net) - st.heard_ns == 4999 * 1000000ull);
	(void)raw_frame(buf, WIRE_PING, WIRE_MUST, "12345678", 8);
	raw_send(fd, buf, 16);
	do {
		assert_int_equal(net_stat(a->net, id, &st), 0);
	} while (net_now_ns(a->net) != st.heard_ns);
	(void)atomic_fetch_add(&fake_ns, 4999 * 1000000ull);
	side_turn(a);
	assert_int_equal(a->closed, 0);
	(void)atomic_fetch_add(&fake_ns, 1000000ull);
	side_turn(a);
	assert_int_equal(a->closed, 1);
	assert_int_equal(a->links[0].error, -ETIMEDOUT);
	(void)close(fd);
	side_free(a);
}

static pthread_mutex_t stopped = PTHREAD_MUTEX_INITIALIZER;

static void be_stopped(void *ctx)
{
	atomic_store((atomic_bool *)ctx, true);
	(void)pthread_mutex_lock(&stopped);
	(void)pthread_mutex_unlock(&stopped);
}

/* A process that was stopped for a while (or a machine that slept): what came meanwhile counts before the clock does. */
static void test_netpeer__who_was_stopped_reads_before_it_judges(void **state)
{
	struct net_options o = { .ops = { NULL, fake_now, NULL } };
	struct side *a;
	uint8_t buf[WIRE_HELLO_MAX + 8];
	atomic_bool is_stopped = false;
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
	(void)pthread_mutex_lock(&stopped);
	assert_int_equal(net_post(a->net, be_stopped, &is_stopped), 0);
	while (!atomic_load(&is_stopped))
		(void)usleep(100);
	(void)raw_frame(buf, WIRE_PING, WIRE_MUST, "12345678", 8);
	raw_send(fd, buf, 16);
	(void)atomic_fetch_add(&fake_ns, 3600 * 1000000000ull);
	(void)pthread_mutex_unlock(&stopped);
	side_turn(a);
	assert_int_equal(net_stat(a->net, id, &st), 0);
	assert_true(st.state == NET_OPEN && st.heard_ns == net_now_ns(a->net));
	(void)close(fd);
	side_free(a);
}

static void test_netpeer__reconnect(void **state)
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
	side_turn(b);
	side_turn(b);
	tried = b->count;
	(void)usleep(150000);
	assert_int_equal(b->count, tried);
	side_free(b);
	side_free(a);
}

/* Twice as long each time, up to the limit, and never the same for all. */
static void test_netpeer__backoff(void **state)
{
	struct net_options o = { .retry_min_ms = 8, .retry_max_ms = 64 };
	struct side *b = side_new(&o);
	bool differ = false;
	char path[64];

	(void)state;
	(void)snprintf(path, sizeof path, "%s/nobody", scratch_folder());
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

static void test_netpeer__replay_is_worth_nothing(void **state)
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

/* ------------------------------------------------------------------------------------------------------------------- */

static int set_up(void **state)
{
	(void)state;
	return scratch_make_on_disk("netpeer");
}

#define NET_TEST(f) cmocka_unit_test_setup_teardown(f, count_descriptors, same_descriptors)

static const struct CMUnitTest tests[] = {
	NET_TEST(test_netpeer__garbage_before_the_handshake),
	NET_TEST(test_netpeer__garbage_after_the_hello),
	NET_TEST(test_netpeer__hello_must_be_first_and_whole),
	NET_TEST(test_netpeer__a_certificate_is_no_key),
	NET_TEST(test_netpeer__changed_on_the_way),
	NET_TEST(test_netpeer__slow_loris),
	NET_TEST(test_netpeer__slow_frame),
	NET_TEST(test_netpeer__memory_follows_bytes_not_promises),
	NET_TEST(test_netpeer__a_thousand_that_say_nothing),
	NET_TEST(test_netpeer__a_thousand_links),
	NET_TEST(test_netpeer__no_descriptors),
	NET_TEST(test_netpeer__flood_against_a_paused_consumer),
	NET_TEST(test_netpeer__flood_of_pings),
	NET_TEST(test_netpeer__half_open),
	NET_TEST(test_netpeer__dead_time_by_the_clock),
	NET_TEST(test_netpeer__who_was_stopped_reads_before_it_judges),
	NET_TEST(test_netpeer__reconnect),
	NET_TEST(test_netpeer__backoff),
	NET_TEST(test_netpeer__replay_is_worth_nothing),
};

int main(void)
{
	return cmocka_run_group_tests_name("netpeer", tests, set_up, scratch_teardown);
}
