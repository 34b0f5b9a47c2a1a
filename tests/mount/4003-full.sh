#!/bin/bash
# SPDX-License-Identifier: MIT
# P4: a full store is ENOSPC to the writer; nothing is lost, deletes work and make room, and writing goes on.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

# errno_of_filling DIR: write files until one fails; the reason.
fill() {
	local i=0
	while ((i++ < 5000)); do
		head -c 200000 /dev/urandom >"$T/chunk"
		dd if="$T/chunk" of="$1/fill-$i" bs=200000 status=none 2>"$T/err" || { cat "$T/err"; return; }
		cksum <"$T/chunk" >"$T/sum.$i"
	done
	echo 'never full'
}
survivors() {
	local i wrong=0
	for i in "$T"/sum.*; do
		[ "$(cksum <"$MNT/fill-${i##*.}" 2>/dev/null)" = "$(cat "$i")" ] || wrong=$((wrong + 1))
	done
	echo $wrong
}

ok 'mount with --size=16M' mount_store --size=16M
total=$(sysop statfs "$MNT" | cut -d' ' -f1)
ok 'df shows the size' test "$total" -le 16777216 -a "$total" -ge 12000000
echo before >"$MNT/before"
head -c 3000000 /dev/urandom >"$T/paid"
errno 'fallocate' ok sh -c "touch '$MNT/paid'; sysop fallocate plain 0 3M '$MNT/paid'"
errno 'fallocate, keeping the size' ok sh -c "touch '$MNT/kept'; sysop fallocate keep 0 3M '$MNT/kept'"
errno 'fallocate of less than a block' ok sh -c "touch '$MNT/tiny'; sysop fallocate plain 0 100 '$MNT/tiny'"
like 'filling it ends with ENOSPC' "$(fill "$MNT")" 'No space left'
# shellcheck disable=SC2012 # what ls sees is the question
ok 'after something useful was written' test "$(ls "$MNT" | wc -l)" -gt 40
is 'all that succeeded is there' "$(survivors)" 0
ok 'the daemon lives' test -n "$(daemon_pids)"
ok 'the store is not larger than allowed' test "$(stat -c %s "$STORE")" -le 16777216
available=$(sysop statfs "$MNT" | cut -d' ' -f3)
ok "statfs says so too ($available bytes available)" test "$available" -lt 1048576
# Fill it to the last bit with small files too.
i=0
while echo small >"$MNT/small-$i" 2>/dev/null && ((i++ < 20000)); do :; done
is 'what was before is there' "$(cat "$MNT/before")" before
# What was allocated can be written, as posix_fallocate(3) says: in one go, and block after block from the end.
ok 'a file that has its blocks can be written when the store is full' dd if="$T/paid" of="$MNT/paid" bs=200k conv=notrunc status=none
same '... and has what was written' "$T/paid" <(head -c 3000000 "$MNT/paid")
backwards() {
	local i
	for ((i = 732; i >= 0; i--)); do
		dd if="$T/paid" of="$MNT/kept" bs=4096 skip="$i" seek="$i" count=1 conv=notrunc status=none || return
	done
}
ok '... behind its end, and in pieces' backwards
same '... and has it, too' "$T/paid" "$MNT/kept"
errno '... also a small one' ok sysop pwrite "$MNT/tiny" 0 "$(printf %100s '')"
rm -f "$T/sum."* "$MNT"/small-* "$MNT/kept" "$MNT/paid"
ok 'deletes work when it is full' rm -f "$MNT"/fill-*
room() { sync; [ "$(sysop statfs "$MNT" | cut -d' ' -f3)" -gt 10000000 ]; }
ok 'and make room' wait_for room
like 'it can be filled again' "$(fill "$MNT")" 'No space left'
is 'and all is there' "$(survivors)" 0
cp "$MNT/fill-1" "$T/one"
for how in 'unmount' 'kill -9'; do
	if [ "$how" = unmount ]; then umount_store; else kill_daemon; fi
	ok "a full store can be mounted after $how" mount_store --size=16M
	is "nothing is lost by $how" "$(survivors)" 0
done
ok 'truncate makes room too' sh -c "for f in '$MNT'/fill-1?; do : >\"\$f\"; done"
ok 'writing goes on' wait_for "cp '$T/one' '$MNT/again' 2>/dev/null"
same 'and is right' "$T/one" "$MNT/again"
errno 'fallocate of too much' ENOSPC sh -c "touch '$MNT/a'; sysop fallocate plain 0 100M '$MNT/a'"
umount_store
ok 'check' "$MSYNCFS" check "$STORE"
ok 'it may be given more' mount_store --size=64M
ok 'and holds more then' sh -c "head -c 20000000 /dev/zero >'$MNT/more'"
umount_store

# A limit of the daemon on the size of files is a full disk, too (and no SIGXFSZ). 22 MiB, in sh's blocks of 512.
rm -f "$STORE" "$T"/sum.*
ok 'mount with a limit on the size of files' sh -c "ulimit -f 45056 && exec timeout 60 '$MSYNCFS' mount '$STORE' '$MNT' </dev/null >'$T/out' 2>&1"
like 'a file that may not grow is ENOSPC' "$(fill "$MNT")" 'No space left'
is 'all that succeeded is there' "$(survivors)" 0
ok 'the daemon lives' test -n "$(daemon_pids)"
rm -f "$MNT"/fill-[1-9] "$MNT"/fill-1?
ok 'writing goes on after deletes' wait_for "cp '$T/one' '$MNT/again' 2>/dev/null"
umount_store
ok 'check' "$MSYNCFS" check "$STORE"

# The disk below is full: a tmpfs of its own.
if [ "$(id -u)" = 0 ] && mkdir "$T/disk" && mount -i -t tmpfs -o size=24m none "$T/disk" 2>/dev/null; then
	STORE=$T/disk/store.msync
	rm -f "$T"/sum.*
	ok 'a store on a small disk' mount_store
	# Of 24 MiB.
	total=$(sysop statfs "$MNT" | cut -d' ' -f1)
	ok "df shows what the disk can give ($total)" test "$total" -le 25165824 -a "$total" -ge 20000000
	like 'a full disk is ENOSPC' "$(fill "$MNT")" 'No space left'
	is 'all that succeeded is there' "$(survivors)" 0
	ok 'the daemon lives' test -n "$(daemon_pids)"
	rm -f "$MNT"/fill-[1-9] "$MNT"/fill-1?
	ok 'writing goes on after deletes' wait_for "cp '$T/one' '$MNT/again' 2>/dev/null"
	umount_store
	ok 'check' "$MSYNCFS" check "$STORE"
	: >"$T/disk/other"
	dd if=/dev/zero of="$T/disk/other" bs=64k status=none 2>/dev/null
	timeout 60 "$MSYNCFS" mount "$T/disk/new.msync" "$MNT" </dev/null >"$T/out" 2>"$T/err"
	status=$?
	if is_mounted; then
		pass 'a new store on a full disk mounts'
		umount_store "$MNT" "$T/disk/new.msync"
	else
		is 'a new store on a full disk: one line' "$(wc -l <"$T/err") $((status > 0))" '1 1'
		ok 'and no half store is left' test ! -e "$T/disk/new.msync"
	fi
	umount -i "$T/disk" || fail 'the disk is still in use'
else
	skip_one 'a full disk needs root'
fi

# ext4 has less than the first step of growth asks for, and keeps what it found of it.
truncate -s 40M "$T/image"
if [ "$(id -u)" = 0 ] && mkfs.ext4 -q "$T/image" && mount -i -o loop "$T/image" "$T/disk" 2>/dev/null; then
	STORE=$T/disk/store.msync
	ok 'a store on a small ext4' mount_store
	all_counted() {
		local total size
		size=$(stat -c %s "$STORE")
		total=$(($(sysop statfs "$T/disk" | cut -d' ' -f3) + size))
		[ "$(sysop statfs "$MNT" | cut -d' ' -f1)" = $((total / 4096 * 4096)) ] && [ "$(status_of file_bytes)" = "$size" ]
	}
	ok 'all that the disk has is in the store or free' wait_for all_counted
	umount_store
	umount -i "$T/disk" || fail 'the disk is still in use'
else
	skip_one 'an ext4 of its own needs root and a loop device'
fi
done_testing
