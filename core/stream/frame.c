/* SPDX-License-Identifier: MIT
 *
 * frame: items are gathered into frames of up to FRAME_RAW bytes, each packed by zstd for itself and guarded by a checksum
 * over all of it, seeded with its number, so that a frame that is changed, missing, doubled or out of place is noticed.
 * The end marker says how many there were and what all of them hash to: a stream that was cut has none.
 */
#include "core/stream/stream_int.h"

#include <stdlib.h>
#include <unistd.h>

#include <zstd.h>

#define PACKED_MAX ZSTD_COMPRESSBOUND(FRAME_RAW)
#define LEVEL      3            /* zstd's own choice; changing it changes the bytes of every stream */

static uint64_t frame_check(const uint8_t *frame, size_t len, uint64_t number)
{
	return hash64(frame + FRAME_KIND, len - FRAME_KIND, number);
}

static int watch(const struct stream_watch *w, const struct stream_counts *counts)
{
	return w ? w->fn(w->ctx, counts) : 0;
}

/* Writing --------------------------------------------------------------------------------------------------------- */

struct stream_writer {
	int fd;
	writer_take_fn take;            /* or NULL */
	void *take_ctx;
	const struct stream_watch *watch;
	struct stream_counts *counts;
	ZSTD_CCtx *zstd;
	uint64_t number, total;         /* frames written, hash of what they held */
	uint32_t used;
	uint8_t raw[FRAME_RAW];
	uint8_t frame[FRAME_HEADER + PACKED_MAX];
};

static int write_all(struct stream_writer *w, const uint8_t *p, size_t len)
{
	while (len > 0) {
		ssize_t n = write(w->fd, p, len);
		int r;

		if (n < 0 && errno != EINTR)
			return err_set(errno, "the stream cannot be written: %s", strerror(errno));
		if (n > 0) {
			p += n;
			len -= (size_t)n;
			w->counts->stream_bytes += (uint64_t)n;
		}
		r = n < 0 ? watch(w->watch, w->counts) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static int write_frame(struct stream_writer *w, enum frame_kind kind, uint32_t raw, uint32_t packed)
{
	size_t len = FRAME_HEADER + packed;

	memset(w->frame, 0, FRAME_HEADER);
	put_le32(w->frame + FRAME_KIND, kind);
	put_le32(w->frame + FRAME_LEN, raw);
	put_le32(w->frame + FRAME_PACKED, packed);
	put_le64(w->frame + FRAME_CHECK, frame_check(w->frame, len, w->number));
	w->number++;
	return write_all(w, w->frame, len);
}

static int hand_on(struct stream_writer *w)
{
	uint32_t at, len;
	int r = 0;

	for (at = 0; at < w->used && r == 0; at += ITEM_HEADER + len) {
		len = get_le32(w->raw + at + ITEM_LEN);
		r = w->take(w->take_ctx, get_le32(w->raw + at + ITEM_KIND), w->raw + at + ITEM_HEADER, len);
	}
	w->used = 0;
	return r < 0 ? r : watch(w->watch, w->counts);
}

static int flush_frame(struct stream_writer *w)
{
	ZSTD_inBuffer in = { w->raw, w->used, 0 };
	ZSTD_outBuffer out = { w->frame + FRAME_HEADER, PACKED_MAX, 0 };
	size_t left;
	int r;

	if (w->used == 0)
		return 0;
	if (w->take)
		return hand_on(w);
	(void)ZSTD_CCtx_setPledgedSrcSize(w->zstd, w->used);
	left = ZSTD_compressStream2(w->zstd, &out, &in, ZSTD_e_end);
	if (left != 0)
		return err_set(EIO, "zstd: %s", ZSTD_isError(left) ? ZSTD_getErrorName(left) : "no room");
	w->total = hash64(w->raw, w->used, w->total);
	r = write_frame(w, FRAME_ITEMS, w->used, (uint32_t)out.pos);
	w->used = 0;
	return r < 0 ? r : watch(w->watch, w->counts);
}

int writer_new(int fd, const struct stream_watch *watching, struct stream_counts *counts, struct stream_writer **ret)
{
	struct stream_writer *w = calloc(1, sizeof *w);
	uint8_t head[STREAM_HEADER] = { 0 };
	int r;

	if (!w)
		return -ENOMEM;
	w->fd = fd;
	w->watch = watching;
	w->counts = counts;
	w->zstd = ZSTD_createCCtx();
	if (!w->zstd || ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, LEVEL))) {
		writer_free(w);
		return -ENOMEM;
	}
	memcpy(head, STREAM_MAGIC, sizeof STREAM_MAGIC);        /* its NUL goes with the next line */
	put_le32(head + STREAM_H_VERSION, STREAM_VERSION);
	put_le64(head + STREAM_H_CHECK, hash64(head, STREAM_H_CHECK, 0));
	r = write_all(w, head, sizeof head);
	if (r < 0) {
		writer_free(w);
		return r;
	}
	*ret = w;
	return 0;
}

