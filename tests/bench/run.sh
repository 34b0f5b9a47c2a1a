#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The bench: every workload on every peer, several times, A B C A B C ..., medians; then the engine without FUSE,
# a large store, and growth. Each aim is marked as reached or missed. Leaves nothing behind.
#
#   BUILD=build/release  what to measure       QUICK=1    a short run: figures to look at, not to quote
#   PARTS='fs put scale grow'                  PEERS='ext4 tmpfs bindfs limit msyncfs'
#   ROUNDS=7 TIME=0.5    per workload and peer; BUSY_TIME=1 with all cores busy
#   SIZE=256             MiB of the big file   PROCS=N    for "N procs"
#   QUIET_1= QUIET_N= BUSY_1=                  workloads of the part fs: one process, N, all cores busy
#   SCALE=1000000        keys                  GROW=10G   bytes
#   BENCH_DIR=/var/tmp   on a local disk       BENCH_TMPFS=/dev/shm
#   MSYNCFS_ARGS=  LIMIT_ARGS=                 options for the mounts
set -u
export LC_ALL=C

here=$(dirname "$0")
BUILD=${BUILD:-build/release}
PARTS=${PARTS:-fs put scale grow}
PEERS=${PEERS:-ext4 tmpfs bindfs limit msyncfs}
BENCH_DIR=${BENCH_DIR:-/var/tmp}
BENCH_TMPFS=${BENCH_TMPFS:-/dev/shm}
cpus=$(nproc)
PROCS=${PROCS:-$cpus}
[ "$PROCS" -gt 1 ] || PROCS=2
if [ "${QUICK:-0}" = 1 ]; then
	ROUNDS=${ROUNDS:-3} TIME=${TIME:-0.06} SIZE=${SIZE:-32} SCALE=${SCALE:-100000} GROW=${GROW:-1G}
	BUSY_TIME=${BUSY_TIME:-0.15} ops_max=1000
	put_rounds=1 put_time=0.3 kill_time=3
else
	ROUNDS=${ROUNDS:-7} TIME=${TIME:-0.5} SIZE=${SIZE:-256} SCALE=${SCALE:-1000000} GROW=${GROW:-10G}
	BUSY_TIME=${BUSY_TIME:-1} ops_max=20000
	put_rounds=3 put_time=1 kill_time=30
fi

SMALL='create overwrite openread stat unlink rename replace mkdir append'
QUIET_1=${QUIET_1-"$SMALL durable seqwrite seqread reread randread randwrite"}
QUIET_N=${QUIET_N-'create overwrite openread append'}
BUSY_1=${BUSY_1-"$SMALL seqwrite"}

programs=$BUILD/tests/bench
msyncfs=$BUILD/msyncfs
work='' tmpfs='' mounts='' pids=''

# --------------------------------------------------------------------------------------------------- start and end
die()
{
	echo "bench: $*" >&2
	exit 1
}

unmount()
{
	mountpoint -q "$1" || return 0
	umount "$1" 2>/dev/null || fusermount3 -u "$1" 2>/dev/null ||
		{ sleep 1; umount "$1" 2>/dev/null || umount -l "$1" || fusermount3 -uz "$1"; }
}

cleanup()
{
	trap '' INT TERM HUP
	cd /
	for m in $mounts; do
		unmount "$m"
	done
	for p in $pids; do
		kill "$p" 2>/dev/null
		wait "$p" 2>/dev/null
	done
	[ -z "$work" ] || rm -rf --one-file-system "$work"
	[ -z "$tmpfs" ] || rm -rf --one-file-system "$tmpfs"
}

# wait_mount DIR PID: until a server in the background has mounted
wait_mount()
{
	tries=100
	while ! mountpoint -q "$1"; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] && kill -0 "$2" 2>/dev/null || return 1
		sleep 0.05
	done
}

drop_peer()
{
	echo "note: $1: $2; left out"
	PEERS=$(echo " $PEERS " | sed "s/ $1 / /")
}

