/* SPDX-License-Identifier: MIT
 *
 * stand_in: what the real code of the mounts calls, and is not in this program: links, store, feed, notifiers. All that other
 * threads would do is a step that the scheduler may take, or not yet.
 */
#include "tests/cluster/cluster.h"

#include "core/keys/item.h"
#include "core/store/format.h"
#include "core/replica/limit.h"
#include "core/store/map.h"
#include "core/stream/stream.h"
#include "fs/daemon.h"
#include "fs/device.h"
#include "fs/ops.h"
#include "fs/repeat.h"

#include <errno.h>

static struct node *node_of(const void *thing)
{
	return (struct node *)(uintptr_t)thing;
}

/* Links ------------------------------------------------------------------------------------------------------------ */

struct net_buf *net_buf_new(uint16_t type, uint16_t flags, uint32_t len)
{
	struct net_buf *b = calloc(1, sizeof *b + len);

	(void)flags;
	if (b) {
		b->type = type;
		b->refs = 1;
		b->len = len;
	}
	return b;
}

uint8_t *net_buf_payload(struct net_buf *b)
{
	return b->bytes;
}

void net_buf_trim(struct net_buf *b, uint32_t len)
{
	b->len = len;
}

void net_buf_put(struct net_buf *b)
{
	if (b && --b->refs == 0)
		free(b);
}

/* The two ends of a link have ids of their own, as in two processes. */
static struct simlink *find_link(net_id id)
{
	for (unsigned i = 0; i < LINKS_MAX; i++)
		if (id > 1 && C->links[i].id == (id & ~1ull))
			return &C->links[i];
	return NULL;
}

static int side_of(net_id id)
{
	return (int)(id & 1);
}

static net_id new_id(void)
{
	return C->last_id += 2;
}

static void drop_frames(struct ring *r, unsigned keep)
{
	while (r->count > keep)
		net_buf_put(r->at[(r->first + --r->count) % FRAMES_MAX]);
}

/* Whoever has not been told of its end gets what is under way first. */
static void free_link(struct simlink *l)
{
	if (!l->gone[0] || !l->gone[1])
		return;
	drop_frames(&l->to[0], 0);
	drop_frames(&l->to[1], 0);
	*l = (struct simlink){ 0 };
}

int net_send_buf(struct net *net, net_id id, struct net_buf *b)
{
	struct simlink *l = find_link(id);
	struct ring *r;

	(void)net;
	if (!l || l->left[side_of(id)])
		return -ENOTCONN;
	r = &l->to[!side_of(id)];
	if (l->cut)
		return 0;               /* it is queued, and never arrives */
	if (r->count >= FRAMES_FULL) {
		l->full[side_of(id)] = true;
		return -EAGAIN;
	}
	b->refs++;
	r->at[(r->first + r->count++) % FRAMES_MAX] = b;
	return 0;
}

int net_send(struct net *net, net_id id, uint16_t type, uint16_t flags, const void *payload, uint32_t len)
{
	struct net_buf *b = net_buf_new(type, flags, len);
	int r;

	if (!b)
		return -EAGAIN;
	if (len > 0)
		memcpy(b->bytes, payload, len);
	r = net_send_buf(net, id, b);
	net_buf_put(b);
	return r;
}

int net_close(struct net *net, net_id id, uint16_t code, const char *text)
{
	struct node *n = node_of(net);
	struct simlink *l = find_link(id);

	(void)code;
	if (!l || l->left[side_of(id)])
		return -ENOTCONN;
	trace("node %u closes link %llu: %s", n->id, (unsigned long long)id, text);
	l->left[side_of(id)] = true;
	C->closed = true;
	return 0;
}

/* It breaks: of what is under way some arrives, or nothing. */
static void cut(struct simlink *l)
{
	if (l->cut)
		return;
	trace("link %llu breaks", (unsigned long long)l->id);
	l->cut = true;
	for (int i = 0; i < 2; i++)
		drop_frames(&l->to[i], rnd(l->to[i].count + 1));
	C->cuts++;
}

void links_cut_one(void)
{
	struct simlink *l = &C->links[rnd(LINKS_MAX)];

	if (l->id != 0)
		cut(l);
}

void links_release(void)
{
	for (unsigned i = 0; i < LINKS_MAX; i++) {
		C->links[i].gone[0] = C->links[i].gone[1] = true;
		free_link(&C->links[i]);
	}
}

