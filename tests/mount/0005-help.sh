#!/bin/bash
# SPDX-License-Identifier: MIT
# --help, help VERB and the man pages name the same options and verbs.
export NO_MOUNT=1
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh" || exit 1

"$MSYNCFS" --help >"$T/help" 2>"$T/err"
is '--help exits 0' "$?" 0
ok '--help is on stdout' test -s "$T/help"
is '--help says nothing on stderr' "$(cat "$T/err")" ''
ok 'help is the same' diff "$T/help" <("$MSYNCFS" help)
ok '--version exits 0' "$MSYNCFS" --version
like '--version is one line with a number' "$("$MSYNCFS" --version)" '^msyncfs [0-9]+\.[0-9]+[^[:cntrl:]]*$'

pages=("$ROOT"/fs/man/*.[18])
ok 'there are man pages' test -f "${pages[0]}"
# Plain text of the pages: without the roff that marks hyphens, bold and italics.
man_text() {
	sed -E -e '/^\.\\"/d' -e 's/\\-/-/g; s/\\f(.|\(..|\[[^]]*\])//g; s/\\&//g; s/\\\(aq/'"'"'/g; s/^\.[A-Za-z]+ //; s/"//g' "$@" |
		sed -E 's/\bFl Fl /--/g; s/\bFl -/--/g; s/\bFl ([A-Za-z])/-\1/g'
}
man_text "${pages[@]}" >"$T/man"
long_options() { grep -oE -- '--[a-z][a-z-]+' "$@" | sort -u; }

for verb in mount status check dump load keygen promote demote watch sync; do
	"$MSYNCFS" help "$verb" >"$T/help-$verb" 2>"$T/err"
	is "help $verb exits 0" "$?" 0
	ok "help $verb says how it is used" grep -q "msyncfs $verb" "$T/help-$verb"
	ok "$verb is in the general help" grep -qw -- "$verb" "$T/help"
	ok "$verb is in the man pages" grep -qw -- "$verb" "$T/man"
done
cat "$T"/help* | long_options >"$T/options.help"
long_options "$T/man" >"$T/options.man"
is 'every option of the help is in the man pages' "$(comm -23 "$T/options.help" "$T/options.man" | tr '\n' ' ')" ''
is 'every option of the man pages is in the help' "$(comm -13 "$T/options.help" "$T/options.man" | tr '\n' ' ')" ''

# What the help names, the program knows: an option it knows is not called unknown.
while read -r option; do
	"$MSYNCFS" mount "$option=1" "$T/nowhere/store" "$T/nowhere" >"$T/out" 2>&1 </dev/null
	nok "mount knows $option" grep -qiE "unknown option|unrecognized|unknown.*$option" "$T/out"
done < <(long_options "$T/help-mount" | grep -vE -- '--(help|version)$')

if command -v mandoc >/dev/null; then
	ok 'mandoc finds nothing wrong' mandoc -Tlint -Wwarning "${pages[@]}"
elif command -v man >/dev/null; then
	for page in "${pages[@]}"; do
		is "man finds nothing wrong in ${page##*/}" "$(man --warnings -l "$page" 2>&1 >/dev/null)" ''
	done
else
	skip_one 'neither mandoc nor man is there'
fi
done_testing
