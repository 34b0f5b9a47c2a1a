#!/bin/bash
# SPDX-License-Identifier: MIT
# Makes the stores of the format version that the present build writes, when that version is released, and those that its
# folder lacks still:
#   make build/release/tests/unit/test_compat && tests/compat/make.sh 1
# They are kept for ever, and are never made anew: every later build opens them (tests/unit/test_compat.c).
set -eu
cd "$(dirname "$0")/../.."
version=${1:?usage: tests/compat/make.sh VERSION}
now=$(awk '$2 == "FORMAT_VERSION" { sub("u", "", $3); print $3 }' core/store/format.h)
[ "$version" = "$now" ] || { echo "this build writes version $now, not $version" >&2; exit 1; }
folder=tests/compat/v$version
mkdir -p "$folder"
exec "${BUILD:-build/release}/tests/unit/test_compat" --make "$folder"