int net_pause(struct net *net, net_id id)
{
	struct simlink *l = find_link(id);

	(void)net;
	if (l)
		l->paused[side_of(id)] = true;
	return 0;
}

int net_resume(struct net *net, net_id id)
{
	struct simlink *l = find_link(id);

	(void)net;
	if (l)
		l->paused[side_of(id)] = false;
	return 0;
}

int net_dial(struct net *net, const char *address, net_id *ret)
{
	struct node *n = node_of(net);

	trace("node %u calls %s", n->id, address);
	n->dialer = *ret = new_id();
	n->target = &C->nodes[address[1] - '0'];
	n->dial_ms = C->now_ms;
	return 0;
}

int net_undial(struct net *net, net_id dialer)
{
	struct node *n = node_of(net);

	for (unsigned i = 0; i < LINKS_MAX; i++)
		if (C->links[i].id != 0 && C->links[i].dialer == dialer)
			C->links[i].left[0] = true;
	if (n->dialer == dialer)
		n->dialer = 0;
	return 0;
}

static bool dial(struct node *n)
{
	struct simlink *l = NULL;

	if (n->dialer == 0 || C->now_ms < n->dial_ms)
		return false;
	for (unsigned i = 0; i < LINKS_MAX; i++) {
		if (C->links[i].id != 0 && C->links[i].dialer == n->dialer)
			return false;
		if (C->links[i].id == 0)
			l = &C->links[i];
	}
	if (!l)
		return false;
	*l = (struct simlink){ .id = new_id(), .node = { n, n->target }, .dialer = n->dialer };
	trace("link %llu from node %u to node %u", (unsigned long long)l->id, n->id, n->target->id);
	return true;
}

/* One thing happens at this side of a link. */
static bool link_step(struct simlink *l, int side)
{
	struct node *n = l->node[side];
	struct ring *r = &l->to[side];
	net_id dialer = side == 0 ? l->dialer : 0;

	if (l->gone[side])
		return false;
	if (!l->opened[side]) {
		const struct net_peer peer = { .dialer = dialer, .address = "a link" };

		l->opened[side] = true;
		n->owner.opened(n->owner.ctx, l->id + (net_id)side, &peer);
		return true;
	}
	if (l->full[side] && !l->left[side] && l->to[!side].count <= FRAMES_FULL / 2) {
		l->full[side] = false;
		n->owner.writable(n->owner.ctx, l->id + (net_id)side);
		return true;
	}
	if (!l->left[side] && r->count > 0) {
		struct net_buf *b = r->at[r->first];
		const struct wire_frame f = { .type = b->type, .len = b->len };

		if (l->paused[side])
			return false;
		r->first = (r->first + 1) % FRAMES_MAX;
		r->count--;
		trace("node %u gets a frame of type %x on link %llu", n->id, b->type, (unsigned long long)l->id);
		if (n->owner.frame(n->owner.ctx, l->id + (net_id)side, &f, b->bytes) < 0)
			(void)net_close((struct net *)n, l->id + (net_id)side, 0, err_last());
		net_buf_put(b);
		return true;
	}
	/* Closed here; or there, and nothing more comes. */
	if (l->left[side] || l->cut || l->left[!side]) {
		const struct net_end end = { .dialer = dialer, .opened = true, .address = "a link", .text = "closed" };

		l->left[side] = l->gone[side] = true;
		if (side == 0)
			n->dial_ms = C->now_ms + rnd(100);
		n->owner.closed(n->owner.ctx, l->id + (net_id)side, &end);
		free_link(l);
		return true;
	}
	return false;
}

/* The net thread ---------------------------------------------------------------------------------------------------- */

int net_start(const struct net_options *o, const struct net_owner *owner, struct net **ret)
{
	struct node *n;

	(void)o;
	/* Whoever only tries whether it could listen: it can. */
	*ret = NULL;
	if (!owner->ctx)
		return 0;
	n = node_of(((struct remote *)owner->ctx)->fs->store);
	n->owner = *owner;
	*ret = (struct net *)n;
	return 0;
}

int net_listen(struct net *net, const char *address, uint16_t *ret_port)
{
	(void)net, (void)address, (void)ret_port;
	return 0;
}

int net_post(struct net *net, void (*fn)(void *ctx), void *ctx)
{
	struct node *n = node_of(net);

	if (n->post_count == POSTS_MAX)
		failed("node %u: too many posts", n->id);
	n->posts[(n->post_first + n->post_count++) % POSTS_MAX] = (struct post){ fn, ctx, NULL };
	return 0;
}

