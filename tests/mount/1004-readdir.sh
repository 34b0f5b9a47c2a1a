#!/bin/bash
# SPDX-License-Identifier: MIT
# Large directories: each entry once, also under changes and seeks; removal while reading.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
mount_store >/dev/null || fail mount
diag "SEED=$SEED"

count=$(scaled 20000)
mkdir "$MNT/big"
(cd "$MNT/big" && seq -f 'keep-%.0f' 0 $((count - 1)) | xargs touch)
is "$count entries are made" "$(find "$MNT/big" -type f | wc -l)" "$count"
is 'none is seen twice' "$(dirwalk names "$MNT/big" | sort | uniq -d | wc -l)" 0
ok '. and .. are there' test "$(dirwalk names "$MNT/big" | grep -cxE '\.\.?')" = 2
ok 'telldir and seekdir' dirwalk seek "$MNT/big" "$SEED"
ok 'each entry is seen once while others come and go' dirwalk stable "$MNT/big"
rm -f "$MNT"/big/churn-*
(cd "$MNT/big" && seq -f 'keep-%.0f' 1 2 $((count - 1)) | xargs rm) &
seen=$(dirwalk names "$MNT/big" | grep -c '^keep-[0-9]*[02468]$')
wait $!
is 'those that stay are seen while every other one is removed' "$seen" "$((count / 2))"
is 'half is left' "$(find "$MNT/big" -type f | wc -l)" "$((count / 2))"
ok 'unlink while reading' dirwalk purge "$MNT/big"
ok 'rmdir' rmdir "$MNT/big"

mkdir "$MNT/types"
(cd "$MNT/types" && touch f && mkdir d && ln -s f l && mkfifo p && ln f h && sysop socket s >/dev/null)
ok 'd_type and d_ino agree with lstat' dirwalk types "$MNT/types"
exec 7<"$MNT/types"
rm -r "$MNT/types"
# shellcheck disable=SC2016 # for the inner shell
ok 'a removed directory that is open reads as empty' sh -c 'test -z "$(ls -A /proc/self/fd/7 2>/dev/null)"'
exec 7<&-

# Names of the same length that differ little, and very long ones: the hash must keep them apart.
mkdir "$MNT/near"
(cd "$MNT/near" && for i in $(seq 1000); do printf '%0200d\n' "$i"; done | xargs touch)
is 'a thousand long names' "$(dirwalk names "$MNT/near" | grep -c '^0')" 1000
remount_store >/dev/null || fail remount
is 'and after a remount' "$(dirwalk names "$MNT/near" | sort -u | grep -c '^0')" 1000
ok 'rm -r' rm -r "$MNT/near"
done_testing
