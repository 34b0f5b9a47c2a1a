#!/bin/bash
# SPDX-License-Identifier: MIT
# inotify tells of changes that were made on another mount: each once, in order, on a remote mount and on the primary; it
# leaves nothing behind that is not so, and a flood neither hangs nor holds up anything. Replay with SEED=...
# shellcheck source=../mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh" || exit 1
need_root
need inotifywait
diag "SEED=$SEED"
RANDOM=$((SEED % 32768))

one=$T/one two=$T/two
mkdir "$one" "$two"
caught_up() { [ "$(value two link_state)" = stream ] && [ "$(value two seq)" = "$(value one seq)" ]; }
quiet() { [ "$(value "$1" inotify_waiting)" = 0 ]; }
view() {
	(cd "$T/$1" && find . | sort | xargs -d '\n' stat -c '%n %i %a %h %s %F %u' && find . -type f | sort | xargs -d '\n' cat) 2>&1 | cksum
}
agree() {
	wait_for caught_up || fail "$1: two does not catch up"
	is "$1: both show the same" "$(view two)" "$(view one)"
}

"$MSYNCFS" keygen "$T/key" >/dev/null
for _ in 1 2 3 4 5; do
	port=$(a_port)
	start one --listen="127.0.0.1:$port" --key-file="$T/key" -o inotify >"$T/out" && break
done
ok 'a primary listens' is_mounted "$one"
mkdir "$one/d" "$one/e"
echo old >"$one/d/old"
ok 'a remote mount' start two --from="127.0.0.1:$port" --key-file="$T/key" -o inotify
wait_for caught_up

watch() { # NAME DIR...: inotifywait, until the variable watcher is killed
	local name=$1
	shift
	: >"$T/err.$name"
	inotifywait -m -e create,modify,close_write,attrib,move,delete --format '%e %f' "$@" >"$T/ev.$name" 2>"$T/err.$name" &
	watcher=$!
	wait_for "grep -q established '$T/err.$name'"
}
ends_with() { # NAME TEXT [LINES]: and there are more lines than so many
	[ "$(wc -l <"$T/ev.$1")" -gt "${3:-0}" ] && [ "$(tail -n 1 "$T/ev.$1" 2>/dev/null)" = "$2" ]
}
step() { # TEXT COMMAND...: make a change, wait for the event
	local want=$1 lines
	shift
	lines=$(wc -l <"$T/ev.$at")
	"$@" || fail "$*"
	wait_for -t 10 ends_with "$at" "$want" "$lines" || { fail "no event $want"; diag "$(tail -n 5 "$T/ev.$at"; grep -E '^(inotify|link_|seq|notify)' "$T/one/.msyncfs/status" "$T/two/.msyncfs/status")"; }
}
write() { echo "$1" >>"$2"; }

# Changes on the mount FROM, a watcher on the mount AT.
sequence() {
	local from=$1 d=$T/$1/d want
	at=$2
	watch "$at" "$T/$at/d"
	step 'CLOSE_WRITE,CLOSE a' write x "$d/a"
	step 'CLOSE_WRITE,CLOSE a' write y "$d/a"
	step 'ATTRIB a' chmod 600 "$d/a"
	step 'MOVED_TO b' mv "$d/a" "$d/b"
	step 'ATTRIB b' chmod 640 "$d/b"
	step 'DELETE b' rm "$d/b"
	step 'CREATE,ISDIR s' mkdir "$d/s"
	step 'MOVED_TO,ISDIR t' mv "$d/s" "$d/t"
	step 'DELETE,ISDIR t' rmdir "$d/t"
	step 'CREATE l' ln -s nowhere "$d/l"
	step 'DELETE l' rm "$d/l"
	step 'CREATE p' mkfifo "$d/p"
	step 'DELETE p' rm "$d/p"
	step 'CREATE h' ln "$d/old" "$d/h"
	step 'DELETE h' rm "$d/h"
	step 'MOVED_FROM g' eval ">$d/g; sleep 0.3; mv $d/g $T/$from/e/g"
	step 'MOVED_TO g' mv "$T/$from/e/g" "$d/g"
	step 'CLOSE_WRITE,CLOSE old' write "$from" "$d/old"
	step 'CLOSE_WRITE,CLOSE old' truncate -s 100 "$d/old"
	# The way of editors: all of it at once, in order.
	step 'MOVED_TO f' eval "echo new >$d/tmp && mv $d/tmp $d/f"
	step 'DELETE g' rm "$d/f" "$d/g"
	kill "$watcher"
	wait "$watcher" 2>/dev/null
	want='CREATE a|MODIFY a|CLOSE_WRITE,CLOSE a|MODIFY a|CLOSE_WRITE,CLOSE a|ATTRIB a|MOVED_FROM a|MOVED_TO b|ATTRIB b|DELETE b|'
	want+='CREATE,ISDIR s|MOVED_FROM,ISDIR s|MOVED_TO,ISDIR t|DELETE,ISDIR t|CREATE l|DELETE l|CREATE p|DELETE p|CREATE h|DELETE h|'
	want+='CREATE g|CLOSE_WRITE,CLOSE g|MOVED_FROM g|MOVED_TO g|MODIFY old|CLOSE_WRITE,CLOSE old|MODIFY old|CLOSE_WRITE,CLOSE old|'
	want+='CREATE tmp|MODIFY tmp|CLOSE_WRITE,CLOSE tmp|MOVED_FROM tmp|MOVED_TO f|'
	is "changes on $from, seen on $at, each once and in order" \
		"$(grep -v ' [fg]$' "$T/ev.$at" | tr '\n' '|')" "$(tr '|' '\n' <<<"$want" | grep -v ' [fg]$' | grep . | tr '\n' '|')"
	is "and the rest" "$(grep -c ' [fg]$' "$T/ev.$at")" 7
}
for m in one two; do is "inotify is on at $m" "$(value $m inotify)" on; done
sequence one two
sequence two one
agree 'after it'
is 'nothing went wrong at two' "$(value two inotify_failed) $(value two inotify_dropped)" '0 0'

