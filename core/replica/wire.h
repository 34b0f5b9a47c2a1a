/* SPDX-License-Identifier: MIT
 *
 * wire: bytes between machines: cursors that stay inside what they were given, the header of a frame, and the frames
 * of the transport itself (hello, error). Pure: no socket, clock, thread or memory of its own; any thread may call it.
 * Every byte is described in core/PROTOCOL.md. What comes from a peer is validated here, never trusted: -EPROTO with a
 * text (err_last()) is the answer to bytes that cannot be.
 */
#ifndef MSYNCFS_WIRE_H
#define MSYNCFS_WIRE_H

#include "core/base.h"

/* Cursors ---------------------------------------------------------------------------------------------------------- */

/* Reads from its bytes. The first step that would leave them sets `bad` for good; from then on every number is 0 and
 * every string is empty. So a decoder reads all its fields and asks once, at the end, with wire_end(). */
struct wire_reader {
	const uint8_t *p, *end;
	bool bad;
};

static inline struct wire_reader wire_reader(const void *bytes, size_t len)
{
	return (struct wire_reader){ bytes, (const uint8_t *)bytes + len, false };
}

static inline size_t wire_left(const struct wire_reader *r)
{
	return (size_t)(r->end - r->p);
}

uint8_t wire_get_u8(struct wire_reader *r);
uint16_t wire_get_u16(struct wire_reader *r);
uint32_t wire_get_u32(struct wire_reader *r);
uint64_t wire_get_u64(struct wire_reader *r);
/* A number in groups of 7 bits, the low ones first, bit 7 set in all but the last. */
uint64_t wire_get_var(struct wire_reader *r);
/* len bytes, in place; NULL (and bad) if there are not as many. */
const uint8_t *wire_get_fixed(struct wire_reader *r, size_t len);
/* A string: u32 length, then as many bytes, in place. Longer than max is bad. Never NULL unless bad. */
const uint8_t *wire_get_bytes(struct wire_reader *r, uint32_t max, uint32_t *ret_len);
/* 0 if nothing was bad and nothing is left; else -EPROTO, with `what` in the text. */
int wire_end(const struct wire_reader *r, const char *what);

/* Writes into a buffer of fixed size. The first step that would not fit sets `full` for good and writes nothing. */
struct wire_writer {
	uint8_t *p, *end, *start;
	bool full;
};

static inline struct wire_writer wire_writer(void *buf, size_t size)
{
	return (struct wire_writer){ buf, (uint8_t *)buf + size, buf, false };
}

static inline size_t wire_used(const struct wire_writer *w)
{
	return (size_t)(w->p - w->start);
}

void wire_put_u8(struct wire_writer *w, uint8_t v);
void wire_put_u16(struct wire_writer *w, uint16_t v);
void wire_put_u32(struct wire_writer *w, uint32_t v);
void wire_put_u64(struct wire_writer *w, uint64_t v);
/* Room for len bytes, to be filled by the caller; NULL if there is none. */
uint8_t *wire_put_room(struct wire_writer *w, size_t len);
void wire_put_fixed(struct wire_writer *w, const void *bytes, size_t len);
/* A string: u32 length, then the bytes. */
void wire_put_bytes(struct wire_writer *w, const void *bytes, uint32_t len);

/* Frames ----------------------------------------------------------------------------------------------------------- */

#define WIRE_HEADER      8u
#define WIRE_FRAME_MAX   1310720u                       /* 1.25 MiB, its header included */
#define WIRE_PAYLOAD_MAX (WIRE_FRAME_MAX - WIRE_HEADER)
#define WIRE_HELLO_MAX   512u                           /* payload of a hello: never takes itself for TLS */

enum wire_type {
	WIRE_HELLO = 1,
	WIRE_PING  = 2,
	WIRE_PONG  = 3,
	WIRE_ERROR = 4,
	WIRE_OWNER = 0x100,     /* from here on: messages of whoever uses the transport */
};

#define WIRE_MUST  1u           /* who does not know the type may not skip the frame */
#define WIRE_FLAGS WIRE_MUST    /* all that there are; others are refused */

struct wire_frame {
	uint32_t len;           /* of the payload */
	uint16_t type, flags;
};

void wire_frame_put(uint8_t header[WIRE_HEADER], const struct wire_frame *f);
/* Refuses a payload longer than max (at most WIRE_PAYLOAD_MAX), type 0 and unknown flags. */
int wire_frame_get(const uint8_t header[WIRE_HEADER], uint32_t max, struct wire_frame *ret);
/* The first bytes of a connection: do they begin a TLS record? No frame that may come first does. */
bool wire_is_tls(const uint8_t *bytes, size_t len);

/* Hello ------------------------------------------------------------------------------------------------------------ */

#define WIRE_MAGIC        0x74656e636e79736dull         /* "msyncnet" */
#define WIRE_SOFTWARE_MAX 64u
#define WIRE_VERSION      1u                            /* what this program speaks best */
#define WIRE_VERSION_MIN  1u                            /* the oldest it still speaks */

struct wire_hello {
	uint16_t version_min, version_max;
	uint32_t ping_ms;               /* the sender lets itself be heard at least this often */
	uint64_t features, required;    /* bits it knows; those of them that the peer must know */
	uint64_t instance;              /* random number of the sender: nobody links with itself */
	char software[WIRE_SOFTWARE_MAX + 1];   /* printable; for messages only */
};

/* A payload that holds the hello. */
void wire_hello_put(struct wire_writer *w, const struct wire_hello *h);
int wire_hello_get(const uint8_t *payload, size_t len, struct wire_hello *ret);

/* What two hellos agree on. -EPROTONOSUPPORT, with a text, if they cannot work together: *ret_code is then the code of
 * the error frame that says so. */
struct wire_agreed {
	uint16_t version;
	uint64_t features;
};
int wire_agree(const struct wire_hello *mine, const struct wire_hello *theirs, struct wire_agreed *ret,
	       uint16_t *ret_code);

/* Error ------------------------------------------------------------------------------------------------------------ */

#define WIRE_TEXT_MAX 400u

enum wire_code {
	WIRE_E_CLOSED   = 0,    /* no error: the sender goes */
	WIRE_E_PROTOCOL = 1,    /* bytes that cannot be */
	WIRE_E_VERSION  = 2,    /* no version in common */
	WIRE_E_FEATURES = 3,    /* a feature that must be known is not */
	WIRE_E_UNKNOWN  = 4,    /* a frame that must be understood is not */
	WIRE_E_NEED_KEY = 5,    /* one side uses a key, the other does not */
	WIRE_E_SELF     = 6,    /* the peer is this side */
	WIRE_E_DENIED   = 7,    /* the owner of this side refuses */
	WIRE_E_BUSY     = 8,    /* too many connections */
	WIRE_E_OWNER    = 0x100,/* from here on: codes of whoever uses the transport */
};

struct wire_error {
	uint16_t code;
	char text[WIRE_TEXT_MAX + 1];   /* printable */
};

void wire_error_put(struct wire_writer *w, uint16_t code, const char *text);
int wire_error_get(const uint8_t *payload, size_t len, struct wire_error *ret);

/* len bytes of a peer as a string that may stand in a log: what is not printable ASCII becomes '?'. */
void wire_text(char *to, size_t size, const uint8_t *bytes, size_t len);

#endif
