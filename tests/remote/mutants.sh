#!/bin/bash
# SPDX-License-Identifier: MIT
# make remote-mutants: what remote mounts promise, broken on purpose, one thing at a time, in a copy of the sources. The checker of
# histories (tests/remote/history.sh) must find each one. A mutant whose old text is not found exactly once is an error: then the
# code has changed, and the mutant must follow it. Not here: a remote mount that answers before its own store has the change (R3). On one
# link results come behind their changes, so it shows only when the primary changes: `make sim-mutants`.
#   tests/remote/mutants.sh [NAME...]      TRIES=3: runs that one mutant gets; KEEP=1: leave the copies
set -u
cd "$(dirname "$0")/../.." || exit 2
MODE=${MODE:-release}
CC=${CC:-gcc}
TRIES=${TRIES:-3}
T=$(mktemp -d "${TMPDIR:-/tmp}/msyncfs-mutants.XXXXXX") || exit 2
clean_up() { [ -n "${KEEP:-}" ] || rm -rf -- "$T"; }
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

wanted=("$@")
found=0 missed=0 errors=0

is_wanted() {
	local w
	((${#wanted[@]} == 0)) && return 0
	for w in "${wanted[@]}"; do [ "$w" = "$name" ] && return 0; done
	return 1
}

# begin NAME WHAT: a fresh copy. What make has built comes along, with its times: only what changes is built again.
begin() {
	name=$1 what=$2 active=0 ok=1
	is_wanted || return 0
	active=1
	rm -rf "${T:?}/src" && mkdir -p "$T/src/build" || exit 2
	cp -a Makefile core fs tests "$T/src/" && cp -a "build/$MODE" "$T/src/build/" || exit 2
}

# change FILE OLD NEW: OLD is there exactly once.
change() {
	((active && ok)) || return 0
	OLD=$2 NEW=$3 perl -0777 -pi -e '
		my $n = () = /\Q$ENV{OLD}\E/g;
		if ($n != 1) { print STDERR "$ARGV: the text to change is there $n times\n"; $bad = 1 } else { s/\Q$ENV{OLD}\E/$ENV{NEW}/ }
		END { $? = 1 if $bad }' "$T/src/$1" || ok=0
}

# run: build it and let it run until the checker finds something.
run() {
	local i why=''
	((active)) || return 0
	if ((ok)) && ! make -C "$T/src" MODE="$MODE" CC="$CC" "build/$MODE/msyncfs" >"$T/make.out" 2>&1; then
		tail -n 5 "$T/make.out" >&2
		ok=0
	fi
	if ((!ok)); then
		printf 'error      %-14s %s\n' "$name" 'cannot be made'
		errors=$((errors + 1))
		return
	fi
	for ((i = 1; i <= TRIES; i++)); do
		env MSYNCFS="$T/src/build/$MODE/msyncfs" MODE="$MODE" SECONDS_EACH=5 timeout 200 tests/remote/history.sh >"$T/out" 2>&1
		why=$(grep -E '^not ok .*(order of what|the programs end well)' "$T/out" | head -n 1)
		[ -z "$why" ] || break
	done
	if [ -n "$why" ]; then
		printf 'found      %-14s run %d: %s\n           because: %s\n' "$name" "$i" "$what" \
			"$(grep -E '^# *(key [0-9]+: no|got:.*(netlog))' "$T/out" | head -n 1 | cut -c 3-160)"
		found=$((found + 1))
	else
		printf 'NOT FOUND  %-14s in %d runs: %s\n' "$name" "$TRIES" "$what"
		grep '^not ok' "$T/out" | head -n 3
		missed=$((missed + 1))
	fi
}

begin twice 'the primary does a call again that is sent again'
change core/keys/cluster.c '	if (in_slot != request)
		return in_slot > request ? -ESTALE : -ENOENT;' '	return -ENOENT;'
run

begin stale-pages 'the kernel is not told of contents that others changed'
change fs/notify.c '	(void)device_notify(fd, iov, 2);' '	(void)fd, (void)iov;'
run

begin stale-names 'the kernel is not told of names that others changed'
change fs/notify.c '	(void)device_notify(fd, iov, 3);' '	(void)fd, (void)iov;'
run

begin append-where 'an append goes where this kernel believes the end to be'
change fs/ops_data.c 'return (fi->flags & O_APPEND) != 0 && fs->shared != NULL ? CALL_APPEND : CALL_WRITE;' '(void)fs;
	return fi->fh == (uint64_t)-1 ? CALL_APPEND : CALL_WRITE;'
run

begin told-late 'the primary answers a call before its own kernel was told of the change'
change fs/remote.c '	       (remote_parks(l) || notify_told(l->notify, u->mark) ||' '	       (true || remote_parks(l) || notify_told(l->notify, u->mark) ||'
run

printf 'remote-mutants: %d found, %d not found, %d errors\n' "$found" "$missed" "$errors"
[ $((missed + errors)) = 0 ]
