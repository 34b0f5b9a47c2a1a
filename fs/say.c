/* SPDX-License-Identifier: MIT
 *
 * say: see say.h.
 */
#include "fs/say.h"

#include "core/base.h"
#include "fs/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_SHOWN 300  /* bytes of a path in a line */

/* Those that do not depend on what it is about. */
static const char *common_hint(int error)
{
	switch (error) {
	case ENOTDIR:           return "a part of its path is no directory: check the name";
	case ENAMETOOLONG:      return "give a shorter name";
	case ELOOP:             return "its symbolic links lead in a circle: give another name";
	case ENOMEM:            return "free some memory, or raise its limits (ulimit -v, the cgroup's)";
	case EMFILE: case ENFILE: return "raise the limit of open files (ulimit -n)";
	case EIO:               return "look after the disk (dmesg)";
	case ENOTCONN:          return "the daemon of the mount that it is in has died: mount that again";
	case ESTALE:            return "its file system was replaced: try again";
	case ENXIO: case ENODEV: return "there is no device behind it: give another name";
	case ETXTBSY:           return "it is a program that runs: give another name";
	case EFBIG:             return "allow larger files (ulimit -f), or use another file system";
	case EPROTONOSUPPORT:   return "use a newer msyncfs";
	case EINTR:             return "begin anew";
	case ENOSYS: case EOPNOTSUPP: return "use another file system, or a newer kernel";
	default:                return NULL;
	}
}

static const char *mount_hint(int error)
{
	switch (error) {
	case EBUSY:             return "unmount it there first";
	case EMEDIUMTYPE:       return "give another name, this file is left as it is";
	case EUCLEAN:           return "run msyncfs check on it";
	case ENODATA:           return "bring it back from a copy, or remove it to begin anew";
	case EISDIR:            return "give the name of a file";
	case EACCES: case EPERM: return "check its owner and mode";
	case EROFS:             return "mount with -o ro";
	case ENOSPC: case EDQUOT: return "make room on its disk";
	case EINPROGRESS:       return "mount it with --from to go on";
	case EEXIST:            return "try again";
	case ENOENT:            return "check the name, or mount without -o ro to make it";
	default:                return "the store was not mounted";
	}
}

static const char *store_hint(int error)
{
	switch (error) {
	case EBUSY:             return "try again";
	case EMEDIUMTYPE:       return "give the name of a store";
	case EUCLEAN:           return "msyncfs check says what is damaged, check --salvage saves the rest";
	case ENODATA:           return "bring it back from a copy";
	case EISDIR:            return "give the name of a file";
	case EACCES: case EPERM: return "check its owner and mode";
	case EINPROGRESS:       return "mount it with --from to go on";
	case ENOENT:            return "check the name";
	default:                return "nothing was read";
	}
}

static const char *new_hint(int error)
{
	switch (error) {
	case EEXIST:            return "give another name, or remove it first";
	case EISDIR:            return "give the name of a file";
	case ENOENT:            return "make its folder first";
	case EACCES: case EPERM: return "give a folder that you may write to";
	case EROFS:             return "give a place on a disk that can be written to";
	case ENOSPC: case EDQUOT: return "make room on the disk, or give another place";
	case EMEDIUMTYPE: case EUCLEAN: return "give a whole stream of msyncfs dump";
	case EINVAL:            return "give other values";
	default:                return "nothing was made";
	}
}

static const char *file_hint(int error)
{
	switch (error) {
	case EISDIR:            return "give the name of a file";
	case ENOENT:            return "check the name";
	case EACCES: case EPERM: return "check its owner and mode";
	case EROFS:             return "give a place on a disk that can be written to";
	case ENOSPC: case EDQUOT: return "make room on the disk";
	case EPIPE:             return "who was to read it has ended";
	case EBADF:             return "open it, or give a file";
	default:                return "check what it is";
	}
}

static const char *dir_hint(int error)
{
	switch (error) {
	case ENOTCONN:          return "mount it again";
	case ENOENT: case ENOTDIR: return "give the directory that a store is mounted on";
	case EACCES: case EPERM: return "ask who mounted it, or root";
	case EROFS:             return "it takes no changes: see its status";
	case EBUSY: case EAGAIN: return "try again";
	case EIO:               return "see its status, and the log of its daemon";
	default:                return "see the log of its daemon";
	}
}

static const char *address_hint(int error)
{
	switch (error) {
	case EADDRINUSE:        return "give another port, or end who listens there";
	case EADDRNOTAVAIL:     return "give an address of this machine";
	case EACCES: case EPERM: return "give a port above 1023, or a path that you may write to";
	case EINVAL:            return "give ADDR:PORT, as one.example.org:6796";
	default:                return "check the address";
	}
}

/* What to do about an error (an errno, positive). */
static const char *say_hint(enum say_about about, int error)
{
	static const char *(*const hints[])(int error) = { mount_hint, store_hint, new_hint, file_hint, dir_hint,
							     address_hint };
	const char *common = about == SAY_DIR && (error == ENOTCONN || error == ENOTDIR || error == EIO) ? NULL :
			     common_hint(error);

	return common != NULL ? common : hints[about](error);
}

/* A path that would leave no room for the rest of the line: its beginning and its end. */
static const char *shorten(const char *path, char *buf, size_t size)
{
	size_t len = strlen(path);

	if (len <= PATH_SHOWN)
		return path;
	snprintf(buf, size, "%.*s[...]%s", PATH_SHOWN / 2, path, path + len - PATH_SHOWN / 2);
	return buf;
}

void say_text(enum say_about about, const char *path, const char *what, const char *text, int error)
{
	size_t len = strlen(path);
	bool named = strncmp(text, path, len) == 0 && text[len] == ':', advised;
	char buf[PATH_SHOWN + 16];

	/* A text of the core with a path that is too long was cut. */
	if (len > PATH_SHOWN) {
		named = false;
		text = strerror(abs(error));
	}
	path = shorten(path, buf, sizeof buf);
	if (named)
		what = NULL;
	advised = strchr(named ? text + len : text, ';') != NULL;
	log_error("%s%s%s%s%s%s%s", named ? "" : path, named ? "" : ": ", what != NULL ? what : "", what != NULL ? ": " : "", text,
		  advised ? "" : ": ", advised ? "" : say_hint(about, abs(error)));
}

void say_error(enum say_about about, const char *path, const char *what, int error)
{
	const char *text = err_last();

	say_text(about, path, what, *text != '\0' ? text : strerror(abs(error)), error);
}

void say_errno(enum say_about about, const char *path, const char *what, int error)
{
	say_text(about, path, what, strerror(abs(error)), error);
}

void say_mount(const char *mountpoint, bool found, int error)
{
	if (!found && error == ENOENT)
		log_error("%s: no such directory: %s", mountpoint, dir_hint(error));
	else if (error == ENOENT || error == ENOTDIR)
		log_error("%s: not an msyncfs mount: %s", mountpoint, dir_hint(error));
	else if (error == ENOTCONN)
		log_error("%s: its daemon has died: %s", mountpoint, dir_hint(error));
	else
		say_errno(SAY_DIR, mountpoint, NULL, error);
}

void say_stdout(int error)
{
	say_errno(SAY_FILE, "standard output", NULL, error);
}
