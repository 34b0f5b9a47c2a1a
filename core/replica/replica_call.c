/* SPDX-License-Identifier: MIT
 *
 * replica_call: calls of a remote mount and of those that it feeds: numbered, sent, sent again, answered. See replica.h
 * for the invariants.
 */
#include "core/replica/replica_int.h"

#include <stdio.h>
#include <stdlib.h>

/* Lists ------------------------------------------------------------------------------------------------------------ */

static void list_init(struct rcall_list *l)
{
	l->first = NULL;
	l->tail = &l->first;
	l->count = 0;
}

static void list_add(struct rcall_list *l, struct rcall *c)
{
	c->next = NULL;
	*l->tail = c;
	l->tail = &c->next;
	l->count++;
}

/* Take out the one that *at points to. */
static struct rcall *list_take(struct rcall_list *l, struct rcall **at)
{
	struct rcall *c = *at;

	*at = c->next;
	if (!c->next)
		l->tail = at;
	l->count--;
	return c;
}

static struct rcall *new_call(struct replica *r, const uint8_t *bytes, uint32_t len)
{
	struct rcall *c = malloc(sizeof *c + len);

	if (!c)
		return NULL;
	memset(c, 0, sizeof *c);
	if (len > 0)
		memcpy(c->bytes, bytes, len);
	c->len = len;
	c->down_at = r->down_ms;
	c->made_at = r->now;
	r->bytes += len;
	return c;
}

static void free_call(struct replica *r, struct rcall *c)
{
	r->bytes -= c->len;
	if (c->state == RCALL_ANSWERED)
		r->answered--;
	free(c);
}

void rcall_init(struct replica *r)
{
	list_init(&r->calls);
	list_init(&r->queue);
	r->next_request = 1;
}

void rcall_release(struct replica *r)
{
	static const struct replica_answer gone = { .error = -EIO };
	struct rcall_list *lists[] = { &r->calls, &r->queue };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(lists); i++)
		while (lists[i]->first) {
			struct rcall *c = list_take(lists[i], &lists[i]->first);

			if (c->own)
				r->ops->answer(r->ctx, c->cookie, &gone);
			free_call(r, c);
		}
	for (i = 0; i < r->client_count; i++)
		free(r->clients[i].locks);
	free(r->clients);
}

/* Objects whose changes were lost (R6) ----------------------------------------------------------------------------- */

static unsigned object_slot(uint64_t object)
{
	return (unsigned)((object * 0x9e3779b97f4a7c15u) >> 32) % REPLICA_OBJECTS;
}

void replica_wrote(struct replica *r, uint64_t object, seq_t seq)
{
	unsigned i = object_slot(object);

	r->wrote[i] = max_u64(r->wrote[i], seq);
}

void rcall_lost(struct replica *r, seq_t common)
{
	unsigned i;

	for (i = 0; i < REPLICA_OBJECTS; i++) {
		if (r->wrote[i] <= common)
			continue;
		r->lost[i] = 1;
		r->lost_any = true;
		r->wrote[i] = common;
	}
}

int replica_sync_check(struct replica *r, uint64_t object)
{
	unsigned i = object_slot(object);

	if (object == 0 && r->lost_any) {
		r->lost_any = false;
		return -EIO;
	}
	if (object != 0 && r->lost[i]) {
		r->lost[i] = 0;
		return -EIO;
	}
	return 0;
}

/* Answers ---------------------------------------------------------------------------------------------------------- */

/* The call has been taken out of its list. */
static void answer(struct replica *r, struct rcall *c, const struct replica_answer *a)
{
	struct replica_answer own = *a;

	if (!c->own) {
		r->ops->forwarded(r->ctx, c->client, c->session, c->request, c->token, &own);
	} else {
		if (own.error == 0 && (c->flags & REPLICA_CALL_WRITE))
			replica_wrote(r, c->object, own.seq);
		/* It is on disk, but not what this mount was told is in it. */
		if (own.error == 0 && (c->flags & REPLICA_CALL_SYNC))
			own.error = replica_sync_check(r, c->object);
		r->ops->answer(r->ctx, c->cookie, &own);
	}
	free_call(r, c);
}

void rcall_settle(struct replica *r)
{
	struct rcall **at = &r->calls.first;

	/* (R3) `applied` counts only in the line that the results are of: not before the welcome, nor in a diff. */
	if (r->answered == 0 || (r->state != REPLICA_STREAM && r->state != REPLICA_LEADS))
		return;
	while (*at) {
		struct rcall *c = *at;

		if (c->state == RCALL_ANSWERED && c->answer.seq <= r->applied) {
			const struct replica_answer a = c->answer;

			answer(r, list_take(&r->calls, at), &a);
		} else {
			at = &c->next;
		}
	}
}

