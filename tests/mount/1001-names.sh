#!/bin/bash
# SPDX-License-Identifier: MIT
# Names of every kind, directories, and the errors that go with them.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
mount_store >/dev/null || fail mount
cd "$MNT" || exit 1

long=$(printf 'n%.0s' $(seq 255))
errno 'a name of 255 bytes' ok sysop creat "$long"
errno 'the same as a directory' ok sysop mkdir "d${long:1}"
errno '256 bytes are too long to create' ENAMETOOLONG sysop creat "${long}n"
errno '... to make a directory' ENAMETOOLONG sysop mkdir "${long}n"
errno '... to look up' ENAMETOOLONG sysop open rdonly "${long}n"
errno '... to rename to' ENAMETOOLONG sysop rename none "$long" "${long}n"
errno '... to link to' ENAMETOOLONG sysop link "$long" "${long}n"
errno '... to symlink' ENAMETOOLONG sysop symlink x "${long}n"
ok 'readdir gives it whole' grep -qx "$long" <(ls)
errno 'and it goes away' ok sysop unlink "$long"

# Every byte but / and NUL, each in a name of its own.
mkdir bytes
made=0
for i in $(seq 1 255); do
	[ "$i" = 47 ] && continue
	# shellcheck disable=SC2059 # the format is made for each byte
	name=$(printf "x\\$(printf %03o "$i")y")
	[ "$i" = 10 ] && name=$'x\ny'
	echo "$i" >"bytes/$name" && made=$((made + 1))
done
is 'each of 254 bytes in a name' "$made" 254
is 'readdir gives all of them' "$(find bytes -type f -print0 | tr -dc '\0' | wc -c)" 254
wrong=0
for i in $(seq 1 255); do
	[ "$i" = 47 ] && continue
	# shellcheck disable=SC2059 # the format is made for each byte
	name=$(printf "x\\$(printf %03o "$i")y")
	[ "$i" = 10 ] && name=$'x\ny'
	[ "$(cat "bytes/$name" 2>/dev/null)" = "$i" ] || wrong=$((wrong + 1))
done
is 'and each leads to its own file' "$wrong" 0
# shellcheck disable=SC2016 # no expansions, names
touch -- '-rf' ' ' '...' '..x' '*' 'ä' $'\xff\xfe' '$(x)'
is 'odd names' "$(find . -maxdepth 1 -type f -print0 | tr -dc '\0' | wc -c)" 8
{ cd / && remount_store >/dev/null && cd "$MNT"; } || fail remount
is 'odd names are kept' "$(find . -maxdepth 1 -type f -print0 | tr -dc '\0' | wc -c)" 8
is 'all bytes are kept' "$(find bytes -type f -print0 | tr -dc '\0' | wc -c)" 254
# shellcheck disable=SC2016
ok 'remove them' rm -rf -- bytes ./-rf ' ' '...' '..x' '*' 'ä' $'\xff\xfe' '$(x)'
touch abc ABC
is 'case matters' "$(find . -maxdepth 1 -iname abc | wc -l)" 2
rm abc ABC "d${long:1}" -rf

errno 'mkdir' ok sysop mkdir d
errno 'mkdir again' EEXIST sysop mkdir d
errno 'creat over a directory' EEXIST sysop creat d
errno 'open a directory for writing' EISDIR sysop open wronly d
errno 'mkdir below nothing' ENOENT sysop mkdir nowhere/d
touch f
errno 'mkdir below a file' ENOTDIR sysop mkdir f/d
errno 'open below a file' ENOTDIR sysop open rdonly f/x
errno 'rmdir of a file' ENOTDIR sysop rmdir f
errno 'unlink of a directory' EISDIR sysop unlink d
errno 'mkdir below' ok sysop mkdir d/e
errno 'rmdir of a full directory' ENOTEMPTY sysop rmdir d
errno 'rmdir of .' EINVAL sysop rmdir d/e/.
errno 'rmdir of ..' ENOTEMPTY sysop rmdir d/e/..
is 'link count of a directory' "$(stat -c %h d)" 3
errno 'rmdir' ok sysop rmdir d/e
is 'link count goes back' "$(stat -c %h d)" 2
errno 'rmdir of what is gone' ENOENT sysop rmdir d/e
errno 'rmdir of the mount point' EBUSY sysop rmdir "$MNT"
errno 'unlink of nothing' ENOENT sysop unlink nothing

# A directory that is removed while somebody is in it.
mkdir gone
(cd gone && rmdir ../gone && errno 'nothing can be made in a removed directory' ENOENT sysop creat new) | sed 's/^ok [0-9]*/ok/' >"$T/sub"
like 'nothing can be made in a removed directory' "$(cat "$T/sub")" '^ok'

deep=deep
for i in $(seq 100); do deep=$deep/level-$i; done
ok '100 levels' mkdir -p "$deep"
echo bottom >"$deep/file"
is 'a file down there' "$(cat "$deep/file")" bottom
is '.. leads up again' "$(cd "$deep/../../.." && basename "$PWD")" level-97
ok 'rm -r of it' rm -r deep
is 'the root has two links and one for each directory' "$(stat -c %h .)" "$((2 + $(find . -mindepth 1 -maxdepth 1 -type d | wc -l)))"
cd / || exit
done_testing
