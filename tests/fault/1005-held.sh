#!/bin/bash
# SPDX-License-Identifier: MIT
# An msync that hangs, or another machine that says nothing, stops those only who wait for it; all other requests go on. And no
# lock that the request thread takes is ever held over a call that can take long (held.c), whether or not it came to a wait.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
[ "$MODE" = release ] || skip_all 'a sanitizer does not go together with LD_PRELOAD'
SO=$ROOT/build/$MODE/tests/fault/held.so
[ -f "$SO" ] || bail "$SO is missing: run make test-programs first"

held_daemon() { # DIRECTORY [-- OPTION...]
	local dir=$1
	shift
	mkdir -p "$dir"
	start_daemon HELD_DIR="$dir" LD_PRELOAD="$SO" "$@" || { fail 'mount'; diag "$(cat "$T/log")"; done_testing; }
}
msyncs() { stat -c %s "$1/msyncs" 2>/dev/null || echo 0; }
# no_lock DIRECTORY CALL...: nothing was found, and there was something to find it in.
no_lock() {
	local dir=$1 call
	shift
	for call in requests "$@"; do ok "$call was looked at" grep -qx "$call" "$dir/seen"; done
	is 'no lock of the request thread is held over a call that can take long' "$(sort -u "$dir/report" 2>/dev/null)" ''
}

# Everything that a mount is asked for but fsync (fallocate(1) and some others end with one), in directory $1; what went wrong. Stops at the first that hangs, since all would.
everything() {
	local d=$1 a
	for a in "mkdir $d" "cp $T/data $d/f" "cmp $T/data $d/f" "ln $d/f $d/g" "ln -s f $d/s" "readlink $d/s" "mv $d/g $d/h" \
		"ls -la $d" "stat $d/h" "chmod 600 $d/f" "setfattr -n user.a -v b $d/f" "getfattr -n user.a $d/f" \
		"truncate -s 5M $d/f" "sysop fallocate plain 0 100k $d/f" "cp --sparse=always $d/f $d/c" "dd if=$T/data of=$d/f bs=4k seek=3 conv=notrunc" \
		"dd if=$T/data of=$d/a bs=100 oflag=append conv=notrunc" "touch -d 2001-02-03 $d/a" "mkfifo $d/p" "stat -f $d" \
		"cat $MNT/.msyncfs/status" "rm $d/p $d/c" "mkdir $d/e" "mv $d/h $d/e/h" "rm -r $d"; do
		# shellcheck disable=SC2086 # a command and its words
		op $a >"$T/op.out" 2>&1 || { echo "$a: $(cat "$T/op.out")"; return; }
	done
}

# However the test ends, nothing may be left that hangs.
stopped=
trap 'without let_go' EXIT
let_go() {
	rm -f "$T/held/hang"
	[ -z "$stopped" ] || kill -CONT "$stopped"
}

# ---- The disk
seq 20000 >"$T/data"
H=$T/held
held_daemon "$H" -- -o sync-interval=0
op cp "$T/data" "$MNT/first"
: >"$H/hang"
before=$(msyncs "$H")
syncs=$(status_of syncs)
asked=$(status_of requests_fsync)
timeout 300 sysop fsync "$MNT/first" >"$T/fsync.0" 2>&1 &
pids=($!)
ok 'an msync hangs' wait_for "[ -e '$H/hanging' ]"
is 'all else goes on' "$(everything "$MNT/d")" ''
clients=16
for i in $(seq $clients); do
	echo "$i" >"$MNT/s$i"
	timeout 300 sysop fsync "$MNT/s$i" >"$T/fsync.$i" 2>&1 &
	pids+=($!)
