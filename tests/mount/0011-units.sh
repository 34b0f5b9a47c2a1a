#!/bin/bash
# SPDX-License-Identifier: MIT
# The unit examples: systemd finds nothing wrong with them, and the commands in them do what they are for.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need_root
S=$ROOT/mount-scripts

mkdir "$T/units" "$T/lib" "$T/etc" "$T/srv"
"$MSYNCFS" keygen "$T/etc/key" || bail keygen
RANDOM=$((SEED % 32768))
diag "SEED=$SEED"
port=$(a_port)
# The units with places of the test's own in place of the system's.
for unit in "$S"/*.service "$S"/*.mount; do
	name=$(basename "$unit")
	sed "s|/usr/local/bin/msyncfs|$MSYNCFS|g; s|/sbin/umount.msyncfs|$S/umount.msyncfs|g; s|/var/lib/msyncfs|$T/lib|g
		s|/etc/msyncfs/|$T/etc/|g; s|--listen=:6796|--listen=127.0.0.1:$port|; s|one.example.org|127.0.0.1:$port|" "$unit" >"$T/units/$name"
done
ok 'there are units' test -f "$T/units/msyncfs@.service" -a -f "$T/units/msyncfs-primary.service" -a \
	-f "$T/units/msyncfs-replica.service" -a -f "$T/units/srv-data.mount"

if command -v systemd-analyze >/dev/null; then
	for unit in "$T"/units/*; do
		name=$(basename "$unit")
		case $name in
		*@.service) cp "$unit" "$T/units/${name%.service}srv-data.service"; unit=$T/units/${name%.service}srv-data.service;;
		esac
		timeout 60 systemd-analyze verify --man=no --recursive-errors=no "$unit" >"$T/out" 2>&1 </dev/null
		is "$name: systemd finds nothing wrong" "$? $(cat "$T/out")" '0 '
		case $unit in *@srv-data.service) rm "$unit";; esac
	done
	# A line that systemd does not know would be found.
	sed 's/^\[Service\]/&\nFrobnicate=yes/' "$T/units/msyncfs-primary.service" >"$T/units/wrong.service"
	timeout 60 systemd-analyze verify --man=no --recursive-errors=no "$T/units/wrong.service" >"$T/out" 2>&1 </dev/null
	like 'it finds what is wrong' "$(cat "$T/out")" 'Frobnicate'
else
	skip_one 'systemd-analyze is not there'
fi

# value UNIT KEY: the last value of a key.
value() { sed -n "s/^$2=//p" "$T/units/$1" | tail -n 1; }
# run UNIT KEY: the command as systemd runs it: a dash in front says that it may fail, %f is the mount point.
run() {
	local line
	line=$(value "$1" "$2")
	line=${line//%f/$MNT}
	line=${line//\/srv\//$T/srv/}
	case $line in
	-*) line=${line#-}; eval "timeout 60 $line" </dev/null || :;;
	*) eval "timeout 60 $line" </dev/null;;
	esac
}
# service UNIT DIR STORE: start, use, die, start again, stop.
service() {
	local unit=$1 MNT=$2 STORE=$3
	ok "$unit: ExecStartPre" run "$unit" ExecStartPre
	ok "$unit: ExecStart" run "$unit" ExecStart
	ok "$unit: it is mounted" is_mounted
	ok "$unit: it can be used" sh -c "echo x >'$MNT/file.${unit%%.*}'"
	ok "$unit: the daemon dies" kill_daemon
	ok "$unit: ExecStartPre where a dead mount is" run "$unit" ExecStartPre
	ok "$unit: ExecStart takes it away" run "$unit" ExecStart
	is "$unit: what was there is there" "$(cat "$MNT/file.${unit%%.*}")" x
	[ -n "${4:-}" ] || stops "$unit" "$MNT" "$STORE"
}
stops() {
	local unit=$1 MNT=$2 STORE=$3
	ok "$unit: ExecStop" run "$unit" ExecStop
	nok "$unit: it is unmounted" is_mounted
	ok "$unit: and the store is closed" flock -n "$STORE" true
}

# The names are those of the instance's file.
# shellcheck disable=SC2034 # for eval
OPTIONS='--size=20M -o noatime'
sed -n 's/^#   \(STORE\|OPTIONS\)=\(.*\)/\1=\2/p' "$S/msyncfs@.service" >"$T/conf"
is 'the instance file has the names that the unit uses' "$(cut -d= -f1 "$T/conf" | tr '\n' ' ')" 'STORE OPTIONS '
ok 'its options are known' sh -c ". '$T/conf' 2>/dev/null; '$MSYNCFS' mount \$(sed -n 's/^OPTIONS=//p' '$T/conf') --help >/dev/null"
service msyncfs@.service "$MNT" "$STORE"

# The .mount unit is run by mount(8) through mount.msyncfs.
where=$T${where_was:=$(value srv-data.mount Where)}
is 'the mount unit is called as its mount point' "$(systemd-escape --path --suffix=mount "$where_was" 2>/dev/null || echo srv-data.mount)" srv-data.mount
mkdir -p "$where"
ok 'srv-data.mount: mount' timeout 60 "$S/mount.msyncfs" "$(value srv-data.mount What)" "$where" -o "$(value srv-data.mount Options)" -n
like 'srv-data.mount: its options reach the daemon' ",$(sed -n "s/^options=//p" "$where/.msyncfs/status")," ',noatime,.*size='
ok 'srv-data.mount: umount' "$S/umount.msyncfs" "$where"
rm "$T/lib/data.msync"

rmdir "$where"
service msyncfs-primary.service "$T/srv/data" "$T/lib/data.msync" go-on
# The other machine: the same mount point there, another one here.
sed -i "s|/srv/data|/srv/other|g" "$T/units/msyncfs-replica.service"
service msyncfs-replica.service "$T/srv/other" "$T/lib/copy.msync" go-on
ok 'what the replica wrote is on the primary' test -f "$T/srv/data/file.msyncfs-replica"
is 'the replica is one' "$(sed -n 's/^role=//p' "$T/srv/other/.msyncfs/status")" replica
stops msyncfs-replica.service "$T/srv/other" "$T/lib/copy.msync"
stops msyncfs-primary.service "$T/srv/data" "$T/lib/data.msync"
done_testing
