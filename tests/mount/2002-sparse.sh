#!/bin/bash
# SPDX-License-Identifier: MIT
# Sparse files, fallocate in all its modes, SEEK_DATA and SEEK_HOLE, copy_file_range, sizes to the limit.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
mount_store >/dev/null || fail mount
cd "$MNT" || exit 1

touch big
errno 'truncate to 1 TiB' ok sysop truncate 1T big
is 'size' "$(stat -c %s big)" 1099511627776
is 'no blocks' "$(stat -c %b big)" 0
errno 'a byte far out' ok sysop pwrite big 900G x
ok 'few blocks' test "$(stat -c %b big)" -le 64
is 'read back' "$(dd if=big bs=1 skip=966367641600 count=1 status=none)" x
is 'zeros before it' "$(dd if=big bs=4096 skip=1000000 count=1 status=none | tr -d '\0' | wc -c)" 0
is 'SEEK_DATA finds it' "$(sysop seek data 0 big)" 966367641600
is 'SEEK_HOLE behind it' "$(sysop seek hole 966367641600 big)" 966367645696
errno 'SEEK_DATA behind all data' ENXIO sysop seek data 966367645696 big
errno 'SEEK_HOLE at the end' ENXIO sysop seek hole 1T big
touch max
errno 'size 2^63-1' ok sysop truncate 9223372036854775807 max
is 'is that' "$(stat -c %s max)" 9223372036854775807
errno 'back to 0' ok sysop truncate 0 max
errno 'negative size' EINVAL sysop truncate -1 max
rm max big

for i in 0 2 4 6; do dd if=/dev/urandom of=holes bs=64k seek=$i count=1 conv=notrunc status=none; done
is 'map of a file with holes' "$(sysop map holes)" '0-65536 131072-196608 262144-327680 393216-458752'
cp --sparse=always holes "$T/holes"
same 'its contents' holes "$T/holes"
blocks=$(stat -c %b holes)
errno 'punch a hole' ok sysop fallocate punch 128k 64k holes
is 'the map has it' "$(sysop map holes)" '0-65536 262144-327680 393216-458752'
ok 'blocks are given back' test "$(stat -c %b holes)" -lt "$blocks"
is 'size is kept' "$(stat -c %s holes)" 458752
errno 'punch across edges' ok sysop fallocate punch 1000 3000 holes
is 'zeros there' "$(dd if=holes bs=1 skip=1000 count=3000 status=none | tr -d '\0' | wc -c)" 0
is 'data before' "$(cmp -n 1000 holes "$T/holes" && echo same)" same
is 'data behind' "$(cmp -i 4000 -n 1000 holes "$T/holes" && echo same)" same
errno 'zero a range' ok sysop fallocate zero 64k 1M holes
is 'extends the file' "$(stat -c %s holes)" 1114112
errno 'zero, keeping the size' ok sysop fallocate zerokeep 1M 1M holes
is 'does not' "$(stat -c %s holes)" 1114112
is 'zeros' "$(dd if=holes bs=64k skip=1 status=none | tr -d '\0' | wc -c)" 0
errno 'allocate beyond the end' ok sh -c 'touch alloc; exec sysop fallocate plain 0 2M alloc'
is 'extends' "$(stat -c %s alloc)" 2097152
ok 'has blocks' test "$(stat -c %b alloc)" -ge 4096
errno 'allocate, keeping the size' ok sysop fallocate keep 2M 2M alloc
is 'keeps it' "$(stat -c %s alloc)" 2097152
is 'reads as zeros' "$(tr -d '\0' <alloc | wc -c)" 0
errno 'a write into allocated space' ok sysop pwrite alloc 1M data
is 'is read' "$(dd if=alloc bs=1 skip=1048576 count=4 status=none)" data
errno 'collapse is refused' EOPNOTSUPP sysop fallocate collapse 0 4096 alloc
errno 'insert is refused' EOPNOTSUPP sysop fallocate insert 0 4096 alloc
errno 'length 0' EINVAL sysop fallocate plain 0 0 alloc

head -c 1000000 /dev/urandom >src
is 'copy_file_range' "$(sysop copy_range src 0 dst 0 1000000)" 1000000
same 'copies' src dst
is 'copy_file_range into the middle' "$(sysop copy_range src 12345 dst 500001 250000)" 250000
is 'copies there' "$(cmp -i 12345:500001 -n 250000 src dst && echo same)" same
is 'beyond the end of the source' "$(sysop copy_range src 900000 dst 0 500000)" 100000
is 'at the end of the source' "$(sysop copy_range src 1000000 dst 0 10)" 0
truncate -s 10M sparse
is 'of a hole' "$(sysop copy_range sparse 0 sparse2 0 10M)" 10485760
is 'is zeros' "$(tr -d '\0' <sparse2 | wc -c)" 0

# The end of the file: bytes behind it never come back.
head -c 10000 /dev/zero | tr '\0' x >end
truncate -s 5000 end
truncate -s 10000 end
is 'truncated bytes are zeros afterwards' "$(tr -d '\0' <end | wc -c)" 5000
cp holes "$T/h"
cp src "$T/s"
{ cd / && remount_store >/dev/null && cd "$MNT"; } || fail remount
same 'holes after a remount' holes "$T/h"
same 'data after a remount' src "$T/s"
is 'truncated bytes are zeros after it too' "$(tr -d '\0' <end | wc -c)" 5000
cd / || exit
umount_store
ok 'check' "$MSYNCFS" check "$STORE"
done_testing
