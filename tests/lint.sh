#!/bin/bash
# What the compiler does not check: the direction of includes, layout, length, words that must not appear,
# allocation and mathematics from the C library, mutable globals, and clang-tidy's bug patterns.
set -u
cd "$(dirname "$0")/.." || exit 2
mark=$(mktemp -u) # exists when something was found
trap 'rm -f "$mark"' EXIT

# Reports the lines of stdin, if any, as violations of a rule.
rule() {
    local found
    found=$(cat)
    [ -n "$found" ] || return 0
    echo "lint: $1"
    printf '%s\n' "$found" | sed 's/^/    /'
    touch "$mark" # a variable would be lost with the pipe's subshell
}

if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    list() { git ls-files "$@" | while read -r f; do [ -e "$f" ] && echo "$f"; done; }
else
    list() { for pattern; do find . -name "${pattern##*/}" -not -path './build/*' | sed 's:^\./::'; done; }
fi
mapfile -t sources < <(list '*.c' '*.h' '*.cu' '*.cuh')
mapfile -t scripts < <(list '*.sh' launch/run)
# room files without the tests
mapfile -t rooms < <(printf '%s\n' "${sources[@]}" | grep -v '^tests/')

# ---- includes run one way ----
awk '
    BEGIN {
        may["launch"] = "launch"
        may["kernels"] = "kernels launch"
        may["ckpt"] = "ckpt launch"
        may["data"] = "data launch"
        may["model"] = "model kernels launch"
        may["optim"] = "optim model kernels launch"
        may["train"] = may["tests"] = "train optim model kernels ckpt data launch tests"
        # the backends share no code: one is the other'"'"'s judge
        backend["kernels/ref"] = "kernels/(cpu|cuda)/"
        backend["kernels/cpu"] = "kernels/(ref|cuda)/"
        backend["kernels/cuda"] = "kernels/(ref|cpu)/"
    }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        split($0, quoted, "\"")
        split(FILENAME, from, "/")
        split(quoted[2], to, "/")
        if (index(" " may[from[1]] " ", " " to[1] " ") == 0)
            print FILENAME ":" FNR ": " from[1] " may not include " quoted[2]
        other = backend[from[1] "/" from[2]]
        if (other != "" && quoted[2] ~ "^" other) print FILENAME ":" FNR ": includes " quoted[2]
    }' "${sources[@]}" | rule "includes run one way (and start at the root)"

# ---- layout and length ----
clang-format --dry-run -Werror "${sources[@]}" 2>&1 | grep 'error:' | cut -d: -f1 |
    sort | uniq -c | awk '{ print $2 ": " $1 " places" }' | rule "make format"
wc -l "${sources[@]}" "${scripts[@]}" | awk '$2 != "total" && $1 > 450 { print $2 ": " $1 " lines" }' |
    rule "a file has one reason to change: at most 450 lines"
for script in "${scripts[@]}"; do
    bash -n "$script" 2>&1
done | rule "shell syntax"

# ---- documents ----
mapfile -t pages < <(list 'README.md' 'docs/*.md')
for page in "${pages[@]}"; do
    grep -noE '\]\([^)# ]+' "$page" | grep -v '](https\?:' | while IFS=: read -r line target; do
        [ -e "$(dirname "$page")/${target#*(}" ] || echo "$page:$line: ${target#*(} is not there"
    done
done | rule "a link leads somewhere"
for page in "${pages[@]}"; do
    for other in "${pages[@]}"; do
        [ "$page" != "$other" ] && grep -qF "](${page#docs/}" <(sed 's:](docs/:](:g' "$other") && continue 2
    done
    [ "$page" = README.md ] || echo "$page"
done | rule "every document is linked from another"
grep -oE '^ +\{"[a-z]+",( "|$)' train/main.c | tr -dc 'a-z\n' | while read -r command; do
    grep -q "caracal $command" README.md || echo "caracal $command"
done | rule "every command is in README.md"

# ---- words that must not appear ----
grep -nE '_MM_SET_FLUS[H]|_MM_SET_DENORMAL[S]|TO[D]O|FIX[M]E' "${sources[@]}" "${scripts[@]}" Makefile |
    rule "no flush to zero, nothing left for later"
grep -nE -e '-f(fast|unsafe)-mat[h]|-Ofas[t]' "${sources[@]}" "${scripts[@]}" Makefile |
    rule "no fast-math anywhere"

# code without its comments, lines kept
code() { # pattern, files
    local pattern=$1 file
    shift
    for file; do
        gcc -x c -fpreprocessed -E "$file" 2>/dev/null | awk -v file="$file" -v pattern="$pattern" '
            /^# [0-9]+ / { line = $2 - 1; next }
            { line++ }
            $0 ~ pattern { print file ":" line ":" $0 }'
    done
}
code '(^|[^_a-zA-Z0-9>.])(malloc|calloc|realloc|aligned_alloc|strdup|asprintf)[ ]*[(]' "${rooms[@]}" |
    grep -v '^launch/memory.c:' | rule "memory comes from launch/memory.h"
mapfile -t exact < <(printf '%s\n' "${rooms[@]}" | grep -E '^(kernels|model|optim)/' |
    grep -vE '^kernels/(ref/|check)') # the judges may use it
code '(^|[^_a-zA-Z0-9>.])(exp|exp2|expm1|log|log2|log10|log1p|sin|cos|tan|tanh|pow)f?[ ]*[(]' "${exact[@]}" |
    rule "the C library's exp, log, sin, cos and pow differ between versions: use kernels/math.h"

# ---- no mutable globals ----
# Constant tables of pointers lie in .data.rel.ro and are fine.
for file in "${rooms[@]}"; do
    for object in "build/obj/${file%.c}".o "build/obj/${file%.c}".avx2.o; do
        [ -e "$object" ] || continue
        objdump -t "$object" | awk -v file="$file" '
            $0 ~ / O (\.data|\.bss|\*COM\*)/ && $0 !~ /\.data\.rel\.ro/ { print file ": " $NF }'
    done
done | rule "no mutable globals: pass a context"

# ---- clang-tidy ----
checks='-*,bugprone-*,-bugprone-easily-swappable-parameters,-bugprone-narrowing-conversions'
checks+=',-bugprone-reserved-identifier,-bugprone-implicit-widening-of-multiplication-result'
checks+=',-bugprone-suspicious-string-compare,-bugprone-sizeof-expression,-bugprone-integer-division'
checks+=',-bugprone-suspicious-memory-comparison,-bugprone-not-null-terminated-result'
checks+=',-bugprone-assignment-in-if-condition,-bugprone-macro-parentheses,-bugprone-suspicious-include'
export checks
# gcc's own omp.h, behind clang's headers
export flags="-std=c11 -D_GNU_SOURCE -march=x86-64-v3 -I. -DISA=avx2 -idirafter $(gcc -print-file-name=include)
              $(pkg-config --cflags ompi-c hdf5 libzstd yaml-0.1 jansson libpcre2-8 libxxhash)"
printf '%s\n' "${sources[@]}" | grep '\.c$' |
    xargs -P "$(nproc)" -I{} sh -c 'clang-tidy --quiet --checks="$checks" {} -- $flags 2>/dev/null' |
    grep -E '(warning|error):' | sed "s:^$PWD/::" | sort -u | rule "clang-tidy"

[ -e "$mark" ] && exit 1
echo "lint: ${#sources[@]} files, nothing to say"
