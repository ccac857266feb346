#!/bin/bash
# The promises of docs/determinism.md on a two-layer model: 30 steps of every kind of training, on 1, 2, 4 and 8 ranks
# with 1 or 2 threads each (base and everything: with both), and whatever else may differ: the same metrics (with digests of all weights and both
# moments at every step), validations and checkpoint files, byte for byte.  tests/promises.sh is the same for nano.
set -u
. "$(dirname "$0")/tiny.sh"
. "$top/tests/promises_cases.sh"

short="--train.steps=30 --train.seq_len=64 --train.eval_every=15 --checkpoint.every=0"
run() { # variant, run, ranks, environment or -, options...
    local variant=$1 run=$2 ranks=$3 environment=$4
    shift 4
    # shellcheck disable=SC2046,SC2086
    (
        [ "$environment" = - ] || export $environment
        train "$ranks" "$run" $short $(options_of "$variant") "$@"
    )
}
equal() { # base, variant, run, ...: runs, has the base's bits, and is gone
    local base=$1 code
    shift
    run "$@" && same "$base" "$2"
    code=$?
    rm -rf "$2"
    return $code
}

for variant in "${variants[@]}"; do
    check "$variant: 1 rank" run "$variant" "$variant" 1 -
    [ "$variant" = recompute ] && check "recompute: the bits of base" same base recompute
    case $variant in
    base | everything) these=("${cells[@]}") ;;
    *) these=(1x2 2x1 4x2 8x1) ;;
    esac
    for cell in "${these[@]}"; do # 1x1 is this one once more
        check "$variant: $cell" equal "$variant" "$variant" "again" "${cell%x*}" - --parallel.threads="${cell#*x}"
    done
done
while IFS='|' read -r name ranks environment options; do
    # shellcheck disable=SC2086
    check "$name" equal everything everything other "$ranks" "$environment" $options
done < <(freedoms)

# ---- parallel.rank_invariant = false gives up promise 3, and only that ----
relaxed="--parallel.rank_invariant=false"
check "without promise 3: 2 ranks" run everything relaxed 2 - $relaxed
check "without promise 3: 2 ranks again" equal relaxed everything again 2 - $relaxed --parallel.threads=2 \
    --parallel.chunks=5 --parallel.expert_capacity=0.01
joined="$relaxed --parallel.expert_parallel=2"
check "without promise 3: 1 x 2 ranks" run everything joined 2 - $joined
check "without promise 3: 1 x 2 ranks, rows past the capacity" equal joined everything again 2 - $joined --parallel.expert_capacity=0.01
differs() { [ -s relaxed/metrics.jsonl ] && ! cmp -s relaxed/metrics.jsonl everything/metrics.jsonl; }
check "without promise 3: other bits than with it" differs
resumed() {
    run everything resumed 2 - $relaxed --train.steps=15 &&
        run everything resumed 2 - $relaxed --checkpoint.keep=1 && same relaxed resumed
}
check "without promise 3: resumed" resumed
refuses "without promise 3: resumed on other ranks" 2 "it was trained on 2 (experts over" \
    run everything relaxed 4 - $relaxed --train.steps=40
refuses "without promise 3: resumed on other groups" 2 "it was trained on 2 (experts over 1), not on 2 (experts over 2)" \
    run everything relaxed 2 - $relaxed --parallel.expert_parallel=2 --train.steps=40
refuses "promise 3 given up on the way" 2 "parallel.rank_invariant is false, was true" \
    run base base 2 - $relaxed --train.steps=40
check "the measurement of what it costs" "$top/launch/run" -np 2 "$(dirname "$caracal")/tests/bench_promises" tiny.yaml 1
