#!/bin/bash
# SPDX-License-Identifier: MIT
# Wrong use and bad stores: one line on stderr, non-zero, nothing changed, nothing mounted.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

# refused NAME WANT_STATUS('any' = non-zero) REGEX ARGUMENT...
refused() {
	local name=$1 want=$2 regex=$3 status lines
	shift 3
	timeout 60 "$MSYNCFS" "$@" </dev/null >"$T/out" 2>"$T/err"
	status=$?
	lines=$(wc -l <"$T/err")
	if [ "$status" = 0 ] || { [ "$want" != any ] && [ "$status" != "$want" ]; } || [ "$lines" != 1 ] || [ -s "$T/out" ] ||
		! grep -qiE -- "$regex" "$T/err" || is_mounted; then
		fail "$name"
		diag "status $status (want $want), $lines lines on stderr (want 1, like $regex):"
		diag "$(head -n 20 "$T/err")"
		[ ! -s "$T/out" ] || diag "stdout: $(head -n 5 "$T/out")"
		! is_mounted || umount_store
		wait_for no_daemon
		return 1
	fi
	pass "$name: $(cut -c1-150 "$T/err" | sed "s|$T|T|g")"
}

# unchanged NAME FILE SUM
unchanged() { is "$1: the file is as it was" "$(cksum <"$2")" "$3"; }

refused 'no verb' 2 'help'
refused 'unknown verb' 2 'frobnicate' frobnicate
refused 'mount without arguments' 2 'store' mount
refused 'mount without a mount point' 2 'mountpoint|mount point' mount "$STORE"
refused 'too many arguments' 2 'extra' mount "$STORE" "$MNT" extra
refused 'unknown long option' 2 'frobnicate' mount --frobnicate "$STORE" "$MNT"
refused 'unknown short option' 2 'Q' mount -Q "$STORE" "$MNT"
refused 'unknown -o option' 2 'frobnicate' mount -o frobnicate "$STORE" "$MNT"
refused 'option without its value' 2 'size' mount --size
refused 'size is not a number' 2 'size' mount --size=many "$STORE" "$MNT"
refused 'size overflows' 2 'size' mount --size=99999999999T "$STORE" "$MNT"
refused 'size is negative' 2 'size' mount --size=-1 "$STORE" "$MNT"
refused 'sync-interval is not a number' 2 'sync-interval' mount -o sync-interval=often "$STORE" "$MNT"
ok 'no store was made by any of these' test ! -e "$STORE"

refused 'mount point is missing' any 'nowhere' mount "$STORE" "$T/nowhere"
echo >"$T/plain"
refused 'mount point is a file' any 'plain' mount "$STORE" "$T/plain"
ok 'a mount point that is wrong leaves no store behind' test ! -e "$STORE"
refused 'store is a directory' any 'director' mount "$T" "$MNT"
refused 'directory of the store is missing' any 'nowhere' mount "$T/nowhere/store" "$MNT"
mkfifo "$T/fifo"
refused 'store is a fifo (and nothing hangs)' any 'fifo' mount "$T/fifo" "$MNT"
refused 'store is a device' any '/dev/null' mount /dev/null "$MNT"
ln -s "$T/loop" "$T/loop"
refused 'store is a symlink loop' any 'loop' mount "$T/loop" "$MNT"

head -c 100000 /dev/urandom >"$T/foreign"
sum=$(cksum <"$T/foreign")
refused 'foreign file' any 'foreign' mount "$T/foreign" "$MNT"
unchanged 'foreign file' "$T/foreign" "$sum"
head -c 1048576 /dev/zero >"$T/zeros"
sum=$(cksum <"$T/zeros")
refused 'file of zeros' any 'zeros' mount "$T/zeros" "$MNT"
unchanged 'file of zeros' "$T/zeros" "$sum"
printf 'hello\n' >"$T/short"
refused 'short text file' any 'short' mount "$T/short" "$MNT"
is 'short text file is as it was' "$(cat "$T/short")" hello

# In use: by another daemon, at the same or another mount point.
ok 'a good store mounts' mount_store
echo data >"$MNT/file"
mkdir "$T/mnt2"
refused_status=0
timeout 60 "$MSYNCFS" mount "$STORE" "$T/mnt2" </dev/null >"$T/out" 2>"$T/err" || refused_status=$?
nok 'store in use: refused' test "$refused_status" = 0
is 'store in use: one line' "$(wc -l <"$T/err")" 1
like 'store in use: says so' "$(cat "$T/err")" '(in use|mounted|held)'
nok 'store in use: not mounted' is_mounted "$T/mnt2"
is 'store in use: the first mount goes on' "$(cat "$MNT/file")" data
refused_status=0
timeout 60 "$MSYNCFS" mount "$T/other" "$MNT" </dev/null >"$T/out" 2>"$T/err" || refused_status=$?
nok 'mount point in use: refused' test "$refused_status" = 0
is 'mount point in use: one line' "$(wc -l <"$T/err")" 1
is 'mount point in use: the mount goes on' "$(cat "$MNT/file")" data
for i in $(seq 200); do head -c 2000 /dev/zero | tr '\0' "$((i % 10))" >"$MNT/f$i"; done
head -c 300000 /dev/urandom >"$MNT/large"
umount_store
cp "$STORE" "$T/good"
size=$(stat -c %s "$T/good")

