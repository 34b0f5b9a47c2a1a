#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The bench of remote mounts: ratios in the same run on one machine, over loopback and (as root) over veth links between network
# namespaces. Each aim is marked as reached or missed. Leaves nothing behind.
#
#   BUILD=build/release  what to measure       QUICK=1    a short run: figures to look at, not to quote
#   PARTS='reads writes lag remote far catchup diff peers'
#   NETS='loopback namespaces'                 ROUNDS=5 TIME=1   per measurement
#   SHARE_CPUS=1         no CPUs of their own for the two machines of the catch-up
#   MIB=256              of the catch-up       KEYS=1000000      of the diff
#   BENCH_DIR=/var/tmp   on a local disk       PEERS='redis etcd gluster'
set -u
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
BUILD=${BUILD:-build/release}
PARTS=${PARTS:-reads writes lag remote far catchup diff peers}
PEERS=${PEERS:-redis etcd gluster}
BENCH_DIR=${BENCH_DIR:-/var/tmp}
if [ "${QUICK:-0}" = 1 ]; then
	ROUNDS=${ROUNDS:-3} TIME=${TIME:-0.2} MIB=${MIB:-32} KEYS=${KEYS:-20000}
else
	ROUNDS=${ROUNDS:-5} TIME=${TIME:-1} MIB=${MIB:-256} KEYS=${KEYS:-1000000}
fi
msyncfs=$PWD/$BUILD/msyncfs
[ "${BUILD#/}" = "$BUILD" ] || msyncfs=$BUILD/msyncfs
programs=$BUILD/tests/bench
relay=$BUILD/tests/helpers/relay
replicas=(two three four)
work='' tmpfs=''
pids=()
# shellcheck source=../remote/net.sh
. "$here/../remote/net.sh"

# --------------------------------------------------------------------------------------------------- start and end
die() { echo "bench-remote: $*" >&2; exit 1; }
note() { echo "note: $*"; }

cleanup() {
	local status=$? m
	trap - EXIT
	trap '' INT TERM HUP
	cd /
	[ -z "${gluster_at:-}" ] || [ -z "$net_id" ] || gluster_stop
	for m in $(pgrep '^gluster'); do ! has_word "$m" "$work/" || kill -KILL "$m"; done
	[ -z "$work" ] || awk -v t="$work/" 'index($5, t) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r m; do unmount_dir "$m"; done
	end_servers
	end_daemons
	net_down
	[ -z "$work" ] || rm -rf --one-file-system "$work"
	[ -z "$tmpfs" ] || rm -rf --one-file-system "$tmpfs"
	exit "$status"
}
unmount_dir() {
	{ if [ "$(id -u)" = 0 ]; then umount -i "$1"; else fusermount3 -u "$1"; fi; } 2>/dev/null ||
		{ sleep 1; umount "$1" 2>/dev/null || umount -l "$1" 2>/dev/null || fusermount3 -uz "$1"; }
}
end_servers() {
	local p
	for p in "${pids[@]}"; do kill "$p" 2>/dev/null; done
	for p in "${pids[@]}"; do wait "$p" 2>/dev/null; done
	pids=()
}
has_word() { { tr '\0' '\n' <"/proc/$1/cmdline"; } 2>/dev/null | grep -qF -- "$2"; }
# Daemons whose command line has $1 in it.
daemons() {
	local pid
	for pid in $(pgrep -x msyncfs); do ! has_word "$pid" "$1" || echo "$pid"; done
}
end_daemons() {
	local pid i
	[ -n "$work" ] || return 0
	for ((i = 0; i < 100; i++)); do [ -n "$(daemons "$work/")" ] || return 0; sleep 0.1; done
	for pid in $(daemons "$work/"); do kill -KILL "$pid"; done
}
until_true() {  # TEXT: a minute or two at most
	local i
	for ((i = 0; i < 24000; i++)); do
		eval "$1" && return 0
		sleep 0.005
	done
	note "waited in vain for: $1"
	return 1
}