start_peer()
{
	d=$work/$1
	case $1 in
	ext4)
		mkdir "$d"
		fstype=$(stat -f -c %T "$d")
		case $fstype in
		ext*) ;;
		*) echo "note: $BENCH_DIR is on $fstype, which stands in the columns called ext4" ;;
		esac ;;
	tmpfs)
		if [ "$(stat -f -c %T "$BENCH_TMPFS" 2>/dev/null)" = tmpfs ] && [ -w "$BENCH_TMPFS" ]; then
			tmpfs=$(mktemp -d "$BENCH_TMPFS/msyncfs-bench.XXXXXX")
			ln -s "$tmpfs" "$d"
		else
			drop_peer tmpfs "no tmpfs at $BENCH_TMPFS"
		fi ;;
	bindfs)
		command -v bindfs >/dev/null || { drop_peer bindfs 'not installed'; return; }
		mkdir "$d" "$d.src"
		mounts="$mounts $d"
		bindfs -f "$d.src" "$d" &
		pids="$pids $!"
		wait_mount "$d" $! || drop_peer bindfs 'does not mount' ;;
	limit)
		mkdir "$d"
		mounts="$mounts $d"
		# shellcheck disable=SC2086
		"$programs/limit" ${LIMIT_ARGS:-} "$d" &
		pids="$pids $!"
		wait_mount "$d" $! || drop_peer limit 'does not mount' ;;
	msyncfs)
		[ -x "$msyncfs" ] || { drop_peer msyncfs "no $msyncfs"; return; }
		mount_store "$work/store.msync" "$d" || drop_peer msyncfs 'does not mount' ;;
	*)
		die "no such peer: $1" ;;
	esac
}

# mount_store STORE DIR
mount_store()
{
	[ -d "$2" ] || mkdir "$2"
	case " $mounts " in
	*" $2 "*) ;;
	*) mounts="$mounts $2" ;;
	esac
	# shellcheck disable=SC2086
	"$msyncfs" mount ${MSYNCFS_ARGS:-} "$1" "$2"
}

# status_of DIR NAME: a figure of the daemon mounted there
status_of()
{
	sed -n "s/^$2=//p" "$1/.msyncfs/status" 2>/dev/null | tr -d "\"'"
}

# --------------------------------------------------------------------------------------------------------- figures
# aim NAME FIGURE OPERATOR LIMIT UNIT: one line for the end; an empty figure was not measured
aim()
{
	awk -v name="$1" -v figure="$2" -v op="$3" -v limit="$4" -v unit="${5:-}" 'BEGIN {
		ok = op == "<=" ? figure + 0 <= limit + 0 : op == ">=" ? figure + 0 >= limit + 0 : figure + 0 > limit + 0
		printf "%-12s %-44s %s (aim: %s %s%s)\n", figure == "" ? "not measured" : ok ? "reached" : "MISSED",
			name, figure == "" ? "-" : figure unit, op, limit, unit
	}' >>"$work/aims"
}

# value FILE NAME: median of a figure over the rounds in FILE
value()
{
	sed -n "s/^$2=//p" "$1" 2>/dev/null | sort -g | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)] }'
}

# quotient A B DIGITS: empty if one is missing
quotient()
{
	awk -v a="$1" -v b="$2" -v d="${3:-2}" 'BEGIN { if (a != "" && b + 0 > 0) printf "%." d "f", a / b }'
}

now_ms()
{
	echo $(($(date +%s%N) / 1000000))
}

