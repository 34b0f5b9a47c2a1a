#!/bin/bash
# SPDX-License-Identifier: MIT
# Shared writable mappings between processes, with read(2), truncation, and over a remount.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1
for option in '' --writeback; do
	# shellcheck disable=SC2086 # no word or one
	mount_store $option >/dev/null || fail "mount $option"
	ok "processes share a mapping $option" many map "$MNT/map" 4 512
	cksum <"$MNT/map" >"$T/sum"
	ok "bytes behind the end do not come back $option" many trunc "$MNT/trunc" 300
	# shellcheck disable=SC2086
	remount_store $option >/dev/null || fail remount
	is "the mapping's bytes are in the store $option" "$(cksum <"$MNT/map")" "$(cat "$T/sum")"
	umount_store
done
mount_store >/dev/null || fail mount
cp "$HELPERS/sysop" "$MNT/program"
errno 'a program runs from the mount' ok "$MNT/program" mkdir "$MNT/d"
errno 'and is busy while it runs' ETXTBSY sh -c "'$MNT/program' hold '$MNT' 20 >'$T/held' & while ! grep -q held '$T/held'; do sleep 0.05; done
	sysop open wronly '$MNT/program'; kill \$!"
umount_store
done_testing
