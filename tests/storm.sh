# What the scripts that maltreat checkpoints share (sourced): a smaller model yet, its undisturbed run, a power switch,
# and how another run is compared with it.  The caller says how many steps: storm_steps.
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/tiny.sh"
bin=$(dirname "$caracal")/tests

# what a killed mpirun leaves behind must not lie where others look
mkdir "$out/mpi"
export TMPDIR=$out/mpi OMPI_MCA_btl_vader_backing_directory=$out/mpi

small="--train.seq_len=32 --train.micro_batches=4 --train.eval_every=5 --train.eval_samples=1 --optim.schedule_steps=60
       --model.num_layers=1 --model.n_routed_experts=4 --model.zero_expert_num=2 --model.moe_topk=3
       --router.expected_ffn_experts=2 --checkpoint.every=1 --train.steps=$storm_steps"

# Trains under the shim (its settings stand in the environment) and with a power switch; the output goes to `log`.
struck() { # seconds, or --rank=R seconds; then as train
    local switch=("$1") ranks run launcher=()
    shift
    if [[ ${switch[0]} == --* ]]; then
        switch+=("$1")
        shift
    fi
    ranks=$1 run=$2
    shift 2
    [ "$ranks" = 1 ] || launcher=("$top/launch/run" -np "$ranks")
    SHIM_UNDER=${SHIM_UNDER:-$out/$run/checkpoints} "$bin/storm" "${switch[@]}" env LD_PRELOAD="$bin/shim_fs.so" \
        "${launcher[@]}" "$caracal" train tiny.yaml --run.dir="$run" "$@" >log 2>&1
}

newest() { # run: the step of its newest checkpoint, 0 without one
    local step
    step=$(cd "$1/checkpoints" 2>/dev/null && ls -d step-???????? 2>/dev/null | tail -n 1)
    step=${step#step-}
    echo $((10#${step:-0}))
}
intact() { # run: whatever has a checkpoint's name is the undisturbed run's checkpoint, byte for byte
    local step
    for step in "$1"/checkpoints/step-????????; do
        [ ! -e "$step" ] || diff -rq "$step" "base/checkpoints/${step##*/}" || return
    done
}
finished() { # run, how much may be left over: at its end as if nothing had happened
    cmp "$1/metrics.jsonl" base/metrics.jsonl && cmp "$1/eval.jsonl" base/eval.jsonl && intact "$1" &&
        [ "$(newest "$1")" = "$storm_steps" ] && [ "$(ls -d "$1"/checkpoints/*.* 2>/dev/null | wc -l)" -le "${2:-0}" ] ||
        { tail -n 15 log; ls "$1/checkpoints"; return 1; }
}

# The shim must know every call by which the program changes files (sync_file_range is a hint and changes nothing).
unknown='p?writev.*|(pwrite|open|openat|creat|ftruncate)64|truncate.*|(posix_)?fallocate.*|renameat2|mkdirat|mkostemp
         |link(at)?|symlink(at)?|sync|syncfs|copy_file_range|sendfile.*|msync'
check "the shim knows every call" test -z \
    "$(nm -D --undefined-only "$caracal" | sed 's/@.*//' | awk '{ print $2 }' | grep -xE "$(tr -d ' \n' <<<"$unknown")")"
check "the undisturbed run" train 1 base $small --checkpoint.keep=100000 || exit 1
