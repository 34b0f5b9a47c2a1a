/* SPDX-License-Identifier: MIT
 *
 * sysop: one system call by name, for what the shell's tools cannot ask for. Prints "ok" (or the answer) and exits 0,
 * or prints the name of the errno and exits 1.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#define HANDLE_MAX 128

static int fail(void)
{
	const char *name = strerrorname_np(errno);

	printf("%s\n", name ? name : strerror(errno));
	return 1;
}

static int done(long r)
{
	if (r < 0)
		return fail();
	printf("ok\n");
	return 0;
}

static long long number(const char *s)
{
	char *end;
	long long n = strtoll(s, &end, 0);

	switch (*end) {
	case 'k': case 'K': n <<= 10; break;
	case 'm': case 'M': n <<= 20; break;
	case 'g': case 'G': n <<= 30; break;
	case 't': case 'T': n <<= 40; break;
	case '\0': return n;
	default: break;
	}
	if (end[1] != '\0' && *end != '\0') {
		fprintf(stderr, "sysop: not a number: %s\n", s);
		exit(2);
	}
	return n;
}

static int open_or_die(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0666);

	if (fd < 0)
		exit(fail());
	return fd;
}

/* rename FLAGS OLD NEW; flags: noreplace exchange whiteout none, or a number */
static int do_rename(char **a)
{
	unsigned flags;

	if (strcmp(a[0], "noreplace") == 0)
		flags = RENAME_NOREPLACE;
	else if (strcmp(a[0], "exchange") == 0)
		flags = RENAME_EXCHANGE;
	else if (strcmp(a[0], "whiteout") == 0)
		flags = RENAME_WHITEOUT;
	else if (strcmp(a[0], "none") == 0)
		flags = 0;
	else
		flags = (unsigned)number(a[0]);
	return done(renameat2(AT_FDCWD, a[1], AT_FDCWD, a[2], flags));
}

static int do_mkdir(char **a) { return done(mkdir(a[0], 0777)); }
static int do_rmdir(char **a) { return done(rmdir(a[0])); }
static int do_unlink(char **a) { return done(unlink(a[0])); }
static int do_link(char **a) { return done(link(a[0], a[1])); }
static int do_symlink(char **a) { return done(symlink(a[0], a[1])); }
static int do_creat(char **a) { return done(open(a[0], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)); }
static int do_truncate(char **a) { return done(truncate(a[1], number(a[0]))); }
/* chown UID GID FILE; -1: as it is */
static int do_chown(char **a) { return done(chown(a[2], (uid_t)number(a[0]), (gid_t)number(a[1]))); }
static int do_chmod(char **a) { return done(chmod(a[1], (mode_t)strtoul(a[0], NULL, 8))); }

/* open FLAG,... FILE */
static int do_open(char **a)
{
	static const struct { const char *name; int flag; } flags[] = {
		{ "rdonly", O_RDONLY }, { "wronly", O_WRONLY }, { "rdwr", O_RDWR }, { "creat", O_CREAT },
		{ "excl", O_EXCL }, { "trunc", O_TRUNC }, { "direct", O_DIRECT }, { "directory", O_DIRECTORY },
		{ "nofollow", O_NOFOLLOW }, { "tmpfile", O_TMPFILE }, { "append", O_APPEND }, { "path", O_PATH },
	};
	int mode = 0;

	for (char *word = strtok(a[0], ","); word; word = strtok(NULL, ","))
		for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
			if (strcmp(word, flags[i].name) == 0)
				mode |= flags[i].flag;
	return done(open(a[1], mode | O_CLOEXEC, 0666));
}

/* fallocate keep|punch|zero|zerokeep|collapse|insert|plain OFF LEN FILE */
static int do_fallocate(char **a)
{
	static const struct { const char *name; int mode; } modes[] = {
		{ "plain", 0 }, { "keep", FALLOC_FL_KEEP_SIZE }, { "punch", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE },
		{ "zero", FALLOC_FL_ZERO_RANGE }, { "zerokeep", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE },
		{ "collapse", FALLOC_FL_COLLAPSE_RANGE }, { "insert", FALLOC_FL_INSERT_RANGE },
	};

	for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
		if (strcmp(a[0], modes[i].name) == 0)
			return done(fallocate(open_or_die(a[3], O_RDWR), modes[i].mode, number(a[1]), number(a[2])));
	return 2;
}

/* seek data|hole OFF FILE: prints the offset */
static int do_seek(char **a)
{
	off_t off = lseek(open_or_die(a[2], O_RDONLY), number(a[1]), strcmp(a[0], "data") == 0 ? SEEK_DATA : SEEK_HOLE);

	if (off < 0)
		return fail();
	printf("%lld\n", (long long)off);
	return 0;
}

