#!/bin/bash
# SPDX-License-Identifier: MIT
# A store on ext4 and on XFS, under load, and the power of the disk cut at random moments. `make crash-disk`.
#
# A copy of an image file that changes while it is read is no state of any disk: its parts are from different times. What
# can be trusted is the order in which the disk was written to. So the loop device stands on a file whose every write and
# flush goes through a program of ours (crashdisk record), one after the other, into a log. The disk at a moment is then
# the image before, all writes up to the last flush, and of the writes behind it any, also in parts: a disk with a cache
# promises no more. That is stricter than a snapshot (which has all writes), and each moment is also tried as a snapshot.
#
# Each image is mounted (the file system recovers from its log), the store on it is opened and compared with the load: it
# must be the state behind exactly one of its operations, not before the one that the last returned fsync had covered
# when the moment came. Then the store is checked.
#   SEED=n MOMENTS=n FS='ext4 xfs'
# shellcheck disable=SC2317 # the trap calls it
# shellcheck source=../mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh" || exit 1
need_root
need losetup mkfs.ext4 mkfs.xfs
diag "SEED=$SEED"
RANDOM=$((SEED % 32768))
MOMENTS=${MOMENTS:-12}
DISK=$ROOT/build/$MODE/tests/crash/disk/crashdisk
[ -x "$DISK" ] || bail "$DISK is missing: run make test-programs first"

# Loop devices are not taken away with $T.
loops=()
drop_loops() { local l; for l in "${loops[@]}"; do losetup -d "$l" 2>/dev/null; done; loops=(); }
end() {
	local status=$?
	touch "$T/progress.stop"
	! is_mounted "$MNT" || umount_store >/dev/null 2>&1
	local m
	for m in "$T/again" "$T/fs"; do ! is_mounted "$m" || umount "$m" || umount -l "$m"; done
	drop_loops
	(exit "$status")
	cleanup
}
trap end EXIT

# attach FILE: a loop device, in $loop.
attach() {
	loop=$(losetup -f --show "$1") || return 1
	loops+=("$loop")
}

detach() { losetup -d "$1" && wait_for "! losetup '$1' >/dev/null 2>&1"; }

# The disk as it would be after a power cut, mounted and looked at. try FS HOW SYNCED BEGUN COUNT POS DONE
try() {
	local fs=$1 how=$2 synced=$3 begun=$4 count=$5 pos=$6 at=$7 what bad=''
	what="$fs, entry $count, $how of what was not flushed"
	cp --sparse=always "$T/settled" "$T/cut" || return 1
	"$DISK" build "$T/settled" "$T/log" "$pos" "$at" "$count" $((SEED + images)) "$how" "$T/cut" >"$T/build.out" 2>&1 ||
		bad="build: $(cat "$T/build.out")"
	attach "$T/cut" || bad=losetup
	[ -n "$bad" ] || mount -t "$fs" -o "$(options "$fs")" "$loop" "$T/again" 2>"$T/mount.err" || bad="mount: $(cat "$T/mount.err")"
	if [ -z "$bad" ]; then
		if ! mount_store -s "$T/again/store.msync" >"$T/open.out"; then
			bad="open: $(cat "$T/open.out")"
		else
			"$DISK" check "$MNT" "$SEED" "$synced" "$begun" >"$T/check.out" 2>&1 || bad=$(cat "$T/check.out")
			umount_store "$MNT" "$T/again/store.msync" >/dev/null || bad="$bad; cannot be unmounted"
			"$MSYNCFS" check "$T/again/store.msync" >"$T/fsck.out" 2>&1 || bad="$bad; msyncfs check: $(tail -n 3 "$T/fsck.out")"
		fi
		umount "$T/again"
	fi
	detach "$loop"
	images=$((images + 1))
	[ -z "$bad" ] && return 0
	fail "$what"
	diag "$bad"
	[ -z "${KEEP:-}" ] || cp --sparse=always "$T/cut" "$T/failed.$images"
	return 1
}

options() { [ "$1" = xfs ] && echo nouuid || echo defaults; }

run_load() {
	local fs=$1 load recorder i synced count begun
	rm -f "$T/progress" "$T/progress.stop" "$T/log" "$T/moments"
	"$DISK" record "$T/image" "$T/log" "$T/disk" &
	recorder=$!
	wait_for "is_mounted '$T/disk'" || { fail "$fs: the recorder"; return 1; }
	attach "$T/disk/disk" || { fail "$fs: losetup"; return 1; }
	device=$loop
	mount -t "$fs" "$device" "$T/fs" || { fail "$fs: mount"; return 1; }
	mount_store -s "$T/fs/store.msync" -o sync-interval=1 --size=64M >"$T/out" ||
		{ fail "$fs: mount of the store"; diag "$(cat "$T/out")"; return 1; }
	"$DISK" load "$MNT" "$T/progress" "$SEED" &
	load=$!
	for ((i = 0; i < MOMENTS; i++)); do
		sleep "0.$(printf '%03d' $((200 + RANDOM % 600)))"
		"$DISK" moment "$T/log" "$T/progress" >>"$T/moments"
	done
	touch "$T/progress.stop"
	wait "$load"
	is "$fs: the load met no error" $? 0
	umount_store "$MNT" "$T/fs/store.msync" || fail "$fs: umount"
	umount "$T/fs" && detach "$device"
	umount "$T/disk"
	wait "$recorder"
	read -r synced count begun < <(tail -n 1 "$T/moments")
	diag "$fs: $begun operations ($synced synced), $count writes and flushes of the disk"
}

run_fs() {
	local fs=$1 synced count begun pos=4096 at=0 device bad=0 how cut last_synced=0 last_count=0
	mkdir -p "$T/disk" "$T/fs" "$T/again"
	rm -f "$T/image" "$T/settled"
	truncate -s 320M "$T/image"
	if [ "$fs" = ext4 ]; then mkfs.ext4 -q -F "$T/image"; else mkfs.xfs -q -f "$T/image"; fi || { fail "mkfs.$fs"; return; }
	cp --sparse=always "$T/image" "$T/settled"
	run_load "$fs" || return
	while read -r synced count begun; do
		# Between two moments any entry will do: not before what was synced at the first, not behind what had begun at
		# the second. Before the first fsync of the load there need be no store.
		for cut in $(for _ in 1 2 3; do echo $((last_count + (RANDOM * 32768 + RANDOM) % (count - last_count + 1))); done | sort -n); do
			((last_synced > 0)) || break
			read -r pos at < <("$DISK" build "$T/settled" "$T/log" "$pos" "$at" "$cut")
			try "$fs" some "$last_synced" "$begun" "$cut" "$pos" "$at" || bad=$((bad + 1))
		done
		read -r pos at < <("$DISK" build "$T/settled" "$T/log" "$pos" "$at" "$count")
		for how in all some none; do
			((synced > 0)) || break
			try "$fs" "$how" "$synced" "$begun" "$count" "$pos" "$at" || bad=$((bad + 1))
		done
		last_synced=$synced last_count=$count
	done <"$T/moments"
	is "$fs: every image is the state behind one operation, no synced one is lost" "$bad" 0
}

images=0
for fs in ${FS:-ext4 xfs}; do run_fs "$fs"; done
diag "$images images of disks were mounted, opened and checked"
ok 'there were some' [ "$images" -gt 10 ]
done_testing
