#!/bin/bash
# SPDX-License-Identifier: MIT
# The disk below the store fills up and empties again; the quota that the store is under is used up and raised; at last the
# disk fails for real: writeback to a loop device whose file lies on a file system that is full gives EIO to msync.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need_root

# fill DIR PREFIX: files with a known content until one is refused; says why.
n=0
fill() {
	local why
	while n=$((n + 1)); [ $n -lt 100000 ]; do
		head -c 150000 /dev/urandom >"$T/chunk"
		rm -f "$T/sum.f$n"
		why=$(op dd if="$T/chunk" of="$1/f$n" bs=150000 status=none 2>&1) || { op rm -f "$1/f$n"; echo "$why"; return; }
		cksum <"$T/chunk" >"$T/sum.f$n"
	done
}
survivors() {
	local s wrong=0
	for s in "$T"/sum.*; do
		[ "$(op cksum <"$MNT/${s##*/sum.}" 2>/dev/null)" = "$(cat "$s")" ] || wrong=$((wrong + 1))
	done
	echo $wrong
}
# Take some away, in the store and in what we remember.
remove_some() {
	local s i=0
	for s in "$T"/sum.*; do
		[ $((i++ % 3)) = 0 ] || continue
		op rm "$MNT/${s##*/sum.}" && rm "$s"
	done
}
write_one() { op cp "$T/one" "$MNT/one" 2>/dev/null; }

full_disk() { # TYPE
	local disk=$T/disk-$1 round
	case $1 in
	tmpfs)
		mkdir "$disk"
		mount -i -t tmpfs -o size=48m none "$disk" || { skip_one "no $1 here"; return; };;
	*) loop_disk "$T/img-$1" "$2" "$disk" "$1" || { skip_one "no $1 on a loop device here"; return; };;
	esac
	STORE=$disk/store.msync
	rm -f "$T"/sum.*
	: >"$T/log"
	start_daemon || { fail "$1: mount"; return; }
	for round in 1 2 3 4; do
		# In turn: the store itself fills the disk; somebody else does.
		if [ $((round % 2)) = 0 ]; then
			remove_some
			dd if=/dev/zero of="$disk/other" bs=64k status=none 2>/dev/null
		fi
		like "$1, round $round: a full disk is ENOSPC" "$(fill "$MNT")" 'No space left'
		faults=$((faults + 1))
		is "$1, round $round: what was written is there" "$(survivors)" 0
		ok "$1, round $round: fsync works on a full disk" op sync "$MNT"
		remove_some
		ok "$1, round $round: deletes make room" wait_for -t 45 write_one
		ok "$1, round $round: which is right" op cmp "$T/one" "$MNT/one"
		rm -f "$disk/other"
	done
	fill "$MNT" >/dev/null
	is "$1: the store has not failed" "$(op grep ^state= "$MNT/.msyncfs/status")" state=ok
	kill -KILL "$DAEMON"
	wait "$DAEMON" 2>/dev/null
	start_daemon || { fail "$1: mount after kill -9 on a full disk"; diag "$(tail -n 3 "$T/log")"; return; }
	is "$1: after kill -9 on a full disk all is there" "$(survivors)" 0
	stop_daemon
	is "$1: the daemon ends in order" "$status" 0
	check_store "$1"
	umount -i "$disk" || fail "$1: the disk is still in use"
}

head -c 300000 /dev/urandom >"$T/one"
if [ -n "$LONG" ]; then
	full_disk tmpfs
	full_disk ext4 64M
	full_disk xfs 320M
fi

