#!/bin/bash
# SPDX-License-Identifier: MIT
# A key that is limited to a directory: who mounts with it sees everything, and changes only what is below that directory, whatever
# it calls; across the border it is as between two file systems. What counts is where things are on the primary.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

one=$T/one two=$T/two three=$T/three
mkdir "$one" "$two" "$three"
# Of the peer with the limit.
limit_on_one() { sed -n "s/^peer[0-9]*_limit=//p" "$one/.msyncfs/status" | tr -d "'"; }
same_seq() { streams "$1" && [ "$(value "$1" seq)" = "$(value one seq)" ]; }
there() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }
# All of one directory that a change could show in, times included.
view() { (cd "$1" && find . -printf '%p %i %m %n %s %y %U %C@ %T@\n' | sort && find . -type f | sort | xargs -d '\n' cat; getfattr -R -d -m - . 2>/dev/null) | cksum; }
refused() { local name=$1; shift; errno "$name: outside it is read-only" EROFS "$@"; }

# ---- Keys
"$MSYNCFS" keygen --id=all "$T/all.key"
ok 'keygen makes a key that is limited to a directory' "$MSYNCFS" keygen --id=web --tree=/srv/web "$T/web.key"
(umask 077; cat "$T/all.key" "$T/web.key" >"$T/primary.key")
listen() { start one --listen="$T/sock" --key-file="$T/primary.key" >"$T/out" || { fail 'the primary is mounted'; diag "$(cat "$T/out")"; }; }
listen
mkdir -p "$one/srv/web/d" "$one/srv/webs" "$one/out/d"
for f in srv/web/f srv/web/d/f srv/webs/f out/f out/d/f; do echo "$f" >"$one/$f"; done
ln "$one/out/f" "$one/srv/web/both"
follow() { start two --from="$T/sock" --key-file="$T/web.key" -o on-disconnect=wait:20 "$@"; }
ok 'who has it may follow' follow
wait_for same_seq two
is 'and sees everything' "$(view "$two")" "$(view "$one")"
is 'its status says the limit' "$(value two key_limit)" tree:/srv/web
ok "so does the primary's" wait_for "[ \"\$(limit_on_one)\" = tree:/srv/web ]"

# ---- Inside: as ever
web=$two/srv/web
inside() {
	echo new >"$web/new" && echo more >>"$web/f" && chmod 600 "$web/f" && setfattr -n user.x -v y "$web/f" && truncate -s 3 "$web/f" &&
		mkdir "$web/sub" && mv "$web/new" "$web/sub/" && ln "$web/sub/new" "$web/sub/link" && rm "$web/sub/new" && echo x >>"$web/sub/link" &&
		mv -T "$web/sub" "$web/moved" && ln -s nowhere "$web/l" && mkfifo "$web/p" && touch -h "$web/l" && rm -r "$web/moved" "$web/l" "$web/p" &&
		cp "$two/out/f" "$web/copy" && chmod 755 "$web"
}
ok 'inside everything can be done' inside
is 'and is so on the primary' "$(cat "$one/srv/web/copy")" out/f
errno 'a copy within the server, from outside' 7 sysop copy_range "$two/out/d/f" 0 "$web/copy" 0 7
is 'has the contents' "$(cat "$web/copy")" out/d/f
exec 7<>"$web/d/f"
rm "$web/d/f"
echo still >&7
is 'a file that is open goes on without its name' "$(head -n 1 "/proc/$$/fd/7")" still
exec 7>&-
echo "web/d/f" >"$web/d/f"

# ---- Outside: nothing
wait_for same_seq two
before=$(view "$one/out") beside=$(view "$one/srv/webs")
for dir in out srv/webs srv .; do
	d=$two/$dir
	refused "create in $dir" sysop open rdwr,creat,excl "$d/new"
	refused "mkdir in $dir" sysop mkdir "$d/new"
	refused "symlink in $dir" sysop symlink x "$d/new"
	refused "mknod in $dir" sysop mknod 010600 0 0 "$d/new"
	refused "chmod of $dir" sysop chmod 0700 "$d"
	refused "an attribute of $dir" sysop setxattr any user.x 5 "$d"
