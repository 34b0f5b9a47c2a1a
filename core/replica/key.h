/* SPDX-License-Identifier: MIT
 *
 * key: the shared secrets of remote mounts, and the file that holds them. A key file is text:
 *
 *     msyncfs-key-1
 *     id=NAME                  letters, digits and ._@-, at most 64; travels in clear, names the key to the peer
 *     secret=HEX               32 bytes
 *     limit=read-only          optional: who comes with this key changes nothing
 *     limit=tree:/PATH         optional: changes only what is below this directory (limit.h); it sees everything
 *
 * Several keys may stand in one file; each begins with its first line. Blank lines and lines that begin with # are
 * skipped. Who connects uses the first, who listens accepts any of them. A ring is read-only once made: any thread may
 * look into it. Secrets are wiped from memory when the ring is freed.
 */
#ifndef MSYNCFS_KEY_H
#define MSYNCFS_KEY_H

#include "core/base.h"

#define KEY_ID_MAX   64u
#define KEY_SECRET   32u
#define KEY_TREE_MAX 4095u
#define KEY_FILE_MAX 65536u
#define KEYS_MAX     256u

struct net_key {
	char id[KEY_ID_MAX + 1];
	uint8_t secret[KEY_SECRET];
	bool read_only;
	char *tree;             /* "/a/b" without a slash at its end, or NULL: all */
};

struct keyring {
	size_t count;
	struct net_key *keys;       /* in the order of the file */
};

/* Read a key file. Refused, -EACCES, unless it is a regular file of this user or root that nobody else may read or
 * write; what is wrong in it is told with its line, -EINVAL. */
int keyring_load(const char *path, struct keyring **ret);
/* The same from memory; `name` is for messages. */
int keyring_parse(const char *name, const char *text, size_t len, struct keyring **ret);
/* NULL is fine. */
void keyring_free(struct keyring *ring);
const struct net_key *keyring_find(const struct keyring *ring, const void *id, size_t len);

/* A new random secret, and an id if k->id is empty. The limits are the caller's. */
int key_generate(struct net_key *k);
/* -EINVAL, with a text, if the id or the tree cannot stand in a key file. */
int key_validate(const struct net_key *k);
/* The text of a key into a file that must not exist (-EEXIST; mode 0600; on disk on return; nothing is left after an
 * error), or to a descriptor. */
int key_create(const char *path, const struct net_key *k);
int key_write(int fd, const struct net_key *k);
bool key_is_limited(const struct net_key *k);
/* A number that stands for the key and its limits, never 0: the same lines give the same on all machines. */
uint32_t key_tag(const struct net_key *k);
/* What may be the number of a client that comes with it: the upper half is the tag of a key that is limited to a directory, so
 * nobody who has that key can take the number of a client that has another one. Of other keys: what was given. */
uint64_t key_client(const struct net_key *k, uint64_t random);
/* Forget the secret, free the tree. */
void key_release(struct net_key *k);

#endif