# A quota. It is the store that is over it, not the writer: a quota of its own this file system does not have. So the writer
# gets ENOSPC, as from any full disk.
stored() { find "$T" -maxdepth 1 -name "sum.*" | wc -l; }
set_quota() { echo "$1" >"$T/quota.new" && mv "$T/quota.new" "$T/quota"; }
quota() {
	local before round
	[ "$MODE" = release ] || { skip_one 'a sanitizer does not go together with LD_PRELOAD'; return; }
	STORE=$T/quota.msync
	rm -f "$T"/sum.*
	: >"$T/log"
	set_quota 48000000
	start_daemon QUOTA_FILE="$T/quota" LD_PRELOAD="$ROOT/build/$MODE/tests/fault/quota.so" ||
		{ fail 'quota: mount'; diag "$(cat "$T/log")"; return; }
	for round in 1 2; do
		like "quota, round $round: used up is ENOSPC" "$(fill "$MNT")" 'No space left'
		faults=$((faults + 1))
		is "quota, round $round: what was written is there" "$(survivors)" 0
		ok "quota, round $round: fsync works" op sync "$MNT"
		is "quota, round $round: the store has not failed" "$(op grep ^state= "$MNT/.msyncfs/status")" state=ok
		ok "quota, round $round: the store keeps to it" test "$(stat -c %s "$STORE")" -le $((round * 48000000))
		remove_some
		ok "quota, round $round: deletes make room" wait_for -t 45 write_one
		ok "quota, round $round: which is right" op cmp "$T/one" "$MNT/one"
		like "quota, round $round: used up again" "$(fill "$MNT")" 'No space left'
		before=$(stored)
		set_quota 96000000
	done
	set_quota 144000000
	ok 'quota: once it is raised, writing goes on' wait_for -t 45 write_one
	like 'quota: up to the new one' "$(fill "$MNT")" 'No space left'
	ok "quota: by many files ($(($(stored) - before)))" test $(($(stored) - before)) -gt 100
	kill -KILL "$DAEMON"
	wait "$DAEMON" 2>/dev/null
	start_daemon QUOTA_FILE="$T/quota" LD_PRELOAD="$ROOT/build/$MODE/tests/fault/quota.so" ||
		{ fail 'quota: mount after kill -9 with the quota used up'; diag "$(tail -n 3 "$T/log")"; return; }
	is 'quota: after kill -9 all is there' "$(survivors)" 0
	stop_daemon
	is 'quota: the daemon ends in order' "$status" 0
	check_store 'quota'
	rm -f "$STORE"
}
quota

# The quota of a btrfs also refuses to write to blocks that the file has already. That is no full disk but a disk that fails:
# the writer is told, and what was acknowledged is there once the quota is gone.
quota_btrfs() {
	local disk=$T/disk-quota
	command -v btrfs >/dev/null || { skip_one 'no btrfs here'; return; }
	loop_disk "$T/img-quota" 512M "$disk" btrfs || { skip_one "no btrfs on a loop device here"; return; }
	if ! { btrfs -q subvolume create "$disk/sub" && btrfs -q quota enable "$disk" &&
		btrfs -q qgroup limit 64M "$disk/sub"; }; then
		skip_one 'no quota on btrfs here'
		umount -i "$disk"
		return
	fi
	STORE=$disk/sub/store.msync
	rm -f "$T"/sum.*
	: >"$T/log"
	start_daemon || { fail 'btrfs quota: mount'; diag "$(cat "$T/log")"; return; }
	ok 'btrfs: a new store is written in place' sh -c "lsattr '$STORE' | grep -q '^[^ ]*C'"
	like 'btrfs quota: the writer is told' "$(fill "$MNT")" 'No space left|Input/output|Read-only'
	faults=$((faults + 1))
	ok 'btrfs quota: the disk itself has room' test "$(df --output=avail "$disk" | tail -n 1)" -gt 100000
	is 'btrfs quota: what was written can be read' "$(survivors)" 0
	stop_daemon
	like 'btrfs quota: the daemon ends' "$status" '^[01]$'
	btrfs -q qgroup limit none "$disk/sub"
	: >"$T/log"
	start_daemon || { fail 'btrfs quota: mount without it'; diag "$(tail -n 3 "$T/log")"; return; }
	is 'btrfs quota: all is there without it' "$(survivors)" 0
	ok 'btrfs quota: and it works' op cp "$T/one" "$MNT/one"
	stop_daemon
	check_store 'btrfs quota'
	umount -i "$disk" || fail 'btrfs quota: the disk is still in use'
}
[ -z "$LONG" ] || quota_btrfs

