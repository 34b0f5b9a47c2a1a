#!/bin/bash
# SPDX-License-Identifier: MIT
# Memory is refused to the daemon, to libfuse and to the C library: the n-th allocation of a life (mount, work, unmount), once and
# from then on, for n = 1, 2, ... until a life asks less often. Each time: mounting fails in one line or works; each answer is
# right or says that there is no memory; nothing hangs; nothing leaks; what was acknowledged is there; check is clean; and once
# there is memory again the next operation is right.
# shellcheck source=memory.sh
. "$(dirname "$0")/memory.sh" || exit 1
extra=

# What one caller does: all of it in one process tree under one watchdog. Each answer that is an error goes to $T/errors.
cat >"$T/exercise" <<'END'
cd "$1" || exit
mkdir "$2" && cd "$2" || exit
try() { "$@" 2>&1 >/dev/null | sed "s|^|$*: |"; }
try cp "$3" g
try sync g
echo one 2>&1 >f || echo "f: not made: Input/output error"
try cat f
try ln f l
try ln -s f s
try mv g h
try setfattr -n user.a -v b h
try ls -lR .
try truncate -s 3M h
try stat -f .
try rm f l
try cat ../.msyncfs/status
END
exercise() { op bash "$T/exercise" "$MNT" "d$1" "$T/data" >"$T/errors" 2>&1; }
allowed='Cannot allocate memory|Input/output error|Read-only file system|No such file or directory|Transport endpoint is not connected|No locks available'

# life N COUNT: what was wrong; sets $hit.
life() {
	local n=$1 count=$2 mounted=0
	: >"$T/log"
	rm -f "$PLAN.live"
	arm "$n" "$count"
	# shellcheck disable=SC2086 # an option, or none
	env FAULT_FILE="$PLAN" "${preload[@]}" "$STARVED" mount -f -o sync-interval=0 $extra "$STORE" "$MNT" </dev/null >"$T/log" 2>&1 &
	DAEMON=$!
	wait_for -t 20 "is_mounted || ! kill -0 $DAEMON 2>/dev/null" || { echo 'it neither mounts nor ends'; kill -KILL $DAEMON; }
	if is_mounted; then
		mounted=1
		exercise "$n.$count"
		grep -vE "$allowed" "$T/errors"
		# Memory again: what the daemon has not given up for good works.
		if struck && kill -0 $DAEMON 2>/dev/null; then
			hit=1
			plan none
			if op grep -q ^state=ok "$MNT/.msyncfs/status" 2>/dev/null; then
				op cp "$T/data" "$MNT/after" && op cmp "$T/data" "$MNT/after" && op sync "$MNT/after" && op rm "$MNT/after" ||
					echo 'the next operation fails'
			fi
		fi
		! is_mounted || wait_for -t 10 try_unmount "$MNT" || { echo 'it cannot be unmounted'; umount -i -l "$MNT"; }
	fi
	wait_for -t 30 "! kill -0 $DAEMON 2>/dev/null" || { echo 'the daemon does not end'; kill -KILL $DAEMON; }
	wait $DAEMON
	status=$?
	! struck || hit=1
	! is_mounted || { echo 'a mount is left'; umount -i -l "$MNT"; }
	# A primary that misses memory in two places, to mount and to listen, says both.
	said $mounted $status '^msyncfs: remote mounts: no memory'
	leaks "$T/live" $mounted
	checked "$STORE" ''
}

# What was there before each life must be there after it, and nothing else. As a primary it lived too short to remove what was
# unlinked (a lease must pass, in case that another machine has it open): each opening would ask for memory for all of these, and the
# lives had more allocations each time. Alone it removes them at once.
intact() {
	local wrong=
	mount_store >/dev/null || { echo 'it cannot be mounted any more'; return; }
	op cmp "$T/data" "$MNT/kept" || wrong='what was there before is lost'
	op rm -rf "$MNT"/d* || wrong="$wrong, rm"
	# shellcheck disable=SC2016 # for wait_for
	wait_for '[ "$(status_of inodes)" = 2 ]' || wrong="$wrong, $(status_of inodes) inodes of two files are left"
	umount_store >/dev/null || wrong="$wrong, umount"
	[ -z "$wrong" ] || echo "$wrong"
}

diag "SEED=$SEED"
RANDOM=$((SEED % 32768))
seq 30000 >"$T/data"
mount_store >/dev/null || fail 'mount'
cp "$T/data" "$MNT/kept"
umount_store
hit=
# In the short form some places only, other ones each time; of our own calls alone there are about twenty, as a primary more.
stride() { case $MODE$1 in release*) echo 24;; asan) echo 3;; *) echo 8;; esac; }
# Alone, and as a primary that others could follow.
for extra in '' "--listen=$T/socket"; do
	rm -f "$T/live"
	life 0 0 >"$T/wrong"
	is "a life without faults${extra:+, as a primary}" "$(cat "$T/wrong")" ''
	[ "$MODE" != release ] || { cp "$PLAN.live" "$T/live"; ok 'the library was loaded' test -s "$T/live"; }
	for count in 1 0; do
		hits=0
		lives=0
		n=1
		bad=
		while [ $n -lt 100000 ]; do
			hit=
			life $n $count >"$T/wrong"
			lives=$((lives + 1))
			[ ! -s "$T/wrong" ] || bad="$bad allocation $n: $(head -n 6 "$T/wrong");"
			[ $((lives % 20)) != 0 ] || bad="$bad$(intact)"
			[ -n "$hit" ] || break
			hits=$((hits + 1))
			[ ${#bad} -lt 1500 ] || break
			if [ -n "$LONG" ]; then n=$((n + 1)); else n=$((n + 1 + RANDOM % $(stride "$extra"))); fi
		done
		faults=$((faults + hits))
		bad="$bad$(intact)"
		is "memory is refused $([ $count = 1 ] && echo once || echo 'for ever')${extra:+ to a primary}: $hits lives" "$bad" ''
		ok 'at many places' test $hits -gt 5
	done
done
finish
