/* SPDX-License-Identifier: MIT
 *
 * key: key files, see key.h. No buffer that held a secret is left behind unwiped.
 */
#include "core/replica/key.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#define FIRST_LINE "msyncfs-key-1"
#define TEXT_MAX   (KEY_ID_MAX + 2 * KEY_SECRET + KEY_TREE_MAX + 128)

void key_release(struct net_key *k)
{
	OPENSSL_cleanse(k->secret, sizeof k->secret);
	free(k->tree);
	k->tree = NULL;
}

void keyring_free(struct keyring *ring)
{
	if (!ring)
		return;
	for (size_t i = 0; i < ring->count; i++)
		key_release(&ring->keys[i]);
	free(ring->keys);
	free(ring);
}

const struct net_key *keyring_find(const struct keyring *ring, const void *id, size_t len)
{
	for (size_t i = 0; i < ring->count; i++)
		if (strlen(ring->keys[i].id) == len && memcmp(ring->keys[i].id, id, len) == 0)
			return &ring->keys[i];
	return NULL;
}

/* What may stand in a key -------------------------------------------------------------------------------------------- */

static bool id_is_good(const char *id, size_t len)
{
	static const char others[] = "._@-";

	if (len == 0 || len > KEY_ID_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = id[i];
		bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

		if (!alnum && (i == 0 || c == '\0' || !strchr(others, c)))
			return false;
	}
	return true;
}

/* An absolute path whose parts are names: neither empty, nor dots, nor with a byte that would end its line. */
static bool tree_is_good(const char *path, size_t len)
{
	size_t at = 0;

	if (len < 2 || len > KEY_TREE_MAX || path[0] != '/')
		return false;
	while (at < len) {
		const char *name = path + at + 1;
		size_t n = 0;

		while (at + 1 + n < len && name[n] != '/') {
			if ((unsigned char)name[n] < 0x20)
				return false;
			n++;
		}
		if (n == 0 || n > 255 || (n == 1 && name[0] == '.') || (n == 2 && name[0] == '.' && name[1] == '.'))
			return false;
		at += 1 + n;
	}
	return true;
}

int key_validate(const struct net_key *k)
{
	if (!id_is_good(k->id, strnlen(k->id, sizeof k->id)))
		return err_set(EINVAL, "id: a name of letters, digits and . _ @ -, that begins with a letter or a digit, of at "
			       "most %u bytes is wanted", KEY_ID_MAX);
	if (k->tree && !tree_is_good(k->tree, strlen(k->tree)))
		return err_set(EINVAL, "tree: the path of a directory is wanted, from the root of the mount on, as /a/b");
	return 0;
}

/* Reading ------------------------------------------------------------------------------------------------------------ */

struct parser {
	const char *name;
	unsigned line;
	struct keyring *ring;
	struct net_key *key;        /* the one whose lines these are, or NULL */
	bool has_secret;
};

