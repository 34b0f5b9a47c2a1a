#!/bin/bash
# SPDX-License-Identifier: MIT
# A mount whose daemon was killed is cleaned by the next mount, and everything acknowledged is there (P1).
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

ok mount mount_store
mkdir "$MNT/d"
echo one >"$MNT/d/one"
head -c 700000 /dev/urandom >"$T/big"
cp "$T/big" "$MNT/d/big"
mv "$MNT/d/one" "$MNT/d/two"
ok 'the daemon is killed' kill_daemon
nok 'the mount is dead' stat "$MNT/d"
ok 'the dead mount is still in the mount table' is_mounted
ok 'the next mount cleans it' mount_store
is 'exactly one mount is there' "$(grep -cF " $MNT " /proc/self/mountinfo)" 1
is 'contents are there' "$(cat "$MNT/d/two")" one
same 'large contents are there' "$T/big" "$MNT/d/big"
ok 'and nothing else' test ! -e "$MNT/d/one"

# The same with a program that still sits in the dead mount.
exec 7<"$MNT/d/two"
echo three >"$MNT/d/three"
kill_daemon
ok 'a dead mount with an open file is cleaned too' mount_store
is 'and the data is there' "$(cat "$MNT/d/three")" three
exec 7<&-

# A dead mount of another store at the same place.
kill_daemon
first=$STORE
STORE=$T/second.msync
ok 'another store can be mounted over a dead mount' mount_store
is 'it is the other store' "$(ls -A "$MNT")" ''
umount_store
STORE=$first

for _ in 1 2 3; do
	mount_store >/dev/null
	echo x >>"$MNT/count"
	kill_daemon
done
ok 'after three kills in a row' mount_store
is 'nothing is lost' "$(wc -l <"$MNT/count")" 3
umount_store
done_testing
