#!/bin/bash
# SPDX-License-Identifier: MIT
# /etc/fstab through mount(8): each line of the example works, options of the store reach the daemon, names may be odd; and
# remount, with what mount(8) adds to it from fstab and the mount table.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need_root
need unshare mount umount

# mount(8) looks for its helpers in /sbin. Where they are not installed, a mount namespace of the test's own shows them there.
if [ ! -x /sbin/mount.msyncfs ]; then
	[ -z "${IN_NAMESPACE:-}" ] || bail 'the helpers are not where they were put'
	mkdir "$T/overlays"
	make -s -C "$ROOT" MODE="$MODE" DESTDIR="$T/installed" BINDIR="${MSYNCFS%/*}" install >"$T/out" 2>&1 </dev/null ||
		bail "make install: $(tail -n 1 "$T/out")"
	cat >"$T/inside" <<-'INNER'
		sbin=$(readlink -f /sbin)
		mount -i -t tmpfs none "$1/overlays" && mkdir "$1/overlays/upper" "$1/overlays/work" &&
			cp -P "$1"/installed/sbin/* "$1/overlays/upper/" &&
			mount -i -t overlay -o "lowerdir=$sbin,upperdir=$1/overlays/upper,workdir=$1/overlays/work" overlay "$sbin" || exit 77
		exec "$2"
	INNER
	IN_NAMESPACE=1 unshare -m --propagation "$(propagation)" sh "$T/inside" "$T" "$0"
	status=$?
	if [ $status = 77 ]; then
		skip_one 'no overlay to show mount(8) the helpers in'
		done_testing
	fi
	# shellcheck disable=SC2034 # for lib.sh: the plan has been printed
	is_done=1
	exit $status
fi

mkdir "$T/lib" "$T/srv"
"$MSYNCFS" keygen "$T/key" || bail keygen
RANDOM=$((SEED % 32768))
diag "SEED=$SEED"
port=$(a_port)
primary=
options_of() { sed -n "s/^options=//p" "$1/.msyncfs/status" | tr -d "'"; }
flags_of() { awk -v m="$1" '$5 == m { print "," $6 "," }' /proc/self/mountinfo; }
# mounts FSTAB DIR: by its line. Port numbers may be taken.
by_fstab() { timeout 60 mount -T "$1" "$2" </dev/null; }
unmounts() { # DIR STORE
	ok "${2##*/}: umount" umount "$1"
	[ "$2" = :memory: ] || ok "${2##*/}: when umount returns, the store is closed" flock -n "$2" true
}

# ---- The example, line by line
sed "s|/var/lib/msyncfs/|$T/lib/|g; s|/srv/|$T/srv/|g; s|/etc/msyncfs/key|$T/key|g; /^#/d
	s|listen=:6796|listen=127.0.0.1:$port|; s|from=one.example.org|from=127.0.0.1:$port|" "$ROOT/mount-scripts/fstab.example" >"$T/lines"
ok 'the example has lines' test "$(wc -l <"$T/lines")" -ge 6
n=0
while read -r store dir type words rest; do
	n=$((n + 1))
	printf '%s %s %s %s %s\n' "$store" "$dir" "$type" "$words" "$rest" >"$T/fstab.$n"
	mkdir "$dir"
	ok "line $n: mount ${dir##*/} ($words)" by_fstab "$T/fstab.$n" "$dir" || continue
	ok "line $n: it can be used" sh -c "echo x >'$dir/file' && test \"\$(cat '$dir/file')\" = x"
	case $words in *size=*)
		size=${words##*size=}
		size=${size%%,*}
		is "line $n: its size reaches the daemon" "$(sed -n 's/^max_bytes=//p' "$dir/.msyncfs/status")" "$(numfmt --from=iec "$size")";;
	esac
	for word in noatime sync; do
		case ,$words, in *,$word,*) like "line $n: $word reaches the daemon" ",$(options_of "$dir")," ",$word,";; esac
	done
	# The primary is needed by the line of the remote mount.
	case $words in *listen=*) primary=$dir;; *) unmounts "$dir" "$store";; esac
done <"$T/lines"
[ -z "$primary" ] || unmounts "$primary" "$T/lib/shared.msync"

# ---- Odd names, all words
mkdir "$T/a b"
printf '%s\n' "$T/lib/c\\040d.msync $T/a\\040b msyncfs rw,user,suid,dev,exec,noauto,nofail,comment=x,x-systemd.automount,lazytime 0 0" >"$T/fstab"
ok 'names with blanks' by_fstab "$T/fstab" "$T/a b"
ok 'the store is where the line says' test -f "$T/lib/c d.msync"
unmounts "$T/a b" "$T/lib/c d.msync"
printf '%s\n' "$STORE $MNT msyncfs noatime,size=20M,sync-interval=7,nosuid,nosymfollow 0 0" >"$T/fstab"
ok 'mount -a' timeout 60 mount -a -T "$T/fstab"
ok 'mounts' is_mounted
echo hello >"$MNT/file"
ln -s file "$MNT/link"
like 'nosymfollow is set, and what else was said' "$(flags_of "$MNT")" ',nosuid,noatime,nosymfollow,'
errno 'symbolic links are not followed' ELOOP sysop open rdonly "$MNT/link"
ok 'remount,symfollow' timeout 60 mount -o remount,symfollow "$MNT"
errno 'they are' ok sysop open rdonly "$MNT/link"
ok 'remount,nosymfollow' timeout 60 mount -T "$T/fstab" -o remount,nosymfollow "$MNT"
errno 'they are not any more' ELOOP sysop open rdonly "$MNT/link"