int net_post_work(struct net *net, struct net_work *w)
{
	struct node *n = node_of(net);

	if (w->queued)
		return 0;
	w->queued = true;
	(void)net_post(net, w->fn, w->ctx);
	n->posts[(n->post_first + n->post_count - 1) % POSTS_MAX].work = w;
	return 0;
}

static void run_poked(void *ctx)
{
	struct node *n = ctx;

	n->poked = false;
	n->owner.poked(n->owner.ctx);
}

void net_poke(struct net *net)
{
	struct node *n = node_of(net);

	if (n->poked)
		return;
	n->poked = true;
	(void)net_post(net, run_poked, n);
}

int net_every(struct net *net, uint32_t period_ms, void (*fn)(void *ctx), void *ctx, net_id *ret)
{
	struct node *n = node_of(net);
	unsigned i;

	for (i = 0; i < TIMERS_MAX && n->timers[i].fn; i++)
		;
	if (i == TIMERS_MAX)
		failed("node %u: too many timers", n->id);
	n->timers[i] = (struct timer){ C->now_ms + period_ms, period_ms, fn, ctx };
	*ret = new_id();
	return 0;
}

static bool run_post(struct node *n)
{
	struct post p;

	if (n->post_count == 0)
		return false;
	p = n->posts[n->post_first];
	n->post_first = (n->post_first + 1) % POSTS_MAX;
	n->post_count--;
	if (p.work)
		p.work->queued = false;
	p.fn(p.ctx);
	return true;
}

static bool run_timer(struct node *n)
{
	for (unsigned i = 0; i < TIMERS_MAX; i++) {
		struct timer t = n->timers[i];

		if (!t.fn || t.due_ms > C->now_ms)
			continue;
		n->timers[i].due_ms = C->now_ms + t.every_ms;
		t.fn(t.ctx);
		return true;
	}
	return false;
}

/* When it stops, all that was posted is run, and all links end. */
void net_end(struct net *net)
{
	struct node *n = net != NULL ? node_of(net) : NULL;

	if (n == NULL)
		return;
	while (run_post(n))
		;
	for (unsigned i = 0; i < LINKS_MAX; i++)
		for (int side = 0; side < 2; side++) {
			struct simlink *l = &C->links[i];

			if (l->id == 0 || l->node[side] != n || l->gone[side])
				continue;
			l->left[side] = true;
			while (l->id != 0 && link_step(l, side))
				;
		}
}

/* Its memory is the node's. */
void net_stop(struct net *net)
{
	(void)net;
}

bool node_net_step(struct node *n)
{
	unsigned first = rnd(LINKS_MAX);

	if (chance(50) && run_post(n))
		return true;
	if (run_timer(n) || dial(n))
		return true;
	for (unsigned i = 0; i < LINKS_MAX; i++)
		for (int side = 0; side < 2; side++) {
			struct simlink *l = &C->links[(first + i) % LINKS_MAX];

			if (l->id != 0 && l->node[side] == n && link_step(l, side))
				return true;
		}
	return run_post(n);
}

int net_stat(struct net *net, net_id id, struct net_stat *ret)
{
	(void)net, (void)id, (void)ret;
	return -ENOTCONN;
}

void keyring_free(struct keyring *ring)
{
	(void)ring;
}

int keyring_load(const char *path, struct keyring **ret)
{
	(void)path, (void)ret;
	return -ENOENT;
}

/* The store --------------------------------------------------------------------------------------------------------- */

uint64_t store_seq(const struct store *s)
{
	return node_of(s)->seq;
}

uint64_t store_durable_seq(const struct store *s)
{
	return node_of(s)->durable;
}

uint64_t store_epoch(const struct store *s)
{
	return node_of(s)->seq > 0 ? C->list[node_of(s)->seq - 1].epoch : 0;
}

void store_sync_request(struct store *s)
{
	node_of(s)->sync_wanted = true;
}

void store_identity(const struct store *s, struct store_identity *ret)
{
	*ret = node_of(s)->identity;
}

int store_set_identity(struct store *s, const struct store_identity *id, uint64_t *ret_ticket)
{
	node_of(s)->identity = *id;
	*ret_ticket = ++node_of(s)->ticket;
	return 0;
}

