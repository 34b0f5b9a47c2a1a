#!/bin/bash
# SPDX-License-Identifier: MIT
# A mount that was taken away while files are open in it (umount -l): the next mount says what is true, who uses it, what to
# do, and does not wait without a word; the daemon ends when it is told to, and takes no other mount away then.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need_root
exec 2>&1
other=$T/other.msync

lazily() { # the store mounted, a file open in it, the mount taken away; $holder has the file open
	mount_store >/dev/null || fail mount
	echo text >"$MNT/file"
	# A program of its own: this shell starts the mounts.
	tail -f "$MNT/file" >"$T/tail" 2>&1 &
	holder=$!
	wait_for "[ -s '$T/tail' ]"
	daemon=$(daemon_pids | head -n 1)
	unmount -l "$MNT"
}

lazily
timeout 60 "$MSYNCFS" mount "$STORE" "$MNT" >"$T/out" 2>"$T/err" </dev/null
is 'it is not mounted twice' "$?" 1
is 'one line says that it waits, one why it failed' "$(wc -l <"$T/err")" 2
like 'the first names the daemon' "$(sed -n 1p "$T/err")" "waiting for process $daemon"
like 'the second, too, and what can be done' "$(sed -n 2p "$T/err")" "in use: process $daemon goes on serving it.*kill $daemon"
nok 'nothing says to unmount what is not mounted' grep -q 'unmount it' "$T/err"
if grep -qs '^fuse_connection' /proc/"$daemon"/fdinfo/* || [ -n "$(ls /sys/fs/fuse/connections 2>/dev/null)" ]; then
	like 'and who has files open there' "$(sed -n 2p "$T/err")" "by $holder \\(tail\\)"
else
	skip_one 'this kernel does not tell whose device it is'
fi
# A dump does not wait for that: it takes the last checkpoint.
ok 'a dump beside it' timeout 60 "$MSYNCFS" dump "$STORE" "$T/stream"
# Something else in its place: the old daemon leaves it alone when it is told to end.
ok 'another store can be mounted there' mount_store -s "$other"
echo other >"$MNT/file"
kill -TERM "$daemon"
ok 'SIGTERM ends the daemon although the file is open' wait_for "! [ -d /proc/$daemon ]"
ok 'the other mount is still there' is_mounted
is 'and has its files' "$(cat "$MNT/file")" other
ok 'unmount the other' umount_store "$MNT" "$other"
kill "$holder" 2>/dev/null
wait "$holder" 2>/dev/null
ok 'the store can be mounted' mount_store
is 'nothing is lost' "$(cat "$MNT/file")" text
umount_store

# Who ends while the next mount waits for it.
lazily
timeout 60 "$MSYNCFS" mount "$STORE" "$MNT" >"$T/out" 2>"$T/err" </dev/null &
mounting=$!
ok 'the next mount says that it waits' wait_for "grep -q waiting '$T/err'"
kill "$holder"
wait "$holder" 2>/dev/null
wait "$mounting"
is 'and succeeds when the file is closed' "$?" 0
is 'with one line' "$(sed 1d "$T/err")" ''
is 'nothing is lost' "$(cat "$MNT/file")" text
umount_store
done_testing
