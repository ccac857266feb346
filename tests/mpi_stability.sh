#!/bin/bash
# Loss spikes with real processes: a text that is learnt in a few steps, with some lines of noise in it.  Steps 19 and 20
# meet the noise.  They are warned of, or rolled back: the first one, then what came in its place, and once more from
# step 22 on, where what follows has moved to.  The same bits on 1, 2 and 4 ranks, from whichever checkpoint, and across a kill and a resume at any point.  And R_g kept at a target.
set -u
. "$(dirname "$0")/tiny.sh"

for i in $(seq 400); do echo "the cat sat on the mat, the dog ran to the log;"; done >rhythm.txt
for i in $(seq 6); do sha256sum <<<"$i" | cut -c1-64; done >noise.txt
"$caracal" tokenizer train --vocab-size=280 --out=tokenizer.json rhythm.txt noise.txt >log 2>&1 &&
    cp rhythm.txt again.txt &&
    "$caracal" data build --tokenizer=tokenizer.json --out=text --valid-fraction=0 rhythm.txt noise.txt again.txt >>log 2>&1 ||
    { cat log; echo "not ok the tests' own data"; }
steps=24
cat >tiny.yaml <<END
run: {dir: one}
model: {vocab_size: 512, hidden_size: 48, num_layers: 2, num_attention_heads: 2, q_lora_rank: 24, kv_lora_rank: 16,
        qk_nope_head_dim: 16, qk_rope_head_dim: 8, v_head_dim: 16, ffn_hidden_size: 64, expert_ffn_hidden_size: 32,
        n_routed_experts: 8, zero_expert_num: 4, moe_topk: 4, routed_scaling_factor: 2}
router: {expected_ffn_experts: 2.5, lb_groups: 2, lb_alpha: 0.001, bias_rate: 0.01}
optim: {lr: 1e-2}
train: {steps: $steps, seq_len: 32, micro_batches: 4, micro_batch_size: 2, log_every: 1}
data:
  tokenizer: tokenizer.json
  sources:
    - {name: text, train: text.train}
parallel: {threads: 1}
checkpoint: {every: 5, keep: 100, shards: 2}
metrics: {digest_every: 1}
spike: {window: 4, loss_factor: 4, grad_factor: 0}
END

back=--spike.on_spike=rollback
checkpoint() { printf '%s/checkpoints/step-%08d' "$1" "$2"; }

# ---- warn ----

warns() { # ranks, run: as with no detector at all, but for the word in the lines of spikes
    train "$1" "$2" >"$2.log" && grep -q '^spike     step 19: LM loss ' "$2.log" && ! grep -q '^rollback' "$2.log" &&
        cmp "$2/metrics.jsonl" warned/metrics.jsonl && cmp "$2/spikes/step-00000019.txt" warned/spikes/step-00000019.txt &&
        [ "$(ls "$2/spikes")" = step-00000019.txt ] # 20 follows at once
}
unchanged() {
    train 1 off --spike.on_spike=off && ! grep -q spike off/metrics.jsonl &&
        [ "$(grep '"spike":{' warned/metrics.jsonl | grep -o '"step":[0-9]*' | tr '\n' ' ')" = '"step":19 "step":20 ' ] &&
        cmp off/metrics.jsonl <(sed -E 's/,"spike":\{[^}]*\}//' warned/metrics.jsonl)
}
readable() { # the batch: every sample, the noise first, where it lies, what it says, and its ids
    local file=warned/spikes/step-00000019.txt hash
    head -n 16 "$file"
    [ "$(grep -c '^sample ' "$file")" = 8 ] && [ "$(grep -c '^source text, tokens [0-9]* to [0-9]* of text.train.bin; begins at token [0-9]* of document [0-2]$' "$file")" = 8 ] &&
        sed -n '/^sample/,/^ids/p' "$file" | head -n 8 >worst &&
        grep -q 'document 1$' worst && hash=$(grep -o '[0-9a-f]\{12,\}' worst | head -n 1) && grep -q "$hash" noise.txt &&
        [ "$(grep '^sample' "$file" | sed 's/.*loss //')" = "$(grep '^sample' "$file" | sed 's/.*loss //' | sort -rn)" ] &&
        [ "$(grep -c 'cat sat' "$file")" -ge 4 ]
}
mkdir warned && check "warn, 1 rank" warns 1 warned
for ranks in 2 4; do check "warn, $ranks ranks" warns $ranks warned$ranks; done
check "a warning changes no bit" unchanged
check "the batch is written for people" readable

# ---- rollback ----

