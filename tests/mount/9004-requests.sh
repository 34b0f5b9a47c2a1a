#!/bin/bash
# SPDX-License-Identifier: MIT
# What an operation costs in FUSE requests, counted at the device; and the request thread calls nothing else.
# Create and write a small file: 3; overwrite: 2; rename: 1; unlink: 1; warm open, read, close: 0; stat: 0.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need strace
case $MODE in release) ;; *) skip_mode 'sanitizers make system calls of their own';; esac

# Mount with the options given and have strace attached to the daemon.
traced_mount() {
	mount_store -o "sync-interval=0$1" >/dev/null || fail mount
	pid=$(daemon_pids | head -n 1)
	strace -f -y -xx -s 8 -o "$T/trace" -p "$pid" 2>"$T/strace.err" &
	strace=$!
	if ! wait_for -t 10 "grep -q attached '$T/strace.err' || ! kill -0 $strace 2>/dev/null" ||
		! kill -0 $strace 2>/dev/null; then
		umount_store
		skip_all 'strace cannot attach'
	fi
}
end_trace() {
	kill "$strace"
	wait "$strace" 2>/dev/null
}
traced_mount ''

# Names of the requests read from the device since line $1 of the trace, one a line; FORGETs are not answered and do not
# count. With -xx a request's first eight bytes are its length and its opcode; -y names the device, in hex too.
device='(/dev/fuse|\\x2f\\x64\\x65\\x76\\x2f\\x66\\x75\\x73\\x65)'
requests() {
	tail -n +"$(($1 + 1))" "$T/trace" | perl -ne '
		BEGIN {
			@name = qw(0 LOOKUP FORGET GETATTR SETATTR READLINK SYMLINK 7 MKNOD MKDIR UNLINK RMDIR RENAME LINK OPEN READ
				WRITE STATFS RELEASE 19 FSYNC SETXATTR GETXATTR LISTXATTR REMOVEXATTR FLUSH INIT OPENDIR READDIR
				RELEASEDIR FSYNCDIR GETLK SETLK SETLKW ACCESS CREATE INTERRUPT BMAP DESTROY IOCTL POLL NOTIFY_REPLY
				BATCH_FORGET FALLOCATE READDIRPLUS RENAME2 LSEEK COPY_FILE_RANGE);
		}
		# "read(5</dev/fuse>, ..." in one line, or begun in one and resumed in another of the same thread.
		($thread) = /^(\d+)/ or next;
		$on_device{$thread} = /fuse>|\\x66\\x75\\x73\\x65>/ if /^\d+ +readv?\(/;
		next unless /^\d+ +(?:readv?\(|<\.\.\. readv? resumed).*= \d+$/ && $on_device{$thread};
		next unless /"\\x..\\x..\\x..\\x..\\x(..)\\x00\\x00\\x00"/;
		$opcode = hex $1;
		print $name[$opcode] // $opcode, "\n" unless $opcode == 2 || $opcode == 42;'
}
lines() { wc -l <"$T/trace"; }
# Settled: nothing new in the trace for a moment. There is no condition to wait for that something does not come.
settle() {
	local before=-1
	while [ "$(lines)" != "$before" ]; do before=$(lines); sleep 0.2; done
}
# costs WHAT REQUESTS COMMAND: nothing but the operation touches the mount meanwhile.
costs() {
	local what=$1 want=$2 mark got
	shift 2
	settle
	mark=$(lines)
	"$@"
	settle
	got=$(requests "$mark" | tr '\n' ' ')
	is "$what: at most $want requests (${got% })" "$(($(wc -w <<<"$got") <= want))" 1
}
# An O_CREAT open, a write, a close, as a program does it.
create() { printf 'hello\n' >"$MNT/$1"; }
overwrite() { sysop pwrite "$MNT/$1" 0 HELLO >/dev/null; }
truncating() { printf 'again\n' >"$MNT/$1"; }
read_it() { cat "$MNT/$1" >"$T/read"; }
stat_it() { [ -f "$MNT/$1" ]; }
rename_it() { sysop rename none "$MNT/$1" "$MNT/$2" >"$T/out"; }
unlink_it() { sysop unlink "$MNT/$1" >"$T/out"; }

create warm-up
read_it warm-up
truncating warm-up
# One of these is the kernel's question for security.capability before the first write to an inode whose attributes it has
# just read (file_remove_privs() in mm/filemap.c); only a mount without extended attributes is spared it, see below.
costs 'create and write a small file, with extended attributes' 4 create f
costs 'overwrite' 2 overwrite f
costs 'truncate and overwrite, with extended attributes' 3 truncating f
read_it f
stat_it f
costs 'warm open, read, close' 0 read_it f
costs 'stat of an unchanged file' 0 stat_it f
# A change drops the kernel's attributes of the directory, and a new name is looked up first: that is not the
# operation's own cost, so both are known beforehand.
stat_it .
stat_it g
# The kernel always looks the target of a rename up anew (LOOKUP_RENAME_TARGET), whatever it knows.
costs 'rename' 2 rename_it f g
stat_it .
costs 'unlink' 1 unlink_it g
stat_it g
costs 'stat of a name that is known not to be' 0 stat_it g

# The thread that reads the device: everything else it does, by name and count, since line $1 of the trace. poll() waits for the
# device; a signal is the tick, which looks after the store of an idle mount.
thread=$(grep -oE "^[0-9]+ +read[^(]*\([0-9]+<$device>" "$T/trace" | cut -d' ' -f1 | sort | uniq -c | sort -rn | awk 'NR == 1 { print $2 }')
ok 'one thread reads the device' test -n "$thread"
others() {
	tail -n +$(($1 + 1)) "$T/trace" | awk -v t="$thread" '$1 == t' |
		grep -vE "^[0-9]+ +(read|readv|write|writev|pread64|splice|ioctl)\([0-9]+<$device>" |
		grep -vE '^[0-9]+ +(poll|ppoll|epoll_wait|epoll_pwait|epoll_pwait2|select|pselect6|restart_syscall|rt_sigreturn)\(' |
		grep -vE '^[0-9]+ +<\.\.\.|^[0-9]+ +[-+]{3}' | sed -E 's/^[0-9]+ +([a-z0-9_]+)\(.*/\1/' | sort | uniq -c |
		awk '{ printf "%s%s %s", n++ ? ", " : "", $2, $1 }'
}
count_of() { sed -nE "s/.*\b$2 ([0-9]+).*/\1/p" <<<"$1" | grep . || echo 0; }
# What is left when those that fs/session.h names are taken away, each up to its bound: rest CALLS FUTEXES TIMERS. One mincore, and one
# madvise if need be, are for 256 KiB of the store that were not looked at before: of this small one, which is hardly changed, a few.
PIECES=16
rest() {
	local futexes timers pieces
	pieces=$(($(count_of "$1" madvise) + $(count_of "$1" mincore)))
	[ "$pieces" -gt $PIECES ] || pieces=
	futexes=$(count_of "$1" futex)
	timers=$(count_of "$1" timer_settime)
	[ "$futexes" -gt "$2" ] || futexes=
	[ "$timers" -gt "$3" ] || timers=
	sed -E "s/\b${pieces:+x}(madvise|mincore) [0-9]+(, )?//g; s/\b${futexes:+x}futex [0-9]+(, )?//; s/\b${timers:+x}timer_settime [0-9]+(, )?//; s/, $//" <<<"$1"
}
checkpoints() { status_of checkpoints; }

# From one checkpoint to the next, once the tick runs, ordinary operations cost nothing else at all.
echo 1 >"$MNT/.msyncfs/checkpoint"
create first
before=$(checkpoints)
settle
mark=$(lines)
for i in $(seq 50); do create "n$i"; read_it "n$i"; done
for i in $(seq 50); do rename_it "n$i" "m$i"; done
for i in $(seq 50); do unlink_it "m$i"; done
settle
got=$(others "$mark")
made=$(($(checkpoints) - before))
# A checkpoint that came due meanwhile: its helper is woken, the tick stops and starts again.
is "and calls nothing but the device ($got; $made checkpoints)" "$(rest "$got" $made $((2 * made)))" ''

# Contents come from runs of free blocks; the provisioner, which makes them ready, sleeps when nothing has changed for a while.
before=$(checkpoints)
mark=$(lines)
dd if=/dev/zero of="$MNT/contents" bs=64k count=16 status=none
settle
got=$(others "$mark")
made=$(($(checkpoints) - before))
is "contents may cost it one more ($got)" "$(rest "$got" $((made + 1)) $((2 * made)))" ''

# An fsync wakes the syncer, if that sleeps; one that finds nothing to do looks whether the file is whole.
before=$(checkpoints)
settle
mark=$(lines)
for i in $(seq 10); do create "s$i"; sysop fsync "$MNT/s$i" >"$T/out"; done
settle
got=$(others "$mark")
made=$(($(checkpoints) - before))
is "an fsync costs it one more ($got)" "$(rest "$got" $((10 + made)) $((2 * made)))" ''
mark=$(lines)
sysop fsync "$MNT/s1" >"$T/out"
settle
is 'with nothing to sync, one look at the file' "$(others "$mark" | sed 's/newfstatat/fstat/')" 'fstat 1'

# A checkpoint and the first change after it: the helper that writes it, the tick.
settle
mark=$(lines)
echo 1 >"$MNT/.msyncfs/checkpoint"
create tick
settle
got=$(others "$mark")
is "a checkpoint costs it a few ($got)" "$(rest "$got" 2 4 | sed -E 's/\bread [0-9]+//')" ''
end_trace
umount_store

traced_mount ,noxattr
create warm-too
stat_it .
costs 'create and write a small file' 3 create x
stat_it .
stat_it x
costs 'truncate and overwrite' 2 truncating x
end_trace
umount_store
done_testing
