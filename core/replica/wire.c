/* SPDX-License-Identifier: MIT
 *
 * wire: cursors and the transport's own frames, see wire.h and core/PROTOCOL.md.
 */
#include "core/replica/wire.h"

/* Reading ---------------------------------------------------------------------------------------------------------- */

const uint8_t *wire_get_fixed(struct wire_reader *r, size_t len)
{
	const uint8_t *p = r->p;

	if (r->bad || wire_left(r) < len) {
		r->bad = true;
		return NULL;
	}
	r->p += len;
	return p;
}

uint8_t wire_get_u8(struct wire_reader *r)
{
	const uint8_t *p = wire_get_fixed(r, 1);

	return p ? *p : 0;
}

uint16_t wire_get_u16(struct wire_reader *r)
{
	const uint8_t *p = wire_get_fixed(r, 2);

	return p ? get_le16(p) : 0;
}

uint32_t wire_get_u32(struct wire_reader *r)
{
	const uint8_t *p = wire_get_fixed(r, 4);

	return p ? get_le32(p) : 0;
}

uint64_t wire_get_u64(struct wire_reader *r)
{
	const uint8_t *p = wire_get_fixed(r, 8);

	return p ? get_le64(p) : 0;
}

uint64_t wire_get_var(struct wire_reader *r)
{
	uint64_t v = 0;
	unsigned shift;

	for (shift = 0; shift < 64; shift += 7) {
		uint8_t b = wire_get_u8(r);

		/* The tenth byte has one bit only. */
		if (shift == 63 && b > 1)
			break;
		v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return v;
	}
	r->bad = true;
	return 0;
}

const uint8_t *wire_get_bytes(struct wire_reader *r, uint32_t max, uint32_t *ret_len)
{
	uint32_t len = wire_get_u32(r);
	const uint8_t *p;

	if (len > max)
		r->bad = true;
	p = wire_get_fixed(r, len);
	*ret_len = p ? len : 0;
	return p;
}

int wire_end(const struct wire_reader *r, const char *what)
{
	if (r->bad)
		return err_set(EPROTO, "%s: it ends too early, or a length in it cannot be", what);
	if (r->p != r->end)
		return err_set(EPROTO, "%s: %zu bytes too many", what, wire_left(r));
	return 0;
}

/* Writing ---------------------------------------------------------------------------------------------------------- */

uint8_t *wire_put_room(struct wire_writer *w, size_t len)
{
	uint8_t *p = w->p;

	if (w->full || (size_t)(w->end - w->p) < len) {
		w->full = true;
		return NULL;
	}
	w->p += len;
	return p;
}

void wire_put_u8(struct wire_writer *w, uint8_t v)
{
	uint8_t *p = wire_put_room(w, 1);

	if (p)
		*p = v;
}

void wire_put_u16(struct wire_writer *w, uint16_t v)
{
	uint8_t *p = wire_put_room(w, 2);

	if (p)
		put_le16(p, v);
}

void wire_put_u32(struct wire_writer *w, uint32_t v)
{
	uint8_t *p = wire_put_room(w, 4);

	if (p)
		put_le32(p, v);
}

void wire_put_u64(struct wire_writer *w, uint64_t v)
{
	uint8_t *p = wire_put_room(w, 8);

	if (p)
		put_le64(p, v);
}

void wire_put_fixed(struct wire_writer *w, const void *bytes, size_t len)
{
	uint8_t *p = wire_put_room(w, len);

	if (p && len > 0)
		memcpy(p, bytes, len);
}

void wire_put_bytes(struct wire_writer *w, const void *bytes, uint32_t len)
{
	/* Both or neither: a length without its bytes would be read as another string's. */
	if ((size_t)(w->end - w->p) < 4 || (size_t)(w->end - w->p) - 4 < len)
		w->full = true;
	wire_put_u32(w, len);
	wire_put_fixed(w, bytes, len);
}

/* Frames ----------------------------------------------------------------------------------------------------------- */

void wire_frame_put(uint8_t header[WIRE_HEADER], const struct wire_frame *f)
{
	put_le32(header, f->len);
	put_le16(header + 4, f->type);
	put_le16(header + 6, f->flags);
}

int wire_frame_get(const uint8_t header[WIRE_HEADER], uint32_t max, struct wire_frame *ret)
{
	struct wire_frame f = { get_le32(header), get_le16(header + 4), get_le16(header + 6) };

	if (max > WIRE_PAYLOAD_MAX)
		max = WIRE_PAYLOAD_MAX;
	if (f.type == 0 || f.flags & ~WIRE_FLAGS)
		return err_set(EPROTO, "a frame with impossible type %u or flags %#x", f.type, f.flags);
	if (f.len > max)
		return err_set(EPROTO, "a frame of type %u with %u bytes, more than the %u that it may have", f.type,
			       f.len, max);
	*ret = f;
	return 0;
}

/* A TLS record begins with its type (20 to 24) and the major version 3. In a frame these are the low bytes of the
 * length; frames that may come first (hello, error) are at most WIRE_HELLO_MAX long, so their second byte is below 3. */
