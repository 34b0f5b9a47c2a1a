/* SPDX-License-Identifier: MIT
 *
 * holder: see holder.h. A mount that was taken away lives on for those who have something open in it; it is known by its
 * device number then (major 0), which every file of it has.
 */
#include "fs/holder.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <unistd.h>

#define USERS_MAX 4     /* that are named */

static bool is_number(const char *name)
{
	return *name != '\0' && name[strspn(name, "0123456789")] == '\0';
}

/* Kernels from 6.16 on tell the mount of an open FUSE device. proc: the directory of a process or thread. */
static unsigned device_minor(const char *proc, const char *fd)
{
	char path[128 + NAME_MAX], line[256];
	unsigned minor = 0;
	FILE *f;

	snprintf(path, sizeof path, "%s/fdinfo/%s", proc, fd);
	f = fopen(path, "re");
	while (f != NULL && minor == 0 && fgets(line, sizeof line, f) != NULL)
		if (sscanf(line, "fuse_connection: %u", &minor) != 1)
			minor = 0;
	if (f != NULL)
		fclose(f);
	return minor;
}

/* A file that is open. Its attributes are asked of the kernel only, never of a daemon. */
static bool is_file(int dir, const char *name, const struct stat *file)
{
	struct statx st;

	return statx(dir, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &st) == 0 && st.stx_ino == file->st_ino &&
	       makedev(st.stx_dev_major, st.stx_dev_minor) == file->st_dev;
}

/* Does it have the device open, and, unless NULL, this file? */
static bool has_device(const char *proc, const struct stat *file, unsigned *ret_minor)
{
	bool device = false, other = file == NULL;
	char path[128], target[64];
	struct dirent *e;
	ssize_t n;
	DIR *d;

	*ret_minor = 0;
	snprintf(path, sizeof path, "%s/fd", proc);
	d = opendir(path);
	while (d != NULL && !(device && other) && (e = readdir(d)) != NULL) {
		n = readlinkat(dirfd(d), e->d_name, target, sizeof target - 1);
		target[n > 0 ? n : 0] = '\0';
		/* The name of a store that was made here is not the one that it got. */
		other = other || (file != NULL && is_number(e->d_name) && is_file(dirfd(d), e->d_name, file));
		if (device || strcmp(target, "/dev/fuse") != 0)
			continue;
		device = true;
		*ret_minor = device_minor(proc, e->d_name);
	}
	if (d != NULL)
		closedir(d);
	return device && other;
}

bool holder_serves(unsigned pid, unsigned *ret_minor)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%u", pid);
	return has_device(path, NULL, ret_minor);
}

/* Its first thread has ended. */
static bool is_zombie(const char *pid)
{
	char path[32 + NAME_MAX], text[512], *state;
	size_t n = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%s/stat", pid);
	f = fopen(path, "re");
	if (f != NULL) {
		n = fread(text, 1, sizeof text - 1, f);
		fclose(f);
	}
	text[n] = '\0';
	/* Behind the name, which may hold anything. */
	state = strrchr(text, ')');
	return state != NULL && strncmp(state, ") Z", 3) == 0;
}

/* What the first thread had open is told of those that are left only. */
static bool has_thread_with(const char *pid, const struct stat *store, unsigned minor)
{
	char path[32 + NAME_MAX], task[64 + 2 * NAME_MAX];
	struct dirent *e;
	bool found = false;
	unsigned its;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%s/task", pid);
	d = opendir(path);
	while (d != NULL && !found && (e = readdir(d)) != NULL) {
		snprintf(task, sizeof task, "%s/%s", path, e->d_name);
		found = is_number(e->d_name) && has_device(task, store, &its) && (its == 0 || its == minor);
	}
	if (d != NULL)
		closedir(d);
	return found;
}

bool holder_hangs(const char *store, unsigned minor)
{
	struct dirent *e;
	bool found = false;
	struct stat st;
	DIR *d;

	if (stat(store, &st) < 0)
		return false;
	d = opendir("/proc");
	while (d != NULL && !found && (e = readdir(d)) != NULL)
		found = is_number(e->d_name) && is_zombie(e->d_name) && has_thread_with(e->d_name, &st, minor);
	if (d != NULL)
		closedir(d);
	return found;
}

