#!/bin/bash
# SPDX-License-Identifier: MIT
# make lint: what can be seen without running anything. Tools that are not installed are named and left out.
#   tests/lint.sh [CPPFLAGS [JOBS]]
set -u
cd "$(dirname "$0")/.." || exit 2
read -ra cppflags <<<"${1:--I. -D_GNU_SOURCE}"
jobs=${2:-$(nproc)}
bad=0

fail() { printf 'lint: %s\n' "$*" >&2; bad=$((bad + 1)); }
have() { command -v "$1" >/dev/null || { printf 'lint: %s is not installed, left out\n' "$1"; return 1; }; }
# Lines on stdin are findings.
findings() {
	local text
	text=$(cat)
	[ -z "$text" ] || { printf '%s\n' "$text" >&2; fail "$1"; }
}

# One line of core may print: a condition that must hold does not, so the process aborts, and nobody is left to hand a
# text to. check_failed() says which condition it was, on stderr, where the daemon's log picks it up.
allow_check_failed() { grep -vE '^core/base\.c:[0-9]+:[[:space:]]*\(void\)fprintf\(stderr, .*this must hold'; }

mapfile -t c_files < <(find core fs tests -name '*.c' | sort)
mapfile -t all_c < <(find core fs tests -name '*.[ch]' | sort)
mapfile -t core_files < <(find core -name '*.[ch]' | sort)
mapfile -t documents < <(find . -name '*.md' -not -path './build/*' -not -path './.git/*' | sort)
mapfile -t manuals < <(find fs/man -name '*.[18]' 2>/dev/null | sort)
mapfile -t scripts < <(find tests mount-scripts .ci -type f | sort | while read -r f; do
	head -n1 "$f" | grep -aqE '^#!.*\b(ba|da|)sh\b' && printf '%s\n' "$f"; done)

# Directions: fs -> core/keys -> core/store, never back.
((${#core_files[@]} == 0)) || {
	grep -nE '#[[:space:]]*include[[:space:]]*[<"]([^>"]*/)?(fs/|fuse)' "${core_files[@]}" |
		findings 'core/ includes fs/ or fuse'
	grep -rnE --include='*.[ch]' '#[[:space:]]*include[[:space:]]*[<"]([^>"]*/)?keys/' core/store |
		findings 'core/store includes core/keys'
	# Only net*.c knows sockets: what decides is pure, so that the simulator can drive it.
	grep -rnE --include='*.[ch]' '#[[:space:]]*include[[:space:]]*<(sys/(socket|epoll|eventfd|un)|netinet/|arpa/|netdb|openssl/ssl)' \
		core | grep -v '^core/replica/net[^/]*:' | findings 'sockets outside core/replica/net*'
	grep -nE '#[[:space:]]*include[[:space:]]*[<"]([^>"]*/)?(store|keys|stream|check|salvage)/' core/replica/{net,wire,key}*.[ch] |
		findings 'the link knows of the store'
	grep -nE '\b(printf|puts|fprintf|perror|_?exit)[[:space:]]*\(' "${core_files[@]}" |
		grep -vE '^[^:]+:[0-9]+:[[:space:]]*(/?\*)' | allow_check_failed | findings 'core/ prints or exits'
}
# <linux/fs.h> and <sys/mount.h> have a BLOCK_SIZE of 1024, which replaces ours without a word: no file has both.
grep -lE '#[[:space:]]*include[[:space:]]*<(linux/fs|sys/mount)\.h>' "${all_c[@]}" | xargs grep -nE '\<(BLOCK_SIZE|PAGE_AT_ARGS)\>' /dev/null |
	grep -vE '^[^:]+:[0-9]+:[[:space:]]*/?\*' | findings 'BLOCK_SIZE beside a header that has one of its own'
for f in "${all_c[@]}" "${scripts[@]}" Makefile; do
	head -n 5 "$f" | grep -q 'SPDX-License-Identifier: MIT' || fail "$f: no SPDX line"
done

# What a mutant changes is still there: else it is none, and the machine that should find it proves nothing by it.
for f in tests/{crash,kill,sim,cluster,remote}/mutants.sh; do
	LOOK=1 "$f" 2>&1 >/dev/null | findings "$f: the code has changed, and the mutant must follow it"
done

# Every path that a document names in backticks exists, beside the document or from the root.
for doc in "${documents[@]}"; do
	# shellcheck disable=SC2016 # backticks are what is looked for
	grep -oE '`[A-Za-z0-9_.@-]+(/[A-Za-z0-9_.@*-]+)+/?`|`[A-Za-z0-9_@-]+\.(c|h|md|sh|mk|pm|service|mount|1|8)`' "$doc" |
		tr -d '`' | sort -u | while read -r path; do
		case $path in
		*/*) first=${path%%/*}
			# Only what claims to be ours: its first part is a directory of the tree.
			[ -d "$first" ] || [ -d "${doc%/*}/$first" ] || continue
			case $first in build|mnt|.msyncfs) continue;; esac;;
		esac
		# shellcheck disable=SC2086 # a pattern may name several files
		compgen -G "$path" >/dev/null || compgen -G "${doc%/*}/$path" >/dev/null ||
			{ [[ $path != */* ]] && [ -n "$(find core fs tests mount-scripts -name "$path" -print -quit)" ]; } ||
			printf '%s: %s does not exist\n' "$doc" "$path"
	done
done | findings 'documents name files that are not there'

if have shellcheck; then
	# SC2317: the functions that tests hand to ok() and nok() by name look unreachable to it.
	shellcheck -x -P SCRIPTDIR -e SC2317 "${scripts[@]}" || fail shellcheck
fi
if have mandoc && ((${#manuals[@]})); then
	mandoc -Tlint -Wwarning "${manuals[@]}" || fail mandoc
fi
if have cppcheck; then
	cppcheck --quiet --std=c11 --inline-suppr --error-exitcode=1 --enable=warning,portability \
		--suppress=missingIncludeSystem --suppress=unknownMacro -D_GNU_SOURCE -I. core fs tests/mount/helpers tests/remote || fail cppcheck
fi
if have clang-tidy; then
	checks='-*,clang-analyzer-*,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling'
	checks+=',bugprone-*,-bugprone-easily-swappable-parameters,-bugprone-reserved-identifier,-bugprone-narrowing-conversions'
	checks+=',-bugprone-assignment-in-if-condition,-bugprone-implicit-widening-of-multiplication-result'
	# Its stderr only counts the warnings that were left out; the findings are on stdout.
	text=$(printf '%s\n' "${c_files[@]}" | grep -v '^tests/' | xargs -P "$jobs" -I '{}' \
		clang-tidy --quiet --warnings-as-errors='*' --checks="$checks" '{}' -- -std=gnu11 "${cppflags[@]}" 2>/dev/null) ||
		{ printf '%s\n' "$text" >&2; fail clang-tidy; }
fi

((bad == 0)) && { echo 'lint: clean'; exit 0; }
printf 'lint: %d findings\n' "$bad" >&2
exit 1
