/* SPDX-License-Identifier: MIT
 *
 * main: runs a target's corpus without libFuzzer, as a test: each file named, each file in the folders named; without an
 * argument those of the target: tests/fuzz/corpus/NAME, for fuzz_NAME, and tests/fuzz/found/NAME. What an input once broke aborts again if it is broken
 * again; an input that takes longer than LIMIT_S ends by SIGALRM.
 */
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIMIT_S 20u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static unsigned done;

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size)
{
	(void)data;
	(void)max_size;
	return size;
}

static int run_file(const char *path)
{
	struct stat st;
	uint8_t *data;
	ssize_t n = -1;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0) {
		perror(path);
		return 1;
	}
	/* Of just its size, so that a sanitizer sees reads behind it. */
	data = malloc(st.st_size ? (size_t)st.st_size : 1);
	if (data)
		n = read(fd, data, (size_t)st.st_size);
	(void)close(fd);
	if (n != st.st_size) {
		perror(path);
		free(data);
		return 1;
	}
	(void)printf("# %s\n", path);
	(void)fflush(stdout);
	(void)alarm(LIMIT_S);
	(void)LLVMFuzzerTestOneInput(data, (size_t)n);
	(void)alarm(0);
	free(data);
	done++;
	return 0;
}

static int run_path(const char *path)
{
	struct dirent **names;
	char file[4096];
	int n = scandir(path, &names, NULL, alphasort), i, r = 0;

	if (n < 0)
		return run_file(path);
	for (i = 0; i < n; i++) {
		(void)snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
		if (names[i]->d_name[0] != '.')
			r |= run_file(file);
		free(names[i]);
	}
	free(names);
	return r;
}

int main(int argc, char **argv)
{
	char folder[300];
	int i, r = 0;

	/* The base image by itself, too. */
	(void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
	for (i = 1; i < argc; i++)
		r |= run_path(argv[i]);
	if (argc == 1) {
		const char *name = strrchr(argv[0], '/');

		name = name ? name + 1 : argv[0];
		for (i = 0; i < 2; i++) {
			(void)snprintf(folder, sizeof folder, "tests/fuzz/%s/%s", i ? "found" : "corpus",
				       strncmp(name, "fuzz_", 5) == 0 ? name + 5 : name);
			if (i == 0 || access(folder, F_OK) == 0)
				r |= run_path(folder);
		}
	}
	(void)printf("%s 1 - %u inputs\n1..1\n", r ? "not ok" : "ok", done);
	return r;
}
