#!/bin/bash
# SPDX-License-Identifier: MIT
# A remote mount whose daemon is killed just while it tells the kernel of another machine's change: its thread waits for the lock of a
# directory, which a program has that waits for the daemon's answer. The guard ends that, as root and as a common user, with and without
# fusectl, and does nothing else: not when everybody is told to stop, not to another mount of the same number.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need_root
need setpriv unshare mkfifo

fuse_for_all
# Again, where there is no fusectl (a container).
if [ -n "${WITHOUT_CTL:-}" ]; then
	umount -i /sys/fs/fuse/connections 2>/dev/null
fi
has_ctl() { [ "$(stat -f -c %T /sys/fs/fuse/connections 2>/dev/null)" = fusectl ] || grep -q ' - fusectl ' /proc/self/mountinfo; }

one=$T/one two=$T/two
mkdir "$one" "$two"
# ID of who mounts two
user=0
as_user() { HOME=$T setpriv --reuid="$user" --regid="$user" --clear-groups "$@"; }
# Of two; a user's mount is for that user only.
value() { as_user sed -n "s/^$1=//p" "$two/.msyncfs/status" 2>/dev/null | tr -d "'\""; }
streams() { [ "$(value link_state)" = stream ]; }
calling() { [ "$(value open_calls)" = 1 ]; }
has() { as_user test -s "$two/d/$1"; }

# A port of our own for each: who is first has it.
for port in $(shuf -i 20000-50000 -n 20); do
	mount_store -m "$one" -s "$T/one.msync" --listen="127.0.0.1:$port" >"$T/out" && break
done
ok 'a primary' is_mounted "$one"

# ---- A network that holds back what two says
mkfifo "$T/relay.in"
relay 127.0.0.1:0 "127.0.0.1:$port" <"$T/relay.in" >"$T/relay.out" 2>&1 &
exec 8>"$T/relay.in"
wait_for "grep -q ^port '$T/relay.out'"
through=$(sed -n 's/^port //p' "$T/relay.out")
orders=0
relay() {
	echo "$@" >&8
	orders=$((orders + 1))
	wait_for "[ \"\$(grep -c '^ok' '$T/relay.out')\" -ge $orders ]" || fail "the relay obeys: $*"
}
# start OPTION...: two is mounted.
start() { as_user timeout 60 "$MSYNCFS" mount --from="127.0.0.1:$through" -o on-disconnect=wait:20 "$@" "$T/copy/two.msync" "$two" </dev/null 8>&-; }
stop() { umount_store "$two" "$T/copy/two.msync"; }
look_up() {
	daemon=$(daemon_pids "$T/copy/two.msync")
	guard=$(pgrep -P "$daemon" -x fuse-guard)
	device=$(awk -v m="$two" '$5 == m { print $3 }' /proc/self/mountinfo)
}
gone() { ! [ -d "/proc/$1" ]; }
ended() { gone "$1" || grep -q '^State:[[:space:]]*Z' "/proc/$1/status"; }
# No guard without the daemon that it names.
no_orphan() {
	local pid
	for pid in $(pgrep -x fuse-guard); do
		! gone "$pid" && gone "$(tr -d '\0' <"/proc/$pid/cmdline" 2>/dev/null | sed 's/.* //')" && return 1
	done
	return 0
}
mkdir "$T/copy"

