#!/bin/bash
# SPDX-License-Identifier: MIT
# Somebody cuts the store file short while it is mounted, or the disk cannot read a part of it: the daemon says so in one
# line, is read-only from then on, answers everything (EIO for what is gone, EROFS for changes), and can be unmounted.
# Replaced, renamed or removed it goes on.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

fill() {
	local i
	for i in $(seq 40); do op cp "$T/data" "$MNT/f$i" || return 1; done
	op sync "$MNT/f40"
}

new_store() {
	rm -f "$STORE"
	: >"$T/log"
	start_daemon "$@" || { fail 'mount'; diag "$(cat "$T/log")"; done_testing; }
	fill || fail 'fill'
}

# The file without a name that a process has open.
unnamed() { find -L "/proc/$1/fd" -type f -links 0 -size +1000k 2>/dev/null | head -n 1; }
has_unnamed() { [ -n "$(unnamed "$1")" ]; }

# Each call is answered, and none with wrong bytes.
probe() {
	local i bad=
	for i in $(seq 40); do
		op cat "$MNT/f$i" >"$T/got" 2>"$T/err"
		case $? in
		0) cmp -s "$T/data" "$T/got" || bad="f$i: wrong bytes";;
		*) grep -qE 'Input/output error' "$T/err" || bad="f$i: $(cat "$T/err")";;
		esac
	done
	is "$1: reads are right or EIO" "$bad" ''
	# Nobody may have touched what is gone: this one looks.
	nok "$1: fsync is no success" op sync "$MNT/f1"
	op touch "$MNT/new" 2>"$T/err"
	ok "$1: a change is refused" grep -qE 'Input/output error|Read-only' "$T/err"
	is "$1: status says so" "$(op grep -E '^state=' "$MNT/.msyncfs/status")" state=failed
	is "$1: the log says so, once" "$(grep -c 'STORE FAILED.*cannot be read' "$T/log")" 1
}

end() {
	ok "$1: the daemon lives" kill -0 "$DAEMON"
	stop_daemon
	is "$1: it ends, and says that it was not well" "$status" 1
	nok "$1: no mount is left" is_mounted
	faults=$((faults + 1))
}

seq 30000 >"$T/data"
for to in 0 12M ${LONG:+4K 1M 3M 5M 8M 20M}; do
	new_store
	truncate -s "$to" "$STORE"
	probe "cut to $to"
	# Nothing may be written to what is left.
	size=$(stat -c %s "$STORE")
	end "cut to $to"
	is "cut to $to: the file was left as it was" "$(stat -c %s "$STORE")" "$size"
	"$MSYNCFS" check "$STORE" >/dev/null 2>"$T/err"
	is "cut to $to: check says that it is damaged" $? 4
done

# What is left of a store that was cut to nothing is not taken for a new file, unless the file system cannot note that.
: >"$STORE.new"
if setfattr -n user.msyncfs.test -v 1 "$STORE.new" 2>/dev/null; then
	new_store
	uuid=$(status_of uuid)
	stop_daemon
	: >"$STORE"
	for how in rw ro; do
		timeout 60 "$MSYNCFS" mount -o $how "$STORE" "$MNT" </dev/null >"$T/out" 2>&1
		is "cut to nothing: no new store is made of it ($how)" "$(($? != 0)) $(wc -l <"$T/out")" '1 1' || diag "$(cat "$T/out")"
		ok "and the line says which one it was" grep -q "was a store (uuid $uuid).*remove it" "$T/out"
		nok 'it is not mounted' is_mounted
	done
	is 'it is left as it was' "$(stat -c %s "$STORE")" 0
	rm "$STORE"
	touch "$STORE"
	: >"$T/log"
	ok 'a new empty file is a place for a store' start_daemon
	stop_daemon
	rm -f "$STORE"
else
	skip_one 'no extended attributes of users here'
fi

# All that it holds is on disk, and nothing is asked of it: an fsync looks all the same.
new_store -- -o sync-interval=0
wait_for "[ \"\$(status_of dirty_bytes)\" = 0 ]"
op sync "$MNT/f1" || fail 'sync before'
truncate -s -4096 "$STORE"
nok 'all was durable: the first fsync after the cut is no success' op sync "$MNT/f1"
probe 'all was durable'
end 'all was durable'

# The new store of a load, which has no name yet.
new_store
ok 'dump' "$MSYNCFS" dump "$STORE" "$T/stream"
stop_daemon
half=$(($(stat -c %s "$T/stream") / 2))
mkfifo "$T/pipe"
for to in 0 1M; do
	"$MSYNCFS" load "$STORE.loaded" "$T/pipe" >"$T/out" 2>&1 &
	load=$!
	exec 9>"$T/pipe"
	head -c $half "$T/stream" >&9
	wait_for has_unnamed $load || fail 'load has no file'
	truncate -s $to "$(unnamed $load)"
	tail -c +$((half + 1)) "$T/stream" >&9
	exec 9>&-
	wait $load
	is "load, its file is cut to $to: status 1 and one line" "$? $(wc -l <"$T/out")" '1 1' || diag "$(cat "$T/out")"
	ok 'which says what happened' grep -q 'not made:.*cut.* short' "$T/out"
	nok 'there is no store' test -e "$STORE.loaded"
	faults=$((faults + 1))
done

# Only the very end, which nobody uses: a sync finds out.
new_store
truncate -s -4096 "$STORE"
echo more >"$MNT/more" 2>/dev/null
nok 'a page less: fsync is no success' op sync "$MNT/more"
probe 'a page less'
end 'a page less'

