/* SPDX-License-Identifier: MIT
 *
 * status: see status.h. Units are in the names; times are seconds since 1970 or durations, with
 * decimals; 0 = never.
 */
#include "fs/status.h"

#include "core/base.h"
#include "fs/fs.h"
#include "fs/remote.h"
#include "fs/session.h"
#include "fs/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

/* A string in single quotes, in which a quote is written as '\''. */
static void put_quoted(struct text *t, const char *name, const char *value)
{
	char quoted[4 * 1024 + 3];
	size_t n = 0;

	quoted[n++] = '\'';
	for (; *value != '\0' && n + 6 < sizeof quoted; value++) {
		if (*value == '\'') {
			quoted[n++] = '\'';
			quoted[n++] = '\\';
			quoted[n++] = '\'';
		}
		quoted[n++] = *value;
	}
	quoted[n++] = '\'';
	quoted[n] = '\0';
	text_put(t, "%s=%s\n", name, quoted);
}

static void put_u64(struct text *t, const char *name, uint64_t value)
{
	text_put(t, "%s=%" PRIu64 "\n", name, value);
}

static void put_seconds(struct text *t, const char *name, uint64_t ns)
{
	text_put(t, "%s=%" PRIu64 ".%06" PRIu64 "\n", name, ns / 1000000000, ns % 1000000000 / 1000);
}

static void put_store(struct text *t, const struct store_status *st)
{
	const uint64_t now_ns = clock_real_ns();

	put_u64(t, "seq", st->seq);
	put_u64(t, "durable_seq", st->durable_seq);
	put_u64(t, "checkpoint_seq", st->checkpoint_seq);
	put_u64(t, "epoch", st->epoch);
	put_u64(t, "promised_epoch", st->promised_epoch);
	put_u64(t, "journal_position_bytes", st->journal_pos);
	put_u64(t, "durable_position_bytes", st->durable_pos);
	put_u64(t, "checkpoint_position_bytes", st->checkpoint_pos);
	put_u64(t, "journal_bytes", st->journal_bytes);
	put_u64(t, "dirty_bytes", st->dirty_bytes);
	put_u64(t, "uncheckpointed_bytes", st->uncheckpointed_bytes);
	put_seconds(t, "oldest_unsynced_age_seconds",
		    st->oldest_unsynced_ns != 0 && st->oldest_unsynced_ns < now_ns
			    ? now_ns - st->oldest_unsynced_ns
			    : 0);
	put_seconds(t, "last_sync_at_seconds", st->last_sync_ns);
	put_seconds(t, "last_sync_took_seconds", st->last_sync_took_ns);
	put_u64(t, "syncs", st->syncs);
	put_seconds(t, "last_checkpoint_at_seconds", st->last_checkpoint_ns);
	put_seconds(t, "last_checkpoint_took_seconds", st->last_checkpoint_took_ns);
	put_u64(t, "checkpoints", st->checkpoints);
	put_u64(t, "file_bytes", st->file_bytes);
	put_u64(t, "max_bytes", st->max_bytes);
	put_u64(t, "used_bytes", st->used_blocks * 4096);
	put_u64(t, "free_bytes", st->free_blocks * 4096);
	put_u64(t, "pending_bytes", st->pending_blocks * 4096);
	put_u64(t, "inodes", st->inodes);
	put_u64(t, "grows", st->grows);
	put_u64(t, "recovered_records", st->recovered_records);
	text_put(t, "failed_errno=%d\n", st->failed);
}

