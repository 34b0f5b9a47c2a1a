/* SPDX-License-Identifier: MIT
 *
 * fuzz_stream: `load`. Even inputs are a stream's bytes as they are. Odd ones are changes to the items of a stream that
 * `dump` made of the base image, packed into frames anew with every checksum, count and total right.
 */
#include "tests/fuzz/fuzz_util.h"

#include "core/stream/stream_int.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define ITEMS_MAX 1024u
#define RAW_MAX   (4u << 20)

static uint8_t base[RAW_MAX], made[RAW_MAX];
static uint32_t base_at[ITEMS_MAX], base_len[ITEMS_MAX];        /* whole items */
static unsigned base_count;
static int fd = -1;
static char target_path[64];

static void remove_target(void)
{
	(void)unlink(target_path);
}

static void learn_base(void)
{
	struct stream_counts counts = { 0 };
	struct stream_reader *r;
	struct keys *k;
	const uint8_t *p;
	unsigned kind;
	uint32_t len, used = 0;

	check(world_open_base(&k) == 0);
	fd = memfd_create("msyncfs-fuzz", MFD_CLOEXEC);
	check(fd >= 0 && stream_dump(k, fd, NULL, &counts) == 0);
	check(keys_close(k) == 0 && lseek(fd, 0, SEEK_SET) == 0);
	check(reader_new(fd, NULL, &counts, &r) == 0);
	while (reader_item(r, &kind, &p, &len) > 0) {
		check(base_count < ITEMS_MAX && used + ITEM_HEADER + len <= RAW_MAX);
		/* A hole is as good as contents, and faster. */
		if (kind == STREAM_DATA && len > 4 * BLOCK_SIZE)
			continue;
		memcpy(base + used, p - ITEM_HEADER, ITEM_HEADER + len);
		base_at[base_count] = used;
		base_len[base_count++] = ITEM_HEADER + len;
		used += ITEM_HEADER + len;
	}
	reader_free(r);
	(void)snprintf(target_path, sizeof target_path, "%s/.msyncfs-fuzz-%d",
		       access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ".", (int)getpid());
	(void)atexit(remove_target);
}

/* Items ----------------------------------------------------------------------------------------------------------- */

struct list {
	uint8_t *item[ITEMS_MAX];
	uint32_t len[ITEMS_MAX];
	unsigned count;
	uint32_t used;          /* of made */
};

static void insert(struct list *l, unsigned at, const uint8_t *item, uint32_t len)
{
	if (l->count == ITEMS_MAX || len > RAW_MAX - l->used)
		return;
	memmove(l->item + at + 1, l->item + at, (l->count - at) * sizeof *l->item);
	memmove(l->len + at + 1, l->len + at, (l->count - at) * sizeof *l->len);
	l->item[at] = made + l->used;
	l->len[at] = len;
	memcpy(l->item[at], item, len);
	l->used += len;
	l->count++;
}

static void drop(struct list *l, unsigned at)
{
	l->count--;
	memmove(l->item + at, l->item + at + 1, (l->count - at) * sizeof *l->item);
	memmove(l->len + at, l->len + at + 1, (l->count - at) * sizeof *l->len);
}

static void patch(struct input *in, uint8_t *item, uint32_t len, bool field)
{
	uint32_t at = in_u8(in) % 160 % len, n = 8;
	uint8_t buf[64];

	if (field) {
		at = at / 4 * 4;
		put_le64(buf, in_value(in));
	} else {
		n = in_bytes(in, buf, sizeof buf);
	}
	memcpy(item + at, buf, min_u64(n, len - at));
	/* Its length stays true: frames would end otherwise. */
	if (in_u8(in) < 250)
		put_le32(item + ITEM_LEN, len - ITEM_HEADER);
}

static void edit(struct list *l, struct input *in)
{
	uint8_t op = in_u8(in), buf[ITEM_HEADER + 1200];
	unsigned at = l->count ? in_u16(in) % l->count : 0;
	uint32_t n;

	if (l->count == 0)
		return;
	switch (op % 7) {
	case 0: case 1:
		patch(in, l->item[at], l->len[at], false);
		break;
	case 2: case 3:
		patch(in, l->item[at], l->len[at], true);
		break;
	case 4:
		drop(l, at);
		break;
	case 5:         /* one of the others again */
		n = in_u16(in) % l->count;
		insert(l, at, l->item[n], l->len[n]);
		break;
	default:
		memset(buf, 0, sizeof buf);
		put_le32(buf, in_u8(in) % 8);
		n = in_bytes(in, buf + ITEM_HEADER, sizeof buf - ITEM_HEADER);
		put_le32(buf + ITEM_LEN, n);
		insert(l, at, buf, ITEM_HEADER + n);
		break;
	}
}

/* What the end marker has to say, from the items. */
static void count_item(struct stream_counts *c, const uint8_t *item, uint32_t len)
{
	switch (get_le32(item)) {
	case STREAM_INODE:
		c->inodes++;
		c->data_bytes += len > ITEM_HEADER + SI_LEN ? len - ITEM_HEADER - SI_LEN : 0;
		break;
	case STREAM_XATTR:      c->xattrs++; break;
	case STREAM_ENTRY:      c->entries++; break;
	case STREAM_DATA:       c->data_bytes += len > ITEM_HEADER + SD_LEN ? len - ITEM_HEADER - SD_LEN : 0; break;
	case STREAM_UNWRITTEN:  c->unwritten_bytes += len >= ITEM_HEADER + SU_LEN ? get_le64(item + ITEM_HEADER + 8) : 0; break;
	default:                break;
	}
}