# ---------------------------------------------------------------------------------------------------------- mounts
net=loopback
port=$((21000 + $$ % 9000))
declare -A port_of
address() { if [ "$net" = namespaces ]; then echo "$(net_address "$1"):6796"; else echo "127.0.0.1:${port_of[$1]}"; fi; }
in_net() { if [ "$net" = namespaces ]; then net_in "$@"; else shift; "$@"; fi; }
# start NAME OPTION...
# CPUs of a machine's own, as those that are machines have them; none: all share all.
declare -A cpus_of
start() {
	local n=$1 pin=()
	shift
	[ -z "${cpus_of[$n]:-}" ] || pin=(taskset -c "${cpus_of[$n]}")
	[ -n "${port_of[$n]:-}" ] || port_of[$n]=$((port++))
	mkdir -p "$work/$n"
	in_net "$n" "${pin[@]}" "$msyncfs" mount "$@" "$work/$n.msync" "$work/$n" </dev/null >"$work/out" 2>&1 9>&- ||
		{ note "$n does not mount: $(tail -n 1 "$work/out")"; return 1; }
}
lead() { local n=$1; shift; [ -n "${port_of[$n]:-}" ] || port_of[$n]=$((port++)); start "$n" --listen="$(address "$n")" --key-file="$work/key" "$@"; }
follow() { local n=$1 to=$2; shift 2; start "$n" --from="$to" --key-file="$work/key" "$@"; }
stop() {
	unmount_dir "$work/$1"
	until_true "[ -z \"\$(daemons '$work/$1.msync')\" ]"
}
forget() { local n; for n; do stop "$n"; rm -f "$work/$n.msync"; done; }
value() { sed -n "s/^$2=//p" "$work/$1/.msyncfs/status" 2>/dev/null | tr -d "\"'"; }
caught_up() { [ "$(value "$1" link_state)" = stream ] && [ "$(value "$1" seq)" = "$(value "$2" seq)" ]; }

