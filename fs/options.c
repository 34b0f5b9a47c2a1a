/* SPDX-License-Identifier: MIT
 *
 * options: see options.h.
 */
#include "fs/options.h"

#include "core/replica/net.h"
#include "fs/cmd.h"
#include "fs/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum option_id {
	OPT_HELP, OPT_FOREGROUND, OPT_DEBUG, OPT_WORDS, OPT_SIZE, OPT_SYNC_INTERVAL, OPT_WRITEBACK,
	OPT_LISTEN, OPT_FROM, OPT_KEY_FILE, OPT_JOURNAL_KEEP, OPT_ON_DISCONNECT, OPT_FSYNC, OPT_MAX_STALE, OPT_REPLACE, OPT_LOCKS, OPT_INOTIFY,
	OPT_RO, OPT_RW, OPT_SYNC, OPT_ASYNC, OPT_DIRSYNC,
	OPT_NOATIME, OPT_RELATIME, OPT_STRICTATIME, OPT_NODIRATIME, OPT_DIRATIME, OPT_NOXATTR,
	OPT_SUID, OPT_NOSUID, OPT_DEV, OPT_NODEV, OPT_EXEC, OPT_NOEXEC, OPT_SYMFOLLOW, OPT_NOSYMFOLLOW, OPT_USER,
	OPT_ALLOW_OTHER, OPT_NOALLOW_OTHER, OPT_KERNEL, OPT_REMOUNT, OPT_IGNORE,
};

/* Where an option may stand. */
enum { AT_LONG = 1, AT_WORD = 2, AT_BOTH = 3 };

