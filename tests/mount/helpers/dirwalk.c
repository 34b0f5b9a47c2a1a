/* SPDX-License-Identifier: MIT
 *
 * dirwalk: what readdir promises.
 *
 *   dirwalk names DIR            the names, as readdir gives them, NUL-free and one a line (also "." and "..")
 *   dirwalk seek DIR SEED        telldir and seekdir: every remembered place leads to the same entry
 *   dirwalk stable DIR           entries keep-* are each seen exactly once while churn-* come and go
 *   dirwalk purge DIR            unlink while reading, as rm -r does; then the directory is empty
 *   dirwalk types DIR            d_type and d_ino agree with lstat
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ENTRIES_MAX 100000

static int die(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	exit(1);
}

static DIR *open_dir(const char *path)
{
	DIR *d = opendir(path);

	if (!d)
		die(path);
	return d;
}

static int walk_names(const char *path)
{
	DIR *d = open_dir(path);

	for (struct dirent *e; (e = readdir(d)) != NULL;)
		printf("%s\n", e->d_name);
	return closedir(d);
}

static int walk_seek(const char *path, unsigned seed)
{
	static struct { long at; char *name; } seen[ENTRIES_MAX];
	DIR *d = open_dir(path);
	struct dirent *e;
	int count = 0;

	for (;;) {
		long at = telldir(d);

		e = readdir(d);
		if (!e || count == ENTRIES_MAX)
			break;
		seen[count].at = at;
		seen[count++].name = strdup(e->d_name);
	}
	srand(seed);
	for (int i = 0; i < 2000; i++) {
		int n = rand() % count;

		seekdir(d, seen[n].at);
		for (int j = 0; j < 3 && n + j < count; j++) {
			e = readdir(d);
			if (!e || strcmp(e->d_name, seen[n + j].name) != 0) {
				printf("seek to %ld: got %s, want %s\n", seen[n].at, e ? e->d_name : "the end", seen[n + j].name);
				return 1;
			}
		}
	}
	rewinddir(d);
	e = readdir(d);
	if (!e || strcmp(e->d_name, seen[0].name) != 0) {
		printf("rewinddir does not lead to the start\n");
		return 1;
	}
	return closedir(d);
}

static void churn(const char *path)
{
	char name[4096];
	int fd;

	for (unsigned i = 0;; i++) {
		snprintf(name, sizeof name, "%s/churn-%u", path, i % 977);
		if (i / 977 % 2) {
			unlink(name);
		} else {
			fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
			if (fd >= 0)
				close(fd);
		}
	}
}

static int walk_once(const char *path, int keep)
{
	static unsigned char seen[ENTRIES_MAX];
	DIR *d = open_dir(path);
	unsigned n;
	int total = 0;

	memset(seen, 0, sizeof seen);
	for (struct dirent *e; (e = readdir(d)) != NULL;) {
		if (sscanf(e->d_name, "keep-%u", &n) != 1 || n >= ENTRIES_MAX)
			continue;
		total++;
		if (seen[n]++) {
			printf("keep-%u was seen twice\n", n);
			return 1;
		}
	}
	closedir(d);
	if (total != keep) {
		printf("%d entries seen, %d are there\n", total, keep);
		return 1;
	}
	return 0;
}

static int walk_stable(const char *path)
{
	DIR *d = open_dir(path);
	int keep = 0, bad = 0;
	pid_t child;

	for (struct dirent *e; (e = readdir(d)) != NULL;)
		keep += strncmp(e->d_name, "keep-", 5) == 0;
	closedir(d);
	child = fork();
	if (child == 0) {
		churn(path);
		_exit(0);
	}
	for (int i = 0; i < 30 && !bad; i++)
		bad = walk_once(path, keep);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return bad;
}

static int walk_purge(const char *path)
{
	char name[8192];
	int left = 0;
	DIR *d = open_dir(path);

	for (struct dirent *e; (e = readdir(d)) != NULL;) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		snprintf(name, sizeof name, "%s/%s", path, e->d_name);
		if (unlink(name) < 0)
			die(name);
	}
	closedir(d);
	d = open_dir(path);
	for (struct dirent *e; (e = readdir(d)) != NULL;)
		left += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
	closedir(d);
	if (left)
		printf("%d entries are left\n", left);
	return left != 0;
}

static int walk_types(const char *path)
{
	DIR *d = open_dir(path);
	struct stat st;
	int bad = 0;

	for (struct dirent *e; (e = readdir(d)) != NULL;) {
		if (strcmp(e->d_name, "..") == 0)
			continue;       /* of a mount's root it lies outside */
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			die(e->d_name);
		if (e->d_type != IFTODT(st.st_mode) || e->d_ino != st.st_ino) {
			printf("%s: type %d ino %lu, lstat says %d and %lu\n", e->d_name, e->d_type, (unsigned long)e->d_ino,
			       IFTODT(st.st_mode), (unsigned long)st.st_ino);
			bad = 1;
		}
	}
	closedir(d);
	return bad;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	if (strcmp(what, "names") == 0)
		return walk_names(argv[2]);
	if (strcmp(what, "seek") == 0 && argc == 4)
		return walk_seek(argv[2], (unsigned)atoi(argv[3]));
	if (strcmp(what, "stable") == 0)
		return walk_stable(argv[2]);
	if (strcmp(what, "purge") == 0)
		return walk_purge(argv[2]);
	if (strcmp(what, "types") == 0)
		return walk_types(argv[2]);
	fprintf(stderr, "usage: dirwalk names|stable|purge|types DIR | seek DIR SEED\n");
	return 2;
}
