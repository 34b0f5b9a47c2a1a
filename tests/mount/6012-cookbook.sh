#!/bin/bash
# SPDX-License-Identifier: MIT
# The recipes of mount-scripts/COOKBOOK.md, as they stand there, on mounts of three "machines".
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
need flock

names=(one two three)
mkdir "${names[@]/#/$T/}" "$T/bin"
PATH=$T/bin:$PATH
ln -s "$MSYNCFS" "$T/bin/msyncfs"

start() { local n=$1; shift; mount_store -m "$T/$n" -s "$T/$n.msync" --listen="$T/$n.socket" "$@"; }
# recipe NAME MACHINE: the block of the cookbook that begins with "# NAME", for the mount of that machine
recipe() {
	awk -v name="    # $1" '$0 == name { on = 1; next } on && !/^    / { exit } on' "$ROOT/mount-scripts/COOKBOOK.md" | sed "s|^    ||; s|/mnt/data|$T/$2|g"
}
script() { recipe "$1" "$2" >"$T/script"; [ -s "$T/script" ] || fail "COOKBOOK.md has a recipe \"$1\""; }
# program NAME TEXT: a command that a recipe calls
program() { printf '#!/bin/sh\n%s\n' "$2" >"$T/bin/$1"; chmod +x "$T/bin/$1"; }

notify=()
[ "$(id -u)" != 0 ] || notify=(-o inotify)
ok 'one' start one "${notify[@]}"
for n in two three; do ok "$n" start $n --from="$T/one.socket" "${notify[@]}"; done

# ---- Distribute configuration
mkdir "$T/one/conf"
for n in two three; do wait_for "[ -d '$T/$n/conf' ]"; done
program reload-app "cat \"\$1\" >>'$T/reloaded'"
script react three
setsid bash "$T/script" &
watcher=$!
echo version-1 >"$T/app.conf"
wait_for "pgrep -f 'watch $T/three' >/dev/null"
script distribute two
ok 'configuration is distributed' env -C "$T" bash "$T/script"
is 'there' "$(cat "$T/two/conf/app.conf")" version-1
# The watcher may have begun behind the first change.
again() { env -C "$T" bash "$T/script"; [ -s "$T/reloaded" ]; }
ok 'and the program of another machine is told' wait_for again
is 'with the new one' "$(head -n 1 "$T/reloaded")" version-1
kill -- -"$watcher"

# ---- One leader
program be-the-leader "echo \"\$ME\" >>'$T/led'; [ \"\$(sort '$T/leads' 2>/dev/null)\" = '' ] || echo both >>'$T/both'; echo \"\$ME\" >'$T/leads'; sleep 0.2; : >'$T/leads'"
program hostname "echo \$ME"
for n in "${names[@]}"; do
	script lead "$n"
	cp "$T/script" "$T/lead.$n"
	ME=$n bash "$T/lead.$n" &
done
wait %2 %3 %4 2>/dev/null
wait_for "[ \"\$(wc -l <'$T/led')\" = 3 ]"
is 'each led' "$(sort "$T/led" | tr '\n' ' ')" 'one three two '
nok 'none at the same time as another' test -e "$T/both"
is 'the last one is known' "$(cat "$T/one/leader")" "$(tail -n 1 "$T/led")"

# ---- A work queue
mkdir -p "$T/one/queue/new" "$T/one/queue/todo" "$T/one/queue/done"
for n in two three; do wait_for "[ -d '$T/$n/queue/done' ]"; done
jobs=60
for ((i = 1; i <= jobs; i++)); do
	n=${names[i % 3]}
	[ "$i" -gt 3 ] || { script submit "$n"; cp "$T/script" "$T/submit.$n"; }
	id=job.$i what="work $i" bash "$T/submit.$n"
done
wait_for "[ \"\$(ls '$T/one/queue/todo' | wc -l)\" = $jobs ]"
for n in two three; do wait_for "[ \"\$(value $n seq)\" = \"\$(value one seq)\" ]"; done
program do-the-job "cat \"\$1\" >>'$T/worked.'\$me"
workers=()
for n in "${names[@]}"; do
	script work "$n"
	cp "$T/script" "$T/work.$n"
	me=$n bash "$T/work.$n" &
	workers+=($!)
done
wait "${workers[@]}"
is 'each job was done once' "$(cat "$T"/worked.* | sort -k 2n | uniq | wc -l) $(cat "$T"/worked.* | wc -l)" "$jobs $jobs"
wait_for "[ \"\$(ls '$T/one/queue/done' | wc -l)\" = $jobs ]"
is 'and is where it belongs' "$(find "$T/one/queue" -type f | wc -l) $(find "$T/one/queue/done" -type f | wc -l)" "$jobs $jobs"
diag "$(wc -l "$T"/worked.* | tr '\n' ' ')"

# ---- React with inotify
if [ "$(id -u)" = 0 ] && command -v inotifywait >/dev/null; then
	mkdir "$T/one/inbox"
	wait_for "[ -d '$T/two/inbox' ]"
	wait_for "[ \"\$(value two inotify)\" = on ]"
	program handle "cat \"\$1\" >>'$T/handled'"
	script inbox two
	setsid bash "$T/script" &
	watcher=$!
	# Nothing says when the watch is there: until the first one is handled, new ones come.
	drop() { n=$((${n:-0} + 1)); echo letter >"$T/three/inbox/letter.$RANDOM"; sleep 0.3; [ -s "$T/handled" ]; }
	n=0
	ok 'what came from another machine is handled' wait_for drop
	is 'with its contents' "$(sort -u "$T/handled")" letter
	kill -- -"$watcher"
else
	skip_one 'inotify: needs root and inotifywait'
fi

# ---- Move the primary
(i=0; while [ ! -e "$T/enough" ]; do i=$((i + 1)); echo "$i" >>"$T/three/moving" || echo "$i" >>"$T/failed"; echo "$i" >"$T/count"; done) &
writer=$!
wait_for "[ -s '$T/count' ]"
script move one
ok 'the primary moves' env next="$T/two.socket" bash "$T/script"
: >"$T/enough"
wait $writer
is 'two leads' "$(value two role) $(value one role)" 'primary replica'
nok 'no write failed' test -e "$T/failed"
is 'none is lost' "$(wc -l <"$T/two/moving")" "$(cat "$T/count")"
for n in one three two; do ok "$n unmounts" umount_store "$T/$n" "$T/$n.msync"; done
done_testing
