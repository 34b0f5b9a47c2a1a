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
refused 'too many arguments of help' 2 'extra: too many arguments' help mount extra
refused 'too many arguments of version' 2 'extra: too many arguments' version extra
refused 'a value without a name' 2 '=5' mount -o =5 "$STORE" "$MNT"
refused 'unknown long option' 2 'frobnicate' mount --frobnicate "$STORE" "$MNT"
refused 'unknown short option' 2 'Q' mount -Q "$STORE" "$MNT"
refused 'unknown -o option' 2 'frobnicate' mount -o frobnicate "$STORE" "$MNT"
refused 'option without its value' 2 'size' mount --size
refused 'size is not a number' 2 'size' mount --size=many "$STORE" "$MNT"
refused 'size overflows' 2 'size' mount --size=99999999999T "$STORE" "$MNT"
refused 'size is negative' 2 'size' mount --size=-1 "$STORE" "$MNT"
refused 'a blank is no unit of size' 2 'size' mount '--size=10 ' "$STORE" "$MNT"
refused 'sync-interval is not a number' 2 'sync-interval' mount -o sync-interval=often "$STORE" "$MNT"
ok 'no store was made by any of these' test ! -e "$STORE"

refused 'mount point is missing' any 'nowhere' mount "$STORE" "$T/nowhere"
echo >"$T/plain"
refused 'mount point is a file' any 'plain' mount "$STORE" "$T/plain"
# Not the test's own root directory, for the day when it is not refused.
if [ "$(id -u)" = 0 ] && command -v unshare >/dev/null; then
	for root in / /proc/self/root "/..//."; do
		own_namespace timeout 60 "$MSYNCFS" mount "$STORE" "$root" </dev/null >"$T/out" 2>"$T/err"
		is "mount point is $root: status, lines" "$? $(wc -l <"$T/err")" '1 1' || diag "$(cat "$T/err")"
		like "mount point is $root: it says what to do" "$(cat "$T/err")" '/: the root directory .*below it'
	done
	# Whose daemon would go with the name space; none of it stays here.
	wait_for no_daemon || kill_daemon
fi
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

# Names that lead nowhere.
long=$(printf '%0300d' 0)
refused 'name of the store is too long' 1 'too long: give a shorter name' mount "$T/$long" "$MNT"
refused 'name of the mount point is too long' 1 'too long: give a shorter name' mount "$STORE" "$T/$long"
refused 'store below a file' 1 'ot a directory: a part of its path' mount "$T/plain/store" "$MNT"
refused 'mount point is a symlink loop' 1 'circle' mount "$STORE" "$T/loop"
mkdir "$T/gone"
back=$PWD
cd "$T/gone" || bail 'no directory to remove'
rmdir "$T/gone"
refused 'the current directory was removed' 1 'current directory was removed' mount store mnt
cd "$back" || bail 'no way back'
ln -s "$T/nothing" "$T/dangling"
refused 'store is a link to nothing' 1 'symbolic link to nothing; give what' mount "$T/dangling" "$MNT"
ok 'no store was made by any of these' test ! -e "$STORE" -a ! -e "$T/nothing"

# What only the kernel or fusermount3 refuses: a new store is not left behind, and a file that was there is as it was.
if [ "$(id -u)" = 0 ] && command -v unshare >/dev/null; then
	# without_device COMMAND...: there is no /dev/fuse that works.
	without_device() { unshare -m --propagation "$(propagation)" sh -c 'mount -i --bind /dev/null /dev/fuse && exec "$@"' - "$@"; }
	without_rights() { setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "$@"; }
	: >"$T/empty"
	for how in without_device without_rights; do
		refused_by() { # NAME STORE
			local status
			"$how" timeout 60 "$MSYNCFS" mount "$2" "$MNT" </dev/null >"$T/out" 2>"$T/err"
			status=$?
			is "$how, $1: status, lines" "$status $(wc -l <"$T/err")" '1 1' || diag "$(cat "$T/err")"
		}
		refused_by 'new store' "$STORE"
		like "$how: it says what to do" "$(cat "$T/err")" 'fuse|CAP_SYS_ADMIN'
		ok "$how: no store is left behind" test ! -e "$STORE"
		refused_by 'store in an empty file' "$T/empty"
		is "$how: it is empty still" "$(stat -c %s "$T/empty")" 0
	done
	ok 'an empty file that nothing came of can become a store' mount_store -s "$T/empty"
	echo kept >"$MNT/file"
	umount_store "$MNT" "$T/empty"
	without_rights timeout 60 "$MSYNCFS" mount "$T/empty" "$MNT" </dev/null >"$T/out" 2>&1
	nok 'a store that is one already cannot be mounted either' is_mounted
	mount_store -s "$T/empty" >/dev/null
	is 'but is not taken away' "$(cat "$MNT/file")" kept
	umount_store "$MNT" "$T/empty"
