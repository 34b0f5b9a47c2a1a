/* SPDX-License-Identifier: MIT
 *
 * netbench: what a small value costs when it has to be on more than one machine, here and at the peers; and how long a change
 * takes to be seen elsewhere. Prints name=value lines. remote.sh calls it.
 *
 *     netbench [-p CLIENTS] [-t SECONDS] [-f FILES] put DIR   pwrite of 100 bytes over one of 256 files
 *     netbench ...                       fsput DIR            the same, and fsync
 *     netbench ...                       redis PORT N         SET, WAIT N 0
 *     netbench ...                       etcd PORT            put, through etcd's HTTP gateway on a connection that is kept
 *     netbench [-t SECONDS] [-r RATE]    lag FILE COPY        FILE is written at RATE a second (0: as fast as it goes), COPY is the
 *                                                             same file elsewhere, where each write is waited for
 *     netbench [-t SECONDS]              stream               bytes that TCP on loopback carries a second
 *
 * Threading: each client is a process; they begin together. Latencies are taken around each operation.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define VALUE       100u
#define FILES_MAX   256u
#define CLIENTS_MAX 64u
#define SAMPLES_MAX (1u << 19)
#define POLL_NS     20000       /* how often lag looks */

struct client {
	unsigned id;
	int fds[FILES_MAX];         /* put, fsput */
	int sock;               /* redis, etcd */
	uint64_t i;
};

struct shared {
	pthread_barrier_t start;
	uint64_t ops[CLIENTS_MAX], ns[CLIENTS_MAX];
	volatile uint64_t written;      /* lag: the number of the last write */
};

static unsigned clients = 1, files = FILES_MAX;
static double seconds = 1, write_rate;
static const char *where;
static unsigned replicas;
static struct shared *shared;
static uint32_t *samples[CLIENTS_MAX];

static uint64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void __attribute__((format(printf, 1, 2), noreturn)) die(const char *fmt, ...)
{
	va_list ap;
	int e = errno;

	va_start(ap, fmt);
	(void)fputs("netbench: ", stderr);
	(void)vfprintf(stderr, fmt, ap);
	(void)fprintf(stderr, ": %s\n", strerror(e));
	va_end(ap);
	exit(1);
}

static void *map_shared(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("memory");
	return p;
}

/* ---- Files ---- */

static void files_open(struct client *c)
{
	static const char zero[VALUE];
	char path[4096];

	for (unsigned i = 0; i < files; i++) {
		(void)snprintf(path, sizeof path, "%s/n%u.%u", where, c->id, i);
		c->fds[i] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
		if (c->fds[i] < 0 || pwrite(c->fds[i], zero, VALUE, 0) != VALUE)
			die("%s", path);
	}
}

static void files_close(struct client *c)
{
	char path[4096];

	for (unsigned i = 0; i < files; i++) {
		(void)snprintf(path, sizeof path, "%s/n%u.%u", where, c->id, i);
		(void)close(c->fds[i]);
		(void)unlink(path);
	}
}

static void value(const struct client *c, char *buf)
{
	memset(buf, 'v', VALUE);
	(void)snprintf(buf, VALUE, "%u.%llu", c->id, (unsigned long long)c->i);
}

static void file_put(struct client *c)
{
	char buf[VALUE];

	value(c, buf);
	if (pwrite(c->fds[c->i % files], buf, VALUE, 0) != VALUE)
		die("write");
}

static void file_put_durable(struct client *c)
{
	file_put(c);
	if (fsync(c->fds[c->i % files]) < 0)
		die("fsync");
}

/* ---- Servers ---- */

