#!/bin/sh
# SPDX-License-Identifier: MIT
#
# run.sh DIR SECONDS TARGET...: run each fuzz target of DIR on a copy of its corpus, two at a time; tell what was run. What is found
# is left in DIR/found/. MERGE=1: afterwards tests/fuzz/corpus becomes the fewest inputs that reach all that was reached.
# (Inputs that once found something are kept apart, in tests/fuzz/found/TARGET.)
set -u
dir=$1 seconds=$2
shift 2
corpus=tests/fuzz/corpus
work=$dir/work
found=$dir/found
mkdir -p "$work" "$found"
export ASAN_OPTIONS="quarantine_size_mb=16:${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"

pids=
# shellcheck disable=SC2317 # called by the trap
stop() {
	for p in $pids; do
		kill "$p" 2>/dev/null
	done
	exit 130
}
trap stop INT TERM

run() {
	mkdir -p "$work/$1" "$corpus/$1"
	old=
	[ ! -d "tests/fuzz/found/$1" ] || old=tests/fuzz/found/$1
	# shellcheck disable=SC2086 # none or one
	"$dir/fuzz_$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2500 -max_len=1500 -print_final_stats=1 \
		-artifact_prefix="$found/$1-" "$work/$1" "$corpus/$1" $old >"$work/$1.log" 2>&1
	echo $? >"$work/$1.exit"
}

# The fewest inputs that reach all that was reached.
merge() {
	rm -rf "$work/$1.min"
	mkdir -p "$work/$1.min"
	"$dir/fuzz_$1" -set_cover_merge=1 -use_counters=0 -max_len=1500 "$work/$1.min" "$corpus/$1" "$work/$1" \
		>"$work/$1.merge.log" 2>&1 || return
	rm -rf "${corpus:?}/$1"
	mv "$work/$1.min" "$corpus/$1"
	echo "fuzz: $1: its corpus is now $(find "$corpus/$1" -type f | wc -l) inputs"
}

failed=0
while [ $# -gt 0 ]; do
	pair="$1 ${2:-}"
	shift
	[ $# -gt 0 ] && shift
	pids=
	for t in $pair; do
		run "$t" &
		pids="$pids $!"
	done
	wait
	for t in $pair; do
		runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$t.log")
		if [ "$(cat "$work/$t.exit")" = 0 ]; then
			echo "fuzz: $t: ${runs:-0} executions in $seconds s, nothing found"
		else
			echo "fuzz: $t: FOUND something after ${runs:-?} executions, see $found/ and:"
			grep -aE 'ERROR: |SUMMARY: |this must hold|runtime error' "$work/$t.log" | head -3
			failed=1
		fi
		[ -z "${MERGE:-}" ] || merge "$t"
	done
done
exit $failed
