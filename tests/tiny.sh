# What the scripts that train the two-layer model of tiny.yaml share (sourced): a directory of their own to stand in,
# with a tokenizer and token files, and words for what is tried.
# shellcheck shell=bash
set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
caracal=$(cd "$top" && cd "${CARACAL_BUILD:-build}" && pwd)/caracal
. "$top/tests/wait_for.sh"
out=$(mktemp -d)
trap 'code=$?; kill $(jobs -p) 2>/dev/null; [ -e "$out/failed" ] && code=1; rm -rf "$out"; exit $code' EXIT
cd "$out" || exit 2

check() { # name, command...: ok when the command succeeds
    local name=$1 log
    shift
    if log=$("$@" 2>&1); then echo "ok $name"; else
        printf "not ok %s\n%s\n" "$name" "$(tail -n 25 <<<"$log")"
        touch "$out/failed"
        return 1
    fi
}
refuses() { # name, exit code, words of the message, command...
    local name=$1 want=$2 words=$3 log code
    shift 3
    log=$("$@" 2>&1)
    code=$?
    if [ "$code" = "$want" ] && [[ $log == *"$words"* ]]; then echo "ok $name"; else
        printf 'not ok %s: exit code %s, wanted %s and "%s"\n%s\n' "$name" "$code" "$want" "$words" "$log"
        touch "$out/failed"
    fi
}
train() { # ranks, run, options...
    local ranks=$1 run=$2
    shift 2
    if [ "$ranks" = 1 ]; then "$caracal" train tiny.yaml --run.dir="$run" "$@"
    else "$top/launch/run" -np "$ranks" "$caracal" train tiny.yaml --run.dir="$run" "$@"; fi
}
same() { # two runs: metrics, validations and every checkpoint file, byte for byte
    cmp "$1/metrics.jsonl" "$2/metrics.jsonl" && cmp "$1/eval.jsonl" "$2/eval.jsonl" &&
        diff -r "$1/checkpoints" "$2/checkpoints"
}

cp "$top/tests/tiny.yaml" .
"$caracal" tokenizer train --vocab-size=512 --out=tokenizer.json "$top"/kernels/ref/*.c "$top"/model/*.c "$top"/LICENSE \
    >log 2>&1 &&
    "$caracal" data build --tokenizer=tokenizer.json --out=code --valid-fraction=0.2 "$top"/kernels/ref/*.c "$top"/model/*.c \
        "$top"/optim/*.c >>log 2>&1 &&
    "$caracal" data build --tokenizer=tokenizer.json --out=prose --valid-fraction=0.3 "$top"/LICENSE "$top"/Makefile \
        "$top"/kernels/*.h "$top"/model/*.h "$top"/launch/*.h "$top"/optim/*.h >>log 2>&1 || {
    echo "not ok the tests' own data"
    cat log
    exit 1
}
