/* SPDX-License-Identifier: MIT
 *
 * crash_rebase: a store that becomes another one's state (store_rebase()), and the model of crash_util.h with it.
 */
#include "tests/unit/crash_int.h"

#include "core/keys/edit.h"
#include "core/keys/keys_int.h"

#include <sys/stat.h>

#define EDIT_MAX 40u                    /* blocks that become other ones */

/* A file that has a block of its own at one place at least, and what becomes of it; NULL: none. */
static uint64_t pick_long_file(struct work *w)
{
	uint64_t ino = 0;
	unsigned i, n = 0;

	for (i = 0; i < w->count; i++) {
		const struct model_node *f = w->nodes[i];

		if (S_ISREG(f->a.mode) && f->a.nlink > 0 && !(f->a.flags & KEYS_ATTR_INLINE) && f->a.size >= BLOCK_SIZE &&
		    work_random(w, ++n) == 0)
			ino = f->a.ino;
	}
	return ino;
}

/* Some blocks of the window, side by side in the store. */
static void window_put(struct window *window, uint64_t ino, uint64_t at, uint64_t block, uint64_t count, const uint8_t *data)
{
	for (; count > 0; count--, at++, block++, data += BLOCK_SIZE) {
		unsigned i = (unsigned)(at % WINDOW_BLOCKS);

		window->kind[i] = WINDOW_DATA;
		window->block[i] = block;
		window->csum[i] = block_csum(data, ino, at);
	}
}

/* One of the file's blocks, or some, get other contents, in blocks of the store that nothing led to before. */
static int edit_contents(struct work *w, uint64_t ino)
{
	struct store *s = keys_store(w->k);
	struct model_node *n = node_edit(w, ino);
	uint64_t blocks = n->a.size >> BLOCK_SHIFT, at = work_random(w, blocks), first = at - at % WINDOW_BLOCKS, block, got, i;
	uint64_t left = work_chance(w, 50) ? 1 : 1 + work_random(w, EDIT_MAX);
	struct window window;
	int r = 0;

	memset(&window, 0, sizeof window);
	memset(window.kind, WINDOW_KEEP, sizeof window.kind);
	left = min_u64(left, min_u64(blocks, first + WINDOW_BLOCKS) - at);
	for (; left > 0; left -= got, at += got) {
		uint8_t *data;

		r = store_stage(s, left, &block, &got);
		if (r < 0)
			return r;
		data = work_keep(w, got << BLOCK_SHIFT);
		work_bytes(w, data, got << BLOCK_SHIFT);
		r = store_fill(s, block, got, data);
		if (r < 0)
			return r;
		window_put(&window, ino, at, block, got, data);
		for (i = 0; i < got; i++)
			block_set(w, n, at + i, data + (i << BLOCK_SHIFT));
	}
	return edit_window(w->k, ino, first, &window);
}

static int edit_times(struct work *w, uint64_t ino)
{
	struct key key = item_key(ino, ITEM_INODE, 0);
	uint8_t item[INODE_SIZE + INLINE_MAX];
	struct model_node *n;
	struct keys_attr a;
	const uint8_t *v;
	uint32_t len;
	int r = tree_get(store_tree(keys_store(w->k)), key, &v, &len);

	if (r == 0)
		r = inode_decode(v, len, ino, &a);
	if (r < 0)
		return r;
	memcpy(item, v, len);
	a.mtime = a.ctime = model_now(w);
	inode_encode(item, &a);
	n = node_edit(w, ino);
	n->a.mtime = n->a.ctime = a.mtime;
	return edit_put(w->k, key, item, len);
}

bool work_rebase_ready(struct work *w)
{
	return store_rebase_ready(keys_store(w->k), 2 * EDIT_MAX) == 0;
}

void work_edit(struct work *w, seq_t seq)
{
	uint64_t ino = pick_long_file(w);
	int r = 0;

	w->ops++;
	work_say(w, "rebase to change %llu", (unsigned long long)seq);
	if (ino != 0)
		r = edit_contents(w, ino);
	if (r == 0)
		r = edit_times(w, ino != 0 ? ino : KEYS_ROOT_INO);
	if (r < 0)
		work_disagree(w, err_last());
	model_push(w, seq, false);
}

int work_rebase(struct work *w)
{
	struct store *s = keys_store(w->k);
	const struct store_base base = { w->states[work_now(w)].seq, store_epoch(s), store_hash_seed(s) };
	int r = store_rebase(s, &base);

	if (r == 0)
		w->line = work_now(w);
	return r;
}
