#!/bin/bash
# ScMoE against its baseline: two runs from the same seed on the same text, alike in everything but where a layer's
# experts take their input from; then a page that compares them.  `make compare` calls it after building.
#
#   launch/compare.sh [STEPS]      200 unless given; what is there is gone on with
set -eu
cd "$(dirname "$0")/.."
steps=${1:-200}

launch/demo-data.sh
for input in shortcut sequential; do
    printf '\n== %s\n' "$input"
    launch/run -np 2 build/caracal train configs/nano.yaml --run.dir="runs/compare/$input" \
        --model.moe_input="$input" --train.steps="$steps"
done
printf '\n== comparison\n'
build/caracal compare runs/compare/shortcut runs/compare/sequential --out=runs/compare/compare.html
