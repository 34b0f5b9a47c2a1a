#!/bin/bash
# SPDX-License-Identifier: MIT
# make demo: three mounts of one directory on one machine, and in half a minute what that is good for. As root each mount has a
# network of its own, with cables that can be pulled; else they talk through Unix sockets. Nothing is left behind.
#   MSYNCFS=PROGRAM     PAUSE=SECONDS (1.5) between the scenes; 0: as fast as it goes     NET=0  sockets for root, too
set -u
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
MSYNCFS=${MSYNCFS:-$here/../../build/release/msyncfs}
PAUSE=${PAUSE:-1.5}
names=(one two three)
primary=one
key=()
has_net=0
# shellcheck source=net.sh
. "$here/net.sh"

cleanup() {
	local status=$? n pid
	trap - EXIT
	trap '' INT TERM HUP
	cd /
	# shellcheck disable=SC2046 # a list of numbers
	kill $(jobs -p) 2>/dev/null
	[ -t 1 ] && [ "$status" != 0 ] && printf '\ncleaning up\n'
	for n in "${names[@]}"; do unmount "$n" || umount -l "$T/$n" || fusermount3 -uz "$T/$n"; done 2>/dev/null
	# The stores are closed when their daemons are gone; one that will not go is no use to anybody.
	for n in "${names[@]}"; do
		for pid in $(daemons "$n"); do
			for _ in {1..100}; do [ -d "/proc/$pid" ] || break; sleep 0.1; done
			[ ! -d "/proc/$pid" ] || kill -KILL "$pid"
		done
	done
	net_down
	rm -rf --one-file-system "$T"
	exit "$status"
}
daemons() {
	local pid
	for pid in $(pgrep -x "$(basename "$MSYNCFS")"); do
		{ tr '\0' '\n' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qxF "$T/$1.msync" && echo "$pid"
	done
}
unmount() {
	mountpoint -q "$T/$1" || return 0
	if [ "$(id -u)" = 0 ]; then umount -i "$T/$1"; else fusermount3 -u "$T/$1"; fi
}

say() { printf '\n\033[1m%s\033[0m\n' "$*" | if [ -t 1 ]; then cat; else sed 's/\x1b\[[0-9]*m//g'; fi; sleep "$PAUSE"; }
show() { printf '  %-5s $ %s\n' "$1" "$2"; }
# run MACHINE TEXT: the text is shown and done in the directory of that machine
run() {
	show "$1" "$2"
	(cd "$T/$1" && eval "$2") 2>&1 | sed 's/^/          /'
}
die() { echo "demo: $*" >&2; exit 1; }
in_net() { if [ $has_net = 1 ]; then net_in "$@"; else shift; "$@"; fi; }
at() { if [ $has_net = 1 ]; then echo "$(net_address "$1"):6796"; else echo "$T/$1.socket"; fi; }
start() {
	local n=$1 from=()
	[ "$n" = "$primary" ] || from=(--from="$(at "$primary")" -o on-disconnect=wait:30)
	show "$n" "msyncfs mount --listen=$(short "$(at "$n")")${from[*]:+ --from=$(short "$(at "$primary")")}${key[*]:+ --key-file=k} $n.msync $n"
	in_net "$n" "$MSYNCFS" mount --listen="$(at "$n")" "${key[@]}" "${from[@]}" "$T/$n.msync" "$T/$n" </dev/null >"$T/out" 2>&1 || { cat "$T/out"; die "$n does not mount"; }
}
short() { echo "${1/#$T\//}"; }
value() { sed -n "s/^$2=//p" "$T/$1/.msyncfs/status" 2>/dev/null | tr -d "'"; }
until_is() {  # TEXT: until it is true, a minute at most
	local i
	for ((i = 0; i < 6000; i++)); do
		eval "$1" && return 0
		sleep 0.01
	done
	die "waited in vain for: $1"
}
now() { date +%s%N; }
ms() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f ms", (b - a) / 1e6 }'; }

[ -x "$MSYNCFS" ] || die "$MSYNCFS is missing: run make"
T=$(mktemp -d "${TMPDIR:-/tmp}/msyncfs-demo.XXXXXX") || exit 1
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
for n in "${names[@]}"; do mkdir "$T/$n"; done
if [ "${NET:-1}" = 1 ] && [ "$(id -u)" = 0 ] && command -v ip nsenter >/dev/null && net_up "${names[@]}" 2>/dev/null; then
	has_net=1
	key=(--key-file="$T/k")
	"$MSYNCFS" keygen "$T/k" >/dev/null
else
	net_down
fi

say "Three machines, one directory$([ $has_net = 1 ] && echo ' (here: three network namespaces, TLS between them)')"
for n in "${names[@]}"; do start "$n"; done

say 'A file is a key. Written on one machine, it is on the others at once; all read from their own memory'
run two 'echo blue >colour'
t=$(now)
until_is "[ -e '$T/three/colour' ]"
run three "cat colour          # there after $(ms "$t"), with this script's own time"

say 'mkdir is done by exactly one of all machines'
for n in "${names[@]}"; do (cd "$T/$n" && mkdir job.7 2>/dev/null && echo "$n" >"$T/won") & done
wait
show all 'mkdir job.7 2>/dev/null && echo this is mine'
printf '          %s: this is mine\n' "$(cat "$T/won")"

say 'Appends from everywhere at once: none lost, each machine'"'"'s own in order'
t=$(now)
: >"$T/one/log"
for n in two three; do until_is "[ -e '$T/$n/log' ]"; done
for n in "${names[@]}"; do (cd "$T/$n" && for ((i = 1; i <= 200; i++)); do echo "$n $i" >>log; done) & done
wait
show all "for i in \$(seq 200); do echo \$(hostname) \$i >>log; done       # at the same time, $(ms "$t")"
run one 'wc -l <log'

if [ $has_net = 1 ]; then
	say 'The cable of two is pulled: reading goes on, what it writes waits'
	net_cut two
	until_is "[ \"\$(value two link_state)\" != stream ]"
	run two 'cat colour; grep link_state= .msyncfs/status'
	(cd "$T/two" && echo red >colour; echo done >"$T/waited") &
	run one 'echo green >shape        # the others go on'
	[ ! -e "$T/waited" ] && show two 'echo red >colour &        # waits'
	say '... and plugged in again: what waited is done, what was missed has come'
	net_heal two
	until_is "[ -e '$T/waited' ]"
	run one 'cat colour'
	until_is "[ -e '$T/two/shape' ]"
	run two 'cat shape'
fi

say 'kill -9 of the primary'"'"'s daemon: nothing that was acknowledged is lost'
run one 'echo precious >kept'
show one 'kill -9 DAEMON'
# shellcheck disable=SC2046 # a list of numbers
kill -KILL $(daemons one)
until_is '[ -z "$(daemons one)" ]'
umount -i -f -l "$T/one" 2>/dev/null || fusermount3 -uz "$T/one"
start one
run one 'cat kept; wc -l <log'
until_is "[ \"\$(value two link_state)\$(value three link_state)\" = streamstream ]"

say 'The primary moves to two while everybody works'
for n in "${names[@]}"; do
	(cd "$T/$n" && i=0; while [ ! -e "$T/enough" ]; do i=$((i + 1)); echo "$n $i" >>moving || echo "$n $i" >>"$T/failed"; done; echo $i >"$T/count.$n") &
done
until_is "[ -s '$T/one/moving' ]"
sleep 0.5
show one 'msyncfs demote .'
"$MSYNCFS" demote "$T/one" "$(at two)" || die 'no switch-over'
primary=two
sleep 0.5
: >"$T/enough"
wait
for n in "${names[@]}"; do run "$n" 'grep ^role= .msyncfs/status'; done
total=$(cat "$T"/count.* | awk '{ n += $1 } END { print n }')
show all "changes meanwhile: $total, refused: $(cat "$T/failed" 2>/dev/null | wc -l), in the log: $(wc -l <"$T/two/moving")"

say 'In the end all three stores hold the same'
for n in one three; do until_is "[ \"\$(value $n seq)\" = \"\$(value two seq)\" ]"; done
for n in one three two; do
	unmount "$n"
	until_is "[ -z \"\$(daemons $n)\" ]"
done
for n in "${names[@]}"; do
	"$MSYNCFS" dump -q "$T/$n.msync" "$T/$n.dump" || die "$n cannot be dumped"
	show "$n" "msyncfs dump $n.msync | sha256sum"
	printf '          %s\n' "$(sha256sum <"$T/$n.dump")"
done
{ cmp -s "$T/one.dump" "$T/two.dump" && cmp -s "$T/one.dump" "$T/three.dump"; } || die 'they do not'
printf '\nREADME.md, "Many machines", says how to do this on three real ones.\n'
