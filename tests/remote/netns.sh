#!/bin/bash
# SPDX-License-Identifier: MIT
# P6 with real processes, mounts and links: a primary and three remote mounts, each in a network namespace, under load from all
# of them, while links are cut, cut in one direction only, slow, and broken; while daemons are killed, stopped and continued, and
# replaced one after another; while the primary moves. Every acknowledged line is there, in order, on all mounts; a program
# sees no error but on a machine whose own daemon died; in the end all trees and all dumps are equal.
#   ROUNDS=n (2)      times that all kinds of trouble come, in random order       SEED=... replays the order
#   KINDS='cut half'  only these                                                  NEXT=FILE: the program that comes after the upgrade
# shellcheck source=../mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh" || exit 1
# shellcheck source=net.sh
. "$ROOT/tests/remote/net.sh" || exit 1
need_root
need ip nsenter getfattr
net_cleanup() {
	local status=$? n
	# shellcheck disable=SC2046 # a list of numbers
	for n in "${names[@]}"; do kill -CONT $(daemon_pids "$T/$n.msync") 2>/dev/null; done
	# By force: see kill_one().
	[ "$status" = 0 ] || for n in "${names[@]}"; do umount -i -f "$T/$n" 2>/dev/null; done
	net_down
	(exit "$status")
	cleanup
}
names=(one two three four)
trap net_cleanup EXIT
diag "SEED=$SEED"
RANDOM=$((SEED % 32768))

primary=one
near='four'                                     # through the relay
port=6796
ROUNDS=${ROUNDS:-2}
KINDS=${KINDS:-cut cut-primary half-up half-down lose-up lose-down reset slow kill-replica kill-primary stop-replica stop-primary upgrade move}
WRITERS=${WRITERS:-2}
declare -A disturbed program troubled

net_up "${names[@]}" || skip_all 'no network namespaces here'
"$MSYNCFS" keygen "$T/key" >/dev/null
mkdir "$T/next" "$T/logs"
cp "${NEXT:-$MSYNCFS}" "$T/next/${MSYNCFS##*/}"
for n in "${names[@]}"; do
	mkdir "$T/$n"
	# What is found where the mount is away (netload.c).
	for ((round = 1; round <= ROUNDS; round++)); do : >"$T/$n/r.$round"; done
	program[$n]=$MSYNCFS
done

# ------------------------------------------------------------------------------------------------------------ machines
# The address at which NAME finds MACHINE: `near` goes through the relay, as long as the primary is where that leads.
way() {
	if [ "$1" = "$near" ] && [ "$2" = one ]; then echo "$(net_address hub):$port"; else echo "$(net_address "$2"):$port"; fi
}
start() {
	local n=$1 role=()
	[ "$n" = "$primary" ] || role=(--from="$(way "$n" "$primary")" -o on-disconnect=wait:120)
	# 8 is the relay's: it must end with the test, not with the daemons.
	net_in "$n" timeout 60 "${program[$n]}" mount --listen="$(net_address "$n"):$port" --key-file="$T/key" "${role[@]}" \
		"$T/$n.msync" "$T/$n" </dev/null >"$T/mount.$n" 2>&1 8>&- || { fail "$n mounts"; diag "$(cat "$T/mount.$n")"; }
}
broken() { ! streams "$1"; }
replicas() { local n; for n in "${names[@]}"; do [ "$n" = "$primary" ] || echo "$n"; done; }
all_stream() { local n; for n in $(replicas); do streams "$n" || return 1; done; }
caught_up() { local n; for n in $(replicas); do [ "$(value "$n" seq)" = "$(value "$primary" seq)" ] || return 1; done; all_stream; }
some_replica() {
	local all
	mapfile -t all < <(replicas)
	echo "${all[RANDOM % ${#all[@]}]}"
}

relay_lines=0
relay() {
	echo "$*" >&8
	relay_lines=$((relay_lines + 1))
	wait_for "[ \"\$(grep -c '^ok' '$T/relay.out')\" -ge $relay_lines ]" || fail "the relay obeys: $*"
}
start_relay() {
	mkfifo "$T/relay.in"
	: >"$T/relay.out"
	net_in hub relay "0.0.0.0:$port" "$(net_address one):$port" <"$T/relay.in" >"$T/relay.out" 2>&1 &
	exec 8>"$T/relay.in"
	wait_for "grep -q ^port '$T/relay.out'" || bail 'the relay does not listen'
}

