#!/bin/bash
# SPDX-License-Identifier: MIT
# A store with files of every kind is damaged in its file: check names what is damaged by place and path, check --salvage
# makes a new store in which everything outside of the damage is as it was and says what is lost, and the damaged store is
# not changed. The exit status is that of fsck(8).
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need getfattr setfattr
NEW=$T/new.msync

# One line for each path: its number, attributes and contents. Directories without what follows from their entries.
listing() {
	(cd "$1" && {
		find . -type d -printf '%p %i %m %U %G d\n'
		find . ! -type d -printf '%p %i %m %U %G %y %n %s %T@ %l\n'
		find . -type f -size -100M -print0 | xargs -0 cksum | awk '{ print $3, $1 }'
		find . -type f -size +100M -print | while read -r f; do echo "$f $(tail -c 8000 "$f" | cksum)"; done
		getfattr -R -h -d -m '^user\.|^system\.posix' . 2>/dev/null |
			awk '/^# file: / { file = $3 == "." ? "." : "./" $3; next } NF { print file, $0 }'
	} | awk '{ path = $1; $1 = ""; line[path] = line[path] $0 } END { for (path in line) print path line[path] }' | sort)
}

# run WANT ARGUMENT...: msyncfs check; the findings in $T/err, the verdict in $T/out.
run() {
	local want=$1
	shift
	timeout 120 "$MSYNCFS" check "$@" </dev/null >"$T/out" 2>"$T/err"
	is "check ${*//$T\//}: status" "$?" "$want" || diag "$(tail -n 5 "$T/err")"
}

# ------------------------------------------------------------------------------------------------- a store to damage
mount_store >/dev/null || fail mount
mkdir -p "$MNT/a/b" "$MNT/c" "$MNT/many"
for i in $(seq 200); do echo "$i" >"$MNT/many/$i-has-a-name-that-makes-the-directory-a-large-one"; done
head -c 2000000 /dev/zero | tr '\0' Q >"$T/q"
head -c 2000000 /dev/zero | tr '\0' R >"$T/r"
# In pieces that go to extents, not through the journal.
dd if="$T/q" of="$MNT/a/quiet" bs=1M status=none
dd if="$T/r" of="$MNT/a/b/red" bs=1M status=none
head -c 3000000 /dev/urandom >"$MNT/a/big"
head -c 700 /dev/urandom >"$MNT/a/small"
ln "$MNT/a/big" "$MNT/c/hard"
ln -s ../a/big "$MNT/c/soft"
ln -s "$(printf 'x%.0s' $(seq 3000))" "$MNT/c/long"
mkfifo "$MNT/c/fifo"
truncate -s 5G "$MNT/c/sparse"
echo end >>"$MNT/c/sparse"
touch "$MNT/c/kept"
fallocate -n -l 1M "$MNT/c/kept"
setfattr -n user.long -v "$(head -c 20000 /dev/zero | tr '\0' v)" "$MNT/a/small"
setfattr -n user.colour -v red "$MNT/a/b"
[ "$(id -u)" != 0 ] || { mknod "$MNT/c/device" c 7 9; chown 1234:4321 "$MNT/a/small"; }
! command -v setfacl >/dev/null || setfacl -m u:1234:r-- "$MNT/a/big"
umount_store
mount_store -o ro >/dev/null
listing "$MNT" >"$T/before"
umount_store
cp "$STORE" "$T/good"

