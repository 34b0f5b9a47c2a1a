/* SPDX-License-Identifier: MIT
 *
 * points: where the daemon can be made to die. The driver shares one page with the library points.so, which is loaded into
 * the daemon: the driver arms a point, the daemon that comes to it kills itself, at once or a chosen number of nanoseconds
 * later. One daemon at a time looks at a page.
 */
#ifndef MSYNCFS_TEST_POINTS_H
#define MSYNCFS_TEST_POINTS_H

#include <stdatomic.h>
#include <stdint.h>

enum point {
	POINT_NONE, POINT_MSYNC, POINT_MMAP, POINT_FALLOCATE, POINT_FTRUNCATE, POINT_MADVISE, POINT_LINKAT, POINT_FLOCK,
	POINT_OPEN, POINT_FSYNC, POINT_READ, POINT_WRITEV, POINT_MOUNT, POINT_UMOUNT, POINT_WRITE,
	POINTS,
};

#define POINT_NAMES { "none", "msync", "mmap", "fallocate", "ftruncate", "madvise", "linkat", "flock", "open", "fsync", \
		      "device-read", "device-write", "mount", "umount", "write" }

struct points {
	atomic_uint armed;              /* enum point; stored last */
	atomic_int left;                /* the call that does it: 1 = the next */
	atomic_uint after;              /* once the call has returned, else before it */
	atomic_uint delay_ns;           /* and so much later, while the daemon goes on */
	atomic_uint fired;
	atomic_ullong seen[POINTS];
};

#endif