int store_put_identity(struct store *s, const struct store_identity *id)
{
	struct node *n = node_of(s);
	uint64_t ticket;

	(void)store_set_identity(s, id, &ticket);
	n->identity_durable = ticket;
	return 0;
}

uint64_t store_identity_durable(const struct store *s)
{
	return node_of(s)->identity_durable;
}

bool node_store_step(struct node *n)
{
	if (n->identity_durable < n->ticket) {
		n->identity_durable++;
		return true;
	}
	if (!n->sync_wanted && n->durable == n->seq)
		return false;
	n->sync_wanted = false;
	n->durable = n->seq;
	/* As fs_progress() does. */
	remote_progress(n->l);
	return true;
}

int store_random(const struct store *s, void *buf, size_t len)
{
	(void)s;
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = (uint8_t)rnd(256);
	return 0;
}

void store_uuid(const struct store *s, uint8_t ret_uuid[16])
{
	memset(ret_uuid, (int)node_of(s)->id + 1, 16);
}

int store_failed(const struct store *s) { (void)s; return 0; }
uint64_t store_hash_seed(const struct store *s) { (void)s; return 1; }
bool store_rebasing(const struct store *s) { (void)s; return false; }
bool store_is_writing(const struct store *s) { (void)s; return false; }
int store_poll(struct store *s) { (void)s; return 0; }
int store_checkpoint(struct store *s) { (void)s; return 0; }
uint64_t store_checkpoint_seq(const struct store *s) { return node_of(s)->seq; }
uint64_t store_disk_turns(const struct store *s) { (void)s; return 0; }
void store_path(const struct store *s, char *buf, size_t size) { (void)s; snprintf(buf, size, "none"); }

int store_read_blocks(const struct store *s, uint64_t block, uint64_t count, void *buf)
{
	(void)s, (void)block, (void)count, (void)buf;
	return -ESTALE;
}

struct file *node_file(struct node *n, uint64_t ino)
{
	if (ino < FILE_FIRST || ino >= FILE_FIRST + FILES_MAX)
		failed("node %u is asked for inode %llu", n->id, (unsigned long long)ino);
	return &n->files[ino - FILE_FIRST];
}

static void apply_to_file(struct file *f, enum change_does does)
{
	if (does == DOES_MAKE)
		f->there = true;
	else if (does == DOES_REMOVE)
		f->removed = true;
	else
		f->marked = true;
}

/* A record, and a change on the wire, are their number in the list. */
static void committed(struct node *n)
{
	const struct change *c = &C->list[n->seq - 1];
	uint8_t rec[REC_HEADER] = { 0 };

	put_le64(rec + REC_SEQ, n->seq);
	put_le64(rec + REC_CLIENT, c->client);
	put_le16(rec + REC_TYPE, c->does == DOES_EPOCH ? CHANGE_EPOCH : CHANGE_WRITE);
	if (c->does >= DOES_MAKE)
		apply_to_file(node_file(n, c->ino), c->does);
	remote_committed(&n->fs, rec, sizeof rec);
}

static void append(struct node *n, const struct change *c)
{
	if (n->seq != C->count)
		failed("node %u makes change %llu, of which there are %llu", n->id, (unsigned long long)n->seq + 1, (unsigned long long)C->count);
	if (!n->l->leads && c->does != DOES_EPOCH)
		failed("node %u makes a change, and does not lead", n->id);
	if (C->count == LIST_MAX)
		failed("too many changes");
	C->list[C->count++] = *c;
	n->seq++;
	committed(n);
}

uint64_t node_number(const struct node *n)
{
	return n->seq > 0 ? C->list[n->seq - 1].number : 0;
}

void node_commit(struct node *n, uint64_t number)
{
	const struct change c = { .epoch = store_epoch(n->fs.store), .client = n->client, .request = n->request, .number = number };

	trace("node %u writes %llu, call %llu of %llx", n->id, (unsigned long long)number, (unsigned long long)n->request,
	      (unsigned long long)n->client);
	if (number != node_number(n) + 1)
		failed("node %u writes %llu over %llu: two had the lock", n->id, (unsigned long long)number, (unsigned long long)node_number(n));
	append(n, &c);
}

static void change_file(struct node *n, enum change_does does, uint64_t ino)
{
	const struct change c = { .epoch = store_epoch(n->fs.store), .client = n->client, .request = n->request,
				  .number = node_number(n), .does = does, .ino = ino };

	append(n, &c);
}

