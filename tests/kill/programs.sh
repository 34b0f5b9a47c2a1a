#!/bin/bash
# SPDX-License-Identifier: MIT
# programs.sh: two programs that nobody here wrote, at work in a mount whose daemon will be killed.
#
#   programs.sh work DIR ACKS    one row for sqlite (rollback journal, then WAL), one commit for git, again and again, until
#                                one of them fails; what was acknowledged is noted in ACKS, outside the mount
#   programs.sh check DIR ACKS   the databases and the repository are whole and have all of it
set -u
dir=$2 acks=$3
export HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=k GIT_AUTHOR_EMAIL=k@k GIT_COMMITTER_NAME=k GIT_COMMITTER_EMAIL=k@k
git=(git -C "$dir/repo" -c gc.auto=0 -c maintenance.auto=false)

# The number that was acknowledged last, 0 if none was.
acked() { sed -n "s/^$1 //p" "$acks" 2>/dev/null | tail -n 1 | grep . || echo 0; }

row() { sqlite3 -bail "$dir/$1.db" "pragma busy_timeout=5000; $2" 2>&1; }

begin() {
	local mode
	for mode in delete wal; do
		row $mode "pragma journal_mode=$mode; create table if not exists t (n integer primary key, b blob);" >/dev/null || return
	done
	git -C "$dir/repo" rev-parse --git-dir >/dev/null 2>&1 || git init -q "$dir/repo" 2>/dev/null
}

work() {
	local n mode
	begin || return
	n=$(acked last)
	while n=$((n + 1)); do
		for mode in delete wal; do
			row $mode "insert or ignore into t values ($n, randomblob(3000));" >/dev/null || return
			echo "$mode $n" >>"$acks"
		done
		{ seq "$n" >"$dir/repo/f$((n % 5))"; } 2>/dev/null || return
		"${git[@]}" add -A >/dev/null 2>&1 && "${git[@]}" commit -q --allow-empty -m "$n" >/dev/null 2>&1 || return
		echo "git $n" >>"$acks"
		echo "last $n" >>"$acks"
	done
}

bad() { echo "$*"; exit 1; }

check() {
	local n text mode
	for mode in delete wal; do
		n=$(acked $mode)
		[ -e "$dir/$mode.db" ] || { [ "$n" = 0 ] && continue; bad "$mode.db is gone, row $n was acknowledged"; }
		text=$(row $mode 'pragma integrity_check') || bad "$mode.db: $text"
		[ "${text##*$'\n'}" = ok ] || bad "$mode.db: $text"
		[ "$n" = 0 ] && continue
		text=$(row $mode "select count(*) from t where n <= $n") || bad "$mode.db: $text"
		[ "${text##*$'\n'}" = "$n" ] || bad "$mode.db: ${text##*$'\n'} of $n rows"
	done
	n=$(acked git)
	if [ -d "$dir/repo/.git" ]; then
		# git could not take its own locks away when the mount died under it.
		find "$dir/repo/.git" -name '*.lock' -delete
	fi
	[ "$n" = 0 ] && return 0
	text=$("${git[@]}" fsck --full --strict 2>&1) || bad "git fsck: $text"
	for text in $("${git[@]}" log --format=%s); do
		[ "$text" = "$n" ] && return 0
	done
	bad "git log has no commit $n: $("${git[@]}" log --format=%s 2>&1 | head -n 3 | tr '\n' ' ')"
}

case $1 in
# A program whose mapping dies with the mount is told of by the shell.
work)	exec 2>/dev/null
	work
	exit 0;;
check) check;;
esac
