#!/bin/bash
# SPDX-License-Identifier: MIT
# P6: remote mounts of one primary on one machine. All see the same, changes on any are atomic on all, kernels' caches follow, keys are
# checked, and a link that breaks hangs nobody. Replay with SEED=...
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
diag "SEED=$SEED"
RANDOM=$((SEED % 32768))

one=$T/one two=$T/two three=$T/three
mkdir "$one" "$two" "$three"
port=$(a_port)

caught_up() { streams "$1" && [ "$(value "$1" seq)" = "$(value one seq)" ]; }
# All that a mount shows: names, inodes, attributes, contents.
view() {
	(cd "$T/$1" && find . | sort | xargs -d '\n' stat -c '%n %i %a %h %s %F %u %Y' &&
		find . -type f | sort | xargs -d '\n' cat && find . -type l | sort | xargs -r -d '\n' readlink) 2>&1 | cksum
}
agree() {
	local m want
	for m in two three; do wait_for caught_up $m || fail "$1: $m does not catch up"; done
	want=$(view one)
	is "$1: two shows what one shows" "$(view two)" "$want"
	is "$1: three shows what one shows" "$(view three)" "$want"
}

# ---- Keys
ok 'keygen makes a key' "$MSYNCFS" keygen "$T/key"
is 'which only its owner may read' "$(stat -c %a "$T/key")" 600
"$MSYNCFS" keygen "$T/other" >/dev/null
for _ in 1 2 3 4 5; do
	start one --listen="127.0.0.1:$port" --key-file="$T/key" >"$T/out" && break
	port=$(a_port)
done
ok 'a primary listens' is_mounted "$one"
mkdir "$one/d"
head -c 3000000 /dev/urandom >"$one/d/big"
echo small >"$one/small"
ln -s small "$one/link"
truncate -s 10M "$one/d/sparse"
from=(--from="127.0.0.1:$port" -o on-disconnect=wait:5)
start three "${from[@]}" --key-file="$T/other" >"$T/out" 2>&1
is 'another key is refused' "$?" 1
is 'in one line' "$(wc -l <"$T/out")" 1
start three "${from[@]}" >"$T/out" 2>&1
is 'so is none' "$?" 1
is 'in one line, too' "$(wc -l <"$T/out")" 1
chmod 644 "$T/other"
start three "${from[@]}" --key-file="$T/other" >"$T/out" 2>&1
like 'a key file that others may read is refused' "$(cat "$T/out")" 'other'
rm -f "$three.msync"
from+=(--key-file="$T/key")

# ---- First sync, and what follows
ok 'a remote mount' start two "${from[@]}"
ok 'and another one' start three "${from[@]}"
agree 'first sync'
is 'status says what it is' "$(value two role) $(value one role)" 'replica primary'
echo from-two >"$two/new"
is 'a change on two is there at once for who made it' "$(cat "$two/new")" from-two
is 'and on the primary' "$(cat "$one/new")" from-two
ok 'and on three' wait_for "[ \"\$(cat '$three/new' 2>/dev/null)\" = from-two ]"
errno 'exclusive creation sees names that others made' EEXIST sysop open rw,creat,excl "$three/new"
nok 'a directory with something in it stays' rmdir "$two/d"

# ---- Caches
cat "$two/small" >/dev/null
[ ! -e "$two/later" ]
echo other >"$one/small"
: >"$one/later"
mv "$one/link" "$one/moved"
chmod 600 "$one/new"
ok 'contents that were cached follow' wait_for "[ \"\$(cat '$two/small')\" = other ]"
ok 'a name that was missing appears' wait_for "[ -e '$two/later' ]"
ok 'a name that moved is gone' wait_for "[ ! -L '$two/link' ]"
ok 'and is there' test -L "$two/moved"
ok 'attributes follow' wait_for "[ \"\$(stat -c %a '$two/new')\" = 600 ]"
rm "$three/later"
ok 'a name removed elsewhere goes' wait_for "[ ! -e '$two/later' ]"

