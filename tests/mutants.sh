# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# mutants: the code broken on purpose, one thing at a time, in a copy of the sources; a machine must find each one. This is what
# the mutants.sh of crash, kill, sim, cluster and remote share; they source it from the top of the tree, say what is copied (sources,
# and of what make has built: built) and how their machine is run, and list their mutants as
#   begin NAME RULE WHAT; change FILE OLD NEW...; run
# A mutant whose old text is not found exactly once is an error: then the code has changed, and the mutant must follow it.
#   arguments: only these mutants; MODE, CC: as for make; KEEP=1: leave the copies; V=1: what was found; LOOK=1: nothing is built
#   and run, only the old texts are looked for (`make lint` does it)
MODE=${MODE:-release}
CC=${CC:-gcc}
T=$(mktemp -d "${TMPDIR:-/tmp}/msyncfs-mutants.XXXXXX") || exit 2
# To the machines the word means something else.
keep=${KEEP:-}
unset KEEP
wanted=("$@")
sources=()
built=("build/$MODE/flags" "build/$MODE/core.list" "build/$MODE/core")
found=0 missed=0 errors=0 job=

clean_up() {
	[ -z "$job" ] || { kill "$job" && wait "$job"; } 2>/dev/null
	[ -n "$keep" ] || rm -rf --one-file-system -- "$T"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# A fresh copy. What make has built comes along, with its times: only what changes is built again.
begin() {
	name=$1 rule=$2 what=$3 ok=1 active=1
	((${#wanted[@]} == 0)) || [[ " ${wanted[*]} " == *" $name "* ]] || { active=0; return 0; }
	rm -rf --one-file-system "${T:?}/src" && mkdir "$T/src" || exit 2
	[ -z "${LOOK:-}" ] || return 0
	cp -a --parents Makefile "${sources[@]}" "${built[@]}" "$T/src/" || exit 2
	[ ! -f "build/$MODE/libmsyncfs_core.a" ] || cp -a --parents "build/$MODE/libmsyncfs_core.a" "$T/src/" || exit 2
}

# change FILE OLD NEW: OLD is there exactly once.
change() {
	((active && ok)) || return 0
	[ -z "${LOOK:-}" ] || [ -e "$T/src/$1" ] || cp --parents "$1" "$T/src/" || exit 2
	OLD=$2 NEW=$3 perl -0777 -pi -e '
		my $n = () = /\Q$ENV{OLD}\E/g;
		if ($n != 1) { print STDERR "$ARGV: the text to change is there $n times\n"; $bad = 1 } else { s/\Q$ENV{OLD}\E/$ENV{NEW}/ }
		END { $? = 1 if $bad }' "$T/src/$1" || ok=0
}

# build TARGET: of the copy, unless this mutant is not wanted.
build() {
	((active)) || return 1
	((ok)) && [ -n "${LOOK:-}" ] && return 1
	if ((ok)) && ! make -C "$T/src" MODE="$MODE" CC="$CC" "build/$MODE/$1" >"$T/make.out" 2>&1; then
		tail -n 5 "$T/make.out" >&2
		ok=0
	fi
	((ok)) && return 0
	printf 'error      %-22s %s\n' "$name" 'cannot be made'
	errors=$((errors + 1))
	return 1
}

# machine COMMAND...: run it, all it says in $T/out; its exit status.
machine() {
	local status

	"$@" >"$T/out" 2>"$T/err" &
	job=$!
	wait "$job"
	status=$?
	job=
	return "$status"
}

# verdict FOUND WHERE: FOUND is 0 if it was.
verdict() {
	if [ "$1" = 0 ]; then
		printf 'found      %-22s %-5s %s: %s\n' "$name" "$rule" "$2" "$what"
		[ -z "${V:-}" ] || sed 's/^/           | /' "$T/out"
		found=$((found + 1))
	else
		printf 'NOT FOUND  %-22s %-5s %s: %s\n' "$name" "$rule" "$2" "$what"
		missed=$((missed + 1))
	fi
}

# run_unit TEST: what a machine does not meet, or only in a moment too short, is found by a test that makes it happen.
run_unit() {
	build "tests/unit/$1" || return 0
	machine env CMOCKA_MESSAGE_OUTPUT=TAP timeout 300 "$T/src/build/$MODE/tests/unit/$1"
	grep -q '^not ok' "$T/out"
	verdict $? "by $1"
}

# finish WHO: the last line, and the exit status.
finish() {
	printf '%s: %d found, %d not found, %d errors\n' "$1" "$found" "$missed" "$errors"
	[ $((missed + errors)) = 0 ]
}
