/* SPDX-License-Identifier: MIT
 *
 * repeat: see repeat.h. Here: start and end, from a record to what is to be repeated, the queue, the last names.
 */
#include "fs/repeat_int.h"

#include "core/keys/item.h"
#include "core/replica/change.h"
#include "fs/control.h"
#include "fs/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX  64u          /* of a path; a damaged store may hold a circle */
#define EVENTS_MAX 16u          /* of one record that are looked at: names come first in each that has them */

static bool held(struct repeat *r, uint64_t ino)
{
	return ino == KEYS_ROOT_INO || inodes_known(&r->fs->inodes, ino);
}

/* ---- The last names ---- */

static struct last_name *name_set(struct repeat *r, uint64_t ino)
{
	return &r->names[((ino * 0x9e3779b97f4a7c15ull) >> 40 & (NAME_SETS - 1)) * NAME_WAYS];
}

void repeat_named(struct repeat *r, uint64_t dir, const char *name, size_t len, uint64_t ino)
{
	struct last_name *set, *n = NULL;

	if (r == NULL || len == 0 || len > NAME_BYTES)
		return;
	set = name_set(r, ino);
	for (unsigned i = 0; i < NAME_WAYS; i++) {
		if (set[i].ino == ino || set[i].ino == 0) {
			n = &set[i];
			break;
		}
		if (n == NULL || r->clock - set[i].used > r->clock - n->used)
			n = &set[i];
	}
	n->ino = ino;
	n->dir = dir;
	n->used = ++r->clock;
	n->len = (uint16_t)len;
	memcpy(n->name, name, len);
}

void repeat_dir_seen(struct repeat *r, uint64_t ino)
{
	struct seen_dir *d;

	if (r == NULL)
		return;
	/* A walk looks the same directory up again and again. */
	for (unsigned i = 1; i <= 4; i++)
		if (r->dirs_seen[(r->next_seen - i) & (DIRS_SEEN - 1)].ino == ino)
			return;
	d = &r->dirs_seen[r->next_seen++ & (DIRS_SEEN - 1)];
	r->to_list += d->ino == 0;
	*d = (struct seen_dir){ .ino = ino };
}

struct scan {
	struct repeat *r;
	struct seen_dir *dir;
	unsigned left;
};

static int scan_cb(void *ctx, const struct keys_dirent *e)
{
	struct scan *s = ctx;

	if (e->name[0] == '.' && (e->len == 1 || (e->len == 2 && e->name[1] == '.')))
		return 0;
	if (s->left == 0)
		return 1;
	s->left--;
	s->dir->cookie = e->cookie;
	repeat_named(s->r, s->dir->ino, e->name, e->len, e->ino);
	return 0;
}

/* A file's inode does not say where it is. Somewhere in a directory that the kernel holds, or it is nobody's business: list
 * those that were not, the newest first, each once and a bounded part at a time. */
static void list_some(struct repeat *r)
{
	struct scan s = { .r = r, .left = SCAN_ENTRIES };
	struct keys_attr attr;

	for (unsigned i = 1; i <= DIRS_SEEN && r->to_list > 0 && s.left > 0; i++) {
		s.dir = &r->dirs_seen[(r->next_seen - i) & (DIRS_SEEN - 1)];
		if (s.dir->ino == 0)
			continue;
		if (held(r, s.dir->ino) && keys_getattr(r->fs->keys, s.dir->ino, &attr) == 0 && S_ISDIR(attr.mode) &&
		    attr.size <= DIR_LIST_MAX)
			(void)keys_readdir(r->fs->keys, s.dir->ino, s.dir->cookie, scan_cb, &s);
		if (s.left > 0) {
			s.dir->ino = 0;
			r->to_list--;
		}
	}
}

/* A name of ino in a directory that the kernel holds. False: none is known. */
static bool find_name(struct repeat *r, uint64_t ino, struct step *ret)
{
	struct last_name *n = name_set(r, ino), *end = n + NAME_WAYS;
	struct keys_attr attr;

	while (n < end && n->ino != ino)
		n++;
	if (n == end)
		return false;
	if (keys_lookup(r->fs->keys, n->dir, n->name, n->len, &attr) < 0 || attr.ino != ino) {
		/* It may have another one beside it. */
		repeat_dir_seen(r, n->dir);
		return false;
	}
	n->used = ++r->clock;
	ret->ino = ino;
	ret->type = attr.mode & S_IFMT;
	ret->dir = n->dir;
	ret->name_len = n->len;
	memcpy(ret->name, n->name, n->len);
	return true;
}

