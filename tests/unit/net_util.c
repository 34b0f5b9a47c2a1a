/* SPDX-License-Identifier: MIT
 *
 * net_util: see net_util.h.
 */
#include "tests/unit/net_util.h"

#include "tests/unit/random_util.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RECORD_MAX (1u << 20)

uint64_t test_now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t statm(bool touched)
{
	unsigned long long asked = 0, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	check(f && fscanf(f, "%llu %llu", &asked, &resident) == 2);
	(void)fclose(f);
	return (touched ? resident : asked) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t memory_touched(void)
{
	return statm(true);
}

uint64_t memory_asked(void)
{
	return statm(false);
}

static unsigned open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	check(d != NULL);
	while (readdir(d))
		n++;
	(void)closedir(d);
	return n;
}

static unsigned descriptors;

int count_descriptors(void **state)
{
	(void)state;
	descriptors = open_descriptors();
	return 0;
}

int same_descriptors(void **state)
{
	(void)state;
	for (int i = 0; i < 2000 && open_descriptors() != descriptors; i++)
		(void)usleep(1000);
	if (open_descriptors() == descriptors)
		return 0;
	(void)fprintf(stderr, "%u descriptors before, %u after\n", descriptors, open_descriptors());
	return -1;
}

uint8_t *noise(size_t len)
{
	uint8_t *p = malloc(len + 1);

	check(p != NULL);
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)rnd(256);
	return p;
}

/* Sides ------------------------------------------------------------------------------------------------------------- */

/* Under the lock. */
static struct seen *seen_of(struct side *s, net_id id, bool make)
{
	for (unsigned i = s->count; i > 0; i--)
		if (s->links[i - 1].id == id)
			return &s->links[i - 1];
	if (!make || s->count == SEEN_MAX)
		return NULL;
	s->links[s->count].id = id;
	return &s->links[s->count++];
}

static void done(struct side *s)
{
	(void)pthread_cond_broadcast(&s->changed);
	(void)pthread_mutex_unlock(&s->lock);
}

static int side_accepted(void *ctx, net_id id, const char *address)
{
	struct side *s = ctx;
	struct seen *l;
	int r;

	(void)pthread_mutex_lock(&s->lock);
	l = seen_of(s, id, true);
	check(*address != '\0' && (!l || !l->accepted));
	if (l)
		l->accepted = true;
	if (++s->accepted_now > s->accepted_most)
		s->accepted_most = s->accepted_now;
	r = s->refuse_accept;
	done(s);
	return r;
}

static void side_opened(void *ctx, net_id id, const struct net_peer *peer)
{
	struct side *s = ctx;
	struct seen *l;

	(void)pthread_mutex_lock(&s->lock);
	l = seen_of(s, id, true);
	check(!l || (!l->opened && !l->closed));
	if (l) {
		if (l->accepted)
			s->accepted_now--;
		l->opened = true;
		l->dialer = peer->dialer;
		l->version = peer->version;
		l->features = peer->features;
		(void)snprintf(l->software, sizeof l->software, "%s", peer->software);
		(void)snprintf(l->key, sizeof l->key, "%s", peer->key ? peer->key->id : "");
		(void)snprintf(l->tree, sizeof l->tree, "%s", peer->key && peer->key->tree ? peer->key->tree : "");
		l->read_only = peer->key && peer->key->read_only;
		l->paused = s->pause_on_open;
	}
	s->opened++;
	if (s->pause_on_open)
		check(net_pause(s->net, id) == 0);
	done(s);
}

static int side_frame(void *ctx, net_id id, const struct wire_frame *f, const uint8_t *payload)
{
	struct side *s = ctx;
	struct seen *l;
	int r;

	(void)pthread_mutex_lock(&s->lock);
	l = seen_of(s, id, false);
	check(s->count == SEEN_MAX || (l && l->opened && !l->closed));
	if (l) {
		l->frames++;
		l->bytes += f->len;
		l->hash = hash64(payload, f->len, l->hash);
	}
	s->frames++;
	r = s->answer;
	done(s);
	if (s->on_frame)
		s->on_frame(s, id, f, payload);
	if (s->echo)
		(void)net_send(s->net, id, f->type, f->flags, payload, f->len);
	return r;
}