# ------------------------------------------------------------------------------------------------------ file systems
# shellcheck disable=SC2016 # awk's own
# One line of the table from the raw results of a case: medians; ratios are medians of those of each round.
AWK_ROW='
function median(v, n,   i, j, x) {
	for (i = 2; i <= n; i++) {
		x = v[i]
		for (j = i - 1; j >= 1 && v[j] > x; j--)
			v[j + 1] = v[j]
		v[j + 1] = x
	}
	return v[int((n + 1) / 2)]
}
function column(peer, f,   n, r, v) {
	for (r = 1; r <= rounds; r++)
		if ((peer, r, f) in got)
			v[++n] = got[peer, r, f]
	return n ? median(v, n) : ""
}
function ratio(peer,   n, r, v) {
	for (r = 1; r <= rounds; r++)
		if ((peer, r, 3) in got && got["msyncfs", r, 3] > 0)
			v[++n] = got[peer, r, 3] / got["msyncfs", r, 3]
	return n ? sprintf("%.2f", median(v, n)) : ""
}
function show(x) { return x == "" ? "-" : x }
{ for (f = 3; f <= NF; f++) got[$1, $2, f] = $f; if ($2 > rounds) rounds = $2 }
END {
	printf "%-20s", label
	n = split("ext4 tmpfs bindfs limit msyncfs", peer, " ")
	for (i = 1; i <= n; i++)
		printf " %9s", show(column(peer[i], 3))
	printf "  %8s %8s  %7s %7s", show(column("msyncfs", 4)), show(column("msyncfs", 5)), show(ratio("limit")), show(ratio("ext4"))
	printf "\n"
	print ratio("limit") >ratio_file
}'

# fs_case LABEL WORKLOAD PROCS BUSY AIM: AIM is the most it may cost, as a multiple of limit; empty = none
fs_case()
{
	: >"$work/raw"
	sync -f "$work"
	case_time=$TIME
	[ "$4" = 0 ] || case_time=$BUSY_TIME
	case $2 in
	create | unlink | durable) ops=$ops_max ;;      # each leaves or needs a file
	*) ops=1000000 ;;
	esac
	round=1
	while [ $round -le "$ROUNDS" ]; do
		for peer in $PEERS; do
			"$programs/fsbench" -d "$work/$peer" -p "$3" -b "$4" -t "$case_time" -s "$SIZE" \
				-n "$ops" -k "$2" \
				>"$work/one" || { echo "note: $2 failed on $peer"; continue; }
			awk -F = -v peer="$peer" -v round=$round '{ v[$1] = $2 } END {
				printf "%s %d %d %s %s\n", peer, round, v["ops_per_s"], v["p50_us"], v["p99_us"]
			}' "$work/one" >>"$work/raw"
		done
		round=$((round + 1))
	done
	awk -v label="$1" -v ratio_file="$work/ratio" "$AWK_ROW" "$work/raw"
	[ -z "$5" ] || aim "$1: cost against limit" "$(cat "$work/ratio")" '<=' "$5" x
}

fs_part()
{
	for peer in $PEERS; do
		start_peer "$peer"
	done
	for peer in $PEERS; do
		"$programs/fsbench" -d "$work/$peer" -n 200 overwrite >/dev/null || drop_peer "$peer" 'does not work'
	done
	printf '\n%-20s %9s %9s %9s %9s %9s  %8s %8s  %7s %7s\n' 'operations/s' ext4 tmpfs bindfs limit msyncfs \
		'p50 us' 'p99 us' 'x limit' 'x ext4'
	for w in $QUIET_1; do
		case " $SMALL seqwrite " in
		*" $w "*) fs_case "$w" "$w" 1 0 1.5 ;;
		*) fs_case "$w" "$w" 1 0 '' ;;
		esac
	done
	for w in $QUIET_N; do
		fs_case "$w, $PROCS procs" "$w" "$PROCS" 0 1.5
	done
	fs_case 'durable, 16 procs' durable 16 0 ''
	for w in $BUSY_1; do
		fs_case "$w, busy" "$w" 1 "$cpus" 1.5
	done
	case " $PEERS " in
	*' msyncfs '*) memory_aim "$work/msyncfs" ;;
	esac
	for peer in $PEERS; do
		case $peer in
		bindfs | limit | msyncfs) unmount "$work/$peer" ;;
		esac
	done
	rm -rf --one-file-system "$work/ext4" "$work/bindfs.src" "$work/store.msync" "${tmpfs:-$work/ext4}/p0"
}