/* map FILE: the data ranges, as "from-to" each */
static int do_map(char **a)
{
	int fd = open_or_die(a[0], O_RDONLY);
	off_t from = 0, to = 0;
	const char *sep = "";

	while ((from = lseek(fd, to, SEEK_DATA)) >= 0) {
		to = lseek(fd, from, SEEK_HOLE);
		if (to < 0)
			return fail();
		printf("%s%lld-%lld", sep, (long long)from, (long long)to);
		sep = " ";
	}
	if (errno != ENXIO)
		return fail();
	printf("\n");
	return 0;
}

/* copy_range SRC SRC_OFF DST DST_OFF LEN: prints the number of bytes */
static int do_copy_range(char **a)
{
	int in = open_or_die(a[0], O_RDONLY), out = open_or_die(a[2], O_RDWR | O_CREAT);
	off_t in_off = number(a[1]), out_off = number(a[3]);
	long long left = number(a[4]), all = 0;

	while (left > 0) {
		ssize_t n = copy_file_range(in, &in_off, out, &out_off, (size_t)left, 0);

		if (n < 0)
			return fail();
		if (n == 0)
			break;
		left -= n;
		all += n;
	}
	printf("%lld\n", all);
	return 0;
}

/* pwrite FILE OFF TEXT */
static int do_pwrite(char **a)
{
	size_t len = strlen(a[2]);
	ssize_t n = pwrite(open_or_die(a[0], O_WRONLY | O_CREAT), a[2], len, number(a[1]));

	if (n >= 0 && (size_t)n != len) {
		printf("short\n");
		return 1;
	}
	return done(n);
}

/* handle_save PATH OUT: the file handle, for handle_cat after a remount */
static int do_handle_save(char **a)
{
	union { struct file_handle h; char bytes[sizeof(struct file_handle) + HANDLE_MAX]; } u = { 0 };
	int mount_id, fd = open_or_die(a[1], O_WRONLY | O_CREAT | O_TRUNC);

	u.h.handle_bytes = HANDLE_MAX;
	if (name_to_handle_at(AT_FDCWD, a[0], &u.h, &mount_id, 0) < 0)
		return fail();
	return done(write(fd, u.bytes, sizeof u.h + u.h.handle_bytes));
}

/* handle_cat MOUNT SAVED: contents of the file the handle means; of a directory, its names */
static int do_handle_cat(char **a)
{
	union { struct file_handle h; char bytes[sizeof(struct file_handle) + HANDLE_MAX]; } u;
	int in = open_or_die(a[1], O_RDONLY), root = open_or_die(a[0], O_RDONLY | O_DIRECTORY), fd;
	struct stat st;
	char buf[65536];
	ssize_t n;

	if (read(in, u.bytes, sizeof u) < (ssize_t)sizeof u.h)
		return 2;
	fd = open_by_handle_at(root, &u.h, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fail();
	if (S_ISDIR(st.st_mode)) {
		DIR *d = fdopendir(fd);

		for (struct dirent *e; d && (e = readdir(d)) != NULL;)
			printf("%s\n", e->d_name);
		return 0;
	}
	while ((n = read(fd, buf, sizeof buf)) > 0)
		fwrite(buf, 1, (size_t)n, stdout);
	return n < 0 ? fail() : 0;
}

/* mknod MODE(octal, with type) MAJOR MINOR PATH */
static int do_mknod(char **a)
{
	return done(mknod(a[3], (mode_t)strtoul(a[0], NULL, 8),
			  makedev((unsigned)number(a[1]), (unsigned)number(a[2]))));
}

/* socket PATH: bind, listen, talk over it once */
static int do_socket(char **a)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(a[0]) >= sizeof addr.sun_path) {
		errno = ENAMETOOLONG;
		return fail();
	}
	strcpy(addr.sun_path, a[0]);
	if (bind(server, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(server, 1) < 0)
		return fail();
	return done(connect(client, (struct sockaddr *)&addr, sizeof addr));
}

/* utimens PATH ATIME_S ATIME_NS MTIME_S MTIME_NS (not followed); ns may be "now" or "omit" */
static long time_ns(const char *s)
{
	if (strcmp(s, "now") == 0)
		return UTIME_NOW;
	if (strcmp(s, "omit") == 0)
		return UTIME_OMIT;
	return (long)number(s);
}

static int do_utimens(char **a)
{
	struct timespec t[2] = { { number(a[1]), time_ns(a[2]) }, { number(a[3]), time_ns(a[4]) } };

	return done(utimensat(AT_FDCWD, a[0], t, AT_SYMLINK_NOFOLLOW));
}

