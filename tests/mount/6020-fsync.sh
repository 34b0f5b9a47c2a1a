#!/bin/bash
# SPDX-License-Identifier: MIT
# -o fsync=: an fsync returns when the disks that were asked for have it, and not before; with too few of them it ends with EIO
# after the time that was set.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

names=(one two three)
for n in "${names[@]}"; do mkdir "$T/$n"; done
# start NAME OPTION...
start() {
	local name=$1
	shift
	mount_store -m "$T/$name" -s "$T/$name.msync" --sync-interval=0 "$@"
}
lead() { start one --listen="$T/one.socket" "$@"; }
follow() { start "$1" --from="$T/one.socket" "${@:2}"; }
caught_up() { [ "$(value "$1" link_state)" = stream ] && [ "$(value "$1" seq)" = "$(value one seq)" ]; }
durable_on() { [ "$(value "$1" durable_seq)" -ge "$2" ] || { echo "$1 has $(value "$1" durable_seq) of $2 on disk"; return 1; }; }
peers_in_step() { [ "$(grep -c '_state=streams' "$T/one/.msyncfs/status")" = "$1" ] && ! grep -q '_durable_seq=0$' "$T/one/.msyncfs/status"; }

# ---- What is no such option
for word in fsync=replicas=0 fsync=replicas=x fsync=some fsync=replicas=129 fsync; do
	lead -o "$word" >"$T/out" 2>&1
	is "$word is refused" "$? $(wc -l <"$T/out")" '2 1'
done
start one -o fsync=all >"$T/out" 2>&1
is 'without links there is nobody to wait for' "$? $(wc -l <"$T/out")" '2 1'

# ---- One replica, asked for on the primary
ok 'a primary that wants one other disk' lead -o fsync=replicas=1,on-disconnect=wait:2
is 'status says so' "$(value one fsync)" replicas=1
echo x >"$T/one/f"
errno 'with nobody there fsync fails' EIO sysop fsync "$T/one/f"
is 'which is counted' "$(value one fsyncs_failed) $(value one fsyncs_waiting)" '1 0'
is 'and the change is there' "$(cat "$T/one/f")" x
ok 'two follows' follow two -o on-disconnect=wait:5
ok 'the same fsync works' sysop fsync "$T/one/f"
for i in $(seq 20); do
	echo "$i" >>"$T/one/f"
	seq=$(value one seq)
	sysop fsync "$T/one/f" >"$T/out" || fail "fsync $i: $(cat "$T/out")"
	durable_on two "$seq" >"$T/out" || fail "fsync $i: $(cat "$T/out")"
done
ok 'status: up to where' test "$(value one synced_seq)" -ge "$seq"
echo y >>"$T/two/f"
seq=$(value one seq)
ok 'that of a remote mount waits, too' sysop fsync "$T/two/f"
ok 'for its own disk here' durable_on two "$seq"
ok 'many at once' bash -c "for i in \$(seq 40); do { echo \$i >'$T/one/m'\$i; sysop fsync '$T/one/m'\$i >/dev/null || touch '$T/bad'; } & done; wait"
nok 'all of them' test -e "$T/bad"
ok 'nobody is left waiting' wait_for "[ \"\$(value one fsyncs_waiting)\" = 0 ]"
stop two
before=$SECONDS
echo z >>"$T/one/f"
errno 'when it is gone, fsync fails again' EIO sysop fsync "$T/one/f"
ok 'after the time that was set, or little more' test $((SECONDS - before)) -le 20
stop one

# ---- More, asked for by a remote mount
ok 'a primary that wants nothing' lead -o on-disconnect=wait:2
ok 'two wants two others' follow two -o fsync=replicas=2,on-disconnect=wait:2
is 'status says so' "$(value two fsync)" replicas=2
echo x >>"$T/two/f"
errno 'there is one, itself' EIO sysop fsync "$T/two/f"
is 'which is counted' "$(value two fsyncs_failed)" 1
ok 'on the primary nobody asks for that' sysop fsync "$T/one/f"
ok 'three follows' follow three -o on-disconnect=wait:5
for i in $(seq 10); do
	echo "$i" >>"$T/two/f"
	seq=$(value one seq)
	sysop fsync "$T/two/f" >"$T/out" || fail "fsync $i: $(cat "$T/out")"
	for n in one two three; do durable_on "$n" "$seq" >"$T/out" || fail "fsync $i: $(cat "$T/out")"; done
done
pass 'fsync on two waited for all three'
stop two
ok 'with sync all changes wait' follow two -o fsync=replicas=2,on-disconnect=wait:2,sync
wait_for caught_up two
for i in $(seq 10); do
	mkdir "$T/two/d$i" || fail "mkdir $i"
	for n in one two three; do durable_on "$n" "$(value two synced_seq)" >"$T/out" || fail "mkdir $i: $(cat "$T/out")"; done
	[ "$(value two synced_seq)" = "$(value two seq)" ] || fail "mkdir $i: synced $(value two synced_seq) of $(value two seq)"
done
pass 'mkdir on two waited for all three'
stop three
errno 'or say that they cannot be waited for' EIO sysop mkdir "$T/two/late"
ok 'and are there all the same' test -d "$T/one/late"
stop two
stop one

# ---- All
ok 'a primary that wants all' lead -o fsync=all,on-disconnect=wait:2
ok 'alone it has all' sysop fsync "$T/one/f"
ok 'two follows' follow two
ok 'and three' follow three
ok 'both are in step' wait_for peers_in_step 2
for i in $(seq 10); do
	echo "$i" >>"$T/one/f"
	seq=$(value one seq)
	sysop fsync "$T/one/f" >"$T/out" || fail "fsync $i: $(cat "$T/out")"
	for n in two three; do durable_on "$n" "$seq" >"$T/out" || fail "fsync $i: $(cat "$T/out")"; done
done
pass 'fsync waited for both'
for n in three two one; do ok "$n unmounts" stop "$n"; done
done_testing