# A thread of the daemon that nothing interrupts, each time one looks.
waits() {
	local i
	for i in 1 2 3 4 5; do
		cat /proc/"$daemon"/task/*/status 2>/dev/null | grep -q '^State:[[:space:]]*D' || return 1
		sleep 0.05
	done
}
# The daemon is as described above; $program is the one that has the lock.
bring_about() {
	local i name
	for i in 1 2 3 4 5 6 7 8 9 10; do
		relay go
		wait_for streams || return 1
		name=x.$RANDOM.$i
		echo text >"$one/d/$name"
		wait_for has "$name" || return 1
		relay hold up
		rm -f "$T/program"
		as_user sysop open rw,creat "$two/d/new.$name" >"$T/program" 8>&- &
		program=$!
		wait_for calling
		rm "$one/d/$name"
		wait_for -t 3 waits && return 0
		# The link broke too early.
		relay go
		wait "$program"
	done
	return 1
}

# Whatever did not work must not stay.
end_all() {
	kill -KILL "$daemon" 2>/dev/null
	gone "$daemon" || umount -i -f "$two" 2>/dev/null
	wait "$program"
}

# let_go WHAT: all ends that waited.
let_go() {
	# As long as it takes, but not for ever.
	ok "$1: the program is let go" wait_for "gone $program"
	like "$1: with an error" "$(cat "$T/program")" 'ECONNABORTED|ENOTCONN'
	ok "$1: the daemon is gone" wait_for gone "$daemon"
	end_all
}
works() {
	echo text >"$one/d/after.$program"
	ok "$1: and works" wait_for has "after.$program"
	ok "$1: both ways" as_user sysop open rw,creat "$two/d/back.$program"
}

# Not by ok(), which runs it in a shell of its own.
begin() {
	look_up
	if ! bring_about; then
		fail "$1: no thread waits for what a program has"
		end_all
		return 1
	fi
	pass "$1: a thread waits for what a program has"
}

# dies SIGNAL WHAT: two's daemon ends by it while one of its threads waits.
dies() {
	local what=$2
	begin "$what" || return
	kill -"$1" "$daemon"
	let_go "$what"
	ok "$what: so is its guard" wait_for gone "$guard"
	ok "$what: the dead mount is there" is_mounted "$two"
	errno "$what: who comes later gets an error" ENOTCONN as_user sysop open rdonly "$two/d"
	relay go
	ok "$what: the next mount takes it away" start
	works "$what"
}

# The daemon, its guard if it has one, and nobody is left to help.
hangs() {
	local what=$1
	begin "$what" || return 1
	# shellcheck disable=SC2086 # none or one
	kill -KILL $guard "$daemon"
	ok "$what: it is dead" wait_for ended "$daemon"
	ok "$what: but hangs" waits
	nok "$what: so does the program" gone "$program"
	relay go
}

mkdir -m 777 "$one/d"
for who in root nobody; do
	user=$(id -u "$who")
	rm -rf "$T/copy"
	mkdir "$T/copy"
	chown "$user:$user" "$T/copy" "$two"
	if [ "$user" != 0 ] && ! has_ctl; then
		start 2>&1 | grep guard >"$T/out"
		ok "$who: a mount without a guard works" is_mounted "$two"
		like "$who: and says what it lacks" "$(cat "$T/out")" 'nobody guards the mount'
		is "$who: in one line" "$(wc -l <"$T/out")" 1
		look_up
		is "$who: there is none" "$guard" ''
		if hangs "$who, without a guard"; then
			start >"$T/out" 2>&1
			is "$who: the next mount cannot help" "$? $(wc -l <"$T/out")" '1 1'
			like "$who: and says what can" "$(cat "$T/out")" 'killed, but hangs.*umount -f'
			umount -i -f "$two" 2>/dev/null
			let_go "$who: umount -f"
			ok "$who: then a mount" start
			works "$who: that is there"
		fi
		stop >/dev/null
		continue
	fi
	start >"$T/out" 2>&1
	is "$who: a remote mount" "$? $(grep guard "$T/out")" '0 '
	look_up
	is "$who: it has a guard" "$(echo "$guard" | wc -w)" 1
	is "$who: that has nothing open but what it is for" "$(find "/proc/$guard/fd" -type l -printf '%l\n')" \
		"$(! has_ctl || echo "/sys/fs/fuse/connections/${device#*:}/abort")"
	is "$who: nor the store" "$(grep -c two.msync "/proc/$guard/maps")" 0
	nok "$who: pkill does not take it for the daemon" grep -q msyncfs "/proc/$guard/comm" "/proc/$guard/cmdline"
	dies KILL "$who, kill -9"
	dies ABRT "$who, a bug"
	if hangs "$who, both killed"; then
		ok "$who, both killed: the next mount ends that" start
		let_go "$who, both killed"
		ok "$who, both killed: one mount is there" is_mounted "$two"
		works "$who, both killed"
	fi
	look_up
	stop >/dev/null
	ok "$who: the guard goes with the daemon" wait_for "[ -z '$guard' ] || gone '$guard'"
done
user=0

# ---- A life without trouble
start >/dev/null
look_up
kill -TERM "$guard"; kill -HUP "$guard"; kill -INT "$guard"; kill -USR1 "$guard"; kill -s RTMIN "$guard"
kill -STOP "$daemon"
sleep 0.2
kill -CONT "$daemon"
ok 'signals to the guard, and a daemon that is stopped, end nothing' sysop open rw,creat "$two/d/alive"
nok 'the guard is there' ended "$guard"
stop >/dev/null
ok 'it goes with the daemon' wait_for gone "$guard"

start >/dev/null
look_up
exec 7<"$two/d/alive"
umount -i -l "$two"
nok 'a mount that was taken away is guarded' ended "$guard"
is 'and served' "$(cat <&7)" ''
exec 7<&-
ok 'until it ends' wait_for gone "$guard"
ok 'with its daemon' wait_for gone "$daemon"

start >/dev/null
look_up
kill -TERM "$daemon" "$guard"
ok 'all are told to stop' wait_for gone "$daemon"
ok 'the guard, too' wait_for gone "$guard"
nok 'the mount is gone' is_mounted "$two"

# What it finds late may be somebody else's.
start >/dev/null
look_up
old=$guard before=$device
kill -STOP "$guard"
kill -KILL "$daemon"
ok 'a guard that is late' wait_for gone "$daemon"
ok 'a new mount meanwhile' start
look_up
[ "$device" = "$before" ] || diag "another number: $before, $device"
kill -CONT "$old"
ok 'the late one goes' wait_for gone "$old"
ok 'and has left the new mount alone' sysop open rw,creat "$two/d/late"

# ---- Failed starts
stop >/dev/null
start -o from=127.0.0.1:1 -o from=nowhere.invalid:x >/dev/null 2>&1
nok 'a mount that fails' is_mounted "$two"
timeout 60 "$MSYNCFS" mount --listen="$T/s" "$T/copy" "$two" >/dev/null 2>&1
nok 'another one' is_mounted "$two"
ok 'leave no guard' wait_for no_orphan

exec 8>&-
umount_store "$one" "$T/one.msync" >/dev/null
if [ -z "${WITHOUT_CTL:-}" ] && has_ctl; then
	ok 'the same without fusectl' own_namespace env WITHOUT_CTL=1 "$0"
fi
done_testing