done
ok "$clients more fsyncs have come" wait_for "[ \"\$(status_of requests_fsync)\" -ge $((${asked:-0} + clients + 1)) ]"
is 'all else goes on still' "$(everything "$MNT/d2")" ''
is 'none of them was answered' "$(cat "$T"/fsync.*)" ''
is 'nor was anything synced' "$(($(msyncs "$H") - before)) $(($(status_of syncs) - syncs))" '1 0'
rm "$H/hang"
wait "${pids[@]}"
is 'then all are' "$(sort "$T"/fsync.* | uniq -c | tr -s ' ')" " $((clients + 1)) ok"
# That which hung, and one that all the others share: of the tail, and of the contents that everything() wrote in between.
is 'by one sync of their own' "$(($(status_of syncs) - syncs))" 2
got=$(($(msyncs "$H") - before))
ok "which are one msync of each tail, and one for each piece of contents ($got in all)" test $got -ge 3 -a $got -le 6
before=$(msyncs "$H")
echo more >"$MNT/s1"
op sysop fsync "$MNT/s1" >/dev/null
is 'an fsync without contents is one msync' "$(($(msyncs "$H") - before))" 1
before=$(msyncs "$H")
op cp "$T/data" "$MNT/s2"
op sysop fsync "$MNT/s2" >/dev/null
is 'with contents two' "$(($(msyncs "$H") - before))" 2
before=$(msyncs "$H")
op sysop fsync "$MNT/s2" >/dev/null
is 'with nothing new none' "$(($(msyncs "$H") - before))" 0
echo 1 >"$MNT/.msyncfs/checkpoint"
# A growth, too.
op dd if=/dev/zero of="$MNT/grow" bs=1M count=40 status=none
op sysop fsync "$MNT/grow" >/dev/null
stop_daemon
is 'the daemon ends in order' "$status" 0
no_lock "$H" msync fallocate
check_store 'after an msync that hung'

# ---- Another machine
one=$T/one two=$T/two
mkdir "$one" "$two"
named() { STORE=$T/$1.msync MNT=$T/$1; }
named one
held_daemon "$T/held-one" -- --listen="$T/socket"
primary=$DAEMON
mkdir "$one/unread" "$one/waiting"
for i in $(seq 50); do cp "$T/data" "$one/unread/$i"; ln -s "$i" "$one/unread/l$i"; done
named two
held_daemon "$T/held-two" -- --from="$T/socket" -o on-disconnect=wait:300
replica=$DAEMON
streams() { [ "$(sed -n s/^link_state=//p "$two/.msyncfs/status")" = stream ]; }
seq_of() { sed -n s/^seq=//p "$T/$1/.msyncfs/status"; }
ok 'a remote mount follows' wait_for streams
kill -STOP "$replica"
stopped=$replica
named one
is 'a remote mount that says nothing: the primary goes on' "$(everything "$one/d")" ''
op dd if=/dev/urandom of="$one/big" bs=1M count=30 status=none
op sysop fsync "$one/big" >/dev/null
is 'also when more waits for it than fits' "$(everything "$one/d2")" ''
kill -CONT "$replica"
stopped=
ok 'and then it catches up' wait_for "streams && [ \"\$(seq_of two)\" = \"\$(seq_of one)\" ]"
kill -STOP "$primary"
stopped=$primary
named two
# In a directory of its own, which the kernel locks for it.
timeout 300 touch "$two/waiting/f" 2>"$T/touch" &
toucher=$!
ok 'a change there waits' wait_for "[ \"\$(sed -n s/^open_calls=//p '$two/.msyncfs/status')\" -ge 1 ]"
wrong=
for i in $(seq 50); do
	op cmp "$T/data" "$two/unread/$i" >/dev/null || wrong="$wrong $i"
	[ "$(op readlink "$two/unread/l$i")" = "$i" ] || wrong="$wrong l$i"
done
is 'a primary that says nothing: reading goes on' "$wrong" ''
ok 'so does listing' op ls -la "$two/unread"
ok 'and asking for figures' op stat -f "$two"
ok 'the change waits still' kill -0 $toucher
kill -CONT "$primary"
stopped=
wait $toucher
is 'then it is made' "$? $(cat "$T/touch")" '0 '
ok 'everywhere' test -e "$one/waiting/f"
DAEMON=$replica
stop_daemon
is 'the remote mount ends in order' "$status" 0
named one
DAEMON=$primary
stop_daemon
is 'so does the primary' "$status" 0
no_lock "$T/held-one" send recv accept
no_lock "$T/held-two" send recv connect
check_store 'the primary'
named two
check_store 'the remote mount'
finish
