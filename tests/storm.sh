# What the scripts that maltreat checkpoints share (sourced): a small model, its undisturbed run, and how another
# run is compared with it.  The caller says how many steps: storm_steps.
#
# The scripts run in a directory of their own; tests/shim_fs.c stands between the program and its checkpoints,
# tests/tool_storm.c is the power switch.
set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$(cd "$top" && cd "${CARACAL_BUILD:-build}" && pwd)
caracal=$build/caracal
storm=$build/tests/storm
shim=$build/tests/shim_fs.so
out=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$out"' EXIT
cd "$out" || exit 2
failed=0

# what a killed mpirun leaves behind must not lie where others look
mkdir "$out/mpi"
export TMPDIR=$out/mpi OMPI_MCA_btl_vader_backing_directory=$out/mpi

ok() { echo "ok $*"; }
not_ok() { # name, then the log's end
    echo "not ok $1"
    tail -n 25 log 2>/dev/null
    failed=1
}
check() { # name, command...: ok when the command succeeds
    local name=$1
    shift
    if "$@" >check.log 2>&1; then ok "$name"; else
        not_ok "$name"
        tail -n 25 check.log
    fi
}

small="--train.seq_len=32 --train.micro_batches=4 --train.eval_every=5 --train.eval_samples=1 --optim.schedule_steps=60
       --model.num_layers=1 --model.n_routed_experts=4 --model.zero_expert_num=2 --model.moe_topk=3
       --router.expected_ffn_experts=2 --checkpoint.every=1"
launcher() { [ "$1" = 1 ] || echo "$top/launch/run -np $1"; }
train() { # ranks, run, options...
    local ranks=$1 run=$2
    shift 2
    # shellcheck disable=SC2046,SC2086
    $(launcher "$ranks") "$caracal" train tiny.yaml $small --run.dir="$run" "$@"
}
# The same under the shim (its settings stand in the environment) and with a power switch.
struck() { # seconds, or --rank=R seconds; then as train
    local switch=("$1") ranks run
    shift
    if [[ ${switch[0]} == --* ]]; then
        switch+=("$1")
        shift
    fi
    ranks=$1 run=$2
    shift 2
    # shellcheck disable=SC2046,SC2086
    SHIM_UNDER=$out/$run/checkpoints "$storm" "${switch[@]}" env LD_PRELOAD="$shim" $(launcher "$ranks") \
        "$caracal" train tiny.yaml $small --run.dir="$run" "$@" >log 2>&1
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
finished() { # run: at its end as if nothing had happened; at most what the very last save left is left over
    cmp "$1/metrics.jsonl" base/metrics.jsonl && cmp "$1/eval.jsonl" base/eval.jsonl && intact "$1" &&
        [ "$(newest "$1")" = "$storm_steps" ] && [ "$(ls -d "$1"/checkpoints/*.* 2>/dev/null | wc -l)" -le "${2:-0}" ]
}

# Every call of the program into the file system must be one that the shim knows.
check "the shim knows every call" test -z "$(nm -D --undefined-only "$caracal" | sed 's/@.*//' | awk '{ print $2 }' |
    grep -xE 'p?writev2?|p?writev64v?2?|pwrite64|open64|openat64|creat64|ftruncate64|truncate(64)?|(posix_)?fallocate(64)?|renameat2?|mkdirat|mkostemp|link(at)?|symlink(at)?|sync_file_range|syncfs|sync|copy_file_range|sendfile(64)?|msync|fputs_unlocked')"

{
    cp "$top/tests/tiny.yaml" . &&
        "$caracal" tokenizer train --vocab-size=512 --out=tokenizer.json "$top"/model/*.c "$top/LICENSE" &&
        "$caracal" data build --tokenizer=tokenizer.json --out=code --valid-fraction=0.2 "$top"/model/*.c &&
        "$caracal" data build --tokenizer=tokenizer.json --out=prose --valid-fraction=0.3 "$top/LICENSE" "$top/Makefile" \
            "$top"/launch/*.h &&
        train 1 base --train.steps="$storm_steps" --checkpoint.keep=100000
} >log 2>&1 || {
    not_ok "the undisturbed run"
    exit 1
}
