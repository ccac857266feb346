#!/bin/bash
# `caracal diff` on real runs: equal ones on other numbers of ranks, one cut short, one with another config, and one
# with a single bit flipped in a single weight after step 7, which it must find; also from a checkpoint that came later.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$top" && cd "${CARACAL_BUILD:-build}" && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cd "$out" || exit 2
PATH=$build:$PATH # the commands that it recommends name `caracal`

says() { # name, exit code, command... -- words...: the command exits so and its output has all the words
    local name=$1 want=$2 log code command=() word
    shift 2
    while [ "$1" != -- ]; do command+=("$1"); shift; done
    shift
    log=$("${command[@]}" 2>&1)
    code=$?
    for word; do
        if [ "$code" != "$want" ] || [[ $log != *"$word"* ]]; then
            printf 'not ok %s: exit code %s, wanted %s and "%s"\n%s\n' "$name" "$code" "$want" "$word" "$log"
            return
        fi
    done
    echo "ok $name"
}
train() { # run, options...
    local run=$1
    shift
    caracal train tiny.yaml --run.dir="$run" --train.steps=10 --train.eval_every=0 --checkpoint.every=7 --checkpoint.keep=9 "$@" \
        >>log 2>&1
}

cp "$top/tests/tiny.yaml" .
caracal tokenizer train --vocab-size=512 --out=tokenizer.json "$top"/model/*.c >log 2>&1 &&
    caracal data build --tokenizer=tokenizer.json --out=code "$top"/model/*.c "$top"/optim/*.c >>log 2>&1 &&
    caracal data build --tokenizer=tokenizer.json --out=prose "$top"/README.md "$top"/launch/*.h "$top"/kernels/*.h >>log 2>&1 &&
    train a && train short --train.steps=4 && train rate --train.steps=2 --optim.lr=1e-3 &&
    "$top/launch/run" -np 2 "$build/caracal" train tiny.yaml --run.dir=two --train.steps=10 --train.eval_every=0 \
        --checkpoint.every=7 --checkpoint.shards=3 >>log 2>&1 || {
    echo "not ok the runs to compare"
    cat log
    exit 1
}

says "the same run on two ranks, in other files" 0 caracal diff a two -- "metrics.jsonl   identical in 10 steps" \
    "layout          2 files in A, 3 in B" "checkpoints     identical in 2 steps, up to step 10" "identical"
says "a run cut short" 1 caracal diff a short -- "identical in 4 steps, up to step 4" "then only A goes on, to step 10" \
    "different"
says "another config" 1 caracal diff a rate -- "  optim.lr
    A  0.003
    B  0.001
metrics.jsonl   different in the first step, 1
  first quantity  lr"

# one bit of one weight, after step 7
weight=weights/model.layers.1.mlps.0.down_proj.weight
mkdir b
cp a/metrics.jsonl b/
"$build/tests/flip_bit" a/checkpoints/step-00000007 b/checkpoints $weight 1000 20 >>log 2>&1 && train b ||
    { echo "not ok the run with a flipped bit"; cat log; }
says "one bit flipped at step 7" 1 caracal diff a b -- "metrics.jsonl   identical up to step 7, different in step 8" \
    "checkpoints     different in step 7" "first tensor    $weight, float32 [48, 64]" "first element   [15][40] (flat 1000)" \
    "1048576 ULPs apart; one bit is flipped, number 20" "weights                    1 of 103                1 of " \
    "adam_m                     0 of 101"
says "with a checkpoint of step 7 alone" 1 caracal diff a/checkpoints/step-00000007 b/checkpoints/step-00000007 -- \
    "first element   [15][40] (flat 1000)"

# no checkpoint of the step itself: the metrics say when, and a rerun of either run says where and whose
mv b/checkpoints/step-00000007 gone
says "without it" 1 caracal diff a b -- "identical up to step 7, different in step 8" \
    "checkpoints     different in step 10" "To see every tensor of steps 1 to 8, run that part again"
caracal diff a b | sed -n 's/^  \(caracal train .*\)/\1/p' >again.sh
if [ "$(wc -l <again.sh)" = 2 ] && bash -e again.sh >>log 2>&1; then echo "ok the commands that it recommends"; else
    echo "not ok the commands that it recommends"
    cat again.sh log
fi
says "the sound run is what it was" 1 caracal diff a a-again -- "identical in 8 steps, up to step 8" "then only A goes on" \
    "checkpoints     identical in step 7"
says "the other is not" 1 caracal diff b b-again -- "identical up to step 7, different in step 8"