# --------------------------------------------------------------------------------------------------------- figures
aim() { # NAME FIGURE OPERATOR LIMIT UNIT
	awk -v name="$1" -v figure="$2" -v op="$3" -v limit="$4" -v unit="${5:-}" 'BEGIN {
		ok = op == "<=" ? figure + 0 <= limit + 0 : op == ">=" ? figure + 0 >= limit + 0 : figure + 0 > limit + 0
		printf "%-12s %-62s %s (aim: %s %s%s)\n", figure == "" ? "not measured" : ok ? "reached" : "MISSED",
			name, figure == "" ? "-" : figure unit, op, limit, unit
	}' >>"$work/aims"
}
median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)] }'; }
quotient() { awk -v a="$1" -v b="$2" -v d="${3:-2}" 'BEGIN { if (a != "" && b + 0 > 0) printf "%." d "f", a / b }'; }
# measure CASE COMMAND...: one round; all its figures are kept as CASE.NAME
measure() {
	local case=$1
	shift
	"$@" >"$work/figures" 2>"$work/err" || { note "$case: $(tail -n 1 "$work/err")"; return 1; }
	while IFS='=' read -r name figure; do echo "$figure" >>"$work/raw/$case.$name"; done <"$work/figures"
}
figure() { [ ! -e "$work/raw/$1.$2" ] || median <"$work/raw/$1.$2"; }     # CASE NAME
# How many times as long A takes as B: the median of the ratios of each round.
cost() { paste "$work/raw/$1.ops_per_s" "$work/raw/$2.ops_per_s" 2>/dev/null | awk '$1 > 0 && $2 > 0 { printf "%.3f\n", $2 / $1 }' | median; }
row() { printf '%-44s %10s %10s %10s\n' "$1" "$(figure "$2" ops_per_s)" "$(figure "$2" p50_us)" "$(figure "$2" p99_us)"; }
head_line() { printf '\n%-44s %10s %10s %10s\n' "$1" 'per s' 'p50 us' 'p99 us'; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# ----------------------------------------------------------------------------------------------------------- parts
reads_part() {
	local w round
	# Locks of the cluster cost each opening and closing a request; a local mount has none of them.
	start local && lead one && follow two "$(address one)" && follow three "$(address one)" -o locks=local || return
	until_true 'caught_up two one && caught_up three one'
	head_line "reads ($net)"
	for w in openread stat reread randread; do
		for ((round = 0; round < ROUNDS; round++)); do
			measure "local-$w" "$programs/fsbench" -d "$work/local" -t "$TIME" -s 32 "$w"
			measure "replica-$w" "$programs/fsbench" -d "$work/two" -t "$TIME" -s 32 "$w"
			measure "nolocks-$w" "$programs/fsbench" -d "$work/three" -t "$TIME" -s 32 "$w"
		done
		row "$w, local mount" "local-$w"
		row "$w, replica" "replica-$w"
		row "$w, replica, locks=local" "nolocks-$w"
		aim "$w on a replica: cost against a local mount" "$(cost "replica-$w" "local-$w")" '<=' 1.15 x
		aim "$w on a replica with locks=local: the same" "$(cost "nolocks-$w" "local-$w")" '<=' 1.15 x
	done
	forget two three one local
}

writes_part() {
	local w n round
	lead alone && lead one || return
	for n in "${replicas[@]}"; do follow "$n" "$(address one)" || return; done
	head_line "changes on the primary ($net)"
	for w in put create append; do
		for ((round = 0; round < ROUNDS; round++)); do
			for n in alone one; do
				case $w in
				put) measure "$net-$n-$w" "$programs/netbench" -t "$TIME" put "$work/$n";;
				*) measure "$net-$n-$w" "$programs/fsbench" -d "$work/$n" -t "$TIME" -n 20000 "$w";;
				esac
				# Replicas that are behind would be at work while the next is measured.
				[ $n = alone ] || for r in "${replicas[@]}"; do until_true "caught_up $r one"; done
			done
		done
		row "$w, no replica" "$net-alone-$w"
		row "$w, three replicas" "$net-one-$w"
		aim "$w with three replicas: cost against none ($net)" "$(cost "$net-one-$w" "$net-alone-$w")" '<=' 1.15 x
	done
	forget "${replicas[@]}" one alone
}

lag_part() {
	local most round
	lead one && follow two "$(address one)" || return
	measure "$net-most" "$programs/netbench" -t "$TIME" put "$work/one"
	most=$(figure "$net-most" ops_per_s)
	until_true 'caught_up two one'
	for ((round = 0; round < ROUNDS; round++)); do
		measure "$net-lag" "$programs/netbench" -t "$TIME" -r "$(quotient "$most" 2 0)" lag "$work/one/lag" "$work/two/lag"
	done
	printf '\n%s\n' "from a write's return on the primary to visible on a replica, at half of $most writes a second ($net): median $(figure "$net-lag" p50_us) us, 99 % $(figure "$net-lag" p99_us) us"
	aim "lag, median ($net)" "$(figure "$net-lag" p50_us)" '<=' 1000 ' us'
	aim "lag, 99 % ($net)" "$(figure "$net-lag" p99_us)" '<=' 10000 ' us'
	forget two one
}

# remote_case LABEL: puts on the primary, and on a replica by one and by 16
remote_case() {
	local round
	for ((round = 0; round < ROUNDS; round++)); do
		measure "$1-local" "$programs/netbench" -t "$TIME" put "$work/one"
		measure "$1-1" "$programs/netbench" -t "$TIME" put "$work/two"
		measure "$1-16" "$programs/netbench" -t "$TIME" -p 16 put "$work/two"
		value two link_round_trip_seconds | awk '$1 > 0 { print $1 * 1e6 }' >>"$work/raw/$1.round_trip"
	done
	row 'put on the primary' "$1-local"
	row 'put on a remote mount' "$1-1"
	row 'put on a remote mount, 16 writers' "$1-16"
	printf 'network round trip: %s us\n' "$(median <"$work/raw/$1.round_trip")"
	aim "16 writers on a remote mount, of one writer's rate ($1)" "$(cost "$1-1" "$1-16")" '>=' 5 x
}