rolls() { # ranks, run, options...: the bits of `one`
    train "$@" $back >"$2.log" && [ "$(grep -c '^rollback  from step 19 to ' "$2.log")" = 2 ] && same one "$2" &&
        diff -r one/spikes "$2/spikes"
}
left_out() { # each step once; samples 144 to 159, of the old steps 19 and 20, are not trained on, nor 184 to 199
    [ "$(grep -o '^{"step":[0-9]*' one/metrics.jsonl | cut -d: -f2 | tr '\n' ' ')" = "$(seq -s ' ' $steps) " ] &&
        cmp <(head -n 18 one/metrics.jsonl) <(head -n 18 warned/metrics.jsonl) &&
        [ "$(grep -o '"first_sample":[0-9]*,"samples":[0-9]*' one/metrics.jsonl | tr '\n' ' ')" = \
            '"first_sample":144,"samples":8 "first_sample":152,"samples":8 "first_sample":184,"samples":8 "first_sample":192,"samples":8 ' ] &&
        grep -q "\"position\": *$((8 * (steps + 4)))" "$(checkpoint one $steps)/manifest.json" &&
        [ "$(cd one/spikes && echo *)" = "$(printf 'step-000000%s.txt\n' 19 19-2 22 22-2 | sort | xargs)" ] &&
        cmp one/spikes/step-00000019.txt warned/spikes/step-00000019.txt
}
told() {
    grep -q '^step 24/24 .*  4 spikes  ' one.log && grep -q 'A spike in step 19: .*samples 144 to 151 are left out' one/report.html &&
        grep -q 'href="spikes/step-00000019-2.txt"' one/report.html && grep -q 'A spike in step 19: ' warned/report.html &&
        ! grep -q 'A spike in step 20: ' warned/report.html # of several in a row the first has a batch
}
elsewhere() { # run, options...: other checkpoints, or none, to go back to: the same metrics
    train 1 "$@" $back && cmp one/metrics.jsonl "$1/metrics.jsonl"
}
check "rollback, 1 rank" eval "train 1 one $back >one.log"
check "rollback, what is left out" left_out
for ranks in 2 4; do check "rollback, $ranks ranks" rolls $ranks roll$ranks; done
check "rollback, told" told
check "rollback to step 18" elsewhere every3 --checkpoint.every=3
check "rollback to the beginning" elsewhere none --checkpoint.every=0

# ---- a kill, before, during and after ----

resumed() { # ranks, k: what `one` had left when it was killed with step k as its newest checkpoint
    local run=from$1-$2 step
    mkdir -p "$run/checkpoints" && cp one/*.jsonl "$run"
    for step in $(seq 5 5 "$2"); do cp -rl "$(checkpoint one "$step")" "$run/checkpoints"; done
    train "$1" "$run" $back && same one "$run"
}
killed() { # words of the console after which the run is killed
    local run=killed-${1%% *} pid
    train 1 "$run" $back >"$run.log" &
    pid=$!
    until grep -q "$1" "$run.log"; do kill -0 $pid || return 1; done
    kill -9 $pid
    wait $pid
    train 2 "$run" $back && same one "$run"
}
check "resume before the spike, 2 ranks" resumed 2 10
check "resume right before the rollback, 4 ranks" resumed 4 15
check "resume after it, 2 ranks" resumed 2 20
check "killed at the spike" killed 'spike     step 19'
check "killed after the rollback" killed 'rollback  from step 19'

# ---- no way past it ----

again() { # what was refused goes on where more is allowed
    train 1 stop $back && same one stop
}
refuses "too many rollbacks" 5 "as many rollbacks from this step as spike.max_rollbacks = 1 allows" \
    train 2 stop $back --spike.max_rollbacks=1
check "and more of them" again

# ---- R_g ----

target="--router.grad_ratio_target=0.02 --router.grad_ratio_limit=0"
aimed() { # ranks, run, options...
    train "$@" $target && same aim "$2"
}
moved() { # the coefficient comes to where the worst layer's R_g is at the target
    local line worst
    line=$(tail -n 1 long/metrics.jsonl)
    worst=$(sed -E 's/.*"router_grad_ratio":\[([^]]*)\].*/\1/' <<<"$line" | tr , '\n' | sort -g | tail -n 1)
    echo "R_g $worst"
    grep -q '"lb_alpha":' <<<"$line" && awk -v r="$worst" 'BEGIN { exit !(r > 0.005 && r < 0.08) }'
}
half() {
    mkdir -p half/checkpoints && cp aim/*.jsonl half && cp -rl "$(checkpoint aim 5)" half/checkpoints &&
        aimed 4 half --train.steps=8
}
check "R_g's target, 1 rank" train 1 aim $target --train.steps=8
check "R_g's target, 2 ranks" aimed 2 aim2 --train.steps=8
check "R_g's target, resumed on 4" half
check "R_g comes to its target" eval 'train 1 long $target --train.steps=60 && moved'
