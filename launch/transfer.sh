#!/bin/bash
# The best learning rate at three widths, with and without transfer: five sweeps over the learning rate on the demo's
# text, with nano's layers made narrower and wider in all their parts, four of them instead of 28; then one picture.
# Without transfer a learning rate is what it says; with transfer it is that of width 64 (Table 1).
#
#   launch/transfer.sh [STEPS [DIRECTORY]]      160 and runs/transfer unless given; what is there is gone on with
#
# About a quarter of an hour on two cores.  `make transfer` calls it after building.
set -eu
cd "$(dirname "$0")/.."
steps=${1:-160}
dir=${2:-runs/transfer}

search() { # width, name, options...
    local w=$1 name=$2
    shift 2
    printf '\n== %s\n' "$name"
    launch/run -np 2 build/caracal sweep configs/nano.yaml --run.dir="$dir/$name" --over=optim.lr=1e-3:6.4e-2:log:7 \
        --model.num_layers=4 --model.hidden_size="$w" --model.num_attention_heads=$((w / 32)) --model.q_lora_rank=$((w / 2)) \
        --model.kv_lora_rank=$((w / 4)) --model.ffn_hidden_size=$((2 * w)) --model.expert_ffn_hidden_size=$((w / 2)) \
        --train.steps="$steps" --optim.schedule_steps="$steps" --train.eval_every=0 --train.eval_samples=16 \
        --checkpoint.every=0 --metrics.digest_every=0 "$@"
    rm -rf "$dir/$name"/trial-*/checkpoints # hundreds of megabytes; the results stay
}

launch/demo-data.sh
search 64 width-64
for w in 128 256; do
    search "$w" "without/width-$w"
    search "$w" "with/width-$w" --transfer.proxy_width=64
done
printf '\n== picture\n'
build/caracal sweep --picture="$dir/transfer.svg" \
    "without transfer=$dir/width-64,$dir/without/width-128,$dir/without/width-256" \
    "with transfer=$dir/width-64,$dir/with/width-128,$dir/with/width-256"