remote_part() {
	lead one && follow two "$(address one)" || return
	head_line "changes on a remote mount ($net)"
	remote_case "$net"
	forget two one
}

# The same with a network that takes 2 ms each way: round trips are what counts.
far_part() {
	local more
	[ -x "$relay" ] || { note "no $relay; far left out"; return; }
	lead one || return
	mkfifo "$work/relay.in"
	"$relay" 0 "$(address one)" <"$work/relay.in" >"$work/relay.out" &
	pids+=($!)
	exec 9>"$work/relay.in"
	echo 'delay 2' >&9
	until_true "grep -q ^ok '$work/relay.out'"
	follow two "127.0.0.1:$(sed -n 's/^port //p' "$work/relay.out")" || return
	head_line 'changes on a remote mount, 2 ms each way'
	remote_case far
	more=$(awk -v a="$(figure far-1 p50_us)" -v b="$(figure far-local p50_us)" 'BEGIN { if (a != "" && b != "") printf "%.2f", (a - b) / 4000 }')
	aim 'a put on a remote mount: round trips more than a local one (far)' "$more" '<=' 1.25 ''
	forget two one
	exec 9>&-
	end_servers
	rm -f "$work/relay.in"
}

# The CPU time of a machine's daemon so far, ms.
cpu_ms() {
	local pid
	for pid in $(daemons "$work/$1.msync"); do cat "/proc/$pid/stat" 2>/dev/null; done |
		awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); ms += ($12 + $13) * 1000 / hz } END { printf "%.0f", ms }'
}
# catchup_case LABEL LEAST: two, which is away, mounts and gets MIB
catchup_case() {
	local t took rate before
	before=$(cpu_ms one)
	t=$(now_ms)
	follow two "$(address one)" || return
	until_true 'caught_up two one'
	took=$(($(now_ms) - t))
	rate=$(quotient $((MIB * 1000)) "$took" 1)
	printf '  %s: %s ms, %s MiB/s; CPU time for each MiB: primary %s ms, replica %s ms\n' "$1" "$took" "$rate" \
		"$(quotient $(($(cpu_ms one) - before)) "$MIB")" "$(quotient "$(cpu_ms two)" "$MIB")"
	aim "catch-up, $1: of the slower of disk and link" "$(quotient "$rate" "$2")" '>=' 0.5 x
}
catchup_part() {
	local t disk link least cpus='all CPUs for both' half=$(($(nproc) / 2))
	if [ "${SHARE_CPUS:-0}" = 0 ] && [ "$half" -ge 1 ] && command -v taskset >/dev/null; then
		cpus='half of the CPUs for each machine'
		cpus_of=([one]=0-$((half - 1)) [two]=$half-$((2 * half - 1)))
	fi
	lead one -o journal-keep=1G && follow two "$(address one)" || return
	until_true 'caught_up two one'
	t=$(now_ms)
	dd if=/dev/zero of="$work/disk" bs=1M count="$MIB" conv=fdatasync 2>/dev/null
	disk=$(quotient $((MIB * 1000)) $(($(now_ms) - t)) 1)
	rm -f "$work/disk"
	link=$("$programs/netbench" -t "$TIME" stream | sed -n 's/^mib_per_s=//p')
	least=$(awk -v a="$disk" -v b="$link" 'BEGIN { print a + 0 < b + 0 ? a : b }')
	printf '\n%s\n' "catch-up ($MIB MiB, $cpus): the disk takes $disk MiB/s, TCP on loopback $link MiB/s"
	stop two
	# By stdio: each block a change of its own, which rides in the journal. Then as cp and tar write.
	head -c "${MIB}M" /dev/urandom >"$work/one/big"
	catchup_case 'from the journal, written by 4 KiB' "$least"
	stop two
	dd if="$work/one/big" of="$work/one/big2" bs=1M 2>/dev/null && rm "$work/one/big"
	catchup_case 'from the journal, written by 1 MiB' "$least"
	forget two
	# What is measured is the copy, not when the primary's own disk has what was written just now. The file that was removed goes only when
	# no machine can have it open any more.
	until_true "[ \"\$(df -m --output=used '$work/one' | tail -n 1)\" -lt $((MIB * 3 / 2)) ]"
	"$msyncfs" sync "$work/one" && echo 1 >"$work/one/.msyncfs/checkpoint"
	catchup_case 'first sync' "$least"
	forget two one
	cpus_of=()
}

