#!/bin/bash
# SPDX-License-Identifier: MIT
# dbench, two clients, a few seconds.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need dbench
mount_store >/dev/null || fail mount
mkdir "$MNT/d"
timeout 120 dbench -t 5 -D "$MNT/d" 2 >"$T/dbench.out" 2>&1
is 'dbench succeeds' "$?" 0 || diag "$(tail -n 10 "$T/dbench.out")"
diag "$(grep -i throughput "$T/dbench.out")"
nok 'without an error' grep -E '^\[[0-9]+\] (open|unlink|rename|stat|.*) .* failed|ERROR' "$T/dbench.out"
ok 'what it left can be removed' rm -rf "$MNT/d"
umount_store
ok 'check' "$MSYNCFS" check "$STORE"
done_testing