static const struct option_def {
	const char *name;
	char letter;            /* 0: none */
	int at;
	enum option_id id;
	const char *arg;        /* NULL: none; "": accepted and ignored */
	const char *help;       /* NULL: not shown */
} option_defs[] = {
	{ "foreground", 'f', AT_BOTH, OPT_FOREGROUND, NULL,
	  "stay in the foreground, log to standard error" },
	{ "debug", 'd', AT_BOTH, OPT_DEBUG, NULL, "as -f, and show every request" },
	{ "options", 'o', AT_LONG, OPT_WORDS, "OPTION,...", "mount options, see below" },
	{ "size", 0, AT_BOTH, OPT_SIZE, "BYTES[K|M|G|T]",
	  "most the store may grow to (default: the disk)" },
	{ "sync-interval", 0, AT_BOTH, OPT_SYNC_INTERVAL, "SECONDS",
	  "write changes to disk this often (default 5; 0: only when asked)" },
	{ "writeback", 0, AT_BOTH, OPT_WRITEBACK, NULL,
	  "let the kernel hold back writes: faster, but kill -9 may lose them" },
	{ "listen", 0, AT_BOTH, OPT_LISTEN, "[ADDR][:PORT]",
	  "accept remote mounts (default: all addresses, port 6796)" },
	{ "from", 0, AT_BOTH, OPT_FROM, "ADDR[:PORT]",
	  "be a remote mount of that primary; STORE is the replica" },
	{ "key-file", 0, AT_BOTH, OPT_KEY_FILE, "FILE",
	  "the shared secret, see msyncfs keygen" },
	{ "help", 'h', AT_LONG, OPT_HELP, NULL, "show this" },

	{ "ro", 'r', AT_WORD, OPT_RO, NULL, "read-only; the store file is not written" },
	{ "rw", 'w', AT_WORD, OPT_RW, NULL, "read and write (default)" },
	{ "sync", 0, AT_WORD, OPT_SYNC, NULL, "every change is on disk before it returns" },
	{ "async", 0, AT_WORD, OPT_ASYNC, NULL, "changes are on disk when synced (default)" },
	{ "dirsync", 0, AT_WORD, OPT_DIRSYNC, NULL,
	  "changes of names are on disk before they return" },
	{ "noatime", 0, AT_WORD, OPT_NOATIME, NULL, "reading does not change the access time" },
	{ "relatime", 0, AT_WORD, OPT_RELATIME, NULL,
	  "the access time changes when it would matter (default)" },
	{ "strictatime", 0, AT_WORD, OPT_STRICTATIME, NULL, "each read changes the access time" },
	{ "nodiratime", 0, AT_WORD, OPT_NODIRATIME, NULL, "noatime for directories" },
	{ "noxattr", 0, AT_WORD, OPT_NOXATTR, NULL,
	  "no extended attributes and ACLs: one request less to write a new file" },
	{ "journal-keep", 0, AT_WORD, OPT_JOURNAL_KEEP, "SIZE|TIME",
	  "changes kept for replicas that come back, as 256M or 10min (default 64M)" },
	{ "on-disconnect", 0, AT_WORD, OPT_ON_DISCONNECT, "wait:SECONDS|readonly|error",
	  "changes of a remote mount without its primary (default wait:10, then EROFS)" },
	{ "fsync", 0, AT_WORD, OPT_FSYNC, "primary|replicas=N|all",
	  "disks that fsync waits for: the primary's (default), and those of N replicas, or of all in step" },
	{ "max-stale", 0, AT_WORD, OPT_MAX_STALE, "SECONDS",
	  "a remote mount is not read (ESTALE) when its state is older than that" },
	{ "locks", 0, AT_WORD, OPT_LOCKS, "cluster|local",
	  "flock and fcntl locks hold on all machines (default with listen or from), or on this one" },
	{ "replace", 0, AT_WORD, OPT_REPLACE, NULL,
	  "STORE may become a replica although it has other files (they are dumped first)" },
	{ "inotify", 0, AT_WORD, OPT_INOTIFY, NULL,
	  "changes made on other machines are told to inotify watchers (experimental)" },
	{ "suid", 0, AT_WORD, OPT_SUID, NULL, "set-user-ID bits count (default when root mounts)" },
	{ "nosuid", 0, AT_WORD, OPT_NOSUID, NULL, "they do not" },
	{ "dev", 0, AT_WORD, OPT_DEV, NULL, "device nodes work (default when root mounts)" },
	{ "nodev", 0, AT_WORD, OPT_NODEV, NULL, "they do not" },
	{ "exec", 0, AT_WORD, OPT_EXEC, NULL, "programs can be run (default)" },
	{ "noexec", 0, AT_WORD, OPT_NOEXEC, NULL, "they cannot" },
	{ "symfollow", 0, AT_WORD, OPT_SYMFOLLOW, NULL, "symbolic links are followed (default)" },
	{ "nosymfollow", 0, AT_WORD, OPT_NOSYMFOLLOW, NULL, "they are not; only root can mount so" },
	{ "allow_other", 0, AT_WORD, OPT_ALLOW_OTHER, NULL,
	  "other users may use it (default when root mounts)" },
	{ "noallow_other", 0, AT_WORD, OPT_NOALLOW_OTHER, NULL, "only who mounts may use it" },

	{ "atime", 0, AT_WORD, OPT_RELATIME, NULL, NULL },
	{ "norelatime", 0, AT_WORD, OPT_RELATIME, NULL, NULL },
	{ "nostrictatime", 0, AT_WORD, OPT_RELATIME, NULL, NULL },
	{ "diratime", 0, AT_WORD, OPT_DIRATIME, NULL, NULL },
	{ "user", 0, AT_WORD, OPT_USER, "", NULL },
	{ "users", 0, AT_WORD, OPT_USER, NULL, NULL },
	{ "owner", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "group", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "context", 0, AT_WORD, OPT_KERNEL, "LABEL", NULL },
	{ "fscontext", 0, AT_WORD, OPT_KERNEL, "LABEL", NULL },
	{ "defcontext", 0, AT_WORD, OPT_KERNEL, "LABEL", NULL },
	{ "rootcontext", 0, AT_WORD, OPT_KERNEL, "LABEL", NULL },
	{ "remount", 0, AT_WORD, OPT_REMOUNT, NULL, NULL },
	{ "defaults", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "auto", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "noauto", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "nouser", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "nousers", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "noowner", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "nogroup", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "nofail", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "fail", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "_netdev", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "comment", 0, AT_WORD, OPT_IGNORE, "", NULL },
	{ "uhelper", 0, AT_WORD, OPT_IGNORE, "", NULL },
	{ "helper", 0, AT_WORD, OPT_IGNORE, "", NULL },
	{ "iversion", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "noiversion", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "mand", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "nomand", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "lazytime", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "nolazytime", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "silent", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "loud", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "nonempty", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	{ "default_permissions", 0, AT_WORD, OPT_IGNORE, NULL, NULL },
	/* What fuse shows in the mount table, and mount(8) takes from there for a remount. */
	{ "user_id", 0, AT_WORD, OPT_IGNORE, "", NULL },
	{ "group_id", 0, AT_WORD, OPT_IGNORE, "", NULL },
	{ "max_read", 0, AT_WORD, OPT_IGNORE, "", NULL },
	{ "blksize", 0, AT_WORD, OPT_IGNORE, "", NULL },
};

#define OPTION_COUNT (sizeof option_defs / sizeof option_defs[0])

static int usage(const char *what, const char *why)
{
	log_error("%s: %s: see msyncfs mount --help", what, why);
	return EXIT_USAGE;
}

bool options_parse_bytes(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KkMmGgTt";
	unsigned long long n;
	unsigned shift = 0;
	const char *unit;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno != 0)
		return false;
	if (*end != '\0') {
		unit = strchr(units, *end);
		if (unit == NULL || end[1] != '\0')
			return false;
		shift = 10 * ((unsigned)(unit - units) / 2 + 1);
	}
	if (n > ((unsigned long long)INT64_MAX >> shift))
		return false;
	*ret_bytes = (uint64_t)n << shift;
	return true;
}