block_of() { echo $(($(grep -abo -m1 "$1" "$STORE" | head -n 1 | cut -d: -f1) / 4096 + ${2:-0})); }
Q=QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ
quiet=$(block_of $Q 100)
red=$(block_of ${Q//Q/R} 100)
is 'blocks of two files are found in the store' \
	"$(dd if="$STORE" bs=4096 skip="$quiet" count=1 status=none | tr -d Q | wc -c) $(
	dd if="$STORE" bs=4096 skip="$red" count=1 status=none | tr -d R | wc -c)" '0 0'

again() { cp "$T/good" "$STORE"; rm -f "$NEW"; }
zero() { dd if=/dev/zero of="$STORE" bs=4096 seek="$1" count="${2:-1}" conv=notrunc status=none; }
scramble() { dd if=/dev/urandom of="$STORE" bs=4096 seek="$1" count="${2:-1}" conv=notrunc status=none; }
swap() {
	dd if="$STORE" of="$T/one" bs=4096 skip="$1" count=1 status=none
	dd if="$STORE" of="$T/two" bs=4096 skip="$2" count=1 status=none
	dd if="$T/one" of="$STORE" bs=4096 seek="$2" conv=notrunc status=none
	dd if="$T/two" of="$STORE" bs=4096 seek="$1" conv=notrunc status=none
}

# Paths of before whose line is not in after.
changed() {
	listing "$MNT" >"$T/after"
	diff <(cat "$T/before") <(cat "$T/after") | sed -n 's/^< //p'
}

# Is the inode named by a finding: by its number, or in a range of numbers?
is_named() {
	awk -v ino="$1" '
		{ line = $0 }
		{ while (match(line, /(inode|directory) [0-9]+/)) {
			split(substr(line, RSTART, RLENGTH), w, " "); if (w[2] == ino) found = 1
			line = substr(line, RSTART + RLENGTH) } }
		match($0, /inodes [0-9]+ to [0-9]+/) {
			split(substr($0, RSTART, RLENGTH), w, " "); if (ino >= w[2] + 0 && ino <= w[4] + 0) found = 1 }
		END { exit !found }' "$T/err"
}

# Is it named, or a directory that it was in and that took it along?
is_explained() { # PATH
	local path=$1
	while :; do
		is_named "$(awk -v path="$path" '$1 == path { print $2 }' "$T/before")" && return 0
		[ "$path" != . ] || return 1
		path=${path%/*}
	done
}

# salvaged NAME WANT: take out what is whole, with that exit status; all that is not as it was is named.
salvaged() {
	local sum path unnamed=
	sum=$(cksum <"$STORE")
	run "$2" --salvage "$STORE" "$NEW"
	is "$1: the damaged store is as it was" "$(cksum <"$STORE")" "$sum"
	cp "$T/err" "$T/findings"
	ok "$1: the new store is in order" "$MSYNCFS" check "$NEW"
	mount_store -s "$NEW" >/dev/null || { fail "$1: mount of the new store"; return; }
	changed >"$T/changed"
	[ "$2" = 4 ] || is "$1: everything is as it was" "$(cat "$T/changed")" ''
	while read -r path _; do
		is_explained "$path" || unnamed="$unnamed $path"
	done <"$T/changed"
	is "$1: what is not as it was is named ($(wc -l <"$T/changed") paths)" "$unnamed" '' || diag "$(head "$T/findings")"
	umount_store "$MNT" "$NEW"
}

# ---------------------------------------------------------------------------------------------------------- damage
run 0 "$STORE"
salvaged 'nothing damaged' 0
is 'nothing damaged: nothing is said' "$(wc -l <"$T/findings")" 0

again
zero 2046 2
run 4 "$STORE"
like 'copies of the superblock: named' "$(cat "$T/err")" 'superblock'
salvaged 'copies of the superblock zeroed' 1

again
scramble 0 2
run 4 "$STORE"
salvaged 'both superblocks scrambled' 1

again
zero 0 2
zero 2046 2
run 8 "$STORE"
salvaged 'all superblocks zeroed' 4
is 'all superblocks zeroed: everything is there all the same' "$(cat "$T/changed")" ''
ok 'and it is said' grep -q 'no superblock is left' "$T/findings"

again
scramble "$quiet" 3
run 4 "$STORE"
ok 'a page of a file: check names its path' grep -q '/a/quiet' "$T/err"
ok 'and the place in the store' grep -qE "byte $((quiet * 4096))|block $quiet" "$T/err"
salvaged 'pages of a file scrambled' 4
ok 'salvage names its path' grep -q '/a/quiet' "$T/findings"
is 'only this file is not as it was' "$(cut -d' ' -f1 "$T/changed")" ./a/quiet
mount_store -s "$NEW" >/dev/null
nok 'a file in part does not stand at its name' test -e "$MNT/a/quiet"
aside=$(find "$MNT/lost+found" -type f)
is 'what is whole of it is put aside: all but three pages, which are a hole' \
	"$(tr -d Q <"$aside" | wc -c) $(tr -d Q <"$aside" | tr -d '\0' | wc -c)" "$((3 * 4096)) 0"
umount_store "$MNT" "$NEW"

again
mount_store >/dev/null
scramble "$quiet" 3
zero "$red"
run 4 "$STORE"
ok 'two files damaged while it is mounted: both are named' sh -c "grep -q '/a/quiet)' '$T/err' && grep -q '/a/b/red)' '$T/err'"
like 'and what was looked at' "$(cat "$T/out")" 'while it is mounted.*2 problems'
umount_store

again
swap "$quiet" "$red"
run 4 "$STORE"
ok 'swapped pages: check names both paths' sh -c "grep -q /a/quiet '$T/err' && grep -q /a/b/red '$T/err'"
mount_store >/dev/null || fail 'mount of the damaged store'
is "swapped pages: no byte of one file is read in the other" "$(tr -d Q 2>/dev/null <"$MNT/a/quiet" | wc -c) $(
	tr -d R 2>/dev/null <"$MNT/a/b/red" | wc -c)" '0 0'
umount_store
again
swap "$quiet" "$red"
salvaged 'swapped pages' 4
is 'only these files are not as they were' "$(cut -d' ' -f1 "$T/changed" | tr '\n' ' ')" './a/b/red ./a/quiet '

# Pages of the tree that are in use, each in one of the ways.
diag "SEED=$SEED"
RANDOM=$((SEED % 32768))
again
grep -abo MTPG "$STORE" | cut -d: -f1 | awk -v seed="$SEED" 'BEGIN { srand(seed) } $1 % 4096 == 0 { print rand(), $1 / 4096 }' |
	sort -n | cut -d' ' -f2 >"$T/pages"
names_page() { grep -qE "(page|block) $1\\b|byte $(($1 * 4096))\\b" "$T/err"; }
hit=0
while [ $hit -lt "$(scaled 5)" ] && read -r page; do
	again
	zero "$page"
	# One of an older tree is nobody's loss.
	timeout 120 "$MSYNCFS" check "$STORE" </dev/null >/dev/null 2>"$T/err" && continue
	hit=$((hit + 1))
	again
	case $((RANDOM % 3)) in
	0) zero "$page"; how=zeroed;;
	1) scramble "$page"; how=scrambled;;
	*) swap "$page" "$quiet"; how='swapped with one of contents';;
	esac
	run 4 "$STORE"
	ok "tree page $page $how: check says where" names_page "$page"
	timeout 120 "$MSYNCFS" check --salvage "$STORE" "$NEW" </dev/null >/dev/null 2>&1
	status=$?
	rm -f "$NEW"
	like "tree page $page $how: salvage says whether something is lost" $status '^[14]$'
	salvaged "tree page $page $how" $status
done <"$T/pages"
ok "pages of the tree were damaged ($hit)" test $hit -gt 0

# ----------------------------------------------------------------------------------------- exit status, as fsck(8)
again
run 16
run 16 --salvage "$STORE"
run 16 "$STORE" "$NEW"
run 16 --frobnicate "$STORE"
run 16 --salvage "$STORE" :memory:
run 8 "$T/nowhere"
run 8 "$T"
run 8 "$T/q"
run 8 --salvage "$T/q" "$NEW"
run 8 --salvage "$T/nowhere" "$NEW"
run 8 --salvage "$STORE" "$T/q"
is 'what has the name of the new store is left as it is' "$(tr -d Q <"$T/q" | wc -c)" 0
run 8 --salvage "$STORE" "$T/nowhere/new"
mount_store >/dev/null
run 8 --salvage "$STORE" "$NEW"
ok 'in use: and it says where' grep -q "mounted on $MNT" "$T/err"
run 0 "$STORE"
umount_store
nok 'no new store was made by any of these' test -e "$NEW"
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	chmod 600 "$STORE"
	timeout 60 setpriv --reuid=65534 --regid=65534 --clear-groups "$MSYNCFS" check "$STORE" >/dev/null 2>"$T/err"
	is 'no right to read it: status' $? 8
fi

# Interrupted: held up by output that nobody takes, so that it is under way.
mkfifo "$T/full"
exec 8<>"$T/full"
dd if=/dev/zero of="$T/full" bs=4096 oflag=nonblock status=none 2>/dev/null
# Until it is the program and not the shell that becomes it, the signals are caught by the shell's own traps.
is_program() { [ "$(readlink "/proc/$1/exe" 2>/dev/null)" = "$(readlink -f "$MSYNCFS")" ]; }
catches() {
	local mask
	is_program "$1" || return 1
	mask=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null)
	(((16#0$mask >> ($2 - 1)) & 1))
}
interrupted() { # SIGNAL NUMBER ARGUMENT...
	local sig=$1 number=$2 pid
	shift 2
	"$MSYNCFS" check "$@" >"$T/full" 2>"$T/full" </dev/null &
	pid=$!
	wait_for catches $pid "$number" || fail "the check does not wait for signals"
	kill "-$sig" $pid
	wait $pid
	is "check ${*//$T\//}, interrupted by $sig: status" $? 32
}
scramble "$quiet"
for signal in 'TERM 15' 'INT 2' 'HUP 1'; do
	# shellcheck disable=SC2086 # two words
	interrupted $signal "$STORE"
	# shellcheck disable=SC2086
	interrupted $signal --salvage "$STORE" "$NEW"
done
exec 8>&-
is 'interrupted: nothing is left' "$(find "$T" -name 'new.msync*')" ''

# In the second half the new store is there, without a name. It is stopped there, so that it cannot be done too early.
again
mount_store >/dev/null
head -c $((48 << 20)) /dev/urandom >"$MNT/c/large"
umount_store
has_unnamed() { find "/proc/$1/fd" -lname "$T/*(deleted)" 2>/dev/null | grep -q .; }
ended_early() {
	local pid status
	"$MSYNCFS" check --salvage "$STORE" "$NEW" >/dev/null 2>"$T/err" </dev/null &
	pid=$!
	while is_running "$pid" && ! has_unnamed "$pid"; do :; done
	kill -STOP "$pid" 2>/dev/null
	kill -TERM "$pid" 2>/dev/null
	kill -CONT "$pid" 2>/dev/null
	wait "$pid"
	status=$?
	# Done already: once more.
	[ "$status" = 0 ] && { rm -f "$NEW"; return 1; }
	is 'salvage, interrupted while it copies: status' "$status" 32
}
is_running() { kill -0 "$1" 2>/dev/null && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; }
wait_for ended_early || fail 'it is always too fast'
ok 'and it says that nothing is made' grep -q 'interrupted: .* is not made' "$T/err"
is 'nothing is left' "$(find "$T" -name 'new.msync*')" ''
again
scramble "$quiet"
ok 'fsck.msyncfs gives the same' sh -c "'$ROOT/mount-scripts/fsck.msyncfs' -f '$STORE' >/dev/null 2>&1; test \$? = 4"
done_testing
