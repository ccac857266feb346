#!/bin/bash
# The golden cases (float64, from an independent program) through the production step: both backends, 1, 2 and 4
# ranks.  On one backend, any number of ranks, chunks, threads, recomputation, and AVX2 for AVX-512 give the same bits.
# (Further rounds take more rows than these cases have: tests/promises_cases.sh.)
set -u
cd "$(dirname "$0")/.." || exit 2
bin=${CARACAL_BUILD:-build}/tests
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

check() { # name, command...: ok when the command succeeds
    local name=$1 log
    shift
    if log=$("$@" 2>&1); then echo "ok $name"; else printf "not ok %s\n%s\n" "$name" "$(tail -n 25 <<<"$log")"; fi
}
same() { # two output folders: the same bits in everything
    cmp "$1/steps.json" "$2/steps.json" && cmp "$1/grads.safetensors" "$2/grads.safetensors" &&
        cmp "$1/final.safetensors" "$2/final.safetensors"
}
replay() { # ranks, case, folder, options...: replays, compares with the case
    local ranks=$1 case=$2 to=$out/$3
    shift 3
    if [ "$ranks" = 1 ]; then "$bin/replay" "tests/golden/$case" "$to" "$@" || return
    else launch/run -np "$ranks" "$bin/replay" "tests/golden/$case" "$to" "$@" || return; fi
    "$bin/golden" "tests/golden/$case" "$to"
}
variant() { # base folder, ranks, case, folder, options...: and must have the base's bits
    local base=$out/$1
    shift
    replay "$@" && same "$base" "$out/$3"
}

for device in ref cpu; do
    for case in shortcut sequential mtp_pid deep; do
        base=$case-$device
        check "$case on $device, 1 rank" replay 1 $case $base --device=$device
        check "$case on $device, 2 ranks, same bits" variant $base 2 $case $base-2 --device=$device
        case $case in mtp_pid | deep)
            check "$case on $device, 4 ranks, same bits" variant $base 4 $case $base-4 --device=$device
            ;;
        esac
    done
done
base=deep-cpu
check "deep, 3 chunks" variant $base 2 deep chunks --chunks=3
check "deep, 3 threads" variant $base 1 deep threads --threads=3
check "deep, recomputation" variant $base 2 deep recompute --recompute
check "deep, AVX2" variant $base 2 deep avx2 --isa=avx2
check "deep, two replicas" replay 1 deep replicas --replicas=2
check "deep, two replicas as 2 x 1" variant replicas 2 deep replicas2 --replicas=2
check "deep, two replicas as 2 x 2" variant replicas 4 deep replicas4 --replicas=2 --expert-parallel=2
check "deep, two replicas as 1 x 2" variant replicas 2 deep replicas12 --replicas=2 --expert-parallel=2
check "deep without promise 3, 1 rank" replay 1 deep relaxed --rank-invariant=0
check "deep without promise 3, 2 ranks" replay 2 deep relaxed2 --rank-invariant=0 --replicas=2 --expert-parallel=2
check "mtp_pid without promise 3, 2 ranks" replay 2 mtp_pid relaxed2-mtp --rank-invariant=0
check "mtp_pid checked against ref at every operation" replay 2 mtp_pid checked --device=check:cpu
