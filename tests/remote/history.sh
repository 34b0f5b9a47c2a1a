#!/bin/bash
# SPDX-License-Identifier: MIT
# P6 as a checker sees it: programs on three mounts work on the same few keys (put, append, exclusive creation, removal, reads)
# while the links break, stall and are slow, and a daemon is killed now and then; afterwards there has to be one order of all of
# it in which each result is right (tests/remote/linear/linear.h).
#   SECONDS_EACH=n (3)   how long a round takes     ROUNDS=n (1)     SEED=... replays the order of the trouble
#   TROUBLE='...'        kinds of it                 KEEP=1           leaves the logs
# shellcheck source=../mount/lib.sh
. "$(dirname "$0")/../mount/lib.sh" || exit 1
diag "SEED=$SEED"
RANDOM=$((SEED % 32768))

names=(one two three)
SECONDS_EACH=${SECONDS_EACH:-3}
ROUNDS=${ROUNDS:-1}
WRITERS=${WRITERS:-2}
TROUBLE=${TROUBLE:-cut cut hold lose slow none}
declare -A port_of lines_of fd_of
mkdir "${names[@]/#/$T/}" "$T/logs"
# What is found where a mount is away: no directory (netlog.c).
for n in "${names[@]}"; do for ((round = 1; round <= ROUNDS; round++)); do : >"$T/$n/r$round"; done; done

start() {
	local n=$1
	shift
	mount_store -m "$T/$n" -s "$T/$n.msync" "$@" 6>&- 7>&-
}
follow() { start "$1" --from="127.0.0.1:${port_of[$1]}" -o on-disconnect=wait:60; }
in_step() { local n; for n in two three; do { [ "$(value "$n" link_state)" = stream ] && [ "$(value "$n" seq)" = "$(value one seq)" ]; } || return 1; done; }

# relay NAME WORD...: tell the network between NAME and the primary
relay_to() {
	local n=$1
	shift
	echo "$*" >&"${fd_of[$n]}"
	lines_of[$n]=$((lines_of[$n] + 1))
	wait_for "[ \"\$(grep -c '^ok' '$T/relay.$n')\" -ge ${lines_of[$n]} ]" || fail "the relay of $n obeys: $*"
}

for _ in 1 2 3 4 5; do
	port=$(a_port)
	start one --listen="127.0.0.1:$port" >"$T/out" && break
done
ok 'a primary listens' is_mounted "$T/one"
fd_of=([two]=6 [three]=7)
for n in two three; do
	mkfifo "$T/in.$n"
	relay 0 "127.0.0.1:$port" <"$T/in.$n" >"$T/relay.$n" 2>&1 &
	if [ $n = two ]; then exec 6>"$T/in.$n"; else exec 7>"$T/in.$n"; fi
	wait_for "grep -q ^port '$T/relay.$n'" || bail 'no relay'
	port_of[$n]=$(sed -n 's/^port //p' "$T/relay.$n")
	lines_of[$n]=0
	ok "$n follows" follow $n
done

# By force: a daemon that dies while it tells the kernel of a change would leave programs hanging (README.md, "Limits").
history_cleanup() {
	local status=$? n
	[ "$status" = 0 ] || for n in "${names[@]}"; do umount -i -f "$T/$n" 2>/dev/null; done
	(exit "$status")
	cleanup
}
trap history_cleanup EXIT

trouble() {
	local n=$1
	case $2 in
	cut)  relay_to "$n" cut;;
	hold) relay_to "$n" hold; sleep 0.3; relay_to "$n" go;;
	lose) relay_to "$n" lose; sleep 0.1; relay_to "$n" go; relay_to "$n" cut;;
	slow) relay_to "$n" delay $((1 + RANDOM % 8)); sleep 0.3; relay_to "$n" delay 0;;
	kill) kill_daemon "$T/$n.msync"; umount -i -f -l "$T/$n"; follow "$n" >"$T/out" || diag "$(cat "$T/out")";;
	esac
}

for ((round = 1; round <= ROUNDS; round++)); do
	mkdir "$T/one/r$round.new"
	: >"$T/one/r$round.new/key.3"
	: >"$T/one/r$round.new/key.4"
	mv "$T/one/r$round.new" "$T/one/r$round"
	pids=() logs=()
	for i in 0 1 2; do
		wait_for "[ -d '$T/${names[i]}/r$round' ]"
		for ((w = 0; w < WRITERS; w++)); do
			log=$T/logs/$round.$i.$w
			logs+=("$log")
			netlog record "$T/${names[i]}/r$round" $i "$log" $((SEED + 10 * i + w)) 2>"$log.err" 6>&- 7>&- &
			pids+=($!)
		done
	done
	read -ra kinds <<<"$TROUBLE"
	end=$((SECONDS + SECONDS_EACH))
	while ((SECONDS < end)); do
		what=${kinds[RANDOM % ${#kinds[@]}]}
		if ((RANDOM % 2)); then trouble two "$what"; else trouble three "$what"; fi
		sleep 0.$((RANDOM % 4))
	done
	for log in "${logs[@]}"; do : >"$log.stop"; done
	bad=0
	for pid in "${pids[@]}"; do wait "$pid" || bad=1; done
	is "round $round: the programs end well" "$bad$(cat "$T"/logs/$round.*.err)" 0
	ok "round $round: all come to the same state" wait_for in_step
	# What the kernels have cached follows the states: until they were told.
	for n in "${names[@]}"; do wait_for "[ \"\$(value $n notify_waiting)\" = 0 ]"; done
	dirs=("${names[@]/%//r$round}")
	ok "round $round: all keys can be read on all" netlog same "$T/logs/$round.same" "${dirs[@]/#/$T/}"
	ok "round $round: there is an order of what was done and seen" netlog check "${logs[@]}" "$T/logs/$round.same"
	diag "$(netlog check "${logs[@]}" "$T/logs/$round.same" | tail -n 1)"
done
for n in two three one; do ok "$n unmounts" umount_store "$T/$n" "$T/$n.msync"; done
exec 6>&- 7>&-
done_testing
