/* SPDX-License-Identifier: MIT
 *
 * fuzz_link: a peer's whole stream, on a real link: the input is written to a Unix socket in pieces of its own choice, and
 * the owner pauses and resumes where it says so. What the owner is handed must be exactly the frames that a plain reading
 * of the same bytes finds, up to the first that cannot be; and every link is closed once. An input that begins with an odd
 * byte meets a side with a key, where nothing may ever open.
 */
#include "tests/fuzz/fuzz_util.h"

#include "core/replica/net.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct fuzz_side {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct net *net;
	struct sockaddr_un address;
	unsigned accepted, opened, closed;
	uint64_t frames, hash;
	uint8_t pause_every;
	net_id paused;
} sides[2];

static char dir[] = "/tmp/msyncfs-fuzz-XXXXXX";

static int accepted(void *ctx, net_id id, const char *address)
{
	struct fuzz_side *s = ctx;

	(void)id;
	(void)address;
	(void)pthread_mutex_lock(&s->lock);
	s->accepted++;
	(void)pthread_mutex_unlock(&s->lock);
	return 0;
}

static void opened(void *ctx, net_id id, const struct net_peer *peer)
{
	struct fuzz_side *s = ctx;

	(void)id;
	check(peer->version == WIRE_VERSION);
	(void)pthread_mutex_lock(&s->lock);
	s->opened++;
	(void)pthread_mutex_unlock(&s->lock);
}

static void go_on(void *ctx)
{
	struct fuzz_side *s = ctx;

	(void)net_resume(s->net, s->paused);
}

static int frame(void *ctx, net_id id, const struct wire_frame *f, const uint8_t *payload)
{
	struct fuzz_side *s = ctx;

	(void)pthread_mutex_lock(&s->lock);
	s->frames++;
	s->hash = hash64(payload, f->len, s->hash + f->type);
	if (s->pause_every > 0 && s->frames % s->pause_every == 0) {
		s->paused = id;
		check(net_pause(s->net, id) == 0 && net_post(s->net, go_on, s) == 0);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return f->type % 7 == 6 ? -EOPNOTSUPP : 0;
}

static void closed(void *ctx, net_id id, const struct net_end *end)
{
	struct fuzz_side *s = ctx;

	(void)id;
	check(*end->text != '\0');
	(void)pthread_mutex_lock(&s->lock);
	s->closed++;
	(void)pthread_cond_signal(&s->changed);
	(void)pthread_mutex_unlock(&s->lock);
}

static void stop(void)
{
	net_stop(sides[0].net);
	net_stop(sides[1].net);
	(void)rmdir(dir);
}

static void start(void)
{
	static const char key[] = "msyncfs-key-1\nid=fuzz\n"
				  "secret=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
	static struct keyring *ring;    /* kept: the net uses it until the end */

	check(mkdtemp(dir) && keyring_parse("fuzz", key, sizeof key - 1, &ring) == 0);
	for (int i = 0; i < 2; i++) {
		struct fuzz_side *s = &sides[i];
		const struct net_options o = { .keys = i ? ring : NULL, .ping_ms = 60000, .dead_ms = 60000,
					       .handshake_ms = 60000 };
		const struct net_owner owner = { s, accepted, opened, frame, NULL, closed, NULL, NULL };

		(void)pthread_mutex_init(&s->lock, NULL);
		(void)pthread_cond_init(&s->changed, NULL);
		s->address.sun_family = AF_UNIX;
		(void)snprintf(s->address.sun_path, sizeof s->address.sun_path, "%s/%d", dir, i);
		check(net_start(&o, &owner, &s->net) == 0 && net_listen(s->net, s->address.sun_path, NULL) == 0);
	}
	(void)atexit(stop);
}

/* The frames that the owner is to get, by a plain reading. */
static void expect(const uint8_t *p, size_t len, uint64_t *frames, uint64_t *hash)
{
	bool open = false;

	while (len >= WIRE_HEADER) {
		struct wire_hello h;
		struct wire_frame f;

		if (wire_frame_get(p, open ? WIRE_PAYLOAD_MAX : WIRE_HELLO_MAX, &f) < 0 || f.len > len - WIRE_HEADER)
			return;
		p += WIRE_HEADER;
		len -= WIRE_HEADER;
		if (!open) {
			if (f.type != WIRE_HELLO || wire_hello_get(p, f.len, &h) < 0 || h.version_min > WIRE_VERSION ||
			    h.required != 0)
				return;
			open = true;
		} else if (f.type >= WIRE_OWNER) {
			(*frames)++;
			*hash = hash64(p, f.len, *hash + f.type);
			if (f.type % 7 == 6 && f.flags & WIRE_MUST)
				return;
		} else if (f.type == WIRE_HELLO || f.type == WIRE_ERROR ||
			   ((f.type == WIRE_PING || f.type == WIRE_PONG) && f.len != 8) ||
			   (f.type > WIRE_ERROR && f.flags & WIRE_MUST)) {
			return;
		}
		p += f.len;
		len -= f.len;
	}
}

/* The fuzzer's clock is a signal: a read that it ended would be followed by a close, and what the owner has not been handed by
 * then may be lost. */
static ssize_t read_on(int fd, void *buf, size_t len)
{
	ssize_t n;

	do {
		n = read(fd, buf, len);
	} while (n < 0 && errno == EINTR);
	return n;
}

static void talk(struct fuzz_side *s, const uint8_t *p, size_t len, uint8_t piece)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint8_t answer[4096];

	check(fd >= 0 && connect(fd, (struct sockaddr *)&s->address, sizeof s->address) == 0);
	while (len > 0) {
		size_t n = min_u64(len, piece ? piece : 100000);

		ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			break;          /* it was closed on us, as it may be */
		p += sent;
		len -= (size_t)sent;
	}
	(void)shutdown(fd, SHUT_WR);
	while (read_on(fd, answer, sizeof answer) > 0)
		;
	(void)close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };
	uint8_t how = in_u8(&in), piece = in_u8(&in);
	struct fuzz_side *s = &sides[how & 1];
	uint64_t frames = 0, hash = 0;
	unsigned before;

	if (sides[0].net == NULL)
		start();
	(void)pthread_mutex_lock(&s->lock);
	before = s->closed;
	s->opened = 0;
	s->frames = s->hash = 0;
	s->pause_every = how >> 1 & 7;
	(void)pthread_mutex_unlock(&s->lock);
	talk(s, in.p, (size_t)(in.end - in.p), piece);
	(void)pthread_mutex_lock(&s->lock);
	while (s->closed == before)
		(void)pthread_cond_wait(&s->changed, &s->lock);
	check(s->closed == before + 1 && s->accepted == s->closed);
	if (how & 1)
		check(s->opened == 0 && s->frames == 0);
	else
		expect(in.p, (size_t)(in.end - in.p), &frames, &hash);
	check(s->frames == frames && s->hash == hash);
	(void)pthread_mutex_unlock(&s->lock);
	return 0;
}