done
for f in out/f out/d/f srv/webs/f; do
	f=$two/$f
	[ "$f" = "$two/out/f" ] || refused "write" sysop pwrite "$f" 0 x
	[ "$f" = "$two/out/f" ] || refused "open with truncation" sysop open rdwr,trunc "$f"
	refused 'unlink' sysop unlink "$f"
	refused 'rename within' sysop rename none "$f" "${f%/*}/g"
	refused 'link within' sysop link "$two/srv/webs/f" "${f%/*}/g"
done
refused 'truncate' sysop truncate 1 "$two/out/d/f"
refused 'fallocate' sysop fallocate plain 0 100 "$two/out/d/f"
refused 'a copy from inside' sysop copy_range "$web/copy" 0 "$two/out/d/f" 0 7
refused 'rmdir' sysop rmdir "$two/out/d"
refused 'the directory itself is not removed' sysop rmdir "$web"
refused 'nor renamed' sysop rename none "$web" "$two/srv/other"
refused 'nor is one above it' sysop rename none "$two/srv" "$two/other"
errno 'a file with a name on each side is changed by neither' EPERM sysop pwrite "$web/both" 0 x
errno 'nor are its attributes' EPERM sysop chmod 0600 "$web/both"

# ---- Across
for how in none exchange noreplace; do
	errno "rename out, $how" EXDEV sysop rename $how "$web/f" "$two/out/$([ $how = exchange ] && echo f || echo new)"
	errno "rename in, $how" EXDEV sysop rename $how "$two/out/d/f" "$web/$([ $how = exchange ] && echo f || echo new)"
done
errno 'a directory out' EXDEV sysop rename none "$web/d" "$two/out/e"
errno 'link out' EXDEV sysop link "$web/f" "$two/out/new"
errno 'link in' EXDEV sysop link "$two/out/d/f" "$web/new"
nok 'mv copies what is outside, and cannot take it away' mv "$two/out/d/f" "$web/taken"
nok 'mv out fails' mv "$web/copy" "$two/out/"
is 'and leaves it' "$(cat "$web/copy")" out/d/f
wait_for same_seq two
is 'after all of that everything outside is as it was' "$(view "$one/out") $(view "$one/srv/webs")" "$before $beside"

# ---- What counts is where it is now, on the primary
exec 7>>"$web/d/f"
echo one >&7
mv "$one/srv/web/d" "$one/out/e"
ok 'an open file is moved out: no more is written to it' eval '! echo two >&7'
mv "$one/out/e" "$one/srv/web/d"
ok 'and back: it goes on' eval 'echo three >&7'
exec 7>&-
is 'nothing else was written' "$(tr '\n' ' ' <"$one/srv/web/d/f")" 'web/d/f one three '
mv "$one/srv/web" "$one/srv/gone"
ln -s ../out "$one/srv/web"
wait_for "[ -L '$web' ]"
errno 'the path is a link: nothing is open by it' EROFS sysop open rdwr,creat "$two/out/new"
errno 'nor what was' EROFS sysop open rdwr,creat "$two/srv/gone/new"
rm "$one/srv/web"
mv "$one/srv/gone" "$one/srv/web"
wait_for "[ -d '$web' ]"

# ---- Locks
nok 'a lock of a file outside is refused' flock -n "$two/out/d/f" true
ok 'so nobody else is kept out' flock -n "$one/out/d/f" true
exec 8<"$web/f"
ok 'inside it is given' flock -n 8
nok 'and holds' flock -n "$one/srv/web/f" true
echo x >"$web/goes"
wait_for same_seq two
exec 9<"$web/goes"
ok 'of a file that goes out later, too' flock -n 9
mv "$one/srv/web/goes" "$one/out/goes"