/* The name of ino: where it is, and in *ret its name. False: not known. */
static bool name_of(struct repeat *r, uint64_t ino, unsigned *scan, struct step *ret)
{
	struct seen_dir dir = { 0 };
	struct scan s = { .r = r, .dir = &dir, .left = *scan };
	struct keys_attr attr;

	if (find_name(r, ino, ret))
		return true;
	/* Only a directory knows where it is. */
	if (*scan == 0 || keys_getattr(r->fs->keys, ino, &attr) < 0)
		return false;
	if (!S_ISDIR(attr.mode)) {
		*scan -= *scan < SCAN_ENTRIES ? *scan : SCAN_ENTRIES;
		list_some(r);
	} else {
		dir.ino = attr.aux;
		(void)keys_readdir(r->fs->keys, dir.ino, 0, scan_cb, &s);
		*scan = s.left;
	}
	return find_name(r, ino, ret);
}

size_t repeat_path(struct repeat *r, uint64_t ino, unsigned *scan, char *buf, size_t size)
{
	char number[24];
	size_t at = size - 1;
	struct step s;

	/* From the end to the beginning. */
	buf[at] = '\0';
	for (unsigned depth = 0; ino != KEYS_ROOT_INO; depth++) {
		bool known = r != NULL && depth < DEPTH_MAX && name_of(r, ino, scan, &s);
		const char *name = known ? s.name : number;
		size_t len = known ? s.name_len : (size_t)snprintf(number, sizeof number, "#%llu", (unsigned long long)ino);

		if (at < len + (at != size - 1)) {
			at = size - 1;          /* too long to be told */
			buf[at] = '\0';
			return 0;
		}
		if (at != size - 1)
			buf[--at] = '/';
		at -= len;
		memcpy(buf + at, name, len);
		if (!known)
			break;
		ino = s.dir;
	}
	memmove(buf, buf + at, size - at);
	return size - 1 - at;
}

/* ---- The queue ---- */

static void put(struct repeat *r, const struct step *from)
{
	struct step *s = malloc(sizeof *s);
	const uint64_t one = 1;

	if (s == NULL) {
		r->dropped++;
		return;
	}
	*s = *from;
	s->next = NULL;
	pthread_mutex_lock(&r->lock);
	*r->end = s;
	r->end = &s->next;
	r->count++;
	pthread_mutex_unlock(&r->lock);
	if (atomic_load(&r->asleep) && write(r->wake_fd, &one, sizeof one) < 0)
		return;
}

/* The queue is full: one word on the whole directory or file is enough, once until it is empty. */
static void summarize(struct repeat *r, const struct step *s)
{
	bool file = s->kind == STEP_MODIFY || s->kind == STEP_ATTRIB || s->kind == STEP_CLOSE;
	struct step sum = { .kind = STEP_ATTRIB, .type = S_IFDIR, .ino = s->dir };
	uint64_t ino = file && s->dir != 0 ? s->ino : sum.ino;
	uint64_t *told = &r->told[(ino * 0x9e3779b97f4a7c15ull) >> 32 & (TOLD_SLOTS - 1)];

	r->dropped++;
	/* Who has the place already speaks for this one too: the queue stays bounded. */
	if (*told != 0)
		return;
	*told = ino;
	put(r, file ? s : &sum);
}

static void add(struct repeat *r, const struct step *s)
{
	size_t count;
	bool same;

	if (atomic_load(&r->state) == REPEAT_OFF)
		return;
	pthread_mutex_lock(&r->lock);
	count = r->count;
	/* A long write is many changes, and one word to the watchers, as is one to those who write by small pieces. */
	same = count > 0 && (s->kind == STEP_MODIFY || s->kind == STEP_ATTRIB) &&
	       ((struct step *)((char *)r->end - offsetof(struct step, next)))->kind == s->kind &&
	       ((struct step *)((char *)r->end - offsetof(struct step, next)))->ino == s->ino;
	pthread_mutex_unlock(&r->lock);
	if (same)
		return;
	if (count == 0 && r->full) {
		memset(r->told, 0, sizeof r->told);
		r->full = false;
	}
	if (count >= REPEAT_MAX || r->full) {
		r->full = true;
		summarize(r, s);
	} else {
		put(r, s);
	}
}

