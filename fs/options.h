/* SPDX-License-Identifier: MIT
 *
 * options: what `msyncfs mount` understands. One table describes every option: the parser, --help
 * and the man page's test follow it. Every long option is a word of -o too, so that /etc/fstab can
 * say all that the command line can.
 */
#ifndef MSYNCFS_OPTIONS_H
#define MSYNCFS_OPTIONS_H

#include "core/keys/keys.h"
#include "core/replica/replica.h"

#include <stdbool.h>
#include <stdint.h>

#define OPTIONS_WORD_MAX 1024           /* of options_word() */

struct options {
	const char *store, *mountpoint;         /* as given */
	bool help;
	bool remount;           /* change what is mounted, see remount.h */
	bool foreground, debug;
	bool read_only;
	bool sync, dirsync; /* every change / every change of names is durable before its reply */
	bool writeback;
	bool allow_other;
	bool nosuid, nodev, noexec, nosymfollow;
	bool nodiratime;
	bool noxattr;           /* the kernel never asks for extended attributes */
	enum keys_atime atime;
	uint64_t size_bytes;                    /* 0 = as stored, or the disk */
	unsigned sync_interval_s;
	/* Remote mounts. */
	char *listen, *from, *key_file;         /* NULL: not given */
	uint64_t keep_bytes;                    /* of changes kept for replicas; 0 = the default */
	unsigned keep_s;                        /* and how long; 0 = for ever */
	enum replica_policy on_disconnect;
	unsigned wait_s;                        /* of on-disconnect=wait:SECONDS */
	uint32_t sync_replicas;                 /* of fsync=: as in struct primary_options */
	unsigned max_stale_s;                   /* oldest state that is read; 0: any */
	bool cluster_locks, local_locks;        /* as said; neither: what fits, see options_cluster_locks() */
	bool inotify;                           /* changes made elsewhere are told to inotify */
	bool replace;                           /* what is in the store may be given up to become a replica */
	char *kernel; /* words for the kernel that we only pass on, or NULL */
};

/* Read the command line of `mount` (argv[0] is the verb). 0, or the exit status after an error was
 * printed. */
int options_parse(struct options *o, int argc, char **argv);
void options_release(struct options *o);
/* How long an fsync waits for the disks of other machines. */
unsigned options_sync_wait_ms(const struct options *o);
/* The parts of options_parse(): what holds if nothing is said; the words of a command line, or of -o, on top of what *o
 * has. 0, or the exit status after an error was printed. */
void options_default(struct options *o);
int options_add(struct options *o, int argc, char **argv);
int options_add_words(struct options *o, const char *list);
/* Option n of those that belong to the store and its daemon, as a word of -o: "sync", "size=1073741824"; "" if it is not
 * set. False: there are only n. All of them say again what *o says. */
bool options_word(const struct options *o, unsigned n, char *buf, size_t size);
/* All of them as a list for -o. */
void options_to_text(const struct options *o, char *buf, size_t size);
/* Are locks of programs to count on all machines? */
bool options_cluster_locks(const struct options *o);
void options_help(void);
/* A number of bytes with an optional K, M, G or T. */
bool options_parse_bytes(const char *text, uint64_t *ret_bytes);

#endif
