#!/bin/bash
# SPDX-License-Identifier: MIT
# Mount, work, unmount, mount again: everything is as it was.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

ok 'mount creates the store and returns when it is usable' mount_store
ok 'the mount is in the mount table' is_mounted
ok 'the store is a regular file' test -f "$STORE"
is 'the type is fuse.msyncfs' "$(stat -f -c %T "$MNT" >/dev/null; awk -v m="$MNT" '$2 == m { print $3 }' /proc/mounts)" fuse.msyncfs
is 'the source is the store, absolute' "$(awk -v m="$MNT" '$2 == m { print $1 }' /proc/mounts)" "$STORE"
is 'the root has inode 1' "$(stat -c %i "$MNT")" 1
is 'the root is empty' "$(ls -A "$MNT")" ''

mkdir -p "$MNT/a/b/c"
echo small >"$MNT/a/small"
head -c 3000000 /dev/urandom >"$T/big"
cp "$T/big" "$MNT/a/b/big"
ln "$MNT/a/small" "$MNT/a/b/hard"
ln -s ../small "$MNT/a/b/soft"
mkfifo "$MNT/a/fifo"
chmod 4711 "$MNT/a/small"
touch -d '1999-12-31 23:59:59.123456789' "$MNT/a/b/c"
setfattr -n user.colour -v green "$MNT/a/small" 2>/dev/null
find "$MNT" -printf '%P %i %m %U %G %n %s %T@ %C@ %y %l\n' | sort >"$T/before"
ok 'unmount, and the daemon is gone' umount_store
ok 'the mount point is empty again' test -z "$(ls -A "$MNT")"
ok 'mount again' mount_store
find "$MNT" -printf '%P %i %m %U %G %n %s %T@ %C@ %y %l\n' | sort >"$T/after"
ok 'names, inode numbers, modes, owners, links, sizes and times are kept' diff "$T/before" "$T/after"
is 'small contents are kept' "$(cat "$MNT/a/b/soft")" small
same 'large contents are kept' "$T/big" "$MNT/a/b/big"
is 'xattrs are kept' "$(getfattr --only-values -n user.colour "$MNT/a/small" 2>/dev/null)" green

for i in 1 2 3 4 5; do
	echo "$i" >>"$MNT/rounds"
	remount_store >/dev/null || fail "remount $i"
done
is 'five more remounts keep everything' "$(tr -d '\n' <"$MNT/rounds")" 12345
diff "$T/before" <(find "$MNT" -name rounds -o -printf '%P %i %m %U %G %n %s %T@ %C@ %y %l\n' | sort) >"$T/diff"
is 'and change nothing else but the root' "$(grep -c '^[<>]' "$T/diff")" 2

# Relative paths are relative to the caller, not to the daemon's directory.
umount_store
(cd "$T" && timeout 60 "$MSYNCFS" mount store.msync mnt </dev/null >"$T/out" 2>&1)
is 'relative paths work' "$?" 0
same 'and mean the same store' "$T/big" "$MNT/a/b/big"
umount_store

# -f stays in the foreground and ends with the unmount.
timeout 120 "$MSYNCFS" mount -f "$STORE" "$MNT" </dev/null >"$T/out" 2>&1 &
pid=$!
ok 'mount -f is usable' wait_for is_mounted
same 'mount -f has the data' "$T/big" "$MNT/a/b/big"
wait_for "unmount '$MNT' 2>/dev/null"
wait "$pid"
is 'mount -f ends with status 0 when it is unmounted' "$?" 0

timeout 120 "$MSYNCFS" mount -f "$STORE" "$MNT" </dev/null >"$T/out" 2>&1 &
wait_for is_mounted
kill -TERM "$(daemon_pids | head -n 1)"
ok 'SIGTERM unmounts' wait_for '! is_mounted'
wait $!
ok 'and the store is free afterwards' wait_for no_daemon

# What the caller has open stays the caller's.
exec 9>"$T/lock"
flock 9
ok 'mount while a lock is held' timeout 60 "$MSYNCFS" mount "$STORE" "$MNT" </dev/null
exec 9>&-
ok 'the daemon does not hold it' flock -n "$T/lock" true
umount_store

STORE=:memory:
ok ':memory: mounts' mount_store
cp "$T/big" "$MNT/big"
same ':memory: holds data' "$T/big" "$MNT/big"
# Not only what it has so far. Others use memory meanwhile.
ok ':memory: df counts the memory that it may get' test "$(df -k --output=avail "$MNT" | tail -n 1)" -gt "$(awk '/^MemAvailable/ { printf "%.0f", $2 / 4 }' /proc/meminfo)"
ok ':memory: unmounts' umount_store
ok ':memory: leaves no file behind' test ! -e "$T/:memory:"
done_testing
