/* SPDX-License-Identifier: MIT
 *
 * quota: loaded into the daemon (LD_PRELOAD), it refuses with EDQUOT to allocate blocks of a file behind as many bytes as
 * the file QUOTA_FILE says, which can be changed while the daemon runs: a quota of the store's owner, on file systems and
 * kernels that have none.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

static off_t limit(void)
{
	const char *file = getenv("QUOTA_FILE");
	FILE *f = file != NULL ? fopen(file, "re") : NULL;
	long long bytes = 0;

	if (f == NULL)
		return -1;
	if (fscanf(f, "%lld", &bytes) != 1)
		bytes = -1;
	fclose(f);
	return bytes;
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	int (*real)(int, int, off_t, off_t) = dlsym(RTLD_NEXT, "fallocate64");
	off_t most = limit();

	if (most >= 0 && off + len > most) {
		errno = EDQUOT;
		return -1;
	}
	return real(fd, mode, off, len);
}
