/* SPDX-License-Identifier: MIT
 *
 * ops_xattr: extended attributes, ACLs among them, see ops.h.
 */
#include "fs/control.h"
#include "fs/ops.h"

#include <errno.h>
#include <string.h>

#define ACCESS_ACL    "system.posix_acl_access"
/* Size and flags: what SETXATTR begins with unless SETXATTR_EXT is agreed. */
#define SETXATTR_HEAD 8u

/* An access ACL set by somebody outside the file's group takes setgid away, as chmod does. */
static bool acl_kills_sgid(struct fs *fs, fuse_req_t req, uint64_t ino, const char *name)
{
	struct keys_attr attr;

	return strcmp(name, ACCESS_ACL) == 0 && fuse_req_ctx(req)->uid != 0 &&
	       keys_getattr(fs->keys, ino, &attr) == 0 && (attr.mode & S_ISGID) != 0 &&
	       !ops_in_group(req, attr.gid);
}

/* The arguments are read from the raw request: libfuse 3.14 decodes the longer form, which was not
 * agreed. */
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags)
{
	struct fs *fs = ops_fs(req);
	const char *begin = (const char *)(fs->request + 1) + SETXATTR_HEAD;
	const char *end = (const char *)fs->request + fs->request->len;
	int r;

	name = begin;
	value = begin < end ? memchr(begin, '\0', (size_t)(end - begin)) : NULL;
	if (value == NULL || size > (size_t)(end - (value + 1))) {
		fuse_reply_err(req, EIO);
		return;
	}
	value++;
	if (control_owns(ino)) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	r = keys_setxattr(fs->keys, ino, name, value, size, flags,
			  acl_kills_sgid(fs, req, ino, name));
	if (r < 0) {
		ops_error(fs, req, r);
		return;
	}
	ops_changed(fs, false);
	fuse_reply_err(req, 0);
}

/* A value or a list: asked for with size 0, only how long it is. */
static void reply_bytes(struct fs *fs, fuse_req_t req, int r, size_t size, size_t len)
{
	if (r < 0)
		ops_error(fs, req, r);
	else if (size == 0)
		fuse_reply_xattr(req, len);
	else
		fuse_reply_buf(req, fs->dirbuf, len);
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct fs *fs = ops_fs(req);
	size_t len = 0;
	int r = -ENODATA;

	/* Before the first write to an inode the kernel asks for security.capability (file_remove_privs()), which only this
	 * answer stops; the kernel then never asks for any attribute. */
	if (fs->options->noxattr)
		r = -ENOSYS;
	else if (!control_owns(ino))
		r = keys_getxattr(fs->keys, ino, name, fs->dirbuf,
				  size < FS_DIRBUF_MAX ? size : FS_DIRBUF_MAX, &len);
	reply_bytes(fs, req, r, size, len);
}

/* trusted.* is root's business, also its names (xattr(7)). Returns the new length. */
static size_t hide_trusted(char *list, size_t len)
{
	size_t from = 0, to = 0;

	while (from < len) {
		size_t n = strlen(list + from) + 1;

		if (strncmp(list + from, "trusted.", 8) != 0) {
			memmove(list + to, list + from, n);
			to += n;
		}
		from += n;
	}
	return to;
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct fs *fs = ops_fs(req);
	size_t len = 0;
	int r = 0;

	if (fs->options->noxattr) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	/* The whole list, whatever was asked for: its length without the hidden names is not known before. */
	if (!control_owns(ino))
		r = keys_listxattr(fs->keys, ino, fs->dirbuf, FS_DIRBUF_MAX, &len);
	if (r == 0 && fuse_req_ctx(req)->uid != 0)
		len = hide_trusted(fs->dirbuf, len);
	if (r == 0 && size > 0 && len > size)
		r = -ERANGE;
	reply_bytes(fs, req, r, size, len);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct fs *fs = ops_fs(req);
	int r = -ENODATA;

	if (!control_owns(ino))
		r = keys_removexattr(fs->keys, ino, name);
	if (r < 0) {
		ops_error(fs, req, r);
		return;
	}
	ops_changed(fs, false);
	fuse_reply_err(req, 0);
}