static bool parse_seconds(const char *text, unsigned *ret_seconds)
{
	unsigned long n;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	n = strtoul(text, &end, 10);
	if (errno != 0 || *end != '\0' || n > 86400)
		return false;
	*ret_seconds = (unsigned)n;
	return true;
}

/* Add a word for the kernel. Commas in its value are protected twice: by backslashes, which libfuse
 * takes away, and by quotes for the kernel. */
static bool add_kernel_word(struct options *o, const char *name, const char *value)
{
	bool quote = strchr(value, ',') != NULL;
	size_t have = o->kernel != NULL ? strlen(o->kernel) : 0;
	char *p = realloc(o->kernel, have + strlen(name) + 2 * strlen(value) + 5);

	if (p == NULL)
		return false;
	o->kernel = p;
	p += have;
	*p++ = ',';
	p = stpcpy(stpcpy(p, name), quote ? "=\"" : "=");
	for (; *value != '\0'; value++) {
		if (*value == ',' || *value == '\\')
			*p++ = '\\';
		*p++ = *value;
	}
	if (quote)
		*p++ = '"';
	*p = '\0';
	return true;
}

/* Options that are a switch only. False: this is not one. */
static bool set_switch(struct options *o, enum option_id id)
{
	switch (id) {
	case OPT_HELP:          o->help = true; return true;
	case OPT_DEBUG:         o->debug = true; /* fall through */
	case OPT_FOREGROUND:    o->foreground = true; return true;
	case OPT_WRITEBACK:     o->writeback = true; return true;
	case OPT_RO:            o->read_only = true; return true;
	case OPT_RW:            o->read_only = false; return true;
	case OPT_SYNC:          o->sync = true; return true;
	case OPT_ASYNC:         o->sync = false; return true;
	case OPT_DIRSYNC:       o->dirsync = true; return true;
	case OPT_NOATIME:       o->atime = KEYS_NOATIME; return true;
	case OPT_RELATIME:      o->atime = KEYS_RELATIME; return true;
	case OPT_STRICTATIME:   o->atime = KEYS_STRICTATIME; return true;
	case OPT_NOXATTR:       o->noxattr = true; return true;
	case OPT_NODIRATIME:    o->nodiratime = true; return true;
	case OPT_DIRATIME:      o->nodiratime = false; return true;
	case OPT_SUID:          o->nosuid = false; return true;
	case OPT_NOSUID:        o->nosuid = true; return true;
	case OPT_DEV:           o->nodev = false; return true;
	case OPT_NODEV:         o->nodev = true; return true;
	case OPT_EXEC:          o->noexec = false; return true;
	case OPT_NOEXEC:        o->noexec = true; return true;
	case OPT_SYMFOLLOW:     o->nosymfollow = false; return true;
	case OPT_NOSYMFOLLOW:   o->nosymfollow = true; return true;
	/* mount(8): a mount that users may do is none of these unless said so behind it. */
	case OPT_USER:          o->nosuid = o->nodev = o->noexec = true; return true;
	case OPT_ALLOW_OTHER:   o->allow_other = true; return true;
	case OPT_NOALLOW_OTHER: o->allow_other = false; return true;
	case OPT_REPLACE:       o->replace = true; return true;
	case OPT_INOTIFY:       o->inotify = true; return true;
	case OPT_REMOUNT:       o->remount = true; return true;
	case OPT_IGNORE:        return true;
	default:                return false;
	}
}