fi

# Limits of the process.
# limited LETTER LIMIT NAME REGEX: one line that names the limit, and no store is left.
limited() {
	(ulimit -"$1" "$2" && exec timeout 60 "$MSYNCFS" mount "$STORE" "$MNT") </dev/null >"$T/out" 2>"$T/err"
	is "$3: status, lines" "$? $(wc -l <"$T/err")" '1 1' || diag "$(cat "$T/err")"
	like "$3: says which limit" "$(cat "$T/err")" "$4"
	ok "$3: no store is left behind" test ! -e "$STORE"
}
case $MODE in
release)
	limited v 60000 'too little address space' 'raise ulimit -v'
	limited v 100000 'too little address space for threads' 'raise .*ulimit -v'
	# What is there is not all taken for the store: its threads need some.
	for limit in 300000 600000; do
		# shellcheck disable=SC2016 # the inner shell's own
		ok "a store is mounted with ulimit -v $limit" bash -c 'ulimit -v "$1" && exec timeout 60 "$2" mount "$3" "$4"' - \
			"$limit" "$MSYNCFS" "$T/limited" "$MNT"
		umount_store "$MNT" "$T/limited"
	done
	limited n 6 'too few open files' 'ulimit -n';;
esac
limited f 1000 'files may not be that large' 'ulimit -f'

# Standard files that are closed: no file of ours takes their place.
timeout 60 "$MSYNCFS" mount "$T/closed" "$MNT" <&- >&- 2>&-
is 'mount without standard files' "$?" 0
echo kept >"$MNT/file"
umount_store "$MNT" "$T/closed"
ok 'the store is whole' "$MSYNCFS" check "$T/closed"

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

# A limit that it has gone beyond already.
sum=$(cksum <"$STORE")
refused 'size is less than the file' 1 'larger already.*give at least' mount --size=10M "$STORE" "$MNT"
unchanged 'size is less than the file' "$STORE" "$sum"
ok 'size is that of the file' mount_store --size="$size"
umount_store
ok 'the same once more' mount_store --size="$size"
umount_store
cp "$T/good" "$STORE"

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

# Each says what, where, and what to do, in this order, once each.
says() { # NAME STATUS WHERE WHAT-TO-DO ARGUMENT...
	local name=$1 status=$2 where=$3 advice=$4
	shift 4
	refused "$name" "$status" "^msyncfs: $where: .*[:;] $advice" "$@"
}
mount_store -s "$T/busy" >/dev/null || fail mount
umount_store "$MNT" "$T/busy"
"$MSYNCFS" dump "$T/busy" "$T/stream" || fail dump
: >"$T/none"
says 'status of nothing' 1 "$T/nowhere" 'give the directory' status "$T/nowhere"
says 'status of a file' 1 "$T/plain" 'give the directory' status "$T/plain"
says 'status of no mount' 1 "$MNT" 'give the directory' status "$MNT"
for verb in sync watch promote demote; do
	says "$verb of nothing" 1 "$T/nowhere" 'give the directory' $verb "$T/nowhere"
	says "$verb of no mount" 1 "$MNT" 'give the directory' $verb "$MNT"
	refused "$verb without arguments" 2 'MOUNTPOINT is missing: see msyncfs' $verb
	refused "$verb of too much" 2 'too many arguments: see msyncfs' $verb a b c