int rcall_on_result(struct replica *r, const struct msg_result *m)
{
	struct rcall *c;

	for (c = r->calls.first; c; c = c->next)
		if (c->state == RCALL_SENT && c->tag == m->tag)
			break;
	/* One that was given up, or an earlier sending of one that is sent again: who is fed has lost its link meanwhile. */
	if (!c)
		return 0;
	if (c->request != m->request || c->client != m->client)
		return err_set(EPROTO, "a result of call %llu, the call was %llu", (unsigned long long)m->request,
			       (unsigned long long)c->request);
	c->state = RCALL_ANSWERED;
	c->answer = (struct replica_answer){ m->error, m->flags, m->seq, m->number };
	r->answered++;
	rcall_settle(r);
	return 0;
}

void replica_local_result(struct replica *r, uint64_t client, uint64_t request, const struct replica_answer *a)
{
	struct rcall **at;

	for (at = &r->calls.first; *at; at = &(*at)->next)
		if ((*at)->request == request && (*at)->client == client && (*at)->state == RCALL_SENT) {
			r->applied = max_u64(r->applied, a->seq);
			answer(r, list_take(&r->calls, at), a);
			return;
		}
}

/* Sending ---------------------------------------------------------------------------------------------------------- */

/* Those that are gone, and have nothing more to be said of, are forgotten. */
static void forget_gone(struct replica *r)
{
	unsigned i, n = 0;

	for (i = 0; i < r->client_count; i++)
		if (r->clients[i].gone)
			free(r->clients[i].locks);
		else
			r->clients[n++] = r->clients[i];
	r->client_count = n;
}

void rcall_unsend(struct replica *r)
{
	struct rcall *c;
	unsigned i;

	for (c = r->calls.first; c; c = c->next) {
		c->state = RCALL_UNSENT;
		if (c->own)
			c->session = r->session;
	}
	r->answered = 0;
	/* The end of the link has said of all of them that they are not reached by it. */
	for (i = 0; i < r->client_count; i++)
		r->clients[i].announced = r->clients[i].came_back = false;
	forget_gone(r);
}

uint64_t rcall_low(const struct replica *r)
{
	const struct rcall *c;

	for (c = r->calls.first; c; c = c->next)
		if (c->own)
			return c->request;
	return r->next_request;
}

uint64_t replica_waiting(const struct replica *r, uint64_t from, uint64_t *ret_cookie)
{
	const struct rcall *c;

	for (c = r->calls.first; c; c = c->next)
		if (c->own && c->request >= from) {
			*ret_cookie = c->cookie;
			return c->request;
		}
	return 0;
}

static int transmit(struct replica *r, struct rcall *c)
{
	struct msg_call m = { r->link_epoch, c->client, c->session, c->request, c->own ? rcall_low(r) : c->low, NULL, 0,
			      ++r->next_tag };
	uint8_t head[64];
	struct wire_writer w = wire_writer(head, sizeof head);
	int e;

	if (r->state == REPLICA_LEADS) {
		/* First: the answer may come within the call, and take it out of the list. */
		c->state = RCALL_SENT;
		c->ever_sent = true;
		r->ops->run(r->ctx, c->client, c->request, m.low, c->bytes, c->len);
		return 0;
	}
	msg_put_call(&w, &m);
	check(!w.full);
	e = r->ops->send(r->ctx, r->link, MSG_CALL, head, (uint32_t)wire_used(&w), c->bytes, c->len);
	if (e == 0) {
		c->state = RCALL_SENT;
		c->tag = m.tag;
		c->ever_sent = true;
	}
	return e;
}

/* Tell the primary that it need not be run (a lock that waits, say). If this is lost, the next call's `low` says it. */
static void send_cancel(struct replica *r, const struct rcall *c)
{
	const struct msg_cancel m = { r->link_epoch, c->client, c->session, c->request };
	uint8_t buf[64];
	struct wire_writer w = wire_writer(buf, sizeof buf);

	if (c->state != RCALL_SENT || r->blocked || r->link == 0 || r->state == REPLICA_HELLO)
		return;
	msg_put_cancel(&w, &m);
	check(!w.full);
	if (r->ops->send(r->ctx, r->link, MSG_CANCEL, buf, (uint32_t)wire_used(&w), NULL, 0) == -EAGAIN)
		r->blocked = true;
}

