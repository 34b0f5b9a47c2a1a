#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2034,SC2119,SC2120 # variables and optional arguments are for the tests
#
# lib.sh: what every mount test sources. It gives the test a directory of its own ($T) with a store ($STORE) and a
# mount point ($MNT), TAP helpers, and a trap that takes all of it away again however the test ends.
#
#   MSYNCFS   the program (default: the one of build/$MODE)      MODE   release, asan, tsan
#   CI=true   a tool or a device that is missing is a failure, not a reason to skip
#   KEEP=1    leave $T behind (unmounted) to look at
#   SEED      replays a random test

set -u
export LC_ALL=C TZ=UTC
umask 022

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
MODE=${MODE:-release}
MSYNCFS=${MSYNCFS:-$ROOT/build/$MODE/msyncfs}
HELPERS=$ROOT/build/$MODE/tests/helpers
SCRIPTS=$ROOT/mount-scripts
PATH=$HELPERS:$PATH
export MSYNCFS PATH

T=
STORE=
MNT=
test_count=0
test_failed=0
is_done=0

# ---------------------------------------------------------------------------------------------------------------- TAP
diag() { printf '%s\n' "$*" | cut -c1-400 | tr -c '[:print:]\n\t' '?' | sed 's/^/# /'; }

pass() {
	test_count=$((test_count + 1))
	printf 'ok %d - %s\n' "$test_count" "$*"
}

fail() {
	test_count=$((test_count + 1))
	test_failed=$((test_failed + 1))
	printf 'not ok %d - %s\n' "$test_count" "$*"
	return 1
}

# For unshare -m: in a chroot whose root is no mount point nothing can be made private.
propagation() { if unshare -m --propagation private true 2>/dev/null; then echo private; else echo unchanged; fi; }

# own_namespace COMMAND...: in a mount name space of its own. That begins as a copy of the mount table, and would hold the mounts of
# all tests that run beside this one: their daemons would outlive their umount. So they are let go of at once, in the copy only.
own_namespace() {
	local how mnt
	how=$(propagation)
	# shellcheck disable=SC2016 # the inner shell's own
	unshare -m --propagation "$how" bash -c '
		[ "$1" = private ] && awk "/ - fuse.msyncfs /{ print \$5 }" /proc/self/mountinfo | while read -r mnt; do
			umount -i -l -- "$(printf %b "${mnt//\\/\\0}")"
		done 2>/dev/null
		shift
		exec "$@"' own_namespace "$how" "$@"
}

# For a test that ordinary users mount in. udev makes /dev/fuse accessible to all; where it is not, the test begins anew in a mount name
# space of its own, which gets such a node.
fuse_for_all() {
	local status
	if [ -z "${FUSE_NODE:-}" ] && [ -z "$(find /dev/fuse -perm -006)" ]; then
		mknod "$T/fuse" c 10 229
		chmod 666 "$T/fuse"
		FUSE_NODE=$T/fuse own_namespace "$0"
		status=$?
		# The plan has been printed.
		is_done=1
		exit $status
	fi
	[ -z "${FUSE_NODE:-}" ] || mount -i --bind "$FUSE_NODE" /dev/fuse || skip_all 'cannot bind a device node'
}

# ok NAME COMMAND...: the command succeeds. Its output is shown when it does not.
ok() {
	local name=$1 out status
	shift
	out=$("$@" 2>&1 | tail -c 20000 | tr -d '\0'; exit "${PIPESTATUS[0]}")
	status=$?
	if [ "$status" = 0 ]; then pass "$name"; return 0; fi
	fail "$name"
	diag "status $status: $*"
	[ -z "$out" ] || diag "$(printf '%s\n' "$out" | tail -n 30)"
	return 1
}

# nok NAME COMMAND...: the command fails.
nok() {
	local name=$1 out
	shift
	if out=$("$@" 2>&1 | tail -c 20000 | tr -d '\0'; exit "${PIPESTATUS[0]}"); then
		fail "$name"
		diag "succeeded: $*"
		[ -z "$out" ] || diag "$(printf '%s\n' "$out" | tail -n 30)"
		return 1
	fi
	pass "$name"
}

# is NAME GOT WANT: the two words are equal.
is() {
	if [ "$2" = "$3" ]; then pass "$1"; return 0; fi
	fail "$1"
	diag "got:  ${2:0:2000}"
	diag "want: ${3:0:2000}"
	return 1
}

# like NAME GOT REGEX
like() {
	if [[ $2 =~ $3 ]]; then pass "$1"; return 0; fi
	fail "$1"
	diag "got:       ${2:0:2000}"
	diag "not like:  $3"
	return 1
}

# errno NAME WANT COMMAND...: the helper prints the name of the error that the system call gave (or "ok").
errno() {
	local name=$1 want=$2
	shift 2
	is "$name" "$("$@" 2>&1 | tail -n 1)" "$want"
}

# same NAME A B: two files have the same bytes.
same() { ok "$1" cmp -- "$2" "$3"; }

skip_one() {
	test_count=$((test_count + 1))
	printf 'ok %d # SKIP %s\n' "$test_count" "$*"
}

skip_all() {
	is_done=1
	if [ "${CI:-}" = true ]; then
		printf '1..1\nnot ok 1 - cannot run: %s\n' "$*"
		exit 1
	fi
	printf '1..0 # SKIP %s\n' "$*"
	exit 0
}

# What this MODE cannot show, whatever is installed: a reason to skip with CI=true too.
skip_mode() {
	is_done=1
	printf '1..0 # SKIP MODE=%s: %s\n' "$MODE" "$*"
	exit 0
}

bail() {
	printf 'Bail out! %s\n' "$*"
	exit 1
}

need() {
	local tool
	for tool; do
		command -v "$tool" >/dev/null || skip_all "$tool is missing"
	done
}

need_root() { [ "$(id -u)" = 0 ] || skip_all 'needs root'; }

# The plan comes last: it says how many tests there were. The mount is closed first, and a daemon that complained
# (sanitizers) or would not go fails the test.
done_testing() {
	local report
	if [ -n "$T" ]; then
		! is_mounted || umount_store >/dev/null 2>&1
		ok 'the daemon is gone after the last unmount' wait_for 'no_daemon'
		report=$(cat "$T"/san.* 2>/dev/null | head -n 60)
		is 'no sanitizer report' "$report" ''
	fi
	is_done=1
	printf '1..%d\n' "$test_count"
	[ "$test_failed" = 0 ]
	exit
}

# ------------------------------------------------------------------------------------------------------------ waiting
# wait_for [-t SECONDS] CONDITION...: poll until the command (or the shell text, if it is one word) is true.
wait_for() {
	local limit_s=30 deadline
	if [ "$1" = -t ]; then limit_s=$2; shift 2; fi
	deadline=$((SECONDS + limit_s))
	while :; do
		if [ $# = 1 ]; then eval "$1" && return 0; else "$@" && return 0; fi
		((SECONDS < deadline)) || return 1
		sleep 0.02
	done
}

# How much of a long random test to do: sanitized daemons are several times slower.
scaled() {
	case $MODE in
	release) echo "$1";;
	*) echo $((($1 + 4) / 5));;
	esac
}