/* ---- From a record to steps ---- */

static void set_name(char *to, uint16_t *len, const struct change_event *e)
{
	*len = (uint16_t)e->len;
	memcpy(to, e->name, e->len);
}

struct found {
	const struct change_event *name[2], *gone[2];
	unsigned names, gones;
	uint64_t other;                 /* an inode that the record changes, and that is none of the directories */
};

static void sort_events(const struct change_event *e, unsigned count, struct found *f)
{
	*f = (struct found){ 0 };
	for (unsigned i = 0; i < count; i++) {
		if (e[i].len > NAME_BYTES)
			continue;
		if (e[i].kind == EVENT_NAME && e[i].len > 0 && f->names < 2)
			f->name[f->names++] = &e[i];
		else if (e[i].kind == EVENT_NO_NAME && e[i].len > 0 && f->gones < 2)
			f->gone[f->gones++] = &e[i];
	}
	for (unsigned i = 0; i < count && f->gones > 0; i++)
		if ((e[i].kind == EVENT_ATTR || e[i].kind == EVENT_ORPHAN) && e[i].ino != f->gone[0]->dir)
			f->other = e[i].ino;
}

static void add_create(struct repeat *r, const struct change_event *e, bool fresh)
{
	struct step s = { .kind = STEP_CREATE, .type = e->type, .ino = e->ino, .dir = e->dir, .closes = fresh && S_ISREG(e->type) };

	if (!held(r, e->dir))
		return;
	set_name(s.name, &s.name_len, e);
	add(r, &s);
}

static void add_delete(struct repeat *r, const struct found *f, bool dir)
{
	struct step s = { .kind = STEP_DELETE, .type = dir ? S_IFDIR : S_IFREG, .ino = f->other, .dir = f->gone[0]->dir };
	struct keys_attr attr;

	if (!held(r, s.dir))
		return;
	if (f->other != 0 && keys_getattr(r->fs->keys, f->other, &attr) == 0)
		s.type = attr.mode & S_IFMT;
	set_name(s.name, &s.name_len, f->gone[0]);
	add(r, &s);
}

static void add_rename(struct repeat *r, const struct change_event *from, const struct change_event *to)
{
	struct step s = { .kind = STEP_RENAME, .type = to->type, .ino = to->ino, .dir = from->dir, .to_dir = to->dir };

	/* The kernel gets to know the other directory by it. */
	if (!held(r, from->dir) && !held(r, to->dir))
		return;
	set_name(s.name, &s.name_len, from);
	set_name(s.to_name, &s.to_len, to);
	add(r, &s);
}

static void add_file(struct repeat *r, enum step_kind kind, uint64_t ino)
{
	struct step s = { .kind = kind };
	struct keys_attr attr;

	if (kind == STEP_ATTRIB && keys_getattr(r->fs->keys, ino, &attr) == 0 && S_ISDIR(attr.mode)) {
		if (held(r, ino) || held(r, attr.aux)) {
			s.ino = ino;
			s.type = S_IFDIR;
			add(r, &s);
		}
		return;
	}
	if (!find_name(r, ino, &s)) {
		list_some(r);
		if (!find_name(r, ino, &s)) {
			r->unnamed++;
			return;
		}
	}
	if (held(r, s.dir))
		add(r, &s);
}

static void add_steps(struct repeat *r, enum change_type type, const struct change_event *e, unsigned count, const struct found *f)
{
	switch (type) {
	case CHANGE_CREATE: case CHANGE_MKDIR: case CHANGE_SYMLINK: case CHANGE_MKNOD: case CHANGE_LINK:
		if (f->names > 0)
			add_create(r, f->name[0], type != CHANGE_LINK);
		break;
	case CHANGE_UNLINK: case CHANGE_RMDIR:
		if (f->gones > 0)
			add_delete(r, f, type == CHANGE_RMDIR);
		break;
	case CHANGE_RENAME:
		if (f->names > 0 && f->gones > 0)
			add_rename(r, f->gone[0], f->name[0]);
		break;
	case CHANGE_EXCHANGE:
		if (f->names == 2) {
			add_rename(r, f->name[1], f->name[0]);
			add_rename(r, f->name[0], f->name[1]);
		}
		break;
	case CHANGE_WRITE: case CHANGE_TRUNCATE: case CHANGE_FALLOCATE: case CHANGE_PUNCH: case CHANGE_COPY:
		for (unsigned i = 0; i < count; i++)
			if (e[i].kind == EVENT_DATA || e[i].kind == EVENT_ATTR) {
				add_file(r, STEP_MODIFY, e[i].ino);
				break;
			}
		break;
	case CHANGE_SETATTR: case CHANGE_SETXATTR: case CHANGE_REMOVEXATTR:
		for (unsigned i = 0; i < count; i++)
			if (e[i].kind == EVENT_ATTR || e[i].kind == EVENT_XATTR) {
				add_file(r, STEP_ATTRIB, e[i].ino);
				break;
			}
		break;
	default:
		break;
	}
}

