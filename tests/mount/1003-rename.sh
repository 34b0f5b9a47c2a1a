#!/bin/bash
# SPDX-License-Identifier: MIT
# rename with every flag, and what it must refuse; file handles over a rename and a remount.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
mount_store >/dev/null || fail mount
cd "$MNT" || exit 1

echo a >a
echo b >b
inode=$(stat -c %i a)
ok 'mv to a new name' mv a c
is 'inode is kept' "$(stat -c %i c)" "$inode"
ok 'mv over a name' mv c b
is 'replaces' "$(cat b) $(ls)" 'a b'
echo n >n
mv -n b n
is 'mv -n does not' "$(cat n) $(cat b)" 'n a'
errno 'NOREPLACE over a name' EEXIST sysop rename noreplace b n
errno 'NOREPLACE to a new name' ok sysop rename noreplace b m
errno 'EXCHANGE' ok sysop rename exchange m n
is 'exchanged' "$(cat m) $(cat n)" 'n a'
errno 'EXCHANGE with nothing' ENOENT sysop rename exchange m nothing
mkdir -p d1/sub d2
echo in >d1/sub/f
errno 'EXCHANGE of a file and a directory' ok sysop rename exchange m d1
is 'exchanged' "$(cat d1) $(cat m/sub/f)" 'n in'
errno 'and back' ok sysop rename exchange m d1
errno 'EXCHANGE across directories' ok sysop rename exchange d1/sub d2
is 'link counts follow' "$(stat -c %h d1 d2)" "$(printf '3\n2')"
is '.. follows' "$(stat -c %i d1/sub/..)" "$(stat -c %i d1)"
is 'contents follow' "$(cat d2/f)" in
errno 'EXCHANGE with what lies below' EINVAL sysop rename exchange d1 d1/sub
errno 'EXCHANGE and NOREPLACE' EINVAL sysop rename 3 m n
errno 'unknown flags' EINVAL sysop rename 64 m n
if [ "$(id -u)" = 0 ]; then
	errno 'WHITEOUT' ok sysop rename whiteout m moved
	is 'leaves a whiteout' "$(stat -c '%F %t %T' m)" 'character special file 0 0'
	is 'and moves' "$(cat moved)" n
	rm m
	mv moved m
fi

errno 'nothing to rename' ENOENT sysop rename none nothing x
errno 'file over directory' EISDIR sysop rename none m d1
errno 'directory over file' ENOTDIR sysop rename none d1 m
errno 'directory over a full one' ENOTEMPTY sysop rename none d2 d1
mkdir empty
errno 'directory over an empty one' ok sysop rename none d2 empty
is 'has the contents' "$(cat empty/f)" in
errno 'directory below itself' EINVAL sysop rename none d1 d1/sub/x
errno 'to a missing directory' ENOENT sysop rename none m nowhere/m
errno 'of .' EBUSY sysop rename none . x
mkdir d3
mv d1/sub d3/
is 'moving a directory moves the link count' "$(stat -c %h d1 d3)" "$(printf '2\n3')"
is 'and its ..' "$(stat -c %i d3/sub/..)" "$(stat -c %i d3)"
before=$(stat -c %Z m)
wait_for "[ \$(date +%s) -gt $before ]"
mv m m2
ok 'rename changes ctime' test "$(stat -c %Z m2)" -gt "$before"
exec 7<m2
echo other >other
mv other m2
is 'a replaced file can still be read' "$(cat <&7)" n
exec 7<&-

# Many renames over one name: a reader never finds it missing or half.
echo 0 >name
(for i in $(seq 300); do echo "$i$i" >tmp && mv tmp name; done) &
bad=0
while kill -0 $! 2>/dev/null; do [ -n "$(cat name 2>/dev/null)" ] || bad=$((bad + 1)); done
is 'write and rename: a reader always finds a whole file' "$bad" 0

if [ "$(id -u)" = 0 ]; then
	errno 'file handle' ok sysop handle_save m2 "$T/handle"
	errno 'of a directory' ok sysop handle_save empty "$T/handle.d"
	errno 'of a file to be removed' ok sysop handle_save name "$T/handle.gone"
	mv m2 d3/elsewhere
	rm name
	is 'opens after a rename' "$(sysop handle_cat "$MNT" "$T/handle")" other
	{ cd / && remount_store >/dev/null && cd "$MNT"; } || fail remount
	is 'opens after a remount' "$(sysop handle_cat "$MNT" "$T/handle")" other
	is 'a directory too' "$(sysop handle_cat "$MNT" "$T/handle.d" | sort | tr '\n' ' ')" '. .. f '
	errno 'a removed file is stale' ESTALE sysop handle_cat "$MNT" "$T/handle.gone"
fi
cd / || exit
done_testing
