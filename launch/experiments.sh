#!/bin/bash
# The runs behind docs/experiments.md (`make experiments`): small models on the demo's text, one process with one thread
# each, as many at a time as there are cores.  A finished run is kept and not made again unless its options have changed;
# one that was stopped with a checkpoint goes on from it.
#
#   launch/experiments.sh                 everything, then the page (launch/experiments_page.sh)
#   ONLY='^(shortcut|eps)' ...            only runs whose name matches, and no page
#   STEPS_PERCENT=4 ...                   a rehearsal with fewer steps, in runs/rehearsal, and no page
#   JOBS=2 ...                            runs at a time
set -eu
cd "$(dirname "$0")/.."
caracal=${CARACAL_BUILD:-build}/caracal
percent=${STEPS_PERCENT:-100}
runs=runs/experiments
[ "$percent" = 100 ] || runs=runs/rehearsal
mkdir -p $runs
[ -e build/demo/tokenizer.json ] || launch/demo-data.sh

# ---- one run ----

# Calls caracal; what it says goes to $runs/NAME.log, its end to the terminal when it fails.
call() { # name, arguments...
    local log=$runs/$1.log
    shift
    mkdir -p "$(dirname "$log")"
    "$caracal" "$@" >>"$log" 2>&1 || {
        echo "caracal $1: exit code $?; $log ends" >&2
        tail -n 5 "$log" >&2
        return 1
    }
}

# Is the run finished?  One that was made with other options is forgotten.
finished() { # name, options...
    local run=$runs/$1
    [ "$*" = "$(cat "$run.options" 2>/dev/null)" ] || rm -rf "$run" "$run.log"
    mkdir -p "$(dirname "$run")"
    printf '%s\n' "$*" >"$run.options"
    [ -e "$run/finished" ]
}

part_of() { echo $(($1 * percent / 100)); }

fixed="--parallel.threads=1 --train.eval_every=0 --train.eval_samples=32 --checkpoint.every=0 --sdc.interval=0"
train() { # name, config, steps, options...
    local name=$1 config=$2 steps=$3 start=$SECONDS
    shift 3
    # shellcheck disable=SC2086 # several options
    call "$name" train "$config" --run.dir="$runs/$name" --train.steps="$(part_of "$steps")" \
        --optim.schedule_steps="$steps" $fixed "$@"
    touch "$runs/$name/finished"
    echo "$name: $((SECONDS - start)) s" >&2
}

run() { # name, config, steps, options...
    finished "$@" && return
    train "$@"
    rm -rf "${runs:?}/$1/checkpoints" # nobody goes on from here
}

# Fourteen layers, and then twenty-eight that begin as those fourteen twice.
grow() { # seed, steps of the smaller model, steps in all
    local small=growth/small.$1 grown=growth/grown.$1
    finished "$grown" "$@" && return
    finished "$small" "$@" ||
        train "$small" "$half" "$2" --train.seed="$1" --optim.schedule_steps="$3"
    [ -e "$runs/$grown" ] || call "$grown" grow "$runs/$small" "$runs/$grown"
    train "$grown" "$nano" "$3" --train.seed="$1"
    rm -rf "${runs:?}/$small/checkpoints" "${runs:?}/$grown/checkpoints"
}

# ---- all of them, those first that more than one question needs ----

nano=configs/nano.yaml
half=configs/nano-14.yaml
thin="--model.num_layers=4" # where the question allows it

# english, chinese, c, python and math in equal parts, and then mathematics alone
changed() { # config
    sed '/^checkpoint:/i\
  stages:\
    - {after: '"$(part_of 140)"', weights: {english: 0, chinese: 0, c: 0, python: 0, math: 1}}\
' "$1"
}
change=$runs/change.yaml
changed $half >$change
change_nano=$runs/change-nano.yaml
changed $nano >$change_nano
tuned="--router.bias_budget_gain=24"

list() {
    local seed eps width on gamma z
    for seed in 1 2 3; do
        echo run shortcut.$seed $half 120 --train.seed=$seed
        echo run sequential.$seed $half 120 --train.seed=$seed --model.moe_input=sequential
        echo run no-identity.$seed $half 120 --train.seed=$seed --model.zero_expert_num=0 --model.moe_topk=4
    done
    echo run router/report $change 200
    echo run router/tuned $change 200 $tuned
    echo run router/sign $change 200 --router.controller=sign --router.bias_rate=1e-3
    echo run router/tuned-28 $change_nano 200 $tuned
    echo run router/pressure $change 200 $tuned --router.grad_ratio_target=0.1 --router.lb_alpha=1e-4
    for eps in 1e-16 1e-4 1e-6 1e-20; do echo run eps/$eps $nano 100 $thin --optim.eps=$eps; done
    for z in 0 1e-3; do echo run z-loss/$z $nano 100 $thin --optim.lr=0.03 --loss.hidden_z_coef=$z; done
    for gamma in 2.5 10; do # every expert cut in four
        echo run gamma/$gamma $nano 100 $thin --model.n_routed_experts=64 --model.zero_expert_num=32 --model.moe_topk=24 \
            --router.expected_ffn_experts=16 --model.expert_ffn_hidden_size=16 --model.routed_scaling_factor=$gamma
    done
    for width in 64 128 256; do
        for on in true false; do
            echo run mla/$width.$on $nano 100 $thin --transfer.proxy_width=128 --model.hidden_size=$width \
                --model.ffn_hidden_size=$((2 * width)) --model.expert_ffn_hidden_size=$((width / 2)) \
                --model.mla_scale_q_lora=$on --model.mla_scale_kv_lora=$on
        done
    done
    echo run growth/random.1 $nano 60
    echo grow 1 48 83
}

failed=0
while read -r what name rest; do
    [[ $name =~ ${ONLY:-.} ]] || continue
    while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-$(nproc)}" ]; do wait -n || failed=1; done
    # shellcheck disable=SC2086 # several options
    $what $name $rest &
done < <(list)
while [ -n "$(jobs -rp)" ]; do wait -n || failed=1; done
[ $failed = 0 ] || exit 1
[ -n "${ONLY-}" ] || [ "$percent" != 100 ] || launch/experiments_page.sh
