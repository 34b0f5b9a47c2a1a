#!/bin/bash
# SPDX-License-Identifier: MIT
# Programs nobody here wrote: git, sqlite3, tar, rsync, vim, make and a C compiler.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
mount_store >/dev/null || fail mount
cd "$MNT" || exit 1
export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@t GIT_CONFIG_NOSYSTEM=1

have() {
	local tool
	for tool; do
		command -v "$tool" >/dev/null && continue
		if [ "${CI:-}" = true ]; then fail "$tool is missing"; else skip_one "$tool is missing"; fi
		return 1
	done
}

if have git; then
	ok 'git init' git init -q repo
	cp -r "$ROOT"/mount-scripts "$ROOT"/tests/mount repo/
	ok 'git add' git -C repo add -A
	ok 'git commit' git -C repo commit -q -m first
	for i in $(seq 20); do echo "$i" >>repo/log; git -C repo add log; git -C repo commit -q -m "$i" || fail "commit $i"; done
	ok 'git clone' git clone -q repo clone
	ok 'git gc' git -C repo gc -q
	ok 'git fsck' git -C repo fsck --strict
	ok 'git pull' sh -c 'echo more >>repo/log && git -C repo commit -qam more && git -C clone pull -q'
	is 'git status is clean' "$(git -C clone status --porcelain)" ''
	is 'git log' "$(git -C clone log --oneline | wc -l)" 22
	ok 'git checkout of an older state and back' sh -c 'git -C clone checkout -q HEAD~10 && git -C clone checkout -q -'
fi

if have sqlite3; then
	for journal in DELETE TRUNCATE PERSIST WAL; do
		sqlite3 "$journal.db" "PRAGMA journal_mode=$journal; CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT);" >/dev/null
		for w in 1 2; do
			(for i in $(seq 15); do
				sqlite3 -cmd '.timeout 20000' "$journal.db" "BEGIN IMMEDIATE; INSERT INTO t (b) VALUES (hex(randomblob(2000)));
					UPDATE t SET b = b || '$w' WHERE a = 1; COMMIT;" || exit 1
			done; touch "$T/$journal.$w") &
		done
		wait
		ok "sqlite3 $journal: two writers" test -e "$T/$journal.1" -a -e "$T/$journal.2"
		is "sqlite3 $journal: all rows" "$(sqlite3 "$journal.db" 'SELECT count(*) FROM t')" 30
		is "sqlite3 $journal: integrity" "$(sqlite3 "$journal.db" 'PRAGMA integrity_check')" ok
	done
	# A database under write when the daemon dies is whole afterwards.
	(for i in $(seq 1000); do sqlite3 WAL.db "INSERT INTO t (b) VALUES ('x'); SELECT count(*) FROM t;" || exit; done) >"$T/rows" 2>/dev/null &
	wait_for "[ \"\$(cat '$T/rows' 2>/dev/null | wc -l)\" -gt 5 ]"
	cd / || exit
	kill_daemon
	wait
	mount_store >/dev/null || fail 'mount after kill'
	cd "$MNT" || exit 1
	is 'sqlite3 after kill -9: integrity' "$(sqlite3 WAL.db 'PRAGMA integrity_check')" ok
	ok 'sqlite3 after kill -9: every row that was told' test "$(sqlite3 WAL.db 'SELECT count(*) FROM t')" -ge "$(tail -n 1 "$T/rows")"
fi

mkdir -p "$T/src/deep/er"
cp -r "$ROOT/tests" "$T/src/"
ln -s deep "$T/src/link"
ln "$T/src/tests/TapCount.pm" "$T/src/hard"
truncate -s 5M "$T/src/sparse"
printf x >>"$T/src/sparse"
chmod 4750 "$T/src/hard"
mkfifo "$T/src/fifo"
listing() { (cd "$1" && find . -printf '%P %y %m %U %G %s %l %T@ %n\n' | sed 's/ d \([0-9]*\) \([0-9]*\) \([0-9]*\) [0-9]* / d \1 \2 \3 - /' | sort); }
have tar && {
	mkdir untar
	ok 'tar in' sh -c "tar -C '$T/src' --format=posix --sparse -cf - . | tar -C untar -xpf -"
	is 'the same' "$(listing untar | cksum)" "$(listing "$T/src" | cksum)"
	ok 'contents too' diff -r --no-dereference --exclude=fifo untar "$T/src"
	mkdir "$T/out"
	ok 'tar out' sh -c "tar -C untar --format=posix --sparse -cf - . | tar -C '$T/out' -xpf -"
	is 'the same again' "$(listing "$T/out" | cksum)" "$(listing "$T/src" | cksum)"
}
have rsync && {
	ok 'rsync in' rsync -aHAXS "$T/src/" rsynced/
	is 'the same files' "$(listing rsynced | grep ' f ' | cksum)" "$(listing "$T/src" | grep ' f ' | cksum)"
	is 'a second run finds nothing to do' "$(rsync -aHAXSi "$T/src/" rsynced/)" ''
	ok 'rsync --checksum agrees' test -z "$(rsync -aHAXSic "$T/src/" rsynced/)"
}
vim=$(command -v vim.tiny || command -v vim || command -v vi)
if [ -n "$vim" ]; then
	printf 'one\ntwo\n' >edited
	chmod 640 edited
	ok 'vim edits a file' timeout 30 "$vim" -u NONE -es -c '%s/two/three/' -c 'wq' edited </dev/null
	is 'as asked' "$(tr '\n' ' ' <edited) $(stat -c %a edited)" 'one three  640'
	ok 'vim with a backup and a swap file' timeout 30 "$vim" -u NONE -es -c 'set backup writebackup swapfile backupskip=' -c 'normal Goend' -c 'wq' edited </dev/null
	is 'leaves the backup, not the swap file' "$(find . -maxdepth 1 -name '*edited*' -printf '%f\n' | sort | tr '\n' ' ')" 'edited edited~ '
elif [ "${CI:-}" = true ]; then fail 'vim is missing'; else skip_one 'vim is missing'; fi

if have make gcc; then
	mkdir build
	printf '#include <stdio.h>\n#include "n.h"\nint main(void) { printf("%%d\\n", N); return 0; }\n' >build/main.c
	echo '#define N 1' >build/n.h
	printf 'prog: main.o\n\tgcc -o $@ $<\nmain.o: main.c n.h\n\tgcc -g -c -o $@ $<\n' >build/Makefile
	ok 'make and gcc' make -s -C build
	is 'the program runs' "$(build/prog)" 1
	is 'make has nothing to do' "$(make -C build | grep -c gcc)" 0
	wait_for "[ \$(date +%s) -gt $(date +%s) ]"
	echo '#define N 2' >build/n.h
	ok 'make sees the change' make -s -C build
	is 'the new program runs' "$(build/prog)" 2
fi
cd / || exit
umount_store
ok 'check' "$MSYNCFS" check "$STORE"
done_testing
