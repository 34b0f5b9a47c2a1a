#!/bin/bash
# SPDX-License-Identifier: MIT
# Who is the primary: a planned switch-over while everybody writes loses nothing; a promotion by hand when the primary is dead;
# the old one is fenced when it comes back, what only it had is put aside, and it follows.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

declare -A at
names=(one two three)
for n in "${names[@]}"; do
	mkdir "$T/$n"
	at[$n]=$T/$n.socket             # links may be Unix sockets; these need no key
done
start() {
	local name=$1
	shift
	mount_store -m "$T/$name" -s "$T/$name.msync" --listen="${at[$name]}" "$@"
}
follow() { start "$1" --from="${at[$2]}" -o on-disconnect=wait:20; }
same_seq() { local n; for n in "$@"; do [ "$(value "$n" seq)" = "$(value "$1" seq)" ] || return 1; done; }
view() { (cd "$T/$1" && find . | sort | xargs -d '\n' stat -c '%n %i %a %h %s %F' && find . -type f | sort | xargs -d '\n' cat) | cksum; }
agree() {
	local what=$1 n
	shift
	wait_for same_seq "$@" || fail "$what: somebody does not catch up"
	for n in "${@:2}"; do is "$what: $n shows what $1 shows" "$(view "$n")" "$(view "$1")"; done
}

ok 'a primary' start one
ok 'two follows it' follow two one
ok 'three follows it' follow three one
nok 'who is the primary is not promoted' "$MSYNCFS" promote "$T/one"
nok 'who follows has nothing to hand over' "$MSYNCFS" demote "$T/two"
nok 'a name that is nobody' "$MSYNCFS" demote "$T/one" nobody

# ---- Switch-over while all write
lines=$(scaled 150)
writers=()
for n in "${names[@]}"; do
	(for i in $(seq "$lines"); do echo "$n $i" >>"$T/$n/log" || echo "$i" >>"$T/failed.$n"; echo "$i" >"$T/at.$n"; done) 2>>"$T/err" &
	writers+=($!)
done
for n in "${names[@]}"; do wait_for "[ -s '$T/at.$n' ]"; done
wait_for "[ \"\$(value one peer1_name)\" != '' ]"
ok 'the primary is handed over to two' "$MSYNCFS" demote "$T/one" "${at[two]}"
is 'two is the primary' "$(value two role)" primary
is 'one follows' "$(value one role)" replica
wait "${writers[@]}"
is 'no write failed' "$(cat "$T"/failed.* "$T/err" 2>/dev/null)" ''
agree 'after the switch-over' two one three
for n in "${names[@]}"; do is "the lines of $n are all there, in order" "$(grep "^$n " "$T/two/log")" "$(seq -f "$n %.0f" "$lines")"; done

# ---- The primary dies with changes that nobody has
: >"$T/two/synced"
sync "$T/two/synced"
wait_for same_seq two one three
# What is written while nobody follows is nobody else's.
stop one
stop three
echo lost >"$T/two/only-here"
sync "$T/two/only-here"
kill_daemon "$T/two.msync"
ok 'one is mounted, although its primary is dead' follow one two
ok 'and three' follow three one
ok 'one is promoted by hand' "$MSYNCFS" promote "$T/one"
is 'it takes changes' "$(echo new >"$T/one/new" && cat "$T/one/new")" new
is 'it has what was synced' "$(ls "$T/one/synced")" "$T/one/synced"
ok 'three finds it' wait_for "[ \"\$(value three link_state)\" = stream ]"
agree 'after the promotion' one three
ok 'the old one comes back, to follow' follow two one
agree 'after it came back' one two three
ok 'it shows nothing that nobody else has' wait_for "[ ! -e '$T/two/only-here' ]"
aside=("$T"/two.msync.diverged-*)
ok 'but has put it aside' test -f "${aside[0]}"
"$MSYNCFS" load "$T/aside.msync" "${aside[0]}" >/dev/null 2>&1
mkdir "$T/aside"
ok 'in a file that load takes' mount_store -m "$T/aside" -s "$T/aside.msync"
is 'with the change' "$(cat "$T/aside/only-here")" lost
umount_store "$T/aside" "$T/aside.msync"

# ---- The primary dies with nothing of its own: then there is nothing to put aside, and nothing to compare
wait_for same_seq one two three
kill_daemon "$T/one.msync"
ok 'three is promoted' "$MSYNCFS" promote "$T/three"
echo newer >"$T/three/newer"
ok 'one comes back, to follow' follow one three
ok 'and is in step' wait_for same_seq three one
is 'without a comparison' "$(value one comparisons)" 0
nok 'nothing is put aside' compgen -G "$T/one.msync.diverged-*"
ok 'two finds it' wait_for same_seq three two
agree 'after that' three one two

# ---- The end
for n in two one three; do ok "$n unmounts" stop $n; done
for n in "${names[@]}"; do ok "the store of $n is clean" "$MSYNCFS" check "$T/$n.msync"; done
done_testing