static int bad_line(const struct parser *p, const char *what)
{
	return err_set(EINVAL, "%s: line %u: %s", p->name, p->line, what);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static int take_secret(struct parser *p, const char *text, size_t len)
{
	if (p->has_secret)
		return bad_line(p, "a second secret for one key");
	if (len != 2 * KEY_SECRET)
		return bad_line(p, "a secret is 64 hexadecimal digits");
	for (size_t i = 0; i < KEY_SECRET; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return bad_line(p, "a secret is 64 hexadecimal digits");
		p->key->secret[i] = (uint8_t)(high << 4 | low);
	}
	p->has_secret = true;
	return 0;
}

static int take_id(struct parser *p, const char *text, size_t len)
{
	if (p->key->id[0] != '\0')
		return bad_line(p, "a second id for one key");
	if (!id_is_good(text, len))
		return bad_line(p, "an id is a name of at most 64 letters, digits and . _ @ -");
	if (keyring_find(p->ring, text, len))
		return bad_line(p, "an id that another key of this file has");
	memcpy(p->key->id, text, len);
	return 0;
}

static int take_limit(struct parser *p, const char *text, size_t len)
{
	static const char read_only[] = "read-only", tree[] = "tree:";

	if (len == sizeof read_only - 1 && memcmp(text, read_only, len) == 0) {
		p->key->read_only = true;
		return 0;
	}
	/* A limit that is not understood must not be lost: the key would open more than it should. */
	if (len < sizeof tree - 1 || memcmp(text, tree, sizeof tree - 1) != 0)
		return bad_line(p, "an unknown limit: read-only and tree:/PATH are known");
	text += sizeof tree - 1;
	len -= sizeof tree - 1;
	if (p->key->tree)
		return bad_line(p, "a second tree for one key");
	if (!tree_is_good(text, len))
		return bad_line(p, "tree: needs the path of a directory, as /a/b");
	p->key->tree = strndup(text, len);
	return p->key->tree ? 0 : -ENOMEM;
}

/* The lines of a key are over. */
static int finish_key(struct parser *p)
{
	struct net_key *k = p->key;

	if (!k)
		return 0;
	if (k->id[0] == '\0' || !p->has_secret)
		return bad_line(p, k->id[0] == '\0' ? "the key before here has no id" : "the key before here has no secret");
	p->key = NULL;
	return 0;
}

static int begin_key(struct parser *p)
{
	int r = finish_key(p);

	if (r < 0)
		return r;
	if (p->ring->count == KEYS_MAX)
		return bad_line(p, "too many keys");
	p->key = &p->ring->keys[p->ring->count++];
	p->has_secret = false;
	return 0;
}

static int parse_line(struct parser *p, const char *line, size_t len)
{
	static const struct {
		const char *word;
		int (*take)(struct parser *p, const char *text, size_t len);
	} words[] = { { "id=", take_id }, { "secret=", take_secret }, { "limit=", take_limit } };

	if (len == 0 || line[0] == '#')
		return 0;
	if (len == sizeof FIRST_LINE - 1 && memcmp(line, FIRST_LINE, len) == 0)
		return begin_key(p);
	if (!p->key)
		return bad_line(p, "this is no key file: its first line is not " FIRST_LINE);
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		size_t n = strlen(words[i].word);

		if (len >= n && memcmp(line, words[i].word, n) == 0)
			return words[i].take(p, line + n, len - n);
	}
	return bad_line(p, "neither id=, secret= nor limit=");
}

int keyring_parse(const char *name, const char *text, size_t len, struct keyring **ret)
{
	struct keyring *ring = calloc(1, sizeof *ring);
	struct parser p = { .name = name, .ring = ring };
	int r = 0;

	if (!ring)
		return -ENOMEM;
	ring->keys = calloc(KEYS_MAX, sizeof *ring->keys);
	if (!ring->keys)
		r = -ENOMEM;
	while (r == 0 && len > 0) {
		const char *nl = memchr(text, '\n', len);
		size_t n = nl ? (size_t)(nl - text) : len;

		p.line++;
		r = parse_line(&p, text, n > 0 && text[n - 1] == '\r' ? n - 1 : n);
		n += nl != NULL;
		text += n;
		len -= n;
	}
	p.line++;
	if (r == 0)
		r = finish_key(&p);
	if (r == 0 && ring->count == 0)
		r = err_set(EINVAL, "%s: there is no key in it; msyncfs keygen makes one", name);
	if (r < 0) {
		keyring_free(ring);
		return r;
	}
	*ret = ring;
	return 0;
}

static int may_be_used(const char *path, const struct stat *st)
{
	if (!S_ISREG(st->st_mode))
		return err_set(EACCES, "%s: a key file must be a regular file; give the one that msyncfs keygen has made", path);
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return err_set(EACCES, "%s: it belongs to user %u; a key file must belong to who uses it, or to root", path,
			       (unsigned)st->st_uid);
	if (st->st_mode & 077)
		return err_set(EACCES, "%s: others may read or write it (mode %04o); chmod 600, and make a new key if others "
			       "have seen it", path, (unsigned)st->st_mode & 07777);
	if (st->st_size > KEY_FILE_MAX)
		return err_set(EINVAL, "%s: too large for a key file; give the one that msyncfs keygen has made", path);
	return 0;
}

