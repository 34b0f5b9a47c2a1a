#!/bin/bash
# SPDX-License-Identifier: MIT
# Extended attributes: sizes, numbers, name spaces, flags, errors.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need setfattr getfattr
mount_store >/dev/null || fail mount
cd "$MNT" || exit 1
touch f
mkdir d
ln -s f l

errno 'set' ok sysop setxattr any user.a 10 f
errno 'get' 10 sysop getxattr user.a f
errno 'empty value' ok sysop setxattr any user.empty 0 f
errno 'is empty' 0 sysop getxattr user.empty f
errno '64 KiB' ok sysop setxattr any user.big 65536 f
errno 'is read back' 65536 sysop getxattr user.big f
errno 'more is refused' E2BIG sysop setxattr any user.big 65537 f
errno 'create what exists' EEXIST sysop setxattr create user.a 5 f
errno 'replace what does not' ENODATA sysop setxattr replace user.none 5 f
errno 'replace' ok sysop setxattr replace user.a 5000 f
errno 'is replaced' 5000 sysop getxattr user.a f
errno 'get what is not there' ENODATA sysop getxattr user.none f
errno 'remove' ok sysop rmxattr user.a f
errno 'is gone' ENODATA sysop getxattr user.a f
errno 'remove again' ENODATA sysop rmxattr user.a f
name=user.$(printf 'n%.0s' $(seq 250))
errno 'a name of 255 bytes' ok sysop setxattr any "$name" 3 f
errno 'a longer one' ERANGE sysop setxattr any "${name}n" 3 f
errno 'unknown name space' EOPNOTSUPP sysop setxattr any nonsense.a 3 f
errno 'on a directory' ok sysop setxattr any user.a 3 d
errno 'user.* on a symlink is refused' EPERM sysop setxattr any user.a 3 l
touch many
is 'a thousand names on one file' "$(sysop xattr_many 1000 many)" 500
printf '\x00\x01\xff' >"$T/value"
setfattr -n user.bin -v 0x0001ff f
is 'binary values' "$(getfattr --only-values -n user.bin f | od -An -tx1 | tr -d ' ')" 0001ff
if [ "$(id -u)" = 0 ]; then
	errno 'trusted' ok sysop setxattr any trusted.t 100 f
	errno 'trusted on a symlink' ok sysop setxattr any trusted.t 100 l
	errno 'security' ok sysop setxattr any security.s 100 f
	if command -v setpriv >/dev/null; then
		is 'trusted is hidden from users' \
			"$(setpriv --reuid=1001 --regid=1001 --clear-groups getfattr -m- f 2>/dev/null | grep -c trusted)" 0
		errno 'and refused to them' EPERM setpriv --reuid=1001 --regid=1001 --clear-groups sysop setxattr any trusted.x 1 f
	fi
fi
cp --preserve=all f copy
errno 'cp --preserve=all takes them along' 65536 sysop getxattr user.big copy
ln f hard
errno 'a hard link has the same' 65536 sysop getxattr user.big hard
getfattr -d -m- -e hex f many d >"$T/before" 2>/dev/null
{ cd / && remount_store >/dev/null && cd "$MNT"; } || fail remount
is 'kept over a remount' "$(getfattr -d -m- -e hex f many d 2>/dev/null | cksum)" "$(cksum <"$T/before")"
cd / || exit
kill_daemon
mount_store >/dev/null || fail mount
is 'and over kill -9' "$(cd "$MNT" && getfattr -d -m- -e hex f many d 2>/dev/null | cksum)" "$(cksum <"$T/before")"
rm -r "${MNT:?}"/*
umount_store
ok 'check: removed files leave nothing behind' "$MSYNCFS" check "$STORE"
done_testing