/* times PATH: atime mtime ctime, as seconds.nanoseconds */
static int do_times(char **a)
{
	struct stat st;

	if (lstat(a[0], &st) < 0)
		return fail();
	printf("%lld.%09ld %lld.%09ld %lld.%09ld\n", (long long)st.st_atim.tv_sec, st.st_atim.tv_nsec,
	       (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
	return 0;
}

/* fsync PATH, fdatasync PATH, syncfs PATH */
static int do_fsync(char **a) { return done(fsync(open_or_die(a[0], O_RDONLY))); }
static int do_fdatasync(char **a) { return done(fdatasync(open_or_die(a[0], O_RDONLY))); }
static int do_syncfs(char **a) { return done(syncfs(open_or_die(a[0], O_RDONLY))); }

/* setxattr create|replace|any NAME SIZE PATH: a value of SIZE bytes in a pattern; getxattr NAME PATH checks it */
static int do_setxattr(char **a)
{
	size_t size = (size_t)number(a[2]);
	char *value = malloc(size + 1);
	int flags = strcmp(a[0], "create") == 0 ? XATTR_CREATE : strcmp(a[0], "replace") == 0 ? XATTR_REPLACE : 0;

	if (!value)
		return 2;
	for (size_t i = 0; i < size; i++)
		value[i] = (char)(i * 7 + i / 256);
	return done(lsetxattr(a[3], a[1], value, size, flags));
}

static int do_getxattr(char **a)
{
	static unsigned char value[1 << 20];
	ssize_t n = lgetxattr(a[1], a[0], value, sizeof value);

	if (n < 0)
		return fail();
	for (ssize_t i = 0; i < n; i++)
		if (value[i] != (unsigned char)(i * 7 + i / 256)) {
			printf("differs at %zd\n", i);
			return 1;
		}
	printf("%zd\n", n);
	return 0;
}

static int do_rmxattr(char **a) { return done(lremovexattr(a[1], a[0])); }

/* xattr_many COUNT PATH: set COUNT names, list them all, read them all, remove every other one, list again */
static int do_xattr_many(char **a)
{
	static char list[1 << 20];
	int count = (int)number(a[0]), seen = 0;
	char name[64], value[64], back[64];
	ssize_t n;

	for (int i = 0; i < count; i++) {
		snprintf(name, sizeof name, "user.name-%05d", i);
		snprintf(value, sizeof value, "value %d", i);
		if (setxattr(a[1], name, value, strlen(value), XATTR_CREATE) < 0)
			return fail();
	}
	n = listxattr(a[1], list, sizeof list);
	if (n < 0)
		return fail();
	for (char *p = list; p < list + n; p += strlen(p) + 1)
		seen += strncmp(p, "user.name-", 10) == 0;
	for (int i = 0; i < count; i++) {
		snprintf(name, sizeof name, "user.name-%05d", i);
		snprintf(value, sizeof value, "value %d", i);
		n = getxattr(a[1], name, back, sizeof back);
		if (n != (ssize_t)strlen(value) || memcmp(value, back, (size_t)n) != 0) {
			printf("%s: wrong value\n", name);
			return 1;
		}
		if (i % 2 && removexattr(a[1], name) < 0)
			return fail();
	}
	n = listxattr(a[1], list, sizeof list);
	if (n < 0)
		return fail();
	for (char *p = list; p < list + n; p += strlen(p) + 1)
		seen -= strncmp(p, "user.name-", 10) == 0;
	printf("%d\n", seen);   /* all of them, less the half that is left */
	return 0;
}

/* statfs PATH: total, free and available bytes, names */
static int do_statfs(char **a)
{
	struct statvfs s;

	if (statvfs(a[0], &s) < 0)
		return fail();
	printf("%llu %llu %llu %lu\n", (unsigned long long)s.f_blocks * s.f_frsize,
	       (unsigned long long)s.f_bfree * s.f_frsize, (unsigned long long)s.f_bavail * s.f_frsize, s.f_namemax);
	return 0;
}

/* unlinked DIR: a file that is removed while open goes on working, also with links, truncation and mmap */
static int do_unlinked(char **a)
{
	char path[4096], buf[16];
	struct stat st;
	char *map;
	int fd;

	snprintf(path, sizeof path, "%s/gone", a[0]);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, "before", 6) != 6 || unlink(path) < 0)
		return fail();
	if (access(path, F_OK) == 0 || errno != ENOENT) {
		printf("still there\n");
		return 1;
	}
	if (pwrite(fd, "after", 5, 100000) != 5 || pread(fd, buf, 6, 0) != 6 || memcmp(buf, "before", 6) != 0 ||
	    fstat(fd, &st) < 0)
		return fail();
	if (st.st_nlink != 0 || st.st_size != 100005) {
		printf("nlink %lu size %lld\n", (unsigned long)st.st_nlink, (long long)st.st_size);
		return 1;
	}
	map = mmap(NULL, 100005, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return fail();
	if (memcmp(map + 100000, "after", 5) != 0) {
		printf("mapping differs\n");
		return 1;
	}
	map[50000] = 'x';
	if (munmap(map, 100005) < 0 || fsync(fd) < 0 || pread(fd, buf, 1, 50000) != 1 || buf[0] != 'x' ||
	    ftruncate(fd, 3) < 0 || fchmod(fd, 0644) < 0 || fstat(fd, &st) < 0 || st.st_size != 3)
		return fail();
	return done(close(fd));
}

/* hold DIR SECONDS: keep an unlinked file open; prints "held" when it is */
static int do_hold(char **a)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof path, "%s/held", a[0]);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, 1 << 20) < 0 || pwrite(fd, "x", 1, 4096) != 1 || unlink(path) < 0)
		return fail();
	printf("held\n");
	fflush(stdout);
	sleep((unsigned)number(a[1]));
	return 0;
}

