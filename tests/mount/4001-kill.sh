#!/bin/bash
# SPDX-License-Identifier: MIT
# P1: kill -9 of the daemon at random moments under load loses nothing that was acknowledged, and leaves nothing half.
# Replay with SEED=... (the load is the same, the moment is the machine's).
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
diag "SEED=$SEED"
RANDOM=$((SEED % 32768))

rounds=$(scaled 10)
for round in $(seq "$rounds"); do
	options=()
	case $((round % 4)) in
	0) options=(-o sync);;
	1) options=(-o sync-interval=1);;
	esac
	mount_store "${options[@]}" >"$T/out" || { fail "round $round: mount"; diag "$(cat "$T/out")"; done_testing; }
	for old in $(seq 1 $((round - 1))); do
		ok "round $round: what round $old was told is there" ackload check "$MNT/$old" "$T/log.$old"
	done
	mkdir "$MNT/$round"
	ackload write "$MNT/$round" "$T/log.$round" $((SEED + round)) &
	load=$!
	# At least some work must have been acknowledged; then a random moment within half a second.
	wait_for "[ \"\$(cat '$T/log.$round'.? 2>/dev/null | grep -c a)\" -gt 20 ]"
	sleep "0.$(printf '%03d' $((RANDOM % 500)))"
	kill_daemon || fail "round $round: no daemon to kill"
	wait $load
	is "round $round: the load saw nothing but the death of the daemon" "$?" 0
done
ok 'mount after the last kill' mount_store || done_testing
ok 'what the last round was told is there' ackload check "$MNT/$rounds" "$T/log.$rounds"
diag "$(cat "$T"/log.*.? | grep -c a) operations were acknowledged"
umount_store
ok 'the store is clean' "$MSYNCFS" check "$STORE"

# Killed while it recovers, several times over.
mount_store >/dev/null || { fail mount; done_testing; }
mkdir "$MNT/last"
ackload write "$MNT/last" "$T/log.last" "$SEED" &
load=$!
wait_for "[ \"\$(cat '$T/log.last'.? 2>/dev/null | grep -c a)\" -gt 500 ]"
kill_daemon
wait $load
for _ in $(seq 5); do
	"$MSYNCFS" mount "$STORE" "$MNT" </dev/null >/dev/null 2>&1 &
	mounting=$!
	sleep "0.0$(printf '%02d' $((RANDOM % 40)))"
	kill_daemon
	wait $mounting
	kill_daemon
done
ok 'mount after kills during recovery' mount_store
ok 'still all there' ackload check "$MNT/last" "$T/log.last"
umount_store
ok 'the store is clean' "$MSYNCFS" check "$STORE"
done_testing