static int set_text(char **to, const char *value)
{
	free(*to);
	*to = strdup(value);
	if (*to != NULL)
		return 0;
	log_error("out of memory: free some");
	return EXIT_FAILED;
}

/* SIZE, or a time: a number and s, min or h. */
static bool parse_keep(struct options *o, const char *value)
{
	static const struct { const char *unit; unsigned seconds; } units[] = { { "s", 1 }, { "min", 60 }, { "h", 3600 } };
	size_t digits = strspn(value, "0123456789");
	char number[12];
	unsigned n;

	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
		if (digits == 0 || digits >= sizeof number || strcmp(value + digits, units[i].unit) != 0)
			continue;
		snprintf(number, sizeof number, "%.*s", (int)digits, value);
		if (!parse_seconds(number, &n) || n > 86400 / units[i].seconds)
			return false;
		o->keep_s = n * units[i].seconds;
		/* What is kept for its age is bounded by memory all the same. */
		o->keep_bytes = (uint64_t)1 << 30;
		return true;
	}
	o->keep_s = 0;
	return options_parse_bytes(value, &o->keep_bytes);
}

static bool parse_disconnect(struct options *o, const char *value)
{
	o->wait_s = 0;
	if (strcmp(value, "readonly") == 0)
		o->on_disconnect = REPLICA_READONLY;
	else if (strcmp(value, "error") == 0)
		o->on_disconnect = REPLICA_ERROR;
	else if (strncmp(value, "wait:", 5) == 0 && parse_seconds(value + 5, &o->wait_s))
		o->on_disconnect = REPLICA_WAIT;
	else
		return false;
	return true;
}

static bool parse_fsync(struct options *o, const char *value)
{
	unsigned n = 0;

	if (strcmp(value, "primary") == 0)
		o->sync_replicas = 0;
	else if (strcmp(value, "all") == 0)
		o->sync_replicas = PRIMARY_SYNC_ALL;
	else if (strncmp(value, "replicas=", 9) == 0 && parse_seconds(value + 9, &n) && n > 0 && n <= PRIMARY_PEERS_MAX)
		o->sync_replicas = n;
	else
		return false;
	return true;
}

static bool parse_locks(struct options *o, const char *value)
{
	o->local_locks = strcmp(value, "local") == 0;
	o->cluster_locks = strcmp(value, "cluster") == 0;
	return o->local_locks || o->cluster_locks;
}

unsigned options_sync_wait_ms(const struct options *o)
{
	return (o->wait_s > 0 ? o->wait_s : 10) * 1000;
}

bool options_cluster_locks(const struct options *o)
{
	return (o->listen != NULL || o->from != NULL) && !o->local_locks && !o->read_only;
}

static int set_remote(struct options *o, enum option_id id, const char *value)
{
	switch (id) {
	case OPT_LISTEN:
		return set_text(&o->listen, value);
	case OPT_FROM:
		return set_text(&o->from, value);
	case OPT_KEY_FILE:
		return set_text(&o->key_file, value);
	case OPT_JOURNAL_KEEP:
		return parse_keep(o, value) ? 0 : usage(value, "journal-keep is no size or time, as 256M or 10min");
	case OPT_MAX_STALE:
		return parse_seconds(value, &o->max_stale_s) && o->max_stale_s > 0 ?
			       0 : usage(value, "max-stale is not a number of seconds from 1 to 86400");
	case OPT_FSYNC:
		return parse_fsync(o, value) ? 0 : usage(value, "fsync is primary, replicas=N (N from 1 to 128) or all");
	case OPT_LOCKS:
		return parse_locks(o, value) ? 0 : usage(value, "locks is cluster or local");
	default:
		return parse_disconnect(o, value) ? 0 : usage(value, "on-disconnect is wait:SECONDS, readonly or error");
	}
}

