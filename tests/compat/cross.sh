#!/bin/bash
# SPDX-License-Identifier: MIT
# Big-endian and 32-bit builds: core and the unit tests are built for s390x (big-endian, 64 bit) and i386 (little-endian,
# 32 bit), and run by qemu-user on the same stores as everywhere else (tests/compat/vN).
#   tests/compat/cross.sh [ARCH...]         TESTS="compat page ..."   which of tests/unit/test_*.c to run
# Debian's own libraries for these machines are fetched into build/cross/ARCH; nothing is installed.
set -u
cd "$(dirname "$0")/../.." || exit 1
packages='libzstd-dev libzstd1 libxxhash-dev libxxhash0 libssl-dev libssl3 libcmocka-dev libcmocka0'
# What does not take minutes under qemu. test_map and test_fault count system calls that qemu makes differently.
tests=${TESTS:-compat super page record tree journal space keys acl check stream salvage_lead wire key}
failed=0

# name, GNU triplet, library folder, qemu's name
machine()
{
	case $1 in
	s390x)	echo s390x-linux-gnu s390x-linux-gnu s390x;;
	i386)	echo i686-linux-gnu i386-linux-gnu i386;;
	powerpc) echo powerpc-linux-gnu powerpc-linux-gnu ppc;;
	*)	return 1;;
	esac
}

# The libraries, unpacked into $1.
fetch()
{
	local root=$1 arch=$2 o p
	[ ! -e "$root/done" ] || return 0
	rm -rf "$root"
	mkdir -p "$root/apt/lists/partial" "$root/apt/cache/archives/partial" "$root/debs"
	root=$(realpath "$root")
	o=(-q -o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o "Dir::State::lists=$root/apt/lists"
		-o "Dir::Cache=$root/apt/cache" -o "APT::Sandbox::User=root")
	# One index of several may be missing for a moment; whether the packages can be had is seen next.
	apt-get "${o[@]}" update >"$root/log" 2>&1
	# shellcheck disable=SC2086
	(cd "$root/debs" && apt-get "${o[@]}" download $packages) >>"$root/log" 2>&1 || { cat "$root/log"; return 1; }
	for p in "$root"/debs/*.deb; do
		dpkg-deb -x "$p" "$root" || return 1
	done
	rm -rf "$root/apt" "$root/debs"
	touch "$root/done"
}

for arch in "${@:-s390x}"; do
	read -r triplet libs qemu <<<"$(machine "$arch")" || { echo "$arch: not known" >&2; exit 2; }
	root=build/cross/$arch/root
	fetch "$root" "$arch" || { echo "$arch: the libraries cannot be fetched" >&2; failed=1; continue; }
	programs=
	# qemu keeps a table of all mapped pages: a reservation of 16 TiB would need more memory than there is.
	limit=
	[ "$arch" != s390x ] || limit='-R 0x400000000'
	for t in $tests; do
		programs="$programs build/cross/$arch/tests/unit/test_$t"
	done
	# With 32 bits every size_t warns; what is in them is bounded by what could be mapped.
	quiet=
	[ "$arch" = s390x ] || quiet='-Wno-conversion -Wno-psabi'
	# shellcheck disable=SC2086
	make -s B="build/cross/$arch" CC="$triplet-gcc" AR="$triplet-ar" CORE_LIBS='-lxxhash -lzstd -lssl -lcrypto' TEST_LIBS=-lcmocka \
		CPPFLAGS="-isystem $root/usr/include -isystem $root/usr/include/$libs" WERROR=1 \
		SAN_CFLAGS="$quiet" \
		LDFLAGS="-L$root/usr/lib/$libs" LDLIBS="${LDLIBS:-}" $programs || { failed=1; continue; }
	# A child that a test forks hangs in qemu-i386; an x86-64 kernel runs these programs itself.
	run="qemu-$qemu-static $limit -L /usr/$triplet -E LD_LIBRARY_PATH=$root/usr/lib/$libs"
	if [ "$arch" = i386 ] && "/usr/$triplet/lib/ld-linux.so.2" --version >/dev/null 2>&1; then
		run="/usr/$triplet/lib/ld-linux.so.2 --library-path /usr/$triplet/lib:$root/usr/lib/$libs"
	fi
	for p in $programs; do
		log=build/cross/$arch/$(basename "$p").log
		# shellcheck disable=SC2086
		if timeout -k 5 "${TEST_TIMEOUT:-600}" $run "$p" >"$log" 2>&1; then
			echo "ok: $arch $(basename "$p")"
		else
			failed=1
			echo "FAILED: $arch $(basename "$p") ($log)"
			grep -v 'OK \]\|RUN' "$log" | tail -n 12
		fi
	done
done
exit $failed
