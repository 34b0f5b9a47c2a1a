#!/bin/bash
# SPDX-License-Identifier: MIT
# Memory is refused to a mount that others are connected to: to a primary with a remote mount, and to a remote mount, both with a key,
# so to OpenSSL too. The n-th allocation of a life (mount, work, unmount), once and from then on. Each time: mounting fails in one
# line or works; each answer is right or says why not; nothing hangs; once there is memory again the link comes back, the next
# operations on both machines are right, and both show the same; what was acknowledged is there; check is clean. Then the verbs
# keygen, sync, watch, promote and demote: each works, or says one line.
# shellcheck disable=SC2086,SC2016 # numbers and names of ours; shell text for verb()

# shellcheck source=memory.sh
. "$(dirname "$0")/memory.sh" || exit 1

one=$T/one two=$T/two
mkdir "$one" "$two"
quick=(-o 'sync-interval=0,on-disconnect=wait:1')

value() { op sed -n "s/^$2=//p" "$T/$1/.msyncfs/status" 2>/dev/null | tr -d "'\""; }
in_step() { [ "$(value two link_state)$(value one link_state)" = stream ] && [ "$(value two seq)" = "$(value one seq)" ]; }
view() {
	(cd "$T/$1" && op find . | sort | xargs -d '\n' stat -c '%n %i %a %h %s %F %u %Y' &&
		find . -type f | sort | xargs -r -d '\n' cat) 2>&1 | cksum
}

# What programs on one machine do: under one watchdog, in one process tree. Each answer that is an error goes to $T/errors.
cat >"$T/exercise" <<'END'
cd "$1" || exit
mkdir "$2" && cd "$2" || exit
try() { "$@" 2>&1 >/dev/null | sed "s|^|$*: |"; }
try cp "$3" g
try sync g
echo one 2>&1 >f || echo "f: not made: Input/output error"
echo two 2>&1 >>f || echo "f: not written: Input/output error"
try cat f
try ln f l
try mv g h
try setfattr -n user.a -v b h
try flock -x -w 1 h true
try ls -lR .
try rm l
try cat ../.msyncfs/status ../.msyncfs/locks
END
exercise() { op bash "$T/exercise" "$T/$1" "$1.$2" "$T/data" >"$T/errors.$1" 2>&1; }
allowed='Cannot allocate memory|Input/output error|Read-only file system|No such file or directory|Transport endpoint is not connected|No locks available|Stale file handle|Connection refused'
wrong_answers() { grep -hvE "$allowed" "$T/errors.one" "$T/errors.two" 2>/dev/null; }

# begin NAME: that mount, in the background, as the one that is refused memory.
begin() {
	local name=$1
	shift
	: >"$T/log"
	env FAULT_FILE="$PLAN" "${preload[@]}" "$STARVED" mount -f "$@" "$T/$name.msync" "$T/$name" </dev/null >"$T/log" 2>&1 &
	DAEMON=$!
	wait_for -t 30 "is_mounted $T/$name || ! kill -0 $DAEMON 2>/dev/null" || { echo 'it neither mounts nor ends'; kill -KILL "$DAEMON"; }
}