# ---- The primary starts again: who had what has it, and may what it might
stop one
listen 8<&- 9<&-                # a daemon keeps what its shell has open
ok 'two finds it' wait_for same_seq two
ok 'its lock holds still' wait_for "grep -q state=held '$one/.msyncfs/locks'"
nok 'for the primary, too' flock -n "$one/srv/web/f" true
ok 'that of the file that went out does not' wait_for "flock -n '$one/out/goes' true"
exec 8>&- 9>&-
errno 'outside it is read-only still' EROFS sysop pwrite "$two/out/d/f" 0 x
ok 'inside it can be written' sh -c "echo again >'$web/again'"

# ---- Roles
nok 'two is not promoted' "$MSYNCFS" promote "$two"
is 'it follows' "$(value two role)" replica
nok 'nor is it handed over to' timeout 3 "$MSYNCFS" demote "$one" "$(value one peer0_name)"
is 'one leads' "$(value one role)" primary
stop two
follow --listen="$T/sock2" >"$T/out" 2>&1
is 'who is limited feeds nobody' "$?" 1
is 'in one line' "$(wc -l <"$T/out")" 1
grep -v '^limit=' "$T/web.key" >"$T/bare.key"
chmod 600 "$T/bare.key"
mkdir "$T/bare"
start bare --from="$T/sock" --key-file="$T/bare.key" -o on-disconnect=wait:1 >"$T/out" 2>&1
is 'a limit that is left out of the file of who comes is not lifted' "$?" 1
like 'and it is told why' "$(cat "$T/out")" 'limited to /srv/web'
ok 'a relay' start three --from="$T/sock" --listen="$T/sock3" --key-file="$T/primary.key"
start bare --from="$T/sock3" --key-file="$T/web.key" -o on-disconnect=wait:1 >"$T/out" 2>&1
is 'does not take it' "$?" 1
like 'and says why' "$(cat "$T/out")" 'by the primary only'
rm -f "$T"/bare.msync
# The relay becomes the primary: it has the key, too.
ok 'two follows again' follow
wait_for same_seq two
wait_for same_seq three
ok 'one hands over, but not to two' "$MSYNCFS" demote "$one"
is 'three leads' "$(value three role)" primary
ok 'two finds it' wait_for "streams two && [ \"\$(value two from)\" = '$T/sock3' ]"
ok 'and may there what it might' sh -c "echo there >'$web/there'"
errno 'and no more' EROFS sysop pwrite "$two/out/d/f" 0 x
for m in two one three; do ok "$m unmounts" stop $m; done

# ---- A store that was loaded: where its files are has to be looked for
"$MSYNCFS" dump "$T/three.msync" "$T/dump" >/dev/null 2>&1
rm -f "$T"/*.msync
ok 'a store is loaded' "$MSYNCFS" load "$T/one.msync" "$T/dump"
listen
ok 'two follows' follow
ok 'the primary looks for them' wait_for "[ \"\$(value one limits)\" = ready ]"
errno 'files that were in it can be changed' ok sysop pwrite "$web/f" 0 x
errno 'those outside cannot' EROFS sysop pwrite "$two/out/d/f" 0 x
wait_for same_seq two
for m in two one; do ok "$m unmounts" stop $m; done
# And who is made the primary later looks, too. one has no key with a limit.
rm -f "$T"/*.msync
ok 'it is loaded once more' "$MSYNCFS" load "$T/one.msync" "$T/dump"
ok 'one is mounted' start one --listen="$T/sock" --key-file="$T/all.key"
ok 'three follows' start three --from="$T/sock" --listen="$T/sock3" --key-file="$T/primary.key"
ok 'and takes over' "$MSYNCFS" demote "$one"
ok 'it looks for files' wait_for "[ \"\$(value three limits)\" = ready ]"
ok 'two follows it' start two --from="$T/sock3" --key-file="$T/web.key" -o on-disconnect=wait:20
errno 'files that were in it can be changed' ok sysop pwrite "$web/f" 0 x
errno 'those outside cannot' EROFS sysop pwrite "$two/out/d/f" 0 x
for m in two one three; do ok "$m unmounts" stop $m; done
for m in one two three; do ok "the store of $m is clean" "$MSYNCFS" check "$T/$m.msync"; done
done_testing
