#!/bin/bash
# Gathers real text for the demo from Debian packages: English, Chinese, C, Python and mathematics.
#
#   launch/demo-corpus.sh [DIR]      DIR is build/demo unless given
#
# Packages are downloaded (48 MB) and unpacked into DIR/packages, not installed; what is there is not fetched
# again.  Writes DIR/text/{english,chinese,c,python,math}.jsonl, one document a line, and DIR/text/SOURCES.md,
# which says where each came from and under which licence.  Needs apt-get, dpkg-deb, awk, sed, gzip, xz and tar.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-build/demo}
packages=$dir/packages
text=$dir/text
export LC_ALL=C # awk and sed see bytes
mkdir -p "$packages" "$text"
packages=$(cd "$packages" && pwd)

say() { printf '%s\n' "$*"; }
fail() {
    printf 'demo-corpus: %s\n' "$*" >&2
    exit 6
}

# ---- packages ----

# apt-get with the system's package lists, or with lists of our own where they are missing and we are not root.
apt_options=()
apt() { apt-get -q "${apt_options[@]}" -o APT::Sandbox::User="$(id -un)" "$@"; }

update_lists() {
    say "package lists are missing or old: apt-get update"
    if [ "$(id -u)" != 0 ]; then
        mkdir -p "$packages"/apt/{state/lists/partial,cache/archives/partial}
        apt_options=(-o Dir::State="$packages/apt/state" -o Dir::Cache="$packages/apt/cache"
            -o Dir::State::status=/var/lib/dpkg/status)
    fi
    apt update >"$packages/apt.log" 2>&1 || fail "apt-get update failed: $(tail -1 "$packages/apt.log")"
}

# Downloads and unpacks a package into $packages/NAME, unless it is there.
fetch() {
    local name=$1 deb
    [ -e "$packages/$name/.unpacked" ] && return
    if ! ls "$packages/${name}"_*.deb >/dev/null 2>&1; then
        say "downloading $name"
        (cd "$packages" && apt download "$name" >apt.log 2>&1) || {
            update_lists
            (cd "$packages" && apt download "$name" >apt.log 2>&1)
        } || fail "cannot download $name: $(tail -1 "$packages/apt.log")"
    fi
    deb=$(ls "$packages/${name}"_*.deb)
    rm -rf "${packages:?}/$name"
    dpkg-deb -x "$deb" "$packages/$name" || fail "$deb is damaged; remove it and run this again"
    touch "$packages/$name/.unpacked"
}

version() { dpkg-deb -f "$packages/$1"_*.deb Version; }

# ---- from streams of text to documents ----
# Documents travel between the steps below as lines of text, each ended by a line that holds only this mark.
mark=$'\036'

# One JSON object a line; control characters and documents under 200 bytes are dropped.
to_jsonl() {
    sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/[ \t\r]*$//' -e 's/\t/\\t/g' | awk -v mark="$mark" '
        function finish() {
            sub(/^(\\n)+/, "", doc)
            sub(/(\\n)+$/, "", doc)
            if (length(doc) >= 200) print "{\"text\": \"" doc "\\n\"}"
            doc = ""
        }
        $0 == mark { finish(); next }
        { gsub(/[\001-\037\177]/, ""); doc = doc $0 "\\n" }
        END { finish() }'
}

# Drops lines of tables drawn with lines.
without_tables() { grep -v -e ┌ -e ├ -e └ -e │ -e ─ -e ━; }

# Cuts a stream at blank lines into documents of about 4 KiB.
pack() {
    awk -v mark="$mark" '
        { print; size += length($0) + 1 }
        /^$/ && size >= 4096 { print mark; size = 0 }
        END { print mark }'
}

# Names on stdin -> the names of those files that are UTF-8.
only_utf8() { LC_ALL=C.UTF-8 xargs -d '\n' grep -L -a -x -v '.*' || true; }