int writer_to(writer_take_fn take, void *ctx, const struct stream_watch *watching, struct stream_counts *counts,
	      struct stream_writer **ret)
{
	struct stream_writer *w = calloc(1, sizeof *w);

	if (!w)
		return -ENOMEM;
	w->fd = -1;
	w->take = take;
	w->take_ctx = ctx;
	w->watch = watching;
	w->counts = counts;
	*ret = w;
	return 0;
}

void writer_free(struct stream_writer *w)
{
	if (w)
		(void)ZSTD_freeCCtx(w->zstd);
	free(w);
}

uint8_t *writer_item(struct stream_writer *w, enum stream_kind kind, uint32_t len, int *ret_error)
{
	uint8_t *p;

	check(len <= FRAME_RAW - ITEM_HEADER);
	if (FRAME_RAW - w->used < ITEM_HEADER + len) {
		int r = flush_frame(w);

		if (r < 0) {
			*ret_error = r;
			return NULL;
		}
	}
	p = w->raw + w->used;
	put_le32(p + ITEM_KIND, kind);
	put_le32(p + ITEM_LEN, len);
	w->used += ITEM_HEADER + len;
	memset(p + ITEM_HEADER, 0, min_u64(len, SI_LEN));       /* reserved fields */
	return p + ITEM_HEADER;
}

int writer_end(struct stream_writer *w, uint64_t next_ino)
{
	uint8_t *p = w->frame + FRAME_HEADER;
	int r = flush_frame(w);

	if (r < 0 || w->take)
		return r;
	put_le64(p + END_FRAMES, w->number);
	put_le64(p + END_INODES, w->counts->inodes);
	put_le64(p + END_ENTRIES, w->counts->entries);
	put_le64(p + END_XATTRS, w->counts->xattrs);
	put_le64(p + END_DATA, w->counts->data_bytes);
	put_le64(p + END_UNWRITTEN, w->counts->unwritten_bytes);
	put_le64(p + END_NEXT_INO, next_ino);
	put_le64(p + END_TOTAL, w->total);
	return write_frame(w, FRAME_END, END_LEN, END_LEN);
}

/* Reading --------------------------------------------------------------------------------------------------------- */

struct stream_reader {
	int fd;
	const struct stream_watch *watch;
	struct stream_counts *counts;
	ZSTD_DCtx *zstd;
	uint64_t number, total;         /* frames read, hash of what they held */
	uint32_t len, at;               /* of raw */
	bool ended;
	uint8_t end[END_LEN];
	uint8_t raw[FRAME_RAW];
	uint8_t frame[FRAME_HEADER + PACKED_MAX];
};

/* Bytes read; less than len at the end of the stream only. */
static int64_t read_all(struct stream_reader *r, uint8_t *p, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(r->fd, p + done, len - done);
		int stop;

		if (n < 0 && errno != EINTR)
			return err_set(errno, "the stream cannot be read: %s", strerror(errno));
		if (n == 0)
			break;
		if (n > 0) {
			done += (size_t)n;
			r->counts->stream_bytes += (uint64_t)n;
			continue;
		}
		stop = watch(r->watch, r->counts);
		if (stop < 0)
			return stop;
	}
	return (int64_t)done;
}

static int cut_short(const struct stream_reader *r)
{
	return err_set(EUCLEAN, "the stream is cut short: it ends after %llu bytes, before its end marker",
		       (unsigned long long)r->counts->stream_bytes);
}

/* What was said of frame `number` is wrong. */
static int bad_frame(const struct stream_reader *r, const char *what)
{
	return err_set(EUCLEAN, "the stream is damaged: frame %llu, before byte %llu: %s", (unsigned long long)r->number,
		       (unsigned long long)r->counts->stream_bytes, what);
}

static int read_header(struct stream_reader *r)
{
	uint8_t head[STREAM_HEADER];
	int64_t n = read_all(r, head, sizeof head);

	if (n < 0)
		return (int)n;
	if (n == 0)
		return err_set(EUCLEAN, "the stream is empty");
	if (n < (int64_t)STREAM_MAGIC_LEN || memcmp(head, STREAM_MAGIC, STREAM_MAGIC_LEN) != 0)
		return err_set(EMEDIUMTYPE, "this is no stream of msyncfs dump");
	if (n < STREAM_HEADER)
		return cut_short(r);
	if (get_le64(head + STREAM_H_CHECK) != hash64(head, STREAM_H_CHECK, 0))
		return err_set(EUCLEAN, "the stream is damaged: its header's checksum does not match");
	if (get_le32(head + STREAM_H_VERSION) != STREAM_VERSION || get_le32(head + STREAM_H_FLAGS) != 0)
		return err_set(EPROTONOSUPPORT, "the stream has version %u (flags %u), this program knows version %u; "
			       "use a newer msyncfs", get_le32(head + STREAM_H_VERSION),
			       get_le32(head + STREAM_H_FLAGS), STREAM_VERSION);
	return 0;
}

