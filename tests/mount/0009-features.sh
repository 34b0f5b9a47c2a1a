#!/bin/bash
# SPDX-License-Identifier: MIT
# A store that a later version has written: what this one does not know is ignored, read only, or refused, as its
# superblock says (core/FORMAT.md section 2), by every verb. Refused means one line, and not a byte changed.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

mount_store >/dev/null || fail mount
echo old >"$MNT/file"
umount_store
cp "$STORE" "$T/good"

# line NAME WANT REGEX COMMAND...: status (any: not 0), one line on stderr, nothing changed.
line() {
	local name=$1 want=$2 regex=$3 sum status
	shift 3
	sum=$(cksum <"$STORE")
	timeout 60 "$@" </dev/null >"$T/out" 2>"$T/err"
	status=$?
	[ "$want" != any ] || want=$((status == 0 ? 1 : status))
	is "$name" "$status, $(wc -l <"$T/err") line" "$want, 1 line" || diag "$(cat "$T/err")"
	like "$name: says why" "$(cat "$T/err")" "$regex"
	nok "$name: is not mounted" is_mounted
	is "$name: the store is as it was" "$(cksum <"$STORE")" "$sum"
}

refused() { # WHAT REGEX
	line "$1, mount" any "$2" "$MSYNCFS" mount "$STORE" "$MNT"
	line "$1, mount -o ro" any "$2" "$MSYNCFS" mount -o ro "$STORE" "$MNT"
	line "$1, check" 8 "$2" "$MSYNCFS" check "$STORE"
	line "$1, salvage" 8 "$2" "$MSYNCFS" check --salvage "$STORE" "$T/new.msync"
	line "$1, dump" 1 "$2" "$MSYNCFS" dump "$STORE" "$T/stream"
	nok "$1: nothing was made" test -e "$T/new.msync" -o -e "$T/stream"
}

for bit in 0x2 0x80000000 0x8000000000000000; do
	cp "$T/good" "$STORE"
	superset "$STORE" incompat $bit >/dev/null
	refused "an unknown incompatible feature ($bit)" 'does not know.*newer msyncfs'

	cp "$T/good" "$STORE"
	superset "$STORE" ro_compat $bit >/dev/null
	line "an unknown feature for writers ($bit), mount" any 'may only read.*-o ro' "$MSYNCFS" mount "$STORE" "$MNT"
	sum=$(cksum <"$STORE")
	ok "an unknown feature for writers ($bit), mount -o ro" mount_store -o ro
	is 'it can be read' "$(cat "$MNT/file")" old
	nok 'it cannot be written' touch "$MNT/new"
	umount_store
	ok 'check' "$MSYNCFS" check "$STORE"
	ok 'dump' "$MSYNCFS" dump "$STORE" "$T/stream"
	rm -f "$T/stream"
	is 'the store is as it was' "$(cksum <"$STORE")" "$sum"

	cp "$T/good" "$STORE"
	superset "$STORE" compat $bit >/dev/null
	ok "an unknown harmless feature ($bit), mount" mount_store
	is 'it can be read' "$(cat "$MNT/file")" old
	ok 'and written' cp "$T/good" "$MNT/new"
	umount_store
	ok 'check' "$MSYNCFS" check "$STORE"
	is "whoever knows the feature finds it" "$(superset "$STORE" compat 0)" "$(printf %u "$bit")"
done

cp "$T/good" "$STORE"
superset "$STORE" version 2 >/dev/null
refused 'a newer format' 'format version 2.*newer msyncfs'
# A damaged one of the old version does not hide that.
dd if=/dev/urandom of="$STORE" bs=4096 count=1 conv=notrunc status=none
refused 'a newer format, a superblock damaged' 'format version 2.*newer msyncfs'
done_testing
