#!/bin/bash
# ScMoE against its baseline: two runs from the same seed on the same text, alike in everything but where a layer's
# experts take their input from; then a page that compares them.  `make compare` calls it after building.
#
#   launch/compare.sh [STEPS]      240 unless given, about six minutes on two cores
#
# Stopped in any way, the same command goes on from the last checkpoint: at most 40 steps are computed again.
set -eu
cd "$(dirname "$0")/.."
steps=${1:-240}
runs=runs/compare-$steps

launch/demo-data.sh
for input in shortcut sequential; do
    printf '\n== %s: %s steps; %s/report.html shows how it goes\n' "$input" "$steps" "$runs/$input"
    launch/run -np 2 build/caracal train configs/nano.yaml --run.dir="$runs/$input" --model.moe_input="$input" \
        --train.steps="$steps" --optim.schedule_steps="$steps" --checkpoint.every=40 --checkpoint.keep=1
done
printf '\n== comparison\n'
build/caracal compare "$runs/shortcut" "$runs/sequential" --out="$runs/compare.html"
printf '\nopen  file://%s/%s/compare.html\n' "$PWD" "$runs"
