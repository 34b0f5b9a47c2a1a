#!/bin/bash
# SPDX-License-Identifier: MIT
# P6: flock and fcntl locks hold across machines: a primary and two remote mounts exclude each other, who waits is woken or
# interrupted, circles are EDEADLK, what was closed is unlocked for who asks next anywhere, who holds sees what the last holder wrote, and the locks of a machine that is gone are freed.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
diag "SEED=$SEED"
RANDOM=$((SEED % 32768))

one=$T/one two=$T/two three=$T/three
mkdir "$one" "$two" "$three"

listen() { start one --listen="$T/sock" >"$T/out" || { fail 'the primary is mounted'; diag "$(cat "$T/out")"; }; }
lines() { grep -c "$1" "$T/$2/.msyncfs/locks"; }
# Is there a line of this kind in the list of the primary?
listed() { grep -q "$1" "$one/.msyncfs/locks"; }
not_listed() { ! listed "$1"; }
there() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }

listen
ok "two is mounted" start two --from="$T/sock" --listen="$T/sock2" -o on-disconnect=wait:3
ok "three is mounted" start three --from="$T/sock" -o on-disconnect=wait:3
: >"$one/file"
for m in two three; do wait_for "[ -e '$T/$m/file' ]"; done

# ---- Each pair of mounts, both ways
for pair in one:two two:one two:three; do
	a=$T/${pair%:*} b=$T/${pair#*:}
	for name in exclusive ranges wait signal deadlock close exit closed flock ofd; do
		ok "$name between ${pair%:*} and ${pair#*:}" timeout 120 locks $name "$a/file" "$b/file"
	done
done
for name in exclusive ranges wait signal deadlock close exit closed flock ofd; do
	ok "$name on two alone" timeout 120 locks $name "$two/file"
done
ok 'nothing is left behind' wait_for "[ ! -s '$one/.msyncfs/locks' ]"
is 'not on two either' "$(cat "$two/.msyncfs/locks")" ''

# ---- As in scripts: "flock file true" here, and then "flock -n file true" there, while all mounts have other things to do
busy() { while [ ! -e "$T/enough" ]; do echo x >"$1/busy.$2"; cat "$1/file" "$1"/busy.* >/dev/null 2>&1; done; }
pids=()
for m in one two three; do busy "$T/$m" "$m" & pids+=($!); done
refused=0
for i in $(seq "$(scaled 30)"); do
	for pair in one:two two:one two:three three:three; do
		flock "$T/${pair%:*}/file" true
		flock -n "$T/${pair#*:}/file" true || refused=$((refused + 1))
	done
done
: >"$T/enough"
wait "${pids[@]}"
is 'who waited for the end of one that had it is never refused' "$refused" 0

# ---- flock(1), the list, waking
exec 8<"$two/file"
flock -x 8
nok 'flock on one finds it taken' flock -n "$one/file" true
nok 'on three too' flock -n "$three/file" true
like 'the primary lists it' "$(cat "$one/.msyncfs/locks")" "kind=flock type=exclusive range=0-end holder='.*' pid=[0-9]* fence=[0-9]*\\.[0-9]* state=held"
is 'the holder lists it with the same number' "$(grep -o 'fence=[0-9.]*' "$two/.msyncfs/locks")" "$(grep -o 'fence=[0-9.]*' "$one/.msyncfs/locks")"
first=$(grep -o 'fence=[0-9.]*' "$one/.msyncfs/locks" | cut -d. -f2)
flock "$three/file" sh -c "cat '$three/data'; grep -o 'fence=[0-9.]*' '$three/.msyncfs/locks'" >"$T/got" &
waiter=$!
ok 'who waits is listed' wait_for listed state=waits
ok 'others work meanwhile' timeout 60 sh -c "echo x >'$three/other' && ls '$three' && rm '$three/other'"
echo written >"$two/data"
flock -u 8
wait $waiter
is 'the waiter was woken' "$?" 0
is 'and saw what the holder had written' "$(head -n 1 "$T/got")" written
ok 'with a higher number' test "$(sed -n 's/^fence=[0-9]*\.//p' "$T/got")" -gt "$first"

# ---- Many wait: none holds up calls, nor runs out of numbers
flock -x 8
pids=()
for i in $(seq 40); do flock "$three/file" sh -c "echo $i >>'$three/order'" & pids+=($!); done
ok 'forty wait' wait_for "[ \$(grep -c state=waits '$one/.msyncfs/locks') = 40 ]"
ok 'and calls go on' timeout 60 sh -c "for i in 1 2 3 4 5 6 7 8 9; do echo \$i >'$three/n' || exit 1; done"
flock -u 8
wait "${pids[@]}"
is 'all had it, one after the other' "$(sort -n "$three/order" | uniq | wc -l)" 40

# ---- An interrupt
flock -x 8
flock "$three/file" true & waiter=$!
wait_for listed state=waits
kill -INT $waiter 2>/dev/null; kill $waiter
wait $waiter
ok 'who was interrupted waits no more' wait_for not_listed state=waits
flock -u 8
exec 8<&-

# ---- Everybody counts under one lock; each reads what the last one wrote
echo 0 >"$one/count"
for m in two three; do wait_for there "$T/$m/count" 0; done
rounds=$(scaled 40)
count() { for _ in $(seq "$rounds"); do flock "$1/file" sh -c "n=\$(cat '$1/count') && echo \$((n + 1)) >'$1/count'" || echo failed >>"$T/failed"; done; }
pids=()
for m in one two three; do count "$T/$m" & pids+=($!); done
wait "${pids[@]}"
is 'each of them counted' "$(cat "$one/count")" $((3 * rounds))
nok 'nobody failed' test -e "$T/failed"

pids=()
: >"$one/tight"
for m in two three; do wait_for "[ -e '$T/$m/tight' ]"; done
for m in one two three; do timeout 300 locks count "$T/$m/tight" >"$T/count.$m" & pids+=($!); done
wait "${pids[@]}"
is 'also through the caches of the kernel' "$(cat "$one/tight")$(cat "$T"/count.*)" 00001500

# ---- A broken link: locks stay for their lease, and are stated again
exec 8<"$two/file"
flock -x 8
exec 7<"$two/data"
flock -x 7
fence=$(grep -F "ino=$(stat -c %i "$two/file") " "$two/.msyncfs/locks" | grep -o 'fence=[0-9.]*')
kill_daemon "$one.msync"
ok 'an unlock without the primary works' timeout 60 flock -u 7
nok 'a lock without it does not, after the set time' timeout 60 flock -x "$two/data" true
umount -l "$one" 2>/dev/null
listen
ok 'two comes back' wait_for streams two
ok 'and states its lock' wait_for "listed '$fence'"
nok 'so nobody else gets it' timeout 120 flock -n "$one/file" true
flock -u 8
ok 'until it is free' timeout 120 flock -n "$one/file" true
ok 'what was unlocked meanwhile is free' timeout 120 flock -n "$three/data" true
exec 8<&- 7<&-

# ---- Another primary
exec 8<"$three/file"
flock -x 8
fence=$(grep -o 'fence=[0-9.]*' "$three/.msyncfs/locks")
ok 'two takes over' "$MSYNCFS" demote "$one" "$T/sock2"
promoted() { [ "$(value two role)" = primary ]; }
is_there() { grep -q "$fence" "$two/.msyncfs/locks"; }
ok 'it is the primary' wait_for promoted
ok 'and hears of the lock that three has' wait_for is_there
nok 'so it gives it to nobody' timeout 120 flock -n "$two/file" true
nok 'nor to the old primary' timeout 120 flock -n "$one/file" true
flock -u 8
ok 'until it is free' timeout 120 flock "$one/file" true
exec 8<&-
ok 'one takes over again' "$MSYNCFS" demote "$two" "$T/sock"
ok 'and is the primary' wait_for "[ \"\$(sed -n 's/^role=//p' '$one/.msyncfs/status' | tr -d \"'\")\" = primary ]"

ok 'two, which led meanwhile, makes changes as before' timeout 60 sh -c "echo again >'$two/again'"
is 'and they are there' "$(cat "$one/again")" again

# ---- A machine that dies
wait_for streams three
flock "$two/file" sleep 1000 8<&- &
holder=$!
ok 'two holds it' wait_for listed state=held
kill_daemon "$two.msync"
nok 'its lock stays for a while' flock -n "$three/file" true
ok 'then it is free for who waits' timeout 120 flock "$three/file" true
pkill -KILL -P $holder
kill -KILL $holder 2>/dev/null
wait $holder 2>/dev/null
umount -l "$two" 2>/dev/null

# ---- Local ones
ok 'a mount with locks of its own' start two --from="$T/sock" -o locks=local
exec 8<"$two/file"
flock -x 8
ok 'does not meet the others' flock -n "$one/file" true
nok 'but itself' flock -n "$two/file" true
exec 8<&-
mount_store -o locks=cluster >"$T/out" 2>&1
is 'locks of a cluster without one are refused' "$?" 2
is 'in one line' "$(wc -l <"$T/out")" 1
for m in three two one; do ok "$m unmounts" umount_store "$T/$m" "$T/$m.msync"; done
done_testing
