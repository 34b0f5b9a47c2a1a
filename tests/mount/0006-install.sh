#!/bin/bash
# SPDX-License-Identifier: MIT
# make install into a DESTDIR, and make uninstall leaves nothing of it; what was there before stays.
export NO_MOUNT=1
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need make

D=$T/root
run() { make -C "$ROOT" MODE="$MODE" DESTDIR="$D" "$@" </dev/null 2>&1; }

ok 'install' run install PREFIX=/usr
ok 'the program runs' "$D/usr/bin/msyncfs" --version
for helper in mount.msyncfs umount.msyncfs fsck.msyncfs umount.fuse.msyncfs; do
	ok "$helper is where mount(8) looks" test -x "$D/sbin/$helper"
done
ok 'the scripts know where the program is' grep -qx 'bindir=/usr/bin' "$D/sbin/mount.msyncfs"
ok 'the unit too' grep -q '^ExecStart=/usr/bin/msyncfs ' "$D/usr/lib/systemd/system/msyncfs@.service"
for page in "$ROOT"/fs/man/*.[18]; do
	[ -f "$page" ] || continue
	ok "${page##*/} is installed" test -f "$D/usr/share/man/man${page##*.}/${page##*/}"
done
is 'nothing is writable by others' "$(find "$D" -not -type l -perm /022)" ''
ok 'uninstall' run uninstall PREFIX=/usr
is 'nothing is left' "$(find "$D" -mindepth 1 2>/dev/null)" ''

mkdir -p "$D/usr/local/bin" "$D/sbin"
echo mine >"$D/usr/local/bin/other"
echo mine >"$D/sbin/mount.other"
find "$D" -type f | sort >"$T/before"
ok 'install beside other files' run install
ok 'install again over itself' run install
ok 'uninstall beside other files' run uninstall
is 'their files stay' "$(find "$D" -type f | sort)" "$(cat "$T/before")"
rm -rf "$D"
ok 'every directory can be set' run install BINDIR=/b SBINDIR=/s MANDIR=/m UNITDIR=/u HELPERDIR=/h DOCDIR=/d
ok 'and is used' test -x "$D/b/msyncfs" -a -x "$D/h/mount.msyncfs" -a -f "$D/u/msyncfs@.service"
is 'and nothing else is' "$(cd "$D" && find . -maxdepth 1 | sort | tr -d '\n' | tr -d /)" "..b.d.h$([ -d "$D/m" ] && echo .m).u"
ok 'and uninstalled' run uninstall BINDIR=/b SBINDIR=/s MANDIR=/m UNITDIR=/u HELPERDIR=/h DOCDIR=/d
is 'wholly' "$(find "$D" -mindepth 1 2>/dev/null)" ''
done_testing
