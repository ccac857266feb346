#!/bin/bash
# What a token costs in time and memory as work grows (`make scaling`): runs of tests/scaling.yaml in which one size at
# a time does, on one rank with all cores.  Writes docs/results/scaling-AXIS.jsonl, draws docs/performance/AXIS.svg, and
# prints a table.  A minute or two for each axis, of a quiet machine.
#
#   tests/scaling.sh [AXIS ...]         of seq_len, experts, layers
set -eu
cd "$(dirname "$0")/.."
build=${CARACAL_BUILD:-build}
[ $# -gt 0 ] || set -- seq_len experts layers
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p docs/results docs/performance

point() { # axis, value, options...
    local run=$work/$1-$2 axis=$1 value=$2
    shift 2
    "$build/caracal" train tests/scaling.yaml "--run.dir=$run" --checkpoint.every=0 "$@" >"$run.log" 2>&1 || {
        tail -n 5 "$run.log" >&2
        exit 1
    }
    "$build/tests/scaling" point "$run" "$axis" "$value"
    rm -rf "$run"
}

points() { # axis
    local n
    case $1 in
        seq_len) # always 4,096 tokens a micro-batch
            for n in 128 256 512 1024 2048 4096; do
                point "$1" $n --train.seq_len=$n --train.micro_batch_size=$((4096 / n))
            done ;;
        experts)
            for n in 8 16 32 64 128 256; do
                point "$1" $n --model.n_routed_experts=$n --model.zero_expert_num=$((n / 2))
            done ;;
        layers)
            for n in 4 7 14 28 56; do point "$1" $n --model.num_layers=$n --train.micro_batch_size=8; done ;;
        *) echo "$1: must be seq_len, experts or layers" >&2; exit 2 ;;
    esac
}

for axis; do
    echo "scaling: $axis" >&2
    points "$axis" >"$work/$axis.jsonl"
    cp "$work/$axis.jsonl" "docs/results/scaling-$axis.jsonl"
    "$build/tests/scaling" draw "docs/results/scaling-$axis.jsonl" "docs/performance/$axis.svg"
done
