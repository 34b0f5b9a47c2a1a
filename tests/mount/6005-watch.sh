#!/bin/bash
# SPDX-License-Identifier: MIT
# `msyncfs watch`: every change once, in order, on each mount, resumable, and never a gap that is not told; `msyncfs sync`
# returns when enough disks have it, or says that they have not. Replay with SEED=...
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
diag "SEED=$SEED"
RANDOM=$((SEED % 32768))

one=$T/one two=$T/two
mkdir "$one" "$two"
caught_up() { [ "$(value two link_state)" = stream ] && [ "$(value two seq)" = "$(value one seq)" ]; }
watch() { "$MSYNCFS" watch "$@"; }

"$MSYNCFS" keygen "$T/key" >/dev/null
for _ in 1 2 3 4 5; do
	port=$(a_port)
	start one --listen="127.0.0.1:$port" --key-file="$T/key" -o journal-keep=1M,noatime >"$T/out" && break
done
ok 'a primary listens' is_mounted "$one"
from=(--from="127.0.0.1:$port" --key-file="$T/key" -o "on-disconnect=wait:2,noatime")
ok 'a remote mount' start two "${from[@]}"

# ---- What is printed
for m in one two; do watch "$T/$m" >"$T/live.$m" 2>&1 & pids+=($!); done
# They tell what comes after they have begun, and when that is only a line of theirs shows.
begun() { echo >"$one/probe"; [ -s "$T/live.one" ] && [ -s "$T/live.two" ]; }
ok 'two watches have begun' wait_for begun
wait_for caught_up
first=$(($(value one seq) + 1))
mkdir -p "$one/a/b"
echo x >"$one/a/b/f"
mv "$one/a/b/f" "$one/a/g h"
ln "$one/a/g h" "$one/a/l"
rm "$one/a/g h"
chmod 600 "$one/a/l"
truncate -s 100 "$one/a/l"
ln -s t "$one/s"
rmdir "$one/a/b"
wait_for caught_up
echo y >>"$two/a/l"
wait_for caught_up
last=$(value one seq)
want='mkdir a
mkdir a/b
create a/b/f
write a/b/f
rename a/b/f a/g\040h
link a/l
unlink a/g\040h
setattr a/l
truncate a/l
symlink s
rmdir a/b
write a/l'
# What was removed is marked as free at a moment of its own, a lease after the primary began to lead: perhaps now.
up_to_last() { awk -v l="$last" '$1 <= l'; }
unmarked() { up_to_last | awk '$3 != "mark"'; }
watch --once --since="$first" "$one" >"$T/all"
is 'watch --once' "$?" 0
up_to_last <"$T/all" >"$T/all.one"
# The path of a file is that of now, and so is that of a directory, which may be gone.
is 'each change, in order' "$(unmarked <"$T/all.one" | cut -d' ' -f3,5- | sed 's! #[0-9]*/! a/b/!')" \
	"$(sed '0,/^write a.b.f$/s!!write a/l!' <<<"$want")"
is 'numbered without a gap' "$(cut -d' ' -f1 "$T/all.one")" "$(seq "$first" "$last")"
watch --once --since="$first" "$two" | up_to_last >"$T/all.two"
is 'the same on the remote mount' "$(cut -d' ' -f1-4 "$T/all.two")" "$(cut -d' ' -f1-4 "$T/all.one")"
for m in one two; do
	ok "a watch that was there all the time has them, on $m" wait_for "grep -q '^$last ' '$T/live.$m'"
	is "all of them, on $m" "$(up_to_last <"$T/live.$m" | cut -d' ' -f1-4 | awk -v f="$first" '$1 >= f')" "$(cut -d' ' -f1-4 "$T/all.one")"
done
is 'resumed in the middle' "$(watch --once --since=$((first + 5)) "$one" | up_to_last | cut -d' ' -f1-4)" "$(tail -n +6 "$T/all.one" | cut -d' ' -f1-4)"
is 'below a path only' "$(watch --once --since="$first" "$one" a | cut -d' ' -f5 | grep -c '^s$')" 0
is 'and of that all' "$(watch --once --since="$first" "$one" a | unmarked | wc -l)" "$(($(unmarked <"$T/all.one" | wc -l) - 1))"
watch --once --json --since="$first" "$one" >"$T/json"
# shellcheck disable=SC2016 # perl's own
ok 'JSON' perl -MJSON::PP -ne 'my $c = decode_json($_); $c->{seq} && $c->{type} or die' "$T/json"
like 'with a path as it is' "$(cat "$T/json")" '"path":"a/g h"'

