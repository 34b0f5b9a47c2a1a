#!/bin/bash
# SPDX-License-Identifier: MIT
# -o max-stale=: a remote mount whose state is older is not read: not from the store, nor from what the kernel has cached, by
# name, by open file, or by a mapping. When the primary is heard again, all can be read again.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

for n in one two; do mkdir "$T/$n"; done
follow() { start two --from="$T/one.socket" -o on-disconnect=wait:2 "$@"; }
reads() { [ "$(value two reads)" = "$1" ]; }
pause_one() { kill -STOP "$(daemon_pids "$T/one.msync")"; }
resume_one() { kill -CONT "$(daemon_pids "$T/one.msync")"; }

for word in max-stale=0 max-stale=x max-stale; do
	follow -o "$word" >"$T/out" 2>&1
	is "$word is refused" "$? $(wc -l <"$T/out")" '2 1'
done
start one -o max-stale=2 >"$T/out" 2>&1
is 'nothing is stale without links' "$? $(wc -l <"$T/out")" '2 1'

ok 'a primary' start one --listen="$T/one.socket"
mkdir "$T/one/d"
echo text >"$T/one/d/f"
echo other >"$T/one/d/g"
ln -s d/f "$T/one/link"
ok 'a remote mount that wants to be recent' follow -o max-stale=2
ok 'is read' reads ok
is 'status: the limit' "$(value two max_stale_seconds)" 2

# Everything is in the kernel's cache.
look() { stat -c %s "$T/two/d/f" && ls "$T/two/d" && cat "$T/two/link" && [ ! -e "$T/two/d/none" ]; }
look >/dev/null
exec 9<"$T/two/d/f"
sysop mapped "$T/two/d/g" >"$T/mapped" &
wait_for "grep -q mapped '$T/mapped'"
sleep 3
ok 'a primary that says nothing new is recent' look
# The time of what the kernel has is over with that of the state: it asks again, also before it reads on in what it has of a file.
asked() { awk -F= '$1 ~ /^requests_(lookup|getattr)$/ { n += $2 } END { print n + 0 }' "$T/two/.msyncfs/status"; }
head -c 100000 /dev/zero | tr '\0' x >"$T/one/big"
ok 'a file' wait_for "[ \"\$(wc -c <'$T/two/big')\" = 100000 ]"
exec 8<"$T/two/big"
read -r -N 10 -u 8 text
sleep 3
# What asking for the status costs is told by asking twice.
before=$(asked)
none=$(asked)
read -r -N 10 -u 8 text
is 'reading on' "$text" xxxxxxxxxx
ok 'is asked for' test $(($(asked) - none)) -gt $((none - before))
exec 8<&-
sleep 3
before=$(asked)
none=$(asked)
stat "$T/two/big" >/dev/null
ok 'so are names and attributes' test $(($(asked) - none)) -gt $((none - before))
is 'the mapping, too' "$(cat "$T/mapped")" mapped

# ---- It falls silent; the link is there still
pause_one
ok 'then the state gets old' wait_for 'reads refused'
errno 'contents' ESTALE sysop open rdonly "$T/two/d/f"
nok 'attributes' stat "$T/two/d/f"
nok 'names' ls "$T/two/d"
nok 'the root directory' ls "$T/two"
nok 'a name that was not there' bash -c "LC_ALL=C stat '$T/two/d/none' 2>&1 | grep -q 'No such file'"
nok 'an open file' head -c 4 <&9
like 'is stale' "$(head -c 4 <&9 2>&1)" 'Stale'
nok 'a symbolic link' readlink "$T/two/link"
ok 'what is mapped is gone' wait_for "grep -q SIGBUS '$T/mapped'"
ok 'status can be read' test -n "$(value two stale_seconds)"
ok 'and says how old it is' test "$(value two stale_seconds | cut -d. -f1)" -ge 2
ok 'the mount point itself is there' stat "$T/two"
resume_one
ok 'when it is heard again, all can be read' wait_for 'reads ok'
ok 'by name' look
is 'by the open file' "$(head -c 4 <&9)" text
exec 9<&-

# ---- It is gone
stop one
ok 'without it the same' wait_for 'reads refused'
nok 'nothing is read' cat "$T/two/d/f"
stop two
ok 'nor of a mount made without it' follow -o max-stale=2
nok 'nothing is read there' ls "$T/two"
start one --listen="$T/one.socket" >"$T/out" || fail "the primary comes back: $(cat "$T/out")"
ok 'until it is there' wait_for 'reads ok'
ok 'then all is' look
stop one
wait_for 'reads refused'
ok 'or until it is one itself' "$MSYNCFS" promote "$T/two"
ok 'then all is, too' look
stop two
done_testing
