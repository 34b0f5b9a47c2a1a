#!/bin/bash
# SPDX-License-Identifier: MIT
# The disk below the store fills up and empties again, and at last fails for real: writeback to a loop device whose file lies
# on a file system that is full gives EIO to msync.
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
	tmpfs) mkdir "$disk" && mount -i -t tmpfs -o size=48m none "$disk" || { skip_one "no $1 here"; return; };;
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

# The disk takes no more writes, although it said that there was room. SYNC: who waits for it.
broken_disk() { # TYPE HOW
	local outer=$T/outer disk=$T/broken i before acked writers=() w
	mkdir -p "$outer"
	mount -i -t tmpfs -o size=150m none "$outer" || { skip_one 'no tmpfs here'; return; }
	loop_disk "$outer/img" 400M "$disk" "$1" || { skip_one "no $1 on a loop device here"; umount -i "$outer"; return; }
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
	is "$1: and why" "$(op grep -E '^failed_errno=' "$MNT/.msyncfs/status")" failed_errno=5
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