# ---- Remount
# refused NAME REGEX MOUNT-ARGUMENT...: one line of ours that says why, a status that is not 0, and nothing has changed.
refused() {
	local name=$1 regex=$2 before status
	shift 2
	before=$(options_of "$MNT")$(flags_of "$MNT")
	timeout 60 mount "$@" >"$T/out" 2>&1 </dev/null
	status=$?
	nok "remount, $name: refused" test $status = 0
	is "remount, $name: one line" "$(grep -c '^msyncfs: ' "$T/out")" 1
	like "remount, $name: says why" "$(cat "$T/out")" "$regex"
	is "remount, $name: nothing has changed" "$(options_of "$MNT")$(flags_of "$MNT")" "$before"
}
like 'nosuid is set' "$(flags_of "$MNT")" ',nosuid,'
ok 'remount,noexec' timeout 60 mount -T "$T/fstab" -o remount,noexec "$MNT"
like 'takes effect' "$(flags_of "$MNT")" ',noexec,'
like 'what else was set stays' "$(flags_of "$MNT")" ',nosuid,'
ok 'remount,exec by the mount point alone' timeout 60 mount -o remount,exec "$MNT"
nok 'takes effect' grep -q noexec <(flags_of "$MNT")
ok 'remount,ro' timeout 60 mount -T "$T/fstab" -o remount,ro "$MNT"
errno 'refuses writers' EROFS sysop creat "$MNT/new"
is 'serves readers' "$(cat "$MNT/file")" hello
ok 'remount,rw' timeout 60 mount -T "$T/fstab" -o remount,rw "$MNT"
ok 'writers are served again' touch "$MNT/new"
exec 7>>"$MNT/file"
refused 'ro with a file open for writing' 'open for writing' -o remount,ro "$MNT"
exec 7>&-
refused sync 'sync:.*unmount' -o remount,sync "$MNT"
refused 'sync, with the line of fstab' 'sync:.*unmount' -T "$T/fstab" -o remount,sync "$MNT"
refused 'another interval' 'sync-interval=1:.*unmount' -T "$T/fstab" -o remount,sync-interval=1 "$MNT"
refused 'another size, and ro' 'size=.*unmount' -o remount,ro,size=30M "$MNT"
refused 'another access time' 'strictatime:.*unmount' -t msyncfs -o remount,strictatime "$STORE" "$MNT"
refused 'an unknown word' 'unknown.*frobnicate|frobnicate.*unknown' -o remount,frobnicate "$MNT"
refused 'of another store' 'is mounted there' -t msyncfs -o remount,ro "$T/lib/data.msync" "$MNT"
ok 'the options as they are, and a flag' timeout 60 mount -t msyncfs -o remount,noatime,size=20M,sync-interval=7,nodev "$STORE" "$MNT"
like 'the flag takes effect' "$(flags_of "$MNT")" ',nodev,'
kill_daemon
timeout 60 mount -o remount,ro "$MNT" >"$T/out" 2>&1 </dev/null
nok 'a dead mount is not remounted' test $? = 0
like 'and it is said why' "$(cat "$T/out")" 'daemon has died: mount it again'
ok 'it is mounted anew by its line' by_fstab "$T/fstab" "$MNT"
is 'with its data' "$(cat "$MNT/file")" hello
unmounts "$MNT" "$STORE"
timeout 60 mount -t msyncfs -o remount,ro "$STORE" "$MNT" >"$T/out" 2>&1 </dev/null
nok 'what is not mounted is not remounted' test $? = 0
ok 'mounted with ro' timeout 60 mount -T "$T/fstab" -o ro "$MNT"
refused 'rw of a store that is opened for reading' 'rw:.*unmount' -o remount,rw "$MNT"
unmounts "$MNT" "$STORE"

# ---- Errors, and fsck(8)
printf '%s\n' "$STORE $MNT msyncfs frobnicate 0 0" >"$T/fstab"
by_fstab "$T/fstab" "$MNT" >"$T/out" 2>&1
is 'an unknown word in fstab: wrong use' "$?" 1
nok 'and nothing is mounted' is_mounted
ok 'fsck -t msyncfs' timeout 60 fsck -T -t msyncfs "$STORE"
dd if=/dev/zero of="$STORE" bs=4096 count=2 conv=notrunc status=none
timeout 60 fsck -T -t msyncfs "$STORE" >"$T/out" 2>&1
like 'fsck of a damaged store: 4 or 8' "$?" '^(4|8)$'
done_testing
