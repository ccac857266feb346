#!/bin/bash
# What can only be tried on a GPU, from a carried bundle (launch/bundle.sh), with no packages installed:
#
#   tests/gpu.sh BUNDLE [WORD...]     all of it, or the parts whose name has one of the words in it
#
# Prints "ok NAME", "not ok NAME" or "skipped NAME: WHY"; the last line counts.  Ends with 1 if anything is not ok, or nothing was
# tried.
# What takes longer than CARACAL_GPU_LIMIT seconds (300) counts as hung; runs have CARACAL_GPU_STEPS steps (30).
set -u
bundle=$(cd "${1:?the bundle}" && pwd)
shift
words=("${@:-}")
limit=${CARACAL_GPU_LIMIT:-300}
. "$bundle/tests/gpu_libraries.sh"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cd "$out" || exit 2
caracal=$bundle/bin/caracal
good=0
bad=0
skipped=0

wanted() { # name
    local word
    for word in "${words[@]}"; do [[ $1 == *"$word"* ]] && return; done
    return 1
}
limited() { # command..., in the group of processes that gpu_session.sh may have to end
    local code
    timeout --foreground --signal=INT --kill-after=10 "$limit" "$@"
    code=$?
    case $code in 124 | 137) echo "cut short after $limit s" ;; esac
    return $code
}
# What a part says goes into a file: a pipe would be waited for until all have closed it, and what mpirun leaves behind
# when it is killed does not.
part() { # name, command...
    local name=$1 began=$SECONDS
    shift
    wanted "$name" || return
    if "$@" >part.log 2>&1; then
        good=$((good + 1))
        echo "ok $name, $((SECONDS - began)) s"
    else
        bad=$((bad + 1))
        printf 'not ok %s\n%s\n' "$name" "$(grep -av '^cublasLt' part.log | tail -n 120)" # three tries of one test, of 40 lines each
    fi
}
skip() { # name, why
    wanted "$1" || return
    skipped=$((skipped + 1))
    echo "skipped $1: $2"
}
train() { # ranks, run, options...
    local ranks=$1 run=$2
    shift 2
    if [ "$ranks" = 1 ]; then limited "$caracal" train tiny.yaml --run.dir="$run" --device=cuda "$@"
    else limited "$bundle/run" -np "$ranks" "$caracal" train tiny.yaml --run.dir="$run" --device=cuda "$@"; fi
}
same() {
    cmp "$1/metrics.jsonl" "$2/metrics.jsonl" && diff -r "$1/checkpoints" "$2/checkpoints"
}
# What fails is tried again on the same inputs: with every launch waited for, so that an error names its kernel, and
# without wgmma, where such a bundle lies beside this one.
kernels() { # program
    local -x CARACAL_TEST_SEED=${CARACAL_TEST_SEED:-$RANDOM}
    local code mma="$bundle-mma/bin/${1##*/}"
    limited "$1"
    code=$?
    [ $code != 0 ] || return 0
    case $code in
    124 | 137) ;;
    *)
        echo "--- again, every launch waited for:"
        CUDA_LAUNCH_BLOCKING=1 limited "$1"
        ;;
    esac
    if [ -x "$mma" ]; then
        echo "--- without wgmma:"
        limited "$mma" && echo "--- without wgmma it is right"
    fi
    return 1
}
golden() { # case: in float32, within the bounds that the cpu backend meets
    limited "$bundle/bin/replay" "$bundle/tests/golden/$1" "golden-$1" --device=cuda &&
        "$bundle/bin/golden" "$bundle/tests/golden/$1" "golden-$1"
}
says() { # exit code, words, command...: ends so, with these words
    local want=$1 words=$2 code
    shift 2
    "$@" >said.log 2>&1
    code=$?
    cat said.log
    [ $code = "$want" ] && grep -q "$words" said.log
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no nvidia-smi here"
for program in "$bundle"/bin/test_cuda_*; do
    [ -e "$program" ] && part "kernels: ${program##*/}" kernels "$program"
done
for case in shortcut sequential mtp_pid deep; do part "golden: $case" golden $case; done

cp "$bundle/tests/tiny.yaml" .
"$caracal" tokenizer train --vocab-size=512 --out=tokenizer.json "$bundle"/tests/text/*/* >log 2>&1 &&
    "$caracal" data build --tokenizer=tokenizer.json --out=code --valid-fraction=0.2 "$bundle"/tests/text/*/*.c >>log 2>&1 &&
    "$caracal" data build --tokenizer=tokenizer.json --out=prose --valid-fraction=0.3 "$bundle"/tests/text/*/*.h >>log 2>&1 ||
    { cat log; exit 2; }
n=${CARACAL_GPU_STEPS:-30}
steps="--train.steps=$n --checkpoint.every=$((n / 3)) --checkpoint.keep=2" # the third may be that of a run that was cut short
# shellcheck disable=SC2086
{
    part "train: one step, every operation checked" train 1 check --device=check:cuda --train.steps=1
    part "train: one step in bf16, every operation checked" train 1 check-bf16 --device=check:cuda --dtype=bf16 --train.steps=1
    part "train: $n steps" train 1 a $steps
    part "train: the same bits again" eval "train 1 b $steps && same a b"
    part "train: the same bits, resumed" eval "train 1 c $steps --train.steps=$((n / 2)) && train 1 c $steps && same a c"
    part "train: the same bits, 2 ranks on one GPU, staged" eval "train 2 d $steps && same a d"
    part "train: bf16" train 1 bf16 $steps --dtype=bf16
    part "train: bf16, the same bits again" eval "train 1 bf16-2 $steps --dtype=bf16 && same bf16 bf16-2"
    part "train: bf16, the same bits, 2 ranks on one GPU" eval "train 2 bf16-3 $steps --dtype=bf16 && same bf16 bf16-3"
    part "train: a timeline" eval "train 1 e --trace=2-4 && '$bundle/bin/timeline' check e/trace-2-4.json"
}
to_cpu_and_back() {
    train 1 f --train.steps=3 && train 1 f --train.steps=5 --device=cpu && train 1 f
}
part "resume: GPU, CPU, GPU" to_cpu_and_back
CARACAL_EMULATE_ONE_GPU=1 part "refused: NCCL, 2 ranks on one GPU" says 2 "share a GPU, and NCCL wants one for each rank" \
    train 2 g --parallel.transport=nccl
if [ -e "$bundle/EMULATED" ]; then
    skip "refused: no GPU" "an emulated one is always there"
else
    part "refused: no GPU" says 2 "no GPU can be used" env CUDA_VISIBLE_DEVICES= \
        "$caracal" train tiny.yaml --run.dir=i --device=cuda
fi
part "refused: too little memory" says 7 "are missing" train 1 h --train.micro_batch_size=65536

if LD_PRELOAD=libnccl.so.2 /bin/true 2>&1 | grep -q .; then # the loader complains
    skip "NCCL: a rank to itself" "libnccl.so.2 is not here"
else
    part "NCCL: a rank to itself" limited "$bundle/bin/transport" nccl
fi
part "staged: 2 ranks on one GPU" limited "$bundle/run" -np 2 "$bundle/bin/transport" host

if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck; do
        for program in "$bundle"/bin/test_cuda_*; do # it follows the launcher to the program
            [ -e "$program" ] && part "compute-sanitizer $tool: ${program##*/}" \
                limited compute-sanitizer --target-processes all --tool $tool --error-exitcode 1 "$program"
        done
    done
else
    skip "compute-sanitizer" "it is not here"
fi
echo "$good passed, $bad failed, $skipped skipped"
[ $bad = 0 ] && [ $((good + skipped)) != 0 ]
