#!/bin/bash
# A resumed run is the run that never stopped: from every P to every Q of 1, 2, 4 and 8 ranks, with and without the
# MTP head, at every step, so that warm-up, the last decay, the ends of epochs and waiting counts of the bias
# controller all lie on both sides of some resume.  Everything is compared bit for bit: metrics (with digests of weights and
# moments), validations, and every later checkpoint (weights, moments, biases, controller, counters, positions).
set -u
. "$(dirname "$0")/tiny.sh"

# so little text that a run reads it more than once
"$caracal" data build --tokenizer=tokenizer.json --out=code --valid-fraction=0.2 "$top"/kernels/ref/{ref,optimizer}.c >log 2>&1 &&
    "$caracal" data build --tokenizer=tokenizer.json --out=prose --valid-fraction=0.3 "$top"/LICENSE \
        "$top"/.clang-format >>log 2>&1 || cat log
steps=12
short="--train.steps=$steps --train.seq_len=32 --train.eval_every=4 --train.eval_samples=1 --train.log_every=100
       --optim.schedule=wsd --optim.schedule_steps=$steps --optim.warmup_steps=3 --optim.decay_steps=4
       --router.bias_update_interval=3 --checkpoint.every=1 --checkpoint.keep=100"
plain=$short
mtp="$short --loss.mtp_coef=0.3 --router.bias_kp=0.3 --router.bias_kd=0.1 --parallel.expert_replicas=2
     --model.document_mask=true --train.on_nonfinite=skip"

epochs() { # source, samples that a run takes of it: more than once all that there are
    local samples=$(($(stat -c %s "$1.train.bin") / 2 / 32))
    echo "$1: $samples samples"
    [ "$samples" -ge 4 ] && [ "$samples" -lt "$2" ]
}
check "the runs end epochs" eval 'epochs code 64 && epochs prose 32'

numbered() { # run: timing.jsonl has every step once, in order
    diff <(cut -d, -f1 "$1/timing.jsonl") <(seq -f '{"step":%g' $steps)
}
whole() { # ranks, run, options...
    train "$@" && numbered "$2" && same "${2%-*}-1" "$2"
}
# What a run of P ranks had written when it was stopped after step k; its records may be longer, or cut in a line.
stopped() { # run, k, name
    local step
    mkdir -p "$3/checkpoints" && cp "$1"/*.jsonl "$3"
    for step in $(seq "$2"); do cp -rl "$1/checkpoints/$(printf 'step-%08d' "$step")" "$3/checkpoints"; done
    truncate -s -20 "$3/metrics.jsonl"
}
replaced() { # the save that was to replace the newest checkpoint was cut off between its two renames
    local log
    stopped plain-1 6 plain-back && mv plain-back/checkpoints/step-00000006 plain-back/checkpoints/step-00000006.replaced &&
        mkdir plain-back/checkpoints/step-00000006.tmp && log=$(train 2 plain-back $plain 2>&1) &&
        [[ $log == *"step-00000006 is back"*"resuming  plain-back/checkpoints/step-00000006"* ]] && numbered plain-back &&
        same plain-1 plain-back
}
# Taken back to step 3, and killed before it has passed what it had saved: the next start goes on from where it was then.
taken_back() {
    stopped plain-1 9 plain-taken && cat plain-taken/checkpoints/step-00000009/manifest.json >old &&
        train 1 plain-taken $plain --resume=plain-taken/checkpoints/step-00000003 --train.steps=4 &&
        train 2 plain-taken $plain >taken.log && grep 'resuming  plain-taken/checkpoints/step-00000004' taken.log &&
        grep '^aside     6 checkpoints, .* MiB, in plain-taken/checkpoints/' taken.log && numbered plain-taken && cmp old plain-taken/checkpoints/step-00000009.aside/manifest.json &&
        [ "$(ls -d plain-taken/checkpoints/*.aside | wc -l)" = 6 ] && rm -r plain-taken/checkpoints/*.aside &&
        same plain-1 plain-taken
}
resumed() { # kind, options, P, Q, k
    local run=$1-$3-$4
    stopped "$1-$3" "$5" "$run" && train "$4" "$run" $2 && numbered "$run" && same "$1-1" "$run"
    local code=$?
    rm -rf "$run"
    return $code
}

for kind in plain mtp; do
    k=1
    for ranks in 1 2 4 8; do check "$kind, $ranks ranks" whole $ranks $kind-$ranks ${!kind}; done
    for before in 1 2 4 8; do
        for after in 1 2 4 8; do
            check "$kind, $before -> $after ranks after step $k" resumed $kind "${!kind}" $before $after $k
            k=$((k % (steps - 1) + 1))
        done
    done
done
# shellcheck disable=SC2086
check "a save cut off between its renames loses nothing" replaced
check "taken back and killed" taken_back