static int option_words(struct options *o, const char *list);

static int set_option(struct options *o, const struct option_def *def, const char *value)
{
	bool takes_value = def->arg != NULL && *def->arg != '\0';

	/* Both its parts have a default. */
	if (def->id == OPT_LISTEN && (value == NULL || *value == '\0'))
		value = ":" NET_PORT;
	if (takes_value && (value == NULL || *value == '\0'))
		return usage(def->name, "needs a value");
	if (value != NULL && def->arg == NULL)
		return usage(def->name, "takes no value");
	if (set_switch(o, def->id))
		return 0;
	if (value == NULL)
		value = "";
	switch (def->id) {
	case OPT_WORDS:
		return option_words(o, value);
	case OPT_SIZE:
		if (!options_parse_bytes(value, &o->size_bytes))
			return usage(value, "size is not a number of bytes, as 512M or 10G");
		return 0;
	case OPT_SYNC_INTERVAL:
		if (!parse_seconds(value, &o->sync_interval_s))
			return usage(value,
				     "sync-interval is not a number of seconds from 0 to 86400");
		return 0;
	case OPT_KERNEL:
		if (add_kernel_word(o, def->name, value))
			return 0;
		log_error("out of memory: free some");
		return EXIT_FAILED;
	default:
		return set_remote(o, def->id, value);
	}
}

static const struct option_def *find_option(const char *name, size_t len, int at)
{
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		const struct option_def *def = &option_defs[i];

		if ((def->at & at) != 0 && strncmp(def->name, name, len) == 0 &&
		    def->name[len] == '\0')
			return def;
	}
	return NULL;
}

/* One word of -o. */
static int option_word(struct options *o, const char *word)
{
	const char *value = strchr(word, '=');
	size_t len = value != NULL ? (size_t)(value - word) : strlen(word);
	const struct option_def *def;

	/* Comments for other programs, as x-systemd.automount. */
	if (*word == '\0' || strncmp(word, "x-", 2) == 0 || strncmp(word, "X-", 2) == 0)
		return 0;
	def = find_option(word, len, AT_WORD);
	if (def == NULL)
		return usage(word, "unknown mount option");
	return set_option(o, def, value != NULL ? value + 1 : NULL);
}

/* All words of -o, parted by commas; a backslash takes the next character as it is, as do double
 * quotes. */
static int option_words(struct options *o, const char *list)
{
	char *word = malloc(strlen(list) + 1);
	bool quoted = false;
	size_t len = 0;
	int r = 0;

	if (word == NULL) {
		log_error("out of memory: free some");
		return EXIT_FAILED;
	}
	for (const char *p = list; r == 0; p++) {
		if (*p == '\0' || (*p == ',' && !quoted)) {
			word[len] = '\0';
			len = 0;
			r = option_word(o, word);
			if (*p == '\0')
				break;
		} else if (*p == '"') {
			quoted = !quoted;
		} else {
			if (*p == '\\' && p[1] != '\0')
				p++;
			word[len++] = *p;
		}
	}
	free(word);
	return r;
}

/* --name, --name=value, --name value (but listen, which needs none). *i is moved to the last argument that was used. */
static int option_long(struct options *o, int argc, char **argv, int *i)
{
	const char *name = argv[*i] + 2;
	const char *value = strchr(name, '=');
	size_t len = value != NULL ? (size_t)(value - name) : strlen(name);
	const struct option_def *def = find_option(name, len, AT_LONG);

	if (def == NULL)
		return usage(argv[*i], "unknown option");
	if (value != NULL)
		value++;
	else if (def->arg != NULL && def->id != OPT_LISTEN && *i + 1 < argc)
		value = argv[++*i];
	return set_option(o, def, value);
}

/* -fd, -o list, -olist. */
static int option_letters(struct options *o, int argc, char **argv, int *i)
{
	const char *arg = argv[*i];
	int r = 0;

	for (const char *p = arg + 1; *p != '\0' && r == 0; p++) {
		const struct option_def *def = NULL;

		for (size_t n = 0; n < OPTION_COUNT && def == NULL; n++)
			if (option_defs[n].letter == *p)
				def = &option_defs[n];
		if (def == NULL)
			return usage(arg, "unknown option");
		if (def->arg == NULL) {
			r = set_option(o, def, NULL);
			continue;
		}
		if (p[1] != '\0')
			return set_option(o, def, p + 1);
		return set_option(o, def, *i + 1 < argc ? argv[++*i] : NULL);
	}
	return r;
}

