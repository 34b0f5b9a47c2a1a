#!/bin/bash
# SPDX-License-Identifier: MIT
# The first mount of a remote mount, and what stands in its way. What stays (another key, a store of its own, oneself) ends the command
# at once, with one line that says what to do, a status that is not 0, and nothing left behind. What may pass is waited for: it
# says what for, and ^C ends it without a trace. A mount that has its store already mounts, and goes on trying.
# shellcheck disable=SC2016 # text for eval

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need script

one=$T/one two=$T/two three=$T/three key=$T/key
mkdir "$one" "$two" "$three"
value() { sed -n "s/^$2=//p" "$T/$1/.msyncfs/status" 2>/dev/null | tr -d "'\""; }
for k in 'a key' 'a same-name' 'b unknown' 'web web --tree=/srv'; do
	read -r id file limit <<<"$k"
	"$MSYNCFS" keygen --id="$id" ${limit:+"$limit"} "$T/$file" >/dev/null || bail keygen
done
cat "$T/web" >>"$key"
grep -v '^limit=' "$T/web" >"$T/bare"
chmod 0600 "$key" "$T/bare"
mount_store -m "$one" -s "$T/one.msync" --listen="$T/socket" --key-file="$key" || bail 'the primary is mounted'
echo 1 >"$one/f"

# nothing_left NAME STORE: no process, no mount, and no store that was made for it.
nothing_left() {
	ok "$1: no process is left" wait_for "no_daemon '$2'"
	nok "$1: no mount is left" is_mounted "$three"
	nok "$1: no store is left" test -e "$2"
}

# lasting NAME REGEX OPTIONS...: it does not wait. There is no time limit here, but a wait would say so.
lasting() {
	local name=$1 regex=$2 status
	shift 2
	"$MSYNCFS" mount "$@" "$T/three.msync" "$three" >"$T/out" 2>&1
	status=$?
	is "$name: status" "$status" 1
	like "$name: why" "$(cat "$T/out")" "$regex"
	is "$name: one line" "$(wc -l <"$T/out")" 1
	nok "$name: it did not wait" grep -q 'cannot be reached' "$T/out"
	nothing_left "$name" "$T/three.msync"
}
lasting 'another secret' 'refuses our key "a".*--key-file' --from="$T/socket" --key-file="$T/same-name"
lasting 'an unknown key' 'refuses our key "b".*--key-file' --from="$T/socket" --key-file="$T/unknown"
lasting 'no key' 'uses a key.*--key-file' --from="$T/socket"
lasting 'a limit that is left out' 'limited to /srv.*limit=' --from="$T/socket" --key-file="$T/bare"
lasting 'oneself' 'this daemon itself: give the address of another' --listen="$T/self" --from="$T/./self" --key-file="$key"

# ---- What may pass: nobody listens
mkfifo "$T/hold"
# waiting NAME REGEX OPTIONS...: on a terminal it says what it waits for; the terminal's ^C ends it.
waiting() {
	local name=$1 regex=$2 pid
	shift 2
	: >"$T/tty"
	(exec 8<>"$T/hold"; exec script -qfc "exec $MSYNCFS mount $* $T/three.msync $three; exit \$?" "$T/tty" <&8 >/dev/null 2>&1) &
	pid=$!
	ok "$name: it says what it waits for" wait_for "grep -qE '$regex' '$T/tty'"
	nok "$name: it is not mounted" is_mounted "$three"
	printf '\003' >"$T/hold"
	wait "$pid"
	nothing_left "$name" "$T/three.msync"
}
waiting 'nobody listens' 'waiting for the primary: .*No such file|waiting for the primary: .*refused' --from="$T/nobody" --key-file="$key" -o on-disconnect=wait:1000
waiting 'no such name' 'waiting for the primary: .*name' --from=no-such-host.invalid:7 --key-file="$key" -o on-disconnect=wait:1000

# ---- A relay that is not in step with its primary says so, as long as that lasts
mount_store -m "$two" -s "$T/two.msync" --from="$T/socket" --listen="$T/relay" --key-file="$key" || bail 'the relay is mounted'
wait_for '[ "$(value two link_state)" = stream ]'
umount_store "$one" "$T/one.msync" || bail 'the primary is unmounted'
wait_for '[ "$(value two link_state)" != stream ]'
waiting 'a relay that is not in step' 'not in step' --from="$T/relay" --key-file="$key"
"$MSYNCFS" mount -f --from="$T/relay" --key-file="$key" "$T/three.msync" "$three" >"$T/out" 2>&1 &
daemon=$!
ok 'without a terminal it is said, too' wait_for "grep -q 'waiting for the primary: .*not in step' '$T/out'"
mount_store -m "$one" -s "$T/one.msync" --listen="$T/socket" --key-file="$key" || bail 'the primary is mounted again'
ok 'when that is over it is mounted' wait_for 'is_mounted "$three"'
is 'and has what there is' "$(cat "$three/f")" 1
umount_store "$three" "$T/three.msync"
wait "$daemon"

# ---- Who has a store mounts, whatever is said
umount_store "$two" "$T/two.msync"
ok 'with a store it mounts with a wrong key' mount_store -m "$two" -s "$T/two.msync" --from="$T/socket" --key-file="$T/same-name"
is 'and can be read' "$(cat "$two/f")" 1
ok 'its status says why it is alone' wait_for '[[ $(value two link_trouble) == *"refuses our key"* ]]'
umount_store "$two" "$T/two.msync"
ok 'and with the right one it follows' mount_store -m "$two" -s "$T/two.msync" --from="$T/socket" --key-file="$key"
ok 'again' wait_for '[ "$(value two link_state)" = stream ]'
umount_store "$two" "$T/two.msync"

# ---- A primary that is unmounted while it serves a first sync ends, and uses nothing that it has given back (sanitizers)
for i in $(seq 60); do head -c 400000 /dev/urandom >"$one/file$i"; done
for round in 1 2 3; do
	"$MSYNCFS" mount -f --from="$T/socket" --key-file="$key" "$T/three.msync" "$three" >"$T/out" 2>&1 &
	daemon=$!
	wait_for 'test -s "$T/three.msync"'
	sleep "0.$((RANDOM % 3))"
	ok "round $round: the primary is unmounted" umount_store "$one" "$T/one.msync"
	kill -TERM "$daemon"
	wait "$daemon"
	! is_mounted "$three" || umount -i -l "$three"
	rm -f "$T/three.msync"
	mount_store -m "$one" -s "$T/one.msync" --listen="$T/socket" --key-file="$key" || bail 'the primary is mounted again'
done
umount_store "$one" "$T/one.msync"
done_testing