static void give_up(struct replica *r, struct rcall_list *l, struct rcall **at, int error)
{
	struct rcall *c = list_take(l, at);
	const struct replica_answer a = { .error = error };

	send_cancel(r, c);
	answer(r, c, &a);
}

/* (R8) */
static void drop_old(struct replica *r)
{
	struct rcall **at = &r->calls.first;

	while (*at) {
		const struct rcall *c = *at;

		if (c->state == RCALL_UNSENT && c->ever_sent && r->now > c->made_at && r->now - c->made_at >= REPLICA_RESEND_MS)
			give_up(r, &r->calls, at, c->own ? -EIO : -ECANCELED);
		else
			at = &(*at)->next;
	}
}

int rcall_send_due(struct replica *r)
{
	struct rcall *c, *next;
	int e;

	drop_old(r);

	/* Own calls get their number when there is room in the window: it begins at the lowest that has no answer. */
	while (r->queue.first && r->next_request - rcall_low(r) < MSG_WINDOW) {
		c = list_take(&r->queue, &r->queue.first);
		c->client = r->o.client;
		c->session = r->session;
		c->request = r->next_request++;
		list_add(&r->calls, c);
	}
	for (c = r->calls.first; c; c = next) {
		next = c->next;
		if (c->state != RCALL_UNSENT || (r->state == REPLICA_LEADS && !c->own))
			continue;
		e = transmit(r, c);
		if (e < 0)
			return e;
	}
	return 0;
}

/* Calls of this mount ---------------------------------------------------------------------------------------------- */

static bool streams(const struct replica *r)
{
	return r->state == REPLICA_STREAM || r->state == REPLICA_LEADS;
}

/* What a call hears that is given up. If it was sent nobody knows whether it was run: that is never EROFS. */
static int given_up(const struct replica *r, const struct rcall *c)
{
	if (c->ever_sent || (c->flags & REPLICA_CALL_SYNC) || r->o.policy == REPLICA_ERROR)
		return -EIO;
	return -EROFS;
}

int replica_call(struct replica *r, const struct replica_call *call, uint64_t now)
{
	struct rcall *c;
	int e;

	replica_advance(r, now);
	if (call->flags & REPLICA_CALL_SYNC) {
		e = replica_sync_check(r, call->object);
		if (e < 0)
			return e;
	}
	if (r->o.flags & HELLO_READ_ONLY)
		return -EROFS;
	if (!streams(r) && r->state != REPLICA_LEADING && r->o.policy != REPLICA_WAIT)
		return r->o.policy == REPLICA_ERROR || (call->flags & REPLICA_CALL_SYNC) ? -EIO : -EROFS;
	if (call->len > MSG_BYTES_MAX)
		return -EMSGSIZE;
	if (r->calls.count + r->queue.count >= REPLICA_CALLS_MAX || r->bytes + call->len > REPLICA_BYTES_MAX)
		return -EAGAIN;
	c = new_call(r, call->bytes, call->len);
	if (!c)
		return -ENOMEM;
	c->own = true;
	c->cookie = call->cookie;
	c->object = call->object;
	c->flags = call->flags;
	list_add(&r->queue, c);
	return 0;
}

void rcall_expire(struct replica *r)
{
	uint64_t wait = r->o.policy == REPLICA_WAIT ? r->o.wait_ms : 0;
	struct rcall_list *lists[] = { &r->calls, &r->queue };
	unsigned i;

	if (streams(r) || r->state == REPLICA_LEADING)
		return;
	for (i = 0; i < ARRAY_LEN(lists); i++) {
		struct rcall **at = &lists[i]->first;

		while (*at)
			/* (R7) */
			if ((*at)->own && r->down_ms - (*at)->down_at >= wait)
				give_up(r, lists[i], at, given_up(r, *at));
			else
				at = &(*at)->next;
	}
}

bool replica_cancel(struct replica *r, uint64_t cookie)
{
	struct rcall_list *lists[] = { &r->calls, &r->queue };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(lists); i++) {
		struct rcall **at;

		for (at = &lists[i]->first; *at; at = &(*at)->next)
			if ((*at)->own && (*at)->cookie == cookie) {
				give_up(r, lists[i], at, -EINTR);
				return true;
			}
	}
	return false;
}

void replica_forward_cancel(struct replica *r, uint64_t client, uint64_t request, uint64_t token)
{
	struct rcall **at;

	for (at = &r->calls.first; *at; at = &(*at)->next)
		if (!(*at)->own && (*at)->client == client && (*at)->request == request && (*at)->token == token) {
			give_up(r, &r->calls, at, -ECANCELED);
			return;
		}
}

