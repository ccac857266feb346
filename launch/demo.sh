#!/bin/bash
# From text to a trained model: the whole way, on this machine.  `make demo` calls it after building.
#   build/demo/            text, tokenizer, token files (launch/demo-data.sh)
#   runs/nano/             the run: metrics, checkpoints, report.html, loss.svg
set -eu
cd "$(dirname "$0")/.."
caracal=build/caracal
demo=build/demo
run=runs/nano

say() { printf '\n== %s\n' "$*"; }

launch/demo-data.sh

say "what counting reaches on the held-out text"
$caracal data ngram $demo/tokens/{english,chinese,c,python,math} | tee $demo/ngram.txt

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
