/* SPDX-License-Identifier: MIT
 *
 * stage: see stage.h. What the file holds is ours, so it is not checked again but for what a disk may do to it: a short
 * read is an error.
 */
#include "core/replica/stage.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define BUF_SIZE (256u << 10)
enum { S_KIND = 0, S_LEN = 4, S_HI = 8, S_LO = 16, S_HEADER = 24 };
#define WINDOW_LEN_MAX (WINDOW_BLOCKS * 13u)    /* kinds; checksum and block of each that has data */
_Static_assert(S_HEADER + WINDOW_LEN_MAX < BUF_SIZE && LOGICAL_MAX <= WINDOW_LEN_MAX, "an edit fits the buffer");

static int open_file(const char *folder)
{
	char path[PATH_MAX];
	int fd;

	if (!folder) {
		fd = memfd_create("msyncfs-stage", MFD_CLOEXEC);
		return fd < 0 ? -errno : fd;
	}
	fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd < 0 ? -errno : fd;
	if ((size_t)snprintf(path, sizeof path, "%s/.msyncfs-stage.XXXXXX", folder) >= sizeof path)
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	(void)unlink(path);
	return fd;
}

int stage_open(struct stage *g, const char *folder)
{
	*g = (struct stage){ .fd = open_file(folder) };
	if (g->fd < 0)
		return err_set(-g->fd, "%s: cannot make a file for what a replica receives: %s", folder ? folder : "memory",
			       strerror(-g->fd));
	g->buf = malloc(BUF_SIZE);
	if (!g->buf) {
		stage_close(g);
		return -ENOMEM;
	}
	return 0;
}

void stage_close(struct stage *g)
{
	if (g->fd >= 0)
		(void)close(g->fd);
	free(g->buf);
	*g = (struct stage){ .fd = -1 };
}

static int flush(struct stage *g)
{
	size_t done = 0;

	while (done < g->len) {
		ssize_t n = pwrite(g->fd, g->buf + done, g->len - done, (off_t)(g->written + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(n < 0 ? errno : EIO, "cannot keep what a replica receives: %s",
				       strerror(n < 0 ? errno : EIO));
		done += (size_t)n;
	}
	g->written += g->len;
	g->len = 0;
	return 0;
}

static uint32_t encode_window(uint8_t *p, const struct window *w)
{
	uint8_t *at = p + WINDOW_BLOCKS;
	unsigned i;

	memcpy(p, w->kind, WINDOW_BLOCKS);
	for (i = 0; i < WINDOW_BLOCKS; i++) {
		if (w->kind[i] != WINDOW_DATA)
			continue;
		put_le32(at, w->csum[i]);
		put_le64(at + 4, w->block[i]);
		at += 12;
	}
	return (uint32_t)(at - p);
}

static int decode_window(struct window *w, const uint8_t *p, uint32_t len)
{
	const uint8_t *at = p + WINDOW_BLOCKS;
	unsigned i;

	if (len < WINDOW_BLOCKS || len > WINDOW_LEN_MAX)
		return -EIO;
	memcpy(w->kind, p, WINDOW_BLOCKS);
	for (i = 0; i < WINDOW_BLOCKS; i++) {
		if (w->kind[i] != WINDOW_DATA)
			continue;
		if (at + 12 > p + len)
			return -EIO;
		w->csum[i] = get_le32(at);
		w->block[i] = get_le64(at + 4);
		at += 12;
	}
	return 0;
}

int stage_add(struct stage *g, const struct stage_edit *edit)
{
	uint32_t len = edit->kind == STAGE_PUT ? edit->len : 0;
	uint8_t *p;

	if (g->len + S_HEADER + WINDOW_LEN_MAX > BUF_SIZE) {
		int r = flush(g);

		if (r < 0)
			return r;
	}
	p = g->buf + g->len;
	if (edit->kind == STAGE_WINDOW)
		len = encode_window(p + S_HEADER, edit->window);
	else if (len > 0)
		memcpy(p + S_HEADER, edit->value, len);
	put_le32(p + S_KIND, edit->kind);
	put_le32(p + S_LEN, len);
	put_le64(p + S_HI, edit->key.hi);
	put_le64(p + S_LO, edit->key.lo);
	g->len += S_HEADER + len;
	return 0;
}

int stage_rewind(struct stage *g)
{
	int r = g->read == 0 && g->at == 0 ? flush(g) : 0;

	g->read = g->len = g->at = 0;
	return r;
}

/* At least `need` unread bytes in the buffer. 1; 0: there are none at all. */
static int fill(struct stage *g, size_t need)
{
	while (g->len - g->at < need) {
		ssize_t n;

		memmove(g->buf, g->buf + g->at, g->len - g->at);
		g->len -= g->at;
		g->at = 0;
		n = pread(g->fd, g->buf + g->len, (size_t)min_u64(BUF_SIZE - g->len, g->written - g->read),
			  (off_t)g->read);
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0 && g->len == 0 && g->read == g->written)
			return 0;
		if (n <= 0)
			return err_set(EIO, "what a replica received cannot be read back: %s",
				       n < 0 ? strerror(errno) : "it is gone");
		g->len += (size_t)n;
		g->read += (uint64_t)n;
	}
	return 1;
}

int stage_next(struct stage *g, struct stage_edit *ret)
{
	const uint8_t *p;
	uint32_t len;
	int r = fill(g, S_HEADER);

	if (r <= 0)
		return r;
	len = get_le32(g->buf + g->at + S_LEN);
	if (len > WINDOW_LEN_MAX)
		return err_set(EIO, "what a replica received was changed on the disk");
	r = fill(g, S_HEADER + len);
	if (r <= 0)
		return r < 0 ? r : -EIO;
	p = g->buf + g->at;
	*ret = (struct stage_edit){ .kind = get_le32(p + S_KIND), .key = { get_le64(p + S_HI), get_le64(p + S_LO) },
				    .value = p + S_HEADER, .len = len };
	g->at += S_HEADER + len;
	if (ret->kind == STAGE_WINDOW) {
		r = decode_window(&g->window, ret->value, len);
		ret->window = &g->window;
	}
	return r < 0 ? r : 1;
}