# ---- English ----
english() {
    # `bible -f` prints a verse a line, "Ge1:1 In the beginning ..."; a chapter is a document
    (cd "$packages/bible-kjv-text/usr/lib" &&
        "$packages/bible-kjv/usr/bin/bible" -f Gen1:1-Deu34:12 Mat1:1-Rev22:21) |
        awk -v mark="$mark" '
            match($0, /^[0-9]?[A-Za-z]+[0-9]+:/) {
                chapter = substr($0, 1, RLENGTH)
                if (chapter != last && last != "") print mark
                last = chapter
                sub(/^[^ ]+ /, "")
                print
            }
            END { print mark }'
    # sayings, ended by lines of "%"; without the collections that live on insults, drugs and drawings
    (cd "$packages/fortunes/usr/share/games/fortunes" &&
        ls | grep -vE '\.(dat|u8)$|^(men-women|ethnic|drugs|ascii-art|translate-me)$' | xargs cat) |
        sed 's/^%$//' | pack
    # the lexicon: what follows the first entry's ":term:"
    zcat "$packages/jargon-text/usr/share/doc/jargon-text/jargon.txt.gz" |
        awk '/^   :.*:/ { on = 1 } on' | without_tables | sed 's/^   //' | pack
}

# ---- Chinese ----

