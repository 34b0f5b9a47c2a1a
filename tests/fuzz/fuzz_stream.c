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

static void write_stream(struct input *in)
{
	static struct list l;
	struct stream_counts counts = { 0 };
	struct stream_writer *w;
	unsigned i, edits = in_u8(in) % 32;
	int r = 0;

	l.count = l.used = 0;
	for (i = 0; i < base_count; i++)
		insert(&l, i, base + base_at[i], base_len[i]);
	for (i = 0; i < edits && in->p < in->end; i++)
		edit(&l, in);
	check(writer_new(fd, NULL, &counts, &w) == 0);
	for (i = 0; i < l.count && r == 0; i++) {
		uint8_t *p = writer_item(w, get_le32(l.item[i]), l.len[i] - ITEM_HEADER, &r);

		if (!p)
			break;
		memcpy(p - ITEM_HEADER, l.item[i], l.len[i]);
		count_item(&counts, l.item[i], l.len[i]);
	}
	(void)writer_end(w, in_u8(in) < 200 ? 1000 : in_value(in));
	writer_free(w);
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
