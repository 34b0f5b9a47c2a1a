/* SPDX-License-Identifier: MIT
 *
 * many: several processes or threads at one thing.
 *
 *   many append FILE PROCESSES LINES   O_APPEND lines; afterwards each is there once and whole
 *   many fsync DIR THREADS COUNT       each thread writes and fsyncs a file of its own COUNT times
 *   many map FILE PROCESSES PAGES      each process writes its share of the pages through a shared mapping, the others
 *                                      see it through theirs and through read(2)
 *   many trunc FILE ROUNDS             mapping, truncation and extension: bytes behind the end never come back
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define LINE_MAX_LEN 400

static int die(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	exit(1);
}

static int wait_all(void)
{
	int status, bad = 0;

	while (wait(&status) > 0)
		bad |= !WIFEXITED(status) || WEXITSTATUS(status) != 0;
	return bad;
}

/* A line's length and filling follow from who wrote it and which it is. */
static int make_line(char *line, int process, int n)
{
	int len = 12 + (process * 37 + n * 101) % (LINE_MAX_LEN - 20);

	memset(line, 'a' + (process + n) % 26, (size_t)len);
	snprintf(line, 12, "%03d %06d", process, n);
	line[10] = ' ';
	line[len - 1] = '\n';
	return len;
}

static int append_check(const char *path, int processes, int lines)
{
	char line[LINE_MAX_LEN + 2], want[LINE_MAX_LEN + 2];
	int *next = calloc((size_t)processes, sizeof *next), process, n, len;
	FILE *f = fopen(path, "r");
	long total = 0;

	if (!f || !next)
		die(path);
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%d %d", &process, &n) != 2 || process < 0 || process >= processes || n != next[process]) {
			printf("line %ld is torn, lost or out of order: %.40s\n", total + 1, line);
			return 1;
		}
		len = make_line(want, process, n);
		if ((int)strlen(line) != len || memcmp(line, want, (size_t)len) != 0) {
			printf("line %ld is torn: %.40s\n", total + 1, line);
			return 1;
		}
		next[process]++;
		total++;
	}
	fclose(f);
	free(next);
	if (total != (long)processes * lines) {
		printf("%ld lines, want %ld\n", total, (long)processes * lines);
		return 1;
	}
	return 0;
}

static int many_append(const char *path, int processes, int lines)
{
	for (int p = 0; p < processes; p++)
		if (fork() == 0) {
			int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
			char line[LINE_MAX_LEN + 2];

			for (int n = 0; n < lines; n++) {
				int len = make_line(line, p, n);

				if (write(fd, line, (size_t)len) != len)
					die("append");
			}
			_exit(0);
		}
	return wait_all() || append_check(path, processes, lines);
}

struct syncer {
	pthread_t thread;
	const char *dir;
	int number, count, error;
};

static void *sync_thread(void *arg)
{
	struct syncer *s = arg;
	char path[4096], text[100];
	int fd;

	snprintf(path, sizeof path, "%s/sync-%d", s->dir, s->number);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	memset(text, '0' + s->number % 10, sizeof text);
	for (int i = 0; i < s->count && !s->error; i++)
		if (fd < 0 || pwrite(fd, text, sizeof text, (off_t)i * 100) != 100 || (i % 2 ? fsync(fd) : fdatasync(fd)) < 0)
			s->error = errno;
	if (fd >= 0)
		close(fd);
	return NULL;
}

static int many_fsync(const char *dir, int threads, int count)
{
	struct syncer *s = calloc((size_t)threads, sizeof *s);
	struct timespec t0, t1;
	int bad = 0;

	if (!s)
		return 2;
	clock_gettime(CLOCK_MONOTONIC, &t0);
	for (int i = 0; i < threads; i++) {
		s[i] = (struct syncer){ .dir = dir, .number = i, .count = count };
		if (pthread_create(&s[i].thread, NULL, sync_thread, &s[i]))
			return 2;
	}
	for (int i = 0; i < threads; i++) {
		pthread_join(s[i].thread, NULL);
		if (s[i].error) {
			printf("thread %d: %s\n", i, strerror(s[i].error));
			bad = 1;
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &t1);
	printf("%d fsyncs in %.0f ms\n", threads * count,
	       (double)(t1.tv_sec - t0.tv_sec) * 1e3 + (double)(t1.tv_nsec - t0.tv_nsec) / 1e6);
	free(s);
	return bad;
}

static unsigned char *map_file(const char *path, size_t len, int *ret_fd)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	unsigned char *map;

	if (fd < 0 || ftruncate(fd, (off_t)len) < 0)
		die(path);
	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		die("mmap");
	*ret_fd = fd;
	return map;
}

static int many_map(const char *path, int processes, int pages)
{
	const size_t len = (size_t)pages * PAGE;
	unsigned char *map, *copy = malloc(len);
	int fd;

	map = map_file(path, len, &fd);
	for (int p = 0; p < processes; p++)
		if (fork() == 0) {
			int own;
			unsigned char *mine = map_file(path, len, &own);

			for (int i = p; i < pages; i += processes)
				memset(mine + (size_t)i * PAGE, 1 + i % 251, PAGE);
			_exit(munmap(mine, len) < 0);
		}
	if (wait_all() || !copy || pread(fd, copy, len, 0) != (ssize_t)len)
		die("read back");
	for (int i = 0; i < pages; i++)
		for (int j = 0; j < PAGE; j += 511)
			if (map[(size_t)i * PAGE + (size_t)j] != 1 + i % 251 || copy[(size_t)i * PAGE + (size_t)j] != 1 + i % 251) {
				printf("page %d differs\n", i);
				return 1;
			}
	if (msync(map, len, MS_SYNC) < 0 || munmap(map, len) < 0)
		die("msync");
	return 0;
}

static int many_trunc(const char *path, int rounds)
{
	unsigned char byte[PAGE], *map;
	int fd;

	map = map_file(path, 4 * PAGE, &fd);
	for (int i = 0; i < rounds; i++) {
		const off_t end = PAGE + 1 + i * 61 % (PAGE - 1);

		memset(map, 'x', 2 * PAGE);
		if (ftruncate(fd, end) < 0)
			die("ftruncate");
		if (ftruncate(fd, 4 * PAGE) < 0 || pread(fd, byte, PAGE, PAGE) != PAGE)
			die("extend");
		for (off_t j = end - PAGE; j < PAGE; j++)
			if (byte[j] != 0) {
				printf("round %d: byte %lld came back as 0x%02x\n", i, (long long)(PAGE + j), byte[j]);
				return 1;
			}
		if (map[3 * PAGE] != 0)
			return 1;
	}
	return munmap(map, 4 * PAGE) < 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 3 ? argv[1] : "";
	const int a = argc > 3 ? atoi(argv[3]) : 0, b = argc > 4 ? atoi(argv[4]) : 0;

	if (strcmp(what, "append") == 0)
		return many_append(argv[2], a, b);
	if (strcmp(what, "fsync") == 0)
		return many_fsync(argv[2], a, b);
	if (strcmp(what, "map") == 0)
		return many_map(argv[2], a, b);
	if (strcmp(what, "trunc") == 0)
		return many_trunc(argv[2], a);
	fprintf(stderr, "usage: many append|fsync|map PATH COUNT COUNT | many trunc FILE ROUNDS\n");
	return 2;
}