static void side_writable(void *ctx, net_id id)
{
	struct side *s = ctx;
	struct seen *l;

	(void)pthread_mutex_lock(&s->lock);
	l = seen_of(s, id, false);
	check(l && l->opened && !l->closed);
	l->writable++;
	done(s);
}

static void side_closed(void *ctx, net_id id, const struct net_end *end)
{
	struct side *s = ctx;
	struct seen *l;

	(void)pthread_mutex_lock(&s->lock);
	l = seen_of(s, id, true);
	check(!l || (!l->closed && end->opened == l->opened && *end->text != '\0' && !strchr(end->text, '\n')));
	if (l) {
		if (l->accepted && !l->opened)
			s->accepted_now--;
		l->closed = true;
		l->dialer = end->dialer;
		l->was_open = end->opened;
		l->error = end->error;
		l->code = end->code;
		l->retry_ms = end->retry_ms;
		(void)snprintf(l->text, sizeof l->text, "%s", end->text);
	}
	s->closed++;
	done(s);
}

static void side_note(void *ctx, const char *text)
{
	struct side *s = ctx;

	(void)pthread_mutex_lock(&s->lock);
	check(*text != '\0');
	s->notes++;
	done(s);
}

static void side_poked(void *ctx)
{
	struct side *s = ctx;

	(void)pthread_mutex_lock(&s->lock);
	atomic_store(&s->consumed, atomic_load(&s->produced));
	(void)atomic_fetch_add(&s->pokes, 1);
	done(s);
}

struct side *side_new(const struct net_options *o)
{
	const struct net_options none = { 0 };
	struct side *s = calloc(1, sizeof *s);
	struct net_owner owner = { s, side_accepted, side_opened, side_frame, side_writable, side_closed, side_note,
				   side_poked };

	check(s != NULL);
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->changed, NULL);
	check(net_start(o ? o : &none, &owner, &s->net) == 0);
	return s;
}

void side_listen(struct side *s, const char *address)
{
	int r = net_listen(s->net, address, &s->port);

	if (r < 0)
		(void)fprintf(stderr, "%s: %s\n", address, err_last());
	check(r == 0);
	if (strchr(address, '/'))
		(void)snprintf(s->address, sizeof s->address, "%s", address);
	else
		(void)snprintf(s->address, sizeof s->address, "%s:%u", address[0] == '[' ? "[::1]" : "127.0.0.1", s->port);
}

net_id side_dial(struct side *s, const char *address)
{
	net_id id = 0;
	int r = net_dial(s->net, address, &id);

	if (r < 0)
		(void)fprintf(stderr, "%s: %s\n", address, err_last());
	check(r == 0 && id != 0);
	return id;
}

void side_free(struct side *s)
{
	net_stop(s->net);
	for (unsigned i = 0; i < s->count && s->count < SEEN_MAX; i++)
		check(s->links[i].closed);
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->changed);
	free(s);
}

struct seen *side_open(struct side *s, unsigned n)
{
	for (unsigned i = 0; i < s->count; i++)
		if (s->links[i].opened && !s->links[i].closed && n-- == 0)
			return &s->links[i];
	return NULL;
}

net_id side_wait_open(struct side *s)
{
	struct seen *l;
	net_id id;

	(void)pthread_mutex_lock(&s->lock);
	while ((l = side_open(s, 0)) == NULL)
		(void)pthread_cond_wait(&s->changed, &s->lock);
	id = l->id;
	(void)pthread_mutex_unlock(&s->lock);
	return id;
}

struct seen side_wait_closed(struct side *s)
{
	struct seen *l = NULL, copy;

