/* SPDX-License-Identifier: MIT
 *
 * superset: change a field in all four superblocks of a closed store, and seal them again, as a later version of the
 * program could have written them.
 *
 *   superset STORE version|compat|ro_compat|incompat VALUE     prints the value that was there
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/store/format.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	unsigned at, size;
} fields[] = {
	{ "version", SB_VERSION, 4 },
	{ "compat", SB_COMPAT, 8 },
	{ "ro_compat", SB_RO_COMPAT, 8 },
	{ "incompat", SB_INCOMPAT, 8 },
};

static int die(const char *what)
{
	perror(what);
	return 1;
}

static uint64_t set(uint8_t *page, uint64_t block, unsigned at, unsigned size, uint64_t value)
{
	uint64_t was = size == 8 ? get_le64(page + at) : get_le32(page + at);

	if (size == 8)
		put_le64(page + at, value);
	else
		put_le32(page + at, (uint32_t)value);
	put_le64(page + SB_CSUM, XXH3_64bits_withSeed(page + 16, BLOCK_SIZE - 16, block));
	return was;
}

int main(int argc, char **argv)
{
	static const uint64_t places[SUPER_PLACES] = { 0, 1, SUPER_COPY, SUPER_COPY + 1 };
	uint8_t page[BLOCK_SIZE];
	uint64_t was = 0;
	unsigned f, i;
	int fd;

	for (f = 0; argc == 4 && f < sizeof fields / sizeof fields[0] && strcmp(argv[2], fields[f].name) != 0; f++)
		;
	if (argc != 4 || f == sizeof fields / sizeof fields[0]) {
		fprintf(stderr, "usage: superset STORE version|compat|ro_compat|incompat VALUE\n");
		return 2;
	}
	fd = open(argv[1], O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return die(argv[1]);
	for (i = 0; i < SUPER_PLACES; i++) {
		off_t off = (off_t)(places[i] * BLOCK_SIZE);

		if (pread(fd, page, sizeof page, off) != (ssize_t)sizeof page)
			return die("read");
		was = set(page, places[i], fields[f].at, fields[f].size, strtoull(argv[3], NULL, 0));
		if (pwrite(fd, page, sizeof page, off) != (ssize_t)sizeof page)
			return die("write");
	}
	close(fd);
	printf("%llu\n", (unsigned long long)was);
	return 0;
}