static int connect_to(unsigned port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
		die("port %u", port);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

static void server_open(struct client *c)
{
	c->sock = connect_to((unsigned)strtoul(where, NULL, 10));
}

static void server_close(struct client *c)
{
	(void)close(c->sock);
}

static void say(int fd, const char *buf, size_t len)
{
	if (send(fd, buf, len, MSG_NOSIGNAL) != (ssize_t)len)
		die("send");
}

/* Read until `lines` lines are there. */
static void hear_lines(int fd, char *buf, size_t room, unsigned lines)
{
	size_t len = 0;
	unsigned have = 0;

	while (have < lines) {
		ssize_t n = recv(fd, buf + len, room - 1 - len, 0);

		if (n <= 0)
			die("recv");
		for (ssize_t i = 0; i < n; i++)
			have += buf[len + (size_t)i] == '\n';
		len += (size_t)n;
	}
	buf[len] = '\0';
}

static void redis_put(struct client *c)
{
	char buf[512], v[VALUE + 1];
	int len;

	value(c, v);
	v[VALUE] = '\0';
	for (unsigned i = 0; i < VALUE; i++)
		if (v[i] == '\0')
			v[i] = 'v';
	len = snprintf(buf, sizeof buf, "SET n%u.%llu %s\r\n", c->id, (unsigned long long)(c->i % files), v);
	if (replicas > 0)
		len += snprintf(buf + len, sizeof buf - (size_t)len, "WAIT %u 0\r\n", replicas);
	say(c->sock, buf, (size_t)len);
	hear_lines(c->sock, buf, sizeof buf, replicas > 0 ? 2 : 1);
	if (strncmp(buf, "+OK", 3) != 0)
		die("redis says %s", buf);
}

static size_t base64(const char *in, size_t len, char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t o = 0;

	for (size_t i = 0; i < len; i += 3) {
		uint32_t v = (uint32_t)(uint8_t)in[i] << 16;

		v |= i + 1 < len ? (uint32_t)(uint8_t)in[i + 1] << 8 : 0;
		v |= i + 2 < len ? (uint32_t)(uint8_t)in[i + 2] : 0;
		out[o++] = digits[v >> 18];
		out[o++] = digits[v >> 12 & 63];
		out[o++] = i + 1 < len ? digits[v >> 6 & 63] : '=';
		out[o++] = i + 2 < len ? digits[v & 63] : '=';
	}
	out[o] = '\0';
	return o;
}

static void etcd_put(struct client *c)
{
	char v[VALUE], key[32], v64[200], k64[64], body[400], buf[4096], *end, *length;
	size_t len = 0, want = SIZE_MAX;

	value(c, v);
	(void)snprintf(key, sizeof key, "n%u.%llu", c->id, (unsigned long long)(c->i % files));
	(void)base64(v, VALUE, v64);
	(void)base64(key, strlen(key), k64);
	(void)snprintf(body, sizeof body, "{\"key\":\"%s\",\"value\":\"%s\"}", k64, v64);
	(void)snprintf(buf, sizeof buf, "POST /v3/kv/put HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
		       "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
	say(c->sock, buf, strlen(buf));
	while (len < want) {
		ssize_t n = recv(c->sock, buf + len, sizeof buf - 1 - len, 0);

		if (n <= 0)
			die("recv");
		len += (size_t)n;
		buf[len] = '\0';
		end = strstr(buf, "\r\n\r\n");
		length = strcasestr(buf, "content-length:");
		if (end && length)
			want = (size_t)(end + 4 - buf) + strtoul(length + 15, NULL, 10);
	}
	if (strncmp(buf, "HTTP/1.1 200", 12) != 0)
		die("etcd says %s", buf);
}

static const struct work {
	const char *name;
	void (*open)(struct client *c), (*op)(struct client *c), (*close)(struct client *c);
} works[] = {
	{ "put", files_open, file_put, files_close },
	{ "fsput", files_open, file_put_durable, files_close },
	{ "redis", server_open, redis_put, server_close },
	{ "etcd", server_open, etcd_put, server_close },
};

/* ---- Clients ---- */

static pid_t start(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

static void run_client(const struct work *w, unsigned id)
{
	struct client c = { .id = id };
	uint64_t begun, before, now, end;

	w->open(&c);
	for (unsigned i = 0; i < files / 8; i++, c.i++)
		w->op(&c);
	(void)pthread_barrier_wait(&shared->start);
	begun = now = now_ns();
	end = begun + (uint64_t)(seconds * 1e9);
	for (uint64_t n = 0; now < end && n < SAMPLES_MAX; n++, c.i++) {
		before = now;
		w->op(&c);
		now = now_ns();
		samples[id][n] = (uint32_t)(now - before > UINT32_MAX ? UINT32_MAX : now - before);
		shared->ops[id] = n + 1;
	}
	shared->ns[id] = now - begun;
	w->close(&c);
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void print_times(uint32_t *all, size_t n)
{
	if (n == 0)
		return;
	qsort(all, n, sizeof *all, by_size);
	(void)printf("p50_us=%.2f\np99_us=%.2f\nmax_us=%.2f\n", all[n / 2] / 1e3, all[n * 99 / 100] / 1e3, all[n - 1] / 1e3);
}

static int wait_all(unsigned count)
{
	int status, bad = 0;

	while (count-- > 0 && wait(&status) > 0)
		bad |= status != 0;
	return bad;
}

static int run(const struct work *w)
{
	uint32_t *all;
	size_t n = 0;
	double rate = 0;
	pthread_barrierattr_t attr;
	int bad;

	(void)pthread_barrierattr_init(&attr);
	(void)pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	(void)pthread_barrier_init(&shared->start, &attr, clients);
	for (unsigned i = 0; i < clients; i++)
		samples[i] = map_shared(SAMPLES_MAX * sizeof **samples);
	for (unsigned i = 0; i < clients; i++)
		if (start() == 0) {
			run_client(w, i);
			_exit(0);
		}
	bad = wait_all(clients);
	all = malloc((size_t)clients * SAMPLES_MAX * sizeof *all);
	if (bad || !all)
		return 1;
	for (unsigned i = 0; i < clients; i++) {
		memcpy(all + n, samples[i], shared->ops[i] * sizeof *all);
		n += shared->ops[i];
		if (shared->ns[i] > 0)
			rate += (double)shared->ops[i] * 1e9 / (double)shared->ns[i];
	}
	(void)printf("work=%s\nclients=%u\nops_per_s=%.1f\n", w->name, clients, rate);
	print_times(all, n);
	free(all);
	return 0;
}

/* ---- Lag ---- */

static void sleep_ns(uint64_t ns)
{
	const struct timespec t = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };

	(void)nanosleep(&t, NULL);
}

static uint64_t *written_at;    /* shared: when write number i had returned */

static void lag_write(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	uint64_t begun = now_ns(), end = begun + (uint64_t)(seconds * 1e9), next = begun;
	char buf[24];

	if (fd < 0)
		die("%s", path);
	for (uint64_t i = 1; now_ns() < end && i < SAMPLES_MAX; i++) {
		(void)snprintf(buf, sizeof buf, "%020llu\n", (unsigned long long)i);
		if (pwrite(fd, buf, 21, 0) != 21)
			die("write");
		written_at[i] = now_ns();
		__atomic_store_n(&shared->written, i, __ATOMIC_RELEASE);
		if (write_rate > 0) {
			next += (uint64_t)(1e9 / write_rate);
			if (next > written_at[i])
				sleep_ns(next - written_at[i]);
		}
	}
	(void)printf("writes_per_s=%.1f\n", (double)shared->written * 1e9 / (double)(now_ns() - begun));
	(void)close(fd);
}

/* Numbers that were jumped over were seen when the later one was. */
static int lag(const char *path, const char *copy)
{
	uint32_t *found = malloc(SAMPLES_MAX * sizeof *found);
	uint64_t seen = 0, last, now, looks = 0;
	char buf[24] = "";
	size_t n = 0;
	pid_t pid;
	int fd, status = 0;
	bool ended = false;

	written_at = map_shared(SAMPLES_MAX * sizeof *written_at);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || pwrite(fd, "00000000000000000000\n", 21, 0) != 21 || !found)
		die("%s", path);
	(void)close(fd);
	for (fd = -1; fd < 0; sleep_ns(1000000))
		fd = open(copy, O_RDONLY | O_CLOEXEC);
	pid = start();
	if (pid == 0) {
		lag_write(path);
		(void)fflush(stdout);
		_exit(0);
	}
	while (!ended || seen < __atomic_load_n(&shared->written, __ATOMIC_ACQUIRE)) {
		ended = ended || waitpid(pid, &status, WNOHANG) == pid;
		if (pread(fd, buf, 21, 0) != 21)
			die("%s", copy);
		now = now_ns();
		looks++;
		last = strtoull(buf, NULL, 10);
		/* Seen before its write had returned: no lag. */
		for (; seen < last && n < SAMPLES_MAX; n++) {
			uint64_t at = written_at[++seen];

			found[n] = at == 0 || at > now ? 0 : (uint32_t)(now - at);
		}
		sleep_ns(POLL_NS);
	}
	(void)printf("seen=%zu\nlooks=%llu\n", n, (unsigned long long)looks);
	print_times(found, n);
	(void)close(fd);
	free(found);
	return status != 0;
}

/* ---- What a link can do ---- */

static int stream(void)
{
	static char buf[1 << 16];
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t len = sizeof a;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;
	uint64_t begun, bytes = 0;
	ssize_t n;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&a, &len) < 0)
		die("listen");
	if (start() == 0) {
		uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);

		fd = connect_to(ntohs(a.sin_port));
		while (now_ns() < end)
			say(fd, buf, sizeof buf);
		_exit(0);
	}
	fd = accept(listener, NULL, NULL);
	begun = now_ns();
	while ((n = recv(fd, buf, sizeof buf, 0)) > 0)
		bytes += (uint64_t)n;
	(void)printf("mib_per_s=%.1f\n", (double)bytes / 1048576 * 1e9 / (double)(now_ns() - begun));
	return wait_all(1);
}

