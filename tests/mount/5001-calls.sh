#!/bin/bash
# SPDX-License-Identifier: MIT
# What programs see when every change is a call that goes away as bytes, over a line that breaks now and then, and is answered later: the same as on
# a local mount, but for access times, which a remote mount leaves alone. The tests of names, contents and attributes once more, with the
# daemon of tests/mount/loop.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
loop=$ROOT/build/$MODE/tests/mount/loop/msyncfs
for t in 1001-names 1002-links 1003-rename 1005-unlinked 2001-fsx 2002-sparse 2003-append 2004-mmap 2005-direct 3001-modes 3003-xattr 3004-acl 4002-fsync; do
	MSYNCFS=$loop ok "$t" "$ROOT/tests/mount/$t.sh"
done
# A call without an answer each second time, and none at all.
LOOP_CUT=2 MSYNCFS=$loop ok '1003-rename, cut at each second call' "$ROOT/tests/mount/1003-rename.sh"
LOOP_CUT=0 MSYNCFS=$loop ok '3001-modes, never cut' "$ROOT/tests/mount/3001-modes.sh"
done_testing
