#!/bin/bash
# `make bench`: the kernels, and training steps of configs/bench.yaml on one rank with all cores, on a rank for each
# core, and on one core, all against limits measured in the same run; peers beside them where `make peers` has built
# them.  A table on the output and $B/bench.json; some fifteen minutes of a quiet machine (on a busy one it means
# nothing).  docs/performance.md has results.
#
# tests/performance_page.sh makes that page of what this measured.
#
#   tests/bench.sh [STEPS=100] [--isa=avx2] [bench's options, such as --only=attention]
#
# With --isa=avx2 (make bench ISA=avx2) all of it, peers too, uses what a processor without AVX-512 has, and the file
# is $B/bench-avx2.json.
set -eu
cd "$(dirname "$0")/.."
build=${CARACAL_BUILD:-build}
steps=100
isa=auto
[[ ${1-} =~ ^[0-9]+$ ]] && steps=$1 && shift
[[ ${1-} = --isa=* ]] && isa=${1#*=} && shift
result=$build/bench.json
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE # presets of some machines, which halve a peer's speed
if [ "$isa" = avx2 ]; then
    result=$build/bench-avx2.json
    export OPENBLAS_CORETYPE=Haswell ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2
fi
cores=$(launch/run echo a core | grep -c core) # a rank for each, and a second thread of a core is of no use
runs=()
# the budget of FFN experts is kept in the second half, so that model FLOPs are what is computed, and experts are used
# nearly alike, as they are for nearly all of a training
step() { # name, ranks, threads, options...
    local command=("$build/caracal" train configs/bench.yaml "--run.dir=$work/$1" --train.steps="$steps"
        --parallel.threads="$3" --isa="$isa" --checkpoint.every=0 "${@:4}")
    [ "$2" = 1 ] || command=(launch/run -np "$2" "${command[@]}")
    echo "bench.yaml on $2 x $3" "${@:4}" >&2
    "${command[@]}" >"$work/$1.log" 2>&1 || { tail -n 5 "$work/$1.log" >&2; exit 1; }
    runs+=("$work/$1,$2,$3")
}
roofline=()
if [ -e build/demo/tokenizer.json ]; then
    step 1x1 1 1
    [ "$cores" = 1 ] || { step "1x$cores" 1 "$cores"; step "${cores}x1" "$cores" 1; }
    [ "$isa" != avx2 ] && grep -q avx512_bf16 /proc/cpuinfo && step bf16 1 "$cores" --dtype=bf16
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
    for _ in 1 2 3; do OMP_NUM_THREADS=$cores "$build/peers/gemm" >>"$work/peers.jsonl"; done # the fastest counts
    echo "steps of PyTorch" >&2
    OMP_NUM_THREADS=$cores "$build/peers/venv/bin/python" tests/peers/longcat.py >>"$work/peers.jsonl" 2>"$work/peers.log" ||
        { tail -n 5 "$work/peers.log" >&2; exit 1; }
    peers=("--peers=$work/peers.jsonl")
fi
"$build/tests/bench" "$result" --isa="$isa" "$@" ${roofline[@]+"${roofline[@]}"} ${fold[@]+"${fold[@]}"} ${peers[@]+"${peers[@]}"} ${runs[@]+"${runs[@]}"}
echo
"$build/tests/bench_page" "$result" goals
echo
echo "$result"