diff_part() {
	local all some t
	[ -x "$programs/engine" ] || { note "no $programs/engine; diff left out"; return; }
	"$programs/engine" scale -d "$work" -n "$KEYS" -t 0.2 -k >"$work/out" 2>&1 || { note "engine scale: $(tail -n 1 "$work/out")"; return; }
	mv "$work/scale.msync" "$work/one.msync"
	lead one -o journal-keep=64K || return
	t=$(now_ms)
	follow two "$(address one)" || return
	until_true 'caught_up two one'
	all=$(value two link_bytes_received)
	printf '\n%s\n' "diff of $KEYS keys: first sync $all bytes in $(($(now_ms) - t)) ms"
	stop two
	# 1 % of the keys, all over; more than the journal keeps.
	find "$work/one" -type f | awk 'NR % 100 == 1' | while read -r f; do printf '%s' "$RANDOM.$RANDOM.$RANDOM" | dd of="$f" conv=notrunc 2>/dev/null; done
	t=$(now_ms)
	follow two "$(address one)" || return
	until_true 'caught_up two one'
	some=$(value two link_bytes_received)
	printf '  with 1 %% changed: %s bytes in %s ms\n' "$some" "$(($(now_ms) - t))"
	aim "diff of 1 % of $KEYS keys: bytes, of all" "$(awk -v a="$some" -v b="$all" 'BEGIN { if (a != "" && b > 0) printf "%.2f", 100 * a / b }')" '<=' 3 ' %'
	forget two one
}

# ----------------------------------------------------------------------------------------------------------- peers
# Each with its data on the same disk. "in memory": acknowledged when two have it; "on disk": when it is on the disks of two.
peer_row() { # LABEL CASE; raw figures of CASE-1 and CASE-16
	printf '%-44s %10s %10s %12s %10s\n' "$1" "$(figure "$2-1" p50_us)" "$(figure "$2-1" ops_per_s)" "$(figure "$2-16" p50_us)" "$(figure "$2-16" ops_per_s)"
}
peer_aim() { # LABEL OURS THEIRS
	local n
	for n in 1 16; do aim "$1, $n client$([ $n = 1 ] || echo s): our rate" "$(cost "$3-$n" "$2-$n")" '>' 1 x; done
}