# ---------------------------------------------------------------------------------------------------------------- load
acknowledged() { cat "$T/logs/$round.$1".[0-9] 2>/dev/null | grep -c ' a 0$'; }
# Until each program on these machines (all, if none is named) has had answers to more of its changes.
progress() {
	local n before=()
	[ $# -gt 0 ] || set -- "${names[@]}"
	for n; do before+=("$(acknowledged "$n")"); done
	for n; do
		wait_for -t 120 "[ \"\$(acknowledged $n)\" -gt $((before[0] + 5)) ]" || {
			fail "$kind: changes on $n go on"
			diag "$(grep -E '^(role|link_|seq|epoch|primary_seq|open_calls|state)' "$T/$n/.msyncfs/status" 2>&1)"
		}
		before=("${before[@]:1}")
	done
}

# A program sees an error only where its own daemon died or was replaced.
errors() { cat "$T/logs/$round.$1".[0-9] | grep -v ' a 0$'; }
begin_trouble() {
	local n
	disturbed=()
	for n in "${names[@]}"; do troubled[$n]=$(errors "$n" | wc -l); done
}
no_errors() {
	local n
	for n in "${names[@]}"; do
		[ -z "${disturbed[$n]:-}" ] || continue
		[ "$(errors "$n" | wc -l)" = "${troubled[$n]}" ] && continue
		fail "round $round, $kind: no program on $n sees an error"
		diag "$(errors "$n" | tail -n 3)"
	done
}

load_start() {
	local n w dir=$T/$primary/r.$round
	mkdir "$dir"
	: >"$dir/log"
	for n in "${names[@]}"; do for ((w = 0; w < WRITERS; w++)); do mkdir "$dir/$n.$w"; done; done
	writers=()
	for n in "${names[@]}"; do
		for ((w = 0; w < WRITERS; w++)); do
			wait_for "[ -d '$T/$n/r.$round/$n.$w' ]"
			netload write "$T/$n/r.$round" "$n.$w" "$T/logs/$round.$n.$w" $((SEED + w)) 2>"$T/logs/err.$round.$n.$w" 8>&- &
			writers+=($!)
		done
	done
	progress
}

load_stop() {
	local n w pid bad=0
	for n in "${names[@]}"; do for ((w = 0; w < WRITERS; w++)); do : >"$T/logs/$round.$n.$w.stop"; done; done
	for pid in "${writers[@]}"; do wait "$pid" || bad=1; done
	is "round $round: the programs end well" "$bad$(cat "$T/logs/err.$round".*)" 0
}

# All that a mount shows. Reading changes access times, so those are left to the dumps.
view() {
	(cd "$T/$1" && find . -printf '%p %y %i %m %n %U %G %s %T@ %C@ %l\n' | LC_ALL=C sort &&
		find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r cksum && getfattr -R -h -d -m - . | LC_ALL=C sort) >"$T/view.$1" 2>&1
}
agree() {
	local n w r
	wait_for -t 120 caught_up || { fail "$1: all catch up"; for n in "${names[@]}"; do diag "$n: $(grep -E '^(role|link_|seq|epoch)' "$T/$n/.msyncfs/status" | tr '\n' ' ')"; done; }
	view "${names[0]}"
	for n in "${names[@]:1}"; do
		view "$n"
		cmp -s "$T/view.${names[0]}" "$T/view.$n" && continue
		fail "$1: $n shows what ${names[0]} shows"
		diag "$(diff "$T/view.${names[0]}" "$T/view.$n" | head -n 10)"
	done
	for r in $2; do
		for n in "${names[@]}"; do
			for at in "${names[@]}"; do
				for ((w = 0; w < WRITERS; w++)); do
					netload check "$T/$at/r.$r" "$n.$w" "$T/logs/$r.$n.$w" >"$T/out" && continue
					fail "$1: $at has what $n.$w was told in round $r"
					diag "$(cat "$T/out")"
				done
			done
		done
	done
	pass "$1: all show the same, and what was acknowledged"
}

# ------------------------------------------------------------------------------------------------------------- trouble
heal_and_go_on() {
	wait_for -t 60 all_stream || fail "$kind: links come back"
	progress
}

kill_one() {
	disturbed[$1]=1
	kill_daemon "$T/$1.msync"
	# By force: killed while it told the kernel of a change, it would leave programs hanging (README.md, "Limits").
	umount -i -f -l "$T/$1"
	start "$1"
}

trouble() {
	local n others
	n=$(some_replica)
	case $kind in
	cut)            # a cable is pulled out; the others go on
		net_cut "$n"
		wait_for -t 60 broken "$n" || fail "$kind: $n notices"
		mapfile -t others < <(printf '%s\n' "${names[@]}" | grep -vx "$n")
		progress "${others[@]}"
		net_heal "$n";;
	cut-primary)
		net_cut "$primary"
		for n in $(replicas); do wait_for -t 60 broken "$n" || fail "$kind: $n notices"; done
		progress "$primary"
		net_heal "$primary";;
	half-up)
		net_half "$n" "$primary"
		[ "$n" != "$near" ] || [ "$primary" != one ] || net_half "$n" hub
		wait_for -t 60 broken "$n" || fail "$kind: $n notices"
		progress "$primary"
		net_whole "$n" "$primary"
		[ "$n" != "$near" ] || [ "$primary" != one ] || net_whole "$n" hub;;
	half-down)
		net_half "$primary" "$n"
		[ "$n" != "$near" ] || [ "$primary" != one ] || net_half hub "$n"
		wait_for -t 60 broken "$n" || fail "$kind: $n notices"
		progress "$primary"
		net_whole "$primary" "$n"
		[ "$n" != "$near" ] || [ "$primary" != one ] || net_whole hub "$n";;
	lose-up|lose-down)                      # the connection lives, but bytes get nowhere
		[ "$primary" = one ] || return 0
		relay lose "${kind#lose-}"
		wait_for -t 60 broken "$near" || fail "$kind: $near notices"
		relay go
		relay cut;;
	reset)
		[ "$primary" = one ] || return 0
		for _ in 1 2 3 4 5; do
			relay cut
			sleep 0.3
		done;;
	slow)
		if net_delay "$n" 30; then
			progress
			net_delay "$n" 0
		elif [ "$primary" = one ]; then
			relay delay 30
			progress
			relay delay 0
		fi;;
	kill-replica)
		kill_one "$n";;
	kill-primary)
		kill_one "$primary";;
	stop-replica)                           # as a machine that swaps, or a laptop that sleeps
		kill -STOP "$(daemon_pids "$T/$n.msync")"
		progress "$primary"
		sleep 3
		kill -CONT "$(daemon_pids "$T/$n.msync")";;
	stop-primary)
		kill -STOP "$(daemon_pids "$T/$primary.msync")"
		for n in $(replicas); do wait_for -t 60 broken "$n" || fail "$kind: $n notices"; done
		kill -CONT "$(daemon_pids "$T/$primary.msync")";;
	upgrade)                                # one after another, the primary last; programs go on meanwhile
		for n in $(replicas) "$primary"; do
			disturbed[$n]=1
			# Lazily: programs open files all the time. What they have open ends first.
			umount -i -l "$T/$n"
			wait_for -t 60 no_daemon "$T/$n.msync" || fail "$kind: the daemon of $n ends"
			if [ "${program[$n]}" = "$MSYNCFS" ]; then program[$n]=$T/next/${MSYNCFS##*/}; else program[$n]=$MSYNCFS; fi
			start "$n"
		done;;
	move)                                   # back to one, which the relay leads to, if it was elsewhere
		n=two
		[ "$primary" = one ] || n=one
		wait_for -t 60 all_stream
		"${program[$primary]}" demote "$T/$primary" "$(net_address "$n"):$port" >"$T/out" 2>&1 ||
			{ fail "$kind: the primary is handed over to $n"; diag "$(cat "$T/out")"; return; }
		primary=$n;;
	*)	bail "no such trouble: $kind";;
	esac
}

