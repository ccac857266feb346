#!/bin/bash
# Silent data corruption with real processes: one bit is flipped on purpose (launch/flip.h) in a weight, in the result
# of a matrix product, in a message; each is found within an interval and named.  Without a flip the checks say nothing
# and change no bit of the run.
set -u
. "$(dirname "$0")/tiny.sh"

fail() { # name, why, log
    printf 'not ok %s: %s\n%s\n' "$1" "$2" "$(tail -n 25 <<<"$3")"
    touch "$out/failed"
}
sound() { # name, base, ranks, run, options...: the base's bits, and not a word of corruption
    local name=$1 base=$2 run=$4 log
    shift 2
    if ! log=$(train "$@" 2>&1); then fail "$name" "it failed" "$log"
    elif [[ $log == *corruption* ]]; then fail "$name" "a false alarm" "$log"
    elif ! log=$(same "$base" "$run"); then fail "$name" "other bits" "$log"
    else echo "ok $name"; fi
}
found() { # name, flip, words (a pattern), ranks, options...: stops with exit code 8, says so, saves nothing more
    local name=$1 flip=$2 words=$3 ranks=$4 log code
    shift 4
    rm -rf run
    log=$(CARACAL_TEST_FLIP=$flip train "$ranks" run --checkpoint.every=1 --checkpoint.keep=9 "$@" 2>&1)
    code=$?
    if [ "$code" != 8 ]; then fail "$name" "exit code $code, wanted 8" "$log"
    elif ! grep -qF "FAULT INJECTED" <<<"$log"; then fail "$name" "no fault was injected" "$log"
    elif ! grep -qE "silent data corruption found in $words" <<<"$log"; then fail "$name" "wanted $words" "$log"
    elif ! [ -e "run/checkpoints/step-0000000${safe:?}" ]; then fail "$name" "no checkpoint of step $safe" "$log"
    elif [ -e "run/checkpoints/step-0000000$((safe + 1))" ] && [ -z "${later-}" ]; then fail "$name" "a damaged step was saved" "$log"
    elif ! grep -qF -- "is safe: --resume=run/checkpoints/step-0000000$safe" <<<"$log"; then fail "$name" "wanted: step $safe is safe" "$log"
    else echo "ok $name"; fi
}

train 1 base --sdc.interval=0 >log 2>&1 || cat log
sound "checked in every step, 1 rank, 2 threads" base 1 every1 --sdc.interval=1 --parallel.threads=2
sound "checked in every step, 2 ranks" base 2 every2 --sdc.interval=1
sound "checked in every second step, 4 ranks" base 4 every4 --sdc.interval=2
sound "checked in every step, rows past the capacity, recomputation" base 2 rounds2 --sdc.interval=1 \
    --parallel.expert_capacity=0.01 --model.recompute=true

kinds="--router.bias_kp=0.3 --router.bias_kd=0.1 --parallel.expert_replicas=2 --train.micro_batch_size=2 --train.seq_len=100"
train 1 kinds $kinds --sdc.interval=0 >log 2>&1 || cat log
sound "checked in every step, 2 x 2 ranks" kinds 4 kinds4 $kinds --sdc.interval=1 --parallel.expert_parallel=2

# ---- a weight: found in the step before which it turned, wherever it lies ----
norm="tensor=model.norm.weight index=5 bit=20"
safe=3
found "a weight, 1 rank" "weight step=4 rank=0 $norm" "step 4: rank 0: model.norm.weight \[5\] was " 1
found "a weight, on the rank that copies it" "weight step=4 rank=1 $norm" "step 4: rank 1: model.norm.weight \[5\] was " 2
found "a weight, on the rank that owns it" "weight step=4 rank=0 $norm" "step 4: rank 0: model.norm.weight \[5\] was " 2
found "a weight, on all ranks alike" "weight step=4 rank=all $norm" "step 4: rank 0: model.norm.weight \[5\] was " 4
found "an expert's weight, exponent" \
    "weight step=4 rank=2 tensor=model.layers.1.mlp.experts.4.up_proj.weight index=1000 bit=30" \
    "step 4: rank 2: model.layers.1.mlp.experts.4.up_proj.weight \[1000\] was " 4
found "an expert's weight, one of two replicas" \
    "weight step=4 rank=2 tensor=model.layers.1.mlp.experts.2.up_proj.weight index=1000 bit=3" \
    "step 4: rank 2: model.layers.1.mlp.experts.2.up_proj.weight \[1000\] was " 4 $kinds --parallel.expert_parallel=2
found "a router bias" "weight step=4 rank=1 tensor=model.layers.1.mlp.router.e_score_correction_bias index=2 bit=11" \
    "step 4: rank 1: layer 1, router bias \[2\] is .* and after the last step was " 2
found "a moment, in a checked step" "weight step=4 rank=all tensor=adam_v/lm_head.weight index=20000 bit=22" \
    "step 4: rank 1: second moment of lm_head.weight \[20000\] was " 2 --sdc.interval=2

# ---- the result of a matrix product: found when its layer is computed twice ----
found "a product, 1 rank" "gemm step=4 rank=0 layer=1 index=77 bit=20" \
    "step 4: rank 0: layer 1, expert [0-9]+, gate and up \[[0-9]+, [0-9]+\]: .* when computed again" 1 --sdc.interval=1
found "a product, 4 ranks" "gemm step=4 rank=3 layer=1 index=77 bit=3" \
    "step 4: rank 3: layer 1, expert [67], gate and up " 4 --sdc.interval=1 --model.recompute=true