peers_part() {
	local round n durable='' has_redis=0 has_etcd=0 has_gluster=0
	lead one && follow two "$(address one)" || return
	# Durable on two at each fsync, where the mount can do it; else on the primary alone.
	if lead dur -o fsync=replicas=1 2>/dev/null >"$work/out"; then durable=two; else lead dur || return; durable=one; fi
	follow dur2 "$(address dur)" || return
	for n in $PEERS; do
		"${n}_start" && eval "has_$n=1"
	done
	for ((round = 0; round < ROUNDS; round++)); do
		for n in 1 16; do
			# A replica's own put is in the memory of both when it returns.
			measure "ours-$n" "$programs/netbench" -t "$TIME" -p $n put "$work/two"
			measure "ours-disk-$n" "$programs/netbench" -t "$TIME" -p $n fsput "$work/dur"
			[ $has_redis = 0 ] || {
				measure "redis-$n" "$programs/netbench" -t "$TIME" -p $n redis "$redis_port" 1
				measure "redis-disk-$n" "$programs/netbench" -t "$TIME" -p $n redis "$redis_aof_port" 1
			}
			[ $has_etcd = 0 ] || measure "etcd-$n" "$programs/netbench" -t "$TIME" -p $n etcd "$etcd_port"
			[ $has_gluster = 0 ] || {
				measure "gluster-$n" "$programs/netbench" -t "$TIME" -p $n -f 8 put "$work/gluster"
				measure "gluster-disk-$n" "$programs/netbench" -t "$TIME" -p $n -f 8 fsput "$work/gluster"
			}
		done
	done
	printf '\n%-44s %10s %10s %12s %10s\n' '100 bytes over a key' '1: p50 us' 'per s' '16: p50 us' 'per s'
	peer_row 'msyncfs, put on a replica (memory of two)' ours
	[ $has_redis = 0 ] || peer_row 'redis, SET and WAIT 1 (memory of two)' redis
	[ $has_gluster = 0 ] || peer_row 'glusterfs, replica 2' gluster
	peer_row "msyncfs, put and fsync (disk of $durable)" ours-disk
	[ $has_redis = 0 ] || peer_row 'redis, AOF always, SET and WAIT 1' redis-disk
	[ $has_etcd = 0 ] || peer_row 'etcd, three members, put (HTTP gateway)' etcd
	[ $has_gluster = 0 ] || peer_row 'glusterfs, replica 2, put and fsync' gluster-disk
	[ $has_redis = 0 ] || { peer_aim 'in memory on two, against redis' ours redis; peer_aim 'on disk, against redis' ours-disk redis-disk; }
	[ $has_etcd = 0 ] || peer_aim 'on disk, against etcd' ours-disk etcd
	[ $has_gluster = 0 ] || { peer_aim 'in memory on two, against glusterfs' ours gluster; peer_aim 'on disk, against glusterfs' ours-disk gluster-disk; }
	[ $durable = two ] || note 'fsync=replicas=N is not offered by this mount: ours on disk is on one disk, theirs on two'
	[ $has_gluster = 0 ] || gluster_stop    # before its network goes
	end_servers
	forget two one dur2 dur
}

redis_start() {
	local p q
	command -v redis-server >/dev/null || { note 'redis-server is not installed; left out'; return 1; }
	redis_port=$((port++)) redis_aof_port=$((port++))
	for p in "$redis_port no" "$redis_aof_port yes"; do
		read -r p aof <<<"$p"
		q=$((port++))
		mkdir "$work/redis.$p" "$work/redis.$q"
		# What is acknowledged by a replica with AOF is written, and synced as on the primary.
		redis-server --port "$p" --bind 127.0.0.1 --dir "$work/redis.$p" --save '' --appendonly "$aof" --appendfsync always \
			--repl-diskless-sync yes --repl-diskless-sync-delay 0 --logfile "$work/redis.$p/log" &
		pids+=($!)
		redis-server --port "$q" --bind 127.0.0.1 --dir "$work/redis.$q" --save '' --appendonly "$aof" --appendfsync always \
			--replicaof "127.0.0.1 $p" --logfile "$work/redis.$q/log" &
		pids+=($!)
		until_true "redis-cli -p $p info replication 2>/dev/null | grep -q state=online" || return 1
	done
}

