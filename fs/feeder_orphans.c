/* SPDX-License-Identifier: MIT
 *
 * feeder_orphans: files without a name that wait to be marked (orphans.h), between the request thread, which knows its own kernel, and
 * the engine, which knows the others. Net thread, but for feeder_orphan().
 */
#include "fs/feeder_int.h"

#include <stdlib.h>

static bool held(void *ctx, uint64_t ino)
{
	return primary_holds(ctx, ino);
}

void feeder_mark_orphans(struct remote *l)
{
	const seq_t limit = l->orphans.count > 0 ? primary_mark_limit(l->primary, now_ms()) : 0;
	struct item *item;
	uint64_t ino;

	while ((ino = orphans_next(&l->orphans, limit, held, l->primary)) != 0) {
		item = remote_item(NEWS_MARK, 0, NULL, 0);
		if (item == NULL)
			return;         /* each tick tries */
		item->number = ino;
		orphans_pop(&l->orphans);
		remote_push(l, item);
	}
}

/* Whatever took its name is in the feed. */
void feeder_orphan_freed(struct remote *l, uint64_t ino)
{
	(void)orphans_freed(&l->orphans, ino, feeder_fed(l));
}

struct orphan_post {
	struct remote *l;
	struct orphan o;
};

static void orphan_posted(void *ctx)
{
	struct orphan_post *p = ctx;

	/* Without memory it stays unmarked until the store is opened again. */
	(void)orphans_add(&p->l->orphans, p->o.ino, p->o.seq);
	feeder_mark_orphans(p->l);
	free(p);
}

void feeder_orphan(struct remote *l, uint64_t ino, seq_t seq)
{
	struct orphan_post *p = malloc(sizeof *p);

	if (p == NULL)
		return;
	*p = (struct orphan_post){ l, { ino, seq } };
	if (net_post(l->net, orphan_posted, p) < 0)
		free(p);
}