	(void)pthread_mutex_lock(&s->lock);
	while (!l) {
		for (unsigned i = 0; i < s->count && !l; i++)
			if (s->links[i].closed)
				l = &s->links[i];
		if (!l)
			(void)pthread_cond_wait(&s->changed, &s->lock);
	}
	copy = *l;
	(void)pthread_mutex_unlock(&s->lock);
	return copy;
}

void side_send(struct side *s, net_id id, uint16_t type, const void *payload, uint32_t len)
{
	for (;;) {
		uint64_t before;
		struct seen *l;
		int r;

		(void)pthread_mutex_lock(&s->lock);
		l = seen_of(s, id, false);
		check(l != NULL);
		before = l->writable;
		(void)pthread_mutex_unlock(&s->lock);
		r = net_send(s->net, id, type, 0, payload, len);
		if (r == 0)
			return;
		check(r == -EAGAIN);
		WAIT(s, l->writable != before || l->closed);
	}
}

struct net_options quick(const struct keyring *keys)
{
	return (struct net_options){ .keys = keys, .ping_ms = 50, .dead_ms = 20000, .handshake_ms = 20000, .linger_ms = 300,
				     .retry_min_ms = 10, .retry_max_ms = 100 };
}

void still_serves(struct side *a, const struct net_options *client)
{
	struct side *b = side_new(client);
	net_id id;

	a->echo = true;
	(void)side_dial(b, a->address);
	id = side_wait_open(b);
	check(net_send(b->net, id, WIRE_OWNER, 0, "hello", 5) == 0);
	WAIT(b, b->frames == 1);
	side_free(b);
}

static void count_up(void *ctx)
{
	(void)atomic_fetch_add((atomic_uint *)ctx, 1);
}

void side_turn(struct side *s)
{
	atomic_uint n = 0;

	for (unsigned i = 1; i <= 2; i++) {
		check(net_post(s->net, count_up, &n) == 0);
		while (atomic_load(&n) < i)
			(void)usleep(100);
	}
}

struct keyring *ring_of(const char *const *ids, unsigned count, uint8_t secret_byte)
{
	struct keyring *ring = NULL;
	char text[4096];
	size_t n = 0;

	for (unsigned i = 0; i < count; i++) {
		const char *comma = strchr(ids[i], ',');
		int len = comma ? (int)(comma - ids[i]) : (int)strlen(ids[i]);

		n += (size_t)snprintf(text + n, sizeof text - n, "msyncfs-key-1\nid=%.*s\nsecret=", len, ids[i]);
		for (unsigned j = 0; j < KEY_SECRET; j++)
			n += (size_t)snprintf(text + n, sizeof text - n, "%02x", (secret_byte + i + j) & 0xff);
		n += (size_t)snprintf(text + n, sizeof text - n, "\n%s%s\n", comma ? "limit=" : "", comma ? comma + 1 : "");
	}
	check(keyring_parse("test", text, n, &ring) == 0);
	return ring;
}

/* Raw sockets ------------------------------------------------------------------------------------------------------- */

static struct sockaddr_in loopback(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return a;
}

