#!/bin/bash
# SPDX-License-Identifier: MIT
# msyncfs dump and load: a mounted store, while it is written to, comes back exactly; what is wrong leaves nothing behind.
# shellcheck source=lib.sh
. "${0%/*}/lib.sh"

everything() {
	(cd "$1" && find . -print0 | sort -z | xargs -0 stat -c '%n %i %f %h %u %g %s %b %t %T %.9X %.9Y %.9Z %.9W' &&
		find . -print0 | sort -z | xargs -0 getfattr -h -d -m - 2>/dev/null &&
		find . -type f -size -64M -print0 | sort -z | xargs -0 cksum)
}

mount_store >/dev/null || fail mount
mkdir -p "$MNT/a/b" "$MNT/c"
for i in $(seq 200); do echo "$i" >"$MNT/a/$i"; done
head -c 9000000 /dev/urandom >"$MNT/a/b/big"
ln "$MNT/a/b/big" "$MNT/c/hard"
ln -s "$(printf 'x%.0s' $(seq 3000))" "$MNT/c/long"
ln -s short "$MNT/c/soft"
mkfifo "$MNT/c/fifo"
truncate -s 9G "$MNT/c/sparse"
echo middle | dd of="$MNT/c/sparse" bs=1 seek=5000000000 conv=notrunc status=none
touch "$MNT/c/kept"
fallocate -n -l 2M "$MNT/c/kept"
setfattr -n user.long -v "$(head -c 30000 /dev/zero | tr '\0' v)" "$MNT/a/1"
touch -d '1969-07-20 20:17:40.123456789' "$MNT/c"
if [ "$(id -u)" = 0 ]; then mknod "$MNT/c/dev" c 7 9; chown 1234:4321 "$MNT/a/2"; fi
if command -v setfacl >/dev/null; then setfacl -m u:1234:r-- "$MNT/a/3"; setfacl -d -m g:4321:rwx "$MNT/a/b"; fi
everything "$MNT" >/dev/null         # reading changes access times once
everything "$MNT" >"$T/before"

ok 'dump of a mounted store' "$MSYNCFS" dump "$STORE" "$T/one"
ok 'to standard output' sh -c "\"$MSYNCFS\" dump '$STORE' >'$T/two'"
same 'the same contents give the same bytes' "$T/one" "$T/two"
ok 'the daemon lives' test -n "$(daemon_pids)"
(while [ ! -e "$T/stop" ]; do head -c 100000 /dev/urandom >"$MNT/busy"; mv "$MNT/busy" "$MNT/busier"; done) &
for i in 1 2 3; do
	ok "dump $i while it is written to" "$MSYNCFS" dump "$STORE" "$T/busy"
	ok "its load $i" "$MSYNCFS" load "$T/busy.msync" "$T/busy"
	ok "its check $i" "$MSYNCFS" check "$T/busy.msync"
	rm -f "$T/busy.msync"
done
touch "$T/stop"
wait
umount_store

ok 'load' "$MSYNCFS" load "$T/loaded.msync" "$T/one"
ok 'check finds it in order' "$MSYNCFS" check "$T/loaded.msync"
ok 'dump of what was loaded' "$MSYNCFS" dump "$T/loaded.msync" "$T/three"
same 'gives the same bytes' "$T/one" "$T/three"
mv "$T/loaded.msync" "$STORE"
mount_store -o ro >/dev/null || fail 'mount of what was loaded'
everything "$MNT" >"$T/after"
ok 'all is as it was: names, numbers, times, links, holes, attributes, contents' diff "$T/before" "$T/after"
umount_store

# Killed: what only the journal has is in the stream, and nothing in the store changes.
mount_store >/dev/null
echo late >"$MNT/late"
kill_daemon
unmount -l "$MNT" 2>/dev/null || unmount "$MNT"
cksum <"$STORE" >"$T/sum"
ok 'dump after kill -9' "$MSYNCFS" dump "$STORE" "$T/killed"
is 'changes nothing' "$(cksum <"$STORE")" "$(cat "$T/sum")"
ok 'load' "$MSYNCFS" load "$T/killed.msync" "$T/killed"
mv "$T/killed.msync" "$STORE"
mount_store >/dev/null
is 'the last change is there' "$(cat "$MNT/late")" late
umount_store

# Nothing changed since it was mounted: there is no checkpoint to make, and the daemon knows it.
mount_store -o noatime >/dev/null
ok 'dump of a store that was only mounted' "$MSYNCFS" dump "$STORE" "$T/idle"
ok 'once more' "$MSYNCFS" dump "$STORE" "$T/idle"
ok 'the daemon lives' test -n "$(daemon_pids)"
ok 'and serves' test -e "$MNT/late"
umount_store

# One line, status 1, nothing left.
refused() {
	local name=$1
	shift
	timeout 60 "$@" >"$T/out" 2>"$T/err" </dev/null
	is "$name: status 1" "$?" 1
	is "$name: one line" "$(wc -l <"$T/err")" 1
	ok "$name: no store" test ! -e "$T/no.msync"
}
size=$(stat -c %s "$T/one")
head -c $((size - 1)) "$T/one" >"$T/bad"
refused 'a stream cut short' "$MSYNCFS" load "$T/no.msync" "$T/bad"
cp "$T/one" "$T/bad"
printf '\377\377' | dd of="$T/bad" bs=1 seek=$((size / 2)) conv=notrunc status=none
refused 'a damaged stream' "$MSYNCFS" load "$T/no.msync" "$T/bad"
refused 'no stream at all' "$MSYNCFS" load "$T/no.msync" "$STORE"
refused 'an empty stream' "$MSYNCFS" load "$T/no.msync" /dev/null
refused 'a folder that is not there' "$MSYNCFS" load "$T/nowhere/no.msync" "$T/one"
refused 'too small a store' "$MSYNCFS" load --size=8M "$T/no.msync" "$T/busy"
cksum <"$STORE" >"$T/sum"
refused 'a store that is there' "$MSYNCFS" load "$STORE" "$T/one"
refused 'a dump over a store' "$MSYNCFS" dump "$STORE" "$STORE"
is 'and it is as it was' "$(cksum <"$STORE")" "$(cat "$T/sum")"
refused 'a full disk' "$MSYNCFS" dump "$STORE" /dev/full
"$MSYNCFS" load >/dev/null 2>&1
is 'wrong use: status 2' "$?" 2
is 'nothing is left beside the store' "$(find "$T" -name '*.msync.*' | wc -l)" 0
done_testing