uint64_t node_make(struct node *n)
{
	uint64_t ino = FILE_FIRST + C->files;

	if (C->files++ == FILES_MAX)
		failed("too many files");
	trace("node %u makes file %llu, call %llu of %llx", n->id, (unsigned long long)ino, (unsigned long long)n->request,
	      (unsigned long long)n->client);
	change_file(n, DOES_MAKE, ino);
	return ino;
}

int node_remove(struct node *n, uint64_t ino)
{
	const struct file *f = node_file(n, ino);

	if (!f->there || f->removed)
		return -ENOENT;
	trace("node %u removes file %llu", n->id, (unsigned long long)ino);
	change_file(n, DOES_REMOVE, ino);
	return 0;
}

int keys_begin_epoch(struct keys *k, uint64_t epoch)
{
	struct node *n = node_of(k);
	const struct change c = { .epoch = epoch, .number = node_number(n), .does = DOES_EPOCH };

	append(n, &c);
	return 0;
}

int keys_history(struct keys *k, struct keys_epoch *ret, unsigned max, unsigned *ret_count)
{
	const struct node *n = node_of(k);
	unsigned skip = 0, count = 0;

	for (uint64_t i = 0; i < n->seq; i++)
		count += C->list[i].does == DOES_EPOCH;
	if (count > max)
		skip = count - max;
	*ret_count = count - skip;
	for (uint64_t i = 0; i < n->seq; i++) {
		if (C->list[i].does != DOES_EPOCH)
			continue;
		if (skip > 0)
			skip--;
		else
			*ret++ = (struct keys_epoch){ .epoch = C->list[i].epoch, .first_seq = i + 1, .nonce = i + 1 };
	}
	return 0;
}

/* As the slots of a client's item: the newest of those that share one. */
int keys_call_result(struct keys *k, uint64_t client, uint64_t request, uint64_t *ret_seq, uint64_t *ret_number)
{
	const struct node *n = node_of(k);

	for (uint64_t i = n->seq; i-- > 0;) {
		const struct change *c = &C->list[i];

		if (c->client != client || c->request % KEYS_CALL_SLOTS != request % KEYS_CALL_SLOTS)
			continue;
		*ret_seq = i + 1;
		*ret_number = c->does == DOES_MAKE ? c->ino : 0;
		return c->request == request ? 0 : c->request > request ? -ESTALE : -ENOENT;
	}
	return -ENOENT;
}

void keys_set_caller(struct keys *k, uint64_t client, uint64_t request)
{
	node_of(k)->client = client;
	node_of(k)->request = request;
}

int keys_orphan_marked(struct keys *k, uint64_t ino, bool *ret_marked)
{
	const struct file *f = node_file(node_of(k), ino);

	if (!f->removed || f->reaped)
		return -ENOENT;
	*ret_marked = f->marked;
	return 0;
}

/* No machine is away for a lease, so nobody is forgotten who has it open. */
int keys_mark_orphan(struct keys *k, uint64_t ino)
{
	bool marked = false;
	int r = keys_orphan_marked(k, ino, &marked);

	if (r < 0 || marked)
		return r;
	trace("node %u gives up file %llu", node_of(k)->id, (unsigned long long)ino);
	if (file_is_open(ino))
		failed("file %llu is given up, and somebody has it open", (unsigned long long)ino);
	change_file(node_of(k), DOES_MARK, ino);
	return 0;
}

int keys_next_orphan(struct keys *k, uint64_t from, uint64_t *ret_ino) { (void)k, (void)from, (void)ret_ino; return -ENOENT; }
int keys_open(const struct store_options *o, struct keys **ret) { (void)o, (void)ret; return -ENOSYS; }
int keys_close(struct keys *k) { (void)k; return 0; }
struct store *keys_store(struct keys *k) { return (struct store *)k; }

/* A call is the number to write, a file to make, or the number of one to remove. */
int call_decode(const void *buf, size_t len, struct call *ret)
{
	unsigned op = len == 16 ? get_le16(buf) : 0;

	if (op != CALL_WRITE && op != CALL_MAKE && op != CALL_UNLINK)
		failed("a call of %zu bytes", len);
	*ret = (struct call){ .op = (uint16_t)op, .ino = op == CALL_WRITE ? INO_COUNT : 0 };
	ret->off = get_le64((const uint8_t *)buf + 8);
	return 0;
}

