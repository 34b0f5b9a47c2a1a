#!/bin/bash
# SPDX-License-Identifier: MIT
# flock and fcntl locks between processes.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
mount_store >/dev/null || fail mount
for name in exclusive ranges wait signal deadlock close exit flock ofd; do
	ok "$name" timeout 60 locks $name "$MNT/file"
done
ok 'flock(1)' flock -n "$MNT/file" true
# A waiting lock does not hold anybody else up.
flock "$MNT/file" sleep 20 &
holder=$!
wait_for "! flock -n '$MNT/file' true"
flock "$MNT/file" true &
waiter=$!
ok 'others work while somebody waits for a lock' timeout 10 sh -c "echo x >'$MNT/other' && ls '$MNT' && rm '$MNT/other'"
pkill -P $holder sleep
wait $holder
wait $waiter
is 'the waiter got it' "$?" 0
umount_store
done_testing