memory_aim()
{
	pid=$(status_of "$1" pid)
	mib=''
	if [ -n "$pid" ] && [ -r "/proc/$pid/smaps_rollup" ]; then
		mib=$(awk '/^Anonymous:/ { printf "%.1f", $2 / 1024 }' "/proc/$pid/smaps_rollup")
	fi
	aim "the daemon's own memory after all this" "$mib" '<=' 64 ' MiB'
}

# ------------------------------------------------------------------------------------------------------------ engine
put_part()
{
	: >"$work/put"
	mkdir "$work/engine"
	i=0
	while [ $i -lt $put_rounds ]; do
		"$programs/engine" put -d "$work/engine" -t $put_time >>"$work/put" || echo 'note: engine put failed'
		i=$((i + 1))
	done
	printf '\n%-20s %12s %12s %12s %12s %12s\n' 'engine, 100 bytes/s' put_new overwrite get 'durable new' 'overwrite'
	for p in msyncfs handover direct lmdb sqlite; do
		printf '%-20s' "$p"
		for v in nosync_put_new nosync_overwrite nosync_get durable_put_new durable_overwrite; do
			x=$(value "$work/put" "${p}_${v}_per_s")
			printf ' %12s' "${x:--}"
		done
		printf '\n'
	done
	for v in put_new overwrite; do
		m=$(value "$work/put" "msyncfs_nosync_${v}_per_s")
		aim "engine $v without sync, of LMDB's rate" "$(quotient "$m" "$(value "$work/put" lmdb_nosync_${v}_per_s)")" '>=' 0.5 x
		m=$(value "$work/put" "msyncfs_durable_${v}_per_s")
		for p in lmdb sqlite; do
			aim "engine $v durable, of $p's rate" "$(quotient "$m" "$(value "$work/put" ${p}_durable_${v}_per_s)")" '>' 1 x
		done
	done
}

scale_part()
{
	mkdir "$work/scale"
	"$programs/engine" scale -d "$work/scale" -n "$SCALE" -t $kill_time -k >"$work/scale.out" ||
		echo 'note: engine scale failed'
	printf '\n%s\n' "engine with $SCALE keys"
	sed 's/^/  /' "$work/scale.out"
	for v in put_new overwrite get; do
		aim "$v at $SCALE keys, cost against 10000" "$(value "$work/scale.out" "scale_${v}_ratio")" '<=' 1.5 x
	done
	aim 'store for a key of 100 bytes' "$(value "$work/scale.out" scale_bytes_per_key)" '<=' 300 ' bytes'
	aim 'open after a clean close' "$(value "$work/scale.out" scale_open_clean_ms)" '<=' 50 ' ms'
	aim 'open after a kill, journal full' "$(value "$work/scale.out" scale_open_killed_ms)" '<=' 2000 ' ms'
	x=$(value "$work/scale.out" scale_full_anonymous_kib)
	aim "engine's own memory with $SCALE keys" "$(quotient "$x" 1024 1)" '<=' 64 ' MiB'
	mount_times
	mounted_scale
	rm -rf "$work/scale"
}

# The same with the daemon: mount after a clean unmount, and after kill -9 of it at work.
mount_times()
{
	clean='' killed=''
	if [ -x "$msyncfs" ] && [ -f "$work/scale/scale.msync" ]; then
		t=$(now_ms)
		mount_store "$work/scale/scale.msync" "$work/large" && clean=$(($(now_ms) - t))
		pid=$(status_of "$work/large" pid)
		if [ -n "$pid" ]; then
			"$programs/fsbench" -d "$work/large" -t 2 create >/dev/null
			kill -9 "$pid"
			sleep 0.2
			umount -l "$work/large" 2>/dev/null || fusermount3 -uz "$work/large"
			t=$(now_ms)
			mount_store "$work/scale/scale.msync" "$work/large" && killed=$(($(now_ms) - t))
		fi
		unmount "$work/large"
	fi
	aim "mount with $SCALE keys after a clean unmount" "$clean" '<=' 50 ' ms'
	aim "mount with $SCALE keys after kill -9" "$killed" '<=' 2000 ' ms'
}

