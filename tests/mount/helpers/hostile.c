/* SPDX-License-Identifier: MIT
 *
 * hostile: put items that cannot be into a closed store, as somebody would who has our code: all checksums are right, and
 * it opens as any other. The store has, in its root, the files "secret" and "plain" (more than a page each), the
 * directories "way/down" and "odd". What is made:
 *
 *   way/down/up       a second name of the directory "way": a circle; the directory "ring", with itself in it and as its ".."
 *   stolen            a file that has the extents of "secret", checksums and all; torn: extents that overlap, of its own
 *   huge              a file of 2^63-1 bytes with one block, 2^64-1 blocks by its own word, and 2^31-1 names
 *   short             a file of 3 bytes, with more than that in its inode
 *   beyond            a file whose extent lies behind the end of the store; journal: one in the journal; tree: on the tree's root
 *   garbage           a file with an extent of more blocks than it has checksums for
 *   odd/...           entries that are called "a/b", "..", ".", "", and "nul\0"; one at the largest cookie; one without an inode
 *   chunks            a file with an attribute of which most is missing
 * and orphans: an inode that does not exist, and "plain", which has a name.
 *
 *   hostile STORE
 */
#include "core/keys/keys_int.h"
#include "core/store/store_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct keys *k;
static struct tree *t;

static void must(int r, const char *what)
{
	if (r == 0)
		return;
	(void)fprintf(stderr, "hostile: %s: %s (%s)\n", what, strerror(-r), err_last());
	exit(1);
}

static void put(struct key key, const void *value, uint32_t len)
{
	must(store_poll(keys_store(k)), "poll");
	must(tree_put(t, key, value, len), "put");
}

static uint64_t find(uint64_t dir, const char *name)
{
	struct keys_attr a;

	must(keys_lookup(k, dir, name, strlen(name), &a), name);
	return a.ino;
}

static uint64_t make(uint64_t dir, const char *name, uint32_t mode)
{
	const struct keys_cred cred = { 0, 0, 022 };
	struct keys_attr a;

	must(keys_make(k, dir, name, strlen(name), mode, 0, &cred, &a), name);
	return a.ino;
}

static struct keys_attr attr(uint64_t ino)
{
	struct keys_attr a;

	must(keys_getattr(k, ino, &a), "attributes");
	return a;
}

static void put_attr(const struct keys_attr *a, const char *inline_bytes)
{
	uint8_t item[INODE_SIZE + INLINE_MAX] = { 0 };
	uint32_t len = (uint32_t)strlen(inline_bytes);

	inode_encode(item, a);
	memcpy(item + INODE_SIZE, inline_bytes, len);
	put(item_key(a->ino, ITEM_INODE, 0), item, INODE_SIZE + len);
}

static void put_entry(uint64_t dir, uint64_t lo, uint64_t ino, uint32_t mode, const char *name, size_t len)
{
	uint8_t item[DIRENT_HEADER + KEYS_NAME_MAX];

	dirent_encode(item, ino, mode, name, len);
	put(item_key(dir, ITEM_DIRENT, lo), item, (uint32_t)(DIRENT_HEADER + len));
}

static uint64_t hash_lo(const char *name)
{
	return (hash64(name, strlen(name), store_hash_seed(k->store)) & ((1ull << 54) - 1)) << 8;
}

/* The extent at or behind that block of the file becomes one of another file, or of another place. */
static struct extent extent_of(uint64_t ino)
{
	struct extent e;

	must(contents_find(k, ino, 0, &e), "extent");
	return e;
}

static void put_extent(uint64_t ino, struct extent e, uint64_t fblock, block_t block)
{
	uint8_t item[ITEM_MAX];

	e.fblock = fblock;
	e.block = block;
	extent_encode(item, &e);
	put(item_key(ino, ITEM_EXTENT, fblock), item, extent_item_len(e.count, e.flags));
}

static uint64_t make_with_extent(const char *name, struct extent e, block_t block)
{
	uint64_t ino = make(KEYS_ROOT_INO, name, S_IFREG | 0644);
	struct keys_attr a = attr(ino);

	put_extent(ino, e, 0, block);
	a.size = (uint64_t)e.count << BLOCK_SHIFT;
	a.blocks = e.count;
	a.flags &= ~KEYS_ATTR_INLINE;
	put_attr(&a, "");
	return ino;
}

