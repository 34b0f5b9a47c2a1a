/* SPDX-License-Identifier: MIT
 *
 * notify: see notify.h. Bytes as in linux/fuse.h (FUSE_NOTIFY_INVAL_ENTRY, FUSE_NOTIFY_INVAL_INODE); what the
 * kernel does with them is in fs/fuse/dir.c (fuse_reverse_inval_entry) and fs/fuse/inode.c
 * (fuse_reverse_inval_inode). -ENOENT from it says that it does not know the name or inode: nothing to do.
 */
#include "fs/notify.h"

#include "core/base.h"
#include "fs/device.h"
#include "fs/session.h"

#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_BYTES 255u
#define SPARES 128u             /* more than one change has names and inodes */

struct entry {
	struct entry *next;
	uint64_t ino, off, len;
	uint64_t since_ns;
	bool data;              /* contents too */
	uint32_t name_len;      /* 0: the inode itself */
	char name[];
};

struct worker {
	struct notify *n;
	pthread_t thread;
	bool started;
	bool ended;                     /* under lock */
	struct entry *first, **end;     /* under lock */
	struct entry *last_inode;       /* the newest entry, if it is one of an inode */
	size_t count;
	uint64_t busy_since_ns;         /* of the one that is being told, 0: none */
	pthread_cond_t wake;
};

struct notify {
	int fd;
	pthread_mutex_t lock;
	bool stop;
	bool watched;                   /* under lock: somebody wants to know when something was told */
	void (*told)(void *ctx);
	void *told_ctx;
	struct entry *spares;           /* under lock: with room for a name, for when there is no memory */
	unsigned spare_count;
	struct worker workers[NOTIFY_THREADS];
};

static void tell_name(int fd, const struct entry *e)
{
	struct fuse_notify_inval_entry_out out = { .parent = e->ino, .namelen = e->name_len };
	struct fuse_out_header header = { .error = FUSE_NOTIFY_INVAL_ENTRY };
	char name[NAME_MAX_BYTES + 1];
	struct iovec iov[3] = { { &header, sizeof header }, { &out, sizeof out }, { name, e->name_len + 1 } };

	memcpy(name, e->name, e->name_len);
	name[e->name_len] = '\0';
	header.len = (uint32_t)(sizeof header + sizeof out + e->name_len + 1);
	(void)device_notify(fd, iov, 3);
}

static void tell_inode(int fd, const struct entry *e)
{
	/* A negative offset: attributes only, which takes no lock of a page. */
	struct fuse_notify_inval_inode_out out = { .ino = e->ino, .off = e->data ? (int64_t)e->off : -1,
						   .len = e->data ? (int64_t)e->len : 0 };
	struct fuse_out_header header = { .error = FUSE_NOTIFY_INVAL_INODE, .len = sizeof header + sizeof out };
	struct iovec iov[2] = { { &header, sizeof header }, { &out, sizeof out } };

	(void)device_notify(fd, iov, 2);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct notify *n = w->n;

	session_block_signals();
	pthread_mutex_lock(&n->lock);
	for (;;) {
		struct entry *e;

		while (w->first == NULL && !n->stop)
			pthread_cond_wait(&w->wake, &n->lock);
		if (n->stop)
			break;
		e = w->first;
		w->first = e->next;
		if (w->first == NULL)
			w->end = &w->first;
		if (w->last_inode == e)
			w->last_inode = NULL;
		w->count--;
		w->busy_since_ns = e->since_ns;
		pthread_mutex_unlock(&n->lock);
		if (e->name_len != 0)
			tell_name(n->fd, e);
		else
			tell_inode(n->fd, e);
		free(e);
		pthread_mutex_lock(&n->lock);
		w->busy_since_ns = 0;
		if (n->watched) {
			n->watched = false;
			n->told(n->told_ctx);
		}
	}
	w->ended = true;
	pthread_mutex_unlock(&n->lock);
	return NULL;
}

/* Under lock. */
static bool refill(struct notify *n)
{
	while (n->spare_count < SPARES) {
		struct entry *e = malloc(sizeof *e + NAME_MAX_BYTES);

		if (e == NULL)
			return false;
		e->next = n->spares;
		n->spares = e;
		n->spare_count++;
	}
	return true;
}

static struct entry *take_spare(struct notify *n)
{
	struct entry *e = n->spares;

	if (e != NULL) {
		n->spares = e->next;
		n->spare_count--;
	}
	return e;
}

bool notify_ready(struct notify *n)
{
	bool ready;

	if (n == NULL)
		return true;
	pthread_mutex_lock(&n->lock);
	ready = refill(n);
	pthread_mutex_unlock(&n->lock);
	return ready;
}

int notify_start(int fd, struct notify **ret)
{
	struct notify *n = calloc(1, sizeof *n);

	if (n == NULL)
		return -ENOMEM;
	n->fd = fd;
	pthread_mutex_init(&n->lock, NULL);
	for (unsigned i = 0; i < NOTIFY_THREADS; i++) {
		struct worker *w = &n->workers[i];

		w->n = n;
		w->end = &w->first;
		pthread_cond_init(&w->wake, NULL);
		if (pthread_create(&w->thread, NULL, worker_main, w) != 0) {
			notify_stop(n);
			return -EAGAIN;
		}
		w->started = true;
	}
	if (!notify_ready(n)) {
		notify_stop(n);
		return -ENOMEM;
	}
	*ret = n;
	return 0;
}

void notify_end(struct notify *n)
{
	if (n == NULL)
		return;
	pthread_mutex_lock(&n->lock);
	n->stop = true;
	for (unsigned i = 0; i < NOTIFY_THREADS; i++)
		if (n->workers[i].started)
			pthread_cond_signal(&n->workers[i].wake);
	pthread_mutex_unlock(&n->lock);
}

