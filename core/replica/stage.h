/* SPDX-License-Identifier: MIT
 *
 * stage: edits that wait to be made, in a file that never has a name: the kernel removes it with the process, however it
 * dies. Nothing of it is durable, nor needs to be. One thread. Written one after the other, then read from the start.
 */
#ifndef MSYNCFS_STAGE_H
#define MSYNCFS_STAGE_H

#include "core/keys/logical.h"

enum stage_kind { STAGE_PUT = 1, STAGE_DEL = 2, STAGE_WINDOW = 3 };

struct stage_edit {
	enum stage_kind kind;
	struct key key;
	const uint8_t *value;                   /* STAGE_PUT; valid until the next call */
	uint32_t len;
	const struct window *window;            /* STAGE_WINDOW */
};

struct stage {
	int fd;
	uint8_t *buf;
	size_t len, at;                         /* bytes in buf, and read of them */
	uint64_t written, read;                 /* bytes of the file */
	struct window window;                   /* the one read last */
};

/* folder: NULL = memory. Negative errno, with a text. */
int stage_open(struct stage *g, const char *folder);
void stage_close(struct stage *g);
int stage_add(struct stage *g, const struct stage_edit *edit);
/* All that was added is to be read now, from the first on; may be called again. */
int stage_rewind(struct stage *g);
/* 1; 0: no more. */
int stage_next(struct stage *g, struct stage_edit *ret);

#endif
