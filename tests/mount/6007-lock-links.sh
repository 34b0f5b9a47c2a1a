#!/bin/bash
# SPDX-License-Identifier: MIT
# P6: locks hold while the links between the machines break again and again: programs on three mounts count under locks, and no
# step is lost, none counted twice. The sockets are destroyed from outside (ss -K: root, and a kernel that can).
#   ROUNDS=n: how long (make lock-links-test: 8)
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
diag "SEED=$SEED"
RANDOM=$((SEED % 32768))
[ "$(id -u)" = 0 ] || skip_all 'only root may destroy sockets'
command -v ss >/dev/null || skip_all 'ss is missing'

one=$T/one two=$T/two three=$T/three
mkdir "$one" "$two" "$three"
for _ in 1 2 3 4 5; do
	port=$(a_port)
	mount_store -m "$one" -s "$one.msync" --listen="127.0.0.1:$port" >"$T/out" && break
done
for m in two three; do ok "$m is mounted" mount_store -m "$T/$m" -s "$T/$m.msync" --from="127.0.0.1:$port"; done
: >"$one/number"
for m in two three; do wait_for "[ -e '$T/$m/number' ]"; done
break_links() { ss -K state established "sport = :$port" >"$T/ss" 2>&1; }
streams() { [ "$(value two link_state)" = stream ] && [ "$(value three link_state)" = stream ]; }
break_links
[ "$(wc -l <"$T/ss")" -gt 1 ] || skip_all 'this kernel destroys no sockets'
ok 'links come back' wait_for streams
rounds=${ROUNDS:-1}
count() { for _ in $(seq "$rounds"); do timeout 300 locks count "$T/$1/number" || return 1; done; }
pids=()
for m in one two three; do count $m >"$T/count.$m" 2>&1 & pids+=($!); done
cuts=0
while [ -n "$(jobs -pr)" ]; do
	break_links
	cuts=$((cuts + 1))
	sleep 0.$((2 + RANDOM % 5))
done
wait "${pids[@]}"
is 'each step was counted once' "$(cat "$one/number")$(cat "$T"/count.*)" "$(printf '%08d' $((3 * 500 * rounds)))" ||
	for m in one two three; do diag "$m: $(cat "$T/$m/number") $(cat "$T/$m/.msyncfs/locks" && grep -E '^(seq|link_state|open_calls|notify)' "$T/$m/.msyncfs/status")"; done
ok 'links broke meanwhile' test "$cuts" -gt 0
ok 'nothing is left behind' wait_for "[ ! -s '$one/.msyncfs/locks' ]"
for m in two three one; do ok "$m unmounts" umount_store "$T/$m" "$T/$m.msync"; done
done_testing
