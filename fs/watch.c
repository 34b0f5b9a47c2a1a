/* SPDX-License-Identifier: MIT
 *
 * watch: see watch.h. Owns no state but a buffer for one record.
 */
#include "fs/watch.h"

#include "core/keys/item.h"
#include "core/replica/change.h"
#include "core/replica/feed.h"
#include "fs/fs.h"
#include "fs/repeat.h"
#include "fs/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 2048u         /* of a directory; two of them and their names fit in a text, whatever is escaped */
#define SCAN_MAX   4096u          /* entries listed for one text to find names */

static void put_escaped(struct text *t, const char *s, size_t len)
{
	for (size_t i = 0; i < len && !t->full; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c < 33 || c == '\\' || c == 127)
			text_put(t, "\\%03o", c);
		else
			text_put(t, "%c", c);
	}
}

static const char *type_name(unsigned type)
{
	static const char *const names[] = {
		[CHANGE_CREATE] = "create", [CHANGE_MKDIR] = "mkdir", [CHANGE_SYMLINK] = "symlink", [CHANGE_MKNOD] = "mknod",
		[CHANGE_LINK] = "link", [CHANGE_UNLINK] = "unlink", [CHANGE_RMDIR] = "rmdir", [CHANGE_RENAME] = "rename",
		[CHANGE_EXCHANGE] = "exchange", [CHANGE_SETATTR] = "setattr", [CHANGE_WRITE] = "write",
		[CHANGE_TRUNCATE] = "truncate", [CHANGE_FALLOCATE] = "fallocate", [CHANGE_PUNCH] = "punch",
		[CHANGE_SETXATTR] = "setxattr", [CHANGE_REMOVEXATTR] = "removexattr", [CHANGE_ATIME] = "atime",
		[CHANGE_COPY] = "copy", [CHANGE_EPOCH] = "epoch", [CHANGE_MARK] = "mark", [CHANGE_FORGET] = "forget",
	};

	return type < sizeof names / sizeof names[0] && names[type] != NULL ? names[type] : "other";
}

/* The path of a name in a directory. */
static void put_name(struct text *t, struct fs *fs, const struct change_event *e, unsigned *scan)
{
	char path[PATH_BYTES];
	size_t len = repeat_path(fs->repeat, e->dir, scan, path, sizeof path);

	put_escaped(t, path, len);
	if (len > 0)
		text_put(t, "/");
	put_escaped(t, e->name, e->len);
}

static void put_inode(struct text *t, struct fs *fs, uint64_t ino, unsigned *scan)
{
	char path[PATH_BYTES];

	put_escaped(t, path, repeat_path(fs->repeat, ino, scan, path, sizeof path));
}

struct what {
	struct change_event gone, name[2];
	uint64_t ino;                   /* that the change is about; 0: the root's, or nobody's */
	unsigned names;
	bool has_gone;
};

static void find_what(const uint8_t *rec, uint32_t len, struct what *w)
{
	struct change_events events;
	struct change_event e;

	memset(w, 0, sizeof *w);
	if (change_events_of_record(&events, rec, len) < 0)
		return;
	while (change_event(&events, &e) == 1) {
		if (e.kind == EVENT_NAME && w->names < 2)
			w->name[w->names++] = e;
		else if (e.kind == EVENT_NO_NAME && !w->has_gone) {
			w->gone = e;
			w->has_gone = true;
		} else if (w->ino == 0 && (e.kind == EVENT_DATA || e.kind == EVENT_XATTR || e.kind == EVENT_ATTR ||
					   e.kind == EVENT_ORPHAN))
			w->ino = e.ino;
	}
	/* Of a removed name, the inode that is not its directory. */
	if (w->has_gone && w->names == 0 && change_events_of_record(&events, rec, len) == 0)
		while (change_event(&events, &e) == 1)
			if ((e.kind == EVENT_ATTR || e.kind == EVENT_ORPHAN) && e.ino != w->gone.dir)
				w->ino = e.ino;
	if (w->names > 0)
		w->ino = w->name[0].ino;
}

static void put_change(struct text *t, struct fs *fs, const uint8_t *rec, uint32_t len, unsigned *scan)
{
	struct what w;

	find_what(rec, len, &w);
	text_put(t, "%" PRIu64 "\t%" PRIu64 "\t%s\t%" PRIu64 "\t", get_le64(rec + REC_SEQ), get_le64(rec + REC_TIME),
		 type_name(get_le16(rec + REC_TYPE)), w.ino);
	if (w.has_gone)
		put_name(t, fs, &w.gone, scan);
	else if (w.names > 0)
		put_name(t, fs, &w.name[0], scan);
	else if (w.ino != 0)
		put_inode(t, fs, w.ino, scan);
	if (w.names + w.has_gone > 1) {
		text_put(t, "\t");
		put_name(t, fs, &w.name[w.has_gone ? 0 : 1], scan);
	}
	text_put(t, "\n");
}

int watch_to_text(struct fs *fs, const struct feed *feed, uint64_t from, char *buf, size_t size, size_t *ret_len)
{
	struct text t = { .buf = buf, .size = size };
	struct feed_reader reader;
	unsigned scan = SCAN_MAX;
	uint64_t first, last;
	uint32_t len;
	uint8_t *rec;
	int r;

	if (feed == NULL)
		return -EOPNOTSUPP;
	rec = malloc(REC_MAX);
	if (rec == NULL)
		return -ENOMEM;
	(void)feed_range(feed, &first, &last);
	text_put(&t, "msyncfs-watch %d %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", WATCH_VERSION,
		 (uint64_t)atomic_load(&((struct feed *)(uintptr_t)feed)->restarts), first, last);
	r = feed_reader_init(&reader, feed, from);
	for (unsigned i = 0; r == 0 && i < WATCH_CHANGES && feed_read(&reader, rec, &len) == 1; i++) {
		size_t whole = t.len;

		put_change(&t, fs, rec, len, &scan);
		/* What does not fit begins the next text. */
		if (t.full) {
			t.len = whole;
			break;
		}
	}
	free(rec);
	*ret_len = t.len;
	return 0;
}
