#!/bin/bash
# SPDX-License-Identifier: MIT
# Reads and writes of /dev/fuse fail. Once: the caller has an answer (at worst EIO), and what follows is right. For ever: the
# daemon unmounts and closes the store, which has all that was acknowledged. Never does a caller hang.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
[ "$MODE" = release ] || skip_mode 'a sanitizer does not go together with LD_PRELOAD'
SO=$ROOT/build/$MODE/tests/fault/device.so
[ -f "$SO" ] || bail "$SO is missing: run make test-programs first"
PLAN=$T/plan
: >"$PLAN"

plan() {
	rm -f "$PLAN.hit"
	printf '%s\n' "$*" >"$PLAN.new" && mv "$PLAN.new" "$PLAN"
}
struck() { [ -s "$PLAN.hit" ]; }

fault_daemon() { start_daemon FAULT_FILE="$PLAN" LD_PRELOAD="$SO" || { fail 'mount'; diag "$(cat "$T/log")"; done_testing; }; }

# A round of everything; each answer is right or an error that an interrupted mount gives. Sets $wrong.
round=0
exercise() {
	local a
	round=$((round + 1))
	wrong=
	for a in "mkdir $MNT/d$round" "touch $MNT/d$round/f" "cp $T/data $MNT/d$round/g" "sync $MNT/d$round/g" \
		"cat $MNT/d$round/g" "mv $MNT/d$round/g $MNT/d$round/h" "ls -l $MNT/d$round" "rm $MNT/d$round/f" \
		"stat -f $MNT"; do
		# shellcheck disable=SC2086 # a command and its words
		op $a >/dev/null 2>"$T/err" || grep -qE \
			'Input/output error|not connected|No such file|connection abort|No such device|cannot allocate|Structure' \
			"$T/err" || wrong="$a: $(cat "$T/err")"
	done
}

# The next operation is right.
works() {
	op cp "$T/data" "$MNT/after" && op cmp "$T/data" "$MNT/after" && op sync "$MNT/after" && op rm "$MNT/after"
}

open_files() { find "/proc/$DAEMON/fd" -type l 2>/dev/null | wc -l; }

seq 5000 >"$T/data"
fault_daemon
op cp "$T/data" "$MNT/kept" && op sync "$MNT/kept"
works
files=$(open_files)

once=(read:EINTR:4 read:ENOMEM:12 write:ENOMEM:12 write:short:0 write:EAGAIN:11 poll:ENOMEM:12)
[ -z "$LONG" ] || once+=(read:ENOENT:2 read:EAGAIN:11 read:EIO:5 read:EFAULT:14 read:EINVAL:22 write:EINTR:4 write:EIO:5
	write:EFAULT:14 write:EINVAL:22 write:EPERM:1 write:ENOSPC:28 write:EBADF:9 poll:EINTR:4 poll:EIO:5 poll:EINVAL:22)
last=${LONG:+20}
for fault in "${once[@]}"; do
	IFS=: read -r call name number <<<"$fault"
	bad=
	hits=0
	for first in $(seq 1 "${last:-3}"); do
		for count in 1 3; do
			plan "$call $first $count $number"
			exercise
			[ -z "$wrong" ] || bad="$first: $wrong"
			! struck || { hits=$((hits + 1)); faults=$((faults + $(stat -c %s "$PLAN.hit"))); }
			plan none
			works || bad="$first: the next operation failed"
			kill -0 "$DAEMON" 2>/dev/null || { bad="$first: the daemon ended"; break 2; }
		done
	done
	is "$call fails once with $name, at each place ($hits hit): answered, and right again" "$bad" ''
	kill -0 "$DAEMON" 2>/dev/null || fault_daemon
done
is 'no descriptor was lost' "$(open_files)" "$files"
ok 'what was there is there' op cmp "$T/data" "$MNT/kept"
stop_daemon
is 'the daemon ends in order' "$status" 0
check_store 'after failures that passed'

forever=(read:EIO:5 write:ENOMEM:12)
[ -z "$LONG" ] || forever+=(read:ENODEV:19 read:ENOMEM:12 read:EAGAIN:11 read:ENOENT:2 read:EINVAL:22 read:ECONNABORTED:103
	write:EIO:5 write:EAGAIN:11 write:short:0 write:EINTR:4 write:EFAULT:14)
for fault in "${forever[@]}"; do
	IFS=: read -r call name number <<<"$fault"
	plan none
	: >"$T/log"
	fault_daemon
	op cp "$T/data" "$MNT/before-$call-$name"
	plan "$call 3 0 $number"
	exercise
	is "$call fails for ever with $name: no wrong answer" "$wrong" ''
	ok "$call $name: the daemon ends by itself" daemon_ended
	nok "$call $name: no mount is left" is_mounted
	wait "$DAEMON"
	faults=$((faults + 1))
	plan none
	check_store "$call $name"
	fault_daemon
	ok "$call $name: all that was acknowledged is there" op cmp "$T/data" "$MNT/before-$call-$name"
	stop_daemon
done

# The very first reply: the mount command says that it failed.
plan "write 1 0 12"
timeout 60 env FAULT_FILE="$PLAN" LD_PRELOAD="$SO" "$MSYNCFS" mount "$STORE" "$MNT" </dev/null >"$T/out" 2>&1
is 'INIT cannot be answered: the mount command fails' $(($? != 0)) 1
ok 'and no daemon is left' wait_for no_daemon
nok 'nor a mount' is_mounted
plan none

# The connection is cut under load. What is mounted for it goes again.
CONTROL=/sys/fs/fuse/connections
control_mounted=
if ! mountpoint -q $CONTROL && mount -i -t fusectl none $CONTROL 2>/dev/null; then
	control_mounted=1
	trap 'without umount -i $CONTROL' EXIT
fi
for how in abort force; do
	fault_daemon
	# Within the mount: outside it would go on in the directory below.
	(cd "$MNT" && i=0; while echo $((++i)) >"load-$how.tmp" && mv "load-$how.tmp" "load-$how" && echo $i; do :; done) \
		>"$T/acked" 2>/dev/null &
	load=$!
	wait_for "[ \"\$(tail -n 1 '$T/acked' | grep . || echo 0)\" -gt 100 ]"
	if [ $how = abort ]; then
		id=$(stat -c %d "$MNT")
		if ! echo 1 2>/dev/null >"$CONTROL/$id/abort"; then
			skip_one 'the connection cannot be aborted here'
			umount -i -l "$MNT"
		fi
	else
		umount -i -f -l "$MNT"
	fi
	ok "$how: the daemon ends" daemon_ended
	wait "$DAEMON"
	is "$how: in order" "$?" 0
	! is_mounted || umount -i -l "$MNT"
	wait $load
	check_store "$how"
	fault_daemon
	got=$(op cat "$MNT/load-$how")
	ok "$how: what was acknowledged is there" test "$got" -ge "$(tail -n 1 "$T/acked")"
	stop_daemon
	rm -f "$T/acked"
done
if [ -n "$control_mounted" ]; then
	ok 'the control file system of FUSE is unmounted again' umount -i $CONTROL
	trap cleanup EXIT
fi
finish
