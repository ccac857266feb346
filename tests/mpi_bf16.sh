#!/bin/bash
# dtype: bf16 on processors: the promises of docs/determinism.md hold in it as they do in float32, whether the dot
# products are instructions or made of float32 ones, and the loss is float32's.
set -u
. "$(dirname "$0")/tiny.sh"

short="--train.steps=30 --train.seq_len=64 --train.micro_batch_size=5 --train.eval_every=15 --checkpoint.every=0
       --loss.mtp_coef=0.3"
run() { # dtype, run, ranks, options...
    local dtype=$1 run=$2 ranks=$3
    shift 3
    # shellcheck disable=SC2086
    train "$ranks" "$run" $short --dtype="$dtype" "$@"
}
equal() { # run, ranks, options...: the bits of bf16, and gone
    run bf16 "$@" && same bf16 "$1"
    local code=$?
    rm -rf "$1"
    return $code
}
check "1 rank" run bf16 bf16 1
check "1 rank, 2 threads, again" equal again 1 --parallel.threads=2
check "2 ranks" equal two 2
check "4 ranks x 2 threads, five chunks" equal four 4 --parallel.threads=2 --parallel.chunks=5
check "8 ranks, rows past the capacity" equal eight 8 --parallel.expert_capacity=0.01
check "AVX2" equal avx2 2 --isa=avx2
check "recomputation" equal recompute 1 --model.recompute=true
check "check:cpu" run bf16 checked 1 --device=check:cpu --train.steps=3 --train.eval_every=0
resumed() {
    run bf16 resumed 2 --train.steps=15 && run bf16 resumed 4 --checkpoint.keep=1 && same bf16 resumed
}
check "resumed on other ranks" resumed

check "float32" run float32 float32 1
loss() { # run: the last step's
    sed -n '$s/.*"lm_loss":\([^,]*\),.*/\1/p' "$1/metrics.jsonl"
}
near() { # other bits, and the loss within 1%
    ! cmp -s bf16/metrics.jsonl float32/metrics.jsonl &&
        awk -v a="$(loss bf16)" -v b="$(loss float32)" \
            'BEGIN { print a, b; exit !(a > 0 && b > 0 && a < 1.01 * b && b < 1.01 * a) }'
}
check "the loss of float32 to 1%" near
refuses "float32 goes on from bf16" 2 "dtype" run float32 bf16 1 --train.steps=40
refuses "ref has no bf16" 2 "dtype: bf16 is for the devices cpu and cuda" run bf16 ref 1 --device=ref
