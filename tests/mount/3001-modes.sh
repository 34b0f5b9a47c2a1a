#!/bin/bash
# SPDX-License-Identifier: MIT
# Permissions and owners as a local file system has them: who may what, setuid, setgid, sticky, umask.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need_root
need setpriv
mount_store >/dev/null || fail mount
cd "$MNT" || exit 1
as() { local id=$1; shift; setpriv --reuid="$id" --regid="$id" --clear-groups "$@"; }
mode() { stat -c %a "$1"; }

chmod 777 .
for m in 0 1 7 10 111 444 644 755 777 1777 2755 4755 6755 7777; do
	touch f
	chmod $m f
	is "chmod $m" "$(mode f)" $m
	rm -f f
done
(umask 027 && touch u && mkdir ud && mkfifo uf)
is 'umask' "$(mode u) $(mode ud) $(mode uf)" '640 750 640'
as 1001 touch own
is 'new files belong to the caller' "$(stat -c %u:%g own)" 1001:1001
chown 1002:1003 own
is 'chown' "$(stat -c %u:%g own)" 1002:1003
errno 'chmod by another is refused' EPERM as 1001 sysop chmod 777 own
nok 'chown by an ordinary user is refused' as 1002 chown 1001 own
chmod 600 own
errno 'reading what is not ours' EACCES as 1001 sysop open rdonly own
errno 'writing too' EACCES as 1001 sysop open wronly own
errno 'the owner may' ok as 1002 sysop open rdwr own
mkdir closed
chmod 700 closed
touch closed/f
errno 'no search permission' EACCES as 1001 sysop open rdonly closed/f
chmod 711 closed
errno 'search without read' ok as 1001 sysop open rdonly closed/f
nok 'but no list' as 1001 ls closed
errno 'and no create' EACCES as 1001 sysop creat closed/g
errno 'nor unlink' EACCES as 1001 sysop unlink closed/f

mkdir sticky
chmod 1777 sticky
as 1001 touch sticky/f
errno 'sticky: another may not unlink' EPERM as 1002 sysop unlink sticky/f
errno 'sticky: nor rename' EPERM as 1002 sysop rename none sticky/f sticky/g
errno 'sticky: the owner may' ok as 1001 sysop rename none sticky/f sticky/g

# setgid directories hand their group down.
mkdir sg
chown 0:1005 sg
chmod 2777 sg
as 1001 touch sg/f
as 1001 mkdir sg/d
is 'setgid directory: group is inherited' "$(stat -c %g sg/f sg/d | tr '\n' ' ')" '1005 1005 '
is 'setgid directory: the bit is inherited by directories only' "$(mode sg/d) $(mode sg/f)" '2755 644'

# Who writes to a setuid file or changes its owner takes the bits away.
suid() { rm -f s && echo x >s && chown 1001:1001 s && chmod "${1:-6777}" s; }
suid; as 1002 sh -c 'echo y >>s'
is 'a write by another clears setuid and setgid' "$(mode s)" 777
suid; as 1001 sh -c 'echo y >>s'
is 'a write by the owner too' "$(mode s)" 777
# Without group-execute, setgid stays with a change by a member of the group only.
member() { setpriv --reuid=1002 --regid=1002 --groups=1001 "$@"; }
suid 6766; as 1002 sh -c 'echo y >>s'
is 'without group-execute, a write by another clears setgid, too' "$(mode s)" 766
suid 6766; member sh -c 'echo y >>s'
is 'one by a member of the group clears setuid only' "$(mode s)" 2766
suid 6766; as 1001 sh -c 'echo y >>s'
is 'one by the owner in the group likewise' "$(mode s)" 2766
suid 6766; sh -c 'echo y >>s'
is 'one by root nothing' "$(mode s)" 6766
suid 6766; setpriv --bounding-set=-fsetid sh -c 'echo y >>s'
is 'one by root without CAP_FSETID both' "$(mode s)" 766
echo src >src
for op in 'truncate 1' 'fallocate plain 0 100' 'fallocate keep 0 9999' 'fallocate punch 0 4096' 'copy_range src 0'; do
	last='' said=ok
	[ "${op%% *}" != copy_range ] || last='0 2' said=2
	# shellcheck disable=SC2086 # words
	{
		suid 6766; as 1002 sysop $op s $last >"$T/out"
		is "$op by another clears both" "$(mode s) $(cat "$T/out")" "766 $said"
		suid 6766; member sysop $op s $last >"$T/out"
		is "$op by a member of the group clears setuid only" "$(mode s) $(cat "$T/out")" "2766 $said"
	}
done
suid 6766; as 1002 sh -c 'echo y >s'
is 'O_TRUNC by another clears both' "$(mode s)" 766
suid 6766; chgrp 1005 s; chmod 6766 s; as 1001 chown 1001 s
is 'chown by the owner outside the group clears both' "$(mode s)" 766
suid 6766; chown 1002 s
is 'chown by root clears setuid only' "$(mode s)" 2766
suid; as 1002 sysop truncate 0 s >/dev/null
is 'truncate by another clears them' "$(mode s)" 777
suid; as 1001 chgrp 1001 s
is 'chgrp by the owner clears them' "$(mode s)" 777
suid 6755; as 1001 sysop chown -1 -1 s >/dev/null
is 'a chown that changes no owner clears them' "$(mode s)" 755
suid 6766; sysop chown -1 -1 s >/dev/null
is 'by root, setuid only' "$(mode s)" 2766
suid 6755; as 1002 sysop chown -1 -1 s >/dev/null
is 'by another, nothing' "$(mode s)" 6755
suid; sh -c 'echo y >>s'
is 'root keeps them' "$(mode s)" 6777
suid; chown 1002 s
is 'chown by root clears them' "$(mode s)" 777
suid 755; as 1001 chmod 2755 s
is 'setgid by the owner in the group' "$(mode s)" 2755
chgrp 1009 s; as 1001 chmod 2755 s
is 'setgid by the owner outside the group is dropped' "$(mode s)" 755
stat -c '%n %a %u %g' -- * >"$T/before"
{ cd / && remount_store >/dev/null && cd "$MNT"; } || fail remount
is 'all is kept over a remount' "$(stat -c '%n %a %u %g' -- *)" "$(cat "$T/before")"
errno 'and is enforced' EACCES as 1001 sysop creat closed/g

# With the write-back cache such a request comes with a time.
{ cd / && remount_store --writeback >/dev/null && cd "$MNT"; } || fail 'remount --writeback'
suid 6755; as 1001 sysop chown -1 -1 s >/dev/null
is '--writeback: a chown that changes no owner clears them' "$(mode s)" 755
suid 6766; sysop chown -1 -1 s >/dev/null
is '--writeback: by root, setuid only' "$(mode s)" 2766
suid 6755; as 1002 sysop chown -1 -1 s >/dev/null
is '--writeback: by another, nothing' "$(mode s)" 6755
cd / || exit
done_testing