# ---- What the kernel has afterwards is what is there
watch two "$two/d"
echo one >"$one/d/c"
wait_for ends_with two 'CLOSE_WRITE,CLOSE c'
is 'a new file is the real one' "$(stat -c '%i %s' "$two/d/c")" "$(stat -c '%i %s' "$one/d/c")"
is 'with its contents' "$(cat "$two/d/c")" one
exec 8<"$two/d/c"
rm "$one/d/c"
wait_for ends_with two 'DELETE c'
is 'an open one that is removed elsewhere can be read' "$(cat <&8)" one
exec 8<&-
nok 'and is not there' test -e "$two/d/c"
kill "$watcher"

# ---- A flood, with a watcher and programs that use the same directory
count=$(scaled 2500)   # twice as many changes
watch two "$two/d" "$two/e"
(cd "$one/d" && perl -e '
	my $count = shift;
	sub spew { open(my $f, ">", $_[0]) or die "$_[0]: $!"; print $f $_[1]; close $f or die }
	for my $i (1 .. $count) {
		my $k = $i % 5;
		if ($k == 0) { spew("f$i", $i) }
		elsif ($k == 1) { mkdir("k$i") or die }
		elsif ($k == 2) { open(my $f, ">>", "old") or die; print $f "x"; close $f }
		elsif ($k == 3) { spew("tmp", $i); rename("tmp", "m" . $i % 50) or die }
		else { rmdir("k" . ($i - 3)) or die; symlink("x", "l$i") or die; unlink("l$i") or die }
	}' "$count") &
flood=$!
while kill -0 $flood 2>/dev/null; do
	ls -l "$two/d" >/dev/null 2>&1
	echo y >>"$two/e/mine"; mv "$two/e/mine" "$two/e/own"; rm "$two/e/own"
	sleep 0.05
done
wait $flood
ok 'two catches up with a flood' wait_for caught_up
ok 'and tells the watchers to the end' wait_for -t 60 quiet two
diag "repeated $(value two inotify_repeated), failed $(value two inotify_failed), dropped $(value two inotify_dropped)"
ok 'the watcher saw much of it' test "$(wc -l <"$T/ev.two")" -gt $((2 * count))
agree 'after the flood'
# Names that are gone, too: a listing does not ask for them.
exist() { (cd "$T/$1/d" && for n in tmp $(seq -f 'k%.0f' "$count") $(seq -f 'l%.0f' "$count"); do [ ! -e "$n" ] && [ ! -L "$n" ] || echo "$n"; done) }
is 'and no name that is gone' "$(exist two)" "$(exist one)"
kill "$watcher"

# ---- Off, and the end
echo x >"$one/d/busy"
ok 'unmounts while there is work' stop two
ok 'without inotify' start two --from="127.0.0.1:$port" --key-file="$T/key"
is 'is off' "$(value two inotify)" off
watch two "$two/d"
echo z >"$one/d/silent"
wait_for "[ -e '$two/d/silent' ]"
touch "$two/d/last"
wait_for ends_with two 'CLOSE_WRITE,CLOSE last'
nok 'and silent' grep -q silent "$T/ev.two"
kill "$watcher"
agree 'at last'
ok 'two unmounts' stop two
ok 'one unmounts' stop one
for m in one two; do ok "the store of $m is clean" "$MSYNCFS" check "$T/$m.msync"; done
done_testing
