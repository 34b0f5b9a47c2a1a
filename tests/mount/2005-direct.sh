#!/bin/bash
# SPDX-License-Identifier: MIT
# O_DIRECT: reads and writes past the page cache agree with those through it.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
mount_store >/dev/null || fail mount
for size in 4096 64k 1M 3M; do
	errno "$size" ok sysop direct "$MNT/f-$size" $size
done
head -c 5000001 /dev/urandom >"$T/data"
ok 'dd oflag=direct' sh -c "head -c 4194304 '$T/data' >'$T/part'; dd if='$T/part' of='$MNT/d' bs=64k oflag=direct status=none"
same 'is what a cached read sees' "$T/part" "$MNT/d"
cp "$T/data" "$MNT/c"
ok 'dd iflag=direct' dd if="$MNT/c" of="$T/back" bs=1M iflag=direct status=none
same 'sees what was written through the cache' "$T/data" "$T/back"
remount_store >/dev/null || fail remount
same 'and it is kept' "$T/part" "$MNT/d"
done_testing
