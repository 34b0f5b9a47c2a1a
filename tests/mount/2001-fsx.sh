#!/bin/bash
# SPDX-License-Identifier: MIT
# Random operations on a file against a model in memory; the seed replays a failure: SEED=... tests/mount/2001-fsx.sh
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
mount_store >/dev/null || fail mount
diag "SEED=$SEED"
n=$(scaled 4000)

ok 'small file, every operation' fsx -s "$SEED" -n "$n" -l 131072 -D "$MNT/small"
ok 'larger file, every operation' fsx -s $((SEED + 1)) -n "$n" -l 1048576 -D "$MNT/large"
ok 'large file' fsx -s $((SEED + 2)) -n $((n / 4)) -l 8388608 -D "$MNT/huge"
ok 'two at once' sh -c "fsx -s $((SEED + 3)) -n $((n / 2)) '$MNT/one' & fsx -s $((SEED + 4)) -n $((n / 2)) '$MNT/two' && wait \$!"
cksum "$MNT"/* >"$T/before"
remount_store >/dev/null || fail remount
ok 'contents are the same after a remount' diff "$T/before" <(cksum "$MNT"/*)
kill_daemon
mount_store >/dev/null || fail 'mount after kill'
ok 'and after kill -9' diff "$T/before" <(cksum "$MNT"/*)
umount_store

ok 'with the write-back cache: mount' mount_store --writeback
ok 'with the write-back cache: every operation' fsx -s $((SEED + 5)) -n "$n" -l 262144 -D "$MNT/back"
cksum "$MNT"/* >"$T/before"
remount_store --writeback >/dev/null || fail remount
ok 'with the write-back cache: the same after a remount' diff "$T/before" <(cksum "$MNT"/*)
umount_store
ok 'check' "$MSYNCFS" check "$STORE"
done_testing