# damaged NAME: mount is refused or the mount works; never a crash, a hang, or a changed file that was refused.
damaged() {
	local name=$1 sum status
	sum=$(cksum <"$STORE")
	timeout 60 "$MSYNCFS" mount "$STORE" "$MNT" </dev/null >"$T/out" 2>"$T/err"
	status=$?
	if is_mounted; then
		timeout 60 find "$MNT" -type f -exec cat {} + >/dev/null 2>&1
		is "$name: mounted, and reading ends by itself" "$(($? >= 124))" 0
		ok "$name: the daemon lives" test -n "$(daemon_pids)"
		umount_store
		return
	fi
	if [ "$status" = 0 ] || [ "$status" -ge 124 ] || [ "$(wc -l <"$T/err")" != 1 ]; then
		fail "$name: refused with one line"
		diag "status $status"
		diag "$(head -n 5 "$T/err")"
		wait_for no_daemon
		return
	fi
	pass "$name: $(cut -c1-150 "$T/err" | sed "s|$T|T|g")"
	unchanged "$name" "$STORE" "$sum"
}

cp "$T/good" "$STORE"
truncate -s 1000 "$STORE"
damaged 'truncated to 1000 bytes'
for part in 2 4; do
	cp "$T/good" "$STORE"
	truncate -s $((size / part / 4096 * 4096)) "$STORE"
	damaged "truncated to a ${part}th"
done
cp "$T/good" "$STORE"
truncate -s $((size - 1)) "$STORE"
damaged 'one byte short'

# flip OFFSET: turn over one bit.
flip() {
	local byte
	byte=$(od -An -tu1 -j "$1" -N 1 "$STORE" | tr -d ' ')
	# shellcheck disable=SC2059 # the byte is made by the format
	printf "$(printf '\\%03o' $((byte ^ 1)))" | dd of="$STORE" bs=1 seek="$1" conv=notrunc status=none
}
cp "$T/good" "$STORE"
flip 0
damaged 'first byte flipped'
for offset in 8 16 24 40 100 4095 4096 4104 4200; do
	cp "$T/good" "$STORE"
	flip "$offset"
	damaged "bit flipped at $offset"
done
cp "$T/good" "$STORE"
dd if=/dev/zero of="$STORE" bs=4096 count=2 conv=notrunc status=none
damaged 'first 8 KiB are zeros'
RANDOM=$((SEED % 32768))
diag "SEED=$SEED"
for _ in $(seq "$(scaled 12)"); do
	cp "$T/good" "$STORE"
	offset=$(((RANDOM * 32768 + RANDOM) % size))
	dd if=/dev/urandom of="$STORE" bs=1 count=64 seek="$offset" conv=notrunc status=none
	damaged "64 random bytes at $offset"
done

# Rights.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	cp "$T/good" "$STORE"
	chmod 600 "$STORE"
	mkdir "$T/nobodys"
	chown 65534:65534 "$T/nobodys"
	sum=$(cksum <"$STORE")
	setpriv --reuid=65534 --regid=65534 --clear-groups timeout 60 "$MSYNCFS" mount "$STORE" "$T/nobodys" \
		</dev/null >"$T/out" 2>"$T/err"
	nok 'no rights to the store: refused' test "$?" = 0
	is 'no rights to the store: one line' "$(wc -l <"$T/err")" 1
	like 'no rights to the store: says so' "$(cat "$T/err")" '[Pp]ermission'
	unchanged 'no rights to the store' "$STORE" "$sum"
fi

# The other verbs.
refused 'status without an argument' 2 'mount' status
refused 'status of a directory that is no mount' any "${MNT##*/}" status "$MNT"
refused 'status of nothing' any 'nowhere' status "$T/nowhere"
refused 'check without an argument' any 'store' check
refused 'check of nothing' any 'nowhere' check "$T/nowhere"
refused 'check of a foreign file' any 'foreign' check "$T/foreign"
refused 'help for an unknown verb' any 'frobnicate' help frobnicate
done_testing
