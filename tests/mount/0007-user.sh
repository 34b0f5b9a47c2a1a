#!/bin/bash
# SPDX-License-Identifier: MIT
# An ordinary user mounts a store of their own, with fusermount3 and nothing but their own rights.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need_root
need setpriv unshare

fuse_for_all

# fusermount3 wants a user that has a name.
uid=$(id -u nobody)
home=$T/home
mkdir "$home"
chown "$uid:$uid" "$home"
STORE=$home/own.msync
MNT=$home/mnt
user() { HOME=$home setpriv --reuid="$uid" --regid="$uid" --clear-groups "$@"; }
user mkdir "$MNT"

ok 'a user mounts' user timeout 60 "$MSYNCFS" mount "$STORE" "$MNT"
ok 'it is mounted' is_mounted
like 'nosuid and nodev are set' "$(awk -v m="$MNT" '$2 == m { print $4 }' /proc/mounts)" 'nosuid.*nodev|nodev.*nosuid'
is 'the store belongs to the user' "$(stat -c %u "$STORE")" "$uid"
is 'the daemon runs as the user' "$(stat -c %u "/proc/$(daemon_pids | head -n 1)")" "$uid"
ok 'the user works in it' user sh -c "mkdir '$MNT/d' && echo mine >'$MNT/d/f' && mv '$MNT/d/f' '$MNT/d/g'"
is 'files belong to the user' "$(user stat -c %u:%g "$MNT/d/g")" "$uid:$uid"
ok 'status works' user "$MSYNCFS" status "$MNT"
ok 'the user unmounts' user fusermount3 -u "$MNT"
ok 'the daemon is gone' wait_for no_daemon
ok 'and mounts again' user timeout 60 "$MSYNCFS" mount "$STORE" "$MNT"
is 'the data is there' "$(user cat "$MNT/d/g")" mine
kill_daemon
ok 'a dead mount is cleaned by the user' user timeout 60 "$MSYNCFS" mount "$STORE" "$MNT"
is 'and the data is there still' "$(user cat "$MNT/d/g")" mine
ok 'umount.msyncfs works for the user' user "$SCRIPTS/umount.msyncfs" "$MNT"
ok 'and waits for the daemon' flock -n "$STORE" true

like 'what only root can ask for is refused' "$(user timeout 60 "$MSYNCFS" mount -o nosymfollow "$STORE" "$MNT" 2>&1; echo "$?")" \
	'^msyncfs: nosymfollow: only root.*2$'
ok 'and -o sync,writeback is not' user timeout 60 "$MSYNCFS" mount -o sync,writeback "$STORE" "$MNT"
like 'it is a synchronous mount' "$(awk -v m="$MNT" '$2 == m { print $4 }' /proc/mounts)" '(^|,)sync(,|$)'
user "$SCRIPTS/umount.msyncfs" "$MNT"

mkdir "$T/rootonly"
chmod 700 "$T/rootonly"
nok 'a mount point that is not theirs is refused' user timeout 60 "$MSYNCFS" mount "$STORE" "$T/rootonly"
mkdir "$T/rootsown"
for dir in rootonly rootsown; do
	user timeout 60 "$MSYNCFS" mount "$home/new.msync" "$T/$dir" >"$T/out" 2>&1 </dev/null
	is "$dir: one line" "$? $(wc -l <"$T/out")" '1 1'
	ok "$dir: no store is left behind" test ! -e "$home/new.msync"
done
like 'it is said what to do' "$(cat "$T/out")" 'rootsown: Permission denied: mount on a directory that you may write to'
wait_for no_daemon
done_testing
