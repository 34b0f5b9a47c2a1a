/* SPDX-License-Identifier: MIT
 *
 * feeder_up: the net thread's side of the connection to our own primary: what comes goes to the request thread (follower.c), in
 * order; what it is told of its beginning, it is told of its end.
 */
#include "fs/feeder_int.h"

#include "fs/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void feeder_up_opened(struct remote *l, net_id id, const char *address)
{
	struct item *item = remote_item(NEWS_OPENED, id, NULL, 0);

	/* With the news of its beginning goes that of its end. */
	if (l->up_closed == NULL)
		l->up_closed = remote_item(NEWS_CLOSED, id, NULL, 0);
	if (item == NULL || l->up_closed == NULL) {
		free(item);
		(void)net_close(l->net, id, WIRE_E_CLOSED, "");
		return;
	}
	l->up_closed->id = id;
	l->up_link = id;
	log_debug("connected to %s", address);
	remote_push(l, item);
}

int feeder_up_frame(struct remote *l, net_id id, const struct wire_frame *w, const uint8_t *payload)
{
	struct item *item = remote_item(NEWS_FRAME, id, payload, w->len);
	bool full;

	if (item == NULL)
		return err_set(ENOMEM, "no memory for a frame");
	item->type = w->type;
	pthread_mutex_lock(&l->lock);
	full = l->inbox.bytes + w->len > INBOX_BYTES && !l->paused;
	l->paused = l->paused || full;
	pthread_mutex_unlock(&l->lock);
	if (full)
		(void)net_pause(l->net, id);
	remote_push(l, item);
	return 0;
}

void feeder_up_writable(struct remote *l, net_id id)
{
	struct item *item = remote_item(NEWS_WRITABLE, id, NULL, 0);

	if (item != NULL)
		remote_push(l, item);
	else
		(void)feeder_no_memory(l, id);
}

/* A refusal is known twice, by what the peer said and by what we made of it: which is heard first is chance. */
static const char *plain(const char *trouble)
{
	static const char *const before[] = { ": the peer says: ", ": refused: " };

	for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
		const char *at = strstr(trouble, before[i]);

		if (at != NULL)
			return at + strlen(before[i]);
	}
	return trouble;
}

void feeder_up_closed(struct remote *l, net_id id, const struct net_end *end)
{
	bool ours = l->up_link == id;
	/* Of one that never opened it only counts as a failure. */
	struct item *item = ours ? l->up_closed : remote_item(NEWS_CLOSED, id, NULL, 0);
	char trouble[sizeof l->trouble];
	bool news;

	snprintf(trouble, sizeof trouble, "%s: %s", end->address, end->text);
	pthread_mutex_lock(&l->lock);
	news = strcmp(plain(trouble), plain(l->trouble)) != 0;
	memcpy(l->trouble, trouble, sizeof trouble);
	l->trouble_error = end->error;
	l->trouble_lasts = first_is_lasting(end) ? l->trouble_lasts + 1 : 0;
	l->paused = false;
	pthread_mutex_unlock(&l->lock);
	/* Before the mount can be used, who waits for that says it. */
	if (news && atomic_load_explicit(&l->fs->started, memory_order_acquire))
		log_warn("no link to the primary: %s", trouble);
	if (ours) {
		l->up_link = 0;
		l->up_closed = NULL;
	}
	if (item != NULL)
		remote_push(l, item);
}
