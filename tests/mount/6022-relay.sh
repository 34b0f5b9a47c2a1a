#!/bin/bash
# SPDX-License-Identifier: MIT
# Relays: a remote mount that feeds others. Changes, fsync, locks and open files of who is behind it work through it; it dies, comes
# back, is promoted; a new epoch passes down; a circle is told. Replay with SEED=...
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
diag "SEED=$SEED"

# one <- two <- three <- four
declare -A at
names=(one two three four)
for n in "${names[@]}"; do
	mkdir "$T/$n"
	at[$n]=$T/$n.socket
done
start() {
	local name=$1
	shift
	mount_store -m "$T/$name" -s "$T/$name.msync" --listen="${at[$name]}" "$@"
}
follow() { start "$1" --from="${at[$2]}" -o on-disconnect=wait:20 "${@:3}"; }
same_seq() { local n; for n in "$@"; do [ "$(value "$n" seq)" = "$(value "$1" seq)" ] || return 1; done; }
view() { (cd "$T/$1" && find . | sort | xargs -d '\n' stat -c '%n %i %a %h %s %F' && find . -type f | sort | xargs -d '\n' cat) | cksum; }
agree() {
	local what=$1 n
	shift
	wait_for same_seq "$@" || fail "$what: somebody does not catch up: $(for n in "$@"; do echo "$n $(value "$n" seq) $(value "$n" link_state) $(value "$n" link_trouble);"; done)"
	for n in "${@:2}"; do is "$what: $n shows what $1 shows" "$(view "$n")" "$(view "$1")"; done
}
fed_by() { grep -q "peer[0-9]*_name='${at[$1]}'" "$T/$2/.msyncfs/status"; }

ok 'a primary' start one -o journal-keep=1M
mkdir "$T/one/d"
head -c 3000000 /dev/urandom >"$T/one/d/big"
echo small >"$T/one/small"
ok 'two follows it' follow two one
ok 'three follows two' follow three two
ok 'four follows three' follow four three
agree 'first sync through relays' "${names[@]}"
ok 'three is fed by two' wait_for fed_by three two
ok 'four by three' wait_for fed_by four three
nok 'and not by one' fed_by four one
is 'status says who relays' "$(value one relay) $(value two relay) $(value three relay)" 'off on on'

# ---- Changes from the far end
echo mine >"$T/four/new"
is 'four reads what it wrote' "$(cat "$T/four/new")" mine
is 'and one has it' "$(cat "$T/one/new")" mine
errno 'exclusive creation holds' EEXIST sysop open rw,creat,excl "$T/four/new"
echo durable >"$T/four/f"
seq=$(value one seq)
ok 'fsync through two relays' sysop fsync "$T/four/f"
ok 'means the disk of the primary' test "$(value one durable_seq)" -ge "$seq"
ok 'sync that waits for a replica, too' "$MSYNCFS" sync --wait-replicas=1 "$T/four"

# ---- Everybody at once
rounds=$(scaled 60)
mkdir "$T/one/w"
for n in "${names[@]}"; do wait_for "[ -d '$T/$n/w' ]"; done
load() {
	local i m=$T/$1/w
	for i in $(seq "$rounds"); do
		echo "$1 $i" >>"$m/shared" || echo "append $i" >>"$T/err.$1"
		mkdir "$m/excl.$i" 2>/dev/null && echo "$i" >>"$T/won.$1"
		{ echo x >"$m/$1.$i" && mv "$m/$1.$i" "$m/$1" && sysop fsync "$m/$1" >/dev/null; } || echo "names $i" >>"$T/err.$1"
	done
}
pids=()
for n in "${names[@]}"; do load "$n" & pids+=($!); done
wait "${pids[@]}"
is 'no change failed' "$(cat "$T"/err.* 2>/dev/null)" ''
agree 'after everybody wrote' "${names[@]}"
for n in "${names[@]}"; do is "the lines of $n, in order" "$(grep "^$n " "$T/one/w/shared")" "$(seq -f "$n %.0f" "$rounds")"; done
is 'each directory was made by one of them' "$(cat "$T"/won.* | sort -n | uniq -c | awk '$1 != 1' | wc -l) $(cat "$T"/won.* | wc -l)" "0 $rounds"

# ---- The feed does not reach back to where the relay is: what differs comes on the link that streamed
mkdir "$T/one/many"
block=$(printf '%04000d' 1)
diffs=$(value two comparisons)
kill -STOP "$(daemon_pids "$T/two.msync")"
for i in $(seq 8000); do printf '%s' "$block" >"$T/one/many/$i"; done
kill -CONT "$(daemon_pids "$T/two.msync")"
ok 'the relay compares' wait_for "[ \"\$(value two comparisons)\" -gt $diffs ]"
agree 'after the relay made a jump' "${names[@]}"
ok 'three is fed again' wait_for fed_by three two
rm -r "$T/one/many"

# ---- Locks
: >"$T/one/lock"
for n in "${names[@]}"; do wait_for "[ -e '$T/$n/lock' ]"; done
exec 9>"$T/four/lock"
ok 'four takes a lock' flock -n 9
nok 'nobody else has it' flock -n "$T/one/lock" true
nok 'two neither' flock -n "$T/two/lock" true
ok 'the primary lists it' grep -q "${at[four]}" "$T/one/.msyncfs/locks"
(flock "$T/two/lock" true && echo got >"$T/got.two") 9>&- &
waiter=$!
exec 9>&-
ok 'who waits for it gets it when it is free' wait_for "[ -s '$T/got.two' ]"
wait $waiter
exec 9>"$T/one/lock"
flock -n 9
(flock "$T/four/lock" true && echo got >"$T/got.four") 9>&- &
waiter=$!
wait_for "[ \"\$(grep -c . '$T/one/.msyncfs/locks')\" -ge 2 ]"
nok 'four waits for a lock of one' test -s "$T/got.four"