int reader_new(int fd, const struct stream_watch *watching, struct stream_counts *counts, struct stream_reader **ret)
{
	struct stream_reader *r = calloc(1, sizeof *r);
	int e;

	if (!r)
		return -ENOMEM;
	r->fd = fd;
	r->watch = watching;
	r->counts = counts;
	r->zstd = ZSTD_createDCtx();
	e = r->zstd ? read_header(r) : -ENOMEM;
	if (e < 0) {
		reader_free(r);
		return e;
	}
	*ret = r;
	return 0;
}

void reader_free(struct stream_reader *r)
{
	if (r)
		(void)ZSTD_freeDCtx(r->zstd);
	free(r);
}

static int unpack(struct stream_reader *r, uint32_t raw, uint32_t packed)
{
	ZSTD_inBuffer in = { r->frame + FRAME_HEADER, packed, 0 };
	ZSTD_outBuffer out = { r->raw, raw, 0 };
	size_t left;

	(void)ZSTD_DCtx_reset(r->zstd, ZSTD_reset_session_only);
	left = ZSTD_decompressStream(r->zstd, &out, &in);
	/* The whole of one zstd frame, and nothing else. */
	if (left != 0 || in.pos != packed || out.pos != raw)
		return bad_frame(r, ZSTD_isError(left) ? ZSTD_getErrorName(left) : "wrong length");
	r->total = hash64(r->raw, raw, r->total);
	r->len = raw;
	r->at = 0;
	return 0;
}

static int accept_end(struct stream_reader *r)
{
	uint8_t more;
	int64_t n;

	memcpy(r->end, r->frame + FRAME_HEADER, END_LEN);
	if (get_le64(r->end + END_FRAMES) != r->number || get_le64(r->end + END_TOTAL) != r->total)
		return err_set(EUCLEAN, "the stream is damaged: its end marker is another stream's");
	n = read_all(r, &more, 1);
	if (n != 0)
		return n < 0 ? (int)n : err_set(EUCLEAN, "the stream is damaged: there is more behind its end marker");
	r->ended = true;
	return 0;
}

/* 1: there is a frame of items; 0: the end. */
static int read_frame(struct stream_reader *r)
{
	int64_t n = read_all(r, r->frame, FRAME_HEADER);
	uint32_t kind, raw, packed;
	int e;

	if (n < 0)
		return (int)n;
	if (n < FRAME_HEADER)
		return cut_short(r);
	kind = get_le32(r->frame + FRAME_KIND);
	raw = get_le32(r->frame + FRAME_LEN);
	packed = get_le32(r->frame + FRAME_PACKED);
	if ((kind != FRAME_ITEMS && kind != FRAME_END) || raw == 0 || raw > FRAME_RAW || packed > PACKED_MAX ||
	    (kind == FRAME_END && (raw != END_LEN || packed != END_LEN)))
		return bad_frame(r, "impossible header");
	n = read_all(r, r->frame + FRAME_HEADER, packed);
	if (n < 0)
		return (int)n;
	if (n < packed)
		return cut_short(r);
	if (get_le64(r->frame + FRAME_CHECK) != frame_check(r->frame, FRAME_HEADER + packed, r->number))
		return bad_frame(r, "its checksum does not match");
	if (kind == FRAME_END)
		return accept_end(r);
	e = unpack(r, raw, packed);
	r->number++;
	if (e == 0)
		e = watch(r->watch, r->counts);
	return e < 0 ? e : 1;
}

int reader_item(struct stream_reader *r, unsigned *ret_kind, const uint8_t **ret_data, uint32_t *ret_len)
{
	const uint8_t *p;
	uint32_t len;

	if (r->at == r->len) {
		int e = r->ended ? 0 : read_frame(r);

		if (e <= 0)
			return e;
	}
	p = r->raw + r->at;
	if (r->len - r->at < ITEM_HEADER)
		return bad_frame(r, "it ends inside an item");
	len = get_le32(p + ITEM_LEN);
	if (len > r->len - r->at - ITEM_HEADER)
		return bad_frame(r, "it ends inside an item");
	*ret_kind = get_le32(p + ITEM_KIND);
	*ret_data = p + ITEM_HEADER;
	*ret_len = len;
	r->at += ITEM_HEADER + len;
	return 1;
}

const uint8_t *reader_end(const struct stream_reader *r)
{
	return r->end;
}
