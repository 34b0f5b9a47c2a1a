#!/bin/bash
# SPDX-License-Identifier: MIT
# Files removed while open go on working, give their space back when closed, and do not come back.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
mount_store --size=64M >/dev/null || fail mount

errno 'an unlinked file can be read, written, mapped, truncated, synced' ok sysop unlinked "$MNT"
exec 7<>"$MNT/f"
echo first >&7
rm "$MNT/f"
echo second >"$MNT/f"
is 'a new file of the same name is another one' "$(cat "$MNT/f")" second
is 'the open one has its contents' "$(cat /proc/self/fd/7)" first
exec 7<&-
is 'the new one stays' "$(cat "$MNT/f")" second

free() { sysop statfs "$MNT" | cut -d' ' -f2; }
sync "$MNT"
start=$(free)
exec 7>"$MNT/large"
head -c 20M /dev/zero | tr '\0' x >&7
rm "$MNT/large"
ok 'space is held while it is open' test "$(free)" -lt $((start - 10000000))
exec 7>&-
ok 'and comes back after close' wait_for -t 60 "test \$(sysop statfs '$MNT' | cut -d' ' -f2) -gt $((start - 4000000))"

# Renamed over while open, and a directory entry that is gone with many links.
echo old >"$MNT/x"
exec 7<"$MNT/x"
echo new >"$MNT/y"
mv "$MNT/y" "$MNT/x"
is 'replaced while open' "$(cat <&7) $(cat "$MNT/x")" 'old new'
exec 7<&-

# The daemon dies while unlinked files are open: they are gone at the next mount, and their space with them.
sysop hold "$MNT" 60 >"$T/held" &
wait_for "grep -q held '$T/held'"
kill_daemon
kill $! 2>/dev/null
wait $! 2>/dev/null
ok 'mount after the daemon died' mount_store --size=64M
# shellcheck disable=SC2012 # what ls sees is the question
is 'only what has a name is there' "$(ls -A "$MNT" | tr '\n' ' ')" 'f x '
ok 'and all space comes back' wait_for -t 60 "test \$(sysop statfs '$MNT' | cut -d' ' -f2) -gt $((start - 4000000))"
like 'O_TMPFILE works, or is refused as FUSE does' "$(sysop open rdwr,tmpfile "$MNT")" '^(ok|EOPNOTSUPP)$'
umount_store
ok 'check finds nothing lost' "$MSYNCFS" check "$STORE"
done_testing
