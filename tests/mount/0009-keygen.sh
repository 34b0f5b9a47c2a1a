#!/bin/bash
# SPDX-License-Identifier: MIT
# keygen: a key file that only its owner may read, never written over, and nothing left of what failed.
export NO_MOUNT=1
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

ok 'a key is made' "$MSYNCFS" keygen "$T/k"
is 'only its owner may read it, whatever the umask' "$(stat -c %a "$T/k")" 600
like 'it is a key file' "$(tr '\n' ' ' <"$T/k")" '^msyncfs-key-1 id=key-[0-9a-f]{8} secret=[0-9a-f]{64} $'
cp "$T/k" "$T/before"
"$MSYNCFS" keygen "$T/k" >"$T/out" 2>"$T/err"
is 'it is not written over' "$?" 1
ok 'and stays as it was' cmp "$T/k" "$T/before"
is 'that is one line' "$(wc -l <"$T/err")" 1

"$MSYNCFS" keygen --id=web --read-only --tree=/etc/web - >"$T/all"
is 'to standard output' "$?" 0
is 'the options are in it' "$(grep -v secret "$T/all" | tr '\n' ' ')" 'msyncfs-key-1 id=web limit=read-only limit=tree:/etc/web '
nok 'two keys are never the same' grep -qxF "$(grep secret "$T/k")" "$T/all"

for bad in --id= '--id=a b' --id=-x --tree=x --tree=/a/../b --tree=/ --id --colour=red; do
	"$MSYNCFS" keygen "$bad" "$T/bad" >"$T/out" 2>"$T/err" </dev/null
	is "$bad is wrong use" "$?" 2
	is "$bad: one line" "$(wc -l <"$T/err")" 1
	nok "$bad: no file" test -e "$T/bad"
done
"$MSYNCFS" keygen >"$T/out" 2>&1
is 'without a file: wrong use' "$?" 2
"$MSYNCFS" keygen "$T/nowhere/k" >"$T/out" 2>&1
is 'no such directory: failed' "$?" 1
"$MSYNCFS" keygen - >/dev/full 2>"$T/err"
is 'a full disk: failed' "$?" 1
done_testing
