#!/bin/bash
# SPDX-License-Identifier: MIT
# msyncfs check: clean after every kind of work, mounted or not; finds what is damaged; changes nothing.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

mount_store >/dev/null || fail mount
ok 'an empty store, mounted' "$MSYNCFS" check "$STORE"
mkdir -p "$MNT/a/b"
for i in $(seq 300); do echo "$i" >"$MNT/a/$i"; done
head -c 2000000 /dev/urandom >"$MNT/a/b/big"
ln "$MNT/a/1" "$MNT/a/b/hard"
ln -s x "$MNT/a/soft"
sysop xattr_many 100 "$MNT/a/2" >/dev/null
fsx -n 500 -s "$SEED" "$MNT/fsx" >/dev/null || fail fsx
rm "$MNT"/a/1??
sync
ok 'mounted, with work done' "$MSYNCFS" check "$STORE"
(while [ ! -e "$T/stop" ]; do echo x >>"$MNT/busy"; rm -f "$MNT/new"; echo y >"$MNT/new"; done) &
ok 'mounted, while it is written to' "$MSYNCFS" check "$STORE"
touch "$T/stop"
wait
umount_store
cksum <"$STORE" >"$T/sum"
ok 'unmounted' "$MSYNCFS" check "$STORE"
is 'check changes nothing' "$(cksum <"$STORE")" "$(cat "$T/sum")"
mount_store >/dev/null
echo z >"$MNT/z"
kill_daemon
cksum <"$STORE" >"$T/sum"
ok 'after kill -9, before the next mount' "$MSYNCFS" check "$STORE"
is 'check changes nothing' "$(cksum <"$STORE")" "$(cat "$T/sum")"
unmount -l "$MNT" 2>/dev/null || unmount "$MNT"

# Damage to the contents of a file is found by its checksum, by check and by reading.
mount_store >/dev/null || fail mount
# In one piece, so that it goes to an extent of its own and not through the journal.
head -c 3000000 /dev/zero | tr '\0' Q >"$T/q"
dd if="$T/q" of="$MNT/q" bs=1M status=none
umount_store
offset=$(grep -abo -m1 'QQQQQQQQQQQQQQQQ' "$STORE" | head -n1 | cut -d: -f1)
offset=$(((offset / 4096 + 100) * 4096 + 7))
is 'a block of the file is found in the store' "$(dd if="$STORE" bs=1 skip=$offset count=4 status=none)" QQQQ
printf 'X' | dd of="$STORE" bs=1 seek=$offset conv=notrunc status=none
timeout 60 "$MSYNCFS" check "$STORE" >"$T/out" 2>"$T/err"
is 'a damaged block: check exits 4' "$?" 4
ok 'and says where' grep -qiE 'block|inode|ino=' "$T/out" "$T/err"
mount_store >/dev/null
timeout 60 cat "$MNT/q" >"$T/q" 2>"$T/err"
status=$?
ok "reading it is an error, never wrong data (status $status)" test "$status" = 1
is 'and what was read is right' "$(tr -d Q <"$T/q" | wc -c)" 0
ok 'the rest is served' cat "$MNT/a/b/big"
ok 'the daemon lives' test -n "$(daemon_pids)"
ok 'the damaged file can be removed' rm "$MNT/q"
umount_store

# Damage in ever more places: a verdict, in time, and no crash.
cp "$STORE" "$T/good"
diag "SEED=$SEED"
RANDOM=$((SEED % 32768))
size=$(stat -c %s "$STORE")
for _ in $(seq "$(scaled 15)"); do
	cp "$T/good" "$STORE"
	for _ in 1 2 3; do
		dd if=/dev/urandom of="$STORE" bs=1 count=32 seek=$(((RANDOM * 32768 + RANDOM) % size)) conv=notrunc status=none
	done
	timeout 60 "$MSYNCFS" check "$STORE" >"$T/out" 2>&1 </dev/null
	like 'random damage: clean, damaged or unreadable' "$?" '^(0|4|8)$' || diag "$(tail -n 5 "$T/out")"
done
done_testing