static void on_bus(int sig)
{
	static const char text[] = "SIGBUS\n";

	(void)sig;
	if (write(STDOUT_FILENO, text, sizeof text - 1) < 0)
		_exit(2);
	_exit(0);
}

/* mapped FILE: says "mapped", then reads its first byte through a mapping until that is a SIGBUS, which it says */
static int do_mapped(char **a)
{
	int fd = open_or_die(a[0], O_RDONLY);
	volatile const char *map = mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return fail();
	signal(SIGBUS, on_bus);
	for (unsigned n = 0;; n++) {
		(void)map[0];
		if (n == 0) {
			printf("mapped\n");
			fflush(stdout);
		}
		usleep(20000);
	}
}

/* direct FILE SIZE: O_DIRECT writes and reads, aligned; compared with what the page cache sees */
static int do_direct(char **a)
{
	size_t size = (size_t)number(a[1]);
	unsigned char *out, *back;
	int fd = open_or_die(a[0], O_RDWR | O_CREAT | O_DIRECT), plain = open_or_die(a[0], O_RDONLY);

	if (posix_memalign((void **)&out, 4096, size) || posix_memalign((void **)&back, 4096, size))
		return 2;
	for (size_t i = 0; i < size; i++)
		out[i] = (unsigned char)(i * 31 + i / 4096);
	if (pwrite(fd, out, size, 0) != (ssize_t)size || pread(fd, back, size, 0) != (ssize_t)size)
		return fail();
	if (memcmp(out, back, size) != 0) {
		printf("direct read differs\n");
		return 1;
	}
	if (pread(plain, back, size, 0) != (ssize_t)size || memcmp(out, back, size) != 0) {
		printf("cached read differs\n");
		return 1;
	}
	memset(out, 'y', 4096);     /* the cached page must not hide a direct write */
	if (pwrite(fd, out, 4096, 0) != 4096 || pread(plain, back, 4096, 0) != 4096 || memcmp(out, back, 4096) != 0) {
		printf("cached read is stale\n");
		return 1;
	}
	return done(0);
}

static const struct {
	const char *name;
	int args;
	int (*run)(char **args);
} ops[] = {
	{ "rename", 3, do_rename }, { "mkdir", 1, do_mkdir }, { "rmdir", 1, do_rmdir }, { "unlink", 1, do_unlink },
	{ "link", 2, do_link }, { "symlink", 2, do_symlink }, { "creat", 1, do_creat }, { "truncate", 2, do_truncate },
	{ "chmod", 2, do_chmod }, { "chown", 3, do_chown }, { "open", 2, do_open }, { "fallocate", 4, do_fallocate }, { "seek", 3, do_seek },
	{ "map", 1, do_map }, { "copy_range", 5, do_copy_range }, { "pwrite", 3, do_pwrite },
	{ "handle_save", 2, do_handle_save }, { "handle_cat", 2, do_handle_cat }, { "mknod", 4, do_mknod },
	{ "socket", 1, do_socket }, { "utimens", 5, do_utimens }, { "times", 1, do_times }, { "fsync", 1, do_fsync },
	{ "fdatasync", 1, do_fdatasync }, { "syncfs", 1, do_syncfs }, { "setxattr", 4, do_setxattr },
	{ "getxattr", 2, do_getxattr }, { "rmxattr", 2, do_rmxattr }, { "xattr_many", 2, do_xattr_many },
	{ "statfs", 1, do_statfs }, { "unlinked", 1, do_unlinked }, { "hold", 2, do_hold }, { "direct", 2, do_direct },
	{ "mapped", 1, do_mapped },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof ops / sizeof ops[0]; i++)
		if (strcmp(argv[1], ops[i].name) == 0 && argc == ops[i].args + 2)
			return ops[i].run(argv + 2);
	fprintf(stderr, "usage: sysop OPERATION ARGUMENT...; operations:");
	for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
		fprintf(stderr, " %s/%d", ops[i].name, ops[i].args);
	fprintf(stderr, "\n");
	return 2;
}