# ---- Many
count=$(scaled 3000)
from_seq=$(($(value one seq) + 1))
for i in $(seq "$count"); do echo "$i" >"$one/n$((i % 100))"; done
wait_for caught_up
last=$(value one seq)
for m in one two; do
	ok "watch keeps up with many, on $m" wait_for "grep -q '^$last ' '$T/live.$m'"
	is "without a gap, on $m" "$(awk -v f="$from_seq" '$1 >= f { print $1 }' "$T/live.$m" | cksum)" "$(seq "$from_seq" "$last" | cksum)"
done

# ---- What is not kept any more
for i in $(seq 60); do head -c 60000 /dev/zero | tr '\0' "$((i % 10))" >"$one/big$((i % 5))"; done
for i in $(seq "$((count * 2))"); do echo "$i" >"$one/n$((i % 100))"; done
watch --once --since="$first" "$one" >"$T/out" 2>"$T/err"
is 'too old a number has a status of its own' "$?" 3
is 'one line says so' "$(wc -l <"$T/err")" 1
is 'and nothing is printed' "$(cat "$T/out")" ''
next=$(sed 's/.*--since=//' "$T/err")
is 'it names the number to go on with' "$(watch --once --since="$next" "$one" | head -n 1 | cut -d' ' -f1)" "$next"
watch --once --since=$(($(value one seq) + 2)) "$one" >"$T/out" 2>"$T/err"
is 'a number that is still far away is no change of this history' "$?" 3
watch --once --since=x "$one" >"$T/out" 2>"$T/err"
is 'a number that is none' "$?" 2
watch --once "$T" >"$T/out" 2>"$T/err"
is 'another directory' "$?" 1
is 'has one line' "$(wc -l <"$T/err")" 1
for p in "${pids[@]}"; do kill "$p"; done
wait "${pids[@]}" 2>/dev/null

# ---- sync
echo s >"$one/synced"
ok 'sync' "$MSYNCFS" sync "$one"
is 'it is on disk' "$(($(value one durable_seq) >= $(value one seq)))" 1
echo s >"$one/synced"
ok 'sync on another machine, too' "$MSYNCFS" sync --wait-replicas=1 "$one"
seq_one=$(value one seq)
is 'it has it' "$(($(value two seq) >= seq_one && $(value two durable_seq) >= seq_one))" 1
echo t >"$two/synced"
ok 'sync of a remote mount' "$MSYNCFS" sync --wait-replicas=1 "$two"
seq_two=$(value two seq)
is 'the primary has it on disk' "$(($(value one durable_seq) >= seq_two))" 1
is 'and it itself' "$(($(value two durable_seq) >= seq_two))" 1
for m in one two; do
	"$MSYNCFS" sync --wait-replicas=2 --timeout=1 "$T/$m" >"$T/out" 2>"$T/err"
	is "two others there are not: a status of its own at $m" "$?" 3
	is "in one line at $m" "$(wc -l <"$T/err")" 1
done
stop two
"$MSYNCFS" sync --wait-replicas=1 --timeout=1 "$one" >"$T/out" 2>"$T/err"
is 'nor one, when it has left' "$?" 3
ok 'here it is' "$MSYNCFS" sync "$one"
ok 'two comes back' start two "${from[@]}"
stop one
"$MSYNCFS" sync --wait-replicas=1 --timeout=5 "$two" >"$T/out" 2>"$T/err"
is 'without a primary it fails' "$?" 1
is 'in one line' "$(wc -l <"$T/err")" 1
ok 'two unmounts' stop two
mount_store >"$T/out"
"$MSYNCFS" sync --wait-replicas=1 "$MNT" >"$T/out" 2>"$T/err"
is 'who is alone has no others' "$?" 1
ok 'but a disk' "$MSYNCFS" sync "$MNT"
watch --once "$MNT" >"$T/out" 2>"$T/err"
is 'and keeps no changes' "$?" 1
done_testing