/* A mount of FUSE with this device number that is in no mount table of ours. */
static bool is_gone_mount(unsigned minor)
{
	char path[64], line[8192], want[32];
	bool listed = false;
	FILE *f;

	snprintf(path, sizeof path, "/sys/fs/fuse/connections/%u", minor);
	f = access(path, F_OK) == 0 ? fopen("/proc/self/mountinfo", "re") : NULL;
	if (f == NULL)
		return false;
	snprintf(want, sizeof want, "0:%u", minor);
	while (!listed && fgets(line, sizeof line, f) != NULL) {
		char device[32];

		listed = sscanf(line, "%*u %*u %31s", device) == 1 && strcmp(device, want) == 0;
	}
	fclose(f);
	return !listed;
}

static bool is_of_mount(unsigned major, unsigned minor, unsigned want)
{
	return major == 0 && minor != 0 && (want != 0 ? minor == want : is_gone_mount(minor));
}

/* What the link of /proc leads to. Its attributes are asked of the kernel only, never of the daemon. */
static bool link_leads_there(int dir, const char *name, unsigned want)
{
	struct statx st;

	return statx(dir, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &st) == 0 &&
	       is_of_mount(st.stx_dev_major, st.stx_dev_minor, want);
}

static bool has_open(int proc, unsigned want)
{
	int fd = openat(proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;
	bool found = false;

	if (d == NULL && fd >= 0)
		close(fd);
	while (d != NULL && !found && (e = readdir(d)) != NULL)
		found = is_number(e->d_name) && link_leads_there(dirfd(d), e->d_name, want);
	if (d != NULL)
		closedir(d);
	return found;
}

/* Files that are mapped need not be open. */
static bool has_mapped(int proc, unsigned want)
{
	int fd = openat(proc, "maps", O_RDONLY | O_CLOEXEC);
	FILE *f = fd >= 0 ? fdopen(fd, "re") : NULL;
	char line[8192];
	bool found = false;

	if (f == NULL && fd >= 0)
		close(fd);
	while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
		unsigned major, minor;

		found = sscanf(line, "%*s %*s %*s %x:%x", &major, &minor) == 2 && is_of_mount(major, minor, want);
	}
	if (f != NULL)
		fclose(f);
	return found;
}

static bool uses(int proc, unsigned want)
{
	return link_leads_there(proc, "cwd", want) || link_leads_there(proc, "root", want) || has_open(proc, want) ||
	       has_mapped(proc, want);
}

/* Its name, for messages. */
static void name_of(int proc, char *name, size_t size)
{
	int fd = openat(proc, "comm", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, name, size - 1) : 0;

	if (fd >= 0)
		close(fd);
	name[n > 0 ? n : 0] = '\0';
	name[strcspn(name, "\n")] = '\0';
}

void holder_users(unsigned pid, unsigned minor, char *buf, size_t size)
{
	DIR *d = opendir("/proc");
	unsigned count = 0;
	struct dirent *e;
	size_t len = 0;

	buf[0] = '\0';
	while (d != NULL && (e = readdir(d)) != NULL) {
		unsigned long other = strtoul(e->d_name, NULL, 10);
		char name[32];
		int proc;

		if (!is_number(e->d_name) || other == pid || other == (unsigned long)getpid())
			continue;
		proc = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (proc < 0)
			continue;
		if (uses(proc, minor) && ++count <= USERS_MAX) {
			name_of(proc, name, sizeof name);
			len += (size_t)snprintf(buf + len, size - len, "%s%lu (%s)", len > 0 ? ", " : "", other, name);
			if (len >= size)
				len = size - 1;
		}
		close(proc);
	}
	if (d != NULL)
		closedir(d);
	if (count > USERS_MAX)
		snprintf(buf + len, size - len, " and %u more", count - USERS_MAX);
}
