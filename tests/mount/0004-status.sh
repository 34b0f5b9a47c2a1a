#!/bin/bash
# SPDX-License-Identifier: MIT
# msyncfs status, and the same under .msyncfs/: can be sourced by sh, is hidden from whatever walks the tree.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

ok mount mount_store
mkdir "$MNT/d"
echo x >"$MNT/d/file"

ok 'status succeeds' "$MSYNCFS" status "$MNT"
"$MSYNCFS" status "$MNT" >"$T/status"
is 'each line is name=value' "$(grep -cvE '^[A-Za-z_][A-Za-z0-9_]*=' "$T/status")" 0
ok 'sh can source it' sh -eu -c ". '$T/status'"
is 'sourcing it runs nothing and prints nothing' "$(cd "$T" && PATH=/nonexistent /bin/sh -c '. ./status' 2>&1)" ''
cat "$MNT/.msyncfs/status" >"$T/file"
# Counters of requests appear with the first request of their kind.
names() { cut -d= -f1 "$1" | grep -v '^requests_'; }
is 'the file has the same names' "$(names "$T/file")" "$(names "$T/status")"
for word in seq durable_seq dirty_bytes journal uuid last_sync last_checkpoint; do
	ok "status tells of $word" grep -q "^[a-z_]*${word}[a-z_]*=" "$T/status"
done
ok 'status names the store' grep -qF "$STORE" "$T/status"

# A path with a quote and a space must not break the shell that sources it.
odd="$T/it's \$HOME \"odd\""
mkdir "$odd"
ok 'mount at an odd path, store with an odd name' mount_store -m "$odd" -s "$odd.msync"
"$MSYNCFS" status "$odd" >"$T/odd"
ok 'its status can be sourced' sh -eu -c ". '$T/odd'"
is 'and runs nothing' "$(PATH=/nonexistent /bin/sh -c ". '$T/odd'" 2>&1)" ''
ok 'unmount the odd path' umount_store "$odd" "$odd.msync"

is 'hidden from ls -a' "$(ls -A "$MNT")" d
is 'hidden from find' "$(cd "$MNT" && find . | sort | tr '\n' ' ')" '. ./d ./d/file '
mkdir "$T/copy"
cp -r "$MNT/." "$T/copy"
is 'hidden from cp -r' "$(ls -A "$T/copy")" d
is 'hidden from tar' "$(tar -C "$MNT" -cf - . | tar -tf - | grep -c msyncfs)" 0
ok 'but reachable by name' test -f "$MNT/.msyncfs/status"
ok 'and can be listed' grep -qx status <(ls "$MNT/.msyncfs")
nok 'a file cannot be made there' touch "$MNT/.msyncfs/new"
nok 'status cannot be removed' rm -f "$MNT/.msyncfs/status"
nok 'nor the directory' rmdir "$MNT/.msyncfs"
nok 'nor can it be renamed' sysop rename none "$MNT/.msyncfs" "$MNT/e"
nok 'nor made by the user' mkdir "$MNT/.msyncfs"
ok 'elsewhere the name is an ordinary one' mkdir "$MNT/d/.msyncfs"
ok 'and is listed there' grep -qx '.msyncfs' <(ls -A "$MNT/d")

# As of any file: cp compares what it has looked up with what it has opened.
for name in status locks version; do
	ok "cp takes $name" cp "$MNT/.msyncfs/$name" "$T/taken"
done
# shellcheck disable=SC2012 # find may ask stat() for the number; what readdir() says is meant
is 'a name has one inode number, as in the listing' "$(cd "$MNT/.msyncfs" && stat -c %i status status locks | xargs)" \
	"$(cd "$MNT/.msyncfs" && ls -i --sort=none | awk '$2 == "status" { s = $1 } $2 == "locks" { l = $1 } END { print s, s, l }')"

before=$(status_of seq)
echo y >"$MNT/d/other"
after=$(status_of seq)
ok 'the sequence number goes up with a change' test "$after" -gt "$before"
ok 'sync' sysop fsync "$MNT/d/other"
ok 'after fsync the durable position has caught up' test "$(status_of durable_seq)" -ge "$after"
ok 'reading status twice gives fresh figures' test "$(status_of seq)" -ge "$after"
ok 'rm -rf empties the mount' sh -c "rm -rf '$MNT'/* '$MNT'/.[!.]* 2>/dev/null; test -z \"\$(ls -A '$MNT')\""
ok 'and leaves the control files' test -f "$MNT/.msyncfs/status"
umount_store
done_testing