# ---- An open file that is removed at the other end
echo kept >"$T/four/open"
wait_for "[ -e '$T/one/open' ]"
exec 8<"$T/four/open"
rm "$T/one/open"
wait_for "[ ! -e '$T/four/open' ]"
ok 'the file that is open at four is held' wait_for "[ \"\$(value two holds)\" -ge 1 ]"

# ---- The relay dies and comes back
(for i in $(seq 200); do echo "$i" >>"$T/four/log" || exit 1; echo "$i" >"$T/acked"; done) 2>"$T/err.log" 8<&- 9>&- &
writer=$!
wait_for "[ -s '$T/acked' ]"
kill_daemon "$T/two.msync"
umount -l "$T/two" 2>/dev/null || fusermount3 -u -z "$T/two"
ok 'two comes back' follow two one 8<&- 9>&-
wait $writer
is 'what four wrote meanwhile waited' "$(cat "$T/err.log")" ''
is 'and is there once, in order' "$(cat "$T/one/log")" "$(seq 200)"
agree 'after the relay was killed' "${names[@]}"
nok 'four still waits for its lock' test -s "$T/got.four"
exec 9>&-
ok 'and gets it' wait_for "[ -s '$T/got.four' ]"
wait $waiter
# Longer than a lease after: what is held is held.
sleep 12
is 'the open file can still be read' "$(sysop fdatasync "$T/four/f" >/dev/null; cat <&8)" kept
exec 8<&-
ok 'and is gone when it is closed' wait_for "[ \"\$(value one inodes)\" = \"\$(find '$T/one' | wc -l)\" ]"

# ---- The primary is started again: a new epoch passes down
stop four
ok 'four, with less patience' follow four three -o on-disconnect=wait:2
wait_for same_seq one four
kill_daemon "$T/one.msync"
umount -l "$T/one" 2>/dev/null || fusermount3 -u -z "$T/one"
ok 'four hears that the line is cut, further up' wait_for '! streams four'
is 'all is read meanwhile' "$(cat "$T/four/small")" small
errno 'a change waits no longer than it may' EROFS sysop open rw,creat "$T/four/refused"
ok 'the primary comes back' start one
ok 'four streams again' wait_for streams four
echo newer >"$T/four/newer"
is 'four writes to it' "$(cat "$T/one/newer")" newer
agree 'after the primary was killed' "${names[@]}"
is 'its epoch is everywhere' "$(value four epoch) $(value three epoch)" "$(value one epoch) $(value one epoch)"

stop four
ok 'four is patient again' follow four three

# ---- A relay is promoted, the old primary comes back behind it
wait_for same_seq one two three four
kill_daemon "$T/one.msync"
umount -l "$T/one" 2>/dev/null || fusermount3 -u -z "$T/one"
ok 'two is promoted' "$MSYNCFS" promote "$T/two"
echo promoted >"$T/four/promoted"
is 'four writes to it, through three' "$(cat "$T/two/promoted")" promoted
agree 'after the promotion' two three four
ok 'the old one follows, at the far end' follow one four
agree 'after it came back' two one
ok 'by four' wait_for fed_by one four
nok 'with nothing to put aside' compgen -G "$T/one.msync.diverged-*"
echo far >"$T/one/far"
is 'it writes through three others' "$(cat "$T/two/far")" far

# ---- Handed over to a relay
ok 'two hands over to three' wait_for fed_by three two
ok 'which is told' "$MSYNCFS" demote "$T/two" "${at[three]}"
is 'three is the primary' "$(value three role)" primary
echo again >"$T/one/again"
is 'one writes to it' "$(cat "$T/three/again")" again
agree 'after that' three two one four

# ---- Reading only, and what cannot be
stop one
ok 'a relay that is read only' follow one four -o ro
stop four
stop one
ok 'follows three now' follow one three -o ro
ok 'and feeds four' follow four one
echo through >"$T/four/through"
is 'who may write' "$(cat "$T/three/through")" through
stop four
stop one
start four --from="${at[four]}" >"$T/out" 2>&1
is 'nobody follows itself' "$? $(wc -l <"$T/out")" '2 1'
stop two
ok 'four follows one' follow four one
ok 'and one four' follow one four
ok 'which is told' wait_for "[[ \"\$(value one link_trouble) \$(value four link_trouble)\" == *circle* ]]"
is 'what they have is read' "$(cat "$T/four/through")" through
stop four
ok 'four follows two' follow four two
ok 'and two one' follow two one
for n in one two four; do ok "$n says that it is in a circle of three" wait_for "[[ \"\$(value $n link_trouble)\" == *'over 1 other: in a circle'* ]]"; done
is 'what they have is read there, too' "$(cat "$T/four/through")" through
stop four
ok 'when one of them follows another' follow four three
ok 'all are fed' wait_for same_seq one two three four
for n in two one four three; do ok "$n unmounts" stop "$n"; done
for n in "${names[@]}"; do ok "the store of $n is clean" "$MSYNCFS" check "$T/$n.msync"; done
done_testing
