#!/bin/bash
# From text to a trained model: the whole way, on this machine.  `make demo` calls it after building.
#   build/demo/text/       real text from Debian packages (SOURCES.md there names them)
#   build/demo/tokens/     token files, train and held-out
#   runs/nano/             the run: metrics, checkpoints, report.html, loss.svg
set -eu
cd "$(dirname "$0")/.."
caracal=build/caracal
demo=build/demo
run=runs/nano
sources="english chinese c python math"

say() { printf '\n== %s\n' "$*"; }

say "text from Debian packages"
launch/demo-corpus.sh

say "a byte-level BPE tokenizer with 4,096 tokens"
[ $demo/tokenizer.json -nt $demo/text/SOURCES.md ] || $caracal tokenizer train --vocab-size=4096 --out=$demo/tokenizer.json $demo/text/*.jsonl

# Five minutes on two cores are about a million tokens: one document in six is as much as the run can read once, and
# the counting models are fitted on just that text.
say "token files of every sixth document, held-out ones apart"
mkdir -p $demo/tokens $demo/sample
prefixes=
for name in $sources; do
    prefixes="$prefixes $demo/tokens/$name"
    [ $demo/tokens/$name.valid.idx -nt $demo/tokenizer.json ] || {
        echo "$name:"
        awk 'NR % 6 == 1' $demo/text/$name.jsonl >$demo/sample/$name.jsonl
        $caracal data build --tokenizer=$demo/tokenizer.json --out=$demo/tokens/$name --valid-fraction=0.25 \
            $demo/sample/$name.jsonl
    }
done

say "what counting reaches on the held-out text"
$caracal data ngram $prefixes | tee $demo/ngram.txt

say "training 28 ScMoE layers on two ranks"
rm -rf $run
launch/run -np 2 $caracal train configs/nano.yaml

say "held-out loss of the trained model"
launch/run -np 2 $caracal evaluate $run/checkpoints | tee $demo/evaluate.txt
cat $demo/ngram.txt

marks=$(awk '$1 == "total" { print "--mark=unigram:" $4, "--mark=bigram:" $5 }' $demo/ngram.txt)
# shellcheck disable=SC2086 # two options
$caracal report $run $marks

say "greedy continuations"
$caracal generate $run/checkpoints --tokens=40 \
    --prompt="And the LORD said unto Moses," \
    --prompt="春天" \
    --prompt="#include <stdio.h>

int
main (void)
{" \
    --prompt="def __init__(self," \
    --prompt='$p |- ( ph ->'