int raw_connect(uint16_t port)
{
	struct sockaddr_in a = loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	check(fd >= 0);
	check(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

/* The other side may have closed: that is for the test to notice. */
void raw_send(int fd, const void *p, size_t len)
{
	const uint8_t *b = p;

	while (len > 0) {
		ssize_t n = send(fd, b, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		b += n;
		len -= (size_t)n;
	}
}

size_t raw_read_end(int fd, uint8_t *buf, size_t size)
{
	uint8_t more[4096];
	size_t len = 0;

	for (;;) {
		ssize_t n = read(fd, len < size ? buf + len : more, len < size ? size - len : sizeof more);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return len;
		if (len < size)
			len += (size_t)n;
	}
}

size_t raw_frame(uint8_t *buf, uint16_t type, uint16_t flags, const void *payload, uint32_t len)
{
	const struct wire_frame f = { len, type, flags };

	wire_frame_put(buf, &f);
	if (len > 0)
		memcpy(buf + WIRE_HEADER, payload, len);
	return WIRE_HEADER + len;
}

size_t raw_hello(uint8_t *buf)
{
	const struct wire_hello h = { WIRE_VERSION_MIN, WIRE_VERSION, 100, 0, 0, 4711, "raw" };
	uint8_t payload[WIRE_HELLO_MAX];
	struct wire_writer w = wire_writer(payload, sizeof payload);

	wire_hello_put(&w, &h);
	return raw_frame(buf, WIRE_HELLO, WIRE_MUST, payload, (uint32_t)wire_used(&w));
}

/* Relay ------------------------------------------------------------------------------------------------------------- */

static bool pass_on(struct relay *r, int from, int to, bool to_target)
{
	uint8_t buf[16384];
	ssize_t n = read(from, buf, sizeof buf);

	if (n <= 0)
		return false;
	if (to_target && atomic_load(&r->links) == 1) {
		(void)pthread_mutex_lock(&r->lock);
		if (r->recorded + (size_t)n <= RECORD_MAX) {
			memcpy(r->record + r->recorded, buf, (size_t)n);
			r->recorded += (size_t)n;
		}
		(void)pthread_mutex_unlock(&r->lock);
	}
	if (atomic_load(&r->flip) > 0) {
		(void)atomic_fetch_sub(&r->flip, 1);
		buf[n - 1] ^= 1;
	}
	raw_send(to, buf, (size_t)n);
	return true;
}

static void serve(struct relay *r, int a)
{
	int b = raw_connect(r->target);
	bool going = true;

	(void)atomic_fetch_add(&r->links, 1);
	while (going && !atomic_load(&r->stop) && !atomic_load(&r->cut)) {
		short want = atomic_load(&r->hold) ? 0 : POLLIN;
		struct pollfd p[3] = { { a, want, 0 }, { b, want, 0 }, { r->wake[0], POLLIN, 0 } };

		if (poll(p, 3, 20) < 0 || want == 0)
			continue;
		if (p[0].revents)
			going = pass_on(r, a, b, true);
		if (going && p[1].revents)
			going = pass_on(r, b, a, false);
	}
	(void)close(a);
	(void)close(b);
}

static void *relay_thread(void *arg)
{
	struct relay *r = arg;

	while (!atomic_load(&r->stop)) {
		struct pollfd p[2] = { { r->listen_fd, POLLIN, 0 }, { r->wake[0], POLLIN, 0 } };
		int fd;

		if (poll(p, 2, -1) < 0 || !(p[0].revents & POLLIN))
			continue;
		fd = accept4(r->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			serve(r, fd);
		atomic_store(&r->cut, false);
	}
	return NULL;
}

struct relay *relay_new(uint16_t target)
{
	struct relay *r = calloc(1, sizeof *r);
	struct sockaddr_in a = loopback(0);
	socklen_t len = sizeof a;

	check(r != NULL);
	r->target = target;
	r->record = malloc(RECORD_MAX);
	r->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(r->record && r->listen_fd >= 0 && pipe2(r->wake, O_CLOEXEC) == 0);
	check(bind(r->listen_fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(r->listen_fd, 16) == 0);
	check(getsockname(r->listen_fd, (struct sockaddr *)&a, &len) == 0);
	r->port = ntohs(a.sin_port);
	(void)pthread_mutex_init(&r->lock, NULL);
	check(pthread_create(&r->thread, NULL, relay_thread, r) == 0);
	return r;
}

void relay_free(struct relay *r)
{
	atomic_store(&r->stop, true);
	check(write(r->wake[1], "", 1) == 1);
	(void)pthread_join(r->thread, NULL);
	(void)close(r->listen_fd);
	(void)close(r->wake[0]);
	(void)close(r->wake[1]);
	(void)pthread_mutex_destroy(&r->lock);
	free(r->record);
	free(r);
}
