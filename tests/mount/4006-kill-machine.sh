#!/bin/bash
# SPDX-License-Identifier: MIT
# A small part of the kill machine (tests/kill/README.md, `make kill`): the daemon is killed under load in every way, and
# each time all that was acknowledged is there and nothing is left.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
KILL=$ROOT/build/$MODE/tests/kill
[ -x "$KILL/kill" ] || bail "$KILL/kill is missing: run make test-programs first"
need git sqlite3

# A sanitizer does not go together with LD_PRELOAD: then there are no chosen points.
points=
[ "$MODE" != release ] || points=$KILL/points.so

# machine NAME WORD=VALUE...: nothing is lost. Its figures in $T/figures.
machine() {
	local name=$1 dir
	shift
	dir=$(mktemp -d "$T/k.XXX")
	PROGRAM=$MSYNCFS POINTS=$points SCRIPTS=$ROOT/tests/kill "$KILL/kill" "$dir" SEED="$SEED" JOBS=2 "$@" >"$T/figures" 2>&1
	is "$name: nothing is lost" "$?" 0
	cat "$T/figures"
}
figure() { sed -nE "s/.*[^0-9]([0-9]+) $1.*/\1/p" "$T/figures" | head -n 1; }
more_than() { [ "${2:-0}" -gt "$1" ]; }

diag "SEED=$SEED"
machine 'every way' LIVES="$(scaled 8)" ROUNDS=14
ok 'there were kills' more_than 10 "$(figure kills)"
ok 'operations were acknowledged' more_than 100 "$(figure operations)"
machine 'two for one mount point' KIND=race-mount-point LIVES=2 ROUNDS=5
ok 'each time one lost, and said so' more_than 9 "$(figure 'races lost')"
machine 'many for one new store' KIND=race-new-store LIVES=2 ROUNDS=5
ok 'each time one won' more_than 9 "$(figure 'races lost')"
machine 'sqlite and git' KIND=programs LIVES=2 ROUNDS=4
ok 'they committed' more_than 4 "$(figure 'commits of')"
machine 'a full journal' KIND=journal LIVES=2 ROUNDS=3
ok 'it was at least half full' more_than 2 "$(sed -nE 's/.*half full at ([0-9]+) kills.*/\1/p' "$T/figures")"
done_testing
