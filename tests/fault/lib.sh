# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034 # variables are for the tests
# lib.sh: what the fault tests add to that of the mount tests. Every operation on a mount goes through `op`, which has a
# bound: a mount that hangs fails the test, it does not hang it.
#
#   FAULT_LONG=1   all errors and all positions (make fault); else a fixed small part (make test)
# shellcheck source=../mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../mount/lib.sh" || exit 1

LONG=${FAULT_LONG:-}
OP_LIMIT_S=40           # parked writers give up after 30 s
faults=0

# op COMMAND...: under the watchdog; 124: it hung.
op() {
	local status
	printf . >>"$T/operations"
	timeout -k 5 "$OP_LIMIT_S" "$@"
	status=$?
	# Often called in a subshell: finish() fails the test.
	[ "$status" != 124 ] && [ "$status" != 137 ] || printf '%s\n' "$*" >>"$T/hung"
	return "$status"
}

# The daemon in the foreground of a subshell of ours, with its log in $T/log: start_daemon [VAR=VALUE...] [-- OPTION...]
DAEMON=
start_daemon() {
	local env=() mounted ready=is_mounted
	# The dead mount of a killed daemon is still in the table: only an answer shows the new one. 65735546: the kernel's FUSE.
	# shellcheck disable=SC2016 # for eval
	! is_mounted || ready='[ "$(timeout 5 stat -f -c %t "$MNT" 2>/dev/null)" = 65735546 ]'
	while [ $# -gt 0 ] && [ "$1" != -- ]; do env+=("$1"); shift; done
	[ $# -eq 0 ] || shift
	env "${env[@]}" "$MSYNCFS" mount -f "$@" "$STORE" "$MNT" </dev/null >>"$T/log" 2>&1 &
	DAEMON=$!
	wait_for -t 20 "$ready || ! kill -0 $DAEMON 2>/dev/null" && eval "$ready"
	mounted=$?
	# Mounted is not answered: the kernel has its INIT when this returns.
	[ $mounted != 0 ] || timeout 20 stat -f "$MNT" >/dev/null 2>&1
	return $mounted
}

# Unmount and wait for the daemon; its exit status in $status.
stop_daemon() {
	is_mounted && { wait_for -t 10 try_unmount "$MNT" || unmount -l "$MNT"; }
	wait_for -t 30 "! kill -0 $DAEMON 2>/dev/null" || { fail 'the daemon does not end'; kill -KILL "$DAEMON"; }
	wait "$DAEMON"
	status=$?
	return 0
}

# For a trap: undo something with this command, then what is always done at the end.
without() {
	local status=$?
	"$@"
	(exit $status)
	cleanup
}

# A daemon that has ended or ends by itself.
daemon_ended() {
	wait_for -t "${1:-20}" "! kill -0 $DAEMON 2>/dev/null"
}

# loop_disk FILE SIZE DIR TYPE: a file system of its own on a loop device.
loop_disk() {
	truncate -s "$2" "$1" || return 1
	case $4 in
	ext4) mkfs.ext4 -q -F -m 0 -E lazy_itable_init=0,lazy_journal_init=0 "$1" || return 1;;
	xfs) mkfs.xfs -q -f "$1" || return 1;;
	btrfs) mkfs.btrfs -q -f "$1" >"$T/loop.err" 2>&1 || return 1;;
	esac
	mkdir -p "$3"
	mount -i -o loop "$1" "$3" 2>"$T/loop.err" || { cat "$T/loop.err"; return 1; }
}

# The store can be opened, has what it should have, and is whole.
check_store() {
	ok "$1: check" "$MSYNCFS" check "$STORE"
}

finish() {
	is 'nothing hung' "$(cat "$T/hung" 2>/dev/null)" ''
	diag "$faults faults, $(stat -c %s "$T/operations") operations under the watchdog, none hung"
	done_testing
}
