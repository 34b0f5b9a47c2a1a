#!/bin/bash
# SPDX-License-Identifier: MIT
# make remote-mutants: what remote mounts promise, broken on purpose, one thing at a time, in a copy of the sources. The checker of
# histories (tests/remote/history.sh) must find each one. A mutant whose old text is not found exactly once is an error: then the
# code has changed, and the mutant must follow it. Not here: a remote mount that answers before its own store has the change (R3). On one
# link results come behind their changes, so it shows only when the primary changes: `make sim-mutants`.
#   tests/remote/mutants.sh [NAME...]      TRIES=3: runs that one mutant gets; KEEP=1: leave the copies
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=../mutants.sh
. tests/mutants.sh
sources=(core fs tests)
built=("build/$MODE")
TRIES=${TRIES:-3}

# run: build it and let it run until the checker finds something.
run() {
	local i

	build msyncfs || return 0
	for ((i = 1; i <= TRIES; i++)); do
		machine env MSYNCFS="$T/src/build/$MODE/msyncfs" MODE="$MODE" SECONDS_EACH=5 timeout 200 tests/remote/history.sh
		grep -qE '^not ok .*(order of what|the programs end well)' "$T/out" && { verdict 0 "run $i"; return; }
	done
	verdict 1 "in $TRIES runs"
}

begin twice P6 'the primary does a call again that is sent again'
change core/keys/cluster.c '	if (in_slot != request)
		return in_slot > request ? -ESTALE : -ENOENT;' '	return -ENOENT;'
run

begin stale-pages P6 'the kernel is not told of contents that others changed'
change fs/notify.c '	(void)device_notify(fd, iov, 2);' '	(void)fd, (void)iov;'
run

begin stale-names P6 'the kernel is not told of names that others changed'
change fs/notify.c '	(void)device_notify(fd, iov, 3);' '	(void)fd, (void)iov;'
run

begin append-where P6 'an append goes where this kernel believes the end to be'
change fs/ops_data.c 'return (fi->flags & O_APPEND) != 0 && fs->shared != NULL ? CALL_APPEND : CALL_WRITE;' '(void)fs;
	return fi->fh == (uint64_t)-1 ? CALL_APPEND : CALL_WRITE;'
run

begin told-late P6 'the primary answers a call before its own kernel was told of the change'
change fs/remote_run.c '	       (remote_parks(l) || notify_told(l->notify, u->mark) ||' '	       (true || remote_parks(l) || notify_told(l->notify, u->mark) ||'
run

finish remote-mutants
