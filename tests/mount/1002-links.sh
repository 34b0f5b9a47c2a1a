#!/bin/bash
# SPDX-License-Identifier: MIT
# Hard links, symlinks, fifos, sockets and device nodes.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
mount_store >/dev/null || fail mount
cd "$MNT" || exit 1

echo one >a
mkdir d
errno 'link' ok sysop link a b
errno 'link into a directory' ok sysop link a d/c
is 'three names, one inode' "$(stat -c %i a b d/c | sort -u | wc -l) $(stat -c %h a)" '1 3'
echo two >>b
is 'written through one, read through another' "$(tr '\n' ' ' <d/c)" 'one two '
errno 'link over a name' EEXIST sysop link a b
errno 'link of nothing' ENOENT sysop link nothing c
errno 'link of a directory' EPERM sysop link d e
errno 'unlink of the first name' ok sysop unlink a
is 'the others stay' "$(stat -c %h b) $(head -n 1 d/c)" '2 one'
mv b d/b
is 'rename keeps the count' "$(stat -c %h d/c)" 2
errno 'rename onto another name of the same file does nothing' ok sysop rename none d/b d/c
# shellcheck disable=SC2012 # what ls sees is the question
is 'both names are still there' "$(ls d | tr '\n' ' ')" 'b c '
for i in $(seq 300); do ln d/b "d/l$i"; done
is 'three hundred links' "$(stat -c %h d/b)" 302
rm d/l*
is 'and back' "$(stat -c %h d/b)" 2

errno 'symlink' ok sysop symlink d/c s
is 'is followed' "$(head -n 1 s)" one
is 'readlink' "$(readlink s)" d/c
is 'its size is the length of its target' "$(stat -c %s s)" 3
errno 'O_NOFOLLOW' ELOOP sysop open rdonly,nofollow s
ln -s nothing dangling
errno 'dangling' ENOENT sysop open rdonly dangling
ln -s loop loop
errno 'loop' ELOOP sysop open rdonly loop
target=$(printf 't%.0s' $(seq 4095))
errno 'a target of 4095 bytes' ok sysop symlink "$target" long
is 'is read back' "$(readlink long)" "$target"
errno 'a longer one' ENAMETOOLONG sysop symlink "${target}t" longer
ln -s "$(printf '\x01\xff \n x')" odd
is 'a target of odd bytes' "$(readlink odd; echo .)" "$(printf '\x01\xff \n x\n.')"
errno 'hard link of a symlink' ok sysop link s s2
is 'is the symlink' "$(readlink s2)" d/c

mkfifo -m 640 fifo
is 'fifo' "$(stat -c %F fifo)" fifo
echo through >fifo &
is 'a fifo passes data on' "$(timeout 10 cat fifo)" through
wait $!
errno 'socket' ok sysop socket sock
is 'socket node' "$(stat -c %F sock)" socket
if [ "$(id -u)" = 0 ]; then
	errno 'character device' ok sysop mknod 020640 1 3 null
	is 'its numbers' "$(stat -c '%F %t %T %a' null)" 'character special file 1 3 640'
	errno 'block device' ok sysop mknod 060600 259 65537 block
	is 'its numbers too' "$(stat -c '%F %t %T' block)" 'block special file 103 10001'
	awk -v m="$MNT" '$2 == m { print $4 }' /proc/mounts | grep -qw nodev ||
		errno 'the device works' ok sh -c 'echo x >null && echo ok'
fi
stat -c '%n %F %t %T %h %i' -- * >"$T/before"
{ cd / && remount_store >/dev/null && cd "$MNT"; } || fail remount
is 'all of it is kept over a remount' "$(stat -c '%n %F %t %T %h %i' -- *)" "$(cat "$T/before")"
is 'the long target too' "$(readlink long)" "$target"
cd / || exit
done_testing