# ---------------------------------------------------------------------------------------------------------------- run
start one
start_relay
for n in "${names[@]:1}"; do start "$n"; done
wait_for all_stream || fail 'all follow'
rounds=()
for ((round = 1; round <= ROUNDS; round++)); do
	rounds+=("$round")
	kind=begin
	load_start
	for kind in $(tr ' ' '\n' <<<"$KINDS" | awk -v seed=$((SEED + round)) 'BEGIN { srand(seed) } NF { print rand(), $1 }' | sort | cut -d ' ' -f 2); do
		diag "round $round: $kind, the primary is $primary"
		begin_trouble
		trouble
		heal_and_go_on
		no_errors
		diag "  $kind: done after $SECONDS s"
	done
	load_stop
	agree "round $round" "$round"
done
agree 'in the end' "${rounds[*]}"
diag "$(cat "$T"/logs/*.[0-9] | awk '{ n[$4]++ } END { printf "%d acknowledged, %d not done, %d unknown", n["a"], n["n"], n["u"] }')"
for n in $(replicas) "$primary"; do ok "$n unmounts" stop "$n"; done
for n in "${names[@]}"; do
	ok "the store of $n is clean" "$MSYNCFS" check "$T/$n.msync"
	"$MSYNCFS" dump -q "$T/$n.msync" "$T/$n.dump" || fail "$n can be dumped"
done
for n in "${names[@]:1}"; do same "the dump of $n is that of ${names[0]}" "$T/${names[0]}.dump" "$T/$n.dump"; done
is 'nothing was put aside' "$(compgen -G "$T/*.diverged-*")" ''
exec 8>&-
done_testing