# http PORT PATH
http() { (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET %s HTTP/1.0\r\n\r\n' "$2" >&3 && cat <&3) 2>/dev/null; }

etcd_start() {
	local i cluster='' peer=() client=()
	command -v etcd >/dev/null || { note 'etcd is not installed; left out'; return 1; }
	for i in 0 1 2; do peer[i]=$((port++)) client[i]=$((port++)); cluster+=${cluster:+,}m$i=http://127.0.0.1:${peer[i]}; done
	for i in 0 1 2; do
		etcd --name "m$i" --data-dir "$work/etcd.$i" --listen-peer-urls "http://127.0.0.1:${peer[i]}" \
			--initial-advertise-peer-urls "http://127.0.0.1:${peer[i]}" --listen-client-urls "http://127.0.0.1:${client[i]}" \
			--advertise-client-urls "http://127.0.0.1:${client[i]}" --initial-cluster "$cluster" --log-level error >"$work/etcd.log.$i" 2>&1 &
		pids+=($!)
	done
	# The leader is the fair one to ask: the others pass what they get on to it.
	for i in 0 1 2; do until_true "http ${client[i]} /health | grep -aq true" || return 1; done
	etcd_port=${client[0]}
	for i in 0 1 2; do ! http "${client[i]}" /metrics | grep -a '^etcd_server_is_leader 1' >/dev/null || etcd_port=${client[i]}; done
}

gluster_start() {
	local d=$work/glusterd
	command -v glusterd >/dev/null || { note 'glusterfs-server is not installed; left out'; return 1; }
	[ "$(id -u)" = 0 ] || { note 'glusterd needs root; left out'; return 1; }
	if pgrep -x glusterd >/dev/null; then note 'a glusterd runs here already; left out'; return 1; fi
	# It takes no address of loopback for its bricks: it gets a machine.
	if [ "$net" != loopback ] || ! net_up gluster 2>/dev/null; then
		note 'no network namespaces here; glusterfs left out'
		net_down
		return 1
	fi
	gluster_at=$(net_address gluster)
	mkdir "$d" "$work/brick1" "$work/brick2" "$work/gluster"
	printf 'volume management\n    type mgmt/glusterd\n    option working-directory %s\n    option transport-type socket\n    option run-directory %s\n    option transport.address-family inet\nend-volume\n' \
		"$d" "$d" >"$d/glusterd.vol"
	nsenter --net="/run/netns/$(net_ns gluster)" glusterd -N -f "$d/glusterd.vol" -l "$d/log" -p "$d/pid" &
	pids+=($!)
	until_true 'gluster_do volume list >/dev/null 2>&1' || return 1
	if gluster_do volume create bench replica 2 "$gluster_at:$work/brick1" "$gluster_at:$work/brick2" force >"$work/out" 2>&1 &&
		gluster_do volume start bench >"$work/out" 2>&1 &&
		net_in gluster mount -t glusterfs "$gluster_at:/bench" "$work/gluster" >"$work/out" 2>&1; then
		return 0
	fi
	note "glusterfs: $(tail -n 1 "$work/out"); left out"
	gluster_stop
	return 1
}
gluster_do() { net_in gluster gluster --mode=script "$@"; }
gluster_stop() {
	! mountpoint -q "$work/gluster" || unmount_dir "$work/gluster"
	gluster_do volume stop bench force >/dev/null 2>&1
	gluster_do volume delete bench >/dev/null 2>&1
	end_servers
	net_down
}

# -------------------------------------------------------------------------------------------------------------- main
{ [ -x "$programs/fsbench" ] && [ -x "$programs/netbench" ] && [ -x "$msyncfs" ]; } || die "no programs in $programs: run make bench-remote"
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
work=$(mktemp -d "$BENCH_DIR/msyncfs-bench.XXXXXX") || exit 1
mkdir "$work/raw"
: >"$work/aims"
"$msyncfs" keygen "$work/key" >/dev/null || exit 1
if [ -z "${NETS:-}" ]; then
	NETS=loopback
	[ "$(id -u)" = 0 ] && command -v ip nsenter >/dev/null && NETS='loopback namespaces'
fi
printf '%s, kernel %s, %s CPUs (%s), load %s, %s rounds of %s s\n' "$(date +%Y-%m-%d)" "$(uname -r)" "$(nproc)" \
	"$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(cut -d ' ' -f 1-3 /proc/loadavg)" "$ROUNDS" "$TIME"
for net in $NETS; do
	if [ "$net" = namespaces ] && ! net_up alone one "${replicas[@]}" 2>/dev/null; then
		net_down
		note 'no network namespaces here; left out'
		continue
	fi
	for part in $PARTS; do
		case $net,$part in
		*,writes|*,lag|*,remote) "${part}_part";;
		loopback,reads|loopback,far|loopback,catchup|loopback,diff|loopback,peers) "${part}_part";;
		namespaces,*) ;;
		*) die "no such part: $part";;
		esac
	done
done
printf '\naims\n'
cat "$work/aims"