/* Frames, made by hand: zstd blocks that are not packed cost no time. */
struct out {
	uint8_t *p;
	uint64_t number, total;
};
static uint8_t stream[RAW_MAX + 65536];

static uint32_t store_raw(uint8_t *to, const uint8_t *raw, uint32_t len)
{
	const uint8_t head[] = { 0x28, 0xb5, 0x2f, 0xfd, 0xa0 };        /* one segment, 4 bytes of length */
	uint8_t *p = to;

	memcpy(p, head, sizeof head);
	put_le32(p + sizeof head, len);
	p += sizeof head + 4;
	while (len > 0) {
		uint32_t n = (uint32_t)min_u64(len, 1u << 17), word = n << 3 | (n == len);

		memcpy(p, (uint8_t[]){ (uint8_t)word, (uint8_t)(word >> 8), (uint8_t)(word >> 16) }, 3);
		memcpy(p + 3, raw, n);
		p += 3 + n;
		raw += n;
		len -= n;
	}
	return (uint32_t)(p - to);
}

static void put_frame(struct out *o, enum frame_kind kind, const uint8_t *raw, uint32_t len)
{
	uint32_t packed = len;

	memset(o->p, 0, FRAME_HEADER);
	if (kind == FRAME_ITEMS)
		packed = store_raw(o->p + FRAME_HEADER, raw, len);
	else
		memcpy(o->p + FRAME_HEADER, raw, len);
	put_le32(o->p + FRAME_KIND, kind);
	put_le32(o->p + FRAME_LEN, len);
	put_le32(o->p + FRAME_PACKED, packed);
	put_le64(o->p + FRAME_CHECK, hash64(o->p + FRAME_KIND, FRAME_HEADER - FRAME_KIND + packed, o->number++));
	if (kind == FRAME_ITEMS)
		o->total = hash64(raw, len, o->total);
	o->p += FRAME_HEADER + packed;
}

static void put_end(struct out *o, const struct stream_counts *c, uint64_t next_ino)
{
	uint8_t end[END_LEN];

	put_le64(end + END_FRAMES, o->number);
	put_le64(end + END_INODES, c->inodes);
	put_le64(end + END_ENTRIES, c->entries);
	put_le64(end + END_XATTRS, c->xattrs);
	put_le64(end + END_DATA, c->data_bytes);
	put_le64(end + END_UNWRITTEN, c->unwritten_bytes);
	put_le64(end + END_NEXT_INO, next_ino);
	put_le64(end + END_TOTAL, o->total);
	put_frame(o, FRAME_END, end, END_LEN);
}

static void write_stream(struct input *in)
{
	static struct list l;
	static uint8_t raw[FRAME_RAW];
	struct stream_counts counts = { 0 };
	struct out o = { .p = stream + STREAM_HEADER };
	unsigned i, edits = in_u8(in) % 32;
	uint32_t used = 0;
	ssize_t size;

	l.count = l.used = 0;
	for (i = 0; i < base_count; i++)
		insert(&l, i, base + base_at[i], base_len[i]);
	for (i = 0; i < edits && in->p < in->end; i++)
		edit(&l, in);
	memset(stream, 0, STREAM_HEADER);
	memcpy(stream, STREAM_MAGIC, STREAM_MAGIC_LEN);
	put_le32(stream + STREAM_H_VERSION, STREAM_VERSION);
	put_le64(stream + STREAM_H_CHECK, hash64(stream, STREAM_H_CHECK, 0));
	for (i = 0; i < l.count; i++) {
		if (used > 0 && l.len[i] > FRAME_RAW - used) {
			put_frame(&o, FRAME_ITEMS, raw, used);
			used = 0;
		}
		memcpy(raw + used, l.item[i], l.len[i]);
		used += l.len[i];
		count_item(&counts, l.item[i], l.len[i]);
	}
	if (used > 0)
		put_frame(&o, FRAME_ITEMS, raw, used);
	put_end(&o, &counts, in_u8(in) < 200 ? 1000 : in_value(in));
	size = o.p - stream;
	check(write(fd, stream, (size_t)size) == size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stream_target target = { .path = target_path, .max_bytes = 8u << 20, .sys = world_sys() };
	struct input in = { data, data + size };
	struct stream_counts counts;

	if (base_count == 0)
		learn_base();
	world_seed(data, size);
	check(lseek(fd, 0, SEEK_SET) == 0 && ftruncate(fd, 0) == 0);
	if (in_u8(&in) & 1)
		write_stream(&in);
	else
		check(write(fd, in.p, (size_t)(in.end - in.p)) == in.end - in.p);
	check(lseek(fd, 0, SEEK_SET) == 0);
	(void)stream_load(&target, fd, NULL, &counts);
	remove_target();
	return 0;
}