int main(int argc, char **argv)
{
	int opt;

	while ((opt = getopt(argc, argv, "p:t:r:f:")) != -1) {
		switch (opt) {
		case 'p': clients = (unsigned)atoi(optarg); break;
		case 't': seconds = atof(optarg); break;
		case 'f': files = (unsigned)atoi(optarg); break;
		case 'r': write_rate = atof(optarg); break;
		default: return 2;
		}
	}
	argv += optind;
	argc -= optind;
	shared = map_shared(sizeof *shared);
	if (argc == 3 && strcmp(argv[0], "lag") == 0)
		return lag(argv[1], argv[2]);
	if (argc == 1 && strcmp(argv[0], "stream") == 0)
		return stream();
	if (argc >= 2 && clients >= 1 && clients <= CLIENTS_MAX && files >= 1 && files <= FILES_MAX) {
		where = argv[1];
		replicas = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
		for (size_t i = 0; i < sizeof works / sizeof *works; i++)
			if (strcmp(works[i].name, argv[0]) == 0)
				return run(&works[i]);
	}
	(void)fprintf(stderr, "usage: netbench [-p CLIENTS] [-t SECONDS] [-f FILES] put|fsput DIR | redis PORT N | etcd PORT\n"
		      "       netbench [-t SECONDS] [-r RATE] lag FILE COPY | stream\n");
	return 2;
}
