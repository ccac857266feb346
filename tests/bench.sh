#!/bin/bash
# `make bench`: the kernels, and training steps of configs/bench.yaml on one rank with all cores, on a rank for each
# core, and on one core, all against limits measured in the same run; peers beside them where `make peers` has built
# them.  A table on the output and $B/bench.json; some fifteen minutes of a quiet machine (on a busy one it means
# nothing).  docs/performance.md has results.
#
# tests/performance_page.sh makes that page of what this measured.
#
#   tests/bench.sh [STEPS=100] [bench's options, such as --only=attention]
set -eu
cd "$(dirname "$0")/.."
build=${CARACAL_BUILD:-build}
steps=100
[[ ${1-} =~ ^[0-9]+$ ]] && steps=$1 && shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE # presets of some machines, which halve a peer's speed
cores=$(nproc)
runs=()
# the budget of FFN experts is kept in the second half, so that model FLOPs are what is computed, and experts are used
# nearly alike, as they are for nearly all of a training
step() { # name, ranks, threads, options...
    local command=("$build/caracal" train configs/bench.yaml "--run.dir=$work/$1" --train.steps="$steps"
        --parallel.threads="$3" --checkpoint.every=0 "${@:4}")
    [ "$2" = 1 ] || command=(launch/run -np "$2" "${command[@]}")
    echo "bench.yaml on $2 x $3" "${@:4}" >&2
    "${command[@]}" >"$work/$1.log" 2>&1 || { tail -n 5 "$work/$1.log" >&2; exit 1; }
    runs+=("$work/$1,$2,$3")
}
roofline=()
if [ -e build/demo/tokenizer.json ]; then
    step 1x1 1 1
    [ "$cores" = 1 ] || { step "1x$cores" 1 "$cores"; step "${cores}x1" "$cores" 1; }
    grep -q avx512_bf16 /proc/cpuinfo && step bf16 1 "$cores" --dtype=bf16
    roofline=(--roofline=configs/bench.yaml)
else
    echo "no training steps: there is no text (make demo)" >&2
fi
fold=()
if [ "$cores" != 1 ]; then
    echo "folding 64 MiB on $cores ranks" >&2
    launch/run -np "$cores" "$build/tests/bench_fold" >"$work/fold.json"
    fold=("--fold=$work/fold.json")
fi
peers=()
if [ -x "$build/peers/gemm" ]; then
    for _ in 1 2 3; do "$build/peers/gemm" >>"$work/peers.jsonl"; done # the fastest counts
    echo "steps of PyTorch" >&2
    OMP_NUM_THREADS=$cores "$build/peers/venv/bin/python" tests/peers/longcat.py >>"$work/peers.jsonl" 2>"$work/peers.log" ||
        { tail -n 5 "$work/peers.log" >&2; exit 1; }
    peers=("--peers=$work/peers.jsonl")
fi
"$build/tests/bench" "$build/bench.json" "$@" ${roofline[@]+"${roofline[@]}"} ${fold[@]+"${fold[@]}"} ${peers[@]+"${peers[@]}"} ${runs[@]+"${runs[@]}"}
echo
"$build/tests/bench_page" "$build/bench.json" goals
echo
echo "$build/bench.json"