# In which call of the kernel each thread is.
where_it_is() {
	local task
	for task in /proc/"$1"/task/*; do
		echo "$(cat "$task/comm") $(cat "$task/wchan" 2>/dev/null) $(tr '\n' ' ' <"$task/syscall" 2>/dev/null)"
	done
}

# finish_victim NAME MOUNTED: it is unmounted, ends, and has said what it should.
finish_victim() {
	local name=$1 mounted=$2 status
	! is_mounted "$T/$name" || wait_for -t 15 try_unmount "$T/$name" || { echo 'it cannot be unmounted'; umount -i -l "$T/$name"; }
	wait_for -t 60 "! kill -0 $DAEMON 2>/dev/null" || { echo 'the daemon does not end:'; where_it_is "$DAEMON"; kill -KILL "$DAEMON"; }
	wait "$DAEMON"
	status=$?
	! is_mounted "$T/$name" || { echo 'a mount is left'; umount -i -l "$T/$name"; }
	# Beside words of the link: what went well before.
	said "$mounted" $status '^msyncfs: (remote mounts: |no link to the primary: )|: (equal to the primary|following) |: first sync'
	leaks "$T/live.$name" 0
	checked "$T/$name.msync" 'first sync'
}

# There is memory again: the link comes back, and what is done next is right on both.
agree() {
	local m
	for m in one two; do
		[ "$(value $m state)" = ok ] || return
	done
	wait_for -t 30 in_step || { echo "it is never in step again: $(value two link_state), $(value two link_trouble)"; return; }
	for m in one two; do
		op cp "$T/data" "$T/$m/after.$m" && op sync "$T/$m/after.$m" && op flock -x -w 20 "$T/$m/after.$m" true ||
			echo "the next operation fails on $m"
	done
	wait_for -t 30 in_step || echo 'it is not in step after the next operation'
	op cmp "$T/one/after.two" "$T/two/after.one" || echo 'the next contents differ'
	op rm "$T/two/after.one" "$T/one/after.two" || echo 'they cannot be removed'
	wait_for -t 30 in_step || echo 'it is not in step in the end'
	[ "$(view one)" = "$(view two)" ] || echo 'the two show different things'
}

# Each says what was wrong, and sets $hit.
life_of_two() {
	local mounted=0
	rm -f "$PLAN.live"
	# With a store that is there, and with one that is filled: by turns.
	[ $((lives % 3)) != 1 ] || rm -f "$T/two.msync"
	arm "$1" "$2"
	begin two --from="$T/socket" --key-file="$T/key" "${quick[@]}"
	if is_mounted "$two"; then
		mounted=1
		exercise two "$1.$2"
		exercise one "$1.$2"
		wrong_answers
		! struck || hit=1
		plan none
		kill -0 "$DAEMON" 2>/dev/null && agree
	fi
	! struck || hit=1
	finish_victim two $mounted
	op rm -rf "$one"/one.* "$one"/two.* || echo 'rm'
	op cmp "$T/data" "$one/kept" || echo 'what was there before is lost'
}

life_of_one() {
	local mounted=0 p
	rm -f "$PLAN.live"
	arm "$1" "$2"
	begin one --listen="$T/socket" --key-file="$T/key" "${quick[@]}"
	if is_mounted "$one"; then
		mounted=1
		mount_store -m "$two" -s "$T/two.msync" --from="$T/socket" --key-file="$T/key" "${quick[@]}" >/dev/null ||
			echo 'the remote mount cannot be mounted'
		exercise two "$1.$2"
		exercise one "$1.$2"
		wrong_answers
		! struck || hit=1
		plan none
		kill -0 "$DAEMON" 2>/dev/null && agree
		op rm -rf "$one"/one.* "$one"/two.* || [ "$(value one state)" != ok ] || echo 'rm'
		umount_store "$two" "$T/two.msync" >/dev/null || { echo 'the remote mount cannot be unmounted:'; for p in $(daemon_pids "$T/two.msync"); do where_it_is "$p"; done; }
	fi
	! struck || hit=1
	finish_victim one $mounted
}

intact() {
	mount_store -m "$one" -s "$T/one.msync" --listen="$T/socket" --key-file="$T/key" >/dev/null || { echo 'it cannot be mounted any more'; return; }
	op cmp "$T/data" "$one/kept" || echo 'what was there before is lost'
	op rm -rf "$one"/one.* "$one"/two.*
	umount_store "$one" "$T/one.msync" >/dev/null || echo 'umount'
}

diag "SEED=$SEED"
RANDOM=$((SEED % 32768))
seq 30000 >"$T/data"
"$MSYNCFS" keygen "$T/key" >/dev/null || fail keygen
listen=(--listen="$T/socket" --key-file="$T/key" "${quick[@]}")
mount_store -m "$one" -s "$T/one.msync" "${listen[@]}" >/dev/null || fail 'the primary is mounted'
cp "$T/data" "$one/kept"
mount_store -m "$two" -s "$T/two.msync" --from="$T/socket" --key-file="$T/key" "${quick[@]}" >/dev/null || fail 'the remote mount is mounted'
umount_store "$two" "$T/two.msync"

# Some places, other ones each time: near to each other at first (options, files), then, where OpenSSL makes its tables, far apart.
next() {
	local stride=$((10 + 9 * $1))
	[ -z "$LONG" ] || stride=$((1 + $1 / 15))
	echo $(($1 + 1 + (RANDOM * 32768 + RANDOM) % stride))
}

for victim in two one; do
	[ $victim = two ] || umount_store "$one" "$T/one.msync" || fail 'the primary is unmounted'
	rm -f "$T/live.$victim"
	lives=0
	hit=
	life_of_$victim 0 0 >"$T/wrong"
	is "$victim: a life without faults" "$(cat "$T/wrong")" ''
	[ "$MODE" != release ] || { cp "$PLAN.live" "$T/live.$victim"; ok 'the library was loaded' test -s "$T/live.$victim"; }
	for count in 1 0; do
		hits=0
		n=1
		bad=
		while [ $n -lt 1000000 ]; do
			hit=
			lives=$((lives + 1))
			life_of_$victim $n $count >"$T/wrong"
			[ ! -s "$T/wrong" ] || bad="$bad allocation $n: $(head -n 6 "$T/wrong");"
			[ -z "${VERBOSE:-}" ] || diag "$victim $n $count: ${hit:-no} hit $(cat "$T/wrong")"
			[ -n "$hit" ] || break
			hits=$((hits + 1))
			[ ${#bad} -lt 1500 ] || break
			n=$(next $n)
		done
		faults=$((faults + hits))
		[ $victim = two ] || bad="$bad$(intact)"
		is "memory is refused $([ $count = 1 ] && echo once || echo 'for ever') to $([ $victim = one ] && echo a primary || echo a remote mount): $hits lives" "$bad" ''
		ok 'at many places' test $hits -gt 2
	done
done

# ---- The verbs
leader() { if [ "$(value one role)" = primary ]; then echo "$one"; else echo "$two"; fi; }
# verb NAME GOOD COMMAND...: for each allocation; GOOD is shell text that holds if it says that it has worked. The word LEADER is
# the mount that leads at that moment.
verb() {
	local name=$1 good=$2 n=1 status bad='' hits=0 words
	shift 2
	while [ $n -lt 5000 ]; do
		rm -f "$T/made"
		plan "$n 1"
		words=("$@")
		[ "${!#}" != LEADER ] || { wait_for leads && wait_for in_step; words[$# - 1]=$(leader); }
		op env FAULT_FILE="$PLAN" "${preload[@]}" "$STARVED" "${words[@]}" </dev/null >"$T/out" 2>"$T/err"
		status=$?
		struck || break
		hits=$((hits + 1))
		case $status in
		0) eval "$good" || bad="$bad allocation $n: it says that it has worked;";;
		1) [ "$(wc -l <"$T/err")" = 1 ] || bad="$bad allocation $n: $(wc -l <"$T/err") lines: $(head -c 300 "$T/err");";;
		*) bad="$bad allocation $n: status $status: $(head -c 300 "$T/err");";;
		esac
		[ ${#bad} -lt 1000 ] || break
		n=$((n + 1))
	done
	plan none
	faults=$((faults + hits))
	is "$name: $hits allocations refused" "$bad" ''
}
mount_store -m "$one" -s "$T/one.msync" "${listen[@]}" >/dev/null || fail 'the primary is mounted'
mount_store -m "$two" -s "$T/two.msync" --from="$T/socket" --key-file="$T/key" --listen="$T/socket2" "${quick[@]}" >/dev/null ||
	fail 'the remote mount is mounted'
since=$(($(value one seq) + 1))
mkdir "$one/d" && touch "$one/d/f"
wait_for in_step || fail 'they are in step'
verb keygen 'grep -q ^secret= "$T/made"' keygen "$T/made"
verb sync true sync --wait-replicas=1 "$one"
verb 'sync on the remote mount' true sync "$two"
verb status 'grep -q ^state=ok "$T/out"' status "$two"
verb watch 'grep -q "mkdir.*d$" "$T/out"' watch --since="$since" --once "$one"
verb 'watch of a directory' 'grep -q "d/f$" "$T/out"' watch --since="$since" --once "$one" "$one/d"
verb help 'grep -q mount "$T/out"' help
leads() { [ "$(value one role)" = primary ] || [ "$(value two role)" = primary ]; }
verb demote true demote LEADER
wait_for leads || fail 'one of the two leads after all that'
umount_store "$one" "$T/one.msync"
verb promote true promote "$two"
wait_for '[ "$(value two role)" = primary ]' || fail 'the other leads after all that'
ok 'and takes changes' op touch "$two/promoted"
umount_store "$two" "$T/two.msync"
for m in one two; do ok "$m: check" "$MSYNCFS" check "$T/$m.msync"; done
finish
