#!/bin/bash
# SPDX-License-Identifier: MIT
# O_APPEND by several processes: every line is there once, whole and in its writer's order.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
mount_store >/dev/null || fail mount

ok 'four processes append' many append "$MNT/log" 4 "$(scaled 2000)"
for p in 1 2 3; do
	(for i in $(seq 200); do echo "$p $i" >>"$MNT/shell"; done) &
	pids="${pids:-} $!"
done
# shellcheck disable=SC2086 # a list of numbers
wait $pids
is 'three shells append' "$(wc -l <"$MNT/shell") $(sort -u "$MNT/shell" | wc -l)" '600 600'
cksum <"$MNT/log" >"$T/sum"
kill_daemon
mount_store >/dev/null || fail mount
is 'kill -9 loses none of it' "$(cksum <"$MNT/log")" "$(cat "$T/sum")"
umount_store
mount_store --writeback >/dev/null || fail 'mount --writeback'
ok 'with the write-back cache' many append "$MNT/log2" 4 "$(scaled 2000)"
umount_store
done_testing