# What an operation on any key costs through the mount: a store with SCALE keys and one with 10 thousand take turns. Both are
# mounted anew for each run, so the kernel knows none of the keys.
mounted_scale()
{
	if ! [ -x "$msyncfs" ] || ! [ -f "$work/scale/scale.msync" ]; then return; fi
	mount_store "$work/scale/small.msync" "$work/small" || return
	"$programs/fsbench" -d "$work/small" -K 10000 -t 600 fill >/dev/null || return
	unmount "$work/small"
	printf '\n%-20s %9s %9s  %7s\n' 'any key, operations/s' 10000 "$SCALE" 'x 10000'
	for w in anystat anyread anywrite anycreate anyunlink anyrename; do
		: >"$work/raw"
		round=1
		while [ $round -le "$ROUNDS" ]; do
			any_key "$work/scale/small.msync" "$work/small" 10000 && any_key "$work/scale/scale.msync" "$work/large" "$SCALE"
			round=$((round + 1))
		done
		awk -v label="$w" -v ratio_file="$work/ratio" '
			function median(v, n,   i, j, x) {
				for (i = 2; i <= n; i++) {
					x = v[i]
					for (j = i - 1; j >= 1 && v[j] > x; j--)
						v[j + 1] = v[j]
					v[j + 1] = x
				}
				return v[int((n + 1) / 2)]
			}
			{ if (NR % 2) small[++n] = $1; else { large[n] = $1; ratio[n] = small[n] / $1 } }
			END {
				x = sprintf("%.2f", median(ratio, n))
				printf "%-20s %9d %9d  %7s\n", label, median(small, n), median(large, n), x
				print x >ratio_file
			}' "$work/raw"
		aim "$w at $SCALE keys, mounted: cost against 10000" "$(cat "$work/ratio")" '<=' 1.5 x
	done
}

# any_key STORE DIR KEYS
any_key()
{
	mount_store "$1" "$2" || return 1
	"$programs/fsbench" -d "$2" -K "$3" -S "$round$round" -n 2500 -t 60 "$w" | sed -n 's/^ops_per_s=//p' >>"$work/raw"
	unmount "$2"
}

grow_part()
{
	printf '\n%s\n' "growth from empty to $GROW by 1 MiB appends"
	BUILD=$BUILD BENCH_DIR=$work MSYNCFS_ARGS=${MSYNCFS_ARGS:-} "$here/grow.sh" "$GROW" >"$work/grow.out" ||
		echo 'note: grow.sh failed'
	sed 's/^/  /' "$work/grow.out"
}

# -------------------------------------------------------------------------------------------------------------- main
if ! { [ -x "$programs/fsbench" ] && [ -x "$programs/limit" ]; }; then die "no programs in $programs: run make bench"; fi
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
work=$(mktemp -d "$BENCH_DIR/msyncfs-bench.XXXXXX") || exit 1
: >"$work/aims"
printf '%s, kernel %s, %s CPUs (%s), %s, %s rounds of %s s\n' "$(date +%Y-%m-%d)" "$(uname -r)" "$cpus" \
	"$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "load $(cut -d ' ' -f 1-3 /proc/loadavg)" "$ROUNDS" "$TIME"
for part in $PARTS; do
	case $part in
	fs) fs_part ;;
	put | scale)
		if [ -x "$programs/engine" ]; then "${part}_part"; else echo "note: no $programs/engine; $part left out"; fi ;;
	grow)
		if [ -x "$msyncfs" ]; then grow_part; else echo "note: no $msyncfs; grow left out"; fi ;;
	*) die "no such part: $part" ;;
	esac
done
printf '\naims\n'
cat "$work/aims"