# Manual pages from roff to plain text: macros and font changes go, headings and paragraphs stay, lines of a
# paragraph are joined (Chinese without a space).  Sections on authors, copying and translators, much the same
# everywhere, go too.
roff_to_text() {
    awk -v mark="$mark" '
        function flush() { if (para != "") { print para; blank = 0 } para = "" }
        function space() { flush(); if (!blank) print ""; blank = 1 }
        function add(s) {
            if (as_is) { print s; blank = 0; return }
            para = para (para ~ /[!-~]$/ || s ~ /^[!-~]/ ? (para == "" ? "" : " ") : "") s
        }
        /^\.(TH|Dd)/ { flush(); print mark; skip = macro = as_is = 0; blank = 1; next } # a page begins
        /^\.de/ { macro = 1 }
        macro { if (/^\.\./) macro = 0; next }
        /^[.\x27]\\"/ || /^\x27/ { next }
        {
            gsub(/\\f(\([A-Z][A-Z]|\[[^]]*\]|[A-Z0-9])?|\\s[-+]?[0-9]|\\[&,\/%:|^]|\\\*[(][A-Za-z][A-Za-z]|\\m\[[^]]*\]/, "")
            gsub(/\\-/, "-")
            gsub(/\\[(]aq/, "\x27")
            gsub(/\\[(][lr]q|\\[(]dq/, "\"")
            gsub(/\\[(]bu/, "*")
            gsub(/\\[(][a-z][a-z]|\\[*]?\[[^]]*\]/, "")
            gsub(/\\ /, " ")
            gsub(/\\e|\\\\/, "\\")
        }
        /^\.[ ]*S[HS]/ {
            space()
            skip = /版权|版權|COPYRIGHT|作者|AUTHOR|参见|參見|参考|SEE ALSO|又见|报告|REPORTING|BUGS|中文版|译者|跋|论坛/
        }
        skip { next }
        /^\.[ ]*(nf|EX|Bd)/ { flush(); as_is = 1 }
        /^\.[ ]*(fi|EE|Ed)/ { as_is = 0 }
        /^\.[ ]*(PP|P|LP|TP|IP|HP|sp|Sh|Ss|Pp|It)/ || /^[ \t]*$/ { space(); tag = /^\.[ ]*TP/ }
        /^\.[ ]*br/ { flush() }
        /^\.[ ]*[BIR][BIR] / && !/"/ { # alternating fonts: one word
            sub(/^\.[ ]*.. +/, "")
            gsub(/ +/, "")
        }
        /^\.[ ]*(SH|SS|Sh|Ss|B|I|R|BR|RB|BI|IB|IR|RI|SM|SB|IP|Nm|Fl|Ar|Xr|It|Pa|Nd) / {
            heading = /^\.[ ]*(SH|SS|Sh|Ss|IP|It)/
            sub(/^\.[ ]*[A-Za-z]+ +/, "")
            gsub(/"/, "")
            add($0)
            if (heading || tag) flush()
            tag = 0
            next
        }
        /^\./ || /^[ \t]*$/ { next }
        { add($0); if (tag) flush(); tag = 0 }
        END { flush(); print mark }'
}

# Only documents of which at least a third is not ASCII: pages that nobody has translated yet are left out.
mostly_chinese() {
    awk -v mark="$mark" '
        $0 != mark { doc = doc $0 "\n"; next }
        {
            bytes = length(doc)
            if (3 * gsub(/[\200-\377]/, "&", doc) >= bytes) printf "%s%s\n", doc, mark
            doc = ""
        }'
}

chinese() {
    # poems and sayings, ended by lines of "%"
    (cd "$packages/fortunes-zh/usr/share/games/fortunes" && cat tang300 song100 chinese) |
        sed -e 's/\x1b\[[0-9;]*m//g' -e 's/^%$//' | without_tables | pack
    zcat "$packages/debian-reference-zh-cn/usr/share/debian-reference/debian-reference.zh-cn.txt.gz" |
        without_tables | pack
    find "$packages/manpages-zh/usr/share/man/zh_CN" -type f -name '*.gz' | sort | xargs zcat | roff_to_text
}

# ---- program text ----

# Files on stdin -> documents, without the licence at their head.
c_files() {
    xargs -d '\n' awk -v mark="$mark" '
        # one line is held back, so that a comment that loses its end can be closed
        function out(line) { if (have) print held; held = line; have = 1 }
        FNR == 1 { if (NR > 1) out(mark); licence = 0 }
        licence {
            if (/\*\//) licence = 0
            next
        }
        FNR < 30 && /Copyright/ {
            licence = !/\*\//
            if (/^\/\*/ || FNR == 1) next
            if (held ~ /^\/\*[ \t]*$/) have = 0
            else held = held "  */"
            next
        }
        { out($0) }
        END { out(mark); out("") }'
}

c_source() {
    local source=$packages/glibc-source/usr/src/glibc unpacked=$packages/glibc
    if [ ! -e "$unpacked/.unpacked" ]; then
        mkdir -p "$unpacked"
        tar -xJf "$source"/glibc-*.tar.xz -C "$unpacked" --strip-components=1 --wildcards '*.c' '*.h'
        touch "$unpacked/.unpacked"
    fi
    (cd "$unpacked" && find argp assert catgets ctype debug dirent elf/dl-* elf/rtld.c gmon iconv inet intl io libio \
        locale login malloc math misc nptl nss posix resolv rt setjmp signal socket stdio-common stdlib string \
        sysdeps/generic sysdeps/posix sysdeps/nptl sysdeps/ieee754/dbl-64 sysvipc time timezone wcsmbs wctype \
        -type f -name '*.[ch]' ! -name 'tst*' ! -name 'test*' ! -name 'bug*' ! -name '*test*' ! -name 'C-*' \
        ! -name '*tab*' -size +1k -size -65536c | sort) |
        sed "s:^:$unpacked/:" | only_utf8 | c_files
}

python_source() {
    find "$packages"/libpython3.11-{minimal,stdlib}/usr/lib/python3.11 -name '*.py' -size +1k -size -131072c \
        ! -path '*/test/*' ! -path '*/tests/*' ! -path '*/encodings/*' ! -path '*/lib2to3/*' ! -path '*/idlelib/*' \
        ! -path '*/pydoc_data/*' ! -path '*/html/entities.py' | sort | only_utf8 |
        xargs -d '\n' awk -v mark="$mark" '
            # the comment at the head of a file goes if it speaks of copyright
            FNR == 1 { if (NR > 1) print mark; head = ""; at_head = 1 }
            at_head && /^(#.*)?$/ { head = head $0 "\n"; next }
            at_head { if (head !~ /[Cc]opyright|[Ll]icen[sc]e/) printf "%s", head; at_head = 0 }
            { print }
            END { print mark }'
}

# ---- mathematics ----
# set.mm: hypotheses, explanations and statements.  Proofs are compressed into letters that no model could
# predict, so they go, as do the notes on who contributed what and when; one document in three is taken.
mathematics() {
    awk '
        function flush_comment() {
            gsub(/[ \t\n]+/, " ", comment)
            gsub(/ ?\((Contributed|Revised|Proof shortened|Proof modification|New usage)[^()]*\)/, "", comment)
            if (comment != "$( $)") print indent comment
            comment = ""
        }
        in_proof { if (/\$\./) in_proof = 0; next }
        comment != "" {
            comment = comment " " $0
            if (/\$\)/) flush_comment()
            next
        }
        /^ *\$\(/ {
            match($0, /^ */)
            indent = substr($0, 1, RLENGTH)
            comment = substr($0, RLENGTH + 1)
            if (/\$\)/) flush_comment()
            next
        }
        /\$=/ {
            in_proof = !/\$=.*\$\./
            sub(/ *\$=.*/, " $.")
        }
        { print }' "$packages/metamath-databases/usr/share/metamath/databases/set.mm" |
        grep -v -e '=-=-' -e '#\*#' -e '-\.-\.' | pack |
        awk -v mark="$mark" '{ if (number % 3 == 1) print } $0 == mark { number++ }'
}

# ---- all of it ----
write() { # NAME COMMAND: the text appears under its name when it is whole
    local out=$text/$1.jsonl
    "${@:2}" | to_jsonl >"$out.tmp"
    mv "$out.tmp" "$out"
    say "$out: $(wc -l <"$out") documents, $(wc -c <"$out") bytes"
}

for name in bible-kjv bible-kjv-text fortunes jargon-text fortunes-zh debian-reference-zh-cn manpages-zh \
    glibc-source libpython3.11-minimal libpython3.11-stdlib metamath-databases; do
    fetch "$name"
done
write english english
chinese_documents() { chinese | mostly_chinese; }
write chinese chinese_documents
write c c_source
write python python_source
write math mathematics

row() { printf '| %s | %s | %s | %s | %s |\n' "$1" "$2" "$(version "$2")" "$3" "$4"; }
{
    say '# Where the demo'"'"'s text comes from'
    say
    say 'Gathered by launch/demo-corpus.sh from Debian packages; the full terms are in each package, in'
    say '`usr/share/doc/PACKAGE/copyright`.'
    say
    say '| file | package | version | licence | taken |'
    say '| --- | --- | --- | --- | --- |'
    row english.jsonl bible-kjv-text 'text: public domain; its packing: GPL-2+' 'Genesis to Deuteronomy, Matthew to Revelation'
    row english.jsonl fortunes 'BSD; the sayings are quotations' 'all but men-women, ethnic, drugs, ascii-art, translate-me'
    row english.jsonl jargon-text 'public domain' 'the lexicon'
    row chinese.jsonl fortunes-zh 'GPL-3+' 'tang300, song100, chinese'
    row chinese.jsonl debian-reference-zh-cn 'GPL-2+' 'the text, without tables'
    row chinese.jsonl manpages-zh 'by page: GFDL-1.2+, GPL-2+, BSD and others' 'translated pages, without their closing sections'
    row c.jsonl glibc-source 'LGPL-2.1+, parts under other free licences' 'library sources, without tests, tables and licence headers'
    row python.jsonl libpython3.11-stdlib 'PSF-2' 'library sources, without tests, tables and licence headers'
    row python.jsonl libpython3.11-minimal 'PSF-2' 'library sources, without tests, tables and licence headers'
    row math.jsonl metamath-databases 'set.mm: CC0-1.0' 'statements and explanations, without proofs; one document in three'
} >"$text/SOURCES.md"
say "$text/SOURCES.md says where all of it comes from"
