#!/bin/bash
# SPDX-License-Identifier: MIT
# POSIX ACLs: enforced, inherited, in step with the mode.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need_root
need setfacl getfacl setpriv
mount_store >/dev/null || fail mount
cd "$MNT" || exit 1
chmod 755 .
as() { local id=$1; shift; setpriv --reuid="$id" --regid="$id" --clear-groups "$@"; }
acl() { getfacl -cnE "$1" 2>/dev/null | tr '\n' ' ' | sed 's/ *$//'; }

echo x >f
chmod 640 f
errno 'refused before' EACCES as 1001 sysop open rdonly f
ok 'setfacl' setfacl -m u:1001:r f
is 'getfacl' "$(acl f)" 'user::rw- user:1001:r-- group::r-- mask::r-- other::---'
errno 'granted' ok as 1001 sysop open rdonly f
errno 'but not more' EACCES as 1001 sysop open wronly f
errno 'to nobody else' EACCES as 1002 sysop open rdonly f
setfacl -m g:1005:rw f
errno 'a group' ok setpriv --reuid=1003 --regid=1003 --groups=1005 sysop open rdwr f
is 'the mode shows the mask' "$(stat -c %a f)" 660
chmod 600 f
is 'chmod changes the mask' "$(acl f)" 'user::rw- user:1001:r-- group::r-- group:1005:rw- mask::--- other::---'
errno 'which is enforced' EACCES as 1001 sysop open rdonly f
chmod 644 f
errno 'and given back' ok as 1001 sysop open rdonly f
setfacl -b f
is 'removed' "$(acl f)" 'user::rw- group::r-- other::r--'
setfacl -m u::rwx,g::r,o::- f
is 'a minimal ACL is the mode' "$(stat -c %a f)" 740
nok 'setfacl by another is refused' as 1001 setfacl -m u:1001:rwx f
nok 'a default ACL on a file is refused' setfacl -d -m u:1001:r f

mkdir d
setfacl -d -m u:1001:rwx,g::rx,o::- d
(umask 077 && touch d/f && mkdir d/sub && mkdir -p d/sub/deep)
is 'a file inherits (and the umask does not count)' "$(acl d/f)" \
	'user::rw- user:1001:rwx group::r-x mask::rw- other::---'
is 'a directory inherits both' "$(acl d/sub)" \
	'user::rwx user:1001:rwx group::r-x mask::rwx other::--- default:user::rwx default:user:1001:rwx default:group::r-x default:mask::rwx default:other::---'
is 'and hands it down' "$(acl d/sub/deep)" "$(acl d/sub)"
chmod 777 d
errno 'inherited rights are enforced' ok as 1001 sysop open rdwr d/f
errno 'also in directories' ok as 1001 sysop creat d/sub/new
errno 'and for others' EACCES as 1002 sysop open rdonly d/f
ln -s nothing d/link
mkfifo d/fifo
is 'a fifo inherits' "$(acl d/fifo | cut -d' ' -f2)" user:1001:rwx
cp -a d/f copy
is 'cp -a takes it along' "$(acl copy)" "$(acl d/f)"
mkdir many
# shellcheck disable=SC2046 # words are wanted
ok 'five hundred entries' setfacl $(seq -f '-m u:%.0f:r' 2000 2499) many
is 'are kept' "$(acl many | tr ' ' '\n' | grep -c 'user:2')" 500
getfacl -nR . >"$T/before" 2>/dev/null
{ cd / && remount_store >/dev/null && cd "$MNT"; } || fail remount
is 'kept over a remount' "$(getfacl -nR . 2>/dev/null)" "$(cat "$T/before")"
errno 'and enforced' ok as 1001 sysop open rdwr d/f
setfacl -k d
touch d/plain
is 'without a default ACL the umask counts again' "$(stat -c %a d/plain)" 644
cd / || exit
done_testing
