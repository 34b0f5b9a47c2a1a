/* SPDX-License-Identifier: MIT
 *
 * relay: a network between two daemons that does what a test wants. Forwards TCP connections on loopback, or wherever it
 * is told, to a target:
 *
 *     relay [ADDR:]PORT TARGET_ADDR:TARGET_PORT         PORT 0: any; it prints "port N" when it listens
 *
 * and obeys lines on standard input, each answered with "ok" or "error ..." when it is in force:
 *
 *     delay MS         each byte arrives MS later, both ways (0: at once)
 *     rate BYTES       at most so many bytes a second each way and connection (0: no limit)
 *     hold [up|down]   nothing is forwarded (only to the target; only from it), nothing is closed; bytes are kept
 *     lose [up|down]   the same, but bytes are swallowed: a half-open link for good
 *     go               end of hold and lose
 *     cut              close all connections, by reset; new ones come in as ever
 *     refuse | accept  close new connections at once | take them
 *     count            "ok LIVE MADE UP_BYTES DOWN_BYTES"
 *     quit             end; so does the end of standard input
 *
 * One thread, poll(); what waits in a direction is at most WAITING bytes, then nothing more is read there.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LINKS_MAX 1024
#define CHUNK     16384u
#define WAITING   (4u << 20)

enum { UP, DOWN };

struct chunk {
	struct chunk *next;
	int64_t due_ms;
	size_t at, len;
	uint8_t bytes[];
};

/* One direction of a connection. */
struct way {
	struct chunk *head, *tail;
	size_t waiting;
	bool ended, closed;             /* nothing more comes; the other side was told */
	double allowance;               /* bytes that may go now, with a rate */
	int64_t filled_ms;
};

struct connection {
	int fd[2];                      /* [UP]: towards who connected; [DOWN]: towards the target; -1: free */
	struct way way[2];              /* [UP]: from who connected to the target */
};

static struct connection links[LINKS_MAX];
static struct sockaddr_in target;
static int listener;
static int64_t delay_ms, rate, now_ms;
static bool held[2], losing[2], refusing;
static uint64_t made, bytes[2];

static int64_t clock_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void fail(const char *what)
{
	(void)fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct sockaddr_in address(const char *text)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	const char *colon = strrchr(text, ':');
	char host[64] = "127.0.0.1";

	if (colon)
		(void)snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
	a.sin_port = htons((uint16_t)strtoul(colon ? colon + 1 : text, NULL, 10));
	errno = EINVAL;
	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		fail(text);
	return a;
}

static void set_up(int fd)
{
	int one = 1;

	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void drop_chunks(struct way *w)
{
	struct chunk *c;

	while ((c = w->head) != NULL) {
		w->head = c->next;
		free(c);
	}
	w->tail = NULL;
	w->waiting = 0;
}

static void end_link(struct connection *l, bool reset)
{
	const struct linger hard = { 1, 0 };

	for (int i = 0; i < 2; i++) {
		if (reset)
			(void)setsockopt(l->fd[i], SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
		(void)close(l->fd[i]);
		drop_chunks(&l->way[i]);
	}
	memset(l, 0, sizeof *l);
	l->fd[UP] = l->fd[DOWN] = -1;
}

static void new_link(void)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC), to;
	struct connection *l = links;

	if (fd < 0)
		return;
	while (l < links + LINKS_MAX && l->fd[UP] >= 0)
		l++;
	to = refusing || l == links + LINKS_MAX ? -1 : socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (to < 0 || connect(to, (struct sockaddr *)&target, sizeof target) < 0) {
		if (to >= 0)
			(void)close(to);
		(void)close(fd);
		return;
	}
	set_up(fd);
	set_up(to);
	l->fd[UP] = fd;
	l->fd[DOWN] = to;
	l->way[UP].filled_ms = l->way[DOWN].filled_ms = now_ms;
	made++;
}

