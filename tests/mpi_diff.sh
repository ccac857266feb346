#!/bin/bash
# `caracal diff` on real runs: equal ones on other numbers of ranks, one cut short, one with another config, and runs
# with a single bit of a single weight flipped: in a checkpoint, and in memory by the tests' switch (launch/flip.h).
# shellcheck source=tests/tiny.sh
. "$(dirname "$0")/tiny.sh"
PATH=$(dirname "$caracal"):$PATH # the commands that it recommends name `caracal`

says() { # name, exit code, A, B, words...: so it exits, and its output has all the words
    local name=$1 want=$2 a=$3 b=$4 log code word
    shift 4
    log=$(caracal diff "$a" "$b" 2>&1)
    code=$?
    for word; do
        if [ "$code" != "$want" ] || [[ $log != *"$word"* ]]; then
            printf 'not ok %s: exit code %s, wanted %s and "%s"\n%s\n' "$name" "$code" "$want" "$word" "$log"
            return
        fi
    done
    echo "ok $name"
}
run() { # ranks, run, options...
    train "$@" --train.eval_every=0 --checkpoint.every=7 --checkpoint.keep=9 --train.steps=10
}
recommended() { # runs what the last comparison recommends
    caracal diff "$1" "$2" | sed -n 's/^  \(caracal train .*\)/\1/p' >again.sh
    [ "$(wc -l <again.sh)" = 2 ] && bash -e again.sh
}

check "a run" run 1 a
check "on two ranks, in more files" run 2 two --checkpoint.shards=3
check "cut short" train 1 short --train.eval_every=0 --train.steps=4
check "with another config" train 1 rate --train.eval_every=0 --train.steps=2 --optim.lr=1e-3
says "two ranks are one" 0 a two "metrics.jsonl   identical in 10 steps" "layout          2 files in A, 3 in B" \
    "checkpoints     identical in 2 steps, up to step 10" "identical"
says "the short one goes as far" 1 a short "identical in 4 steps, up to step 4" "then only A goes on, to step 10" "different"
says "the config comes first" 1 a rate "  optim.lr
    A  0.003
    B  0.001
metrics.jsonl   different in the first step, 1
  first quantity  lr"

# in the checkpoint of step 7
weight=model.layers.1.mlps.0.down_proj.weight
mkdir b && cp a/metrics.jsonl b/
check "a bit flipped at step 7" "$(dirname "$caracal")/tests/flip_bit" a/checkpoints/step-00000007 b/checkpoints weights/$weight 1000 20
check "the run goes on from there" run 1 b
says "step, tensor, element" 1 a b "metrics.jsonl   identical up to step 7, different in step 8" \
    "checkpoints     different in step 7" "first tensor    weights/$weight, float32 [48, 64]" "first element   [15][40] (flat 1000)" \
    "1048576 ULPs apart; one bit is flipped, number 20" "weights                    1 of 103                1 of " \
    "adam_m                     0 of 101"
says "from the checkpoints alone" 1 a/checkpoints/step-00000007 b/checkpoints "first element   [15][40] (flat 1000)"

# in memory before step 7: no checkpoint shows it alone, and a rerun tells whose run was at fault
quiet=--sdc.interval=0 # or training itself would find it
flipped() { CARACAL_TEST_FLIP="weight step=7 rank=all tensor=$weight index=1000 bit=20" run 2 c $quiet; }
check "a bit flipped in memory before step 7" flipped
says "step and quantity; where each group is farthest apart" 1 a c \
    "metrics.jsonl   identical up to step 6, different in step 7" "are equal up to step 6, and differ in step 7: weights, adam_m" \
    "checkpoints     different in step 7" " ULPs, model.layers." "To see every tensor of steps 1 to 7, run that part again"
check "the commands that it recommends" recommended a c
says "the sound run is what it was" 1 a a-again "identical in 7 steps, up to step 7" "then only A goes on" \
    "checkpoints     identical in step 7"
says "the other is not" 1 c c-again "identical up to step 6, different in step 7"
