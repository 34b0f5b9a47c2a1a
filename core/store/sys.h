/* SPDX-License-Identifier: MIT
 *
 * sys: the one table through which the store reaches the system: every fallocate, map, msync and clock. A test puts its
 * own table into store_options.sys to fail a call or to record what a power cut could leave. All return 0 (or a value)
 * or a negative errno. Any thread.
 */
#ifndef MSYNCFS_SYS_H
#define MSYNCFS_SYS_H

#include <stddef.h>
#include <stdint.h>

struct sys_ops {
	/* Blocks for [off, off + len) exist afterwards and read as zeros where they are new; the file grows if need be. */
	int (*allocate)(void *ctx, int fd, uint64_t off, uint64_t len);
	int (*truncate)(void *ctx, int fd, uint64_t size);
	int (*size)(void *ctx, int fd, uint64_t *ret_size);     /* of the file, in bytes */
	/* Map [off, off+len) of the file at exactly addr. private_copy: changes stay in this process. */
	int (*map)(void *ctx, void *addr, size_t len, int fd, uint64_t off, int private_copy);
	/* Make [addr, addr+len) reserved address space again. */
	int (*unmap)(void *ctx, void *addr, size_t len);
	int (*sync)(void *ctx, void *addr, size_t len);         /* msync(MS_SYNC), page aligned */
	int (*populate)(void *ctx, void *addr, size_t len);     /* fault in for writing; advice, may do nothing */
	int (*ahead)(void *ctx, void *addr, size_t len);        /* begin to read into the page cache; advice, may do nothing */
	/* Store bytes in the file, past the mapping, inside its present size. NULL: they go through the mapping. */
	int (*write)(void *ctx, int fd, const void *bytes, size_t len, uint64_t off);
	/* Begin to write [off, off + len) of the file to the disk, and wait for nothing; advice, may do nothing. NULL: nobody asks. */
	int (*write_back)(void *ctx, int fd, uint64_t off, uint64_t len);
	uint64_t (*now_real_ns)(void *ctx);
	uint64_t (*now_mono_ns)(void *ctx);
	int (*random)(void *ctx, void *buf, size_t len);
	void *ctx;
};

/* The real ones. */
extern const struct sys_ops sys_linux;

#endif
