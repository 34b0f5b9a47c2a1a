/* SPDX-License-Identifier: MIT
 *
 * fuzz_control: every file of MOUNTPOINT/.msyncfs, asked with any name, inode, offset and size, in any order.
 */
#include "fs/control.h"
#include "fs/fs.h"
#include "fs/inodes.h"
#include "fs/ops.h"
#include "fs/remote.h"
#include "fs/repeat.h"
#include "fs/session.h"
#include "core/replica/feed.h"
#include "core/replica/message.h"
#include "core/store/format.h"
#include "tests/fuzz/fuzz_util.h"

#include <stdlib.h>
#include <sys/stat.h>

static unsigned held;

/* What control.c and status.c need of the rest of fs/. */
int ops_hold_checkpoint(struct fs *fs)
{
	held++;
	return store_checkpoint(fs->store);
}

uint64_t session_parked(const struct fs *fs)
{
	(void)fs;
	return 3;
}

/* Links to other machines, of which only that there are some is looked at here. */
struct remote {
	bool leads;
};

bool remote_leads(const struct remote *l)
{
	return l->leads;
}

int remote_promote(struct remote *l)
{
	return l->leads ? -EINVAL : 0;
}

/* What was written is one line that can go into a message, and is looked for among names. */
int remote_demote(struct remote *l, const char *name)
{
	size_t len = strlen(name), i;

	check(len <= MSG_NAME_MAX);
	for (i = 0; i < len; i++)
		check((unsigned char)name[i] >= ' ' && name[i] != 127);
	return l->leads ? 0 : -EINVAL;
}

void remote_status(struct remote *l, struct text *t)
{
	(void)l, (void)t;
}

uint64_t remote_synced(const struct remote *l)
{
	(void)l;
	return 0;
}

void defer_count(struct defer *d, uint64_t *ret_waiting, uint64_t *ret_expired)
{
	(void)d;
	*ret_waiting = *ret_expired = 0;
}

size_t remote_locks(const struct remote *l, char *buf, size_t size)
{
	(void)l, (void)buf, (void)size;
	return 0;
}

/* What others did: any bytes. */
static struct feed feed;

const struct feed *remote_feed(const struct remote *l)
{
	(void)l;
	return &feed;
}

size_t repeat_path(struct repeat *r, uint64_t ino, unsigned *scan, char *buf, size_t size)
{
	(void)r, (void)scan;
	memset(buf, 1 + (int)(ino % 255), size - 1);
	buf[ino % size] = '\0';
	return strlen(buf);
}

static void add_change(struct input *in)
{
	static uint8_t rec[4096];
	seq_t first, last;

	memset(rec, 0, sizeof rec);
	(void)feed_range(&feed, &first, &last);
	(void)in_bytes(in, rec, sizeof rec);
	put_le32(rec + REC_MAGIC_OFF, REC_MAGIC);
	put_le32(rec + REC_LEN, sizeof rec);
	put_le64(rec + REC_SEQ, last + 1);
	feed_add(&feed, rec, sizeof rec);
}

static struct fs *the_fs(void)
{
	static struct options options = { .sync_interval_s = 5 };
	static struct fs fs;

	if (!fs.keys) {
		check(world_open_base(&fs.keys) == 0);
		fs.store = keys_store(fs.keys);
		fs.options = &options;
		check(inodes_init(&fs.inodes) == 0);
		check(feed_init(&feed, FEED_SIZE_MIN, 0, 1) == 0);
	}
	return &fs;
}

static uint64_t in_ino(struct input *in, uint64_t last)
{
	uint8_t how = in_u8(in);

	return how < 64 ? last : how < 192 ? CONTROL_FIRST + how % 32 : how < 224 ? in_value(in) : in_value(in) | CONTROL_FIRST;
}

static void in_text(struct input *in, char *text, size_t size)
{
	static const char *const known[] = { ".msyncfs", "status", "locks", "version", "checkpoint", ".", "..", "watch", "1", "sync" };
	uint8_t how = in_u8(in);

	if (how < 200) {
		strcpy(text, known[how % ARRAY_LEN(known)]);
		return;
	}
	text[in_bytes(in, (uint8_t *)text, (uint32_t)size - 1)] = '\0';
}

/* Any bytes, at any length, in memory of just that length. */
static void write_file(struct fs *fs, struct input *in, uint64_t ino)
{
	uint32_t room = in_u8(in) % 4 == 0 ? 600 : 40;
	unsigned replicas, ms;
	uint8_t *text = malloc(room);
	char *exact;
	size_t len;

	check(text);
	len = in_bytes(in, text, room);
	exact = malloc(len + (len == 0));
	check(exact);
	memcpy(exact, text, len);
	if (!control_is_sync(ino))
		(void)control_write(fs, ino, exact, len);
	else if (control_parse_sync(exact, len, &replicas, &ms))
		check(replicas < 1000000000 && ms < 1000000000 && len >= 3);
	free(exact);
	free(text);
}

static void one_call(struct fs *fs, struct input *in, uint64_t *last)
{
	struct fuse_entry_param entry;
	const char *text;
	char name[300];
	struct stat st;
	size_t len, i;
	uint64_t ino = in_ino(in, *last), from;
	unsigned sum = 0;

	switch (in_u8(in) % 9) {
	case 0: case 1:
		in_text(in, name, sizeof name);
		/* ops.c asks this first. */
		if (!control_owns(ino) && !control_is_name(ino, name, strlen(name)))
			return;
		if (control_lookup(fs, ino, name, &entry) == 0) {
			check(control_owns(entry.ino) && entry.attr.st_size >= 0);
			*last = entry.ino;
		}
		break;
	case 2:
		if (control_owns(ino) && control_getattr(fs, ino, &st) == 0)
			check(control_owns(st.st_ino));
		break;
	case 3: case 4:
		if (!control_owns(ino))
			break;
		from = in_value(in);
		if (control_read(fs, ino, from, in_value(in), &text, &len) < 0)
			break;
		for (i = 0; i < len; i++)
			sum += (unsigned char)text[i];
		check(len < 1u << 20 && sum < 1u << 30);
		break;
	case 5:
		if (control_owns(ino))
			control_forget(fs, ino);
		break;
	case 6:
		if (control_owns(ino))
			write_file(fs, in, ino);
		break;
	case 7:
		add_change(in);
		break;
	default:
		if (control_entry(in_u8(in) % 8, &text, &st))
			check(strlen(text) > 0);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };
	uint64_t last = CONTROL_FIRST;
	char path[1200] = "/a/", mount[1200] = "/m/";
	static struct remote remote;
	struct fs *fs = the_fs();
	unsigned calls = 0;

	world_seed(data, size);
	check(control_init(fs) == 0);
	in_text(&in, path + 3, sizeof path - 3);
	in_text(&in, mount + 3, sizeof mount - 3);
	fs->store_path = path;
	fs->mountpoint = mount;
	/* Alone, a remote mount, or a primary. */
	fs->remote = size % 3 == 0 ? NULL : &remote;
	remote.leads = size % 3 == 2;
	while (in.p < in.end && calls++ < 64)
		one_call(fs, &in, &last);
	control_release(fs);
	return 0;
}