/* What does not go together. */
static int check_remote(const struct options *o)
{
	if (o->key_file != NULL && o->listen == NULL && o->from == NULL)
		return usage("key-file", "needs listen or from");
	if (o->cluster_locks && o->listen == NULL && o->from == NULL)
		return usage("locks=cluster", "needs listen or from");
	if (o->cluster_locks && o->read_only)
		return usage("locks=cluster", "not with ro: who changes nothing cannot ask for locks");
	if (o->sync_replicas != 0 && o->listen == NULL && o->from == NULL)
		return usage("fsync", "needs listen or from: there are no replicas");
	if (o->max_stale_s != 0 && o->listen == NULL && o->from == NULL)
		return usage("max-stale", "needs listen or from: nothing here is ever older than its primary");
	if (o->replace && o->from == NULL)
		return usage("replace", "needs from");
	if ((o->listen != NULL || o->from != NULL) && o->writeback)
		return usage("writeback", "not with listen or from: the kernel would not see changes made elsewhere");
	if (o->listen != NULL && o->from == NULL && o->read_only)
		return usage("listen", "not with ro: a primary writes");
	if (o->listen != NULL && o->from != NULL && strcmp(o->listen, o->from) == 0)
		return usage(o->from, "listen and from are the same address: a mount cannot follow itself");
	return 0;
}

void options_default(struct options *o)
{
	bool root = geteuid() == 0;

	*o = (struct options){ .atime = KEYS_RELATIME, .sync_interval_s = 5, .wait_s = 10,
			       .allow_other = root, .nosuid = !root, .nodev = !root };
}

int options_add_words(struct options *o, const char *list)
{
	return option_words(o, list);
}

int options_add(struct options *o, int argc, char **argv)
{
	bool only_words = false;
	int r = 0;

	for (int i = 1; i < argc && r == 0; i++) {
		const char *arg = argv[i];

		if (!only_words && strcmp(arg, "--") == 0)
			only_words = true;
		else if (!only_words && strncmp(arg, "--", 2) == 0)
			r = option_long(o, argc, argv, &i);
		else if (!only_words && arg[0] == '-' && arg[1] != '\0')
			r = option_letters(o, argc, argv, &i);
		else if (o->store == NULL)
			o->store = arg;
		else if (o->mountpoint == NULL)
			o->mountpoint = arg;
		else
			r = usage(arg, "too many arguments");
	}
	return r;
}

int options_parse(struct options *o, int argc, char **argv)
{
	int r;

	options_default(o);
	r = options_add(o, argc, argv);
	if (r != 0 || o->help)
		return r;
	if (o->store == NULL || *o->store == '\0')
		return usage("mount", "STORE is missing");
	if (o->mountpoint == NULL || *o->mountpoint == '\0')
		return usage("mount", "MOUNTPOINT is missing");
	if (o->nosymfollow && geteuid() != 0)
		return usage("nosymfollow", "only root can mount so");
	/* The words of a remount are a part only: the rest is with the daemon. */
	return o->remount ? 0 : check_remote(o);
}

/* ---- As text ---- */

/* name=value, the value as -o takes it. "" without a value. */
static void named_word(char *buf, size_t size, const char *name, const char *value)
{
	size_t n = 0;

	buf[0] = '\0';
	if (value == NULL)
		return;
	n = (size_t)snprintf(buf, size, "%s=", name);
	for (; *value != '\0' && n + 3 < size; value++) {
		if (strchr(",\\\"", *value) != NULL)
			buf[n++] = '\\';
		buf[n++] = *value;
	}
	buf[n] = '\0';
}

static void keep_word(const struct options *o, char *buf, size_t size)
{
	if (o->keep_s != 0)
		snprintf(buf, size, "journal-keep=%us", o->keep_s);
	else if (o->keep_bytes != 0)
		snprintf(buf, size, "journal-keep=%llu", (unsigned long long)o->keep_bytes);
}