size_t call_size(const struct call *c)
{
	(void)c;
	return 16;
}

void call_encode(const struct call *c, void *buf)
{
	memset(buf, 0, 16);
	put_le16(buf, c->op);
	put_le64((uint8_t *)buf + 8, c->off);
}

void call_run(struct keys *k, const struct call *c, struct call_result *ret)
{
	*ret = (struct call_result){ 0 };
	if (c->op == CALL_MAKE) {
		ret->number = node_make(node_of(k));
	} else if (c->op == CALL_UNLINK) {
		ret->error = node_remove(node_of(k), c->off);
		ret->orphan = ret->error == 0 ? c->off : 0;
	} else {
		node_commit(node_of(k), c->off);
	}
}

bool call_changes_names(const struct call *c) { (void)c; return false; }

int change_apply(struct keys *k, const uint8_t *bytes, uint32_t len)
{
	struct node *n = node_of(k);

	if (len != 64 || get_le64(bytes) != n->seq + 1 || n->l->leads)
		failed("node %u at %llu gets change %llu", n->id, (unsigned long long)n->seq, (unsigned long long)get_le64(bytes));
	n->seq++;
	committed(n);
	return 0;
}

int change_encode(const uint8_t *rec, uint32_t len, int (*read)(void *ctx, block_t block, uint64_t count, uint8_t *to), void *ctx,
		  uint8_t *buf, uint32_t size, uint32_t *ret_len)
{
	(void)len, (void)read, (void)ctx, (void)size;
	memset(buf, 0, 64);
	put_le64(buf, get_le64(rec + REC_SEQ));
	*ret_len = 64;
	return 0;
}

int change_info(const uint8_t *bytes, uint32_t len, struct change_info *ret)
{
	(void)len;
	*ret = (struct change_info){ .seq = get_le64(bytes), .epoch = C->list[get_le64(bytes) - 1].epoch };
	return 0;
}

/* What it did, and whose call it was. */
int change_events_of_record(struct change_events *e, const uint8_t *rec, uint32_t len)
{
	(void)len;
	memset(e, 0, sizeof *e);
	e->change.info.seq = get_le64(rec + REC_SEQ);
	e->change.left = C->list[e->change.info.seq - 1].client != 0 ? 2 : 1;
	return 0;
}

int change_event(struct change_events *e, struct change_event *ret)
{
	static const enum change_event_kind kinds[] = {
		[DOES_NUMBER] = EVENT_DATA, [DOES_EPOCH] = EVENT_EPOCH, [DOES_MAKE] = EVENT_NEW, [DOES_REMOVE] = EVENT_ORPHAN,
		[DOES_MARK] = EVENT_ORPHAN,
	};
	const struct change *c = &C->list[e->change.info.seq - 1];

	if (e->change.left == 0)
		return 0;
	if (e->change.left-- == 2)
		*ret = (struct change_event){ .kind = EVENT_CALL, .client = c->client, .request = c->request,
					      .number = c->does == DOES_MAKE ? c->ino : 0 };
	else
		*ret = (struct change_event){ .kind = kinds[c->does], .ino = c->does >= DOES_MAKE ? c->ino : INO_COUNT,
					      .marked = c->does == DOES_MARK };
	return 1;
}

/* The feed reaches back to the first change. */
static struct node *fed_by(const struct feed *f)
{
	for (unsigned i = 0; i < NODES; i++)
		if (C->nodes[i].l && &C->nodes[i].l->feed == f)
			return &C->nodes[i];
	failed("a feed of nobody");
}

int feed_init(struct feed *f, uint64_t size, uint64_t keep_ns, seq_t next) { (void)f, (void)size, (void)keep_ns, (void)next; return 0; }
void feed_release(struct feed *f) { (void)f; }
void feed_restart(struct feed *f, seq_t next) { (void)f, (void)next; }
void feed_add(struct feed *f, const uint8_t *rec, uint32_t len) { (void)f, (void)rec, (void)len; }

bool feed_range(const struct feed *f, seq_t *ret_first, seq_t *ret_last)
{
	*ret_first = 1;
	*ret_last = fed_by(f)->seq;
	return *ret_last > 0;
}

int feed_reader_init(struct feed_reader *r, const struct feed *f, seq_t seq)
{
	r->feed = f;
	r->next = seq;
	return 0;
}

