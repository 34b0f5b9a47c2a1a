/* SPDX-License-Identifier: MIT
 *
 * clients: see clients.h.
 */
#include "fs/clients.h"

#include "core/keys/cluster.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STEP_ITEMS 64u                  /* looked at between two requests */

void clients_init(struct clients *c, struct keys *keys, uint64_t now_ms)
{
	*c = (struct clients){ .keys = keys, .looked_ms = now_ms, .looking = true };
}

void clients_release(struct clients *c)
{
	free(c->seen);
	c->seen = NULL;
	c->count = c->room = 0;
	c->keys = NULL;
}

/* Its place, or where it would have to be. */
static size_t place_of(const struct clients *c, uint64_t client)
{
	size_t from = 0, to = c->count;

	while (from < to) {
		size_t mid = from + (to - from) / 2;

		if (c->seen[mid].client < client)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

static struct client_seen *find(struct clients *c, uint64_t client)
{
	size_t at = place_of(c, client);

	return at < c->count && c->seen[at].client == client ? &c->seen[at] : NULL;
}

static struct client_seen *add(struct clients *c, uint64_t client)
{
	size_t at = place_of(c, client), room = c->room != 0 ? 2 * c->room : 64;
	struct client_seen *more;

	if (c->count == c->room) {
		more = realloc(c->seen, room * sizeof *more);
		if (more == NULL)
			return NULL;
		c->seen = more;
		c->room = room;
	}
	memmove(&c->seen[at + 1], &c->seen[at], (c->count - at) * sizeof *c->seen);
	c->count++;
	c->seen[at] = (struct client_seen){ .client = client };
	return &c->seen[at];
}

static void drop(struct clients *c, const struct client_seen *s)
{
	size_t at = (size_t)(s - c->seen);

	c->count--;
	memmove(&c->seen[at], &c->seen[at + 1], (c->count - at) * sizeof *c->seen);
}

void clients_here(struct clients *c, uint64_t client)
{
	struct client_seen *s;

	if (c->keys == NULL)
		return;
	s = find(c, client);
	if (s == NULL)
		s = add(c, client);
	if (s != NULL)
		s->here = true;
}

void clients_gone(struct clients *c, uint64_t client, uint64_t now_ms)
{
	struct client_seen *s = c->keys != NULL ? find(c, client) : NULL;
	uint64_t found, seq;

	if (s == NULL)
		return;
	s->here = false;
	s->since_ms = now_ms;
	/* Of one that never changed anything there is nothing to forget. */
	if (keys_next_client(c->keys, client, &found, &seq) == -ENOENT || found != client)
		drop(c, s);
}

static void remember(struct clients *c, uint64_t client)
{
	c->forgotten[c->forgotten_next++ % CLIENTS_FORGOTTEN] = (struct client_forgotten){ .client = client };
	c->forgot++;
}

/* 0, or -EAGAIN and other errors of a change: it is tried again. */
static int look_at(struct clients *c, uint64_t client, uint64_t now_ms)
{
	struct client_seen *s = find(c, client);
	int r;

	if (s == NULL) {
		/* Nobody knows since when it is gone. */
		s = add(c, client);
		if (s != NULL)
			s->since_ms = now_ms;
		return 0;
	}
	if (s->here || now_ms - s->since_ms < CLIENTS_KEEP_MS)
		return 0;
	/* In this order: a crash between the two forgets nothing, and one after it has no calls under way here. */
	r = keys_forget_client(c->keys, client);
	if (r < 0)
		return r;
	remember(c, client);
	drop(c, s);
	return 0;
}

void clients_step(struct clients *c, uint64_t now_ms)
{
	uint64_t client, seq;

	if (c->keys == NULL || (!c->looking && now_ms - c->looked_ms < CLIENTS_LOOK_MS))
		return;
	c->looking = true;
	c->looked_ms = now_ms;
	for (unsigned i = 0; i < STEP_ITEMS; i++) {
		if (keys_next_client(c->keys, c->next, &client, &seq) < 0) {
			c->looking = false;
			c->next = 0;
			return;
		}
		/* No space, a failed store: after a while from here on. */
		if (look_at(c, client, now_ms) < 0) {
			c->looking = false;
			return;
		}
		c->next = client + 1;
	}
}

bool clients_unsure(struct clients *c, uint64_t client, uint64_t request, uint64_t low)
{
	for (unsigned i = 0; c->forgot > 0 && i < CLIENTS_FORGOTTEN; i++) {
		struct client_forgotten *f = &c->forgotten[i];

		if (f->client != client || client == 0)
			continue;
		/* What it sends first is the oldest that it waits for; it has sent no more than a window from there. */
		if (f->until == 0)
			f->until = low + KEYS_CALL_SLOTS;
		return request < f->until;
	}
	return false;
}
