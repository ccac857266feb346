#!/bin/bash
# The program with the cpu backend in memory that only its kernels can reach (tests/far.c) has the bits of the
# program itself: nothing above the kernels looks into the backend's memory, and what travels between ranks is
# staged through the host.
set -u
. "$(dirname "$0")/tiny.sh"
near=$caracal
far=${caracal%/*}/tests/far/caracal
tests=${caracal%/*}/tests

with() { # program, then what is to be done with it
    local caracal=$1
    shift
    "$@"
}
far_is_near() { # ranks, run, run of the program itself, options...
    with "$far" train "$1" "$2" "${@:4}" && same "$3" "$2"
}

check "the program itself" train 1 base
check "far, 1 rank" far_is_near 1 far1 base
check "far, 2 ranks" far_is_near 2 far2 base
check "far, 4 ranks" far_is_near 4 far4 base
check "far, 2 ranks, without overlap, further rounds" far_is_near 2 far2b base --parallel.overlap=false \
    --parallel.expert_capacity=0.01 --parallel.chunks=3
resumed() { # a checkpoint of one resumes on the other, and the reverse
    train 1 back --train.steps=3 && far_is_near 2 back base &&
        with "$far" train 2 forth --train.steps=3 && train 1 forth && same base forth
}
check "far and near resume one another" resumed
rich=(--loss.mtp_coef=0.3 --model.recompute=true --sdc.interval=2 --parallel.expert_replicas=2)
check "the program itself, MTP, recomputation, replicas" train 4 rich "${rich[@]}"
check "the same, far" far_is_near 4 rich-far rich "${rich[@]}"
relaxed=(--parallel.rank_invariant=false --loss.mtp_coef=0.3)
check "the program itself without promise 3" train 2 relaxed "${relaxed[@]}"
check "the same, far, without promise 3" far_is_near 2 relaxed-far relaxed "${relaxed[@]}"

says_the_same() { # caracal COMMAND... of both
    "$near" "$@" >near.log 2>/dev/null && "$far" "$@" >far.log 2>/dev/null && [ -s far.log ] && cmp near.log far.log
}
check "evaluate" says_the_same evaluate rich --samples=3
check "generate" says_the_same generate base --prompt='int main(' --tokens=8
flipped() { # CARACAL_TEST_FLIP, what is said: a changed bit in far memory is found and named
    CARACAL_TEST_FLIP="$1" with "$far" train 2 flipped --resume=none --sdc.interval=1 >flip.log 2>&1
    code=$?
    cat flip.log
    [ $code = 8 ] && grep -q 'FAULT INJECTED' flip.log && grep -q "$2" flip.log
}
check "a weight's bit" flipped "weight step=3 rank=1 tensor=model.norm.weight index=5 bit=22" "model.norm.weight"
check "an expert product's bit" flipped "gemm step=3 rank=1 layer=0 index=5 bit=22" "gate and up"
check "a message's bit" flipped "message step=3 rank=1 layer=1 operation=dispatch index=5 bit=22" "dispatch"

golden() { # ranks, case: within the golden cases' bounds
    if [ "$1" = 1 ]; then "$tests/far/tests/replay" "$top/tests/golden/$2" "$2-$1"
    else "$top/launch/run" -np "$1" "$tests/far/tests/replay" "$top/tests/golden/$2" "$2-$1"; fi &&
        "$tests/golden" "$top/tests/golden/$2" "$2-$1"
}
check "golden case mtp_pid, 2 ranks" golden 2 mtp_pid
check "golden case sequential" golden 1 sequential
