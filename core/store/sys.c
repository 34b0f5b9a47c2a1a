/* SPDX-License-Identifier: MIT
 *
 * sys: the table that talks to Linux.
 */
#include "core/base.h"
#include "core/store/sys.h"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23          /* Linux 5.14 */
#endif

/* For file systems without fallocate (vfat, some NFS): write zeros behind the end. Inside the file there is nothing
 * that could be done without overwriting contents; a copy of a store with holes is not safe there on a full disk. */
static int write_zeros(int fd, uint64_t off, uint64_t len)
{
	static const char zeros[65536];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (off < (uint64_t)st.st_size) {
		uint64_t inside = min_u64((uint64_t)st.st_size - off, len);

		off += inside;
		len -= inside;
	}
	while (len > 0) {
		ssize_t n = pwrite(fd, zeros, min_u64(len, sizeof zeros), (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

#define EXTENTS_ASKED 64u
#define NO_PLACE      (FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_SHARED)

/* Does all of the range have blocks that are the file's own? False also if that cannot be found out. */
static bool is_allocated(int fd, uint64_t off, uint64_t len)
{
	uint64_t room[(sizeof(struct fiemap) + EXTENTS_ASKED * sizeof(struct fiemap_extent)) / 8];
	struct fiemap *map = (struct fiemap *)room;
	uint64_t end = off + len;
	uint32_t i;

	while (off < end) {
		memset(room, 0, sizeof room);
		map->fm_start = off;
		map->fm_length = end - off;
		map->fm_flags = FIEMAP_FLAG_SYNC;
		map->fm_extent_count = EXTENTS_ASKED;
		if (ioctl(fd, FS_IOC_FIEMAP, map) < 0 || map->fm_mapped_extents == 0)
			return false;
		for (i = 0; i < map->fm_mapped_extents && off < end; i++) {
			const struct fiemap_extent *e = &map->fm_extents[i];

			if (e->fe_logical > off || e->fe_logical + e->fe_length <= off || e->fe_flags & NO_PLACE)
				return false;
			off = e->fe_logical + e->fe_length;
		}
	}
	return true;
}

static int linux_allocate(void *ctx, int fd, uint64_t off, uint64_t len)
{
	(void)ctx;
	for (;;) {
		int error;

		if (fallocate(fd, 0, (off_t)off, (off_t)len) == 0)
			return 0;
		error = errno;
		if (error == EOPNOTSUPP)
			return write_zeros(fd, off, len);
		/* A full XFS also refuses what would take no block at all. */
		if (error == ENOSPC || error == EDQUOT)
			return is_allocated(fd, off, len) ? 0 : -error;
		if (error != EINTR)
			return -error;
	}
}

static int linux_truncate(void *ctx, int fd, uint64_t size)
{
	(void)ctx;
	while (ftruncate(fd, (off_t)size) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

static int linux_size(void *ctx, int fd, uint64_t *ret_size)
{
	struct stat st;

	(void)ctx;
	if (fstat(fd, &st) < 0)
		return -errno;
	*ret_size = (uint64_t)st.st_size;
	return 0;
}

static int linux_map(void *ctx, void *addr, size_t len, int fd, uint64_t off, int private_copy)
{
	int flags = MAP_FIXED | (private_copy ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED);

	(void)ctx;
	return mmap(addr, len, PROT_READ | PROT_WRITE, flags, fd, (off_t)off) == MAP_FAILED ? -errno : 0;
}

static int linux_unmap(void *ctx, void *addr, size_t len)
{
	void *p = mmap(addr, len, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	(void)ctx;
	return p == MAP_FAILED ? -errno : 0;
}

static int linux_sync(void *ctx, void *addr, size_t len)
{
	(void)ctx;
	return msync(addr, len, MS_SYNC) < 0 ? -errno : 0;
}

static int linux_populate(void *ctx, void *addr, size_t len)
{
	(void)ctx;
	return madvise(addr, len, MADV_POPULATE_WRITE) < 0 ? -errno : 0;
}

/* Asking for pages that are there takes the kernel longer than to say that they are (25 us and 7 us for 64 pages in a virtual machine, Linux 6.18). */
static int linux_ahead(void *ctx, void *addr, size_t len)
{
	unsigned char there[512] = { 0 };       /* where pages are larger, not all is filled in */
	size_t pages = len >> BLOCK_SHIFT, i = 0;

	(void)ctx;
	if (pages <= sizeof there && mincore(addr, len, there) == 0)
		while (i < pages && there[i] & 1)
			i++;
	return i == pages || madvise(addr, len, MADV_WILLNEED) == 0 ? 0 : -errno;
}

static int linux_write(void *ctx, int fd, const void *bytes, size_t len, uint64_t off)
{
	const uint8_t *p = bytes;

	(void)ctx;
	while (len > 0) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int linux_write_back(void *ctx, int fd, uint64_t off, uint64_t len)
{
	(void)ctx;
	return sync_file_range(fd, (off64_t)off, (off64_t)len, SYNC_FILE_RANGE_WRITE) < 0 ? -errno : 0;
}

static uint64_t linux_now_real_ns(void *ctx)
{
	(void)ctx;
	return clock_real_ns();
}

static uint64_t linux_now_mono_ns(void *ctx)
{
	(void)ctx;
	return clock_mono_ns();
}

static int linux_random(void *ctx, void *buf, size_t len)
{
	ssize_t n;

	(void)ctx;
	/* Interrupted only while the system has not gathered any entropy yet. */
	do
		n = getrandom(buf, len, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

const struct sys_ops sys_linux = {
	.allocate = linux_allocate,
	.truncate = linux_truncate,
	.size = linux_size,
	.map = linux_map,
	.unmap = linux_unmap,
	.sync = linux_sync,
	.populate = linux_populate,
	.ahead = linux_ahead,
	.write = linux_write,
	.write_back = linux_write_back,
	.now_real_ns = linux_now_real_ns,
	.now_mono_ns = linux_now_mono_ns,
	.random = linux_random,
};
