#!/bin/sh
# SPDX-License-Identifier: MIT
#
# From empty to SIZE by 1 MiB appends, through a mount of a new store and on the disk itself: how often the store
# grew, what the worst single write took. name=value lines. Leaves nothing behind.
#
# usage: [BUILD=build/release] [BENCH_DIR=/var/tmp] grow.sh [SIZE]      SIZE in bytes, or with K, M, G; default 10G
set -u
export LC_ALL=C

BUILD=${BUILD:-build/release}
BENCH_DIR=${BENCH_DIR:-/var/tmp}
work=''

cleanup()
{
	trap '' INT TERM HUP
	[ -n "$work" ] || return
	if mountpoint -q "$work/mnt"; then
		umount "$work/mnt" 2>/dev/null || fusermount3 -u "$work/mnt" 2>/dev/null || umount -l "$work/mnt"
	fi
	rm -rf --one-file-system "$work"
}

status_of()
{
	sed -n "s/^$1=//p" "$work/mnt/.msyncfs/status" 2>/dev/null | tr -d "\"'"
}

# appends NAME DIR
appends()
{
	"$BUILD/tests/bench/fsbench" -d "$2" -n "$count" -t 3600 grow >"$work/out" || exit 1
	for v in ops seconds mib_per_s p50_us p99_us max_us; do
		sed -n "s/^$v=/$1_$v=/p" "$work/out"
	done
}

bytes=$(numfmt --from=iec "${1:-10G}") || exit 2
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
work=$(mktemp -d "$BENCH_DIR/msyncfs-grow.XXXXXX") || exit 1
avail=$(($(stat -f -c '%a * %S' "$work")))
# A store of doubling size may be larger than what is in it; leave the disk as much again.
if [ "$bytes" -gt $((avail / 4)) ]; then
	bytes=$((avail / 4))
	echo "note=only_a_quarter_of_the_free_space"
fi
count=$((bytes >> 20))
mkdir "$work/mnt" "$work/disk"
# shellcheck disable=SC2086
"$BUILD/msyncfs" mount ${MSYNCFS_ARGS:-} "$work/store.msync" "$work/mnt" || exit 1
before=$(status_of grows)
appends msyncfs "$work/mnt"
after=$(status_of grows)
echo "grow_mib=$count"
echo "grow_steps=$((${after:-0} - ${before:-0}))"
echo "store_bytes=$(stat -c %s "$work/store.msync")"
umount "$work/mnt" 2>/dev/null || fusermount3 -u "$work/mnt"
rm -f "$work/store.msync"
appends disk "$work/disk"