/* False: the connection is broken. */
static bool take_in(struct connection *l, int d)
{
	struct way *w = &l->way[d];
	struct chunk *c = malloc(sizeof *c + CHUNK);
	ssize_t n;

	if (!c)
		fail("memory");
	n = recv(l->fd[d], c->bytes, CHUNK, 0);
	if (n <= 0) {
		free(c);
		w->ended = n == 0;
		return n == 0 || errno == EAGAIN || errno == EINTR;
	}
	bytes[d] += (uint64_t)n;
	if (losing[d]) {
		free(c);
		return true;
	}
	c->next = NULL;
	c->due_ms = now_ms + delay_ms;
	c->at = 0;
	c->len = (size_t)n;
	if (w->tail)
		w->tail->next = c;
	else
		w->head = c;
	w->tail = c;
	w->waiting += c->len;
	return true;
}

/* Something may go on in this direction now. */
static bool due(const struct way *w, int d)
{
	return w->head && !held[d] && !losing[d] && w->head->due_ms <= now_ms && (rate == 0 || w->allowance >= 1);
}

static bool send_on(struct connection *l, int d)
{
	struct way *w = &l->way[d];

	while (due(w, d)) {
		struct chunk *c = w->head;
		size_t n = c->len - c->at;
		ssize_t sent;

		if (rate > 0 && (double)n > w->allowance)
			n = (size_t)w->allowance;
		sent = send(l->fd[!d], c->bytes + c->at, n, MSG_NOSIGNAL);
		if (sent < 0)
			return errno == EAGAIN || errno == EINTR;
		c->at += (size_t)sent;
		w->waiting -= (size_t)sent;
		w->allowance -= (double)sent;
		if (c->at < c->len)
			continue;
		w->head = c->next;
		if (!w->head)
			w->tail = NULL;
		free(c);
	}
	if (!w->head && w->ended && !w->closed && !held[d] && !losing[d]) {
		(void)shutdown(l->fd[!d], SHUT_WR);
		w->closed = true;
	}
	return true;
}

static void fill(struct way *w)
{
	if (rate > 0) {
		w->allowance += (double)rate * (double)(now_ms - w->filled_ms) / 1000;
		if (w->allowance > (double)rate / 10 + CHUNK)   /* no more than a burst is saved up */
			w->allowance = (double)rate / 10 + CHUNK;
	}
	w->filled_ms = now_ms;
}

/* Commands ----------------------------------------------------------------------------------------------------------- */

static void set_ways(bool *flags, const char *which)
{
	flags[UP] = flags[UP] || strcmp(which, "down") != 0;
	flags[DOWN] = flags[DOWN] || strcmp(which, "up") != 0;
}

static void cut(void)
{
	for (int i = 0; i < LINKS_MAX; i++)
		if (links[i].fd[UP] >= 0)
			end_link(&links[i], true);
}

static unsigned live(void)
{
	unsigned n = 0;

	for (int i = 0; i < LINKS_MAX; i++)
		n += links[i].fd[UP] >= 0;
	return n;
}

static bool set_number(const char *text, int64_t *to)
{
	char *end;
	long long n = strtoll(text, &end, 10);

	if (*text == '\0' || *end != '\0' || n < 0)
		return false;
	*to = n;
	return true;
}

static void obey(char *line)
{
	char *arg = line + strcspn(line, " ");
	bool good = true;

	if (*arg != '\0')
		*arg++ = '\0';
	if (strcmp(line, "delay") == 0) {
		good = set_number(arg, &delay_ms);
	} else if (strcmp(line, "rate") == 0) {
		good = set_number(arg, &rate);
	} else if (strcmp(line, "hold") == 0 || strcmp(line, "lose") == 0) {
		good = *arg == '\0' || strcmp(arg, "up") == 0 || strcmp(arg, "down") == 0;
		if (good)
			set_ways(*line == 'h' ? held : losing, arg);
	} else if (strcmp(line, "go") == 0) {
		held[UP] = held[DOWN] = losing[UP] = losing[DOWN] = false;
	} else if (strcmp(line, "cut") == 0) {
		cut();
	} else if (strcmp(line, "refuse") == 0 || strcmp(line, "accept") == 0) {
		refusing = *line == 'r';
	} else if (strcmp(line, "count") == 0) {
		(void)printf("ok %u %llu %llu %llu\n", live(), (unsigned long long)made, (unsigned long long)bytes[UP],
			     (unsigned long long)bytes[DOWN]);
		return;
	} else if (strcmp(line, "quit") == 0) {
		exit(0);
	} else {
		good = false;
	}
	(void)printf(good ? "ok\n" : "error: %s\n", line);
}