# ---- Everybody at once
mkdir "$one/w"
for m in two three; do wait_for "[ -d '$T/$m/w' ]"; done
rounds=$(scaled 60)
load() {
	local i m=$T/$1/w
	for i in $(seq "$rounds"); do
		echo "$1 $i" >>"$m/shared" || echo "append $i" >>"$T/err.$1"
		{ mkdir "$m/$1.$i" && echo x >"$m/$1.$i/x" && mv "$m/$1.$i/x" "$m/$1.$i/y" && { [ $((i % 3)) != 0 ] || rm -r "$m/$1.$i"; }; } ||
			echo "names $i" >>"$T/err.$1"
		mkdir "$m/excl.$i" 2>/dev/null && echo "$i" >>"$T/won.$1"
	done
}
pids=()
for m in one two three; do load $m & pids+=($!); done
wait "${pids[@]}"
is 'no change failed' "$(cat "$T"/err.* 2>/dev/null)" ''
agree 'after everybody wrote'
is 'each append is there' "$(wc -l <"$one/w/shared")" $((3 * rounds))
for m in one two three; do
	is "those of $m in order" "$(grep "^$m " "$one/w/shared")" "$(seq -f "$m %.0f" "$rounds")"
done
is 'each directory was made by one of them' "$(cat "$T"/won.* | sort -n | uniq -c | awk '$1 != 1' | wc -l) $(cat "$T"/won.* | wc -l)" "0 $rounds"

# ---- An open file that is removed elsewhere
echo kept >"$two/open"
wait_for "[ -e '$one/open' ]"
exec 9<"$two/open"
rm "$one/open"
wait_for "[ ! -e '$two/open' ]"
is 'can still be read' "$(cat <&9)" kept
exec 9<&-

# ---- fsync, kill -9
echo durable >"$two/durable"
ok 'fsync on a remote mount' sync "$two/durable"
kill_daemon "$one.msync"
is 'reading goes on without the primary' "$(cat "$two/durable")" durable
errno 'a change without it ends after the set time' EROFS sysop open rw,creat "$two/refused"
start one --listen="127.0.0.1:$port" --key-file="$T/key" >"$T/out" || { fail 'the primary comes back'; diag "$(cat "$T/out")"; }
is 'with what was synced' "$(cat "$one/durable")" durable
ok 'two finds it again' wait_for streams two
ok 'and three' wait_for streams three
echo again >"$two/again"
is 'changes work again' "$(cat "$one/again")" again
agree 'after the primary was killed'
(for i in $(seq 200); do echo "$i" >>"$two/log" || exit 1; echo "$i" >"$T/acked"; done) 2>/dev/null &
writer=$!
wait_for "[ -s '$T/acked' ]"
kill_daemon "$two.msync"
wait $writer
acked=$(cat "$T/acked")
umount -l "$two" 2>/dev/null
ok 'a killed remote mount comes back' start two "${from[@]}"
agree 'after a remote mount was killed'
is 'with all that it was told' "$(head -n "$acked" "$one/log")" "$(seq "$acked")"

# ---- Away for a while
stop two
for i in $(seq 50); do echo "$i" >"$one/while.$i"; done
rm -r "$one/w"
ok 'one that was away comes back' start two "${from[@]}"
agree 'after it was away'

# ---- Only to read
stop three
ok 'a remote mount for reading only' start three "${from[@]}" -o ro
echo more >"$one/more"
ok 'follows' wait_for "[ \"\$(cat '$three/more' 2>/dev/null)\" = more ]"
errno 'and takes no changes' EROFS sysop open rw,creat "$three/mine"

# ---- Left alone
stop three
mount_store -m "$three" -s "$three.msync" >"$T/out" 2>&1
is 'a replica is not mounted as if it were alone' "$?" 1
like 'and says what to do' "$(cat "$T/out")" '--from'
ok 'but to read' mount_store -m "$three" -s "$three.msync" -o ro
is 'it has all' "$(cat "$three/durable")" durable
stop three
for m in two one; do ok "$m unmounts" stop $m; done
for m in one two three; do ok "the store of $m is clean" "$MSYNCFS" check "$T/$m.msync"; done
done_testing