int feed_read(struct feed_reader *r, uint8_t *buf, uint32_t *ret_len)
{
	if (r->next > fed_by(r->feed)->seq)
		return 0;
	memset(buf, 0, REC_HEADER);
	put_le64(buf + REC_SEQ, r->next++);
	*ret_len = REC_HEADER;
	return 1;
}

/* The kernel --------------------------------------------------------------------------------------------------------- */

void notify_data(struct notify *notify, uint64_t ino, uint64_t off, uint64_t len)
{
	struct node *n = node_of(notify);

	(void)ino, (void)off, (void)len;
	if (n->told_count == TOLD_MAX)
		failed("node %u: too much to tell", n->id);
	n->told[n->told_count++] = ++C->stamp;
}

bool node_notify_step(struct node *n)
{
	if (n->told_count == 0)
		return false;
	memmove(n->told, n->told + 1, --n->told_count * sizeof n->told[0]);
	n->is_cached = false;
	return true;
}

void node_kernel_add(struct node *n, const struct pending_request *r)
{
	if (n->kernel_count == KERNEL_MAX)
		failed("node %u: its kernel has too much for it", n->id);
	n->kernel[(n->kernel_first + n->kernel_count++) % KERNEL_MAX] = *r;
}

int session_barrier(struct fs *fs, uint64_t number)
{
	trace("node %u has a barrier, %llu", node_of(fs->store)->id, (unsigned long long)number);
	node_kernel_add(node_of(fs->store), &(struct pending_request){ .number = number });
	return 0;
}

uint64_t notify_mark(void)
{
	return ++C->stamp;
}

bool notify_told(struct notify *notify, uint64_t mark)
{
	const struct node *n = node_of(notify);

	return !n || n->told_count == 0 || n->told[0] > mark;
}

int notify_start(int fd, struct notify **ret) { (void)fd, (void)ret; return -ENOSYS; }
void notify_attr(struct notify *n, uint64_t ino) { (void)n, (void)ino; }
void notify_name(struct notify *n, uint64_t dir, const char *name, uint32_t len) { (void)n, (void)dir, (void)name, (void)len; }
void notify_end(struct notify *n) { (void)n; }
bool notify_ready(struct notify *n) { (void)n; return true; }
bool notify_ended(struct notify *n) { (void)n; return true; }
void notify_stop(struct notify *n) { (void)n; }
void notify_watch(struct notify *n, void (*told)(void *ctx), void *ctx) { (void)n, (void)told, (void)ctx; }
void notify_lag(struct notify *n, size_t *ret_count, uint64_t *ret_ns) { (void)n; *ret_count = 0; *ret_ns = 0; }

void ops_answer(void *ctx, struct pending_call *p, const struct call_result *res)
{
	(void)ctx;
	if (p->what.op == CALL_MAKE)
		maker_made((struct maker *)p->req, res->error, res->number);
	else if (p->what.op == CALL_WRITE)
		prog_wrote((struct prog *)p->req, res->error);
}

/* As in ops.c and reaper.c, but all at once. */
void ops_orphaned(struct fs *fs, uint64_t ino)
{
	if (!inodes_mark_orphan(&fs->inodes, ino))
		remote_orphan(fs->remote, ino);
}

void ops_forget(struct fs *fs, uint64_t ino, uint64_t count)
{
	if (inodes_forget(&fs->inodes, ino, count))
		remote_orphan(fs->remote, ino);
}

void reaper_add(struct fs *fs, uint64_t ino)
{
	struct node *n = node_of(fs->store);
	struct file *f = node_file(n, ino);

	if (!f->marked)
		failed("node %u reaps file %llu, which nobody has given up", n->id, (unsigned long long)ino);
	if (inodes_known(&fs->inodes, ino))
		failed("node %u reaps file %llu, which its kernel knows", n->id, (unsigned long long)ino);
	f->reaped = true;
}

void reaper_start(struct fs *fs)
{
	struct node *n = node_of(fs->store);

	for (uint64_t ino = FILE_FIRST; ino < FILE_FIRST + C->files; ino++) {
		struct file *f = node_file(n, ino);

		if (!f->removed || f->reaped || inodes_mark_orphan(&fs->inodes, ino))
			continue;
		if (f->marked)
			f->reaped = true;
		else if (remote_leads(fs->remote))
			remote_orphan(fs->remote, ino);
	}
}