static void circles(void)
{
	uint64_t way = find(KEYS_ROOT_INO, "way"), down = find(way, "down"), ring = make(KEYS_ROOT_INO, "ring", S_IFDIR | 0755);
	struct keys_attr a = attr(ring);

	put_entry(down, hash_lo("up"), way, S_IFDIR, "up", 2);
	put_entry(ring, hash_lo("ring"), ring, S_IFDIR, "ring", 4);
	a.aux = ring;
	put_attr(&a, "");
}

static void contents(void)
{
	const struct extent secret = extent_of(find(KEYS_ROOT_INO, "secret"));
	struct extent unwritten = { .count = 4, .gen = secret.gen, .flags = EXTENT_UNWRITTEN };
	uint8_t item[ITEM_MAX];
	struct keys_attr a;
	uint64_t ino;

	(void)make_with_extent("stolen", secret, secret.block);
	ino = make_with_extent("torn", secret, secret.block);
	put_extent(ino, secret, 1, secret.block);
	(void)make_with_extent("beyond", secret, 1ull << 50);
	(void)make_with_extent("journal", unwritten, keys_store(k)->journal.segs[0]);
	(void)make_with_extent("tree", unwritten, t->root.block);

	ino = make_with_extent("garbage", unwritten, 1000);
	unwritten.flags = 0;
	unwritten.count = 2;
	extent_encode(item, &unwritten);
	put(item_key(ino, ITEM_EXTENT, 100), item, EXTENT_HEADER);

	ino = make_with_extent("huge", extent_of(find(KEYS_ROOT_INO, "plain")), secret.block);
	a = attr(ino);
	a.size = KEYS_SIZE_MAX;
	a.blocks = UINT64_MAX;
	a.nlink = KEYS_LINK_MAX;
	put_attr(&a, "");

	a = attr(make(KEYS_ROOT_INO, "short", S_IFREG | 0644));
	a.size = 3;
	a.flags |= KEYS_ATTR_INLINE;
	put_attr(&a, "abcdefgh");
}

static void names(void)
{
	uint64_t odd = find(KEYS_ROOT_INO, "odd"), plain = find(KEYS_ROOT_INO, "plain");
	struct keys_attr a = attr(odd);

	put_entry(odd, hash_lo("a/b"), plain, S_IFREG, "a/b", 3);
	put_entry(odd, hash_lo(".."), plain, S_IFREG, "..", 2);
	put_entry(odd, hash_lo("."), plain, S_IFREG, ".", 1);
	put_entry(odd, 12345 << 8, plain, S_IFREG, "", 0);
	put_entry(odd, 12346 << 8, plain, S_IFREG, "nul\0", 4);
	put_entry(odd, UINT64_MAX, plain, S_IFREG, "last", 4);
	put_entry(odd, hash_lo("missing"), (1ull << 40) + 7, S_IFREG, "missing", 7);
	a.size = UINT64_MAX >> 1;
	put_attr(&a, "");
}

static void attributes(void)
{
	uint8_t head[XATTR_HEADER + 9] = { 9 };
	struct keys_attr a;
	uint64_t ino = make(KEYS_ROOT_INO, "chunks", S_IFREG | 0644);

	put_le32(head + 4, KEYS_XATTR_MAX);
	memcpy(head + XATTR_HEADER, "user.long", 9);
	put(item_key(ino, ITEM_XATTR, (hash64("user.long", 9, store_hash_seed(k->store)) & ((1ull << 40) - 1)) << 16), head,
	    sizeof head);
	a = attr(ino);
	a.flags |= KEYS_ATTR_XATTR;
	put_attr(&a, "");
}

int main(int argc, char **argv)
{
	struct store_options o = { .path = argv[argc - 1] };
	uint64_t plain;

	if (argc != 2) {
		(void)fprintf(stderr, "usage: hostile STORE\n");
		return 2;
	}
	must(keys_open(&o, &k), "open");
	t = store_tree(keys_store(k));
	plain = find(KEYS_ROOT_INO, "plain");
	circles();
	contents();
	attributes();
	names();
	put((struct key){ KIND_ORPHAN, (1ull << 40) + 9 }, "", 0);
	put((struct key){ KIND_ORPHAN, plain }, "", 0);
	must(keys_close(k), "close");
	return 0;
}
