#!/bin/bash
# SPDX-License-Identifier: MIT
# A store that was made on purpose, all checksums right (tests/mount/helpers/hostile.c): directories in circles, extents of other
# files, sizes and counts that lie, names that cannot be. Nothing hangs, nothing shows one file's bytes through another, what is
# whole is served, and check and salvage end.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

# What hangs is ended, and tells; how long it may take is no part of the test.
within() { timeout 600 "$@"; }

# ends NAME COMMAND...: whatever it says, it comes to an end.
ends() {
	local name=$1 status
	shift
	within "$@" </dev/null >"$T/out" 2>"$T/err"
	status=$?
	if [ $status != 124 ] && [ $status -lt 128 ]; then pass "$name (status $status)"; return; fi
	fail "$name"
	diag "status $status: $*"
}

# refused NAME COMMAND...: it ends, and with an error; none of the secret is told.
refused() {
	ends "$@"
	ok "$1: is refused" grep -q . "$T/err"
	nok "$1: nothing of the secret is told" grep -qa SECRET "$T/out"
}

mount_store >/dev/null || fail mount
yes SECRET | head -c 40000 >"$MNT/secret"
yes plain | head -c 20000 >"$MNT/plain"
mkdir -p "$MNT/way/down" "$MNT/odd"
cp "$MNT/secret" "$MNT/plain" "$T"
umount_store || fail umount
ok 'a hostile store is made' hostile "$STORE"
cp "$STORE" "$T/made"

look() {
	same "$1: what is whole is served" "$MNT/secret" "$T/secret"
	same "$1: what is whole is served" "$MNT/plain" "$T/plain"
}

ok 'it can be mounted' mount_store
look 'mounted'
refused 'extents of another file' cat "$MNT/stolen"
refused 'extents that overlap' cat "$MNT/torn"
refused 'an extent behind the end of the store' cat "$MNT/beyond"
ends 'unwritten blocks of the journal' cat "$MNT/journal"
is 'unwritten blocks of the journal: are zeros' "$(tr -d '\0' <"$T/out" | wc -c)" 0
ends 'unwritten blocks of the tree' cat "$MNT/tree"
is 'unwritten blocks of the tree: are zeros' "$(tr -d '\0' <"$T/out" | wc -c)" 0
refused 'the beginning of a file of 2^63-1 bytes' head -c 10000 "$MNT/huge"
ends 'its end' tail -c 100 "$MNT/huge"
ends 'one more name for it' ln "$MNT/huge" "$MNT/huger"
ends 'one more byte for it' sh -c "echo x >>'$MNT/huge'"
ends 'a file with more in its inode than it is long' cat "$MNT/short"
ok 'a file with more in its inode than it is long: no more than that is read' test "$(wc -c <"$T/out")" -le 3
ends 'a circle of directories, by name' ls -la "$MNT/way/down/up/down/up/down"
ends 'a directory in itself, by name' ls -la "$MNT/ring/ring/ring"
ends 'a walk over all of it' find "$MNT" -ls
nok 'a walk over all of it: no name has a slash or is empty' grep -qE 'odd/(a/b|\.\.|\.|)( |$)' "$T/out"
ends 'a directory with names that cannot be' ls -la "$MNT/odd"
ends 'a directory that goes below itself' mv "$MNT/way" "$MNT/ring"
ends 'something goes below a circle' mv "$MNT/plain" "$MNT/way/down/up/"
for i in "$MNT/plain" "$MNT"/way/plain "$MNT"/way/down/plain; do [ ! -e "$i" ] || [ "$i" = "$MNT/plain" ] || mv "$i" "$MNT/plain"; done
like 'an attribute of which parts are missing' "$(within getfattr -n user.long "$MNT/chunks" 2>&1)" 'user.long: '
ends 'a file system that counts' df "$MNT"
ends 'status' "$MSYNCFS" status "$MNT"
ends 'a dump' "$MSYNCFS" dump "$STORE" "$T/dump"

# Changes meet them too.
ends 'write to the blocks of the journal' sh -c "echo x >>'$MNT/journal'; printf y | dd of='$MNT/journal' conv=notrunc"
ends 'write to the blocks of the tree' sh -c "echo x >>'$MNT/tree'; printf y | dd of='$MNT/tree' conv=notrunc"
ends 'cut what is another one'"'"'s' sh -c "truncate -s 0 '$MNT/huge' '$MNT/journal' '$MNT/beyond' '$MNT/garbage'; truncate -s 5 '$MNT/short'"
ok 'a new file is made' cp "$T/secret" "$MNT/new"
ok 'and synced' sync -f "$MNT/new"
look 'changed'
same 'the new file is whole' "$MNT/new" "$T/secret"
ok 'the daemon lives' test -n "$(daemon_pids)"
kill_daemon
unmount -l "$MNT" 2>/dev/null || unmount "$MNT"
ok 'it can be mounted after kill -9' mount_store
look 'killed'
same 'the new file is whole after kill -9' "$MNT/new" "$T/secret"
ends 'everything is removed that can be' sh -c "rm -rf '$MNT'/*"
ok 'the daemon lives' test -n "$(daemon_pids)"
kill_daemon
unmount -l "$MNT" 2>/dev/null || unmount "$MNT"
ok 'it can be mounted after that, and kill -9' mount_store
ok 'a file is made in it' cp "$T/secret" "$MNT/newest"
same 'and is whole' "$MNT/newest" "$T/secret"
ok 'it is unmounted' umount_store

cp "$T/made" "$STORE"
ok 'read-only: it can be mounted' mount_store -o ro
look 'read-only'
ends 'read-only: a walk' find "$MNT" -ls
umount_store || fail umount
ends 'check' "$MSYNCFS" check "$STORE"
for words in 'way' 'ring' 'stolen' 'torn' 'beyond' 'garbage' 'huge' 'short' 'odd' 'chunks'; do
	ok "check names it: $words" grep -qa "/$words" "$T/out" "$T/err"
done
ends 'salvage' "$MSYNCFS" check --salvage "$STORE" "$T/new.msync"
is 'salvage changes nothing' "$(cksum <"$STORE")" "$(cksum <"$T/made")"
ok 'what it saved is in order' "$MSYNCFS" check "$T/new.msync"
ok 'and can be mounted' mount_store -s "$T/new.msync"
look 'salvaged'
ends 'salvaged: a walk' find "$MNT" -ls
ok 'salvaged: a walk: without an error' test ! -s "$T/err"
# Of one that is 2^63-1 bytes long the beginning, where its blocks were.
# shellcheck disable=SC2016 # the inner shell's own
nok 'salvaged: the secret is in no other file' sh -c 'find "$1" -type f ! -name secret -exec sh -c '"'"'
	for f; do head -c 1000000 "$f" | grep -a SECRET; done'"'"' sh {} + | grep .' sh "$MNT"
umount_store "$MNT" "$T/new.msync" || fail umount

done_testing
