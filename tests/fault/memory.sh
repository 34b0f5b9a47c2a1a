# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034 # variables are for the tests
# memory.sh: what the tests share that refuse memory to a daemon (tests/fault/memory.c): how such a daemon is started, the plan
# of what is refused, and what must be so of each life. A test sources it instead of lib.sh.
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh" || exit 1

# env FAULT_FILE="$PLAN" "${preload[@]}" "$STARVED" ...: the program whose memory is refused.
PLAN=$T/plan
case $MODE in
release)
	SO=$ROOT/build/$MODE/tests/fault/memory.so
	[ -f "$SO" ] || bail "$SO is missing: run make test-programs first"
	preload=(LD_PRELOAD="$SO")
	STARVED=$MSYNCFS;;
asan)
	# The sanitizer's allocator is not ours to replace: a daemon with our own calls wrapped.
	STARVED=$ROOT/build/$MODE/tests/fault/memory/msyncfs
	[ -x "$STARVED" ] || bail "$STARVED is missing: run make test-programs first"
	preload=();;
*) skip_mode 'a sanitizer with an allocator of its own';;
esac

# plan N COUNT: the next life's n-th allocation is refused, once (COUNT 1) or from then on (0); or plan none.
plan() {
	rm -f "$PLAN.hit"
	printf '%s\n' "$*" >"$PLAN.new" && mv "$PLAN.new" "$PLAN"
}
# Was something refused?
struck() { [ -s "$PLAN.hit" ]; }
# arm N COUNT: the same; N 0 is a life without faults.
arm() { if [ "$1" = 0 ]; then plan none; else plan "$1 $2"; fi; }

# said MOUNTED STATUS OTHERS: what a daemon that has ended said in $T/log. OTHERS: a pattern of lines that do not count, as libfuse's own
# words, which it does not hand on.
said() {
	local mounted=$1 status=$2 lines
	lines=$(grep -cvE "^\$|^fuse: |$3" "$T/log")
	[ "$status" -le 1 ] || { echo "the daemon ended with $status"; tail -n 5 "$T/log"; }
	if [ "$mounted" = 0 ]; then
		[ "$status" = 1 ] || echo "mounting ended with $status"
		[ "$lines" = 1 ] || { echo "mounting says $lines lines:"; cat "$T/log"; }
	elif [ "$status" = 1 ]; then
		[ "$lines" -ge 1 ] || echo 'it failed without a word'
	fi
}

# leaks LIVE ALL: places that hold more at the end than in LIVE, of a life without faults. If it is not mounted (ALL 0) the process ends,
# and libfuse does not care; we do.
leaks() {
	[ "$MODE" = release ] || { cat "$T"/san.* 2>/dev/null | grep -m 5 -E 'ERROR|SUMMARY|#[0-4]'; return; }
	[ -s "$1" ] && [ -s "$PLAN.live" ] || return
	awk -v all="$2" 'FNR == NR { had[$2] = $1; next } $1 > had[$2] && (all || $2 ~ "/msyncfs[+]") { print "leaked:", $1 - had[$2], $2 }' \
		"$1" "$PLAN.live"
}

# checked STORE OTHERWISE: check is clean, or says what this pattern has.
checked() {
	[ ! -e "$1" ] || "$MSYNCFS" check "$1" >"$T/check" 2>&1 || { [ -n "$2" ] && grep -q "$2" "$T/check"; } ||
		{ echo 'check:'; tail -n 3 "$T/check"; }
}
