#!/bin/bash
# The demo's data, as far as it is not there: text, a tokenizer, token files.
#   build/demo/text/       real text from Debian packages (SOURCES.md there names them)
#   build/demo/tokens/     token files, train and held-out
set -eu
cd "$(dirname "$0")/.."
caracal=build/caracal
demo=build/demo
sources="english chinese c python math"

say() { printf '\n== %s\n' "$*"; }

say "text from Debian packages"
if [ $demo/text/SOURCES.md -nt launch/demo-corpus.sh ]; then echo "is there: $demo/text"; else launch/demo-corpus.sh; fi

say "a byte-level BPE tokenizer with 4,096 tokens"
[ $demo/tokenizer.json -nt $demo/text/SOURCES.md ] || $caracal tokenizer train --vocab-size=4096 --out=$demo/tokenizer.json $demo/text/*.jsonl

# Five minutes on two cores are about a million tokens: one document in six is as much as the run can read once, and
# the counting models are fitted on just that text.
say "token files of every sixth document, held-out ones apart"
mkdir -p $demo/tokens $demo/sample
for name in $sources; do
    [ $demo/tokens/$name.valid.idx -nt $demo/tokenizer.json ] || {
        echo "$name:"
        awk 'NR % 6 == 1' $demo/text/$name.jsonl >$demo/sample/$name.jsonl
        $caracal data build --tokenizer=$demo/tokenizer.json --out=$demo/tokens/$name --valid-fraction=0.25 \
            $demo/sample/$name.jsonl
    }
done
