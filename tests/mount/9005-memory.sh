#!/bin/bash
# SPDX-License-Identifier: MIT
# The daemon's own memory (without the mapping) does not grow with the store: not with the number of files, nor with their bytes,
# nor by reading all of them. What it knows of is what the kernel holds: at most 250 bytes for each inode, beside 64 MiB.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
case $MODE in release) ;; *) skip_all 'sanitizers have memory of their own';; esac

SLACK=2048              # KiB: the heap's own granularity
BUFFERS=8192            # KiB: of fixed size, but not touched before they are used: for requests, for listings, which pages were verified
anon() { awk '/^RssAnon:/ { print $2 }' "/proc/$(daemon_pids)/status"; }
# Of a store that was just opened, once it has answered.
fresh() {
	remount_store >/dev/null || fail 'mount'
	stat -f "$MNT" >/dev/null
	anon
}
# make DIRECTORY COUNT: files of 100 bytes.
make_files() {
	perl -e 'my ($d, $n) = @ARGV; mkdir $d;
		for (1 .. $n) { open my $f, ">", "$d/$_" or die "$d/$_: $!"; print $f "x" x 100; close $f or die $!; }' "$MNT/$1" "$2"
}
read_all() { find "$MNT" -type f -exec cat {} + | wc -c; }

few=100
many=8000
mount_store -o sync-interval=0 >/dev/null || fail 'mount'
ok "$few files" make_files few $few
base=$(fresh)
ok "$many more" make_files many $many
dd if=/dev/zero of="$MNT/big" bs=1M count=100 status=none
working=$(anon)
inodes=$(status_of kernel_inodes)
ok "making them: $working KiB, of which the kernel's $inodes inodes may take 250 bytes each" \
	test "$working" -le $((base + inodes * 250 / 1024 + 16384))
opened=$(fresh)
ok "opened with $((few + many)) files: $opened KiB, with $few: $base KiB" test "$opened" -le $((base + SLACK))
size=$(read_all)
is 'all can be read' "$size" $(((few + many) * 100 + 100 * 1048576))
inodes=$(status_of kernel_inodes)
ok 'the kernel holds them all' test "$inodes" -gt $many
after=$(anon)
ok "after reading all: $after KiB with $inodes inodes in the kernel" test "$after" -le $((opened + inodes * 250 / 1024 + BUFFERS))
# Requests leave nothing behind: reads past the kernel's cache, names that come and go.
requests() {
	perl -e 'use Fcntl; my ($m, $n) = @ARGV; sysopen my $f, "$m/big", O_RDONLY | O_DIRECT or die "big: $!"; my $b = "\0" x 65536;
		for (1 .. $n) { sysseek $f, 4096 * ($_ % 1000), 0; sysread($f, $b, 4096) == 4096 or die "read: $!"; }
		for (1 .. $n / 8) { open my $g, ">", "$m/t$_" or die $!; print $g "x"; close $g; rename "$m/t$_", "$m/u" or die $!; unlink "$m/u" or die $!; }' \
		"$MNT" "$1"
}
ok 'some requests' requests 4000
after=$(anon)
ok 'ten times as many' requests 40000
ok "take no more: $(anon) KiB, $after KiB before" test "$(anon)" -le $((after + 256))
ok "in all less than 64 MiB" test "$(anon)" -le $((65536 + inodes * 250 / 1024))
umount_store
done_testing