static int read_file(int fd, const char *path, char *buf, size_t size, size_t *ret_len)
{
	size_t len = 0;

	while (len < size) {
		ssize_t n = read(fd, buf + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(errno, "%s: %s", path, strerror(errno));
		if (n == 0)
			break;
		len += (size_t)n;
	}
	*ret_len = len;
	return 0;
}

int keyring_load(const char *path, struct keyring **ret)
{
	/* Non-blocking, so that a pipe of that name does not hold us up before it is refused. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), r;
	char *buf = NULL;
	struct stat st;
	size_t len = 0;

	if (fd < 0)
		return err_set(errno, "%s: %s%s", path, strerror(errno),
			       errno == ENOENT ? "; copy the primary's to that name, or make one with msyncfs keygen" : "");
	if (fstat(fd, &st) < 0)
		r = err_set(errno, "%s: %s", path, strerror(errno));
	else
		r = may_be_used(path, &st);
	if (r == 0) {
		buf = malloc(KEY_FILE_MAX);
		r = buf ? read_file(fd, path, buf, KEY_FILE_MAX, &len) : -ENOMEM;
	}
	if (r == 0)
		r = keyring_parse(path, buf, len, ret);
	if (buf)
		OPENSSL_cleanse(buf, KEY_FILE_MAX);
	free(buf);
	(void)close(fd);
	return r;
}

bool key_is_limited(const struct net_key *k)
{
	return k->read_only || k->tree;
}

uint32_t key_tag(const struct net_key *k)
{
	uint64_t h = hash64(k->id, strlen(k->id), k->read_only);

	if (k->tree)
		h = hash64(k->tree, strlen(k->tree), h);
	return (uint32_t)(h >> 32) | 1;
}

uint64_t key_client(const struct net_key *k, uint64_t random)
{
	return k->tree ? (uint64_t)key_tag(k) << 32 | (random & UINT32_MAX) : random;
}

/* Making ------------------------------------------------------------------------------------------------------------- */

int key_generate(struct net_key *k)
{
	uint8_t id[4];

	/* Not from OpenSSL, which needs memory before it has any, and does not survive it if there is none. */
	if (getrandom(k->secret, sizeof k->secret, 0) != sizeof k->secret || getrandom(id, sizeof id, 0) != sizeof id)
		return err_set(EIO, "there are no random numbers to be had; try again later");
	if (k->id[0] == '\0')
		(void)snprintf(k->id, sizeof k->id, "key-%02x%02x%02x%02x", id[0], id[1], id[2], id[3]);
	return 0;
}

static size_t key_text(const struct net_key *k, char *buf, size_t size)
{
	size_t n = (size_t)snprintf(buf, size, FIRST_LINE "\nid=%s\nsecret=", k->id);

	for (size_t i = 0; i < KEY_SECRET; i++)
		n += (size_t)snprintf(buf + n, size - n, "%02x", k->secret[i]);
	n += (size_t)snprintf(buf + n, size - n, "\n%s", k->read_only ? "limit=read-only\n" : "");
	if (k->tree)
		n += (size_t)snprintf(buf + n, size - n, "limit=tree:%s\n", k->tree);
	return n;
}

int key_write(int fd, const struct net_key *k)
{
	char text[TEXT_MAX];
	size_t at = 0, len;
	int r = key_validate(k);

	if (r < 0)
		return r;
	len = key_text(k, text, sizeof text);
	check(len < sizeof text);
	while (r == 0 && at < len) {
		ssize_t n = write(fd, text + at, len - at);

		if (n >= 0)
			at += (size_t)n;
		else if (errno != EINTR)
			r = err_set(errno, "the key cannot be written: %s", strerror(errno));
	}
	OPENSSL_cleanse(text, sizeof text);
	return r;
}

int key_create(const char *path, const struct net_key *k)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), r;

	if (fd < 0)
		return err_set(errno, "%s: %s", path, errno == EEXIST ? "it exists: a key is never written over" :
			       strerror(errno));
	r = key_write(fd, k);
	if (r == 0 && fsync(fd) < 0 && errno != EINVAL)
		r = err_set(errno, "%s: %s", path, strerror(errno));
	if (close(fd) < 0 && r == 0)
		r = err_set(errno, "%s: %s", path, strerror(errno));
	if (r < 0)
		(void)unlink(path);
	return r;
}
