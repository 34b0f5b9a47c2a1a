#!/bin/bash
# SPDX-License-Identifier: MIT
# fio with verification: what is read is what was written, in every way of writing.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need fio
mount_store >/dev/null || fail mount

job() {
	local name=$1
	shift
	ok "fio $name" sh -c "cd '$T' && timeout 120 fio --name=$name --directory='$MNT' --size=12M --verify=crc32c \
		--verify_fatal=1 --verify_state_save=0 --do_verify=1 --output='$T/fio.$name' --randseed=$SEED --allrandrepeat=1 $*" ||
		diag "$(grep -E 'verify|err=|error' "$T/fio.$name" | head -n 5)"
	rm -f "$MNT/$name".*
}
diag "SEED=$SEED"
job seq --rw=write --bs=64k
job rand4k --rw=randwrite --bs=4k
job odd --rw=randwrite --bs_unaligned --bsrange=100-20000
job mmap --rw=randwrite --bs=4k --ioengine=mmap
job direct --rw=randwrite --bs=16k --direct=1
job two --rw=randwrite --bs=8k --numjobs=2
job fsync --rw=randwrite --bs=4k --fsync=16 --size=2M
job aio --rw=randwrite --bs=4k --ioengine=libaio --iodepth=16 --direct=1
umount_store
ok 'check' "$MSYNCFS" check "$STORE"
done_testing