/* Calls and clients of those that are fed -------------------------------------------------------------------------- */

static struct rclient *find_client(struct replica *r, uint64_t id)
{
	unsigned i;

	for (i = 0; i < r->client_count; i++)
		if (r->clients[i].id == id)
			return &r->clients[i];
	return NULL;
}

int replica_forward(struct replica *r, const struct primary_run *run, uint64_t now)
{
	struct rclient *client = find_client(r, run->client);
	struct rcall *c;

	replica_advance(r, now);
	if (!client || client->session != run->session || client->gone)
		return err_set(EPROTO, "a call of a client that is not known");
	if (r->calls.count + r->queue.count >= REPLICA_CALLS_MAX || r->bytes + run->len > REPLICA_BYTES_MAX)
		return -EAGAIN;
	c = new_call(r, run->bytes, run->len);
	if (!c)
		return -EAGAIN;
	client->low = max_u64(client->low, run->low);
	c->client = run->client;
	c->session = run->session;
	c->request = run->request;
	c->low = run->low;
	c->token = run->token;
	list_add(&r->calls, c);
	return 0;
}

/* Its calls are nobody's any more; what was sent may be run all the same. */
static void drop_forwards(struct replica *r, uint64_t id)
{
	struct rcall **at = &r->calls.first;
	const struct replica_answer none = { .error = -ECANCELED };

	while (*at)
		if (!(*at)->own && (*at)->client == id)
			answer(r, list_take(&r->calls, at), &none);
		else
			at = &(*at)->next;
}

static struct rclient *add_client(struct replica *r, uint64_t id)
{
	unsigned room = r->client_room ? r->client_room * 2 : 16;
	struct rclient *more;

	if (r->client_count >= PRIMARY_CLIENTS_MAX)
		return NULL;
	if (r->client_count == r->client_room) {
		more = realloc(r->clients, room * sizeof *more);
		if (!more)
			return NULL;
		r->clients = more;
		r->client_room = room;
	}
	r->clients[r->client_count] = (struct rclient){ .id = id };
	return &r->clients[r->client_count++];
}

void replica_client(struct replica *r, uint64_t client, uint64_t session, uint64_t low, bool gone, const uint8_t *locks,
		    uint32_t len)
{
	struct rclient *c = find_client(r, client);

	if (gone) {
		if (c && c->session == session) {
			drop_forwards(r, client);
			c->gone = true;
		}
		return;
	}
	/* A ring of relays: its own calls would come back to it. */
	if (client == r->o.client)
		return;
	if (!c)
		c = add_client(r, client);
	/* Without memory its calls are refused, and it comes again. */
	if (!c)
		return;
	if (c->session != session) {
		drop_forwards(r, client);
		c->announced = false;
	}
	/* Its calls begin anew; the primary must hear that, since they have the same numbers on the same link. */
	if (c->gone && c->announced)
		c->came_back = true;
	c->session = session;
	c->low = max_u64(c->low, low);
	if (c->gone || locks)
		c->announced = false;
	c->gone = false;
	if (locks) {
		free(c->locks);
		c->locks = malloc(len > 0 ? len : 1);
		c->locks_len = c->locks ? len : 0;
		if (c->locks && len > 0)
			memcpy(c->locks, locks, len);
	}
}

static int announce(struct replica *r, struct rclient *c)
{
	bool gone = c->gone || c->came_back;
	const struct msg_client m = { r->link_epoch, c->id, c->session, c->low,
				      (gone ? CLIENT_GONE : 0) | (c->locks ? CLIENT_LOCKS : 0), c->locks, c->locks_len };
	size_t size = 64 + (size_t)c->locks_len;
	uint8_t *buf = malloc(size);
	struct wire_writer w = wire_writer(buf, size);
	int e;

	if (!buf)
		return -ENOMEM;
	msg_put_client(&w, &m);
	check(!w.full);
	e = r->ops->send(r->ctx, r->link, MSG_CLIENT, buf, (uint32_t)wire_used(&w), NULL, 0);
	free(buf);
	if (e < 0)
		return e;
	if (c->came_back) {
		c->came_back = false;
		return c->gone ? 0 : announce(r, c);
	}
	free(c->locks);
	c->locks = NULL;
	c->locks_len = 0;
	c->announced = true;
	return 0;
}

int rclient_announce(struct replica *r)
{
	unsigned i;
	int e = 0;

	for (i = 0; i < r->client_count && e == 0; i++)
		if (!r->clients[i].announced || r->clients[i].gone)
			e = announce(r, &r->clients[i]);
	if (e == 0)
		forget_gone(r);
	return e;
}