done
for verb in check dump; do
	says "$verb of nothing" any "$T/nowhere" 'check the name' $verb "$T/nowhere"
	says "$verb of a foreign file" any "$T/foreign" 'give the name of a store' $verb "$T/foreign"
	says "$verb of an empty file" any "$T/none" 'give the name of a store' $verb "$T/none"
	says "$verb of a directory" any "$T" '(give the )?name (of )?a file' $verb "$T"
	says "$verb of a fifo" any "$T/fifo" 'give the name of a store' $verb "$T/fifo"
	says "$verb of a name that is too long" any "$T/0*\[...\]0*" 'give a shorter name' $verb "$T/$long"
	refused "$verb of memory" any 'memory' $verb :memory:
done
says 'dump to a directory' 1 "$T" 'give the name of a file' dump "$T/busy" "$T"
says 'dump into nowhere' 1 "$T/nowhere/stream" 'make its folder first' dump "$T/busy" "$T/nowhere/stream"
says 'dump over a file of another kind' 1 "$T/foreign" 'give another name' dump "$T/busy" "$T/foreign"
says 'load onto an existing store' 1 "$T/busy" 'give another name, or remove it first' load "$T/busy" "$T/stream"
says 'load into nowhere' 1 "$T/nowhere/store" 'make its folder first' load "$T/nowhere/store" "$T/stream"
says 'load from nothing' 1 "$T/nowhere" 'check the name' load "$T/new" "$T/nowhere"
says 'load from a foreign file' 1 "$T/new" 'give a whole stream' load "$T/new" "$T/foreign"
says 'load from an empty file' 1 "$T/new" 'give a whole stream' load "$T/new" "$T/none"
says 'load from a directory' 1 "$T" 'give the file' load "$T/new" "$T"
says 'salvage onto an existing file' 8 "$T/none" 'give another name, or remove it first' check --salvage "$T/busy" "$T/none"
says 'salvage of nothing' 8 "$T/nowhere" 'check the name' check --salvage "$T/nowhere" "$T/new"
says 'salvage into nowhere' 8 "$T/nowhere/new" 'make its folder first' check --salvage "$T/busy" "$T/nowhere/new"
"$MSYNCFS" keygen "$T/key" || fail keygen
says 'keygen over a key' 1 "$T/key" 'give another name, or remove it first' keygen "$T/key"
says 'keygen into nowhere' 1 "$T/nowhere/key" 'make its folder first' keygen "$T/nowhere/key"
says 'a key file that is missing' 1 "$T/nowhere" 'copy' mount --listen=:0 --key-file="$T/nowhere" "$T/new" "$MNT"
says 'an address that cannot be' 1 ':x' 'give ADDR:PORT' mount --listen=:x --key-file="$T/key" "$T/new" "$MNT"
says 'listening without a key' 1 ':0' 'use --key-file' mount --listen=:0 "$T/new" "$MNT"
for word in --listen --listen= '-o listen'; do
	# shellcheck disable=SC2086 # two words
	says "$word: the default address" 1 ':6796' 'use --key-file' mount $word "$T/new" "$MNT"
done
says 'a primary that is not there' 1 '127.0.0.1:1' 'check the address' mount --from=127.0.0.1:1 -o on-disconnect=error "$T/new" "$MNT"
ok 'and no store is left of all that' test ! -e "$T/new"

# An address that another mount listens on: the store does not become a primary.
mkdir "$T/listens"
mount_store -m "$T/listens" -s "$T/primary" --listen="$T/socket" >/dev/null || fail 'a primary'
says 'an address that is in use' 1 "$T/socket" 'give another port' mount --listen="$T/socket" "$T/busy" "$MNT"
umount_store "$T/listens" "$T/primary"
mount_store -s "$T/busy" >/dev/null || fail mount
is 'who could not listen is no primary' "$(status_of promised_epoch)" 0
umount_store
done_testing
