#!/bin/bash
# SPDX-License-Identifier: MIT
# Little memory: of address space, of data, and of a control group. The daemon answers with the right error or goes on; if the
# kernel kills it, that is a kill -9: the next mount has all that was acknowledged.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
[ "$MODE" = release ] || skip_mode 'a sanitizer needs far more memory'

seq 150000 >"$T/data"

# Files until one is refused or there are enough; each is remembered.
load() { # PREFIX COUNT
	local i
	: >"$T/acked"
	for i in $(seq "$2"); do
		op cp "$T/data" "$MNT/$1$i" 2>"$T/err" || { cat "$T/err"; return; }
		echo "$1$i" >>"$T/acked"
		[ $((i % 5)) != 0 ] || op sync "$MNT/$1$i" 2>/dev/null
	done
	echo enough
}
lost() {
	local f wrong=0
	while read -r f; do op cmp -s "$T/data" "$MNT/$f" || wrong=$((wrong + 1)); done <"$T/acked"
	echo $wrong
}

# Address space: the mapping cannot grow beyond it, which is a full store.
limits=(as=140000000)
[ -z "$LONG" ] || limits+=(as=100000000 as=120000000 as=200000000 data=30000000 data=45000000 data=60000000 nofile=16 stack=131072)
for limit in "${limits[@]}"; do
	faults=$((faults + 1))
	rm -f "$STORE"
	: >"$T/log"
	"$MSYNCFS" mount "$STORE" "$MNT" </dev/null >/dev/null 2>&1 || fail 'mount'
	umount_store
	if prlimit "--$limit" timeout 60 "$MSYNCFS" mount "$STORE" "$MNT" </dev/null >"$T/out" 2>&1; then
		like "$limit: a load ends with ENOSPC or ENOMEM, or never" "$(load a 150)" 'enough|No space|Cannot allocate'
		ok "$limit: the daemon lives" test -n "$(daemon_pids)"
		is "$limit: all that was acknowledged is there" "$(lost)" 0
		op rm -f "$MNT"/a* 2>/dev/null
		ok "$limit: it goes on" wait_for -t 45 op cp "$T/data" "$MNT/b"
		ok "$limit: and is right" op cmp "$T/data" "$MNT/b"
		ok "$limit: unmount" umount_store
	else
		is "$limit: mounting is refused in one line" "$(grep -c . "$T/out")" 1
		: >"$T/acked"
	fi
	check_store "$limit"
	ok "$limit: without it, mount" mount_store
	umount_store
done

# A control group of the second or the first kind; the name of its limit in $limit_file.
make_group() {
	local root
	for root in /sys/fs/cgroup /sys/fs/cgroup/unified; do
		grep -qsw memory "$root/cgroup.subtree_control" || continue
		group=$root/msyncfs-fault-$$
		limit_file=memory.max
		mkdir "$group" 2>/dev/null && return 0
	done
	group=/sys/fs/cgroup/memory/msyncfs-fault-$$
	limit_file=memory.limit_in_bytes
	[ -d /sys/fs/cgroup/memory ] && mkdir "$group" 2>/dev/null
}
remove_group() { [ -z "${group:-}" ] || [ ! -d "$group" ] || wait_for -t 10 "rmdir '$group' 2>/dev/null || [ ! -d '$group' ]"; }

is_alive() { kill -0 "$DAEMON" 2>/dev/null && ! grep -q '^State:[[:space:]]*Z' "/proc/$DAEMON/status"; }

group=
if [ "$(id -u)" = 0 ] && make_group; then
	trap 'without remove_group' EXIT
	mkdir "$T/memory"
	for where in disk memory; do
		amounts=(24M)
		[ -z "$LONG" ] || amounts=(12M 16M 24M 48M 96M)
		if [ $where = disk ] && [ "$(stat -f -c %T "$T")" = tmpfs ]; then
			skip_one "$T is on no disk"
			continue
		fi
		# On a disk the dirty pages can go; in a file system of memory they cannot, and the kernel kills.
		if [ $where = memory ]; then
			mount -i -t tmpfs -o size=300m none "$T/memory" || { skip_one 'no tmpfs here'; continue; }
			STORE=$T/memory/store.msync
			amounts=(56M)
			[ -z "$LONG" ] || amounts=(24M 40M 48M 56M 80M 96M)
		fi
		for amount in "${amounts[@]}"; do
			faults=$((faults + 1))
			rm -f "$STORE"
			echo "$amount" >"$group/$limit_file" || { skip_one "no limit of $amount"; continue; }
			: >"$T/log"
			: >"$T/acked"
			# The daemon alone is in it, not its clients.
			(echo "$BASHPID" >"$group/cgroup.procs"; exec "$MSYNCFS" mount -f "$STORE" "$MNT" </dev/null >>"$T/log" 2>&1) &
			DAEMON=$!
			wait_for -t 20 "is_mounted || ! kill -0 $DAEMON 2>/dev/null"
			if is_mounted; then
				got=$(load c "$([ -n "$LONG" ] && echo 200 || echo 60)")
				like "$where, $amount: a load ends with a right error, or not at all" "$got" \
					'enough|No space|Cannot allocate|not connected|connection abort'
			fi
			# It may be killed by the kernel at any time; a signal of its own making never ends it.
			missing=$(lost 2>/dev/null)
			if is_alive; then
				is "$where, $amount: all that was acknowledged is there" "$missing" 0
				stop_daemon
				like "$where, $amount: the daemon ends in order, or is killed" "$status" '^(0|137)$'
				! is_mounted || umount -i -l "$MNT"
			else
				wait "$DAEMON"
				is "$where, $amount: only the kernel may kill it" $? 137
				! is_mounted || umount -i -l "$MNT"
			fi
			if [ -f "$STORE" ]; then
				check_store "$where, $amount"
				ok "$where, $amount: without the limit, mount" mount_store
				is "$where, $amount: all that was acknowledged is there" "$(lost)" 0
				umount_store
			fi
		done
		[ $where != memory ] || umount -i "$T/memory"
	done
	remove_group
	nok 'the control group is gone' test -d "$group"
else
	skip_one 'no control group for memory can be made here'
fi
finish
