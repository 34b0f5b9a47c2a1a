#!/bin/bash
# SPDX-License-Identifier: MIT
# What a remote mount makes and another machine removes, before the program that made it has heard of it: it was made, once, and the
# program has it as on a local file system. To have time for that, answers are held back: a primary whose fsync needs two other
# disks, of which one is not there, and a remote mount whose names are to be durable.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

names=(one two three)
for n in "${names[@]}"; do mkdir "$T/$n"; done
lead() { start one --listen="$T/one.socket" -o fsync=replicas=2,on-disconnect=wait:200; }
follow() { start "$1" --from="$T/one.socket" -o on-disconnect=wait:200,dirsync "${@:2}"; }
same_seq() { [ "$(value two seq)" = "$(value one seq)" ] && streams two; }
holds() { [ "$(value two holds)" = "$1" ]; }
marks() { "$MSYNCFS" watch --since=2 --once "$T/one" 2>/dev/null | grep -c ' mark '; }

# In directories of their own: the kernel makes one entry of a directory after the other.
kinds=(open excl over mkdir mknod symlink link)
# try KIND NAME: make it on two, in the background
try() {
	local x=$T/two/$1/$2
	case $1 in
	open)
		{
			exec 8<>"$x" || exit 1
			echo ok >"$T/said.$1.$2"
			read -r line <"$T/go.$2"
			echo "$line" >&8
			stat -L -c "%h $(cat "/proc/$BASHPID/fd/8")" "/proc/$BASHPID/fd/8" >"$T/read.$2"
			read -r line <"$T/go.$2"
		} 2>"$T/err.$1.$2" &
		return;;
	excl|over) sysop open wronly,creat,excl "$x";;
	mkdir)     sysop mkdir "$x";;
	mknod)     mkfifo "$x" && echo ok;;
	symlink)   ln -s target "$x" && echo ok;;
	link)      ln "$T/two/link/source" "$x" && echo ok;;
	esac >"$T/said.$1.$2" 2>&1 &
}
# undo KIND NAME: by one
undo() {
	local x=$T/one/$1/$2
	case $1 in
	excl)  rm "$x" && echo another >"$x";;
	over)  echo another >"$T/one/over/tmp" && mv "$T/one/over/tmp" "$x";;
	mkdir) rmdir "$x";;
	link)  rm "$x" "$T/one/link/source";;
	*)     rm "$x";;
	esac
}
said() { [ -s "$T/said.$1.$2" ]; }
check_all() {
	local name=$1 what=$2 kind
	for kind in "${kinds[@]}"; do
		wait_for -t 60 said "$kind" "$name"
		is "$what: $kind ends well" "$(cat "$T/said.$kind.$name" "$T/err.$kind.$name" 2>/dev/null)" ok
		wait_for "[ \"\$(cat '$T/two/$kind/$name' 2>&1)\" = \"\$(cat '$T/one/$kind/$name' 2>&1 | sed 's,/one/,/two/,')\" ]" ||
			{ fail "$what: $kind: two shows what one shows"; diag "$(ls -l "$T/two/$kind")"; }
	done
	is "$what: the others' files are what is left" "$(cat "$T/two/excl/$name" "$T/two/over/$name" | tr '\n' ' ')" 'another another '
}

ok 'a primary whose fsync needs two others' lead
ok 'one of them' follow two
for k in "${kinds[@]}"; do mkdir "$T/one/$k"; done
: >"$T/one/link/source"
mkfifo "$T/go.a" "$T/go.b"
# Within a lease after its start a primary gives up nothing; later it does at once.
: >"$T/one/old"
rm "$T/one/old"
ok 'what nobody has is given up' wait_for -t 60 '[ "$(marks)" = 1 ]'
wait_for same_seq

# ---- Made, and removed by another machine before it was known
for k in "${kinds[@]}"; do wait_for "[ -d '$T/two/$k' ]" && try "$k" a; done
exec 9<>"$T/go.a"
for k in "${kinds[@]}"; do ok "$k: is made" wait_for "stat '$T/one/$k/a' >/dev/null 2>&1 || [ -L '$T/one/$k/a' ]"; done
for k in "${kinds[@]}"; do ok "$k: is undone" undo "$k" a; done
ok 'two holds all of it' wait_for holds 7
ok 'and has all changes' wait_for same_seq
is 'nobody was told yet' "$(cat "$T"/said.* 2>/dev/null)" ''
ok 'the other disk is there' follow three
check_all a removed
echo written >&9
wait_for "[ -s '$T/read.a' ]"
is 'who has it open can use it' "$(cat "$T/read.a" "$T/err.open.a")" '0 written'
ok 'only that is held' wait_for holds 1
echo >&9
ok 'and nothing when it is closed' wait_for holds 0
ok 'all is given up then' wait_for '[ "$(marks)" = 8 ]'
"$MSYNCFS" watch --since=2 --once "$T/one" >"$T/changes"
for k in "${kinds[@]}"; do
	# What one has made there anew counts as well.
	if [ "$k" = excl ]; then want=2; else want=1; fi
	is "$k: it was made once" "$(awk -v x="$k/a" '$3 ~ /^(create|mkdir|mknod|symlink|link)$/ && $5 == x' "$T/changes" | wc -l)" "$want"
done
exec 9>&-

# ---- The primary dies meanwhile, and comes back
stop three
: >"$T/one/link/source"
wait_for same_seq
for k in "${kinds[@]}"; do try "$k" b; done
exec 9<>"$T/go.b"
for k in "${kinds[@]}"; do wait_for "stat '$T/one/$k/b' >/dev/null 2>&1 || [ -L '$T/one/$k/b' ]"; undo "$k" b || fail "$k is undone"; done
ok 'two holds all of it again' wait_for holds 7
wait_for same_seq
kill_daemon "$T/one.msync"
umount -i -f -l "$T/one"
ok 'the primary comes back' lead
check_all b 'after a crash'
echo written >&9
wait_for "[ -s '$T/read.b' ]"
is 'who has it open can use it still' "$(cat "$T/read.b" "$T/err.open.b")" '0 written'
echo >&9
ok 'and all is let go' wait_for holds 0
exec 9>&-

for n in two one; do ok "$n unmounts" stop "$n"; done
for n in "${names[@]}"; do ok "the store of $n is clean" "$MSYNCFS" check "$T/$n.msync"; done
done_testing
