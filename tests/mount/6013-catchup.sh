#!/bin/bash
# SPDX-License-Identifier: MIT
# P6: a remote mount that comes back gets what it missed, contents in large pieces and in small ones: by changes, by comparison, and
# when it is killed in the middle. What it shows, and what its store holds, is what the primary has. While it is behind it syncs now
# and then, not for each few changes; when it is there, what the primary has on disk it has, too. Replay with SEED=...
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
diag "SEED=$SEED"
RANDOM=$((SEED % 32768))

one=$T/one two=$T/two
mkdir "$one" "$two"
port=$(a_port)
start() {
	local name=$1
	shift
	mount_store -m "$T/$name" -s "$T/$name.msync" "$@"
}
stop() { umount_store "$T/$1" "$T/$1.msync"; }
value() { sed -n "s/^$2=//p" "$T/$1/.msyncfs/status" | tr -d "'\""; }
caught_up() { [ "$(value two link_state)" = stream ] && [ "$(value two seq)" = "$(value one seq)" ]; }
durable_too() { [ "$(value two durable_seq)" -ge "$(value one durable_seq)" ]; }
view() { (cd "$T/$1" && find . -type f | sort | xargs -d '\n' sha256sum && find . | sort | xargs -d '\n' stat -c '%n %i %a %s') | sha256sum; }
agree() {
	ok "$1: it catches up" wait_for caught_up
	is "$1: two shows what one shows" "$(view two)" "$(view one)"
}
# Files of MiBs by large and odd pieces, some over others, some with holes; and many small changes.
changes() {
	local d=$one/$1 i
	mkdir "$d"
	dd if=/dev/urandom of="$d/large" bs=1M count=12 status=none
	dd if=/dev/urandom of="$d/odd" bs=300001 count=20 status=none
	dd if=/dev/urandom of="$d/large" bs=100k seek=7 count=11 conv=notrunc status=none
	dd if=/dev/urandom of="$d/holes" bs=128k seek=50 count=3 status=none
	truncate -s 2M "$d/odd"
	for i in 1 2 3 4 5 6 7 8; do head -c "$((RANDOM * 9))" /dev/urandom >"$d/f$i"; done
	dd if=/dev/urandom of="$d/small" bs=4k count="$(scaled 3000)" status=none
	sync "$d/small"
}

"$MSYNCFS" keygen "$T/key" >/dev/null
for _ in 1 2 3 4 5; do
	start one --listen="127.0.0.1:$port" --key-file="$T/key" -o journal-keep=256M >"$T/out" && break
	port=$(a_port)
done
ok 'a primary listens' is_mounted "$one"
from=(--from="127.0.0.1:$port" --key-file="$T/key")

# ---- First sync
changes a
ok 'a remote mount' start two "${from[@]}"
agree 'first sync'

# ---- By changes
stop two
changes b
before=$(date +%s%N)
ok 'it comes back' start two "${from[@]}"
wait_for caught_up
syncs=$(value two syncs) most=$((($(date +%s%N) - before) / 100000000 + 10))
agree 'after changes'
is 'without a comparison' "$(value two comparisons)" 0
ok 'what the primary has on disk it has, too' wait_for durable_too
ok "it synced now and then: $syncs times, at most $most" [ "$syncs" -le "$most" ]
is 'a change is there at once after that' "$(echo now >"$two/now" && cat "$one/now")" now

# ---- Killed in the middle
stop two
changes c
ok 'it comes back' start two "${from[@]}"
kill_daemon "$two.msync"
umount -l "$two" 2>/dev/null
ok 'and once more, having been killed' start two "${from[@]}"
agree 'killed in the middle'

# ---- By comparison
stop two
rm "$two.msync"
rm -r "$one/a"
start two "${from[@]}" >"$T/out" 2>&1 &
wait_for "[ -e '$two.msync' ]"
kill_daemon "$two.msync"
wait
umount -l "$two" 2>/dev/null
ok 'a first sync that was cut off goes on' start two "${from[@]}"
agree 'cut off'
for m in two one; do ok "$m unmounts" stop $m; done
for m in one two; do ok "the store of $m is clean" "$MSYNCFS" check "$T/$m.msync"; done
done_testing
