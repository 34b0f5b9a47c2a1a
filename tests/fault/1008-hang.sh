#!/bin/bash
# SPDX-License-Identifier: MIT
# The primary's disk hangs (a frozen file system): its thread that makes changes stands still in a page fault, while its net thread
# lives and every link is up. No program on a remote mount may hang for that: after a while the primary ends its links, the patience of
# on-disconnect runs, and what a program hears is what it hears of a broken link. When the disk works again, all goes on, nothing that
# was acknowledged is lost, no call was made twice, locks are where they were.
# shellcheck disable=SC2016 # shell text for others

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need_root
need fsfreeze mkfs.ext4
[ "$(propagation)" = private ] || skip_all 'no mounts can be made here'

disk=$T/disk one=$T/one two=$T/two three=$T/three frozen=
mkdir "$one" "$two" "$three"
thaw() {
	[ -z "$frozen" ] || fsfreeze -u "$disk"
	frozen=
}
release() {
	thaw
	for m in "$three" "$two" "$one"; do ! is_mounted "$m" || umount -i -l "$m"; done
	wait_for -t 60 no_daemon "$disk/one.msync"
	umount -i "$disk" 2>/dev/null
}
trap 'without release' EXIT

value() { op sed -n "s/^$2=//p" "$T/$1/.msyncfs/status" 2>/dev/null | tr -d "'\""; }
in_step() { [ "$(value "$1" link_state)$(value one link_state)" = stream ] && [ "$(value "$1" seq)" = "$(value one seq)" ]; }

loop_disk "$T/image" 200M "$disk" ext4 || skip_all "no loop device: $(cat "$T/loop.err")"
mount_store -m "$one" -s "$disk/one.msync" --listen="$T/socket" || fail 'the primary is mounted'
mount_store -m "$two" -s "$T/two.msync" --from="$T/socket" -o on-disconnect=wait:3 || fail 'a patient remote mount'
mount_store -m "$three" -s "$T/three.msync" --from="$T/socket" -o on-disconnect=readonly || fail 'one that is not'
echo kept >"$one/kept" && : >"$one/lock" && sync "$one/kept"
wait_for 'in_step two && in_step three' || fail 'they are in step'

# A lock of a program that lives through it.
mkfifo "$T/go" "$T/has"
(exec 9<"$two/lock"; flock -x 9; echo >"$T/has"; read -r <"$T/go") &
holder=$!
read -r <"$T/has"

# What is clean is written to again: that waits in the kernel. The counter of appends says whether one was made twice.
fsfreeze -f "$disk" && frozen=1
began=$SECONDS
op sh -c 'for i in 1 2 3; do echo $i >>"$1" || echo "append $i: failed"; done' sh "$two/appends" >"$T/appends.out" 2>&1 &
appends=$!
op sync "$two/kept" >"$T/sync.out" 2>&1
sync_status=$?
op mkdir "$three/d" >"$T/mkdir.out" 2>&1
mkdir_status=$?
wait "$appends"
took=$((SECONDS - began))
is 'fsync on a remote mount fails' "$sync_status" 1
like 'with EIO' "$(cat "$T/sync.out")" 'Input/output error'
is 'a change on a mount without patience fails' "$mkdir_status" 1
like 'with EROFS or EIO' "$(cat "$T/mkdir.out")" 'Read-only file system|Input/output error'
like 'the appends fail' "$(cat "$T/appends.out")" 'append 3: failed'
ok "nobody waited for ever ($took s)" test "$took" -lt 120
is 'reads go on' "$(op cat "$two/kept")" kept
like 'status says why' "$(value two link_trouble)" 'stands still'
nok 'a try for a lock of another ends' op flock -xn "$three/lock" true

thaw
wait_for -t 60 'in_step two && in_step three' || fail 'the links come back'
pass 'the links come back'
nok 'the lock is still its holders' op flock -xn "$three/lock" true
echo >"$T/go"
wait "$holder"
ok 'and free when it is given up' op flock -x -w 20 "$three/lock" true
ok 'changes are made again' op sh -c 'echo again >"$1/again" && sync "$1/again" && mkdir "$2/e"' sh "$two" "$three"
wait_for 'in_step two && in_step three'
is 'no append was made twice' "$(sort "$one/appends" 2>/dev/null | uniq -d)" ''
for m in two three; do
	is "$m shows what the primary shows" "$(cd "$T/$m" && ls -lR --time-style=+%s | cksum)" "$(cd "$one" && ls -lR --time-style=+%s | cksum)"
done

for m in three two; do umount_store "$T/$m" "$T/$m.msync" || fail "$m is unmounted"; done
umount_store "$one" "$disk/one.msync" || fail 'the primary is unmounted'
for s in "$disk/one.msync" "$T/two.msync" "$T/three.msync"; do ok "check of ${s##*/}" "$MSYNCFS" check "$s"; done
umount -i "$disk"
finish