static void put_requests(struct text *t, const struct fs *fs)
{
	static const char *const names[FS_OPCODES] = {
		[FUSE_LOOKUP] = "lookup", [FUSE_FORGET] = "forget",
		[FUSE_GETATTR] = "getattr", [FUSE_SETATTR] = "setattr",
		[FUSE_READLINK] = "readlink", [FUSE_SYMLINK] = "symlink",
		[FUSE_MKNOD] = "mknod", [FUSE_MKDIR] = "mkdir",
		[FUSE_UNLINK] = "unlink", [FUSE_RMDIR] = "rmdir",
		[FUSE_RENAME] = "rename", [FUSE_LINK] = "link",
		[FUSE_OPEN] = "open", [FUSE_READ] = "read",
		[FUSE_WRITE] = "write", [FUSE_STATFS] = "statfs",
		[FUSE_RELEASE] = "release", [FUSE_FSYNC] = "fsync",
		[FUSE_SETXATTR] = "setxattr", [FUSE_GETXATTR] = "getxattr",
		[FUSE_LISTXATTR] = "listxattr", [FUSE_REMOVEXATTR] = "removexattr",
		[FUSE_FLUSH] = "flush", [FUSE_INIT] = "init",
		[FUSE_OPENDIR] = "opendir", [FUSE_READDIR] = "readdir",
		[FUSE_RELEASEDIR] = "releasedir", [FUSE_FSYNCDIR] = "fsyncdir",
		[FUSE_ACCESS] = "access", [FUSE_CREATE] = "create",
		[FUSE_INTERRUPT] = "interrupt", [FUSE_IOCTL] = "ioctl",
		[FUSE_POLL] = "poll", [FUSE_BATCH_FORGET] = "batch_forget",
		[FUSE_FALLOCATE] = "fallocate", [FUSE_READDIRPLUS] = "readdirplus",
		[FUSE_RENAME2] = "rename2", [FUSE_LSEEK] = "lseek",
		[FUSE_COPY_FILE_RANGE] = "copy_file_range", [FUSE_SYNCFS] = "syncfs",
	};
	uint64_t other = 0, all = 0;

	for (unsigned i = 0; i < FS_OPCODES; i++) {
		all += fs->requests[i];
		if (names[i] == NULL)
			other += fs->requests[i];
	}
	put_u64(t, "requests", all);
	for (unsigned i = 0; i < FS_OPCODES; i++)
		if (names[i] != NULL && fs->requests[i] != 0)
			text_put(t, "requests_%s=%" PRIu64 "\n", names[i], fs->requests[i]);
	put_u64(t, "requests_other", other);
}

/* What an fsync waits for, up to where that is so, how many wait, and how many waited in vain. */
static void put_fsync(struct text *t, struct fs *fs)
{
	uint64_t waiting, expired;
	uint32_t n = fs->options->sync_replicas;

	defer_count(&fs->synced, &waiting, &expired);
	if (n == 0)
		text_put(t, "fsync=primary\n");
	else if (n == PRIMARY_SYNC_ALL)
		text_put(t, "fsync=all\n");
	else
		text_put(t, "fsync='replicas=%" PRIu32 "'\n", n);
	put_u64(t, "synced_seq", fs->remote != NULL ? remote_synced(fs->remote) : store_durable_seq(fs->store));
	put_u64(t, "fsyncs_waiting", waiting);
	put_u64(t, "fsyncs_failed", expired + fs->syncs_failed);
}

size_t status_to_text(struct fs *fs, char *buf, size_t size)
{
	struct text t = { .buf = buf, .size = size };
	struct store_status st;
	char options[2048];

	store_status(fs->store, &st);
	put_quoted(&t, "store", fs->store_path);
	put_quoted(&t, "mountpoint", fs->mountpoint);
	put_quoted(&t, "uuid", st.uuid);
	put_quoted(&t, "version", MSYNCFS_VERSION);
	text_put(&t, "pid=%d\n", (int)getpid());
	text_put(&t, "role=%s\n", fs->remote != NULL && !remote_leads(fs->remote) ? "replica" : "primary");
	text_put(&t, "state=%s\n", st.failed != 0 ? "failed" : st.read_only ? "readonly" : "ok");
	put_store(&t, &st);
	text_put(&t, "sync_interval_seconds=%u\n", fs->options->sync_interval_s);
	put_fsync(&t, fs);
	options_to_text(fs->options, options, sizeof options);
	put_quoted(&t, "options", options);
	put_u64(&t, "kernel_inodes", inodes_count(&fs->inodes));
	put_u64(&t, "parked_requests", session_parked(fs));
	remote_status(fs->remote, &t);
	put_requests(&t, fs);
	return t.len;
}