# The disk takes no more writes, although it said that there was room. SYNC: who waits for it.
broken_disk() { # TYPE HOW
	local outer=$T/outer disk=$T/broken device i before acked writers=() w
	mkdir -p "$outer"
	mount -i -t tmpfs -o size=150m none "$outer" || { skip_one 'no tmpfs here'; return; }
	loop_disk "$outer/img" 400M "$disk" "$1" || { skip_one "no $1 on a loop device here"; umount -i "$outer"; return; }
	# The loop driver calls a write that came to an end half-way a success. A disk that lies is another test: one page at a
	# time is written, or not.
	device=$(awk -v m="$(escaped "$disk")" '$2 == m { print $1 }' /proc/mounts)
	if ! echo 4 >"/sys/block/${device##*/}/queue/max_sectors_kb"; then
		skip_one 'the loop device writes more than a page at a time'
		umount -i "$disk" "$outer"
		return
	fi
	STORE=$disk/store.msync
	: >"$T/log"
	start_daemon || { fail "$1: mount"; return; }
	op cp "$T/one" "$MNT/before"
	op sync "$MNT/before"
	# The outer file system is nearly full from now on: most of the image's holes can get no blocks.
	dd if=/dev/zero of="$outer/full" bs=1M status=none 2>/dev/null
	truncate -s -8M "$outer/full"
	# Several that write and wait for fsync; each notes what it was told. Who is between two files when another's fsync
	# fails hears of it at the next one: EROFS.
	for w in 1 2 3; do
		(i=0; while i=$((i + 1)); head -c 200000 /dev/urandom >"$T/w$w.$i" && op cp "$T/w$w.$i" "$MNT/w$w.$i" 2>"$T/w$w.err" &&
			op sync "$MNT/w$w.$i" 2>"$T/w$w.err"; do echo $i >>"$T/w$w.acked"; done
		grep -qE 'Input/output|Read-only' "$T/w$w.err" || exit 3) &
		writers+=($!)
	done
	for w in 1 2 3; do
		wait "${writers[w - 1]}"
		is "$1: writer $w is told, and does not hang" $? 0 || diag "$(cat "$T/w$w.err")"
	done
	ok "$1: an fsync said EIO" grep -q 'Input/output' "$T"/w?.err
	faults=$((faults + 1))
	is "$1: status says that it failed" "$(op grep -E '^state=' "$MNT/.msyncfs/status")" state=failed
	# The loop device says that its disk is full; which of the two msync gives is the file system's affair.
	like "$1: and why" "$(op grep -E '^failed_errno=' "$MNT/.msyncfs/status")" '^failed_errno=(5|28)$'
	is "$1: changes are refused" "$(op sysop open rw,creat "$MNT/new" 2>&1 | tail -n 1)" EROFS ||
		diag "$(op touch "$MNT/new" 2>&1)"
	ok "$1: a later fsync is no success" sh -c "! timeout 20 sync '$MNT/before'"
	ok "$1: what is there can be read" op cmp "$T/one" "$MNT/before"
	is "$1: one clear line in the log" "$(grep -c 'STORE FAILED' "$T/log")" 1
	stop_daemon
	is "$1: the daemon says that it was not closed well" "$status" 1
	# The disk is well again.
	rm "$outer/full"
	umount -i "$disk" 2>/dev/null
	is_mounted "$disk" && { fail "$1: the disk is still in use"; return; }
	[ "$1" != ext4 ] || e2fsck -fy "$outer/img" >/dev/null 2>&1
	mount -i -o loop "$outer/img" "$disk" || { fail "$1: the disk cannot be mounted again"; return; }
	check_store "$1, once the disk is well"
	start_daemon || { fail "$1: mount again"; diag "$(tail -n 2 "$T/log")"; return; }
	ok "$1: what was synced before is there" op cmp "$T/one" "$MNT/before"
	for w in 1 2 3; do
		acked=$(tail -n 1 "$T/w$w.acked" 2>/dev/null || echo 0)
		before=0
		for i in $(seq 1 "$acked"); do op cmp -s "$T/w$w.$i" "$MNT/w$w.$i" || before=$((before + 1)); done
		is "$1: of the $acked files whose fsync returned to writer $w, lost" "$before" 0
	done
	ok "$1: and it works" write_one
	stop_daemon
	umount -i "$disk"
	umount -i "$outer" || fail "$1: still in use"
	rm -f "$T"/w?.*
}
broken_disk ext4
[ -z "$LONG" ] || broken_disk xfs
finish
