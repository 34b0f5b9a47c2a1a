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

# Those with a letter of their own stand in the synopsis by that.
for verb in mount status check dump load keygen promote demote watch sync; do
	sed -n '/^\.Sh SYNOPSIS$/,/^\.Sh DESCRIPTION$/p' "$ROOT/fs/man/msyncfs-$verb.1" | sed 's/^\.Fl /.Op Fl /' | man_text |
		long_options >"$T/options.short"
	is "the synopsis of $verb has every option of its help" \
		"$(grep -E '^ +--' "$T/help-$verb" | grep -oE '^ +--[a-z-]+' | tr -d ' ' | sort -u | comm -23 - "$T/options.short" | tr '\n' ' ')" ''
done

# What the help names, the program knows: an option it knows is not called unknown.
while read -r option; do
	"$MSYNCFS" mount "$option=1" "$T/nowhere/store" "$T/nowhere" >"$T/out" 2>&1 </dev/null
	nok "mount knows $option" grep -qiE "unknown option|unrecognized|unknown.*$option" "$T/out"
done < <(long_options "$T/help-mount" | grep -vE -- '--(help|version)$')

# Words of -o: those of the table in the code, of the help, and of the man page. Every long option of mount is one, too.
table() { sed -n 's/^[[:space:]]*{ "\([A-Za-z_-]*\)", .*\(AT_[A-Z]*\), OPT_.*/\2 \1/p' "$ROOT/fs/options.c"; }
table | sed -n 's/^AT_\(WORD\|BOTH\) //p' | sort -u >"$T/words.code"
table | sed -n 's/^AT_\(LONG\|BOTH\) /--/p' | sort -u >"$T/long.code"
# Those without a text of their own are not in the help.
sed -n '/^Mount options/,$ s/^  -o \([A-Za-z_-]*\).*/\1/p' "$T/help-mount" | sort -u >"$T/words.help"
section() { sed -n "/^\.S[hs] $2\$/,/^\.Sh/p" "$ROOT/fs/man/$1"; }
# In ".It Cm a , b Ns = Ns ...": a and b.
section msyncfs-mount.1 'Mount options' | sed -n 's/^\.It Cm //p' | sed 's/ Ns .*//; s/ , /\n/g' | sort -u >"$T/words.man"
ok 'the code has words of -o' test "$(wc -l <"$T/words.code")" -gt 50
long_options "$T/help-mount" >"$T/long.help"
is 'every long option of the code is in the help of mount, and the other way round' \
	"$(comm -3 "$T/long.code" "$T/long.help" | tr -d '\n')" ''
sed 's/^--//' "$T/long.code" | comm -23 "$T/words.code" - >"$T/words.only"
is 'every word of the code that is no long option is in the man page' "$(comm -23 "$T/words.only" "$T/words.man" | tr '\n' ' ')" ''
is 'every word of the help is in the man page' "$(comm -23 "$T/words.help" "$T/words.man" | tr '\n' ' ')" ''
is 'every word of the help is in the code' "$(comm -23 "$T/words.help" "$T/words.code" | tr '\n' ' ')" ''
is 'every word of the man page is in the code' "$(comm -23 "$T/words.man" "$T/words.code" | tr '\n' ' ')" ''
unknown=
while read -r word; do
	"$MSYNCFS" mount -o "$word" "$T/nowhere/store" "$T/nowhere" >"$T/out" 2>&1 </dev/null
	! grep -q 'unknown mount option' "$T/out" || unknown="$unknown $word"
done < <(cat "$T/words.man" "$T/words.help")
is 'the program knows them all' "$unknown" ''
"$MSYNCFS" mount -o frobnicate "$T/nowhere/store" "$T/nowhere" >"$T/out" 2>&1 </dev/null
ok 'and says so of one that it does not know' grep -q 'unknown mount option' "$T/out"

# Exit statuses: what the code of a verb can return, and what its man page lists.
number() { sed -n 's/^#define EXIT_[A-Z_]*[[:space:]]*\([0-9]*\).*/\1/p' "$@"; }
for page in "$ROOT"/fs/man/msyncfs-*.1; do
	verb=${page##*/msyncfs-}
	verb=${verb%.1}
	code=$ROOT/fs/cmd_$verb.c
	[ -f "$code" ] || code=$(grep -l "^int cmd_$verb(" "$ROOT"/fs/*.c)
	# check has those of fsck(8) instead of the common ones.
	want=$({ echo 0; number "$code"; [ "$verb" = check ] || number "$ROOT/fs/cmd.h"; } | sort -un | tr '\n' ' ')
	is "$verb: the exit statuses of the man page are those of the code" \
		"$(section "msyncfs-$verb.1" 'EXIT STATUS' | sed -n 's/^\.It \([0-9]*\)$/\1/p' | sort -un | tr '\n' ' ')" "$want"
done
for script in mount umount fsck; do
	want=$({ echo 0; sed -n '/^[[:space:]]*#/d; s/[[:space:]]#.*//; p' "$ROOT/mount-scripts/$script.msyncfs" |
		grep -oE '\bexit [0-9]+' | cut -d' ' -f2; [ "$script" != fsck ] || echo 4; } | sort -un | tr '\n' ' ')
	is "$script.msyncfs: the exit statuses of the man page are those of the script" \
		"$(section "$script.msyncfs.8" 'EXIT STATUS' | sed -n 's/^\.It \([0-9]*\)$/\1/p' | sort -un | tr '\n' ' ')" "$want"
	# Letters that the script takes, those of a case branch in its loop, are named in its page.
	# shellcheck disable=SC2016 # the script's own words
	for letter in $(sed -n '/case \${letters/,/esac/ s/^[[:space:]]*\([A-Za-z|]*\)).*/\1/p' "$ROOT/mount-scripts/$script.msyncfs" | tr '|' ' '); do
		ok "$script.msyncfs -$letter is in its man page" grep -qE "^\.(It|Op) Fl .*$letter" "$ROOT/fs/man/$script.msyncfs.8"
	done
done

if command -v mandoc >/dev/null; then
	ok 'mandoc finds nothing wrong' mandoc -Tlint -Wwarning "${pages[@]}"
elif command -v man >/dev/null; then
	for page in "${pages[@]}"; do
		is "man finds nothing wrong in ${page##*/}" "$(man --warnings -l "$page" 2>&1 >/dev/null)" ''
	done
else
	skip_one 'neither mandoc nor man is there'
fi

# What cannot be printed is no success. (check has a number of its own for that, which is not 1.)
full() { "$MSYNCFS" "$@" >/dev/full 2>"$T/err" </dev/null; }
for verb in '' mount status check dump load keygen promote demote watch sync; do
	full ${verb:+help} ${verb:---help}
	is "help ${verb:-itself} on a full disk: status, lines" "$? $(wc -l <"$T/err")" '1 1'
	full ${verb:+"$verb"} --help
	is "${verb:+$verb }--help on a full disk: status, lines" "$? $(wc -l <"$T/err")" '1 1'
done
full --version
is '--version on a full disk: status, lines' "$? $(wc -l <"$T/err")" '1 1'
full keygen -
is 'keygen - on a full disk: status, lines' "$? $(wc -l <"$T/err")" '1 1'
like 'it says what, where, what to do' "$(cat "$T/err")" '^msyncfs: standard output: .*: .*'
"$MSYNCFS" --version >&- 2>"$T/err"
is '--version to nowhere: status, lines' "$? $(wc -l <"$T/err")" '1 1'
done_testing