void repeat_record(struct repeat *r, const uint8_t *rec, uint32_t len)
{
	enum change_type type = get_le16(rec + REC_TYPE);
	struct change_event e[EVENTS_MAX];
	struct change_events events;
	unsigned count = 0;
	struct found f;

	if (r == NULL || change_events_of_record(&events, rec, len) < 0)
		return;
	while (count < EVENTS_MAX && change_event(&events, &e[count]) == 1)
		count++;
	sort_events(e, count, &f);
	if (atomic_load(&r->state) != REPEAT_OFF)
		add_steps(r, type, e, count, &f);
	for (unsigned i = 0; i < f.names; i++)
		repeat_named(r, f.name[i]->dir, f.name[i]->name, f.name[i]->len, f.name[i]->ino);
}

/* ---- Status, start and end ---- */

void repeat_status(struct repeat *r, struct text *t)
{
	static const char *const states[] = { "starts", "on", "off" };
	uint64_t done, failed;
	size_t waiting;

	if (r == NULL) {
		text_put(t, "inotify=off\n");
		return;
	}
	pthread_mutex_lock(&r->lock);
	waiting = r->count + r->busy;
	done = r->done;
	failed = r->failed;
	pthread_mutex_unlock(&r->lock);
	text_put(t, "inotify=%s\ninotify_waiting=%zu\ninotify_repeated=%llu\ninotify_failed=%llu\ninotify_dropped=%llu\ninotify_unnamed=%llu\n",
		 states[atomic_load(&r->state)], waiting, (unsigned long long)done, (unsigned long long)failed,
		 (unsigned long long)r->dropped, (unsigned long long)r->unnamed);
}

int repeat_start(struct fs *fs, bool repeats, struct repeat **ret)
{
	struct repeat *r = calloc(1, sizeof *r);
	uint64_t random[2];

	if (r == NULL)
		return -ENOMEM;
	r->fs = fs;
	r->end = &r->first;
	r->tree = r->root = r->table = r->dirs[0].fd = r->dirs[1].fd = -1;
	pthread_mutex_init(&r->lock, NULL);
	repeat_dir_seen(r, KEYS_ROOT_INO);
	r->names = calloc((size_t)NAME_SETS * NAME_WAYS, sizeof *r->names);
	r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->names == NULL || r->wake_fd < 0 || getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
		goto failed;
	snprintf(r->nonce, sizeof r->nonce, "%016llx%016llx", (unsigned long long)random[0], (unsigned long long)random[1]);
	atomic_store(&r->state, repeats ? REPEAT_STARTS : REPEAT_OFF);
	r->threaded = repeats;
	if (!repeats)
		atomic_store(&r->ended, true);
	else if (pthread_create(&r->thread, NULL, repeat_main, r) != 0)
		goto failed;
	*ret = r;
	return 0;
failed:
	if (r->wake_fd >= 0)
		close(r->wake_fd);
	free(r->names);
	pthread_mutex_destroy(&r->lock);
	free(r);
	return -ENOMEM;
}

void repeat_end(struct repeat *r)
{
	const uint64_t one = 1;

	if (r == NULL)
		return;
	atomic_store(&r->stop, true);
	/* The counter cannot be full. */
	if (write(r->wake_fd, &one, sizeof one) < 0)
		return;
}

bool repeat_ended(struct repeat *r)
{
	return r == NULL || atomic_load(&r->ended);
}

void repeat_stop(struct repeat *r)
{
	struct step *s;

	if (r == NULL)
		return;
	if (r->threaded)
		pthread_join(r->thread, NULL);
	while ((s = r->first) != NULL) {
		r->first = s->next;
		free(s);
	}
	close(r->wake_fd);
	free(r->names);
	pthread_mutex_destroy(&r->lock);
	free(r);
}