int ops_refuses(const struct call *c) { (void)c; return 0; }
/* No key is limited here. */
bool key_is_limited(const struct net_key *k) { (void)k; return false; }
uint32_t key_tag(const struct net_key *k) { (void)k; return 1; }
uint64_t key_client(const struct net_key *k, uint64_t random) { (void)k; return random; }
int limit_call(struct keys *k, const char *tree, const struct call *c) { (void)k, (void)tree, (void)c; return 0; }
int limit_lock(struct keys *k, const char *tree, uint64_t ino) { (void)k, (void)tree, (void)ino; return 0; }
int keys_where_settle(struct keys *k, struct keys_where_walk *at) { (void)k, (void)at; return 0; }
void session_wake(struct fs *fs) { (void)fs; }
bool daemon_is_abandoned(int ready_fd) { (void)ready_fd; return false; }
void session_wait(struct fs *fs, int ms) { (void)fs, (void)ms; }
void session_refuse(struct fs *fs) { (void)fs; }
void session_block_signals(void) { }
void defer_run(struct defer *d) { (void)d; }
void defer_give_up(struct defer *d) { (void)d; }
void clients_init(struct clients *c, struct keys *keys, uint64_t now) { (void)c, (void)keys, (void)now; }
void clients_release(struct clients *c) { (void)c; }
void clients_here(struct clients *c, uint64_t client) { (void)c, (void)client; }
void clients_gone(struct clients *c, uint64_t client, uint64_t now) { (void)c, (void)client, (void)now; }
void clients_step(struct clients *c, uint64_t now) { (void)c, (void)now; }
bool clients_unsure(struct clients *c, uint64_t client, uint64_t request, uint64_t low) { (void)c, (void)client, (void)request, (void)low; return false; }
unsigned options_sync_wait_ms(const struct options *o) { return (o->wait_s > 0 ? o->wait_s : 10) * 1000; }
int device_reply(int fd, const struct iovec *iov, int count) { (void)fd, (void)iov, (void)count; return 0; }
void repeat_record(struct repeat *r, const uint8_t *rec, uint32_t len) { (void)r, (void)rec, (void)len; }

void repeat_named(struct repeat *r, uint64_t dir, const char *name, size_t len, uint64_t ino)
{
	(void)r, (void)dir, (void)name, (void)len, (void)ino;
}

int repeat_start(struct fs *fs, bool repeats, struct repeat **ret) { (void)fs, (void)repeats, (void)ret; return -ENOSYS; }
void repeat_end(struct repeat *r) { (void)r; }
bool repeat_ended(struct repeat *r) { (void)r; return true; }
void repeat_stop(struct repeat *r) { (void)r; }
void repeat_status(struct repeat *r, struct text *t) { (void)r, (void)t; }

/* What no mount here ever does: everybody's feed reaches back to the beginning, and no line is left. */
int stream_dump(struct keys *k, int fd, const struct stream_watch *watch, struct stream_counts *ret)
{
	(void)k, (void)fd, (void)watch, (void)ret;
	return -ENOSYS;
}

int map_guard(int (*fn)(void *arg), void *arg) { return fn(arg); }

int diff_source_new(struct keys *k, uint64_t seed, diff_send_fn send, void *ctx, struct diff_source **ret)
{
	(void)k, (void)seed, (void)send, (void)ctx, (void)ret;
	failed("a diff is to be served");
}

int diff_source_message(struct diff_source *s, unsigned type, const void *bytes, size_t len)
{
	(void)s, (void)type, (void)bytes, (void)len;
	return -ENOSYS;
}

void diff_source_free(struct diff_source *s) { (void)s; }
int diff_source_step(struct diff_source *s) { (void)s; return -ENOSYS; }

int diff_target_new(struct keys *k, const struct diff_target_options *o, struct diff_target **ret)
{
	(void)k, (void)o, (void)ret;
	failed("a diff");
}

int diff_target_message(struct diff_target *t, unsigned type, const void *bytes, size_t len)
{
	(void)t, (void)type, (void)bytes, (void)len;
	return -ENOSYS;
}

void diff_target_free(struct diff_target *t) { (void)t; }
int diff_target_step(struct diff_target *t) { (void)t; return -ENOSYS; }
int diff_target_apply(struct diff_target *t) { (void)t; return -ENOSYS; }
void diff_target_progress(const struct diff_target *t, struct diff_progress *ret) { (void)t; memset(ret, 0, sizeof *ret); }
