#!/bin/bash
# SPDX-License-Identifier: MIT
# mount.msyncfs, umount.msyncfs and fsck.msyncfs as mount(8), umount(8) and fsck(8) call them.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
S=$ROOT/mount-scripts

# status NAME WANT COMMAND...
status() {
	local name=$1 want=$2 got
	shift 2
	timeout 60 "$@" </dev/null >"$T/out" 2>&1
	got=$?
	is "$name: status $want" "$got" "$want" || diag "$(head -n 5 "$T/out")"
}

status 'mount without arguments' 1 "$S/mount.msyncfs"
status 'mount without DIR' 1 "$S/mount.msyncfs" "$STORE"
status 'unknown letter' 1 "$S/mount.msyncfs" "$STORE" "$MNT" -q
status 'unknown option of the program' 1 "$S/mount.msyncfs" "$STORE" "$MNT" -o frobnicate
status 'mount point is missing' 32 "$S/mount.msyncfs" "$STORE" "$T/nowhere"
sed -e 's|^bindir=.*|bindir=/nowhere|' -e '/^PATH=/d' "$S/mount.msyncfs" >"$T/elsewhere"
status 'the program is missing' 2 env -u MSYNCFS PATH=/usr/bin:/bin sh "$T/elsewhere" "$STORE" "$MNT"
status '-f only pretends' 0 "$S/mount.msyncfs" "$STORE" "$MNT" -f
nok '-f does not mount' is_mounted
status 'mount' 0 "$S/mount.msyncfs" "$STORE" "$MNT" -s -n -o rw,noatime,size=1G
ok 'it is mounted' is_mounted
echo hello >"$MNT/file"
status 'umount' 0 "$S/umount.msyncfs" "$MNT"
nok 'it is unmounted' is_mounted
ok 'when umount.msyncfs returns, the store is free' flock -n "$STORE" true
status 'umount of what is not mounted' 1 "$S/umount.msyncfs" "$MNT"

# Every word of fstab is understood.
status 'words of fstab' 0 "$S/mount.msyncfs" "$STORE" "$MNT" -o \
	"defaults,rw,nofail,auto,_netdev,user,dev,suid,exec,noatime,x-systemd.automount,x-systemd.device-timeout=5,comment=x,nosuid,nodev"
is 'data is there' "$(cat "$MNT/file" 2>/dev/null)" hello
status 'umount by the name of the store' 0 "$S/umount.msyncfs" "$STORE"
status 'read-only' 0 "$S/mount.msyncfs" "$STORE" "$MNT" -o ro
errno 'ro refuses writers' EROFS sysop creat "$MNT/new"
is 'ro serves readers' "$(cat "$MNT/file")" hello
[ "$(id -u)" != 0 ] || status 'remount' 0 "$S/mount.msyncfs" "$STORE" "$MNT" -o remount,ro,noexec
is 'the mount goes on' "$(cat "$MNT/file")" hello
umount_store

# Names that the mount table escapes, and what only shells trip over.
for name in 'with space' $'a tab\tand\nnewlines\n' $'back\\slash \\012 "\'$(#%s'; do
	odd=$T/$name
	mkdir "$odd"
	cp "$STORE" "$odd.msync"
	name=$(printf %q "$name")
	status "$name" 0 "$S/mount.msyncfs" "$odd.msync" "$odd"
	is 'and the data' "$(cat "$odd/file")" hello
	status "umount of $name" 0 "$S/umount.msyncfs" "$odd"
	ok 'and the store is free' flock -n "$odd.msync" true
	status "mount of $name again" 0 "$S/mount.msyncfs" "$odd.msync" "$odd"
	status 'umount by the name of the store' 0 "$S/umount.msyncfs" "$odd.msync"
	ok 'and the store is free' flock -n "$odd.msync" true
done

# A dead mount can be unmounted.
mount_store
kill_daemon
status 'umount of a dead mount' 0 "$S/umount.msyncfs" "$MNT"
nok 'is gone' is_mounted

status 'fsck without arguments' 16 "$S/fsck.msyncfs"
status 'fsck of nothing' 8 "$S/fsck.msyncfs" "$T/nowhere"
status 'fsck -a' 0 "$S/fsck.msyncfs" -a "$STORE"
status 'fsck -p -C0' 0 "$S/fsck.msyncfs" -p -C0 "$STORE"
status 'fsck -C 0 STORE' 0 "$S/fsck.msyncfs" -C 0 "$STORE"
status 'fsck -f -y' 0 "$S/fsck.msyncfs" -fy "$STORE"
status 'fsck -n' 0 "$S/fsck.msyncfs" -n "$STORE"
status 'fsck -A -f -a' 0 "$S/fsck.msyncfs" -A -f -a "$STORE"
dd if=/dev/zero of="$odd.msync" bs=4096 count=2 conv=notrunc status=none
timeout 60 "$S/fsck.msyncfs" -f "$odd.msync" >"$T/out" 2>&1
like 'fsck of a damaged store: 4 or 8' "$?" '^(4|8)$'

# Through mount(8) itself. Where the helpers are not installed, a mount namespace of the test's own shows them in /sbin.
cat >"$T/through-mount" <<-'INNER'
	set -eu
	mount -t msyncfs "$STORE" "$MNT" -o noatime
	test "$(cat "$MNT/file")" = hello
	umount "$MNT"
	flock -n "$STORE" true
INNER
cat >"$T/overlay" <<-'INNER'
	set -eu
	sbin=$(readlink -f /sbin)
	mount -i -t tmpfs none "$T/overlays"
	mkdir "$T/overlays/upper" "$T/overlays/work"
	cp -P "$T"/installed/sbin/* "$T/overlays/upper/"
	mount -i -t overlay -o "lowerdir=$sbin,upperdir=$T/overlays/upper,workdir=$T/overlays/work" overlay "$sbin" || exit 77
	sh -x "$T/through-mount"
INNER
export T STORE MNT
if [ "$(id -u)" != 0 ]; then
	skip_one 'mount(8) needs root'
elif [ -x /sbin/mount.msyncfs ]; then
	ok 'mount -t msyncfs; umount(8) returns when the store is closed' sh "$T/through-mount"
else
	mkdir "$T/overlays"
	ok 'install' make -s -C "$ROOT" MODE="$MODE" DESTDIR="$T/installed" install
	own_namespace sh -x "$T/overlay" >"$T/out" 2>&1 </dev/null
	case $? in
	0) pass 'mount -t msyncfs; umount(8) returns when the store is closed';;
	77) skip_one 'no overlay to show mount(8) the helpers in';;
	*) fail 'mount -t msyncfs; umount(8) returns when the store is closed'; diag "$(cat "$T/out")";;
	esac
fi
done_testing
