#!/bin/bash
# SPDX-License-Identifier: MIT
# fsync by many threads shares the msync; -o sync makes everything durable before it returns; sync-interval does by itself.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

mount_store -o sync-interval=0 >/dev/null || fail mount
count=$(scaled 100)
syncs=$(status_of syncs)
ok "16 threads, $count fsyncs each" many fsync "$MNT" 16 "$count"
ok 'all they wrote is durable' test "$(status_of durable_seq)" -ge "$(status_of seq)"
diag "$(($(status_of syncs) - syncs)) msyncs for $((count * 16)) fsyncs"
# How many share one is told by the disk and by who else works: tests/unit/test_sync.c decides that. Here: any.
ok 'waiting fsyncs share an msync' test $(($(status_of syncs) - syncs)) -lt $((count * 16))
echo x >"$MNT/f"
ok 'without an interval nothing is synced unasked' test "$(status_of durable_seq)" -lt "$(status_of seq)"
for how in fsync fdatasync syncfs; do
	echo $how >"$MNT/f"
	errno "$how" ok sysop $how "$MNT/f"
	if [ $how = syncfs ] && [ -z "$(status_of requests_syncfs)" ]; then
		skip_one 'this kernel does not pass syncfs on to FUSE servers'
		continue
	fi
	ok "after $how all is durable" test "$(status_of durable_seq)" -ge "$(status_of seq)"
done
mkdir "$MNT/d"
errno 'fsync of a directory' ok sysop fsync "$MNT/d"
ok 'makes its entries durable' test "$(status_of durable_seq)" -ge "$(status_of seq)"
echo y >"$MNT/f"
sync
[ -z "$(status_of requests_syncfs)" ] || ok 'sync(1) makes all durable' test "$(status_of durable_seq)" -ge "$(status_of seq)"
umount_store

mount_store -o sync >/dev/null || fail 'mount -o sync'
for command in 'echo z >f' 'mkdir e' 'mv f g' 'ln g h' 'chmod 600 g' 'setfattr -n user.a -v b g' 'rm h' 'rmdir e' 'truncate -s 100k g'; do
	(cd "$MNT" && eval "$command")
	is "-o sync: $command is durable when it returns" "$(status_of durable_seq)" "$(status_of seq)"
done
umount_store

# What the kernel could hold back until the file is closed; so one process writes and asks, since each that ends closes it.
mount_store -o sync,writeback,sync-interval=0 >/dev/null || fail 'mount -o sync,writeback'
# shellcheck disable=SC2016 # variables of perl
perl -e 'open F, ">", "$ARGV[0]/held"; syswrite F, "x"; open S, "<", "$ARGV[0]/.msyncfs/status"; print <S>' "$MNT" >"$T/status"
ok '-o sync,writeback: a write is with the daemon when it returns' grep -q '^requests_write=1$' "$T/status"
is '... and durable' "$(sed -n 's/^durable_seq=//p' "$T/status")" "$(sed -n 's/^seq=//p' "$T/status")"
umount_store

mount_store -o sync-interval=1 >/dev/null || fail 'mount -o sync-interval=1'
echo w >"$MNT/f"
seq=$(status_of seq)
ok 'sync-interval=1 makes it durable by itself' wait_for -t 10 "[ \"\$(status_of durable_seq)\" -ge $seq ]"
umount_store
done_testing
