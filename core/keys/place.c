/* SPDX-License-Identifier: MIT
 *
 * place: see place.h.
 */
#include "core/keys/place.h"

#include <stdio.h>

#define PATH_SIZE 640u          /* of a path; longer ones lose their beginning */

/* Put the name of that entry, and a slash before it, in front of *at. -ENAMETOOLONG: there is no room. -ENOENT: there is no
 * such entry, or it is another one's. */
static int prepend(struct tree *t, uint64_t dir, uint64_t lo, uint64_t ino, char *buf, size_t *at)
{
	const struct key k = item_key(dir, ITEM_DIRENT, lo);
	struct dirent d;
	const uint8_t *v;
	uint32_t len;

	if (lo == 0 || tree_get(t, k, &v, &len) < 0 || dirent_decode(v, len, k, &d) < 0 || d.ino != ino)
		return -ENOENT;
	if (d.len + 1 > *at)
		return -ENAMETOOLONG;
	*at -= d.len;
	memcpy(buf + *at, d.name, d.len);
	buf[--*at] = '/';
	return 0;
}

const char *place_text(const struct place_finder *f, uint64_t ino, char *text)
{
	char path[PATH_SIZE + 1];
	uint64_t up = ino, dir, lo;
	size_t at = PATH_SIZE;
	int r = 0;

	path[at] = '\0';
	while (up != KEYS_ROOT_INO) {
		r = f->entry(f->ctx, up, &dir, &lo) ? prepend(f->tree, dir, lo, up, path, &at) : -ENOENT;
		if (r < 0)
			break;
		up = dir;
	}
	if (ino == KEYS_ROOT_INO)
		(void)snprintf(text, PLACE_SIZE, "%llu (/)", (unsigned long long)ino);
	else if (r == -ENAMETOOLONG && path[at] != '\0')
		(void)snprintf(text, PLACE_SIZE, "%llu (...%s)", (unsigned long long)ino, path + at);
	else if (r == 0)
		(void)snprintf(text, PLACE_SIZE, "%llu (%s)", (unsigned long long)ino, path + at);
	else if (path[at] != '\0')
		(void)snprintf(text, PLACE_SIZE, "%llu (%s below inode %llu)", (unsigned long long)ino, path + at + 1,
			       (unsigned long long)up);
	else
		(void)snprintf(text, PLACE_SIZE, "%llu", (unsigned long long)ino);
	return text;
}
