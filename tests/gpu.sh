#!/bin/bash
# What can only be tried on a GPU, from a carried bundle (launch/bundle.sh), with no packages installed:
#
#   tests/gpu.sh BUNDLE [WORD]     all of it, or the parts whose name has the word in it
#
# Prints "ok NAME", "not ok NAME" or "skipped NAME"; the last line counts.  Ends with 1 if anything is not ok.
set -u
bundle=$(cd "${1:?the bundle}" && pwd)
only=${2-}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cd "$out" || exit 2
caracal=$bundle/bin/caracal
good=0
bad=0

part() { # name, command...
    local name=$1 log began=$SECONDS
    shift
    [[ $name == *"$only"* ]] || return
    if log=$("$@" 2>&1); then
        good=$((good + 1))
        echo "ok $name, $((SECONDS - began)) s"
    else
        bad=$((bad + 1))
        printf 'not ok %s\n%s\n' "$name" "$(tail -n 25 <<<"$log")"
    fi
}
train() { # ranks, run, options...
    local ranks=$1 run=$2
    shift 2
    if [ "$ranks" = 1 ]; then "$caracal" train tiny.yaml --run.dir="$run" --device=cuda "$@"
    else "$bundle/run" -np "$ranks" "$caracal" train tiny.yaml --run.dir="$run" --device=cuda "$@"; fi
}
same() {
    cmp "$1/metrics.jsonl" "$2/metrics.jsonl" && diff -r "$1/checkpoints" "$2/checkpoints"
}
golden() { # case: in float32, within the bounds that the cpu backend meets
    "$bundle/bin/replay" "$bundle/tests/golden/$1" "golden-$1" --device=cuda &&
        "$bundle/bin/golden" "$bundle/tests/golden/$1" "golden-$1"
}
says() { # exit code, words, command...: ends so, with these words
    local want=$1 words=$2 log code
    shift 2
    log=$("$@" 2>&1)
    code=$?
    echo "$log"
    [ $code = "$want" ] && grep -q "$words" <<<"$log"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
for program in "$bundle"/bin/test_cuda_*; do
    [ -e "$program" ] && part "kernels: ${program##*/}" "$program"
done
for case in shortcut sequential mtp_pid deep; do part "golden: $case" golden $case; done

cp "$bundle/tests/tiny.yaml" .
"$caracal" tokenizer train --vocab-size=512 --out=tokenizer.json "$bundle"/tests/text/* >log 2>&1 &&
    "$caracal" data build --tokenizer=tokenizer.json --out=code --valid-fraction=0.2 "$bundle"/tests/text/*.c >>log 2>&1 &&
    "$caracal" data build --tokenizer=tokenizer.json --out=prose --valid-fraction=0.3 "$bundle"/tests/text/*.h >>log 2>&1 ||
    { cat log; exit 2; }
steps="--train.steps=30 --checkpoint.every=10"
# shellcheck disable=SC2086
{
    part "train: 30 steps" train 1 a $steps
    part "train: the same bits again" eval "train 1 b $steps && same a b"
    part "train: the same bits, resumed" eval "train 1 c $steps --train.steps=17 && train 1 c $steps && same a c"
    part "train: the same bits, 2 ranks on one GPU, staged" eval "train 2 d $steps && same a d"
    part "train: a timeline" eval "train 1 e --trace=2-4 && '$bundle/bin/timeline' check e/trace-2-4.json"
}
to_cpu_and_back() {
    train 1 f --train.steps=3 && train 1 f --train.steps=5 --device=cpu && train 1 f
}
part "resume: GPU, CPU, GPU" to_cpu_and_back
part "refused: NCCL, 2 ranks on one GPU" says 2 "share a GPU, and NCCL wants one for each rank" \
    train 2 g --parallel.transport=nccl
part "refused: too little memory" says 7 "are missing" train 1 h --train.micro_batch_size=65536
part "refused: no GPU" env CUDA_VISIBLE_DEVICES= bash -c \
    "! '$caracal' train tiny.yaml --run.dir=i --device=cuda 2>log && grep -q 'no GPU can be used' log"

if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck; do
        for program in "$bundle"/real/test_cuda_*; do # the sanitizer needs the program, not its launcher
            [ -e "$program" ] && part "compute-sanitizer $tool: ${program##*/}" env LD_LIBRARY_PATH="$bundle/lib" \
                compute-sanitizer --tool $tool --error-exitcode 1 "$program"
        done
    done
else
    echo "skipped compute-sanitizer: it is not here"
fi
echo "$good passed, $bad failed"
[ $bad = 0 ]
