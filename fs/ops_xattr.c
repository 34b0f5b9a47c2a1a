/* SPDX-License-Identifier: MIT
 *
 * ops_xattr: extended attributes, ACLs among them, see ops.h.
 */
#include "fs/control.h"
#include "fs/ops.h"

#include <errno.h>
#include <string.h>

/* Size and flags: what SETXATTR begins with unless SETXATTR_EXT is agreed. */
#define SETXATTR_HEAD 8u

/* The arguments are read from the raw request: libfuse 3.14 decodes the longer form, which was not
 * agreed. */
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags)
{
	struct fs *fs = ops_fs(req);
	const char *begin = (const char *)(fs->request + 1) + SETXATTR_HEAD;
	const char *end = (const char *)fs->request + fs->request->len;
	struct call c = { .op = CALL_SETXATTR, .ino = ino, .how = (uint32_t)flags };

	(void)name;
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
	ops_fill_caller(req, &c);
	c.name = (struct call_text){ begin, (uint32_t)strlen(begin) };
	c.data = value;
	c.size = (uint32_t)size;
	if (c.cred.uid != 0)
		c.flags |= CALL_KILL;
	ops_call(fs, req, &c, ops_reply_done);
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
	struct call c = { .op = CALL_REMOVEXATTR, .ino = ino, .name = { name, (uint32_t)strlen(name) } };

	if (control_owns(ino)) {
		fuse_reply_err(req, ENODATA);
		return;
	}
	ops_fill_caller(req, &c);
	ops_call(ops_fs(req), req, &c, ops_reply_done);
}
