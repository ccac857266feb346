#!/bin/bash
# Runs whose mixture, sequence length, RoPE base, micro-batches and MTP head change on the way: the same bits on 1, 2
# and 4 ranks, and across a resume on a stage's first step, inside a ramp, and on both sides of the MTP head's start.
set -u
. "$(dirname "$0")/tiny.sh"

# a step has 512 samples, so that a ramp of six steps has three blocks
steps=13
sed -i -e "s/^train: .*/train: {steps: $steps, seq_len: 8, micro_batches: 8, micro_batch_size: 64, eval_every: 4, eval_samples: 3}/" \
    -e "s/^loss: .*/loss: {hidden_z_coef: 1e-5, mtp_coef: 0.3, mtp_start: 5}/" \
    -e '/^parallel:/,$d' tiny.yaml
cat >>tiny.yaml <<'END'
  stages:
    - {after: 3, weights: {code: 0, prose: 1}, ramp: 6}
    - {after: 9, seq_len: 128, micro_batches: 4, micro_batch_size: 4, rope_theta: 5e6}
    - {after: 11, weights: {code: 1, prose: 1}, micro_batches: 16}
parallel: {threads: 1}
checkpoint: {every: 1, keep: 100, shards: 2}
metrics: {digest_every: 1}
END

variant() { # ranks, run, options...: the bits of one rank
    train "$@" && same one "$2"
}
# What `one` had written when it was stopped after step k, for a run that goes on.
stopped() { # k, name
    local step
    mkdir -p "$2/checkpoints" && cp one/*.jsonl "$2"
    for step in $(seq "$1"); do cp -rl "one/checkpoints/$(printf 'step-%08d' "$step")" "$2/checkpoints"; done
}
resumed() { # ranks, k
    stopped "$2" "from$2" && train "$1" "from$2" && same one "from$2"
}
column() { # key of metrics.jsonl: its values, "-" where it is not there
    sed -E "s/.*\"$1\":([^,}]*).*/\1/; t; s/.*/-/" one/metrics.jsonl | tr '\n' ' '
}
tokens() { # cumulative, as the stages' batches say: 9 steps of 4,096, 2 of 2,048, 2 of 8,192
    column tokens
    [ "$(column tokens)" = "4096 8192 12288 16384 20480 24576 28672 32768 36864 38912 40960 49152 57344 " ]
}
late() { # until its start the MTP head is as it was at first and has no moments; then it moves
    local heads
    heads=$(sed -E 's/.*"mtp":"([0-9a-f]*)".*/\1/' one/metrics.jsonl)
    echo "$heads"
    column mtp_loss
    [ "$(sort -u <<<"$heads" | wc -l)" = $((steps - 5 + 1)) ] && [ "$(head -n 5 <<<"$heads" | sort -u | wc -l)" = 1 ] &&
        [[ $(column mtp_loss) == "- - - - - "[0-9]* ]] &&
        grep -q '"mtp_adam_steps": *0' one/checkpoints/step-00000005/manifest.json &&
        grep -q '"mtp_adam_steps": *8' one/checkpoints/step-00000013/manifest.json
}
costless() { # before its start the trunk is what it is without an MTP head
    train 1 without --loss.mtp_coef=0 --loss.mtp_start=0 --train.steps=5 &&
        cmp <(sed -E 's/,"digests".*//' without/metrics.jsonl) <(head -n 5 one/metrics.jsonl | sed -E 's/,"digests".*//')
}
again() { # the config that a run wrote is the config that it had
    "$caracal" train one/config.yaml --run.dir=again --train.steps=4 && cmp again/metrics.jsonl <(head -n 4 one/metrics.jsonl) &&
        diff <(grep -v '  dir:\|  steps:' one/config.yaml) <(grep -v '  dir:\|  steps:' again/config.yaml)
}
evaluated() { # run: at the length of the last step's stage, as the run itself validated
    local total
    total=$(sed -n 's/.*"loss":{[^}]*"total":\([0-9.]*\).*/\1/p' "$1/eval.jsonl" | tail -n 1)
    "$caracal" evaluate "$1/checkpoints" --samples=3 | tee evaluated.log
    grep -q "^all tokens  *$(printf %.4f "$total") " evaluated.log
}
exported() { # k, length, RoPE base: what the last step had
    "$caracal" export "$(printf one/checkpoints/step-%08d "$1")" "hf$1" && cat "hf$1/config.json" &&
        grep -q "\"max_position_embeddings\": $2," "hf$1/config.json" && grep -q "\"rope_theta\": $3\.0," "hf$1/config.json"
}
replanned() { # k, sed's command: a stage that has not begun after step k may change, and decides step k + 1
    local run=replanned-$1-${#2}
    stopped "$1" "$run" && cp tiny.yaml kept.yaml && sed -i "$2" tiny.yaml && ! cmp -s tiny.yaml kept.yaml &&
        train 2 "$run" --train.steps=$(($1 + 1)) && cmp <(head -n "$1" one/metrics.jsonl) <(head -n "$1" "$run/metrics.jsonl") &&
        ! cmp <(head -n $(($1 + 1)) one/metrics.jsonl) "$run/metrics.jsonl"
    local code=$?
    mv kept.yaml tiny.yaml
    return $code
}

check "1 rank" train 1 one
check "2 ranks" variant 2 two
check "4 ranks" variant 4 four
check "recomputation, 3 chunks" variant 2 recompute --model.recompute=true --parallel.chunks=3
check "tokens count up through the stages" tokens
check "the MTP head starts late" late
check "the MTP head costs nothing before" costless
check "resume where the ramp begins, 2 ranks" resumed 2 3
check "resume where the MTP head starts, 4 ranks" resumed 4 5
check "resume inside the ramp, 1 rank" resumed 1 6
check "resume where samples are cut anew, 2 ranks" resumed 2 9
check "resume where the batch grows, 4 ranks" resumed 4 11
check "resume inside the last stage, 1 rank" resumed 1 12
check "the resolved config" again
check "evaluate" evaluated one
check "evaluate before a stage's first step" eval 'stopped 8 nine && train 1 nine --train.steps=9 && evaluated nine'
check "export before a stage's first step" exported 9 8 10000000
check "export after it" exported 10 128 5000000
check "a stage to come: another ramp" replanned 3 's/ramp: 6/ramp: 4/'
check "a stage to come: other weights" replanned 3 's/code: 0, prose: 1/code: 1, prose: 9/'
check "a stage to come: another RoPE base" replanned 9 's/5e6/6e6/'
check "a stage to come: another length" replanned 9 's/seq_len: 128/seq_len: 64/'
check "a stage to come: another batch" replanned 11 's/micro_batches: 16/micro_batches: 12/'
check "a stage to come: it comes later" replanned 11 's/after: 11/after: 12/'
sed 's/after: 3,/after: 2,/' tiny.yaml >other.yaml
stopped 9 begun
refuses "a stage that has begun may not" 2 "data.stages after 2 is " "$caracal" train other.yaml --run.dir=begun
refuses "ranks that do not divide a stage" 2 "data.stages: the stage after step 9: train.micro_batches = 4 is not divisible by the 8 ranks" \
    train 8 bad