bool notify_ended(struct notify *n)
{
	bool ended = true;

	if (n == NULL)
		return true;
	pthread_mutex_lock(&n->lock);
	for (unsigned i = 0; i < NOTIFY_THREADS; i++)
		ended = ended && (n->workers[i].ended || !n->workers[i].started);
	pthread_mutex_unlock(&n->lock);
	return ended;
}

void notify_stop(struct notify *n)
{
	if (n == NULL)
		return;
	notify_end(n);
	for (unsigned i = 0; i < NOTIFY_THREADS; i++) {
		struct worker *w = &n->workers[i];
		struct entry *e;

		if (w->started)
			pthread_join(w->thread, NULL);
		while ((e = w->first) != NULL) {
			w->first = e->next;
			free(e);
		}
	}
	for (struct entry *e = take_spare(n); e != NULL; e = take_spare(n))
		free(e);
	pthread_mutex_destroy(&n->lock);
	free(n);
}

/* The entry is told by one more thing: it covers both. */
static bool covers(struct entry *e, bool data, uint64_t off, uint64_t len)
{
	uint64_t end = e->off + e->len, new_end = off + len;

	if (!data)
		return true;
	if (!e->data) {
		e->data = true;
		e->off = off;
		e->len = len;
		return true;
	}
	if (e->len == 0 || len == 0) {
		e->off = off < e->off ? off : e->off;
		e->len = 0;
		return true;
	}
	e->off = off < e->off ? off : e->off;
	e->len = (end > new_end ? end : new_end) - e->off;
	return true;
}

static void add(struct notify *n, uint64_t ino, bool data, uint64_t off, uint64_t len, const char *name, uint32_t name_len)
{
	struct worker *w = &n->workers[(ino * 0x9e3779b97f4a7c15ull) >> 62];
	struct entry *e, *old;
	bool wake;

	if (name_len > NAME_MAX_BYTES)
		return;
	pthread_mutex_lock(&n->lock);
	old = name_len == 0 ? w->last_inode : NULL;
	/* With a long queue the one to add to is looked for: it is told as a whole. */
	if (name_len == 0 && w->count > NOTIFY_MAX)
		for (old = w->first; old != NULL && (old->name_len != 0 || old->ino != ino); old = old->next)
			;
	if (old != NULL && old->ino == ino && old->name_len == 0 && covers(old, data, off, len)) {
		pthread_mutex_unlock(&n->lock);
		return;
	}
	e = malloc(sizeof *e + name_len);
	if (e == NULL)
		e = take_spare(n);
	if (e == NULL) {
		/* A comparison has more to say at once than is set aside: what is cached stays until it is changed again. Nothing
		 * that is stored is wrong. */
		pthread_mutex_unlock(&n->lock);
		return;
	}
	*e = (struct entry){ .ino = ino, .off = off, .len = len, .data = data, .name_len = name_len, .since_ns = clock_mono_ns() };
	if (name_len > 0)
		memcpy(e->name, name, name_len);
	*w->end = e;
	w->end = &e->next;
	w->last_inode = name_len == 0 ? e : NULL;
	wake = w->count++ == 0;
	pthread_mutex_unlock(&n->lock);
	/* Behind the unlock: the thread that wakes takes the lock first of all, and would make us wake it once more. */
	if (wake)
		pthread_cond_signal(&w->wake);
}

void notify_name(struct notify *n, uint64_t dir, const char *name, uint32_t len)
{
	if (n != NULL && len > 0)
		add(n, dir, false, 0, 0, name, len);
}

void notify_attr(struct notify *n, uint64_t ino)
{
	if (n != NULL)
		add(n, ino, false, 0, 0, NULL, 0);
}

void notify_data(struct notify *n, uint64_t ino, uint64_t off, uint64_t len)
{
	if (n != NULL)
		add(n, ino, true, off, len, NULL, 0);
}

void notify_watch(struct notify *n, void (*told)(void *ctx), void *ctx)
{
	n->told = told;
	n->told_ctx = ctx;
}

bool notify_told(struct notify *n, uint64_t mark_ns)
{
	bool told = true;

	if (n == NULL)
		return true;
	pthread_mutex_lock(&n->lock);
	for (unsigned i = 0; i < NOTIFY_THREADS && told; i++) {
		const struct worker *w = &n->workers[i];

		told = (w->busy_since_ns == 0 || w->busy_since_ns > mark_ns) && (w->first == NULL || w->first->since_ns > mark_ns);
	}
	n->watched = !told && n->told != NULL;
	pthread_mutex_unlock(&n->lock);
	return told;
}

uint64_t notify_mark(void)
{
	return clock_mono_ns();
}

void notify_lag(struct notify *n, size_t *ret_count, uint64_t *ret_ns)
{
	uint64_t oldest = 0, now = clock_mono_ns();

	*ret_count = 0;
	*ret_ns = 0;
	if (n == NULL)
		return;
	pthread_mutex_lock(&n->lock);
	for (unsigned i = 0; i < NOTIFY_THREADS; i++) {
		const struct worker *w = &n->workers[i];
		uint64_t since = w->busy_since_ns != 0 ? w->busy_since_ns : w->first != NULL ? w->first->since_ns : 0;

		*ret_count += w->count + (w->busy_since_ns != 0);
		if (since != 0 && (oldest == 0 || since < oldest))
			oldest = since;
	}
	pthread_mutex_unlock(&n->lock);
	if (oldest != 0 && now > oldest)
		*ret_ns = now - oldest;
}
