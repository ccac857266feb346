#!/bin/bash
# What promise 3 costs (`make promises-cost`): steps of configs/nano.yaml with parallel.rank_invariant true and false, in
# turns inside one process, on the demo's text.  A Markdown table on the output.  About three minutes on two quiet
# cores; on a busy machine it means nothing.
#
#   tests/promises_cost.sh [ROUNDS]        of four steps each; 20 unless said
set -u
cd "$(dirname "$0")/.." || exit 2
bench=${CARACAL_BUILD:-build}/tests/bench_promises
rounds=${1:-20}
export OMP_WAIT_POLICY=passive
[ -e build/demo/tokenizer.json ] || {
    echo "there is no text to train on: make demo" >&2
    exit 2
}
line() { # ranks, options...
    local ranks=$1
    shift
    launch/run -np "$ranks" "$bench" configs/nano.yaml "$rounds" "$@" || exit
}
echo "$(nproc) cores; a step in milliseconds, cost as the median of $rounds rounds' ratios, with the quartiles"
echo
echo "| ranks | V | tokens of a micro-batch | with | without | cost | half of the rounds | fastest with | fastest without | cost |"
echo "| --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |"
line 2 --train.micro_batches=2
line 2 --train.micro_batches=8
line 1 --train.micro_batches=8
line 2 --train.micro_batches=8 --train.micro_batch_size=4