safe=2 later=yes found "a product from an unchecked step on" "gemm step=3+ rank=1 layer=all index=77 bit=20" \
    "step 4: rank 1: layer 1, expert [4-7], gate and up .* last passed in step 2" 2 --sdc.interval=2

found "an attention's gradient, its last element, 2 ranks" "attention step=4 rank=1 layer=1 index=12287 bit=0" \
    "step 4: rank 1: layer 1, self_attn 1, gradient of q \[255, 47\]: .* when computed again" 2 --sdc.interval=1

# ---- a message: found where its digest travels with it; weights that came wrong differ between ranks ----
found "a chunk on its way to the experts, 2 ranks" "message step=4 rank=1 layer=0 operation=dispatch index=77 bit=20" \
    "step 4: rank 1: layer 0: dispatch #[0-9]+: in [0-9]+ bytes from rank 0, word [0-9]+ was sent as 0x[0-9a-f]{8} and came as " 2 \
    --sdc.interval=1
found "a chunk on its way home, 4 ranks" "message step=4 rank=2 layer=1 operation=combine index=77 bit=3" \
    "step 4: rank 2: layer 1: combine #[0-9]+: in [0-9]+ bytes from rank [013], word " 4 --sdc.interval=1
safe=2 later=yes found "chunks from an unchecked step on" "message step=3+ rank=0 layer=all operation=dispatch index=7 bit=1" \
    "step 4: rank 0: layer [01]: dispatch " 2 --sdc.interval=2
found "gradients on their way" "message step=4 rank=0 layer=1 operation=fold_of_gradients index=7 bit=1" \
    "step 4: rank 0: layer 1: fold of gradients #[0-9]+: in [0-9]+ bytes from rank 1, " 2 --sdc.interval=1
safe=2 found "weights on their way, before a checkpoint" \
    "message step=3 rank=1 layer=all operation=gather_of_weights index=7 bit=1" \
    "step 3: rank 1: model.embed_tokens.weight \[7\] is .* on rank 0; " 2 --sdc.interval=1000
safe=2 found "weights on their way, in an unchecked step" \
    "message step=3 rank=1 layer=all operation=gather_of_weights index=7 bit=1" \
    "step 4: rank 1: model.embed_tokens.weight \[7\] is .* on rank 0; " 2 --sdc.interval=1000 --checkpoint.every=2

# ---- and then ----
goes_on() { # what the message names is the run that nothing happened to
    rm -rf run
    CARACAL_TEST_FLIP="gemm step=5 rank=1 layer=0 index=7 bit=20" train 2 run --sdc.interval=1
    [ $? = 8 ] && train 2 run --sdc.interval=1 --resume=run/checkpoints/step-00000003 && same base run
}
check "resumed from what the message names" goes_on
values() { # bit 20 of a number from 0.5 to 2 is worth 1/16 or 1/8
    CARACAL_TEST_FLIP="weight step=4 rank=0 $norm" train 1 values 2>&1 | tee log |
        sed -n 's/.*model.norm.weight \[5\] was \([0-9.]*\) .* and is \([0-9.]*\) .*/\1 \2/p' |
        awk '{ d = $1 > $2 ? $1 - $2 : $2 - $1; ok = (d - 0.125) ^ 2 < 1e-12 || (d - 0.0625) ^ 2 < 1e-12 } END { exit !ok }' && return
    cat log
    return 1
}
check "both values" values
warned() { # says so and goes on, with other numbers
    rm -rf run
    CARACAL_TEST_FLIP="weight step=4 rank=1 $norm" train 2 run --sdc.interval=1 --sdc.on_corruption=warn >log 2>&1 || return 1
    cat log
    [ "$(grep -c "^warning .*silent data corruption found in step 4: rank 1: model.norm.weight" log)" = 1 ] &&
        [ "$(grep -c "silent data corruption" log)" = 1 ] && [ -e run/checkpoints/step-00000006 ] &&
        ! cmp base/metrics.jsonl run/metrics.jsonl
}
check "warn goes on" warned
not_finite() { # a weight of 1e38 makes a loss that is not finite; the reason given is the weight
    rm -rf run
    CARACAL_TEST_FLIP="weight step=4 rank=0 tensor=model.norm.weight index=5 bit=30" train 2 run >log 2>&1
    code=$?
    cat log
    [ $code = 8 ] && grep -q "found in step 4: rank 0: model.norm.weight" log
}
check "a loss that is not finite because of it" not_finite
counts() { # nobody knows any more who sends how much to whom: all ranks end at once
    rm -rf run
    CARACAL_TEST_FLIP="message step=4 rank=1 layer=1 operation=expert_counts index=2 bit=5" train 2 run --sdc.interval=1 >log 2>&1
    code=$?
    cat log
    [ $code = 8 ] && grep -q "rank 1: layer 1: expert counts #.* word 2 was sent as" log
}
check "the counts of a dispatch" counts
off() { # nothing is looked at
    rm -rf run
    CARACAL_TEST_FLIP="weight step=4 rank=1 $norm" train 2 run --sdc.interval=0
}
check "switched off" off
senseless() {
    CARACAL_TEST_FLIP="weight" "$caracal" train tiny.yaml --run.dir=bad >log 2>&1
    code=$?
    cat log
    [ $code = 2 ] && grep -q "unset it" log
}
check "a switch that says no sense" senseless
