#!/bin/bash
# SPDX-License-Identifier: MIT
# Times to the nanosecond; which operation changes which; atime as the mount says.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
mount_store >/dev/null || fail mount
cd "$MNT" || exit 1

echo x >f
errno 'utimens' ok sysop utimens f 1 2 3 4
like 'nanoseconds' "$(sysop times f)" '^1\.000000002 3\.000000004 '
errno 'before 1970 and beyond 2106' ok sysop utimens f -5000000000 999999999 20000000000 1
like 'are kept' "$(sysop times f)" '^-5000000000\.999999999 20000000000\.000000001 '
errno 'one only' ok sysop utimens f 0 omit 7 8
like 'leaves the other' "$(sysop times f)" '^-5000000000\.999999999 7\.000000008 '
ln -s f l
errno 'of a symlink itself' ok sysop utimens l 11 12 13 14
like 'is set there' "$(sysop times l)" '[0-9.]+ 13\.000000014 '
like 'not in its target' "$(sysop times f)" ' 7\.000000008 '
before=$(sysop times f)
{ cd / && remount_store >/dev/null && cd "$MNT"; } || fail remount
is 'kept over a remount' "$(sysop times f)" "$before"

# changed A|M|C WHAT FILE COMMAND...: exactly these times of FILE move when the command runs.
changed() {
	local want=$1 file=$2 a b got=''
	shift 2
	touch -h -d '2001-01-01' "$file"
	read -ra a <<<"$(sysop times "$file")"
	wait_for "[ \"\$(date +%s%N)\" -gt $(($(date +%s%N) + 12000000)) ]"
	"$@" >/dev/null 2>&1
	read -ra b <<<"$(sysop times "$file")"
	[ "${a[0]}" = "${b[0]}" ] || got+=A
	[ "${a[1]}" = "${b[1]}" ] || got+=M
	[ "${a[2]}" = "${b[2]}" ] || got+=C
	is "$*: ${want:-nothing} of $file" "$got" "$want"
}
mkdir d
changed MC f sh -c 'echo y >>f'
changed MC f sysop truncate 1 f
changed MC f sysop truncate 100 f
changed C f chmod 600 f
changed C f ln f f2
changed C f mv f2 f3
changed C f rm f3
changed C f setfattr -n user.x -v y f
changed MC d touch d/new
changed MC d mv d/new d/newer
changed MC d rm d/newer
changed MC d mkdir d/sub
changed '' f stat f
changed '' d stat d/sub
changed '' f sysop open rdonly f
changed '' f sysop pwrite f 0 ''

# atime. The default is relatime: a read moves it when it is older than mtime.
cd / || exit
atime_moves() { # atime older than mtime?
	sysop utimens "$MNT/f" "$1" 0 "$2" 0 >/dev/null
	local before
	before=$(sysop times "$MNT/f" | cut -d' ' -f1)
	cat "$MNT/f" >/dev/null
	[ "$(sysop times "$MNT/f" | cut -d' ' -f1)" != "$before" ] && echo moves || echo stays
}
future=$(($(date +%s) + 3600))
umount_store
mount_store -o relatime >/dev/null || fail 'mount -o relatime'
is 'relatime: older than mtime' "$(atime_moves 1000 2000)" moves
umount_store
mount_store -o relatime >/dev/null
is 'relatime: newer than mtime and ctime' "$(atime_moves "$future" 2000)" stays
umount_store
mount_store -o noatime >/dev/null || fail 'mount -o noatime'
is 'noatime' "$(atime_moves 1000 2000)" stays
umount_store
mount_store >/dev/null
sysop utimens "$MNT/f" 1000 0 2000 0 >/dev/null
cat "$MNT/f" >/dev/null
cat "$MNT/f" >/dev/null
is 'reading never moves mtime' "$(sysop times "$MNT/f" | cut -d' ' -f2)" 2000.000000000
umount_store
done_testing