# ------------------------------------------------------------------------------------------------------- mount, umount
# mount_store [-m MNT] [-s STORE] OPTION...
mount_store() {
	local mnt=$MNT store=$STORE
	while :; do
		case ${1:-} in
		-m) mnt=$2; shift 2;;
		-s) store=$2; shift 2;;
		*) break;;
		esac
	done
	# The daemon must not keep the test's output open: prove waits for its end.
	timeout 60 "$MSYNCFS" mount "$@" "$store" "$mnt" </dev/null >"$T/mount.out" 2>&1
	local status=$?
	cat "$T/mount.out"
	return $status
}

is_mounted() { grep -qF -- " $(escaped "${1:-$MNT}") " /proc/self/mountinfo; }
# As mountinfo has it.
escaped() {
	local s=${1//\\/\\134}
	s=${s// /\\040}
	s=${s//$'\t'/\\011}
	printf '%s' "${s//$'\n'/\\012}"
}

unmount() {
	if [ "$(id -u)" = 0 ]; then umount -i "$@"; else fusermount3 -u "$@"; fi
}

# Unmount, and wait until the daemon is gone: then the store is closed.
umount_store() {
	local mnt=${1:-$MNT} store=${2:-$STORE}
	is_mounted "$mnt" || { echo "$mnt is not mounted"; return 1; }
	wait_for -t 10 try_unmount "$mnt" || { cat "$T/umount.err"; return 1; }
	wait_for no_daemon "$store"
}
try_unmount() { unmount "$1" 2>"$T/umount.err"; }

remount_store() { umount_store && mount_store "$@"; }

# has_argument PID [-x] TEXT: is it in the command line (-x: a whole word of it)? The process may be gone by now.
has_argument() {
	local pid=$1
	shift
	{ tr '\0' '\n' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -q "${@:1:$#-1}" -F -- "${!#}"
}

# Processes of the program that have the store in their command line.
daemon_pids() {
	local store=${1:-$STORE} pid
	for pid in $(pgrep -x "$(basename "$MSYNCFS")"); do
		has_argument "$pid" -x "$store" || continue
		grep -q '^State:[[:space:]]*[ZX]' "/proc/$pid/status" 2>/dev/null || echo "$pid"
	done
}

no_daemon() { [ -z "$(daemon_pids "$@")" ]; }

# kill -9 the daemon; returns when the process is gone. The dead mount stays.
kill_daemon() {
	local pids
	pids=$(daemon_pids "$@")
	[ -n "$pids" ] || return 1
	# shellcheck disable=SC2086 # a list of numbers
	kill -KILL $pids
	# A list of arguments even if there are none: one word alone would be shell text.
	wait_for no_daemon "${1:-$STORE}"
}

# Value of one name of `msyncfs status`.
status_of() { sed -n "s/^$1=//p" "$MNT/.msyncfs/status" | tr -d "'\""; }

# ------------------------------------------------------------------------------------------------------ several mounts
# In a test with several, each has a name: NAME is the store $T/NAME.msync on the mount point $T/NAME.
# start NAME OPTION...
start() {
	local name=$1
	shift
	mount_store -m "$T/$name" -s "$T/$name.msync" "$@"
}
stop() { umount_store "$T/$1" "$T/$1.msync"; }
# value NAME KEY: of its status
value() { sed -n "s/^$2=//p" "$T/$1/.msyncfs/status" 2>/dev/null | tr -d "'\""; }
streams() { [ "$(value "$1" link_state)" = stream ]; }

# a_port: a number of a TCP port that nobody uses. Below those that the kernel gives to who connects (32768 and up, if nobody changed
# it): such a connection keeps its port from a listener for a minute after its end.
a_port() {
	local port
	while :; do
		port=$((10000 + (RANDOM + $$) % 22000))
		grep -qsi ":$(printf %04X $port) " /proc/net/tcp /proc/net/tcp6 || break
	done
	echo $port
}

# ------------------------------------------------------------------------------------------------------------- set-up
cleanup() {
	local status=$? mnt pid
	trap - EXIT INT TERM HUP
	cd / || :
	[ "$is_done" = 1 ] || printf '# the test ended early, status %d\n1..%d\n' "$status" $((test_count + 1))
	if [ -n "$T" ]; then
		# shellcheck disable=SC2046 # a list of numbers
		kill $(jobs -p) 2>/dev/null
		awk -v t="$(escaped "$T")/" 'index($5, t) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
		while read -r mnt; do
			mnt=$(printf '%b.' "${mnt//\\/\\0}")
			mnt=${mnt%.}
			unmount "$mnt" 2>/dev/null || umount -i -l "$mnt" 2>/dev/null || fusermount3 -u -z "$mnt"
		done
		for pid in $(pgrep -x "$(basename "$MSYNCFS")"); do
			has_argument "$pid" "$T/" || continue
			wait_for -t 10 "! [ -d /proc/$pid ]" || { kill -KILL "$pid"; wait_for -t 10 "! [ -d /proc/$pid ]"; }
		done
		if [ -n "${KEEP:-}" ]; then diag "kept: $T"; else rm -rf --one-file-system -- "$T"; fi
	fi
	exit "$status"
}

[ -x "$MSYNCFS" ] || bail "$MSYNCFS is missing: run make first"
[ -d "$HELPERS" ] || bail "$HELPERS is missing: run make test-programs first"

# A sourcing test that needs no mount sets NO_MOUNT=1 first.
if [ -z "${NO_MOUNT:-}" ]; then
	{ : <>/dev/fuse; } 2>/dev/null || skip_all '/dev/fuse cannot be opened'
	command -v fusermount3 >/dev/null || skip_all 'fusermount3 is missing'
fi
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
T=$(mktemp -d "${TMPDIR:-/tmp}/msyncfs-test.XXXXXX") || exit 1
chmod 755 "$T"
STORE=$T/store.msync
MNT=$T/mnt
mkdir "$MNT"
# Some tests run these as other users, who have no way into a tree that lies in root's home.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null &&
   ! setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$MSYNCFS" -a -r "$SCRIPTS/umount.msyncfs"; then
	mkdir "$T/tree"
	cp -r "$MSYNCFS" "$HELPERS" "$SCRIPTS" "$T/tree"
	MSYNCFS=$T/tree/msyncfs
	HELPERS=$T/tree/helpers
	SCRIPTS=$T/tree/mount-scripts
	PATH=$HELPERS:$PATH
fi
SEED=${SEED:-$((RANDOM * 32768 + RANDOM))}
export HOME=$T
# Sanitizer reports of a daemon in the background go to files, which done_testing reads.
export ASAN_OPTIONS="log_path=$T/san.asan:detect_leaks=1:abort_on_error=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="log_path=$T/san.ubsan:print_stacktrace=1:halt_on_error=1"
export TSAN_OPTIONS="log_path=$T/san.tsan:second_deadlock_stack=1${TSAN_OPTIONS:+:$TSAN_OPTIONS}"