bool wire_is_tls(const uint8_t *bytes, size_t len)
{
	return len >= 2 && bytes[0] >= 20 && bytes[0] <= 24 && bytes[1] == 3;
}

_Static_assert(WIRE_HELLO_MAX < 3u << 8, "a hello may not look like TLS");

void wire_text(char *to, size_t size, const uint8_t *bytes, size_t len)
{
	size_t i;

	if (size == 0)
		return;
	for (i = 0; i < len && i + 1 < size; i++)
		to[i] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? (char)bytes[i] : '?';
	to[i] = '\0';
}

/* Hello ------------------------------------------------------------------------------------------------------------ */

void wire_hello_put(struct wire_writer *w, const struct wire_hello *h)
{
	wire_put_u64(w, WIRE_MAGIC);
	wire_put_u16(w, h->version_min);
	wire_put_u16(w, h->version_max);
	wire_put_u32(w, h->ping_ms);
	wire_put_u64(w, h->features);
	wire_put_u64(w, h->required);
	wire_put_u64(w, h->instance);
	wire_put_bytes(w, h->software, (uint32_t)strnlen(h->software, WIRE_SOFTWARE_MAX));
	wire_put_bytes(w, NULL, 0);             /* more: nothing yet */
}

int wire_hello_get(const uint8_t *payload, size_t len, struct wire_hello *ret)
{
	struct wire_reader r = wire_reader(payload, len);
	struct wire_hello h = { 0 };
	const uint8_t *text;
	uint32_t text_len, more_len;
	int e;

	if (wire_get_u64(&r) != WIRE_MAGIC)
		return err_set(EPROTO, "the peer does not speak the protocol of msyncfs");
	h.version_min = wire_get_u16(&r);
	h.version_max = wire_get_u16(&r);
	h.ping_ms = wire_get_u32(&r);
	h.features = wire_get_u64(&r);
	h.required = wire_get_u64(&r);
	h.instance = wire_get_u64(&r);
	text = wire_get_bytes(&r, WIRE_SOFTWARE_MAX, &text_len);
	(void)wire_get_bytes(&r, WIRE_HELLO_MAX, &more_len);    /* a later version may say more: none of it must be known */
	e = wire_end(&r, "hello");
	if (e < 0)
		return e;
	if (h.version_min > h.version_max || h.version_max == 0 || h.required & ~h.features)
		return err_set(EPROTO, "hello: versions %u to %u with features %#llx of %#llx cannot be", h.version_min,
			       h.version_max, (unsigned long long)h.required, (unsigned long long)h.features);
	wire_text(h.software, sizeof h.software, text, text_len);
	*ret = h;
	return 0;
}

int wire_agree(const struct wire_hello *mine, const struct wire_hello *theirs, struct wire_agreed *ret,
	       uint16_t *ret_code)
{
	uint16_t version = mine->version_max < theirs->version_max ? mine->version_max : theirs->version_max;

	if (mine->instance == theirs->instance) {
		*ret_code = WIRE_E_SELF;
		return err_set(EPROTONOSUPPORT, "the peer is this daemon itself: give the address of another one");
	}
	if (version < mine->version_min || version < theirs->version_min) {
		*ret_code = WIRE_E_VERSION;
		return err_set(EPROTONOSUPPORT, "%s speaks versions %u to %u of the protocol, %s versions %u to %u: "
			       "upgrade the older one", mine->software, mine->version_min, mine->version_max,
			       theirs->software, theirs->version_min, theirs->version_max);
	}
	if (mine->required & ~theirs->features || theirs->required & ~mine->features) {
		*ret_code = WIRE_E_FEATURES;
		return err_set(EPROTONOSUPPORT, "%s needs features %#llx, %s needs %#llx, and not all are known on both "
			       "sides: upgrade the older one", mine->software, (unsigned long long)mine->required,
			       theirs->software, (unsigned long long)theirs->required);
	}
	ret->version = version;
	ret->features = mine->features & theirs->features;
	return 0;
}

/* Error ------------------------------------------------------------------------------------------------------------ */

void wire_error_put(struct wire_writer *w, uint16_t code, const char *text)
{
	wire_put_u16(w, code);
	wire_put_u16(w, 0);
	wire_put_bytes(w, text, (uint32_t)strnlen(text, WIRE_TEXT_MAX));
}

int wire_error_get(const uint8_t *payload, size_t len, struct wire_error *ret)
{
	struct wire_reader r = wire_reader(payload, len);
	const uint8_t *text;
	uint32_t text_len;
	uint16_t code = wire_get_u16(&r);
	int e;

	(void)wire_get_u16(&r);         /* reserved */
	text = wire_get_bytes(&r, WIRE_TEXT_MAX, &text_len);
	e = wire_end(&r, "error frame");
	if (e < 0)
		return e;
	ret->code = code;
	wire_text(ret->text, sizeof ret->text, text, text_len);
	return 0;
}