# Under load, at a random moment.
diag "SEED=$SEED"
RANDOM=$((SEED % 32768))
for round in $(seq "$([ -n "$LONG" ] && echo 20 || echo 1)"); do
	new_store
	for w in 1 2 3; do
		(cd "$MNT" && i=0; while [ $((i++)) -lt 100000 ] && timeout 40 cp "$T/data" "w$w" && timeout 40 cat "w$w" >/dev/null &&
			timeout 40 mv "w$w" "v$w" && timeout 40 sync "v$w"; do :; done) 2>"$T/err.$w" &
		load[w]=$!
	done
	sleep "0.$(printf '%03d' $((RANDOM % 400)))"
	truncate -s $((RANDOM * 1000 % 30000000)) "$STORE"
	for w in 1 2 3; do
		wait "${load[w]}"
		like "load $round.$w ends with an error" "$(cat "$T/err.$w")" 'Input/output error|Read-only'
	done
	probe "under load $round"
	end "under load $round"
done

# Cut and made long again: zeros in place of all. Whatever it says, it answers and ends.
for to in 0 2M; do
	new_store
	size=$(stat -c %s "$STORE")
	truncate -s "$to" "$STORE"
	truncate -s "$size" "$STORE"
	bad=
	for i in $(seq 40); do
		op cat "$MNT/f$i" >"$T/got" 2>/dev/null && ! cmp -s "$T/data" "$T/got" && bad="f$i: wrong bytes"
		op cp "$T/data" "$MNT/n$i" 2>/dev/null
	done
	op sync "$MNT/n1" 2>/dev/null
	is "made long again from $to: no wrong bytes" "$bad" ''
	ok "made long again from $to: the daemon lives" kill -0 "$DAEMON"
	stop_daemon
	nok "made long again from $to: no mount is left" is_mounted
done

# Renamed, replaced, removed: the daemon has the file, whatever its name.
new_store
mv "$STORE" "$STORE.moved"
ok 'renamed: it goes on' op cp "$T/data" "$MNT/after"
echo other >"$STORE"
ok 'replaced: it goes on' op sync "$MNT/after"
stop_daemon
is 'and ends in order' "$status" 0
is 'what took its name is not touched' "$(cat "$STORE")" other
mv "$STORE.moved" "$STORE"
check_store 'under its old name again'
start_daemon || fail 'mount'
ok 'all is there' op cmp "$T/data" "$MNT/after"
rm "$STORE"
ok 'removed: it goes on' op cp "$T/data" "$MNT/after2"
ok 'removed: fsync works' op sync "$MNT/after2"
stop_daemon
is 'removed: it ends in order' "$status" 0

# Readers of a file that is cut: one line, no crash.
new_store
stop_daemon
truncate -s 6M "$STORE"
for verb in check dump; do
	timeout 40 "$MSYNCFS" $verb "$STORE" >"$T/out" 2>"$T/err"
	status=$?
	ok "$verb of a store cut short fails in order ($status)" test $status -gt 0 -a $status -lt 100
	ok "$verb says why" test -s "$T/err"
done
new_store
for verb in check dump; do
	for i in $(seq "$([ -n "$LONG" ] && echo 30 || echo 3)"); do
		cp "$STORE" "$T/copy"
		timeout 40 "$MSYNCFS" $verb "$T/copy" >"$T/out" 2>"$T/err" &
		reader=$!
		sleep "0.00$((RANDOM % 10))"
		truncate -s 1M "$T/copy"
		wait $reader
		status=$?
		[ $status -lt 100 ] || fail "$verb of a store that is being cut: status $status"
		[ $status = 0 ] || [ -s "$T/err" ] || fail "$verb: no word of why"
	done
	pass "$verb of a store that is being cut ends in order"
done
stop_daemon

# A disk that cannot read what it has: the end of the file behind a loop device is gone.
if [ "$(id -u)" = 0 ] && loop_disk "$T/img" 128M "$T/disk" ext4; then
	kept=$STORE
	STORE=$T/disk/store.msync
	new_store
	stop_daemon
	# With nothing in the page cache.
	umount -i "$T/disk"
	at=$(stat -c %s "$T/img")
	mount -i -o loop "$T/img" "$T/disk"
	: >"$T/log"
	# Nothing is written: what is behind the end of a loop device's file would be there again, as zeros.
	start_daemon -- -o noatime || fail 'mount'
	# Of the image everything from 8 MiB on; ext4's own beginning stays.
	truncate -s 8M "$T/img"
	bad=
	eio=0
	for i in $(seq 40); do
		op cat "$MNT/f$i" >"$T/got" 2>"$T/err"
		case $? in
		0) cmp -s "$T/data" "$T/got" || bad="f$i: wrong bytes";;
		*) eio=$((eio + 1)); grep -qE 'Input/output' "$T/err" || bad="f$i: $(cat "$T/err")";;
		esac
	done
	is 'a disk that cannot be read: right bytes or EIO' "$bad" ''
	ok "and some are gone ($eio)" test $eio -gt 0
	ok 'the daemon lives' kill -0 "$DAEMON"
	is 'status says so' "$(op grep -E '^state=' "$MNT/.msyncfs/status")" state=failed
	is 'the log says so, once' "$(grep -c 'STORE FAILED.*cannot be read' "$T/log")" 1
	stop_daemon
	is 'it ends' "$status" 1
	timeout 40 "$MSYNCFS" check "$STORE" >"$T/out" 2>&1
	status=$?
	ok "check of it fails in order ($status)" test $status -gt 0 -a $status -lt 100
	truncate -s "$at" "$T/img"
	umount -i "$T/disk" || umount -i -l "$T/disk"
	STORE=$kept
else
	skip_one 'a disk that cannot be read needs root and a loop device'
fi
finish
