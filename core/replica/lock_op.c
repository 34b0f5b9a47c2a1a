/* SPDX-License-Identifier: MIT
 *
 * lock_op: see lock_op.h.
 */
#include "core/replica/lock_op.h"

#define INO_LIMIT (1ull << 48)

bool lock_op_fits(const struct lock_op *op)
{
	if (op->ticket == 0 || op->ino == 0 || op->ino >= INO_LIMIT || op->type > LOCKS_EXCLUSIVE || op->start > op->end)
		return false;
	return op->kind == LOCKS_POSIX || (op->kind == LOCKS_FLOCK && op->start == 0 && op->end == LOCKS_END);
}

/* Whose, and where: alike in calls and statements. */
static void put_place(struct wire_writer *w, const struct lock_op *op)
{
	wire_put_u32(w, op->pid);
	wire_put_u64(w, op->ino);
	wire_put_u64(w, op->owner);
	wire_put_u64(w, op->start);
	wire_put_u64(w, op->end);
}

static void get_place(struct wire_reader *r, struct lock_op *op)
{
	op->pid = wire_get_u32(r);
	op->ino = wire_get_u64(r);
	op->owner = wire_get_u64(r);
	op->start = wire_get_u64(r);
	op->end = wire_get_u64(r);
}

/* Calls ------------------------------------------------------------------------------------------------------------ */

size_t lock_call_encode(enum lock_call what, const struct lock_op *op, uint8_t *buf)
{
	struct wire_writer w = wire_writer(buf, LOCK_CALL_SIZE);

	wire_put_u16(&w, (uint16_t)what);
	wire_put_u64(&w, op->ticket);
	if (what == LOCK_CALL_SET || what == LOCK_CALL_GET) {
		wire_put_u8(&w, op->kind);
		wire_put_u8(&w, op->type);
		wire_put_u8(&w, op->wait);
		wire_put_u8(&w, 0);
		put_place(&w, op);
	}
	check(!w.full);
	return wire_used(&w);
}

bool lock_call_is(const uint8_t *bytes, size_t len)
{
	return len >= 2 && get_le16(bytes) >= 32 && get_le16(bytes) <= 47;
}

int lock_call_decode(const uint8_t *bytes, size_t len, enum lock_call *ret_what, struct lock_op *ret)
{
	struct wire_reader r = wire_reader(bytes, len);
	struct lock_op op = { 0 };
	unsigned what = wire_get_u16(&r), wait = 0, zero = 0;

	op.ticket = wire_get_u64(&r);
	if (what == LOCK_CALL_SET || what == LOCK_CALL_GET) {
		op.kind = wire_get_u8(&r);
		op.type = wire_get_u8(&r);
		wait = wire_get_u8(&r);
		zero = wire_get_u8(&r);
		get_place(&r, &op);
		op.wait = wait == 1;
	} else if (!r.bad && (what < LOCK_CALL_CANCEL || what > LOCK_CALL_PROBED)) {
		return err_set(EPROTO, "a call with the unknown operation %u", what);
	}
	if (wire_end(&r, "call of a lock") < 0)
		return -EPROTO;
	if (op.ticket == 0 || wait > 1 || zero != 0 || (what <= LOCK_CALL_GET && !lock_op_fits(&op)) ||
	    (what == LOCK_CALL_GET && op.type == LOCKS_OFF))
		return err_set(EPROTO, "a call of a lock that cannot be");
	*ret_what = (enum lock_call)what;
	*ret = op;
	return 0;
}

/* Statements ------------------------------------------------------------------------------------------------------- */

void lock_statement_begin(struct wire_writer *w, uint64_t round, const char *name, uint32_t count)
{
	wire_put_u64(w, round);
	wire_put_bytes(w, name, (uint32_t)min_u64(strlen(name), LOCKS_NAME_MAX));
	wire_put_u32(w, count);
}

void lock_statement_put(struct wire_writer *w, const struct lock_op *op, uint64_t epoch, uint64_t counter)
{
	wire_put_u8(w, op->kind);
	wire_put_u8(w, op->type);
	put_place(w, op);
	wire_put_u64(w, epoch);
	wire_put_u64(w, counter);
	wire_put_u32(w, 0);
}

static bool get_record(struct wire_reader *r, struct lock_op *op, uint64_t *epoch, uint64_t *counter)
{
	*op = (struct lock_op){ .ticket = 1, .wait = true };
	op->kind = wire_get_u8(r);
	op->type = wire_get_u8(r);
	get_place(r, op);
	*epoch = wire_get_u64(r);
	*counter = wire_get_u64(r);
	return wire_get_u32(r) == 0 && !r->bad && lock_op_fits(op) && op->type != LOCKS_OFF;
}

int lock_statement_decode(const uint8_t *bytes, size_t len, struct lock_statement *s)
{
	struct wire_reader r = wire_reader(bytes, len);
	uint64_t epoch, counter;
	struct lock_op op;
	uint32_t i;

	*s = (struct lock_statement){ 0 };
	if (len == 0)
		return 0;
	s->round = wire_get_u64(&r);
	s->name = wire_get_bytes(&r, LOCKS_NAME_MAX, &s->name_len);
	s->count = wire_get_u32(&r);
	s->records = r;
	if (!r.bad && s->count > LOCKS_CLIENT_MAX)
		return err_set(EPROTO, "locks: %u of them", s->count);
	for (i = 0; i < s->count && !r.bad; i++)
		if (!get_record(&r, &op, &epoch, &counter))
			return err_set(EPROTO, "locks: the one with number %u cannot be", i);
	return wire_end(&r, "locks");
}

bool lock_statement_next(struct lock_statement *s, struct lock_op *op, uint64_t *epoch, uint64_t *counter)
{
	return get_record(&s->records, op, epoch, counter);
}