static void read_commands(void)
{
	static char buf[4096];
	static size_t len;
	ssize_t n = read(STDIN_FILENO, buf + len, sizeof buf - 1 - len);
	char *nl;

	if (n <= 0)
		exit(0);
	len += (size_t)n;
	while ((nl = memchr(buf, '\n', len)) != NULL) {
		size_t used = (size_t)(nl - buf) + 1;

		*nl = '\0';
		obey(buf);
		memmove(buf, buf + used, len - used);
		len -= used;
	}
	if (len == sizeof buf - 1)
		exit(1);
	(void)fflush(stdout);
}

/* Loop --------------------------------------------------------------------------------------------------------------- */

static short wanted(const struct connection *l, int side)
{
	const struct way *from = &l->way[side], *to = &l->way[!side];
	short events = 0;

	if (!from->ended && !held[side] && from->waiting < WAITING)
		events |= POLLIN;
	if (due(to, !side))
		events |= POLLOUT;
	return events;
}

/* How long may be slept: until something that waits for its time is due. */
static int patience(void)
{
	int64_t least = 1000;

	for (int i = 0; i < LINKS_MAX; i++) {
		for (int d = 0; links[i].fd[UP] >= 0 && d < 2; d++) {
			const struct way *w = &links[i].way[d];

			if (!w->head || held[d] || losing[d])
				continue;
			if (w->head->due_ms > now_ms && w->head->due_ms - now_ms < least)
				least = w->head->due_ms - now_ms;
			else if (w->head->due_ms <= now_ms && !due(w, d))
				least = 5;      /* its rate is used up */
		}
	}
	return (int)least;
}

static void serve(struct connection *l, const struct pollfd *p)
{
	bool good = true;

	for (int side = 0; side < 2; side++) {
		fill(&l->way[side]);
		if (good && p[side].fd >= 0 && p[side].revents & (POLLIN | POLLHUP | POLLERR))
			good = take_in(l, side);
	}
	for (int d = 0; good && d < 2; d++)
		good = send_on(l, d);
	/* A broken connection is broken on both sides, but not seen to be while it is held. */
	if ((!good && !held[UP] && !held[DOWN]) || (l->way[UP].closed && l->way[DOWN].closed))
		end_link(l, !good);
}

int main(int argc, char **argv)
{
	static struct pollfd p[2 + 2 * LINKS_MAX];
	struct sockaddr_in a;
	socklen_t len = sizeof a;
	int one = 1;

	if (argc != 3) {
		(void)fprintf(stderr, "usage: relay [ADDR:]PORT TARGET_ADDR:TARGET_PORT\n");
		return 2;
	}
	a = address(argv[1]);
	target = address(argv[2]);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(listener, 64) < 0 ||
	    getsockname(listener, (struct sockaddr *)&a, &len) < 0)
		fail(argv[1]);
	for (int i = 0; i < LINKS_MAX; i++)
		links[i].fd[UP] = links[i].fd[DOWN] = -1;
	(void)printf("port %u\n", ntohs(a.sin_port));
	(void)fflush(stdout);
	for (;;) {
		now_ms = clock_ms();
		p[0] = (struct pollfd){ STDIN_FILENO, POLLIN, 0 };
		p[1] = (struct pollfd){ listener, POLLIN, 0 };
		for (int i = 0; i < LINKS_MAX; i++)
			for (int side = 0; side < 2; side++) {
				short events = links[i].fd[side] >= 0 ? wanted(&links[i], side) : 0;

				/* Without a wish poll() would still tell of a hang-up, again and again. */
				p[2 + 2 * i + side] = (struct pollfd){ events ? links[i].fd[side] : -1, events, 0 };
			}
		if (poll(p, 2 + 2 * LINKS_MAX, patience()) < 0 && errno != EINTR)
			fail("poll");
		now_ms = clock_ms();
		for (int i = 0; i < LINKS_MAX; i++)
			if (links[i].fd[UP] >= 0)
				serve(&links[i], &p[2 + 2 * i]);
		if (p[1].revents & POLLIN)
			new_link();
		if (p[0].revents)
			read_commands();
	}
}
