/* SPDX-License-Identifier: MIT
 *
 * crash_int: the inside of the model of crash_util.h, for the files crash_*_util.c that share it.
 */
#ifndef MSYNCFS_TESTS_CRASH_INT_H
#define MSYNCFS_TESTS_CRASH_INT_H

#include "tests/unit/crash_util.h"

#include "core/keys/cluster.h"

#define INLINE_ROOM 1024u
#define CHUNK_BYTES (1u << 20)
#define NAMES_MAX   40u
#define XATTR_NAMES 9u                   /* of which three mean something: below */
#define XATTR_ROOM  (XATTR_NAMES + 1u)
#define ACL_ROOM    120u
#define PER_REAP    200u

/* ACLs (acl(5)): whose permissions an entry has. */
enum { CLASS_USER = 1, CLASS_GROUP = 4, CLASS_MASK = 16, CLASS_OTHER = 32 };

/* One block of a file: data, or allocated and not written. */
struct model_block {
	uint64_t at;                    /* block number in the file */
	const uint8_t *data;            /* NULL: unwritten */
	uint64_t hash;
};

struct model_name {
	char name[24];
	uint64_t ino;
	uint32_t type;
};

struct model_xattr {
	char name[28];
	const uint8_t *value;
	uint32_t len;
};

struct model_node {
	struct keys_attr a;
	uint64_t stamp;                 /* the call that made this copy */
	uint64_t hash;
	uint32_t inline_len;
	uint8_t inline_data[INLINE_ROOM];
	struct model_block *blocks;
	unsigned block_count, block_room;
	struct model_name *names;
	unsigned name_count, name_room;
	struct model_xattr xattr[XATTR_ROOM];
	unsigned xattr_count;
};

/* crash_nodes_util.c ----------------------------------------------------------------------------------------------- */

extern const uint8_t model_zeros[BLOCK_SIZE];
extern const char model_acl_access[], model_acl_default[], model_capability[];

bool work_chance(struct work *w, unsigned percent);
void work_say(struct work *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void work_disagree(const struct work *w, const char *what);
/* Lives as long as the model does. */
void *work_keep(struct work *w, size_t size);
uint64_t hash_attr(const struct keys_attr *a);
uint64_t hash_orphan(uint64_t ino);
uint64_t hash_range(uint64_t from, uint64_t to);
/* Bytes of one block of the file. */
uint64_t hash_piece(const void *p, size_t len, uint64_t off);
uint64_t hash_name(const char *name, size_t len, uint64_t ino, uint32_t type);
uint64_t hash_xattr(const char *name, const void *value, size_t len);
uint64_t hash_join(uint64_t ino, uint64_t hash);
const struct model_node *node_get(const struct work *w, uint64_t ino);
/* The node for changing: a copy if a state has it. */
struct model_node *node_edit(struct work *w, uint64_t ino);
struct model_node *node_add(struct work *w, const struct keys_attr *a);
void node_remove(struct work *w, uint64_t ino);
const struct model_block *block_get(const struct model_node *n, uint64_t at);
void block_set(struct work *w, struct model_node *n, uint64_t at, const uint8_t *data);
void block_read(const struct model_node *n, uint64_t at, uint8_t *out);
void node_write(struct work *w, struct model_node *n, uint64_t off, const uint8_t *data, size_t len);
void node_punch(struct work *w, struct model_node *n, uint64_t from, uint64_t to);
struct model_name *name_find(const struct model_node *n, const char *name);
void name_set(struct work *w, struct model_node *n, const char *name, uint64_t ino, uint32_t mode);
void name_remove(struct model_node *n, const char *name);
const struct model_xattr *xattr_get(const struct model_node *n, const char *name);
void xattr_set(struct work *w, struct model_node *n, const char *name, const void *value, size_t size);
void xattr_drop(struct model_node *n, const char *name);
/* What a write by somebody who is not root does to a program's privileges. */
void model_kill_privileges(struct model_node *n, bool sgid);
uint32_t acl_to_mode(uint8_t *acl, size_t size);
/* Three entries say what a mode can say. */
bool acl_is_plain(size_t size);
void model_chmod(struct work *w, struct model_node *n, uint32_t mode);
/* A new inode's permissions: by its directory's default ACL, or less the umask. */
void model_inherit(struct work *w, const struct model_node *dir, struct model_node *n, uint32_t umask);
/* The present becomes a state. */
void model_push(struct work *w, seq_t seq, bool vague);
struct keys_time model_now(const struct work *w);
void model_touch(const struct work *w, struct model_node *n, bool mtime);

/* crash_names_util.c ----------------------------------------------------------------------------------------------- */

int work_op_make(struct work *w);
int work_op_symlink(struct work *w);
int work_op_link(struct work *w);
int work_op_unlink(struct work *w);
int work_op_rename(struct work *w);

/* crash_data_util.c ------------------------------------------------------------------------------------------------ */

/* The model after one write. */
void model_written(struct work *w, uint64_t ino, uint64_t off, const uint8_t *data, size_t len, unsigned kill);
/* For work_retry(). */
void work_remember(struct work *w, uint64_t ino, uint64_t off, const uint8_t *data, size_t len);
int work_op_truncate(struct work *w);
int work_op_write(struct work *w);
int work_op_copy(struct work *w);
int work_op_fallocate(struct work *w);

/* crash_attr_util.c ------------------------------------------------------------------------------------------------ */

int work_op_setattr(struct work *w);
int work_op_setxattr(struct work *w);
int work_op_removexattr(struct work *w);
int work_op_acl(struct work *w);
int work_op_atime(struct work *w);

/* crash_util.c ----------------------------------------------------------------------------------------------------- */

extern const struct keys_cred work_cred;

/* The call returned r: how many records did it commit? Checks r against what the model expects. */
unsigned work_settle(struct work *w, int r);
/* One record of the call that is being made is in the model. */
void work_step_state(struct work *w);
/* The number that a new inode gets: also if the call fails behind its record, and does not tell. */
uint64_t work_next_ino(const struct work *w);
bool work_was_committed(struct work *w, int r);
uint64_t work_pick(struct work *w, uint32_t type, bool any);
uint64_t work_pick_dir(struct work *w);
/* Mostly a file with a name; now and then one that was removed while open. */
uint64_t work_pick_file(struct work *w);
bool work_pick_name(struct work *w, uint64_t *ret_dir, struct model_name *ret);
void work_new_name(struct work *w, char name[24]);

#endif