static void disconnect_word(const struct options *o, char *buf, size_t size)
{
	if (o->on_disconnect == REPLICA_WAIT)
		snprintf(buf, size, "on-disconnect=wait:%u", o->wait_s);
	else
		snprintf(buf, size, "on-disconnect=%s", o->on_disconnect == REPLICA_ERROR ? "error" : "readonly");
}

bool options_word(const struct options *o, unsigned n, char *buf, size_t size)
{
	static const char *const atimes[] = { [KEYS_NOATIME] = "noatime", [KEYS_RELATIME] = "relatime",
					      [KEYS_STRICTATIME] = "strictatime" };

	buf[0] = '\0';
	switch (n) {
	case 0:  snprintf(buf, size, "%s", o->read_only ? "ro" : "rw"); break;
	case 1:  snprintf(buf, size, "%s", o->sync ? "sync" : "async"); break;
	case 2:  snprintf(buf, size, "%s", o->dirsync ? "dirsync" : ""); break;
	case 3:  snprintf(buf, size, "%s", atimes[o->atime]); break;
	case 4:  snprintf(buf, size, "%s", o->nodiratime ? "nodiratime" : "diratime"); break;
	case 5:  snprintf(buf, size, "%s", o->noxattr ? "noxattr" : ""); break;
	case 6:  snprintf(buf, size, "%s", o->writeback ? "writeback" : ""); break;
	case 7:  snprintf(buf, size, "%s", o->allow_other ? "allow_other" : "noallow_other"); break;
	case 8:  snprintf(buf, size, "sync-interval=%u", o->sync_interval_s); break;
	case 9:
		if (o->size_bytes != 0)
			snprintf(buf, size, "size=%llu", (unsigned long long)o->size_bytes);
		break;
	case 10: named_word(buf, size, "listen", o->listen); break;
	case 11: named_word(buf, size, "from", o->from); break;
	case 12: named_word(buf, size, "key-file", o->key_file); break;
	case 13: keep_word(o, buf, size); break;
	case 14: disconnect_word(o, buf, size); break;
	case 15: snprintf(buf, size, "%s", o->cluster_locks ? "locks=cluster" : o->local_locks ? "locks=local" : ""); break;
	case 16: snprintf(buf, size, "%s", o->inotify ? "inotify" : ""); break;
	/* Passed on to the kernel as they were given. */
	case 17: snprintf(buf, size, "%s", o->kernel != NULL ? o->kernel + 1 : ""); break;
	default: return false;
	}
	return true;
}

void options_to_text(const struct options *o, char *buf, size_t size)
{
	char word[OPTIONS_WORD_MAX];
	size_t len = 0;

	buf[0] = '\0';
	for (unsigned n = 0; options_word(o, n, word, sizeof word); n++)
		/* One that does not fit is left out whole. */
		if (*word != '\0' && len + strlen(word) + 2 <= size)
			len += (size_t)sprintf(buf + len, "%s%s", len > 0 ? "," : "", word);
}

void options_release(struct options *o)
{
	free(o->kernel);
	free(o->listen);
	free(o->from);
	free(o->key_file);
	o->kernel = o->listen = o->from = o->key_file = NULL;
}

void options_help(void)
{
	char left[64];

	printf("usage: msyncfs mount [options] STORE MOUNTPOINT\n\n"
	       "Mount STORE, which is made if it is not there; :memory: keeps it in memory.\n\n");
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		const struct option_def *d = &option_defs[i];

		if ((d->at & AT_LONG) == 0)
			continue;
		snprintf(left, sizeof left, "%c%c%s--%s%s%s", d->letter != 0 ? '-' : ' ',
			 d->letter != 0 ? d->letter : ' ', d->letter != 0 ? ", " : "  ", d->name,
			 d->arg != NULL ? "=" : "", d->arg != NULL ? d->arg : "");
		printf("  %-29s %s\n", left, d->help);
	}
	printf("\nMount options; every long option above is one too, without the dashes:\n\n");
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		const struct option_def *d = &option_defs[i];

		if (d->at == AT_WORD && d->help != NULL)
			printf("  -o %-14s %s\n", d->name, d->help);
	}
	printf("\nThe other words of fstab(5), as defaults, noauto, nofail, _netdev or\n"
	       "x-systemd.*, are accepted and ignored.\n");
}
